//! Finds the format of bytes by the first ones.

use super::{
    budget::Budget,
    disks, ext4, fat, foreign, media,
    part::{Look, SpoolDirectory},
    programs, streams, tar, text, trees,
};
use crate::image::{
    ReadAt, Source, composefs,
    cpio::{Compression, unread_compression},
};
use std::sync::Arc;

/// Bytes at the beginning that are examined: the last magic is that of ISO 9660, in sector 16.
const HEAD: u64 = 17 * 2048;
/// Offset of `EXT4_SUPER_MAGIC`.
const EXT4_MAGIC_AT: usize = 1024 + 0x38;
const EXT4_MAGIC: &[u8] = &[0x53, 0xef];
/// "newc" without and with checksums.
pub(super) const CPIO_MAGIC: [&[u8; 6]; 2] = [b"070701", b"070702"];
/// Archives of cpio that neither pnb nor the kernel reads, by their first bytes.
const OTHER_CPIO: [(&[u8], &str); 3] = [
    (b"070707", "cpio (odc)"),
    (&[0xc7, 0x71], "cpio (binary)"),
    (&[0x71, 0xc7], "cpio (binary, big-endian)"),
];
/// First bytes of a skippable zstd frame, of which the first has any lower half; RFC 8878 section 3.1.2.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// POSIX.1-1988 `ustar`.
const TAR_MAGIC_AT: usize = 257;

/// Format of bytes, by their begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Composefs,
    Ext4,
    /// A cpio archive or a compressed stream, or several of them.
    Stream(Compression),
    /// A stream of a known compression that is not read.
    Unread(&'static str),
    /// A cpio archive in another form than "newc".
    OtherCpio(&'static str),
    Ar,
    Elf,
    Program,
    Tar,
    Qcow2,
    Gpt,
    Fat,
    Iso,
    Mbr,
    Other,
}

/// The bytes whose format is sought, and the means to decompress them.
pub(super) struct Holder<'a> {
    pub(super) source: &'a Source,
    pub(super) size: u64,
    pub(super) scratch: &'a SpoolDirectory,
    pub(super) budget: &'a Arc<Budget>,
}

/// The first bytes of `source`, which has `size` bytes.
pub(super) fn head(source: &Source, size: u64) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0; size.min(HEAD) as usize];
    source.read_exact_at(&mut head, 0)?;
    Ok(head)
}

/// The compression of the stream that begins here.
pub(super) fn stream_magic(head: &[u8]) -> Option<Compression> {
    let skippable =
        || matches!(head, [first, rest @ ..] if first & 0xf0 == SKIPPABLE[0] && rest.starts_with(&SKIPPABLE[1..]));
    Compression::of(head).or_else(|| skippable().then_some(Compression::Zstd))
}

pub(super) fn format(head: &[u8]) -> Format {
    let at = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if composefs::is_composefs(head) {
        Format::Composefs
    } else if at(EXT4_MAGIC_AT, EXT4_MAGIC) {
        Format::Ext4
    } else if head.starts_with(disks::QCOW2_MAGIC) {
        Format::Qcow2
    } else if CPIO_MAGIC.iter().any(|magic| head.starts_with(*magic)) {
        Format::Stream(Compression::None)
    } else if let Some(compression) = stream_magic(head) {
        Format::Stream(compression)
    } else if let Some(name) = unread_compression(head) {
        Format::Unread(name)
    } else if let Some((_, name)) = OTHER_CPIO.iter().find(|(magic, _)| head.starts_with(magic)) {
        Format::OtherCpio(name)
    } else if head.starts_with(trees::AR_MAGIC) {
        Format::Ar
    } else if head.starts_with(b"\x7fELF") {
        Format::Elf
    } else if head.starts_with(b"MZ") || programs::is_bzimage(head) || programs::is_arm64_image(head) {
        Format::Program
    } else if at(TAR_MAGIC_AT, b"ustar") {
        Format::Tar
    } else if disks::is_protective(head)
        && disks::GPT_MAGIC_AT.iter().any(|place| at(*place, disks::GPT_MAGIC))
        && !at(media::ISO_MAGIC_AT, media::ISO_MAGIC)
    {
        // In front of a table, the boot code of a file system that was there before may be left.
        Format::Gpt
    } else if at(media::ISO_MAGIC_AT, media::ISO_MAGIC) {
        Format::Iso
    } else if fat::is_fat(head) {
        Format::Fat
    } else if disks::GPT_MAGIC_AT.iter().any(|place| at(*place, disks::GPT_MAGIC)) || disks::is_protective(head) {
        Format::Gpt
    } else if disks::is_mbr(head) {
        Format::Mbr
    } else {
        Format::Other
    }
}

pub(super) fn look(holder: &Holder<'_>) -> Look {
    let (source, size) = (holder.source, holder.size);
    let head = match head(source, size) {
        Ok(head) => head,
        Err(error) => return Look::data(Some(error.to_string())),
    };
    let mut format = format(&head);
    if matches!(
        format,
        Format::Other | Format::Mbr | Format::Gpt | Format::Fat | Format::Ext4
    ) && let Some(look) = foreign::fixed_vhd(source, size)
    {
        return look;
    }
    // A boot sector of another file system has entries of partitions by accident.
    if matches!(format, Format::Other | Format::Mbr)
        && let Some(look) = foreign::look(source, size, &head)
    {
        return look;
    }
    if format == Format::Other && disks::has_backup_table(source, size) {
        format = Format::Gpt;
    }
    match format {
        Format::Composefs => trees::composefs(source, size),
        Format::Ext4 => ext4::look(source),
        Format::Stream(compression) => streams::look(holder, compression),
        Format::Unread(format) => streams::unread(format, "compression"),
        Format::OtherCpio(format) => streams::unread(format, "form of cpio"),
        Format::Ar => trees::ar(source, size),
        Format::Elf => programs::elf(source, size),
        Format::Program => programs::efi(source, size, &head),
        Format::Tar => tar::look(source, size),
        Format::Qcow2 => disks::qcow2(holder),
        Format::Fat => fat::look(source, size),
        Format::Iso => media::iso(source, size),
        Format::Gpt => disks::gpt(source, size),
        Format::Mbr => disks::mbr(source, size),
        Format::Other => {
            let data = Look {
                format: if size == 0 { "empty" } else { "data" },
                ..Look::default()
            };
            text::look(source, size, &head).unwrap_or(data)
        }
    }
}
