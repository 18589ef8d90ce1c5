//! The closure of a request: its nodes and all their dependencies, in topological order.

use super::{GraphError, StageGraph};
use crate::model::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The nodes of a request with their dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closure {
    /// Every node, each after its dependencies; equal requests give equal orders.
    pub order: Vec<NodeId>,
    /// Direct dependencies of each node.
    pub needs: BTreeMap<NodeId, Vec<NodeId>>,
}

/// The closure of `wanted`, with the nodes of `wanted` themselves.
pub fn closure_of(graph: &StageGraph, wanted: &[NodeId]) -> Result<Closure, GraphError> {
    let mut closure = Closure {
        order: Vec::new(),
        needs: BTreeMap::new(),
    };
    let mut seen = BTreeSet::new();
    for id in wanted {
        visit(graph, id, &mut seen, &mut closure)?;
    }
    Ok(closure)
}

fn visit(
    graph: &StageGraph,
    id: &NodeId,
    seen: &mut BTreeSet<NodeId>,
    closure: &mut Closure,
) -> Result<(), GraphError> {
    if !seen.insert(id.clone()) {
        return Ok(());
    }
    let needs = graph.dependencies(id)?;
    for need in &needs {
        visit(graph, need, seen, closure)?;
    }
    closure.order.push(id.clone());
    closure.needs.insert(id.clone(), needs);
    Ok(())
}
