//! `pnb verify-repro`: builds twice under different circumstances and explains what differs.

use super::{
    Exit,
    args::{AskedArch, Common, GivenArgs, Selection, one_of},
    claimed::match_claim,
    closing::Closing,
    command_text::from_here,
    context::{give, hermetic, origins, project, run_options, select, store},
    failure::{Failure, Fatal},
    host::{host, now, processors},
    interrupt,
    remote::{Engine, RemoteArgs},
    report::Report,
    workers::{WorkerArgs, WorkerChoiceError},
};
use clap::{Args, builder::TypedValueParser};
use pnb::{
    model::{Arch, Hint, ModelError},
    pipeline::{self, Circumstances, Program, Project, ReproRequest, ReproResult, RunOptions, SecondPlace},
    repro::{self, Axis, Claim, ReproVerdict, State, UnknownAxis},
};
use std::{collections::BTreeSet, fs, io, path::PathBuf};

/// Number of differences of one output that are printed for people.
const SHOWN: usize = 10;

/// Options of `pnb verify-repro`.
#[derive(Args, Debug)]
#[command(
    after_help = "Both builds run every stage anew, each in a store of its own; only pinned files come from the store.\n\n\
    Examples:\n  pnb verify-repro --arch amd64 --variant kernel-initrd --report report.html\n  \
    pnb verify-repro --variant raw --vary clock,locale,listing\n  \
    pnb verify-repro --against images/raw/amd64\n  \
    pnb verify-repro --variant raw --on workers --remote grpc://farm.example.org:8980"
)]
pub(super) struct VerifyReproArgs {
    /// The artifacts or stages to build.
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Circumstances that differ in the second build, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "AXIS", value_parser = asked_axis())]
    pub(super) vary: Vec<AskedAxis>,
    /// Build once and compare with this manifest, or with the manifest in this directory. Its lock, revision and pnb must be the
    /// present ones
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["variant", "arch", "stage"])]
    pub(super) against: Option<PathBuf>,
    /// Write the verdict as an HTML page
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Keep both stores on disk; without this option they are in memory (/dev/shm) if there is room
    #[arg(long)]
    pub(super) on_disk: bool,
    /// Do not search for the cause of a difference; the search runs stages again
    #[arg(long)]
    pub(super) no_explain: bool,
    /// Fail if a layer of the sandbox is missing or stage files are uncommitted
    #[arg(long)]
    pub(super) hermetic: bool,
    /// With --hermetic: build although stage files are uncommitted
    #[arg(long)]
    pub(super) allow_dirty: bool,
    /// Where the stages of the second build run: on workers of --remote, with the tools of this machine, or natively on workers of this
    /// architecture. Nothing is varied then
    #[arg(long, value_name = "WHERE", value_parser = second_machine(), conflicts_with_all = ["vary", "against"])]
    pub(super) on: Option<SecondMachine>,
    /// Number of stages that run at the same time [default: number of processors]
    #[arg(long, short, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// The engine of --on.
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
    /// The workers of that engine.
    #[command(flatten)]
    pub(super) workers: WorkerArgs,
    /// Inputs that replace the project's.
    #[command(flatten)]
    pub(super) given: GivenArgs,
    /// Directory of the artifacts; those with the built bytes get the verdict in their build record [default: images/ in the
    /// project]
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
}

/// A value of `--vary`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AskedAxis {
    /// `all`.
    All,
    /// `none`.
    None,
    /// The name of an axis.
    One(Axis),
}

impl std::str::FromStr for AskedAxis {
    type Err = UnknownAxis;
    fn from_str(text: &str) -> Result<Self, UnknownAxis> {
        match text {
            "all" => Ok(AskedAxis::All),
            "none" => Ok(AskedAxis::None),
            _ => text.parse().map(AskedAxis::One),
        }
    }
}

/// A value of `--on`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SecondMachine {
    /// `workers`.
    Workers,
    /// The name of an architecture.
    Native(Arch),
}

impl std::str::FromStr for SecondMachine {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "workers" => Ok(Self::Workers),
            _ => text.parse().map(Self::Native),
        }
    }
}

fn second_machine() -> impl TypedValueParser<Value = SecondMachine> {
    one_of(["workers"].into_iter().chain(Arch::ALL.map(Arch::as_str)))
}

