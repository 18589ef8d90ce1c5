//! `pnb diff`: the differences between two artifacts.

use super::{
    Exit,
    args::Common,
    context::{spool, store},
    failure::Failure,
    report::{Report, size},
};
use clap::Args;
use pnb::{
    inspect::{self, Comparison, Difference, What},
    model::visible,
};
use std::path::PathBuf;

/// Options of `pnb diff`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb diff images/raw/amd64/disk.raw other/disk.raw\n  \
    pnb diff images/kernel-initrd/amd64 yesterday/kernel-initrd/amd64 --limit 20")]
pub(super) struct DiffArgs {
    /// File or directory
    pub(super) a: PathBuf,
    /// File or directory to compare it with
    pub(super) b: PathBuf,
    /// Number of differences to list; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) limit: usize,
}

pub(super) fn diff(common: &Common, args: &DiffArgs, report: &Report) -> Result<Exit, Failure> {
    let store = store(common)?;
    let scratch = spool(&store)?;
    let a = inspect::open_path(&args.a)?;
    let b = inspect::open_path(&args.b)?;
    let found = inspect::diff((&a.0, a.1.as_deref()), (&b.0, b.1.as_deref()), &scratch, args.limit);
    let found = found?;
    if report.json() {
        for difference in &found.differences {
            report.value(serde_json::json!(difference));
        }
        report.value(serde_json::json!({ "equal": found.equal(), "total": found.total }));
    } else {
        report.text(&differences(&found));
    }
    Ok(if found.equal() { Exit::Success } else { Exit::Different })
}

/// The differences as text: one per line, then the number of those that are not listed.
fn differences(found: &Comparison) -> String {
    let mut out = String::new();
    for difference in &found.differences {
        out.push_str(&sentence(difference));
        out.push('\n');
    }
    let more = found.total - found.differences.len() as u64;
    if more > 0 {
        out.push_str(&format!("and {more} more\n"));
    }
    out
}

fn differing(bytes: u64) -> String {
    if bytes == 1 {
        "1 byte differs".to_owned()
    } else {
        format!("{bytes} bytes differ")
    }
}

pub(super) fn sentence(difference: &Difference) -> String {
    let value = |v: &Option<String>| v.as_ref().map_or_else(|| "nothing".to_owned(), |v| format!("{v:?}"));
    let what = match &difference.what {
        What::OnlyInA { size: bytes } => format!("only in the first ({})", size(*bytes)),
        What::OnlyInB { size: bytes } => format!("only in the second ({})", size(*bytes)),
        What::Format { a, b } => format!("{a} in the first, {b} in the second"),
        What::Field { field, a, b } => format!("{field} is {} in the first, {} in the second", value(a), value(b)),
        What::Package { package, a, b } => {
            let version = |v: &Option<String>| v.clone().unwrap_or_else(|| "not there".to_owned());
            format!("package {package}: {} -> {}", version(a), version(b))
        }
        What::Content {
            offset,
            bytes,
            sizes,
            a,
            b,
        } => {
            let lengths = if sizes.0 == sizes.1 {
                String::new()
            } else {
                format!(", {} against {} long", sizes.0, sizes.1)
            };
            let bytes = differing(*bytes);
            format!("content differs at byte {offset} ({bytes}{lengths}): \"{a}\" against \"{b}\"")
        }
        What::Compression { a, b, same: true } => {
            format!("the same content, as {a} in the first, as {b} in the second")
        }
        What::Compression { a, b, same: false } => {
            format!("stored as {a} in the first, as {b} in the second, and the content differs")
        }
        What::About { offset, bytes } => format!("its metadata differs at byte {offset} ({})", differing(*bytes)),
        What::Damaged { problem } => format!("cannot be compared: {problem}"),
        What::Incomplete { problem } => format!("is compared as far as it could be read: {problem}"),
        What::Padding { a, b, only } => {
            let only = if *only { "padding only" } else { "padding" };
            format!("{only}: {a} bytes in the first, {b} in the second")
        }
        What::Moved { parts, first, a, b } => {
            format!(
                "{parts} parts have another offset; {first}, the first of them, is at byte {a} in the first, {b} in the second"
            )
        }
    };
    let hint = difference
        .hint
        .map_or(String::new(), |hint| format!(" [{}]", hint.as_str()));
    let sentence = match difference.path.is_empty() {
        true => format!("{what}{hint}"),
        false => format!("{}: {what}{hint}", difference.path.join(" / ")),
    };
    // Names and values come from the files.
    visible(&sentence)
}
