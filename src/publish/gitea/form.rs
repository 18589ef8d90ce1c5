//! An upload as a form of one file, `multipart/form-data`, whose size is known before it is sent.
//!
//! ```text
//! --<boundary>\r\n
//! Content-Disposition: form-data; name="attachment"; filename="<name>"\r\n
//! Content-Type: application/octet-stream\r\n
//! \r\n
//! <bytes>\r\n
//! --<boundary>--\r\n
//! ```
//!
//! Source: RFC 7578. The boundary must not occur in the bytes. It is derived from their SHA-256, so bytes that have it cannot be made.

use crate::model::Sha256Digest;
use std::io::{Cursor, Read};

/// The parts of a form around the bytes.
pub(super) struct UploadForm {
    head: Vec<u8>,
    tail: Vec<u8>,
    boundary: String,
}

impl UploadForm {
    /// The form of a file. Its name has only characters that need no quoting, which the plan checks.
    pub(super) fn new(name: &str, sha256: &Sha256Digest) -> Self {
        let boundary = format!("pnb-{}", &sha256.to_hex()[..40]);
        let field = format!("Content-Disposition: form-data; name=\"attachment\"; filename=\"{name}\"");
        Self {
            head: format!("--{boundary}\r\n{field}\r\nContent-Type: application/octet-stream\r\n\r\n").into_bytes(),
            tail: format!("\r\n--{boundary}--\r\n").into_bytes(),
            boundary,
        }
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// The length of the form of a file with `size` bytes.
    pub(super) fn size(&self, size: u64) -> u64 {
        size + (self.head.len() + self.tail.len()) as u64
    }

    /// The form as a stream.
    pub(super) fn around(&self, content: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        let (head, tail) = (Cursor::new(self.head.clone()), Cursor::new(self.tail.clone()));
        Box::new(head.chain(content).chain(tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_that_of_the_stream() {
        let form = UploadForm::new("raw-amd64-SHA256SUMS", &Sha256Digest::new([0xab; 32]));
        let mut text = String::new();
        form.around(Box::new(Cursor::new(b"12345")))
            .read_to_string(&mut text)
            .expect("read");
        assert_eq!(form.size(5), text.len() as u64);
        let boundary = form.content_type().split_once("boundary=").expect("there").1.to_owned();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[0], format!("--{boundary}"));
        assert_eq!(lines[4..], ["12345", &format!("--{boundary}--"), ""]);
    }
}
