//! `pnb publish` to servers: registries, a release, the platform. `publish` has the command line's other half, a directory.

use super::{
    Exit,
    args::Common,
    context::store,
    failure::{Failure, Fatal},
    published::{PublicationEnd, Transfers},
    report::{Report, size},
    servers::{ServerArgs, variable},
};
use clap::{Args, ValueEnum};
use pnb::{
    audit::{AuditError, Verified, find_artifacts},
    http::HttpClient,
    model::{Hint, Target, visible_path},
    publish::{
        GiteaClient, GiteaError, GiteaRepository, Journal, JournalEntry, JournalError, LookOptions, PlanError,
        PlatformName, PublishEvent, PublishFailure, PublishPlan, PublishRequest, PublishState, PublishStep, Publisher,
        PublisherParts, Secret, SecretError, SigningParts, WebhookTarget,
    },
    registry::ImageReference,
    sign::{BundleVerifier, ExpectedSigner, PUBLIC_GOOD, SignError, Signer, SigningConfig, TokenSource, TrustedRoot},
    store::read_foreign,
};
use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Most bytes of a file that configures a publication.
const MAX_CONFIGURATION: u64 = 4 << 20;

/// The options of a publication to servers.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of servers")]
pub(super) struct PublicationArgs {
    /// Repositories of disk images begin with this: HOST/PREFIX; each image is PREFIX/<platform's name>:<commit>
    #[arg(long, value_name = "HOST/PREFIX")]
    disk_images: Option<String>,
    /// The platform's name of a disk image, as VARIANT/ARCH=NAME; the image goes to --disk-images; once for each
    #[arg(long, value_name = "V/A=NAME")]
    platform: Vec<PlatformImage>,
    /// Make a release with this tag
    #[arg(long, value_name = "TAG", requires = "gitea")]
    release: Option<String>,
    /// Address of the repository on a Gitea or Forgejo: https://HOST/OWNER/NAME
    #[arg(long, value_name = "URL", env = "PNB_GITEA", hide_env_values = true)]
    gitea: Option<String>,
    /// File with the token for the release [default: the environment variable GITEA_TOKEN]
    #[arg(long, value_name = "FILE")]
    gitea_token_file: Option<PathBuf>,
    /// Title of the release [default: its tag]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// File with the text of the release
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// Largest file that the server of the release takes, where it does not say so itself
    #[arg(long, value_name = "SIZE", value_parser = pnb::graph::parse_size)]
    max_asset_size: Option<u64>,
    /// Who signs: sigstore, or none, which publishes by digest only, without a tag and without a release
    #[arg(long, value_enum, default_value_t = SignBy::Sigstore)]
    sign: SignBy,
    /// Services that sign: a signing configuration as cosign 3 reads it, or the word public-good
    #[arg(long, value_name = "FILE", env = "PNB_SIGNING_CONFIG", hide_env_values = true)]
    signing_config: Option<PathBuf>,
    /// Certificates and keys to trust: a trusted_root.json, or the word public-good
    #[arg(long, value_name = "FILE", env = "PNB_TRUSTED_ROOT", hide_env_values = true)]
    pub(super) trusted_root: Option<PathBuf>,
    /// Identity that signs, exactly as the certificate will have it
    #[arg(long, value_name = "NAME", env = "PNB_IDENTITY", hide_env_values = true)]
    pub(super) identity: Option<String>,
    /// Issuer of the identity
    #[arg(long, value_name = "URL", env = "PNB_ISSUER", hide_env_values = true)]
    pub(super) issuer: Option<String>,
    /// File with an identity token [default: SIGSTORE_ID_TOKEN, or the job's own server]
    #[arg(long, value_name = "FILE")]
    identity_token_file: Option<PathBuf>,
    /// Webhooks of the platform: a TOML file that names the files with their secrets (docs/publishing.md)
    #[arg(long, value_name = "FILE")]
    webhooks: Option<PathBuf>,
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    /// File that keeps what was done [default: publish/<commit>-<plan>.jsonl in the store]
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Go on with a publication that was interrupted
    #[arg(long)]
    resume: bool,
}

/// A value of `--sign`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum SignBy {
    /// Certificates of minutes, for the identity of the job.
    Sigstore,
    /// Nobody.
    None,
}

