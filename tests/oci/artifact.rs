//! A whole artifact with a small image: what `pnb audit` and `pnb boot` say of it, and of each that is not as it should be.

use crate::{
    fixture,
    layouts::{Put::*, *},
};
use pnb::{
    audit::{ArtifactRoot, AuditError, AuditOptions, Class, audit},
    image::{
        composefs::write_image,
        oci::{ImageFacts, LayerCompression, LayoutReader, blob_path, take_kernel},
    },
    manifest::{Facts, Statements},
    model::{Arch, BuildOption, RelPath, SectorSize, Tree, VerityDigest},
    sandbox::{Access, Executor, Limits, Mount, OutputKind, OutputSpec, RootFs, Spec, Workload},
    store::Content,
    verity::digest_bytes,
    writers::{Context, IMAGE_COMMAND_LINE, IMAGE_FILES, IMAGE_INPUT, IMAGE_ROOT_DIGEST},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
    process::Command,
};

const KERNEL: &str = "6.12.43+deb13-amd64";
const KARGS: &str = "kargs = [\"powernode.boot=1\", \"lockdown=integrity\"]\n";

/// The root of an image that follows every rule, with its kernel.
fn image_root() -> (Tree, Contents) {
    let modules = format!("usr/lib/modules/{KERNEL}");
    let vmlinuz = format!("{modules}/vmlinuz");
    let initramfs = format!("{modules}/initramfs.img");
    let archive = zstd::encode_all(&fixture::initramfs(b"no root", b"none\n")[..], 1).expect("compressed");
    tree_of(&[
        ("boot", Dir(0o755)),
        ("dev", Dir(0o755)),
        ("etc/group", File(0o644, b"root:x:0:\n")),
        ("etc/passwd", File(0o644, b"root:x:0:0::/root:/bin/sh\n")),
        ("ostree", Link("sysroot/ostree")),
        ("proc", Dir(0o755)),
        ("run", Dir(0o755)),
        ("sys", Dir(0o755)),
        ("sysroot", Dir(0o755)),
        ("tmp", Dir(0o1777)),
        ("usr/lib/bootc/kargs.d/10.toml", File(0o644, KARGS.as_bytes())),
        (&vmlinuz, File(0o444, &fixture::pattern(3000))),
        (&initramfs, File(0o444, &archive)),
        (
            "usr/lib/ostree/prepare-root.conf",
            File(0o644, b"[composefs]\nenabled = yes\n"),
        ),
        (
            "usr/lib/sysimage/dpkg/status",
            File(0o644, fixture::DATABASE.as_bytes()),
        ),
        ("usr/lib/sysusers.d/root.conf", File(0o644, b"u root 0 -\n")),
        ("usr/sbin/agent", File(0o755, &fixture::pattern(70_000))),
        ("var", Dir(0o755)),
    ])
}

/// The digest of the root of a tree with its kernel.
fn root_of(tree: &Tree, contents: &Contents) -> VerityDigest {
    let mut root = tree.clone();
    take_kernel(&mut root).expect("a kernel");
    let open =
        |digest: &VerityDigest| -> io::Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(contents[digest].clone()))) };
    write_image(&root, &open).expect("an image").1
}

/// The layout of the image of a tree whose label states this root.
fn layout_with_label(tree: &Tree, contents: &Contents, label: VerityDigest, arch: Arch) -> Files {
    let facts = ImageFacts {
        arch,
        created: EPOCH,
        kernel_version: KERNEL,
        root: label,
    };
    let one = layer(&entries(tree), contents, LayerCompression::Zstd);
    layout_with(&facts, vec![("all", one)]).0
}

