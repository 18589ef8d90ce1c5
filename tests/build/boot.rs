//! The artifact boots, and refuses when it was tampered with.

use crate::{initramfs::change_last, project::*};
use std::{fs, path::Path};

fn boot(dir: &Path) -> std::process::Command {
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(dir).args(["--timeout", &patience(400)]);
    command
}

#[test]
fn it_reaches_multi_user_with_the_identity_of_the_firmware() {
    let said = good_boot(
        boot(artifact())
            .arg("--fw-cfg")
            .arg(format!("instance_uuid={INSTANCE}")),
    );
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(artifact().join("build-manifest.json")).expect("there")).expect("JSON");
    let root = manifest["fsverity_root_hash"].as_str().expect("text");
    let line = format!("powernode: ready instance={INSTANCE} source=fw_cfg root={root} agent=active");
    assert!(said.contains(&line), "{line} is not in:\n{said}");
}

#[test]
fn a_slow_machine_is_told_from_one_that_stands_still() {
    let mut slow = pnb(repository(), &store());
    // By KVM it could be ready in this time.
    slow.arg("boot")
        .arg(artifact())
        .args(["--timeout", "12", "--accel", "tcg"]);
    let said = bad(&mut slow, 9);
    assert!(
        said.contains("the machine is slow: no verdict yet, wall time of 12s"),
        "{said}"
    );
    assert!(said.contains("hint: --timeout 24 gives it twice the time"), "{said}");

    // A disk without a boot loader: the firmware finds nothing to start, and no line reaches the console.
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let disk = dir.path().join("empty.raw");
    fs::File::create(&disk).and_then(|f| f.set_len(1 << 20)).expect("made");
    let mut still = pnb(repository(), &store());
    still
        .arg("boot")
        .arg(&disk)
        .args(["--firmware", "bios", "--timeout", "8"]);
    let said = bad(&mut still, 9);
    assert!(
        said.contains("the machine stands still: no verdict, wall time of 8s"),
        "{said}"
    );
    assert!(!said.contains("gives it twice the time"), "{said}");
}

/// A copy of the artifact whose root was changed in the initramfs.
fn with_changed_root(change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let copy = copy_of_artifact();
    change_last(&copy.path().join("initramfs.cpio.zst"), change);
    copy
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    memchr::memmem::find(haystack, needle).expect("it is in there")
}

#[test]
fn a_flipped_byte_in_the_image_of_the_root_is_refused() {
    // The image names the object of each file in an attribute; EROFS keeps the prefix "trusted." as a number. Programs in objects, which lie in
    // front of the image, have the word too.
    let copy = with_changed_root(|cpio| {
        let at = memchr::memmem::rfind(cpio, b"overlay.redirect").expect("it is in there");
        cpio[at + 40] ^= 1;
    });
    let said = bad(boot(copy.path()).arg("--no-verify-sums"), 9);
    assert!(said.contains("powernode: refused: "), "{said}");
}

#[test]
fn a_port_that_is_taken_is_named_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let forward = format!("{}:22", address.port());
    let said = bad(boot(artifact()).args(["--forward", &forward]), 9);
    assert!(
        said.contains(&format!(
            "failed to listen on {address} for --forward: Address already in use"
        )),
        "{said}"
    );
    let way = format!(
        "hint: another program has this port, and `ss -ltnp 'sport = :{}'` names it",
        address.port()
    );
    assert!(said.contains(&way), "{said}");
    assert!(!said.contains("machine amd64"), "nothing started:\n{said}");
}

#[test]
fn a_file_that_is_not_the_listed_one_does_not_boot() {
    let copy = copy_of_artifact();
    flip(&copy.path().join("kernel"), 100_000);
    let said = bad(&mut boot(copy.path()), 9);
    assert!(said.contains("failed to compare \"kernel\" with SHA256SUMS"), "{said}");
    assert!(
        said.contains("hint: --no-verify-sums boots the files as they are"),
        "{said}"
    );
    assert!(!said.contains("Linux version"), "nothing started:\n{said}");
    fs::remove_file(copy.path().join("SHA256SUMS")).expect("there");
    bad(&mut boot(copy.path()), 9);
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: two boots; cargo test -- --ignored nightly::"]
    fn a_flipped_byte_in_an_object_or_a_wrong_digest_is_refused() {
        let object = with_changed_root(|cpio| {
            // In the program that becomes init, which is read before the boot hands over.
            let at = find(cpio, b" running in %ssystem mode");
            cpio[at + 3] ^= 1;
        });
        let said = bad(boot(object.path()).arg("--no-verify-sums"), 9);
        assert!(said.contains("powernode: refused: "), "{said}");
        let digest = with_changed_root(|cpio| {
            let at = find(cpio, b"etc/powernode/root-digest\0");
            let at = at
                + cpio[at..]
                    .iter()
                    .position(|b| b.is_ascii_hexdigit() && *b != b'e')
                    .expect("digits")
                + 40;
            cpio[at] = if cpio[at] == b'0' { b'1' } else { b'0' };
        });
        let said = bad(boot(digest.path()).arg("--no-verify-sums"), 9);
        assert!(said.contains("powernode: refused: "), "{said}");
    }

    #[test]
    #[ignore = "nightly: two boots; cargo test -- --ignored nightly::"]
    fn the_command_line_can_name_the_instance_and_a_malformed_name_is_refused() {
        // On two processors; every other machine of the tests has one.
        let said = good_boot(
            boot(artifact())
                .args(["--cpus", "2", "--append"])
                .arg(format!("powernode.instance_uuid={INSTANCE}")),
        );
        assert!(said.contains(&format!("instance={INSTANCE} source=cmdline")), "{said}");
        let said = bad(
            boot(artifact()).args(["--append", "powernode.instance_uuid=not-one"]),
            9,
        );
        assert!(said.contains("powernode: refused: "), "{said}");
    }
}
