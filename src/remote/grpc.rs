//! [`GrpcCache`]: a cache over the Remote Execution API, with a face that blocks.
//!
//! Blobs cross the network as they are. `compressed-blobs/zstd` is not used: packs are compressed already, and what is larger than a pack's
//! members are artifacts, of which most bytes are compressed too.
//!
//! Source: `build/bazel/remote/execution/v2/remote_execution.proto`; the name of the header: the comment on `RequestMetadata`.

use super::{
    BlobDigest, CachedResult, Endpoint, OpenBlob, RemoteCache, RemoteError, RemoteLimits, SMALL_BLOBS,
    channel::{LastFault, channel},
    pace::{BytePace, Counted, Stall},
    proto,
    status::{Doing, Verdict, verdict, words},
    token::{Bearer, TokenFile},
};
use crate::http::NetworkSettings;
use bazel_remote_apis::{
    build::bazel::{
        remote::execution::v2::{
            BatchReadBlobsRequest, BatchUpdateBlobsRequest, CacheCapabilities, FindMissingBlobsRequest,
            GetActionResultRequest, GetCapabilitiesRequest, RequestMetadata, ServerCapabilities, ToolDetails,
            UpdateActionResultRequest, action_cache_client::ActionCacheClient, batch_update_blobs_request,
            capabilities_client::CapabilitiesClient,
            content_addressable_storage_client::ContentAddressableStorageClient, digest_function,
        },
        semver::SemVer,
    },
    google::rpc,
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    io::{Cursor, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};
use tonic::{
    Code, Request, Response, Status,
    metadata::{AsciiMetadataValue, BinaryMetadataValue},
    transport::Channel,
};

/// The digest function of all requests.
pub(super) const SHA256: i32 = digest_function::Value::Sha256 as i32;
/// The most bytes of a message that a server sends.
pub(super) const MAX_MESSAGE: usize = 16 << 20;
/// The most digests of a request for the missing ones: 76 bytes each.
const PAGE: usize = 8192;
/// The bytes that a blob in a batch takes beside its own.
const FRAME: u64 = 128;
/// The header that names the program of a request.
const METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// A cache over gRPC, with the thread that moves its bytes.
pub(super) struct GrpcCache {
    name: String,
    instance: String,
    /// `None` only while the cache is dropped.
    runtime: Option<Runtime>,
    channel: Channel,
    fault: LastFault,
    limits: RemoteLimits,
    token: TokenFile,
    metadata: BinaryMetadataValue,
    offers: Offers,
    /// Whether the server has no batches.
    single: AtomicBool,
    /// Whether blobs are of use without results: as inputs of actions.
    inputs: bool,
    /// How long a server that was there is tried again when it is not reached.
    patience: Duration,
    /// How long a server that refuses more calls at once is asked again.
    busy: Duration,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug)]
struct Offers {
    /// The most bytes of the blobs of a batch.
    batch: u64,
    /// The most bytes of a blob.
    largest: u64,
    /// Whether it takes results.
    updates: bool,
    /// Whether it runs actions.
    executes: bool,
}

impl fmt::Debug for GrpcCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcCache({}, {:?})", self.name, self.offers)
    }
}

