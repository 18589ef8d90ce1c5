//! Builds twice under different circumstances, compares the results, and finds the cause of each difference.
//!
//! ```text
//! first    store of its own, nothing varied ─────┐
//!                                                ├─► compare outputs by digest ─► equal
//! second   store elsewhere, all axes varied ─────┘            │
//!                                                             ▼ the first stages that differ
//!                              run alone again: nothing varied · halves of the axes · single axes
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `run.rs` | the sequence of builds and comparisons, and the verdict |
//! | `build.rs` | a whole build in a store of its own |
//! | `circumstances.rs` | memory for both stores, axes that this host cannot vary, files for variations |
//! | `compare.rs` | the reference, and the results of stages and artifacts against it |
//! | `bisect.rs` | reruns of one stage that find the axes it depends on |

mod bisect;
mod build;
mod circumstances;
mod compare;
mod run;

pub use run::{ReproRequest, ReproResult, SecondPlace, reproducibility};
