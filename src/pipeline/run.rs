//! Running one stage: fetch, lay out, sandbox, take the outputs.

use super::{
    Event, Events, Origins, PipelineError, Project,
    resolve::{ResolvedInput, ResolvedStage, STAGE_DIRECTORY, lay_out_packages},
};
use crate::{
    graph::{self, NodeId, StageFile},
    model::{Arch, Capability, ModelError, RelPath, VerityDigest},
    sandbox::{
        Access, BuildDir, BuiltinCall, Collected, Console, Emulator, Executor, Ids, Limits, LogSink, Mount, Network,
        OutputKind, OutputSpec, Processors, RootFs, SandboxError, Spec, Variation, Workload,
    },
    store::{self, Content, ObjectMode, Record, Store},
    writers,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// Lines of a failed stage's log that are shown.
const TAIL: usize = 30;
/// The variable that tells a stage how many processors it has.
const PROCESSORS: &str = "PNB_CPUS";

/// How stages are run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program that is started as the sandbox helper: pnb itself.
    pub helper: PathBuf,
    /// Whether any missing or weaker layer is an error.
    pub hermetic: bool,
    /// Whether the build directory of a failed stage is kept.
    pub keep_failed: bool,
    /// Build on disk below this directory instead of in memory.
    pub build_dir: Option<PathBuf>,
    /// Whether each line of a stage's output becomes an event.
    pub verbose: bool,
    /// Nodes whose artifacts will be exported by this program, to the file system that the store is on.
    pub exported: BTreeSet<NodeId>,
    /// Those of them that no node needs, if only the digests of their artifacts are wanted.
    pub unkept: BTreeSet<NodeId>,
    /// What is different from other builds, to see whether it matters.
    pub changed: Changed,
}

/// What a repeated build does differently. The default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// What every stage finds around it.
    pub variation: Variation,
    /// Whether stages see another number of processors, and others.
    pub processors: bool,
    /// Of stages that could start, the next is chosen by this number instead of in their order.
    pub order: Option<u64>,
    /// Whether files of inputs are copies instead of links to the store's.
    pub copies: bool,
    /// Build on disk below this directory, whatever [`RunOptions::build_dir`] says.
    pub build_dir: Option<PathBuf>,
}

impl Changed {
    fn surroundings_of(&self, file: &StageFile) -> Variation {
        let mut variation = self.variation.clone();
        if self.processors {
            let processors = other_processors(file.limits.cpus);
            let count = processors.count.to_string();
            variation.env.insert(PROCESSORS.to_owned(), count);
            variation.processors = Some(processors);
        }
        variation
    }
}

/// Another choice of processors than the first `declared` ones: one where several are declared, two where it is one, and the
/// last ones.
fn other_processors(declared: u32) -> Processors {
    let offered = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    Processors {
        count: if declared > 1 { 1 } else { offered.min(2) },
        last: true,
    }
}

