//! Locking an archive from end to end: an Ubuntu-shaped archive that is made and signed here, what is refused of it, and
//! that the solver picks what apt-get picks.

#[path = "fixture/apt.rs"]
mod apt;
#[path = "fixture/signed_archive.rs"]
mod signed_archive;
#[path = "fixture/tools.rs"]
mod tools;

use crate::signed_archive::*;
use pgp::{
    composed::{
        ArmorOptions, CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedPublicKey,
        SignedSecretKey,
    },
    crypto::hash::HashAlgorithm,
    packet::{SignatureConfig, SignatureType, SubpacketData},
    types::{Duration, KeyDetails, Password, Tag, Timestamp},
};
use pnb::{
    lock::{
        ArchiveRank, Index, IndexScope, LockError, LockRequest, Lockfile, PinnedFile, WantedArchive, WantedSet, check,
        parse_archives, parse_lock, resolve, update, write_lock,
    },
    model::{Arch, Hint, NodeId, RelPath, chain},
};
use rand::{SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

const ARCHIVES: &str = r#"
[[archive]]
name = "noble"
distribution = "ubuntu"
base = "ubuntu"
suite = "noble"
components = ["main", "universe"]
architectures = ["amd64"]
keyring = "keys/test.pgp"

[[archive]]
name = "noble-ports"
distribution = "ubuntu"
base = "ubuntu-ports"
suite = "noble"
components = ["main", "universe"]
architectures = ["arm64"]
keyring = "keys/test.pgp"
"#;

/// Replaces the self-signatures of the first user id by one with this hash and these further statements.
fn certify(key: &SignedSecretKey, public: &mut SignedPublicKey, hash: HashAlgorithm, more: Vec<SubpacketData>) {
    let mut config = SignatureConfig::v4(SignatureType::CertPositive, key.primary_key.algorithm(), hash);
    let mut flags = pgp::packet::KeyFlags::default();
    flags.set_sign(true);
    flags.set_certify(true);
    let issuer = SubpacketData::IssuerFingerprint(key.primary_key.fingerprint());
    let more = [SubpacketData::KeyFlags(flags), issuer].into_iter().chain(more);
    config.hashed_subpackets = subpackets(CREATED + DAY, more.collect());
    let id = public.details.users[0].id.clone();
    let signature = config.sign_certification(
        &key.primary_key,
        &public.primary_key,
        &Password::empty(),
        Tag::UserId,
        &id,
    );
    public.details.users[0].signatures = vec![signature.expect("signed")];
}

/// A self-signature over the first user id that says how long the key lasts.
fn limit_key(key: &SignedSecretKey, public: &mut SignedPublicKey, days: u32) {
    let end = SubpacketData::KeyExpirationTime(Duration::from_secs(days * DAY));
    certify(key, public, HashAlgorithm::Sha256, vec![end]);
}

fn revoke_key(key: &SignedSecretKey, public: &mut SignedPublicKey) {
    let mut config = SignatureConfig::v4(
        SignatureType::KeyRevocation,
        key.primary_key.algorithm(),
        HashAlgorithm::Sha256,
    );
    config.hashed_subpackets = subpackets(CREATED + DAY, Vec::new());
    let signature = config
        .sign_key(&key.primary_key, &Password::empty(), &public.primary_key)
        .expect("signed");
    public.details.revocation_signatures.push(signature);
}

fn revoke_subkey(key: &SignedSecretKey, public: &mut SignedPublicKey) {
    let mut config = SignatureConfig::v4(
        SignatureType::SubkeyRevocation,
        key.primary_key.algorithm(),
        HashAlgorithm::Sha256,
    );
    config.hashed_subpackets = subpackets(CREATED + DAY, Vec::new());
    let subkey = &mut public.public_subkeys[0];
    let signature = config
        .sign_subkey_binding(&key.primary_key, &public.primary_key, &Password::empty(), &subkey.key)
        .expect("signed");
    subkey.signatures.push(signature);
}

/// What a test changes about the archive.
struct Shape {
    arm_version: &'static str,
    release: fn(String) -> String,
    sign: fn(&str, &SignedSecretKey) -> String,
    public: fn(&SignedSecretKey, &mut SignedPublicKey),
    document: fn(String) -> String,
    mirror: fn(&mut Mirror),
    archives: fn(String) -> String,
    now: u32,
    snapshot: Option<&'static str>,
    previous: Option<Lockfile>,
    keep: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            arm_version: "2.39-0ubuntu8",
            release: |text| text,
            sign: |text, key| sign(text, &key.secret_subkeys[0].key, HashAlgorithm::Sha256, DATE),
            public: |_, _| {},
            document: |text| text,
            mirror: |_| {},
            archives: |text| text,
            now: DATE + DAY,
            snapshot: None,
            previous: None,
            keep: false,
        }
    }
}

