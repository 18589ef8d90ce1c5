//! The packages that dpkg's database lists: `/var/lib/dpkg/status`.

use super::{ControlReader, MetadataError, Paragraph};
use std::{collections::BTreeSet, io::BufRead};

/// A package that is installed and configured.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct InstalledPackage {
    /// Package name.
    pub name: String,
    /// Its architecture, or `all`.
    pub arch: String,
    /// Its version.
    pub version: String,
}

/// The status of a package that is installed and configured, and that nothing holds or removes.
const INSTALLED: &str = "install ok installed";

/// Reads the database; `file` names it in errors. The packages are sorted.
///
/// # Errors
/// A malformed paragraph, a package in any state but installed and configured, or one that is there twice.
pub fn read_installed(input: impl BufRead, file: &str) -> Result<Vec<InstalledPackage>, MetadataError> {
    let mut reader = ControlReader::new(input, file);
    let mut paragraph = Paragraph::default();
    let mut found = BTreeSet::new();
    while reader.read(&mut paragraph)? {
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let package = InstalledPackage {
            name: field("Package"),
            arch: field("Architecture"),
            version: field("Version"),
        };
        let bad = |problem: String| MetadataError::Package {
            file: file.to_owned(),
            line: paragraph.line_of("Status"),
            package: package.name.clone(),
            problem,
        };
        let status = field("Status");
        if status != INSTALLED {
            return Err(bad(format!("its status is {status:?}, not {INSTALLED:?}")));
        }
        if found.contains(&package) {
            return Err(bad("it is listed twice".to_owned()));
        }
        found.insert(package);
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_that_are_installed_and_configured_are_taken() {
        let paragraph = |name: &str, status: &str| {
            format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: 1:2-3\n\n")
        };
        let text = paragraph("b", INSTALLED) + &paragraph("a", INSTALLED);
        let found = read_installed(text.as_bytes(), "status").expect("read");
        let names: Vec<&str> = found.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(found[0].version, "1:2-3");
        for (text, problem) in [
            (
                paragraph("a", "install ok half-configured"),
                "status line 2: package \"a\": its status is \"install ok half-configured\", not \"install ok installed\"",
            ),
            (
                paragraph("a", "deinstall ok config-files"),
                "status line 2: package \"a\": its status is \"deinstall ok config-files\", not \"install ok installed\"",
            ),
            (
                paragraph("a", INSTALLED) + &paragraph("a", INSTALLED),
                "status line 7: package \"a\": it is listed twice",
            ),
        ] {
            let error = read_installed(text.as_bytes(), "status").expect_err(problem);
            assert_eq!(error.to_string(), problem);
        }
    }
}