/// The sandbox of a prepared node, its inputs fetched and laid out. What `scratch` names is removed by the caller.
pub fn stage_spec(
    project: &Project,
    store: &Store,
    inputs: &Origins,
    prepared: &ResolvedStage,
    options: &RunOptions,
    events: Events<'_>,
) -> Result<Spec, PipelineError> {
    let id = &prepared.id;
    let file = project.graph.file(id);
    let bad = |problem: String| PipelineError::Spec {
        node: id.clone(),
        problem,
    };
    let rel = |text: String| RelPath::new(text).map_err(|e| bad(e.to_string()));
    // What does not need the inputs is checked before they are fetched and laid out.
    let workload = workload(file, id.arch, project).map_err(bad)?;
    let capabilities = capabilities(&file.sandbox.capabilities).map_err(bad)?;
    let outputs = outputs(file, id.arch).map_err(bad)?;
    let mut mounts = Vec::new();
    let mut mount = |source: PathBuf, target: RelPath| {
        mounts.push(Mount {
            source,
            target,
            access: Access::ReadOnly,
        });
    };
    // Copies are a run's own, and go with its scratch.
    let copies = options.changed.copies;
    let pinned = store.of_pinned();
    let own = |file: PathBuf| match copies {
        false => Ok(file),
        true => store.copy_if_linked(&file),
    };
    let checkout = |digest: &VerityDigest| match copies {
        false => store.checkout(digest),
        true => store.copied_checkout(digest),
    };
    for (name, resolved) in &prepared.inputs {
        if name == STAGE_DIRECTORY {
            if let ResolvedInput::Tree(digest) = resolved {
                mount(checkout(digest)?, rel("stage".to_owned())?);
            }
            continue;
        }
        let target = rel(format!("inputs/{name}"))?;
        match resolved {
            ResolvedInput::Tree(digest) => {
                mount(checkout(digest)?, target);
                mount(store.object_path(digest)?, rel(format!("inputs/{name}.tree"))?);
            }
            ResolvedInput::File(digest, _) => {
                store.verify_object(digest)?;
                mount(own(store.plain_object(digest)?)?, target);
            }
            ResolvedInput::Pinned(file) => {
                let digest = inputs.ensure_file(project, pinned, file, events)?;
                pinned.verify_object(&digest)?;
                mount(own(pinned.plain_object(&digest)?)?, target);
            }
            ResolvedInput::Packages(packages, index) => {
                let refs: Vec<_> = packages.iter().collect();
                let digests = inputs.ensure_packages(project, pinned, &id.to_string(), &refs, events)?;
                let pairs: Vec<(&crate::lock::Package, VerityDigest)> = refs.into_iter().zip(digests).collect();
                // Links need the file system of what they link to.
                let dir = if copies { store } else { pinned }.scratch_path("packages");
                let index = index.as_deref().map(|suite| (suite, project.lock.source_date_epoch));
                lay_out_packages(pinned, &pairs, &dir, index, copies)?;
                mount(dir, target);
            }
        }
    }
    let emulator = match (&prepared.emulator, project.graph.emulator(id)) {
        (Some(digest), Some((_, arch))) => {
            let name = emulator_name(arch);
            let program = store.checkout(digest)?.join("usr/bin").join(name);
            if !program.is_file() {
                return Err(bad(format!("the emulator's tree holds no usr/bin/{name}")));
            }
            Some(Emulator { arch, program })
        }
        _ => None,
    };
    let root = match &prepared.root {
        Some(digest) => RootFs::Tree(store.checkout(digest)?),
        None => RootFs::Empty,
    };
    let build_dir = match (
        options.changed.build_dir.as_ref().or(options.build_dir.as_ref()),
        options.keep_failed,
    ) {
        (None, false) => BuildDir::Tmpfs,
        (base, _) => {
            let base = base.cloned().unwrap_or_else(|| store.root().join("failed"));
            fs::create_dir_all(&base).map_err(PipelineError::io("create", &base))?;
            let base = base.canonicalize().map_err(PipelineError::io("open", &base))?;
            let prefix = format!("{}-{}-", id.stage, id.arch);
            let fresh = store::quiet_directory(&base, &prefix);
            BuildDir::Disk(fresh.map_err(PipelineError::io("create a directory in", &base))?)
        }
    };
    Ok(Spec {
        stage: id.to_string(),
        root,
        mounts,
        workload,
        env: environment(file, id.arch, project.graph.build_arch(), &id.stage),
        epoch: project.lock.source_date_epoch,
        ids: match file.sandbox.ids {
            graph::StageIds::Single => Ids::Single,
            graph::StageIds::Range => Ids::Range,
        },
        capabilities,
        limits: limits(&file.limits),
        outputs,
        build_dir,
        keep_failed: options.keep_failed,
        dev_in: file.sandbox.dev_in.clone(),
        proc_mount: true,
        console: Console::Log,
        network: Network::None,
        emulator,
        variation: options.changed.surroundings_of(file),
    })
}

/// What QEMU calls its emulator of programs for `arch`.
const fn emulator_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "qemu-x86_64",
        Arch::Arm64 => "qemu-aarch64",
    }
}

