//! Packs: the small objects of a tree as one blob, because a request for each of some thousand objects would take longer than their bytes.
//!
//! ```text
//! zstd frame of
//!   "pnb pack 1\n"
//!   for each object, by digest:  digest (32 bytes), length (u64, little endian), content
//! ```
//!
//! A pack need not be the same bytes everywhere. It is a container: an object gets its name from its content when it is stored.

use crate::{model::VerityDigest, verity};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

/// First bytes of a pack.
const MAGIC: &[u8; 11] = b"pnb pack 1\n";
/// Compression level. Levels above it cost more time than they save on a network of 1 Gbit/s.
const LEVEL: i32 = 3;
/// Largest window of a frame that is decoded, as a power of two in bytes: that of level 3 is 2 MiB.
const WINDOW_LOG: u32 = 23;

/// Objects of at most this many bytes travel in the pack of their tree; a larger one is a blob of its own.
pub const MAX_PACKED: u64 = 1 << 20;

/// Why a pack is refused; every message is a clause about the pack.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is no pack of this version.
    #[error("it is no pack of this version of pnb")]
    Foreign,
    /// It ends early, or its compression is damaged.
    #[error("it is cut or damaged: {0}")]
    Cut(io::Error),
    /// It has an object that the tree does not have, or has it twice.
    #[error("it has object {0}, which the tree does not have in this place")]
    Unknown(VerityDigest),
    /// It has an object with another length.
    #[error("object {digest} has {actual} bytes in it, and {expected} in the tree")]
    Length {
        /// The object.
        digest: VerityDigest,
        /// Bytes according to the tree.
        expected: u64,
        /// Bytes according to the pack.
        actual: u64,
    },
    /// It has other content for an object.
    #[error("object {expected} has other content in it: {actual}")]
    Content {
        /// The object.
        expected: VerityDigest,
        /// The digest of the content.
        actual: VerityDigest,
    },
    /// It lacks an object of the tree.
    #[error("it lacks object {0}")]
    Lacks(VerityDigest),
    /// The object cannot be stored, or cannot be read.
    #[error("store object {digest}")]
    Store {
        /// The object.
        digest: VerityDigest,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// Writes a pack of `objects` (digest and length) to `sink`; `open` gives the content of each.
///
/// # Errors
///
/// If an object cannot be read or has another length, or if `sink` refuses bytes.
pub fn write_pack<W: Write>(
    objects: &BTreeMap<VerityDigest, u64>,
    open: &mut dyn FnMut(&VerityDigest) -> io::Result<Box<dyn Read>>,
    sink: W,
) -> io::Result<W> {
    let mut frame = zstd::Encoder::new(sink, LEVEL)?;
    frame.write_all(MAGIC)?;
    for (digest, size) in objects {
        frame.write_all(digest.as_bytes())?;
        frame.write_all(&size.to_le_bytes())?;
        let copied = io::copy(&mut open(digest)?, &mut frame)?;
        if copied != *size {
            return Err(io::Error::other(format!(
                "object {digest} has {copied} bytes instead of {size}"
            )));
        }
    }
    frame.finish()
}

/// Reads a pack that has exactly the objects `wanted` (digest and length). `put` gets the content of each, whose digest was compared.
///
/// Memory is bounded by the largest of `wanted`, whatever the pack says.
///
/// # Errors
///
/// If the pack is damaged, or has other objects. `put` may have been called for some by then.
pub fn read_pack(
    pack: impl Read,
    wanted: &BTreeMap<VerityDigest, u64>,
    put: &mut dyn FnMut(&VerityDigest, &[u8]) -> io::Result<()>,
) -> Result<(), PackError> {
    let mut frame = zstd::Decoder::new(pack).map_err(PackError::Cut)?;
    frame.window_log_max(WINDOW_LOG).map_err(PackError::Cut)?;
    let mut magic = [0; MAGIC.len()];
    match frame.read_exact(&mut magic) {
        Ok(()) if magic == *MAGIC => {}
        _ => return Err(PackError::Foreign),
    }
    let mut content = Vec::new();
    for (expected, size) in wanted {
        let mut head = [0; 40];
        // A pack that ends where an object begins lacks the rest.
        match frame.read(&mut head[..1]).map_err(PackError::Cut)? {
            0 => return Err(PackError::Lacks(*expected)),
            _ => frame.read_exact(&mut head[1..]).map_err(PackError::Cut)?,
        }
        let (digest, length) = head.split_at(32);
        let mut name = [0; 32];
        name.copy_from_slice(digest);
        let digest = VerityDigest::new(name);
        if digest != *expected {
            return Err(match wanted.contains_key(&digest) && digest > *expected {
                true => PackError::Lacks(*expected),
                false => PackError::Unknown(digest),
            });
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(length);
        let actual = u64::from_le_bytes(bytes);
        if actual != *size {
            return Err(PackError::Length {
                digest,
                expected: *size,
                actual,
            });
        }
        content.clear();
        let read = (&mut frame)
            .take(*size)
            .read_to_end(&mut content)
            .map_err(PackError::Cut)?;
        if read as u64 != *size {
            return Err(PackError::Cut(io::ErrorKind::UnexpectedEof.into()));
        }
        let actual = verity::digest_bytes(&content);
        if actual != digest {
            return Err(PackError::Content {
                expected: digest,
                actual,
            });
        }
        put(&digest, &content).map_err(|source| PackError::Store { digest, source })?;
    }
    let mut more = [0; 32];
    match frame.read(&mut more).map_err(PackError::Cut)? {
        0 => Ok(()),
        _ => Err(PackError::Unknown(VerityDigest::new(more))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(contents: &[&[u8]]) -> (BTreeMap<VerityDigest, u64>, BTreeMap<VerityDigest, Vec<u8>>) {
        let contents: BTreeMap<_, _> = contents
            .iter()
            .map(|content| (verity::digest_bytes(content), content.to_vec()))
            .collect();
        let sizes = contents
            .iter()
            .map(|(digest, content)| (*digest, content.len() as u64))
            .collect();
        (sizes, contents)
    }

    fn pack(contents: &[&[u8]]) -> Vec<u8> {
        let (sizes, contents) = objects(contents);
        let mut open = |digest: &VerityDigest| -> io::Result<Box<dyn Read>> {
            Ok(Box::new(io::Cursor::new(contents[digest].clone())))
        };
        write_pack(&sizes, &mut open, Vec::new()).expect("written")
    }

    fn read(pack: &[u8], wanted: &BTreeMap<VerityDigest, u64>) -> Result<BTreeMap<VerityDigest, Vec<u8>>, PackError> {
        let mut found = BTreeMap::new();
        read_pack(pack, wanted, &mut |digest, content| {
            found.insert(*digest, content.to_vec());
            Ok(())
        })?;
        Ok(found)
    }

    const CONTENTS: [&[u8]; 4] = [b"one", b"another one", &[7; 70_000], b"x"];

    #[test]
    fn objects_come_out_of_a_pack_as_they_went_in() {
        let (sizes, contents) = objects(&CONTENTS);
        assert_eq!(read(&pack(&CONTENTS), &sizes).expect("read"), contents);
        assert_eq!(read(&pack(&[]), &BTreeMap::new()).expect("read"), BTreeMap::new());
    }

    /// The frame of `bytes`, which need not be a pack.
    fn frame(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, LEVEL).expect("compressed")
    }

    #[test]
    fn damaged_short_and_foreign_packs_are_refused_by_name() {
        let (sizes, _) = objects(&CONTENTS);
        let whole = pack(&CONTENTS);
        let plain = zstd::decode_all(&whole[..]).expect("a frame");
        let says = |pack: &[u8]| read(pack, &sizes).expect_err("refused").to_string();
        assert!(says(b"").contains("no pack"));
        assert!(says(b"pnb pack 1\n").contains("no pack"));
        assert!(says(&frame(b"pnb pack 2\n")).contains("no pack"));
        // Every cut, in the frame and in its content.
        for cut in 0..whole.len() {
            read(&whole[..cut], &sizes).expect_err("cut");
        }
        for cut in 0..plain.len() {
            read(&frame(&plain[..cut]), &sizes).expect_err("cut");
        }
        // Every changed byte.
        for at in (0..plain.len()).filter(|at| *at < 200 || at % 997 == 0) {
            let mut changed = plain.clone();
            changed[at] ^= 1;
            read(&frame(&changed), &sizes).expect_err("changed");
        }
        assert!(
            says(&pack(&CONTENTS[..3])).contains("lacks") || says(&pack(&CONTENTS[..3])).contains("which the tree")
        );
        let mut more = plain.clone();
        more.extend([0; 40]);
        assert!(says(&frame(&more)).contains("which the tree does not have"));
        assert!(
            says(&pack(&[b"foreign"])).contains("which the tree does not have")
                || says(&pack(&[b"foreign"])).contains("lacks")
        );
    }

    #[test]
    fn a_length_is_compared_before_anything_is_read_for_it() {
        let (digest, wanted) = (verity::digest_bytes(b"abc"), 3);
        let mut plain = MAGIC.to_vec();
        plain.extend(digest.as_bytes());
        plain.extend(u64::MAX.to_le_bytes());
        let error = read(&frame(&plain), &BTreeMap::from([(digest, wanted)])).expect_err("refused");
        assert!(matches!(error, PackError::Length { actual: u64::MAX, .. }), "{error}");
    }
}
