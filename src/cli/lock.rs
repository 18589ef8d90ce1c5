//! `pnb lock`: chooses and pins every input.

use super::{
    Exit,
    args::Common,
    context::{inputs, now, project_root},
    failure::Failure,
    report::{Report, size},
    vendor::sha256_of,
};
use clap::Args;
use pnb::{
    fetch::{FileTransport, HttpOptions, HttpTransport, Location, LocationKind, Sources, Transport, Transports},
    lock::{self, Indexes, LockRequest, Lockfile, MAX_INRELEASE, PinnedFile, WantedArchive},
    model::{Moment, RelPath, Sha256Digest},
    pipeline::{self, LOCKFILE, PipelineError, Project, STAGES},
    verity,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::Path,
};

/// Where stages/ says which archives there are.
const ARCHIVES: &str = "archives.toml";
/// Where it says which other files are pinned.
const FILES: &str = "files.toml";

/// Options of `pnb lock`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb lock --check\n  pnb lock --update\n  pnb lock --update --snapshot 20261123T000000Z\n  pnb lock --update --suite trixie-security"
)]
pub(super) struct LockArgs {
    /// Only say whether the lock has everything the stages want; writes nothing, uses no network.
    #[arg(long, conflicts_with_all = ["update", "snapshot", "suite"])]
    pub(super) check: bool,
    /// Take the newest versions. Without it an existing complete lock is left as it is.
    #[arg(long)]
    pub(super) update: bool,
    /// Lock the archives as they were at this moment (YYYYMMDDThhmmssZ); implies --update.
    #[arg(long, value_name = "T")]
    pub(super) snapshot: Option<Moment>,
    /// Add an optional suite of stages/archives.toml; implies --update.
    #[arg(long, value_name = "NAME")]
    pub(super) suite: Vec<String>,
}

/// What the project wants of a lock.
struct LockWants<'a> {
    root: &'a Path,
    sets: Vec<lock::WantedSet>,
    files: Vec<PinnedFile>,
    previous: Option<Lockfile>,
}

pub(super) fn lock(common: &Common, args: &LockArgs, report: &Report) -> Result<Exit, Failure> {
    let root = project_root(common)?;
    let path = root.join(LOCKFILE);
    let previous = match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Failure::said(Exit::Lock, format!("read {path:?}: {e}"))),
        Ok(text) => Some(lock::parse_lock(&text, LOCKFILE).map_err(PipelineError::from)?),
    };
    let wanted = LockWants {
        root: &root,
        sets: pipeline::wanted_sets(&Project::load_graph(&root)?),
        files: pinned_files(&root)?,
        previous,
    };
    if args.check {
        return check(&wanted, report);
    }
    let newest = args.update || args.snapshot.is_some() || !args.suite.is_empty();
    let new = match &wanted.previous {
        // Versions stay as they are; only the pinned files are looked at again.
        Some(old) if !newest && lock::check(old, &wanted.sets).is_empty() => Lockfile {
            files: wanted.files.clone(),
            ..old.clone()
        },
        _ => resolve(common, args, &wanted, report)?,
    };
    let text = lock::write_lock(&new).map_err(PipelineError::from)?;
    if let Some(old) = &wanted.previous {
        let changes = lock::diff(old, &new);
        for change in &changes {
            report.line(change);
        }
        if changes.is_empty() {
            report.note("nothing changed");
        }
    }
    let fresh = path.with_extension("toml.part");
    let io = |e: io::Error| Failure::said(Exit::Lock, format!("write {path:?}: {e}"));
    fs::write(&fresh, text).map_err(io)?;
    fs::rename(&fresh, &path).map_err(io)?;
    report.clear();
    let (packages, archives, files) = (new.packages.len(), new.archives.len(), new.files.len());
    report.note(format_args!(
        "{LOCKFILE}: {packages} packages of {archives} archives, {files} other files"
    ));
    Ok(Exit::Success)
}

fn check(wanted: &LockWants<'_>, report: &Report) -> Result<Exit, Failure> {
    let Some(old) = &wanted.previous else {
        return Err(Failure::said(
            Exit::Lock,
            format!("find {LOCKFILE}\n\nhint: `pnb lock` writes it"),
        ));
    };
    let mut problems: Vec<String> = lock::check(old, &wanted.sets).iter().map(ToString::to_string).collect();
    for file in wanted.files.iter().filter(|f| !old.files.contains(f)) {
        problems.push(format!(
            "the file {} is not locked as it is ({})",
            file.name, file.sha256
        ));
    }
    for problem in &problems {
        if report.json() {
            report.line(serde_json::json!({ "problem": problem }));
        } else {
            report.line(problem);
        }
    }
    if problems.is_empty() {
        report.note(format_args!("{LOCKFILE} has everything the stages want"));
        return Ok(Exit::Success);
    }
    report.note("\nhint: `pnb lock` adds what is missing");
    Ok(Exit::Lock)
}

