//! Kernel and initramfs in the form that boot loaders load.
//!
//! An initramfs is a sequence of archives; the kernel unpacks each over the one before.
//!
//! ```text
//! early.cpio          microcode, uncompressed: the kernel reads it before it can decompress
//! zstd(dracut.cpio)   modules, programs and the 90powernode hooks
//! zstd(recovery)      /etc/powernode/recovery, only of an image that was built with the option recovery
//! zstd(last segment)  /etc/powernode/root-digest, and for direct boot /powernode/root.ext4
//! ```
//!
//! `initramfs` makes all but the last, which do not depend on the root, if dracut's archive passes the checks of [`super::contents`].
//! `initramfs-media` adds the digest, for media that carry the root beside the initramfs. `kernel-initrd` adds the digest and the root.
//! So a changed root needs no new run of dracut and no new compression of its archive. Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

use super::{Context, WriterError, build, contents, input, workspace::is_there};
use crate::{
    image::{CountingWriter, ImageError, cpio::CpioWriter, zstd},
    model::{Meta, RelPath, ZstdLevel},
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// The files of the last segment: name of the input, path in the archive.
const DIGEST: (&str, &str) = ("root-digest", "etc/powernode/root-digest");
const ROOT: (&str, &str) = ("root.ext4", "powernode/root.ext4");
/// The file by which 90powernode knows that the image has a recovery: path in the archive.
const RECOVERY: &str = "etc/powernode/recovery";
/// Name of the output of every writer in this file.
const INITRAMFS: &str = "initramfs.cpio.zst";

pub(super) fn initramfs(context: &Context) -> Result<(), WriterError> {
    let archive = input("dracut.cpio");
    contents::check_initramfs(context.arch, &archive)?;
    let path = build(INITRAMFS);
    let mut out = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    let early = input("early.cpio");
    if is_there(&early)? {
        append(&early, &mut out, &path)?;
    }
    let mut out = compress(context, &archive, out)?;
    let recovery = input("recovery/recovery");
    if is_there(&recovery)? {
        out = write_segment(context, &[(recovery, RECOVERY)], out)?;
    }
    out.flush().map_err(WriterError::io("write", &path))
}

pub(super) fn initramfs_media(context: &Context) -> Result<(), WriterError> {
    with_segment(context, &[DIGEST])
}

pub(super) fn kernel_initrd(context: &Context) -> Result<(), WriterError> {
    let (from, to) = (input("vmlinuz"), build("kernel"));
    fs::copy(&from, &to).map_err(WriterError::io("copy", &from))?;
    with_segment(context, &[DIGEST, ROOT])
}

/// Writes the input initramfs and, behind it, an archive with the inputs `files`.
fn with_segment(context: &Context, files: &[(&str, &str)]) -> Result<(), WriterError> {
    let files: Vec<(PathBuf, &str)> = files.iter().map(|(name, place)| (input(name), *place)).collect();
    append_segment(context, &input(INITRAMFS), &files)
}

/// Writes the archive of `kernel_initrd` from an initramfs, a file with the root's digest and a root, wherever they are.
pub(super) fn with_root(
    context: &Context,
    initramfs: &Path,
    digest: PathBuf,
    root: PathBuf,
) -> Result<(), WriterError> {
    append_segment(context, initramfs, &[(digest, DIGEST.1), (root, ROOT.1)])
}

/// Writes `initramfs` and, behind it, an archive with `files`, each with its path there.
fn append_segment(context: &Context, initramfs: &Path, files: &[(PathBuf, &str)]) -> Result<(), WriterError> {
    let path = build(INITRAMFS);
    let mut out = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    append(initramfs, &mut out, &path)?;
    let mut out = write_segment(context, files, out)?;
    out.flush().map_err(WriterError::io("write", &path))
}

/// Writes an archive with `files` to the end of `out`. The archive is written twice: first only to learn its length, which zstd must know
/// beforehand.
fn write_segment(context: &Context, files: &[(PathBuf, &str)], out: File) -> Result<File, WriterError> {
    let mut contents = Vec::new();
    for (from, place) in files {
        let file = File::open(from).map_err(WriterError::io("open", from))?;
        let size = file.metadata().map_err(WriterError::io("open", from))?.len();
        let place = RelPath::new(place).map_err(|e| WriterError::Missing(e.to_string()))?;
        contents.push((place, size, file));
    }
    let size = segment(context, &contents, io::sink(), &mut |_| Box::new(io::repeat(0)))?;
    Ok(zstd::compress_with(
        size,
        out,
        level(context),
        workers(context),
        |out| segment(context, &contents, out, &mut |file| Box::new(file)).map(drop),
    )?)
}

/// Writes an archive of files with the directories above them; returns its length in bytes.
fn segment<'a>(
    context: &Context,
    contents: &'a [(RelPath, u64, File)],
    out: impl Write,
    open: &mut dyn FnMut(&'a File) -> Box<dyn Read + 'a>,
) -> Result<u64, ImageError> {
    let mut archive = CpioWriter::new(CountingWriter::new(out));
    let directory = Meta::root(0o755, context.epoch);
    let meta = Meta::root(0o444, context.epoch);
    for (place, size, file) in contents {
        let mut above: Vec<RelPath> = std::iter::successors(place.parent(), RelPath::parent).collect();
        while let Some(dir) = above.pop() {
            archive.directory(&dir, &directory)?;
        }
        archive.file(place, &meta, *size, &mut open(file).take(*size))?;
    }
    Ok(archive.finish()?.count())
}

/// zstd level of the segments that a stage makes. Modules are compressed with xz already: level 9 makes the root 7 % smaller for
/// three times the CPU time (docs/sizes.md).
fn level(context: &Context) -> ZstdLevel {
    context.compression_level.unwrap_or_default()
}

fn workers(context: &Context) -> NonZeroU32 {
    NonZeroU32::new(context.threads).unwrap_or(NonZeroU32::MIN)
}

fn append(part: &Path, out: &mut File, path: &Path) -> Result<(), WriterError> {
    let mut file = File::open(part).map_err(WriterError::io("open", part))?;
    io::copy(&mut file, out)
        .map(drop)
        .map_err(WriterError::io("write", path))
}

fn compress(context: &Context, part: &Path, out: File) -> Result<File, WriterError> {
    let mut file = File::open(part).map_err(WriterError::io("open", part))?;
    let size = file.metadata().map_err(WriterError::io("open", part))?.len();
    Ok(zstd::compress(
        &part.to_string_lossy(),
        &mut file,
        size,
        out,
        level(context),
        workers(context),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Arch, Epoch, SectorSize};

    fn context() -> Context {
        Context {
            arch: Arch::Amd64,
            epoch: Epoch::new(7),
            threads: 2,
            sector_size: SectorSize::Bytes512,
            compression_level: None,
            outputs: Vec::new(),
        }
    }

    #[test]
    fn a_segment_has_the_level_that_the_stage_asks_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("image");
        let bytes: Vec<u8> = (0..400_000u32)
            .flat_map(|i| (i.wrapping_mul(i) >> 9).to_le_bytes())
            .collect();
        fs::write(&image, bytes).expect("written");
        let sizes = [Some(1), None, Some(19)].map(|level| {
            let level = level.and_then(ZstdLevel::of);
            let context = Context {
                compression_level: level,
                ..context()
            };
            let file = tempfile::tempfile().expect("a file");
            let file = write_segment(&context, &[(image.clone(), "a/b")], file).expect("written");
            file.metadata().expect("there").len()
        });
        assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
    }

    #[test]
    fn the_segment_compressed_as_it_is_made_is_the_segment_compressed() {
        let context = context();
        let dir = tempfile::tempdir().expect("a directory");
        let image: Vec<u8> = (0..2_000_003u32).flat_map(|i| (i / 5).to_le_bytes()).collect();
        let contents: Vec<(RelPath, u64, File)> = [
            ("etc/powernode/root-digest", &b"digest\n"[..]),
            ("powernode/root.ext4", &image),
        ]
        .map(|(place, bytes)| {
            let path = dir.path().join(bytes.len().to_string());
            fs::write(&path, bytes).expect("written");
            let place = RelPath::new(place).expect("a path");
            (place, bytes.len() as u64, File::open(&path).expect("there"))
        })
        .into();
        let size = segment(&context, &contents, io::sink(), &mut |_| Box::new(io::repeat(0))).expect("counted");
        let mut plain = Vec::new();
        let written = segment(&context, &contents, &mut plain, &mut |file| Box::new(file)).expect("written");
        assert_eq!((written, plain.len() as u64), (size, size));
        let whole = zstd::compress(
            "segment",
            &mut &plain[..],
            size,
            Vec::new(),
            level(&context),
            workers(&context),
        );
        for (_, _, file) in &contents {
            io::Seek::rewind(&mut &*file).expect("a file");
        }
        let streamed = zstd::compress_with(size, Vec::new(), level(&context), workers(&context), |out| {
            segment(&context, &contents, out, &mut |file| Box::new(file)).map(drop)
        });
        assert!(whole.expect("compressed") == streamed.expect("compressed"));
    }
}
