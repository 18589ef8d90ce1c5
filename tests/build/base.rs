//! The root on a base image: pnb's own bootstrap, pushed to a registry and pinned, gives the root that packages give.

use crate::{docker_registry::DockerRegistry, project::*};
use pnb::{
    http::{ClientOptions, HttpClient},
    model::{Arch, StageKey, Tree, parse_dump, write_dump},
    registry::{Credentials, LayoutDirectory, RegistryClient, push_layout, silent},
    store::Store,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
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
        let mut lock = Command::new(env!("CARGO_BIN_EXE_pnb"));
        lock.arg("--project").arg(on_base.project()).arg("--store").arg(&fresh);
        good(lock.args(["--mirror", mirror(), "lock", "--base", &on_base.name]));
        // The stages are built in the store of the other tests, from a mirror.
        good(
            Command::new(env!("CARGO_BIN_EXE_pnb"))
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

    /// The key of the stage `stage` of `arch` in `project`, which is built.
    fn key(project: &Path, stage: &str, arch: Arch) -> StageKey {
        let built = good(pnb(project, &store()).args(["--json", "build", "--stage", stage, "--arch", arch.as_str()]));
        let node = format!("{stage}/{arch}");
        let events = built.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let of_node = |event: &serde_json::Value| event["node"] == node.as_str() && event["key"].is_string();
        let event = events.into_iter().find(of_node).expect("the stage was built or there");
        event["key"].as_str().expect("a key").parse().expect("a key")
    }

    /// The root digest of `arch`, and the root's tree as text.
    fn root(project: &Path, arch: Arch) -> (String, String) {
        let key = Self::key(project, "root", arch);
        let store = Store::open(&store()).expect("opens");
        let record = store.record(&key).expect("readable").expect("built");
        let text = |name: &str| {
            let bytes = store.read_object(record.outputs[name].digest()).expect("there");
            String::from_utf8(bytes).expect("text")
        };
        (text("root-digest"), text("root.dump"))
    }

    /// The tree of `rootfs` on the base image, and the log of the run that made it.
    fn rootfs(&self, arch: Arch) -> (Tree, String) {
        let key = Self::key(&self.project(), "rootfs", arch);
        let store = Store::open(&store()).expect("opens");
        let record = store.record(&key).expect("readable").expect("built");
        let dump = store.read_object(record.outputs["tree"].digest()).expect("there");
        let tree = parse_dump(std::str::from_utf8(&dump).expect("text")).expect("a tree");
        let log = fs::read_to_string(store.root().join(format!("logs/{key}.log"))).expect("readable");
        (tree, log)
    }
}

fn the_root_is_the_same(arch: Arch) {
    let on_base = OnBase::new(arch);
    let packages = OnBase::root(repository(), arch);
    let base = OnBase::root(&on_base.project(), arch);
    assert_eq!(packages.1, base.1, "the trees differ");
    assert_eq!(packages.0, base.0, "the root digests differ");
    assert_eq!(base.0.trim().len(), 64);
    // dpkg installed the rest only: the log of the stage on the base image unpacks no package of the bootstrap.
    let (_, log) = on_base.rootfs(arch);
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
    let (mended, _) = on_base.rootfs(Arch::Amd64);
    let script = on_base.project().join("stages/rootfs/build.sh");
    let text = fs::read_to_string(&script).expect("readable");
    let begin =
        text.find("# ------------------------------------------------------------------------------- the same with");
    let end = text.find("# ---------------------------------------------------------------------------------------------- what must not");
    let (begin, end) = (begin.expect("there"), end.expect("there"));
    fs::write(&script, format!("{}{}", &text[..begin], &text[end..])).expect("written");
    let (unmended, _) = on_base.rootfs(Arch::Amd64);
    // As text, which has everything of an entry; the path is its first field.
    let lines = |tree: &Tree| -> BTreeSet<String> { write_dump(tree).lines().map(str::to_owned).collect() };
    let (mended, unmended) = (lines(&mended), lines(&unmended));
    let differing = mended.symmetric_difference(&unmended);
    let differing: BTreeSet<&str> = differing.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(
        Vec::from_iter(differing),
        [
            "/etc/systemd/system/timers.target.wants/dpkg-db-backup.timer",
            "/etc/systemd/system/timers.target.wants/fstrim.timer",
            "/usr/lib/sysimage/dpkg/triggers/File",
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
    let plain = on_base.dir.path().join("plain");
    good(build(repository(), &store()).args(variant).arg("--output").arg(&plain));
    let plain = plain.join("kernel-initrd/amd64/build-manifest.json");
    let plain = fs::read_to_string(plain).expect("readable");
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
fn text_of_failure(command: &mut Command) -> String {
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
