//! `RegistryClient`: requests to one repository of one registry, the login before them, and the meaning of refusals.
//!
//! Source: OCI distribution specification 1.1.

use super::{Credentials, ImageReference, RegistryError, login::Login};
use crate::http::{
    Answer, HeaderName, HeaderValue, HttpClient, HttpError, Method, Request, RequestBody, Retry, header, is_temporary,
    join,
};
use crate::model::visible_message;
use serde::Deserialize;
use std::{
    fmt,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

/// Most bytes of an answer that is neither a manifest nor a blob.
const SMALL: u64 = 256 << 10;

/// What a caller is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegistryAccess {
    /// Read.
    Pull,
    /// Read and write.
    Push,
}

/// A client of one repository. It keeps connections and tokens.
pub struct RegistryClient {
    pub(super) http: HttpClient,
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) origin: String,
    login: Login,
    /// Whether tokens are asked for that may write: since the first request that writes, or a login for it.
    pushes: AtomicBool,
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryClient({}/{})", self.origin, self.repository)
    }
}

/// A request to the registry before its body.
pub(super) struct Ask<'a> {
    /// The operation, for messages.
    pub(super) what: &'a str,
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) limit: u64,
    pub(super) retry: Retry,
    /// Scopes beside the one of the repository.
    pub(super) scopes: Vec<String>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(what: &'a str, method: Method, url: String) -> Self {
        Self {
            what,
            method,
            url,
            headers: Vec::new(),
            limit: SMALL,
            retry: Retry::Safe,
            scopes: Vec::new(),
        }
    }

    /// With a field whose value must be able to stand in a header.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Result<Self, RegistryError> {
        let value = HeaderValue::from_str(value).map_err(|_| RegistryError::Malformed {
            what: self.what.to_owned(),
            problem: format!("the value of {name} cannot stand in a header"),
        })?;
        self.headers.push((name, value));
        Ok(self)
    }
}

impl RegistryClient {
    /// A client of the repository that `image` names. `http` says which hosts are spoken to without TLS ([`HttpClient::origin`]).
    pub fn new(http: HttpClient, image: &ImageReference, credentials: Credentials) -> Self {
        let registry = image.registry().to_owned();
        let origin = http.origin(&registry);
        Self {
            login: Login::new(&registry, &origin, credentials),
            repository: image.repository().to_owned(),
            http,
            registry,
            origin,
            pushes: AtomicBool::new(false),
        }
    }

    /// The host of the registry, with its port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name of the repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Asks whether there is a registry at all. One that wants a login is one.
    ///
    /// # Errors
    ///
    /// If there is no answer, or not that of a registry.
    pub fn ping(&self) -> Result<(), RegistryError> {
        let what = format!("ask for a registry at {}", self.registry);
        let url = format!("{}/v2/", self.origin);
        let mut request = Request::new(Method::GET, &url);
        request.limit = SMALL;
        let answer = self
            .http
            .send(request)
            .map_err(|source| self.unanswered(&what, source))?;
        match answer.status {
            200 | 401 => Ok(()),
            404 => Err(RegistryError::Malformed {
                what,
                problem: "the server is no registry (it has no /v2/)".to_owned(),
            }),
            _ => Err(self.refusal(&what, &answer)),
        }
    }

    /// Proves that the credentials allow what comes next. For [`RegistryAccess::Push`] an upload is begun and cancelled, which leaves nothing
    /// behind: a token service may give a token that allows less than was asked for, and not say so.
    ///
    /// # Errors
    ///
    /// If the login is refused, or writing is denied.
    pub fn login(&self, access: RegistryAccess) -> Result<(), RegistryError> {
        self.pushes.fetch_or(access == RegistryAccess::Push, Ordering::SeqCst);
        let what = format!("log in to {}", self.registry);
        let answer = self.exchange(
            &Ask::new(&what, Method::GET, format!("{}/v2/", self.origin)),
            &mut RequestBody::Empty,
            None,
        )?;
        // The token of a repository may not be valid for the root of the interface, which is denied then.
        if !matches!(answer.status, 200 | 403) {
            return Err(self.refusal(&what, &answer));
        }
        if access == RegistryAccess::Pull {
            return Ok(());
        }
        let what = format!("write to {}/{}", self.registry, self.repository);
        let begun = self.exchange(
            &Ask::new(&what, Method::POST, self.url("blobs/uploads/")),
            &mut RequestBody::Empty,
            None,
        )?;
        if begun.status != 202 {
            return Err(self.refusal(&what, &begun));
        }
        if let Some(session) = begun
            .header(header::LOCATION)
            .and_then(|at| join(&self.url("blobs/uploads/"), at))
        {
            let mut cancel = Ask::new(&what, Method::DELETE, session);
            cancel.retry = Retry::Never;
            // The registry drops the session by itself later.
            let _ = self.exchange(&cancel, &mut RequestBody::Empty, None);
        }
        Ok(())
    }

    /// The address of something below the repository.
    pub(super) fn url(&self, tail: &str) -> String {
        format!("{}/v2/{}/{tail}", self.origin, self.repository)
    }

