//! `disk-image`: a disk that boots by UEFI, UEFI Secure Boot and, on amd64, BIOS. `pi-card`: one that a Raspberry Pi 4 boots.
//!
//! ```text
//! sector 0      protective MBR, with GRUB's first sector for BIOS; of a card a hybrid MBR, which has the boot partition too
//! powernode-bios      BIOS boot: GRUB's core; only with a BIOS to boot by
//! powernode-esp       boot partition, FAT32, label POWERNODE: shim, GRUB and its menu, or the firmware of a Pi with its
//!                     config.txt, cmdline.txt and device trees; kernel, initramfs, identity.cfg, powernode-ca.pem
//! powernode-root      root.ext4: composefs image and objects
//! powernode-persist   /persist, ext4, small; the first boot grows it to the disk
//! end           the table again
//! ```
//!
//! All names and numbers come from the root's digest: equal roots give equal bytes. No device, no mount and no privilege is
//! needed. The plan and the parts that `powernode.install=` writes are made from the finished image ([`super::plan`]).

use super::{Context, WriterError, build, efi, efi::Files, input, pi, plan, plan::SharedExtent, root::run_tool};
use crate::{
    image::{
        Guid, ImageError,
        ext4::ToolCall,
        fat::{self, FatKind, FatVolume, VolumeSize},
        gpt::{self, DiskTable, Partition, PartitionRequest, types},
        grub,
    },
    model::VerityDigest,
    store::copy_sparse,
};
use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

/// Name of the format in derived identifiers.
const DERIVED: &str = "gpt";
/// Partitions are whole MiB long, as they begin at whole MiB.
const MIB: u64 = 1 << 20;
/// Room for GRUB's core, bytes.
const BIOS_BOOT: u64 = 1 << 20;
/// What the EFI system partition has beyond its content, for files that firmware or an operator leaves there, bytes.
const ESP_SPARE: u64 = 8 << 20;
/// Label of the boot FAT, by which 90powernode finds identity.cfg.
const ESP_LABEL: &str = "POWERNODE";
/// `/persist` before it is grown, bytes.
const PERSIST: u64 = 64 << 20;
/// Its label, of which ext4 has 16 characters; 90powernode goes by the name of the partition.
const LABEL: &str = "powernode-data";
/// Its journal, MiB.
const JOURNAL: &str = "size=8";
/// Features of `/persist`: those of any ext4 of today, fs-verity for the objects of modules, and room to grow.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,dir_nlink,extra_isize,filetype,metadata_csum,verity";
/// Files of the medium that the disk has too: place on the ESP, and name beside `root.ext4`.
const SHARED: [(&str, &str); 2] = [
    ("powernode/vmlinuz", "vmlinuz"),
    ("powernode/initramfs.cpio.zst", "initramfs.cpio.zst"),
];
const ROOT: &str = "root.ext4";
/// Name of its partition, and the word of a menu that its GUID takes the place of.
const ROOT_PARTITION: &str = "powernode-root";
const PARTUUID: &str = "@ROOT_PARTUUID@";
/// Names by which 90powernode finds the boot partition and `/persist`.
const ESP_PARTITION: &str = "powernode-esp";
const PERSIST_PARTITION: &str = "powernode-persist";
/// What a master boot record calls FAT32.
const HYBRID_FAT32: u8 = 0x0c;
/// The output with the plan of an installation.
const PLAN: &str = "install";

/// `disk-image`: shim and GRUB on the boot partition; with the inputs `boot.img` and `core.img` a BIOS starts it too.
pub(super) fn disk_image(context: &Context) -> Result<(), WriterError> {
    let bios = (input("core.img").exists())
        .then(|| Ok::<_, WriterError>((read(&input("boot.img"))?, read(&input("core.img"))?)));
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

/// What disks differ by.
struct Boot {
    /// What starts the kernel, by place on the boot partition.
    files: Files,
    /// What the partition table calls that partition.
    type_guid: Guid,
    /// GRUB's first sector and its core.
    bios: Option<(Vec<u8>, Vec<u8>)>,
    record: Record,
}

/// What the first sector says of the partitions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    /// Nothing but that there is a GPT.
    Protective,
    /// Where the boot partition is as well, for firmware that knows no GPT.
    Hybrid,
}

