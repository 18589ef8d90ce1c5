//! The plan of a publication: everything that will be written, by digest, before the first write.
//!
//! A plan is made of verified artifacts only, which must come from one commit and one lock, and of the places that the caller names. The
//! digest of the plan is in the first line of the journal: a journal of another plan is refused.

use super::{PlanError, PlatformName};
use crate::{
    audit::Verified,
    image::oci::{LAYOUT_DIRECTORY, LayoutReader, OciDocument, OciImage, multi_index},
    manifest::{PROVENANCE_FILE, SUMS_FILE, to_canonical},
    model::{Arch, ArtifactForm, GitSha, RelPath, Sha256Digest, Target, chain},
    registry::ImageReference,
    store::open_foreign,
    verity,
};
use oci_spec::image::Descriptor;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// The places and names that a publication is asked for.
#[derive(Clone, Debug, Default)]
pub struct PublishRequest {
    /// The repository of the OCI image.
    pub image: Option<ImageReference>,
    /// The prefix of the repositories of disk images, and the platform's name of each artifact that goes there.
    pub disks: Option<(String, BTreeMap<Target, PlatformName>)>,
    /// The tag of the release.
    pub release: Option<String>,
    /// Whether everything is signed. Without, nothing gets a tag or becomes visible as a release.
    pub signed: bool,
}

/// A file of an artifact, as the release has it and as it is signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PublishedFile {
    /// Its name in a release, `<variant>-<arch>-<file>`.
    pub name: String,
    /// The artifact that it belongs to.
    pub target: Target,
    /// Where it is.
    #[serde(skip)]
    pub path: PathBuf,
    /// SHA-256 of its content.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// The manifest of the image for one architecture.
#[derive(Clone, Debug, Serialize)]
pub struct PublishedManifest {
    /// The architecture.
    pub arch: Arch,
    /// SHA-256 of the manifest.
    pub digest: Sha256Digest,
    /// Its media type and its length, as the index has them.
    #[serde(skip)]
    pub descriptor: Descriptor,
    /// The layout that has it.
    #[serde(skip)]
    pub layout: PathBuf,
    /// The directory with the statements about it.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// The OCI image.
#[derive(Clone, Debug, Serialize)]
pub struct PublishedImage {
    /// The repository, with its registry.
    #[serde(serialize_with = "place")]
    pub repository: ImageReference,
    /// SHA-256 of the index.
    pub index: Sha256Digest,
    /// The index.
    #[serde(skip)]
    pub document: OciDocument,
    /// The manifests, in the order of the index.
    pub manifests: Vec<PublishedManifest>,
}

/// A disk image in a registry.
#[derive(Clone, Debug, Serialize)]
pub struct PublishedDisk {
    /// The repository, with its registry.
    #[serde(serialize_with = "place")]
    pub repository: ImageReference,
    /// The platform's name.
    pub platform_name: PlatformName,
    /// The image.
    pub file: PublishedFile,
    /// The directory with the statements about it.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// A publication before its first write.
#[derive(Clone, Debug, Serialize)]
pub struct PublishPlan {
    /// The commit that everything was built from; the tag in registries.
    pub commit: GitSha,
    /// Every file that is signed, and that a release has.
    pub files: Vec<PublishedFile>,
    /// The OCI image, if there is one and a place for it.
    pub image: Option<PublishedImage>,
    /// The disk images that go to a registry.
    pub disks: Vec<PublishedDisk>,
    /// The tag of the release, if there is one.
    pub release: Option<String>,
    /// Whether everything is signed.
    pub signed: bool,
}

fn place<S: serde::Serializer>(repository: &ImageReference, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(repository)
}

impl PublishPlan {
    /// The plan for these artifacts.
    ///
    /// # Errors
    ///
    /// The artifacts come from several commits or locks, or from uncommitted files; a name or a place contradicts another; an artifact that
    /// is asked for is not there; a file cannot be read.
    pub fn of(artifacts: &[Verified], request: &PublishRequest) -> Result<Self, PlanError> {
        let commit = commit(artifacts)?;
        let mut files = Vec::new();
        for artifact in artifacts {
            files.extend(files_of(artifact)?);
        }
        let image = match &request.image {
            None => None,
            Some(repository) => Some(image(artifacts, repository)?),
        };
        let mut disks = Vec::new();
        if let Some((prefix, names)) = &request.disks {
            for (target, name) in names {
                disks.push(disk(artifacts, &files, *target, prefix, name)?);
            }
        }
        let places: Vec<String> = image.iter().map(|image| image.repository.to_string()).collect();
        let mut places = places;
        for disk in &disks {
            let place = disk.repository.to_string();
            if places.contains(&place) {
                return Err(PlanError::Request {
                    problem: format!("two images would go to {place}"),
                });
            }
            places.push(place);
        }
        if !disks.is_empty() && !request.signed {
            return Err(PlanError::Request {
                problem:
                    "a disk image in a registry has its signatures as layers: without them there is no manifest of it"
                        .to_owned(),
            });
        }
        if request.release.is_some() && !request.signed {
            return Err(PlanError::Request {
                problem:
                    "a release is signed: without signatures only registries get images, by digest and without a tag"
                        .to_owned(),
            });
        }
        Ok(Self {
            commit,
            files,
            image,
            disks,
            release: request.release.clone(),
            signed: request.signed,
        })
    }

