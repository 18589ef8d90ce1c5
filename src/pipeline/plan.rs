//! What a build would run, and why, without running it; and the keys of a project as it is.

use super::{
    Events, PipelineError, Project, SharedResults,
    changed_files::name_files,
    resolve::{OutputsByNode, ResolvedStage, resolve_stage},
    shared::look,
    workers::can_travel,
};
use crate::{
    graph::{Reason, closure_of},
    model::{NodeId, StageKey},
    store::{Record, Store},
};
use serde::Serialize;
use std::collections::BTreeSet;

/// A line of `pnb plan`.
#[derive(Clone, Debug, Serialize)]
pub struct PlanEntry {
    /// The node.
    pub node: NodeId,
    /// Its key, if it is known before any stage runs.
    pub key: Option<String>,
    /// Whether it would run.
    pub run: bool,
    /// The reasons to run it.
    pub reasons: Vec<Reason>,
    /// The cache that would give its result; `None` for one that the store has, or that nobody has.
    pub source: Option<String>,
}

/// Plans a build of `wanted`: all its nodes, and for each whether it would run. A cache is asked for the records that the store lacks. With
/// `challenged`, builders run every stage that travels.
pub fn plan(
    project: &Project,
    store: &Store,
    cache: Option<&SharedResults>,
    challenged: bool,
    wanted: &[NodeId],
    events: Events<'_>,
) -> Result<Vec<PlanEntry>, PipelineError> {
    let closure = closure_of(&project.graph, wanted)?;
    let mut outputs = OutputsByNode::new();
    let mut entries = Vec::new();
    for id in &closure.order {
        // The key depends on the outputs of the dependencies. When one of them has to run, early cutoff may still make this node
        // a cached one, but that is not known yet.
        let waits: Vec<String> = closure.needs[id]
            .iter()
            .filter(|n| !outputs.contains_key(n))
            .map(ToString::to_string)
            .collect();
        if !waits.is_empty() {
            entries.push(PlanEntry {
                node: id.clone(),
                key: None,
                run: true,
                reasons: vec![Reason::Waits { stages: waits }],
                source: None,
            });
            continue;
        }
        let resolved = resolve_stage(project, store, id, &outputs)?;
        let stored = store.record(&resolved.key)?;
        // As a build takes them.
        let from_elsewhere =
            cache.is_some_and(|cache| !cache.accepts()) && store.record_source(&resolved.key)?.is_some();
        let stored = stored.filter(|_| !(from_elsewhere || challenged && can_travel(&resolved)));
        let found = match (stored, cache) {
            (Some(record), _) => Some((record, None)),
            (None, Some(cache)) => {
                let record = look(cache, (project, store), events, &resolved)?;
                record.map(|record| (record, Some(cache.name().to_owned())))
            }
            (None, None) => None,
        };
        let reasons = match &found {
            Some(_) => Vec::new(),
            None => reasons(project, store, &resolved)?,
        };
        entries.push(PlanEntry {
            node: id.clone(),
            key: Some(resolved.key.to_string()),
            run: found.is_none(),
            reasons,
            source: found.as_ref().and_then(|(_, source)| source.clone()),
        });
        if let Some((record, _)) = found {
            outputs.insert(id.clone(), record.outputs);
        }
    }
    Ok(entries)
}

/// The key of a node as the project is now, and its record if the store has it. `None` when a stage that it needs has no record, so that
/// the key is not known.
pub fn present(
    project: &Project,
    store: &Store,
    id: &NodeId,
) -> Result<Option<(StageKey, Option<Record>)>, PipelineError> {
    let closure = closure_of(&project.graph, std::slice::from_ref(id))?;
    let mut outputs = OutputsByNode::new();
    let mut last = None;
    for id in &closure.order {
        let key = resolve_stage(project, store, id, &outputs)?.key;
        match store.known_outputs(&key)? {
            Some(known) => drop(outputs.insert(id.clone(), known)),
            None if closure.order.last() != Some(id) => return Ok(None),
            None => {}
        }
        last = Some((key, store.record(&key)?));
    }
    Ok(last)
}

/// The keys of all stages of the project as it is now that have a record, for every architecture.
pub fn present_keys(project: &Project, store: &Store) -> Result<BTreeSet<StageKey>, PipelineError> {
    let closure = closure_of(&project.graph, &project.graph.nodes())?;
    let mut outputs = OutputsByNode::new();
    let mut keys = BTreeSet::new();
    for id in &closure.order {
        if closure.needs[id].iter().any(|need| !outputs.contains_key(need)) {
            continue;
        }
        let resolved = match resolve_stage(project, store, id, &outputs) {
            Ok(resolved) => resolved,
            Err(error @ PipelineError::Store(_)) => return Err(error),
            // The lock does not have every package of every stage; such a stage was not built either.
            Err(_) => continue,
        };
        if let Some(known) = store.known_outputs(&resolved.key)? {
            keys.insert(resolved.key);
            outputs.insert(id.clone(), known);
        }
    }
    Ok(keys)
}

/// Whether the last known result of a key was not made here: a server gave it, or still has its outputs.
fn made_elsewhere(store: &Store, key: &StageKey, id: &NodeId) -> Result<bool, PipelineError> {
    let latest = store.latest_record(&id.stage, id.arch)?;
    let absent = latest.is_none_or(|(latest, _)| latest != *key);
    Ok(absent || store.record_source(key)?.is_some())
}

/// The reasons to run a resolved node that has no usable record.
pub(super) fn reasons(
    project: &Project,
    store: &Store,
    resolved: &ResolvedStage,
) -> Result<Vec<Reason>, PipelineError> {
    let id = &resolved.id;
    Ok(match store.last_known_record(&id.stage, id.arch)? {
        Some((key, old)) if key == resolved.key && !old.weaker.is_empty() => vec![Reason::Weaker],
        Some((key, _)) if key == resolved.key && made_elsewhere(store, &key, id)? => vec![Reason::Elsewhere],
        Some((_, old)) => {
            let reasons = Reason::between(&old.canonical, resolved.canonical.as_str());
            name_files(project, store, resolved, &old.canonical, reasons)
        }
        None => vec![Reason::NeverBuilt],
    })
}
