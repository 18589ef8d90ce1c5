//! The differences between two locks.

use super::{Lockfile, Package};
use crate::{
    debian::Version,
    model::{Epoch, Moment, NodeId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// One difference between two locks; its `Display` is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockChange {
    /// `SOURCE_DATE_EPOCH`, the time of every output, changed.
    Epoch {
        /// The old time.
        from: Epoch,
        /// The new time.
        to: Epoch,
    },
    /// An archive was added.
    ArchiveAdded {
        /// Its name.
        name: String,
        /// Moment of its snapshot.
        snapshot: Moment,
    },
    /// An archive was removed.
    ArchiveRemoved {
        /// Its name.
        name: String,
    },
    /// An archive has another snapshot, address or signing key.
    ArchiveMoved {
        /// Its name.
        name: String,
        /// Moment of the old snapshot.
        from: Moment,
        /// Moment of the new snapshot.
        to: Moment,
    },
    /// A package was added.
    Added {
        /// `name arch`.
        package: String,
        /// Its version.
        version: String,
    },
    /// A package was removed.
    Removed {
        /// `name arch`.
        package: String,
        /// Its version.
        version: String,
    },
    /// A package has another version.
    Version {
        /// `name arch`.
        package: String,
        /// The old version.
        from: String,
        /// The new version.
        to: String,
    },
    /// A package of the same version has other bytes, another path or another archive.
    Replaced {
        /// `name arch`.
        package: String,
        /// Its version.
        version: String,
    },
    /// The sets that a package belongs to changed.
    Sets {
        /// `name arch`.
        package: String,
        /// The sets that have it now.
        joined: Vec<NodeId>,
        /// The sets that had it.
        left: Vec<NodeId>,
    },
    /// The wants from which a package set is resolved changed.
    Wants {
        /// The set.
        set: NodeId,
        /// The changes, each with its sign.
        changes: Vec<String>,
    },
    /// The base image was added, removed or changed.
    Base {
        /// The name and digest of the old image; `None` without one.
        from: Option<String>,
        /// The name and digest of the new image; `None` without one.
        to: Option<String>,
    },
    /// A pinned file was added, removed or changed.
    File {
        /// Its name, and its architecture if it has one.
        file: String,
        /// The kind of change: `added`, `removed` or `changed`.
        what: &'static str,
    },
}

impl fmt::Display for LockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { from, to } => write!(f, "~ source date {} -> {}", from.to_rfc3339(), to.to_rfc3339()),
            Self::ArchiveAdded { name, snapshot } => write!(f, "+ archive {name} at {snapshot}"),
            Self::ArchiveRemoved { name } => write!(f, "- archive {name}"),
            Self::ArchiveMoved { name, from, to } if from == to => write!(f, "~ archive {name} at {to} (contents)"),
            Self::ArchiveMoved { name, from, to } => write!(f, "~ archive {name} {from} -> {to}"),
            Self::Added { package, version } => write!(f, "+ {package} {version}"),
            Self::Removed { package, version } => write!(f, "- {package} {version}"),
            Self::Version { package, from, to } => {
                let older = match (from.parse::<Version>(), to.parse::<Version>()) {
                    (Ok(from), Ok(to)) => to < from,
                    _ => false,
                };
                let note = if older { " (older)" } else { "" };
                write!(f, "~ {package} {from} -> {to}{note}")
            }
            Self::Replaced { package, version } => write!(f, "~ {package} {version} (other bytes)"),
            Self::Base {
                from: None,
                to: Some(to),
            } => write!(f, "+ base image {to}"),
            Self::Base {
                from: Some(from),
                to: None,
            } => write!(f, "- base image {from}"),
            Self::Base { from, to } if from == to => {
                write!(f, "~ base image {} (pins)", to.as_deref().unwrap_or_default())
            }
            Self::Base { from, to } => {
                let name = |image: &Option<String>| image.clone().unwrap_or_default();
                write!(f, "~ base image {} -> {}", name(from), name(to))
            }
            Self::Wants { set, changes } => write!(f, "~ set {set} {}", changes.join(" ")),
            Self::Sets { package, joined, left } => {
                write!(f, "~ {package}")?;
                for set in joined {
                    write!(f, " +{set}")?;
                }
                for set in left {
                    write!(f, " -{set}")?;
                }
                Ok(())
            }
            Self::File { file, what } => write!(f, "~ file {file} {what}"),
        }
    }
}

