//! Kernel modules: the required drivers, the modules they need, and their machine.
//!
//! ```text
//! modules.dep      kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/jbd2/jbd2.ko.xz
//! modules.builtin  kernel/fs/fuse/virtiofs.ko
//! ```
//!
//! Paths are relative to the directory of the kernel's version. The index of an initramfs lists only the modules that depmod found there,
//! so it does not show that a module was left out; the kernel's own index, which lists all modules, is read too.
//! Source: `modules.dep(5)`.

use super::{
    problem::Problem,
    view::{FileContent, View},
};
use crate::{
    image::elf::ElfMachine,
    model::{Arch, Node, RelPath, Tree},
};
use std::collections::{BTreeMap, BTreeSet};

/// Directory of the modules, with a directory for each version of the kernel.
const MODULES: &str = "usr/lib/modules";
const DEPENDENCIES: &str = "modules.dep";
const BUILT_IN: &str = "modules.builtin";
/// Endings of the file names of modules.
const ENDINGS: [&str; 3] = [".ko", ".ko.xz", ".ko.zst"];

/// A kernel and the dependencies of its modules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KernelModules {
    /// Its version, as `uname -r` prints it.
    pub(super) version: String,
    /// The modules that each of its modules needs.
    pub(super) needs: Needs,
}

/// The modules that each module needs: paths below the directory of the version.
pub(super) type Needs = BTreeMap<String, Vec<String>>;

/// The name by which modprobe knows the module in the file `name`.
fn module_name(name: &str) -> Option<String> {
    let stem = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending))?;
    Some(stem.replace('-', "_"))
}

/// The path below `usr/lib/modules` as text.
fn below(path: &RelPath) -> Option<&str> {
    let inside = path.as_bytes().strip_prefix(MODULES.as_bytes())?.strip_prefix(b"/")?;
    std::str::from_utf8(inside).ok()
}

/// Whether a kernel module is expected at `path`.
pub(super) fn is_module(path: &RelPath) -> bool {
    below(path).is_some_and(|inside| ENDINGS.iter().any(|ending| inside.ends_with(ending)))
}

/// Whether an index of modules is expected at `path`.
pub(super) fn is_index(path: &RelPath) -> bool {
    let name = below(path).and_then(|inside| inside.split_once('/'));
    name.is_some_and(|(_, name)| [DEPENDENCIES, BUILT_IN].contains(&name))
}

/// Reads `modules.dep`.
fn parse_needs(text: &str) -> Result<Needs, String> {
    let mut needs = Needs::new();
    for (number, line) in text.lines().enumerate() {
        let (module, others) = line
            .split_once(':')
            .ok_or_else(|| format!("read line {}: it has no colon", number + 1))?;
        needs.insert(
            module.to_owned(),
            others.split_whitespace().map(str::to_owned).collect(),
        );
    }
    Ok(needs)
}

/// The kernel whose index is in this tree, which must be exactly one.
pub(super) fn kernel(view: View<'_>) -> Result<KernelModules, Problem> {
    let versions = versions(view.tree);
    let [version] = &versions[..] else {
        return Err(Problem::Kernels {
            directory: MODULES,
            count: versions.len(),
        });
    };
    Ok(KernelModules {
        version: version.clone(),
        needs: needs_of(view, version)?,
    })
}

/// Names of the directories of kernels.
fn versions(tree: &Tree) -> Vec<String> {
    let directories = tree.iter().filter(|(_, entry)| entry.node == Node::Directory);
    let names = directories
        .filter_map(|(path, _)| below(path))
        .filter(|v| !v.contains('/'));
    names.map(str::to_owned).collect()
}

fn index<'a>(view: View<'a>, version: &str, name: &str) -> Result<&'a str, Problem> {
    let path = format!("{MODULES}/{version}/{name}");
    let found = view.follow(path.as_bytes()).and_then(|(_, entry)| view.content(entry));
    match found {
        Some(FileContent::Index(text)) => Ok(text),
        _ => Err(Problem::NotThere { wanted: path }),
    }
}

