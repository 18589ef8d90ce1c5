//! The audit of several artifacts: each alone, then all together.

use super::{
    AuditError, AuditOptions, audit,
    check::{AuditReport, Check, Class, Problems},
    files::read_small,
    rules,
};
use crate::{
    manifest::{MANIFEST_FILE, MAX_SIZE, Manifest},
    model::{Arch, Target, VerityDigest, visible_path},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Most entries of a directory of artifacts.
const MAX_ENTRIES: usize = 10_000;

/// The checks of several artifacts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SetReport {
    /// The checks of each artifact, by its directory `<variant>/<arch>`.
    pub artifacts: BTreeMap<String, AuditReport>,
    /// The checks of all artifacts together.
    pub checks: Vec<Check>,
}

impl SetReport {
    /// Whether every check holds.
    pub fn ok(&self) -> bool {
        self.class().is_none()
    }

    /// The class that decides the exit code; none when every check holds.
    pub fn class(&self) -> Option<Class> {
        let own = self.checks.iter().filter(|c| !c.ok).map(|c| c.class);
        self.artifacts.values().filter_map(AuditReport::class).chain(own).min()
    }

    /// The checks as tables: one for each artifact under its name, then one for all artifacts together.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (name, report) in &self.artifacts {
            out.push_str(&format!("{name}\n{}\n", report.table()));
        }
        let all = AuditReport {
            checks: self.checks.clone(),
        };
        out.push_str(&format!("all\n{}", all.table()));
        out
    }
}

/// Checks every artifact in `<dir>/<variant>/<arch>`, and that all artifacts of an architecture carry one root. `None` when `dir`
/// has no such directory.
pub fn audit_set(dir: &Path, options: &AuditOptions<'_>) -> Result<Option<SetReport>, AuditError> {
    let mut set = AuditedSet::default();
    for variant in directories(dir)? {
        for arch in directories(&dir.join(&variant))? {
            set.add(dir, &variant.join(arch), options)?;
        }
    }
    if set.artifacts.is_empty() {
        return Ok(None);
    }
    let count = set.artifacts.len();
    let mut checks = vec![
        set.places.check(
            "places",
            Class::Variants,
            format!("{count} artifacts in their directories"),
        ),
        check_roots(&set.roots),
    ];
    if let Some(policy) = options.policy {
        checks.extend(rules::check_set(policy, &set.present));
    }
    let artifacts = set.artifacts;
    Ok(Some(SetReport { artifacts, checks }))
}

/// The artifacts of a set that were audited so far, and the facts that are checked for all of them together.
#[derive(Default)]
struct AuditedSet {
    artifacts: BTreeMap<String, AuditReport>,
    /// Artifacts in a wrong directory, and directories without one.
    places: Problems,
    /// The artifacts that the manifests describe.
    present: BTreeSet<Target>,
    /// For each architecture the names of the artifacts that state a root.
    roots: BTreeMap<Arch, BTreeMap<VerityDigest, Vec<String>>>,
}

impl AuditedSet {
    /// Audits the artifact in the directory `below` of `dir`. A directory without a manifest is not an artifact, and a problem only if
    /// it has the name of one.
    fn add(&mut self, dir: &Path, below: &Path, options: &AuditOptions<'_>) -> Result<(), AuditError> {
        let (place, name) = (dir.join(below), visible_path(below));
        let Some(bytes) = read_small(&place.join(MANIFEST_FILE), MAX_SIZE)? else {
            if name.parse::<Target>().is_ok() {
                self.places.add(format!("{name} has no {MANIFEST_FILE}"));
            }
            return Ok(());
        };
        let report = match audit(&place, options) {
            Ok(verified) => verified.report().clone(),
            Err(AuditError::Failed { report, .. }) => report,
            Err(error @ AuditError::Io { .. }) => return Err(error),
        };
        self.artifacts.insert(name.clone(), report);
        // A manifest that cannot be read has failed its own check already.
        let Ok(manifest) = Manifest::read(&bytes, MANIFEST_FILE) else {
            return Ok(());
        };
        let arch = manifest.arch;
        let targets = manifest.variants.iter().map(|&variant| Target { variant, arch });
        let targets: Vec<Target> = targets.collect();
        let stated: Vec<String> = targets.iter().map(ToString::to_string).collect();
        self.present.extend(targets);
        self.places.equal(
            &format!("artifact that the manifest of {name:?} describes"),
            &name,
            &stated.join(", "),
        );
        let of_arch = self.roots.entry(arch).or_default();
        of_arch.entry(manifest.fsverity_root_hash).or_default().push(name);
        Ok(())
    }
}

/// Checks that all artifacts of an architecture state one root. Whether each artifact carries the root it states is checked before.
fn check_roots(roots: &BTreeMap<Arch, BTreeMap<VerityDigest, Vec<String>>>) -> Check {
    let mut problems = Problems::default();
    let mut found = Vec::new();
    for (arch, digests) in roots {
        if digests.len() > 1 {
            let lines: Vec<String> = digests
                .iter()
                .map(|(root, names)| format!("  {root} in {}", names.join(", ")))
                .collect();
            problems.add(format!(
                "the artifacts of {arch} carry {} roots\n{}",
                digests.len(),
                lines.join("\n")
            ));
        }
        found.extend(
            digests
                .iter()
                .map(|(root, names)| format!("{arch}: {root} in {} variants", names.len())),
        );
    }
    problems.check("one root", Class::Variants, found.join("\n"))
}

/// The artifacts in `<dir>/<variant>/<arch>`: the directories with a manifest, by the names of the directories.
pub fn find_artifacts(dir: &Path) -> Result<BTreeMap<Target, PathBuf>, AuditError> {
    let mut found = BTreeMap::new();
    for variant in directories(dir)? {
        for arch in directories(&dir.join(&variant))? {
            let below = variant.join(arch);
            let place = dir.join(&below);
            let manifest = place.join(MANIFEST_FILE);
            let there = manifest
                .try_exists()
                .map_err(|source| AuditError::Io { path: manifest, source })?;
            if let (true, Ok(target)) = (there, visible_path(&below).parse()) {
                found.insert(target, place);
            }
        }
    }
    Ok(found)
}

/// Names of the directories in `dir`, sorted.
fn directories(dir: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let at = |source: io::Error| AuditError::Io {
        path: dir.to_owned(),
        source,
    };
    let mut found = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "the names are sorted below")]
    let listing = fs::read_dir(dir).map_err(at)?;
    for entry in listing {
        let entry = entry.map_err(at)?;
        if entry.file_type().map_err(at)?.is_dir() {
            found.push(PathBuf::from(entry.file_name()));
        }
        if found.len() > MAX_ENTRIES {
            return Err(at(io::Error::other(format!(
                "it has more than {MAX_ENTRIES} directories"
            ))));
        }
    }
    found.sort();
    Ok(found)
}
