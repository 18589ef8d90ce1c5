//! Makes a lock: verifies every archive, reads its indexes, resolves every wanted set.

use super::{
    Archive, ArchiveRank, Distribution, Index, IndexScope, LOCK_VERSION, LockError, LockedSet, Lockfile, Package,
    PinnedFile, WantedArchive, WantedSet, resolve,
};
use crate::{
    debian::{Automatic, JudgedAt, Keyring, MetadataError, Release, SignedText, verify_cleartext, verify_detached},
    model::{Arch, Epoch, Fingerprint, ModelError, Moment, NodeId, RelPath, Sha256Digest, excerpt, refuse_kernel},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, Read},
};

/// Largest `InRelease` accepted, in bytes; Debian's is about 150 kB.
pub const MAX_INRELEASE: u64 = 16 << 20;
/// Largest `Release.gpg` accepted, in bytes.
const MAX_SIGNATURE: u64 = 1 << 20;
/// Largest compressed package index accepted, in bytes; Debian's largest is about 10 MB.
const MAX_INDEX: u64 = 256 << 20;
/// Largest package index accepted once decompressed, in bytes; Debian's largest is about 57 MB.
const MAX_PACKAGES: u64 = 1 << 30;
/// Endings of the compressions that are read, best first.
const READ_ENDINGS: [&str; 5] = [".xz", ".zst", ".gz", ".lzma", ""];
/// log2 of the largest zstd window accepted: 128 MiB, which `zstd --ultra -22` uses.
const MAX_WINDOW_LOG: u32 = 27;
/// Most memory that an xz stream may need, in bytes; `xz -9` needs 65 MB.
const MAX_XZ_MEMORY: u64 = 256 << 20;

/// The location of an archive's files, for [`Indexes`].
#[derive(Clone, Copy, Debug)]
pub struct ArchiveLocation<'a> {
    /// The archive's name, for messages.
    pub name: &'a str,
    /// Its directory on a mirror.
    pub base: &'a RelPath,
    /// Address of its snapshot, without a trailing slash.
    pub snapshot_url: &'a str,
    /// Whether the moment was chosen by the user or `archives.toml`; a mirror's newest state may be too new then.
    pub fixed: bool,
}

/// Source of an archive's files: mirrors, the snapshot service, or memory.
pub trait Indexes {
    /// The bytes of `path` below the archive's base. With `expected`, at most that size needs to be read; the caller checks
    /// size and digest. Without it at most [`MAX_INRELEASE`] bytes may be returned.
    ///
    /// # Errors
    /// No location has the file, or it could not be read.
    fn get(
        &self,
        place: ArchiveLocation<'_>,
        path: &RelPath,
        expected: Option<(u64, Sha256Digest)>,
    ) -> io::Result<Vec<u8>>;

    /// Takes note of a fact about an archive that is no error, in one line.
    fn remark(&self, _archive: &str, _text: &str) {}
}

/// The inputs of a lock.
#[derive(Clone, Debug)]
pub struct LockRequest<'a> {
    /// The archives of `archives.toml`, in order of preference.
    pub archives: &'a [WantedArchive],
    /// Contents of the keyrings they name.
    pub keyrings: &'a BTreeMap<RelPath, Vec<u8>>,
    /// Names of the optional archives to use.
    pub suites: &'a BTreeSet<String>,
    /// The package sets of the stages.
    pub wanted: &'a [WantedSet],
    /// Pinned files, with their digests.
    pub files: &'a [PinnedFile],
    /// The present time, in seconds since 1970.
    pub now: u32,
    /// The moment of every archive without one of its own; `None` for the present.
    pub snapshot: Option<Moment>,
    /// The lock that is to be replaced.
    pub previous: Option<&'a Lockfile>,
    /// Whether the archives of `previous` stay in the state that they have there, so that no version moves.
    pub keep: bool,
}

