//! Connections of gRPC: TLS with private authorities, certificates of the client, proxies. The TLS of the server is rustls, as the client's;
//! `tests/registry/tls.rs` has another implementation.

use super::{
    Endpoint, Loss, RemoteCache, RemoteError, connect,
    double::{Double, QUICK},
};
use crate::http::{NetworkSettings, ProxyRules, TrustPlaces};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("readable")
}

/// TLS of a server with this certificate.
fn tls(name: &str) -> ServerTlsConfig {
    let identity = Identity::from_pem(pem(&format!("{name}.pem")), pem(&format!("{name}.key")));
    ServerTlsConfig::new().identity(identity)
}

fn trusting(name: &str) -> NetworkSettings {
    NetworkSettings {
        trust: TrustPlaces {
            ca_file: Some(fixture(name)),
            ..TrustPlaces::default()
        },
        ..NetworkSettings::default()
    }
}

fn connected(
    address: &str,
    identity: Option<&str>,
    network: &NetworkSettings,
) -> Result<Arc<dyn RemoteCache>, RemoteError> {
    let endpoint = Endpoint {
        address: address.parse().expect("an address"),
        token_file: None,
        identity: identity.map(|name| (fixture(&format!("{name}.pem")), fixture(&format!("{name}.key")))),
    };
    connect(&endpoint, network, &QUICK)
}

/// The words of a server that is of no use.
fn gone(result: Result<Arc<dyn RemoteCache>, RemoteError>) -> String {
    let error = result.expect_err("of no use");
    assert_eq!(error.loss(), Loss::Server, "{error}");
    error.to_string()
}

#[test]
fn a_private_authority_is_trusted_when_it_is_given() {
    let server = Double::with_tls(Some(tls("server")));
    let address = format!("grpcs://{}", server.address);
    let cache = connected(&address, None, &trusting("authority.pem")).expect("connects");
    let blob = server.has(b"blob");
    assert_eq!(cache.read_small(&[blob]).expect("read"), [b"blob"]);
    // The authority is not public, and another one does not count. There is one try.
    for network in [NetworkSettings::default(), trusting("stranger.pem")] {
        server.plan(&[]);
        let said = gone(connected(&address, None, &network));
        assert!(
            said.contains("(UnknownIssuer)") && said.contains("\"CN=pnb tests: server\""),
            "{said}"
        );
        assert!(
            said.contains("trusted are the public authorities compiled into pnb"),
            "{said}"
        );
    }
    // The certificate has another name.
    let other = Double::with_tls(Some(tls("cache")));
    let named = format!("grpcs://localhost:{}", other.address.port());
    let said = gone(connected(&named, None, &trusting("cache-authority.pem")));
    assert!(
        said.contains("the server's certificate is not accepted: ") && said.contains("localhost"),
        "{said}"
    );
    // A file of authorities that is not there.
    let said = gone(connected(&address, None, &trusting("gone.pem")));
    assert!(said.contains("--ca-file") && said.contains("No such file"), "{said}");
}

#[test]
fn plain_and_encrypted_servers_are_told_apart() {
    let plain = Double::new();
    let said = gone(connected(
        &format!("grpcs://{}", plain.address),
        None,
        &NetworkSettings::default(),
    ));
    assert!(said.contains("the server does not speak TLS at this port"), "{said}");
    let encrypted = Double::with_tls(Some(tls("server")));
    gone(connected(
        &format!("grpc://{}", encrypted.address),
        None,
        &NetworkSettings::default(),
    ));
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let said = gone(connected(
        &format!("grpc://{address}"),
        None,
        &NetworkSettings::default(),
    ));
    assert!(said.contains("Connection refused"), "{said}");
}

#[test]
fn a_server_without_http_2_is_named() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = vec![CertificateDer::from_pem_slice(&pem("server.pem")).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(&pem("server.key")).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        let config = Arc::new(config);
        for mut stream in listener.incoming().flatten() {
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let _ = connection.complete_io(&mut stream);
        }
    });
    let said = gone(connected(
        &format!("grpcs://{address}"),
        None,
        &trusting("authority.pem"),
    ));
    assert!(said.contains("does not offer HTTP/2"), "{said}");
}

