//! The table `[sandbox]` of `stage.toml`: the differences of a stage's sandbox from the strictest one.

use crate::model::{CallGroup, Capability, RelPath, excerpt, is_visible};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::collections::{BTreeMap, BTreeSet};

/// The number of user ids in a stage's user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageIds {
    /// A single one; every output belongs to 0:0.
    #[default]
    Single,
    /// 65,536: for maintainer scripts that create users.
    Range,
}

/// The differences of a stage's sandbox from the strictest one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sandbox {
    /// User ids.
    #[serde(default)]
    pub ids: StageIds,
    /// Capabilities kept inside the stage's own user namespace, e.g. `chown`.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Directories below `/build` that get a small `dev` before the stage starts.
    #[serde(default)]
    pub dev_in: Vec<RelPath>,
    /// Refused system calls that the stage's programs may ignore: groups of calls by the program's name, `*` for every program.
    #[serde(default, deserialize_with = "refused", skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, BTreeSet<CallGroup>>,
}

/// Refusals, with names that a program can have.
fn refused<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, BTreeSet<CallGroup>>, D::Error> {
    let refused = BTreeMap::<String, BTreeSet<CallGroup>>::deserialize(d)?;
    for (program, groups) in &refused {
        if program.is_empty() || program.contains('/') || !program.chars().all(is_visible) {
            return Err(D::Error::custom(format!(
                "refused calls of {:?}: give the name of a program without its directory, or \"*\" for every program",
                excerpt(program)
            )));
        }
        if groups.is_empty() {
            return Err(D::Error::custom(format!(
                "refused calls of {:?}: none is named",
                excerpt(program)
            )));
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_without_refusals_is_written_as_before_there_were_any() {
        let written =
            |toml: &str| serde_json::to_string(&toml::from_str::<Sandbox>(toml).expect("valid")).expect("JSON");
        let plain = r#"{"ids":"single","capabilities":[],"dev-in":[]"#;
        assert_eq!(written(""), format!("{plain}}}"));
        assert_eq!(
            written("refused = { setcap = [\"mount\", \"file-attribute\"], \"*\" = [\"watch\"] }"),
            format!(r#"{plain},"refused":{{"*":["watch"],"setcap":["file-attribute","mount"]}}}}"#)
        );
    }
}