impl LockRequest<'_> {
    /// The locked state of an archive, if it is to be kept.
    fn kept(&self, wanted: &WantedArchive) -> Option<&Archive> {
        let previous = self.previous.filter(|_| self.keep)?;
        let of = |a: &&Archive| {
            (a.distribution, &a.base, &a.suite) == (wanted.distribution, &wanted.base, &wanted.suite)
                && wanted.snapshot.is_none_or(|fixed| fixed == a.snapshot)
        };
        previous.archives.iter().find(of)
    }

    /// The chosen moment of an archive; `None` for the present.
    fn moment(&self, wanted: &WantedArchive) -> Option<Moment> {
        // The moment of `archives.toml` wins over that of the command line: an archive with a fixed moment keeps it.
        if let Some(fixed) = wanted.snapshot.or(self.snapshot) {
            return Some(fixed);
        }
        if let Some(kept) = self.kept(wanted) {
            return Some(kept.snapshot);
        }
        // An archive that the lock does not have yet joins the others at their moment.
        let previous = self.previous.filter(|_| self.keep)?;
        let moving = |a: &&Archive| {
            let fixed = self
                .archives
                .iter()
                .find(|w| (&w.base, &w.suite) == (&a.base, &a.suite));
            fixed.is_none_or(|w| w.snapshot.is_none())
        };
        previous.archives.iter().filter(moving).map(|a| a.snapshot).max()
    }
}

/// An archive with a verified release file.
struct Verified<'a> {
    wanted: &'a WantedArchive,
    release: Release,
    locked: Archive,
    fixed: bool,
}

impl Verified<'_> {
    fn place(&self) -> ArchiveLocation<'_> {
        ArchiveLocation {
            name: &self.wanted.name,
            base: &self.wanted.base,
            snapshot_url: &self.locked.snapshot_url,
            fixed: self.fixed,
        }
    }

    fn lacks(&self, problem: String) -> LockError {
        LockError::Archive {
            archive: self.wanted.name.clone(),
            problem,
        }
    }
}

/// Makes a new lock, without writing it.
///
/// # Errors
/// An archive that is not signed by its keys, not valid at its moment, or older than in the replaced lock; a set that cannot be
/// resolved; architectures that would be built from different sources.
pub fn update(request: &LockRequest<'_>, indexes: &impl Indexes) -> Result<Lockfile, LockError> {
    check_request(request)?;
    let mut archives = Vec::new();
    for wanted in request.archives {
        if !wanted.optional || request.suites.contains(&wanted.name) {
            archives.push(verify(request, wanted, indexes)?);
        }
    }
    let epoch = archives
        .iter()
        .filter(|a| a.wanted.default)
        .map(|a| a.locked.date)
        .max()
        .ok_or_else(|| LockError::Request("find a default archive: stages/archives.toml declares none".to_owned()))?;
    let mut packages = BTreeMap::new();
    for arch in Arch::ALL {
        let sets: Vec<&WantedSet> = request.wanted.iter().filter(|w| w.node.arch == arch).collect();
        if sets.is_empty() {
            continue;
        }
        // One architecture at a time, because an index takes the most memory.
        let index = read_index(arch, &archives, indexes)?;
        for wanted in sets {
            lock_set(&index, wanted, &mut packages)?;
        }
    }
    let packages: Packages = packages;
    let sets = request.wanted.iter().map(|wanted| LockedSet {
        name: wanted.node.clone(),
        want: wanted.names.iter().cloned().collect(),
        essential: wanted.essential,
        closure: wanted.closure,
    });
    let mut sets: Vec<LockedSet> = sets.collect();
    sets.sort();
    check_sources(&packages)?;
    check_kernels(packages.values().map(|(package, _)| package.name.as_str()))?;
    let mut files = request.files.to_vec();
    files.sort();
    let mut packages: Vec<Package> = packages.into_values().map(|(package, _)| package).collect();
    packages.sort();
    Ok(Lockfile {
        version: LOCK_VERSION,
        source_date_epoch: epoch,
        base: request.previous.and_then(|previous| previous.base.clone()),
        sets,
        archives: archives.into_iter().map(|a| a.locked).collect(),
        packages,
        files,
    })
}

