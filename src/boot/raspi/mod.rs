//! The part of a Raspberry Pi 4's firmware: what comes before the kernel on a board, for a machine that has none of it.
//!
//! A board's firmware finds the first FAT partition of the card, follows `config.txt` there, puts kernel, initramfs and device
//! tree into memory and starts the kernel with the words of `cmdline.txt`. QEMU's machine `raspi4b` begins at the kernel. So
//! [`Card::load`] does the same with an image, and `emulated` knows where that machine is not the board.

mod card;
mod config;
mod emulated;

pub use card::{Card, CardError, DEVICE_TREE, INITRAMFS, KERNEL};
pub use config::{BootFiles, Config};
