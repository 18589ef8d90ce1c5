//! `pnb remote check`: who pnb is, what it may do, and what a worker is.

use crate::{
    buildgrid::{token, token_until},
    double::{Executed, RemoteDouble},
    engine::{Casd, CasdOptions},
    ground::{Built, Ground},
    tls::Authority,
    workplace::engine,
};
use serde_json::Value;
use std::{fs, path::PathBuf};
use tonic::Code;

fn check(ground: &Ground, arguments: &[&str]) -> Built {
    ground.built("none", &[&["remote", "check"], arguments].concat())
}

/// The last line, which is the object of the whole command.
fn object(built: &Built) -> Value {
    serde_json::from_str(built.said.lines().last().expect("a line")).expect("JSON")
}

#[test]
fn an_engine_is_measured_with_an_action_that_says_what_its_sandbox_is() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    let url = casd.url();
    let plain = check(&ground, &["--remote", &url]);
    assert_eq!(plain.code, 0, "{}", plain.said);
    for line in [
        "\n  you are      anybody: no token and no certificate is shown\n",
        "\n  running      allowed, ",
        " ms for the smallest action: ",
        " ms in the queue, ",
        "\n  asked for    ISA=x86-64, OSFamily=linux, pnb-sandbox=full\n",
        "\n  worker       the worker, which the engine does not name\n",
        "\n  sandbox      sandbox on the worker: whole (",
        "\nthe cache can be read and written, and actions run in a whole sandbox\n",
        &format!("--remote {url}"),
    ] {
        assert!(plain.said.contains(line), "{line:?} is not in\n{}", plain.said);
    }
    // The same layers as those of this machine, which is the worker; and another action each time.
    let doctor = ground.built("none", &["doctor", "--json"]).said;
    let own = doctor
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let own: Vec<Value> = own
        .filter(|value| value["layer"].is_string())
        .map(|value| value["layer"].clone())
        .collect();
    let told = object(&check(&ground, &["--json", "--remote", &url]));
    let layers = told["layers"].as_array().expect("a list").iter();
    assert_eq!(layers.map(|layer| layer["name"].clone()).collect::<Vec<_>>(), own);
    assert_eq!(
        (&told["may_execute"], &told["sandbox_whole"]),
        (&true.into(), &true.into()),
        "{told}"
    );
    let times = ["action_us", "queued_us", "ran_us"].map(|name| told[name].as_u64().expect("a time"));
    assert!(times[0] > times[2] && times[2] > 0, "{told}");
    assert_eq!(told["properties"]["ISA"], "x86-64");
    // The cache of an engine alone is looked at as one.
    let cache = check(&ground, &["--remote-cache", &url]);
    assert!(
        cache.said.contains("can be read and written\n") && !cache.said.contains("running"),
        "{}",
        cache.said
    );
}

#[test]
fn a_server_that_runs_nothing_or_not_for_everybody_is_told() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::start(dir.path(), &CasdOptions::default());
    let alone = check(&ground, &["--remote", &casd.url()]);
    assert_eq!(alone.code, 4, "{}", alone.said);
    assert!(
        alone.said.contains("it is a cache alone and runs no actions"),
        "{}",
        alone.said
    );
    let denying = RemoteDouble::with_worker(|_, _| Executed::Refused(Code::PermissionDenied, "not you"));
    let url = denying.url();
    let denied = check(&ground, &["--json", "--remote", &url]);
    assert_eq!(denied.code, 4, "{}", denied.said);
    // One that may not write has no inputs on the engine.
    denying.kept().faults.reader_only = true;
    let reader = check(&ground, &["--json", "--remote", &url]);
    assert_eq!(reader.code, 4, "{}", reader.said);
    let told = object(&reader);
    assert_eq!(
        (&told["may_write"], &told["may_execute"]),
        (&false.into(), &false.into()),
        "{told}"
    );
    assert_eq!(told["execute_refused"], "nothing can be written");
    // One that takes inputs and no results from its clients runs actions all the same.
    let (engine, _) = engine(Box::new(|_, _| {}));
    engine.kept().faults.keeps_results = true;
    let told = object(&check(&ground, &["--json", "--remote", &engine.url()]));
    assert_eq!(
        (&told["may_write"], &told["may_execute"]),
        (&false.into(), &true.into()),
        "{told}"
    );
}

#[test]
fn who_pnb_is_is_told_without_the_token() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let file = |name: &str, content: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("written");
        path
    };
    let double = RemoteDouble::start();
    let url = double.url();
    for (text, said, claims) in [
        (
            token_until("ci-main", 4_000_000_000),
            "ci-main, by a token for ",
            Some(("ci-main", 4_000_000_000_u64)),
        ),
        (
            token_until("old", 1),
            "old, by a token that has ended\n",
            Some(("old", 1)),
        ),
        (
            "opaque-secret".to_owned(),
            "who a token says, which does not tell pnb\n",
            None,
        ),
    ] {
        let path = file("token", text.as_bytes());
        let path = path.to_str().expect("UTF-8");
        let plain = check(&ground, &["--remote-cache", &url, "--remote-token-file", path]);
        assert_eq!(plain.code, 0, "{}", plain.said);
        assert!(
            plain.said.contains(&format!("\n  you are      {said}")),
            "{}",
            plain.said
        );
        let json = check(
            &ground,
            &["--json", "--remote-cache", &url, "--remote-token-file", path],
        );
        let told = object(&json);
        assert_eq!(told["token"]["jwt"], claims.is_some(), "{told}");
        if let Some((subject, end)) = claims {
            assert_eq!(
                (&told["token"]["sub"], &told["token"]["exp"]),
                (&subject.into(), &end.into())
            );
        }
        let secret = text.rsplit('.').next().expect("a part");
        assert!(
            !plain.said.contains(secret) && !json.said.contains(secret),
            "the token is shown"
        );
    }
    assert_ne!(token("x"), token("y"), "tokens are of their subjects");
    let authority = Authority::new();
    let double = RemoteDouble::with_tls(&authority, true);
    let (certificate, key) = authority.pair("client");
    let (ca, cert, key) = (
        file("ca.pem", &authority.pem()),
        file("cert.pem", &certificate),
        file("key.pem", &key),
    );
    let path = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
    let (ca, cert, key, url) = (path(&ca), path(&cert), path(&key), double.url());
    let line = [
        "--remote-cache",
        &url,
        "--remote-cert",
        &cert,
        "--remote-key",
        &key,
        "--ca-file",
        &ca,
    ];
    let told = check(&ground, &line);
    assert_eq!(told.code, 0, "{}", told.said);
    assert!(
        told.said.contains(", by a certificate\n") && told.said.contains("you are      CN="),
        "{}",
        told.said
    );
}
