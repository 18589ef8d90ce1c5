//! The package index of one architecture: the input of the resolver, from all archives.

use crate::{
    debian::{Automatic, BinaryPackage, ControlReader, MetadataError, Paragraph, Relation, Relations},
    model::Arch,
};
use std::{collections::BTreeMap, io::BufRead};

/// The id of a package in an [`Index`], valid for that index alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PackageId(usize);

/// The rank of an archive among others; packages of a higher one are candidates before all versions of a lower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ArchiveRank {
    /// The flag `default` of `archives.toml`.
    pub default: bool,
    /// The statement of its release file.
    pub automatic: Automatic,
}

impl ArchiveRank {
    /// An ordinary archive: a default one, whose packages are taken automatically.
    pub const USUAL: Self = Self {
        default: true,
        automatic: Automatic::Always,
    };
}

/// The packages that an index may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexScope {
    /// Those for the architecture, and those for all.
    OneArchitecture,
    /// Those for any architecture, of which the others are passed over: the index of a flat archive.
    AllArchitectures,
}

#[derive(Clone, Debug)]
struct Source {
    name: String,
    rank: ArchiveRank,
}

/// All packages that can be installed on one architecture.
#[derive(Clone, Debug)]
pub struct Index {
    arch: Arch,
    sources: Vec<Source>,
    packages: Vec<(usize, BinaryPackage)>,
    by_name: BTreeMap<Box<str>, Vec<PackageId>>,
    providers: BTreeMap<Box<str>, Vec<PackageId>>,
    /// The rank of each name by its first mention, which decides between otherwise equal providers, as in apt.
    mentions: BTreeMap<Box<str>, usize>,
}

impl Index {
    /// An empty index.
    pub fn new(arch: Arch) -> Self {
        Self {
            arch,
            sources: Vec::new(),
            packages: Vec::new(),
            by_name: BTreeMap::new(),
            providers: BTreeMap::new(),
            mentions: BTreeMap::new(),
        }
    }

    /// Reads one decompressed `Packages` file of `archive`, which has the rank `rank`; `file` names it in errors.
    /// `scope` says whether it may have packages of other architectures.
    ///
    /// Archives and their components have to be read in the order of preference.
    ///
    /// # Errors
    /// A malformed paragraph, or a package of another architecture.
    pub fn read(
        &mut self,
        archive: &str,
        rank: ArchiveRank,
        input: impl BufRead,
        file: &str,
        scope: IndexScope,
    ) -> Result<(), MetadataError> {
        let source = match self.sources.iter().position(|s| s.name == archive) {
            Some(found) => found,
            None => {
                self.sources.push(Source {
                    name: archive.to_owned(),
                    rank,
                });
                self.sources.len() - 1
            }
        };
        let mut reader = ControlReader::new(input, file);
        let mut paragraph = Paragraph::default();
        let wanted = self.arch;
        let own = |arch: &str| arch == wanted.as_str() || arch == "all";
        let foreign = |paragraph: &Paragraph| paragraph.get("Architecture").is_some_and(|arch| !own(arch));
        while reader.read(&mut paragraph)? {
            if scope == IndexScope::AllArchitectures && foreign(&paragraph) {
                continue;
            }
            let package = BinaryPackage::from_paragraph(&paragraph, file)?;
            if *package.arch != *self.arch.as_str() && &*package.arch != "all" {
                return Err(MetadataError::Package {
                    file: file.to_owned(),
                    line: paragraph.line_of("Architecture"),
                    package: package.name.to_string(),
                    problem: format!("architecture {:?} in an index of {}", package.arch, self.arch),
                });
            }
            self.note_mentions(&package, &paragraph);
            self.add(source, package);
        }
        Ok(())
    }

    /// Numbers names in the order in which apt meets them: the package, then the names in its relations, field by field.
    fn note_mentions(&mut self, package: &BinaryPackage, paragraph: &Paragraph) {
        self.mention(&package.name);
        for list in [
            &package.pre_depends,
            &package.depends,
            &package.conflicts,
            &package.breaks,
        ] {
            self.mention_all(list);
        }
        for field in ["Recommends", "Suggests", "Replaces", "Enhances"] {
            // These fields affect only the order of names, so a malformed one does not refuse the package.
            if let Some(list) = paragraph.get(field).and_then(|text| Relations::parse(text).ok()) {
                self.mention_all(&list);
            }
        }
        self.mention_all(&package.provides);
    }

