//! Downloads one file: one place after the other, until a place gives exactly the pinned bytes.

use super::encoding::{content, decodes};
use super::error::FetchError;
use super::location::{Address, Location, LocationKind};
use super::partial::{CHUNK, Downloaded, PartialDownload};
use super::plan::FetchItem;
use super::transport::{AnswerRange, Response, Transport, TransportFailure};
use crate::model::lock;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
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
    /// The longest single wait that a server may ask for.
    pub longest_wait: Duration,
    /// The time that all waits that servers ask for may take for one file at one place.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            backoff: Duration::from_millis(500),
            grace: Duration::from_secs(30),
            min_rate: 2048,
            longest_wait: Duration::from_secs(120),
            patience: Duration::from_secs(300),
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
    /// The server of a place asks for a wait; told once for all downloads that wait.
    fn waiting(&self, _item: &FetchItem, _place: &Location, _wait: Duration) {}
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
    /// The waits that servers ask for.
    pub pauses: Pauses,
}

/// The waits that servers ask for: a server that asks one download to wait is not asked by the others either.
#[derive(Default, Debug)]
pub struct Pauses(Mutex<BTreeMap<String, Instant>>);

impl Pauses {
    /// The server of the address asks for this wait; `false` if the others have been told of one that ends within a second of it.
    fn begin(&self, address: &Address, wait: Duration) -> bool {
        let Some(until) = Instant::now().checked_add(wait) else {
            return true;
        };
        let mut pauses = lock(&self.0);
        let last = pauses.insert(address.server(), until);
        last.is_none_or(|last| until.saturating_duration_since(last) > Duration::from_secs(1))
    }

    /// The time that is left of the wait.
    fn left(&self, address: &Address) -> Duration {
        let until = lock(&self.0).get(&address.server()).copied();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// The end of one answer.
enum AnswerOutcome {
    /// All bytes have arrived; `resumed` when some were there before this answer.
    Whole { resumed: bool },
    /// The same place is tried again.
    Again(String),
    /// The same place is tried again after the wait that its server asks for.
    Busy { why: String, wait: Duration },
    /// The next place is tried.
    Next(PlaceFailure),
}

/// Why a place did not give the file.
enum PlaceFailure {
    /// The place does not have the file.
    Gone,
    /// A reason that may pass.
    Passing(String),
    /// A reason that stays.
    Lasting(String),
    /// It leads to another host.
    Elsewhere { why: String, host: String },
    /// Its certificate does not count.
    Untrusted(String),
}

impl fmt::Display for PlaceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => TransportFailure::NotFound.fmt(f),
            Self::Passing(reason) | Self::Lasting(reason) | Self::Untrusted(reason) => f.write_str(reason),
            Self::Elsewhere { why, .. } => f.write_str(why),
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
/// Bytes of one answer after which a broken connection does not count as a failed try.
const WORTH: u64 = 1 << 20;
/// The longest sleep between two looks at whether the download is to stop.
const SLICE: Duration = Duration::from_secs(1);
const HINT_RETRY: &str = "run `pnb fetch` again, or name a mirror that has the file with --mirror";
const HINT_OTHER: &str = "name a mirror that has the file with --mirror";
const HINT_UNTRUSTED: &str = "give the certificate of the private authority with --ca-file or SSL_CERT_FILE";
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
        let mut barred = false;
        let mut reasons = Vec::new();
        for place in &item.places {
            if self.offline && place.address.is_network() {
                barred = true;
                let _ = write!(failures, "\n  {place}: not tried (--offline)");
                continue;
            }
            match self.try_place(item, place, part, stop)? {
                None => return Ok(()),
                Some(failure) => {
                    let _ = write!(failures, "\n  {place}: {}", failure.to_string().replace('\n', "\n    "));
                    reasons.push((place, failure));
                }
            }
        }
        let hint = match (item.places.is_empty(), barred) {
            (true, _) => HINT_NOWHERE.to_owned(),
            (_, true) => HINT_OFFLINE.to_owned(),
            _ => way_out(&reasons),
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

    /// Sleeps, and looks now and then whether the download is to stop.
    fn wait(&self, item: &FetchItem, mut time: Duration, stop: &dyn Fn() -> bool) -> Result<(), FetchError> {
        while !time.is_zero() {
            if stop() {
                return Err(stopped(item));
            }
            let slice = time.min(SLICE);
            (self.sleep)(slice);
            time -= slice;
        }
        Ok(())
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
        let mut reason;
        let (mut tries, mut failed, mut busy, mut waited) = (0, 0, 0, Duration::ZERO);
        let backoff = |times: u32| self.policy.backoff.saturating_mul(1 << times.min(6));
        let failure = loop {
            self.wait(item, self.pauses.left(&place.address), stop)?;
            let before = part.position();
            tries += 1;
            reason = match self.attempt(item, place, part, &mut validator, stop)? {
                AnswerOutcome::Whole { .. } if part.digest() == item.sha256 => return Ok(None),
                AnswerOutcome::Whole { resumed } => {
                    let actual = part.digest();
                    part.restart()?;
                    let why = mismatch("content", &item.sha256, &actual);
                    // The bytes of an earlier run may be the wrong ones, so the place gets one more try from the first byte.
                    if !resumed || std::mem::replace(&mut restarted, true) {
                        break PlaceFailure::Lasting(why);
                    }
                    why
                }
                AnswerOutcome::Busy { why, wait } if wait > self.policy.longest_wait => {
                    let (asked, longest) = (wait.as_secs(), self.policy.longest_wait.as_secs());
                    break PlaceFailure::Passing(format!(
                        "{why} and asks to wait {asked} s, and pnb waits at most {longest} s"
                    ));
                }
                AnswerOutcome::Busy { why, wait } => {
                    // A server that asks for no wait at all is not asked without a pause.
                    let wait = wait
                        .max(backoff(busy))
                        .min(self.policy.longest_wait.max(self.policy.backoff));
                    busy += 1;
                    if waited + wait > self.policy.patience {
                        break PlaceFailure::Passing(format!(
                            "{why} (tried {tries} times, waited {} s as it asked)",
                            waited.as_secs()
                        ));
                    }
                    waited += wait;
                    self.progress.failed(item, place, &why);
                    if self.pauses.begin(&place.address, wait) {
                        self.progress.waiting(item, place, wait);
                    }
                    continue;
                }
                AnswerOutcome::Again(why) => {
                    if part.position() >= before.saturating_add(WORTH) {
                        failed = 0;
                    }
                    why
                }
                AnswerOutcome::Next(failure) => break failure,
            };
            failed += 1;
            if failed >= self.policy.attempts.max(1) {
                break PlaceFailure::Passing(match tries {
                    1 => reason,
                    n => format!("{reason} (tried {n} times)"),
                });
            }
            self.progress.failed(item, place, &reason);
            self.wait(item, backoff(failed - 1), stop)?;
        };
        self.progress.failed(item, place, &failure.to_string());
        Ok(Some(failure))
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
            Err(TransportFailure::Busy { why, wait }) => return Ok(AnswerOutcome::Busy { why, wait }),
            Err(other) => return Ok(AnswerOutcome::Next(other.into())),
        };
        let decoding = match decodes(&answer, item.size, place) {
            Ok(decoding) => decoding,
            Err(why) => return Ok(AnswerOutcome::Next(PlaceFailure::Lasting(why))),
        };
        let Accepted { from, response } = match accept(answer, asked, item.size, decoding) {
            Ok(accepted) => accepted,
            // A place whose ranges cannot be used is asked for the whole file.
            Err((why, true)) if asked > 0 => {
                part.restart()?;
                *validator = None;
                return Ok(AnswerOutcome::Again(why));
            }
            Err((why, _)) => return Ok(AnswerOutcome::Next(PlaceFailure::Lasting(why))),
        };
        if from < asked {
            part.restart()?;
            self.progress.advanced(item, 0);
        }
        // The range of an encoded answer is one of its encoded bytes, so such a file is not resumed.
        *validator = response.validator.filter(|_| !decoding);
        self.read_body(item, content(response.body, decoding), part, stop)
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
                Ok(AnswerOutcome::Next(PlaceFailure::Lasting(why)))
            }
            _ => Ok(AnswerOutcome::Whole { resumed }),
        }
    }
}

