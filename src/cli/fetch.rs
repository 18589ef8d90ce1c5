//! `pnb fetch`: pinned files into the store.

use super::{
    Exit,
    args::{Common, Selection},
    context::{origins, project, select, store},
    failure::Failure,
    report::{Report, size},
};
use clap::Args;
use pnb::pipeline::{fetch_pinned, needed_packages};

/// Options of `pnb fetch`.
#[derive(Args, Debug)]
pub(super) struct FetchArgs {
    /// The builds whose inputs are fetched.
    #[command(flatten)]
    pub(super) selection: Selection,
}

pub(super) fn fetch(common: &Common, args: &FetchArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let origins = origins(common)?;
    let selected = select(&project, &args.selection)?;
    let packages = needed_packages(&project, &selected.nodes)?;
    fetch_pinned(&project, &store, &origins, &packages, &|event| report.event(event))?;
    let bytes = packages.iter().map(|package| package.size).sum();
    report.clear();
    report.note(format_args!(
        "{} packages ({}) are in the store",
        packages.len(),
        size(bytes)
    ));
    Ok(Exit::Success)
}
