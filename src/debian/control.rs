//! Control files: paragraphs of `Field: value` lines, read one at a time.
//!
//! The format is [deb822(5)](https://manpages.debian.org/deb822): a paragraph ends at a blank line, a line that begins with a space or
//! tab continues the field above it, and field names are compared without regard to case. Comments do not occur in the files that an
//! archive publishes, and are errors.
//!
//! Own code instead of a crate (docs/dependencies.md): an index of 57 MB is read with one buffer, with limits on lines and paragraphs,
//! and every error names its line.

use super::{MetadataError, Relation, Relations, Version};
use crate::model::{RelPath, Sha256Digest, excerpt};
use std::{io::BufRead, str::FromStr};

/// A longer line is refused, bytes; Debian's longest are `Provides` of some tens of kilobytes.
const MAX_LINE: u64 = 1 << 20;
/// A larger paragraph of a package index is refused, bytes.
const MAX_PARAGRAPH: usize = 4 << 20;
/// A larger paragraph of a release file, which consists of one paragraph, is refused, bytes.
const MAX_RELEASE: usize = 64 << 20;

/// One paragraph. Its buffers are reused for the next paragraph.
#[derive(Clone, Debug, Default)]
pub struct Paragraph {
    text: String,
    fields: Vec<FieldSpan>,
    line: u64,
}

#[derive(Clone, Debug)]
struct FieldSpan {
    name: (usize, usize),
    value: (usize, usize),
    line: u64,
}

impl Paragraph {
    /// The value of `field`, trimmed, with its continuation lines; `None` when it is absent.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.find(field).map(|f| self.text[f.value.0..f.value.1].trim())
    }

    /// 1-based line of `field`; the paragraph's first line when it is absent.
    pub fn line_of(&self, field: &str) -> u64 {
        self.find(field).map_or(self.line, |f| f.line)
    }

    /// 1-based number of the paragraph's first line.
    pub fn line(&self) -> u64 {
        self.line
    }

    fn find(&self, field: &str) -> Option<&FieldSpan> {
        self.fields
            .iter()
            .find(|f| self.text[f.name.0..f.name.1].eq_ignore_ascii_case(field))
    }
}

/// Reads the paragraphs of a control file, one at a time.
#[derive(Debug)]
pub struct ControlReader<R> {
    input: R,
    file: String,
    line: u64,
    limit: usize,
    buffer: Vec<u8>,
}

impl<R: BufRead> ControlReader<R> {
    /// A reader of a package index; `file` is its name in errors.
    pub fn new(input: R, file: impl Into<String>) -> Self {
        Self {
            input,
            file: file.into(),
            line: 0,
            limit: MAX_PARAGRAPH,
            buffer: Vec::new(),
        }
    }

    /// A reader of a release file, whose only paragraph lists every file of a suite.
    pub fn release(input: R, file: impl Into<String>) -> Self {
        Self {
            limit: MAX_RELEASE,
            ..Self::new(input, file)
        }
    }

    /// The file's name in errors.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Reads the next paragraph into `paragraph`; `false` at the end of the file.
    ///
    /// # Errors
    /// A line that is too long, not UTF-8 or not a field; a repeated field; a paragraph that is too large.
    pub fn read(&mut self, paragraph: &mut Paragraph) -> Result<bool, MetadataError> {
        paragraph.text.clear();
        paragraph.fields.clear();
        while self.read_line()? {
            if self.buffer.iter().all(|b| matches!(b, b' ' | b'\t')) {
                if paragraph.fields.is_empty() {
                    continue;
                }
                return Ok(true);
            }
            self.take_line(paragraph)?;
        }
        Ok(!paragraph.fields.is_empty())
    }

    fn error(&self, problem: impl Into<String>) -> MetadataError {
        MetadataError::Line {
            file: self.file.clone(),
            line: self.line,
            problem: problem.into(),
        }
    }

