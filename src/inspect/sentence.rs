//! Differences in words.

use super::{
    diff::{Difference, What},
    overview::human,
};
use crate::model::visible;

fn differing(bytes: u64) -> String {
    if bytes == 1 {
        "1 byte differs".to_owned()
    } else {
        format!("{bytes} bytes differ")
    }
}

impl What {
    /// Whether only one side has the part.
    pub(super) const fn one_sided(&self) -> bool {
        matches!(self, What::OnlyInA { .. } | What::OnlyInB { .. })
    }

    /// The difference in words, without its place. Values from the compared files are in it as they are.
    pub fn sentence(&self) -> String {
        let value = |v: &Option<String>| v.as_ref().map_or_else(|| "nothing".to_owned(), |v| format!("{v:?}"));
        match self {
            What::OnlyInA { size, .. } => format!("only in the first ({})", human(*size)),
            What::OnlyInB { size, .. } => format!("only in the second ({})", human(*size)),
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
            What::Grown { a, b, partitions } => {
                let (which, more) = if a < b { ("second", b - a) } else { ("first", a - b) };
                let more = human(more);
                format!("the {which} disk is longer by {more}, and the partitions are equal ({partitions})")
            }
            What::Moved { parts, first, a, b } => {
                format!(
                    "{parts} parts have another offset; {first}, the first of them, is at byte {a} in the first, {b} in the second"
                )
            }
        }
    }
}

impl Difference {
    /// The difference with its place in one line, in which everything from the compared files is visible.
    pub fn sentence(&self) -> String {
        let what = self.what.sentence();
        let hint = self.hint.map_or(String::new(), |hint| format!(" [{}]", hint.as_str()));
        let sentence = match self.path.is_empty() {
            true => format!("{what}{hint}"),
            false => format!("{}: {what}{hint}", self.path.join(" / ")),
        };
        visible(&sentence)
    }
}
