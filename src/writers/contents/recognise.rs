//! Recognition of a file by its name and its first bytes; no more of the file is read than that needs.

use super::{modules, view::FileContent};
use crate::{
    image::{
        ReadAt, ReadCursor,
        elf::{self, ElfMachine, HEAD_SIZE, read_elf},
    },
    model::RelPath,
};
use std::io::{self, BufReader, Read};

/// Longest first line of a script, bytes (`BINPRM_BUF_SIZE` of the kernel).
const MAX_LINE: usize = 256;
/// Longest index of kernel modules, bytes; the index of a whole kernel has less than one MiB.
const MAX_INDEX: u64 = 16 << 20;
/// Most memory for decompressing the first bytes of an xz file, bytes.
const XZ_MEMORY: u64 = 64 << 20;
/// Bytes of compressed input that are read at a time: the first bytes of an xz file need no more.
const PIECE: usize = 4096;

/// Recognises the file at `path`; `None` when its contents do not matter. Compressed kernel modules are read only if `modules` is set.
pub(super) fn look(path: &RelPath, source: &dyn ReadAt, modules: bool) -> io::Result<Option<FileContent>> {
    let size = source.size()?;
    if modules::is_index(path) {
        return index(source, size).map(Some);
    }
    if modules::is_module(path) && !path.name().ends_with(b".ko") {
        return if modules {
            packed(path, source).map(Some)
        } else {
            Ok(None)
        };
    }
    let mut head = [0; 4];
    if size < head.len() as u64 {
        return Ok(None);
    }
    source.read_exact_at(&mut head, 0)?;
    Ok(if head == *elf::MAGIC {
        Some(match read_elf(source) {
            Ok(elf) => FileContent::Elf(elf),
            Err(crate::image::ImageError::Input { source, .. }) => return Err(source),
            Err(error) => FileContent::Broken(error.to_string()),
        })
    } else if head.starts_with(b"#!") {
        script(source, size)?
    } else {
        None
    })
}

fn index(source: &dyn ReadAt, size: u64) -> io::Result<FileContent> {
    if size > MAX_INDEX {
        return Ok(FileContent::Broken(format!(
            "read an index of {size} bytes, more than {MAX_INDEX}"
        )));
    }
    let mut text = vec![0; size as usize];
    source.read_exact_at(&mut text, 0)?;
    Ok(String::from_utf8(text).map_or_else(
        |e| FileContent::Broken(format!("read an index as text: {e}")),
        FileContent::Index,
    ))
}

/// A script whose interpreter has an absolute path, as the kernel requires.
fn script(source: &dyn ReadAt, size: u64) -> io::Result<Option<FileContent>> {
    let mut line = vec![0; size.min(MAX_LINE as u64) as usize];
    source.read_exact_at(&mut line, 0)?;
    let line = line[2..].split(|b| *b == b'\n').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ' || *b == b'\t');
    let program = words.find(|w| !w.is_empty()).unwrap_or_default();
    Ok(program.starts_with(b"/").then(|| FileContent::Script(program.to_vec())))
}

/// The machine of a compressed ELF file. A damaged stream makes the file [`FileContent::Broken`], not the call fail.
fn packed(path: &RelPath, source: &dyn ReadAt) -> io::Result<FileContent> {
    let input = BufReader::with_capacity(PIECE, ReadCursor::new(source));
    let mut head = Vec::new();
    let done = if path.name().ends_with(b".xz") {
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(io::Error::other)?;
        let decoder = liblzma::bufread::XzDecoder::new_stream(input, stream);
        decoder.take(HEAD_SIZE as u64).read_to_end(&mut head)
    } else {
        zstd::Decoder::with_buffer(input).and_then(|decoder| decoder.take(HEAD_SIZE as u64).read_to_end(&mut head))
    };
    let machine = match done {
        Ok(_) => ElfMachine::of_head(&head).map_err(str::to_owned),
        Err(error) => Err(error.to_string()),
    };
    Ok(machine.map_or_else(
        |problem| FileContent::Broken(format!("read a compressed ELF file: {problem}")),
        FileContent::Packed,
    ))
}
