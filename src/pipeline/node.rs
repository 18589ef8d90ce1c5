//! One node of a build: its result is known here or on a server, or its stage runs, here or on a worker.

use super::{
    BuildContext, Done, Event, PipelineError, SharedResults,
    cost::{StagePlace, worker_pays},
    elsewhere::{ChainEnd, StageChain, run_elsewhere},
    plan::reasons,
    resolve::{OutputsByNode, ResolvedStage, resolve_stage},
    run::run_stage,
    scheduler::needs_range,
    shared::{ask, ensure},
    workers::{Elsewhere, Slots, can_travel},
};
use crate::{graph::Reason, model::NodeId, store::Record};

/// The nodes that one step of a build has finished, and its failure.
#[derive(Default)]
pub(super) struct NodeStep {
    pub(super) done: Vec<Done>,
    pub(super) failed: Option<PipelineError>,
}

impl From<Result<Done, PipelineError>> for NodeStep {
    fn from(result: Result<Done, PipelineError>) -> Self {
        match result {
            Ok(done) => Self {
                done: vec![done],
                failed: None,
            },
            Err(error) => Self {
                done: Vec::new(),
                failed: Some(error),
            },
        }
    }
}

/// How the nodes of a build are made.
pub(super) struct NodeBuilder<'a> {
    pub(super) context: &'a BuildContext<'a>,
    /// The nodes that were asked for. Their outputs are in the store afterwards; those of others may still be in the cache.
    pub(super) wanted: &'a [NodeId],
    pub(super) slots: &'a Slots,
    /// Whether a stage of the build needs a range of ids.
    pub(super) range: bool,
}

/// The stages that run in the same action as a node, and the outputs that they need.
pub(super) type Join<'a> = &'a dyn Fn(&Elsewhere) -> (Vec<NodeId>, OutputsByNode);

impl NodeBuilder<'_> {
    /// Takes the record of a node from the store or the cache, or runs its stage, with those that `join` adds to its action.
    pub(super) fn build(&self, id: &NodeId, outputs: &OutputsByNode, join: Join<'_>) -> NodeStep {
        match self.known_or_resolved(id, outputs) {
            Ok(Resolved::Known(done)) => Ok(*done).into(),
            Ok(Resolved::Runs(resolved)) => self.run(*resolved, outputs, join),
            Err(error) => Err(error).into(),
        }
    }

    fn known_or_resolved(&self, id: &NodeId, outputs: &OutputsByNode) -> Result<Resolved, PipelineError> {
        let context = self.context;
        let resolved = resolve_stage(context.project, context.store, id, outputs)?;
        Ok(match known(context, &resolved, self.wanted.contains(id))? {
            Some(done) => Resolved::Known(Box::new(done)),
            None => Resolved::Runs(Box::new(resolved)),
        })
    }

    /// The engine, if the stage is to run on a worker of it.
    fn engine(&self, resolved: &ResolvedStage) -> Result<Option<(&Elsewhere, &SharedResults)>, PipelineError> {
        let context = self.context;
        let id = &resolved.id;
        let graph = &context.project.graph;
        let engine = context.elsewhere.zip(context.shared);
        let here = graph.machine(id.arch) == graph.host();
        match engine.filter(|_| can_travel(resolved)) {
            None if !here && engine.is_none() => Err(PipelineError::OtherMachine { node: id.clone() }),
            None if !here || engine.is_some_and(|(elsewhere, _)| elsewhere.challenges()) => {
                Err(PipelineError::NotOnWorkers { node: id.clone() })
            }
            None => Ok(None),
            Some((elsewhere, shared)) => {
                let chosen = !here
                    || elsewhere.challenges()
                    || elsewhere.place == StagePlace::Workers
                    || worker_pays(context, shared, &elsewhere.costs, resolved, self.wanted.contains(id))?;
                Ok(chosen.then_some((elsewhere, shared)))
            }
        }
    }

    fn run(&self, resolved: ResolvedStage, outputs: &OutputsByNode, join: Join<'_>) -> NodeStep {
        let context = self.context;
        let id = &resolved.id;
        let engine = match self.engine(&resolved) {
            Ok(engine) => engine,
            Err(error) => return Err(error).into(),
        };
        if engine.is_none() {
            let range = self.range || needs_range(context.project, id);
            if let Err(error) = context.options.checked.ensure(&context.options.helper, range) {
                return Err(error).into();
            }
        }
        // Builders that share the store run a stage once: the others wait here, and find the record afterwards.
        let mut waits = || (context.events)(Event::Queued { node: id.clone() });
        let locked = context.store.lock_stage(&resolved.key, &mut waits);
        let _lock = match locked {
            Ok(lock) => lock,
            Err(error) => return Err(error.into()).into(),
        };
        match usable(context, &resolved) {
            Ok(Some(record)) => return cached(context, &resolved, record, None).into(),
            Ok(None) => {}
            Err(error) => return Err(error).into(),
        }
        match engine {
            Some((elsewhere, shared)) => self.run_there(elsewhere, shared, &resolved, outputs, join),
            None => self.run_here(resolved).into(),
        }
    }

    fn started(&self, id: &NodeId, elsewhere: Option<&Elsewhere>, reasons: Vec<Reason>) {
        (self.context.events)(Event::Started {
            node: id.clone(),
            server: elsewhere.map(Elsewhere::name),
            reasons,
        });
    }

    fn run_here(&self, resolved: ResolvedStage) -> Result<Done, PipelineError> {
        let context = self.context;
        let id = &resolved.id;
        self.started(id, None, reasons(context.project, context.store, &resolved)?);
        let ran = {
            let _slot = self.slots.take();
            run_stage(context, &resolved)
        };
        let record = ran.inspect_err(|_| (context.events)(Event::Failed { node: id.clone() }))?;
        // The record comes last: it makes the outputs visible to other builders, so they have to be in the store.
        context.store.put_record(&resolved.key, &record, None)?;
        let done = Done {
            resolved,
            record,
            cached: false,
            source: None,
            times: None,
        };
        self.finished(&done);
        Ok(done)
    }

    fn run_there(
        &self,
        elsewhere: &Elsewhere,
        shared: &SharedResults,
        first: &ResolvedStage,
        outputs: &OutputsByNode,
        join: Join<'_>,
    ) -> NodeStep {
        let context = self.context;
        let reasons = match reasons(context.project, context.store, first) {
            Ok(reasons) => reasons,
            Err(error) => return Err(error).into(),
        };
        self.started(&first.id, Some(elsewhere), reasons);
        let (followers, needed) = join(elsewhere);
        for id in &followers {
            let stages = vec![first.id.to_string()];
            self.started(id, Some(elsewhere), vec![Reason::Waits { stages }]);
        }
        let chain = StageChain {
            first,
            followers: &followers,
            outputs: outputs
                .iter()
                .chain(&needed)
                .map(|(id, made)| (id.clone(), made.clone()))
                .collect(),
        };
        let ChainEnd { ran, failed } = run_elsewhere(context, shared, elsewhere, chain);
        let mut step = NodeStep::default();
        for ran in ran {
            let id = &ran.resolved.id;
            if self.wanted.contains(id)
                && let Err(error) = ensure_all(context, &ran.record)
            {
                step.failed = Some(error);
                return step;
            }
            let done = Done {
                resolved: ran.resolved,
                record: ran.record,
                cached: ran.cached,
                source: Some(ran.source),
                times: Some(ran.times),
            };
            self.finished(&done);
            step.done.push(done);
        }
        step.failed = failed.map(|(node, error)| {
            // What was lost is made anew.
            if !matches!(error, PipelineError::Lost { .. }) {
                (context.events)(Event::Failed { node });
            }
            error
        });
        step
    }

    fn finished(&self, done: &Done) {
        (self.context.events)(Event::Finished {
            node: done.resolved.id.clone(),
            key: done.resolved.key.to_string(),
            wall_ms: done.record.wall_ms,
            cpu_ms: done.record.cpu_ms,
            peak_memory: done.record.peak_memory,
            at: done.place(),
        });
    }
}

