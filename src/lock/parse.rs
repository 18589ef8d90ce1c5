//! Reads `lockfile.toml`.

use super::{
    BaseImage, LOCK_VERSION, LockError, Lockfile, Package, PinnedFile,
    error::{line_at, toml_error},
    format::{Archive, LockedSet},
    redirect_problem,
};
use crate::{
    debian::{Version, is_package_name, is_source},
    model::{Epoch, MAX_PINNED, NodeId, RelPath, excerpt, is_name, is_plain_path, is_url, visible_message},
};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// Largest lockfile accepted, in bytes.
pub const MAX_LOCKFILE: usize = 64 << 20;

/// The version alone, read first: a newer file is reported as newer, not by its unknown fields.
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
    #[serde(default)]
    base: Option<Spanned<BaseImage>>,
    #[serde(default, rename = "set")]
    sets: Vec<Spanned<LockedSet>>,
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
/// [`LockError::NewerVersion`] for a newer format. Otherwise [`LockError::Line`] with the line and the value: a violation of the
/// schema, an archive, package or file listed twice, or a reference to an archive that is not listed.
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
        base: check
            .all(parsed.base.into_iter().collect(), |b| ("base".to_owned(), b.problem()))?
            .pop(),
        sets: check.all(parsed.sets, |s| (format!("set {}", s.name), set_problem(s)))?,
        archives: check.all(parsed.archives, |a| {
            (format!("archive {:?}", a.name), archive_problem(a))
        })?,
        packages: Vec::new(),
        files: check.all(parsed.files, |f| {
            let arch = f.arch.map_or(String::new(), |a| format!(" for {a}"));
            (format!("file {:?}{arch}", f.name), file_problem(f))
        })?,
    };
    // Packages come last: they refer to the archives.
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
    /// Checks the items and takes them out of their spans; `judge` gives the name of an item and its fault, if it has one.
    fn all<T>(
        &mut self,
        items: Vec<Spanned<T>>,
        judge: impl Fn(&T) -> (String, Option<String>),
    ) -> Result<Vec<T>, LockError> {
        let mut out = Vec::with_capacity(items.len());
        // The file is long: each line number is counted from the item before, not from the beginning.
        let (mut at, mut line) = (0, 1);
        for item in items {
            let start = item.span().start.clamp(at, self.text.len());
            line += line_at(&self.text[at..], start - at) - 1;
            at = start;
            let item = item.into_inner();
            let (name, problem) = judge(&item);
            let problem = match (problem, self.seen.insert(name.clone(), line)) {
                (Some(problem), _) => format!("{}: {problem}", visible_message(&name)),
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
    if !is_name(&archive.name) {
        return Some("not an archive name".to_owned());
    }
    if !is_url(&archive.snapshot_url) || archive.snapshot_url.ends_with('/') {
        return Some(format!(
            "snapshot_url is not an http or https address without a trailing slash: {:?}",
            excerpt(&archive.snapshot_url)
        ));
    }
    if let Some(bad) = archive.components.iter().find(|c| !is_name(c)) {
        return Some(format!("not a component: {:?}", excerpt(bad)));
    }
    let paths = [("base", &archive.base), ("suite", &archive.suite)];
    if let Some(problem) = paths.into_iter().find_map(|(field, path)| path_problem(field, path)) {
        return Some(problem);
    }
    archive.keys.is_empty().then(|| "no key signed it".to_owned())
}

fn set_problem(set: &LockedSet) -> Option<String> {
    let bad = set.want.iter().find(|want| {
        let (name, archive) = want.split_once('/').unwrap_or((want, "x"));
        !is_package_name(name) || !is_name(archive)
    });
    bad.map(|bad| format!("not a package name or name/archive: {:?}", excerpt(bad)))
}

fn path_problem(field: &str, path: &RelPath) -> Option<String> {
    let problem = "has other characters than letters, digits and /+-._~%:,@=, or more than 1000";
    (!is_plain_path(path)).then(|| format!("{field} {problem}: {:?}", excerpt(&path.to_string())))
}

fn size_problem(size: u64) -> Option<String> {
    (size > MAX_PINNED).then(|| format!("size is {size}, more than {MAX_PINNED}"))
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
    if let Some(source) = package.source.as_ref().filter(|source| !is_source(source)) {
        return Some(format!(
            "source is not a source package and its version: {:?}",
            excerpt(source)
        ));
    }
    if let Some(problem) = path_problem("path", &package.path).or_else(|| size_problem(package.size)) {
        return Some(problem);
    }
    if package.sets.is_empty() {
        return Some("belongs to no set".to_owned());
    }
    let other = |set: &&NodeId| package.arch != "all" && package.arch != set.arch.as_str();
    let set = package.sets.iter().find(other)?;
    Some(format!("of architecture {} in set {set}", package.arch))
}

fn file_problem(file: &PinnedFile) -> Option<String> {
    if !is_name(&file.name) {
        return Some("not a file name".to_owned());
    }
    if file.path.is_some() && !file.redirects.is_empty() {
        return Some("has redirects without a url".to_owned());
    }
    if let Some(problem) = file.redirects.iter().find_map(|entry| redirect_problem(entry)) {
        return Some(problem);
    }
    match (&file.path, &file.url) {
        (Some(_), Some(_)) => Some("has both a path and a url".to_owned()),
        (None, None) => Some("has neither a path nor a url".to_owned()),
        (Some(path), None) => path_problem("path", path).or_else(|| size_problem(file.size)),
        (None, Some(url)) if !is_url(url) => Some(format!("url is not an http or https address: {:?}", excerpt(url))),
        (None, Some(_)) => size_problem(file.size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{LockChange, diff, write_lock};

    fn sample() -> String {
        let digest = "ab".repeat(32);
        format!(
            "version = 1\nsource_date_epoch = 1795252544\n\n[[archive]]\nname = \"trixie\"\ndistribution = \"debian\"\nbase = \"debian\"\n\
             suite = \"trixie\"\ncomponents = [\"main\"]\nsnapshot = \"20261123T130000Z\"\n\
             snapshot_url = \"https://snapshot.debian.org/archive/debian/20261123T130000Z\"\ndate = 1795252544\n\
             inrelease_sha256 = \"{digest}\"\nkeys = [\"{}\"]\n\n[[package]]\nname = \"bash\"\narch = \"amd64\"\nversion = \"5.2\"\n\
             archive = \"trixie\"\npath = \"pool/bash.deb\"\nsize = 1\nsha256 = \"{digest}\"\nsets = [\"rootfs/amd64\"]\n\n\
             [[file]]\nname = \"agent\"\narch = \"amd64\"\nurl = \"https://example.org/agent\"\nsize = 2\nsha256 = \"{digest}\"\n",
            "0".repeat(40)
        )
    }

    #[test]
    fn round_trips_and_writes_one_field_per_line() {
        let lock = parse_lock(&sample(), "lockfile.toml").expect("valid");
        let text = write_lock(&lock).expect("writable");
        assert!(text.starts_with("# Written by `pnb lock`"), "{text}");
        assert!(
            text.contains("\n[[package]]\nname = \"bash\"\narch = \"amd64\"\nversion = \"5.2\"\n"),
            "{text}"
        );
        assert!(text.contains("\nsets = [\"rootfs/amd64\"]\n"), "{text}");
        assert_eq!(parse_lock(&text, "lockfile.toml").expect("valid"), lock);
        assert_eq!(
            write_lock(&parse_lock(&text, "x").expect("valid")).expect("writable"),
            text
        );
    }

    #[test]
    fn refusals_name_line_and_value() {
        let package = "[[package]]";
        let second = |part: &str| {
            let text = sample();
            let from = text.find(part).expect("present");
            let end = text[from + 2..].find("\n[[").map_or(text.len(), |e| from + 2 + e);
            format!("{text}\n{}\n", text[from..end].trim_end())
        };
        let cases = [
            (
                sample().replace("version = 1\n", "version = 7\n"),
                "read lockfile.toml, line 1: format version 7 is newer than 1, the newest this pnb knows",
            ),
            (
                sample().replace("version = 1\n", "version = 7\nnews = true\n"),
                "read lockfile.toml, line 1: format version 7 is newer than 1, the newest this pnb knows",
            ),
            (
                sample().replace("version = 1\n", "version = 0\n"),
                "read lockfile.toml, line 1: there is no format version 0",
            ),
            (
                sample().replace("version = 1\n", ""),
                "read lockfile.toml, line 1: missing field `version`",
            ),
            (
                sample().replace("archive = \"trixie\"", "archive = \"sid\""),
                "read lockfile.toml, line 16: package \"bash\" amd64 5.2: no archive \"sid\" in this file",
            ),
            (
                second(package),
                "read lockfile.toml, line 33: second package \"bash\" amd64 5.2 (first in line 16)",
            ),
            (
                second("[[archive]]"),
                "read lockfile.toml, line 33: second archive \"trixie\" (first in line 4)",
            ),
            (
                second("[[file]]"),
                "read lockfile.toml, line 33: second file \"agent\" for amd64 (first in line 26)",
            ),
            (
                sample().replace("rootfs/amd64", "rootfs/arm64"),
                "read lockfile.toml, line 16: package \"bash\" amd64 5.2: of architecture amd64 in set rootfs/arm64",
            ),
            (
                sample().replace("rootfs/amd64", "rootfs"),
                "read lockfile.toml, line 24: \"rootfs\" is not a stage and an architecture, such as NAME/amd64",
            ),
            (
                sample().replace("pool/bash.deb", "pool/../bash.deb"),
                "read lockfile.toml, line 21: path \"pool/../bash.deb\" has a component \"..\"",
            ),
            (
                sample().replace("https://example", "ftp://example"),
                "read lockfile.toml, line 26: file \"agent\" for amd64: url is not an http or https address: \"ftp://example.org/agent\"",
            ),
            (
                sample().replace("20261123T130000Z\"\nsnap", "now\"\nsnap"),
                "read lockfile.toml, line 10: \"now\" is not a moment of the form YYYYMMDDThhmmssZ",
            ),
            (
                sample().replace("base = \"debian\"", "base = \"deb\\nian\""),
                "read lockfile.toml, line 4: archive \"trixie\": base has other characters than letters, digits and /+-._~%:,@=, or more than 1000: \"deb\\\\nian\"",
            ),
            (
                sample().replace("suite = \"trixie\"", "suite = \"tr\\u0456xie\""),
                "read lockfile.toml, line 4: archive \"trixie\": suite has other characters than letters, digits and /+-._~%:,@=, or more than 1000: \"trіxie\"",
            ),
            (
                sample().replace("[\"main\"]", "[\"../x\"]"),
                "read lockfile.toml, line 4: archive \"trixie\": not a component: \"../x\"",
            ),
            (
                sample().replace("pool/bash.deb", "pool/\\u001b[2J"),
                "read lockfile.toml, line 16: package \"bash\" amd64 5.2: path has other characters than letters, digits and /+-._~%:,@=, or more than 1000: \"pool/\\\\x1b[2J\"",
            ),
            (
                sample().replace("archive = \"trixie\"", "source = \"a\\u0000b\"\narchive = \"trixie\""),
                "read lockfile.toml, line 16: package \"bash\" amd64 5.2: source is not a source package and its version: \"a\\0b\"",
            ),
            (
                sample().replace(
                    "archive = \"trixie\"",
                    &format!("source = \"{}\"\narchive = \"trixie\"", "a".repeat(1 << 20)),
                ),
                &format!(
                    "read lockfile.toml, line 16: package \"bash\" amd64 5.2: source is not a source package and its version: \"{}… (1048576 bytes)\"",
                    "a".repeat(80)
                ),
            ),
            (
                sample().replace("size = 1", "size = 9223372036854775807"),
                "read lockfile.toml, line 16: package \"bash\" amd64 5.2: size is 9223372036854775807, more than 1099511627776",
            ),
            (
                sample().replace("size = 2", "size = 9223372036854775807"),
                "read lockfile.toml, line 26: file \"agent\" for amd64: size is 9223372036854775807, more than 1099511627776",
            ),
            (
                sample().replace("size = 1", "size = -1"),
                "read lockfile.toml, line 22: invalid value: integer `-1`, expected u64",
            ),
        ];
        for (text, message) in cases {
            let err = parse_lock(&text, "lockfile.toml").expect_err(message);
            assert_eq!(err.to_string(), message);
        }
        let err = parse_lock(&" ".repeat(MAX_LOCKFILE + 1), "lockfile.toml").expect_err("too large");
        assert_eq!(
            err.to_string(),
            "read lockfile.toml: it has 67108865 bytes, and at most 67108864 are accepted"
        );
    }

    #[test]
    fn changes_read_as_lines() {
        let old = parse_lock(&sample(), "old").expect("valid");
        let mut new = old.clone();
        new.packages[0].version = "5.1".to_owned();
        new.packages.push(Package {
            name: "dash".to_owned(),
            ..old.packages[0].clone()
        });
        new.files.clear();
        new.archives[0].snapshot = "20261124T000000Z".parse().expect("a moment");
        let lines: Vec<String> = diff(&old, &new).iter().map(LockChange::to_string).collect();
        assert_eq!(
            lines,
            [
                "~ archive trixie 20261123T130000Z -> 20261124T000000Z",
                "~ bash amd64 5.2 -> 5.1 (older)",
                "+ dash amd64 5.2",
                "~ file agent amd64 removed"
            ]
        );
        assert!(diff(&old, &old).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(at in 0usize..900, cut in 0usize..40, put in "[\\PC\n\"\\[\\]=]{0,6}") {
            let text: Vec<char> = sample().chars().collect();
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            let text: String = text[..at].iter().copied().chain(put.chars()).chain(text[end..].iter().copied()).collect();
            let _ = parse_lock(&text, "lockfile.toml");
        }
    }
}
