//! The audit of one artifact directory.

use super::{
    AuditError, AuditReport, Class, OpenRoot, Policy, check::Problems, files, layout, root, rules, statements,
};
use crate::{
    manifest::{
        BuildRecord, MANIFEST_FILE, MAX_SIZE, Manifest, PROVENANCE_FILE, RECORD_FILE, SBOM_FILE, SUMS_FILE, Sums,
    },
    model::{ArtifactForm, Sha256Digest, Variant},
};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// The requirements of an audit beside the consistency of the artifact, and the reader of its root.
pub struct AuditOptions<'a> {
    /// Opens the root inside the artifact.
    pub opener: &'a dyn OpenRoot,
    /// SHA-256 of the lock that the artifact must have been built from; `None` accepts any lock.
    pub lock_sha256: Option<Sha256Digest>,
    /// The rules that the artifact must also follow; `None` asks for nothing more.
    pub policy: Option<&'a Policy>,
}

/// An artifact directory in which every check held. Only [`audit`] makes one.
#[derive(Clone, Debug)]
pub struct Verified {
    dir: PathBuf,
    manifest: Manifest,
    sums: Sums,
    report: AuditReport,
}

impl Verified {
    /// The directory of the files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The manifest, which holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// Every file of `SHA256SUMS` with its digest.
    pub fn sums(&self) -> &Sums {
        &self.sums
    }
    /// The checks that were made.
    pub fn report(&self) -> &AuditReport {
        &self.report
    }
}

/// Checks the artifact in `dir`. A failed check does not end the audit: every check that is possible is made.
pub fn audit(dir: &Path, options: &AuditOptions<'_>) -> Result<Verified, AuditError> {
    let mut checks = Vec::new();
    let read = |name: &str| files::read_small(&dir.join(name), MAX_SIZE);
    let mut problems = Problems::default();
    let found = files::hash_all(dir, &mut problems)?;
    let sums = files::check_sums(read(SUMS_FILE)?.as_deref(), &found, problems, &mut checks);

    let bytes = read(MANIFEST_FILE)?;
    let manifest = statements::check_manifest(bytes.as_deref(), &mut checks);
    if let Some(manifest) = &manifest {
        let sha256 = Sha256Digest::new(Sha256::digest(bytes.unwrap_or_default()).into());
        let none = Sums::new();
        let listed = sums.as_ref().unwrap_or(&none).files();
        checks.push(statements::check_artifacts(manifest, &found, listed));
        checks.push(statements::check_pins(manifest));
        if let Some(lock) = &options.lock_sha256 {
            let mut problems = Problems::default();
            problems.equal("sha256 of the lock", lock, &manifest.lockfile.sha256);
            checks.push(problems.check("lock", Class::Pins, "built from the given lock"));
        }
        let unread = |variant: &Variant| options.policy.is_some_and(|p| p.unread_roots.contains(variant));
        match manifest.form {
            ArtifactForm::OciImage => checks.extend(layout::check_layout(manifest, dir)),
            ArtifactForm::Other if manifest.variant().as_ref().is_some_and(unread) => {}
            _ => checks.extend(root::check_root(manifest, dir, options.opener)),
        }
        let record = read(RECORD_FILE)?.map(|bytes| BuildRecord::read(&bytes, RECORD_FILE));
        let record = record.as_ref().map(Result::as_ref);
        checks.push(statements::check_record(manifest, &sha256, record));
        let record = record.and_then(Result::ok);
        let required = options.policy.is_some_and(|p| p.reproducible);
        checks.push(rules::check_reproducibility(record, required));
        checks.push(statements::check_sbom(manifest, read(SBOM_FILE)?.as_deref()));
        let provenance = read(PROVENANCE_FILE)?;
        checks.push(statements::check_provenance(manifest, &sha256, provenance.as_deref()));
        if let Some(policy) = options.policy {
            checks.extend(rules::check_policy(policy, manifest, record));
        }
    }
    let report = AuditReport { checks };
    match (manifest, sums) {
        (Some(manifest), Some(sums)) if report.ok() => Ok(Verified {
            dir: dir.to_owned(),
            manifest,
            sums,
            report,
        }),
        _ => Err(AuditError::Failed {
            path: dir.to_owned(),
            report,
        }),
    }
}
