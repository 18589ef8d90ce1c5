//! Downloads one file: one place after the other, until a place gives exactly the pinned bytes.

use super::error::FetchError;
use super::location::Location;
use super::partial::{CHUNK, Downloaded, PartialDownload};
use super::plan::FetchItem;
use super::transport::{AnswerRange, Response, Transport, TransportFailure};
use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

/// Retries and time limits of a download.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries at one place, including the first.
    pub attempts: u32,
    /// Wait before the second try; doubled before each further try.
    pub backoff: Duration,
    /// Time in which an answer may be slower than `min_rate`.
    pub grace: Duration,
    /// Bytes per second an answer must reach on average once `grace` is over.
    pub min_rate: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            backoff: Duration::from_millis(500),
            grace: Duration::from_secs(30),
            min_rate: 2048,
        }
    }
}

/// Receives the progress of downloads; called from several threads.
pub trait Progress: Sync {
    /// A download begins; `position` bytes are left from an earlier run.
    fn started(&self, item: &FetchItem, position: u64);
    /// The first `position` bytes of the file have arrived; the number decreases when bytes are dropped.
    fn advanced(&self, item: &FetchItem, position: u64);
    /// A try at a place failed for the reason `why`.
    fn failed(&self, item: &FetchItem, place: &Location, why: &str);
    /// The download has ended; `whole` when it has succeeded.
    fn finished(&self, item: &FetchItem, whole: bool);
}

/// Ignores all progress.
#[derive(Clone, Copy, Default, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _: &FetchItem, _: u64) {}
    fn advanced(&self, _: &FetchItem, _: u64) {}
    fn failed(&self, _: &FetchItem, _: &Location, _: &str) {}
    fn finished(&self, _: &FetchItem, _: bool) {}
}

/// The result of a download.
#[derive(Debug)]
pub enum Fetched {
    /// The file was downloaded.
    Downloaded(Downloaded),
    /// Another builder stored the file meanwhile.
    Present,
}

/// Downloads items one at a time; shared by all workers.
pub struct Downloader<'a> {
    /// Opens places.
    pub transport: &'a dyn Transport,
    /// Existing directory for unfinished files, on the file system of the store.
    pub directory: &'a Path,
    /// Whether only places without a network may be used.
    pub offline: bool,
    /// Retries and time limits.
    pub policy: RetryPolicy,
    /// Waits between tries.
    pub sleep: &'a (dyn Fn(Duration) + Sync),
    /// Receives the progress.
    pub progress: &'a dyn Progress,
}

/// The end of one answer.
enum AnswerOutcome {
    /// All bytes have arrived; `resumed` when some were there before this answer.
    Whole { resumed: bool },
    /// The same place is tried again.
    Again(String),
    /// The next place is tried.
    Next(PlaceFailure),
}

/// Why a place did not give the file.
enum PlaceFailure {
    /// The place does not have the file.
    Gone,
    /// Any other reason.
    Other(String),
}

impl fmt::Display for PlaceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => TransportFailure::NotFound.fmt(f),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// The answer of a place whose range fits the request.
struct Accepted {
    /// First byte of the answer.
    from: u64,
    response: Response,
}

const HINT_GONE: &str = "the archive has dropped this version; run `pnb lock --update`";
const HINT_OFFLINE: &str =
    "no place on this machine has it, and --offline forbids the network; run `pnb fetch` where there is a network";
const HINT_RETRY: &str = "run `pnb fetch` again, or name a mirror that has the file with --mirror";
const HINT_NOWHERE: &str = "give the file an address in the lock, or name a mirror that has it with --mirror";

