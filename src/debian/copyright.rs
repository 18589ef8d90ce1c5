//! Licences in the copyright file of a package: `/usr/share/doc/<package>/copyright`.
//!
//! Only the machine-readable form is read: paragraphs with a `Format` field first, and a `License` field whose first line has short
//! names. Source: <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>. A short name becomes an SPDX identifier where that
//! document defines it; every other name stays a name, because packages give other licences names of their own.

use super::{ControlReader, Paragraph};
use std::collections::BTreeSet;

/// The version of the form that is read, as it stands in its address.
const FORMAT: &str = "copyright-format/1.0";
/// Longest list of short names that is taken as a licence, bytes.
const MAX_NAME: usize = 200;
/// More licences in one file are none: the file is not a usual one.
const MAX_LICENCES: usize = 200;
/// A larger copyright file is not read, bytes. The kernel's has 240 KB.
pub const MAX_COPYRIGHT: u64 = 4 << 20;

/// Families of licences in the short names of the specification, with the SPDX name of each. A version follows, and a plus sign for later
/// ones.
const FAMILIES: [(&str, &str); 4] = [("GPL", "GPL"), ("LGPL", "LGPL"), ("AGPL", "AGPL"), ("GFDL", "GFDL")];
/// Versions of these families that SPDX has.
const VERSIONS: [(&str, &[&str]); 4] = [
    ("GPL", &["1.0", "2.0", "3.0"]),
    ("LGPL", &["2.0", "2.1", "3.0"]),
    ("AGPL", &["1.0", "3.0"]),
    ("GFDL", &["1.1", "1.2", "1.3"]),
];
/// The other short names of the specification that stand for one text.
const NAMES: [(&str, &str); 19] = [
    ("Apache-1.0", "Apache-1.0"),
    ("Apache-1.1", "Apache-1.1"),
    ("Apache-2.0", "Apache-2.0"),
    ("Artistic-1.0", "Artistic-1.0"),
    ("Artistic-2.0", "Artistic-2.0"),
    ("BSD-2-clause", "BSD-2-Clause"),
    ("BSD-3-clause", "BSD-3-Clause"),
    ("BSD-4-clause", "BSD-4-Clause"),
    ("CC0-1.0", "CC0-1.0"),
    ("CC-BY-3.0", "CC-BY-3.0"),
    ("CC-BY-4.0", "CC-BY-4.0"),
    ("CC-BY-SA-3.0", "CC-BY-SA-3.0"),
    ("CC-BY-SA-4.0", "CC-BY-SA-4.0"),
    ("Expat", "MIT"),
    ("ISC", "ISC"),
    ("LPPL-1.3c", "LPPL-1.3c"),
    ("MPL-1.1", "MPL-1.1"),
    ("MPL-2.0", "MPL-2.0"),
    ("Zlib", "Zlib"),
];

/// A licence as a package states it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PackageLicence {
    /// An SPDX expression.
    Spdx(String),
    /// A name that the package uses.
    Name(String),
}

/// The licences that a copyright file states for files of the package, sorted; empty when it is not machine-readable.
pub fn read_licences(text: &[u8]) -> Vec<PackageLicence> {
    licences(text).unwrap_or_default()
}

fn licences(text: &[u8]) -> Option<Vec<PackageLicence>> {
    let mut reader = ControlReader::new(text, "copyright");
    let mut paragraph = Paragraph::default();
    let mut found = BTreeSet::new();
    let mut whole = None;
    let mut first = true;
    while reader.read(&mut paragraph).ok()? {
        let licence = paragraph
            .get("License")
            .and_then(|text| text.lines().next())
            .map(str::trim);
        if first {
            if !paragraph.get("Format").is_some_and(|format| format.contains(FORMAT)) {
                return None;
            }
            whole = licence.map(licence_of);
        } else if paragraph.get("Files").is_some() {
            found.extend(licence.filter(|line| !line.is_empty()).map(licence_of));
        }
        first = false;
        if found.len() > MAX_LICENCES {
            return None;
        }
    }
    if found.is_empty() {
        found.extend(whole);
    }
    Some(found.into_iter().collect())
}

