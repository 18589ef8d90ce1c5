//! The names that clients ask for, and the files that they may mean; no I/O.
//!
//! Firmware and boot loaders join directories and names carelessly: `//boot.ipxe`, `/./boot.ipxe`, `/EFI\BOOT\grubx64.efi`. Some PXE ROMs
//! send the end mark of a DHCP option (FF) behind the name. A component `..` is refused in every form.

use crate::model::RelPath;

/// A name that a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedName {
    /// The paths that it may mean, in the order in which they are looked for; at least one.
    candidates: Vec<RelPath>,
    /// Whether upper and lower case are the same where no file has the name as it is written.
    fold: bool,
}

impl AskedName {
    /// The decoded path of an HTTP request, after its first slash. Case counts.
    pub fn of_http(name: &[u8]) -> Option<Self> {
        Self::new(&[name], false)
    }

    /// The name of a TFTP request. Where no file has it as it is written, case does not count: names of TFTP are those of firmware, whose
    /// files lie on FAT, where it does not count either.
    pub fn of_tftp(name: &[u8]) -> Option<Self> {
        let end = name.iter().rposition(|b| *b != 0xff).map_or(0, |at| at + 1);
        Self::new(&[name, &name[..end]], true)
    }

    fn new(names: &[&[u8]], fold: bool) -> Option<Self> {
        let mut candidates = Vec::new();
        for name in names {
            // A file of Linux may have a backslash in its name, so that name comes first.
            for separators in [&b"/"[..], b"/\\"] {
                if let Some(path) = plain(name, separators)
                    && !candidates.contains(&path)
                {
                    candidates.push(path);
                }
            }
        }
        (!candidates.is_empty()).then_some(Self { candidates, fold })
    }

    /// The paths that the name may mean, in order.
    pub fn candidates(&self) -> &[RelPath] {
        &self.candidates
    }

    /// Whether case counts for less than a file of the name.
    pub fn folds(&self) -> bool {
        self.fold
    }
}

/// The path without empty components and `.`; `None` for one that ends in a separator, which is a directory's, has `..`, or has none left.
fn plain(name: &[u8], separators: &[u8]) -> Option<RelPath> {
    let is_separator = |byte: &u8| separators.contains(byte);
    if name.last().is_none_or(is_separator) {
        return None;
    }
    let parts: Vec<&[u8]> = name
        .split(is_separator)
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    // With either separator: a client that means `..` gets no file, whatever its name.
    let climbs = name.split(|byte| b"/\\".contains(byte)).any(|part| part == b"..");
    match climbs || name.ends_with(b"/.") {
        true => None,
        false => RelPath::new(parts.join(&b'/')).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn http(name: &[u8]) -> Vec<String> {
        let asked = AskedName::of_http(name);
        asked.map_or_else(Vec::new, |asked| {
            asked.candidates.iter().map(ToString::to_string).collect()
        })
    }

    #[test]
    fn careless_names_are_those_of_files() {
        for (name, want) in [
            (&b"boot.ipxe"[..], &["boot.ipxe"][..]),
            (b"/boot.ipxe", &["boot.ipxe"]),
            (b"///a//b", &["a/b"]),
            (b"./a/./b", &["a/b"]),
            (b"a/.../b", &["a/.../b"]),
            (b"EFI\\BOOT\\x.efi", &["EFI\\BOOT\\x.efi", "EFI/BOOT/x.efi"]),
            (b"\\EFI\\\\.\\x.efi", &["\\EFI\\\\.\\x.efi", "EFI/x.efi"]),
            (b"a b+c", &["a b+c"]),
            (b"", &[]),
            (b"/", &[]),
            (b"a/", &[]),
            (b".", &[]),
            (b"a/.", &[]),
            (b"..", &[]),
            (b"../secret", &[]),
            (b"a/../b", &[]),
            (b"..\\secret", &[]),
            (b"a\\..\\b", &[]),
            (b"a/..\\b", &[]),
            (b"a\0b", &[]),
        ] {
            assert_eq!(http(name), want, "{}", name.escape_ascii());
        }
        assert_eq!(http(b"a\\"), ["a\\"], "a directory's only where a backslash separates");
    }

    #[test]
    fn a_name_of_tftp_may_end_in_the_mark_of_an_option() {
        let tftp = |name: &[u8]| AskedName::of_tftp(name).map(|asked| asked.candidates.len());
        assert_eq!(tftp(b"boot.ipxe\xff"), Some(2));
        assert_eq!(tftp(b"\\EFI\\x.efi\xff\xff"), Some(4));
        assert_eq!(tftp(b"boot.ipxe"), Some(1));
        assert_eq!(tftp(b"\xff"), Some(1), "a file may be called so");
        assert_eq!(tftp(b"../x\xff"), None);
        assert_eq!(http(b"boot.ipxe\xff").len(), 1);
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_the_directory(name in proptest::collection::vec(prop::sample::select(b"./\\a\xff".to_vec()), 0..24)) {
            for asked in [AskedName::of_http(&name), AskedName::of_tftp(&name)].into_iter().flatten() {
                for path in asked.candidates() {
                    prop_assert!(path.components().all(|part| part != b".." && part != b"." && !part.is_empty()));
                }
            }
        }
    }
}
