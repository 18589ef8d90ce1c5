//! What packages and the root say about themselves: maintainers, dependencies, licences, the operating system.
//!
//! Control files come from the packages. Copyright files come from the tree of a stage that unpacked the package, where they are objects
//! already; decompressing every package again would cost more than the rest of an export. A package whose stages keep no copyright file is
//! read itself.

use super::{
    BuildContext, BuildOutcome, PipelineError,
    code::CODE_FACTS,
    facts::package_sets,
    shared::{self, ensure},
};
use crate::{
    debian::{
        ControlReader, MAX_COPYRIGHT, PackageLicence, Paragraph, Relation, Relations, TarLimits, read_control,
        read_licences, unpack_data,
    },
    graph::closure_of,
    lock::Package,
    manifest::{License, OperatingSystem, PackageDetails, Role},
    model::{Arch, Node, NodeId, RelPath, Sha256Digest, Tree, VerityDigest, chain},
    store::{Output, Store},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The files that state the operating system of a root, the first of which counts.
const OS_RELEASE: [&str; 2] = ["usr/lib/os-release", "etc/os-release"];
/// A larger file does not state an operating system, bytes.
const MAX_OS_RELEASE: u64 = 64 << 10;
/// Longest line that is taken from a package, bytes.
const MAX_LINE: usize = 1000;
/// Links that are followed on the way to a file.
const MAX_LINKS: usize = 8;

fn bad(what: &str, problem: impl std::fmt::Display) -> PipelineError {
    PipelineError::describe(format!("{what}: {problem}"))
}

/// The stage whose tree is the root.
const CONFIGURED_STAGE: &str = "rootfs";

/// What packages and the root of an artifact say about themselves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    pub(super) packages: BTreeMap<Sha256Digest, PackageDetails>,
    pub(super) operating_system: OperatingSystem,
}

/// The packages of an artifact, and the trees that hold their files, each read once.
pub(super) struct PackageFacts<'a> {
    context: &'a BuildContext<'a>,
    outcome: &'a BuildOutcome,
    sets: BTreeMap<String, Role>,
    packages: Vec<&'a Package>,
    /// The stage whose tree is the root.
    configured: NodeId,
    trees: BTreeMap<VerityDigest, Tree>,
}

/// Makes sure that the statements about all artifacts can be written: what they say about packages is in the store, or comes from the
/// cache.
pub(super) fn prepare_statements(context: &BuildContext<'_>, outcome: &BuildOutcome) -> Result<(), PipelineError> {
    if context.shared.is_none() {
        return Ok(());
    }
    for target in &context.options.described {
        let node = context.project.graph.node(target.variant.as_str(), target.arch)?;
        let stages = closure_of(&context.project.graph, std::slice::from_ref(&node))?.order;
        let facts = PackageFacts::new(context, outcome, target.arch, &stages)?;
        if shared::facts(context, outcome, &facts.key(), &|said| facts.fits(said))?.is_some() {
            continue;
        }
        let mut trees = facts
            .trees_of_stages()
            .map(|(_, digest)| Output::Tree { digest: *digest });
        trees.try_for_each(|tree| ensure(context, &tree))?;
    }
    Ok(())
}

impl<'a> PackageFacts<'a> {
    /// The packages of the artifact for `arch` that `stages` made.
    pub(super) fn new(
        context: &'a BuildContext<'a>,
        outcome: &'a BuildOutcome,
        arch: Arch,
        stages: &[NodeId],
    ) -> Result<Self, PipelineError> {
        let sets = package_sets(context.project, outcome, stages)?;
        let of_sets = |package: &&Package| package.sets.iter().any(|set| sets.contains_key(&set.to_string()));
        let packages = context.project.lock.packages.iter().filter(of_sets).collect();
        Ok(Self {
            context,
            outcome,
            packages,
            configured: context.project.graph.node(CONFIGURED_STAGE, arch)?,
            trees: BTreeMap::new(),
            sets,
        })
    }

