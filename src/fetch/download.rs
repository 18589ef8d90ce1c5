//! One file: place after place until one gives exactly the pinned bytes.

use super::error::FetchError;
use super::location::Location;
use super::partial::{CHUNK, Downloaded, PartialDownload};
use super::plan::FetchItem;
use super::transport::{AnswerRange, Transport, TransportFailure};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

/// How patient a download is.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries at one place, the first included.
    pub attempts: u32,
    /// Wait before the second try; doubled before each further one.
    pub backoff: Duration,
    /// How long an answer may be slower than `min_rate`.
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

/// Is told how downloads go; called from several threads.
pub trait Progress: Sync {
    /// A download begins; `position` bytes are there from an earlier run.
    fn started(&self, item: &FetchItem, position: u64);
    /// The file is now checked in up to `position`; it goes back when bytes had to be dropped.
    fn advanced(&self, item: &FetchItem, position: u64);
    /// A try at a place failed for the reason `why`.
    fn failed(&self, item: &FetchItem, place: &Location, why: &str);
    /// The download is over.
    fn finished(&self, item: &FetchItem, whole: bool);
}

/// Progress nobody looks at.
#[derive(Clone, Copy, Default, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _: &FetchItem, _: u64) {}
    fn advanced(&self, _: &FetchItem, _: u64) {}
    fn failed(&self, _: &FetchItem, _: &Location, _: &str) {}
    fn finished(&self, _: &FetchItem, _: bool) {}
}

/// What became of an item.
#[derive(Debug)]
pub enum Fetched {
    /// Here it is.
    Downloaded(Downloaded),
    /// Another builder put it into the store meanwhile.
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
    /// How patient to be.
    pub policy: RetryPolicy,
    /// Waits between tries.
    pub sleep: &'a (dyn Fn(Duration) + Sync),
    /// Is told how it goes.
    pub progress: &'a dyn Progress,
}

/// How one answer ended.
enum AnswerOutcome {
    /// All bytes are there; `resumed` when some were there before this answer.
    Whole { resumed: bool },
    /// Try this place again.
    Again(String),
    /// Go to the next place.
    Next(String),
}

const HINT_GONE: &str = "the archive has dropped this version; run `pnb lock --update`";
const HINT_OFFLINE: &str = "it is not here and --offline forbids the network; run `pnb fetch` where there is one";
const HINT_RETRY: &str = "run `pnb fetch` again, or name a mirror that has the file with --mirror";
const HINT_NOWHERE: &str = "give the file an address in the lock, or name a mirror that has it with --mirror";

