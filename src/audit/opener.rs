//! Where the root lies in each family of artifacts; how it is taken out is the room [`crate::inspect`]'s knowledge.

use super::root::{OpenError, OpenRoot, OpenedRoot};
use crate::{
    image::Source,
    inspect::{SpoolDirectory, find_root},
    manifest::Manifest,
    model::Variant,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The file of a family's artifact that carries its root; none for one that carries no file system of it.
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

/// Takes the root out of an artifact of any family that carries it as a file system.
#[derive(Clone, Debug)]
pub struct ArtifactRoot {
    /// An existing directory for a root that lies in a compressed archive, several hundred MiB; nothing stays there.
    pub scratch: PathBuf,
}

impl OpenRoot for ArtifactRoot {
    fn open_root(&self, dir: &Path, manifest: &Manifest) -> Result<OpenedRoot, OpenError> {
        let variant = manifest.variant().ok_or("the manifest is not about one variant")?;
        let name =
            carrier(variant).ok_or_else(|| format!("{variant} carries no file system of the root to look into"))?;
        let file = File::open(dir.join(name)).map_err(|e| format!("open {name:?}: {e}"))?;
        let source: Source = Arc::new(file);
        let found = find_root(&source, name, &SpoolDirectory::new(&self.scratch))?;
        Ok(OpenedRoot {
            image: Box::new(found.image),
            stated: found.stated,
        })
    }
}
