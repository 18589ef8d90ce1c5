//! Writes one layer: a tar archive of entries of a tree, compressed.
//!
//! Members follow the order of the tree, so every directory stands before its contents. Owners are numbers, times are whole seconds, and
//! nothing else of the machine enters the archive. Names and link targets of more than 100 bytes, and extended attributes, are pax
//! records. A file that has several names in the tree is stored under each.

use super::{FORMAT, apply::WHITEOUT, pax::Records};
use crate::{
    image::{CountingWriter, ImageError, Open, copy_exact, zstd},
    model::{Entry, Meta, Node, RelPath, Sha256Digest, ZstdLevel},
};
use flate2::GzBuilder;
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    num::NonZeroU32,
};
use tar::{EntryType, Header};

/// Bytes of a block.
const BLOCK: u64 = 512;
/// Bytes of a name that a header holds without a pax record.
const NAME_SIZE: usize = 100;
/// Largest number of seven octal digits: owner and group.
const MAX_OWNER: u32 = 0o7_777_777;
/// Largest size of eleven octal digits.
const MAX_SIZE: u64 = 0o77_777_777_777;
/// Name of the members that hold pax records. No reader looks at it.
const RECORDS_NAME: &str = "pax";
/// Name of the root directory.
const ROOT_NAME: &[u8] = b"./";
/// Level of gzip.
const GZIP_LEVEL: u32 = 9;
/// The value of gzip's field for the operating system that says nothing (RFC 1952, section 2.3.1).
const GZIP_UNKNOWN_SYSTEM: u8 = 255;

/// How layers are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerCompression {
    /// Zstandard, which registries and engines of the last years read.
    Zstd,
    /// gzip, which all of them read.
    Gzip,
}

/// A layer that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenLayer {
    /// SHA-256 of the compressed bytes, the name of the blob.
    pub digest: Sha256Digest,
    /// Number of compressed bytes.
    pub size: u64,
    /// SHA-256 of the archive without compression, which the configuration lists (`diff_id`).
    pub diff_id: Sha256Digest,
    /// Its compression.
    pub compression: LayerCompression,
}

/// The entries of a layer.
#[derive(Clone, Debug, Default)]
pub struct LayerEntries<'a> {
    /// Metadata of the root directory, if the layer describes it.
    pub root: Option<&'a Meta>,
    /// The entries, each directory before its contents.
    pub entries: Vec<(&'a RelPath, &'a Entry)>,
}

/// Writes a layer of `entries`, in their order, to `out`; `level` is that of zstd, and gzip has its highest. Contents are read twice where zstd has to know the length beforehand: the first
/// time as zeros of the same length.
pub fn write_layer<W: Write>(
    entries: &LayerEntries<'_>,
    open: Open<'_>,
    compression: LayerCompression,
    level: ZstdLevel,
    workers: NonZeroU32,
    out: W,
) -> Result<WrittenLayer, ImageError> {
    let mut hashed = Hashed::new(out);
    let diff_id = match compression {
        LayerCompression::Zstd => {
            let mut counter = CountingWriter::new(io::sink());
            archive(entries, None, &mut counter)?;
            let mut diff_id = None;
            zstd::compress_with(counter.count(), &mut hashed, level, workers, |out| {
                diff_id = Some(hashed_archive(entries, open, out)?);
                Ok(())
            })?;
            diff_id
        }
        LayerCompression::Gzip => {
            let gzip = GzBuilder::new().mtime(0).operating_system(GZIP_UNKNOWN_SYSTEM);
            let mut encoder = gzip.write(&mut hashed, flate2::Compression::new(GZIP_LEVEL));
            let diff_id = hashed_archive(entries, open, &mut encoder)?;
            encoder.finish().map_err(write)?;
            Some(diff_id)
        }
    };
    hashed.flush().map_err(write)?;
    let (digest, size) = hashed.finish();
    let diff_id = diff_id.ok_or_else(|| ImageError::Request {
        format: FORMAT,
        problem: "the compressor took no archive".to_owned(),
    })?;
    Ok(WrittenLayer {
        digest,
        size,
        diff_id,
        compression,
    })
}

fn write(source: io::Error) -> ImageError {
    ImageError::Write { format: FORMAT, source }
}

/// Writes the archive and returns its SHA-256.
fn hashed_archive(entries: &LayerEntries<'_>, open: Open<'_>, out: &mut dyn Write) -> Result<Sha256Digest, ImageError> {
    let mut hashed = Hashed::new(out);
    archive(entries, Some(open), &mut hashed)?;
    Ok(hashed.finish().0)
}

/// Writes the archive without compression. Without `open`, zeros stand for the contents.
fn archive(entries: &LayerEntries<'_>, open: Option<Open<'_>>, out: &mut dyn Write) -> Result<(), ImageError> {
    if let Some(meta) = entries.root {
        headers("/", ROOT_NAME, (EntryType::Directory, 0, &[]), meta, out)?;
    }
    for (path, entry) in &entries.entries {
        member(path, entry, open, out)?;
    }
    out.write_all(&[0; 2 * BLOCK as usize]).map_err(write)
}

