//! `qcow2`: a disk image for hypervisors and clouds, with the same content as `disk.raw`.

use super::{Context, WriterError, build, input};
use crate::image::qcow2;
use std::{fs::File, num::NonZeroU32};

pub(super) fn qcow2(context: &Context) -> Result<(), WriterError> {
    let (from, to) = (input("disk.raw"), build("disk.qcow2"));
    let disk = File::open(&from).map_err(WriterError::io("open", &from))?;
    let out = File::create_new(&to).map_err(WriterError::io("create", &to))?;
    let workers = NonZeroU32::new(context.threads).unwrap_or(NonZeroU32::MIN);
    // Most of the disk is compressed already, so levels above the default save little.
    let level = context.compression_level.unwrap_or_default();
    qcow2::write(&disk, out, level, workers)?;
    Ok(())
}
