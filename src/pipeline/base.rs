//! The base image: its blobs into the store, from a mirror or a registry; its pins for the lock; its layout for the stage that applies it.
//!
//! A blob is asked for by its digest, so no place is trusted: the store first, the mirror second, the registry last.

use super::{Event, Events, Origins, PipelineError, Project};
use crate::{
    debian::read_installed,
    fetch::{self, FetchError, RetryPolicy, SmallFile, read_small},
    image::{
        ImageError,
        oci::{
            BASE_PACKAGES, BLOBS, LAYOUT_FILE, LayerLimits, LayoutReader, OCI_INDEX, OciImage, apply_layers, blob_path,
            describe, layout_file, layout_index,
        },
    },
    lock::{BaseImage, BaseLayer, BasePackage, BasePlatform},
    model::{Arch, Epoch, Node, RelPath, Sha256Digest, chain},
    registry::{ImageReference, ManifestContent, RegistryClient, parse_manifest, silent},
    store::{ObjectMode, Store},
    verity,
};
use oci_spec::image::{Arch as OciArch, Descriptor, MediaType, Os};
use std::{
    cell::OnceCell,
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Seek},
    path::Path,
};

/// Largest manifest, index or configuration, bytes: what registries accept of a manifest.
const MAX_DOCUMENT: u64 = 4 << 20;
/// The database of dpkg in the image.
const DATABASE: &str = "var/lib/dpkg/status";
/// Largest database of dpkg, bytes.
const MAX_DATABASE: u64 = 64 << 20;
/// The way out when no place has a blob.
const HINT: &str = "name a mirror that `pnb vendor` wrote with --mirror, or give the registry's credentials or authority with \
                    --registry-auth-file or --ca-file";

/// The base image of a project's lock.
pub(super) fn base_of(project: &Project) -> Result<&BaseImage, PipelineError> {
    project.lock.base.as_ref().ok_or(PipelineError::NoBase)
}

/// Moves the blobs of one image into the store.
struct Puller<'a> {
    origins: &'a Origins,
    store: &'a Store,
    reference: ImageReference,
    client: OnceCell<Result<RegistryClient, String>>,
    events: Events<'a>,
}

impl<'a> Puller<'a> {
    fn new(origins: &'a Origins, store: &'a Store, image: &str, events: Events<'a>) -> Result<Self, PipelineError> {
        let reference: ImageReference = image.parse().map_err(|e| bad(image, chain(&e)))?;
        Ok(Self {
            origins,
            store,
            reference,
            client: OnceCell::new(),
            events,
        })
    }

    fn client(&self) -> Result<&RegistryClient, String> {
        let client = self
            .client
            .get_or_init(|| self.origins.registries.client(&self.reference));
        client.as_ref().map_err(Clone::clone)
    }

    /// Puts a manifest, index or configuration into the store and returns its bytes. Without `size`, any size is accepted.
    fn document(&self, kind: &str, digest: &Sha256Digest, size: Option<u64>) -> Result<Vec<u8>, PipelineError> {
        if self.origins.has(self.store, digest)? {
            return self.read(digest);
        }
        let mut tried = String::new();
        if let Some(place) = fetch::blob_place(digest, &self.origins.sources) {
            match self.mirrored(&place, digest, size) {
                Ok(bytes) => return self.keep(digest, &bytes).map(|()| bytes),
                Err(problem) => _ = write!(tried, "\n  {place}: {problem}"),
            }
        }
        match self.document_of_registry(kind, digest, size) {
            Ok(bytes) => self.keep(digest, &bytes).map(|()| bytes),
            Err(problem) => Err(self.nowhere(kind, digest, tried, &problem)),
        }
    }

    /// A document of the mirror, which has the digest.
    fn mirrored(&self, place: &fetch::Location, digest: &Sha256Digest, size: Option<u64>) -> Result<Vec<u8>, String> {
        if self.origins.offline && place.address.is_network() {
            return Err("not tried (--offline)".to_owned());
        }
        let file = SmallFile {
            limit: MAX_DOCUMENT,
            size,
            policy: RetryPolicy::default(),
        };
        let told = |wait| {
            (self.events)(Event::Waiting {
                place: place.to_string(),
                seconds: std::time::Duration::as_secs(&wait).max(1),
            });
        };
        let bytes = read_small(&self.origins.transports(), place, file, &std::thread::sleep, &told)?;
        check_bytes(&bytes, digest, size).map(|()| bytes)
    }

