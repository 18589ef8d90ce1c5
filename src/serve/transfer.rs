//! One TFTP transfer: sends blocks, waits for their acknowledgement, retransmits.
//!
//! Blocks are counted from 1; a packet has the lower 16 bits of the number, so 0 follows 65535. Clients that accept files of more than
//! 65535 blocks expect this. `window` decides which acknowledgements lead to packets; here are the clock and the socket.

use super::{
    Stop, TftpLimits, Wake,
    agree::TftpTerms,
    dir::ServedFile,
    packet::{self, DATA_HEAD, MAX_REQUEST, TftpOptions, TftpPacket, code},
    served::printable,
    window::{AckMeaning, SendWindow, on_the_wire},
};
use std::{
    io,
    net::UdpSocket,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

/// Time without an acknowledgement after which a client is taken to have handled all that was sent before a lost block. Blocks that are sent
/// again at once would add to those, and exceed the buffers of a slow client.
const QUIET: Duration = Duration::from_millis(10);

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
    opened: &'a ServedFile,
    stop: &'a Stop,
    block: u64,
    window: SendWindow,
    /// Time without progress before a retransmission.
    timeout: Duration,
    /// The same before the first acknowledgement, where the client may not exist.
    first_timeout: Duration,
    /// Time in which the first acknowledgement must arrive.
    first: Duration,
    retries: u32,
    deadline: Instant,
    /// The OACK packet, if the request has known options.
    agreed: Option<Vec<u8>>,
    /// A DATA packet.
    buffer: Vec<u8>,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        socket: &'a UdpSocket,
        opened: &'a ServedFile,
        options: &TftpOptions,
        limits: &TftpLimits,
        stop: &'a Stop,
    ) -> Self {
        let terms = TftpTerms::of(options, opened.size, limits);
        Self {
            socket,
            opened,
            stop,
            block: terms.block,
            window: terms.start(),
            timeout: terms.timeout,
            first_timeout: terms.timeout.min(limits.timeout),
            first: limits.first,
            retries: limits.retries,
            deadline: Instant::now() + limits.grace + Duration::from_secs(opened.size / limits.slowest.max(1)),
            agreed: terms.answer,
            buffer: Vec::new(),
        }
    }

    /// Number of bytes that the client has acknowledged.
    pub(super) fn sent(&self) -> u64 {
        (self.window.acknowledged() * self.block).min(self.opened.size)
    }

    /// Sends the file; where that fails for a reason that the client cannot know, sends an error packet.
    pub(super) fn run(&mut self) -> Result<(), Broken> {
        let done = self.begin().and_then(|()| self.send_all());
        if let Err(broken) = &done
            && let Some(code) = broken.told()
        {
            let _ = self.socket.send(&packet::error(code, &broken.problem()));
        }
        done
    }

    /// Sends the OACK packet, or the first blocks, until the client acknowledges anything. A request can have a false address, so this takes
    /// a short time at most.
    fn begin(&mut self) -> Result<(), Broken> {
        let end = Instant::now() + self.first;
        let options = self.agreed.take();
        loop {
            match &options {
                Some(answer) => {
                    self.window.sent_before();
                    self.send(answer)?;
                }
                None => self.send_blocks()?,
            }
            let until = (Instant::now() + self.first_timeout).min(end);
            while let Some(number) = self.hear(until)? {
                match options {
                    Some(_) if number == 0 => {
                        self.window.answered_before();
                        return Ok(());
                    }
                    Some(_) => {}
                    None => match self.window.hear(number) {
                        AckMeaning::Whole | AckMeaning::Part => return Ok(()),
                        AckMeaning::Lost | AckMeaning::Stale => {}
                    },
                }
            }
            if options.is_none() {
                self.window.timer();
            }
            if Instant::now() >= end {
                return Err(Broken::Silent);
            }
        }
    }

    fn send_all(&mut self) -> Result<(), Broken> {
        let mut left = self.retries;
        while !self.window.is_done() {
            self.send_blocks()?;
            let timer = Instant::now() + self.timeout;
            // Set while blocks of the window are missing: they are sent when the client has answered all that is on its way.
            let mut quiet = None;
            loop {
                // Only time counts: a client may send any number of acknowledgements without progress.
                let Some(number) = self.hear(quiet.unwrap_or(timer).min(timer))? else {
                    if quiet.is_none_or(|quiet| quiet > timer) {
                        left = left.checked_sub(1).ok_or(Broken::Silent)?;
                        self.window.timer();
                    }
                    break;
                };
                let meaning = self.window.hear(number);
                if matches!(meaning, AckMeaning::Whole | AckMeaning::Part) {
                    left = self.retries;
                }
                match meaning {
                    AckMeaning::Whole => break,
                    AckMeaning::Stale if quiet.is_none() => {}
                    AckMeaning::Part | AckMeaning::Lost | AckMeaning::Stale => quiet = Some(Instant::now() + QUIET),
                }
            }
        }
        Ok(())
    }

    /// Sends the next blocks of the window.
    fn send_blocks(&mut self) -> Result<(), Broken> {
        for number in self.window.next_blocks() {
            self.send_block(number)?;
        }
        Ok(())
    }

    fn send_block(&mut self, number: u64) -> Result<(), Broken> {
        let first = (number - 1) * self.block;
        let length = self.opened.size.saturating_sub(first).min(self.block);
        let mut packet = std::mem::take(&mut self.buffer);
        packet.clear();
        packet.extend(packet::data_head(on_the_wire(number)));
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

    /// Waits for an acknowledgement; `None` when there is none until then.
    fn hear(&self, until: Instant) -> Result<Option<u16>, Broken> {
        loop {
            let wake = self.stop.readable(self.socket, Some(until.min(self.deadline)));
            match wake.map_err(Broken::Socket)? {
                Wake::Stopped => return Err(Broken::Stopped),
                _ if self.deadline <= Instant::now() => return Err(Broken::Slow),
                _ if until <= Instant::now() => return Ok(None),
                Wake::TimedOut => {}
                Wake::Ready => {
                    if let Some(number) = self.receive()? {
                        return Ok(Some(number));
                    }
                }
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
        match packet::parse_tftp_packet(&buffer[..length]) {
            Some(TftpPacket::Ack(number)) => Ok(Some(number)),
            Some(TftpPacket::Error { code, message }) => {
                let message = printable(message);
                Err(Broken::Ended { code, message })
            }
            _ => Ok(None),
        }
    }
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
        let opened = ServedFile {
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
        transfer.window = SendWindow::new(size / 512 + 1, 1, first);
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
