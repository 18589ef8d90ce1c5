//! `contents.toml`: the required contents of an initramfs. `stages/README.md` describes the file.

use super::{problem::Problem, view::View};
use crate::{
    model::{Arch, Node, visible_message},
    writers::WriterError,
};
use globset::GlobBuilder;
use serde::Deserialize;
use std::path::Path;

/// Directories of programs.
const PROGRAMS: [&str; 2] = ["usr/bin", "usr/sbin"];
/// Characters that make a path a pattern.
pub(super) const PATTERN: [char; 4] = ['*', '?', '[', '{'];

/// The required programs, files and drivers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requirements {
    /// Names of programs, in `usr/bin` or `usr/sbin`.
    #[serde(default)]
    pub(super) programs: Vec<String>,
    /// Paths, and patterns that at least one path must match.
    #[serde(default)]
    pub(super) files: Vec<String>,
    /// Names of kernel modules.
    #[serde(default)]
    pub(super) drivers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    both: Requirements,
    #[serde(default)]
    amd64: Requirements,
    #[serde(default)]
    arm64: Requirements,
}

/// Reads the requirements for `arch`. An empty list of programs, files or drivers would check nothing and is an error.
pub(super) fn parse_wanted(text: &str, arch: Arch) -> Result<Requirements, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        let line = line.map_or(String::new(), |line| format!("line {line}: "));
        format!("{line}{}", visible_message(error.message()))
    })?;
    let special = match arch {
        Arch::Amd64 => file.amd64,
        Arch::Arm64 => file.arm64,
    };
    let mut wanted = file.both;
    wanted.programs.extend(special.programs);
    wanted.files.extend(special.files);
    wanted.drivers.extend(special.drivers);
    for (kind, list) in [
        ("programs", &wanted.programs),
        ("files", &wanted.files),
        ("drivers", &wanted.drivers),
    ] {
        if list.is_empty() {
            return Err(format!("it requires no {kind}"));
        }
    }
    for pattern in wanted.files.iter().filter(|f| f.contains(PATTERN)) {
        glob(pattern)?;
    }
    Ok(wanted)
}

/// Reads the requirements in the file `path`.
pub(super) fn load_wanted(path: &Path, arch: Arch) -> Result<Requirements, WriterError> {
    let text = std::fs::read_to_string(path).map_err(WriterError::io("read", path))?;
    parse_wanted(&text, arch).map_err(|problem| WriterError::Missing(format!("read {path:?}: {problem}")))
}

/// A pattern of paths; a star stands for no slash.
pub(super) fn glob(pattern: &str) -> Result<globset::GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    Ok(glob.map_err(|e| e.to_string())?.compile_matcher())
}

/// The required programs and files that are missing from the tree. A link counts only if its target exists.
pub(super) fn missing(view: View<'_>, wanted: &Requirements) -> Vec<Problem> {
    let mut problems = Vec::new();
    for program in &wanted.programs {
        let places = PROGRAMS.map(|directory| format!("{directory}/{program}"));
        let found = places.iter().find_map(|p| Some((p, view.follow(p.as_bytes())?.1)));
        match found {
            None => problems.push(Problem::NotThere {
                wanted: places.join(" or "),
            }),
            Some((path, entry)) if !matches!(entry.node, Node::File { .. }) || entry.meta.mode & 0o111 == 0 => {
                problems.push(Problem::NotExecutable { path: path.clone() });
            }
            Some(_) => {}
        }
    }
    for file in &wanted.files {
        let is_there = if file.contains(PATTERN) {
            glob(file).is_ok_and(|glob| {
                let mut paths = view
                    .tree
                    .iter()
                    .map(|(path, _)| path)
                    .filter(|p| glob.is_match(p.as_path()));
                paths.any(|path| view.follow(path.as_bytes()).is_some())
            })
        } else {
            view.follow(file.as_bytes()).is_some()
        };
        if !is_there {
            problems.push(Problem::NotThere { wanted: file.clone() });
        }
    }
    problems
}
