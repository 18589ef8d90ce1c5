//! The OCI image of the product: it is what its statements say, it boots, and other programs read it.

use crate::{own_loader::with_own_loader, project::*};
use pnb::{
    image::{
        composefs::write_image,
        oci::{LayerLimits, LayoutReader, OciImage, apply_layers, take_kernel},
    },
    model::{Arch, Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest},
    store::open_foreign_below,
    verity::{digest_bytes, digest_reader},
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The image for amd64, as an artifact.
fn image() -> PathBuf {
    images().join("oci/amd64")
}

/// Both images, and the layout over them, in one directory: `amd64`, `arm64`, `oci`.
pub(crate) fn joint() -> &'static Path {
    static JOINT: OnceLock<PathBuf> = OnceLock::new();
    JOINT.get_or_init(|| {
        images();
        crate::arm64::images();
        let dir = scratch().join("images-oci");
        let _ = fs::remove_dir_all(&dir);
        let mut command = pnb(repository(), &store());
        command.args([
            "build",
            "--hermetic",
            "--allow-dirty",
            "--arch",
            "all",
            "--variant",
            "oci",
        ]);
        good(command.arg("--output").arg(&dir));
        dir.join("oci")
    })
}

fn root_of(artifact: &Path) -> VerityDigest {
    let text = fs::read(artifact.join("build-manifest.json")).expect("there");
    let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let digest = manifest["fsverity_root_hash"].as_str().expect("text");
    digest.parse().expect("a digest")
}

fn boot(path: &Path, arguments: &[&str], root: VerityDigest) {
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(path).args(["--timeout", &patience(900)]);
    command
        .args(arguments)
        .arg("--fw-cfg")
        .arg(format!("instance_uuid={INSTANCE}"));
    let said = good_boot(&mut command);
    let line = format!("powernode: ready instance={INSTANCE} source=fw_cfg root={root} agent=active");
    assert!(said.contains(&line), "{line} is not in:\n{said}");
}

/// Runs a program of `publish-tools` in `dir` to a good end.
fn tool(program: &str, dir: &Path, arguments: &[&str]) -> String {
    let mut command = with_own_loader(&tree_of("publish-tools"), program);
    command.env("HOME", dir).env("TMPDIR", dir).env("XDG_RUNTIME_DIR", dir);
    good(command.current_dir(dir).args(arguments))
}

#[test]
fn the_image_is_what_its_statements_say() {
    let said = good(pnb(repository(), &store()).arg("audit").arg("-v").arg(image()));
    for want in ["14 rules of bootc", &root_of(&image()).to_string()] {
        assert!(said.contains(want), "{want} is not in:\n{said}");
    }
    assert_eq!(root_of(&image()), root_of(artifact()));
    let said = good(pnb(repository(), &store()).arg("inspect").arg(image()));
    for layer in [
        "libraries",
        "systemd",
        "programs",
        "kernel",
        "initramfs",
        "configuration",
        "agent",
    ] {
        assert!(
            said.contains(&format!("\"{layer}\": zstd")),
            "{layer} is not in:\n{said}"
        );
    }
    for file in ["/vmlinuz: ", "/initramfs.img: ", "usr/sbin/powernode-agent: "] {
        assert!(said.contains(file), "{file} is not in:\n{said}");
    }
    assert!(!said.contains("PROBLEM"), "{said}");
}

#[test]
#[ignore = "long: a boot; cargo test -- --include-ignored"]
fn the_image_boots_to_the_ready_line_with_the_root_of_all_variants() {
    boot(&image(), &[], root_of(artifact()));
}

/// The tree below `dir`, and where each content lies. Without privileges, owners are those of `owners`.
fn tree_on_disk(dir: &Path, owners: &Tree, epoch: Epoch) -> (Tree, BTreeMap<VerityDigest, PathBuf>) {
    let (mut tree, mut contents) = (Tree::new(Meta::root(0o755, epoch)), BTreeMap::new());
    let all = nix::unistd::Uid::effective().is_root();
    for found in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let found = found.expect("readable");
        let stat = fs::symlink_metadata(found.path()).expect("there");
        let below = found
            .path()
            .strip_prefix(dir)
            .expect("below")
            .as_os_str()
            .as_bytes()
            .to_vec();
        let path = (!below.is_empty()).then(|| RelPath::new(below).expect("a path"));
        let stated = path
            .as_ref()
            .map_or(Some(owners.root()), |path| owners.get(path).map(|entry| &entry.meta));
        let (uid, gid) = match stated.filter(|_| !all) {
            Some(stated) => (stated.uid, stated.gid),
            None => (stat.uid(), stat.gid()),
        };
        let meta = Meta {
            uid,
            gid,
            ..Meta::root(
                stat.mode() & 0o7777,
                Epoch::new(u32::try_from(stat.mtime()).expect("32 bits")),
            )
        };
        let Some(path) = path else {
            tree.set_root(meta);
            continue;
        };
        let node = if stat.is_dir() {
            Node::Directory
        } else if stat.is_symlink() {
            let target = fs::read_link(found.path()).expect("a link");
            let target = target.as_os_str().as_bytes().to_vec();
            Node::Symlink { target }
        } else {
            let (digest, size) = digest_reader(fs::File::open(found.path()).expect("opens")).expect("readable");
            contents.insert(digest, found.path().to_owned());
            Node::File { size, digest }
        };
        tree.insert(path, Entry { meta, node }).expect("free");
    }
    (tree, contents)
}

