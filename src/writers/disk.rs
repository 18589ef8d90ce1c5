//! `disk-image`: a disk that boots by UEFI, UEFI Secure Boot and, on amd64, BIOS. `pi-card`: a card that boots a Raspberry Pi 4.
//!
//! ```text
//! sector 0      protective MBR, with GRUB's first sector for BIOS; on a card a hybrid MBR, which lists the boot partition too
//! powernode-bios      BIOS boot: GRUB's core; only on a disk that a BIOS boots
//! powernode-esp       boot partition, FAT32, label POWERNODE: shim, GRUB and its menu, or the firmware of a Pi with its
//!                     config.txt, cmdline.txt and device trees; kernel, initramfs, identity.cfg, powernode-ca.pem
//! powernode-root      root.ext4: composefs image and objects
//! powernode-persist   /persist, ext4, small; the first boot grows it to the disk
//! end           the table again
//! ```
//!
//! On a disk with sectors of 4096 bytes (`sector-size` in `stage.toml`), the table and the boot partition count in these. FAT32 needs 65525
//! clusters of at least a sector, so its boot partition has 256 MiB and more. No BIOS boots it.
//!
//! All identifiers are derived from the root's digest, so equal roots give equal bytes. No device, no mount and no privilege is
//! needed. The plan and the parts for `powernode.install=` are made from the finished image ([`super::plan`]).

use super::{Context, WriterError, build, efi, efi::Files, input, pi, plan, plan::SharedExtent, workspace::is_there};
use crate::{
    image::{
        Guid, ImageError,
        fat::{self, FatKind, FatVolume, VolumeSize},
        gpt::{self, DiskTable, Partition, PartitionRequest, types},
        grub,
    },
    model::{RelPath, SectorSize, VerityDigest},
    store::copy_sparse,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    process::{Command, Stdio},
};

/// Name of the format in derived identifiers.
const DERIVED: &str = "gpt";
/// Partitions begin at whole MiB, so their sizes are whole MiB too.
const MIB: u64 = 1 << 20;
/// Room for GRUB's core, bytes.
const BIOS_BOOT: u64 = 1 << 20;
/// Free space of the EFI system partition for files of the firmware or of an operator, bytes.
const ESP_SPARE: u64 = 8 << 20;
/// Label of the boot FAT, by which 90powernode finds identity.cfg.
const ESP_LABEL: &str = "POWERNODE";
/// `/persist` before it is grown, bytes.
const PERSIST: u64 = 64 << 20;
/// Label of `/persist`: ext4 allows 16 characters. 90powernode finds it by the name of the partition instead.
const LABEL: &str = "powernode-data";
/// The program that makes it, and its directory in the tree of the tools.
const MKE2FS: &str = "mke2fs";
const SBIN: &str = "/usr/sbin";
/// Size of its journal, MiB.
const JOURNAL: &str = "size=8";
/// Features of `/persist`: the usual ones of ext4, fs-verity for the objects of modules, and a resize inode for growing.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,dir_nlink,extra_isize,filetype,metadata_csum,verity";
/// Files of an installation medium that the disk has too: path on the ESP, and name beside `root.ext4`.
const SHARED: [(&str, &str); 2] = [
    ("powernode/vmlinuz", "vmlinuz"),
    ("powernode/initramfs.cpio.zst", "initramfs.cpio.zst"),
];
const ROOT: &str = "root.ext4";
/// Name of its partition, and the placeholder of its GUID in a menu.
const ROOT_PARTITION: &str = "powernode-root";
const PARTUUID: &str = "@ROOT_PARTUUID@";
/// Names by which 90powernode finds the boot partition and `/persist`.
const ESP_PARTITION: &str = "powernode-esp";
const PERSIST_PARTITION: &str = "powernode-persist";
/// Type of a FAT32 partition in a master boot record.
const HYBRID_FAT32: u8 = 0x0c;
/// The output with the plan of an installation.
const PLAN: &str = "install";

/// `disk-image`: shim and GRUB on the boot partition; with the inputs `boot.img` and `core.img` a BIOS starts it too.
pub(super) fn disk_image(context: &Context) -> Result<(), WriterError> {
    let bios = is_there(&input("core.img"))?
        .then(|| Ok::<_, WriterError>((read(&input("boot.img"))?, read(&input("core.img"))?)));
    if let (Some(_), SectorSize::Bytes4096) = (&bios, context.sector_size) {
        return Err(WriterError::Missing(
            "make a disk with sectors of 4096 bytes that a BIOS boots: GRUB's first sector reads sectors of 512 bytes"
                .to_owned(),
        ));
    }
    let boot = Boot {
        files: efi::loaders(context.arch)?,
        type_guid: types::EFI_SYSTEM,
        bios: bios.transpose()?,
        record: Record::Protective,
    };
    write(context, boot)
}

