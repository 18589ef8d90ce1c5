//! Release files: the description of a suite, and the digests of its indexes.
//!
//! The fields are those of the [repository format](https://wiki.debian.org/DebianRepository/Format); Ubuntu writes the same.
//! Moments are arguments in seconds since 1970: the code does not read a clock.

use super::{ControlReader, JudgedAt, MetadataError, Paragraph};
use crate::model::{RelPath, Sha256Digest, excerpt};
use std::collections::BTreeMap;

/// A release file with more files is refused; Debian's list some 15,000.
const MAX_FILES: usize = 500_000;

/// A release file, read but not yet judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// `Suite`, e.g. `stable`; empty when absent.
    pub suite: String,
    /// `Codename`, e.g. `trixie`; empty when absent.
    pub codename: String,
    /// `Date`, in seconds since 1970.
    pub date: u32,
    /// `Valid-Until`, in seconds since 1970.
    pub valid_until: Option<u32>,
    /// `Components`, without the prefix up to a slash that some suites have; `None` when the archive does not state them.
    pub components: Option<Vec<String>>,
    /// `Architectures`; `None` when the archive does not state them.
    pub architectures: Option<Vec<String>>,
    /// `NotAutomatic` and `ButAutomaticUpgrades`: whether packages are taken that nobody named.
    pub automatic: Automatic,
    /// Whether the packages of architecture `all` are in an index of their own, and not in those of the other architectures.
    pub separate_all: bool,
    /// `Acquire-By-Hash`: whether every file is also available below `by-hash/`.
    pub acquire_by_hash: bool,
    /// Size and digest of every file, by its path below the suite's directory.
    pub files: BTreeMap<RelPath, (u64, Sha256Digest)>,
}

/// Whether packages of an archive are taken that nobody named: the statement of its release file, as apt's priorities have it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Automatic {
    /// `NotAutomatic: yes`: only where no other archive has the package (priority 1).
    Never,
    /// The same with `ButAutomaticUpgrades: yes`, which matters to installed packages, and before the archives that are never automatic
    /// (priority 100).
    Upgrades,
    /// Neither field: the newest version is taken (priority 500).
    #[default]
    Always,
}

