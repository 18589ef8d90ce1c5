//! All signatures: of files, of manifests, and of the statements about both. Each is in the journal before anybody else has it.
//!
//! The journal's `kind` is `message` for the bytes of a file, the type of the predicate for a statement, and the media type of
//! cosign 2's payload for its signature.

use super::{
    PublishState, PublishStep, Publisher,
    publisher::{FILE_KIND, signature_path},
};
use crate::{
    manifest::{PREDICATE_TYPE, Statement, to_canonical},
    model::Sha256Digest,
    publish::{
        ArtifactBlob, DiskImageArtifact, JournalEntry, PlanError, PublishCause, PublishedDisk, plan::provenance,
        plan::sha256_of, steps::publisher::repository_name,
    },
    sign::{LegacySignature, Purpose, SIGN_PREDICATE_TYPE, VerifiedBundle, sign_v1_statement},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

impl Publisher<'_> {
    pub(super) fn sign_step(&mut self) -> Result<(), PublishCause> {
        for file in &self.plan.files {
            self.sign_file(&file.name, &file.path, file.sha256)?;
        }
        if self.plan.release.is_some() {
            let (path, text) = self.checksums()?;
            fs::write(&path, &text).map_err(PlanError::io("write", &path))?;
            self.sign_file("SHA256SUMS", &path, ArtifactBlob::of(text.as_bytes()).sha256)?;
        }
        if let Some(image) = &self.plan.image {
            let reference = repository_name(&image.repository);
            let manifests = image.manifests.iter().map(|manifest| manifest.digest);
            for digest in [image.index].into_iter().chain(manifests) {
                self.sign_manifest(&reference, digest)?;
            }
            for manifest in &image.manifests {
                let statement = statement_about(&provenance(&manifest.dir), &reference, manifest.digest)?;
                self.sign_statement(&statement, manifest.digest, PREDICATE_TYPE)?;
            }
        }
        for disk in self.disks() {
            // Both bundles are layers of the artifact, so its manifest is known, and signed, after them.
            let path = provenance(&disk.dir);
            let text = read_text(&path)?;
            self.sign_statement(&text, disk.file.sha256, PREDICATE_TYPE)?;
            let manifest = self.disk_manifest(disk)?;
            let digest = ArtifactBlob::of(&manifest).sha256;
            self.sign_manifest(&repository_name(&disk.repository), digest)?;
        }
        Ok(())
    }

    /// The manifest of a disk image, whose bundles are there.
    pub(super) fn disk_manifest(&self, disk: &PublishedDisk) -> Result<Vec<u8>, PublishCause> {
        let (signature, attestation) = self.disk_bundles(disk)?;
        let artifact = DiskImageArtifact {
            platform_name: disk.platform_name.clone(),
            commit: self.plan.commit.clone(),
            image: ArtifactBlob {
                sha256: disk.file.sha256,
                size: disk.file.size,
            },
            signature: ArtifactBlob::of(signature.json().as_bytes()),
            attestation: ArtifactBlob::of(attestation.json().as_bytes()),
        };
        Ok(artifact.manifest()?)
    }

    /// The bundles of a disk image: of its bytes, and of the statement about it.
    pub(super) fn disk_bundles(
        &self,
        disk: &PublishedDisk,
    ) -> Result<(&VerifiedBundle, &VerifiedBundle), PublishCause> {
        let file = &disk.file;
        let both = (
            self.bundle(&file.sha256, FILE_KIND),
            self.bundle(&file.sha256, PREDICATE_TYPE),
        );
        match both {
            (Some(signature), Some(attestation)) => Ok((signature, attestation)),
            _ => Err(PlanError::Request {
                problem: format!("{} is not signed", file.name),
            }
            .into()),
        }
    }

    /// Signs a file, and writes the bundle beside it.
    fn sign_file(&mut self, name: &str, path: &Path, sha256: Sha256Digest) -> Result<(), PublishCause> {
        if self.bundle(&sha256, FILE_KIND).is_none() {
            // The audit was before; a file that was changed since is not signed.
            let actual = sha256_of(path)?;
            if actual != sha256 {
                return Err(PlanError::Request {
                    problem: format!("{name} was changed after the audit\nexpected: {sha256}\n  actual: {actual}"),
                }
                .into());
            }
            let signing = self.signing()?;
            let bundle = signing.signer.sign_digest(name, &sha256)?;
            self.keep(sha256, FILE_KIND, bundle, name)?;
        } else {
            self.note_adopted(sha256, FILE_KIND)?;
            self.say(PublishStep::Sign, PublishState::There, name);
        }
        if let Some(bundle) = self.bundle(&sha256, FILE_KIND) {
            let place = signature_path(path);
            write_if_other(&place, bundle.json())?;
        }
        Ok(())
    }

    /// Signs a manifest, for cosign 3 and for cosign 2.
    fn sign_manifest(&mut self, reference: &str, digest: Sha256Digest) -> Result<(), PublishCause> {
        let statement = sign_v1_statement(&[digest])?;
        self.sign_statement(&statement, digest, SIGN_PREDICATE_TYPE)?;
        if self.legacy.contains_key(&digest) {
            return Ok(());
        }
        let signing = self.signing()?;
        let legacy = signing.signer.sign_legacy(&digest, reference)?;
        self.parts.journal.add(JournalEntry::Bundle {
            subject: digest,
            kind: LegacySignature::MEDIA_TYPE.to_owned(),
            bundle: legacy.to_json(),
        })?;
        let what = format!("{reference}@sha256:{digest} for cosign 2");
        self.say(PublishStep::Sign, PublishState::Done, what);
        self.legacy.insert(digest, legacy);
        Ok(())
    }

    fn sign_statement(&mut self, statement: &str, subject: Sha256Digest, kind: &str) -> Result<(), PublishCause> {
        let what = format!("sha256:{subject}: {kind}");
        if self.bundle(&subject, kind).is_some() {
            self.note_adopted(subject, kind)?;
            self.say(PublishStep::Sign, PublishState::There, what);
            return Ok(());
        }
        let signing = self.signing()?;
        let bundle = signing.signer.sign_statement(statement)?;
        self.keep(subject, kind, bundle, &what)
    }

    /// Keeps a new signature: in the journal first.
    fn keep(
        &mut self,
        subject: Sha256Digest,
        kind: &str,
        bundle: VerifiedBundle,
        what: &str,
    ) -> Result<(), PublishCause> {
        self.parts.journal.add(JournalEntry::Bundle {
            subject,
            kind: kind.to_owned(),
            bundle: bundle.json().to_owned(),
        })?;
        self.say(PublishStep::Sign, PublishState::Done, what);
        self.bundles.insert((subject, kind.to_owned()), bundle);
        Ok(())
    }

    fn signing(&mut self) -> Result<&mut super::SigningParts, PublishCause> {
        self.parts.signing.as_mut().ok_or_else(|| {
            PublishCause::Plan(PlanError::Request {
                problem: "there is no signer".to_owned(),
            })
        })
    }

    /// Takes the signatures of earlier runs from the journal. Each is verified again: the journal is a file like any other.
    pub(super) fn load_kept(&mut self) -> Result<(), PublishCause> {
        let Some(signing) = &self.parts.signing else {
            return Ok(());
        };
        let (mut bundles, mut legacy) = (BTreeMap::new(), BTreeMap::new());
        for entry in self.parts.journal.entries() {
            let JournalEntry::Bundle { subject, kind, bundle } = entry else {
                continue;
            };
            let refused = |reason: String| PublishCause::Kept {
                what: format!("sha256:{subject}"),
                reason,
            };
            if kind == LegacySignature::MEDIA_TYPE {
                let restored = LegacySignature::restore(bundle, subject, &signing.verifier, &signing.expected);
                legacy.insert(*subject, restored.map_err(|e| refused(e.to_string()))?);
                continue;
            }
            let purpose = match kind.as_str() {
                FILE_KIND => Purpose::File,
                kind => Purpose::Statement(kind),
            };
            let verified = signing
                .verifier
                .verify(bundle.as_bytes(), subject, purpose, &signing.expected);
            let verified = verified.map_err(|refusal| refused(refusal.to_string()))?;
            bundles.insert((*subject, kind.clone()), verified);
        }
        self.bundles = bundles;
        self.legacy = legacy;
        Ok(())
    }
}