#[test]
#[ignore = "long: the image is unpacked; cargo test -- --include-ignored"]
fn what_umoci_unpacks_has_the_root_digest_without_the_kernel() {
    let layout = image().join("oci");
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> { Ok(Box::new(open_foreign_below(&layout, path)?)) };
    let reader = LayoutReader::new(&open);
    let read = OciImage::find(&reader, Arch::Amd64).expect("an image");
    let epoch = Epoch::new(0);
    let seen = RefCell::new(0u64);
    let mut put = |_: &RelPath, content: &mut dyn Read| {
        let (digest, size) = digest_reader(content)?;
        *seen.borrow_mut() += size;
        Ok((digest, size))
    };
    let applied = apply_layers(&reader, &read, epoch, &LayerLimits::default(), &mut put)
        .expect("whole")
        .tree;
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let source = format!("{}:latest", layout.display());
    let mut arguments = vec!["unpack", "--image", &source, "bundle"];
    if !nix::unistd::Uid::effective().is_root() {
        arguments.insert(1, "--rootless");
    }
    tool("umoci", dir.path(), &arguments);
    let (mut tree, contents) = tree_on_disk(&dir.path().join("bundle/rootfs"), &applied, epoch);
    assert_eq!(tree.len(), applied.len());
    for (path, entry) in applied.iter() {
        assert_eq!(tree.get(path), Some(entry), "{path}");
    }
    take_kernel(&mut tree).expect("a kernel");
    let content = |digest: &VerityDigest| -> io::Result<Box<dyn Read>> {
        Ok(Box::new(fs::File::open(
            contents.get(digest).ok_or(io::ErrorKind::NotFound)?,
        )?))
    };
    let (bytes, digest) = write_image(&tree, &content).expect("an image of the root");
    assert_eq!(digest, digest_bytes(&bytes));
    assert_eq!(digest, root_of(artifact()));
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: arm64 is built, and two boots; cargo test -- --ignored nightly::"]
    fn the_image_for_arm64_boots_by_itself_and_out_of_the_joint_layout() {
        let root = root_of(&crate::arm64::images().join("kernel-initrd/arm64"));
        boot(&joint().join("arm64"), &[], root);
        boot(&joint().join("oci"), &["--arch", "arm64"], root);
    }

    #[test]
    #[ignore = "nightly: arm64 is built; cargo test -- --ignored nightly::"]
    fn skopeo_reads_and_copies_the_joint_layout() {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let source = format!("oci:{}:latest", joint().join("oci").display());
        let raw = tool(
            "skopeo",
            dir.path(),
            &["--insecure-policy", "inspect", "--raw", &source],
        );
        let index: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
        let arches = index["manifests"].as_array().expect("a list").iter();
        let arches: Vec<&str> = arches
            .map(|m| m["platform"]["architecture"].as_str().expect("text"))
            .collect();
        assert_eq!(arches, ["amd64", "arm64"]);
        for arch in arches {
            let platform = ["--insecure-policy", "--override-arch", arch, "inspect", &source];
            let said: serde_json::Value = serde_json::from_str(&tool("skopeo", dir.path(), &platform)).expect("JSON");
            assert_eq!(said["Architecture"], arch);
            assert_eq!(
                said["Labels"]["com.powernode.root-digest"],
                root_of(&joint().join(arch)).to_hex()
            );
        }
        tool(
            "skopeo",
            dir.path(),
            &[
                "--insecure-policy",
                "copy",
                "--all",
                "--preserve-digests",
                &source,
                "oci:copy:latest",
            ],
        );
        let same = Command::new("diff")
            .arg("-r")
            .arg(joint().join("oci/blobs"))
            .arg(dir.path().join("copy/blobs"))
            .output();
        let same = same.expect("runs");
        assert!(same.status.success(), "{}", text(&same));
        // The blobs of the joint layout are those of the artifacts.
        let audited = good(
            pnb(repository(), &store())
                .arg("audit")
                .arg("-v")
                .arg(joint().join("arm64")),
        );
        assert!(audited.contains("14 rules of bootc"), "{audited}");
    }
}
