//! The TFTP server: reads requests, and sends each file from a socket and a thread of its own.
//!
//! Only `octet` is served. `netascii` would change what is sent: no boot file survives it, and its size could not be told
//! beforehand.

use super::{
    Log, Protocol, ServeError, Served, ServedDirectory, Stop, Wake,
    dir::Missing,
    packet::{self, MAX_REQUEST, Packet, TftpOptions, code},
    served::printable,
    transfer::Transfer,
};
use crate::model::RelPath;
use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// What a client may use up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TftpLimits {
    /// Transfers at once; more are refused.
    pub transfers: usize,
    /// Time until something is sent again, where the client asks for none.
    pub timeout: Duration,
    /// How often in a row something is sent again before the client is given up.
    pub retries: u32,
    /// Blocks sent before one is acknowledged, whatever the client asks for.
    pub window: u16,
    /// Bytes a second that a client must acknowledge on the whole; a transfer may last [`Self::grace`] longer than that.
    pub slowest: u64,
    /// See [`Self::slowest`].
    pub grace: Duration,
}

impl Default for TftpLimits {
    /// 64 transfers, again after 1 s up to 5 times, windows of 64 blocks, 1 KiB/s and a minute.
    fn default() -> Self {
        Self {
            transfers: 64,
            timeout: Duration::from_secs(1),
            retries: 5,
            window: 64,
            slowest: 1 << 10,
            grace: Duration::from_secs(60),
        }
    }
}

/// How long nothing is received when the machine has run out of something.
const SHORT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// Transfers under way: who asked, with what bytes.
type Running = Mutex<BTreeSet<(SocketAddr, Vec<u8>)>>;

/// Serves `dir` on `socket` until `stop`; then ends every transfer and returns.
///
/// # Errors
///
/// [`ServeError::Wait`] when the socket cannot be waited on.
pub fn serve_tftp(
    socket: &UdpSocket,
    dir: &ServedDirectory,
    limits: &TftpLimits,
    stop: &Stop,
    log: Log<'_>,
) -> Result<(), ServeError> {
    let wait = |source| ServeError::Wait { source };
    socket.set_nonblocking(true).map_err(wait)?;
    let running = Running::default();
    let running = &running;
    // One byte more than allowed, to see that a request is too long.
    let mut buffer = [0u8; MAX_REQUEST + 1];
    thread::scope(|scope| {
        loop {
            if stop.readable(socket, None).map_err(wait)? == Wake::Stopped {
                return Ok(());
            }
            let (bytes, peer) = match socket.recv_from(&mut buffer) {
                Ok((length, peer)) => (&buffer[..length], peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => {
                    stop.pause(SHORT_OF_RESOURCES).map_err(wait)?;
                    continue;
                }
            };
            let ask = match understand(bytes) {
                Ok(Some(ask)) => ask,
                // An error must not be answered with one, or two servers would talk for ever.
                Ok(None) => continue,
                Err(refusal) => {
                    refusal.tell(socket, peer, log);
                    continue;
                }
            };
            let Some(place) = TransferSlot::take(running, limits.transfers, (peer, bytes.to_vec())) else {
                continue;
            };
            if place.over {
                let refusal = Refusal::new(&ask.shown, code::OTHER, "too many transfers, try again later");
                refusal.tell(socket, peer, log);
                continue;
            }
            let started = thread::Builder::new().spawn_scoped(scope, move || {
                let _place = place;
                if let Err(refusal) = transfer(&ask, socket, peer, dir, limits, stop, log) {
                    refusal.tell(socket, peer, log);
                }
            });
            if started.is_err() {
                stop.pause(SHORT_OF_RESOURCES).map_err(wait)?;
            }
        }
    })
}

/// A transfer's place among those that run.
struct TransferSlot<'a> {
    running: &'a Running,
    key: (SocketAddr, Vec<u8>),
    /// Whether there are more than there may be.
    over: bool,
}