/// `pi-card`: the firmware of a Raspberry Pi and device trees on the boot partition, which the master boot record has too.
pub(super) fn pi_card(context: &Context) -> Result<(), WriterError> {
    let boot = Boot {
        files: pi::files()?,
        type_guid: types::BASIC_DATA,
        bios: None,
        record: Record::Hybrid,
    };
    write(context, boot)
}

/// The parts that differ between a disk and a card.
struct Boot {
    /// The files that start the kernel, by path on the boot partition.
    files: Files,
    /// Type of the boot partition in the table.
    type_guid: Guid,
    /// GRUB's first sector and its core, for a disk that a BIOS boots.
    bios: Option<(Vec<u8>, Vec<u8>)>,
    record: Record,
}

/// The partitions that the master boot record lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    /// Only the partition that protects the GPT.
    Protective,
    /// The boot partition too, for firmware that does not read a GPT.
    Hybrid,
}

fn write(context: &Context, boot: Boot) -> Result<(), WriterError> {
    let root = efi::root_digest()?;
    let (menus, persist) = (build("menu"), build("persist.ext4"));
    let mut files = boot.files;
    // A second disk may have the same labels and another root, so the menu names the root partition by its GUID.
    let partuuid = Guid::derived(DERIVED, ROOT_PARTITION, &root).to_string();
    files.extend(efi::overlay(context, &root, &[(PARTUUID, partuuid)], &menus)?);
    for (place, name) in SHARED {
        files.insert(efi::rel(place)?, input(name));
    }
    make_persist(context, &root, &persist)?;

    // The boot partition is laid out twice: first for its size, then for its place in the table, which its boot sector states.
    let volume = FatVolume {
        kind: FatKind::Fat32,
        sector_size: context.sector_size,
        label: ESP_LABEL.to_owned(),
        serial: fat::serial("esp", &root),
        epoch: context.epoch,
        hidden_sectors: 0,
        size: VolumeSize::Content { spare: ESP_SPARE },
    };
    let esp = efi::lay_out(&volume, &files)?.size().next_multiple_of(MIB);
    let objects = size_of(&input(ROOT))?.next_multiple_of(MIB);
    let table = partitions(
        &root,
        context.sector_size,
        boot.bios.is_some(),
        (boot.type_guid, esp),
        objects,
    )?;
    let parts = named(&table)?;
    let hidden_sectors = u32::try_from(parts.esp.first_lba).map_err(|e| WriterError::Missing(e.to_string()))?;
    let esp = efi::lay_out(
        &FatVolume {
            hidden_sectors,
            size: VolumeSize::Sectors(parts.esp.sectors),
            ..volume
        },
        &files,
    )?;

    let path = build("disk.raw");
    let mut disk = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    disk.set_len(table.size()).map_err(WriterError::io("write", &path))?;
    let extents = fat::write(
        &esp,
        parts.esp.offset(table.sector_size),
        &efi::opener(&files),
        &mut disk,
    )?
    .extents;
    copy_in(&input(ROOT), &disk, parts.root.offset(table.sector_size))?;
    copy_in(&persist, &disk, parts.persist.offset(table.sector_size))?;
    write_table(&table, boot.bios.as_ref(), boot.record, (&path, &mut disk))?;
    disk.flush().map_err(WriterError::io("write", &path))?;

    if context.gives(PLAN) {
        plan::write(
            &path,
            table.sector_size,
            shared_extents(table.sector_size, &parts, &extents)?,
            &build(PLAN),
        )?;
    }
    fs::remove_file(&persist).map_err(WriterError::io("remove", &persist))?;
    fs::remove_dir_all(&menus).map_err(WriterError::io("remove", &menus))?;
    let (size, boot) = (table.size(), esp.size());
    let _ = writeln!(io::stdout(), "{size} bytes, {boot} of them the boot partition");
    Ok(())
}

/// Writes the partition table and the master boot record, and GRUB's code for a BIOS into both.
fn write_table(
    table: &DiskTable,
    bios: Option<&(Vec<u8>, Vec<u8>)>,
    record: Record,
    (path, disk): (&Path, &mut File),
) -> Result<(), WriterError> {
    let code = match bios {
        None => None,
        Some((first, core)) => {
            let bios = &table.partitions[0];
            let (code, core) = grub::embed(first, core, bios.first_lba, bios.sectors)?;
            disk.seek(SeekFrom::Start(bios.offset(table.sector_size)))
                .and_then(|_| disk.write_all(&core))
                .map_err(WriterError::io("write", path))?;
            Some(code)
        }
    };
    gpt::write(table, code.as_ref(), disk)?;
    if record == Record::Hybrid {
        let record = gpt::hybrid(named(table)?.esp, HYBRID_FAT32)?;
        disk.rewind()
            .and_then(|()| disk.write_all(&record.to_bytes()))
            .map_err(WriterError::io("write", path))?;
    }
    Ok(())
}

