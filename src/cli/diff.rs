//! `pnb diff`: the differences between two artifacts.

use super::{
    Exit,
    args::Common,
    context::{spool, store},
    failure::Failure,
    report::Report,
    verify_repro::UnwrittenReport,
};
use clap::Args;
use pnb::{
    inspect::{self, ChangedPart, Compared, Overview},
    model::visible,
    repro,
};
use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// A comparison that takes longer says what it is comparing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two such lines: on a terminal, where one replaces the other, and elsewhere.
const REFRESH: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_secs(10);
/// Names around a place that are shown meanwhile.
const SHOWN: usize = 4;
/// Width up to which names are padded, so that what stands behind them is aligned.
const NAMES: usize = 44;

/// Options of `pnb diff`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb diff images/raw/amd64/disk.raw other/disk.raw\n  \
    pnb diff images/kernel-initrd/amd64 yesterday/kernel-initrd/amd64 --limit 20\n  \
    pnb diff images/raw/amd64 images/iso/amd64 --html changes.html")]
pub(super) struct DiffArgs {
    /// File or directory
    pub(super) a: PathBuf,
    /// File or directory to compare it with
    pub(super) b: PathBuf,
    /// Number of changes to list for each part of the artifact; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) limit: usize,
    /// List every difference as well, with its place in the bytes, also those that follow from others
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Write the comparison as one HTML file, too
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}

pub(super) fn diff(common: &Common, args: &DiffArgs, report: &Report) -> Result<Exit, Failure> {
    let store = store(common)?;
    let scratch = spool(&store)?;
    let a = inspect::open_path(&args.a)?;
    let b = inspect::open_path(&args.b)?;
    let compared = watched(report, |watch| inspect::compare_artifacts(&a, &b, &scratch, watch))?;
    report.compared();
    if let Some(path) = &args.html {
        let (a, b) = (args.a.to_string_lossy(), args.b.to_string_lossy());
        let page = repro::changes_html(&a, &b, &compared, args.limit);
        fs::write(path, page).map_err(|source| UnwrittenReport {
            path: path.clone(),
            source,
        })?;
    }
    let Compared { found, overview } = &compared;
    if report.json() {
        for difference in found.differences.iter().take(args.limit) {
            let mut value = serde_json::json!(difference);
            value["part"] = serde_json::json!(inspect::part_of(difference));
            report.value(value);
        }
        report.value(serde_json::json!({
            "equal": found.equal(), "total": found.total, "notes": overview.notes, "summary": overview.summary,
        }));
    } else {
        report.text(&text(&compared, args));
    }
    Ok(if found.equal() { Exit::Success } else { Exit::Different })
}

/// Does `work`, and shows what it compares if it takes long.
fn watched<T>(report: &Report, work: impl FnOnce(inspect::Watch<'_>) -> T) -> T {
    let place: Mutex<Vec<String>> = Mutex::default();
    let (at_work, ended) = mpsc::channel::<()>();
    let shared = &place;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut wait = PATIENCE;
            // The channel ends with the work.
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let names = shared.lock().unwrap_or_else(PoisonError::into_inner).join(" / ");
                wait = match report.comparing(&visible(&names)) {
                    true => REFRESH,
                    false => PAUSE,
                };
            }
        });
        // Deeper places change too fast to be read.
        let watch = |names: &[String]| {
            let names = names.iter().take(SHOWN).cloned().collect();
            *place.lock().unwrap_or_else(PoisonError::into_inner) = names;
        };
        let done = work(&watch);
        drop(at_work);
        done
    })
}

/// The overview as text, and with `--verbose` every difference.
fn text(compared: &Compared, args: &DiffArgs) -> String {
    let Compared { found, overview } = compared;
    let mut out = summary(overview);
    for part in &overview.sections {
        out.push('\n');
        section(part, args, &mut out);
    }
    if args.verbose && found.total > 0 {
        out.push_str("\nevery difference\n");
        for difference in found.differences.iter().take(args.limit) {
            out.push_str(&format!("  {}\n", difference.sentence()));
        }
        let listed = found.differences.len().min(args.limit) as u64;
        more(found.total - listed, "  ", &mut out);
    }
    out
}

fn summary(overview: &Overview) -> String {
    let mut out = String::new();
    for note in &overview.notes {
        out.push_str(&format!("{}\n", visible(note)));
    }
    for aspect in &overview.summary {
        out.push_str(&format!("{:<13} {}\n", aspect.name, visible(&aspect.text)));
    }
    if overview.total == 0 {
        out.push_str("no byte differs\n");
    }
    out
}

fn section(part: &ChangedPart, args: &DiffArgs, out: &mut String) {
    out.push_str(&format!("{}\n", part.name));
    let all: usize = part.groups.iter().map(|group| group.rows.len()).sum();
    let mut left = args.limit;
    for group in &part.groups {
        let rows = &group.rows[..group.rows.len().min(left)];
        if rows.is_empty() {
            break;
        }
        left -= rows.len();
        let indent = match group.name.is_empty() {
            true => "  ",
            false => {
                out.push_str(&format!("  {}\n", visible(&group.name)));
                "    "
            }
        };
        let names: Vec<String> = rows.iter().map(|row| visible(&row.name)).collect();
        let width = names
            .iter()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0)
            .min(NAMES);
        for (row, name) in rows.iter().zip(names) {
            let hint = row.hint.map_or(String::new(), |hint| format!(" [{}]", hint.as_str()));
            let line = format!(
                "{indent}{} {name:<width$}  {}{hint}",
                row.mark.sign(),
                visible(&row.detail)
            );
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    more(all.saturating_sub(args.limit) as u64, "  ", out);
    if part.implied > 0 && !args.verbose {
        let differences = if part.implied == 1 { "difference" } else { "differences" };
        let line = format!("  {} {differences} in its stored form (-v lists them)\n", part.implied);
        out.push_str(&line);
    }
}

fn more(number: u64, indent: &str, out: &mut String) {
    if number > 0 {
        out.push_str(&format!("{indent}and {number} more\n"));
    }
}
