//! One TFTP transfer: sends blocks, waits for their acknowledgement, retransmits.
//!
//! Blocks are counted from 1; a packet has the lower 16 bits of the number, so 0 follows 65535. Clients that accept files of more than
//! 65535 blocks expect this.

use super::{
    Stop, TftpLimits, Wake,
    dir::Opened,
    packet::{self, DATA_HEAD, DEFAULT_BLOCK, MAX_REQUEST, Packet, TftpOptions, code},
    served::printable,
};
use std::{
    io,
    net::UdpSocket,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

/// Why a transfer ends early.
#[derive(Debug)]
pub(super) enum Broken {
    /// The server stops.
    Stopped,
    /// The client sends no acknowledgements.
    Silent,
    /// The client is too slow on average.
    Slow,
    /// The client has ended the transfer, for example because it only asked for the size.
    Ended { code: u16, message: String },
    /// An error of the socket.
    Socket(io::Error),
    /// An error of the file.
    File(io::Error),
}

impl Broken {
    /// The reason in words, for the log.
    pub(super) fn problem(&self) -> String {
        match self {
            Broken::Stopped => "the server was stopped".to_owned(),
            Broken::Silent => "the client has become silent".to_owned(),
            Broken::Slow => "the client was too slow".to_owned(),
            Broken::Ended { code, message } => format!("the client ended it with error {code} \"{message}\""),
            Broken::Socket(error) | Broken::File(error) => error.to_string(),
        }
    }

    /// The error code that the client is sent.
    pub(super) fn told(&self) -> Option<u16> {
        match self {
            Broken::Stopped | Broken::Slow | Broken::File(_) => Some(code::OTHER),
            Broken::Silent | Broken::Ended { .. } | Broken::Socket(_) => None,
        }
    }
}

/// A file on its way to a client.
pub(super) struct Transfer<'a> {
    socket: &'a UdpSocket,
    opened: &'a Opened,
    stop: &'a Stop,
    block: u64,
    window: u64,
    timeout: Duration,
    retries: u32,
    deadline: Instant,
    /// Number of blocks; the last one is shorter than the others, and may be empty.
    blocks: u64,
    /// Number of blocks that the client has acknowledged.
    acknowledged: u64,
    /// The OACK packet, if the request has known options.
    agreed: Option<Vec<u8>>,
    /// A DATA packet.
    buffer: Vec<u8>,
}

