//! Portable executables: EFI programs, kernels with an EFI header, and unified kernel images.
//!
//! ```text
//! "MZ" · le32 at 0x3c: offset of "PE\0\0" · 20 bytes COFF header · optional header with 16 data directories · section table
//! section      name (8), le32 VirtualSize, address, le32 SizeOfRawData, le32 offset of the raw data, … (40 bytes)
//!              the data are the first VirtualSize bytes of the raw data; the rest of them is padding
//! directory 4  the certificate table is a file offset and a size; each entry: le32 length, revision, le16 type (2: PKCS #7), DER
//! UKI          sections .linux, .initrd, .cmdline, …; each .profile begins a profile, to which the sections behind it belong
//! ```
//!
//! Sources: Microsoft's PE format specification; <https://uapi-group.org/specifications/specs/unified_kernel_image/>; RFC 2315.

use super::{
    ext4::{shown, time},
    part::{Look, Part, PartKind},
    streams::unique,
};
use crate::image::{ReadAt, Source};
use std::io;

/// Bytes of a section's header, and of the name in it.
const SECTION: usize = 40;
const NAME: usize = 8;
/// Sections above this number are compared and not listed.
const MAX_LISTED: usize = 64;
/// Overlaps and sections outside of the file that are named.
const MAX_NAMED: usize = 4;
/// A longer name of a section is cut, bytes.
const MAX_NAME: u64 = 64;
/// Data of `.sbat` and `.profile`, and a certificate table, of which more is not read, bytes.
const MAX_TEXT: u64 = 4096;
const MAX_CERTIFICATES: u64 = 1 << 20;
/// Sections of a unified kernel image that are read as files.
const PAYLOADS: [&str; 17] = [
    ".linux", ".initrd", ".cmdline", ".osrel", ".uname", ".sbat", ".dtb", ".dtbauto", ".hwids", ".efifw", ".ucode",
    ".splash", ".pcrsig", ".pcrpkey", ".profile", ".sdmagic", ".policy",
];
/// OID of commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// A section of the table.
struct PeSection {
    name: String,
    /// Place of the data, and length of the padding behind them.
    from: u64,
    len: u64,
    padding: u64,
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}
fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

fn read(source: &Source, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    source.read_exact_at(&mut out, at)?;
    Ok(out)
}

/// Adds the facts and the sections of a portable executable. An error is a header that is cut off or none.
pub(super) fn look(source: &Source, size: u64, look: &mut Look) -> io::Result<()> {
    let at = u64::from(le32(&read(source, 0x3c, 4)?, 0));
    let coff = read(source, at, 24)?;
    if !coff.starts_with(b"PE\0\0") {
        return Err(io::Error::other("there is no PE signature"));
    }
    let machine = match le16(&coff, 4) {
        0x8664 => "x86-64".to_owned(),
        0xaa64 => "arm64".to_owned(),
        0x14c => "x86".to_owned(),
        0x1c0 | 0x1c2 | 0x1c4 => "arm".to_owned(),
        0x5064 => "riscv64".to_owned(),
        0x6264 => "loongarch64".to_owned(),
        other => format!("{other:#06x}"),
    };
    look.fields.insert("machine".to_owned(), machine);
    look.fields.insert("linked".to_owned(), time(le32(&coff, 8)));
    let optional = at + 24;
    let directories = match le16(&read(source, optional, 2)?, 0) {
        0x20b => optional + 112,
        _ => optional + 96,
    };
    let certificates = match le32(&read(source, directories - 4, 4)?, 0) {
        5.. => {
            let entry = read(source, directories + 32, 8)?;
            (u64::from(le32(&entry, 0)), u64::from(le32(&entry, 4)))
        }
        _ => (0, 0),
    };
    let (count, table) = (usize::from(le16(&coff, 6)), optional + u64::from(le16(&coff, 20)));
    let headers = (table + (count * SECTION) as u64).min(size);
    look.children
        .push(Part::slice("headers", PartKind::Region, source, 0, headers));
    let mut found = sections(source, size, table, count, look)?;
    // A name of more than 8 bytes lies behind the symbols, of 18 bytes each, at the offset that stands for it.
    let strings = u64::from(le32(&coff, 12)) + 18 * u64::from(le32(&coff, 16));
    for section in found.iter_mut().take(MAX_LISTED).filter(|_| le32(&coff, 12) > 0) {
        let offset = section
            .name
            .strip_prefix('/')
            .and_then(|digits| digits.parse::<u32>().ok());
        let text = offset.and_then(|offset| {
            let at = strings + u64::from(offset);
            read(source, at, size.saturating_sub(at).min(MAX_NAME) as usize).ok()
        });
        let name = text.as_deref().and_then(|text| text.split(|b| *b == 0).next());
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            section.name = shown(name);
        }
    }
    add_sections(source, &found, look);
    add_certificates(source, size, certificates, look);
    unique(&mut look.children);
    Ok(())
}

