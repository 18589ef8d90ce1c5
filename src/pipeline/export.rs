//! A built variant becomes files in `images/<variant>/<arch>/`, with the statements about them.

use super::{
    BuildOutcome, CODE_SANDBOX, CODE_WRITERS, Event, Events, PipelineError, Project,
    project::AGENT,
    resolve::{ResolvedInput, STAGE_DIRECTORY, digest_of},
    scheduler::Done,
};
use crate::{
    graph::{InputSource, NodeId, StageArch, StageOutputKind, closure_of},
    image::zstd,
    manifest::{
        Agent, AgentKind, BuildRecord, CodeDigests, Facts, Host, InputFact, MANIFEST_FILE, Origin, RECORD_FILE,
        RECORD_VERSION, Reproducibility, Role, RunState, StageFact, StageRun, Statements,
    },
    model::{Arch, Node, RelPath, Sha256Digest, Variant, VerityDigest, chain},
    store::Store,
    verity::{self, Digests},
    writers,
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};
use sha2::{Digest as _, Sha256};
use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Where the diagnostic agents lie in the project.
const DIAGNOSTIC: &str = "agent/diagnostic";
/// Stages and outputs whose content the manifest states.
const ROOT_STAGE: (&str, &str) = ("root", "root-digest");
const KERNEL_STAGE: (&str, &str) = ("kernel", "version");

/// What the pipeline cannot know by itself.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// When the build began and ended, seconds since 1970.
    pub started: u64,
    /// When it ended.
    pub finished: u64,
    /// The machine.
    pub host: Host,
    /// The pnb program.
    pub program: Program,
    /// Whether uncommitted stage files were allowed.
    pub allow_dirty: bool,
}

/// The pnb program; hashed once for all artifacts, and not at all when none is written.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    sha256: OnceCell<Sha256Digest>,
}

impl Program {
    /// The program at `path`.
    pub fn new(path: PathBuf) -> Self {
        let sha256 = OnceCell::new();
        Self { path, sha256 }
    }

    fn sha256(&self) -> Result<Sha256Digest, PipelineError> {
        if let Some(known) = self.sha256.get() {
            return Ok(*known);
        }
        let mut file = File::open(&self.path).map_err(PipelineError::io("open", &self.path))?;
        let mut both = verity::Both::new();
        std::io::copy(&mut file, &mut both).map_err(PipelineError::io("read", &self.path))?;
        Ok(*self.sha256.get_or_init(|| both.finish().sha256))
    }
}

/// Puts the artifact of `variant` below `images`, unless the very same is there already. Returns its directory.
pub fn export(
    project: &Project,
    store: &Store,
    outcome: &BuildOutcome,
    (variant, arch): (Variant, Arch),
    images: &Path,
    circumstances: &Circumstances,
    events: Events<'_>,
) -> Result<PathBuf, PipelineError> {
    let node = project.graph.node(variant.as_str(), arch)?;
    let dir = images.join(variant.as_str()).join(arch.as_str());
    let fingerprint = fingerprint(project, outcome, &node, circumstances)?;
    let note = note_of(&dir);
    if store
        .note(&note)
        .is_some_and(|old| stamps(&dir).is_ok_and(|s| old == format!("{fingerprint}{s}").into_bytes()))
    {
        events(Event::Exported {
            dir: dir.clone(),
            unchanged: true,
        });
        return Ok(dir);
    }
    let parent = images.join(variant.as_str());
    fs::create_dir_all(&parent).map_err(PipelineError::io("create", &parent))?;
    let made = tempfile::Builder::new()
        .prefix(&format!(".{arch}."))
        .tempdir_in(&parent);
    let fresh = made.map_err(PipelineError::io("create a directory in", &parent))?;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(fresh.path(), mode).map_err(PipelineError::io("write", fresh.path()))?;
    write_all(
        project,
        store,
        outcome,
        &node,
        (variant, arch),
        fresh.path(),
        circumstances,
    )?;
    // Of the files as they were written here: another builder may put its own in their place.
    let stamps = stamps(fresh.path()).map_err(PipelineError::io("look at", fresh.path()))?;
    replace(fresh, &dir)?;
    store.put_note(&note, format!("{fingerprint}{stamps}").as_bytes())?;
    events(Event::Exported {
        dir: dir.clone(),
        unchanged: false,
    });
    Ok(dir)
}