/// The result of a wait for an acknowledgement.
enum Heard {
    /// This number of further blocks has arrived.
    Progress(u64),
    /// The client repeats its last acknowledgement: the first block of a window was lost.
    Again,
    /// No acknowledgement arrived in time.
    Silence,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        socket: &'a UdpSocket,
        opened: &'a Opened,
        options: &TftpOptions,
        limits: &TftpLimits,
        stop: &'a Stop,
    ) -> Self {
        let block = u64::from(options.block.unwrap_or(DEFAULT_BLOCK));
        let window = options.window.map_or(1, |n| n.min(limits.window.max(1)));
        let mut agreed = Vec::new();
        agreed.extend(options.block.map(|n| ("blksize", u64::from(n))));
        agreed.extend(options.timeout.map(|n| ("timeout", u64::from(n))));
        agreed.extend(options.size.then_some(("tsize", opened.size)));
        agreed.extend(options.window.map(|_| ("windowsize", u64::from(window))));
        Self {
            socket,
            opened,
            stop,
            block,
            window: u64::from(window),
            timeout: options
                .timeout
                .map_or(limits.timeout, |s| Duration::from_secs(s.into())),
            retries: limits.retries,
            deadline: Instant::now() + limits.grace + Duration::from_secs(opened.size / limits.slowest.max(1)),
            blocks: opened.size / block + 1,
            acknowledged: 0,
            agreed: (!agreed.is_empty()).then(|| packet::option_ack(&agreed)),
            buffer: Vec::new(),
        }
    }

    /// Number of bytes that the client has acknowledged.
    pub(super) fn sent(&self) -> u64 {
        (self.acknowledged * self.block).min(self.opened.size)
    }

    /// Sends the file; where that fails for a reason that the client cannot know, sends an error packet.
    pub(super) fn run(&mut self) -> Result<(), Broken> {
        let done = self.agree().and_then(|()| self.send_all());
        if let Err(broken) = &done
            && let Some(code) = broken.told()
        {
            let _ = self.socket.send(&packet::error(code, &broken.problem()));
        }
        done
    }

    /// Sends the OACK packet, and waits until the client accepts by acknowledging block 0.
    fn agree(&mut self) -> Result<(), Broken> {
        let Some(answer) = self.agreed.take() else {
            return Ok(());
        };
        let mut left = self.retries;
        loop {
            self.send(&answer)?;
            match self.hear(0, 0)? {
                Heard::Progress(_) => return Ok(()),
                Heard::Again | Heard::Silence => left = left.checked_sub(1).ok_or(Broken::Silent)?,
            }
        }
    }

    fn send_all(&mut self) -> Result<(), Broken> {
        let mut left = self.retries;
        while self.acknowledged < self.blocks {
            let last = (self.acknowledged + self.window).min(self.blocks);
            for number in self.acknowledged + 1..=last {
                self.send_block(number)?;
            }
            match self.hear(1, last - self.acknowledged)? {
                Heard::Progress(count) => {
                    self.acknowledged += count;
                    left = self.retries;
                }
                Heard::Again | Heard::Silence => left = left.checked_sub(1).ok_or(Broken::Silent)?,
            }
        }
        Ok(())
    }

    fn send_block(&mut self, number: u64) -> Result<(), Broken> {
        let first = (number - 1) * self.block;
        let length = self.opened.size.saturating_sub(first).min(self.block);
        let mut packet = std::mem::take(&mut self.buffer);
        packet.clear();
        packet.extend(packet::data_head(wire_number(number)));
        packet.resize(
            DATA_HEAD + usize::try_from(length).map_err(|e| Broken::File(io::Error::other(e)))?,
            0,
        );
        let read = self.opened.file.read_exact_at(&mut packet[DATA_HEAD..], first);
        let sent = match read {
            Ok(()) => self.send(&packet),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Broken::File(io::Error::other("the file became shorter")))
            }
            Err(error) => Err(Broken::File(error)),
        };
        self.buffer = packet;
        sent
    }

    fn send(&self, packet: &[u8]) -> Result<(), Broken> {
        match self.socket.send(packet) {
            Ok(_) => Ok(()),
            // The packet counts as lost, and is retransmitted.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            Err(error) => Err(Broken::Socket(error)),
        }
    }

    /// Waits for the acknowledgement of `least` to `most` of the blocks after those the client has.
    ///
    /// A client that misses a block of a window may repeat its acknowledgement for every block after it. All packets that have arrived by
    /// then count as one answer: a retransmission for each of them would double the traffic with every window.
    fn hear(&self, least: u64, most: u64) -> Result<Heard, Broken> {
        let until = (Instant::now() + self.timeout).min(self.deadline);
        let mut heard = Heard::Silence;
        // Most packets that a client sends for a window and its retransmission, with room to spare.
        let mut patience = 4 * self.window + 64;
        loop {
            let wait = match heard {
                Heard::Silence => until,
                _ => Instant::now(),
            };
            match self.stop.readable(self.socket, Some(wait)).map_err(Broken::Socket)? {
                Wake::Stopped => return Err(Broken::Stopped),
                Wake::Ready => {}
                Wake::TimedOut if self.deadline <= Instant::now() => return Err(Broken::Slow),
                Wake::TimedOut => return Ok(heard),
            }
            if let Some(number) = self.receive()? {
                let count = u64::from(number.wrapping_sub(wire_number(self.acknowledged)));
                heard = match heard {
                    Heard::Progress(before) if count <= before || count > most => Heard::Progress(before),
                    _ if (least..=most).contains(&count) => Heard::Progress(count),
                    // Without windows this is a delayed duplicate, and retransmitting for it would double every further block
                    // (RFC 1123, section 4.2.3.1).
                    Heard::Silence if count == 0 && self.window > 1 => Heard::Again,
                    other => other,
                };
            }
            patience -= 1;
            if patience == 0 || until <= Instant::now() {
                return Ok(heard);
            }
        }
    }

    /// Receives a packet; `None` when it is not an acknowledgement.
    fn receive(&self) -> Result<Option<u16>, Broken> {
        let mut buffer = [0u8; MAX_REQUEST];
        let length = match self.socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(Broken::Socket(error)),
        };
        match packet::parse(&buffer[..length]) {
            Some(Packet::Ack(number)) => Ok(Some(number)),
            Some(Packet::Error { code, message }) => {
                let message = printable(message);
                Err(Broken::Ended { code, message })
            }
            _ => Ok(None),
        }
    }
}

/// The number of a block in packets.
fn wire_number(block: u64) -> u16 {
    (block & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, thread};

    #[test]
    fn block_numbers_go_on_at_zero_one_block_at_a_time() {
        let first = 65_530u64;
        let size = 65_540 * 512 + 7;
        let file = tempfile::tempfile().expect("a file");
        file.set_len(size).expect("sparse");
        for block in first..65_541 {
            let last = [u8::try_from(block % 251).expect("small")];
            file.write_all_at(&last, block * 512).expect("written");
        }
        let opened = Opened {
            file: File::try_clone(&file).expect("copied"),
            size,
        };
        let server = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
        server.connect(client.local_addr().expect("bound")).expect("connects");
        client.connect(server.local_addr().expect("bound")).expect("connects");
        server.set_nonblocking(true).expect("set");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let stop = Stop::new().expect("a socket pair");
        let limits = TftpLimits::default();
        let mut transfer = Transfer::new(&server, &opened, &TftpOptions::default(), &limits, &stop);
        // The client has acknowledged the blocks before; they are sent in the same way.
        transfer.acknowledged = first;
        let numbers = thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut numbers = Vec::new();
                loop {
                    let mut packet = [0; 600];
                    let length = client.recv(&mut packet).expect("data");
                    numbers.push((
                        u16::from_be_bytes([packet[2], packet[3]]),
                        length - DATA_HEAD,
                        packet[4],
                    ));
                    client.send(&[0, 4, packet[2], packet[3]]).expect("sent");
                    if length < 516 {
                        return numbers;
                    }
                }
            });
            transfer.run().expect("sent");
            client.join().expect("no panic")
        });
        let want: Vec<_> = (first..=65_540)
            .map(|block| {
                let length = if block == 65_540 { 7 } else { 512 };
                ((block + 1) as u16, length, (block % 251) as u8)
            })
            .collect();
        assert_eq!(numbers, want);
        assert_eq!((numbers[4].0, numbers[5].0, numbers[6].0), (65_535, 0, 1));
        assert_eq!(transfer.sent(), size);
    }
}
