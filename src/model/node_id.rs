//! Names of the things that are built: a stage for an architecture, and an artifact for an architecture.

use super::{Arch, ModelError, Variant, excerpt};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{cmp::Ordering, fmt, path::PathBuf, str::FromStr};

/// A stage for an architecture, e.g. `rootfs/amd64`: one node of the graph. Nodes are ordered as their text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeId {
    /// Stage name.
    pub stage: String,
    /// The architecture it is made for; for tools that of the build machine.
    pub arch: Arch,
}

impl NodeId {
    /// The node of `stage` for `arch`.
    pub fn new(stage: impl Into<String>, arch: Arch) -> Self {
        Self {
            stage: stage.into(),
            arch,
        }
    }
}

impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        let text = |id: &Self| -> [&'static [u8]; 2] { [b"/", id.arch.as_str().as_bytes()] };
        let (own, others) = (text(self), text(other));
        let own = self.stage.bytes().chain(own.into_iter().flatten().copied());
        own.cmp(other.stage.bytes().chain(others.into_iter().flatten().copied()))
    }
}
impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether a name has at most 64 letters, digits and `.+-_`, and begins with a letter or digit: safe in a path and in a message.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-_".contains(&b))
}

/// Splits `NAME/ARCH`.
fn split<'a>(kind: &'static str, text: &'a str) -> Result<(&'a str, Arch), ModelError> {
    match text.split_once('/') {
        Some((name, arch)) if is_name(name) => Ok((name, arch.parse()?)),
        _ => Err(ModelError::Pair {
            kind,
            value: excerpt(text),
        }),
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&[&self.stage, self.arch.as_str()].join("/"))
    }
}
impl FromStr for NodeId {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let (stage, arch) = split("stage", text)?;
        Ok(Self::new(stage, arch))
    }
}
impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An artifact for an architecture, `raw/amd64`: one directory below `images/`. Targets are ordered as their text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// The family.
    pub variant: Variant,
    /// The architecture.
    pub arch: Arch,
}

impl Target {
    /// Its directory, relative to the one of all artifacts.
    pub fn path(self) -> PathBuf {
        [self.variant.as_str(), self.arch.as_str()].iter().collect()
    }

    /// The node of the stage that makes it.
    pub fn node(self) -> NodeId {
        NodeId::new(self.variant.as_str(), self.arch)
    }
}

impl Ord for Target {
    fn cmp(&self, other: &Self) -> Ordering {
        self.node().cmp(&other.node())
    }
}
impl PartialOrd for Target {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&[self.variant.as_str(), self.arch.as_str()].join("/"))
    }
}
impl FromStr for Target {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let (variant, arch) = split("artifact", text)?;
        Ok(Self {
            variant: variant.parse()?,
            arch,
        })
    }
}
impl Serialize for Target {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_ordered_as_text() {
        let names = [
            "initramfs-base/amd64",
            "initramfs/amd64",
            "initramfs/arm64",
            "root/arm64",
        ];
        let nodes = names.map(|n| n.parse::<NodeId>().expect("a node"));
        assert!(nodes.is_sorted());
        assert_eq!(nodes.map(|n| n.to_string()), names);
        for bad in ["", "root", "/amd64", "../amd64", "root/x86", "root/amd64/x"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
        }
        let error = "root".parse::<NodeId>().expect_err("no architecture");
        assert_eq!(
            error.to_string(),
            "\"root\" is not a stage and an architecture, such as NAME/amd64"
        );
    }

    #[test]
    fn targets_are_ordered_as_text() {
        let names = ["raw-4k", "raw", "raw.x", "iso"].map(|name| name.parse::<Variant>().expect("a name"));
        let mut targets = names
            .map(|variant| Arch::ALL.map(|arch| Target { variant, arch }))
            .concat();
        targets.sort();
        assert!(targets.iter().map(ToString::to_string).is_sorted());
    }

    #[test]
    fn every_target_has_a_path() {
        for name in ["raw", "disk-image-rpi4", "raw-4k"] {
            let variant: Variant = name.parse().expect("a name");
            for arch in Arch::ALL {
                let target = Target { variant, arch };
                assert_eq!(target.path().to_str(), Some(target.to_string().as_str()));
                assert_eq!(target.to_string().parse(), Ok(target));
                assert_eq!(target.node().to_string(), target.to_string());
            }
        }
        assert!("raw/i386".parse::<Target>().is_err() && "ra we/amd64".parse::<Target>().is_err());
    }
}
