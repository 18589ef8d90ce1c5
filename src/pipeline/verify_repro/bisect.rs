//! The bisection: reruns of a single stage that find the axes it depends on, with no axis varied, with halves of the axes, and with
//! single axes.

use super::{compare::Reference, run::ReproRequest};
use crate::{
    inspect::{Comparison, SpoolDirectory},
    model::NodeId,
    pipeline::{
        BuildContext, Changed, PipelineError,
        resolve::{ResolvedStage, resolve_stage},
        run::run_stage,
    },
    repro::{Axis, Cause, Divergent, Finding, compare, standing_still},
    store::{Output, Store},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

/// Number of differences of one output that a verdict shows.
const DIFFERENCES: usize = 100;

/// The outputs of a rerun; `None` when the stage failed.
type RunResult = Option<BTreeMap<String, Output>>;

/// The search for the cause of one stage's differences.
pub(super) struct Bisection<'a> {
    pub(super) request: &'a ReproRequest<'a>,
    pub(super) reference: &'a Reference,
    pub(super) second: &'a super::build::BuildInStore,
    /// The stage.
    pub(super) node: NodeId,
    /// The axes that the second build varied.
    pub(super) axes: &'a BTreeSet<Axis>,
    /// The directory with the files for variations.
    pub(super) files: &'a Path,
    /// Results of the reruns so far, by the axes that were varied.
    pub(super) runs: BTreeMap<Vec<Axis>, RunResult>,
}

