//! The types that all rooms share: digests, relative paths, architectures, variants, epochs and trees.
//!
//! This room does no I/O and imports no other room.

mod arch;
mod build_option;
mod call_group;
mod capability;
mod digest;
mod dump;
mod epoch;
mod error;
mod error_chain;
mod exit_code;
mod kernel;
mod names;
mod nearest;
mod node_id;
mod path;
mod pin;
mod sector_size;
mod sync;
mod text;
mod tree;
mod variant;
mod zstd_level;

pub use arch::Arch;
pub use build_option::BuildOption;
pub use call_group::CallGroup;
pub use capability::Capability;
pub use digest::{Blake3Digest, Sha256Digest, StageKey, VerityDigest};
pub use dump::{EMPTY_FILE, parse_dump, write_dump};
pub use epoch::Epoch;
pub use error::ModelError;
pub use error_chain::{Hint, chain};
pub use exit_code::{EXIT_HERMETIC, EXIT_STORE};
pub use kernel::{KernelFault, kernel_fault, refuse_kernel};
pub(crate) use names::{MAX_PINNED, is_plain_path, is_release, is_url};
pub use nearest::{hint_at_name, nearest};
pub(crate) use node_id::is_name;
pub use node_id::{NodeId, Target};
pub use path::RelPath;
pub use pin::{Fingerprint, GitSha, Moment};
pub use sector_size::SectorSize;
pub(crate) use sync::lock;
pub(crate) use text::excerpt;
pub use text::{
    is_visible, visible, visible_bytes, visible_json, visible_lines, visible_log, visible_message, visible_path,
};
pub use tree::{Entry, Meta, Node, Tree};
pub use variant::{ArtifactForm, Variant};
pub use zstd_level::ZstdLevel;
