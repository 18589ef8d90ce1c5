//! Boots an artifact in QEMU and judges the console.
