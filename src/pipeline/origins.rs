//! The sources of pinned files, and the way of packages and other files of the lock into the store.

use super::{Event, Events, PipelineError, Project, Registries, project::AGENT};
use crate::{
    fetch::{
        self, Downloaded, Downloader, FetchItem, FileTransport, HttpOptions, HttpTransport, Location, Pauses,
        RetryPolicy, Sources, Transports,
    },
    http::NetworkSettings,
    lock::{Package, PinnedFile},
    model::{RelPath, Sha256Digest, VerityDigest},
    source::SourceTree,
    store::{ObjectMode, Store},
    verity,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The sources of pinned files.
#[derive(Debug, Clone)]
pub struct Origins {
    /// Mirrors, in the order of trying.
    pub sources: Sources,
    /// Whether the network may be used.
    pub offline: bool,
    /// Number of simultaneous downloads.
    pub parallel: usize,
    /// The way to servers.
    pub network: NetworkSettings,
    /// Clients of registries, which are asked for a base image last.
    pub registries: Registries,
}

impl Origins {
    /// Verifies the packages that the store has, and fetches the others into it.
    pub fn ensure_packages(
        &self,
        project: &Project,
        store: &Store,
        what: &str,
        packages: &[&Package],
        events: Events<'_>,
    ) -> Result<Vec<VerityDigest>, PipelineError> {
        let mut missing: Vec<&Package> = Vec::new();
        for package in packages {
            if !present(store, &package.sha256)? {
                missing.push(package);
            }
        }
        let items = fetch::plan_packages(&project.lock, missing, &self.sources)?;
        self.fetch(store, what, items, events)?;
        packages
            .iter()
            .map(|p| {
                store.find_sha256(&p.sha256)?.ok_or_else(|| PipelineError::NotLocked {
                    what: format!("the package {} {} that was just fetched", p.name, p.version),
                })
            })
            .collect()
    }

    /// Puts a pinned file that is not a package into the store.
    pub fn ensure_file(
        &self,
        project: &Project,
        store: &Store,
        file: &PinnedFile,
        events: Events<'_>,
    ) -> Result<VerityDigest, PipelineError> {
        if let Some(path) = &file.path {
            return adopt(store, file, &check_own(&project.tree, path, file)?);
        }
        if let Some(path) = project.agent.as_ref().filter(|_| file.name == AGENT) {
            let agent = fs::File::open(path).map_err(PipelineError::io("read", path))?;
            return adopt(store, file, &check_local(agent, path, file)?);
        }
        if !present(store, &file.sha256)?
            && let Some(item) = fetch::plan_file(file, &self.sources)?
        {
            self.fetch(store, &file.name, vec![item], events)?;
        }
        store
            .find_sha256(&file.sha256)?
            .ok_or_else(|| PipelineError::NotLocked {
                what: format!("the file {}", file.name),
            })
    }

    /// The transports of files and servers.
    pub(super) fn transports(&self) -> Transports {
        Transports {
            http: HttpTransport::new(&HttpOptions {
                network: self.network.clone(),
                ..HttpOptions::default()
            }),
            file: FileTransport,
        }
    }

    /// Whether the store has the bytes of this digest; damaged ones are removed.
    pub(super) fn has(&self, store: &Store, sha256: &Sha256Digest) -> Result<bool, PipelineError> {
        present(store, sha256)
    }

    pub(super) fn fetch(
        &self,
        store: &Store,
        what: &str,
        items: Vec<FetchItem>,
        events: Events<'_>,
    ) -> Result<(), PipelineError> {
        if items.is_empty() {
            return Ok(());
        }
        let total = items.iter().map(|i| i.size).sum();
        events(Event::Fetching {
            what: what.to_owned(),
            files: items.len(),
            total,
        });
        let progress = Advance {
            what,
            total,
            positions: Mutex::new(BTreeMap::new()),
            events,
        };
        let downloader = Downloader {
            transport: &self.transports(),
            directory: &store.downloads(),
            offline: self.offline,
            policy: RetryPolicy::default(),
            sleep: &std::thread::sleep,
            progress: &progress,
            pauses: Pauses::default(),
        };
        // Where the store cannot be read, the file is fetched again and putting it there fails with the cause.
        let have = |item: &FetchItem| store.find_sha256(&item.sha256).is_ok_and(|found| found.is_some());
        let deliver = |_: &FetchItem, file: Downloaded| {
            store
                .adopt(&file.path, &file.verity, ObjectMode::Plain)
                .map_err(io::Error::other)?;
            store.link_sha256(&file.sha256, &file.verity).map_err(io::Error::other)
        };
        Ok(fetch::fetch_all(&items, self.parallel, &downloader, &have, &deliver)?)
    }
}

/// Combines the progress of single files to events about all of them.
struct Advance<'a> {
    what: &'a str,
    total: u64,
    positions: Mutex<BTreeMap<Sha256Digest, u64>>,
    events: Events<'a>,
}

