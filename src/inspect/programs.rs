//! Programs: EFI binaries, kernels, ELF files.
//!
//! ```text
//! zboot    "MZ" · "zimg" at 4; le32 at 8 and 0xc: offset and length of the compressed kernel; at 0x18: name of the compression
//! bzImage  "HdrS" at 0x202; le16 at 0x20e + 0x200: the version string; le16 at 0x206: protocol version
//!          le32 at 0x248 and 0x24c: offset behind the setup sectors and length of the compressed kernel, since protocol 2.8
//! Image    "ARM\x64" at 0x38; le64 at 0x10: its size in memory
//! ELF      "\x7fELF" · class at 4 · le16 at 0x12: machine · a note of type 3 and owner "GNU" is the build id
//! ```
//!
//! Sources: Microsoft's PE format specification; <https://docs.kernel.org/arch/x86/boot.html>;
//! <https://docs.kernel.org/arch/arm64/booting.html>; `elf(5)`.

use super::{
    ext4::shown,
    part::{Fields, Look},
    pe,
};
use crate::image::{
    ReadAt, Source,
    cpio::{Compression, MAX_MAGIC, unread_compression},
};
use std::io;

/// Longest version string of a kernel, bytes.
const MAX_VERSION: usize = 256;
/// The format of a program for EFI that is no kernel.
pub(super) const EFI_PROGRAM: &str = "EFI program";
/// Program headers above this number are not read.
const MAX_HEADERS: u64 = 128;
/// Longer notes are not read, bytes.
const MAX_NOTES: u64 = 64 * 1024;

fn bytes<const N: usize>(source: &Source, at: u64) -> io::Result<[u8; N]> {
    let mut out = [0; N];
    source.read_exact_at(&mut out, at)?;
    Ok(out)
}
fn le16(source: &Source, at: u64) -> io::Result<u16> {
    Ok(u16::from_le_bytes(bytes(source, at)?))
}
fn le32(source: &Source, at: u64) -> io::Result<u32> {
    Ok(u32::from_le_bytes(bytes(source, at)?))
}
fn le64(source: &Source, at: u64) -> io::Result<u64> {
    Ok(u64::from_le_bytes(bytes(source, at)?))
}

/// Whether an x86 kernel begins here.
pub(super) fn is_bzimage(head: &[u8]) -> bool {
    head.get(0x202..0x206) == Some(b"HdrS")
}
/// Whether an arm64 kernel begins here.
pub(super) fn is_arm64_image(head: &[u8]) -> bool {
    head.get(0x38..0x3c) == Some(b"ARM\x64")
}

/// An EFI program or a kernel, or both at once.
pub(super) fn efi(source: &Source, size: u64, head: &[u8]) -> Look {
    let mut look = Look {
        format: EFI_PROGRAM,
        ..Look::default()
    };
    if is_bzimage(head) {
        look.format = "Linux kernel (bzImage)";
        if let Err(error) = bzimage(source, &mut look.fields) {
            look.problem = Some(format!("its setup header is cut off: {error}"));
        }
    } else if is_arm64_image(head) {
        look.format = "Linux kernel (arm64 Image)";
    }
    if head.starts_with(b"MZ") && head.get(4..8) == Some(b"zimg") {
        look.format = "Linux kernel (EFI zboot)";
        zboot(head, size, &mut look);
    }
    if head.starts_with(b"MZ") {
        match pe::look(source, size, &mut look) {
            Ok(()) => {}
            Err(_) if look.format != EFI_PROGRAM => drop(look.fields.insert("signed".to_owned(), "no".to_owned())),
            Err(error) => look.add_problem(format!("its PE header cannot be read: {error}")),
        }
    }
    look
}

