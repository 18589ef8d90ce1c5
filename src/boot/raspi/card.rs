//! `Card`: finds and loads the boot files of an SD card, as the firmware of a Raspberry Pi 4 does.

use super::{Config, emulated};
use crate::{
    image::{
        ReadAt, ReadCursor, Source,
        fat::{Fat, FatEntry, FatFile},
        raspi::{AUTOBOOT, MAX_AUTOBOOT},
    },
    inspect::{self, PartKind, SpoolDirectory},
    model::{Hint, RelPath, chain},
};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// Largest files of the boot partition, bytes: kernel and initramfs, device tree, texts.
const MAX_LOADED: u64 = 1 << 30;
const MAX_DEVICE_TREE: u64 = 1 << 20;
const MAX_TEXT: u64 = 64 << 10;
/// The firmware's configuration.
const CONFIG: &str = "config.txt";
/// Offset of the magic number in the Image of an arm64 kernel, and the magic number. Source: `Documentation/arch/arm64/booting.rst` of Linux.
const IMAGE_MAGIC_AT: u64 = 56;
const IMAGE_MAGIC: &[u8] = b"ARM\x64";
/// First bytes of a gzip file; the firmware unpacks a compressed kernel.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// Why a card cannot be booted; every message completes "failed to …".
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CardError {
    /// The boot partition is missing or unreadable.
    #[error("find the boot partition of {card:?}: {problem}")]
    Partition {
        /// The image.
        card: String,
        /// The fault.
        problem: String,
    },
    /// A file that the firmware or the kernel needs is missing or unusable.
    #[error("load {file} of {card:?}: {problem}")]
    File {
        /// The image.
        card: String,
        /// The file on the boot partition.
        file: String,
        /// The fault of the file.
        problem: String,
    },
}

impl Hint for CardError {}

/// Name of the kernel that [`Card::load`] writes.
pub const KERNEL: &str = "kernel";
/// Name of the initramfs that [`Card::load`] writes.
pub const INITRAMFS: &str = "initramfs";
/// Name of the device tree that [`Card::load`] writes.
pub const DEVICE_TREE: &str = "device-tree.dtb";

/// A card: the FAT file system of its boot partition.
pub struct Card {
    name: String,
    boot: Fat<Source>,
}

impl Card {
    /// Finds the boot partition of the card `source`: the first partition with a FAT file system, or the one that an `autoboot.txt` there
    /// names. `name` names the card in errors.
    pub fn open(source: &Source, name: &str, scratch: &SpoolDirectory) -> Result<Self, CardError> {
        let bad = |problem: String| CardError::Partition {
            card: name.to_owned(),
            problem,
        };
        let part = inspect::open(source.clone(), name).map_err(|e| bad(e.to_string()))?;
        let look = part.look(scratch);
        let partitions: Vec<_> = look.children.iter().filter(|c| c.kind == PartKind::Partition).collect();
        let boot = partitions.iter().find_map(|p| Fat::open(p.source().clone()).ok());
        let boot = boot.ok_or_else(|| {
            let problem = look.problem.map(|p| format!(": {p}")).unwrap_or_default();
            bad(format!("it is {}, without a FAT partition{problem}", look.format))
        })?;
        let card = Self {
            name: name.to_owned(),
            boot,
        };
        let Ok(Some(_)) = card.entry(AUTOBOOT) else {
            return Ok(card);
        };
        let text = card.bytes(AUTOBOOT, MAX_AUTOBOOT)?;
        let no_include = |file: &str| Err(format!("it includes {file}"));
        let config = Config::parse(&String::from_utf8_lossy(&text), &no_include);
        let config = config.map_err(|problem| card.bad(AUTOBOOT, problem))?;
        let Some(number) = config.boot_partition() else {
            return Ok(card);
        };
        let wanted = partitions.iter().find(|p| {
            let rest = p.name.strip_prefix("partition ").unwrap_or_default();
            rest.split(' ').next() == Some(number.to_string().as_str())
        });
        let wanted =
            wanted.ok_or_else(|| card.bad(AUTOBOOT, format!("it names partition {number}, which the card lacks")))?;
        let boot = Fat::open(wanted.source().clone()).map_err(|e| card.bad(AUTOBOOT, chain(&e)))?;
        Ok(Self { boot, ..card })
    }

    /// Whether the boot partition has a `config.txt`: disks that are not cards have a FAT partition too.
    pub fn has_config(&self) -> bool {
        self.entry(CONFIG).is_ok_and(|entry| entry.is_some())
    }

