//! FAT file systems.

use super::{
    error::one_line,
    ext4::shown,
    part::{Look, Part, PartExtent, PartKind},
};
use crate::image::{
    ImageError, ReadAt, Source,
    fat::{self, Fat, FatEntry},
    mbr::SECTOR,
    raspi::Config,
};
use crate::model::RelPath;
use std::collections::BTreeMap;

/// The settings of a Raspberry Pi's firmware, and the largest file of them that is read, bytes.
const CONFIG: &str = "config.txt";
const MAX_CONFIG: u32 = 64 << 10;
/// Bytes of a directory entry of FAT.
const FAT_ENTRY: u64 = 32;
/// Offset of the attributes in an entry: read-only 1, hidden 2, system 4, directory 0x10, archive 0x20.
const FAT_ATTRIBUTES: u64 = 11;

/// Whether a FAT boot sector begins here: sectors and clusters of a size that is defined, reserved sectors, up to four tables, and two of
/// the three things by which people know one: the jump, the name of the kind, and the signature at the end. Linux asks for none of
/// the three. The reader says which of these volumes it cannot read.
pub(super) fn is_fat(head: &[u8]) -> bool {
    let Some(boot) = head.get(..SECTOR as usize) else {
        return false;
    };
    let half = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
    let fields = matches!(half(11), 512 | 1024 | 2048 | 4096)
        && boot[13].is_power_of_two()
        && half(14) != 0
        && (1..=4).contains(&boot[16]);
    let jump = (boot[0] == 0xeb && boot[2] == 0x90) || boot[0] == 0xe9;
    let kind = boot[54..].starts_with(b"FAT1") || boot[82..].starts_with(b"FAT32");
    let signs = [jump, kind, boot.ends_with(&[0x55, 0xaa])];
    fields && signs.iter().filter(|sign| **sign).count() >= 2
}

/// A FAT file system.
pub(super) fn look(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "FAT",
        ..Look::default()
    };
    if let Err(error) = fat_parts(source, size, &mut look) {
        look.problem = Some(one_line(&error));
    }
    look
}

fn fat_parts(source: &Source, size: u64, look: &mut Look) -> Result<(), ImageError> {
    fat_tables(source, size, look);
    let (fs, cut) = Fat::open_cut(source.clone())?;
    if let Some(error) = cut {
        look.add_problem(one_line(&error));
    }
    look.format = match fs.kind() {
        fat::FatKind::Fat12 => "FAT12",
        fat::FatKind::Fat16 => "FAT16",
        fat::FatKind::Fat32 => "FAT32",
    };
    let serial = fs.serial();
    for (name, value) in [
        ("serial", format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)),
        ("cluster size", fs.cluster_size().to_string()),
        ("clusters", fs.clusters().to_string()),
        ("hidden sectors", fs.hidden_sectors().to_string()),
    ] {
        look.fields.insert(name.to_owned(), value);
    }
    if fs.sector_size() != SECTOR {
        look.fields
            .insert("sector size".to_owned(), fs.sector_size().to_string());
    }
    match fs.label() {
        Ok(Some(label)) => drop(look.fields.insert("label".to_owned(), shown(label.as_bytes()))),
        Ok(None) => {}
        Err(error) => look.add_problem(one_line(&error)),
    }
    match fs.free_clusters() {
        Ok(free) => drop(look.fields.insert("free clusters".to_owned(), free.to_string())),
        Err(error) => look.add_problem(one_line(&error)),
    }
    let (tree, damage) = fs.walk_and_damage();
    raspberry_pi(&fs, &tree, look);
    for error in damage.iter().chain(&fs.findings(&tree, damage.is_empty())) {
        look.add_problem(one_line(error));
    }
    for (path, entry) in tree {
        let name = format!("/{path}");
        let mut part = if entry.directory {
            Part::empty(name, PartKind::Directory)
        } else {
            match fs.extents(&entry) {
                Ok(found) => {
                    let mut at = 0;
                    let extents = found.into_iter().map(|(from, len)| {
                        let extent = PartExtent { at, from, len };
                        at += len;
                        extent
                    });
                    Part::scattered(name, PartKind::File, source, extents.collect(), entry.size.into())
                }
                Err(error) => Part::empty(name, PartKind::File).damaged(one_line(&error)),
            }
        };
        if let Some(modified) = entry.modified {
            part = part.with("modified", modified.to_rfc3339());
        }
        let mut attributes = [0];
        if source
            .read_exact_at(&mut attributes, entry.offset() + FAT_ATTRIBUTES)
            .is_ok()
        {
            part = part.with("attributes", format!("{:#04x}", attributes[0]));
        }
        if !look.list(part.described_by(entry.offset(), FAT_ENTRY)) {
            break;
        }
    }
    Ok(())
}

