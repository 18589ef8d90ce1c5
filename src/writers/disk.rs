//! `disk-image` and `efi-image`: media that firmware starts from.
//!
//! ```text
//! sector 0      protective MBR, with GRUB's first sector for BIOS
//! partition 1   BIOS boot: GRUB's core
//! partition 2   EFI system partition, FAT32, label POWERNODE: shim, GRUB, its menu, kernel, initramfs, identity.cfg
//! partition 3   root.ext4: composefs image and objects
//! partition 4   /persist, ext4, small; the first boot grows it to the disk
//! end           the table again
//! ```
//!
//! All names and numbers come from the root's digest: equal roots give equal bytes. No device, no mount and no privilege is
//! needed. The plan and the parts that `powernode.install=` writes are made from the finished image ([`super::plan`]).

use super::{Context, TreeInput, WriterError, build, input, opener, plan, tools::run_tool, tree_input};
use crate::{
    image::{
        Guid,
        ext4::ToolCall,
        fat,
        gpt::{self, Wanted, types},
        grub,
    },
    model::{Arch, Node, RelPath, VerityDigest},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Name of the format in derived identifiers.
const DERIVED: &str = "disk";
/// Room for GRUB's core.
const BIOS_BOOT: u64 = 1 << 20;
/// What an EFI system partition has beyond its content, for files that firmware or an operator leaves there.
const ESP_SPARE: u64 = 8 << 20;
/// `/persist` before it is grown, bytes.
const PERSIST: u64 = 64 << 20;
/// Its journal, MiB.
const PERSIST_JOURNAL: &str = "size=8";
/// Label of the boot FAT, by which 90powernode finds identity.cfg.
const ESP_LABEL: &str = "POWERNODE";
/// Label of the EFI image of optical media: nobody keeps an identity there.
const EFI_LABEL: &str = "PNEFI";
/// Features of `/persist`: those of any ext4 of today, fs-verity for the modules' objects, and room to grow.
const PERSIST_FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,extent,64bit,flex_bg,sparse_super,large_file,\
huge_file,dir_nlink,extra_isize,filetype,metadata_csum,verity";

/// Files by their place on a FAT volume, each with where its content is.
type Files = BTreeMap<RelPath, PathBuf>;

pub(super) fn disk_image(context: &Context) -> Result<(), WriterError> {
    let root = root_digest()?;
    let mut files = loaders(context)?;
    files.extend(menu(context, &build("menu"))?);
    for (place, name) in [
        ("powernode/vmlinuz", "vmlinuz"),
        ("powernode/initramfs.cpio.zst", "initramfs.cpio.zst"),
    ] {
        files.insert(rel(place)?, input(name));
    }
    let _ = (root, files);
    Ok(())
}
