//! A server of the Remote Execution API for tests, which does what each test plans.

use super::{BlobDigest, Endpoint, RemoteCache, RemoteError, RemoteLimits, connect, proto};
use crate::http::NetworkSettings;
pub(super) use bazel_remote_apis::build::bazel::remote::execution::v2::CacheCapabilities as Cache;
use bazel_remote_apis::{
    build::bazel::{
        remote::execution::v2::{
            ActionCacheUpdateCapabilities, ActionResult, BatchReadBlobsRequest, BatchReadBlobsResponse,
            BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, CacheCapabilities, ExecuteOperationMetadata,
            ExecuteRequest, ExecuteResponse, ExecutionCapabilities, FindMissingBlobsRequest, FindMissingBlobsResponse,
            GetActionResultRequest, GetCapabilitiesRequest, GetChunkMappingRequest, GetChunkMappingResponse,
            GetTreeRequest, GetTreeResponse, RegisterChunkMappingRequest, RegisterChunkMappingResponse,
            ServerCapabilities, SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse,
            UpdateActionResultRequest, WaitExecutionRequest,
            action_cache_server::{ActionCache, ActionCacheServer},
            batch_read_blobs_response, batch_update_blobs_response,
            capabilities_server::{Capabilities, CapabilitiesServer},
            content_addressable_storage_server::{ContentAddressableStorage, ContentAddressableStorageServer},
            execution_server::{Execution, ExecutionServer},
            execution_stage::Value as Stage,
        },
        semver::SemVer,
    },
    google::{
        bytestream::{
            QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
            byte_stream_server::{ByteStream, ByteStreamServer},
        },
        longrunning::{
            CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
            ListOperationsResponse, Operation, WaitOperationRequest, operation,
            operations_server::{Operations, OperationsServer},
        },
        protobuf::{Any, Empty},
        rpc,
    },
};
use prost::Message;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{runtime::Runtime, sync::mpsc};
use tonic::{
    Code, Request, Response, Status, Streaming,
    codegen::{BoxStream, tokio_stream::wrappers::ReceiverStream},
    transport::{Server, ServerTlsConfig, server::TcpIncoming},
};

/// Limits for which no test waits long.
pub(super) const QUICK: RemoteLimits = RemoteLimits {
    connect: Duration::from_secs(5),
    silence: Duration::from_secs(10),
    commit: Duration::from_secs(10),
    window: Duration::from_secs(10),
    floor: 1000,
    tries: 4,
    wait: Duration::from_millis(1),
    busy: Duration::from_secs(10),
};

/// What a server does in place of the right thing.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// It ends the call with this code.
    Refuse(Code),
    /// It ends the call with `RESOURCE_EXHAUSTED` and these words.
    Exhausted(&'static str),
    /// It never answers.
    Silence,
    /// The first byte of a blob is another one.
    Wrong,
    /// It sends this number of bytes of a blob, and then this code; `OK` ends the stream.
    Cut(usize, Code),
    /// It sends a byte now and then.
    Trickle,
    /// It sends the blob and more.
    More,
    /// It sends messages without bytes.
    Empty,
    /// It answers an upload at the first message.
    Early,
    /// It says that it took one byte fewer.
    Fewer,
    /// It answers a batch with this code for its first blob.
    OneRefused(Code),
    /// It leaves the first blob out of its answer to a batch.
    OneForgotten,
    /// It says that blobs are missing which nobody asked for.
    Foreign,
}

/// A step of an operation.
#[derive(Clone, Debug)]
pub(super) enum DoubleCall {
    /// It is in this stage.
    Stage(Stage),
    /// It runs, and prints to the stream of this name.
    Prints(&'static str),
    /// It has ended.
    Done(Box<ExecuteResponse>),
    /// The stream breaks with this code, and details.
    Break(Code, Vec<u8>),
    /// Nothing comes for this time.
    Pause(Duration),
    /// Nothing more comes.
    Hang,
}

/// A call as the server saw it.
#[derive(Clone, Default, Debug)]
pub(super) struct Called {
    pub(super) name: &'static str,
    /// The value of `authorization`.
    pub(super) token: Option<String>,
    /// Whether the header with the name of the program was there.
    pub(super) metadata: Vec<u8>,
    /// The resource, or the instance.
    pub(super) resource: String,
    /// The offset of a read; the number of blobs of a batch or page.
    pub(super) number: i64,
}

#[derive(Default)]
pub(super) struct DoubleState {
    pub(super) blobs: BTreeMap<BlobDigest, Vec<u8>>,
    pub(super) results: BTreeMap<String, ActionResult>,
    /// Troubles by the name of the call, the next one first.
    pub(super) plan: Vec<(&'static str, Trouble)>,
    pub(super) calls: Vec<Called>,
    /// The steps of each stream of an operation, the next one first. A stream without a plan ends at once.
    pub(super) operations: Vec<Vec<DoubleCall>>,
    /// The one token that counts.
    pub(super) token: Option<String>,
    pub(super) capabilities: ServerCapabilities,
}

/// A running server.
pub(super) struct Double {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<Mutex<DoubleState>>,
    _runtime: Runtime,
}

/// What a server says that has all that pnb needs.
pub(super) fn whole() -> ServerCapabilities {
    let version = |major| {
        Some(SemVer {
            major,
            ..SemVer::default()
        })
    };
    ServerCapabilities {
        cache_capabilities: Some(CacheCapabilities {
            digest_functions: vec![9, 1],
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled: true }),
            ..CacheCapabilities::default()
        }),
        low_api_version: version(2),
        high_api_version: version(2),
        execution_capabilities: Some(ExecutionCapabilities {
            digest_function: 1,
            exec_enabled: true,
            ..ExecutionCapabilities::default()
        }),
        ..ServerCapabilities::default()
    }
}