impl Release {
    /// Parses the signed text of a release file; `file` is its name in errors.
    ///
    /// # Errors
    /// A missing or malformed field, a file listed twice, more than one paragraph.
    pub fn parse(text: &str, file: &str) -> Result<Self, MetadataError> {
        let mut reader = ControlReader::release(text.as_bytes(), file);
        let mut paragraph = Paragraph::default();
        let bad = |line: u64, problem: String| MetadataError::Line {
            file: file.to_owned(),
            line,
            problem,
        };
        if !reader.read(&mut paragraph)? {
            return Err(bad(1, "the release file is empty".to_owned()));
        }
        let mut rest = Paragraph::default();
        if reader.read(&mut rest)? {
            return Err(bad(rest.line(), "a second paragraph".to_owned()));
        }
        let required = |field: &str| {
            paragraph
                .get(field)
                .ok_or_else(|| bad(paragraph.line(), format!("no field {field}")))
        };
        let moment = |field: &str, value: &str| {
            parse_date(value).ok_or_else(|| {
                bad(
                    paragraph.line_of(field),
                    format!("field {field} is not a date in UTC: {:?}", excerpt(value)),
                )
            })
        };
        let words = |field: &str| {
            let value = paragraph.get(field)?;
            Some(value.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        // The words that apt takes for yes.
        let yes = |field: &str| {
            let value = paragraph.get(field).unwrap_or_default().to_ascii_lowercase();
            let number = value.parse::<u32>().is_ok_and(|number| number != 0);
            number || matches!(value.as_str(), "yes" | "true" | "with" | "on" | "enable")
        };
        let architectures = words("Architectures");
        let all = architectures.iter().flatten().any(|arch| arch == "all");
        Ok(Self {
            suite: paragraph.get("Suite").unwrap_or_default().to_owned(),
            codename: paragraph.get("Codename").unwrap_or_default().to_owned(),
            date: moment("Date", required("Date")?)?,
            valid_until: paragraph
                .get("Valid-Until")
                .map(|v| moment("Valid-Until", v))
                .transpose()?,
            components: words("Components").map(|components| {
                let last = |c: String| c.rsplit('/').next().map_or(c.clone(), str::to_owned);
                components.into_iter().map(last).collect()
            }),
            separate_all: all && paragraph.get("No-Support-for-Architecture-all") != Some("Packages"),
            architectures,
            automatic: match (yes("NotAutomatic"), yes("ButAutomaticUpgrades")) {
                (false, _) => Automatic::Always,
                (true, true) => Automatic::Upgrades,
                (true, false) => Automatic::Never,
            },
            acquire_by_hash: yes("Acquire-By-Hash"),
            files: files(required("SHA256")?, |n, problem| {
                bad(paragraph.line_of("SHA256") + n, problem)
            })?,
        })
    }

    /// Checks that this release file may be used for `suite` at the moment `at`.
    ///
    /// # Errors
    /// Another suite, a date after the moment, a validity that has ended.
    pub fn check(&self, suite: &str, at: JudgedAt, file: &str) -> Result<(), MetadataError> {
        let file = file.to_owned();
        if self.suite != suite && self.codename != suite {
            let problem = format!(
                "is for suite {:?} ({:?}), not for {suite:?}",
                excerpt(&self.suite),
                excerpt(&self.codename)
            );
            return Err(MetadataError::Release { file, problem });
        }
        if self.date > at.seconds() {
            let date = show(self.date);
            return Err(MetadataError::Later { file, date, at });
        }
        match self.valid_until {
            Some(end) if end < at.seconds() => Err(MetadataError::Outdated {
                file,
                end: show(end),
                at,
            }),
            _ => Ok(()),
        }
    }
}

fn show(seconds: u32) -> String {
    crate::model::Epoch::new(seconds).to_rfc3339()
}

/// Reads `Sat, 21 Nov 2026 09:15:44 UTC`.
fn parse_date(text: &str) -> Option<u32> {
    let civil = ["UTC", "GMT", "+0000", "-0000", "+00:00", "Z"]
        .iter()
        .find_map(|zone| text.strip_suffix(zone))?
        .trim_end();
    let date = jiff::Timestamp::strptime("%a, %d %b %Y %H:%M:%S %z", format!("{civil} +0000")).ok()?;
    u32::try_from(date.as_second()).ok()
}

/// Reads ` <digest> <size> <path>` lines.
fn files(
    field: &str,
    bad: impl Fn(u64, String) -> MetadataError,
) -> Result<BTreeMap<RelPath, (u64, Sha256Digest)>, MetadataError> {
    let mut out = BTreeMap::new();
    // The value is trimmed, so its first line is the one behind the field's name.
    for (line, number) in field.lines().zip(1u64..) {
        let mut words = line.split_whitespace();
        let (Some(digest), Some(size), Some(path), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad(
                number,
                format!("not a digest, a size and a path: {:?}", excerpt(line)),
            ));
        };
        let digest: Sha256Digest = digest.parse().map_err(|err| bad(number, format!("{err}")))?;
        let size: u64 = size
            .parse()
            .map_err(|_| bad(number, format!("not a size: {:?}", excerpt(size))))?;
        let path: RelPath = path.parse().map_err(|err| bad(number, format!("{err}")))?;
        if out.len() == MAX_FILES {
            return Err(bad(number, format!("more than {MAX_FILES} files")));
        }
        if let Some(first) = out.insert(path.clone(), (size, digest))
            && first != (size, digest)
        {
            return Err(bad(number, format!("{path} is listed twice, with different contents")));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "Suite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\n\
        Valid-Until: Sat, 28 Nov 2026 09:15:44 UTC\nAcquire-By-Hash: yes\nArchitectures: all amd64 arm64\n\
        Components: updates/main non-free-firmware\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages\n";

    #[test]
    fn reads_a_release() {
        let release = Release::parse(RELEASE, "InRelease").expect("well-formed");
        assert_eq!(
            (release.date, release.valid_until),
            (1_795_252_544, Some(1_795_857_344))
        );
        let components = release.components.expect("stated");
        assert_eq!(components, ["main", "non-free-firmware"]);
        assert_eq!(release.automatic, Automatic::Always);
        assert!(release.separate_all);
        assert!(release.acquire_by_hash);
        assert_eq!(release.files.len(), 1);
    }

    #[test]
    fn statements_about_automatic_packages_and_architectures_are_read() {
        let release = |more: &str| Release::parse(&format!("{more}{RELEASE}"), "InRelease").expect("well-formed");
        for (more, automatic) in [
            ("NotAutomatic: yes\n", Automatic::Never),
            ("NotAutomatic: 1\nButAutomaticUpgrades: True\n", Automatic::Upgrades),
            ("NotAutomatic: no\nButAutomaticUpgrades: yes\n", Automatic::Always),
            ("ButAutomaticUpgrades: yes\n", Automatic::Always),
        ] {
            assert_eq!(release(more).automatic, automatic, "{more}");
        }
        assert!(!release("No-Support-for-Architecture-all: Packages\n").separate_all);
        let less = RELEASE
            .replace("Architectures: all amd64 arm64\n", "")
            .replace("Components: ", "X-Components: ");
        let less = Release::parse(&less, "InRelease").expect("well-formed");
        assert_eq!(
            (less.components, less.architectures, less.separate_all),
            (None, None, false)
        );
    }

    #[test]
    fn names_the_line() {
        for (from, to, message) in [
            (
                "Date: Sat",
                "Date: Foo",
                "InRelease line 3: field Date is not a date in UTC: \"Foo, 21 Nov 2026 09:15:44 UTC\"",
            ),
            (
                "09:15:44 UTC",
                "09:15:44 CET",
                "InRelease line 3: field Date is not a date in UTC: \"Sat, 21 Nov 2026 09:15:44 CET\"",
            ),
            ("SHA256:", "SHA1:", "InRelease line 1: no field SHA256"),
            (
                "main/binary",
                "../binary",
                "InRelease line 9: path \"../binary-amd64/Packages\" has a component \"..\"",
            ),
            (" 0 main", " x main", "InRelease line 9: not a size: \"x\""),
            ("Components", "\nComponents", "InRelease line 8: a second paragraph"),
        ] {
            let err = Release::parse(&RELEASE.replacen(from, to, 1), "InRelease").expect_err(to);
            assert_eq!(err.to_string(), message);
        }
    }

    #[test]
    fn judges_suite_and_moment() {
        let release = Release::parse(RELEASE, "InRelease").expect("well-formed");
        let check = |suite, moment| {
            release
                .check(suite, JudgedAt::Snapshot(moment), "InRelease")
                .map_err(|e| e.to_string())
        };
        assert_eq!(check("trixie", release.date), Ok(()));
        assert_eq!(check("stable", release.date + 7 * 86400), Ok(()));
        assert_eq!(
            check("forky", release.date),
            Err("InRelease: is for suite \"stable\" (\"trixie\"), not for \"forky\"".to_owned())
        );
        assert_eq!(
            check("trixie", release.date - 1),
            Err(
                "InRelease is dated 2026-11-21T09:15:44Z, after 2026-11-21T09:15:43Z, the moment of the snapshot"
                    .to_owned()
            )
        );
        assert_eq!(
            check("trixie", release.date + 7 * 86400 + 1),
            Err("InRelease was valid until 2026-11-28T09:15:44Z, not at 2026-11-28T09:15:45Z, the moment of the snapshot".to_owned())
        );
    }
}