/// The keys that signed an archive's release file.
fn fingerprints(archive: &WantedArchive, keys: &BTreeSet<String>) -> Result<Vec<Fingerprint>, LockError> {
    let keys = keys.iter().map(|key| key.parse());
    keys.collect::<Result<_, ModelError>>().map_err(|e| LockError::Archive {
        archive: archive.name.clone(),
        problem: e.to_string(),
    })
}

fn check_request(request: &LockRequest<'_>) -> Result<(), LockError> {
    for suite in request.suites {
        if !request.archives.iter().any(|a| a.name == *suite) {
            let names: Vec<&str> = request.archives.iter().map(|a| a.name.as_str()).collect();
            return Err(LockError::Request(format!(
                "find the archive {:?} (the archives are: {})",
                excerpt(suite),
                names.join(", ")
            )));
        }
    }
    let mut sets = BTreeSet::new();
    for wanted in request.wanted {
        if !sets.insert(&wanted.node) {
            return Err(LockError::Request(format!(
                "lock the set {}: it is wanted twice",
                wanted.node
            )));
        }
    }
    Ok(())
}

/// A snapshot in the future would be another one tomorrow. The clock decides that, unless an archive proves it wrong: a signed date after
/// the present time.
fn refuse_future(request: &LockRequest<'_>, release: &Release) -> Result<(), LockError> {
    let now = Moment::new(request.now);
    let Some(snapshot) = request.snapshot.filter(|s| *s > now) else {
        return Ok(());
    };
    let mut known = request.previous.iter().flat_map(|lock| &lock.archives);
    if release.date > request.now || known.any(|a| a.date.seconds() > u64::from(request.now)) {
        return Ok(());
    }
    Err(LockError::Future {
        snapshot,
        now: Epoch::new(request.now).to_rfc3339(),
    })
}

/// The signed text of an archive's release file, and the SHA-256 of the file.
fn fetch_release(
    place: ArchiveLocation<'_>,
    wanted: &WantedArchive,
    kept: Option<&Archive>,
    keyring: &Keyring,
    at: JudgedAt,
    indexes: &impl Indexes,
) -> Result<(SignedText, Sha256Digest), LockError> {
    let metadata = |source| LockError::Metadata {
        archive: wanted.name.clone(),
        source,
    };
    let get = |name: &str, limit: u64, expected: Option<Sha256Digest>| {
        let path = below_suite(wanted, name).map_err(metadata)?;
        let bytes = indexes.get(place, &path, expected.map(|sha256| (limit, sha256)));
        let bytes = bytes.map_err(|source| match kept {
            Some(kept) => LockError::Gone {
                archive: wanted.name.clone(),
                path,
                snapshot: kept.snapshot,
                source,
            },
            None => LockError::Fetch {
                archive: wanted.name.clone(),
                path,
                source,
            },
        })?;
        // The source promises the limit; unsigned bytes are not parsed on a promise.
        if bytes.len() as u64 > limit {
            return Err(LockError::TooLarge {
                file: format!("{name} of {}", wanted.name),
                size: bytes.len(),
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            });
        }
        let sha256 = Sha256Digest::new(Sha256::digest(&bytes).into());
        match expected.filter(|expected| *expected != sha256) {
            None => Ok((bytes, sha256)),
            Some(expected) => Err(LockError::Mismatch {
                archive: wanted.name.clone(),
                path: below_suite(wanted, name).map_err(metadata)?,
                expected: expected.to_string(),
                actual: sha256.to_string(),
            }),
        }
    };
    // An archive of the lock is read in the very state that the lock was made of.
    let expected = kept.map(|archive| archive.inrelease_sha256);
    let refusal = match get("InRelease", MAX_INRELEASE, expected) {
        Ok((bytes, sha256)) => {
            let signed = verify_cleartext(&bytes, "InRelease", keyring, at).map_err(metadata)?;
            return Ok((signed, sha256));
        }
        Err(refusal @ (LockError::Fetch { .. } | LockError::Gone { .. })) => refusal,
        Err(error) => return Err(error),
    };
    // Older archives have the signature in a file of its own. Where that is missing too, the first error is shown.
    let Ok((signature, _)) = get("Release.gpg", MAX_SIGNATURE, None) else {
        return Err(refusal);
    };
    let (bytes, sha256) = get("Release", MAX_INRELEASE, expected)?;
    let signed = verify_detached(&bytes, &signature, "Release", keyring, at).map_err(metadata)?;
    Ok((signed, sha256))
}

