//! The style of every page.

/// The colours as CSS variables, for light and dark screens; on paper they are light.
pub const PALETTE: &str = include_str!("palette.css");
/// The content security policy of every page: it loads nothing and runs nothing.
pub const PROHIBITION: &str = "default-src 'none'; style-src 'unsafe-inline'";