fn wanted(arch: Arch) -> WantedSet {
    WantedSet {
        node: NodeId::new("rootfs", arch),
        names: vec!["bash".to_owned()],
        essential: true,
        closure: true,
    }
}

impl Shape {
    fn lock(&self) -> Result<Lockfile, LockError> {
        let key = new_key(1);
        let mut public = key.to_public_key();
        (self.public)(&key, &mut public);
        let mut mirror = Mirror::default();
        for (base, arch, version) in [
            ("ubuntu", "amd64", "2.39-0ubuntu8"),
            ("ubuntu-ports", "arm64", self.arm_version),
        ] {
            let main = package(
                "bash",
                arch,
                "5.2.21-2ubuntu4",
                "Depends: libc6 (>= 2.38)\nPre-Depends: base\n",
            ) + &package("libc6", arch, version, "Source: glibc\n")
                + &package("base", "all", "13", "");
            let universe = package("dash", arch, "0.5.12", "Essential: yes\nDepends: awk\n")
                + &package("mawk", arch, "1.3", "Provides: awk\n");
            let mut lines = String::new();
            for (component, text) in [("main", main), ("universe", universe)] {
                let bytes = xz(&text);
                let digest = sha256(&bytes);
                lines.push_str(&format!(
                    " {digest} {} {component}/binary-{arch}/Packages.xz\n",
                    bytes.len()
                ));
                let directory = format!("{base}/dists/noble/{component}/binary-{arch}");
                mirror.0.insert(format!("{directory}/by-hash/SHA256/{digest}"), bytes);
            }
            let release = format!(
                "Origin: Ubuntu\nSuite: noble\nCodename: noble\nDate: Sat, 21 Nov 2026 09:15:44 UTC\n\
                 Valid-Until: Sat, 28 Nov 2026 09:15:44 UTC\nAcquire-By-Hash: yes\nArchitectures: {arch}\n\
                 Components: main universe\nDescription:\n - begins with a dash\nSHA256:\n{lines}"
            );
            let document = (self.document)((self.sign)(&(self.release)(release), &key));
            mirror
                .0
                .insert(format!("{base}/dists/noble/InRelease"), document.into_bytes());
        }
        (self.mirror)(&mut mirror);
        let archives: Vec<WantedArchive> = parse_archives(&(self.archives)(ARCHIVES.to_owned()), "archives.toml")?;
        let ring = public.to_armored_bytes(ArmorOptions::default()).expect("armored");
        let path: RelPath = "keys/test.pgp".parse().expect("valid");
        let files = [PinnedFile {
            name: "agent".to_owned(),
            arch: Some(Arch::Amd64),
            path: Some("agent/diagnostic".parse().expect("valid")),
            url: None,
            redirects: Vec::new(),
            size: 2,
            sha256: sha256(b"x\n"),
        }];
        update(
            &LockRequest {
                archives: &archives,
                keyrings: &BTreeMap::from([(path, ring)]),
                suites: &BTreeSet::new(),
                wanted: &[wanted(Arch::Amd64), wanted(Arch::Arm64)],
                files: &files,
                now: self.now,
                snapshot: self.snapshot.map(|s| s.parse().expect("a moment")),
                previous: self.previous.as_ref(),
                keep: self.keep,
            },
            &mirror,
        )
    }

