//! Built-in stage writers: stages that are written in Rust instead of as a script.
//!
//! A writer runs inside the stage's sandbox like any command: it sees only `/inputs` and writes only below `/build`. A tree input is a
//! directory of contents at `/inputs/<name>` and its metadata as a dump at `/inputs/<name>.tree`.

mod base_image;
mod bundle;
mod command_line;
mod contents;
mod disk;
mod dpkg_root;
mod efi;
mod error;
mod image_files;
mod initramfs_modules;
mod install;
mod kernel;
mod oci;
mod owned;
mod pi;
mod plan;
mod qcow2;
mod root;
mod table;
mod unpack;
mod workspace;

pub use command_line::command_line;
pub use error::WriterError;
pub use image_files::{IMAGE_COMMAND_LINE, IMAGE_FILES, IMAGE_INPUT, IMAGE_ROOT_DIGEST};
pub use table::{Context, names, table};

use workspace::{TreeInput, build, input, opener, tree_input};
