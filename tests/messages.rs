//! The messages of all errors in the sources, as a user reads them: the message, the hint and the exit code. The snapshot beside this
//! file is read by a person whenever it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Types whose messages are parts of other messages, and do not complete "failed to …" themselves.
const PARTS: [&str; 7] = [
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
    // A pack of a remote cache, which the error of the cache names.
    "PackError",
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
            let visible = ["pub(super) ", "pub(crate) "]
                .iter()
                .find_map(|word| rest.strip_prefix(word));
            let rest = visible.unwrap_or(rest);
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
    // The first text of two, a list, and a function of several values.
    if let Some((_, text)) = name.split_once('"').filter(|_| name.starts_with("if ")) {
        return format!("<{}>", text.split('"').next().unwrap_or_default().trim());
    }
    let name = match name.split_once(".join(") {
        Some((list, _)) if list.contains('(') => "list",
        Some((list, _)) => list,
        None => name,
    };
    let name = match name.split_once('(') {
        Some((function, arguments)) if arguments.contains(", ") => function,
        _ => name,
    };
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

/// Where in `text` the first of `wanted` is, outside of strings, comments and brackets.
fn outside(text: &str, wanted: &[&str]) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if wanted.iter().any(|word| rest.starts_with(word)) {
            return Some(at);
        }
        at += match rest.chars().next()? {
            '"' => rest.len() - literal(rest)?.1.len(),
            '(' | '[' | '{' => closed(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            other => other.len_utf8(),
        };
    }
    None
}

/// The block in braces behind the first `head` of `text`, without the braces, and what is before and behind it.
fn block<'a>(text: &'a str, head: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let start = text.find(head)?;
    let open = start + outside(&text[start..], &["{"])?;
    let end = open + closed(&text[open..]);
    Some((&text[..start], &text[open + 1..end - 1], &text[end..]))
}

/// The arms of a `match`: each pattern with its guard, and its expression.
fn arms(mut rest: &str) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    while let Some(arrow) = outside(rest, &["=>"]) {
        let lines = rest[..arrow]
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("//"));
        let pattern = lines.collect::<Vec<_>>().join(" ");
        let body = rest[arrow + 2..].trim_start();
        let end = match body.starts_with('{') {
            true => closed(body),
            false => outside(body, &[","]).unwrap_or(body.len()),
        };
        found.push((pattern.trim().to_owned(), &body[..end]));
        rest = body[end..].trim_start_matches([',', ' ', '\n']);
    }
    found
}

/// The value of the constant `name` of a file.
fn constant(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("const {name}: &str ="))?;
    literal(rest.trim_start()).map(|(value, _)| value)
}

/// The string literals and constants of an expression of the file `text`, with samples for their values; for an expression without any,
/// the values that it hands on.
fn sayings(text: &str, expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let capitals = |c: char| c.is_ascii_uppercase() || c == '_';
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.len() > 3 && word.chars().all(capitals));
    found.extend(names.filter_map(|name| constant(text, name)));
    let mut rest = expression;
    while let Some(quote) = rest.find('"') {
        let Some((template, after)) = literal(&rest[quote..]) else {
            break;
        };
        // An argument of `join` or `split`, and a word that is looked for, is no sentence.
        if !["join(", "split(", "contains("]
            .iter()
            .any(|call| rest[..quote].ends_with(call))
        {
            let format = rest[..quote].trim_end().ends_with("format!(");
            found.push(if format { filled(&template, after) } else { template });
        }
        rest = after;
    }
    if found.is_empty() {
        let said = [
            (".hint()", "<the hint of the cause>"),
            ("hint_at_name", "did you mean `<name>`?"),
            ("hint", "<the hint that the error was made with>"),
            ("fix", "<fix>"),
            ("quoted", "`<command>`"),
        ];
        let word = said.iter().find(|(part, _)| expression.contains(part));
        found.extend(word.map(|(_, saying)| (*saying).to_owned()));
    }
    found
}

/// A part of what is said of an error: the type and the variant that it is about, the condition, and the text.
struct Saying {
    owner: String,
    variant: Option<String>,
    when: String,
    text: String,
}

