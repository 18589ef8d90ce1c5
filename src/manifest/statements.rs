//! The statements about one artifact, as the files that lie beside it.

use super::{
    Bom, Facts, MANIFEST_FILE, Manifest, ManifestError, PROVENANCE_FILE, RECORD_FILE, SBOM_FILE, SUMS_FILE, Statement,
    Sums,
};
use crate::model::{RelPath, Sha256Digest};
use sha2::{Digest as _, Sha256};

/// Names of the statements that lie beside an artifact's files and are listed in [`SUMS_FILE`].
pub const LISTED_STATEMENTS: [&str; 3] = [MANIFEST_FILE, PROVENANCE_FILE, SBOM_FILE];

/// Whether `path` is the name of a statement; no file of an artifact may have such a name.
pub fn is_statement(path: &RelPath) -> bool {
    let names = LISTED_STATEMENTS.into_iter().chain([SUMS_FILE, RECORD_FILE]);
    names.into_iter().any(|name| path.as_bytes() == name.as_bytes())
}

/// The statements that are equal on every machine, as values and as the bytes of their files.
#[derive(Clone, Debug)]
pub struct Statements {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's file; the build record names the manifest by it.
    pub manifest_sha256: Sha256Digest,
    /// Name and content of each file: the listed statements, then [`SUMS_FILE`], to be written in this order.
    pub files: Vec<(&'static str, String)>,
}

impl Statements {
    /// The statements about the artifact that `facts` describe.
    pub fn describe(facts: &Facts<'_>) -> Result<Self, ManifestError> {
        Self::of(Manifest::describe(facts)?)
    }

    /// The statements that follow from `manifest`.
    pub fn of(manifest: Manifest) -> Result<Self, ManifestError> {
        let digest = |text: &str| Sha256Digest::new(Sha256::digest(text.as_bytes()).into());
        let json = manifest.to_json()?;
        let manifest_sha256 = digest(&json);
        let sbom = Bom::describe(&manifest)?.to_json()?;
        let provenance = Statement::describe(&manifest, &manifest_sha256).to_json()?;
        let mut sums = Sums::new();
        for (path, artifact) in &manifest.artifacts {
            sums.insert(path.clone(), artifact.sha256)?;
        }
        let mut files = vec![(MANIFEST_FILE, json), (PROVENANCE_FILE, provenance), (SBOM_FILE, sbom)];
        for (name, text) in &files {
            let path = RelPath::new(name).map_err(|e| ManifestError::Facts {
                what: format!("the file {name:?}"),
                problem: e.to_string(),
            })?;
            sums.insert(path, digest(text))?;
        }
        files.push((SUMS_FILE, sums.to_text()));
        Ok(Self {
            manifest,
            manifest_sha256,
            files,
        })
    }
}
