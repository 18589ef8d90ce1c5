//! Boots an artifact in QEMU and judges the console.

mod command;
mod judge;
mod loaders;
mod machine;
pub mod raspi;
mod served;
mod target;

pub use judge::{Judge, Verdict};
pub use loaders::Loaders;
pub use machine::{Attach, Firmware, FwCfg, ImageFormat, Kernel, Machine, MachineError, Medium, Network};
pub use served::{HttpRoot, MACHINE, ServedMachine, table};
pub use target::{HTTP_PORT, Media};
