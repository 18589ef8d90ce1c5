//! The modules of a kernel in their order, and their dependencies.

use super::{
    ModuleFacts, hash,
    module::{module_name, plain_path, refuse},
};
use crate::image::ImageError;
use std::collections::BTreeMap;

const ORDER: &str = "modules.order";

/// Modules of one kernel.
#[derive(Debug)]
pub struct ModuleSet {
    /// In the order of the indexes.
    modules: Vec<Member>,
}

/// The module that exports a symbol, in buckets by a hash of the symbol. Most of the 300,000 look-ups are for symbols of the kernel
/// itself, which no module exports, so a miss must be quick.
pub(super) struct Owners<'a>(Vec<Vec<(&'a str, usize)>>);

/// Number of buckets of [`Owners`].
const OWNER_BUCKETS: u32 = 1 << 16;

impl<'a> Owners<'a> {
    fn set(&mut self, symbol: &'a str, owner: usize) {
        let bucket = &mut self.0[hash::bucket(symbol, OWNER_BUCKETS) as usize];
        match bucket.iter_mut().find(|(s, _)| *s == symbol) {
            Some(known) => known.1 = owner,
            None => bucket.push((symbol, owner)),
        }
    }

    pub(super) fn get(&self, symbol: &str) -> Option<usize> {
        let bucket = &self.0[hash::bucket(symbol, OWNER_BUCKETS) as usize];
        bucket.iter().find(|(s, _)| *s == symbol).map(|(_, owner)| *owner)
    }
}

/// A module of the set.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) facts: ModuleFacts,
    pub(super) name: String,
    /// Indexes of the modules whose symbols it uses directly.
    needs: Vec<usize>,
    /// Position in an order in which each module comes before those that it needs.
    rank: usize,
}

impl ModuleSet {
    /// Sorts modules in the order of `modules.order` and resolves their dependencies. Two modules of one name, and a cycle, are errors.
    pub fn new(modules: Vec<ModuleFacts>, order: &str) -> Result<Self, ImageError> {
        let mut set = Self {
            modules: sorted(modules, order)?,
        };
        set.link();
        set.rank()?;
        Ok(set)
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.modules
    }

    /// Facts of the modules, in the order of the indexes.
    pub fn facts(&self) -> impl Iterator<Item = &ModuleFacts> {
        self.modules.iter().map(|m| &m.facts)
    }

    /// Exported symbols with the indexes of their modules, in the order of kmod's hash table. If two modules export the same symbol,
    /// the later one counts.
    pub(super) fn symbols(&self) -> Vec<(&str, usize)> {
        let mut symbols: Vec<_> = self.owners().0.into_iter().flatten().collect();
        symbols.sort_by_cached_key(|(name, _)| (hash::bucket(name, hash::SYMBOL_BUCKETS), *name));
        symbols
    }

    pub(super) fn owners(&self) -> Owners<'_> {
        let mut owners = Owners(vec![Vec::new(); OWNER_BUCKETS as usize]);
        for (at, member) in self.modules.iter().enumerate() {
            member.facts.exports.iter().for_each(|symbol| owners.set(symbol, at));
        }
        owners
    }

    /// Indexes of all direct and indirect dependencies of the module at `at`, each in front of its own dependencies.
    pub(super) fn all_needs(&self, at: usize) -> Vec<usize> {
        let mut seen = vec![false; self.modules.len()];
        let mut found = Vec::new();
        let mut next = vec![at];
        while let Some(one) = next.pop() {
            for &need in &self.modules[one].needs {
                if !std::mem::replace(&mut seen[need], true) {
                    found.push(need);
                    next.push(need);
                }
            }
        }
        found.sort_by_key(|n| self.modules[*n].rank);
        found
    }

    fn link(&mut self) {
        let owners = self.owners();
        let needs_of = |member: &Member| {
            let mut needs = Vec::new();
            for owner in member.facts.needs.iter().filter_map(|symbol| owners.get(symbol)) {
                if !needs.contains(&owner) {
                    needs.push(owner);
                }
            }
            needs
        };
        let needs: Vec<_> = self.modules.iter().map(needs_of).collect();
        for (member, needs) in self.modules.iter_mut().zip(needs) {
            member.needs = needs;
        }
    }

    /// Ranks modules, dependents first. Of several modules whose dependents all have a rank, the last in the order is next, as in
    /// depmod.
    fn rank(&mut self) -> Result<(), ImageError> {
        let mut users = vec![0usize; self.modules.len()];
        for &need in self.modules.iter().flat_map(|m| &m.needs) {
            users[need] += 1;
        }
        let mut ready: Vec<usize> = (0..users.len()).filter(|at| users[*at] == 0).collect();
        let mut rank = 0;
        while let Some(at) = ready.pop() {
            self.modules[at].rank = rank;
            rank += 1;
            for &need in &self.modules[at].needs {
                users[need] -= 1;
                if users[need] == 0 {
                    ready.push(need);
                }
            }
        }
        let mut left: Vec<&str> = Vec::new();
        for (member, _) in self.modules.iter().zip(&users).filter(|(_, users)| **users > 0) {
            left.push(&member.facts.path);
        }
        left.sort_unstable();
        match left.first() {
            None => Ok(()),
            Some(first) => Err(refuse(
                first,
                format!("modules need each other in a circle, among {}", left.join(", ")),
            )),
        }
    }
}

fn sorted(modules: Vec<ModuleFacts>, order: &str) -> Result<Vec<Member>, ImageError> {
    if !order.is_empty() && !order.ends_with('\n') {
        return Err(refuse(
            ORDER,
            "its last line does not end with a newline: the file is cut off",
        ));
    }
    let mut places = BTreeMap::new();
    for (place, line) in order.lines().enumerate() {
        places.entry(line).or_insert(place);
    }
    let mut names = BTreeMap::new();
    let mut members = Vec::with_capacity(modules.len());
    for facts in modules {
        let name = module_name(&facts.path);
        if let Some(other) = names.insert(name.clone(), facts.path.clone()) {
            return Err(refuse(
                &facts.path,
                format!(
                    "it has the same module name as {other}: {name}; modprobe loads one of them only, so the stage that makes this tree must \
                     remove the other"
                ),
            ));
        }
        let place = match places.get(plain_path(&facts.path)) {
            Some(place) => (*place, 0),
            None => (usize::MAX, hash::bucket(&name, hash::NAME_BUCKETS)),
        };
        let member = Member {
            facts,
            name,
            needs: Vec::new(),
            rank: 0,
        };
        members.push((place, member));
    }
    members.sort_by(|(a, m), (b, n)| (a, &m.name).cmp(&(b, &n.name)));
    Ok(members.into_iter().map(|(_, member)| member).collect())
}
