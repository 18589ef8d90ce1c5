//! The work of a Raspberry Pi 4's firmware before the kernel starts, for QEMU's machine `raspi4b`, which has no firmware.
//!
//! The firmware of a board finds the first FAT partition of the card, reads `config.txt`, loads kernel, initramfs and device tree into
//! memory and starts the kernel with the command line in `cmdline.txt`. [`Card::load`] does the same with an image; `emulated` adapts the
//! device tree and the command line to the differences between board and emulation.

mod card;
mod emulated;

pub use crate::image::raspi::{BootFiles, Config};
pub use card::{Card, CardError, DEVICE_TREE, INITRAMFS, KERNEL};