/// All differences: archives first, then packages and files by name.
pub fn diff(old: &Lockfile, new: &Lockfile) -> Vec<LockChange> {
    let mut out = Vec::new();
    if old.source_date_epoch != new.source_date_epoch {
        out.push(LockChange::Epoch {
            from: old.source_date_epoch,
            to: new.source_date_epoch,
        });
    }
    if old.base != new.base {
        let image = |lock: &Lockfile| lock.base.as_ref().map(|base| base.image.clone());
        out.push(LockChange::Base {
            from: image(old),
            to: image(new),
        });
    }
    for before in old.archives.iter().filter(|a| new.archive(&a.name).is_none()) {
        out.push(LockChange::ArchiveRemoved {
            name: before.name.clone(),
        });
    }
    for now in &new.archives {
        match old.archive(&now.name) {
            None => out.push(LockChange::ArchiveAdded {
                name: now.name.clone(),
                snapshot: now.snapshot,
            }),
            Some(before) if before != now => out.push(LockChange::ArchiveMoved {
                name: now.name.clone(),
                from: before.snapshot,
                to: now.snapshot,
            }),
            Some(_) => {}
        }
    }
    diff_wants(old, new, &mut out);
    diff_packages(old, new, &mut out);
    diff_files(old, new, &mut out);
    out
}

/// The changes of wants, of the sets that both locks state.
fn diff_wants(old: &Lockfile, new: &Lockfile, out: &mut Vec<LockChange>) {
    for now in &new.sets {
        let Some(before) = old.set(&now.name).filter(|before| *before != now) else {
            continue;
        };
        let gone = before.want.difference(&now.want).map(|name| format!("-{name}"));
        let come = now.want.difference(&before.want).map(|name| format!("+{name}"));
        let flags = [
            ("essential", before.essential, now.essential),
            ("closure", before.closure, now.closure),
        ];
        let flags = flags.into_iter().filter(|(_, before, now)| before != now);
        let flags = flags.map(|(key, _, now)| format!("{key}={now}"));
        out.push(LockChange::Wants {
            set: now.name.clone(),
            changes: gone.chain(come).chain(flags).collect(),
        });
    }
}

type Versions<'a> = BTreeMap<&'a str, &'a Package>;

fn by_package(lock: &Lockfile) -> BTreeMap<(&str, &str), Versions<'_>> {
    let mut out: BTreeMap<(&str, &str), Versions<'_>> = BTreeMap::new();
    for package in &lock.packages {
        out.entry((&package.name, &package.arch))
            .or_default()
            .insert(&package.version, package);
    }
    out
}

fn diff_packages(old: &Lockfile, new: &Lockfile, out: &mut Vec<LockChange>) {
    let (old, new) = (by_package(old), by_package(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    let none = Versions::new();
    for key in keys {
        let package = format!("{} {}", key.0, key.1);
        let before = old.get(&key).unwrap_or(&none);
        let now = new.get(&key).unwrap_or(&none);
        let gone: Vec<&str> = before.keys().filter(|v| !now.contains_key(*v)).copied().collect();
        let come: Vec<&str> = now.keys().filter(|v| !before.contains_key(*v)).copied().collect();
        // One version for one other is an upgrade or downgrade; with several on a side no pairs can be told.
        if let ([from], [to]) = (gone.as_slice(), come.as_slice()) {
            out.push(LockChange::Version {
                package: package.clone(),
                from: (*from).to_owned(),
                to: (*to).to_owned(),
            });
        } else {
            let version = |v: &&str| (package.clone(), (*v).to_owned());
            out.extend(
                gone.iter()
                    .map(version)
                    .map(|(package, version)| LockChange::Removed { package, version }),
            );
            out.extend(
                come.iter()
                    .map(version)
                    .map(|(package, version)| LockChange::Added { package, version }),
            );
        }
        for (version, now) in now {
            let Some(before) = before.get(version) else {
                continue;
            };
            if (before.sha256, &before.path, &before.archive) != (now.sha256, &now.path, &now.archive) {
                out.push(LockChange::Replaced {
                    package: package.clone(),
                    version: (*version).to_owned(),
                });
            }
            if before.sets != now.sets {
                out.push(LockChange::Sets {
                    package: package.clone(),
                    joined: now.sets.difference(&before.sets).cloned().collect(),
                    left: before.sets.difference(&now.sets).cloned().collect(),
                });
            }
        }
    }
}

fn diff_files(old: &Lockfile, new: &Lockfile, out: &mut Vec<LockChange>) {
    let keys: BTreeSet<_> = old.files.iter().chain(&new.files).map(|f| (&f.name, f.arch)).collect();
    for (name, arch) in keys {
        let find = |lock: &'_ Lockfile| lock.files.iter().find(|f| f.name == *name && f.arch == arch).cloned();
        let what = match (find(old), find(new)) {
            (None, _) => "added",
            (_, None) => "removed",
            (before, now) if before != now => "changed",
            _ => continue,
        };
        out.push(LockChange::File {
            file: arch.map_or(name.clone(), |a| format!("{name} {a}")),
            what,
        });
    }
}
