//! Building twice under different circumstances, comparing, and finding the cause of each difference.
//!
//! ```text
//! first    store of its own, as every build ─────┐
//!                                                ├─► compare outputs by digest ─► equal
//! second   store elsewhere, all axes varied ─────┘            │
//!                                                             ▼ the first stages that differ
//!                              run alone again: nothing varied · halves of the axes · single axes
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `run.rs` | the order of events, and the verdict |
//! | `build.rs` | one whole build in a store of its own |
//! | `circumstances.rs` | memory for both stores, axes that this host cannot vary, files that variations need |
//! | `compare.rs` | the reference, and the results of stages and artifacts against it |
//! | `bisect.rs` | reruns of one stage that find the axes it depends on |

mod bisect;
mod build;
mod circumstances;
mod compare;
mod run;

pub use run::{ReproRequest, ReproResult, reproducibility};