fn needs_of(view: View<'_>, version: &str) -> Result<Needs, Problem> {
    parse_needs(index(view, version, DEPENDENCIES)?).map_err(|problem| Problem::Unreadable {
        path: format!("{MODULES}/{version}/{DEPENDENCIES}"),
        problem,
    })
}

/// The problems of the modules of the tree and of their indexes. `whole` is the kernel that the modules were taken from, if they are only
/// some of its modules. `machines` says whether the machines of compressed modules were read and can be checked.
pub(super) fn check(view: View<'_>, arch: Arch, whole: Option<&KernelModules>, machines: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    for version in versions(view.tree) {
        let own = match needs_of(view, &version) {
            Ok(own) => own,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let all = whole.filter(|k| k.version == version).map(|k| &k.needs);
        let directory = format!("{MODULES}/{version}");
        let place = |module: &str| match module.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None => format!("{directory}/{module}"),
        };
        let is_there = |module: &str| view.follow(place(module).as_bytes()).is_some();
        let index = format!("{directory}/{DEPENDENCIES}");
        for (path, entry) in view.tree.iter().filter(|(path, _)| is_module(path)) {
            let inside = below(path).and_then(|p| p.strip_prefix(&version)?.strip_prefix('/'));
            let Some(module) = inside else { continue };
            if !own.contains_key(module) {
                problems.push(Problem::Unlisted {
                    path: path.to_string(),
                    index: index.clone(),
                });
            }
            let lists = [Some(&own), all].into_iter().flatten();
            let needed: BTreeSet<&String> = lists.filter_map(|list| list.get(module)).flatten().collect();
            problems.extend(needed.into_iter().filter(|n| !is_there(n)).map(|needs| Problem::Needs {
                path: path.to_string(),
                needs: place(needs),
            }));
            if machines {
                problems.extend(for_other_machines(view, path, entry, arch));
            }
        }
        problems.extend(own.keys().filter(|m| !is_there(m)).map(|module| Problem::Listed {
            path: place(module),
            index: index.clone(),
        }));
    }
    problems
}

fn for_other_machines(view: View<'_>, path: &RelPath, entry: &crate::model::Entry, arch: Arch) -> Option<Problem> {
    let target = ElfMachine::of(arch);
    let found = match (view.content(entry), &entry.node) {
        (Some(FileContent::Packed(machine)), _) => *machine,
        (Some(FileContent::Elf(elf)), _) => elf.machine,
        // The target of a link is checked at its own path.
        (_, Node::Symlink { .. }) => return None,
        (found, _) => {
            let problem = match found {
                Some(FileContent::Broken(problem)) => problem.clone(),
                _ => "read a kernel module: it is not an ELF file".to_owned(),
            };
            let path = path.to_string();
            return Some(Problem::Unreadable { path, problem });
        }
    };
    (found != target).then(|| Problem::Machine {
        path: path.to_string(),
        found,
        target,
    })
}

/// The drivers of `names` that are neither modules in the tree nor built into the kernel.
pub(super) fn missing_drivers(view: View<'_>, version: &str, names: &[String]) -> Vec<Problem> {
    let built_in = match index(view, version, BUILT_IN) {
        Ok(text) => text,
        Err(problem) => return vec![problem],
    };
    let directory = format!("{MODULES}/{version}");
    let inside = format!("{version}/");
    let files = view
        .tree
        .iter()
        .filter_map(|(path, _)| below(path)?.strip_prefix(&inside));
    let last = |path: &str| module_name(path.rsplit('/').next().unwrap_or(path));
    let known: BTreeSet<String> = built_in.lines().chain(files).filter_map(last).collect();
    let missing = names.iter().filter(|name| !known.contains(&name.replace('-', "_")));
    let missing = missing.map(|name| Problem::Driver {
        name: name.clone(),
        directory: directory.clone(),
    });
    missing.collect()
}
