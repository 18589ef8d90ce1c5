//! Reads the headers of a file.

use super::{ElfMachine, HEAD_SIZE};
use crate::image::{ImageError, ReadAt};
use object::{
    Endianness, elf as abi, pod,
    read::elf::{Dyn, FileHeader, ProgramHeader},
};
use std::io::{self, ErrorKind};

const FORMAT: &str = "an ELF file";
/// Most bytes of program headers; the kernel starts no program with more (`load_elf_phdrs` in fs/binfmt_elf.c).
const MAX_HEADERS: usize = 64 << 10;
/// A longer dynamic section is refused, bytes; the largest programs have a few kilobytes.
const MAX_DYNAMIC: u64 = 256 << 10;
/// Longest name, path or list of paths with its NUL, in bytes (`PATH_MAX`).
pub(super) const MAX_STRING: usize = 4096;
/// Most libraries that a file may need.
pub(super) const MAX_NEEDED: usize = 1024;

/// Type of an ELF file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ElfKind {
    /// An object file that is not linked yet, or a kernel module.
    Relocatable,
    /// A program for a fixed address.
    Executable,
    /// A library, or a program for any address.
    Shared,
    /// Another type, by its number: core dumps and types that operating systems define.
    Other(u16),
}

/// An ELF file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elf {
    /// Machine that the file is for.
    pub machine: ElfMachine,
    /// Type of the file.
    pub kind: ElfKind,
    /// Absolute path of the dynamic loader; `None` for libraries and static programs.
    pub interpreter: Option<Vec<u8>>,
    /// `DT_NEEDED`: the libraries that are loaded with the file, in their order; a name, or a path if it contains a `/`.
    pub needed: Vec<Vec<u8>>,
    /// `DT_RUNPATH`, or else `DT_RPATH`: the directories that are searched first, with `$ORIGIN` and the like unexpanded.
    pub search: Vec<Vec<u8>>,
    /// `DT_SONAME`: the name by which other files need this library.
    pub soname: Option<Vec<u8>>,
}

/// Reads the headers of `source`, which is of unknown origin: memory does not grow with a header's claim, and an invalid structure is
/// an error with its offset.
pub fn read_elf(source: &dyn ReadAt) -> Result<Elf, ImageError> {
    let size = source.size().map_err(|e| failed(0, e))?;
    let head = bytes(source, 0, size.min(HEAD_SIZE as u64) as usize)?;
    let machine = ElfMachine::of_head(&head).map_err(|problem| corrupt(0, problem))?;
    if machine.is_64_bit() {
        read::<abi::FileHeader64<Endianness>>(source, machine, &head)
    } else {
        read::<abi::FileHeader32<Endianness>>(source, machine, &head)
    }
}

fn read<H: FileHeader<Endian = Endianness>>(
    source: &dyn ReadAt,
    machine: ElfMachine,
    head: &[u8],
) -> Result<Elf, ImageError> {
    if head.len() < size_of::<H>() {
        return Err(corrupt(0, "its header is cut off"));
    }
    let header = H::parse(head).map_err(|_| corrupt(0, "the header has an unknown version"))?;
    let endian = header
        .endian()
        .map_err(|_| corrupt(0, "the header has an unknown byte order"))?;
    let mut elf = Elf {
        machine,
        kind: match header.e_type(endian) {
            abi::ET_REL => ElfKind::Relocatable,
            abi::ET_EXEC => ElfKind::Executable,
            abi::ET_DYN => ElfKind::Shared,
            other => ElfKind::Other(other.0),
        },
        interpreter: None,
        needed: Vec::new(),
        search: Vec::new(),
        soname: None,
    };
    let (at, count) = (header.e_phoff(endian).into(), usize::from(header.e_phnum(endian)));
    if at == 0 || count == 0 {
        return Ok(elf);
    }
    let each = usize::from(header.e_phentsize(endian));
    if each != size_of::<H::ProgramHeader>() || count * each > MAX_HEADERS {
        return Err(corrupt(
            at,
            format!("{count} program headers of {each} bytes are not a valid table"),
        ));
    }
    let table = bytes(source, at, count * each)?;
    let headers: &[H::ProgramHeader] = entries_of(&table, at)?;
    let first = |kind| headers.iter().find(|h| h.p_type(endian) == kind);
    if let Some(header) = first(abi::PT_INTERP) {
        let (at, len) = (header.p_offset(endian).into(), header.p_filesz(endian).into());
        elf.interpreter = Some(string(source, at, len)?);
    }
    if let Some(header) = first(abi::PT_DYNAMIC) {
        let (at, len) = (header.p_offset(endian).into(), header.p_filesz(endian).into());
        if len > MAX_DYNAMIC {
            return Err(corrupt(
                at,
                format!("the dynamic section has {len} bytes, more than {MAX_DYNAMIC}"),
            ));
        }
        let table = bytes(source, at, len as usize)?;
        let whole = table.len() - table.len() % size_of::<H::Dyn>();
        let entries: &[H::Dyn] = entries_of(&table[..whole], at)?;
        dynamic::<H>(source, endian, headers, entries, &mut elf)?;
    }
    Ok(elf)
}

