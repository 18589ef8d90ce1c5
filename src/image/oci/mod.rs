//! OCI images: layers, and the directory in which an image lies on disk (image layout).
//!
//! ```text
//! oci-layout               {"imageLayoutVersion":"1.0.0"}
//! index.json               an image index: what is in the directory, each with a name
//! blobs/sha256/<hex>       an image index, manifests, configurations, layers; each named by the SHA-256 of its bytes
//!
//! index ─► manifest ─► configuration (architecture, command, SHA-256 of each uncompressed layer)
//!                  └─► layers, lowest first: tar archives, compressed
//! ```
//!
//! A layer adds to the layers below it or replaces their files; a file `.wh.NAME` in it removes `NAME`, and `.wh..wh..opq` everything
//! that lower layers have in its directory. All documents are JSON without spaces, with sorted keys.
//! Source: <https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md> (`image-layout.md`, `layer.md`, `manifest.md`, `config.md`).
//! The types are those of the crate `oci-spec`.

mod apply;
mod document;
mod format;
mod image;
mod kargs;
mod kernel;
mod layer;
mod layout;
mod pax;
mod watched;

pub use apply::{AppliedLayers, LayerLimits, PutLayerContent, apply_layers};
pub use document::{
    IMAGE_NAME, ImageFacts, LABEL_BOOTC, LABEL_KERNEL, LABEL_ROOT, OciDocument, describe, image_documents,
    layer_documents, layout_index, multi_index,
};
pub use image::{ImageLayer, OciImage};
pub use kargs::kernel_arguments;
pub use kernel::{IMAGE_INITRAMFS, IMAGE_KERNEL, ImageKernel, kernel_path, take_kernel};
pub use layer::{LayerCompression, LayerEntries, WrittenLayer, write_layer};
pub use layout::{
    BASE_PACKAGES, BLOBS, LAYOUT_DIRECTORY, LAYOUT_FILE, LayoutReader, OCI_INDEX, blob_path, layout_file,
};

use format::FORMAT;