/// Adds a statement on reproducibility to the record of the artifact below `images`, if its manifest is the one with this digest.
/// Says whether it was.
pub fn state(
    store: &Store,
    images: &Path,
    (variant, arch): (Variant, Arch),
    manifest: &Sha256Digest,
    statement: &Reproducibility,
) -> Result<bool, PipelineError> {
    let dir = images.join(variant.as_str()).join(arch.as_str());
    let path = dir.join(RECORD_FILE);
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        read => read.map_err(PipelineError::io("read", &path))?,
    };
    let mut record = BuildRecord::read(&bytes, RECORD_FILE).map_err(PipelineError::Manifest)?;
    let written = dir.join(MANIFEST_FILE);
    let found = fs::read(&written).map_err(PipelineError::io("read", &written))?;
    if record.manifest_sha256 != *manifest || Sha256Digest::new(Sha256::digest(&found).into()) != *manifest {
        return Ok(false);
    }
    let before = stamps(&dir).map_err(PipelineError::io("look at", &dir))?;
    record.reproducibility = Some(statement.clone());
    let text = record.to_json().map_err(PipelineError::Manifest)?;
    let fresh = tempfile::NamedTempFile::new_in(&dir).map_err(PipelineError::io("create a file in", &dir))?;
    write(fresh.path(), &text)?;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o644)).map_err(PipelineError::io("write", &path))?;
    fresh
        .persist(&path)
        .map_err(|e| PipelineError::io("write", &path)(e.error))?;
    // The next build is to find what it made, and leave it there.
    let note = note_of(&dir);
    if let Some(fingerprint) = store.note(&note).and_then(|old| String::from_utf8(old).ok())
        && let Some(fingerprint) = fingerprint.strip_suffix(&before)
    {
        let after = stamps(&dir).map_err(PipelineError::io("look at", &dir))?;
        store.put_note(&note, format!("{fingerprint}{after}").as_bytes())?;
    }
    Ok(true)
}

/// Name of the store's note on what was exported to a directory.
fn note_of(dir: &Path) -> String {
    format!("export-{}", blake3::hash(dir.to_string_lossy().as_bytes()).to_hex())
}

/// Puts the directory `fresh` in the place of `dir` in one step; what was there goes.
fn replace(fresh: TempDir, dir: &Path) -> Result<(), PipelineError> {
    let failed = PipelineError::io("rename into place", dir);
    match renameat2(AT_FDCWD, fresh.path(), AT_FDCWD, dir, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => {
            // It has another name now; there is nothing left to remove.
            let _ = fresh.keep();
            Ok(())
        }
        Err(Errno::EEXIST) => {
            renameat2(AT_FDCWD, fresh.path(), AT_FDCWD, dir, RenameFlags::RENAME_EXCHANGE)
                .map_err(|e| failed(e.into()))?;
            let path = fresh.path().to_owned();
            fresh.close().map_err(PipelineError::io("remove", &path))
        }
        Err(e) => Err(failed(e.into())),
    }
}

/// Everything that decides the exported bytes, apart from the build record.
fn fingerprint(
    project: &Project,
    outcome: &BuildOutcome,
    node: &NodeId,
    c: &Circumstances,
) -> Result<String, PipelineError> {
    let mut text = format!(
        "pnb {} {} {:?} {} {} {:?}\n",
        env!("CARGO_PKG_VERSION"),
        env!("PNB_CODE"),
        project.revision,
        c.allow_dirty,
        project.lock_sha256,
        project.agent.is_some(),
    );
    for id in closure_of(&project.graph, std::slice::from_ref(node))?.order {
        if let Some(done) = outcome.nodes.get(&id) {
            let record = &done.record;
            let _ = writeln!(
                text,
                "{id} {} {} {:?}",
                done.prepared.key,
                record.weaker.len(),
                record.outputs
            );
        }
    }
    Ok(text)
}

