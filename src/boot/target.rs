//! `BootMedia`: how an artifact of each form boots.

use super::{Attach, Firmware, ImageFormat};
use crate::model::{Arch, ArtifactForm};
use std::path::Path;

/// The medium on which an artifact reaches a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootMedia {
    /// The files `kernel` and `initramfs.cpio.zst`, without a medium.
    Files,
    /// A disk image.
    Disk(ImageFormat),
    /// An optical disc, whose image also works on a USB stick.
    Optical,
    /// A directory for HTTP and TFTP servers.
    Network,
    /// The image of a Raspberry Pi's SD card.
    Card,
}

/// HTTP port of the network bundle on the machine's host.
pub const HTTP_PORT: u16 = 8080;
/// Address of the host in QEMU's user network.
const HOST: &str = "10.0.2.2";

impl BootMedia {
    /// The medium of a form; `None` for a form that is no medium.
    pub const fn of(form: ArtifactForm) -> Option<Self> {
        Some(match form {
            ArtifactForm::KernelInitramfs => BootMedia::Files,
            ArtifactForm::RawDisk => BootMedia::Disk(ImageFormat::Raw),
            ArtifactForm::Qcow2Disk => BootMedia::Disk(ImageFormat::Qcow2),
            ArtifactForm::Optical => BootMedia::Optical,
            ArtifactForm::Network => BootMedia::Network,
            ArtifactForm::PiCard => BootMedia::Card,
            ArtifactForm::OciImage | ArtifactForm::Other => return None,
        })
    }

    /// The medium of an image file, by its extension. Whether a disk is a card, only its content shows.
    pub fn of_file(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "raw" | "img" => Some(BootMedia::Disk(ImageFormat::Raw)),
            "qcow2" => Some(BootMedia::Disk(ImageFormat::Qcow2)),
            "iso" => Some(BootMedia::Optical),
            _ => None,
        }
    }

    /// Firmware and kind of drive to boot with: those that were asked for, or the defaults; an error where they do not fit.
    pub fn choose(
        self,
        arch: Arch,
        firmware: Option<Firmware>,
        attach: Option<Attach>,
    ) -> Result<(Firmware, Attach), String> {
        let (default, allowed): (_, &[Attach]) = match self {
            BootMedia::Files => (Firmware::Direct, &[]),
            BootMedia::Disk(_) => (Firmware::Uefi, &[Attach::Disk, Attach::Usb]),
            BootMedia::Optical => (Firmware::Uefi, &[Attach::Cdrom, Attach::Usb, Attach::Disk]),
            BootMedia::Network if arch == Arch::Arm64 => (Firmware::Uefi, &[Attach::Net]),
            BootMedia::Network => (Firmware::Bios, &[Attach::Net]),
            BootMedia::Card => (Firmware::RaspberryPi4, &[Attach::Card]),
        };
        let firmware = firmware.unwrap_or(default);
        let attach = match (attach, allowed.first()) {
            (None, first) => first.copied().unwrap_or(Attach::Disk),
            (Some(asked), _) if allowed.contains(&asked) => asked,
            (Some(_), None) => return Err("a kernel and an initramfs are not a medium; leave out --as".to_owned()),
            (Some(_), Some(_)) => {
                let names: Vec<&str> = allowed.iter().map(|a| a.name()).collect();
                return Err(format!("it can be booted as {} only", names.join(", ")));
            }
        };
        let problem = match (self, firmware) {
            (BootMedia::Files, Firmware::Direct) | (BootMedia::Card, Firmware::RaspberryPi4) => None,
            (BootMedia::Files, _) => Some("a kernel and an initramfs boot with --firmware direct only"),
            (BootMedia::Card, _) => Some("the card of a Raspberry Pi boots with --firmware rpi4 only"),
            (_, Firmware::RaspberryPi4) => Some("--firmware rpi4 boots the card of a Raspberry Pi only"),
            (_, Firmware::Bios) if arch == Arch::Arm64 => {
                Some("no arm64 machine has a BIOS; --firmware takes uefi and secureboot")
            }
            (BootMedia::Network, Firmware::Direct) if arch == Arch::Arm64 => {
                Some("a network boot needs --firmware uefi or secureboot")
            }
            (BootMedia::Network, Firmware::Direct) => Some("a network boot needs --firmware bios, uefi or secureboot"),
            _ => None,
        };
        match problem {
            None => Ok((firmware, attach)),
            Some(problem) => Err(problem.to_owned()),
        }
    }
}

impl Firmware {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Firmware::Direct => "direct",
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
            Firmware::SecureBoot => "secureboot",
            Firmware::RaspberryPi4 => "rpi4",
        }
    }
}

impl Attach {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Attach::Disk => "disk",
            Attach::Cdrom => "cdrom",
            Attach::Usb => "usb",
            Attach::Card => "card",
            Attach::Net => "net",
        }
    }
}

