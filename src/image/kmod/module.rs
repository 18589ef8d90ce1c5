//! One module: its facts, its name and its path.

use crate::image::ImageError;

/// The facts that are read from a module.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ModuleFacts {
    /// Path below `lib/modules/<version>`, such as `kernel/fs/ext4/ext4.ko.xz`.
    pub path: String,
    /// Patterns for the devices that the module drives, in its own order.
    pub aliases: Vec<String>,
    /// Modules that modprobe loads before and after it, where they exist: `pre: a b post: c`.
    pub softdeps: Vec<String>,
    /// Modules that it may load later.
    pub weakdeps: Vec<String>,
    /// Symbols that it exports.
    pub exports: Vec<String>,
    /// Its undefined symbols, in the order of the symbol table.
    pub needs: Vec<String>,
}

/// Endings of module files.
const ENDINGS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// Whether a file of this name is a module.
pub fn is_module(name: &str) -> bool {
    ENDINGS.iter().any(|e| name.len() > e.len() && name.ends_with(e))
}

/// The name under which a module is loaded: the file name up to the first dot, with `_` for `-`.
pub(super) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// The path without the ending of a compression, as `modules.order` lists it.
pub(super) fn plain_path(path: &str) -> &str {
    path.strip_suffix(".xz")
        .or_else(|| path.strip_suffix(".zst"))
        .or_else(|| path.strip_suffix(".gz"))
        .unwrap_or(path)
}

pub(super) fn refuse(path: &str, problem: impl Into<String>) -> ImageError {
    ImageError::Module {
        path: path.to_owned(),
        problem: problem.into(),
    }
}
