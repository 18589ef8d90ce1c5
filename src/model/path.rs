//! `RelPath`: a relative path that cannot lead out of its root.

use super::ModelError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{cmp::Ordering, ffi::OsStr, fmt, os::unix::ffi::OsStrExt, path::Path, str::FromStr};

/// Longest path accepted, in bytes (Linux `PATH_MAX` less the terminating NUL).
const MAX_PATH: usize = 4095;
/// Longest component accepted, in bytes (Linux `NAME_MAX`).
const MAX_NAME: usize = 255;

/// A non-empty relative path of plain components: no `.`, `..`, empty component, leading or trailing `/`, or NUL.
///
/// It has bytes, not text: file names in packages need not be UTF-8. Paths are ordered by component, so that a directory sorts
/// directly before its contents.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Checks `bytes` and wraps them.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, ModelError> {
        let bytes = bytes.as_ref();
        let bad = |problem| ModelError::Path {
            path: bytes.escape_ascii().to_string(),
            problem,
        };
        if bytes.is_empty() {
            return Err(bad("is empty"));
        }
        if bytes.len() > MAX_PATH {
            return Err(bad("is longer than 4095 bytes"));
        }
        if bytes[0] == b'/' {
            return Err(bad("is absolute"));
        }
        for name in bytes.split(|b| *b == b'/') {
            match name {
                b"" => return Err(bad("has an empty component")),
                b"." => return Err(bad("has a component \".\"")),
                b".." => return Err(bad("has a component \"..\"")),
                name if name.len() > MAX_NAME => return Err(bad("has a component longer than 255 bytes")),
                name if name.contains(&0) => return Err(bad("holds a NUL byte")),
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the standard library's type.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The components, in order.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// The number of components, at least one.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The last component.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&self.0)
    }

    /// The path without its last component; `None` at the top level.
    pub fn parent(&self) -> Option<Self> {
        let cut = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..cut].into()))
    }

    /// This path with one or more components appended.
    pub fn join(&self, tail: &RelPath) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + tail.0.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(&tail.0);
        Self(bytes.into())
    }

    /// Whether `self` is `base` or lies below it.
    pub fn is_within(&self, base: &RelPath) -> bool {
        self.0.starts_with(&base.0) && matches!(self.0.get(base.0.len()), None | Some(b'/'))
    }

    /// The path below `base`; `None` when it is `base` itself or lies elsewhere.
    pub fn strip_prefix(&self, base: &RelPath) -> Option<Self> {
        if !self.is_within(base) || self.0.len() == base.0.len() {
            return None;
        }
        Some(Self(self.0[base.0.len() + 1..].into()))
    }
}

/// Compares component by component. Bytes are compared with the slash before all others, which is the same: a component contains
/// neither a slash nor a NUL.
impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.0[..], &other.0[..]);
        // Trees and their writers compare paths more than they do anything else: an index is fast at every optimisation.
        let mut same = 0;
        while same < a.len() && same < b.len() && a[same] == b[same] {
            same += 1;
        }
        let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        a.get(same).map(rank).cmp(&b.get(same).map(rank))
    }
}
impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl FromStr for RelPath {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        Self::new(text)
    }
}
/// Shows a path safely on a terminal: one with control characters, or that is not UTF-8, is escaped.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text),
            _ => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}
impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}
impl AsRef<Path> for RelPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}
impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(|_| serde::ser::Error::custom("path is not UTF-8"))?;
        s.serialize_str(text)
    }
}
impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_could_escape() {
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "a/./b",
            "a\0b",
            &"x".repeat(256),
            &"x/".repeat(3000),
        ] {
            assert!(RelPath::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "a/b", "...", "..a", "-rf", "a b", "\u{7f}", &"x".repeat(255)] {
            assert!(RelPath::new(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn a_directory_sorts_directly_before_its_children() {
        let mut paths: Vec<RelPath> = ["a-b", "a", "a/b", "a.c"]
            .iter()
            .map(|p| p.parse().expect("valid"))
            .collect();
        paths.sort();
        let text: Vec<String> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["a", "a/b", "a-b", "a.c"]);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_components(a in "[/ab.\u{1}é]{1,8}", b in "[/ab.\u{1}é]{1,8}") {
            if let (Ok(a), Ok(b)) = (RelPath::new(&a), RelPath::new(&b)) {
                prop_assert_eq!(a.cmp(&b), a.components().cmp(b.components()));
            }
        }

        #[test]
        fn never_panics_and_never_escapes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(path) = RelPath::new(&bytes) {
                prop_assert!(path.components().all(|c| c != b".." && c != b"." && !c.is_empty()));
                prop_assert_eq!(path.as_bytes(), &bytes[..]);
            }
        }
    }
}