    fn document_of_registry(&self, kind: &str, digest: &Sha256Digest, size: Option<u64>) -> Result<Vec<u8>, String> {
        if self.origins.offline {
            return Err("not asked (--offline)".to_owned());
        }
        let client = self.client()?;
        // Registries have configurations among the blobs.
        let bytes = match size {
            Some(size) if kind == CONFIGURATION => {
                let mut bytes = Vec::new();
                let read = client.read_blob(digest, size, &mut bytes, &silent());
                read.map_err(|e| chain(&e))?;
                bytes
            }
            _ => match client.manifest(digest).map_err(|e| chain(&e))? {
                Some(manifest) => manifest.bytes,
                None => return Err("does not have it".to_owned()),
            },
        };
        check_bytes(&bytes, digest, size).map(|()| bytes)
    }

    /// Puts a layer into the store.
    fn layer(&self, layer: &BaseLayer) -> Result<(), PipelineError> {
        let (digest, kind) = (&layer.sha256, "layer");
        if self.origins.has(self.store, digest)? {
            return Ok(());
        }
        let mut tried = String::new();
        let what = format!("{kind} sha256:{digest} of the base image");
        if let Some(item) = fetch::plan_blob(&what, digest, layer.size, &self.origins.sources) {
            match self.origins.fetch(self.store, &what, vec![item], self.events) {
                Ok(()) => return Ok(()),
                Err(PipelineError::Fetch(FetchError::NoPlace { problem, .. })) => {
                    let places = problem.split_once('\n').map_or(problem.as_str(), |(_, places)| places);
                    let _ = write!(tried, "\n{places}");
                }
                Err(error) => return Err(error),
            }
        }
        if self.origins.offline {
            return Err(self.nowhere(kind, digest, tried, "not asked (--offline)"));
        }
        let path = self.store.scratch_path("layer");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(PipelineError::io("create", &path))?;
        (self.events)(Event::Fetching {
            what,
            files: 1,
            total: layer.size,
        });
        let read = self.client().and_then(|client| {
            let read = client.read_blob(digest, layer.size, &mut file, &silent());
            read.map_err(|e| chain(&e))
        });
        if let Err(problem) = read {
            // The file lies in the scratch of the store, which goes with this run.
            let _ = fs::remove_file(&path);
            return Err(self.nowhere(kind, digest, tried, &problem));
        }
        file.rewind().map_err(PipelineError::io("read", &path))?;
        let (object, _) = self.store.put_object(ObjectMode::Plain, &mut file)?;
        self.store.link_sha256(digest, &object)?;
        fs::remove_file(&path).map_err(PipelineError::io("remove", &path))
    }

    fn keep(&self, digest: &Sha256Digest, mut bytes: &[u8]) -> Result<(), PipelineError> {
        let (object, _) = self.store.put_object(ObjectMode::Plain, &mut bytes)?;
        Ok(self.store.link_sha256(digest, &object)?)
    }

    fn read(&self, digest: &Sha256Digest) -> Result<Vec<u8>, PipelineError> {
        let object = self.store.find_sha256(digest)?;
        let object = object.ok_or_else(|| bad(&self.reference, format!("the store lost its blob {digest}")))?;
        Ok(self.store.read_object(&object)?)
    }

    /// The error that no place has a blob.
    fn nowhere(&self, kind: &str, digest: &Sha256Digest, tried: String, registry: &str) -> PipelineError {
        let registry = registry.replace('\n', "\n    ");
        PipelineError::Fetch(FetchError::NoPlace {
            what: format!("{kind} sha256:{digest} of the base image {}", self.reference),
            problem: format!(
                "no place has it\n  store {}: not there{tried}\n  registry {}: {registry}",
                self.store.root().display(),
                self.reference.registry()
            ),
            hint: HINT.to_owned(),
        })
    }
}

/// The kind of document that registries have among the blobs.
const CONFIGURATION: &str = "configuration";

