//! `stages/files.toml`: the files that the lock pins beside packages.

use super::{PipelineError, STAGES, project::below_stages};
use crate::{
    lock::{Lockfile, PinnedFile, redirect_problem},
    model::{Arch, RelPath, Sha256Digest, visible_message},
    source::SourceTree,
    verity,
};
use std::{
    fmt,
    io::{self, Read},
};

/// Name of the list, below the stages.
const FILES: &str = "files.toml";

/// The format of the list.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    #[serde(default)]
    file: Vec<ListedFile>,
}

/// A file of the list: one of the project (`path`) or a download (`url`).
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedFile {
    name: String,
    arch: Option<Arch>,
    path: Option<RelPath>,
    url: Option<String>,
    #[serde(default)]
    redirects: Vec<String>,
    sha256: Option<Sha256Digest>,
    size: Option<u64>,
}

/// The origin of a listed or pinned file, in words.
struct From<'a>(Option<&'a RelPath>, Option<&'a str>);

impl fmt::Display for From<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(path), _) => path.fmt(f),
            (None, Some(url)) => url.fmt(f),
            (None, None) => f.write_str("nothing"),
        }
    }
}

/// Reads the list of the project; it is empty when there is none.
pub(super) fn listed_files(tree: &SourceTree) -> Result<Vec<ListedFile>, PipelineError> {
    let Some(text) = tree.read_text(&below_stages(FILES)?)? else {
        return Ok(Vec::new());
    };
    let parsed: Files = toml::from_str(&text).map_err(|e| bad(visible_message(&e.to_string())))?;
    Ok(parsed.file)
}

