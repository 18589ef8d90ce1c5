//! A directory over HTTP and TFTP, read-only: what a machine that boots over a network asks for.
//!
//! ```text
//! HTTP   GET, HEAD, one range, keep-alive          RFC 9110, RFC 9112
//! TFTP   read requests in octet mode               RFC 1350, 2347, 2348, 2349, 7440
//! ```
//!
//! Both take a socket that is already bound and serve until a [`Stop`] is requested, with a thread for each connection or
//! transfer. Everything that comes in is taken for hostile: sizes, numbers and times are bounded by limits, and a name
//! leads to a regular file below the directory or to nothing.

mod dir;
mod error;
mod http;
mod packet;
mod request;
mod served;
mod stop;
mod tftp;
mod transfer;

pub use dir::ServedDirectory;
pub use error::ServeError;
pub use http::{HttpLimits, serve_http};
pub use served::{Log, Protocol, Served};
pub use stop::{Stop, Wake};
pub use tftp::{TftpLimits, serve_tftp};
