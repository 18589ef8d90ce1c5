//! Formats that are named and not read: file systems of other systems, parts of arrays, and disks of other hypervisors.

use super::{
    disks,
    part::{Look, Part, PartKind},
};
use crate::image::{ReadAt as _, Source};

/// Bytes of the footer of a VHD, at its end, and the first of them.
const VHD_FOOTER: u64 = 512;
const VHD_MAGIC: &[u8] = b"conectix";
/// Offset of the type of a VHD in its footer: 2 is a fixed one, which is the disk and the footer.
const VHD_TYPE_AT: usize = 60;
const VHD_FIXED: [u8; 4] = [0, 0, 0, 2];
/// How the disk of a hypervisor's image becomes readable.
const CONVERT: &str = "which is not read here; `qemu-img convert -O raw` makes the disk of it";
const UNREAD: &str = "which is not read here";
const ENCRYPTED: &str = "which is encrypted, and no key is given";

/// Offset and value of the magic, the name of the format, and why its content is not shown.
const KNOWN: [(u64, &[u8], &str, &str); 22] = [
    (3, b"NTFS    ", "NTFS", UNREAD),
    (3, b"EXFAT   ", "exFAT", UNREAD),
    (3, b"-FVE-FS-", "BitLocker", ENCRYPTED),
    (0, b"LUKS\xba\xbe", "LUKS", ENCRYPTED),
    (0, b"XFSB", "XFS", UNREAD),
    (0x10040, b"_BHRfS_M", "Btrfs", UNREAD),
    (0, b"hsqs", "SquashFS", UNREAD),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "EROFS", UNREAD),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "F2FS", UNREAD),
    (32769, b"NSR0", "UDF", UNREAD),
    (32769, b"BEA01", "UDF", UNREAD),
    (4086, b"SWAPSPACE2", "swap space", UNREAD),
    (512, b"LABELONE", "LVM physical volume", UNREAD),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "part of an MD array", UNREAD),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "part of an MD array", UNREAD),
    (0, b"KDMV", "VMDK", CONVERT),
    (0, b"COWD", "VMDK", CONVERT),
    (
        0,
        b"# Disk DescriptorFile",
        "VMDK",
        "which describes a disk in other files, and they are not opened",
    ),
    (64, &[0x7f, 0x10, 0xda, 0xbe], "VDI", CONVERT),
    (0, b"vhdxfile", "VHDX", CONVERT),
    (0, VHD_MAGIC, "VHD", CONVERT),
    (0, b"QED\0", "QED", CONVERT),
];

/// The look at bytes of a format that is named; `None` for other bytes. `head` are the first ones.
pub(super) fn look(source: &Source, size: u64, head: &[u8]) -> Option<Look> {
    let begins = |at: u64, magic: &[u8]| {
        if let Some(rest) = usize::try_from(at).ok().and_then(|at| head.get(at..))
            && rest.len() >= magic.len()
        {
            return rest.starts_with(magic);
        }
        let mut found = [0; 32];
        let found = &mut found[..magic.len()];
        size >= at + magic.len() as u64 && source.read_exact_at(found, at).is_ok() && found == magic
    };
    let (.., format, why) = KNOWN.iter().find(|(at, magic, ..)| begins(*at, magic))?;
    Some(Look {
        format,
        problem: Some(format!("it is {}{format}, {why}", article(format))),
        ..Look::default()
    })
}

/// The article of a format's name.
fn article(format: &str) -> &'static str {
    match format {
        "VMDK" | "VDI" | "VHDX" | "VHD" | "QED" => "an image of the format ",
        "LVM physical volume" => "an ",
        "LUKS" | "BitLocker" => "a volume of ",
        "XFS" | "NTFS" | "exFAT" | "Btrfs" | "SquashFS" | "EROFS" | "F2FS" | "UDF" => "a file system of the kind ",
        _ => "",
    }
}

/// A fixed VHD: a disk, and a footer of 512 bytes behind it; `None` for other bytes.
pub(super) fn fixed_vhd(source: &Source, size: u64) -> Option<Look> {
    let disk = size.checked_sub(VHD_FOOTER).filter(|disk| *disk > 0)?;
    let mut footer = [0; VHD_FOOTER as usize];
    source.read_exact_at(&mut footer, disk).ok()?;
    if !footer.starts_with(VHD_MAGIC) || footer[VHD_TYPE_AT..VHD_TYPE_AT + 4] != VHD_FIXED {
        return None;
    }
    let mut look = Look {
        format: disks::VHD,
        ..Look::default()
    };
    look.fields.insert("disk size".to_owned(), disk.to_string());
    look.children
        .push(Part::slice("footer", PartKind::Region, source, disk, VHD_FOOTER));
    look.children
        .push(Part::slice("disk", PartKind::Content, source, 0, disk));
    Some(look)
}