/// What the function `head` of the `impl` block `body` for `owner` returns of each variant, by `says`.
fn of_variants(owner: &str, body: &str, says: &dyn Fn(&str) -> Vec<String>) -> Vec<Saying> {
    let whole = |when: String, text| Saying {
        owner: owner.to_owned(),
        variant: None,
        when,
        text,
    };
    // Only the first `match`, and one behind it.
    let Some((before, inner, after)) = block(body, "match ") else {
        return says(body).into_iter().map(|text| whole(String::new(), text)).collect();
    };
    let (_, on) = body[..body.len() - inner.len() - after.len() - 2].split_at(before.len() + "match ".len());
    let on = on.trim();
    let mut found = Vec::new();
    for (pattern, expression) in arms(inner) {
        let (pattern, guard) = pattern.split_once(" if ").unwrap_or((&pattern, ""));
        for one in pattern.split(" | ") {
            let one = one.trim();
            let name = one.split(['{', '(']).next().unwrap_or_default().trim();
            let (kind, variant) = name.rsplit_once("::").unwrap_or(("", name));
            // Fields with a value, and a guard, are a condition.
            let fields: Vec<&str> = one[name.len()..]
                .trim_matches(|c| " {}()".contains(c))
                .split(", ")
                .filter(|field| field.contains(": "))
                .collect();
            let mut when: Vec<&str> = fields;
            when.extend((!guard.is_empty()).then_some(guard));
            let mut when = when.join(", ");
            let (kind, variant) = match kind.rsplit("::").next().unwrap_or_default() {
                "Self" => (owner, Some(variant)),
                kind if kind.ends_with("Error") || kind.ends_with("Cause") || kind == owner => (kind, Some(variant)),
                _ if one == "_" => (owner, Some("_")),
                _ => {
                    when = format!("{on}: {one}");
                    (owner, None)
                }
            };
            let inner = match expression.find("match ") {
                Some(_) => of_variants("", expression, says),
                None => says(expression)
                    .into_iter()
                    .map(|text| whole(String::new(), text))
                    .collect(),
            };
            let parts = |one: &Saying| [when.clone(), one.variant.clone().unwrap_or_default(), one.when.clone()];
            found.extend(inner.into_iter().map(|one| {
                Saying {
                    owner: kind.to_owned(),
                    variant: variant.map(str::to_owned),
                    when: parts(&one)
                        .into_iter()
                        .filter(|part| !part.is_empty())
                        .collect::<Vec<_>>()
                        .join(", "),
                    text: one.text,
                }
            }));
        }
    }
    // Another `match` behind the first, over all of them.
    if after.contains("match ") && !before.contains("match ") {
        found.extend(of_variants(owner, after, says));
    }
    found
}

/// The hints and exit codes of a file, by the type of the error.
fn said(text: &str, head: &str, function: &str, says: &dyn Fn(&str) -> Vec<String>) -> Vec<Saying> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(head) {
        rest = &rest[at + head.len()..];
        let owner = rest.split([' ', '{']).next().unwrap_or_default();
        let end = rest.find("\n}\n").unwrap_or(rest.len());
        let own = match rest[owner.len()..].starts_with(" {}") {
            true => "",
            false => &rest[..end],
        };
        // A macro's own parameter stands for the types of its list.
        if let Some((_, body, _)) = block(own, function).filter(|_| !owner.starts_with('$')) {
            found.extend(of_variants(owner, body, says));
        }
    }
    found
}

/// Those of `sayings` that are about a variant: its own, those of its type, and, where it has none of its own, those of all others.
fn about<'a>(sayings: &'a [Saying], message: &Message) -> Vec<&'a Saying> {
    let of = |variant: Option<&str>| {
        let own = sayings.iter().filter(|one| one.owner == message.owner);
        own.filter(|one| one.variant.as_deref() == variant).collect::<Vec<_>>()
    };
    let mut found = of(Some(&message.variant));
    if found.is_empty() {
        found = of(Some("_"));
    }
    found.extend(of(None));
    found
}

