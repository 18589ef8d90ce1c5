//! Keyrings: the OpenPGP keys that may sign an archive, and the parts of a keyring that are no usable key.
//!
//! A keyring is a file of several keys, binary or in any number of armored blocks. A key that cannot be read must not take the others with
//! it, so the packets are split here by their headers ([RFC 9580 §4.2](https://www.rfc-editor.org/rfc/rfc9580.html#section-4.2)), and the
//! crate `pgp` reads one key at a time:
//!
//! ```text
//! public key packet (type 6)   begins a key
//! user ids, signatures, …      belong to it, up to the next packet of type 5 or 6
//! ```
//!
//! Behind a part that is damaged, reading goes on at the next bytes that begin a key which can be read.

use super::{MetadataError, signed::fingerprint};
use pgp::{
    armor::{BlockType, Dearmor},
    composed::{Deserializable, SignedPublicKey},
};
use std::io::Read;

/// A larger keyring is refused, bytes; all keys that Debian ever used have about 130 kB.
const MAX_KEYRING: usize = 4 << 20;
/// Most places behind damaged packets that are tried as the beginning of a key.
const MAX_TRIALS: usize = 1000;
/// Most damaged parts that are listed.
const MAX_FAULTS: usize = 20;
/// Type of the packet of a secret key.
const SECRET_KEY: u8 = 5;
/// Type of the packet of a public key.
const PUBLIC_KEY: u8 = 6;
/// Types of packets that a key may contain after the first: signature, subkeys, marker, trust, user id, user attribute, padding.
const PARTS: [u8; 8] = [2, 7, 10, 12, 13, 14, 17, 21];

/// The keys that may sign an archive.
#[derive(Clone, Debug)]
pub struct Keyring {
    pub(super) keys: Vec<SignedPublicKey>,
    faults: Vec<String>,
}

impl Keyring {
    /// Reads a keyring, binary or armored; `file` names it in errors.
    ///
    /// # Errors
    /// An oversized keyring, or one without a key that can be read; each unusable part is named with its position.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, MetadataError> {
        let bad = |problem: String| MetadataError::Keyring {
            file: file.to_owned(),
            problem,
        };
        if bytes.len() > MAX_KEYRING {
            return Err(bad(format!("{} bytes, more than 4 MiB", bytes.len())));
        }
        let mut ring = Self {
            keys: Vec::new(),
            faults: Vec::new(),
        };
        match armored_blocks(bytes) {
            None => ring.read_packets(bytes, ""),
            Some(blocks) => {
                for (block, number) in blocks.into_iter().zip(1usize..) {
                    let place = format!(" of armored block {number}");
                    match block {
                        Ok((BlockType::PublicKey, packets)) => ring.read_packets(&packets, &place),
                        Ok((BlockType::PrivateKey, _)) => ring.fault(format!("armored block {number} is a secret key")),
                        Ok(_) => ring.fault(format!("armored block {number} has no public key")),
                        Err(problem) => ring.fault(format!("armored block {number} {problem}")),
                    }
                }
            }
        }
        if ring.keys.is_empty() {
            let faults: String = ring.faults.iter().map(|fault| format!("\n  {fault}")).collect();
            return Err(bad(format!("not OpenPGP keys{faults}")));
        }
        Ok(ring)
    }

    /// Fingerprints of the primary keys, 40 or 64 upper-case hexadecimal digits.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(|k| fingerprint(&k.primary_key)).collect()
    }

    /// The parts of the keyring that are no usable key, each with its position.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }

    /// Reads the keys of `bytes`; `place` ends the positions in [`Self::faults`].
    fn read_packets(&mut self, bytes: &[u8], place: &str) {
        let mut trials = MAX_TRIALS;
        let mut at = 0;
        while at < bytes.len() {
            let (end, whole) = key_end(bytes, at);
            let problem = match first_packet(&bytes[at..]) {
                Some((PUBLIC_KEY, _)) => match read_key(&bytes[at..end]) {
                    Some(key) => {
                        self.keys.push(key);
                        None
                    }
                    None => Some(unreadable(&bytes[at..])),
                },
                Some((SECRET_KEY, _)) => Some("is a secret key, and a keyring has public keys".to_owned()),
                Some((kind, _)) => Some(format!("is an OpenPGP packet of type {kind}, which begins no key")),
                None => Some(unreadable(&bytes[at..])),
            };
            // A damaged packet may have swallowed the beginning of the key after it, so the search begins within it.
            at = match problem {
                None if whole => end,
                None => {
                    self.fault(format!("the part at byte {end}{place} {}", unreadable(&bytes[end..])));
                    next_key(bytes, at + 1, &mut trials)
                }
                Some(problem) => {
                    self.fault(format!("the part at byte {at}{place} {problem}"));
                    next_key(bytes, at + 1, &mut trials)
                }
            };
        }
    }
}

/// An armored block, decoded: its type and its packets, or a problem.
type ArmoredBlock = Result<(BlockType, Vec<u8>), &'static str>;

