//! The scheduler: it chooses the stages that run, their order, and their number at once.

use super::{
    BuildContext, Event, PipelineError, Project,
    chain::{ChainFacts, followers},
    elsewhere::pending_outputs,
    node::NodeBuilder,
    package_facts::prepare_statements,
    place::{RanAt, WorkerTimes},
    resolve::{OutputsByNode, ResolvedStage, resolve_stage},
    shared::offer,
    workers::{Elsewhere, Slots, could_travel},
};
use crate::{
    graph::{Closure, StageIds, closure_of},
    model::{NodeId, VerityDigest, lock},
    store::{Output, Record},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex, mpsc},
    thread,
    time::Duration,
};

/// A finished node.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its inputs and key.
    pub resolved: ResolvedStage,
    /// Its outputs and the facts about its run.
    pub record: Record,
    /// Whether the record was there already, in the store or in a cache.
    pub cached: bool,
    /// The server whose cache gave the record, now or earlier; `None` for a stage that ran on this machine.
    pub source: Option<String>,
    /// Where the time went, for a stage that a worker ran in this build.
    pub times: Option<WorkerTimes>,
}

impl Done {
    /// Where the stage ran, or its result came from.
    pub fn place(&self) -> RanAt {
        match (&self.source, self.times) {
            (None, _) => RanAt::Here,
            (Some(name), Some(times)) if !self.cached => RanAt::Worker {
                name: name.clone(),
                times,
            },
            (Some(server), _) => RanAt::Cache { server: server.clone() },
        }
    }
}

/// The result of a build.
#[derive(Clone, Debug)]
pub struct BuildOutcome {
    /// The finished nodes.
    pub nodes: BTreeMap<NodeId, Done>,
    /// All nodes, each after its dependencies.
    pub order: Vec<NodeId>,
}

impl BuildOutcome {
    /// The finished node `id`.
    pub(super) fn done(&self, id: &NodeId) -> Result<&Done, PipelineError> {
        let done = self.nodes.get(id);
        done.ok_or_else(|| PipelineError::describe(format!("{id} was not built")))
    }
}

struct State {
    waiting: BTreeSet<NodeId>,
    running: usize,
    done: BTreeMap<NodeId, Done>,
    failed: Option<PipelineError>,
}

impl BuildContext<'_> {
    /// Builds the closure of `wanted`, with `jobs` stages at once. After a failure the running stages are finished, and no further
    /// stage starts.
    pub fn build(&self, wanted: &[NodeId], jobs: usize) -> Result<BuildOutcome, PipelineError> {
        match build_until_failure(self, wanted, jobs)? {
            (_, Some(error)) => Err(error),
            (outcome, None) => Ok(outcome),
        }
    }
}

/// Builds as [`BuildContext::build`]; after a failure it returns the finished nodes too.
///
/// When an output does not come from the cache that was to give it, the build begins anew: the store has the results of the stages that
/// ran until then, and the cache is not asked for that one again.
pub(super) fn build_until_failure(
    context: &BuildContext<'_>,
    wanted: &[NodeId],
    jobs: usize,
) -> Result<(BuildOutcome, Option<PipelineError>), PipelineError> {
    let mut ran = BTreeSet::new();
    // Each attempt gives up another result, or the server; this bounds what a server that changes its mind can do.
    let mut attempts = closure_of(&context.project.graph, wanted)?.order.len() + 2;
    loop {
        attempts -= 1;
        let (mut outcome, mut failed) = attempt(context, wanted, jobs)?;
        if failed.is_none() {
            failed = prepare_statements(context, &outcome).err();
        }
        ran.extend(
            outcome
                .nodes
                .values()
                .filter(|done| !done.cached)
                .map(|done| done.resolved.key),
        );
        if attempts > 0 && matches!(failed, Some(PipelineError::Lost { .. })) {
            continue;
        }
        // What ran before an output was lost ran in this build.
        for done in outcome.nodes.values_mut() {
            done.cached &= !ran.contains(&done.resolved.key);
        }
        return Ok((outcome, failed));
    }
}

