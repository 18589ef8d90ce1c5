//! Options that several commands share.

use clap::Args;
use pnb::model::{Arch, ModelError, Variant};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Options of every command.
#[derive(Args, Debug, Clone)]
pub(super) struct Common {
    /// The project: the directory with lockfile.toml and stages/ [default: found upwards from here].
    #[arg(long, global = true, value_name = "DIR", env = "PNB_PROJECT", hide_env_values = true)]
    pub(super) project: Option<PathBuf>,
    /// The store [default: $XDG_CACHE_HOME/pnb].
    #[arg(long, global = true, value_name = "DIR", env = "PNB_STORE", hide_env_values = true)]
    pub(super) store: Option<PathBuf>,
    /// Look for pinned files here first: http://…, https://… or file:///… as `pnb vendor` writes it.
    #[arg(long, global = true, value_name = "URL", env = "PNB_MIRROR", hide_env_values = true)]
    pub(super) mirror: Option<String>,
    /// Use no network; what the store and file: mirrors lack is an error.
    #[arg(long, global = true)]
    pub(super) offline: bool,
    /// Machine-readable output: one JSON object per line.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say only what went wrong.
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
}

/// Which artifacts.
#[derive(Args, Debug, Clone)]
pub(super) struct Selection {
    /// Architectures, comma-separated, or all [default: amd64].
    #[arg(long, value_delimiter = ',', env = "ARCH", value_name = "ARCH")]
    pub(super) arch: Vec<AskedArch>,
    /// Variants, comma-separated [default: every variant that has a stage].
    #[arg(long, value_delimiter = ',', env = "VARIANT", value_name = "VARIANT")]
    pub(super) variant: Vec<Variant>,
    /// Stages instead of variants; VARIANT is ignored then.
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    pub(super) stage: Vec<String>,
}

/// A word of `--arch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AskedArch {
    /// `all`.
    All,
    /// One of them.
    One(Arch),
}

impl std::str::FromStr for AskedArch {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "all" => Ok(AskedArch::All),
            _ => text.parse().map(AskedArch::One),
        }
    }
}

impl Selection {
    /// The architectures asked for, each once, in the order they are listed anywhere.
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

/// What the caller gives on top of the project: it decides what comes out.
#[derive(Args, Debug, Clone)]
pub(super) struct GivenArgs {
    /// The agent binary instead of the locked one: a path whose SHA-256 is then recorded in the manifest.
    #[arg(long, value_name = "FILE")]
    pub(super) agent: Option<PathBuf>,
    /// Use the tools of another architecture, under an emulator: the artifacts must come out the same.
    #[arg(long, value_name = "ARCH")]
    pub(super) tools: Option<Arch>,
    /// Address of the platform, which media with an identity.cfg then name as SERVER.
    #[arg(long, value_name = "URL", env = "PNB_PLATFORM_URL")]
    pub(super) platform_url: Option<String>,
    /// Certificates of the platform's authority, which then lie beside identity.cfg as powernode-ca.pem.
    #[arg(long, value_name = "FILE", env = "PNB_CA_PEM")]
    pub(super) ca_pem: Option<PathBuf>,
}

/// A stage of an architecture.
#[derive(Args, Debug)]
pub(super) struct StageRef {
    /// The stage.
    pub(super) stage: String,
    /// For which architecture.
    #[arg(long, default_value = "amd64", env = "ARCH")]
    pub(super) arch: Arch,
}

/// Reads `[ADDR:]PORT`; without an address it is this machine only.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits {
        let port = text.parse().map_err(|_| format!("the port {text} is above 65535"))?;
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse()
        .map_err(|_| "it is not PORT, ADDRESS:PORT or [ADDRESS]:PORT with the number of an address".to_owned())
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
