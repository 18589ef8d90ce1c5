//! A double of a server of the Remote Execution API, in this process, made of the server's side of `bazel-remote-apis`, with faults.

use crate::{
    client::digest_of,
    faults::{Faults, Kept, SharedKept},
    tls::Authority,
};
use bazel_remote_apis::{
    build::bazel::{
        remote::execution::v2::{
            ActionCacheUpdateCapabilities, ActionResult, BatchReadBlobsRequest, BatchReadBlobsResponse,
            BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, CacheCapabilities, Digest, ExecuteOperationMetadata,
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
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, MutexGuard},
};
use tokio::{runtime::Runtime, sync::mpsc, time::sleep};
use tonic::{
    Code, Request, Response, Status, Streaming,
    codegen::{BoxStream, tokio_stream},
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

/// SHA-256 among the digest functions.
const SHA256: i32 = 1;
/// Most bytes of the blobs of one call, as the double states them.
pub(crate) const BATCH: i64 = 4 << 20;
/// The stages of an operation.
const QUEUED: i32 = 2;
const EXECUTING: i32 = 3;
const COMPLETED: i32 = 4;
/// Bytes of a message of a stream.
const PIECE: usize = 64 << 10;

/// What becomes of an action.
#[derive(Clone, Debug)]
pub(crate) enum Executed {
    /// It has ended with this.
    Answered(Box<ExecuteResponse>),
    /// It waits for a worker, and nothing more is heard of it.
    Queued,
    /// It is said to run, and then the connection ends. `WaitExecution` asks the worker again.
    Lost,
    /// The operation ends with this error instead of an answer.
    Refused(Code, &'static str),
}

impl From<ExecuteResponse> for Executed {
    fn from(response: ExecuteResponse) -> Self {
        Self::Answered(Box::new(response))
    }
}

/// What the double does with an action: by its name and what the double keeps.
type Worker = dyn Fn(&str, &mut Kept) -> Executed + Send + Sync;

/// The double; it ends with the value.
pub(crate) struct RemoteDouble {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    kept: SharedKept,
    runtime: Option<Runtime>,
}

impl RemoteDouble {
    /// Starts a cache on a free port: it has no Execution.
    pub(crate) fn start() -> Self {
        Self::start_with(None, None)
    }

    /// Starts a cache that speaks TLS with a certificate of this authority, and with `mutual` wants one of it from its clients too.
    pub(crate) fn with_tls(authority: &Authority, mutual: bool) -> Self {
        let (certificate, key) = authority.pair("double");
        let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        if mutual {
            tls = tls.client_ca_root(Certificate::from_pem(authority.pem()));
        }
        Self::start_with(None, Some(tls))
    }

    /// Starts a server whose worker does with each action what `worker` says, whatever the action is.
    pub(crate) fn with_worker<A: Into<Executed>>(
        worker: impl Fn(&str, &mut Kept) -> A + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(Arc::new(move |action, kept| worker(action, kept).into())), None)
    }

    fn start_with(worker: Option<Arc<Worker>>, tls: Option<ServerTlsConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let kept = SharedKept::default();
        let services = Services {
            kept: kept.clone(),
            worker: worker.clone(),
        };
        let cas = ContentAddressableStorageServer::new(services.clone()).max_decoding_message_size(16 << 20);
        let scheme = if tls.is_some() { "grpcs" } else { "grpc" };
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).expect("a certificate and its key");
        }
        let server = server
            .add_service(CapabilitiesServer::new(services.clone()))
            .add_service(ActionCacheServer::new(services.clone()))
            .add_service(cas)
            .add_service(ByteStreamServer::new(services.clone()))
            .add_optional_service(worker.as_ref().map(|_| ExecutionServer::new(services.clone())))
            .add_optional_service(worker.map(|_| OperationsServer::new(services)));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        runtime.spawn(server.serve_with_incoming(incoming));
        Self {
            address,
            scheme,
            kept,
            runtime: Some(runtime),
        }
    }

    /// The address as pnb has it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// How often a call of this name was made.
    pub(crate) fn called(&self, call: &str) -> usize {
        let kept = self.kept();
        let named = kept.calls.iter().filter(|line| line.split(' ').next() == Some(call));
        named.count()
    }

    /// What it keeps and does wrong. The double waits as long as the guard lives.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }
}

