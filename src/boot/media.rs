//! The files of this host that a machine is given: media, disks, kernels and values of the firmware.
//!
//! [`MachineFiles`] makes each file where it is missing and collects the mounts that bring the files into the machine's sandbox.

use super::{
    Attach, BootMedia, DirectKernel, Firmware, Forward, ForwardListener, FwCfg, ImageFormat, Medium, Outlet, Reach,
    raspi::{self, Card, CardError},
};
use crate::{
    image::{
        ReadCursor, gpt, open_source,
        qcow2::{self, Qcow2},
    },
    inspect::{InspectError, SpoolDirectory, find_file},
    model::{Hint, ModelError, RelPath, SectorSize, chain},
    sandbox::{Access, Mount},
    store::{Store, copy_sparse},
};
use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where the machine's sandbox has the artifact.
pub const ARTIFACT: &str = "/inputs/artifact";
/// Kernel and initramfs on media: the name of the copy, and the path on the medium.
const DIRECT: [(&str, &str); 2] = [
    ("kernel", "/powernode/vmlinuz"),
    ("initramfs", "/powernode/initramfs.cpio.zst"),
];
/// Size of a second disk when no other is asked for, bytes.
const SECOND_DISK: u64 = 4 << 30;

/// Why a file of the machine could not be made or opened; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// QEMU takes SD cards of certain sizes only.
    #[error("use a card of {size} bytes: the size of QEMU's cards is a power of two")]
    CardSize {
        /// The size in bytes.
        size: u64,
    },
    /// A port of this host cannot be forwarded.
    #[error("listen on {address} for --forward")]
    Forward {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A kept copy is a raw disk, and its name says something else.
    #[error("keep a copy in {path:?}: the copy is a raw disk, named *.raw or *.img")]
    KeptName {
        /// The name.
        path: PathBuf,
    },
    /// The artifact has no image of a card.
    #[error("find the card: the artifact has no image")]
    NoCard,
    /// A disk would be smaller than the image that it is made from.
    #[error("make the disk {path:?}: its image has {image} bytes, and --size allows {size}")]
    Small {
        /// The disk.
        path: PathBuf,
        /// Size of the image in bytes.
        image: u64,
        /// Size that was asked for, in bytes.
        size: u64,
    },
    /// The disk needs something that its image does not hold.
    #[error("boot {path:?}: {problem}")]
    Outside {
        /// The image.
        path: PathBuf,
        /// What it needs.
        problem: String,
    },
    /// No BIOS starts from such a disk.
    #[error(
        "boot {path:?} by BIOS: its partition table is for sectors of {size} bytes, and a BIOS reads sectors of 512"
    )]
    BiosSectors {
        /// The image.
        path: PathBuf,
        /// Bytes of its sectors.
        size: SectorSize,
    },
    /// A disk could not be made.
    #[error("make the disk {path:?}")]
    Disk {
        /// The disk.
        path: PathBuf,
        /// The reason that the system gave, or the fault of the image.
        #[source]
        source: io::Error,
    },
    /// A file could not be opened, created or written.
    #[error("{verb} {path:?}")]
    Io {
        /// The failed operation.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason that the system gave.
        #[source]
        source: io::Error,
    },
    /// A file on the medium could not be found.
    #[error(transparent)]
    Find(#[from] InspectError),
    /// The card cannot be started from.
    #[error(transparent)]
    Card(#[from] CardError),
    /// A path in the sandbox is malformed.
    #[error("mount a file in the sandbox")]
    Target(#[from] ModelError),
}

impl MediaError {
    fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| MediaError::Io { verb, path, source }
    }
}

impl Hint for MediaError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            MediaError::CardSize { size } => {
                Some(format!("give --size {}, the next power of two", size.next_power_of_two()).into())
            }
            MediaError::BiosSectors { .. } => Some("--firmware uefi boots it".into()),
            MediaError::Forward { address, source } => Some(match source.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "another program has this port, and `ss -ltnp 'sport = :{}'` names it; end it, or choose another port, or 0 for any \
                     free one",
                    address.port()
                )
                .into(),
                _ => "choose another address or port; port 0 stands for any free one".into(),
            }),
            MediaError::Outside { .. } => {
                Some("`qemu-img convert -O qcow2 OLD NEW` makes an image that needs no other file".into())
            }
            _ => None,
        }
    }
}

/// The media that a machine is to have.
#[derive(Clone, Copy, Debug)]
pub struct MediaRequest<'a> {
    /// The image that it boots from, and how the image is brought to it.
    pub image: Option<(&'a Path, BootMedia)>,
    /// The device that the image becomes.
    pub attach: Attach,
    /// The firmware that starts it.
    pub firmware: Firmware,
    /// A copy of the image that the machine writes to instead, made if it is missing.
    pub keep: Option<&'a Path>,
    /// A second disk, made empty if it is missing.
    pub disk: Option<&'a Path>,
    /// Size in bytes of a disk that is made.
    pub size: Option<u64>,
    /// The sectors of the second disk. Those of the image are the ones that its partition table counts in.
    pub sector_size: SectorSize,
}

