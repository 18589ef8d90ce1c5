//! The input that tells stages whether an artifact has a recovery.

use super::{EMPTY_FILE, Entry, Epoch, Meta, ModelError, Node, RelPath, Tree};

/// Name of the file in the input of stages; it is there if the artifact has a recovery.
pub const RECOVERY_FILE: &str = "recovery";

/// The tree that stages get as an input: empty, or with one empty file.
///
/// # Errors
/// None in practice: the path is a constant.
pub fn recovery_tree(recovery: bool, epoch: Epoch) -> Result<Tree, ModelError> {
    let mut tree = Tree::new(Meta::root(0o755, epoch));
    if recovery {
        let entry = Entry {
            meta: Meta::root(0o644, epoch),
            node: Node::File {
                size: 0,
                digest: EMPTY_FILE,
            },
        };
        tree.insert(RelPath::new(RECOVERY_FILE)?, entry)?;
    }
    Ok(tree)
}
