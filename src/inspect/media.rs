//! ISO 9660 with its boot images.

use super::{
    error::one_line,
    ext4::{shown, time},
    part::{Fields, Look, Part, PartKind},
};
use crate::image::{
    ImageError, Source, gpt,
    iso::{BootPlatform, Iso, IsoEntry, IsoKind, IsoNames, IsoSession, sessions},
    mbr::{self, SECTOR},
};
use std::ops::Range;

/// Bytes of a sector of ISO 9660, which leaves the first 16 unused.
const ISO_SECTOR: u64 = 2048;
pub(super) const ISO_MAGIC: &[u8] = b"CD001";
pub(super) const ISO_MAGIC_AT: usize = 16 * ISO_SECTOR as usize + 1;
/// Number of unused sectors, and of sectors that are shown as the volume descriptors.
const DESCRIPTORS: u64 = 16;
/// Type of an EFI system partition in a master boot record.
const MBR_EFI: u8 = 0xef;

/// An ISO 9660 image.
pub(super) fn iso(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "ISO 9660",
        ..Look::default()
    };
    let system = DESCRIPTORS * ISO_SECTOR;
    look.children.push(Part::slice(
        "system area",
        PartKind::Region,
        source,
        0,
        system.min(size),
    ));
    let descriptors = (DESCRIPTORS * ISO_SECTOR).min(size.saturating_sub(system));
    look.children.push(Part::slice(
        "volume descriptors",
        PartKind::Region,
        source,
        system,
        descriptors,
    ));
    if let Err(error) = iso_parts(source, size, &mut look) {
        look.problem = Some(one_line(&error));
    }
    look
}

fn moment(seconds: i64) -> String {
    u32::try_from(seconds).map_or_else(|_| seconds.to_string(), time)
}

fn iso_parts(source: &Source, size: u64, look: &mut Look) -> Result<(), ImageError> {
    let (fs, cut) = Iso::open_cut(source.clone())?;
    if let Some(error) = cut {
        look.add_problem(one_line(&error));
    }
    volume_fields(&fs, &mut look.fields);
    let (tree, damage) = fs.tree_and_damage();
    for error in &damage {
        look.add_problem(one_line(error));
    }
    for (path, entry) in tree {
        let mut part = iso_entry(source, size, format!("/{path}"), &entry);
        if entry.is_compressed() {
            part = part.damaged("it is compressed (zisofs), and shown as it is stored");
        } else if let Some(problem) = entry.problem() {
            part = Part::empty(part.name, part.kind).damaged(format!("{problem}, which is not supported"));
        }
        if !look.list(part) {
            break;
        }
    }
    let root = fs.root();
    if root.start.checked_add(root.size).is_some_and(|end| end <= size) {
        look.children
            .push(Part::slice("/", PartKind::Directory, source, root.start, root.size));
    }
    name_sessions(&fs, source, size, look)?;
    // In front of the volume descriptors, in whose range a path table may begin.
    let tables = fs.path_tables().iter();
    let tables = tables.filter(|(_, from, len)| *len > 0 && from.checked_add(*len).is_some_and(|end| end <= size));
    let tables = tables.map(|(name, from, len)| Part::slice(*name, PartKind::Region, source, *from, *len));
    look.children.splice(0..0, tables);
    boot_images(&fs, source, size, look)
}

/// Names the sessions of a medium that was written in several turns.
fn name_sessions(fs: &Iso<Source>, source: &Source, size: u64, look: &mut Look) -> Result<(), ImageError> {
    let files = look.children.iter().filter(|part| part.kind != PartKind::Region);
    let mut used: Vec<Range<u64>> = files
        .flat_map(|part| &part.extents)
        .map(|extent| extent.from..extent.from.saturating_add(extent.len))
        .collect();
    used.sort_by_key(|range| range.start);
    let (mut free, mut end) = (Vec::new(), 0);
    for range in used {
        if range.start > end {
            free.push(end..range.start);
        }
        end = end.max(range.end);
    }
    free.push(end.min(size)..size);
    let sessions = sessions(source, &free)?;
    // The first sectors have the descriptors of one of them, or are a session of their own.
    let listed = fs.volume_root();
    if sessions.iter().all(|session| session.root == listed) {
        return Ok(());
    }
    let named = |session: &IsoSession| {
        let made = session.volume.modified.or(session.volume.created).filter(|at| *at != 0);
        let made = made.map_or(String::new(), |at| format!(" of {}", moment(at)));
        let here = if session.root == listed {
            ", which is listed"
        } else {
            ""
        };
        format!(
            "\"{}\"{made} at block {}{here}",
            shown(&session.volume.label),
            session.block
        )
    };
    let mut text: Vec<String> = sessions.iter().map(named).collect();
    if sessions.iter().all(|session| session.root != listed) {
        text.insert(0, "the first, at block 0, is listed".to_owned());
        text.push("a disc drive shows the last one, as mount does with -o sbsector".to_owned());
    }
    look.fields.insert("sessions".to_owned(), text.join("; "));
    Ok(())
}

