//! The sequence of builds and comparisons of `verify-repro`, and its verdict.

use super::{bisect::Bisection, build::BuildInStore, circumstances::is_full, compare::Reference};
use crate::{
    graph::closure_of,
    manifest::{Reproducibility, Varied},
    model::{NodeId, Sha256Digest, Target, visible_path},
    pipeline::{
        BuildContext, CODE_SANDBOX, CODE_WRITERS, Circumstances, Elsewhere, Events, Origins, PipelineError, Project,
        RunOptions, SharedResults,
    },
    repro::{Axis, BuiltFrom, Claim, ReproSetup, ReproVerdict, StageResult, State, Tried},
    store::Store,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// Path of the second store below the scratch, longer than that of the first.
const FAR: &str = "a-second-store/whose-path-is-longer-than-that-of-the-first-by-some-seventy-bytes/or-more/store";

/// A request to build twice and compare.
pub struct ReproRequest<'a> {
    /// The project.
    pub project: &'a Project,
    /// The user's store, which has pinned files already.
    pub store: &'a Arc<Store>,
    /// The sources of other pinned files.
    pub origins: &'a Origins,
    /// The nodes to build.
    pub nodes: &'a [NodeId],
    /// The artifacts among them.
    pub targets: &'a [Target],
    /// The circumstances to vary.
    pub axes: &'a BTreeSet<Axis>,
    /// Number of stages at once.
    pub jobs: usize,
    /// The options for running stages.
    pub options: &'a RunOptions,
    /// Facts for the statements.
    pub circumstances: &'a Circumstances,
    /// Whether both stores are on disk, even if memory would suffice.
    pub on_disk: bool,
    /// Whether the cause of each difference is sought.
    pub explain: bool,
    /// The workers that run the stages of the second build. No axis is varied there, and no cause is sought.
    pub on: Option<SecondPlace<'a>>,
    /// Receives the events of the builds.
    pub events: Events<'a>,
    /// Receives the next step, in words.
    pub say: &'a dyn Fn(&str),
}

/// The workers that run the stages of a second build.
#[derive(Clone, Copy)]
pub struct SecondPlace<'a> {
    /// The project, which may have stages run natively there that an emulator runs here.
    pub project: &'a Project,
    /// The engine.
    pub elsewhere: &'a Elsewhere,
    /// Its cache, of which nothing is accepted.
    pub shared: &'a SharedResults,
}

/// The result of a [`ReproRequest`].
pub struct ReproResult {
    /// The verdict. Its end time equals its begin time until the caller sets it.
    pub verdict: ReproVerdict,
    /// The digest of each artifact's manifest, from the first build, or from the second one if there was no first.
    pub manifests: BTreeMap<Target, Sha256Digest>,
}

