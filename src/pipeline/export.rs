//! Exports a built variant to `images/<variant>/<arch>/`, with the statements about its files.

use super::{
    BuildContext, BuildOutcome, Event, PipelineError,
    facts::Described,
    output::{fresh_directory, replace},
};
use crate::{
    graph::{StageOutputKind, closure_of},
    manifest::{
        BuildRecord, Host, MANIFEST_FILE, RECORD_FILE, RECORD_VERSION, Reproducibility, RunState, SIGNATURE_ENDING,
        StageRun, Statements,
    },
    model::{Node, NodeId, RelPath, Sha256Digest, Target, VerityDigest},
    store::Store,
    verity::{self, Digests},
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

/// Facts for the statements, from the caller of the pipeline.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Begin of the build, in seconds since 1970.
    pub started: u64,
    /// End of the build, in seconds since 1970.
    pub finished: u64,
    /// The machine.
    pub host: Host,
    /// The pnb program.
    pub program: Program,
    /// Whether uncommitted stage files were allowed.
    pub allow_dirty: bool,
}

/// The pnb program. It is hashed at most once, when the first artifact is written.
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

/// The export of an artifact.
struct Export<'a> {
    context: &'a BuildContext<'a>,
    outcome: &'a BuildOutcome,
    target: Target,
    node: NodeId,
    circumstances: &'a Circumstances,
}

/// Exports the artifact `target` to its directory below `images`, unless it is there already. Returns the directory.
pub fn export(
    context: &BuildContext<'_>,
    outcome: &BuildOutcome,
    target: Target,
    images: &Path,
    circumstances: &Circumstances,
) -> Result<PathBuf, PipelineError> {
    let export = Export {
        context,
        outcome,
        target,
        node: context.project.graph.node(target.variant.as_str(), target.arch)?,
        circumstances,
    };
    let store = context.store;
    let dir = images.join(target.path());
    let exported = |unchanged: bool| {
        (context.events)(Event::Exported {
            dir: dir.clone(),
            unchanged,
        });
    };
    // The store's note has the fingerprint of the exported build and the stamps of its files. If both are still the same, there
    // is nothing to write; a file that was changed by hand has other stamps, and the artifact is written again.
    let fingerprint = export.fingerprint()?;
    let note = note_of(&dir);
    if store
        .note(&note)
        .is_some_and(|old| stamps(&dir).is_ok_and(|s| old == format!("{fingerprint}{s}").into_bytes()))
    {
        exported(true);
        return Ok(dir);
    }
    let parent = dir.parent().unwrap_or(images);
    fs::create_dir_all(parent).map_err(PipelineError::io("create", parent))?;
    let (fresh, held) = fresh_directory(parent, &format!(".{}.", target.arch))?;
    export.write_into(fresh.path())?;
    // Taken before the rename: afterwards another builder may replace the directory by its own.
    let stamps = stamps(fresh.path()).map_err(PipelineError::io("look at", fresh.path()))?;
    replace(fresh, &dir)?;
    drop(held);
    store.put_note(&note, format!("{fingerprint}{stamps}").as_bytes())?;
    exported(false);
    Ok(dir)
}

/// Adds a statement on reproducibility to the record of an artifact below `images`, if its manifest has the digest `manifest`.
/// Returns whether it has.
pub fn state(
    store: &Store,
    images: &Path,
    target: Target,
    manifest: &Sha256Digest,
    statement: &Reproducibility,
) -> Result<bool, PipelineError> {
    let dir = images.join(target.path());
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
    // The record has new stamps. Without a new note the next build would write the same artifact again.
    let note = note_of(&dir);
    if let Some(fingerprint) = store.note(&note).and_then(|old| String::from_utf8(old).ok())
        && let Some(fingerprint) = fingerprint.strip_suffix(&before)
    {
        let after = stamps(&dir).map_err(PipelineError::io("look at", &dir))?;
        store.put_note(&note, format!("{fingerprint}{after}").as_bytes())?;
    }
    Ok(true)
}

/// Name of the store's note on the export to a directory.
pub(super) fn note_of(dir: &Path) -> String {
    format!("export-{}", blake3::hash(dir.to_string_lossy().as_bytes()).to_hex())
}

