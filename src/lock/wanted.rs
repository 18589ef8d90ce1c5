//! `stages/archives.toml`: the archives that a lock may take packages from.

use super::{
    Distribution, LockError,
    error::{line_at, toml_error},
};
use crate::model::{Arch, Moment, RelPath, excerpt, is_name};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Largest `archives.toml` accepted, in bytes.
const MAX_ARCHIVES: usize = 1 << 20;

/// An archive of `archives.toml`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedArchive {
    /// The name by which packages and stages refer to it.
    pub name: String,
    /// The distribution, whose snapshot service has the archive.
    pub distribution: Distribution,
    /// Its directory on a mirror.
    pub base: RelPath,
    /// The suite: a directory below `dists/`, and of a flat archive the name that its release file states, if it states one.
    pub suite: RelPath,
    /// The directory below `base` with the release file and the only index of a flat archive, as apt has it in `sources.list`: `./` or
    /// `DIR/`. Names of packages count from `base`.
    #[serde(default, deserialize_with = "flat")]
    pub flat: Option<FlatPlace>,
    /// Components taken from it; a flat archive has none.
    #[serde(default)]
    pub components: Vec<String>,
    /// Architectures it serves; Ubuntu has arm64 in another archive than amd64.
    #[serde(default = "all_arches")]
    pub architectures: Vec<Arch>,
    /// Path of the keyring with the keys that may sign it, relative to the directory of `archives.toml`.
    pub keyring: RelPath,
    /// Whether its packages are the first candidates. Those of the other archives are used for names wanted as `package/archive`,
    /// and for names and dependencies that the default archives lack.
    #[serde(default = "yes")]
    pub default: bool,
    /// Whether it is used only with `pnb lock --suite NAME`.
    #[serde(default)]
    pub optional: bool,
    /// The moment of its snapshot; without one, the moment of `pnb lock`.
    #[serde(default)]
    pub snapshot: Option<Moment>,
}

/// The place of a flat archive's release file below its base: that directory itself, or one below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlatPlace(Option<RelPath>);

impl FlatPlace {
    /// The path of a file in that directory, below the base.
    pub(super) fn path(&self, tail: &str) -> String {
        match &self.0 {
            None => tail.to_owned(),
            Some(dir) => format!("{dir}/{tail}"),
        }
    }
}

fn flat<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<FlatPlace>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let form = || {
        serde::de::Error::custom(format!(
            "{:?} is neither \"./\" nor a directory with a slash at its end",
            excerpt(&text)
        ))
    };
    let dir = text.strip_suffix('/').ok_or_else(form)?;
    let place = match dir {
        "." => None,
        dir => Some(RelPath::new(dir.strip_prefix("./").unwrap_or(dir)).map_err(serde::de::Error::custom)?),
    };
    Ok(Some(FlatPlace(place)))
}

fn yes() -> bool {
    true
}

fn all_arches() -> Vec<Arch> {
    Arch::ALL.to_vec()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "archive")]
    archives: Vec<toml::Spanned<WantedArchive>>,
}

