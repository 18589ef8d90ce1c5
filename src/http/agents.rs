//! Connections: time limits, proxies, and the authorities whose certificates count.

use super::{
    error::HttpError,
    forward::ForwardConnector,
    proxy::{ProxyRules, ProxyServer},
    tls::{Authorities, ClientIdentity, TlsConnector, is_broken_data, tls_fault},
    trust::TrustPlaces,
};
use crate::model::visible_message;
use std::{fmt, time::Duration};
use ureq::{
    Agent, Proxy,
    config::Config,
    http::{StatusCode, Uri},
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector as _, TcpConnector},
    },
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
    /// The certificate of this client, for servers that want one.
    pub identity: Option<ClientIdentity>,
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
    /// The proxies and the authorities of the machine. This machine is never reached through a proxy.
    pub network: NetworkSettings,
    /// Hosts, with the port if it is not 80, that may be spoken to over plain `http`.
    pub plain_http: Vec<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            ca: None,
            identity: None,
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(120),
            tries: 5,
            total: Duration::from_secs(300),
            network: NetworkSettings::default(),
            plain_http: Vec::new(),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientOptions({} tries in {:?})", self.tries, self.total)
    }
}

/// The way of a machine to servers. The default has no proxy and trusts the public authorities.
#[derive(Clone, Default, Debug)]
pub struct NetworkSettings {
    /// The proxies.
    pub proxies: ProxyRules,
    /// The authorities beside those compiled into pnb.
    pub trust: TrustPlaces,
}

/// Agents with the same limits and authorities, one for each proxy.
pub(crate) struct Routes {
    proxies: ProxyRules,
    direct: Agent,
    /// For plain `http` through its proxy.
    http: Option<Agent>,
    /// For `https` through its proxy.
    https: Option<Agent>,
}

impl Routes {
    /// `config` makes the configuration of an agent with a proxy.
    pub(crate) fn new(
        network: &NetworkSettings,
        given: Option<Vec<u8>>,
        identity: Option<ClientIdentity>,
        config: impl Fn(Option<Proxy>) -> Config,
    ) -> Self {
        let authorities = Authorities {
            places: network.trust.clone(),
            given,
            identity,
        };
        let agent = |proxy: Option<Proxy>| {
            let connector =
                ().chain(ForwardConnector::new())
                    .chain(ConnectProxyConnector::default())
                    .chain(TcpConnector::default())
                    .chain(TlsConnector::new(authorities.clone()));
            Agent::with_parts(config(proxy), connector, DefaultResolver::default())
        };
        let through = |scheme| {
            network
                .proxies
                .of_scheme(scheme)
                .map(|server| agent(Some(server.proxy.clone())))
        };
        Self {
            proxies: network.proxies.clone(),
            direct: agent(None),
            http: through("http"),
            https: through("https"),
        }
    }

    /// Calls `attempt` with the agent for the address.
    pub(crate) fn ask<T>(
        &self,
        uri: &Uri,
        attempt: impl FnOnce(&Agent) -> Result<T, ureq::Error>,
    ) -> Result<T, RequestFault> {
        let proxy = self.proxies.proxy_for(uri).map_err(|problem| RequestFault {
            problem,
            temporary: false,
        })?;
        let through = match uri.scheme_str() {
            Some("https") => &self.https,
            _ => &self.http,
        };
        let agent = match proxy {
            Some(_) => through.as_ref().unwrap_or(&self.direct),
            None => &self.direct,
        };
        attempt(agent).map_err(|error| RequestFault::new(&error, proxy))
    }

    /// The proxy of an address, for messages.
    pub(crate) fn proxy_name(&self, uri: &Uri) -> Option<String> {
        self.proxies.proxy_for(uri).ok().flatten().map(ToString::to_string)
    }
}

/// Why a request had no answer.
pub(crate) struct RequestFault {
    /// The reason in words.
    pub(crate) problem: String,
    /// Whether another try may have an answer.
    pub(crate) temporary: bool,
}

impl RequestFault {
    /// The meaning of an error of a request that went through `proxy`.
    pub(super) fn new(error: &ureq::Error, proxy: Option<&ProxyServer>) -> Self {
        let mut temporary = match error {
            ureq::Error::Io(e) => !is_broken_data(e),
            ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            error => tls_fault(error).is_some_and(|fault| fault.temporary),
        };
        let problem = match error {
            ureq::Error::Io(e) => visible_message(&e.to_string()),
            ureq::Error::Timeout(_) => "the server did not answer in time".to_owned(),
            ureq::Error::HostNotFound => "the host name does not resolve".to_owned(),
            ureq::Error::ConnectionFailed => "the connection failed".to_owned(),
            ureq::Error::ConnectProxyFailed(reason) => {
                // The text of ureq, `proxy server responded 407/407`, is the only place of the number.
                let status = reason.rsplit('/').next().and_then(|text| text.parse::<u16>().ok());
                temporary = status.is_none_or(super::is_temporary);
                let text = status.map_or_else(
                    || "broke off".to_owned(),
                    |code| format!("answered {}", status_text(code)),
                );
                let help = if status == Some(407) {
                    ": it wants a user name and a password in its address"
                } else {
                    ""
                };
                format!("the proxy {text} to CONNECT{help}")
            }
            other => match tls_fault(other) {
                Some(fault) => fault.to_string(),
                None => visible_message(&other.to_string()),
            },
        };
        let problem = match (proxy, error) {
            (Some(proxy), ureq::Error::ConnectProxyFailed(_)) => {
                problem.replacen("the proxy", &format!("the proxy {proxy}"), 1)
            }
            (Some(proxy), _) => format!("{problem}, through the proxy {proxy}"),
            (None, _) => problem,
        };
        Self { problem, temporary }
    }
}

/// A status with its usual name: `404 Not Found`.
pub(crate) fn status_text(code: u16) -> String {
    let name = StatusCode::from_u16(code)
        .ok()
        .and_then(|status| status.canonical_reason());
    name.map_or_else(|| code.to_string(), |name| format!("{code} {name}"))
}

/// The agents of a client.
pub(super) struct Agents(Routes);

impl Agents {
    pub(super) fn new(options: &ClientOptions) -> Result<Self, HttpError> {
        if let Some(pem) = &options.ca {
            super::Trust::default().add_pem("the given file", pem)?;
        }
        let mut network = options.network.clone();
        network.proxies.spare_loopback = true;
        Ok(Self(Routes::new(
            &network,
            options.ca.clone(),
            options.identity.clone(),
            |proxy| configuration(options, proxy),
        )))
    }

    /// Calls `attempt` with the agent for the address.
    pub(super) fn ask<T>(
        &self,
        uri: &Uri,
        attempt: impl FnOnce(&Agent) -> Result<T, ureq::Error>,
    ) -> Result<T, RequestFault> {
        self.0.ask(uri, attempt)
    }
}

fn configuration(options: &ClientOptions, proxy: Option<Proxy>) -> Config {
    Agent::config_builder()
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