/// Checks that bytes have the digest and the size by which they were asked for.
fn check_bytes(bytes: &[u8], digest: &Sha256Digest, size: Option<u64>) -> Result<(), String> {
    let length = bytes.len() as u64;
    if length > MAX_DOCUMENT {
        return Err(format!("it has more than {MAX_DOCUMENT} bytes"));
    }
    let mut both = verity::Both::new();
    both.update(bytes);
    let actual = both.finish().sha256;
    if actual != *digest {
        return Err(format!("wrong SHA-256\n  expected: {digest}\n    actual: {actual}"));
    }
    match size.filter(|size| *size != length) {
        Some(size) => Err(format!("wrong size\n  expected: {size}\n    actual: {length}")),
        None => Ok(()),
    }
}

fn bad(image: impl std::fmt::Display, problem: impl Into<String>) -> PipelineError {
    PipelineError::BaseImage {
        image: image.to_string(),
        problem: problem.into(),
    }
}

impl Origins {
    /// Puts the manifest, the configuration and the layers of the base image for one architecture into the store, and compares the pins of
    /// the lock with the manifest.
    pub(super) fn ensure_base(
        &self,
        store: &Store,
        base: &BaseImage,
        platform: &BasePlatform,
        events: Events<'_>,
    ) -> Result<(), PipelineError> {
        let puller = Puller::new(self, store, &base.image, events)?;
        puller.document("manifest", &platform.manifest, Some(platform.manifest_size))?;
        puller.document(CONFIGURATION, &platform.config, Some(platform.config_size))?;
        let descriptor = manifest_descriptor(&base.image, &platform.manifest, platform.manifest_size)?;
        let mut stated = pins(&puller, &descriptor)?;
        stated.packages.clone_from(&platform.packages);
        if stated != *platform {
            let problem = format!(
                "lockfile.toml has other pins for {} than the manifest sha256:{}",
                platform.arch, platform.manifest
            );
            return Err(bad(&base.image, problem));
        }
        platform.layers.iter().try_for_each(|layer| puller.layer(layer))
    }

    /// Puts every blob of the base image into the store, that of the index too.
    pub(super) fn ensure_all_of_base(
        &self,
        store: &Store,
        base: &BaseImage,
        events: Events<'_>,
    ) -> Result<(), PipelineError> {
        let puller = Puller::new(self, store, &base.image, events)?;
        let digest = base.digest().ok_or_else(|| bad(&base.image, "it has no digest"))?;
        puller.document("index", &digest, base.size)?;
        base.platforms
            .iter()
            .try_for_each(|platform| self.ensure_base(store, base, platform, events))
    }

    /// Reads the image `image`, `NAME@sha256:…`, and returns its pins. All of its blobs are in the store then.
    pub(super) fn read_base(
        &self,
        store: &Store,
        image: &BaseImage,
        epoch: Epoch,
        events: Events<'_>,
    ) -> Result<BaseImage, PipelineError> {
        let name = &image.image;
        let digest = image.digest().ok_or_else(|| bad(name, "it has no digest"))?;
        let puller = Puller::new(self, store, name, events)?;
        let bytes = puller.document("manifest or index", &digest, None)?;
        let size = bytes.len() as u64;
        let mut platforms = Vec::new();
        let media_type = media_type(&bytes).map_err(|problem| bad(name, problem))?;
        let content = parse_manifest(&media_type, &bytes).map_err(|problem| bad(name, problem))?;
        let candidates = match content {
            ManifestContent::Image(_) => vec![manifest_descriptor(name, &digest, size)?],
            ManifestContent::Index(index) => index.manifests().clone(),
        };
        for arch in Arch::ALL {
            let fitting = candidates.iter().filter(|descriptor| fits(descriptor, arch));
            let mut found = Vec::new();
            for descriptor in fitting {
                let mut platform = pins(&puller, descriptor)?;
                if platform.arch == arch {
                    platform.layers.iter().try_for_each(|layer| puller.layer(layer))?;
                    platform.packages = packages(&puller, descriptor, epoch)?;
                    found.push(platform);
                }
            }
            if found.len() > 1 {
                return Err(bad(
                    name,
                    format!("its index lists {} images for {arch}, not one", found.len()),
                ));
            }
            platforms.append(&mut found);
        }
        if platforms.is_empty() {
            let known: Vec<&str> = Arch::ALL.iter().map(|arch| arch.as_str()).collect();
            return Err(bad(name, format!("it has no image for any of: {}", known.join(", "))));
        }
        Ok(BaseImage {
            image: name.clone(),
            size: Some(size),
            platforms,
        })
    }
}

