//! The format of `lockfile.toml`.

use super::BaseImage;
use crate::model::{Arch, Epoch, Fingerprint, Moment, NodeId, RelPath, Sha256Digest, excerpt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The format version that this program reads and writes; a file with a higher one is refused by name.
pub const LOCK_VERSION: u32 = 1;

/// A lock: the pins of every byte that enters a build.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lockfile {
    /// Format version, [`LOCK_VERSION`].
    pub version: u32,
    /// The time of every output: the date of the newest locked release file of a default archive.
    pub source_date_epoch: Epoch,
    /// The base image, if the root is installed on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseImage>,
    /// The wants from which the package sets were resolved; empty in a lock that a pnb without this table wrote.
    #[serde(default, rename = "set", skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<LockedSet>,
    /// Package archives, by name.
    #[serde(default, rename = "archive", skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<Archive>,
    /// Packages, by name, architecture and version.
    #[serde(default, rename = "package", skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// Other pinned files, by name.
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PinnedFile>,
}

/// The wants from which a package set was resolved.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSet {
    /// The node of the graph that wants the set.
    pub name: NodeId,
    /// Wanted names, each `name` or `name/archive`.
    pub want: BTreeSet<String>,
    /// Whether the packages with `Essential: yes` were wanted too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub essential: bool,
    /// Whether the dependencies belong to the set.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub closure: bool,
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

/// The distribution whose conventions an archive follows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// snapshot.debian.org.
    Debian,
    /// snapshot.ubuntu.com.
    Ubuntu,
}

/// A snapshot of one suite of an archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The name that packages refer to, e.g. `trixie`.
    pub name: String,
    /// Debian or Ubuntu.
    pub distribution: Distribution,
    /// The archive's directory on any mirror: `debian`, `debian-security`, `ubuntu`, `ubuntu-ports`.
    pub base: RelPath,
    /// The suite, as in `dists/<suite>/`.
    pub suite: RelPath,
    /// Components taken from it.
    pub components: Vec<String>,
    /// Moment of the snapshot.
    pub snapshot: Moment,
    /// Canonical address of the snapshot, without a trailing slash; `dists/` and `pool/` lie below it.
    pub snapshot_url: String,
    /// `Date` of the verified `InRelease`; the next lock refuses an older one.
    pub date: Epoch,
    /// SHA-256 of the verified `InRelease`, or of `Release` where the archive has that and `Release.gpg` instead.
    pub inrelease_sha256: Sha256Digest,
    /// The primary keys whose signatures were verified.
    pub keys: Vec<Fingerprint>,
}

/// A locked binary package.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Architecture of the package: `amd64`, `arm64` or `all`.
    pub arch: String,
    /// Debian version.
    pub version: String,
    /// `name version` of the source package where it differs from the binary's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Name of the [`Archive`] it comes from.
    pub archive: String,
    /// Path below the archive's base, e.g. `pool/main/b/bash/bash_5.2.37-2+b8_amd64.deb`.
    pub path: RelPath,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
    /// The package sets it belongs to, each named by the node of the graph that wants it.
    pub sets: BTreeSet<NodeId>,
}

impl Package {
    /// Name of its file for stages and on mirrors: `<name>_<version>_<arch>.deb`, with `%3a` for the colon of an epoch.
    pub fn file_name(&self) -> String {
        let version = self.version.replace(':', "%3a");
        format!("{}_{version}_{}.deb", self.name, self.arch)
    }
}

/// A pinned file that is not a package, e.g. the agent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// The name that stages refer to, e.g. `agent`.
    pub name: String,
    /// Target architecture; `None` when it serves every architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Path in this repository, for a file of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RelPath>,
    /// Address, for a download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Hosts beside that of `url` to which its server may lead: `host`, `host:port` or `*.domain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<String>,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
}

/// The fault of an entry of `redirects`, if it has one: the forms are `host`, `host:port` and `*.domain`, the last one also with a port.
pub fn redirect_problem(entry: &str) -> Option<String> {
    let host = match entry.rsplit_once(':') {
        Some((host, port)) if !entry.ends_with(']') => match port.parse::<u16>() {
            Ok(1..) => host,
            _ => {
                return Some(format!(
                    "redirects has {:?}, whose port is no number from 1 to 65535",
                    excerpt(entry)
                ));
            }
        },
        _ => entry,
    };
    let name = host.strip_prefix("*.").unwrap_or(host);
    let bracketed = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
            !name.is_empty() && !name.starts_with('.') && name.len() <= 253 && name.bytes().all(plain)
        }
    };
    (!good).then(|| {
        format!(
            "redirects has {:?}, which is not host, host:port or *.domain",
            excerpt(entry)
        )
    })
}

impl Lockfile {
    /// The packages of a node's set, in file order.
    pub fn packages_of<'a>(&'a self, set: &'a NodeId) -> impl Iterator<Item = &'a Package> + 'a {
        self.packages.iter().filter(move |p| p.sets.contains(set))
    }

    /// The wants from which the set of `node` was resolved.
    pub fn set(&self, node: &NodeId) -> Option<&LockedSet> {
        self.sets.iter().find(|set| set.name == *node)
    }

    /// The archive called `name`.
    pub fn archive(&self, name: &str) -> Option<&Archive> {
        self.archives.iter().find(|a| a.name == name)
    }

    /// The pinned file called `name` that serves `arch`.
    pub fn file(&self, name: &str, arch: Arch) -> Option<&PinnedFile> {
        self.files
            .iter()
            .find(|f| f.name == name && f.arch.is_none_or(|a| a == arch))
    }
}