    /// The whole refusal, causes joined by `: `.
    fn refusal(&self) -> String {
        let err = self.lock().expect_err("must be refused");
        let hint = err.hint().map_or(String::new(), |hint| format!("\n\nhint: {hint}"));
        let out = format!("{}{hint}", chain(&err));
        // Fingerprints of the generated keys say nothing to a reader.
        let mut hidden = out.clone();
        for word in out.split(|c: char| !c.is_ascii_hexdigit()) {
            if word.len() == 40 {
                hidden = hidden.replace(word, "<key>");
            }
        }
        hidden
    }
}

#[test]
fn an_ubuntu_archive_locks_and_round_trips() {
    let lock = Shape::default().lock().expect("locked");
    let names = |set: &str| -> Vec<String> {
        lock.packages_of(&set.parse().expect("a node"))
            .map(|p| format!("{} {}", p.name, p.archive))
            .collect()
    };
    assert_eq!(
        names("rootfs/amd64"),
        ["base noble", "bash noble", "dash noble", "libc6 noble", "mawk noble"]
    );
    assert_eq!(
        names("rootfs/arm64"),
        [
            "base noble",
            "bash noble-ports",
            "dash noble-ports",
            "libc6 noble-ports",
            "mawk noble-ports"
        ]
    );
    assert_eq!(lock.source_date_epoch.seconds(), u64::from(DATE));
    let archive = lock.archive("noble-ports").expect("locked");
    assert_eq!(
        archive.snapshot_url,
        "https://snapshot.ubuntu.com/ubuntu-ports/20261122T091544Z"
    );
    assert_eq!(
        archive.keys,
        [new_key(1)
            .fingerprint()
            .to_string()
            .to_uppercase()
            .parse()
            .expect("a fingerprint")],
        "the primary key is named"
    );
    let libc = lock.packages.iter().find(|p| p.name == "libc6").expect("locked");
    assert_eq!(libc.source.as_deref(), Some("glibc 2.39-0ubuntu8"));
    let text = write_lock(&lock).expect("writable");
    assert_eq!(parse_lock(&text, "lockfile.toml").expect("valid"), lock);
    let newer = parse_lock(&text.replacen("version = 1", "version = 2", 1), "lockfile.toml").expect_err("newer");
    assert!(matches!(newer, LockError::NewerVersion { found: 2, .. }));

    assert_eq!(check(&lock, &[wanted(Arch::Amd64), wanted(Arch::Arm64)]), []);
    let mut more = wanted(Arch::Amd64);
    more.names.push("zsh".to_owned());
    let tools = WantedSet {
        node: NodeId::new("tools", Arch::Amd64),
        ..wanted(Arch::Amd64)
    };
    let problems: Vec<String> = check(&lock, &[more, tools]).iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "set rootfs/amd64 lacks zsh",
            "set tools/amd64 is not locked",
            "set rootfs/arm64 is locked, but no stage wants it"
        ]
    );
}

macro_rules! refused {
    ($name:ident, { $($field:ident: $value:expr),* $(,)? }, @$expected:literal) => {
        #[test]
        fn $name() {
            let shape = Shape { $($field: $value,)* ..Shape::default() };
            insta::assert_snapshot!(shape.refusal(), @$expected);
        }
    };
}

refused!(unsigned, { document: |_| "Origin: Ubuntu\n".to_owned() },
    @"verify the archive noble: InRelease line 1: not signed: a signed document begins with BEGIN PGP SIGNED MESSAGE");
refused!(signature_cut_off, { document: |text| text.split("-----BEGIN PGP SIGNATURE").next().unwrap_or_default().to_owned() },
    @"verify the archive noble: InRelease line 16: not signed: the text ends without a signature");