/// Fetches the release file of an archive and verifies signature, dates and contents.
fn verify<'a>(
    request: &LockRequest<'a>,
    wanted: &'a WantedArchive,
    indexes: &impl Indexes,
) -> Result<Verified<'a>, LockError> {
    let metadata = |source| LockError::Metadata {
        archive: wanted.name.clone(),
        source,
    };
    let fixed = request.moment(wanted);
    let snapshot = fixed.unwrap_or(Moment::new(request.now));
    let at = match fixed {
        Some(moment) => JudgedAt::Snapshot(moment.seconds()),
        None => JudgedAt::Clock(request.now),
    };
    let snapshot_url = match wanted.distribution {
        Distribution::Debian => format!("https://snapshot.debian.org/archive/{}/{snapshot}", wanted.base),
        Distribution::Ubuntu => format!("https://snapshot.ubuntu.com/{}/{snapshot}", wanted.base),
    };
    let place = ArchiveLocation {
        name: &wanted.name,
        base: &wanted.base,
        snapshot_url: &snapshot_url,
        fixed: fixed.is_some(),
    };
    let keyring_bytes = request
        .keyrings
        .get(&wanted.keyring)
        .ok_or_else(|| LockError::Archive {
            archive: wanted.name.clone(),
            problem: format!("no keyring {}", wanted.keyring),
        })?;
    let keyring = Keyring::parse(keyring_bytes, &wanted.keyring.to_string()).map_err(metadata)?;
    for fault in keyring.faults() {
        indexes.remark(&wanted.name, &format!("in the keyring {}, {fault}", wanted.keyring));
    }
    // Only the text under the signature is parsed from here on. Keys and dates are judged at the moment of the snapshot: an old
    // snapshot stays usable after its keys and its `Valid-Until` have expired.
    let (signed, inrelease_sha256) = fetch_release(place, wanted, request.kept(wanted), &keyring, at, indexes)?;
    let release = Release::parse(&signed.text, "InRelease").map_err(metadata)?;
    refuse_future(request, &release)?;
    // Many flat archives state no suite.
    let nameless = wanted.flat.is_some() && release.suite.is_empty() && release.codename.is_empty();
    let suite = match nameless {
        true => String::new(),
        false => wanted.suite.to_string(),
    };
    release.check(&suite, at, "InRelease").map_err(metadata)?;
    if release.automatic != Automatic::Always {
        let text = format!(
            "is NotAutomatic: a package that another archive has too is taken from it only where it is wanted as \"NAME/{}\"",
            wanted.name
        );
        indexes.remark(&wanted.name, &text);
    }
    let verified = Verified {
        locked: Archive {
            name: wanted.name.clone(),
            distribution: wanted.distribution,
            base: wanted.base.clone(),
            suite: wanted.suite.clone(),
            components: wanted.components.clone(),
            snapshot,
            snapshot_url,
            date: Epoch::new(release.date),
            inrelease_sha256,
            keys: fingerprints(wanted, &signed.signers)?,
        },
        wanted,
        release,
        fixed: fixed.is_some(),
    };
    // A valid signature does not exclude an old file: a mirror may replay one.
    refuse_rollback(request, &verified)?;
    // Reported here by name; later it would be a missing index. An archive that does not state its parts is judged by its indexes.
    if let Some(has) = &verified.release.components {
        let lacks = |component: &&String| !has.contains(component);
        if let Some(component) = wanted.components.iter().find(lacks) {
            return Err(verified.lacks(format!(
                "suite {} has no component {component:?} (it has: {})",
                wanted.suite,
                has.join(", ")
            )));
        }
    }
    if let Some(has) = &verified.release.architectures {
        // An archive of packages for all architectures alone has only their index.
        let served = |arch: &&Arch| has.iter().any(|a| a == arch.as_str()) || verified.release.separate_all;
        if let Some(arch) = wanted.architectures.iter().find(|arch| !served(arch)) {
            return Err(verified.lacks(format!(
                "suite {} has no architecture {arch} (it has: {})",
                wanted.suite,
                has.join(", ")
            )));
        }
    }
    Ok(verified)
}

