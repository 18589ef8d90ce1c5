//! Resolves a wanted set to packages: a dependency solver without I/O that makes the choices of apt.
//!
//! It proceeds as `apt-get install --no-install-recommends` on an empty system. All wanted packages are chosen first and then
//! expanded, depth first, in the order in which the index mentions their names. A dependency that a chosen package satisfies
//! adds nothing; otherwise its alternatives are tried from left to right, and for each the package of that name, then its
//! providers: essential, protected, important ones first, and of equals the one mentioned last. A package that failed (a
//! dependency is missing, or it conflicts with a chosen package) is not tried again. Where apt's problem resolver would go on
//! by removing wanted packages, the solver returns an error.
//!
//! A SAT solver would give *a* valid set. The lock needs *the* set that apt installs, and that one follows from the order of
//! the trials; the same order gives the chain of dependencies that an error shows.
//!
//! - **Pinned**: the version of `name/archive` is the candidate of its name. The dependencies that no candidate satisfies are
//!   pinned to the same archive.
//! - **Firm**: a package that has to be in the set, because it is wanted or is the only solution of a dependency of a firm
//!   package. The expansion of a firm package goes on into a chosen package that is the only solution of a dependency,
//!   before the turn of that package comes.
//! - **Undo**: a failed trial is taken back by two logs, `chosen` and `expansions`. Packages chosen before the trial may have
//!   been expanded during it, so neither log follows from the other.
//!
//! ```text
//! main (default): a 1 | lib 1 Depends: d, gone | d 1 Depends: e | e 1 | extra 1
//! other:          a 2 Depends: extra (>= 2), lib | extra 2 | lib 2
//! wanted:         a/other, d
//!
//! pin     a 2 as wanted; extra 2, because the candidate extra 1 is too old. The candidate lib 1 will do, so lib is not pinned.
//! choose  a 2, d 1                                                        chosen: a d        expansions: -
//! expand  a 2 (firm): extra 2 is the only solution, so it is firm         chosen: a d extra  expansions: a extra
//! try     lib 1 (firm); its dependency d is chosen and the only solution,
//!         so d is expanded now, which chooses e          chosen: a d extra lib1 e  expansions: a extra lib1 d e
//! fail    lib 1: no package is called gone. Recorded in `failed`.
//! undo    e and lib 1 are no longer chosen. d stays chosen, but no longer counts as expanded: its e is gone.
//! try     lib 2, which is not the candidate but fills the gap             chosen: a d extra lib2
//! expand  d 1 at its own turn; e is chosen again                          result: a 2, d 1, e 1, extra 2, lib 2
//! ```

use super::{Index, PackageId};
use crate::{
    debian::{Alternatives, BinaryPackage, Relation},
    model::{Hint, NodeId},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// Longest chain of dependencies followed; Debian's longest are about 100.
const MAX_DEPTH: usize = 1000;

/// A request for a set of packages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedSet {
    /// The node of the graph that wants the set; the packages have its architecture.
    pub node: NodeId,
    /// Package names, each `name` or `name/archive`.
    pub names: Vec<String>,
    /// Whether the packages with `Essential: yes` are wanted too.
    pub essential: bool,
    /// Whether the dependencies of the packages belong to the set; false takes exactly the named packages.
    pub closure: bool,
}