/// A value of `--platform`.
#[derive(Clone, Debug)]
struct PlatformImage(Target, PlatformName);

impl std::str::FromStr for PlatformImage {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "the form is VARIANT/ARCH=NAME, such as disk-image-rpi4/arm64=debian-13-rpi4".to_owned();
        let (target, name) = text.split_once('=').ok_or_else(form)?;
        let target: Target = target.parse().map_err(|_| form())?;
        Ok(Self(target, name.parse().map_err(|e| format!("{e}"))?))
    }
}

/// The file of `--webhooks`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookFile {
    webhook: Vec<WebhookEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WebhookEntry {
    platform_name: String,
    url_file: PathBuf,
    secret_file: PathBuf,
    firmware_ref: Option<String>,
}

/// Why a publication cannot begin; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(super) enum PublicationError {
    #[error("choose {what}: {flag} is not given")]
    Missing { what: &'static str, flag: &'static str },
    #[error("read {}", visible_path(path))]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read {}: {problem}", visible_path(path))]
    Malformed { path: PathBuf, problem: String },
    #[error(
        "publish again: an earlier publication of this plan was interrupted ({})",
        visible_path(path)
    )]
    Interrupted { path: PathBuf },
    #[error(transparent)]
    Find(#[from] AuditError),
    #[error(transparent)]
    Gitea(#[from] GiteaError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Fatal for PublicationError {
    fn exit(&self) -> Exit {
        match self {
            PublicationError::Missing { .. } => Exit::Usage,
            _ => Exit::PublishRefused,
        }
    }
}

impl Hint for PublicationError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            PublicationError::Missing { flag, .. } if flag.contains("signing-config") || flag.contains("trusted-root") => {
                Some(
                    "the public instance of sigstore signs for no Gitea or Forgejo, so nothing is a default; --sign none publishes \
                     by digest only, without a tag and without a release"
                        .into(),
                )
            }
            PublicationError::Interrupted { .. } => Some("--resume goes on with it".into()),
            PublicationError::Gitea(error) => error.hint(),
            PublicationError::Sign(error) => error.hint(),
            PublicationError::Journal(error) => error.hint(),
            PublicationError::Plan(error) => error.hint(),
            _ => None,
        }
    }
}

impl Fatal for PublishFailure {
    fn exit(&self) -> Exit {
        match self.step {
            PublishStep::Look => Exit::PublishRefused,
            PublishStep::Blobs | PublishStep::Attach => Exit::PublishRegistry,
            PublishStep::Sign => Exit::PublishSigning,
            PublishStep::Release => Exit::PublishRelease,
            PublishStep::Show if matches!(self.cause(), pnb::publish::PublishCause::Gitea(_)) => Exit::PublishRelease,
            PublishStep::Show => Exit::PublishRegistry,
            PublishStep::Tell => Exit::NotTold,
        }
    }
}

