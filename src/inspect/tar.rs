//! Tar archives: ustar with the extensions of GNU and pax, of which a member may be sparse.
//!
//! ```text
//! header block 512   name, mode, uid, gid, size, mtime, checksum, type, link name, "ustar", prefix
//! content            size bytes, padded to a multiple of 512
//! ...
//! two zero blocks
//! ```
//!
//! A member of type `L`, `K`, `x` or `g` describes the next one. A sparse member stores only ranges of its content, one after the other.
//! The map of the ranges is in the header and in blocks behind it (GNU, type `S`), in pax records (0.0: `GNU.sparse.offset` and
//! `GNU.sparse.numbytes` in turns; 0.1: `GNU.sparse.map`), or as lines of decimal numbers in front of the content (1.0). Sources:
//! POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".
//!
//! The crate `tar` decodes the fields of a header. Its iterator ends silently at the first zero block and at the end of a cut archive,
//! and gives no map.

use super::{
    ext4::{shown, time},
    part::{Look, Part, PartExtent, PartKind},
    streams::unique,
};
use crate::image::{ReadAt, ReadCursor, Source, cpio::next_nonzero};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

/// Bytes of a block.
const BLOCK: u64 = 512;
/// Ranges of sparse members above this number are not read, and keys of pax records.
const MAX_KEYS: usize = 4096;
const MAX_RANGES: usize = 1 << 19;
/// A longer extension header is refused, bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// The checksum field, which counts as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Prefix of the records about a sparse member.
const SPARSE: &[u8] = b"GNU.sparse.";
/// Prefix of the records with extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Records of pax headers by their keys; those of a sparse map, whose keys repeat, in their order.
#[derive(Default)]
struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    ranges: Vec<(Vec<u8>, u64)>,
}

/// The statements of extension headers about the next member.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Records,
    /// Offset of the first extension header.
    at: Option<u64>,
}

/// Ranges of a sparse member, which are stored one after the other: offset and length in the member.
type Map = Vec<(u64, u64)>;

/// A tar archive.
pub(super) fn look(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "tar",
        ..Look::default()
    };
    let mut walk = TarWalk {
        source,
        size,
        at: 0,
        extensions: Extensions::default(),
        global: Records::default(),
        ranges: 0,
    };
    loop {
        match walk.member() {
            Ok(Some(Some(part))) => drop(look.list(part)),
            Ok(Some(None) | None) => {}
            Err(problem) => look.add_problem(problem),
        }
        if look.problem.is_some() || walk.at == u64::MAX {
            break;
        }
    }
    unique(&mut look.children);
    look
}

struct TarWalk<'a> {
    source: &'a Source,
    size: u64,
    /// Offset of the next header; `u64::MAX` behind the end.
    at: u64,
    extensions: Extensions,
    /// Records for all following members.
    global: Records,
    /// Ranges of all sparse members.
    ranges: usize,
}