/// The reason that a set cannot be resolved; every message completes "failed to …".
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResolveError {
    /// No archive has a package of a wanted name.
    #[error("resolve the package set {set}: no package {name:?} in {place}")]
    Unknown {
        /// The set.
        set: NodeId,
        /// The wanted name.
        name: String,
        /// The archives that were searched.
        place: String,
        /// The providers of the name, if it is a virtual package.
        hint: Option<String>,
    },
    /// A package is wanted from an archive that `archives.toml` does not declare.
    #[error("resolve the package set {set}: {problem}")]
    Archive {
        /// The set.
        set: NodeId,
        /// The fault, with the archive and the package.
        problem: String,
    },
    /// A dependency that no package satisfies.
    #[error("resolve the package set {set}: {}\n  cannot be met: {missing}", chain.join("\n  needs "))]
    Unmet {
        /// The set.
        set: NodeId,
        /// Packages from the wanted one to the one with the unsatisfied dependency.
        chain: Vec<String>,
        /// The dependency, or the reason that its last candidate failed.
        missing: String,
    },
    /// Two packages that conflict.
    #[error("resolve the package set {set}: {first} and {second} cannot be installed together ({relation})")]
    Conflict {
        /// The set.
        set: NodeId,
        /// The package that declares the conflict.
        first: String,
        /// The other package.
        second: String,
        /// The declared relation.
        relation: String,
    },
    /// Dependencies nested deeper than those of any real archive.
    #[error("resolve the package set {set}: dependencies are nested more than 1000 deep at {package}")]
    TooDeep {
        /// The set.
        set: NodeId,
        /// The package at which the limit was reached.
        package: String,
    },
}

impl Hint for ResolveError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unknown { hint, .. } => hint.as_deref().map(Cow::from),
            Self::Archive { .. } | Self::Unmet { .. } | Self::Conflict { .. } | Self::TooDeep { .. } => None,
        }
    }
}

/// Resolves `wanted` to packages of `index`.
///
/// # Errors
/// A name that no archive has; a dependency that cannot be satisfied, with the chain that leads to it; packages that conflict.
pub fn resolve(index: &Index, wanted: &WantedSet) -> Result<BTreeSet<PackageId>, ResolveError> {
    let mut solver = Solver {
        index,
        set: &wanted.node,
        pinned: BTreeMap::new(),
        chosen: Vec::new(),
        by_name: BTreeMap::new(),
        providers: BTreeMap::new(),
        against: BTreeMap::new(),
        expanded: BTreeMap::new(),
        expansions: Vec::new(),
        failed: BTreeMap::new(),
        too_deep: None,
    };
    let roots = solver.roots(wanted)?;
    if !wanted.closure {
        return Ok(roots.into_iter().collect());
    }
    solver.solve(&roots)?;
    // A conflict between two chosen packages would be a defect of the solver: it must not reach the lock.
    solver.check_conflicts()?;
    Ok(solver.chosen.into_iter().collect())
}

/// The reason that a package failed.
#[derive(Clone, Debug)]
enum ResolveFailure<'a> {
    /// The index has no solution of this dependency.
    Missing(Alternatives<'a>),
    /// Every solution of this dependency failed; the id is the last one tried.
    Tried(Alternatives<'a>, PackageId),
    /// The first package declares that it conflicts with the second.
    Conflict(PackageId, PackageId, String),
    /// Another version of the package is chosen.
    Version(PackageId),
}

struct Solver<'a> {
    index: &'a Index,
    set: &'a NodeId,
    /// Versions wanted by archive, and dependencies of theirs that only that archive satisfies.
    pinned: BTreeMap<&'a str, PackageId>,
    /// Undo log of choices: the chosen packages, in order of choice.
    chosen: Vec<PackageId>,
    /// The chosen packages by name.
    by_name: BTreeMap<&'a str, PackageId>,
    /// The chosen packages by each name that they provide.
    providers: BTreeMap<&'a str, Vec<PackageId>>,
    /// The chosen packages by each name that they declare a conflict with.
    against: BTreeMap<&'a str, Vec<PackageId>>,
    /// The expanded packages, and whether each was firm then.
    expanded: BTreeMap<PackageId, bool>,
    /// Undo log of `expanded`: the changed package and its former value, in order of change.
    expansions: Vec<(PackageId, Option<bool>)>,
    /// The packages that are not tried again; an undo keeps them.
    failed: BTreeMap<PackageId, ResolveFailure<'a>>,
    too_deep: Option<PackageId>,
}

