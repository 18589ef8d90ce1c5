//! Which stages run, in what order, and how many at once.

use super::{
    Event, Events, Origins, PipelineError, Project,
    resolve::{OutputsByNode, ResolvedStage, resolve_stage},
    run::{RunOptions, run_stage},
};
use crate::{
    graph::{Closure, NodeId, Reason, closure_of},
    model::VerityDigest,
    store::{Output, Record, Store},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex},
    thread,
};

/// A node that is done: what it was made from, what it made, and whether it had to run.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its inputs and key.
    pub prepared: ResolvedStage,
    /// What it made, and how.
    pub record: Record,
    /// Whether it was taken from the store.
    pub cached: bool,
}

/// Every node of a build.
#[derive(Clone, Debug)]
pub struct BuildOutcome {
    /// By node.
    pub nodes: BTreeMap<NodeId, Done>,
    /// In an order in which each comes after what it needs.
    pub order: Vec<NodeId>,
}

/// One line of `pnb plan`.
#[derive(Clone, Debug, Serialize)]
pub struct PlanEntry {
    /// Which node.
    pub node: NodeId,
    /// Its key, where it is known before anything runs.
    pub key: Option<String>,
    /// Whether it would run.
    pub run: bool,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// Says what a build of `wanted` would run.
pub fn plan(project: &Project, store: &Store, wanted: &[NodeId]) -> Result<Vec<PlanEntry>, PipelineError> {
    let closure = closure_of(&project.graph, wanted)?;
    let mut outputs = OutputsByNode::new();
    let mut entries = Vec::new();
    for id in &closure.order {
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
            });
            continue;
        }
        let prepared = resolve_stage(project, store, id, &outputs)?;
        let record = store.record(&prepared.key)?;
        let reasons = match &record {
            Some(_) => Vec::new(),
            None => reasons(store, &prepared)?,
        };
        entries.push(PlanEntry {
            node: id.clone(),
            key: Some(prepared.key.to_string()),
            run: record.is_none(),
            reasons,
        });
        if let Some(record) = record {
            outputs.insert(id.clone(), record.outputs);
        }
    }
    Ok(entries)
}

/// Why a prepared node without a record must run.
pub(super) fn reasons(store: &Store, prepared: &ResolvedStage) -> Result<Vec<Reason>, PipelineError> {
    let id = &prepared.id;
    Ok(match store.latest_record(&id.stage, id.arch)? {
        Some((key, old)) if key == prepared.key && !old.weaker.is_empty() => vec![Reason::Weaker],
        Some((_, old)) => Reason::between(&old.canonical, prepared.canonical.as_str()),
        None => vec![Reason::NeverBuilt],
    })
}

struct State {
    waiting: BTreeSet<NodeId>,
    running: usize,
    done: BTreeMap<NodeId, Done>,
    failed: Option<PipelineError>,
}

/// Builds `wanted` and everything it needs, `jobs` stages at once. The first failure lets what runs end and starts no more.
pub fn build(
    project: &Project,
    store: &Store,
    inputs: &Origins,
    wanted: &[NodeId],
    jobs: usize,
    options: &RunOptions,
    events: Events<'_>,
) -> Result<BuildOutcome, PipelineError> {
    match build_so_far(project, store, inputs, wanted, jobs, options, events)? {
        (_, Some(error)) => Err(error),
        (outcome, None) => Ok(outcome),
    }
}