/// Refuses a release file older than the locked one, unless another moment than the locked one was chosen.
fn refuse_rollback(request: &LockRequest<'_>, verified: &Verified<'_>) -> Result<(), LockError> {
    let now = &verified.locked;
    let before = request.previous.and_then(|lock| {
        lock.archives
            .iter()
            .find(|a| a.base == now.base && a.suite == now.suite)
    });
    match before {
        Some(before) if now.date < before.date && !(verified.fixed && before.snapshot != now.snapshot) => {
            Err(LockError::Rollback {
                archive: now.name.clone(),
                found: now.date.to_rfc3339(),
                locked: before.date.to_rfc3339(),
            })
        }
        _ => Ok(()),
    }
}

/// `dists/<suite>/<tail>`, or the same in the directory of a flat archive.
fn below_suite(wanted: &WantedArchive, tail: &str) -> Result<RelPath, MetadataError> {
    let path = match &wanted.flat {
        None => format!("dists/{}/{tail}", wanted.suite),
        Some(flat) => flat.path(tail),
    };
    RelPath::new(path).map_err(|err| MetadataError::Release {
        file: wanted.name.clone(),
        problem: err.to_string(),
    })
}

fn read_index(arch: Arch, archives: &[Verified<'_>], indexes: &impl Indexes) -> Result<Index, LockError> {
    let mut index = Index::new(arch);
    for archive in archives.iter().filter(|a| a.wanted.architectures.contains(&arch)) {
        let rank = ArchiveRank {
            default: archive.wanted.default,
            automatic: archive.release.automatic,
        };
        if archive.wanted.flat.is_some() {
            let stem = "Packages";
            let only = listed(archive, stem).ok_or_else(|| no_index(archive, stem))?;
            read_packages(&mut index, archive, rank, only, indexes)?;
        }
        for component in &archive.wanted.components {
            // Packages for all architectures have an index of their own in some archives. Of two indexes, one may be missing there.
            let stem = |arch: &str| format!("{component}/binary-{arch}/Packages");
            let own = listed(archive, &stem(arch.as_str()));
            let all = listed(archive, &stem("all")).filter(|_| archive.release.separate_all);
            if own.is_none() && all.is_none() {
                return Err(no_index(archive, &stem(arch.as_str())));
            }
            for one in own.into_iter().chain(all) {
                read_packages(&mut index, archive, rank, one, indexes)?;
            }
        }
    }
    Ok(index)
}

/// Fetches a package index and adds its packages to `index`.
fn read_packages(
    index: &mut Index,
    archive: &Verified<'_>,
    rank: ArchiveRank,
    (name, size, sha256): ListedIndex,
    indexes: &impl Indexes,
) -> Result<(), LockError> {
    let bytes = fetch_packages(archive, &name, size, sha256, indexes)?;
    let file = format!("{}/{name}", archive.wanted.suite);
    let metadata = |source| LockError::Metadata {
        archive: archive.wanted.name.clone(),
        source,
    };
    let input = decompress(&bytes, &name).map_err(|source| {
        metadata(MetadataError::Read {
            file: file.clone(),
            line: 0,
            source,
        })
    })?;
    let scope = match archive.wanted.flat {
        None => IndexScope::OneArchitecture,
        Some(_) => IndexScope::AllArchitectures,
    };
    index
        .read(&archive.wanted.name, rank, input, &file, scope)
        .map_err(metadata)
}

/// A package index in a release file: its path beside that file, its size and its digest.
type ListedIndex = (String, u64, Sha256Digest);

/// The package index of this path without the ending, as the release file lists it.
fn listed(archive: &Verified<'_>, stem: &str) -> Option<ListedIndex> {
    READ_ENDINGS.iter().find_map(|ending| {
        let name = format!("{stem}{ending}");
        let (size, sha256) = archive.release.files.get(&RelPath::new(&name).ok()?)?;
        Some((name, *size, *sha256))
    })
}

/// The error that there is no package index of this path that can be read.
fn no_index(archive: &Verified<'_>, stem: &str) -> LockError {
    let files = archive.release.files.keys().map(ToString::to_string);
    let other: Vec<String> = files.filter(|name| name.starts_with(stem)).collect();
    archive.lacks(match other.is_empty() {
        true => format!("release file lists no {stem}.xz"),
        false => format!(
            "release file lists {} only, whose compression is not read",
            other.join(", ")
        ),
    })
}

/// The compressed bytes of a package index, verified against the release file.
fn fetch_packages(
    archive: &Verified<'_>,
    name: &str,
    size: u64,
    sha256: Sha256Digest,
    indexes: &impl Indexes,
) -> Result<Vec<u8>, LockError> {
    if size > MAX_INDEX {
        return Err(archive.lacks(format!("{name} has {size} bytes, more than {MAX_INDEX}")));
    }
    let metadata = |source| LockError::Metadata {
        archive: archive.wanted.name.clone(),
        source,
    };
    let plain = below_suite(archive.wanted, name).map_err(metadata)?;
    let mut paths = vec![plain];
    if archive.release.acquire_by_hash {
        let directory = name
            .rsplit_once('/')
            .map_or(String::new(), |(directory, _)| format!("{directory}/"));
        let tail = format!("{directory}by-hash/SHA256/{sha256}");
        paths.insert(0, below_suite(archive.wanted, &tail).map_err(metadata)?);
    }
    // The path by digest comes first: while a mirror is updated, the plain name may be a newer file already.
    let mut refusal = None;
    for path in paths {
        let failed = match indexes.get(archive.place(), &path, Some((size, sha256))) {
            Ok(bytes) => {
                let actual = Sha256Digest::new(Sha256::digest(&bytes).into());
                if actual == sha256 && bytes.len() as u64 == size {
                    return Ok(bytes);
                }
                LockError::Mismatch {
                    archive: archive.wanted.name.clone(),
                    path,
                    expected: format!("{sha256}, {size} bytes"),
                    actual: format!("{actual}, {} bytes", bytes.len()),
                }
            }
            Err(source) => LockError::Fetch {
                archive: archive.wanted.name.clone(),
                path,
                source,
            },
        };
        // The first error is shown: it belongs to the path that a consistent mirror has.
        refusal.get_or_insert(failed);
    }
    Err(refusal.unwrap_or_else(|| archive.lacks(format!("no place to look for {name}"))))
}

/// A reader that fails after `left` bytes, instead of ending there.
struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(format!("more than {MAX_PACKAGES} bytes once decompressed")))?;
        Ok(read)
    }
}

