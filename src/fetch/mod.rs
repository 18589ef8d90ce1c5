//! Getting pinned files: where to look, and bytes that are hashed while they arrive.
//!
//! [`plan`](plan::plan_package) says which places may have a file, in order; a [`Downloader`] tries them until one gives
//! exactly the pinned bytes; [`fetch_all`] does that for many files at once. Nothing here prints, and nothing here knows the
//! store: the caller is handed an open, checked, flushed file and puts it where it belongs.

mod download;
mod error;
mod http;
mod location;
mod mirrors;
mod parallel;
mod partial;
mod plan;
mod transport;

pub use download::{Downloader, Fetched, Progress, RetryPolicy, Silent};
pub use error::FetchError;
pub use http::{HttpOptions, HttpTransport};
pub use location::{Address, Base, Location, LocationKind};
pub use mirrors::{load_apt_mirrors, parse_one_line, parse_stanzas};
pub use parallel::{DEFAULT_WORKERS, fetch_all};
pub use partial::Downloaded;
pub use plan::{FetchItem, Sources, plan_file, plan_package, plan_packages, vendor_file_path, vendor_package_path};
pub use transport::{AnswerRange, FileTransport, Response, Transport, TransportFailure, Transports};
