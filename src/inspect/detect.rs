//! Which format bytes have, judged by their first ones.

use super::{
    ext4,
    part::{Look, Part, Scratch},
    programs, streams, text, trees,
};
use crate::image::{ReadAt, Source, composefs, cpio::Compression};

/// How much of the beginning is looked at.
const HEAD: u64 = 4096;
/// `EXT4_SUPER_MAGIC` lies here.
const EXT4_MAGIC_AT: usize = 1024 + 0x38;
const EXT4_MAGIC: &[u8] = &[0x53, 0xef];
/// "newc" without and with checksums.
const CPIO_MAGIC: [&[u8]; 2] = [b"070701", b"070702"];
/// POSIX.1-1988 `ustar`.
const TAR_MAGIC_AT: usize = 257;

/// How a stream that begins like this is compressed, if it is.
pub(super) fn compression(head: &[u8]) -> Option<Compression> {
    [
        (&[0x28, 0xb5, 0x2f, 0xfd][..], Compression::Zstd),
        (&[0x1f, 0x8b, 0x08], Compression::Gzip),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
    ]
    .into_iter()
    .find(|(magic, _)| head.starts_with(magic))
    .map(|(_, compression)| compression)
}

pub(super) fn look(source: &Source, size: u64, scratch: &Scratch) -> Look {
    let mut head = vec![0; size.min(HEAD) as usize];
    if let Err(error) = source.read_exact_at(&mut head, 0) {
        return Look {
            format: "data",
            problem: Some(error.to_string()),
            ..Look::default()
        };
    }
    let at = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if composefs::is_composefs(&head) {
        trees::composefs(source, size)
    } else if at(EXT4_MAGIC_AT, EXT4_MAGIC) {
        ext4::look(source)
    } else if CPIO_MAGIC.iter().any(|magic| head.starts_with(magic)) {
        streams::look(source, size, Compression::None, scratch)
    } else if let Some(compression) = compression(&head) {
        streams::look(source, size, compression, scratch)
    } else if head.starts_with(trees::AR_MAGIC) {
        trees::ar(source, size)
    } else if head.starts_with(b"\x7fELF") {
        programs::elf(source, size)
    } else if head.starts_with(b"MZ") || programs::is_bzimage(&head) || programs::is_arm64_image(&head) {
        programs::efi(source, size, &head)
    } else if at(TAR_MAGIC_AT, b"ustar") {
        trees::tar(source, size)
    } else {
        let data = Look {
            format: if size == 0 { "empty" } else { "data" },
            ..Look::default()
        };
        text::look(source, size, &head).unwrap_or(data)
    }
}

/// Whether `part` has a format of which parts are named, rather than a stream or something unknown.
pub(super) fn is_container(_part: &Part) -> bool {
    false
}

/// Whether a FAT file system begins here.
pub(super) fn is_fat(_part: &Part) -> bool {
    false
}
