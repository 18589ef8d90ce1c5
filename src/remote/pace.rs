//! The pace of a request: the bytes that move, and the end of one in which too few do.
//!
//! A request is a stream of HTTP/2 on a connection that others use too, so its bytes are counted at its two bodies and not at the socket.
//! Only the time in which pnb waits for the server counts: a slow disk of this machine is no silence of the server.

use super::RemoteLimits;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http_body::Frame;
use std::{
    fmt,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tonic::{
    Status,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Bytes, Service, http},
    transport::Channel,
};

/// The bytes of a body that go to the connection at once. A message may be longer, and the count would stand still while it is sent.
const PIECE: usize = 64 << 10;
/// How often in the longest silence the count is looked at.
const LOOKS: u32 = 8;
/// The field in which a server describes an error.
const DETAILS: &str = "grpc-status-details-bin";
/// How that field is encoded.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The counts of one request.
#[derive(Default, Debug)]
pub(super) struct Moved {
    bytes: AtomicU64,
    /// Whether the whole body of the request is sent.
    sent: AtomicBool,
}

/// Why a request was ended on this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stall {
    /// No byte moved for this time.
    Silent(Duration),
    /// Fewer bytes than the floor moved in this time.
    Slow(u64, Duration),
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(time) => write!(f, "it is silent for {time:?}"),
            Self::Slow(bytes, time) => write!(f, "only {bytes} bytes of a request moved in {time:.1?}"),
        }
    }
}

/// Waits for the steps of one request.
pub(super) struct BytePace {
    limits: RemoteLimits,
    moved: Arc<Moved>,
    /// Whether the server may work for a while on a whole request.
    commits: bool,
    seen: u64,
    silent: Duration,
    /// The time and the count of the present window.
    window: (Duration, u64),
}

impl BytePace {
    /// The pace of a new request. `commits` says that its answer may take as long as [`RemoteLimits::commit`].
    pub(super) fn new(limits: RemoteLimits, commits: bool) -> Self {
        Self {
            limits,
            moved: Arc::default(),
            commits,
            seen: 0,
            silent: Duration::ZERO,
            window: (Duration::ZERO, 0),
        }
    }

    /// The channel that counts the bytes of this request.
    pub(super) fn over(&self, channel: &Channel) -> Counted {
        Counted {
            channel: channel.clone(),
            moved: Arc::clone(&self.moved),
        }
    }

    /// Waits for a step of the request.
    pub(super) async fn wait<T>(&mut self, step: impl Future<Output = T>) -> Result<T, Stall> {
        let mut step = pin!(step);
        let look = (self.limits.silence / LOOKS).max(Duration::from_millis(1));
        loop {
            // The step before this one may have ended the window, too slow as a part of the request and yet no end of it.
            if let Some(stall) = self.stall() {
                return Err(stall);
            }
            let begin = Instant::now();
            let done = timeout(look, step.as_mut()).await;
            self.account(begin.elapsed());
            if let Ok(output) = done {
                return Ok(output);
            }
        }
    }

    /// Adds a time of waiting.
    fn account(&mut self, waited: Duration) {
        let now = self.moved.bytes.load(Ordering::Relaxed);
        self.silent = if now == self.seen {
            self.silent + waited
        } else {
            Duration::ZERO
        };
        self.seen = now;
        self.window.0 += waited;
    }

    /// Compares with the limits.
    fn stall(&mut self) -> Option<Stall> {
        let commits = self.commits && self.moved.sent.load(Ordering::Relaxed);
        let silence = if commits {
            self.limits.commit
        } else {
            self.limits.silence
        };
        if self.silent >= silence {
            return Some(Stall::Silent(silence));
        }
        if self.window.0 < self.limits.window {
            return None;
        }
        let (time, bytes) = (self.window.0, self.seen - self.window.1);
        self.window = (Duration::ZERO, self.seen);
        (bytes < self.limits.floor && !commits).then_some(Stall::Slow(bytes, time))
    }
}

/// Takes the details of an error out that are no base64: tonic would end the thread with a panic.
fn spare_details(fields: &mut http::HeaderMap) {
    let sound = |value: &http::HeaderValue| BASE64.decode(value.as_bytes()).is_ok();
    if !fields.get_all(DETAILS).iter().all(sound) {
        fields.remove(DETAILS);
    }
}

/// A channel for one request, whose bytes are counted.
#[derive(Clone)]
pub(super) struct Counted {
    channel: Channel,
    moved: Arc<Moved>,
}

impl Service<http::Request<Body>> for Counted {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let moved = Arc::clone(&self.moved);
        let request = request.map(|inner| {
            Body::new(CountedBody {
                inner,
                rest: Bytes::new(),
                moved: Arc::clone(&moved),
                sends: true,
            })
        });
        let answer = self.channel.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            spare_details(answer.headers_mut());
            moved.bytes.fetch_add(1, Ordering::Relaxed);
            Ok(answer.map(|inner| {
                Body::new(CountedBody {
                    inner,
                    rest: Bytes::new(),
                    moved,
                    sends: false,
                })
            }))
        })
    }
}

