//! One call for each request to the server, with its refusals told apart.

use super::{
    answers::{
        GiteaVersion, LimitsAnswer, ProtectionAnswer, ReleaseAnswer, ReleaseAsset, RepositoryAnswer, TagAnswer,
        UserAnswer, VersionAnswer,
    },
    form::UploadForm,
    place::{GiteaRepository, escaped},
    plan::PlannedAsset,
};
use crate::{
    http::{Answer, HeaderValue, HttpClient, HttpError, Method, Request, RequestBody, Retry, header, join, shown},
    publish::{GiteaError, Secret},
    registry::{OnTransfer, TransferStep, silent},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, Read, Write},
    time::Duration,
};

/// Most entries that one page is asked for; a server gives fewer if it wants.
const PER_PAGE: usize = 50;
/// Most pages that are read of one list.
const MAX_PAGES: usize = 400;
/// Most bytes of one answer.
const MAX_ANSWER: u64 = 8 << 20;

/// A file on its way to the server.
struct Counted {
    inner: std::fs::File,
    on: OnTransfer,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.on)(TransferStep::Bytes(read as u64));
        Ok(read)
    }
}

/// A server with the rights of a token.
pub struct GiteaClient<'a> {
    http: &'a HttpClient,
    repository: GiteaRepository,
    token: Secret,
    on: OnTransfer,
}

impl<'a> GiteaClient<'a> {
    /// A client of one repository.
    pub fn new(http: &'a HttpClient, repository: GiteaRepository, token: Secret) -> Self {
        Self {
            http,
            repository,
            token,
            on: silent(),
        }
    }

    /// The same, and `on` receives the steps of uploads.
    pub fn with_transfer(self, on: OnTransfer) -> Self {
        Self { on, ..self }
    }

    /// Receives the steps of uploads.
    pub(super) fn moved(&self, step: TransferStep) {
        (self.on)(step);
    }

    /// The repository.
    pub fn repository(&self) -> &GiteaRepository {
        &self.repository
    }

    /// Waits by the clock of the HTTP client.
    pub(super) fn wait(&self, time: Duration) {
        self.http.clock().wait(time);
    }

    /// The version of the server.
    pub fn version(&self) -> Result<GiteaVersion, GiteaError> {
        let answer: VersionAnswer = self.get("ask for the version of", &self.repository.api("/version"))?;
        Ok(GiteaVersion::parse(&answer.version))
    }

    pub(super) fn details(&self) -> Result<RepositoryAnswer, GiteaError> {
        self.get("look for", &self.repository.in_repository(""))
    }

    pub(super) fn user(&self) -> Result<Option<String>, GiteaError> {
        // A job's own token is of no user.
        let answer: Option<UserAnswer> = self.find("ask for the user at", &self.repository.api("/user"), true)?;
        Ok(answer.map(|user| user.login))
    }

    pub(super) fn limits(&self) -> Result<Option<LimitsAnswer>, GiteaError> {
        self.find(
            "ask for the limits of",
            &self.repository.api("/settings/attachment"),
            true,
        )
    }

    pub(super) fn has_commit(&self, sha: &str) -> Result<bool, GiteaError> {
        let path = format!(
            "/git/commits/{}?stat=false&verification=false&files=false",
            escaped(sha)
        );
        let found: Option<serde_json::Value> =
            self.find("look for the commit in", &self.repository.in_repository(&path), false)?;
        Ok(found.is_some())
    }

    /// The commit of a git tag.
    pub(super) fn tag(&self, tag: &str) -> Result<Option<String>, GiteaError> {
        let path = format!("/tags/{}", escaped(tag));
        let found: Option<TagAnswer> =
            self.find("look for the tag in", &self.repository.in_repository(&path), false)?;
        Ok(found.map(|tag| tag.commit.sha))
    }

    /// The rules for tags; `None` if the server is too old to tell, or does not tell this token.
    pub(super) fn protections(&self) -> Result<Option<Vec<ProtectionAnswer>>, GiteaError> {
        let url = self.repository.in_repository("/tag_protections");
        self.find("ask for the protected tags of", &url, true)
    }

    /// The release of a tag, draft or not. Tags are compared without case, as the server does.
    pub fn release(&self, tag: &str) -> Result<Option<ReleaseAnswer>, GiteaError> {
        let path = format!("/releases/tags/{}", escaped(tag));
        let url = self.repository.in_repository(&path);
        let found: Option<ReleaseAnswer> = self.find("look for the release in", &url, false)?;
        if let Some(found) = found.filter(|found| found.tag_name.eq_ignore_ascii_case(tag)) {
            return Ok(Some(found));
        }
        // Some versions hide drafts there and show them in the list.
        let drafts: Vec<ReleaseAnswer> =
            self.list("list the drafts of", "/releases", "draft=true&", |r: &ReleaseAnswer| {
                r.id
            })?;
        let mut drafts = drafts.into_iter();
        Ok(drafts.find(|draft| draft.tag_name.eq_ignore_ascii_case(tag)))
    }