/// Writes the artifact of a layout into `dir`; `change` may alter the facts first.
fn write_artifact(dir: &Path, layout: &Files, root: VerityDigest, change: impl FnOnce(&mut Facts<'_>)) {
    let files = layout
        .iter()
        .map(|(name, bytes)| (path(&format!("oci/{name}")), bytes.clone()));
    let files: BTreeMap<RelPath, Vec<u8>> = files.collect();
    let lock = fixture::lock();
    let mut facts = fixture::facts(&lock, root, &files);
    fixture::describe_as(&mut facts, "oci");
    let manifest = with_reader(layout, |layout: &LayoutReader<'_>| {
        layout.manifests().expect("one").remove(0)
    });
    let hex = manifest.digest().to_string();
    facts.oci_digest = Some(hex.trim_start_matches("sha256:").parse().expect("a digest"));
    change(&mut facts);
    let statements = Statements::describe(&facts).expect("whole facts");
    fixture::write_all(dir, &files, &statements);
}

/// The whole artifact.
fn good() -> (Tree, Contents, VerityDigest, Files) {
    let (tree, contents) = image_root();
    let root = root_of(&tree, &contents);
    let layout = layout_with_label(&tree, &contents, root, Arch::Amd64);
    (tree, contents, root, layout)
}

/// The class of the first check that fails, and the lines of all that fail.
fn audited(dir: &Path) -> (Option<Class>, String) {
    let opener = ArtifactRoot {
        scratch: PathBuf::from("/tmp"),
    };
    let options = AuditOptions {
        opener: &opener,
        lock_sha256: None,
        policy: None,
    };
    match audit(dir, &options) {
        Ok(_) => (None, String::new()),
        Err(AuditError::Failed { report, .. }) => (report.class(), report.table()),
        Err(other) => unreachable!("{other}"),
    }
}

/// The exit code of `pnb audit`.
fn audit_code(dir: &Path) -> Option<i32> {
    let store = tempfile::tempdir().expect("scratch");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("--store").arg(store.path()).arg("audit").arg(dir);
    command.output().expect("runs").status.code()
}

/// Audits an artifact; the class, the exit code of the program, and a line of the report must be these.
fn assert_audit(dir: &Path, class: Class, code: i32, want: &str) {
    let (found, table) = audited(dir);
    assert_eq!(found, Some(class), "{table}");
    assert!(table.contains(want), "lacks {want:?}:\n{table}");
    assert_eq!(audit_code(dir), Some(code), "{table}");
}

#[test]
fn a_whole_artifact_passes() {
    let (_, _, root, layout) = good();
    let dir = tempfile::tempdir().expect("scratch");
    write_artifact(dir.path(), &layout, root, |_| {});
    let (class, table) = audited(dir.path());
    assert_eq!(class, None, "{table}");
    assert_eq!(audit_code(dir.path()), Some(0));
}

#[test]
fn another_root_than_the_manifest_states_is_45() {
    let (tree, contents, root, layout) = good();
    let dir = tempfile::tempdir().expect("scratch");
    let other = VerityDigest::new([9; 32]);
    write_artifact(dir.path(), &layout, other, |_| {});
    assert_audit(dir.path(), Class::Root, 45, "root digest of the layers");
    // A file that the manifest's root does not have.
    let (mut more, mut more_contents) = (tree.clone(), contents.clone());
    let (extra, bytes) = tree_of(&[("usr/sbin/another", File(0o755, b"another"))]);
    more.merge(&extra, false).expect("free");
    more_contents.extend(bytes);
    let layout = layout_with_label(&more, &more_contents, root, Arch::Amd64);
    let dir = tempfile::tempdir().expect("scratch");
    write_artifact(dir.path(), &layout, root, |_| {});
    assert_audit(dir.path(), Class::Root, 45, "root digest of the layers");
    // A mode alone.
    let mut set_id = tree;
    let agent = path("usr/sbin/agent");
    let mut meta = set_id.get(&agent).expect("there").meta.clone();
    meta.mode = 0o4755;
    set_id.set_meta(&agent, meta);
    let layout = layout_with_label(&set_id, &contents, root, Arch::Amd64);
    let dir = tempfile::tempdir().expect("scratch");
    write_artifact(dir.path(), &layout, root, |_| {});
    assert_audit(dir.path(), Class::Root, 45, "root digest of the layers");
}

