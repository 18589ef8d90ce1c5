//! Boots an artifact in QEMU and judges the console.

mod command;
mod judge;
mod loaders;
mod machine;
mod media;
pub mod raspi;
mod served;
mod target;

pub use judge::{BootVerdict, Judge};
pub use loaders::Loaders;
pub use machine::{Attach, DirectKernel, Firmware, FwCfg, ImageFormat, Machine, MachineError, Medium, NetworkBoot};
pub use media::{ARTIFACT, MachineFiles, MediaError, MediaRequest, make_disk};
pub use served::{HttpRoot, MACHINE, ServedMachine, table};
pub use target::{BootMedia, HTTP_PORT};
