//! Documents that nobody should write: each is refused with its reason, and its innocent neighbour is read.

use crate::layouts::*;
use pnb::{
    image::oci::{LAYOUT_FILE, OCI_INDEX, OciImage, blob_path},
    model::Arch,
};
use serde_json::{Value, json};

#[test]
fn sizes_and_digests_must_be_those_that_are_stated() {
    let layers = [plain(small())];
    let sized = |what: &str, member: &str, by: i64| {
        let files = raw_layout(&layers, |document, value| {
            if document == what {
                let place = value.pointer_mut(member).expect("there");
                *place = json!(place.as_i64().expect("a number") + by);
            }
        });
        refusal(&files)
    };
    let all = [
        sized("manifest", "/layers/0/size", 1),
        sized("manifest", "/layers/0/size", -1),
        sized("manifest", "/config/size", 1),
        sized("manifest", "/config/size", -1),
        sized("index", "/manifests/0/size", 1),
        sized("index", "/manifests/0/size", -1),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read the content of "<sha256>": wrong length
    expected: 2561 bytes
      actual: 2560 bytes
    read the content of "<sha256>": it has more than the 2559 bytes that its descriptor states
    read the content of "blobs/sha256/<sha256>": wrong length
    expected: 152 bytes
      actual: 151 bytes
    read the content of "blobs/sha256/<sha256>": wrong length
    expected: 150 bytes
      actual: 151 bytes
    read the content of "blobs/sha256/<sha256>": wrong length
    expected: 398 bytes
      actual: 397 bytes
    read the content of "blobs/sha256/<sha256>": wrong length
    expected: 396 bytes
      actual: 397 bytes
    "#);
    let mut other = plain(small());
    other.diff_id = sha256(b"another");
    insta::assert_snapshot!(refusal(&raw(&[other])), @r#"
    read the blob "the archive in <sha256>": wrong SHA-256
    expected: <sha256>
      actual: <sha256>
    "#);
    let mut compressed = gzipped(&small());
    compressed.diff_id = sha256(&compressed.blob);
    insta::assert_snapshot!(refusal(&raw(&[compressed])), @r#"
    read the blob "the archive in <sha256>": wrong SHA-256
    expected: <sha256>
      actual: <sha256>
    "#);
}

#[test]
fn documents_have_a_size_that_registries_accept() {
    let long = |what: &'static str, mib: usize| {
        raw_layout(&[plain(small())], move |document, value| {
            if document == what {
                value["annotations"] = json!({ "long": "x".repeat(mib << 20) });
                if what == "config" {
                    value["author"] = value["annotations"]["long"].take();
                }
            }
        })
    };
    for what in ["config", "manifest", "index"] {
        apply(&long(what, 3)).expect("innocent");
    }
    let all = ["config", "manifest", "index"].map(|what| refusal(&long(what, 5)));
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "blobs/sha256/<sha256>" of an OCI image: it has more than 4194304 bytes
    read "blobs/sha256/<sha256>" of an OCI image: it has more than 4194304 bytes
    read "index.json" of an OCI image: it has more than 4194304 bytes
    "#);
}

/// A layout whose `index.json` lists an index, and so on, `depth` times, before the image.
fn nested(depth: usize) -> Files {
    let mut files = raw(&[plain(small())]);
    for _ in 0..depth {
        let inner = files[OCI_INDEX].clone();
        let listed = blob(&mut files, INDEX, &inner);
        let outer = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [listed] });
        files.insert(OCI_INDEX.to_owned(), outer.to_string().into_bytes());
    }
    files
}