impl TarWalk<'_> {
    fn block(&self, at: u64) -> Result<[u8; BLOCK as usize], String> {
        let mut block = [0; BLOCK as usize];
        if at.checked_add(BLOCK).is_none_or(|end| end > self.size) {
            return Err(format!("it is cut off within the block at byte {at}"));
        }
        self.source.read_exact_at(&mut block, at).map_err(|e| e.to_string())?;
        Ok(block)
    }

    /// The next member: `Some(None)` for an extension header, `None` behind the end.
    fn member(&mut self) -> Result<Option<Option<Part>>, String> {
        let at = self.at;
        if at == self.size {
            return Err("the two zero blocks at its end are missing".to_owned());
        }
        let bytes = self.block(at)?;
        if bytes.iter().all(|b| *b == 0) {
            self.at = u64::MAX;
            return self.end(at).map(|()| None);
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&bytes);
        check_sum(&header, at)?;
        let kind = header.entry_type();
        let bad = |what: &str| format!("the header at byte {at} has no valid {what}");
        // The field states the stored bytes; a name of a content that stands elsewhere stores none.
        let field = header.entry_size().map_err(|_| bad("size"))?;
        let stored = if is_extension(kind) {
            field
        } else if kind == EntryType::Link {
            0
        } else {
            self.number("size")?.unwrap_or(field)
        };
        let mut from = at + BLOCK;
        let old_map = if kind == EntryType::GNUSparse {
            Some(self.gnu_map(&header, &mut from)?)
        } else {
            None
        };
        let available = self.size - from;
        // The length of a member that is cut off may be anything.
        self.at = from
            .saturating_add(stored)
            .checked_next_multiple_of(BLOCK)
            .unwrap_or(u64::MAX - 1);
        if is_extension(kind) {
            if stored > available || stored > MAX_EXTENSION {
                return Err(format!("the extension header at byte {at} has {stored} bytes"));
            }
            let mut data = vec![0; stored as usize];
            self.source.read_exact_at(&mut data, from).map_err(|e| e.to_string())?;
            self.extensions.at.get_or_insert(at);
            self.extend(kind, data)
                .map_err(|problem| format!("the extension header at byte {at} {problem}"))?;
            return Ok(Some(None));
        }
        let extensions = std::mem::take(&mut self.extensions);
        let part = self.part(&header, &extensions, (from, stored.min(available)), old_map);
        let start = extensions.at.unwrap_or(at);
        let mut part = part.described_by(start, from - start);
        if stored > available {
            part = part.damaged(format!("it is cut off: {available} of {stored} stored bytes are there"));
            self.at = u64::MAX;
        } else if self.at > self.size {
            // The padding of the last member is missing, and with it the end.
            self.at = self.size;
        }
        Ok(Some(Some(part)))
    }

    /// Checks the end of the archive, whose first zero block is at byte `at`.
    fn end(&self, at: u64) -> Result<(), String> {
        let second = at + BLOCK;
        if !self.block(second).is_ok_and(|block| block.iter().all(|b| *b == 0)) {
            return Err("the second of the two zero blocks at its end is missing".to_owned());
        }
        match next_nonzero(&mut ReadCursor::new(self.source), second + BLOCK) {
            Ok(None) => Ok(()),
            Ok(Some(more)) => Err(format!(
                "{} bytes from byte {more} on lie behind its end, and are not listed",
                self.size - more
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Stores an extension header.
    fn extend(&mut self, kind: EntryType, mut data: Vec<u8>) -> Result<(), String> {
        match kind {
            EntryType::GNULongName | EntryType::GNULongLink => {
                data.pop_if(|b| *b == 0);
                let slot = if kind == EntryType::GNULongName {
                    &mut self.extensions.name
                } else {
                    &mut self.extensions.link
                };
                *slot = Some(data);
                Ok(())
            }
            EntryType::XGlobalHeader => records(&data, &mut self.global),
            _ => records(&data, &mut self.extensions.pax),
        }
    }

    /// The value of a record about the next member.
    fn value(&self, key: &str) -> Option<&[u8]> {
        let own = self.extensions.pax.values.get(key.as_bytes());
        own.or_else(|| self.global.values.get(key.as_bytes()))
            .map(Vec::as_slice)
    }

    fn number(&self, key: &str) -> Result<Option<u64>, String> {
        let text = self.value(key).map(|text| (text, decimal(text)));
        match text {
            None => Ok(None),
            Some((_, Some(number))) => Ok(Some(number)),
            Some((text, None)) => Err(format!("the pax record {key} is \"{}\"", text.escape_ascii())),
        }
    }

    /// The part of a member, whose stored bytes are at `place`: offset and length.
    fn part(
        &mut self,
        header: &Header,
        extensions: &Extensions,
        place: (u64, u64),
        old_map: Option<(Map, u64)>,
    ) -> Part {
        let own = |key: &str| {
            let value = extensions.pax.values.get(key.as_bytes());
            value
                .or_else(|| self.global.values.get(key.as_bytes()))
                .map(Vec::as_slice)
        };
        // Times may have a fraction.
        let number =
            |key: &str| own(key).and_then(|text| decimal(text.split(|b| *b == b'.').next().unwrap_or_default()));
        let name = own("GNU.sparse.name")
            .or_else(|| own("path"))
            .or(extensions.name.as_deref());
        let name = name.map_or_else(|| shown(&header.path_bytes()), shown);
        let target = own("linkpath").or(extensions.link.as_deref()).map(shown);
        let target = target.or_else(|| header.link_name_bytes().map(|name| shown(&name)));
        let uid = number("uid").unwrap_or_else(|| header.uid().unwrap_or_default());
        let gid = number("gid").unwrap_or_else(|| header.gid().unwrap_or_default());
        let modified = number("mtime").unwrap_or_else(|| header.mtime().unwrap_or_default());
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::GNUSparse | EntryType::Continuous => PartKind::File,
            EntryType::Directory => PartKind::Directory,
            EntryType::Symlink | EntryType::Link => PartKind::Symlink,
            _ => PartKind::Special,
        };
        let mut part = if kind == PartKind::File {
            let map = match old_map {
                Some(map) => Ok(Some((map.0, map.1, place.0))),
                None => self.pax_map(extensions, place),
            };
            match map {
                Ok(None) => Part::slice(name, kind, self.source, place.0, place.1),
                Ok(Some((map, size, from))) => self.sparse(name, &map, size, (from, place.0 + place.1)),
                Err(problem) => Part::empty(name, kind).damaged(problem),
            }
        } else {
            Part::empty(name, kind)
        };
        part = part.with("mode", format!("{:04o}", header.mode().unwrap_or_default() & 0o7777));
        part = part.with("owner", format!("{uid}:{gid}"));
        part = part.with(
            "modified",
            u32::try_from(modified).map_or_else(|_| modified.to_string(), time),
        );
        for (key, value) in &extensions.pax.values {
            if let Some(name) = key.strip_prefix(XATTR) {
                part = part.with(&format!("attribute {}", shown(name)), shown(value));
            }
        }
        match target {
            Some(target) => part.with("target", target),
            None => part,
        }
    }

    /// A member of `size` bytes with this map, whose ranges are stored from the first to the second offset.
    fn sparse(&mut self, name: String, map: &Map, size: u64, (mut from, end): (u64, u64)) -> Part {
        let mut extents = Vec::new();
        let mut behind = 0;
        self.ranges += map.len();
        for (at, len) in map {
            let range_end = at
                .checked_add(*len)
                .filter(|range_end| *range_end <= size && *at >= behind);
            let (Some(range_end), true) = (range_end, from <= end && self.ranges <= MAX_RANGES) else {
                return Part::empty(name, PartKind::File).damaged("its map of sparse ranges is damaged");
            };
            behind = range_end;
            let present = (*len).min(end - from);
            if present > 0 {
                let (at, len) = (*at, present);
                extents.push(PartExtent { at, from, len });
            }
            if present < *len {
                let part = Part::scattered(name, PartKind::File, self.source, extents, size);
                return part.damaged("its map of sparse ranges names more bytes than are stored");
            }
            from += len;
        }
        Part::scattered(name, PartKind::File, self.source, extents, size)
    }

    /// Map and size of a GNU sparse member; `from` is moved behind the blocks of the map.
    fn gnu_map(&self, header: &Header, from: &mut u64) -> Result<(Map, u64), String> {
        let bad = || format!("the sparse map in front of byte {from} is damaged");
        let gnu = header.as_gnu().ok_or_else(bad)?;
        let size = gnu.real_size().map_err(|_| bad())?;
        let mut map = Map::new();
        add_ranges(&gnu.sparse, &mut map).ok_or_else(bad)?;
        let mut more = gnu.is_extended();
        while more {
            let bytes = self.block(*from)?;
            let mut block = GnuExtSparseHeader::new();
            block.as_mut_bytes().copy_from_slice(&bytes);
            *from += BLOCK;
            add_ranges(block.sparse(), &mut map)
                .ok_or_else(|| format!("the sparse map in front of byte {from} is damaged"))?;
            if map.len() > MAX_RANGES {
                return Err(format!("a sparse member has more than {MAX_RANGES} ranges"));
            }
            more = block.is_extended();
        }
        Ok((map, size))
    }

    /// Map and size of a sparse member in pax format, and the offset of its first range; `None` when the member is not sparse.
    fn pax_map(&self, extensions: &Extensions, place: (u64, u64)) -> Result<Option<(Map, u64, u64)>, String> {
        let pax = &extensions.pax;
        if !pax.values.keys().any(|key| key.starts_with(SPARSE)) {
            return Ok(None);
        }
        let value = |key: &str| pax.values.get(&[SPARSE, key.as_bytes()].concat());
        let number = |key: &str| value(key).and_then(|text| decimal(text));
        let bad = || "its map of sparse ranges is damaged".to_owned();
        let size = number("realsize").or_else(|| number("size")).ok_or_else(bad)?;
        match (number("major"), number("minor")) {
            (Some(1), Some(0)) => {
                let (map, len) = self.leading_map(place).ok_or_else(bad)?;
                Ok(Some((map, size, place.0 + len)))
            }
            (None | Some(0), _) => {
                let map = match value("map") {
                    Some(text) => {
                        let numbers: Option<Vec<u64>> = text.split(|b| *b == b',').map(decimal).collect();
                        pairs(&numbers.ok_or_else(bad)?).ok_or_else(bad)?
                    }
                    None => {
                        let named = pax.ranges.chunks(2).map(|pair| match pair {
                            [(offset, at), (bytes, len)]
                                if offset.ends_with(b"offset") && bytes.ends_with(b"numbytes") =>
                            {
                                Some((*at, *len))
                            }
                            _ => None,
                        });
                        named.collect::<Option<Map>>().ok_or_else(bad)?
                    }
                };
                Ok(Some((map, size, place.0)))
            }
            (Some(major), minor) => Err(format!(
                "its format of sparse ranges, {major}.{}, is not supported",
                minor.unwrap_or_default()
            )),
        }
    }

    /// The map in front of the content of a sparse member, and its length with its padding.
    fn leading_map(&self, (from, len): (u64, u64)) -> Option<(Map, u64)> {
        let window = crate::image::Window::new(self.source, from, len).ok()?;
        let mut reader = BufReader::new(ReadCursor::new(window));
        let mut read = 0;
        let mut line = || -> Option<u64> {
            let mut line = Vec::new();
            // 2^64 has twenty digits.
            let n = (&mut reader).take(24).read_until(b'\n', &mut line).ok()?;
            read += n as u64;
            decimal(line.strip_suffix(b"\n")?)
        };
        let count = usize::try_from(line()?).ok().filter(|count| *count <= MAX_RANGES)?;
        let mut map = Map::new();
        for _ in 0..count {
            map.push((line()?, line()?));
        }
        Some((map, read.next_multiple_of(BLOCK)))
    }
}

fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
    )
}

