//! `ImageReference`: the name of an image in a registry.
//!
//! ```text
//! host[:port]/name[:tag][@sha256:<64 hexadecimal digits>]
//! ```
//!
//! Source: OCI distribution specification 1.1, "Pulling manifests" (names and tags), and the grammar of distribution's `reference`. The host
//! is required: without one, other programs take a registry of their choice.

use super::RegistryError;
use crate::model::{Sha256Digest, excerpt};
use std::{fmt, str::FromStr};

/// Longest name of a repository with its registry, as other tools limit it.
const LONGEST_NAME: usize = 255;
/// Longest tag.
const LONGEST_TAG: usize = 128;

/// The name of an image in a registry, well-formed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Sha256Digest>,
}

impl ImageReference {
    /// The host of the registry, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name of the repository in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index.
    pub fn digest(&self) -> Option<Sha256Digest> {
        self.digest
    }

    /// The same repository, and the manifest of this digest.
    pub fn with_digest(&self, digest: Sha256Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl FromStr for ImageReference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let bad = |problem: String| RegistryError::Reference {
            value: excerpt(text),
            problem,
        };
        if text.contains("://") {
            return Err(bad("begins with a scheme; a name begins with the host".into()));
        }
        if text.chars().any(|c| c.is_whitespace() || !c.is_ascii_graphic()) {
            return Err(bad("has a space or a character that is not ASCII".into()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(self::digest(digest).map_err(&bad)?)),
            None => (text, None),
        };
        let Some((host, path)) = rest.split_once('/') else {
            return Err(bad("has no host; a name is host[:port]/name".into()));
        };
        let local = host.eq_ignore_ascii_case("localhost");
        if !local && !host.contains(['.', ':']) {
            return Err(bad(format!(
                "does not begin with a host: {host:?} has neither a dot nor a port"
            )));
        }
        check_host(host).map_err(&bad)?;
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (path, None),
        };
        check_name(name).map_err(&bad)?;
        if host.len() + 1 + name.len() > LONGEST_NAME {
            return Err(bad(format!("is longer than {LONGEST_NAME} characters")));
        }
        tag.map_or(Ok(()), check_tag).map_err(&bad)?;
        Ok(Self {
            registry: host.to_ascii_lowercase(),
            repository: name.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@sha256:{digest}")?;
        }
        Ok(())
    }
}

/// The digest behind `@`, or the fault of it.
fn digest(text: &str) -> Result<Sha256Digest, String> {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return Err(format!("has a digest without an algorithm, {:?}", excerpt(text)));
    };
    if algorithm != "sha256" {
        return Err(format!("has a digest by {:?}; pnb knows sha256", excerpt(algorithm)));
    }
    hex.parse().map_err(|_| {
        format!(
            "has a digest that is not 64 lower-case hexadecimal digits, {:?}",
            excerpt(hex)
        )
    })
}

/// Checks a host with or without a port: a name, an IPv4 address or an IPv6 address in brackets.
fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, rest)) = rest.split_once(']') else {
                return Err("has an IPv6 address without its second bracket".into());
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("has the unusable IPv6 address {address:?}"));
            }
            match rest.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if rest.is_empty() => (None, None),
                None => return Err("has something behind the IPv6 address that is no port".into()),
            }
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    if let Some(port) = port
        && (port.is_empty()
            || port.starts_with('0')
            || !port.bytes().all(|b| b.is_ascii_digit())
            || port.parse::<u16>().is_err())
    {
        return Err(format!("has the unusable port {port:?}"));
    }
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    match name {
        Some(name) if !name.split('.').all(label) => Err(format!("has the unusable host {name:?}")),
        _ => Ok(()),
    }
}

/// Checks the name of a repository: components of lower-case letters and digits, with single `.`, `_`, `__` or `-` between them.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("has no name behind the host".into());
    }
    if name.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(format!(
            "has upper case in the name {name:?}; registries take lower case only"
        ));
    }
    for component in name.split('/') {
        if component.is_empty() {
            return Err(format!("has an empty component in the name {name:?}"));
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        // The runs between letters and digits; the first and the last are before and behind the component.
        let mut runs = component.split(plain).filter(|run| !run.is_empty());
        let ends = component.starts_with(plain) && component.ends_with(plain);
        let separator = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-');
        if !ends || !runs.all(separator) {
            return Err(format!("has the unusable component {component:?} in its name"));
        }
    }
    Ok(())
}

