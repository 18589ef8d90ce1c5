//! What the status of a call means: another try, another token, or one of the errors of a cache.
//!
//! Source: `grpc/doc/statuscodes.md`; the comments on errors in `remote_execution.proto`.

use super::{RemoteError, channel::LastFault};
use crate::model::{chain, visible_message};
use bazel_remote_apis::google::{
    protobuf::{self, Any},
    rpc,
};
use prost::Message as _;
use std::{error::Error as _, time::Duration};
use tonic::{Code, Status};

/// What servers say that refuse a call for the moment: gRPC's server for Python, of which BuildGrid is made, when all its threads have a
/// call; `buildbox-casd` while it makes room.
const FOR_THE_MOMENT: [&str; 2] = ["concurrent rpc limit exceeded", "try again later"];

/// What a request does with the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    /// It reads.
    Reading,
    /// It writes.
    Writing,
}

impl Doing {
    /// The words of [`RemoteError::Denied`].
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Reading => "read from",
            Self::Writing => "write to",
        }
    }
}

/// What follows a failed call.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Another try may succeed; the error if it was the last one.
    Again(RemoteError),
    /// The server has too much to do, and has not begun with the call. Another try may succeed, after a time that the server may name.
    Busy {
        /// The server's words.
        problem: String,
        /// The shortest time.
        delay: Option<Duration>,
    },
    /// The same with another token.
    Token(RemoteError),
    /// Every try would end the same.
    Final(RemoteError),
}

/// The meaning of a status of `server`. What is said of one blob or result, `NOT_FOUND` above all, is the caller's.
pub(super) fn verdict(server: &str, doing: Doing, status: &Status, fault: &LastFault) -> Verdict {
    let server = server.to_owned();
    let gone = |problem| RemoteError::Gone {
        server: server.clone(),
        problem,
    };
    // A status with a source was made on this side: there was no answer.
    if let Some(source) = status.source() {
        return match fault.get() {
            Some(fault) if fault.temporary => Verdict::Again(gone(fault.text)),
            Some(fault) => Verdict::Final(gone(fault.text)),
            None => Verdict::Again(gone(visible_message(&chain(source)))),
        };
    }
    let problem = words(status);
    let denied = |problem| RemoteError::Denied {
        server: server.clone(),
        doing: doing.words(),
        problem,
    };
    match status.code() {
        // gRPC itself has the code for a message that is too long, and would be so again.
        Code::ResourceExhausted if doing == Doing::Reading && is_too_long(status.message()) => {
            Verdict::Final(gone(problem))
        }
        // The code has two more meanings: a call too many, and no space. Nothing is stored by a call that reads.
        Code::ResourceExhausted => {
            let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
            match doing == Doing::Reading || is_for_the_moment(status.message(), &details) {
                true => Verdict::Busy {
                    problem,
                    delay: delay(&details),
                },
                false => Verdict::Final(RemoteError::Full { server, problem }),
            }
        }
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Unknown
        | Code::Aborted
        | Code::Cancelled => Verdict::Again(gone(problem)),
        Code::Unauthenticated => Verdict::Token(denied(problem)),
        Code::PermissionDenied => Verdict::Final(denied(problem)),
        // A proxy that leads to the reading half of a server only knows no other calls.
        Code::Unimplemented if doing == Doing::Writing => Verdict::Final(denied(problem)),
        Code::Unimplemented => Verdict::Final(RemoteError::Unsupported { server, problem }),
        _ => Verdict::Final(gone(problem)),
    }
}

/// The detail of an error that says when the call may be made again (`google/rpc/error_details.proto`).
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<protobuf::Duration>,
}

/// The time after which a refused call may be made again, if the server names one.
pub(super) fn delay(details: &[Any]) -> Option<Duration> {
    let info = details
        .iter()
        .find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    let nanos = u32::try_from(delay.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, nanos))
}

/// Whether a server says itself that it refuses with `RESOURCE_EXHAUSTED` for the moment: by a time, or by the words of one that does so.
pub(super) fn is_for_the_moment(message: &str, details: &[Any]) -> bool {
    let message = message.to_ascii_lowercase();
    delay(details).is_some() || FOR_THE_MOMENT.iter().any(|words| message.contains(words))
}

/// Whether a message was longer than one side allows, as the implementations of gRPC in C and in Go say it.
fn is_too_long(message: &str) -> bool {
    message.to_ascii_lowercase().contains("larger than max")
}

