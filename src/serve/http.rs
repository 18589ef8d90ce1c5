//! The HTTP/1.1 server: one thread per connection, and a time limit on every wait.

use super::{Log, Protocol, ServeError, Served, ServedDirectory, Stop, Wake, connection::Connection};
use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// Limits on the resources of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// Connections at the same time; further ones are answered with 503.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Time from the end of a response, or the start of the connection, to the end of the next request's head.
    pub head: Duration,
    /// Longest time in which a client reads none of a response.
    pub stall: Duration,
    /// Bytes per second that a client must read on average; a response may last [`Self::stall`] longer than that.
    pub slowest: u64,
}

impl Default for HttpLimits {
    /// 64 connections, heads of 16 KiB in 20 s, 30 s without progress, 1 KiB/s.
    fn default() -> Self {
        Self {
            connections: 64,
            head_bytes: 16 << 10,
            head: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            slowest: 1 << 10,
        }
    }
}

/// Pause before the next connection when the machine is out of descriptors, memory or threads.
const SHORT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// Serves `dir` on `listener` until `stop`; then ends every connection and returns.
///
/// # Errors
///
/// [`ServeError::Wait`] when the listener cannot be waited on.
pub fn serve_http(
    listener: &TcpListener,
    dir: &ServedDirectory,
    limits: &HttpLimits,
    stop: &Stop,
    log: Log<'_>,
) -> Result<(), ServeError> {
    let wait = |source| ServeError::Wait { source };
    // accept(2) must not block on a connection that is closed before it is accepted.
    listener.set_nonblocking(true).map_err(wait)?;
    let open = AtomicUsize::new(0);
    thread::scope(|scope| {
        loop {
            if stop.readable(listener, None).map_err(wait)? == Wake::Stopped {
                return Ok(());
            }
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => {
                    stop.pause(SHORT_OF_RESOURCES).map_err(wait)?;
                    continue;
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            // Otherwise the end of a small answer waits for the client's delayed acknowledgement.
            let _ = stream.set_nodelay(true);
            let slot = ConnectionSlot::take(&open);
            if slot.number > limits.connections {
                busy(&stream, peer, log);
                continue;
            }
            let started = thread::Builder::new().spawn_scoped(scope, move || {
                let _slot = slot;
                let connection = Connection {
                    stream: &stream,
                    peer,
                    dir,
                    limits,
                    stop,
                    log,
                    buffer: Vec::new(),
                };
                connection.run();
            });
            if started.is_err() {
                stop.pause(SHORT_OF_RESOURCES).map_err(wait)?;
            }
        }
    })
}

/// An open connection, counted until it is dropped.
struct ConnectionSlot<'a> {
    open: &'a AtomicUsize,
    number: usize,
}

impl<'a> ConnectionSlot<'a> {
    fn take(open: &'a AtomicUsize) -> Self {
        let number = open.fetch_add(1, Ordering::SeqCst) + 1;
        Self { open, number }
    }
}

impl Drop for ConnectionSlot<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Answers 503, without waiting for the client.
fn busy(mut stream: &TcpStream, peer: SocketAddr, log: Log<'_>) {
    let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";
    let _ = stream.write(head.as_bytes());
    log(&Served {
        protocol: Protocol::Http,
        peer,
        request: "-".to_owned(),
        status: Some(503),
        bytes: 0,
        problem: Some("too many connections".to_owned()),
    });
}
