//! The messages of all errors in the sources, as a user reads them. The snapshot beside this file is read by a person whenever it changes.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Types whose messages are parts of other messages, and do not complete "failed to …" themselves.
const PARTS: [&str; 6] = [
    // Why a place cannot have the artifacts, and why the machine has no KVM.
    "OutputProblem",
    "KvmProblem",
    // A value that does not parse: the reader names the file and the line.
    "ModelError",
    // A file of an archive, which `verify the archive …` names.
    "MetadataError",
    // An answer of a server, which `fetch …` names.
    "TransportFailure",
    // A file whose Merkle tree is built.
    "VerityError",
];

/// A message in the sources.
struct Message {
    file: String,
    owner: String,
    variant: String,
    template: String,
    cause: bool,
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    #[expect(clippy::disallowed_methods, reason = "the paths are sorted below")]
    let entries = fs::read_dir(dir).expect("readable");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The end of what begins with a bracket at the beginning of `text`, with strings left out of account.
fn closed(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_i32, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// A string literal at the beginning of `text`: its value, and what follows it.
fn literal(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                '\n' => {
                    // A line that goes on: the blanks at the beginning of the next one are left out.
                    let rest =
                        inner[chars.clone().next()?.0..].len() - inner[chars.clone().next()?.0..].trim_start().len();
                    for _ in 0..rest {
                        chars.next();
                    }
                }
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

/// Every message of a file.
fn messages(file: &str, text: &str) -> Vec<Message> {
    let mut found = Vec::new();
    let mut owner = String::new();
    let mut at = 0;
    while let Some(line) = text[at..].lines().next() {
        let trimmed = line.trim_start();
        let words: Vec<&str> = trimmed.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        if let Some(kind) = words.iter().position(|w| *w == "enum" || *w == "struct")
            && !trimmed.starts_with("//")
        {
            owner = words[kind + 1].to_owned();
        }
        if trimmed.starts_with("#[error(") {
            let start = at + (line.len() - trimmed.len());
            let attribute = &text[start..start + closed(&text[start + 1..]) + 1];
            let inner = attribute["#[error(".len()..].trim_start();
            // The item behind the other attributes and comments.
            let mut rest = text[start + attribute.len()..].trim_start();
            while rest.starts_with("#[") || rest.starts_with("//") {
                let end = match rest.strip_prefix('#') {
                    Some(attribute) => closed(attribute) + 1,
                    None => rest.find('\n').expect("a line"),
                };
                rest = rest[end..].trim_start();
            }
            let rest = rest.strip_prefix("pub(super) ").unwrap_or(rest);
            let end = rest.find([',', '{', '(', ';', '\n']).unwrap_or(rest.len());
            let head = rest[..end].trim();
            let body = match rest[end..].chars().next() {
                Some('{' | '(') => &rest[end..end + closed(&rest[end..])],
                _ => "",
            };
            let is_type = head.contains("struct ") || head.contains("enum ");
            let name = head.split_whitespace().last().unwrap_or_default().to_owned();
            if let Some((template, arguments)) = literal(inner) {
                found.push(Message {
                    file: file.to_owned(),
                    owner: if is_type { name.clone() } else { owner.clone() },
                    variant: if is_type { String::new() } else { name },
                    template: filled(&template, arguments),
                    cause: body.contains("source:") || body.contains("#[source]") || body.contains("#[from]"),
                });
            } else {
                assert!(inner.starts_with("transparent"), "{file}: {attribute}");
            }
            at = start + attribute.len();
            continue;
        }
        at += line.len() + 1;
        if at >= text.len() {
            break;
        }
    }
    found
}

/// The template with a sample for each value.
fn filled(template: &str, arguments: &str) -> String {
    // Positional arguments, in order.
    let mut given: Vec<String> = Vec::new();
    let mut rest = arguments.trim_start_matches([',', ' ', '\n']);
    while !rest.is_empty() && !rest.starts_with(')') {
        let mut end = 0;
        let (mut depth, mut quoted) = (0_i32, false);
        for (at, c) in rest.char_indices() {
            end = at;
            match c {
                '"' => quoted = !quoted,
                _ if quoted => {}
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth > 0 => depth -= 1,
                ',' | ')' if depth == 0 => break,
                _ => {}
            }
        }
        given.push(rest[..end].split_whitespace().collect::<Vec<_>>().join(" "));
        rest = rest[end..].trim_start_matches([',', ' ', '\n']);
    }
    let mut given = given.into_iter();
    let mut out = String::new();
    let mut chars = template.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '{' if template[at + 1..].starts_with('{') => {
                chars.next();
                out.push('{');
            }
            '}' if template[at + 1..].starts_with('}') => {
                chars.next();
                out.push('}');
            }
            '{' => {
                let end = at + template[at..].find('}').expect("closed");
                let inside = &template[at + 1..end];
                let (name, format) = inside.split_once(':').unwrap_or((inside, ""));
                let name = if name.is_empty() {
                    given.next().unwrap_or_default()
                } else {
                    name.to_owned()
                };
                let value = sample(&name);
                out.push_str(&if format.contains('?') {
                    format!("{value:?}")
                } else {
                    value
                });
                while chars.clone().next().is_some_and(|(next, _)| next <= end) {
                    chars.next();
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// A value as the field of this name, or the expression over it, has it.
fn sample(name: &str) -> String {
    let field = name
        .trim_end_matches(')')
        .rsplit(['(', '.'])
        .find(|part| !part.is_empty())
        .unwrap_or(name);
    let value = match field {
        "path" | "from" | "within" => "some/path",
        "file" => "stages/x/stage.toml",
        "dir" => "some/dir",
        "node" | "stage" => "rootfs/amd64",
        "arch" | "asked" => "arm64",
        "variant" => "raw",
        "line" => "7",
        "expected" | "sha256" | "digest" => "1234…",
        "actual" => "5678…",
        "what" | "verb" => "<what>",
        "problem" | "reason" | "why" => "<problem>",
        "image" => "registry.example/base",
        "url" => "https://server.example/x",
        "host" => "server.example",
        "0" => "<0>",
        other => return format!("<{other}>"),
    };
    value.to_owned()
}

#[test]
fn every_message_is_a_sentence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut all = Vec::new();
    for path in files.iter().filter(|path| !path.ends_with("tests.rs")) {
        let name = path.strip_prefix(root).expect("below").to_str().expect("UTF-8");
        let text = fs::read_to_string(path).expect("read");
        let program = text.split("\n#[cfg(test)]").next().expect("a part");
        all.extend(messages(name, program));
    }
    assert!(
        all.len() > 300,
        "{} messages: the sources are not read right",
        all.len()
    );
    let mut text = String::new();
    let mut wrong = Vec::new();
    let mut file = "";
    for message in &all {
        let Message {
            owner,
            variant,
            template,
            ..
        } = message;
        if message.file != file {
            file = &message.file;
            text.push_str(&format!("\n{file}\n"));
        }
        let part = PARTS.contains(&owner.as_str());
        let lead = if part { "… " } else { "error: failed to " };
        let cause = if message.cause { ": <cause>" } else { "" };
        text.push_str(&format!(
            "  {owner} {variant}\n    {lead}{}{cause}\n",
            template.replace('\n', "\n    ")
        ));
        let first = template.split([' ', ':']).next().unwrap_or_default();
        let verb = template.starts_with('<') || VERBS.contains(&first);
        if !part && !verb {
            wrong.push(format!("{file}: {owner} {variant}: failed to {template}"));
        }
        if template.ends_with(['.', ':']) {
            wrong.push(format!(
                "{file}: {owner} {variant}: {template:?} has a full stop or a colon at the end"
            ));
        }
    }
    insta::assert_snapshot!(text.trim_start());
    assert!(wrong.is_empty(), "no sentence:\n{}", wrong.join("\n"));
}

/// The verbs with which a message goes on after "failed to".
const VERBS: [&str; 58] = [
    "accept", "append", "boot", "build", "check", "choose", "compare", "compress", "copy", "create", "describe",
    "export", "fetch", "fill", "find", "get", "go", "keep", "lay", "listen", "load", "lock", "log", "look", "make",
    "merge", "mount", "name", "open", "order", "place", "plan", "prepare", "publish", "read", "relay", "release",
    "repeat", "require", "resolve", "run", "select", "serve", "set", "show", "sign", "start", "store", "take", "tell",
    "trust", "unpack", "upload", "use", "vary", "verify", "wait", "write",
];
