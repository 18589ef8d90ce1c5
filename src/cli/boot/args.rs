//! The options of `pnb boot`.

use super::super::{
    args::{arch, value_of},
    servers::ServerArgs,
};
use clap::Args;
use pnb::{
    boot::{AskedAccelerator, Attach, Firmware},
    model::{Arch, SectorSize},
};
use std::path::PathBuf;

fn sector_size(text: &str) -> Result<SectorSize, String> {
    let size = text.parse().ok().and_then(SectorSize::of);
    size.ok_or_else(|| "a sector has 512 or 4096 bytes".to_owned())
}

/// Longest time that can be asked for: a year.
const MAX_SECONDS: u64 = 365 * 24 * 3600;
/// Seconds for a machine that is judged.
const TIMEOUT: u64 = 300;

impl BootArgs {
    /// Seconds after which the machine is stopped.
    pub(super) fn limit(&self) -> u64 {
        let default = if self.interactive { MAX_SECONDS } else { TIMEOUT };
        self.timeout.unwrap_or(default)
    }
}

/// Options of `pnb boot`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb boot images/kernel-initrd/amd64\n  \
    pnb boot images/raw/amd64 --firmware secureboot\n  \
    pnb boot images/iso/amd64 --as usb --firmware bios\n  \
    pnb boot images/ipxe/amd64 --firmware uefi\n  \
    pnb boot images/raw/amd64 --keep node.raw --size 8GiB\n  \
    pnb boot images/iso/amd64 --firmware direct --disk new.raw --size 4GiB \\\n    \
      --append 'powernode.install=/dev/vda powernode.install.confirm=yes'\n  \
    pnb boot images/kernel-initrd/amd64 --fw-cfg instance_uuid=6f1c6a4e-6d53-4c8b-9a55-0f3f1c6c2f10\n  \
    pnb boot images-debug/kernel-initrd/amd64 --interactive\n  \
    pnb boot images-recovery/kernel-initrd/amd64 --append rd.break --interactive\n  \
    pnb boot images/kernel-initrd/amd64 --reach 10.0.2.100:443=127.0.0.1:8443\n  \
    pnb boot images/raw/amd64 --forward 2222:22 --interactive\n  \
    pnb boot images/kernel-initrd/amd64 --smbios 'sys_vendor=Amazon EC2' --metadata aws\n  \
    pnb boot images/disk-image-rpi4/arm64 --keep card.img\n  \
    pnb boot oci:registry.example/powernode/os:v1.4 --arch arm64")]
pub(in crate::cli) struct BootArgs {
    /// Directory of an artifact or of an OCI layout, an image file (.raw, .img, .qcow2, .iso), or oci:HOST/NAME@sha256:… in a registry
    pub(in crate::cli) path: PathBuf,
    /// Firmware of the machine; direct takes kernel and initramfs off a medium, so that --append works [default: direct for
    /// kernel-initrd, bios for ipxe of amd64, rpi4 for the card of a Raspberry Pi 4, else uefi]
    #[arg(long, value_name = "FIRMWARE", value_parser = value_of::<Firmware>())]
    pub(in crate::cli) firmware: Option<Firmware>,
    /// Architecture of the machine for an image file [default: that of its boot loader, else amd64]
    #[arg(long, value_name = "ARCH", value_parser = arch())]
    pub(in crate::cli) arch: Option<Arch>,
    /// Device as which the medium is attached [default: cdrom for iso, net for ipxe, card for a card, else disk]
    #[arg(long = "as", value_name = "DEVICE", value_parser = value_of::<Attach>())]
    pub(in crate::cli) attach: Option<Attach>,
    /// Boot this copy of the disk and let the machine write to it; copied from the artifact if it is missing
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) keep: Option<PathBuf>,
    /// Second disk, to which the machine may write; made empty if it is missing
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) disk: Option<PathBuf>,
    /// Size of a disk that --keep or --disk makes [default: that of the artifact, 4GiB for --disk]
    #[arg(long, value_name = "SIZE", value_parser = pnb::graph::parse_size)]
    pub(in crate::cli) size: Option<u64>,
    /// Bytes of a logical sector of the second disk, 512 or 4096; those of a disk image are the ones of its partition table
    #[arg(long, value_name = "BYTES", value_parser = sector_size, requires = "disk")]
    pub(in crate::cli) sector_size: Option<SectorSize>,
    /// Value that the firmware hands over, as KEY=VALUE; a KEY without a slash is below opt/com.powernode/
    #[arg(long, value_name = "K=V")]
    pub(in crate::cli) fw_cfg: Vec<String>,
    /// Directory shared with the machine over 9p
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) share: Option<PathBuf>,
    /// Server on the loopback of this host that the machine reaches under an address of its network 10.0.2.0/24, and nothing else of any
    /// network; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT=127.0.0.1:PORT")]
    pub(in crate::cli) reach: Vec<String>,
    /// Port of this host's loopback that leads to a TCP port of the machine, which then has a network card; port 0 stands for any free one;
    /// may be repeated
    #[arg(long, value_name = "[ADDRESS:]PORT:PORT")]
    pub(in crate::cli) forward: Vec<String>,
    /// Directory whose metadata.json describes a cloud's metadata service, which is played at 169.254.169.254; the requests are written to
    /// requests.log there. The network of the machine is then 169.254.0.0/16
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) metadata: Option<PathBuf>,
    /// Value of the DMI tables as NAME=VALUE, by the names below /sys/class/dmi/id, or oem_string; may be repeated
    #[arg(long, value_name = "N=V")]
    pub(in crate::cli) smbios: Vec<String>,
    /// Write the packets of the machine's network card to FILE, in pcap's format; the machine then has a card
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) capture: Option<PathBuf>,
    /// Words to add to the kernel command line; with --firmware direct and rpi4 only
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub(in crate::cli) append: Vec<String>,
    /// What runs the machine's instructions: KVM where it works, else emulation (tcg), which takes about a minute to the ready line
    #[arg(long, value_name = "ACCELERATOR", value_parser = value_of::<AskedAccelerator>(), default_value = "auto")]
    pub(in crate::cli) accel: AskedAccelerator,
    /// Seconds after which the machine is stopped and judged [default: 300; none with --interactive]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(in crate::cli) timeout: Option<u64>,
    /// Seconds for which a machine is watched after its ready line; a second verdict, a refusal or a panic is a failure
    #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS))]
    pub(in crate::cli) settle: u64,
    /// Boot the artifact's files without comparing them with its SHA256SUMS
    #[arg(long)]
    pub(in crate::cli) no_verify_sums: bool,
    /// Give the node no nonce to repeat: for roots that are older than the nonce
    #[arg(long)]
    pub(in crate::cli) no_nonce: bool,
    /// Memory of the machine in MiB [default: 3072; QEMU's Raspberry Pi 4 has 2048]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1_048_576))]
    pub(in crate::cli) memory: Option<u64>,
    /// Processors of the machine [default: 1, with which it also comes up on a busy host; QEMU's Raspberry Pi 4 has 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(in crate::cli) cpus: Option<u32>,
    /// Connect this terminal to the console of the machine, without a limit of time, and do not judge it; Ctrl-A X ends the machine
    #[arg(long)]
    pub(in crate::cli) interactive: bool,
    #[command(flatten)]
    pub(in crate::cli) servers: ServerArgs,
}
