//! The keys that vouch for the modules of a node. From the command line; written into the root, where 90powernode reads them.

use super::PipelineError;
use crate::{
    manifest::{ModuleKeyFact, ModuleTrustFact},
    model::{Entry, Epoch, Meta, ModelError, Node, RelPath, Tree, VerityDigest},
    module::{MAX_KEY, ModulePublicKey},
    store::{ObjectMode, Store, read_foreign},
    verity,
};
use std::{collections::BTreeMap, path::Path};

/// Directory of the keys in the root.
const KEYS: &str = "etc/powernode/module-keys";
const SUFFIX: &str = ".pub";

/// The keys by name, each as its file in the root.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ModuleTrust(BTreeMap<String, String>);

impl ModuleTrust {
    /// Reads and checks the public key in `path`, a file `<name>.pub`.
    pub fn read_key(&mut self, path: &Path) -> Result<(), PipelineError> {
        let bad = |problem: String| PipelineError::Platform {
            what: format!("the key of modules {path:?}"),
            problem,
        };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_suffix(SUFFIX).unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(bad(format!(
                "its name is not up to 64 letters, digits, `.`, `_` and `-` and {SUFFIX}"
            )));
        }
        let bytes = read_foreign(path, MAX_KEY).map_err(PipelineError::io("read", path))?;
        let text = String::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
        let key = ModulePublicKey::parse(&text, name).map_err(|e| bad(crate::model::chain(&e)))?;
        // The comment of the file is nobody's business: the same key gives the same root.
        if self.0.insert(name.to_owned(), key.to_text(name)).is_some() {
            return Err(bad("another key has the same name".to_owned()));
        }
        Ok(())
    }

    /// The part of the root that stages get as an input; an empty tree if nothing was given.
    pub(super) fn tree(&self, store: &Store, epoch: Epoch) -> Result<VerityDigest, PipelineError> {
        let problem = |e: ModelError| PipelineError::Describe { problem: e.to_string() };
        let mut tree = Tree::new(Meta::root(0o755, epoch));
        for (name, text) in &self.0 {
            let (digest, size) = store.put_object(ObjectMode::Plain, &mut text.as_bytes())?;
            let path = RelPath::new(format!("{KEYS}/{name}{SUFFIX}")).map_err(problem)?;
            tree.make_parents(&path, epoch).map_err(problem)?;
            let entry = Entry {
                meta: Meta::root(0o644, epoch),
                node: Node::File { size, digest },
            };
            tree.insert(path, entry).map_err(problem)?;
        }
        Ok(store.put_tree(&tree)?)
    }

    /// The statement of the manifest; `None` if nothing was given.
    pub(super) fn fact(&self) -> Option<ModuleTrustFact> {
        let keys: Vec<ModuleKeyFact> = self
            .0
            .iter()
            .map(|(name, text)| {
                let mut both = verity::Both::new();
                both.update(text.as_bytes());
                ModuleKeyFact {
                    name: name.clone(),
                    sha256: both.finish().sha256,
                }
            })
            .collect();
        (!keys.is_empty()).then_some(ModuleTrustFact { keys })
    }
}
