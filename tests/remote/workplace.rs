//! A worker for the double of an engine: it lays out the input root of an action, runs its command, and keeps what that leaves.

use crate::{
    client::digest_of,
    double::{Executed, RemoteDouble},
    faults::Kept,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::{
    Action, ActionResult, Command, Directory, DirectoryNode, ExecuteResponse, ExecutedActionMetadata, FileNode,
    OutputDirectory, Tree,
};
use prost::Message;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process,
    sync::{Arc, Mutex},
};

/// An action that a worker got.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The properties that its worker must have.
    pub(crate) platform: BTreeMap<String, String>,
    /// The files of its input root.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Whether an earlier result may count.
    pub(crate) do_not_cache: bool,
}

/// The actions that the workers of a double got.
pub(crate) type SeenActions = Arc<Mutex<Vec<Seen>>>;

/// What a worker changes in the files that it leaves, by their paths.
pub(crate) type Change = dyn Fn(&Seen, &mut BTreeMap<String, Vec<u8>>) + Send + Sync;

/// An engine whose worker runs every action here, whatever its properties, and then lets `change` have the files that it leaves.
pub(crate) fn engine(change: Box<Change>) -> (RemoteDouble, SeenActions) {
    engine_with(change, |seen| {
        seen.platform.get("pnb-builder").cloned().unwrap_or_default()
    })
}

/// The same with the name of the worker that runs an action.
pub(crate) fn engine_with(
    change: Box<Change>,
    worker: impl Fn(&Seen) -> String + Send + Sync + 'static,
) -> (RemoteDouble, SeenActions) {
    let seen = SeenActions::default();
    let noted = Arc::clone(&seen);
    let double = RemoteDouble::with_worker(move |action, kept| {
        let (action, answer) = run(action, kept, &change, &worker);
        noted.lock().expect("whole").push(action);
        answer
    });
    (double, seen)
}

fn message<M: Message + Default>(kept: &Kept, hash: &str) -> M {
    M::decode(kept.blobs[hash].as_slice()).expect("a message")
}

fn run(action: &str, kept: &mut Kept, change: &Change, worker: &dyn Fn(&Seen) -> String) -> (Seen, Executed) {
    let action: Action = message(kept, action);
    let command: Command = message(kept, &action.command_digest.expect("a command").hash);
    let place = tempfile::tempdir().expect("scratch");
    let mut files = BTreeMap::new();
    lay_out(
        kept,
        &action.input_root_digest.expect("a root").hash,
        place.path(),
        "",
        &mut files,
    );
    let platform = action.platform.unwrap_or_default();
    let platform = platform
        .properties
        .into_iter()
        .map(|property| (property.name, property.value));
    let seen = Seen {
        platform: platform.collect(),
        files,
        do_not_cache: action.do_not_cache,
    };
    let done = process::Command::new(place.path().join(&command.arguments[0]))
        .args(&command.arguments[1..])
        .env_clear()
        .envs(
            command
                .environment_variables
                .iter()
                .map(|v| (v.name.as_str(), v.value.as_str())),
        )
        .current_dir(place.path())
        .output();
    // A program that the kernel does not take is the failure of the action.
    let (code, stderr) = match done {
        Ok(done) => (done.status.code().expect("a code"), done.stderr),
        Err(error) => (126, format!("{error}\n").into_bytes()),
    };
    let out = place.path().join(&command.output_paths[0]);
    let mut left = BTreeMap::new();
    for entry in walkdir::WalkDir::new(&out).into_iter().filter_map(Result::ok) {
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(&out).expect("below").to_str().expect("UTF-8");
            left.insert(path.to_owned(), fs::read(entry.path()).expect("read"));
        }
    }
    change(&seen, &mut left);
    let tree = tree_of(kept, &left);
    let tree = digest_of(&kept_bytes(kept, tree.encode_to_vec()));
    let result = ActionResult {
        output_directories: vec![OutputDirectory {
            path: command.output_paths[0].clone(),
            tree_digest: Some(tree),
            ..Default::default()
        }],
        exit_code: code,
        stderr_raw: stderr,
        execution_metadata: Some(ExecutedActionMetadata {
            worker: worker(&seen),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = ExecuteResponse {
        result: Some(result),
        ..Default::default()
    };
    (seen, answer.into())
}

fn kept_bytes(kept: &mut Kept, bytes: Vec<u8>) -> Vec<u8> {
    kept.add_blob(&bytes);
    bytes
}

fn lay_out(kept: &Kept, hash: &str, to: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    let directory: Directory = message(kept, hash);
    fs::create_dir_all(to).expect("made");
    for file in &directory.files {
        let bytes = &kept.blobs[&file.digest.as_ref().expect("a digest").hash];
        let path = to.join(&file.name);
        fs::write(&path, bytes).expect("written");
        let mode = if file.is_executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        files.insert(format!("{prefix}{}", file.name), bytes.clone());
    }
    for inner in &directory.directories {
        let hash = &inner.digest.as_ref().expect("a digest").hash;
        lay_out(
            kept,
            hash,
            &to.join(&inner.name),
            &format!("{prefix}{}/", inner.name),
            files,
        );
    }
}

/// The tree of these files, whose contents are kept.
pub(crate) fn tree_of(kept: &mut Kept, files: &BTreeMap<String, Vec<u8>>) -> Tree {
    let mut children = Vec::new();
    let root = directory_of(kept, files, &mut children);
    Tree {
        root: Some(root),
        children,
    }
}

fn directory_of(kept: &mut Kept, files: &BTreeMap<String, Vec<u8>>, children: &mut Vec<Directory>) -> Directory {
    let mut directory = Directory::default();
    let mut inner: BTreeMap<&str, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for (path, bytes) in files {
        match path.split_once('/') {
            None => {
                kept.add_blob(bytes);
                directory.files.push(FileNode {
                    name: path.clone(),
                    digest: Some(digest_of(bytes)),
                    ..Default::default()
                });
            }
            Some((name, rest)) => {
                inner.entry(name).or_default().insert(rest.to_owned(), bytes.clone());
            }
        }
    }
    for (name, files) in inner {
        let child = directory_of(kept, &files, children);
        directory.directories.push(DirectoryNode {
            name: name.to_owned(),
            digest: Some(digest_of(&child.encode_to_vec())),
        });
        children.push(child);
    }
    directory
}
