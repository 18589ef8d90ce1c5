//! `SHA256SUMS`: one line `<64 lower-case hex>  <path>` for each file, in the order of their paths; `sha256sum -c` reads it.
//!
//! It lists every file of the artifact and every statement that is equal on all hosts: the manifest, the SBOM and the provenance. It
//! does not list itself, nor `build-record.json`, which describes one build on one host.

use super::ManifestError;
use crate::model::{RelPath, Sha256Digest};
use std::{collections::BTreeMap, fmt::Write};

/// Name of the file.
pub const SUMS_FILE: &str = "SHA256SUMS";
/// Ending of the file with the signature of the file whose name precedes it.
pub const SIGNATURE_ENDING: &str = ".sigstore.json";
/// Length of the digits of a digest and of two spaces.
const PREFIX: usize = 64 + 2;

/// The content of `SHA256SUMS`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sums(BTreeMap<RelPath, Sha256Digest>);

/// Checks that `sha256sum` writes a file name without escapes, and that a terminal shows it unchanged.
pub(super) fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match std::str::from_utf8(name) {
        Err(_) => Err("has a name that is not UTF-8"),
        Ok(text) if text.contains('\\') => Err("has a backslash in its name"),
        Ok(text) if text.chars().any(char::is_control) => Err("has a control character in its name"),
        Ok(_) => Ok(()),
    }
}

/// How a list in another form of `sha256sum` is written in this one; in the documentation with its limits.
const REWRITE: &str = "docs/audit.md (\"Other forms of SHA256SUMS\") has the command that rewrites the list";

/// The form of a line that `sha256sum -c` reads too, or the line that it skips.
fn other_form(line: &str) -> Option<&'static str> {
    let digest = line
        .get(..64)
        .filter(|digest| digest.bytes().all(|b| b.is_ascii_hexdigit()));
    let rest = digest.and_then(|_| line.get(64..));
    match (line, digest, rest) {
        (line, ..) if line.ends_with('\r') => Some("it ends with a carriage return, as lines of Windows do"),
        ("", ..) => Some("it is empty"),
        (line, ..) if line.starts_with('#') => Some("it is a comment"),
        (line, ..) if line.starts_with("SHA256 (") => Some("it has the form of BSD (`--tag`)"),
        (_, Some(_), Some(rest)) if rest.starts_with(" *") => {
            Some("it has the mark \"*\" of binary mode in front of the path")
        }
        (_, Some(digest), _) if digest.bytes().any(|b| b.is_ascii_uppercase()) => {
            Some("its digest is in capital letters, not in 64 lower-case digits")
        }
        (_, Some(_), Some(rest)) if rest.starts_with("  ./") => Some("its path begins with \"./\""),
        _ => None,
    }
}

impl Sums {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file. A name that `sha256sum` would escape is an error.
    pub fn insert(&mut self, path: RelPath, sha256: Sha256Digest) -> Result<(), ManifestError> {
        check_name(path.as_bytes()).map_err(|problem| ManifestError::Facts {
            what: format!("the file \"{path}\""),
            problem: problem.to_owned(),
        })?;
        self.0.insert(path, sha256);
        Ok(())
    }

    /// Every file, by path.
    pub fn files(&self) -> &BTreeMap<RelPath, Sha256Digest> {
        &self.0
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for (path, sha256) in &self.0 {
            let _ = writeln!(out, "{sha256}  {path}");
        }
        out
    }

    /// Reads text in the form of [`Sums::to_text`], and no other form.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let error = |line: usize, problem: String| ManifestError::Sums { line, problem };
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            error(line, "it is not UTF-8".to_owned())
        })?;
        let mut files: BTreeMap<RelPath, Sha256Digest> = BTreeMap::new();
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let error = |problem: String| error(number + 1, problem);
            let Some(line) = line.strip_suffix('\n') else {
                return Err(error("the last line does not end with a line feed".to_owned()));
            };
            if line.starts_with('\\') {
                return Err(error("escaped names are not supported".to_owned()));
            }
            if let Some(form) = other_form(line) {
                return Err(error(format!("{form}; {REWRITE}")));
            }
            let shape = || error("it must have a digest, two spaces and a path".to_owned());
            let (digest, path) = line.split_at_checked(PREFIX).ok_or_else(shape)?;
            let digest = digest.strip_suffix("  ").ok_or_else(shape)?;
            let sha256: Sha256Digest = digest.parse().map_err(|e| error(format!("{e}")))?;
            check_name(path.as_bytes()).map_err(|problem| error(format!("{path:?} {problem}")))?;
            let path: RelPath = path.parse().map_err(|e| error(format!("{e}")))?;
            match files.last_key_value() {
                Some((last, _)) if *last == path => return Err(error(format!("\"{path}\" is listed twice"))),
                Some((last, _)) if *last > path => return Err(error(format!("\"{path}\" is listed after \"{last}\""))),
                _ => {}
            }
            files.insert(path, sha256);
        }
        if files.is_empty() {
            return Err(error(1, "it lists no file".to_owned()));
        }
        Ok(Self(files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> String {
        format!("{}  a\n{}  d/x y\n", "0a".repeat(32), "ff".repeat(32))
    }

    #[test]
    fn round_trips() {
        let text = good();
        let sums = Sums::parse(text.as_bytes()).expect("valid");
        assert_eq!(sums.to_text(), text);
        assert_eq!(sums.files().len(), 2);
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        let good = good();
        for (text, want) in [
            (String::new(), "line 1: it lists no file"),
            (good.trim_end().to_owned(), "line 2: the last line does not end"),
            (
                good.replace("  d", " *d"),
                "line 2: it has the mark \"*\" of binary mode",
            ),
            (good.replace("  d", " d"), "line 2: it must have a digest, two spaces"),
            (good.replace("0a", "0A"), "line 1: its digest is in capital letters"),
            (good.replace("0a", "0g"), "line 1: sha256 digest is not 64 lower-case"),
            (good.replace("  d", "  ./d"), "line 2: its path begins with \"./\""),
            (good.replace('\n', "\r\n"), "line 1: it ends with a carriage return"),
            (format!("# made today\n{good}"), "line 1: it is a comment"),
            (
                format!("SHA256 (a) = {}\n", "0a".repeat(32)),
                "line 1: it has the form of BSD",
            ),
            (good.replace("d/x y", "../x"), "line 2: path \"../x\""),
            (good.replace("d/x y", "/x"), "line 2: path \"/x\""),
            (
                good.replace("d/x y", "x\ry"),
                "line 2: \"x\\ry\" has a control character",
            ),
            (good.replace("d/x y", "x\\ny"), "line 2: \"x\\\\ny\" has a backslash"),
            (format!("\\{good}"), "line 1: escaped names"),
            (good.replace("d/x y", "a"), "line 2: \"a\" is listed twice"),
            (good.replace("d/x y", "A"), "line 2: \"A\" is listed after \"a\""),
            (
                good.replace('\n', "\n\n"),
                "line 2: it is empty; docs/audit.md (\"Other forms",
            ),
        ] {
            let err = Sums::parse(text.as_bytes()).expect_err(&text).to_string();
            assert!(err.contains(want), "{err:?} lacks {want:?}");
        }
        let mut bytes = good.into_bytes();
        bytes[70] = 0xff;
        assert!(
            Sums::parse(&bytes)
                .expect_err("not UTF-8")
                .to_string()
                .contains("line 2")
        );
    }
}
