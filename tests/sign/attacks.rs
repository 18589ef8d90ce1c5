//! Bundles that somebody changed, and bundles of others: pnb refuses each by its own line and code; the verdicts of both cosigns beside it.

use crate::work::*;
use pnb::sign::sign_v1_statement;
use serde_json::{Value, json};
use std::fs;

const CONTENT: &[u8] = b"the bytes of an artifact\n";

struct Attack {
    name: &'static str,
    /// The bytes of the bundle.
    bundle: Vec<u8>,
    /// The bytes of the file.
    file: Vec<u8>,
    /// Options in place of the right ones: of pnb, and of cosign.
    options: [Vec<&'static str>; 2],
}

/// Bundles from which the attacks are made: two files signed with one certificate, one with another, with time stamps and without.
struct Material {
    bundle: Value,
    other: Value,
    later: Value,
    stamped: Value,
    stamped_other: Value,
    second: Value,
    statement: Value,
    provenance: Value,
}

fn material() -> Material {
    let plain = Places::default();
    let stamped = Places {
        stamped: true,
        ..plain.clone()
    };
    let second = Places {
        version: 2,
        ..stamped.clone()
    };
    let sign = |signer: &mut pnb::sign::Signer, content: &[u8]| {
        let (_, bundle) = signer.sign_file("file", &mut &content[..]).expect("signed");
        serde_json::from_str(bundle.json()).expect("JSON")
    };
    let (mut first, mut anew, mut with_time, mut of_two) =
        (signer(&plain), signer(&plain), signer(&stamped), signer(&second));
    let (digest, _) = first.sign_file("file", &mut &CONTENT[..]).expect("signed");
    let mut state = |statement: &str| {
        let bundle = first.sign_statement(statement).expect("signed");
        serde_json::from_str(bundle.json()).expect("JSON")
    };
    let provenance = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "file", "digest": {"sha256": digest.to_hex()}}], "predicate": {}});
    Material {
        statement: state(&sign_v1_statement(&[digest]).expect("written")),
        provenance: state(&provenance.to_string()),
        bundle: sign(&mut first, CONTENT),
        other: sign(&mut first, b"other"),
        // Another certificate begins in a later second, so that the time of the first entry is before it.
        later: {
            std::thread::sleep(std::time::Duration::from_millis(1100));
            sign(&mut anew, CONTENT)
        },
        stamped: sign(&mut with_time, CONTENT),
        stamped_other: sign(&mut with_time, b"other"),
        second: sign(&mut of_two, CONTENT),
    }
}