fn decompress<'a>(bytes: &'a [u8], name: &str) -> io::Result<BufReader<Capped<Box<dyn Read + 'a>>>> {
    let inner: Box<dyn Read + 'a> = if name.ends_with(".xz") {
        let stream = liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, liblzma::stream::CONCATENATED)?;
        Box::new(liblzma::read::XzDecoder::new_stream(bytes, stream))
    } else if name.ends_with(".lzma") {
        let stream = liblzma::stream::Stream::new_lzma_decoder(MAX_XZ_MEMORY)?;
        Box::new(liblzma::read::XzDecoder::new_stream(bytes, stream))
    } else if name.ends_with(".zst") {
        let mut decoder = zstd::Decoder::with_buffer(bytes)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Box::new(decoder)
    } else if name.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(bytes))
    } else {
        Box::new(bytes)
    };
    let capped = Capped {
        inner,
        left: MAX_PACKAGES,
    };
    Ok(BufReader::with_capacity(1 << 16, capped))
}

/// Locked packages by name, architecture and version, each with the source it was built from.
type Packages = BTreeMap<(String, String, String), (Package, SourceVersion)>;
type SourceVersion = (String, String);

/// Resolves a wanted set and adds it to the locked packages.
fn lock_set(index: &Index, wanted: &WantedSet, packages: &mut Packages) -> Result<(), LockError> {
    for id in resolve(index, wanted)? {
        let found = index.package(id);
        let source = (found.source_name().to_owned(), found.source_version().to_string());
        let differs = source.0 != *found.name || source.1 != found.version.as_str();
        let package = Package {
            name: found.name.to_string(),
            arch: found.arch.to_string(),
            version: found.version.to_string(),
            source: differs.then(|| format!("{} {}", source.0, source.1)),
            archive: index.archive_of(id).to_owned(),
            path: found.filename.clone(),
            size: found.size,
            sha256: found.sha256,
            sets: BTreeSet::from([wanted.node.clone()]),
        };
        let key = (package.name.clone(), package.arch.clone(), package.version.clone());
        // A package of several sets is locked once; two archives must not disagree about its bytes.
        match packages.get_mut(&key) {
            None => {
                packages.insert(key, (package, source));
            }
            Some((locked, _)) if locked.sha256 == package.sha256 => {
                locked.sets.insert(wanted.node.clone());
            }
            Some((locked, _)) => {
                return Err(LockError::Archive {
                    archive: package.archive.clone(),
                    problem: format!(
                        "{} {} {} is another file than in archive {}\nexpected: {}\n  actual: {}",
                        package.name, package.arch, package.version, locked.archive, locked.sha256, package.sha256
                    ),
                });
            }
        }
    }
    Ok(())
}

