//! Login: which credentials arrive where, and how long a token is used.

use crate::{fault_proxy::*, ground::*};
use pnb::{
    model::Hint,
    registry::{Credentials, RegistryAccess, RegistryError},
};
use std::time::Duration;

fn service() -> TokenService {
    TokenService {
        user: Some(("robot".into(), "se:cret".into())),
        life: 300,
        ..TokenService::default()
    }
}

/// The requests in short, for messages.
fn lines(asked: &[Asked]) -> Vec<String> {
    let line = |a: &Asked| format!("{} {} {}", a.method, a.path, a.status);
    asked.iter().map(line).collect()
}

#[test]
fn a_token_is_asked_for_once_and_used_until_it_ends() {
    let ground = Ground::new();
    ground.proxy.demand(Some(Demand::Bearer(service())));
    let client = ground.client_as("team/app", password("robot", "se:cret"));
    client.login(RegistryAccess::Push).expect("logged in");
    let bytes = noise(300_000, 1);
    upload(&client, &bytes).expect("uploaded");
    let asked = ground.proxy.take();
    let tokens: Vec<&Asked> = asked.iter().filter(|a| a.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1, "{:?}", lines(&asked));
    assert_eq!(
        tokens[0].path,
        "/token?service=the%20registry&scope=repository%3Ateam%2Fapp%3Apull%2Cpush&account=robot"
    );
    assert_eq!(tokens[0].field("authorization"), Some("Basic cm9ib3Q6c2U6Y3JldA=="));
    // The password goes to the token service only.
    for other in asked.iter().filter(|a| !a.path.starts_with("/token")) {
        assert!(
            [None, Some("Bearer token-1")].contains(&other.field("authorization")),
            "{other:?}"
        );
    }
    assert_eq!(asked.iter().filter(|a| a.status == 401).count(), 1);

    // Ten seconds before its end a new one is asked for, without a refusal in between.
    ground.waits.pass(Duration::from_secs(289));
    assert_eq!(client.has_blob(&sha256(&bytes), 300_000).ok(), Some(true));
    assert_eq!(ground.proxy.take().len(), 1);
    ground.waits.pass(Duration::from_secs(2));
    assert_eq!(client.has_blob(&sha256(&bytes), 300_000).ok(), Some(true));
    let asked = ground.proxy.take();
    assert!(
        asked.len() == 2 && asked[0].path.starts_with("/token") && asked[1].status == 200,
        "{:?}",
        lines(&asked)
    );
}

#[test]
fn a_token_that_is_refused_is_replaced_once() {
    let ground = Ground::new();
    let short = TokenService {
        uses: Some(2),
        ..service()
    };
    ground.proxy.demand(Some(Demand::Bearer(short)));
    let client = ground.client_as("team/app", password("robot", "se:cret"));
    let bytes = noise(3_000_000, 2);
    // HEAD and POST use up the token; the PUT is refused before its bytes, and then sent once.
    assert_eq!(client.has_blob(&sha256(&bytes), 3_000_000).ok(), Some(false));
    upload(&client, &bytes).expect("uploaded");
    let asked = ground.proxy.take();
    let puts: Vec<(u16, u64)> = asked
        .iter()
        .filter(|a| a.method == "PUT")
        .map(|a| (a.status, a.body))
        .collect();
    assert!(
        puts == [(401, 0), (201, 3_000_000)] || puts == [(201, 3_000_000)],
        "{:?}",
        lines(&asked)
    );

    // A registry that accepts no token is not asked for ever.
    let never = TokenService {
        uses: Some(0),
        ..service()
    };
    ground.proxy.demand(Some(Demand::Bearer(never)));
    let error = client.has_blob(&sha256(&bytes), 3_000_000).expect_err("refused");
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("does not accept the login"), "{error}");
    let asked = ground.proxy.take();
    assert_eq!(
        asked.iter().filter(|a| a.path.starts_with("/token")).count(),
        1,
        "{:?}",
        lines(&asked)
    );
    assert!(ground.waits.seconds().is_empty());
}