impl Export<'_> {
    /// A text of everything that determines the exported bytes, apart from the build record.
    fn fingerprint(&self) -> Result<String, PipelineError> {
        let project = self.context.project;
        let mut text = format!(
            "pnb {} {} {:?} {} {} {:?}\n",
            env!("CARGO_PKG_VERSION"),
            env!("PNB_CODE"),
            project.revision,
            self.circumstances.allow_dirty,
            project.lock_sha256,
            project.agent.is_some(),
        );
        for id in closure_of(&project.graph, std::slice::from_ref(&self.node))?.order {
            if let Some(done) = self.outcome.nodes.get(&id) {
                let record = &done.record;
                let _ = writeln!(
                    text,
                    "{id} {} {} {:?}",
                    done.resolved.key,
                    record.weaker.len(),
                    record.outputs
                );
            }
        }
        Ok(text)
    }

    /// Writes the artifact's files, the statements and the record into the new directory `dir`.
    fn write_into(&self, dir: &Path) -> Result<(), PipelineError> {
        let circumstances = self.circumstances;
        let BuildContext { project, store, .. } = *self.context;
        let done = self.outcome.done(&self.node)?;
        // The files come first, because the statements have their digests.
        let mut artifacts = BTreeMap::new();
        for (name, spec) in &project.graph.file(&self.node).outputs {
            let Some(output) = done.record.outputs.get(name) else {
                continue;
            };
            if !spec.is_exported() {
                continue;
            }
            let path = RelPath::new(name).map_err(|e| PipelineError::describe(e.to_string()))?;
            if spec.kind == StageOutputKind::File {
                artifacts.insert(path, store.copy_out(output.digest(), &dir.join(name))?);
            } else {
                copy_tree_out(store, output.digest(), dir, &path, &mut artifacts)?;
            }
        }
        let stages = closure_of(&project.graph, std::slice::from_ref(&self.node))?.order;
        let described = Described {
            context: self.context,
            outcome: self.outcome,
            target: self.target,
            allow_dirty: circumstances.allow_dirty,
        };
        let facts = described.facts(&stages, artifacts)?;
        let statements = Statements::describe(&facts).map_err(PipelineError::Manifest)?;
        for (name, text) in &statements.files {
            write(&dir.join(name), text)?;
        }
        // The circumstances of this build go into the record alone: the other statements are the same for every builder.
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
                    let done = self.outcome.done(id)?;
                    let run = if done.cached { RunState::Cached } else { RunState::Ran };
                    Ok(StageRun::new(done.resolved.key, run, done.source.clone(), &done.record))
                })
                .collect::<Result<_, PipelineError>>()?,
            reproducibility: None,
        };
        write(
            &dir.join(RECORD_FILE),
            &record.to_json().map_err(PipelineError::Manifest)?,
        )
    }
}

/// The name, inode, size and times of every file below a directory, as text. A changed or replaced file changes it. Signatures, which
/// `pnb publish` writes beside the files, do not.
pub(super) fn stamps(dir: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        #[expect(clippy::disallowed_methods, reason = "the names are sorted")]
        let mut names: Vec<_> = fs::read_dir(dir.join(&below))?
            .map(|e| e.map(|e| e.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        for name in names {
            if name.as_encoded_bytes().ends_with(SIGNATURE_ENDING.as_bytes()) {
                continue;
            }
            let name = below.join(name);
            let m = fs::symlink_metadata(dir.join(&name))?;
            if m.is_dir() {
                // Its times change with a signature in it; what else could change them changes a line of a file too.
                let _ = writeln!(text, "{name:?} {} {:o}", m.ino(), m.mode());
                waiting.push(name);
                continue;
            }
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
        }
    }
    Ok(text)
}

fn write(path: &Path, text: &str) -> Result<(), PipelineError> {
    fs::write(path, text).map_err(PipelineError::io("write", path))
}

/// Copies the directories and files of a tree to `path` below `dir`, and adds the digests of the files to `artifacts`.
fn copy_tree_out(
    store: &Store,
    digest: &VerityDigest,
    dir: &Path,
    path: &RelPath,
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
                return Err(PipelineError::describe(format!(
                    "{name} of the artifact is neither a file nor a directory"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_beside_the_files_do_not_make_an_artifact_another_one() {
        let dir = tempfile::tempdir().expect("scratch");
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
        fs::create_dir(dir.path().join("boot")).expect("made");
        put("disk.raw", "disk");
        put("boot/kernel", "kernel");
        let before = stamps(dir.path()).expect("readable");
        put("disk.raw.sigstore.json", "{}");
        put("boot/kernel.sigstore.json", "{}");
        assert_eq!(stamps(dir.path()).expect("readable"), before);
        // Anything else does.
        put("boot/other", "x");
        assert_ne!(stamps(dir.path()).expect("readable"), before);
        fs::remove_file(dir.path().join("boot/other")).expect("there");
        assert_eq!(stamps(dir.path()).expect("readable"), before);
        put("boot/kernel", "another");
        assert_ne!(stamps(dir.path()).expect("readable"), before);
    }
}
