//! The artifact that is booted: a directory with its manifest, or an image file by itself.

use super::{
    super::{context::scratch, failure::Failure},
    args::BootArgs,
    error::BootError,
};
use pnb::{
    boot::{BootMedia, Firmware, ImageFormat, Loaders},
    image::open_source,
    inspect::SpoolDirectory,
    manifest::{MANIFEST_FILE, MAX_SIZE, Manifest},
    model::Arch,
    store::{Store, read_foreign},
};
use std::path::PathBuf;

/// The artifact that is booted.
pub(super) struct BootTarget {
    /// The manifest of a directory.
    pub(super) manifest: Option<Manifest>,
    pub(super) arch: Arch,
    pub(super) media: BootMedia,
    /// The image file, if there is one.
    pub(super) image: Option<PathBuf>,
}

impl BootTarget {
    pub(super) fn open(args: &BootArgs, store: &Store) -> Result<Self, Failure> {
        match args.path.is_dir() {
            true => Ok(Self::directory(args)?),
            false => Self::bare(args, store),
        }
    }

    /// The directory of an artifact, whose manifest says what it is.
    fn directory(args: &BootArgs) -> Result<Self, BootError> {
        let path = args.path.clone();
        let file = path.join(MANIFEST_FILE);
        let bytes = match read_foreign(&file, MAX_SIZE) {
            Ok(bytes) => bytes,
            Err(source) => return Err(BootError::NoManifest { path: file, source }),
        };
        let manifest = Manifest::read(&bytes, &file.to_string_lossy())?;
        let [variant] = manifest.variants[..] else {
            let count = manifest.variants.len();
            return Err(BootError::Variants { path, count });
        };
        if let Some(asked) = args.arch.filter(|asked| *asked != manifest.arch) {
            let reason = format!("its manifest says {}", manifest.arch);
            return Err(BootError::Arch { path, asked, reason });
        }
        let Some((media, name)) = BootMedia::of(variant) else {
            return Err(BootError::NotBootable { path, variant });
        };
        Ok(Self {
            arch: manifest.arch,
            manifest: Some(manifest),
            media,
            image: name.map(|name| path.join(name)),
        })
    }

    /// An image file by itself, whose boot loaders say what it is for.
    fn bare(args: &BootArgs, store: &Store) -> Result<Self, Failure> {
        let path = args.path.clone();
        let Some(media) = BootMedia::of_file(&path) else {
            return Err(BootError::Kind { path }.into());
        };
        if !path.is_file() {
            return Err(BootError::Missing { path }.into());
        }
        let spool = SpoolDirectory::new(scratch(store, "look")?);
        let found = open_source(&path).and_then(|source| Loaders::of(&source, &path.to_string_lossy(), &spool));
        let found = found.map_err(|source| BootError::Image {
            path: path.clone(),
            source,
        })?;
        let card = media == BootMedia::Disk(ImageFormat::Raw)
            && match args.firmware {
                Some(firmware) => firmware == Firmware::RaspberryPi4,
                None => args.arch != Some(Arch::Amd64) && found.is_card(),
            };
        let arch = match (args.arch, found.amd64, found.arm64) {
            (Some(asked @ Arch::Amd64), ..) if card => {
                let reason = "a Raspberry Pi is an arm64 machine".to_owned();
                return Err(BootError::Arch { path, asked, reason }.into());
            }
            _ if card => Arch::Arm64,
            (Some(arch), ..) => arch,
            (None, true, true) => return Err(BootError::BothArches { path }.into()),
            (None, false, true) => Arch::Arm64,
            // The boot loader of a disk for BIOS is not in a file.
            (None, ..) => Arch::Amd64,
        };
        Ok(Self {
            manifest: None,
            arch,
            media: if card { BootMedia::Card } else { media },
            image: Some(path),
        })
    }

    /// Whether it is a disk or a card, which a machine could write to.
    pub(super) fn is_disk(&self) -> bool {
        matches!(self.media, BootMedia::Disk(_) | BootMedia::Card)
    }
}
