//! What an auditor sees.

use crate::project::*;
use std::fs;

#[test]
fn the_artifact_passes_and_every_changed_file_is_named() {
    let said = good(pnb(repository(), &store()).arg("audit").arg("-v").arg(artifact()));
    assert!(!said.contains("FAIL") && said.matches("ok  ").count() >= 9, "{said}");
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(artifact().join("build-manifest.json")).expect("there")).expect("JSON");
    assert_eq!(manifest["hermetic"], true);
    assert_eq!(manifest["agent"]["kind"], "diagnostic");
    for (name, codes) in [
        ("kernel", [41, 43]),
        ("initramfs.cpio.zst", [41, 43]),
        ("build-manifest.json", [41, 42]),
        ("SHA256SUMS", [40, 41]),
        ("sbom.cdx.json", [41, 47]),
    ] {
        let copy = copy_of_artifact();
        let path = copy.path().join(name);
        let middle = fs::metadata(&path).expect("there").len() / 2;
        flip(&path, middle);
        let output = pnb(repository(), &store())
            .arg("audit")
            .arg(copy.path())
            .output()
            .expect("starts");
        let said = text(&output);
        let code = output.status.code().expect("exits");
        assert!(
            codes.contains(&code) && said.contains("FAIL"),
            "{name}: exit {code}\n{said}"
        );
        assert!(
            said.contains(name) || name == "SHA256SUMS",
            "{name} is not named:\n{said}"
        );
    }
}

#[test]
fn all_artifacts_carry_one_root_and_one_without_a_manifest_is_named() {
    let said = good(pnb(repository(), &store()).arg("audit").arg("-v").arg(images()));
    assert!(said.contains(" in 6 variants") && !said.contains("FAIL"), "{said}");
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let copy = copy_of_artifact();
    fs::create_dir_all(dir.path().join("kernel-initrd")).expect("made");
    fs::rename(copy.keep(), dir.path().join("kernel-initrd/amd64")).expect("moved");
    fs::create_dir_all(dir.path().join("raw/amd64")).expect("made");
    fs::write(dir.path().join("raw/amd64/disk.raw"), "whatever").expect("written");
    let said = bad(pnb(repository(), &store()).arg("audit").arg(dir.path()), 49);
    assert!(said.contains("raw/amd64 has no build-manifest.json"), "{said}");
}

#[test]
fn the_statements_say_nothing_of_this_machine() {
    #[expect(clippy::disallowed_methods, reason = "to see that it is not in there")]
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let scratch = scratch();
    for name in ["build-manifest.json", "sbom.cdx.json", "provenance.slsa.json"] {
        let text = fs::read_to_string(artifact().join(name)).expect("there");
        for leak in [
            scratch.to_str().expect("UTF-8"),
            repository().to_str().expect("UTF-8"),
            &format!("\"{home}/"),
        ] {
            assert!(!text.contains(leak), "{name} names {leak}");
        }
    }
}
