//! What pages and pictures for people share: colours, the layout of graphs, the timeline of a build.

mod layers;
mod timeline;

pub use layers::{BoxSize, Layered, layered, reduced};
pub use timeline::{BuildTimes, SpanKind, TimedSpan, timeline};

/// The colours as CSS variables, for light and dark screens; on paper they are light.
pub const PALETTE: &str = include_str!("palette.css");
/// The content security policy of every page: it loads nothing and runs nothing.
pub const PROHIBITION: &str = "default-src 'none'; style-src 'unsafe-inline'";
