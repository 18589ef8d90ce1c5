//! Manifests and indexes in a registry, by digest and by tag.

use super::{
    RegistryClient, RegistryError,
    client::Ask,
    layout::{
        DOCKER_LIST, DOCKER_MANIFEST, LARGEST_MANIFEST, ManifestContent, digest_of, is_manifest_type, parse_manifest,
    },
    reference::check_tag,
};
use crate::{
    http::{Method, RequestBody, header},
    model::{Sha256Digest, excerpt, visible},
};
use oci_spec::image::{Descriptor, Digest, MediaType};

/// A manifest or index as a registry sent it, with the digest of its bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct RemoteManifest {
    /// The SHA-256 of the bytes.
    pub digest: Sha256Digest,
    /// The media type by which they were sent.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their meaning.
    pub content: ManifestContent,
}

impl RemoteManifest {
    /// The descriptor of it.
    ///
    /// # Errors
    ///
    /// None that can happen: the type of the specification takes a digest only as text.
    pub fn descriptor(&self) -> Result<Descriptor, RegistryError> {
        let digest: Result<Digest, _> = format!("sha256:{}", self.digest).parse();
        let digest = digest.map_err(|e| RegistryError::Malformed {
            what: format!("describe sha256:{}", self.digest),
            problem: crate::model::visible_message(&e.to_string()),
        })?;
        let media_type = MediaType::from(self.media_type.as_str());
        Ok(Descriptor::new(media_type, self.bytes.len() as u64, digest))
    }
}

impl RegistryClient {
    /// The manifest of this digest; `None` if the repository does not have it.
    ///
    /// # Errors
    ///
    /// If the bytes have another digest or are malformed, and by the class of the refusal.
    pub fn manifest(&self, digest: &Sha256Digest) -> Result<Option<RemoteManifest>, RegistryError> {
        let name = format!("sha256:{digest}");
        let what = format!("get the manifest {}/{}@{name}", self.registry, self.repository);
        let found = self.get(&what, &name)?;
        match found {
            Some(found) if found.digest != *digest => Err(self.lie(what, digest, format!("sha256:{}", found.digest))),
            found => Ok(found),
        }
    }

    /// The manifest to which this tag points now; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the registry states another digest than the bytes have, if they are malformed, and by the class of the refusal.
    pub fn tagged(&self, tag: &str) -> Result<Option<RemoteManifest>, RegistryError> {
        self.check(tag)?;
        let what = format!("get the manifest {}/{}:{tag}", self.registry, self.repository);
        self.get(&what, tag)
    }

    fn get(&self, what: &str, name: &str) -> Result<Option<RemoteManifest>, RegistryError> {
        let bad = |problem: String| RegistryError::Malformed {
            what: what.to_owned(),
            problem,
        };
        let mut ask = self.ask_manifest(what, Method::GET, name)?;
        ask.limit = LARGEST_MANIFEST;
        let answer = self.exchange(&ask, &mut RequestBody::Empty, None)?;
        match answer.status {
            200 => {}
            404 => return Ok(None),
            _ => return Err(self.refusal(what, &answer)),
        }
        let media_type = answer.header(header::CONTENT_TYPE).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        if !is_manifest_type(&media_type) {
            let shown = visible(&excerpt(&media_type));
            return Err(bad(format!(
                "it was sent as {shown:?}, which is no manifest's media type"
            )));
        }
        let digest = digest_of(&answer.body);
        if let Some(stated) = answer.header("docker-content-digest")
            && stated != format!("sha256:{digest}")
        {
            let stated: Option<Sha256Digest> = stated.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
            let stated = stated.ok_or_else(|| bad("the registry states a digest that is no SHA-256".into()))?;
            return Err(self.lie(what.to_owned(), &stated, format!("sha256:{digest}")));
        }
        let content = parse_manifest(&media_type, &answer.body).map_err(bad)?;
        Ok(Some(RemoteManifest {
            digest,
            media_type,
            bytes: answer.body,
            content,
        }))
    }

