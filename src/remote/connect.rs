//! [`connect`] and [`connect_engine`]: the client of an endpoint, and its limits.

use super::{Endpoint, RemoteCache, RemoteEngine, RemoteError, RemoteProtocol};
use crate::http::NetworkSettings;
use std::{sync::Arc, time::Duration};

/// How long a server is waited for, and how often it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteLimits {
    /// For a connection: resolving the name, TCP, the proxy, TLS.
    pub connect: Duration,
    /// The longest time without a byte of a request or its answer. A server that is silent for longer is not asked again.
    pub silence: Duration,
    /// The longest time for which a server may work on a blob whose last byte it has. Some copy it to other storage before they answer.
    pub commit: Duration,
    /// The time in which at least `floor` bytes of a request move, unless it ends sooner.
    pub window: Duration,
    /// The fewest bytes in a window.
    pub floor: u64,
    /// The most tries of a request.
    pub tries: u32,
    /// The wait before the second try; it doubles with each further one.
    pub wait: Duration,
    /// How long an engine that refuses more calls at once is asked again. A cache is asked as often as `tries` says.
    pub busy: Duration,
}

impl Default for RemoteLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(10),
            commit: Duration::from_secs(60),
            window: Duration::from_secs(30),
            floor: 64 << 10,
            tries: 4,
            wait: Duration::from_millis(250),
            busy: Duration::from_secs(120),
        }
    }
}

#[cfg(feature = "remote")]
impl RemoteLimits {
    /// The same with no limit that another one makes pointless: a longer silence that was asked for is not ended by the window.
    fn settled(mut self) -> Self {
        self.commit = self.commit.max(self.silence);
        self.window = self.window.max(self.silence.saturating_mul(2));
        self
    }
}

/// Connects to an endpoint and asks what it offers. The files of the endpoint are read now.
///
/// # Errors
///
/// If a file cannot be read, if the server is not reached, or if it lacks a service that a cache needs. [`RemoteError::NotCompiled`] if pnb
/// was compiled without the feature `remote`.
pub fn connect(
    endpoint: &Endpoint,
    network: &NetworkSettings,
    limits: &RemoteLimits,
) -> Result<Arc<dyn RemoteCache>, RemoteError> {
    #[cfg(not(feature = "remote"))]
    {
        let _ = (network, limits);
        Err(RemoteError::NotCompiled {
            url: endpoint.address.to_string(),
        })
    }
    #[cfg(feature = "remote")]
    {
        use super::{grpc::GrpcCache, http::HttpCache};
        let limits = &limits.settled();
        Ok(match endpoint.address.protocol() {
            RemoteProtocol::Grpc => Arc::new(GrpcCache::connect(endpoint, network, limits, false)?),
            RemoteProtocol::Http => Arc::new(HttpCache::new(endpoint, network, limits)?),
        })
    }
}

/// Connects to an engine: a server that runs actions, beside its cache.
///
/// # Errors
///
/// As [`connect`]; if the address is one of HTTP, which has no actions, or if the server is a cache alone.
pub fn connect_engine(
    endpoint: &Endpoint,
    network: &NetworkSettings,
    limits: &RemoteLimits,
) -> Result<Arc<dyn RemoteEngine>, RemoteError> {
    if endpoint.address.protocol() == RemoteProtocol::Http {
        return Err(RemoteError::Address {
            url: endpoint.address.to_string(),
            problem: "an engine is reached over grpc or grpcs".to_owned(),
        });
    }
    #[cfg(not(feature = "remote"))]
    {
        let _ = (network, limits);
        Err(RemoteError::NotCompiled {
            url: endpoint.address.to_string(),
        })
    }
    #[cfg(feature = "remote")]
    {
        use super::{execute::GrpcEngine, grpc::GrpcCache};
        let cache = GrpcCache::connect(endpoint, network, &limits.settled(), true)?;
        Ok(Arc::new(GrpcEngine::new(cache)?))
    }
}

#[cfg(all(test, not(feature = "remote")))]
mod tests {
    use super::*;

    #[test]
    fn a_pnb_without_the_feature_says_so() {
        let endpoint = Endpoint {
            address: "grpc://127.0.0.1:1".parse().expect("an address"),
            token_file: None,
            identity: None,
        };
        let error =
            connect(&endpoint, &NetworkSettings::default(), &RemoteLimits::default()).expect_err("not compiled");
        assert!(matches!(error, RemoteError::NotCompiled { .. }), "{error}");
    }
}
