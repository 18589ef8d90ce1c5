//! A small client of the Remote Execution API, with which the tests look at servers: nothing of pnb is in it.

use bazel_remote_apis::{
    build::bazel::remote::execution::v2::{
        Action, ActionResult, BatchUpdateBlobsRequest, Command, Digest, Directory, ExecuteRequest, ExecuteResponse,
        FindMissingBlobsRequest, GetActionResultRequest, GetCapabilitiesRequest, Platform, ServerCapabilities,
        UpdateActionResultRequest, WaitExecutionRequest, action_cache_client::ActionCacheClient,
        batch_update_blobs_request, capabilities_client::CapabilitiesClient, command::EnvironmentVariable,
        content_addressable_storage_client::ContentAddressableStorageClient, execution_client::ExecutionClient,
        platform::Property,
    },
    google::{
        bytestream::{ReadRequest, WriteRequest, byte_stream_client::ByteStreamClient},
        longrunning::{Operation, operation},
    },
};
use prost::Message;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::{
    Code, Request, Status, Streaming,
    codegen::tokio_stream,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

/// Bytes of a message of a stream.
const PIECE: usize = 64 << 10;
/// Blobs up to here travel in one call.
const SMALL: usize = 1 << 20;

/// The name of a blob.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest {
        hash: hex::encode(Sha256::digest(bytes)),
        size_bytes: i64::try_from(bytes.len()).expect("short"),
    }
}

/// What a client shows to a server, and whom it trusts.
#[derive(Clone, Default)]
pub(crate) struct Papers {
    /// A bearer token.
    pub(crate) token: Option<String>,
    /// The authority of the server's certificate, in PEM.
    pub(crate) authority: Option<Vec<u8>>,
    /// The certificate of the client and its key, in PEM.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// An action to be run.
#[derive(Clone, Default)]
pub(crate) struct Job<'a> {
    pub(crate) arguments: &'a [&'a str],
    pub(crate) environment: &'a [(&'a str, &'a str)],
    pub(crate) output_paths: &'a [&'a str],
    /// Sorted by name.
    pub(crate) platform: &'a [(&'a str, &'a str)],
    pub(crate) salt: &'a [u8],
    pub(crate) skip_cache: bool,
}

/// The client; every call waits for the answer.
pub(crate) struct RemoteClient {
    runtime: Runtime,
    channel: Channel,
    token: Option<String>,
}

impl RemoteClient {
    /// Connects to an address like `grpc://127.0.0.1:8980`.
    pub(crate) fn connect(address: &str) -> Result<Self, String> {
        Self::connect_with(address, &Papers::default())
    }

    /// The same with papers.
    pub(crate) fn connect_with(address: &str, papers: &Papers) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut endpoint = Endpoint::from_shared(address.replacen("grpc", "http", 1)).expect("an address");
        endpoint = endpoint.connect_timeout(Duration::from_secs(10));
        if let Some(authority) = &papers.authority {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
            if let Some((certificate, key)) = &papers.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(|error| error.to_string())?;
        }
        let channel = runtime.block_on(endpoint.connect());
        Ok(Self {
            channel: channel.map_err(|error| format!("{error:?}"))?,
            runtime,
            token: papers.token.clone(),
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(120));
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().expect("ASCII");
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    pub(crate) fn capabilities(&self) -> Result<ServerCapabilities, Status> {
        let mut client = CapabilitiesClient::new(self.channel.clone());
        let request = self.request(GetCapabilitiesRequest::default());
        let answer = self.runtime.block_on(client.get_capabilities(request))?;
        Ok(answer.into_inner())
    }

    /// Uploads a blob, and returns its name.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, Status> {
        let digest = digest_of(bytes);
        self.put_as(&digest, bytes)?;
        Ok(digest)
    }

