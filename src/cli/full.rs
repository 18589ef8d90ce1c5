//! A full disk: one exit code and one hint, wherever it is met.

use super::{Exit, report::size};
use pnb::model::visible_path;
use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

/// Whether an error has a full disk, or a used-up quota, as its cause.
pub(super) fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return true;
            }
            // An error that was wrapped is not among the sources of its wrapper.
            if let Some(inner) = io.get_ref()
                && is_full(inner)
            {
                return true;
            }
        }
        next = error.source();
    }
    false
}

/// The code of a failure that a full disk caused: that of the store. Publishing, audits and signatures keep theirs, which say how far they
/// came.
pub(super) fn exit_of_full(exit: Exit) -> Exit {
    match exit {
        Exit::Failure | Exit::Lock | Exit::Fetch | Exit::Stage => Exit::Store,
        other => other,
    }
}

/// Free bytes of the file system of a path, for an ordinary user, and the nearest directory that is there.
pub(super) fn free_space(path: &Path) -> Option<(u64, PathBuf)> {
    let path = std::path::absolute(path).ok()?;
    let place = path
        .ancestors()
        .find(|place| place.try_exists().unwrap_or(false))?
        .to_owned();
    let found = nix::sys::statvfs::statvfs(&place).ok()?;
    Some((found.blocks_available().saturating_mul(found.fragment_size()), place))
}

/// The hint for a full disk: the free space of the directories that a command writes to, and the ways to more.
pub(super) fn hint(store: Option<&Path>, others: &[&Path]) -> String {
    let places = store.into_iter().chain(others.iter().copied());
    let mut seen = Vec::new();
    let mut free = Vec::new();
    for (bytes, place) in places.filter_map(free_space) {
        if !seen.contains(&place) {
            free.push(format!("{} in {}", size(bytes), visible_path(&place)));
            seen.push(place);
        }
    }
    format!(
        "make space on the disk that is full (free: {}); `pnb store gc` removes what no build of the project needs, --store names another \
         directory",
        free.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("store x")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_full_disk_is_found_below_any_wrapper() {
        let full = || io::Error::from(nix::Error::ENOSPC);
        assert!(is_full(&full()));
        assert!(is_full(&io::Error::from(nix::Error::EDQUOT)));
        assert!(is_full(&Outer(full())));
        assert!(is_full(&io::Error::other(Outer(full()))));
        assert!(is_full(&Outer(io::Error::other(Outer(io::Error::other(full()))))));
        assert!(!is_full(&Outer(io::Error::from(nix::Error::EIO))));
        assert!(
            !is_full(&io::Error::other("No space left on device")),
            "a text is no cause"
        );
    }
}