#[test]
fn options_that_the_layers_contradict_are_45() {
    let (tree, contents, root, layout) = good();
    for option in [BuildOption::Debug, BuildOption::UnsignedModules] {
        let want = format!(" {}\n", option.as_str().replace('-', "_"));
        let stated = |facts: &mut Facts<'_>| {
            facts.options.insert(option);
        };
        // Stated, and not in the layers.
        let dir = tempfile::tempdir().expect("scratch");
        write_artifact(dir.path(), &layout, root, stated);
        assert_audit(dir.path(), Class::Root, 45, &want);
        // In the layers, and not stated.
        let (mut more, mut more_contents) = (tree.clone(), contents.clone());
        let (extra, bytes) = tree_of(&[(&format!("etc/powernode/{option}"), File(0o644, b"yes\n"))]);
        more.merge(&extra, false).expect("free");
        more_contents.extend(bytes);
        let root = root_of(&more, &more_contents);
        let layout = layout_with_label(&more, &more_contents, root, Arch::Amd64);
        let dir = tempfile::tempdir().expect("scratch");
        write_artifact(dir.path(), &layout, root, |_| {});
        assert_audit(dir.path(), Class::Root, 45, &want);
        // Both.
        let dir = tempfile::tempdir().expect("scratch");
        write_artifact(dir.path(), &layout, root, stated);
        let (class, table) = audited(dir.path());
        assert_eq!(class, None, "{table}");
    }
}

#[test]
fn an_image_that_is_not_the_stated_one_is_52() {
    let (tree, contents, root, layout) = good();
    let other = VerityDigest::new([9; 32]);
    let audit_of = |layout: &Files, change: &dyn Fn(&mut Facts<'_>), want: &str| {
        let dir = tempfile::tempdir().expect("scratch");
        write_artifact(dir.path(), layout, root, |facts| change(facts));
        assert_audit(dir.path(), Class::Image, 52, want);
    };
    let labelled = layout_with_label(&tree, &contents, other, Arch::Amd64);
    audit_of(&labelled, &|_| {}, "label com.powernode.root-digest");
    let arm64 = layout_with_label(&tree, &contents, root, Arch::Arm64);
    audit_of(&arm64, &|_| {}, "architecture of the image");
    audit_of(&layout, &|facts| facts.oci_digest = Some(sha256(b"x")), "oci_digest");
    audit_of(
        &layout,
        &|facts| facts.oci_digest = None,
        "the manifest states no oci_digest",
    );
    let mut extra = layout.clone();
    let stray = blob_path(&sha256(b"stray"));
    extra.insert(stray.clone(), b"stray".to_vec());
    audit_of(&extra, &|_| {}, &format!("oci/{stray} is no part of the image"));
    let mut boot = tree.clone();
    let (more, _) = tree_of(&[("boot/vmlinuz", Link("x"))]);
    boot.merge(&more, false).expect("free");
    let boot_root = root_of(&boot, &contents);
    let layout = layout_with_label(&boot, &contents, boot_root, Arch::Amd64);
    let dir = tempfile::tempdir().expect("scratch");
    write_artifact(dir.path(), &layout, boot_root, |_| {});
    assert_audit(
        dir.path(),
        Class::Image,
        52,
        "bootc's rule nonempty-boot: /boot has boot/vmlinuz",
    );
}

