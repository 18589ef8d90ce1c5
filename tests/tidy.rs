//! The manners of the house, as far as a program can see them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms of the library, in the order data flows: a room uses only rooms before it.
const ROOMS: &[&str] = &[
    "model", "page", "verity", "debian", "lock", "http", "fetch", "registry", "source", "store", "graph", "sandbox",
    "image", "module", "inspect", "writers", "manifest", "audit", "sign", "repro", "serve", "boot", "publish",
    "remote", "pipeline",
];
/// The program: it uses any room, as `pnb::…`, and no room can use it, because it is not in the library.
const PROGRAM: &str = "cli";
/// A file longer than this has more than one subject.
const MAX_LINES: usize = 800;
/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["src/sandbox/sys.rs"];

fn files(ending: &str) -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let mut open = ["src", "tests", "examples", "benches", "build.rs"]
        .map(|name| root.join(name))
        .to_vec();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            #[expect(clippy::disallowed_methods, reason = "the files go into a sorted map")]
            let entries = fs::read_dir(&path).expect("readable");
            open.extend(entries.map(|e| e.expect("readable").path()));
        } else if path.extension().is_some_and(|e| e == ending) {
            let text = fs::read_to_string(&path).expect("UTF-8");
            found.insert(path.strip_prefix(root).expect("below it").to_owned(), text);
        }
    }
    assert!(found.len() > 50, "only {} files were found", found.len());
    found
}

/// Fails with a line for each problem, and says where the rules are explained.
fn report(problems: Vec<String>) {
    assert!(
        problems.is_empty(),
        "\n{}\nCONTRIBUTING.md explains the rules",
        problems.join("\n")
    );
}

#[test]
fn a_room_uses_only_rooms_before_it() {
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        let Ok(inside) = path.strip_prefix("src") else { continue };
        let room = inside
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        let own = ROOMS.iter().position(|r| *r == room);
        if own.is_none() && !["lib", "main", PROGRAM].contains(&room.as_str()) {
            problems.push(format!("{}: {room} is not in the list of rooms", path.display()));
            continue;
        }
        if room == "lib" && text.contains(&format!("mod {PROGRAM};")) {
            problems.push(format!("{}: {PROGRAM} is in the library", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            for used in used_rooms(line, &text, number) {
                let other = ROOMS.iter().position(|r| *r == used);
                // `crate` is the library in a room, and the program in the program.
                let allowed = match own {
                    Some(own) => other.is_some_and(|other| other <= own),
                    None => used == PROGRAM,
                };
                if !allowed && room != "lib" {
                    problems.push(format!("{}:{}: {room} uses {used}", path.display(), number + 1));
                }
            }
        }
    }
    report(problems);
}

/// Names after `crate::` in a line; for `use crate::{` the first names of the block.
fn used_rooms(line: &str, text: &str, number: usize) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut rooms = Vec::new();
    for part in code.split("crate::").skip(1) {
        if let Some(block) = part.strip_prefix('{') {
            if !block.contains('}') {
                for inner in text.lines().skip(number + 1).take_while(|l| !l.starts_with("};")) {
                    if let Some(name) = inner
                        .strip_prefix("    ")
                        .filter(|n| n.starts_with(|c: char| c.is_ascii_lowercase()))
                    {
                        rooms.push(word(name));
                    }
                }
            }
            rooms.extend(block.split(", ").map(word).filter(|w| !w.is_empty()));
        } else {
            rooms.push(word(part));
        }
    }
    rooms.retain(|r| r.starts_with(|c: char| c.is_ascii_lowercase()));
    rooms
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        if !text.starts_with("//! ") {
            problems.push(format!("{}: no //! header", path.display()));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            problems.push(format!("{}: {lines} lines, more than {MAX_LINES}", path.display()));
        }
    }
    report(problems);
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    // Put together here, so that this file does not hold the words itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["unimple", "mented!"],
        ["to", "do!("],
        ["#[al", "low("],
        ["#![al", "low("],
    ]
    .map(|w| w.concat());
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        for (number, line) in text.lines().enumerate() {
            for found in words.iter().filter(|w| line.contains(w.as_str())) {
                problems.push(format!("{}:{}: {found}", path.display(), number + 1));
            }
            let inside = line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl");
            if inside && path.starts_with("src") && !UNSAFE.iter().any(|u| path == Path::new(u)) {
                problems.push(format!("{}:{}: unsafe", path.display(), number + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn only_the_command_line_and_the_helper_print() {
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        if !path.starts_with("src") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if ["println!", "eprintln!", "print!(", "dbg!"]
                .iter()
                .any(|p| line.trim_start().starts_with(p))
            {
                problems.push(format!("{}:{}: prints", path.display(), number + 1));
            }
        }
    }
    report(problems);
}

/// Files that write to standard output or standard error. All but the first run in a sandbox, where that is the log of a stage or the
/// console of a machine; the executor hands the descriptors to an interactive stage, and the terminal's file asks what they are.
const PRINTERS: &[&str] = &[
    "src/cli/report.rs",
    "src/cli/terminal.rs",
    "src/boot/served.rs",
    "src/sandbox/executor.rs",
    "src/sandbox/workload.rs",
];

/// Text from outside reaches a terminal through the one file that makes it visible.
#[test]
fn one_file_of_the_command_line_prints() {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in files("rs") {
        let writer = path.starts_with("src/writers");
        if !path.starts_with("src") || writer {
            continue;
        }
        let own = PRINTERS.iter().find(|own| path == Path::new(own));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let prints = ["::stdout()", "::stderr()", ".print()", "/dev/tty"]
                .iter()
                .any(|p| code.contains(p));
            match (prints, own) {
                (true, None) => problems.push(format!("{}:{}: prints", path.display(), number + 1)),
                (true, Some(own)) => drop(seen.insert(own)),
                (false, _) => {}
            }
        }
    }
    assert_eq!(seen.len(), PRINTERS.len(), "a file no longer prints: {seen:?}");
    report(problems);
}

/// `Path::exists` is false for a file that could not be looked at: a build would go on without it, and a collection would remove it.
#[test]
fn a_failed_look_at_a_file_is_no_absence() {
    let word = [".exists", "()"].concat();
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        let is_test = path.ends_with("tests.rs") || !path.starts_with("src");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|_| !is_test) {
            if line.contains(&word) {
                problems.push(format!("{}:{}: {word}; use try_exists()", path.display(), number + 1));
            }
        }
    }
    report(problems);
}

