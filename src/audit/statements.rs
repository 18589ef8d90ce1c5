//! Checks of the statements against each other and against the files. Nothing here does I/O.

use super::{
    check::{Check, Class, Problems},
    layers::gaps,
};
use crate::{
    manifest::{
        AgentKind, BUILD_TYPE, Bom, BuildRecord, InputContent, MANIFEST_FILE, Manifest, ManifestError, Origin,
        PREDICATE_TYPE, PROVENANCE_FILE, RECORD_FILE, Role, SBOM_FILE, STATEMENT_TYPE, Stage, StageInput, Statement,
        is_statement,
    },
    model::{Fingerprint, GitSha, Moment, NodeId, RelPath, Sha256Digest, chain},
    store::Output,
    verity::Digests,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

/// The file of the project that gives an artifact a recovery, as an input of a stage.
const RECOVERY: &str = "stages/recovery";
/// The directory of the project that gives the consoles of a running node a shell.
const DEBUG: &str = "stages/root/debug";

/// Reads the manifest and checks that it describes one artifact.
pub(super) fn check_manifest(bytes: Option<&[u8]>, checks: &mut Vec<Check>) -> Option<Manifest> {
    let mut problems = Problems::default();
    let manifest = match bytes.map(|b| Manifest::read(b, MANIFEST_FILE)) {
        None => {
            problems.add(format!("\"{MANIFEST_FILE}\" is not there"));
            None
        }
        Some(Err(e)) => {
            problems.add(chain(&e));
            None
        }
        Some(Ok(manifest)) => Some(manifest),
    };
    let mut found = String::new();
    if let Some(manifest) = &manifest {
        match manifest.target() {
            Some(target) if manifest.form.supports(target.arch) => found = target.to_string(),
            Some(target) => problems.add(format!("no {} machine boots the form {}", target.arch, manifest.form)),
            None => problems.add(format!(
                "it describes {} variants, but must describe exactly one",
                manifest.variants.len()
            )),
        }
        if let Some(Err(error)) = manifest.git_sha.as_deref().map(GitSha::from_str) {
            problems.add(format!("git_sha: {error}"));
        }
        if manifest.hermetic && manifest.source.dirty && !manifest.source.allow_dirty {
            problems.add("hermetic is true, but the artifact was built from uncommitted files without --allow-dirty");
        }
        if manifest.artifacts.is_empty() {
            problems.add("it lists no artifact");
        }
    }
    checks.push(problems.check("manifest", Class::Manifest, found));
    manifest
}

/// Checks that the manifest's artifacts are exactly the files beside it.
pub(super) fn check_artifacts(
    manifest: &Manifest,
    found: &BTreeMap<RelPath, Digests>,
    listed: &BTreeMap<RelPath, Sha256Digest>,
) -> Check {
    let mut problems = Problems::default();
    for (path, artifact) in &manifest.artifacts {
        let Some(digests) = found.get(path) else {
            problems.add(format!("\"{path}\" is in the manifest but missing"));
            continue;
        };
        problems.equal(&format!("sha256 of \"{path}\""), &artifact.sha256, &digests.sha256);
        problems.equal(
            &format!("fs-verity digest of \"{path}\""),
            &artifact.fsverity,
            &digests.verity,
        );
        problems.equal(
            &format!("size of \"{path}\" in bytes"),
            &artifact.size_bytes,
            &digests.size,
        );
    }
    for path in listed.keys() {
        if !manifest.artifacts.contains_key(path) && !is_statement(path) {
            problems.add(format!("\"{path}\" is in the checksum list, but not in the manifest"));
        }
    }
    problems.check(
        "artifacts",
        Class::Artifacts,
        format!("{} files match the manifest", manifest.artifacts.len()),
    )
}

/// Checks that every input is pinned by digest, size and address, and that the values derived from the pins are right.
pub(super) fn check_pins(manifest: &Manifest) -> Check {
    let mut problems = Problems::default();
    check_archives(manifest, &mut problems);
    check_packages(manifest, &mut problems);
    check_agent(manifest, &mut problems);
    problems.equal(
        "base_image_digest",
        &manifest.derived_base(),
        &manifest.base_image_digest,
    );
    problems.equal(
        "apt_snapshot",
        &manifest.newest_snapshot().unwrap_or_default(),
        &manifest.apt_snapshot,
    );
    check_stages(manifest, &mut problems);
    if let Err(error) = manifest.check_names(MANIFEST_FILE) {
        problems.add(error.to_string());
    }
    let found = format!(
        "{} packages and {} files from {} archives, {} stages",
        manifest.packages.len(),
        manifest.files.len(),
        manifest.archives.len(),
        manifest.stages.len()
    );
    problems.check("inputs", Class::Pins, found)
}

fn check_archives(manifest: &Manifest, problems: &mut Problems) {
    for archive in &manifest.archives {
        let name = &archive.name;
        if let Err(error) = Moment::from_str(&archive.snapshot) {
            problems.add(format!("snapshot of archive {name:?}: {error}"));
        }
        let url = &archive.snapshot_url;
        let web = url.starts_with("https://") || url.starts_with("http://");
        if !web || !url.contains(&archive.snapshot) {
            problems.add(format!(
                "the address of archive {name:?} does not contain its snapshot: {url:?}"
            ));
        }
        if archive.keys.is_empty() {
            problems.add(format!("archive {name:?} has no signing key"));
        }
        for error in archive.keys.iter().filter_map(|key| Fingerprint::from_str(key).err()) {
            problems.add(format!("keys of archive {name:?}: {error}"));
        }
    }
}

fn check_packages(manifest: &Manifest, problems: &mut Problems) {
    for package in &manifest.packages {
        let file = package.file_name();
        let Some(archive) = manifest.archives.iter().find(|a| a.name == package.archive) else {
            problems.add(format!(
                "package {file:?} is from the unknown archive {:?}",
                package.archive
            ));
            continue;
        };
        let path = package.url.strip_prefix(archive.snapshot_url.as_str());
        let path = path.and_then(|p| p.strip_prefix('/'));
        if path.is_none_or(|p| RelPath::new(p).is_err()) {
            problems.add(format!(
                "the address of package {file:?} is not below the snapshot of its archive: {:?}",
                package.url
            ));
        }
        if package.size == 0 || package.sets.is_empty() {
            problems.add(format!("package {file:?} has no size or belongs to no set"));
        }
    }
}

/// Checks that a pinned agent is among the pinned files.
fn check_agent(manifest: &Manifest, problems: &mut Problems) {
    if manifest.agent.kind == AgentKind::Pinned {
        let pinned = manifest
            .files
            .iter()
            .find(|f| f.name == manifest.agent.name && f.role == Role::Target);
        match pinned {
            None => problems.add(format!(
                "the agent {:?} is not a pinned file of the artifact",
                manifest.agent.name
            )),
            Some(file) => problems.equal("sha256 of the agent", &file.sha256, &manifest.agent.sha256),
        }
    }
}

fn check_stages(manifest: &Manifest, problems: &mut Problems) {
    let mut made: BTreeMap<NodeId, &Stage> = BTreeMap::new();
    for stage in &manifest.stages {
        let node = stage.node();
        let trees = [("/", &stage.root), ("/emulator", &stage.emulator)];
        let trees = trees
            .into_iter()
            .filter_map(|(name, tree)| Some((name, tree.as_ref()?)));
        for (name, input) in trees.chain(stage.inputs.iter().map(|(name, input)| (name.as_str(), input))) {
            let mut bad = |problem: String| problems.add(format!("input {name:?} of the stage {node}: {problem}"));
            check_input(manifest, &made, input, &mut bad);
        }
        let taken = stage.policy["outputs"].as_array();
        for (name, output) in &stage.outputs {
            let given = taken.is_some_and(|all| all.iter().any(|o| o["name"] == **name));
            if !given && !is_input(stage, output) {
                problems.add(format!(
                    "output {name:?} of the stage {node} is neither an output of its sandbox nor one of its inputs"
                ));
            }
        }
        if made.insert(node.clone(), stage).is_some() {
            problems.add(format!("the stage {node} is listed twice"));
        }
    }
    let mut inputs = manifest.stages.iter().flat_map(|stage| stage.inputs.values());
    if manifest.base_image.is_some() && !inputs.any(|input| input.origin == Origin::Base) {
        problems.add("base_image states an image that no stage has as an input");
    }
    if manifest.stages.is_empty() {
        problems.add("it lists no stage");
    }
}

/// Whether an output is one of the stage's inputs, passed on unchanged.
fn is_input(stage: &Stage, output: &Output) -> bool {
    let Output::File { digest: made, .. } = output else {
        return false;
    };
    let same = |input: &StageInput| matches!(&input.content, InputContent::File { digest } if digest == made);
    stage.inputs.values().any(same)
}

fn check_input(manifest: &Manifest, made: &BTreeMap<NodeId, &Stage>, input: &StageInput, bad: &mut dyn FnMut(String)) {
    match (&input.origin, &input.content) {
        (Origin::Stage { stage, arch, output }, content) => {
            let from = NodeId::new(stage, *arch);
            let Some(given) = made.get(&from).and_then(|s| s.outputs.get(output)) else {
                return bad(format!("no earlier stage made output {output:?} of {from}"));
            };
            let (kind, digest) = match content {
                InputContent::Tree { digest } => (matches!(given, Output::Tree { .. }), digest),
                InputContent::File { digest } => (matches!(given, Output::File { .. }), digest),
                InputContent::Packages { .. } | InputContent::Pinned { .. } => {
                    return bad(format!("{content:?} cannot come from a stage"));
                }
            };
            if !kind || given.digest() != digest {
                let made = given.digest();
                bad(format!(
                    "it differs from output {output:?} of {from}\nexpected: {made}\n  actual: {digest}"
                ));
            }
        }
        (Origin::Packages(set), InputContent::Packages { count, sha256, .. }) => {
            let (expected, digest) = manifest.set_digest(|p| p.sets.contains(set));
            if (expected, &digest) != (*count, sha256) {
                let (made, given) = (
                    format!("{expected} packages, {digest}"),
                    format!("{count} packages, {sha256}"),
                );
                bad(format!(
                    "it differs from the package set {set:?}\nexpected: {made}\n  actual: {given}"
                ));
            }
        }
        (Origin::Lock(file), InputContent::Pinned { sha256 }) => {
            if !manifest.files.iter().any(|f| f.name == *file && f.sha256 == *sha256) {
                bad(format!(
                    "the manifest lists no pinned file {file:?} with sha256 {sha256}"
                ));
            }
        }
        (Origin::Repository(path), _) if path.as_bytes() == RECOVERY.as_bytes() && !manifest.recovery => {
            bad("it gives the artifact a recovery, and the manifest states none".to_owned());
        }
        (Origin::Repository(path), _) if path.as_bytes() == DEBUG.as_bytes() && !manifest.debug => {
            bad("it gives the consoles of a node a shell, and the manifest does not state the option debug".to_owned());
        }
        (Origin::Repository(_), InputContent::Tree { .. } | InputContent::File { .. }) => {}
        (Origin::Platform, InputContent::Tree { .. }) if manifest.platform.is_some() => {}
        (Origin::ModuleTrust, InputContent::Tree { .. }) => {}
        (Origin::Base, InputContent::Pinned { sha256 }) => match &manifest.base_image {
            Some(base) if base.manifest.0 == *sha256 => {}
            Some(base) => bad(format!(
                "it differs from the manifest of the base image\nexpected: {}\n  actual: {sha256}",
                base.manifest.0
            )),
            None => bad("the manifest states no base image".to_owned()),
        },
        (Origin::Platform, _) => bad("the manifest states no platform".to_owned()),
        (origin, content) => bad(format!("{content:?} cannot come from {origin:?}")),
    }
}

/// Adds a problem for every item that only one of two sets has.
fn same_sets<T: Ord + fmt::Display>(problems: &mut Problems, file: &str, expected: &BTreeSet<T>, actual: &BTreeSet<T>) {
    for item in expected.difference(actual) {
        problems.add(format!("{file:?} lacks {item}"));
    }
    for item in actual.difference(expected) {
        problems.add(format!("{file:?} has {item}, which the manifest lacks"));
    }
}

/// Checks that the SBOM lists the same components as the manifest.
pub(super) fn check_sbom(manifest: &Manifest, bytes: Option<&[u8]>) -> Check {
    let mut problems = Problems::default();
    let mut found = String::new();
    match (bytes.map(|b| Bom::read(b, SBOM_FILE)), Bom::describe(manifest)) {
        (None, _) => problems.add(format!("\"{SBOM_FILE}\" is not there")),
        (Some(Err(e)), _) | (_, Err(e)) => problems.add(chain(&e)),
        (Some(Ok(actual)), Ok(expected)) => {
            let components = |bom: &Bom| -> BTreeSet<String> {
                let line = |c: &crate::manifest::Component| {
                    let hashes: Vec<String> = c.hashes.iter().map(|h| format!("{} {}", h.alg, h.content)).collect();
                    let name = c.purl.as_deref().or(c.bom_ref.as_deref()).unwrap_or(&c.name);
                    format!(
                        "{name} ({}, {})",
                        hashes.join(", "),
                        c.scope.as_deref().unwrap_or("no scope")
                    )
                };
                bom.components.iter().map(line).collect()
            };
            same_sets(&mut problems, SBOM_FILE, &components(&expected), &components(&actual));
            match actual.derived_serial() {
                Ok(serial) => problems.equal("serialNumber", &serial, &actual.serial_number),
                Err(e) => problems.add(chain(&e)),
            }
            for (what, a, b) in [
                ("bomFormat", &expected.bom_format, &actual.bom_format),
                ("specVersion", &expected.spec_version, &actual.spec_version),
                ("timestamp", &expected.metadata.timestamp, &actual.metadata.timestamp),
                (
                    "component",
                    &expected.metadata.component.name,
                    &actual.metadata.component.name,
                ),
            ] {
                problems.equal(&format!("{what} of {SBOM_FILE:?}"), a, b);
            }
            // Whatever else differs is not told apart: everything in it follows from the manifest.
            if problems.is_empty() && actual != expected {
                problems.add(format!("{SBOM_FILE:?} is not the one that follows from the manifest"));
            }
            found = format!("{} components as in the manifest", actual.components.len());
        }
    }
    problems.check("sbom", Class::Sbom, found)
}

/// Checks that the provenance states the files, the digest and the inputs of this manifest.
pub(super) fn check_provenance(manifest: &Manifest, manifest_sha256: &Sha256Digest, bytes: Option<&[u8]>) -> Check {
    let mut problems = Problems::default();
    let mut found = String::new();
    match bytes.map(|b| Statement::read(b, PROVENANCE_FILE)) {
        None => problems.add(format!("\"{PROVENANCE_FILE}\" is not there")),
        Some(Err(e)) => problems.add(chain(&e)),
        Some(Ok(actual)) => {
            let expected = Statement::describe(manifest, manifest_sha256);
            let (a, b) = (&expected.predicate, &actual.predicate);
            for (what, a, b) in [
                ("_type", STATEMENT_TYPE, actual.kind.as_str()),
                ("predicateType", PREDICATE_TYPE, &actual.predicate_type),
                ("buildType", BUILD_TYPE, &b.build_definition.build_type),
                ("builder.id", &a.run_details.builder.id, &b.run_details.builder.id),
            ] {
                problems.equal(&format!("{what} of {PROVENANCE_FILE:?}"), &a, &b);
            }
            for (what, a, b) in [
                ("subject", &expected.subject, &actual.subject),
                (
                    "resolved dependency",
                    &a.build_definition.resolved_dependencies,
                    &b.build_definition.resolved_dependencies,
                ),
                ("byproduct", &a.run_details.byproducts, &b.run_details.byproducts),
            ] {
                let lines = |resources: &[crate::manifest::Resource]| -> BTreeSet<String> {
                    let digests = |r: &crate::manifest::Resource| -> Vec<String> {
                        r.digest.iter().map(|(alg, hex)| format!("{alg} {hex}")).collect()
                    };
                    resources
                        .iter()
                        .map(|r| format!("the {what} {:?} ({})", r.name, digests(r).join(", ")))
                        .collect()
                };
                same_sets(&mut problems, PROVENANCE_FILE, &lines(a), &lines(b));
            }
            if a.build_definition.external_parameters != b.build_definition.external_parameters
                || a.build_definition.internal_parameters != b.build_definition.internal_parameters
            {
                problems.add(format!("{PROVENANCE_FILE:?} has other parameters than the manifest"));
            }
            found = format!("{} subjects match", actual.subject.len());
        }
    }
    problems.check("provenance", Class::Provenance, found)
}

/// Checks that the record belongs to this manifest and, where the manifest claims a hermetic build, shows every layer of the sandbox
/// around every stage. `record` is the result of reading it; `None` when the file does not exist.
pub(super) fn check_record(
    manifest: &Manifest,
    manifest_sha256: &Sha256Digest,
    record: Option<Result<&BuildRecord, &ManifestError>>,
) -> Check {
    let mut problems = Problems::default();
    let mut found = String::new();
    match record {
        None => problems.add(format!(
            "\"{RECORD_FILE}\" is not there, so the sandbox was not measured"
        )),
        Some(Err(e)) => problems.add(chain(e)),
        Some(Ok(record)) => {
            problems.equal(
                &format!("manifest_sha256 of {RECORD_FILE:?}"),
                manifest_sha256,
                &record.manifest_sha256,
            );
            let mut weaker = 0;
            for stage in &manifest.stages {
                let node = stage.node();
                let Some(run) = record
                    .stages
                    .iter()
                    .find(|r| r.stage == stage.stage && r.arch == stage.arch)
                else {
                    problems.add(format!("{RECORD_FILE:?} lacks the stage {node}"));
                    continue;
                };
                problems.equal(&format!("key of the stage {node}"), &stage.key, &run.key);
                weaker += usize::from(!run.weaker.is_empty());
                if !manifest.hermetic {
                    continue;
                }
                if !run.weaker.is_empty() {
                    let layers = run.weaker.join(", ");
                    problems.add(format!(
                        "hermetic is true, but the stage {node} ran with weaker layers: {layers}"
                    ));
                }
                for gap in gaps(&run.measured) {
                    problems.add(format!(
                        "hermetic is true, but in the sandbox of the stage {node} {gap}"
                    ));
                }
            }
            found = match manifest.hermetic {
                true => format!("hermetic; measured in {} stages", record.stages.len()),
                false => format!(
                    "not hermetic; {weaker} of {} stages had weaker layers",
                    record.stages.len()
                ),
            };
        }
    }
    problems.check("sandbox", Class::Sandbox, found)
}
