//! Long and short names, labels, and times of directory entries.

use super::format::{
    ATTR_LONG, DIR_ATTR, ENTRY, LAST_LONG_ENTRY, LDIR_CHKSUM, LDIR_ORD, LONG_UNITS, SHORT_SIZE, UNIT_OFFSETS,
};
use crate::model::Epoch;
use std::collections::{BTreeMap, BTreeSet};

/// Longest name, UTF-16 units.
const MAX_UNITS: usize = 255;
/// Characters of a short name beside capital letters and digits.
const SHORT_MARKS: &[u8] = b"!#$%&'()-@^_`{}~";
/// Characters that no name can hold, beside control characters.
const FORBIDDEN: &[char] = &['"', '*', '/', ':', '<', '>', '?', '\\', '|'];
/// Highest number in a generated short name, e.g. `NAME~12`.
const MAX_TAIL: u32 = 999_999;

/// A short name or a label as it is stored: a base of 8 bytes and an extension of 3, each padded with spaces.
pub(super) type Short = [u8; SHORT_SIZE];

/// Both names of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub(super) short: Short,
    /// Empty when the short name is the whole name.
    pub(super) long: Vec<u16>,
}

impl Name {
    /// Number of directory entries, the one of the short name included.
    pub(super) fn entries(&self) -> u64 {
        1 + self.long.len().div_ceil(LONG_UNITS) as u64
    }

    /// The entries of the long name, which are stored in front of the short name's, the last piece first.
    pub(super) fn long_entries(&self) -> Vec<u8> {
        let pieces: Vec<_> = self.long.chunks(LONG_UNITS).collect();
        let mut bytes = Vec::with_capacity(pieces.len() * ENTRY);
        for (index, piece) in pieces.iter().enumerate().rev() {
            let mut entry = [0; ENTRY];
            let last = index + 1 == pieces.len();
            // 255 units are 20 pieces.
            entry[LDIR_ORD] = (index + 1) as u8 | if last { LAST_LONG_ENTRY } else { 0 };
            entry[DIR_ATTR] = ATTR_LONG;
            entry[LDIR_CHKSUM] = checksum(&self.short);
            // A name that does not fill its last piece is ended by 0 and padded with 0xffff.
            let units = piece.iter().copied().chain([0]).chain(std::iter::repeat(0xffff));
            for (at, unit) in UNIT_OFFSETS.into_iter().zip(units) {
                entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
            bytes.extend(entry);
        }
        bytes
    }
}

/// Checksum of a short name, which ties a long name to it.
pub(super) fn checksum(short: &Short) -> u8 {
    short
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// A name in the form in which names are compared: without case.
pub(super) fn fold(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).collect()
}

/// Generates short names for the names of one directory; the same names give the same short names. A name that cannot be stored
/// is an error with its index.
pub(super) fn assign(names: &[&[u8]]) -> Result<Vec<Name>, (usize, String)> {
    let mut texts = Vec::with_capacity(names.len());
    let mut folded = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let text = check(name).map_err(|problem| (index, problem))?;
        if !folded.insert(fold(text)) {
            let problem = "another name differs from it only in case".to_owned();
            return Err((index, problem));
        }
        texts.push(text);
    }
    let mut used = BTreeSet::new();
    let mut tails = BTreeMap::new();
    let mut result = Vec::with_capacity(names.len());
    for (index, text) in texts.into_iter().enumerate() {
        let (base, extension, whole) = basis(text);
        let own = fold(text);
        // A short name equal to the long name of another entry would name two entries.
        let free = |short: &Short| {
            let shown = show(short);
            !used.contains(short) && (shown == own || !folded.contains(&shown))
        };
        let plain = Some(pack(&base, &extension)).filter(|short| whole && free(short));
        let short = plain.or_else(|| {
            let tail = tails.entry((base.clone(), extension.clone())).or_insert(0);
            while *tail < MAX_TAIL {
                *tail += 1;
                let number = format!("~{tail}");
                let mut base = base.clone();
                base.truncate(8 - number.len());
                base.extend(number.bytes());
                let short = pack(&base, &extension);
                if free(&short) {
                    return Some(short);
                }
            }
            None
        });
        let short = short.ok_or_else(|| (index, "too many names of the directory begin alike".to_owned()))?;
        used.insert(short);
        let long = if show(&short) == text {
            Vec::new()
        } else {
            text.encode_utf16().collect()
        };
        result.push(Name { short, long });
    }
    Ok(result)
}

fn check(name: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(name).map_err(|_| "the name is not UTF-8".to_owned())?;
    if let Some(bad) = text.chars().find(|c| c.is_control() || FORBIDDEN.contains(c)) {
        return Err(format!("a name cannot hold {bad:?}"));
    }
    if text.ends_with(['.', ' ']) {
        return Err("a name cannot end with a dot or a space".to_owned());
    }
    let units = text.encode_utf16().count();
    if units > MAX_UNITS {
        return Err(format!("the name has {units} UTF-16 units, more than {MAX_UNITS}"));
    }
    Ok(text)
}