/// Name, inode, size and times of everything below a directory: it changes when anybody touches a file.
fn stamps(dir: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        #[expect(clippy::disallowed_methods, reason = "the names are sorted")]
        let mut names: Vec<_> = fs::read_dir(dir.join(&below))?
            .map(|e| e.map(|e| e.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        for name in names {
            let name = below.join(name);
            let m = fs::symlink_metadata(dir.join(&name))?;
            let _ = writeln!(
                text,
                "{name:?} {} {} {}.{} {}.{}",
                m.ino(),
                m.size(),
                m.mtime(),
                m.mtime_nsec(),
                m.ctime(),
                m.ctime_nsec()
            );
            if m.is_dir() {
                waiting.push(name);
            }
        }
    }
    Ok(text)
}

fn write_all(
    project: &Project,
    store: &Store,
    outcome: &BuildOutcome,
    node: &NodeId,
    (variant, arch): (Variant, Arch),
    dir: &Path,
    circumstances: &Circumstances,
) -> Result<(), PipelineError> {
    let done = done(outcome, node)?;
    let mut artifacts = BTreeMap::new();
    for (name, spec) in &project.graph.file(node).outputs {
        let Some(output) = done.record.outputs.get(name) else {
            continue;
        };
        if !spec.is_exported() {
            continue;
        }
        let path = RelPath::new(name).map_err(|e| describe(e.to_string()))?;
        if spec.kind == StageOutputKind::File {
            artifacts.insert(path, store.copy_out(output.digest(), &dir.join(name))?);
        } else {
            copy_tree_out(store, output.digest(), (dir, &path), &mut artifacts)?;
        }
    }
    let stages = closure_of(&project.graph, std::slice::from_ref(node))?.order;
    let facts = facts(
        project,
        store,
        outcome,
        (variant, arch),
        circumstances,
        &stages,
        artifacts,
    )?;
    let statements = Statements::describe(&facts).map_err(PipelineError::Manifest)?;
    for (name, text) in &statements.files {
        write(&dir.join(name), text)?;
    }
    let record = BuildRecord {
        schema_version: RECORD_VERSION,
        manifest_sha256: statements.manifest_sha256,
        started: circumstances.started,
        finished: circumstances.finished,
        host: circumstances.host.clone(),
        pnb_sha256: circumstances.program.sha256()?,
        stages: stages
            .iter()
            .map(|id| {
                let done = self::done(outcome, id)?;
                let run = if done.cached { RunState::Cached } else { RunState::Ran };
                Ok(StageRun::new(done.prepared.key, run, &done.record))
            })
            .collect::<Result<_, PipelineError>>()?,
        reproducibility: None,
    };
    write(
        &dir.join(RECORD_FILE),
        &record.to_json().map_err(PipelineError::Manifest)?,
    )
}

fn write(path: &Path, text: &str) -> Result<(), PipelineError> {
    fs::write(path, text).map_err(PipelineError::io("write", path))
}

fn describe(problem: impl Into<String>) -> PipelineError {
    PipelineError::Describe {
        problem: problem.into(),
    }
}

fn done<'a>(outcome: &'a BuildOutcome, id: &NodeId) -> Result<&'a Done, PipelineError> {
    outcome
        .nodes
        .get(id)
        .ok_or_else(|| describe(format!("{id} was not built")))
}

/// Copies the directories and files of a tree below `path` in `dir`.
fn copy_tree_out(
    store: &Store,
    digest: &VerityDigest,
    (dir, path): (&Path, &RelPath),
    artifacts: &mut BTreeMap<RelPath, Digests>,
) -> Result<(), PipelineError> {
    let target = dir.join(path.as_path());
    fs::create_dir(&target).map_err(PipelineError::io("create", &target))?;
    for (below, entry) in store.tree(digest)?.iter() {
        let name = path.join(below);
        let target = dir.join(name.as_path());
        match &entry.node {
            Node::Directory => fs::create_dir(&target).map_err(PipelineError::io("create", &target))?,
            Node::File { digest, .. } => {
                artifacts.insert(name, store.copy_out(digest, &target)?);
            }
            _ => {
                return Err(describe(format!(
                    "{name} of the artifact is neither a file nor a directory"
                )));
            }
        }
    }
    Ok(())
}

/// A small file that a stage made, as one line of text.
fn line_of(
    project: &Project,
    store: &Store,
    outcome: &BuildOutcome,
    (stage, output): (&str, &str),
    arch: Arch,
) -> Result<String, PipelineError> {
    let id = project.graph.node(stage, arch)?;
    let missing = || describe(format!("{id} has no output {output:?}"));
    let found = done(outcome, &id)?.record.outputs.get(output).ok_or_else(missing)?;
    let text = String::from_utf8(store.read_object(found.digest())?).map_err(|e| describe(format!("{id}: {e}")))?;
    Ok(text.trim_end().to_owned())
}

/// The default kernel command line of a variant: that of its architecture, and what its stage adds in a file `cmdline`.
pub fn command_line(project: &Project, variant: Variant, arch: Arch) -> Result<String, PipelineError> {
    let stages = project.root.join(super::project::STAGES);
    let line = writers::command_line(&stages, variant, arch);
    line.map_err(|error| describe(format!("the kernel command line: {}", chain(&error))))
}

