//! Resolves the inputs of a node to digests and computes its cache key; lays out directories of packages.

use super::{
    CODE_SANDBOX, CODE_WRITERS, PipelineError, Project, base::base_of, origins::check_own, project::below_stages,
};
use crate::{
    debian,
    graph::{Canonical, Code, InputDigest, InputSource, KeyInputs},
    lock::{BasePlatform, Package, PinnedFile},
    model::{Epoch, NodeId, RelPath, StageKey, VerityDigest},
    store::{Output, Store},
    verity,
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    path::Path,
};

/// The outputs of the finished nodes.
pub type OutputsByNode = BTreeMap<NodeId, BTreeMap<String, Output>>;

/// Name of a stage's own directory among its inputs.
pub(super) const STAGE_DIRECTORY: &str = "@stage";

/// An input resolved to its digest.
#[derive(Clone, Debug)]
pub enum ResolvedInput {
    /// A tree in the store.
    Tree(VerityDigest),
    /// A file in the store, with its length in bytes.
    File(VerityDigest, u64),
    /// A pinned file, fetched when the stage runs.
    Pinned(PinnedFile),
    /// Packages, fetched when the stage runs, and the suite of their index, if they have one.
    Packages(Vec<Package>, Option<String>),
    /// The base image for an architecture, fetched when the stage runs.
    Base(BasePlatform),
}

/// A node whose inputs are resolved to digests, and its key.
#[derive(Clone, Debug)]
pub struct ResolvedStage {
    /// The node.
    pub id: NodeId,
    /// The canonical form.
    pub canonical: Canonical,
    /// The cache key: the digest of the canonical form.
    pub key: StageKey,
    /// The tree at `/`.
    pub root: Option<VerityDigest>,
    /// The tree with the emulator, if programs of another architecture are run.
    pub emulator: Option<VerityDigest>,
    /// The inputs at `/inputs`, and the stage's own directory.
    pub inputs: BTreeMap<String, ResolvedInput>,
}

/// Resolves a node's inputs to digests and computes its key. `done` has the outputs of its dependencies.
pub fn resolve_stage(
    project: &Project,
    store: &Store,
    id: &NodeId,
    done: &OutputsByNode,
) -> Result<ResolvedStage, PipelineError> {
    let file = project.graph.file(id);
    // Early cutoff: a dependency enters by the digest of its output, not by its own key.
    let output_of = |stage: &str, name: &str| -> Result<Output, PipelineError> {
        let node = project.graph.node(stage, id.arch)?;
        done.get(&node)
            .and_then(|outputs| outputs.get(name))
            .cloned()
            .ok_or_else(|| PipelineError::Spec {
                node: id.clone(),
                problem: format!("{node} has not given its output {name:?}"),
            })
    };
    let root = match &file.root {
        Some(stage) => Some(*output_of(stage.get_ref(), "tree")?.digest()),
        None => None,
    };
    let emulator = match project.graph.emulator(id) {
        Some((stage, _)) => Some(*output_of(stage, "tree")?.digest()),
        None => None,
    };
    let mut inputs = BTreeMap::new();
    for (name, input) in file.inputs_for(id.arch) {
        let resolved = match &input.source {
            InputSource::Stage { stage, output } => match output_of(stage.get_ref(), output.get_ref())? {
                Output::Tree { digest } => ResolvedInput::Tree(digest),
                Output::File { digest, size } => ResolvedInput::File(digest, size),
            },
            InputSource::Files(path) => {
                // Stored now, so that the stage gets the content behind the key, even if the files are edited meanwhile.
                let tree = store.import(&project.tree, path.get_ref(), project.lock.source_date_epoch, &|_| {
                    false
                })?;
                ResolvedInput::Tree(store.put_tree(&tree)?)
            }
            InputSource::Lock(name) => {
                let found = project.lock.file(name.get_ref(), id.arch);
                let pinned = found.ok_or_else(|| PipelineError::NotLocked {
                    what: format!("the file {:?} for {}", name.get_ref(), id.arch),
                })?;
                // A file of the repository may have been edited since it was locked. Its old object in the store would hide that.
                if let Some(path) = &pinned.path {
                    check_own(&project.tree, path, pinned)?;
                }
                ResolvedInput::Pinned(pinned.clone())
            }
            InputSource::ModuleTrust => {
                ResolvedInput::Tree(project.modules.tree(store, project.lock.source_date_epoch)?)
            }
            InputSource::Platform => ResolvedInput::Tree(project.platform.tree(store, project.lock.source_date_epoch)?),
            InputSource::Base => ResolvedInput::Base(base_of(project)?.platform(id.arch)?.clone()),
            InputSource::Packages => {
                let packages: Vec<Package> = project.lock.packages_of(id).cloned().collect();
                if packages.is_empty() {
                    return Err(PipelineError::NotLocked {
                        what: format!("the package set {id}"),
                    });
                }
                // apt needs the name of a suite. The set may come from several archives; the first one is the preferred one.
                let suite = project.lock.archives.first().map(|a| a.name.clone());
                let index = file.packages.as_ref().is_some_and(|p| p.index);
                ResolvedInput::Packages(packages, suite.filter(|_| index))
            }
        };
        inputs.insert(name.get_ref().clone(), resolved);
    }
    // `stage.toml` is left out of the stage's own directory: its settings have their own lines in the key, and a change of the
    // summary must not run the stage again.
    let own = below_stages(&id.stage)?;
    let skip = |path: &RelPath| path.as_bytes() == b"stage.toml";
    let own = store.import(&project.tree, &own, project.lock.source_date_epoch, &skip)?;
    inputs.insert(STAGE_DIRECTORY.to_owned(), ResolvedInput::Tree(store.put_tree(&own)?));

    // The key needs digests alone, so nothing has been fetched up to here.
    let digests = inputs
        .iter()
        .map(|(name, r)| Ok((name.clone(), digest_of(r)?)))
        .collect::<Result<_, PipelineError>>()?;
    let canonical = Canonical::new(&KeyInputs {
        id,
        file,
        build_arch: project.graph.build_arch(id.arch),
        epoch: project.lock.source_date_epoch,
        code: Code {
            sandbox: CODE_SANDBOX,
            writers: CODE_WRITERS,
        },
        root: root.as_ref(),
        emulator: emulator.as_ref(),
        inputs: &digests,
    })?;
    Ok(ResolvedStage {
        id: id.clone(),
        key: canonical.key(),
        canonical,
        root,
        emulator,
        inputs,
    })
}

