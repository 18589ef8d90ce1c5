//! The artifact that is booted: a directory with its manifest, or an image file by itself.

use super::{
    super::{args::Common, context::scratch, failure::Failure, report::Report, servers::ServerError},
    args::BootArgs,
    error::BootError,
    image,
};
use pnb::{
    boot::{BootMedia, Firmware, ImageFormat, Loaders},
    image::{oci::LAYOUT_DIRECTORY, open_source},
    inspect::SpoolDirectory,
    manifest::{MANIFEST_FILE, MAX_SIZE, Manifest},
    model::{Arch, ArtifactForm, VerityDigest},
    registry::{ImageReference, PlatformChoice, pull_layout, silent},
    store::{Store, read_foreign},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The beginning of the name of an image in a registry.
const REGISTRY: &str = "oci:";

/// The artifact that is booted.
pub(super) struct BootTarget {
    /// The directory or the file that the machine is given.
    pub(super) artifact: PathBuf,
    /// The root that the machine must verify, if it is known.
    pub(super) root: Option<VerityDigest>,
    /// The kernel command line, if it is known.
    pub(super) command_line: Option<String>,
    pub(super) arch: Arch,
    pub(super) media: BootMedia,
    /// The image file, if there is one.
    pub(super) image: Option<PathBuf>,
    /// The files that boot, of an artifact that lists them in SHA256SUMS.
    pub(super) listed: Option<Vec<String>>,
}

impl BootTarget {
    pub(super) fn open(common: &Common, args: &BootArgs, store: &Store, report: &Report) -> Result<Self, Failure> {
        if let Some(name) = args.path.to_str().and_then(|text| text.strip_prefix(REGISTRY)) {
            return Self::remote(common, args, store, report, name);
        }
        if !args.path.is_dir() {
            return Self::bare(args, store);
        }
        if image::is_layout(&args.path) {
            let arch = args.arch.unwrap_or(Arch::Amd64);
            return Self::image(common, report, store, &args.path, arch, None);
        }
        Self::directory(common, args, store, report)
    }

    /// The image `name` in a registry. Its digest is shown, because a tag can move.
    fn remote(common: &Common, args: &BootArgs, store: &Store, report: &Report, name: &str) -> Result<Self, Failure> {
        let reference: ImageReference = name.parse().map_err(ServerError::Registry)?;
        let client = args.servers.registry(common, &reference)?;
        let arch = args.arch.unwrap_or(Arch::Amd64);
        let layout = store.scratch_path("pulled");
        let choice = PlatformChoice::Only(arch);
        let pulled = pull_layout(&client, &reference, choice, &layout, &silent()).map_err(ServerError::Registry)?;
        report.note(format_args!("pulled {reference} for {arch}: {}", pulled.digest()));
        Self::image(common, report, store, &layout, arch, None)
    }

    /// An OCI image in the layout `dir`; `root` is the one that it must have.
    fn image(
        common: &Common,
        report: &Report,
        store: &Store,
        dir: &Path,
        arch: Arch,
        root: Option<VerityDigest>,
    ) -> Result<Self, Failure> {
        let files = image::prepare(common, report, store, dir, arch)?;
        if let Some(expected) = root.filter(|expected| *expected != files.root) {
            let problem = format!(
                "its layers have another root than the manifest names\nexpected: {expected}\n  actual: {}",
                files.root
            );
            let path = dir.to_owned();
            return Err(BootError::Layers { path, problem }.into());
        }
        Ok(Self {
            artifact: files.dir,
            root: Some(files.root),
            command_line: Some(files.command_line),
            arch,
            media: BootMedia::Files,
            image: None,
            // Every digest of a layout was compared when its layers were applied.
            listed: None,
        })
    }

    /// The directory of an artifact, whose manifest says what it is.
    fn directory(common: &Common, args: &BootArgs, store: &Store, report: &Report) -> Result<Self, Failure> {
        let path = args.path.clone();
        let file = path.join(MANIFEST_FILE);
        let bytes = match read_foreign(&file, MAX_SIZE) {
            Ok(bytes) => bytes,
            Err(source) => return Err(BootError::NoManifest { path: file, source }.into()),
        };
        let manifest = Manifest::read(&bytes, &file.to_string_lossy()).map_err(BootError::from)?;
        let [variant] = manifest.variants[..] else {
            let count = manifest.variants.len();
            return Err(BootError::Variants { path, count }.into());
        };
        if let Some(asked) = args.arch.filter(|asked| *asked != manifest.arch) {
            let reason = format!("its manifest says {}", manifest.arch);
            return Err(BootError::Arch { path, asked, reason }.into());
        }
        let root = manifest.fsverity_root_hash;
        if manifest.form == ArtifactForm::OciImage {
            let layout = path.join(LAYOUT_DIRECTORY);
            return Self::image(common, report, store, &layout, manifest.arch, Some(root));
        }
        let Some(media) = BootMedia::of(manifest.form) else {
            return Err(BootError::NotBootable { path, variant }.into());
        };
        let image = manifest.image;
        Ok(Self {
            root: Some(root),
            command_line: Some(manifest.kernel_command_line),
            arch: manifest.arch,
            media,
            listed: Some(match &image {
                Some(name) => vec![name.to_string()],
                None => ArtifactForm::DIRECT_FILES.map(str::to_owned).to_vec(),
            }),
            image: image.map(|name| path.join(name.as_path())),
            artifact: path,
        })
    }

    /// An image file by itself, whose boot loaders say what it is for.
    fn bare(args: &BootArgs, store: &Store) -> Result<Self, Failure> {
        let path = args.path.clone();
        // What is not there has no wrong kind.
        if fs::symlink_metadata(&path).is_err() {
            return Err(BootError::Missing { path }.into());
        }
        let Some(media) = BootMedia::of_file(&path).filter(|_| path.is_file()) else {
            return Err(BootError::Kind { path }.into());
        };
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
            artifact: path.clone(),
            root: None,
            command_line: None,
            arch,
            media: if card { BootMedia::Card } else { media },
            image: Some(path),
            listed: None,
        })
    }

    /// Whether it is a disk or a card, which a machine could write to.
    pub(super) fn is_disk(&self) -> bool {
        matches!(self.media, BootMedia::Disk(_) | BootMedia::Card)
    }
}
