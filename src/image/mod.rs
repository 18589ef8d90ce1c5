//! One folder per format: what the bytes mean, and a writer.

mod error;
pub mod ext4;

pub use error::ImageError;
