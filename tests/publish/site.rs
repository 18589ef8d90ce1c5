//! Everything that a whole publication needs: artifacts, a registry behind a proxy, doubles of Gitea and of the platform, the services that
//! sign; and `pnb`, which is run as a program.

use crate::{
    artifacts::write_artifacts,
    docker_registry::DockerRegistry,
    fault_proxy::{Asked, FaultProxy},
    gitea::{COMMIT, Gitea, TOKEN},
    platform::{KEY, PATH, Platform},
    publish_tools::publish_tool,
    sigstore::{Cosign, IDENTITY, ISSUER, Places, claims, services, token},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
};
use tempfile::TempDir;

/// The platform's name of the disk.
pub(crate) const NAME: &str = "ubuntu-24.04-amd64";
/// The tag of the release.
pub(crate) const TAG: &str = "v1";
/// What pnb may be asked for, beside the OCI image.
pub(crate) const WHOLE: &[&str] = &["disk", "release", "webhooks"];

pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) registry: DockerRegistry,
    pub(crate) proxy: FaultProxy,
    pub(crate) gitea: Gitea,
    pub(crate) platform: Platform,
    /// Where the services are that sign.
    pub(crate) places: Places,
    /// The first part of the paths of this site's requests to them.
    own: String,
}

/// The end of a run of pnb.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Self {
            // A program that a signal ended has no code.
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// The commands that pnb names as the next ones.
    pub(crate) fn next(&self) -> Vec<String> {
        let lines: Vec<&str> = self.err.lines().collect();
        let first = lines.iter().rposition(|line| line.starts_with("next: "));
        let first = first.unwrap_or_else(|| panic!("no next command:\n{}", self.err));
        lines[first..].iter().map(|line| line[6..].to_owned()).collect()
    }

    /// Fails unless pnb ended with this code and said this.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, said: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for part in said {
            assert!(
                self.out.contains(part) || self.err.contains(part),
                "lacks {part:?}:\n{}{}",
                self.out,
                self.err
            );
        }
        self
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let own = format!("/caller-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let registry = DockerRegistry::start(false);
        let site = Self {
            proxy: FaultProxy::new(registry.address),
            registry,
            gitea: Gitea::start(),
            platform: Platform::start(),
            places: Places {
                authority: services().url(&own),
                log: services().url(&own),
                ..Places::default()
            },
            own,
            dir,
        };
        write_artifacts(&site.images());
        let secret = |name: &str, text: &str| {
            let path = site.dir.path().join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
        };
        secret("gitea.token", TOKEN);
        secret("identity.token", &token(&claims()));
        secret("webhook.url", &site.platform.web.url(PATH));
        secret("webhook.key", KEY);
        let hooks = format!(
            "[[webhook]]\nplatform-name = \"{NAME}\"\nurl-file = \"webhook.url\"\nsecret-file = \"webhook.key\"\n\
             firmware-ref = \"firmware 7\"\n"
        );
        secret("webhooks.toml", &hooks);
        fs::write(site.dir.path().join("ca.pem"), site.platform.authority.pem()).expect("written");
        site
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    /// The journal, which must be the only one; a path without a file before there is one.
    pub(crate) fn journal(&self) -> PathBuf {
        let entries = walkdir::WalkDir::new(self.dir.path().join("store/publish")).sort_by_file_name();
        // The directory is not there before the first publication.
        let files = entries
            .into_iter()
            .filter_map(Result::ok)
            .map(|entry| entry.into_path());
        let found: Vec<PathBuf> = files
            .filter(|file| file.extension().is_some_and(|e| e == "jsonl"))
            .collect();
        match &found[..] {
            [] => self.dir.path().join("store/publish/none"),
            [one] => one.clone(),
            more => unreachable!("{more:?}"),
        }
    }

    /// The lines of the journal.
    pub(crate) fn journal_lines(&self) -> usize {
        fs::read_to_string(self.journal()).map_or(0, |text| text.lines().count())
    }

    pub(crate) fn image_repository(&self) -> String {
        format!("{}/powernode/os", self.proxy.address)
    }

    pub(crate) fn disk_repository(&self) -> String {
        format!("{}/powernode/disk-images/{NAME}", self.proxy.address)
    }

    /// `pnb` in the scratch directory, with its own store and nothing of the environment.
    pub(crate) fn pnb(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
        command.arg("--store").arg(self.dir.path().join("store"));
        command.current_dir(self.dir.path());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/nonexistent");
        command
    }

    /// The options of servers: the tests' own authority, and the servers that have no TLS.
    fn servers(&self, command: &mut Command) {
        command.args(["--ca-file", "ca.pem"]);
        let mut plain = vec![self.proxy.address.to_string()];
        let urls = [
            self.gitea.url(),
            services().url("/"),
            self.places.authority.clone(),
            self.places.log.clone(),
        ];
        for url in urls {
            let host = url.trim_start_matches("http://").split('/').next().expect("a part");
            plain.push(host.to_owned());
        }
        for host in plain {
            command.arg("--plain-http").arg(host);
        }
    }

    /// `pnb publish` of the image and of these parts of [`WHOLE`], signed.
    pub(crate) fn publish(&self, parts: &[&str], more: &[&str]) -> Command {
        let mut command = self.unsigned(parts, more);
        let config = self.dir.path().join("signing_config.json");
        fs::write(&config, self.places.config_text()).expect("written");
        command.arg("--signing-config").arg(config);
        command.arg("--trusted-root").arg(services().root_file());
        command.args(["--identity", IDENTITY, "--issuer", ISSUER]);
        command.args(["--identity-token-file", "identity.token"]);
        command
    }

    /// The same without the options of signing.
    pub(crate) fn unsigned(&self, parts: &[&str], more: &[&str]) -> Command {
        let mut command = self.pnb();
        command.args(more.iter().take_while(|option| **option == "--json"));
        command.args(["publish", "images"]);
        command.arg("--to").arg(format!("registry:{}", self.image_repository()));
        if parts.contains(&"disk") {
            let prefix = format!("{}/powernode/disk-images", self.proxy.address);
            command.args(["--disk-images", &prefix, "--platform", &format!("raw/amd64={NAME}")]);
        }
        if parts.contains(&"release") {
            command.args(["--release", TAG, "--gitea", &self.gitea.url()]);
            command.args(["--gitea-token-file", "gitea.token"]);
        }
        if parts.contains(&"webhooks") {
            command.args(["--webhooks", "webhooks.toml"]);
        }
        self.servers(&mut command);
        command.args(more.iter().skip_while(|option| **option == "--json"));
        command
    }

    /// Types a command into a shell in the scratch directory.
    pub(crate) fn typed(&self, line: &str) -> Ended {
        let program = Path::new(env!("CARGO_BIN_EXE_pnb")).parent().expect("a directory");
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(self.dir.path()).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", program.display()));
        self.run(command.env("HOME", "/nonexistent"))
    }

    pub(crate) fn run(&self, command: &mut Command) -> Ended {
        Ended::of(&command.output().expect("starts"))
    }

    /// The certificates and the entries of the log that this site has asked for.
    pub(crate) fn signatures(&self) -> (usize, usize) {
        let count = |path: &str| services().requests(&format!("{}{path}", self.own));
        (count("/api/v2/signingCert"), count("/api/v1/log/entries"))
    }

    /// A whole publication.
    pub(crate) fn whole(&self, more: &[&str]) -> Ended {
        self.run(&mut self.publish(WHOLE, more))
    }

    /// `pnb verify-signature` with these options in place of the right ones.
    pub(crate) fn verify(&self, what: &str, options: &[&str]) -> Ended {
        let mut command = self.pnb();
        command.args(["verify-signature", what]);
        let root = services().root_file();
        let root = root.to_str().expect("UTF-8");
        let given = ["--identity", IDENTITY, "--issuer", ISSUER, "--trusted-root", root];
        for pair in given.chunks(2).filter(|pair| !options.contains(&pair[0])) {
            command.args(pair);
        }
        self.servers(&mut command);
        self.run(command.args(options))
    }

    /// What a cosign says to `verify` or `verify-attestation` of an image.
    pub(crate) fn cosign(&self, cosign: Cosign, verb: &str, image: &str, identity: &str) -> (bool, String) {
        let mut command = cosign.command();
        command.arg(verb);
        if cosign == Cosign::Two {
            for (variable, file) in self.keys() {
                command.env(variable, file);
            }
            // Of version 2, `verify` knows its own signatures only.
            match verb {
                "verify" => command.arg("--offline"),
                _ => command
                    .arg("--new-bundle-format")
                    .arg("--trusted-root")
                    .arg(services().root_file()),
            };
        } else {
            command.arg("--trusted-root").arg(services().root_file());
        }
        if verb == "verify-attestation" {
            command.args(["--type", "slsaprovenance1"]);
        }
        command.args(["--allow-http-registry", "--certificate-identity", identity]);
        command.args(["--certificate-oidc-issuer", ISSUER, image]);
        let done = command.output().expect("cosign starts");
        let said = [&done.stdout[..], &done.stderr[..]].concat();
        (done.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The keys of the trusted root in the files that cosign 2 wants in its environment.
    fn keys(&self) -> [(&'static str, PathBuf); 3] {
        let text = fs::read(services().root_file()).expect("written");
        let root: Value = serde_json::from_slice(&text).expect("JSON");
        let write = |name: &str, kind: &str, value: &Value| {
            let text = value["rawBytes"].as_str().expect("base64");
            let path = self.dir.path().join(name);
            fs::write(&path, format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")).expect("written");
            path
        };
        let authority = &root["certificateAuthorities"][0]["certChain"]["certificates"][0];
        [
            ("SIGSTORE_ROOT_FILE", write("root.pem", "CERTIFICATE", authority)),
            (
                "SIGSTORE_REKOR_PUBLIC_KEY",
                write("log.pem", "PUBLIC KEY", &root["tlogs"][0]["publicKey"]),
            ),
            (
                "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE",
                write("ct.pem", "PUBLIC KEY", &root["ctlogs"][0]["publicKey"]),
            ),
        ]
    }

    /// Copies an image with all that it is made of into a directory with skopeo, past the proxy. Returns the manifest.
    pub(crate) fn pull(&self, repository: &str, to: &Path) -> Value {
        let from = repository.replace(&self.proxy.address.to_string(), &self.registry.address.to_string());
        let mut command = publish_tool("skopeo");
        command.args(["--insecure-policy", "copy", "--src-tls-verify=false", "--all"]);
        command
            .arg(format!("docker://{from}"))
            .arg(format!("dir:{}", to.display()));
        let done = command.output().expect("skopeo starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&fs::read(to.join("manifest.json")).expect("written")).expect("JSON")
    }

    /// The tags of a repository, sorted, as the registry lists them.
    pub(crate) fn tags(&self, name: &str) -> Vec<String> {
        let url = format!("http://{}/v2/{name}/tags/list", self.registry.address);
        let Ok(mut answer) = ureq::get(&url).call() else {
            return Vec::new();
        };
        let text = answer.body_mut().read_to_string().expect("text");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let tags = value["tags"].as_array().cloned().unwrap_or_default();
        let mut tags: Vec<String> = tags.iter().map(|tag| tag.as_str().expect("text").to_owned()).collect();
        tags.sort();
        tags
    }

    /// The tags that people use: those of the image and of the disk, without those that belong to a digest.
    pub(crate) fn final_tags(&self) -> Vec<String> {
        let names = ["powernode/os".to_owned(), format!("powernode/disk-images/{NAME}")];
        let tags = names
            .iter()
            .flat_map(|name| self.tags(name).into_iter().map(move |tag| format!("{name}:{tag}")));
        tags.filter(|tag| !tag.contains(":sha256-")).collect()
    }

    /// The final tags of a whole publication.
    pub(crate) fn wanted_tags() -> [String; 3] {
        [
            format!("powernode/os:{COMMIT}"),
            format!("powernode/os:{TAG}"),
            format!("powernode/disk-images/{NAME}:{COMMIT}"),
        ]
    }

    /// The manifests that refer to this one, as the tag of a registry without the API lists them.
    pub(crate) fn referrers(&self, name: &str, digest: &str) -> Vec<Value> {
        let value = self.manifest(name, &digest.replace(':', "-"));
        value["manifests"].as_array().cloned().unwrap_or_default()
    }

    /// A manifest of the registry, past the proxy; null if it is not there.
    pub(crate) fn manifest(&self, name: &str, reference: &str) -> Value {
        let url = format!("http://{}/v2/{name}/manifests/{reference}", self.registry.address);
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
        let Ok(mut answer) = ureq::get(&url).header("Accept", accept).call() else {
            return Value::Null;
        };
        let text = answer.body_mut().read_to_string().expect("text");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The digest of the index that the tag of the commit names.
    pub(crate) fn index(&self) -> String {
        let url = format!("http://{}/v2/powernode/os/manifests/{COMMIT}", self.registry.address);
        let accept = "application/vnd.oci.image.index.v1+json";
        let answer = ureq::get(&url).header("Accept", accept).call().expect("there");
        let digest = answer.headers().get("docker-content-digest").expect("stated");
        digest.to_str().expect("text").to_owned()
    }

    /// The requests that change a repository; a login that is tried with an upload that is given up again is none.
    pub(crate) fn writes(log: &[Asked]) -> Vec<String> {
        let changes = |asked: &&Asked| matches!(asked.method.as_str(), "PUT" | "POST" | "PATCH");
        log.iter()
            .filter(changes)
            .map(|asked| format!("{} {}", asked.method, asked.path))
            .collect()
    }

    /// Fails unless the publication is whole and nothing is there twice.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        let mut tags = self.final_tags();
        tags.sort();
        let mut wanted = Self::wanted_tags();
        wanted.sort();
        assert_eq!(tags, wanted);
        let state = self.gitea.state().clone();
        assert_eq!(state.releases.len(), 1);
        assert!(!state.releases[0].draft);
        assert_eq!(state.tags, [(TAG.to_owned(), COMMIT.to_owned())]);
        assert_eq!(state.names(TAG), self.wanted_assets());
        assert_eq!(self.platform.publications().len(), 1);
        let index = self.index();
        let manifest = self.manifest("powernode/os", &index);
        let below = manifest["manifests"].as_array().expect("two").iter();
        let below = below.map(|entry| entry["digest"].as_str().expect("text").to_owned());
        for (digest, referrers) in [(index.clone(), 1)].into_iter().chain(below.map(|digest| (digest, 3))) {
            let found = self.referrers("powernode/os", &digest);
            assert_eq!(found.len(), referrers, "{digest}: {found:#?}");
            let legacy = self.manifest("powernode/os", &format!("{}.sig", digest.replace(':', "-")));
            assert_eq!(legacy["layers"].as_array().map(Vec::len), Some(1), "{legacy:#?}");
        }
    }

    /// The names of the release's files, from the artifacts.
    pub(crate) fn wanted_assets(&self) -> Vec<String> {
        let mut names = vec!["SHA256SUMS".to_owned()];
        for (artifact, files) in [("oci/amd64", 4), ("oci/arm64", 4), ("raw/amd64", 5)] {
            let before = names.len();
            let sums = fs::read_to_string(self.images().join(artifact).join("SHA256SUMS")).expect("written");
            let listed = sums.lines().map(|line| line.split_whitespace().nth(1).expect("a name"));
            for name in listed.chain(["SHA256SUMS"]).filter(|name| !name.starts_with("oci/")) {
                names.push(format!("{}-{name}", artifact.replace('/', "-")));
            }
            assert_eq!(names.len() - before, files, "{names:?}");
        }
        let signed: Vec<String> = names.iter().map(|name| format!("{name}.sigstore.json")).collect();
        names.extend(signed);
        names.sort();
        names
    }
}