fn volume_fields(fs: &Iso<Source>, fields: &mut Fields) {
    let volume = fs.volume();
    for (name, value) in [
        ("label", &volume.label),
        ("system", &volume.system),
        ("volume set", &volume.set),
        ("publisher", &volume.publisher),
        ("preparer", &volume.preparer),
        ("application", &volume.application),
    ] {
        if !value.is_empty() {
            fields.insert(name.to_owned(), shown(value));
        }
    }
    for (name, value) in [
        ("created", volume.created),
        ("modified", volume.modified),
        ("expires", volume.expires),
        ("effective", volume.effective),
    ] {
        if let Some(value) = value {
            fields.insert(name.to_owned(), moment(value));
        }
    }
    fields.insert("volume size".to_owned(), volume.size.to_string());
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    fields.insert("Rock Ridge".to_owned(), yes(fs.has_rock_ridge()));
    fields.insert("Joliet".to_owned(), yes(fs.has_joliet()));
    let names = match (fs.names(), fs.udf()) {
        (IsoNames::RockRidge, _) => "Rock Ridge",
        (IsoNames::Joliet, _) => "Joliet",
        (IsoNames::Plain, None) => "ISO 9660, in upper case and cut",
        (IsoNames::Plain, Some(_)) => "ISO 9660, in upper case and cut; those of UDF are not read",
    };
    fields.insert("names".to_owned(), names.to_owned());
    if let Some(udf) = fs.udf() {
        fields.insert("UDF".to_owned(), format!("yes ({udf}), not read"));
    }
}

/// The part of a directory entry; without bytes if its extent goes past the end of the image.
fn iso_entry(source: &Source, size: u64, name: String, entry: &IsoEntry) -> Part {
    let (kind, len) = match &entry.kind {
        IsoKind::File => (PartKind::File, entry.size),
        IsoKind::Directory => (PartKind::Directory, entry.size),
        IsoKind::Symlink(_) => (PartKind::Symlink, 0),
        IsoKind::Special => (PartKind::Special, 0),
    };
    let inside = entry.start.checked_add(len).is_some_and(|end| end <= size);
    // Whatever begins in front of the volume descriptors holds them, and with them itself.
    let holds = len > 0 && entry.start <= DESCRIPTORS * ISO_SECTOR;
    let mut part = Part::slice(name, kind, source, entry.start, if inside && !holds { len } else { 0 });
    if len > 0 && !inside {
        part = part.damaged("its extent goes past the end of the image");
    } else if holds {
        part = part.damaged("its extent holds the descriptors of the image that lists it");
    }
    if let IsoKind::Symlink(target) = &entry.kind {
        part = part.with("target", shown(target));
    }
    if let Some(posix) = entry.posix {
        part = part.with("mode", format!("{:04o}", posix.mode & 0o7777));
        part = part.with("owner", format!("{}:{}", posix.uid, posix.gid));
    }
    if let Some(modified) = entry.modified {
        part = part.with("modified", moment(modified));
    }
    part
}

/// Adds the programs that firmware starts: the images of the boot catalog, and an EFI system partition behind the file system.
fn boot_images(fs: &Iso<Source>, source: &Source, size: u64, look: &mut Look) -> Result<(), ImageError> {
    if let Some((from, len)) =
        efi_partition(source).filter(|(from, len)| *from > 0 && from.checked_add(*len).is_some_and(|e| e <= size))
    {
        look.children.push(Part::slice(
            "EFI system partition",
            PartKind::Partition,
            source,
            from,
            len,
        ));
    }
    let Some(catalog) = fs.boot_catalog()? else {
        return Ok(());
    };
    look.children.push(Part::slice(
        "boot catalog",
        PartKind::Region,
        source,
        u64::from(catalog.lba) * ISO_SECTOR,
        ISO_SECTOR.min(size.saturating_sub(u64::from(catalog.lba) * ISO_SECTOR)),
    ));
    for (number, entry) in (1..).zip(&catalog.entries) {
        let platform = match entry.platform {
            BootPlatform::Bios => "BIOS".to_owned(),
            BootPlatform::Efi => "EFI".to_owned(),
            BootPlatform::Other(id) => format!("platform {id:#04x}"),
        };
        // A boot image is mostly also a file of the file system, which then is its part.
        let holder = look
            .children
            .iter()
            .find(|c| c.offset == entry.start() && c.size > 0 && c.kind != PartKind::Region);
        let what = holder.map_or_else(|| format!("block {}", entry.lba), |c| c.name.clone());
        let bootable = if entry.bootable { "" } else { ", not bootable" };
        look.fields.insert(
            format!("boot {number}"),
            format!("{platform}: {what}, {} sectors loaded{bootable}", entry.load_sectors),
        );
        if let Some(info) = fs.boot_info(entry)? {
            let fits = if info.checksum_fits { "fits" } else { "does not fit" };
            let text = format!("{} bytes, checksum {:#010x} {fits}", info.len, info.checksum);
            look.fields.insert(format!("boot {number} info table"), text);
        }
        if holder.is_none()
            && entry.start() > DESCRIPTORS * ISO_SECTOR
            && entry
                .start()
                .checked_add(entry.load_bytes())
                .is_some_and(|end| end <= size)
        {
            let name = format!("boot image {number}");
            look.children.push(Part::slice(
                name,
                PartKind::Partition,
                source,
                entry.start(),
                entry.load_bytes(),
            ));
        }
    }
    Ok(())
}

/// Offset and length in bytes of the EFI system partition of a hybrid image, from its GPT or its master boot record.
fn efi_partition(source: &Source) -> Option<(u64, u64)> {
    if let Ok(table) = gpt::examine(source) {
        let mut partitions = table.partitions.iter().map(|(_, partition)| partition);
        if let Some(found) = partitions.find(|p| p.type_guid == gpt::types::EFI_SYSTEM) {
            return Some((found.offset(table.sector_size), found.size(table.sector_size)));
        }
    }
    let (record, _) = mbr::examine(source).ok()?;
    let found = record.partitions.into_iter().find(|p| p.kind == MBR_EFI)?;
    Some((u64::from(found.first_lba) * SECTOR, u64::from(found.sectors) * SECTOR))
}
