//! The options of `pnb boot`.

use clap::Args;
use pnb::{
    boot::{Attach, Firmware},
    model::Arch,
};
use std::path::PathBuf;

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
    pnb boot images/kernel-initrd/amd64 --append powernode.debug=1 --interactive\n  \
    pnb boot images/disk-image-rpi4/arm64 --keep card.img")]
pub(in crate::cli) struct BootArgs {
    /// The artifact's directory, or a file: .raw or .img, .qcow2, .iso.
    pub(in crate::cli) path: PathBuf,
    /// What starts it [default: direct for kernel-initrd, bios for ipxe of amd64, rpi4 for the card of a Raspberry Pi 4, else
    /// uefi]. With a medium, direct takes kernel and initramfs off it, so that words can be appended.
    #[arg(long, value_name = "FIRMWARE")]
    pub(in crate::cli) firmware: Option<Firmware>,
    /// The architecture of a file [default: that of the boot loader in it, else amd64].
    #[arg(long, value_name = "ARCH")]
    pub(in crate::cli) arch: Option<Arch>,
    /// As what it is attached [default: cdrom for iso, net for ipxe, card for a card, else disk].
    #[arg(long = "as", value_name = "WHAT")]
    pub(in crate::cli) attach: Option<Attach>,
    /// Boot this copy of the disk, and let the machine write to it; made of the artifact if it is not there.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) keep: Option<PathBuf>,
    /// A second disk, which the machine may write to; made empty if it is not there.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) disk: Option<PathBuf>,
    /// How large a disk that is made here gets [default: as the artifact, 4GiB for --disk].
    #[arg(long, value_name = "SIZE", value_parser = pnb::graph::parse_size)]
    pub(in crate::cli) size: Option<u64>,
    /// A value handed over by the firmware: KEY=VALUE, KEY below opt/com.powernode/ unless it has a slash.
    #[arg(long, value_name = "K=V")]
    pub(in crate::cli) fw_cfg: Vec<String>,
    /// A directory shared with the machine over 9p.
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) share: Option<PathBuf>,
    /// Added to the kernel command line; with --firmware direct and rpi4 only.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub(in crate::cli) append: Vec<String>,
    /// Seconds until the machine is stopped and judged.
    #[arg(long, value_name = "S", default_value_t = 300)]
    pub(in crate::cli) timeout: u64,
    /// Memory of the machine in MiB [default: 3072; a Raspberry Pi 4 of QEMU has 2048].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1_048_576))]
    pub(in crate::cli) memory: Option<u64>,
    /// Connect this terminal to the machine's console instead of judging it (Ctrl-A X ends it).
    #[arg(long)]
    pub(in crate::cli) interactive: bool,
}
