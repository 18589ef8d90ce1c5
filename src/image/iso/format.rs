//! Numbers, names and dates in the forms of ISO 9660.

use crate::image::{ImageError, ReadAt};

/// Name of the format in messages.
pub(super) const FORMAT: &str = "an ISO 9660 image";
/// Bytes of a sector; an image with other logical blocks is refused.
pub(super) const SECTOR: u64 = 2048;

pub(super) fn corrupt(offset: u64, problem: impl Into<String>) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem: problem.into(),
    }
}

pub(super) fn input(offset: u64, source: std::io::Error) -> ImageError {
    ImageError::Input {
        format: FORMAT,
        offset,
        source,
    }
}

pub(super) fn read_sector(image: &impl ReadAt, offset: u64) -> Result<[u8; SECTOR as usize], ImageError> {
    let mut sector = [0; SECTOR as usize];
    image.read_exact_at(&mut sector, offset).map_err(|e| input(offset, e))?;
    Ok(sector)
}

pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

/// A 16-bit number that is stored in both byte orders (ECMA-119 7.2.3); `None` when the two differ.
pub(super) fn both16(bytes: &[u8], at: usize) -> Option<u16> {
    let little = le16(bytes, at);
    let big = bytes.get(at + 2..at + 4)?;
    (u16::from_be_bytes([big[0], big[1]]) == little).then_some(little)
}

/// A 32-bit number that is stored in both byte orders (ECMA-119 7.3.3); `None` when the two differ.
pub(super) fn both32(bytes: &[u8], at: usize) -> Option<u32> {
    let little = le32(bytes, at);
    let big = bytes.get(at + 4..at + 8)?;
    (u32::from_be_bytes([big[0], big[1], big[2], big[3]]) == little).then_some(little)
}

/// Text without its padding of spaces or, from some writers, NULs.
pub(super) fn padded(bytes: &[u8]) -> Vec<u8> {
    let end = bytes
        .iter()
        .rposition(|b| !matches!(b, b' ' | 0))
        .map_or(0, |last| last + 1);
    bytes[..end].to_vec()
}

/// Seconds since the Unix epoch of a civil time, `zone` quarters of an hour ahead of UTC.
fn seconds(year: i16, fields: [i8; 5], zone: u8) -> Option<i64> {
    let [month, day, hour, minute, second] = fields;
    let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let offset = jiff::tz::Offset::from_seconds(i32::from(zone.cast_signed()) * 15 * 60).ok()?;
    offset.to_timestamp(civil).ok().map(jiff::Timestamp::as_second)
}

/// A date of seven bytes (ECMA-119 9.1.5) in seconds since the Unix epoch; `None` when it is unset or not a valid date.
pub(super) fn short_date(bytes: &[u8]) -> Option<i64> {
    let [year, fields @ .., zone] = bytes.first_chunk::<7>()?;
    seconds(1900 + i16::from(*year), fields.map(u8::cast_signed), *zone)
}

/// A date of seventeen bytes (ECMA-119 8.4.26.1) in seconds since the Unix epoch; `None` when it is unset or not a valid date.
pub(super) fn long_date(bytes: &[u8]) -> Option<i64> {
    let bytes = bytes.first_chunk::<17>()?;
    let number = |from: usize, to: usize| -> Option<i16> {
        let digits = &bytes[from..to];
        let known = digits.iter().all(u8::is_ascii_digit);
        known.then(|| digits.iter().fold(0, |n, d| n * 10 + i16::from(d - b'0')))
    };
    let mut fields = [0; 5];
    for (n, field) in fields.iter_mut().enumerate() {
        *field = number(4 + 2 * n, 6 + 2 * n)? as i8;
    }
    seconds(number(0, 4)?, fields, bytes[16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_and_nonsense_is_none() {
        assert_eq!(short_date(&[125, 6, 15, 15, 6, 40, 0]), Some(1_750_000_000));
        assert_eq!(short_date(&[125, 6, 15, 17, 6, 40, 8]), Some(1_750_000_000));
        assert_eq!(short_date(&[125, 6, 15, 10, 6, 40, 236]), Some(1_750_000_000));
        assert_eq!(long_date(b"2025061515064000\0"), Some(1_750_000_000));
        assert_eq!(long_date(b"2025061517064099\x08"), Some(1_750_000_000));
        for unset in [
            b"0000000000000000\0",
            b"                \0",
            b"2025063115064000\0",
            b"20250615150640--\x7f",
        ] {
            assert_eq!(long_date(unset), None, "{}", unset.escape_ascii());
        }
        for unset in [[0; 7], [255; 7], [125, 2, 30, 0, 0, 0, 0]] {
            assert_eq!(short_date(&unset), None);
        }
        assert_eq!(long_date(b"2025"), None);
    }

    #[test]
    fn a_number_whose_two_forms_differ_is_none() {
        assert_eq!(both16(&[1, 2, 2, 1], 0), Some(0x201));
        assert_eq!(both16(&[1, 2, 1, 2], 0), None);
        assert_eq!(both32(&[9, 1, 0, 0, 0, 0, 0, 0, 1, 9], 1), Some(1));
        assert_eq!(both32(&[1, 0, 0, 0, 0, 0, 0], 0), None);
    }
}
