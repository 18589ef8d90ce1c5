//! `pnb challenge`: the manifests of several builders of the same artifact.

use super::{Exit, args::Common, closing::Closing, failure::Failure, report::Report};
use clap::Args;
use pnb::repro::{self, Claim};
use std::{collections::BTreeSet, path::PathBuf};

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

pub(super) fn challenge(common: &Common, args: &ChallengeArgs, report: &Report) -> Result<Exit, Failure> {
    let mut claims = Vec::new();
    for path in &args.manifests {
        let _shown = report.task("hash", path.display());
        claims.push(Claim::load(path)?);
    }
    let found = repro::challenge(&claims, args.threshold)?;
    let manifests: BTreeSet<_> = claims.iter().map(Claim::sha256).collect();
    let builders = found.groups.first().map_or(0, Vec::len);
    let sentence = match found.met {
        true => format!("{builders} of {} builders agree", claims.len()),
        false => format!(
            "only {builders} of {} builders agree, and {} must",
            claims.len(),
            found.threshold
        ),
    };
    let next = args.manifests.iter().filter(|_| found.met).find(|path| path.is_dir());
    // Equal builds have equal manifests, so a copy cannot be told from a second build.
    let copies = manifests.len() < claims.len();
    let closing = Closing::said(sentence)
        .nexts(next.map(|dir| common.command("audit").arg(dir)))
        .field("equal_manifests", copies);
    let mut text = found.table();
    if copies && found.met {
        // Before the last line, which is the verdict.
        let verdict = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
        let remark = "manifests that are equal byte for byte may be copies of one: ask each builder for its own\n";
        text.insert_str(verdict, remark);
    }
    report.close_with(&found, &text, &closing);
    Ok(if found.met { Exit::Success } else { Exit::Disagree })
}
