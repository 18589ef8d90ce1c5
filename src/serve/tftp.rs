//! The TFTP server: receives requests, and sends each file from its own socket and thread.
//!
//! Only the mode `octet` is supported. `netascii` converts line ends, which damages boot files, and the size sent would not be known
//! before.

use super::{
    Log, Protocol, ServeError, Served, ServedDirectory, Stop, Wake,
    agree::{TftpRefusal, TftpRequest, understand_tftp},
    dir::Missing,
    packet::{MAX_REQUEST, code},
    share::{Share, Shares},
    transfer::Transfer,
};
use crate::model::lock;
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
    /// Transfers at the same time; further ones are refused. A client (an IPv4 address, an IPv6 network of 64 bits) with `n` transfers gets
    /// another one while more than `n` are free.
    pub transfers: usize,
    /// Time without progress before a retransmission, where the client does not choose one.
    pub timeout: Duration,
    /// Longest such time that a client may choose; the option of one that asks for more is ignored.
    pub longest_timeout: Duration,
    /// Time in which the first acknowledgement must arrive: a request can have a false address.
    pub first: Duration,
    /// Times without progress in a row, each with a retransmission, before the next one ends the transfer.
    pub retries: u32,
    /// Most blocks sent without an acknowledgement; larger windows of clients are reduced to this.
    pub window: u16,
    /// Bytes per second that a client must acknowledge on average; a transfer may last [`Self::grace`] longer than that.
    pub slowest: u64,
    /// See [`Self::slowest`].
    pub grace: Duration,
}

impl Default for TftpLimits {
    /// 64 transfers, 5 retransmissions after 1 s each or up to 8 s if the client asks for it, 4 s to the first acknowledgement, windows of
    /// 64 blocks, 1 KiB/s and a minute.
    fn default() -> Self {
        Self {
            transfers: 64,
            timeout: Duration::from_secs(1),
            longest_timeout: Duration::from_secs(8),
            first: Duration::from_secs(4),
            retries: 5,
            window: 64,
            slowest: 1 << 10,
            grace: Duration::from_secs(60),
        }
    }
}

/// Pause before the next request when the machine is out of descriptors, memory or threads.
const SHORT_OF_RESOURCES: Duration = Duration::from_millis(100);

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
    let running = Running {
        requests: Mutex::default(),
        shares: Shares::new(limits.transfers),
    };
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
            let ask = match understand_tftp(bytes) {
                Ok(Some(ask)) => ask,
                Ok(None) => continue,
                Err(refusal) => {
                    refusal.tell(socket, peer, log);
                    continue;
                }
            };
            let slot = match running.take(peer, bytes) {
                Ok(slot) => slot,
                Err(NoSlot::Running) => continue,
                Err(NoSlot::Full) => {
                    let refusal = TftpRefusal::new(&ask.shown, code::OTHER, "too many transfers, try again later");
                    refusal.tell(socket, peer, log);
                    continue;
                }
            };
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

/// Running transfers.
struct Running {
    /// Clients' addresses and the bytes of their requests.
    requests: Mutex<BTreeSet<(SocketAddr, Vec<u8>)>>,
    shares: Shares,
}

/// Why a request starts no transfer.
enum NoSlot {
    /// The same request is being served: the client has sent it twice.
    Running,
    /// There are too many transfers, or too many of this client.
    Full,
}

impl Running {
    fn take(&self, peer: SocketAddr, request: &[u8]) -> Result<TransferSlot<'_>, NoSlot> {
        let key = (peer, request.to_vec());
        let mut requests = lock(&self.requests);
        if requests.contains(&key) {
            return Err(NoSlot::Running);
        }
        let share = self.shares.take(peer.ip()).ok_or(NoSlot::Full)?;
        requests.insert(key.clone());
        drop(requests);
        Ok(TransferSlot {
            running: self,
            key,
            _share: share,
        })
    }
}

/// A running transfer, counted until it is dropped.
struct TransferSlot<'a> {
    running: &'a Running,
    key: (SocketAddr, Vec<u8>),
    _share: Share<'a>,
}

impl Drop for TransferSlot<'_> {
    fn drop(&mut self) {
        lock(&self.running.requests).remove(&self.key);
    }
}

impl TftpRefusal {
    fn tell(&self, socket: &UdpSocket, peer: SocketAddr, log: Log<'_>) {
        // Where this packet is lost, the client sends its request again.
        let _ = socket.send_to(&self.packet(), peer);
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

/// Sends a file.
fn transfer(
    ask: &TftpRequest,
    listening: &UdpSocket,
    peer: SocketAddr,
    dir: &ServedDirectory,
    limits: &TftpLimits,
    stop: &Stop,
    log: Log<'_>,
) -> Result<(), TftpRefusal> {
    let refuse = |code, message: String| TftpRefusal::new(&ask.shown, code, message);
    let (_, opened) = dir.asked(&ask.name).map_err(|missing| match missing {
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
