//! `pnb vendor`: every pinned download into a directory that serves as a mirror.

use super::{
    Exit,
    args::Common,
    context::{project, store, with_registries},
    failure::Failure,
    report::Report,
    servers::ServerArgs,
};
use clap::Args;
use pnb::{model::visible_path, pipeline::vendor as write_mirror};
use std::path::PathBuf;

/// Options of `pnb vendor`.
#[derive(Args, Debug)]
pub(super) struct VendorArgs {
    /// Directory of the mirror; made if it is missing
    pub(super) dir: PathBuf,
    /// Registries that have the base image.
    #[command(flatten)]
    pub(super) servers: ServerArgs,
}

pub(super) fn vendor(common: &Common, args: &VendorArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let done = write_mirror(
        &project,
        &store,
        &with_registries(common, &args.servers)?,
        &args.dir,
        &|event| report.event(event),
    )?;
    let dir = args.dir.canonicalize().unwrap_or_else(|_| args.dir.clone());
    report.clear();
    report.note(format_args!(
        "{} files, {} new; use them with PNB_MIRROR=file://{}",
        done.files,
        done.written,
        visible_path(&dir)
    ));
    Ok(Exit::Success)
}