impl Drop for GrpcCache {
    fn drop(&mut self) {
        // A thread that resolves a name cannot be stopped, and is not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The same of a server that refuses more calls at once: each try is one more.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// How often somebody who waits for the next try looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// The tries of one request.
pub(super) struct Attempts<'a> {
    cache: &'a GrpcCache,
    doing: Doing,
    made: u32,
    /// Since when the server is not reached.
    unreached: Option<Instant>,
    /// How often the server refused for the moment, and how long that was waited for in all.
    refused: u32,
    rested: Duration,
    renewed: bool,
    /// The token of the present try.
    bearer: Option<Bearer>,
}

impl Attempts<'_> {
    /// Adds the headers of the present try to a request.
    pub(super) fn request<M>(&mut self, message: M) -> Result<Request<M>, RemoteError> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert_bin(METADATA, self.cache.metadata.clone());
        self.bearer = self.cache.token.get();
        if let Some(bearer) = &self.bearer {
            let value = AsciiMetadataValue::try_from(bearer.header());
            let mut value = value.map_err(|_| self.cache.gone("the token cannot stand in a header".to_owned()))?;
            value.set_sensitive(true);
            metadata.insert("authorization", value);
        }
        Ok(request)
    }

    /// Waits for the next try after a failed one.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(super) fn again(&mut self, status: &Status) -> Result<(), RemoteError> {
        self.again_if(status, &|| true).map(|_| ())
    }

    /// The same as long as somebody wants the answer; returns whether that is so.
    pub(super) fn again_if(&mut self, status: &Status, wanted: &dyn Fn() -> bool) -> Result<bool, RemoteError> {
        let wait = match verdict(&self.cache.name, self.doing, status, &self.cache.fault) {
            Verdict::Again(error) if is_answer(status) && status.code() != Code::Unavailable => {
                self.wait(Duration::ZERO, error)?
            }
            Verdict::Again(error) => self.wait(self.cache.patience, error)?,
            Verdict::Busy { problem, delay } => self.rest(problem, delay)?,
            Verdict::Token(error) => {
                if self.renewed || !self.cache.token.renewed(self.bearer.as_ref()) {
                    return Err(error);
                }
                self.renewed = true;
                Duration::ZERO
            }
            Verdict::Final(error) => return Err(error),
        };
        Ok(sleep_if(wait, wanted))
    }

    /// Counts anew, after a try that was good for something. Refusals for the moment are counted to the end: an action that is refused
    /// whenever it has run would run without end.
    pub(super) fn restart(&mut self) {
        self.made = 1;
        self.unreached = None;
        self.renewed = false;
    }

    /// Waits for the next try after a fault that has a name already.
    pub(super) fn once_more(&mut self, error: RemoteError) -> Result<(), RemoteError> {
        std::thread::sleep(self.wait(Duration::ZERO, error)?);
        Ok(())
    }

    /// Waits for the next try after a refusal for the moment, as long as somebody wants the answer; returns whether that is so.
    pub(super) fn after_refusal(
        &mut self,
        problem: String,
        delay: Option<Duration>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<bool, RemoteError> {
        Ok(sleep_if(self.rest(problem, delay)?, wanted))
    }

    /// The wait before the next try, if there are some left or the time is not over.
    fn wait(&mut self, time: Duration, error: RemoteError) -> Result<Duration, RemoteError> {
        let since = *self.unreached.get_or_insert_with(Instant::now);
        if self.made >= self.cache.limits.tries && since.elapsed() >= time {
            return Err(error);
        }
        let wait = self.cache.limits.wait.saturating_mul(1 << (self.made - 1).min(8));
        self.made += 1;
        Ok(wait.min(LONGEST_WAIT))
    }

    /// The wait before the next try of a server that refuses for the moment. Clients that were refused together do not come again together.
    fn rest(&mut self, problem: String, delay: Option<Duration>) -> Result<Duration, RemoteError> {
        self.refused += 1;
        if self.refused >= self.cache.limits.tries && self.rested >= self.cache.busy {
            return Err(RemoteError::Busy {
                server: self.cache.name.clone(),
                writes: self.doing == Doing::Writing,
                times: self.refused,
                seconds: self.rested.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
                problem,
            });
        }
        let longest = self.cache.limits.wait.saturating_mul(1 << (self.refused - 1).min(8));
        let longest = longest.min(LONGEST_REST);
        let mut random = [0];
        // Without random numbers they come together.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let wait = longest / 2 + longest / 2 * u32::from(random[0]) / 255;
        let wait = wait.max(delay.unwrap_or_default().min(LONGEST_REST));
        self.rested += wait;
        Ok(wait)
    }
}

/// Sleeps as long as somebody waits for what comes after; returns whether that is so.
fn sleep_if(time: Duration, wanted: &dyn Fn() -> bool) -> bool {
    let begin = Instant::now();
    while let Some(left) = time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
        if !wanted() {
            return false;
        }
        std::thread::sleep(left.min(LOOK));
    }
    true
}

