//! The files of a root without which a node does not come up, as a closure.
//!
//! A file that is damaged shows when it is read. In the initramfs that is a refusal with the name of the file, later it is a node that
//! hangs or a kernel that panics. So 90powernode reads all files first that the start of a node reads: the list of the root
//! (`usr/lib/powernode/critical-files`) names the programs and the units to begin with, and this file follows them:
//!
//! | file | leads to |
//! |---|---|
//! | program, library | its interpreter, the libraries that it needs, and each library whose name it contains (for dlopen) |
//! | script | its interpreter; of a shell's script each program whose name is a word of it |
//! | unit | its drop-ins, the programs of its `Exec…=` lines, and the units that it starts |
//! | `nsswitch.conf` | the modules of its services |
//!
//! A word that is not a call, or a library that is opened on no node, is read in vain and costs only time.

use super::{
    checks::read_tree_files,
    loader::Loader,
    requirements::{PATTERN, glob},
    view::{FileContent, View},
};
use crate::{
    model::{Arch, Node, RelPath, Tree, VerityDigest},
    writers::WriterError,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

/// The list: the seeds in the overlay of the root, and everything they lead to in the root.
pub(in crate::writers) const CRITICAL: &str = "usr/lib/powernode/critical-files";
/// Directories of units; the first one wins.
const UNITS: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];
/// Endings of the units that may start a program or another unit. Timers and paths start theirs later than a node comes up.
const UNIT_KINDS: [&str; 5] = [".service", ".socket", ".target", ".mount", ".slice"];
/// Settings with names of units that are started together with the unit.
const STARTS: [&str; 6] = ["Wants", "Requires", "BindsTo", "Upholds", "Service", "Sockets"];
/// Directories of programs, for words of scripts and for names in units.
const PROGRAMS: [&str; 2] = ["usr/bin", "usr/sbin"];
/// Shells whose scripts are read for the names of programs.
const SHELLS: [&[u8]; 3] = [b"sh", b"dash", b"bash"];
/// The configuration of the name service switch, whose words name modules.
const NSSWITCH: &str = "etc/nsswitch.conf";

/// The text of the list in the root: one path in each line, sorted. `files` has the paths of the contents. Also the number of bytes
/// that reading the list means.
pub(in crate::writers) fn critical_files(
    arch: Arch,
    tree: &Tree,
    files: &BTreeMap<VerityDigest, PathBuf>,
) -> Result<(String, u64), WriterError> {
    let contents = read_tree_files(tree, files)?;
    let view = View {
        tree,
        contents: &contents,
    };
    let read = |digest: &VerityDigest| -> Result<Vec<u8>, WriterError> {
        let place = files.get(digest);
        let place = place.ok_or_else(|| WriterError::Missing(format!("find the object {digest} in the inputs")))?;
        fs::read(place).map_err(WriterError::io("read", place))
    };
    let found = closure(view, arch, &read)?;
    let mut text = "# The files of the root that 90powernode reads before it hands over. Written by the build: the closure of the list in\n\
                    # the overlay of the root.\n"
        .to_owned();
    let mut bytes = 0;
    for path in &found {
        // The list is read line by line, and nothing in it is a pattern.
        let name = path.to_string();
        if name.contains(|c: char| c.is_control()) || name.starts_with('#') {
            return Err(WriterError::Missing(format!(
                "list the critical file {name:?}: it has an odd name"
            )));
        }
        text.push_str(&name);
        text.push('\n');
        if let Some(Node::File { size, .. }) = tree.get(path).map(|entry| &entry.node) {
            bytes += size;
        }
    }
    Ok((text, bytes))
}

type ReadContent<'r> = dyn Fn(&VerityDigest) -> Result<Vec<u8>, WriterError> + 'r;

/// All files that the seeds of the tree lead to, and the seeds.
fn closure(view: View<'_>, arch: Arch, read: &ReadContent<'_>) -> Result<BTreeSet<RelPath>, WriterError> {
    let mut walk = Walk {
        view,
        loader: Loader::new(view, arch),
        read,
        found: BTreeSet::new(),
        left: Vec::new(),
        units: BTreeSet::new(),
    };
    for seed in seeds(view, read)? {
        walk.add_path(seed.as_bytes());
    }
    while let Some(path) = walk.left.pop() {
        walk.follow(&path)?;
    }
    Ok(walk.found)
}