/// Reads `archives.toml`; `file` names it in errors.
///
/// # Errors
/// A violation of the schema, a name used twice, an empty list or a malformed moment, with the file, the line and the value.
pub fn parse_archives(text: &str, file: &str) -> Result<Vec<WantedArchive>, LockError> {
    if text.len() > MAX_ARCHIVES {
        return Err(LockError::TooLarge {
            file: file.to_owned(),
            size: text.len(),
            limit: MAX_ARCHIVES,
        });
    }
    let parsed: File = toml::from_str(text).map_err(|err| toml_error(file, text, &err))?;
    let mut names = BTreeSet::new();
    let mut out = Vec::with_capacity(parsed.archives.len());
    for spanned in parsed.archives {
        let line = line_at(text, spanned.span().start);
        let archive = spanned.into_inner();
        let problem = if !is_name(&archive.name) {
            Some(format!("not an archive name: {:?}", excerpt(&archive.name)))
        } else if !names.insert(archive.name.clone()) {
            Some(format!("second archive {:?}", archive.name))
        } else if archive.flat.is_some() && !archive.components.is_empty() {
            Some(format!(
                "archive {:?} is flat, and a flat archive has no components",
                archive.name
            ))
        } else if (archive.flat.is_none() && archive.components.is_empty()) || archive.architectures.is_empty() {
            Some(format!(
                "archive {:?} has no components or no architectures",
                archive.name
            ))
        } else {
            let bad = archive.components.iter().find(|c| !is_name(c));
            bad.map(|bad| format!("not a component: {:?}", excerpt(bad)))
        };
        if let Some(problem) = problem {
            return Err(LockError::Line {
                file: file.to_owned(),
                line,
                problem,
            });
        }
        out.push(archive);
    }
    if !out.iter().any(|a| a.default && !a.optional) {
        return Err(LockError::Line {
            file: file.to_owned(),
            line: 1,
            problem: "no archive is used by default".to_owned(),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# head\n[[archive]]\nname = \"trixie\"\ndistribution = \"debian\"\nbase = \"debian\"\nsuite = \"trixie\"\n\
        components = [\"main\"]\nkeyring = \"keys/debian-trixie.pgp\"\n";

    #[test]
    fn reads_the_committed_archives() {
        let archives =
            parse_archives(include_str!("../../stages/archives.toml"), "stages/archives.toml").expect("valid");
        let shape: Vec<(&str, bool, bool, bool)> = archives
            .iter()
            .map(|a| (a.name.as_str(), a.default, a.optional, a.snapshot.is_some()))
            .collect();
        assert_eq!(
            shape,
            [
                ("trixie", true, false, false),
                ("trixie-security", true, true, false),
                ("forky", false, false, true)
            ]
        );
    }

    #[test]
    fn names_the_line() {
        let refusal = |text: String| parse_archives(&text, "archives.toml").expect_err("refused").to_string();
        assert_eq!(
            refusal(format!("{ONE}snapsot = \"x\"\n")),
            "read archives.toml, line 9: unknown field `snapsot`, expected one of `name`, `distribution`, `base`, `suite`, \
             `flat`, `components`, `architectures`, `keyring`, `default`, `optional`, `snapshot`"
        );
        assert_eq!(
            refusal(format!("{ONE}{ONE}")),
            "read archives.toml, line 10: second archive \"trixie\""
        );
        assert_eq!(
            refusal(format!("{ONE}snapshot = \"20261301T000000Z\"\n")),
            "read archives.toml, line 9: \"20261301T000000Z\" is not a moment of the form YYYYMMDDThhmmssZ"
        );
        assert_eq!(
            refusal(ONE.replace("\"debian\"\nsuite", "\"../debian\"\nsuite")),
            "read archives.toml, line 5: path \"../debian\" has a component \"..\""
        );
        let flat = ONE.replace("components = [\"main\"]\n", "");
        for (value, place) in [("./", "x"), ("a/b/", "a/b/x"), ("./a/", "a/x")] {
            let parsed = parse_archives(&format!("{flat}flat = \"{value}\"\n"), "archives.toml").expect(value);
            assert_eq!(
                parsed[0].flat.as_ref().map(|flat| flat.path("x")).as_deref(),
                Some(place)
            );
        }
        assert_eq!(
            refusal(format!("{flat}flat = \"a\"\n")),
            "read archives.toml, line 8: \"a\" is neither \"./\" nor a directory with a slash at its end"
        );
        assert_eq!(
            refusal(format!("{flat}flat = \"../a/\"\n")),
            "read archives.toml, line 8: path \"../a\" has a component \"..\""
        );
        assert_eq!(
            refusal(format!("{ONE}flat = \"./\"\n")),
            "read archives.toml, line 2: archive \"trixie\" is flat, and a flat archive has no components"
        );
        assert_eq!(
            refusal(String::new()),
            "read archives.toml, line 1: no archive is used by default"
        );
        assert_eq!(
            refusal(ONE.replace("[\"main\"]", "[]")),
            "read archives.toml, line 2: archive \"trixie\" has no components or no architectures"
        );
    }
}
