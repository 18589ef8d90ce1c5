//! A double of Gitea's release API, as its handlers and the specification of 1.27.3 have it. `python.rs` checks it with a client that was
//! generated from that specification.
//!
//! It has the properties that make publishing hard: drafts that nobody without the token sees, 409 for a tag that has a release, several
//! assets of one name, lists in pages, a size limit (413), a git tag that exists only when a draft is shown, and a bare 500 at that very
//! last step when the tag is protected.

use crate::server::{Received, Reply, WebServer, decoded};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};

/// The token that may write.
pub(crate) const TOKEN: &str = "70ken0000000000000000000000000000000000f";
/// The one commit of the repository.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Where the repository is.
pub(crate) const REPOSITORY: &str = "/powernode/images";
/// Most entries of a page, whatever a client asks for.
const PAGE: usize = 3;

/// A file of a release.
#[derive(Clone, Debug)]
pub(crate) struct StoredAsset {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    /// The media type of the request that brought it.
    pub(crate) sent_as: String,
}

/// A release, draft or not.
#[derive(Clone, Debug)]
pub(crate) struct StoredRelease {
    pub(crate) id: u64,
    pub(crate) tag: String,
    pub(crate) commit: String,
    pub(crate) title: String,
    pub(crate) notes: String,
    pub(crate) draft: bool,
    pub(crate) assets: Vec<StoredAsset>,
}

/// The state of the server, which tests read and change.
#[derive(Clone, Debug)]
pub(crate) struct GiteaState {
    pub(crate) version: String,
    pub(crate) releases: Vec<StoredRelease>,
    /// Git tags with their commits.
    pub(crate) tags: Vec<(String, String)>,
    /// Patterns of protected tags that the token's user may not make.
    pub(crate) protected: Vec<String>,
    /// Most bytes of an asset.
    pub(crate) most: u64,
    /// The same in MiB, as the settings state it.
    pub(crate) stated_mib: i64,
    /// The number of uploads to come that are kept in part, and answered with 500.
    pub(crate) cut_uploads: u32,
    /// Suffixes that are refused.
    pub(crate) forbidden: Option<&'static str>,
    pub(crate) empty: bool,
    pub(crate) may_push: bool,
    /// Whether `releases/tags/…` hides drafts, as newer versions do from tokens that cannot write.
    pub(crate) hides_drafts: bool,
    /// Whether downloads are redirected to this address.
    pub(crate) storage: Option<String>,
    next: u64,
}

/// The running double.
pub(crate) struct Gitea {
    pub(crate) web: WebServer,
    state: Arc<Mutex<GiteaState>>,
}

impl Gitea {
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    pub(crate) fn start_with(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let state = Arc::new(Mutex::new(GiteaState {
            version: "1.27.3".to_owned(),
            releases: Vec::new(),
            tags: Vec::new(),
            protected: Vec::new(),
            most: 2048 << 20,
            stated_mib: 2048,
            cut_uploads: 0,
            forbidden: None,
            empty: false,
            may_push: true,
            hides_drafts: false,
            storage: None,
            next: 100,
        }));
        let own = Arc::clone(&state);
        let web = WebServer::start(tls, move |request| {
            let base = format!("http://{}", request.field("host").unwrap_or("host"));
            own.lock().expect("whole").answer(request, &base)
        });
        Self { web, state }
    }

    /// The address of the repository, as people have it.
    pub(crate) fn url(&self) -> String {
        self.web.url(REPOSITORY)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, GiteaState> {
        self.state.lock().expect("whole")
    }
}

impl GiteaState {
    /// Adds a release, as somebody else would.
    pub(crate) fn add_release(&mut self, tag: &str, draft: bool) -> &mut StoredRelease {
        let id = self.number();
        if !draft {
            self.tags.push((tag.to_owned(), COMMIT.to_owned()));
        }
        self.releases.push(StoredRelease {
            id,
            tag: tag.to_owned(),
            commit: COMMIT.to_owned(),
            title: tag.to_owned(),
            notes: String::new(),
            draft,
            assets: Vec::new(),
        });
        self.releases.last_mut().expect("added")
    }

    /// Adds a file to a release, as somebody else would.
    pub(crate) fn add_asset(&mut self, tag: &str, name: &str, content: &[u8]) {
        let id = self.number();
        let release = self.releases.iter_mut().find(|r| r.tag == tag).expect("a release");
        release.assets.push(StoredAsset {
            id,
            name: name.to_owned(),
            content: content.to_vec(),
            sent_as: "by hand".to_owned(),
        });
    }