/// The armored blocks of a text, decoded, each with its type or a problem; `None` if there is none.
pub(super) fn armored_blocks(bytes: &[u8]) -> Option<Vec<ArmoredBlock>> {
    const BEGIN: &[u8] = b"-----BEGIN PGP ";
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(BEGIN) && (*at == 0 || bytes[*at - 1] == b'\n'))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let blocks = starts.iter().zip(ends).map(|(start, end)| dearmor(&bytes[*start..end]));
    (!starts.is_empty()).then(|| blocks.collect())
}

fn dearmor(text: &[u8]) -> ArmoredBlock {
    // Blanks and carriage returns at the ends of lines mean nothing.
    let lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
    let text = lines.collect::<Vec<_>>().join(&b'\n');
    let mut dearmor = Dearmor::new(text.as_slice());
    dearmor.read_header().map_err(|_| "has no readable header")?;
    let kind = dearmor.typ.ok_or("has no readable header")?;
    let mut packets = Vec::new();
    let limit = MAX_KEYRING as u64;
    dearmor
        .take(limit)
        .read_to_end(&mut packets)
        .map_err(|_| "is damaged or cut off")?;
    Ok((kind, packets))
}

/// The type of the packet with which `bytes` begin, and the positions of its content; `None` if it is cut off or is no packet.
fn first_packet(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let first = *bytes.first()?;
    let number = |from: usize, count: usize| -> Option<usize> {
        let digits = bytes.get(from..from + count)?;
        Some(digits.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    };
    let (kind, start, length) = match first >> 6 {
        0b11 => {
            let (start, length) = match *bytes.get(1)? {
                short @ 0..192 => (2, usize::from(short)),
                255 => (6, number(2, 4)?),
                high @ 192..224 => (3, ((usize::from(high) - 192) << 8) + number(2, 1)? + 192),
                // A content in pieces is for data, not for keys.
                224..255 => return None,
            };
            (first & 0x3f, start, length)
        }
        0b10 => {
            let count = match first & 3 {
                3 => return None,
                power => 1 << power,
            };
            ((first >> 2) & 0xf, 1 + count, number(1, count)?)
        }
        _ => return None,
    };
    let end = start.checked_add(length)?;
    (end <= bytes.len()).then_some((kind, start..end))
}

/// The packets of `bytes`, each whole with its header, up to the first that is cut off; and the bytes from there on.
pub(super) fn split_packets(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut packets = Vec::new();
    while let Some((_, content)) = first_packet(bytes) {
        let (packet, rest) = bytes.split_at(content.end);
        packets.push(packet);
        bytes = rest;
    }
    (packets, bytes)
}

/// The end of the key that begins at `at`, and whether the packets up to there are whole.
fn key_end(bytes: &[u8], at: usize) -> (usize, bool) {
    let mut end = at;
    let mut first = true;
    while end < bytes.len() {
        match first_packet(&bytes[end..]) {
            Some((kind, content)) if first || PARTS.contains(&kind) => end += content.end,
            Some((SECRET_KEY | PUBLIC_KEY, _)) => return (end, true),
            _ => return (end, false),
        }
        first = false;
    }
    (end, true)
}

/// The key of these packets; one without a user id and a signature is none that anything vouches for.
fn read_key(bytes: &[u8]) -> Option<SignedPublicKey> {
    let key = SignedPublicKey::from_bytes(bytes).ok()?;
    let bare = key.details.users.is_empty() && key.details.direct_signatures.is_empty();
    (!bare).then_some(key)
}

/// The position of the next key that can be read, from `at` on; the end of `bytes` if there is none.
fn next_key(bytes: &[u8], at: usize, trials: &mut usize) -> usize {
    for start in at..bytes.len() {
        let Some((PUBLIC_KEY, content)) = first_packet(&bytes[start..]) else {
            continue;
        };
        // The version of the key, so that few other bytes are tried.
        if !matches!(bytes.get(start + content.start), Some(4 | 6)) {
            continue;
        }
        let Some(left) = trials.checked_sub(1) else { break };
        *trials = left;
        let (end, _) = key_end(bytes, start);
        if read_key(&bytes[start..end]).is_some() {
            return start;
        }
    }
    bytes.len()
}

/// The reason that the key with which `bytes` begin cannot be read.
fn unreadable(bytes: &[u8]) -> String {
    match (first_packet(bytes), bytes.first()) {
        (None, Some(first)) if first & 0x80 != 0 => "is an OpenPGP packet that is cut off".to_owned(),
        (Some((PUBLIC_KEY, content)), _) => match bytes.get(content.start) {
            Some(version @ (4 | 6)) => format!("is a key of version {version} that is damaged or cut off"),
            Some(version) => format!("is a key of version {version}, and only 4 and 6 are read"),
            None => "is an empty key".to_owned(),
        },
        _ => "is no OpenPGP packet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgp::{armor, composed::ArmorOptions};
    use proptest::prelude::*;

    const TRIXIE: &[u8] = include_bytes!("../../stages/keys/debian-trixie.pgp");
    const SECURITY: &[u8] = include_bytes!("../../stages/keys/debian-trixie-security.pgp");

    fn ring(bytes: &[u8]) -> Keyring {
        Keyring::parse(bytes, "ring").expect("has keys")
    }

    #[test]
    fn the_committed_keyrings_hold_the_keys_their_readme_names() {
        let readme = include_str!("../../stages/keys/README.md");
        let mut count = 0;
        for bytes in [TRIXIE, SECURITY] {
            assert_eq!(ring(bytes).faults(), [] as [&str; 0]);
            for key in ring(bytes).fingerprints() {
                assert!(readme.contains(&format!("`{key}`")), "{key} is not in the table");
                count += 1;
            }
        }
        assert_eq!(count, 3);
    }

    #[test]
    fn what_is_no_keyring_is_refused() {
        for (bytes, problem) in [
            (&b""[..], "keyring ring: not OpenPGP keys"),
            (
                b"hello\n",
                "keyring ring: not OpenPGP keys\n  the part at byte 0 is no OpenPGP packet",
            ),
            (
                &TRIXIE[..200],
                "keyring ring: not OpenPGP keys\n  the part at byte 0 is an OpenPGP packet that is cut off",
            ),
        ] {
            let err = Keyring::parse(bytes, "ring").expect_err("refused").to_string();
            assert_eq!(err, problem);
        }
    }

    #[test]
    fn a_part_that_is_no_key_is_named_and_the_other_keys_serve() {
        let good = ring(SECURITY).fingerprints();
        let (size, other) = (SECURITY.len(), TRIXIE.len());
        let old = [&[0x99, 0, 5, 2, 0, 0, 0, 0][..], &[0xb4, 1, b'x']].concat();
        let secret = [0x94, 0, 4];
        let joined = |parts: &[&[u8]]| parts.concat();
        for (bytes, fault) in [
            (
                joined(&[SECURITY, &TRIXIE[..60]]),
                format!("the part at byte {size} is an OpenPGP packet that is cut off"),
            ),
            (
                joined(&[&TRIXIE[..60], SECURITY]),
                "the part at byte 0 is a key of version 4 that is damaged or cut off".to_owned(),
            ),
            (
                joined(&[&old, SECURITY]),
                "the part at byte 0 is a key of version 2, and only 4 and 6 are read".to_owned(),
            ),
            (
                joined(&[SECURITY, &old]),
                format!("the part at byte {size} is a key of version 2, and only 4 and 6 are read"),
            ),
            (
                joined(&[&secret, SECURITY]),
                "the part at byte 0 is a secret key, and a keyring has public keys".to_owned(),
            ),
            (
                joined(&[b"# my keys\n", SECURITY]),
                "the part at byte 0 is no OpenPGP packet".to_owned(),
            ),
            (
                joined(&[SECURITY, b"\n"]),
                format!("the part at byte {size} is no OpenPGP packet"),
            ),
        ] {
            let ring = ring(&bytes);
            assert_eq!(ring.faults(), [fault]);
            assert_eq!(ring.fingerprints(), good);
        }
        assert!(other > 60);
    }

    #[test]
    fn armored_keyrings_have_any_number_of_blocks() {
        let armored = |bytes: &[u8]| {
            let key = SignedPublicKey::from_bytes(bytes).expect("a key");
            key.to_armored_string(ArmorOptions::default()).expect("armored")
        };
        let (first, second) = (armored(TRIXIE), armored(SECURITY));
        let twice = format!("{first}\n# the second\n{second}").replace('\n', "\r\n");
        let ring = ring(twice.as_bytes());
        assert_eq!((ring.fingerprints().len(), ring.faults().len()), (2, 0));
        let cut = format!("{}\n{second}", &first[..200]);
        let ring = Keyring::parse(cut.as_bytes(), "ring").expect("the second");
        assert_eq!(ring.fingerprints().len(), 1);
        assert!(ring.faults()[0].contains("armored block 1"), "{:?}", ring.faults());
        let mut signature = Vec::new();
        armor::write(
            &SignedPublicKey::from_bytes(SECURITY).expect("a key"),
            BlockType::Signature,
            &mut signature,
            None,
            true,
        )
        .expect("armored");
        let error = Keyring::parse(&signature, "ring").expect_err("no key").to_string();
        assert_eq!(
            error,
            "keyring ring: not OpenPGP keys\n  armored block 1 has no public key"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damaged_keyrings_never_panic(at in 0..TRIXIE.len(), byte in any::<u8>(), end in 0..TRIXIE.len()) {
            let mut bytes = TRIXIE.to_vec();
            bytes[at] = byte;
            bytes.truncate(end.max(at));
            if let Ok(ring) = Keyring::parse(&bytes, "ring") {
                prop_assert!(!ring.fingerprints().is_empty());
            }
        }
    }
}
