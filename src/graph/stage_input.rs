//! The inputs of a stage, as `stage.toml` declares them.

use crate::model::{Arch, BuildOption, RelPath};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::collections::BTreeSet;
use toml::Spanned;

/// The source of an input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InputSource {
    /// An output of another stage.
    Stage {
        /// The stage.
        stage: Spanned<String>,
        /// The name of its output.
        output: Spanned<String>,
    },
    /// A file or directory of this repository, relative to its root.
    Files(Spanned<RelPath>),
    /// A pinned file of the lock, by name.
    Lock(Spanned<String>),
    /// The stage's own packages, as files `<name>_<version>_<arch>.deb` in one directory.
    Packages,
    /// The facts about the platform that nodes enroll at, from the command line: a directory with `url` and `ca.pem`, each only if
    /// it was given.
    Platform,
    /// The part of the root that says who vouches for modules, from the command line: a tree, empty if nothing was given.
    ModuleTrust,
    /// The blobs of the lock's base image for the stage's architecture: an OCI image layout, and the list `packages` beside it.
    Base,
}

/// An input, which the stage finds at `/inputs/<name>`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// Its source.
    pub source: InputSource,
    /// The architectures of the stage that have it.
    pub only: Vec<Arch>,
    /// Whether the stage has it only if the lock has a base image.
    pub with_base: bool,
    /// Whether the stage has it only where programs of the target run under its emulator.
    pub emulated: bool,
    /// The builds that have it; `None` for all.
    pub condition: Option<InputCondition>,
}

/// The builds that have an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InputCondition {
    /// Those with this option.
    With(BuildOption),
    /// Those without it.
    Without(BuildOption),
}

impl InputCondition {
    /// The option that it depends on.
    pub const fn option(self) -> BuildOption {
        match self {
            Self::With(option) | Self::Without(option) => option,
        }
    }

    /// Whether a build with `options` has the input.
    pub fn holds(self, options: &BTreeSet<BuildOption>) -> bool {
        match self {
            Self::With(option) => options.contains(&option),
            Self::Without(option) => !options.contains(&option),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawInput {
    stage: Option<Spanned<String>>,
    output: Option<Spanned<String>>,
    files: Option<Spanned<RelPath>>,
    lock: Option<Spanned<String>>,
    packages: Option<bool>,
    platform: Option<bool>,
    module_trust: Option<bool>,
    base: Option<bool>,
    #[serde(default)]
    with_base: bool,
    #[serde(default)]
    emulated: bool,
    #[serde(default = "both")]
    only: Vec<Arch>,
    option: Option<BuildOption>,
    unless: Option<BuildOption>,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = RawInput::deserialize(d)?;
        let facts = (raw.packages, raw.platform, raw.module_trust, raw.base);
        let source = match (raw.stage, raw.output, raw.files, raw.lock, facts) {
            (Some(stage), output, None, None, (None, None, None, None)) => {
                let span = stage.span();
                let output = output.unwrap_or_else(|| Spanned::new(span, "tree".to_owned()));
                InputSource::Stage { stage, output }
            }
            (None, None, Some(files), None, (None, None, None, None)) => InputSource::Files(files),
            (None, None, None, Some(lock), (None, None, None, None)) => InputSource::Lock(lock),
            (None, None, None, None, (Some(true), None, None, None)) => InputSource::Packages,
            (None, None, None, None, (None, Some(true), None, None)) => InputSource::Platform,
            (None, None, None, None, (None, None, Some(true), None)) => InputSource::ModuleTrust,
            (None, None, None, None, (None, None, None, Some(true))) => InputSource::Base,
            _ => {
                return Err(D::Error::custom(
                    "an input has exactly one source: { stage, output }, { files }, { lock }, { packages = true }, \
                     { platform = true }, { module-trust = true }, { base = true }",
                ));
            }
        };
        let condition = match (raw.option, raw.unless) {
            (None, None) => None,
            (Some(option), None) => Some(InputCondition::With(option)),
            (None, Some(option)) => Some(InputCondition::Without(option)),
            (Some(_), Some(_)) => return Err(D::Error::custom("an input has \"option\" or \"unless\", not both")),
        };
        let only = raw.only;
        Ok(Input {
            source,
            only,
            condition,
            with_base: raw.with_base,
            emulated: raw.emulated,
        })
    }
}

/// Both architectures.
pub(super) fn both() -> Vec<Arch> {
    Arch::ALL.to_vec()
}
