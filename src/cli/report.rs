//! Everything that is printed for the user: events, results, remarks, warnings and errors. No other file of the command line writes to
//! standard output or standard error.
//!
//! Text can contain names and values from files of others. Each method makes it visible before it is printed, except the few that say
//! otherwise.

use super::{
    Exit,
    closing::{count, duration},
    failure::Failure,
    progress::{Activity, Display, RunningWork},
    servers::variable,
    usage::WrongLine,
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pnb::{
    model::{VerityDigest, chain, visible, visible_json, visible_lines, visible_log, visible_path},
    pipeline::Event,
    remote::RemoteError,
};
use serde::Serialize;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Name of the live line of a boot.
const BOOT: &str = "boot";

/// Prints events and results: as a live display on a terminal, as plain lines elsewhere, as JSON objects with `--json`.
pub(super) struct Report {
    json: bool,
    quiet: bool,
    display: Display,
    bars: MultiProgress,
    running: Mutex<BTreeMap<String, Activity>>,
    /// Lines whose text changes.
    texts: Mutex<BTreeMap<String, ProgressBar>>,
    stages: Mutex<Stages>,
    started: Instant,
}

/// The stages of the present build.
#[derive(Default)]
struct Stages {
    done: u64,
    total: u64,
    line: Option<Activity>,
}

impl Report {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        let display = match (json || quiet, io::stderr().is_terminal() && !is_dumb()) {
            (true, _) => Display::Silent,
            (false, true) => Display::Live,
            (false, false) => Display::Plain,
        };
        let target = match display {
            Display::Live => ProgressDrawTarget::stderr(),
            Display::Plain | Display::Silent => ProgressDrawTarget::hidden(),
        };
        Self {
            json,
            quiet,
            display,
            bars: MultiProgress::with_draw_target(target),
            running: Mutex::default(),
            texts: Mutex::default(),
            stages: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// The lines of running work.
    pub(super) fn lines(&self) -> LiveLines {
        LiveLines(self.bars.clone())
    }

    /// The time since the program began, for people.
    pub(super) fn elapsed(&self) -> String {
        duration(self.elapsed_ms())
    }

    /// The time since the program began in milliseconds.
    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Shows some work until the returned value is dropped.
    pub(super) fn task(&self, verb: &'static str, object: impl fmt::Display) -> Activity {
        self.activity(RunningWork::Task(verb, object.to_string()), 0)
    }

    /// Shows that bytes are read, of an unknown number.
    pub(super) fn reading(&self, verb: &'static str) -> Activity {
        self.activity(RunningWork::Reading(verb), 0)
    }

    fn activity(&self, work: RunningWork, total: u64) -> Activity {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let below = stages.line.as_ref().map(Activity::bar);
        Activity::begin(&self.bars, self.display, work, total, below)
    }

    /// Whether results are printed as JSON.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Prints a line of the result on standard output. A closed pipe is not an error.
    pub(super) fn line(&self, text: impl fmt::Display) {
        self.text(&format!("{text}\n"));
    }

    /// Prints text of the result, of any number of lines.
    pub(super) fn text(&self, text: &str) {
        self.raw(visible_lines(text).as_bytes());
    }

    /// Prints a value of the result as a line of JSON.
    pub(super) fn value(&self, value: impl Serialize) {
        // The values of this program have string keys and no numbers that JSON lacks.
        if let Ok(json) = serde_json::to_string(&value) {
            self.document(&format!("{json}\n"));
        }
    }

    /// Prints a JSON document of the result.
    pub(super) fn document(&self, json: &str) {
        self.raw(visible_json(json).as_bytes());
    }

    /// Prints a path of the result as a line: visible on a terminal, unchanged elsewhere, so that a script can use it.
    pub(super) fn path(&self, path: &Path) {
        match io::stdout().is_terminal() {
            true => self.line(visible_path(path)),
            false => self.raw(&[path.as_os_str().as_encoded_bytes(), b"\n"].concat()),
        }
    }

    /// Prints a stage's log: visible on a terminal, unchanged elsewhere.
    pub(super) fn log(&self, log: &[u8]) {
        match io::stdout().is_terminal() {
            true => self.raw(visible_log(log).as_bytes()),
            false => self.raw(log),
        }
    }

    /// Prints bytes unchanged. They must not come from a file or another program.
    pub(super) fn raw(&self, bytes: &[u8]) {
        self.bars.suspend(|| {
            let _ = io::stdout().write_all(bytes);
        });
    }

    /// Prints text on standard error.
    fn say(&self, text: &str) {
        self.bars.suspend(|| say(text));
    }

    /// Prints a remark for people on standard error; nothing with `--json` or `--quiet`.
    pub(super) fn note(&self, text: impl fmt::Display) {
        if !self.json && !self.quiet {
            self.say(&format!("{text}\n"));
        }
    }

    /// Prints a warning on standard error; the work goes on.
    pub(super) fn warning(&self, text: impl fmt::Display) {
        if !self.json {
            self.say(&format!("warning: {text}\n"));
        }
    }

    /// Prints the error that ends the program, with its causes and hints. `space` describes the disks, for an error that one of them is full.
    pub(super) fn error(&self, failure: &Failure, space: &str) {
        self.clear();
        let message = chain(failure.error());
        let full = (failure.is_full() && !space.is_empty()).then_some(Cow::Borrowed(space));
        // The hint of the step itself, to try it again, would lead to the same end.
        let hints: Vec<_> = full.or_else(|| failure.hint()).into_iter().collect();
        if self.json {
            let exit = failure.exit().code();
            self.value(serde_json::json!({ "event": "error", "message": message, "hints": hints, "exit": exit }));
            return;
        }
        let hints: String = hints.iter().map(|hint| format!("\nhint: {hint}\n")).collect();
        self.say(&format!("error: failed to {message}\n{hints}"));
    }

    /// Prints the message about a command line that cannot be read.
    pub(super) fn wrong_line(&self, wrong: &WrongLine) {
        let WrongLine { message, hint } = wrong;
        if self.json {
            let exit = Exit::Usage.code();
            self.value(serde_json::json!({ "event": "error", "message": message, "hints": [hint], "exit": exit }));
            return;
        }
        self.say(&format!("error: {message}\n\nhint: {hint}\n"));
    }

    /// A line for the bytes that are sent to `place`.
    pub(super) fn transfer_bar(&self, place: &str, total: u64) -> ProgressBar {
        let transfer = self.activity(RunningWork::Transfer("publish", place.to_owned()), total);
        let bar = transfer.bar().clone();
        self.keep("publish".to_owned(), transfer);
        bar
    }

    /// Begins the live line of a boot, which takes `about` so many seconds.
    pub(super) fn begin_boot(&self, about: Option<u64>) {
        if self.live() {
            let bar = self.bars.add(ProgressBar::new_spinner());
            let of = about.map_or_else(String::new, |about| format!(" of about {about} s"));
            let style = ProgressStyle::with_template(&format!("  {{spinner}} boot: {{msg}}, {{elapsed}}{of}"));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message("firmware");
            bar.enable_steady_tick(Duration::from_millis(120));
            self.keep_text(BOOT, bar);
        }
    }

    /// Shows that a boot has come to another stage after so many seconds.
    pub(super) fn boot_phase(&self, phase: &'static str, seconds: u64, about: Option<u64>) {
        if let Some(bar) = self.texts.lock().unwrap_or_else(PoisonError::into_inner).get(BOOT) {
            return bar.set_message(phase);
        }
        let of = about.map_or_else(String::new, |about| format!(" of about {about} s"));
        self.note(format_args!("     boot {phase} after {seconds} s{of}"));
    }

    /// Ends the live line of a boot.
    pub(super) fn end_boot(&self) {
        self.drop_text(BOOT);
    }

    /// Whether lines are drawn over: text that does not end a line would be lost.
    pub(super) fn live(&self) -> bool {
        self.display == Display::Live
    }

    /// Shows what is being compared: on a terminal as a line that is replaced, elsewhere as a line of its own. Returns whether it is on a
    /// terminal.
    pub(super) fn comparing(&self, place: &str) -> bool {
        const NAME: &str = "compare";
        if !self.live() {
            self.note(format_args!("  compare {place}"));
            return false;
        }
        let shown = self
            .texts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(NAME)
            .cloned();
        let bar = shown.unwrap_or_else(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("  {spinner} compare {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            self.keep_text(NAME, bar.clone());
            bar
        });
        bar.set_message(place.to_owned());
        true
    }

    /// Ends the display of [`Self::comparing`].
    pub(super) fn compared(&self) {
        self.drop_text("compare");
    }

    fn keep_text(&self, name: &str, bar: ProgressBar) {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.insert(name.to_owned(), bar);
    }

    fn drop_text(&self, name: &str) {
        if let Some(bar) = self.texts.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            bar.finish_and_clear();
        }
    }

    /// Ends the live display.
    pub(super) fn clear(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).line = None;
        let _ = self.bars.clear();
    }

    /// Shows an event of the pipeline. Called from any thread.
    pub(super) fn event(&self, event: Event) {
        if self.json {
            if !matches!(event, Event::Fetched { .. }) {
                self.value(&event);
            }
            return;
        }
        match event {
            Event::Begin { stages } => {
                let mut own = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
                let total = stages as u64;
                // The line of an earlier build goes before that of the next comes.
                own.line = None;
                let line = Activity::begin(&self.bars, self.display, RunningWork::All, total, None);
                *own = Stages {
                    done: 0,
                    total,
                    line: Some(line),
                };
            }
            Event::Cached { node, server, .. } => {
                self.drop_bar(&node.to_string());
                let place = self.one_more(false);
                let verb = if server.is_some() { "shared" } else { "cached" };
                self.note(format_args!("   {verb} {node}{place}"));
            }
            Event::Sent { node, server, bytes } => {
                self.note(format_args!(
                    "     sent {node} to {}: {}",
                    visible(&server),
                    size(bytes)
                ));
            }
            Event::CacheLost { problem, then, .. } => self.warning(format_args!("failed to {problem}; {then}")),
            Event::Disagrees {
                node,
                output,
                server,
                here,
                there,
            } => {
                let digest = |digest: Option<VerityDigest>| digest.map_or("none".to_owned(), |d| d.to_string());
                self.warning(format_args!(
                    "the remote cache {} is poisoned, or {node} is irreproducible: output {output:?} differs\n  \
                     here:  {}\n  cache: {}",
                    visible(&server),
                    digest(here),
                    digest(there)
                ));
            }
            Event::Fetching { what, files, total } => {
                self.note(format_args!(
                    "    fetch {what}: {}, {}",
                    count(files, "file"),
                    size(total)
                ));
                let transfer = self.activity(RunningWork::Transfer("fetch", what.clone()), total);
                self.keep(format!("fetch {what}"), transfer);
            }
            Event::Fetched { what, bytes, total } => self.fetched(&what, bytes, total),
            Event::Queued { node } => {
                self.note(format_args!("    waits for another pnb: {node}"));
                let waiting = self.activity(RunningWork::Waiting(node.to_string()), 0);
                self.keep(node.to_string(), waiting);
            }
            Event::Waiting { place, seconds } => {
                self.note(format_args!(
                    "    waits {seconds} s, as the server asks: {}",
                    visible(&place)
                ));
            }
            Event::Started { node, server, reasons } => {
                self.drop_bar(&node.to_string());
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                let place = server.map_or(String::new(), |server| format!(" on {}", visible(&server)));
                self.note(format_args!("    build {node}{place} ({})", reasons.join("; ")));
                let stage = self.activity(RunningWork::Stage(node.to_string()), 0);
                self.keep(node.to_string(), stage);
            }
            Event::Log { node, line } => self.note(format_args!("{node}> {line}")),
            Event::Finished {
                node,
                wall_ms,
                cpu_ms,
                peak_memory,
                ..
            } => {
                self.drop_bar(&node.to_string());
                // Files that another stage has fetched meanwhile are not counted here.
                self.drop_bar(&format!("fetch {node}"));
                let place = self.one_more(true);
                self.note(format_args!(
                    "     done {node} in {} ({} CPU, {} memory){place}",
                    seconds(wall_ms),
                    seconds(cpu_ms),
                    size(peak_memory)
                ));
            }
            Event::Failed { node } => {
                self.drop_bar(&node.to_string());
                self.drop_bar(&format!("fetch {node}"));
            }
            Event::Weaker { layer } => {
                self.warning(format_args!("a layer of the sandbox is weaker or missing: {layer}"))
            }
            Event::Exported { dir, unchanged } => {
                let what = if unchanged { "unchanged" } else { "artifact" };
                self.note(format_args!("{what:>9} {}", visible_path(&dir)));
            }
        }
    }

    /// Says that the remote cache of the command line is not there.
    pub(super) fn cache_lost(&self, error: &RemoteError) {
        self.event(Event::CacheLost {
            server: error.server().unwrap_or_default().to_owned(),
            problem: chain(error),
            then: "the build goes on without it".to_owned(),
        });
    }

    /// Counts a finished stage; the place of its line among all of them, and the time since the beginning.
    fn one_more(&self, time: bool) -> String {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.done += 1;
        if let Some(line) = &stages.line {
            line.bar().set_position(stages.done);
        }
        let (done, total) = (stages.done, stages.total);
        match time {
            true => format!("; {done} of {total}, {}", self.elapsed()),
            false => format!("; {done} of {total}"),
        }
    }

    fn keep(&self, name: String, activity: Activity) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let before = running.insert(name, activity);
        drop(running);
        drop(before);
    }

    fn drop_bar(&self, name: &str) {
        let ended = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        // After the lock: the line is drawn for the last time.
        drop(ended);
    }

    fn fetched(&self, what: &str, bytes: u64, total: u64) {
        let name = format!("fetch {what}");
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(transfer) = running.get(&name) else { return };
        transfer.bar().set_position(bytes);
        if bytes < total {
            return;
        }
        let took = u64::try_from(transfer.bar().elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended = running.remove(&name);
        drop(running);
        drop(ended);
        if took >= LONG_FETCH {
            self.note(format_args!("  fetched {what}: {} in {}", size(total), duration(took)));
        }
    }
}

