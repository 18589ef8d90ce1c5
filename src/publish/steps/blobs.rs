//! The blobs and manifests of the OCI image, and the images of disks, by digest.

use super::{PublishState, PublishStep, Publisher, publisher::repository_name};
use crate::{
    publish::{EMPTY_CONFIG, JournalEntry, PublishCause, referrer::INDEX_TYPE},
    registry::{LayoutDirectory, RegistryClient, push_layout},
    store::open_foreign,
};
use std::io::{self, Read};

impl Publisher<'_> {
    pub(super) fn blobs_step(&mut self) -> Result<(), PublishCause> {
        if let Some(image) = &self.plan.image {
            let transfer = self.parts.transfer.clone();
            let name = repository_name(&image.repository);
            let client = self.client(&image.repository)?;
            let mut pushed = Vec::new();
            for manifest in &image.manifests {
                let layout = LayoutDirectory::open(&manifest.layout)?;
                pushed.push(push_layout(client, &layout, None, None, &transfer)?);
            }
            let there = client.has_manifest(&image.index)?;
            if !there {
                client.put_manifest(INDEX_TYPE, &image.document.bytes)?;
            }
            for (manifest, pushed) in image.manifests.iter().zip(&pushed) {
                let state = match pushed.sent {
                    0 => PublishState::There,
                    _ => PublishState::Done,
                };
                let what = format!(
                    "{name}@sha256:{} ({}): {} sent with {} bytes, {} there",
                    manifest.digest, manifest.arch, pushed.sent, pushed.bytes, pushed.there
                );
                self.say(PublishStep::Blobs, state, what);
            }
            let state = if there { PublishState::There } else { PublishState::Done };
            self.say(
                PublishStep::Blobs,
                state,
                format!("{name}@sha256:{} (index)", image.index),
            );
            self.parts.journal.add(JournalEntry::Manifest {
                repository: name,
                digest: image.index,
            })?;
        }
        for disk in self.disks() {
            let name = repository_name(&disk.repository);
            let transfer = self.parts.transfer.clone();
            let client = self.client(&disk.repository)?;
            let file = &disk.file;
            let there = client.has_blob(&file.sha256, file.size)?;
            if !there {
                let mut open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(open_foreign(&file.path)?)) };
                client.upload_blob(&file.sha256, file.size, &mut open, &transfer)?;
            }
            upload_bytes(client, EMPTY_CONFIG)?;
            let state = if there { PublishState::There } else { PublishState::Done };
            let what = format!("{name}: {} ({} bytes)", file.name, file.size);
            self.say(PublishStep::Blobs, state, what);
        }
        Ok(())
    }
}

/// Sends a small blob, unless it is there.
pub(super) fn upload_bytes(client: &RegistryClient, bytes: &[u8]) -> Result<(), PublishCause> {
    let blob = crate::publish::ArtifactBlob::of(bytes);
    if client.has_blob(&blob.sha256, blob.size)? {
        return Ok(());
    }
    let owned = bytes.to_vec();
    let mut open = move || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(owned.clone()))) };
    Ok(client.upload_blob(&blob.sha256, blob.size, &mut open, &crate::registry::silent())?)
}
