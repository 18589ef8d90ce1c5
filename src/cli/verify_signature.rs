//! `pnb verify-signature`: the signatures of a file or of an artifact's directory, without a network.

use super::{
    Exit,
    args::Common,
    closing::{Closing, count},
    failure::{Failure, Fatal},
    report::Report,
    servers::ServerArgs,
    signed_image::signed_image,
};
use clap::Args;
use pnb::{
    image::oci::LAYOUT_DIRECTORY,
    manifest::{MANIFEST_FILE, SIGNATURE_ENDING, SUMS_FILE, Sums},
    model::{Hint, RelPath, Sha256Digest, visible, visible_path},
    pipeline::sha256_of,
    registry::ImageReference,
    sign::{
        BUNDLE_LIMIT, BundleVerifier, ExpectedSigner, PUBLIC_GOOD, Purpose, Refusal, RefusalClass, TrustedRoot,
        VerifiedBundle,
    },
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The most bytes of a trusted root and of a checksum list.
const SMALL: u64 = 4 << 20;

/// Options of `pnb verify-signature`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb verify-signature images/raw/amd64 --trusted-root trusted_root.json \\\n    \
    --identity https://git.example/acme/images/.gitea/workflows/build-disk-image.yaml@refs/tags/v1 \\\n    \
    --issuer https://git.example/api/actions\n  \
    pnb verify-signature disk.raw.zst --identity release@example.com --issuer https://login.example \\\n    \
    --trusted-root trusted_root.json\n  \
    pnb verify-signature registry.example/powernode/os:v1.4 --identity release@example.com \\\n    \
    --issuer https://login.example --trusted-root trusted_root.json\n\n\
    Exit codes: 65 bundle, 66 certificate or root, 67 identity, 68 issuer, 69 log or time."
)]
pub(super) struct VerifySignatureArgs {
    /// File with <FILE>.sigstore.json beside it, directory of an artifact, or image in a registry: HOST/NAME@sha256:… or HOST/NAME:TAG
    pub(super) path: PathBuf,
    /// Identity that must have signed, exactly as the certificate has it: an e-mail address or a URI
    #[arg(long, value_name = "NAME")]
    pub(super) identity: String,
    /// Issuer of the identity
    #[arg(long, value_name = "URL")]
    pub(super) issuer: String,
    /// Certificates and keys to trust: a trusted_root.json, or the word public-good
    #[arg(long, value_name = "FILE", env = "PNB_TRUSTED_ROOT", hide_env_values = true)]
    pub(super) trusted_root: Option<PathBuf>,
    /// Bundle of the file [default: <FILE>.sigstore.json]
    #[arg(long, value_name = "FILE")]
    pub(super) bundle: Option<PathBuf>,
    #[command(flatten)]
    servers: ServerArgs,
}

