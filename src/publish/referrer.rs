//! The manifests that refer to a published one: signatures, attestations, the SBOM.
//!
//! A bundle is the one layer of a manifest with the bundle's type as artifact type; cosign 3 finds it by the referrers of its subject. The
//! signature for cosign 2 is a layer of the manifest at the tag `sha256-<hex>.sig`. Neither has a time of its own: the same bundle
//! makes the same manifest, so that a second attempt attaches nothing twice.
//! Source: OCI image specification 1.1 (`subject`, `artifactType`), cosign's `BUNDLE_SPEC.md` and `SIGNATURE_SPEC.md`.

use super::ArtifactBlob;
use crate::{
    model::Sha256Digest,
    sign::{BUNDLE_TYPE, LegacySignature, VerifiedBundle},
};
use oci_spec::image::Descriptor;
use serde_json::{Value, json};

/// Media type of a manifest.
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Type of an SBOM in CycloneDX.
const SBOM_TYPE: &str = "application/vnd.cyclonedx+json";
/// Type of a configuration without content, and its content.
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";
/// Type of the configuration of cosign's own manifest.
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// A manifest, and the blobs that must be there before it.
#[derive(Clone, Debug)]
pub(super) struct ReferringManifest {
    pub(super) bytes: Vec<u8>,
    pub(super) blobs: Vec<Vec<u8>>,
}

impl ReferringManifest {
    /// SHA-256 of the manifest.
    pub(super) fn digest(&self) -> Sha256Digest {
        ArtifactBlob::of(&self.bytes).sha256
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    let blob = ArtifactBlob::of(bytes);
    json!({"mediaType": media_type, "digest": format!("sha256:{}", blob.sha256), "size": blob.size})
}

fn subject_of(subject: &Descriptor) -> Value {
    json!({
        "mediaType": subject.media_type().as_ref(),
        "digest": subject.digest().to_string(),
        "size": subject.size(),
    })
}

/// The JSON of a value, with sorted keys.
fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// The manifest that attaches a bundle with a statement to `subject`.
pub(super) fn attached_bundle(subject: &Descriptor, bundle: &VerifiedBundle) -> ReferringManifest {
    let content = bundle.json().as_bytes().to_vec();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": BUNDLE_TYPE,
        "config": descriptor(EMPTY_TYPE, EMPTY),
        "layers": [descriptor(BUNDLE_TYPE, &content)],
        "subject": subject_of(subject),
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": bundle.predicate_type().unwrap_or_default(),
            "org.opencontainers.image.created": bundle.time_text(),
        },
    });
    ReferringManifest {
        bytes: bytes(&manifest),
        blobs: vec![EMPTY.to_vec(), content],
    }
}

/// The manifest that attaches an SBOM to `subject`.
pub(super) fn attached_sbom(subject: &Descriptor, sbom: Vec<u8>) -> ReferringManifest {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": SBOM_TYPE,
        "config": descriptor(EMPTY_TYPE, EMPTY),
        "layers": [descriptor(SBOM_TYPE, &sbom)],
        "subject": subject_of(subject),
    });
    ReferringManifest {
        bytes: bytes(&manifest),
        blobs: vec![EMPTY.to_vec(), sbom],
    }
}

/// The tag at which cosign 2 looks for the signatures of a manifest.
pub(super) fn legacy_tag(subject: &Sha256Digest) -> String {
    format!("sha256-{subject}.sig")
}

/// The manifest of that tag with one more signature than `present`; `None` if it has this one already.
pub(super) fn legacy_manifest(present: Option<&[u8]>, signature: &LegacySignature) -> Option<ReferringManifest> {
    let mut layer = descriptor(LegacySignature::MEDIA_TYPE, signature.payload());
    layer["annotations"] = json!(signature.annotations());
    let present: Value = present
        .and_then(|bytes| serde_json::from_slice(bytes).ok())
        .unwrap_or_default();
    let mut layers = present["layers"].as_array().cloned().unwrap_or_default();
    let key = "dev.cosignproject.cosign/signature";
    let same =
        |other: &Value| other["digest"] == layer["digest"] && other["annotations"][key] == layer["annotations"][key];
    if layers.iter().any(same) {
        return None;
    }
    layers.push(layer);
    let diff_ids: Vec<Value> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = bytes(&json!({
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, &config),
        "layers": layers,
    });
    Some(ReferringManifest {
        bytes: bytes(&manifest),
        blobs: vec![config, signature.payload().to_vec()],
    })
}
