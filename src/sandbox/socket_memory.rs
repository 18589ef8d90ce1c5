//! Memory in the queues of a stage's AF_UNIX sockets, as the kernel reports it for the sockets of a network namespace.
//!
//! ```text
//! request     nlmsghdr (16)   family u8, protocol u8, pad u16, states u32, inode u32, show u32, cookie u64
//! answers     nlmsghdr (16)   family u8, type u8, state u8, pad u8, inode u32, cookie u64, attributes
//! attribute   length u16, type u16, value, padding to 4 bytes
//! ```
//!
//! A message belongs to the socket that sent it, until it is read. What a closed socket has sent is reported nowhere, so a receiver whose
//! peer is gone counts as full.
//! Source: netlink(7), sock_diag(7), the kernel's `include/uapi/linux/{unix_diag,sock_diag}.h` and `net/unix/diag.c`.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// Memory of a socket without messages: the structures of socket, inode and file, rounded up.
const EMPTY: u64 = 4 << 10;
/// Largest memory of the messages that one socket has sent: `net.core.wmem_default`, which a message may exceed once.
const SENT: u64 = 2 * 212_992;
/// Most messages in the queue of a datagram socket, `net.unix.max_dgram_qlen` of a new network namespace, and the one that is being sent.
const DATAGRAMS: u64 = 11;

const HEADER: usize = 16;
/// Bytes of an answer before its attributes.
const ANSWER: usize = HEADER + 16;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `UDIAG_SHOW_PEER`, `UDIAG_SHOW_RQLEN`, `UDIAG_SHOW_MEMINFO`.
const SHOW: u32 = 0x04 | 0x10 | 0x20;
/// `UNIX_DIAG_PEER`, `UNIX_DIAG_RQLEN`, `UNIX_DIAG_MEMINFO`.
const PEER: u16 = 2;
const QUEUES: u16 = 4;
const MEMINFO: u16 = 5;
/// Index of `SK_MEMINFO_WMEM_ALLOC` in the numbers of `UNIX_DIAG_MEMINFO`.
const SENT_INDEX: usize = 2;

/// Asks for the sockets of the network namespace in which it was made.
pub(super) struct SocketMemory(OwnedFd);

impl SocketMemory {
    /// `None` where the kernel has no such socket.
    pub(super) fn new() -> Option<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let made = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkSockDiag,
        );
        made.ok().map(Self)
    }

    /// Bytes of memory of all AF_UNIX sockets; 0 where the kernel does not tell.
    pub(super) fn sum(&self) -> u64 {
        let fd = self.0.as_raw_fd();
        if send(fd, &request(), MsgFlags::empty()).is_err() {
            return 0;
        }
        let mut buffer = vec![0u8; 64 << 10];
        let mut sum = 0;
        while let Ok(n) = recv(fd, &mut buffer, MsgFlags::empty()) {
            let (part, last) = sum_of(&buffer[..n]);
            sum += part;
            if last {
                break;
            }
        }
        sum
    }
}

fn request() -> Vec<u8> {
    let mut message = Vec::new();
    message.extend((HEADER as u32 + 24).to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(SHOW.to_ne_bytes());
    message.extend([0; 8]);
    message
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk::<4>()
        .map(|word| u32::from_ne_bytes(*word))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk::<2>()
        .map(|half| u16::from_ne_bytes(*half))
}

/// The memory of the sockets in one piece of the answer, and whether it is the last piece.
fn sum_of(mut piece: &[u8]) -> (u64, bool) {
    let mut sum = 0;
    while let (Some(length), Some(kind)) = (word(piece, 0), half(piece, 4)) {
        let Some(message) = piece.get(..length as usize).filter(|m| m.len() >= HEADER) else {
            return (sum, true);
        };
        if kind != BY_FAMILY {
            // NLMSG_DONE or NLMSG_ERROR.
            return (sum, true);
        }
        sum += memory_of(message);
        piece = piece.get(message.len().next_multiple_of(4)..).unwrap_or(&[]);
    }
    // An empty piece would never be followed by a last one.
    (sum, sum == 0)
}

/// The memory of one socket.
fn memory_of(message: &[u8]) -> u64 {
    let datagram = message.get(HEADER + 1) == Some(&(libc::SOCK_DGRAM as u8));
    let (mut peer, mut waiting, mut sent) = (0, 0, 0);
    let mut attributes = message.get(ANSWER..).unwrap_or(&[]);
    while let (Some(length), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        let Some(value) = attributes.get(4..usize::from(length)) else {
            break;
        };
        match kind {
            PEER => peer = word(value, 0).unwrap_or(0),
            QUEUES => waiting = word(value, 0).unwrap_or(0),
            MEMINFO => sent = word(value, SENT_INDEX * 4).unwrap_or(0),
            _ => {}
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..).unwrap_or(&[]);
    }
    let orphaned = match (waiting > 0 && peer == 0, datagram) {
        (false, _) => 0,
        (true, false) => SENT,
        (true, true) => SENT * DATAGRAMS,
    };
    EMPTY + u64::from(sent) + orphaned
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        os::unix::net::{UnixDatagram, UnixStream},
    };

    #[test]
    fn messages_count_also_when_their_sender_is_gone() {
        let sockets = SocketMemory::new().expect("the kernel tells about sockets");
        let grows = |make: &dyn Fn() -> Box<dyn std::any::Any>, least: u64| {
            let before = sockets.sum();
            let kept = make();
            let with = sockets.sum();
            drop(kept);
            // Other tests of this program have sockets too.
            assert!(with >= before + least / 2, "{before} {with} {least}");
        };
        let text = vec![b'x'; 100_000];
        grows(
            &|| {
                let (mut a, b) = UnixStream::pair().expect("a pair");
                a.write_all(&text).expect("sent");
                Box::new((a, b))
            },
            100_000,
        );
        grows(
            &|| {
                let (mut a, b) = UnixStream::pair().expect("a pair");
                a.write_all(&text).expect("sent");
                Box::new(b)
            },
            SENT,
        );
        grows(
            &|| {
                let (a, b) = UnixDatagram::pair().expect("a pair");
                a.send(&text).expect("sent");
                Box::new(b)
            },
            SENT * DATAGRAMS,
        );
    }

    #[test]
    fn malformed_answers_end() {
        for bytes in [&[][..], &[1], &[0; 40], &[0xff; 40], &[16, 0, 0, 0, 20, 0, 0, 0]] {
            let (_, last) = sum_of(bytes);
            assert!(last, "{bytes:?}");
        }
    }
}
