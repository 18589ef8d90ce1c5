//! TFTP packets; no I/O.
//!
//! ```text
//! RRQ, WRQ  opcode u16 (1, 2)  name 00  mode 00  (option 00  value 00)*
//! DATA      opcode u16 (3)     block u16  data
//! ACK       opcode u16 (4)     block u16
//! ERROR     opcode u16 (5)     code u16   message 00
//! OACK      opcode u16 (6)     (option 00  value 00)*
//! ```
//!
//! Integers are big endian. Sources: RFC 1350, RFC 2347 (options), RFC 2348 (blksize), RFC 2349 (timeout, tsize), RFC 7440
//! (windowsize).

/// Longest request (RFC 2347).
pub(super) const MAX_REQUEST: usize = 512;
/// Bytes before the data of a DATA packet.
pub(super) const DATA_HEAD: usize = 4;
/// Bytes of a block without the option `blksize`.
pub(super) const DEFAULT_BLOCK: u16 = 512;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Error codes (RFC 1350, RFC 2347).
pub(super) mod code {
    pub(in super::super) const OTHER: u16 = 0;
    pub(in super::super) const NOT_FOUND: u16 = 1;
    pub(in super::super) const ACCESS: u16 = 2;
    pub(in super::super) const ILLEGAL: u16 = 4;
}

/// Options of a read request. Unknown options and values out of bounds are ignored (RFC 2347).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TftpOptions {
    /// Bytes of a block, 8 to 65464.
    pub block: Option<u16>,
    /// Seconds before a retransmission, 1 to 255.
    pub timeout: Option<u8>,
    /// Whether the client asks for the file's size.
    pub size: bool,
    /// Blocks sent without an acknowledgement, 1 to 65535.
    pub window: Option<u16>,
}

/// A packet from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TftpPacket<'a> {
    /// RRQ: the client asks for a file.
    Read {
        /// The name, as the client wrote it.
        name: &'a [u8],
        /// The mode: `octet` in any case, or one that is not served.
        mode: &'a [u8],
        /// The options that have a meaning.
        options: TftpOptions,
    },
    /// WRQ: the client offers a file.
    Write {
        /// The name, as the client wrote it.
        name: &'a [u8],
    },
    /// ACK: the client has all blocks up to this one.
    Ack(u16),
    /// ERROR: the client gives up.
    Error {
        /// Its code (RFC 1350, RFC 2347).
        code: u16,
        /// Its message, without the NUL.
        message: &'a [u8],
    },
    /// DATA or OACK, which a client does not send to a server.
    Other,
}

fn word(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, tail) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*head), tail))
}

/// A string, without its NUL.
fn string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|b| *b == 0)?;
    let (text, tail) = (&bytes[..end], &bytes[end + 1..]);
    *bytes = tail;
    Some(text)
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Parses a packet; `None` when it is malformed.
pub fn parse_tftp_packet(bytes: &[u8]) -> Option<TftpPacket<'_>> {
    let (opcode, mut rest) = word(bytes)?;
    Some(match opcode {
        RRQ | WRQ if bytes.len() > MAX_REQUEST => return None,
        RRQ | WRQ => {
            let name = string(&mut rest)?;
            let mode = string(&mut rest)?;
            if opcode == WRQ {
                return Some(TftpPacket::Write { name });
            }
            let options = options(rest);
            TftpPacket::Read { name, mode, options }
        }
        ACK => TftpPacket::Ack(word(rest)?.0),
        ERROR => {
            let (code, mut rest) = word(rest)?;
            // Some clients omit the last NUL.
            let message = string(&mut rest).unwrap_or(rest);
            TftpPacket::Error { code, message }
        }
        DATA | OACK => TftpPacket::Other,
        _ => return None,
    })
}

/// Parses options up to the first malformed one; of several options with one name, the first counts.
fn options(mut rest: &[u8]) -> TftpOptions {
    let mut out = TftpOptions::default();
    while let (Some(name), Some(value)) = (string(&mut rest), string(&mut rest)) {
        match name.to_ascii_lowercase().as_slice() {
            b"blksize" if out.block.is_none() => out.block = number(value).filter(|n| (8..=65_464).contains(n)),
            b"timeout" if out.timeout.is_none() => out.timeout = number(value).filter(|n| *n >= 1),
            b"windowsize" if out.window.is_none() => out.window = number(value).filter(|n| *n >= 1),
            b"tsize" => out.size |= number::<u64>(value).is_some(),
            _ => {}
        }
    }
    out
}

/// The head of a DATA packet.
pub(super) fn data_head(block: u16) -> [u8; DATA_HEAD] {
    let ([a, b], [c, d]) = (DATA.to_be_bytes(), block.to_be_bytes());
    [a, b, c, d]
}

/// An ERROR packet.
pub(super) fn error(code: u16, message: &str) -> Vec<u8> {
    let mut out = ERROR.to_be_bytes().to_vec();
    out.extend(code.to_be_bytes());
    out.extend(message.bytes().filter(|b| *b != 0));
    out.push(0);
    out
}

/// An OACK packet.
pub(super) fn option_ack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut out = OACK.to_be_bytes().to_vec();
    for (name, value) in options {
        out.extend(format!("{name}\0{value}\0").bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> TftpOptions {
        let bytes = [b"\0\x01name\0octet\0", text].concat();
        match parse_tftp_packet(&bytes) {
            Some(TftpPacket::Read { name, mode, options }) => {
                assert_eq!((name, mode), (&b"name"[..], &b"octet"[..]));
                options
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_are_taken_within_their_bounds() {
        assert_eq!(read(b""), TftpOptions::default());
        let all = TftpOptions {
            block: Some(1468),
            timeout: Some(3),
            size: true,
            window: Some(16),
        };
        assert_eq!(
            read(b"BlkSize\x001468\0TIMEOUT\x003\0tsize\x000\0windowsize\x0016\0multicast\0\0"),
            all
        );
        for bad in [
            &b"blksize\x007\0"[..],
            b"blksize\x0065465\0",
            b"blksize\x0099999999999999999999\0",
            b"blksize\0+512\0",
            b"timeout\x000\0",
            b"timeout\x00256\0",
            b"windowsize\x000\0",
            b"windowsize\x0065536\0",
            b"tsize\0\0",
            b"tsize\0x\0",
            b"blksize\x00512",
            b"blksize\0",
        ] {
            assert_eq!(read(bad), TftpOptions::default(), "{}", bad.escape_ascii());
        }
        assert_eq!(read(b"blksize\x00512\0blksize\x001024\0").block, Some(512));
    }

    #[test]
    fn packets_that_are_cut_short_are_none() {
        let whole = b"\0\x01name\0octet\0";
        for cut in 0..whole.len() {
            assert_eq!(parse_tftp_packet(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(parse_tftp_packet(&[&whole[..], &[b'x'; MAX_REQUEST]].concat()), None);
        assert_eq!(parse_tftp_packet(b"\0\x04\0"), None);
        assert_eq!(parse_tftp_packet(b"\0\x04\x12\x34"), Some(TftpPacket::Ack(0x1234)));
        assert_eq!(
            parse_tftp_packet(b"\0\x05\0\x08no"),
            Some(TftpPacket::Error {
                code: 8,
                message: b"no"
            })
        );
    }

    proptest! {
        #[test]
        fn nothing_that_comes_in_does_harm(opcode in 0u8..8, bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse_tftp_packet(&bytes);
            let _ = parse_tftp_packet(&[&[0, opcode][..], &bytes].concat());
            let _ = parse_tftp_packet(&[&b"\0\x01name\0octet\0"[..], &bytes].concat());
        }
    }
}
