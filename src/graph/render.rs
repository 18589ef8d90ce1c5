//! The graph as text, DOT, SVG and JSON.

use super::{Closure, GraphError, StageGraph};
use crate::model::NodeId;
use std::{collections::BTreeMap, fmt::Write};

/// The format of a rendered graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rendering {
    /// An indented list, each node below the node that depends on it.
    Text,
    /// Graphviz.
    Dot,
    /// A self-contained SVG picture.
    Svg,
    /// JSON: the nodes with their summaries and dependencies.
    Json,
}

/// Renders the nodes of `closure`.
pub fn render(graph: &StageGraph, closure: &Closure, how: Rendering) -> Result<String, GraphError> {
    let summary = |id: &NodeId| graph.file(id).summary.as_str();
    let mut out = String::new();
    match how {
        Rendering::Text => {
            for id in &closure.order {
                let needs: Vec<String> = closure.needs[id].iter().map(ToString::to_string).collect();
                let _ = writeln!(out, "{id:<24} {}", summary(id));
                if !needs.is_empty() {
                    let _ = writeln!(out, "{:<24}   needs {}", "", needs.join(", "));
                }
            }
        }
        Rendering::Dot => {
            out.push_str("digraph pnb {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
            for id in &closure.order {
                let _ = writeln!(out, "  \"{id}\" [tooltip={:?}];", summary(id));
                for need in &closure.needs[id] {
                    let _ = writeln!(out, "  \"{need}\" -> \"{id}\";");
                }
            }
            out.push_str("}\n");
        }
        Rendering::Svg => svg(closure, &summary, &mut out),
        Rendering::Json => {
            let nodes: Vec<serde_json::Value> = closure
                .order
                .iter()
                .map(|id| {
                    let needs: Vec<String> = closure.needs[id].iter().map(ToString::to_string).collect();
                    serde_json::json!({ "node": id.to_string(), "summary": summary(id), "needs": needs })
                })
                .collect();
            let _ = writeln!(out, "{:#}", serde_json::json!({ "nodes": nodes }));
        }
    }
    Ok(out)
}

/// Draws each node in the column of its longest chain of dependencies; within a column, nodes keep the order of the closure. Edges
/// are drawn first, so that they lie behind the boxes.
fn svg<'a>(closure: &'a Closure, summary: &dyn Fn(&'a NodeId) -> &'a str, out: &mut String) {
    const WIDTH: usize = 190;
    const HEIGHT: usize = 44;
    const GAP_X: usize = 60;
    const GAP_Y: usize = 22;
    const MARGIN: usize = 16;
    let mut column: BTreeMap<&NodeId, usize> = BTreeMap::new();
    let mut used: BTreeMap<usize, usize> = BTreeMap::new();
    let mut place: BTreeMap<&NodeId, (usize, usize)> = BTreeMap::new();
    for id in &closure.order {
        let depth = closure.needs[id].iter().map(|n| column[n] + 1).max().unwrap_or(0);
        column.insert(id, depth);
        let row = used.entry(depth).or_insert(0);
        place.insert(id, (MARGIN + depth * (WIDTH + GAP_X), MARGIN + *row * (HEIGHT + GAP_Y)));
        *row += 1;
    }
    let columns = used.len().max(1);
    let rows = used.values().copied().max().unwrap_or(1);
    let width = 2 * MARGIN + columns * (WIDTH + GAP_X) - GAP_X;
    let height = 2 * MARGIN + rows * (HEIGHT + GAP_Y) - GAP_Y;
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    );
    for id in &closure.order {
        let (x2, y2) = place[id];
        for need in &closure.needs[id] {
            let (x1, y1) = place[need];
            let (x1, y1, y2) = (x1 + WIDTH, y1 + HEIGHT / 2, y2 + HEIGHT / 2);
            let middle = (x1 + x2) / 2;
            let _ = writeln!(
                out,
                "<path d=\"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#888\"/>"
            );
        }
    }
    for (id, (x, y)) in &place {
        let _ = writeln!(
            out,
            "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#eef3fa\" \
             stroke=\"#345\"/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{id}</text></g>",
            escape(summary(id)),
            x + WIDTH / 2,
            y + HEIGHT / 2 + 5
        );
    }
    out.push_str("</svg>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
