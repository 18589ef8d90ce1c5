//! `pnb verify-repro`: builds twice under different circumstances and explains what differs.

use super::{
    Exit,
    args::{AskedArch, Common, GivenArgs, Selection},
    context::{give, hermetic, host, inputs, now, processors, project, run_options, select, store},
    diff::sentence,
    failure::Failure,
    report::Report,
};
use clap::Args;
use pnb::{
    manifest::Manifest,
    model::GitSha,
    pipeline::{self, Circumstances, LOCKFILE, Program, Project, ReproRequest, ReproResult},
    repro::{self, Axis, Claim, ReproVerdict, State, UnknownAxis},
};
use std::{collections::BTreeSet, fs, path::PathBuf};

/// Differences of one output that a terminal gets.
const SHOWN: usize = 10;

/// Options of `pnb verify-repro`.
#[derive(Args, Debug)]
#[command(
    after_help = "Nothing is taken from the store but pinned files: both builds are from nothing, in stores of their own.\n\n\
    Examples:\n  pnb verify-repro --arch amd64 --variant kernel-initrd --report report.html\n  \
    pnb verify-repro --variant raw --vary clock,locale,listing\n  \
    pnb verify-repro --against images/raw/amd64"
)]
pub(super) struct VerifyReproArgs {
    /// What to build.
    #[command(flatten)]
    pub(super) selection: Selection,
    /// What to vary, comma-separated: all, none, or of clock, time-zone, locale, host-name, ids, umask, home, build-path, file-system,
    /// listing, processors, job-order, memory-layout, memory-limit, environment, kernel, links.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "AXIS")]
    pub(super) vary: Vec<AskedAxis>,
    /// Build once, and compare with what the manifest (or that in the directory) says. Its lock, revision and pnb must be these.
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["variant", "arch", "stage"])]
    pub(super) against: Option<PathBuf>,
    /// Write the verdict as a page for a browser.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Keep both stores on disk; otherwise they lie in memory (/dev/shm) where there is room.
    #[arg(long)]
    pub(super) on_disk: bool,
    /// Do not look for the cause of a difference, which runs stages again.
    #[arg(long)]
    pub(super) no_explain: bool,
    /// Refuse anything that could make the result depend on this machine.
    #[arg(long)]
    pub(super) hermetic: bool,
    /// With --hermetic: build although stage files are uncommitted.
    #[arg(long)]
    pub(super) allow_dirty: bool,
    /// Stages at once [default: processors].
    #[arg(long, short, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// What is given on top of the project.
    #[command(flatten)]
    pub(super) given: GivenArgs,
    /// Where artifacts lie that get the statement, if they are what was built [default: images/ in the project].
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
}

/// A word of `--vary`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AskedAxis {
    /// `all`.
    All,
    /// `none`.
    None,
    /// One of them.
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

impl VerifyReproArgs {
    /// The axes asked for.
    pub(super) fn axes(&self) -> BTreeSet<Axis> {
        let asked = |axis: &Axis| {
            self.vary
                .iter()
                .any(|a| *a == AskedAxis::All || *a == AskedAxis::One(*axis))
        };
        Axis::ALL.iter().copied().filter(asked).collect()
    }
}

pub(super) fn verify_repro(common: &Common, args: &VerifyReproArgs, report: &Report) -> Result<Exit, Failure> {
    let started = now();
    let mut project = project(common)?;
    give(&mut project, &args.given)?;
    let store = store(common)?;
    let inputs = inputs(common)?;
    project.check_lock()?;
    let claim = match &args.against {
        None => None,
        Some(path) => Some(Claim::load(path)?),
    };
    // What is claimed was built as the manifest says; whatever else would be something else.
    let claimed = claim.as_ref().map(Claim::manifest);
    let strict = claimed.map_or(args.hermetic, |manifest| manifest.hermetic);
    let allow_dirty = claimed.map_or(args.allow_dirty, |manifest| manifest.source.allow_dirty);
    if strict {
        hermetic(&project, allow_dirty)?;
    }
    let mut selection = args.selection.clone();
    if let Some(claim) = &claim {
        match_claim(&project, claim.manifest())?;
        selection.variant = vec![claim.variant()];
        selection.arch = vec![AskedArch::One(claim.arch())];
    }
    let selected = select(&project, &selection)?;
    let axes: BTreeSet<Axis> = args.axes();
    let mut options = run_options()?;
    options.hermetic = strict;
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
        origins: &inputs,
        nodes: &selected.nodes,
        targets: &selected.targets,
        axes: &axes,
        jobs: args.jobs.unwrap_or_else(processors),
        options: &options,
        circumstances: &circumstances,
        on_disk: args.on_disk,
        explain: !args.no_explain,
        events: &|event| report.event(event),
        say: &|text| report.note(text),
    };
    let ReproResult { mut verdict, manifests } = request.run(claim.as_ref())?;
    verdict.setup.finished = now();
    report.clear();
    if let Some(path) = &args.report {
        fs::write(path, repro::html(&verdict))
            .map_err(|e| Failure::said(Exit::Failure, format!("write {path:?}: {e}")))?;
    }
    if report.json() {
        report.line(serde_json::json!(verdict));
    } else {
        report.bytes(summary(&verdict).as_bytes());
    }
    let images = args.output.clone().unwrap_or_else(|| project.root.join("images"));
    let statement = pipeline::reproducibility(&verdict);
    // A build that was repeated in the same way proves nothing, and must not take the place of a statement that says more.
    let says = claim.is_none() && !verdict.setup.axes.is_empty();
    for (target, manifest) in manifests.iter().filter(|_| says) {
        let place = images.join(target.path());
        if pipeline::state(&store, &images, *target, manifest, &statement)? {
            report.note(format_args!(
                "stated in {}",
                place.join(pnb::manifest::RECORD_FILE).display()
            ));
        }
    }
    Ok(if verdict.equal {
        Exit::Success
    } else {
        Exit::NotReproducible
    })
}

