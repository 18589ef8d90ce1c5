//! A cache that several machines share, as a build asks and fills it.
//!
//! A stage that the cache has a result for does not run; its outputs stay there until something on this machine reads them: a stage that
//! runs ([`ensure`]), or the export of an artifact. What a cache says is compared with what a run here would give: the policy, the names,
//! kinds and sizes of outputs, the entries of trees. A result that fails, or whose blobs do not arrive, is not used, and the stage runs
//! here; a cache that does not answer is not asked again. In both cases the build begins anew with what is in the store by then.

use super::{
    BuildContext, BuildOutcome, Done, Event, Events, PipelineError, Project, package_facts::Said, placement::unplaced,
    recipe::Recipe, resolve::ResolvedStage, run::forwarded,
};
use crate::{
    graph::StageOutputKind,
    model::{EMPTY_FILE, NodeId, StageKey, Tree, VerityDigest, chain, lock},
    remote::{BlobDigest, FoundResult, Loss, Published, RemoteError, StageResults, Taking},
    sandbox::{self, OutputKind, Spec},
    store::{Output, Record, Store},
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
/// Bytes that have to be sent as well: a request that moves none takes its time too.
const MEASURED_BYTES: u64 = 4 << 20;

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
    /// Outputs that the store lacks.
    absent: BTreeMap<Place, Arc<AbsentOutput>>,
    /// What the statements say about packages, by key.
    facts: BTreeMap<String, Said>,
}

/// The digest of an output, and whether it is a tree: the same bytes can be a file of one stage and the dump of another's tree.
type Place = (VerityDigest, bool);

fn place_of(output: &Output) -> Place {
    (*output.digest(), matches!(output, Output::Tree { .. }))
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
    /// Whether a worker made it in this build.
    made: bool,
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
    fn lose(&self, events: Events<'_>, of: Option<Claim<'_>>, error: RemoteError) -> Result<(), PipelineError> {
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
                // Its outputs are made anew.
                state.absent.retain(|_, absent| absent.found.key != *key);
                (!known, format!("{node} runs here"))
            }
            (Loss::Server | Loss::Result, _) => (
                !std::mem::replace(&mut state.lost, true),
                "the build goes on without it".to_owned(),
            ),
        };
        drop(state);
        // One bad result is made here, or on a worker, even where the cache has to be there.
        if self.required && loss == Loss::Server {
            return Err(PipelineError::Remote(Box::new(error)));
        }
        if first {
            events(Event::CacheLost {
                server: self.name().to_owned(),
                problem: chain(&error),
                then,
            });
        }
        Ok(())
    }

    /// The files of an output that the cache has, and the store does not.
    pub(super) fn blobs_of(&self, output: &Output) -> Option<BTreeMap<String, BlobDigest>> {
        let absent = lock(&self.state).absent.get(&place_of(output)).cloned()?;
        Some(absent.found.files_of(output))
    }

    /// Whether the result of a key was given up in this build.
    pub(super) fn distrusts(&self, key: &StageKey) -> bool {
        lock(&self.state).distrusted.contains_key(key)
    }

    /// Whether results of the cache are used.
    pub(super) fn accepts(&self) -> bool {
        self.accept
    }

    /// Whether something is sent to the cache.
    fn writes(&self) -> bool {
        let state = lock(&self.state);
        self.upload != Upload::Never && !state.unwritable && !state.lost
    }

    /// The bytes that have to come from the server before something here reads an output; `None` if the store has it, or nobody.
    pub(super) fn absent_bytes(&self, output: &Output) -> Option<u64> {
        let absent = lock(&self.state).absent.get(&place_of(output)).cloned()?;
        Some(absent.found.files.size_of(output))
    }

    /// Bytes per second that are sent, as this build has seen it.
    pub(super) fn rate(&self) -> u64 {
        let (sent, ms) = (
            self.sent_bytes.load(Ordering::Relaxed),
            self.sent_ms.load(Ordering::Relaxed),
        );
        match (sent, ms) {
            (MEASURED_BYTES.., MEASURED_AFTER..) => sent.saturating_mul(1000) / ms,
            _ => EXPECTED_RATE,
        }
    }

    /// Whether sending `bytes` takes less time than `cpu_ms` of work.
    fn worth(&self, cpu_ms: u64, bytes: u64) -> bool {
        self.upload == Upload::Always || bytes.saturating_mul(1000) / self.rate().max(1) < cpu_ms
    }
}

