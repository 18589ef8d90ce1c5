//! pnb's canonical JSON: each value has exactly one sequence of bytes.
//!
//! **This is not JCS** (RFC 8785, <https://www.rfc-editor.org/rfc/rfc8785>), and a JCS library neither writes nor accepts it. It shares
//! the rules of RFC 8785 for strings and for the order of keys. Unlike JCS it is indented, so that two files can be compared line by
//! line, and it has no fractions:
//!
//! - UTF-8, no byte order mark; keys in ascending order of their UTF-16 code units, none twice;
//! - strings escape `"`, `\` and control characters only, as `\b \t \n \f \r` or `\u00xx` in lower case;
//! - numbers are decimal integers from -2^63 to 2^64-1; a fraction or an exponent is an error, in writing and in reading;
//! - every member and element stands on its own line, two spaces deeper than its object or array, which is `{}` or `[]` when empty;
//!   a colon has one space after it and none before it; the text ends with one line feed.
//!
//! For the files pnb writes, `jq -S --indent 2 .` gives the same form. Reading accepts these bytes and no others.

use super::ManifestError;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use std::fmt::{self, Write};

/// Largest statement about a build, bytes.
pub const MAX_SIZE: u64 = 64 << 20;

/// Writes `value` in canonical form; `what` names the value in errors.
pub fn to_canonical<T: Serialize>(value: &T, what: &'static str) -> Result<String, ManifestError> {
    let value = serde_json::to_value(value).map_err(|source| ManifestError::Serialize { what, source })?;
    write_value(&value)
}

/// Writes a JSON value in canonical form. A floating-point number is an error that names its place.
pub fn write_value(value: &Value) -> Result<String, ManifestError> {
    let mut out = String::new();
    emit(&mut out, value, 0, &mut String::new())?;
    out.push('\n');
    Ok(out)
}

fn emit(out: &mut String, value: &Value, depth: usize, place: &mut String) -> Result<(), ManifestError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) if n.is_u64() || n.is_i64() => {
            let _ = write!(out, "{n}");
        }
        Value::Number(n) => {
            return Err(ManifestError::Value {
                place: format!("{place:?}"),
                problem: format!("{n} is not an integer of 64 bits"),
            });
        }
        Value::String(s) => emit_string(out, s),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Object(map) if map.is_empty() => out.push_str("{}"),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(out, i, depth + 1);
                let len = place.len();
                let _ = write!(place, "/{i}");
                emit(out, item, depth + 1, place)?;
                place.truncate(len);
            }
            break_line(out, depth);
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            for (i, (key, item)) in members.into_iter().enumerate() {
                separate(out, i, depth + 1);
                emit_string(out, key);
                out.push_str(": ");
                let len = place.len();
                let _ = write!(place, "/{key}");
                emit(out, item, depth + 1, place)?;
                place.truncate(len);
            }
            break_line(out, depth);
            out.push('}');
        }
    }
    Ok(())
}

fn separate(out: &mut String, index: usize, depth: usize) {
    if index > 0 {
        out.push(',');
    }
    break_line(out, depth);
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn emit_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A JSON value without repeated keys and with integers as its only numbers.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(Number::from(value)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(Number::from(value)))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Err(E::custom(format_args!("number {value} is not an integer of 64 bits")))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} is there twice")));
            }
            let Strict(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Reads JSON without repeated keys and with integers as its only numbers. Errors give `file`, line and column.
pub fn read_strict(bytes: &[u8], file: &str) -> Result<Value, ManifestError> {
    if bytes.len() as u64 > MAX_SIZE {
        return Err(ManifestError::TooLarge {
            file: file.to_owned(),
            size: bytes.len() as u64,
            limit: MAX_SIZE,
        });
    }
    let Strict(value) = serde_json::from_slice(bytes).map_err(|source| ManifestError::Json {
        file: file.to_owned(),
        source,
    })?;
    Ok(value)
}

/// Reads JSON that must be in canonical form, byte for byte.
pub fn read_value(bytes: &[u8], file: &str) -> Result<Value, ManifestError> {
    let value = read_strict(bytes, file)?;
    let canonical = write_value(&value)?;
    if canonical.as_bytes() != bytes {
        return Err(difference(canonical.as_bytes(), bytes, file));
    }
    Ok(value)
}

/// Reads a `T` from canonical JSON. `T` decides which fields are allowed.
pub fn from_canonical<T: DeserializeOwned>(bytes: &[u8], file: &str) -> Result<T, ManifestError> {
    read_value(bytes, file)?;
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Json {
        file: file.to_owned(),
        source,
    })
}

