//! Downloads of pinned files, hashed while they arrive.
//!
//! [`plan_package`] lists the places that may have a file, in order; a [`Downloader`] tries them until one gives exactly the pinned
//! bytes; [`fetch_all`] does that for many files at once. This room neither prints nor stores: the caller receives an open, checked,
//! flushed file and stores it.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | the places of each pinned file |
//! | `location`, `mirrors` | addresses; the mirrors of apt's configuration |
//! | `download`, `partial`, `parallel` | one download; its file on disk; many downloads at once |
//! | `encoding` | answers with a `Content-Encoding` |
//! | `small` | a file that is read into memory |
//! | `transport`, `transports`, `http` | the trait; files and the choice by address; HTTP and HTTPS |
//! | `error` | [`FetchError`] |

mod download;
mod encoding;
mod error;
mod http;
mod location;
mod mirrors;
mod parallel;
mod partial;
mod plan;
mod small;
mod transport;
mod transports;

pub use download::{Downloader, Fetched, Pauses, Progress, RetryPolicy, Silent};
pub use error::FetchError;
pub use http::{HttpOptions, HttpTransport};
pub use location::{Address, Base, Location, LocationKind};
pub use mirrors::{load_apt_mirrors, parse_one_line, parse_stanzas};
pub use parallel::{DEFAULT_WORKERS, fetch_all};
pub use partial::Downloaded;
pub use plan::{
    FetchItem, Sources, blob_place, plan_blob, plan_file, plan_package, plan_packages, vendor_blob_path,
    vendor_file_path, vendor_package_path,
};
pub use small::{SmallFile, read_small};
pub use transport::{AnswerRange, Response, Transport, TransportFailure};
pub use transports::{FileTransport, Transports};