#[test]
fn indexes_end() {
    apply(&nested(0)).expect("innocent");
    apply(&nested(1)).expect("innocent");
    let index_json = |index: Value| {
        let mut files = raw(&[plain(small())]);
        files.insert(OCI_INDEX.to_owned(), index.to_string().into_bytes());
        files
    };
    // An index that would list itself is listed with a digest that it does not have.
    let itself = json!({ "mediaType": INDEX, "digest": format!("sha256:{}", sha256(b"x")), "size": 300 });
    let inner = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [itself] }).to_string();
    let mut listing_itself = index_json(json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            "mediaType": INDEX, "digest": format!("sha256:{}", sha256(b"x")), "size": inner.len() }] }));
    listing_itself.insert(blob_path(&sha256(b"x")), inner.into_bytes());
    // Indexes without images count too: each would be read.
    let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    let mut scratch = Files::new();
    let listed = blob(&mut scratch, INDEX, empty.as_bytes());
    let many = |count: usize| {
        let mut files =
            index_json(json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": vec![listed.clone(); count] }));
        files.extend(scratch.clone());
        files
    };
    let all = [
        refusal(&nested(2)),
        refusal(&nested(5)),
        refusal(&listing_itself),
        refusal(&many(64)),
        refusal(&many(65)),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: it lists an index, and indexes are nested 2 deep at most
    read "<sha256>" of an OCI image: it lists an index, and indexes are nested 2 deep at most
    read the blob "blobs/sha256/<sha256>": wrong SHA-256
    expected: <sha256>
      actual: <sha256>
    read "index.json" of an OCI image: it lists 0 images for amd64, not one
    read "index.json" of an OCI image: the layout lists more than 64 images and indexes
    "#);
}

#[test]
fn an_image_has_at_most_127_layers_and_a_diff_id_for_each() {
    let layers = |count: usize| -> Vec<RawLayer> {
        (0..count)
            .map(|n| plain(archive(&[file(&format!("file{n}"), b"")])))
            .collect()
    };
    let (tree, _) = apply(&raw(&layers(127))).expect("innocent");
    assert_eq!(tree.len(), 127);
    let fewer = raw_layout(&layers(2), |document, value| {
        if document == "config" {
            value["rootfs"]["diff_ids"].as_array_mut().expect("a list").pop();
        }
    });
    let all = [refusal(&raw(&layers(128))), refusal(&raw(&[])), refusal(&fewer)];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: it has 128 layers, and its configuration 128; 1 to 127 are possible
    read "<sha256>" of an OCI image: it has 0 layers, and its configuration 0; 1 to 127 are possible
    read "<sha256>" of an OCI image: it has 2 layers, and its configuration 1; 1 to 127 are possible
    "#);
}

#[test]
fn a_digest_is_sha256_and_no_path() {
    let digest = |what: &'static str, member: &'static str, digest: String| {
        let files = raw_layout(&[plain(small())], move |document, value| {
            if document == what {
                *value.pointer_mut(member).expect("there") = json!(digest);
            }
        });
        refusal(&files)
    };
    let upper = format!("sha256:{}", "AB".repeat(32));
    let all = [
        digest("manifest", "/layers/0/digest", format!("sha512:{}", "ab".repeat(64))),
        digest("manifest", "/layers/0/digest", "sha256:../../x".to_owned()),
        digest("manifest", "/config/digest", "sha256:../../etc/passwd".to_owned()),
        digest("manifest", "/config/digest", format!("sha512:{}", "ab".repeat(64))),
        digest("index", "/manifests/0/digest", "sha256:ab".to_owned()),
        digest("index", "/manifests/0/digest", upper),
        digest("config", "/rootfs/diff_ids/0", format!("sha512:{}", "ab".repeat(64))),
        digest("config", "/rootfs/diff_ids/0", "x".to_owned()),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: it names "sha512:abababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababab", which is no SHA-256 digest
    read "<sha256>" of an OCI image: Invalid encoded value ../../x at line 1 column 197
    read "<sha256>" of an OCI image: Invalid encoded value ../../etc/passwd at line 1 column 45
    read "<sha256>" of an OCI image: it names "sha512:abababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababab", which is no SHA-256 digest
    read "index.json" of an OCI image: Invalid digest length 2 expected 64 at line 1 column 35
    read "index.json" of an OCI image: Invalid non-hexadecimal character in digest: <sha256> at line 1 column 97
    read "<sha256>" of an OCI image: it names "sha512:abababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababab", which is no SHA-256 digest
    read "<sha256>" of an OCI image: it names "x", which is no SHA-256 digest
    "#);
}

#[test]
fn documents_agree_on_what_they_are() {
    let set = |what: &'static str, member: &'static str, new: Value| {
        raw_layout(&[plain(small())], move |document, value| {
            if document == what {
                let (parent, name) = member.rsplit_once('/').expect("a pointer");
                value.pointer_mut(parent).expect("there")[name] = new.clone();
            }
        })
    };
    let amd64 = json!({ "architecture": "amd64", "os": "linux" });
    apply(&raw_layout(&[plain(small())], |document, value| {
        if document == "index" {
            value["manifests"][0]["platform"] = amd64.clone();
        }
    }))
    .expect("innocent");
    // Documents need not state their type.
    for what in ["manifest", "index"] {
        let without = raw_layout(&[plain(small())], |document, value| {
            if document == what {
                value.as_object_mut().expect("an object").remove("mediaType");
            }
        });
        apply(&without).expect("innocent");
    }
    let both_ways = |os: &str, arch: &str| {
        raw_layout(&[plain(small())], |document, value| match document {
            "config" => {
                value["architecture"] = json!("amd64");
                value["os"] = json!(os);
            }
            "index" => value["manifests"][0]["platform"] = json!({ "architecture": arch, "os": "linux" }),
            _ => {}
        })
    };
    let read = |files: &Files| {
        let read = with_reader(files, |layout| {
            let descriptor = layout.manifests().expect("one").remove(0);
            OciImage::read(layout, &descriptor)
        });
        masked(&read.expect_err("it is read").to_string())
    };
    let all = [
        read(&both_ways("linux", "arm64")),
        read(&both_ways("windows", "amd64")),
        refusal(&both_ways("linux", "arm64")),
        refusal(&set("config", "/architecture", json!("riscv64"))),
        refusal(&set("config", "/architecture", json!("arm64"))),
        refusal(&set("config", "/rootfs/type", json!("files"))),
        refusal(&set("index", "/manifests/0/mediaType", json!(TAR))),
        refusal(&set("index", "/mediaType", json!(MANIFEST))),
        refusal(&set("index", "/schemaVersion", json!(1))),
        refusal(&set("index", "/layers", json!([]))),
        refusal(&set("manifest", "/manifests", json!([]))),
        refusal(&set("manifest", "/mediaType", json!(INDEX))),
        refusal(&set("manifest", "/schemaVersion", json!(1))),
        refusal(&set(
            "manifest",
            "/config/mediaType",
            json!("application/vnd.oci.empty.v1+json"),
        )),
        refusal(&set(
            "manifest",
            "/layers/0/mediaType",
            json!("application/octet-stream"),
        )),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: the index lists it for linux on arm64, and it is for linux on amd64
    read "<sha256>" of an OCI image: it is for windows, not linux
    read "index.json" of an OCI image: it lists 0 images for amd64, not one
    read "<sha256>" of an OCI image: the architecture riscv64 is unknown
    read "index.json" of an OCI image: it lists 0 images for amd64, not one
    read "<sha256>" of an OCI image: its root is of the type "files", not "layers"
    read "index.json" of an OCI image: it lists the type application/vnd.oci.image.layer.v1.tar, which is no image
    read "index.json" of an OCI image: it states the type application/vnd.oci.image.manifest.v1+json, and is listed as application/vnd.oci.image.index.v1+json
    read "index.json" of an OCI image: it states version 1 of the schema, not 2
    read "index.json" of an OCI image: it is a manifest and an index at once
    read "<sha256>" of an OCI image: it is a manifest and an index at once
    read "<sha256>" of an OCI image: it states the type application/vnd.oci.image.index.v1+json, and is listed as application/vnd.oci.image.manifest.v1+json
    read "<sha256>" of an OCI image: it states version 1 of the schema, not 2
    read "<sha256>" of an OCI image: its configuration has the type application/vnd.oci.empty.v1+json, not that of an image
    read "<sha256>" of an OCI image: it has a layer of the unknown type application/octet-stream
    "#);
}

#[test]
fn a_layout_is_one_and_whole() {
    let good = raw(&[plain(small())]);
    let with = |name: &str, bytes: &[u8]| {
        let mut files = good.clone();
        files.insert(name.to_owned(), bytes.to_vec());
        refusal(&files)
    };
    let without = |name: &str| {
        let mut files = good.clone();
        files.remove(name);
        refusal(&files)
    };
    // Another program may list several images; for each machine there must be one.
    let twice = raw_layout(&[plain(small())], |document, value| {
        if document == "index" {
            let one = value["manifests"][0].clone();
            value["manifests"].as_array_mut().expect("a list").push(one);
        }
    });
    let foreign = raw_layout(&[plain(small())], |document, value| {
        if document == "index" {
            let mut other = value["manifests"][0].clone();
            other["digest"] = json!(format!("sha256:{}", sha256(b"elsewhere")));
            other["platform"] = json!({ "architecture": "riscv64", "os": "linux" });
            value["manifests"].as_array_mut().expect("a list").push(other);
        }
    });
    apply(&foreign).expect("an image for another machine is not looked at");
    let layer = blob_path(&sha256(&small()));
    let all = [
        with(LAYOUT_FILE, br#"{"imageLayoutVersion":"2.0.0"}"#),
        with(LAYOUT_FILE, b"{}"),
        with(OCI_INDEX, b"[]"),
        with(OCI_INDEX, br#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#),
        without(LAYOUT_FILE),
        without(OCI_INDEX),
        without(&layer),
        refusal(&twice),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "oci-layout" of an OCI image: it states version "2.0.0", not "1.0.0"
    read "oci-layout" of an OCI image: missing field `imageLayoutVersion` at line 1 column 2
    read "index.json" of an OCI image: it is no JSON object
    read "index.json" of an OCI image: duplicate field `schemaVersion` at line 1 column 34
    read the content of "oci-layout": entity not found
    read the content of "index.json": entity not found
    read the content of "blobs/sha256/<sha256>": entity not found
    read "index.json" of an OCI image: it lists 2 images for amd64, not one
    "#);
    let arm64 = with_reader(&good, |layout| OciImage::find(layout, Arch::Arm64)).expect_err("amd64 only");
    insta::assert_snapshot!(arm64.to_string(), @r#"read "index.json" of an OCI image: it lists 0 images for arm64, not one"#);
}

#[test]
fn a_label_that_is_no_digest_is_not_taken_for_no_label() {
    let labelled = |label: Option<&str>| {
        let files = raw_layout(&[plain(small())], |document, value| {
            if let ("config", Some(label)) = (document, label) {
                value["config"] = json!({ "Labels": { "com.powernode.root-digest": label } });
            }
        });
        let image = with_reader(&files, |layout| OciImage::find(layout, Arch::Amd64)).expect("whole");
        image.claimed_root()
    };
    assert_eq!(labelled(None).expect("no claim"), None);
    let hex = "ab".repeat(32);
    assert_eq!(labelled(Some(&hex)).expect("a claim").map(|d| d.to_hex()), Some(hex));
    let error = labelled(Some("none")).expect_err("no digest").to_string();
    insta::assert_snapshot!(masked(&error), @r#"read "<sha256>" of an OCI image: its label com.powernode.root-digest is "none", which is no digest"#);
}
