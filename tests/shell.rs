//! Every shell script of the repository, as shellcheck reads it. `.shellcheckrc` says what is switched off, and why.

#[path = "fixture/tools.rs"]
mod tools;

use std::{fs::File, io::Read, path::Path};
use walkdir::{DirEntry, WalkDir};

/// Whether a file begins with `#!` and the name of a shell.
fn is_script(path: &Path) -> bool {
    let mut first = [0; 64];
    let mut file = File::open(path).expect("readable");
    let len = file.read(&mut first).expect("readable");
    let line = first[..len].split(|b| *b == b'\n').next().unwrap_or_default();
    let name = line.rsplit(|b| matches!(b, b'/' | b' ')).next().unwrap_or_default();
    line.starts_with(b"#!") && matches!(name, b"sh" | b"bash" | b"dash")
}

#[test]
fn shellcheck_finds_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = |entry: &DirEntry| entry.depth() != 1 || (entry.file_name() != "target" && entry.file_name() != ".git");
    let entries = WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(ours);
    let files = entries
        .map(|e| e.expect("readable"))
        .filter(|e| e.file_type().is_file());
    let scripts: Vec<String> = files
        .filter(|e| is_script(e.path()))
        .map(|e| e.path().strip_prefix(root).expect("below it").display().to_string())
        .collect();
    assert!(scripts.len() > 20, "{scripts:?}");
    let script = format!("cd /inputs/0\nshellcheck --format=gcc {}", scripts.join(" "));
    let (said, _) = tools::check(&[root], &script);
    assert_eq!(said, "");
}