/// The value of `key = "value"` in a file of the repository.
fn version_in(file: &str, key: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).expect(file);
    let mut values = text.lines().filter_map(|line| {
        let value = line.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim();
        value.strip_prefix('"')?.strip_suffix('"')
    });
    values.next().expect(key).to_owned()
}

/// The version that `Cargo.toml` promises is the one that every check runs with.
#[test]
fn one_version_of_rust_is_named_everywhere() {
    let promised = version_in("Cargo.toml", "rust-version");
    assert_eq!(version_in("clippy.toml", "msrv"), promised, "clippy.toml");
    let channel = version_in("rust-toolchain.toml", "channel");
    assert_eq!(channel, format!("{promised}.0"), "rust-toolchain.toml");
    let readme = include_str!("../README.md");
    assert!(readme.contains(&format!("Rust ≥ {promised} with cargo")), "README.md");
}

/// Name and line of every type that a file of the crate lets others see, its unit tests left out.
fn visible_types(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line == "mod tests {" {
            break;
        }
        let Some(rest) = line.strip_prefix("pub") else { continue };
        let rest = match rest.strip_prefix('(') {
            Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let rest = rest.trim_start();
        let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
        if let Some(rest) = kinds.iter().find_map(|kind| rest.strip_prefix(kind)) {
            found.push((word(rest), number + 1));
        }
    }
    found
}

#[test]
fn the_name_of_a_visible_type_is_unique() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut problems = Vec::new();
    for (path, text) in files("rs").iter().filter(|(path, _)| path.starts_with("src")) {
        for (name, line) in visible_types(text) {
            let place = format!("{}:{line}", path.display());
            if let Some(first) = seen.insert(name.clone(), place.clone()) {
                problems.push(format!("{place}: {name} is the name of a type in {first} too"));
            }
        }
    }
    assert!(seen.len() > 300, "only {} types were found", seen.len());
    report(problems);
}