/// What the firmware of a Raspberry Pi 4 takes off the volume, if it has its `config.txt`. Whether a board starts from it is not
/// judged: the volume may be one of another board.
fn raspberry_pi(fs: &Fat<Source>, tree: &BTreeMap<RelPath, FatEntry>, look: &mut Look) {
    let find = |name: &str| {
        let name = name.to_lowercase();
        let mut files = tree.iter().filter(|(_, entry)| !entry.directory);
        files
            .find(|(path, _)| path.to_string().to_lowercase() == name)
            .map(|(_, entry)| entry)
    };
    let text = |name: &str| {
        let entry = find(name).ok_or_else(|| format!("there is no {name}"))?;
        if entry.size > MAX_CONFIG {
            return Err(format!("{name} has more than {MAX_CONFIG} bytes"));
        }
        let mut bytes = vec![0; entry.size as usize];
        let file = fs.file(entry).map_err(|e| one_line(&e))?;
        file.read_exact_at(&mut bytes, 0).map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    if find(CONFIG).is_none() {
        return;
    }
    let config = text(CONFIG).and_then(|config| Config::parse(&config, &text));
    let exists = |name: &str| Ok(find(name).is_some());
    let files = config
        .as_ref()
        .map_err(String::clone)
        .and_then(|config| config.files(&exists));
    let mut put = |name: &str, value: String| {
        look.fields.insert(format!("Raspberry Pi 4 {name}"), value);
    };
    if let Ok(config) = &config {
        let overlays: Vec<String> = config.overlays().map(|(key, value)| format!("{key}={value}")).collect();
        if !overlays.is_empty() {
            put("overlays", shown(overlays.join(", ").as_bytes()));
        }
    }
    match files {
        Err(problem) => put("files", format!("not known: {problem}")),
        Ok(files) => {
            let tree = files.device_tree.unwrap_or_default();
            let needed = files.firmware.iter().chain([&files.kernel, &tree, &files.command_line]);
            let needed = needed.chain(&files.initramfs).filter(|name| !name.is_empty());
            let missing: Vec<&str> = needed.filter(|name| find(name).is_none()).map(String::as_str).collect();
            if !missing.is_empty() {
                put("lacks", shown(missing.join(", ").as_bytes()));
            }
            for (name, value) in [
                ("firmware", files.firmware.join(", ")),
                ("kernel", files.kernel),
                ("initramfs", files.initramfs.join(", ")),
                ("device tree", tree),
                ("command line", files.command_line),
            ] {
                if !value.is_empty() {
                    put(name, shown(value.as_bytes()));
                }
            }
        }
    }
}

/// Adds the regions in front of the clusters, at the offsets that the boot sector states. It is not checked, so that a damaged
/// volume has regions too.
fn fat_tables(source: &Source, size: u64, look: &mut Look) {
    let mut boot = [0; SECTOR as usize];
    if source.read_exact_at(&mut boot, 0).is_err() {
        return;
    }
    let half = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let word = |at: usize| u64::from(u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]));
    let sector = half(11);
    let table = if half(22) == 0 { word(36) } else { half(22) } * sector;
    let reserved = half(14) * sector;
    let mut regions = vec![("boot sector".to_owned(), 0, sector)];
    if half(22) == 0 {
        regions.push(("FSInfo".to_owned(), half(48) * sector, sector));
        regions.push(("boot sector copy".to_owned(), half(50) * sector, sector));
    }
    regions.push(("reserved sectors".to_owned(), sector, reserved.saturating_sub(sector)));
    let tables = u64::from(boot[16]);
    for number in 0..tables {
        regions.push((
            format!("allocation table {}", number + 1),
            reserved + number * table,
            table,
        ));
    }
    let data = reserved + tables * table;
    regions.push((
        "directories and free clusters".to_owned(),
        data,
        size.saturating_sub(data),
    ));
    for (name, from, len) in regions {
        if len > 0 && from + len <= size {
            look.children
                .push(Part::slice(name, PartKind::Region, source, from, len));
        }
    }
}
