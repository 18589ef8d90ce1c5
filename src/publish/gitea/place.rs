//! The address of a repository: `https://HOST[:PORT][/PREFIX]/OWNER/NAME`, as a browser shows it.

use crate::publish::GiteaError;
use std::fmt;

/// A repository on a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GiteaRepository {
    /// Address of the server, without a slash at its end.
    base: String,
    owner: String,
    name: String,
}

impl GiteaRepository {
    /// Reads an address.
    ///
    /// # Errors
    /// It has no scheme, a user name, a query, or not two names at its end; the HTTP client checks the rest.
    pub fn parse(url: &str) -> Result<Self, GiteaError> {
        let bad = |problem| GiteaError::Address {
            url: crate::http::shown(url),
            problem,
        };
        let text = url.strip_suffix('/').unwrap_or(url);
        let text = text.strip_suffix(".git").unwrap_or(text);
        if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['?', '#', '%', '\\']) {
            return Err(bad("it has a character that an address of a repository does not have"));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("it does not begin with https://"))?;
        if !["https", "http"].contains(&scheme) {
            return Err(bad("it does not begin with https://"));
        }
        let mut words: Vec<&str> = rest.split('/').collect();
        let (name, owner) = (words.pop().unwrap_or_default(), words.pop().unwrap_or_default());
        let host = words.first().copied().unwrap_or_default();
        if host.contains('@') {
            return Err(bad("it has a user name in it"));
        }
        if host.is_empty() || !is_name(owner) || !is_name(name) || words.iter().skip(1).any(|w| !is_name(w)) {
            return Err(bad("the form is https://HOST/OWNER/NAME"));
        }
        Ok(Self {
            base: format!("{scheme}://{}", words.join("/")),
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The address of a path below the API.
    pub(super) fn api(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.base)
    }

    /// The address of a path of this repository in the API.
    pub(super) fn in_repository(&self, path: &str) -> String {
        self.api(&format!("/repos/{}/{}{path}", self.owner, self.name))
    }

    /// The address of a file of a visible release, as the page of the release links to it.
    pub fn file_of_release(&self, tag: &str, file: &str) -> String {
        format!("{self}/releases/download/{}/{}", escaped(tag), escaped(file))
    }

    /// The address of a file of a release by its uuid.
    pub(super) fn attachment(&self, uuid: &str) -> String {
        format!("{}/attachments/{uuid}", self.base)
    }
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !text.is_empty() && text.len() <= 100 && text.bytes().all(plain) && text != "." && text != ".."
}

impl fmt::Display for GiteaRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.base, self.owner, self.name)
    }
}

/// A word as a part of a path or a value in a query.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_server_an_owner_and_a_name() {
        for (url, api) in [
            ("https://git.example/a/b", "https://git.example/api/v1/repos/a/b/x"),
            (
                "https://git.example:3000/a/b.git",
                "https://git.example:3000/api/v1/repos/a/b/x",
            ),
            (
                "http://127.0.0.1:1/git/a/b/",
                "http://127.0.0.1:1/git/api/v1/repos/a/b/x",
            ),
        ] {
            let repository = GiteaRepository::parse(url).expect(url);
            assert_eq!(repository.in_repository("/x"), api);
        }
        for bad in [
            "",
            "git.example/a/b",
            "ssh://git.example/a/b",
            "https://git.example/b",
            "https://git.example",
            "https:///a/b",
            "https://u:p@git.example/a/b",
            "https://git.example/a/../b",
            "https://git.example/a/b?x",
            "https://git.example/a/b%2Fc",
            "https://git.example/a b/c",
        ] {
            let error = GiteaRepository::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("a b/c?d&é~"), "a%20b%2Fc%3Fd%26%C3%A9~");
    }
}
