//! Built-in stage writers: the part of a stage that is Rust instead of a script.
//!
//! They run inside the stage's sandbox like any command: they see `/inputs`, write below `/build`, and nothing else. A
//! tree input is a directory of contents at `/inputs/<name>` and its metadata as a dump at `/inputs/<name>.tree`.

mod bundle;
mod contents;
mod disk;
mod dpkg_root;
mod efi;
mod error;
mod initramfs_modules;
mod install;
mod kernel;
mod pi;
mod plan;
mod qcow2;
mod root;
mod unpack;

pub use error::WriterError;

use crate::{
    model::{Arch, Epoch, Tree, VerityDigest, parse_dump},
    sandbox::{BuiltinTable, BuiltinWriter},
};
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What a writer is told besides its inputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Context {
    /// Architecture of what is made.
    pub arch: Arch,
    /// Time that every output carries.
    pub epoch: Epoch,
    /// Threads it may use.
    pub threads: u32,
    /// Names of the outputs that are taken; what else it could make may be left out.
    pub outputs: Vec<String>,
}

impl Context {
    /// Whether anybody takes the output `name`.
    fn gives(&self, name: &str) -> bool {
        self.outputs.iter().any(|output| output == name)
    }
}

/// File mode creation mask of every writer.
const UMASK: u32 = 0o022;

/// Every writer, by the name `stage.toml` uses, as the sandbox calls it: with a [`Context`] as JSON.
const WRITERS: &[(&str, BuiltinWriter)] = &[
    ("unpack", |arguments| run(arguments, unpack::unpack)),
    ("dpkg-root", |arguments| run(arguments, dpkg_root::dpkg_root)),
    ("install-agent", |arguments| run(arguments, install::install_agent)),
    ("composefs-root", |arguments| run(arguments, root::composefs_root)),
    ("kernel", |arguments| run(arguments, kernel::kernel)),
    ("initramfs-modules", |arguments| {
        run(arguments, initramfs_modules::initramfs_modules)
    }),
    ("initramfs", |arguments| run(arguments, bundle::initramfs)),
    ("initramfs-media", |arguments| run(arguments, bundle::initramfs_media)),
    ("disk-image", |arguments| run(arguments, disk::disk_image)),
    ("pi-card", |arguments| run(arguments, disk::pi_card)),
    ("efi-image", |arguments| run(arguments, efi::efi_image)),
    ("qcow2", |arguments| run(arguments, qcow2::qcow2)),
    ("kernel-initrd", |arguments| run(arguments, bundle::kernel_initrd)),
];

/// Names of the writers.
pub fn names() -> impl Iterator<Item = &'static str> {
    WRITERS.iter().map(|(name, _)| *name)
}

/// The writers for the sandbox helper.
pub fn table() -> BuiltinTable {
    WRITERS.iter().copied().collect()
}

fn run(arguments: &[u8], writer: fn(&Context) -> Result<(), WriterError>) -> Result<(), String> {
    let context: Context =
        serde_json::from_slice(arguments).map_err(|e| format!("failed to read the arguments: {e}"))?;
    // The mode of what a writer makes is its own business, whatever the umask it is called with; a command may come after it.
    let before = umask(Mode::from_bits_truncate(UMASK));
    let written = writer(&context);
    umask(before);
    written.map_err(|error| {
        let mut text = format!("failed to {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    })
}

fn input(name: &str) -> PathBuf {
    Path::new("/inputs").join(name)
}

fn build(name: &str) -> PathBuf {
    Path::new("/build").join(name)
}

/// A tree input: its metadata, and where its contents lie.
struct TreeInput {
    tree: Tree,
    contents: BTreeMap<VerityDigest, PathBuf>,
}

fn tree_input(name: &str) -> Result<TreeInput, WriterError> {
    let dump = input(&format!("{name}.tree"));
    let text = fs::read_to_string(&dump).map_err(WriterError::io("read", &dump))?;
    let tree = parse_dump(&text).map_err(|source| WriterError::Input {
        path: dump,
        source: Box::new(source),
    })?;
    let base = input(name);
    let mut contents = BTreeMap::new();
    for (path, entry) in tree.iter() {
        if let crate::model::Node::File { digest, .. } = &entry.node {
            contents.entry(*digest).or_insert_with(|| base.join(path.as_path()));
        }
    }
    Ok(TreeInput { tree, contents })
}

/// Opens contents by digest from a map of paths.
fn opener(contents: &BTreeMap<VerityDigest, PathBuf>) -> impl Fn(&VerityDigest) -> io::Result<Box<dyn Read>> + '_ {
    |digest| {
        let path = contents
            .get(digest)
            .ok_or_else(|| io::Error::other(format!("no input holds the object {digest}")))?;
        Ok(Box::new(File::open(path)?))
    }
}
