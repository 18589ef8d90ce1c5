//! TFTP.

use crate::{client::*, link::scattered};
use pnb::serve::*;
use std::{
    fs, thread,
    time::{Duration, Instant},
};

#[test]
fn tftp_sends_files_in_blocks_as_agreed() {
    let outer = directory();
    let served = outer.path().join("served");
    fs::write(served.join("even"), pattern(1024)).expect("written");
    let log = tftp_in(&served, &TftpLimits::default(), 8, |server| {
        let get = |block: usize, window: u16, request: &[u8]| {
            let mut client = Tftp::new();
            (client.block, client.window) = (block, window);
            client.get(server, request)
        };
        let file = |content: Vec<u8>, agreed: &str| (Got::File(content), agreed.to_owned());
        assert_eq!(get(512, 1, &octet("amd64/kernel", &[])), file(pattern(200_000), ""));
        assert_eq!(get(512, 1, &octet("/link", &[])), file(pattern(200_000), ""));
        assert_eq!(get(512, 1, &octet("even", &[])), file(pattern(1024), ""));
        assert_eq!(get(512, 1, &octet("empty", &[])), file(Vec::new(), ""));
        let request = Tftp::request(1, "boot.ipxe", "OCTET", &[("tsize", "0"), ("multicast", "")]);
        assert_eq!(get(512, 1, &request), file(b"#!ipxe\nshell\n".to_vec(), "tsize 13"));
        let options = [("blksize", "8"), ("timeout", "2")];
        assert_eq!(
            get(8, 1, &octet("even", &options)),
            file(pattern(1024), "blksize 8 timeout 2")
        );
        let options = [("BLKSIZE", "1428"), ("tsize", "0"), ("windowsize", "7")];
        assert_eq!(
            get(1428, 7, &octet("amd64/kernel", &options)),
            file(pattern(200_000), "blksize 1428 tsize 200000 windowsize 7")
        );
        let options = [("blksize", "65464"), ("windowsize", "65535")];
        assert_eq!(
            get(65_464, 64, &octet("amd64/kernel", &options)),
            file(pattern(200_000), "blksize 65464 windowsize 64")
        );
    });
    assert_eq!(log.len(), 8);
    assert!(log.iter().all(|l| l.problem.is_none() && l.status.is_none()), "{log:?}");
    let line = log[0].to_string();
    assert!(line.ends_with(" tftp RRQ amd64/kernel 200000 bytes"), "{line}");
}

#[test]
fn tftp_sends_again_what_was_lost() {
    let outer = directory();
    let served = outer.path().join("served");
    let limits = TftpLimits {
        timeout: Duration::from_millis(60),
        ..TftpLimits::default()
    };
    let log = tftp_in(&served, &limits, 2, |server| {
        for window in [1, 8] {
            let mut client = Tftp::new();
            client.lose = |n| n % 9 == 1 || n % 23 == 5;
            (client.block, client.window) = (4000, window);
            let options = [("blksize", "4000"), ("windowsize", if window == 1 { "1" } else { "8" })];
            let (got, _) = client.get(server, &octet("amd64/kernel", &options));
            assert_eq!(got, Got::File(pattern(200_000)), "window {window}");
        }
    });
    assert!(log.iter().all(|l| l.problem.is_none()), "{log:?}");
}

/// One block is lost, once, and the client answers each block after it with the last one that it has.
#[test]
fn one_lost_block_ends_no_transfer() {
    let outer = tempfile::tempdir().expect("scratch");
    let content = pattern(1 << 20);
    fs::write(outer.path().join("file"), &content).expect("written");
    let log = tftp_in(outer.path(), &TftpLimits::default(), 4 * 3 * 3, |server| {
        thread::scope(|scope| {
            for window in [4u16, 8, 16, 64] {
                for slow in [0, 500, 2000] {
                    let content = &content;
                    scope.spawn(move || {
                        // The packet with the options is the first. The lost block begins, is within, or ends a window.
                        let places: [fn(u64) -> bool; 3] = [|n| n == 2 + 64, |n| n == 3 + 192, |n| n == 1 + 256];
                        for lose in places {
                            let mut client = Tftp::new();
                            (client.window, client.lose, client.slow) = (window, lose, Duration::from_micros(slow));
                            let size = window.to_string();
                            let (got, _) = client.get(server, &octet("file", &[("windowsize", &size)]));
                            assert!(got == Got::File(content.clone()), "window {window}, {slow} us");
                            let least = (1 << 20) / 512 + 2;
                            let most = least + 3 * u64::from(window) + 1;
                            assert!(
                                client.seen <= most,
                                "window {window}, {slow} us: {} packets",
                                client.seen
                            );
                        }
                    });
                }
            }
        });
    });
    assert!(log.iter().all(|l| l.problem.is_none()), "{log:?}");
}

