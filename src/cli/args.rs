//! The command line as it is typed.

use crate::{
    boot::{Attach, Firmware},
    model::{Arch, ModelError, Variant},
    repro::{Axis, UnknownAxis},
};
use clap::{Args, Parser, Subcommand};
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

/// Everything typed.
#[derive(Parser, Debug)]
#[command(
    name = "pnb",
    version,
    about = "Builds the boot artifacts of Powernode nodes: hermetic, reproducible, auditable",
    after_help = "Exit codes: 0 done · 1 failure · 2 usage · 3 lock · 4 fetch · 5 store · 6 stage files · 7 stage failed · \
                  8 not hermetic · 9 boot · 10 not reproducible · 11 not readable (inspect, diff) · 12 challenge: too few builders agree · \
                  30 manifest not readable · 31 manifest of another schema version · 32 other lock · 33 other revision · 34 other pnb · \
                  35 its files missing or edited · \
                  40–51 audit: sums, files, manifest, artifacts, pins, root, sandbox, SBOM, provenance, variants, reproducibility, policy\n\n\
                  Examples:\n  pnb build --hermetic --arch amd64 --variant kernel-initrd\n  pnb boot images/kernel-initrd/amd64\n  pnb audit images/kernel-initrd/amd64"
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Debug, Clone)]
pub struct Common {
    /// The project: the directory with lockfile.toml and stages/ [default: found upwards from here].
    #[arg(long, global = true, value_name = "DIR", env = "PNB_PROJECT", hide_env_values = true)]
    pub project: Option<PathBuf>,
    /// The store [default: $XDG_CACHE_HOME/pnb].
    #[arg(long, global = true, value_name = "DIR", env = "PNB_STORE", hide_env_values = true)]
    pub store: Option<PathBuf>,
    /// Look for pinned files here first: http://…, https://… or file:///… as `pnb vendor` writes it.
    #[arg(long, global = true, value_name = "URL", env = "PNB_MIRROR", hide_env_values = true)]
    pub mirror: Option<String>,
    /// Use no network; what the store and file: mirrors lack is an error.
    #[arg(long, global = true)]
    pub offline: bool,
    /// Machine-readable output: one JSON object per line.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say only what went wrong.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// What can be asked for.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Build artifacts into `images/<variant>/<arch>/`.
    Build(Build),
    /// Say what a build would run, and why.
    Plan(Selection),
    /// Show the stages and what they need.
    Graph(Graph),
    /// Put every pinned file a build needs into the store.
    Fetch(Selection),
    /// Write every pinned input into a directory that serves as a mirror without a network.
    #[command(
        after_help = "Example:\n  pnb vendor /media/usb/pnb\n  PNB_MIRROR=file:///media/usb/pnb pnb build --offline --hermetic"
    )]
    Vendor(Vendor),
    /// Choose and pin every input: writes lockfile.toml.
    Lock(Lock),
    /// Print the log of a stage's last run.
    Log(LogArgs),
    /// Open a shell in exactly a stage's sandbox.
    Shell(ShellArgs),
    /// Boot an artifact in QEMU and judge its console.
    Boot(Boot),
    /// Serve a directory over HTTP and TFTP to machines that boot over a network, until Ctrl-C.
    Serve(Serve),
    /// Build twice under different circumstances, compare everything, and say what differs and why.
    VerifyRepro(VerifyRepro),
    /// Check an artifact against its manifest, and the manifest against its promises.
    Audit(Audit),
    /// Compare what independent builders say of the same artifact. Exit code 12 when too few agree.
    Challenge(Challenge),
    /// Say what is in an artifact: partitions, file systems, boot entries, digests.
    Inspect(Inspect),
    /// Say what differs between two artifacts, and where. Exit code 1 when something does.
    Diff(Diff),
    /// Look after the store.
    Store(StoreArgs),
    /// Say what this machine offers for hermetic builds, and how to fix what it lacks.
    Doctor,
    /// Print a completion script.
    #[command(after_help = "Example:\n  pnb completion bash > ~/.local/share/bash-completion/completions/pnb")]
    Completion {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Which artifacts.
#[derive(Args, Debug, Clone)]
pub struct Selection {
    /// Architectures, comma-separated, or all [default: amd64].
    #[arg(long, value_delimiter = ',', env = "ARCH", value_name = "ARCH")]
    pub arch: Vec<AskedArch>,
    /// Variants, comma-separated [default: every variant that has a stage].
    #[arg(long, value_delimiter = ',', env = "VARIANT", value_name = "VARIANT")]
    pub variant: Vec<Variant>,
    /// Stages instead of variants; VARIANT is ignored then.
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    pub stage: Vec<String>,
}

/// A word of `--arch`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskedArch {
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
    pub fn arches(&self) -> Vec<Arch> {
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

/// Options of `pnb build`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb build --hermetic --arch amd64 --variant kernel-initrd\n  \
    ARCH=amd64 VARIANT=kernel-initrd pnb build\n  pnb build --timings --jobs 1"
)]
pub struct Build {
    /// What to build.
    #[command(flatten)]
    pub selection: Selection,
    /// Refuse anything that could make the result depend on this machine.
    #[arg(long)]
    pub hermetic: bool,
    /// With --hermetic: build although stage files are uncommitted, and say so in the manifest.
    #[arg(long)]
    pub allow_dirty: bool,
    /// Stages at once [default: processors].
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<usize>,
    /// Where the artifacts go [default: images/ in the project].
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Keep the build directory of a stage that fails.
    #[arg(long)]
    pub keep_failed: bool,
    /// Build on disk in this directory instead of in memory.
    #[arg(long, value_name = "DIR")]
    pub build_dir: Option<PathBuf>,
    /// Show every line that stages print.
    #[arg(long, short)]
    pub verbose: bool,
    /// Say at the end where the time went.
    #[arg(long)]
    pub timings: bool,
    /// What is given on top of the project.
    #[command(flatten)]
    pub given: Given,
}