#[test]
fn a_server_may_want_a_certificate_of_the_client() {
    let authority = Certificate::from_pem(pem("cache-authority.pem"));
    let server = Double::with_tls(Some(tls("server").client_ca_root(authority)));
    let address = format!("grpcs://{}", server.address);
    let network = trusting("authority.pem");
    let cache = connected(&address, Some("client"), &network).expect("connects");
    let blob = server.has(b"blob");
    assert_eq!(cache.read_small(&[blob]).expect("read"), [b"blob"]);
    let said = gone(connected(&address, None, &network));
    assert!(
        said.contains("the server wants a certificate of this client (CertificateRequired)"),
        "{said}"
    );
    let said = gone(connected(&address, Some("server"), &network));
    assert!(
        said.contains("the server does not accept the certificate of this client"),
        "{said}"
    );
}

/// A proxy that connects every name to one address, if the request has this field.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn new(target: SocketAddr, wants: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || drop(tunnel(stream, target, wants, &seen)));
            }
        });
        Self { address, heads }
    }

    fn rules(&self, credentials: &str) -> ProxyRules {
        let url = format!("http://{credentials}{}", self.address);
        ProxyRules::from_variables(&|name| (name == "https_proxy").then(|| url.clone()))
    }
}

fn tunnel(mut client: TcpStream, target: SocketAddr, wants: &str, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head)?;
    }
    let admitted = head.contains(wants);
    seen.lock().expect("whole").push(head);
    if !admitted {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")?;
    let mut server = TcpStream::connect(target)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client);
    std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            size => server.write_all(&buffer[..size])?,
        }
    }
}

#[test]
fn a_proxy_is_asked_for_a_tunnel() {
    let server = Double::with_tls(Some(tls("cache")));
    // The name resolves nowhere: the proxy alone knows where the server is.
    let address = "grpcs://cache.example.org:8443";
    let proxy = Proxy::new(server.address, "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n");
    let mut network = trusting("cache-authority.pem");
    network.proxies = proxy.rules("user:secret@");
    let cache = connected(address, None, &network).expect("connects");
    let blob = server.has(b"blob");
    assert_eq!(cache.read_small(&[blob]).expect("read"), [b"blob"]);
    let head = proxy.heads.lock().expect("whole")[0].clone();
    assert!(
        head.starts_with("CONNECT cache.example.org:8443 HTTP/1.1\r\nHost: cache.example.org:8443\r\n"),
        "{head}"
    );
    // Without the password, once.
    network.proxies = proxy.rules("");
    proxy.heads.lock().expect("whole").clear();
    let said = gone(connected(address, None, &network));
    let wants = format!(
        "the proxy http://{} (https_proxy) answered 407 Proxy Authentication Required to CONNECT: \
         it wants a user name and a password in its address",
        proxy.address
    );
    assert!(said.contains(&wants), "{said}");
    assert_eq!(proxy.heads.lock().expect("whole").len(), 1);
    // A certificate that does not count, behind a proxy.
    network.proxies = proxy.rules("user:secret@");
    network.trust = TrustPlaces::default();
    let said = gone(connected(address, None, &network));
    assert!(
        said.contains("(UnknownIssuer)") && said.contains("through the proxy http://"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
    // This machine is reached directly.
    proxy.heads.lock().expect("whole").clear();
    network.trust = trusting("cache-authority.pem").trust;
    connected(&format!("grpcs://{}", server.address), None, &network).expect("connects");
    assert!(proxy.heads.lock().expect("whole").is_empty());
    // A proxy that cannot be used is a fault of the command line.
    network.proxies = ProxyRules::from_variables(&|name| (name == "https_proxy").then(|| "socks5://p".to_owned()));
    let error = connected(address, None, &network).expect_err("no such proxy");
    assert_eq!(error.loss(), Loss::Here);
}