/// The code by its name in the specification, and the server's words.
pub(super) fn words(status: &Status) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", status.code()).chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    match status.message().trim() {
        "" => name,
        message => format!("{name}: {}", visible_message(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::TlsFault, remote::Loss};

    #[test]
    fn each_code_has_its_meaning() {
        let none = LastFault::default();
        let means = |doing, code| match verdict("s", doing, &Status::new(code, "why"), &none) {
            Verdict::Again(error) => ("again", error.loss(), error.to_string()),
            Verdict::Busy { problem, delay: None } => ("busy", Loss::Server, problem),
            Verdict::Busy { delay, .. } => panic!("nothing named {delay:?}"),
            Verdict::Token(error) => ("token", error.loss(), error.to_string()),
            Verdict::Final(error) => ("final", error.loss(), error.to_string()),
        };
        use {Code::*, Doing::*};
        for (doing, code, follows, loss, name) in [
            (Reading, Unavailable, "again", Loss::Server, "UNAVAILABLE: why"),
            (
                Reading,
                DeadlineExceeded,
                "again",
                Loss::Server,
                "DEADLINE_EXCEEDED: why",
            ),
            (Reading, Internal, "again", Loss::Server, "INTERNAL: why"),
            (
                Reading,
                ResourceExhausted,
                "busy",
                Loss::Server,
                "RESOURCE_EXHAUSTED: why",
            ),
            (
                Writing,
                ResourceExhausted,
                "final",
                Loss::Writing,
                "RESOURCE_EXHAUSTED: why",
            ),
            (Reading, Unauthenticated, "token", Loss::Server, "UNAUTHENTICATED: why"),
            (Writing, Unauthenticated, "token", Loss::Writing, "UNAUTHENTICATED: why"),
            (
                Reading,
                PermissionDenied,
                "final",
                Loss::Server,
                "PERMISSION_DENIED: why",
            ),
            (
                Writing,
                PermissionDenied,
                "final",
                Loss::Writing,
                "PERMISSION_DENIED: why",
            ),
            (Reading, Unimplemented, "final", Loss::Server, "UNIMPLEMENTED: why"),
            (Reading, InvalidArgument, "final", Loss::Server, "INVALID_ARGUMENT: why"),
            (Reading, OutOfRange, "final", Loss::Server, "OUT_OF_RANGE: why"),
        ] {
            let (follow, lost, text) = means(doing, code);
            assert_eq!((follow, lost), (follows, loss), "{code:?} {text}");
            assert!(text.ends_with(name), "{text}");
        }
        assert_eq!(words(&Status::new(Code::NotFound, " \n")), "NOT_FOUND");
        assert_eq!(
            words(&Status::new(Code::NotFound, "a\u{1b}[0m")),
            "NOT_FOUND: a\\u{1b}[0m"
        );
    }

    #[test]
    fn a_full_server_and_one_with_too_many_calls_are_told_apart() {
        let none = LastFault::default();
        let info = |seconds, nanos| {
            let retry_delay = Some(protobuf::Duration { seconds, nanos });
            let detail = Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: RetryInfo { retry_delay }.encode_to_vec(),
            };
            let status = rpc::Status {
                details: vec![detail],
                ..rpc::Status::default()
            };
            status.encode_to_vec()
        };
        for (message, details, expected) in [
            ("Concurrent RPC limit exceeded!", Vec::new(), Some(None)),
            (
                "Storage cleanup in progress, try again later (disk usage 3 >= quota 2)",
                Vec::new(),
                Some(None),
            ),
            (
                "slow down",
                info(2, 500_000_000),
                Some(Some(Duration::from_millis(2500))),
            ),
            // A time that is none.
            ("slow down", info(-2, 0), None),
            ("Insufficient storage quota", Vec::new(), None),
            ("Disk Error: 28", Vec::new(), None),
            ("S3 Quota Exceeded.", b"no message".to_vec(), None),
        ] {
            let status = Status::with_details(Code::ResourceExhausted, message, details.into());
            let found = match verdict("s", Doing::Writing, &status, &none) {
                Verdict::Busy { delay, .. } => Some(delay),
                Verdict::Final(RemoteError::Full { .. }) => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{message}");
        }
    }

    #[test]
    fn a_fault_of_the_connection_is_named() {
        let status = Status::from_error("broken".into());
        let fault = LastFault::default();
        let problem = |verdict| match verdict {
            Verdict::Again(RemoteError::Gone { problem, .. }) => ("again", problem),
            Verdict::Final(RemoteError::Gone { problem, .. }) => ("final", problem),
            other => panic!("{other:?}"),
        };
        let judged = problem(verdict("s", Doing::Reading, &status, &fault));
        assert_eq!(judged, ("again", "broken".to_owned()));
        for (temporary, follows) in [(true, "again"), (false, "final")] {
            fault.set(Some(TlsFault {
                text: "certificate".to_owned(),
                temporary,
            }));
            let judged = problem(verdict("s", Doing::Reading, &status, &fault));
            assert_eq!(judged, (follows, "certificate".to_owned()));
        }
    }
}
