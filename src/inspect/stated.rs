//! The facts that a manifest beside an artifact states, for the summary of a comparison. They are read, not checked.

use super::part::Part;
use crate::{image::ReadAt, model::Target};
use serde_json::Value;
use std::collections::BTreeMap;

/// Name of the manifest.
const MANIFEST: &str = "build-manifest.json";
/// A larger manifest is not read, bytes.
const MAX_MANIFEST: u64 = 16 << 20;

/// A package by name and architecture: its versions, and whether files of it are in the artifact.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct StatedPackage {
    pub(super) version: String,
    pub(super) tool: bool,
}

/// The facts of one manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stated {
    pub(super) target: Target,
    pub(super) root: String,
    pub(super) kernel: String,
    pub(super) command_line: String,
    pub(super) packages: BTreeMap<String, StatedPackage>,
}

impl Stated {
    /// The facts of the manifest among `parts`, if there is one that can be read.
    pub(super) fn of(parts: Option<&[Part]>) -> Option<Self> {
        let part = parts?.iter().find(|part| part.name == MANIFEST)?;
        if part.size > MAX_MANIFEST {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(part.size).ok()?];
        part.source().read_exact_at(&mut bytes, 0).ok()?;
        Self::read(&bytes)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let json: Value = serde_json::from_slice(bytes).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut packages: BTreeMap<String, StatedPackage> = BTreeMap::new();
        for package in json["packages"].as_array()? {
            let field = |name: &str| package[name].as_str().unwrap_or_default();
            let tool = field("role") == "tool";
            let name = format!("{}:{}", field("name"), field("arch"));
            // A tool may have another version than the package in the artifact.
            let entry = packages.entry(name).or_insert(StatedPackage {
                version: String::new(),
                tool,
            });
            if !entry.version.is_empty() {
                entry.version.push_str(" and ");
            }
            entry.version.push_str(field("version"));
            entry.tool &= tool;
        }
        Some(Self {
            target: Target {
                variant: json["variants"][0].as_str()?.parse().ok()?,
                arch: json["arch"].as_str()?.parse().ok()?,
            },
            root: text(&json["fsverity_root_hash"])?,
            kernel: text(&json["kernel_version"])?,
            command_line: text(&json["kernel_command_line"])?,
            packages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_taken_from_a_manifest_and_from_nothing_else() {
        let text = r#"{"variants":["raw"],"arch":"amd64","fsverity_root_hash":"ab","kernel_version":"6.1","kernel_command_line":"quiet",
            "packages":[{"name":"a","arch":"all","version":"1","role":"tool"},{"name":"a","arch":"all","version":"2","role":"target"}]}"#;
        let stated = Stated::read(text.as_bytes()).expect("a manifest");
        assert_eq!(
            (stated.target.to_string().as_str(), stated.kernel.as_str()),
            ("raw/amd64", "6.1")
        );
        let package = &stated.packages["a:all"];
        assert_eq!((package.version.as_str(), package.tool), ("1 and 2", false));
        for other in ["", "[]", "{}", "{\"packages\":[]}", "{\"packages\":{}}", "nothing"] {
            assert_eq!(Stated::read(other.as_bytes()), None, "{other}");
        }
    }
}
