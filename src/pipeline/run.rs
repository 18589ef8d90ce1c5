//! Runs one stage: places its inputs, runs the sandbox, and stores the outputs.

use super::{
    BuildContext, Event, PipelineError,
    placement::{Placement, RunContext, place},
    recipe::{PROCESSORS, Recipe},
    recorder::Recorder,
    resolve::{ResolvedInput, ResolvedStage},
};
use crate::{
    graph::{DeclaredOutput, StageFile},
    model::{Hint, NodeId, StageKey, Target, VerityDigest, lock, visible_path},
    sandbox::{
        BuildDir, Collected, Executor, OutputSpec, Processors, SandboxError, Spec, StageOutcome, Variation, check_host,
    },
    store::{self, Content, ObjectMode, Record},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// The options for running stages.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program that is started as the sandbox helper: pnb itself.
    pub helper: PathBuf,
    /// Whether a missing or weaker layer of the sandbox is an error.
    pub hermetic: bool,
    /// Whether the build directory of a failed stage is kept.
    pub keep_failed: bool,
    /// Directory on disk for the build directories; `None` for memory.
    pub build_dir: Option<PathBuf>,
    /// Whether each line of a stage's output becomes an event.
    pub verbose: bool,
    /// Nodes with artifacts that this program will export, to the file system of the store.
    pub exported: BTreeSet<NodeId>,
    /// The nodes among them that no other node needs, if only the digests of their artifacts are needed.
    pub unkept: BTreeSet<NodeId>,
    /// The artifacts whose statements this program will write.
    pub described: BTreeSet<Target>,
    /// The varied circumstances, which show whether an output depends on them.
    pub changed: Changed,
    /// Whether this machine was found to run stages, by the first stage that has to run.
    pub checked: HostChecked,
}

/// Whether this machine was found to run stages; the clones of one value know it together.
#[derive(Clone, Debug, Default)]
pub struct HostChecked(Arc<Mutex<BTreeSet<bool>>>);

impl HostChecked {
    /// Tries the machine once, before anything is fetched for a stage: with a range of ids if a stage will need one.
    pub(super) fn ensure(&self, helper: &Path, range: bool) -> Result<(), PipelineError> {
        let mut known = lock(&self.0);
        if known.contains(&range) || known.contains(&true) {
            return Ok(());
        }
        check_host(helper, range).map_err(|error| PipelineError::Host(Box::new(error)))?;
        known.insert(range);
        Ok(())
    }
}

impl RunOptions {
    /// The options of an ordinary run with the sandbox helper `helper`: nothing is kept, logged as events or varied, and weaker
    /// layers are allowed.
    pub fn new(helper: PathBuf) -> Self {
        Self {
            helper,
            hermetic: false,
            keep_failed: false,
            build_dir: None,
            verbose: false,
            exported: BTreeSet::new(),
            unkept: BTreeSet::new(),
            described: BTreeSet::new(),
            changed: Changed::default(),
            checked: HostChecked::default(),
        }
    }
}

/// The varied circumstances of a repeated build. The default varies nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// The surroundings of every stage.
    pub variation: Variation,
    /// Whether stages run on other processors, and on another number of them.
    pub processors: bool,
    /// Seed that chooses the next stage among those that are ready; `None` for the order of the closure.
    pub order: Option<u64>,
    /// Whether files of inputs are hard links to objects instead of copies.
    pub links: bool,
    /// Directory on disk for the build directories, in place of [`RunOptions::build_dir`].
    pub build_dir: Option<PathBuf>,
}

/// The surroundings of a stage that declares `cpus` processors.
pub(super) fn varied(changed: &Changed, cpus: u32) -> Variation {
    let mut variation = changed.variation.clone();
    if changed.processors {
        let processors = other_processors(cpus);
        let count = processors.count.to_string();
        variation.env.insert(PROCESSORS.to_owned(), count);
        variation.processors = Some(processors);
    }
    variation
}

/// Other processors than the first `declared` ones: the last one if several are declared, the last two if one is. A host that has one only
/// shows as many as these too.
fn other_processors(declared: u32) -> Processors {
    Processors {
        count: if declared > 1 { 1 } else { 2 },
        last: true,
    }
}

/// Runs a resolved stage and stores its outputs.
pub(super) fn run_stage(context: &BuildContext<'_>, resolved: &ResolvedStage) -> Result<Record, PipelineError> {
    let BuildContext { project, options, .. } = *context;
    let id = &resolved.id;
    let copies = |output: &OutputSpec| project.graph.times_exported(id, &output.name, &options.exported);
    let recipe = Recipe::new(project, resolved)?;
    let mut record = run_recipe(
        &context.into(),
        recipe,
        resolved.canonical.as_str(),
        &resolved.key,
        &copies,
    )?;
    record.outputs.extend(forwarded(project.graph.file(id), resolved)?);
    Ok(record)
}

