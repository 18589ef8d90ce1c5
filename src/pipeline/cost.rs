//! The choice of the place where a stage runs: here or on a worker.
//!
//! A stage goes to a worker when its processor time, as its last run took it, is more than what the worker costs: the engine's time for an
//! action, and the transfer of inputs that the server lacks and of outputs that are wanted here. A stage of which the store has no record
//! goes to a worker.

use super::{BuildContext, PipelineError, recipe::Recipe, resolve::ResolvedStage, shared::SharedResults};
use crate::{
    model::{VerityDigest, lock},
    store::Output,
};
use std::{collections::BTreeSet, sync::Mutex, time::Duration};

/// Time that an action is expected to take beside its work, before any ran.
const EXPECTED_PER_ACTION: Duration = Duration::from_secs(1);

/// Where the stages of a build with an engine run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StagePlace {
    /// Here, if a worker costs more time than the stage takes; else on a worker.
    #[default]
    ByCost,
    /// On a worker.
    Workers,
}

/// What the actions of a build have cost, and what its server has by them.
#[derive(Debug, Default)]
pub(super) struct ActionCosts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    actions: u32,
    beside: Duration,
    /// Outputs of stages that ran here and were sent as inputs of an action.
    sent: BTreeSet<VerityDigest>,
}

impl ActionCosts {
    /// Notes an action that took `beside` in addition to its work.
    pub(super) fn note(&self, beside: Duration) {
        let mut state = lock(&self.state);
        state.actions += 1;
        state.beside += beside;
    }

    /// Notes that the server has an output.
    pub(super) fn sent(&self, output: &Output) {
        lock(&self.state).sent.insert(*output.digest());
    }

    /// The time that an action takes beside its work, on average.
    pub(super) fn per_action(&self) -> Duration {
        let state = lock(&self.state);
        state.beside.checked_div(state.actions).unwrap_or(EXPECTED_PER_ACTION)
    }
}

/// The bytes that a stage moves, and its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Moves {
    /// Processor time of its last run, in milliseconds.
    cpu_ms: u64,
    /// Bytes of inputs that a worker would have to be sent.
    to_worker: u64,
    /// Bytes of inputs that would have to come here.
    to_here: u64,
    /// Bytes of outputs that are wanted here.
    back: u64,
}

/// Whether a worker costs less than the processor time that it saves here; `rate` in bytes per second.
fn pays(moves: Moves, per_action: Duration, rate: u64) -> bool {
    let ms = |bytes: u64| bytes.saturating_mul(1000) / rate.max(1);
    let per_action = u64::try_from(per_action.as_millis()).unwrap_or(u64::MAX);
    let there = per_action
        .saturating_add(ms(moves.to_worker))
        .saturating_add(ms(moves.back));
    moves.cpu_ms.saturating_add(ms(moves.to_here)) > there
}

/// Whether a stage is to run on a worker although it can run here.
pub(super) fn worker_pays(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    costs: &ActionCosts,
    resolved: &ResolvedStage,
    wanted: bool,
) -> Result<bool, PipelineError> {
    let id = &resolved.id;
    let Some((_, last)) = context.store.last_known_record(&id.stage, id.arch)? else {
        return Ok(true);
    };
    let mut moves = Moves {
        cpu_ms: last.cpu_ms,
        to_worker: 0,
        to_here: 0,
        back: 0,
    };
    for output in Recipe::new(context.project, resolved)?.outputs_needed() {
        match shared.absent_bytes(&output) {
            Some(bytes) => moves.to_here += bytes,
            None if lock(&costs.state).sent.contains(output.digest()) => {}
            None => moves.to_worker += bytes_of(context, &output)?,
        }
    }
    if wanted {
        for output in last.outputs.values() {
            moves.back += bytes_of(context, output)?;
        }
    }
    Ok(pays(moves, costs.per_action(), shared.rate()))
}

/// Bytes of an output: of a tree, those of its files. Of a tree that the store does not have, none are known.
fn bytes_of(context: &BuildContext<'_>, output: &Output) -> Result<u64, PipelineError> {
    match output {
        Output::File { size, .. } => Ok(*size),
        Output::Tree { digest } => match context.store.find_object(digest)? {
            Some(_) => Ok(context.store.tree(digest)?.objects().values().sum()),
            None => Ok(0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_pays_when_it_saves_more_than_it_costs() {
        let moves = |cpu_ms, to_worker, to_here, back| Moves {
            cpu_ms,
            to_worker,
            to_here,
            back,
        };
        let second = Duration::from_secs(1);
        let rate = 100_000_000;
        // rootfs: ten seconds for packages, which both places get from elsewhere.
        assert!(pays(moves(10_200, 0, 0, 0), second, rate));
        // raw: 0.9 seconds for 415 MB that are wanted here.
        assert!(!pays(moves(850, 0, 0, 415_000_000), second, rate));
        // The same stage with inputs that are on the server only: fetching them takes as long as fetching the result.
        assert!(!pays(moves(850, 0, 425_000_000, 415_000_000), second, rate));
        assert!(pays(moves(850, 0, 435_000_000, 415_000_000), second, rate));
        // Inputs that have to be sent first, and a slower network.
        assert!(pays(moves(3_000, 150_000_000, 0, 0), second, rate));
        assert!(!pays(moves(3_000, 150_000_000, 0, 0), second, rate / 2));
        assert!(!pays(moves(900, 0, 0, 0), second, rate));
        assert!(pays(moves(900, 0, 0, 0), Duration::from_millis(300), rate));
    }

    #[test]
    fn the_cost_of_an_action_is_the_average_of_those_that_ran() {
        let costs = ActionCosts::default();
        assert_eq!(costs.per_action(), EXPECTED_PER_ACTION);
        costs.note(Duration::from_secs(2));
        costs.note(Duration::from_secs(4));
        assert_eq!(costs.per_action(), Duration::from_secs(3));
    }
}
