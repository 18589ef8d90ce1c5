//! Machines with the agent in their root, and the double in front of them: whatever place the identity comes from, the double is sent this
//! token and this name, once, before the node says that it is ready.

use crate::{
    initramfs::append,
    platform::{Enrolled, NODE_ADDRESS, Platform},
    project::*,
    tls::Authority,
};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
};

const TOKEN: &str = "t-0451";
const OTHER: &str = "99999999-aaaa-4bbb-8ccc-dddddddddddd";

/// The authority of all doubles: its certificate is on the media.
fn authority() -> Arc<Authority> {
    static AUTHORITY: OnceLock<Arc<Authority>> = OnceLock::new();
    Arc::clone(AUTHORITY.get_or_init(|| Arc::new(Authority::new())))
}

fn platform() -> Platform {
    Platform::for_machines(authority())
}

fn url() -> String {
    format!("https://{NODE_ADDRESS}")
}

/// `pnb build` of this variant of a project with the agent of these tests, into a directory below the target directory.
fn built(project: &Path, variant: &str, name: &str, arguments: &[&str]) -> PathBuf {
    let output = scratch().join("images-node").join(name);
    let mut command = build(project, &store());
    command.args(["--variant", variant, "--agent"]);
    command.arg(repository().join("tests/node/agent")).args(arguments);
    good(command.arg("--output").arg(&output));
    output.join(variant).join("amd64")
}

fn kernel_initrd() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built(repository(), "kernel-initrd", "plain", &[]))
}

/// A disk whose medium knows the platform and waits to be claimed.
fn disk() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let ca = scratch().join("node-ca.pem");
        fs::write(&ca, authority().pem()).expect("written");
        let ca = ca.to_str().expect("plain");
        built(
            repository(),
            "raw",
            "unclaimed",
            &["--platform-url", &url(), "--ca-pem", ca],
        )
    })
}

fn boot(artifact: &Path, platform: &Platform) -> Command {
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(artifact).args(["--timeout", &patience(400)]);
    // Enough for an agent that is emulated beside other programs; the ready line may come first.
    command.args(["--settle", "60", "--reach", &platform.reach()]);
    command
}

/// What the double saw: one node with this token and this name, and nothing that it had to refuse.
#[track_caller]
fn saw(platform: &Platform, token: &str, instance: &str, said: &str) {
    let want = [Enrolled {
        token: token.to_owned(),
        common_name: instance.to_owned(),
    }];
    assert_eq!(platform.enrolled(), want, "{:?}\n{said}", platform.refused());
    assert_eq!(platform.refused(), [""; 0], "{said}");
}

#[track_caller]
fn ready(said: &str, instance: &str, source: &str) {
    let want = format!("powernode: ready instance={instance} source={source} root=");
    let line = said.lines().find(|line| line.contains(&want));
    assert!(
        line.is_some_and(|line| line.contains(" agent=active restarts=0")),
        "{want}… agent=active restarts=0 is not in:\n{said}"
    );
}

/// The words of an identity on the command line, with the certificate as the platform's script for iPXE has it.
fn words(platform: &Platform) -> String {
    let ca = platform.ca().replace('\n', "");
    format!(
        "powernode.instance_uuid={INSTANCE} powernode.bootstrap_token={TOKEN} powernode.platform_url={} \"powernode.ca={ca}\"",
        url()
    )
}

