//! Images that are refused, each by the name of its fault.

use crate::ground::*;
use serde_json::json;
use tar::EntryType;

/// The refusal of an image with this layer above the plain one.
fn with_layer(entries: &[LayerEntry<'_>]) -> String {
    let mut blobs = Blobs::default();
    let image = blobs.image("amd64", &[plain_layer(), archive(entries)]);
    Site::new().refused(3, &blobs, &image)
}

#[test]
fn a_tag_or_another_algorithm_is_no_pin() {
    let site = Site::new();
    let before = site.lockfile();
    for (name, problem) in [
        (
            "127.0.0.1:1/team/base:latest",
            "\"127.0.0.1:1/team/base:latest\" has no digest, and what a tag names can change",
        ),
        (
            "127.0.0.1:1/team/base@sha512:00",
            "does not end in @sha256: and 64 hexadecimal digits",
        ),
    ] {
        let said = site.bad(3, &["lock", "--offline", "--base", name]);
        assert!(
            said.contains("failed to pin the base image:") && said.contains(problem),
            "{said}"
        );
        assert!(said.contains("pin it as NAME@sha256:… with the digest"), "{said}");
        assert_eq!(site.lockfile(), before);
        // The same by hand.
        site.edit("\n[[archive]]", &format!("\n[base]\nimage = \"{name}\"\n\n[[archive]]"));
        let said = site.bad(3, &["build", "--offline", "--stage", "system"]);
        assert!(
            said.contains("read lockfile.toml, line 6: base:") && said.contains(problem),
            "{said}"
        );
        site.edit(&format!("\n[base]\nimage = \"{name}\"\n"), "");
    }
    let said = site.bad(
        3,
        &["lock", "--offline", "--base", &format!("base@sha256:{}", sha256(b"x"))],
    );
    assert!(said.contains("it has no host; a name is host[:port]/name"), "{said}");
}

#[test]
fn a_foreign_package_and_another_version_are_named_with_both_versions() {
    for (packages, problem) in [
        (
            &[("apt", "3.0"), ("base-files", "13")][..],
            "it has the package apt:amd64=3.0, which the package set system/amd64 has not at all",
        ),
        (
            &[("base-files", "12")],
            "it has the package base-files:amd64=12, which the package set system/amd64 has in version 13",
        ),
    ] {
        let mut blobs = Blobs::default();
        let image = blobs.image("amd64", &[archive(&[file("var/lib/dpkg/status", &status(packages))])]);
        let site = Site::new();
        let said = site.refused(3, &blobs, &image);
        assert!(said.contains(problem), "{said}");
        assert!(
            said.contains("hint: pin an image that was made from the same snapshot"),
            "{said}"
        );
    }
    // The lock moves on, the image does not: the next build says so.
    let mut blobs = Blobs::default();
    let image = plain(&mut blobs);
    let site = Site::new();
    site.pin(&blobs, &image);
    site.edit("version = \"13\"", "version = \"14\"");
    let said = site.bad(3, &["build", "--offline", "--stage", "system"]);
    assert!(
        said.contains("which the package set system/amd64 has in version 14"),
        "{said}"
    );
    let said = site.bad(3, &["lock", "--check"]);
    assert!(said.contains("has in version 14"), "{said}");
    let said = site.bad(3, &["lock", "--offline"]);
    assert!(said.contains("has in version 14"), "{said}");
}

#[test]
fn an_image_without_the_architecture_is_named() {
    let mut blobs = Blobs::default();
    let image = plain(&mut blobs);
    let index = blobs.index(std::slice::from_ref(&image));
    for descriptor in [image, index] {
        let site = Site::new();
        site.pin(&blobs, &descriptor);
        let said = site.bad(3, &["build", "--offline", "--stage", "base", "--arch", "arm64"]);
        assert!(said.contains(&name(&descriptor)), "{said}");
        assert!(said.contains("it has no image for arm64 (it has: amd64)"), "{said}");
    }
    let mut blobs = Blobs::default();
    let other = blobs.image("riscv64", &[plain_layer()]);
    let none = blobs.index(&[other]);
    let said = Site::new().refused(3, &blobs, &none);
    assert!(said.contains("it has no image for any of: amd64, arm64"), "{said}");
    let mut blobs = Blobs::default();
    let two = [
        plain(&mut blobs),
        blobs.image("amd64", &[plain_layer(), archive(&[file("a", "b")])]),
    ];
    let twice = blobs.index(&two);
    let said = Site::new().refused(3, &blobs, &twice);
    assert!(said.contains("its index lists 2 images for amd64, not one"), "{said}");
}

#[test]
fn a_layer_that_leads_out_of_the_root_or_has_a_device_is_refused() {
    for (entries, problem) in [
        (
            &[file("../escape", "x")][..],
            "entry \"../escape\" has a component \"..\"",
        ),
        (&[file("/etc/passwd", "x")], "entry \"/etc/passwd\" is absolute"),
        (&[file("etc/../../x", "x")], "has a component \"..\""),
        (
            &[
                ("etc/out", EntryType::Symlink, 0o777, (0, 0), "/"),
                file("etc/out/x", "x"),
            ],
            "etc/out/x lies below etc/out, which is no directory",
        ),
        (&[("dev/null", EntryType::Char, 0o666, (0, 0), "")], "dev/null"),
        (
            &[("etc/other", EntryType::Link, 0o644, (0, 0), "../../etc/shadow")],
            "has a component \"..\"",
        ),
    ] {
        let said = with_layer(entries);
        assert!(
            said.contains("failed to use the base image 127.0.0.1:1/team/base@sha256:"),
            "{said}"
        );
        assert!(said.contains(problem), "{problem}\n{said}");
    }
}

#[test]
fn lies_of_documents_are_named_with_both_values() {
    // The archive is another one than the configuration states.
    let mut blobs = Blobs::default();
    let wrong = sha256(b"another archive");
    let image = blobs.image_with("amd64", &[plain_layer()], &[format!("sha256:{wrong}")]);
    let said = Site::new().refused(3, &blobs, &image);
    let actual = sha256(&plain_layer());
    assert!(
        said.contains(&format!("expected: {wrong}\n  actual: {actual}")),
        "{said}"
    );

    // The manifest states another size of a layer, of the configuration, or of nothing that is there.
    let mut blobs = Blobs::default();
    let honest = plain(&mut blobs);
    for (pointer, code) in [("/layers/0/size", 4), ("/config/size", 4)] {
        let mut manifest = blobs.document(&honest);
        let size = manifest
            .pointer(pointer)
            .and_then(serde_json::Value::as_u64)
            .expect("a size");
        *manifest.pointer_mut(pointer).expect("there") = json!(size + 1);
        let mut lying = blobs.clone();
        let image = lying.add(MANIFEST, manifest.to_string().as_bytes());
        let said = Site::new().refused(code, &lying, &image);
        assert!(said.contains("wrong size"), "{pointer}: {said}");
        assert!(
            said.contains(&format!("expected: {}", size + 1)) && said.contains(&format!("actual: {size}")),
            "{pointer}: {said}"
        );
    }

    // A manifest in docker's older form.
    let mut blobs = Blobs::default();
    let honest = plain(&mut blobs);
    let mut manifest = blobs.document(&honest);
    manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    let image = blobs.add(MANIFEST, manifest.to_string().as_bytes());
    let said = Site::new().refused(3, &blobs, &image);
    assert!(said.contains("a base image is an OCI image or an OCI index"), "{said}");
}

#[test]
fn an_image_whose_packages_are_unknown_or_unfinished_is_refused() {
    let mut blobs = Blobs::default();
    let image = blobs.image("amd64", &[archive(&[file("etc/motd", "hello\n")])]);
    let said = Site::new().refused(3, &blobs, &image);
    assert!(said.contains("it has no file /var/lib/dpkg/status"), "{said}");
    let half = status(&[("base-files", "13")]).replace("ok installed", "ok half-configured");
    let said = with_layer(&[file("var/lib/dpkg/status", &half)]);
    assert!(
        said.contains("package \"base-files\": its status is \"install ok half-configured\""),
        "{said}"
    );
    let said = with_layer(&[file("var/lib/dpkg/.wh.status", "")]);
    assert!(said.contains("it has no file /var/lib/dpkg/status"), "{said}");
}

#[test]
fn pins_that_are_not_those_of_the_manifest_are_refused_by_the_build() {
    let mut blobs = Blobs::default();
    let image = blobs.image("amd64", &[plain_layer(), archive(&[file("a", "b")])]);
    let site = Site::new();
    site.pin(&blobs, &image);
    let lock = site.lockfile();
    let write = |text: &str| std::fs::write(site.project().join("lockfile.toml"), text).expect("written");
    let diff_id = sha256(&plain_layer()).to_hex();
    for (from, to) in [
        (diff_id.as_str(), sha256(b"x").to_hex().as_str()),
        (
            "media_type = \"application/vnd.oci.image.layer.v1.tar+gzip\"",
            "media_type = \"application/x-tar\"",
        ),
    ] {
        write(&lock);
        site.edit(from, to);
        let said = site.bad(3, &["build", "--offline", "--stage", "base"]);
        let manifest = digest(&image);
        let problem = format!("lockfile.toml has other pins for amd64 than the manifest sha256:{manifest}");
        assert!(said.contains(&problem), "{said}");
    }
    // The list of packages decides what is installed on the image, so the stage compares it with the image.
    for (list, problem) in [
        (
            "[]",
            "it has the package base-files:amd64=13, which lockfile.toml does not list for it",
        ),
        (
            "[\"base-files:amd64=13\", \"bash:amd64=5\"]",
            "which the package set system/amd64 has not at all",
        ),
    ] {
        write(&lock);
        site.edit("[\"base-files:amd64=13\"]", list);
        let said = site.bad(
            if list == "[]" { 7 } else { 3 },
            &["build", "--offline", "--stage", "base"],
        );
        assert!(said.contains(problem), "{said}");
    }
    write(&lock);
    site.good(&["build", "--offline", "--stage", "base"]);
}
