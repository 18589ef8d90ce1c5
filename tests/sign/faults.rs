//! Tokens that cannot work, and services that do not: nothing is sent, or the message says which service and why.

use crate::work::*;
use pnb::{
    model::Sha256Digest,
    sign::{SignError, TokenSource},
};
use serde_json::{Value, json};
use std::fs;

const CONTENT: &[u8] = b"content";

/// Why a file is not signed.
fn failure(places: &Places, source: TokenSource) -> SignError {
    let signer = places.signer(source, MovedClock::new());
    let signed = signer.and_then(|mut signer| signer.sign_file("file", &mut &CONTENT[..]));
    signed.expect_err("refused")
}

#[test]
fn a_token_that_cannot_work_is_not_sent() {
    let before = services().requests("signingCert");
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        let text = token(&claims);
        let error = failure(
            &Places {
                authority: services().url("/unasked"),
                ..Places::default()
            },
            TokenSource::Variable(text.clone()),
        );
        let said = said(&error);
        assert!(
            !said.contains(&text[..20]) && !format!("{error:?}").contains(&text[..20]),
            "{said}"
        );
        without_times(&said)
    };
    let lines = [
        refused(&|c| c["exp"] = (now() - 1).into()),
        refused(&|c| c["aud"] = "other".into()),
        refused(&|c| c["iss"] = "https://elsewhere.test".into()),
        refused(&|c| drop(c.as_object_mut().expect("an object").remove("sub"))),
        said(&failure(&Places::default(), TokenSource::Variable("secret".to_owned()))),
    ];
    insta::assert_snapshot!(lines.join("\n"), @"
    use the identity token of SIGSTORE_ID_TOKEN: it expired at TIME
    use the identity token of SIGSTORE_ID_TOKEN: its audience is other, not sigstore
    use the identity token of SIGSTORE_ID_TOKEN: its issuer is https://elsewhere.test, and signing_config.json lists https://git.test/api/actions
    use the identity token of SIGSTORE_ID_TOKEN: its claims are not JSON with iss, sub, aud and exp
    use the identity token of SIGSTORE_ID_TOKEN: it is not three parts with dots between them
    ");
    assert_eq!(services().requests("/unasked"), 0);
    // The control: the place is asked when the token can work.
    let places = Places {
        authority: services().url("/unasked"),
        ..Places::default()
    };
    failure(&places, TokenSource::Variable(token(&claims())));
    assert!(services().requests("/unasked") > 0);
    assert!(services().requests("signingCert") >= before);
}

#[test]
fn a_service_that_fails_is_named() {
    let source = || TokenSource::Variable(token(&claims()));
    let of = |authority: &str, log: &str| {
        let places = Places {
            authority: services().url(authority),
            log: services().url(log),
            ..Places::default()
        };
        let error = failure(&places, source());
        (said(&error), error.is_temporary())
    };
    // A port that nothing listens on.
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let down = Places {
        authority: format!("http://127.0.0.1:{closed}"),
        ..Places::default()
    };
    let down = failure(&down, source());
    let down = (said(&down).replace(&closed.to_string(), "CLOSED"), down.is_temporary());
    let lines: Vec<String> = [
        down,
        of("/silent", ""),
        of("/refuse", ""),
        of("/empty", ""),
        of("/nowhere", ""),
        of("/other", ""),
        of("/swapped", ""),
        of("", "/silent"),
        of("", "/refuse"),
        of("", "/empty"),
    ]
    .into_iter()
    .map(|(said, temporary)| format!("{said}{}", if temporary { " [later perhaps]" } else { "" }))
    .collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    get a certificate: POST http://127.0.0.1:CLOSED/api/v2/signingCert: Connection refused (os error 111) (2 tries) [later perhaps]
    get a certificate: POST http://127.0.0.1:PORT/silent/api/v2/signingCert: the server did not answer in time (2 tries) [later perhaps]
    get a certificate: http://127.0.0.1:PORT/refuse/api/v2/signingCert answered 400: There was an error processing ………………………
    get a certificate: the answer of http://127.0.0.1:PORT/empty/api/v2/signingCert has no certificate with an embedded time stamp of its log
    get a certificate: http://127.0.0.1:PORT/nowhere/api/v2/signingCert answered 404: no such place
    get a certificate for https://git.test/acme/images/.gitea/workflows/build.yaml@refs/tags/v1 of https://git.test/api/actions: http://127.0.0.1:PORT/other certified https://git.test/somebody/else of https://git.test/api/actions
    get a certificate: the answer of http://127.0.0.1:PORT/swapped certifies another key
    write an entry into the transparency log: POST http://127.0.0.1:PORT/silent/api/v1/log/entries: the server did not answer in time (2 tries) [later perhaps]
    write an entry into the transparency log: http://127.0.0.1:PORT/refuse/api/v1/log/entries answered 400: no more room
    write an entry into the transparency log: the answer of http://127.0.0.1:PORT/empty/api/v1/log/entries is no entry: it is not exactly one
    ");
}

