//! The manifest that follows from the facts of a build.

use super::{
    ManifestError,
    document::{
        ArchiveFact, Artifact, BaseImageFact, Builder, FileFact, InputContent, LockFact, Manifest, PackageFact,
        PrefixedSha256, RootFact, SCHEMA_VERSION, SourceFact, SourcePackage, Stage, StageInput, package_set_digest,
        set_digest,
    },
    facts::{Facts, InputFact, Origin, Role, StageFact},
};
use crate::{
    graph::InputDigest,
    lock::{Archive, Package},
    model::{BuildOption, GitSha, NodeId, RelPath, VerityDigest},
    verity::Digests,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

fn bad(what: String, problem: impl Into<String>) -> ManifestError {
    ManifestError::Facts {
        what,
        problem: problem.into(),
    }
}

impl Manifest {
    /// The manifest of the artifact that `facts` describe. Facts that contradict each other or the lock are an error.
    pub fn describe(facts: &Facts<'_>) -> Result<Self, ManifestError> {
        check_words(facts)?;
        let packages = packages(facts)?;
        let archives = archives(facts);
        Ok(Manifest {
            schema_version: SCHEMA_VERSION,
            arch: facts.arch,
            base_image_digest: base_digest(facts.base_image.as_ref(), &packages),
            apt_snapshot: newest_snapshot(&packages, &archives).unwrap_or_default(),
            kernel_version: facts.kernel_version.clone(),
            git_sha: facts.git_sha.clone(),
            variants: vec![facts.variant],
            form: facts.form,
            image: facts.image.clone(),
            artifacts: artifacts(facts),
            oci_digest: facts.oci_digest.map(PrefixedSha256),
            fsverity_root_hash: facts.root,
            agent: facts.agent.clone(),
            archives,
            base_image: facts.base_image.clone(),
            builder: Builder {
                name: "pnb".to_owned(),
                version: facts.pnb_version.clone(),
                code: facts.code.clone(),
                zstd: facts.zstd_version.clone(),
                build_arch: facts.build_arch,
            },
            files: files(facts)?,
            hermetic: facts.hermetic,
            kernel_command_line: facts.kernel_command_line.clone(),
            lockfile: LockFact {
                sha256: facts.lock_sha256,
                version: facts.lock.version,
            },
            operating_system: facts.operating_system.clone(),
            packages,
            modules: facts.modules.clone(),
            platform: facts.platform.clone(),
            debug: facts.options.contains(&BuildOption::Debug),
            graphics: facts.options.contains(&BuildOption::Graphics),
            recovery: facts.options.contains(&BuildOption::Recovery),
            unsigned_modules: facts.options.contains(&BuildOption::UnsignedModules),
            root: RootFact::default(),
            source: SourceFact {
                dirty: facts.dirty,
                allow_dirty: facts.allow_dirty,
            },
            source_date_epoch: facts.lock.source_date_epoch,
            stages: stages(facts)?,
        })
    }

    /// The options that the artifact was built with.
    pub fn options(&self) -> Vec<BuildOption> {
        let given = |option: &BuildOption| match option {
            BuildOption::Recovery => self.recovery,
            BuildOption::UnsignedModules => self.unsigned_modules,
            BuildOption::Graphics => self.graphics,
            BuildOption::Debug => self.debug,
        };
        BuildOption::ALL.into_iter().filter(given).collect()
    }

    /// The value of `base_image_digest` that follows from the base image or, without one, from the packages.
    pub fn derived_base(&self) -> PrefixedSha256 {
        base_digest(self.base_image.as_ref(), &self.packages)
    }

    /// The value of `apt_snapshot` that follows from the packages and archives; `None` when there is no package.
    pub fn newest_snapshot(&self) -> Option<String> {
        newest_snapshot(&self.packages, &self.archives)
    }
}

fn base_digest(base: Option<&BaseImageFact>, packages: &[PackageFact]) -> PrefixedSha256 {
    match base {
        Some(base) => base.digest,
        None => PrefixedSha256(set_digest(packages, |p| p.role == Role::Target).1),
    }
}

fn newest_snapshot(packages: &[PackageFact], archives: &[ArchiveFact]) -> Option<String> {
    let used: BTreeSet<&str> = packages.iter().map(|p| p.archive.as_str()).collect();
    let archives = archives.iter().filter(|a| used.contains(a.name.as_str()));
    archives.map(|a| a.snapshot.clone()).max()
}

fn archives(facts: &Facts<'_>) -> Vec<ArchiveFact> {
    let fact = |archive: &Archive| ArchiveFact {
        name: archive.name.clone(),
        distribution: archive.distribution,
        suite: archive.suite.clone(),
        components: archive.components.clone(),
        snapshot: archive.snapshot.to_string(),
        snapshot_url: archive.snapshot_url.clone(),
        inrelease_sha256: archive.inrelease_sha256,
        keys: archive.keys.iter().map(ToString::to_string).collect(),
    };
    facts.lock.archives.iter().map(fact).collect()
}

fn artifacts(facts: &Facts<'_>) -> BTreeMap<RelPath, Artifact> {
    let fact = |(path, digests): (&RelPath, &Digests)| {
        let artifact = Artifact {
            sha256: digests.sha256,
            size_bytes: digests.size,
            fsverity: digests.verity,
        };
        (path.clone(), artifact)
    };
    facts.artifacts.iter().map(fact).collect()
}

fn check_words(facts: &Facts<'_>) -> Result<(), ManifestError> {
    for (name, value) in [
        ("the kernel version", &facts.kernel_version),
        ("the kernel command line", &facts.kernel_command_line),
        ("the version of pnb", &facts.pnb_version),
        ("the version of zstd", &facts.zstd_version),
    ] {
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(bad(
                name.to_owned(),
                format!("must be one line of text, but is {value:?}"),
            ));
        }
    }
    if let Some(sha) = &facts.git_sha {
        GitSha::from_str(sha).map_err(|error| bad("the git revision".to_owned(), error.to_string()))?;
    }
    if facts.artifacts.is_empty() {
        return Err(bad("the artifact".to_owned(), "has no file"));
    }
    if facts.stages.is_empty() {
        return Err(bad("the artifact".to_owned(), "has no stages"));
    }
    for path in facts.artifacts.keys() {
        super::sums::check_name(path.as_bytes()).map_err(|problem| bad(format!("the file \"{path}\""), problem))?;
        if super::is_statement(path) {
            return Err(bad(
                format!("the file \"{path}\""),
                "has the name of a statement, which no file of an artifact may have",
            ));
        }
    }
    if facts.dirty && facts.hermetic && !facts.allow_dirty {
        return Err(bad(
            "the build".to_owned(),
            "is hermetic, but from uncommitted files and without --allow-dirty",
        ));
    }
    Ok(())
}

