//! Everything that is printed for the user: events, results, remarks, warnings and errors. No other file of the command line writes to
//! standard output or standard error.
//!
//! Text can contain names and values from files of others. Each method makes it visible before it is printed, except the few that say
//! otherwise.

use super::failure::Failure;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pnb::{
    model::{chain, visible, visible_json, visible_lines, visible_log, visible_path},
    pipeline::Event,
};
use serde::Serialize;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Prints events and results: as a live display on a terminal, as plain lines elsewhere, as JSON objects with `--json`.
pub(super) struct Report {
    json: bool,
    quiet: bool,
    bars: MultiProgress,
    running: Mutex<BTreeMap<String, ProgressBar>>,
    /// Of each download, the next tenth that gets a plain line.
    announced: Mutex<BTreeMap<String, u64>>,
    live: bool,
}

impl Report {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        let live = !json && !quiet && io::stderr().is_terminal();
        let target = if live {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            json,
            quiet,
            bars: MultiProgress::with_draw_target(target),
            running: Mutex::default(),
            announced: Mutex::default(),
            live,
        }
    }

    /// Whether results are printed as JSON.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Prints a line of the result on standard output. A closed pipe is not an error.
    pub(super) fn line(&self, text: impl Display) {
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
    pub(super) fn note(&self, text: impl Display) {
        if !self.json && !self.quiet {
            self.say(&format!("{text}\n"));
        }
    }

    /// Prints a warning on standard error; the work goes on.
    pub(super) fn warning(&self, text: impl Display) {
        if !self.json {
            self.say(&format!("warning: {text}\n"));
        }
    }

    /// Prints the error that ends the program, with its causes and hints. `space` describes the disks, for an error that one of them is full.
    pub(super) fn error(&self, failure: &Failure, space: &str) {
        self.clear();
        let message = chain(failure.error());
        let full = (failure.is_full() && !space.is_empty()).then(|| Cow::Borrowed(space));
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

    /// A bar for the bytes of transfers; it is only seen on a terminal.
    pub(super) fn transfer_bar(&self, total: u64) -> ProgressBar {
        if !self.live {
            return ProgressBar::hidden();
        }
        let bar = self.bars.add(ProgressBar::new(total));
        let style = ProgressStyle::with_template("  publish {bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.keep("publish".to_owned(), bar.clone());
        bar
    }

    /// Ends the live display.
    pub(super) fn clear(&self) {
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
            Event::Begin { .. } => {}
            Event::Cached { node, .. } => self.note(format_args!("   cached {node}")),
            Event::Fetching { what, files, total } => {
                self.note(format_args!("    fetch {what}: {files} files, {}", size(total)));
                if self.live {
                    let bar = self.bars.add(ProgressBar::new(total));
                    let style = ProgressStyle::with_template(
                        "    fetch {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}",
                    );
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    bar.set_message(visible(&what));
                    self.keep(format!("fetch {what}"), bar);
                }
            }
            Event::Fetched { what, bytes, total } => self.fetched(&what, bytes, total),
            Event::Waiting { place, seconds } => {
                self.note(format_args!(
                    "    waits {seconds} s, as the server asks: {}",
                    visible(&place)
                ));
            }
            Event::Started { node, reasons } => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                self.note(format_args!("    build {node} ({})", reasons.join("; ")));
                if self.live {
                    let bar = self.bars.add(ProgressBar::new_spinner());
                    let style = ProgressStyle::with_template("  {spinner} {msg} {elapsed}");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                    bar.set_message(visible(&node.to_string()));
                    bar.enable_steady_tick(Duration::from_millis(120));
                    self.keep(node.to_string(), bar);
                }
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
                self.note(format_args!(
                    "     done {node} in {} ({} CPU, {} memory)",
                    seconds(wall_ms),
                    seconds(cpu_ms),
                    size(peak_memory)
                ));
            }
            Event::Failed { node } => self.drop_bar(&node.to_string()),
            Event::Weaker { layer } => {
                self.warning(format_args!("a layer of the sandbox is weaker or missing: {layer}"))
            }
            Event::Exported { dir, unchanged } => {
                let what = if unchanged { "unchanged" } else { "artifact" };
                self.note(format_args!("{what:>9} {}", visible_path(&dir)));
            }
        }
    }

    fn keep(&self, name: String, bar: ProgressBar) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, bar);
    }

    fn drop_bar(&self, name: &str) {
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            bar.finish_and_clear();
        }
    }

    fn fetched(&self, what: &str, bytes: u64, total: u64) {
        let name = format!("fetch {what}");
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            bar.set_position(bytes);
        }
        if bytes >= total {
            self.drop_bar(&name);
        }
        if !self.live && total > 0 {
            let tenth = bytes.saturating_mul(10) / total;
            let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
            let next = announced.entry(name).or_insert(1);
            if tenth >= *next {
                *next = tenth + 1;
                drop(announced);
                self.note(format_args!("    fetch {what}: {} of {}", size(bytes), size(total)));
            }
        }
    }
}

/// Prints text on standard error, without a report.
pub(super) fn say(text: &str) {
    let _ = io::stderr().write_all(visible_lines(text).as_bytes());
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
