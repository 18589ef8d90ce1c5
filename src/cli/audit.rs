//! `pnb audit`: whether an artifact is what it claims to be.

use super::{Exit, args::Common, context::store, failure::Failure, report::Report, vendor::sha256_of};
use clap::Args;
use pnb::{
    audit::{self, ArtifactRoot, AuditError, Policy},
    manifest::MANIFEST_FILE,
};
use std::{fs, io, path::PathBuf};

/// Options of `pnb audit`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb audit images/raw/amd64\n  pnb audit images --lock lockfile.toml\n  \
    pnb audit images --policy docs/audit-policy.example.toml\n  \
    pnb --json audit images/raw/amd64 | jq '.checks[] | select(.ok | not)'"
)]
pub(super) struct AuditArgs {
    /// The artifact's directory, or one of several: `<variant>/<arch>` below it.
    pub(super) dir: PathBuf,
    /// The lock that the artifact must have been built from.
    #[arg(long, value_name = "FILE")]
    pub(super) lock: Option<PathBuf>,
    /// What is asked of the artifacts beyond being what they claim to be: rules in TOML, as docs/audit.md lists them.
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
}

pub(super) fn audit(common: &Common, args: &AuditArgs, report: &Report) -> Result<Exit, Failure> {
    let policy = args.policy.as_deref().map(Policy::load).transpose()?;
    let store = store(common)?;
    let scratch = store.scratch_path("audit");
    let io = |e: io::Error| Failure::said(Exit::Store, format!("create {scratch:?}: {e}"));
    fs::create_dir(&scratch).map_err(io)?;
    let lock = match &args.lock {
        None => None,
        Some(path) => {
            let digest = sha256_of(path);
            Some(digest.map_err(|e| Failure::said(Exit::Lock, format!("read {path:?}: {e}")))?)
        }
    };
    let options = audit::AuditOptions {
        opener: &ArtifactRoot {
            scratch: scratch.clone(),
        },
        lock_sha256: lock,
        policy: policy.as_ref(),
    };
    let failed = |error: &AuditError, source: &io::Error| Failure::said(Exit::Failure, format!("{error}: {source}"));
    if args.dir.is_dir() && !args.dir.join(MANIFEST_FILE).exists() {
        let set = audit::audit_set(&args.dir, &options).map_err(|error| match &error {
            AuditError::Io { source, .. } => failed(&error, source),
            AuditError::Failed { .. } => Failure::said(Exit::Failure, error.to_string()),
        })?;
        if let Some(set) = set {
            if report.json() {
                report.line(serde_json::json!(set));
            } else {
                report.bytes(set.table().as_bytes());
            }
            return Ok(set.class().map_or(Exit::Success, Exit::Audit));
        }
    }
    let result = audit::audit(&args.dir, &options);
    let (checks, exit) = match &result {
        Ok(verified) => (verified.report(), Exit::Success),
        Err(AuditError::Failed { report: checks, .. }) => (checks, checks.class().map_or(Exit::Failure, Exit::Audit)),
        Err(error @ AuditError::Io { source, .. }) => {
            return Err(failed(error, source));
        }
    };
    if report.json() {
        report.line(serde_json::json!(checks));
    } else {
        report.bytes(checks.table().as_bytes());
    }
    Ok(exit)
}
