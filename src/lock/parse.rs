//! Reads `lockfile.toml`.

use super::{
    LOCK_VERSION, LockError, Lockfile, Package, PinnedFile,
    error::{line_at, toml_error},
    format::Archive,
    wanted::{is_name, parse_snapshot},
};
use crate::{
    debian::{Version, is_package_name},
    model::{Arch, Epoch, excerpt},
};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// Largest lockfile accepted, in bytes.
pub const MAX_LOCKFILE: usize = 64 << 20;

/// Only the version, so that a newer file is named as such before its unknown fields are.
#[derive(Deserialize)]
struct Head {
    version: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(
        dead_code,
        reason = "read and checked as Head before; named here because unknown fields are refused"
    )]
    version: i64,
    source_date_epoch: Epoch,
    #[serde(default, rename = "archive")]
    archives: Vec<Spanned<Archive>>,
    #[serde(default, rename = "package")]
    packages: Vec<Spanned<Package>>,
    #[serde(default, rename = "file")]
    files: Vec<Spanned<PinnedFile>>,
}

/// Reads a lockfile; `file` names it in errors.
///
/// # Errors
/// [`LockError::NewerVersion`] for a format this program does not know; otherwise the line and the value: anything that is
/// not the schema, an archive, package or file listed twice, a reference to an archive that is not there.
pub fn parse_lock(text: &str, file: &str) -> Result<Lockfile, LockError> {
    if text.len() > MAX_LOCKFILE {
        return Err(LockError::TooLarge {
            file: file.to_owned(),
            size: text.len(),
            limit: MAX_LOCKFILE,
        });
    }
    let head: Head = toml::from_str(text).map_err(|err| toml_error(file, text, &err))?;
    let version_line = line_at(text, head.version.span().start);
    let found = *head.version.get_ref();
    if found > i64::from(LOCK_VERSION) {
        return Err(LockError::NewerVersion {
            file: file.to_owned(),
            line: version_line,
            found,
            known: LOCK_VERSION,
        });
    }
    if found < 1 {
        return Err(LockError::Line {
            file: file.to_owned(),
            line: version_line,
            problem: format!("there is no format version {found}"),
        });
    }
    let parsed: File = toml::from_str(text).map_err(|err| toml_error(file, text, &err))?;
    let mut check = Checker {
        text,
        file,
        seen: BTreeMap::new(),
    };
    let lock = Lockfile {
        version: LOCK_VERSION,
        source_date_epoch: parsed.source_date_epoch,
        archives: check.all(parsed.archives, |a| {
            (format!("archive {:?}", a.name), archive_problem(a))
        })?,
        packages: Vec::new(),
        files: check.all(parsed.files, |f| {
            let arch = f.arch.map_or(String::new(), |a| format!(" for {a}"));
            (format!("file {:?}{arch}", f.name), file_problem(f))
        })?,
    };
    let packages = check.all(parsed.packages, |p| {
        (
            format!("package {:?} {} {}", p.name, p.arch, p.version),
            package_problem(p, &lock),
        )
    })?;
    Ok(Lockfile { packages, ..lock })
}

struct Checker<'a> {
    text: &'a str,
    file: &'a str,
    seen: BTreeMap<String, usize>,
}

impl Checker<'_> {
    /// Takes the values out of their spans; `judge` names each and says what is wrong with it.
    fn all<T>(
        &mut self,
        items: Vec<Spanned<T>>,
        judge: impl Fn(&T) -> (String, Option<String>),
    ) -> Result<Vec<T>, LockError> {
        let mut out = Vec::with_capacity(items.len());
        // Lines are counted on from one item to the next: the file is long.
        let (mut at, mut line) = (0, 1);
        for item in items {
            let start = item.span().start.clamp(at, self.text.len());
            line += line_at(&self.text[at..], start - at) - 1;
            at = start;
            let item = item.into_inner();
            let (name, problem) = judge(&item);
            let problem = match (problem, self.seen.insert(name.clone(), line)) {
                (Some(problem), _) => format!("{name}: {problem}"),
                (None, Some(first)) => format!("second {name} (first in line {first})"),
                (None, None) => {
                    out.push(item);
                    continue;
                }
            };
            return Err(LockError::Line {
                file: self.file.to_owned(),
                line,
                problem,
            });
        }
        Ok(out)
    }
}

fn archive_problem(archive: &Archive) -> Option<String> {
    let fingerprint = |key: &String| {
        matches!(key.len(), 40 | 64) && key.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
    };
    if !is_name(&archive.name) {
        return Some("not an archive name".to_owned());
    }
    if parse_snapshot(&archive.snapshot).is_none() {
        return Some(format!(
            "snapshot is not YYYYMMDDThhmmssZ: {:?}",
            excerpt(&archive.snapshot)
        ));
    }
    if !is_url(&archive.snapshot_url) || archive.snapshot_url.ends_with('/') {
        return Some(format!(
            "snapshot_url is not an http or https address without a trailing slash: {:?}",
            excerpt(&archive.snapshot_url)
        ));
    }
    if archive.keys.is_empty() {
        return Some("no key signed it".to_owned());
    }
    archive
        .keys
        .iter()
        .find(|key| !fingerprint(key))
        .map(|key| format!("not a key fingerprint: {:?}", excerpt(key)))
}

fn package_problem(package: &Package, lock: &Lockfile) -> Option<String> {
    if !is_package_name(&package.name) {
        return Some("not a package name".to_owned());
    }
    if !matches!(package.arch.as_str(), "amd64" | "arm64" | "all") {
        return Some(format!("unknown architecture {:?}", excerpt(&package.arch)));
    }
    if let Err(err) = package.version.parse::<Version>() {
        return Some(err.to_string());
    }
    if lock.archive(&package.archive).is_none() {
        return Some(format!("no archive {:?} in this file", excerpt(&package.archive)));
    }
    if package.sets.is_empty() {
        return Some("belongs to no set".to_owned());
    }
    package.sets.iter().find_map(|set| match split_set(set) {
        None => Some(format!("not a set (stage/architecture): {:?}", excerpt(set))),
        Some((_, arch)) if package.arch != "all" && package.arch != arch.as_str() => {
            Some(format!("of architecture {} in set {set}", package.arch))
        }
        Some(_) => None,
    })
}

fn file_problem(file: &PinnedFile) -> Option<String> {
    if !is_name(&file.name) {
        return Some("not a file name".to_owned());
    }
    match (&file.path, &file.url) {
        (Some(_), Some(_)) => Some("has both a path and a url".to_owned()),
        (None, None) => Some("has neither a path nor a url".to_owned()),
        (None, Some(url)) if !is_url(url) => Some(format!("url is not an http or https address: {:?}", excerpt(url))),
        _ => None,
    }
}

/// Takes `<stage>/<arch>` apart.
pub(super) fn split_set(set: &str) -> Option<(&str, Arch)> {
    let (stage, arch) = set.split_once('/')?;
    is_name(stage).then_some(())?;
    Some((stage, arch.parse().ok()?))
}

fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|r| !r.is_empty() && r.len() < 2000) && url.bytes().all(|b| b.is_ascii_graphic())
}
