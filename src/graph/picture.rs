//! The graph as a self-contained SVG picture.

use super::{Closure, StageArch, StageGraph};
use crate::{
    model::{Arch, NodeId, visible},
    page::{BoxSize, Layered, PALETTE, layered, reduced},
};
use maud::{Markup, PreEscaped, html};
use std::collections::{BTreeMap, BTreeSet};

/// Lengths beside the width of a box, which depends on the longest name.
const SIZE: BoxSize = BoxSize {
    width: 120,
    height: 46,
    passing: 10,
    gap_x: 44,
    gap_y: 14,
    margin: 16,
    band: 30,
};
/// Width of a letter, in units of the picture: more than any usual font needs for a name of a stage at this size.
const LETTER: usize = 9;
/// Space beside a name.
const PADDING: usize = 24;
/// Height of the lines below the graph.
const FOOT: usize = 92;
/// Narrowest picture in which the legend fits.
const NARROWEST: usize = 640;

const STYLE: &str = "
svg { background: var(--ground); font: 14px system-ui, sans-serif; }
text { fill: var(--text); }
.small { fill: var(--faint); font-size: 12px; }
.band { font-weight: 600; }
.line { fill: none; stroke: var(--faint); stroke-width: 1.25; }
.head { fill: var(--faint); }
.stage rect { fill: var(--soft); stroke: var(--faint); }
.tool rect { fill: var(--ground); stroke: var(--faint); stroke-dasharray: 5 3; }
.artifact rect { fill: var(--equal-ground); stroke: var(--equal); stroke-width: 3; }
.artifact .name { font-weight: 600; }
";

/// The kind of a node: CSS class, and the word in its box.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Stage,
    Tool,
    Artifact,
}

impl Kind {
    fn of(graph: &StageGraph, id: &NodeId) -> Self {
        let file = graph.file(id);
        match (file.variant.is_some(), file.arch) {
            (true, _) => Kind::Artifact,
            (false, StageArch::Target) => Kind::Stage,
            (false, StageArch::Build | StageArch::Host) => Kind::Tool,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Kind::Stage => "stage",
            Kind::Tool => "tool",
            Kind::Artifact => "artifact",
        }
    }
}

/// The picture.
pub(super) fn svg(graph: &StageGraph, closure: &Closure) -> String {
    let number: BTreeMap<&NodeId, usize> = closure.order.iter().enumerate().map(|(n, id)| (id, n)).collect();
    let needs: Vec<BTreeSet<usize>> = closure
        .order
        .iter()
        .map(|id| {
            closure.needs[id]
                .iter()
                .filter_map(|need| number.get(need).copied())
                .collect()
        })
        .collect();
    let arches: BTreeSet<Arch> = closure.order.iter().map(|id| id.arch).collect();
    let bands: Vec<usize> = closure
        .order
        .iter()
        .map(|id| arches.iter().take_while(|arch| **arch < id.arch).count())
        .collect();
    let longest = closure
        .order
        .iter()
        .map(|id| visible(&id.stage).chars().count())
        .max()
        .unwrap_or(0);
    let size = BoxSize {
        width: (longest * LETTER + PADDING).max(SIZE.width),
        ..SIZE
    };
    let all: usize = needs.iter().map(BTreeSet::len).sum();
    let needs = reduced(&needs);
    let drawn: usize = needs.iter().map(Vec::len).sum();
    let places = layered(&needs, &bands, &size);
    let picture = html! {
        (draw(graph, closure, &places, &size, &arches, all - drawn))
        "\n"
    };
    picture.into_string()
}

fn draw(
    graph: &StageGraph,
    closure: &Closure,
    places: &Layered,
    size: &BoxSize,
    arches: &BTreeSet<Arch>,
    left_out: usize,
) -> Markup {
    let (width, height) = (places.width.max(NARROWEST), places.height + FOOT);
    let foot = places.height + 12;
    let names: Vec<&str> = arches.iter().map(|arch| arch.as_str()).collect();
    let describe = format!(
        "{} stages for {}, each to the right of those that it needs",
        closure.order.len(),
        names.join(" and ")
    );
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height)
            role="img" aria-labelledby="title description"
        {
            title id="title" { "Stages of the build and what they need" }
            desc id="description" { (describe) "." }
            style { (PreEscaped(PALETTE)) (PreEscaped(STYLE)) }
            defs {
                marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto" {
                    path class="head" d="M0 0L8 4L0 8z" {}
                }
            }
            @for (arch, top) in arches.iter().zip(&places.bands) {
                text class="band" x=(size.margin) y=(top + 16) { (arch) }
            }
            @for (line, ends) in &places.lines {
                path class="line" d=(line) marker-end=[ends.then_some("url(#arrow)")] {}
            }
            @for (id, (x, y)) in closure.order.iter().zip(&places.boxes) {
                (node_box(id, Kind::of(graph, id), &graph.file(id).summary, (*x, *y), size))
            }
            g class="legend" {
                @for (n, kind) in [Kind::Artifact, Kind::Stage, Kind::Tool].into_iter().enumerate() {
                    g class=(kind.as_str()) {
                        rect x=(size.margin + n * 130) y=(foot) width="26" height="18" rx="4" {}
                        text x=(size.margin + n * 130 + 34) y=(foot + 14) { (kind.as_str()) }
                    }
                }
                text class="small" x=(size.margin) y=(foot + 42) {
                    "An arrow leads to a stage from one that it needs."
                    @if left_out > 0 { " " (left_out) " arrows that follow from others are left out." }
                }
                text class="small" x=(size.margin) y=(foot + 60) {
                    "A tool runs on the build machine, and none of its files are in an artifact."
                }
            }
        }
    }
}

fn node_box(id: &NodeId, kind: Kind, summary: &str, (x, y): (usize, usize), size: &BoxSize) -> Markup {
    html! {
        g class={ "node " (kind.as_str()) } {
            title { (visible(&id.to_string())) ": " (visible(summary)) }
            rect x=(x) y=(y) width=(size.width) height=(size.height) rx="6" {}
            text class="name" x=(x + 12) y=(y + 20) { (visible(&id.stage)) }
            text class="small" x=(x + 12) y=(y + 37) { (kind.as_str()) ", " (id.arch) }
        }
    }
}