fn packages(facts: &Facts<'_>) -> Result<Vec<PackageFact>, ManifestError> {
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    for package in &facts.lock.packages {
        let sets: Vec<String> = package
            .sets
            .iter()
            .map(ToString::to_string)
            .filter(|set| facts.package_sets.contains_key(set))
            .collect();
        let Some(role) = sets.iter().filter_map(|s| facts.package_sets.get(s)).min() else {
            continue;
        };
        let what = || format!("the package {} {} {}", package.name, package.version, package.arch);
        let archive = facts.lock.archive(&package.archive).ok_or_else(|| {
            bad(
                what(),
                format!(
                    "comes from the archive {:?}, which the lock does not have",
                    package.archive
                ),
            )
        })?;
        seen.extend(sets.iter().cloned());
        let details = facts.packages.get(&package.sha256).cloned().unwrap_or_default();
        out.push(PackageFact {
            name: package.name.clone(),
            arch: package.arch.clone(),
            version: package.version.clone(),
            source: source_of(package),
            maintainer: details.maintainer,
            depends: details.depends.into_iter().collect(),
            licenses: details.licenses,
            archive: package.archive.clone(),
            url: format!("{}/{}", archive.snapshot_url, package.path),
            size: package.size,
            sha256: package.sha256,
            sets,
            role: *role,
        });
    }
    if let Some(set) = facts.package_sets.keys().find(|s| !seen.contains(*s)) {
        return Err(bad(format!("the package set {set:?}"), "has no package in the lock"));
    }
    out.sort_by(|a, b| (&a.name, &a.arch, &a.version, &a.archive).cmp(&(&b.name, &b.arch, &b.version, &b.archive)));
    Ok(out)
}

