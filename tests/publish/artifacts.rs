//! Small artifacts of one commit that pass every audit: an OCI image for two architectures, and a disk.

use crate::{
    disks::{Files, fat, gpt_disk},
    fixture::{DATABASE, EPOCH, describe_as, facts, initramfs, lock, path, pattern, root_image, write_all},
};
use pnb::{
    image::{
        composefs::write_image,
        fat::FatKind,
        gpt::{self, PartitionRequest, types},
        oci::{
            ImageFacts, LAYOUT_FILE, LayerCompression, LayerEntries, OCI_INDEX, blob_path, image_documents,
            layout_file, layout_index, take_kernel, write_layer,
        },
    },
    manifest::Statements,
    model::{Arch, Entry, Meta, Node, NodeId, RelPath, Sha256Digest, Tree, VerityDigest, ZstdLevel},
    verity::{Both, digest_bytes},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor, Read, Seek},
    num::NonZeroU32,
    path::Path,
    sync::OnceLock,
};
use tempfile::TempDir;

const KERNEL: &str = "6.12.43+deb13-amd64";
const KARGS: &[u8] = b"kargs = [\"powernode.boot=1\", \"lockdown=integrity\"]\n";

enum Put<'a> {
    Dir(u32),
    Link(&'a str),
    File(u32, &'a [u8]),
}

/// The root of an image that follows the rules of bootc, and its contents. An agent of another length makes another image.
fn image_root(agent: usize) -> (Tree, BTreeMap<VerityDigest, Vec<u8>>) {
    use Put::*;
    let archive = zstd::encode_all(&initramfs(b"no root", b"none\n")[..], 1).expect("compressed");
    let (vmlinuz, agent) = (pattern(3000), pattern(agent));
    let kernel = format!("usr/lib/modules/{KERNEL}/vmlinuz");
    let initrd = format!("usr/lib/modules/{KERNEL}/initramfs.img");
    let entries: [(&str, Put<'_>); 18] = [
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
        ("usr/lib/bootc/kargs.d/10.toml", File(0o644, KARGS)),
        (&kernel, File(0o444, &vmlinuz)),
        (&initrd, File(0o444, &archive)),
        (
            "usr/lib/ostree/prepare-root.conf",
            File(0o644, b"[composefs]\nenabled = yes\n"),
        ),
        ("usr/lib/sysimage/dpkg/status", File(0o644, DATABASE.as_bytes())),
        ("usr/lib/sysusers.d/root.conf", File(0o644, b"u root 0 -\n")),
        ("usr/sbin/agent", File(0o755, &agent)),
        ("var", Dir(0o755)),
    ];
    let (mut tree, mut contents) = (Tree::new(Meta::root(0o755, EPOCH)), BTreeMap::new());
    for (name, put) in entries {
        let (mode, node) = match put {
            Dir(mode) => (mode, Node::Directory),
            Link(target) => (
                0o777,
                Node::Symlink {
                    target: target.as_bytes().to_vec(),
                },
            ),
            File(mode, bytes) => {
                let digest = digest_bytes(bytes);
                contents.insert(digest, bytes.to_vec());
                (
                    mode,
                    Node::File {
                        size: bytes.len() as u64,
                        digest,
                    },
                )
            }
        };
        let meta = Meta::root(mode, EPOCH);
        tree.make_parents(&path(name), EPOCH).expect("directories");
        tree.insert(path(name), Entry { meta, node }).expect("free");
    }
    (tree, contents)
}

/// The files of an artifact with an image, the digest of its root, and that of its manifest.
fn image(arch: Arch, agent: usize) -> (BTreeMap<RelPath, Vec<u8>>, VerityDigest, Sha256Digest) {
    let (tree, contents) = image_root(agent);
    let open =
        |digest: &VerityDigest| -> io::Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(contents[digest].clone()))) };
    let mut without = tree.clone();
    take_kernel(&mut without).expect("a kernel");
    let root = write_image(&without, &open).expect("an image").1;
    let entries = LayerEntries {
        root: Some(tree.root()),
        entries: tree.iter().collect(),
    };
    let mut blob = Vec::new();
    let written = write_layer(
        &entries,
        &open,
        LayerCompression::Zstd,
        ZstdLevel::HIGH,
        NonZeroU32::MIN,
        &mut blob,
    )
    .expect("written");
    let facts = ImageFacts {
        arch,
        created: EPOCH,
        kernel_version: KERNEL,
        root,
    };
    let mut files = BTreeMap::from([(blob_path(&written.digest), blob)]);
    let (config, manifest) = image_documents(&facts, &[("all".to_owned(), written)]).expect("documents");
    for document in [&config, &manifest] {
        files.insert(blob_path(&document.digest()), document.bytes.clone());
    }
    files.insert(LAYOUT_FILE.to_owned(), layout_file().expect("text"));
    files.insert(
        OCI_INDEX.to_owned(),
        layout_index(&manifest.descriptor).expect("an index"),
    );
    let files = files
        .into_iter()
        .map(|(name, bytes)| (path(&format!("oci/{name}")), bytes));
    (files.collect(), root, manifest.digest())
}

