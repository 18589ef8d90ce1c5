//! The name of the format.

/// Name of the format in errors.
pub(super) const FORMAT: &str = "an OCI image";
