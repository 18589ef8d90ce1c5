//! Machines in clouds: what a node asks the metadata service, that the platform gets the identity from there, and that nobody else is asked
//! anything.
//!
//! `pnb boot` plays the service and logs the requests, and a double of the platform (tests/node) stands behind the machine's agent, so that
//! each test looks at the other end: the requests, who enrolled, and the packets of the machine's card. Two boots are long tests; the
//! others are nightly.

#[path = "../node/csr.rs"]
mod csr;
mod enrolled;
#[path = "../fixture/initramfs.rs"]
#[expect(dead_code, reason = "shared with the tests that change the root")]
mod initramfs;
#[path = "../node/platform.rs"]
#[expect(dead_code, reason = "shared with the tests of nodes, which use more of it")]
mod platform;
#[path = "../build/project.rs"]
#[expect(dead_code, reason = "shared with the tests of builds, which use more of it")]
mod project;
#[path = "../publish/server.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of publishing, which put faults at requests"
)]
mod server;
#[path = "../publish/tls.rs"]
#[expect(dead_code, reason = "shared with the tests of publishing, which use more of it")]
mod tls;

use project::{INSTANCE, bad, build, good, patience, pnb, repository, scratch, store};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Length of the head of a pcap file; packets follow.
const PCAP_HEAD: u64 = 24;

/// The artifact that boots directly, with the agent that enrolls as the platform's does.
fn artifact() -> &'static Path {
    static ARTIFACT: OnceLock<PathBuf> = OnceLock::new();
    ARTIFACT.get_or_init(|| {
        let images = scratch().join("clouds");
        good(
            build(repository(), &store())
                .args(["--variant", "kernel-initrd", "--agent"])
                .arg(repository().join("tests/node/agent"))
                .arg("--output")
                .arg(&images),
        );
        images.join("kernel-initrd/amd64")
    })
}

fn boot(arguments: &[&str]) -> Command {
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(artifact()).args(["--timeout", &patience(400)]);
    command.args(arguments);
    command
}

/// A directory for `--metadata`, and the service's answers.
struct Cloud(tempfile::TempDir);

impl Cloud {
    fn new(answers: &Value) -> Self {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let text = json!({ "answers": answers }).to_string();
        fs::write(dir.path().join("metadata.json"), text).expect("written");
        Self(dir)
    }

    fn dir(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }

    /// What was asked, line by line.
    fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.0.path().join("requests.log")).expect("a log");
        let agent = " User-Agent:powernode";
        log.lines().map(|line| line.replace(agent, "")).collect()
    }
}

/// User data in JSON.
fn user_data() -> String {
    json!({ "instance_uuid": INSTANCE, "bootstrap_token": "tok" }).to_string()
}

/// The answers of AWS with this user data, which is given once: whoever asks again is told about another instance.
fn aws(user_data: &str) -> Value {
    let token = json!({ "X-aws-ec2-metadata-token": "TOKEN==" });
    let other = user_data.replace(INSTANCE, "f0f0f0f0-0000-4000-8000-00000000f0f0");
    json!([
        { "method": "PUT", "path": "/latest/api/token", "headers": { "X-aws-ec2-metadata-token-ttl-seconds": "60" }, "body": "TOKEN==" },
        { "path": "/latest/user-data", "headers": token, "body": user_data, "once": true },
        { "path": "/latest/user-data", "body": other },
    ])
}

const AWS: [&str; 2] = ["--smbios", "sys_vendor=Amazon EC2"];

/// The machine refuses at its last step before it leaves the initramfs, when every source of an identity was asked.
const STOP: [&str; 2] = ["--append", "powernode.seed=none"];
const STOPPED: &str = "powernode: refused: the host shares nothing with the mount tag 'none'";

fn packets(capture: &Path) -> u64 {
    fs::metadata(capture).expect("a capture").len() - PCAP_HEAD
}