/// The body of a request or an answer.
struct CountedBody {
    inner: Body,
    /// Bytes of the last frame that were not handed on.
    rest: Bytes,
    moved: Arc<Moved>,
    sends: bool,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame,
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => {
                    let other = match other.into_trailers() {
                        Ok(mut trailers) => {
                            spare_details(&mut trailers);
                            Frame::trailers(trailers)
                        }
                        Err(other) => other,
                    };
                    return Poll::Ready(Some(Ok(other)));
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => {
                    if self.sends {
                        self.moved.sent.store(true, Ordering::Relaxed);
                    }
                    return Poll::Ready(None);
                }
            }
        }
        let most = PIECE.min(self.rest.len());
        let piece = self.rest.split_to(most);
        self.moved.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if self.sends && self.is_end_stream() {
            self.moved.sent.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RemoteLimits = RemoteLimits {
        connect: Duration::from_secs(1),
        silence: Duration::from_secs(10),
        commit: Duration::from_secs(60),
        window: Duration::from_secs(30),
        floor: 1000,
        tries: 1,
        wait: Duration::ZERO,
        busy: Duration::ZERO,
    };

    /// The verdict after each step of (seconds waited, bytes moved meanwhile).
    fn run(commits: bool, sent: bool, steps: &[(u64, u64)]) -> Option<Stall> {
        let mut pace = BytePace::new(LIMITS, commits);
        pace.moved.sent.store(sent, Ordering::Relaxed);
        steps.iter().find_map(|(waited, bytes)| {
            pace.moved.bytes.fetch_add(*bytes, Ordering::Relaxed);
            pace.account(Duration::from_secs(*waited));
            pace.stall()
        })
    }

    #[test]
    fn silence_and_trickles_end_a_request() {
        let seconds = Duration::from_secs;
        assert_eq!(run(false, false, &[(5, 0), (4, 0)]), None);
        assert_eq!(run(false, false, &[(5, 0), (5, 0)]), Some(Stall::Silent(seconds(10))));
        assert_eq!(run(false, false, &[(5, 0), (4, 1), (9, 0)]), None);
        // A byte now and then is no silence.
        let trickle = [(5, 1), (5, 1), (5, 1), (5, 1), (5, 1), (5, 1)];
        assert_eq!(run(false, false, &trickle), Some(Stall::Slow(6, seconds(30))));
        assert_eq!(run(false, false, &trickle[1..]), None, "the window is not over");
        let slow = [(15, 500), (15, 500), (15, 500), (15, 499)];
        assert_eq!(run(false, false, &slow[..3]), None);
        assert_eq!(run(false, false, &slow), Some(Stall::Slow(999, seconds(30))));
    }

    #[test]
    fn a_server_may_work_on_a_whole_blob() {
        let waiting = [(9, 1), (9, 0), (9, 0), (9, 0), (9, 0), (9, 0), (9, 0)];
        assert_eq!(run(true, true, &waiting), None);
        let seconds = Duration::from_secs;
        let longer = [waiting.as_slice(), &[(9, 0)]].concat();
        assert_eq!(run(true, true, &longer), Some(Stall::Silent(seconds(60))));
        assert_eq!(
            run(true, false, &waiting),
            Some(Stall::Silent(seconds(10))),
            "bytes are missing"
        );
        assert_eq!(run(false, true, &waiting), Some(Stall::Silent(seconds(10))), "a read");
    }

    /// A body that has trailers alone.
    struct Trailers(Option<http::HeaderMap>);

    impl HttpBody for Trailers {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }

    #[test]
    fn details_that_are_no_base64_do_not_reach_tonic() {
        for (details, kept) in [("!", false), ("CAMSAnh4", true), ("CAMSAXg=", true), ("CAMSAXg", true)] {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "3".parse().expect("a value"));
            trailers.insert(DETAILS, details.parse().expect("a value"));
            let read = |fields: &http::HeaderMap| {
                let fields = fields.clone();
                std::panic::catch_unwind(move || Status::from_header_map(&fields).is_some()).unwrap_or(false)
            };
            assert_eq!(read(&trailers), kept, "what tonic does by itself");
            let mut body = CountedBody {
                inner: Body::new(Trailers(Some(trailers))),
                rest: Bytes::new(),
                moved: Arc::default(),
                sends: false,
            };
            let mut context = Context::from_waker(std::task::Waker::noop());
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
                panic!("there are trailers")
            };
            let trailers = frame.into_trailers().expect("trailers");
            assert!(read(&trailers));
            assert_eq!(trailers.contains_key(DETAILS), kept);
        }
    }
}