/// The compressed kernel of an EFI zboot image.
fn zboot(head: &[u8], size: u64, look: &mut Look) {
    let word = |at: usize| {
        head.get(at..at + 4)
            .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    let (from, len) = (u64::from(word(8)), u64::from(word(0xc)));
    let name = head.get(0x18..0x38).unwrap_or_default();
    let name = shown(name.split(|b| *b == 0).next().unwrap_or_default());
    look.fields
        .insert("payload".to_owned(), format!("{name}, {len} bytes at {from}"));
    if from + len > size {
        look.add_problem("its compressed kernel goes past the end of the file");
    }
}

fn bzimage(source: &Source, fields: &mut Fields) -> io::Result<()> {
    let protocol = le16(source, 0x206)?;
    fields.insert(
        "boot protocol".to_owned(),
        format!("{}.{}", protocol >> 8, protocol & 0xff),
    );
    if protocol >= 0x208 {
        // 0 stands for 4 setup sectors.
        let setup = u64::from(bytes::<1>(source, 0x1f1)?[0]);
        let setup = (if setup == 0 { 4 } else { setup } + 1) * 512;
        let (from, len) = (setup + u64::from(le32(source, 0x248)?), u64::from(le32(source, 0x24c)?));
        let mut magic = vec![0; MAX_MAGIC];
        if len > 0 && source.read_exact_at(&mut magic, from).is_ok() {
            let name = Compression::of(&magic).map(Compression::as_str);
            let name = name
                .or_else(|| unread_compression(&magic))
                .unwrap_or("unknown compression");
            fields.insert("payload".to_owned(), format!("{name}, {len} bytes at {from}"));
        }
    }
    let pointer = u64::from(le16(source, 0x20e)?);
    if pointer > 0 {
        let mut text = vec![0; MAX_VERSION];
        source.read_exact_at(&mut text, pointer + 0x200)?;
        let text = text.split(|b| *b == 0).next().unwrap_or_default();
        fields.insert("version".to_owned(), shown(text));
        // "6.12.43+deb13-amd64 (debian-kernel@…) #1 SMP …": the first word is the output of `uname -r`.
        let release = text.split(|b| *b == b' ').next().unwrap_or_default();
        fields.insert("release".to_owned(), shown(release));
    }
    Ok(())
}

/// An ELF file.
pub(super) fn elf(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "ELF",
        ..Look::default()
    };
    if let Err(error) = elf_fields(source, size, &mut look.fields) {
        look.problem = Some(format!("its headers are cut off: {error}"));
    }
    look
}

fn elf_fields(source: &Source, size: u64, fields: &mut Fields) -> io::Result<()> {
    let ident = bytes::<16>(source, 0)?;
    let machine = match le16(source, 0x12)? {
        0x3e => "x86-64".to_owned(),
        0xb7 => "arm64".to_owned(),
        0x3 => "x86".to_owned(),
        other => format!("{other:#x}"),
    };
    fields.insert("machine".to_owned(), machine);
    if ident[4] != 2 || ident[5] != 1 {
        return Ok(());
    }
    let (table, each, count) = (
        le64(source, 0x20)?,
        u64::from(le16(source, 0x36)?),
        u64::from(le16(source, 0x38)?),
    );
    for index in 0..count.min(MAX_HEADERS) {
        let Some(at) = index.checked_mul(each).and_then(|o| o.checked_add(table)) else {
            break;
        };
        if le32(source, at)? != 4 {
            continue;
        }
        let (from, len) = (le64(source, at + 8)?, le64(source, at + 32)?);
        if len > MAX_NOTES || from.checked_add(len).is_none_or(|end| end > size) {
            continue;
        }
        let mut notes = vec![0; len as usize];
        source.read_exact_at(&mut notes, from)?;
        if let Some(id) = build_id(&notes) {
            fields.insert("build id".to_owned(), hex::encode(id));
        }
    }
    Ok(())
}

fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let word = |at: usize| {
            notes
                .get(at..at + 4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let (name, desc, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let desc_at = 12usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let found = notes.get(desc_at..desc_at.checked_add(desc)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return Some(found);
        }
        notes = notes.get(desc_at.checked_add(desc.checked_next_multiple_of(4)?)?..)?;
    }
}
