//! The way to servers: authorities, proxies, redirects to other hosts, addresses of IPv6.

use super::*;
use pnb::http::{ProxyRules, TrustPlaces};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::Command;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

/// A server over TLS that answers every request with `content()`, closes, and counts its connections.
fn over_tls() -> (SocketAddr, Arc<AtomicUsize>) {
    let provider = Arc::new(default_provider());
    let certificate = CertificateDer::from_pem_file(fixture("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    let (config, listener) = (
        Arc::new(config),
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"),
    );
    let (address, count) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            seen.fetch_add(1, Ordering::SeqCst);
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                let mut tls = StreamOwned::new(ServerConnection::new(config).expect("a connection"), stream);
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && matches!(tls.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                if head.is_empty() {
                    return;
                }
                let length = content().len();
                let _ = write!(
                    tls,
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
                );
                let _ = tls.write_all(&content());
                tls.conn.send_close_notify();
                let _ = tls.flush();
            });
        }
    });
    (address, count)
}

/// Downloads `url` by the way `network`, with real waits cut out; the error without what is the same in all of them.
fn get_by(network: NetworkSettings, url: &str) -> Result<Vec<u8>, String> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let second = Duration::from_secs(2);
    let options = HttpOptions {
        connect: second,
        response: second,
        read: second,
        network,
    };
    let transport = HttpTransport::new(&options);
    let downloader = Downloader {
        transport: &transport,
        directory: dir.path(),
        offline: false,
        policy: POLICY,
        sleep: &|_| {},
        progress: &Silent,
        pauses: Pauses::default(),
    };
    let place = Location {
        kind: LocationKind::Origin,
        address: url.parse().expect("an address"),
        redirects: vec![],
    };
    let result = downloader.get(&item(&content(), vec![place]), &|| false, &|| false);
    result.map(bytes_of).map_err(|error| {
        let text = format!("{error}\nhint: {}", error.hint().expect("a hint"));
        let start = format!("fetch package x 1 amd64: no place has it\n  origin {url}: ");
        text.strip_prefix(&start).expect("names the place").to_owned()
    })
}

fn trusting(places: TrustPlaces) -> NetworkSettings {
    NetworkSettings {
        trust: places,
        ..NetworkSettings::default()
    }
}

#[test]
fn a_private_authority_counts_when_it_is_named_and_is_asked_for_when_not() {
    let (address, connections) = over_tls();
    let url = format!("https://localhost:{}/x", address.port());
    let error = get_by(NetworkSettings::default(), &url).expect_err("nobody named the authority");
    assert_eq!(
        error,
        "no trusted authority issued the server's certificate (UnknownIssuer): it presented the certificate of \
         \"CN=pnb tests: server\", issued by \"CN=pnb tests: private authority\"; trusted are the public authorities \
         compiled into pnb\nhint: give the certificate of the private authority with --ca-file or SSL_CERT_FILE"
    );
    assert_eq!(
        connections.load(Ordering::SeqCst),
        1,
        "the certificate would be the same again"
    );
    let file = Some(fixture("authority.pem"));
    let named = |ca_file: bool| match ca_file {
        true => TrustPlaces {
            ca_file: file.clone(),
            ..TrustPlaces::default()
        },
        false => TrustPlaces {
            cert_file: file.clone(),
            ..TrustPlaces::default()
        },
    };
    for ca_file in [true, false] {
        assert_eq!(get_by(trusting(named(ca_file)), &url), Ok(content()));
    }
    // By the address, which the certificate has too.
    let numeric = format!("https://{address}/x");
    assert_eq!(get_by(trusting(named(true)), &numeric), Ok(content()));
    // The very certificate of the server instead of its authority's.
    let own = TrustPlaces {
        cert_file: Some(fixture("server.pem")),
        ..TrustPlaces::default()
    };
    assert_eq!(get_by(trusting(own.clone()), &url), Ok(content()));
    // Another name than it has, and other authorities.
    let before = connections.load(Ordering::SeqCst);
    for places in [named(true), own] {
        let other_name = format!("https://{}/x", relay(Ipv4Addr::new(127, 0, 0, 2), address));
        let error = get_by(trusting(places), &other_name).expect_err("another name");
        assert!(
            error.contains("not valid for name") && error.contains("pnb tests: server"),
            "{error}"
        );
    }
    let stranger = TrustPlaces {
        cert_file: Some(fixture("stranger.pem")),
        ..TrustPlaces::default()
    };
    let error = get_by(trusting(stranger), &url).expect_err("issued by another");
    assert!(
        error.contains("trusted are the public authorities compiled into pnb and 1 of SSL_CERT_FILE"),
        "{error}"
    );
    assert_eq!(connections.load(Ordering::SeqCst), before + 3, "one try each");
    // A file that is not there is an error of its own, not a lack of trust.
    let missing = TrustPlaces {
        ca_file: Some("/nonexistent/ca.pem".into()),
        ..TrustPlaces::default()
    };
    let error = get_by(trusting(missing), &url).expect_err("no such file");
    assert!(
        error.starts_with("failed to read the certificates of --ca-file \"/nonexistent/ca.pem\": No such file")
            || error.starts_with("failed to read the certificates of --ca-file /nonexistent/ca.pem: No such file"),
        "{error}"
    );
}

