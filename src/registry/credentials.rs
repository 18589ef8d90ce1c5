//! Credentials of registries, from the `config.json` of docker or the `auth.json` of podman and skopeo.
//!
//! ```json
//! { "auths": { "registry.example": { "auth": "<base64 of user:password>" },
//!              "registry.example/team": { "username": "u", "password": "p" },
//!              "https://other.example/v2/": { "identitytoken": "t" } } }
//! ```
//!
//! Source: containers-auth.json(5) and docker's `config.json`. A key without a scheme may have a path, and the longest key that begins the
//! name of the image counts; of a key with a scheme the host counts alone. Programs that keep credentials (`credHelpers`, `credsStore`) are
//! not started.

use super::RegistryError;
use base64::{Engine, engine::general_purpose};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Most bytes of a file of credentials.
const LARGEST: u64 = 1 << 20;

/// What proves to a registry who asks.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    Anonymous,
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token for the token service.
    Identity(String),
}

impl Credentials {
    /// The value of `Authorization` by the scheme Basic.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                let pair = format!("{user}:{password}");
                Some(format!("Basic {}", general_purpose::STANDARD.encode(pair)))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password { .. } => "Password(…)",
            Self::Identity(_) => "Identity(…)",
        })
    }
}

/// The places where a file of credentials may be, as the command line and the environment name them.
#[derive(Clone, Default, Debug)]
pub struct CredentialPlaces {
    /// `--registry-auth-file`.
    pub flag: Option<PathBuf>,
    /// `REGISTRY_AUTH_FILE`.
    pub registry_auth_file: Option<PathBuf>,
    /// `DOCKER_CONFIG`, a directory.
    pub docker_config: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
}

impl CredentialPlaces {
    /// The file that is named first in the order of the fields; the one in the home directory may be missing.
    fn file(&self) -> Option<(PathBuf, bool)> {
        let named = self.flag.clone().or_else(|| self.registry_auth_file.clone());
        let named = named.or_else(|| Some(self.docker_config.as_ref()?.join("config.json")));
        let home = || Some((self.home.as_ref()?.join(".docker/config.json"), false));
        named.map(|path| (path, true)).or_else(home)
    }

    /// Reads the file; an empty one if none is named and the home directory has none.
    ///
    /// # Errors
    ///
    /// If a named file is missing, or if the file cannot be read or parsed.
    pub fn load(&self) -> Result<CredentialFile, RegistryError> {
        let Some((path, must)) = self.file() else {
            return Ok(CredentialFile::default());
        };
        let unreadable = |source| RegistryError::File {
            action: "read the registry credentials",
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Err(e) if !must && e.kind() == io::ErrorKind::NotFound => return Ok(CredentialFile::default()),
            opened => opened.map_err(unreadable)?,
        };
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        CredentialFile::parse(&bytes, &path)
    }
}

/// A file of credentials. Its `Debug` has no secret.
#[derive(Default)]
pub struct CredentialFile {
    path: PathBuf,
    content: Content,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

impl fmt::Debug for CredentialFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.content.auths.keys().collect();
        write!(f, "CredentialFile({:?}, {keys:?})", self.path)
    }
}

