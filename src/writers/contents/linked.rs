//! Programs and libraries: checks that the kernel and the dynamic loader of the target can start each of them.

use super::{
    loader::{Loader, triplet},
    modules,
    problem::Problem,
    view::{FileContent, View},
};
use crate::{
    image::elf::{Elf, ElfMachine},
    model::{Arch, Node, RelPath},
};
use std::collections::{BTreeMap, BTreeSet};

/// A library that programs open with dlopen, so that no list of needed libraries names it.
struct Opened {
    library: &'static str,
    /// Programs that need it, as far as the tree has them. `{triplet}` stands for that of the architecture.
    by: &'static [&'static str],
    reason: &'static str,
}

/// Libraries that are opened at run time and that a node needs to boot. Libraries that systemd opens for features no node uses are not
/// listed (the notes `.note.dlopen` of its libraries call them suggested).
const OPENED: &[Opened] = &[
    Opened {
        library: "libkmod.so.2",
        by: &[
            "usr/bin/udevadm",
            "usr/lib/systemd/systemd",
            "usr/lib/systemd/systemd-modules-load",
        ],
        reason: "it loads kernel modules with it",
    },
    Opened {
        library: "libgcc_s.so.1",
        by: &["usr/lib/{triplet}/libc.so.6"],
        reason: "a thread that is cancelled or ends itself aborts the program without it",
    },
];

/// The reasons why ELF files of the tree cannot be started or loaded. Kernel modules are checked by [`modules`].
pub(super) fn check(view: View<'_>, arch: Arch) -> Vec<Problem> {
    let target = ElfMachine::of(arch);
    let mut loader = Loader::new(view, arch);
    let elfs: BTreeMap<&RelPath, &Elf> = elfs_of(view).collect();
    let lacks = lacking(&mut loader, &elfs);
    let mut problems = Vec::new();
    for (path, entry) in view.tree.iter().filter(|(path, _)| !modules::is_module(path)) {
        match view.content(entry) {
            Some(FileContent::Elf(elf)) if elf.machine != target => problems.push(Problem::Machine {
                path: path.to_string(),
                found: elf.machine,
                target,
            }),
            Some(FileContent::Elf(elf)) => {
                if let Some(interpreter) = elf.interpreter.as_ref().filter(|i| loader.library(i).is_none()) {
                    problems.push(Problem::Interpreter {
                        path: path.to_string(),
                        interpreter: interpreter.escape_ascii().to_string(),
                    });
                }
                let lacks = elf
                    .needed
                    .iter()
                    .filter(|n| lacks.contains(&(path.clone(), (*n).clone())));
                problems.extend(lacks.map(|library| Problem::Library {
                    path: path.to_string(),
                    library: library.escape_ascii().to_string(),
                    searched: loader.searched(elf),
                }));
            }
            Some(FileContent::Broken(problem)) => problems.push(Problem::Unreadable {
                path: path.to_string(),
                problem: problem.clone(),
            }),
            _ => {}
        }
    }
    for opened in OPENED {
        for by in opened.by {
            let by = by.replace("{triplet}", triplet(arch));
            let Some((path, entry)) = view.follow(by.as_bytes()) else {
                continue;
            };
            let Some(FileContent::Elf(elf)) = view.content(entry) else {
                continue;
            };
            if elf.machine == target && loader.find(&path, elf, opened.library.as_bytes()).is_none() {
                problems.push(Problem::Opened {
                    path: by,
                    library: opened.library.to_owned(),
                    reason: opened.reason,
                });
            }
        }
    }
    problems
}

/// Every program and library of the tree.
pub(super) fn elfs_of<'a>(view: View<'a>) -> impl Iterator<Item = (&'a RelPath, &'a Elf)> {
    let files = view.tree.iter().filter(|(path, _)| !modules::is_module(path));
    files.filter_map(move |(path, entry)| match view.content(entry) {
        Some(FileContent::Elf(elf)) => Some((path, elf)),
        _ => None,
    })
}

/// The pairs of a file and a library that it does not get. A library is loaded together with each program that needs it. A library that
/// no program needs is loaded alone; the program that opens it knows its directory, so libraries beside it count as found.
fn lacking<'a>(loader: &mut Loader<'a>, elfs: &BTreeMap<&RelPath, &'a Elf>) -> BTreeSet<(RelPath, Vec<u8>)> {
    let (mut lacks, mut reached) = (BTreeSet::new(), BTreeSet::new());
    let own = |loader: &Loader<'_>, elf: &Elf| elf.machine == loader.target();
    for (path, elf) in elfs.iter().filter(|(_, elf)| elf.interpreter.is_some()) {
        if own(loader, elf) {
            loader.start(path, elf, &mut reached, &mut lacks);
        }
    }
    for (path, elf) in elfs {
        if own(loader, elf) && !reached.contains(*path) {
            let mut alone = BTreeSet::new();
            loader.start(path, elf, &mut BTreeSet::new(), &mut alone);
            alone.retain(|(of, name)| of != *path || !loader.is_beside(path, name));
            lacks.append(&mut alone);
        }
    }
    lacks
}

/// The problem of the interpreter of the script at `path`; `None` when the file is not a script.
pub(super) fn check_script(view: View<'_>, path: &RelPath) -> Option<Problem> {
    let Some(FileContent::Script(interpreter)) = view.content(view.tree.get(path)?) else {
        return None;
    };
    let found = view.follow(interpreter).map(|(_, entry)| entry);
    let runs = found.is_some_and(|e| matches!(e.node, Node::File { .. }) && e.meta.mode & 0o111 != 0);
    (!runs).then(|| Problem::Interpreter {
        path: path.to_string(),
        interpreter: interpreter.escape_ascii().to_string(),
    })
}
