//! What is signed verifies: here, and with both cosigns.

use crate::work::*;
use pnb::{
    model::Sha256Digest,
    sign::{BundleVerifier, Purpose, SIGN_PREDICATE_TYPE, SignedSubject, sign_v1_statement, verify_image},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

const CONTENT: &[u8] = b"the bytes of an artifact\n";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

fn provenance(digest: &Sha256Digest) -> String {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "file", "digest": {"sha256": digest.to_hex()}}],
        "predicateType": PROVENANCE,
        "predicate": {"buildDefinition": {"buildType": "urn:test", "externalParameters": {}}, "runDetails": {"builder": {"id": "urn:test"}}},
    })
    .to_string()
}

fn ways() -> [(&'static str, Places); 3] {
    let plain = Places::default();
    let stamped = Places {
        stamped: true,
        ..plain.clone()
    };
    let second = Places {
        version: 2,
        ..stamped.clone()
    };
    [
        ("log 1", plain),
        ("log 1 and a time stamp", stamped),
        ("log 2 and a time stamp", second),
    ]
}

#[test]
fn a_file_verifies_here_and_with_both_cosigns() {
    for (way, places) in ways() {
        let dir = tempfile::tempdir().expect("scratch");
        let file = dir.path().join("file");
        fs::write(&file, CONTENT).expect("written");
        let mut signer = signer(&places);
        let (digest, bundle) = signer.sign_file("file", &mut &CONTENT[..]).expect(way);
        assert_eq!((bundle.artifact(), bundle.predicate_type()), (digest, None), "{way}");
        assert!((now() - bundle.time()).abs() < 60, "{way}");
        fs::write(dir.path().join("file.sigstore.json"), bundle.json()).expect("written");
        let (code, text) = pnb(&file, &[]);
        let (first, verdict) = text.split_once('\n').expect("two lines");
        assert_eq!(
            (code, first),
            (0, "ok    file  signed at TIME, entry INDEX of the log"),
            "{way}"
        );
        assert!(verdict.starts_with("1 file signed by "), "{verdict}");

        // The bundle is of version 0.3, as others read it.
        let value: Value = serde_json::from_str(bundle.json()).expect("JSON");
        assert_eq!(value["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
        assert!(value["verificationMaterial"]["certificate"]["rawBytes"].is_string());
        for cosign in Cosign::BOTH {
            // cosign 2.5 refuses the entry 0 of a log, which every entry of this log of version 2 is.
            if (places.version, cosign) == (2, Cosign::Two) {
                continue;
            }
            let (accepted, said) = cosign.accepts(&file, &dir.path().join("file.sigstore.json"), None, &[]);
            assert!(accepted, "{way}, {cosign:?}: {said}");
        }
    }
}

#[test]
fn a_statement_verifies_here_and_with_both_cosigns() {
    for (way, places) in ways() {
        let dir = tempfile::tempdir().expect("scratch");
        let file = dir.path().join("file");
        fs::write(&file, CONTENT).expect("written");
        let digest: Sha256Digest = hex_of(CONTENT).parse().expect("a digest");
        let mut signer = signer(&places);
        let image = signer
            .sign_statement(&sign_v1_statement(&[digest]).expect("written"))
            .expect(way);
        assert_eq!(image.predicate_type(), Some(SIGN_PREDICATE_TYPE));
        let attested = signer.sign_statement(&provenance(&digest)).expect(way);
        assert_eq!(attested.predicate_type(), Some(PROVENANCE));

        let verifier = BundleVerifier::new(&services().root()).expect("a verifier");
        let verify = |json: &str, purpose| verifier.verify(json.as_bytes(), &digest, purpose, &expected());
        for purpose in [Purpose::File, Purpose::Image, Purpose::Statement(SIGN_PREDICATE_TYPE)] {
            verify(image.json(), purpose).expect(way);
        }
        verify(attested.json(), Purpose::Statement(PROVENANCE)).expect(way);
        let bundle = dir.path().join("bundle");
        for (signed, kind) in [(&image, SIGN_PREDICATE_TYPE), (&attested, "slsaprovenance1")] {
            fs::write(&bundle, signed.json()).expect("written");
            for cosign in Cosign::BOTH {
                if (places.version, cosign) == (2, Cosign::Two) {
                    continue;
                }
                let (accepted, said) = cosign.accepts(&file, &bundle, Some(kind), &[]);
                assert!(accepted, "{way}, {kind}, {cosign:?}: {said}");
            }
        }
    }
}

#[test]
fn an_image_needs_a_signature_of_each_manifest_and_no_attestation_is_one() {
    let index = Sha256Digest::new([1; 32]);
    let manifest = Sha256Digest::new([2; 32]);
    let mut signer = signer(&Places::default());
    let signature = |signer: &mut pnb::sign::Signer, digest| {
        let statement = sign_v1_statement(&[digest]).expect("written");
        signer
            .sign_statement(&statement)
            .expect("signed")
            .json()
            .as_bytes()
            .to_vec()
    };
    let of_index = signature(&mut signer, index);
    let of_manifest = signature(&mut signer, manifest);
    let attested = signer
        .sign_statement(&provenance(&manifest))
        .expect("signed")
        .json()
        .as_bytes()
        .to_vec();
    let bytes = signer
        .sign_digest("manifest", &manifest)
        .expect("signed")
        .json()
        .as_bytes()
        .to_vec();

    let verifier = BundleVerifier::new(&services().root()).expect("a verifier");
    let verdict = |digest, bundles: &[&Vec<u8>]| {
        let subject = SignedSubject {
            digest,
            bundles: bundles.iter().map(|bundle| bundle.to_vec()).collect(),
        };
        let mut results = verify_image(&verifier, &[subject], &expected());
        let (of, result) = results.pop().expect("one");
        assert_eq!(of, digest);
        result.map(|_| "ok".to_owned()).unwrap_or_else(|e| e.to_string())
    };
    assert_eq!(verdict(index, &[&of_index]), "ok");
    assert_eq!(verdict(manifest, &[&of_manifest, &attested]), "ok");
    assert_eq!(verdict(manifest, &[&attested, &b"junk".to_vec(), &of_manifest]), "ok");
    let lines = [
        verdict(manifest, &[]),
        verdict(manifest, &[&of_index]),
        verdict(manifest, &[&attested]),
        verdict(manifest, &[&bytes]),
    ];
    insta::assert_snapshot!(lines.join("\n"), @"
    bundle: no signature is attached
    bundle: the statement of the bundle is about 0101010101010101010101010101010101010101010101010101010101010101, and this is 0202020202020202020202020202020202020202020202020202020202020202
    bundle: the bundle has a statement of type https://slsa.dev/provenance/v1, which is no signature
    bundle: the bundle signs bytes and has no statement about an image
    ");
}

#[test]
fn the_signature_for_cosign_2_verifies_with_it() {
    let dir = tempfile::tempdir().expect("scratch");
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let image = Sha256Digest::new([3; 32]);
    let signature = signer(&Places::default())
        .sign_legacy(&image, "registry.test/acme/image")
        .expect("signed");
    let payload: Value = serde_json::from_slice(signature.payload()).expect("JSON");
    assert_eq!(
        payload["critical"]["image"]["docker-manifest-digest"],
        format!("sha256:{}", "03".repeat(32))
    );
    let annotation = |name: &str| signature.annotations()[name].clone();
    let certificate = annotation("dev.sigstore.cosign/certificate");
    // The form in which cosign 2 keeps the same parts in one file.
    let parts = json!({
        "base64Signature": annotation("dev.cosignproject.cosign/signature"),
        "cert": base64(certificate.as_bytes()),
        "rekorBundle": serde_json::from_str::<Value>(&annotation("dev.sigstore.cosign/bundle")).expect("JSON"),
    });
    let root: Value = serde_json::from_slice(&fs::read(services().root_file()).expect("written")).expect("JSON");
    let pem = |kind: &str, value: &Value| {
        let text = value["rawBytes"].as_str().expect("base64");
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
    };
    let authority = pem(
        "CERTIFICATE",
        &root["certificateAuthorities"][0]["certChain"]["certificates"][0],
    );
    // The chain beside the certificate ends with the authority's own.
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(plain(&annotation("dev.sigstore.cosign/chain")), plain(&authority));

    let file = write("payload", signature.payload());
    let verify = |parts: &Value, file: &Path| {
        let mut command = Cosign::Two.command();
        let bundle = write("bundle", parts.to_string().as_bytes());
        command
            .args([
                "verify-blob",
                "--offline",
                "--certificate-identity",
                IDENTITY,
                "--certificate-oidc-issuer",
                ISSUER,
            ])
            .arg("--bundle")
            .arg(bundle)
            .arg(file)
            .env("SIGSTORE_ROOT_FILE", write("root", authority.as_bytes()))
            .env(
                "SIGSTORE_REKOR_PUBLIC_KEY",
                write("log", pem("PUBLIC KEY", &root["tlogs"][0]["publicKey"]).as_bytes()),
            )
            .env(
                "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE",
                write("ct", pem("PUBLIC KEY", &root["ctlogs"][0]["publicKey"]).as_bytes()),
            );
        let done = command.output().expect("cosign starts");
        (
            done.status.success(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let (accepted, said) = verify(&parts, &file);
    assert!(accepted, "{said}");
    let mut later = parts.clone();
    let time = later["rekorBundle"]["Payload"]["integratedTime"]
        .as_i64()
        .expect("a time");
    later["rekorBundle"]["Payload"]["integratedTime"] = json!(time + 1);
    assert!(!verify(&later, &file).0, "a changed time");
    assert!(!verify(&parts, &write("other", b"{}")).0, "another payload");
}

#[test]
fn every_file_of_a_directory_needs_its_signature() {
    let dir = tempfile::tempdir().expect("scratch");
    let artifact = dir.path().join("artifact");
    fs::create_dir_all(artifact.join("oci/blobs")).expect("made");
    let mut signer = signer(&Places::default());
    let names = ["build-manifest.json", "kernel", "oci/blobs/one"];
    let mut sums = String::new();
    for name in names {
        let content = format!("content of {name}\n");
        fs::write(artifact.join(name), &content).expect("written");
        sums.push_str(&format!("{}  {name}\n", hex_of(content.as_bytes())));
    }
    fs::write(artifact.join("SHA256SUMS"), &sums).expect("written");
    for name in names.iter().chain(&["SHA256SUMS"]) {
        let mut file = fs::File::open(artifact.join(name)).expect("opens");
        let (_, bundle) = signer.sign_file(name, &mut file).expect("signed");
        fs::write(artifact.join(format!("{name}.sigstore.json")), bundle.json()).expect("written");
    }
    insta::assert_snapshot!(pnb(&artifact, &[]).1, @"
    ok    SHA256SUMS           signed at TIME, entry INDEX of the log
    ok    build-manifest.json  signed at TIME, entry INDEX of the log
    ok    kernel               signed at TIME, entry INDEX of the log
    ok    oci/blobs/one        signed at TIME, entry INDEX of the log
    4 files signed by https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1
    next: pnb audit artifact
    ");
    assert_eq!(pnb(&artifact, &[]).0, 0);
    let (code, text) = pnb(&artifact, &["--json"]);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, value["files"].as_array().map(Vec::len)), (0, Some(4)));
    assert_eq!(value["files"][1]["file"], "build-manifest.json");

    // One thing at a time is taken away or changed.
    let all = |undo: &dyn Fn()| {
        let (code, text) = pnb(&artifact, &[]);
        undo();
        let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("FAIL")).collect();
        format!("{code}: {}", failed.join(" | ")).trim_end().to_owned()
    };
    let kernel = artifact.join("kernel");
    let mut lines = Vec::new();
    for name in ["SHA256SUMS", "oci/blobs/one"] {
        let bundle = artifact.join(format!("{name}.sigstore.json"));
        fs::rename(&bundle, dir.path().join("away")).expect("moved");
        lines.push(all(&|| fs::rename(dir.path().join("away"), &bundle).expect("moved")));
    }
    fs::rename(&kernel, dir.path().join("away")).expect("moved");
    lines.push(all(&|| fs::rename(dir.path().join("away"), &kernel).expect("moved")));
    fs::write(&kernel, "other\n").expect("written");
    lines.push(all(&|| fs::write(&kernel, "content of kernel\n").expect("written")));
    // A list without the manifest, and with a changed file: both are new lists that nobody signed.
    let shorter: String = sums.split_inclusive('\n').skip(1).collect();
    fs::write(artifact.join("SHA256SUMS"), shorter).expect("written");
    lines.push(all(&|| fs::write(artifact.join("SHA256SUMS"), &sums).expect("written")));
    insta::assert_snapshot!(lines.join("\n"), @"
    65: FAIL  SHA256SUMS           bundle: there is no bundle artifact/SHA256SUMS.sigstore.json | FAIL  oci/blobs/one        bundle: there is no bundle artifact/SHA256SUMS.sigstore.json
    0:
    65: FAIL  kernel               bundle: the file cannot be read: No such file or directory (os error 2)
    65: FAIL  kernel               bundle: the file has the digest 7e4fa2eb8c7ac089739d5defc4489fad68a100d92082ca35c6b40a4524821f87, and SHA256SUMS lists bd3bcefa52ae25fc31f729f281ad9b03688c59c39f60cd9cdb615103589aee5a
    65: FAIL  SHA256SUMS           bundle: the bundle signs 8c1f9d5ee278b2fc629b9ca6194b3047257591c960e8de815161c7a481309264, and this is 7d5f8c05abf491760185b7fcbd5d8780e04659de01e19d45108caa5b6126347c | FAIL  build-manifest.json  bundle: SHA256SUMS does not list it | FAIL  oci/blobs/one        bundle: the bundle signs 8c1f9d5ee278b2fc629b9ca6194b3047257591c960e8de815161c7a481309264, and this is 7d5f8c05abf491760185b7fcbd5d8780e04659de01e19d45108caa5b6126347c
    ");
    assert_eq!(pnb(&artifact, &[]).0, 0, "whole again");
}