    /// Uploads bytes under a name that need not be theirs.
    pub(crate) fn put_as(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Status> {
        if bytes.len() > SMALL {
            return self.write(digest, bytes);
        }
        let mut client = ContentAddressableStorageClient::new(self.channel.clone());
        let request = self.request(BatchUpdateBlobsRequest {
            requests: vec![batch_update_blobs_request::Request {
                digest: Some(digest.clone()),
                data: bytes.to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        });
        let answer = self.runtime.block_on(client.batch_update_blobs(request))?.into_inner();
        for response in answer.responses {
            let status = response.status.unwrap_or_default();
            if status.code != 0 {
                return Err(Status::new(Code::from_i32(status.code), status.message));
            }
        }
        Ok(())
    }

    /// Uploads by ByteStream.
    fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Status> {
        let name = format!(
            "uploads/b3e1c0de-0000-4000-8000-000000000000/blobs/{}/{}",
            digest.hash, digest.size_bytes
        );
        let mut messages = Vec::new();
        for (number, piece) in bytes.chunks(PIECE).enumerate() {
            messages.push(WriteRequest {
                resource_name: if number == 0 { name.clone() } else { String::new() },
                write_offset: i64::try_from(number * PIECE).expect("short"),
                finish_write: (number + 1) * PIECE >= bytes.len(),
                data: piece.to_vec(),
            });
        }
        let mut client = ByteStreamClient::new(self.channel.clone());
        let request = self.request(tokio_stream::iter(messages));
        let answer = self.runtime.block_on(client.write(request))?.into_inner();
        if answer.committed_size != digest.size_bytes {
            return Err(Status::data_loss(format!("{} bytes were taken", answer.committed_size)));
        }
        Ok(())
    }

    /// Downloads a blob by ByteStream. The bytes are not checked.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let mut client = ByteStreamClient::new(self.channel.clone());
        let request = self.request(ReadRequest {
            resource_name: format!("blobs/{}/{}", digest.hash, digest.size_bytes),
            ..Default::default()
        });
        self.runtime.block_on(async {
            let mut stream = client.read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(piece) = stream.message().await? {
                bytes.extend(piece.data);
            }
            Ok(bytes)
        })
    }

    /// Those of the blobs that the server does not have.
    pub(crate) fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Status> {
        let mut client = ContentAddressableStorageClient::new(self.channel.clone());
        let request = self.request(FindMissingBlobsRequest {
            blob_digests: digests.to_vec(),
            ..Default::default()
        });
        let answer = self.runtime.block_on(client.find_missing_blobs(request))?;
        Ok(answer.into_inner().missing_blob_digests)
    }

    /// The result that the server's cache has for an action.
    pub(crate) fn cached(&self, action: &Digest) -> Result<Option<ActionResult>, Status> {
        let mut client = ActionCacheClient::new(self.channel.clone());
        let request = self.request(GetActionResultRequest {
            action_digest: Some(action.clone()),
            ..Default::default()
        });
        match self.runtime.block_on(client.get_action_result(request)) {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Writes a result for an action into the server's cache.
    pub(crate) fn publish(&self, action: &Digest, result: &ActionResult) -> Result<(), Status> {
        let mut client = ActionCacheClient::new(self.channel.clone());
        let request = self.request(UpdateActionResultRequest {
            action_digest: Some(action.clone()),
            action_result: Some(result.clone()),
            ..Default::default()
        });
        self.runtime.block_on(client.update_action_result(request)).map(drop)
    }

    /// Uploads an action with an empty input root, and returns its name.
    pub(crate) fn put_job(&self, job: &Job<'_>) -> Result<Digest, Status> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let variables = job.environment.iter().map(|(name, value)| EnvironmentVariable {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        });
        let properties = job.platform.iter().map(|(name, value)| Property {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        });
        let platform = Platform {
            properties: properties.collect(),
        };
        #[expect(deprecated, reason = "BuildGrid 0.4 reads the properties of the command as well")]
        let command = Command {
            arguments: owned(job.arguments),
            environment_variables: variables.collect(),
            output_paths: owned(job.output_paths),
            platform: Some(platform.clone()),
            ..Default::default()
        };
        let action = Action {
            command_digest: Some(self.put(&command.encode_to_vec())?),
            input_root_digest: Some(self.put(&Directory::default().encode_to_vec())?),
            platform: Some(platform),
            salt: job.salt.to_vec(),
            ..Default::default()
        };
        self.put(&action.encode_to_vec())
    }

    /// Uploads an action, has it run, and waits for the end.
    pub(crate) fn run(&self, job: &Job<'_>) -> Result<ExecuteResponse, Status> {
        let action = self.put_job(job)?;
        self.execute(&action, job.skip_cache)
    }

    /// Has an action run that was uploaded before, and waits for the end.
    pub(crate) fn execute(&self, action: &Digest, skip_cache: bool) -> Result<ExecuteResponse, Status> {
        let mut client = ExecutionClient::new(self.channel.clone());
        let request = self.request(ExecuteRequest {
            action_digest: Some(action.clone()),
            skip_cache_lookup: skip_cache,
            ..Default::default()
        });
        self.runtime.block_on(async {
            let stream = client.execute(request).await?.into_inner();
            end_of(stream).await
        })
    }

    /// Has an action run that was uploaded before, and gives it up after this time if it has not ended.
    pub(crate) fn execute_for(&self, action: &Digest, time: Duration) -> Result<(), Status> {
        let mut client = ExecutionClient::new(self.channel.clone());
        let request = self.request(ExecuteRequest {
            action_digest: Some(action.clone()),
            ..Default::default()
        });
        let ended = async { end_of(client.execute(request).await?.into_inner()).await.map(drop) };
        let ended = async { tokio::time::timeout(time, ended).await };
        self.runtime.block_on(ended).unwrap_or(Ok(()))
    }

    /// Waits 2 s for the end of an operation that was begun before.
    pub(crate) fn wait(&self, operation: &str) -> Result<ExecuteResponse, Status> {
        let mut client = ExecutionClient::new(self.channel.clone());
        let request = self.request(WaitExecutionRequest {
            name: operation.to_owned(),
        });
        let end = async {
            let stream = client.wait_execution(request).await?.into_inner();
            end_of(stream).await
        };
        // The deadline of a call ends with the first word of its answer.
        let end = async { tokio::time::timeout(Duration::from_secs(2), end).await };
        let ended = self.runtime.block_on(end);
        ended.unwrap_or_else(|_| Err(Status::deadline_exceeded("no end in 2 s")))
    }
}

/// The last word of an operation.
async fn end_of(mut stream: Streaming<Operation>) -> Result<ExecuteResponse, Status> {
    while let Some(operation) = stream.message().await? {
        match operation.result {
            Some(operation::Result::Response(any)) => {
                let response = ExecuteResponse::decode(&any.value[..]);
                return response.map_err(|error| Status::internal(error.to_string()));
            }
            Some(operation::Result::Error(status)) => {
                return Err(Status::new(Code::from_i32(status.code), status.message));
            }
            None => {}
        }
    }
    Err(Status::aborted("the stream ended before the action"))
}

/// The bytes of an output of an action.
pub(crate) fn output(client: &RemoteClient, response: &ExecuteResponse, path: &str) -> Vec<u8> {
    let result = response.result.as_ref().expect("a result");
    let file = result.output_files.iter().find(|file| file.path == path);
    let file = file.unwrap_or_else(|| unreachable!("no {path} in {result:?}"));
    client.get(file.digest.as_ref().expect("a digest")).expect("the blob")
}
