//! The TFTP server: receives requests, and sends each file from its own socket and thread.
//!
//! Only the mode `octet` is supported. `netascii` converts line ends, which damages boot files, and the size sent would not be known
//! before.

use super::{
    Log, Protocol, ServeError, Served, ServedDirectory, Stop, Wake,
    dir::Missing,
    packet::{self, MAX_REQUEST, Packet, TftpOptions, code},
    served::printable,
    transfer::Transfer,
};
use crate::model::{RelPath, lock};
use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, UdpSocket},
    sync::Mutex,
    thread,
    time::Duration,
};

/// Limits on the resources of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TftpLimits {
    /// Transfers at the same time; further ones are refused.
    pub transfers: usize,
    /// Time before a retransmission, where the client does not choose one.
    pub timeout: Duration,
    /// Retransmissions in a row before the transfer is given up.
    pub retries: u32,
    /// Most blocks sent without an acknowledgement; larger windows of clients are reduced to this.
    pub window: u16,
    /// Bytes per second that a client must acknowledge on average; a transfer may last [`Self::grace`] longer than that.
    pub slowest: u64,
    /// See [`Self::slowest`].
    pub grace: Duration,
}

impl Default for TftpLimits {
    /// 64 transfers, up to 5 retransmissions after 1 s each, windows of 64 blocks, 1 KiB/s and a minute.
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

/// Pause before the next request when the machine is out of descriptors, memory or threads.
const SHORT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// Running transfers: the client's address and the bytes of its request.
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
    // One byte more than the limit, so that a longer request is noticed.
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
                // An error packet must not be answered with another one, or two servers would exchange them forever.
                Ok(None) => continue,
                Err(refusal) => {
                    refusal.tell(socket, peer, log);
                    continue;
                }
            };
            let Some(slot) = TransferSlot::take(running, limits.transfers, (peer, bytes.to_vec())) else {
                continue;
            };
            if slot.over {
                let refusal = Refusal::new(&ask.shown, code::OTHER, "too many transfers, try again later");
                refusal.tell(socket, peer, log);
                continue;
            }
            let started = thread::Builder::new().spawn_scoped(scope, move || {
                let _slot = slot;
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

/// A running transfer, counted until it is dropped.
struct TransferSlot<'a> {
    running: &'a Running,
    key: (SocketAddr, Vec<u8>),
    /// Whether there are more transfers than the limit.
    over: bool,
}

impl<'a> TransferSlot<'a> {
    /// `None` when the same request is being served: the client has sent it twice.
    fn take(running: &'a Running, most: usize, key: (SocketAddr, Vec<u8>)) -> Option<Self> {
        let mut set = lock(running);
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
        lock(self.running).remove(&self.key);
    }
}

/// A request for a file.
struct Ask {
    path: RelPath,
    options: TftpOptions,
    shown: String,
}

/// A refusal: error code and message.
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
        // Where this packet is lost, the client sends its request again.
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

/// Interprets a packet; `None` for packets that are not answered.
fn understand(bytes: &[u8]) -> Result<Option<Ask>, Refusal> {
    match packet::parse(bytes) {
        Some(Packet::Read { name, mode, options }) => {
            let shown = format!("RRQ {}", printable(name));
            if !mode.eq_ignore_ascii_case(b"octet") {
                return Err(Refusal::new(&shown, code::ILLEGAL, "only octet mode is served"));
            }
            // A name is relative to the directory, with or without a leading slash.
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

/// Sends a file.
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
        Missing::Forbidden => refuse(code::ACCESS, "reading it is not permitted".to_owned()),
        Missing::Broken(error) => refuse(code::OTHER, error.to_string()),
    })?;
    let socket = listening.local_addr().and_then(|own| {
        // The port of its own identifies the transfer; a connected socket receives packets of this client only.
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
