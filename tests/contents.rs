//! What cannot work on a node is refused where it is made, by name: an agent, an initramfs and a root, each by its own writer in the
//! sandbox.

use pnb::{
    image::cpio::{Root, write_tree},
    model::{Arch, Entry, Epoch, Meta, Node, RelPath, SectorSize, Tree, write_dump},
    sandbox::{Access, Executor, Mount, OutputSpec, RootFs, Spec, Workload},
    store::Content,
    verity::digest_bytes,
    writers::Context,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

#[path = "fixture/elf.rs"]
mod elf;
use elf::{ARM64, EXECUTABLE, ElfFile, RELOCATABLE, SHARED, X86_64};

const EPOCH: Epoch = Epoch::new(1_700_000_000);
const VERSION: &str = "6.12.1-test";

fn path(text: &str) -> RelPath {
    text.parse().expect("a path")
}

/// A tree and the contents of its files.
#[derive(Clone)]
struct Files {
    tree: Tree,
    contents: BTreeMap<RelPath, Vec<u8>>,
}

impl Files {
    fn new() -> Self {
        Self {
            tree: Tree::new(Meta::root(0o755, EPOCH)),
            contents: BTreeMap::new(),
        }
    }

    fn put(&mut self, place: &str, node: Node) {
        let place = path(place);
        self.tree.remove(&place);
        self.tree.make_parents(&place, EPOCH).expect("directories");
        let meta = Meta::root(0o755, EPOCH);
        self.tree.insert(place, Entry { meta, node }).expect("free");
    }

    fn file(&mut self, place: &str, bytes: &[u8]) {
        let (size, digest) = (bytes.len() as u64, digest_bytes(bytes));
        self.put(place, Node::File { size, digest });
        self.contents.insert(path(place), bytes.to_vec());
    }

    fn link(&mut self, place: &str, target: &str) {
        let target = target.into();
        self.put(place, Node::Symlink { target });
    }

    fn remove(&mut self, place: &str) {
        assert!(self.tree.remove(&path(place)) > 0, "{place}");
    }

    fn archive(&self) -> Vec<u8> {
        let by_digest: BTreeMap<_, _> = self.contents.values().map(|c| (digest_bytes(c), c)).collect();
        let open = |digest: &_| -> io::Result<Box<dyn io::Read>> {
            let content = *by_digest.get(digest).ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(Cursor::new(content.clone())))
        };
        write_tree(&self.tree, Root::Omit, &open, Vec::new()).expect("in memory")
    }
}

/// The inputs of one run, laid out as pnb lays them out.
struct Inputs {
    dir: tempfile::TempDir,
    mounts: Vec<Mount>,
}

impl Inputs {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        Self { dir, mounts: vec![] }
    }

    fn mount(&mut self, name: &str) {
        self.mounts.push(Mount {
            source: self.dir.path().join(name),
            target: path(&format!("inputs/{name}")),
            access: Access::ReadOnly,
        });
    }

    fn file(&mut self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).expect("written");
        self.mount(name);
    }

    fn tree(&mut self, name: &str, files: &Files) {
        let base = self.dir.path().join(name);
        fs::create_dir(&base).expect("fresh");
        for (place, entry) in files.tree.iter() {
            let at = base.join(place);
            match &entry.node {
                Node::Directory => fs::create_dir(&at).expect("fresh"),
                Node::Symlink { target } => {
                    symlink(std::str::from_utf8(target).expect("UTF-8"), &at).expect("fresh");
                }
                _ => fs::write(&at, &files.contents[place]).expect("fresh"),
            }
        }
        self.mount(name);
        self.file(&format!("{name}.tree"), write_dump(&files.tree).as_bytes());
    }

    /// Whether the writer ended well, and what it said.
    fn run(&self, writer: &str, arch: Arch) -> (bool, String) {
        let context = Context {
            arch,
            epoch: EPOCH,
            threads: 1,
            sector_size: SectorSize::default(),
            compression_level: None,
            outputs: Vec::new(),
        };
        let spec = Spec {
            mounts: self.mounts.clone(),
            epoch: EPOCH,
            ..Spec::new(
                "test",
                RootFs::Empty,
                Workload::builtin(writer, serde_json::to_vec(&context).expect("JSON")),
            )
        };
        let executor = Executor {
            helper: env!("CARGO_BIN_EXE_pnb").into(),
            strict: false,
        };
        let mut log = Vec::new();
        let mut put = |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("nothing is taken"));
        let ended = executor.run(&spec, &mut put, &mut log);
        (ended.is_ok(), String::from_utf8_lossy(&log).into_owned())
    }
}

