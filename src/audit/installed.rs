//! What is installed in the root, as dpkg's own database there says it, against the manifest's packages.
//!
//! The database is a file of the root like any other, so the root's digest covers it. Not in it are packages whose files came into the
//! artifact in another way: kernel, initramfs, microcode, boot loaders. They have role `target` and belong to other sets.

use super::check::{Check, Class, Problems};
use crate::{
    debian::{ControlReader, Paragraph},
    image::{ReadAt, composefs, ext4::Ext4},
    manifest::{Manifest, Origin, RecordedWorkload, Role, Stage},
    model::{NodeId, RelPath, chain},
};
use std::{collections::BTreeSet, fmt, io::Read};

/// Where dpkg keeps what is installed.
const DATABASE: &str = "/var/lib/dpkg/status";
/// A larger one is refused, bytes.
const MAX_DATABASE: u64 = 64 << 20;
/// More entries than this are no root.
const MAX_ENTRIES: usize = 1 << 20;
/// The writer that makes the root, and which of its inputs has the installed packages.
const ROOT_WRITER: &str = "composefs-root";
const ROOT_INPUT: &str = "rootfs";

/// A package, as it is installed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Installed {
    name: String,
    version: String,
    arch: String,
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.arch)
    }
}

/// The bytes of dpkg's database in the root whose composefs image is `image` and whose objects lie in `fs`; else why not.
pub(super) fn database<R: ReadAt>(fs: &Ext4<R>, image: &[u8]) -> Result<Vec<u8>, String> {
    let listed = composefs::list(image, MAX_ENTRIES).map_err(|e| chain(&e))?;
    let entry = listed.into_iter().find(|e| e.path == DATABASE.as_bytes());
    let entry = entry.ok_or_else(|| format!("the root has no {DATABASE}"))?;
    let Some(object) = entry.object else {
        return Err(format!("{DATABASE} in the root lists nothing"));
    };
    let hex = object.to_hex();
    let path = RelPath::new(format!("objects/{}/{}", &hex[..2], &hex[2..])).map_err(|e| e.to_string())?;
    let inode = fs.lookup(&path).map_err(|e| chain(&e))?;
    let inode = inode.ok_or_else(|| format!("{DATABASE} in the root is the object {object}, which is missing"))?;
    if inode.size() > MAX_DATABASE {
        return Err(format!(
            "{DATABASE} in the root has {} bytes, more than {MAX_DATABASE}",
            inode.size()
        ));
    }
    let mut bytes = Vec::new();
    let mut file = fs.file(&inode).map_err(|e| chain(&e))?;
    file.read_to_end(&mut bytes).map_err(|e| chain(&e))?;
    Ok(bytes)
}

/// Packages the database lists as installed. One in any other state is a problem: it is neither there nor away.
fn parse(database: &[u8], problems: &mut Problems) -> BTreeSet<Installed> {
    let mut found = BTreeSet::new();
    let mut reader = ControlReader::new(database, DATABASE);
    let mut paragraph = Paragraph::default();
    loop {
        match reader.read(&mut paragraph) {
            Ok(true) => {}
            Ok(false) => return found,
            Err(e) => {
                problems.add(chain(&e));
                return found;
            }
        }
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let package = Installed {
            name: field("Package"),
            version: field("Version"),
            arch: field("Architecture"),
        };
        let status = field("Status");
        if status.split_ascii_whitespace().last() != Some("installed") {
            problems.add(format!("the root has {package} in the state {status:?}"));
        } else if !found.insert(package.clone()) {
            problems.add(format!("{DATABASE} in the root has {package} twice"));
        }
    }
}

/// The set of packages that was installed into the root: that of the stage which made the tree the root was composed of.
fn root_set(manifest: &Manifest) -> Result<&str, String> {
    let ours =
        |s: &&Stage| s.arch == manifest.arch && matches!(&s.workload, RecordedWorkload::Writer(w) if w == ROOT_WRITER);
    let mut composed = manifest.stages.iter().filter(ours);
    let (Some(root), None) = (composed.next(), composed.next()) else {
        return Err(format!("not one stage made the root with the writer {ROOT_WRITER:?}"));
    };
    let tree = root.inputs.get(ROOT_INPUT).map(|i| &i.origin);
    let Some(Origin::Stage { stage, arch, .. }) = tree else {
        return Err(format!(
            "no stage made the input {ROOT_INPUT:?} of the stage {}",
            root.node()
        ));
    };
    let node = NodeId::new(stage, *arch);
    let configured = manifest.stages.iter().find(|s| s.node() == node);
    let origins = configured
        .into_iter()
        .flat_map(|s| s.inputs.values())
        .map(|i| &i.origin);
    let mut sets = origins.filter_map(|o| match o {
        Origin::Packages(set) => Some(set.as_str()),
        _ => None,
    });
    match (sets.next(), sets.next()) {
        (Some(set), None) => Ok(set),
        _ => Err(format!(
            "the stage {node}, which the root is made of, has not one set of packages"
        )),
    }
}

/// The packages of the root's set are exactly those that dpkg has installed there, by name, version and architecture.
pub(super) fn check_packages(manifest: &Manifest, database: Result<Vec<u8>, String>) -> Check {
    let mut problems = Problems::default();
    let mut found = String::new();
    match (database, root_set(manifest)) {
        (Err(problem), _) | (_, Err(problem)) => problems.add(problem),
        (Ok(bytes), Ok(set)) => {
            let actual = parse(&bytes, &mut problems);
            let mut expected = BTreeSet::new();
            for package in manifest.packages.iter().filter(|p| p.sets.iter().any(|s| s == set)) {
                let installed = Installed {
                    name: package.name.clone(),
                    version: package.version.clone(),
                    arch: package.arch.clone(),
                };
                if package.role != Role::Target {
                    problems.add(format!("{installed} is of the set {set:?}, but said to be a tool"));
                }
                expected.insert(installed);
            }
            for package in expected.difference(&actual) {
                problems.add(format!(
                    "{package} is said to be in the root, but is not installed there"
                ));
            }
            for package in actual.difference(&expected) {
                problems.add(format!("{package} is installed in the root, but not said to be"));
            }
            found = format!("{} installed in the root, as dpkg says there", actual.len());
        }
    }
    problems.check("packages", Class::Sbom, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wholly_installed_counts() {
        let text = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2-3\nConffiles:\n /etc/a 0\n\n\
                    Package: b\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 1\n\n\
                    Package: c\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
                    Package: b\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n\
                    Package: d\n";
        let mut problems = Problems::default();
        let found: Vec<String> = parse(text.as_bytes(), &mut problems)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["a 1:2-3 all", "b 1 amd64"]);
        let said = problems.check("x", Class::Sbom, "").detail;
        assert_eq!(
            said,
            "the root has c 1 amd64 in the state \"deinstall ok config-files\"\n\
             /var/lib/dpkg/status in the root has b 1 amd64 twice\n\
             the root has d   in the state \"\""
        );
        let mut problems = Problems::default();
        parse(b"Package: a\nno field\n", &mut problems);
        assert!(
            problems.check("x", Class::Sbom, "").detail.contains("status"),
            "the file is named"
        );
    }
}
