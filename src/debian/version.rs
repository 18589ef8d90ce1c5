//! Debian version numbers and their order.
//!
//! `[epoch:]upstream[-revision]`, compared part by part as
//! [deb-version(7)](https://manpages.debian.org/deb-version) defines: runs of non-digits, compared in a modified ASCII order (`~`
//! before the end, the end before letters, letters before other characters), alternate with runs of digits, compared as numbers.
//!
//! Own code instead of the crate `debversion` (docs/dependencies.md), whose dependencies are larger than this file.

use super::MetadataError;
use crate::model::excerpt;
use std::{cmp::Ordering, fmt, str::FromStr};

/// A longer version is refused, bytes; Debian's longest has about 60.
const MAX_VERSION: usize = 256;

/// A well-formed version. Order and equality are those of Debian's tools, so `1.0` equals `0:1.00`.
#[derive(Clone, Debug)]
pub struct Version(Box<str>);

impl Version {
    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The problem with `text` as a version; `None` when it is well-formed.
pub(super) fn version_problem(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is empty");
    }
    if text.len() > MAX_VERSION {
        return Some("is longer than 256 bytes");
    }
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) => (Some(epoch), rest),
        None => (None, text),
    };
    if let Some(epoch) = epoch {
        // dpkg's epoch is a C int.
        if !epoch.bytes().all(|b| b.is_ascii_digit()) || epoch.parse::<i32>().is_err() {
            return Some("has an epoch that is not a number below 2147483648");
        }
    }
    let (upstream, revision) = match rest.rsplit_once('-') {
        Some((upstream, revision)) => (upstream, Some(revision)),
        None => (rest, None),
    };
    if upstream.is_empty() {
        return Some("has no upstream part");
    }
    if !upstream
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b".+-:~".contains(&b))
    {
        return Some("has a character that no version may have");
    }
    match revision {
        Some("") => Some("has an empty revision"),
        Some(r) if !r.bytes().all(|b| b.is_ascii_alphanumeric() || b".+~".contains(&b)) => {
            Some("has a character in its revision that no revision may have")
        }
        _ => None,
    }
}

/// Compares two well-formed versions.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a_epoch, a_upstream, a_revision) = parts(a);
    let (b_epoch, b_upstream, b_revision) = parts(b);
    compare_part(a_epoch, b_epoch)
        .then_with(|| compare_part(a_upstream, b_upstream))
        .then_with(|| compare_part(a_revision, b_revision))
}

fn parts(text: &str) -> (&[u8], &[u8], &[u8]) {
    let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.as_bytes(), upstream.as_bytes(), revision.as_bytes())
}

/// Weight of a byte in a run of non-digits; 0 is the end of the run.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(b) if b.is_ascii_alphabetic() => i32::from(*b),
        Some(b) => i32::from(*b) + 256,
    }
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        while a.first().is_some_and(|c| !c.is_ascii_digit()) || b.first().is_some_and(|c| !c.is_ascii_digit()) {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order.is_ne() {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (a_digits, a_rest) = number(a);
        let (b_digits, b_rest) = number(b);
        let order = a_digits.len().cmp(&b_digits.len()).then_with(|| a_digits.cmp(b_digits));
        if order.is_ne() {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    Ordering::Equal
}

/// Splits off the leading run of digits, without its leading zeros.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let zeros = digits.iter().position(|b| *b != b'0').unwrap_or(digits.len());
    (&digits[zeros..], rest)
}

impl FromStr for Version {
    type Err = MetadataError;
    fn from_str(text: &str) -> Result<Self, MetadataError> {
        match version_problem(text) {
            None => Ok(Self(text.into())),
            Some(problem) => Err(MetadataError::Version {
                version: excerpt(text),
                problem,
            }),
        }
    }
}
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}
impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Version {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(a: &str, b: &str) -> Ordering {
        let (a, b): (Version, Version) = (a.parse().expect(a), b.parse().expect(b));
        a.cmp(&b)
    }

    /// Pairs of versions with their order by `dpkg --compare-versions`.
    const TABLE: &[(&str, &str, Ordering)] = &[
        ("1.0", "1.0", Ordering::Equal),
        ("1.0", "0:1.00", Ordering::Equal),
        ("1.0-0", "1.0", Ordering::Equal),
        ("1.0", "1.0-1", Ordering::Less),
        ("1.0-1", "1.0-1+b1", Ordering::Less),
        ("1.0~rc1", "1.0", Ordering::Less),
        ("1.0~~", "1.0~", Ordering::Less),
        ("1.0~~a", "1.0~", Ordering::Less),
        ("1.0a", "1.0", Ordering::Greater),
        ("1.0a", "1.0+", Ordering::Less),
        ("1.9", "1.10", Ordering::Less),
        ("1.002", "1.2", Ordering::Equal),
        ("2:1", "1:9", Ordering::Greater),
        ("10:1", "9:1", Ordering::Greater),
        ("1.2-3-4", "1.2-3-5", Ordering::Less),
        ("1.2-3", "1.2-3-0", Ordering::Less),
        ("6.12.57+deb13", "6.12.57", Ordering::Greater),
        ("2.41-12+deb13u1", "2.41-12", Ordering::Greater),
        ("1:2:3-4", "1:2:3-4", Ordering::Equal),
        (
            "99999999999999999999999999",
            "100000000000000000000000000",
            Ordering::Less,
        ),
        ("1a~", "1a", Ordering::Less),
        ("1.0-1~bpo12+1", "1.0-1", Ordering::Less),
    ];

    #[test]
    fn orders_as_dpkg_does() {
        for (a, b, expected) in TABLE {
            assert_eq!(order(a, b), *expected, "{a} against {b}");
            assert_eq!(order(b, a), expected.reverse(), "{b} against {a}");
        }
    }

    #[test]
    fn refuses_what_is_no_version() {
        for bad in [
            "",
            ":1",
            "1:",
            "x:1",
            "-1",
            "1-",
            "1 2",
            "1_2",
            "1.0-a:b",
            "2147483648:1",
            &"1".repeat(257),
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?} was accepted");
        }
        let err = "1_2".parse::<Version>().expect_err("refused");
        assert_eq!(
            err.to_string(),
            "version \"1_2\" has a character that no version may have"
        );
    }

    proptest! {
        #[test]
        fn is_a_total_order(a in "[0-9a-c.+~]{1,6}(-[0-9a~+]{1,3})?", b in "[0-9a-c.+~]{1,6}(-[0-9a~+]{1,3})?",
                            c in "[0-9a-c.+~]{1,6}(-[0-9a~+]{1,3})?") {
            let (ab, bc, ac) = (compare(&a, &b), compare(&b, &c), compare(&a, &c));
            prop_assert_eq!(ab, compare(&b, &a).reverse());
            if ab == bc { prop_assert_eq!(ac, ab); }
            if ab.is_eq() { prop_assert_eq!(ac, bc); }
        }

        #[test]
        fn a_tilde_sorts_before_and_a_suffix_after(v in "[0-9][0-9a-z.+]{0,8}") {
            prop_assert_eq!(compare(&format!("{v}~x"), &v), Ordering::Less);
            prop_assert_eq!(compare(&format!("{v}+x"), &v), Ordering::Greater);
        }

        #[test]
        fn never_panics(v in "\\PC{0,20}", w in "\\PC{0,20}") {
            if let (Ok(v), Ok(w)) = (v.parse::<Version>(), w.parse::<Version>()) { let _ = v.cmp(&w); }
        }
    }
}
