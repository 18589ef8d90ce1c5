//! OCI images: what pnb writes is read by other programs, what they write by pnb, and what nobody should write is refused.

#![expect(
    clippy::duplicate_mod,
    reason = "the tools of the sandbox and those beside it have the trees of stages"
)]

#[path = "../fixture/mod.rs"]
#[expect(dead_code, reason = "shared with the tests of audits, which use more of it")]
mod fixture;
#[path = "../fixture/publish_tools.rs"]
mod publish_tools;

mod archives;
mod artifact;
mod documents;
mod inspected;
mod layouts;
mod programs;
mod writing;
