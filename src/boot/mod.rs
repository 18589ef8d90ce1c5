//! Boots an artifact in QEMU and judges the console.

mod judge;
mod machine;
mod served;

pub use judge::{Judge, Verdict};
pub use machine::{Firmware, FwCfg, Machine, MachineError};
pub use served::{HttpRoot, MACHINE, ServedMachine, table};