impl GrpcCache {
    /// Connects, and asks the server what it offers. An `engine` gets blobs even if it takes no results.
    ///
    /// # Errors
    ///
    /// If a file of the endpoint cannot be used, if the server is not reached, or if it lacks what a cache needs.
    pub(super) fn connect(
        endpoint: &Endpoint,
        network: &NetworkSettings,
        limits: &RemoteLimits,
        engine: bool,
    ) -> Result<Self, RemoteError> {
        let token = TokenFile::open(endpoint)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("remote cache")
            .enable_all()
            .build()
            .map_err(|source| RemoteError::Local {
                doing: "start the thread of the remote cache".to_owned(),
                source,
            })?;
        let entered = runtime.enter();
        let (channel, fault) = channel(endpoint, network, limits)?;
        drop(entered);
        let metadata = RequestMetadata {
            tool_details: Some(ToolDetails {
                tool_name: "pnb".to_owned(),
                tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            ..RequestMetadata::default()
        };
        let mut cache = Self {
            name: endpoint.address.to_string(),
            instance: endpoint.address.path().to_owned(),
            runtime: Some(runtime),
            channel,
            fault,
            limits: *limits,
            token,
            metadata: BinaryMetadataValue::from_bytes(&metadata.encode_to_vec()),
            offers: Offers {
                batch: SMALL_BLOBS,
                largest: u64::MAX,
                updates: true,
                executes: false,
            },
            single: AtomicBool::new(false),
            inputs: false,
            patience: Duration::ZERO,
            busy: if engine { limits.busy } else { Duration::ZERO },
        };
        cache.offers = cache.ask_offers()?;
        cache.inputs = cache.offers.executes && engine;
        if cache.inputs {
            // The stages that run on its workers are worth a restart of the engine.
            cache.patience = limits.silence;
        }
        Ok(cache)
    }

    /// The name of the server, for messages.
    pub(super) fn server(&self) -> &str {
        &self.name
    }

    /// The instance as the first part of a resource name: nothing, or its name and a slash.
    pub(super) fn prefix(&self) -> String {
        match self.instance.as_str() {
            "" => String::new(),
            instance => format!("{instance}/"),
        }
    }

    /// The pace of a new request, and the channel on which it is counted.
    pub(super) fn pace(&self, commits: bool) -> (BytePace, Counted) {
        let pace = BytePace::new(self.limits, commits);
        let counted = pace.over(&self.channel);
        (pace, counted)
    }

    /// The tries of a new request.
    pub(super) fn attempts(&self, doing: Doing) -> Attempts<'_> {
        Attempts {
            cache: self,
            doing,
            made: 1,
            unreached: None,
            refused: 0,
            rested: Duration::ZERO,
            renewed: false,
            bearer: None,
        }
    }

    /// Runs a request on the calling thread; the other one moves the bytes.
    pub(super) fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, RemoteError> {
        match &self.runtime {
            Some(runtime) => Ok(runtime.block_on(work)),
            None => Err(self.gone("the connection is closed".to_owned())),
        }
    }

    /// Begins work on the thread of the connection.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
        self.runtime.as_ref().map(|runtime| runtime.spawn(work))
    }

    /// The longest silence of the server.
    pub(super) fn silence(&self) -> Duration {
        self.limits.silence
    }

    /// The instance.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// The server is of no use.
    pub(super) fn gone(&self, problem: String) -> RemoteError {
        RemoteError::Gone {
            server: self.name.clone(),
            problem,
        }
    }

    /// The server moved too few bytes.
    pub(super) fn stalled(&self, stall: Stall) -> RemoteError {
        self.gone(stall.to_string())
    }

    fn unsupported(&self, problem: String) -> RemoteError {
        RemoteError::Unsupported {
            server: self.name.clone(),
            problem,
        }
    }

