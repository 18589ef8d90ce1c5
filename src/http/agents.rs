//! Connections: time limits, proxies, and the authorities whose certificates count.
//!
//! A private authority is added to the public ones that are compiled in. The TLS library takes the public ones as bare keys and private
//! ones as certificates, and no mixture of both, so there are two agents: the second is asked when the first does not know the issuer of
//! the server's certificate. Nothing of the request has been sent by then.

use super::{error::HttpError, is_loopback};
use crate::model::lock;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};
use ureq::{
    Agent, Proxy,
    http::Uri,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Idle connections kept open to one server.
const IDLE_PER_HOST: usize = 4;
/// The age at which an idle connection is not used again, shorter than the time after which common servers close one.
const IDLE: Duration = Duration::from_secs(4);

/// Limits and circumstances of a client.
#[derive(Clone)]
pub struct ClientOptions {
    /// Certificates of private authorities in PEM, which count beside the public ones.
    pub ca: Option<Vec<u8>>,
    /// For resolving a server's name, and for connecting to it, each.
    pub connect: Duration,
    /// The longest silence of a server: for each read and write, and for the whole head of an answer. A registry hashes a blob before it
    /// answers.
    pub silence: Duration,
    /// The most tries of a request that may be sent again.
    pub tries: u32,
    /// The time after which no further try of a request begins, and in which an answer to [`HttpClient::send`](super::HttpClient::send)
    /// has arrived.
    pub total: Duration,
    /// Whether `https_proxy`, `no_proxy` and their like choose a proxy. This machine is never reached through one.
    pub proxy_from_environment: bool,
    /// Hosts, with the port if it is not 80, that may be spoken to over plain `http`.
    pub plain_http: Vec<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            ca: None,
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(120),
            tries: 5,
            total: Duration::from_secs(300),
            proxy_from_environment: true,
            plain_http: Vec::new(),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientOptions({} tries in {:?})", self.tries, self.total)
    }
}

/// The agents of a client.
pub(super) struct Agents {
    /// For other machines: perhaps through a proxy.
    far: Trusting,
    /// For this machine.
    near: Trusting,
}

/// Agents that differ by the authorities they trust.
struct Trusting {
    /// The public ones.
    public: Agent,
    /// The private ones that the caller named.
    private: Option<Agent>,
    /// Whether a host's certificate was issued by a public one, where that is known.
    known: Mutex<BTreeMap<String, bool>>,
}

impl Agents {
    pub(super) fn new(options: &ClientOptions) -> Result<Self, HttpError> {
        let roots = options.ca.as_deref().map(certificates).transpose()?;
        let proxy = match options.proxy_from_environment {
            true => Proxy::try_from_env(),
            false => None,
        };
        let trusting = |proxy: Option<Proxy>| Trusting {
            public: agent(options, proxy.clone(), RootCerts::WebPki),
            private: roots
                .clone()
                .map(|roots| agent(options, proxy, RootCerts::Specific(roots))),
            known: Mutex::default(),
        };
        Ok(Self {
            far: trusting(proxy),
            near: trusting(None),
        })
    }

    /// Calls `attempt` with the agent for the address; with the other one too, if the first does not know the issuer of the certificate.
    pub(super) fn ask<T>(
        &self,
        uri: &Uri,
        mut attempt: impl FnMut(&Agent) -> Result<T, ureq::Error>,
    ) -> Result<T, ureq::Error> {
        let trusting = match uri.host().is_some_and(is_loopback) {
            true => &self.near,
            false => &self.far,
        };
        let host = uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        let Some(private) = trusting.private.as_ref().filter(|_| uri.scheme_str() == Some("https")) else {
            return attempt(&trusting.public);
        };
        if lock(&trusting.known).get(&host) == Some(&true) {
            return attempt(&trusting.public);
        }
        match attempt(private) {
            Err(error) if is_unknown_issuer(&error) => {
                let answer = attempt(&trusting.public)?;
                lock(&trusting.known).insert(host, true);
                Ok(answer)
            }
            other => other,
        }
    }
}

/// Whether the handshake ended because no trusted authority issued the server's certificate.
pub(super) fn is_unknown_issuer(error: &ureq::Error) -> bool {
    error.to_string().contains("invalid peer certificate: UnknownIssuer")
}

/// The certificates of a PEM text, of which there is at least one.
fn certificates(pem: &[u8]) -> Result<Arc<Vec<Certificate<'static>>>, HttpError> {
    let bad = |problem: &str| HttpError::Authority {
        problem: problem.to_owned(),
    };
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => return Err(bad("there is something else than certificates")),
            Err(_) => return Err(bad("it is not PEM")),
        }
    }
    match found.is_empty() {
        true => Err(bad("there is no certificate")),
        false => Ok(Arc::new(found)),
    }
}

fn agent(options: &ClientOptions, proxy: Option<Proxy>, roots: RootCerts) -> Agent {
    // The cryptography of TLS is that of signatures: one library, and ureq knows no other without its feature for `ring`.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(roots);
    Agent::config_builder()
        .tls_config(tls.build())
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("pnb/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(4 * IDLE_PER_HOST)
        .max_idle_connections_per_host(IDLE_PER_HOST)
        .max_idle_age(IDLE)
        .timeout_resolve(Some(options.connect))
        .timeout_connect(Some(options.connect))
        .timeout_send_request(Some(options.connect))
        .timeout_recv_response(Some(options.silence))
        .timeout_per_read(Some(options.silence))
        .timeout_per_write(Some(options.silence))
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_without_a_certificate_is_refused() {
        let problem = |pem: &str| {
            let ca = Some(pem.as_bytes().to_vec());
            let made = Agents::new(&ClientOptions {
                ca,
                ..ClientOptions::default()
            });
            made.err().map(|e| e.to_string()).unwrap_or_default()
        };
        let begin = "read the certificates of the private authority: ";
        assert_eq!(problem(""), format!("{begin}there is no certificate"));
        assert_eq!(problem("text"), format!("{begin}there is no certificate"));
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert_eq!(problem(cut), format!("{begin}it is not PEM"));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(
            problem(key),
            format!("{begin}there is something else than certificates")
        );
    }
}
