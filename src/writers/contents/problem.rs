//! What can be wrong with a tree, in words: each names the file and what it lacks.

use crate::image::elf::ElfMachine;
use std::fmt;

/// One thing that keeps a tree from working.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// A file that was asked for.
    NotThere {
        /// Its path or pattern.
        wanted: String,
    },
    /// A program that was asked for and that nobody may run.
    NotExecutable {
        /// Its path.
        path: String,
    },
    /// A file that is not what its name or its first bytes promise.
    Unreadable {
        /// Its path.
        path: String,
        /// Why, completing "failed to …".
        problem: String,
    },
    /// A file for other machines.
    Machine {
        /// Its path.
        path: String,
        /// What it is for.
        found: ElfMachine,
        /// What it should be for.
        target: ElfMachine,
    },
    /// The dynamic loader, or the interpreter of a script.
    Interpreter {
        /// Path of the program.
        path: String,
        /// Path of the interpreter.
        interpreter: String,
    },
    /// A library that a file is loaded with.
    Library {
        /// Path of the file.
        path: String,
        /// Name of the library.
        library: String,
        /// Directories that were searched.
        searched: Vec<String>,
    },
    /// A library that a program opens when it runs.
    Opened {
        /// Path of the program.
        path: String,
        /// Name of the library.
        library: String,
        /// What it is opened for.
        reason: &'static str,
    },
    /// A driver that was asked for.
    Driver {
        /// Its name.
        name: String,
        /// Where it was looked for.
        directory: String,
    },
    /// A kernel module that another one needs.
    Needs {
        /// Path of the module.
        path: String,
        /// Path of what it needs.
        needs: String,
    },
    /// A kernel module that modprobe does not find.
    Unlisted {
        /// Path of the module.
        path: String,
        /// Path of the index that lacks it.
        index: String,
    },
    /// A module of the index that is not there.
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
                    "{path} opens the library {library} when it runs ({reason}), which is not there"
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
            Problem::Listed { path, index } => write!(f, "{path} is listed in {index} and not there"),
        }
    }
}
