//! Reads the tar archive of a package's files as dpkg does (`lib/dpkg/tarfn.c`), entry by entry.
//!
//! ```text
//! header block 512   name 100, mode 8, uid 8, gid 8, size 12, mtime 12, checksum 8, type 1, link name 100, magic 8, …, prefix 155 at 345
//! content            of files and long names only: size bytes, padded to a multiple of 512
//! ...
//! the end            a header without a name whose checksum is wrong (a zero block), or the end of the stream
//! ```
//!
//! What dpkg refuses is refused here, and nothing else is, with these exceptions, which no program that makes packages produces:
//!
//! - a component `..` of a name or of a hard link's target: dpkg writes outside of the root;
//! - device nodes and named pipes: none can be made in a sandbox, and a node makes its own;
//! - sizes and numbers of entries beyond the limits.
//!
//! Times before 1970 and after 2106 become these: the outputs of a stage get a time of their own. Owners are the numbers of the headers.

use super::tarball::{Bounded, EntryHeader, EntryReader, TarEntryKind, TarError, TarLimits, Visit, fill};
use crate::model::{Epoch, Meta, RelPath};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// Bytes of a block.
const BLOCK: usize = 512;
/// The magic and version of a POSIX archive, whose headers alone have a prefix of the name.
const USTAR: &[u8] = b"ustar\x0000";

/// The fields of a header.
struct Fields {
    name: Vec<u8>,
    link: Vec<u8>,
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: u32,
}

/// Reads a whole archive, and passes every entry to `visit`. Content that the visitor does not read is skipped.
pub(super) fn read<E>(reader: impl Read, limits: &TarLimits, visit: &mut Visit<'_, E>) -> Result<(), TarError<E>> {
    let mut reader = Bounded::new(reader, limits.bytes);
    let (mut long_name, mut long_link): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
    // The place of the next header, for messages.
    let mut last = "at the start".to_owned();
    let mut count = 0u64;
    loop {
        let refuse = |problem: String| TarError::Entry {
            entry: last.clone(),
            problem,
        };
        let mut block = [0; BLOCK];
        let read = fill(&mut reader, &mut block).map_err(|source| TarError::Read {
            entry: last.clone(),
            source,
        })?;
        if read == 0 {
            return Ok(());
        }
        if read < BLOCK {
            return Err(refuse(format!(
                "the archive ends within a header ({read} of 512 bytes)"
            )));
        }
        let Some(mut fields) = decode(&block).map_err(refuse)? else {
            // What follows the end is not read by dpkg; the stream is, to its end.
            io::copy(&mut reader, &mut io::sink()).map_err(|source| TarError::Read { entry: last, source })?;
            return Ok(());
        };
        count += 1;
        if count > limits.entries {
            return Err(refuse(format!("there are more than {} entries", limits.entries)));
        }
        let extension = matches!(fields.kind, b'L' | b'K');
        if !extension {
            fields.name = long_name.take().unwrap_or(fields.name);
            fields.link = long_link.take().unwrap_or(fields.link);
        }
        let shown = fields.name.escape_ascii().to_string();
        let bad = |problem: String| TarError::Entry {
            entry: format!("entry \"{shown}\""),
            problem,
        };
        let broken = |source| TarError::Read {
            entry: format!("entry \"{shown}\""),
            source,
        };
        if fields.name.is_empty() {
            return Err(bad("has no name".to_owned()));
        }
        // Of other kinds dpkg ignores the size: no content follows them.
        let size = if matches!(fields.kind, b'0' | b'L' | b'K') {
            fields.size
        } else {
            0
        };
        let limit = if extension { limits.header_bytes } else { limits.bytes };
        if size > limit {
            return Err(bad(format!("says it has {size} bytes, more than the limit of {limit}")));
        }
        let mut content = EntryReader::new(&mut reader, size);
        if extension {
            let mut text = Vec::new();
            content.read_to_end(&mut text).map_err(broken)?;
            let slot = if fields.kind == b'L' {
                &mut long_name
            } else {
                &mut long_link
            };
            *slot = Some(until_nul(&text));
        } else {
            let (path, header) = entry(&fields, size).map_err(bad)?;
            visit(path, header, &mut content).map_err(TarError::Visit)?;
            io::copy(&mut content, &mut io::sink()).map_err(broken)?;
        }
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        if fill(&mut reader, &mut [0; BLOCK][..padding]).map_err(broken)? != padding {
            return Err(bad("is cut off within its padding".to_owned()));
        }
        last = format!("after entry \"{shown}\"");
    }
}

/// The fields of a header; `None` for the end of the archive.
fn decode(block: &[u8; BLOCK]) -> Result<Option<Fields>, String> {
    let name = until_nul(&block[..100]);
    let sum: i64 = block[..148].iter().chain(&block[156..]).map(|b| i64::from(*b)).sum();
    let stated = number(&block[148..156]);
    if stated != Some(i128::from(sum) + 8 * i128::from(b' ')) {
        return match name.is_empty() {
            true => Ok(None),
            false => Err(format!(
                "the header of \"{}\" does not have the checksum that it states",
                name.escape_ascii()
            )),
        };
    }
    let field = |what: &str, at: std::ops::Range<usize>, range: std::ops::RangeInclusive<i128>| {
        let text = &block[at];
        number(text).filter(|value| range.contains(value)).ok_or_else(|| {
            let shown = text.escape_ascii();
            format!(
                "the header of \"{}\" has the {what} \"{shown}\", which is no number there",
                name.escape_ascii()
            )
        })
    };
    let owner = 0..=i128::from(u32::MAX);
    // -1 leaves an owner as it is, and files are made by root.
    let id = |value: i128| u32::try_from(value).ok().filter(|id| *id != u32::MAX).unwrap_or(0);
    // The mode alone is read without a check.
    let mode = number(&block[100..108]).unwrap_or(0) & 0o7777;
    let uid = id(field("owner", 108..116, owner.clone())?);
    let gid = id(field("group", 116..124, owner)?);
    let size = field("size", 124..136, 0..=i128::from(i64::MAX))?;
    let mtime = field("time", 136..148, i128::from(i64::MIN)..=i128::from(i64::MAX))?;
    let prefix = until_nul(&block[345..500]);
    let name = match (&block[257..265] == USTAR, prefix.is_empty()) {
        (true, false) => [&prefix[..], b"/", &name].concat(),
        _ => name.clone(),
    };
    Ok(Some(Fields {
        name,
        link: until_nul(&block[157..257]),
        kind: match block[156] {
            0 => b'0',
            kind => kind,
        },
        mode: u32::try_from(mode).unwrap_or_default(),
        uid,
        gid,
        size: u64::try_from(size).unwrap_or_default(),
        mtime: u32::try_from(mtime.clamp(0, i128::from(u32::MAX))).unwrap_or_default(),
    }))
}

