//! BuildGrid: a scheduler with PostgreSQL and BuildBox's workers, and a cache alone with tokens or certificates. `install.sh` installs
//! BuildGrid below the target directory; PostgreSQL is the machine's own.

use crate::{
    client::{Papers, RemoteClient},
    engine::{hosttools, remote_tool_on},
    process::{READY, ServerProcess, free_address, wait_until},
    tls::Authority,
};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nix::{
    sys::signal::Signal,
    unistd::{Uid, User},
};
use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::chown, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The secret of the tokens.
const SECRET: &str = "a secret of the tests of remote caches";
/// The properties that an action may ask for.
const PROPERTIES: &str = "[ISA, OSFamily, pnb-sandbox, pnb-builder, kvm]";
/// The calls of a client that only reads, by BuildGrid's names for them.
const READING: &str = "[GetCapabilities, GetActionResult, FindMissingBlobs, BatchReadBlobs, GetTree, Read]";
/// Seconds without a word from a worker until its actions are given to another.
pub(crate) const SILENCE: u64 = 10;

/// The directory of BuildGrid's programs.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/remote/install.sh");
        let done = Command::new("sh").arg(script).arg(scratch).output().expect("starts");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}: {said}");
        scratch.join("remote-python/bin")
    })
}

/// The command of BuildGrid, without the test's environment.
fn bgd(home: &Path) -> Command {
    let mut command = Command::new(programs().join("bgd"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home);
    command
}

/// PostgreSQL on a socket in a directory of its own, which its user can reach; it ends with the value.
pub(crate) struct Postgres {
    pub(crate) process: ServerProcess,
    directory: tempfile::TempDir,
}

impl Postgres {
    fn start(log: &Path) -> Self {
        // The name of a socket has at most 107 bytes.
        let directory = tempfile::Builder::new().prefix("pnb-postgres-").tempdir_in("/tmp");
        let directory = directory.expect("scratch");
        // It refuses to run as root.
        let user = Uid::effective().is_root().then(|| {
            let user = User::from_name("postgres").expect("readable");
            user.expect("the package postgresql has made its user")
        });
        if let Some(user) = &user {
            chown(directory.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("given");
        }
        let command = |program: &str| {
            let mut command = Command::new(newest_postgres().join(program));
            command
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("LC_ALL", "C.UTF-8");
            command.current_dir(directory.path());
            if let Some(user) = &user {
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
            command
        };
        let data = directory.path().join("data");
        let mut make = command("initdb");
        make.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "-D",
        ]);
        let made = make.arg(&data).output().expect("starts");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut serve = command("postgres");
        serve.arg("-D").arg(&data).arg("-k").arg(directory.path());
        serve.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        let mut process = ServerProcess::start("postgres", &mut serve, log);
        let socket = directory.path().join(".s.PGSQL.5432");
        let connected = wait_until(READY, || process.has_ended() || UnixStream::connect(&socket).is_ok());
        assert!(connected && !process.has_ended(), "postgres: {}", process.log());
        Self { process, directory }
    }

    /// As SQLAlchemy has it. `postgresql://` alone is another driver since its version 2.1, with which BuildGrid's answers never come.
    fn url(&self) -> String {
        format!(
            "postgresql+psycopg2://postgres@/postgres?host={}",
            self.directory.path().display()
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed, it would leave shared memory behind; with SIGTERM it waits for its clients.
        self.process.stop_by(Signal::SIGINT);
    }
}

/// The directory of the newest PostgreSQL of the machine.
fn newest_postgres() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the greatest is taken")]
    let versions = fs::read_dir("/usr/lib/postgresql").expect("the package postgresql is installed");
    let versions = versions
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let newest = versions.max().expect("a version");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// A worker: its name and what it offers.
#[derive(Clone, Debug)]
pub(crate) struct WorkerOptions {
    pub(crate) name: String,
    /// Properties with their values, like `ISA` and `x86-64`.
    pub(crate) properties: Vec<(String, String)>,
    /// Actions at once.
    pub(crate) jobs: u32,
    /// The one processor of the machine on which it runs its actions; all unless set.
    pub(crate) processor: Option<u32>,
}

impl WorkerOptions {
    /// A worker of the kind of this machine that runs one action at a time.
    pub(crate) fn named(name: &str) -> Self {
        let isa = match pnb::model::Arch::host() {
            pnb::model::Arch::Amd64 => "x86-64",
            pnb::model::Arch::Arm64 => "aarch64",
        };
        let properties = [
            ("ISA", isa),
            ("OSFamily", "linux"),
            ("pnb-sandbox", "full"),
            ("pnb-builder", name),
        ];
        Self {
            name: name.to_owned(),
            properties: properties
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            jobs: 1,
            processor: None,
        }
    }
}

/// A scheduler with its workers; all end with the value.
pub(crate) struct BuildGrid {
    pub(crate) address: SocketAddr,
    pub(crate) directory: PathBuf,
    // Dropped in this order: workers before the scheduler, the database last.
    pub(crate) workers: Vec<(WorkerOptions, ServerProcess)>,
    pub(crate) scheduler: ServerProcess,
    pub(crate) _database: Postgres,
}

impl BuildGrid {
    /// Starts it with what it keeps and its logs below `directory`.
    pub(crate) fn start(directory: &Path, workers: &[WorkerOptions]) -> Self {
        Self::with_threads(directory, workers, 200)
    }

    /// The same with so many threads for the calls of clients and workers.
    pub(crate) fn with_threads(directory: &Path, workers: &[WorkerOptions], threads: u32) -> Self {
        let directory = directory.canonicalize().expect("a directory");
        let database = Postgres::start(&directory.join("postgres.log"));
        let migrated = bgd(&directory).args(["migrate", "apply"]).arg(database.url()).output();
        let migrated = migrated.expect("starts");
        let said = String::from_utf8_lossy(&migrated.stderr);
        assert!(migrated.status.success(), "bgd migrate: {said}");
        let (address, scheduler) = serve(&directory, &Papers::default(), |address| {
            scheduler_settings(address, &directory, &database.url(), threads)
        });
        let workers = workers.iter().map(|options| {
            let process = start_worker(&directory, address, options);
            (options.clone(), process)
        });
        Self {
            workers: workers.collect(),
            address,
            scheduler,
            _database: database,
            directory,
        }
    }

    /// The address as pnb has it.
    pub(crate) fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// The workers on which a process runs whose command line contains this text, by their numbers.
    pub(crate) fn running(&self, text: &str) -> Vec<usize> {
        let workers = self.workers.iter().enumerate();
        workers
            .filter(|(_, (_, process))| !process.running(text).is_empty())
            .map(|(number, _)| number)
            .collect()
    }

    /// Kills a worker and its actions, as a machine that loses power.
    pub(crate) fn kill_worker(&mut self, number: usize) {
        self.workers[number].1.kill();
    }

    /// Kills a worker and its runners, and nothing that those have started.
    pub(crate) fn kill_worker_alone(&mut self, number: usize) {
        self.workers[number].1.kill_with("buildbox-run-hosttools");
    }

    /// The processes below a worker whose command line contains this text.
    pub(crate) fn processes(&self, number: usize, text: &str) -> Vec<i32> {
        self.workers[number].1.running(text)
    }

    /// Starts a worker again that was killed.
    pub(crate) fn start_worker(&mut self, number: usize) {
        let (options, process) = &mut self.workers[number];
        assert!(process.has_ended(), "the worker {} runs", options.name);
        *process = start_worker(&self.directory, self.address, options);
    }

    /// Starts the workers again that have ended by themselves, as systemd does.
    pub(crate) fn keep_workers(&mut self) {
        for (options, process) in &mut self.workers {
            if process.has_ended() {
                *process = start_worker(&self.directory, self.address, options);
            }
        }
    }

    /// Stops the scheduler as an operator does, and starts it again at the same address. Actions that wait are in the database; what its
    /// action cache had is gone.
    pub(crate) fn restart_scheduler(&mut self) {
        self.scheduler.stop();
        let settings = self.directory.join("bgd.yml");
        self.scheduler = spawn_server(&self.directory, &settings);
        let url = self.url();
        assert!(
            ready(&url, &Papers::default(), &mut self.scheduler),
            "BuildGrid does not start again: {}",
            self.scheduler.log()
        );
    }
}

/// How a cache is protected.
pub(crate) enum Guard<'a> {
    /// By bearer tokens: the subject `reader` reads, the subject `writer` does everything.
    Tokens,
    /// By TLS, with a certificate of this authority.
    Tls(&'a Authority),
    /// By TLS, where the client needs a certificate of this authority too.
    MutualTls(&'a Authority),
}

/// BuildGrid as a cache alone, without a database; it ends with the value.
pub(crate) struct BuildGridCache {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    _process: ServerProcess,
}

impl BuildGridCache {
    /// Starts it with what it keeps and its log below `directory`.
    pub(crate) fn start(directory: &Path, guard: &Guard<'_>) -> Self {
        let directory = directory.canonicalize().expect("a directory");
        let own = |authority: &Authority, name: &str| {
            let (certificate, key) = authority.pair(name);
            let files = [
                ("server.pem", &certificate),
                ("server.key", &key),
                ("ca.pem", &authority.pem()),
            ];
            for (name, bytes) in files {
                fs::write(directory.join(name), bytes).expect("written");
            }
            (certificate, key)
        };
        let path = |name: &str| directory.join(name).display().to_string();
        let (papers, channel, authorization) = match guard {
            Guard::Tokens => {
                let acl = format!(
                    "'':\n  allow:\n    - {{subject: reader, requests: {READING}}}\n    - {{subject: writer}}\n"
                );
                fs::write(path("acl.yml"), acl).expect("written");
                fs::write(path("secret"), SECRET).expect("written");
                let papers = Papers {
                    token: Some(token("writer")),
                    ..Papers::default()
                };
                let authorization = format!(
                    "authorization:\n  method: jwt\n  secret: {}\n  algorithm: hs256\n  acl-config: {}\n",
                    path("secret"),
                    path("acl.yml")
                );
                (papers, "    insecure-mode: true\n".to_owned(), authorization)
            }
            Guard::Tls(authority) | Guard::MutualTls(authority) => {
                let pair = own(authority, "server");
                let mut channel = format!(
                    "    insecure-mode: false\n    credentials:\n      tls-server-cert: {}\n      tls-server-key: {}\n",
                    path("server.pem"),
                    path("server.key")
                );
                if matches!(guard, Guard::MutualTls(_)) {
                    channel.push_str(&format!("      tls-client-certs: {}\n", path("ca.pem")));
                }
                let papers = Papers {
                    authority: Some(authority.pem()),
                    identity: Some(pair),
                    token: None,
                };
                (papers, channel, String::new())
            }
        };
        let (address, process) = serve(&directory, &papers, |address| {
            let services = [
                "action-cache {cache: *results}",
                "cas {storage: *blobs}",
                "bytestream {storage: *blobs}",
            ];
            let services = services.map(|service| format!("      - !{service}\n")).concat();
            let head = format!("server:\n  - !channel\n    address: \"{address}\"\n{channel}{authorization}");
            let kept = kept_settings(&directory);
            format!("{head}{kept}instances:\n  - name: ''\n    services:\n{services}")
        });
        Self {
            address,
            scheme: if papers.authority.is_some() { "grpcs" } else { "grpc" },
            _process: process,
        }
    }

    /// The address as pnb has it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

/// A token for this subject, valid until 2099. BuildGrid wants an end in every token.
pub(crate) fn token(subject: &str) -> String {
    token_until(subject, 4_070_908_800)
}

/// A token for this subject with an end in seconds since 1970.
pub(crate) fn token_until(subject: &str, end: u64) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = serde_json::json!({ "sub": subject, "exp": end }).to_string();
    let text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Where blobs and results are.
fn kept_settings(directory: &Path) -> String {
    format!(
        "storages:\n  - !disk-storage &blobs\n    path: {}\n\
         caches:\n  - !lru-action-cache &results\n    storage: *blobs\n    max-cached-refs: 4096\n    allow-updates: true\n    \
         cache-failed-actions: false\n",
        directory.join("cas").display()
    )
}

fn scheduler_settings(address: SocketAddr, directory: &Path, database: &str, threads: u32) -> String {
    let kept = kept_settings(directory);
    format!(
        "thread-pool-size: {threads}\nserver:\n  - !channel\n    address: \"{address}\"\n    insecure-mode: true\n\
         connections:\n  - !sql-connection &sql\n    connection-string: {database}\n\
         {kept}\
         schedulers:\n  - !sql-scheduler &scheduler\n    sql: *sql\n    storage: *blobs\n    action-cache: *results\n    \
         property-set:\n      !dynamic-property-set\n      match-property-keys: {PROPERTIES}\n    \
         bot-session-keepalive-timeout: {SILENCE}\n    session-expiry-timer-interval: 2\n    \
         queue-timeout-job-max-age: {{seconds: 900}}\n    queue-timeout-period: {{seconds: 2}}\n\
         instances:\n  - name: ''\n    services:\n      - !action-cache {{cache: *results}}\n      \
         - !execution {{scheduler: *scheduler}}\n      - !cas {{storage: *blobs}}\n      - !bytestream {{storage: *blobs}}\n"
    )
}

/// Starts BuildGrid on a free port with these settings, and waits until it answers somebody with these papers.
fn serve(directory: &Path, papers: &Papers, settings: impl Fn(SocketAddr) -> String) -> (SocketAddr, ServerProcess) {
    let file = directory.join("bgd.yml");
    let scheme = if papers.authority.is_some() { "grpcs" } else { "grpc" };
    let mut log = String::new();
    // Another program may take the port in between; then the server ends at once, and another port is tried.
    for _ in 0..3 {
        let address = free_address();
        fs::write(&file, settings(address)).expect("written");
        let mut process = spawn_server(directory, &file);
        if ready(&format!("{scheme}://{address}"), papers, &mut process) {
            return (address, process);
        }
        log = process.log();
    }
    unreachable!("BuildGrid does not start: {log}");
}

fn spawn_server(directory: &Path, settings: &Path) -> ServerProcess {
    let mut command = bgd(directory);
    command.args(["server", "start", "-v"]).arg(settings);
    ServerProcess::start("bgd", &mut command, &directory.join("bgd.log"))
}

fn ready(url: &str, papers: &Papers, process: &mut ServerProcess) -> bool {
    let mut ended = false;
    let stated = wait_until(READY, || {
        ended = process.has_ended();
        ended || RemoteClient::connect_with(url, papers).is_ok_and(|client| client.capabilities().is_ok())
    });
    stated && !ended
}

pub(crate) fn start_worker(directory: &Path, address: SocketAddr, options: &WorkerOptions) -> ServerProcess {
    let own = directory.join(format!("worker-{}", options.name));
    let work = own.join("work");
    fs::create_dir_all(&work).expect("made");
    let mut command = remote_tool_on("buildbox-worker", options.processor);
    command.arg(format!("--bots-remote=http://{address}"));
    command.arg(format!("--cas-remote=http://{address}"));
    command.arg(format!("--buildbox-run={}", hosttools(&own).display()));
    // It passes everything of its environment to actions unless it is told not to.
    command.args(["--runner-arg=--disable-localcas", "--runner-arg=--clearenv"]);
    command.arg(format!("--runner-arg=--workspace-path={}", work.display()));
    for (name, value) in &options.properties {
        command.arg("--platform").arg(format!("{name}={value}"));
    }
    command.arg(format!("--concurrent-jobs={}", options.jobs));
    // A server that is restarted is waited for.
    command
        .args(["--max-wait-time=10", "--retry-limit=20"])
        .arg(&options.name);
    ServerProcess::start(
        &format!("buildbox-worker {}", options.name),
        &mut command,
        &own.join("log"),
    )
}