/// What differs between the architectures.
fn names(arch: Arch) -> (u16, &'static str, &'static str) {
    match arch {
        Arch::Amd64 => (X86_64, "x86_64-linux-gnu", "/lib64/ld-linux-x86-64.so.2"),
        Arch::Arm64 => (ARM64, "aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1"),
    }
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::read::XzEncoder::new(bytes, 6);
    let mut packed = Vec::new();
    io::Read::read_to_end(&mut out, &mut packed).expect("in memory");
    packed
}

/// Loader, libraries, a shell, udev: what an initramfs and a root have in common.
fn system(arch: Arch) -> Files {
    let (machine, triplet, loader) = names(arch);
    let mut files = Files::new();
    for name in ["bin", "sbin", "lib", "lib64"] {
        files.link(name, &format!("usr/{name}"));
    }
    let library = ElfFile::new(machine, SHARED).bytes();
    files.file(&format!("usr{loader}"), &library);
    for name in ["libc.so.6", "libgcc_s.so.1", "libkmod.so.2", "libblkid.so.1"] {
        files.file(&format!("usr/lib/{triplet}/{name}"), &library);
    }
    files.file(
        "usr/bin/dash",
        &ElfFile::program(machine, loader, &["libc.so.6"]).bytes(),
    );
    files.link("usr/bin/sh", "dash");
    let udevadm = ElfFile::program(machine, loader, &["libblkid.so.1", "libc.so.6"]);
    files.file("usr/bin/udevadm", &udevadm.bytes());
    files
}

/// Modules and their indexes; `dependencies` is `modules.dep`.
fn modules(files: &mut Files, arch: Arch, modules: &[&str], dependencies: &str) {
    let module = xz(&ElfFile::new(names(arch).0, RELOCATABLE).bytes());
    for name in modules {
        files.file(&format!("usr/lib/modules/{VERSION}/kernel/{name}.ko.xz"), &module);
    }
    let index = |name: &str| format!("usr/lib/modules/{VERSION}/{name}");
    files.file(&index("modules.dep"), dependencies.as_bytes());
    files.file(&index("modules.builtin"), b"kernel/virtiofs.ko\n");
}

const LIST: &str = r#"
[both]
programs = ["dash", "udevadm"]
files = ["init", "usr/lib/modules/*/modules.dep"]
drivers = ["ext4", "virtiofs"]
[amd64]
drivers = ["ata_piix"]
[arm64]
drivers = ["bcm2835"]
"#;

/// An initramfs in which nothing is missing.
fn initramfs(arch: Arch) -> Files {
    let mut files = system(arch);
    files.file("init", b"#!/bin/sh\n");
    let own = "kernel/ext4.ko.xz: kernel/crc16.ko.xz\nkernel/crc16.ko.xz:\n";
    let (driver, own) = match arch {
        Arch::Amd64 => ("ata_piix", format!("{own}kernel/ata_piix.ko.xz:\n")),
        Arch::Arm64 => ("bcm2835", format!("{own}kernel/bcm2835.ko.xz:\n")),
    };
    modules(&mut files, arch, &["ext4", "crc16", driver], &own);
    files
}

