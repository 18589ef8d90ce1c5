//! The revision of the project, from git.

use super::PipelineError;
use std::{path::Path, process::Command};

/// What belongs to the stages: uncommitted changes here are refused by `--hermetic`.
const STAGE_PATHS: &[&str] = &["lockfile.toml", "stages", "dracut", "agent"];

/// Where the project stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The commit, 40 hexadecimal digits; none outside a repository.
    pub sha: Option<String>,
    /// Stage files that differ from the commit, as `git status` names them.
    pub dirty: Vec<String>,
}

impl Revision {
    /// Asks git. A directory that no repository tracks has no revision; a git that cannot answer is an error.
    pub fn of(project: &Path) -> Result<Self, PipelineError> {
        if !project.ancestors().any(|dir| dir.join(".git").exists()) {
            return Ok(Self::default());
        }
        // A directory that the repository around it does not track is in no commit of it.
        if git(project, &["ls-files", "--", "lockfile.toml"])?.is_empty() {
            return Ok(Self::default());
        }
        let sha = git(project, &["rev-parse", "HEAD"]).ok().map(|s| s.trim().to_owned());
        let mut status = vec!["status", "--porcelain", "--untracked-files=all", "--"];
        status.extend(STAGE_PATHS);
        let dirty = git(project, &status)?.lines().map(str::to_owned).collect();
        Ok(Self { sha, dirty })
    }
}

fn git(project: &Path, args: &[&str]) -> Result<String, PipelineError> {
    let error = |problem: String| PipelineError::Git {
        project: project.to_owned(),
        problem,
    };
    let output = Command::new("git")
        .arg("-C")
        .arg(project)
        .args(args)
        .env("LC_ALL", "C")
        .output()
        .map_err(|e| error(format!("git does not start: {e}")))?;
    if !output.status.success() {
        return Err(error(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