/// Adds the names in the dynamic section to `elf`.
fn dynamic<H: FileHeader<Endian = Endianness>>(
    source: &dyn ReadAt,
    endian: Endianness,
    headers: &[H::ProgramHeader],
    entries: &[H::Dyn],
    elf: &mut Elf,
) -> Result<(), ImageError> {
    let entries = || {
        let pairs = entries.iter().map(|e| (e.tag(endian), e.val(endian)));
        pairs.take_while(|(tag, _)| *tag != abi::DT_NULL)
    };
    let value = |wanted| entries().find(|(tag, _)| *tag == wanted).map(|(_, value)| value);
    let names = [abi::DT_NEEDED, abi::DT_SONAME, abi::DT_RUNPATH, abi::DT_RPATH];
    if !entries().any(|(tag, _)| names.contains(&tag)) {
        return Ok(());
    }
    let (Some(address), Some(size)) = (value(abi::DT_STRTAB), value(abi::DT_STRSZ)) else {
        return Err(corrupt(0, "the dynamic section has names, but no table of strings"));
    };
    // The table is given by its address in memory; the segment that is loaded there gives the offset in the file.
    let place = headers
        .iter()
        .filter(|h| h.p_type(endian) == abi::PT_LOAD)
        .find_map(|h| {
            let (from, len): (u64, u64) = (h.p_vaddr(endian).into(), h.p_filesz(endian).into());
            let inside = address.checked_sub(from).filter(|by| *by < len)?;
            Some((h.p_offset(endian).into().checked_add(inside)?, size.min(len - inside)))
        });
    let (at, len) = place.ok_or_else(|| {
        corrupt(
            0,
            format!("the table of strings at address {address:#x} lies in no loaded segment"),
        )
    })?;
    let name = |offset: u64| match at.checked_add(offset) {
        Some(at) if offset < len => string(source, at, len - offset),
        _ => Err(corrupt(
            at,
            format!("a name is at offset {offset} of a string table of {len} bytes"),
        )),
    };
    for (_, offset) in entries().filter(|(tag, _)| *tag == abi::DT_NEEDED) {
        if elf.needed.len() == MAX_NEEDED {
            return Err(corrupt(0, format!("it needs more than {MAX_NEEDED} libraries")));
        }
        elf.needed.push(name(offset)?);
    }
    elf.soname = value(abi::DT_SONAME).map(name).transpose()?;
    if let Some(offset) = value(abi::DT_RUNPATH).or_else(|| value(abi::DT_RPATH)) {
        let list = name(offset)?;
        let parts = list.split(|b| *b == b':').filter(|p| !p.is_empty());
        elf.search = parts.map(<[u8]>::to_vec).collect();
    }
    Ok(())
}

/// A table that was read from `at`, as a slice of its entries.
fn entries_of<T: pod::Pod>(table: &[u8], at: u64) -> Result<&[T], ImageError> {
    pod::slice_from_all_bytes(table).map_err(|()| corrupt(at, "a table does not consist of whole entries"))
}

/// The bytes at `at` up to a NUL, which must be within `len` bytes.
fn string(source: &dyn ReadAt, at: u64, len: u64) -> Result<Vec<u8>, ImageError> {
    let size = source.size().map_err(|e| failed(at, e))?;
    let len = len.min(size.saturating_sub(at)).min(MAX_STRING as u64);
    let mut text = bytes(source, at, len as usize)?;
    let end = text.iter().position(|b| *b == 0);
    text.truncate(end.ok_or_else(|| corrupt(at, format!("a name has no NUL within {len} bytes")))?);
    Ok(text)
}

/// Reads `len` bytes; the caller has bounded `len`.
fn bytes(source: &dyn ReadAt, at: u64, len: usize) -> Result<Vec<u8>, ImageError> {
    let mut out = vec![0; len];
    source.read_exact_at(&mut out, at).map_err(|e| failed(at, e))?;
    Ok(out)
}

fn failed(offset: u64, source: io::Error) -> ImageError {
    match source.kind() {
        ErrorKind::UnexpectedEof => corrupt(offset, "the file ends before a structure that lies there"),
        _ => ImageError::Input {
            format: FORMAT,
            offset,
            source,
        },
    }
}

fn corrupt(offset: u64, problem: impl ToString) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem: problem.to_string(),
    }
}