/// What the caller gives on top of the project: it decides what comes out.
#[derive(Args, Debug, Clone)]
pub struct Given {
    /// The agent binary instead of the locked one: a path whose SHA-256 is then recorded in the manifest.
    #[arg(long, value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// Use the tools of another architecture, under an emulator: the artifacts must come out the same.
    #[arg(long, value_name = "ARCH")]
    pub tools: Option<Arch>,
    /// Address of the platform, which media with an identity.cfg then name as SERVER.
    #[arg(long, value_name = "URL", env = "PNB_PLATFORM_URL")]
    pub platform_url: Option<String>,
    /// Certificates of the platform's authority, which then lie beside identity.cfg as powernode-ca.pem.
    #[arg(long, value_name = "FILE", env = "PNB_CA_PEM")]
    pub ca_pem: Option<PathBuf>,
}

/// Options of `pnb verify-repro`.
#[derive(Args, Debug)]
#[command(
    after_help = "Nothing is taken from the store but pinned files: both builds are from nothing, in stores of their own.\n\n\
    Examples:\n  pnb verify-repro --arch amd64 --variant kernel-initrd --report report.html\n  \
    pnb verify-repro --variant raw --vary clock,locale,listing\n  \
    pnb verify-repro --against images/raw/amd64"
)]
pub struct VerifyRepro {
    /// What to build.
    #[command(flatten)]
    pub selection: Selection,
    /// What to vary, comma-separated: all, none, or of clock, time-zone, locale, host-name, ids, umask, home, build-path, file-system,
    /// listing, processors, job-order, memory-layout, memory-limit, environment, kernel, links.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "AXIS")]
    pub vary: Vec<AskedAxis>,
    /// Build once, and compare with what the manifest (or that in the directory) says. Its lock, revision and pnb must be these.
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["variant", "arch", "stage"])]
    pub against: Option<PathBuf>,
    /// Write the verdict as a page for a browser.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Keep both stores on disk; otherwise they lie in memory (/dev/shm) where there is room.
    #[arg(long)]
    pub on_disk: bool,
    /// Do not look for the cause of a difference, which runs stages again.
    #[arg(long)]
    pub no_explain: bool,
    /// Refuse anything that could make the result depend on this machine.
    #[arg(long)]
    pub hermetic: bool,
    /// With --hermetic: build although stage files are uncommitted.
    #[arg(long)]
    pub allow_dirty: bool,
    /// Stages at once [default: processors].
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<usize>,
    /// What is given on top of the project.
    #[command(flatten)]
    pub given: Given,
    /// Where artifacts lie that get the statement, if they are what was built [default: images/ in the project].
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// A word of `--vary`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskedAxis {
    /// `all`.
    All,
    /// `none`.
    None,
    /// One of them.
    One(Axis),
}

impl std::str::FromStr for AskedAxis {
    type Err = UnknownAxis;
    fn from_str(text: &str) -> Result<Self, UnknownAxis> {
        match text {
            "all" => Ok(AskedAxis::All),
            "none" => Ok(AskedAxis::None),
            _ => text.parse().map(AskedAxis::One),
        }
    }
}

