//! The placement of a run: its inputs, fetched and put at paths of this machine.

use super::{
    BuildContext, Events, PipelineError, RunOptions,
    base::{base_of, lay_out_base},
    recipe::Recipe,
    resolve::{ResolvedInput, ResolvedStage, lay_out_packages},
    run::varied,
    shared::ensure,
};
use crate::{
    lock::{BasePlatform, Package, PinnedFile},
    model::{Arch, RelPath, VerityDigest},
    sandbox::{Access, BuildDir, Console, Emulator, Mount, Network, RootFs, Spec, Variation, Workload},
    store::{self, Output, Store, StoreError},
};
use std::{fs, path::PathBuf, time::Duration};

/// Time limit of a shell in a stage's sandbox.
const SHELL_TIME: Duration = Duration::from_secs(24 * 3600);

/// The paths of a run: the sandbox to run it in, and the directories that belong to this run alone.
pub struct Placement {
    /// The sandbox.
    pub spec: Spec,
    /// Directories of packages, which the run sees; removed with this value.
    pub(super) packages: PackageDirectories,
}

/// Directories of packages that were laid out for one run. They are removed when this value is dropped, also on the way out of an error.
#[derive(Default)]
pub(super) struct PackageDirectories(Vec<PathBuf>);

impl Drop for PackageDirectories {
    fn drop(&mut self) {
        for dir in &self.0 {
            // A directory that cannot be removed now goes with the store's scratch directory, in which it is.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// The inputs of a run on their way into the store.
pub(super) trait InputFiles {
    /// Brings an output of another stage into the store.
    fn output(&self, output: &Output) -> Result<(), PipelineError>;

    /// Brings a pinned file into the store of pinned files.
    fn pinned(&self, store: &Store, file: &PinnedFile) -> Result<VerityDigest, PipelineError>;

    /// Brings packages, of which `what` is the name, into the store of pinned files.
    fn packages(&self, store: &Store, what: &str, packages: &[&Package]) -> Result<Vec<VerityDigest>, PipelineError>;

    /// Brings the blobs of the base image into the store of pinned files; returns its name.
    fn base(&self, store: &Store, platform: &BasePlatform) -> Result<String, PipelineError>;
}

impl InputFiles for BuildContext<'_> {
    fn output(&self, output: &Output) -> Result<(), PipelineError> {
        ensure(self, output)
    }

    fn pinned(&self, store: &Store, file: &PinnedFile) -> Result<VerityDigest, PipelineError> {
        self.origins.ensure_file(self.project, store, file, self.events)
    }

    fn packages(&self, store: &Store, what: &str, packages: &[&Package]) -> Result<Vec<VerityDigest>, PipelineError> {
        self.origins
            .ensure_packages(self.project, store, what, packages, self.events)
    }

    fn base(&self, store: &Store, platform: &BasePlatform) -> Result<String, PipelineError> {
        let base = base_of(self.project)?;
        self.origins.ensure_base(store, base, platform, self.events)?;
        Ok(base.image.clone())
    }
}

/// What a run needs of the build that it belongs to.
#[derive(Clone, Copy)]
pub(super) struct RunContext<'a> {
    /// The store that inputs are read from and outputs are written to.
    pub(super) store: &'a Store,
    /// The options for running stages.
    pub(super) options: &'a RunOptions,
    /// The inputs.
    pub(super) inputs: &'a dyn InputFiles,
    /// Receives the events of the run.
    pub(super) events: Events<'a>,
}

impl<'a> From<&'a BuildContext<'a>> for RunContext<'a> {
    fn from(context: &'a BuildContext<'a>) -> Self {
        Self {
            store: context.store,
            options: context.options,
            inputs: context,
            events: context.events,
        }
    }
}

/// Places a recipe on this machine: fetches pinned files, checks trees out, makes the build directory.
pub(super) fn place(context: &RunContext<'_>, recipe: Recipe<'_>) -> Result<Placement, PipelineError> {
    let links = LinkCount::of(context, &recipe.workload);
    let mut inputs = Inputs {
        context,
        links,
        mounts: Vec::new(),
        packages: PackageDirectories::default(),
    };
    for (target, input) in &recipe.inputs {
        inputs.place(&recipe, target, input)?;
    }
    let Inputs { mounts, packages, .. } = inputs;
    let root = match &recipe.root {
        Some(digest) => {
            context.inputs.output(&Output::Tree { digest: *digest })?;
            RootFs::Tree(checkout(context, digest, links.for_programs())?)
        }
        None => RootFs::Empty,
    };
    let emulator = emulator(context, &recipe)?;
    let build_dir = build_dir(context, &recipe)?;
    let options = context.options;
    let spec = Spec {
        variation: varied(&options.changed, recipe.limits.cpus),
        keep_failed: options.keep_failed,
        ..spec(recipe, root, mounts, emulator, build_dir)
    };
    Ok(Placement { spec, packages })
}

/// The sandbox of a recipe whose inputs are nowhere yet, for what does not depend on their places: the policy, and the rules for outputs.
pub(super) fn unplaced(recipe: Recipe<'_>) -> Result<Spec, PipelineError> {
    let nowhere = PathBuf::new;
    let mut mounts = Vec::new();
    for (target, input) in &recipe.inputs {
        mounts.push(mount(nowhere(), target.clone()));
        if let Some(beside) = beside(&recipe, target, input)? {
            mounts.push(mount(nowhere(), beside));
        }
    }
    let root = match &recipe.root {
        Some(_) => RootFs::Tree(nowhere()),
        None => RootFs::Empty,
    };
    let emulator = recipe.emulator.map(|(_, arch)| Emulator {
        arch,
        program: nowhere(),
    });
    Ok(spec(recipe, root, mounts, emulator, BuildDir::Tmpfs))
}

/// The sandbox of an ordinary run.
fn spec(recipe: Recipe<'_>, root: RootFs, mounts: Vec<Mount>, emulator: Option<Emulator>, build_dir: BuildDir) -> Spec {
    Spec {
        stage: recipe.id.to_string(),
        root,
        mounts,
        emulator,
        build_dir,
        variation: Variation::default(),
        keep_failed: false,
        workload: recipe.workload,
        env: recipe.env,
        epoch: recipe.epoch,
        ids: recipe.ids,
        capabilities: recipe.capabilities,
        limits: recipe.limits,
        outputs: recipe.outputs,
        dev_in: recipe.dev_in,
        proc_mount: true,
        console: Console::Log,
        network: Network::None,
        kvm: false,
        refused: Some(recipe.refused),
    }
}

/// The place of the dump of an input's tree, which is beside the tree; the stage's own directory has no dump.
fn beside(recipe: &Recipe<'_>, target: &RelPath, input: &ResolvedInput) -> Result<Option<RelPath>, PipelineError> {
    if !matches!(input, ResolvedInput::Tree(_)) || target.as_bytes() == b"stage" {
        return Ok(None);
    }
    let beside = RelPath::new(format!("{target}.tree")).map_err(|e| PipelineError::Spec {
        node: recipe.id.clone(),
        problem: e.to_string(),
    })?;
    Ok(Some(beside))
}

/// An input at `target`.
fn mount(source: PathBuf, target: RelPath) -> Mount {
    Mount {
        source,
        target,
        access: Access::ReadOnly,
    }
}

/// The sandbox of a stage with a shell in place of its command, on this terminal. Its inputs are fetched and placed. A writer that runs
/// before the command runs before the shell too, so that the shell finds its files in `/build`.
pub fn shell_spec(
    context: &BuildContext<'_>,
    resolved: &ResolvedStage,
    command: Option<&str>,
) -> Result<Placement, PipelineError> {
    let mut placement = place(&context.into(), Recipe::new(context.project, resolved)?)?;
    let spec = &mut placement.spec;
    let mut argv = vec!["/bin/sh".to_owned()];
    if let Some(command) = command {
        argv.extend(["-c".to_owned(), command.to_owned()]);
    }
    let before = match &mut spec.workload {
        Workload::Command { before, .. } => before.take(),
        Workload::Builtin(_) => None,
    };
    spec.workload = Workload::Command { argv, before };
    spec.console = Console::Inherit;
    spec.outputs.clear();
    spec.refused = None;
    spec.limits.wall = SHELL_TIME;
    Ok(placement)
}

/// The number of hard links of the files that a stage sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkCount {
    /// One: trees and packages are copies.
    One,
    /// As many as the store has: nothing is copied. For pnb's own writers, which do not look at it; the tools that they run get files that
    /// they have written themselves.
    Stored,
    /// Two or more, in a build whose circumstances are varied.
    Several,
}