    /// The digest to which this tag points now; `None` if there is none.
    ///
    /// # Errors
    ///
    /// By the class of the refusal.
    pub fn tag_digest(&self, tag: &str) -> Result<Option<Sha256Digest>, RegistryError> {
        self.check(tag)?;
        let what = format!("look for the tag {}/{}:{tag}", self.registry, self.repository);
        let answer = self.exchange(
            &self.ask_manifest(&what, Method::HEAD, tag)?,
            &mut RequestBody::Empty,
            None,
        )?;
        match answer.status {
            200 => {}
            404 => return Ok(None),
            _ => return Err(self.refusal(&what, &answer)),
        }
        let stated = answer
            .header("docker-content-digest")
            .and_then(|text| text.strip_prefix("sha256:"));
        match stated.and_then(|hex| hex.parse().ok()) {
            Some(digest) => Ok(Some(digest)),
            // The specification does not demand the header.
            None => Ok(self.tagged(tag)?.map(|found| found.digest)),
        }
    }

    /// Whether the repository has the manifest of this digest.
    ///
    /// # Errors
    ///
    /// If the registry names another digest, and by the class of the refusal.
    pub fn has_manifest(&self, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        let name = format!("sha256:{digest}");
        let what = format!("look for the manifest {}/{}@{name}", self.registry, self.repository);
        let answer = self.exchange(
            &self.ask_manifest(&what, Method::HEAD, &name)?,
            &mut RequestBody::Empty,
            None,
        )?;
        match answer.status {
            200 => self.check_digest(&what, &answer, digest).map(|()| true),
            404 => Ok(false),
            _ => Err(self.refusal(&what, &answer)),
        }
    }

    /// Stores a manifest under its digest, which is returned. What it names must be there already.
    ///
    /// # Errors
    ///
    /// If it is malformed, if the registry stores another digest, and by the class of the refusal.
    pub fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Sha256Digest, RegistryError> {
        let digest = digest_of(bytes);
        self.put(&format!("sha256:{digest}"), media_type, bytes)
    }

    /// Lets a tag point to a manifest, which is stored if it is not there. `false` if it did before.
    ///
    /// # Errors
    ///
    /// If the tag points to another manifest and `replace` is not set, and as [`RegistryClient::put_manifest`].
    pub fn put_tag(&self, tag: &str, media_type: &str, bytes: &[u8], replace: bool) -> Result<bool, RegistryError> {
        let digest = digest_of(bytes);
        match self.tag_digest(tag)? {
            Some(found) if found == digest => return Ok(false),
            Some(found) if !replace => {
                let what = format!("set the tag {}/{}:{tag}", self.registry, self.repository);
                return Err(RegistryError::Lie {
                    what,
                    who: "it points to a manifest of".to_owned(),
                    expected: digest,
                    actual: format!("sha256:{found}"),
                });
            }
            _ => {}
        }
        self.put(tag, media_type, bytes).map(|_| true)
    }

    pub(super) fn put(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<Sha256Digest, RegistryError> {
        let mark = if name.contains(':') { '@' } else { ':' };
        let what = format!("put the manifest {}/{}{mark}{name}", self.registry, self.repository);
        parse_manifest(media_type, bytes).map_err(|problem| RegistryError::Malformed {
            what: what.clone(),
            problem,
        })?;
        let digest = digest_of(bytes);
        let ask = Ask::new(&what, Method::PUT, self.url(&format!("manifests/{name}")))
            .header(header::CONTENT_TYPE, media_type)?;
        let answer = self.exchange(&ask, &mut RequestBody::Bytes(bytes), None)?;
        match answer.status {
            200..=202 => self.check_digest(&what, &answer, &digest).map(|()| digest),
            _ => Err(self.refusal(&what, &answer)),
        }
    }

    fn ask_manifest<'a>(&self, what: &'a str, method: Method, name: &str) -> Result<Ask<'a>, RegistryError> {
        let known = [MediaType::ImageIndex.to_string(), MediaType::ImageManifest.to_string()];
        let accept = format!("{}, {DOCKER_LIST}, {DOCKER_MANIFEST}", known.join(", "));
        Ask::new(what, method, self.url(&format!("manifests/{name}"))).header(header::ACCEPT, &accept)
    }

    fn check(&self, tag: &str) -> Result<(), RegistryError> {
        check_tag(tag).map_err(|problem| RegistryError::Reference {
            value: format!("{}/{}:{}", self.registry, self.repository, excerpt(tag)),
            problem,
        })
    }
}