impl super::NetworkBoot {
    /// The servers for the bundle in `directory` that the firmware boots from.
    pub fn of(arch: Arch, firmware: Firmware, directory: &str) -> Self {
        let bootfile = match (firmware, arch) {
            (Firmware::Uefi, _) => "ipxe.efi".to_owned(),
            (Firmware::SecureBoot, Arch::Amd64) => "secureboot/shimx64.efi".to_owned(),
            (Firmware::SecureBoot, Arch::Arm64) => "secureboot/shimaa64.efi".to_owned(),
            // iPXE in the card's ROM fetches the script over HTTP.
            (Firmware::Direct | Firmware::Bios | Firmware::RaspberryPi4, _) => {
                format!("http://{HOST}:{HTTP_PORT}/boot.ipxe")
            }
        };
        Self {
            tftp: directory.to_owned(),
            bootfile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::NetworkBoot, *};

    #[test]
    fn families_boot_as_they_can_and_not_otherwise() {
        let disk = BootMedia::Disk(ImageFormat::Raw);
        for (media, arch, firmware, attach, chosen) in [
            (disk, Arch::Amd64, None, None, (Firmware::Uefi, Attach::Disk)),
            (disk, Arch::Arm64, None, None, (Firmware::Uefi, Attach::Disk)),
            (
                BootMedia::Optical,
                Arch::Amd64,
                Some(Firmware::Bios),
                Some(Attach::Usb),
                (Firmware::Bios, Attach::Usb),
            ),
            (
                BootMedia::Network,
                Arch::Amd64,
                None,
                None,
                (Firmware::Bios, Attach::Net),
            ),
            (
                BootMedia::Network,
                Arch::Arm64,
                None,
                None,
                (Firmware::Uefi, Attach::Net),
            ),
            (
                BootMedia::Files,
                Arch::Arm64,
                None,
                None,
                (Firmware::Direct, Attach::Disk),
            ),
            (
                BootMedia::Card,
                Arch::Arm64,
                None,
                None,
                (Firmware::RaspberryPi4, Attach::Card),
            ),
        ] {
            assert_eq!(media.choose(arch, firmware, attach), Ok(chosen), "{media:?} {arch}");
        }
        let (amd64, arm64) = (Arch::Amd64, Arch::Arm64);
        for (media, arch, firmware, attach, why) in [
            (disk, amd64, None, Some(Attach::Cdrom), "disk, usb"),
            (disk, arm64, None, Some(Attach::Card), "disk, usb"),
            (disk, arm64, Some(Firmware::Bios), None, "no arm64 machine has a BIOS"),
            (
                disk,
                arm64,
                Some(Firmware::RaspberryPi4),
                None,
                "the card of a Raspberry Pi only",
            ),
            (
                BootMedia::Optical,
                arm64,
                Some(Firmware::Bios),
                None,
                "uefi and secureboot",
            ),
            (
                BootMedia::Network,
                arm64,
                Some(Firmware::Bios),
                None,
                "uefi and secureboot",
            ),
            (
                BootMedia::Network,
                arm64,
                Some(Firmware::Direct),
                None,
                "uefi or secureboot",
            ),
            (
                BootMedia::Network,
                amd64,
                Some(Firmware::Direct),
                None,
                "bios, uefi or secureboot",
            ),
            (
                BootMedia::Files,
                amd64,
                Some(Firmware::Uefi),
                None,
                "--firmware direct only",
            ),
            (BootMedia::Files, amd64, None, Some(Attach::Disk), "leave out --as"),
            (
                BootMedia::Card,
                arm64,
                Some(Firmware::Uefi),
                None,
                "--firmware rpi4 only",
            ),
            (BootMedia::Card, arm64, None, Some(Attach::Usb), "booted as card only"),
        ] {
            let problem = media.choose(arch, firmware, attach).expect_err(why);
            assert!(problem.contains(why), "{problem}");
        }
    }

    #[test]
    fn names_say_what_an_image_file_is() {
        assert_eq!(
            BootMedia::of_file(Path::new("x/a.qcow2")),
            Some(BootMedia::Disk(ImageFormat::Qcow2))
        );
        assert_eq!(BootMedia::of_file(Path::new("x/a.vmdk")), None);
    }

    #[test]
    fn each_firmware_is_given_the_loader_of_its_architecture() {
        let file = |arch, firmware| NetworkBoot::of(arch, firmware, "/bundle").bootfile;
        assert_eq!(file(Arch::Amd64, Firmware::Bios), "http://10.0.2.2:8080/boot.ipxe");
        assert_eq!(file(Arch::Arm64, Firmware::Uefi), "ipxe.efi");
        assert_eq!(file(Arch::Amd64, Firmware::SecureBoot), "secureboot/shimx64.efi");
        assert_eq!(file(Arch::Arm64, Firmware::SecureBoot), "secureboot/shimaa64.efi");
    }
}