/// The extents of the disk that are files of an installation medium; `files` has the extents of the boot partition.
fn shared_extents(
    sector_size: SectorSize,
    parts: &NamedPartitions<'_>,
    files: &BTreeMap<RelPath, (u64, u64)>,
) -> Result<Vec<SharedExtent>, WriterError> {
    let mut shared = vec![SharedExtent {
        offset: parts.root.offset(sector_size),
        len: size_of(&input(ROOT))?,
        file: ROOT,
    }];
    for (place, file) in SHARED {
        let extent = files.get(&efi::rel(place)?).copied();
        let (offset, len) = extent.ok_or_else(|| WriterError::Missing(format!("make the disk: {file} is empty")))?;
        shared.push(SharedExtent {
            offset: parts.esp.offset(sector_size) + offset,
            len,
            file,
        });
    }
    Ok(shared)
}

fn size_of(path: &Path) -> Result<u64, WriterError> {
    let found = fs::metadata(path).map_err(WriterError::io("open", path))?;
    Ok(found.len())
}

/// The partition table, with identifiers derived from the root's digest.
fn partitions(
    root: &VerityDigest,
    sector_size: SectorSize,
    bios: bool,
    (esp_type, esp): (Guid, u64),
    objects: u64,
) -> Result<DiskTable, ImageError> {
    let mut wanted = vec![
        (ESP_PARTITION, esp_type, esp),
        (ROOT_PARTITION, types::LINUX_DATA, objects),
        (PERSIST_PARTITION, types::LINUX_DATA, PERSIST),
    ];
    if bios {
        wanted.insert(0, ("powernode-bios", types::BIOS_BOOT, BIOS_BOOT));
    }
    let wanted: Vec<PartitionRequest> = wanted
        .into_iter()
        .map(|(name, type_guid, size)| PartitionRequest {
            name: name.to_owned(),
            type_guid,
            guid: Guid::derived(DERIVED, name, root),
            size,
            attributes: 0,
        })
        .collect();
    gpt::plan(Guid::derived(DERIVED, "disk", root), sector_size, &wanted, None)
}

/// The partitions that every disk has.
struct NamedPartitions<'a> {
    esp: &'a Partition,
    root: &'a Partition,
    persist: &'a Partition,
}

fn named(table: &DiskTable) -> Result<NamedPartitions<'_>, WriterError> {
    let find = |name: &str| {
        let found = table.partitions.iter().find(|p| p.name == name);
        found.ok_or_else(|| WriterError::Missing(format!("make the disk: it has no partition {name}")))
    };
    Ok(NamedPartitions {
        esp: find(ESP_PARTITION)?,
        root: find(ROOT_PARTITION)?,
        persist: find(PERSIST_PARTITION)?,
    })
}

/// An empty ext4 file system for `/persist`.
fn make_persist(context: &Context, root: &VerityDigest, path: &Path) -> Result<(), WriterError> {
    let name = path.to_string_lossy();
    let uuid = Guid::derived("ext4", "persist", root).to_string();
    let seed = Guid::derived("ext4", "persist hash seed", root);
    let extended = format!("hash_seed={seed},root_owner=0:0,lazy_itable_init=0,assume_storage_prezeroed=1");
    let blocks = (PERSIST / 4096).to_string();
    #[rustfmt::skip]
    let arguments = [
        "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-J", JOURNAL, "-L", LABEL, "-O", FEATURES,
        "-U", &uuid, "-E", &extended, &name, &blocks,
    ];
    let time = context.epoch.to_string();
    let output = Command::new(Path::new(SBIN).join(MKE2FS))
        .args(arguments)
        .env_clear()
        .envs([
            ("E2FSPROGS_FAKE_TIME", time.as_str()),
            ("SOURCE_DATE_EPOCH", &time),
            ("MKE2FS_CONFIG", "/dev/null"),
            ("LC_ALL", "C.UTF-8"),
        ])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ImageError::Run {
            tool: MKE2FS.to_owned(),
            source,
        })?;
    if !output.status.success() {
        return Err(ImageError::Tool {
            tool: MKE2FS.to_owned(),
            problem: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        }
        .into());
    }
    Ok(())
}

/// Copies a file to byte `at` of `out`, which must be zero there.
fn copy_in(from: &Path, out: &File, at: u64) -> Result<(), WriterError> {
    let mut file = File::open(from).map_err(WriterError::io("open", from))?;
    copy_sparse(&mut file, out, at)
        .map(drop)
        .map_err(WriterError::io("copy to the disk", from))
}

fn read(path: &Path) -> Result<Vec<u8>, WriterError> {
    fs::read(path).map_err(WriterError::io("read", path))
}