/// Publishes to servers: the OCI image to `image`, and what the options name.
pub(super) fn publication(
    common: &Common,
    args: &PublicationArgs,
    image: Option<&ImageReference>,
    dry_run: bool,
    artifacts: &[Verified],
    report: &Report,
) -> Result<Exit, Failure> {
    let plan = plan(args, image, artifacts)?;
    let http = args.servers.http(common)?;
    let repository = args.gitea.as_deref().filter(|_| args.release.is_some());
    let gitea = match repository {
        None => None,
        Some(url) => {
            let repository = GiteaRepository::parse(url).map_err(PublicationError::from)?;
            Some(GiteaClient::new(&http, repository, gitea_token(args)?))
        }
    };
    let repository = gitea.as_ref().map(|gitea| gitea.repository().clone());
    let (credentials, signing, webhooks) = (args.servers.credentials()?, signing(args, &http)?, webhooks(args)?);
    let notes = match &args.notes {
        None => String::new(),
        Some(path) => text(path)?,
    };
    // Only a publication that can begin has a journal.
    let store = store(common)?;
    let digest = plan.digest().map_err(PublicationError::from)?;
    let journal_path = match &args.journal {
        Some(path) => path.clone(),
        None => Journal::place(&store, &plan.commit, &digest),
    };
    let journal = match dry_run {
        true => Journal::look(&journal_path, &digest),
        false => Journal::open(&journal_path, &digest),
    };
    let journal = journal.map_err(PublicationError::from)?;
    let finished = journal.entries().contains(&JournalEntry::Finished);
    if !journal.entries().is_empty() && !finished && !args.resume && !dry_run {
        return Err(PublicationError::Interrupted { path: journal_path }.into());
    }
    let publication = PublicationEnd {
        common,
        args,
        plan: &plan,
        repository: repository.as_ref(),
    };
    let transfers = Transfers::new(report.transfer_bar(&publication.place(), plan.bytes()));
    let parts = PublisherParts {
        credentials,
        signing,
        gitea: gitea.map(|gitea| gitea.with_transfer(transfers.of_release())),
        limits: LookOptions {
            max_asset_size: args.max_asset_size,
            ..LookOptions::default()
        },
        title: args.title.clone().or_else(|| args.release.clone()).unwrap_or_default(),
        notes,
        webhooks,
        journal,
        journal_path,
        on: &|event| say(report, &event),
        transfer: transfers.of_registries(),
        http: http.clone(),
    };
    let mut publisher = Publisher::new(&plan, parts);
    publisher.look()?;
    if dry_run {
        show_plan(report, &plan);
        publication.close_dry_run(report);
        return Ok(Exit::Success);
    }
    publisher.publish()?;
    report.clear();
    transfers.lines(&plan).iter().for_each(|line| report.note(line));
    if !plan.signed {
        report.note(format_args!(
            "published by digest only: without a signature nothing gets a tag, and there is no release"
        ));
    }
    publication.close(report);
    Ok(Exit::Success)
}

fn plan(
    args: &PublicationArgs,
    image: Option<&ImageReference>,
    artifacts: &[Verified],
) -> Result<PublishPlan, PublicationError> {
    let names: BTreeMap<Target, PlatformName> = args
        .platform
        .iter()
        .map(|PlatformImage(target, name)| (*target, name.clone()))
        .collect();
    let disks = match (&args.disk_images, names.is_empty()) {
        (Some(prefix), false) => Some((prefix.clone(), names)),
        (None, true) => None,
        (Some(_), true) => {
            return Err(PublicationError::Missing {
                what: "the disk images",
                flag: "--platform",
            });
        }
        (None, false) => {
            return Err(PublicationError::Missing {
                what: "a registry for the disk images",
                flag: "--disk-images",
            });
        }
    };
    let request = PublishRequest {
        image: image.cloned(),
        disks,
        release: args.release.clone(),
        signed: args.sign == SignBy::Sigstore,
    };
    Ok(PublishPlan::of(artifacts, &request)?)
}

fn signing(args: &PublicationArgs, http: &HttpClient) -> Result<Option<SigningParts>, PublicationError> {
    if args.sign == SignBy::None {
        return Ok(None);
    }
    let missing = |what, flag| PublicationError::Missing { what, flag };
    let config = args.signing_config.as_deref();
    let config = config.ok_or_else(|| missing("the services that sign", "--signing-config"))?;
    let root = args
        .trusted_root
        .as_deref()
        .ok_or_else(|| missing("whom to trust", "--trusted-root"))?;
    let identity = args
        .identity
        .clone()
        .ok_or_else(|| missing("the identity that signs", "--identity"))?;
    let issuer = args
        .issuer
        .clone()
        .ok_or_else(|| missing("the issuer of the identity", "--issuer"))?;
    let expected = ExpectedSigner { identity, issuer };
    let config = match config.as_os_str() == PUBLIC_GOOD {
        true => SigningConfig::public_good()?,
        false => SigningConfig::parse(&read(config)?, &visible_path(config))?,
    };
    let root = match root.as_os_str() == PUBLIC_GOOD {
        true => TrustedRoot::public_good()?,
        false => TrustedRoot::parse(&read(root)?, &visible_path(root))?,
    };
    let source = TokenSource::find(args.identity_token_file.as_deref(), &variable)?;
    Ok(Some(SigningParts {
        signer: Signer::new(http.clone(), config, &root, expected.clone(), source)?,
        verifier: BundleVerifier::new(&root)?,
        expected,
    }))
}

