//! The variants of an artifact, and the forms that they have.

use super::{Arch, ModelError, excerpt, is_name};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{cmp::Ordering, fmt, hash, str::FromStr};

/// Most bytes of a variant's name.
const MAX_NAME: usize = 31;

/// The name of a variant, which is that of the stage that makes it; its artifacts are written to `images/<variant>/<arch>/`.
///
/// The `[variant]` of a stage's `stage.toml` declares it. Names have at most 31 letters, digits and `.+-_`, begin with a letter or
/// digit, and are ordered as text.
#[derive(Clone, Copy)]
pub struct Variant {
    /// The name, and NUL behind it.
    bytes: [u8; MAX_NAME],
    length: u8,
}

impl Variant {
    /// The variant that is published where nodes boot from a kernel and an initramfs.
    pub const KERNEL_INITRD: Variant = Variant::of("kernel-initrd");

    /// The variant of a name that is known to be one.
    const fn of(name: &str) -> Self {
        let (mut bytes, mut at) = ([0; MAX_NAME], 0);
        while at < name.len() {
            bytes[at] = name.as_bytes()[at];
            at += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the array has fewer than 256 bytes")]
        let length = at as u8;
        Self { bytes, length }
    }

    /// The name used in paths, flags and stage names.
    pub fn as_str(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl PartialEq for Variant {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
impl Eq for Variant {}
impl PartialOrd for Variant {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Variant {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}
impl hash::Hash for Variant {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variant({})", self.as_str())
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
        if is_name(text) && text.len() <= MAX_NAME {
            return Ok(Self::of(text));
        }
        Err(ModelError::VariantName { value: excerpt(text) })
    }
}
impl Serialize for Variant {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}
impl<'de> Deserialize<'de> for Variant {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The form of an artifact: the files in its directory that a machine boots from, and the place of the root in them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactForm {
    /// The files `kernel` and `initramfs.cpio.zst`, with the root in the latter.
    KernelInitramfs,
    /// A disk image, byte for byte.
    RawDisk,
    /// A disk image as qcow2.
    Qcow2Disk,
    /// An ISO 9660 image for an optical disc or a USB stick.
    Optical,
    /// A directory for HTTP and TFTP servers, with `kernel` and `initramfs.cpio.zst` as in [`ArtifactForm::KernelInitramfs`].
    Network,
    /// The image of a Raspberry Pi's SD card.
    PiCard,
    /// An OCI image in the layout directory `oci`.
    OciImage,
    /// Any other files. pnb neither boots them nor finds the root in them.
    Other,
}

impl ArtifactForm {
    /// The files that a machine boots from without a medium, in the forms that have them.
    pub const DIRECT_FILES: [&str; 2] = ["kernel", "initramfs.cpio.zst"];
    /// The directory of [`ArtifactForm::OciImage`].
    pub const LAYOUT_DIRECTORY: &str = "oci";

    /// Every form, in the order of all lists.
    pub const ALL: [ArtifactForm; 8] = [
        ArtifactForm::KernelInitramfs,
        ArtifactForm::RawDisk,
        ArtifactForm::Qcow2Disk,
        ArtifactForm::Optical,
        ArtifactForm::Network,
        ArtifactForm::PiCard,
        ArtifactForm::OciImage,
        ArtifactForm::Other,
    ];

    /// The name in stage files and manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            ArtifactForm::KernelInitramfs => "kernel-initramfs",
            ArtifactForm::RawDisk => "raw-disk",
            ArtifactForm::Qcow2Disk => "qcow2-disk",
            ArtifactForm::Optical => "optical",
            ArtifactForm::Network => "network",
            ArtifactForm::PiCard => "pi-card",
            ArtifactForm::OciImage => "oci-image",
            ArtifactForm::Other => "other",
        }
    }

    /// Whether the artifact is one image file, which `[variant]` of its stage names.
    pub const fn has_image(self) -> bool {
        match self {
            ArtifactForm::RawDisk | ArtifactForm::Qcow2Disk | ArtifactForm::Optical | ArtifactForm::PiCard => true,
            ArtifactForm::KernelInitramfs | ArtifactForm::Network | ArtifactForm::OciImage | ArtifactForm::Other => {
                false
            }
        }
    }

    /// Whether machines of `arch` can boot it.
    pub const fn supports(self, arch: Arch) -> bool {
        !matches!((self, arch), (ArtifactForm::PiCard, Arch::Amd64))
    }
}

impl fmt::Display for ArtifactForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_ordered_as_text() {
        let longest = "x".repeat(MAX_NAME);
        for name in ["raw", "disk-image-rpi4", "a.b+c_d", &longest] {
            let variant: Variant = name.parse().expect("a name");
            assert_eq!(variant.to_string(), name);
            assert_eq!(serde_json::to_string(&variant).expect("JSON"), format!("{name:?}"));
        }
        let raw: Variant = "raw".parse().expect("a name");
        let raw_4k: Variant = "raw-4k".parse().expect("a name");
        assert!(raw < raw_4k && raw_4k < "raw0".parse().expect("a name"));
        for bad in ["", "-raw", "raw/amd64", "..", "räw", "raw\0", &"x".repeat(MAX_NAME + 1)] {
            assert!(bad.parse::<Variant>().is_err(), "{bad:?}");
        }
        let error = "raw disk".parse::<Variant>().expect_err("a space").to_string();
        assert_eq!(
            error,
            "\"raw disk\" is not the name of a variant: at most 31 letters, digits and .+-_, first a letter or digit"
        );
    }

    #[test]
    fn a_form_is_written_as_its_name() {
        for form in ArtifactForm::ALL {
            let json = serde_json::to_string(&form).expect("JSON");
            assert_eq!(json, format!("{:?}", form.as_str()));
        }
    }
}
