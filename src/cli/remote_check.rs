//! `pnb remote check`: what a remote cache allows, and how fast it is.

use super::{
    Exit,
    args::Common,
    closing::Closing,
    failure::Failure,
    remote::RemoteArgs,
    report::{Report, size},
};
use clap::{Args, Subcommand};
use pnb::{
    model::chain,
    remote::{BlobDigest, CachedResult, EntryKind, Loss, RemoteCache, RemoteError, action_digest},
};
use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of the blob that is sent and read back: enough for a rate, few enough for a slow line.
const SAMPLE: usize = 8 << 20;
/// Requests whose times are compared for the round trip.
const ROUNDS: usize = 5;

/// Options of `pnb remote`.
#[derive(Args, Debug)]
pub(super) struct RemoteCommandArgs {
    /// The operation.
    #[command(subcommand)]
    command: RemoteCommand,
}

/// Commands of `pnb remote`.
#[derive(Subcommand, Debug)]
enum RemoteCommand {
    /// Ask a remote cache what it allows, and measure it with a blob of 8 MiB
    #[command(
        after_help = "Examples:\n  pnb remote check --remote-cache grpc://cache.example.org:8980\n  \
            pnb remote check --remote-cache https://cache.example.org/pnb --remote-token-file token --json"
    )]
    Check {
        /// The cache.
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// A measured step, in microseconds.
type Measured<T> = (T, u64);

fn timed<T>(work: impl FnOnce() -> Result<T, RemoteError>) -> Result<Measured<T>, RemoteError> {
    let begin = Instant::now();
    let value = work()?;
    Ok((value, micros(begin.elapsed())))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn rate(bytes: usize, micros: u64) -> u64 {
    (bytes as u64).saturating_mul(1_000_000) / micros.max(1)
}

pub(super) fn remote(common: &Common, args: &RemoteCommandArgs, report: &Report) -> Result<Exit, Failure> {
    let RemoteCommand::Check { remote } = &args.command;
    let begin = Instant::now();
    let cache = remote.cache(common)?;
    let connected = micros(begin.elapsed());
    report.line(format_args!("{}", cache.name()));
    line(report, "connection", format_args!("{} ms", millis(connected)));
    // Another blob each time: what the cache has already would be no measure of it.
    let sample = sample(begin);
    let blob = BlobDigest::of(&sample);
    let action = action_digest(EntryKind::Facts, &format!("check {}", blob.sha256));
    let mut trips = Vec::new();
    for _ in 0..ROUNDS {
        let (found, time) = timed(|| cache.result(&action))?;
        if found.is_some() {
            return Err(RemoteError::Result {
                server: cache.name().to_owned(),
                problem: "it has a result that nobody has stored".to_owned(),
            }
            .into());
        }
        trips.push(time);
    }
    trips.sort_unstable();
    let trip = trips[ROUNDS / 2];
    line(report, "round trip", format_args!("{} ms", millis(trip)));
    line(report, "reading", "allowed");
    let mut fields = vec![
        ("server", serde_json::Value::from(cache.name())),
        ("connect_us", connected.into()),
        ("round_trip_us", trip.into()),
    ];
    let written = match write(&cache, &sample, &blob, &action) {
        Ok(written) => Some(written),
        Err(error) if error.loss() == Loss::Writing => {
            line(report, "writing", format_args!("refused: {}", chain(&error)));
            fields.push(("write_refused", chain(&error).into()));
            None
        }
        Err(error) => return Err(error.into()),
    };
    fields.push(("may_write", written.is_some().into()));
    let sentence = match written {
        Some((sent, read)) => {
            let (sent, read) = (rate(SAMPLE, sent), rate(SAMPLE, read));
            line(report, "writing", format_args!("allowed, {}/s", size(sent)));
            line(report, "reading", format_args!("{}/s", size(read)));
            fields.push(("write_bytes_per_second", sent.into()));
            fields.push(("read_bytes_per_second", read.into()));
            "the cache can be read and written"
        }
        None => "the cache can be read, and not written",
    };
    let upload = written.is_none().then_some("never");
    let next = common
        .command("build")
        .args(["--remote-cache", cache.name()])
        .option("--remote-upload", upload);
    let closing = Closing::verdict(sentence).next(next);
    let closing = fields
        .into_iter()
        .fold(closing, |closing, (name, value)| closing.field(name, value));
    report.close("remote-check", &closing);
    Ok(Exit::Success)
}

/// Stores a blob and a result that names it, and reads both back. Returns the time of sending and of reading in microseconds.
fn write(
    cache: &Arc<dyn RemoteCache>,
    sample: &[u8],
    blob: &BlobDigest,
    action: &BlobDigest,
) -> Result<(u64, u64), RemoteError> {
    let shared: Arc<[u8]> = sample.into();
    let mut open = || -> io::Result<Box<dyn io::Read + Send>> { Ok(Box::new(io::Cursor::new(Arc::clone(&shared)))) };
    let ((), sent) = timed(|| cache.put(blob, &mut open))?;
    let result = CachedResult {
        files: BTreeMap::from([("facts".to_owned(), *blob)]),
    };
    cache.put_result(action, &result)?;
    if cache.result(action)?.as_ref() != Some(&result) {
        return Err(RemoteError::Result {
            server: cache.name().to_owned(),
            problem: "a result that was stored a moment ago is not there, or is another".to_owned(),
        });
    }
    let mut back = Vec::with_capacity(sample.len());
    let ((), read) = timed(|| cache.read(blob, &mut back, &|_| {}))?;
    Ok((sent, read))
}

/// Bytes that no cache has: they follow from the time of this run and do not compress.
fn sample(begin: Instant) -> Vec<u8> {
    let seed = format!("{begin:?} {}", std::process::id());
    let mut bytes = vec![0; SAMPLE];
    blake3::Hasher::new()
        .update(seed.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn millis(micros: u64) -> String {
    format!("{}.{}", micros / 1000, micros % 1000 / 100)
}

fn line(report: &Report, name: &str, value: impl std::fmt::Display) {
    report.line(format_args!("  {name:<12} {value}"));
}