fn write(context: &Context, boot: Boot) -> Result<(), WriterError> {
    let root = efi::root_digest()?;
    let mut files = boot.files;
    // A second disk with another root has the same labels.
    let partuuid = Guid::derived(DERIVED, ROOT_PARTITION, &root).to_string();
    files.extend(efi::overlay(context, &root, &[(PARTUUID, partuuid)], &build("menu"))?);
    for (place, name) in SHARED {
        files.insert(efi::rel(place)?, input(name));
    }
    let volume = FatVolume {
        kind: FatKind::Fat32,
        label: ESP_LABEL.to_owned(),
        serial: fat::serial("esp", &root),
        epoch: context.epoch,
        hidden_sectors: 0,
        size: VolumeSize::Content { spare: ESP_SPARE },
    };
    let persist = build("persist.ext4");
    make_persist(context, &root, &persist)?;

    let size_of = |path: &Path| {
        fs::metadata(path)
            .map(|m| m.len())
            .map_err(WriterError::io("open", path))
    };
    let esp = efi::lay_out(&volume, &files)?.size().next_multiple_of(MIB);
    let objects = size_of(&input(ROOT))?.next_multiple_of(MIB);
    let table = partitions(&root, boot.bios.is_some(), (boot.type_guid, esp), objects)?;
    let [esp_part, objects_part, persist_part] = named(&table)?;
    let hidden_sectors = u32::try_from(esp_part.first_lba).map_err(|e| WriterError::Missing(e.to_string()))?;
    let esp = efi::lay_out(
        &FatVolume {
            hidden_sectors,
            size: VolumeSize::Sectors(esp_part.sectors),
            ..volume
        },
        &files,
    )?;

    let path = build("disk.raw");
    let mut disk = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    disk.set_len(table.size()).map_err(WriterError::io("write", &path))?;
    let extents = fat::write(&esp, esp_part.offset(), &efi::opener(&files), &mut disk)?.extents;
    copy_in(&input(ROOT), &disk, objects_part.offset())?;
    copy_in(&persist, &disk, persist_part.offset())?;
    let code = match &boot.bios {
        None => None,
        Some((first, core)) => {
            let bios = &table.partitions[0];
            let (code, core) = grub::embed(first, core, bios.first_lba, bios.sectors)?;
            disk.seek(SeekFrom::Start(bios.offset()))
                .and_then(|_| disk.write_all(&core))
                .map_err(WriterError::io("write", &path))?;
            Some(code)
        }
    };
    gpt::write(&table, code.as_ref(), &mut disk)?;
    if boot.record == Record::Hybrid {
        let record = gpt::hybrid(esp_part, HYBRID_FAT32)?;
        disk.rewind()
            .and_then(|()| disk.write_all(&record.to_bytes()))
            .map_err(WriterError::io("write", &path))?;
    }
    disk.flush().map_err(WriterError::io("write", &path))?;

    if context.gives(PLAN) {
        let mut known = vec![SharedExtent {
            offset: objects_part.offset(),
            len: size_of(&input(ROOT))?,
            file: ROOT,
        }];
        for (place, file) in SHARED {
            let extent = extents.get(&efi::rel(place)?).copied();
            let (offset, len) =
                extent.ok_or_else(|| WriterError::Missing(format!("make the disk: {file} is empty")))?;
            known.push(SharedExtent {
                offset: esp_part.offset() + offset,
                len,
                file,
            });
        }
        plan::write(&path, known, &build(PLAN))?;
    }
    for scratch in [&persist, &build("menu")] {
        let removed = if scratch.is_dir() {
            fs::remove_dir_all(scratch)
        } else {
            fs::remove_file(scratch)
        };
        removed.map_err(WriterError::io("remove", scratch))?;
    }
    let _ = writeln!(
        io::stdout(),
        "{} bytes, {} of them the boot partition",
        table.size(),
        esp.size()
    );
    Ok(())
}

/// The table, with identifiers made of the root's digest.
fn partitions(
    root: &VerityDigest,
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
    gpt::plan(Guid::derived(DERIVED, "disk", root), &wanted, None)
}

/// The partitions that every disk has: boot, root, persist.
fn named(table: &DiskTable) -> Result<[&Partition; 3], WriterError> {
    let find = |name: &str| {
        let found = table.partitions.iter().find(|p| p.name == name);
        found.ok_or_else(|| WriterError::Missing(format!("make the disk: it has no partition {name}")))
    };
    Ok([find(ESP_PARTITION)?, find(ROOT_PARTITION)?, find(PERSIST_PARTITION)?])
}

/// An empty ext4 file system for `/persist`.
fn make_persist(context: &Context, root: &VerityDigest, path: &Path) -> Result<(), WriterError> {
    let name = path.to_string_lossy();
    let uuid = Guid::derived("ext4", "persist", root).to_string();
    let seed = Guid::derived("ext4", "persist hash seed", root);
    let extended = format!("hash_seed={seed},root_owner=0:0,lazy_itable_init=0,assume_storage_prezeroed=1");
    let blocks = (PERSIST / 4096).to_string();
    #[rustfmt::skip]
    let argv = [
        "mke2fs", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-J", JOURNAL, "-L", LABEL, "-O", FEATURES,
        "-U", &uuid, "-E", &extended, &name, &blocks,
    ];
    let time = context.epoch.to_string();
    let call = ToolCall {
        argv: argv.map(str::to_owned).to_vec(),
        env: vec![
            ("E2FSPROGS_FAKE_TIME", time.clone()),
            ("SOURCE_DATE_EPOCH", time),
            ("MKE2FS_CONFIG", "/dev/null".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
        ],
    };
    let run = |source| ImageError::Run {
        tool: "mke2fs".to_owned(),
        source,
    };
    let output = run_tool(&call).map_err(run)?;
    if output.status != Some(0) {
        return Err(ImageError::Tool {
            tool: "mke2fs".to_owned(),
            problem: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        }
        .into());
    }
    Ok(())
}

/// Copies a file into `out` from byte `at` on, where there are zeros yet.
fn copy_in(from: &Path, out: &File, at: u64) -> Result<(), WriterError> {
    let mut file = File::open(from).map_err(WriterError::io("open", from))?;
    copy_sparse(&mut file, out, at)
        .map(drop)
        .map_err(WriterError::io("copy to the disk", from))
}

fn read(path: &Path) -> Result<Vec<u8>, WriterError> {
    fs::read(path).map_err(WriterError::io("read", path))
}
