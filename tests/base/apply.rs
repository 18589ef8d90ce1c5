//! An image becomes a tree, with its owners and modes, and without what upper layers remove.

use crate::ground::*;
use pnb::{
    model::{Node, Tree, parse_dump},
    store::Store,
};
use tar::EntryType;

/// The tree that the stage `base` made last.
fn tree(site: &Site) -> Tree {
    let store = Store::open(&site.path().join("store")).expect("opens");
    let (_, record) = store
        .latest_record("base", pnb::model::Arch::Amd64)
        .expect("readable")
        .expect("built");
    let dump = store.read_object(record.outputs["tree"].digest()).expect("there");
    parse_dump(std::str::from_utf8(&dump).expect("text")).expect("a tree")
}

#[test]
fn layers_are_applied_with_owners_modes_and_removals() {
    let lower = archive(&[
        ("etc/", EntryType::Directory, 0o755, (0, 0), ""),
        file("etc/motd", "hello\n"),
        file("etc/gone", "x"),
        file("opt/old/a", "x"),
        ("tmp/", EntryType::Directory, 0o1777, (0, 0), ""),
        ("usr/bin/su", EntryType::Regular, 0o4755, (0, 42), "su"),
        ("usr/bin/same", EntryType::Link, 0o4755, (0, 42), "usr/bin/su"),
        ("bin", EntryType::Symlink, 0o777, (0, 0), "usr/bin"),
        ("home/closed/", EntryType::Directory, 0o500, (7, 8), ""),
        ("home/closed/file", EntryType::Regular, 0o400, (7, 8), "secret"),
        file("var/lib/dpkg/status", "not this one"),
    ]);
    let upper = archive(&[
        file("etc/.wh.gone", ""),
        file("opt/old/.wh..wh..opq", ""),
        file("opt/old/b", "y"),
        file("var/lib/dpkg/status", &status(&[("base-files", "13")])),
    ]);
    let mut blobs = Blobs::default();
    let image = blobs.image("amd64", &[lower, upper]);
    let site = Site::new();
    let printed = site.pin(&blobs, &image);
    assert!(printed.contains("read amd64: 2 layers"), "{printed}");
    assert!(printed.contains(&format!("+ base image {}", name(&image))), "{printed}");
    let lock = site.lockfile();
    assert!(lock.contains("packages = [\"base-files:amd64=13\"]\n"), "{lock}");
    // The image is in the store now: neither mirror nor registry is needed.
    site.good(&["build", "--offline", "--stage", "base"]);
    let tree = tree(&site);
    let entry = |path: &str| tree.get(&path.parse().expect("a path"));
    for gone in ["etc/gone", "opt/old/a", "etc/.wh.gone"] {
        assert_eq!(entry(gone), None, "{gone}");
    }
    for (path, mode, uid, gid) in [
        ("etc", 0o755, 0, 0),
        ("etc/motd", 0o644, 0, 0),
        ("tmp", 0o1777, 0, 0),
        ("usr/bin/su", 0o4755, 0, 42),
        ("usr/bin/same", 0o4755, 0, 42),
        ("home/closed", 0o500, 7, 8),
        ("home/closed/file", 0o400, 7, 8),
        ("opt/old/b", 0o644, 0, 0),
    ] {
        let meta = &entry(path).expect(path).meta;
        assert_eq!((meta.mode, meta.uid, meta.gid), (mode, uid, gid), "{path}");
    }
    let target = |path: &str| match &entry(path).expect(path).node {
        Node::Symlink { target } => String::from_utf8_lossy(target).into_owned(),
        other => unreachable!("{path} is {other:?}"),
    };
    assert_eq!(target("bin"), "usr/bin");
    let digest = |path: &str| match &entry(path).expect(path).node {
        Node::File { digest, .. } => *digest,
        other => unreachable!("{path} is {other:?}"),
    };
    assert_eq!(digest("usr/bin/su"), digest("usr/bin/same"));
}

#[test]
fn a_lock_without_a_base_image_has_no_stage_with_one() {
    let site = Site::new();
    let before = site.lockfile();
    let keys = site.good(&["plan", "--offline", "--stage", "system", "--json"]);
    let graph = |site: &Site| site.good(&["graph", "--offline", "--stage", "system"]);
    assert!(!graph(&site).contains("base/amd64"), "{}", graph(&site));
    let said = site.bad(3, &["build", "--offline", "--stage", "base"]);
    assert!(
        said.contains("failed to find a base image in lockfile.toml: it has none"),
        "{said}"
    );
    assert!(
        said.contains("hint: `pnb lock --base NAME@sha256:…` pins one"),
        "{said}"
    );

    let mut blobs = Blobs::default();
    let image = plain(&mut blobs);
    site.pin(&blobs, &image);
    assert!(graph(&site).contains("base/amd64"), "{}", graph(&site));
    // Pinned again, nothing changes; and without it, the lock and the keys are as before.
    let again = site.good(&["lock", "--offline"]);
    assert!(again.contains("nothing changed"), "{again}");
    let removed = site.good(&["lock", "--offline", "--no-base"]);
    assert!(removed.contains(&format!("- base image {}", name(&image))), "{removed}");
    assert_eq!(site.lockfile(), before);
    assert_eq!(site.good(&["plan", "--offline", "--stage", "system", "--json"]), keys);
}

#[test]
fn an_index_gives_each_architecture_its_image_and_a_table_by_hand_is_filled_in() {
    let mut blobs = Blobs::default();
    let amd64 = plain(&mut blobs);
    let foreign = status(&[("base-files", "13")]).replace("amd64", "arm64");
    let arm64 = blobs.image("arm64", &[archive(&[file("var/lib/dpkg/status", &foreign)])]);
    // Attestations and other systems in the index are no images for us.
    let mut other = blobs.image("riscv64", &[plain_layer()]);
    other["platform"] = serde_json::json!({"architecture": "unknown", "os": "unknown"});
    let index = blobs.index(&[other, amd64, arm64]);
    let site = Site::new();
    site.edit(
        "\n[[archive]]",
        &format!("\n[base]\nimage = \"{}\"\n\n[[archive]]", name(&index)),
    );
    let said = site.bad(3, &["build", "--offline", "--stage", "base"]);
    assert!(said.contains("lockfile.toml has its name only"), "{said}");
    assert!(
        said.contains("hint: `pnb lock` reads the image and writes its pins"),
        "{said}"
    );
    let said = site.bad(3, &["lock", "--check"]);
    assert!(
        said.contains(&format!("the base image {} was not read", name(&index))),
        "{said}"
    );
    let mirror = blobs.mirror(&site.path().join("mirror"));
    let printed = site.good(&["lock", "--offline", "--mirror", &mirror]);
    assert!(
        printed.contains("~ base image") && printed.contains("(pins)"),
        "{printed}"
    );
    let lock = site.lockfile();
    assert_eq!(lock.matches("[[base.platform]]").count(), 2, "{lock}");
    site.good(&["lock", "--check"]);
    site.good(&["build", "--offline", "--stage", "base", "--arch", "all"]);
}
