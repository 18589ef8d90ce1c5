//! Serves a directory over HTTP and TFTP, read-only, to machines that boot over a network.
//!
//! ```text
//! HTTP   GET, HEAD, one range, keep-alive          RFC 9110, RFC 9112
//! TFTP   read requests in octet mode               RFC 1350, 2347, 2348, 2349, 7440
//! ```
//!
//! Both servers take a bound socket and serve until a [`Stop`] is requested, with one thread per connection or transfer. All input is
//! treated as hostile: sizes, numbers and times have limits, and a name leads to a regular file below the directory or to none.
//!
//! | file | holds |
//! |---|---|
//! | `http`, `connection`, `request` | the HTTP server; one connection; parsing a request's head |
//! | `tftp`, `transfer`, `window` | the TFTP server; sending one file; the blocks under way |
//! | `agree`, `packet` | the meaning of a TFTP request and the terms of its transfer; parsing and writing packets |
//! | `name` | the paths that a name may mean |
//! | `dir` | the served directory |
//! | `share` | connections and transfers that clients share |
//! | `stop`, `served`, `error` | stopping a server; log entries; [`ServeError`] |

mod agree;
mod connection;
mod dir;
mod error;
mod http;
mod name;
mod packet;
mod request;
mod served;
mod share;
mod stop;
mod tftp;
mod transfer;
mod window;

pub use agree::{TftpRefusal, TftpRequest, TftpTerms, understand_tftp};
pub use dir::{Missing, ServedDirectory, ServedFile};
pub use error::ServeError;
pub use http::{HttpLimits, serve_http};
pub use name::AskedName;
pub use packet::{TftpOptions, TftpPacket, parse_tftp_packet};
pub use request::{ByteRange, HttpMethod, HttpRequest, parse_http_request};
pub use served::{Log, Protocol, Served};
pub use stop::{Stop, Wake};
pub use tftp::{TftpLimits, serve_tftp};
pub use window::{AckMeaning, SendWindow};
