//! The dynamic loader of the target: which libraries a program is started with. Source: `ld.so(8)`, and glibc's elf/dl-load.c.
//!
//! A library is looked for in the directories of the file that needs it (`DT_RUNPATH`, or `DT_RPATH` where there is none), then in
//! Debian's own. One that is loaded already is not looked for again, whatever directory it came from: that is how a library in a
//! directory of its own finds its neighbour, which the program named. That a `DT_RPATH` also holds for what its file loads is left
//! out: no file of Debian has one.

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
    /// Directories searched for every file, each once.
    standard: Vec<RelPath>,
    /// Where in them a library is, by name.
    known: BTreeMap<Vec<u8>, Option<RelPath>>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(view: View<'a>, arch: Arch) -> Self {
        let triplet = triplet(arch);
        // Its built-in list (`ld.so --help`), which holds without a cache. `/lib` is a link to `/usr/lib`.
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

    /// What it loads.
    pub(super) fn target(&self) -> ElfMachine {
        ElfMachine::of(self.arch)
    }

    /// Loads the file at `path` with everything it needs. `reached` gets the libraries, `lacks` what a file did not get.
    pub(super) fn start(
        &mut self,
        path: &RelPath,
        elf: &'a Elf,
        reached: &mut BTreeSet<RelPath>,
        lacks: &mut BTreeSet<(RelPath, Vec<u8>)>,
    ) {
        // By the names that they are needed by.
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

    fn find_in_standard(&self, name: &[u8]) -> Option<(RelPath, &'a Elf)> {
        // It is there itself before anything else, under its own name.
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

    /// What `path` leads to, if that can be loaded.
    pub(super) fn library(&self, path: &[u8]) -> Option<(RelPath, &'a Elf)> {
        let (path, entry) = self.view.follow(path)?;
        match self.view.content(entry) {
            Some(FileContent::Elf(elf)) if elf.machine == self.target() && elf.kind == ElfKind::Shared => {
                Some((path, elf))
            }
            _ => None,
        }
    }

    /// Where a file's libraries are looked for, for people.
    pub(super) fn searched(&self, elf: &Elf) -> Vec<String> {
        let own = elf.search.iter().map(|d| d.escape_ascii().to_string());
        own.chain(self.standard.iter().map(|d| format!("/{d}"))).collect()
    }

    /// A directory of a file's own list with the loader's words filled in; `None` for one that depends on who runs it.
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
