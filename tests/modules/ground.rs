//! The artifact with the key of these tests, and the directories that its machines get as a share.

use crate::{initramfs::append, project::*};
use pnb::{
    model::{Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest},
    module::{ModuleSecretKey, WrittenModule, write_module},
    verity::digest_bytes,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

pub(crate) const EPOCH: Epoch = Epoch::new(1_700_000_000);
/// A moment that no clock of a test reaches.
pub(crate) const LATER: &str = "2999-01-01T00:00:00Z";

/// A key, and an artifact whose root has its public half.
pub(crate) struct Ground {
    /// The secret half.
    pub(crate) secret: PathBuf,
    /// The public half.
    pub(crate) public: PathBuf,
    /// The directory with the artifact of kernel-initrd.
    pub(crate) artifact: PathBuf,
}

/// The artifact of this architecture, with the public half of the key in its root.
pub(crate) fn artifact_of(arch: &str, public: &Path) -> PathBuf {
    let images = scratch().join("modules/images");
    let mut build = pnb(repository(), &store());
    build.args(["build", "--arch", arch, "--variant", "kernel-initrd", "--module-key"]);
    good(build.arg(public).arg("--output").arg(&images));
    images.join("kernel-initrd").join(arch)
}

pub(crate) fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let dir = scratch().join("modules");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("scratch");
        let key = dir.join("fleet");
        good(
            Command::new(env!("CARGO_BIN_EXE_pnb"))
                .args(["module", "key"])
                .arg(&key),
        );
        let (secret, public) = (key.with_extension("sec"), key.with_extension("pub"));
        let artifact = artifact_of("amd64", &public);
        Ground {
            secret,
            public,
            artifact,
        }
    })
}

pub(crate) fn secret() -> ModuleSecretKey {
    let text = fs::read_to_string(&ground().secret).expect("a key");
    ModuleSecretKey::parse(&text, "the key of the tests").expect("a key")
}

/// `pnb boot` of an artifact, perhaps a changed one, with the share `dir`.
pub(crate) fn boot(artifact: &Path, share: &Path) -> Command {
    boot_within(400, artifact, share)
}

/// The same with so many seconds, when the machine is alone.
pub(crate) fn boot_within(seconds: u64, artifact: &Path, share: &Path) -> Command {
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(artifact).arg("--share").arg(share);
    command.args(["--no-verify-sums", "--timeout", &patience(seconds)]);
    command
}

/// A tree of files: path, mode, content. The parents are made.
pub(crate) struct Files {
    pub(crate) tree: Tree,
    contents: BTreeMap<VerityDigest, Vec<u8>>,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self {
            tree: Tree::new(Meta::root(0o755, EPOCH)),
            contents: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, path: &str, meta: Meta, node: Node) {
        let path: RelPath = path.parse().expect("a path");
        self.tree.make_parents(&path, EPOCH).expect("parents");
        self.tree.insert(path, Entry { meta, node }).expect("free");
    }

    pub(crate) fn file(mut self, path: &str, content: &[u8]) -> Self {
        let digest = digest_bytes(content);
        self.contents.insert(digest, content.to_vec());
        let size = content.len() as u64;
        self.add(path, Meta::root(0o755, EPOCH), Node::File { size, digest });
        self
    }

    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        let target = target.as_bytes().to_vec();
        self.add(path, Meta::root(0o777, EPOCH), Node::Symlink { target });
        self
    }

    /// The module in `place`. No rule of `pnb module build` is applied.
    pub(crate) fn write(&self, place: &Path) -> WrittenModule {
        let open = |digest: &VerityDigest| {
            let bytes = self.contents.get(digest).ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read>)
        };
        write_module(&self.tree, &open, place).expect("a module")
    }
}

/// The text of a list with these values.
pub(crate) fn list(instance: &str, counter: u64, expires: &str, lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    format!("powernode-modules 1\ninstance {instance}\ncounter {counter}\nexpires {expires}\n{lines}end\n")
}

/// The line of a module that a node needs.
pub(crate) fn line(priority: u32, id: &str, module: &WrittenModule) -> String {
    format!("{priority} {id} sha256:{} required", module.digest)
}

/// Writes a list for every instance, signed with the key that the root has.
pub(crate) fn sign(place: &Path, lines: &[String]) {
    let text = list("*", 7, LATER, lines);
    fs::write(place.join("modules.list"), secret().sign(&text, "fleet")).expect("written");
}

/// A copy of the artifact whose initramfs has these files besides: later segments replace files of earlier ones.
pub(crate) fn with_files(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    for name in ["kernel", "initramfs.cpio.zst", "build-manifest.json"] {
        fs::copy(ground().artifact.join(name), dir.path().join(name)).expect(name);
    }
    append(&dir.path().join("initramfs.cpio.zst"), files);
    dir
}