    /// Loads the files that the firmware would load: writes copies of kernel, initramfs and device tree to the existing directory `to`, and
    /// returns the command line. Device tree and command line are adapted to the emulated machine.
    pub fn load(&self, to: &Path) -> Result<String, CardError> {
        let config = Config::parse(&self.text(CONFIG)?, &|file| self.text(file).map_err(|e| e.to_string()));
        let config = config.map_err(|problem| self.bad(CONFIG, problem))?;
        let exists = |file: &str| Ok(self.entry(file)?.is_some());
        let files = config.files(&exists).map_err(|problem| self.bad(CONFIG, problem))?;
        // The board needs these files to start the kernel; the emulation does not read them.
        for file in &files.firmware {
            self.open_file(file, MAX_LOADED)?;
        }
        let device_tree = files.device_tree.as_deref().ok_or_else(|| {
            self.bad(
                CONFIG,
                "device_tree= is empty, so the kernel would find no device".to_owned(),
            )
        })?;
        if files.initramfs.is_empty() {
            return Err(self.bad(CONFIG, "it names no initramfs".to_owned()));
        }
        let line = self.text(&files.command_line)?;
        let line = checked_line(&line).map_err(|problem| self.bad(&files.command_line, problem))?;

        let kernel = self.open_file(&files.kernel, MAX_LOADED)?;
        if !is_kernel(&kernel) {
            let problem = "it is neither an Image of an arm64 kernel nor one compressed by gzip".to_owned();
            return Err(self.bad(&files.kernel, problem));
        }
        self.copy(&[&files.kernel], &to.join(KERNEL))?;
        let pieces: Vec<&str> = files.initramfs.iter().map(String::as_str).collect();
        self.copy(&pieces, &to.join(INITRAMFS))?;
        let tree = self.bytes(device_tree, MAX_DEVICE_TREE)?;
        let tree = emulated::device_tree(&tree).map_err(|problem| self.bad(device_tree, problem))?;
        fs::write(to.join(DEVICE_TREE), tree).map_err(|e| self.bad(device_tree, e.to_string()))?;
        Ok(emulated::command_line(line))
    }

    fn bad(&self, file: &str, problem: String) -> CardError {
        CardError::File {
            card: self.name.clone(),
            file: file.to_owned(),
            problem,
        }
    }

    fn entry(&self, file: &str) -> Result<Option<FatEntry>, String> {
        let path = RelPath::new(file).map_err(|e| e.to_string())?;
        let entry = self.boot.lookup(&path).map_err(|e| chain(&e))?;
        Ok(entry.filter(|e| !e.directory))
    }

    fn open_file(&self, file: &str, most: u64) -> Result<FatFile<&Source>, CardError> {
        let bad = |problem| self.bad(file, problem);
        let entry = self.entry(file).map_err(bad)?;
        let entry = entry.ok_or_else(|| bad("the boot partition does not have it".to_owned()))?;
        if u64::from(entry.size) > most {
            return Err(bad(format!("it has {} bytes, more than {most}", entry.size)));
        }
        self.boot.file(&entry).map_err(|e| bad(chain(&e)))
    }

    fn bytes(&self, file: &str, most: u64) -> Result<Vec<u8>, CardError> {
        let mut bytes = Vec::new();
        let mut reader = ReadCursor::new(self.open_file(file, most)?);
        reader
            .read_to_end(&mut bytes)
            .map_err(|e| self.bad(file, e.to_string()))?;
        Ok(bytes)
    }

    fn text(&self, file: &str) -> Result<String, CardError> {
        let bytes = self.bytes(file, MAX_TEXT)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Concatenates files.
    fn copy(&self, files: &[&str], to: &Path) -> Result<(), CardError> {
        let mut out = File::create_new(to).map_err(|e| self.bad(&to.to_string_lossy(), e.to_string()))?;
        for file in files {
            let mut reader = ReadCursor::new(self.open_file(file, MAX_LOADED)?);
            io::copy(&mut reader, &mut out).map_err(|e| self.bad(file, e.to_string()))?;
        }
        Ok(())
    }
}

/// Whether a file begins as a kernel that the firmware starts.
fn is_kernel(file: &impl ReadAt) -> bool {
    let holds = |at: u64, magic: &[u8]| {
        let mut bytes = [0; 4];
        let bytes = &mut bytes[..magic.len()];
        file.read_exact_at(bytes, at).is_ok() && bytes == magic
    };
    holds(IMAGE_MAGIC_AT, IMAGE_MAGIC) || holds(0, GZIP_MAGIC)
}

/// The single line of `cmdline.txt`.
fn checked_line(text: &str) -> Result<&str, String> {
    let line = text.trim_ascii_end();
    match line.bytes().find(|b| !(0x20..0x7f).contains(b)) {
        None => Ok(line),
        Some(b'\n') => Err("it has more than one line, but the firmware reads only one".to_owned()),
        Some(byte) => Err(format!("it holds the byte {byte:#04x}, which is not printable ASCII")),
    }
}
