//! What is to be booted, and how its family boots.

use super::{Attach, Firmware, ImageFormat};
use crate::model::Variant;
use std::path::Path;

/// How an artifact is brought to a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Media {
    /// Files `kernel` and `initramfs.cpio.zst` in its directory.
    Files,
    /// A disk image.
    Disk(ImageFormat),
    /// An optical disc, which may be a stick too.
    Optical,
    /// A directory for servers.
    Network,
}

/// Port on which the machine's own host serves its network bundle over HTTP.
pub const HTTP_PORT: u16 = 8080;
/// Address of the host in QEMU's user network.
const HOST: &str = "10.0.2.2";

impl Media {
    /// How the family boots, and the name of its image; none for families that cannot be booted here.
    pub fn of(variant: Variant) -> Option<(Self, Option<&'static str>)> {
        Some(match variant {
            Variant::KernelInitrd => (Media::Files, None),
            Variant::Raw => (Media::Disk(ImageFormat::Raw), Some("disk.raw")),
            Variant::Qcow2 => (Media::Disk(ImageFormat::Qcow2), Some("disk.qcow2")),
            Variant::Iso => (Media::Optical, Some("install.iso")),
            Variant::Ipxe => (Media::Network, None),
            Variant::DiskImageArm64Uefi => (Media::Disk(ImageFormat::Raw), Some("disk.img")),
            Variant::Oci | Variant::DiskImageRpi4 => return None,
        })
    }

    /// What an image file is, by its name.
    pub fn of_file(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "raw" | "img" => Some(Media::Disk(ImageFormat::Raw)),
            "qcow2" => Some(Media::Disk(ImageFormat::Qcow2)),
            "iso" => Some(Media::Optical),
            _ => None,
        }
    }

    /// The ways it can be booted: firmware and attachment when nothing is asked for, or what was asked for if it is possible.
    pub fn choose(self, firmware: Option<Firmware>, attach: Option<Attach>) -> Result<(Firmware, Attach), String> {
        let (default, allowed): (_, &[Attach]) = match self {
            Media::Files => (Firmware::Direct, &[]),
            Media::Disk(_) => (Firmware::Uefi, &[Attach::Disk, Attach::Usb]),
            Media::Optical => (Firmware::Uefi, &[Attach::Cdrom, Attach::Usb, Attach::Disk]),
            Media::Network => (Firmware::Bios, &[Attach::Net]),
        };
        let firmware = firmware.unwrap_or(default);
        let attach = match (attach, allowed.first()) {
            (None, first) => first.copied().unwrap_or(Attach::Disk),
            (Some(asked), _) if allowed.contains(&asked) => asked,
            (Some(_), None) => return Err("kernel and initramfs are no medium; leave out --as".to_owned()),
            (Some(_), Some(_)) => {
                let names: Vec<&str> = allowed.iter().map(|a| a.name()).collect();
                return Err(format!("it can be booted as {}", names.join(", ")));
            }
        };
        match (self, firmware) {
            (Media::Files, Firmware::Direct) => {}
            (Media::Files, _) => return Err("kernel and initramfs boot with --firmware direct only".to_owned()),
            (Media::Network, Firmware::Direct) => {
                return Err("a network boot needs --firmware bios, uefi or secureboot".to_owned());
            }
            _ => {}
        }
        Ok((firmware, attach))
    }
}

impl Attach {
    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Attach::Disk => "disk",
            Attach::Cdrom => "cdrom",
            Attach::Usb => "usb",
            Attach::Net => "net",
        }
    }
}

impl super::Network {
    /// The servers of a bundle in `directory`, as each firmware needs them.
    pub fn of(firmware: Firmware, directory: &str) -> Self {
        let (tftp, bootfile) = match firmware {
            // iPXE in the card's ROM takes the script over HTTP.
            Firmware::Direct | Firmware::Bios => (directory.to_owned(), format!("http://{HOST}:{HTTP_PORT}/boot.ipxe")),
            Firmware::Uefi => (directory.to_owned(), "ipxe.efi".to_owned()),
            Firmware::SecureBoot => (directory.to_owned(), "secureboot/shimx64.efi".to_owned()),
        };
        Self { tftp, bootfile }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_boot_as_they_can_and_not_otherwise() {
        let disk = Media::Disk(ImageFormat::Raw);
        assert_eq!(disk.choose(None, None), Ok((Firmware::Uefi, Attach::Disk)));
        assert_eq!(
            Media::Optical.choose(Some(Firmware::Bios), Some(Attach::Usb)),
            Ok((Firmware::Bios, Attach::Usb))
        );
        assert_eq!(Media::Network.choose(None, None), Ok((Firmware::Bios, Attach::Net)));
        for (media, firmware, attach, why) in [
            (disk, None, Some(Attach::Cdrom), "disk, usb"),
            (Media::Files, Some(Firmware::Uefi), None, "--firmware direct only"),
            (Media::Files, None, Some(Attach::Disk), "leave out --as"),
            (
                Media::Network,
                Some(Firmware::Direct),
                None,
                "--firmware bios, uefi or secureboot",
            ),
        ] {
            let problem = media.choose(firmware, attach).expect_err(why);
            assert!(problem.contains(why), "{problem}");
        }
        assert_eq!(
            Media::of_file(Path::new("x/a.qcow2")),
            Some(Media::Disk(ImageFormat::Qcow2))
        );
        assert_eq!(Media::of_file(Path::new("x/a.vmdk")), None);
    }
}
