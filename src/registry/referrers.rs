//! Referrers: manifests that name another one as their subject, such as signatures.
//!
//! A registry with the referrers API lists them by itself. For one without it, clients keep an index under the tag `sha256-<hex>` of the
//! subject. Whether a registry has the API is asked with a `GET`: the header `OCI-Subject` of its answers says so on registries that do
//! not have it.
//!
//! Source: OCI distribution specification 1.1, "Listing Referrers", "Referrers Tag Schema".

use super::{
    RegistryClient, RegistryError,
    client::Ask,
    layout::{LARGEST_MANIFEST, ManifestContent, digest_of, parse_manifest, sha256},
};
use crate::{
    http::{Method, RequestBody, header, join},
    model::Sha256Digest,
};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};

/// Most pages of one list.
const MOST_PAGES: usize = 64;
/// Most times that a fallback index is written, when other programs write it too.
const TRIES: u32 = 5;

/// The manifests that refer to one.
#[derive(Clone, PartialEq, Debug)]
pub struct Referrers {
    /// Their descriptors, in the registry's order.
    pub list: Vec<Descriptor>,
    /// Whether the registry has the referrers API; else the list is that of the fallback tag.
    pub by_api: bool,
}

impl RegistryClient {
    /// The manifests that refer to the one of this digest.
    ///
    /// # Errors
    ///
    /// If a list is malformed, and by the class of the refusal.
    pub fn referrers(&self, subject: &Sha256Digest) -> Result<Referrers, RegistryError> {
        if let Some(list) = self.referrers_by_api(subject)? {
            return Ok(Referrers { list, by_api: true });
        }
        let list = match self.fallback(subject)? {
            Some((_, list)) => list,
            None => Vec::new(),
        };
        Ok(Referrers { list, by_api: false })
    }

    /// The list of the API; `None` if the registry does not have it.
    fn referrers_by_api(&self, subject: &Sha256Digest) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let what = format!(
            "list the referrers of {}/{}@sha256:{subject}",
            self.registry, self.repository
        );
        let bad = |problem: String| RegistryError::Malformed {
            what: what.clone(),
            problem,
        };
        let mut url = self.url(&format!("referrers/sha256:{subject}"));
        let mut list: Vec<Descriptor> = Vec::new();
        for page in 0..MOST_PAGES {
            let mut ask =
                Ask::new(&what, Method::GET, url.clone()).header(header::ACCEPT, MediaType::ImageIndex.as_ref())?;
            ask.limit = LARGEST_MANIFEST;
            let answer = self.exchange(&ask, &mut RequestBody::Empty, None)?;
            match answer.status {
                200 => {}
                404 if page == 0 => return Ok(None),
                _ => return Err(self.refusal(&what, &answer)),
            }
            match parse_manifest(MediaType::ImageIndex.as_ref(), &answer.body).map_err(bad)? {
                ManifestContent::Index(index) => list.extend(index.manifests().iter().cloned()),
                ManifestContent::Image(_) => return Err(bad("it is no index".into())),
            }
            let Some(next) = answer.header(header::LINK).and_then(next_page) else {
                return Ok(Some(list));
            };
            url = join(&url, next)
                .filter(|next| self.is_own(next))
                .ok_or_else(|| bad("its next page is not at the registry".into()))?;
        }
        Err(bad(format!("it has more than {MOST_PAGES} pages")))
    }

    /// The fallback index as JSON, and its descriptors; `None` if there is none.
    fn fallback(&self, subject: &Sha256Digest) -> Result<Option<(Value, Vec<Descriptor>)>, RegistryError> {
        let Some(found) = self.tagged(&fallback_tag(subject))? else {
            return Ok(None);
        };
        let bad = |problem: &str| RegistryError::Malformed {
            what: format!(
                "read the list of referrers {}/{}:{}",
                self.registry,
                self.repository,
                fallback_tag(subject)
            ),
            problem: problem.to_owned(),
        };
        let ManifestContent::Index(index) = found.content else {
            return Err(bad("it is no index"));
        };
        let value = serde_json::from_slice(&found.bytes).map_err(|_| bad("it does not parse"))?;
        Ok(Some((value, index.manifests().clone())))
    }

    /// Stores a manifest that refers to `subject`, and makes sure that it is listed. Nothing is changed if it is there and listed already.
    ///
    /// # Errors
    ///
    /// If the manifest does not name the subject, if other programs keep changing the fallback index, and by the class of the refusal.
    pub fn attach(
        &self,
        subject: &Sha256Digest,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Sha256Digest, RegistryError> {
        let what = format!(
            "attach a manifest to {}/{}@sha256:{subject}",
            self.registry, self.repository
        );
        let bad = |problem: String| RegistryError::Malformed {
            what: what.clone(),
            problem,
        };
        let content = parse_manifest(media_type, bytes).map_err(bad)?;
        let named = content.subject().map(sha256).transpose().map_err(bad)?;
        if named != Some(*subject) {
            return Err(bad("the manifest names another subject, or none".into()));
        }
        let digest = digest_of(bytes);
        if !self.has_manifest(&digest)? {
            self.put_manifest(media_type, bytes)?;
        }
        let listed = |list: &[Descriptor]| list.iter().any(|d| sha256(d) == Ok(digest));
        let mut tries = self.http.tries();
        if let Some(mut list) = self.referrers_by_api(subject)? {
            // A registry may list it a moment later.
            while !listed(&list) {
                if !tries.again(None) {
                    return Err(bad(format!(
                        "{} has the referrers API and does not list it",
                        self.registry
                    )));
                }
                list = self.referrers_by_api(subject)?.unwrap_or_default();
            }
            return Ok(digest);
        }
        let entry = entry(media_type, bytes, &content);
        for _ in 0..TRIES {
            let (index, list) = self.fallback(subject)?.unwrap_or_else(|| (empty_index(), Vec::new()));
            if listed(&list) {
                return Ok(digest);
            }
            let merged = merged(index, entry.clone()).ok_or_else(|| bad("the list of referrers is no index".into()))?;
            self.put(&fallback_tag(subject), MediaType::ImageIndex.as_ref(), &merged)?;
        }
        match self.fallback(subject)?.is_some_and(|(_, list)| listed(&list)) {
            true => Ok(digest),
            false => Err(RegistryError::Race {
                what,
                registry: self.registry.clone(),
                tries: TRIES,
            }),
        }
    }
}

