//! `kernel-initrd`: the kernel, and one initramfs made of three segments.
//!
//! ```text
//! early.cpio          microcode, uncompressed: the kernel reads it before it can decompress
//! zstd(dracut.cpio)   modules, programs and the 90powernode hooks
//! zstd(root segment)  /powernode/root.ext4 and /etc/powernode/root-digest
//! ```
//!
//! The kernel unpacks them one after the other. So a changed root costs neither dracut nor the packages' configuration.
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

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

pub(super) fn kernel_initrd(context: &Context) -> Result<(), WriterError> {
    let workers = NonZeroU32::new(context.threads).unwrap_or(NonZeroU32::MIN);
    let (from, to) = (input("vmlinuz"), build("kernel"));
    fs::copy(&from, &to).map_err(WriterError::io("copy", &from))?;

    let segment = build("root.cpio");
    root_segment(context, &segment)?;
    let path = build("initramfs.cpio.zst");
    let mut out = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    let early = input("early.cpio");
    if early.exists() {
        let mut file = File::open(&early).map_err(WriterError::io("open", &early))?;
        io::copy(&mut file, &mut out).map_err(WriterError::io("write", &path))?;
    }
    for part in [input("dracut.cpio"), segment.clone()] {
        out = compress(&part, out, workers)?;
    }
    out.flush().map_err(WriterError::io("write", &path))?;
    fs::remove_file(&segment).map_err(WriterError::io("remove", &segment))
}

fn compress(part: &Path, out: File, workers: NonZeroU32) -> Result<File, WriterError> {
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

fn root_segment(context: &Context, path: &Path) -> Result<(), WriterError> {
    let out = File::create_new(path).map_err(WriterError::io("create", path))?;
    let mut archive = CpioWriter::new(BufWriter::with_capacity(1 << 20, out));
    let directory = Meta::root(0o755, context.epoch);
    let file = Meta::root(0o444, context.epoch);
    let rel = |text: &str| RelPath::new(text).map_err(|e| WriterError::Missing(e.to_string()));
    for dir in ["etc", "etc/powernode", "powernode"] {
        archive.directory(&rel(dir)?, &directory)?;
    }
    for (name, place) in [
        ("root-digest", "etc/powernode/root-digest"),
        ("root.ext4", "powernode/root.ext4"),
    ] {
        let from = input(name);
        let mut content = File::open(&from).map_err(WriterError::io("open", &from))?;
        let size = content
            .seek(io::SeekFrom::End(0))
            .map_err(WriterError::io("read", &from))?;
        content.rewind().map_err(WriterError::io("read", &from))?;
        archive.file(&rel(place)?, &file, size, &mut content as &mut dyn Read)?;
    }
    archive.finish()?.into_inner().map_err(|e| WriterError::Io {
        what: "write",
        path: path.to_owned(),
        source: e.into_error(),
    })?;
    Ok(())
}
