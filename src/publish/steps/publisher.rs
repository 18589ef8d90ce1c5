//! `Publisher`: the plan, the clients and the journal that the steps share.

use super::{PublishEvent, PublishState, PublishStep};
use crate::{
    http::HttpClient,
    manifest::SIGNATURE_ENDING,
    model::Sha256Digest,
    publish::{
        GiteaClient, Journal, JournalEntry, LookOptions, PlannedAsset, PlannedRelease, PlatformName, PublishCause,
        PublishFailure, PublishPlan, PublishedDisk, ReleaseAnswer, Secret,
    },
    registry::{CredentialFile, ImageReference, OnTransfer, RegistryClient},
    sign::{BundleVerifier, ExpectedSigner, LegacySignature, Signer, VerifiedBundle},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The signer of a publication, and the verifier of what earlier runs signed.
#[derive(Debug)]
pub struct SigningParts {
    /// Signs.
    pub signer: Signer,
    /// Verifies what the journal has.
    pub verifier: BundleVerifier,
    /// The identity that signs.
    pub expected: ExpectedSigner,
}

/// A webhook of the platform.
#[derive(Debug)]
pub struct WebhookTarget {
    /// The platform's name of the image that it is told about.
    pub platform_name: PlatformName,
    /// The address, which is a secret.
    pub address: Secret,
    /// The key of the signature.
    pub key: Secret,
    /// The firmware that belongs to the image, if any.
    pub firmware_ref: Option<String>,
}

/// Everything that a publication needs beside its plan.
pub struct PublisherParts<'a> {
    /// The client of all servers.
    pub http: HttpClient,
    /// The credentials of registries.
    pub credentials: CredentialFile,
    /// The signer; `None` if nothing is signed.
    pub signing: Option<SigningParts>,
    /// The server of the release.
    pub gitea: Option<GiteaClient<'a>>,
    /// Limits of the release.
    pub limits: LookOptions,
    /// The title of the release.
    pub title: String,
    /// The text of the release.
    pub notes: String,
    /// The webhooks.
    pub webhooks: Vec<WebhookTarget>,
    /// What was done.
    pub journal: Journal,
    /// The path of the journal; the list of all checksums lies beside it.
    pub journal_path: PathBuf,
    /// Receives events.
    pub on: &'a dyn Fn(PublishEvent),
    /// Receives the progress of transfers.
    pub transfer: OnTransfer,
}

/// A publication under way.
pub struct Publisher<'a> {
    pub(super) plan: &'a PublishPlan,
    pub(super) parts: PublisherParts<'a>,
    pub(super) clients: BTreeMap<String, RegistryClient>,
    /// Signatures by subject and kind.
    pub(super) bundles: BTreeMap<(Sha256Digest, String), VerifiedBundle>,
    /// Signatures for cosign 2, by manifest.
    pub(super) legacy: BTreeMap<Sha256Digest, LegacySignature>,
    /// The release with all its files, still to be shown.
    pub(super) filled: Option<ReleaseAnswer>,
}

/// A repository by its registry and name.
pub(super) fn repository_name(repository: &ImageReference) -> String {
    format!("{}/{}", repository.registry(), repository.repository())
}

impl<'a> Publisher<'a> {
    /// A publication of `plan`.
    pub fn new(plan: &'a PublishPlan, parts: PublisherParts<'a>) -> Self {
        Self {
            plan,
            parts,
            clients: BTreeMap::new(),
            bundles: BTreeMap::new(),
            legacy: BTreeMap::new(),
            filled: None,
        }
    }

    /// Looks at all servers, and writes nothing.
    ///
    /// # Errors
    ///
    /// Everything that can be refused.
    pub fn look(&mut self) -> Result<(), PublishFailure> {
        self.step(PublishStep::Look, Self::look_step)
    }