/// What the writer says to an initramfs for `arch`; its kernel's own index has every dependency.
fn checked(files: &Files, arch: Arch) -> (bool, String) {
    let mut inputs = Inputs::new();
    inputs.file("dracut.cpio", &files.archive());
    let contents = inputs.dir.path().join("contents");
    fs::create_dir(&contents).expect("fresh");
    fs::write(contents.join("contents.toml"), LIST).expect("written");
    inputs.mount("contents");
    let mut indexes = Files::new();
    let all = "kernel/ext4.ko.xz: kernel/crc16.ko.xz\nkernel/crc16.ko.xz:\n";
    indexes.file(&format!("usr/lib/modules/{VERSION}/modules.dep"), all.as_bytes());
    inputs.tree("indexes", &indexes);
    inputs.run("initramfs", arch)
}

fn refused(files: &Files, arch: Arch) -> String {
    let (ended, said) = checked(files, arch);
    assert!(!ended, "it was accepted\n{said}");
    said
}

#[test]
fn a_whole_initramfs_is_accepted() {
    for arch in Arch::ALL {
        let (ended, said) = checked(&initramfs(arch), arch);
        assert!(ended, "{arch}\n{said}");
        assert_eq!(said, "checked 7 programs and libraries, 3 kernel modules\n");
    }
}