impl VerifyRepro {
    /// The axes asked for.
    pub fn axes(&self) -> BTreeSet<Axis> {
        let asked = |axis: &Axis| {
            self.vary
                .iter()
                .any(|a| *a == AskedAxis::All || *a == AskedAxis::One(*axis))
        };
        Axis::ALL.iter().copied().filter(asked).collect()
    }
}

/// Options of `pnb graph`.
#[derive(Args, Debug)]
pub struct Graph {
    /// Of what.
    #[command(flatten)]
    pub selection: Selection,
    /// Graphviz.
    #[arg(long, conflicts_with = "svg")]
    pub dot: bool,
    /// A picture: pnb graph --svg > graph.svg
    #[arg(long)]
    pub svg: bool,
}

/// Options of `pnb vendor`.
#[derive(Args, Debug)]
pub struct Vendor {
    /// The directory; made if it is not there.
    pub dir: PathBuf,
}

/// Options of `pnb lock`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb lock --check\n  pnb lock --update\n  pnb lock --update --snapshot 20261123T000000Z\n  pnb lock --update --suite trixie-security"
)]
pub struct Lock {
    /// Only say whether the lock has everything the stages want; writes nothing, uses no network.
    #[arg(long, conflicts_with_all = ["update", "snapshot", "suite"])]
    pub check: bool,
    /// Take the newest versions. Without it an existing complete lock is left as it is.
    #[arg(long)]
    pub update: bool,
    /// Lock the archives as they were at this moment (YYYYMMDDThhmmssZ); implies --update.
    #[arg(long, value_name = "T")]
    pub snapshot: Option<String>,
    /// Add an optional suite of stages/archives.toml; implies --update.
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,
}

/// A stage of an architecture.
#[derive(Args, Debug)]
pub struct StageRef {
    /// The stage.
    pub stage: String,
    /// For which architecture.
    #[arg(long, default_value = "amd64", env = "ARCH")]
    pub arch: Arch,
}

/// Options of `pnb log`.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// Of which stage.
    #[command(flatten)]
    pub stage: StageRef,
}

/// Options of `pnb shell`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb shell kernel\n  pnb shell rootfs --command 'ls /inputs/packages | head'")]
pub struct ShellArgs {
    /// Of which stage.
    #[command(flatten)]
    pub stage: StageRef,
    /// Run this instead of an interactive shell.
    #[arg(long, short, value_name = "COMMAND")]
    pub command: Option<String>,
}

/// Options of `pnb boot`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb boot images/kernel-initrd/amd64\n  \
    pnb boot images/raw/amd64 --firmware secureboot\n  \
    pnb boot images/iso/amd64 --as usb --firmware bios\n  \
    pnb boot images/ipxe/amd64 --firmware uefi\n  \
    pnb boot images/raw/amd64 --keep node.raw --size 8GiB\n  \
    pnb boot images/iso/amd64 --firmware direct --disk new.raw --size 4GiB \\\n    \
      --append 'powernode.install=/dev/vda powernode.install.confirm=yes'\n  \
    pnb boot images/kernel-initrd/amd64 --fw-cfg instance_uuid=6f1c6a4e-6d53-4c8b-9a55-0f3f1c6c2f10\n  \
    pnb boot images/kernel-initrd/amd64 --append powernode.debug=1 --interactive\n  \
    pnb boot images/disk-image-rpi4/arm64 --keep card.img")]
pub struct Boot {
    /// The artifact's directory, or a file: .raw or .img, .qcow2, .iso.
    pub path: PathBuf,
    /// What starts it [default: direct for kernel-initrd, bios for ipxe of amd64, rpi4 for the card of a Raspberry Pi 4, else
    /// uefi]. With a medium, direct takes kernel and initramfs off it, so that words can be appended.
    #[arg(long, value_name = "FIRMWARE")]
    pub firmware: Option<Firmware>,
    /// The architecture of a file [default: that of the boot loader in it, else amd64].
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<Arch>,
    /// As what it is attached [default: cdrom for iso, net for ipxe, card for a card, else disk].
    #[arg(long = "as", value_name = "WHAT")]
    pub attach: Option<Attach>,
    /// Boot this copy of the disk, and let the machine write to it; made of the artifact if it is not there.
    #[arg(long, value_name = "FILE")]
    pub keep: Option<PathBuf>,
    /// A second disk, which the machine may write to; made empty if it is not there.
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// How large a disk that is made here gets [default: as the artifact, 4GiB for --disk].
    #[arg(long, value_name = "SIZE", value_parser = crate::graph::parse_size)]
    pub size: Option<u64>,
    /// A value handed over by the firmware: KEY=VALUE, KEY below opt/com.powernode/ unless it has a slash.
    #[arg(long, value_name = "K=V")]
    pub fw_cfg: Vec<String>,
    /// A directory shared with the machine over 9p.
    #[arg(long, value_name = "DIR")]
    pub share: Option<PathBuf>,
    /// Added to the kernel command line; with --firmware direct and rpi4 only.
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub append: Vec<String>,
    /// Seconds until the machine is stopped and judged.
    #[arg(long, value_name = "S", default_value_t = 300)]
    pub timeout: u64,
    /// Memory of the machine in MiB [default: 3072; a Raspberry Pi 4 of QEMU has 2048].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1_048_576))]
    pub memory: Option<u64>,
    /// Connect this terminal to the machine's console instead of judging it (Ctrl-A X ends it).
    #[arg(long)]
    pub interactive: bool,
}

