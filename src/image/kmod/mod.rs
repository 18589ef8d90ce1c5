//! The indexes that module loaders find a kernel's modules by, byte for byte as depmod of kmod 34 writes them.
//!
//! Below `lib/modules/<version>/`:
//!
//! | file | holds |
//! |---|---|
//! | `modules.dep` | `path:` and the paths of all modules it needs, those that need others first |
//! | `modules.alias`, `modules.symbols` | `alias <pattern> <module>`, `alias symbol:<name> <module>` |
//! | `modules.softdep`, `modules.weakdep` | what a module names itself, as configuration of modprobe |
//! | `modules.devname` | `<module> <node> <c or b><major>:<minor>` of modules that are loaded by opening their device |
//! | `modules.{dep,alias,symbols}.bin` | the same as a tree of characters (`trie.rs`) |
//! | `modules.builtin.bin`, `modules.builtin.alias.bin` | names and aliases of what is built into the kernel, as such a tree |
//!
//! The modules stand in the order of `modules.order`, and behind them those it does not name. A module needs the modules that
//! export the symbols it leaves undefined; of two that export the same one, the later counts. Symbols are in the order of kmod's
//! hash table. Sources: `tools/depmod.c`, `libkmod/libkmod-elf.c` and `shared/hash.c` of kmod 34, depmod(8), modules.dep(5).
//!
//! What depmod passes over with a message, and what would make the result depend on the order of a directory, is an error here: a
//! module that cannot be read or is for another machine, two modules of one name, a broken list.

mod choose;
mod file;
mod hash;
mod listing;
mod prefix;
mod set;
mod tables;
mod text;
mod trie;

pub use choose::{Chooser, ModuleRequest, parse_wanted};
pub use file::ModuleReader;
pub use listing::BuiltinModules;
pub use set::ModuleSet;
pub use tables::{INDEX_FILES, indexes};
pub use text::{parse_facts, write_facts};

use super::ImageError;

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
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// The path as it would be uncompressed, which is how `modules.order` has it.
fn plain_path(path: &str) -> &str {
    path.strip_suffix(".xz")
        .or_else(|| path.strip_suffix(".zst"))
        .unwrap_or(path)
}

fn refuse(path: &str, problem: impl Into<String>) -> ImageError {
    ImageError::Module {
        path: path.to_owned(),
        problem: problem.into(),
    }
}
