//! What pages and pictures for people share: colours, the layout of graphs, the timeline of a build.

mod layers;
mod style;
mod timeline;

pub use layers::{BoxSize, Layered, layered, reduced};
pub use style::{PALETTE, PROHIBITION};
pub use timeline::{BuildTimes, SpanKind, TimedSpan, timeline};