/// The tag under which clients keep the list of a subject.
fn fallback_tag(subject: &Sha256Digest) -> String {
    format!("sha256-{subject}")
}

/// The entry of a manifest in a list: its descriptor with its artifact type and annotations.
fn entry(media_type: &str, bytes: &[u8], content: &ManifestContent) -> Value {
    let digest = format!("sha256:{}", digest_of(bytes));
    let mut entry = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    let (kind, annotations) = match content {
        ManifestContent::Image(image) => {
            let kind = image.artifact_type().as_ref().unwrap_or(image.config().media_type());
            (Some(kind), image.annotations())
        }
        ManifestContent::Index(index) => (index.artifact_type().as_ref(), index.annotations()),
    };
    if let Some(kind) = kind {
        entry["artifactType"] = json!(kind.as_ref());
    }
    if let Some(annotations) = annotations.as_ref().filter(|a| !a.is_empty()) {
        // A JSON object is sorted here, as the map behind it is not.
        entry["annotations"] = json!(annotations);
    }
    entry
}

fn empty_index() -> Value {
    json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": []})
}

/// The index with one more entry. All that it holds otherwise stays, also what pnb does not know.
fn merged(mut index: Value, entry: Value) -> Option<Vec<u8>> {
    index.get_mut("manifests")?.as_array_mut()?.push(entry);
    serde_json::to_vec(&index).ok()
}

/// The target of a `Link` with the relation `next`.
fn next_page(header: &str) -> Option<&str> {
    let (target, parameters) = header.strip_prefix('<')?.split_once('>')?;
    let mut parameters = parameters.split(';').map(str::trim);
    parameters
        .any(|p| p == "rel=\"next\"" || p == "rel=next")
        .then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_read() {
        for (header, want) in [
            ("</v2/x?n=1>; rel=\"next\"", Some("/v2/x?n=1")),
            ("<x>; title=a; rel=next", Some("x")),
            ("<x>; rel=\"prev\"", None),
            ("x; rel=\"next\"", None),
            ("", None),
        ] {
            assert_eq!(next_page(header), want, "{header}");
        }
    }
}
