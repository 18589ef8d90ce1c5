//! Lists the partitions and files in an image, or in every file of an artifact's directory.
//!
//! ```text
//! cargo run --example read_artifact -- images/raw/amd64/disk.raw
//! ```

use pnb::inspect::{InspectError, PartKind, SpoolDirectory, SurveyNode, open_path, survey};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Deep enough for a file in a file system in a partition in a disk in a qcow2 image.
const DEPTH: usize = 16;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let _ = writeln!(io::stderr(), "usage: read_artifact FILE or DIRECTORY");
        return ExitCode::from(2);
    };
    match list(&path) {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: failed to {}", pnb::model::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn list(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    // Compressed streams are unpacked into unlinked files of this directory.
    let scratch = tempfile::tempdir()?;
    let spool = SpoolDirectory::new(scratch.path());
    let (part, files) = open_path(path)?;
    let parts = files.unwrap_or_else(|| vec![part]);
    let nodes: Result<Vec<SurveyNode>, InspectError> =
        parts.iter().map(|part| survey(part, &spool, DEPTH, true)).collect();
    let mut text = String::new();
    for node in nodes? {
        describe(&node, 0, &mut text);
    }
    Ok(text)
}

/// One line for the part, and one for everything in it, indented.
fn describe(node: &SurveyNode, depth: usize, text: &mut String) {
    let format = node.format.unwrap_or(node.kind.as_str());
    let place = match node.kind {
        PartKind::Partition => format!(" at byte {}", node.offset),
        _ => String::new(),
    };
    let indent = "  ".repeat(depth);
    text.push_str(&format!(
        "{indent}{}: {format}, {} bytes{place}\n",
        node.name, node.size
    ));
    for child in &node.children {
        describe(child, depth + 1, text);
    }
}
