//! Targets of requests to `pnb serve`: HTTP, and transfers over TFTP.

use pnb::serve::{
    AckMeaning, AskedName, ServedDirectory, TftpLimits, TftpPacket, TftpTerms, parse_http_request, parse_tftp_packet,
    understand_tftp,
};
use std::io::{self, Read};

/// Content of the file that is beside the served directory.
const OUTSIDE: &[u8] = b"outside";

/// A served directory with links of every kind, below the first of the two.
struct Served(tempfile::TempDir, ServedDirectory);

thread_local! {
    static SERVED: Served = served().expect("scratch");
}

fn served() -> io::Result<Served> {
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("root");
    std::fs::create_dir_all(root.join("amd64"))?;
    std::fs::write(scratch.path().join("outside"), OUTSIDE)?;
    std::fs::write(root.join("kernel"), b"kernel")?;
    std::fs::write(root.join("amd64/a b"), b"in a directory")?;
    let outside = scratch.path().join("outside");
    let links: [(&str, &std::path::Path); 6] = [
        ("link", "kernel".as_ref()),
        ("tree", "amd64".as_ref()),
        ("amd64/up", "../kernel".as_ref()),
        ("out", "../outside".as_ref()),
        ("absolute", &outside),
        ("loop", "loop".as_ref()),
    ];
    for (name, to) in links {
        std::os::unix::fs::symlink(to, root.join(name))?;
    }
    let directory = ServedDirectory::open(&root).map_err(io::Error::other)?;
    Ok(Served(scratch, directory))
}

/// A name leads to a file of the directory, or to none. Returns the size of the file.
fn resolve(name: &AskedName) -> Option<u64> {
    assert!(!name.candidates().is_empty());
    for path in name.candidates() {
        assert!(
            path.components()
                .all(|c| !matches!(c, b"" | b"." | b"..") && !c.contains(&0))
        );
    }
    SERVED.with(|Served(_scratch, directory)| {
        let (path, found) = directory.asked(name).ok()?;
        let mut content = Vec::new();
        (&found.file).read_to_end(&mut content).expect("readable");
        assert!([&b"kernel"[..], b"in a directory"].contains(&&content[..]), "{path}");
        assert_eq!(found.size, content.len() as u64);
        Some(found.size)
    })
}

/// Requests that follow each other in one connection.
pub(crate) fn http(data: &[u8]) {
    let mut rest = data;
    for _ in 0..16 {
        let request = match parse_http_request(rest) {
            Ok(Some((request, length))) => {
                assert!(0 < length && length <= rest.len());
                // However the head is divided into packets, the answer is the same.
                for cut in [1, length / 3, length / 2, length - 2, length - 1] {
                    let early = parse_http_request(&rest[..cut]);
                    assert!(matches!(early, Ok(None)), "{early:?} after {cut} of {length} bytes");
                }
                rest = &rest[length..];
                request
            }
            Ok(None) => return,
            Err(status) => {
                assert!(matches!(status, 400 | 431 | 505), "{status}");
                return;
            }
        };
        let shown = &request.shown;
        assert!(shown.len() <= 2000 && !shown.chars().any(char::is_control), "{shown:?}");
        let size = match &request.name {
            Ok(name) => resolve(name),
            Err(status) => {
                assert!(matches!(status, 400 | 404), "{status}");
                None
            }
        };
        for size in [0, 1, 7, u64::MAX].into_iter().chain(size) {
            if let Some((first, length)) = request.range.and_then(|range| range.within(size)) {
                assert!(
                    0 < length && length <= size && first <= size - length,
                    "{:?} of {size}",
                    request.range
                );
            }
        }
    }
}