/// Options of `pnb serve`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb serve images/ipxe/amd64\n  \
    pnb serve images/ipxe/amd64 --http 192.0.2.1:8080\n  \
    pnb serve images/ipxe/amd64 --http 192.0.2.1:80 --tftp 192.0.2.1:69 --json\n\n\
    Nothing but this machine can connect unless an address is named; 0.0.0.0 is all of them. Whoever can connect can read \
    every file in the directory.")]
pub struct Serve {
    /// The directory.
    pub dir: PathBuf,
    /// Where HTTP is served.
    #[arg(long, value_name = "[ADDR:]PORT", default_value = "8080", value_parser = super::serve::parse_listen)]
    pub http: SocketAddr,
    /// Where TFTP is served, for firmware that knows nothing else (its port is 69) [default: not at all].
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = super::serve::parse_listen)]
    pub tftp: Option<SocketAddr>,
}

/// Options of `pnb audit`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb audit images/raw/amd64\n  pnb audit images --lock lockfile.toml\n  \
    pnb audit images --policy docs/audit-policy.example.toml\n  \
    pnb --json audit images/raw/amd64 | jq '.checks[] | select(.ok | not)'"
)]
pub struct Audit {
    /// The artifact's directory, or one of several: `<variant>/<arch>` below it.
    pub dir: PathBuf,
    /// The lock that the artifact must have been built from.
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// What is asked of the artifacts beyond being what they claim to be: rules in TOML, as docs/audit.md lists them.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// Options of `pnb challenge`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb challenge images/raw/amd64 their/build-manifest.json\n  \
    pnb challenge ours.json theirs.json third.json --threshold 2\n\n\
    In a directory, the files must be those of its manifest; of a manifest alone nothing else is looked at."
)]
pub struct Challenge {
    /// The builders' manifests: a file each, or the directory of an artifact.
    #[arg(required = true, value_name = "MANIFEST")]
    pub manifests: Vec<PathBuf>,
    /// How many builders must agree, on the root and every file together [default: all].
    #[arg(long, value_name = "K")]
    pub threshold: Option<usize>,
}

/// Options of `pnb inspect`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb inspect images/raw/amd64\n  pnb inspect images/raw/amd64/disk.raw --depth 1\n  \
    pnb --json inspect images/iso/amd64/install.iso"
)]
pub struct Inspect {
    /// An image, an archive, any file, or the directory of an artifact.
    pub path: PathBuf,
    /// How many levels to look into: 1 for the partitions of a disk, 2 for their files.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub depth: usize,
    /// List every file, however many there are.
    #[arg(long)]
    pub all: bool,
}

/// Options of `pnb diff`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb diff images/raw/amd64/disk.raw other/disk.raw\n  \
    pnb diff images/kernel-initrd/amd64 yesterday/kernel-initrd/amd64 --limit 20")]
pub struct Diff {
    /// A file or directory.
    pub a: PathBuf,
    /// What to compare it with.
    pub b: PathBuf,
    /// How many differences to list; all are counted.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
}

/// Options of `pnb store`.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// Commands of `pnb store`.
#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Hash every object and read every record.
    Verify {
        /// Remove what is damaged, so that the next build makes or fetches it again.
        #[arg(long)]
        repair: bool,
    },
    /// Remove what neither the lock nor the newest record of a stage needs.
    Gc,
    /// Print where the store is, or where an output of a stage is in it.
    Path {
        /// A stage, `stage` or `stage/arch`.
        stage: Option<String>,
        /// Which output.
        #[arg(long, default_value = "tree")]
        output: String,
    },
}