    /// Reads one line, without its newline, into the buffer; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, MetadataError> {
        self.buffer.clear();
        let read = std::io::Read::take(&mut self.input, MAX_LINE + 1)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| MetadataError::Read {
                file: self.file.clone(),
                line: self.line,
                source,
            })?;
        if read == 0 {
            return Ok(false);
        }
        self.line += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        }
        if self.buffer.len() as u64 > MAX_LINE {
            return Err(self.error("longer than 1 MiB"));
        }
        Ok(true)
    }

    fn take_line(&self, paragraph: &mut Paragraph) -> Result<(), MetadataError> {
        let line = std::str::from_utf8(&self.buffer).map_err(|_| self.error("not UTF-8"))?;
        if line.contains('\0') {
            return Err(self.error("holds a NUL byte"));
        }
        if paragraph.text.len() + line.len() > self.limit {
            return Err(self.error(format!("paragraph is larger than {} MiB", self.limit >> 20)));
        }
        let start = paragraph.text.len();
        if line.starts_with([' ', '\t']) {
            let Some(field) = paragraph.fields.last_mut() else {
                return Err(self.error("continues a field, but none is open"));
            };
            paragraph.text.push('\n');
            paragraph.text.push_str(line);
            field.value.1 = paragraph.text.len();
            return Ok(());
        }
        // Blanks before the colon belong to nothing, and dpkg and apt take them.
        let (name, colon) = match line.split_once(':') {
            Some((name, _)) if is_field_name(name.trim_end_matches([' ', '\t'])) => {
                (name.trim_end_matches([' ', '\t']), name.len())
            }
            _ => return Err(self.error(format!("not a field: {:?}", excerpt(line)))),
        };
        if let Some(first) = paragraph.find(name) {
            return Err(self.error(format!("second field {name:?} (first in line {})", first.line)));
        }
        if paragraph.fields.is_empty() {
            paragraph.line = self.line;
        }
        paragraph.text.push_str(line);
        paragraph.fields.push(FieldSpan {
            name: (start, start + name.len()),
            value: (start + colon + 1, paragraph.text.len()),
            line: self.line,
        });
        Ok(())
    }
}

/// Whether a name consists of printable ASCII except colons, and does not begin with `#` or `-` (deb822(5)).
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['#', '-']) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// What the control file of a package says about the files of others.
#[derive(Clone, Debug, Default)]
pub struct PackageNames {
    name: String,
    version: String,
    replaces: Relations,
}

impl PackageNames {
    /// Reads them from a control file.
    pub(super) fn of(paragraph: &Paragraph) -> Result<Self, String> {
        let name = paragraph.get("Package").unwrap_or_default();
        let version = paragraph.get("Version").unwrap_or_default();
        if !is_package_name(name) {
            return Err(format!("control names no package: {:?}", excerpt(name)));
        }
        packaged_version(version)?;
        let replaces = Relations::parse(paragraph.get("Replaces").unwrap_or_default());
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            replaces: replaces.map_err(|problem| format!("control field Replaces: {problem}"))?,
        })
    }

    /// Whether files of `other` are replaced by those of this package. Names that `other` provides do not count (Debian Policy 7.6.1).
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let named = |relation: Relation<'_>| relation.name == other.name && relation.accepts(&other.version);
        self.replaces.iter().any(named)
    }
}

/// Use of a package across architectures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MultiArch {
    /// Only within its own architecture.
    #[default]
    No,
    /// May be installed for several architectures at once, with equal versions.
    Same,
    /// Satisfies dependencies of every architecture.
    Foreign,
    /// Satisfies dependencies written `name:any`.
    Allowed,
}

/// Importance of a package, most important first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Priority {
    /// The system is broken without it.
    Required,
    /// Expected on any system.
    Important,
    /// Installed by default.
    Standard,
    /// Other packages, also those without the field.
    Optional,
    /// The old priority of packages that should not be installed by default.
    Extra,
}

/// One binary package as a package index describes it.
#[derive(Clone, Debug)]
pub struct BinaryPackage {
    /// Package name.
    pub name: Box<str>,
    /// Version.
    pub version: Version,
    /// Debian architecture name or `all`.
    pub arch: Box<str>,
    /// Name of the source package where it differs from the binary's.
    pub source_name: Option<Box<str>>,
    /// Version of the source package where it differs from the binary's.
    pub source_version: Option<Version>,
    /// Packages that must be configured before this one is unpacked.
    pub pre_depends: Relations,
    /// Packages that must be configured before this one is.
    pub depends: Relations,
    /// Virtual packages that this one provides.
    pub provides: Relations,
    /// Packages that may not be unpacked beside this one.
    pub conflicts: Relations,
    /// Packages that may not be configured beside this one.
    pub breaks: Relations,
    /// Use across architectures.
    pub multi_arch: MultiArch,
    /// `Essential: yes`.
    pub essential: bool,
    /// `Important: yes` or `Protected: yes`.
    pub protected: bool,
    /// Importance.
    pub priority: Priority,
    /// Path below the archive's base.
    pub filename: RelPath,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// SHA-256 of the `.deb`.
    pub sha256: Sha256Digest,
}

