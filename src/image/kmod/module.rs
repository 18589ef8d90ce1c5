//! What is known of one module: its facts, its name and its path.

use crate::image::ImageError;

/// What is known of a module by reading it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ModuleFacts {
    /// Where it is below `lib/modules/<version>`, such as `kernel/fs/ext4/ext4.ko.xz`.
    pub path: String,
    /// Patterns of what it drives, in its own order.
    pub aliases: Vec<String>,
    /// Modules that modprobe loads before and after it, if they are there: `pre: a b post: c`.
    pub softdeps: Vec<String>,
    /// Modules that it may want later.
    pub weakdeps: Vec<String>,
    /// Symbols it has for other modules.
    pub exports: Vec<String>,
    /// Symbols it leaves undefined, in the order of its symbol table.
    pub needs: Vec<String>,
}

/// Endings of module files.
const ENDINGS: [&str; 3] = [".ko", ".ko.xz", ".ko.zst"];

/// Whether a file of this name is a module.
pub fn is_module(name: &str) -> bool {
    ENDINGS.iter().any(|e| name.len() > e.len() && name.ends_with(e))
}

/// The name a module is loaded by: that of its file up to the first dot, `_` for `-`.
pub(super) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// The path as it would be uncompressed, which is how `modules.order` has it.
pub(super) fn plain_path(path: &str) -> &str {
    path.strip_suffix(".xz")
        .or_else(|| path.strip_suffix(".zst"))
        .unwrap_or(path)
}

pub(super) fn refuse(path: &str, problem: impl Into<String>) -> ImageError {
    ImageError::Module {
        path: path.to_owned(),
        problem: problem.into(),
    }
}
