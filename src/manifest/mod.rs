//! Statements about a build: the manifest, the SBOM, the provenance, the checksums, and the record of the run.
//!
//! [`Statements::describe`] turns the pipeline's [`Facts`] into the files that lie beside an artifact. All of them except the record
//! are equal on every machine. Nothing here does I/O.

mod canonical;
mod describe;
mod document;
mod error;
mod facts;
mod identity;
mod provenance;
mod record;
mod sbom;
mod statements;
mod sums;

pub use canonical::{MAX_SIZE, from_canonical, read_strict, read_value, to_canonical, write_value};
pub use document::{
    ArchiveFact, Artifact, BaseImageFact, Builder, FileFact, InputContent, License, LockFact, MANIFEST_FILE, Manifest,
    ModuleKeyFact, ModuleTrustFact, OperatingSystem, PackageFact, PlatformFact, PrefixedSha256, RecordedWorkload,
    RootFact, SCHEMA_VERSION, SourceFact, SourcePackage, Stage, StageInput, package_set_digest,
};
pub use error::ManifestError;
pub use facts::{Agent, AgentKind, CodeDigests, Facts, InputFact, Origin, PackageDetails, Role, StageFact};
pub use provenance::{
    BUILD_TYPE, BuildDefinition, BuilderId, DigestSet, ExternalParameters, InternalParameters, PREDICATE_TYPE,
    PROVENANCE_FILE, Provenance, Resource, RunDetails, STATEMENT_TYPE, Statement,
};
pub use record::{BuildRecord, Host, RECORD_FILE, RECORD_VERSION, Reproducibility, RunState, StageRun, Varied};
pub use sbom::{
    Bom, Component, Contact, Dependency, ExternalReference, Hash, LicenseChoice, LicenseEntry, Metadata, Property,
    SBOM_FILE, SbomTools, Supplier, package_url, serial_number,
};
pub use statements::{LISTED_STATEMENTS, Statements, is_statement};
pub use sums::{SIGNATURE_ENDING, SUMS_FILE, Sums};