/// The source of a locked package: `name version`, `name`, or nothing where it is named like the package and has its version.
fn source_of(package: &Package) -> SourcePackage {
    let stated = package.source.as_deref().unwrap_or(&package.name);
    let (name, version) = stated.split_once(' ').unwrap_or((stated, &package.version));
    SourcePackage {
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

fn files(facts: &Facts<'_>) -> Result<Vec<FileFact>, ManifestError> {
    let fact = |(name, role): (&String, &Role)| {
        let file = facts.lock.file(name, facts.arch).ok_or_else(|| {
            bad(
                format!("the file {name:?}"),
                format!("is not in the lock for {}", facts.arch),
            )
        })?;
        Ok(FileFact {
            name: name.clone(),
            path: file.path.clone(),
            url: file.url.clone(),
            size: file.size,
            sha256: file.sha256,
            role: *role,
        })
    };
    facts.pinned_files.iter().map(fact).collect()
}

fn stages(facts: &Facts<'_>) -> Result<Vec<Stage>, ManifestError> {
    let mut seen = BTreeSet::new();
    facts
        .stages
        .iter()
        .map(|fact| {
            if !seen.insert(&fact.node) {
                return Err(bad(format!("the stage {}", fact.node), "is reported twice"));
            }
            stage(facts, fact)
        })
        .collect()
}

fn stage(facts: &Facts<'_>, fact: &StageFact) -> Result<Stage, ManifestError> {
    let tree = |(node, digest): &(NodeId, VerityDigest)| StageInput {
        origin: Origin::Stage {
            stage: node.stage.clone(),
            arch: node.arch,
            output: "tree".to_owned(),
        },
        content: InputContent::Tree { digest: *digest },
    };
    for (name, input) in &fact.inputs {
        let what = || format!("input {name:?} of the stage {}", fact.node);
        match &input.origin {
            Origin::Packages(set) if !facts.package_sets.contains_key(set) => {
                return Err(bad(
                    what(),
                    format!("is the package set {set:?}, which the build did not report"),
                ));
            }
            Origin::Lock(file) if !facts.pinned_files.contains_key(file) => {
                return Err(bad(
                    what(),
                    format!("is the pinned file {file:?}, which the build did not report"),
                ));
            }
            Origin::Base if facts.base_image.is_none() => {
                return Err(bad(what(), "is the base image, which the build did not report"));
            }
            _ => {}
        }
    }
    Ok(Stage {
        stage: fact.node.stage.clone(),
        arch: fact.node.arch,
        key: fact.key,
        workload: fact.workload.clone(),
        env: fact.env.clone(),
        policy: fact.policy.clone(),
        root: fact.root.as_ref().map(tree),
        emulator: fact.emulator.as_ref().map(tree),
        inputs: fact.inputs.iter().map(|(name, i)| (name.clone(), input(i))).collect(),
        outputs: fact.outputs.clone(),
    })
}

fn input(fact: &InputFact) -> StageInput {
    let content = match &fact.digest {
        InputDigest::Tree(digest) => InputContent::Tree { digest: *digest },
        InputDigest::File(digest) => InputContent::File { digest: *digest },
        InputDigest::Pinned(sha256) => InputContent::Pinned { sha256: *sha256 },
        InputDigest::Packages(files, index) => InputContent::Packages {
            count: files.len() as u64,
            index: index.is_some(),
            sha256: package_set_digest(files.iter().map(|(name, sha256)| (name.as_str(), sha256))),
        },
    };
    StageInput {
        origin: fact.origin.clone(),
        content,
    }
}
