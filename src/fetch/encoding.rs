//! Answers with a `Content-Encoding`.
//!
//! A server may name one for a file that is stored compressed, whose bytes are the pinned ones (Apache does for `Packages.gz`), or for a
//! file that it compressed on the way although nobody asked. The two are told apart by the length and the name.
//!
//! Source: RFC 9110, §8.4.

use super::location::{Address, Location};
use super::transport::{AnswerRange, Response};
use std::io::Read;

/// Whether the content is decoded before it is compared with the pinned file of `size` bytes. An error for a coding that was not asked for
/// and is not known.
pub(super) fn decodes(response: &Response, size: u64, place: &Location) -> Result<bool, String> {
    let Some(encoding) = &response.encoding else {
        return Ok(false);
    };
    let total = match response.status {
        AnswerRange::Full { total } | AnswerRange::Partial { total, .. } => total,
    };
    if total == Some(size) {
        return Ok(false);
    }
    let gzip = encoding == "gzip" || encoding == "x-gzip";
    if gzip && is_gzip_name(place) {
        return Ok(false);
    }
    match gzip {
        true => Ok(true),
        false => Err(format!(
            "sends the file with the Content-Encoding {:?}, which was not asked for",
            crate::model::excerpt(encoding)
        )),
    }
}

/// Whether the name says that the file itself is compressed with gzip.
fn is_gzip_name(place: &Location) -> bool {
    let Address::Http(url) = &place.address else {
        return false;
    };
    let path = url.split('?').next().unwrap_or_default();
    path.ends_with(".gz") || path.ends_with(".tgz")
}

/// The content of an answer. The reader stops at the pinned size, so that a small answer cannot become a large file.
pub(super) fn content(body: Box<dyn Read + Send>, decoding: bool) -> Box<dyn Read + Send> {
    match decoding {
        true => Box::new(flate2::read::GzDecoder::new(body)),
        false => body,
    }
}
