//! A cache that several machines share, as a build asks and fills it.
//!
//! A stage that the cache has a result for does not run; its outputs stay there until something on this machine reads them: a stage that
//! runs ([`ensure`]), or the export of an artifact. What a cache says is compared with what a run here would give: the policy, the names,
//! kinds and sizes of outputs, the entries of trees. A result that fails, or whose blobs do not arrive, is not used, and the stage runs
//! here; a cache that does not answer is not asked again. In both cases the build begins anew with what is in the store by then.

use super::{
    BuildContext, Done, Event, PipelineError, package_facts::Said, placement::unplaced, recipe::Recipe,
    resolve::ResolvedStage, run::forwarded,
};
use crate::{
    graph::StageOutputKind,
    model::{NodeId, StageKey, Tree, VerityDigest, chain, lock},
    remote::{BlobDigest, FoundResult, Loss, Published, RemoteError, StageResults, Taking},
    sandbox::{self, OutputKind, Spec},
    store::{Output, Record},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Bytes per second that a cache is expected to take before any were sent: a network of 1 Gbit/s.
const EXPECTED_RATE: u64 = 100_000_000;
/// Milliseconds of sending after which the rate that was seen counts.
const MEASURED_AFTER: u64 = 200;

/// Which results are sent to a cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upload {
    /// None.
    Never,
    /// Those whose stage took more CPU time than their transfer takes.
    Auto,
    /// All.
    Always,
}

/// A cache, and how it is used.
#[derive(Debug)]
pub struct SharedResults {
    results: StageResults,
    /// Whether results of the cache are used, or only compared with those of stages that run here.
    accept: bool,
    upload: Upload,
    /// Whether a cache that is of no use is an error.
    required: bool,
    state: Mutex<SharedState>,
    sent_bytes: AtomicU64,
    sent_ms: AtomicU64,
}

/// What a build has learned about its cache.
#[derive(Debug, Default)]
struct SharedState {
    /// Whether the server is not asked any more.
    lost: bool,
    /// Whether nothing is sent any more.
    unwritable: bool,
    /// Results that are not used, with their outputs if the record was whole.
    distrusted: BTreeMap<StageKey, BTreeMap<String, Output>>,
    /// Outputs that the store lacks, by digest.
    absent: BTreeMap<VerityDigest, Arc<AbsentOutput>>,
    /// What the statements say about packages, by key.
    facts: BTreeMap<String, Said>,
}

/// An output that a cache has, and the store does not.
#[derive(Debug)]
struct AbsentOutput {
    node: NodeId,
    found: Arc<FoundResult>,
    output: Output,
    name: String,
    /// The rules for the output.
    spec: Arc<Spec>,
    /// The server, and the worker if one made it.
    source: String,
    /// Held by the thread that takes it.
    taking: Mutex<()>,
}

/// The result of a stage that a cache claims to have.
#[derive(Clone, Copy)]
struct Claim<'a> {
    node: &'a NodeId,
    key: &'a StageKey,
    /// The outputs, if the record was whole.
    outputs: Option<&'a BTreeMap<String, Output>>,
}

impl SharedResults {
    /// The results of `results`, which are used unless `accept` is false.
    pub fn new(results: StageResults, accept: bool, upload: Upload, required: bool) -> Self {
        Self {
            results,
            accept,
            upload,
            required,
            state: Mutex::default(),
            sent_bytes: AtomicU64::new(0),
            sent_ms: AtomicU64::new(0),
        }
    }

    /// The server as messages name it.
    pub fn name(&self) -> &str {
        self.results.name()
    }

    fn answers(&self) -> bool {
        !lock(&self.state).lost
    }

    /// Notes an error about the result `of` a stage, and says it once. It is the error of the build if it is one of this machine, or if the
    /// cache is required.
    fn lose(&self, context: &BuildContext<'_>, of: Option<Claim<'_>>, error: RemoteError) -> Result<(), PipelineError> {
        let loss = error.loss();
        let mut state = lock(&self.state);
        let (first, then) = match (loss, of) {
            (Loss::Here, _) => return Err(PipelineError::Remote(Box::new(error))),
            (Loss::Writing, _) => (
                !std::mem::replace(&mut state.unwritable, true),
                "nothing more is sent to it".to_owned(),
            ),
            (Loss::Result, Some(Claim { node, key, outputs })) => {
                let outputs = outputs.cloned().unwrap_or_default();
                let known = state.distrusted.insert(*key, outputs).is_some();
                (!known, format!("{node} runs here"))
            }
            (Loss::Server | Loss::Result, _) => (
                !std::mem::replace(&mut state.lost, true),
                "the build goes on without it".to_owned(),
            ),
        };
        drop(state);
        if self.required && loss != Loss::Writing {
            return Err(PipelineError::Remote(Box::new(error)));
        }
        if first {
            (context.events)(Event::CacheLost {
                server: self.name().to_owned(),
                problem: chain(&error),
                then,
            });
        }
        Ok(())
    }