/// A number: octal digits between blanks, or base 256 after a byte with the top bit. An empty field is 0.
fn number(field: &[u8]) -> Option<i128> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // The bits after the top one are a signed number.
        let start = if first & 0x40 != 0 { -1 } else { 0 };
        let rest = field.iter().skip(1);
        let head = (start << 6) | i128::from(first & 0x3f);
        return Some(rest.fold(head, |value, byte| (value << 8) | i128::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits
        .iter()
        .position(|b| !matches!(b, b'0'..=b'7'))
        .unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let value = digits
        .iter()
        .fold(0, |value, digit| (value << 3) | i128::from(digit - b'0'));
    matches!(rest.first(), None | Some(0 | b' ')).then_some(value)
}

fn until_nul(field: &[u8]) -> Vec<u8> {
    field.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// The path and the header of an entry.
fn entry(fields: &Fields, size: u64) -> Result<(Option<RelPath>, EntryHeader), String> {
    if fields.name.contains(&b'\n') {
        return Err("has a newline in its name".to_owned());
    }
    if fields.kind == b'5' && fields.name.len() > 2 && fields.name.ends_with(b"//") {
        return Err(
            "is a directory with two slashes at the end of its name, which dpkg does not make either".to_owned(),
        );
    }
    let path = relative(&fields.name)?;
    let target = &fields.link;
    let unsupported = |what: &str| {
        Err(format!(
            "is {what}, which dpkg refuses too; rebuild the package, with `tar --format=gnu` if tar made its archive"
        ))
    };
    let kind = match fields.kind {
        b'0' => TarEntryKind::File,
        b'5' => TarEntryKind::Directory,
        b'2' if target.is_empty() => return Err("is a symbolic link without a target".to_owned()),
        b'2' => TarEntryKind::Symlink(target.clone()),
        b'1' => match relative(target) {
            Ok(Some(path)) => TarEntryKind::HardLink(path),
            Ok(None) => return Err("is a hard link to the root directory".to_owned()),
            Err(problem) => {
                let target = target.escape_ascii();
                return Err(format!("is a hard link to \"{target}\", which {problem}"));
            }
        },
        b'3' | b'4' => return Err("is a device node, which cannot be made here".to_owned()),
        b'6' => return Err("is a named pipe, which cannot be made here".to_owned()),
        b'x' | b'g' => return unsupported("a pax header"),
        b'S' => return unsupported("a sparse file"),
        other => return unsupported(&format!("of the type \"{}\"", [other].escape_ascii())),
    };
    if path.is_none() && kind != TarEntryKind::Directory {
        return Err("stands at the root but is not a directory".to_owned());
    }
    let meta = Meta {
        mode: fields.mode,
        uid: fields.uid,
        gid: fields.gid,
        mtime: Epoch::new(fields.mtime),
        xattrs: BTreeMap::new(),
    };
    Ok((path, EntryHeader { meta, kind, size }))
}

/// The path below the root of a stored name (`./usr/bin/`, `usr/bin`, `/usr//bin`); `None` for the root itself.
fn relative(raw: &[u8]) -> Result<Option<RelPath>, String> {
    let parts = raw.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let path = parts.collect::<Vec<_>>().join(&b'/');
    if path.is_empty() {
        return Ok(None);
    }
    match RelPath::new(path) {
        Ok(path) => Ok(Some(path)),
        Err(crate::model::ModelError::Path { problem, .. }) => Err(problem.to_owned()),
        Err(other) => Err(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_dpkg_reads_them() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000000", Some(0)),
            (b"\0\0\0\0", Some(0)),
            (b"12 junk", Some(0o12)),
            (b"12x", None),
            (b"9", None),
            (b"zzzz", None),
            (b"\x80\0\0\x02", Some(2)),
            (b"\x80\x01\0\0\0", Some(1 << 24)),
            (b"\xff\xff\xff\xff", Some(-1)),
            (b"\xbf\xff", Some(0x3fff)),
        ] {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn names_are_below_the_root() {
        for (raw, path) in [
            (&b"./usr/bin/"[..], Ok(Some("usr/bin"))),
            (b"/usr//bin/./x", Ok(Some("usr/bin/x"))),
            (b"././a", Ok(Some("a"))),
            (b"./", Ok(None)),
            (b"/", Ok(None)),
            (b"usr/../x", Err("has a component \"..\"")),
        ] {
            let path = path.map(|path| path.map(|path| RelPath::new(path).expect("a path")));
            assert_eq!(relative(raw), path.map_err(str::to_owned), "{}", raw.escape_ascii());
        }
    }
}