#[test]
#[ignore = "long: a disk is built and booted; cargo test -- --include-ignored"]
fn a_disk_that_nobody_has_claimed_is_claimed() {
    let platform = platform();
    platform.expect_claim(TOKEN, INSTANCE);
    let said = good_boot(&mut boot(disk(), &platform));
    ready(&said, "none", "none");
    saw(&platform, TOKEN, INSTANCE, &said);
    assert!(platform.claims().len() >= 2, "{:?}", platform.claims());
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    /// In `.ci/run` the script of iPXE has these words (`tests/ipxe/boots.rs`).
    #[test]
    #[ignore = "nightly: a boot; cargo test -- --ignored nightly::"]
    fn the_command_line_names_the_node_although_fw_cfg_names_another() {
        let platform = platform();
        platform.expect(TOKEN, INSTANCE);
        let said = good_boot(
            boot(kernel_initrd(), &platform)
                .arg("--append")
                .arg(words(&platform))
                .arg("--fw-cfg")
                .arg(format!("instance_uuid={OTHER}"))
                .arg("--fw-cfg")
                .arg("bootstrap_token=t-other"),
        );
        ready(&said, INSTANCE, "cmdline");
        saw(&platform, TOKEN, INSTANCE, &said);
    }

    #[test]
    #[ignore = "nightly: a boot; cargo test -- --ignored nightly::"]
    fn fw_cfg_names_the_node() {
        let platform = platform();
        platform.expect(TOKEN, INSTANCE);
        let said = good_boot(
            boot(kernel_initrd(), &platform)
                .arg("--fw-cfg")
                .arg(format!("instance_uuid={INSTANCE}"))
                .arg("--fw-cfg")
                .arg(format!("bootstrap_token={TOKEN}"))
                .arg("--fw-cfg")
                .arg(format!("platform_url={}", url()))
                .arg("--fw-cfg")
                .arg(format!("ca_pem={}", platform.ca())),
        );
        ready(&said, INSTANCE, "fw_cfg");
        saw(&platform, TOKEN, INSTANCE, &said);
    }

    #[test]
    #[ignore = "nightly: a disk is built and booted; cargo test -- --ignored nightly::"]
    fn identity_cfg_of_a_claimed_disk_names_the_node() {
        let platform = platform();
        platform.expect(TOKEN, INSTANCE);
        let (_dir, copy) = copy_of(&disk().join("disk.raw"));
        write_identity(
            &copy,
            &format!(
                "ID={INSTANCE}\nKEY={TOKEN}\nSERVER={}\nCA_PEM_FILE=/boot/powernode-ca.pem\n",
                url()
            ),
        );
        let said = good_boot(&mut boot(&copy, &platform));
        ready(&said, INSTANCE, "boot_file");
        saw(&platform, TOKEN, INSTANCE, &said);
    }

    /// Writes identity.cfg on the boot partition, the second of a PC's disk, which begins at 2 MiB.
    fn write_identity(disk: &Path, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(disk, fs::Permissions::from_mode(0o644)).expect("ours");
        let file = File::options().read(true).write(true).open(disk).expect("opens");
        let mut partition = Partition { file, start: 2 << 20 };
        partition.seek(SeekFrom::Start(0)).expect("in the disk");
        let volume = fatfs::FileSystem::new(partition, fatfs::FsOptions::new());
        let volume = volume.expect("a FAT file system");
        let root = volume.root_dir();
        let mut file = root.create_file("identity.cfg").expect("writable");
        file.truncate().expect("shorter");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// A file from `start` on.
    struct Partition {
        file: File,
        start: u64,
    }

    impl Read for Partition {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.file.read(buffer)
        }
    }

    impl Write for Partition {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.file.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.file.flush()
        }
    }

    impl Seek for Partition {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            let to = match to {
                SeekFrom::Start(at) => SeekFrom::Start(at + self.start),
                other => other,
            };
            Ok(self.file.seek(to)? - self.start)
        }
    }

    #[test]
    #[ignore = "nightly: another root is built and booted; cargo test -- --ignored nightly::"]
    fn identity_cfg_of_the_root_names_the_node() {
        let platform = platform();
        platform.expect(TOKEN, INSTANCE);
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        copy_of_project(dir.path());
        let etc = dir.path().join("stages/root/overlay/etc");
        fs::write(etc.join("platform.pem"), platform.ca()).expect("written");
        let text = format!(
            "export ID=\"{INSTANCE}\"\nKEY='{TOKEN}'\nSERVER={}\nCA_PEM_FILE=/etc/platform.pem\n",
            url()
        );
        fs::write(etc.join("identity.cfg"), text).expect("written");
        let artifact = built(dir.path(), "kernel-initrd", "root-file", &[]);
        let said = good_boot(&mut boot(&artifact, &platform));
        ready(&said, INSTANCE, "root_file");
        saw(&platform, TOKEN, INSTANCE, &said);
    }

    /// An artifact whose initramfs has this file besides: a segment behind the others, whose files replace earlier ones.
    fn with_file(artifact: &Path, name: &str, text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        for file in ["kernel", "initramfs.cpio.zst", "build-manifest.json"] {
            fs::copy(artifact.join(file), dir.path().join(file)).expect(file);
        }
        append(&dir.path().join("initramfs.cpio.zst"), &[(name, text.as_bytes())]);
        dir
    }

    /// Each mutant of the hand-over keeps the agent from enrolling, which the double sees.
    #[test]
    #[ignore = "nightly: three boots; cargo test -- --ignored nightly::"]
    fn a_hand_over_with_a_part_taken_out_is_seen() {
        let library = fs::read_to_string(repository().join("dracut/modules.d/90powernode/powernode-handover.sh"));
        let library = library.expect("the library");
        for (from, to) in [
            (r#"} >"$PN_RUN/boot/identity.cfg""#, "} >/dev/null"),
            (r#">"$PN_RUN/boot/powernode-ca.pem" ||"#, ">/dev/null ||"),
            // The agent sees the command line, takes it for all, and has no certificates in a form that it can read.
            (r#"    if [ -n "$pn_hidden" ]; then"#, "    if false; then"),
        ] {
            let platform = platform();
            platform.expect(TOKEN, INSTANCE);
            let changed = library.replacen(from, to, 1);
            assert_ne!(changed, library, "{from}");
            let artifact = with_file(kernel_initrd(), "usr/lib/powernode/powernode-handover.sh", &changed);
            // Whether the agent has ended by the time of the ready line depends on where it looks last; the double sees it in any case.
            let said = text(&one_at_a_time(
                boot(artifact.path(), &platform)
                    .arg("--no-verify-sums")
                    .arg("--append")
                    .arg(words(&platform)),
            ));
            assert!(
                said.contains(&format!("powernode: ready instance={INSTANCE} ")),
                "{from}\n{said}"
            );
            assert_eq!(platform.enrolled(), [], "{from}");
        }
    }

    /// The certificates of the platform come from an address, before the agent starts.
    #[test]
    #[ignore = "nightly: two boots; cargo test -- --ignored nightly::"]
    fn certificates_are_fetched_from_an_address_or_the_node_says_why_not() {
        let platform = platform();
        let web = crate::server::WebServer::start(None, {
            let ca = platform.ca();
            move |_| crate::server::Reply::text(200, &ca)
        });
        let reach = format!("10.0.2.101:80={}", web.url("").trim_start_matches("http://"));
        let words = |digest: &str| {
            format!(
                "powernode.instance_uuid={INSTANCE} powernode.bootstrap_token={TOKEN} powernode.platform_url={} \
                 powernode.ca_url=http://10.0.2.101/ca.pem powernode.ca_sha256={digest}",
                url()
            )
        };
        platform.expect(TOKEN, INSTANCE);
        let digest = hex::encode(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            platform.ca().as_bytes(),
        ));
        let node = |digest: &str| {
            let mut command = boot(kernel_initrd(), &platform);
            command.args(["--reach", &reach, "--append", &words(digest)]);
            command
        };
        let said = good_boot(&mut node(&digest));
        ready(&said, INSTANCE, "cmdline");
        saw(&platform, TOKEN, INSTANCE, &said);
        let said = bad(&mut node(&"0".repeat(64)), 9);
        let want = "powernode: refused: the platform's certificates cannot be fetched from http://10.0.2.101/ca.pem: its SHA-256 is";
        assert!(said.contains(want), "{said}");
    }
}