    /// Whether an address belongs to the registry itself.
    pub(super) fn is_own(&self, url: &str) -> bool {
        let rest = url
            .get(..self.origin.len())
            .filter(|start| start.eq_ignore_ascii_case(&self.origin));
        rest.is_some() && url[self.origin.len()..].starts_with(['/', '?'])
    }

    /// The address in a `Location`, which must not lead from https to http.
    pub(super) fn location(&self, what: &str, base: &str, answer: &Answer) -> Result<String, RegistryError> {
        let bad = |problem: &str| RegistryError::Malformed {
            what: what.to_owned(),
            problem: format!("{} {problem}", self.registry),
        };
        let at = answer.header(header::LOCATION);
        let at = at.ok_or_else(|| bad("answers without a Location"))?;
        let url = join(base, at).ok_or_else(|| bad("answers with a Location that is no address"))?;
        match base.starts_with("https://") && !url.to_ascii_lowercase().starts_with("https://") {
            true => Err(bad("leads from https to http")),
            false => Ok(url),
        }
    }

    /// Sends a request, with a login if the registry wants one; a token that is refused is replaced once. Answers of 401 are errors, all
    /// others are for the caller. The body of an answer of 200 to 299 goes to `sink`, if there is one.
    pub(super) fn exchange(
        &self,
        ask: &Ask<'_>,
        body: &mut RequestBody<'_>,
        mut sink: Option<&mut dyn Write>,
    ) -> Result<Answer, RegistryError> {
        // Another server gets no credentials, even if the registry sends us there.
        let own = self.is_own(&ask.url);
        if ![Method::GET, Method::HEAD].contains(&ask.method) {
            self.pushes.store(true, Ordering::SeqCst);
        }
        let rights = if self.pushes.load(Ordering::SeqCst) {
            "pull,push"
        } else {
            "pull"
        };
        let mut scopes = vec![format!("repository:{}:{rights}", self.repository)];
        scopes.extend(ask.scopes.iter().cloned());
        let mut send = |value: Option<HeaderValue>| {
            let mut request = Request::new(ask.method.clone(), &ask.url);
            request.headers.clone_from(&ask.headers);
            request
                .headers
                .extend(value.map(|value| (header::AUTHORIZATION, value)));
            request.body = body.again();
            (request.limit, request.retry) = (ask.limit, ask.retry);
            let answer = match sink.as_deref_mut() {
                Some(sink) => self.http.read(request, sink),
                None => self.http.send(request),
            };
            answer.map_err(|source| self.unanswered(ask.what, source))
        };
        let value = if own {
            self.login.value(&self.http, &scopes)?
        } else {
            None
        };
        let answer = send(value)?;
        if answer.status != 401 || !own {
            return Ok(answer);
        }
        let value = self.login.answer(&self.http, &answer, &scopes, ask.what)?;
        let answer = send(Some(value))?;
        match answer.status {
            401 => Err(RegistryError::Unauthorized {
                what: ask.what.to_owned(),
                registry: self.registry.clone(),
                problem: "does not accept the login".to_owned(),
                text: said(&answer),
            }),
            _ => Ok(answer),
        }
    }

    /// The error of a request without an answer.
    pub(super) fn unanswered(&self, what: &str, source: HttpError) -> RegistryError {
        match source {
            HttpError::Unreachable { .. } => RegistryError::Down {
                what: what.to_owned(),
                registry: self.registry.clone(),
                problem: source.to_string(),
            },
            source => RegistryError::Http {
                what: what.to_owned(),
                source,
            },
        }
    }

    /// The error that an answer means.
    pub(super) fn refusal(&self, what: &str, answer: &Answer) -> RegistryError {
        let (what, registry, text) = (what.to_owned(), self.registry.clone(), said(answer));
        match answer.status {
            401 => RegistryError::Unauthorized {
                what,
                registry,
                problem: "wants a login".to_owned(),
                text,
            },
            403 => RegistryError::Denied { what, registry, text },
            404 => RegistryError::NotFound { what, registry, text },
            413 | 507 => RegistryError::TooLarge {
                what,
                registry,
                status: answer.status,
                text,
            },
            status if is_temporary(status) => RegistryError::Down {
                what,
                registry,
                problem: match text.is_empty() {
                    true => format!("it answered {status}"),
                    false => format!("it answered {status}: {text}"),
                },
            },
            status => RegistryError::Refused {
                what,
                registry,
                status,
                text,
            },
        }
    }
}

/// The errors of an answer, as the specification has them.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The text of a refusal: codes and messages, or the body as it stands.
pub(super) fn said(answer: &Answer) -> String {
    let Ok(parsed) = serde_json::from_slice::<Errors>(&answer.body) else {
        return answer.said();
    };
    let lines = parsed.errors.iter().map(|error| match error.message.is_empty() {
        true => error.code.clone(),
        false => format!("{} ({})", error.message, error.code),
    });
    visible_message(&lines.collect::<Vec<_>>().join(", "))
}
