//! Compares a lock with the package sets that the stages want, without a network.

use super::{LockedSet, Lockfile, WantedSet};
use crate::model::NodeId;
use std::{collections::BTreeSet, fmt};

/// A difference between a lock and the wanted package sets; its `Display` is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockProblem {
    /// No locked package belongs to a wanted set.
    NoSet {
        /// The set.
        set: NodeId,
    },
    /// A locked set lacks a wanted package.
    NoPackage {
        /// The set.
        set: NodeId,
        /// The wanted package, `name` or `name/archive`.
        name: String,
    },
    /// The lock has a package because of a want that the stage no longer has.
    NoLongerWanted {
        /// The set.
        set: NodeId,
        /// The former want, `name` or `name/archive`.
        name: String,
    },
    /// A set was resolved with other values of `essential` and `closure` than the stage has.
    Flag {
        /// The set.
        set: NodeId,
        /// The key of the stage file.
        key: &'static str,
        /// The value that the stage has.
        value: bool,
    },
    /// The lock does not say what a set was resolved from.
    NoRecord {
        /// The set.
        set: NodeId,
    },
    /// No stage wants a locked set any more.
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
            Self::NoLongerWanted { set, name } => {
                write!(f, "set {set} is locked with {name}, which the stage no longer wants")
            }
            Self::Flag { set, key, value } => {
                write!(
                    f,
                    "set {set} is locked with {key} = {}, and the stage has {key} = {value}",
                    !value
                )
            }
            Self::NoRecord { set } => write!(f, "set {set} is locked without its wants"),
            Self::StaleSet { set } => write!(f, "set {set} is locked, but no stage wants it"),
        }
    }
}

/// The sets and wanted packages that a new lock would add or drop. Changes in the archives do not show here.
pub fn check(lock: &Lockfile, wanted: &[WantedSet]) -> Vec<LockProblem> {
    let locked: BTreeSet<&NodeId> = lock.packages.iter().flat_map(|p| &p.sets).collect();
    let mut out = Vec::new();
    for want in wanted {
        // An empty request gives no package, so the lock cannot show that its set was resolved.
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
            // The name of a virtual package was resolved to its only provider, which has another name.
            let found = found || lock.set(&want.node).is_some_and(|record| record.want.contains(name));
            if !found {
                out.push(LockProblem::NoPackage {
                    set: want.node.clone(),
                    name: name.clone(),
                });
            }
        }
        // A lock without any record comes from a pnb that wrote none; only the names can be compared then.
        match lock.set(&want.node) {
            Some(record) => compare(record, want, &mut out),
            None if lock.sets.is_empty() => {}
            None => out.push(LockProblem::NoRecord { set: want.node.clone() }),
        }
    }
    let locked = locked.into_iter().chain(lock.sets.iter().map(|set| &set.name));
    let locked: BTreeSet<&NodeId> = locked.collect();
    let wanted: BTreeSet<&NodeId> = wanted.iter().map(|w| &w.node).collect();
    out.extend(
        locked
            .into_iter()
            .filter(|set| !wanted.contains(set))
            .map(|set| LockProblem::StaleSet { set: set.clone() }),
    );
    out
}

/// Compares the wants from which a set was resolved with those of its stage.
fn compare(record: &LockedSet, want: &WantedSet, out: &mut Vec<LockProblem>) {
    let gone = record.want.iter().filter(|name| !want.names.contains(name));
    out.extend(gone.map(|name| LockProblem::NoLongerWanted {
        set: want.node.clone(),
        name: name.clone(),
    }));
    for (key, locked, value) in [
        ("essential", record.essential, want.essential),
        ("closure", record.closure, want.closure),
    ] {
        if locked != value {
            out.push(LockProblem::Flag {
                set: want.node.clone(),
                key,
                value,
            });
        }
    }
}