impl<'a> TransferSlot<'a> {
    /// None when this very request is being served: then the client has sent it twice.
    fn take(running: &'a Running, most: usize, key: (SocketAddr, Vec<u8>)) -> Option<Self> {
        let mut set = running.lock().unwrap_or_else(PoisonError::into_inner);
        if !set.insert(key.clone()) {
            return None;
        }
        let over = set.len() > most;
        drop(set);
        Some(Self { running, key, over })
    }
}

impl Drop for TransferSlot<'_> {
    fn drop(&mut self) {
        let mut set = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        set.remove(&self.key);
    }
}

/// A request for a file.
struct Ask {
    path: RelPath,
    options: TftpOptions,
    shown: String,
}

/// What a client is refused with.
struct Refusal {
    shown: String,
    code: u16,
    message: String,
}

impl Refusal {
    fn new(shown: &str, code: u16, message: impl Into<String>) -> Self {
        Self {
            shown: shown.to_owned(),
            code,
            message: message.into(),
        }
    }

    fn tell(&self, socket: &UdpSocket, peer: SocketAddr, log: Log<'_>) {
        // A lost refusal is asked for again.
        let _ = socket.send_to(&packet::error(self.code, &self.message), peer);
        log(&Served {
            protocol: Protocol::Tftp,
            peer,
            request: self.shown.clone(),
            status: Some(self.code),
            bytes: 0,
            problem: Some(self.message.clone()),
        });
    }
}

/// Reads a request; none for packets that get no answer.
fn understand(bytes: &[u8]) -> Result<Option<Ask>, Refusal> {
    match packet::parse(bytes) {
        Some(Packet::Read { name, mode, options }) => {
            let shown = format!("RRQ {}", printable(name));
            if !mode.eq_ignore_ascii_case(b"octet") {
                return Err(Refusal::new(&shown, code::ILLEGAL, "only octet mode is served"));
            }
            // Names are below the directory, written with or without a slash before them.
            let name = name.strip_prefix(b"/").unwrap_or(name);
            match RelPath::new(name) {
                Ok(path) => Ok(Some(Ask { path, options, shown })),
                Err(_) => Err(Refusal::new(&shown, code::NOT_FOUND, "there is no such file")),
            }
        }
        Some(Packet::Write { name }) => {
            let shown = format!("WRQ {}", printable(name));
            Err(Refusal::new(&shown, code::ACCESS, "nothing can be written"))
        }
        Some(Packet::Ack(_) | Packet::Error { .. } | Packet::Other) => Ok(None),
        None => Err(Refusal::new("-", code::ILLEGAL, "not a request")),
    }
}

/// Sends a file, to its end or the client's.
fn transfer(
    ask: &Ask,
    listening: &UdpSocket,
    peer: SocketAddr,
    dir: &ServedDirectory,
    limits: &TftpLimits,
    stop: &Stop,
    log: Log<'_>,
) -> Result<(), Refusal> {
    let refuse = |code, message: String| Refusal::new(&ask.shown, code, message);
    let opened = dir.file(&ask.path).map_err(|missing| match missing {
        Missing::Absent => refuse(code::NOT_FOUND, "there is no such file".to_owned()),
        Missing::Forbidden => refuse(code::ACCESS, "it may not be read".to_owned()),
        Missing::Broken(error) => refuse(code::OTHER, error.to_string()),
    })?;
    let socket = listening.local_addr().and_then(|own| {
        // A socket of its own is what tells transfers apart; connected, it hears nobody but this client.
        let socket = UdpSocket::bind((own.ip(), 0))?;
        socket.connect(peer)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let socket = socket.map_err(|e| refuse(code::OTHER, e.to_string()))?;
    let mut transfer = Transfer::new(&socket, &opened, &ask.options, limits, stop);
    let ended = transfer.run();
    let (status, problem) = match ended {
        Ok(()) => (None, None),
        Err(broken) => (broken.told(), Some(broken.problem())),
    };
    log(&Served {
        protocol: Protocol::Tftp,
        peer,
        request: ask.shown.clone(),
        status,
        bytes: transfer.sent(),
        problem,
    });
    Ok(())
}
