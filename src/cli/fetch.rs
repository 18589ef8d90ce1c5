//! `pnb fetch`: pinned files into the store.

use super::{
    Exit,
    args::{Common, Selection},
    context::{inputs, project, select, store},
    failure::Failure,
    report::{Report, size},
};
use clap::Args;
use pnb::{
    graph::closure_of,
    lock,
    model::NodeId,
    pipeline::{Origins, Project},
    store::Store,
};
use std::collections::BTreeSet;

/// Options of `pnb fetch`.
#[derive(Args, Debug)]
pub(super) struct FetchArgs {
    /// What to fetch for.
    #[command(flatten)]
    pub(super) selection: Selection,
}

pub(super) fn fetch(common: &Common, args: &FetchArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let inputs = inputs(common)?;
    let selected = select(&project, &args.selection)?;
    let closure = closure_of(&project.graph, &selected.nodes)?;
    let sets: BTreeSet<NodeId> = closure.order.iter().cloned().collect();
    let packages: Vec<_> = project
        .lock
        .packages
        .iter()
        .filter(|p| !p.sets.is_disjoint(&sets))
        .collect();
    fetch_all(&project, &store, &inputs, &packages, report)?;
    let bytes = packages.iter().map(|p| p.size).sum();
    report.clear();
    report.note(format_args!(
        "{} packages ({}) are in the store",
        packages.len(),
        size(bytes)
    ));
    Ok(Exit::Success)
}

pub(super) fn fetch_all(
    project: &Project,
    store: &Store,
    inputs: &Origins,
    packages: &[&lock::Package],
    report: &Report,
) -> Result<(), Failure> {
    inputs.ensure_packages(project, store, "all", packages, &|e| report.event(e))?;
    for file in &project.lock.files {
        inputs.ensure_file(project, store, file, &|e| report.event(e))?;
    }
    Ok(())
}
