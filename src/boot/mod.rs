//! Boots an artifact in QEMU and judges the console.

mod judge;
mod machine;

pub use judge::{Judge, Verdict};
pub use machine::{Firmware, FwCfg, Machine, MachineError};
