//! The options of a build: choices beside variant and architecture that change what is in an artifact.

use super::{ModelError, excerpt};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An option, which is off unless `pnb build --with` names it. Inputs of a stage can depend on it, and the manifest states it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildOption {
    /// A way into the node for whoever has its console.
    Recovery,
    /// Lists of modules are taken without a signature.
    UnsignedModules,
    /// Drivers of graphics cards, with their firmware.
    Graphics,
    /// A shell of root on every console of a running node.
    Debug,
}

impl BuildOption {
    /// Every option, in the order of all lists.
    pub const ALL: [BuildOption; 4] = [
        BuildOption::Recovery,
        BuildOption::UnsignedModules,
        BuildOption::Graphics,
        BuildOption::Debug,
    ];

    /// The name used in flags and stage files.
    pub const fn as_str(self) -> &'static str {
        match self {
            BuildOption::Recovery => "recovery",
            BuildOption::UnsignedModules => "unsigned-modules",
            BuildOption::Graphics => "graphics",
            BuildOption::Debug => "debug",
        }
    }
}

impl fmt::Display for BuildOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for BuildOption {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        Self::ALL
            .into_iter()
            .find(|option| option.as_str() == text)
            .ok_or_else(|| ModelError::Name {
                kind: "build option",
                value: excerpt(text),
                allowed: Self::ALL.map(Self::as_str).join(", "),
            })
    }
}