impl fetch::Progress for Advance<'_> {
    fn started(&self, item: &FetchItem, position: u64) {
        self.advanced(item, position);
    }
    fn advanced(&self, item: &FetchItem, position: u64) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.insert(item.sha256, position);
        let bytes = positions.values().sum();
        drop(positions);
        (self.events)(Event::Fetched {
            what: self.what.to_owned(),
            bytes,
            total: self.total,
        });
    }
    fn failed(&self, _: &FetchItem, _: &fetch::Location, _: &str) {}
    fn waiting(&self, _: &FetchItem, place: &Location, wait: Duration) {
        (self.events)(Event::Waiting {
            place: place.to_string(),
            seconds: wait.as_secs().max(1),
        });
    }
    fn finished(&self, item: &FetchItem, whole: bool) {
        // Another builder may have stored the file: then no byte of it arrived here.
        if whole {
            self.advanced(item, item.size);
        }
    }
}

/// Whether the store has the locked bytes. The store's index from SHA-256 to objects is not trusted: the object is hashed for both
/// digests (once per run of pnb). A damaged object is removed, so that it is fetched again; other failures are errors.
fn present(store: &Store, sha256: &Sha256Digest) -> Result<bool, PipelineError> {
    let Some(digest) = store.find_sha256(sha256)? else {
        return Ok(false);
    };
    let found = store.digests_of(&digest)?;
    if found.verity != digest {
        let path = store.object_path(&digest)?;
        fs::remove_file(&path).map_err(PipelineError::io("remove the damaged object", &path))?;
        return Ok(false);
    }
    if found.sha256 != *sha256 {
        store.unlink_sha256(sha256)?;
        return Ok(false);
    }
    Ok(true)
}

fn adopt(store: &Store, file: &PinnedFile, mut bytes: &[u8]) -> Result<VerityDigest, PipelineError> {
    let (digest, _) = store.put_object(ObjectMode::Plain, &mut bytes)?;
    store.link_sha256(&file.sha256, &digest)?;
    Ok(digest)
}

/// Reads a pinned file of the project; another digest than the locked one is an error.
pub(super) fn check_own(tree: &SourceTree, path: &RelPath, file: &PinnedFile) -> Result<Vec<u8>, PipelineError> {
    let (open, _) = tree.open_file(path)?;
    check_local(open, &tree.full(path), file)
}

/// Reads a pinned file of this machine, opened from `path`; another digest than the locked one is an error.
fn check_local(open: fs::File, path: &Path, file: &PinnedFile) -> Result<Vec<u8>, PipelineError> {
    let mut bytes = Vec::new();
    let read = open.take(file.size.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(PipelineError::io("read", path))?;
    let mut both = verity::Both::new();
    both.update(&bytes);
    let actual = both.finish().sha256;
    if actual != file.sha256 {
        return Err(PipelineError::LocalFile {
            name: file.name.clone(),
            path: path.to_owned(),
            expected: file.sha256,
            actual,
        });
    }
    Ok(bytes)
}
