//! Replays the inputs of the fuzz targets: those that were findings, and the seeds.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The inputs in a directory of `fuzz/` by their target, sorted.
fn inputs(directory: &str) -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory);
    let listed = walkdir::WalkDir::new(&root).min_depth(2).sort_by_file_name();
    let files = listed.into_iter().map(|file| file.expect("readable").into_path());
    files
        .map(|path| {
            let target = path.parent().and_then(Path::file_name).expect("below the root");
            (target.to_string_lossy().into_owned(), path.clone())
        })
        .collect()
}

#[test]
fn every_finding_and_every_seed_is_read_within_the_limits() {
    let known: BTreeSet<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known.len(), targets::TARGETS.len());
    for (directory, least) in [("regressions", 9), ("seeds", 20)] {
        let found = inputs(directory);
        assert!(found.len() >= least, "{directory} has {} files", found.len());
        for (name, path) in found {
            // A device tree is read as a part of a card.
            let Some(target) =
                targets::target(&name).or((name == "dtb").then_some(targets::target("card").expect("there")))
            else {
                unreachable!("{} is in the directory of no target", path.display());
            };
            target(&fs::read(&path).expect("readable"));
        }
    }
}

/// A seed that its reader refuses leads the fuzzer nowhere.
#[test]
fn seeds_are_valid() {
    use pnb::{image, lock, manifest, model};
    let seed = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        fs::read(&path).unwrap_or_else(|e| unreachable!("{}: {e}", path.display()))
    };
    let text = |name: &str| String::from_utf8(seed(name)).expect("UTF-8");
    lock::parse_lock(&text("lock/lock.toml"), "x").expect("a lock");
    manifest::Manifest::read(&seed("manifest/build-manifest.json"), "x").expect("a manifest");
    manifest::Bom::read(&seed("manifest/sbom.cdx.json"), "x").expect("an SBOM");
    manifest::Statement::read(&seed("manifest/provenance.slsa.json"), "x").expect("a statement");
    manifest::BuildRecord::read(&seed("manifest/build-record.json"), "x").expect("a record");
    let list = pnb::module::ModuleList::parse(&text("modules/list"), "x").expect("a list of modules");
    assert_eq!(list.entries.len(), 2);
    pnb::module::ModulePublicKey::parse(&text("modules/public-key"), "x").expect("a key");
    let tree = model::parse_dump(&text("dump/dump")).expect("a tree");
    assert!(tree.len() >= 6);
    assert_eq!(image::kmod::parse_facts(&text("facts/facts")).expect("facts").len(), 2);
    image::kmod::parse_wanted("x", &text("lists/modules")).expect("a list");
    pnb::fetch::parse_stanzas("x", &text("mirrors/debian.sources")).expect("stanzas");
    pnb::debian::Release::parse(&text("release/Release"), "x").expect("a release");
    pnb::boot::raspi::Config::parse(&text("config/config.txt"), &|_| Ok(String::new())).expect("settings");
    use pnb::registry;
    let challenges = registry::parse_challenges(&text("challenge/bearer"));
    assert_eq!(challenges.len(), 2);
    let file = registry::CredentialFile::parse(&seed("credentials/config.json"), Path::new("x")).expect("a file");
    assert_ne!(
        file.get("r.example", "team").ok(),
        Some(registry::Credentials::Anonymous)
    );
    for name in ["reference/full", "reference/address"] {
        text(name).parse::<registry::ImageReference>().expect("a name");
    }
    for kind in ["manifest", "index"] {
        let media_type = format!("application/vnd.oci.image.{kind}.v1+json");
        registry::parse_manifest(&media_type, &seed(&format!("registry/{kind}.json"))).expect("well-formed");
    }
    for name in ["file-log-1", "file-log-2", "file-stamped"] {
        let bundle = seed(&format!("bundle/{name}"));
        assert!(targets::is_signature(&bundle, pnb::sign::Purpose::File), "{name}");
        let statement = seed(&format!("bundle/{}", name.replace("file", "statement")));
        assert!(targets::is_signature(&statement, pnb::sign::Purpose::Image), "{name}");
    }
    pnb::sign::SigningConfig::parse(&seed("signing-config/config.json"), "x").expect("a configuration");
    pnb::sign::IdentityToken::parse(&text("token/token"), "x").expect("a token");
    let mut index = lock::Index::new(model::Arch::Amd64);
    index
        .read(
            "x",
            lock::ArchiveRank::USUAL,
            &seed("control/control")[..],
            "x",
            lock::IndexScope::OneArchitecture,
        )
        .expect("packages");
    let mut files = 0;
    let mut put = |content: &mut dyn std::io::Read| {
        files += 1;
        pnb::verity::digest_reader(content)
    };
    pnb::debian::deb_tree(&seed("deb/small.deb")[..], "x", &Default::default(), &mut put).expect("a package");
    assert_eq!(files, 2);
    assert_eq!(
        pnb::debian::read_control(&seed("deb/small.deb")[..], "x")
            .expect("a package")
            .lines()
            .count(),
        3
    );
    // Both layers: the upper one removes entries of the lower one, and adds one.
    assert_eq!(targets::layers(&seed("layers/two")), 5);
    assert_eq!(targets::layout(&seed("layout/small")), 5);
    let mut requests = &seed("http/two")[..];
    for (path, keep_alive) in [("amd64/a b", true), ("kernel", false)] {
        let (request, length) = pnb::serve::parse_http_request(requests).expect("valid").expect("whole");
        let name = request.name.expect("a file");
        assert_eq!(name.candidates()[0].to_string(), path);
        assert_eq!((request.keep_alive, request.range.is_some()), (keep_alive, keep_alive));
        requests = &requests[length..];
    }
    assert!(requests.is_empty());
    for name in ["tftp/plain", "tftp/windows"] {
        let whole = seed(name);
        assert!(targets::tftp_transfer(&whole), "{name}");
        assert!(!targets::tftp_transfer(&whole[..whole.len() - 7]), "{name}");
    }
    // The tree, and the entries that hide the directories of objects.
    let listed = image::composefs::list(&seed("composefs/small"), 1000).expect("an image");
    assert_eq!(listed.len(), 7 + 256);
    for name in [
        "ext4/small",
        "ext4/block-map",
        "ext4/inline-data",
        "fat/sectors-of-4096",
        "fat/small",
        "gpt/sectors-of-4096",
        "gpt/small",
        "mbr/logical",
        "iso/boot",
        "cpio/newc.cpio",
        "cpio/crc.cpio",
        "qcow2/compressed",
        "tar/plain.tar",
        "tar/gnu-sparse.tar",
        "tar/pax-sparse.tar",
    ] {
        let node = super::looked(&seed(name));
        assert_eq!(super::problems(&node), Vec::<String>::new(), "{name}");
        assert!(super::count(&node) >= 2, "{name}: {node:#?}");
    }
    // This one is cut where its journal has only zeros left.
    let mut dirty = seed("ext4/dirty-journal");
    dirty.resize(2200 << 10, 0);
    let node = super::looked(&dirty);
    assert_eq!(super::problems(&node), Vec::<String>::new());
    assert!(
        super::holds(
            super::child(super::child(&node, "with its journal"), "/added"),
            b"hello\n"
        ),
        "{node:#?}"
    );
}