impl BinaryPackage {
    /// Reads the package that a paragraph of `file` describes.
    ///
    /// # Errors
    /// A missing or malformed field, with file, line, package and value.
    pub fn from_paragraph(paragraph: &Paragraph, file: &str) -> Result<Self, MetadataError> {
        let package = paragraph.get("Package").unwrap_or_default();
        let bad = |field: &str, problem: String| MetadataError::Package {
            file: file.to_owned(),
            line: paragraph.line_of(field),
            package: excerpt(package),
            problem,
        };
        let required = |field: &str| match paragraph.get(field) {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => Err(bad(field, format!("field {field} is empty"))),
            None => Err(bad(field, format!("no field {field}"))),
        };
        fn parse<T: FromStr<Err: std::fmt::Display>>(field: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|err| format!("field {field}: {err}"))
        }
        let relations = |field: &str| {
            Relations::parse(paragraph.get(field).unwrap_or_default())
                .map_err(|problem| bad(field, format!("field {field}: {problem}")))
        };
        let flag = |field: &str| match paragraph.get(field) {
            None | Some("no") => Ok(false),
            Some("yes") => Ok(true),
            Some(other) => Err(bad(
                field,
                format!("field {field} is neither yes nor no: {:?}", excerpt(other)),
            )),
        };
        let name = required("Package")?;
        if !is_package_name(name) {
            return Err(bad("Package", format!("not a package name: {:?}", excerpt(name))));
        }
        let version =
            packaged_version(required("Version")?).map_err(|p| bad("Version", format!("field Version: {p}")))?;
        let arch = required("Architecture")?;
        if !arch
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return Err(bad("Architecture", format!("not an architecture: {:?}", excerpt(arch))));
        }
        let (source_name, source_version) = match paragraph.get("Source") {
            None => (None, None),
            Some(text) => source(text).map_err(|problem| bad("Source", problem))?,
        };
        let multi_arch = match paragraph.get("Multi-Arch") {
            None | Some("no") => MultiArch::No,
            Some("same") => MultiArch::Same,
            Some("foreign") => MultiArch::Foreign,
            Some("allowed") => MultiArch::Allowed,
            Some(other) => return Err(bad("Multi-Arch", format!("unknown Multi-Arch {:?}", excerpt(other)))),
        };
        let priority = match paragraph.get("Priority") {
            Some("required") => Priority::Required,
            Some("important") => Priority::Important,
            Some("standard") => Priority::Standard,
            None | Some("optional") => Priority::Optional,
            Some(_) => Priority::Extra,
        };
        Ok(Self {
            name: name.into(),
            version,
            arch: arch.into(),
            source_name: source_name.filter(|s| **s != *name),
            source_version,
            pre_depends: relations("Pre-Depends")?,
            depends: relations("Depends")?,
            provides: relations("Provides")?,
            conflicts: relations("Conflicts")?,
            breaks: relations("Breaks")?,
            multi_arch,
            essential: flag("Essential")?,
            protected: flag("Important")? || flag("Protected")?,
            priority,
            // Flat archives write the archive's own directory in front of a name.
            filename: parse("Filename", required("Filename")?.trim_start_matches("./"))
                .map_err(|p| bad("Filename", p))?,
            size: parse("Size", required("Size")?).map_err(|p| bad("Size", p))?,
            sha256: parse("SHA256", required("SHA256")?).map_err(|p| bad("SHA256", p))?,
        })
    }

    /// Name of the source package.
    pub fn source_name(&self) -> &str {
        self.source_name.as_deref().unwrap_or(&self.name)
    }

    /// Version of the source package.
    pub fn source_version(&self) -> &Version {
        self.source_version.as_ref().unwrap_or(&self.version)
    }
}

/// The version of a package, which dpkg takes only with a digit at the beginning; elsewhere any version may stand.
fn packaged_version(text: &str) -> Result<Version, String> {
    let version: Version = text.parse().map_err(|error: MetadataError| error.to_string())?;
    let upstream = text.split_once(':').map_or(text, |(_, upstream)| upstream);
    match upstream.starts_with(|c: char| c.is_ascii_digit()) {
        true => Ok(version),
        false => Err(format!("version {:?} does not begin with a digit", excerpt(text))),
    }
}

/// The value of `Source`: a name and, where it differs from the binary's, a version in parentheses.
type Source = (Option<Box<str>>, Option<Version>);

fn source(text: &str) -> Result<Source, String> {
    let bad = || format!("not a source package: {:?}", excerpt(text));
    let (name, version) = match text.split_once('(') {
        None => (text.trim(), None),
        Some((name, rest)) => {
            let version = rest.strip_suffix(')').ok_or_else(bad)?;
            let version = version
                .trim()
                .parse::<Version>()
                .map_err(|err| format!("field Source: {err}"))?;
            (name.trim(), Some(version))
        }
    };
    if !is_package_name(name) {
        return Err(bad());
    }
    Ok((Some(name.into()), version))
}

