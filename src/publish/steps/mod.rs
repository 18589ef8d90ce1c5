//! The seven steps of a publication, in their order. Each can be repeated: it looks at the servers and writes only what is missing.
//!
//! | step | file | writes |
//! |---|---|---|
//! | look | `look` | nothing; whatever can be refused is refused here |
//! | blobs | `blobs` | layers and images, then manifests, by digest only |
//! | sign | `sign` | the signatures, into the journal and beside the files |
//! | attach | `attach` | what refers to the manifests: signatures first, then attestations and SBOMs |
//! | release | `release` | a draft with all files |
//! | show | `show` | tags, then the release |
//! | tell | `tell` | messages to the platform |
//!
//! `adopt` finds the signatures of a publication whose journal is lost. Nothing has a final name before the step *show*.

mod adopt;
mod attach;
mod blobs;
mod event;
mod look;
mod publisher;
mod release;
mod show;
mod sign;
mod tell;

pub use event::{PublishEvent, PublishState, PublishStep};
pub use publisher::{Publisher, PublisherParts, SigningParts, WebhookTarget};
