//! The reasons to run a stage, from a comparison of canonical forms line by line.

use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// A reason to run a stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// The store has no record of the stage.
    NeverBuilt,
    /// A dependency has to run first; the key of the stage is not known before.
    Waits {
        /// The dependencies that run first.
        stages: Vec<String>,
    },
    /// pnb's own code changed.
    CodeChanged {
        /// `sandbox` or `writers`.
        part: String,
    },
    /// An input changed.
    InputChanged {
        /// Its name.
        name: String,
    },
    /// Files of the project were added, removed or changed; by their paths in it.
    FilesChanged {
        /// Files that the last run did not have.
        added: Vec<String>,
        /// Files that the last run had.
        removed: Vec<String>,
        /// Files with other content or permissions.
        changed: Vec<String>,
    },
    /// Packages were added, removed or changed.
    PackagesChanged {
        /// The input with the packages.
        name: String,
        /// Files only in the new set.
        added: Vec<String>,
        /// Files only in the old set.
        removed: Vec<String>,
        /// Files in both with other bytes.
        changed: Vec<String>,
    },
    /// The root tree changed.
    RootChanged,
    /// A setting of its `stage.toml` changed.
    SettingChanged {
        /// Its name in the canonical form.
        name: String,
    },
    /// The stage ran before, but in a weaker sandbox than a hermetic build accepts.
    Weaker,
    /// Another machine made the result, and this build takes none from elsewhere, or cannot reach it.
    Elsewhere,
    /// The stage ran before with the same key, but the store lost an output.
    OutputLost,
}

impl Reason {
    /// The differences between the canonical forms of the last run and of the next.
    pub fn between(old: &str, new: &str) -> Vec<Reason> {
        let (old, new) = (lines(old), lines(new));
        let names: std::collections::BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        let mut packages: BTreeMap<&str, [Vec<String>; 3]> = BTreeMap::new();
        let mut reasons = Vec::new();
        for name in names {
            let (was, is) = (old.get(name), new.get(name));
            if was == is {
                continue;
            }
            if let Some((input, file)) = name.strip_prefix("input.").and_then(|n| n.split_once('/')) {
                let kind = match (was, is) {
                    (None, _) => 0,
                    (_, None) => 1,
                    _ => 2,
                };
                packages.entry(input).or_default()[kind].push(file.to_owned());
            } else if let Some(input) = name.strip_prefix("input.") {
                reasons.push(Reason::InputChanged { name: input.to_owned() });
            } else if let Some(part) = name.strip_prefix("code.") {
                reasons.push(Reason::CodeChanged { part: part.to_owned() });
            } else if name == "root" {
                reasons.push(Reason::RootChanged);
            } else {
                reasons.push(Reason::SettingChanged { name: name.to_owned() });
            }
        }
        reasons.extend(
            packages
                .into_iter()
                .map(|(name, [added, removed, changed])| Reason::PackagesChanged {
                    name: name.to_owned(),
                    added,
                    removed,
                    changed,
                }),
        );
        // With an equal canonical form the key is equal, so only a lost output can have made the record unusable.
        if reasons.is_empty() {
            reasons.push(Reason::OutputLost);
        }
        reasons
    }
}

fn lines(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(' ')).collect()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NeverBuilt => f.write_str("it was never built"),
            Reason::Waits { stages } => write!(f, "waits for {}", stages.join(", ")),
            Reason::CodeChanged { part } => write!(f, "pnb's own code changed ({part})"),
            Reason::InputChanged { name } => write!(f, "input {name} changed"),
            Reason::RootChanged => f.write_str("the tools it runs with changed"),
            Reason::SettingChanged { name } => write!(f, "its stage.toml changed ({name})"),
            Reason::Weaker => f.write_str("it was made in a weaker sandbox"),
            Reason::Elsewhere => f.write_str("another machine made its result"),
            Reason::OutputLost => f.write_str("the store lost an output"),
            Reason::PackagesChanged {
                name,
                added,
                removed,
                changed,
            } => {
                write!(f, "packages of {name} changed:")?;
                list(f, added, removed, changed)
            }
            Reason::FilesChanged {
                added,
                removed,
                changed,
            } => {
                f.write_str("files changed:")?;
                list(f, added, removed, changed)
            }
        }
    }
}

/// The first names of each kind, with a sign for it.
fn list(f: &mut fmt::Formatter<'_>, added: &[String], removed: &[String], changed: &[String]) -> fmt::Result {
    for (sign, files) in [("+", added), ("-", removed), ("~", changed)] {
        for file in files.iter().take(3) {
            write!(f, " {sign}{file}")?;
        }
        if files.len() > 3 {
            write!(f, " {sign}({} more)", files.len() - 3)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_changed_line_becomes_a_reason() {
        let old = "code.sandbox a\nroot 1\ninput.debs packages\ninput.debs/x.deb sha256 1\nlimits {}\n";
        let new = "code.sandbox a\nroot 2\ninput.debs packages\ninput.debs/y.deb sha256 1\nlimits {1}\n";
        let text: Vec<String> = Reason::between(old, new).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "its stage.toml changed (limits)",
                "the tools it runs with changed",
                "packages of debs changed: +y.deb -x.deb"
            ]
        );
        assert_eq!(Reason::between(old, old), [Reason::OutputLost]);
    }
}