/// The files of a machine. Files that are made for one run lie in the scratch directory of the store and are removed with it.
pub struct MachineFiles<'a> {
    store: &'a Store,
    mounts: Vec<Mount>,
}

impl<'a> MachineFiles<'a> {
    /// The files of a machine that boots `artifact`, a directory or an image.
    ///
    /// # Errors
    /// The artifact cannot be opened.
    pub fn new(store: &'a Store, artifact: &Path) -> Result<Self, MediaError> {
        let mounts = Vec::new();
        let mut files = Self { store, mounts };
        files.mount(artifact, "inputs/artifact", Access::ReadOnly)?;
        Ok(files)
    }

    /// The mounts of the machine's sandbox.
    pub fn into_mounts(self) -> Vec<Mount> {
        self.mounts
    }

    /// Shares a directory with the machine; returns its path in the sandbox.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn share(&mut self, dir: &Path) -> Result<String, MediaError> {
        self.mount(dir, "inputs/share", Access::ReadWrite)
    }

    /// Makes the sockets that lead to the servers of `reaches`; returns them, and their directory in the sandbox.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub fn reach(&mut self, reaches: &[Reach]) -> Result<(Vec<Outlet>, String), MediaError> {
        let dir = self.store.scratch_path("reach");
        let outlets = Outlet::all(reaches, &dir).map_err(MediaError::io("make sockets in", &dir))?;
        // A read-only mount is an overlay, and no socket can be connected to through one.
        Ok((outlets, self.mount(&dir, "inputs/reach", Access::ReadWrite)?))
    }

    /// Takes the ports of `forwards` on this host; returns them, and the directory of their sockets in the sandbox.
    ///
    /// # Errors
    /// A port is taken, or a socket cannot be made.
    pub fn forward(&mut self, forwards: &[Forward]) -> Result<(Vec<ForwardListener>, String), MediaError> {
        let dir = self.store.scratch_path("forward");
        let taken = ForwardListener::all(forwards, &dir).map_err(|(address, source)| match address {
            Some(address) => MediaError::Forward { address, source },
            None => MediaError::io("make sockets in", &dir)(source),
        })?;
        // As for `reach`.
        Ok((taken, self.mount(&dir, "inputs/forward", Access::ReadWrite)?))
    }

    /// Makes the empty file `capture` for the packets of the machine's card; returns its path in the sandbox.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn capture(&mut self, capture: &Path) -> Result<String, MediaError> {
        File::create(capture).map_err(MediaError::io("write", capture))?;
        self.mount(capture, "inputs/capture", Access::ReadWrite)
    }

    /// Writes each value to a file; returns each key with the path of its file in the sandbox.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn fw_cfg(&mut self, values: &[FwCfg]) -> Result<Vec<(String, String)>, MediaError> {
        let dir = self.scratch("fw-cfg")?;
        let target = self.mount(&dir, "inputs/fw-cfg", Access::ReadOnly)?;
        let mut keys = Vec::new();
        for (n, value) in values.iter().enumerate() {
            let file = dir.join(n.to_string());
            fs::write(&file, &value.value).map_err(MediaError::io("write", &file))?;
            keys.push((value.key.clone(), format!("{target}/{n}")));
        }
        Ok(keys)
    }

    /// Kernel and initramfs of a machine that is started directly: of the artifact's directory, or copied off the medium `image`.
    /// Returns their paths in the sandbox.
    ///
    /// # Errors
    /// The medium has no such files, or they cannot be copied.
    pub fn direct(&mut self, image: Option<&Path>) -> Result<(String, String), MediaError> {
        let Some(image) = image else {
            return Ok((format!("{ARTIFACT}/kernel"), format!("{ARTIFACT}/initramfs.cpio.zst")));
        };
        let dir = self.scratch("direct")?;
        let source = open_source(image).map_err(MediaError::io("open", image))?;
        let spool = SpoolDirectory::new(dir.clone());
        for (name, path) in DIRECT {
            let file = find_file(&source, &image.to_string_lossy(), path, &spool)?;
            let to = dir.join(name);
            File::create_new(&to)
                .and_then(|mut out| io::copy(&mut ReadCursor::new(&file), &mut out))
                .map_err(MediaError::io("write", &to))?;
        }
        let target = self.mount(&dir, "inputs/direct", Access::ReadOnly)?;
        let [kernel, initramfs] = DIRECT.map(|(name, _)| format!("{target}/{name}"));
        Ok((kernel, initramfs))
    }

    /// Kernel, initramfs, device tree and command line as the firmware of a Raspberry Pi takes them off the card `image`.
    ///
    /// # Errors
    /// The card cannot be read, or lacks one of them.
    pub fn card(&mut self, image: Option<&Path>) -> Result<DirectKernel, MediaError> {
        let image = image.ok_or(MediaError::NoCard)?;
        let dir = self.scratch("card")?;
        let source = open_source(image).map_err(MediaError::io("open", image))?;
        let card = Card::open(&source, &image.to_string_lossy(), &SpoolDirectory::new(dir.clone()))?;
        let command_line = card.load(&dir)?;
        let target = self.mount(&dir, "inputs/card", Access::ReadOnly)?;
        let file = |name| format!("{target}/{name}");
        Ok(DirectKernel {
            image: file(raspi::KERNEL),
            initramfs: file(raspi::INITRAMFS),
            device_tree: Some(file(raspi::DEVICE_TREE)),
            command_line,
        })
    }

    /// The media of the machine: the one that it boots from, and the second disk. Makes the disks that are asked for and missing.
    ///
    /// # Errors
    /// A disk cannot be made, or has a size that the machine does not take.
    pub fn media(&mut self, request: &MediaRequest<'_>) -> Result<Vec<Medium>, MediaError> {
        let mut media = Vec::new();
        if let Some((image, kind)) = request.image {
            let format = match kind {
                BootMedia::Disk(format) => format,
                _ => ImageFormat::Raw,
            };
            if format == ImageFormat::Qcow2 {
                check_whole(image)?;
            }
            let (file, format) = match request.keep {
                None => (self.medium(image, request.attach)?, format),
                Some(copy) => (self.kept(copy, image, format, request)?, ImageFormat::Raw),
            };
            let sector_size = match (kind, request.keep) {
                (BootMedia::Disk(_), Some(copy)) => sectors_of(copy, ImageFormat::Raw)?,
                (BootMedia::Disk(_), None) => sectors_of(image, format)?,
                _ => SectorSize::default(),
            };
            if (request.firmware, sector_size) == (Firmware::Bios, SectorSize::Bytes4096) {
                return Err(MediaError::BiosSectors {
                    path: image.to_owned(),
                    size: sector_size,
                });
            }
            media.push(Medium {
                file,
                format,
                attach: request.attach,
                sector_size,
                keep: request.keep.is_some(),
            });
        }
        if let Some(disk) = request.disk {
            if !disk.try_exists().map_err(MediaError::io("look for", disk))? {
                make_disk(disk, None, Some(request.size.unwrap_or(SECOND_DISK)))?;
            }
            media.push(Medium {
                file: self.mount(disk, "inputs/disk", Access::ReadWrite)?,
                format: ImageFormat::Raw,
                attach: Attach::Disk,
                sector_size: request.sector_size,
                keep: true,
            });
        }
        Ok(media)
    }

    /// The image itself; of a card whose size QEMU does not take, a longer copy for this run.
    fn medium(&mut self, image: &Path, attach: Attach) -> Result<String, MediaError> {
        if attach == Attach::Card {
            let size = card_size(image, None)?;
            if size != len_of(image)? {
                let copy = self.store.scratch_path("card.img");
                make_disk(&copy, Some((image, ImageFormat::Raw)), Some(size))?;
                return self.mount(&copy, "inputs/medium", Access::ReadOnly);
            }
        }
        self.mount(image, "inputs/medium", Access::ReadOnly)
    }

    /// The copy that the machine writes to.
    fn kept(
        &mut self,
        copy: &Path,
        image: &Path,
        format: ImageFormat,
        request: &MediaRequest<'_>,
    ) -> Result<String, MediaError> {
        if BootMedia::of_file(copy) != Some(BootMedia::Disk(ImageFormat::Raw)) {
            return Err(MediaError::KeptName { path: copy.to_owned() });
        }
        let is_card = request.attach == Attach::Card;
        if !copy.try_exists().map_err(MediaError::io("look for", copy))? {
            let size = match is_card {
                true => Some(card_size(image, request.size)?),
                false => request.size,
            };
            make_disk(copy, Some((image, format)), size)?;
        } else if is_card {
            card_size(copy, Some(len_of(copy)?))?;
        }
        self.mount(copy, "inputs/medium", Access::ReadWrite)
    }

    /// A new directory of the store's scratch.
    fn scratch(&self, name: &str) -> Result<PathBuf, MediaError> {
        let dir = self.store.scratch_path(name);
        fs::create_dir(&dir).map_err(MediaError::io("create", &dir))?;
        Ok(dir)
    }

    /// Mounts `source` at `target`, relative to the sandbox's root; returns the absolute path there.
    fn mount(&mut self, source: &Path, target: &str, access: Access) -> Result<String, MediaError> {
        let source = source.canonicalize().map_err(MediaError::io("open", source))?;
        let target = RelPath::new(target)?;
        let path = format!("/{target}");
        self.mounts.push(Mount { source, target, access });
        Ok(path)
    }
}

