//! `pnb fetch`: pinned files into the store.

use super::{
    Exit,
    args::{Common, Selection},
    closing::{Closing, count},
    context::{project, select, store, with_registries},
    failure::Failure,
    report::{Report, size},
    servers::ServerArgs,
};
use clap::Args;
use pnb::pipeline::{fetch_pinned, needed_packages};

/// Options of `pnb fetch`.
#[derive(Args, Debug)]
pub(super) struct FetchArgs {
    /// The builds whose inputs are fetched.
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Registries that have the base image.
    #[command(flatten)]
    pub(super) servers: ServerArgs,
}

pub(super) fn fetch(common: &Common, args: &FetchArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let origins = with_registries(common, &args.servers)?;
    let selected = select(common, &project, &args.selection)?;
    let packages = needed_packages(&project, &selected.nodes)?;
    fetch_pinned(&project, &store, &origins, &packages, &|event| report.event(event))?;
    let bytes: u64 = packages.iter().map(|package| package.size).sum();
    let sentence = format!(
        "{} ({}) in the store, {}",
        count(packages.len(), "package"),
        size(bytes),
        report.elapsed()
    );
    let closing = Closing::new(sentence)
        .next(common.build_command().args(args.selection.words()))
        .field("packages", packages.len())
        .field("bytes", bytes);
    report.close("fetch", &closing);
    Ok(Exit::Success)
}
