//! The packages in the root's dpkg database against the packages of the manifest.
//!
//! The database is a file of the root like any other, so the root's digest covers it. Packages whose files reach the artifact in
//! another way are not in it: kernel, initramfs, microcode, boot loaders. They have the role `target` and belong to other sets.

use super::check::{Check, Class, Problems};
use crate::{
    debian::{ControlReader, Paragraph},
    image::{ReadAt, composefs, ext4::Ext4},
    manifest::{Manifest, Origin, RecordedWorkload, Role, Stage},
    model::{NodeId, RelPath, chain},
};
use std::{collections::BTreeSet, fmt, io::Read};

/// dpkg's list of installed packages, and its place in a root whose `/var` holds no files: `/var/lib/dpkg` is a link there.
const DATABASE: &str = "/var/lib/dpkg/status";
const DATABASE_IN_USR: &str = "/usr/lib/sysimage/dpkg/status";
/// Largest list that is read, bytes.
const MAX_DATABASE: u64 = 64 << 20;
/// Most entries of a root.
pub(super) const MAX_ENTRIES: usize = 1 << 20;
/// The writer that makes the root, and its input with the installed packages.
const ROOT_WRITER: &str = "composefs-root";
const ROOT_INPUT: &str = "rootfs";

/// An installed package.
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

/// Whether dpkg's database is at `path`.
pub(super) fn is_database(path: &RelPath) -> bool {
    [DATABASE, DATABASE_IN_USR]
        .iter()
        .any(|place| place.trim_start_matches('/').as_bytes() == path.as_bytes())
}

/// The bytes of dpkg's database in the root whose composefs image is `image` and whose objects lie in `fs`; or the reason why it
/// cannot be read.
pub(super) fn database<R: ReadAt>(fs: &Ext4<R>, image: &[u8]) -> Result<Vec<u8>, String> {
    let listed = composefs::list(image, MAX_ENTRIES).map_err(|e| chain(&e))?;
    let at = |place: &str| listed.iter().find(|e| e.path == place.as_bytes());
    let entry = at(DATABASE).or_else(|| at(DATABASE_IN_USR));
    let entry = entry.ok_or_else(|| format!("the root has no {DATABASE}"))?;
    let Some(object) = entry.object else {
        return Err(format!("{DATABASE} in the root is empty or not a file"));
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

/// The packages that the database lists as installed. A package with any other status is a problem.
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
            problems.add(format!("{package} has the status {status:?} in the root"));
        } else if !found.insert(package.clone()) {
            problems.add(format!("{DATABASE} in the root lists {package} twice"));
        }
    }
}

/// The package set that was installed into the root: the set of the stage whose tree the root was made from.
fn root_set(manifest: &Manifest) -> Result<&str, String> {
    let ours =
        |s: &&Stage| s.arch == manifest.arch && matches!(&s.workload, RecordedWorkload::Writer(w) if w == ROOT_WRITER);
    let composed: Vec<&Stage> = manifest.stages.iter().filter(ours).collect();
    let [root] = composed[..] else {
        let count = composed.len();
        return Err(format!(
            "{count} stages have the writer {ROOT_WRITER:?}, but exactly one must make the root"
        ));
    };
    let tree = root.inputs.get(ROOT_INPUT).map(|i| &i.origin);
    let Some(Origin::Stage { stage, arch, .. }) = tree else {
        return Err(format!(
            "the input {ROOT_INPUT:?} of the stage {} does not come from a stage",
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
            "the stage {node}, whose tree is the root, must have exactly one package set"
        )),
    }
}

/// Checks that the packages of the root's set are exactly the packages installed there, by name, version and architecture.
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
                    problems.add(format!(
                        "{installed} belongs to the package set {set:?} of the root, but has the role tool"
                    ));
                }
                expected.insert(installed);
            }
            for package in expected.difference(&actual) {
                problems.add(format!("{package} is in the manifest, but not installed in the root"));
            }
            for package in actual.difference(&expected) {
                problems.add(format!("{package} is installed in the root, but not in the manifest"));
            }
            found = format!("{} packages installed in the root", actual.len());
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
            "c 1 amd64 has the status \"deinstall ok config-files\" in the root\n\
             /var/lib/dpkg/status in the root lists b 1 amd64 twice\n\
             d   has the status \"\" in the root"
        );
        let mut problems = Problems::default();
        parse(b"Package: a\nno field\n", &mut problems);
        assert!(
            problems.check("x", Class::Sbom, "").detail.contains("status"),
            "the file is named"
        );
    }
}
