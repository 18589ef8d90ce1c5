//! What the cases share: a registry behind the proxy, clients of it, and an OCI layout with images for two architectures.

use crate::{docker_registry::DockerRegistry, fault_proxy::FaultProxy, publish_tools::publish_tool};
use pnb::{
    http::{ClientOptions, HttpClient, HttpClock},
    model::Sha256Digest,
    registry::{Credentials, ImageReference, RegistryClient, RegistryError},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A clock that moves only when somebody waits, and notes how long.
#[derive(Default, Debug)]
pub(crate) struct Waits(Mutex<Vec<Duration>>);

impl Waits {
    /// The waits so far, in seconds.
    pub(crate) fn seconds(&self) -> Vec<u64> {
        self.0.lock().expect("whole").iter().map(Duration::as_secs).collect()
    }

    /// Moves the clock.
    pub(crate) fn pass(&self, time: Duration) {
        self.0.lock().expect("whole").push(time);
    }
}

impl HttpClock for Waits {
    fn elapsed(&self) -> Duration {
        self.0.lock().expect("whole").iter().sum()
    }
    fn unix(&self) -> i64 {
        1_796_000_000
    }
    fn wait(&self, time: Duration) {
        self.pass(time);
    }
}

/// A registry, and the proxy through which everybody speaks to it.
pub(crate) struct Ground {
    pub(crate) registry: DockerRegistry,
    pub(crate) proxy: FaultProxy,
    pub(crate) waits: Arc<Waits>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let registry = DockerRegistry::start(false);
        Self::of(registry)
    }

    pub(crate) fn of(registry: DockerRegistry) -> Self {
        Self {
            proxy: FaultProxy::new(registry.address),
            registry,
            waits: Arc::default(),
        }
    }

    /// A client of the repository `signed` that passes the proxy by.
    pub(crate) fn of_direct(ground: &Self) -> RegistryClient {
        let name = format!("{}/signed", ground.registry.address).parse().expect("a name");
        RegistryClient::new(ground.http(), &name, Credentials::Anonymous)
    }

    /// The name of an image in the registry.
    pub(crate) fn name(&self, rest: &str) -> ImageReference {
        format!("{}/{rest}", self.proxy.address).parse().expect("a name")
    }

    pub(crate) fn client(&self, repository: &str) -> RegistryClient {
        self.client_as(repository, Credentials::Anonymous)
    }

    pub(crate) fn client_as(&self, repository: &str, credentials: Credentials) -> RegistryClient {
        RegistryClient::new(self.http(), &self.name(repository), credentials)
    }

    pub(crate) fn http(&self) -> HttpClient {
        let options = ClientOptions {
            silence: Duration::from_secs(60),
            ..ClientOptions::default()
        };
        HttpClient::with_clock(options, Arc::<Waits>::clone(&self.waits)).expect("a client")
    }
}

pub(crate) fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::new(Sha256::digest(bytes).into())
}

/// Bytes that do not repeat soon, other ones for another seed.
pub(crate) fn noise(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(size + 4);
    while bytes.len() < size {
        bytes.extend(next());
    }
    bytes.truncate(size);
    bytes
}

/// Uploads bytes.
pub(crate) fn upload(client: &RegistryClient, bytes: &[u8]) -> Result<(), RegistryError> {
    let kept = bytes.to_vec();
    let mut open =
        || -> std::io::Result<Box<dyn std::io::Read + Send>> { Ok(Box::new(std::io::Cursor::new(kept.clone()))) };
    client.upload_blob(&sha256(bytes), bytes.len() as u64, &mut open, &pnb::registry::silent())
}

/// Downloads the blob that has the digest and size of `bytes`.
pub(crate) fn download(client: &RegistryClient, bytes: &[u8]) -> Result<Vec<u8>, RegistryError> {
    let mut got = Vec::new();
    client.read_blob(&sha256(bytes), bytes.len() as u64, &mut got, &pnb::registry::silent())?;
    Ok(got)
}

/// Writes a blob into a layout; returns its descriptor.
pub(crate) fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let dir = layout.join("blobs/sha256");
    fs::create_dir_all(&dir).expect("made");
    let digest = sha256(bytes);
    fs::write(dir.join(digest.to_hex()), bytes).expect("written");
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

/// A layout of an index of two images, each with a layer of its own of `size` bytes and one that they share. Returns the index's digest.
pub(crate) fn layout(path: &Path, size: usize) -> Sha256Digest {
    let mut manifests = Vec::new();
    let shared = blob(path, "application/vnd.oci.image.layer.v1.tar+gzip", &noise(1000, 7));
    for (seed, arch) in [(1, "amd64"), (2, "arm64")] {
        let config = json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
        let config = blob(
            path,
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let own = blob(path, "application/vnd.oci.image.layer.v1.tar+gzip", &noise(size, seed));
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [shared, own]});
        let mut entry = blob(path, MANIFEST, manifest.to_string().as_bytes());
        entry["platform"] = json!({"architecture": arch, "os": "linux"});
        manifests.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    let entry = blob(path, INDEX, index.as_bytes());
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    fs::write(path.join("index.json"), top.to_string()).expect("written");
    sha256(index.as_bytes())
}

/// Every blob of a layout by its name, checked against it.
pub(crate) fn blobs_of(layout: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    #[expect(clippy::disallowed_methods, reason = "the files go into a sorted map")]
    let entries = fs::read_dir(layout.join("blobs/sha256")).expect("readable");
    let files = entries.map(|entry| entry.expect("readable").path());
    files
        .map(|file| {
            let bytes = fs::read(&file).expect("readable");
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            assert_eq!(sha256(&bytes).to_hex(), name);
            (name, bytes)
        })
        .collect()
}

/// Runs skopeo; it must succeed. Returns what it printed.
pub(crate) fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let mut command = publish_tool("skopeo");
    command.arg("--insecure-policy").args(arguments);
    let done = command.output().expect("starts");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "skopeo {arguments:?}: {}\n{said}", done.status);
    done.stdout
}
