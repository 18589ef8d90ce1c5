//! Connections of gRPC: TCP, the tunnel of a proxy, TLS with the authorities of pnb's other connections.
//!
//! Source: RFC 9110, §9.3.6 (`CONNECT`); RFC 9113, §3.2 (`h2` in ALPN).

use super::{Endpoint, RemoteError, RemoteLimits, token};
use crate::{
    http::{NetworkSettings, TlsFault, Tunnel, Uri, is_loopback, is_temporary, status_text, tls_config, tls_problem},
    model::{chain, visible_message},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, Error as RustlsError, pki_types::ServerName};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::{BoxFuture, Service},
    transport::Channel,
};

/// The most bytes of a proxy's answer to `CONNECT`.
const MAX_HEAD: usize = 16 << 10;

/// A connection in both directions.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The last fault of the connection to a server, which the errors of tonic do not keep apart.
#[derive(Clone, Default, Debug)]
pub(super) struct LastFault(Arc<Mutex<Option<TlsFault>>>);

impl LastFault {
    /// The fault, unless a connection was made since.
    pub(super) fn get(&self) -> Option<TlsFault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, fault: Option<TlsFault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// Makes connections to one server.
#[derive(Clone, Debug)]
struct Dialer(Arc<Way>);

/// The way to a server.
#[derive(Debug)]
struct Way {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<(Tunnel, Option<Arc<ClientConfig>>)>,
    time: Duration,
    fault: LastFault,
}

/// A channel to an endpoint, which connects with its first request, and the place where the faults of its connections are.
///
/// # Errors
///
/// If the authorities, the certificate of this client or the proxy cannot be used.
pub(super) fn channel(
    endpoint: &Endpoint,
    network: &NetworkSettings,
    limits: &RemoteLimits,
) -> Result<(Channel, LastFault), RemoteError> {
    let address = &endpoint.address;
    let bad = |problem: String| RemoteError::Address {
        url: address.to_string(),
        problem,
    };
    let url: Uri = address
        .url()
        .parse()
        .map_err(|_| bad("it is no valid address".to_owned()))?;
    let identity = token::identity(endpoint)?;
    let untrusted = |e| RemoteError::Gone {
        server: address.to_string(),
        problem: format!("failed to {}", chain(&e)),
    };
    let tls = match address.tls() {
        true => Some(tls_config(&network.trust, identity.as_ref(), &[b"h2"]).map_err(untrusted)?),
        false => None,
    };
    let host = url.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    // Without TLS a connection is direct: proxies refuse tunnels to other ports than 443, and do not pass on HTTP/2.
    let proxy = match address.tls() && !is_loopback(host) {
        true => network
            .proxies
            .proxy_for(&url)
            .map_err(bad)?
            .map(|server| server.tunnel()),
        false => None,
    };
    let proxy = match proxy {
        Some(tunnel) if tunnel.tls => {
            let config = tls_config(&network.trust, None, &[]).map_err(untrusted)?;
            Some((tunnel, Some(config)))
        }
        tunnel => tunnel.map(|tunnel| (tunnel, None)),
    };
    let fault = LastFault::default();
    let dialer = Dialer(Arc::new(Way {
        host: host.to_owned(),
        port: url.port_u16().unwrap_or(443),
        tls,
        proxy,
        time: limits.connect,
        fault: fault.clone(),
    }));
    // The connection is the dialer's, TLS too; requests name the address with its own scheme.
    let invalid = |e: tonic::transport::Error| bad(visible_message(&chain(&e)));
    let plain = format!("http://{}", address.authority());
    let made = tonic::transport::Endpoint::from_shared(plain)
        .and_then(|made| made.user_agent(concat!("pnb/", env!("CARGO_PKG_VERSION"))))
        .map_err(invalid)?
        .origin(url);
    Ok((made.connect_with_connector_lazy(dialer), fault))
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Noted>;
    type Error = TlsFault;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let way = Arc::clone(&self.0);
        Box::pin(async move {
            let deadline = Instant::now() + way.time;
            let dialed = timeout_at(deadline, way.dial(deadline)).await;
            let dialed = dialed.unwrap_or_else(|_| Err(temporary(format!("no connection was made in {:?}", way.time))));
            way.fault.set(dialed.as_ref().err().cloned());
            let fault = way.fault.clone();
            dialed.map(|inner| {
                TokioIo::new(Noted {
                    inner,
                    fault,
                    failed: None,
                })
            })
        })
    }
}