    /// What they say: from the cache that other machines share, if it has it.
    pub(super) fn all(mut self) -> Result<Said, PipelineError> {
        let key = self.key();
        if let Some(said) = shared::facts(self.context, self.outcome, &key, &|said| self.fits(said))? {
            return Ok(said);
        }
        let said = Said {
            packages: self.details()?,
            operating_system: self.operating_system()?,
        };
        shared::offer_facts(self.context, &key, &said)?;
        Ok(said)
    }

    /// A digest of everything that decides what is said: the packages, the trees with their files, and the code that reads them.
    fn key(&self) -> String {
        let mut text = format!("pnb facts 1\ncode {CODE_FACTS}\n");
        for package in &self.packages {
            let sets: BTreeSet<String> = package.sets.iter().map(ToString::to_string).collect();
            let sets: Vec<&String> = sets.iter().filter(|set| self.sets.contains_key(*set)).collect();
            let Package {
                name, version, arch, ..
            } = package;
            text.push_str(&format!(
                "package {} {name} {version} {arch} {sets:?}\n",
                package.sha256
            ));
        }
        for (id, digest) in self.trees_of_stages() {
            text.push_str(&format!("tree {id} {digest}\n"));
        }
        text.push_str(&format!("root {}\n", self.configured));
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Whether facts are about these packages, in texts such as are read from packages here.
    fn fits(&self, said: &Said) -> bool {
        let own: BTreeSet<&Sha256Digest> = self.packages.iter().map(|package| &package.sha256).collect();
        let system = &said.operating_system;
        let optional = [&system.version, &system.name, &system.cpe].into_iter().flatten();
        let of_packages = said.packages.values().flat_map(|details| {
            let licenses = details
                .licenses
                .iter()
                .map(|(License::Spdx(text) | License::Name(text))| text);
            details.maintainer.iter().chain(&details.depends).chain(licenses)
        });
        let mut texts = of_packages.chain(optional).chain([&system.id]);
        said.packages.keys().collect::<BTreeSet<_>>() == own
            && texts.all(|text| line(text).as_deref() == Some(text.as_str()))
    }

    /// The stages that have unpacked packages, and the root's, with their trees.
    fn trees_of_stages(&self) -> impl Iterator<Item = (&NodeId, &VerityDigest)> {
        let nodes = self.outcome.nodes.iter();
        nodes.filter_map(|(id, done)| match done.record.outputs.get("tree") {
            Some(Output::Tree { digest }) if *id == self.configured || self.sets.contains_key(&id.to_string()) => {
                Some((id, digest))
            }
            _ => None,
        })
    }

    /// The details of every package, fetched if the store lacks it.
    fn details(&mut self) -> Result<BTreeMap<Sha256Digest, PackageDetails>, PipelineError> {
        let BuildContext {
            project,
            store,
            origins,
            events,
            ..
        } = *self.context;
        let packages = self.packages.clone();
        let pinned = store.of_pinned();
        let digests = origins.ensure_packages(project, pinned, "the statements", &packages, events)?;
        let mut controls = BTreeMap::new();
        for (package, digest) in packages.iter().zip(&digests) {
            controls.insert(package.sha256, Control::read(pinned, package, digest)?);
        }
        let mut out: BTreeMap<Sha256Digest, PackageDetails> = BTreeMap::new();
        for (package, digest) in packages.iter().zip(&digests) {
            let licenses = self.licenses(package, digest)?;
            let maintainer = controls
                .get(&package.sha256)
                .and_then(|control| control.maintainer.clone());
            let details = PackageDetails {
                maintainer,
                depends: BTreeSet::new(),
                licenses,
            };
            out.insert(package.sha256, details);
        }
        for set in self.sets.keys() {
            let members: Vec<(&Package, &Control)> = packages
                .iter()
                .filter(|package| package.sets.iter().any(|member| member.to_string() == *set))
                .filter_map(|package| Some((*package, controls.get(&package.sha256)?)))
                .collect();
            for (sha256, needed) in satisfied(&members) {
                if let Some(details) = out.get_mut(&sha256) {
                    details.depends.extend(needed);
                }
            }
        }
        Ok(out)
    }

    /// The licences of a package, from the tree of the first of its stages that keeps its copyright file, or from the package.
    fn licenses(&mut self, package: &Package, digest: &VerityDigest) -> Result<Vec<License>, PipelineError> {
        let name = format!("usr/share/doc/{}/copyright", package.name);
        let path = RelPath::new(&name).map_err(|e| bad(&package.name, e))?;
        for id in &package.sets {
            if self.sets.contains_key(&id.to_string())
                && let Some(text) = self.file_of(id, &path, MAX_COPYRIGHT)?
            {
                return Ok(licenses_of(&text));
            }
        }
        let file = self.context.store.of_pinned().open_object(digest)?;
        let mut text = Vec::new();
        let wanted = path.clone();
        unpack_data(
            file,
            &package.name,
            &TarLimits::default(),
            &mut |path, header, content| {
                if path.is_some_and(|path| path == wanted) && header.size <= MAX_COPYRIGHT {
                    text.clear();
                    content
                        .read_to_end(&mut text)
                        .map_err(|source| crate::debian::DebError::Put {
                            package: package.name.clone(),
                            entry: wanted.to_string(),
                            source,
                        })?;
                }
                Ok(())
            },
        )
        .map_err(|e| bad(&package.name, chain(&e)))?;
        Ok(licenses_of(&text))
    }

    /// The content of a file in the tree that a stage made; `None` if it has none, or a larger one.
    fn file_of(&mut self, id: &NodeId, path: &RelPath, most: u64) -> Result<Option<Vec<u8>>, PipelineError> {
        let outputs = self.outcome.nodes.get(id).map(|done| &done.record.outputs);
        let Some(Output::Tree { digest }) = outputs.and_then(|outputs| outputs.get("tree")) else {
            return Ok(None);
        };
        if !self.trees.contains_key(digest) {
            ensure(self.context, &Output::Tree { digest: *digest })?;
            self.trees.insert(*digest, self.context.store.tree(digest)?);
        }
        let Some(found) = self.trees.get(digest).and_then(|tree| find(tree, path)) else {
            return Ok(None);
        };
        match found {
            (size, _) if size > most => Ok(None),
            (0, _) => Ok(Some(Vec::new())),
            (_, digest) => Ok(Some(self.context.store.read_object(&digest)?)),
        }
    }

    /// The operating system that the tree of the root's stage states.
    fn operating_system(&mut self) -> Result<OperatingSystem, PipelineError> {
        let stage = &self.configured.clone();
        for name in OS_RELEASE {
            let path = RelPath::new(name).map_err(|e| bad(name, e))?;
            if let Some(text) = self.file_of(stage, &path, MAX_OS_RELEASE)? {
                let system = operating_system(&String::from_utf8_lossy(&text));
                return system.ok_or_else(|| bad(name, format!("it states no ID in the tree of {stage}")));
            }
        }
        Err(bad(OS_RELEASE[0], format!("the tree of {stage} has none")))
    }
}

/// Size and digest of a file of a tree; links are followed.
fn find(tree: &Tree, path: &RelPath) -> Option<(u64, VerityDigest)> {
    let mut waiting: Vec<Vec<u8>> = path
        .as_bytes()
        .split(|b| *b == b'/')
        .rev()
        .map(<[u8]>::to_vec)
        .collect();
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(step) = waiting.pop() {
        match step.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => done.push(step),
        }
        let here = RelPath::new(std::str::from_utf8(&done.join(&b'/')).ok()?).ok()?;
        match &tree.get(&here)?.node {
            Node::Symlink { target } => {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                done.pop();
                if target.starts_with(b"/") {
                    done.clear();
                }
                waiting.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
            }
            Node::File { size, digest } if waiting.is_empty() => return Some((*size, *digest)),
            Node::Directory => {}
            _ => return None,
        }
    }
    None
}

