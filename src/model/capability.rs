//! The capabilities that a stage may keep.

use super::{ModelError, excerpt};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A capability that a stage may keep inside its own user namespace (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Change owners.
    Chown,
    /// Bypass permission checks.
    DacOverride,
    /// Bypass checks that the caller owns the file.
    Fowner,
    /// Keep set-id bits when a file changes.
    Fsetid,
    /// Signal processes of other ids.
    Kill,
    /// Become other groups.
    Setgid,
    /// Become other users.
    Setuid,
    /// chroot(2).
    SysChroot,
}

impl Capability {
    /// Every capability that a stage may keep.
    pub const ALL: [Capability; 8] = [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::Setgid,
        Capability::Setuid,
        Capability::SysChroot,
    ];

    /// The name in stage files and manifests: the kernel's, without `CAP_` and in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Capability::Chown => "chown",
            Capability::DacOverride => "dac-override",
            Capability::Fowner => "fowner",
            Capability::Fsetid => "fsetid",
            Capability::Kill => "kill",
            Capability::Setgid => "setgid",
            Capability::Setuid => "setuid",
            Capability::SysChroot => "sys-chroot",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl FromStr for Capability {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        Capability::ALL
            .into_iter()
            .find(|c| c.as_str() == text)
            .ok_or_else(|| ModelError::Name {
                kind: "capability",
                value: excerpt(text),
                allowed: Capability::ALL.map(Capability::as_str).join(", "),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for capability in Capability::ALL {
            assert_eq!(capability.to_string().parse(), Ok(capability));
            let json = serde_json::to_string(&capability).expect("JSON");
            assert_eq!(json, format!("{:?}", capability.as_str()));
        }
        assert_eq!(
            "CAP_KILL"
                .parse::<Capability>()
                .expect_err("the kernel's name")
                .to_string(),
            "unknown capability \"CAP_KILL\" (one of: chown, dac-override, fowner, fsetid, kill, setgid, setuid, sys-chroot)"
        );
    }
}
