//! Plain `http` through a proxy: the request goes to the proxy with the whole address in its first line.
//!
//! ureq opens a tunnel with `CONNECT` for such a request too, which proxies allow to port 443 only (Squid's default).
//!
//! Source: RFC 9112, §3.2.2 (absolute form); RFC 9110, §11.7.2 (`Proxy-Authorization`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    fmt,
    io::{Read, Write},
    sync::Arc,
};
use ureq::{
    Agent, Proxy,
    config::Config,
    http::Uri,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
    },
};

/// Connects to the proxy of the configuration for addresses of `http`.
pub(super) struct ForwardConnector {
    /// The configuration of the connection to the proxy itself, which has none.
    direct: Config,
}

impl ForwardConnector {
    pub(super) fn new() -> Self {
        Self {
            direct: Agent::config_builder().proxy(None).build(),
        }
    }
}

impl fmt::Debug for ForwardConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForwardConnector")
    }
}

impl<In: Transport> Connector<In> for ForwardConnector {
    type Out = Either<In, ForwardTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        if let Some(transport) = chained {
            return Ok(Some(Either::A(transport)));
        }
        let Some(proxy) = details.config.proxy().filter(|_| !details.needs_tls()) else {
            return Ok(None);
        };
        let uri = proxy.uri();
        let to_proxy = ConnectionDetails {
            uri,
            addrs: details.resolver.resolve(uri, details.config, details.timeout)?,
            config: &self.direct,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: Arc::clone(&details.current_time),
            run_connector: Arc::clone(&details.run_connector),
            register_shutdown: Arc::clone(&details.register_shutdown),
        };
        let transport = (details.run_connector)(&to_proxy)?;
        let mut stream = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        stream.set_timeout(details.timeout);
        Ok(Some(Either::B(ForwardTransport {
            buffers: LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size()),
            stream,
            head: Some(Rewriting::new(details.uri, proxy)),
        })))
    }
}

/// The change of the first line of a request.
struct Rewriting {
    /// `http://host:port`.
    origin: String,
    /// The lines that follow the first one.
    fields: String,
}

impl Rewriting {
    fn new(uri: &Uri, proxy: &Proxy) -> Self {
        let authority = uri.authority().map_or("", |a| a.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        let mut fields = String::new();
        if proxy.username().is_some() || proxy.password().is_some() {
            let (user, password) = (
                proxy.username().unwrap_or_default(),
                proxy.password().unwrap_or_default(),
            );
            let credentials = STANDARD.encode(format!("{user}:{password}"));
            fields = format!("Proxy-Authorization: Basic {credentials}\r\n");
        }
        Self {
            origin: format!("http://{host}"),
            fields,
        }
    }

    /// The head of the request with the whole address; `None` if it has no first line.
    fn apply(&self, head: &[u8]) -> Option<Vec<u8>> {
        let method = head.iter().position(|b| *b == b' ')? + 1;
        let line = method + head[method..].iter().position(|b| *b == b'\n')? + 1;
        let parts = [
            &head[..method],
            self.origin.as_bytes(),
            &head[method..line],
            self.fields.as_bytes(),
            &head[line..],
        ];
        Some(parts.concat())
    }
}

/// A connection to a proxy for one request. It is not used again, because the start of the next request could not be told.
pub(super) struct ForwardTransport {
    buffers: LazyBuffers,
    stream: TransportAdapter,
    head: Option<Rewriting>,
}

impl fmt::Debug for ForwardTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForwardTransport")
    }
}

impl Transport for ForwardTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        match self.head.take() {
            Some(rewriting) => {
                let Some(head) = rewriting.apply(output) else {
                    return Err(ureq::Error::ConnectionFailed);
                };
                self.stream.write_all(&head)?;
            }
            None => self.stream.write_all(output)?,
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}
