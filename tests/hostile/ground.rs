//! The ground of the attacks: the program of the payloads, and a host with everything that they try to reach.

use crate::table::ATTACKS;
use nix::unistd::Uid;
use pnb::{
    model::{Epoch, RelPath, VerityDigest},
    sandbox::*,
    store::Content,
    verity::digest_bytes,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader},
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The program under test: beside the test program when that was copied for another user, else where cargo built it.
pub(crate) fn pnb() -> PathBuf {
    let beside = own_program().with_file_name("pnb-copied");
    if beside.exists() {
        beside
    } else {
        env!("CARGO_BIN_EXE_pnb").into()
    }
}

pub(crate) fn own_program() -> PathBuf {
    std::env::current_exe().expect("own path")
}

/// A directory that every user may enter.
pub(crate) fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("pnb-hostile")
        .tempdir()
        .expect("scratch");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    dir
}

/// The program of the payloads, and the directory that it lies in.
static PROGRAM: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();

/// Deletes the program of the payloads, which a static does not do by itself.
pub(crate) fn clean() {
    if let Some((dir, _)) = PROGRAM.get() {
        fs::remove_dir_all(dir).expect("deleted");
    }
}

/// The program of the payloads, compiled once from `attacks.c` and the table.
pub(crate) fn payloads() -> &'static Path {
    let (_, program) = PROGRAM.get_or_init(|| {
        let dir = scratch();
        let table: String = ATTACKS
            .iter()
            .map(|a| format!("{{\"{}\", {}}},\n", a.name, a.name.replace('-', "_")))
            .collect();
        fs::write(dir.path().join("attacks.h"), table).expect("written");
        fs::write(dir.path().join("bombs.h"), include_str!("bombs.h")).expect("written");
        let source = dir.path().join("attacks.c");
        fs::write(&source, include_str!("attacks.c")).expect("written");
        let program = dir.path().join("attacks");
        let done = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o"])
            .args([&program, &source])
            .output()
            .expect("cc runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (dir.keep(), program)
    });
    program
}

fn rel(path: &str) -> RelPath {
    path.parse().expect("a relative path")
}

pub(crate) fn mount(source: &Path, target: &str) -> Mount {
    Mount {
        source: source.to_owned(),
        target: rel(target),
        access: Access::ReadOnly,
    }
}

/// A spec that runs the payloads with `arguments`, in an otherwise empty root.
pub(crate) fn spec(arguments: &[&str]) -> Spec {
    let argv = [&["/inputs/attacks"], arguments]
        .concat()
        .iter()
        .map(|a| (*a).to_owned())
        .collect();
    Spec {
        mounts: vec![mount(payloads(), "inputs/attacks")],
        epoch: Epoch::new(1_750_000_000),
        env: [("INSIDE".to_owned(), "1".to_owned())].into(),
        limits: Limits {
            wall: Duration::from_secs(120),
            ..Limits::small()
        },
        ..Spec::new("hostile", RootFs::Empty, Workload::command(argv))
    }
}

pub(crate) fn output(path: &str, kind: OutputKind) -> OutputSpec {
    OutputSpec {
        name: "out".into(),
        path: rel(path),
        kind,
        allow_setid: false,
        allow_devices: false,
    }
}

/// Runs a spec with `helper`; returns its outcome, and what it printed.
pub(crate) fn run_with(helper: &Path, strict: bool, spec: &Spec) -> (Result<StageOutcome, SandboxError>, String) {
    let executor = Executor {
        helper: helper.to_owned(),
        strict,
    };
    let mut put = |_: &OutputSpec, _: bool, content: &mut dyn Content| -> io::Result<(VerityDigest, u64)> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok((digest_bytes(&bytes), bytes.len() as u64))
    };
    let mut log = Vec::new();
    let outcome = executor.run(spec, &mut put, &mut log);
    (outcome, String::from_utf8_lossy(&log).into_owned())
}

/// Runs a spec in the whole sandbox.
pub(crate) fn run(spec: &Spec) -> (Result<StageOutcome, SandboxError>, String) {
    run_with(&pnb(), true, spec)
}

/// A host with everything that the attacks try to reach, for one run.
pub(crate) struct HostGround {
    dir: tempfile::TempDir,
    holder: Child,
    facts: BTreeMap<&'static str, String>,
    /// Whether the host's file system keeps write hints.
    pub(crate) hints: bool,
    _tcp: TcpListener,
    _sockets: [UnixListener; 2],
}

