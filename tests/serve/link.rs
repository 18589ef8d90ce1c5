//! A link that loses and delays packets: the tests' stand-in for a bad network, which needs no privilege and no module of the kernel.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// A number without a pattern, for losses at random that are the same in every run.
pub(crate) fn scattered(n: u64) -> u64 {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40
}

/// The properties of a link, and what has happened on it.
pub(crate) struct Link {
    /// Of a thousand packets, this number is lost, in each direction; also one at the beginning of each use of the link.
    pub(crate) lost_of_1000: u64,
    /// Time that a packet takes.
    pub(crate) delay: Duration,
    /// Packets so far.
    pub(crate) packets: AtomicU64,
    /// Lost ones of them.
    pub(crate) losses: AtomicU64,
    /// Number of a packet that is lost in any case.
    doomed: AtomicU64,
    ended: AtomicBool,
}

impl Link {
    pub(crate) fn new(lost_of_1000: u64, delay: Duration) -> Self {
        Self {
            lost_of_1000,
            delay,
            packets: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            doomed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Runs `client` with an address at which it finds the TFTP server `server`, behind this link.
    pub(crate) fn to(&self, server: SocketAddr, client: impl FnOnce(SocketAddr)) {
        struct AtEnd<'a>(&'a AtomicBool);
        impl Drop for AtEnd<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        self.ended.store(false, Ordering::SeqCst);
        let doomed = self.packets.load(Ordering::SeqCst) + 20;
        self.doomed.store(doomed, Ordering::SeqCst);
        let front = bound();
        let address = front.local_addr().expect("bound");
        thread::scope(|scope| {
            scope.spawn(|| self.accept(&front, server));
            let _at_end = AtEnd(&self.ended);
            client(address);
        });
    }

    /// Receives requests, each of which begins a transfer with ports of its own.
    fn accept(&self, front: &UdpSocket, server: SocketAddr) {
        thread::scope(|scope| {
            while let Some((request, client)) = self.receive(front) {
                if self.loses() {
                    continue;
                }
                scope.spawn(move || {
                    let (near, far) = (&bound(), &bound());
                    near.connect(client).expect("connects");
                    thread::sleep(self.delay);
                    far.send_to(&request, server).expect("sent");
                    // The server answers from a port that it has opened for the transfer.
                    let Some((first, port)) = self.receive(far) else { return };
                    far.connect(port).expect("connects");
                    thread::scope(|both| {
                        both.spawn(|| self.carry(far, near, Some(first)));
                        both.spawn(|| self.carry(near, far, None));
                    });
                });
            }
        });
    }

    /// Carries packets in one direction, in order, each [`Self::delay`] later.
    fn carry(&self, from: &UdpSocket, to: &UdpSocket, first: Option<Vec<u8>>) {
        let (queue, under_way) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::scope(|scope| {
            scope.spawn(move || {
                for (due, packet) in under_way {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    // A closed port is no error of a link.
                    let _ = to.send(&packet);
                }
            });
            let mut next = first;
            while let Some(packet) = next.take().or_else(|| Some(self.receive(from)?.0)) {
                if !self.loses() {
                    queue.send((Instant::now() + self.delay, packet)).expect("carried");
                }
            }
            drop(queue);
        });
    }

    /// The next packet; `None` at the end.
    fn receive(&self, from: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 70_000];
        while !self.ended.load(Ordering::SeqCst) {
            match from.recv_from(&mut buffer) {
                Ok((length, sender)) => {
                    buffer.truncate(length);
                    return Some((buffer, sender));
                }
                // A closed port is no error of a link.
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused),
                    "{error}"
                ),
            }
        }
        None
    }

    fn loses(&self) -> bool {
        let number = self.packets.fetch_add(1, Ordering::SeqCst);
        let lost = scattered(number) % 1000 < self.lost_of_1000 || number == self.doomed.load(Ordering::SeqCst);
        self.losses.fetch_add(u64::from(lost), Ordering::SeqCst);
        lost
    }
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("timeout");
    socket
}
