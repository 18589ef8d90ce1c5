//! Directory records, ECMA-119 section 9.1.

use super::format::{SECTOR, both32, corrupt, short_date};
use crate::image::ImageError;

/// Bytes of a record without its name.
pub(super) const RECORD: usize = 33;
// Offsets of the fields.
/// Blocks of the extended attribute record in front of the data.
const ATTRIBUTE_LENGTH: usize = 1;
const EXTENT: usize = 2;
const DATA_LENGTH: usize = 10;
const RECORDING_DATE: usize = 18;
const FLAGS: usize = 25;
/// Sizes of an interleaved file; 0 for others.
const UNIT_SIZE: usize = 26;
const GAP_SIZE: usize = 27;
const NAME_LENGTH: usize = 32;
/// Flags of a record.
pub(super) const DIRECTORY: u8 = 2;
pub(super) const ASSOCIATED: u8 = 4;
pub(super) const MULTI_EXTENT: u8 = 128;

/// A directory record without its Rock Ridge entries.
pub(super) struct DirectoryRecord<'a> {
    pub(super) name: &'a [u8],
    pub(super) system_use: &'a [u8],
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) flags: u8,
    pub(super) modified: Option<i64>,
    pub(super) problem: Option<&'static str>,
}

impl<'a> DirectoryRecord<'a> {
    /// Parses a whole record, which lies at `offset` in the image.
    pub(super) fn parse(bytes: &'a [u8], offset: u64) -> Result<Self, ImageError> {
        let bad = |problem: &str| corrupt(offset, format!("directory record: {problem}"));
        let name_len = usize::from(*bytes.get(NAME_LENGTH).ok_or_else(|| bad("it is cut off"))?);
        let name = bytes.get(RECORD..RECORD + name_len).filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| bad("the name does not fit into it"))?;
        let block = both32(bytes, EXTENT).ok_or_else(|| bad("the two forms of its extent differ"))?;
        let size = both32(bytes, DATA_LENGTH).ok_or_else(|| bad("the two forms of its size differ"))?;
        // A name of even length is followed by a byte of padding.
        let system_use = bytes.get(RECORD + (name_len | 1)..).unwrap_or_default();
        Ok(Self {
            name,
            system_use,
            start: (u64::from(block) + u64::from(bytes[ATTRIBUTE_LENGTH])) * SECTOR,
            size: u64::from(size),
            flags: bytes[FLAGS],
            modified: short_date(&bytes[RECORDING_DATE..FLAGS]),
            problem: (bytes[UNIT_SIZE] != 0 || bytes[GAP_SIZE] != 0).then_some("it is interleaved"),
        })
    }
}
