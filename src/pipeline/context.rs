//! Everything that a build works with, passed around as one value.

use super::{Events, Origins, Project, RunOptions};
use crate::store::Store;

/// The project, the store, and how stages are run: the circumstances that all parts of a build share.
#[derive(Clone, Copy)]
pub struct BuildContext<'a> {
    /// The project that is built.
    pub project: &'a Project,
    /// The store that inputs are read from and outputs are written to.
    pub store: &'a Store,
    /// Where pinned files are fetched from.
    pub origins: &'a Origins,
    /// How stages are run.
    pub options: &'a RunOptions,
    /// Receives what happens, from any thread.
    pub events: Events<'a>,
}