impl Drop for RemoteDouble {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Services {
    kept: SharedKept,
    worker: Option<Arc<Worker>>,
}

impl Services {
    /// The beginning of every call: it is noted, and refused or delayed. Returns what goes wrong in it.
    async fn enter<T>(&self, call: &str, named: &str, request: &Request<T>) -> Result<Faults, Status> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let (refused, too_many, admitted, faults) = {
            let mut kept = self.kept.lock();
            let refused = kept.call(format!("{call} {named}").trim_end().to_owned());
            let too_many = kept.too_many(call);
            (refused, too_many, kept.admits(authorization), kept.faults.clone())
        };
        if let Some(time) = faults.slow_first_byte {
            sleep(time).await;
        }
        if refused {
            return Err(Status::unavailable("the server is starting"));
        }
        if too_many {
            return Err(Status::resource_exhausted("Concurrent RPC limit exceeded!"));
        }
        if !admitted {
            return Err(Status::unauthenticated("no valid token"));
        }
        Ok(faults)
    }
}

impl Services {
    /// What is heard of an action, whose operation has the same name.
    fn operation(&self, action: &str) -> Result<Response<BoxStream<Operation>>, Status> {
        let worker = self.worker.as_ref().ok_or_else(|| no_such("a worker"))?;
        let executed = worker(action, &mut self.kept.lock());
        let at = |stage: i32, result: Option<operation::Result>| {
            let metadata = ExecuteOperationMetadata {
                stage,
                ..Default::default()
            };
            Ok(Operation {
                name: action.to_owned(),
                metadata: Some(any("ExecuteOperationMetadata", &metadata)),
                done: result.is_some(),
                result,
            })
        };
        let messages = match executed {
            Executed::Answered(response) => {
                let answer = operation::Result::Response(any("ExecuteResponse", &*response));
                vec![at(QUEUED, None), at(EXECUTING, None), at(COMPLETED, Some(answer))]
            }
            Executed::Queued => {
                let silence =
                    tokio_stream::StreamExt::chain(tokio_stream::once(at(QUEUED, None)), tokio_stream::pending());
                return Ok(Response::new(Box::pin(silence)));
            }
            Executed::Lost => {
                let lost = Status::unavailable("the connection is closed");
                vec![at(QUEUED, None), at(EXECUTING, None), Err(lost)]
            }
            Executed::Refused(code, message) => {
                let error = operation::Result::Error(coded(&Status::new(code, message)));
                vec![at(QUEUED, None), at(COMPLETED, Some(error))]
            }
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/build.bazel.remote.execution.v2.{name}"),
        value: message.encode_to_vec(),
    }
}

/// Refuses an upload where the double has no space or its client no right.
fn may_write(faults: &Faults) -> Result<(), Status> {
    if faults.reader_only {
        return Err(Status::permission_denied("reading only"));
    }
    if faults.full {
        return Err(Status::resource_exhausted("no space is left"));
    }
    Ok(())
}

fn hash_of(digest: Option<&Digest>) -> Result<String, Status> {
    let digest = digest.ok_or_else(|| Status::invalid_argument("no digest"))?;
    Ok(digest.hash.clone())
}

/// The hash in `[…/]blobs/HASH/SIZE[/…]`.
fn hash_in(resource: &str) -> Result<String, Status> {
    let mut words = resource.split('/').skip_while(|word| *word != "blobs").skip(1);
    let hash = words.next().filter(|hash| hash.len() == 64);
    hash.map(str::to_owned)
        .ok_or_else(|| Status::invalid_argument(format!("{resource} names no blob")))
}

fn no_such(what: &str) -> Status {
    Status::not_found(format!("{what} is not here"))
}

fn coded(status: &Status) -> rpc::Status {
    rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        ..Default::default()
    }
}