/// Listens at a port of `here`, which is returned, and passes one connection to `there`.
fn relay(here: Ipv4Addr, there: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((here, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let Ok((client, _)) = listener.accept() else { return };
        let server = TcpStream::connect(there).expect("connects");
        let (mut a, mut b) = (
            client.try_clone().expect("a stream"),
            server.try_clone().expect("a stream"),
        );
        let up = std::thread::spawn(move || std::io::copy(&mut a, &mut b));
        let (mut a, mut b) = (server, client);
        let _ = std::io::copy(&mut a, &mut b);
        drop(up);
    });
    address
}

#[test]
fn a_server_without_tls_is_told_from_one_that_is_away() {
    let plain = Server::new(|_, _, s| ok(s, &content()));
    // It sees a handshake in place of a request, and hangs up or answers 400.
    let chatty = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = chatty.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in chatty.incoming() {
            let Ok(mut stream) = stream else { return };
            send(&mut stream, "400 Bad Request", "", b"");
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    drop(plain);
    let error = get_by(NetworkSettings::default(), &format!("https://{address}/x")).expect_err("no TLS there");
    assert!(
        error.starts_with("the server does not speak TLS at this port"),
        "{error}"
    );
    assert!(!error.contains("tried"), "{error}");
}

/// A proxy: answers each connection with what `answer` says about its head, which is kept.
fn proxy(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            kept.lock().expect("whole").push(head.clone());
            answer(&head, &mut stream);
        }
    });
    (address, heads)
}

fn by_proxy(variables: &[(&str, String)], trust: TrustPlaces) -> NetworkSettings {
    let variables: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    NetworkSettings {
        proxies: ProxyRules::from_variables(&|name| {
            let found = variables.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.clone())
        }),
        trust,
    }
}

#[test]
fn plain_http_goes_to_the_proxy_with_the_whole_address() {
    let (address, heads) = proxy(|_, s| ok(s, &content()));
    let network = by_proxy(
        &[("HTTP_PROXY", format!("http://user:p%40ss@{address}/"))],
        TrustPlaces::default(),
    );
    // The name exists for the proxy only.
    assert_eq!(
        get_by(network, "http://mirror.invalid:8080/debian/x.deb?a=b"),
        Ok(content())
    );
    let heads = heads.lock().expect("whole").clone();
    assert_eq!(heads.len(), 1);
    let lines: Vec<&str> = heads[0].lines().collect();
    assert_eq!(lines[0], "GET http://mirror.invalid:8080/debian/x.deb?a=b HTTP/1.1");
    let has = |line: &str| lines.iter().any(|l| l.eq_ignore_ascii_case(line));
    assert!(has("host: mirror.invalid:8080"), "{lines:?}");
    assert!(has("proxy-authorization: Basic dXNlcjpwQHNz"), "{lines:?}");
}