/// Base and extension of the short name, and whether they are the whole name except for case.
fn basis(name: &str) -> (Vec<u8>, Vec<u8>, bool) {
    let trimmed = name.trim_start_matches('.');
    let mut whole = trimmed.len() == name.len();
    let (base, extension) = match trimmed.rsplit_once('.') {
        Some((base, extension)) if !base.is_empty() => (base, extension),
        _ => (trimmed, ""),
    };
    let mut convert = |text: &str, most: usize| {
        let mut bytes = Vec::new();
        for c in text.chars() {
            match u8::try_from(c.to_ascii_uppercase()) {
                Ok(b) if b.is_ascii_uppercase() || b.is_ascii_digit() || SHORT_MARKS.contains(&b) => bytes.push(b),
                Ok(b' ' | b'.') => whole = false,
                _ => {
                    whole = false;
                    bytes.push(b'_');
                }
            }
        }
        whole &= bytes.len() <= most;
        bytes.truncate(most);
        bytes
    };
    let (mut base, extension) = (convert(base, 8), convert(extension, 3));
    if base.is_empty() {
        whole = false;
        base.push(b'_');
    }
    (base, extension, whole)
}

fn pack(base: &[u8], extension: &[u8]) -> Short {
    let mut short = [b' '; SHORT_SIZE];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + extension.len()].copy_from_slice(extension);
    short
}

/// The characters from 0x80 on of code page 437, which Linux takes for short names where it is not told another.
const CODE_PAGE: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
                         αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Text in code page 437.
pub(super) fn decode(bytes: &[u8]) -> String {
    let above = |byte: u8| CODE_PAGE.chars().nth(usize::from(byte - 0x80));
    let decoded = bytes.iter().map(|byte| match byte {
        0..0x80 => char::from(*byte),
        _ => above(*byte).unwrap_or(char::REPLACEMENT_CHARACTER),
    });
    decoded.collect()
}

/// The short name with its dot, in code page 437.
pub(super) fn show(short: &Short) -> String {
    let text = |bytes: &[u8]| decode(bytes.trim_ascii_end());
    let (base, extension) = (text(&short[..8]), text(&short[8..]));
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

/// A volume's label as it is stored: 1 to 11 capital letters, digits, spaces and marks; no space at either end.
pub(super) fn label(text: &str) -> Result<Short, String> {
    let fine = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ' || SHORT_MARKS.contains(&b);
    if !(1..=SHORT_SIZE).contains(&text.len()) || !text.bytes().all(fine) || text.trim() != text {
        return Err(format!(
            "{text:?} cannot be a label: 1 to {SHORT_SIZE} capital letters, digits, spaces or marks are allowed"
        ));
    }
    let mut label = [b' '; SHORT_SIZE];
    label[..text.len()].copy_from_slice(text.as_bytes());
    Ok(label)
}

/// A time in the form of a directory entry, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DosTime {
    /// Years from 1980 << 9 | month << 5 | day.
    pub(super) date: u16,
    /// Hour << 11 | minute << 5 | seconds / 2.
    pub(super) time: u16,
    /// The odd second that `time` leaves out, in hundredths of a second: 0 or 100.
    pub(super) rest: u8,
}

impl DosTime {
    /// The form of `epoch`; a time before 1980 is an error.
    pub(super) fn new(epoch: Epoch) -> Result<Self, String> {
        let bad = || format!("the time {epoch} lies before 1980");
        let seconds = i64::try_from(epoch.seconds()).map_err(|_| bad())?;
        let time = jiff::Timestamp::from_second(seconds).map_err(|_| bad())?;
        let time = jiff::tz::TimeZone::UTC.to_datetime(time);
        let years = u16::try_from(time.year() - 1980).map_err(|_| bad())?;
        let number = |part: i8| u16::from(part.unsigned_abs());
        Ok(Self {
            date: years << 9 | number(time.month()) << 5 | number(time.day()),
            time: number(time.hour()) << 11 | number(time.minute()) << 5 | (number(time.second()) / 2),
            rest: if time.second() % 2 == 0 { 0 } else { 100 },
        })
    }

    /// The moment; `None` when the fields hold no valid date or time.
    pub(super) fn epoch(self) -> Option<Epoch> {
        let part = |value: u16, bits: u32| i8::try_from(value & ((1 << bits) - 1)).ok();
        let date = jiff::civil::Date::new(
            1980 + i16::try_from(self.date >> 9).ok()?,
            part(self.date >> 5, 4)?,
            part(self.date, 5)?,
        );
        let time = jiff::civil::Time::new(
            part(self.time >> 11, 5)?,
            part(self.time >> 5, 6)?,
            part(self.time, 5)? * 2,
            0,
        );
        let time = date.ok()?.to_datetime(time.ok()?);
        let seconds = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?.as_second();
        let seconds = seconds + i64::from(self.rest / 100);
        u32::try_from(seconds).ok().map(Epoch::new)
    }
}