fn resolve(common: &Common, args: &LockArgs, wanted: &LockWants<'_>, report: &Report) -> Result<Lockfile, Failure> {
    let stages = wanted.root.join(STAGES);
    let read = |path: &Path| fs::read(path).map_err(|e| Failure::said(Exit::Lock, format!("read {path:?}: {e}")));
    let path = stages.join(ARCHIVES);
    let text = String::from_utf8(read(&path)?);
    let text = text.map_err(|e| Failure::said(Exit::Lock, format!("read {path:?}: {e}")))?;
    let archives = lock::parse_archives(&text, &format!("{STAGES}/{ARCHIVES}")).map_err(PipelineError::from)?;
    let mut keyrings = BTreeMap::new();
    for archive in &archives {
        keyrings.insert(archive.keyring.clone(), read(&stages.join(archive.keyring.as_path()))?);
    }
    let inputs = inputs(common)?;
    let indexes = Remote {
        sources: inputs.sources,
        offline: inputs.offline,
        transport: Transports {
            http: HttpTransport::new(&HttpOptions::default()),
            file: FileTransport,
        },
        report,
    };
    // Suites that the lock already has stay in it.
    let previous = wanted.previous.as_ref();
    let optional = |a: &&WantedArchive| a.optional && previous.is_some_and(|old| old.archive(&a.name).is_some());
    let kept = archives.iter().filter(optional).map(|a| a.name.clone());
    let suites: BTreeSet<String> = args.suite.iter().cloned().chain(kept).collect();
    report.note(format_args!("     lock {} package sets", wanted.sets.len()));
    let request = LockRequest {
        archives: &archives,
        keyrings: &keyrings,
        suites: &suites,
        wanted: &wanted.sets,
        files: &wanted.files,
        now: u32::try_from(now()).unwrap_or(u32::MAX),
        snapshot: args.snapshot,
        previous,
    };
    Ok(lock::update(&request, &indexes).map_err(PipelineError::from)?)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    #[serde(default)]
    file: Vec<WantedFile>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedFile {
    name: String,
    arch: Option<pnb::model::Arch>,
    path: Option<RelPath>,
    url: Option<String>,
    sha256: Option<Sha256Digest>,
    size: Option<u64>,
}

/// The files that `stages/files.toml` names, those of the repository with the digests they have now.
fn pinned_files(root: &Path) -> Result<Vec<PinnedFile>, Failure> {
    let path = root.join(STAGES).join(FILES);
    let bad = |problem: String| Failure::said(Exit::Lock, format!("read {STAGES}/{FILES}: {problem}"));
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|e| bad(e.to_string()))?,
    };
    let parsed: Files = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let mut files = Vec::new();
    for file in parsed.file {
        let (size, sha256) = match (&file.path, &file.url, file.size, file.sha256) {
            (Some(path), None, None, None) => {
                let place = root.join(path.as_path());
                let size = fs::metadata(&place)
                    .map_err(|e| bad(format!("{}: {path}: {e}", file.name)))?
                    .len();
                (
                    size,
                    sha256_of(&place).map_err(|e| bad(format!("{}: {path}: {e}", file.name)))?,
                )
            }
            (None, Some(_), Some(size), Some(sha256)) => (size, sha256),
            _ => {
                let way = "either { name, path } for a file of this repository, or { name, url, size, sha256 }";
                return Err(bad(format!("the file {:?} is not {way}", file.name)));
            }
        };
        files.push(PinnedFile {
            name: file.name,
            arch: file.arch,
            path: file.path,
            url: file.url,
            size,
            sha256,
        });
    }
    files.sort();
    Ok(files)
}

/// Index files from the mirror, apt's mirrors and the snapshot service.
struct Remote<'a> {
    sources: Sources,
    offline: bool,
    transport: Transports,
    report: &'a Report,
}

impl Indexes for Remote<'_> {
    fn get(
        &self,
        archive: lock::ArchiveLocation<'_>,
        path: &RelPath,
        expected: Option<(u64, Sha256Digest)>,
    ) -> io::Result<Vec<u8>> {
        let below = archive.base.join(path);
        let mut places: Vec<Location> = self
            .sources
            .mirror
            .iter()
            .map(|m| m.place(LocationKind::Mirror, &below))
            .collect();
        let base: pnb::fetch::Base = archive.snapshot_url.parse().map_err(io::Error::other)?;
        let apt = self.sources.apt.iter().filter(|b| b.ends_with(archive.base));
        let apt: Vec<Location> = apt.map(|b| b.place(LocationKind::AptMirror, path)).collect();
        let snapshot = base.place(LocationKind::Snapshot, path);
        // A moment that was asked for is what the snapshot service is for; otherwise the nearest mirror comes first.
        if archive.fixed {
            places.push(snapshot);
            places.extend(apt);
        } else {
            places.extend(apt);
            places.push(snapshot);
        }
        let mut looked = String::new();
        for place in places.iter().filter(|p| !self.offline || !p.address.is_network()) {
            match self.read(place, expected) {
                Ok(bytes) => {
                    let bytes_read = size(bytes.len() as u64);
                    self.report
                        .note(format_args!("     read {} {path} ({bytes_read})", archive.name));
                    return Ok(bytes);
                }
                Err(problem) => looked.push_str(&format!("\n  {place}: {problem}")),
            }
        }
        Err(io::Error::other(format!("{path} is at none of:{looked}")))
    }
}

impl Remote<'_> {
    fn read(&self, place: &Location, expected: Option<(u64, Sha256Digest)>) -> Result<Vec<u8>, String> {
        let limit = expected.map_or(MAX_INRELEASE, |(size, _)| size);
        let response = self.transport.open(place, 0, None).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        response
            .body
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| e.to_string())?;
        if bytes.len() as u64 > limit {
            return Err(format!("has more than {limit} bytes"));
        }
        if let Some((_, sha256)) = expected {
            let mut both = verity::Both::new();
            both.update(&bytes);
            if both.finish().sha256 != sha256 {
                return Err("has other bytes than the release file says".to_owned());
            }
        }
        Ok(bytes)
    }
}
