//! Statements about a build: the manifest, the SBOM, the provenance, the checksums, and the record of the run.
//!
//! [`Statements::describe`] turns the pipeline's [`Facts`] into the files that lie beside an artifact. All but the record are
//! equal on every machine. Nothing here does I/O.

mod canonical;
mod describe;
mod document;
mod error;
mod facts;
mod provenance;
mod record;
mod sbom;
mod sums;

pub use canonical::{MAX_SIZE, from_canonical, read_strict, read_value, to_canonical, write_value};
pub(crate) use describe::is_git_sha;
pub use document::{
    ArchiveFact, Artifact, Builder, FileFact, InputContent, LockFact, MANIFEST_FILE, Manifest, PackageFact,
    PlatformFact, PrefixedSha256, RecordedWorkload, RootFact, SCHEMA_VERSION, SourceFact, Stage, StageInput,
    package_set_digest,
};
pub use error::ManifestError;
pub use facts::{Agent, AgentKind, CodeDigests, Facts, InputFact, Origin, Role, StageFact};
pub use provenance::{
    BUILD_TYPE, BuildDefinition, BuilderId, DigestSet, ExternalParameters, InternalParameters, PREDICATE_TYPE,
    PROVENANCE_FILE, Provenance, Resource, RunDetails, STATEMENT_TYPE, Statement,
};
pub use record::{BuildRecord, Host, RECORD_FILE, RECORD_VERSION, Reproducibility, RunState, StageRun, Varied};
pub use sbom::{Bom, Component, ExternalReference, Hash, Metadata, SBOM_FILE, SbomTools, package_url};
pub use sums::{SUMS_FILE, Sums};

use crate::model::{RelPath, Sha256Digest};
use sha2::{Digest as _, Sha256};

/// Names of the statements that lie beside an artifact's files and are listed in [`SUMS_FILE`].
pub const LISTED_STATEMENTS: [&str; 3] = [MANIFEST_FILE, PROVENANCE_FILE, SBOM_FILE];

/// Whether `path` is the name of a statement, which no file of an artifact may have.
pub fn is_statement(path: &RelPath) -> bool {
    let names = LISTED_STATEMENTS.into_iter().chain([SUMS_FILE, RECORD_FILE]);
    names.into_iter().any(|name| path.as_bytes() == name.as_bytes())
}

/// The statements that are equal on every machine, as values and as the bytes of their files.
#[derive(Clone, Debug)]
pub struct Statements {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of its file: what the build record refers to.
    pub manifest_sha256: Sha256Digest,
    /// Name and content of each file: the listed statements, then [`SUMS_FILE`], to be written in this order.
    pub files: Vec<(&'static str, String)>,
}

impl Statements {
    /// Everything that is said about what `facts` describe.
    pub fn describe(facts: &Facts<'_>) -> Result<Self, ManifestError> {
        Self::of(Manifest::describe(facts)?)
    }

    /// Everything that follows from `manifest`.
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
