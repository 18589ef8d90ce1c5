//! What refers to the manifests: the signature of each before any attestation, because cosign 3 takes an attestation for a signature.

use super::{PublishState, PublishStep, Publisher, blobs::upload_bytes, publisher::repository_name};
use crate::{
    image::oci::describe,
    manifest::{PREDICATE_TYPE, SBOM_FILE},
    model::Sha256Digest,
    publish::{
        ArtifactBlob, JournalEntry, PlanError, PublishCause,
        referrer::{
            INDEX_TYPE, MANIFEST_TYPE, ReferringManifest, attached_bundle, attached_sbom, legacy_manifest, legacy_tag,
        },
    },
    registry::ImageReference,
    sign::SIGN_PREDICATE_TYPE,
    store::read_foreign,
};
use oci_spec::image::Descriptor;

/// Largest SBOM, bytes.
const MAX_SBOM: u64 = 64 << 20;

impl Publisher<'_> {
    pub(super) fn attach_step(&mut self) -> Result<(), PublishCause> {
        if let Some(image) = &self.plan.image {
            let repository = &image.repository;
            let index = describe(INDEX_TYPE, image.index, image.document.bytes.len() as u64)?;
            self.attach_signature(repository, &index, image.index)?;
            for manifest in &image.manifests {
                let subject = &manifest.descriptor;
                self.attach_signature(repository, subject, manifest.digest)?;
                if let Some(bundle) = self.bundle(&manifest.digest, PREDICATE_TYPE) {
                    let referring = attached_bundle(subject, bundle);
                    self.attach(repository, manifest.digest, &referring, "provenance")?;
                }
                let path = manifest.dir.join(SBOM_FILE);
                let sbom = read_foreign(&path, MAX_SBOM).map_err(PlanError::io("read", &path))?;
                self.attach(repository, manifest.digest, &attached_sbom(subject, sbom), "SBOM")?;
            }
        }
        for disk in self.disks() {
            let bytes = self.disk_manifest(disk)?;
            let (signature, attestation) = self.disk_bundles(disk)?;
            let blobs = [
                signature.json().as_bytes().to_vec(),
                attestation.json().as_bytes().to_vec(),
            ];
            let blob = ArtifactBlob::of(&bytes);
            let client = self.client(&disk.repository)?;
            for blob in blobs {
                upload_bytes(client, &blob)?;
            }
            let there = client.has_manifest(&blob.sha256)?;
            if !there {
                client.put_manifest(MANIFEST_TYPE, &bytes)?;
            }
            let name = repository_name(&disk.repository);
            let state = if there { PublishState::There } else { PublishState::Done };
            self.say(PublishStep::Attach, state, format!("{name}@sha256:{}", blob.sha256));
            self.parts.journal.add(JournalEntry::Manifest {
                repository: name,
                digest: blob.sha256,
            })?;
            let subject = describe(MANIFEST_TYPE, blob.sha256, blob.size)?;
            self.attach_signature(&disk.repository, &subject, blob.sha256)?;
        }
        Ok(())
    }

    /// Attaches the signature of a manifest, for cosign 3 and for cosign 2.
    fn attach_signature(
        &mut self,
        repository: &ImageReference,
        subject: &Descriptor,
        digest: Sha256Digest,
    ) -> Result<(), PublishCause> {
        if let Some(bundle) = self.bundle(&digest, SIGN_PREDICATE_TYPE) {
            let referring = attached_bundle(subject, bundle);
            self.attach(repository, digest, &referring, "signature")?;
        }
        let Some(legacy) = self.legacy.get(&digest).cloned() else {
            return Ok(());
        };
        let tag = legacy_tag(&digest);
        let client = self.client(repository)?;
        let present = client.tagged(&tag)?.map(|found| found.bytes);
        let what = format!("{}:{tag}", repository_name(repository));
        let Some(manifest) = legacy_manifest(present.as_deref(), &legacy) else {
            self.say(PublishStep::Attach, PublishState::There, what);
            return Ok(());
        };
        for blob in &manifest.blobs {
            upload_bytes(client, blob)?;
        }
        // The tag lists all signatures of the manifest, so a new one replaces the list.
        client.put_tag(&tag, MANIFEST_TYPE, &manifest.bytes, true)?;
        self.say(PublishStep::Attach, PublishState::Done, what);
        Ok(())
    }

    fn attach(
        &mut self,
        repository: &ImageReference,
        subject: Sha256Digest,
        manifest: &ReferringManifest,
        noun: &str,
    ) -> Result<(), PublishCause> {
        let name = repository_name(repository);
        let digest = manifest.digest();
        let client = self.client(repository)?;
        let there = client.has_manifest(&digest)?;
        for blob in &manifest.blobs {
            upload_bytes(client, blob)?;
        }
        client.attach(&subject, MANIFEST_TYPE, &manifest.bytes)?;
        let state = if there { PublishState::There } else { PublishState::Done };
        self.say(PublishStep::Attach, state, format!("{noun} of {name}@sha256:{subject}"));
        Ok(self.parts.journal.add(JournalEntry::Attached {
            repository: name,
            subject,
            digest,
        })?)
    }
}
