//! `SectorSize`: the logical sectors of a disk, in which its partition table and its boot file system count.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;

/// Bytes of a logical sector of a disk. Disks "512e" have physical sectors of 4096 bytes and logical ones of 512; disks "4Kn" have
/// 4096 for both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum SectorSize {
    /// 512 bytes.
    #[default]
    Bytes512,
    /// 4096 bytes.
    Bytes4096,
}

impl SectorSize {
    /// Both sizes, the smaller first.
    pub const ALL: [SectorSize; 2] = [SectorSize::Bytes512, SectorSize::Bytes4096];

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            SectorSize::Bytes512 => 512,
            SectorSize::Bytes4096 => 4096,
        }
    }

    /// The size with this number of bytes; `None` for numbers other than 512 and 4096.
    pub fn of(bytes: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.bytes() == bytes)
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

impl Serialize for SectorSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.bytes())
    }
}

impl<'de> Deserialize<'de> for SectorSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = u64::deserialize(d)?;
        Self::of(bytes).ok_or_else(|| D::Error::custom(format!("a sector has 512 or 4096 bytes, not {bytes}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_its_bytes_and_no_other_number_is_read() {
        for size in SectorSize::ALL {
            let text = serde_json::to_string(&size).expect("written");
            assert_eq!(text, size.to_string());
            assert_eq!(serde_json::from_str::<SectorSize>(&text).expect("read"), size);
        }
        for bad in ["0", "520", "2048", "8192", "\"512\""] {
            assert!(serde_json::from_str::<SectorSize>(bad).is_err(), "{bad}");
        }
    }
}