/// As [`build`], and gives what was done before the first failure too.
pub(super) fn build_so_far(
    project: &Project,
    store: &Store,
    inputs: &Origins,
    wanted: &[NodeId],
    jobs: usize,
    options: &RunOptions,
    events: Events<'_>,
) -> Result<(BuildOutcome, Option<PipelineError>), PipelineError> {
    let closure = closure_of(&project.graph, wanted)?;
    events(Event::Begin {
        stages: closure.order.len(),
    });
    let state = Mutex::new(State {
        waiting: closure.order.iter().cloned().collect(),
        running: 0,
        done: BTreeMap::new(),
        failed: None,
    });
    let changed = Condvar::new();
    let work = || {
        loop {
            let Some((id, outputs)) = next(&closure, &state, &changed, options.changed.order) else {
                return;
            };
            let run = || build_node(project, store, inputs, &id, &outputs, options, events);
            // A panic must reach the caller, and until then the other workers must not wait for this stage.
            let result = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(result) => result,
                Err(panic) => {
                    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    state.waiting.clear();
                    state.running -= 1;
                    drop(state);
                    changed.notify_all();
                    std::panic::resume_unwind(panic)
                }
            };
            let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            state.running -= 1;
            let mut spent = BTreeSet::new();
            match result {
                Ok(done) => {
                    state.done.insert(id.clone(), done);
                    if options.changed.copies {
                        let done = |node: &NodeId| state.done.get(node).map(|done| &done.record.outputs);
                        spent = spent_trees(&closure, done, &id);
                    }
                }
                Err(error) => {
                    state.failed.get_or_insert(error);
                }
            }
            drop(state);
            changed.notify_all();
            spent.iter().for_each(|tree| store.remove_copied_checkout(tree));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, closure.order.len().max(1)))
            .map(|_| scope.spawn(work))
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let state = state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let outcome = BuildOutcome {
        nodes: state.done,
        order: closure.order,
    };
    Ok((outcome, state.failed))
}

/// The first of the nodes that could start, or one that the seed `order` decides on.
fn choose<'a>(mut ready: impl Iterator<Item = &'a NodeId>, order: Option<u64>) -> Option<&'a NodeId> {
    match order {
        None => ready.next(),
        Some(seed) => ready.max_by_key(|id| *blake3::hash(format!("{seed} {id}").as_bytes()).as_bytes()),
    }
}

/// Waits for a node whose needs are done; `None` when there is nothing left to start.
fn next(
    closure: &Closure,
    state: &Mutex<State>,
    changed: &Condvar,
    order: Option<u64>,
) -> Option<(NodeId, OutputsByNode)> {
    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    loop {
        if state.failed.is_some() || state.waiting.is_empty() {
            return None;
        }
        let ready = closure
            .order
            .iter()
            .filter(|id| state.waiting.contains(id) && closure.needs[*id].iter().all(|n| state.done.contains_key(n)));
        if let Some(id) = choose(ready, order) {
            state.waiting.remove(id);
            state.running += 1;
            let outputs = closure.needs[id]
                .iter()
                .map(|n| (n.clone(), state.done[n].record.outputs.clone()))
                .collect();
            return Some((id.clone(), outputs));
        }
        if state.running == 0 {
            return None;
        }
        state = changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
}

/// The trees that `id` was the last to need, now that it is done.
fn spent_trees<'a>(
    closure: &Closure,
    done: impl Fn(&NodeId) -> Option<&'a BTreeMap<String, Output>>,
    id: &NodeId,
) -> BTreeSet<VerityDigest> {
    let trees = |needs: &[NodeId]| -> BTreeSet<VerityDigest> {
        let outputs = needs.iter().filter_map(&done).flat_map(BTreeMap::values);
        let trees = outputs.filter(|output| matches!(output, Output::Tree { .. }));
        trees.map(|output| *output.digest()).collect()
    };
    let mut spent = trees(&closure.needs[id]);
    for (_, needs) in closure.needs.iter().filter(|(other, _)| done(other).is_none()) {
        let needed = trees(needs);
        spent.retain(|tree| !needed.contains(tree));
    }
    spent
}