fn gitea_token(args: &PublicationArgs) -> Result<Secret, PublicationError> {
    match (&args.gitea_token_file, variable("GITEA_TOKEN")) {
        (Some(path), _) => Ok(Secret::load(path)?),
        (None, Some(token)) => Ok(Secret::new(&token, "GITEA_TOKEN")?),
        (None, None) => Err(PublicationError::Missing {
            what: "the token for the release",
            flag: "--gitea-token-file (or GITEA_TOKEN)",
        }),
    }
}

fn webhooks(args: &PublicationArgs) -> Result<Vec<WebhookTarget>, PublicationError> {
    let Some(path) = &args.webhooks else {
        return Ok(Vec::new());
    };
    let malformed = |problem: String| PublicationError::Malformed {
        path: path.clone(),
        problem,
    };
    let file: WebhookFile = toml::from_str(&text(path)?).map_err(|e| malformed(e.message().to_owned()))?;
    let beside = |name: &Path| path.parent().unwrap_or(Path::new("")).join(name);
    let target = |entry: WebhookEntry| {
        Ok(WebhookTarget {
            platform_name: entry.platform_name.parse().map_err(|e| malformed(format!("{e}")))?,
            address: Secret::load(&beside(&entry.url_file))?,
            key: Secret::load(&beside(&entry.secret_file))?,
            firmware_ref: entry.firmware_ref,
        })
    };
    file.webhook.into_iter().map(target).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, PublicationError> {
    read_foreign(path, MAX_CONFIGURATION).map_err(|source| PublicationError::Read {
        path: path.to_owned(),
        source,
    })
}

fn text(path: &Path) -> Result<String, PublicationError> {
    String::from_utf8(read(path)?).map_err(|_| PublicationError::Malformed {
        path: path.to_owned(),
        problem: "it is not UTF-8".to_owned(),
    })
}

fn say(report: &Report, event: &PublishEvent) {
    if report.json() {
        let mut value = serde_json::json!(event);
        value["event"] = "publish".into();
        report.value(value);
        return;
    }
    let state = match event.state {
        PublishState::Begins => "begins",
        PublishState::Done => "done",
        PublishState::There => "there",
        PublishState::Planned => "planned",
    };
    report.note(format_args!("{:>9} {state:<7} {}", event.step, event.what));
}

/// The plan of a dry run, with sizes.
fn show_plan(report: &Report, plan: &PublishPlan) {
    if report.json() {
        report.value(serde_json::json!({ "event": "plan", "plan": plan, "bytes": plan.bytes() }));
        return;
    }
    report.line(format_args!("commit {}", plan.commit));
    if let Some(image) = &plan.image {
        report.line(format_args!("image  {}@sha256:{}", image.repository, image.index));
        for manifest in &image.manifests {
            report.line(format_args!("       {} sha256:{}", manifest.arch, manifest.digest));
        }
    }
    for disk in &plan.disks {
        let (name, bytes) = (&disk.file.name, size(disk.file.size));
        report.line(format_args!(
            "disk   {}:{} {name} ({bytes})",
            disk.repository, plan.commit
        ));
    }
    if let Some(tag) = &plan.release {
        report.line(format_args!("release {tag} with {} files", plan.files.len()));
        for file in &plan.files {
            report.line(format_args!("       {} ({})", file.name, size(file.size)));
        }
    }
    let signed = if plan.signed {
        "signed"
    } else {
        "not signed: no tag, no release"
    };
    report.line(format_args!("at most {} are sent; {signed}", size(plan.bytes())));
}

/// The directories of all artifacts below `images`, or `images` itself.
pub(super) fn all_artifacts(images: &Path) -> Result<Vec<PathBuf>, PublicationError> {
    let has_manifest = |dir: &Path| {
        let path = dir.join(pnb::manifest::MANIFEST_FILE);
        path.try_exists()
            .map_err(|source| PublicationError::Read { path, source })
    };
    if has_manifest(images)? {
        return Ok(vec![images.to_owned()]);
    }
    let found: Vec<PathBuf> = find_artifacts(images)?.into_values().collect();
    match found.is_empty() {
        true => Err(PublicationError::Malformed {
            path: images.to_owned(),
            problem: "there is no artifact in it".to_owned(),
        }),
        false => Ok(found),
    }
}