fn asked_axis() -> impl TypedValueParser<Value = AskedAxis> {
    one_of(
        ["all", "none"]
            .into_iter()
            .chain(Axis::ALL.iter().map(|axis| axis.as_str())),
    )
}

impl VerifyReproArgs {
    /// The architecture whose stages run natively in the second build.
    fn natively(&self) -> BTreeSet<Arch> {
        match self.on {
            Some(SecondMachine::Native(arch)) => [arch].into(),
            _ => BTreeSet::new(),
        }
    }

    /// The selected axes.
    pub(super) fn axes(&self) -> BTreeSet<Axis> {
        let asked = |axis: &Axis| {
            self.vary
                .iter()
                .any(|a| *a == AskedAxis::All || *a == AskedAxis::One(*axis))
        };
        Axis::ALL.iter().copied().filter(asked).collect()
    }
}

/// The project as the second build has it on workers.
fn project_there(common: &Common, args: &VerifyReproArgs) -> Result<Project, Failure> {
    let mut project = project(common)?;
    give(&mut project, &args.given)?;
    project.use_native(args.natively())?;
    Ok(project)
}

/// The page of the verdict cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write {path:?}")]
pub(super) struct UnwrittenReport {
    pub(super) path: PathBuf,
    #[source]
    pub(super) source: io::Error,
}