/// One run through the closure.
fn attempt(
    context: &BuildContext<'_>,
    wanted: &[NodeId],
    jobs: usize,
) -> Result<(BuildOutcome, Option<PipelineError>), PipelineError> {
    let BuildContext {
        project,
        store,
        options,
        events,
        ..
    } = *context;
    let closure = closure_of(&project.graph, wanted)?;
    events(Event::Begin {
        stages: closure.order.len(),
    });
    // A node that has never run will have to. What it needs of this machine is asked before the first stage, and before any download.
    let mut range = false;
    for id in closure.order.iter().filter(|id| needs_range(project, id)) {
        range |= store.latest_record(&id.stage, id.arch)?.is_none();
    }
    let state = Mutex::new(State {
        waiting: closure.order.iter().cloned().collect(),
        running: 0,
        done: BTreeMap::new(),
        failed: None,
    });
    let changed = Condvar::new();
    let (sender, offered) = mpsc::channel::<Done>();
    let offers = Mutex::new(context.shared.map(|_| sender));
    // A stage on a worker takes no processor here, and one that runs here takes its place among `jobs` all the same.
    let slots = Slots::new(jobs);
    // Each worker takes the next ready node until none is left. The lock is held only to choose a node and to record its result,
    // never while a stage runs.
    let work = || {
        loop {
            let Some((id, outputs)) = next(&closure, &state, &changed, options.changed.order) else {
                return;
            };
            // Stages that run in the same action as this one.
            let join = |elsewhere: &Elsewhere| claim_followers(context, elsewhere, &closure, &state, &id);
            let run = || {
                NodeBuilder {
                    context,
                    wanted,
                    slots: &slots,
                    range,
                }
                .build(&id, &outputs, &join)
            };
            // A panic must reach the caller. Until then the other workers must not wait for this stage, which will never finish.
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
            for done in result.done {
                // Where nothing is taken from the cache, what the store has is compared with it, too.
                let compared = !done.cached || context.shared.is_some_and(|shared| !shared.accepts());
                if let Some(offers) = &*lock(&offers)
                    && compared
                    && done.source.is_none()
                {
                    // The receiver lives until the workers have ended.
                    let _ = offers.send(done.clone());
                }
                let id = done.resolved.id.clone();
                state.done.insert(id.clone(), done);
                // A copied checkout takes as much space as its tree, so it is removed after the last node that reads it.
                if store.is_ephemeral() && !options.changed.links {
                    let done = |node: &NodeId| state.done.get(node).map(|done| &done.record.outputs);
                    spent.extend(spent_trees(&closure, done, &id));
                }
            }
            if let Some(error) = result.failed {
                note_failure(&mut state.failed, error);
            }
            drop(state);
            changed.notify_all();
            // After the lock: removing a large tree takes time, and no later node reads it.
            spent.iter().for_each(|tree| store.remove_copied_checkout(tree));
        }
    };
    let sent = thread::scope(|scope| {
        let last = LastOffer(&offers);
        // Results go to the cache beside the stages that run next.
        let sending = scope.spawn(move || offered.into_iter().try_for_each(|done| offer(context, &done)));
        let jobs = jobs + context.elsewhere.map_or(0, |elsewhere| elsewhere.jobs);
        let workers: Vec<_> = (0..jobs.clamp(1, closure.order.len().max(1)))
            .map(|_| scope.spawn(work))
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
        drop(last);
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let mut state = state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Err(error) = sent {
        note_failure(&mut state.failed, error);
    }
    let outcome = BuildOutcome {
        nodes: state.done,
        order: closure.order,
    };
    Ok((outcome, state.failed))
}

/// Notes the failure of a build, which reports one error: the first, unless that one only says that the build begins anew.
fn note_failure(failed: &mut Option<PipelineError>, error: PipelineError) {
    match failed {
        None | Some(PipelineError::Lost { .. }) => *failed = Some(error),
        Some(_) => {}
    }
}

/// Ends the list of offers when it is dropped, also on the way out of a panic: without a sender the list has an end.
struct LastOffer<'a>(&'a Mutex<Option<mpsc::Sender<Done>>>);

impl Drop for LastOffer<'_> {
    fn drop(&mut self) {
        lock(self.0).take();
    }
}