refused!(text_before, { document: |text| format!("Origin: Evil\n{text}") },
    @"verify the archive noble: InRelease line 1: not signed: a signed document begins with BEGIN PGP SIGNED MESSAGE");
refused!(text_among_headers, { document: |text| text.replacen("\n\n", "\nSuite: evil\n\n", 1) },
    @"verify the archive noble: InRelease line 3: only Hash lines may stand before the signed text");
refused!(text_after, { document: |text| format!("{}\nSuite: evil\n", text.trim_end()) },
    @"verify the archive noble: InRelease line 24: bytes after the signed block");
refused!(two_blocks, { document: |text| format!("{}\n{text}", text.trim_end()) },
    @"verify the archive noble: InRelease line 24: bytes after the signed block");
refused!(changed_text, { document: |text| text.replace("Suite: noble", "Suite: noblf") },
    @"verify the archive noble: InRelease: signature by <key> does not match the text");
refused!(unknown_key, { sign: |text, _| sign(text, &new_key(2).primary_key, HashAlgorithm::Sha256, DATE) },
    @"
verify the archive noble: InRelease is not signed by a trusted key:
  key <key>: not in the keyring
");
refused!(expired_key, { public: |key, public| limit_key(key, public, 100) },
    @"
verify the archive noble: InRelease is not signed by a trusted key:
  key <key>: the key expired on 2026-01-25T09:15:44Z
");
refused!(revoked_key, { public: revoke_key },
    @"
verify the archive noble: InRelease is not signed by a trusted key:
  key <key>: the key was revoked on 2025-10-18T09:15:44Z
");
refused!(revoked_subkey, { public: revoke_subkey },
    @"
verify the archive noble: InRelease is not signed by a trusted key:
  key <key>: the subkey was revoked on 2025-10-18T09:15:44Z
");
refused!(foreign_subkey, { public: |_, public| {
        let other = new_key(3).to_public_key();
        public.public_subkeys[0].signatures = other.public_subkeys[0].signatures.clone();
    } },
    @"
verify the archive noble: InRelease is not signed by a trusted key:
  key <key>: the subkey is not bound to its primary key
");
refused!(no_self_signature, { public: |_, public| {
        let other = new_key(3).to_public_key();
        public.details.users[0].signatures = other.details.users[0].signatures.clone();
    } },
    @"
verify the archive noble: InRelease is not signed by a trusted key:
  key <key>: the key has no valid self-signature
");
refused!(signed_later, { sign: |text, key| sign(text, &key.primary_key, HashAlgorithm::Sha256, DATE + 2 * DAY) },
    @"
verify the archive noble: InRelease is not signed by a trusted key:
  key <key>: signature was made at 2026-11-23T09:15:44Z, after 2026-11-22T09:15:44Z, which is now by this machine's clock

hint: if this machine's clock is behind, set it; `pnb lock --snapshot T` judges the archives at the moment T instead of the clock's
");
refused!(no_longer_valid, { now: DATE + 8 * DAY },
    @"
verify the archive noble: InRelease was valid until 2026-11-28T09:15:44Z, not at 2026-11-29T09:15:44Z, which is now by this machine's clock

hint: if this machine's clock is ahead, set it; otherwise the mirror is no longer updated: name another with --mirror, or a moment at which the file was valid with `pnb lock --snapshot T`
");
refused!(dated_after_the_snapshot, {
        snapshot: Some("20261121T091543Z"),
        sign: |text, key| sign(text, &key.primary_key, HashAlgorithm::Sha256, DATE - DAY),
    },
    @"verify the archive noble: InRelease is dated 2026-11-21T09:15:44Z, after 2026-11-21T09:15:43Z, the moment of the snapshot");
refused!(another_suite, { release: |text| text.replace("Suite: noble", "Suite: jammy").replace("Codename: noble", "Codename: jammy") },
    @r#"verify the archive noble: InRelease: is for suite "jammy" ("jammy"), not for "noble""#);
refused!(no_such_component, { archives: |text| text.replace("universe", "multiverse") },
    @r#"lock the archive noble: suite noble has no component "multiverse" (it has: main, universe)"#);
refused!(no_such_architecture, { release: |text| text.replace("Architectures: amd64", "Architectures: riscv64") },
    @"lock the archive noble: suite noble has no architecture amd64 (it has: riscv64)");
refused!(snapshot_in_the_future, { snapshot: Some("20270101T000000Z") },
    @"
use the snapshot 20270101T000000Z: it lies in the future, for it is 2026-11-22T09:15:44Z by this machine's clock

hint: name a moment that has passed; if this machine's clock is behind, set it
");
refused!(sources_differ, { arm_version: "2.40-1" },
    @"
lock both architectures from the same sources:
  glibc in rootfs: amd64 2.39-0ubuntu8, arm64 2.40-1
");

/// The RSA key of the tests: Ed25519 cannot be made to sign a weak hash.
fn rsa_key() -> &'static SignedSecretKey {
    static KEY: OnceLock<SignedSecretKey> = OnceLock::new();
    KEY.get_or_init(|| {
        SecretKeyParamsBuilder::default()
            .key_type(KeyType::Rsa(2048))
            .can_sign(true)
            .can_certify(true)
            .can_encrypt(EncryptionCaps::None)
            .created_at(Timestamp::from_secs(CREATED))
            .primary_user_id("Old Archive <old@example.org>".to_owned())
            .build()
            .expect("complete")
            .generate(StdRng::seed_from_u64(9))
            .expect("generated")
    })
}

#[test]
fn a_weak_hash_counts_for_nothing() {
    let shape = |sign: fn(&str, &SignedSecretKey) -> String| Shape {
        sign,
        public: |_, public| *public = rsa_key().to_public_key(),
        ..Shape::default()
    };
    shape(|text, _| sign(text, &rsa_key().primary_key, HashAlgorithm::Sha256, DATE))
        .lock()
        .expect("the key itself is trusted");
    let weak = shape(|text, _| sign(text, &rsa_key().primary_key, HashAlgorithm::Sha1, DATE));
    insta::assert_snapshot!(weak.refusal(), @"
    verify the archive noble: InRelease is not signed by a trusted key:
      key <key>: hash SHA1 is too weak
    ");
    // The key itself has a self-signature of that kind only, as old keys do.
    let old = Shape {
        public: |_, public| {
            *public = rsa_key().to_public_key();
            certify(rsa_key(), public, HashAlgorithm::Sha1, Vec::new());
        },
        ..shape(|text, _| sign(text, &rsa_key().primary_key, HashAlgorithm::Sha256, DATE))
    };
    insta::assert_snapshot!(old.refusal(), @"
    verify the archive noble: InRelease is not signed by a trusted key:
      key <key>: the self-signature of the key does not count: hash SHA1 is too weak
    ");
}

#[test]
fn one_good_signature_among_unknown_ones_is_enough() {
    let shape = Shape {
        sign: |text, key| {
            let other = new_key(2);
            let message = CleartextSignedMessage::new_many(text.trim_end(), |text| {
                Ok(vec![
                    config(&other.primary_key, HashAlgorithm::Sha256, DATE).sign(
                        &other.primary_key,
                        &Password::empty(),
                        text.as_bytes(),
                    )?,
                    config(&key.primary_key, HashAlgorithm::Sha512, DATE).sign(
                        &key.primary_key,
                        &Password::empty(),
                        text.as_bytes(),
                    )?,
                ])
            });
            let message = message.expect("signed");
            message.to_armored_string(ArmorOptions::default()).expect("armored")
        },
        ..Shape::default()
    };
    let lock = shape.lock().expect("locked");
    assert_eq!(lock.archives[0].keys.len(), 1, "only the known key is named");
}

#[test]
fn going_back_in_time_needs_a_snapshot() {
    let mut previous = Shape::default().lock().expect("locked");
    for archive in &mut previous.archives {
        archive.date = pnb::model::Epoch::new(DATE + 3600);
        archive.snapshot = "20261122T200000Z".parse().expect("a moment");
    }
    let shape = Shape {
        previous: Some(previous.clone()),
        ..Shape::default()
    };
    insta::assert_snapshot!(shape.refusal(), @"
    lock the archive noble: its release of 2026-11-21T09:15:44Z is older than the locked one of 2026-11-21T10:15:44Z

    hint: a mirror that goes back in time is outdated or hostile; to go back on purpose, name the moment with --snapshot
    ");
    let shape = Shape {
        previous: Some(previous),
        snapshot: Some("20261121T100000Z"),
        ..Shape::default()
    };
    shape.lock().expect("asked for");
}

#[test]
fn an_index_that_was_not_signed_is_refused() {
    let shape = Shape {
        mirror: |mirror| {
            for (path, bytes) in &mut mirror.0 {
                if path.contains("by-hash") {
                    bytes.push(0);
                }
            }
        },
        ..Shape::default()
    };
    let refusal = shape.refusal();
    assert!(
        refusal.starts_with("verify dists/noble/main/binary-amd64/by-hash/SHA256/"),
        "{refusal}"
    );
    assert!(
        refusal.contains("is not the file that was signed\nexpected: "),
        "{refusal}"
    );
    assert!(refusal.contains("\n  actual: "), "{refusal}");
}

#[test]
fn the_solver_picks_what_apt_get_picks() {
    let text = include_str!("fixtures/packages-amd64.txt");
    let directory = tempfile::tempdir().expect("scratch");
    let repo = directory.path().join("repo/dists/trixie");
    std::fs::create_dir_all(repo.join("main/binary-amd64")).expect("created");
    std::fs::write(repo.join("main/binary-amd64/Packages"), text).expect("written");
    let release = apt::release("trixie", "", text);
    std::fs::write(repo.join("Release"), release).expect("written");

    let mut index = Index::new(Arch::Amd64);
    index
        .read(
            "trixie",
            ArchiveRank::USUAL,
            text.as_bytes(),
            "Packages",
            IndexScope::OneArchitecture,
        )
        .expect("well-formed");
    let essential: Vec<&str> = index
        .ids()
        .map(|id| index.package(id))
        .filter(|package| package.essential)
        .map(|package| &*package.name)
        .collect();
    assert!(essential.len() > 15, "the fixture holds the essential packages");
    let rootfs = "systemd-sysv systemd udev dbus kmod iproute2 ca-certificates e2fsprogs util-linux mount procps";
    let tools = "mmdebstrap apt dracut-core dracut zstd xz-utils cpio kmod e2fsprogs libarchive13t64 erofs-utils systemd udev busybox";
    let cases = [
        (rootfs, true),
        (tools, true),
        (rootfs, false),
        (tools, false),
        ("dracut", false),
        ("mmdebstrap busybox", false),
        ("systemd", false),
        ("dbus", true),
    ];
    let asked = cases.map(|(names, with_essential)| {
        let mut asked: Vec<&str> = names.split(' ').collect();
        if with_essential {
            asked.extend(&essential);
        }
        asked
    });
    let theirs = apt::apt_get(&directory.path().join("repo"), &["trixie main"], &asked);
    for ((names, with_essential), theirs) in cases.into_iter().zip(theirs) {
        let wanted = WantedSet {
            node: NodeId::new("test", Arch::Amd64),
            names: names.split(' ').map(str::to_owned).collect(),
            essential: with_essential,
            closure: true,
        };
        let picked: BTreeSet<String> = resolve(&index, &wanted)
            .unwrap_or_else(|err| panic!("failed to resolve {err}"))
            .into_iter()
            .map(|id| format!("{}={}", index.package(id).name, index.package(id).version))
            .collect();
        assert_eq!(picked, theirs, "{names:?}, essential: {with_essential}");
    }
}
