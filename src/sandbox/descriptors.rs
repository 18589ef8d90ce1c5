//! File descriptors over a Unix socket (`SCM_RIGHTS` of unix(7)): a count, then messages of up to [`BATCH`] descriptors each.

use super::{sys, wire};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

/// Most descriptors in one message; the kernel's limit is 253 (`SCM_MAX_FD`).
const BATCH: usize = 128;

/// Sends descriptors, in batches, after their number.
pub(super) fn send_descriptors(socket: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    wire::send_value(&mut &*socket, &descriptors.len())?;
    for batch in descriptors.chunks(BATCH) {
        let raw: Vec<_> = batch.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &[IoSlice::new(b"d")],
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
    }
    Ok(())
}

/// Receives the descriptors of one [`send_descriptors`]: none or `expected`, any other number is an error.
pub(super) fn receive_descriptors(socket: &UnixStream, expected: usize) -> io::Result<Vec<OwnedFd>> {
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let count: usize = wire::receive_value(&mut &*socket)?.ok_or_else(gone)?;
    if count != expected && count != 0 {
        let problem = format!("{count} descriptors were announced instead of {expected}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut out = Vec::new();
    while out.len() < count {
        let mut byte = [0u8];
        let mut space = nix::cmsg_space!([RawFd; BATCH]);
        let mut into = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut into, Some(&mut space), flags)?;
        if message.bytes == 0 {
            return Err(gone());
        }
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                out.extend(raw.into_iter().map(sys::own_received));
            }
        }
    }
    Ok(out)
}
