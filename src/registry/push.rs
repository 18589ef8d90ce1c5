//! A whole image from an OCI layout directory to a registry.
//!
//! Blobs come before the manifest that names them, manifests before their index, everything by digest before a tag. What is there already is
//! skipped, so that a push that was stopped goes on where it was.

use super::{
    LayoutDirectory, ManifestContent, OnTransfer, RegistryClient, RegistryError, TransferStep,
    layout::{is_manifest_type, sha256},
};
use crate::model::Sha256Digest;
use oci_spec::image::Descriptor;
use std::{collections::BTreeSet, io};

/// Most levels of indexes in indexes.
const DEEPEST: usize = 4;

/// What a push did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushedImage {
    /// The digest of the image's manifest or index.
    pub digest: Sha256Digest,
    /// The number of blobs and manifests that were sent, and of those that were there already.
    pub sent: u64,
    /// See `sent`.
    pub there: u64,
    /// The bytes of the blobs and manifests that were sent.
    pub bytes: u64,
}

struct Push<'a> {
    client: &'a RegistryClient,
    layout: &'a LayoutDirectory,
    on: &'a OnTransfer,
    done: BTreeSet<Sha256Digest>,
    sent: u64,
    there: u64,
    bytes: u64,
}

/// Pushes an image of a layout: the one named `name` there, or its only one. With `tag`, the tag points to it at the end; one that points to
/// another image is an error.
///
/// # Errors
///
/// If the layout is damaged, and by the class of the refusal.
pub fn push_layout(
    client: &RegistryClient,
    layout: &LayoutDirectory,
    name: Option<&str>,
    tag: Option<&str>,
    on: &OnTransfer,
) -> Result<PushedImage, RegistryError> {
    let image = layout.image(name)?;
    let mut push = Push {
        client,
        layout,
        on,
        done: BTreeSet::new(),
        sent: 0,
        there: 0,
        bytes: 0,
    };
    let (digest, bytes) = push.manifest(image, 0)?;
    if let Some(tag) = tag {
        client.put_tag(tag, image.media_type().as_ref(), &bytes, false)?;
    }
    Ok(PushedImage {
        digest,
        sent: push.sent,
        there: push.there,
        bytes: push.bytes,
    })
}

impl Push<'_> {
    /// Sends a manifest after everything that it names.
    fn manifest(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(Sha256Digest, Vec<u8>), RegistryError> {
        let bad = |problem: String| RegistryError::Malformed {
            what: format!("push {}", descriptor.digest()),
            problem,
        };
        if depth > DEEPEST {
            return Err(bad(format!("it lies more than {DEEPEST} indexes deep")));
        }
        let digest = sha256(descriptor).map_err(bad)?;
        let (bytes, content) = self.layout.manifest(descriptor)?;
        if !self.done.insert(digest) {
            return Ok((digest, bytes));
        }
        for needed in content.needs() {
            let nested = matches!(content, ManifestContent::Index(_)) && is_manifest_type(needed.media_type().as_ref());
            match nested {
                true => drop(self.manifest(needed, depth + 1)?),
                false => self.blob(needed)?,
            }
        }
        // Its blobs were asked for before: a registry may have dropped those of a manifest that it keeps.
        if self.client.has_manifest(&digest)? {
            self.there += 1;
        } else {
            self.client.put_manifest(descriptor.media_type().as_ref(), &bytes)?;
            self.sent += 1;
            self.bytes += bytes.len() as u64;
        }
        Ok((digest, bytes))
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<(), RegistryError> {
        let digest = sha256(descriptor).map_err(|problem| RegistryError::Malformed {
            what: format!("push {}", descriptor.digest()),
            problem,
        })?;
        if !self.done.insert(digest) {
            return Ok(());
        }
        let size = descriptor.size();
        if self.client.has_blob(&digest, size)? {
            self.there += 1;
            (self.on)(TransferStep::There(digest, size));
            return Ok(());
        }
        // Its absence is an error of the layout, not of the upload.
        drop(self.layout.open_blob(&digest, size)?);
        let layout = self.layout;
        let mut open = || -> io::Result<Box<dyn io::Read + Send>> {
            let file = layout.open_blob(&digest, size);
            Ok(Box::new(file.map_err(|e| io::Error::other(crate::model::chain(&e)))?))
        };
        self.client.upload_blob(&digest, size, &mut open, self.on)?;
        self.sent += 1;
        self.bytes += size;
        Ok(())
    }
}
