//! The agent and the double without a machine: the agent is started below a directory that stands for `/`, with the root's own curl and
//! openssl. Shows that the agent enrolls only as it should, and that the double sees when it does not.

use crate::{
    own_loader::with_own_loader,
    platform::{Enrolled, Platform},
    project::{INSTANCE, repository, tree_of},
    server::{Received, Reply, WebServer},
    tls::Authority,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
const OTHER: &str = "99999999-aaaa-4bbb-8ccc-dddddddddddd";

fn platform() -> Platform {
    Platform::start(Arc::new(Authority::new()), &LOOPBACK, &[&rustls::version::TLS13])
}

/// A directory that stands for `/`, with files of these contents, and the agent in it.
struct World {
    dir: tempfile::TempDir,
    agent: Option<Child>,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let base = [
            ("proc/cmdline", "powernode.boot=1 quiet\n"),
            ("proc/uptime", "12.5 1.0\n"),
            ("proc/sys/kernel/random/boot_id", "boot\n"),
            ("sys/class/net/eth0/address", "52:54:00:12:34:56\n"),
        ];
        for (name, text) in base.iter().chain(files) {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, text).expect("written");
        }
        for program in ["curl", "openssl"] {
            let command = with_own_loader(&tree_of("rootfs"), program);
            let words: Vec<String> = std::iter::once(command.get_program())
                .chain(command.get_args())
                .map(|word| format!("'{}'", word.to_str().expect("plain")))
                .collect();
            let path = dir.path().join("programs").join(program);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            // The file of settings has a fixed place, which is the host's.
            let text = format!("#!/bin/sh\nOPENSSL_CONF=/dev/null exec {} \"$@\"\n", words.join(" "));
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        Self { dir, agent: None }
    }

    fn start(&mut self) {
        let programs = self.dir.path().join("programs");
        let log = fs::File::create(self.dir.path().join("log")).expect("made");
        let agent = Command::new("/bin/sh")
            .arg(repository().join("tests/node/agent"))
            .arg("service")
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
            .env("CONTRACT_ROOT", self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.agent = Some(agent.expect("starts"));
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("there")
    }

    /// Starts the agent and waits for its end.
    fn ends(&mut self) -> String {
        self.start();
        let end = Instant::now() + Duration::from_secs(180);
        loop {
            if let Some(status) = self.agent.as_mut().and_then(|agent| agent.try_wait().expect("a child")) {
                assert!(!status.success(), "{}", self.said());
                self.agent = None;
                return self.said();
            }
            assert!(Instant::now() < end, "the agent goes on:\n{}", self.said());
            sleep(Duration::from_millis(50));
        }
    }

    /// Starts the agent and waits for its first heartbeat.
    fn works(&mut self, platform: &Platform) {
        self.start();
        let end = Instant::now() + Duration::from_secs(180);
        while platform.heartbeats().is_empty() {
            assert!(
                Instant::now() < end,
                "no heartbeat; {:?}\n{}",
                platform.refused(),
                self.said()
            );
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

fn enrolled(token: &str, instance: &str) -> Vec<Enrolled> {
    vec![Enrolled {
        token: token.to_owned(),
        common_name: instance.to_owned(),
    }]
}

fn identity(uuid: &str, token: &str, server: &str) -> String {
    format!("ID={uuid}\nKEY={token}\nSERVER={server}\nCA_PEM_FILE=/boot/powernode-ca.pem\n")
}

const FW_CFG: &str = "sys/firmware/qemu_fw_cfg/by_name/opt/com.powernode";

#[test]
fn each_place_in_its_order() {
    let platform = platform();
    let (url, ca) = (platform.url(), platform.ca());
    let fw = |name: &str| format!("{FW_CFG}/{name}/raw");
    let (fw_uuid, fw_token, fw_url, fw_ca) = (
        fw("instance_uuid"),
        fw("bootstrap_token"),
        fw("platform_url"),
        fw("ca_pem"),
    );
    let boot = identity(INSTANCE, "t-boot", &url);
    let root = format!("export ID=\"{INSTANCE}\"\nKEY='t-root'\nSERVER={url}\nCA_PEM_FILE=/boot/powernode-ca.pem\n");
    let cmdline = format!(
        "powernode.instance_uuid={INSTANCE} powernode.bootstrap_token=t-cmdline powernode.platform_url={url} powernode.ca_pem=\"{ca}\"\n"
    );
    let mut files = vec![
        ("proc/cmdline", cmdline.as_str()),
        (&fw_uuid, INSTANCE),
        (&fw_token, " t-fw_cfg\n"),
        (&fw_url, &url),
        (&fw_ca, &ca),
        ("boot/identity.cfg", &boot),
        ("boot/powernode-ca.pem", &ca),
        ("etc/identity.cfg", &root),
    ];
    let steps = [("t-cmdline", 1), ("t-fw_cfg", 4), ("t-boot", 1), ("t-root", 1)];
    for (number, (token, gone)) in steps.into_iter().enumerate() {
        platform.expect(token, INSTANCE);
        let mut world = World::new(&files);
        world.start();
        let end = Instant::now() + Duration::from_secs(180);
        while platform.enrolled().len() <= number && Instant::now() < end {
            sleep(Duration::from_millis(50));
        }
        let last = platform.enrolled().pop();
        assert_eq!(
            last,
            enrolled(token, INSTANCE).pop(),
            "{:?}\n{}",
            platform.refused(),
            world.said()
        );
        // The certificate of /boot stays for the file in /etc.
        files.drain(..gone);
        if token == "t-boot" {
            files.retain(|(name, _)| *name != "boot/identity.cfg");
        }
    }
}

#[test]
fn an_unclaimed_medium_is_claimed_and_then_enrolls() {
    let platform = platform();
    platform.expect_claim("t-claimed", OTHER);
    let boot = identity("", "", &platform.url());
    let mut world = World::new(&[("boot/identity.cfg", &boot), ("boot/powernode-ca.pem", &platform.ca())]);
    world.works(&platform);
    assert_eq!(platform.enrolled(), enrolled("t-claimed", OTHER));
    let claims = platform.claims();
    assert_eq!(claims.len(), 2, "{claims:?}");
    assert_eq!(claims[0]["mac"], "52:54:00:12:34:56");
    assert!(world.said().contains("claim code K7-X2"), "{}", world.said());
    let key = fs::metadata(world.dir.path().join("persist/var/lib/powernode/pki/node.key")).expect("there");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

/// What must not work, which the double then did not see; the same files with the right word work.
#[test]
fn nothing_is_enrolled_without_a_token_the_certificates_or_tls_1_3() {
    let platform = platform();
    let stranger = String::from_utf8(Authority::new().pem()).expect("text");
    let good = identity(INSTANCE, "t-1", &platform.url());
    let with = |boot: &str, ca: &str| World::new(&[("boot/identity.cfg", boot), ("boot/powernode-ca.pem", ca)]);
    // The token does not count yet.
    let said = with(&good, &platform.ca()).ends();
    assert!(said.contains("enroll: the platform"), "{said}");
    assert_eq!(platform.refused(), ["401 the bootstrap token \"t-1\" does not count"]);
    platform.expect("t-1", INSTANCE);
    for (boot, ca, why) in [
        (
            good.as_str(),
            stranger.as_str(),
            "unable to get local issuer certificate",
        ),
        (&good, "-----BEGIN CERTIFICATE-----\nFIXTURE\n", "are none"),
        (
            &good.replace("/boot/powernode-ca.pem", ""),
            &platform.ca(),
            "no certificates of the platform",
        ),
        (
            &good.replace(&platform.url(), ""),
            &platform.ca(),
            "no place names an instance",
        ),
        (
            &good.replace("https://", "http://"),
            &platform.ca(),
            "enroll: the platform",
        ),
    ] {
        let said = with(boot, ca).ends();
        assert!(said.contains(why), "{why:?} is not in:\n{said}");
    }
    let old = Platform::start(Arc::clone(&platform.authority), &LOOPBACK, &[&rustls::version::TLS12]);
    old.expect("t-1", INSTANCE);
    let said = with(&good.replace(&platform.url(), &old.url()), &platform.ca()).ends();
    assert!(said.contains("enroll: the platform"), "{said}");
    assert_eq!((platform.enrolled(), old.enrolled()), (vec![], vec![]));
    // Each was the word that was changed.
    let mut world = with(&good, &platform.ca());
    world.works(&platform);
    assert_eq!(platform.enrolled(), enrolled("t-1", INSTANCE));
    // A token counts once, and a node that has its certificate needs none.
    drop(world);
    let said = with(&good, &platform.ca()).ends();
    assert!(said.contains("enroll: the platform"), "{said}");
    assert_eq!(platform.enrolled().len(), 1);
}

/// The program of the root that fetches the platform's certificates, with the root's own curl and openssl.
#[test]
fn certificates_are_fetched_and_looked_at() {
    let authority = Authority::new();
    let pem = String::from_utf8(authority.pem()).expect("text");
    let served = format!("subject=x\n{pem}");
    let answer = move |request: &Received| match request.path() {
        "/long" => Reply::text(200, &"a".repeat(70_000)),
        "/none" => Reply::text(200, "<html>"),
        _ => Reply::text(200, &served),
    };
    let plain = WebServer::start(None, answer.clone());
    // Its certificate is of the authority that is fetched.
    let secure = WebServer::start(Some(authority.server()), answer);
    let digest = |text: &str| hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()));
    let right = digest(&format!("subject=x\n{pem}"));
    let zero = "0".repeat(64);
    let none = digest("<html>");
    for (url, digest, want) in [
        (plain.url("/ca"), right.as_str(), Ok(())),
        (secure.url("/ca"), &right, Ok(())),
        (plain.url("/ca"), "", Err("http needs powernode.ca_sha256=".to_owned())),
        (plain.url("/ca"), &zero, Err(format!("its SHA-256 is {right}"))),
        (
            plain.url("/long"),
            &zero,
            Err("the file is larger than 65536 bytes".to_owned()),
        ),
        (
            plain.url("/none"),
            &none,
            Err("the file holds 0 certificates, and 1 to 32 are wanted".to_owned()),
        ),
    ] {
        let request = format!("{url}\n{digest}\n");
        let world = World::new(&[
            ("run/powernode/ca-url", request.as_str()),
            ("run/powernode/boot/identity.cfg", ""),
            ("sys/class/tty/console/active", "ttyS0\n"),
            ("proc/sys/kernel/printk", "4 4 1 7\n"),
            ("dev/ttyS0", ""),
        ]);
        let overlay = repository().join("stages/root/overlay/usr/lib/powernode");
        let done = Command::new("/bin/sh")
            .arg(overlay.join("fetch-ca"))
            .arg(world.dir.path())
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", world.dir.path().join("programs").display()),
            )
            .env("PN_LIB", &overlay)
            .output()
            .expect("starts");
        let console = fs::read_to_string(world.dir.path().join("dev/ttyS0")).expect("there");
        let certificates = fs::read_to_string(world.dir.path().join("run/powernode/boot/powernode-ca.pem"));
        match want {
            Ok(()) => {
                assert!(done.status.success(), "{url}: {console}");
                assert_eq!(certificates.expect("fetched"), pem);
            }
            Err(why) => {
                let line =
                    format!("powernode: refused: the platform's certificates cannot be fetched from {url}: {why}\r\n");
                assert!(
                    !done.status.success() && console.contains(&line),
                    "{line:?} is not in {console:?}"
                );
                assert!(certificates.is_err(), "{url}");
            }
        }
    }
}

#[test]
fn a_request_with_another_key_or_another_name_is_seen() {
    let openssl = |script: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let command = with_own_loader(&tree_of("rootfs"), "openssl");
        let loader: Vec<&str> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_str().expect("plain"))
            .collect();
        let script = format!("openssl() {{ {} \"$@\"; }}\n{script}", loader.join(" "));
        let done = Command::new("/bin/sh")
            .args(["-euc", &script])
            .current_dir(Path::new(dir.path()))
            .env("OPENSSL_CONF", "/dev/null")
            .output()
            .expect("starts");
        String::from_utf8(done.stdout).expect("text")
    };
    let good = openssl("openssl genpkey -algorithm ed25519 -out k; openssl req -new -key k -subj /CN=a-b");
    assert_eq!(crate::csr::read(&good).map(|r| r.common_name), Ok("a-b".to_owned()));
    let other = openssl(
        "openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out k; openssl req -new -key k -subj /CN=a",
    );
    assert_eq!(crate::csr::read(&other), Err("its key is not an Ed25519 key"));
    let two = openssl("openssl genpkey -algorithm ed25519 -out k; openssl req -new -key k -subj /O=x/CN=a");
    assert_eq!(crate::csr::read(&two), Err("its name is not one common name"));
    // One letter of the name.
    let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
    let mut bytes = crate::csr::decode(&body).expect("base64");
    let at = bytes.windows(3).position(|text| text == b"a-b").expect("the name");
    bytes[at] = b'x';
    let body = crate::tls::base64(&bytes);
    let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    assert_eq!(crate::csr::read(&forged), Err("its signature is not its key's"));
}
