//! The places that may have a pinned file, in the order in which they are tried.

use super::error::FetchError;
use super::location::{Address, Base, Location, LocationKind};
use crate::lock::{Archive, Lockfile, Package, PinnedFile};
use crate::model::{ModelError, RelPath, Sha256Digest};
use std::collections::BTreeMap;

/// A file to be fetched: its name for messages, its size and digest, and its places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchItem {
    /// Name for messages, e.g. `package bash 5.2.37-2 amd64`.
    pub what: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the bytes.
    pub sha256: Sha256Digest,
    /// Places that may have the file, in order.
    pub places: Vec<Location>,
}

/// The mirrors a plan may use.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// The mirror given to pnb (`--mirror`), laid out as `pnb vendor` writes it.
    pub mirror: Option<Base>,
    /// Mirrors of this machine's apt configuration.
    pub apt: Vec<Base>,
}

/// Path of a package in a mirror directory: `<archive base>/<pool path>`, as on any Debian mirror.
pub fn vendor_package_path(package: &Package, archive: &Archive) -> RelPath {
    archive.base.join(&package.path)
}

/// Path of a file that is not a package in a mirror directory: `files/sha256/<64 hex>`.
pub fn vendor_file_path(sha256: &Sha256Digest) -> Result<RelPath, ModelError> {
    RelPath::new(format!("files/sha256/{sha256}"))
}

/// Places of a package: the given mirror, apt's mirrors of the same archive, the snapshot service.
pub fn plan_package(package: &Package, archive: &Archive, sources: &Sources) -> Result<FetchItem, FetchError> {
    let mut places = Vec::new();
    if let Some(mirror) = &sources.mirror {
        places.push(mirror.place(LocationKind::Mirror, &vendor_package_path(package, archive)));
    }
    for apt in sources.apt.iter().filter(|b| b.ends_with(&archive.base)) {
        places.push(apt.place(LocationKind::AptMirror, &package.path));
    }
    let snapshot: Base = archive.snapshot_url.parse()?;
    places.push(snapshot.place(LocationKind::Snapshot, &package.path));
    Ok(FetchItem {
        what: describe(package),
        size: package.size,
        sha256: package.sha256,
        places,
    })
}

/// Places of many packages of one lock, in the given order; a file that several packages share is listed once.
pub fn plan_packages<'p>(
    lock: &Lockfile,
    packages: impl IntoIterator<Item = &'p Package>,
    sources: &Sources,
) -> Result<Vec<FetchItem>, FetchError> {
    let mut seen = BTreeMap::new();
    let mut items = Vec::new();
    for package in packages {
        if seen.insert(package.sha256, ()).is_some() {
            continue;
        }
        let archive = lock
            .archive(&package.archive)
            .ok_or_else(|| FetchError::UnknownArchive {
                what: describe(package),
                archive: package.archive.clone(),
            })?;
        items.push(plan_package(package, archive, sources)?);
    }
    Ok(items)
}

/// Places of a file that is not a package; `None` when the file is in the repository and is not fetched.
pub fn plan_file(file: &PinnedFile, sources: &Sources) -> Result<Option<FetchItem>, FetchError> {
    if file.path.is_some() {
        return Ok(None);
    }
    let what = match file.arch {
        Some(arch) => format!("file {} {arch}", file.name),
        None => format!("file {}", file.name),
    };
    let mut places = Vec::new();
    if let (Some(mirror), Ok(path)) = (&sources.mirror, vendor_file_path(&file.sha256)) {
        places.push(mirror.place(LocationKind::Mirror, &path));
    }
    if let Some(url) = &file.url {
        let address: Address = url.parse()?;
        places.push(Location {
            kind: LocationKind::Origin,
            address,
            redirects: file.redirects.clone(),
        });
    }
    Ok(Some(FetchItem {
        what,
        size: file.size,
        sha256: file.sha256,
        places,
    }))
}

/// Path of a blob of a base image in a mirror directory: `oci/blobs/sha256/<64 hex>`.
pub fn vendor_blob_path(sha256: &Sha256Digest) -> Result<RelPath, ModelError> {
    RelPath::new(format!("oci/blobs/sha256/{sha256}"))
}

/// The place of a blob of a base image at the given mirror; `None` without a mirror. A registry is not a [`Location`].
pub fn blob_place(sha256: &Sha256Digest, sources: &Sources) -> Option<Location> {
    let path = vendor_blob_path(sha256).ok()?;
    let mirror = sources.mirror.as_ref()?;
    Some(mirror.place(LocationKind::Mirror, &path))
}

