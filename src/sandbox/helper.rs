//! The helper: a fresh process with one thread that starts pid 1 of a stage, maps its ids and waits for its end.

use super::{
    BuildDir, BuiltinTable, Spec,
    ablation::{SandboxLayer, is_off},
    cgroup::ControlGroup,
    descriptors::{receive_descriptors, send_descriptors},
    devices,
    idmap::{self, Caller, IdRange},
    init,
    job::{Job, NOTHING},
    plan::Plan,
    sys::{self, Cloned},
    wire::{self, Fault, HelperRequest, Step, Tag, Usage},
};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeVal,
        wait::waitpid,
    },
    unistd::{Gid, Pid, Uid},
};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

pub(super) const USERNS_FIX: &str = "allow user namespaces, as root: sysctl -w user.max_user_namespaces=65536, and where they exist \
                          kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0; in a \
                          container, run it with user namespaces and mounts allowed; never inside a chroot";

/// Descriptors sent before the request: the console's three, and the socket for large files.
const HANDED: usize = 4;

/// The command `pnb __sandbox`: carries out one request that is read from standard input.
pub fn helper_main(mut builtins: BuiltinTable) -> ExitCode {
    builtins.entry(NOTHING).or_insert(|_| Ok(()));
    let Ok(control) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let mut control = UnixStream::from(control);
    let usage = start(&control, builtins).and_then(wait);
    let sent = match usage {
        Ok(usage) => wire::send(&mut control, Tag::Usage, &usage),
        Err(fault) => wire::send(&mut control, Tag::Fault, &fault)
            .and_then(|()| wire::send(&mut control, Tag::Usage, &Usage::default())),
    };
    match sent {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Waits for the end of pid 1; returns the resources the whole run used.
fn wait(mut started: Started) -> Result<Usage, Fault> {
    // Pid 1 reports its own faults to the executor, so its exit status is not read here.
    let waited = waitpid(Pid::from_raw(started.pid), None).step("wait for the sandbox");
    let mut usage = started.group.finish();
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        if let Ok(used) = getrusage(who) {
            usage.cpu_nanos += nanos(used.user_time()) + nanos(used.system_time());
        }
    }
    waited.map(|_| usage)
}

fn nanos(time: TimeVal) -> u64 {
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1000
}

/// A sandbox that was started.
struct Started {
    /// Process id of pid 1.
    pid: i32,
    group: ControlGroup,
    /// The range of host ids, which is the run's until this is dropped.
    _claim: Option<IdRange>,
}

/// Receives the request and starts pid 1.
fn start(control: &UnixStream, builtins: BuiltinTable) -> Result<Started, Fault> {
    sys::die_with_parent().step("bind the helper to its parent")?;
    let mut console = receive_descriptors(control, HANDED).step("receive the console")?;
    let files = console
        .pop()
        .ok_or_else(|| Fault::setup("receive the console", "a descriptor is missing"))?;
    let request: HelperRequest = wire::receive_value(&mut &*control)
        .step("receive the request")?
        .ok_or_else(|| Fault::setup("receive the request", "the caller went away"))?;
    let caller = Caller::here();
    let as_root = caller == Caller::Root;
    let mut base = 0;
    let mut claim = None;
    if caller == Caller::InnerRoot {
        // Where the container forbids it, groups stay, as those of an ordinary user do.
        let _ = nix::unistd::setgroups(&[]);
    }
    if as_root {
        nix::unistd::setgroups(&[]).map_err(|e| Fault::unavailable("groups of its own", e, USERNS_FIX))?;
        let claimed = idmap::claim().step("claim a range of host ids for the stage")?;
        base = claimed.base;
        give_build_dir(&request.spec, base)?;
        claim = Some(claimed);
    }
    if !is_off(SandboxLayer::Keyring) {
        sys::join_fresh_keyring().step("leave the session keyring")?;
    }
    // Before the fork: the helper has the caller's permissions, which pid 1 loses with its mapped ids.
    let plan = Plan::new(&request.spec)?;
    let group = match is_off(SandboxLayer::ControlGroup) {
        true => ControlGroup::default(),
        false => ControlGroup::create(&request.spec.limits_in_force())?,
    };
    let (sync, remote) = UnixStream::pair().step("make a socket pair")?;
    let job = Job {
        plan,
        control: control.try_clone().step("copy a descriptor")?,
        files: files.into(),
        console,
        sync: remote,
        host_namespaces: sys::namespaces_at(File::open("/proc").step("open /proc")?),
        group,
        // Root of a container may be forbidden to make device nodes; its stages have the host's, like those of an ordinary user.
        devices: as_root.then(|| devices::own_nodes(request.spec.kvm).ok()).flatten(),
        no_overlay: None,
        meminfo: File::open("/proc/meminfo").ok(),
        builtins,
        request,
    };
    // All namespaces at once: the user namespace is made first, and owns the others (clone(2)).
    let namespaces = [
        (libc::CLONE_NEWPID, SandboxLayer::PidNamespace),
        (libc::CLONE_NEWNET, SandboxLayer::NetworkNamespace),
        (libc::CLONE_NEWIPC, SandboxLayer::IpcNamespace),
        (libc::CLONE_NEWUTS, SandboxLayer::UtsNamespace),
    ];
    let own = namespaces
        .iter()
        .filter(|(_, layer)| !is_off(*layer))
        .map(|(flag, _)| flag);
    let all = own.fold(
        libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP,
        |all, flag| all | flag,
    );
    let cloned = sys::clone_process(all).map_err(|e| Fault::unavailable("user namespace", e, USERNS_FIX))?;
    let pid = match cloned {
        Cloned::Child => {
            drop(sync);
            init::run(job)
        }
        Cloned::Parent(pid) => pid,
    };
    // An error return drops `sync`; pid 1 reads the end of the stream and ends too.
    let Job {
        request, plan, group, ..
    } = job;
    idmap::map(pid, request.spec.ids, base, caller)?;
    hand_over(&sync, &plan, as_root.then_some(pid))?;
    Ok(Started {
        pid,
        group,
        _claim: claim,
    })
}

/// Makes the id that root maps the stage's id 0 to the owner of a build directory on disk.
fn give_build_dir(spec: &Spec, base_id: u32) -> Result<(), Fault> {
    let BuildDir::Disk(path) = &spec.build_dir else {
        return Ok(());
    };
    let (uid, gid) = (Uid::from_raw(base_id), Gid::from_raw(base_id));
    nix::unistd::chown(path, Some(uid), Some(gid)).step(format!("give {} to the stage", path.display()))
}

/// Tells pid 1 to continue, and sends it the mounts.
///
/// As root, the helper opens the mounts and maps their owners through the user namespace of `pid`: root can reach directories that
/// the ids of the stage cannot. As another user the helper sends none, and pid 1 opens them itself.
fn hand_over(sync: &UnixStream, plan: &Plan, pid: Option<i32>) -> Result<(), Fault> {
    let userns = match pid {
        None => None,
        Some(pid) => Some(OwnedFd::from(
            File::open(format!("/proc/{pid}/ns/user")).step("open the user namespace")?,
        )),
    };
    let mounts = match &userns {
        Some(_) => plan.open(userns.as_ref())?,
        None => Vec::new(),
    };
    send_descriptors(sync, &mounts).step("hand the mounts to the sandbox")
}
