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
/// Longest dynamic section that is read, bytes; those of the largest programs have a few kilobytes.
const MAX_DYNAMIC: u64 = 256 << 10;
/// Longest name, path or list of paths with its NUL, bytes (`PATH_MAX`).
pub(super) const MAX_STRING: usize = 4096;
/// Most names a file may need.
pub(super) const MAX_NEEDED: usize = 1024;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ElfKind {
    /// Not linked yet: an object file, or a kernel module.
    Relocatable,
    /// A program at a fixed address.
    Executable,
    /// A library, or a program for any address.
    Shared,
    /// Anything else, by its number: core dumps and what an operating system defines for itself.
    Other(u16),
}

/// An ELF file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elf {
    /// What it runs on.
    pub machine: ElfMachine,
    /// What it is.
    pub kind: ElfKind,
    /// Absolute path of the dynamic loader; none for libraries and static programs.
    pub interpreter: Option<Vec<u8>>,
    /// `DT_NEEDED`: libraries it is loaded with, in their order; a name, or a path when there is a `/` in it.
    pub needed: Vec<Vec<u8>>,
    /// `DT_RUNPATH`, or where there is none `DT_RPATH`: directories searched first, `$ORIGIN` and the like not filled in.
    pub search: Vec<Vec<u8>>,
    /// `DT_SONAME`: the name others need it by.
    pub soname: Option<Vec<u8>>,
}

/// Reads the headers of `source`. Nothing is believed: memory does not grow with what a header claims, and whatever is not as it
/// should be is an error that says where.
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
    let header = H::parse(head).map_err(|_| corrupt(0, "its header is of no known version"))?;
    let endian = header
        .endian()
        .map_err(|_| corrupt(0, "its header is of no known byte order"))?;
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
            format!("{count} program headers of {each} bytes each are no table of them"),
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
                format!("a dynamic section of {len} bytes is more than {MAX_DYNAMIC}"),
            ));
        }
        let table = bytes(source, at, len as usize)?;
        let whole = table.len() - table.len() % size_of::<H::Dyn>();
        let entries: &[H::Dyn] = entries_of(&table[..whole], at)?;
        dynamic::<H>(source, endian, headers, entries, &mut elf)?;
    }
    Ok(elf)
}

/// Fills in what stands in the dynamic section.
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
        return Err(corrupt(0, "its dynamic section has names, but no table of strings"));
    };
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
            format!("its table of strings, at address {address:#x}, is in no part that is loaded"),
        )
    })?;
    let name = |offset: u64| match at.checked_add(offset) {
        Some(at) if offset < len => string(source, at, len - offset),
        _ => Err(corrupt(at, format!("a name is at {offset} of a table of {len} bytes"))),
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

/// A table read from `at`, as what it holds.
fn entries_of<T: pod::Pod>(table: &[u8], at: u64) -> Result<&[T], ImageError> {
    pod::slice_from_all_bytes(table).map_err(|()| corrupt(at, "a table does not hold whole entries"))
}

/// The bytes up to a NUL, of at most `len` bytes at `at`.
fn string(source: &dyn ReadAt, at: u64, len: u64) -> Result<Vec<u8>, ImageError> {
    let size = source.size().map_err(|e| failed(at, e))?;
    let len = len.min(size.saturating_sub(at)).min(MAX_STRING as u64);
    let mut text = bytes(source, at, len as usize)?;
    let end = text.iter().position(|b| *b == 0);
    text.truncate(end.ok_or_else(|| corrupt(at, format!("a name does not end within {len} bytes")))?);
    Ok(text)
}

/// `len` bytes, which the caller has bounded.
fn bytes(source: &dyn ReadAt, at: u64, len: usize) -> Result<Vec<u8>, ImageError> {
    let mut out = vec![0; len];
    source.read_exact_at(&mut out, at).map_err(|e| failed(at, e))?;
    Ok(out)
}

fn failed(offset: u64, source: io::Error) -> ImageError {
    match source.kind() {
        ErrorKind::UnexpectedEof => corrupt(offset, "the file ends before it"),
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
