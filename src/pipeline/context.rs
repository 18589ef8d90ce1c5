//! The circumstances that all parts of a build share, as one value.

use super::{Elsewhere, Events, Origins, Project, RunOptions, SharedResults};
use crate::store::Store;

/// The project, the store, the sources of pinned files and the options of a build.
#[derive(Clone, Copy)]
pub struct BuildContext<'a> {
    /// The project that is built.
    pub project: &'a Project,
    /// The store that inputs are read from and outputs are written to.
    pub store: &'a Store,
    /// The sources of pinned files.
    pub origins: &'a Origins,
    /// The options for running stages.
    pub options: &'a RunOptions,
    /// The cache that is asked for results, and gets those of stages that run here.
    pub shared: Option<&'a SharedResults>,
    /// The engine whose workers run stages; only together with a cache, which is that of the engine.
    pub elsewhere: Option<&'a Elsewhere>,
    /// Receives the events of the build, from any thread.
    pub events: Events<'a>,
}