impl LinkCount {
    fn of(context: &RunContext<'_>, workload: &Workload) -> Self {
        match (context.options.changed.links, workload) {
            (true, _) => Self::Several,
            (false, Workload::Builtin(_)) => Self::Stored,
            (false, Workload::Command { .. }) => Self::One,
        }
    }

    /// That of the files of a root, whose programs run.
    fn for_programs(self) -> Self {
        match self {
            Self::Stored => Self::One,
            other => other,
        }
    }
}

/// The mounts and directories of the inputs placed so far.
struct Inputs<'a> {
    context: &'a RunContext<'a>,
    links: LinkCount,
    mounts: Vec<Mount>,
    packages: PackageDirectories,
}

impl Inputs<'_> {
    fn place(&mut self, recipe: &Recipe<'_>, target: &RelPath, input: &ResolvedInput) -> Result<(), PipelineError> {
        let store = self.context.store;
        let pinned = store.of_pinned();
        match input {
            ResolvedInput::Tree(digest) => {
                self.context.inputs.output(&Output::Tree { digest: *digest })?;
                self.mount(checkout(self.context, digest, self.links)?, target.clone());
                if let Some(beside) = beside(recipe, target, input)? {
                    self.mount(self.own(store, store.object_path(digest)?)?, beside);
                }
            }
            ResolvedInput::File(digest, size) => {
                let (digest, size) = (*digest, *size);
                self.context.inputs.output(&Output::File { digest, size })?;
                let digest = &digest;
                store.verify_object(digest)?;
                self.mount(self.own(store, store.plain_object(digest)?)?, target.clone());
            }
            ResolvedInput::Pinned(file) => {
                let digest = self.context.inputs.pinned(pinned, file)?;
                pinned.verify_object(&digest)?;
                self.mount(self.own(pinned, pinned.plain_object(&digest)?)?, target.clone());
            }
            ResolvedInput::Base(platform) => {
                let dir = self.image(platform)?;
                self.mount(dir, target.clone());
            }
            ResolvedInput::Packages(packages, index) => {
                let dir = self.lay_out(recipe, packages, index.as_deref())?;
                self.mount(dir, target.clone());
            }
        }
        Ok(())
    }

    fn mount(&mut self, source: PathBuf, target: RelPath) {
        self.mounts.push(mount(source, target));
    }

    /// A file with the content of the file `file` of `store`, and the right number of links.
    fn own(&self, store: &Store, file: PathBuf) -> Result<PathBuf, StoreError> {
        match self.links {
            LinkCount::Several => store.link_again(&file),
            LinkCount::Stored => Ok(file),
            LinkCount::One => self.context.store.copy_if_linked(&file),
        }
    }

    /// Fetches the base image and lays it out in a directory.
    fn image(&mut self, platform: &BasePlatform) -> Result<PathBuf, PipelineError> {
        let store = self.context.store;
        let pinned = store.of_pinned();
        let name = self.context.inputs.base(pinned, platform)?;
        let links = self.links != LinkCount::One;
        // Hard links have to be on the file system of their objects.
        let dir = if links { pinned } else { store }.scratch_path("base-image");
        self.packages.0.push(dir.clone());
        lay_out_base(pinned, &name, platform, &dir, !links)?;
        Ok(dir)
    }

    /// Fetches packages and lays them out in a directory.
    fn lay_out(
        &mut self,
        recipe: &Recipe<'_>,
        packages: &[Package],
        index: Option<&str>,
    ) -> Result<PathBuf, PipelineError> {
        let store = self.context.store;
        let pinned = store.of_pinned();
        let packages: Vec<_> = packages.iter().collect();
        let name = recipe.id.to_string();
        let digests = self.context.inputs.packages(pinned, &name, &packages)?;
        let pairs: Vec<(&Package, VerityDigest)> = packages.into_iter().zip(digests).collect();
        let links = self.links != LinkCount::One;
        // Hard links have to be on the file system of their objects.
        let dir = if links { pinned } else { store }.scratch_path("packages");
        self.packages.0.push(dir.clone());
        let index = index.map(|suite| (suite, recipe.epoch));
        lay_out_packages(pinned, &pairs, &dir, index, !links)?;
        Ok(dir)
    }
}

