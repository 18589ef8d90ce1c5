//! The product as its users meet it: one real build, audited, booted, changed, broken.
//!
//! The packages come from the store of whoever runs the tests; `pnb fetch` gets what it lacks. `PNB_TEST=all` adds what takes
//! longer: a second build elsewhere as another user, and boots of artifacts that were tampered with.

mod arm64;
mod audit;
mod boot;
mod change;
mod formats;
mod kernel;
mod media;
mod project;
mod repeat;
mod repro;
mod together;
#[path = "../fixture/tools.rs"]
mod tools;
