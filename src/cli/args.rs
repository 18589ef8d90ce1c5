//! Options that several commands share, and the parsers of their values.

use super::command_text::TypedLine;
use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, Resettable, TypedValueParser},
};
use pnb::{
    model::{Arch, BuildOption, ModelError, NodeId, Variant},
    pipeline::Project,
};
use std::{
    collections::BTreeSet,
    error::Error,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

/// Options of every command.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Global options")]
pub(super) struct Common {
    /// Directory of the project, with lockfile.toml and stages/ [default: the current directory or the nearest above it]
    #[arg(long, global = true, value_name = "DIR", env = "PNB_PROJECT", hide_env_values = true)]
    pub(super) project: Option<PathBuf>,
    /// Directory of the store [default: $XDG_CACHE_HOME/pnb]
    #[arg(long, global = true, value_name = "DIR", env = "PNB_STORE", hide_env_values = true)]
    pub(super) store: Option<PathBuf>,
    /// First mirror for pinned files: http://…, https://… or file:///… with the layout that `pnb vendor` writes
    #[arg(long, global = true, value_name = "URL", env = "PNB_MIRROR", hide_env_values = true)]
    pub(super) mirror: Option<String>,
    /// Use no network; a file that neither the store nor a file: mirror has is an error
    #[arg(long, global = true)]
    pub(super) offline: bool,
    /// Certificates in PEM of a private authority, which count for all servers beside the public ones and the machine's own
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PNB_CA_FILE",
        hide_env_values = true
    )]
    pub(super) ca_file: Option<PathBuf>,
    /// Print events and results as JSON, one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// The command line as it was typed.
    #[arg(skip)]
    pub(super) line: TypedLine,
    /// The options that were typed, in contrast to those that come from a variable or a default.
    #[arg(skip)]
    pub(super) typed_options: BTreeSet<String>,
}

/// Artifacts or stages.
#[derive(Args, Debug, Clone)]
pub(super) struct Selection {
    /// Architectures, comma-separated [default: amd64]
    #[arg(long, value_delimiter = ',', env = "ARCH", hide_env_values = true, value_name = "ARCH", value_parser = asked_arch())]
    pub(super) arch: Vec<AskedArch>,
    /// Variants, comma-separated [default: every variant that has a stage]
    #[arg(
        long,
        value_delimiter = ',',
        env = "VARIANT",
        hide_env_values = true,
        value_name = "VARIANT"
    )]
    pub(super) variant: Vec<Variant>,
    /// Stages, comma-separated, as NAME or NAME/ARCH, instead of variants; VARIANT is ignored then. `pnb graph` lists them
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    pub(super) stage: Vec<AskedStage>,
}

/// The variants of pnb's own stages, for messages where there is no project.
const OWN_VARIANTS: [&str; 8] = [
    "kernel-initrd",
    "raw",
    "iso",
    "ipxe",
    "qcow2",
    "oci",
    "disk-image-rpi4",
    "disk-image-arm64-uefi",
];

/// The names of the variants that can be asked for: those of the project in `start` or above it, or of pnb's own stages.
pub(super) fn possible_variants(start: &Path) -> Vec<String> {
    let project = Project::find(start, false).and_then(Project::load);
    let names = project.map(|project| project.graph.variants().map(|(name, _)| name.to_string()).collect());
    let names: Vec<String> = names.unwrap_or_default();
    match names.is_empty() {
        true => OWN_VARIANTS.map(str::to_owned).to_vec(),
        false => names,
    }
}

/// A stage as `NAME`, or as `NAME/ARCH`, which is how `pnb plan` prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AskedStage {
    /// The name.
    pub(super) name: String,
    /// The architecture, if it was given.
    pub(super) arch: Option<Arch>,
}

impl FromStr for AskedStage {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let (name, arch) = match text.split_once('/') {
            None => (text, None),
            Some((name, arch)) => (name, Some(arch.parse()?)),
        };
        let name = name.to_owned();
        Ok(Self { name, arch })
    }
}

impl fmt::Display for AskedStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.arch {
            None => f.write_str(&self.name),
            Some(arch) => NodeId::new(&self.name, arch).fmt(f),
        }
    }
}

/// A value of `--arch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AskedArch {
    /// `all`.
    All,
    /// The name of an architecture.
    One(Arch),
}

impl fmt::Display for AskedArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskedArch::All => f.write_str("all"),
            AskedArch::One(arch) => arch.fmt(f),
        }
    }
}

impl FromStr for AskedArch {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "all" => Ok(AskedArch::All),
            _ => text.parse().map(AskedArch::One),
        }
    }
}