fn member(path: &RelPath, entry: &Entry, open: Option<Open<'_>>, out: &mut dyn Write) -> Result<(), ImageError> {
    let refuse = |problem: String| refused(path, problem);
    if path.components().any(|name| name.starts_with(WHITEOUT)) {
        return Err(refuse("a layer takes such a name for a removal".to_owned()));
    }
    let mut name = path.as_bytes().to_vec();
    if entry.node == Node::Directory {
        name.push(b'/');
    }
    let (kind, size, link) = match &entry.node {
        Node::Directory => (EntryType::Directory, 0, &[][..]),
        Node::File { size, .. } => (EntryType::Regular, *size, &[][..]),
        Node::Symlink { target } => (EntryType::Symlink, 0, &target[..]),
        Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Fifo => {
            return Err(refuse("a layer has files, directories and links only".to_owned()));
        }
    };
    if size > MAX_SIZE {
        return Err(refuse(format!("it has {size} bytes, more than {MAX_SIZE}")));
    }
    headers(path, &name, (kind, size, link), &entry.meta, out)?;
    if let Node::File { size, digest } = &entry.node {
        let content = match open {
            Some(open) => open(digest).map(|content| -> Box<dyn Read> { Box::new(content.take(size + 1)) }),
            None => Ok(Box::new(io::repeat(0).take(*size)) as Box<dyn Read>),
        };
        let mut content = content.map_err(|source| ImageError::Read {
            path: path.to_string(),
            source,
        })?;
        copy_exact(FORMAT, &path.to_string(), *size, &mut content, out)?;
        pad(*size, out)?;
    }
    Ok(())
}

/// Writes the header of a member, after its pax records where it needs any. `path` is the member in messages.
fn headers(
    path: impl std::fmt::Display,
    name: &[u8],
    (kind, size, link): (EntryType, u64, &[u8]),
    meta: &Meta,
    out: &mut dyn Write,
) -> Result<(), ImageError> {
    let Meta { uid, gid, .. } = *meta;
    if uid > MAX_OWNER || gid > MAX_OWNER {
        return Err(refused(path, format!("its owner {uid}:{gid} is above {MAX_OWNER}")));
    }
    let mut records = Records::default();
    if name.len() > NAME_SIZE {
        records.add(b"path", name);
    }
    if link.len() > NAME_SIZE {
        records.add(b"linkpath", link);
    }
    for (key, value) in &meta.xattrs {
        // A record is cut at its first equals sign.
        if key.is_empty() || key.contains(&b'=') || key.contains(&0) {
            let problem = format!(
                "an extended attribute cannot be called \"{}\" there",
                key.escape_ascii()
            );
            return Err(refused(path, problem));
        }
        records.xattr(key, value);
    }
    let bytes = records.bytes();
    if !bytes.is_empty() {
        let size = bytes.len() as u64;
        let meta = Meta::root(0o644, meta.mtime);
        put(
            &header(RECORDS_NAME.as_bytes(), &[], EntryType::XHeader, size, &meta),
            out,
        )?;
        put(bytes, out)?;
        pad(size, out)?;
    }
    put(&header(name, link, kind, size, meta), out)
}

fn refused(path: impl std::fmt::Display, problem: String) -> ImageError {
    ImageError::Entry {
        format: FORMAT,
        path: path.to_string(),
        problem,
    }
}

/// A header whose name and link target are cut to what fits; the records before it have the whole.
fn header(name: &[u8], link: &[u8], kind: EntryType, size: u64, meta: &Meta) -> Vec<u8> {
    let mut header = Header::new_ustar();
    let cut = |text: &[u8], field: &mut [u8; NAME_SIZE]| {
        let length = text.len().min(NAME_SIZE);
        field[..length].copy_from_slice(&text[..length]);
    };
    cut(name, &mut header.as_old_mut().name);
    cut(link, &mut header.as_old_mut().linkname);
    header.set_entry_type(kind);
    header.set_mode(meta.mode);
    header.set_uid(meta.uid.into());
    header.set_gid(meta.gid.into());
    header.set_size(size);
    header.set_mtime(meta.mtime.seconds());
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn put(bytes: &[u8], out: &mut dyn Write) -> Result<(), ImageError> {
    out.write_all(bytes).map_err(write)
}

/// Fills the last block of `size` bytes with zeros.
fn pad(size: u64, out: &mut dyn Write) -> Result<(), ImageError> {
    let rest = size.next_multiple_of(BLOCK) - size;
    out.write_all(&[0; BLOCK as usize][..rest as usize]).map_err(write)
}

/// A writer that hashes and counts.
struct Hashed<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hash: Sha256::new(),
            size: 0,
        }
    }

    /// The SHA-256 and the number of the bytes.
    fn finish(self) -> (Sha256Digest, u64) {
        (Sha256Digest::new(self.hash.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
