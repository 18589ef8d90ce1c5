//! pnb: a hermetic, reproducible builder of Powernode boot artifacts.
//!
//! Data walks one way through the rooms, and each hands the next a value whose type says how far it has come. The modules
//! stand in that order; a room uses only rooms above it and [`model`], which `tests/tidy.rs` checks.

pub mod model;

pub mod verity;

pub mod debian;

pub mod lock;

pub mod fetch;

pub mod store;

pub mod graph;

pub mod sandbox;

pub mod image;

pub mod inspect;

pub mod writers;

pub mod manifest;

pub mod audit;

pub mod repro;

pub mod serve;

pub mod boot;

pub mod pipeline;
