//! The eight artifact families.

use super::{Arch, ModelError, excerpt};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An artifact family; its artifacts are written to `images/<variant>/<arch>/`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// `kernel` and `initramfs.cpio.zst`.
    KernelInitrd,
    /// `disk.raw`.
    Raw,
    /// `install.iso`.
    Iso,
    /// iPXE script, kernel, initramfs and loaders.
    Ipxe,
    /// `disk.qcow2`.
    Qcow2,
    /// bootc-compatible OCI layout.
    Oci,
    /// Raspberry Pi 4 card.
    DiskImageRpi4,
    /// Generic arm64 UEFI disk.
    DiskImageArm64Uefi,
}

impl Variant {
    /// Every variant, in the order of all lists.
    pub const ALL: [Variant; 8] = [
        Variant::KernelInitrd,
        Variant::Raw,
        Variant::Iso,
        Variant::Ipxe,
        Variant::Qcow2,
        Variant::Oci,
        Variant::DiskImageRpi4,
        Variant::DiskImageArm64Uefi,
    ];

    /// The name used in paths, flags and stage names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Variant::KernelInitrd => "kernel-initrd",
            Variant::Raw => "raw",
            Variant::Iso => "iso",
            Variant::Ipxe => "ipxe",
            Variant::Qcow2 => "qcow2",
            Variant::Oci => "oci",
            Variant::DiskImageRpi4 => "disk-image-rpi4",
            Variant::DiskImageArm64Uefi => "disk-image-arm64-uefi",
        }
    }

    /// Whether the family exists for `arch`.
    pub const fn supports(self, arch: Arch) -> bool {
        match self {
            Variant::DiskImageRpi4 | Variant::DiskImageArm64Uefi => matches!(arch, Arch::Arm64),
            _ => true,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl FromStr for Variant {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        Variant::ALL
            .into_iter()
            .find(|v| v.as_str() == text)
            .ok_or_else(|| ModelError::Name {
                kind: "variant",
                value: excerpt(text),
                allowed: Variant::ALL.map(|a| a.as_str()).join(", "),
            })
    }
}
