//! Writes `lockfile.toml`: one field per line, in a stable order, so that two locks can be compared as text.

use super::{LockError, Lockfile};

const HEADER: &str = "# Written by `pnb lock`; not to be edited by hand. It pins every byte a build takes in.\n\n";

/// Writes a lock as text: archives in their order of preference, packages and files by name, architecture and version.
///
/// # Errors
/// A value that TOML cannot represent, such as a path that is not UTF-8.
pub fn write_lock(lock: &Lockfile) -> Result<String, LockError> {
    let mut lock = lock.clone();
    lock.sets.sort();
    lock.packages.sort();
    lock.files.sort();
    let body = toml::to_string(&lock).map_err(LockError::Write)?;
    Ok(format!("{HEADER}{body}"))
}