impl From<TransportFailure> for PlaceFailure {
    fn from(failure: TransportFailure) -> Self {
        match failure {
            TransportFailure::NotFound => Self::Gone,
            TransportFailure::Elsewhere { why, host } => Self::Elsewhere { why, host },
            TransportFailure::Untrusted(why) => Self::Untrusted(why),
            TransportFailure::Temporary(why) | TransportFailure::Busy { why, .. } => Self::Passing(why),
            other => Self::Lasting(other.to_string()),
        }
    }
}

/// The way out after these failures, of which there is at least one.
fn way_out(reasons: &[(&Location, PlaceFailure)]) -> String {
    if reasons.iter().all(|(_, failure)| matches!(failure, PlaceFailure::Gone)) {
        return HINT_GONE.to_owned();
    }
    for (place, failure) in reasons {
        match failure {
            PlaceFailure::Elsewhere { host, .. } if place.kind == LocationKind::Origin => {
                return format!(
                    "allow the host with `redirects = [\"{host}\"]` at the file in stages/files.toml, or give there the address to which \
                     the server leads as `url`, and run `pnb lock`"
                );
            }
            PlaceFailure::Elsewhere { .. } if place.kind == LocationKind::Mirror => {
                return "give the address to which the mirror leads with --mirror".to_owned();
            }
            PlaceFailure::Untrusted(_) => return HINT_UNTRUSTED.to_owned(),
            _ => {}
        }
    }
    match reasons
        .iter()
        .any(|(_, failure)| matches!(failure, PlaceFailure::Passing(_)))
    {
        true => HINT_RETRY.to_owned(),
        false => HINT_OTHER.to_owned(),
    }
}

/// Checks that an answer begins at byte 0, or at byte `asked`, and that the file has `size` bytes. An error says whether it is one of the
/// range.
fn accept(response: Response, asked: u64, size: u64, decoding: bool) -> Result<Accepted, (String, bool)> {
    let (from, total) = match response.status {
        AnswerRange::Full { total } => (0, total.filter(|_| !decoding)),
        AnswerRange::Partial { .. } if decoding => {
            return Err(("sends a part of an encoded file".to_owned(), true));
        }
        AnswerRange::Partial { offset, total } if offset == asked && asked > 0 => (offset, total),
        AnswerRange::Partial { offset, .. } => {
            let why = format!("sends bytes from {offset} on when asked for those from {asked} on");
            return Err((why, true));
        }
    };
    match total.filter(|total| *total != size) {
        Some(total) => Err((mismatch("size", &size, &total), false)),
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
