//! Checks that an initramfs or a root can work on the machines it is for.
//!
//! The exit status of a tool proves little: dracut succeeds when it does not find a program or a library, and it copies a program for
//! another machine like any file. So the finished tree is checked: every ELF file is for the target, its interpreter and its libraries
//! are in the tree, and every required file is there. All problems are reported at once.
//!
//! | file | holds |
//! |---|---|
//! | `checks` | the check of an initramfs, of a root and of an agent |
//! | `view` | a tree with its recognised files; following of paths through links |
//! | `recognise` | recognition of ELF files, scripts, modules and indexes by their first bytes |
//! | `critical` | the files without which a node does not come up, as a closure |
//! | `linked` | programs and libraries |
//! | `loader` | the search of the dynamic loader for libraries |
//! | `modules` | kernel modules |
//! | `requirements` | `contents.toml`: the required programs, files and drivers |
//! | `problem` | the problems, in words |

mod checks;
mod critical;
mod linked;
mod loader;
mod modules;
mod problem;
mod recognise;
mod requirements;
#[cfg(test)]
mod sample;
mod view;

pub(super) use checks::{check_agent, check_initramfs, check_root};
pub(super) use critical::{CRITICAL, critical_files};