fn facts<'a>(
    project: &'a Project,
    store: &Store,
    outcome: &BuildOutcome,
    (variant, arch): (Variant, Arch),
    circumstances: &Circumstances,
    stages: &[NodeId],
    artifacts: BTreeMap<RelPath, Digests>,
) -> Result<Facts<'a>, PipelineError> {
    let root = line_of(project, store, outcome, ROOT_STAGE, arch)?;
    let root: VerityDigest = root.parse().map_err(|e| describe(format!("the root digest: {e}")))?;
    let agent = project.lock.file(AGENT, arch).ok_or_else(|| PipelineError::NotLocked {
        what: format!("the agent for {arch}"),
    })?;
    let shipped = RelPath::new(DIAGNOSTIC).map_err(|e| describe(e.to_string()))?;
    let diagnostic = agent.path.as_ref().is_some_and(|p| p.is_within(&shipped));
    let (mut package_sets, mut pinned_files, mut stage_facts, mut whole) =
        (BTreeMap::new(), BTreeMap::new(), Vec::new(), true);
    for id in stages {
        let done = done(outcome, id)?;
        whole &= done.record.weaker.is_empty();
        let file = project.graph.file(id);
        let role = match file.arch {
            StageArch::Build | StageArch::Host => Role::Tool,
            StageArch::Target => Role::Target,
        };
        let mut inputs = BTreeMap::new();
        for (name, resolved) in &done.prepared.inputs {
            let origin = origin(project, id, name)?;
            match (&origin, resolved) {
                (Origin::Packages(set), ResolvedInput::Packages(..)) => {
                    package_sets.insert(set.clone(), role);
                }
                (Origin::Lock(name), _) => {
                    pinned_files.insert(name.clone(), role);
                }
                _ => {}
            }
            let digest = digest_of(resolved)?;
            inputs.insert(name.trim_start_matches('@').to_owned(), InputFact { origin, digest });
        }
        let root = match (&file.root, done.prepared.root) {
            (Some(stage), Some(digest)) => Some((project.graph.node(stage.get_ref(), id.arch)?, digest)),
            _ => None,
        };
        let emulator = match (project.graph.emulator(id), done.prepared.emulator) {
            (Some((stage, _)), Some(digest)) => Some((project.graph.node(stage, id.arch)?, digest)),
            _ => None,
        };
        stage_facts.push(StageFact {
            node: id.clone(),
            key: done.prepared.key,
            workload: file.workload.clone(),
            env: file.env.clone(),
            policy: done.record.policy.clone(),
            root,
            emulator,
            inputs,
            outputs: done.record.outputs.clone(),
        });
    }
    let platform = stage_facts
        .iter()
        .flat_map(|stage| stage.inputs.values())
        .any(|input| input.origin == Origin::Platform)
        .then(|| project.platform.fact());
    let committed = project.revision.sha.is_some() && project.revision.dirty.is_empty();
    Ok(Facts {
        arch,
        variant,
        lock: &project.lock,
        lock_sha256: project.lock_sha256,
        git_sha: project.revision.sha.clone(),
        dirty: !project.revision.dirty.is_empty(),
        allow_dirty: circumstances.allow_dirty,
        hermetic: whole && (committed || circumstances.allow_dirty),
        kernel_version: line_of(project, store, outcome, KERNEL_STAGE, arch)?,
        kernel_command_line: command_line(project, variant, arch)?,
        root,
        platform,
        agent: Agent {
            kind: if diagnostic {
                AgentKind::Diagnostic
            } else {
                AgentKind::Pinned
            },
            name: agent.name.clone(),
            sha256: agent.sha256,
        },
        pnb_version: env!("CARGO_PKG_VERSION").to_owned(),
        code: CodeDigests {
            sandbox: CODE_SANDBOX.to_owned(),
            writers: CODE_WRITERS.to_owned(),
        },
        zstd_version: zstd::library_version().to_owned(),
        build_arch: project.graph.build_arch(),
        package_sets,
        pinned_files,
        stages: stage_facts,
        artifacts,
    })
}

fn origin(project: &Project, id: &NodeId, name: &str) -> Result<Origin, PipelineError> {
    if name == STAGE_DIRECTORY {
        let path = format!("{}/{}", super::project::STAGES, id.stage);
        return Ok(Origin::Repository(
            RelPath::new(path).map_err(|e| describe(e.to_string()))?,
        ));
    }
    let inputs = &project.graph.file(id).inputs;
    let found = inputs.iter().find(|(n, _)| n.get_ref() == name);
    let (_, input) = found.ok_or_else(|| describe(format!("{id} has no input {name:?}")))?;
    Ok(match &input.source {
        InputSource::Stage { stage, output } => {
            let from = project.graph.node(stage.get_ref(), id.arch)?;
            Origin::Stage {
                stage: from.stage,
                arch: from.arch,
                output: output.get_ref().clone(),
            }
        }
        InputSource::Files(path) => Origin::Repository(path.get_ref().clone()),
        InputSource::Lock(name) => Origin::Lock(name.get_ref().clone()),
        InputSource::Platform => Origin::Platform,
        InputSource::Packages => Origin::Packages(format!("{}/{}", id.stage, id.arch)),
    })
}
