//! Actions as messages, and the files of their results.
//!
//! Source: `Action`, `Command`, `Directory`, `Tree` and `ActionResult` in `remote_execution.proto`; `google/rpc/error_details.proto`
//! (`PreconditionFailure`). Messages are canonical: lists are sorted by name, and fields stand in the order of their numbers.

use super::{BlobDigest, EngineAction, Executed, InputFile, RemoteCache, RemoteError, proto};
use crate::model::{RelPath, visible_message};
use bazel_remote_apis::{
    build::bazel::remote::execution::v2::{
        Action, ActionResult, Command, Directory, DirectoryNode, ExecutedActionMetadata, FileNode, Platform, Tree,
        command::EnvironmentVariable, platform::Property,
    },
    google::protobuf::{self, Timestamp},
};
use prost::Message;
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    time::Duration,
};

/// The most bytes of a message that describes an output directory.
const MAX_TREE: u64 = 64 << 20;
/// The most files and directories of an output directory.
const MAX_NODES: u32 = 200_000;
/// The most directories inside each other.
const MAX_DEPTH: usize = 100;
/// The last bytes of standard error that are kept.
const MAX_STDERR: usize = 64 << 10;

/// A node of an input root.
enum Input<'a> {
    File(&'a InputFile),
    Directory(BTreeMap<&'a str, Input<'a>>),
}

/// A message, and its name as a blob.
type Described = (BlobDigest, Vec<u8>);

fn described(message: &impl Message) -> Described {
    let bytes = message.encode_to_vec();
    (BlobDigest::of(&bytes), bytes)
}

/// The name of an action, and every message that describes it; `Err` with the fault of its paths.
pub(super) fn action_messages(action: &EngineAction) -> Result<(BlobDigest, Vec<Described>), String> {
    let mut root = BTreeMap::new();
    for (path, file) in &action.files {
        let bad = || format!("{:?} is no path of a file in an input root", visible_message(path));
        RelPath::new(path).map_err(|_| bad())?;
        let mut place = &mut root;
        let (directories, name) = path.rsplit_once('/').map_or(("", path.as_str()), |parts| parts);
        for part in directories.split('/').filter(|part| !part.is_empty()) {
            match place.entry(part).or_insert_with(|| Input::Directory(BTreeMap::new())) {
                Input::Directory(inner) => place = inner,
                Input::File(_) => return Err(bad()),
            }
        }
        if place.insert(name, Input::File(file)).is_some() {
            return Err(bad());
        }
    }
    let mut messages = Vec::new();
    let root = directory(&root, &mut messages);
    let properties = action.platform.iter().map(|(name, value)| Property {
        name: name.clone(),
        value: value.clone(),
    });
    let platform = Some(Platform {
        properties: properties.collect(),
    });
    let variables = action.environment.iter().map(|(name, value)| EnvironmentVariable {
        name: name.clone(),
        value: value.clone(),
    });
    #[expect(deprecated, reason = "servers of versions before 2.1 know these fields alone")]
    let command = described(&Command {
        arguments: action.arguments.clone(),
        environment_variables: variables.collect(),
        output_paths: vec![action.output.clone()],
        output_directories: vec![action.output.clone()],
        platform: platform.clone(),
        ..Command::default()
    });
    let message = described(&Action {
        command_digest: Some(proto::digest(&command.0)),
        input_root_digest: Some(proto::digest(&root)),
        timeout: Some(protobuf::Duration {
            seconds: i64::try_from(action.timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(action.timeout.subsec_nanos()).unwrap_or(0),
        }),
        do_not_cache: !action.keep,
        salt: action.salt.clone(),
        platform,
    });
    let name = message.0;
    messages.extend([command, message]);
    messages.sort();
    messages.dedup();
    Ok((name, messages))
}

/// Adds the message of a directory after those of the directories in it, and returns its name.
fn directory(nodes: &BTreeMap<&str, Input<'_>>, messages: &mut Vec<Described>) -> BlobDigest {
    let mut message = Directory::default();
    for (name, node) in nodes {
        match node {
            Input::File(file) => message.files.push(FileNode {
                name: (*name).to_owned(),
                digest: Some(proto::digest(&file.blob)),
                is_executable: file.executable,
                node_properties: None,
            }),
            Input::Directory(inner) => message.directories.push(DirectoryNode {
                name: (*name).to_owned(),
                digest: Some(proto::digest(&directory(inner, messages))),
            }),
        }
    }
    let described = described(&message);
    let name = described.0;
    messages.push(described);
    name
}

/// The end of an action, with the files of its output directory. `cache` has the blobs.
pub(super) fn executed(
    cache: &dyn RemoteCache,
    output: &str,
    result: &ActionResult,
    cached: bool,
) -> Result<Executed, RemoteError> {
    let bad = |problem: String| RemoteError::Result {
        server: cache.name().to_owned(),
        problem,
    };
    let mut files = BTreeMap::new();
    let below = format!("{output}/");
    for file in &result.output_files {
        let Some(path) = file.path.strip_prefix(&below) else {
            continue;
        };
        RelPath::new(path).map_err(|_| bad(format!("it has a file with the name {:?}", visible_message(path))))?;
        files.insert(path.to_owned(), proto::blob(file.digest.as_ref()).map_err(bad)?);
    }
    for directory in result
        .output_directories
        .iter()
        .filter(|directory| directory.path == output)
    {
        let blob = proto::blob(directory.tree_digest.as_ref()).map_err(bad)?;
        if blob.size > MAX_TREE {
            return Err(bad(format!("its directory is described in more than {MAX_TREE} bytes")));
        }
        let mut bytes = Vec::new();
        cache.read(&blob, &mut bytes, &|_| {})?;
        let tree = Tree::decode(bytes.as_slice()).map_err(|_| bad("its directory is no message Tree".to_owned()))?;
        flatten(&tree, &mut files).map_err(bad)?;
    }
    let metadata = result.execution_metadata.clone().unwrap_or_default();
    Ok(Executed {
        exit_code: result.exit_code,
        files,
        stderr: stderr(cache, result),
        worker: visible_message(&metadata.worker),
        cached,
        queued: between(&metadata, |m| (&m.queued_timestamp, &m.worker_start_timestamp)),
        fetched: between(&metadata, |m| {
            (&m.input_fetch_start_timestamp, &m.input_fetch_completed_timestamp)
        }),
        stored: between(&metadata, |m| {
            (&m.output_upload_start_timestamp, &m.output_upload_completed_timestamp)
        }),
        ran: between(&metadata, |m| {
            (&m.execution_start_timestamp, &m.execution_completed_timestamp)
        }),
    })
}

/// Adds the files of a tree by their paths.
fn flatten(tree: &Tree, files: &mut BTreeMap<String, BlobDigest>) -> Result<(), String> {
    let children = tree.children.iter().map(|child| (described(child).0, child));
    let children: BTreeMap<BlobDigest, &Directory> = children.collect();
    let root = tree.root.as_ref().ok_or("its directory has no root")?;
    let mut open = VecDeque::from([(String::new(), root, 0)]);
    let mut nodes: u32 = 0;
    let path = |parent: &str, name: &str| -> Result<String, String> {
        let plain = !name.contains('/') && RelPath::new(name).is_ok();
        match plain {
            true => Ok(format!("{parent}{name}")),
            false => Err(format!("it has a file with the name {:?}", visible_message(name))),
        }
    };
    while let Some((parent, directory, depth)) = open.pop_front() {
        if !directory.symlinks.is_empty() {
            return Err(format!("it has symbolic links below \"{}\"", visible_message(&parent)));
        }
        // Counted before they are queued: a directory may stand in a message very often.
        let more = directory.files.len() + directory.directories.len() + 1;
        nodes = u32::try_from(more).map_or(u32::MAX, |more| nodes.saturating_add(more));
        if nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(format!(
                "it has more than {MAX_NODES} files, or directories {MAX_DEPTH} deep"
            ));
        }
        for file in &directory.files {
            let path = path(&parent, &file.name)?;
            let blob = proto::blob(file.digest.as_ref())?;
            if files.insert(path.clone(), blob).is_some() {
                return Err(format!("it has two files with the name \"{}\"", visible_message(&path)));
            }
        }
        for node in &directory.directories {
            let path = path(&parent, &node.name)?;
            let blob = proto::blob(node.digest.as_ref())?;
            let inner = children.get(&blob);
            let inner = inner.ok_or_else(|| format!("it lacks the directory \"{}\"", visible_message(&path)))?;
            open.push_back((format!("{path}/"), inner, depth + 1));
        }
    }
    Ok(())
}

