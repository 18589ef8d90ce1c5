//! `Guid`: the 128-bit identifiers of disks, partitions and file systems, derived from the root that they hold.

use crate::model::VerityDigest;
use sha2::{Digest, Sha256};
use std::fmt;

/// A UUID in the byte order of its text (RFC 9562).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

impl Guid {
    /// All zeros; in a partition table this means "no partition".
    pub const NIL: Self = Self([0; 16]);

    /// The GUID with these hexadecimal digits.
    pub const fn new(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    /// A version 8 UUID (RFC 9562 section 5.8) that depends only on the format, the purpose and the root: the first 128 bits of
    /// SHA-256(`pnb <format> <purpose>` NUL root digest).
    pub fn derived(format: &str, purpose: &str, root: &VerityDigest) -> Self {
        let mut hash = Sha256::new();
        hash.update(format!("pnb {format} {purpose}\0"));
        hash.update(root.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// The bytes on disk (UEFI specification, section 2.3): the first three fields are little-endian.
    pub const fn to_disk(self) -> [u8; 16] {
        let b = self.0;
        [
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
        ]
    }

    /// The bytes in the order of the text, as ext4 stores them.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The inverse of [`Guid::to_disk`].
    pub const fn from_disk(bytes: [u8; 16]) -> Self {
        // The exchange of the bytes is its own inverse.
        Self(Self(bytes).to_disk())
    }
}

/// Lower-case, in five groups.
impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = hex::encode(self.0);
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        f.write_str(&parts.join("-"))
    }
}
impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_disk_order_are_those_of_uefi() {
        // The EFI system partition's type, as every such disk has it.
        let esp = Guid::new(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        let disk = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
        assert_eq!(esp.to_disk(), disk);
        assert_eq!(Guid::from_disk(disk), esp);
    }

    #[test]
    fn a_derived_one_is_version_8_and_depends_on_all_three() {
        let root = VerityDigest::new([7; 32]);
        let one = Guid::derived("gpt", "disk", &root);
        // printf 'pnb gpt disk\0' and 32 bytes of 7, through sha256sum; version and variant set by hand.
        assert_eq!(one.to_string(), "a2f52676-3bd8-8a63-94ef-eeb365910668");
        for other in [
            Guid::derived("gpt", "esp", &root),
            Guid::derived("ext4", "disk", &root),
            Guid::derived("gpt", "disk", &VerityDigest::new([8; 32])),
        ] {
            assert_ne!(one, other);
        }
    }
}
