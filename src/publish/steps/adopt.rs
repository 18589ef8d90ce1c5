//! Signatures that an earlier run left beside the files and in a registry. With them, a publication whose journal is lost is completed.
//!
//! Each is verified like those of the journal, and one that does not verify is no error here: it is of another build or of another signer.

use super::Publisher;
use super::publisher::{FILE_KIND, signature_path};
use crate::{
    manifest::PREDICATE_TYPE,
    model::Sha256Digest,
    publish::{ArtifactBlob, JournalEntry, PublishCause, PublishedDisk},
    registry::{ManifestContent, RemoteManifest, silent},
    sign::{BUNDLE_LIMIT, Purpose, VerifiedBundle},
    store::read_foreign,
};
use oci_spec::image::Descriptor;

impl Publisher<'_> {
    /// Takes the signatures beside the files that the journal does not have.
    pub(super) fn adopt_beside(&mut self) -> Result<(), PublishCause> {
        let mut files: Vec<_> = self.plan.files.iter().map(|f| (f.path.clone(), f.sha256)).collect();
        if self.plan.release.is_some() {
            let (path, text) = self.checksums()?;
            files.push((path, ArtifactBlob::of(text.as_bytes()).sha256));
        }
        for (path, sha256) in files {
            if self.bundle(&sha256, FILE_KIND).is_some() {
                continue;
            }
            let Ok(bytes) = read_foreign(&signature_path(&path), BUNDLE_LIMIT as u64) else {
                continue;
            };
            if let Some(bundle) = self.verified(&bytes, &sha256, Purpose::File) {
                self.bundles.insert((sha256, FILE_KIND.to_owned()), bundle);
            }
        }
        Ok(())
    }

    /// Whether the manifest that a registry has is that of the disk with signatures of the same signer. If it is, they are taken.
    pub(super) fn adopt_disk(&mut self, disk: &PublishedDisk, found: &RemoteManifest) -> Result<bool, PublishCause> {
        let ManifestContent::Image(manifest) = &found.content else {
            return Ok(false);
        };
        let [_, signature, attestation] = &manifest.layers()[..] else {
            return Ok(false);
        };
        let image = disk.file.sha256;
        let mut taken = Vec::new();
        for (layer, kind, purpose) in [
            (signature, FILE_KIND, Purpose::File),
            (attestation, PREDICATE_TYPE, Purpose::Statement(PREDICATE_TYPE)),
        ] {
            let Some(bytes) = self.small_blob(disk, layer)? else {
                return Ok(false);
            };
            let Some(bundle) = self.verified(&bytes, &image, purpose) else {
                return Ok(false);
            };
            taken.push(((image, kind.to_owned()), bundle));
        }
        let before = self.bundles.clone();
        self.bundles.extend(taken);
        // The whole manifest follows from the plan and both bundles.
        let same = self.disk_manifest(disk)? == found.bytes;
        if !same {
            self.bundles = before;
        }
        Ok(same)
    }

    /// Notes a signature that is used and that the journal does not have.
    pub(super) fn note_adopted(&mut self, subject: Sha256Digest, kind: &str) -> Result<(), PublishCause> {
        let Some(bundle) = self.bundle(&subject, kind).map(|bundle| bundle.json().to_owned()) else {
            return Ok(());
        };
        if self.parts.journal.bundle(&subject, kind).is_none() {
            let kind = kind.to_owned();
            self.parts.journal.add(JournalEntry::Bundle { subject, kind, bundle })?;
        }
        Ok(())
    }

    fn verified(&self, bytes: &[u8], subject: &Sha256Digest, purpose: Purpose<'_>) -> Option<VerifiedBundle> {
        let signing = self.parts.signing.as_ref()?;
        let verdict = signing.verifier.verify(bytes, subject, purpose, &signing.expected);
        verdict.ok()
    }

    /// A layer with a bundle; `None` if it is too large for one, or has another name than a SHA-256.
    fn small_blob(&mut self, disk: &PublishedDisk, layer: &Descriptor) -> Result<Option<Vec<u8>>, PublishCause> {
        let hex = layer.digest().as_ref().strip_prefix("sha256:");
        let digest = hex.and_then(|hex| hex.parse::<Sha256Digest>().ok());
        let Some(digest) = digest.filter(|_| layer.size() <= BUNDLE_LIMIT as u64) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let client = self.client(&disk.repository)?;
        client.read_blob(&digest, layer.size(), &mut bytes, &silent())?;
        Ok(Some(bytes))
    }
}