impl<'a> Solver<'a> {
    /// The version of `name` that is tried first: the pinned one, else the candidate of the index.
    fn candidate(&self, name: &str) -> Option<PackageId> {
        self.pinned.get(name).copied().or_else(|| self.index.candidate(name))
    }

    /// The wanted packages, in the order in which they are expanded.
    fn roots(&mut self, wanted: &'a WantedSet) -> Result<Vec<PackageId>, ResolveError> {
        let unknown = |name: &str, place: String, hint: Option<String>| ResolveError::Unknown {
            set: wanted.node.clone(),
            name: name.to_owned(),
            place,
            hint,
        };
        // All pins come first: they decide the candidates of the plain names too.
        for name in &wanted.names {
            let Some((package, archive)) = name.split_once('/') else {
                continue;
            };
            if !self.index.has_archive(archive) {
                let problem = format!("no archive {archive:?} is declared, from which {package:?} is wanted");
                return Err(ResolveError::Archive {
                    set: wanted.node.clone(),
                    problem,
                });
            }
            let id = self
                .index
                .newest_in(package, archive)
                .ok_or_else(|| unknown(package, format!("archive {archive} for {}", self.index.arch()), None))?;
            self.pinned.insert(&self.index.package(id).name, id);
            self.pin_needs(id, archive);
        }
        let mut roots = BTreeSet::new();
        for name in &wanted.names {
            let package = name.split_once('/').map_or(name.as_str(), |(package, _)| package);
            let place = || format!("any archive for {}", self.index.arch());
            let id = match self.candidate(package) {
                Some(id) => id,
                None => self
                    .only_provider(package)
                    .map_err(|hint| unknown(package, place(), hint))?,
            };
            roots.insert(id);
        }
        if wanted.essential {
            for name in self.index.essential_names() {
                roots.extend(self.candidate(name).filter(|id| self.index.package(*id).essential));
            }
        }
        let mut roots: Vec<PackageId> = roots.into_iter().collect();
        roots.sort_by_key(|id| self.index.mentioned(&self.index.package(*id).name));
        Ok(roots)
    }

