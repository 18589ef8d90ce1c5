//! Boots an artifact in QEMU and judges the console.

mod judge;
mod machine;
mod served;
mod target;

pub use judge::{Judge, Verdict};
pub use machine::{Attach, Firmware, FwCfg, ImageFormat, Machine, MachineError, Medium, Network};
pub use served::{HttpRoot, MACHINE, ServedMachine, table};
pub use target::{HTTP_PORT, Media};