/// Keeps a blob under its name, if it is its own.
fn keep(kept: &SharedKept, hash: &str, data: Vec<u8>) -> Result<(), Status> {
    if digest_of(&data).hash != hash {
        return Err(Status::invalid_argument(format!("the bytes are not those of {hash}")));
    }
    kept.lock().blobs.insert(hash.to_owned(), data);
    Ok(())
}

#[tonic::async_trait]
impl Capabilities for Services {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let faults = self.enter("GetCapabilities", "", &request).await?;
        let version = |major, minor| {
            Some(SemVer {
                major,
                minor,
                ..Default::default()
            })
        };
        let cache = CacheCapabilities {
            digest_functions: vec![SHA256],
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities {
                update_enabled: !faults.reader_only,
            }),
            max_batch_total_size_bytes: BATCH,
            ..Default::default()
        };
        let execution = self.worker.as_ref().map(|_| ExecutionCapabilities {
            digest_function: SHA256,
            digest_functions: vec![SHA256],
            exec_enabled: true,
            ..Default::default()
        });
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(cache),
            execution_capabilities: execution,
            low_api_version: version(2, 0),
            high_api_version: version(2, 3),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl ActionCache for Services {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let action = hash_of(request.get_ref().action_digest.as_ref())?;
        if self.enter("GetActionResult", &action, &request).await?.results_never {
            std::future::pending::<()>().await;
        }
        let found = self.kept.lock().results.get(&action).cloned();
        let bytes = found.ok_or_else(|| no_such(&action))?;
        let result = ActionResult::decode(&bytes[..]);
        result
            .map(Response::new)
            .map_err(|error| Status::internal(error.to_string()))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let action = hash_of(request.get_ref().action_digest.as_ref())?;
        let faults = self.enter("UpdateActionResult", &action, &request).await?;
        may_write(&faults)?;
        if faults.keeps_results {
            return Err(Status::permission_denied("no results from clients"));
        }
        let result = request.into_inner().action_result.unwrap_or_default();
        self.kept.lock().results.insert(action, result.encode_to_vec());
        Ok(Response::new(result))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Services {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let count = request.get_ref().blob_digests.len().to_string();
        self.enter("FindMissingBlobs", &count, &request).await?;
        let kept = self.kept.lock();
        let mut missing = request.into_inner().blob_digests;
        missing.retain(|digest| !kept.has(&digest.hash));
        Ok(Response::new(FindMissingBlobsResponse {
            missing_blob_digests: missing,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let count = request.get_ref().requests.len().to_string();
        may_write(&self.enter("BatchUpdateBlobs", &count, &request).await?)?;
        let mut responses = Vec::new();
        for one in request.into_inner().requests {
            let hash = hash_of(one.digest.as_ref())?;
            let done = keep(&self.kept, &hash, one.data);
            responses.push(batch_update_blobs_response::Response {
                digest: one.digest,
                status: Some(done.err().map(|status| coded(&status)).unwrap_or_default()),
            });
        }
        Ok(Response::new(BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let count = request.get_ref().digests.len().to_string();
        let faults = self.enter("BatchReadBlobs", &count, &request).await?;
        let mut responses = Vec::new();
        for digest in request.into_inner().digests {
            if faults.closes_in_the_middle.contains(&digest.hash) {
                return Err(Status::unavailable("the connection is closed"));
            }
            let data = self.kept.lock().blob(&digest.hash);
            let status = match &data {
                Some(_) => rpc::Status::default(),
                None => coded(&no_such(&digest.hash)),
            };
            let data = data.unwrap_or_default();
            if let Some(time) = faults.trickle {
                sleep(time * u32::try_from(data.len()).expect("short")).await;
            }
            responses.push(batch_read_blobs_response::Response {
                digest: Some(digest),
                data,
                status: Some(status),
                ..Default::default()
            });
        }
        Ok(Response::new(BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<GetTreeResponse>;

    async fn get_tree(&self, request: Request<GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        self.enter("GetTree", "", &request).await?;
        Err(Status::unimplemented("the double knows no directories"))
    }

    async fn split_blob(&self, request: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        self.enter("SplitBlob", "", &request).await?;
        Err(Status::unimplemented("the double splits no blobs"))
    }

    type GetChunkMappingStream = BoxStream<GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        request: Request<GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        self.enter("GetChunkMapping", "", &request).await?;
        Err(Status::unimplemented("the double splits no blobs"))
    }

    async fn splice_blob(&self, request: Request<SpliceBlobRequest>) -> Result<Response<SpliceBlobResponse>, Status> {
        self.enter("SpliceBlob", "", &request).await?;
        Err(Status::unimplemented("the double splits no blobs"))
    }

    async fn register_chunk_mapping(
        &self,
        request: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        self.enter("RegisterChunkMapping", "", &request).await?;
        Err(Status::unimplemented("the double splits no blobs"))
    }
}

#[tonic::async_trait]
impl ByteStream for Services {
    type ReadStream = BoxStream<ReadResponse>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let hash = hash_in(&request.get_ref().resource_name)?;
        let faults = self.enter("Read", &hash, &request).await?;
        let mut bytes = self.kept.lock().blob(&hash).ok_or_else(|| no_such(&hash))?;
        let offset = usize::try_from(request.get_ref().read_offset).ok();
        let offset = offset.filter(|offset| *offset <= bytes.len());
        bytes.drain(..offset.ok_or_else(|| Status::out_of_range("behind the end"))?);
        let closes = faults.closes_in_the_middle.contains(&hash);
        if closes {
            bytes.truncate(bytes.len() / 2);
        }
        let size = if faults.trickle.is_some() { 1 } else { PIECE };
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            for piece in bytes.chunks(size) {
                if let Some(time) = faults.trickle {
                    sleep(time).await;
                }
                let data = piece.to_vec();
                if sender.send(Ok(ReadResponse { data })).await.is_err() {
                    return;
                }
            }
            if closes {
                let _ = sender.send(Err(Status::unavailable("the connection is closed"))).await;
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let faults = self.enter("Write", "", &request).await?;
        may_write(&faults)?;
        let mut stream = request.into_inner();
        let (mut name, mut bytes) = (String::new(), Vec::new());
        while let Some(piece) = stream.message().await? {
            if name.is_empty() {
                name = piece.resource_name;
            }
            bytes.extend(piece.data);
        }
        let committed_size = i64::try_from(bytes.len()).expect("short");
        keep(&self.kept, &hash_in(&name)?, bytes)?;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        self.enter("QueryWriteStatus", "", &request).await?;
        Err(Status::new(Code::Unimplemented, "the double knows whole uploads only"))
    }
}

#[tonic::async_trait]
impl Execution for Services {
    type ExecuteStream = BoxStream<Operation>;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let action = hash_of(request.get_ref().action_digest.as_ref())?;
        self.enter("Execute", &action, &request).await?;
        self.operation(&action)
    }

    type WaitExecutionStream = BoxStream<Operation>;

    async fn wait_execution(
        &self,
        request: Request<WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        let name = request.get_ref().name.clone();
        self.enter("WaitExecution", &name, &request).await?;
        self.operation(&name)
    }
}

#[tonic::async_trait]
impl Operations for Services {
    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Result<Response<Empty>, Status> {
        let name = request.get_ref().name.clone();
        let faults = self.enter("CancelOperation", &name, &request).await?;
        if faults.cancels_never {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(Empty {}))
    }

    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        Err(Status::unimplemented("the double lists nothing"))
    }

    async fn get_operation(&self, _: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("the double knows streams only"))
    }

    async fn delete_operation(&self, _: Request<DeleteOperationRequest>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("the double deletes nothing"))
    }

    async fn wait_operation(&self, _: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("the double knows streams only"))
    }
}
