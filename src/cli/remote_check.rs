//! `pnb remote check`: what a remote cache or engine allows, how fast it is, and what the sandbox of a worker is.

use super::{
    Exit,
    args::Common,
    closing::{Closing, duration},
    context::run_options,
    failure::Failure,
    host::now,
    interrupt,
    remote::{NamedServer, RemoteArgs},
    report::{Report, size},
    workers::WorkerArgs,
};
use clap::{Args, Subcommand};
use pnb::{
    model::{Arch, chain},
    pipeline::Elsewhere,
    remote::{
        BlobDigest, CachedResult, EntryKind, Loss, Presented, PresentedToken, RemoteCache, RemoteError, action_digest,
    },
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
    /// Ask a remote cache or engine what it allows, and measure it: a cache with a blob of 8 MiB, an engine also with the smallest action,
    /// which says what the sandbox of its worker is
    #[command(
        after_help = "Examples:\n  pnb remote check --remote-cache grpc://cache.example.org:8980\n  \
            pnb remote check --remote-cache https://cache.example.org/pnb --remote-token-file token --json\n  \
            pnb remote check --remote grpc://farm.example.org:8980"
    )]
    Check {
        /// The cache.
        #[command(flatten)]
        remote: RemoteArgs,
        /// The workers of an engine.
        #[command(flatten)]
        workers: WorkerArgs,
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
    let RemoteCommand::Check { remote, workers } = &args.command;
    let begin = Instant::now();
    let NamedServer {
        cache,
        elsewhere,
        presented,
    } = remote.server(common, workers, &run_options()?.helper)?;
    let connected = micros(begin.elapsed());
    report.line(format_args!("{}", cache.name()));
    line(report, "connection", format_args!("{} ms", millis(connected)));
    line(report, "you are", who(&presented));
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
        ("token", presented.token.as_ref().map(token_value).into()),
        ("certificate", presented.certificate.into()),
    ];
    let mut allowed = |result: Result<u64, RemoteError>| match result {
        Ok(time) => Ok(Some(time)),
        Err(error) if error.loss() == Loss::Writing => {
            line(report, "writing", format_args!("refused: {}", chain(&error)));
            fields.push(("write_refused", chain(&error).into()));
            Ok(None)
        }
        Err(error) => Err(error),
    };
    let sent = allowed(send(&cache, &sample, &blob))?;
    let read = match sent {
        Some(_) => allowed(store(&cache, &blob, &action))?,
        None => None,
    };
    let written = sent.zip(read);
    fields.push(("may_write", written.is_some().into()));
    let mut sentence = match written {
        Some((sent, read)) => {
            let (sent, read) = (rate(SAMPLE, sent), rate(SAMPLE, read));
            line(report, "writing", format_args!("allowed, {}/s", size(sent)));
            line(report, "reading", format_args!("{}/s", size(read)));
            fields.push(("write_bytes_per_second", sent.into()));
            fields.push(("read_bytes_per_second", read.into()));
            "the cache can be read and written".to_owned()
        }
        None => "the cache can be read, and not written".to_owned(),
    };
    let mut exit = Exit::Success;
    let mut option = "--remote-cache";
    if let Some(elsewhere) = &elsewhere {
        // An engine may take inputs from one who stores no results.
        let runs = match sent {
            Some(_) => {
                interrupt::cancel_elsewhere(report, elsewhere, false);
                probe(elsewhere, workers, blob.sha256.as_bytes(), report, &mut fields)?
            }
            // Without its inputs an action cannot run.
            None => Runs::Refused("nothing can be written".to_owned()),
        };
        sentence.push_str(match runs {
            Runs::Whole => ", and actions run in a whole sandbox",
            Runs::Weaker => ", and actions run in a sandbox that is weaker than `--hermetic` wants",
            Runs::Refused(_) => "; actions are refused",
        });
        match runs {
            Runs::Whole => option = "--remote",
            Runs::Weaker => exit = Exit::Hermetic,
            Runs::Refused(problem) => {
                exit = Exit::Fetch;
                line(report, "running", format_args!("refused: {problem}"));
                fields.extend([("may_execute", false.into()), ("execute_refused", problem.into())]);
            }
        }
    }
    let upload = written.is_none().then_some("never");
    let next = common
        .command("build")
        .args([option, cache.name()])
        .option("--remote-upload", upload);
    let closing = Closing::verdict(sentence).next(next);
    let closing = fields
        .into_iter()
        .fold(closing, |closing, (name, value)| closing.field(name, value));
    report.close("remote-check", &closing);
    Ok(exit)
}

/// What is known of the workers of an engine.
enum Runs {
    /// An action ran, in a whole sandbox.
    Whole,
    /// An action ran, where a layer of the sandbox is missing or weaker.
    Weaker,
    /// Actions are refused.
    Refused(String),
}