/// The media type of a manifest or an index that it states itself, or that follows from its members.
fn media_type(bytes: &[u8]) -> Result<String, String> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|e| format!("its manifest is no JSON: {e}"))?;
    let stated = value["mediaType"].as_str();
    let known = [MediaType::ImageManifest, MediaType::ImageIndex];
    match stated {
        None if value["manifests"].is_null() => Ok(MediaType::ImageManifest.to_string()),
        None => Ok(MediaType::ImageIndex.to_string()),
        Some(stated) if known.iter().any(|known| known.as_ref() == stated) => Ok(stated.to_owned()),
        Some(stated) => Err(format!(
            "its manifest has the media type {stated:?}; a base image is an OCI image or an OCI index"
        )),
    }
}

fn manifest_descriptor(image: &str, digest: &Sha256Digest, size: u64) -> Result<Descriptor, PipelineError> {
    describe(MediaType::ImageManifest.as_ref(), *digest, size).map_err(|e| bad(image, chain(&e)))
}

/// Whether a descriptor may be that of the image for `arch`. One without a platform is, and its configuration decides.
fn fits(descriptor: &Descriptor, arch: Arch) -> bool {
    let wanted = match arch {
        Arch::Amd64 => OciArch::Amd64,
        Arch::Arm64 => OciArch::ARM64,
    };
    let platform = descriptor.platform().as_ref();
    *descriptor.media_type() == MediaType::ImageManifest
        && platform.is_none_or(|platform| *platform.os() == Os::Linux && *platform.architecture() == wanted)
}

/// The pins of the image whose manifest `descriptor` names, without its packages. Its documents are in the store then.
fn pins(puller: &Puller<'_>, descriptor: &Descriptor) -> Result<BasePlatform, PipelineError> {
    let fault = |problem: String| bad(&puller.reference, problem);
    let text = descriptor.digest().as_ref();
    let digest = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    let digest: Sha256Digest = digest.ok_or_else(|| fault(format!("it names {text:?}, which is no SHA-256 digest")))?;
    let bytes = puller.document("manifest", &digest, Some(descriptor.size()))?;
    let content = parse_manifest(MediaType::ImageManifest.as_ref(), &bytes).map_err(fault)?;
    let ManifestContent::Image(manifest) = content else {
        return Err(fault(format!("sha256:{digest} is no manifest of an image")));
    };
    let text = manifest.config().digest().as_ref();
    let config = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    let config = config.ok_or_else(|| fault(format!("it names {text:?}, which is no SHA-256 digest")))?;
    let config_size = manifest.config().size();
    puller.document(CONFIGURATION, &config, Some(config_size))?;
    let image = read_layout(puller, descriptor, |_, image| Ok(image.clone()))?;
    let layers = image
        .layers
        .iter()
        .zip(manifest.layers())
        .map(|(layer, descriptor)| BaseLayer {
            sha256: layer.digest,
            size: layer.size,
            media_type: descriptor.media_type().to_string(),
            diff_id: layer.diff_id,
        });
    Ok(BasePlatform {
        arch: image.arch,
        manifest: digest,
        manifest_size: descriptor.size(),
        config,
        config_size,
        packages: Vec::new(),
        layers: layers.collect(),
    })
}

/// Reads the image whose manifest `descriptor` names out of the store.
fn read_layout<T>(
    puller: &Puller<'_>,
    descriptor: &Descriptor,
    work: impl FnOnce(&LayoutReader<'_>, &OciImage) -> Result<T, ImageError>,
) -> Result<T, PipelineError> {
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> {
        let name = String::from_utf8_lossy(path.name()).into_owned();
        let digest: Sha256Digest = name.parse().map_err(io::Error::other)?;
        let object = puller.store.find_sha256(&digest).map_err(io::Error::other)?;
        let object = object.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(puller.store.open_object(&object).map_err(io::Error::other)?))
    };
    let layout = LayoutReader::new(&open);
    let read = OciImage::read(&layout, descriptor).and_then(|image| work(&layout, &image));
    read.map_err(|e| bad(&puller.reference, chain(&e)))
}

