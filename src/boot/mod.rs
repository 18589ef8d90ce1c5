//! Boots an artifact in QEMU and judges its console.
//!
//! | file | holds |
//! |---|---|
//! | `target`, `loaders` | how a family or an image file boots |
//! | `machine`, `command` | the machine; its QEMU command line |
//! | `accelerator` | KVM or emulation |
//! | `smbios`, `metadata` | values of its DMI tables; a cloud's metadata service |
//! | `served` | the built-in that runs QEMU beside an HTTP server and relays |
//! | `reach`, `relay` | servers of this host that the machine reaches; the way to them out of its sandbox |
//! | `forward` | ports of this host that lead to the machine |
//! | `raspi` | the firmware of a Raspberry Pi 4, as far as it loads files |
//! | `sums` | the comparison of the artifact's files with their list |
//! | `judge`, `expected` | the verdict on the console; what the node must report |
//! | `phase` | how far a boot is, and how long such a boot takes |
//! | `progress` | whether a machine without a verdict is slow or stands still |

mod accelerator;
mod command;
mod expected;
mod forward;
mod judge;
mod loaders;
mod machine;
mod media;
mod metadata;
mod phase;
mod progress;
pub mod raspi;
mod reach;
mod relay;
mod served;
mod smbios;
mod sums;
mod target;

pub use accelerator::{Accelerator, AcceleratorChoice, AskedAccelerator, KvmWatch, NoKvm};
pub use expected::{Expected, NONCE_KEY};
pub use forward::{Forward, ForwardEnd, ForwardListener};
pub use judge::{BootVerdict, Judge};
pub use loaders::Loaders;
pub use machine::{Attach, DirectKernel, Firmware, FwCfg, ImageFormat, Machine, MachineError, Medium, NetworkBoot};
pub use media::{ARTIFACT, MachineFiles, MediaError, MediaRequest, make_disk};
pub use metadata::{CloudService, CloudServiceError, METADATA_FILE, REQUESTS_FILE};
pub use phase::{BootPhase, about};
pub use progress::{ConsoleProgress, Pace};
pub use reach::{NodeNetwork, Reach};
pub use relay::{Inlet, Outlet};
pub use served::{HttpRoot, MACHINE, PROCESSOR_SECOND, PULSE, ServedMachine, table};
pub use smbios::Smbios;
pub use sums::{SumsError, verify_sums};
pub use target::{BootMedia, HTTP_PORT};