    /// The digest of the plan: of its places, names and digests.
    ///
    /// # Errors
    ///
    /// If the plan cannot be written as JSON.
    pub fn digest(&self) -> Result<Sha256Digest, PlanError> {
        let text = to_canonical(self, "the plan of a publication").map_err(PlanError::Write)?;
        Ok(Sha256Digest::new(Sha256::digest(text.as_bytes()).into()))
    }

    /// The bytes that a publication sends at most, without signatures and documents.
    pub fn bytes(&self) -> u64 {
        let layers = self.image.iter().flat_map(|image| &image.manifests);
        let blobs = layers.map(|manifest| directory_size(&manifest.layout)).sum::<u64>();
        let disks: u64 = self.disks.iter().map(|disk| disk.file.size).sum();
        let release: u64 = match self.release {
            Some(_) => self.files.iter().map(|file| file.size).sum(),
            None => 0,
        };
        blobs + disks + release
    }
}

/// The bytes of the files of a layout.
fn directory_size(layout: &Path) -> u64 {
    let blobs = layout.join(crate::image::oci::BLOBS);
    #[expect(clippy::disallowed_methods, reason = "the order does not change a sum")]
    let entries = std::fs::read_dir(blobs);
    let sizes = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().ok());
    sizes.map(|meta| meta.len()).sum()
}

/// The commit of all artifacts, which also have one lock.
fn commit(artifacts: &[Verified]) -> Result<GitSha, PlanError> {
    let request = |problem: String| PlanError::Request { problem };
    let Some(first) = artifacts.first() else {
        return Err(request("there is no artifact".to_owned()));
    };
    let shown = |artifact: &Verified| artifact.dir().display().to_string();
    for artifact in artifacts {
        let (manifest, wanted) = (artifact.manifest(), first.manifest());
        if manifest.source.dirty {
            let dir = shown(artifact);
            return Err(request(format!(
                "{dir} was built from files that are not in its commit"
            )));
        }
        if manifest.git_sha != wanted.git_sha || manifest.lockfile.sha256 != wanted.lockfile.sha256 {
            return Err(request(format!(
                "{} and {} were built from different commits or locks",
                shown(first),
                shown(artifact)
            )));
        }
    }
    let text = first.manifest().git_sha.clone();
    let text = text.ok_or_else(|| request(format!("{} states no commit", shown(first))))?;
    text.parse()
        .map_err(|e: crate::model::ModelError| request(e.to_string()))
}

/// The files of an artifact that a release has: those of the artifact and the statements about them. The blobs of an image layout are in
/// the registry.
fn files_of(artifact: &Verified) -> Result<Vec<PublishedFile>, PlanError> {
    let manifest = artifact.manifest();
    let variant = manifest.variant().ok_or_else(|| PlanError::Request {
        problem: format!("{} is about several variants", artifact.dir().display()),
    })?;
    let target = Target {
        variant,
        arch: manifest.arch,
    };
    let mut found = Vec::new();
    let sums = RelPath::new(SUMS_FILE).map_err(|e| PlanError::Request { problem: e.to_string() })?;
    let listed = artifact
        .sums()
        .files()
        .iter()
        .map(|(path, sha256)| (path, Some(*sha256)));
    for (path, sha256) in listed.chain([(&sums, None)]) {
        if manifest.form == ArtifactForm::OciImage && path.components().next() == Some(LAYOUT_DIRECTORY.as_bytes()) {
            continue;
        }
        let place = artifact.dir().join(path.as_path());
        let size = std::fs::symlink_metadata(&place)
            .map_err(PlanError::io("look at", &place))?
            .len();
        let sha256 = match sha256 {
            Some(known) => known,
            None => sha256_of(&place)?,
        };
        let flat = path.to_string().replace('/', "-");
        found.push(PublishedFile {
            name: format!("{variant}-{}-{flat}", target.arch),
            target,
            path: place,
            sha256,
            size,
        });
    }
    Ok(found)
}

/// The OCI image of the artifacts that are one, at most one for each architecture.
fn image(artifacts: &[Verified], repository: &ImageReference) -> Result<PublishedImage, PlanError> {
    let (mut manifests, mut images) = (Vec::new(), Vec::new());
    for arch in Arch::ALL {
        let mut found = artifacts.iter().filter(|artifact| {
            let manifest = artifact.manifest();
            manifest.arch == arch && manifest.form == ArtifactForm::OciImage
        });
        let Some(artifact) = found.next() else { continue };
        if let Some(second) = found.next() {
            return Err(PlanError::Request {
                problem: format!(
                    "{} and {} are images for {arch}, and {repository} takes one",
                    artifact.dir().display(),
                    second.dir().display()
                ),
            });
        }
        let layout = artifact.dir().join(LAYOUT_DIRECTORY);
        let open =
            |path: &RelPath| -> io::Result<Box<dyn Read>> { Ok(Box::new(open_foreign(&layout.join(path.as_path()))?)) };
        let reader = LayoutReader::new(&open);
        let listed = reader
            .manifests()
            .map_err(|e| PlanError::Request { problem: chain(&e) })?;
        // The audit has made sure that there is one, and that it is the manifest's.
        let digest = artifact.manifest().oci_digest.map(|digest| digest.0);
        let (Some(descriptor), Some(digest)) = (listed.into_iter().next(), digest) else {
            return Err(PlanError::Request {
                problem: format!("{} has no image", layout.display()),
            });
        };
        let image = OciImage::read(&reader, &descriptor).map_err(|e| PlanError::Request { problem: chain(&e) })?;
        images.push((descriptor.clone(), image));
        manifests.push(PublishedManifest {
            arch,
            digest,
            descriptor,
            layout: layout.clone(),
            dir: artifact.dir().to_owned(),
        });
    }
    if manifests.is_empty() {
        return Err(PlanError::Request {
            problem: format!("there is no OCI image among the artifacts for {repository}"),
        });
    }
    let document = multi_index(images).map_err(|e| PlanError::Request { problem: chain(&e) })?;
    Ok(PublishedImage {
        repository: repository.clone(),
        index: document.digest(),
        document,
        manifests,
    })
}

/// The disk image of an artifact.
fn disk(
    artifacts: &[Verified],
    files: &[PublishedFile],
    target: Target,
    prefix: &str,
    name: &PlatformName,
) -> Result<PublishedDisk, PlanError> {
    let request = |problem: String| PlanError::Request { problem };
    let of_target = |artifact: &&Verified| {
        artifact.manifest().arch == target.arch && artifact.manifest().variant() == Some(target.variant)
    };
    let artifact = artifacts.iter().find(of_target);
    let artifact = artifact.ok_or_else(|| request(format!("there is no artifact {target} for {name}")))?;
    let manifest = artifact.manifest();
    let image = match (manifest.form, &manifest.image) {
        (ArtifactForm::RawDisk | ArtifactForm::Qcow2Disk | ArtifactForm::PiCard, Some(image)) => image,
        _ => {
            let problem = format!("{} is no disk image, and {name} is to be one", target.variant);
            return Err(request(problem));
        }
    };
    let place = artifact.dir().join(image.as_path());
    let file = files.iter().find(|file| file.path == place);
    let file = file.ok_or_else(|| request(format!("{target} has no {image}")))?;
    let repository = format!("{}/{name}", prefix.trim_end_matches('/'));
    Ok(PublishedDisk {
        repository: repository.parse().map_err(|e| PlanError::Registry(Box::new(e)))?,
        platform_name: name.clone(),
        file: file.clone(),
        dir: artifact.dir().to_owned(),
    })
}

/// The provenance of an artifact, as it was verified.
pub(super) fn provenance(dir: &Path) -> PathBuf {
    dir.join(PROVENANCE_FILE)
}

/// SHA-256 of a file.
pub(super) fn sha256_of(path: &Path) -> Result<Sha256Digest, PlanError> {
    let mut file = open_foreign(path).map_err(PlanError::io("open", path))?;
    let mut both = verity::Both::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut buffer).map_err(PlanError::io("read", path))?;
        if n == 0 {
            return Ok(both.finish().sha256);
        }
        both.write_all(&buffer[..n]).map_err(PlanError::io("read", path))?;
    }
}