fn licenses_of(text: &[u8]) -> Vec<License> {
    let licence = |licence| match licence {
        PackageLicence::Spdx(text) => License::Spdx(text),
        PackageLicence::Name(text) => License::Name(text),
    };
    let found = read_licences(text).into_iter().map(licence);
    found
        .filter(|(License::Spdx(text) | License::Name(text))| !text.is_empty())
        .collect()
}

/// The fields of `os-release`, by os-release(5): assignments as in a shell, without expansion.
fn operating_system(text: &str) -> Option<OperatingSystem> {
    let value = |name: &str| -> Option<String> {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        let (_, value) = lines.rfind(|(key, _)| *key == name)?;
        let quoted = ['"', '\'']
            .into_iter()
            .find_map(|q| value.strip_prefix(q)?.strip_suffix(q));
        line(quoted.unwrap_or(value))
    };
    Some(OperatingSystem {
        id: value("ID")?,
        version: value("VERSION_ID").or_else(|| value("VERSION_CODENAME")),
        name: value("PRETTY_NAME"),
        cpe: value("CPE_NAME"),
    })
}

/// Text as one line of visible characters, unless it is empty.
fn line(text: &str) -> Option<String> {
    let mut shown: String = text.trim().chars().filter(|c| crate::model::is_visible(*c)).collect();
    if let Some((at, _)) = shown.char_indices().find(|(at, c)| at + c.len_utf8() > MAX_LINE) {
        shown.truncate(at);
    }
    (!shown.is_empty()).then_some(shown)
}