/// Chooses the next node: the first of those that are ready, or the one that the seed `order` selects.
fn choose<'a>(mut ready: impl Iterator<Item = &'a NodeId>, order: Option<u64>) -> Option<&'a NodeId> {
    match order {
        None => ready.next(),
        Some(seed) => ready.max_by_key(|id| *blake3::hash(format!("{seed} {id}").as_bytes()).as_bytes()),
    }
}

/// Waits for a node with finished dependencies; `None` when no further node is to start.
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
        // Nothing is ready and nothing runs that could make a node ready. Waiting would never end.
        if state.running == 0 {
            return None;
        }
        state = changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
}

/// The trees that only `id`, which is finished now, still needed.
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

/// Whether a stage has a range of ids, which not every machine can give.
pub(super) fn needs_range(project: &Project, id: &NodeId) -> bool {
    project.graph.file(id).sandbox.ids == StageIds::Range
}

/// Takes the stages that run in the same action as `first` out of those that wait; with them, the outputs of all that the chain needs.
fn claim_followers(
    context: &BuildContext<'_>,
    elsewhere: &Elsewhere,
    closure: &Closure,
    state: &Mutex<State>,
    first: &NodeId,
) -> (Vec<NodeId>, OutputsByNode) {
    let mut state = lock(state);
    if state.failed.is_some() {
        return (Vec::new(), OutputsByNode::new());
    }
    let unfinished = closure.order.iter().filter(|id| !state.done.contains_key(id));
    let unfinished = unfinished.cloned().collect();
    let facts = Facts {
        context,
        elsewhere,
        first,
        needs: &closure.needs,
        done: &state.done,
    };
    let chosen = followers(closure, &state.waiting, &unfinished, first, &facts);
    for id in &chosen {
        state.waiting.remove(id);
    }
    let needs = chosen.iter().flat_map(|id| &closure.needs[id]);
    let outputs = needs.filter_map(|id| Some((id.clone(), state.done.get(id)?.record.outputs.clone())));
    (chosen.clone(), outputs.collect())
}

/// What a build knows about the stages that could join a chain.
struct Facts<'a> {
    context: &'a BuildContext<'a>,
    elsewhere: &'a Elsewhere,
    first: &'a NodeId,
    needs: &'a BTreeMap<NodeId, Vec<NodeId>>,
    done: &'a BTreeMap<NodeId, Done>,
}

impl Facts<'_> {
    /// Whether a stage resolves, and has no result yet if the stages before it make what they made last.
    fn is_to_run(&self, id: &NodeId) -> Result<bool, PipelineError> {
        let BuildContext { project, store, .. } = *self.context;
        let (mut pending, mut last, mut known) = (OutputsByNode::new(), OutputsByNode::new(), true);
        for need in &self.needs[id] {
            if let Some(done) = self.done.get(need) {
                pending.insert(need.clone(), done.record.outputs.clone());
                last.insert(need.clone(), done.record.outputs.clone());
                continue;
            }
            pending.insert(need.clone(), pending_outputs(project, need));
            match store.last_known_record(&need.stage, need.arch)? {
                Some((_, record)) => drop(last.insert(need.clone(), record.outputs)),
                None => known = false,
            }
        }
        resolve_stage(project, store, id, &pending)?;
        let has_result = known && {
            let resolved = resolve_stage(project, store, id, &last)?;
            store.known_outputs(&resolved.key)?.is_some()
        };
        Ok(!has_result || self.elsewhere.challenges())
    }
}

impl ChainFacts for Facts<'_> {
    fn travels(&self, id: &NodeId) -> bool {
        let graph = &self.context.project.graph;
        could_travel(self.context.project, id)
            && graph.machine(id.arch) == graph.machine(self.first.arch)
            // One that does not resolve fails by itself, when its turn comes.
            && self.is_to_run(id).unwrap_or(false)
    }

    fn last_run(&self, id: &NodeId) -> Option<Duration> {
        // A record that cannot be read tells nothing.
        let (_, last) = self.context.store.last_known_record(&id.stage, id.arch).ok()??;
        Some(Duration::from_millis(last.cpu_ms))
    }

    fn per_action(&self) -> Duration {
        self.elsewhere.costs.per_action()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arch;

    fn node(stage: char) -> NodeId {
        NodeId::new(stage, Arch::Amd64)
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
