//! The dynamic loader of the target: its search for the libraries of a program. Source: `ld.so(8)`, and glibc's elf/dl-load.c.
//!
//! The loader searches the directories that the file names (`DT_RUNPATH`, or else `DT_RPATH`), then Debian's own directories. It does not
//! search for a library that is loaded already, whatever directory that came from: so a library in a private directory gets its
//! neighbour if the program has loaded it. The rule that a `DT_RPATH` also holds for the libraries of its file is left out, because no
//! file of Debian has a `DT_RPATH`.

use super::view::{FileContent, View};
use crate::{
    image::elf::{Elf, ElfKind, ElfMachine},
    model::{Arch, RelPath},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Debian's name for the directories of an architecture.
pub(super) const fn triplet(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-linux-gnu",
        Arch::Arm64 => "aarch64-linux-gnu",
    }
}

/// The dynamic loader of an architecture.
const fn own_path(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "/lib64/ld-linux-x86-64.so.2",
        Arch::Arm64 => "/lib/ld-linux-aarch64.so.1",
    }
}

/// The loader, in a tree.
pub(super) struct Loader<'a> {
    view: View<'a>,
    arch: Arch,
    /// Directories that are searched for every file, without repetitions.
    standard: Vec<RelPath>,
    /// Paths of libraries in these directories, by name.
    known: BTreeMap<Vec<u8>, Option<RelPath>>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(view: View<'a>, arch: Arch) -> Self {
        let triplet = triplet(arch);
        // The built-in list (`ld.so --help`), which is used without a cache. `/lib` is a link to `/usr/lib`.
        let mut standard = Vec::new();
        for directory in ["/lib/{}", "/usr/lib/{}", "/lib", "/usr/lib"].map(|d| d.replace("{}", triplet)) {
            match view.follow(directory.as_bytes()) {
                Some((directory, _)) if !standard.contains(&directory) => standard.push(directory),
                _ => {}
            }
        }
        Self {
            view,
            arch,
            standard,
            known: BTreeMap::new(),
        }
    }

    /// The machine whose files it loads.
    pub(super) fn target(&self) -> ElfMachine {
        ElfMachine::of(self.arch)
    }

    /// Loads the file at `path` and all its libraries. `reached` gets the paths of the libraries, `lacks` each missing library with the
    /// file that needs it.
    pub(super) fn start(
        &mut self,
        path: &RelPath,
        elf: &'a Elf,
        reached: &mut BTreeSet<RelPath>,
        lacks: &mut BTreeSet<(RelPath, Vec<u8>)>,
    ) {
        // The names under which libraries are needed.
        let mut loaded: BTreeSet<&[u8]> = elf.soname.iter().map(Vec::as_slice).collect();
        let mut left = VecDeque::from([(path.clone(), elf)]);
        while let Some((path, elf)) = left.pop_front() {
            for name in &elf.needed {
                if loaded.contains(&name[..]) {
                    continue;
                }
                let Some((found, library)) = self.find(&path, elf, name) else {
                    lacks.insert((path.clone(), name.clone()));
                    continue;
                };
                loaded.insert(name);
                loaded.extend(library.soname.iter().map(Vec::as_slice));
                reached.insert(found.clone());
                left.push_back((found, library));
            }
        }
    }

    /// The library `name` for the file at `path`.
    pub(super) fn find(&mut self, path: &RelPath, elf: &Elf, name: &[u8]) -> Option<(RelPath, &'a Elf)> {
        if name.contains(&b'/') {
            return self.library(name).filter(|_| name.starts_with(b"/"));
        }
        for directory in &elf.search {
            if let Some(directory) = self.expand(directory, path)
                && let Some(found) = self.library(&[&directory, &b"/"[..], name].concat())
            {
                return Some(found);
            }
        }
        if let Some(known) = self.known.get(name) {
            return self.library(known.as_ref()?.as_bytes());
        }
        let found = self.find_in_standard(name);
        self.known
            .insert(name.to_owned(), found.as_ref().map(|(path, _)| path.clone()));
        found
    }

    /// Whether the library `name` is in the directory of the file at `path`.
    pub(super) fn is_beside(&self, path: &RelPath, name: &[u8]) -> bool {
        let directory = path.parent().map_or(Vec::new(), |d| d.as_bytes().to_vec());
        self.library(&[&directory, &b"/"[..], name].concat()).is_some()
    }

    /// The library `name` in the directories that are searched for every file.
    pub(super) fn find_in_standard(&self, name: &[u8]) -> Option<(RelPath, &'a Elf)> {
        // The loader itself is always loaded, under its own name.
        let own = own_path(self.arch).as_bytes();
        if own.ends_with(&[b"/", name].concat())
            && let Some(found) = self.library(own)
        {
            return Some(found);
        }
        let name = RelPath::new(name).ok()?;
        let mut places = self.standard.iter().map(|directory| directory.join(&name));
        places.find_map(|place| self.library(place.as_bytes()))
    }

    /// The library that `path` leads to, if it can be loaded.
    pub(super) fn library(&self, path: &[u8]) -> Option<(RelPath, &'a Elf)> {
        let (path, entry) = self.view.follow(path)?;
        match self.view.content(entry) {
            Some(FileContent::Elf(elf)) if elf.machine == self.target() && elf.kind == ElfKind::Shared => {
                Some((path, elf))
            }
            _ => None,
        }
    }

    /// The directories that are searched for the libraries of a file, as text.
    pub(super) fn searched(&self, elf: &Elf) -> Vec<String> {
        let own = elf.search.iter().map(|d| d.escape_ascii().to_string());
        own.chain(self.standard.iter().map(|d| format!("/{d}"))).collect()
    }

    /// A directory of a file's own list with the loader's variables filled in; `None` for a relative directory or another variable.
    fn expand(&self, directory: &[u8], path: &RelPath) -> Option<Vec<u8>> {
        let origin = path.parent().map_or(Vec::new(), |p| [b"/", p.as_bytes()].concat());
        let library = format!("lib/{}", triplet(self.arch));
        let mut out = Vec::new();
        let mut left = directory;
        while let Some(at) = left.iter().position(|b| *b == b'$') {
            out.extend_from_slice(&left[..at]);
            left = &left[at..];
            let words: [(&[u8], &[u8]); 4] = [
                (b"$ORIGIN", &origin),
                (b"${ORIGIN}", &origin),
                (b"$LIB", library.as_bytes()),
                (b"${LIB}", library.as_bytes()),
            ];
            let (word, value) = words.into_iter().find(|(word, _)| left.starts_with(word))?;
            out.extend_from_slice(value);
            left = &left[word.len()..];
        }
        out.extend_from_slice(left);
        out.starts_with(b"/").then_some(out)
    }
}