impl<'a> ReproRequest<'a> {
    /// The circumstances of an ordinary build in the user's store.
    pub(super) fn context(&self) -> BuildContext<'a> {
        BuildContext {
            project: self.project,
            store: self.store,
            origins: self.origins,
            options: self.options,
            // Both builds are made here: a result of another machine proves nothing about this one.
            shared: None,
            elsewhere: None,
            events: self.events,
        }
    }

    /// Builds, compares, and explains. With `claim` the second build is compared with that manifest, and there is no first build.
    pub fn run(&self, claim: Option<&Claim>) -> Result<ReproResult, PipelineError> {
        let (scratch, room) = self.scratch()?;
        let found = self.run_in(&scratch, claim);
        found.map_err(|error| match room {
            Some(_) if is_full(&error) => PipelineError::InMemory {
                path: scratch,
                source: Box::new(error),
            },
            _ => error,
        })
    }

    fn run_in(&self, scratch: &Path, claim: Option<&Claim>) -> Result<ReproResult, PipelineError> {
        let mut axes = self.axes.clone();
        let impossible = self.impossible()?;
        let not_varied: Vec<(Axis, String)> = impossible.into_iter().filter(|(axis, _)| axes.remove(axis)).collect();
        let files = scratch.join("variation");
        self.lay_out_files(&axes, &files)?;

        let reference = match claim {
            Some(claim) => Reference::claimed(claim),
            None => Reference::Built(Box::new(self.first_build(scratch)?)),
        };
        let mut second = self.second_build(scratch, &reference, &axes, &files)?;
        let failed = match (second.failed.take(), self.on) {
            (Some((_, error)), Some(_)) => return Err(error),
            (failed, _) => failed,
        };
        let (mut stages, artifacts) = self.compare(&reference, &second)?;
        let bisection = |id: &NodeId| Bisection {
            request: self,
            reference: &reference,
            second: &second,
            node: id.clone(),
            axes: &axes,
            files: &files,
            runs: BTreeMap::new(),
        };
        let mut findings = Vec::new();
        // What workers made is on the server; its digests tell that it differs.
        let sought = stages.iter().filter(|_| self.on.is_none());
        for stage in sought.filter(|s| s.state == State::FirstDivergent) {
            findings.extend(bisection(&stage.node).explain_outputs()?);
        }
        if let Some((node, error)) = failed {
            // If all its dependencies gave the same outputs, the variation is the cause of the failure.
            let first_to_differ = stages.iter().all(|s| s.state == State::Equal);
            if first_to_differ {
                findings.push(bisection(&node).explain_failure(error)?);
            }
            stages.push(StageResult {
                node,
                needs: Vec::new(),
                state: if first_to_differ {
                    State::FirstDivergent
                } else {
                    State::Different
                },
                outputs: Vec::new(),
            });
        }
        let manifests = reference.built().unwrap_or(&second).manifests.clone();
        let setup = self.setup(claim, axes, not_varied)?;
        let verdict = ReproVerdict::new(setup, stages, artifacts, findings);
        Ok(ReproResult { verdict, manifests })
    }

    /// The build without variation. A failure here is an ordinary one: the variation is not the cause.
    fn first_build(&self, scratch: &Path) -> Result<BuildInStore, PipelineError> {
        (self.say)("first build: nothing is varied");
        let mut options = self.options.clone();
        // Most artifacts are equal, so they are only hashed; the search for causes builds the differing ones again.
        if self.explain {
            options.unkept = self.last_nodes()?;
        }
        let build = self.build_in(&scratch.join("first"), None, self.jobs, options, None)?;
        match build.failed {
            Some((_, error)) => Err(error),
            None => Ok(build),
        }
    }

    /// The build with all axes varied.
    fn second_build(
        &self,
        scratch: &Path,
        reference: &Reference,
        axes: &BTreeSet<Axis>,
        files: &Path,
    ) -> Result<BuildInStore, PipelineError> {
        let mut options = self.options.clone();
        options.changed = self.changed(axes, files);
        // A stage sees no number of links of a shared object, or one that is varied.
        let objects = reference.objects().cloned();
        (self.say)(&match (axes.len(), &self.on) {
            (_, Some(on)) => format!("second build: on workers of {}", on.elsewhere.name()),
            (1, None) => "second build: 1 circumstance is varied".to_owned(),
            (number, None) => format!("second build: {number} circumstances are varied"),
        });
        // With one processor for all, stages at once take more memory and save no time.
        let jobs = if options.changed.processors { 1 } else { self.jobs };
        self.build_in(&scratch.join(FAR), objects, jobs, options, self.on)
    }

    fn setup(
        &self,
        claim: Option<&Claim>,
        axes: BTreeSet<Axis>,
        not_varied: Vec<(Axis, String)>,
    ) -> Result<ReproSetup, PipelineError> {
        let project = self.project;
        let order = closure_of(&project.graph, self.nodes)?.order;
        let packages: BTreeSet<Sha256Digest> = order
            .iter()
            .flat_map(|id| project.lock.packages_of(id))
            .map(|p| p.sha256)
            .collect();
        Ok(ReproSetup {
            what: self.nodes.to_vec(),
            against: claim.map(|claim| visible_path(claim.given())),
            second_on: self.on.map(|on| on.elsewhere.name()),
            host: self.circumstances.host.clone(),
            started: self.circumstances.started,
            finished: self.circumstances.started,
            axes: axes.into_iter().map(Tried::from).collect(),
            not_varied,
            inputs: BuiltFrom {
                pnb: env!("CARGO_PKG_VERSION").to_owned(),
                code_sandbox: CODE_SANDBOX.to_owned(),
                code_writers: CODE_WRITERS.to_owned(),
                lock: project.lock_sha256,
                revision: project.revision.sha.as_ref().map(ToString::to_string),
                uncommitted: project.revision.dirty.iter().map(ToString::to_string).collect(),
                source_date_epoch: project.lock.source_date_epoch.seconds(),
                packages: packages.len(),
            },
        })
    }
}

/// The statement for `build-record.json`.
pub fn reproducibility(verdict: &ReproVerdict) -> Reproducibility {
    let varied = verdict.setup.axes.iter().map(|tried| {
        let values = Varied {
            first: tried.first.clone(),
            second: tried.second.clone(),
        };
        (tried.axis.to_string(), values)
    });
    let not_varied = verdict.setup.not_varied.iter();
    Reproducibility {
        varied: varied.collect(),
        not_varied: not_varied.map(|(axis, why)| (axis.to_string(), why.clone())).collect(),
        host: verdict.setup.host.clone(),
        finished: verdict.setup.finished,
        outputs: verdict.outputs(),
        equal: verdict.equal,
    }
}
