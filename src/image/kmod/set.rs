//! Modules in their order, and which of them each needs.

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

/// Which module a symbol comes from, by a hash of the symbol: most of three hundred thousand questions are about symbols of the
/// kernel itself.
pub(super) struct Owners<'a>(Vec<Vec<(&'a str, usize)>>);

/// Buckets of [`Owners`].
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

/// A module among the others.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) facts: ModuleFacts,
    pub(super) name: String,
    /// Modules whose symbols it uses itself, by place.
    needs: Vec<usize>,
    /// Place in an order in which each module is before those it needs.
    rank: usize,
}

impl ModuleSet {
    /// Puts modules in the order of `modules.order` and finds out what they need. Two modules of one name and a cycle are errors.
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

    /// Exported symbols and the places of the modules they come from, in the order of the indexes. Of two modules that export
    /// the same symbol the later counts.
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

    /// Places of everything the module at `at` needs, also through others: those that need others first.
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

    /// Ranks modules: the last of those that no module without a rank needs is the next.
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
        return Err(refuse(ORDER, "its last line has no end"));
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
            return Err(refuse(&facts.path, format!("it has the same name as {other}, {name}")));
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