fn difference(expected: &[u8], actual: &[u8], file: &str) -> ManifestError {
    let same = expected.iter().zip(actual).take_while(|(a, b)| a == b).count();
    let line_around = |bytes: &[u8]| {
        let from = bytes[..same].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let to = bytes[same..]
            .iter()
            .position(|b| *b == b'\n')
            .map_or(bytes.len(), |i| same + i);
        crate::model::excerpt(&format!("{:?}", String::from_utf8_lossy(&bytes[from..to])))
    };
    ManifestError::NotCanonical {
        file: file.to_owned(),
        line: 1 + expected[..same].iter().filter(|b| **b == b'\n').count(),
        offset: same,
        expected: line_around(expected),
        actual: line_around(actual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn known_bytes() {
        let value =
            json!({"b": [1, -2, {}], "a\n\u{1}\u{7f}é\"\\": null, "€": [], "\u{1F600}": true, "\u{fb33}": u64::MAX});
        // RFC 8785 3.2.3: U+1F600 sorts before U+FB33, since its first UTF-16 code unit is D83D.
        let want = "{\n  \"a\\n\\u0001\u{7f}é\\\"\\\\\": null,\n  \"b\": [\n    1,\n    -2,\n    {}\n  ],\n  \"€\": [],\n  \"\u{1F600}\": true,\n  \"\u{fb33}\": 18446744073709551615\n}\n";
        assert_eq!(write_value(&value).expect("no floats"), want);
        assert_eq!(read_value(want.as_bytes(), "x").expect("canonical"), value);
    }

    #[test]
    fn what_is_read_is_exactly_what_is_written() {
        for (text, want) in [
            (
                "{\n  \"a\": 1,\n  \"a\": 1\n}\n",
                "key \"a\" is there twice at line 3 column 5",
            ),
            (
                "{\n  \"a\": 1.0\n}\n",
                "number 1 is not an integer of 64 bits at line 2",
            ),
            ("{\n  \"a\": -0\n}\n", "not an integer"),
            ("{\n  \"a\": 18446744073709551616\n}\n", "not an integer"),
            ("{\n  \"a\": 1\n}", "line 3 (byte 12) is not in canonical form"),
            ("{\n  \"a\":  1\n}\n", "line 2 (byte 9) is not in canonical form"),
            ("{\n  \"b\": 1,\n  \"a\": 1\n}\n", "line 2 (byte 5)"),
            ("{\n  \"\\u0061\": 1\n}\n", "line 2 (byte 5)"),
            ("\u{feff}{}\n", "expected value at line 1 column 1"),
            ("{} {}\n", "trailing characters"),
            ("", "EOF while parsing"),
        ] {
            let err = read_value(text.as_bytes(), "x.json").expect_err(text);
            let mut message = err.to_string();
            if let Some(source) = std::error::Error::source(&err) {
                message = format!("{message}: {source}");
            }
            assert!(
                message.contains(want) && message.contains("x.json"),
                "{message:?} lacks {want:?}"
            );
        }
        let deep = "[".repeat(100_000);
        assert!(read_value(deep.as_bytes(), "x").is_err());
        let err = write_value(&json!({"a": [0, {"b": 0.5}]})).expect_err("a float");
        assert!(err.to_string().contains("\"/a/1/b\""), "{err}");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_accepts_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = read_value(&bytes, "x") {
                prop_assert_eq!(write_value(&value).expect("was read").into_bytes(), bytes);
            }
        }
    }
}
