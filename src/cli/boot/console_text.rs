//! The text on a machine's console, without the control sequences of a terminal.

use std::mem;

/// Longest incomplete character at the end of a piece, in bytes.
const TAIL: usize = 3;

/// Takes the text out of what a machine writes to its console. Firmware, boot loaders and systemd move the cursor, clear the screen and
/// set colours; those sequences (ECMA-48) are dropped, and so are control characters other than line feed and tab.
#[derive(Default)]
pub(super) struct ConsoleText {
    state: State,
    /// The beginning of a character whose other bytes have not arrived.
    incomplete: Vec<u8>,
}

/// The place in a control sequence.
#[derive(Default, Clone, Copy, PartialEq)]
enum State {
    /// None: text.
    #[default]
    Text,
    /// After ESC, and intermediate bytes.
    Escape,
    /// After CSI: parameters, until a final byte.
    Sequence,
    /// After OSC, DCS, APC, PM or SOS: text for the terminal, until BEL or ST.
    String,
    /// After ESC in such a text, perhaps the beginning of ST.
    StringEscape,
}

impl ConsoleText {
    /// The text in the next bytes of a machine.
    pub(super) fn take(&mut self, bytes: &[u8]) -> String {
        let mut text = mem::take(&mut self.incomplete);
        for &byte in bytes {
            // A line ends every sequence, so that one without an end does not hide what follows.
            if byte == b'\n' {
                self.state = State::Text;
            }
            self.state = match (self.state, byte) {
                (State::StringEscape, b'\\') => State::Text,
                (State::String, 0x1b) => State::StringEscape,
                (_, 0x1b) => State::Escape,
                (State::Text, b'\n' | b'\t' | 0x20..) => {
                    text.push(byte);
                    State::Text
                }
                (State::Text, _) => State::Text,
                (State::Escape, b'[') => State::Sequence,
                (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
                (State::Escape, 0x20..=0x2f) => State::Escape,
                (State::Sequence, 0x20..=0x3f) => State::Sequence,
                (State::Escape | State::Sequence, _) => State::Text,
                (State::String, 0x07) => State::Text,
                (State::String | State::StringEscape, _) => State::String,
            };
        }
        let incomplete = incomplete(&text);
        self.incomplete = text.split_off(text.len() - incomplete);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Number of bytes at the end that are the beginning of a character.
fn incomplete(text: &[u8]) -> usize {
    let tail = &text[text.len().saturating_sub(TAIL)..];
    (0..tail.len())
        .find(|at| std::str::from_utf8(&tail[*at..]).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none()))
        .map_or(0, |at| tail.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_and_text_stays_however_it_is_cut() {
        let said = "\x1b[2J\x1b[01;01Hgrub> \x1b[0;1;32mOK\x1b[m ü世\r\n\x1b]0;title\x07a\x1b]52;c;ZXZpbA==\x1b\\b\x1b(B\x1b7\x08\0c\x7f\n\
            \x1bPq hidden\nshown\u{9b}31m\u{202e}\x1b";
        let want = "grub> OK ü世\nabc\x7f\n\nshown\u{9b}31m\u{202e}";
        for size in 1..said.len() {
            let mut console = ConsoleText::default();
            let text: String = said.as_bytes().chunks(size).map(|piece| console.take(piece)).collect();
            assert_eq!(text, want, "pieces of {size}");
        }
        assert_eq!(ConsoleText::default().take(b"a\xffb\xc3("), "a\u{fffd}b\u{fffd}(");
    }
}
