//! The rendered script in machines: iPXE of the bundle runs it, the node is the instance that it names, and the platform is sent that
//! instance's token and name, once.

use crate::{
    UUID,
    platform::{Enrolled, NODE_ADDRESS, Platform},
    project::{build, good, good_boot, patience, pnb, repository, scratch, store},
    rendered_of,
    tls::Authority,
};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// Where `pnb boot` serves the bundle for the firmware of a machine.
const SERVED: &str = "http://10.0.2.2:8080";
const TOKEN: &str = "t-ipxe-3";

/// The bundle, with the agent that enrolls as the platform's does.
fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<PathBuf> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let images = scratch().join("ipxe");
        good(
            build(repository(), &store())
                .args(["--variant", "ipxe", "--agent"])
                .arg(repository().join("tests/node/agent"))
                .arg("--output")
                .arg(&images),
        );
        images.join("ipxe/amd64")
    })
}

/// The bundle as a platform lays it out: kernel and initramfs below iPXE's own name of the architecture, and this script as the one that
/// everything comes to.
fn laid_out(script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    good(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(bundle().join("."))
            .arg(dir.path()),
    );
    let own = dir.path().join("x86_64");
    fs::create_dir(&own).expect("made");
    for name in ["kernel", "initramfs.cpio.zst"] {
        symlink(Path::new("..").join(name), own.join(name)).expect("made");
    }
    fs::remove_file(dir.path().join("boot.ipxe")).expect("there");
    fs::write(dir.path().join("boot.ipxe"), script).expect("written");
    dir
}

/// Boots by this firmware with these certificates in the script.
fn enrolls(firmware: &str, platform: &Platform, certificates: &str) {
    platform.expect(TOKEN, UUID);
    let template = fs::read_to_string(bundle().join("template.ipxe.erb")).expect("of the bundle");
    let script = rendered_of(
        &template,
        &[
            ("image_base", SERVED),
            ("bootstrap_token", TOKEN),
            ("platform_url", &format!("https://{NODE_ADDRESS}")),
            ("ca_pem_inline", certificates),
        ],
    );
    assert!(script.starts_with("#!ipxe\n"), "{script}");
    let dir = laid_out(&script);
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(dir.path()).arg("--no-verify-sums");
    command.args(["--as", "net", "--firmware", firmware, "--timeout", &patience(400)]);
    // Enough for an agent that is emulated beside other programs; the ready line may come first.
    command.args(["--settle", "60", "--reach", &platform.reach()]);
    let said = good_boot(&mut command);
    let line = format!("powernode: ready instance={UUID} source=cmdline root=");
    let ready = said.lines().find(|said| said.contains(&line));
    assert!(
        ready.is_some_and(|ready| ready.contains(" agent=active restarts=0")),
        "{firmware}: {line}… agent=active restarts=0 is not in:\n{said}"
    );
    let want = [Enrolled {
        token: TOKEN.to_owned(),
        common_name: UUID.to_owned(),
    }];
    assert_eq!(platform.enrolled(), want, "{:?}\n{said}", platform.refused());
    assert_eq!(platform.refused(), [""; 0], "{said}");
}

/// The one boot by `ipxe.efi` of `.ci/run`: the authority of the platform is the second certificate.
#[test]
#[ignore = "long: a bundle is built and booted; cargo test -- --include-ignored"]
fn the_script_with_two_certificates_boots_by_uefi() {
    let platform = Platform::for_machines(Arc::new(Authority::new()));
    let other = String::from_utf8(Authority::new().pem()).expect("text");
    enrolls(
        "uefi",
        &platform,
        &format!("subject=other\n{other}subject=ours\r\n{}", platform.ca()),
    );
}

/// What `.ci/nightly` runs.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: a boot; cargo test -- --ignored nightly::"]
    fn the_script_with_one_certificate_boots_by_bios() {
        let platform = Platform::for_machines(Arc::new(Authority::new()));
        enrolls("bios", &platform, &platform.ca());
    }
}