/// Whether a name consists of letters, digits and `+-.`, and begins with a letter or digit; capitals occur in old archives.
pub(crate) fn is_package_name(name: &str) -> bool {
    name.len() <= 255
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b))
}

/// Whether a text is the name of a source package, with or without its version.
pub(crate) fn is_source(text: &str) -> bool {
    match text.split_once(' ') {
        Some((name, version)) => is_package_name(name) && version.parse::<Version>().is_ok(),
        None => is_package_name(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASH: &str = "Package: bash\nSource: bash-src (5.2.37-2)\nVersion: 5.2.37-2+b8\nArchitecture: amd64\n\
        Essential: yes\nMulti-Arch: foreign\nPriority: required\nPre-Depends: libc6 (>= 2.38)\n\
        Depends: base-files (>= 2.1.12),\n debianutils (>= 5.6-0.1)\nFilename: pool/main/b/bash/bash_5.2.37-2+b8_amd64.deb\n\
        Size: 1504104\nSHA256: 8eb9b7ea6f2ae2a4ec2ed7f7c73f0c5e3c0b9b6f3e6f0c2b9e6b6d1f0a1b2c3d\n";

    fn read(text: &str) -> Result<Vec<BinaryPackage>, MetadataError> {
        let mut reader = ControlReader::new(text.as_bytes(), "Packages");
        let mut paragraph = Paragraph::default();
        let mut out = Vec::new();
        while reader.read(&mut paragraph)? {
            out.push(BinaryPackage::from_paragraph(&paragraph, reader.file())?);
        }
        Ok(out)
    }

    fn refusal(text: &str) -> String {
        read(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn reads_a_package() {
        let text = format!("\n\n{BASH}\n \n{}", BASH.replace("Package: bash", "package: dash"));
        let packages = read(&text).expect("well-formed");
        assert_eq!(packages.len(), 2);
        let bash = &packages[0];
        assert_eq!((&*bash.name, bash.source_name()), ("bash", "bash-src"));
        assert_eq!(bash.source_version().as_str(), "5.2.37-2");
        assert!(bash.essential && !bash.protected);
        assert_eq!(bash.multi_arch, MultiArch::Foreign);
        let depends: Vec<String> = bash.depends.groups().map(|g| g.text().to_owned()).collect();
        assert_eq!(depends, ["base-files (>= 2.1.12)", "debianutils (>= 5.6-0.1)"]);
        assert_eq!(&*packages[1].name, "dash");
    }

    #[test]
    fn names_file_line_and_package() {
        let cases = [
            (
                BASH.replace("Size: 1504104\n", ""),
                "Packages line 1: package \"bash\": no field Size",
            ),
            (
                BASH.replace("1504104", "-1"),
                "Packages line 12: package \"bash\": field Size: invalid digit found in string",
            ),
            (
                BASH.replace("Size:", "VERSION: 1\nSize:"),
                "Packages line 12: second field \"VERSION\" (first in line 3)",
            ),
            (
                BASH.replace("pool/main", "../main"),
                "Packages line 11: package \"bash\": field Filename: path \"../main/b/bash/bash_5.2.37-2+b8_amd64.deb\" has a component \"..\"",
            ),
            (
                BASH.replace("(>= 2.38)", "(>= 2.38"),
                "Packages line 8: package \"bash\": field Pre-Depends: relation \"libc6 (>= 2.38\": parenthesis is not closed",
            ),
            (
                BASH.replace("Essential: yes", "Essential: maybe"),
                "Packages line 5: package \"bash\": field Essential is neither yes nor no: \"maybe\"",
            ),
            (
                " x\n".to_owned(),
                "Packages line 1: continues a field, but none is open",
            ),
            ("# hello\n".to_owned(), "Packages line 1: not a field: \"# hello\""),
            (
                "Package bash\n".to_owned(),
                "Packages line 1: not a field: \"Package bash\"",
            ),
            (
                "Package: a/b\n".to_owned(),
                "Packages line 1: package \"a/b\": not a package name: \"a/b\"",
            ),
            (
                format!("A: {}\n", "x".repeat(1 << 20)),
                "Packages line 1: longer than 1 MiB",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(refusal(&text), message);
        }
        let huge: String = (0..5)
            .map(|n| format!("F{n}: {}\n", "x".repeat(1 << 20).split_off(64)))
            .collect();
        assert_eq!(refusal(&huge), "Packages line 5: paragraph is larger than 4 MiB");
    }

    proptest! {
        #[test]
        fn never_panics(text in "([A-Za-z#-]{0,3}:?[ \\t]?[a-z(),|:=<> \u{e9}]{0,12}\n?){0,8}") {
            let _ = read(&text);
            let _ = read(&format!("{BASH}Conflicts: {text}"));
        }
    }
}