#[test]
fn https_goes_through_a_tunnel() {
    let (server, _) = over_tls();
    let (address, heads) = proxy(move |_, s| {
        let _ = s.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
        let there = TcpStream::connect(server).expect("connects");
        let (mut a, mut b) = (s.try_clone().expect("a stream"), there.try_clone().expect("a stream"));
        std::thread::spawn(move || std::io::copy(&mut a, &mut b));
        let (mut a, mut b) = (there, s.try_clone().expect("a stream"));
        let _ = std::io::copy(&mut a, &mut b);
        let _ = b.shutdown(std::net::Shutdown::Both);
    });
    let trust = TrustPlaces {
        ca_file: Some(fixture("authority.pem")),
        ..TrustPlaces::default()
    };
    let network = by_proxy(&[("https_proxy", address.to_string())], trust);
    assert_eq!(get_by(network, "https://localhost/x"), Ok(content()));
    let heads = heads.lock().expect("whole").clone();
    assert!(heads[0].starts_with("CONNECT localhost:443 HTTP/1.1\r\n"), "{heads:?}");
}

#[test]
fn a_proxy_that_refuses_is_named_with_its_answer() {
    for (status, about, tries) in [
        ("403 Forbidden", "answered 403 Forbidden to CONNECT", 1),
        (
            "407 Proxy Authentication Required",
            "answered 407 Proxy Authentication Required to CONNECT: it wants a user name and a password in its address",
            1,
        ),
        (
            "503 Whatever",
            "answered 503 Service Unavailable to CONNECT (tried 3 times)",
            3,
        ),
    ] {
        let (address, heads) = proxy(move |_, s| send(s, status, "Content-Length: 0\r\n", b""));
        let network = by_proxy(
            &[("https_proxy", format!("http://u:secret@{address}"))],
            TrustPlaces::default(),
        );
        let error = get_by(network, "https://mirror.invalid/x").expect_err("refused");
        let line = error.lines().next().expect("a line");
        assert_eq!(line, format!("the proxy http://{address} (https_proxy) {about}"));
        assert_eq!(heads.lock().expect("whole").len(), tries);
    }
    let (address, heads) = proxy(|_, s| send(s, "407 Proxy Authentication Required", "Content-Length: 0\r\n", b""));
    let network = by_proxy(&[("http_proxy", address.to_string())], TrustPlaces::default());
    let error = get_by(network, "http://mirror.invalid/x").expect_err("refused");
    assert!(
        error.starts_with(&format!(
            "the proxy http://{address} (http_proxy) answered 407 Proxy Authentication Required: it wants"
        )),
        "{error}"
    );
    assert_eq!(heads.lock().expect("whole").len(), 1);
}

#[test]
fn a_proxy_that_is_away_is_named_and_left_out_where_no_proxy_says_so() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = gone.local_addr().expect("bound");
    drop(gone);
    let server = Server::new(|_, _, s| ok(s, &content()));
    let variables = |except: &str| {
        let proxy = format!("http://{address}");
        [
            ("http_proxy", proxy.clone()),
            ("https_proxy", proxy),
            ("no_proxy", except.to_owned()),
        ]
    };
    let url = format!("http://{}/x", server.address);
    let through = by_proxy(&variables("example.org"), TrustPlaces::default());
    let error = get_by(through, &url).expect_err("no proxy there");
    let about =
        format!("Connection refused (os error 111), through the proxy http://{address} (http_proxy) (tried 3 times)");
    assert_eq!(error.lines().next(), Some(about.as_str()));
    let direct = by_proxy(&variables("example.org, 127.0.0.0/8"), TrustPlaces::default());
    assert_eq!(get_by(direct, &url), Ok(content()));
    let socks = [("all_proxy", "socks5://127.0.0.1:1080".to_owned())];
    let error = get_by(by_proxy(&socks, TrustPlaces::default()), &url).expect_err("not supported");
    assert!(
        error.starts_with("the proxy socks5://127.0.0.1:1080 (all_proxy) is neither http:// nor https://"),
        "{error}"
    );
}

