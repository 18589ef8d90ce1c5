//! The table of the writers, and the call of one by the sandbox.

use super::{
    WriterError, base_image, bundle, disk, dpkg_root, efi, image_files, initramfs_modules, install, kernel, oci, qcow2,
    root, unpack,
};
use crate::{
    model::{Arch, Epoch, SectorSize, ZstdLevel, chain},
    sandbox::{BuiltinTable, BuiltinWriter},
};
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};

/// The arguments of a writer, beside its inputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Context {
    /// Architecture of the outputs.
    pub arch: Arch,
    /// Modification time of everything in an output.
    pub epoch: Epoch,
    /// Number of threads that the writer may use.
    pub threads: u32,
    /// The sectors of a disk that the writer makes.
    pub sector_size: SectorSize,
    /// The level of zstd that `stage.toml` asks for.
    pub compression_level: Option<ZstdLevel>,
    /// Names of the outputs that the stage declares; the writer may leave others out.
    pub outputs: Vec<String>,
}

impl Context {
    /// Whether the stage declares the output `name`.
    pub(super) fn gives(&self, name: &str) -> bool {
        self.outputs.iter().any(|output| output == name)
    }
}

/// File mode creation mask of every writer.
pub(super) const UMASK: u32 = 0o022;

/// Every writer, by its name in `stage.toml`. The sandbox calls it with a [`Context`] as JSON.
const WRITERS: &[(&str, BuiltinWriter)] = &[
    ("unpack", |arguments| run(arguments, unpack::unpack)),
    ("dpkg-root", |arguments| run(arguments, dpkg_root::dpkg_root)),
    ("layer-image", |arguments| run(arguments, base_image::layer_image)),
    ("apply-image", |arguments| run(arguments, base_image::apply_image)),
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
    (image_files::IMAGE_FILES, |arguments| {
        run(arguments, image_files::image_files)
    }),
    ("oci-image", |arguments| run(arguments, oci::oci_image)),
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
    // A writer sets the modes of its files itself, so the stage's umask must not change them. A command may run after it in the same
    // process, so the umask is put back.
    let before = umask(Mode::from_bits_truncate(UMASK));
    let written = writer(&context);
    umask(before);
    written.map_err(|error| format!("failed to {}", chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compresses_is_a_writer() {
        for name in crate::graph::COMPRESSING {
            assert!(names().any(|writer| writer == name), "{name}");
        }
    }
}
