//! The mirrors in apt's configuration of this machine.
//!
//! sources.list(5) has two formats: one line per source (`*.list`), and stanzas of fields (`*.sources`). Only the addresses are taken from
//! them; the lock alone decides which files are fetched and what their digests are.

use super::error::FetchError;
use super::location::Base;
use std::path::Path;

/// The mirrors in `sources.list` and `sources.list.d/` below `etc_apt` (normally `/etc/apt`), each once, in apt's own order. Files that do
/// not exist have no mirrors.
pub fn load_apt_mirrors(etc_apt: &Path) -> Result<Vec<Base>, FetchError> {
    let mut files = vec![etc_apt.join("sources.list")];
    let parts = etc_apt.join("sources.list.d");
    let failed = |source| FetchError::ReadSources {
        path: parts.clone(),
        source,
    };
    #[expect(clippy::disallowed_methods, reason = "the listing is sorted before use, as apt does")]
    let listing = std::fs::read_dir(&parts);
    match listing {
        Ok(listing) => {
            let mut names = Vec::new();
            for entry in listing {
                names.push(entry.map_err(failed)?.file_name());
            }
            names.sort();
            files.extend(
                names
                    .iter()
                    .filter_map(|n| n.to_str())
                    .filter(|n| is_read_by_apt(n))
                    .map(|n| parts.join(n)),
            );
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let mut mirrors: Vec<Base> = Vec::new();
    for path in files {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(FetchError::ReadSources { path, source }),
        };
        let name = path.display().to_string();
        let found = if name.ends_with(".sources") {
            parse_stanzas(&name, &text)?
        } else {
            parse_one_line(&name, &text)?
        };
        for mirror in found {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    Ok(mirrors)
}

/// Whether apt reads a file of this name in `sources.list.d`.
fn is_read_by_apt(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.starts_with('.') && name.chars().all(plain) && (name.ends_with(".list") || name.ends_with(".sources"))
}

/// The mirrors of a one-line-style file: `deb [option=value ...] uri suite [component ...]`.
pub fn parse_one_line(file: &str, text: &str) -> Result<Vec<Base>, FetchError> {
    let mut mirrors = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bad = |problem: String| FetchError::Sources {
            file: file.to_owned(),
            line: number + 1,
            problem,
        };
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once(char::is_whitespace) else {
            match line {
                "" => continue,
                _ => {
                    return Err(bad(format!(
                        "{:?} is not \"deb\" or \"deb-src\" and an address",
                        cut(line)
                    )));
                }
            }
        };
        match kind {
            "deb" => {}
            "deb-src" => continue,
            _ => return Err(bad(format!("unknown type {:?} (one of: deb, deb-src)", cut(kind)))),
        }
        let mut rest = rest.trim_start();
        if let Some(options) = rest.strip_prefix('[') {
            let end = options
                .find(']')
                .ok_or_else(|| bad(format!("{:?} has no closing bracket", cut(rest))))?;
            rest = options[end + 1..].trim_start();
        }
        let uri = rest
            .split_whitespace()
            .next()
            .ok_or_else(|| bad("the line has no address".to_owned()))?;
        mirrors.extend(usable(uri).map_err(bad)?);
    }
    Ok(mirrors)
}

/// The mirrors of a deb822-style file: stanzas with `Types`, `URIs` and perhaps `Enabled`.
pub fn parse_stanzas(file: &str, text: &str) -> Result<Vec<Base>, FetchError> {
    let mut mirrors = Vec::new();
    let mut stanza = Stanza::default();
    for (number, line) in text.lines().chain([""]).enumerate() {
        let bad = |problem: String| FetchError::Sources {
            file: file.to_owned(),
            line: number + 1,
            problem,
        };
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            stanza.finish(&mut mirrors).map_err(bad)?;
            continue;
        }
        if line.starts_with([' ', '\t']) {
            match stanza.fields.last_mut() {
                Some((_, value)) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                None => return Err(bad(format!("{:?} continues no field", cut(line.trim())))),
            }
            continue;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| bad(format!("{:?} is not \"Field: value\"", cut(line))))?;
        let name = name.trim().to_ascii_lowercase();
        if stanza.get(&name).is_some() {
            return Err(bad(format!("the stanza has the field {name:?} twice")));
        }
        stanza.fields.push((name, value.trim().to_owned()));
    }
    Ok(mirrors)
}

/// Fields of a stanza, their names in lower case.
#[derive(Default)]
struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Adds the stanza's mirrors to `mirrors` and empties the stanza.
    fn finish(&mut self, mirrors: &mut Vec<Base>) -> Result<(), String> {
        let stanza = std::mem::take(self);
        if stanza.fields.is_empty() {
            return Ok(());
        }
        // The words that apt reads as "no".
        let enabled = stanza.get("enabled").unwrap_or("yes").to_ascii_lowercase();
        if ["no", "false", "without", "off", "disable", "0"].contains(&enabled.as_str()) {
            return Ok(());
        }
        let types = stanza
            .get("types")
            .ok_or("the stanza that ends here has no field \"Types\"")?;
        if !types.split_whitespace().any(|t| t == "deb") {
            return Ok(());
        }
        let uris = stanza
            .get("uris")
            .ok_or("the stanza that ends here has no field \"URIs\"")?;
        for uri in uris.split_whitespace() {
            mirrors.extend(usable(uri)?);
        }
        Ok(())
    }
}

