//! The problems of a tree, in words: each names the file and its defect.

use crate::image::elf::ElfMachine;
use std::fmt;

/// A reason why a tree cannot work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// A required file is missing.
    NotThere {
        /// Its path or pattern.
        wanted: String,
    },
    /// The tree must have the modules of exactly one kernel.
    Kernels {
        /// The directory of the kernels.
        directory: &'static str,
        /// Number of kernels there.
        count: usize,
    },
    /// A required program is not executable.
    NotExecutable {
        /// Its path.
        path: String,
    },
    /// A file cannot be read in the format that its name or its first bytes announce.
    Unreadable {
        /// Its path.
        path: String,
        /// The problem, completing "failed to …".
        problem: String,
    },
    /// A file is for another machine.
    Machine {
        /// Its path.
        path: String,
        /// The machine it is for.
        found: ElfMachine,
        /// The machine of the tree.
        target: ElfMachine,
    },
    /// The interpreter of a script, or the dynamic loader of a program, is missing.
    Interpreter {
        /// Path of the program.
        path: String,
        /// Path of the interpreter.
        interpreter: String,
    },
    /// A library that a file needs is missing.
    Library {
        /// Path of the file.
        path: String,
        /// Name of the library.
        library: String,
        /// Directories that were searched.
        searched: Vec<String>,
    },
    /// A library that a program opens at run time is missing.
    Opened {
        /// Path of the program.
        path: String,
        /// Name of the library.
        library: String,
        /// Its purpose.
        reason: &'static str,
    },
    /// A required driver is missing.
    Driver {
        /// Its name.
        name: String,
        /// The directory where it must be.
        directory: String,
    },
    /// A kernel module that another module needs is missing.
    Needs {
        /// Path of the module.
        path: String,
        /// Path of the module it needs.
        needs: String,
    },
    /// A kernel module is not in the index, so modprobe does not find it.
    Unlisted {
        /// Path of the module.
        path: String,
        /// Path of the index that lacks it.
        index: String,
    },
    /// A module of the index is missing.
    Listed {
        /// Path of the module.
        path: String,
        /// Path of the index that has it.
        index: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NotThere { wanted } => write!(f, "{wanted} is not there"),
            Problem::Kernels { directory, count } => {
                write!(
                    f,
                    "{directory} must have the modules of exactly one kernel, but has {count}"
                )
            }
            Problem::NotExecutable { path } => write!(f, "{path} is not executable"),
            Problem::Unreadable { path, problem } => write!(f, "{path}: failed to {problem}"),
            Problem::Machine { path, found, target } => write!(f, "{path} is for {found}, the target is {target}"),
            Problem::Interpreter { path, interpreter } => {
                write!(f, "{path} needs the interpreter {interpreter}, which is not there")
            }
            Problem::Library {
                path,
                library,
                searched,
            } => {
                let searched = searched.join(", ");
                write!(
                    f,
                    "{path} needs the library {library}, which is not there (looked for in {searched})"
                )
            }
            Problem::Opened { path, library, reason } => {
                write!(
                    f,
                    "{path} opens the library {library} at run time ({reason}), but the library is not there"
                )
            }
            Problem::Driver { name, directory } => {
                write!(
                    f,
                    "the driver {name} is neither in {directory} nor built into the kernel"
                )
            }
            Problem::Needs { path, needs } => write!(f, "{path} needs {needs}, which is not there"),
            Problem::Unlisted { path, index } => write!(f, "{path} is not listed in {index}"),
            Problem::Listed { path, index } => write!(f, "{path} is listed in {index}, but not there"),
        }
    }
}