/// The paths that the list of the overlay names. A line that names nothing is an error: it would check nothing.
fn seeds(view: View<'_>, read: &ReadContent<'_>) -> Result<Vec<RelPath>, WriterError> {
    let refuse = |problem: String| WriterError::Missing(format!("use /{CRITICAL} of the overlay: {problem}"));
    let list = view.follow(CRITICAL.as_bytes()).map(|(_, entry)| &entry.node);
    let Some(Node::File { digest, .. }) = list else {
        return Err(refuse("there is no such file".to_owned()));
    };
    let text = String::from_utf8(read(digest)?).map_err(|e| refuse(e.to_string()))?;
    let mut seeds = vec![RelPath::new(CRITICAL).map_err(|e| refuse(e.to_string()))?];
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let before = seeds.len();
        if line.contains(PATTERN) {
            let glob = glob(line).map_err(&refuse)?;
            let paths = view.tree.iter().map(|(path, _)| path);
            seeds.extend(paths.filter(|path| glob.is_match(path.as_path())).cloned());
        } else {
            seeds.push(RelPath::new(line).map_err(|e| refuse(e.to_string()))?);
        }
        let named = seeds.get(before..).unwrap_or_default();
        let is_file = |path: &RelPath| {
            let found = view.follow(path.as_bytes()).map(|(_, entry)| &entry.node);
            matches!(found, Some(Node::File { .. }))
        };
        if !named.iter().any(is_file) {
            return Err(refuse(format!("the root has no file {line}")));
        }
    }
    if seeds.len() == 1 {
        return Err(refuse("it names no file".to_owned()));
    }
    Ok(seeds)
}

struct Walk<'a, 'r> {
    view: View<'a>,
    loader: Loader<'a>,
    read: &'r ReadContent<'r>,
    found: BTreeSet<RelPath>,
    left: Vec<RelPath>,
    /// Names of the units that were looked for.
    units: BTreeSet<String>,
}

impl Walk<'_, '_> {
    /// Adds the regular file that `path` leads to, if there is one.
    fn add_path(&mut self, path: &[u8]) {
        let Some((path, entry)) = self.view.follow(path) else {
            return;
        };
        if matches!(entry.node, Node::File { .. }) && self.found.insert(path.clone()) {
            self.left.push(path);
        }
    }

    /// Adds the program `name`, which is an absolute path, or a name in one of the directories of programs.
    fn add_program(&mut self, name: &str) {
        if name.starts_with('/') {
            self.add_path(name.as_bytes());
        } else if !name.contains('/') {
            for directory in PROGRAMS {
                self.add_path(format!("{directory}/{name}").as_bytes());
            }
        }
    }