#[test]
fn losses_do_not_multiply_the_traffic() {
    let outer = tempfile::tempdir().expect("scratch");
    let content = pattern(40 << 20);
    fs::write(outer.path().join("file"), &content).expect("written");
    let limits = TftpLimits {
        timeout: Duration::from_millis(500),
        ..TftpLimits::default()
    };
    let log = tftp_in(outer.path(), &limits, 3, |server| {
        thread::scope(|scope| {
            for window in [4u16, 16, 64] {
                let content = &content;
                scope.spawn(move || {
                    let mut client = Tftp::new();
                    // One of 500.
                    client.lose = |n| scattered(n) % 500 == 7;
                    (client.window, client.block) = (window, 1428);
                    client.slow = Duration::from_micros(300);
                    let size = window.to_string();
                    let options = [("windowsize", size.as_str()), ("blksize", "1428")];
                    let (got, _) = client.get(server, &octet("file", &options));
                    assert!(got == Got::File(content.clone()), "window {window}");
                    let (packets, least) = (client.seen, (40 << 20) / 1428);
                    assert!(packets < least * 3 / 2, "window {window}: {packets} for {least} blocks");
                });
            }
        });
    });
    assert!(log.iter().all(|l| l.problem.is_none()), "{log:?}");
}

/// Acknowledgements without progress, as many as the client likes, neither end a transfer nor bring more packets.
#[test]
fn stale_acknowledgements_are_not_counted_as_silence() {
    let outer = directory();
    let limits = TftpLimits {
        timeout: Duration::from_secs(2),
        ..TftpLimits::default()
    };
    let log = tftp_in(&outer.path().join("served"), &limits, 1, |server| {
        let mut client = Tftp::new();
        let request = octet("amd64/kernel", &[("windowsize", "8")]);
        client.socket.send_to(&request, server).expect("sent");
        let (_, from) = client.receive().expect("options");
        client.socket.send_to(&[0, 4, 0, 0], from).expect("sent");
        for _ in 0..8 {
            client.receive().expect("a block");
        }
        for _ in 0..200 {
            client.socket.send_to(&[0, 4, 0, 0], from).expect("sent");
        }
        thread::sleep(Duration::from_millis(300));
        // The window was sent once more, and perhaps again after the timer. The client then receives all of the file.
        let mut packets = 0;
        client.socket.set_nonblocking(true).expect("set");
        while client.socket.recv_from(&mut [0; 600]).is_ok() {
            packets += 1;
        }
        client.socket.set_nonblocking(false).expect("set");
        assert!([8, 16].contains(&packets), "{packets} packets");
        client.socket.send_to(&[0, 4, 0, 8], from).expect("sent");
        let (next, _) = client.receive().expect("goes on");
        assert_eq!(&next[..4], [0, 3, 0, 9]);
        client.socket.send_to(b"\0\x05\0\0enough\0", from).expect("sent");
        client
    });
    let problems: Vec<_> = log.iter().filter_map(|l| l.problem.as_deref()).collect();
    assert_eq!(problems, ["the client ended it with error 0 \"enough\""]);
}

/// Requests whose sender does not exist: each address has few transfers, and those end soon.
#[test]
fn requests_without_a_client_hold_no_transfers() {
    let outer = directory();
    let limits = TftpLimits {
        transfers: 8,
        first: Duration::from_secs(2),
        ..TftpLimits::default()
    };
    let log = tftp_in(&outer.path().join("served"), &limits, 8 + 1 + 4 + 1, |server| {
        // Sockets that stay open, so that no error tells the server.
        let mut flood: Vec<Tftp> = (0..8)
            .map(|_| {
                let silent = Tftp::at("127.0.0.2");
                let request = octet("amd64/kernel", &[("timeout", "255")]);
                silent.socket.send_to(&request, server).expect("sent");
                silent
            })
            .collect();
        let first = flood.iter_mut().map(|silent| silent.receive().expect("an answer").0[1]);
        let first: Vec<u8> = first.collect();
        // An option is not confirmed when its value is not kept: the data begins at once.
        assert_eq!(first, [3, 3, 3, 3, 5, 5, 5, 5]);
        // The other half is free for others.
        let mut honest = Tftp::at("127.0.0.3");
        assert_eq!(honest.get(server, &octet("empty", &[])).0, Got::File(Vec::new()));
        // With a timeout that is kept, the time to the first acknowledgement is the same.
        let rest: Vec<Tftp> = (4..8)
            .map(|n| {
                let silent = Tftp::at(&format!("127.0.0.{n}"));
                let request = octet("amd64/kernel", &[("timeout", "8")]);
                silent.socket.send_to(&request, server).expect("sent");
                silent
            })
            .collect();
        let begin = Instant::now();
        loop {
            let mut honest = Tftp::at("127.0.0.3");
            match honest.get(server, &octet("empty", &[])).0 {
                Got::File(_) => break,
                Got::Error(..) => assert!(begin.elapsed() < PATIENCE, "no transfer has ended"),
            }
            thread::sleep(Duration::from_millis(50));
        }
        // All have become silent by then. A socket that is closed before would refuse the server's packets.
        thread::sleep(limits.first * 2);
        (flood, rest)
    });
    let silent = log
        .iter()
        .filter(|l| l.problem.as_deref() == Some("the client has become silent"));
    assert!(silent.count() >= 4, "{log:?}");
}