/// The sections of the table; those that have no data in the file are left out.
fn sections(source: &Source, size: u64, table: u64, count: usize, look: &mut Look) -> io::Result<Vec<PeSection>> {
    let there = (size.saturating_sub(table) / SECTION as u64).min(count as u64) as usize;
    let raw = read(source, table, there * SECTION)?;
    if there < count {
        look.add_problem(format!(
            "its table of sections is cut off: {there} of {count} are there"
        ));
    }
    let (mut found, mut outside) = (Vec::new(), Vec::new());
    for header in raw.chunks_exact(SECTION) {
        let name = shown(header[..NAME].split(|b| *b == 0).next().unwrap_or_default());
        let (virtual_size, raw_size) = (u64::from(le32(header, 8)), u64::from(le32(header, 16)));
        let from = u64::from(le32(header, 20));
        if raw_size == 0 {
            continue;
        }
        // Files without a layout in memory have the virtual size 0.
        let len = if virtual_size == 0 {
            raw_size
        } else {
            raw_size.min(virtual_size)
        };
        if from + len > size {
            outside.push(name);
            continue;
        }
        let padding = (raw_size - len).min(size - from - len);
        found.push(PeSection {
            name,
            from,
            len,
            padding,
        });
    }
    if !outside.is_empty() {
        let names = outside.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let verb = if outside.len() == 1 { "goes" } else { "go" };
        look.add_problem(format!(
            "{} of its sections {verb} past the end of the file: {names}",
            outside.len()
        ));
    }
    overlaps(&found, look);
    Ok(found)
}

/// Names sections whose data share bytes. The boot code of a kernel is a section in another one.
fn overlaps(found: &[PeSection], look: &mut Look) {
    if look.format != super::programs::EFI_PROGRAM {
        return;
    }
    let mut sorted: Vec<&PeSection> = found.iter().collect();
    sorted.sort_by_key(|s| (s.from, s.len));
    let pairs = sorted
        .windows(2)
        .filter(|pair| pair[0].from + pair[0].len > pair[1].from);
    let pairs: Vec<String> = pairs
        .map(|pair| format!("{} and {}", pair[0].name, pair[1].name))
        .collect();
    if !pairs.is_empty() {
        let named = pairs.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
        look.add_problem(format!("{} pairs of its sections overlap: {named}", pairs.len()));
    }
}

/// Adds the sections, those of a unified kernel image as files, and what `.sbat` says.
fn add_sections(source: &Source, found: &[PeSection], look: &mut Look) {
    let has = |name: &str| found.iter().any(|s| s.name == name);
    let unified = has(".linux");
    if unified {
        look.format = "UKI";
    } else if has(".cmdline") || has(".dtb") || has(".dtbauto") || has(".ucode") || has(".initrd") {
        look.format = "UKI addon";
    }
    let unified = unified || look.format == "UKI addon";
    look.fields.insert(
        "sections".to_owned(),
        match found.len() {
            few @ ..=MAX_LISTED => few.to_string(),
            many => format!("{many}, of which {MAX_LISTED} are listed"),
        },
    );
    let (mut profile, mut profiles) = (String::new(), 0);
    for (number, section) in found.iter().enumerate() {
        if section.name == ".profile" && unified {
            let id = text(source, section)
                .lines()
                .find_map(|line| line.strip_prefix("ID=").map(str::to_owned));
            profile = match id {
                Some(id) => format!("profile {profiles} \"{}\" ", shown(id.trim_matches('"').as_bytes())),
                None => format!("profile {profiles} "),
            };
            profiles += 1;
        }
        let name = format!("{profile}section {}", section.name);
        let read_as_file = unified && PAYLOADS.contains(&section.name.as_str());
        let kind = if read_as_file {
            PartKind::Segment
        } else {
            PartKind::Region
        };
        look.children
            .push(Part::slice(name.as_str(), kind, source, section.from, section.len));
        if section.padding > 0 {
            let (from, name) = (section.from + section.len, format!("{name} (padding)"));
            look.children
                .push(Part::slice(name, PartKind::Region, source, from, section.padding));
        }
        if !read_as_file && number < MAX_LISTED {
            let value = format!("{} bytes at {}", section.len, section.from);
            // Two sections of one name are one field with both.
            let field = look.fields.entry(name).or_default();
            *field = if field.is_empty() {
                value
            } else {
                format!("{field}, {value}")
            };
        }
        if section.name == ".sbat" {
            look.fields.insert("SBAT".to_owned(), sbat(&text(source, section)));
        }
    }
    if profiles > 0 {
        look.fields.insert("profiles".to_owned(), profiles.to_string());
    }
}

