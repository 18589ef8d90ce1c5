//! HTTP: the way to servers (proxies, TLS, authorities), which downloads take too, and a synchronous client for the servers to which pnb
//! publishes: registries, a Gitea, the services of a signature, a webhook.
//!
//! [`HttpClient::send`] exchanges small answers, [`HttpClient::read`] writes a long one to a `Write`. Every status is an [`Answer`]; an
//! [`HttpError`] says that there was none. The client tries again as the request allows, obeys `Retry-After`, follows no redirects, and
//! speaks plain `http` only to this machine and to hosts that the caller names. The clock is an argument.
//!
//! | file | holds |
//! |---|---|
//! | `client` | [`HttpClient`]: one request with its tries |
//! | `agents` | [`NetworkSettings`], agents with their time limits |
//! | `trust` | [`Trust`]: the authorities in force, and the places where they are |
//! | `tls` | TLS of connections, refusals that name the certificate, [`ClientIdentity`] |
//! | `proxy` | [`ProxyRules`]: the proxy for an address |
//! | `forward` | plain `http` through a proxy |
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
mod forward;
mod proxy;
mod request;
mod retry;
#[cfg(test)]
mod tests;
mod tls;
mod trust;

pub use address::{is_loopback, join, shown};
pub use agents::{ClientOptions, NetworkSettings};
pub(crate) use agents::{RequestFault, Routes, status_text};
pub use client::HttpClient;
pub use clock::{HttpClock, MachineClock};
pub use error::HttpError;
#[cfg(feature = "remote")]
pub(crate) use proxy::Tunnel;
pub use proxy::{ProxyRules, ProxyServer};
pub use request::{Answer, Request, RequestBody, Retry};
pub use retry::{Tries, is_temporary, retry_after};
pub use tls::ClientIdentity;
#[cfg(feature = "remote")]
pub(crate) use tls::{TlsFault, tls_config, tls_problem};
pub use trust::{SYSTEM_BUNDLES, Trust, TrustPlaces};
pub use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