pub(super) fn digest_of(resolved: &ResolvedInput) -> Result<InputDigest, PipelineError> {
    Ok(match resolved {
        ResolvedInput::Tree(digest) => InputDigest::Tree(*digest),
        ResolvedInput::File(digest, _) => InputDigest::File(*digest),
        ResolvedInput::Pinned(file) => InputDigest::Pinned(file.sha256),
        // The manifest names its configuration and its layers by their digests.
        ResolvedInput::Base(platform) => InputDigest::Pinned(platform.manifest),
        ResolvedInput::Packages(packages, index) => {
            let mut files = Vec::new();
            for package in packages {
                files.push((package.file_name(), package.sha256));
            }
            files.sort();
            InputDigest::Packages(files, index.clone())
        }
    })
}

/// Lays packages out in the new directory `dir`, as hard links to their objects or as copies. With `index`, the directory becomes a
/// flat repository for apt.
pub(super) fn lay_out_packages(
    store: &Store,
    packages: &[(&Package, VerityDigest)],
    dir: &Path,
    index: Option<(&str, Epoch)>,
    copies: bool,
) -> Result<(), PipelineError> {
    fs::create_dir(dir).map_err(PipelineError::io("create", dir))?;
    let mut entries = Vec::new();
    for (package, digest) in packages {
        let object = store.object_path(digest)?;
        let name = package.file_name();
        let path = dir.join(&name);
        if copies {
            store.copy_file(&object, &path)?;
        } else {
            fs::hard_link(&object, &path).map_err(PipelineError::io("link", &path))?;
        }
        entries.push((name, *package, object));
    }
    let Some((suite, epoch)) = index else { return Ok(()) };
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let mut text = String::new();
    for (name, package, object) in &entries {
        let reader = File::open(object).map_err(PipelineError::io("read", object))?;
        let control = debian::read_control(reader, name)?;
        let _ = writeln!(
            text,
            "{}\nFilename: ./{name}\nSize: {}\nSHA256: {}\n",
            control.trim_end(),
            package.size,
            package.sha256
        );
    }
    let release = fresh_index(suite, epoch, text.as_bytes());
    for (name, bytes) in [("Packages", text.as_bytes()), ("Release", release.as_bytes())] {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(PipelineError::io("write", &path))?;
    }
    Ok(())
}

/// The `Release` file of a flat repository with the single index `packages`. Without a suite and codename apt does not recognise
/// the essential set.
fn fresh_index(suite: &str, epoch: Epoch, packages: &[u8]) -> String {
    let mut both = verity::Both::new();
    both.update(packages);
    let digests = both.finish();
    let date = jiff::Timestamp::from_second(i64::try_from(epoch.seconds()).unwrap_or_default())
        .map(|t| t.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
        .unwrap_or_default();
    format!(
        "Origin: pnb\nLabel: pnb\nSuite: {suite}\nCodename: {suite}\nDate: {date}\nSHA256:\n {} {} Packages\n",
        digests.sha256, digests.size
    )
}