/// A transfer: `size u32, request, event*`, where a request is `length u16, bytes` and an event is 0 (the time for an acknowledgement is
/// over), 1 (the client is quiet), or another byte and a packet of the client, in the form of a request. Returns whether the client has
/// acknowledged the whole file.
pub(crate) fn tftp_transfer(data: &[u8]) -> bool {
    let mut rest = data;
    let Some(size) = rest.split_off(..4) else { return false };
    let size = u32::from_be_bytes(size.try_into().expect("four bytes"));
    let Some(request) = framed(&mut rest) else { return false };
    let request = match understand_tftp(request) {
        Ok(Some(request)) => request,
        Ok(None) => return false,
        Err(refusal) => {
            let told = refusal.packet();
            assert!(told.len() <= 516, "{told:?}");
            assert!(matches!(parse_tftp_packet(&told), Some(TftpPacket::Error { code, .. }) if code == refusal.code));
            return false;
        }
    };
    assert!(!request.shown.chars().any(char::is_control), "{:?}", request.shown);
    resolve(&request.name);
    let limits = TftpLimits::default();
    let terms = TftpTerms::of(&request.options, size.into(), &limits);
    check_terms(&terms, size.into(), &limits);

    let most = u64::from(terms.window);
    let mut window = terms.start();
    // Blocks sent in all and the furthest one; packets and timers that can have led to blocks; answers to one and the same block.
    let (mut sent, mut furthest, mut causes, mut repetitions) = (0, 0, 1, 0);
    let mut begun = terms.answer.is_none();
    if !begun {
        window.sent_before();
    }
    let mut send = begun;
    while !window.is_done() {
        if std::mem::take(&mut send) {
            let blocks = window.next_blocks();
            let (first, last) = (*blocks.start(), *blocks.end());
            assert!(
                window.acknowledged() < first && first <= furthest + 1,
                "{blocks:?} of {window:?}"
            );
            assert!(
                last <= terms.blocks && last <= window.acknowledged() + most,
                "{blocks:?} of {window:?}"
            );
            sent += (last + 1).saturating_sub(first);
            furthest = furthest.max(last);
            assert!(
                sent <= most * causes,
                "{sent} blocks for {causes} packets and timers, in windows of {most}"
            );
        }
        let Some(event) = rest.split_off(..1) else { return false };
        match event {
            [0] if begun => {
                window.timer();
                (causes, repetitions, send) = (causes + 1, 0, true);
            }
            [0] => window.sent_before(),
            [1] => send = begun,
            _ => {
                let Some(packet) = framed(&mut rest) else { return false };
                let number = match parse_tftp_packet(packet) {
                    Some(TftpPacket::Ack(number)) => number,
                    Some(TftpPacket::Error { .. }) => return false,
                    _ => continue,
                };
                if !begun {
                    if number == 0 {
                        window.answered_before();
                        (begun, send) = (true, true);
                    }
                    continue;
                }
                let before = window.acknowledged();
                let meaning = window.hear(number);
                let now = window.acknowledged();
                assert!(before <= now && now <= furthest, "{number}: {window:?}");
                assert_eq!(
                    now > before,
                    matches!(meaning, AckMeaning::Whole | AckMeaning::Part),
                    "{window:?}"
                );
                assert!(
                    now == before || now & 0xffff == u64::from(number),
                    "{number}: {window:?}"
                );
                match meaning {
                    AckMeaning::Stale => continue,
                    AckMeaning::Lost => repetitions += 1,
                    AckMeaning::Whole | AckMeaning::Part => repetitions = 0,
                }
                causes += 1;
                assert!(
                    repetitions <= 1,
                    "one block is repeated {repetitions} times without a timer"
                );
                // A server waits until the client is quiet before it repeats blocks.
                send = meaning == AckMeaning::Whole;
            }
        }
    }
    assert_eq!(window.acknowledged(), terms.blocks);
    true
}

/// A packet with its length before it.
fn framed<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = rest.split_off(..2)?;
    rest.split_off(..usize::from(u16::from_be_bytes(length.try_into().ok()?)))
}

/// The terms are within the limits of the RFCs and of the server, and the client is told those that are not the default.
fn check_terms(terms: &TftpTerms, size: u64, limits: &TftpLimits) {
    assert!((8..=65_464).contains(&terms.block), "{terms:?}");
    assert!((1..=limits.window).contains(&terms.window), "{terms:?}");
    assert!(
        terms.timeout <= limits.longest_timeout && !terms.timeout.is_zero(),
        "{terms:?}"
    );
    assert!(
        (terms.blocks - 1) * terms.block <= size && size < terms.blocks * terms.block,
        "{terms:?}"
    );
    let answer = terms.answer.as_deref().unwrap_or(b"\0\x06");
    assert!(answer.len() <= 512 && answer.starts_with(b"\0\x06"), "{answer:?}");
    let words: Vec<&[u8]> = answer[2..].split(|b| *b == 0).collect();
    let told = |name: &str| {
        let at = words.iter().position(|word| *word == name.as_bytes())?;
        Some(
            std::str::from_utf8(words[at + 1])
                .expect("digits")
                .parse::<u64>()
                .expect("a number"),
        )
    };
    assert_eq!(told("blksize").unwrap_or(512), terms.block, "{answer:?}");
    assert_eq!(told("windowsize").unwrap_or(1), u64::from(terms.window), "{answer:?}");
    assert_eq!(
        told("timeout").unwrap_or(limits.timeout.as_secs()),
        terms.timeout.as_secs(),
        "{answer:?}"
    );
    assert!(told("tsize").is_none_or(|told| told == size), "{answer:?}");
}