#[test]
fn an_initramfs_without_a_library_is_refused() {
    let mut files = initramfs(Arch::Amd64);
    files.remove("usr/lib/x86_64-linux-gnu/libblkid.so.1");
    insta::assert_snapshot!(refused(&files, Arch::Amd64), @r#"
    built-in initramfs: failed to accept the archive that dracut made for amd64:
        usr/bin/udevadm needs the library libblkid.so.1, which is not there (looked for in /usr/lib/x86_64-linux-gnu, /usr/lib)
    "#);
    let mut files = initramfs(Arch::Arm64);
    files.remove("usr/lib/aarch64-linux-gnu/libblkid.so.1");
    insta::assert_snapshot!(refused(&files, Arch::Arm64), @r#"
    built-in initramfs: failed to accept the archive that dracut made for arm64:
        usr/bin/udevadm needs the library libblkid.so.1, which is not there (looked for in /usr/lib/aarch64-linux-gnu, /usr/lib)
    "#);
}

#[test]
fn an_initramfs_without_an_opened_library_is_refused() {
    let mut files = initramfs(Arch::Amd64);
    files.remove("usr/lib/x86_64-linux-gnu/libkmod.so.2");
    insta::assert_snapshot!(refused(&files, Arch::Amd64), @r#"
    built-in initramfs: failed to accept the archive that dracut made for amd64:
        usr/bin/udevadm opens the library libkmod.so.2 at run time (it loads kernel modules with it), but the library is not there
    "#);
}

#[test]
fn an_initramfs_without_a_loader_is_refused() {
    let mut files = initramfs(Arch::Arm64);
    files.remove("usr/lib/ld-linux-aarch64.so.1");
    insta::assert_snapshot!(refused(&files, Arch::Arm64), @r#"
    built-in initramfs: failed to accept the archive that dracut made for arm64:
        usr/bin/dash needs the interpreter /lib/ld-linux-aarch64.so.1, which is not there
        usr/bin/udevadm needs the interpreter /lib/ld-linux-aarch64.so.1, which is not there
    "#);
}

#[test]
fn an_initramfs_without_a_driver_or_what_it_needs_is_refused() {
    let mut files = initramfs(Arch::Arm64);
    let dir = format!("usr/lib/modules/{VERSION}");
    files.remove(&format!("{dir}/kernel/bcm2835.ko.xz"));
    files.remove(&format!("{dir}/kernel/crc16.ko.xz"));
    // As depmod writes it when it does not see the others.
    files.file(&format!("{dir}/modules.dep"), b"kernel/ext4.ko.xz:\n");
    insta::assert_snapshot!(refused(&files, Arch::Arm64), @r#"
    built-in initramfs: failed to accept the archive that dracut made for arm64:
        the driver bcm2835 is neither in usr/lib/modules/6.12.1-test nor built into the kernel
        usr/lib/modules/6.12.1-test/kernel/ext4.ko.xz needs usr/lib/modules/6.12.1-test/kernel/crc16.ko.xz, which is not there
    "#);
}

#[test]
fn an_initramfs_without_a_program_or_a_file_is_refused() {
    let mut files = initramfs(Arch::Amd64);
    files.remove("init");
    files.remove("usr/bin/dash");
    insta::assert_snapshot!(refused(&files, Arch::Amd64), @r#"
    built-in initramfs: failed to accept the archive that dracut made for amd64:
        usr/bin/dash or usr/sbin/dash is not there
        init is not there
    "#);
}

#[test]
fn an_initramfs_with_files_for_another_machine_is_refused() {
    let mut files = initramfs(Arch::Arm64);
    let (machine, _, loader) = names(Arch::Amd64);
    files.file(
        "usr/sbin/e2fsck",
        &ElfFile::program(machine, loader, &["libext2fs.so.2"]).bytes(),
    );
    let module = xz(&ElfFile::new(machine, RELOCATABLE).bytes());
    files.file(&format!("usr/lib/modules/{VERSION}/kernel/ext4.ko.xz"), &module);
    insta::assert_snapshot!(refused(&files, Arch::Arm64), @r#"
    built-in initramfs: failed to accept the archive that dracut made for arm64:
        usr/lib/modules/6.12.1-test/kernel/ext4.ko.xz is for x86-64, the target is arm64
        usr/sbin/e2fsck is for x86-64, the target is arm64
    "#);
}

#[test]
fn an_initramfs_with_hostile_files_is_refused() {
    let mut files = initramfs(Arch::Amd64);
    let mut lie = ElfFile::program(X86_64, "/lib64/ld-linux-x86-64.so.2", &["libc.so.6"]).bytes();
    // Where the program headers are.
    lie[0x20..0x28].fill(0xff);
    files.file("usr/bin/lie", &lie);
    files.file("usr/bin/short", b"\x7fELF\x02\x01\x01");
    files.file("usr/bin/escape", b"\x7fELF\x1b[31m");
    let index = b"kernel/ext4.ko.xz: kernel/\x1b[31mred.ko.xz\nkernel/crc16.ko.xz:\nkernel/ata_piix.ko.xz:\n";
    files.file(&format!("usr/lib/modules/{VERSION}/modules.dep"), index);
    insta::assert_snapshot!(refused(&files, Arch::Amd64), @r#"
    built-in initramfs: failed to accept the archive that dracut made for amd64:
        usr/lib/modules/6.12.1-test/kernel/ext4.ko.xz needs usr/lib/modules/6.12.1-test/kernel/\u{1b}[31mred.ko.xz, which is not there
        usr/bin/escape: failed to read an ELF file at byte 0: its header is cut off
        usr/bin/lie: failed to read an ELF file at byte 18446744073709551615: the file ends before a structure that lies there
        usr/bin/short: failed to read an ELF file at byte 0: its header is cut off
    "#);
    let mut inputs = Inputs::new();
    inputs.file("dracut.cpio", b"070701 and then nothing of the kind");
    let list = inputs.dir.path().join("contents");
    fs::create_dir(&list).expect("fresh");
    fs::write(list.join("contents.toml"), LIST).expect("written");
    inputs.mount("contents");
    let (ended, said) = inputs.run("initramfs", Arch::Amd64);
    assert!(!ended && said.contains("read a cpio archive at byte 0"), "{said}");
}

/// Whether the writer takes a root with these changes, and what it says.
fn root(arch: Arch, change: &dyn Fn(&mut Files, &mut Files)) -> (bool, String) {
    let (mut rootfs, mut kernel, mut agent) = (system(arch), Files::new(), Files::new());
    agent.file("usr/sbin/powernode-agent", b"#!/bin/sh\n");
    modules(&mut kernel, arch, &["ext4"], "");
    kernel.remove(&format!("usr/lib/modules/{VERSION}/modules.dep"));
    let (mut indexes, mut overlay) = (Files::new(), Files::new());
    indexes.file(
        &format!("usr/lib/modules/{VERSION}/modules.dep"),
        b"kernel/ext4.ko.xz:\n",
    );
    overlay.file("etc/hostname", b"node\n");
    overlay.file("usr/lib/powernode/critical-files", b"usr/sbin/powernode-agent\n");
    change(&mut rootfs, &mut agent);
    let mut inputs = Inputs::new();
    for (name, files) in [
        ("rootfs", &rootfs),
        ("kernel", &kernel),
        ("indexes", &indexes),
        ("agent", &agent),
        ("overlay", &overlay),
    ] {
        inputs.tree(name, files);
    }
    inputs.run("composefs-root", arch)
}

#[test]
fn a_root_that_can_work_is_taken() {
    for arch in Arch::ALL {
        let (taken, said) = root(arch, &|_, _| {});
        assert!(taken && said.contains("\nroot "), "{arch}\n{said}");
    }
}

#[test]
fn a_root_that_cannot_work_is_refused() {
    let (taken, said) = root(Arch::Arm64, &|rootfs, agent| {
        rootfs.remove("usr/lib/aarch64-linux-gnu/libblkid.so.1");
        rootfs.remove("usr/lib/aarch64-linux-gnu/libkmod.so.2");
        rootfs.file("usr/lib/systemd/foreign", &ElfFile::new(X86_64, EXECUTABLE).bytes());
        agent.file("usr/sbin/powernode-agent", b"#!/usr/bin/python3\n");
    });
    assert!(!taken, "{said}");
    insta::assert_snapshot!(said, @r#"
    built-in composefs-root: failed to accept the root for arm64:
        usr/bin/udevadm needs the library libblkid.so.1, which is not there (looked for in /usr/lib/aarch64-linux-gnu, /usr/lib)
        usr/lib/systemd/foreign is for x86-64, the target is arm64
        usr/bin/udevadm opens the library libkmod.so.2 at run time (it loads kernel modules with it), but the library is not there
        usr/sbin/powernode-agent needs the interpreter /usr/bin/python3, which is not there
    "#);
}

/// `pnb build` of the agent alone, with this file in place of the pinned one.
fn agent(bytes: &[u8], arch: Arch) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("scratch");
    let file = dir.path().join("given");
    fs::write(&file, bytes).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_pnb"))
        .arg("--project")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")))
        .arg("--store")
        .arg(dir.path().join("store"))
        .args([
            "--offline",
            "build",
            "--stage",
            "agent",
            "--arch",
            arch.as_str(),
            "--agent",
        ])
        .arg(&file)
        .output()
        .expect("starts");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn an_agent_for_another_machine_is_refused_and_its_own_is_taken() {
    let program = ElfFile::new(X86_64, EXECUTABLE).bytes();
    let (code, said) = agent(&program, Arch::Amd64);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = agent(b"#!/bin/sh\n", Arch::Arm64);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = agent(&program, Arch::Arm64);
    assert_eq!(code, Some(7), "{said}");
    let line = said.lines().find(|l| l.contains("built-in install-agent"));
    insta::assert_snapshot!(line.unwrap_or(&said).trim(), @"built-in install-agent: failed to install the agent: it is for x86-64, the target is arm64");
}

#[test]
fn an_agent_that_is_not_static_is_refused() {
    let program = ElfFile::program(ARM64, "/lib/ld-linux-aarch64.so.1", &["libc.so.6"]);
    let (code, said) = agent(&program.bytes(), Arch::Arm64);
    assert_eq!(code, Some(7), "{said}");
    let line = said.lines().find(|l| l.contains("built-in install-agent"));
    insta::assert_snapshot!(line.unwrap_or(&said).trim(), @"built-in install-agent: failed to install the agent: it is a dynamic program that needs /lib/ld-linux-aarch64.so.1; an agent must be a static program, which any root can start");
}