/// The fields of a control file that are stated.
struct Control {
    maintainer: Option<String>,
    needs: [Relations; 2],
    provides: Relations,
}

impl Control {
    fn read(store: &Store, package: &Package, digest: &VerityDigest) -> Result<Self, PipelineError> {
        let name = package.file_name();
        let file = store.open_object(digest)?;
        let text = read_control(file, &name).map_err(|e| bad(&name, chain(&e)))?;
        Self::parse(&text).map_err(|problem| bad(&name, problem))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut paragraph = Paragraph::default();
        ControlReader::new(text.as_bytes(), "control")
            .read(&mut paragraph)
            .map_err(|e| chain(&e))?;
        let relations = |field: &str| {
            let text = paragraph.get(field).unwrap_or_default();
            Relations::parse(text).map_err(|problem| format!("{field}: {problem}"))
        };
        Ok(Self {
            maintainer: paragraph.get("Maintainer").and_then(line),
            needs: [relations("Pre-Depends")?, relations("Depends")?],
            provides: relations("Provides")?,
        })
    }
}

/// Whether a package satisfies a relation: by its own name, or by one that it provides. A name without a version satisfies no relation
/// with one (Debian Policy 7.5).
fn satisfies(relation: &Relation<'_>, package: &Package, control: &Control) -> bool {
    if relation.name == package.name {
        return relation.accepts(&package.version);
    }
    control.provides.iter().any(|provided| {
        provided.name == relation.name
            && match provided.version {
                Some((_, version)) => relation.accepts(version),
                None => relation.version.is_none(),
            }
    })
}