fn attacks(from: &Material) -> Vec<Attack> {
    let attack = |name, bundle: &Value| Attack {
        name,
        bundle: bundle.to_string().into_bytes(),
        file: CONTENT.to_vec(),
        options: [vec![], vec![]],
    };
    let changed = |name, bundle: &Value, change: &dyn Fn(&mut Value)| {
        let mut bundle = bundle.clone();
        change(&mut bundle);
        attack(name, &bundle)
    };
    let entry = |bundle: &Value| bundle["verificationMaterial"]["tlogEntries"][0].clone();
    let nobody = vec!["--identity", "https://git.test/nobody"];
    let cosign_nobody = vec!["--certificate-identity", "https://git.test/nobody"];
    let whole = from.bundle.to_string().into_bytes();
    let remove = |name: &'static str, field: &'static str, bundle: &Value| {
        changed(name, bundle, &|b| {
            let entry = b["verificationMaterial"]["tlogEntries"][0].as_object_mut();
            entry.expect("an entry").remove(field).expect("there");
        })
    };
    vec![
        Attack {
            file: b"tampered".to_vec(),
            ..attack("tampered file", &from.bundle)
        },
        attack("bundle of another file", &from.other),
        Attack {
            options: [nobody, cosign_nobody],
            ..attack("wrong identity", &from.bundle)
        },
        Attack {
            options: [
                vec!["--issuer", "https://git.test"],
                vec!["--certificate-oidc-issuer", "https://git.test"],
            ],
            ..attack("wrong issuer", &from.bundle)
        },
        changed("log entry of another file", &from.bundle, &|b| {
            b["verificationMaterial"]["tlogEntries"][0] = entry(&from.other);
        }),
        changed("log entry of another signature of the file", &from.bundle, &|b| {
            b["verificationMaterial"]["tlogEntries"][0] = entry(&from.later);
        }),
        changed("another certificate", &from.bundle, &|b| {
            b["verificationMaterial"]["certificate"] = from.later["verificationMaterial"]["certificate"].clone();
        }),
        changed("a key for the certificate", &from.bundle, &|b| {
            let material = b["verificationMaterial"].as_object_mut().expect("an object");
            material.remove("certificate");
            material.insert("publicKey".to_owned(), json!({"hint": "x"}));
        }),
        changed("another signature", &from.bundle, &|b| {
            b["messageSignature"]["signature"] = from.other["messageSignature"]["signature"].clone();
        }),
        remove("no inclusion proof", "inclusionProof", &from.bundle),
        changed(
            "no inclusion proof, as version 0.1",
            &remove("", "inclusionProof", &from.bundle).value(),
            &|b| {
                b["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1".into();
            },
        ),
        changed("no log entry", &from.stamped, &|b| {
            b["verificationMaterial"]["tlogEntries"] = json!([])
        }),
        remove("no promise of the log, no time stamp", "inclusionPromise", &from.bundle),
        changed("changed time", &from.bundle, &|b| {
            let time = &mut b["verificationMaterial"]["tlogEntries"][0]["integratedTime"];
            let seconds: i64 = time.as_str().expect("text").parse().expect("a number");
            *time = (seconds + 1).to_string().into();
        }),
        changed("changed tree", &from.bundle, &|b| {
            let proof = &mut b["verificationMaterial"]["tlogEntries"][0]["inclusionProof"];
            proof["rootHash"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
        }),
        changed("time stamp of another signature", &from.stamped, &|b| {
            b["verificationMaterial"]["timestampVerificationData"] =
                from.stamped_other["verificationMaterial"]["timestampVerificationData"].clone();
        }),
        changed("log of version 2, no time stamp", &from.second, &|b| {
            b["verificationMaterial"]["timestampVerificationData"] = json!({});
        }),
        attack("provenance in place of a signature", &from.provenance),
        changed("statement about another file", &from.statement, &|b| {
            let statement = sign_v1_statement(&[pnb::model::Sha256Digest::new([7; 32])]).expect("written");
            b["dsseEnvelope"]["payload"] = base64(statement.as_bytes()).into();
        }),
        changed("changed statement about this file", &from.statement, &|b| {
            let statement =
                String::from_utf8(decoded(b["dsseEnvelope"]["payload"].as_str().expect("text"))).expect("UTF-8");
            b["dsseEnvelope"]["payload"] = base64(
                statement
                    .replace("\"predicate\": {}", "\"predicate\": {\"x\": \"y\"}")
                    .as_bytes(),
            )
            .into();
        }),
        Attack {
            bundle: b"not JSON".to_vec(),
            ..attack("not JSON", &from.bundle)
        },
        Attack {
            bundle: whole[..200].to_vec(),
            ..attack("truncated", &from.bundle)
        },
        Attack {
            bundle: vec![],
            ..attack("empty", &from.bundle)
        },
        Attack {
            bundle: vec![0xff; 100],
            ..attack("bytes", &from.bundle)
        },
        Attack {
            bundle: vec![b'['; 100_000],
            ..attack("deep", &from.bundle)
        },
    ]
}

impl Attack {
    fn value(&self) -> Value {
        serde_json::from_slice(&self.bundle).expect("JSON")
    }
}

#[test]
fn each_attack_is_refused_by_its_own_line() {
    let from = material();
    let dir = tempfile::tempdir().expect("scratch");
    let file = dir.path().join("file");
    let bundle = dir.path().join("file.sigstore.json");

    // The control: what the attacks are made from verifies.
    fs::write(&file, CONTENT).expect("written");
    for good in [&from.bundle, &from.later, &from.stamped, &from.second, &from.statement] {
        fs::write(&bundle, good.to_string()).expect("written");
        let (code, text) = pnb(&file, &[]);
        assert_eq!(code, 0, "{text}");
    }
    fs::write(&bundle, from.bundle.to_string()).expect("written");
    for cosign in Cosign::BOTH {
        let (accepted, said) = cosign.accepts(&file, &bundle, None, &[]);
        assert!(accepted, "{cosign:?}: {said}");
    }

    let mut lines = Vec::new();
    for attack in attacks(&from) {
        fs::write(&file, &attack.file).expect("written");
        fs::write(&bundle, &attack.bundle).expect("written");
        let [ours, theirs] = &attack.options;
        let (code, text) = pnb(&file, ours);
        assert!((65..=69).contains(&code), "{}: {code} {text}", attack.name);
        // The last line is the verdict about all files.
        let (text, verdict) = text.trim_end().rsplit_once('\n').expect("two lines");
        assert!(verdict.starts_with("1 of 1 file is not signed by "), "{verdict}");
        let verdicts = Cosign::BOTH.map(|cosign| match cosign.accepts(&file, &bundle, None, theirs).0 {
            true => "accepts",
            false => "refuses",
        });
        lines.push(format!(
            "{} [cosign 2 {}, cosign 3 {}]\n  {code} {}",
            attack.name,
            verdicts[0],
            verdicts[1],
            without_numbers(text.trim_start_matches("FAIL  file  "))
        ));
    }
    insta::assert_snapshot!(lines.join("\n"), @"
    tampered file [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the bundle signs 87cb315877c169f78277527511bea380918cdef25edbc106b6ae27fb1d30510a, and this is d121be3103007b41edf96f8262925f8c7d61894afe9a041843b631f69445bc57
    bundle of another file [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the bundle signs d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, and this is 87cb315877c169f78277527511bea380918cdef25edbc106b6ae27fb1d30510a
    wrong identity [cosign 2 refuses, cosign 3 refuses]
      67 identity: https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1 signed, not https://git.test/nobody
    wrong issuer [cosign 2 refuses, cosign 3 refuses]
      68 issuer: the issuer of the identity is https://git.test/api/actions, not https://git.test
    log entry of another file [cosign 2 refuses, cosign 3 refuses]
      69 log: artifact mismatch: artifact hash mismatch for hashedrekord entry
    log entry of another signature of the file [cosign 2 refuses, cosign 3 refuses]
      69 log: log entry does not match the bundle: certificate in bundle does not match certificate in Rekor entry
    another certificate [cosign 2 refuses, cosign 3 refuses]
      66 certificate: certificate chain is invalid: certificate chain validation failed: CertNotValidYet { time: UnixTime(NUMBER), not_before: UnixTime(NUMBER) }
    a key for the certificate [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the bundle has no certificate: a key of unknown origin signed
    another signature [cosign 2 refuses, cosign 3 refuses]
      65 bundle: invalid signature: signature verification failed: Verification error: ECDSA_P256_SHA256 signature invalid
    no inclusion proof [cosign 2 refuses, cosign 3 refuses]
      69 log: a log entry of the bundle has no proof that it is in the log
    no inclusion proof, as version 0.1 [cosign 2 accepts, cosign 3 accepts]
      65 bundle: the bundle is of the older form application/vnd.dev.sigstore.bundle+json;version=0.1; only 0.3 counts
    no log entry [cosign 2 refuses, cosign 3 refuses]
      69 log: Bundle error: application/vnd.dev.sigstore.bundle.v0.3+json bundle must have an inclusion proof
    no promise of the log, no time stamp [cosign 2 refuses, cosign 3 refuses]
      69 log: no verified timestamp: No verified timestamp found. V1 bundles require either an RFC3161 timestamp or a tlog entry with both an integrated time and an inclusion_promise (SET).
    changed time [cosign 2 refuses, cosign 3 refuses]
      69 log: invalid inclusion promise: SET verification failed: Verification error: ECDSA_P256_SHA256 signature invalid
    changed tree [cosign 2 refuses, cosign 3 refuses]
      69 log: Bundle error: inclusion proof root hash does not match checkpoint root hash
    time stamp of another signature [cosign 2 accepts, cosign 3 accepts]
      69 log: invalid RFC 3161 timestamp: TSA timestamp verification failed: Timestamp message hash mismatch: expected DIGEST, got DIGEST
    log of version 2, no time stamp [cosign 2 refuses, cosign 3 refuses]
      69 log: no verified timestamp: V2 bundle requires RFC3161 timestamp but none could be verified. V2 tlog entries have no integrated time by design. Ensure TSA certificates are present in the trusted root.
    provenance in place of a signature [cosign 2 accepts, cosign 3 accepts]
      65 bundle: the bundle has a statement of type https://slsa.dev/provenance/v1, which is no signature
    statement about another file [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the statement of the bundle is about 0707070707070707070707070707070707070707070707070707070707070707, and this is 87cb315877c169f78277527511bea380918cdef25edbc106b6ae27fb1d30510a
    changed statement about this file [cosign 2 refuses, cosign 3 refuses]
      65 bundle: invalid signature: DSSE signature verification failed: Verification error: ECDSA_P256_SHA256 signature invalid
    not JSON [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the bundle is unreadable: JSON error: expected ident at line 1 column 2
    truncated [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the bundle is unreadable: JSON error: EOF while parsing a string at line 1 column 200
    empty [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the bundle is unreadable: JSON error: EOF while parsing a value at line 1 column 0
    bytes [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the bundle is not UTF-8
    deep [cosign 2 refuses, cosign 3 refuses]
      65 bundle: the bundle is unreadable: JSON error: invalid type: sequence, expected struct BundleHelper at line 1 column 0
    ");
}

#[test]
fn a_root_that_did_not_issue_the_certificate_is_no_root() {
    let dir = tempfile::tempdir().expect("scratch");
    let file = dir.path().join("file");
    fs::write(&file, CONTENT).expect("written");
    let (_, bundle) = signer(&Places::default())
        .sign_file("file", &mut &CONTENT[..])
        .expect("signed");
    fs::write(dir.path().join("file.sigstore.json"), bundle.json()).expect("written");
    assert_eq!(pnb(&file, &[]).0, 0);
    let root: Value = serde_json::from_slice(&fs::read(services().root_file()).expect("written")).expect("JSON");
    let whole = root.clone();
    let verdict = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut root = whole.clone();
        change(&mut root);
        let path = dir.path().join("root.json");
        fs::write(&path, root.to_string()).expect("written");
        let (code, text) = pnb(&file, &["--trusted-root", path.to_str().expect("UTF-8")]);
        let text = without_logs(&text.replace(dir.path().to_str().expect("UTF-8"), "DIR"), &whole);
        format!("{name}\n  {code} {}", text.trim_start_matches("FAIL  file  "))
    };
    let stamper = root["timestampAuthorities"][0]["certChain"].clone();
    let lines = [
        verdict("another authority", &|r| {
            r["certificateAuthorities"][0]["certChain"] = stamper.clone()
        }),
        verdict("another log", &|r| {
            r["tlogs"][0] = r["ctlogs"][0].clone();
        }),
        verdict("another log of certificates", &|r| {
            r["ctlogs"][0] = r["tlogs"][0].clone();
        }),
        verdict("an authority that had ended", &|r| {
            r["certificateAuthorities"][0]["validFor"] =
                json!({"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"});
        }),
        verdict("no logs", &|r| r["tlogs"] = json!([])),
        verdict("no root", &|r| *r = json!({})),
        {
            let (code, text) = pnb(&file, &["--trusted-root", "public-good"]);
            let text = without_logs(&text, &whole);
            format!("the public one\n  {code} {}", text.trim_start_matches("FAIL  file  "))
        },
        {
            let (code, text) = pnb(&file, &["--trusted-root", "absent.json"]);
            format!("a missing file\n  {code} {text}")
        },
    ];
    insta::assert_snapshot!(lines.join("\n"), @"
    another authority
      66 certificate: certificate chain is invalid: certificate chain validation failed: UnknownIssuer
    1 of 1 file is not signed by https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1 as it must be
    another log
      69 log: invalid inclusion promise: No log key valid at integrated time TIME for log ID LOG
    1 of 1 file is not signed by https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1 as it must be
    another log of certificates
      66 certificate: invalid signed certificate timestamp: SCT signature verification failed: Verification error: key not found or not valid at TIME: LOG
    1 of 1 file is not signed by https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1 as it must be
    an authority that had ended
      66 certificate: no trusted certificate authority is valid at TIME
    1 of 1 file is not signed by https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1 as it must be
    no logs
      66 error: failed to use the trusted root DIR/root.json: it has no tlogs, and no signature verifies without
    no root
      66 error: failed to use the trusted root DIR/root.json: failed to parse JSON: missing field `mediaType` at line 1 column 2
    the public one
      69 log: invalid inclusion promise: No log key valid at integrated time TIME for log ID LOG
    1 of 1 file is not signed by https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1 as it must be
    a missing file
      66 error: failed to read the trusted root absent.json: No such file or directory (os error 2)
    ");
}

/// The text with `LOG` for each identifier of a log of the root.
fn without_logs(text: &str, root: &Value) -> String {
    let mut text = text.to_owned();
    for logs in ["tlogs", "ctlogs"] {
        let id = root[logs][0]["logId"]["keyId"].as_str().unwrap_or_default();
        let hex = hex::encode(decoded(id));
        text = text.replace(id, "LOG").replace(&hex, "LOG");
    }
    text
}

/// The text with `NUMBER` for each time that is a number, and `DIGEST` for each digest of a signature, which are other ones in each run.
fn without_numbers(text: &str) -> String {
    let known = [CONTENT, b"tampered", b"other"].map(hex_of);
    let digest = |word: &str| {
        let bare = word.trim_end_matches(',');
        let other = bare.len() == 64 && !known.iter().any(|k| k == bare) && bare != "07".repeat(32);
        match other {
            true => word.replace(bare, "DIGEST"),
            false => word.to_owned(),
        }
    };
    let words: Vec<String> = text.split(' ').map(digest).collect();
    let parts = words.join(" ");
    let mut parts = parts.split("UnixTime(");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("UnixTime(NUMBER");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

#[test]
fn the_command_says_what_is_missing() {
    let dir = tempfile::tempdir().expect("scratch");
    let file = dir.path().join("file");
    fs::write(&file, CONTENT).expect("written");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pnb"));
        command
            .arg("verify-signature")
            .args(arguments)
            .current_dir(dir.path())
            .env_remove("PNB_TRUSTED_ROOT");
        let done = command.output().expect("pnb starts");
        let text = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
        format!("{} {}", done.status.code().expect("not killed"), text.trim_end())
    };
    let who = ["--identity", "a@b", "--issuer", "https://c"];
    let with = |more: &[&'static str]| run(&[&["file"], &who[..], more].concat());
    let lines = [
        run(&["file", "--trusted-root", "public-good"])
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
        with(&[]),
        with(&["--trusted-root", "public-good"]),
        with(&["--trusted-root", "public-good", "--bundle", "."]),
        run(&[&["absent"], &who[..], &["--trusted-root", "public-good"]].concat()),
        run(&[&["."], &who[..], &["--trusted-root", "public-good", "--bundle", "x"]].concat()),
        run(&[&["."], &who[..], &["--trusted-root", "public-good"]].concat()),
    ];
    insta::assert_snapshot!(lines.join("\n"), @"
    2 error: the following required arguments were not provided:
    2 error: failed to choose whom to trust: no --trusted-root is given

    hint: name the trusted_root.json of the authority that the signer uses, or public-good for the public instance of sigstore, which signs for no Gitea or Forgejo
    65 FAIL  file  bundle: there is no bundle file.sigstore.json
    1 of 1 file is not signed by a@b as it must be
    65 FAIL  file  bundle: the bundle . cannot be read: it is no file
    1 of 1 file is not signed by a@b as it must be
    2 error: failed to verify absent: there is no such file or directory, and it is no image in a registry
    2 error: failed to verify .: it is a directory, whose files have their own bundles; leave out --bundle
    65 error: failed to read ./SHA256SUMS: No such file or directory (os error 2)
    ");
}

fn decoded(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0u32;
        for at in 0..4 {
            bits = bits << 6 | chunk.get(at).map_or(0, |c| u32::from(value(*c)));
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    out
}