/// What a manifest was made from must be what is here: otherwise that is the answer.
fn match_claim(project: &Project, manifest: &Manifest) -> Result<(), Failure> {
    let said = |exit, what: &str, theirs: &str, ours: &str, hint: &str| {
        Err(Failure::said(
            exit,
            format!(
                "rebuild what the manifest describes: {what} is another\nexpected: {theirs}\n  actual: {ours}\n\nhint: {hint}"
            ),
        ))
    };
    let (theirs, ours) = (manifest.lockfile.sha256, project.lock_sha256);
    if theirs != ours {
        let what = format!("SHA-256 of {LOCKFILE}");
        let hint = "check out the revision that the manifest names";
        return said(Exit::OtherLock, &what, &theirs.to_string(), &ours.to_string(), hint);
    }
    let builder = &manifest.builder;
    for (what, theirs, ours) in [
        ("version of pnb", builder.version.as_str(), env!("CARGO_PKG_VERSION")),
        (
            "pnb's code that runs stages",
            builder.code.sandbox.as_str(),
            pipeline::CODE_SANDBOX,
        ),
        (
            "pnb's code that writes formats",
            builder.code.writers.as_str(),
            pipeline::CODE_WRITERS,
        ),
    ] {
        if theirs != ours {
            let hint = "build pnb from the revision that the manifest names";
            return said(Exit::OtherBuilder, what, theirs, ours, hint);
        }
    }
    let none = "none";
    let (theirs, ours) = (
        manifest.git_sha.as_deref(),
        project.revision.sha.as_ref().map(GitSha::as_str),
    );
    if theirs != ours || manifest.source.dirty == project.revision.dirty.is_empty() {
        let say = |sha: Option<&str>, dirty: bool| {
            format!(
                "{}{}",
                sha.unwrap_or(none),
                if dirty { ", with uncommitted files" } else { "" }
            )
        };
        let hint = "git checkout the revision, with no file changed";
        return said(
            Exit::OtherRevision,
            "the revision of the project",
            &say(theirs, manifest.source.dirty),
            &say(ours, !project.revision.dirty.is_empty()),
            hint,
        );
    }
    let agent = project
        .lock
        .file(pipeline::AGENT, manifest.arch)
        .map(|file| file.sha256);
    let platform = |url: Option<&str>, ca: Option<String>| {
        format!(
            "address {}, certificates {}",
            url.unwrap_or(none),
            ca.as_deref().unwrap_or(none)
        )
    };
    let ours = project.platform.fact();
    let theirs = manifest.platform.as_ref().unwrap_or(&ours);
    for (what, theirs, ours, hint) in [
        (
            "the agent",
            manifest.agent.sha256.to_string(),
            agent.map_or(none.to_owned(), |sha256| sha256.to_string()),
            "give it with --agent FILE",
        ),
        (
            "what is said of the platform",
            platform(theirs.url.as_deref(), theirs.ca_pem_sha256.map(|s| s.to_string())),
            platform(ours.url.as_deref(), ours.ca_pem_sha256.map(|s| s.to_string())),
            "say the same with --platform-url and --ca-pem",
        ),
        (
            "the architecture of the tools",
            builder.build_arch.to_string(),
            project.graph.build_arch().to_string(),
            "choose it with --tools ARCH",
        ),
    ] {
        if theirs != ours {
            return said(Exit::Usage, what, &theirs, &ours, hint);
        }
    }
    Ok(())
}

/// The verdict for people.
fn summary(verdict: &ReproVerdict) -> String {
    let mut out = String::new();
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
        for difference in finding.differences.iter().take(SHOWN) {
            out.push_str(&format!("  {}\n", sentence(difference)));
        }
        let more = finding.total.saturating_sub(SHOWN as u64);
        if more > 0 {
            out.push_str(&format!("  and {more} more\n"));
        }
    }
    let files = verdict.artifacts.len();
    let differing = verdict.artifacts.iter().filter(|a| a.first != a.second);
    for artifact in differing.clone() {
        out.push_str(&format!("differs        {}/{}\n", artifact.artifact, artifact.file));
    }
    let stages = verdict.stages.len();
    let outputs = verdict.outputs();
    out.push_str(&if verdict.equal {
        format!("reproducible: {outputs} outputs of {stages} stages and {files} files of artifacts are the same\n")
    } else {
        let first = verdict.stages.iter().find(|s| s.state == State::FirstDivergent);
        let place = first.map_or(String::new(), |stage| format!("; the builds part at {}", stage.node));
        format!(
            "not reproducible: {} files of artifacts differ{place}\n",
            differing.count()
        )
    });
    out
}