    /// Adds what the file at `path` leads to.
    fn follow(&mut self, path: &RelPath) -> Result<(), WriterError> {
        let view = self.view;
        let Some(entry) = view.tree.get(path) else {
            return Ok(());
        };
        let Node::File { digest, .. } = &entry.node else {
            return Ok(());
        };
        let name = String::from_utf8_lossy(path.name()).into_owned();
        match view.content(entry) {
            Some(FileContent::Elf(elf)) if elf.machine == self.loader.target() => {
                if let Some(interpreter) = &elf.interpreter {
                    self.add_path(interpreter);
                    // A library may come from a directory that only the program names.
                    let mut reached = BTreeSet::new();
                    self.loader.start(path, elf, &mut reached, &mut BTreeSet::new());
                    for library in reached {
                        self.add_path(library.as_bytes());
                    }
                }
                let bytes = (self.read)(digest)?;
                for library in elf.needed.iter().cloned().chain(named_libraries(&bytes)) {
                    if let Some((library, _)) = self.loader.find(path, elf, &library) {
                        self.add_path(library.as_bytes());
                    }
                }
            }
            Some(FileContent::Script(interpreter)) => {
                self.add_path(interpreter);
                let shell = interpreter.rsplit(|b| *b == b'/').next().unwrap_or_default();
                if SHELLS.contains(&shell) {
                    let text = (self.read)(digest)?;
                    for word in script_words(&String::from_utf8_lossy(&text)) {
                        self.add_program(word);
                    }
                }
            }
            _ if is_unit(path, &name) => {
                let text = (self.read)(digest)?;
                self.unit(&name, &String::from_utf8_lossy(&text));
            }
            _ if path.as_bytes() == NSSWITCH.as_bytes() => {
                let text = (self.read)(digest)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                let lines = text.lines().filter_map(|line| line.split('#').next()?.split_once(':'));
                for service in lines.flat_map(|(_, services)| services.split_whitespace()) {
                    let module = format!("libnss_{service}.so.2");
                    if let Some((module, _)) = self.loader.find_in_standard(module.as_bytes()) {
                        self.add_path(module.as_bytes());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds what a unit, or a drop-in of one, starts. `name` is the name of the file.
    fn unit(&mut self, name: &str, text: &str) {
        for (key, value) in settings(text) {
            if key.starts_with("Exec") {
                // Characters before the program say how it is started.
                let program = value.trim_start_matches(['@', '-', ':', '+', '!', '|']);
                let program = program.split_whitespace().next().unwrap_or_default();
                self.add_program(program);
            } else if STARTS.contains(&key) {
                for unit in value.split_whitespace() {
                    self.add_unit(unit);
                }
            }
        }
        if let Some(stem) = name.strip_suffix(".socket") {
            self.add_unit(&format!("{stem}.service"));
            self.add_unit(&format!("{stem}@.service"));
        }
        for directory in UNITS {
            for link in ["wants", "requires", "upholds"] {
                let Ok(place) = RelPath::new(format!("{directory}/{name}.{link}")) else {
                    continue;
                };
                for unit in self.view.tree.children(Some(&place)) {
                    self.add_unit(&String::from_utf8_lossy(unit.name()));
                }
            }
            let Ok(place) = RelPath::new(format!("{directory}/{name}.d")) else {
                continue;
            };
            for drop_in in self.view.tree.children(Some(&place)) {
                self.add_path(drop_in.as_bytes());
            }
        }
    }

    /// Adds the unit `name`, or its template, from the first directory that has it. A unit that is masked leads nowhere.
    fn add_unit(&mut self, name: &str) {
        if !UNIT_KINDS.iter().any(|kind| name.ends_with(kind)) || !self.units.insert(name.to_owned()) {
            return;
        }
        let template = name.split_once('@').and_then(|(prefix, instance)| {
            let (_, kind) = instance.rsplit_once('.')?;
            Some(format!("{prefix}@.{kind}"))
        });
        for name in [Some(name.to_owned()), template].into_iter().flatten() {
            for directory in UNITS {
                let path = format!("{directory}/{name}");
                let Ok(place) = RelPath::new(&path) else { return };
                if self.view.tree.get(&place).is_some() {
                    self.add_path(path.as_bytes());
                    return;
                }
            }
        }
    }
}

/// Whether the file at `path` is a unit, or a drop-in of one.
fn is_unit(path: &RelPath, name: &str) -> bool {
    let Some(parent) = path.parent() else { return false };
    let parent = parent.to_string();
    let of_unit = |name: &str| UNIT_KINDS.iter().any(|kind| name.ends_with(kind));
    if UNITS.contains(&parent.as_str()) {
        return of_unit(name);
    }
    let drop_in = UNITS.iter().any(|directory| parent.starts_with(directory));
    drop_in && name.ends_with(".conf") && parent.strip_suffix(".d").is_some_and(of_unit)
}

/// The settings of a unit: key and value. A value that goes on in the next line is cut off: its first word is here.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';', '[']));
    lines.filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim(), value.trim().trim_end_matches('\\')))
    })
}

/// The words of a shell's script that can be a program: names, and absolute paths.
fn script_words(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "._+-/[".contains(c));
    lines
        .flat_map(move |line| line.split(odd))
        .filter(|word| !word.is_empty())
}

/// The names of libraries that a program contains: `lib….so.<number>`, as dlopen takes them.
fn named_libraries(bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    let middle = b".so.";
    for at in memchr::memmem::find_iter(bytes, middle) {
        let (before, after) = (bytes.get(..at), bytes.get(at + middle.len()..));
        let (Some(before), Some(after)) = (before, after) else {
            continue;
        };
        let is_name = |b: &&u8| b.is_ascii_alphanumeric() || b"_+-.".contains(b);
        let stem = before.iter().rev().take_while(is_name).count();
        let version = after.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        let Some(name) = bytes.get(at - stem..at + middle.len() + version) else {
            continue;
        };
        if name.starts_with(b"lib") && version > 0 {
            names.insert(name.to_vec());
        }
    }
    names
}

#[cfg(test)]
mod tests;