impl Downloader<'_> {
    /// Downloads one item. `have` says whether the store has it by now (called while the item's lock is held). `stop` is called often;
    /// when it returns true, the download ends with [`FetchError::Stopped`] and keeps the bytes that have arrived.
    pub fn get(
        &self,
        item: &FetchItem,
        have: &dyn Fn() -> bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Fetched, FetchError> {
        let mut part = PartialDownload::open(self.directory, item, stop)?;
        if have() {
            part.discard()?;
            return Ok(Fetched::Present);
        }
        self.progress.started(item, part.position());
        let result = self.try_places(item, &mut part, stop);
        self.progress.finished(item, result.is_ok());
        match result {
            Ok(()) => Ok(Fetched::Downloaded(part.finish()?)),
            Err(error) => {
                // An empty file that cannot be removed matters less than the error of the download.
                let _ = part.give_up();
                Err(error)
            }
        }
    }

    fn try_places(
        &self,
        item: &FetchItem,
        part: &mut PartialDownload,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), FetchError> {
        if part.position() == item.size {
            if part.digest() == item.sha256 {
                return Ok(());
            }
            part.restart()?;
        }
        let mut failures = String::new();
        let (mut all_gone, mut barred) = (true, false);
        for place in &item.places {
            if self.offline && place.address.is_network() {
                barred = true;
                let _ = write!(failures, "\n  {place}: not tried (--offline)");
                continue;
            }
            match self.try_place(item, place, part, stop)? {
                None => return Ok(()),
                Some(failure) => {
                    all_gone &= matches!(failure, PlaceFailure::Gone);
                    let _ = write!(failures, "\n  {place}: {}", failure.to_string().replace('\n', "\n    "));
                }
            }
        }
        let hint = match (item.places.is_empty(), barred, all_gone) {
            (true, ..) => HINT_NOWHERE,
            (_, true, _) => HINT_OFFLINE,
            (_, _, true) => HINT_GONE,
            _ => HINT_RETRY,
        };
        let problem = match item.places.len() {
            0 => "the lock names no place for it, and no mirror is configured".to_owned(),
            _ => format!("no place has it{failures}"),
        };
        Err(FetchError::NoPlace {
            what: item.what.clone(),
            problem,
            hint,
        })
    }

    /// Tries one place as often as the policy allows. `None` when the file is complete, otherwise the reason of the last failure.
    fn try_place(
        &self,
        item: &FetchItem,
        place: &Location,
        part: &mut PartialDownload,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<PlaceFailure>, FetchError> {
        let mut validator = None;
        let mut restarted = false;
        let mut reason = String::new();
        for attempt in 0..self.policy.attempts.max(1) {
            if attempt > 0 {
                self.progress.failed(item, place, &reason);
                (self.sleep)(self.policy.backoff.saturating_mul(1 << (attempt - 1).min(6)));
            }
            let failure = match self.attempt(item, place, part, &mut validator, stop)? {
                AnswerOutcome::Whole { .. } if part.digest() == item.sha256 => return Ok(None),
                AnswerOutcome::Whole { resumed } => {
                    let actual = part.digest();
                    part.restart()?;
                    let why = mismatch("content", &item.sha256, &actual);
                    // The bytes of an earlier run may be the wrong ones, so the place gets one more try from the first byte.
                    if resumed && !std::mem::replace(&mut restarted, true) {
                        reason = why;
                        continue;
                    }
                    PlaceFailure::Other(why)
                }
                AnswerOutcome::Again(why) => {
                    reason = why;
                    continue;
                }
                AnswerOutcome::Next(failure) => failure,
            };
            self.progress.failed(item, place, &failure.to_string());
            return Ok(Some(failure));
        }
        self.progress.failed(item, place, &reason);
        Ok(Some(PlaceFailure::Other(match self.policy.attempts {
            0 | 1 => reason,
            n => format!("{reason} (tried {n} times)"),
        })))
    }

    /// One request and its answer. `part` never has more than `item.size` bytes afterwards.
    fn attempt(
        &self,
        item: &FetchItem,
        place: &Location,
        part: &mut PartialDownload,
        validator: &mut Option<String>,
        stop: &dyn Fn() -> bool,
    ) -> Result<AnswerOutcome, FetchError> {
        if stop() {
            return Err(stopped(item));
        }
        let asked = part.position();
        let answer = match self.transport.open(place, asked, validator.as_deref()) {
            Ok(response) => response,
            Err(TransportFailure::Unsatisfiable) if asked > 0 => {
                part.restart()?;
                *validator = None;
                return Ok(AnswerOutcome::Again(TransportFailure::Unsatisfiable.to_string()));
            }
            Err(TransportFailure::Temporary(why)) => return Ok(AnswerOutcome::Again(why)),
            Err(TransportFailure::NotFound) => return Ok(AnswerOutcome::Next(PlaceFailure::Gone)),
            Err(other) => return Ok(AnswerOutcome::Next(PlaceFailure::Other(other.to_string()))),
        };
        let Accepted { from, response } = match accept(answer, asked, item.size) {
            Ok(accepted) => accepted,
            Err(why) => return Ok(AnswerOutcome::Next(PlaceFailure::Other(why))),
        };
        if from < asked {
            part.restart()?;
            self.progress.advanced(item, 0);
        }
        *validator = response.validator;
        self.read_body(item, response.body, part, stop)
    }

    /// Appends the body of an answer to `part`.
    fn read_body(
        &self,
        item: &FetchItem,
        mut body: Box<dyn Read + Send>,
        part: &mut PartialDownload,
        stop: &dyn Fn() -> bool,
    ) -> Result<AnswerOutcome, FetchError> {
        let resumed = part.position() > 0;
        let mut buffer = vec![0; CHUNK];
        let began = Instant::now();
        let mut arrived = 0u64;
        while part.position() < item.size {
            if stop() {
                return Err(stopped(item));
            }
            let left = usize::try_from(item.size - part.position()).unwrap_or(usize::MAX);
            let room = buffer.len().min(left);
            match body.read(&mut buffer[..room]) {
                Ok(0) => {
                    let why = format!("ends after {} of {} bytes", part.position(), item.size);
                    return Ok(AnswerOutcome::Again(why));
                }
                Ok(n) => {
                    part.append(&buffer[..n])?;
                    arrived += n as u64;
                    self.progress.advanced(item, part.position());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let why = format!("breaks off after {} of {} bytes: {e}", part.position(), item.size);
                    return Ok(AnswerOutcome::Again(why));
                }
            }
            let elapsed = began.elapsed();
            if elapsed > self.policy.grace && arrived < self.policy.min_rate.saturating_mul(elapsed.as_secs()) {
                let why = format!("sends less than {} bytes per second", self.policy.min_rate);
                return Ok(AnswerOutcome::Again(why));
            }
        }
        // An error of this read does not matter: every pinned byte has arrived, and the digest decides.
        match body.read(&mut buffer[..1]) {
            Ok(1) => {
                part.restart()?;
                let why = mismatch("size", &item.size, &"more");
                Ok(AnswerOutcome::Next(PlaceFailure::Other(why)))
            }
            _ => Ok(AnswerOutcome::Whole { resumed }),
        }
    }
}

/// Checks that an answer begins at byte 0, or at byte `asked`, and that the file has `size` bytes.
fn accept(response: Response, asked: u64, size: u64) -> Result<Accepted, String> {
    let (from, total) = match response.status {
        AnswerRange::Full { total } => (0, total),
        AnswerRange::Partial { offset, total } if offset == asked && asked > 0 => (offset, total),
        AnswerRange::Partial { offset, .. } => {
            return Err(format!(
                "sends bytes from {offset} on when asked for those from {asked} on"
            ));
        }
    };
    match total.filter(|total| *total != size) {
        Some(total) => Err(mismatch("size", &size, &total)),
        None => Ok(Accepted { from, response }),
    }
}

fn stopped(item: &FetchItem) -> FetchError {
    FetchError::Stopped {
        what: item.what.clone(),
    }
}

fn mismatch(subject: &str, expected: &dyn fmt::Display, actual: &dyn fmt::Display) -> String {
    format!("wrong {subject}\n  expected: {expected}\n    actual: {actual}")
}
