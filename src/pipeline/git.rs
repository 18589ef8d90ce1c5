//! The revision of the project, from git.

use super::PipelineError;
use crate::model::GitSha;
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// The revision of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The commit; `None` outside a repository and before its first commit.
    pub sha: Option<GitSha>,
    /// Stage files that differ from the commit, as `git status` names them.
    pub dirty: Vec<String>,
}

impl Revision {
    /// Asks git for the revision. A directory that no repository tracks has none; a failure of git is an error.
    ///
    /// `paths` are the parts of the project that a build reads, relative to it: ignored files there count as uncommitted too.
    pub fn of(project: &Path, paths: &BTreeSet<PathBuf>) -> Result<Self, PipelineError> {
        if !project.ancestors().any(|dir| dir.join(".git").exists()) {
            return Ok(Self::default());
        }
        // The surrounding repository may not track this directory. Its commit would then say nothing about the stage files.
        if git(project, &["ls-files", "--", "lockfile.toml"])?.is_empty() {
            return Ok(Self::default());
        }
        let head = git(project, &["rev-parse", "HEAD"]).ok();
        let sha = head.and_then(|sha| sha.trim().parse().ok());
        let words = [
            "status",
            "--porcelain",
            "--untracked-files=all",
            "--ignored=matching",
            "--",
        ];
        let mut status: Vec<&OsStr> = words.map(OsStr::new).to_vec();
        status.extend(paths.iter().map(|p| p.as_os_str()));
        let dirty = git(project, &status)?.lines().map(str::to_owned).collect();
        Ok(Self { sha, dirty })
    }
}

fn git(project: &Path, args: &[impl AsRef<OsStr>]) -> Result<String, PipelineError> {
    let error = |problem: String| PipelineError::Git {
        project: project.to_owned(),
        problem,
    };
    let output = Command::new("git")
        .arg("-C")
        .arg(project)
        .args(args)
        .env("LC_ALL", "C")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output()
        .map_err(|e| error(format!("git does not start: {e}")))?;
    if !output.status.success() {
        return Err(error(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
