//! Options of remote caches, and the cache that they name.

use super::{
    Exit,
    args::Common,
    failure::{Failure, Fatal},
    servers::network,
    workers::WorkerArgs,
};
use clap::{Args, ValueEnum};
use pnb::{
    model::{Arch, Hint},
    pipeline::{Elsewhere, SharedResults, Upload},
    remote::{
        Endpoint, Loss, Presented, RemoteAddress, RemoteCache, RemoteError, RemoteLimits, StageResults, connect,
        connect_engine,
    },
};
use std::{
    borrow::Cow,
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Options of a remote cache.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Remote cache")]
pub(super) struct RemoteArgs {
    /// Cache that several machines share: grpc://HOST:PORT, grpcs://…, http://HOST/PATH or https://…
    #[arg(long, value_name = "URL", env = "PNB_REMOTE_CACHE", hide_env_values = true)]
    remote_cache: Option<String>,
    /// Engine whose workers run the stages, and whose cache is used: grpc://HOST:PORT or grpcs://…
    #[arg(long, value_name = "URL", env = "PNB_REMOTE", hide_env_values = true)]
    remote: Option<String>,
    /// Results that are sent to the cache
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    remote_upload: UploadWhen,
    /// Run every stage here, and compare with what the cache has
    #[arg(long)]
    remote_no_accept: bool,
    /// Fail if the cache is of no use, in place of a warning
    #[arg(long)]
    remote_required: bool,
    /// Longest silence of the cache; after it the build goes on without the cache [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    remote_timeout: Option<u64>,
    /// File with the bearer token for the cache, read again when the token is refused
    #[arg(long, value_name = "FILE", env = "PNB_REMOTE_TOKEN_FILE", hide_env_values = true)]
    remote_token_file: Option<PathBuf>,
    /// File with the certificate of this client in PEM
    #[arg(long, value_name = "FILE", requires = "remote_key")]
    remote_cert: Option<PathBuf>,
    /// File with the private key of that certificate in PEM
    #[arg(long, value_name = "FILE", requires = "remote_cert")]
    remote_key: Option<PathBuf>,
}

/// An engine, and its cache.
pub(super) struct Engine {
    pub(super) elsewhere: Elsewhere,
    pub(super) shared: SharedResults,
}

/// A server to look at.
pub(super) struct NamedServer {
    pub(super) cache: Arc<dyn RemoteCache>,
    /// Its workers, if it was named as an engine.
    pub(super) elsewhere: Option<Elsewhere>,
    /// Who pnb says it is.
    pub(super) presented: Presented,
}

/// When results are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum UploadWhen {
    /// Never
    Never,
    /// If the stage took more CPU time than the transfer
    Auto,
    /// Always
    Always,
}

/// Why the options name no remote cache; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteChoiceError {
    #[error("find a remote cache: the command line names none")]
    None,
    #[error("use a remote cache beside an engine: an engine has a cache of its own")]
    Both,
    #[error("use a remote cache: --offline uses no network")]
    Offline,
    #[error("build a second time on workers: no engine is named")]
    NoEngine,
    #[error("use an engine or a cache: both builds run here without --on")]
    NotUsed,
}

impl Fatal for RemoteChoiceError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Hint for RemoteChoiceError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::None => "give --remote-cache URL, or set PNB_REMOTE_CACHE".into(),
            Self::Both => "give --remote or --remote-cache".into(),
            Self::Offline => "leave --offline out".into(),
            Self::NoEngine => "give --remote URL".into(),
            Self::NotUsed => "give --on workers, or leave --remote and --remote-cache out".into(),
        })
    }
}

impl Fatal for RemoteError {
    fn exit(&self) -> Exit {
        match self {
            RemoteError::Address { .. } | RemoteError::Credentials { .. } | RemoteError::NotCompiled { .. } => {
                Exit::Usage
            }
            RemoteError::Local { .. } => Exit::Store,
            _ => Exit::Fetch,
        }
    }
}

/// Whether an option stands on the command line, in contrast to one from a variable.
fn typed(common: &Common, name: &str) -> bool {
    common.typed_options.contains(name)
}