/// The sectors in which the partition table of a disk counts; 512 bytes where it has none.
fn sectors_of(image: &Path, format: ImageFormat) -> Result<SectorSize, MediaError> {
    let file = File::open(image).map_err(MediaError::io("open", image))?;
    let found = match format {
        ImageFormat::Raw => gpt::examine(&file),
        ImageFormat::Qcow2 => Qcow2::open(file).and_then(|disk| gpt::examine(&disk)),
    };
    Ok(found.map_or(SectorSize::default(), |table| table.sector_size))
}

/// Refuses a qcow2 image that needs another file or a key, neither of which the machine has.
fn check_whole(image: &Path) -> Result<(), MediaError> {
    let file = File::open(image).map_err(MediaError::io("open", image))?;
    match qcow2::needs(&file) {
        Ok(None) => Ok(()),
        Ok(Some(problem)) => Err(MediaError::Outside {
            path: image.to_owned(),
            problem,
        }),
        Err(error) => Err(MediaError::Outside {
            path: image.to_owned(),
            problem: chain(&error),
        }),
    }
}

fn len_of(path: &Path) -> Result<u64, MediaError> {
    let meta = fs::metadata(path).map_err(MediaError::io("open", path))?;
    Ok(meta.len())
}

/// The size of a card for `image` in bytes: as asked for, or the next power of two, because QEMU takes no other size.
fn card_size(image: &Path, asked: Option<u64>) -> Result<u64, MediaError> {
    match asked {
        None => Ok(len_of(image)?.next_power_of_two()),
        Some(size) if size.is_power_of_two() => Ok(size),
        Some(size) => Err(MediaError::CardSize { size }),
    }
}

