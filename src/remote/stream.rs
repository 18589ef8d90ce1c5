//! Blobs of any size over gRPC: the service ByteStream.
//!
//! ```text
//! read    [instance/]blobs/<SHA-256>/<bytes>                 from an offset
//! write   [instance/]uploads/<UUID>/blobs/<SHA-256>/<bytes>  pieces ≤ 1 MiB, the last one says so
//! ```
//!
//! Source: `google/bytestream/bytestream.proto`; the names of resources: `ContentAddressableStorage` in `remote_execution.proto`.

use super::{
    BlobDigest, Checked, OpenBlob, RemoteError,
    grpc::{GrpcCache, MAX_MESSAGE, is_answer},
    pace::Stall,
    status::{Doing, words},
};
use bazel_remote_apis::google::bytestream::{
    ReadRequest, WriteRequest, WriteResponse, byte_stream_client::ByteStreamClient,
};
use std::{
    io::{self, Read, Write},
    pin::{Pin, pin},
    task::{Context, Poll},
};
use tokio::sync::mpsc;
use tonic::{Code, Response, Status, codegen::tokio_stream::Stream};

/// The most bytes of a blob in one message.
const PIECE: usize = 1 << 20;
/// How often a read that broke off after some bytes goes on from there.
const RESUMED: u32 = 2;
/// The most messages without a byte in one read.
const MAX_EMPTY: u32 = 1000;

/// Why a stream ended early.
enum Broken {
    Status(Status),
    Stall(Stall),
    /// It is no fault of the connection.
    Final(RemoteError),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Stall> for Broken {
    fn from(stall: Stall) -> Self {
        Self::Stall(stall)
    }
}

impl From<RemoteError> for Broken {
    fn from(error: RemoteError) -> Self {
        Self::Final(error)
    }
}

/// The messages of an upload, as the calling thread makes them.
struct Messages(mpsc::Receiver<WriteRequest>);

impl Stream for Messages {
    type Item = WriteRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WriteRequest>> {
        self.0.poll_recv(cx)
    }
}

/// The next step of an upload.
enum Step<'a> {
    /// There is room for a message.
    Room(mpsc::Permit<'a, WriteRequest>),
    /// The server has answered.
    Answered(Result<Response<WriteResponse>, Status>),
    /// The request has ended, and the answer comes.
    Closed,
}

impl GrpcCache {
    /// Writes a blob to `sink`.
    pub(super) fn read_stream(
        &self,
        blob: &BlobDigest,
        sink: &mut dyn Write,
        seen: &dyn Fn(u64),
    ) -> Result<(), RemoteError> {
        let mut checked = Checked::new(*blob, sink);
        // The empty blob is the same everywhere.
        if blob.size == 0 {
            return checked.finish(self.server());
        }
        let (mut received, mut resumed) = (0, 0);
        let mut attempts = self.attempts(Doing::Reading);
        loop {
            let begin = received;
            let resource = format!("{}blobs/{blob}", self.prefix());
            let request = attempts.request(ReadRequest {
                resource_name: resource,
                read_offset: i64::try_from(received).unwrap_or(i64::MAX),
                read_limit: 0,
            })?;
            let ended: Result<(), Broken> = self.run(async {
                let (mut pace, channel) = self.pace(false);
                let mut client = ByteStreamClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                let mut pieces = pace.wait(client.read(request)).await??.into_inner();
                let mut empty = 0;
                while let Some(piece) = pace.wait(pieces.message()).await?? {
                    let size = piece.data.len() as u64;
                    empty += u32::from(size == 0);
                    if size > blob.size - received || empty > MAX_EMPTY {
                        return Err(self.endless(blob).into());
                    }
                    checked.write_all(&piece.data).map_err(|source| RemoteError::Local {
                        doing: format!("write blob {blob} of the remote cache {}", self.server()),
                        source,
                    })?;
                    received += size;
                    seen(size);
                }
                Ok(())
            })?;
            match ended {
                Ok(()) => return checked.finish(self.server()),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Stall(stall)) => return Err(self.stalled(stall)),
                Err(Broken::Status(status)) if status.code() == Code::NotFound && is_answer(&status) => {
                    return Err(self.lacks(*blob));
                }
                Err(Broken::Status(status)) => {
                    if received > begin {
                        resumed += 1;
                    }
                    if resumed > RESUMED {
                        let said = words(&status);
                        return Err(self.gone(format!(
                            "reading blob {blob} broke off {resumed} times, the last: {said}"
                        )));
                    }
                    attempts.again(&status)?;
                }
            }
        }
    }

