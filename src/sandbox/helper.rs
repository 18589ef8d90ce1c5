//! The helper: a fresh process with one thread that starts pid 1 of a stage, maps its ids and waits for its end.

use super::{
    BuildDir,
    cgroup::ControlGroup,
    idmap, init,
    rootfs::{self, Plan},
    spec::NAMESPACES,
    sys::{self, Cloned},
    wire::{self, Fault, HelperRequest, Step, Tag},
};
use nix::{
    fcntl::AtFlags,
    sys::{
        resource::{UsageWho, getrusage},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
        stat::fstatat,
        wait::waitpid,
    },
    unistd::{Gid, Pid, Uid},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

/// A writer of pnb that can run in a sandbox: takes its arguments, writes below `/build`, or says why not.
pub type BuiltinWriter = fn(args: &[u8]) -> Result<(), String>;

/// The writers by name.
pub type BuiltinTable = BTreeMap<&'static str, BuiltinWriter>;

pub(super) const USERNS_FIX: &str = "allow user namespaces, as root: sysctl -w user.max_user_namespaces=65536, and where they exist \
                          kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0; in a \
                          container, run it with user namespaces and mounts allowed; never inside a chroot";

/// Everything pid 1 and the stage take over from the helper by being copies of it.
pub(super) struct Job {
    pub request: HelperRequest,
    pub plan: Plan,
    /// To the executor.
    pub control: UnixStream,
    /// To the executor too, for files that are passed to it.
    pub files: UnixStream,
    /// Standard input, output, error of the stage.
    pub console: Vec<OwnedFd>,
    /// To the helper.
    pub sync: UnixStream,
    /// Identities of the helper's namespaces.
    pub host_namespaces: BTreeMap<String, u64>,
    pub group: ControlGroup,
    /// The host's `/proc/meminfo`.
    pub meminfo: Option<File>,
    pub builtins: BuiltinTable,
}

/// Descriptors that come before the request: the console's three, and the socket for files that are passed.
const HANDED: usize = 4;

/// The built-in that every table has: it does nothing, well.
pub(super) const NOTHING: &str = "nothing";

/// What `pnb __sandbox` does: obeys one request that comes over standard input.
pub fn helper_main(mut builtins: BuiltinTable) -> ExitCode {
    builtins.entry(NOTHING).or_insert(|_| Ok(()));
    let Ok(control) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let mut control = UnixStream::from(control);
    let outcome = serve(&control, builtins);
    let usage = outcome.and_then(|(pid, mut group)| {
        // Every fault of pid 1 is told by itself; here only its end matters.
        let waited = waitpid(Pid::from_raw(pid), None).step("wait for the sandbox");
        let mut usage = group.finish();
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            if let Ok(used) = getrusage(who) {
                let time = |t: nix::sys::time::TimeVal| t.tv_sec() as u64 * 1_000_000_000 + t.tv_usec() as u64 * 1000;
                usage.cpu_nanos += time(used.user_time()) + time(used.system_time());
            }
        }
        waited.map(|_| usage)
    });
    let told = match usage {
        Ok(usage) => wire::send(&mut control, Tag::Usage, &usage),
        Err(fault) => wire::send(&mut control, Tag::Fault, &fault)
            .and_then(|()| wire::send(&mut control, Tag::Usage, &wire::Usage::default())),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(control: &UnixStream, builtins: BuiltinTable) -> Result<(i32, ControlGroup), Fault> {
    sys::die_with_parent().step("bind the helper to its parent")?;
    let mut console = receive_descriptors(control, HANDED).step("receive the console")?;
    let files = console
        .pop()
        .ok_or_else(|| Fault::setup("receive the console", "a descriptor is missing"))?;
    let request: HelperRequest = wire::receive_value(&mut &*control)
        .step("receive the request")?
        .ok_or_else(|| Fault::setup("receive the request", "the caller went away"))?;
    let as_root = Uid::effective().is_root();
    if as_root {
        nix::unistd::setgroups(&[]).step("drop the groups of root")?;
    }
    sys::join_fresh_keyring().step("leave the session keyring")?;
    let spec = &request.spec;
    if let (BuildDir::Disk(path), true) = (&spec.build_dir, as_root) {
        let (uid, gid) = (Uid::from_raw(request.base_id), Gid::from_raw(request.base_id));
        nix::unistd::chown(path, Some(uid), Some(gid)).step(format!("give {} to the stage", path.display()))?;
    }
    let plan = Plan::new(spec)?;
    let group = ControlGroup::create(&spec.limits_in_force())?;
    let (sync, remote) = UnixStream::pair().step("make a socket pair")?;
    let job = Job {
        plan,
        control: control.try_clone().step("copy a descriptor")?,
        files: files.into(),
        console,
        sync: remote,
        host_namespaces: namespaces_at(File::open("/proc").step("open /proc")?),
        group,
        meminfo: File::open("/proc/meminfo").ok(),
        builtins,
        request,
    };
    let all = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let cloned = sys::clone_process(all).map_err(|e| Fault::unavailable("user namespace", e, USERNS_FIX))?;
    let pid = match cloned {
        Cloned::Child => {
            drop(sync);
            init::run(job)
        }
        Cloned::Parent(pid) => pid,
    };
    // Closing `sync` on the way out of a failure ends pid 1.
    let Job {
        request, plan, group, ..
    } = job;
    idmap::map(pid, request.spec.ids, request.base_id)?;
    hand_over(&sync, &plan, as_root.then_some(pid))?;
    Ok((pid, group))
}

/// Identities of this process' namespaces, as a procfs shows them.
pub(super) fn namespaces_at(proc: impl AsFd) -> BTreeMap<String, u64> {
    let flags = AtFlags::empty();
    let identity = |name: &str| {
        fstatat(&proc, format!("self/ns/{name}").as_str(), flags)
            .ok()
            .map(|s| s.st_ino)
    };
    NAMESPACES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), identity(name)?)))
        .collect()
}