    fn mention_all(&mut self, list: &Relations) {
        for relation in list.iter() {
            // apt numbers `name:any` apart from `name`.
            if relation.qualifier.is_none_or(|q| q == self.arch.as_str()) {
                self.mention(relation.name);
            }
        }
    }

    fn mention(&mut self, name: &str) {
        if !self.mentions.contains_key(name) {
            self.mentions.insert(name.into(), self.mentions.len());
        }
    }

    fn add(&mut self, source: usize, package: BinaryPackage) {
        let id = PackageId(self.packages.len());
        self.by_name.entry(package.name.clone()).or_default().push(id);
        for provided in package.provides.iter() {
            let providers = self.providers.entry(provided.name.into()).or_default();
            if providers.last() != Some(&id) {
                providers.push(id);
            }
        }
        self.packages.push((source, package));
    }

    /// The architecture of the index.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The number of packages.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether there are no packages.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// The package behind an id of this index.
    pub fn package(&self, id: PackageId) -> &BinaryPackage {
        &self.packages[id.0].1
    }

    /// Name of the archive that a package comes from.
    pub fn archive_of(&self, id: PackageId) -> &str {
        &self.sources[self.packages[id.0].0].name
    }

    /// The ids of all packages, in the order of reading.
    pub fn ids(&self) -> impl Iterator<Item = PackageId> {
        (0..self.packages.len()).map(PackageId)
    }

    pub(super) fn has_archive(&self, name: &str) -> bool {
        self.sources.iter().any(|s| s.name == name)
    }

    pub(super) fn named(&self, name: &str) -> &[PackageId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn providers(&self, name: &str) -> &[PackageId] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The names of the packages with `Essential: yes` in at least one archive.
    pub(super) fn essential_names(&self) -> impl Iterator<Item = &str> {
        self.by_name
            .iter()
            .filter(|(_, ids)| ids.iter().any(|id| self.package(*id).essential))
            .map(|(name, _)| &**name)
    }

    pub(super) fn mentioned(&self, name: &str) -> usize {
        self.mentions.get(name).copied().unwrap_or(usize::MAX)
    }

    /// The candidate of `name`: the newest version of the archives with the highest rank; of equal versions the first one read.
    pub(super) fn candidate(&self, name: &str) -> Option<PackageId> {
        self.best(self.named(name).iter().copied())
    }

    /// The newest version of `name` in one archive.
    pub(super) fn newest_in(&self, name: &str, archive: &str) -> Option<PackageId> {
        let of_archive = |id: &PackageId| self.archive_of(*id) == archive;
        self.best(self.named(name).iter().copied().filter(of_archive))
    }

    /// Whether nobody needs to name a version for it to be tried although it is no candidate.
    pub(super) fn is_automatic(&self, id: PackageId) -> bool {
        self.sources[self.packages[id.0].0].rank.automatic == Automatic::Always
    }

    /// The rank of the archive of a package.
    pub(super) fn rank(&self, id: PackageId) -> ArchiveRank {
        self.sources[self.packages[id.0].0].rank
    }

    fn best(&self, ids: impl Iterator<Item = PackageId>) -> Option<PackageId> {
        let key = |id: PackageId| {
            let (source, package) = &self.packages[id.0];
            (self.sources[*source].rank, &package.version)
        };
        ids.reduce(|best, id| if key(id) > key(best) { id } else { best })
    }

    /// Whether `id` satisfies `relation`, by its own name or as a provider.
    pub(super) fn matches(&self, id: PackageId, relation: &Relation<'_>) -> bool {
        use crate::debian::MultiArch;
        let package = self.package(id);
        let qualified = |own: Option<&str>| match relation.qualifier {
            None => true,
            Some("any") => package.multi_arch == MultiArch::Allowed || own == Some("any"),
            Some(arch) => arch == self.arch.as_str(),
        };
        if *package.name == *relation.name && qualified(None) && relation.accepts(package.version.as_str()) {
            return true;
        }
        // Only a versioned provided name satisfies a relation with a version (Debian policy 7.5).
        package.provides.iter().any(|provided| {
            provided.name == relation.name
                && qualified(provided.qualifier)
                && match (relation.version, provided.version) {
                    (None, _) => true,
                    (Some(_), Some((_, version))) => relation.accepts(version),
                    (Some(_), None) => false,
                }
        })
    }
}