fn workload(file: &StageFile, arch: Arch, project: &Project) -> Result<Workload, String> {
    Ok(match &file.workload {
        graph::StageWorkload::Command(argv) => Workload::Command {
            argv: argv.clone(),
            before: match &file.prepare {
                Some(name) => Some(writer_call(name, file, arch, project)?),
                None => None,
            },
        },
        graph::StageWorkload::Writer(name) => Workload::Builtin(writer_call(name, file, arch, project)?),
    })
}

fn writer_call(name: &str, file: &StageFile, arch: Arch, project: &Project) -> Result<BuiltinCall, String> {
    Ok(BuiltinCall {
        name: name.to_owned(),
        args: writer_arguments(name, file, arch, project)?,
    })
}

/// What the writer `name` is told, if there is one of that name.
fn writer_arguments(name: &str, file: &StageFile, arch: Arch, project: &Project) -> Result<Vec<u8>, String> {
    if !writers::names().any(|n| n == name) {
        let known: Vec<&str> = writers::names().collect();
        return Err(format!("there is no writer {name:?} (there are: {})", known.join(", ")));
    }
    let context = writers::Context {
        arch,
        epoch: project.lock.source_date_epoch,
        threads: file.limits.cpus,
        outputs: file.outputs_for(arch).map(|(name, _)| name.clone()).collect(),
    };
    serde_json::to_vec(&context).map_err(|e| e.to_string())
}

fn environment(file: &StageFile, arch: Arch, build_arch: Arch, stage: &str) -> BTreeMap<String, String> {
    let mut env = file.env.clone();
    env.insert("PNB_ARCH".to_owned(), arch.to_string());
    env.insert("PNB_BUILD_ARCH".to_owned(), build_arch.to_string());
    env.insert("PNB_STAGE".to_owned(), stage.to_owned());
    env.insert(PROCESSORS.to_owned(), file.limits.cpus.to_string());
    env
}

fn capabilities(names: &[String]) -> Result<BTreeSet<Capability>, String> {
    names
        .iter()
        .map(|name| name.parse().map_err(|e: ModelError| e.to_string()))
        .collect()
}

fn limits(limits: &graph::StageLimits) -> Limits {
    Limits {
        memory: limits.memory,
        processes: limits.processes,
        wall: limits.wall,
        log_bytes: limits.log,
        build_bytes: limits.build,
        build_inodes: limits.inodes,
        output_bytes: limits.output,
        output_entries: limits.inodes,
        tmp_bytes: Limits::TMP_BYTES,
        output_depth: Limits::OUTPUT_DEPTH,
        cpus: limits.cpus,
    }
}

/// What is taken out of the sandbox: outputs that are inputs as they are do not come from there.
fn outputs(file: &StageFile, arch: Arch) -> Result<Vec<OutputSpec>, String> {
    file.outputs_for(arch)
        .filter(|(_, spec)| spec.from.is_none())
        .map(|(name, spec)| {
            let path = match &spec.path {
                Some(path) => path.clone(),
                None => RelPath::new(name).map_err(|e| e.to_string())?,
            };
            Ok(OutputSpec {
                name: name.clone(),
                path,
                kind: match spec.kind {
                    graph::StageOutputKind::Tree => OutputKind::Tree,
                    graph::StageOutputKind::File => OutputKind::File,
                },
                allow_setid: spec.allow_setid,
                allow_devices: false,
            })
        })
        .collect()
}