#[test]
fn tftp_gives_up_a_client_that_is_silent_and_hears_one_that_gives_up() {
    let outer = directory();
    let limits = TftpLimits {
        timeout: Duration::from_millis(500),
        first: Duration::from_secs(2),
        transfers: 1,
        ..TftpLimits::default()
    };
    let log = tftp_in(&outer.path().join("served"), &limits, 4, |server| {
        let mut silent = Tftp::new();
        // The same request twice is one transfer.
        for _ in 0..2 {
            silent
                .socket
                .send_to(&octet("amd64/kernel", &[]), server)
                .expect("sent");
        }
        let (first, from) = silent.receive().expect("data");
        assert_eq!(first.len(), 516);
        let (got, _) = Tftp::new().get(server, &octet("amd64/kernel", &[]));
        assert_eq!(got, Got::Error(0, "too many transfers, try again later".to_owned()));
        for _ in 0..3 {
            assert_eq!(silent.receive().expect("again"), (first.clone(), from));
        }
        thread::sleep(Duration::from_millis(2500));

        let mut size_only = Tftp::new();
        size_only
            .socket
            .send_to(&octet("amd64/kernel", &[("tsize", "0")]), server)
            .expect("sent");
        let (_, from) = size_only.receive().expect("options");
        size_only.socket.send_to(b"\0\x05\0\0enough\0", from).expect("sent");
        thread::sleep(Duration::from_millis(100));
        let (got, _) = Tftp::new().get(server, &octet("empty", &[]));
        assert_eq!(got, Got::File(Vec::new()), "there is room again");
    });
    let problems: Vec<_> = log.iter().filter_map(|l| l.problem.as_deref()).collect();
    assert_eq!(
        problems,
        [
            "too many transfers, try again later",
            "the client has become silent",
            "the client ended it with error 0 \"enough\""
        ]
    );
}

/// Fetches a little more than 65536 blocks of 512 bytes, each different from its neighbours.
fn counts_on_after_the_last_block_number(window: u16, options: &[(&str, &str)]) {
    let outer = tempfile::tempdir().expect("scratch");
    let size = (32 << 20) + 1300;
    let content = pattern(size);
    fs::write(outer.path().join("large"), &content).expect("written");
    tftp_in(outer.path(), &TftpLimits::default(), 1, |server| {
        let mut client = Tftp::new();
        client.window = window;
        let (got, _) = client.get(server, &octet("large", options));
        assert!(got == Got::File(content), "window {window}: another file came");
    });
}

#[test]
fn tftp_counts_on_after_the_last_block_number() {
    counts_on_after_the_last_block_number(16, &[("windowsize", "16")]);
}

#[test]
#[ignore = "long: 65540 times there and back; cargo test -- --include-ignored"]
fn tftp_counts_on_after_the_last_block_number_a_block_at_a_time() {
    counts_on_after_the_last_block_number(1, &[]);
}

#[test]
fn tftp_refuses_what_is_not_reading_a_file_of_the_directory() {
    let outer = directory();
    let log = tftp_in(&outer.path().join("served"), &TftpLimits::default(), 21, |server| {
        let refused = |packet: &[u8]| match Tftp::new().get(server, packet).0 {
            Got::Error(code, message) => format!("{code} {message}"),
            Got::File(_) => panic!("it was served"),
        };
        for name in [
            "../secret",
            "/../secret",
            "amd64/../../secret",
            "out",
            "absolute",
            "//etc/passwd",
            "amd64",
            "fifo",
            "",
            ".",
        ] {
            assert_eq!(refused(&octet(name, &[])), "1 there is no such file", "{name:?}");
        }
        assert_eq!(
            refused(&Tftp::request(2, "new", "octet", &[])),
            "2 nothing can be written"
        );
        assert!(!outer.path().join("served/new").exists());
        assert_eq!(
            refused(&Tftp::request(1, "empty", "netascii", &[])),
            "4 only octet mode is served"
        );
        assert_eq!(
            refused(&Tftp::request(1, "empty", "mail", &[])),
            "4 only octet mode is served"
        );
        for packet in [
            &b""[..],
            b"\0",
            b"\0\x01",
            b"\0\x01empty",
            b"\0\x01empty\0octet",
            b"\0\x09x\0octet\0",
            &[1; 600],
        ] {
            assert_eq!(refused(packet), "4 not a request", "{}", packet.escape_ascii());
        }
        // What is part of a transfer, or an error, gets no answer: the next answer is to the next request.
        let mut client = Tftp::new();
        for packet in [&b"\0\x05\0\0x\0"[..], b"\0\x04\0\0", b"\0\x03\0\x01data", b"\0\x06\0"] {
            client.socket.send_to(packet, server).expect("sent");
        }
        assert_eq!(client.get(server, &octet("empty", &[])).0, Got::File(Vec::new()));
    });
    assert_eq!(log.len(), 21);
}