    /// The files of an output that the cache has, and the store does not.
    pub(super) fn blobs_of(&self, output: &Output) -> Option<BTreeMap<String, BlobDigest>> {
        let absent = lock(&self.state).absent.get(output.digest()).cloned()?;
        Some(absent.found.files_of(output))
    }

    /// Whether sending `bytes` takes less time than `cpu_ms` of work.
    fn worth(&self, cpu_ms: u64, bytes: u64) -> bool {
        let (sent, ms) = (
            self.sent_bytes.load(Ordering::Relaxed),
            self.sent_ms.load(Ordering::Relaxed),
        );
        let rate = match ms {
            0..MEASURED_AFTER => EXPECTED_RATE,
            _ => sent.saturating_mul(1000) / ms,
        };
        self.upload == Upload::Always || bytes.saturating_mul(1000) / rate.max(1) < cpu_ms
    }
}

/// The record of a stage in the cache, if a run here could have made it. Its outputs may be absent from the store.
pub(super) fn ask(context: &BuildContext<'_>, resolved: &ResolvedStage) -> Result<Option<Record>, PipelineError> {
    let Some(shared) = context.shared.filter(|shared| shared.accept && shared.answers()) else {
        return Ok(None);
    };
    let (id, key) = (&resolved.id, &resolved.key);
    if lock(&shared.state).distrusted.contains_key(key) {
        return Ok(None);
    }
    let claim = |outputs| Claim { node: id, key, outputs };
    let found = match shared.results.lookup(key) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(error) => return shared.lose(context, Some(claim(None)), error).map(|()| None),
    };
    let record = found.record.clone();
    if context.options.hermetic && !record.weaker.is_empty() {
        return Ok(None);
    }
    let spec = unplaced(Recipe::new(context.project, resolved)?)?;
    if let Err(problem) = check_record(context, resolved, &record, &spec) {
        let server = shared.name().to_owned();
        let error = RemoteError::Result { server, problem };
        return shared
            .lose(context, Some(claim(Some(&record.outputs))), error)
            .map(|()| None);
    }
    expect(context, shared, resolved, found, spec, shared.name())?;
    Ok(Some(record))
}

/// Takes the record that a worker left, if a run here could have made it, and names the result in the cache.
pub(super) fn accept(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    resolved: &ResolvedStage,
    found: FoundResult,
    source: &str,
) -> Result<Record, PipelineError> {
    let mut record = found.record.clone();
    let spec = unplaced(Recipe::new(context.project, resolved)?)?;
    let file = context.project.graph.file(&resolved.id);
    // An output that passes an input on does not travel back.
    record.outputs.extend(forwarded(file, resolved)?);
    let refused = |problem: String| RemoteError::Result {
        server: shared.name().to_owned(),
        problem,
    };
    check_record(context, resolved, &record, &spec).map_err(refused)?;
    if context.options.hermetic && !record.weaker.is_empty() {
        let problem = format!("its sandbox was weaker than the policy: {}", record.weaker.join("; "));
        return Err(refused(problem).into());
    }
    let files = found.files.blobs().clone();
    expect(context, shared, resolved, found, spec, source)?;
    // Under the key of the stage, where machines that only ask for results look.
    if record.weaker.is_empty()
        && let Err(error) = shared.results.name_result(&resolved.key, files)
    {
        shared.lose(context, None, error)?;
    }
    Ok(record)
}

/// Notes where the outputs of a result are, and takes those that came with the record.
fn expect(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    resolved: &ResolvedStage,
    found: FoundResult,
    spec: Spec,
    source: &str,
) -> Result<(), PipelineError> {
    let (found, spec) = (Arc::new(found), Arc::new(spec));
    for (name, output) in &found.record.outputs {
        if context.store.find_object(output.digest())?.is_some() {
            continue;
        }
        let absent = Arc::new(AbsentOutput {
            node: resolved.id.clone(),
            found: Arc::clone(&found),
            output: output.clone(),
            name: name.clone(),
            spec: Arc::clone(&spec),
            source: source.to_owned(),
            taking: Mutex::new(()),
        });
        lock(&shared.state).absent.insert(*output.digest(), absent);
        if found.files.is_here(output) {
            ensure(context, output.digest())?;
        }
    }
    context.store.put_absent_record(&found.key, &found.record)?;
    keep_if_whole(context, &found, source)
}

