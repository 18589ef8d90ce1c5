//! `TrustedRoot`: the keys and certificates that verification trusts.

use super::{config::PUBLIC_GOOD, error::SignError};
use crate::model::{visible, visible_message};
use sigstore_verify::trust_root::{self, SIGSTORE_PRODUCTION_TRUSTED_ROOT};

/// The most bytes of the file.
const LIMIT: usize = 4 << 20;

/// The certificates of authorities and the keys of logs that count.
#[derive(Clone)]
pub struct TrustedRoot {
    pub(super) name: String,
    pub(super) inner: trust_root::TrustedRoot,
}

impl std::fmt::Debug for TrustedRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustedRoot({})", self.name)
    }
}

impl TrustedRoot {
    /// Reads a `trusted_root.json`; `name` is its file in errors.
    ///
    /// # Errors
    ///
    /// If it is no trusted root, or lacks a part without which no signature verifies.
    pub fn parse(text: &[u8], name: &str) -> Result<Self, SignError> {
        let bad = |problem: String| SignError::Root {
            name: visible(name),
            problem,
        };
        if text.len() > LIMIT {
            return Err(bad(format!("it has more than {LIMIT} bytes")));
        }
        let text = std::str::from_utf8(text).map_err(|_| bad("it is not UTF-8".to_owned()))?;
        let inner = trust_root::TrustedRoot::from_json(text).map_err(|e| bad(visible_message(&e.to_string())))?;
        for (field, missing) in [
            ("certificateAuthorities", inner.certificate_authorities.is_empty()),
            ("ctlogs", inner.ctlogs.is_empty()),
            ("tlogs", inner.tlogs.is_empty()),
        ] {
            if missing {
                return Err(bad(format!("it has no {field}, and no signature verifies without")));
            }
        }
        Ok(Self {
            name: visible(name),
            inner,
        })
    }

    /// The root of the public instance, as it was when the crate that has it was released.
    ///
    /// # Errors
    ///
    /// If the crate's file is not readable.
    pub fn public_good() -> Result<Self, SignError> {
        Self::parse(SIGSTORE_PRODUCTION_TRUSTED_ROOT.as_bytes(), PUBLIC_GOOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_without_a_part_is_refused_by_name() {
        let mut value: serde_json::Value = serde_json::from_str(SIGSTORE_PRODUCTION_TRUSTED_ROOT).expect("JSON");
        TrustedRoot::public_good().expect("valid");
        for field in ["certificateAuthorities", "ctlogs", "tlogs"] {
            let kept = value[field].take();
            value[field] = serde_json::json!([]);
            let said = TrustedRoot::parse(value.to_string().as_bytes(), "r").expect_err("refused");
            assert_eq!(
                said.to_string(),
                format!("use the trusted root r: it has no {field}, and no signature verifies without")
            );
            value[field] = kept;
        }
        assert!(TrustedRoot::parse(b"{}", "r").is_err());
        assert!(TrustedRoot::parse(b"\xff", "r").is_err());
    }
}