/// Why nothing was verified.
#[derive(Debug, thiserror::Error)]
enum NotVerified {
    /// No default would be right.
    #[error("choose whom to trust: no --trusted-root is given")]
    NoRoot,
    #[error("read the trusted root {path}")]
    Root {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("verify {path}: {problem}")]
    Path { path: String, problem: &'static str },
    #[error("read {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl Fatal for NotVerified {
    fn exit(&self) -> Exit {
        match self {
            Self::NoRoot | Self::Path { .. } => Exit::Usage,
            Self::Root { .. } => Exit::Signature(RefusalClass::Certificate),
            Self::Read { .. } => Exit::Signature(RefusalClass::Bundle),
        }
    }
}

impl Hint for NotVerified {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NoRoot => Some(
                "name the trusted_root.json of the authority that the signer uses, or public-good for the public instance of \
                 sigstore, which signs for no Gitea or Forgejo"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// The result for one file.
#[derive(Serialize)]
struct Line {
    file: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<RefusalClass>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Line {
    fn new(file: &str, result: Result<VerifiedBundle, Refusal>) -> Self {
        let file = visible(file);
        match result {
            Ok(bundle) => Self {
                file,
                ok: true,
                time: Some(bundle.time_text()),
                log_index: Some(bundle.log_index()),
                class: None,
                reason: None,
            },
            Err(Refusal { class, reason }) => Self {
                file,
                ok: false,
                time: None,
                log_index: None,
                class: Some(class),
                reason: Some(reason),
            },
        }
    }

    fn text(&self, width: usize) -> String {
        let Self { file, .. } = self;
        match (&self.time, self.log_index, self.class, &self.reason) {
            (Some(time), Some(index), ..) => {
                format!("ok    {file:width$}  signed at {time}, entry {index} of the log\n")
            }
            (.., Some(class), Some(reason)) => format!("FAIL  {file:width$}  {class}: {reason}\n"),
            _ => String::new(),
        }
    }
}

pub(super) fn verify_signature(common: &Common, args: &VerifySignatureArgs, report: &Report) -> Result<Exit, Failure> {
    let root = trusted_root(args.trusted_root.as_deref())?;
    let verifier = BundleVerifier::new(&root)?;
    let expected = ExpectedSigner {
        identity: args.identity.clone(),
        issuer: args.issuer.clone(),
    };
    let wrong = |problem| NotVerified::Path {
        path: visible_path(&args.path),
        problem,
    };
    let lines = match fs::metadata(&args.path) {
        Ok(meta) if meta.is_dir() => match &args.bundle {
            None => directory(&verifier, &expected, &args.path)?,
            Some(_) => {
                return Err(wrong("it is a directory, whose files have their own bundles; leave out --bundle").into());
            }
        },
        Ok(meta) if meta.is_file() => {
            let bundle = args.bundle.clone().unwrap_or_else(|| beside(&args.path));
            let digest = sha256_of(&args.path).map_err(|source| NotVerified::Read {
                path: visible_path(&args.path),
                source,
            })?;
            let result = one(&verifier, &expected, &digest, &bundle);
            vec![Line::new(&args.path.to_string_lossy(), result)]
        }
        Ok(_) => return Err(wrong("it is neither a file nor a directory").into()),
        Err(_) => match args.path.to_str().map(str::parse::<ImageReference>) {
            Some(Ok(image)) => {
                let found = signed_image(common, &args.servers, &image, &verifier, &expected)?;
                found
                    .into_iter()
                    .map(|(name, result)| Line::new(&name, result))
                    .collect()
            }
            _ => return Err(wrong("there is no such file or directory, and it is no image in a registry").into()),
        },
    };
    let width = lines.iter().map(|line| line.file.len()).max().unwrap_or(0);
    let text: String = lines.iter().map(|line| line.text(width)).collect();
    let bad = lines.iter().filter(|line| !line.ok).count();
    let (files, identity) = (count(lines.len(), "file"), visible(&args.identity));
    let sentence = match bad {
        0 => format!("{files} signed by {identity}"),
        1 => format!("1 of {files} is not signed by {identity} as it must be"),
        _ => format!("{bad} of {files} are not signed by {identity} as they must be"),
    };
    let value = serde_json::json!({ "identity": args.identity, "issuer": args.issuer, "files": lines });
    let artifact = args.path.join(MANIFEST_FILE).is_file() && bad == 0;
    let audit = artifact.then(|| common.command("audit").arg(&args.path));
    report.close_with(value, &text, &Closing::verdict(sentence).nexts(audit));
    let first = lines.iter().find_map(|line| line.class);
    Ok(first.map_or(Exit::Success, Exit::Signature))
}

fn trusted_root(named: Option<&Path>) -> Result<TrustedRoot, Failure> {
    let path = named.ok_or(NotVerified::NoRoot)?;
    if path == Path::new(PUBLIC_GOOD) {
        return Ok(TrustedRoot::public_good()?);
    }
    let text = read(path, SMALL).map_err(|source| NotVerified::Root {
        path: visible_path(path),
        source,
    })?;
    Ok(TrustedRoot::parse(&text, &path.to_string_lossy())?)
}

/// The bundle's place beside a file.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(SIGNATURE_ENDING);
    name.into()
}

/// At most `limit` bytes of a file, and one more. Something else than a file, which could block, is an error.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Verifies the bundle at a path for the digest of a file.
fn one(
    verifier: &BundleVerifier,
    expected: &ExpectedSigner,
    digest: &Sha256Digest,
    bundle: &Path,
) -> Result<VerifiedBundle, Refusal> {
    let refuse = |reason: String| Refusal::new(RefusalClass::Bundle, reason);
    let bytes = read(bundle, BUNDLE_LIMIT as u64).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => refuse(format!("there is no bundle {}", visible_path(bundle))),
        _ => refuse(format!("the bundle {} cannot be read: {e}", visible_path(bundle))),
    })?;
    verifier.verify(&bytes, digest, Purpose::File, expected)
}

/// Verifies every file of an artifact: those of its checksum list, and the list.
fn directory(verifier: &BundleVerifier, expected: &ExpectedSigner, dir: &Path) -> Result<Vec<Line>, Failure> {
    let path = dir.join(SUMS_FILE);
    let unreadable = |source| NotVerified::Read {
        path: visible_path(&path),
        source,
    };
    let text = read(&path, SMALL).map_err(unreadable)?;
    let sums = Sums::parse(&text).map_err(|e| unreadable(io::Error::other(e.to_string())))?;
    let list = Sha256Digest::new(Sha256::digest(&text).into());
    let signed_list = (list, beside(&path));
    let mut files: BTreeMap<String, Result<VerifiedBundle, Refusal>> = BTreeMap::new();
    files.insert(SUMS_FILE.to_owned(), one(verifier, expected, &list, &beside(&path)));
    if !sums
        .files()
        .keys()
        .any(|name| name.as_bytes() == MANIFEST_FILE.as_bytes())
    {
        let refusal = Refusal::new(RefusalClass::Bundle, format!("{SUMS_FILE} does not list it"));
        files.insert(MANIFEST_FILE.to_owned(), Err(refusal));
    }
    for (name, listed) in sums.files() {
        files.insert(
            name.to_string(),
            listed_file(verifier, expected, dir, name, listed, &signed_list),
        );
    }
    Ok(files
        .into_iter()
        .map(|(name, result)| Line::new(&name, result))
        .collect())
}

fn listed_file(
    verifier: &BundleVerifier,
    expected: &ExpectedSigner,
    dir: &Path,
    name: &RelPath,
    listed: &Sha256Digest,
    list: &(Sha256Digest, PathBuf),
) -> Result<VerifiedBundle, Refusal> {
    let refuse = |reason: String| Refusal::new(RefusalClass::Bundle, reason);
    let path = dir.join(name);
    let meta = fs::metadata(&path).map_err(|e| refuse(format!("the file cannot be read: {e}")))?;
    if !meta.is_file() {
        return Err(refuse("it is no file".to_owned()));
    }
    let actual = sha256_of(&path).map_err(|e| refuse(format!("the file cannot be read: {e}")))?;
    if actual != *listed {
        return Err(refuse(format!(
            "the file has the digest {actual}, and {SUMS_FILE} lists {listed}"
        )));
    }
    // Nothing is put into an image layout. Its files are signed by the list, which was compared with them.
    if name.components().next() == Some(LAYOUT_DIRECTORY.as_bytes()) && name.depth() > 1 {
        return one(verifier, expected, &list.0, &list.1);
    }
    one(verifier, expected, &actual, &beside(&path))
}