/// The record of a stage in the cache, for a plan: nothing but records is read, and the store is left as it is.
pub(super) fn look(
    shared: &SharedResults,
    (project, store): (&Project, &Store),
    events: Events<'_>,
    resolved: &ResolvedStage,
) -> Result<Option<Record>, PipelineError> {
    if !shared.accept || !shared.answers() {
        return Ok(None);
    }
    let (node, key) = (&resolved.id, &resolved.key);
    let claim = Some(Claim {
        node,
        key,
        outputs: None,
    });
    let record = match shared.results.record(key) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(None),
        Err(error) => return shared.lose(events, claim, error).map(|()| None),
    };
    let spec = unplaced(Recipe::new(project, resolved)?)?;
    match check_record((project, store), resolved, &record, &spec) {
        Ok(()) => Ok(Some(record)),
        Err(problem) => {
            let server = shared.name().to_owned();
            let error = RemoteError::Result { server, problem };
            shared.lose(events, claim, error).map(|()| None)
        }
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
        Err(error) => return shared.lose(context.events, Some(claim(None)), error).map(|()| None),
    };
    let record = found.record.clone();
    if context.options.hermetic && !record.weaker.is_empty() {
        return Ok(None);
    }
    let spec = unplaced(Recipe::new(context.project, resolved)?)?;
    if let Err(problem) = check_record((context.project, context.store), resolved, &record, &spec) {
        let server = shared.name().to_owned();
        let error = RemoteError::Result { server, problem };
        return shared
            .lose(context.events, Some(claim(Some(&record.outputs))), error)
            .map(|()| None);
    }
    expect(context, shared, resolved, found, spec, None)?;
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
    let record = found.record.clone();
    let spec = unplaced(Recipe::new(context.project, resolved)?)?;
    let refused = |problem: String| RemoteError::Result {
        server: shared.name().to_owned(),
        problem,
    };
    check_record((context.project, context.store), resolved, &record, &spec).map_err(refused)?;
    if context.options.hermetic && !record.weaker.is_empty() {
        let problem = format!("its sandbox was weaker than the policy: {}", record.weaker.join("; "));
        return Err(refused(problem).into());
    }
    let files = found.files.blobs().clone();
    // What the store has is from another run: here, or from a cache.
    if let Some(stored) = context
        .store
        .record(&resolved.key)?
        .filter(|stored| stored.outputs != record.outputs)
    {
        disagree(context, shared, &resolved.id, &stored, &record.outputs);
    }
    expect(context, shared, resolved, found, spec, Some(source))?;
    name_result(context, shared, resolved, &record, files)?;
    Ok(record)
}

/// Names a result of a worker under the key of its stage, where machines that only ask for results look. One that is there is left alone,
/// unless it was given up in this build.
fn name_result(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    resolved: &ResolvedStage,
    record: &Record,
    files: BTreeMap<String, BlobDigest>,
) -> Result<(), PipelineError> {
    let (id, key) = (&resolved.id, &resolved.key);
    let present = match shared.distrusts(key) {
        true => None,
        // A result that cannot be read is replaced.
        false => shared.results.lookup(key).unwrap_or_default(),
    };
    match present {
        Some(present) if present.record.outputs != record.outputs => {
            disagree(context, shared, id, record, &present.record.outputs);
            return Ok(());
        }
        Some(present) if present.record.weaker.is_empty() => return Ok(()),
        _ => {}
    }
    if record.weaker.is_empty()
        && shared.writes()
        && let Err(error) = shared.results.name_result(key, files)
    {
        not_sent(context, shared, id, error)?;
    }
    Ok(())
}

/// A result could not be sent. The stage has run, so that nothing is lost but the place in the cache.
fn not_sent(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    id: &NodeId,
    error: RemoteError,
) -> Result<(), PipelineError> {
    match error.loss() {
        Loss::Writing | Loss::Server => shared.lose(context.events, None, error),
        Loss::Result | Loss::Here => {
            (context.events)(Event::CacheLost {
                server: shared.name().to_owned(),
                problem: chain(&error),
                then: format!("the result of {id} is not sent"),
            });
            Ok(())
        }
    }
}