/// The exit codes by name, of the table in the sources.
fn exit_codes(root: &Path) -> BTreeMap<String, String> {
    let mut text = fs::read_to_string(root.join("src/cli/exit.rs")).expect("read");
    // The codes that a worker tells by have names of their own.
    let named = fs::read_to_string(root.join("src/model/exit_code.rs")).expect("read");
    let constants = named
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.strip_suffix(';'));
    for (name, code) in constants.filter_map(|line| line.split_once(": u8 = ")) {
        text = text.replace(&format!("({name},"), &format!("({code},"));
    }
    let (_, rows, _) = block(&text, "match self").expect("the table");
    let row = |(pattern, expression): (String, &str)| {
        let name = pattern.trim_start_matches("Exit::").to_owned();
        (
            name,
            expression
                .trim_matches(['(', ')'])
                .split(',')
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    arms(rows)
        .into_iter()
        .map(row)
        .filter(|(_, code)| code.parse::<u8>().is_ok())
        .collect()
}

/// The exit code of an expression such as `Exit::Lock` or `error.exit()`.
fn exit_said(codes: &BTreeMap<String, String>, expression: &str) -> Vec<String> {
    let parts = expression.split("Exit::").skip(1);
    let names = parts.map(|part| part.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default());
    let mut found: Vec<String> = Vec::new();
    for name in names {
        found.push(match (name, codes.get(name)) {
            (_, Some(code)) => code.clone(),
            ("Signature", None) => "that of the refusal".to_owned(),
            _ => unreachable!("no exit is called {name}: {expression}"),
        });
    }
    if found.is_empty() && expression.contains(".exit()") {
        found.push("that of the cause".to_owned());
    }
    found
}

/// The hints that are made together with an error, in a file: constants, values of a field `hint`, and last arguments of a function that
/// makes the error.
fn made(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut take = |expression: &str| {
        let literals = sayings(text, expression).into_iter();
        found.extend(literals.filter(|one| one.contains(' ') && !one.starts_with('<')));
    };
    let leads = [
        ("const HINT", ";"),
        ("hint: Some(", ","),
        ("hint = Some(", ";"),
        ("hint = \"", ";"),
        ("Err(Some(", ";"),
        ("fn way_", "\n}\n"),
    ];
    for (lead, ends) in leads {
        for (at, _) in text.match_indices(lead) {
            let rest = &text[at..];
            let end = match lead {
                "fn way_" => rest.find(ends),
                _ => outside(rest, &[ends, "}"]),
            };
            take(&rest[..end.unwrap_or(rest.len())]);
        }
    }
    let makers = ["refuse", "bad"].map(|name| (name, text.contains(&format!("let {name} = |problem: String, hint|"))));
    for (name, closure) in makers {
        if !closure && !text.contains("hint: &'static str) ->") {
            continue;
        }
        for (at, _) in text.match_indices(&format!("{name}(")) {
            let call = &text[at + name.len()..];
            let inner = call[1..closed(call) - 1].trim_end().trim_end_matches(',');
            let mut last = inner;
            while let Some(comma) = outside(last, &[","]) {
                last = &last[comma + 1..];
            }
            if !text[..at].ends_with("fn ") && last.len() < inner.len() {
                take(last);
            }
        }
    }
    found
}

#[test]
fn every_message_is_a_sentence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut all = Vec::new();
    let codes = exit_codes(root);
    let exit_of = |expression: &str| exit_said(&codes, expression);
    let (mut hints, mut exits, mut elsewhere) = (Vec::new(), Vec::new(), BTreeMap::new());
    for path in files.iter().filter(|path| !path.ends_with("tests.rs")) {
        let name = path.strip_prefix(root).expect("below").to_str().expect("UTF-8");
        let text = fs::read_to_string(path).expect("read");
        let program = text.split("\n#[cfg(test)]").next().expect("a part");
        all.extend(messages(name, program));
        let hint_of = |expression: &str| sayings(program, expression);
        hints.extend(said(program, "impl Hint for ", "fn hint(&self)", &hint_of));
        exits.extend(said(program, "impl Fatal for ", "fn exit(&self)", &exit_of));
        let list = program.split("\nalways! {").nth(1).unwrap_or_default();
        let list = list
            .lines()
            .skip(1)
            .map_while(|line| line.trim_end_matches(',').split_once(" => "));
        exits.extend(list.map(|(owner, exit)| Saying {
            owner: owner.trim().to_owned(),
            variant: None,
            when: String::new(),
            text: codes[exit].clone(),
        }));
        let mut seen = BTreeSet::new();
        let made: Vec<String> = made(program)
            .into_iter()
            .filter(|one| seen.insert(one.clone()))
            .collect();
        if !made.is_empty() {
            elsewhere.insert(name.to_owned(), made);
        }
    }
    assert!(
        hints.len() > 100 && exits.len() > 80,
        "{} hints, {} codes",
        hints.len(),
        exits.len()
    );
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
        for (lead, sayings) in [("hint:", &hints), ("exit", &exits)] {
            for Saying { when, text: said, .. } in about(sayings, message) {
                let when = if when.is_empty() {
                    String::new()
                } else {
                    format!("   [{when}]")
                };
                text.push_str(&format!("    {lead} {said}{when}\n"));
                if lead == "hint:" && said.ends_with(['.', ':']) {
                    wrong.push(format!(
                        "{file}: {owner} {variant}: hint {said:?} has a full stop or a colon at the end"
                    ));
                }
            }
        }
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
    text.push_str("\nHints that are made with the error\n");
    for (file, made) in &elsewhere {
        text.push_str(&format!("  {file}\n"));
        for hint in made {
            text.push_str(&format!("    hint: {hint}\n"));
            if hint.ends_with(['.', ':']) {
                wrong.push(format!("{file}: hint {hint:?} has a full stop or a colon at the end"));
            }
        }
    }
    insta::assert_snapshot!(text.trim_start());
    assert!(wrong.is_empty(), "no sentence:\n{}", wrong.join("\n"));
}

/// The verbs with which a message goes on after "failed to".
const VERBS: [&str; 59] = [
    "accept", "append", "boot", "build", "check", "choose", "compare", "compress", "copy", "create", "describe",
    "export", "fetch", "fill", "find", "get", "go", "keep", "lay", "listen", "load", "lock", "log", "look", "make",
    "merge", "mount", "name", "open", "order", "place", "plan", "prepare", "publish", "reach", "read", "relay",
    "release", "repeat", "require", "resolve", "run", "select", "serve", "set", "show", "sign", "start", "store",
    "take", "tell", "trust", "unpack", "upload", "use", "vary", "verify", "wait", "write",
];