impl Way {
    async fn dial(&self, deadline: Instant) -> Result<Box<dyn Wire>, TlsFault> {
        let through = |fault: TlsFault| match &self.proxy {
            Some((proxy, _)) => TlsFault {
                text: format!("{}, through the proxy {}", fault.text, proxy.shown),
                ..fault
            },
            None => fault,
        };
        let wire: Box<dyn Wire> = match &self.proxy {
            Some((proxy, tls)) => {
                let wire = tcp(&proxy.host, proxy.port, deadline).await.map_err(through)?;
                let mut wire: Box<dyn Wire> = match tls {
                    Some(config) => secure(config, &proxy.host, Box::new(wire)).await.map_err(through)?.0,
                    None => Box::new(wire),
                };
                self.connect(proxy, &mut wire).await?;
                wire
            }
            None => Box::new(tcp(&self.host, self.port, deadline).await?),
        };
        let Some(config) = &self.tls else { return Ok(wire) };
        let (wire, inside) = secure(config, &self.host, wire).await.map_err(through)?;
        match inside.as_deref() {
            Some(b"h2") => Ok(wire),
            _ => Err(lasting(
                "the server does not offer HTTP/2 at this port, which gRPC needs".to_owned(),
            )),
        }
    }

    /// Opens the tunnel to the server.
    async fn connect(&self, proxy: &Tunnel, wire: &mut Box<dyn Wire>) -> Result<(), TlsFault> {
        let shown = &proxy.shown;
        let broke = |e: &dyn std::fmt::Display| temporary(format!("the proxy {shown} broke off CONNECT: {e}"));
        let target = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &proxy.authorization {
            head.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        head.push_str("\r\n");
        wire.write_all(head.as_bytes()).await.map_err(|e| broke(&e))?;
        wire.flush().await.map_err(|e| broke(&e))?;
        // Byte by byte: what follows the empty line is the server's.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_HEAD {
                return Err(lasting(format!(
                    "the proxy {shown} answers CONNECT with more than {MAX_HEAD} bytes"
                )));
            }
            answer.push(wire.read_u8().await.map_err(|e| broke(&e))?);
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut fields);
        let code = parsed.parse(&answer).ok().and(parsed.code);
        match code {
            Some(200..=299) => Ok(()),
            Some(code) => Err(TlsFault {
                text: format!(
                    "the proxy {shown} answered {} to CONNECT{}",
                    status_text(code),
                    if code == 407 {
                        ": it wants a user name and a password in its address"
                    } else {
                        ""
                    }
                ),
                temporary: is_temporary(code),
            }),
            None => Err(lasting(format!("the proxy {shown} does not speak HTTP/1.1"))),
        }
    }
}

/// Connects to the addresses of a host one after the other; each gets an equal part of the time that is left.
async fn tcp(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, TlsFault> {
    let found = lookup_host((host, port)).await;
    let addresses: Vec<_> = found
        .map_err(|e| temporary(format!("the host name {} does not resolve: {e}", visible_message(host))))?
        .collect();
    let mut last = "the host name has no address".to_owned();
    for (at, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let parts = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match timeout_at(Instant::now() + left / parts, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small requests wait for no others.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address} does not answer"),
        }
    }
    Err(temporary(last))
}

/// TLS on a connection, and the protocol inside that was agreed upon.
async fn secure(
    config: &Arc<ClientConfig>,
    host: &str,
    wire: Box<dyn Wire>,
) -> Result<(Box<dyn Wire>, Option<Vec<u8>>), TlsFault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| lasting(format!("{host:?} is no name that a certificate can have")))?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, wire).await;
    let stream = stream.map_err(|e| of_tls(&e).unwrap_or_else(|| temporary(format!("TLS was broken off: {e}"))))?;
    let inside = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((Box::new(stream), inside))
}

/// The fault of TLS in an error of a connection, if it is one.
fn of_tls(error: &io::Error) -> Option<TlsFault> {
    error.get_ref()?.downcast_ref::<RustlsError>().map(tls_problem)
}

fn temporary(text: String) -> TlsFault {
    TlsFault { text, temporary: true }
}

fn lasting(text: String) -> TlsFault {
    TlsFault { text, temporary: false }
}

/// A connection that notes a fault of TLS: a server refuses this client's certificate after the handshake (RFC 8446, §4.4.2.4), and the
/// errors of HTTP/2 have lost the alert.
pub(super) struct Noted {
    inner: Box<dyn Wire>,
    fault: LastFault,
    /// The error of a write, until the connection was read once more.
    failed: Option<io::Error>,
}

impl Noted {
    /// Passes on the end of a write, or of a flush. After a failed one the connection is read once: a server that closes it has often said
    /// why before, and nobody would read it any more. A connection that is closed can be read at once.
    fn after<T>(&mut self, cx: &mut Context<'_>, done: Option<io::Result<T>>) -> Poll<io::Result<T>> {
        match done {
            Some(Ok(value)) => return Poll::Ready(Ok(value)),
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer));
        if let Some(fault) = read.as_ref().err().and_then(of_tls) {
            self.fault.set(Some(fault));
        }
        let failed = self.failed.take();
        Poll::Ready(Err(failed.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl AsyncRead for Noted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
        if let Some(fault) = read.as_ref().err().and_then(of_tls) {
            self.fault.set(Some(fault));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Noted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = match self.failed {
            None => Some(ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))),
            Some(_) => None,
        };
        self.after(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = match self.failed {
            None => Some(ready!(Pin::new(&mut self.inner).poll_flush(cx))),
            Some(_) => None,
        };
        self.after(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
