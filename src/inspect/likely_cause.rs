//! The likely cause of a difference, guessed from its bytes.

/// A likely cause of a difference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LikelyCause {
    /// A date or a time.
    Time,
    /// A path of the build machine.
    Path,
    /// An identifier or other bytes without a pattern.
    Random,
    /// The same elements in another order.
    Order,
}

impl LikelyCause {
    /// The name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            LikelyCause::Time => "time",
            LikelyCause::Path => "path",
            LikelyCause::Random => "random",
            LikelyCause::Order => "order",
        }
    }
}

/// Fields that hold times, and fields that hold identifiers.
const TIMES: [&str; 9] = [
    "modified", "changed", "accessed", "made", "mounted", "written", "checked", "linked", "created",
];
const IDENTIFIERS: [&str; 6] = ["uuid", "guid", "serial", "hash seed", "disk guid", "serialNumber"];
/// Directories in which builds happen.
const PATHS: [&str; 5] = ["/tmp/", "/build/", "/home/", "/root/", "/var/tmp/"];

/// The likely cause of a difference between two values of a field.
pub(super) fn of_field(name: &str, a: Option<&str>, b: Option<&str>) -> Option<LikelyCause> {
    let last = name.rsplit('/').next().unwrap_or(name);
    if TIMES.contains(&last) || last.to_ascii_lowercase().contains("time") {
        return Some(LikelyCause::Time);
    }
    if IDENTIFIERS.contains(&last) {
        return Some(LikelyCause::Random);
    }
    of_bytes(a?.as_bytes(), b?.as_bytes())
}

/// The likely cause of a difference, from the bytes around it.
pub(super) fn of_bytes(a: &[u8], b: &[u8]) -> Option<LikelyCause> {
    if a == b {
        return None;
    }
    let (text_a, text_b) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
    if is_time(&text_a) && is_time(&text_b) {
        return Some(LikelyCause::Time);
    }
    if PATHS.iter().any(|p| text_a.contains(p) || text_b.contains(p)) {
        return Some(LikelyCause::Path);
    }
    let sorted = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.sort_unstable();
        bytes
    };
    if a.len() == b.len() && a.len() >= 8 && sorted(a) == sorted(b) {
        return Some(LikelyCause::Order);
    }
    let differing = a.iter().zip(b).filter(|(x, y)| x != y).count();
    let plain = |bytes: &[u8]| {
        bytes
            .iter()
            .all(|b| (0x20..0x7f).contains(b) || *b == b'\n' || *b == b'\t')
    };
    (differing >= 12 && !plain(a) && !plain(b)).then_some(LikelyCause::Random)
}

/// Whether `text` has a date such as 2026-11-23 or a time such as 12:30:00.
fn is_time(text: &str) -> bool {
    let shape: Vec<u8> = text
        .bytes()
        .map(|b| if b.is_ascii_digit() { b'0' } else { b })
        .collect();
    [&b"0000-00-00"[..], b"00:00:00", b"00000000T00"]
        .iter()
        .any(|p| shape.windows(p.len()).any(|w| w == *p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_guessed_by_their_looks() {
        let hint = |a: &[u8], b: &[u8]| of_bytes(a, b);
        assert_eq!(
            hint(b"built 2026-11-23\n", b"built 2026-11-24\n"),
            Some(LikelyCause::Time)
        );
        assert_eq!(hint(b"in /tmp/a1/x", b"in /tmp/b2/x"), Some(LikelyCause::Path));
        assert_eq!(hint(b"abcd efgh", b"efgh abcd"), Some(LikelyCause::Order));
        assert_eq!(hint(b"hello", b"hallo"), None);
        assert_eq!(of_field("uuid", Some("a"), Some("b")), Some(LikelyCause::Random));
        assert_eq!(
            of_field("metadata/timestamp", Some("a"), Some("b")),
            Some(LikelyCause::Time)
        );
    }
}
