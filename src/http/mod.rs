//! A synchronous HTTP client for the servers to which pnb publishes: registries, a Gitea, the services of a signature, a webhook.
//!
//! [`HttpClient::send`] exchanges small answers, [`HttpClient::read`] writes a long one to a `Write`. Every status is an [`Answer`]; an
//! [`HttpError`] says that there was none. The client tries again as the request allows, obeys `Retry-After`, follows no redirects, and
//! speaks plain `http` only to this machine and to hosts that the caller names. The clock is an argument.
//!
//! | file | holds |
//! |---|---|
//! | `client` | [`HttpClient`]: one request with its tries |
//! | `agents` | connections: certificates of authorities, proxies, time limits |
//! | `request` | [`Request`], [`RequestBody`], [`Answer`] |
//! | `retry` | the waits between tries, `Retry-After` |
//! | `address` | addresses: the check of the scheme, how errors show them, `Location` |
//! | `clock` | [`HttpClock`] and the one of this machine |
//! | `error` | [`HttpError`] |

mod address;
mod agents;
mod client;
mod clock;
mod error;
mod request;
mod retry;
#[cfg(test)]
mod tests;

pub use address::{is_loopback, join, shown};
pub use agents::ClientOptions;
pub use client::HttpClient;
pub use clock::{HttpClock, MachineClock};
pub use error::HttpError;
pub use request::{Answer, Request, RequestBody, Retry};
pub use retry::{Tries, is_temporary, retry_after};
pub use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