    /// The names of a release's files, sorted.
    pub(crate) fn names(&self, tag: &str) -> Vec<String> {
        let release = self.releases.iter().find(|r| r.tag == tag).expect("a release");
        let mut names: Vec<String> = release.assets.iter().map(|a| a.name.clone()).collect();
        names.sort();
        names
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn answer(&mut self, request: &Received, base: &str) -> Reply {
        let authorised = request.field("authorization") == Some(&format!("token {TOKEN}"));
        let path = decoded(request.path());
        if let Some(uuid) = path.strip_prefix("/attachments/") {
            return self.download(uuid, authorised);
        }
        if let Some(rest) = path.strip_prefix(&format!("{REPOSITORY}/releases/download/")) {
            return self.download_by_name(rest);
        }
        let Some(path) = path.strip_prefix("/api/v1") else {
            return Reply::text(404, "Not Found\n");
        };
        let words: Vec<&str> = path.split('/').skip(1).collect();
        if request.method != "GET" && !authorised {
            return message(401, "token is required");
        }
        let method = request.method.as_str();
        match (method, &words[..]) {
            ("GET", ["version"]) => Reply::json(200, &json!({ "version": self.version })),
            ("GET", ["user"]) if authorised => Reply::json(200, &user(base)),
            ("GET", ["user"]) => message(401, "token is required"),
            ("GET", ["settings", "attachment"]) => Reply::json(
                200,
                &json!({ "enabled": true, "allowed_types": "", "max_size": self.stated_mib, "max_files": 5 }),
            ),
            (_, ["repos", "powernode", "images", rest @ ..]) => self.in_repository(request, rest, authorised, base),
            _ => not_found(),
        }
    }

    fn in_repository(&mut self, request: &Received, words: &[&str], authorised: bool, base: &str) -> Reply {
        let method = request.method.as_str();
        match (method, words) {
            ("GET", []) => Reply::json(200, &self.repository(authorised, base)),
            ("GET", ["git", "commits", sha]) if *sha == COMMIT => Reply::json(200, &json!({ "sha": sha })),
            ("GET", ["tags", tag]) => match self.tags.iter().find(|(name, _)| name == tag) {
                Some((name, commit)) => Reply::json(
                    200,
                    &json!({ "name": name, "id": commit, "message": "", "commit": { "sha": commit } }),
                ),
                None => not_found(),
            },
            ("GET", ["tag_protections"]) if !authorised => message(403, "token does not have write access"),
            ("GET", ["tag_protections"]) => {
                let one = |(pattern, id): (&String, u64)| {
                    json!({ "id": id, "name_pattern": pattern, "whitelist_usernames": ["owner"],
                            "whitelist_teams": [], "created_at": MOMENT, "updated_at": MOMENT })
                };
                let all: Vec<Value> = self.protected.iter().zip(1..).map(one).collect();
                Reply::json(200, &all.into())
            }
            ("GET", ["releases"]) => self.list(request, authorised, base),
            ("POST", ["releases"]) => self.create(request, base),
            ("GET", ["releases", "tags", tag]) => {
                let shown = |r: &&StoredRelease| !r.draft || (authorised && !self.hides_drafts);
                let found = self.releases.iter().find(|r| r.tag.eq_ignore_ascii_case(tag));
                match found.filter(shown) {
                    Some(release) => Reply::json(200, &release.json(base)),
                    None => not_found(),
                }
            }
            (_, ["releases", id, rest @ ..]) => {
                let id = id.parse::<u64>().ok();
                let Some(at) = self.releases.iter().position(|r| Some(r.id) == id) else {
                    return not_found();
                };
                if self.releases[at].draft && !authorised {
                    return not_found();
                }
                self.in_release(request, at, rest, base)
            }
            _ => not_found(),
        }
    }

    fn in_release(&mut self, request: &Received, at: usize, words: &[&str], base: &str) -> Reply {
        match (request.method.as_str(), words) {
            ("GET", []) => Reply::json(200, &self.releases[at].json(base)),
            ("PATCH", []) => self.edit(request, at, base),
            ("DELETE", []) => {
                self.releases.remove(at);
                Reply::text(204, "")
            }
            ("GET", ["assets"]) => {
                let all: Vec<Value> = self.releases[at].assets.iter().map(|a| a.json(base)).collect();
                Reply::json(200, &page(request, all).0)
            }
            ("POST", ["assets"]) => self.upload(request, at, base),
            (method, ["assets", id]) => {
                let id = id.parse::<u64>().ok();
                let assets = &mut self.releases[at].assets;
                let Some(index) = assets.iter().position(|a| Some(a.id) == id) else {
                    return not_found();
                };
                match method {
                    "GET" => Reply::json(200, &assets[index].json(base)),
                    "DELETE" => {
                        assets.remove(index);
                        Reply::text(204, "")
                    }
                    "PATCH" => {
                        let Ok(wanted) = serde_json::from_slice::<Value>(&request.body) else {
                            return message(422, "Failed to parse body");
                        };
                        assets[index].name = wanted["name"].as_str().expect("a name").to_owned();
                        Reply::json(201, &assets[index].json(base))
                    }
                    _ => message(405, "Method Not Allowed"),
                }
            }
            _ => not_found(),
        }
    }

    /// A file of a visible release, as its page links to it.
    fn download_by_name(&self, rest: &str) -> Reply {
        let (tag, name) = rest.split_once('/').unwrap_or((rest, ""));
        let release = self
            .releases
            .iter()
            .find(|release| release.tag == tag && !release.draft);
        let asset = release.and_then(|release| release.assets.iter().find(|asset| asset.name == name));
        match asset {
            Some(asset) => Reply {
                body: asset.content.clone(),
                ..Reply::text(200, "")
            },
            None => Reply::text(404, "Not Found\n"),
        }
    }

    fn list(&self, request: &Received, authorised: bool, base: &str) -> Reply {
        let wanted = request.parameter("draft").map(|text| text == "true");
        let shown = |r: &&StoredRelease| (authorised || !r.draft) && wanted.is_none_or(|draft| r.draft == draft);
        let all: Vec<Value> = self.releases.iter().rev().filter(shown).map(|r| r.json(base)).collect();
        let (page, total) = page(request, all);
        Reply::json(200, &page).with("X-Total-Count", total)
    }

    fn create(&mut self, request: &Received, base: &str) -> Reply {
        let Ok(wanted) = serde_json::from_slice::<Value>(&request.body) else {
            return message(422, "Failed to parse body");
        };
        let text = |key: &str| wanted[key].as_str().unwrap_or_default().to_owned();
        let (tag, commit) = (text("tag_name"), text("target_commitish"));
        if self.empty {
            return message(422, "repo is empty");
        }
        if self.releases.iter().any(|r| r.tag.eq_ignore_ascii_case(&tag)) {
            return message(409, "Release is has no Tag");
        }
        if commit != COMMIT && commit != "main" {
            return message(404, "object does not exist");
        }
        let id = self.number();
        let release = StoredRelease {
            id,
            tag,
            commit,
            title: text("name"),
            notes: text("body"),
            draft: wanted["draft"] == true,
            assets: Vec::new(),
        };
        if !release.draft {
            self.tags.push((release.tag.clone(), COMMIT.to_owned()));
        }
        let answer = Reply::json(201, &release.json(base));
        self.releases.push(release);
        answer
    }

    fn edit(&mut self, request: &Received, at: usize, base: &str) -> Reply {
        let Ok(wanted) = serde_json::from_slice::<Value>(&request.body) else {
            return message(422, "Failed to parse body");
        };
        let tag = self.releases[at].tag.clone();
        if wanted["draft"] == false && self.releases[at].draft {
            let is_protected = |pattern: &String| tag.starts_with(pattern.trim_end_matches('*'));
            if self.protected.iter().any(is_protected) {
                return message(500, "");
            }
            if self.tags.iter().all(|(name, _)| *name != tag) {
                self.tags.push((tag, self.releases[at].commit.clone()));
            }
            self.releases[at].draft = false;
        }
        for (key, field) in [("name", 0), ("body", 1)] {
            if let Some(text) = wanted[key].as_str() {
                let release = &mut self.releases[at];
                let place = if field == 0 {
                    &mut release.title
                } else {
                    &mut release.notes
                };
                *place = text.to_owned();
            }
        }
        Reply::json(200, &self.releases[at].json(base))
    }

    fn upload(&mut self, request: &Received, at: usize, base: &str) -> Reply {
        let kind = request.field("content-type").unwrap_or_default().to_owned();
        let (file, mut content) = match kind.strip_prefix("multipart/form-data; boundary=") {
            Some(boundary) => match part(&request.body, boundary.trim_matches('"')) {
                Some(found) => found,
                None => return message(500, "http: no such file"),
            },
            // Versions before 1.22 know forms only.
            None if self.version.starts_with("1.21") => return message(500, "request Content-Type isn't multipart"),
            None => (String::new(), request.body.clone()),
        };
        let name = request.parameter("name").filter(|n| !n.is_empty()).unwrap_or(file);
        if name.is_empty() {
            return message(400, "Could not determine name of attachment.");
        }
        if content.len() as u64 > self.most {
            return message(413, &format!("content is too large: the limit is {} bytes", self.most));
        }
        if self.forbidden.is_some_and(|suffix| name.ends_with(suffix)) {
            return message(
                400,
                "This file cannot be uploaded or modified due to a forbidden file extension or type.",
            );
        }
        let cut = self.cut_uploads > 0;
        if cut {
            self.cut_uploads -= 1;
            content.truncate(content.len() / 2);
        }
        let id = self.number();
        let asset = StoredAsset {
            id,
            name,
            content,
            sent_as: kind.split(';').next().expect("a part").to_owned(),
        };
        let answer = Reply::json(201, &asset.json(base));
        self.releases[at].assets.push(asset);
        if cut { message(500, "unexpected EOF") } else { answer }
    }

    fn download(&self, uuid: &str, authorised: bool) -> Reply {
        let releases = self.releases.iter().filter(|r| authorised || !r.draft);
        let mut assets = releases.flat_map(|r| &r.assets);
        match (assets.find(|a| a.uuid() == uuid), &self.storage) {
            (None, _) => Reply::text(404, "Not Found\n"),
            (Some(_), Some(storage)) => Reply::text(303, "").with("Location", format!("{storage}/{uuid}?signature=x")),
            (Some(asset), None) => Reply {
                status: 200,
                fields: Vec::new(),
                body: asset.content.clone(),
            },
        }
    }

    fn repository(&self, authorised: bool, base: &str) -> Value {
        let may_push = authorised && self.may_push;
        json!({
            "id": 1, "name": "images", "full_name": "powernode/images", "owner": user(base), "empty": self.empty,
            "private": false, "archived": false, "default_branch": "main", "html_url": format!("{base}{REPOSITORY}"),
            "permissions": { "admin": false, "push": may_push, "pull": true },
        })
    }
}

const MOMENT: &str = "2026-11-29T12:00:00Z";

impl StoredRelease {
    fn json(&self, base: &str) -> Value {
        let (id, tag) = (self.id, &self.tag);
        let api = format!("{base}/api/v1/repos{REPOSITORY}/releases/{id}");
        let assets: Vec<Value> = self.assets.iter().map(|a| a.json(base)).collect();
        json!({
            "id": id, "tag_name": tag, "target_commitish": self.commit, "name": self.title, "body": self.notes,
            "url": api, "html_url": format!("{base}{REPOSITORY}/releases/tag/{tag}"), "upload_url": format!("{api}/assets"),
            "tarball_url": format!("{base}{REPOSITORY}/archive/{tag}.tar.gz"),
            "zipball_url": format!("{base}{REPOSITORY}/archive/{tag}.zip"),
            "draft": self.draft, "prerelease": false, "created_at": MOMENT, "published_at": MOMENT,
            "author": user(base), "assets": assets,
        })
    }
}

impl StoredAsset {
    pub(crate) fn uuid(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.id)
    }

