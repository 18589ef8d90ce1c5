//! `pnb challenge`: what several builders say of the same artifact.

use super::{Exit, args::Challenge, context::Failure, report::Report};
use crate::repro::{self, Claim};

pub(super) fn challenge(args: &Challenge, report: &Report) -> Result<Exit, Failure> {
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
