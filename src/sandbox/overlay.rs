//! Read-only overlays: the inputs of a stage with inodes that no other stage and no program of the host has.
//!
//! A bind mount shows the host's own inode, and an inode keeps more than content: locks, leases, watches, a write hint. Two stages with
//! the same input would find each other's. An overlay has an inode of its own for each file and directory, and reads the content from
//! the lower one.
//!
//! ```text
//! upper layer   an empty directory of the sandbox' root: statfs(2) describes that tmpfs, not the host's disk
//! lower layer   the input, through a mount that maps its owners
//! ```
//!
//! An overlay has directories as layers, so a file is shown through an overlay of the directory that it lies in.
//! Source: the kernel's filesystems/overlayfs.rst.

use super::{
    ablation::{SandboxLayer, is_off},
    rootfs::{attach, rel},
    sys::{self, attr},
    wire::{Fault, Step},
};
use nix::mount::{MntFlags, umount2};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Attributes of the mounts of inputs.
pub(super) const READ_ONLY: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV;

/// Directory of the new root on which layers are mounted for the time of [`Stack::show`]. A lower layer needs a path.
const PLACE: &str = "tmp";
/// [`PLACE`], and an empty directory of the new root, while the new root is mounted at `/proc`.
const LOWER: &str = "/proc/tmp";
const LAYERS: &std::ffi::CStr = c"/proc/build:/proc/tmp";

/// Makes the overlays of one stage, on a root that is mounted at `/proc` and has nothing mounted in it.
pub(super) struct Stack<'a> {
    root: &'a OwnedFd,
    /// Whether inode numbers have the layer's number in their upper bits, and directories the device number of files.
    numbered: bool,
    /// Why the first layer that could not become an overlay did not.
    pub problem: Option<String>,
}

/// A mount at [`PLACE`].
pub(super) struct Placed(OwnedFd);

impl Placed {
    /// A detached mount of the file or directory `inside` of the layer, or of the whole layer.
    pub(super) fn mount_of(&self, inside: Option<&Path>) -> io::Result<OwnedFd> {
        let path = inside.unwrap_or(Path::new(""));
        sys::clone_mount(Some(self.0.as_fd()), &sys::path_text(path)?)
    }

    /// Takes the layer away again; the mounts of its content stay.
    pub(super) fn end(self) -> Result<(), Fault> {
        umount2(LOWER, MntFlags::MNT_DETACH).step("unmount a layer")
    }
}

impl<'a> Stack<'a> {
    pub(super) fn new(root: &'a OwnedFd, numbered: bool) -> Self {
        Self {
            root,
            numbered,
            problem: None,
        }
    }

    /// Mounts an overlay of the detached mount `lower`; where the kernel makes none, `lower` itself.
    pub(super) fn show(&mut self, lower: OwnedFd) -> Result<Placed, Fault> {
        let lower = self.show_as_is(lower)?;
        let options = [
            (c"lowerdir", LAYERS),
            // The kernel's defaults for these depend on its configuration.
            (c"xino", if self.numbered { c"on" } else { c"off" }),
            (c"index", c"off"),
            (c"metacopy", c"off"),
            (c"redirect_dir", c"nofollow"),
        ];
        let made = match is_off(SandboxLayer::Overlays) {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => sys::new_filesystem(c"overlay", &options, READ_ONLY),
        };
        let overlay = match made {
            Ok(overlay) => overlay,
            Err(error) => {
                self.problem.get_or_insert(error.to_string());
                return Ok(lower);
            }
        };
        lower.end()?;
        self.show_as_is(overlay)
    }

    /// Mounts the detached mount itself.
    pub(super) fn show_as_is(&self, mount: OwnedFd) -> Result<Placed, Fault> {
        attach(self.root, &rel(PLACE)?, &mount)?;
        Ok(Placed(mount))
    }
}
