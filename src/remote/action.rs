//! Digests of actions that stand for a key: where the action cache has the result of a stage.
//!
//! An action cache is asked by the digest of an `Action` message of the Remote Execution API. For a stage it is made of the key alone, so
//! every machine asks the same, and nothing of the inputs has to be there:
//!
//! ```text
//! Command { arguments: ["pnb-record", "<key>"] }
//! Action  { command_digest, input_root_digest: that of the empty Directory, salt: "pnb record 1" }
//! ```
//!
//! Source: build/bazel/remote/execution/v2/remote_execution.proto of <https://github.com/bazelbuild/remote-apis>; the encoding is that of
//! protocol buffers, fields in the order of their numbers: <https://protobuf.dev/programming-guides/encoding/>.

use super::BlobDigest;

/// Number of the field `arguments` of `Command`.
const ARGUMENTS: u8 = 1;
/// Numbers of the fields `command_digest`, `input_root_digest` and `salt` of `Action`.
const COMMAND_DIGEST: u8 = 1;
const INPUT_ROOT_DIGEST: u8 = 2;
const SALT: u8 = 9;
/// Numbers of the fields `hash` and `size_bytes` of `Digest`.
const HASH: u8 = 1;
const SIZE_BYTES: u8 = 2;

/// A kind of entry of the action cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// The record and the outputs of a stage, by its key.
    Record,
    /// What the statements say about packages, by a digest of the packages.
    Facts,
}

impl EntryKind {
    /// The first argument of the command, and the salt of the action. A change of the format changes the salt.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Record => ("pnb-record", "pnb record 1"),
            Self::Facts => ("pnb-facts", "pnb facts 1"),
        }
    }
}

/// The digest of the action for `key`.
pub fn action_digest(kind: EntryKind, key: &str) -> BlobDigest {
    let (word, salt) = kind.words();
    let mut command = Vec::new();
    for argument in [word, key] {
        bytes(&mut command, ARGUMENTS, argument.as_bytes());
    }
    let mut action = Vec::new();
    bytes(&mut action, COMMAND_DIGEST, &digest(&BlobDigest::of(&command)));
    bytes(&mut action, INPUT_ROOT_DIGEST, &digest(&BlobDigest::of(b"")));
    bytes(&mut action, SALT, salt.as_bytes());
    BlobDigest::of(&action)
}

/// The message `Digest`. A size of 0 is the default, which is not written.
fn digest(blob: &BlobDigest) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, HASH, blob.sha256.to_hex().as_bytes());
    if blob.size > 0 {
        out.push(SIZE_BYTES << 3);
        varint(&mut out, blob.size);
    }
    out
}

/// A field of bytes, text or a message.
fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    out.push(field << 3 | LENGTH_DELIMITED);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(all(test, feature = "remote"))]
mod tests {
    use super::*;
    use bazel_remote_apis::build::bazel::remote::execution::v2::{Action, Command, Digest};
    use prost::Message as _;

    #[test]
    fn the_digest_is_that_of_the_messages() {
        let message = |blob: BlobDigest| Digest {
            hash: blob.sha256.to_hex(),
            size_bytes: blob.size as i64,
        };
        for (kind, key) in [
            (EntryKind::Record, "ab".repeat(32)),
            (EntryKind::Facts, String::new()),
            (EntryKind::Record, "x".repeat(300)),
        ] {
            let (word, salt) = kind.words();
            let command = Command {
                arguments: vec![word.to_owned(), key.clone()],
                ..Command::default()
            };
            let action = Action {
                command_digest: Some(message(BlobDigest::of(&command.encode_to_vec()))),
                input_root_digest: Some(message(BlobDigest::of(b""))),
                salt: salt.as_bytes().to_vec(),
                ..Action::default()
            };
            assert_eq!(action_digest(kind, &key), BlobDigest::of(&action.encode_to_vec()));
        }
    }
}
