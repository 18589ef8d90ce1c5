//! [`GrpcEngine`]: running actions over the Remote Execution API.
//!
//! ```text
//! files, command ─► Directory, Command, Action ─► Execute ─► operation: queued, executing, done ─► result ─► Tree ─► files
//!                                                    ▲                                │
//!                                                    └── WaitExecution ◄── broken ────┘
//! ```
//!
//! A stream of an operation may be silent for as long as the program runs, so there is no limit on its silence. The server is asked for its
//! capabilities meanwhile: one that does not answer is gone.
//!
//! Source: `Execution` in `remote_execution.proto`; `google/longrunning/operations.proto`; `google/rpc/error_details.proto`.

use super::{
    BlobDigest, EngineAction, EngineProgress, Executed, RemoteCache, RemoteEngine, RemoteError,
    grpc::{Attempts, GrpcCache, MAX_MESSAGE, SHA256, is_answer},
    outputs, proto,
    status::{Doing, delay, is_for_the_moment, words},
};
use crate::model::visible_message;
use bazel_remote_apis::{
    build::bazel::remote::execution::v2::{
        ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, WaitExecutionRequest,
        execution_client::ExecutionClient, execution_stage::Value as Stage,
    },
    google::{
        bytestream::{ReadRequest, byte_stream_client::ByteStreamClient},
        longrunning::{CancelOperationRequest, Operation, operation, operations_client::OperationsClient},
        rpc,
    },
};
use prost::Message as _;
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tonic::{Code, Response, Status, Streaming};

/// Streams of printed bytes of one action: standard output and standard error.
const MAX_STREAMS: usize = 2;
/// How often the caller is asked whether it still wants the result.
const TICK: Duration = Duration::from_millis(200);
/// How long an operation that is to be cancelled may take to get its name.
const NAMING: Duration = Duration::from_secs(2);
/// What a run may take beyond its time: collecting the outputs, and the way back.
const SLACK: Duration = Duration::from_secs(60);
/// Messages of printed bytes that wait for the caller.
const PRINTED: usize = 16;

/// An engine over gRPC.
pub(super) struct GrpcEngine {
    cache: Arc<GrpcCache>,
}

impl fmt::Debug for GrpcEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcEngine({:?})", self.cache)
    }
}

/// The opening of a stream of operations.
type Opening = Pin<Box<dyn Future<Output = Result<Response<Streaming<Operation>>, Status>> + Send>>;

/// A stream of operations.
enum Watched {
    Opening(Opening),
    Open(Box<Streaming<Operation>>),
}

/// What is known of a run.
struct Run<'a> {
    action: &'a EngineAction,
    digest: BlobDigest,
    /// The operation, once the server has named it.
    name: String,
    stage: Stage,
    /// Since when the action waits or runs.
    since: Instant,
    asked: Instant,
    /// What the program prints, by the name of the stream.
    prints: Vec<(String, Printing)>,
}

impl Run<'_> {
    /// Counts a wait for a server that refused as none for a worker.
    fn rested(&mut self, time: Duration) {
        self.since += time;
        self.asked += time;
    }
}

