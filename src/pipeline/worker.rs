//! The worker's half of stages that run elsewhere: `pnb __stage job.json` in the input root of an action.

use super::{
    Event, Events, PipelineError, RunOptions,
    job::{JOB, OUT, StageJob, WorkerJob},
    placement::{InputFiles, RunContext},
    run::run_recipe,
    stage_failure::{FAILURE, StageFailure},
};
use crate::{
    lock::{BasePlatform, Package, PinnedFile},
    model::{NodeId, Sha256Digest, VerityDigest},
    remote::{BlobDigest, FolderCache, ResultFiles, StageResults, Taking},
    store::{ObjectMode, Output, Record, Store, read_foreign},
    verity,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most bytes of a job; that of pnb's largest stage has some 200 KB.
const MAX_JOB: u64 = 64 << 20;
/// Directory of the worker's store, below the input root. It goes with the action.
const STORE: &str = "store";

/// The inputs of a job, which are in the store by the time they are placed.
struct Delivered;

impl Delivered {
    fn pinned(store: &Store, sha256: &Sha256Digest) -> Result<VerityDigest, PipelineError> {
        store.find_sha256(sha256)?.ok_or_else(|| PipelineError::Job {
            problem: format!("it needs the pinned file {sha256}, which did not come with it"),
        })
    }
}

impl InputFiles for Delivered {
    fn output(&self, _: &Output) -> Result<(), PipelineError> {
        Ok(())
    }

    fn pinned(&self, store: &Store, file: &PinnedFile) -> Result<VerityDigest, PipelineError> {
        Self::pinned(store, &file.sha256)
    }

    fn packages(&self, store: &Store, _: &str, packages: &[&Package]) -> Result<Vec<VerityDigest>, PipelineError> {
        packages
            .iter()
            .map(|package| Self::pinned(store, &package.sha256))
            .collect()
    }

    fn base(&self, _: &Store, _: &BasePlatform) -> Result<String, PipelineError> {
        Err(PipelineError::Job {
            problem: "it needs a base image, which does not travel".to_owned(),
        })
    }
}

/// Begin of the line that names the stage whose lines follow; a line of a stage has no control character.
const STAGE_LINE: &str = "\u{1e}stage ";

/// The line that a worker prints when a stage of its job begins.
pub fn stage_line(id: &NodeId) -> String {
    format!("{STAGE_LINE}{id}")
}

/// The stage that a line of a worker begins, as it is written there.
pub(super) fn begun_stage(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()?.strip_prefix(STAGE_LINE)
}

/// Runs the job in the directory `dir`, with the program `helper` as the sandbox helper, and leaves record, log and outputs of each stage in
/// `dir/out`. When a stage fails, its log, the reason and the results of the stages before it are there.
///
/// # Errors
///
/// If the job is not whole or not for this program, if an input did not come with it, or as a stage that runs at home.
pub fn run_job(dir: &Path, helper: PathBuf, events: Events<'_>) -> Result<(), PipelineError> {
    let path = dir.join(JOB);
    let bytes = read_foreign(&path, MAX_JOB).map_err(PipelineError::io("read", &path))?;
    let mut job = WorkerJob::read(&bytes)?;
    let store = Store::open(&dir.join(STORE))?;
    let options = RunOptions {
        hermetic: job.hermetic,
        // The lines go to the engine as they are printed.
        verbose: true,
        ..RunOptions::new(helper)
    };
    let context = RunContext {
        store: &store,
        options: &options,
        inputs: &Delivered,
        events,
    };
    take_inputs(dir, &job, &store)?;
    let mut made = BTreeMap::new();
    for number in 0..job.stages.len() {
        let stage = &mut job.stages[number];
        stage.settle(&made)?;
        events(Event::Started {
            node: stage.id.clone(),
            server: None,
            reasons: Vec::new(),
        });
        let record = run_one(&context, stage, &dir.join(OUT).join(number.to_string()))?;
        for (digest, pending) in job.pending.iter().filter(|(_, pending)| pending.stage == number) {
            let output = record.outputs.get(&pending.output);
            let output = output.ok_or_else(|| PipelineError::Job {
                problem: format!("{} has no output {:?}", job.stages[number].id, pending.output),
            })?;
            made.insert(*digest, output.clone());
        }
    }
    Ok(())
}

/// Runs a stage, and leaves its record, its log and its outputs in the new directory `out`.
fn run_one(context: &RunContext<'_>, job: &StageJob, out: &Path) -> Result<Record, PipelineError> {
    let store = context.store;
    let inputs = job.resolved_inputs();
    let ran = run_recipe(context, job.recipe(&inputs), &job.canonical, &job.key, &|_| 0);
    let log = store.log_of(&job.key);
    match ran {
        Ok(mut record) => {
            // The outputs that pass an input on: the client compares them with its inputs.
            record.outputs.extend(job.forwarded.clone());
            StageResults::write_folder(store, &record, log.as_deref(), out)?;
            Ok(record)
        }
        Err(error) => {
            // Whatever becomes of these files, the error of the stage is the one that counts.
            let failure = StageFailure::new(&job.id, &error).bytes();
            let _ = StageResults::write_failure(log.as_deref(), (FAILURE, failure), out);
            Err(error)
        }
    }
}

/// Takes the files of the input root into the store. Every object gets its name from its bytes.
fn take_inputs(dir: &Path, job: &WorkerJob, store: &Arc<Store>) -> Result<(), PipelineError> {
    let results = StageResults::new(Arc::new(FolderCache::new(dir, &job.files)));
    let files = ResultFiles::from(job.files.clone());
    let taking = Taking {
        store,
        copies: 0,
        check: &|_| Ok(()),
        seen: &|_| {},
    };
    let (mut outputs, mut pinned) = (BTreeMap::new(), BTreeMap::new());
    for stage in &job.stages {
        let inputs = stage.resolved_inputs();
        let recipe = stage.recipe(&inputs);
        // An output of an earlier stage of the job is made here.
        let needed = recipe.outputs_needed().into_iter();
        let needed = needed.filter(|output| !job.pending.contains_key(output.digest()));
        outputs.extend(needed.map(|output| ((*output.digest(), matches!(output, Output::Tree { .. })), output)));
        pinned.extend(recipe.pinned_needed().into_iter().map(|blob| (blob.sha256, blob)));
    }
    for output in outputs.values() {
        results.take(&files, output, &taking)?;
    }
    pinned.values().try_for_each(|blob| take_pinned(dir, store, blob))
}

fn take_pinned(dir: &Path, store: &Store, blob: &BlobDigest) -> Result<(), PipelineError> {
    let path = dir.join(pinned_path(&blob.sha256));
    let mut both = verity::Both::new();
    let file = File::open(&path).map_err(PipelineError::io("open", &path))?;
    let mut hashed = Hashing { file, both: &mut both };
    let (digest, _) = store.put_object(ObjectMode::Plain, &mut hashed)?;
    let digests = both.finish();
    if (digests.sha256, digests.size) != (blob.sha256, blob.size) {
        return Err(PipelineError::Job {
            problem: format!("{} has other bytes than its name says", path.display()),
        });
    }
    store.link_sha256(&blob.sha256, &digest)?;
    Ok(())
}

/// Path of a package or pinned file in the input root.
pub(super) fn pinned_path(sha256: &Sha256Digest) -> String {
    format!("s/{sha256}")
}

/// A file that is hashed while it is read.
struct Hashing<'a> {
    file: File,
    both: &'a mut verity::Both,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.both.update(&buffer[..read]);
        Ok(read)
    }
}