/// Milliseconds after which the end of a download has a line.
const LONG_FETCH: u64 = 2000;

/// Whether the terminal can only print lines.
fn is_dumb() -> bool {
    variable("TERM").is_none_or(|term| term == "dumb")
}

/// Columns of a terminal that does not say how many it has.
const UNKNOWN_WIDTH: usize = 80;

/// The present width of the terminal behind standard error.
pub(super) fn terminal_width() -> usize {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => UNKNOWN_WIDTH,
    }
}

/// Prints text on standard error, without a report.
pub(super) fn say(text: &str) {
    let _ = io::stderr().write_all(visible_lines(text).as_bytes());
}

/// Prints a value of the result as a line of JSON, without a report.
pub(super) fn print_value(value: &serde_json::Value) {
    let _ = io::stdout().write_all(visible_json(&format!("{value}\n")).as_bytes());
}

/// The lines of running work, for another thread.
pub(super) struct LiveLines(MultiProgress);

impl LiveLines {
    /// Takes them away, and draws no more.
    pub(super) fn end(&self) {
        let _ = self.0.clear();
        self.0.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// Prints a line of this program's own on standard error, with its control characters.
pub(super) fn mark(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints the answer to `--help` and `--version`, which is text of this program, with its colours.
pub(super) fn answer(error: &clap::Error) {
    let _ = error.print();
}

/// A number of bytes, such as `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// Milliseconds as seconds, such as `1.25 s`.
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}