impl RemoteArgs {
    /// The server that must be named, and must be there.
    pub(super) fn server(&self, common: &Common, workers: &WorkerArgs, program: &Path) -> Result<NamedServer, Failure> {
        if common.offline {
            return Err(RemoteChoiceError::Offline.into());
        }
        let given = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
        let (cache, engine) = (given(&self.remote_cache), given(&self.remote));
        // What stands on the command line is nearer than what a variable says.
        let (url, runs) = match (cache, engine) {
            (Some(_), Some(url)) if typed(common, "remote") => (url, true),
            (Some(url), _) => (url, false),
            (None, Some(url)) => (url, true),
            (None, None) => return Err(RemoteChoiceError::None.into()),
        };
        let endpoint = self.endpoint(&url)?;
        let (cache, elsewhere) = match runs {
            true => {
                let engine = connect_engine(&endpoint, &network(common), &self.engine_limits(workers))?;
                (engine.cache(), Some(Elsewhere::new(engine, workers.options(program)?)))
            }
            false => (connect(&endpoint, &network(common), &self.limits())?, None),
        };
        let presented = endpoint.presented()?;
        Ok(NamedServer {
            cache,
            elsewhere,
            presented,
        })
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, RemoteError> {
        let address: RemoteAddress = url.parse()?;
        Ok(Endpoint {
            address,
            token_file: self.remote_token_file.clone(),
            identity: self.remote_cert.clone().zip(self.remote_key.clone()),
        })
    }

    fn limits(&self) -> RemoteLimits {
        let mut limits = RemoteLimits::default();
        if let Some(seconds) = self.remote_timeout {
            limits.silence = Duration::from_secs(seconds);
            limits.connect = limits.connect.min(limits.silence);
        }
        limits
    }

    /// The same for an engine: one that refuses more calls at once is waited for as a worker is.
    fn engine_limits(&self, workers: &WorkerArgs) -> RemoteLimits {
        RemoteLimits {
            busy: workers.queue_timeout(),
            ..self.limits()
        }
    }

    /// The address of the engine that a build uses, if one is named and the network may be used.
    fn engine_url(&self, common: &Common, workers: &WorkerArgs) -> Result<Option<&str>, RemoteChoiceError> {
        let named = self.remote.as_deref().filter(|url| !url.is_empty());
        let challenges = workers.challenges() && named.is_some();
        match (common.offline, typed(common, "remote"), typed(common, "remote_cache")) {
            (true, ..) if challenges => Err(RemoteChoiceError::Offline),
            (true, ..) => Ok(None),
            (_, true, true) => Err(RemoteChoiceError::Both),
            (_, false, true) if challenges => Err(RemoteChoiceError::Both),
            // A variable may name an engine for all commands; the cache of the command line is nearer.
            (_, false, true) => Ok(None),
            _ => Ok(named),
        }
    }

    /// The engine, if one is named. It must be there.
    pub(super) fn elsewhere(
        &self,
        common: &Common,
        workers: &WorkerArgs,
        program: &Path,
    ) -> Result<Option<Engine>, Failure> {
        let Some(url) = self.engine_url(common, workers)? else {
            return Ok(None);
        };
        let options = workers.options(program)?;
        let engine = connect_engine(&self.endpoint(url)?, &network(common), &self.engine_limits(workers))?;
        let shared = SharedResults::new(
            StageResults::new(engine.cache()),
            !self.remote_no_accept && !workers.challenges(),
            self.upload(),
            true,
        );
        let elsewhere = Elsewhere::new(engine, options);
        Ok(Some(Engine { elsewhere, shared }))
    }

    /// Refuses an engine on the command line of a command that does not use one.
    pub(super) fn without_engine(&self, common: &Common) -> Result<(), RemoteChoiceError> {
        match typed(common, "remote") || typed(common, "remote_cache") {
            true => Err(RemoteChoiceError::NotUsed),
            false => Ok(()),
        }
    }

    /// The engine of a second build. Nothing that the server has already counts, and every stage runs on a worker.
    pub(super) fn engine_of_repeat(
        &self,
        common: &Common,
        workers: &WorkerArgs,
        native: BTreeSet<Arch>,
        program: &Path,
    ) -> Result<Engine, Failure> {
        if common.offline {
            return Err(RemoteChoiceError::Offline.into());
        }
        let repeated = Self {
            remote_no_accept: true,
            remote_upload: UploadWhen::Never,
            ..self.clone()
        };
        let engine = repeated.elsewhere(common, &workers.for_repeat(native), program)?;
        Ok(engine.ok_or(RemoteChoiceError::NoEngine)?)
    }

    /// The cache, if one is named and the network may be used. One that is not there is a warning, unless it is required.
    pub(super) fn shared(
        &self,
        common: &Common,
        warn: &dyn Fn(&RemoteError),
    ) -> Result<Option<SharedResults>, Failure> {
        self.results_of(self.remote_cache.as_deref(), common, !self.remote_no_accept, warn)
    }

    /// The cache that a build would ask, that of an engine too, and whether an engine is named. A plan needs no worker, and goes on without a
    /// server that is not there.
    pub(super) fn planned(
        &self,
        common: &Common,
        workers: &WorkerArgs,
        warn: &dyn Fn(&RemoteError),
    ) -> Result<(Option<SharedResults>, bool), Failure> {
        let engine = self.engine_url(common, workers)?;
        let url = engine.or(self.remote_cache.as_deref());
        let accept = !self.remote_no_accept && !workers.challenges();
        Ok((self.results_of(url, common, accept, warn)?, engine.is_some()))
    }

    fn results_of(
        &self,
        named: Option<&str>,
        common: &Common,
        accept: bool,
        warn: &dyn Fn(&RemoteError),
    ) -> Result<Option<SharedResults>, Failure> {
        let Some(url) = named.filter(|url| !url.is_empty() && !common.offline) else {
            return Ok(None);
        };
        let cache = match connect(&self.endpoint(url)?, &network(common), &self.limits()) {
            Ok(cache) => cache,
            Err(error) if error.loss() == Loss::Here || self.remote_required => return Err(error.into()),
            Err(error) => {
                warn(&error);
                return Ok(None);
            }
        };
        let results = StageResults::new(cache);
        Ok(Some(SharedResults::new(
            results,
            accept,
            self.upload(),
            self.remote_required,
        )))
    }

    /// The servers of the command line and who asks them, for a command that can follow.
    pub(super) fn words(&self, common: &Common) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let named = [
            ("remote", "--remote", self.remote.clone()),
            ("remote_cache", "--remote-cache", self.remote_cache.clone()),
            (
                "remote_token_file",
                "--remote-token-file",
                path(&self.remote_token_file),
            ),
            ("remote_cert", "--remote-cert", path(&self.remote_cert)),
            ("remote_key", "--remote-key", path(&self.remote_key)),
        ];
        let named = named.into_iter().filter(|(name, ..)| typed(common, name));
        let words = named.filter_map(|(_, option, value)| Some([option.to_owned(), value?]));
        let flag = self.remote_no_accept.then(|| "--remote-no-accept".to_owned());
        words.flatten().chain(flag).collect()
    }

    fn upload(&self) -> Upload {
        match self.remote_upload {
            UploadWhen::Never => Upload::Never,
            UploadWhen::Always => Upload::Always,
            UploadWhen::Auto => Upload::Auto,
        }
    }
}