/// A node whose result is known, or one whose stage runs.
enum Resolved {
    Known(Box<Done>),
    Runs(Box<ResolvedStage>),
}

fn ensure_all(context: &BuildContext<'_>, record: &Record) -> Result<(), PipelineError> {
    let mut outputs = record.outputs.values();
    outputs.try_for_each(|output| ensure(context, output))
}

/// A node whose result the store or the cache has.
fn known(context: &BuildContext<'_>, resolved: &ResolvedStage, wanted: bool) -> Result<Option<Done>, PipelineError> {
    if let Some(record) = usable(context, resolved)? {
        return cached(context, resolved, record, None).map(Some);
    }
    let (Some(shared), Some(record)) = (context.shared, ask(context, resolved)?) else {
        return Ok(None);
    };
    if wanted {
        ensure_all(context, &record)?;
    }
    cached(context, resolved, record, Some(shared.name().to_owned())).map(Some)
}

/// The finished node of a record that was there: on `server`, or in the store.
fn cached(
    context: &BuildContext<'_>,
    resolved: &ResolvedStage,
    record: Record,
    server: Option<String>,
) -> Result<Done, PipelineError> {
    let source = match &server {
        Some(server) => Some(server.clone()),
        None => {
            context.store.set_latest_record(&resolved.key, &record)?;
            context.store.record_source(&resolved.key)?
        }
    };
    (context.events)(Event::Cached {
        node: resolved.id.clone(),
        key: resolved.key.to_string(),
        server,
    });
    Ok(Done {
        resolved: resolved.clone(),
        record,
        cached: true,
        source,
        times: None,
    })
}

/// The usable record of a resolved node. A hermetic build does not accept a record from a weaker sandbox, and one that takes nothing from a
/// cache accepts none that came from one.
fn usable(context: &BuildContext<'_>, resolved: &ResolvedStage) -> Result<Option<Record>, PipelineError> {
    let BuildContext { store, options, .. } = *context;
    let record = store.record(&resolved.key)?;
    let Some(record) = record.filter(|record| record.weaker.is_empty() || !options.hermetic) else {
        return Ok(None);
    };
    if context.elsewhere.is_some_and(Elsewhere::challenges) && can_travel(resolved) {
        return Ok(None);
    }
    let here_only = context.shared.is_some_and(|shared| !shared.accepts());
    if here_only && store.record_source(&resolved.key)?.is_some() {
        return Ok(None);
    }
    Ok(Some(record))
}
