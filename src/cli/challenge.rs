//! `pnb challenge`: what several builders say of the same artifact.

use super::{Exit, failure::Failure, report::Report};
use clap::Args;
use pnb::repro::{self, Claim};
use std::path::PathBuf;

/// Options of `pnb challenge`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb challenge images/raw/amd64 their/build-manifest.json\n  \
    pnb challenge ours.json theirs.json third.json --threshold 2\n\n\
    In a directory, the files must be those of its manifest; of a manifest alone nothing else is looked at."
)]
pub(super) struct ChallengeArgs {
    /// The builders' manifests: a file each, or the directory of an artifact.
    #[arg(required = true, value_name = "MANIFEST")]
    pub(super) manifests: Vec<PathBuf>,
    /// How many builders must agree, on the root and every file together [default: all].
    #[arg(long, value_name = "K")]
    pub(super) threshold: Option<usize>,
}

pub(super) fn challenge(args: &ChallengeArgs, report: &Report) -> Result<Exit, Failure> {
    let claims: Vec<Claim> = args
        .manifests
        .iter()
        .map(|path| Claim::load(path))
        .collect::<Result<_, _>>()?;
    let found = repro::challenge(&claims, args.threshold);
    let found = found.map_err(|error| Failure::said(Exit::Usage, error.to_string()))?;
    if report.json() {
        report.line(serde_json::json!(found));
    } else {
        report.bytes(found.table().as_bytes());
    }
    Ok(if found.met { Exit::Success } else { Exit::Disagree })
}