    /// A server that sends more than the blob.
    fn endless(&self, blob: &BlobDigest) -> RemoteError {
        RemoteError::Result {
            server: self.server().to_owned(),
            problem: format!("it sends more than the {} bytes of blob {blob}", blob.size),
        }
    }

    /// Stores a blob.
    pub(super) fn write_stream(&self, blob: &BlobDigest, open: OpenBlob<'_>) -> Result<(), RemoteError> {
        let mut attempts = self.attempts(Doing::Writing);
        loop {
            let mut source = open().map_err(|source| local(blob, source))?;
            let resource = format!("{}uploads/{}/blobs/{blob}", self.prefix(), uuid()?);
            let (sender, receiver) = mpsc::channel(1);
            let request = attempts.request(Messages(receiver))?;
            let ended = self.run(async {
                let (mut pace, channel) = self.pace(true);
                let mut client = ByteStreamClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                let mut answer = pin!(client.write(request));
                let (mut offset, mut open) = (0, true);
                while open {
                    let step = {
                        let mut room = pin!(sender.reserve());
                        pace.wait(std::future::poll_fn(|cx| {
                            if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
                                return Poll::Ready(Step::Answered(answered));
                            }
                            room.as_mut().poll(cx).map(|room| room.map_or(Step::Closed, Step::Room))
                        }))
                        .await?
                    };
                    match step {
                        // The server has the blob already, or refuses it.
                        Step::Answered(answered) => return self.taken(blob, answered?.into_inner()),
                        Step::Closed => open = false,
                        Step::Room(room) => {
                            let data = piece(&mut *source, blob.size - offset).map_err(|e| local(blob, e))?;
                            let end = offset + data.len() as u64;
                            room.send(WriteRequest {
                                resource_name: if offset == 0 { resource.clone() } else { String::new() },
                                write_offset: i64::try_from(offset).unwrap_or(i64::MAX),
                                finish_write: end == blob.size,
                                data,
                            });
                            offset = end;
                            open = offset < blob.size;
                        }
                    }
                }
                // The stream of messages ends.
                drop(sender);
                self.taken(blob, pace.wait(answer).await??.into_inner())
            })?;
            match ended {
                Ok(()) => return Ok(()),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Stall(stall)) => return Err(self.stalled(stall)),
                // Another client was first.
                Err(Broken::Status(status)) if status.code() == Code::AlreadyExists && is_answer(&status) => {
                    return Ok(());
                }
                Err(Broken::Status(status)) => attempts.again(&status)?,
            }
        }
    }

    /// Looks at the answer to an upload.
    fn taken(&self, blob: &BlobDigest, answer: WriteResponse) -> Result<(), Broken> {
        match u64::try_from(answer.committed_size) == Ok(blob.size) {
            true => Ok(()),
            false => {
                let said = format!("it took {} of the bytes of blob {blob}", answer.committed_size);
                Err(self.gone(said).into())
            }
        }
    }
}

/// The next bytes of a blob, of which `left` are left.
fn piece(source: &mut dyn Read, left: u64) -> io::Result<Vec<u8>> {
    let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let mut data = vec![0; size];
    source.read_exact(&mut data).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(e.kind(), "it has fewer bytes than it had"),
        _ => e,
    })?;
    Ok(data)
}

fn local(blob: &BlobDigest, source: io::Error) -> RemoteError {
    RemoteError::Local {
        doing: format!("read blob {blob} for the remote cache"),
        source,
    }
}

/// A random UUID (RFC 9562, §5.4): the server tells uploads apart by it.
fn uuid() -> Result<String, RemoteError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RemoteError::Local {
        doing: "name an upload to the remote cache".to_owned(),
        source: io::Error::other("there are no random numbers"),
    })?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    Ok(parts.join("-"))
}