/// Makes the sparse file `path` of `size` bytes with the content of `image` at its front. After an error there is no new file.
///
/// # Errors
/// `path` exists, or cannot be written; the image cannot be read, or is longer than `size`.
pub fn make_disk(path: &Path, image: Option<(&Path, ImageFormat)>, size: Option<u64>) -> Result<(), MediaError> {
    let failed = |source| MediaError::Disk {
        path: path.to_owned(),
        source,
    };
    // An existing file is not ours to remove.
    let out = File::create_new(path).map_err(failed)?;
    let made = fill_disk(&out, image).map_err(failed).and_then(|len| match size {
        Some(size) if size < len => Err(MediaError::Small {
            path: path.to_owned(),
            image: len,
            size,
        }),
        _ => out.set_len(size.unwrap_or(len)).map_err(failed),
    });
    if made.is_err() {
        let _ = fs::remove_file(path);
    }
    made
}

/// Copies the content of the image; returns its length in bytes.
fn fill_disk(out: &File, image: Option<(&Path, ImageFormat)>) -> io::Result<u64> {
    let Some((image, format)) = image else { return Ok(0) };
    let file = File::open(image)?;
    let mut from: Box<dyn Read> = match format {
        ImageFormat::Raw => Box::new(file),
        ImageFormat::Qcow2 => Box::new(ReadCursor::new(Qcow2::open(file).map_err(io::Error::other)?)),
    };
    copy_sparse(&mut from, out, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_kept_disk_is_the_image_with_holes_and_more_room_or_it_is_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let (image, disk) = (dir.path().join("image"), dir.path().join("disk"));
        let mut bytes = vec![0; 9 << 20];
        bytes[5 << 20] = 7;
        fs::write(&image, &bytes).expect("written");
        let from = Some((image.as_path(), ImageFormat::Raw));
        let small = make_disk(&disk, from, Some(9 << 20 | 1)).and_then(|()| make_disk(&disk, from, None));
        assert!(small.is_err(), "a disk that is there is not replaced");
        let made = fs::read(&disk).expect("made");
        assert!(made[..bytes.len()] == bytes && made[bytes.len()..] == [0]);
        File::open(&disk).expect("made").sync_all().expect("synced");
        assert!(fs::metadata(&disk).expect("made").blocks() * 512 < 1 << 20);
        fs::remove_file(&disk).expect("ours");
        make_disk(&disk, from, Some(9 << 20 >> 1)).expect_err("less room than the image has");
        assert!(!disk.exists(), "and nothing is left of it");
        make_disk(&disk, None, Some(1 << 20)).expect("an empty disk");
        assert_eq!(fs::metadata(&disk).expect("made").len(), 1 << 20);
    }
}
