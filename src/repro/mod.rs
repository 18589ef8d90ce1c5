//! Whether a claim about a build holds elsewhere: what a manifest claims, and what several builders say of the same artifact.
//!
//! `docs/reproducibility.md` says what is compared and what follows from it.

mod challenge;
mod claim;
mod error;
mod table;

pub use challenge::{Challenge, Divergence, OtherKey, OtherOutput, Row, Seen, StageRow, challenge};
pub use claim::Claim;
pub use error::{ChallengeError, ClaimError};
