//! Options with which a command speaks to registries and other servers, and the clients that they give.

use super::{
    Exit,
    args::Common,
    command_text::CommandText,
    failure::{Failure, Fatal},
};
use clap::Args;
use pnb::{
    http::{ClientOptions, HttpClient, HttpError, NetworkSettings, ProxyRules, SYSTEM_BUNDLES, TrustPlaces},
    model::{Hint, chain, visible_path},
    pipeline::Registries,
    registry::{CredentialFile, CredentialPlaces, ImageReference, RegistryClient, RegistryError},
    store::read_foreign,
};
use std::{borrow::Cow, io, path::PathBuf};

/// Most bytes of a file with certificates.
const MAX_CERTIFICATES: u64 = 4 << 20;

/// Options of servers.
#[derive(Args, Debug, Clone, Default)]
pub(super) struct ServerArgs {
    /// Credentials of registries, in the form of docker's config.json [default: REGISTRY_AUTH_FILE, DOCKER_CONFIG, ~/.docker]
    #[arg(long, value_name = "FILE")]
    registry_auth_file: Option<PathBuf>,
    /// Host, with its port, that is spoken to without TLS; this machine always may
    #[arg(long, value_name = "HOST")]
    plain_http: Vec<String>,
}

/// Why a client cannot be made, or what a registry answered; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    #[error("read {}", visible_path(path))]
    Authority {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Fatal for ServerError {
    fn exit(&self) -> Exit {
        match self {
            ServerError::Authority { .. } => Exit::Usage,
            ServerError::Http(_) | ServerError::Registry(_) => Exit::PublishRegistry,
        }
    }
}

impl Hint for ServerError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            ServerError::Authority { .. } => None,
            ServerError::Http(error) => error.hint(),
            ServerError::Registry(error) => error.hint(),
        }
    }
}

/// The way to servers: the proxies and authorities that the environment names, and `--ca-file`.
pub(super) fn network(common: &Common) -> NetworkSettings {
    let file = |name: &str| variable(name).map(PathBuf::from);
    let dirs = variable("SSL_CERT_DIR").map(|dirs| std::env::split_paths(&dirs).collect::<Vec<_>>());
    NetworkSettings {
        proxies: ProxyRules::from_variables(&variable),
        trust: TrustPlaces {
            ca_file: common.ca_file.clone(),
            cert_file: file("SSL_CERT_FILE"),
            cert_dirs: dirs.unwrap_or_default(),
            bundles: SYSTEM_BUNDLES.map(PathBuf::from).to_vec(),
        },
    }
}

impl ServerArgs {
    /// The client of all servers.
    pub(super) fn http(&self, common: &Common) -> Result<HttpClient, ServerError> {
        let mut network = network(common);
        // The client knows a file of the command line from the machine's: a registry on this machine is then spoken to over TLS.
        let ca = network.trust.ca_file.take().map(|path| {
            read_foreign(&path, MAX_CERTIFICATES).map_err(|source| ServerError::Authority { path, source })
        });
        Ok(HttpClient::new(ClientOptions {
            ca: ca.transpose()?,
            network,
            plain_http: self.plain_http.clone(),
            ..ClientOptions::default()
        })?)
    }

    /// The command with those of these options, and of the authority, that a request to the registry of `image` needs again.
    pub(super) fn repeated(&self, common: &Common, image: &ImageReference, command: CommandText) -> CommandText {
        let authority = common.ca_file.as_ref();
        let authority = authority.filter(|_| common.typed_options.contains("ca_file"));
        let plain = self.plain_http.iter().filter(|host| *host == image.registry());
        command
            .option("--ca-file", authority)
            .option("--registry-auth-file", self.registry_auth_file.as_ref())
            .args(plain.flat_map(|host| ["--plain-http", host]))
    }

    /// The credentials of registries.
    pub(super) fn credentials(&self) -> Result<CredentialFile, ServerError> {
        let environment = |name: &str| variable(name).map(PathBuf::from);
        let places = CredentialPlaces {
            flag: self.registry_auth_file.clone(),
            registry_auth_file: environment("REGISTRY_AUTH_FILE"),
            docker_config: environment("DOCKER_CONFIG"),
            home: environment("HOME"),
        };
        Ok(places.load()?)
    }

    /// Clients of registries, made when one is needed.
    pub(super) fn registries(&self, common: &Common) -> Registries {
        let (servers, common) = (self.clone(), common.clone());
        Registries::new(move |image| {
            let client = || -> Result<RegistryClient, ServerError> {
                let credentials = servers.credentials()?.get(image.registry(), image.repository())?;
                Ok(RegistryClient::new(servers.http(&common)?, image, credentials))
            };
            client().map_err(|e| chain(&e))
        })
    }

    /// The client of the repository that `image` names.
    pub(super) fn registry(&self, common: &Common, image: &ImageReference) -> Result<RegistryClient, Failure> {
        let credentials = self.credentials()?.get(image.registry(), image.repository());
        let credentials = credentials.map_err(ServerError::from)?;
        Ok(RegistryClient::new(self.http(common)?, image, credentials))
    }
}

/// An environment variable that is set and not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "identities, tokens and places of credentials come from the environment, as other programs take them"
    )]
    let value = std::env::var(name).ok();
    value.filter(|value| !value.is_empty())
}