/// A file of a result, which the server was said to have, is gone: its stage runs again.
pub(super) fn lost_file(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    path: &str,
    needed: &[Output],
) -> Result<PipelineError, PipelineError> {
    let places: Vec<Place> = needed.iter().map(place_of).collect();
    let known = lock(&shared.state).absent.clone();
    // Results may share a file: the one that is meant is that of an output which was asked for.
    let asked = known.iter().filter(|(place, _)| places.contains(place));
    let holder = asked
        .map(|(_, absent)| absent)
        .find_map(|absent| Some((absent, *absent.found.files_of(&absent.output).get(path)?)));
    let Some((absent, blob)) = holder else {
        return Ok(PipelineError::Remote(Box::new(RemoteError::Result {
            server: shared.name().to_owned(),
            problem: format!("it lost {path}"),
        })));
    };
    let error = RemoteError::Lacks {
        server: shared.name().to_owned(),
        blob,
    };
    lost(context, shared, absent, error).map(|()| PipelineError::Lost {
        node: absent.node.clone(),
    })
}

/// An output does not come. A result of the cache is given up; one that a worker has just made is an error of the build.
fn lost(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    absent: &AbsentOutput,
    error: RemoteError,
) -> Result<(), PipelineError> {
    if absent.made {
        return Err(error.into());
    }
    let claim = Claim {
        node: &absent.node,
        key: &absent.found.key,
        outputs: Some(&absent.found.record.outputs),
    };
    shared.lose(context.events, Some(claim), error)
}

/// Notes where the outputs of a result are, and takes those that came with the record. `worker` is the name of the worker that has made it
/// in this build.
fn expect(
    context: &BuildContext<'_>,
    shared: &SharedResults,
    resolved: &ResolvedStage,
    found: FoundResult,
    spec: Spec,
    worker: Option<&str>,
) -> Result<(), PipelineError> {
    let source = worker.unwrap_or(shared.name());
    let (found, spec) = (Arc::new(found), Arc::new(spec));
    for (name, output) in &found.record.outputs {
        if is_whole(context, output)? {
            continue;
        }
        let absent = Arc::new(AbsentOutput {
            node: resolved.id.clone(),
            found: Arc::clone(&found),
            output: output.clone(),
            name: name.clone(),
            spec: Arc::clone(&spec),
            source: source.to_owned(),
            made: worker.is_some(),
            taking: Mutex::new(()),
        });
        lock(&shared.state).absent.insert(place_of(output), absent);
        if found.files.is_here(output) {
            ensure(context, output)?;
        }
    }
    context.store.put_absent_record(&found.key, &found.record)?;
    keep_if_whole(context, &found, source, worker.is_some())
}