impl Double {
    pub(super) fn new() -> Self {
        Self::with_tls(None)
    }

    pub(super) fn with_tls(tls: Option<ServerTlsConfig>) -> Self {
        let state = Arc::new(Mutex::new(DoubleState {
            capabilities: whole(),
            ..DoubleState::default()
        }));
        let runtime = Runtime::new().expect("a runtime");
        let service = Service(Arc::clone(&state));
        let entered = runtime.enter();
        let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = incoming.local_addr().expect("bound");
        let mut builder = Server::builder();
        if let Some(tls) = tls {
            builder = builder.tls_config(tls).expect("a certificate and its key");
        }
        let served = builder
            .add_service(CapabilitiesServer::new(service.clone()))
            .add_service(ActionCacheServer::new(service.clone()))
            .add_service(ContentAddressableStorageServer::new(service.clone()).max_decoding_message_size(4 << 20))
            .add_service(ExecutionServer::new(service.clone()))
            .add_service(OperationsServer::new(service.clone()))
            .add_service(ByteStreamServer::new(service))
            .serve_with_incoming(incoming);
        drop(entered);
        runtime.spawn(served);
        Self {
            address,
            state,
            _runtime: runtime,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, DoubleState> {
        self.state.lock().expect("whole")
    }

    /// Plans troubles, and forgets the calls so far.
    pub(super) fn plan(&self, plan: &[(&'static str, Trouble)]) {
        let mut state = self.state();
        state.plan = plan.to_vec();
        state.calls.clear();
    }

    /// The names of the calls since the last plan.
    pub(super) fn called(&self) -> Vec<&'static str> {
        self.state().calls.iter().map(|call| call.name).collect()
    }

    /// The server has a blob.
    pub(super) fn has(&self, bytes: &[u8]) -> BlobDigest {
        let blob = BlobDigest::of(bytes);
        self.state().blobs.insert(blob, bytes.to_vec());
        blob
    }

    pub(super) fn endpoint(&self, instance: &str, token_file: Option<PathBuf>) -> Endpoint {
        Endpoint {
            address: format!("grpc://{}/{instance}", self.address)
                .parse()
                .expect("an address"),
            token_file,
            identity: None,
        }
    }

    pub(super) fn try_connect(&self, limits: &RemoteLimits) -> Result<Arc<dyn RemoteCache>, RemoteError> {
        connect(&self.endpoint("", None), &NetworkSettings::default(), limits)
    }

    pub(super) fn connect(&self) -> Arc<dyn RemoteCache> {
        self.try_connect(&QUICK).expect("connects")
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<DoubleState>>);

impl Service {
    /// Notes a call, checks its token, and returns its trouble.
    async fn begin<T>(
        &self,
        name: &'static str,
        request: &Request<T>,
        resource: String,
        number: i64,
    ) -> Result<Option<Trouble>, Status> {
        let trouble = {
            let mut state = self.0.lock().expect("whole");
            let fields = request.metadata();
            let token = fields
                .get("authorization")
                .map(|v| v.to_str().expect("text").to_owned());
            let metadata = fields.get_bin("build.bazel.remote.execution.v2.requestmetadata-bin");
            let metadata = metadata
                .map(|v| v.to_bytes().expect("base64").to_vec())
                .unwrap_or_default();
            state.calls.push(Called {
                name,
                token: token.clone(),
                metadata,
                resource,
                number,
            });
            if state.token.is_some() && state.token != token {
                return Err(Status::unauthenticated("the token has expired"));
            }
            let planned = state.plan.iter().position(|(call, _)| *call == name);
            planned.map(|at| state.plan.remove(at).1)
        };
        match trouble {
            Some(Trouble::Refuse(code)) => Err(Status::new(code, "as planned")),
            Some(Trouble::Exhausted(words)) => Err(Status::resource_exhausted(words)),
            Some(Trouble::Silence) => std::future::pending().await,
            other => Ok(other),
        }
    }

    fn state(&self) -> MutexGuard<'_, DoubleState> {
        self.0.lock().expect("whole")
    }
}

/// A message with its type.
fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/build.bazel.remote.execution.v2.{name}"),
        value: message.encode_to_vec(),
    }
}

impl Service {
    /// The stream of the next planned operation.
    fn operation(&self) -> ReceiverStream<Result<Operation, Status>> {
        let mut state = self.state();
        let steps = if state.operations.is_empty() {
            Vec::new()
        } else {
            state.operations.remove(0)
        };
        drop(state);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for step in steps {
                let mut said = ExecuteOperationMetadata::default();
                let mut result = None;
                match step {
                    DoubleCall::Stage(stage) => said.stage = stage as i32,
                    DoubleCall::Prints(stream) => {
                        said.stage = Stage::Executing as i32;
                        said.stdout_stream_name = stream.to_owned();
                    }
                    DoubleCall::Done(response) => {
                        said.stage = Stage::Completed as i32;
                        result = Some(operation::Result::Response(any("ExecuteResponse", &*response)));
                    }
                    DoubleCall::Break(code, details) => {
                        let status = Status::with_details(code, "as planned", details.into());
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                    DoubleCall::Pause(time) => {
                        tokio::time::sleep(time).await;
                        continue;
                    }
                    DoubleCall::Hang => {
                        sender.closed().await;
                        return;
                    }
                }
                let message = Operation {
                    name: "operations/1".to_owned(),
                    metadata: Some(any("ExecuteOperationMetadata", &said)),
                    done: result.is_some(),
                    result,
                };
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }
}

#[tonic::async_trait]
impl Execution for Service {
    type ExecuteStream = ReceiverStream<Result<Operation, Status>>;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let message = request.get_ref();
        let action = message.action_digest.as_ref().expect("a digest").hash.clone();
        let skip = i64::from(message.skip_cache_lookup);
        self.begin("Execute", &request, action, skip).await?;
        Ok(Response::new(self.operation()))
    }

    type WaitExecutionStream = ReceiverStream<Result<Operation, Status>>;

    async fn wait_execution(
        &self,
        request: Request<WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        let name = request.get_ref().name.clone();
        self.begin("WaitExecution", &request, name, 0).await?;
        Ok(Response::new(self.operation()))
    }
}

#[tonic::async_trait]
impl Operations for Service {
    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_operation(&self, _: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_operation(&self, _: Request<DeleteOperationRequest>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Result<Response<Empty>, Status> {
        let name = request.get_ref().name.clone();
        self.begin("CancelOperation", &request, name, 0).await?;
        Ok(Response::new(Empty {}))
    }

    async fn wait_operation(&self, _: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn verdict(code: Code) -> Option<rpc::Status> {
    Some(rpc::Status {
        code: code as i32,
        message: "as planned".to_owned(),
        details: Vec::new(),
    })
}

#[tonic::async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let instance = request.get_ref().instance_name.clone();
        self.begin("GetCapabilities", &request, instance, 0).await?;
        Ok(Response::new(self.state().capabilities.clone()))
    }
}

#[tonic::async_trait]
impl ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let instance = request.get_ref().instance_name.clone();
        self.begin("GetActionResult", &request, instance, 0).await?;
        let action = request.into_inner().action_digest.expect("a digest").hash;
        let found = self.state().results.get(&action).cloned();
        found.map(Response::new).ok_or_else(|| Status::not_found(""))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let instance = request.get_ref().instance_name.clone();
        self.begin("UpdateActionResult", &request, instance, 0).await?;
        let message = request.into_inner();
        let result = message.action_result.expect("a result");
        self.state()
            .results
            .insert(message.action_digest.expect("a digest").hash, result.clone());
        Ok(Response::new(result))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let number = i64::try_from(request.get_ref().blob_digests.len()).expect("few");
        let trouble = self.begin("FindMissingBlobs", &request, String::new(), number).await?;
        let mut missing = request.into_inner().blob_digests;
        missing.retain(|digest| {
            !self
                .state()
                .blobs
                .contains_key(&proto::blob(Some(digest)).expect("a name"))
        });
        if matches!(trouble, Some(Trouble::Foreign)) {
            missing.push(proto::digest(&BlobDigest::of(b"foreign")));
        }
        Ok(Response::new(FindMissingBlobsResponse {
            missing_blob_digests: missing,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let number = i64::try_from(request.get_ref().requests.len()).expect("few");
        let trouble = self.begin("BatchUpdateBlobs", &request, String::new(), number).await?;
        let mut responses = Vec::new();
        for (at, put) in request.into_inner().requests.into_iter().enumerate() {
            let status = match trouble {
                Some(Trouble::OneRefused(code)) if at == 0 => verdict(code),
                Some(Trouble::OneForgotten) if at == 0 => continue,
                _ => {
                    let name = proto::blob(put.digest.as_ref()).expect("a name");
                    self.state().blobs.insert(name, put.data);
                    None
                }
            };
            responses.push(batch_update_blobs_response::Response {
                digest: put.digest,
                status,
            });
        }
        Ok(Response::new(BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let number = i64::try_from(request.get_ref().digests.len()).expect("few");
        let trouble = self.begin("BatchReadBlobs", &request, String::new(), number).await?;
        let mut responses = Vec::new();
        for (at, digest) in request.into_inner().digests.into_iter().enumerate() {
            let found = self
                .state()
                .blobs
                .get(&proto::blob(Some(&digest)).expect("a name"))
                .cloned();
            let mut status = if found.is_some() {
                verdict(Code::Ok)
            } else {
                verdict(Code::NotFound)
            };
            let mut data = found.unwrap_or_default();
            match trouble {
                Some(Trouble::OneRefused(code)) if at == 0 => (status, data) = (verdict(code), Vec::new()),
                Some(Trouble::OneForgotten) if at == 0 => continue,
                Some(Trouble::Wrong) if at == 0 => data[0] ^= 1,
                _ => {}
            }
            responses.push(batch_read_blobs_response::Response {
                digest: Some(digest),
                data,
                compressor: 0,
                status,
            });
        }
        Ok(Response::new(BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<GetTreeResponse>;

    async fn get_tree(&self, _: Request<GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type GetChunkMappingStream = BoxStream<GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn splice_blob(&self, _: Request<SpliceBlobRequest>) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// The blob that the name of a resource has at its end.
fn named(resource: &str) -> BlobDigest {
    let (rest, size) = resource.rsplit_once('/').expect("a size");
    let (before, hash) = rest.rsplit_once('/').expect("a digest");
    assert!(before.ends_with("blobs"), "{resource}");
    BlobDigest {
        sha256: hash.parse().expect("a digest"),
        size: size.parse().expect("a size"),
    }
}

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (resource, offset) = (request.get_ref().resource_name.clone(), request.get_ref().read_offset);
        let trouble = self.begin("Read", &request, resource.clone(), offset).await?;
        let found = match resource.strip_prefix("printed/") {
            Some(text) => Some(text.as_bytes().to_vec()),
            None => self.state().blobs.get(&named(&resource)).cloned(),
        };
        let whole = found.ok_or_else(|| Status::not_found("no such blob"))?;
        let mut bytes = whole[usize::try_from(offset).expect("an offset")..].to_vec();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let (mut piece, mut end, mut pause) = (100_000, None, Duration::ZERO);
            match trouble {
                Some(Trouble::Wrong) => bytes[0] ^= 1,
                Some(Trouble::More) => bytes.push(0),
                Some(Trouble::Cut(most, code)) => {
                    bytes.truncate(most);
                    end = (code != Code::Ok).then(|| Status::new(code, "as planned"));
                }
                Some(Trouble::Trickle) => (piece, pause) = (1, Duration::from_millis(20)),
                Some(Trouble::Empty) => loop {
                    if sender.send(Ok(ReadResponse::default())).await.is_err() {
                        return;
                    }
                },
                _ => {}
            }
            for data in bytes.chunks(piece) {
                let message = ReadResponse { data: data.to_vec() };
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
            if let Some(status) = end {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let trouble = self.begin("Write", &request, String::new(), 0).await?;
        let mut messages = request.into_inner();
        let (mut bytes, mut resource, mut finished) = (Vec::new(), String::new(), false);
        while let Some(message) = messages.message().await? {
            if resource.is_empty() {
                resource = message.resource_name;
                self.state().calls.last_mut().expect("noted").resource = resource.clone();
            }
            assert_eq!(message.write_offset, i64::try_from(bytes.len()).expect("few"));
            assert!(!finished && message.data.len() <= 1 << 20);
            bytes.extend_from_slice(&message.data);
            finished = message.finish_write;
            if matches!(trouble, Some(Trouble::Early)) {
                let size = i64::try_from(named(&resource).size).expect("few");
                return Ok(Response::new(WriteResponse { committed_size: size }));
            }
        }
        let blob = named(&resource);
        if !finished || BlobDigest::of(&bytes) != blob {
            return Err(Status::invalid_argument("other bytes than those of the name"));
        }
        let fewer = i64::from(matches!(trouble, Some(Trouble::Fewer)));
        let committed_size = i64::try_from(bytes.len()).expect("few") - fewer;
        self.state().blobs.insert(blob, bytes);
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
