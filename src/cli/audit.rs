//! `pnb audit`: the files of an artifact against the statements beside them.

use super::{
    Exit,
    args::Common,
    closing::{Closing, count},
    command_text::from_here,
    context::{scratch, store},
    failure::{Failure, Fatal},
    report::Report,
};
use clap::Args;
use pnb::{
    audit::{ArtifactRoot, AuditError, AuditOptions, AuditReport, Check, Policy, audit_set},
    manifest::MANIFEST_FILE,
    model::{Hint, visible_path},
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
    /// Print every check, and not only those that do not hold
    #[arg(long, short)]
    pub(super) verbose: bool,
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
    let shown = report.task("audit", args.dir.display());
    let set = match args.dir.is_dir() && matches!(args.dir.join(MANIFEST_FILE).try_exists(), Ok(false)) {
        true => audit_set(&args.dir, &options)?,
        false => None,
    };
    if let Some(set) = set {
        drop(shown);
        let mut parts: Vec<(&str, &[Check])> = Vec::new();
        for (name, checks) in &set.artifacts {
            parts.push((name, &checks.checks));
        }
        parts.push((ALL, &set.checks));
        let text = if args.verbose { set.table() } else { String::new() };
        let first = set.artifacts.keys().next().map(|name| args.dir.join(name));
        let closing = closing(common, args, &parts, set.artifacts.len(), first);
        report.close_with(&set, &(text + &summary(&parts, args.verbose)), &closing);
        return Ok(set.class().map_or(Exit::Success, Exit::Audit));
    }
    let result = pnb::audit::audit(&args.dir, &options);
    drop(shown);
    let (checks, exit) = match &result {
        Ok(verified) => (verified.report(), Exit::Success),
        Err(AuditError::Failed { report: checks, .. }) => (checks, checks.class().map_or(Exit::Failure, Exit::Audit)),
        Err(_) => return result.map(|_| Exit::Success).map_err(Failure::from),
    };
    let name = visible_path(&args.dir);
    let parts = [(name.as_str(), &checks.checks[..])];
    let text = if args.verbose { checks.table() } else { String::new() };
    let closing = closing(common, args, &parts, 1, Some(args.dir.clone()));
    report.close_with(checks, &(text + &summary(&parts, args.verbose)), &closing);
    Ok(exit)
}

/// The name of the checks of all artifacts together.
const ALL: &str = "all";

/// One line for each artifact, then the checks that do not hold.
fn summary(parts: &[(&str, &[Check])], verbose: bool) -> String {
    let width = parts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, checks) in parts.iter().filter(|_| !verbose) {
        let failed = checks.iter().filter(|check| !check.ok).count();
        out.push_str(&match failed {
            0 => format!("ok    {name:width$}  {}\n", count(checks.len(), "check")),
            _ => format!("FAIL  {name:width$}  {failed} of {}\n", count(checks.len(), "check")),
        });
    }
    for (name, checks) in parts {
        let checks: Vec<Check> = checks.iter().filter(|check| !check.ok).cloned().collect();
        if !checks.is_empty() {
            out.push_str(&format!("\n{name}\n{}", AuditReport { checks }.table()));
        }
    }
    if out.contains("\nFAIL") || out.starts_with("FAIL") {
        out.push('\n');
    }
    out
}

/// The verdict.
fn closing(
    common: &Common,
    args: &AuditArgs,
    parts: &[(&str, &[Check])],
    artifacts: usize,
    first: Option<PathBuf>,
) -> Closing {
    let checks = || parts.iter().flat_map(|(_, checks)| checks.iter());
    let (all, failed) = (checks().count(), checks().filter(|check| !check.ok).count());
    let sentence = match failed {
        0 => format!("{}, {}, all hold", count(artifacts, "artifact"), count(all, "check")),
        1 => format!("1 of {} does not hold", count(all, "check")),
        _ => format!("{failed} of {} do not hold", count(all, "check")),
    };
    let boot = first
        .filter(|_| failed == 0)
        .map(|dir| common.command("boot").arg(from_here(&dir)));
    let more = (failed > 0 && !args.verbose).then(|| common.line.text().arg("--verbose"));
    Closing::verdict(sentence)
        .nexts(boot)
        .nexts(more)
        .field("artifact_count", artifacts)
        .field("check_count", all)
        .field("failed_count", failed)
}
