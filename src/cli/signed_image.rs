//! `pnb verify-signature REF`: the signatures of an image in a registry: of the index, and of each manifest that it names.

use super::{
    args::Common,
    failure::Failure,
    servers::{ServerArgs, ServerError},
};
use pnb::{
    model::Sha256Digest,
    registry::{ImageReference, ManifestContent, RegistryClient, RegistryError, RemoteManifest, silent},
    sign::{
        BUNDLE_LIMIT, BUNDLE_TYPE, BundleVerifier, ExpectedSigner, Refusal, SignedSubject, VerifiedBundle, verify_image,
    },
};

/// Most referrers of one manifest that are looked at.
const MAX_REFERRERS: usize = 256;

/// A manifest by its name, and the verdict on its signature.
pub(super) type SignedManifest = (String, Result<VerifiedBundle, Refusal>);

/// Verifies the image that `image` names, and every manifest below its index.
pub(super) fn signed_image(
    common: &Common,
    servers: &ServerArgs,
    image: &ImageReference,
    verifier: &BundleVerifier,
    expected: &ExpectedSigner,
) -> Result<Vec<SignedManifest>, Failure> {
    let client = servers.registry(common, image)?;
    let found = find(&client, image).map_err(ServerError::from)?;
    let mut subjects = vec![found.digest];
    if let ManifestContent::Index(index) = &found.content {
        for descriptor in index.manifests() {
            subjects.push(digest_of(descriptor)?);
        }
    }
    let mut signed = Vec::new();
    for digest in subjects {
        let bundles = bundles(&client, &digest)?;
        signed.push(SignedSubject { digest, bundles });
    }
    let verdicts = verify_image(verifier, &signed, expected).into_iter();
    let name = format!("{}/{}", image.registry(), image.repository());
    Ok(verdicts
        .map(|(digest, verdict)| (format!("{name}@sha256:{digest}"), verdict))
        .collect())
}

fn find(client: &RegistryClient, image: &ImageReference) -> Result<RemoteManifest, RegistryError> {
    let found = match (image.digest(), image.tag()) {
        (Some(digest), _) => client.manifest(&digest)?,
        (None, Some(tag)) => client.tagged(tag)?,
        (None, None) => {
            return Err(RegistryError::Reference {
                value: image.to_string(),
                problem: "it names no image of the repository: it has neither a tag nor a digest".into(),
            });
        }
    };
    found.ok_or_else(|| RegistryError::Malformed {
        what: format!("find {image}"),
        problem: "the registry does not have it".to_owned(),
    })
}

/// The bundles that are attached to a manifest.
fn bundles(client: &RegistryClient, subject: &Sha256Digest) -> Result<Vec<Vec<u8>>, Failure> {
    let list = client.referrers(subject).map_err(ServerError::from)?.list;
    let mut found = Vec::new();
    for descriptor in list.iter().take(MAX_REFERRERS) {
        // A list from a tag may lack the type; the manifest has it.
        if descriptor
            .artifact_type()
            .as_ref()
            .is_some_and(|kind| kind.as_ref() != BUNDLE_TYPE)
        {
            continue;
        }
        let digest = digest_of(descriptor)?;
        let Some(manifest) = client.manifest(&digest).map_err(ServerError::from)? else {
            continue;
        };
        let ManifestContent::Image(manifest) = manifest.content else {
            continue;
        };
        for layer in manifest
            .layers()
            .iter()
            .filter(|layer| layer.media_type().as_ref() == BUNDLE_TYPE)
        {
            if layer.size() > BUNDLE_LIMIT as u64 {
                continue;
            }
            let mut bytes = Vec::new();
            let digest = digest_of(layer)?;
            client
                .read_blob(&digest, layer.size(), &mut bytes, &silent())
                .map_err(ServerError::from)?;
            found.push(bytes);
        }
    }
    Ok(found)
}

fn digest_of(descriptor: &oci_spec::image::Descriptor) -> Result<Sha256Digest, ServerError> {
    let text = descriptor.digest().as_ref();
    let hex = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    hex.ok_or_else(|| {
        ServerError::Registry(RegistryError::Malformed {
            what: "read a descriptor".to_owned(),
            problem: format!("{text:?} is no SHA-256"),
        })
    })
}