    /// All steps after [`Publisher::look`].
    ///
    /// # Errors
    ///
    /// The first failure, with its step.
    pub fn publish(&mut self) -> Result<(), PublishFailure> {
        self.step(PublishStep::Blobs, Self::blobs_step)?;
        if self.plan.signed {
            self.step(PublishStep::Sign, Self::sign_step)?;
            self.step(PublishStep::Attach, Self::attach_step)?;
            self.step(PublishStep::Release, Self::release_step)?;
            self.step(PublishStep::Show, Self::show_step)?;
            self.step(PublishStep::Tell, Self::tell_step)?;
        }
        self.parts
            .journal
            .add(JournalEntry::Finished)
            .map_err(|e| PublishFailure::of(PublishStep::Tell)(e.into()))
    }

    fn step(
        &mut self,
        step: PublishStep,
        run: fn(&mut Self) -> Result<(), PublishCause>,
    ) -> Result<(), PublishFailure> {
        run(self).map_err(PublishFailure::of(step))
    }

    pub(super) fn say(&self, step: PublishStep, state: PublishState, what: impl Into<String>) {
        let what = what.into();
        (self.parts.on)(PublishEvent { step, what, state });
    }

    /// The client of a repository; made and logged in once.
    pub(super) fn client(&mut self, repository: &ImageReference) -> Result<&RegistryClient, PublishCause> {
        let name = repository_name(repository);
        if !self.clients.contains_key(&name) {
            let credentials = self
                .parts
                .credentials
                .get(repository.registry(), repository.repository())?;
            let client = RegistryClient::new(self.parts.http.clone(), repository, credentials);
            self.clients.insert(name.clone(), client);
        }
        self.clients.get(&name).ok_or_else(|| {
            PublishCause::Plan(crate::publish::PlanError::Request {
                problem: format!("there is no client of {name}"),
            })
        })
    }

    /// A signature that was made in this run or an earlier one.
    pub(super) fn bundle(&self, subject: &Sha256Digest, kind: &str) -> Option<&VerifiedBundle> {
        self.bundles.get(&(*subject, kind.to_owned()))
    }

    /// The list of the checksums of all files, under the names that they have in the release.
    pub(super) fn checksums(&self) -> Result<(PathBuf, String), PublishCause> {
        let mut sums = crate::manifest::Sums::new();
        for file in &self.plan.files {
            let name = crate::model::RelPath::new(&file.name);
            let name = name.map_err(|e| crate::publish::PlanError::Request { problem: e.to_string() })?;
            sums.insert(name, file.sha256)?;
        }
        let path = self.parts.journal_path.with_extension("SHA256SUMS");
        Ok((path, sums.to_text()))
    }

    /// The release with the files whose signatures are known.
    pub(super) fn planned_release(&self) -> Result<Option<PlannedRelease>, PublishCause> {
        let Some(tag) = &self.plan.release else { return Ok(None) };
        let mut assets = Vec::new();
        let mut add = |name: String, source: PathBuf, sha256: Sha256Digest, size: u64| {
            assets.push(PlannedAsset {
                name,
                source,
                sha256,
                size,
            });
        };
        let (path, text) = self.checksums()?;
        let sums = crate::publish::ArtifactBlob::of(text.as_bytes());
        let all = self
            .plan
            .files
            .iter()
            .map(|f| (f.name.clone(), f.path.clone(), f.sha256, f.size));
        for (name, path, sha256, size) in all.chain([("SHA256SUMS".to_owned(), path, sums.sha256, sums.size)]) {
            if let Some(bundle) = self.bundle(&sha256, FILE_KIND) {
                let blob = crate::publish::ArtifactBlob::of(bundle.json().as_bytes());
                let signature = signature_path(&path);
                add(format!("{name}{}", SIGNATURE_ENDING), signature, blob.sha256, blob.size);
            }
            add(name, path, sha256, size);
        }
        let commit = self.plan.commit.clone();
        let release = PlannedRelease::new(tag, commit, &self.parts.title, &self.parts.notes, assets);
        Ok(Some(release?))
    }

    /// The disks, which the borrow of `self` does not outlive.
    pub(super) fn disks(&self) -> &'a [PublishedDisk] {
        &self.plan.disks
    }
}

/// The kind of the signature of a file's bytes, in the journal.
pub(super) const FILE_KIND: &str = "message";

/// The file with the signature of `path`.
pub(super) fn signature_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SIGNATURE_ENDING);
    name.into()
}