#[test]
fn an_answer_that_quotes_the_token_does_not_show_it() {
    let text = token(&claims());
    let places = Places {
        authority: services().url("/refuse"),
        ..Places::default()
    };
    let error = failure(&places, TokenSource::Variable(text.clone()));
    let shown = format!("{} {error:?}", said(&error));
    assert!(shown.contains("There was an error processing …"), "{shown}");
    for start in 0..text.len() - 16 {
        assert!(!shown.contains(&text[start..start + 16]), "{shown}");
    }
}

#[test]
fn an_entry_whose_answer_was_lost_is_found() {
    let places = Places {
        log: services().url("/lost"),
        ..Places::default()
    };
    let (_, bundle) = signer(&places).sign_file("file", &mut &CONTENT[..]).expect("signed");
    assert!(bundle.json().contains("inclusionPromise"));
}

#[test]
fn one_certificate_serves_until_its_end_is_near() {
    services().set_claims(&claims());
    let clock = MovedClock::new();
    let job = TokenSource::Job {
        url: services().url("/token?placeholder=true"),
        token: "token-of-the-job\n".to_owned(),
    };
    let mut signer = Places::default().signer(job, clock.clone()).expect("a signer");
    assert_eq!(signer.look().expect("a token").subject, IDENTITY);
    let certificates = |signer: &mut pnb::sign::Signer| {
        let (_, bundle) = signer.sign_file("file", &mut &CONTENT[..]).expect("signed");
        let value: Value = serde_json::from_str(bundle.json()).expect("JSON");
        value["verificationMaterial"]["certificate"]["rawBytes"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    let first = certificates(&mut signer);
    assert_eq!(certificates(&mut signer), first);
    clock.ahead(7 * 60 + 50);
    assert_eq!(certificates(&mut signer), first, "more than two minutes are left");
    clock.ahead(8 * 60 + 10);
    let second = certificates(&mut signer);
    assert_ne!(second, first, "less than two minutes are left");
    // After another ten minutes the job's server is asked again, and its token has expired by the moved clock.
    clock.ahead(16 * 60);
    let error = signer
        .sign_digest("file", &Sha256Digest::new([1; 32]))
        .expect_err("expired");
    assert!(said(&error).contains("it expired at"), "{}", said(&error));
}

#[test]
fn the_server_of_the_job_is_asked_for_a_token() {
    let job = |token: &str, place: &str| TokenSource::Job {
        url: services().url(place),
        token: token.to_owned(),
    };
    let lines = [
        said(&failure(&Places::default(), job("wrong-secret", "/token"))),
        said(&failure(&Places::default(), job("token-of-the-job", "/empty/token"))),
        said(&failure(&Places::default(), job("a\u{7f}b", "/token"))),
    ];
    insta::assert_snapshot!(lines.join("\n"), @"
    ask the job's server for an identity token: http://127.0.0.1:PORT/token answered 401: not this job
    ask the job's server for an identity token: the answer of http://127.0.0.1:PORT/empty/token is not JSON with a value
    find an identity token: ACTIONS_ID_TOKEN_REQUEST_TOKEN has a character that cannot be sent
    ");
    let dir = tempfile::tempdir().expect("scratch");
    let file = dir.path().join("token");
    fs::write(&file, format!("{}\n", token(&claims()))).expect("written");
    let mut signer = Places::default()
        .signer(TokenSource::File(file.clone()), MovedClock::new())
        .expect("a signer");
    signer.sign_file("file", &mut &CONTENT[..]).expect("signed");
    fs::write(&file, json!({}).to_string()).expect("written");
    let error = signer.look().expect_err("no token");
    assert!(
        said(&error).ends_with("it is not three parts with dots between them"),
        "{}",
        said(&error)
    );
}
