//! What is to be booted: an artifact's directory, or an image file by itself.

use super::{
    super::failure::Failure,
    args::BootArgs,
    media::open,
    run::{said, usage},
};
use pnb::{
    boot::{BootMedia, Firmware, ImageFormat, Loaders},
    inspect::SpoolDirectory,
    manifest::{MANIFEST_FILE, Manifest},
    model::Arch,
    store::Store,
};
use std::{fs, path::PathBuf};

/// What is booted.
pub(super) struct BootTarget {
    pub(super) manifest: Option<Manifest>,
    pub(super) arch: Arch,
    pub(super) media: BootMedia,
    /// The image file, if there is one.
    pub(super) image: Option<PathBuf>,
}

impl BootTarget {
    pub(super) fn open(args: &BootArgs, store: &Store) -> Result<Self, Failure> {
        let path = &args.path;
        if !path.is_dir() {
            return Self::bare(args, store);
        }
        let file = path.join(MANIFEST_FILE);
        let bytes = fs::read(&file).map_err(|e| {
            said(format!(
                "read {file:?}: {e}\n\nhint: give the directory of an artifact, such as images/raw/amd64"
            ))
        })?;
        let manifest = Manifest::read(&bytes, &file.to_string_lossy()).map_err(|e| said(e.to_string()))?;
        let [variant] = manifest.variants[..] else {
            return Err(said(format!("boot {path:?}: its manifest names not one variant")));
        };
        if let Some(asked) = args.arch.filter(|asked| *asked != manifest.arch) {
            return Err(usage(format!(
                "boot {path:?} as {asked}: its manifest says {}",
                manifest.arch
            )));
        }
        let (media, name) =
            BootMedia::of(variant).ok_or_else(|| said(format!("boot {path:?}: {variant} does not boot by itself")))?;
        Ok(Self {
            arch: manifest.arch,
            manifest: Some(manifest),
            media,
            image: name.map(|name| path.join(name)),
        })
    }

    /// An image file by itself, which says by its boot loader what it is for.
    fn bare(args: &BootArgs, store: &Store) -> Result<Self, Failure> {
        let path = &args.path;
        let media = BootMedia::of_file(path).ok_or_else(|| {
            usage(format!(
                "boot {path:?}: it is neither a directory nor a .raw, .img, .qcow2 or .iso file"
            ))
        })?;
        if !path.is_file() {
            return Err(said(format!("boot {path:?}: there is no such file")));
        }
        let directory = store.scratch_path("look");
        fs::create_dir(&directory).map_err(|e| said(format!("create {directory:?}: {e}")))?;
        let found = Loaders::of(&open(path)?, &path.to_string_lossy(), &SpoolDirectory::new(directory));
        let found = found.map_err(|e| said(format!("read {path:?}: {e}")))?;
        let card = media == BootMedia::Disk(ImageFormat::Raw)
            && match args.firmware {
                Some(firmware) => firmware == Firmware::RaspberryPi4,
                None => args.arch != Some(Arch::Amd64) && found.is_card(),
            };
        let arch = match (args.arch, found.amd64, found.arm64) {
            (Some(Arch::Amd64), ..) if card => {
                return Err(usage(format!(
                    "boot {path:?} as amd64: a Raspberry Pi is an arm64 machine"
                )));
            }
            _ if card => Arch::Arm64,
            (Some(arch), ..) => arch,
            (None, true, true) => {
                return Err(usage(format!(
                    "boot {path:?}: it has boot loaders for both; say --arch"
                )));
            }
            (None, false, true) => Arch::Arm64,
            // A disk for BIOS has no loader that could be looked for.
            (None, ..) => Arch::Amd64,
        };
        Ok(Self {
            manifest: None,
            arch,
            media: if card { BootMedia::Card } else { media },
            image: Some(path.to_owned()),
        })
    }

    /// Whether there is a disk, or a card, that could be written to.
    pub(super) fn is_disk(&self) -> bool {
        matches!(self.media, BootMedia::Disk(_) | BootMedia::Card)
    }
}
