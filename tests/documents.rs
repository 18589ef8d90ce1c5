//! The documents against the repository and the program: links lead somewhere, and commands are taken as they stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, by its path below the repository.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut paths = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .map(PathBuf::from)
        .to_vec();
    for directory in ["docs", "stages", "fuzz"] {
        #[expect(clippy::disallowed_methods, reason = "the paths go into a sorted map")]
        let entries = fs::read_dir(repository().join(directory)).expect("readable");
        let names = entries.map(|entry| PathBuf::from(directory).join(entry.expect("readable").file_name()));
        paths.extend(names.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(repository().join(&path)).expect("UTF-8");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// The lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// A line without what is between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The anchors of the headings, as forges make them: lower case, spaces are `-`, other signs are left out.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let documents = documents();
    let (mut seen, mut problems) = (0, Vec::new());
    for (document, text) in &documents {
        let lines = prose(text).map(without_code).collect::<Vec<_>>();
        for target in lines.iter().flat_map(|line| line.split("](").skip(1)) {
            let target = target.split(')').next().unwrap_or_default();
            // A backslash is one of a regular expression.
            if target.contains("://") || target.starts_with("mailto:") || target.contains('\\') {
                continue;
            }
            seen += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let place = match path.is_empty() {
                true => document.clone(),
                false => document.parent().expect("a directory").join(path),
            };
            let whole = repository().join(&place);
            let Ok(whole) = fs::canonicalize(&whole) else {
                problems.push(format!("{}: {target} is not there", document.display()));
                continue;
            };
            let below = whole.strip_prefix(repository()).expect("in the repository");
            let there = |text: &String| anchors(text).contains(anchor);
            if !anchor.is_empty() && !documents.get(below).is_some_and(there) {
                problems.push(format!("{}: {target} has no such heading", document.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} links were found");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The lines of code that begin with `pnb`, as a reader would type them; those with a gap to fill in are left out.
fn commands(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        let code = fenced || line.starts_with("    ");
        let line = line.trim();
        let gap = line.contains(['…', '<', '|', '[']) || line.ends_with('\\');
        if code && !fence && !gap && line.starts_with("pnb ") {
            found.insert(line.to_owned());
        }
    }
    found
}

/// The words of a command, as a shell splits them.
fn words(line: &str) -> Vec<String> {
    let script = format!("pnb() {{ printf '%s\\n' \"$@\"; }}; {line}");
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

/// What the command line says against these arguments where there is nothing to work on; `None` if it takes them.
fn refusal(arguments: &[String]) -> Option<String> {
    let dir = tempfile::tempdir().expect("scratch");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command
        .args(arguments.iter().filter(|word| *word != "--json"))
        .current_dir(dir.path());
    command
        .env("PNB_STORE", dir.path().join("store"))
        .env("HOME", dir.path());
    for name in ["ARCH", "VARIANT", "PNB_MIRROR", "PNB_PROJECT"] {
        command.env_remove(name);
    }
    let output = command.output().expect("pnb starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A path that is not there has the same code, and a message of pnb's own.
    (output.status.code() == Some(2) && !said.contains("error: failed to ")).then_some(said)
}

#[test]
fn commands_of_documents_are_taken_as_they_stand() {
    let wrong = ["build", "--hermitic"].map(str::to_owned);
    assert!(refusal(&wrong).is_some(), "a wrong word is not noticed");
    let (mut seen, mut problems) = (0, Vec::new());
    for (document, text) in documents() {
        for line in commands(&text) {
            seen += 1;
            if let Some(said) = refusal(&words(&line)) {
                problems.push(format!("{}: {line}\n{said}", document.display()));
            }
        }
    }
    assert!(seen > 45, "only {seen} commands were found");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The help of a command and of all below it, by its words.
fn helps(words: &[String], found: &mut BTreeMap<String, String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    let output = command.args(words).arg("--help").output().expect("pnb starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let listed = text.split_once("\nCommands:\n").map_or("", |(_, list)| list);
    // Two spaces, the name, and what it does; a line that goes on has more.
    let names = listed.lines().take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| {
        line.strip_prefix("  ")?
            .split(' ')
            .next()
            .filter(|name| !name.is_empty())
    });
    for name in names.filter(|name| *name != "help") {
        helps(&[words, &[name.to_owned()]].concat(), found);
    }
    found.insert(format!("pnb {}", words.join(" ")), text);
}

#[test]
fn examples_of_help_can_be_copied_and_are_taken_as_they_stand() {
    let mut found = BTreeMap::new();
    helps(&[], &mut found);
    let (mut seen, mut problems) = (0, Vec::new());
    for (command_words, text) in found {
        if text.contains("XX:") {
            problems.push(format!("{command_words}: a placeholder"));
        }
        for paragraph in text.split("\n\n") {
            let (head, rest) = paragraph.trim_start().split_once('\n').unwrap_or((paragraph, ""));
            if !head.starts_with("Example") {
                if paragraph.lines().any(|line| line.starts_with("pnb ")) {
                    problems.push(format!("{command_words}: an example without a heading:\n{paragraph}"));
                }
                continue;
            }
            for line in rest.replace("\\\n", "").lines() {
                seen += 1;
                // A line that is too wide is broken between words, and is no command any more.
                let command = line.trim_start().split(' ').skip_while(|word| word.contains('='));
                let command: Vec<&str> = command.collect();
                if command.first() != Some(&"pnb") {
                    problems.push(format!("{command_words}: {line}: no command, or the end of one"));
                    continue;
                }
                let joined = command.join(" ");
                let mut typed = joined.as_str();
                for rest in [" | jq ", " > "] {
                    typed = typed.split(rest).next().expect("one at least");
                }
                if let Some(said) = refusal(&words(typed)) {
                    problems.push(format!("{command_words}: {line}\n{said}"));
                }
            }
        }
    }
    assert!(seen > 40, "only {seen} examples were found");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