    fn json(&self, base: &str) -> Value {
        json!({
            "id": self.id, "name": self.name, "size": self.content.len(), "download_count": 0, "created_at": MOMENT,
            "uuid": self.uuid(), "browser_download_url": format!("{base}/attachments/{}", self.uuid()),
        })
    }
}

fn user(base: &str) -> Value {
    json!({
        "id": 7, "login": "publisher", "login_name": "", "source_id": 0, "full_name": "", "email": "p@example.org",
        "avatar_url": format!("{base}/avatars/7"), "html_url": format!("{base}/publisher"), "language": "",
        "is_admin": false, "last_login": MOMENT, "created": MOMENT, "restricted": false, "active": true,
        "prohibit_login": false, "location": "", "website": "", "description": "", "visibility": "public",
        "followers_count": 0, "following_count": 0, "starred_repos_count": 0,
    })
}

fn message(status: u16, text: &str) -> Reply {
    Reply::json(
        status,
        &json!({ "message": text, "url": "https://gitea.example/api/swagger" }),
    )
}

fn not_found() -> Reply {
    Reply::json(
        404,
        &json!({ "errors": [], "message": "The target couldn't be found.", "url": "" }),
    )
}

/// The page that a request asks for, and the number of all entries.
fn page(request: &Received, all: Vec<Value>) -> (Value, usize) {
    let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
    let size = number("limit").unwrap_or(PAGE).clamp(1, PAGE);
    let skipped = (number("page").unwrap_or(1).max(1) - 1) * size;
    let total = all.len();
    let entries: Vec<Value> = all.into_iter().skip(skipped).take(size).collect();
    (entries.into(), total)
}

/// File name and content of the part `attachment` of a form.
fn part(body: &[u8], boundary: &str) -> Option<(String, Vec<u8>)> {
    let find = |from: usize, wanted: &[u8]| {
        let place = body[from..].windows(wanted.len()).position(|window| window == wanted);
        place.map(|place| from + place)
    };
    let begin = find(0, format!("--{boundary}\r\n").as_bytes())?;
    let head_end = find(begin, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&body[begin..head_end]).ok()?;
    let end = find(head_end, format!("\r\n--{boundary}--").as_bytes())?;
    let value = |key: &str| Some(head.split_once(key)?.1.split('"').next()?.to_owned());
    let wanted = value(" name=\"").is_some_and(|name| name == "attachment");
    wanted.then(|| {
        (
            value("filename=\"").unwrap_or_default(),
            body[head_end + 4..end].to_vec(),
        )
    })
}
