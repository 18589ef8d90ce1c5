//! Settings in `stage.toml` that only some writers have: the sectors of a disk, the level of a compression.

use super::{Input, StageWorkload};
use crate::model::SectorSize;
use std::collections::BTreeMap;
use toml::Spanned;

/// The writer of disks, and its inputs for a BIOS.
const DISK_WRITER: &str = "disk-image";
const BIOS_INPUTS: [&str; 2] = ["boot.img", "core.img"];
/// The writers that compress with zstd what they write.
pub const COMPRESSING: [&str; 6] = [
    "initramfs",
    "initramfs-media",
    "kernel-initrd",
    "layer-image",
    "oci-image",
    "qcow2",
];

/// Checks that the stage makes a disk whose sectors can have this size.
pub(super) fn check_sector_size(
    size: SectorSize,
    workload: &StageWorkload,
    inputs: &BTreeMap<Spanned<String>, Input>,
) -> Result<(), String> {
    if !matches!(workload, StageWorkload::Writer(name) if name.get_ref() == DISK_WRITER) {
        return Err(format!("\"sector-size\" goes with the writer {DISK_WRITER:?}"));
    }
    if size != SectorSize::Bytes512
        && let Some(name) = inputs
            .keys()
            .find(|name| BIOS_INPUTS.contains(&name.get_ref().as_str()))
    {
        let name = name.get_ref();
        return Err(format!(
            "no BIOS boots a disk with sectors of {size} bytes: it has the input {name:?}, GRUB's for a BIOS"
        ));
    }
    Ok(())
}

/// Checks that the stage compresses something.
pub(super) fn check_compression(workload: &StageWorkload) -> Result<(), String> {
    match workload {
        StageWorkload::Writer(name) if COMPRESSING.contains(&name.get_ref().as_str()) => Ok(()),
        _ => {
            let writers = COMPRESSING.map(|name| format!("{name:?}")).join(", ");
            Err(format!("\"compression-level\" goes with the writers {writers}"))
        }
    }
}