fn build_node(
    project: &Project,
    store: &Store,
    inputs: &Origins,
    id: &NodeId,
    outputs: &OutputsByNode,
    options: &RunOptions,
    events: Events<'_>,
) -> Result<Done, PipelineError> {
    let prepared = resolve_stage(project, store, id, outputs)?;
    let cached = |record| {
        events(Event::Cached {
            node: id.clone(),
            key: prepared.key.to_string(),
        });
        Done {
            prepared: prepared.clone(),
            record,
            cached: true,
        }
    };
    if let Some(record) = usable(store, &prepared, options)? {
        return Ok(cached(record));
    }
    let _lock = store.lock_stage(&prepared.key)?;
    // Another builder may have finished it while we waited.
    if let Some(record) = usable(store, &prepared, options)? {
        return Ok(cached(record));
    }
    events(Event::Started {
        node: id.clone(),
        reasons: reasons(store, &prepared)?,
    });
    let record = match run_stage(project, store, inputs, &prepared, options, events) {
        Ok(record) => record,
        Err(error) => {
            events(Event::Failed { node: id.clone() });
            return Err(error);
        }
    };
    store.put_record(&prepared.key, &record)?;
    events(Event::Finished {
        node: id.clone(),
        key: prepared.key.to_string(),
        wall_ms: record.wall_ms,
        cpu_ms: record.cpu_ms,
        peak_memory: record.peak_memory,
    });
    Ok(Done {
        prepared,
        record,
        cached: false,
    })
}

/// The record of a prepared node. A hermetic build does not take what a weaker sandbox made.
fn usable(store: &Store, prepared: &ResolvedStage, options: &RunOptions) -> Result<Option<Record>, PipelineError> {
    let record = store.record(&prepared.key)?;
    Ok(record.filter(|r| r.weaker.is_empty() || !options.hermetic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arch;

    fn node(stage: char) -> NodeId {
        NodeId {
            stage: stage.to_string(),
            arch: Arch::Amd64,
        }
    }

    #[test]
    fn a_tree_is_spent_when_the_last_stage_that_needs_it_is_done() {
        let closure = Closure {
            order: "abcd".chars().map(node).collect(),
            needs: [('a', ""), ('b', ""), ('c', "ab"), ('d', "b")]
                .map(|(stage, needs)| (node(stage), needs.chars().map(node).collect()))
                .into(),
        };
        let digest = |n: u8| crate::verity::digest_bytes(&[n]);
        let made = |first: u8, second: u8| {
            let tree = |n| Output::Tree { digest: digest(n) };
            let file = Output::File {
                digest: digest(9),
                size: 1,
            };
            BTreeMap::from([
                ("file".to_owned(), file),
                ("x".to_owned(), tree(first)),
                ("y".to_owned(), tree(second)),
            ])
        };
        let mut done = BTreeMap::from([
            (node('a'), made(1, 2)),
            (node('b'), made(2, 3)),
            (node('c'), made(4, 5)),
        ]);
        let spent = |done: &BTreeMap<_, _>, stage| spent_trees(&closure, |id| done.get(id), &node(stage));
        assert_eq!(
            spent(&done, 'c'),
            [digest(1)].into(),
            "d needs the other two, one of them from elsewhere"
        );
        done.insert(node('d'), BTreeMap::new());
        assert_eq!(spent(&done, 'd'), [digest(2), digest(3)].into());
        assert!(spent(&done, 'a').is_empty());
    }

    #[test]
    fn a_seed_makes_an_order_of_its_own_and_the_same_each_time() {
        let order = |seed: Option<u64>| {
            let mut left: Vec<NodeId> = ('a'..='h').map(node).collect();
            let mut out = String::new();
            while let Some(chosen) = choose(left.iter(), seed).cloned() {
                out.push_str(&chosen.stage);
                left.retain(|id| *id != chosen);
            }
            out
        };
        assert_eq!(order(None), "abcdefgh");
        let seeded = order(Some(crate::repro::SEED));
        assert_ne!(seeded, order(None));
        assert_eq!(seeded, order(Some(crate::repro::SEED)));
        assert_ne!(seeded, order(Some(1)));
        let mut all: Vec<char> = seeded.chars().collect();
        all.sort_unstable();
        assert_eq!(all.into_iter().collect::<String>(), "abcdefgh", "each once");
    }
}
