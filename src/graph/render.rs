//! The graph as text, DOT, SVG and JSON.

use super::{Closure, GraphError, StageGraph, picture::svg};
use crate::model::NodeId;
use std::fmt::Write;

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
        Rendering::Svg => out.push_str(&svg(graph, closure)),
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