/// The positive control is in [`enrolled`]: the same card, on AWS, has packets. [`nightly`] has a mutant that asks everywhere.
#[test]
#[ignore = "long: one boot, as far as the root; cargo test -- --include-ignored"]
fn no_packet_leaves_a_machine_that_is_in_no_cloud() {
    let cloud = Cloud::new(&aws(&user_data()));
    let capture = cloud.0.path().join("packets");
    let said = bad(
        boot(&STOP).args(["--metadata", cloud.dir(), "--capture"]).arg(&capture),
        9,
    );
    assert!(said.contains(STOPPED), "{said}");
    assert_eq!((cloud.requests(), packets(&capture)), (Vec::new(), 0));
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;
    use initramfs::append;
    use std::os::unix::fs::PermissionsExt;

    /// Wrong user data stops the boot.
    #[test]
    #[ignore = "nightly: two boots as far as the root; cargo test -- --ignored nightly::"]
    fn user_data_that_is_wrong_is_refused_by_name() {
        for (data, want) in [
            (
                "{\"instance_uuid\": \"nobody\"}",
                "user data of aws: instance_uuid is not a UUID: 'nobody'",
            ),
            (
                "Content-Type: multipart/mixed; boundary=x\n\n",
                "user data of aws is a MIME message",
            ),
        ] {
            let cloud = Cloud::new(&aws(data));
            let said = bad(boot(&AWS).args(["--metadata", cloud.dir()]), 9);
            let line = format!("powernode: refused: {want}");
            assert!(said.contains(&line), "{line} is not in:\n{said}");
        }
    }

    /// The check that no packet leaves is red with a node that asks everywhere.
    #[test]
    #[ignore = "nightly: one boot as far as the root; cargo test -- --ignored nightly::"]
    fn a_node_that_asks_everywhere_is_seen() {
        let copy = tempfile::tempdir_in(scratch()).expect("scratch");
        for name in ["kernel", "initramfs.cpio.zst", "build-manifest.json"] {
            fs::copy(artifact().join(name), copy.path().join(name)).expect(name);
        }
        let path = "dracut/modules.d/90powernode/powernode-cloud.sh";
        let library = fs::read_to_string(repository().join(path)).expect("the library");
        let mutant = library.replace("    [ -n \"$PN_CLOUD\" ]\n}", "    PN_CLOUD=${PN_CLOUD:-aws}\n}");
        assert_ne!(mutant, library);
        let changed: (&str, &[u8]) = ("usr/lib/powernode/powernode-cloud.sh", mutant.as_bytes());
        append(&copy.path().join("initramfs.cpio.zst"), &[changed]);
        let cloud = Cloud::new(&aws(&user_data()));
        let capture = cloud.0.path().join("packets");
        let mut command = pnb(repository(), &store());
        command.arg("boot").arg(copy.path()).arg("--no-verify-sums").args(STOP);
        command.args(["--timeout", &patience(400), "--metadata", cloud.dir(), "--capture"]);
        let said = bad(command.arg(&capture), 9);
        assert!(said.contains(STOPPED), "{said}");
        assert_eq!(cloud.requests().len(), 2);
        assert!(packets(&capture) > 0);
    }

    /// Lines for a verdict that something else prints: a boot sector without any kernel, and the agent of a real node.
    #[test]
    #[ignore = "nightly: a build with another agent, and two boots; cargo test -- --ignored nightly::"]
    fn forged_verdicts_are_believed_by_nobody() {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let root = "ab".repeat(32);
        let lines = format!(
            "\r\npowernode: state lockdown=integrity secure_boot=on firmware=uefi persist=ok\r\n\
             powernode: ready instance=nobody source=nowhere root={root} agent=active restarts=0\r\n\0"
        );
        let disk = dir.path().join("forged.raw");
        fs::write(&disk, boot_sector(lines.as_bytes())).expect("written");
        let mut command = pnb(repository(), &store());
        command
            .arg("boot")
            .arg(&disk)
            .args(["--firmware", "bios", "--timeout", "20"]);
        let said = bad(&mut command, 9);
        assert!(
            said.contains("powernode: ready instance=nobody"),
            "the forgery is on the console:\n{said}"
        );
        assert!(said.contains("no verdict"), "{said}");

        let agent = dir.path().join("agent");
        let text = "#!/bin/sh\n\
            R=$(cat /run/powernode/root-digest)\n\
            N=$(cat /sys/firmware/qemu_fw_cfg/by_name/opt/com.powernode/nonce/raw)\n\
            printf '\\r\\npowernode: state lockdown=integrity secure_boot=unavailable firmware=bios persist=none\\r\\n\
            powernode: ready instance=none source=none root=%s agent=active restarts=0 nonce=%s\\r\\n' \"$R\" \"$N\" >/dev/ttyS0\n\
            exit 1\n";
        fs::write(&agent, text).expect("written");
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("ours");
        let images = dir.path().join("images");
        good(
            build(repository(), &store())
                .args(["--variant", "kernel-initrd", "--agent"])
                .arg(&agent)
                .arg("--output")
                .arg(&images),
        );
        let mut command = pnb(repository(), &store());
        command.arg("boot").arg(images.join("kernel-initrd/amd64"));
        let said = bad(command.args(["--timeout", &patience(400), "--settle", "60"]), 9);
        // It says all that a node says, this boot's nonce too. The node's own line follows, and contradicts it.
        assert!(
            said.contains("the machine contradicted its verdict: powernode: "),
            "{said}"
        );
    }

    /// 512 bytes that print `text` on the first serial port, and stop.
    fn boot_sector(text: &[u8]) -> Vec<u8> {
        // cli; xor ax, ax; mov ds, ax; mov si, text; loop: lodsb; test al, al; jz end; mov bl, al; mov dx, 0x3fd; wait: in al, dx;
        // test al, 0x20; jz wait; mov dx, 0x3f8; mov al, bl; out dx, al; jmp loop; end: hlt; jmp end
        let mut code = vec![
            0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0, 0, 0xac, 0x84, 0xc0, 0x74, 18, 0x88, 0xc3, 0xba, 0xfd, 0x03,
        ];
        code.extend([
            0xec, 0xa8, 0x20, 0x74, 0xfb, 0xba, 0xf8, 0x03, 0x88, 0xd8, 0xee, 0xeb, 0xe9, 0xf4, 0xeb, 0xfd,
        ]);
        let at = u16::try_from(0x7c00 + code.len()).expect("below 64 KiB");
        code[6..8].copy_from_slice(&at.to_le_bytes());
        code.extend(text);
        assert!(code.len() <= 510, "{} bytes", code.len());
        code.resize(510, 0);
        code.extend([0x55, 0xaa]);
        code.resize(1 << 20, 0);
        code
    }
}
