//! The facts about the platform that nodes enroll at, from the command line. They are written to boot partitions, beside or in
//! `identity.cfg`.

use super::PipelineError;
use crate::{
    manifest::PlatformFact,
    model::{Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest},
    store::{ObjectMode, Store, open_foreign},
    verity,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{io::Read, path::Path};

/// Largest certificate file that 90powernode reads, in bytes.
const MAX_PEM: u64 = 64 << 10;
/// Longest address accepted, in bytes.
const MAX_URL: usize = 1024;
/// Names of the files in the input of stages.
const URL: &str = "url";
const CA_PEM: &str = "ca.pem";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Most certificates in a file that 90powernode reads.
const MAX_CERTIFICATES: usize = 32;
/// The tag of a DER SEQUENCE.
const SEQUENCE: u8 = 0x30;

/// The address and the certificate authority of the platform, each if it was given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Platform {
    url: Option<String>,
    ca_pem: Option<Vec<u8>>,
}

impl Platform {
    /// Checks and sets the address, which is written after `SERVER=`.
    pub fn set_url(&mut self, url: &str) -> Result<(), PipelineError> {
        let bad = |problem: &str| PipelineError::Platform {
            what: format!("the platform's address {url:?}"),
            problem: problem.to_owned(),
        };
        let host = url.strip_prefix("https://");
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            return Err(bad(
                "it does not begin with https:// and a host; a node takes http:// with powernode.platform.http=allow on its command line only",
            ));
        }
        // The list leaves out the characters that end or change a quoted value in a shell, and the one that begins a comment.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?[]@!&*+,;=%".contains(c);
        if let Some(odd) = url.chars().find(|c| !plain(*c)) {
            return Err(bad(&format!("it contains {odd:?}, which has to be written as %XX")));
        }
        if url.len() > MAX_URL {
            return Err(bad(&format!("it has more than {MAX_URL} characters")));
        }
        self.url = Some(url.to_owned());
        Ok(())
    }

    /// Reads and checks the certificates of the platform's authority.
    pub fn read_ca_pem(&mut self, path: &Path) -> Result<(), PipelineError> {
        let file = open_foreign(path).map_err(PipelineError::io("open", path))?;
        let mut bytes = Vec::new();
        file.take(MAX_PEM + 1)
            .read_to_end(&mut bytes)
            .map_err(PipelineError::io("read", path))?;
        check_pem(&bytes).map_err(|problem| PipelineError::Platform {
            what: format!("the certificate file {path:?}"),
            problem,
        })?;
        self.ca_pem = Some(bytes);
        Ok(())
    }

    /// The directory that stages get as an input.
    pub(super) fn tree(&self, store: &Store, epoch: Epoch) -> Result<VerityDigest, PipelineError> {
        let mut tree = Tree::new(Meta::root(0o755, epoch));
        for (name, bytes) in [
            (URL, self.url.as_deref().map(str::as_bytes)),
            (CA_PEM, self.ca_pem.as_deref()),
        ] {
            let Some(mut bytes) = bytes else { continue };
            let (digest, size) = store.put_object(ObjectMode::Plain, &mut bytes)?;
            let entry = Entry {
                meta: Meta::root(0o644, epoch),
                node: Node::File { size, digest },
            };
            let problem = |e: crate::model::ModelError| PipelineError::Describe { problem: e.to_string() };
            tree.insert(RelPath::new(name).map_err(problem)?, entry)
                .map_err(problem)?;
        }
        Ok(store.put_tree(&tree)?)
    }

    /// The statement of the manifest.
    pub fn fact(&self) -> PlatformFact {
        PlatformFact {
            url: self.url.clone(),
            ca_pem_sha256: self.ca_pem.as_ref().map(|bytes| {
                let mut both = verity::Both::new();
                both.update(bytes);
                both.finish().sha256
            }),
        }
    }
}

fn check_pem(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() as u64 > MAX_PEM {
        return Err(format!("it has more than {MAX_PEM} bytes"));
    }
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii());
    let text = text.ok_or("it is not text; certificates are wanted as PEM (openssl x509 -outform PEM)")?;
    if text.contains("PRIVATE KEY") {
        return Err("it holds a private key, which must not go onto a medium".to_owned());
    }
    // The rules are those of 90powernode, which leaves out text beside the certificates.
    let blocks: Vec<&str> = text.split(BEGIN).skip(1).collect();
    if blocks.is_empty() || blocks.len() > MAX_CERTIFICATES {
        return Err(format!(
            "it has {} lines {BEGIN:?}, and 1 to {MAX_CERTIFICATES} are wanted",
            blocks.len()
        ));
    }
    for (number, block) in (1..).zip(blocks) {
        let body = block.split_once(END).map(|(body, _)| body);
        let body = body.ok_or_else(|| format!("certificate {number} has no line {END:?}"))?;
        let body: String = body.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(body).ok().filter(|bytes| is_sequence(bytes));
        bytes.ok_or_else(|| format!("certificate {number} is not one: its body is not base64 of a DER SEQUENCE"))?;
    }
    Ok(())
}

/// Whether these bytes are one DER SEQUENCE of just this length, as every certificate is.
fn is_sequence(bytes: &[u8]) -> bool {
    let (length, head) = match *bytes {
        [SEQUENCE, length, ..] if length < 0x80 => (usize::from(length), 2),
        [SEQUENCE, 0x81, length, ..] => (usize::from(length), 3),
        [SEQUENCE, 0x82, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
        _ => return false,
    };
    head + length == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_a_file_of_shell_values_would_change_is_refused() {
        let mut platform = Platform::default();
        for good in ["https://platform.example", "https://10.0.0.1:3000/a?b=c"] {
            platform.set_url(good).expect(good);
        }
        for (bad, why) in [
            ("platform.example", "does not begin"),
            ("http://platform.example", "powernode.platform.http=allow"),
            ("https://", "does not begin"),
            ("https:///x", "does not begin"),
            ("https://a b", "' '"),
            ("https://a\nID=x", "'\\n'"),
            ("https://a$(x)", "'$'"),
            ("https://a#b", "'#'"),
            ("https://é", "'é'"),
        ] {
            let error = platform.set_url(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn only_certificates_are_taken_for_certificates() {
        // A SEQUENCE of the numbers 1 and 2.
        let body = "MAYCAQECAQI=";
        let one = format!("{BEGIN}\n{body}\n{END}\n");
        for good in [
            one.clone(),
            format!("subject=x\n{one}# x\n{one}"),
            one.replace('\n', "\r\n"),
        ] {
            assert_eq!(check_pem(good.as_bytes()), Ok(()), "{good}");
        }
        for (text, why) in [
            (String::new(), "0 lines"),
            (one.repeat(33), "33 lines"),
            (format!("{BEGIN}\n{body}\n"), "certificate 1 has no line"),
            (
                format!("{one}{}", one.replace(body, "FIXTURE")),
                "certificate 2 is not one",
            ),
            (one.replace(body, "AAAA"), "certificate 1 is not one"),
            (one.replace(body, "MAYCAQECAQIC"), "certificate 1 is not one"),
            (one.replace(body, "MIIB"), "certificate 1 is not one"),
            (format!("{one}-----BEGIN PRIVATE KEY-----\n"), "private key"),
            ("x".repeat(70_000), "more than 65536"),
            ("\u{e9}".to_owned(), "not text"),
        ] {
            let problem = check_pem(text.as_bytes()).expect_err(why);
            assert!(problem.contains(why), "{problem}");
        }
    }
}