    /// The release of a number.
    pub(super) fn release_by_id(&self, id: u64) -> Result<ReleaseAnswer, GiteaError> {
        self.get(
            "look at the release in",
            &self.repository.in_repository(&format!("/releases/{id}")),
        )
    }

    /// Creates a draft. `None` if there is a release of the tag already, or if the answer was lost: find it then.
    pub(super) fn create_draft(
        &self,
        tag: &str,
        commit: &str,
        title: &str,
        notes: &str,
    ) -> Result<Option<ReleaseAnswer>, GiteaError> {
        #[derive(Serialize)]
        struct Wanted<'a> {
            tag_name: &'a str,
            target_commitish: &'a str,
            name: &'a str,
            body: &'a str,
            draft: bool,
            prerelease: bool,
        }
        let wanted = Wanted {
            tag_name: tag,
            target_commitish: commit,
            name: title,
            body: notes,
            draft: true,
            prerelease: false,
        };
        let what = "create the release in";
        let url = self.repository.in_repository("/releases");
        let answer = match self.send_json(Method::POST, &url, &wanted) {
            Err(GiteaError::Http(error)) if error.is_temporary() => return Ok(None),
            sent => sent?,
        };
        match answer.status {
            409 => Ok(None),
            500 | 502 | 503 | 504 => Ok(None),
            _ => self.read(what, &answer).map(Some),
        }
    }

    /// Every file of a release. Two of them can have one name.
    pub fn assets(&self, release: u64) -> Result<Vec<ReleaseAsset>, GiteaError> {
        let path = format!("/releases/{release}/assets");
        self.list("list the files of the release in", &path, "", |asset: &ReleaseAsset| {
            asset.id
        })
    }

    /// Sends the bytes of a file once. After an error of the connection or the server the file may or may not be there.
    pub(super) fn upload(&self, release: u64, file: &PlannedAsset, raw: bool) -> Result<ReleaseAsset, GiteaError> {
        let path = format!("/releases/{release}/assets?name={}", escaped(&file.name));
        let url = self.repository.in_repository(&path);
        let form = UploadForm::new(&file.name, &file.sha256);
        let (size, kind) = match raw {
            true => (file.size, "application/octet-stream".to_owned()),
            false => (form.size(file.size), form.content_type()),
        };
        let mut open = || {
            self.moved(TransferStep::Begin(file.sha256, file.size));
            let content: Box<dyn Read + Send> = Box::new(Counted {
                inner: crate::store::open_foreign(&file.source)?,
                on: self.on.clone(),
            });
            Ok(match raw {
                true => content,
                false => form.around(content),
            })
        };
        let mut request = self.request(Method::POST, &url)?;
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            request.headers.push((header::CONTENT_TYPE, kind));
        }
        request.body = RequestBody::Stream { size, open: &mut open };
        let answer = self.http.send(request)?;
        match answer.status {
            413 => Err(GiteaError::TooLarge {
                name: file.name.clone(),
                size: file.size,
                limit: None,
                said: said(&answer),
            }),
            400 | 422 => Err(GiteaError::Upload {
                name: file.name.clone(),
                said: said(&answer),
            }),
            _ => self.read("upload a file to the release in", &answer),
        }
    }

    /// Deletes a file of a release; one that is gone already is no error.
    pub(super) fn delete_asset(&self, release: u64, asset: u64) -> Result<(), GiteaError> {
        let path = format!("/releases/{release}/assets/{asset}");
        let url = self.repository.in_repository(&path);
        let mut request = self.request(Method::DELETE, &url)?;
        request.retry = Retry::Safe;
        let answer = self.http.send(request)?;
        match answer.status {
            404 => Ok(()),
            _ if answer.is_success() => Ok(()),
            _ => Err(self.refusal("delete a file of the release in", &answer)),
        }
    }

    /// Writes the content of a file to `sink`, at most `limit` bytes. The storage behind the server may be elsewhere: one redirect to it is
    /// followed, without the token.
    pub(super) fn download(&self, asset: &ReleaseAsset, limit: u64, sink: &mut dyn Write) -> Result<(), GiteaError> {
        let what = "download a file of the release in";
        if !asset.uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') || asset.uuid.is_empty() {
            return Err(self.malformed(what, "the uuid of a file has other characters than one has"));
        }
        let url = self.repository.attachment(&asset.uuid);
        let mut request = self.request(Method::GET, &url)?;
        request.limit = limit;
        let answer = self.http.read(request, sink)?;
        if ![301, 302, 303, 307, 308].contains(&answer.status) {
            return self.succeeded(what, &answer);
        }
        let target = answer
            .header(header::LOCATION)
            .and_then(|location| join(&url, location));
        let target = target.ok_or_else(|| self.malformed(what, "it redirects to nowhere"))?;
        let name = shown(&target);
        let mut request = Request::new(Method::GET, &target);
        request.name = Some(&name);
        request.limit = limit;
        let answer = self.http.read(request, sink)?;
        self.succeeded(what, &answer)
    }

    /// Makes a draft visible, once.
    pub(super) fn show(&self, release: u64) -> Result<Answer, GiteaError> {
        #[derive(Serialize)]
        struct Wanted {
            draft: bool,
        }
        let url = self.repository.in_repository(&format!("/releases/{release}"));
        self.send_json(Method::PATCH, &url, &Wanted { draft: false })
    }

    fn request<'r>(&self, method: Method, url: &'r str) -> Result<Request<'r>, GiteaError> {
        let mut request = Request::new(method, url).header(header::ACCEPT, "application/json");
        request.limit = MAX_ANSWER;
        let token = format!("token {}", self.token.reveal());
        request.secret(header::AUTHORIZATION, &token).ok_or(GiteaError::Token)
    }

    fn send_json(&self, method: Method, url: &str, value: &impl Serialize) -> Result<Answer, GiteaError> {
        let body = serde_json::to_vec(value).map_err(|source| GiteaError::Malformed {
            what: "write a request to",
            repository: self.repository.to_string(),
            problem: source.to_string(),
        })?;
        let mut request = self.request(method, url)?;
        request = request.header(header::CONTENT_TYPE, "application/json");
        request.body = RequestBody::Bytes(&body);
        Ok(self.http.send(request)?)
    }

    fn get<T: DeserializeOwned>(&self, what: &'static str, url: &str) -> Result<T, GiteaError> {
        let answer = self.http.send(self.request(Method::GET, url)?)?;
        self.read(what, &answer)
    }

    /// The answer, or `None` if there is none: 404, and with `hidden` also 401 and 403.
    fn find<T: DeserializeOwned>(&self, what: &'static str, url: &str, hidden: bool) -> Result<Option<T>, GiteaError> {
        let answer = self.http.send(self.request(Method::GET, url)?)?;
        match answer.status {
            404 => Ok(None),
            401 | 403 if hidden => Ok(None),
            _ => self.read(what, &answer).map(Some),
        }
    }

    /// Every entry of a list. A server that has no pages for a list gives all of it again and again, so the end is a page without a new entry.
    fn list<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        query: &str,
        id: impl Fn(&T) -> u64,
    ) -> Result<Vec<T>, GiteaError> {
        let (mut all, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
        for page in 1..=MAX_PAGES {
            let url = self
                .repository
                .in_repository(&format!("{path}?{query}page={page}&limit={PER_PAGE}"));
            let entries: Vec<T> = self.get(what, &url)?;
            let before = seen.len();
            for entry in entries {
                if seen.insert(id(&entry)) {
                    all.push(entry);
                }
            }
            if seen.len() == before {
                return Ok(all);
            }
        }
        Err(self.malformed(what, "the list has no end"))
    }

    fn read<T: DeserializeOwned>(&self, what: &'static str, answer: &Answer) -> Result<T, GiteaError> {
        self.succeeded(what, answer)?;
        serde_json::from_slice(&answer.body).map_err(|error| self.malformed(what, &error.to_string()))
    }

    fn succeeded(&self, what: &'static str, answer: &Answer) -> Result<(), GiteaError> {
        match answer.is_success() {
            true => Ok(()),
            false => Err(self.refusal(what, answer)),
        }
    }

    fn malformed(&self, what: &'static str, problem: &str) -> GiteaError {
        GiteaError::Malformed {
            what,
            repository: self.repository.to_string(),
            problem: crate::model::visible_message(problem),
        }
    }

    /// The error of an answer that is none of success.
    pub(super) fn refusal(&self, what: &'static str, answer: &Answer) -> GiteaError {
        let (repository, said) = (self.repository.to_string(), said(answer));
        match answer.status {
            401 => GiteaError::Unauthorized { what, repository, said },
            403 => GiteaError::Forbidden { what, repository, said },
            404 => GiteaError::NotFound { what, repository, said },
            status => GiteaError::Refused {
                what,
                repository,
                status,
                said,
            },
        }
    }
}

/// The message in an answer, or its text.
pub(super) fn said(answer: &Answer) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        message: String,
    }
    match serde_json::from_slice::<Said>(&answer.body) {
        Ok(said) => crate::model::visible_message(&said.message),
        Err(_) => answer.said(),
    }
}

impl From<HttpError> for GiteaError {
    fn from(error: HttpError) -> Self {
        GiteaError::Http(error)
    }
}
