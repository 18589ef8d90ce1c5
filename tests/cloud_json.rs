//! powernode-json.awk, by which a node reads user data in JSON, against serde_json: on documents that are generated and then damaged.

#[path = "fixture/tools.rs"]
mod tools;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::{fmt, fs, path::Path};
use tools::check;

const READER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/dracut/modules.d/90powernode/powernode-json.awk"
);
const DOCUMENTS: usize = 1500;

/// The members of an object, in order, the same name perhaps twice.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// What the reader must do with a document: its status, and what it prints. `None` for a number that serde_json cannot hold.
fn expected(text: &str) -> Option<(u8, String)> {
    let members = match serde_json::from_str::<Members>(text) {
        Ok(members) => members.0,
        Err(error) if error.to_string().contains("out of range") => return None,
        Err(_) => return Some((2, String::new())),
    };
    let mut found = members
        .into_iter()
        .filter(|(name, _)| name == "k")
        .map(|(_, value)| value);
    Some(match (found.next(), found.next()) {
        (None | Some(Value::Null), None) => (1, String::new()),
        (Some(Value::String(value)), None) => (0, plain(&value)),
        _ => (2, String::new()),
    })
}

/// With one byte 1 for each run of characters that no value of an identity has.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, ' '..='~' | '\t' | '\r' | '\n') {
            out.push(c);
        } else if !out.ends_with('\x01') {
            out.push('\x01');
        }
    }
    out
}

fn string(random: &mut StdRng) -> String {
    let pieces = [
        "k",
        "a",
        " ",
        "/",
        "\\/",
        "\\\\",
        "\\\"",
        "\\n",
        "\\r",
        "\\t",
        "\\b",
        "\\f",
        "\\u006b",
        "\\u0041",
        "\\u00e9",
        "\\u0000",
        "\\uD83D\\uDE00",
        "\\u007e",
        "\\u007f",
        "ü",
        "世",
        "-----BEGIN",
        "\u{7f}",
        "'",
        "$(id)",
        "{",
        "]",
        ":",
        "%s",
    ];
    let many = random.gen_range(0..6);
    let inside: String = (0..many).map(|_| *pieces.choose(random).expect("some")).collect();
    format!("\"{inside}\"")
}

fn value(random: &mut StdRng, depth: u32) -> String {
    match random.gen_range(0..if depth > 6 { 6 } else { 9 }) {
        0 | 1 => string(random),
        2 => ["true", "false", "null"]
            .choose(random)
            .copied()
            .expect("some")
            .to_owned(),
        3..=5 => ["0", "-0", "12", "-1.5", "1e5", "0.25E-3", "10e+2"]
            .choose(random)
            .copied()
            .expect("some")
            .to_owned(),
        6 => {
            let many = random.gen_range(0..4);
            let all: Vec<String> = (0..many).map(|_| value(random, depth + 1)).collect();
            format!("[{}]", all.join(space(random)))
        }
        _ => object(random, depth + 1),
    }
}

/// A comma with white space around it, sometimes.
fn space(random: &mut StdRng) -> &'static str {
    [",", ", ", " ,\n", "\t,\r\n"].choose(random).copied().expect("some")
}

fn object(random: &mut StdRng, depth: u32) -> String {
    let many = random.gen_range(0..5);
    let members: Vec<String> = (0..many)
        .map(|_| {
            let name = match random.gen_range(0..8) {
                0 => "\"k\"".to_owned(),
                1 => "\"\\u006b\"".to_owned(),
                _ => string(random),
            };
            let colon = [":", " : ", "\n:"].choose(random).copied().expect("some");
            let text = name.contains('k') && random.gen_bool(0.7);
            let value = if text { string(random) } else { value(random, depth) };
            format!("{name}{colon}{value}")
        })
        .collect();
    format!("{{{}}}", members.join(space(random)))
}

/// Takes out, doubles or replaces a character.
fn damage(random: &mut StdRng, text: &str) -> String {
    let mut all: Vec<char> = text.chars().collect();
    let odd: Vec<char> = "{}[]\",:\\u0e.-+ k\n\tt".chars().collect();
    let at = random.gen_range(0..all.len());
    let new = *odd.choose(random).expect("some");
    match random.gen_range(0..4) {
        0 => drop(all.remove(at)),
        1 => all.insert(at, new),
        2 => all.truncate(at),
        _ => all[at] = new,
    }
    all.into_iter().collect()
}

#[test]
fn user_data_in_json_is_read_as_by_another_reader() {
    let mut random = StdRng::seed_from_u64(7);
    let mut documents: Vec<String> = [
        "",
        " ",
        "{}",
        "[]",
        "null",
        "\"k\"",
        "{\"k\":\"v\"} ",
        "{\"k\":\"v\"},",
        "\u{feff}{}",
        "{\"k\":\"a\u{1}\"}",
    ]
    .map(str::to_owned)
    .to_vec();
    documents.push(format!("{{\"k\":\"{}\"}}", "x".repeat(60_000)));
    documents.push(format!("{{\"a\":{}{},\"k\":\"v\"}}", "[".repeat(30), "]".repeat(30)));
    while documents.len() < DOCUMENTS {
        let text = object(&mut random, 1);
        let damaged = random.gen_bool(0.4);
        documents.push(if damaged { damage(&mut random, &text) } else { text });
    }
    let dir = tempfile::tempdir().expect("a directory");
    for (n, text) in documents.iter().enumerate() {
        fs::write(dir.path().join(n.to_string()), text).expect("written");
    }
    let last = documents.len() - 1;
    let script = format!(
        "for n in $(seq 0 {last}); do LC_ALL=C busybox awk -v key=k -f /inputs/1 /inputs/0/$n >out/$n && s=0 || s=$?; echo $s >>out/$n; done"
    );
    let (_, files) = check(&[dir.path(), Path::new(READER)], &script);
    let mut seen = [0; 3];
    for (n, text) in documents.iter().enumerate() {
        let Some((status, value)) = expected(text) else {
            continue;
        };
        let said = String::from_utf8(files[&n.to_string()].clone()).expect("ASCII");
        let want = format!("{value}{status}\n");
        // The document's newline at the end of a value is its own.
        assert_eq!(plain(&said), want, "document {n}: {text:?}");
        seen[usize::from(status)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}
