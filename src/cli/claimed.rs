//! Whether the project and this pnb are those that a manifest describes; only then can its build be repeated.

use super::{Exit, failure::Fatal};
use pnb::{
    manifest::{Manifest, PlatformFact},
    model::GitSha,
    pipeline::{AGENT, CODE_SANDBOX, CODE_WRITERS, LOCKFILE, Project, Revision},
};
use std::borrow::Cow;

/// The build of the manifest cannot be repeated with what is here.
#[derive(Debug, thiserror::Error)]
#[error("repeat the build of the manifest: {what} differs\nexpected: {expected}\n  actual: {actual}")]
pub(super) struct Mismatch {
    what: Origin,
    expected: String,
    actual: String,
}

/// The part of a build's origin that differs.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Lock,
    Version,
    StageCode,
    WriterCode,
    Revision,
    Agent,
    Platform,
    Tools,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Lock => write!(f, "the SHA-256 of {LOCKFILE}"),
            Origin::Version => f.write_str("the version of pnb"),
            Origin::StageCode => f.write_str("the code of pnb that runs stages"),
            Origin::WriterCode => f.write_str("the code of pnb that writes formats"),
            Origin::Revision => f.write_str("the revision of the project"),
            Origin::Agent => f.write_str("the agent"),
            Origin::Platform => f.write_str("the platform"),
            Origin::Tools => f.write_str("the architecture of the tools"),
        }
    }
}

impl Fatal for Mismatch {
    fn exit(&self) -> Exit {
        match self.what {
            Origin::Lock => Exit::OtherLock,
            Origin::Version | Origin::StageCode | Origin::WriterCode => Exit::OtherBuilder,
            Origin::Revision => Exit::OtherRevision,
            Origin::Agent | Origin::Platform | Origin::Tools => Exit::Usage,
        }
    }
}

impl pnb::model::Hint for Mismatch {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self.what {
            Origin::Lock => "check out the revision that the manifest names",
            Origin::Version | Origin::StageCode | Origin::WriterCode => {
                "build pnb from the revision that the manifest names"
            }
            Origin::Revision => "check out the revision with git, with no file changed",
            Origin::Agent => "name its file with --agent FILE",
            Origin::Platform => "give the same --platform-url and --ca-pem",
            Origin::Tools => "choose it with --tools ARCH",
        };
        Some(way.into())
    }
}

/// The text for a missing value.
const NONE: &str = "none";

/// Compares every origin of the build that `manifest` describes with the present one.
///
/// # Errors
/// The first that differs.
pub(super) fn match_claim(project: &Project, manifest: &Manifest) -> Result<(), Mismatch> {
    let builder = &manifest.builder;
    let agent = project
        .lock
        .file(AGENT, manifest.arch)
        .map(|file| file.sha256.to_string());
    // A manifest without a platform was built without one, or by a pnb that did not record it: both are accepted.
    let ours = project.platform.fact();
    let theirs = manifest.platform.as_ref().unwrap_or(&ours);
    let origins = [
        (
            Origin::Lock,
            manifest.lockfile.sha256.to_string(),
            project.lock_sha256.to_string(),
        ),
        (
            Origin::Version,
            builder.version.clone(),
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
        (Origin::StageCode, builder.code.sandbox.clone(), CODE_SANDBOX.to_owned()),
        (
            Origin::WriterCode,
            builder.code.writers.clone(),
            CODE_WRITERS.to_owned(),
        ),
        (
            Origin::Revision,
            revision(manifest.git_sha.as_deref(), manifest.source.dirty),
            revision_of(&project.revision),
        ),
        (
            Origin::Agent,
            manifest.agent.sha256.to_string(),
            agent.unwrap_or_else(|| NONE.to_owned()),
        ),
        (Origin::Platform, platform(theirs), platform(&ours)),
        (
            Origin::Tools,
            builder.build_arch.to_string(),
            project.graph.build_arch().to_string(),
        ),
    ];
    match origins.into_iter().find(|(_, expected, actual)| expected != actual) {
        None => Ok(()),
        Some((what, expected, actual)) => Err(Mismatch { what, expected, actual }),
    }
}

fn revision(sha: Option<&str>, dirty: bool) -> String {
    let files = if dirty { ", with uncommitted files" } else { "" };
    format!("{}{files}", sha.unwrap_or(NONE))
}

fn revision_of(revision: &Revision) -> String {
    self::revision(revision.sha.as_ref().map(GitSha::as_str), !revision.dirty.is_empty())
}

fn platform(fact: &PlatformFact) -> String {
    let certificates = fact.ca_pem_sha256.map(|sha256| sha256.to_string());
    format!(
        "address {}, certificates {}",
        fact.url.as_deref().unwrap_or(NONE),
        certificates.as_deref().unwrap_or(NONE)
    )
}