/// Compares a record with what a run here would give.
fn check_record(
    context: &BuildContext<'_>,
    resolved: &ResolvedStage,
    record: &Record,
    spec: &Spec,
) -> Result<(), String> {
    let id = &resolved.id;
    if (record.stage.as_str(), record.arch) != (id.stage.as_str(), id.arch) {
        return Err(format!("its record is that of {}/{}", record.stage, record.arch));
    }
    let policy = serde_json::to_value(spec.policy()).map_err(|e| e.to_string())?;
    if record.policy != policy {
        return Err(format!("{id} ran under another policy than the one it has here"));
    }
    let file = context.project.graph.file(id);
    let passed_on = forwarded(file, resolved).map_err(|e| chain(&e))?;
    let mut declared = BTreeSet::new();
    for (name, output) in file.outputs_for(id.arch) {
        declared.insert(name);
        let fits = match (record.outputs.get(name), output.kind) {
            (Some(Output::Tree { .. }), StageOutputKind::Tree) => true,
            (Some(Output::File { size, .. }), StageOutputKind::File) => *size <= spec.limits.output_bytes,
            _ => false,
        };
        if !fits {
            return Err(format!("its record has no output {name:?} as {id} declares it"));
        }
        if passed_on
            .get(name)
            .is_some_and(|input| record.outputs.get(name) != Some(input))
        {
            return Err(format!(
                "the output {name:?} of {id} is not the input that it passes on"
            ));
        }
    }
    match record.outputs.keys().find(|name| !declared.contains(name)) {
        Some(more) => Err(format!(
            "its record has an output {more:?}, which {id} does not declare"
        )),
        None => Ok(()),
    }
}

/// Takes an output of another stage from the cache, if the cache is where it is. Anything that reads an output calls this first.
pub(super) fn ensure(context: &BuildContext<'_>, digest: &VerityDigest) -> Result<(), PipelineError> {
    let Some(shared) = context.shared else { return Ok(()) };
    let Some(absent) = lock(&shared.state).absent.get(digest).cloned() else {
        return Ok(());
    };
    let _taking = lock(&absent.taking);
    if context.store.find_object(digest)?.is_some() {
        return Ok(());
    }
    let (id, found) = (&absent.node, &absent.found);
    if !shared.answers() || lock(&shared.state).distrusted.contains_key(&found.key) {
        return Err(PipelineError::Lost { node: id.clone() });
    }
    let small = found.files.is_here(&absent.output);
    let what = id.to_string();
    let total = found.files.size_of(&absent.output);
    if !small {
        (context.events)(Event::Fetching {
            what: what.clone(),
            files: 1,
            total,
        });
    }
    let arrived = AtomicU64::new(0);
    let seen = |bytes: u64| {
        let bytes = arrived.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (context.events)(Event::Fetched {
            what: what.clone(),
            bytes,
            total: total.max(bytes + 1),
        });
    };
    let spec = &absent.spec;
    let check = |tree: &Tree| -> Result<(), String> {
        let output = spec.outputs.iter().find(|output| output.name == absent.name);
        let output = output.filter(|output| output.kind == OutputKind::Tree);
        let output = output.ok_or_else(|| format!("{id} declares no tree {:?}", absent.name))?;
        sandbox::check_tree(spec, output, tree).map_err(|e| chain(&e))
    };
    let taking = Taking {
        store: context.store,
        copies: context
            .project
            .graph
            .times_exported(id, &absent.name, &context.options.exported),
        check: &check,
        seen: &seen,
    };
    let taken = shared.results.take(&found.files, &absent.output, &taking);
    if !small {
        let bytes = arrived.load(Ordering::Relaxed);
        (context.events)(Event::Fetched {
            what,
            bytes,
            total: bytes,
        });
    }
    match taken {
        Ok(()) => {
            lock(&shared.state).absent.remove(digest);
            keep_if_whole(context, found, &absent.source)
        }
        Err(error) => {
            let claim = Claim {
                node: id,
                key: &found.key,
                outputs: Some(&found.record.outputs),
            };
            shared.lose(context, Some(claim), error)?;
            Err(PipelineError::Lost { node: id.clone() })
        }
    }
}

