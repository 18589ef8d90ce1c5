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
mod module;
mod prefix;
mod set;
mod tables;
mod text;
mod trie;

pub use choose::{Chooser, ModuleRequest, parse_wanted};
pub use file::ModuleReader;
pub use listing::BuiltinModules;
pub use module::{ModuleFacts, is_module};
pub use set::ModuleSet;
pub use tables::{INDEX_FILES, indexes};
pub use text::{parse_facts, write_facts};