#[test]
fn mod_rs_only_declares() {
    let items = [
        "fn ",
        "const ",
        "static ",
        "struct ",
        "enum ",
        "trait ",
        "type ",
        "impl ",
        "impl<",
        "macro_rules!",
        "async ",
        "extern ",
        "union ",
        "unsafe ",
    ];
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        if !path.ends_with("mod.rs") || !path.starts_with("src") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let mut code = line.trim_start();
            if let Some(rest) = code.strip_prefix("pub") {
                let scoped = rest.strip_prefix('(').and_then(|scope| scope.split_once(')'));
                code = scoped.map_or(rest, |(_, rest)| rest).trim_start();
            }
            if items.iter().any(|item| code.starts_with(item)) {
                let place = format!("{}:{}", path.display(), number + 1);
                problems.push(format!(
                    "{place}: an item; mod.rs declares modules and re-exports names"
                ));
            }
        }
    }
    report(problems);
}

#[test]
fn names_of_nodes_and_artifacts_are_written_by_their_types() {
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        if !path.starts_with("src") {
            continue;
        }
        // The arguments of a call may stand in the next two lines.
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let call = lines[number..lines.len().min(number + 3)].join(" ");
            let names = |name: &str| {
                call.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .any(|w| w == name)
            };
            let by_place = line.contains("\"{}/{}") && names("arch");
            let by_name = ["}/{arch}", "}/{variant}", "{variant}/{"]
                .iter()
                .any(|p| line.contains(p));
            if by_place || by_name {
                let way = "a stage and an architecture is a NodeId, a variant and an architecture a Target";
                problems.push(format!("{}:{}: {way}", path.display(), number + 1));
            }
        }
    }
    report(problems);
}

/// The names between a table's head and the next one in Cargo.toml.
fn dependencies(manifest: &str, table: &str) -> Vec<String> {
    let head = format!("[{table}]");
    let body = manifest.lines().skip_while(|line| **line != head).skip(1);
    let body = body.take_while(|line| !line.starts_with('['));
    body.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned()))
        .collect()
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = include_str!("../Cargo.toml");
    let reasons = include_str!("../docs/dependencies.md");
    let rows: Vec<&str> = reasons.lines().filter(|line| line.starts_with("| `")).collect();
    let mut problems = Vec::new();
    let mut known = BTreeSet::new();
    for table in ["dependencies", "build-dependencies", "dev-dependencies"] {
        let names = dependencies(manifest, table);
        assert!(!names.is_empty(), "Cargo.toml has no [{table}]");
        for name in names {
            known.insert(name.clone());
            let cell = |row: &&&str| {
                row.split(" | ")
                    .next()
                    .is_some_and(|cell| cell.contains(&format!("`{name}`")))
            };
            if !rows.iter().any(|row| cell(&row)) {
                problems.push(format!("docs/dependencies.md: no row for {name}"));
            }
        }
    }
    // The first two tables are about the dependencies of Cargo.toml.
    let tables = reasons.split("\n## Written by hand").next().expect("a text");
    for row in tables.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().expect("a cell");
        for name in cell.split('`').skip(1).step_by(2).filter(|name| !known.contains(*name)) {
            problems.push(format!("docs/dependencies.md: Cargo.toml has no {name}"));
        }
    }
    report(problems);
}

#[test]
fn files_that_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec!["README.md", "CONTRIBUTING.md", "SECURITY.md", "stages/README.md"]
        .into_iter()
        .map(|name| root.join(name))
        .collect::<Vec<_>>();
    #[expect(clippy::disallowed_methods, reason = "each is looked at by itself")]
    let entries = fs::read_dir(root.join("docs")).expect("readable");
    documents.extend(entries.map(|entry| entry.expect("readable").path()));
    let (mut seen, mut problems) = (0, Vec::new());
    for document in documents
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(document).expect("UTF-8");
        for quoted in text.split('`').skip(1).step_by(2) {
            let ours = ["src/", "tests/", "benches/", "examples/", "docs/", ".ci/"];
            let plain = |c: char| c.is_ascii_alphanumeric() || "./_-".contains(c);
            if !ours.iter().any(|dir| quoted.starts_with(dir)) || !quoted.chars().all(plain) {
                continue;
            }
            seen += 1;
            if !root.join(quoted).exists() {
                problems.push(format!("{}: {quoted} does not exist", document.display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} names of files were found");
    report(problems);
}
