//! Clients of the registries that may have a base image.

use crate::{
    http::{ClientOptions, HttpClient},
    model::chain,
    registry::{Credentials, ImageReference, RegistryClient},
};
use std::{fmt, sync::Arc};

/// Makes a client of the repository of an image, or says why it cannot.
type MakeClient = dyn Fn(&ImageReference) -> Result<RegistryClient, String> + Send + Sync;

/// Makes clients of registries. The default has no credentials and trusts the public authorities.
#[derive(Clone)]
pub struct Registries(Arc<MakeClient>);

impl Registries {
    /// Makes clients with `make`.
    pub fn new(make: impl Fn(&ImageReference) -> Result<RegistryClient, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// The client of the repository that `image` names.
    pub(super) fn client(&self, image: &ImageReference) -> Result<RegistryClient, String> {
        (self.0)(image)
    }
}

impl Default for Registries {
    fn default() -> Self {
        Self::new(|image| {
            let http = HttpClient::new(ClientOptions::default()).map_err(|e| chain(&e))?;
            Ok(RegistryClient::new(http, image, Credentials::Anonymous))
        })
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registries")
    }
}
