//! Text from outside, made visible and shortened for people: the one place that decides which characters are shown as they are.
//!
//! A name, a value or a line of a log can contain characters that move the cursor of a terminal, change its title or its clipboard,
//! reverse the direction of writing, or are invisible. They are shown by their numbers, `\u{1b}`, and bytes that are not UTF-8 as `\xff`.

use std::{fmt::Write, path::Path};

/// Letters and symbols without ink, which Unicode does not count as space or format characters: the fillers of Hangul, and an empty pattern
/// of Braille.
const BLANK: [char; 5] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}', '\u{2800}'];

/// Longest message of a parser that is shown whole, in bytes, and the parts of a longer one that are shown.
const WHOLE: usize = 600;
const PARTS: (usize, usize) = (300, 200);

/// Whether a terminal or a page shows the character as it is: not a control or format character, an unusual space, a combining or private
/// character, or one that is not assigned.
pub fn is_visible(c: char) -> bool {
    matches!(c, '\\' | '\'' | '"') || (c.escape_debug().len() == 1 && !BLANK.contains(&c))
}

fn push(out: &mut String, c: char) {
    match is_visible(c) {
        true => out.push(c),
        false if BLANK.contains(&c) => out.extend(c.escape_unicode()),
        false => out.extend(c.escape_debug()),
    }
}

/// A value as a part of one line: every character that is not visible is escaped, line feeds and tabs too.
pub fn visible(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    value.chars().for_each(|c| push(&mut out, c));
    out
}

/// The same of a text of several lines: line feeds and tabs stay, and a carriage return before a line feed is dropped.
pub fn visible_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' if chars.peek() == Some(&'\n') => {}
            _ => push(&mut out, c),
        }
    }
    out
}

/// Bytes as [`visible`]; those that are not UTF-8 become `\xff`.
pub fn visible_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&visible(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Bytes as [`visible_lines`]; those that are not UTF-8 become `\xff`.
pub fn visible_log(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&visible_lines(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A path as [`visible_bytes`].
pub fn visible_path(path: &Path) -> String {
    visible_bytes(path.as_os_str().as_encoded_bytes())
}

/// JSON text with the characters that are not visible as `\u202e`, or two of these beyond U+FFFF: the same values in visible characters.
pub fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // Spaces and line feeds between the values; in strings, all characters below U+0020 are escaped already.
        if is_visible(c) || c == '\n' {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// The message of a parser, which can contain a value of any length: one line, of which the middle is left out when it is long.
pub fn visible_message(message: &str) -> String {
    let message = message.trim_end();
    if message.len() <= WHOLE {
        return visible(&message.replace('\n', "; "));
    }
    let (start, end) = message.split_at(message.floor_char_boundary(PARTS.0));
    let end = &end[end.ceil_char_boundary(end.len() - PARTS.1)..];
    let left_out = message.len() - start.len() - end.len();
    format!("{} … {left_out} bytes … {}", visible(start), visible(end))
}

/// Cuts a value from outside so that an error message stays one readable line; a longer value says how long it is.
pub(crate) fn excerpt(value: &str) -> String {
    let mut out: String = value.chars().take(80).collect();
    if out.len() < value.len() {
        let _ = write!(out, "… ({} bytes)", value.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_invisible_stays() {
        for (text, want) in [
            ("Grüße, 世界 \\x00 'a' \"b\"", "Grüße, 世界 \\x00 'a' \"b\""),
            ("\x1b]52;c;ZXZpbA==\x07", "\\u{1b}]52;c;ZXZpbA==\\u{7}"),
            ("a\0b\x7fc\u{9b}31m", "a\\0b\\u{7f}c\\u{9b}31m"),
            (
                "gpj.\u{202e}exe\u{2066}\u{61c}\u{200e}",
                "gpj.\\u{202e}exe\\u{2066}\\u{61c}\\u{200e}",
            ),
            (
                "a\u{200b}\u{200d}\u{feff}\u{ad}\u{2060}",
                "a\\u{200b}\\u{200d}\\u{feff}\\u{ad}\\u{2060}",
            ),
            ("a\u{2028}b\u{2029}c\u{85}", "a\\u{2028}b\\u{2029}c\\u{85}"),
            (
                "a\u{e0041}\u{e0100}\u{fe0f}\u{180b}",
                "a\\u{e0041}\\u{e0100}\\u{fe0f}\\u{180b}",
            ),
            ("a\u{a0}\u{3000}\u{3164}\u{2800}", "a\\u{a0}\\u{3000}\\u{3164}\\u{2800}"),
            (
                "a\u{301}\u{fff9}\u{e000}\u{10ffff}",
                "a\\u{301}\\u{fff9}\\u{e000}\\u{10ffff}",
            ),
            ("a\r\nb\tc\rd", "a\\r\\nb\\tc\\rd"),
        ] {
            assert_eq!(visible(text), want);
            assert_eq!(visible_bytes(text.as_bytes()), want);
        }
        assert_eq!(visible_lines("a\r\nb\tc\rd\n\x1b[2J"), "a\nb\tc\\rd\n\\u{1b}[2J");
        assert_eq!(visible_log(b"a\xff\r\n\x1b[0m\tb"), "a\\xff\n\\u{1b}[0m\tb");
        assert_eq!(visible_bytes(b"a\xff\xc3b\xe2\x80\xaec"), "a\\xff\\xc3b\\u{202e}c");
        assert_eq!(
            visible_json("{\"a\":\"\u{202e}\u{7f}\u{e0041}ü\\n\"}\n"),
            "{\"a\":\"\\u202e\\u007f\\udb40\\udc41ü\\n\"}\n"
        );
    }

    #[test]
    fn long_values_are_cut_and_say_how_long_they_were() {
        assert_eq!(excerpt("short"), "short");
        assert_eq!(
            excerpt(&"x".repeat(1 << 20)),
            format!("{}… (1048576 bytes)", "x".repeat(80))
        );
        assert_eq!(visible_message("one\ntwo\n"), "one; two");
        let long = format!("unknown variant `{}`, expected `a` at line 3", "ü".repeat(1 << 19));
        let shown = visible_message(&long);
        assert!(shown.len() < 700, "{shown}");
        assert!(shown.starts_with("unknown variant `üü"), "{shown}");
        assert!(
            shown.contains("… 10481") && shown.ends_with("`, expected `a` at line 3"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn any_text_becomes_visible(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC*|.{0,900}") {
            for shown in [visible_bytes(&bytes), visible(&text), visible_message(&text)] {
                prop_assert!(shown.chars().all(is_visible), "{shown:?}");
            }
            let json = serde_json::to_string(&text).expect("a string");
            let shown = visible_json(&json);
            prop_assert!(shown.chars().all(is_visible));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), text);
        }
    }
}
