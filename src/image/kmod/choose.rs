//! The modules of an initramfs: the requested modules, their dependencies, and the modules that they name themselves.
//!
//! A name is looked up as modprobe does without configuration: the module of that name, or else the modules with a matching alias.
//! Modules that a module names itself (`softdep`, `weakdep`) are looked up in the same way; of several such lines of a module the
//! first counts. Modules that are built in or do not exist are skipped. `dracut-install -m` installs the same modules.

use super::{ModuleSet, module::refuse, tables::normal_alias};
use crate::image::ImageError;
use std::collections::{BTreeMap, BTreeSet};

/// An entry of the list of requested modules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModuleRequest {
    /// Every module in this directory of `kernel`, `extra` and `updates`.
    Directory(String),
    /// A module or alias.
    Name(String),
}

/// The directories whose subdirectories can be requested.
const PLACES: [&str; 3] = ["kernel", "extra", "updates"];

/// Parses a list of names and, with `=` in front, directories, separated by spaces; `#` begins a comment. `name` is the list's name
/// in messages.
pub fn parse_wanted(name: &str, list: &str) -> Result<Vec<ModuleRequest>, ImageError> {
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or(line));
    wanted_modules(name, lines.flat_map(str::split_whitespace))
}

/// Parses the words of a list: names and, with `=` in front, directories. `name` is the list's name in messages.
pub fn wanted_modules<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Result<Vec<ModuleRequest>, ImageError> {
    let mut wanted = Vec::new();
    for word in words {
        wanted.push(match word.strip_prefix('=') {
            Some(directory) if !directory.is_empty() => ModuleRequest::Directory(directory.to_owned()),
            Some(_) => {
                return Err(refuse(
                    name,
                    "a \"=\" has no directory behind it; write e.g. =drivers/net",
                ));
            }
            None => ModuleRequest::Name(word.to_owned()),
        });
    }
    if wanted.is_empty() {
        return Err(refuse(name, "it names no module"));
    }
    Ok(wanted)
}

/// Looks up modules.
#[derive(Debug)]
pub struct Chooser<'a> {
    set: &'a ModuleSet,
    names: BTreeMap<&'a str, usize>,
    /// Normalised aliases, without and with wildcards.
    exact: BTreeMap<String, Vec<usize>>,
    patterns: Vec<(String, usize)>,
}

impl<'a> Chooser<'a> {
    /// Prepares look-ups among the modules of `set`.
    pub fn new(set: &'a ModuleSet) -> Self {
        let mut chooser = Self {
            set,
            names: BTreeMap::new(),
            exact: BTreeMap::new(),
            patterns: Vec::new(),
        };
        for (at, member) in set.members().iter().enumerate() {
            chooser.names.insert(&member.name, at);
            for alias in member.facts.aliases.iter().filter_map(|a| normal_alias(a)) {
                if alias.contains(['*', '?', '[', '\\']) {
                    chooser.patterns.push((alias, at));
                } else {
                    chooser.exact.entry(alias).or_default().push(at);
                }
            }
        }
        chooser
    }

    /// Paths of the modules that remain without those of `omitted`, sorted. A module that a remaining one needs remains too.
    pub fn without(&self, omitted: &[ModuleRequest]) -> BTreeSet<&'a str> {
        let omitted: BTreeSet<usize> = omitted.iter().flat_map(|one| self.requested(one)).collect();
        let members = self.set.members();
        let others = (0..members.len()).filter(|at| !omitted.contains(at));
        let kept: BTreeSet<usize> = others
            .flat_map(|at| self.set.all_needs(at).into_iter().chain([at]))
            .collect();
        kept.into_iter().map(|at| members[at].facts.path.as_str()).collect()
    }

    /// Paths of the requested modules and of every module that belongs to them, sorted.
    pub fn choose(&self, wanted: &[ModuleRequest]) -> BTreeSet<&'a str> {
        let mut next: Vec<usize> = wanted.iter().flat_map(|one| self.requested(one)).collect();
        let members = self.set.members();
        let mut chosen = BTreeSet::new();
        while let Some(at) = next.pop() {
            if !chosen.insert(at) {
                continue;
            }
            next.extend(self.set.all_needs(at));
            let facts = &members[at].facts;
            if let Some(line) = facts.softdeps.first() {
                let listed = line.split_whitespace().skip_while(|w| !is_heading(w));
                next.extend(listed.filter(|w| !is_heading(w)).flat_map(|w| self.look_up(w)));
            }
            if let Some(line) = facts.weakdeps.first() {
                next.extend(line.split_whitespace().flat_map(|w| self.look_up(w)));
            }
        }
        chosen.into_iter().map(|at| members[at].facts.path.as_str()).collect()
    }

    fn requested(&self, one: &ModuleRequest) -> Vec<usize> {
        match one {
            ModuleRequest::Name(name) => self.look_up(name),
            ModuleRequest::Directory(directory) => self.within(directory).collect(),
        }
    }

    fn within(&self, directory: &str) -> impl Iterator<Item = usize> {
        let places: Vec<String> = PLACES.iter().map(|p| format!("{p}/{directory}/")).collect();
        let members = self.set.members().iter().enumerate();
        members
            .filter(move |(_, m)| places.iter().any(|p| m.facts.path.starts_with(p)))
            .map(|(at, _)| at)
    }

    fn look_up(&self, name: &str) -> Vec<usize> {
        let Some(name) = normal_alias(name) else {
            return Vec::new();
        };
        if let Some(at) = self.names.get(&*name) {
            return vec![*at];
        }
        let mut found = self.exact.get(&name).cloned().unwrap_or_default();
        let fits = |(pattern, _): &&(String, usize)| matches(pattern.as_bytes(), name.as_bytes());
        found.extend(self.patterns.iter().filter(fits).map(|(_, at)| *at));
        found
    }
}

fn is_heading(word: &str) -> bool {
    word == "pre:" || word == "post:"
}

/// Whether a pattern of fnmatch(3) matches the whole of `text`: `*`, `?`, `[…]`, and `\` in front of a literal character.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Position behind the last `*`, and the position in the text up to which that `*` matches: on a mismatch it takes one character
    // more.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) => text.get(t).and_then(|c| one_fits(&pattern[p..], *c)),
        };
        match (step, &mut retry) {
            (Some(length), _) => {
                p += length;
                t += 1;
            }
            (None, Some((behind, from))) if *from < text.len() => {
                *from += 1;
                (p, t) = (*behind, *from);
            }
            (None, _) => return false,
        }
    }
}

/// The length of the first element of a pattern, if the element matches the character.
fn one_fits(pattern: &[u8], c: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == c).then_some(2),
        b'[' => {
            let end = pattern.iter().skip(2).position(|b| *b == b']')? + 2;
            let (negated, set) = match pattern[1] {
                b'!' | b'^' => (true, &pattern[2..end]),
                _ => (false, &pattern[1..end]),
            };
            let mut found = false;
            let mut rest = set;
            while let Some((&first, others)) = rest.split_first() {
                rest = others;
                if let [b'-', last, more @ ..] = rest {
                    found |= (first..=*last).contains(&c);
                    rest = more;
                } else {
                    found |= first == c;
                }
            }
            (found != negated).then_some(end + 1)
        }
        own => (own == c).then_some(1),
    }
}