/// The end of what the program printed on standard error. It is help and no result: nothing, if it is gone.
fn stderr(cache: &dyn RemoteCache, result: &ActionResult) -> Vec<u8> {
    let mut end = End(VecDeque::new());
    if !result.stderr_raw.is_empty() {
        end.keep(&result.stderr_raw);
    } else if let Ok(blob) = proto::blob(result.stderr_digest.as_ref())
        && cache.read(&blob, &mut end, &|_| {}).is_err()
    {
        return Vec::new();
    }
    end.0.into()
}

/// The last bytes of what is written.
struct End(VecDeque<u8>);

impl End {
    fn keep(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(MAX_STDERR)..];
        let surplus = (self.0.len() + bytes.len()).saturating_sub(MAX_STDERR);
        self.0.drain(..surplus);
        self.0.extend(bytes);
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.keep(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time between two moments of an action; none if the engine does not say.
fn between(
    metadata: &ExecutedActionMetadata,
    moments: impl Fn(&ExecutedActionMetadata) -> (&Option<Timestamp>, &Option<Timestamp>),
) -> Duration {
    let nanos = |moment: &Timestamp| i128::from(moment.seconds) * 1_000_000_000 + i128::from(moment.nanos);
    match moments(metadata) {
        (Some(begin), Some(end)) => {
            let time = (nanos(end) - nanos(begin)).clamp(0, i128::from(u64::MAX));
            Duration::from_nanos(u64::try_from(time).unwrap_or(0))
        }
        _ => Duration::ZERO,
    }
}

/// The detail of an error that lists what the server lacks.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PreconditionFailure {
    #[prost(message, repeated, tag = "1")]
    pub(super) violations: Vec<Violation>,
}

/// One thing that the server lacks.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Violation {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) subject: String,
}

/// The blob in the detail of an error, if it is one that the server lacks: type `MISSING`, subject `blobs/<SHA-256>/<bytes>`.
pub(super) fn missing_blob(detail: &[u8]) -> Option<BlobDigest> {
    let failure = PreconditionFailure::decode(detail).ok()?;
    failure
        .violations
        .iter()
        .filter(|v| v.kind == "MISSING")
        .find_map(|violation| {
            let (rest, size) = violation.subject.rsplit_once('/')?;
            let (_, hash) = rest.rsplit_once('/')?;
            Some(BlobDigest {
                sha256: hash.parse().ok()?,
                size: size.parse().ok()?,
            })
        })
}
