//! Everything that is printed for the user: events, results, remarks, warnings and errors.

use super::failure::Failure;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pnb::{model::chain, pipeline::Event};
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
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
    pub(super) fn line(&self, text: impl std::fmt::Display) {
        self.bars.suspend(|| {
            let _ = writeln!(io::stdout(), "{text}");
        });
    }

    /// Prints bytes of the result unchanged.
    pub(super) fn bytes(&self, bytes: &[u8]) {
        let _ = io::stdout().write_all(bytes);
    }

    /// Prints a remark for people on standard error; nothing with `--json` or `--quiet`.
    pub(super) fn note(&self, text: impl std::fmt::Display) {
        if self.json || self.quiet {
            return;
        }
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    /// Prints a warning on standard error; the work goes on.
    pub(super) fn warning(&self, text: impl std::fmt::Display) {
        if self.json {
            return;
        }
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr(), "warning: {text}");
        });
    }

    /// Prints the error that ends the program, with its causes and hints.
    pub(super) fn error(&self, failure: &Failure) {
        self.clear();
        let message = chain(failure.error());
        let hints: Vec<_> = failure.hint().into_iter().collect();
        if self.json {
            let exit = failure.exit().code();
            let value = serde_json::json!({ "event": "error", "message": message, "hints": hints, "exit": exit });
            let _ = writeln!(io::stdout(), "{value}");
            return;
        }
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "error: failed to {message}");
        for hint in hints {
            let _ = writeln!(err, "\nhint: {hint}");
        }
    }

    /// Ends the live display.
    pub(super) fn clear(&self) {
        let _ = self.bars.clear();
    }

    /// Shows an event of the pipeline. Called from any thread.
    pub(super) fn event(&self, event: Event) {
        if self.json {
            if !matches!(event, Event::Fetched { .. })
                && let Ok(text) = serde_json::to_string(&event)
            {
                self.line(text);
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
                    bar.set_message(what.clone());
                    self.keep(format!("fetch {what}"), bar);
                }
            }
            Event::Fetched { what, bytes, total } => self.fetched(&what, bytes, total),
            Event::Started { node, reasons } => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                self.note(format_args!("    build {node} ({})", reasons.join("; ")));
                if self.live {
                    let bar = self.bars.add(ProgressBar::new_spinner());
                    let style = ProgressStyle::with_template("  {spinner} {msg} {elapsed}");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                    bar.set_message(node.to_string());
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
                self.note(format_args!("{what:>9} {}", dir.display()));
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

/// A number of bytes, such as `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// Milliseconds as seconds, such as `1.25 s`.
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}
