//! Chains: stages that one action of an engine runs one after the other, in the store of one worker.
//!
//! An action costs the time of the engine and the transfer of inputs and outputs. A stage joins the action of the stage before it when
//! nothing else waits for that one, or when it takes less time than an action costs.

use super::job::MAX_STAGES;
use crate::{graph::Closure, model::NodeId};
use std::{collections::BTreeSet, time::Duration};

/// What is known about a stage that could join a chain.
pub(super) trait ChainFacts {
    /// Whether the stage may run on the worker of the chain's first one.
    fn travels(&self, id: &NodeId) -> bool;
    /// The processor time of its last run; `None` if the store has no record of one.
    fn last_run(&self, id: &NodeId) -> Option<Duration>;
    /// The time that an action takes beside its work.
    fn per_action(&self) -> Duration;
}

/// The stages that run in the same action after `first`, each after those that it needs. `waiting` has the stages that nothing has begun;
/// all that are in neither it nor `unfinished` are done.
pub(super) fn followers(
    closure: &Closure,
    waiting: &BTreeSet<NodeId>,
    unfinished: &BTreeSet<NodeId>,
    first: &NodeId,
    facts: &dyn ChainFacts,
) -> Vec<NodeId> {
    let mut chain = vec![first.clone()];
    while chain.len() < MAX_STAGES {
        let ready = |id: &NodeId| {
            let needs = &closure.needs[id];
            needs.iter().any(|need| chain.contains(need))
                && needs
                    .iter()
                    .all(|need| chain.contains(need) || !unfinished.contains(need))
        };
        let joins = |id: &&NodeId| {
            waiting.contains(id)
                && !chain.contains(id)
                && ready(id)
                && facts.travels(id)
                && (delays_nothing(closure, waiting, &chain, id)
                    || facts.last_run(id).is_some_and(|time| time <= facts.per_action()))
        };
        let Some(next) = closure.order.iter().find(joins).cloned() else {
            break;
        };
        chain.push(next);
    }
    chain.split_off(1)
}

/// Whether no other stage waits for the chain that could start before `id` has ended.
fn delays_nothing(closure: &Closure, waiting: &BTreeSet<NodeId>, chain: &[NodeId], id: &NodeId) -> bool {
    let mut after = BTreeSet::from([id]);
    for other in &closure.order {
        let needs = &closure.needs[other];
        if needs.iter().any(|need| after.contains(need)) {
            after.insert(other);
        } else if waiting.contains(other)
            && other != id
            && !chain.contains(other)
            && needs.iter().any(|need| chain.contains(need))
        {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arch;

    struct Facts(&'static str, &'static str);

    impl ChainFacts for Facts {
        fn travels(&self, id: &NodeId) -> bool {
            !self.1.contains(&id.stage)
        }

        fn last_run(&self, id: &NodeId) -> Option<Duration> {
            self.0.contains(&id.stage).then(|| Duration::from_millis(500))
        }

        fn per_action(&self) -> Duration {
            Duration::from_secs(1)
        }
    }

    fn node(stage: char) -> NodeId {
        NodeId::new(stage, Arch::Amd64)
    }

    /// The followers of `a` in a graph of one letter for each stage, with those that are done and those that run.
    fn chained(graph: &[(char, &str)], done: &str, running: &str, facts: Facts) -> String {
        let closure = Closure {
            order: graph.iter().map(|(stage, _)| node(*stage)).collect(),
            needs: graph
                .iter()
                .map(|(stage, needs)| (node(*stage), needs.chars().map(node).collect()))
                .collect(),
        };
        let unfinished: BTreeSet<NodeId> = closure
            .order
            .iter()
            .filter(|id| !done.contains(&id.stage))
            .cloned()
            .collect();
        let waiting = unfinished
            .iter()
            .filter(|id| id.stage != "a" && !running.contains(&id.stage))
            .cloned()
            .collect();
        let found = followers(&closure, &waiting, &unfinished, &node('a'), &facts);
        found.iter().map(|id| id.stage.as_str()).collect()
    }

    #[test]
    fn a_stage_joins_when_nothing_else_waits_or_when_it_is_short() {
        const NONE: Facts = Facts("", "");
        let line = [('a', ""), ('b', "a"), ('c', "b")];
        assert_eq!(chained(&line, "", "", NONE), "bc");
        // `c` waits for `b` as well, so `b` delays nothing.
        assert_eq!(chained(&[('a', ""), ('b', "a"), ('c', "ab")], "", "", NONE), "bc");
        let fork = [('a', ""), ('b', "a"), ('c', "a"), ('d', "bc")];
        assert_eq!(chained(&fork, "", "", NONE), "");
        assert_eq!(
            chained(&fork, "", "", Facts("c", "")),
            "cbd",
            "a short one, and then nothing else waits"
        );
        assert_eq!(chained(&fork, "c", "", NONE), "bd", "c is done");
        // What another worker makes is not there.
        let joined = [('a', ""), ('x', ""), ('b', "ax"), ('c', "a")];
        assert_eq!(chained(&joined, "x", "c", NONE), "b");
        assert_eq!(
            chained(&joined, "", "x", NONE),
            "",
            "x runs, and c waits for a as b does"
        );
        assert_eq!(chained(&joined, "", "x", Facts("b", "")), "", "x is not there");
        assert_eq!(chained(&joined, "", "x", Facts("c", "")), "c");
        assert_eq!(chained(&line, "", "", Facts("", "b")), "", "b does not travel");
        assert_eq!(chained(&[('a', ""), ('b', "")], "", "", NONE), "", "nothing of a's");
    }
}
