//! A registry over TLS, with a certificate of a private authority. The TLS is that of Node: another implementation than the client's.

use crate::{
    docker_registry::DockerRegistry,
    ground::*,
    publish_tools::{publish_tool, publish_tools},
};
use pnb::{
    http::{ClientOptions, HttpClient},
    model::{Hint, chain},
    registry::{Credentials, ImageReference, RegistryClient},
};
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Passes the bytes of TLS connections to a port of this machine.
const TERMINATE: &str = r#"
const [cert, key, port] = process.argv.slice(1);
const net = require("net"), tls = require("tls");
const server = tls.createServer({ cert, key }, (client) => {
  const upstream = net.connect(Number(port), "127.0.0.1");
  for (const end of [client, upstream]) end.on("error", () => { client.destroy(); upstream.destroy(); });
  client.pipe(upstream).pipe(client);
});
server.on("tlsClientError", () => {});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"#;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

/// Node before a server; it ends with the value.
struct Terminator {
    address: SocketAddr,
    child: Child,
}

impl Terminator {
    fn start(upstream: SocketAddr) -> Self {
        // Debian's Node reads parts of itself by absolute paths, so the tree is its root directory.
        let outer = publish_tool("node");
        let tree = publish_tools();
        let inside = |path: &std::ffi::OsStr| match Path::new(path).strip_prefix(tree) {
            Ok(rest) => Path::new("/").join(rest),
            Err(_) => path.into(),
        };
        let program = inside(outer.get_program());
        let arguments: Vec<PathBuf> = outer.get_args().map(inside).collect();
        let mut inner = Command::new("unshare");
        inner
            .env_clear()
            .args(["--user", "--map-root-user"])
            .arg("--root")
            .arg(tree);
        inner.arg(program).args(arguments);
        let text = |name: &str| std::fs::read_to_string(fixture(name)).expect("readable");
        inner.args(["-e", TERMINATE, "--", &text("server.pem"), &text("server.key")]);
        inner.arg(upstream.port().to_string()).stdout(Stdio::piped());
        let mut child = inner.spawn().expect("starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let address = format!("127.0.0.1:{}", line.trim()).parse().expect("a port");
        Self { address, child }
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of the registry behind the terminator, by the name `host`, that trusts this authority.
fn client(terminator: &Terminator, host: &str, ca: &[u8]) -> RegistryClient {
    let options = ClientOptions {
        ca: Some(ca.to_vec()),
        tries: 2,
        ..ClientOptions::default()
    };
    let name: ImageReference = format!("{host}:{}/team/app", terminator.address.port())
        .parse()
        .expect("a name");
    RegistryClient::new(
        HttpClient::new(options).expect("a client"),
        &name,
        Credentials::Anonymous,
    )
}

#[test]
fn a_private_authority_is_trusted_when_it_is_given() {
    let registry = DockerRegistry::start(true);
    let terminator = Terminator::start(registry.address);
    let authority = std::fs::read(fixture("authority.pem")).expect("readable");
    for host in ["127.0.0.1", "localhost"] {
        let trusting = client(&terminator, host, &authority);
        trusting.ping().expect("a registry");
        let bytes = noise(2_000_000, host.len().try_into().expect("short"));
        upload(&trusting, &bytes).expect("uploaded");
        assert_eq!(download(&trusting, &bytes).ok(), Some(bytes));
    }
    // The certificate of the server is no authority, and no other one issued it.
    let stranger = std::fs::read(fixture("stranger.pem")).expect("readable");
    let error = client(&terminator, "127.0.0.1", &stranger).ping().expect_err("refused");
    let text = chain(&error);
    assert!(
        text.contains(
            "no trusted authority issued the server's certificate (UnknownIssuer): it presented the certificate of"
        ) && text.ends_with("and 1 of the given file"),
        "{text}"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("--ca-file")), "{error}");
    // The right authority and another name than the certificate has.
    let error = client(&terminator, "127.0.0.2", &authority).ping();
    assert!(error.is_err(), "{error:?}");
}

#[test]
fn a_registry_over_tls_cannot_lead_to_an_address_without_it() {
    // Its answers have absolute addresses, and it does not know that it is spoken to over TLS.
    let registry = DockerRegistry::start(false);
    let terminator = Terminator::start(registry.address);
    let authority = std::fs::read(fixture("authority.pem")).expect("readable");
    let error = upload(&client(&terminator, "127.0.0.1", &authority), &noise(1000, 1)).expect_err("refused");
    assert!(error.to_string().ends_with("leads from https to http"), "{error}");
}
