//! `install-agent`: the pinned agent at its path in the root.
//!
//! Input: the file `agent`, a static program for the node's architecture, or a script (the diagnostic agent is one). Output: `tree`
//! with `usr/sbin/powernode-agent` (`/sbin` is a link to `usr/sbin`).

use super::{Context, WriterError, build, contents, input};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

pub(super) fn install_agent(context: &Context) -> Result<(), WriterError> {
    contents::check_agent(context.arch, &input("agent"))?;
    let dir = build("tree/usr/sbin");
    fs::create_dir_all(&dir).map_err(WriterError::io("create", &dir))?;
    let (from, to) = (input("agent"), dir.join("powernode-agent"));
    fs::copy(&from, &to).map_err(WriterError::io("copy", &from))?;
    fs::set_permissions(&to, Permissions::from_mode(0o755)).map_err(WriterError::io("write", &to))
}
