//! Whether a lock still serves what the stages want, without a network.

use super::{Lockfile, WantedSet};
use crate::model::NodeId;
use std::{collections::BTreeSet, fmt};

/// One way in which a lock does not fit the stages; its `Display` is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockProblem {
    /// A set that no package belongs to.
    NoSet {
        /// The set.
        set: NodeId,
    },
    /// A wanted package that the set lacks.
    NoPackage {
        /// The set.
        set: NodeId,
        /// The package as wanted.
        name: String,
    },
    /// A set that nothing wants any more.
    StaleSet {
        /// The set.
        set: NodeId,
    },
}

impl fmt::Display for LockProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSet { set } => write!(f, "set {set} is not locked"),
            Self::NoPackage { set, name } => write!(f, "set {set} lacks {name}"),
            Self::StaleSet { set } => write!(f, "set {set} is locked, but no stage wants it"),
        }
    }
}

/// Everything that a new lock would have to add or drop, as far as it shows without the archives.
pub fn check(lock: &Lockfile, wanted: &[WantedSet]) -> Vec<LockProblem> {
    let locked: BTreeSet<&NodeId> = lock.packages.iter().flat_map(|p| &p.sets).collect();
    let mut out = Vec::new();
    for want in wanted {
        if want.names.is_empty() && !want.essential {
            continue;
        }
        if !locked.contains(&want.node) {
            out.push(LockProblem::NoSet { set: want.node.clone() });
            continue;
        }
        for name in &want.names {
            let (package, archive) = match name.split_once('/') {
                Some((package, archive)) => (package, Some(archive)),
                None => (name.as_str(), None),
            };
            let found = lock
                .packages_of(&want.node)
                .any(|p| p.name == package && archive.is_none_or(|a| a == p.archive));
            if !found {
                out.push(LockProblem::NoPackage {
                    set: want.node.clone(),
                    name: name.clone(),
                });
            }
        }
    }
    let wanted: BTreeSet<&NodeId> = wanted.iter().map(|w| &w.node).collect();
    out.extend(
        locked
            .into_iter()
            .filter(|set| !wanted.contains(set))
            .map(|set| LockProblem::StaleSet { set: set.clone() }),
    );
    out
}