/// Whether the store has all of an output. The dump of a tree is not enough: its bytes may have come as a file.
fn is_whole(context: &BuildContext<'_>, output: &Output) -> Result<bool, PipelineError> {
    let store = context.store;
    if store.find_object(output.digest())?.is_none() {
        return Ok(false);
    }
    let Output::Tree { digest } = output else {
        return Ok(true);
    };
    let Ok(tree) = store.tree(digest) else { return Ok(false) };
    for object in tree.objects().into_keys() {
        if object != EMPTY_FILE && store.find_object(&object)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Holds a tree against the rules for the output `name` of a stage.
fn check_entries(id: &NodeId, spec: &Spec, name: &str, tree: &Tree) -> Result<(), String> {
    let output = spec.outputs.iter().find(|output| output.name == name);
    let output = output.filter(|output| output.kind == OutputKind::Tree);
    let output = output.ok_or_else(|| format!("{id} declares no tree {name:?}"))?;
    sandbox::check_tree(spec, output, tree).map_err(|e| chain(&e))
}

/// Compares a record with what a run here would give.
fn check_record(
    (project, store): (&Project, &Store),
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
    let file = project.graph.file(id);
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
    // What the store has already is not taken again, and is held against the rules of this stage here.
    for (name, output) in record.outputs.iter().filter(|(name, _)| !passed_on.contains_key(*name)) {
        match output {
            Output::Tree { digest } => {
                if store.find_object(digest).map_err(|e| chain(&e))?.is_some() {
                    let tree = store
                        .tree(digest)
                        .map_err(|e| format!("the tree {name:?}: {}", chain(&e)))?;
                    check_entries(id, spec, name, &tree).map_err(|problem| format!("the tree {name:?}: {problem}"))?;
                }
            }
            Output::File { digest, size } => {
                let present = store.find_object(digest).map_err(|e| chain(&e))?;
                let found = present
                    .map(|path| path.metadata().map_err(|e| e.to_string()))
                    .transpose()?;
                if found.is_some_and(|found| found.len() != *size) {
                    return Err(format!("the output {name:?} has another size than {size}"));
                }
            }
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
pub(super) fn ensure(context: &BuildContext<'_>, output: &Output) -> Result<(), PipelineError> {
    let Some(shared) = context.shared else { return Ok(()) };
    let Some(absent) = lock(&shared.state).absent.get(&place_of(output)).cloned() else {
        return Ok(());
    };
    let _taking = lock(&absent.taking);
    if is_whole(context, output)? {
        return Ok(());
    }
    let (id, found) = (&absent.node, &absent.found);
    if !absent.made && (!shared.answers() || shared.distrusts(&found.key)) {
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
    let check = |tree: &Tree| check_entries(id, &absent.spec, &absent.name, tree);
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
            lock(&shared.state).absent.remove(&place_of(output));
            on_server(context, output);
            keep_if_whole(context, found, &absent.source, absent.made)
        }
        Err(error) => {
            lost(context, shared, &absent, error)?;
            Err(PipelineError::Lost { node: id.clone() })
        }
    }
}

/// Notes that the server has an output, so that a worker need not be sent it.
fn on_server(context: &BuildContext<'_>, output: &Output) {
    if let Some(elsewhere) = context.elsewhere {
        elsewhere.costs.sent(output);
    }
}

/// Keeps the record of a result in the store once the store has all its outputs. One that a worker has `made` in this build takes the
/// place of another: the store says what the build used.
fn keep_if_whole(
    context: &BuildContext<'_>,
    found: &FoundResult,
    source: &str,
    made: bool,
) -> Result<(), PipelineError> {
    let store = context.store;
    for output in found.record.outputs.values() {
        if !is_whole(context, output)? {
            return Ok(());
        }
    }
    if made || store.record(&found.key)?.is_none() {
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
    let writes = shared.writes() && record.weaker.is_empty();
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
            record.outputs.values().for_each(|output| on_server(context, output));
            (context.events)(Event::Sent {
                node: id.clone(),
                server: shared.name().to_owned(),
                bytes,
            });
        }
        Ok(Published::Present) => record.outputs.values().for_each(|output| on_server(context, output)),
        Ok(Published::Differs(claimed)) => disagree(context, shared, id, record, &claimed),
        Ok(Published::NotWorth) => {}
        Err(error) => not_sent(context, shared, id, error)?,
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

/// What packages say about themselves, from the cache; `None` if it has nothing that `fits`. They are taken only where stages came from
/// elsewhere too: a build whose stages all ran here has the packages.
pub(super) fn facts(
    context: &BuildContext<'_>,
    outcome: &BuildOutcome,
    key: &str,
    fits: &dyn Fn(&Said) -> bool,
) -> Result<Option<Said>, PipelineError> {
    let elsewhere = outcome.nodes.values().any(|done| done.source.is_some());
    let Some(shared) = context.shared.filter(|shared| shared.accept && elsewhere) else {
        return Ok(None);
    };
    if let Some(known) = lock(&shared.state).facts.get(key) {
        return Ok(Some(known.clone()));
    }
    if !shared.answers() {
        return Ok(None);
    }
    let bytes = match shared.results.facts(key) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        // Bad ones are read from the packages instead.
        Err(error) if error.loss() == Loss::Result => return Ok(None),
        Err(error) => return shared.lose(context.events, None, error).map(|()| None),
    };
    let said = serde_json::from_slice(&bytes).ok().filter(|said| fits(said));
    if let Some(said) = &said {
        lock(&shared.state).facts.insert(key.to_owned(), Said::clone(said));
    }
    Ok(said)
}

/// Offers what packages say about themselves to the cache, if it has nothing under the key.
pub(super) fn offer_facts(context: &BuildContext<'_>, key: &str, said: &Said) -> Result<(), PipelineError> {
    let Some(shared) = context.shared.filter(|shared| shared.writes()) else {
        return Ok(());
    };
    let bytes = serde_json::to_vec(said).map_err(|e| PipelineError::describe(e.to_string()))?;
    let put = |present: Option<Vec<u8>>| match present {
        Some(_) => Ok(()),
        None => shared.results.put_facts(key, bytes),
    };
    match shared.results.facts(key).and_then(put) {
        Ok(()) => Ok(()),
        Err(error) => match error.loss() {
            Loss::Writing | Loss::Server => shared.lose(context.events, None, error),
            // The next build reads them from the packages.
            Loss::Result | Loss::Here => Ok(()),
        },
    }
}
