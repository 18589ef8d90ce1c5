//! The messages of the Remote Execution API for pnb's own types.
//!
//! Source: `build/bazel/remote/execution/v2/remote_execution.proto` (`ActionResult`, `Digest`).

use super::{BlobDigest, CachedResult, RemoteError};
use crate::model::{RelPath, visible_message};
use bazel_remote_apis::build::bazel::remote::execution::v2::{ActionResult, Digest, OutputFile};
use std::collections::BTreeMap;

/// The most files of a result.
const MAX_FILES: usize = 100_000;

/// The name of a blob as a message.
pub(super) fn digest(blob: &BlobDigest) -> Digest {
    Digest {
        hash: blob.sha256.to_hex(),
        // No blob on a server has more than 2^63 bytes, and neither has a file.
        size_bytes: i64::try_from(blob.size).unwrap_or(i64::MAX),
    }
}

/// The name of a blob that a server sent; `Err` with the fault.
pub(super) fn blob(digest: Option<&Digest>) -> Result<BlobDigest, String> {
    let digest = digest.ok_or("it has a file without a digest")?;
    let bad = || {
        let shown = format!("{}/{}", digest.hash, digest.size_bytes);
        format!("{} is no digest of SHA256 with a size", visible_message(&shown))
    };
    Ok(BlobDigest {
        sha256: digest.hash.parse().map_err(|_| bad())?,
        size: u64::try_from(digest.size_bytes).map_err(|_| bad())?,
    })
}

/// The message of a result: files sorted by path, exit code 0.
pub(super) fn action_result(result: &CachedResult) -> ActionResult {
    let files = result.files.iter().map(|(path, blob)| OutputFile {
        path: path.clone(),
        digest: Some(digest(blob)),
        ..OutputFile::default()
    });
    ActionResult {
        output_files: files.collect(),
        ..ActionResult::default()
    }
}

/// The result in a message of `server`.
///
/// # Errors
///
/// [`RemoteError::Result`] if pnb does not write such a result.
pub(super) fn cached_result(server: &str, message: &ActionResult) -> Result<CachedResult, RemoteError> {
    files(message)
        .map(|files| CachedResult { files })
        .map_err(|problem| RemoteError::Result {
            server: server.to_owned(),
            problem,
        })
}

fn files(message: &ActionResult) -> Result<BTreeMap<String, BlobDigest>, String> {
    if message.exit_code != 0 {
        return Err(format!("its exit code is {}", message.exit_code));
    }
    #[expect(deprecated, reason = "a server may still fill the lists of older versions")]
    let links =
        message.output_symlinks.len() + message.output_file_symlinks.len() + message.output_directory_symlinks.len();
    if links > 0 || !message.output_directories.is_empty() {
        return Err("it has directories or symbolic links".to_owned());
    }
    if message.output_files.len() > MAX_FILES {
        return Err(format!("it has more than {MAX_FILES} files"));
    }
    let mut files = BTreeMap::new();
    for file in &message.output_files {
        let shown = visible_message(&file.path);
        if RelPath::new(&file.path).is_err() {
            return Err(format!("it has a file with the name \"{shown}\""));
        }
        let blob = blob(file.digest.as_ref())?;
        if files.insert(file.path.clone(), blob).is_some() {
            return Err(format!("it has two files with the name \"{shown}\""));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bazel_remote_apis::build::bazel::remote::execution::v2::{OutputDirectory, OutputSymlink};

    fn result() -> CachedResult {
        let files = [("record", b"r".as_slice()), ("log", b""), ("t/a.dump", b"dump")];
        CachedResult {
            files: files
                .map(|(path, bytes)| (path.to_owned(), BlobDigest::of(bytes)))
                .into(),
        }
    }

    #[test]
    fn a_result_is_sorted_by_path_and_read_as_it_was() {
        let message = action_result(&result());
        let paths: Vec<&str> = message.output_files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["log", "record", "t/a.dump"]);
        assert_eq!(cached_result("s", &message).expect("read"), result());
        assert_eq!(
            cached_result("s", &ActionResult::default()).expect("read"),
            CachedResult::default()
        );
    }

    #[test]
    fn results_that_pnb_does_not_write_are_refused() {
        let refused = |change: &dyn Fn(&mut ActionResult)| {
            let mut message = action_result(&result());
            change(&mut message);
            match cached_result("s", &message) {
                Err(RemoteError::Result { problem, .. }) => problem,
                other => panic!("{other:?}"),
            }
        };
        #[expect(deprecated, reason = "an old server fills these lists")]
        let old: [&dyn Fn(&mut ActionResult); 2] = [&|m| m.output_file_symlinks.push(OutputSymlink::default()), &|m| {
            m.output_directory_symlinks.push(OutputSymlink::default())
        }];
        for change in old {
            assert_eq!(refused(change), "it has directories or symbolic links");
        }
        let link = refused(&|m| m.output_symlinks.push(OutputSymlink::default()));
        assert_eq!(link, "it has directories or symbolic links");
        let directory = refused(&|m| m.output_directories.push(OutputDirectory::default()));
        assert_eq!(directory, "it has directories or symbolic links");
        assert_eq!(refused(&|m| m.exit_code = 2), "its exit code is 2");
        let twice = refused(&|m| m.output_files.push(m.output_files[0].clone()));
        assert_eq!(twice, "it has two files with the name \"log\"");
        for name in ["", "/etc/passwd", "../x", "a/../b"] {
            let text = refused(&|m| m.output_files[0].path = name.to_owned());
            assert_eq!(text, format!("it has a file with the name \"{name}\""));
        }
        let none = refused(&|m| m.output_files[0].digest = None);
        assert_eq!(none, "it has a file without a digest");
        for (hash, size) in [
            ("ab", 1),
            (&"0".repeat(63), 1),
            (&"0".repeat(64), -1),
            (&"G".repeat(64), 1),
        ] {
            let text = refused(&|m| {
                m.output_files[0].digest = Some(Digest {
                    hash: hash.to_owned(),
                    size_bytes: size,
                });
            });
            assert!(text.ends_with("is no digest of SHA256 with a size"), "{text}");
        }
        let many = refused(&|m| m.output_files = vec![m.output_files[0].clone(); MAX_FILES + 1]);
        assert_eq!(many, "it has more than 100000 files");
    }
}
