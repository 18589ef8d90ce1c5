//! The places of a base image: a registry, a mirror, the store; and what is said when none of them has it.

use crate::{
    docker_registry::DockerRegistry,
    fault_proxy::{Demand, Fault, FaultProxy},
    ground::*,
};
use pnb::{
    http::{ClientOptions, HttpClient},
    registry::{Credentials, LayoutDirectory, RegistryClient, push_layout, silent},
};
use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Pushes the image that `descriptor` names; returns its name behind the proxy.
fn push(
    site: &Site,
    registry: &DockerRegistry,
    proxy: &FaultProxy,
    blobs: &Blobs,
    descriptor: &serde_json::Value,
) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let layout = site
        .path()
        .join(format!("layout{}", COUNT.fetch_add(1, Ordering::SeqCst)));
    blobs.layout(&layout, descriptor);
    let name = format!("{}/team/base", registry.address).parse().expect("a name");
    let http = HttpClient::new(ClientOptions::default()).expect("a client");
    let client = RegistryClient::new(http, &name, Credentials::Anonymous);
    let layout = LayoutDirectory::open(&layout).expect("a layout");
    let pushed = push_layout(&client, &layout, None, None, &silent()).expect("pushed");
    assert_eq!(pushed.digest, digest(descriptor));
    format!("{}/team/base@sha256:{}", proxy.address, pushed.digest)
}

