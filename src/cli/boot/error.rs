//! Why an artifact was not booted, or did not boot.

use super::super::{Exit, failure::Fatal};
use pnb::{
    boot::{CloudServiceError, NoKvm, SumsError},
    manifest::ManifestError,
    model::{Arch, Hint, NodeId, Variant, visible_path},
    sandbox::SandboxError,
};
use std::{borrow::Cow, io, path::PathBuf};

/// Why an artifact was not booted, or did not boot; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(super) enum BootError {
    /// The artifact cannot be booted in the way that was asked for.
    #[error("boot {path:?}: {problem}")]
    Choice { path: PathBuf, problem: String },
    /// The command line of the kernel is on the medium.
    #[error("append to the kernel command line: it is on the medium")]
    Append,
    /// KVM was asked for.
    #[error(transparent)]
    NoKvm(#[from] NoKvm),
    /// The time of a machine at the terminal is over.
    #[error("keep the machine running: its {seconds} s are over")]
    TimeOver { seconds: u64 },
    /// There is no disk that could be kept.
    #[error("keep a copy of the disk: the artifact is not a disk")]
    NoDisk,
    /// An option needs a device that QEMU's Raspberry Pi 4 lacks.
    #[error("start QEMU's Raspberry Pi 4 with {0}")]
    Board(&'static str),
    /// There is no firmware that would hand over DMI tables.
    #[error("set values of DMI tables: a machine of arm64 without UEFI has none")]
    NoTables,
    /// The metadata service cannot be played.
    #[error(transparent)]
    Metadata(#[from] CloudServiceError),
    /// An image file by itself has no command line.
    #[error("boot a bare image directly: its command line is in the manifest beside it")]
    NoCommandLine,
    /// Another architecture was asked for.
    #[error("boot {path:?} for {asked}: {reason}")]
    Arch { path: PathBuf, asked: Arch, reason: String },
    /// The file's name has another ending.
    #[error("boot {path:?}: it is neither a directory nor a .raw, .img, .qcow2 or .iso file")]
    Kind { path: PathBuf },
    /// The image has boot loaders for both architectures.
    #[error("boot {path:?}: it has boot loaders for amd64 and for arm64")]
    BothArches { path: PathBuf },
    /// There is nothing at the path.
    #[error("boot {path:?}: there is no such file or directory")]
    Missing { path: PathBuf },
    /// A directory has no manifest that can be read.
    #[error("read {path:?}")]
    NoManifest {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The manifest is malformed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest is about several variants.
    #[error("boot {path:?}: its manifest names {count} variants; one is needed")]
    Variants { path: PathBuf, count: usize },
    /// The variant is not for a machine.
    #[error("boot {path:?}: a machine cannot boot the form of the variant {variant}")]
    NotBootable { path: PathBuf, variant: Variant },
    /// The image cannot be read.
    #[error("read {path:?}")]
    Image {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The layers of an OCI image do not make a machine's files.
    #[error("boot {}: {problem}", visible_path(path))]
    Layers { path: PathBuf, problem: String },
    /// A stage that holds tools gave no tree.
    #[error("find the tools of a boot: the stage {node} gave no tree")]
    NoTools { node: NodeId },
    /// The arguments of the network's servers cannot be written as JSON.
    #[error("describe the servers of the network boot")]
    Served(#[source] serde_json::Error),
    /// There are no random bytes for the nonce.
    #[error("read \"/dev/urandom\"")]
    Nonce(#[source] io::Error),
    /// The artifact's files are not the listed ones.
    #[error(transparent)]
    Sums(#[from] SumsError),
    /// The relays to the servers that the machine reaches cannot run.
    #[error("relay the machine's connections")]
    Relay(#[source] io::Error),
    /// The machine did not run, or did not end by itself.
    #[error(transparent)]
    Machine(#[from] SandboxError),
    /// The machine ran, and did not come to the state that it must come to.
    #[error("boot {}: {problem}", visible_path(path))]
    Judged {
        path: PathBuf,
        problem: String,
        hint: Option<String>,
    },
}

impl Fatal for BootError {
    fn exit(&self) -> Exit {
        match self {
            BootError::Choice { .. }
            | BootError::Append
            | BootError::NoDisk
            | BootError::Board(_)
            | BootError::NoTables
            | BootError::Metadata(_)
            | BootError::NoCommandLine
            | BootError::Arch { .. }
            | BootError::Kind { .. }
            | BootError::BothArches { .. } => Exit::Usage,
            BootError::NoKvm(_)
            | BootError::TimeOver { .. }
            | BootError::Missing { .. }
            | BootError::NoManifest { .. }
            | BootError::Manifest(_)
            | BootError::Variants { .. }
            | BootError::NotBootable { .. }
            | BootError::Image { .. }
            | BootError::Layers { .. }
            | BootError::NoTools { .. }
            | BootError::Served(_)
            | BootError::Relay(_)
            | BootError::Nonce(_)
            | BootError::Sums(_)
            | BootError::Machine(_)
            | BootError::Judged { .. } => Exit::Boot,
        }
    }
}

impl Hint for BootError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self {
            BootError::Append => {
                "--firmware direct takes kernel and initramfs off the medium and boots them with the words of --append"
            }
            BootError::NoKvm(_) => "--accel auto emulates the machine where KVM does not work",
            BootError::TimeOver { .. } => "--interactive without --timeout has no limit of time",
            BootError::NoCommandLine => "name the directory of the artifact",
            BootError::Missing { .. } => {
                "`pnb build --variant raw` makes images/raw/amd64, and so for the other variants"
            }
            BootError::BothArches { .. } => "choose one with --arch",
            BootError::NoManifest { .. } => "name the directory of an artifact, such as images/raw/amd64",
            BootError::Machine(error) => return error.hint(),
            BootError::Sums(error) => return error.hint(),
            BootError::Metadata(error) => return error.hint(),
            BootError::NoTables => "a machine with --firmware uefi has some",
            BootError::Judged { hint, .. } => return hint.as_deref().map(Cow::from),
            _ => return None,
        };
        Some(way.into())
    }
}
