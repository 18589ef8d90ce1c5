//! Where a single stage is run again, with nothing varied, with halves of the axes, with single ones, to find out why it differs.

use super::{
    Changed, PipelineError, ResolvedStage,
    repeat::{Twice, node_of},
    run::run_stage,
};
use crate::{
    inspect::{Comparison, SpoolDirectory},
    repro::{Axis, Cause, Divergent, Finding, compare, standing_still},
    store::{Output, Store},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

/// Differences of one output that are kept.
const DIFFERENCES: usize = 100;

/// What a run made; nothing when the stage failed.
pub(super) type RunResult = Option<BTreeMap<String, Output>>;

/// Where a single stage is run again, to find out why it differs.
pub(super) struct Lab<'a> {
    pub(super) twice: &'a Twice<'a>,
    /// Where runs put what they make; what was made first is there if anybody has it.
    pub(super) store: &'a Arc<Store>,
    pub(super) second: &'a Arc<Store>,
    /// Whether there was a first build, and not a manifest.
    pub(super) first: bool,
    pub(super) prepared: &'a ResolvedStage,
    pub(super) axes: &'a BTreeSet<Axis>,
    pub(super) lent: &'a Path,
    /// What came out with these axes varied; none when the stage failed.
    pub(super) runs: BTreeMap<Vec<Axis>, RunResult>,
}

impl Lab<'_> {
    /// Explains every output that differs.
    pub(super) fn explain(
        mut self,
        first: &BTreeMap<String, Output>,
        second: &BTreeMap<String, Output>,
    ) -> Result<Vec<Finding>, PipelineError> {
        let node = node_of(&self.prepared.id);
        let mut findings = Vec::new();
        for (name, expected) in first {
            let Some(found) = second.get(name).filter(|found| *found != expected) else {
                continue;
            };
            let (cause, other) = if self.twice.explain {
                (self.twice.say)(&format!("{node}: looking for what {name} depends on"));
                let all: Vec<Axis> = self.axes.iter().copied().collect();
                let differs = |outputs: &RunResult| outputs.as_ref().and_then(|o| o.get(name)) != Some(expected);
                let alike = |a: &RunResult, b: &RunResult| match (a, b) {
                    (Some(a), Some(b)) => a.get(name) == b.get(name),
                    _ => false,
                };
                let (cause, set) = self.cause(&all, &differs, &alike)?;
                let other = set.and_then(|set| self.runs.get(&set).cloned().flatten());
                (cause, other.and_then(|outputs| outputs.get(name).cloned()))
            } else {
                (Cause::NotSought, None)
            };
            let compared = self.compare(name, expected, other.as_ref(), found)?;
            findings.push(Finding {
                node: node.clone(),
                found: Divergent::Output(name.clone()),
                cause,
                differences: compared.differences,
                total: compared.total,
            });
        }
        Ok(findings)
    }

    /// Compares what was made first with what a rerun made, or else with what the second build made.
    fn compare(
        &self,
        name: &str,
        expected: &Output,
        rerun: Option<&Output>,
        second: &Output,
    ) -> Result<Comparison, PipelineError> {
        let kept = |output: &&Output| self.store.find_object(output.digest()).is_some();
        let (expected, rerun) = match Some(expected).filter(kept) {
            Some(expected) => (expected, rerun),
            // What was made first was not kept and never came out again: what came out in the same way is next to it.
            None if self.first => match self.runs.get(&Vec::new()).and_then(|run| run.as_ref()?.get(name)) {
                Some(alike) => (alike, None),
                None => return Ok(Comparison::default()),
            },
            // Nobody has it: a manifest says only what its digest is.
            None => return Ok(Comparison::default()),
        };
        let dir = self.twice.store.scratch_path("compare");
        fs::create_dir(&dir).map_err(PipelineError::io("create", &dir))?;
        let other: (&Store, &Output) = match rerun {
            Some(output) => (self.store, output),
            None => (self.second, second),
        };
        let compared = compare(
            name,
            (self.store, expected),
            other,
            &SpoolDirectory::new(dir),
            DIFFERENCES,
        );
        compared.map_err(|e| PipelineError::Describe {
            problem: format!("what {name} differs in: {e}"),
        })
    }

    /// Why the stage comes out differently, as `differs` tells, and a choice of axes with which it does.
    pub(super) fn cause(
        &mut self,
        all: &[Axis],
        differs: &dyn Fn(&RunResult) -> bool,
        alike: &dyn Fn(&RunResult, &RunResult) -> bool,
    ) -> Result<(Cause, Option<Vec<Axis>>), PipelineError> {
        if differs(self.run(&[])?) {
            for axis in Axis::ALL {
                if let Some(still) = standing_still(*axis, self.lent) {
                    let changed = || Changed {
                        variation: still.clone(),
                        ..Changed::default()
                    };
                    if alike(&self.rerun(changed())?, &self.rerun(changed())?) {
                        let cause = Cause::ByItself { still: Some(*axis) };
                        return Ok((cause, Some(Vec::new())));
                    }
                }
            }
            return Ok((Cause::ByItself { still: None }, Some(Vec::new())));
        }
        if !differs(self.run(all)?) {
            return Ok((Cause::NotRepeated, None));
        }
        let mut alone = Vec::new();
        let mut together = Vec::new();
        let mut waiting = vec![all.to_vec()];
        while let Some(set) = waiting.pop() {
            if set.len() == 1 {
                alone.extend(set);
                continue;
            }
            let (a, b) = set.split_at(set.len() / 2);
            let halves = [(a.to_vec(), differs(self.run(a)?)), (b.to_vec(), differs(self.run(b)?))];
            if halves.iter().all(|(_, differs)| !differs) {
                together = self.fewest(set, differs)?;
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

    /// Leaves out of `set` what is not needed for a difference.
    fn fewest(&mut self, mut set: Vec<Axis>, differs: &dyn Fn(&RunResult) -> bool) -> Result<Vec<Axis>, PipelineError> {
        for axis in set.clone() {
            let rest: Vec<Axis> = set.iter().copied().filter(|a| *a != axis).collect();
            if differs(self.run(&rest)?) {
                set = rest;
            }
        }
        Ok(set)
    }

    /// What comes out with these axes varied.
    fn run(&mut self, axes: &[Axis]) -> Result<&RunResult, PipelineError> {
        if !self.runs.contains_key(axes) {
            let set: BTreeSet<Axis> = axes.iter().copied().collect();
            let outputs = self.rerun(self.twice.changed(&set, self.lent))?;
            self.runs.insert(axes.to_vec(), outputs);
        }
        Ok(&self.runs[axes])
    }

    fn rerun(&self, changed: Changed) -> Result<RunResult, PipelineError> {
        let mut options = self.twice.options.clone();
        options.changed = changed;
        let twice = self.twice;
        match run_stage(
            twice.project,
            self.store,
            twice.inputs,
            self.prepared,
            &options,
            twice.events,
        ) {
            Ok(record) => Ok(Some(record.outputs)),
            Err(PipelineError::Stage { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