/// Runs a prepared node and stores what it made.
pub(super) fn run_stage(
    project: &Project,
    store: &Store,
    inputs: &Origins,
    prepared: &ResolvedStage,
    options: &RunOptions,
    events: Events<'_>,
) -> Result<Record, PipelineError> {
    let id = &prepared.id;
    let spec = stage_spec(project, store, inputs, prepared, options, events)?;
    let log = store.start_log(&prepared.key, &id.stage, id.arch)?;
    let mut watch = Recorder::new(&log, prepared, options.verbose, events)?;
    let executor = Executor {
        helper: options.helper.clone(),
        strict: options.hermetic,
    };
    let file = project.graph.file(id);
    let copies = |output: &OutputSpec| project.graph.times_exported(id, &output.name, &options.exported);
    let mut put =
        |output: &OutputSpec, executable: bool, content: &mut dyn Content| -> io::Result<(VerityDigest, u64)> {
            let mode = ObjectMode::of_executable(executable);
            let stored = match copies(output) {
                1.. if options.unkept.contains(id) => store.hash_artifact(mode, content),
                copies => store.put_artifact(mode, content, copies),
            };
            stored.map_err(io::Error::other)
        };
    let result = executor.run(&spec, &mut put, &mut watch);
    remove_packages(&spec, &prepared.inputs);
    let kept = match &spec.build_dir {
        BuildDir::Disk(dir) if options.keep_failed && result.is_err() => {
            format!("\nbuild directory: {}", dir.display())
        }
        BuildDir::Disk(dir) => {
            let removed = fs::remove_dir(dir).map_err(PipelineError::io("remove", dir));
            // A failure of the stage says more.
            if result.is_ok() {
                removed?;
            }
            String::new()
        }
        BuildDir::Tmpfs => String::new(),
    };
    let (tail, flushed) = watch.finish();
    if result.is_ok() {
        flushed.map_err(PipelineError::io("write", &log))?;
    }
    let outcome = result.map_err(|source| match &source {
        SandboxError::Failed { .. } | SandboxError::Limit { .. } | SandboxError::Output { .. } => {
            PipelineError::Stage {
                node: id.clone(),
                problem: problem_of(&source),
                tail,
                log: format!("{}{kept}", log.display()),
            }
        }
        _ => PipelineError::Sandbox {
            node: id.clone(),
            source: Box::new(source),
        },
    })?;
    for layer in &outcome.weaker {
        events(Event::Weaker { layer: layer.clone() });
    }
    let mut outputs = BTreeMap::new();
    for (name, collected) in outcome.outputs {
        let output = match collected {
            Collected::File { digest, size, .. } => store::Output::File { digest, size },
            Collected::Tree(mut tree) => {
                tree.set_mtimes(project.lock.source_date_epoch);
                store::Output::Tree {
                    digest: store.put_tree(&tree)?,
                }
            }
        };
        outputs.insert(name, output);
    }
    outputs.extend(passed_on(file, prepared)?);
    let json = |value: Result<serde_json::Value, serde_json::Error>| {
        value.map_err(|e| PipelineError::Spec {
            node: id.clone(),
            problem: e.to_string(),
        })
    };
    Ok(Record {
        stage: id.stage.clone(),
        arch: id.arch,
        canonical: prepared.canonical.as_str().to_owned(),
        outputs,
        policy: json(serde_json::to_value(spec.policy()))?,
        measured: json(serde_json::to_value(&outcome.measured))?,
        weaker: outcome.weaker,
        cpu_ms: u64::try_from(outcome.cpu.as_millis()).unwrap_or(u64::MAX),
        wall_ms: u64::try_from(outcome.wall.as_millis()).unwrap_or(u64::MAX),
        peak_memory: outcome.peak_memory,
    })
}

/// Removes what was laid out for this run alone.
fn remove_packages(spec: &Spec, inputs: &BTreeMap<String, ResolvedInput>) {
    for (name, resolved) in inputs {
        if !matches!(resolved, ResolvedInput::Packages(..)) {
            continue;
        }
        let target = format!("inputs/{name}");
        for mount in spec.mounts.iter().filter(|m| m.target.to_string() == target) {
            // What cannot be removed now goes with the scratch directory it is in.
            let _ = fs::remove_dir_all(&mount.source);
        }
    }
}

