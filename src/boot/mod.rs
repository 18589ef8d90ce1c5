//! Boots an artifact in QEMU and judges its console.
//!
//! | file | holds |
//! |---|---|
//! | `target`, `loaders` | how a family or an image file boots |
//! | `machine`, `command` | the machine; its QEMU command line |
//! | `served` | the built-in that runs QEMU beside an HTTP server and relays |
//! | `reach`, `relay` | servers of this host that the machine reaches; the way to them out of its sandbox |
//! | `raspi` | the firmware of a Raspberry Pi 4, as far as it loads files |
//! | `judge` | the verdict on the console |
//! | `progress` | whether a machine without a verdict is slow or stands still |

mod command;
mod judge;
mod loaders;
mod machine;
mod media;
mod progress;
pub mod raspi;
mod reach;
mod relay;
mod served;
mod target;

pub use judge::{BootVerdict, Judge};
pub use loaders::Loaders;
pub use machine::{Attach, DirectKernel, Firmware, FwCfg, ImageFormat, Machine, MachineError, Medium, NetworkBoot};
pub use media::{ARTIFACT, MachineFiles, MediaError, MediaRequest, make_disk};
pub use progress::{ConsoleProgress, Pace};
pub use reach::{NodeNetwork, Reach};
pub use relay::{Inlet, Outlet};
pub use served::{HttpRoot, MACHINE, ServedMachine, table};
pub use target::{BootMedia, HTTP_PORT};
