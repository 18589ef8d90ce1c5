//! `pnb audit`: the files of an artifact against the statements beside them.

use super::{
    Exit,
    args::Common,
    context::{scratch, store},
    failure::{Failure, Fatal},
    report::Report,
};
use clap::Args;
use pnb::{
    audit::{ArtifactRoot, AuditError, AuditOptions, Policy, audit_set},
    manifest::MANIFEST_FILE,
    model::Hint,
    pipeline::sha256_of,
};
use std::{io, path::PathBuf};

/// Options of `pnb audit`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb audit images/raw/amd64\n  pnb audit images --lock lockfile.toml\n  \
    pnb audit images --policy docs/audit-policy.example.toml\n  \
    pnb --json audit images/raw/amd64 | jq '.checks[] | select(.ok | not)'"
)]
pub(super) struct AuditArgs {
    /// Directory of one artifact, or of several as <variant>/<arch>
    pub(super) dir: PathBuf,
    /// Lock from which the artifact must have been built
    #[arg(long, value_name = "FILE")]
    pub(super) lock: Option<PathBuf>,
    /// Further rules for the artifacts: a TOML file with the rules of docs/audit.md
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
}

/// The lock that the artifact must have been built from cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read {path:?}")]
struct UnreadableLock {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Fatal for UnreadableLock {
    fn exit(&self) -> Exit {
        Exit::Lock
    }
}

impl Hint for UnreadableLock {}

pub(super) fn audit(common: &Common, args: &AuditArgs, report: &Report) -> Result<Exit, Failure> {
    let policy = args.policy.as_deref().map(Policy::load).transpose()?;
    let store = store(common)?;
    let scratch = scratch(&store, "audit")?;
    let digest = |path: &PathBuf| {
        sha256_of(path).map_err(|source| UnreadableLock {
            path: path.clone(),
            source,
        })
    };
    let options = AuditOptions {
        opener: &ArtifactRoot { scratch },
        lock_sha256: args.lock.as_ref().map(digest).transpose()?,
        policy: policy.as_ref(),
    };
    if args.dir.is_dir()
        && matches!(args.dir.join(MANIFEST_FILE).try_exists(), Ok(false))
        && let Some(set) = audit_set(&args.dir, &options)?
    {
        if report.json() {
            report.value(serde_json::json!(set));
        } else {
            report.text(&set.table());
        }
        return Ok(set.class().map_or(Exit::Success, Exit::Audit));
    }
    let result = pnb::audit::audit(&args.dir, &options);
    let (checks, exit) = match &result {
        Ok(verified) => (verified.report(), Exit::Success),
        Err(AuditError::Failed { report: checks, .. }) => (checks, checks.class().map_or(Exit::Failure, Exit::Audit)),
        Err(_) => return result.map(|_| Exit::Success).map_err(Failure::from),
    };
    if report.json() {
        report.value(serde_json::json!(checks));
    } else {
        report.text(&checks.table());
    }
    Ok(exit)
}
