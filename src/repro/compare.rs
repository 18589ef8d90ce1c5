//! The differences between two outputs of a stage, as [`crate::inspect`] describes them.

use crate::{
    inspect::{self, Comparison, Difference, InspectError, PartKind, SpoolDirectory, What},
    model::{Entry, Node, RelPath, Tree, VerityDigest},
    store::{Output, Store, StoreError},
};
use std::collections::BTreeSet;

/// The errors of comparing two outputs.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// An output cannot be read from its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The formats of the outputs cannot be compared.
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

/// Compares two outputs with one name, each in its store. At most `limit` differences are kept; all are counted.
pub fn compare(
    name: &str,
    (store_a, a): (&Store, &Output),
    (store_b, b): (&Store, &Output),
    scratch: &SpoolDirectory,
    limit: usize,
) -> Result<Comparison, CompareError> {
    let mut walk = Walk {
        stores: (store_a, store_b),
        scratch,
        limit,
        found: Comparison::default(),
    };
    match (a, b) {
        (Output::Tree { digest: a }, Output::Tree { digest: b }) => {
            walk.trees(&store_a.tree(a)?, &store_b.tree(b)?)?;
        }
        (Output::File { digest: a, .. }, Output::File { digest: b, .. }) => walk.files(name, a, b)?,
        _ => {
            let what = What::Format {
                a: kind(a).to_owned(),
                b: kind(b).to_owned(),
            };
            walk.report(vec![name.to_owned()], what);
        }
    }
    Ok(walk.found)
}

/// `tree` or `file`.
pub(crate) const fn kind(output: &Output) -> &'static str {
    match output {
        Output::Tree { .. } => "tree",
        Output::File { .. } => "file",
    }
}

struct Walk<'a> {
    stores: (&'a Store, &'a Store),
    scratch: &'a SpoolDirectory,
    limit: usize,
    found: Comparison,
}

impl Walk<'_> {
    fn report(&mut self, path: Vec<String>, what: What) {
        self.found.total += 1;
        if self.found.differences.len() < self.limit {
            self.found.differences.push(Difference {
                path,
                what,
                hint: None,
                structure: false,
            });
        }
    }

    fn trees(&mut self, a: &Tree, b: &Tree) -> Result<(), CompareError> {
        self.meta("/", &a.root().into(), &b.root().into());
        let of = |tree: &Tree| tree.iter().map(|(path, _)| path.clone()).collect::<BTreeSet<RelPath>>();
        for path in of(a).union(&of(b)) {
            let name = path.to_string();
            match (a.get(path), b.get(path)) {
                (Some(a), Some(b)) if a == b => {}
                (Some(a), Some(b)) => {
                    self.meta(&name, &About::of(a), &About::of(b));
                    match (&a.node, &b.node) {
                        (Node::File { digest: a, .. }, Node::File { digest: b, .. }) if a != b => {
                            self.files(&name, a, b)?;
                        }
                        (Node::Symlink { target: a }, Node::Symlink { target: b }) if a != b => {
                            let shown = |target: &[u8]| Some(String::from_utf8_lossy(target).into_owned());
                            self.field(&name, "target", shown(a), shown(b));
                        }
                        _ => {}
                    }
                }
                (Some(only), None) => {
                    let (size, kind) = (size(only), kind_of(only));
                    self.report(vec![name], What::OnlyInA { size, kind });
                }
                (None, Some(only)) => {
                    let (size, kind) = (size(only), kind_of(only));
                    self.report(vec![name], What::OnlyInB { size, kind });
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn meta(&mut self, name: &str, a: &About, b: &About) {
        let fields: [(&str, &str, &str); 3] = [
            ("kind", a.kind, b.kind),
            ("mode", &a.mode, &b.mode),
            ("owner", &a.owner, &b.owner),
        ];
        for (field, a, b) in fields {
            if a != b {
                self.field(name, field, Some(a.to_owned()), Some(b.to_owned()));
            }
        }
    }

    fn field(&mut self, name: &str, field: &str, a: Option<String>, b: Option<String>) {
        let field = field.to_owned();
        self.report(vec![name.to_owned()], What::Field { field, a, b });
    }

    fn files(&mut self, name: &str, a: &VerityDigest, b: &VerityDigest) -> Result<(), CompareError> {
        let empty = crate::verity::digest_bytes(b"");
        let open = |store: &Store, digest: &VerityDigest| -> Result<inspect::Part, CompareError> {
            // No store has an object for the empty file.
            let source: crate::image::Source = if *digest == empty {
                std::sync::Arc::new(Vec::new())
            } else {
                std::sync::Arc::new(store.open_object(digest)?)
            };
            inspect::open(source, name).map_err(|source| {
                CompareError::Inspect(InspectError::Read {
                    part: name.to_owned(),
                    source,
                })
            })
        };
        let (a, b) = (open(self.stores.0, a)?, open(self.stores.1, b)?);
        let room = self.limit.saturating_sub(self.found.differences.len());
        let found = inspect::diff((&a, None), (&b, None), self.scratch, room)?;
        self.found.total += found.total;
        self.found.differences.extend(found.differences);
        Ok(())
    }
}

/// The metadata of an entry that is compared beside its content.
struct About {
    kind: &'static str,
    mode: String,
    owner: String,
}

impl About {
    fn of(entry: &Entry) -> Self {
        let kind = match entry.node {
            Node::Directory => "directory",
            Node::File { .. } => "file",
            Node::Symlink { .. } => "symbolic link",
            Node::CharDevice { .. } => "character device",
            Node::BlockDevice { .. } => "block device",
            Node::Fifo => "fifo",
        };
        Self {
            kind,
            ..Self::from(&entry.meta)
        }
    }
}

impl From<&crate::model::Meta> for About {
    fn from(meta: &crate::model::Meta) -> Self {
        Self {
            kind: "directory",
            mode: format!("{:04o}", meta.mode),
            owner: format!("{}:{}", meta.uid, meta.gid),
        }
    }
}

fn kind_of(entry: &Entry) -> PartKind {
    match entry.node {
        Node::File { .. } => PartKind::File,
        Node::Directory => PartKind::Directory,
        Node::Symlink { .. } => PartKind::Symlink,
        Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Fifo => PartKind::Special,
    }
}

fn size(entry: &Entry) -> u64 {
    match entry.node {
        Node::File { size, .. } => size,
        _ => 0,
    }
}
