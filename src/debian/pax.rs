//! The extended header records of a POSIX (pax) tar archive.
//!
//! Each record is `LENGTH SPACE KEY = VALUE NEWLINE`, `LENGTH` being the decimal length of the whole record; records fill
//! the header's data exactly. Source: POSIX.1-2017 pax, "pax Extended Header".

use std::collections::BTreeMap;

/// Prefix of a record that carries an extended attribute.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one extended header, which describe the entry after it.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Whole seconds.
    pub(super) mtime: Option<u64>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads all records; an unknown, malformed or repeated record is an error.
pub(super) fn parse(mut data: &[u8]) -> Result<Pax, String> {
    let mut pax = Pax::default();
    let mut seen = BTreeMap::new();
    while !data.is_empty() {
        let (key, value, rest) = record(data).ok_or_else(|| {
            let start = &data[..data.len().min(40)];
            format!("has a malformed pax record: \"{}\"", start.escape_ascii())
        })?;
        data = rest;
        let shown = || format!("\"{}={}\"", key.escape_ascii(), value.escape_ascii());
        if seen.insert(key, ()).is_some() {
            return Err(format!("has pax record \"{}\" twice", key.escape_ascii()));
        }
        let number = || decimal(value).ok_or_else(|| format!("has pax record {}, which is not a number", shown()));
        match key {
            b"path" => pax.path = Some(value.to_vec()),
            b"linkpath" => pax.linkpath = Some(value.to_vec()),
            b"size" => pax.size = Some(number()?),
            b"uid" => pax.uid = Some(number()?),
            b"gid" => pax.gid = Some(number()?),
            b"mtime" => {
                pax.mtime = Some(
                    seconds(value)
                        .ok_or_else(|| format!("has pax record {}, which is not a time after 1970", shown()))?,
                )
            }
            // These describe the file that was packed; they are not unpacked.
            b"atime" | b"ctime" | b"uname" | b"gname" | b"comment" => {}
            _ if key.starts_with(b"GNU.sparse.") => return Err("is a sparse file, which is not supported".to_owned()),
            _ => match key.strip_prefix(XATTR) {
                Some(name) if !name.is_empty() && !name.contains(&0) => {
                    pax.xattrs.insert(name.to_vec(), value.to_vec());
                }
                _ => return Err(format!("has unknown pax record {}", shown())),
            },
        }
    }
    Ok(pax)
}

/// The first record, as key and value, and the rest of the data.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    (equals > 0).then(|| (&body[..equals], &body[equals + 1..], rest))
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whole seconds of `1234` or `1234.5678`.
fn seconds(text: &[u8]) -> Option<u64> {
    let mut parts = text.splitn(2, |b| *b == b'.');
    let whole = decimal(parts.next()?)?;
    match parts.next() {
        Some(fraction) if !fraction.iter().all(u8::is_ascii_digit) => None,
        _ => Some(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_records_and_refuses_what_it_does_not_know() {
        let pax =
            parse(b"12 path=a\nb\n22 mtime=1700000000.5\n34 SCHILY.xattr.user.k=v\0w 123456\n").expect("well formed");
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(pax.mtime, Some(1_700_000_000));
        assert_eq!(
            pax.xattrs.get(&b"user.k"[..]).map(Vec::as_slice),
            Some(&b"v\0w 123456"[..])
        );
        for (bad, why) in [
            (&b"9 path=a\n9 path=b\n"[..], "twice"),
            (b"11 size=-1\n", "not a number"),
            (b"8 path=a\n", "malformed"),
            (b"99 path=a\n", "malformed"),
            (b"\n9 path=a\n", "malformed"),
            (b"9 pathxa\n", "malformed"),
            (b"9 evil=1\n", "unknown pax record \"evil=1\""),
            (b"22 GNU.sparse.major=1\n", "sparse"),
        ] {
            let problem = parse(bad).expect_err("must be refused");
            assert!(problem.contains(why), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