#[test]
fn files_beside_the_statements_are_found_first() {
    let (_, _, root, layout) = good();
    let changed = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().expect("scratch");
        write_artifact(dir.path(), &layout, root, |_| {});
        change(dir.path());
        let (class, table) = audited(dir.path());
        (
            class.expect("it fails"),
            audit_code(dir.path()).expect("it ends"),
            table,
        )
    };
    let blob = layout.keys().find(|name| name.starts_with("blobs/")).expect("some");
    let (class, code, table) = changed(&|dir| fs::write(dir.join("oci/blobs/sha256/stray"), b"x").expect("written"));
    assert_eq!((class, code), (Class::Files, 41), "{table}");
    let (class, code, table) = changed(&|dir| fs::remove_file(dir.join("oci").join(blob)).expect("there"));
    assert_eq!((class, code), (Class::Files, 41), "{table}");
    // A link to the same bytes is no file of the artifact, and is not followed.
    let (_, code, table) = changed(&|dir| {
        let index = dir.join("oci/index.json");
        fs::rename(&index, dir.join("oci/other")).expect("there");
        std::os::unix::fs::symlink("other", &index).expect("linked");
    });
    assert!(code != 0 && table.contains("it is a link"), "{code}\n{table}");
    let (_, code, table) = changed(&|dir| {
        let index = dir.join("oci/index.json");
        fs::remove_file(&index).expect("there");
        nix::unistd::mkfifo(&index, nix::sys::stat::Mode::S_IRUSR).expect("made");
    });
    assert!(code != 0 && table.contains("it is a named pipe"), "{code}\n{table}");
}

/// A later layer counts: what it removes is neither checked nor booted, and what it adds is.
fn with_second_layer(members: &[Vec<u8>], tree: &Tree, contents: &Contents) -> Files {
    let first = layer(&entries(tree), contents, LayerCompression::Zstd);
    let first = RawLayer {
        diff_id: first.0.diff_id,
        blob: first.1,
        media_type: TAR_ZSTD,
    };
    raw(&[first, plain(archive(members))])
}

/// Runs the writer in the sandbox, as `pnb boot` does, on the layout in `dir`: its outputs, or the last line that it printed.
fn image_files(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let names = ["kernel", "initramfs.cpio.zst", IMAGE_ROOT_DIGEST, IMAGE_COMMAND_LINE];
    let context = Context {
        arch: Arch::Amd64,
        epoch: EPOCH,
        threads: 1,
        sector_size: SectorSize::default(),
        compression_level: None,
        outputs: names.map(str::to_owned).to_vec(),
    };
    let outputs = names.map(|name| OutputSpec {
        name: name.to_owned(),
        path: path(name),
        kind: OutputKind::File,
        allow_setid: false,
        allow_devices: false,
    });
    let spec = Spec {
        outputs: outputs.to_vec(),
        limits: Limits {
            memory: 1 << 30,
            build_bytes: 1 << 30,
            ..Limits::small()
        },
        mounts: vec![Mount {
            source: dir.canonicalize().expect("there"),
            target: path(&format!("inputs/{IMAGE_INPUT}")),
            access: Access::ReadOnly,
        }],
        ..Spec::new(
            "image",
            RootFs::Empty,
            Workload::builtin(IMAGE_FILES, serde_json::to_vec(&context).expect("JSON")),
        )
    };
    let executor = Executor {
        helper: env!("CARGO_BIN_EXE_pnb").into(),
        strict: false,
    };
    let mut made = BTreeMap::new();
    let mut put = |output: &OutputSpec, _: bool, content: &mut dyn Content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let (digest, size) = (digest_bytes(&bytes), bytes.len() as u64);
        made.insert(output.name.clone(), bytes);
        Ok((digest, size))
    };
    let mut log = Vec::new();
    match executor.run(&spec, &mut put, &mut log) {
        Ok(_) => Ok(made),
        Err(error) => Err(format!("{error}\n{}", String::from_utf8_lossy(&log))),
    }
}

/// The same of these files.
fn files_of(layout: &Files) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let dir = tempfile::tempdir().expect("scratch");
    write(layout, dir.path());
    image_files(dir.path())
}