impl Downloader<'_> {
    /// Gets one item. `have` says whether the store has it by now (asked once the item's lock is held); `stop` is asked often
    /// and ends the download with [`FetchError::Stopped`], keeping what arrived.
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
                // The failure itself says more than an empty file that cannot be removed.
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
        let mut looked = String::new();
        let (mut all_gone, mut barred) = (true, false);
        for place in &item.places {
            if self.offline && place.address.is_network() {
                barred = true;
                let _ = write!(looked, "\n  {place}: not tried (--offline)");
                continue;
            }
            match self.try_place(item, place, part, stop)? {
                None => return Ok(()),
                Some(why) => {
                    all_gone &= why == TransportFailure::NotFound.to_string();
                    let _ = write!(looked, "\n  {place}: {}", why.replace('\n', "\n    "));
                }
            }
        }
        let hint = match (item.places.is_empty(), barred, all_gone) {
            (true, ..) => HINT_NOWHERE,
            (_, true, _) => HINT_OFFLINE,
            (_, _, true) => HINT_GONE,
            _ => HINT_RETRY,
        };
        let verdict = match item.places.len() {
            0 => "there is no place to look".to_owned(),
            _ => format!("no place has it{looked}"),
        };
        Err(FetchError::NoPlace {
            what: item.what.clone(),
            looked: verdict,
            hint,
        })
    }

    /// Tries one place as often as the policy allows. `None` when the file is whole, else why not.
    fn try_place(
        &self,
        item: &FetchItem,
        place: &Location,
        part: &mut PartialDownload,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<String>, FetchError> {
        let mut validator = None;
        let mut restarted = false;
        let mut reason = String::new();
        for attempt in 0..self.policy.attempts.max(1) {
            if attempt > 0 {
                self.progress.failed(item, place, &reason);
                (self.sleep)(self.policy.backoff.saturating_mul(1 << (attempt - 1).min(6)));
            }
            reason = match self.attempt(item, place, part, &mut validator, stop)? {
                AnswerOutcome::Whole { .. } if part.digest() == item.sha256 => return Ok(None),
                AnswerOutcome::Whole { resumed } => {
                    let actual = part.digest();
                    part.restart()?;
                    let why = format!("wrong content\n  expected: {}\n  actual:   {actual}", item.sha256);
                    // The fault may be in what was there before: the place gets one chance from the start.
                    if !resumed || std::mem::replace(&mut restarted, true) {
                        self.progress.failed(item, place, &why);
                        return Ok(Some(why));
                    }
                    why
                }
                AnswerOutcome::Again(why) => why,
                AnswerOutcome::Next(why) => {
                    self.progress.failed(item, place, &why);
                    return Ok(Some(why));
                }
            };
        }
        self.progress.failed(item, place, &reason);
        Ok(Some(match self.policy.attempts {
            0 | 1 => reason,
            n => format!("{reason} (tried {n} times)"),
        }))
    }

    /// One request and its answer. Never leaves more than `item.size` bytes in `part`.
    fn attempt(
        &self,
        item: &FetchItem,
        place: &Location,
        part: &mut PartialDownload,
        validator: &mut Option<String>,
        stop: &dyn Fn() -> bool,
    ) -> Result<AnswerOutcome, FetchError> {
        let stopped = || FetchError::Stopped {
            what: item.what.clone(),
        };
        if stop() {
            return Err(stopped());
        }
        let asked = part.position();
        let response = match self.transport.open(place, asked, validator.as_deref()) {
            Ok(response) => response,
            Err(TransportFailure::Unsatisfiable) if asked > 0 => {
                part.restart()?;
                *validator = None;
                return Ok(AnswerOutcome::Again(TransportFailure::Unsatisfiable.to_string()));
            }
            Err(TransportFailure::Temporary(why)) => return Ok(AnswerOutcome::Again(why)),
            Err(other) => return Ok(AnswerOutcome::Next(other.to_string())),
        };
        let (from, total) = match response.status {
            AnswerRange::Full { total } => (0, total),
            AnswerRange::Partial { offset, total } if offset == asked && asked > 0 => (offset, total),
            AnswerRange::Partial { offset, .. } => {
                return Ok(AnswerOutcome::Next(format!(
                    "sends bytes from {offset} on when asked for those from {asked} on"
                )));
            }
        };
        if let Some(total) = total.filter(|t| *t != item.size) {
            return Ok(AnswerOutcome::Next(wrong_size(item.size, &format!("{total}"))));
        }
        if from < asked {
            part.restart()?;
            self.progress.advanced(item, 0);
        }
        *validator = response.validator;
        let resumed = part.position() > 0;
        let mut body = response.body;
        let mut buffer = vec![0; CHUNK];
        let began = Instant::now();
        let mut arrived = 0u64;
        while part.position() < item.size {
            if stop() {
                return Err(stopped());
            }
            let room = buffer
                .len()
                .min(usize::try_from(item.size - part.position()).unwrap_or(usize::MAX));
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
        // A failure here is no matter: every pinned byte has arrived and the digest decides.
        match body.read(&mut buffer[..1]) {
            Ok(1) => {
                part.restart()?;
                Ok(AnswerOutcome::Next(wrong_size(item.size, "more")))
            }
            _ => Ok(AnswerOutcome::Whole { resumed }),
        }
    }
}

fn wrong_size(expected: u64, actual: &str) -> String {
    format!("wrong size\n  expected: {expected}\n  actual:   {actual}")
}
