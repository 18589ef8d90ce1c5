//! `pnb vendor`: every pinned download into a directory that serves as a mirror.

use super::{
    Exit,
    args::Common,
    closing::{Closing, count},
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
    let sentence = format!(
        "{} in {}, {} new, {}",
        count(done.files, "file"),
        visible_path(&dir),
        done.written,
        report.elapsed()
    );
    let mirror = format!("file://{}", dir.display());
    let build = common.command("build").arg("--offline").variable("PNB_MIRROR", &mirror);
    let closing = Closing::new(sentence)
        .next(build)
        .field("files", done.files)
        .field("written", done.written)
        .field("mirror", mirror.as_str());
    report.close("vendor", &closing);
    Ok(Exit::Success)
}