    /// A request and its answer in one message each. The inner error is a status with one of the `known` codes.
    pub(super) fn call<M: Clone, A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        doing: Doing,
        message: &M,
        known: &[Code],
        send: impl Fn(Counted, Request<M>) -> F,
    ) -> Result<Result<A, Status>, RemoteError> {
        let mut attempts = self.attempts(doing);
        loop {
            let request = attempts.request(message.clone())?;
            let (mut pace, channel) = self.pace(false);
            let answered = self.run(async { pace.wait(send(channel, request)).await })?;
            match answered.map_err(|stall| self.stalled(stall))? {
                Ok(answer) => return Ok(Ok(answer.into_inner())),
                Err(status) if known.contains(&status.code()) && is_answer(&status) => return Ok(Err(status)),
                Err(status) => attempts.again(&status)?,
            }
        }
    }

    /// The answer of the server about itself; the inner error is a status with one of the `known` codes.
    fn capabilities(&self, known: &[Code]) -> Result<Result<ServerCapabilities, Status>, RemoteError> {
        let message = GetCapabilitiesRequest {
            instance_name: self.instance.clone(),
        };
        self.call(Doing::Reading, &message, known, |channel, request| async {
            CapabilitiesClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .get_capabilities(request)
                .await
        })
    }

    /// Asks for the capabilities, and refuses a server that cannot be a cache of pnb.
    fn ask_offers(&self) -> Result<Offers, RemoteError> {
        let said = self.capabilities(&[Code::Unimplemented])?;
        let said = said.map_err(|status| {
            let said = words(&status);
            self.unsupported(format!("it does not speak the Remote Execution API ({said})"))
        })?;
        let Some(cache) = &said.cache_capabilities else {
            return Err(self.unsupported("it is no cache: it has no cache_capabilities".to_owned()));
        };
        if !speaks_version_2(&said) {
            return Err(self.unsupported("it does not speak version 2 of the Remote Execution API".to_owned()));
        }
        if !cache.digest_functions.contains(&SHA256) {
            return Err(self.unsupported("it has no digest function SHA256".to_owned()));
        }
        if cache.action_cache_update_capabilities.is_none() {
            self.probe_action_cache()?;
        }
        let executes = said
            .execution_capabilities
            .as_ref()
            .is_some_and(|engine| engine.exec_enabled);
        Ok(Offers::new(cache, executes))
    }

    /// Whether the server still answers. One that refuses more calls at once does.
    pub(super) fn is_there(&self) -> Result<(), RemoteError> {
        self.capabilities(&[Code::ResourceExhausted]).map(|_| ())
    }

    /// Whether the server runs actions.
    pub(super) fn executes(&self) -> bool {
        self.offers.executes
    }

    /// Whether there is an action cache, of a server that does not say so: the result of an action that nobody has.
    fn probe_action_cache(&self) -> Result<(), RemoteError> {
        let message = self.get_result(&BlobDigest::of(b""));
        let known = [Code::NotFound, Code::Unimplemented];
        let said = self.call(Doing::Reading, &message, &known, |channel, request| async {
            ActionCacheClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .get_action_result(request)
                .await
        })?;
        match said {
            Err(status) if status.code() == Code::Unimplemented => {
                Err(self.unsupported(format!("it has no action cache ({})", words(&status))))
            }
            _ => Ok(()),
        }
    }

    fn get_result(&self, action: &BlobDigest) -> GetActionResultRequest {
        GetActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(proto::digest(action)),
            digest_function: SHA256,
            ..GetActionResultRequest::default()
        }
    }

    /// Refuses to send blobs to a server that takes no results: alone they are of no use there, unless it runs actions.
    fn takes_blobs(&self) -> Result<(), RemoteError> {
        match self.inputs {
            true => Ok(()),
            false => self.writable(),
        }
    }

    /// Refuses to write to a server that takes no results.
    fn writable(&self) -> Result<(), RemoteError> {
        match self.offers.updates {
            true => Ok(()),
            false => Err(RemoteError::Denied {
                server: self.name.clone(),
                doing: Doing::Writing.words(),
                problem: "it takes no results (update_enabled is false)".to_owned(),
            }),
        }
    }

    /// Refuses a blob that is larger than the server takes.
    fn fits(&self, blob: &BlobDigest) -> Result<(), RemoteError> {
        match blob.size <= self.offers.largest {
            true => Ok(()),
            false => Err(RemoteError::Result {
                server: self.name.clone(),
                problem: format!(
                    "it takes blobs of at most {} bytes, and {blob} has more",
                    self.offers.largest
                ),
            }),
        }
    }

    /// Groups of blobs for a batch each, and the blobs that do not fit into one.
    fn groups(&self, sizes: &[u64]) -> (Vec<Vec<usize>>, Vec<usize>) {
        let single = self.single.load(Ordering::Relaxed);
        let (mut groups, mut alone) = (Vec::new(), Vec::new());
        let (mut group, mut filled) = (Vec::new(), 0);
        for (at, size) in sizes.iter().enumerate() {
            let takes = size.saturating_add(FRAME);
            if single || takes > self.offers.batch {
                alone.push(at);
                continue;
            }
            if filled + takes > self.offers.batch {
                groups.push(std::mem::take(&mut group));
                filled = 0;
            }
            group.push(at);
            filled += takes;
        }
        if !group.is_empty() {
            groups.push(group);
        }
        (groups, alone)
    }

    /// Reads a batch into `found`. What is not there afterwards was not answered, and is asked for alone.
    fn read_batch(&self, blobs: &[BlobDigest], found: &mut BTreeMap<BlobDigest, Vec<u8>>) -> Result<(), RemoteError> {
        let message = BatchReadBlobsRequest {
            instance_name: self.instance.clone(),
            digests: blobs.iter().map(proto::digest).collect(),
            acceptable_compressors: Vec::new(),
            digest_function: SHA256,
        };
        let said = self.call(Doing::Reading, &message, &BATCH_REFUSALS, |channel, request| async {
            ContentAddressableStorageClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .batch_read_blobs(request)
                .await
        })?;
        let said = match said {
            Ok(said) => said,
            Err(status) => {
                self.note_refusal(&status);
                return Ok(());
            }
        };
        for answer in said.responses {
            let Ok(blob) = proto::blob(answer.digest.as_ref()) else {
                continue;
            };
            if !blobs.contains(&blob) {
                continue;
            }
            match code(answer.status.as_ref()) {
                Code::Ok if answer.compressor == 0 => {
                    let actual = BlobDigest::of(&answer.data);
                    if actual != blob {
                        return Err(RemoteError::Wrong {
                            server: self.name.clone(),
                            expected: blob,
                            actual,
                        });
                    }
                    found.insert(blob, answer.data);
                }
                Code::NotFound => return Err(self.lacks(blob)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The server does not have a blob.
    pub(super) fn lacks(&self, blob: BlobDigest) -> RemoteError {
        RemoteError::Lacks {
            server: self.name.clone(),
            blob,
        }
    }

    /// Sends a batch, and returns the blobs that the server has taken.
    fn put_batch(&self, blobs: &[&(BlobDigest, &[u8])]) -> Result<BTreeSet<BlobDigest>, RemoteError> {
        let requests = blobs.iter().map(|(blob, bytes)| batch_update_blobs_request::Request {
            digest: Some(proto::digest(blob)),
            data: bytes.to_vec(),
            compressor: 0,
        });
        let message = BatchUpdateBlobsRequest {
            instance_name: self.instance.clone(),
            requests: requests.collect(),
            digest_function: SHA256,
        };
        let said = self.call(Doing::Writing, &message, &BATCH_REFUSALS, |channel, request| async {
            ContentAddressableStorageClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .batch_update_blobs(request)
                .await
        })?;
        let said = match said {
            Ok(said) => said,
            Err(status) => {
                self.note_refusal(&status);
                return Ok(BTreeSet::new());
            }
        };
        let taken = said
            .responses
            .iter()
            .filter(|answer| code(answer.status.as_ref()) == Code::Ok);
        Ok(taken
            .filter_map(|answer| proto::blob(answer.digest.as_ref()).ok())
            .collect())
    }

    /// A server without batches is not asked for another one.
    fn note_refusal(&self, status: &Status) {
        if status.code() == Code::Unimplemented {
            self.single.store(true, Ordering::Relaxed);
        }
    }
}

/// Refusals of a batch after which its blobs are moved one by one.
const BATCH_REFUSALS: [Code; 3] = [Code::Unimplemented, Code::InvalidArgument, Code::OutOfRange];

/// Whether a status came from the server.
pub(super) fn is_answer(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
}

/// The code of one blob in a batch; none is `OK`, as the encoding leaves out zeros.
fn code(status: Option<&rpc::Status>) -> Code {
    status.map_or(Code::Ok, |status| Code::from_i32(status.code))
}

/// Whether the range of versions has 2. A server that names none is taken at its other words.
fn speaks_version_2(said: &ServerCapabilities) -> bool {
    let major = |version: &Option<SemVer>| version.as_ref().map(|version| version.major);
    major(&said.low_api_version).is_none_or(|low| low <= 2)
        && major(&said.high_api_version).is_none_or(|high| high >= 2)
}

impl Offers {
    fn new(said: &CacheCapabilities, executes: bool) -> Self {
        let most = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        let updates = said.action_cache_update_capabilities.as_ref();
        Self {
            batch: most(said.max_batch_total_size_bytes)
                .unwrap_or(SMALL_BLOBS)
                .min(SMALL_BLOBS),
            largest: most(said.max_cas_blob_size_bytes).unwrap_or(u64::MAX),
            updates: updates.is_none_or(|updates| updates.update_enabled),
            executes,
        }
    }
}

impl RemoteCache for GrpcCache {
    fn name(&self) -> &str {
        &self.name
    }

    fn result(&self, action: &BlobDigest) -> Result<Option<CachedResult>, RemoteError> {
        let message = self.get_result(action);
        let said = self.call(Doing::Reading, &message, &[Code::NotFound], |channel, request| async {
            ActionCacheClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .get_action_result(request)
                .await
        })?;
        match said {
            Ok(said) => proto::cached_result(&self.name, &said).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn put_result(&self, action: &BlobDigest, result: &CachedResult) -> Result<(), RemoteError> {
        self.writable()?;
        let message = UpdateActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(proto::digest(action)),
            action_result: Some(proto::action_result(result)),
            results_cache_policy: None,
            digest_function: SHA256,
        };
        let known = [Code::InvalidArgument, Code::FailedPrecondition, Code::NotFound];
        let said = self.call(Doing::Writing, &message, &known, |channel, request| async {
            ActionCacheClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .update_action_result(request)
                .await
        })?;
        said.map(|_| ()).map_err(|status| RemoteError::Result {
            server: self.name.clone(),
            problem: format!("it does not take it: {}", words(&status)),
        })
    }

    fn missing(&self, blobs: &[BlobDigest]) -> Result<BTreeSet<BlobDigest>, RemoteError> {
        let asked: Vec<BlobDigest> = blobs.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut missing = BTreeSet::new();
        for page in asked.chunks(PAGE) {
            let message = FindMissingBlobsRequest {
                instance_name: self.instance.clone(),
                blob_digests: page.iter().map(proto::digest).collect(),
                digest_function: SHA256,
            };
            let said = self.call(Doing::Reading, &message, &[], |channel, request| async {
                ContentAddressableStorageClient::new(channel)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .find_missing_blobs(request)
                    .await
            })?;
            let said = said.map_err(|status| self.gone(words(&status)))?;
            let named = said.missing_blob_digests.iter();
            missing.extend(named.filter_map(|digest| proto::blob(Some(digest)).ok()));
        }
        missing.retain(|blob| asked.binary_search(blob).is_ok());
        Ok(missing)
    }

    fn read_small(&self, blobs: &[BlobDigest]) -> Result<Vec<Vec<u8>>, RemoteError> {
        let asked: Vec<BlobDigest> = blobs.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut found = BTreeMap::new();
        let (groups, _) = self.groups(&asked.iter().map(|blob| blob.size).collect::<Vec<_>>());
        for group in groups {
            let group: Vec<BlobDigest> = group.iter().map(|at| asked[*at]).collect();
            match self.single.load(Ordering::Relaxed) {
                true => break,
                false => self.read_batch(&group, &mut found)?,
            }
        }
        for blob in asked {
            if let Entry::Vacant(place) = found.entry(blob) {
                let mut bytes = Vec::new();
                self.read_stream(&blob, &mut bytes, &|_| {})?;
                place.insert(bytes);
            }
        }
        Ok(blobs.iter().filter_map(|blob| found.get(blob).cloned()).collect())
    }

    fn read(&self, blob: &BlobDigest, sink: &mut dyn Write, seen: &dyn Fn(u64)) -> Result<(), RemoteError> {
        self.read_stream(blob, sink, seen)
    }

    fn put_small(&self, blobs: &[(BlobDigest, &[u8])]) -> Result<(), RemoteError> {
        self.takes_blobs()?;
        let (groups, _) = self.groups(&blobs.iter().map(|(blob, _)| blob.size).collect::<Vec<_>>());
        let mut taken = BTreeSet::new();
        for group in groups {
            let group: Vec<_> = group.iter().map(|at| &blobs[*at]).collect();
            match self.single.load(Ordering::Relaxed) {
                true => break,
                false => taken.extend(self.put_batch(&group)?),
            }
        }
        // What a batch did not take is sent alone: the answer to that says why, or takes it.
        for (blob, bytes) in blobs.iter().filter(|(blob, _)| !taken.contains(blob)) {
            self.put(blob, &mut || Ok(Box::new(Cursor::new(bytes.to_vec()))))?;
        }
        Ok(())
    }

    fn put(&self, blob: &BlobDigest, open: OpenBlob<'_>) -> Result<(), RemoteError> {
        self.takes_blobs()?;
        self.fits(blob)?;
        self.write_stream(blob, open)
    }
}
