//! What the cases share: images that are made byte by byte, a mirror directory with their blobs, and a project with two stages.

use flate2::{Compression, write::GzEncoder};
use pnb::{
    lock::{Archive, Distribution, LOCK_VERSION, Lockfile, Package, write_lock},
    model::{Epoch, Sha256Digest},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tar::EntryType;
use tempfile::TempDir;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A registry that nobody has: nothing listens on this port.
pub(crate) const NOBODY: &str = "127.0.0.1:1/team/base";

pub(crate) fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::new(Sha256::digest(bytes).into())
}

/// An entry of a layer: its name, its kind, its mode, its owner and group, and its content or the target of the link.
pub(crate) type LayerEntry<'a> = (&'a str, EntryType, u32, (u64, u64), &'a str);

/// A file of root that others may read.
pub(crate) fn file<'a>(name: &'a str, content: &'a str) -> LayerEntry<'a> {
    (name, EntryType::Regular, 0o644, (0, 0), content)
}

/// An archive of these entries. Names are written as they are, wherever they lead.
pub(crate) fn archive(entries: &[LayerEntry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, mode, (uid, gid), text) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(*gid);
        header.set_mtime(1);
        let content = match kind {
            EntryType::Regular => text.as_bytes(),
            EntryType::Symlink | EntryType::Link => {
                header.set_link_name(text).expect("fits");
                &[]
            }
            _ => &[],
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).expect("packed");
    }
    builder.into_inner().expect("packed")
}

/// dpkg's database with these packages, `name version`, installed for amd64.
pub(crate) fn status(packages: &[(&str, &str)]) -> String {
    let paragraph = |(name, version): &(&str, &str)| {
        format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n")
    };
    packages.iter().map(paragraph).collect()
}

/// The blobs of images.
#[derive(Clone, Default)]
pub(crate) struct Blobs(pub(crate) BTreeMap<Sha256Digest, Vec<u8>>);