    /// The package that is chosen for the virtual package `name`, as apt-get does it: the only one whose candidate provides the name.
    /// The error is the hint where there is none or more than one.
    fn only_provider(&self, name: &str) -> Result<PackageId, Option<String>> {
        if let Some((plain, arch)) = name.split_once(':') {
            let own = self.index.arch();
            return Err(Some(format!(
                "a package is wanted without an architecture, which is that of the stage: {plain:?}; a package for {own} alone \
                 belongs to `want-{own}` (here {arch:?} was given)"
            )));
        }
        let mut providers = BTreeMap::new();
        for id in self.index.providers(name) {
            let provider = &*self.index.package(*id).name;
            if self.candidate(provider) == Some(*id) {
                providers.insert(provider, *id);
            }
        }
        let mut all = providers.iter();
        match (all.next(), all.next()) {
            (None, _) => Err(None),
            (Some((_, id)), None) => Ok(*id),
            _ => Err(Some(format!(
                "{name} is a virtual package; name one of its providers: {}",
                providers.into_keys().collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// Pins each dependency of `id` that no candidate satisfies to `archive`, the archive of `id`, and so on with the
    /// dependencies of the pinned packages.
    fn pin_needs(&mut self, id: PackageId, archive: &str) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for group in groups(self.index.package(id)) {
                let met = group
                    .alternatives()
                    .any(|relation| !self.solutions_of(&relation).is_empty());
                if met {
                    continue;
                }
                let found = group.alternatives().find_map(|relation| {
                    let found = self.index.newest_in(relation.name, archive)?;
                    self.index.matches(found, &relation).then_some(found)
                });
                if let Some(found) = found
                    && self.pinned.insert(&self.index.package(found).name, found) != Some(found)
                {
                    open.push(found);
                }
            }
        }
    }

    /// Chooses and expands the wanted packages.
    fn solve(&mut self, roots: &[PackageId]) -> Result<(), ResolveError> {
        // All wanted packages are chosen before any is expanded, so that they satisfy each other's dependencies.
        for id in roots {
            if let Err(failure) = self.choose(*id) {
                return Err(self.explain(*id, *id, &failure));
            }
        }
        for id in roots {
            let outcome = self.expand(*id, true, 0);
            if let Some(package) = self.too_deep {
                return Err(ResolveError::TooDeep {
                    set: self.set.clone(),
                    package: self.label(package),
                });
            }
            if let Err((at, failure)) = outcome {
                return Err(self.explain(*id, at, &failure));
            }
        }
        Ok(())
    }

    /// Satisfies the dependencies of a chosen package. The error names the package with the failed dependency, which is not
    /// `id` when a wanted package was expanded before its turn.
    fn expand(&mut self, id: PackageId, firm: bool, depth: usize) -> Result<(), (PackageId, ResolveFailure<'a>)> {
        // A second expansion has an effect only when the package becomes firm.
        if self.expanded.get(&id).is_some_and(|as_firm| *as_firm || !firm) {
            return Ok(());
        }
        let before = self.expanded.insert(id, firm);
        self.expansions.push((id, before));
        if depth > MAX_DEPTH {
            self.too_deep.get_or_insert(id);
            return Ok(());
        }
        for group in groups(self.index.package(id)) {
            if let Some(by) = self.satisfied(group) {
                // The only solution of a firm package's dependency is firm too, and is expanded here, before its turn.
                if firm && self.solutions(group).len() == 1 {
                    self.expand(by, true, depth + 1)?;
                }
                continue;
            }
            self.satisfy(group, firm, depth).map_err(|failure| (id, failure))?;
        }
        Ok(())
    }

    /// Chooses and expands the first solution of a dependency that does not fail.
    fn satisfy(&mut self, group: Alternatives<'a>, firm: bool, depth: usize) -> Result<(), ResolveFailure<'a>> {
        let mut solutions = self.solutions(group);
        // Counted before the other versions are added: a package is firm by the candidates alone.
        let only = solutions.len() == 1;
        for other in self.other_versions(group) {
            if !solutions.contains(&other) {
                solutions.push(other);
            }
        }
        let mut last = None;
        for id in solutions {
            if self.too_deep.is_some() {
                return Ok(());
            }
            last = Some(id);
            if self.failed.contains_key(&id) {
                continue;
            }
            let mark = (self.chosen.len(), self.expansions.len());
            let outcome = match self.choose(id) {
                Ok(()) => self.expand(id, firm && only, depth + 1),
                Err(failure) => Err((id, failure)),
            };
            let Err((at, failure)) = outcome else {
                return Ok(());
            };
            self.undo(mark);
            // `at` has the failed dependency, and the trial of `id` fails with it. A reason that is recorded already stays:
            // it is nearer to the cause.
            self.failed.entry(at).or_insert_with(|| failure.clone());
            self.failed.entry(id).or_insert(failure);
        }
        Err(last.map_or(ResolveFailure::Missing(group), |id| ResolveFailure::Tried(group, id)))
    }

    /// Adds a package to the chosen ones, without its dependencies.
    fn choose(&mut self, id: PackageId) -> Result<(), ResolveFailure<'a>> {
        let index = self.index;
        let package = index.package(id);
        match self.by_name.get(&*package.name) {
            Some(chosen) if *chosen == id => return Ok(()),
            Some(chosen) => return Err(ResolveFailure::Version(*chosen)),
            None => {}
        }
        if let Some((first, second, relation)) = self.conflict_of(id) {
            return Err(ResolveFailure::Conflict(first, second, relation));
        }
        self.chosen.push(id);
        self.by_name.insert(&package.name, id);
        for provided in package.provides.iter() {
            self.providers.entry(provided.name).or_default().push(id);
        }
        for relation in negatives(package) {
            self.against.entry(relation.name).or_default().push(id);
        }
        Ok(())
    }

    /// Takes back every choice and expansion since `mark`, the lengths of the two undo logs.
    fn undo(&mut self, mark: (usize, usize)) {
        // Newest first: a package that was expanded twice gets its oldest value back.
        for (id, before) in self.expansions.split_off(mark.1).into_iter().rev() {
            match before {
                Some(firm) => self.expanded.insert(id, firm),
                None => self.expanded.remove(&id),
            };
        }
        for id in self.chosen.split_off(mark.0) {
            let package = self.index.package(id);
            self.by_name.remove(&*package.name);
            for provided in package.provides.iter() {
                if let Some(list) = self.providers.get_mut(provided.name) {
                    list.retain(|p| *p != id);
                }
            }
            for relation in negatives(package) {
                if let Some(list) = self.against.get_mut(relation.name) {
                    list.retain(|p| *p != id);
                }
            }
        }
    }

    /// A conflict of `id` with a chosen package: the package that declares it, the other package, and the relation.
    fn conflict_of(&self, id: PackageId) -> Option<(PackageId, PackageId, String)> {
        let package = self.index.package(id);
        // Conflicts that `id` declares, with the chosen packages of that name and their providers.
        for relation in negatives(package) {
            let named = self.by_name.get(relation.name).into_iter();
            let provided = self.providers.get(relation.name).into_iter().flatten();
            for other in named.chain(provided) {
                if self.collides(id, *other, &relation) {
                    return Some((id, *other, show(&relation)));
                }
            }
        }
        // Conflicts that chosen packages declare, with the name of `id` or with a name that it provides.
        let names = std::iter::once(&*package.name).chain(package.provides.iter().map(|p| p.name));
        for other in names.filter_map(|name| self.against.get(name)).flatten() {
            let found = negatives(self.index.package(*other)).find(|relation| self.collides(*other, id, relation));
            if let Some(relation) = found {
                return Some((*other, id, show(&relation)));
            }
        }
        None
    }

    /// Whether `relation` of `declares` excludes `other`. A package never excludes itself: by providing and conflicting with
    /// the same name it asks to be the only provider of that name.
    fn collides(&self, declares: PackageId, other: PackageId, relation: &Relation<'_>) -> bool {
        self.index.package(declares).name != self.index.package(other).name && self.index.matches(other, relation)
    }

    /// The chosen package that satisfies a dependency, if there is one.
    fn satisfied(&self, group: Alternatives<'a>) -> Option<PackageId> {
        group.alternatives().find_map(|relation| {
            let named = self.by_name.get(relation.name).into_iter();
            let provided = self.providers.get(relation.name).into_iter().flatten();
            named
                .chain(provided)
                .copied()
                .find(|id| self.index.matches(*id, &relation))
        })
    }

    /// The candidates that satisfy a dependency, in the order of trying.
    fn solutions(&self, group: Alternatives<'a>) -> Vec<PackageId> {
        let mut out: Vec<PackageId> = Vec::new();
        for relation in group.alternatives() {
            for id in self.solutions_of(&relation) {
                if !out.contains(&id) {
                    out.push(id);
                }
            }
        }
        out
    }

    /// The candidates that satisfy one alternative, best first.
    fn solutions_of(&self, relation: &Relation<'_>) -> Vec<PackageId> {
        let named = self.index.named(relation.name).iter();
        let provided = self.index.providers(relation.name).iter();
        let found = named
            .chain(provided)
            .copied()
            .filter(|id| self.candidate(&self.index.package(*id).name) == Some(*id));
        self.ranked(found, relation)
    }

    /// Versions other than the candidates, of packages that are not chosen: they come from archives of another rank and are tried after
    /// all candidates have failed. An older version of an archive of the same rank is none of them: apt does not take it either, because
    /// it is the one that an update has replaced.
    fn other_versions(&self, group: Alternatives<'a>) -> Vec<PackageId> {
        group
            .alternatives()
            .flat_map(|relation| {
                let named = self.index.named(relation.name).iter();
                let provided = self.index.providers(relation.name).iter();
                let found = named.chain(provided).copied().filter(|id| {
                    let name = &*self.index.package(*id).name;
                    let rank = self.candidate(name).map(|candidate| self.index.rank(candidate));
                    !self.by_name.contains_key(name)
                        && rank != Some(self.index.rank(*id))
                        && self.index.is_automatic(*id)
                });
                self.ranked(found, &relation)
            })
            .collect()
    }

    /// The packages that match `relation`, in apt's order of preference.
    fn ranked(&self, found: impl Iterator<Item = PackageId>, relation: &Relation<'_>) -> Vec<PackageId> {
        let mut out: Vec<PackageId> = found.filter(|id| self.index.matches(*id, relation)).collect();
        out.sort_by_key(|id| {
            let package = self.index.package(*id);
            (
                *package.name != *relation.name,
                !package.essential,
                !package.protected,
                package.priority,
                std::cmp::Reverse(self.index.mentioned(&package.name)),
            )
        });
        out.dedup();
        out
    }

    /// Checks every chosen package for conflicts once more.
    fn check_conflicts(&self) -> Result<(), ResolveError> {
        for id in &self.chosen {
            if let Some((first, second, relation)) = self.conflict_of(*id) {
                return Err(self.conflict(first, second, relation));
            }
        }
        Ok(())
    }

    fn conflict(&self, first: PackageId, second: PackageId, relation: String) -> ResolveError {
        ResolveError::Conflict {
            set: self.set.clone(),
            first: self.label(first),
            second: self.label(second),
            relation,
        }
    }

    /// The error for the wanted package `root`, whose expansion failed at the package `at`.
    fn explain(&self, root: PackageId, at: PackageId, failure: &ResolveFailure<'a>) -> ResolveError {
        let mut chain = vec![self.label(root)];
        if at != root {
            chain.push(self.label(at));
        }
        // From each failed package to the last trial for its dependency, down to a reason that is not a trial.
        let mut failure = failure;
        let mut seen = BTreeSet::new();
        let missing = loop {
            match failure {
                ResolveFailure::Missing(group) => break group.to_string(),
                ResolveFailure::Conflict(first, second, relation) if chain.len() == 1 => {
                    return self.conflict(*first, *second, relation.clone());
                }
                ResolveFailure::Conflict(first, second, relation) => {
                    break format!(
                        "{} and {} cannot be installed together ({relation})",
                        self.label(*first),
                        self.label(*second)
                    );
                }
                ResolveFailure::Version(chosen) => break format!("{} is chosen already", self.label(*chosen)),
                ResolveFailure::Tried(group, id) => match self.failed.get(id) {
                    Some(next) if seen.insert(*id) => {
                        chain.push(self.label(*id));
                        failure = next;
                    }
                    _ => break group.to_string(),
                },
            }
        };
        ResolveError::Unmet {
            set: self.set.clone(),
            chain,
            missing,
        }
    }

    fn label(&self, id: PackageId) -> String {
        let package = self.index.package(id);
        format!("{} {} ({})", package.name, package.version, self.index.archive_of(id))
    }
}

/// The dependencies of a package, in the order in which they are satisfied.
fn groups(package: &BinaryPackage) -> impl Iterator<Item = Alternatives<'_>> {
    package.pre_depends.groups().chain(package.depends.groups())
}

/// The relations that name the packages a package conflicts with.
fn negatives(package: &BinaryPackage) -> impl Iterator<Item = Relation<'_>> {
    package.conflicts.iter().chain(package.breaks.iter())
}

fn show(relation: &Relation<'_>) -> String {
    use crate::debian::Op;
    let mut out = format!("conflicts with {}", relation.name);
    if let Some((op, version)) = relation.version {
        let op = match op {
            Op::Less => "<<",
            Op::LessEqual => "<=",
            Op::Equal => "=",
            Op::GreaterEqual => ">=",
            Op::Greater => ">>",
        };
        out.push_str(&format!(" {op} {version}"));
    }
    out
}

#[cfg(test)]
mod tests;