#[test]
fn an_image_comes_from_a_registry_and_later_from_the_mirror_that_vendor_wrote() {
    let registry = DockerRegistry::start(false);
    let proxy = FaultProxy::new(registry.address);
    let site = Site::new();
    let mut blobs = Blobs::default();
    let image = plain(&mut blobs);
    let index = blobs.index(&[image]);
    let name = push(&site, &registry, &proxy, &blobs, &index);

    // The registry wants a login, which a file of credentials has.
    proxy.demand(Some(Demand::Basic("team".into(), "word".into())));
    let said = site.bad(4, &["lock", "--base", &name]);
    assert!(
        said.contains("no place has it\n  store ") && said.contains(&format!("\n  registry {}: ", proxy.address)),
        "{said}"
    );
    assert!(said.contains("wants a login") || said.contains("credentials"), "{said}");
    // team:word
    let auth = format!(
        "{{\"auths\": {{\"{}\": {{\"auth\": \"dGVhbTp3b3Jk\"}}}}}}",
        proxy.address
    );
    let file = site.path().join("auth.json");
    fs::write(&file, auth).expect("written");
    let file = file.to_str().expect("text").to_owned();
    site.good(&["lock", "--base", &name, "--registry-auth-file", &file]);

    // Another store is filled by a build, and a mirror by vendor. The package of the lock is nowhere, so vendor gets a lock without it.
    let build = ["build", "--stage", "base"];
    let with = |store: &str, more: &[&str]| {
        let done = site.pnb_in(store, &build).args(more).output().expect("starts");
        (done.status.code(), crate::ground::said(&done))
    };
    let (code, said) = with("second", &[]);
    assert_eq!(code, Some(4), "{said}");
    let (code, said) = with("second", &["--registry-auth-file", &file]);
    assert_eq!(code, Some(0), "{said}");
    proxy.demand(None);
    let lock = site.lockfile();
    let cut = lock.find("\n[[package]]").expect("packages");
    fs::write(site.project().join("lockfile.toml"), &lock[..cut]).expect("written");
    let list = "packages = [\"base-files:amd64=13\"]";
    site.edit(list, "packages = []");
    let mirror = site.path().join("vendored");
    let done = site.pnb_in("third", &["vendor"]).arg(&mirror).output().expect("starts");
    assert!(done.status.success(), "{}", crate::ground::said(&done));
    fs::write(site.project().join("lockfile.toml"), &lock).expect("written");
    for (digest, bytes) in &blobs.0 {
        let kept = fs::read(mirror.join("oci/blobs/sha256").join(digest.to_hex())).expect("vendored");
        assert_eq!(&kept, bytes);
    }

    // The registry is gone.
    proxy.on(|_| Some(Fault::Answer(404, String::new(), String::new())));
    let place = format!("file://{}", mirror.display());
    let (code, said) = with("fourth", &["--mirror", &place, "--offline"]);
    assert_eq!(code, Some(0), "{said}");
    proxy.take();
    let (code, said) = with("fifth", &["--mirror", &place]);
    assert_eq!(code, Some(0), "{said}");
    assert!(proxy.take().is_empty(), "the registry is asked last");

    // Without both, every place is listed with its reason.
    let (code, said) = with("sixth", &["--mirror", "file:///nowhere"]);
    assert_eq!(code, Some(4), "{said}");
    for part in [
        "of the base image",
        "no place has it\n  store ",
        "/sixth: not there\n  mirror file:///nowhere/oci/blobs/sha256/",
        ": not found\n  registry ",
        "hint: name a mirror that `pnb vendor` wrote with --mirror",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let (code, said) = with("sixth", &["--offline"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("not asked (--offline)"), "{said}");
}

#[test]
fn a_flipped_byte_is_refused_wherever_it_comes_from_and_the_next_place_is_asked() {
    let registry = DockerRegistry::start(false);
    let proxy = FaultProxy::new(registry.address);
    let site = Site::new();
    let mut blobs = Blobs::default();
    let image = plain(&mut blobs);
    let name = push(&site, &registry, &proxy, &blobs, &image);
    let manifest = blobs.document(&image);
    let (layer, config) = (digest(&manifest["layers"][0]), digest(&manifest["config"]));

    // The registry gives other bytes for the manifest, the configuration, the layer; then none of them is pinned.
    for (part, expected) in [("manifests", digest(&image)), ("blobs", config), ("blobs", layer)] {
        let path = format!("{part}/sha256:{expected}");
        proxy.on(move |asked| asked.is("GET", &path).then_some(Fault::Flip));
        let before = site.lockfile();
        let said = site.bad(4, &["lock", "--base", &name]);
        assert!(said.contains(&format!("sha256:{expected} of the base image")), "{said}");
        assert!(said.contains(&format!("expected: sha256:{expected}\n")), "{said}");
        assert_eq!(site.lockfile(), before);
    }

    // The mirror gives other bytes, and the registry is whole: the build works.
    proxy.on(|_| None);
    site.good(&["lock", "--base", &name]);
    let mirror = site.path().join("mirror");
    let place = blobs.mirror(&mirror);
    for digest in blobs.0.keys() {
        let path = mirror.join("oci/blobs/sha256").join(digest.to_hex());
        let mut bytes = fs::read(&path).expect("there");
        bytes[20] ^= 1;
        fs::write(&path, bytes).expect("written");
    }
    let build = ["build", "--stage", "base", "--mirror", &place];
    let done = site.pnb_in("second", &build).output().expect("starts");
    assert!(done.status.success(), "{}", said(&done));
    // Both do: each is named.
    proxy.on(|asked| asked.is("GET", "blobs/").then_some(Fault::Flip));
    let done = site.pnb_in("third", &build).output().expect("starts");
    let said = said(&done);
    assert_eq!(done.status.code(), Some(4), "{said}");
    assert!(
        said.contains("  mirror file://") && said.contains("wrong SHA-256"),
        "{said}"
    );
    assert!(said.contains(&format!("  registry {}: ", proxy.address)), "{said}");

    // A registry that does not have the digest at all.
    let absent = format!("{}/team/base@sha256:{}", proxy.address, sha256(b"absent"));
    let said = site.bad(4, &["lock", "--base", &absent]);
    assert!(said.contains("does not have it"), "{said}");
}

#[test]
fn a_pinned_image_survives_the_garbage_collection() {
    let mut blobs = Blobs::default();
    let image = plain(&mut blobs);
    let site = Site::new();
    site.pin(&blobs, &image);
    site.good(&["store", "gc"]);
    site.good(&["build", "--offline", "--stage", "base"]);
    site.good(&["lock", "--offline", "--no-base"]);
    site.good(&["store", "gc"]);
    let said = site.bad(4, &["lock", "--offline", "--base", &name(&image)]);
    assert!(said.contains("not asked (--offline)"), "{said}");
}
