//! The three programs of e2fsprogs that turn the staged tar into the file system, as plain calls for a sandbox.

use super::{
    format::{BLOCK, FORMAT, INODE_SIZE, LABEL},
    plan::Ext4Layout,
    staging::Staged,
};
use crate::{
    image::{Guid, ImageError},
    model::VerityDigest,
};
use std::{fmt::Write, io};

/// The features of today's ext4 that a read-only file system can use; `none` first, so that the host's configuration adds no other.
/// Without resize_inode, 64bit and a journal, no space is reserved.
const FEATURES: &str =
    "none,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,filetype,metadata_csum,verity";
/// Inode flags of a verity file: `EXT4_EXTENTS_FL | EXT4_VERITY_FL`.
const FLAGS: &str = "0x180000";

/// A program to run, with everything that it receives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolCall {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(&'static str, String)>,
}

/// The result of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolOutput {
    /// Exit status; `None` when it was killed.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Runs a program to its end, with an empty standard input.
pub type ToolRunner<'a> = &'a dyn Fn(&ToolCall) -> io::Result<ToolOutput>;

/// Paths of the files, as the programs see them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paths<'a> {
    /// The tar of [`write_staging_tar`](super::write_staging_tar).
    pub tar: &'a str,
    /// The commands of [`debugfs_script`].
    pub script: &'a str,
    /// The file system; it must not exist yet.
    pub image: &'a str,
}

/// The debugfs commands that turn the staged files into verity files: they set the length of the data, then the flags.
pub fn debugfs_script(layout: &Ext4Layout) -> String {
    let mut script = String::with_capacity(layout.items.len() * 200);
    for item in &layout.items {
        let _ = writeln!(
            script,
            "sif /{0} size {1}\nsif /{0} flags {FLAGS}",
            item.path, item.size
        );
    }
    script
}

/// The calls of mke2fs, debugfs and e2fsck, in this order. The identifiers of the file system are derived from the root digest
/// `root`, so that equal roots give equal bytes, and different roots different identifiers.
pub fn calls(staged: &Staged, root: &VerityDigest, paths: Paths<'_>) -> [ToolCall; 3] {
    let uuid = Guid::derived("ext4", "uuid", root).to_string();
    let extended = format!(
        "hash_seed={},root_owner=0:0,lazy_itable_init=0,assume_storage_prezeroed=1",
        Guid::derived("ext4", "hash seed", root)
    );
    let (blocks, inodes) = (staged.size.blocks.to_string(), staged.size.inodes.to_string());
    let (block, inode) = (BLOCK.to_string(), INODE_SIZE.to_string());
    #[rustfmt::skip]
    let mke2fs = [
        "mke2fs", "-q", "-F", "-b", &block, "-I", &inode, "-m", "0", "-N", &inodes, "-L", LABEL, "-O", FEATURES,
        "-U", &uuid, "-E", &extended, "-d", paths.tar, paths.image, &blocks,
    ];
    let time = staged.epoch.to_string();
    let call = |argv: &[&str]| ToolCall {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec![
            ("E2FSPROGS_FAKE_TIME", time.clone()),
            ("SOURCE_DATE_EPOCH", time.clone()),
            ("MKE2FS_CONFIG", "/dev/null".to_owned()),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
        ],
    };
    [
        call(&mke2fs),
        call(&["debugfs", "-w", "-f", paths.script, paths.image]),
        call(&["e2fsck", "-f", "-n", paths.image]),
    ]
}

/// Makes the file system at `paths.image` and checks it. After an error the file there must not be used.
pub fn make(staged: &Staged, root: &VerityDigest, paths: Paths<'_>, tools: ToolRunner<'_>) -> Result<(), ImageError> {
    for call in calls(staged, root, paths) {
        let tool = &call.argv[0];
        let output = tools(&call).map_err(|source| ImageError::Run {
            tool: tool.clone(),
            source,
        })?;
        // debugfs exits with status 0 even if a command failed; without a failure it prints only its version to standard error.
        let stderr = String::from_utf8_lossy(&output.stderr);
        let mut complaints = stderr.lines().filter(|line| !line.starts_with("debugfs 1."));
        let fine = output.status == Some(0) && (tool != "debugfs" || complaints.next().is_none());
        if !fine {
            return Err(ImageError::Tool {
                tool: tool.clone(),
                problem: explain(&output),
            });
        }
    }
    Ok(())
}

fn explain(output: &ToolOutput) -> String {
    let status = output
        .status
        .map_or("killed".to_owned(), |code| format!("exit status {code}"));
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("debugfs: sif ")).collect();
    let last = &lines[lines.len().saturating_sub(10)..];
    format!("{status} while making {FORMAT}\n{}", last.join("\n"))
}
