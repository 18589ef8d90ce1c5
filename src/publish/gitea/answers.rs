//! The answers of the server, as far as publishing needs them. Unknown fields are ignored: each version adds some.

use serde::Deserialize;
use std::fmt;

/// A version of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GiteaVersion {
    text: String,
    /// The version of Gitea whose API it has.
    number: Option<(u32, u32)>,
}

/// The first version that takes the bytes of an upload as the whole body (go-gitea#29507).
const RAW_UPLOADS: (u32, u32) = (1, 22);
/// The first version that limits uploads by the API too (go-gitea#35519).
const LIMITED: (u32, u32) = (1, 25);

impl GiteaVersion {
    /// Reads `1.27.3`, or Forgejo's `15.0.1+gitea-1.22.0`, which names the Gitea whose API it has.
    pub(super) fn parse(text: &str) -> Self {
        let gitea = text.split_once("gitea-").map_or(text, |(_, gitea)| gitea);
        let mut words = gitea.split(['.', '-', '+']).map(|word| word.parse::<u32>().ok());
        let number = words.next().flatten().zip(words.next().flatten());
        Self {
            text: text.to_owned(),
            number,
        }
    }

    /// Whether an upload is the bytes alone instead of a form. An unknown version gets a form, which every version takes.
    pub fn takes_raw_uploads(&self) -> bool {
        self.number.is_some_and(|number| number >= RAW_UPLOADS)
    }

    /// Whether the stated limit holds for the API. It is taken to hold in an unknown version.
    pub fn limits_uploads(&self) -> bool {
        self.number.is_none_or(|number| number >= LIMITED)
    }
}

impl fmt::Display for GiteaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::model::visible_message(&self.text))
    }
}

/// A release.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ReleaseAnswer {
    /// Its number.
    pub id: u64,
    /// Its git tag, which a draft does not have yet.
    pub tag_name: String,
    /// The commit or branch that the tag is made from.
    #[serde(default)]
    pub target_commitish: String,
    /// Whether it is invisible.
    pub draft: bool,
}

/// A file of a release.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ReleaseAsset {
    /// Its number.
    pub id: u64,
    /// Its name, which other files can have too.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// The name of its content in downloads.
    pub uuid: String,
}

#[derive(Deserialize)]
pub(super) struct VersionAnswer {
    pub(super) version: String,
}

#[derive(Deserialize)]
pub(super) struct UserAnswer {
    pub(super) login: String,
}

#[derive(Deserialize)]
pub(super) struct RepositoryAnswer {
    #[serde(default)]
    pub(super) empty: bool,
    #[serde(default)]
    pub(super) archived: bool,
    pub(super) permissions: Option<Permissions>,
}

#[derive(Deserialize)]
pub(super) struct Permissions {
    #[serde(default)]
    pub(super) push: bool,
}

#[derive(Deserialize)]
pub(super) struct TagAnswer {
    pub(super) commit: TaggedCommit,
}

#[derive(Deserialize)]
pub(super) struct TaggedCommit {
    pub(super) sha: String,
}

#[derive(Deserialize)]
pub(super) struct ProtectionAnswer {
    pub(super) name_pattern: String,
    pub(super) whitelist_usernames: Option<Vec<String>>,
    pub(super) whitelist_teams: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct LimitsAnswer {
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    /// In MiB.
    #[serde(default)]
    pub(super) max_size: i64,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_what_the_server_can_do() {
        for (text, raw, limits) in [
            ("1.27.3", true, true),
            ("1.25.0+dev-12-gabcdef", true, true),
            ("1.24.6", true, false),
            ("1.22.0", true, false),
            ("1.21.11", false, false),
            ("15.0.1+gitea-1.22.0", true, false),
            ("development", false, true),
            ("", false, true),
        ] {
            let version = GiteaVersion::parse(text);
            assert_eq!(
                (version.takes_raw_uploads(), version.limits_uploads()),
                (raw, limits),
                "{text}"
            );
        }
    }
}
