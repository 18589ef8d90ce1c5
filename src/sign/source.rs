//! `TokenSource`: where an identity token comes from: a file, the environment, or the job that runs pnb.

use super::{
    error::SignError,
    services::without,
    token::{AUDIENCE, IdentityToken, LIMIT},
};
use crate::{
    http::{HttpClient, Method, Request, Retry, header, shown},
    model::visible_path,
};
use serde::Deserialize;
use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The variable that holds a token.
const VARIABLE: &str = "SIGSTORE_ID_TOKEN";
/// The variables of a job of GitHub, Forgejo or a runner like theirs.
const JOB_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const JOB_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// The purpose of the request.
const ASK: &str = "ask the job's server for an identity token";

/// Where an identity token comes from. A new one can be had of a file and of a job.
pub enum TokenSource {
    /// A file, read anew for each token.
    File(PathBuf),
    /// The text of `SIGSTORE_ID_TOKEN`.
    Variable(String),
    /// The server of the job.
    Job {
        /// Its address, of which the query may be secret.
        url: String,
        /// The job's own token.
        token: String,
    },
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl TokenSource {
    /// The source that the user named by a file or, without one, that the environment has. Whether the job is one of GitHub cannot be told
    /// from `GITHUB_ACTIONS`, which Gitea and Forgejo set too.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn find(file: Option<&Path>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, SignError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if let Some(path) = file {
            return Ok(Self::File(path.to_owned()));
        }
        if let Some(text) = set(VARIABLE) {
            return Ok(Self::Variable(text));
        }
        match (set(JOB_URL), set(JOB_TOKEN)) {
            (Some(url), Some(token)) => Ok(Self::Job { url, token }),
            (None, None) => Err(SignError::NoToken {
                problem: format!("neither {VARIABLE} nor {JOB_URL} is set, and no file is named"),
            }),
            (url, _) => {
                let (there, missing) = match url {
                    Some(_) => (JOB_URL, JOB_TOKEN),
                    None => (JOB_TOKEN, JOB_URL),
                };
                Err(SignError::NoToken {
                    problem: format!("the job has {there} but no {missing}"),
                })
            }
        }
    }

    /// The source in words.
    pub fn origin(&self) -> String {
        match self {
            Self::File(path) => format!("the file {}", visible_path(path)),
            Self::Variable(_) => VARIABLE.to_owned(),
            Self::Job { url, .. } => format!("the job ({})", shown(url)),
        }
    }

    /// A token, new where the source makes new ones.
    ///
    /// # Errors
    ///
    /// If the source has none.
    pub fn token(&self, http: &HttpClient) -> Result<IdentityToken, SignError> {
        let text = match self {
            Self::File(path) => read(path).map_err(|source| SignError::TokenFile {
                path: visible_path(path),
                source,
            })?,
            Self::Variable(text) => text.clone(),
            Self::Job { url, token } => ask(http, url, token)?,
        };
        IdentityToken::parse(&text, &self.origin())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let most = LIMIT as u64 + 1024;
    fs::File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Asks the server of the job, as GitHub's and Forgejo's runners describe it.
fn ask(http: &HttpClient, url: &str, token: &str) -> Result<String, SignError> {
    #[derive(Deserialize)]
    struct Given {
        value: String,
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    let asked = format!("{url}{mark}audience={AUDIENCE}");
    let mut request = Request::new(Method::GET, &asked)
        .header(header::ACCEPT, "application/json")
        .secret(header::AUTHORIZATION, &format!("bearer {}", token.trim()))
        .ok_or_else(|| SignError::NoToken {
            problem: format!("{JOB_TOKEN} has a character that cannot be sent"),
        })?;
    request.retry = Retry::Safe;
    request.limit = 2 * LIMIT as u64;
    let answer = http
        .send(request)
        .map_err(|source| SignError::Request { what: ASK, source })?;
    if !answer.is_success() {
        return Err(SignError::Service {
            what: ASK,
            url: shown(url),
            status: answer.status,
            said: without(&answer, token.trim()),
        });
    }
    // The message of the parser could quote the token.
    let given: Given = serde_json::from_slice(&answer.body).map_err(|_| SignError::Answer {
        what: ASK,
        url: shown(url),
        problem: "is not JSON with a value".to_owned(),
    })?;
    Ok(given.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: Option<&str>, set: &[(&str, &str)]) -> String {
        let variable = |name: &str| {
            let pair = set.iter().find(|(other, _)| *other == name);
            pair.map(|(_, value)| (*value).to_owned())
        };
        match TokenSource::find(file.map(Path::new), &variable) {
            Ok(source) => format!("{source:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_source_is_named_without_its_secrets() {
        let job = [
            (JOB_URL, "https://git.example/idtoken?placeholder=true"),
            (JOB_TOKEN, "secret"),
        ];
        let all = [job[0], job[1], (VARIABLE, "secret")];
        assert_eq!(found(Some("f"), &all), "the file f");
        assert_eq!(found(None, &all), "SIGSTORE_ID_TOKEN");
        assert_eq!(found(None, &job), "the job (https://git.example/idtoken?…)");
        // Every job of Gitea: the mark of GitHub, and nothing to ask.
        assert_eq!(
            found(None, &[("GITHUB_ACTIONS", "true"), (VARIABLE, " ")]),
            "find an identity token: neither SIGSTORE_ID_TOKEN nor ACTIONS_ID_TOKEN_REQUEST_URL is set, and no file is named"
        );
        assert_eq!(
            found(None, &job[1..]),
            "find an identity token: the job has ACTIONS_ID_TOKEN_REQUEST_TOKEN but no ACTIONS_ID_TOKEN_REQUEST_URL"
        );
    }
}