impl CredentialFile {
    /// Parses the bytes of the file `path`.
    ///
    /// # Errors
    ///
    /// If they are too many, or not JSON of this form. The message has no part of the file.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, RegistryError> {
        let bad = |problem: String| RegistryError::CredentialFile {
            registry: "registries".to_owned(),
            path: path.to_owned(),
            problem,
            hint: "",
        };
        if bytes.len() as u64 > LARGEST {
            return Err(bad(format!("it has more than {LARGEST} bytes")));
        }
        // The parser's own message quotes values.
        let content = serde_json::from_slice(bytes).map_err(|e| {
            let kind = if e.is_data() {
                "not a file of credentials"
            } else {
                "not JSON"
            };
            bad(format!("it is {kind} (line {}, column {})", e.line(), e.column()))
        })?;
        let path = path.to_owned();
        Ok(Self { path, content })
    }

    /// The credentials for a repository of a registry; [`Credentials::Anonymous`] if the file has none.
    ///
    /// # Errors
    ///
    /// If the file leaves them to a program, or the entry is malformed.
    pub fn get(&self, registry: &str, repository: &str) -> Result<Credentials, RegistryError> {
        let bad = |problem: String, hint| RegistryError::CredentialFile {
            registry: registry.to_owned(),
            path: self.path.clone(),
            problem,
            hint,
        };
        let entries = self.content.auths.iter();
        let best = entries
            .filter_map(|(key, entry)| Some((matches(key, registry, repository)?, key, entry)))
            .max_by_key(|(length, _, _)| *length);
        if let Some((_, key, entry)) = best
            && let Some(found) = entry
                .credentials()
                .map_err(|problem| bad(format!("the entry {key:?} {problem}"), ""))?
        {
            return Ok(found);
        }
        let helpers = self.content.cred_helpers.iter();
        let mut helpers = helpers.filter(|(key, _)| matches(key, registry, repository).is_some());
        let program = helpers
            .next()
            .map(|(_, name)| name)
            .or(self.content.creds_store.as_ref());
        match program.filter(|name| !name.is_empty()) {
            Some(name) => Err(bad(
                format!(
                    "the program docker-credential-{} keeps them",
                    crate::model::visible(&crate::model::excerpt(name))
                ),
                "pnb starts no program of others: write user and password, or a token, into a file of their own and give it with \
                 --registry-auth-file (`skopeo login --authfile FILE HOST` writes one)",
            )),
            None => Ok(Credentials::Anonymous),
        }
    }
}

impl Entry {
    /// The credentials of the entry; `None` if it is empty.
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(token)));
        }
        let (user, password) = match (given(&self.auth), given(&self.username)) {
            (Some(auth), _) => {
                let bytes = general_purpose::STANDARD.decode(auth.trim());
                let bytes = bytes.map_err(|_| "has an \"auth\" that is not base64")?;
                let text = String::from_utf8(bytes).map_err(|_| "has an \"auth\" that is not UTF-8")?;
                // Docker ends the decoded text with zeros on some systems.
                let text = text.trim_end_matches('\0');
                let pair = text.split_once(':').ok_or("has an \"auth\" without a colon")?;
                (pair.0.to_owned(), pair.1.to_owned())
            }
            (None, Some(user)) => (user, self.password.clone().unwrap_or_default()),
            (None, None) => return Ok(None),
        };
        if user.is_empty() {
            return Err("has an empty user");
        }
        if user.chars().chain(password.chars()).any(char::is_control) {
            return Err("has a control character in user or password");
        }
        Ok(Some(Credentials::Password { user, password }))
    }
}