#[test]
fn an_identity_token_goes_to_the_token_service_by_post() {
    let ground = Ground::new();
    let identity = TokenService {
        user: None,
        identity: Some("ident&ity".into()),
        ..service()
    };
    ground.proxy.demand(Some(Demand::Bearer(identity)));
    let client = ground.client_as("team/app", Credentials::Identity("ident&ity".into()));
    client.login(RegistryAccess::Push).expect("logged in");
    let asked = ground.proxy.take();
    let token = asked.iter().find(|a| a.path.starts_with("/token")).expect("asked");
    assert_eq!(
        (token.method.as_str(), token.path.as_str(), token.field("authorization")),
        ("POST", "/token", None)
    );
    assert_eq!(token.field("content-type"), Some("application/x-www-form-urlencoded"));
}

#[test]
fn a_password_goes_to_the_registry_itself() {
    let ground = Ground::new();
    ground
        .proxy
        .demand(Some(Demand::Basic("robot".into(), "se:cret".into())));
    let client = ground.client_as("team/app", password("robot", "se:cret"));
    client.login(RegistryAccess::Push).expect("logged in");
    upload(&client, b"bytes").expect("uploaded");
    let asked = ground.proxy.take();
    assert_eq!(asked.iter().filter(|a| a.status == 401).count(), 1);

    let wrong = ground.client_as("team/app", password("robot", "wrong"));
    let error = wrong.login(RegistryAccess::Pull).expect_err("refused");
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    let error = ground
        .client("team/app")
        .login(RegistryAccess::Pull)
        .expect_err("refused");
    assert!(error.to_string().contains("wants a user and password"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--registry-auth-file")));
    let identity = ground.client_as("team/app", Credentials::Identity("x".into()));
    let error = identity.login(RegistryAccess::Pull).expect_err("refused").to_string();
    assert!(error.contains("an identity token is given"), "{error}");
}

#[test]
fn a_token_that_allows_less_is_found_before_the_first_write() {
    let ground = Ground::new();
    // Everybody may read.
    ground.proxy.demand(Some(Demand::Bearer(service())));
    let client = ground.client("team/app");
    client.login(RegistryAccess::Pull).expect("everybody may read");
    let error = ground
        .client("team/app")
        .login(RegistryAccess::Push)
        .expect_err("denied");
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    assert!(
        error
            .to_string()
            .ends_with("denies it: requested access is denied (DENIED)"),
        "{error}"
    );
    let wrong = ground.client_as("team/app", password("robot", "wrong"));
    let error = wrong.login(RegistryAccess::Push).expect_err("refused").to_string();
    assert!(
        error.contains("refuses the login at its token service http://127.0.0.1:"),
        "{error}"
    );
    assert!(error.ends_with("/token: incorrect username or password"), "{error}");
    // A login leaves no upload behind: each session is cancelled.
    ground.proxy.take();
    let client = ground.client_as("team/app", password("robot", "se:cret"));
    client.login(RegistryAccess::Push).expect("logged in");
    let asked = ground.proxy.take();
    let begun = asked
        .iter()
        .filter(|a| a.is("POST", "/uploads/") && a.status == 202)
        .count();
    let ended = asked
        .iter()
        .filter(|a| a.is("DELETE", "/uploads/") && a.status == 204)
        .count();
    assert_eq!((begun, ended), (1, 1), "{:?}", lines(&asked));
}

#[test]
fn credentials_go_to_no_place_that_is_not_encrypted() {
    let ground = Ground::new();
    let trap = FaultProxy::new(ground.registry.address);
    for (realm, problem) in [
        ("http://auth.example/token".to_owned(), "is not https"),
        ("ftp://auth.example/token".to_owned(), "is no address"),
        ("token".to_owned(), "is no address"),
        (
            format!("http://localhost.example:{}/token", trap.address.port()),
            "is not https",
        ),
    ] {
        let named = TokenService {
            realm: Some(realm.clone()),
            ..service()
        };
        ground.proxy.demand(Some(Demand::Bearer(named)));
        for credentials in [
            password("robot", "se:cret"),
            Credentials::Identity("i".into()),
            Credentials::Anonymous,
        ] {
            let client = ground.client_as("team/app", credentials);
            let error = client.login(RegistryAccess::Pull).expect_err("refused").to_string();
            assert!(
                error.ends_with(&format!("its token service {realm} {problem}")),
                "{error}"
            );
        }
    }
    assert!(trap.take().is_empty());
    // A token service that is down, ill, or silent.
    for (status, class) in [
        (500, "is down: it answered 500"),
        (400, "answered 400: the token service is not well"),
    ] {
        ground.proxy.demand(Some(Demand::Bearer(TokenService {
            status: Some(status),
            ..service()
        })));
        let error = ground
            .client("team/app")
            .login(RegistryAccess::Pull)
            .expect_err("no token")
            .to_string();
        assert!(error.ends_with(class), "{error}");
    }
    let other = "WWW-Authenticate: Negotiate\r\n".to_owned();
    ground
        .proxy
        .on(move |_| Some(Fault::Answer(401, other.clone(), String::new())));
    let error = ground
        .client("team/app")
        .login(RegistryAccess::Pull)
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("wants a login of a kind that pnb does not know"),
        "{error}"
    );
}

#[test]
fn another_host_gets_no_authorization() {
    let ground = Ground::new();
    // Another port is another server: it asks for no login, and its log shows what came.
    let elsewhere = FaultProxy::new(ground.registry.address);
    ground.proxy.demand(Some(Demand::Bearer(service())));
    let client = ground.client_as("team/app", password("robot", "se:cret"));
    let bytes = noise(400_000, 3);
    let (own, other) = (ground.proxy.address.to_string(), elsewhere.address.to_string());
    client.login(RegistryAccess::Push).expect("logged in");
    // The upload is sent elsewhere.
    let (from, to) = (format!("Location: http://{own}/"), format!("Location: http://{other}/"));
    ground.proxy.once("POST", "/blobs/uploads/", Fault::Rewrite(from, to));
    upload(&client, &bytes).expect("uploaded");
    let came = elsewhere.take();
    assert_eq!((came.len(), came[0].method.as_str(), came[0].body), (1, "PUT", 400_000));
    assert_eq!(came[0].field("authorization"), None);
    // The download is redirected there, twice.
    let target = format!(
        "Location: http://{other}/v2/team/app/blobs/sha256:{}\r\n",
        sha256(&bytes)
    );
    let again = target.clone();
    elsewhere.once("GET", "/blobs/", Fault::Answer(302, again, String::new()));
    ground
        .proxy
        .once("GET", "/blobs/", Fault::Answer(307, target, String::new()));
    assert_eq!(download(&client, &bytes).ok(), Some(bytes.clone()));
    let came = elsewhere.take();
    assert_eq!(came.len(), 2);
    assert!(came.iter().all(|a| a.field("authorization").is_none()), "{came:?}");
    // For ever is too long.
    let target = format!("Location: /v2/team/app/blobs/sha256:{}\r\n", sha256(&bytes));
    ground.proxy.on(move |a| {
        a.is("GET", "/blobs/")
            .then(|| Fault::Answer(301, target.clone(), String::new()))
    });
    let error = download(&client, &bytes).expect_err("no end").to_string();
    assert!(error.ends_with("redirects more than 5 times"), "{error}");
    let target = "Location: http://storage.example/x\r\n".to_owned();
    ground.proxy.on(move |a| {
        a.is("GET", "/blobs/")
            .then(|| Fault::Answer(307, target.clone(), String::new()))
    });
    let error = pnb::model::chain(&download(&client, &bytes).expect_err("refused"));
    assert!(
        error.ends_with("is http without TLS, and the host is not this machine"),
        "{error}"
    );
}