/// The listed files as the lock pins them: those of the project with their present digests.
pub(super) fn pinned_files(tree: &SourceTree) -> Result<Vec<PinnedFile>, PipelineError> {
    let listed = listed_files(tree)?;
    let mut files = listed
        .into_iter()
        .map(|file| pin(tree, file))
        .collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

/// Checks that the lock pins the listed files and no others. The content of a file of the project is checked when it is used.
pub(super) fn check_listed(lock: &Lockfile, listed: &[ListedFile]) -> Result<(), PipelineError> {
    for file in listed {
        let name = label(&file.name, file.arch);
        let wanted = From(file.path.as_ref(), file.url.as_deref());
        let Some(pinned) = lock.files.iter().find(|p| p.name == file.name && p.arch == file.arch) else {
            let problem = format!("{STAGES}/{FILES} names {wanted} for {name}, the lock has no such file");
            return Err(PipelineError::FilesNotLocked { problem });
        };
        let has = From(pinned.path.as_ref(), pinned.url.as_deref());
        if (&file.path, &file.url) != (&pinned.path, &pinned.url) {
            let problem = format!("{STAGES}/{FILES} names {wanted} for {name}, the lock has {has}");
            return Err(PipelineError::FilesNotLocked { problem });
        }
        if file.redirects != pinned.redirects {
            let problem = format!(
                "{STAGES}/{FILES} allows {wanted} to redirect to {:?}, the lock to {:?}",
                file.redirects, pinned.redirects
            );
            return Err(PipelineError::FilesNotLocked { problem });
        }
        let same_size = file.size.is_none_or(|size| size == pinned.size);
        if !same_size || file.sha256.is_some_and(|sha256| sha256 != pinned.sha256) {
            let problem = format!("{STAGES}/{FILES} states another size or SHA-256 of {wanted} than the lock");
            return Err(PipelineError::FilesNotLocked { problem });
        }
    }
    let extra = |p: &&PinnedFile| !listed.iter().any(|file| file.name == p.name && file.arch == p.arch);
    match lock.files.iter().find(extra) {
        None => Ok(()),
        Some(pinned) => Err(PipelineError::FilesNotLocked {
            problem: format!(
                "the lock has the file {}, and {STAGES}/{FILES} does not name it",
                label(&pinned.name, pinned.arch)
            ),
        }),
    }
}

/// A file of the lock by name and, where it is for one architecture only, by architecture.
fn label(name: &str, arch: Option<Arch>) -> String {
    arch.map_or_else(|| format!("{name:?}"), |arch| format!("{name:?} of {arch}"))
}

/// Pins a listed file. The size and digest are measured for a file of the project, and taken from the list for a download.
fn pin(tree: &SourceTree, file: ListedFile) -> Result<PinnedFile, PipelineError> {
    let name = file.name;
    if let Some(problem) = file.redirects.iter().find_map(|entry| redirect_problem(entry)) {
        return Err(bad(format!("the file {name:?}: {problem}")));
    }
    if file.path.is_some() && !file.redirects.is_empty() {
        return Err(bad(format!(
            "the file {name:?} is one of the project and has redirects"
        )));
    }
    let (size, sha256) = match (&file.path, &file.url, file.size, file.sha256) {
        (Some(path), None, None, None) => {
            let (mut open, _) = tree.open_file(path)?;
            measure(&mut open).map_err(PipelineError::io("read", &tree.full(path)))?
        }
        (None, Some(_), Some(size), Some(sha256)) => (size, sha256),
        _ => {
            let forms = "{ name, path } for a file of the project or { name, url, size, sha256 } for a download";
            return Err(bad(format!("the file {name:?} has other keys than {forms}")));
        }
    };
    Ok(PinnedFile {
        name,
        arch: file.arch,
        path: file.path,
        url: file.url,
        redirects: file.redirects,
        size,
        sha256,
    })
}

/// Length in bytes and SHA-256 of a file.
fn measure(file: &mut impl Read) -> io::Result<(u64, Sha256Digest)> {
    let mut both = verity::Both::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => both.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let digests = both.finish();
    Ok((digests.size, digests.sha256))
}

fn bad(problem: String) -> PipelineError {
    PipelineError::Files { problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain;
    use std::fs;

    fn project(files: &str) -> (tempfile::TempDir, SourceTree) {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join(STAGES)).expect("made");
        fs::write(dir.path().join(STAGES).join(FILES), files).expect("written");
        fs::write(dir.path().join("agent"), "abc").expect("written");
        let tree = SourceTree::open(dir.path()).expect("opens");
        (dir, tree)
    }

    fn pinned(files: &str) -> Result<Vec<PinnedFile>, String> {
        let (_dir, tree) = project(files);
        pinned_files(&tree).map_err(|error| chain(&error))
    }

    #[test]
    fn a_file_of_the_project_is_measured_and_a_download_is_taken_as_stated() {
        let zeros = "0".repeat(64);
        let download =
            format!("[[file]]\nname = \"b\"\nurl = \"https://example.org/b\"\nsize = 7\nsha256 = \"{zeros}\"\n");
        let files = pinned(&format!("{download}[[file]]\nname = \"a\"\npath = \"agent\"\n")).expect("two files");
        let found: Vec<(&str, u64)> = files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        assert_eq!(found, [("a", 3), ("b", 7)]);
        // SHA-256 of "abc", from FIPS 180-2, appendix B.1.
        assert_eq!(
            files[0].sha256.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(files[1].sha256.to_string(), zeros);
    }

    #[test]
    fn a_file_that_is_neither_is_named() {
        for (files, problem) in [
            ("[[file]]\nname = \"a\"\npath = \"gone\"\n", "/gone\": "),
            (
                "[[file]]\nname = \"a\"\npath = \"agent\"\nsize = 3\n",
                "the file \"a\" has other keys than",
            ),
            (
                "[[file]]\nname = \"a\"\nurl = \"https://example.org/a\"\n",
                "the file \"a\" has other keys than",
            ),
            (
                "[[file]]\nname = \"a\"\npath = \"agent\"\nredirects = [\"x\"]\n",
                "the file \"a\" is one of the project and has redirects",
            ),
            (
                "[[file]]\nname = \"a\"\nurl = \"https://example.org/a\"\nredirects = [\"https://x/\"]\n",
                "the file \"a\": redirects has \"https://x/\", ",
            ),
            ("[[file]]\nname = \"a\"\npath = \"../x\"\n", "path \"../x\""),
            ("[[files]]\n", "unknown field `files`"),
        ] {
            let error = pinned(files).expect_err(files);
            assert!(error.starts_with("read ") && error.contains(problem), "{error}");
        }
        let empty = tempfile::tempdir().expect("a directory");
        let tree = SourceTree::open(empty.path()).expect("opens");
        assert_eq!(pinned_files(&tree).expect("no file is no error"), []);
    }

    #[test]
    fn hosts_of_redirects_have_a_form_and_must_be_those_of_the_lock() {
        for good in [
            "a",
            "cdn.example",
            "CDN.example:8443",
            "*.example.org",
            "*.x:1",
            "10.0.0.1",
            "[::1]:80",
            "[fd00::1]",
        ] {
            assert_eq!(redirect_problem(good), None, "{good}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "*x",
            "a/b",
            "a b",
            "https://a",
            "a:",
            "a:0",
            "a:65536",
            "a:b",
            "u@a",
            ".a",
            "[::1",
            "a*.b",
        ] {
            assert!(redirect_problem(bad).is_some(), "{bad}");
        }
        let zeros = "0".repeat(64);
        let with = |redirects: &str| {
            format!(
                "[[file]]\nname = \"b\"\nurl = \"https://example.org/b\"\nsize = 7\nsha256 = \"{zeros}\"\n{redirects}"
            )
        };
        let (_dir, tree) = project(&with("redirects = [\"cdn.example\"]\n"));
        let files = pinned_files(&tree).expect("reads");
        assert_eq!(files[0].redirects, ["cdn.example"]);
        let mut lock: Lockfile =
            crate::lock::parse_lock("version = 1\nsource_date_epoch = 1\n", "lock").expect("a lock");
        lock.files = files;
        check_listed(&lock, &listed_files(&tree).expect("reads")).expect("the same");
        let (_dir, tree) = project(&with(""));
        let error = check_listed(&lock, &listed_files(&tree).expect("reads")).expect_err("another list");
        assert!(
            chain(&error).contains("to redirect to [], the lock to [\"cdn.example\"]"),
            "{}",
            chain(&error)
        );
    }
}