/// The licence that a line of short names states.
fn licence_of(line: &str) -> PackageLicence {
    match expression(line) {
        Some(expression) => PackageLicence::Spdx(expression),
        None => {
            let shown = line.chars().filter(|c| crate::model::is_visible(*c));
            PackageLicence::Name(shown.take(MAX_NAME).collect())
        }
    }
}

/// Short names joined by `and` and `or`, whose precedence is that of SPDX. A comma changes it, and an exception has names of its own: both
/// are left as they are.
fn expression(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    if words.len().is_multiple_of(2) || line.len() > MAX_NAME {
        return None;
    }
    let mut out = Vec::new();
    for (at, word) in words.iter().enumerate() {
        out.push(match at % 2 {
            0 => identifier(word)?,
            _ if word.eq_ignore_ascii_case("and") => "AND".to_owned(),
            _ if word.eq_ignore_ascii_case("or") => "OR".to_owned(),
            _ => return None,
        });
    }
    Some(out.join(" "))
}

/// The SPDX identifier of a short name.
fn identifier(name: &str) -> Option<String> {
    if let Some((_, spdx)) = NAMES.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)) {
        return Some((*spdx).to_owned());
    }
    let (family, version) = name.split_once('-')?;
    let (family, spdx) = FAMILIES.iter().find(|(short, _)| short.eq_ignore_ascii_case(family))?;
    let (version, grant) = match version.strip_suffix('+') {
        Some(version) => (version, "or-later"),
        None => (version, "only"),
    };
    let version = match version.contains('.') {
        true => version.to_owned(),
        false => format!("{version}.0"),
    };
    let (_, known) = VERSIONS.iter().find(|(name, _)| name == family)?;
    known
        .contains(&version.as_str())
        .then(|| format!("{spdx}-{version}-{grant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spdx(text: &str) -> PackageLicence {
        PackageLicence::Spdx(text.to_owned())
    }
    fn name(text: &str) -> PackageLicence {
        PackageLicence::Name(text.to_owned())
    }

    #[test]
    fn licences_of_files_are_taken_and_texts_are_not() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n\n\
            Files: *\nCopyright: 2001 A\nLicense: GPL-2+\n Some text\n .\n License: none\n\n\
            Files: lib/*\nCopyright: B\nLicense: LGPL-2.1 or Expat\n\n\
            Files: debian/*\nCopyright: C\nLicense: GPL-2+ with OpenSSL exception\n\n\
            License: MPL-2.0\n This stands alone.\n";
        let wanted = [
            spdx("GPL-2.0-or-later"),
            spdx("LGPL-2.1-only OR MIT"),
            name("GPL-2+ with OpenSSL exception"),
        ];
        assert_eq!(read_licences(text.as_bytes()), wanted);
        let header = "Format: http://www.debian.org/doc/packaging-manuals/copyright-format/1.0\nLicense: ISC\n";
        assert_eq!(read_licences(header.as_bytes()), [spdx("ISC")]);
    }

    #[test]
    fn only_names_of_the_specification_become_identifiers() {
        for (short, wanted) in [
            ("GPL-1+", Some("GPL-1.0-or-later")),
            ("gpl-3", Some("GPL-3.0-only")),
            ("LGPL-2", Some("LGPL-2.0-only")),
            ("AGPL-3+", Some("AGPL-3.0-or-later")),
            ("GFDL-1.3+", Some("GFDL-1.3-or-later")),
            ("BSD-3-clause and ISC or Zlib", Some("BSD-3-Clause AND ISC OR Zlib")),
            ("GPL", None),
            ("GPL-4", None),
            ("GPL-2.5+", None),
            ("MIT", None),
            ("BSD", None),
            ("public-domain", None),
            ("GPL-2, or MIT", None),
            ("GPL-2 or", None),
            ("or", None),
            ("", None),
        ] {
            assert_eq!(expression(short).as_deref(), wanted, "{short}");
        }
    }

    #[test]
    fn another_form_states_nothing() {
        for text in [
            &b""[..],
            b"This package was debianized by A.\n\nLicense: GPL-2\n",
            b"Format: https://example.org/other\n\nFiles: *\nLicense: GPL-2\n",
            b"Format: copyright-format/1.0\nno field\n",
            b"Format: copyright-format/1.0\n\nFiles: *\nLicense: \xff\n",
        ] {
            assert_eq!(read_licences(text), [], "{text:?}");
        }
    }
}
