//! The indexes in which module loaders look up a kernel's modules, byte for byte as depmod of kmod 34 writes them.
//!
//! Below `lib/modules/<version>/`:
//!
//! | file | holds |
//! |---|---|
//! | `modules.dep` | `path:` and the paths of all modules that it needs, dependents before their dependencies |
//! | `modules.alias`, `modules.symbols` | `alias <pattern> <module>`, `alias symbol:<name> <module>` |
//! | `modules.softdep`, `modules.weakdep` | the modules that a module names itself, as configuration of modprobe |
//! | `modules.devname` | `<module> <node> <c or b><major>:<minor>` of modules that are loaded when their device is opened |
//! | `modules.{dep,alias,symbols}.bin` | the same as a tree of characters (`trie.rs`) |
//! | `modules.builtin.bin`, `modules.builtin.alias.bin` | names and aliases of the modules built into the kernel, as such a tree |
//!
//! The modules follow the order of `modules.order`; modules that it does not name come last. A module needs the modules that export
//! its undefined symbols; if two modules export the same symbol, the later one counts. Symbols are in the order of kmod's hash table.
//! Sources: `tools/depmod.c`, `libkmod/libkmod-elf.c` and `shared/hash.c` of kmod 34, depmod(8), modules.dep(5).
//!
//! Conditions that depmod skips with a message, or that would make the result depend on the order of a directory, are errors here: a
//! module that cannot be read or is for another machine, two modules of one name, a broken list.
//!
//! Own code instead of depmod from the pinned tools (docs/dependencies.md): it saves the unpacking of every module by depmod, and no
//! crate writes the indexes.

mod choose;
mod conf;
mod file;
mod hash;
mod listing;
mod module;
mod prefix;
mod set;
mod tables;
mod text;
mod trie;

pub use choose::{Chooser, ModuleRequest, parse_wanted, wanted_modules};
pub use conf::DracutSettings;
pub use file::ModuleReader;
pub use listing::BuiltinModules;
pub use module::{ModuleFacts, is_module};
pub use set::ModuleSet;
pub use tables::{INDEX_FILES, indexes};
pub use text::{parse_facts, write_facts};