impl Fatal for UnwrittenReport {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

impl Hint for UnwrittenReport {}

pub(super) fn verify_repro(common: &Common, args: &VerifyReproArgs, report: &Report) -> Result<Exit, Failure> {
    let started = now();
    let mut project = project(common)?;
    if let (Some(SecondMachine::Native(_)), Some(_)) = (args.on, args.given.tools) {
        return Err(WorkerChoiceError::Tools.into());
    }
    give(&mut project, &args.given)?;
    let store = store(common)?;
    let origins = origins(common)?;
    project.check_lock()?;
    let claim = match &args.against {
        None => None,
        Some(path) => Some(Claim::load(path)?),
    };
    // Use the flags that the manifest recorded; with others it would be another build.
    let claimed = claim.as_ref().map(Claim::manifest);
    let strict = claimed.map_or(args.hermetic, |manifest| manifest.hermetic);
    let allow_dirty = claimed.map_or(args.allow_dirty, |manifest| manifest.source.allow_dirty);
    if strict {
        hermetic(&project, allow_dirty)?;
    }
    args.workers.not_native()?;
    let mut selection = args.selection.clone();
    if let (Some(SecondMachine::Native(arch)), true) = (args.on, selection.arch.is_empty()) {
        selection.arch = vec![AskedArch::One(arch)];
    }
    if let Some(claim) = &claim {
        match_claim(&project, claim.manifest())?;
        selection.variant = vec![claim.variant()];
        selection.arch = vec![AskedArch::One(claim.arch())];
    }
    let selected = select(common, &project, &selection)?;
    if let Some(SecondMachine::Native(arch)) = args.on
        && !selected.nodes.iter().any(|node| node.arch == arch)
    {
        return Err(WorkerChoiceError::NothingNative { arch }.into());
    }
    let axes = match args.on {
        None => args.axes(),
        Some(_) => BTreeSet::new(),
    };
    let options = RunOptions {
        hermetic: strict,
        ..run_options()?
    };
    let engine = match args.on {
        None => args.remote.without_engine(common).map(|()| None)?,
        Some(_) => Some(
            args.remote
                .engine_of_repeat(common, &args.workers, args.natively(), &options.helper)?,
        ),
    };
    if let Some(Engine { elsewhere, .. }) = &engine {
        interrupt::cancel_elsewhere(report, elsewhere, false);
    }
    let there = args.on.map(|_| project_there(common, args)).transpose()?;
    let circumstances = Circumstances {
        started,
        finished: started,
        host: host(),
        program: Program::new(options.helper.clone()),
        allow_dirty,
    };
    let request = ReproRequest {
        project: &project,
        store: &store,
        origins: &origins,
        nodes: &selected.nodes,
        targets: &selected.targets,
        axes: &axes,
        jobs: args.jobs.unwrap_or_else(processors),
        options: &options,
        circumstances: &circumstances,
        on_disk: args.on_disk,
        explain: !args.no_explain && args.on.is_none(),
        on: match (&engine, &there) {
            (Some(engine), Some(project)) => Some(SecondPlace {
                project,
                elsewhere: &engine.elsewhere,
                shared: &engine.shared,
            }),
            _ => None,
        },
        events: &|event| {
            if !interrupt::is_ending() {
                report.event(event);
            }
        },
        say: &|text| report.note(text),
    };
    let ReproResult { mut verdict, manifests } = request.run(claim.as_ref())?;
    verdict.setup.finished = now();
    report.clear();
    if let Some(path) = &args.report {
        fs::write(path, repro::html(&verdict)).map_err(|source| UnwrittenReport {
            path: path.clone(),
            source,
        })?;
    }
    let images = args
        .output
        .clone()
        .unwrap_or_else(|| project.tree.path().join("images"));
    let statement = pipeline::reproducibility(&verdict);
    // A build that was repeated in the same way proves nothing, and must not replace a statement that says more.
    let says = claim.is_none() && !verdict.setup.axes.is_empty();
    let mut stated = Vec::new();
    for (target, manifest) in manifests.iter().filter(|_| says) {
        let place = images.join(target.path());
        if pipeline::state(&store, &images, *target, manifest, &statement)? {
            report.note(format_args!(
                "stated in {}",
                place.join(pnb::manifest::RECORD_FILE).display()
            ));
            stated.push(place);
        }
    }
    let line = &common.line;
    let page = args.report.is_none() && !verdict.equal;
    let closing = Closing::verdict(sentence(&verdict, &report.elapsed()))
        .nexts(page.then(|| line.with_option("--report", "report.html")))
        .nexts(
            stated
                .first()
                .map(|place| common.command("audit").arg(from_here(place))),
        );
    report.close_with(&verdict, &summary(&verdict), &closing);
    Ok(if verdict.equal {
        Exit::Success
    } else {
        Exit::NotReproducible
    })
}

/// The verdict as text.
fn summary(verdict: &ReproVerdict) -> String {
    let mut out = String::new();
    if let Some(engine) = &verdict.setup.second_on {
        out.push_str(&format!("second build   on workers of {engine}\n"));
    }
    for tried in &verdict.setup.axes {
        out.push_str(&format!("varied     {:<14} {}\n", tried.axis, tried.second));
    }
    for (axis, why) in &verdict.setup.not_varied {
        out.push_str(&format!("not varied {axis:<14} {why}\n"));
    }
    for stage in verdict.stages.iter().filter(|s| s.state != State::Equal) {
        out.push_str(&format!("{:<14} {}\n", stage.state.as_str(), stage.node));
    }
    for finding in &verdict.findings {
        out.push_str(&format!(
            "\n{}, {}: {}\n",
            finding.node,
            finding.found,
            finding.cause.sentence()
        ));
        if !finding.differences.is_empty() {
            out.push_str(&format!("  ({})\n", finding.cause.compared()));
        }
        for difference in finding.differences.iter().take(SHOWN) {
            out.push_str(&format!("  {}\n", difference.sentence()));
        }
        let more = finding.total.saturating_sub(SHOWN as u64);
        if more > 0 {
            out.push_str(&format!("  and {more} more\n"));
        }
    }
    let differing = verdict.artifacts.iter().filter(|a| a.first != a.second);
    for artifact in differing {
        out.push_str(&format!("differs        {}/{}\n", artifact.artifact, artifact.file));
    }
    out
}

/// The verdict in a sentence.
fn sentence(verdict: &ReproVerdict, elapsed: &str) -> String {
    let files = verdict.artifacts.len();
    let differing = verdict.artifacts.iter().filter(|a| a.first != a.second);
    let stages = verdict.stages.len();
    let outputs = verdict.outputs();
    if verdict.equal {
        format!(
            "reproducible: {outputs} outputs of {stages} stages and {files} files of artifacts are the same, {elapsed}"
        )
    } else {
        let first = verdict.stages.iter().find(|s| s.state == State::FirstDivergent);
        let place = first.map_or(String::new(), |stage| {
            format!("; the first stage that differs is {}", stage.node)
        });
        format!(
            "not reproducible: {} files of artifacts differ{place}, {elapsed}",
            differing.count()
        )
    }
}
