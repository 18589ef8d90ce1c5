//! What the cases share: the services, signers, and the programs that verify.

use crate::stage_tree::stage_tree;
use pnb::{
    http::{ClientOptions, HttpClient, HttpClock},
    sign::{ExpectedSigner, SignError, Signer, SigningConfig, TokenSource, TrustedRoot},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub(crate) const IDENTITY: &str = "https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1";
pub(crate) const ISSUER: &str = "https://git.test/api/actions";

/// Runs node in a root that is the tree of its package, which it needs at its own place. Its network is that of the tests.
const ENTER: &str = r#"
set -eu
PATH=$PATH:/usr/sbin:/sbin
root=$1 tree=$2
for place in usr dev proc tmp script modules state; do mkdir -p "$root/$place"; done
for name in lib lib64 bin; do ln -s "usr/$name" "$root/$name"; done
mount --bind "$tree/usr" "$root/usr"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$3" "$root/script"
mount --bind "$4" "$root/modules"
mount --bind "$5" "$root/state"
exec chroot "$root" /usr/bin/node /script/services.cjs /state
"#;

/// The running services. They end when their standard input does, which is with the tests.
pub(crate) struct Services {
    _process: Child,
    state: PathBuf,
    port: u16,
}

fn tools() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| stage_tree("publish-tools"))
}

fn tools_next() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| stage_tree("publish-tools-next"))
}

pub(crate) fn services() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let installed = Command::new("sh")
            .arg(here.join("tests/publish/install.sh"))
            .arg(scratch)
            .output()
            .expect("sh starts");
        assert!(
            installed.status.success(),
            "{}",
            String::from_utf8_lossy(&installed.stderr)
        );
        // Left behind by the tests, because the services use it until they end; the next run begins anew.
        let own = scratch.join("sign-services");
        if own.is_dir() {
            fs::remove_dir_all(&own).expect("removed");
        }
        fs::create_dir(&own).expect("made");
        let state = own.join("state");
        fs::create_dir(&state).expect("made");
        fs::create_dir(own.join("root")).expect("made");
        let mut process = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", ENTER, "sh"])
            .arg(own.join("root"))
            .arg(tools())
            .arg(here.join("tests/sign"))
            .arg(scratch.join("publish-npm/node_modules"))
            .arg(&state)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("NODE_PATH", "/modules")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut said = String::new();
        let output = process.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut said).expect("readable");
        assert_eq!(said, "ready\n", "the services do not start");
        let port = fs::read_to_string(state.join("port")).expect("written");
        let port = port.parse().expect("a port");
        Services {
            _process: process,
            state,
            port,
        }
    })
}

impl Services {
    pub(crate) fn url(&self, place: &str) -> String {
        format!("http://127.0.0.1:{}{place}", self.port)
    }

    pub(crate) fn root_file(&self) -> PathBuf {
        self.state.join("trusted_root.json")
    }

    pub(crate) fn root(&self) -> TrustedRoot {
        let text = fs::read(self.root_file()).expect("written");
        TrustedRoot::parse(&text, "trusted_root.json").expect("a root")
    }

    /// The claims of the tokens that the server of the job gives out.
    pub(crate) fn set_claims(&self, claims: &Value) {
        let aside = self.state.join("claims.new");
        fs::write(&aside, claims.to_string()).expect("written");
        fs::rename(aside, self.state.join("claims")).expect("renamed");
    }

    /// The requests so far that contain `part`.
    pub(crate) fn requests(&self, part: &str) -> usize {
        let url = self.url("/requests");
        let mut answer = ureq::get(&url).call().expect("answers");
        let text = answer.body_mut().read_to_string().expect("text");
        let lines: Vec<String> = serde_json::from_str(&text).expect("JSON");
        lines.iter().filter(|line| line.contains(part)).count()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the tokens of the tests expire after now")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("small")
}

/// A clock that a test moves.
#[derive(Debug)]
pub(crate) struct MovedClock {
    begin: Instant,
    ahead: AtomicI64,
}

impl MovedClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            ahead: AtomicI64::new(0),
        })
    }

    pub(crate) fn ahead(&self, seconds: i64) {
        self.ahead.store(seconds, Ordering::SeqCst);
    }
}

impl HttpClock for MovedClock {
    fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    fn unix(&self) -> i64 {
        now() + self.ahead.load(Ordering::SeqCst)
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time.min(Duration::from_millis(10)));
    }
}

pub(crate) fn claims() -> Value {
    json!({"iss": ISSUER, "sub": IDENTITY, "aud": "sigstore", "exp": now() + 900, "iat": now()})
}

/// A token with these claims, and a signature that nobody checks.
pub(crate) fn token(claims: &Value) -> String {
    let part = |text: &str| token_part(text.as_bytes());
    format!(
        "{}.{}.{}",
        part("{\"alg\":\"RS256\"}"),
        part(&claims.to_string()),
        part("signature of the token")
    )
}

/// Bytes in base64url.
pub(crate) fn token_part(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(bits);
        for digit in 0..=chunk.len() {
            let at = (bits >> (18 - 6 * digit)) & 63;
            out.push(char::from(DIGITS[at as usize]));
        }
    }
    out
}

/// Bytes in base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = token_part(bytes).replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// Where each service is.
#[derive(Clone)]
pub(crate) struct Places {
    pub(crate) authority: String,
    pub(crate) log: String,
    pub(crate) version: u32,
    pub(crate) stamped: bool,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            authority: services().url(""),
            log: services().url(""),
            version: 1,
            stamped: false,
        }
    }
}