/// Keeps the record of a result in the store once the store has all its outputs.
fn keep_if_whole(context: &BuildContext<'_>, found: &FoundResult, source: &str) -> Result<(), PipelineError> {
    let store = context.store;
    for output in found.record.outputs.values() {
        if store.find_object(output.digest())?.is_none() {
            return Ok(());
        }
    }
    if store.record(&found.key)?.is_none() {
        if let Some(log) = found.files.log() {
            store.put_log(&found.key, &found.record.stage, found.record.arch, log)?;
        }
        store.put_record(&found.key, &found.record, Some(source))?;
    }
    Ok(())
}

/// Offers the result of a stage that ran here to the cache, and compares it with what the cache has under its key.
pub(super) fn offer(context: &BuildContext<'_>, done: &Done) -> Result<(), PipelineError> {
    let Some(shared) = context.shared.filter(|shared| shared.answers()) else {
        return Ok(());
    };
    let (id, key, record) = (&done.resolved.id, &done.resolved.key, &done.record);
    let claimed = lock(&shared.state).distrusted.get(key).cloned();
    if let Some(claimed) = claimed
        .as_ref()
        .filter(|claimed| !claimed.is_empty() && **claimed != record.outputs)
    {
        disagree(context, shared, id, record, claimed);
        return Ok(());
    }
    let writes = shared.upload != Upload::Never && record.weaker.is_empty() && !lock(&shared.state).unwritable;
    let begin = Instant::now();
    let offered = match writes {
        true => shared.results.publish(
            context.store,
            key,
            record,
            context.store.log_of(key).as_deref(),
            claimed.is_some(),
            &|bytes| shared.worth(record.cpu_ms, bytes),
        ),
        false if claimed.is_some() => return Ok(()),
        false => shared.results.lookup(key).map(|found| match found {
            Some(found) if found.record.outputs != record.outputs => Published::Differs(found.record.outputs),
            _ => Published::Present,
        }),
    };
    match offered {
        Ok(Published::Sent(bytes)) => {
            let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            shared.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
            shared.sent_ms.fetch_add(ms, Ordering::Relaxed);
            (context.events)(Event::Sent {
                node: id.clone(),
                server: shared.name().to_owned(),
                bytes,
            });
        }
        Ok(Published::Differs(claimed)) => disagree(context, shared, id, record, &claimed),
        Ok(Published::Present | Published::NotWorth) => {}
        Err(error) => {
            let outputs = claimed.as_ref();
            shared.lose(context, Some(Claim { node: id, key, outputs }), error)?;
        }
    }
    Ok(())
}

fn disagree(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    id: &NodeId,
    record: &Record,
    claimed: &BTreeMap<String, Output>,
) {
    let names: BTreeSet<&String> = record.outputs.keys().chain(claimed.keys()).collect();
    for name in names {
        let digest = |outputs: &BTreeMap<String, Output>| outputs.get(name).map(|output| *output.digest());
        let (here, there) = (digest(&record.outputs), digest(claimed));
        if here != there {
            (context.events)(Event::Disagrees {
                node: id.clone(),
                output: name.clone(),
                server: shared.name().to_owned(),
                here,
                there,
            });
        }
    }
}

/// What packages say about themselves, from the cache; `None` if it has nothing that `fits`.
pub(super) fn facts(context: &BuildContext<'_>, key: &str, fits: &dyn Fn(&Said) -> bool) -> Option<Said> {
    let shared = context.shared.filter(|shared| shared.accept)?;
    if let Some(known) = lock(&shared.state).facts.get(key) {
        return Some(known.clone());
    }
    // Whatever is wrong with them, they are read from the packages instead.
    let bytes = shared
        .answers()
        .then(|| shared.results.facts(key).ok().flatten())
        .flatten()?;
    let said: Said = serde_json::from_slice(&bytes).ok()?;
    if !fits(&said) {
        return None;
    }
    lock(&shared.state).facts.insert(key.to_owned(), said.clone());
    Some(said)
}

/// Offers what packages say about themselves to the cache.
pub(super) fn offer_facts(context: &BuildContext<'_>, key: &str, said: &Said) -> Result<(), PipelineError> {
    let writes = |shared: &&SharedResults| {
        let state = lock(&shared.state);
        shared.upload != Upload::Never && !state.unwritable && !state.lost
    };
    let Some(shared) = context.shared.filter(writes) else {
        return Ok(());
    };
    let bytes = serde_json::to_vec(said).map_err(|e| PipelineError::describe(e.to_string()))?;
    match shared.results.put_facts(key, bytes) {
        Ok(()) => Ok(()),
        Err(error) => shared.lose(context, None, error),
    }
}