impl Blobs {
    /// Adds a blob; returns its descriptor.
    pub(crate) fn add(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        self.0.insert(digest, bytes.to_vec());
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    /// Adds an image of these archives, lowest first; returns the descriptor of its manifest.
    pub(crate) fn image(&mut self, arch: &str, archives: &[Vec<u8>]) -> Value {
        let diff_ids: Vec<String> = archives
            .iter()
            .map(|bytes| format!("sha256:{}", sha256(bytes)))
            .collect();
        self.image_with(arch, archives, &diff_ids)
    }

    /// The same, with these digests of the archives in the configuration.
    pub(crate) fn image_with(&mut self, arch: &str, archives: &[Vec<u8>], diff_ids: &[String]) -> Value {
        let layers: Vec<Value> = archives
            .iter()
            .map(|bytes| {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                gzip.write_all(bytes).expect("compressed");
                self.add(LAYER, &gzip.finish().expect("compressed"))
            })
            .collect();
        let config = json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.add(CONFIG, config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.add(MANIFEST, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({"architecture": arch, "os": "linux"});
        descriptor
    }

    /// Adds an index over manifests; returns its descriptor.
    pub(crate) fn index(&mut self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.add(INDEX, index.to_string().as_bytes())
    }

    /// The JSON document that `descriptor` names.
    pub(crate) fn document(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&self.0[&digest(descriptor)]).expect("JSON")
    }

    /// Writes the blobs as `pnb vendor` does.
    pub(crate) fn mirror(&self, dir: &Path) -> String {
        let blobs = dir.join("oci/blobs/sha256");
        fs::create_dir_all(&blobs).expect("made");
        for (digest, bytes) in &self.0 {
            fs::write(blobs.join(digest.to_hex()), bytes).expect("written");
        }
        format!("file://{}", dir.display())
    }

    /// Writes an OCI layout whose index names `descriptor`.
    pub(crate) fn layout(&self, dir: &Path, descriptor: &Value) {
        self.mirror(dir);
        fs::rename(dir.join("oci/blobs"), dir.join("blobs")).expect("moved");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
        fs::write(dir.join("index.json"), index.to_string()).expect("written");
    }
}

/// The digest in a descriptor.
pub(crate) fn digest(descriptor: &Value) -> Sha256Digest {
    let text = descriptor["digest"].as_str().expect("a digest");
    text.trim_start_matches("sha256:").parse().expect("a digest")
}

/// The plain image of one layer: the package `base-files` in the version of the lock.
pub(crate) fn plain(blobs: &mut Blobs) -> Value {
    blobs.image("amd64", &[plain_layer()])
}

pub(crate) fn plain_layer() -> Vec<u8> {
    archive(&[
        file("etc/motd", "hello\n"),
        file("var/lib/dpkg/status", &status(&[("base-files", "13")])),
    ])
}

/// A project with the stages `base` and `system`, and a store of its own.
pub(crate) struct Site {
    dir: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        let site = Self { dir };
        let write = |path: &str, text: &str| {
            let path = site.project().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        };
        // The stage is the repository's own.
        let stage = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/base/stage.toml");
        write("stages/base/stage.toml", &fs::read_to_string(stage).expect("there"));
        write(
            "stages/system/stage.toml",
            "summary = \"A package\"\nwriter = \"unpack\"\n[packages]\nwant = [\"base-files\"]\n[inputs]\n\
             packages = { packages = true }\nbase = { stage = \"base\", with-base = true }\n[outputs]\n\
             tree = { kind = \"tree\" }\n",
        );
        write("stages/files.toml", "");
        write("lockfile.toml", &write_lock(&lock()).expect("a lock"));
        site
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    pub(crate) fn lockfile(&self) -> String {
        fs::read_to_string(self.project().join("lockfile.toml")).expect("there")
    }

    /// Changes the lock as text.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = self.lockfile();
        assert!(text.contains(from), "{from} is not in\n{text}");
        fs::write(self.project().join("lockfile.toml"), text.replacen(from, to, 1)).expect("written");
    }

    /// `pnb` on the project; `store` names a store beside it.
    pub(crate) fn pnb_in(&self, store: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
        command.arg("--project").arg(self.project());
        command.arg("--store").arg(self.path().join(store)).args(arguments);
        let scrubbed = ["ARCH", "VARIANT", "PNB_MIRROR", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG"];
        for name in scrubbed {
            command.env_remove(name);
        }
        command.env("HOME", self.path());
        command
    }

    /// Runs `pnb` to a good end and returns what it printed.
    pub(crate) fn good(&self, arguments: &[&str]) -> String {
        let done = self.pnb_in("store", arguments).output().expect("starts");
        assert!(done.status.success(), "{arguments:?}\n{}", said(&done));
        said(&done)
    }

    /// Runs `pnb` to an end with the exit code `code` and returns what it printed.
    pub(crate) fn bad(&self, code: i32, arguments: &[&str]) -> String {
        let done = self.pnb_in("store", arguments).output().expect("starts");
        assert_eq!(done.status.code(), Some(code), "{arguments:?}\n{}", said(&done));
        said(&done)
    }

    /// Pins the image that `descriptor` names, out of a mirror directory with `blobs`; the registry does not exist.
    pub(crate) fn pin(&self, blobs: &Blobs, descriptor: &Value) -> String {
        let mirror = blobs.mirror(&self.path().join("mirror"));
        self.good(&["lock", "--offline", "--mirror", &mirror, "--base", &name(descriptor)])
    }

    /// Is refused when it pins that image.
    pub(crate) fn refused(&self, code: i32, blobs: &Blobs, descriptor: &Value) -> String {
        let mirror = blobs.mirror(&self.path().join("mirror"));
        let before = self.lockfile();
        let said = self.bad(
            code,
            &["lock", "--offline", "--mirror", &mirror, "--base", &name(descriptor)],
        );
        assert_eq!(self.lockfile(), before, "a refused image leaves the lock as it was");
        said
    }
}

/// The name of an image in the registry that does not exist.
pub(crate) fn name(descriptor: &Value) -> String {
    format!("{NOBODY}@sha256:{}", digest(descriptor))
}

pub(crate) fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// A lock with the package `base-files` 13 for both architectures.
fn lock() -> Lockfile {
    let package = |arch: &str| Package {
        name: "base-files".into(),
        arch: arch.into(),
        version: "13".into(),
        source: None,
        archive: "trixie".into(),
        path: format!("pool/base-files_13_{arch}.deb").parse().expect("a path"),
        size: 1,
        sha256: sha256(arch.as_bytes()),
        sets: [format!("system/{arch}").parse().expect("a node")].into(),
    };
    Lockfile {
        version: LOCK_VERSION,
        source_date_epoch: Epoch::new(1_795_252_544),
        base: None,
        sets: Vec::new(),
        archives: vec![Archive {
            name: "trixie".into(),
            distribution: Distribution::Debian,
            base: "debian".parse().expect("a path"),
            suite: "trixie".parse().expect("a path"),
            components: vec!["main".into()],
            snapshot: "20261123T135944Z".parse().expect("a moment"),
            snapshot_url: "http://127.0.0.1:1/debian/20261123T135944Z".into(),
            date: Epoch::new(1),
            inrelease_sha256: sha256(b"release"),
            keys: vec!["0".repeat(40).parse().expect("a key")],
        }],
        packages: vec![package("amd64"), package("arm64")],
        files: Vec::new(),
    }
}
