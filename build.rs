//! Digests of the library's source: of the parts that decide the outputs of a stage, so that a change in them changes the stages' keys,
//! and of all rooms, so that changing any of them writes the artifacts' directories anew.
//!
//! Only the library is watched: `src/cli` and `src/main.rs` are the program, which no digest covers, so a change there compiles the
//! program alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The rooms of the library: every folder below `src` but [`PROGRAM`].
const ROOMS: &[&str] = &[
    "model", "page", "verity", "debian", "lock", "http", "fetch", "registry", "source", "store", "graph", "sandbox",
    "image", "module", "inspect", "writers", "manifest", "audit", "sign", "repro", "serve", "boot", "publish",
    "remote", "pipeline",
];
/// The folder of the program.
const PROGRAM: &str = "cli";
/// Files of the library beside its rooms.
const LIBRARY: &[&str] = &["src/lib.rs", "Cargo.lock"];

/// Rooms that run a stage, lay out its inputs and take its outputs.
const SANDBOX: &[&str] = &[
    "src/model",
    "src/debian",
    "src/verity",
    "src/store",
    "src/graph",
    "src/sandbox",
    "src/pipeline/resolve.rs",
    "src/pipeline/recipe.rs",
    "src/pipeline/placement.rs",
    "src/pipeline/run.rs",
    "Cargo.lock",
];
/// Rooms that write the outputs of writer stages; dependencies count, so the lock of the crates does too.
const WRITERS: &[&str] = &["src/debian", "src/image", "src/writers", "Cargo.lock"];
/// Rooms that read what the statements say about packages.
const FACTS: &[&str] = &[
    "src/model",
    "src/debian",
    "src/manifest",
    "src/pipeline/package_facts.rs",
    "Cargo.lock",
];

fn main() {
    check_rooms();
    let rooms: Vec<String> = ROOMS.iter().map(|room| format!("src/{room}")).collect();
    let library: Vec<&str> = rooms
        .iter()
        .map(String::as_str)
        .chain(LIBRARY.iter().copied())
        .collect();
    for part in &library {
        println!("cargo::rerun-if-changed={part}");
    }
    println!("cargo::rustc-env=PNB_CODE_SANDBOX={}", digest(SANDBOX));
    println!("cargo::rustc-env=PNB_CODE_WRITERS={}", digest(WRITERS));
    println!("cargo::rustc-env=PNB_CODE_FACTS={}", digest(FACTS));
    println!("cargo::rustc-env=PNB_CODE={}", digest(&library));
}

/// Fails when a folder below `src` is in neither list, or a room is gone: a room must not silently leave the digests.
fn check_rooms() {
    #[expect(clippy::disallowed_methods, reason = "the names go into a sorted set")]
    let entries = fs::read_dir("src").expect("src is readable");
    let found: BTreeSet<String> = entries
        .map(|entry| entry.expect("src is readable"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = ROOMS.iter().chain([&PROGRAM]).map(|room| (*room).to_owned()).collect();
    assert!(
        found == listed,
        "the folders below src are {found:?}, build.rs lists {listed:?}: bring ROOMS of build.rs up to date"
    );
}

fn digest(roots: &[&str]) -> String {
    let mut files = BTreeMap::new();
    for root in roots {
        collect(Path::new(root), &mut files);
    }
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in files {
        hasher
            .update(name.as_bytes())
            .update(&[0])
            .update(&(bytes.len() as u64).to_le_bytes())
            .update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

fn collect(path: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    if path.is_dir() {
        #[expect(clippy::disallowed_methods, reason = "the files go into a sorted map")]
        let entries = fs::read_dir(path).expect("source directory is readable");
        for entry in entries {
            collect(&entry.expect("source directory is readable").path(), files);
        }
    } else {
        // A part that moved must not silently leave the keys.
        let bytes =
            fs::read(path).expect("a part of the code that decides what stages make is not where build.rs looks");
        files.insert(path.to_string_lossy().into_owned(), bytes);
    }
}