fn read_text(path: &Path) -> Result<String, PublishCause> {
    let bytes = crate::store::read_foreign(path, crate::manifest::MAX_SIZE).map_err(PlanError::io("read", path))?;
    String::from_utf8(bytes).map_err(|_| {
        PublishCause::Plan(PlanError::Request {
            problem: format!("{} is not UTF-8", path.display()),
        })
    })
}

/// The provenance of an artifact as a statement about the manifest of its image.
fn statement_about(path: &Path, reference: &str, manifest: Sha256Digest) -> Result<String, PublishCause> {
    let mut statement: Statement = crate::manifest::from_canonical(read_text(path)?.as_bytes(), "provenance")?;
    let mut subject = statement.subject.first().cloned().ok_or_else(|| PlanError::Request {
        problem: format!("{} is about nothing", path.display()),
    })?;
    subject.name = reference.to_owned();
    subject.uri = None;
    subject.digest = BTreeMap::from([("sha256".to_owned(), manifest.to_hex())]);
    statement.subject = vec![subject];
    Ok(to_canonical(&statement, "provenance")?)
}

/// Writes a signature, unless the file has this content. It is not renamed into place: a file under another name, which a kill would leave
/// behind, would be a foreign file to the next audit, while half a signature is written again from the journal.
fn write_if_other(path: &Path, text: &str) -> Result<(), PublishCause> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let removed = match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    // A new file, so that nothing is written through a link.
    let written = removed.and_then(|()| {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o644).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| PlanError::io("write", path)(source).into())
}
