//! `pnb graph`: the stages and their dependencies.

use super::{
    Exit,
    args::{Common, Selection},
    context::{project, select},
    failure::Failure,
    report::Report,
};
use clap::Args;
use pnb::graph::{Rendering, closure_of, render};

/// Options of `pnb graph`.
#[derive(Args, Debug)]
pub(super) struct GraphArgs {
    /// The artifacts or stages whose dependencies are shown.
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Print a graph for Graphviz
    #[arg(long, conflicts_with = "svg")]
    pub(super) dot: bool,
    /// Print a picture: pnb graph --svg > graph.svg
    #[arg(long)]
    pub(super) svg: bool,
}

pub(super) fn graph(common: &Common, args: &GraphArgs, report: &Report) -> Result<Exit, Failure> {
    let project = project(common)?;
    let selected = select(common, &project, &args.selection)?;
    let closure = closure_of(&project.graph, &selected.nodes)?;
    let how = match (args.dot, args.svg, report.json()) {
        (true, _, _) => Rendering::Dot,
        (_, true, _) => Rendering::Svg,
        (_, _, true) => Rendering::Json,
        _ => Rendering::Text,
    };
    let text = render(&project.graph, &closure, how)?;
    match how {
        Rendering::Json => report.document(&text),
        Rendering::Text | Rendering::Dot | Rendering::Svg => report.text(&text),
    }
    Ok(Exit::Success)
}
