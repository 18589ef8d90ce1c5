//! A file that is read into memory: an index of an archive, a manifest of an image.

use super::download::RetryPolicy;
use super::encoding::{content, decodes};
use super::location::Location;
use super::transport::{AnswerRange, Transport, TransportFailure};
use std::io::Read;
use std::time::Duration;

/// The limits of a file that is read into memory.
#[derive(Clone, Copy, Debug)]
pub struct SmallFile {
    /// The most bytes.
    pub limit: u64,
    /// The size, where it is known.
    pub size: Option<u64>,
    /// Retries and waits.
    pub policy: RetryPolicy,
}

/// Reads a file at a place, with as many tries and waits as for a download. `sleep` waits; `told` hears of waits that the server asks for.
///
/// # Errors
///
/// The reason of the last try.
pub fn read_small(
    transport: &dyn Transport,
    place: &Location,
    file: SmallFile,
    sleep: &dyn Fn(Duration),
    told: &dyn Fn(Duration),
) -> Result<Vec<u8>, String> {
    let policy = file.policy;
    let (mut failed, mut busy, mut waited) = (0, 0, Duration::ZERO);
    let backoff = |times: u32| policy.backoff.saturating_mul(1 << times.min(6));
    loop {
        let (why, asked) = match attempt(transport, place, file) {
            Ok(bytes) => return Ok(bytes),
            Err(TransportFailure::Busy { why, wait }) => (why, Some(wait)),
            Err(TransportFailure::Temporary(why)) => (why, None),
            Err(other) => return Err(other.to_string()),
        };
        match asked {
            Some(wait) => {
                if wait > policy.longest_wait {
                    let (asked, longest) = (wait.as_secs(), policy.longest_wait.as_secs());
                    return Err(format!(
                        "{why} and asks to wait {asked} s, and pnb waits at most {longest} s"
                    ));
                }
                let wait = wait.max(backoff(busy)).min(policy.longest_wait.max(policy.backoff));
                busy += 1;
                waited += wait;
                if waited > policy.patience {
                    return Err(why);
                }
                told(wait);
                sleep(wait);
            }
            None => {
                failed += 1;
                if failed >= policy.attempts.max(1) {
                    return Err(format!("{why} (tried {} times)", failed + busy));
                }
                sleep(backoff(failed - 1));
            }
        }
    }
}

fn attempt(transport: &dyn Transport, place: &Location, file: SmallFile) -> Result<Vec<u8>, TransportFailure> {
    let response = transport.open(place, 0, None)?;
    let total = match response.status {
        AnswerRange::Full { total } => total,
        AnswerRange::Partial { .. } => {
            return Err(TransportFailure::Refused(
                "sends a part of the file, which was not asked for".to_owned(),
            ));
        }
    };
    let decoding = decodes(&response, file.size.unwrap_or(u64::MAX), place).map_err(TransportFailure::Refused)?;
    let mut bytes = Vec::new();
    let mut body = content(response.body, decoding).take(file.limit.saturating_add(1));
    if let Err(error) = body.read_to_end(&mut bytes) {
        let after = bytes.len();
        return Err(TransportFailure::Temporary(format!(
            "breaks off after {after} bytes: {error}"
        )));
    }
    let read = bytes.len() as u64;
    if read > file.limit {
        return Err(TransportFailure::Refused(format!(
            "the file has more than {} bytes",
            file.limit
        )));
    }
    // A proxy or server that ends a connection early ends it as any other where no length was told.
    // A whole file of another size is the caller's to judge, who names both.
    match file
        .size
        .or(total.filter(|_| !decoding))
        .filter(|_| total != Some(read))
    {
        Some(size) if read < size => Err(TransportFailure::Temporary(format!(
            "ends after {read} of {size} bytes"
        ))),
        _ => Ok(bytes),
    }
}