/// A disk whose initramfs states the digest of the root in its second partition.
fn disk() -> (BTreeMap<RelPath, Vec<u8>>, VerityDigest) {
    let (root, digest) = root_image();
    let menu = b"menuentry 'Powernode node' {\n  linux /powernode/kernel powernode.boot=1 quiet\n}\n";
    let files = Files::from([
        ("EFI/debian/grub.cfg".to_owned(), menu.to_vec()),
        (
            "powernode/initramfs.cpio.zst".to_owned(),
            initramfs(root, format!("{digest}\n").as_bytes()),
        ),
    ]);
    let esp = fat(FatKind::Fat16, &files);
    let partitions = [
        ("powernode-esp", types::EFI_SYSTEM, &esp[..]),
        ("powernode-root", types::LINUX_DATA, &root[..]),
    ];
    (BTreeMap::from([(path("disk.raw"), gpt_disk(&partitions))]), *digest)
}

/// An artifact, with all statements about it, below `images`.
fn write(images: &Path, arch: Arch, variant: &str, agent: usize) {
    let (files, root, oci_digest) = match variant {
        "oci" => {
            let (files, root, digest) = image(arch, agent);
            (files, root, Some(digest))
        }
        _ => {
            let (files, root) = disk();
            (files, root, None)
        }
    };
    let mut lock = lock();
    // One agent for both architectures.
    lock.files[0].arch = None;
    let mut facts = facts(&lock, root, &files);
    describe_as(&mut facts, variant);
    facts.arch = arch;
    let root = facts.stages.last_mut().expect("the stage that makes the root");
    root.node = NodeId::new("root", arch);
    facts.oci_digest = oci_digest.map(|digest| digest.to_hex().parse().expect("a digest"));
    let statements = Statements::describe(&facts).expect("whole facts");
    let dir = images.join(variant).join(arch.to_string());
    fs::create_dir_all(&dir).expect("made");
    write_all(&dir, &files, &statements);
}

/// Writes `oci` for both architectures and `raw` for amd64 below `images`.
pub(crate) fn write_artifacts(images: &Path) {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("scratch");
        write(dir.path(), Arch::Amd64, "oci", 70_000);
        write(dir.path(), Arch::Arm64, "oci", 70_000);
        write(dir.path(), Arch::Amd64, "raw", 0);
        dir
    });
    for entry in walkdir::WalkDir::new(made.path()).sort_by_file_name() {
        let entry = entry.expect("readable");
        let place = images.join(entry.path().strip_prefix(made.path()).expect("below"));
        match entry.file_type().is_dir() {
            true => fs::create_dir_all(place).expect("made"),
            false => drop(fs::copy(entry.path(), place).expect("copied")),
        }
    }
}

/// Writes an image of the same commit with another agent in place of the one for amd64.
pub(crate) fn write_other_image(images: &Path) {
    fs::remove_dir_all(images.join("oci/amd64")).expect("removed");
    write(images, Arch::Amd64, "oci", 80_000);
}

/// Makes the disk for amd64 this long. What is added are zeros, which take no space.
pub(crate) fn lengthen_disk(images: &Path, size: u64) {
    let (files, root) = disk();
    let name = path("disk.raw");
    let dir = images.join("raw/amd64");
    let open = fs::OpenOptions::new().read(true).write(true).open(dir.join(&name));
    let mut file = open.expect("there");
    // The table of the same partitions on a longer disk.
    let old = gpt::read(&files[&name]).expect("a disk");
    let wanted = old.partitions.iter().map(|partition| PartitionRequest {
        name: partition.name.clone(),
        type_guid: partition.type_guid,
        guid: partition.guid,
        size: partition.size(old.sector_size),
        attributes: partition.attributes,
    });
    let table = gpt::plan(old.guid, old.sector_size, &wanted.collect::<Vec<_>>(), Some(size)).expect("fits");
    file.set_len(size).expect("lengthened");
    gpt::write(&table, None, &mut file).expect("written");
    file.rewind().expect("a file");
    let mut both = Both::new();
    io::copy(&mut file, &mut both).expect("read");
    let lock = lock();
    let mut facts = facts(&lock, root, &files);
    describe_as(&mut facts, "raw");
    facts.artifacts = BTreeMap::from([(name.clone(), both.finish())]);
    let statements = Statements::describe(&facts).expect("whole facts");
    write_all(&dir, &BTreeMap::new(), &statements);
}