/// Runs the smallest action, and prints its times and what its worker says of its sandbox.
fn probe(
    elsewhere: &Elsewhere,
    workers: &WorkerArgs,
    salt: &[u8],
    report: &Report,
    fields: &mut Vec<(&'static str, serde_json::Value)>,
) -> Result<Runs, RemoteError> {
    let _task = report.task("run", "the smallest action");
    // With --remote-native, a worker of that architecture.
    let arch = workers.native().into_iter().next().unwrap_or(Arch::host());
    let probed = match elsewhere.probe(arch, salt) {
        Ok(probed) => probed,
        Err(error @ RemoteError::Denied { .. }) => return Ok(Runs::Refused(chain(&error))),
        Err(error) => return Err(error),
    };
    let (total, queued, ran) = (micros(probed.total), micros(probed.queued), micros(probed.ran));
    let around = total.saturating_sub(queued).saturating_sub(ran);
    let said = match (queued, ran) {
        (0, 0) => "; the engine does not say of what".to_owned(),
        _ => format!(
            ": {} ms in the queue, {} ms run, {} ms around it",
            millis(queued),
            millis(ran),
            millis(around)
        ),
    };
    line(
        report,
        "running",
        format_args!("allowed, {} ms for the smallest action{said}", millis(total)),
    );
    let asked: Vec<String> = probed
        .properties
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    line(report, "asked for", asked.join(", "));
    let worker = match probed.worker.as_str() {
        "" => "the worker, which the engine does not name",
        worker => worker,
    };
    line(report, "worker", worker);
    let missing: Vec<_> = probed.layers.iter().filter(|layer| layer.problem.is_some()).collect();
    let place = format!(
        "sandbox on {}",
        if probed.worker.is_empty() { "the worker" } else { worker }
    );
    match &missing[..] {
        [] => line(
            report,
            "sandbox",
            format_args!("{place}: whole ({} layers)", probed.layers.len()),
        ),
        _ => {
            for layer in &missing {
                let problem = layer.problem.as_deref().unwrap_or_default();
                line(report, "sandbox", format_args!("{place}: no {}: {problem}", layer.name));
                line(report, "", format_args!("fix: {}", layer.fix));
            }
        }
    }
    let whole = missing.is_empty();
    fields.extend([
        ("may_execute", true.into()),
        ("action_us", total.into()),
        ("queued_us", queued.into()),
        ("ran_us", ran.into()),
        ("worker", probed.worker.into()),
        ("properties", serde_json::json!(probed.properties)),
        ("layers", serde_json::json!(probed.layers)),
        ("sandbox_whole", whole.into()),
    ]);
    Ok(if whole { Runs::Whole } else { Runs::Weaker })
}

/// Who pnb says it is, for people.
fn who(presented: &Presented) -> String {
    let mut parts = Vec::new();
    if let Some(token) = &presented.token {
        let subject = token.subject.as_deref().unwrap_or("nobody by name");
        parts.push(match (token.is_jwt, token.expires) {
            (false, _) => "who a token says, which does not tell pnb".to_owned(),
            (true, None) => format!("{subject}, by a token without end"),
            (true, Some(end)) => match end.checked_sub(now()) {
                Some(left) => format!("{subject}, by a token for {} more", duration(left.saturating_mul(1000))),
                None => format!("{subject}, by a token that has ended"),
            },
        });
    }
    parts.extend(
        presented
            .certificate
            .iter()
            .map(|subject| format!("{subject}, by a certificate")),
    );
    match parts.is_empty() {
        true => "anybody: no token and no certificate is shown".to_owned(),
        false => parts.join("; "),
    }
}

fn token_value(token: &PresentedToken) -> serde_json::Value {
    serde_json::json!({ "jwt": token.is_jwt, "sub": token.subject, "exp": token.expires })
}

/// Sends a blob; the time in microseconds.
fn send(cache: &Arc<dyn RemoteCache>, sample: &[u8], blob: &BlobDigest) -> Result<u64, RemoteError> {
    let shared: Arc<[u8]> = sample.into();
    let mut open = || -> io::Result<Box<dyn io::Read + Send>> { Ok(Box::new(io::Cursor::new(Arc::clone(&shared)))) };
    timed(|| cache.put(blob, &mut open)).map(|((), time)| time)
}

/// Stores a result that names the blob, and reads both back; the time of reading the blob in microseconds.
fn store(cache: &Arc<dyn RemoteCache>, blob: &BlobDigest, action: &BlobDigest) -> Result<u64, RemoteError> {
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
    let mut back = Vec::with_capacity(SAMPLE);
    timed(|| cache.read(blob, &mut back, &|_| {})).map(|((), time)| time)
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
