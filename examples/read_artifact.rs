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

#[cfg(test)]
mod tests {
    use super::*;
    use pnb::{
        image::cpio::CpioWriter,
        model::{Epoch, Meta, RelPath},
    };

    #[test]
    fn the_files_of_an_archive_are_listed() {
        let dir = tempfile::tempdir().expect("a directory");
        let meta = Meta::root(0o644, Epoch::new(0));
        let mut archive = CpioWriter::new(Vec::new());
        let name = RelPath::new("hello").expect("a path");
        archive.file(&name, &meta, 2, &mut b"hi".as_slice()).expect("a file");
        let path = dir.path().join("initramfs.cpio");
        std::fs::write(&path, archive.finish().expect("an archive")).expect("written");
        let text = list(&path).expect("readable");
        assert!(
            text.starts_with("initramfs.cpio: cpio, ") && text.contains("/hello: "),
            "{text}"
        );
        assert!(list(&dir.path().join("nothing")).is_err());
    }
}