#[test]
fn the_writer_takes_an_image_apart_as_its_layers_leave_it() {
    let (tree, contents, root, layout) = good();
    let made = files_of(&layout).expect("whole");
    assert_eq!(made["kernel"], fixture::pattern(3000));
    assert_eq!(made["root-digest"], format!("{root}\n").as_bytes());
    assert_eq!(made["command-line"], b"powernode.boot=1 lockdown=integrity\n");
    // Arguments of a lower layer that a later one removes are not used, and those under a second name of a file are.
    let kargs = "usr/lib/bootc/kargs.d";
    let removed = [file(&format!("{kargs}/.wh.10.toml"), b"")];
    let made = files_of(&with_second_layer(&removed, &tree, &contents)).expect("whole");
    assert_eq!(made["command-line"], b"\n");
    let named = [
        file("usr/lib/other.toml", b"kargs = [\"other=1\"]\n"),
        hard_link(&format!("{kargs}/20.toml"), "usr/lib/other.toml"),
    ];
    let made = files_of(&with_second_layer(&named, &tree, &contents)).expect("whole");
    assert_eq!(made["command-line"], b"powernode.boot=1 lockdown=integrity other=1\n");
}

#[test]
fn the_writer_refuses_what_the_reader_refuses() {
    let (tree, contents, root, layout) = good();
    let refused = |layout: &Files, want: &str| {
        let said = files_of(layout).expect_err("it is taken apart");
        assert!(said.contains(want), "lacks {want:?}: {said}");
    };
    let other = VerityDigest::new([9; 32]);
    let want = format!("its layers have another root than its label states\nexpected: {other}\n  actual: {root}");
    refused(&layout_with_label(&tree, &contents, other, Arch::Amd64), &want);
    refused(
        &layout_with_label(&tree, &contents, root, Arch::Arm64),
        "it lists 0 images for amd64, not one",
    );
    refused(
        &with_second_layer(&[symlink("opt", "/etc"), file("opt/passwd", b"x")], &tree, &contents),
        "opt/passwd lies below opt, which is no directory",
    );
    let largest = layout
        .iter()
        .max_by_key(|(_, bytes)| bytes.len())
        .expect("some")
        .0
        .clone();
    let mut flipped = layout.clone();
    let bytes = flipped.get_mut(&largest).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    refused(&flipped, "wrong SHA-256");
    // Links and pipes in place of files.
    for kind in ["link", "directory link", "pipe"] {
        let dir = tempfile::tempdir().expect("scratch");
        write(&layout, dir.path());
        let index = dir.path().join("index.json");
        match kind {
            "link" => {
                fs::rename(&index, dir.path().join("other")).expect("there");
                std::os::unix::fs::symlink("other", &index).expect("linked");
            }
            "directory link" => {
                fs::rename(dir.path().join("blobs"), dir.path().join("other")).expect("there");
                std::os::unix::fs::symlink("other", dir.path().join("blobs")).expect("linked");
            }
            _ => {
                fs::remove_file(&index).expect("there");
                nix::unistd::mkfifo(&index, nix::sys::stat::Mode::S_IRUSR).expect("made");
            }
        }
        let said = image_files(dir.path()).expect_err("it is taken apart");
        let want = if kind == "pipe" {
            "it is a named pipe"
        } else {
            "it is a link, or a directory above it is one"
        };
        assert!(said.contains(want), "{kind}: {said}");
    }
}

#[test]
fn pnb_boot_names_the_layout_and_the_reason() {
    let (tree, contents, _, _) = good();
    let dir = tempfile::tempdir().expect("scratch");
    write(
        &layout_with_label(&tree, &contents, VerityDigest::new([9; 32]), Arch::Amd64),
        dir.path(),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    command.args(["--offline", "--project", env!("CARGO_MANIFEST_DIR"), "--store"]);
    command.arg(scratch.join("store")).arg("boot").arg(dir.path());
    let done = command.output().expect("runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(9), "{said}");
    assert!(
        said.contains("its layers have another root than its label states"),
        "{said}"
    );
}
