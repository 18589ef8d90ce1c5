//! OCI images: what pnb writes is read by other programs, what they write by pnb, and what nobody should write is refused.

#[path = "../fixture/mod.rs"]
#[expect(dead_code, reason = "shared with the tests of audits, which use more of it")]
mod fixture;
#[path = "../fixture/own_loader.rs"]
mod own_loader;

mod archives;
mod artifact;
mod documents;
mod inspected;
mod layouts;
mod programs;
mod writing;
