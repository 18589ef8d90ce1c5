//! One folder per format: what the bytes mean, and a writer.
