//! The root on a base image: pnb's own bootstrap, pushed to a registry and pinned, gives the root that packages give.

use crate::{docker_registry::DockerRegistry, project::*};
use pnb::{
    http::{ClientOptions, HttpClient},
    model::{Arch, Tree, parse_dump},
    registry::{Credentials, LayoutDirectory, RegistryClient, push_layout, silent},
    store::Store,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A copy of the project whose lock pins the bootstrap of `arch` in a registry, and that registry.
struct OnBase {
    dir: tempfile::TempDir,
    registry: DockerRegistry,
    name: String,
}

impl OnBase {
    fn new(arch: Arch) -> Self {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let project = dir.path().join("project");
        copy_of_project(&project);
        let node = format!("bootstrap-image/{arch}");
        let build = ["build", "--stage", "bootstrap-image", "--arch", arch.as_str()];
        good(pnb(&project, &store()).args(build));
        let layout = good(pnb(&project, &store()).args(["store", "path", &node, "--output", "oci"]));
        let layout = LayoutDirectory::open(Path::new(layout.trim())).expect("a layout");
        let registry = DockerRegistry::start(false);
        let image = format!("{}/pnb/bootstrap", registry.address);
        let http = HttpClient::new(ClientOptions::default()).expect("a client");
        let client = RegistryClient::new(http, &image.parse().expect("a name"), Credentials::Anonymous);
        let pushed = push_layout(&client, &layout, None, None, &silent()).expect("pushed");
        let name = format!("{image}@sha256:{}", pushed.digest);
        let on_base = Self { dir, registry, name };
        // The blobs come from the registry: this store has none of them.
        let fresh = on_base.dir.path().join("fresh");
        let mut lock = std::process::Command::new(env!("CARGO_BIN_EXE_pnb"));
        lock.arg("--project").arg(on_base.project()).arg("--store").arg(&fresh);
        good(lock.args(["--mirror", mirror(), "lock", "--base", &on_base.name]));
        // The stages are built in the store of the other tests, from a mirror.
        good(
            std::process::Command::new(env!("CARGO_BIN_EXE_pnb"))
                .arg("--project")
                .arg(on_base.project())
                .arg("--store")
                .arg(store())
                .args([
                    "--mirror",
                    mirror(),
                    "build",
                    "--stage",
                    "base",
                    "--arch",
                    arch.as_str(),
                ]),
        );
        on_base
    }

    fn project(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    /// The file `name` of the root of `arch`, built in `project`.
    fn output(project: &Path, stage: &str, arch: Arch, output: &str) -> PathBuf {
        good(pnb(project, &store()).args(["build", "--stage", stage, "--arch", arch.as_str()]));
        let node = format!("{stage}/{arch}");
        let path = good(pnb(project, &store()).args(["store", "path", &node, "--output", output]));
        PathBuf::from(path.trim())
    }

    /// The root digest of `arch` and its tree, from packages and on the base image.
    fn roots(&self, arch: Arch) -> [(String, String); 2] {
        [repository().to_owned(), self.project()].map(|project| {
            let digest = Self::output(&project, "root", arch, "root-digest");
            let dump = Self::output(&project, "root", arch, "root.dump");
            (
                fs::read_to_string(digest).expect("readable"),
                fs::read_to_string(dump).expect("readable"),
            )
        })
    }
}

/// The tree of the last `rootfs` of this architecture.
fn rootfs(arch: Arch) -> Tree {
    let store = Store::open(&store()).expect("opens");
    let (_, record) = store.latest_record("rootfs", arch).expect("readable").expect("built");
    let dump = store.read_object(record.outputs["tree"].digest()).expect("there");
    parse_dump(std::str::from_utf8(&dump).expect("text")).expect("a tree")
}

fn the_root_is_the_same(arch: Arch) {
    let on_base = OnBase::new(arch);
    let [packages, base] = on_base.roots(arch);
    assert_eq!(packages.1, base.1, "the trees differ");
    assert_eq!(packages.0, base.0, "the root digests differ");
    assert_eq!(base.0.trim().len(), 64);
    // dpkg installed the rest only: the log of the stage on the base image unpacks no package of the bootstrap.
    let log = good(pnb(&on_base.project(), &store()).args(["log", "rootfs", "--arch", arch.as_str()]));
    assert!(log.contains("Unpacking systemd ("), "{log}");
    for bootstrap in ["Unpacking bash (", "Unpacking dpkg (", "Setting up base-files ("] {
        assert!(!log.contains(bootstrap), "{bootstrap}\n{log}");
    }
    assert!(
        on_base
            .registry
            .stored(on_base.name.rsplit(':').next().expect("a digest"))
            .is_some()
    );
}

#[test]
#[ignore = "long: builds the root twice"]
fn the_bootstrap_as_a_base_image_gives_the_root_that_packages_give() {
    the_root_is_the_same(Arch::Amd64);
}

#[test]
#[ignore = "long: builds the root twice"]
fn without_the_mends_the_roots_differ_in_the_triggers_and_in_two_links() {
    let on_base = OnBase::new(Arch::Amd64);
    OnBase::output(&on_base.project(), "rootfs", Arch::Amd64, "tree");
    let mended = rootfs(Arch::Amd64);
    let script = on_base.project().join("stages/rootfs/build.sh");
    let text = fs::read_to_string(&script).expect("readable");
    let begin =
        text.find("# ------------------------------------------------------------------------------- the same with");
    let end = text.find("# ---------------------------------------------------------------------------------------------- what must not");
    let (begin, end) = (begin.expect("there"), end.expect("there"));
    fs::write(&script, format!("{}{}", &text[..begin], &text[end..])).expect("written");
    OnBase::output(&on_base.project(), "rootfs", Arch::Amd64, "tree");
    let unmended = rootfs(Arch::Amd64);
    let paths =
        |tree: &Tree| -> BTreeSet<_> { tree.iter().map(|(path, entry)| (path.clone(), entry.clone())).collect() };
    let (mended, unmended) = (paths(&mended), paths(&unmended));
    let differing: BTreeSet<String> = mended
        .symmetric_difference(&unmended)
        .map(|(path, _)| path.to_string())
        .collect();
    let differing: Vec<&str> = differing.iter().map(String::as_str).collect();
    assert_eq!(
        differing,
        [
            "etc/systemd/system/timers.target.wants/dpkg-db-backup.timer",
            "etc/systemd/system/timers.target.wants/fstrim.timer",
            "usr/lib/sysimage/dpkg/triggers/File",
        ]
    );
}

#[test]
#[ignore = "long: builds an artifact on a base image"]
fn an_artifact_on_a_base_image_states_it_and_an_audit_checks_that() {
    let on_base = OnBase::new(Arch::Amd64);
    let images = on_base.dir.path().join("images");
    let variant = ["--variant", "kernel-initrd"];
    good(
        build(&on_base.project(), &store())
            .args(variant)
            .arg("--output")
            .arg(&images),
    );
    let directory = images.join("kernel-initrd/amd64");
    let audit = || {
        let mut command = pnb(&on_base.project(), &store());
        command.arg("audit").arg(&directory);
        command
    };
    good(&mut audit());
    let file = directory.join("build-manifest.json");
    let text = fs::read_to_string(&file).expect("readable");
    let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let (image, digest) = on_base.name.split_once('@').expect("a digest");
    let base = &manifest["base_image"];
    assert_eq!(base["name"], image);
    assert_eq!(
        (&base["digest"], &manifest["base_image_digest"]),
        (&digest.into(), &digest.into())
    );
    assert_eq!(base["layers"].as_array().map(Vec::len), Some(1));
    let schema = fs::read_to_string(repository().join("docs/build-manifest.schema.json")).expect("readable");
    let schema = serde_json::from_str(&schema).expect("JSON");
    let valid = jsonschema::validate(&schema, &manifest);
    assert!(valid.is_ok(), "{valid:?}");
    let hex = digest.trim_start_matches("sha256:");
    for statement in ["sbom.cdx.json", "provenance.slsa.json"] {
        let text = fs::read_to_string(directory.join(statement)).expect("readable");
        assert!(text.contains(hex), "{statement} names the image");
    }
    // The artifact from packages has the same files, and no base image.
    let plain = fs::read_to_string(artifact().join("build-manifest.json")).expect("readable");
    let plain: serde_json::Value = serde_json::from_str(&plain).expect("JSON");
    assert_eq!(plain["artifacts"], manifest["artifacts"]);
    assert!(plain.get("base_image").is_none());
    assert_ne!(plain["base_image_digest"], manifest["base_image_digest"]);
    // Another digest is no longer that of the stage's input, and the sums are broken too.
    let other = "0".repeat(64);
    fs::write(&file, text.replace(hex, &other)).expect("written");
    let said = text_of_failure(&mut audit());
    assert!(said.contains("build-manifest.json"), "{said}");
}

/// What a command prints that fails.
fn text_of_failure(command: &mut std::process::Command) -> String {
    let done = command.output().expect("starts");
    assert!(!done.status.success(), "{command:?}");
    text(&done)
}

mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: builds the root of arm64 twice, under the emulator"]
    fn arm64_too() {
        the_root_is_the_same(Arch::Arm64);
    }
}
