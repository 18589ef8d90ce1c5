//! Running work on the screen: lines that fit the terminal and change while the work goes on; without a terminal a line every ten seconds.

use super::{
    closing::duration,
    report::{say, size, terminal_width},
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use pnb::model::visible;
use std::{
    fmt::Write,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Time between two lines about the same work without a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Time after which a task that has no line of its own is shown on a terminal.
const DELAY: Duration = Duration::from_secs(1);

/// Time between two changes of a line on a terminal.
const TICK: Duration = Duration::from_millis(120);

/// The widest bar, and the narrowest that is drawn.
const BAR: (usize, usize) = (30, 5);

/// Longest name in front of a bar.
const NAME: usize = 24;

/// Where running work is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Display {
    /// On a terminal.
    Live,
    /// As lines.
    Plain,
    /// Not at all.
    Silent,
}

/// RunningWork that is shown while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RunningWork {
    /// A stage.
    Stage(String),
    /// A stage that waits for another builder.
    Waiting(String),
    /// Bytes that arrive or leave: a verb and a name.
    Transfer(&'static str, String),
    /// A part of a command: a verb and its object.
    Task(&'static str, String),
    /// Bytes that are read, of an unknown number.
    Reading(&'static str),
    /// All stages.
    All,
}

/// A moment of some work.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    done: u64,
    total: u64,
    per_second: u64,
    left: Duration,
    elapsed: Duration,
}

impl Moment {
    fn of(state: &ProgressState) -> Self {
        Self {
            done: state.pos(),
            total: state.len().unwrap_or(0),
            // A rate is a positive number; the conversion is saturating.
            per_second: state.per_sec() as u64,
            left: state.eta(),
            elapsed: state.elapsed(),
        }
    }
}

/// A name in at most `width` characters: a long one loses its middle.
fn cut(name: &str, width: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= width {
        return name.to_owned();
    }
    let Some(kept) = width.checked_sub(1) else {
        return String::new();
    };
    let (head, tail) = (kept.div_ceil(2), kept / 2);
    let mut text: String = letters[..head].iter().collect();
    text.push('…');
    text.extend(&letters[letters.len() - tail..]);
    text
}

/// `lead`, as much of `name` as fits, and `tail`.
fn fitted(lead: &str, name: &str, tail: &str, width: usize) -> String {
    let taken = lead.chars().count() + tail.chars().count();
    match width.checked_sub(taken) {
        Some(left) if left >= 4 || left >= name.chars().count() => format!("{lead}{}{tail}", cut(name, left)),
        // Too narrow for all of it: the name alone.
        _ => cut(name, width),
    }
}

impl RunningWork {
    /// The line on a terminal with `columns`. It is never longer: a line that wraps could not be drawn over.
    fn live(&self, now: Moment, columns: usize) -> String {
        // The last column stays free, because some terminals wrap behind it.
        let width = columns.saturating_sub(1);
        let time = duration(millis(now.elapsed));
        let frame = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        let turn = frame[usize::try_from(now.elapsed.as_millis() / TICK.as_millis()).unwrap_or(0) % frame.len()];
        let spinner = format!("  {turn} ");
        match self {
            RunningWork::Stage(name) => fitted(&spinner, name, &format!(" {time}"), width),
            RunningWork::Waiting(name) => fitted(
                &format!("{spinner}waits for another pnb: "),
                name,
                &format!(" {time}"),
                width,
            ),
            RunningWork::Task(verb, name) => fitted(&format!("{spinner}{verb} "), name, &format!(" {time}"), width),
            RunningWork::Reading(verb) => fitted(
                &spinner,
                &format!("{verb} {}", size(now.done)),
                &format!(" {time}"),
                width,
            ),
            RunningWork::All => cut(&format!("  {} of {} stages, {time}", now.done, now.total), width),
            RunningWork::Transfer(verb, name) => transfer(verb, name, now, width),
        }
    }

    /// The line without a terminal.
    fn plain(&self, now: Moment) -> String {
        let time = duration(millis(now.elapsed));
        match self {
            RunningWork::Stage(name) => format!("  running {name}, {time}"),
            RunningWork::Waiting(name) => format!("    waits for another pnb: {name}, {time}"),
            RunningWork::Transfer(verb, name) => {
                format!("{verb:>9} {name}: {} of {}, {time}", size(now.done), size(now.total))
            }
            RunningWork::Task(verb, name) => format!("{verb:>9} {name}, {time}"),
            RunningWork::Reading(verb) => format!("{verb:>9} {}, {time}", size(now.done)),
            RunningWork::All => format!("{} of {} stages, {time}", now.done, now.total),
        }
    }
}

fn transfer(verb: &str, name: &str, now: Moment, width: usize) -> String {
    let lead = format!("{verb:>9} ");
    let amount = format!(" {}/{}", size(now.done), size(now.total));
    let mut tail = amount.clone();
    let name = cut(name, NAME.min(width));
    let taken = |tail: &str| lead.chars().count() + name.chars().count() + tail.chars().count();
    let rest = now.left.as_secs();
    for further in [format!(" {}/s", size(now.per_second)), format!(" eta {rest}s")] {
        // A part that leaves no room for a bar is left out.
        if now.done < now.total && taken(&tail) + further.chars().count() + BAR.1 < width {
            tail.push_str(&further);
        }
    }
    let room = width.saturating_sub(taken(&tail) + 1).min(BAR.0);
    if room < BAR.1 {
        return fitted(&lead, &name, &amount, width);
    }
    let done = now.done.min(now.total) * room as u64;
    let part = done.checked_div(now.total).unwrap_or(0);
    let full = usize::try_from(part).unwrap_or(0);
    format!("{lead}{name} {}{}{tail}", "█".repeat(full), "░".repeat(room - full))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the work has ended, for the thread that shows it.
#[derive(Default)]
struct Ended {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    /// Waits for the end, at most `time`; whether it has come.
    fn within(&self, time: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(ended, time, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// Some work on the screen, until this is dropped.
pub(super) struct Activity {
    bar: ProgressBar,
    ended: Arc<Ended>,
    thread: Option<JoinHandle<()>>,
}

impl Activity {
    /// Shows `work` of `total` steps or bytes. `before` is a line of the terminal that stays below.
    pub(super) fn begin(
        bars: &MultiProgress,
        display: Display,
        work: RunningWork,
        total: u64,
        before: Option<&ProgressBar>,
    ) -> Self {
        let work = work.visible();
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let ended = Arc::new(Ended::default());
        let style = {
            let work = work.clone();
            let line = move |state: &ProgressState, out: &mut dyn Write| {
                let _ = out.write_str(&work.live(Moment::of(state), terminal_width()));
            };
            // The template is constant and has no fault.
            ProgressStyle::with_template("{line}").map(|style| style.with_key("line", line))
        };
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let show = |bars: &MultiProgress, bar: &ProgressBar, before: Option<&ProgressBar>| {
            match before {
                Some(before) => bars.insert_before(before, bar.clone()),
                None => bars.add(bar.clone()),
            };
            bar.tick();
            bar.enable_steady_tick(TICK);
        };
        let thread = match (display, &work) {
            (Display::Silent, _) | (Display::Plain, RunningWork::All) => None,
            (Display::Live, RunningWork::Task(..) | RunningWork::Reading(_)) => {
                let (bars, bar, ended) = (bars.clone(), bar.clone(), Arc::clone(&ended));
                Some(thread::spawn(move || {
                    if !ended.within(DELAY) {
                        show(&bars, &bar, None);
                    }
                }))
            }
            (Display::Live, _) => {
                show(bars, &bar, before);
                None
            }
            (Display::Plain, _) => {
                let (bar, ended) = (bar.clone(), Arc::clone(&ended));
                Some(thread::spawn(move || {
                    while !ended.within(PLAIN_INTERVAL) {
                        let now = Moment {
                            done: bar.position(),
                            total: bar.length().unwrap_or(0),
                            elapsed: bar.elapsed(),
                            ..Moment::default()
                        };
                        say(&format!("{}\n", work.plain(now)));
                    }
                }))
            }
        };
        Self { bar, ended, thread }
    }

    /// The line, for work that counts.
    pub(super) fn bar(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.ended.end();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has shown nothing more; the work itself is not affected.
            let _ = thread.join();
        }
        // The last step is drawn, whenever the one before it was, and the line goes.
        self.bar.abandon();
        self.bar.finish_and_clear();
    }
}

impl RunningWork {
    fn visible(self) -> Self {
        match self {
            RunningWork::Stage(name) => RunningWork::Stage(visible(&name)),
            RunningWork::Waiting(name) => RunningWork::Waiting(visible(&name)),
            RunningWork::Transfer(verb, name) => RunningWork::Transfer(verb, visible(&name)),
            RunningWork::Task(verb, name) => RunningWork::Task(verb, visible(&name)),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [RunningWork; 8] {
        let long = "disk-image-arm64-uefi-of-another-kind/arm64".to_owned();
        [
            RunningWork::Stage("raw/amd64".to_owned()),
            RunningWork::Stage(long.clone()),
            RunningWork::Waiting("kernel/amd64".to_owned()),
            RunningWork::Transfer("fetch", "raw/amd64".to_owned()),
            RunningWork::Transfer("fetch", long.clone()),
            RunningWork::Task("audit", long),
            RunningWork::Reading("checked"),
            RunningWork::All,
        ]
    }

    #[test]
    fn every_line_fits_every_terminal() {
        let now = Moment {
            done: 28_510_000,
            total: 30_000_000,
            per_second: 3_000_000,
            left: Duration::from_secs(86_400),
            elapsed: Duration::from_secs(5_000),
        };
        for work in all() {
            for columns in 0..200 {
                let line = work.live(now, columns);
                assert!(line.chars().count() < columns.max(1), "{columns}: {line:?}");
                assert!(!line.contains('\n'), "{line:?}");
            }
            assert!(work.live(now, 40).chars().count() > 10, "{work:?}");
        }
    }

    #[test]
    fn a_long_name_keeps_its_ends() {
        assert_eq!(cut("disk-image-arm64-uefi/arm64", 15), "disk-im…i/arm64");
        assert_eq!(cut("raw", 3), "raw");
        assert_eq!([cut("raw", 2), cut("raw", 1), cut("raw", 0)], ["r…", "…", ""]);
    }

    #[test]
    fn a_transfer_has_a_bar_as_wide_as_the_terminal_allows() {
        let now = Moment {
            done: 15 << 20,
            total: 30 << 20,
            per_second: 3 << 20,
            left: Duration::from_secs(5),
            elapsed: Duration::from_secs(5),
        };
        let work = RunningWork::Transfer("fetch", "rootfs/amd64".to_owned());
        let lines: Vec<String> = [40, 60, 80, 120].map(|columns| work.live(now, columns)).into();
        insta::assert_snapshot!(lines.join("\n"), @"
        fetch root…md64 15.00 MiB/30.00 MiB
        fetch rootfs/amd64 ██░░░ 15.00 MiB/30.00 MiB 3.00 MiB/s
        fetch rootfs/amd64 █████████░░░░░░░░░ 15.00 MiB/30.00 MiB 3.00 MiB/s eta 5s
        fetch rootfs/amd64 ███████████████░░░░░░░░░░░░░░░ 15.00 MiB/30.00 MiB 3.00 MiB/s eta 5s
        ");
        let whole = Moment { done: now.total, ..now };
        assert!(work.live(whole, 80).contains(&"█".repeat(30)), "the last step is drawn");
    }

    #[test]
    fn without_a_terminal_the_line_says_the_same() {
        let now = Moment {
            done: 7,
            total: 21,
            elapsed: Duration::from_secs(70),
            ..Moment::default()
        };
        let lines: Vec<String> = all().iter().map(|work| work.plain(now)).collect();
        insta::assert_snapshot!(lines.join("\n"), @"
          running raw/amd64, 1 min 10 s
          running disk-image-arm64-uefi-of-another-kind/arm64, 1 min 10 s
            waits for another pnb: kernel/amd64, 1 min 10 s
            fetch raw/amd64: 7 B of 21 B, 1 min 10 s
            fetch disk-image-arm64-uefi-of-another-kind/arm64: 7 B of 21 B, 1 min 10 s
            audit disk-image-arm64-uefi-of-another-kind/arm64, 1 min 10 s
          checked 7 B, 1 min 10 s
        7 of 21 stages, 1 min 10 s
        ");
    }
}