impl Places {
    pub(crate) fn config(&self) -> SigningConfig {
        let service = |url: &str, version: u32| {
            json!([{"url": url, "majorApiVersion": version, "operator": "test",
                "validFor": {"start": "2020-01-01T00:00:00Z"}}])
        };
        let stampers = match self.stamped {
            true => service(&services().url("/api/v1/timestamp"), 1),
            false => json!([]),
        };
        let text = json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": service(&self.authority, 1),
            "oidcUrls": service(ISSUER, 1),
            "rekorTlogUrls": service(&self.log, self.version),
            "tsaUrls": stampers,
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaConfig": {"selector": "ANY"},
        });
        SigningConfig::parse(text.to_string().as_bytes(), "signing_config.json").expect("a configuration")
    }

    pub(crate) fn signer(&self, source: TokenSource, clock: Arc<MovedClock>) -> Result<Signer, SignError> {
        let options = ClientOptions {
            silence: Duration::from_millis(1500),
            tries: 2,
            ..ClientOptions::default()
        };
        let http = HttpClient::with_clock(options, clock).expect("a client");
        Signer::new(http, self.config(), &services().root(), expected(), source)
    }
}

/// A signer with a valid token.
pub(crate) fn signer(places: &Places) -> Signer {
    let source = TokenSource::Variable(token(&claims()));
    places.signer(source, MovedClock::new()).expect("a signer")
}

pub(crate) fn expected() -> ExpectedSigner {
    ExpectedSigner {
        identity: IDENTITY.to_owned(),
        issuer: ISSUER.to_owned(),
    }
}

/// The message of an error with its causes.
pub(crate) fn said(error: &SignError) -> String {
    let text = pnb::model::chain(error);
    text.replace(&services().port.to_string(), "PORT")
}

/// What `pnb verify-signature` prints about `path`, and its exit code.
pub(crate) fn pnb(path: &Path, options: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.args([
        "verify-signature",
        path.file_name().expect("named").to_str().expect("UTF-8"),
    ]);
    command.current_dir(path.parent().expect("a directory"));
    let mut given = vec!["--identity", IDENTITY, "--issuer", ISSUER, "--trusted-root"];
    let root = services().root_file();
    given.push(root.to_str().expect("UTF-8"));
    // An option that the caller gives stands in place of the one above.
    for pair in given.chunks(2).filter(|pair| !options.contains(&pair[0])) {
        command.args(pair);
    }
    let done = command
        .args(options)
        .env_remove("PNB_TRUSTED_ROOT")
        .output()
        .expect("pnb starts");
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    (done.status.code().expect("not killed"), without_times(&text))
}

/// The text with `TIME` for each time and `INDEX` for the number of an entry.
pub(crate) fn without_times(text: &str) -> String {
    let words = |line: &str| -> String {
        let words: Vec<String> = line.split(' ').map(without_time).collect();
        let mut out = words.join(" ");
        if let Some((start, rest)) = out.split_once(", entry ")
            && let Some((_, end)) = rest.split_once(" of the log")
        {
            out = format!("{start}, entry INDEX of the log{end}");
        }
        out
    };
    let lines: Vec<String> = text.lines().map(words).collect();
    lines.join("\n")
}

fn without_time(word: &str) -> String {
    let bytes = word.as_bytes();
    let is_time = bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && word.contains('Z');
    match is_time {
        true => format!("TIME{}", word.split_once('Z').map_or("", |(_, end)| end)),
        false => word.to_owned(),
    }
}

/// A cosign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cosign {
    Two,
    Three,
}

impl Cosign {
    pub(crate) const BOTH: [Self; 2] = [Self::Two, Self::Three];

    pub(crate) fn command(self) -> Command {
        let tree = match self {
            Self::Two => tools(),
            Self::Three => tools_next(),
        };
        let (loader, libraries) = match std::env::consts::ARCH {
            "x86_64" => ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
            _ => ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
        };
        let mut command = match tree.join(loader).is_file() {
            true => {
                let mut command = Command::new(tree.join(loader));
                command.arg("--library-path").arg(tree.join(libraries));
                command.arg(tree.join("usr/bin/cosign"));
                command
            }
            false => Command::new(tree.join("usr/bin/cosign")),
        };
        command
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("TUF_ROOT", "/nonexistent");
        command
    }

    /// Whether it accepts the bundle as a signature of the file, or as a statement of this type, and what it says.
    pub(crate) fn accepts(
        self,
        file: &Path,
        bundle: &Path,
        statement: Option<&str>,
        options: &[&str],
    ) -> (bool, String) {
        let mut command = self.command();
        match statement {
            None => command.arg("verify-blob"),
            Some(kind) => command.args(["verify-blob-attestation", "--type", kind]),
        };
        if self == Self::Two {
            command.arg("--new-bundle-format");
        }
        command
            .arg("--bundle")
            .arg(bundle)
            .arg("--trusted-root")
            .arg(services().root_file());
        let given = ["--certificate-identity", IDENTITY, "--certificate-oidc-issuer", ISSUER];
        for pair in given.chunks(2).filter(|pair| !options.contains(&pair[0])) {
            command.args(pair);
        }
        let done = command.args(options).arg(file).output().expect("cosign starts");
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.success(), text)
    }
}

/// The SHA-256 of bytes.
pub(crate) fn hex_of(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
