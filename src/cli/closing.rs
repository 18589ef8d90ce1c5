//! The end of a command: one sentence on what was done, and the commands that can follow.

use super::{command_text::CommandText, report::Report};
use serde_json::{Map, Value};

/// The last lines of a command; with `--json` the last object, or fields of it.
#[derive(Debug)]
pub(super) struct Closing {
    sentence: String,
    next: Vec<CommandText>,
    fields: Map<String, Value>,
    place: Place,
}

/// Where the sentence is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// On standard error, as a remark.
    Remark,
    /// On standard output, as a result.
    Result,
    /// Nowhere: the text before it ends with the same.
    Text,
}

impl Closing {
    /// A closing remark, on standard error.
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            next: Vec::new(),
            fields: Map::new(),
            place: Place::Remark,
        }
    }

    /// A sentence that is a result of the command, on standard output.
    pub(super) fn verdict(sentence: impl Into<String>) -> Self {
        Self {
            place: Place::Result,
            ..Self::new(sentence)
        }
    }

    /// A sentence that the text of the result ends with already; it is in the last object only.
    pub(super) fn said(sentence: impl Into<String>) -> Self {
        Self {
            place: Place::Text,
            ..Self::new(sentence)
        }
    }

    /// The same with a command that can follow.
    pub(super) fn next(mut self, command: CommandText) -> Self {
        self.next.push(command);
        self
    }

    /// The same with commands that can follow.
    pub(super) fn nexts(mut self, commands: impl IntoIterator<Item = CommandText>) -> Self {
        self.next.extend(commands);
        self
    }

    /// The same with a field of the last object.
    pub(super) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    fn commands(&self) -> Vec<String> {
        self.next.iter().map(ToString::to_string).collect()
    }

    /// `fields` with the sentence and the commands.
    fn object(&self, mut fields: Map<String, Value>) -> Value {
        fields.extend(self.fields.clone());
        fields.insert("summary".to_owned(), self.sentence.clone().into());
        fields.insert("next".to_owned(), self.commands().into());
        Value::Object(fields)
    }
}

impl Report {
    /// Ends the command `command`, which printed events or lines.
    pub(super) fn close(&self, command: &str, closing: &Closing) {
        self.clear();
        if self.json() {
            let event = Map::from_iter([
                ("event".to_owned(), "end".into()),
                ("command".to_owned(), command.into()),
            ]);
            self.value(closing.object(event));
            return;
        }
        match closing.place {
            Place::Result => self.line(&closing.sentence),
            Place::Remark => self.note(&closing.sentence),
            Place::Text => {}
        }
        for (index, command) in closing.commands().iter().enumerate() {
            let lead = if index == 0 { "next:" } else { "" };
            self.note(format_args!("{lead:5} {command}"));
        }
    }

    /// Ends a command with one result: `value` for programs, `text` for people.
    pub(super) fn close_with(&self, value: impl serde::Serialize, text: &str, closing: &Closing) {
        self.clear();
        if !self.json() {
            self.text(text);
            return self.close("", closing);
        }
        match serde_json::to_value(value) {
            Ok(Value::Object(fields)) => self.value(closing.object(fields)),
            Ok(value) => self.value(value),
            Err(_) => {}
        }
    }
}

/// A time of work for people: `0.4 s`, `12 s`, `1 min 44 s`, `2 h 03 min`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{seconds}.{} s", ms % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A number of things: `1 file`, `2 files`.
pub(super) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_for_people() {
        let times = [0, 449, 9_999, 10_000, 59_999, 60_000, 104_000, 3_600_000, 7_380_000].map(duration);
        assert_eq!(
            times,
            [
                "0.0 s",
                "0.4 s",
                "9.9 s",
                "10 s",
                "59 s",
                "1 min 00 s",
                "1 min 44 s",
                "1 h 00 min",
                "2 h 03 min"
            ]
        );
        assert_eq!([0, 1, 2].map(|n| count(n, "file")), ["0 files", "1 file", "2 files"]);
    }

    #[test]
    fn the_last_object_has_the_sentence_and_the_commands() {
        let closing = Closing::new("done")
            .next(CommandText::new(["audit", "images"]))
            .field("built", 3);
        let object = closing.object(Map::from_iter([("event".to_owned(), "end".into())]));
        assert_eq!(
            object,
            serde_json::json!({ "event": "end", "built": 3, "summary": "done", "next": ["pnb audit images"] })
        );
    }
}
