//! The file of each family of artifacts that carries the root; [`crate::inspect`] takes the root out of it.

use super::root::{OpenError, OpenRoot, OpenedRoot};
use crate::{
    image::Source,
    inspect::{SpoolDirectory, find_root},
    manifest::Manifest,
    model::Variant,
    store::open_foreign,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The file of a family's artifact that carries the root as a file system; `None` for a family without one.
const fn carrier(variant: Variant) -> Option<&'static str> {
    match variant {
        Variant::KernelInitrd | Variant::Ipxe => Some("initramfs.cpio.zst"),
        Variant::Raw => Some("disk.raw"),
        Variant::Iso => Some("install.iso"),
        Variant::Qcow2 => Some("disk.qcow2"),
        Variant::DiskImageRpi4 | Variant::DiskImageArm64Uefi => Some("disk.img"),
        Variant::Oci => None,
    }
}

/// Opens the root of an artifact of any family that carries it as a file system.
#[derive(Clone, Debug)]
pub struct ArtifactRoot {
    /// An existing directory for the root of a compressed archive, several hundred MiB; the file is removed afterwards.
    pub scratch: PathBuf,
}

impl OpenRoot for ArtifactRoot {
    fn open_root(&self, dir: &Path, manifest: &Manifest) -> Result<OpenedRoot, OpenError> {
        let variant = manifest
            .variant()
            .ok_or("the manifest does not describe exactly one variant")?;
        let name = carrier(variant).ok_or_else(|| format!("{variant} carries no file system with the root"))?;
        let file = open_foreign(&dir.join(name)).map_err(|e| format!("open {name:?}: {e}"))?;
        let source: Source = Arc::new(file);
        let found = find_root(&source, name, &SpoolDirectory::new(&self.scratch))?;
        Ok(OpenedRoot {
            image: Box::new(found.image),
            stated: found.stated,
        })
    }
}
