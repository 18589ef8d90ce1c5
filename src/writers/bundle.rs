//! Kernel and initramfs as boot loaders take them.
//!
//! An initramfs is several archives one after the other; the kernel unpacks each over the one before.
//!
//! ```text
//! early.cpio          microcode, uncompressed: the kernel reads it before it can decompress
//! zstd(dracut.cpio)   modules, programs and the 90powernode hooks
//! zstd(last segment)  /etc/powernode/root-digest, and for direct boot /powernode/root.ext4
//! ```
//!
//! `initramfs` makes the first two, which do not depend on the root; `initramfs-media` adds the digest, for media that hold the
//! root beside the initramfs; `kernel-initrd` adds digest and root. So a changed root costs neither dracut nor its
//! compression. Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

use super::{Context, WriterError, build, input};
use crate::{
    image::{cpio::CpioWriter, zstd},
    model::{Meta, RelPath},
};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, Write},
    num::NonZeroU32,
    path::Path,
};

/// Level for both segments: modules are xz already, and higher levels gain 3 % for four times the work.
const LEVEL: i32 = 3;

/// What a segment holds: name of the input, place in the archive.
const DIGEST: (&str, &str) = ("root-digest", "etc/powernode/root-digest");
const ROOT: (&str, &str) = ("root.ext4", "powernode/root.ext4");
/// The archive of every writer here.
const INITRAMFS: &str = "initramfs.cpio.zst";

pub(super) fn initramfs(context: &Context) -> Result<(), WriterError> {
    let path = build(INITRAMFS);
    let mut out = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    let early = input("early.cpio");
    if early.exists() {
        append(&early, &mut out, &path)?;
    }
    let mut out = compress(context, &input("dracut.cpio"), out)?;
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

/// The input initramfs, and behind it an archive with `files`.
fn with_segment(context: &Context, files: &[(&str, &str)]) -> Result<(), WriterError> {
    let segment = build("segment.cpio");
    write_segment(context, files, &segment)?;
    let path = build(INITRAMFS);
    let mut out = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    append(&input(INITRAMFS), &mut out, &path)?;
    let mut out = compress(context, &segment, out)?;
    out.flush().map_err(WriterError::io("write", &path))?;
    fs::remove_file(&segment).map_err(WriterError::io("remove", &segment))
}

fn append(part: &Path, out: &mut File, path: &Path) -> Result<(), WriterError> {
    let mut file = File::open(part).map_err(WriterError::io("open", part))?;
    io::copy(&mut file, out)
        .map(drop)
        .map_err(WriterError::io("write", path))
}

fn compress(context: &Context, part: &Path, out: File) -> Result<File, WriterError> {
    let workers = NonZeroU32::new(context.threads).unwrap_or(NonZeroU32::MIN);
    let mut file = File::open(part).map_err(WriterError::io("open", part))?;
    let size = file.metadata().map_err(WriterError::io("open", part))?.len();
    Ok(zstd::compress(
        &part.to_string_lossy(),
        &mut file,
        size,
        out,
        LEVEL,
        workers,
    )?)
}

fn write_segment(context: &Context, files: &[(&str, &str)], path: &Path) -> Result<(), WriterError> {
    let out = File::create_new(path).map_err(WriterError::io("create", path))?;
    let mut archive = CpioWriter::new(BufWriter::with_capacity(1 << 20, out));
    let directory = Meta::root(0o755, context.epoch);
    let file = Meta::root(0o444, context.epoch);
    let rel = |text: &str| RelPath::new(text).map_err(|e| WriterError::Missing(e.to_string()));
    for (name, place) in files {
        let place = rel(place)?;
        let mut above: Vec<RelPath> = std::iter::successors(place.parent(), RelPath::parent).collect();
        while let Some(dir) = above.pop() {
            archive.directory(&dir, &directory)?;
        }
        let from = input(name);
        let mut content = File::open(&from).map_err(WriterError::io("open", &from))?;
        let size = content
            .seek(io::SeekFrom::End(0))
            .map_err(WriterError::io("read", &from))?;
        content.rewind().map_err(WriterError::io("read", &from))?;
        archive.file(&place, &file, size, &mut content as &mut dyn Read)?;
    }
    archive.finish()?.into_inner().map_err(|e| WriterError::Io {
        what: "write",
        path: path.to_owned(),
        source: e.into_error(),
    })?;
    Ok(())
}