impl Bisection<'_> {
    /// The store of the reruns: the one with the objects of the first build, if there was one.
    fn store(&self) -> &Arc<Store> {
        self.reference.objects().unwrap_or(&self.second.store)
    }

    /// Explains every differing output of the stage.
    pub(super) fn explain_outputs(mut self) -> Result<Vec<Finding>, PipelineError> {
        let (reference, second) = (self.reference, self.second);
        let stage = &second.outcome.done(&self.node)?.resolved;
        let (expected, found) = match (
            reference.made().nodes.get(&self.node),
            second.made.nodes.get(&self.node),
        ) {
            (Some((_, expected)), Some((_, found))) => (expected, found),
            _ => return Ok(Vec::new()),
        };
        let mut findings = Vec::new();
        for (name, expected) in expected {
            let Some(found) = found.get(name).filter(|found| *found != expected) else {
                continue;
            };
            let (cause, other) = if self.request.explain {
                (self.request.say)(&format!("{}: searching for the cause of {name}", self.node));
                let differs = |outputs: &RunResult| outputs.as_ref().and_then(|o| o.get(name)) != Some(expected);
                let alike = |a: &RunResult, b: &RunResult| match (a, b) {
                    (Some(a), Some(b)) => a.get(name) == b.get(name),
                    _ => false,
                };
                let (cause, set) = self.cause(stage, &differs, &alike)?;
                let other = set.and_then(|set| self.runs.get(&set).cloned().flatten());
                (cause, other.and_then(|outputs| outputs.get(name).cloned()))
            } else {
                (Cause::NotSought, None)
            };
            let compared = self.compare(name, expected, other.as_ref(), found)?;
            findings.push(Finding {
                node: self.node.clone(),
                found: Divergent::Output(name.clone()),
                cause,
                differences: compared.differences,
                total: compared.total,
            });
        }
        Ok(findings)
    }

    /// Explains a stage that fails in the second build with `error`, although its dependencies gave the same outputs.
    ///
    /// With a manifest as the reference, a stage that also fails without variation is an ordinary failure: the variation is not the
    /// cause.
    pub(super) fn explain_failure(mut self, error: PipelineError) -> Result<Finding, PipelineError> {
        let mut cause = Cause::NotSought;
        if self.request.explain {
            (self.request.say)(&format!(
                "{} fails in the second build: searching for the cause",
                self.node
            ));
            let before = self.reference.built().unwrap_or(self.second);
            let done = before.outcome.nodes.iter();
            let outputs = done
                .map(|(id, done)| (id.clone(), done.record.outputs.clone()))
                .collect();
            let stage = resolve_stage(self.request.project, &before.store, &self.node, &outputs)?;
            cause = self.cause(&stage, &|outputs| outputs.is_none(), &|_, _| false)?.0;
            if self.reference.built().is_none() && matches!(cause, Cause::ByItself { .. }) {
                return Err(error);
            }
        }
        Ok(Finding {
            node: self.node.clone(),
            found: Divergent::Failed(error.to_string()),
            cause,
            differences: Vec::new(),
            total: 0,
        })
    }

    /// Compares an output of the first build with that of a rerun, or without a rerun with that of the second build.
    fn compare(
        &self,
        name: &str,
        expected: &Output,
        rerun: Option<&Output>,
        second: &Output,
    ) -> Result<Comparison, PipelineError> {
        let store = self.store();
        let kept = store.find_object(expected.digest())?.map(|_| expected);
        let (expected, rerun) = match (kept, self.reference) {
            (Some(expected), _) => (expected, rerun),
            // The first output was hashed but not kept, and no rerun gave it again: compare with the unvaried rerun instead.
            (None, Reference::Built(_)) => match self.runs.get(&Vec::new()).and_then(|run| run.as_ref()?.get(name)) {
                Some(alike) => (alike, None),
                None => return Ok(Comparison::default()),
            },
            // A manifest has only the digest: there are no bytes to compare with.
            (None, Reference::Claimed(_)) => return Ok(Comparison::default()),
        };
        let dir = self.request.store.scratch_path("compare");
        fs::create_dir(&dir).map_err(PipelineError::io("create", &dir))?;
        let other: (&Store, &Output) = match rerun {
            Some(output) => (store, output),
            None => (&self.second.store, second),
        };
        let compared = compare(name, (store, expected), other, &SpoolDirectory::new(dir), DIFFERENCES);
        compared.map_err(|e| PipelineError::describe(format!("the differences of {name}: {e}")))
    }

    /// The cause of a difference that `differs` recognises, and a set of axes that gives the difference.
    fn cause(
        &mut self,
        stage: &ResolvedStage,
        differs: &dyn Fn(&RunResult) -> bool,
        alike: &dyn Fn(&RunResult, &RunResult) -> bool,
    ) -> Result<(Cause, Option<Vec<Axis>>), PipelineError> {
        let all: Vec<Axis> = self.axes.iter().copied().collect();
        // Different with no axis varied: the stage differs by itself. If two runs are alike once one source of change stands still,
        // such as the clock, that source is the cause.
        if differs(self.run(stage, &[])?) {
            for axis in Axis::ALL {
                if let Some(still) = standing_still(*axis, self.files) {
                    let changed = || Changed {
                        variation: still.clone(),
                        ..Changed::default()
                    };
                    if alike(&self.rerun(stage, changed())?, &self.rerun(stage, changed())?) {
                        let cause = Cause::ByItself { still: Some(*axis) };
                        return Ok((cause, Some(Vec::new())));
                    }
                }
            }
            return Ok((Cause::ByItself { still: None }, Some(Vec::new())));
        }
        // Equal with all axes varied: the reruns do not show the cause of the difference.
        if !differs(self.run(stage, &all)?) {
            return Ok((Cause::NotRepeated, None));
        }
        // Bisect: each half that still differs is halved again, so several independent causes are all found. If a set differs but
        // neither half does, axes of both halves are needed together.
        let mut alone = Vec::new();
        let mut together = Vec::new();
        let mut waiting = vec![all];
        while let Some(set) = waiting.pop() {
            if set.len() == 1 {
                alone.extend(set);
                continue;
            }
            let (a, b) = set.split_at(set.len() / 2);
            let halves = [
                (a.to_vec(), differs(self.run(stage, a)?)),
                (b.to_vec(), differs(self.run(stage, b)?)),
            ];
            if halves.iter().all(|(_, differs)| !differs) {
                together = self.fewest(stage, set, differs)?;
            }
            waiting.extend(halves.into_iter().filter(|(_, differs)| *differs).map(|(half, _)| half));
        }
        alone.sort();
        if alone.is_empty() {
            let set = together.clone();
            return Ok((Cause::Together { axes: together }, Some(set)));
        }
        let one = vec![alone[0]];
        Ok((Cause::Axes { axes: alone }, Some(one)))
    }

    /// Removes every axis from `set` without which the difference remains.
    fn fewest(
        &mut self,
        stage: &ResolvedStage,
        mut set: Vec<Axis>,
        differs: &dyn Fn(&RunResult) -> bool,
    ) -> Result<Vec<Axis>, PipelineError> {
        for axis in set.clone() {
            let rest: Vec<Axis> = set.iter().copied().filter(|a| *a != axis).collect();
            if differs(self.run(stage, &rest)?) {
                set = rest;
            }
        }
        Ok(set)
    }

    /// The result of the stage with these axes varied; each set runs once.
    fn run(&mut self, stage: &ResolvedStage, axes: &[Axis]) -> Result<&RunResult, PipelineError> {
        if !self.runs.contains_key(axes) {
            let set: BTreeSet<Axis> = axes.iter().copied().collect();
            let outputs = self.rerun(stage, self.request.changed(&set, self.files))?;
            self.runs.insert(axes.to_vec(), outputs);
        }
        Ok(&self.runs[axes])
    }

    fn rerun(&self, stage: &ResolvedStage, changed: Changed) -> Result<RunResult, PipelineError> {
        let mut options = self.request.options.clone();
        options.changed = changed;
        let context = BuildContext {
            store: self.store(),
            options: &options,
            ..self.request.context()
        };
        match run_stage(&context, stage) {
            Ok(record) => Ok(Some(record.outputs)),
            Err(PipelineError::Stage { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
