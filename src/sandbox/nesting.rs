//! No namespace below those of the run, and no watches: the kernel's own limits, the second wall behind seccomp, which refuses the calls.
//!
//! Each user namespace has a table of how many of a kind it and its descendants may have (`/proc/sys/user`, namespaces(7)). Pid 1
//! sets that of the outer user namespace, while it still sees the host's `/proc`, to the number that the run itself needs. Mount namespaces
//! are not limited, because a detached mount counts as one; a process needs a user namespace or a capability to make one.

use super::ablation::{SandboxLayer, is_off};
use std::fs;

/// What a run has: the namespaces that the outer user namespace owns, and the stage's own user namespace.
const NEEDED: [(&str, u32); 11] = [
    ("max_cgroup_namespaces", 1),
    ("max_fanotify_groups", 0),
    ("max_fanotify_marks", 0),
    ("max_inotify_instances", 0),
    ("max_inotify_watches", 0),
    ("max_ipc_namespaces", 1),
    ("max_net_namespaces", 1),
    ("max_pid_namespaces", 1),
    ("max_time_namespaces", 0),
    ("max_user_namespaces", 1),
    ("max_uts_namespaces", 1),
];

/// Sets the limits of the caller's user namespace, in which it has CAP_SYS_RESOURCE.
pub(super) fn forbid() {
    if is_off(SandboxLayer::NamespaceLimits) {
        return;
    }
    for (name, most) in NEEDED {
        // Containers mount /proc/sys read-only; seccomp then stands alone.
        let _ = fs::write(format!("/proc/sys/user/{name}"), most.to_string());
    }
}
