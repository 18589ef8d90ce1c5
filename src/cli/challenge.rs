//! `pnb challenge`: the manifests of several builders of the same artifact.

use super::{Exit, failure::Failure, report::Report};
use clap::Args;
use pnb::repro::{self, Claim};
use std::path::PathBuf;

/// Options of `pnb challenge`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb challenge images/raw/amd64 their/build-manifest.json\n  \
    pnb challenge ours.json theirs.json third.json --threshold 2\n\n\
    The files in a directory must have the digests of its manifest; for a manifest file no other file is read."
)]
pub(super) struct ChallengeArgs {
    /// Manifest of each builder: the file, or the directory of the artifact
    #[arg(required = true, value_name = "MANIFEST")]
    pub(super) manifests: Vec<PathBuf>,
    /// Number of builders that must agree on the root and on every file [default: all]
    #[arg(long, value_name = "K")]
    pub(super) threshold: Option<usize>,
}

pub(super) fn challenge(args: &ChallengeArgs, report: &Report) -> Result<Exit, Failure> {
    let claims: Vec<Claim> = args
        .manifests
        .iter()
        .map(|path| Claim::load(path))
        .collect::<Result<_, _>>()?;
    let found = repro::challenge(&claims, args.threshold)?;
    if report.json() {
        report.value(serde_json::json!(found));
    } else {
        report.text(&found.table());
    }
    Ok(if found.met { Exit::Success } else { Exit::Disagree })
}
