//! A reader that hashes and counts the bytes that pass through it.

use crate::model::Sha256Digest;
use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    io::{self, Read},
    rc::Rc,
};

/// A reader that hashes and counts what passes, and may be asked while another reader has it.
#[derive(Clone)]
pub(super) struct Watched<'a> {
    inner: Rc<RefCell<Watching<'a>>>,
}

struct Watching<'a> {
    reader: Box<dyn Read + 'a>,
    hash: Sha256,
    size: u64,
    limit: u64,
    problem: String,
}

impl<'a> Watched<'a> {
    /// Watches `reader`; behind `limit` bytes it fails with `problem`.
    pub(super) fn new(reader: Box<dyn Read + 'a>, limit: u64, problem: String) -> Self {
        let (hash, size) = (Sha256::new(), 0);
        Self {
            inner: Rc::new(RefCell::new(Watching {
                reader,
                hash,
                size,
                limit,
                problem,
            })),
        }
    }

    /// The digest and the number of the bytes so far.
    pub(super) fn seen(&self) -> (Sha256Digest, u64) {
        let inner = self.inner.borrow();
        (Sha256Digest::new(inner.hash.clone().finalize().into()), inner.size)
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner.borrow_mut();
        let n = inner.reader.read(buf)?;
        inner.size += n as u64;
        if inner.size > inner.limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, inner.problem.clone()));
        }
        inner.hash.update(&buf[..n]);
        Ok(n)
    }
}