#[test]
fn a_file_may_be_led_to_the_hosts_that_it_names() {
    let target = Server::new(|_, _, s| ok(s, &content()));
    let port = target.address.port();
    let away = Server::new(move |_, _, s| {
        let location = format!("Location: http://localhost:{port}/x?signature=secret\r\nContent-Length: 0\r\n");
        send(s, "302 Found", &location, b"");
    });
    let place = |redirects: &[String]| Location {
        kind: LocationKind::Origin,
        redirects: redirects.to_vec(),
        ..away.place()
    };
    let (result, _) = get(&item(&content(), vec![place(&[format!("localhost:{port}")])]));
    assert_eq!(bytes_of(result.expect("allowed")), content());
    assert_eq!(target.asked().len(), 1);
    let (result, waits) = get(&item(&content(), vec![place(&["localhost".to_owned()])]));
    let text = told(&result.expect_err("another port"), &away).replace(&port.to_string(), "PORT");
    insta::assert_snapshot!(text, @r#"
    fetch package x 1 amd64: no place has it
      origin http://SERVER/debian/pool/x.deb: redirects to another host, "localhost": http://localhost:PORT/x?…

    hint: allow the host with `redirects = ["localhost:PORT"]` at the file in stages/files.toml, or give there the address to which the server leads as `url`, and run `pnb lock`
    "#);
    assert_eq!((waits, target.asked().len()), (vec![], 1));
}

#[test]
fn an_address_of_ipv6_is_reached() {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        panic!("this machine has no ::1, which every Linux with IPv6 has");
    };
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = read_request(&stream);
            ok(&mut stream, &content());
        }
    });
    assert_eq!(
        get_by(NetworkSettings::default(), &format!("http://[::1]:{port}/x")),
        Ok(content())
    );
}

/// A project whose only input is a file at `url`; `pnb vendor` fetches it.
fn vendor(url: &str, variables: &[(&str, &str)], options: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = dir.path().join("p");
    std::fs::create_dir_all(project.join("stages/x")).expect("made");
    let sha256 = Sha256Digest::new(Sha256::digest(content()).into());
    let size = content().len();
    let file = format!("[[file]]\nname = \"agent\"\nurl = \"{url}\"\nsize = {size}\nsha256 = \"{sha256}\"\n");
    let stage = "summary = \"x\"\nwriter = \"install-agent\"\n[inputs]\nagent = { lock = \"agent\" }\n[outputs]\n\
                 tree = { kind = \"tree\" }\n";
    let archives = "[[archive]]\nname = \"s\"\ndistribution = \"debian\"\nbase = \"t\"\nsuite = \"s\"\n\
                    components = [\"main\"]\nkeyring = \"k\"\n";
    for (name, text) in [
        (
            "lockfile.toml",
            format!("version = 1\nsource_date_epoch = 1795252544\n\n{file}"),
        ),
        ("stages/files.toml", file.clone()),
        ("stages/archives.toml", archives.to_owned()),
        ("stages/x/stage.toml", stage.to_owned()),
    ] {
        std::fs::write(project.join(name), text).expect("written");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command
        .args(["vendor", "--project"])
        .arg(&project)
        .args(options)
        .arg(dir.path().join("v"));
    command
        .env_clear()
        .env("PNB_STORE", dir.path().join("store"))
        .envs(variables.iter().copied());
    let output = command.output().expect("runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code(), text)
}

#[test]
fn the_program_reads_authorities_and_proxies_from_its_environment() {
    let (address, _) = over_tls();
    let url = format!("https://localhost:{}/x", address.port());
    let authority = fixture("authority.pem");
    let authority = authority.to_str().expect("text");
    let (code, text) = vendor(&url, &[], &[]);
    assert_eq!(code, Some(4), "{text}");
    assert!(
        text.contains("(UnknownIssuer)") && text.contains("hint: give the certificate"),
        "{text}"
    );
    for (variables, options) in [
        (vec![("SSL_CERT_FILE", authority)], vec![]),
        (vec![("PNB_CA_FILE", authority)], vec![]),
        (vec![], vec!["--ca-file", authority]),
    ] {
        let (code, text) = vendor(&url, &variables, &options);
        assert_eq!(code, Some(0), "{variables:?} {options:?}: {text}");
    }
    let links = tempfile::tempdir().expect("temporary directory");
    std::os::unix::fs::symlink(authority, links.path().join("0a1b2c3d.0")).expect("linked");
    let (code, text) = vendor(&url, &[("SSL_CERT_DIR", links.path().to_str().expect("text"))], &[]);
    assert_eq!(code, Some(0), "{text}");
    let (proxy, heads) = proxy(|_, s| ok(s, &content()));
    let proxy = proxy.to_string();
    let (code, text) = vendor("http://mirror.invalid/x", &[("http_proxy", &proxy)], &[]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(heads.lock().expect("whole").len(), 1);
}
