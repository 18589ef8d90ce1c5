//! Whether the project and this pnb are those that a manifest describes; only then can its build be repeated.

use super::{Exit, failure::Fatal};
use pnb::{
    manifest::{Manifest, PlatformFact},
    model::{BuildOption, GitSha, Hint},
    pipeline::{AGENT, CODE_SANDBOX, CODE_WRITERS, LOCKFILE, Project},
    source::Revision,
};
use std::borrow::Cow;

/// The build of the manifest cannot be repeated with this project, this program or these options.
#[derive(Debug, thiserror::Error)]
#[error("repeat the build of the manifest: {what} differs\nexpected: {expected}\n  actual: {actual}")]
pub(super) struct ClaimMismatch {
    what: BuildInput,
    expected: String,
    actual: String,
}

/// The input of a build that differs.
#[derive(Clone, Copy, Debug)]
enum BuildInput {
    Lock,
    Version,
    StageCode,
    WriterCode,
    Revision,
    Agent,
    Platform,
    Options,
    Tools,
}

impl std::fmt::Display for BuildInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BuildInput::Lock => write!(f, "the SHA-256 of {LOCKFILE}"),
            BuildInput::Version => f.write_str("the version of pnb"),
            BuildInput::StageCode => f.write_str("the code of pnb that runs stages"),
            BuildInput::WriterCode => f.write_str("the code of pnb that writes formats"),
            BuildInput::Revision => f.write_str("the revision of the project"),
            BuildInput::Agent => f.write_str("the agent"),
            BuildInput::Platform => f.write_str("the platform"),
            BuildInput::Options => f.write_str("the options of the build"),
            BuildInput::Tools => f.write_str("the architecture of the tools"),
        }
    }
}

impl Fatal for ClaimMismatch {
    fn exit(&self) -> Exit {
        match self.what {
            BuildInput::Lock => Exit::OtherLock,
            BuildInput::Version | BuildInput::StageCode | BuildInput::WriterCode => Exit::OtherBuilder,
            BuildInput::Revision => Exit::OtherRevision,
            BuildInput::Agent | BuildInput::Platform | BuildInput::Options | BuildInput::Tools => Exit::Usage,
        }
    }
}

impl Hint for ClaimMismatch {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self.what {
            BuildInput::Lock => "check out the revision that the manifest names",
            BuildInput::Version | BuildInput::StageCode | BuildInput::WriterCode => {
                "build pnb from the revision that the manifest names"
            }
            BuildInput::Revision => "check out the revision with git, with no file changed",
            BuildInput::Agent => "name its file with --agent FILE",
            BuildInput::Platform => "give the same --platform-url and --ca-pem",
            BuildInput::Options => "name the same options with --with",
            BuildInput::Tools => {
                "choose the same tools with --tools ARCH; what was made natively on workers is built again on a machine of that architecture"
            }
        };
        Some(way.into())
    }
}

/// The text for a missing value.
const NONE: &str = "none";

/// Compares every input of the build that `manifest` describes with the present one.
///
/// # Errors
/// The first that differs.
pub(super) fn match_claim(project: &Project, manifest: &Manifest) -> Result<(), ClaimMismatch> {
    let builder = &manifest.builder;
    let agent = project
        .lock
        .file(AGENT, manifest.arch)
        .map(|file| file.sha256.to_string());
    // A manifest without a platform was built without one, or by a pnb that did not record it: both are accepted.
    let ours = project.platform.fact();
    let theirs = manifest.platform.as_ref().unwrap_or(&ours);
    let inputs = [
        (
            BuildInput::Lock,
            manifest.lockfile.sha256.to_string(),
            project.lock_sha256.to_string(),
        ),
        (
            BuildInput::Version,
            builder.version.clone(),
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
        (
            BuildInput::StageCode,
            builder.code.sandbox.clone(),
            CODE_SANDBOX.to_owned(),
        ),
        (
            BuildInput::WriterCode,
            builder.code.writers.clone(),
            CODE_WRITERS.to_owned(),
        ),
        (
            BuildInput::Revision,
            revision(manifest.git_sha.as_deref(), manifest.source.dirty),
            revision_of(&project.revision),
        ),
        (
            BuildInput::Agent,
            manifest.agent.sha256.to_string(),
            agent.unwrap_or_else(|| NONE.to_owned()),
        ),
        (BuildInput::Platform, platform(theirs), platform(&ours)),
        (
            BuildInput::Options,
            options(manifest.options()),
            options(project.options.iter().copied()),
        ),
        (
            BuildInput::Tools,
            builder.build_arch.to_string(),
            project.graph.build_arch(manifest.arch).to_string(),
        ),
    ];
    match inputs.into_iter().find(|(_, expected, actual)| expected != actual) {
        None => Ok(()),
        Some((what, expected, actual)) => Err(ClaimMismatch { what, expected, actual }),
    }
}

fn revision(sha: Option<&str>, dirty: bool) -> String {
    let files = if dirty { ", with uncommitted files" } else { "" };
    format!("{}{files}", sha.unwrap_or(NONE))
}

fn revision_of(revision: &Revision) -> String {
    self::revision(revision.sha.as_ref().map(GitSha::as_str), !revision.dirty.is_empty())
}

fn options(options: impl IntoIterator<Item = BuildOption>) -> String {
    let names: Vec<&str> = options.into_iter().map(BuildOption::as_str).collect();
    if names.is_empty() {
        NONE.to_owned()
    } else {
        names.join(", ")
    }
}

fn platform(fact: &PlatformFact) -> String {
    let certificates = fact.ca_pem_sha256.map(|sha256| sha256.to_string());
    format!(
        "address {}, certificates {}",
        fact.url.as_deref().unwrap_or(NONE),
        certificates.as_deref().unwrap_or(NONE)
    )
}
