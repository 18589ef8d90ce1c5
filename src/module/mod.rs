//! Modules: trees that a node stacks on its root at boot, and the signed list that says which.
//!
//! A module is a composefs image, named by its fs-verity digest, and the objects of its files. The image and the list are made and checked
//! here; 90powernode (`powernode-modules.sh`, `powernode-stack.sh`) checks them again before it mounts anything. docs/modules.md describes
//! both formats.
//!
//! | file | holds |
//! |---|---|
//! | `content.rs` | what a tree may have to be a module, and the reading of a directory |
//! | `image.rs` | a tree becomes an image with its objects; an image is checked |
//! | `list.rs` | the list of a node's modules: format, parser |
//! | `key.rs` | keys and signatures, in the format of signify |

mod content;
mod error;
mod image;
mod key;
mod list;

pub use content::{ContentRules, read_directory};
pub use error::ModuleError;
pub use image::{CheckedModule, WrittenModule, verify_image, write_module};
pub use key::{MAX_KEY, ModulePublicKey, ModuleSecretKey};
pub use list::{ListEntry, MAX_LIST, ModuleList};