/// A blob of a base image, to be fetched from the given mirror; `None` without a mirror.
pub fn plan_blob(what: &str, sha256: &Sha256Digest, size: u64, sources: &Sources) -> Option<FetchItem> {
    let place = blob_place(sha256, sources)?;
    Some(FetchItem {
        what: what.to_owned(),
        size,
        sha256: *sha256,
        places: vec![place],
    })
}

fn describe(package: &Package) -> String {
    format!("package {} {} {}", package.name, package.version, package.arch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Distribution;
    use crate::model::Epoch;
    use std::collections::BTreeSet;

    fn lock() -> Lockfile {
        let package = Package {
            name: "g++".into(),
            arch: "amd64".into(),
            version: "4:14.2".into(),
            source: None,
            archive: "trixie".into(),
            path: "pool/main/g/g++_14.2_amd64.deb".parse().expect("path"),
            size: 7,
            sha256: Sha256Digest::new([1; 32]),
            sets: BTreeSet::new(),
        };
        Lockfile {
            version: 1,
            source_date_epoch: Epoch::new(1),
            base: None,
            sets: Vec::new(),
            archives: vec![Archive {
                name: "trixie".into(),
                distribution: Distribution::Debian,
                base: "debian".parse().expect("path"),
                suite: "trixie".parse().expect("path"),
                components: vec!["main".into()],
                snapshot: "20260101T000000Z".parse().expect("a moment"),
                snapshot_url: "https://snapshot.example/archive/debian/20260101T000000Z".into(),
                date: Epoch::new(0),
                inrelease_sha256: Sha256Digest::new([2; 32]),
                keys: vec![],
            }],
            packages: vec![package.clone(), package],
            files: vec![],
        }
    }

    #[test]
    fn places_stand_in_order_and_only_apt_mirrors_of_the_same_archive_are_taken() {
        let sources = Sources {
            mirror: Some("file:///srv/vendor".parse().expect("valid")),
            apt: ["http://a.example/debian-security", "http://b.example/debian/"]
                .iter()
                .map(|u| u.parse().expect("valid"))
                .collect(),
        };
        let lock = lock();
        let items = plan_packages(&lock, &lock.packages, &sources).expect("plans");
        assert_eq!(items.len(), 1, "one file, planned once");
        assert_eq!(items[0].what, "package g++ 4:14.2 amd64");
        let places: Vec<String> = items[0].places.iter().map(ToString::to_string).collect();
        assert_eq!(
            places,
            [
                "mirror file:///srv/vendor/debian/pool/main/g/g++_14.2_amd64.deb",
                "apt mirror http://b.example/debian/pool/main/g/g%2B%2B_14.2_amd64.deb",
                "snapshot https://snapshot.example/archive/debian/20260101T000000Z/pool/main/g/g%2B%2B_14.2_amd64.deb",
            ]
        );
    }

    #[test]
    fn an_archive_the_lock_does_not_have_is_named() {
        let mut lock = lock();
        lock.archives.clear();
        let error = plan_packages(&lock, &lock.packages, &Sources::default()).expect_err("no archive");
        assert_eq!(
            error.to_string(),
            "plan package g++ 4:14.2 amd64: the lock has no archive \"trixie\""
        );
    }

    #[test]
    fn a_file_comes_from_the_mirror_by_digest_or_from_its_own_address() {
        let mut file = PinnedFile {
            name: "agent".into(),
            arch: None,
            path: None,
            url: Some("https://example.com/agent?v=1".into()),
            redirects: vec![],
            size: 1,
            sha256: Sha256Digest::new([0xab; 32]),
        };
        let sources = Sources {
            mirror: Some("http://m.example".parse().expect("valid")),
            apt: vec![],
        };
        let item = plan_file(&file, &sources).expect("plans").expect("is elsewhere");
        let places: Vec<String> = item.places.iter().map(ToString::to_string).collect();
        let hex = "ab".repeat(32);
        assert_eq!(
            places,
            [
                format!("mirror http://m.example/files/sha256/{hex}"),
                "origin https://example.com/agent?v=1".to_owned()
            ]
        );
        file.path = Some("agent/agent".parse().expect("path"));
        assert_eq!(plan_file(&file, &sources).expect("plans"), None);
    }
}