/// The length of the match of a key with a repository of a registry; `None` if it does not match.
fn matches(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = match bare {
        Some(bare) => (bare.split('/').next().unwrap_or_default(), ""),
        None => key.split_once('/').unwrap_or((key, "")),
    };
    let path = path.trim_end_matches('/');
    // Docker's keys end in the version of the protocol.
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let within = path.is_empty()
        || repository
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (host.eq_ignore_ascii_case(registry) && within).then_some(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> CredentialFile {
        CredentialFile::parse(text.as_bytes(), Path::new("config.json")).expect("a file")
    }

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password {
            user: user.into(),
            password: password.into(),
        }
    }

    #[test]
    fn the_longest_key_counts() {
        let file = file(
            r#"{"auths": {
                "r.example": {"auth": "dTpwOnE="},
                "r.example/team": {"username": "t", "password": "pt"},
                "r.example/team/app": {"username": "a", "password": "pa"},
                "https://s.example:5000/v2/": {"auth": "czpwAA==", "unknown": 1},
                "t.example/v1/": {"identitytoken": "refresh", "auth": "dTpw"},
                "empty.example": {}
            }, "HttpHeaders": {}}"#,
        );
        for (registry, repository, want) in [
            ("r.example", "x", password("u", "p:q")),
            ("r.example", "teamwork", password("u", "p:q")),
            ("R.EXAMPLE", "team", password("t", "pt")),
            ("r.example", "team/app", password("a", "pa")),
            ("r.example", "team/app/x", password("a", "pa")),
            ("r.example", "team/application", password("t", "pt")),
            ("r.example:5000", "team", Credentials::Anonymous),
            ("s.example:5000", "x", password("s", "p")),
            ("t.example", "x", Credentials::Identity("refresh".into())),
            ("empty.example", "x", Credentials::Anonymous),
        ] {
            assert_eq!(
                file.get(registry, repository).ok(),
                Some(want),
                "{registry}/{repository}"
            );
        }
        assert_eq!(password("u", "p:q").basic().as_deref(), Some("Basic dTpwOnE="));
    }

    #[test]
    fn a_program_that_keeps_credentials_is_not_started() {
        let helper = file(
            r#"{"credHelpers": {"r.example": "gcloud"}, "auths": {"r.example": {}, "s.example": {"auth": "dTpw"}}}"#,
        );
        let error = helper.get("r.example", "x").expect_err("refused");
        assert_eq!(
            error.to_string(),
            "take the credentials of r.example from config.json: the program docker-credential-gcloud keeps them"
        );
        use crate::model::Hint;
        assert!(error.hint().is_some_and(|hint| hint.contains("--registry-auth-file")));
        assert_eq!(helper.get("s.example", "x").ok(), Some(password("u", "p")));
        let store = file(r#"{"credsStore": "desktop", "auths": {"s.example": {"auth": "dTpw"}}}"#);
        assert!(store.get("r.example", "x").is_err());
        assert_eq!(store.get("s.example", "x").ok(), Some(password("u", "p")));
    }

    #[test]
    fn a_malformed_file_is_refused_without_its_content() {
        let refused = |text: &str| {
            let parsed = CredentialFile::parse(text.as_bytes(), Path::new("config.json"));
            let error = parsed.and_then(|file| file.get("r.example", "x")).expect_err(text);
            assert!(!error.to_string().contains("hunter2"), "{error}");
            error.to_string().rsplit(": ").next().unwrap_or_default().to_owned()
        };
        assert_eq!(refused("hunter2"), "it is not JSON (line 1, column 1)");
        assert_eq!(
            refused(r#"{"auths": "hunter2"}"#),
            "it is not a file of credentials (line 1, column 19)"
        );
        let entry = |text: &str| refused(&format!(r#"{{"auths": {{"r.example": {text}}}}}"#));
        assert_eq!(
            entry(r#"{"auth": "hunter2!"}"#),
            "the entry \"r.example\" has an \"auth\" that is not base64"
        );
        assert_eq!(
            entry(r#"{"auth": "aHVudGVyMg=="}"#),
            "the entry \"r.example\" has an \"auth\" without a colon"
        );
        assert_eq!(
            entry(r#"{"auth": "Omh1bnRlcjI="}"#),
            "the entry \"r.example\" has an empty user"
        );
        assert_eq!(
            entry(r#"{"username": "a", "password": "hunter2\n"}"#),
            "the entry \"r.example\" has a control character in user or password"
        );
        assert!(!format!("{:?}", password("u", "hunter2")).contains("hunter2"));
        assert!(!format!("{:?}", file(r#"{"auths": {"a": {"auth": "hunter2"}}}"#)).contains("hunter2"));
    }

    #[test]
    fn the_first_named_file_counts_and_must_be_there() {
        let dir = tempfile::tempdir().expect("scratch");
        std::fs::create_dir(dir.path().join(".docker")).expect("made");
        let text = r#"{"auths": {"r.example": {"auth": "dTpw"}}}"#;
        std::fs::write(dir.path().join(".docker/config.json"), text).expect("written");
        let home = CredentialPlaces {
            home: Some(dir.path().to_owned()),
            ..CredentialPlaces::default()
        };
        let got = |places: &CredentialPlaces| places.load().and_then(|file| file.get("r.example", "x"));
        assert_eq!(got(&home).ok(), Some(password("u", "p")));
        let docker = CredentialPlaces {
            docker_config: Some(dir.path().join("missing")),
            ..home.clone()
        };
        assert!(got(&docker).is_err());
        let docker = CredentialPlaces {
            docker_config: Some(dir.path().join(".docker")),
            home: None,
            ..home.clone()
        };
        assert_eq!(got(&docker).ok(), Some(password("u", "p")));
        std::fs::write(dir.path().join("other"), "{}").expect("written");
        for empty in [
            CredentialPlaces {
                flag: Some(dir.path().join("other")),
                registry_auth_file: Some("missing".into()),
                ..home.clone()
            },
            CredentialPlaces {
                registry_auth_file: Some(dir.path().join("other")),
                ..docker.clone()
            },
            CredentialPlaces::default(),
            CredentialPlaces {
                home: Some(dir.path().join("nobody")),
                ..CredentialPlaces::default()
            },
        ] {
            assert_eq!(got(&empty).ok(), Some(Credentials::Anonymous), "{empty:?}");
        }
    }
}