/// Refuses a kernel on which no node would boot.
fn check_kernels<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), LockError> {
    for name in names {
        let Some(version) = name.strip_prefix("linux-image-") else {
            continue;
        };
        if let Err(problem) = refuse_kernel(version) {
            return Err(LockError::Kernel { problem });
        }
    }
    Ok(())
}

/// Refuses architectures that are built from different versions of a source package. Within a stage that has a source on both
/// architectures, the versions must be equal; over the whole lock, one architecture may only lack versions of the other.
fn check_sources(packages: &Packages) -> Result<(), LockError> {
    type Sources<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;
    let mut stages: BTreeMap<&str, [Sources<'_>; 2]> = BTreeMap::new();
    let mut all: [Sources<'_>; 2] = Default::default();
    for (package, (name, version)) in packages.values() {
        let Ok(arch) = package.arch.parse::<Arch>() else {
            continue;
        };
        let side = usize::from(arch == Arch::Arm64);
        all[side].entry(name).or_default().insert(version);
        for NodeId { stage, .. } in &package.sets {
            let sources = &mut stages.entry(stage).or_default()[side];
            sources.entry(name).or_default().insert(version);
        }
    }
    let list = |versions: &BTreeSet<&str>| versions.iter().copied().collect::<Vec<_>>().join(", ");
    let mut differences = Vec::new();
    for (stage, [amd64, arm64]) in &stages {
        for (name, left) in amd64 {
            if let Some(right) = arm64.get(name).filter(|right| *right != left) {
                differences.push(format!(
                    "{name} in {stage}: amd64 {}, arm64 {}",
                    list(left),
                    list(right)
                ));
            }
        }
    }
    // The wider comparison would only repeat the differences within a stage.
    if differences.is_empty() {
        for (name, left) in &all[0] {
            let apart = |right: &&BTreeSet<&str>| !left.is_subset(right) && !right.is_subset(left);
            if let Some(right) = all[1].get(name).filter(apart) {
                differences.push(format!("{name}: amd64 {}, arm64 {}", list(left), list(right)));
            }
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(LockError::Sources { differences })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Hint as _;

    #[test]
    fn a_kernel_with_a_known_fault_is_not_locked() {
        let good = [
            "linux-image-6.12.117+deb13-amd64",
            "linux-image-amd64",
            "libc6",
            "linux-image-7.0.7-amd64",
        ];
        check_kernels(good.into_iter()).expect("no fault");
        let bad = good.into_iter().chain(["linux-image-7.0.4+deb14-arm64"]);
        let error = check_kernels(bad).expect_err("a fault");
        let said = error.to_string();
        assert!(
            said.starts_with("use the kernel 7.0.4+deb14-arm64: ") && said.contains("7.0.0 to 7.0.6"),
            "{said}"
        );
        let hint = error.hint().expect("a way out");
        assert!(hint.contains("--snapshot"), "{hint}");
    }
}