/// A stream of what the program prints.
struct Printing {
    bytes: mpsc::Receiver<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Drop for Printing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl GrpcEngine {
    /// The engine of the server of `cache`.
    ///
    /// # Errors
    ///
    /// If it does not run actions.
    pub(super) fn new(cache: GrpcCache) -> Result<Self, RemoteError> {
        match cache.executes() {
            true => Ok(Self { cache: Arc::new(cache) }),
            false => Err(RemoteError::Unsupported {
                server: cache.server().to_owned(),
                problem: "it is a cache alone and runs no actions (exec_enabled)".to_owned(),
            }),
        }
    }

    fn failed(&self, problem: String) -> RemoteError {
        RemoteError::Execution {
            server: self.cache.server().to_owned(),
            problem,
        }
    }

    /// Stores the messages that describe an action, and returns the name of the last one.
    fn describe(&self, action: &EngineAction) -> Result<BlobDigest, RemoteError> {
        let (digest, messages) = outputs::action_messages(action).map_err(|problem| self.failed(problem))?;
        let names: Vec<BlobDigest> = messages.iter().map(|(blob, _)| *blob).collect();
        let missing = self.cache.missing(&names)?;
        let send: Vec<(BlobDigest, &[u8])> = messages
            .iter()
            .filter(|(blob, _)| missing.contains(blob))
            .map(|(blob, bytes)| (*blob, bytes.as_slice()))
            .collect();
        self.cache.put_small(&send)?;
        Ok(digest)
    }

    /// Asks for the action, or for the operation that has a name.
    fn open(&self, run: &Run<'_>, attempts: &mut Attempts<'_>) -> Result<Watched, RemoteError> {
        let (_, channel) = self.cache.pace(false);
        let mut client = ExecutionClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let opening: Opening = if run.name.is_empty() {
            let request = attempts.request(ExecuteRequest {
                instance_name: self.cache.instance().to_owned(),
                skip_cache_lookup: !run.action.accept_cached,
                action_digest: Some(proto::digest(&run.digest)),
                digest_function: SHA256,
                inline_stderr: true,
                ..ExecuteRequest::default()
            })?;
            Box::pin(async move { client.execute(request).await })
        } else {
            let name = run.name.clone();
            let request = attempts.request(WaitExecutionRequest { name })?;
            Box::pin(async move { client.wait_execution(request).await })
        };
        Ok(Watched::Opening(opening))
    }

    /// The next message of the stream, `None` if none came in a while; the inner `None` is the end of the stream.
    fn next(&self, watched: &mut Watched) -> Result<Option<Result<Option<Operation>, Status>>, RemoteError> {
        let opened = match watched {
            Watched::Open(stream) => {
                return self.cache.run(async { timeout(TICK, stream.message()).await.ok() });
            }
            Watched::Opening(opening) => self.cache.run(async { timeout(TICK, opening).await.ok() })?,
        };
        match opened {
            None => Ok(None),
            Some(Err(status)) => Ok(Some(Err(status))),
            Some(Ok(stream)) => {
                *watched = Watched::Open(Box::new(stream.into_inner()));
                Ok(None)
            }
        }
    }

    /// Tells the server that nobody wants the result. It may not listen; returns whether it did.
    fn cancel(&self, run: &Run<'_>) -> bool {
        if run.name.is_empty() {
            return false;
        }
        let message = CancelOperationRequest { name: run.name.clone() };
        // A server that has too many calls is not waited for.
        let known = [
            Code::Unimplemented,
            Code::NotFound,
            Code::Unavailable,
            Code::ResourceExhausted,
        ];
        let answered = self
            .cache
            .call(Doing::Reading, &message, &known, |channel, request| async {
                OperationsClient::new(channel).cancel_operation(request).await
            });
        matches!(answered, Ok(Ok(_)))
    }

    /// Cancels a run that the caller does not want any more. The server is waited for a moment if it has not named the operation yet: only
    /// one with a name can be cancelled.
    fn give_up(&self, run: &mut Run<'_>, watched: &mut Watched) -> RemoteError {
        let begin = Instant::now();
        while run.name.is_empty() && begin.elapsed() < NAMING {
            match self.next(watched) {
                Ok(None) => {}
                Ok(Some(Ok(Some(operation)))) => self.note(run, &operation, &|_| {}),
                Ok(Some(Ok(None) | Err(_))) | Err(_) => break,
            }
        }
        RemoteError::Cancelled {
            server: self.cache.server().to_owned(),
            told: self.cancel(run),
        }
    }

    /// Nobody wants the result of an action that the server has not taken.
    fn not_begun(&self) -> RemoteError {
        RemoteError::Cancelled {
            server: self.cache.server().to_owned(),
            told: true,
        }
    }

    /// What to do while the server says nothing.
    fn meanwhile(&self, run: &mut Run<'_>) -> Result<(), RemoteError> {
        let waited = run.since.elapsed();
        let action = run.action;
        let runs = matches!(run.stage, Stage::Executing | Stage::Completed);
        if !runs && waited >= action.queue_timeout {
            self.cancel(run);
            let properties: Vec<String> = action.platform.iter().map(|(k, v)| format!("{k}={v}")).collect();
            return Err(RemoteError::NoWorker {
                server: self.cache.server().to_owned(),
                seconds: action.queue_timeout.as_secs(),
                properties: if properties.is_empty() {
                    "nothing".to_owned()
                } else {
                    properties.join(", ")
                },
            });
        }
        if runs && waited >= action.timeout + SLACK {
            self.cancel(run);
            return Err(self.failed(format!("it has run for {} s and has not ended", waited.as_secs())));
        }
        if run.asked.elapsed() >= self.cache.silence() {
            self.cache.is_there()?;
            run.asked = Instant::now();
        }
        Ok(())
    }

    /// Notes what the server says of a run that has not ended.
    fn note(&self, run: &mut Run<'_>, operation: &Operation, progress: &dyn Fn(EngineProgress)) {
        run.name.clone_from(&operation.name);
        run.asked = Instant::now();
        let metadata = operation
            .metadata
            .as_ref()
            .filter(|any| is_type(&any.type_url, "ExecuteOperationMetadata"));
        let Some(metadata) = metadata.and_then(|any| ExecuteOperationMetadata::decode(any.value.as_slice()).ok())
        else {
            return;
        };
        let stage = Stage::try_from(metadata.stage).unwrap_or(Stage::Unknown);
        if stage != run.stage {
            // A worker that died leaves its action in the queue again.
            let ran = |stage| matches!(stage, Stage::Executing | Stage::Completed);
            if ran(stage) != ran(run.stage) {
                run.since = Instant::now();
            }
            run.stage = stage;
            match stage {
                Stage::Queued | Stage::CacheCheck => progress(EngineProgress::Queued),
                Stage::Executing => progress(EngineProgress::Running),
                _ => {}
            }
        }
        for stream in [metadata.stdout_stream_name, metadata.stderr_stream_name] {
            if !stream.is_empty()
                && run.prints.len() < MAX_STREAMS
                && run.prints.iter().all(|(known, _)| *known != stream)
                && let Some(printing) = self.print(&stream)
            {
                run.prints.push((stream, printing));
            }
        }
    }

    /// Reads a stream of printed bytes on the other thread. It is help and no result: it ends silently.
    fn print(&self, stream: &str) -> Option<Printing> {
        let (sender, bytes) = mpsc::channel(PRINTED);
        let (_, channel) = self.cache.pace(false);
        let request = self.cache.attempts(Doing::Reading).request(ReadRequest {
            resource_name: stream.to_owned(),
            ..ReadRequest::default()
        });
        let request = request.ok()?;
        let task = self.cache.spawn(async move {
            let mut client = ByteStreamClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
            let Ok(pieces) = client.read(request).await else { return };
            let mut pieces = pieces.into_inner();
            while let Ok(Some(piece)) = pieces.message().await {
                if sender.send(piece.data).await.is_err() {
                    return;
                }
            }
        })?;
        Some(Printing { bytes, task })
    }

    /// The end of an operation.
    fn ended(&self, operation: Operation) -> Result<Result<ExecuteResponse, rpc::Status>, RemoteError> {
        match operation.result {
            Some(operation::Result::Error(status)) => Ok(Err(status)),
            Some(operation::Result::Response(any)) if is_type(&any.type_url, "ExecuteResponse") => {
                let response = ExecuteResponse::decode(any.value.as_slice())
                    .map_err(|_| self.failed("its answer is no message of the Remote Execution API".to_owned()))?;
                match response.status.clone().filter(|status| status.code != 0) {
                    Some(status) => Ok(Err(status)),
                    None => Ok(Ok(response)),
                }
            }
            _ => Err(self.failed("the operation is done and has no result".to_owned())),
        }
    }

    /// Why an action did not run.
    fn refused(&self, status: &rpc::Status) -> RemoteError {
        let missing = status
            .details
            .iter()
            .filter(|any| is_type(&any.type_url, "PreconditionFailure"));
        if let Some(blob) = missing.filter_map(|any| outputs::missing_blob(&any.value)).next() {
            return self.cache.lacks(blob);
        }
        let shown = Status::new(Code::from_i32(status.code), status.message.clone());
        self.failed(words(&shown))
    }

    fn run(
        &self,
        run: &mut Run<'_>,
        progress: &dyn Fn(EngineProgress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ExecuteResponse, RemoteError> {
        let mut attempts = self.cache.attempts(Doing::Reading);
        let mut watched = self.open(run, &mut attempts)?;
        loop {
            let message = self.next(&mut watched)?;
            for (_, printing) in &mut run.prints {
                while let Ok(bytes) = printing.bytes.try_recv() {
                    progress(EngineProgress::Printed(bytes));
                }
            }
            match message {
                None => {}
                Some(Ok(Some(operation))) => {
                    self.note(run, &operation, progress);
                    if operation.done {
                        match self.ended(operation)? {
                            Ok(response) => return Ok(response),
                            Err(status) if status.code == Code::Unavailable as i32 => {
                                attempts.once_more(self.refused(&status))?;
                                run.name.clear();
                                watched = self.open(run, &mut attempts)?;
                            }
                            // The worker, or the scheduler once it had the action, had too many calls. Without such words it is what the
                            // action takes or leaves that is too much, and would be so again.
                            Err(status)
                                if status.code == Code::ResourceExhausted as i32
                                    && is_for_the_moment(&status.message, &status.details) =>
                            {
                                run.name.clear();
                                let problem = words(&Status::new(Code::ResourceExhausted, status.message.clone()));
                                let begin = Instant::now();
                                if !attempts.after_refusal(problem, delay(&status.details), &|| !cancelled())? {
                                    return Err(self.not_begun());
                                }
                                run.rested(begin.elapsed());
                                watched = self.open(run, &mut attempts)?;
                            }
                            Err(status) => return Err(self.refused(&status)),
                        }
                    } else {
                        // The server works on it: a later break is a new one.
                        attempts.restart();
                    }
                }
                // The stream ended before the operation.
                Some(Ok(None)) => {
                    attempts.once_more(self.failed("it ended the stream of the operation".to_owned()))?;
                    watched = self.open(run, &mut attempts)?;
                }
                Some(Err(status)) => {
                    let forgotten = status.code() == Code::NotFound && !run.name.is_empty();
                    let of_action = matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument);
                    if is_answer(&status) && forgotten {
                        // A server that was restarted may have lost the operation. The tries until it was back are no tries of the next one.
                        attempts.restart();
                        attempts.once_more(self.failed(words(&status)))?;
                        run.name.clear();
                    } else if is_answer(&status) && of_action {
                        let details = rpc::Status::decode(status.details()).unwrap_or_default();
                        return Err(self.refused(&rpc::Status {
                            code: status.code() as i32,
                            message: status.message().to_owned(),
                            details: details.details,
                        }));
                    } else {
                        let refused = is_answer(&status) && status.code() == Code::ResourceExhausted;
                        let begin = Instant::now();
                        let wanted = attempts.again_if(&status, &|| !cancelled())?;
                        if refused && !wanted && run.name.is_empty() {
                            return Err(self.not_begun());
                        }
                        if refused {
                            run.rested(begin.elapsed());
                        }
                    }
                    watched = self.open(run, &mut attempts)?;
                }
            }
            if cancelled() {
                return Err(self.give_up(run, &mut watched));
            }
            self.meanwhile(run)?;
        }
    }
}

impl RemoteEngine for GrpcEngine {
    fn cache(&self) -> Arc<dyn RemoteCache> {
        Arc::clone(&self.cache) as Arc<dyn RemoteCache>
    }

    fn execute(
        &self,
        action: &EngineAction,
        progress: &dyn Fn(EngineProgress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Executed, RemoteError> {
        let digest = self.describe(action)?;
        let mut run = Run {
            action,
            digest,
            name: String::new(),
            stage: Stage::Unknown,
            since: Instant::now(),
            asked: Instant::now(),
            prints: Vec::new(),
        };
        let response = self.run(&mut run, progress, cancelled)?;
        let Some(result) = response.result else {
            let said = visible_message(&response.message);
            return Err(self.failed(format!("it has no result: {said}")));
        };
        let cached = response.cached_result;
        outputs::executed(self.cache.as_ref(), &action.output, &result, cached)
    }
}

/// Whether the address of a type has this name at its end.
fn is_type(url: &str, name: &str) -> bool {
    url.rsplit(['/', '.']).next() == Some(name)
}
