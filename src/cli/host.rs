//! This machine as a build record describes it, and its clock.

use pnb::{manifest::Host, model::Arch};
use std::time::{SystemTime, UNIX_EPOCH};

/// The present time, seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the time goes into build-record.json only")]
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Number of processors that this process may use.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The facts about this machine in a build record.
pub(super) fn host() -> Host {
    let (name, kernel) = match nix::sys::utsname::uname() {
        Ok(u) => {
            let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
            (
                text(u.nodename()),
                format!("{} {} {}", text(u.sysname()), text(u.release()), text(u.version())),
            )
        }
        Err(_) => (String::new(), String::new()),
    };
    Host {
        name,
        kernel,
        arch: Arch::host(),
        cpus: u32::try_from(processors()).unwrap_or(u32::MAX),
    }
}
