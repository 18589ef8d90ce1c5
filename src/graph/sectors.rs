//! The stages that make disks, and the sectors that these can have.

use super::{Input, StageWorkload};
use crate::model::SectorSize;
use std::collections::BTreeMap;
use toml::Spanned;

/// The writer of disks, and its inputs for a BIOS.
const DISK_WRITER: &str = "disk-image";
const BIOS_INPUTS: [&str; 2] = ["boot.img", "core.img"];

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