/// Of each package of a set, `name:arch` of the packages of the set that satisfy its dependencies: of each group of alternatives the first
/// that is there, with every package that provides it.
fn satisfied(members: &[(&Package, &Control)]) -> Vec<(Sha256Digest, BTreeSet<String>)> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (package, control)) in members.iter().enumerate() {
        let provided = control.provides.iter().map(|provided| provided.name);
        for name in std::iter::once(package.name.as_str()).chain(provided) {
            by_name.entry(name).or_default().push(at);
        }
    }
    let providers = |relation: &Relation<'_>| -> Vec<usize> {
        let named = by_name.get(relation.name).into_iter().flatten().copied();
        named
            .filter(|at| satisfies(relation, members[*at].0, members[*at].1))
            .collect()
    };
    let mut out = Vec::new();
    for (own, (package, control)) in members.iter().enumerate() {
        let mut needed = BTreeSet::new();
        for group in control.needs.iter().flat_map(Relations::groups) {
            let found = group
                .alternatives()
                .map(|relation| providers(&relation))
                .find(|found| !found.is_empty());
            for at in found.into_iter().flatten().filter(|at| *at != own) {
                let (other, _) = members[at];
                needed.insert(format!("{}:{}", other.name, other.arch));
            }
        }
        out.push((package.sha256, needed));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Entry, Epoch, Meta};

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            arch: "amd64".to_owned(),
            version: version.to_owned(),
            source: None,
            archive: "trixie".to_owned(),
            path: RelPath::new(format!("pool/{name}.deb")).expect("a path"),
            size: 1,
            sha256: Sha256Digest::new([name.len() as u8 + name.as_bytes()[0]; 32]),
            sets: BTreeSet::new(),
        }
    }

    #[test]
    fn dependencies_lead_to_the_packages_that_satisfy_them() {
        let stated = [
            (
                "app",
                "1",
                "Depends: lib (>= 2) | other, mail-agent, gone | lib\nPre-Depends: dpkg\n",
            ),
            ("lib", "2-1", "Maintainer: L <l@x>\n"),
            ("exim", "4", "Provides: mail-agent, lib (= 1)\nDepends: exim\n"),
            ("dpkg", "1.22", "Provides: other\n"),
        ];
        let packages: Vec<(Package, Control)> = stated
            .iter()
            .map(|(name, version, text)| {
                let text = format!("Package: {name}\nVersion: {version}\n{text}");
                (package(name, version), Control::parse(&text).expect("valid"))
            })
            .collect();
        let members: Vec<(&Package, &Control)> = packages.iter().map(|(p, c)| (p, c)).collect();
        let found = satisfied(&members);
        let of = |at: usize| found[at].1.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of(0), ["dpkg:amd64", "exim:amd64", "lib:amd64"]);
        assert_eq!(of(2), [""; 0]);
        assert_eq!(packages[1].1.maintainer.as_deref(), Some("L <l@x>"));
        // An unversioned provided name satisfies no relation with a version.
        let relations = Relations::parse("other (>= 1)").expect("valid");
        let relation = relations.iter().next().expect("one");
        assert!(!satisfies(&relation, &packages[3].0, &packages[3].1));
    }

    #[test]
    fn the_operating_system_is_read_as_a_shell_would() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\n# ID=x\nID=debian\n";
        let system = operating_system(text).expect("stated");
        assert_eq!((system.id.as_str(), system.version.as_deref()), ("debian", Some("13")));
        assert_eq!(system.name.as_deref(), Some("Debian GNU/Linux 13 (trixie)"));
        assert_eq!(system.cpe, None);
        let next = operating_system("ID='debian'\nVERSION_CODENAME=forky\n").expect("stated");
        assert_eq!(next.version.as_deref(), Some("forky"));
        assert_eq!(operating_system("NAME=x\nID=\n"), None);
    }

    #[test]
    fn a_copyright_file_is_found_through_links_and_never_in_a_circle() {
        let path = |text: &str| RelPath::new(text).expect("a path");
        let mut tree = Tree::new(Meta::root(0o755, Epoch::new(1)));
        let mut add = |name: &str, node: Node| {
            let meta = Meta::root(0o644, Epoch::new(1));
            tree.insert(path(name), Entry { meta, node }).expect("free");
        };
        for name in ["usr", "usr/share", "usr/share/doc", "usr/share/doc/a"] {
            add(name, Node::Directory);
        }
        let link = |target: &str| Node::Symlink {
            target: target.as_bytes().to_vec(),
        };
        let digest = VerityDigest::new([7; 32]);
        add("usr/share/doc/a/copyright", Node::File { size: 3, digest });
        add("usr/share/doc/b", link("a"));
        add("usr/share/doc/c", link("/usr/share/doc/../doc/./b"));
        add("usr/share/doc/d", link("e"));
        add("usr/share/doc/e", link("d"));
        add("usr/share/doc/f", link("../../../../../etc"));
        for (name, there) in [
            ("a", true),
            ("b", true),
            ("c", true),
            ("d", false),
            ("f", false),
            ("g", false),
        ] {
            let found = find(&tree, &path(&format!("usr/share/doc/{name}/copyright")));
            assert_eq!(found, there.then_some((3, digest)), "{name}");
        }
    }
}
