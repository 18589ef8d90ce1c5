//! The HTTP/1.1 server: one thread per connection, and a time limit on every wait.

use super::{
    Log, Protocol, ServeError, Served, ServedDirectory, Stop, Wake,
    connection::{Connection, TOO_MANY},
    share::Shares,
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

/// Limits on the resources of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// Connections at the same time; further ones are answered with 503. A client (an IPv4 address, an IPv6 network of 64 bits) with `n`
    /// connections gets another one while more than `n` are free.
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
    let open = Shares::new(limits.connections);
    // Refused connections that are being closed.
    let refused = Shares::new(limits.connections);
    let (open, refused) = (&open, &refused);
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
            // A refused client has a place too, for as long as it takes to read the answer.
            let slot = match open.take(peer.ip()) {
                Some(slot) => Ok(slot),
                None => match refused.take(peer.ip()) {
                    Some(slot) => Err(slot),
                    None => {
                        log(&turned_away(peer));
                        continue;
                    }
                },
            };
            let started = thread::Builder::new().spawn_scoped(scope, move || {
                let connection = Connection {
                    stream: &stream,
                    peer,
                    dir,
                    limits,
                    stop,
                    log,
                    buffer: Vec::new(),
                };
                match &slot {
                    Ok(_) => connection.run(),
                    Err(_) => connection.busy(),
                }
            });
            if started.is_err() {
                stop.pause(SHORT_OF_RESOURCES).map_err(wait)?;
            }
        }
    })
}

/// Log entry of a client that gets no answer.
fn turned_away(peer: SocketAddr) -> Served {
    Served {
        protocol: Protocol::Http,
        peer,
        request: "-".to_owned(),
        status: None,
        bytes: 0,
        problem: Some(TOO_MANY.to_owned()),
    }
}