/// Runs a recipe and stores its outputs; `copies` is the number of files of artifacts that an output will become.
pub(super) fn run_recipe(
    context: &RunContext<'_>,
    recipe: Recipe<'_>,
    canonical: &str,
    key: &StageKey,
    copies: &dyn Fn(&OutputSpec) -> usize,
) -> Result<Record, PipelineError> {
    let store = context.store;
    let id = recipe.id;
    let Placement { spec, packages } = place(context, recipe)?;
    let spec = &spec;
    let log = store.start_log(key, &id.stage, id.arch)?;
    let mut recorder = Recorder::new(context, &log, id)?;
    let result = execute(context, spec, id, copies, &mut recorder);
    drop(packages);
    let kept = finish_build_dir(context, spec, result.is_ok())?;
    let (tail, flushed) = recorder.finish();
    if result.is_ok() {
        flushed.map_err(PipelineError::io("write", &log))?;
    }
    // A failure of the stage is shown with the end of its log; a failure of the sandbox has nothing to do with that log.
    let outcome = result.map_err(|source| match problem_of(&source) {
        Some(problem) => PipelineError::Stage {
            node: id.clone(),
            problem,
            tail,
            log: format!("{}{kept}", visible_path(&log)),
            hint: source.hint().map(|hint| hint.into_owned().into_boxed_str()),
        },
        None => PipelineError::Sandbox(Box::new(source)),
    })?;
    for layer in &outcome.weaker {
        (context.events)(Event::Weaker { layer: layer.clone() });
    }
    record(context, id, canonical, spec, outcome)
}

/// Runs the sandbox. A file of an artifact is written once more for each export to come, while its bytes are at hand.
fn execute(
    context: &RunContext<'_>,
    spec: &Spec,
    id: &NodeId,
    copies: &dyn Fn(&OutputSpec) -> usize,
    recorder: &mut Recorder<'_>,
) -> Result<StageOutcome, SandboxError> {
    let RunContext { store, options, .. } = *context;
    let executor = Executor {
        helper: options.helper.clone(),
        strict: options.hermetic,
    };
    // An artifact that is only compared by digest is hashed and not stored.
    let mut put =
        |output: &OutputSpec, executable: bool, content: &mut dyn Content| -> io::Result<(VerityDigest, u64)> {
            let mode = ObjectMode::of_executable(executable);
            let stored = match copies(output) {
                1.. if options.unkept.contains(id) => store.hash_artifact(mode, content),
                copies => store.put_artifact(mode, content, copies),
            };
            stored.map_err(io::Error::other)
        };
    executor.run(spec, &mut put, recorder)
}

/// Removes the build directory of a run, or returns the line with its path if it is kept.
fn finish_build_dir(context: &RunContext<'_>, spec: &Spec, ok: bool) -> Result<String, PipelineError> {
    match &spec.build_dir {
        BuildDir::Disk(dir) if context.options.keep_failed && !ok => {
            Ok(format!("\nbuild directory: {}", visible_path(dir)))
        }
        BuildDir::Disk(dir) => {
            let removed = store::remove_build_directory(dir).map_err(PipelineError::io("remove", dir));
            // The error of a failed stage matters more than this one.
            if ok {
                removed?;
            }
            Ok(String::new())
        }
        BuildDir::Tmpfs => Ok(String::new()),
    }
}

/// Stores the trees and makes the record of the run.
fn record(
    context: &RunContext<'_>,
    id: &NodeId,
    canonical: &str,
    spec: &Spec,
    outcome: StageOutcome,
) -> Result<Record, PipelineError> {
    let mut outputs = BTreeMap::new();
    for (name, collected) in outcome.outputs {
        let output = match collected {
            Collected::File { digest, size, .. } => store::Output::File { digest, size },
            Collected::Tree(mut tree) => {
                // Times depend on the run, and equal content has to give an equal digest.
                tree.set_mtimes(spec.epoch);
                store::Output::Tree {
                    digest: context.store.put_tree(&tree)?,
                }
            }
        };
        outputs.insert(name, output);
    }
    let json = |value: Result<serde_json::Value, serde_json::Error>| {
        value.map_err(|e| PipelineError::Spec {
            node: id.clone(),
            problem: e.to_string(),
        })
    };
    Ok(Record {
        stage: id.stage.clone(),
        arch: id.arch,
        canonical: canonical.to_owned(),
        outputs,
        policy: json(serde_json::to_value(spec.policy()))?,
        measured: json(serde_json::to_value(&outcome.measured))?,
        weaker: outcome.weaker,
        cpu_ms: u64::try_from(outcome.cpu.as_millis()).unwrap_or(u64::MAX),
        wall_ms: u64::try_from(outcome.wall.as_millis()).unwrap_or(u64::MAX),
        peak_memory: outcome.peak_memory,
    })
}

/// The outputs that pass an input on. They are the objects of the inputs, hashed before the stage ran, so it cannot change them.
pub(super) fn forwarded(
    file: &StageFile,
    resolved: &ResolvedStage,
) -> Result<BTreeMap<String, store::Output>, PipelineError> {
    let from = |(name, declared): (&String, &DeclaredOutput)| {
        let input = declared.from.as_ref()?.get_ref();
        let output = match resolved.inputs.get(input) {
            Some(ResolvedInput::File(digest, size)) => Ok(store::Output::File {
                digest: *digest,
                size: *size,
            }),
            _ => Err(PipelineError::Spec {
                node: resolved.id.clone(),
                problem: format!("output {name:?} passes on the input {input:?}, which is no file"),
            }),
        };
        Some(output.map(|output| (name.clone(), output)))
    };
    file.outputs_for(resolved.id.arch).filter_map(from).collect()
}

/// The failure of the stage itself; `None` for a failure of the sandbox.
fn problem_of(error: &SandboxError) -> Option<String> {
    match error {
        SandboxError::Failed { status, .. } => Some(format!("it ended with {status}")),
        SandboxError::Refused { refused, .. } => Some(format!(
            "it ended well although the sandbox refused system calls:{refused}"
        )),
        SandboxError::Limit { limit, .. } => Some(format!("it reached its limit: {limit}")),
        SandboxError::Output { output, problem, .. } => Some(format!("output {output:?}: {problem}")),
        _ => None,
    }
}