fn text(source: &Source, section: &PeSection) -> String {
    let bytes = read(source, section.from, section.len.min(MAX_TEXT) as usize).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Components and generations: `shim 4, grub 5`.
fn sbat(text: &str) -> String {
    let lines = text.trim_end_matches('\0').lines();
    let entries = lines.filter_map(|line| {
        let mut cells = line.split(',');
        Some(format!("{} {}", cells.next()?, cells.next()?))
    });
    shown(entries.collect::<Vec<_>>().join(", ").as_bytes())
}

/// Adds the certificate table, and who signed.
fn add_certificates(source: &Source, size: u64, (from, len): (u64, u64), look: &mut Look) {
    let inside = from > 0 && len > 0 && from + len <= size;
    let signed = if inside { "yes" } else { "no" };
    look.fields.insert("signed".to_owned(), signed.to_owned());
    if !inside {
        if len > 0 {
            look.add_problem(format!(
                "its certificate table of {len} bytes at byte {from} goes past the end of the file"
            ));
        }
        return;
    }
    look.children
        .push(Part::slice("certificate table", PartKind::Region, source, from, len));
    if from + len < size {
        look.children.push(Part::slice(
            "bytes behind the certificate table",
            PartKind::Region,
            source,
            from + len,
            size - from - len,
        ));
    }
    let Ok(table) = read(source, from, len.min(MAX_CERTIFICATES) as usize) else {
        return;
    };
    let (mut rest, mut number) = (&table[..], 0);
    while let Some(entry) = rest.get(..le32(rest, 0) as usize).filter(|entry| entry.len() >= 8) {
        number += 1;
        let said = match le16(entry, 6) {
            2 => signer(&entry[8..]).unwrap_or_else(|| "PKCS #7, whose signer cannot be read".to_owned()),
            other => format!("a certificate of type {other:#x}"),
        };
        look.fields.insert(format!("signature {number}"), said);
        rest = rest.get(entry.len().next_multiple_of(8)..).unwrap_or_default();
    }
}

/// An element of DER: its tag, its content, and the bytes behind it.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        short @ ..0x80 => (usize::from(*short), rest),
        long => {
            let count = usize::from(long & 0x7f);
            let digits = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
            (
                digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit)),
                &rest[count..],
            )
        }
    };
    (len <= rest.len()).then(|| (*tag, &rest[..len], &rest[len..]))
}

/// The content of the element with this tag in front of `bytes`, and the bytes behind it.
fn tagged(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    der(bytes)
        .filter(|(found, ..)| *found == tag)
        .map(|(_, content, rest)| (content, rest))
}

/// The common names of the certificate that signed, and of its issuer, from a SignedData of PKCS #7.
fn signer(bytes: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const FIRST: u8 = 0xa0;
    let (content, _) = tagged(bytes, SEQUENCE)?;
    let (_, _, rest) = der(content)?;
    let (signed, _) = tagged(tagged(rest, FIRST)?.0, SEQUENCE)?;
    // Version, digest algorithms, and the digest of the program.
    let (_, _, rest) = der(signed)?;
    let (_, _, rest) = der(rest)?;
    let (_, _, mut rest) = der(rest)?;
    let mut certificates: &[u8] = &[];
    while let Some((tag, content, behind)) = der(rest).filter(|(tag, ..)| *tag != SET) {
        if tag == FIRST {
            certificates = content;
        }
        rest = behind;
    }
    let (info, _) = tagged(tagged(rest, SET)?.0, SEQUENCE)?;
    let (_, _, info) = der(info)?;
    // Issuer and serial number.
    let (identifier, _) = tagged(info, SEQUENCE)?;
    let (issuer, serial) = tagged(identifier, SEQUENCE)?;
    let mut subject = None;
    while let Some((certificate, behind)) = tagged(certificates, SEQUENCE) {
        certificates = behind;
        let (body, _) = tagged(certificate, SEQUENCE)?;
        let body = tagged(body, FIRST).map_or(body, |(_, rest)| rest);
        let (_, _, rest) = der(body)?;
        let own_serial = &body[..body.len() - rest.len()];
        let (_, _, rest) = der(rest)?;
        let (own_issuer, rest) = tagged(rest, SEQUENCE)?;
        let (_, _, rest) = der(rest)?;
        let (own_subject, _) = tagged(rest, SEQUENCE)?;
        if own_issuer == issuer && own_serial == serial {
            subject = common_name(own_subject);
        }
    }
    let issuer = common_name(issuer).unwrap_or_else(|| "a nameless issuer".to_owned());
    Some(match subject {
        Some(subject) => format!("by {subject:?}, issued by {issuer:?}"),
        None => format!("by a certificate of {issuer:?}"),
    })
}

/// The commonName in a Name, a sequence of sets of pairs.
fn common_name(mut name: &[u8]) -> Option<String> {
    while let Some((_, set, rest)) = der(name) {
        name = rest;
        let (_, pair, _) = der(set)?;
        let (_, oid, value) = der(pair)?;
        if oid == COMMON_NAME {
            let (_, value, _) = der(value)?;
            return Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    None
}