impl Selection {
    /// The options as they are typed.
    pub(super) fn words(&self) -> Vec<String> {
        let list = |name: &str, values: Vec<String>| match values.is_empty() {
            true => Vec::new(),
            false => vec![name.to_owned(), values.join(",")],
        };
        let arches = self.arch.iter().map(ToString::to_string).collect();
        let stages: Vec<String> = self.stage.iter().map(ToString::to_string).collect();
        // Stages take the place of variants.
        let variants = self.variant.iter().filter(|_| stages.is_empty());
        let variants = variants.map(ToString::to_string).collect();
        let words = [
            list("--arch", arches),
            list("--variant", variants),
            list("--stage", stages),
        ];
        words.concat()
    }

    /// Whether every architecture was asked for.
    pub(super) fn all(&self) -> bool {
        self.arch.contains(&AskedArch::All)
    }

    /// The selected architectures, each once, in the order of [`Arch::ALL`].
    pub(super) fn arches(&self) -> Vec<Arch> {
        let asked = |arch: &Arch| match self.arch.is_empty() {
            true => *arch == Arch::Amd64,
            false => self
                .arch
                .iter()
                .any(|a| *a == AskedArch::All || *a == AskedArch::One(*arch)),
        };
        Arch::ALL.into_iter().filter(asked).collect()
    }
}

/// Inputs that the command line gives instead of the project's; they change the outputs.
#[derive(Args, Debug, Clone)]
pub(super) struct GivenArgs {
    /// Agent binary to use instead of the locked one; the manifest records its SHA-256
    #[arg(long, value_name = "FILE")]
    pub(super) agent: Option<PathBuf>,
    /// Run the tools of another architecture under an emulator; the artifacts must have the same bytes
    #[arg(long, value_name = "ARCH", value_parser = arch())]
    pub(super) tools: Option<Arch>,
    /// Option of the build, which changes what is in the artifacts and stands in the manifest; once for each
    #[arg(long, value_name = "OPTION", value_parser = one_of::<BuildOption>(BuildOption::ALL.map(BuildOption::as_str)))]
    pub(super) with: Vec<BuildOption>,
    /// Address of the platform, which identity.cfg on the media names as SERVER
    #[arg(long, value_name = "URL", env = "PNB_PLATFORM_URL", hide_env_values = true)]
    pub(super) platform_url: Option<String>,
    /// Public key <name>.pub with which lists of modules may be signed; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(super) module_key: Vec<PathBuf>,
    /// Certificates of the platform's authority, written beside identity.cfg as powernode-ca.pem
    #[arg(long, value_name = "FILE", env = "PNB_CA_PEM", hide_env_values = true)]
    pub(super) ca_pem: Option<PathBuf>,
}

/// A stage for an architecture.
#[derive(Args, Debug)]
pub(super) struct StageRef {
    /// Stage, as NAME or NAME/ARCH
    pub(super) stage: AskedStage,
    /// Architecture that the stage is run for
    #[arg(long, default_value = "amd64", env = "ARCH", hide_env_values = true, value_name = "ARCH", value_parser = arch())]
    pub(super) arch: Arch,
}

/// Parses one of `names`, which `--help` lists and a shell completes.
pub(super) fn one_of<T>(names: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// Parses a value of `T`, whose names `--help` lists in one line.
pub(super) fn value_of<T: ValueEnum + Send + Sync + 'static>() -> impl TypedValueParser<Value = T> {
    let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let names = values.map(|value| value.help(Resettable::Reset));
    PossibleValuesParser::new(names).try_map(|name| T::from_str(&name, false))
}

/// Parses the name of an architecture.
pub(super) fn arch() -> impl TypedValueParser<Value = Arch> {
    one_of(Arch::ALL.map(Arch::as_str))
}

fn asked_arch() -> impl TypedValueParser<Value = AskedArch> {
    one_of(Arch::ALL.map(Arch::as_str).into_iter().chain(["all"]))
}

/// Parses `[ADDR:]PORT`; without an address only this machine can connect.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits {
        let port = text
            .parse()
            .map_err(|_| format!("the largest port is 65535, {text} is above it"))?;
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse()
        .map_err(|_| "the forms are PORT, ADDRESS:PORT and [ADDRESS]:PORT, with an address in numbers".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_address_it_is_this_machine_only() {
        let listen = |text: &str| parse_listen(text).map(|a| a.to_string());
        assert_eq!(listen("8080"), Ok("127.0.0.1:8080".to_owned()));
        assert_eq!(listen("192.0.2.1:80"), Ok("192.0.2.1:80".to_owned()));
        assert_eq!(listen("[::1]:80"), Ok("[::1]:80".to_owned()));
        for bad in ["", "65536", ":80", "localhost:80", "192.0.2.1", "-1", "*:80"] {
            assert!(listen(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
