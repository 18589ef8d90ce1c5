//! The header of an entry, and the values that have a meaning.

/// Name of the format in messages.
pub(super) const FORMAT: &str = "a cpio archive";
/// Name of the entry that ends an archive.
pub(super) const TRAILER: &[u8] = b"TRAILER!!!";
/// The end of an archive is padded to a multiple of this, as cpio(1) does.
pub(super) const ARCHIVE_ALIGN: u64 = 512;
/// Names and contents are padded to a multiple of this, and an archive begins at one.
pub(super) const ALIGN: u64 = 4;

/// Bytes of a header.
pub(super) const HEADER_SIZE: usize = 110;
/// First bytes of a header that is written, and of a header in the form with checksums, which is only read.
pub(super) const MAGIC: &[u8; 6] = b"070701";
pub(super) const MAGIC_SUMMED: &[u8; 6] = b"070702";
pub(super) const MAGICS: [&[u8; 6]; 2] = [MAGIC, MAGIC_SUMMED];

pub(super) const S_IFMT: u32 = 0o170_000;
pub(super) const S_IFDIR: u32 = 0o040_000;
pub(super) const S_IFREG: u32 = 0o100_000;
pub(super) const S_IFLNK: u32 = 0o120_000;
pub(super) const S_IFCHR: u32 = 0o020_000;
pub(super) const S_IFBLK: u32 = 0o060_000;
pub(super) const S_IFIFO: u32 = 0o010_000;

/// The thirteen fields in their order on disk, each of eight hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct CpioHeader {
    pub(super) ino: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) mtime: u32,
    pub(super) size: u32,
    pub(super) dev: (u32, u32),
    pub(super) rdev: (u32, u32),
    /// Length of the name with its NUL.
    pub(super) namesize: u32,
    /// Sum of the bytes of the content; 0 in the form without checksums.
    pub(super) check: u32,
}

impl CpioHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_SIZE] {
        let fields = [
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.mtime,
            self.size,
            self.dev.0,
            self.dev.1,
            self.rdev.0,
            self.rdev.1,
            self.namesize,
            self.check,
        ];
        let mut out = [0; HEADER_SIZE];
        out[..6].copy_from_slice(MAGIC);
        for (place, field) in out[6..].chunks_exact_mut(8).zip(fields) {
            for (i, digit) in place.iter_mut().enumerate() {
                *digit = b"0123456789ABCDEF"[(field >> (28 - 4 * i)) as usize & 15];
            }
        }
        out
    }

    /// The fields of a header, and whether it states a checksum; the error is the problem with its bytes.
    pub(super) fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<(Self, bool), String> {
        if !MAGICS.iter().any(|magic| bytes.starts_with(*magic)) {
            return Err(format!(
                "the magic is \"{}\" instead of 070701 or 070702",
                bytes[..6].escape_ascii()
            ));
        }
        let summed = bytes.starts_with(MAGIC_SUMMED);
        let mut fields = [0u32; 13];
        for (field, digits) in fields.iter_mut().zip(bytes[6..].chunks_exact(8)) {
            for digit in digits {
                let value = char::from(*digit)
                    .to_digit(16)
                    .ok_or_else(|| format!("\"{}\" is not eight hexadecimal digits", digits.escape_ascii()))?;
                *field = *field << 4 | value;
            }
        }
        let [
            ino,
            mode,
            uid,
            gid,
            nlink,
            mtime,
            size,
            dev_major,
            dev_minor,
            rdev_major,
            rdev_minor,
            namesize,
            check,
        ] = fields;
        let header = Self {
            ino,
            mode,
            uid,
            gid,
            nlink,
            mtime,
            size,
            dev: (dev_major, dev_minor),
            rdev: (rdev_major, rdev_minor),
            namesize,
            check,
        };
        Ok((header, summed))
    }
}

/// Number of zeros from `offset` to the next multiple of `align`.
pub(super) fn padding(offset: u64, align: u64) -> u64 {
    offset.next_multiple_of(align) - offset
}