/// Compares the checksum, which some old programs computed of signed bytes.
fn check_sum(header: &Header, at: u64) -> Result<(), String> {
    let bytes = header.as_bytes();
    let spaces = 8 * i64::from(b' ');
    let others = || bytes[..CHECKSUM.start].iter().chain(&bytes[CHECKSUM.end..]);
    let unsigned = others().map(|b| i64::from(*b)).sum::<i64>() + spaces;
    let signed = others().map(|b| i64::from(b.cast_signed())).sum::<i64>() + spaces;
    match header.cksum().map(i64::from) {
        Ok(stated) if stated == unsigned || stated == signed => Ok(()),
        Ok(stated) => Err(format!(
            "the header at byte {at} states the checksum {stated}, but its bytes sum to {unsigned}"
        )),
        Err(_) => Err(format!("the header at byte {at} has no valid checksum")),
    }
}

/// Adds the ranges of a header; an unused one ends them.
fn add_ranges(ranges: &[GnuSparseHeader], map: &mut Map) -> Option<()> {
    for range in ranges.iter().take_while(|range| !range.is_empty()) {
        map.push((range.offset().ok()?, range.length().ok()?));
    }
    Some(())
}

fn pairs(numbers: &[u64]) -> Option<Map> {
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return None;
    };
    (pairs.len() <= MAX_RANGES).then(|| pairs.iter().map(|[at, len]| (*at, *len)).collect())
}

/// Adds the records of a pax header: `LENGTH SPACE KEY = VALUE NEWLINE`.
fn records(mut data: &[u8], out: &mut Records) -> Result<(), String> {
    while !data.is_empty() {
        let malformed = || "has a malformed pax record".to_owned();
        let space = data.iter().take(20).position(|b| *b == b' ').ok_or_else(malformed)?;
        let len = decimal(&data[..space]).and_then(|len| usize::try_from(len).ok());
        let (record, rest) = len.and_then(|len| data.split_at_checked(len)).ok_or_else(malformed)?;
        let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n"));
        let body = body.ok_or_else(malformed)?;
        let equals = body.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        let (key, value) = (&body[..equals], &body[equals + 1..]);
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            let number = decimal(value).ok_or_else(malformed)?;
            out.ranges.push((key.to_vec(), number));
        }
        out.values.insert(key.to_vec(), value.to_vec());
        if out.values.len() > MAX_KEYS || out.ranges.len() > 2 * MAX_RANGES {
            return Err(format!("has more than {MAX_KEYS} keys or {MAX_RANGES} sparse ranges"));
        }
        data = rest;
    }
    Ok(())
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}
