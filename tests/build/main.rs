//! The product as its users meet it: one real build, audited, booted, changed, broken.
//!
//! The packages come from the store of whoever runs the tests; `pnb fetch` gets what it lacks. `PNB_TEST=all` adds what takes
//! longer: a second build elsewhere as another user, and boots of artifacts that were tampered with.

mod arm64;
mod audit;
mod boot;
mod change;
#[path = "../fixture/disks.rs"]
mod disks;
mod formats;
mod media;
mod project;
mod repeat;
mod together;
#[path = "../fixture/tools.rs"]
mod tools;