/// Lets pid 1 go on. As root, opens the mounts for it, for what root may read the stage's ids may not reach by path, and
/// maps their owners; otherwise pid 1 opens them itself.
fn hand_over(sync: &UnixStream, plan: &Plan, pid: Option<i32>) -> Result<(), Fault> {
    let userns = match pid {
        None => None,
        Some(pid) => Some(OwnedFd::from(
            File::open(format!("/proc/{pid}/ns/user")).step("open the user namespace")?,
        )),
    };
    let mut mounts = Vec::new();
    if userns.is_some() {
        for bind in &plan.binds {
            let step = || format!("open {}", bind.source.display());
            mounts.push(rootfs::clone_source(bind, userns.as_ref()).step(step())?);
        }
    }
    send_descriptors(sync, &mounts).step("hand the mounts to the sandbox")
}

/// The most descriptors one message carries.
const BATCH: usize = 128;

/// Sends descriptors, in batches, after a count.
pub(super) fn send_descriptors(socket: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    wire::send_value(&mut &*socket, &descriptors.len())?;
    for batch in descriptors.chunks(BATCH) {
        let raw: Vec<_> = batch.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &[IoSlice::new(b"d")],
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
    }
    Ok(())
}

/// Receives what [`send_descriptors`] sent: either none or `expected`.
pub(super) fn receive_descriptors(socket: &UnixStream, expected: usize) -> io::Result<Vec<OwnedFd>> {
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let count: usize = wire::receive_value(&mut &*socket)?.ok_or_else(gone)?;
    if count != expected && count != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a wrong number of descriptors",
        ));
    }
    let mut out = Vec::new();
    while out.len() < count {
        let mut byte = [0u8];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; BATCH]);
        let mut into = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut into, Some(&mut space), flags)?;
        if message.bytes == 0 {
            return Err(gone());
        }
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                out.extend(raw.into_iter().map(sys::own_received));
            }
        }
    }
    Ok(out)
}
