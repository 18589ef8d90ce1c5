//! Text on a page, and numbers in words.

use crate::model::{Epoch, visible};
use maud::Render;
use std::fmt::Display;

/// Text from outside, made visible and escaped for HTML: in an element or in an attribute.
///
/// Control characters, invisible characters and those that change the direction of writing are shown by their numbers, so that two
/// different names never look alike.
pub(super) struct Text<T>(pub T);

impl<T: Display> Render for Text<T> {
    fn render_to(&self, page: &mut String) {
        visible(&self.0.to_string()).render_to(page);
    }
}

/// `1 output`, `2 outputs`.
pub(super) fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// `a`, `a and b`, `a, b and c`; of more than four names only the first three.
pub(super) fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => only.clone(),
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

/// The common beginning of two texts, the middle of each, and their common end.
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
        let text = |text: &str| Text(text).render().into_string();
        assert_eq!(
            text("</script><a b='c' d=\"e\">&amp;"),
            "&lt;/script&gt;&lt;a b='c' d=&quot;e&quot;&gt;&amp;amp;"
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
        let list = |names: &str| list(&names.chars().map(String::from).collect::<Vec<_>>());
        assert_eq!(list("ab"), "a and b");
        assert_eq!(list("abcd"), "a, b, c and d");
        assert_eq!(list("abcde"), "a, b, c and 2 more");
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