/// Checks a tag.
pub(super) fn check_tag(tag: &str) -> Result<(), String> {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inner = |c: char| first(c) || c == '.' || c == '-';
    match tag.starts_with(first) && tag.chars().all(inner) && tag.len() <= LONGEST_TAG {
        true => Ok(()),
        false => Err(format!(
            "has the unusable tag {:?}; a tag has letters, digits, '_', '.' and '-', at most {LONGEST_TAG}",
            excerpt(tag)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn a_name_has_its_parts() {
        let digest = format!("registry.example:5000/team/pnb-oci:v1.0@sha256:{HEX}");
        let parsed: ImageReference = digest.parse().expect("valid");
        assert_eq!(
            (parsed.registry(), parsed.repository()),
            ("registry.example:5000", "team/pnb-oci")
        );
        assert_eq!((parsed.tag(), parsed.digest()), (Some("v1.0"), HEX.parse().ok()));
        assert_eq!(parsed.to_string(), digest);
        for good in [
            "localhost/a",
            "127.0.0.1:5000/a",
            "[::1]:5000/a",
            "[::1]/a:T_1",
            "r.example/a__b/c.d/e--f_g",
        ] {
            assert_eq!(
                good.parse::<ImageReference>().map(|r| r.to_string()).ok().as_deref(),
                Some(good)
            );
        }
        let upper: ImageReference = "R.Example/a".parse().expect("a host has no case");
        assert_eq!(upper.registry(), "r.example");
    }

    #[test]
    fn everything_else_is_refused_by_its_fault() {
        let sha512 = format!("r.example/a@sha512:{HEX}{HEX}");
        for (bad, problem) in [
            ("alpine", "has no host"),
            ("library/alpine", "does not begin with a host: \"library\" has neither"),
            ("https://r.example/a", "begins with a scheme"),
            ("r.example/", "has no name behind the host"),
            ("r.example/A", "has upper case in the name \"A\""),
            ("r.example/a//b", "has an empty component"),
            ("r.example/a/", "has an empty component"),
            ("r.example/-a", "has the unusable component \"-a\""),
            ("r.example/a..b", "has the unusable component \"a..b\""),
            ("r.example/../b", "has the unusable component \"..\""),
            ("r.example/a___b", "has the unusable component"),
            ("r.example/a:", "has the unusable tag \"\""),
            ("r.example/a:.x", "has the unusable tag"),
            ("r.example/a:x/y", "has the unusable tag"),
            ("r.example/a:b:c", "has the unusable component"),
            ("r.example:0/a", "has the unusable port \"0\""),
            ("r.example:99999/a", "has the unusable port"),
            ("r.example:/a", "has the unusable port"),
            ("-r.example/a", "has the unusable host"),
            ("user@r.example/a", "has a digest without an algorithm"),
            ("[::1/a", "has an IPv6 address without its second bracket"),
            ("[x]:1/a", "has the unusable IPv6 address"),
            ("r.example/a b", "has a space"),
            ("r.example/ä", "has a space or a character that is not ASCII"),
            (&sha512, "has a digest by \"sha512\"; pnb knows sha256"),
            ("r.example/a@sha256:12", "has a digest that is not 64"),
            ("r.example/a@sha256:ABC", "has a digest that is not 64"),
        ] {
            let error = bad.parse::<ImageReference>().expect_err(bad).to_string();
            assert!(error.contains(problem), "{bad}: {error}");
        }
        let long = format!("r.example/{}", "a".repeat(300));
        assert!(long.parse::<ImageReference>().is_err());
        let long = format!("r.example/a:{}", "a".repeat(129));
        assert!(long.parse::<ImageReference>().is_err());
    }

    proptest! {
        #[test]
        fn what_parses_is_written_the_same(text in "[a-z0-9.:/@_-]{0,60}") {
            if let Ok(parsed) = text.parse::<ImageReference>() {
                prop_assert_eq!(parsed.to_string(), text);
            }
        }
    }
}