impl HostGround {
    pub(crate) fn new() -> Self {
        let dir = scratch();
        let (inputs, outer) = (dir.path().join("inputs"), dir.path().join("outer"));
        for made in ["inputs", "outer", "outer/store", "outer/store/tmp"] {
            fs::create_dir(dir.path().join(made)).expect("made");
        }
        for name in ["f", "g", "locked", "watched"] {
            fs::write(inputs.join(name), "content").expect("written");
        }
        fs::copy(payloads(), inputs.join("set-id")).expect("copied");
        if is_root() {
            std::os::unix::fs::chown(inputs.join("set-id"), Some(7), Some(7)).expect("given");
        }
        fs::set_permissions(inputs.join("set-id"), fs::Permissions::from_mode(0o4755)).expect("mode");
        fs::write(outer.join("secret"), "secret").expect("written");
        fs::write(outer.join("open"), "open").expect("written");
        for (name, mode) in [("open", 0o666), ("store/tmp", 0o777)] {
            fs::set_permissions(outer.join(name), fs::Permissions::from_mode(mode)).expect("mode");
        }

        let tcp = TcpListener::bind("127.0.0.1:0").expect("listens");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let udp_port = udp.local_addr().expect("bound").port();
        udp.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        // Answers until nothing came for a minute.
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut question) {
                let _ = udp.send_to(&question[..length], from);
            }
        });
        let name = format!("pnb-hostile-{}-{}", std::process::id(), udp_port);
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixListener::bind(outer.join("socket")).expect("listens");
        fs::set_permissions(outer.join("socket"), fs::Permissions::from_mode(0o777)).expect("mode");

        let mut holder = Command::new(payloads())
            .arg("holder")
            .arg(&inputs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut line = String::new();
        let mut said = BufReader::new(holder.stdout.take().expect("piped"));
        said.read_line(&mut line).expect("read");
        let [memory, hinted, size] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("the holder does not hold its locks: {line:?}")
        };
        let facts = BTreeMap::from([
            ("HOST_DIR", outer.display().to_string()),
            ("HOST_TCP", tcp.local_addr().expect("bound").port().to_string()),
            ("HOST_UDP", udp_port.to_string()),
            ("HOST_ABSTRACT", name),
            ("HOST_PID", holder.id().to_string()),
            ("HOST_SHM", memory.to_owned()),
            ("HOST_SIZE", size.to_owned()),
            ("HOST_KEY", host_key().to_string()),
            (
                "HOST_NAME",
                nix::unistd::gethostname()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
            ),
        ]);
        Self {
            hints: hinted == "1",
            facts,
            holder,
            _tcp: tcp,
            _sockets: [UnixListener::bind_addr(&address).expect("listens"), by_name],
            dir,
        }
    }

    /// A spec that runs `attacks` with this host around it.
    pub(crate) fn spec(&self, attacks: &[&str]) -> Spec {
        let mut spec = spec(&[&["quick"], attacks].concat());
        spec.mounts.push(mount(&self.dir.path().join("inputs"), "inputs/d"));
        spec.env
            .extend(self.facts.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        spec.env.insert("HOST_INPUT".to_owned(), "/inputs/d".to_owned());
        spec
    }

    /// The results of `attacks` outside of any sandbox. A shell is the parent of the program, in place of the supervisor, and leaves a
    /// descriptor open.
    pub(crate) fn outside(&self, attacks: &[&str]) -> BTreeMap<String, bool> {
        let done = Command::new("/bin/sh")
            .args(["-c", "exec 9>/dev/null; \"$0\" quick \"$@\"; true"])
            .arg(payloads())
            .args(attacks)
            .envs(&self.facts)
            .env("HOST_INPUT", self.dir.path().join("inputs"))
            .output()
            .expect("runs");
        results(&String::from_utf8_lossy(&done.stdout), attacks)
    }
}

impl Drop for HostGround {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Which of `attacks` got through, as a log says. One without a line has ended the supervisor.
pub(crate) fn results(log: &str, attacks: &[&str]) -> BTreeMap<String, bool> {
    let line = |name: &str| log.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
    attacks
        .iter()
        .map(|name| {
            (
                (*name).to_owned(),
                line(name).is_none_or(|result| result.starts_with("GOT")),
            )
        })
        .collect()
}

/// A key in a session keyring of this thread, which the helpers that it starts inherit.
fn host_key() -> i64 {
    static KEY: OnceLock<i64> = OnceLock::new();
    *KEY.get_or_init(|| {
        let none = std::ptr::null::<libc::c_char>();
        let payload = c"of the host";
        #[expect(unsafe_code, reason = "keys have no safe wrapper")]
        // SAFETY: a null name asks for an anonymous keyring; the strings are terminated constants, and 11 is the length of the payload.
        let key = unsafe {
            libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, none);
            let ring = libc::KEY_SPEC_SESSION_KEYRING;
            libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                c"pnb-hostile".as_ptr(),
                payload.as_ptr(),
                11usize,
                ring,
            )
        };
        assert!(key > 0, "add_key: {}", io::Error::last_os_error());
        key
    })
}