/// The packages in the database of dpkg of the image whose manifest `descriptor` names; its layers are applied for that.
fn packages(puller: &Puller<'_>, descriptor: &Descriptor, epoch: Epoch) -> Result<Vec<BasePackage>, PipelineError> {
    // The database of the highest layer that has one. The tree tells whether it is still there.
    let mut database = None;
    let tree = read_layout(puller, descriptor, |layout, image| {
        let mut put = |path: &RelPath, content: &mut dyn Read| {
            let mut hasher = verity::Hasher::new();
            let mut kept = Vec::new();
            let keep = path.as_bytes() == DATABASE.as_bytes();
            let mut buffer = vec![0; 128 << 10];
            loop {
                let n = content.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
                if keep && kept.len() as u64 <= MAX_DATABASE {
                    kept.extend_from_slice(&buffer[..n]);
                }
            }
            let size = hasher.size();
            let digest = hasher.finish();
            if keep {
                database = Some((digest, kept));
            }
            Ok((digest, size))
        };
        Ok(apply_layers(layout, image, epoch, &LayerLimits::default(), &mut put)?.tree)
    })?;
    let fault = |problem: String| bad(&puller.reference, problem);
    let path = RelPath::new(DATABASE).map_err(|e| fault(e.to_string()))?;
    let database = database.filter(|(digest, bytes)| {
        let node = tree.get(&path).map(|entry| &entry.node);
        let stays = matches!(node, Some(Node::File { digest: last, .. }) if last == digest);
        stays && bytes.len() as u64 <= MAX_DATABASE
    });
    let Some((_, database)) = database else {
        return Err(fault(format!(
            "it has no file /{DATABASE} of at most {MAX_DATABASE} bytes, so its packages are unknown"
        )));
    };
    let installed = read_installed(&database[..], DATABASE).map_err(|e| fault(chain(&e)))?;
    let packages = installed.into_iter().map(|package| {
        let text = format!("{}:{}={}", package.name, package.arch, package.version);
        text.parse().map_err(fault)
    });
    let mut packages = packages.collect::<Result<Vec<BasePackage>, _>>()?;
    packages.sort();
    Ok(packages)
}

/// Lays the base image out in the new directory `dir`, as an OCI image layout with the list of its packages beside it.
pub(super) fn lay_out_base(
    store: &Store,
    image: &str,
    platform: &BasePlatform,
    dir: &Path,
    copies: bool,
) -> Result<(), PipelineError> {
    let blobs = dir.join(BLOBS);
    fs::create_dir_all(&blobs).map_err(PipelineError::io("create", &blobs))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(PipelineError::io("write", &path))
    };
    let fault = |e: ImageError| bad(image, chain(&e));
    let descriptor = manifest_descriptor(image, &platform.manifest, platform.manifest_size)?;
    put(LAYOUT_FILE, &layout_file().map_err(fault)?)?;
    put(OCI_INDEX, &layout_index(&descriptor).map_err(fault)?)?;
    let packages: String = platform.packages.iter().map(|package| format!("{package}\n")).collect();
    put(BASE_PACKAGES, packages.as_bytes())?;
    let layers = platform.layers.iter().map(|layer| &layer.sha256);
    let all: BTreeSet<_> = layers.chain([&platform.manifest, &platform.config]).collect();
    for digest in all {
        let object = store.find_sha256(digest)?;
        let object = object.ok_or_else(|| bad(image, format!("the store lost its blob {digest}")))?;
        let (from, path) = (store.object_path(&object)?, dir.join(blob_path(digest)));
        if copies {
            store.copy_file(&from, &path)?;
        } else {
            fs::hard_link(&from, &path).map_err(PipelineError::io("link", &path))?;
        }
    }
    Ok(())
}