/// The directory of a tree, whose files have the right number of links.
fn checkout(context: &RunContext<'_>, digest: &VerityDigest, links: LinkCount) -> Result<PathBuf, StoreError> {
    match links {
        LinkCount::Several | LinkCount::Stored => context.store.checkout(digest),
        LinkCount::One => context.store.own_checkout(digest),
    }
}

fn emulator(context: &RunContext<'_>, recipe: &Recipe<'_>) -> Result<Option<Emulator>, PipelineError> {
    let Some((digest, arch)) = recipe.emulator else {
        return Ok(None);
    };
    let name = emulator_name(arch);
    let links = LinkCount::of(context, &recipe.workload).for_programs();
    context.inputs.output(&Output::Tree { digest })?;
    let program = checkout(context, &digest, links)?.join("usr/bin").join(name);
    if !program.is_file() {
        return Err(PipelineError::Spec {
            node: recipe.id.clone(),
            problem: format!("the tree of the emulator has no usr/bin/{name}"),
        });
    }
    Ok(Some(Emulator { arch, program }))
}

/// QEMU's name of the user-mode emulator for programs of `arch`.
const fn emulator_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "qemu-x86_64",
        Arch::Arm64 => "qemu-aarch64",
    }
}

fn build_dir(context: &RunContext<'_>, recipe: &Recipe<'_>) -> Result<BuildDir, PipelineError> {
    let options = context.options;
    let asked = options.changed.build_dir.as_ref().or(options.build_dir.as_ref());
    if asked.is_none() && !options.keep_failed {
        return Ok(BuildDir::Tmpfs);
    }
    let base = asked.cloned().unwrap_or_else(|| context.store.root().join("failed"));
    fs::create_dir_all(&base).map_err(PipelineError::io("create", &base))?;
    let base = base.canonicalize().map_err(PipelineError::io("open", &base))?;
    let prefix = [recipe.id.stage.as_str(), recipe.id.arch.as_str(), ""].join("-");
    let fresh = store::build_directory(&base, &prefix);
    Ok(BuildDir::Disk(
        fresh.map_err(PipelineError::io("create a directory in", &base))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_packages_go_with_their_run() {
        let scratch = tempfile::tempdir().expect("a directory");
        let [own, other] = ["packages-1", "packages-2"].map(|name| {
            let dir = scratch.path().join(name);
            fs::create_dir(&dir).expect("made");
            fs::write(dir.join("a.deb"), "x").expect("written");
            dir
        });
        let packages = PackageDirectories(vec![own.clone(), scratch.path().join("never-made")]);
        assert!(own.exists());
        drop(packages);
        assert_eq!((own.exists(), other.exists()), (false, true));
    }
}
