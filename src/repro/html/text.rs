//! Text on a page: whatever it holds, it stays text.

use crate::model::Epoch;
use std::fmt::{self, Display, Write};

/// Text as HTML shows it, in an element or in a quoted attribute.
///
/// What HTML would read as markup is written as a reference. Control characters, invisible ones and those that change the
/// direction of writing are told by their numbers: two names that look alike must not be two.
pub(super) struct Text<'a>(pub &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => show(c, f)?,
            }
        }
        Ok(())
    }
}

/// The same, not yet for HTML: to be cut, and then shown as [`Text`].
pub(super) fn visible(text: &str) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = text.chars().try_for_each(|c| show(c, &mut out));
    out
}

fn show(c: char, out: &mut impl Write) -> fmt::Result {
    match c {
        '\\' | '\'' | '"' => out.write_char(c),
        _ => write!(out, "{}", c.escape_debug()),
    }
}

/// `1 output`, `2 outputs`.
pub(super) fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// `a`, `a and b`, `a, b and c`; of more than four the first three.
pub(super) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] if names.len() <= 4 => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
    }
}

/// An instant, seconds since 1970, in RFC 3339.
pub(super) fn instant(seconds: u64) -> String {
    u32::try_from(seconds).map_or_else(|_| format!("{seconds} s after 1970"), |s| Epoch::new(s).to_rfc3339())
}

/// A duration in seconds: `1 h 2 min 3 s`.
pub(super) fn duration(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes} min {rest} s"),
        _ => format!("{hours} h {minutes} min {rest} s"),
    }
}

/// What two texts have in common at their beginnings and ends, and what is between, of each.
pub(super) fn parts<'a>(a: &'a str, b: &'a str) -> (&'a str, [&'a str; 2], &'a str) {
    let same = |(x, y): &(char, char)| x == y;
    let before: usize = a
        .chars()
        .zip(b.chars())
        .take_while(same)
        .map(|(c, _)| c.len_utf8())
        .sum();
    let (rest_a, rest_b) = (&a[before..], &b[before..]);
    let backwards = rest_a.chars().rev().zip(rest_b.chars().rev());
    let after: usize = backwards.take_while(same).map(|(c, _)| c.len_utf8()).sum();
    let (middle_a, end) = rest_a.split_at(rest_a.len() - after);
    (&a[..before], [middle_a, &rest_b[..rest_b.len() - after]], end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_markup_and_nothing_is_invisible() {
        let text = |text: &str| Text(text).to_string();
        assert_eq!(
            text("</script><a b='c' d=\"e\">&amp;"),
            "&lt;/script&gt;&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;amp;"
        );
        assert_eq!(text("a\0b\x1b[31m\r\n\t"), "a\\0b\\u{1b}[31m\\r\\n\\t");
        assert_eq!(text("gpj.\u{202e}exe\u{feff}"), "gpj.\\u{202e}exe\\u{feff}");
        assert_eq!(text("Grüße, 世界 \\x00"), "Grüße, 世界 \\x00");
    }

    #[test]
    fn numbers_and_lists_read_well() {
        assert_eq!(
            (count(1, "file"), count(0, "file")),
            ("1 file".to_owned(), "0 files".to_owned())
        );
        assert_eq!(list(&["a", "b"]), "a and b");
        assert_eq!(list(&["a", "b", "c", "d"]), "a, b, c and d");
        assert_eq!(list(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert_eq!(
            (duration(59), duration(61), duration(7322)),
            ("59 s".into(), "1 min 1 s".into(), "2 h 2 min 2 s".into())
        );
        assert_eq!(instant(1_795_252_544), "2026-11-21T09:15:44Z");
        assert_eq!(instant(u64::MAX), "18446744073709551615 s after 1970");
    }

    #[test]
    fn what_two_texts_share_is_found_at_both_ends() {
        assert_eq!(parts("10:15", "10:35"), ("10:", ["1", "3"], "5"));
        assert_eq!(parts("aa", "aaa"), ("aa", ["", "a"], ""));
        assert_eq!(parts("ä-x", "ö-x"), ("", ["ä", "ö"], "-x"));
        assert_eq!(parts("", "b"), ("", ["", "b"], ""));
        assert_eq!(parts("same", "same"), ("same", ["", ""], ""));
    }
}
