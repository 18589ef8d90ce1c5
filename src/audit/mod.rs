//! The check of an artifact's files against the statements beside them.
//!
//! [`audit`] computes every digest again from the bytes and compares the statements with each other. It trusts only its own code:
//! when every check of a directory holds, only the signature over `SHA256SUMS` is left to trust. `docs/audit.md` lists the checks
//! and the exit codes.

mod artifact;
mod bootc;
mod check;
mod error;
mod files;
mod installed;
mod layers;
mod layout;
mod opener;
mod policy;
mod root;
mod rules;
mod set;
mod statements;

pub use artifact::{AuditOptions, Verified, audit};
pub use check::{AuditReport, Check, Class};
pub use error::{AuditError, PolicyError};
pub use layers::gaps;
pub use opener::ArtifactRoot;
pub use policy::{AllowedArchive, POLICY_VERSION, Policy, RequiredVariant};
pub use root::{OpenError, OpenRoot, OpenedRoot};
pub use set::{SetReport, audit_set, find_artifacts};