/// The address as a mirror; `None` for a scheme or form that pnb does not support (cdrom:, ssh:, tor+http:, `$(ARCH)`).
fn usable(uri: &str) -> Result<Option<Base>, String> {
    let supported = ["http:", "https:", "file:"].iter().any(|s| uri.starts_with(s));
    if !supported || uri.contains("$(") {
        return Ok(None);
    }
    uri.parse().map(Some).map_err(|e: FetchError| match e {
        FetchError::Address { value, problem } => format!("address {value:?} {problem}"),
        other => other.to_string(),
    })
}

fn cut(text: &str) -> String {
    crate::model::excerpt(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: Result<Vec<Base>, FetchError>) -> Vec<String> {
        found.expect("parses").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_line_sources_with_options_and_comments() {
        let text = "# all\n\ndeb [arch=amd64 signed-by=/k.gpg] http://a.example/debian/ trixie main # x\n\
                    deb-src http://src.example/debian trixie main\n\
                    deb\tfile:/srv/debian ./\n deb cdrom:[Debian]/ trixie main\n";
        assert_eq!(
            shown(parse_one_line("l", text)),
            ["http://a.example/debian", "file:///srv/debian"]
        );
    }

    #[test]
    fn stanzas_with_continuations_and_disabled_ones() {
        let text = "# c\nTypes: deb deb-src\nURIs: http://a.example/debian\n# between\n https://b.example/debian/\nSuites: x\n\n\n\
                    Types: deb\nEnabled: No\nURIs: http://off.example/debian\n\n\
                    Types: deb-src\nURIs: http://src.example/debian\n\n\
                    types: deb\nuris: tor+http://t.example/d http://$(ARCH).example/x file:///m/debian\n";
        assert_eq!(
            shown(parse_stanzas("s", text)),
            [
                "http://a.example/debian",
                "https://b.example/debian",
                "file:///m/debian"
            ]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, error) in [
            ("x\nrpm http://a/b c\n", None),
            (
                "\nrpm http://a/b c\n",
                Some("read f, line 2: unknown type \"rpm\" (one of: deb, deb-src)"),
            ),
            (
                "deb [arch=amd64 http://a/b c",
                Some("read f, line 1: \"[arch=amd64 http://a/b c\" has no closing bracket"),
            ),
            ("deb [a=b]", Some("read f, line 1: the line has no address")),
        ] {
            let found = parse_one_line("f", text).expect_err("refused").to_string();
            assert!(error.is_none_or(|e| e == found), "{found}");
        }
        for (text, error) in [
            (
                "Types: deb\nTypes: deb\n",
                "read f, line 2: the stanza has the field \"types\" twice",
            ),
            (" http://a/b\n", "read f, line 1: \"http://a/b\" continues no field"),
            ("Types deb\n", "read f, line 1: \"Types deb\" is not \"Field: value\""),
            (
                "Types: deb\n\n",
                "read f, line 2: the stanza that ends here has no field \"URIs\"",
            ),
            (
                "Types: deb\nURIs: http://\n",
                "read f, line 3: address \"http://\" is not a valid address",
            ),
        ] {
            assert_eq!(parse_stanzas("f", text).expect_err("refused").to_string(), error);
        }
    }

    #[test]
    fn a_directory_is_read_in_apts_order() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert_eq!(load_apt_mirrors(dir.path()).expect("nothing there"), []);
        let parts = dir.path().join("sources.list.d");
        std::fs::create_dir(&parts).expect("created");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        write("sources.list.d/b.list", "deb http://b.example/debian x y\n");
        write(
            "sources.list.d/a.sources",
            "Types: deb\nURIs: http://a.example/debian\n",
        );
        write("sources.list.d/a.list.save", "nonsense");
        write(
            "sources.list",
            "deb http://b.example/debian x y\ndeb http://c.example/debian x y\n",
        );
        let found = shown(load_apt_mirrors(dir.path()));
        assert_eq!(
            found,
            [
                "http://b.example/debian",
                "http://c.example/debian",
                "http://a.example/debian"
            ]
        );
    }
}
