//! Digests of the source that decides what a stage makes, so that changing it changes the stages' keys.

use std::{collections::BTreeMap, fs, path::Path};

/// Rooms that run a stage, lay out its inputs and take its outputs.
const SANDBOX: &[&str] = &[
    "src/model",
    "src/debian",
    "src/verity",
    "src/store",
    "src/graph",
    "src/sandbox",
    "src/pipeline/resolve.rs",
    "src/pipeline/run.rs",
    "Cargo.lock",
];
/// Rooms that write what a writer stage gives; dependencies count, so the lock of the crates does too.
const WRITERS: &[&str] = &["src/debian", "src/image", "src/writers", "Cargo.lock"];

fn main() {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rustc-env=PNB_CODE_SANDBOX={}", digest(SANDBOX));
    println!("cargo::rustc-env=PNB_CODE_WRITERS={}", digest(WRITERS));
    println!("cargo::rustc-env=PNB_CODE={}", digest(&["src", "Cargo.lock"]));
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