/// The outputs that are inputs as they are: the same objects, which were hashed before the stage could see them.
fn passed_on(file: &StageFile, prepared: &ResolvedStage) -> Result<BTreeMap<String, store::Output>, PipelineError> {
    let from = |(name, spec): (&String, &graph::DeclaredOutput)| {
        let input = spec.from.as_ref()?.get_ref();
        let output = match prepared.inputs.get(input) {
            Some(ResolvedInput::File(digest, size)) => Ok(store::Output::File {
                digest: *digest,
                size: *size,
            }),
            _ => Err(PipelineError::Spec {
                node: prepared.id.clone(),
                problem: format!("output {name:?} is no file: the input {input:?} is not"),
            }),
        };
        Some(output.map(|output| (name.clone(), output)))
    };
    file.outputs_for(prepared.id.arch).filter_map(from).collect()
}

/// The part of a sandbox error that says how the stage ended.
fn problem_of(error: &SandboxError) -> String {
    match error {
        SandboxError::Failed { status, .. } => format!("it ended with {status}"),
        SandboxError::Limit { limit, .. } => format!("it reached its limit: {limit}"),
        SandboxError::Output { output, problem, .. } => format!("output {output:?}: {problem}"),
        other => other.to_string(),
    }
}

/// Writes a stage's output to its log, remembers the end, and reports lines.
struct Recorder<'a> {
    file: BufWriter<File>,
    line: Vec<u8>,
    tail: VecDeque<String>,
    prepared: &'a ResolvedStage,
    verbose: bool,
    events: Events<'a>,
}

impl<'a> Recorder<'a> {
    fn new(log: &Path, prepared: &'a ResolvedStage, verbose: bool, events: Events<'a>) -> Result<Self, PipelineError> {
        Ok(Self {
            file: BufWriter::new(File::create(log).map_err(PipelineError::io("create", log))?),
            line: Vec::new(),
            tail: VecDeque::new(),
            prepared,
            verbose,
            events,
        })
    }

    fn end_line(&mut self) {
        let line = plain(&self.line);
        self.line.clear();
        if self.verbose {
            (self.events)(Event::Log {
                node: self.prepared.id.clone(),
                line: line.clone(),
            });
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The last lines, and whether the whole log could be written.
    fn finish(mut self) -> (String, io::Result<()>) {
        if !self.line.is_empty() {
            self.end_line();
        }
        let lines: String = self.tail.iter().map(|l| format!("  {l}\n")).collect();
        (lines.trim_end().to_owned(), self.file.flush())
    }
}

impl LogSink for Recorder<'_> {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        self.file.write_all(bytes)?;
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < 4096 => self.line.push(byte),
                _ => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A line that cannot move the cursor, change colours or imitate pnb's own lines.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end_matches('\r')
        .chars()
        .map(|c| if c.is_control() && c != '\t' { '·' } else { c })
        .collect()
}

/// The spec of `stage_spec` with a shell in place of the stage's command, on this terminal.
pub fn shell_spec(mut spec: Spec, command: Option<&str>) -> Spec {
    let mut argv = vec!["/bin/sh".to_owned()];
    if let Some(command) = command {
        argv.extend(["-c".to_owned(), command.to_owned()]);
    }
    spec.workload = Workload::command(argv);
    spec.console = Console::Inherit;
    spec.outputs.clear();
    spec.limits.wall = std::time::Duration::from_secs(24 * 3600);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_laid_out_for_one_run_goes_with_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        let workload = Workload::command(Vec::new());
        let mut spec = Spec::new("stage", RootFs::Empty, workload);
        let mut inputs = BTreeMap::new();
        let tree = || ResolvedInput::Tree(crate::verity::digest_bytes(b"tree"));
        for (name, resolved) in [
            ("debs", ResolvedInput::Packages(Vec::new(), None)),
            ("tree", tree()),
            ("more", tree()),
        ] {
            let source = scratch.path().join(name);
            fs::create_dir(&source).expect("made");
            fs::write(source.join("file"), "x").expect("written");
            let target = RelPath::new(format!("inputs/{name}")).expect("a path");
            let access = Access::ReadOnly;
            spec.mounts.push(Mount { source, target, access });
            inputs.insert(name.to_owned(), resolved);
        }
        remove_packages(&spec, &inputs);
        let there = |name: &str| scratch.path().join(name).join("file").exists();
        assert_eq!(["debs", "tree", "more"].map(there), [false, true, true]);
    }
}
