//! A whole image from a registry to a new OCI layout directory.

use super::{
    ImageReference, ManifestContent, OnTransfer, RegistryClient, RegistryError, RemoteManifest,
    layout::{is_manifest_type, sha256},
};
use crate::model::{Arch, Sha256Digest};
use oci_spec::image::{ANNOTATION_REF_NAME, Arch as OciArch, Descriptor, MediaType, Os};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Most levels of indexes in indexes.
const DEEPEST: usize = 4;

/// Which images of an index are pulled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlatformChoice {
    /// All, with the index.
    All,
    /// The one for Linux on this architecture, without the index.
    Only(Arch),
}

struct Pull<'a> {
    client: &'a RegistryClient,
    blobs: &'a Path,
    on: &'a OnTransfer,
    done: BTreeSet<Sha256Digest>,
}

/// Pulls the image that `reference` names by digest or tag into the directory `target`, which must not exist. It appears there when all of it
/// has arrived and was verified. Returns the descriptor of what `index.json` names.
///
/// # Errors
///
/// If the registry does not have it, if bytes have another digest, and by the class of the refusal.
pub fn pull_layout(
    client: &RegistryClient,
    reference: &ImageReference,
    choice: PlatformChoice,
    target: &Path,
    on: &OnTransfer,
) -> Result<Descriptor, RegistryError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RegistryError::File { action, path, source }
    };
    match fs::symlink_metadata(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("look at", target)(source)),
        Ok(_) => return Err(failed("make the layout", target)(io::ErrorKind::AlreadyExists.into())),
    }
    let parent = target
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let scratch = tempfile::Builder::new().prefix(".pull-").tempdir_in(parent);
    let scratch = scratch.map_err(failed("make a directory in", parent))?;
    let blobs = scratch.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed("make", &blobs))?;

    let top = find(client, reference)?;
    let mut pull = Pull {
        client,
        blobs: &blobs,
        on,
        done: BTreeSet::new(),
    };
    let chosen = pull.choose(top, choice)?;
    let mut descriptor = chosen.descriptor()?;
    pull.manifest(&chosen, 0)?;
    if let Some(tag) = reference.tag() {
        descriptor.set_annotations(Some([(ANNOTATION_REF_NAME.to_owned(), tag.to_owned())].into()));
    }
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": [descriptor]});
    write(
        &scratch.path().join("oci-layout"),
        b"{\"imageLayoutVersion\":\"1.0.0\"}",
    )?;
    write(&scratch.path().join("index.json"), index.to_string().as_bytes())?;
    let done = scratch.keep();
    if let Err(source) = fs::rename(&done, target) {
        // Nothing is left behind.
        let _ = fs::remove_dir_all(&done);
        return Err(failed("rename the layout to", target)(source));
    }
    Ok(descriptor)
}

/// The manifest or index that a name means: by its digest if it has one.
fn find(client: &RegistryClient, reference: &ImageReference) -> Result<RemoteManifest, RegistryError> {
    let found = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => client.manifest(&digest)?,
        (None, Some(tag)) => client.tagged(tag)?,
        (None, None) => {
            return Err(RegistryError::Reference {
                value: reference.to_string(),
                problem: "has neither a tag nor a digest".to_owned(),
            });
        }
    };
    found.ok_or_else(|| RegistryError::NotFound {
        what: format!("pull {reference}"),
        registry: client.registry().to_owned(),
        text: String::new(),
    })
}

impl Pull<'_> {
    /// The index itself, or the one manifest of it for an architecture. An image that is no index is taken as it is.
    fn choose(&self, top: RemoteManifest, choice: PlatformChoice) -> Result<RemoteManifest, RegistryError> {
        let (ManifestContent::Index(index), PlatformChoice::Only(arch)) = (&top.content, choice) else {
            return Ok(top);
        };
        let bad = |problem: String| RegistryError::Malformed {
            what: format!("choose the image for {arch} in sha256:{}", top.digest),
            problem,
        };
        let wanted = OciArch::from(arch.as_str());
        let fits = |d: &&Descriptor| {
            let platform = d.platform().as_ref();
            platform.is_some_and(|p| *p.architecture() == wanted && *p.os() == Os::Linux)
        };
        let mut found = index.manifests().iter().filter(fits);
        match (found.next(), found.next()) {
            (Some(one), None) => self.get(one),
            (None, _) => Err(bad("there is none".into())),
            (Some(_), Some(_)) => Err(bad("there are several".into())),
        }
    }

    /// Gets a manifest by its descriptor.
    fn get(&self, descriptor: &Descriptor) -> Result<RemoteManifest, RegistryError> {
        let what = format!("pull {}", descriptor.digest());
        let bad = |problem| RegistryError::Malformed {
            what: what.clone(),
            problem,
        };
        let digest = sha256(descriptor).map_err(bad)?;
        let found = self.client.manifest(&digest)?.ok_or_else(|| RegistryError::NotFound {
            what: what.clone(),
            registry: self.client.registry().to_owned(),
            text: String::new(),
        })?;
        if found.bytes.len() as u64 != descriptor.size() || found.media_type != descriptor.media_type().as_ref() {
            return Err(bad("it has another size or media type than the index says".to_owned()));
        }
        Ok(found)
    }

    /// Writes a manifest and everything that it names.
    fn manifest(&mut self, manifest: &RemoteManifest, depth: usize) -> Result<(), RegistryError> {
        if depth > DEEPEST {
            return Err(RegistryError::Malformed {
                what: format!("pull sha256:{}", manifest.digest),
                problem: format!("it lies more than {DEEPEST} indexes deep"),
            });
        }
        if !self.done.insert(manifest.digest) {
            return Ok(());
        }
        for needed in manifest.content.needs() {
            let index = matches!(manifest.content, ManifestContent::Index(_));
            if index && is_manifest_type(needed.media_type().as_ref()) {
                let inner = self.get(needed)?;
                self.manifest(&inner, depth + 1)?;
            } else {
                self.blob(needed)?;
            }
        }
        write(&self.blobs.join(manifest.digest.to_hex()), &manifest.bytes)
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<(), RegistryError> {
        let digest = sha256(descriptor).map_err(|problem| RegistryError::Malformed {
            what: format!("pull {}", descriptor.digest()),
            problem,
        })?;
        if !self.done.insert(digest) {
            return Ok(());
        }
        let path = self.blobs.join(digest.to_hex());
        let failed = |source| RegistryError::File {
            action: "write",
            path: path.clone(),
            source,
        };
        let mut file = File::create_new(&path).map_err(failed)?;
        self.client.read_blob(&digest, descriptor.size(), &mut file, self.on)?;
        file.sync_data().map_err(failed)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_data()
    });
    written.map_err(|source| RegistryError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}
