//! Secrets: tokens and keys, which are read from files or the environment and never shown.

use super::SecretError;
use crate::store::read_foreign;
use std::{fmt, path::Path};

/// Most bytes of a secret.
const MAX_SECRET: u64 = 16 << 10;

/// A token or key. `Debug` does not show it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of printable ASCII; a line feed at its end is removed. `from` says where it comes from.
    ///
    /// # Errors
    /// It is empty, or has a character that is neither printable nor ASCII: such a value was not meant as a secret.
    pub fn new(text: &str, from: &str) -> Result<Self, SecretError> {
        let bad = |problem| SecretError::Value {
            from: from.to_owned(),
            problem,
        };
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        match text {
            "" => Err(bad("it is empty")),
            _ if !text.bytes().all(|b| b.is_ascii_graphic()) => {
                Err(bad("it has a space, or a character that is not printable ASCII"))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The secret in a file.
    pub fn load(path: &Path) -> Result<Self, SecretError> {
        let bytes = read_foreign(path, MAX_SECRET).map_err(|source| SecretError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::new(&String::from_utf8_lossy(&bytes), &crate::model::visible_path(path))
    }

    /// The value, for the one place that sends or uses it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_word_and_is_not_shown() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("token");
        std::fs::write(&path, "s3cret\r\n").expect("written");
        let secret = Secret::load(&path).expect("a secret");
        assert_eq!((secret.reveal(), format!("{secret:?}").as_str()), ("s3cret", "Secret"));
        for bad in ["", "\n", "a b", "a\nb", "a\n\n", "sécret"] {
            let error = Secret::new(bad, "GITEA_TOKEN").expect_err(bad).to_string();
            assert!(error.starts_with("use the secret of GITEA_TOKEN: it "), "{error}");
            assert!(bad.len() < 2 || !error.contains(bad), "{error}");
        }
        std::fs::write(&path, vec![b'x'; 17 << 10]).expect("written");
        assert!(Secret::load(&path).is_err());
    }
}
