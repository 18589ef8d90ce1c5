//! System calls that neither the standard library nor `nix` wraps, each as a safe function.
//!
//! Sources: the kernel's `include/uapi/linux/{mount,keyctl,landlock,securebits,sched,if}.h` and the manual pages named below.

#![expect(
    unsafe_code,
    reason = "the new mount API, clone with namespaces and a few process attributes have no safe wrapper"
)]

use super::ablation;
use nix::{errno::Errno, fcntl::AtFlags, sys::stat::fstatat};
use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    io,
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::OnceLock,
};

/// Attributes of a mount, `MOUNT_ATTR_*`.
pub(super) mod attr {
    /// The mount is read-only.
    pub(in super::super) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    /// Set-id bits have no effect.
    pub(in super::super) const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    /// Device nodes cannot be opened.
    pub(in super::super) const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    /// Programs cannot be executed.
    pub(in super::super) const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
}

/// The namespaces of which every stage has its own.
pub(super) const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Inode numbers of this process' namespaces, as the procfs `proc` shows them: equal numbers are the same namespace
/// (namespaces(7)).
pub(super) fn namespaces_at(proc: impl AsFd) -> BTreeMap<String, u64> {
    let inode = |name: &str| {
        let path = format!("self/ns/{name}");
        fstatat(&proc, path.as_str(), AtFlags::empty()).ok().map(|s| s.st_ino)
    };
    NAMESPACES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), inode(name)?)))
        .collect()
}

/// Interfaces are asked for through a socket; its address does not matter.
const ANY: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 0);

/// The process in which [`clone_process`] returned.
pub(super) enum Cloned {
    /// The new process.
    Child,
    /// The caller; holds the new process' id in the caller's pid namespace.
    Parent(i32),
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(Errno::last().into())
    } else {
        Ok(result)
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(check(result)?).map_err(|_| io::Error::from(Errno::EBADF))?;
    // SAFETY: the kernel has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `fork` into new namespaces (`CLONE_NEW*` of clone(2)); no flag makes a plain fork.
///
/// Only for a process with one thread: the child continues with a copy of its memory.
pub(super) fn clone_process(namespaces: libc::c_int) -> io::Result<Cloned> {
    // The argument is 64 bits wide; every CLONE_NEW* flag lies in the lower 32.
    let flags = u64::from(namespaces as u32) | libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM and with a null stack this is fork: parent and child have separate copies of memory. The
    // caller has one thread, so no lock is held by a thread that the child lacks.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    match check(result)? {
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent(pid as i32)),
    }
}

/// A path as system calls take it.
pub(super) fn path_text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a detached copy of the mount at `path`, without the mounts below it. Below a directory, the last
/// part of `path` is not followed if it is a symbolic link.
pub(super) fn clone_mount(dir: Option<BorrowedFd<'_>>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_NO_AUTOMOUNT as u32;
    let flags = match (path.is_empty(), dir) {
        (true, _) => flags | libc::AT_EMPTY_PATH as u32,
        (false, Some(_)) => flags | libc::AT_SYMLINK_NOFOLLOW as u32,
        (false, None) => flags,
    };
    let dir = dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
    // SAFETY: `path` is a terminated string that lives over the call; the other arguments are numbers.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

/// move_mount(2): attaches the detached `mount` on the file or directory `target` refers to.
pub(super) fn attach_mount(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let (mount, target) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    // SAFETY: both descriptors are borrowed over the call; the paths are terminated constants.
    check(unsafe { libc::syscall(libc::SYS_move_mount, mount, c"".as_ptr(), target, c"".as_ptr(), flags) })?;
    Ok(())
}

/// fsopen(2), fsconfig(2), fsmount(2): a detached mount of a new file system `kind`.
pub(super) fn new_filesystem(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: `kind` is a terminated string.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    let fd = context.as_raw_fd();
    for (key, value) in options {
        let (key, value) = (key.as_ptr(), value.as_ptr());
        // SAFETY: key and value are terminated strings, as FSCONFIG_SET_STRING wants.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, libc::FSCONFIG_SET_STRING, key, value, 0) })?;
    }
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: FSCONFIG_CMD_CREATE takes null for key and value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, libc::FSCONFIG_CMD_CREATE, none, none, 0) })?;
    let attributes = ablation::attributes(attributes);
    // SAFETY: only numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, libc::FSMOUNT_CLOEXEC, attributes) })
}

/// mount_setattr(2): switches attributes of one mount on; with `userns` also maps its owners through that namespace.
pub(super) fn set_mount_attributes(mount: impl AsFd, set: u64, userns: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: ablation::attributes(set) | userns.map_or(0, |_| libc::MOUNT_ATTR_IDMAP),
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let size = size_of::<libc::mount_attr>();
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: `attributes` lives over the call and `size` is its size; the path is a terminated constant.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attributes,
            size,
        )
    })?;
    Ok(())
}

/// keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING` without a name: a fresh, empty session keyring.
///
/// `ENOSYS`, a kernel without keyrings, is a success: there is nothing to inherit.
pub(super) fn join_fresh_keyring() -> io::Result<()> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, none) }) {
        Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

/// landlock_create_ruleset(2) with `LANDLOCK_CREATE_RULESET_VERSION`: the kernel's ABI number.
pub(super) fn landlock_abi() -> io::Result<i64> {
    const VERSION: u32 = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: a null attribute of size 0 is what the version query takes.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, VERSION) })
}

/// prctl(2) `PR_SET_SECUREBITS`: user id 0 gives no capabilities, for good (securebits.h).
pub(super) fn lock_no_root() -> io::Result<()> {
    const NOROOT: libc::c_ulong = 1;
    const NOROOT_LOCKED: libc::c_ulong = 1 << 1;
    const NO_AMBIENT: libc::c_ulong = (1 << 6) | (1 << 7);
    // SAFETY: only numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NOROOT | NOROOT_LOCKED | NO_AMBIENT, 0, 0, 0) };
    check(result.into()).map(drop)
}

/// close_range(2) of every descriptor but 0, 1, 2 and `kept`; returns the descriptors that are still open.
///
/// Only for a process that ends by execve or [`end_process`]: the owners of the closed descriptors must never be dropped.
pub(super) fn keep_only(kept: impl AsFd) -> io::Result<Vec<u32>> {
    let kept = kept.as_fd().as_raw_fd() as u32;
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: closes by number; the caller never uses or drops an owner of these again.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) })?;
        }
    }
    // SAFETY: F_GETFD only asks.
    let open = |fd: &u32| unsafe { libc::fcntl(*fd as i32, libc::F_GETFD) } >= 0;
    Ok((3..256).filter(|fd| *fd != kept).filter(open).collect())
}

/// flistxattr(2): the NUL-separated names of a file's extended attributes.
pub(super) fn list_xattrs(file: impl AsFd) -> io::Result<Vec<u8>> {
    let fd = file.as_fd().as_raw_fd();
    let mut names = vec![0u8; 4096];
    // SAFETY: the buffer is writable for the length given.
    let result = unsafe { libc::flistxattr(fd, names.as_mut_ptr().cast(), names.len()) };
    match check(result as libc::c_long) {
        Ok(length) => names.truncate(length as usize),
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => names.clear(),
        Err(error) => return Err(error),
    }
    Ok(names)
}

/// `F_SETLEASE`/`F_RDLCK` of fcntl(2), taken and released: fails with `EAGAIN` while a descriptor that can write to `file` is open.
pub(super) fn check_no_writer(file: impl AsFd) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: only numbers.
    check(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) }.into())?;
    // SAFETY: only numbers.
    check(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) }.into()).map(drop)
}

/// _exit(2).
pub(super) fn end_process(code: i32) -> ! {
    // SAFETY: ends this process at once, without destructors and without flushing, as a forked child must.
    unsafe { libc::_exit(code) }
}

/// prctl(2) `PR_SET_PDEATHSIG`: the kernel kills the caller when its parent thread ends.
pub(super) fn die_with_parent() -> io::Result<()> {
    // SAFETY: only numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) };
    check(result.into()).map(drop)
}

/// signal(2): sets every signal to its default action.
pub(super) fn set_default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler; reserved signal numbers fail and keep their action.
        let _ = unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// setdomainname(2) of this UTS namespace.
pub(super) fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer is readable for the length given.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// An ifreq with the name `lo`, for the ioctls of netdevice(7) about an interface's flags.
fn loopback_request(flags: libc::c_short) -> libc::ifreq {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
    }
}

/// The flags (`IFF_*`) of this network namespace's loopback.
fn loopback_flags(socket: &UdpSocket) -> io::Result<libc::c_short> {
    let mut request = loopback_request(0);
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of the ifreq, which lives over the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) }.into())?;
    // SAFETY: the kernel has just written this member, and every bit pattern is a number.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

/// Whether the loopback of this network namespace is up. Needs an AF_INET socket for the time of the call.
pub(super) fn loopback_is_up() -> io::Result<bool> {
    let flags = loopback_flags(&UdpSocket::bind(ANY)?)?;
    Ok(i32::from(flags) & libc::IFF_UP != 0)
}

/// Brings the loopback of this network namespace up, which gives it 127.0.0.1/8. Needs CAP_NET_ADMIN in the user namespace
/// that owns the network namespace.
pub(super) fn bring_loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind(ANY)?;
    let request = loopback_request(loopback_flags(&socket)? | libc::IFF_UP as libc::c_short);
    // SAFETY: SIOCSIFFLAGS only reads the ifreq, which lives over the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// `KVM_GET_API_VERSION` and `KVM_CREATE_VM` of linux/kvm.h.
const KVM_GET_API_VERSION: libc::c_ulong = 0xae00;
const KVM_CREATE_VM: libc::c_ulong = 0xae01;

/// The version of the interface of `/dev/kvm` that `device` is.
pub(super) fn kvm_version(device: impl AsFd) -> io::Result<i64> {
    // SAFETY: the call takes no pointer; its argument must be 0.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), KVM_GET_API_VERSION, 0) }.into())
}

/// Makes a virtual machine of the default type and removes it again.
pub(super) fn try_kvm_machine(device: impl AsFd) -> io::Result<()> {
    // SAFETY: the call takes no pointer; its argument is the type of the machine.
    let made = check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), KVM_CREATE_VM, 0) }.into())?;
    let made = RawFd::try_from(made).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, so nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(made) });
    Ok(())
}

/// Takes ownership of a descriptor that was just received over a socket.
pub(super) fn own_received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for the message that was just received, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `ADDR_NO_RANDOMIZE` of linux/personality.h.
pub(super) const ADDR_NO_RANDOMIZE: u64 = 0x004_0000;

/// personality(2): adds `bits` to this process' persona.
pub(super) fn add_personality(bits: u64) -> io::Result<()> {
    const ASK: u64 = 0xffff_ffff;
    // SAFETY: only numbers.
    let now = check(unsafe { libc::syscall(libc::SYS_personality, ASK) })?;
    // SAFETY: only numbers.
    check(unsafe { libc::syscall(libc::SYS_personality, now as u64 | bits) }).map(drop)
}

/// seccomp(2) with `SECCOMP_FILTER_FLAG_NEW_LISTENER`: installs a filter and returns its notification descriptor. A thread that
/// waits for an answer can be interrupted by SIGKILL only.
pub(super) fn seccomp_listener(program: &[seccompiler::sock_filter]) -> io::Result<OwnedFd> {
    const SET_MODE_FILTER: libc::c_long = 1;
    const NEW_LISTENER: libc::c_long = 1 << 3;
    const WAIT_KILLABLE: libc::c_long = 1 << 5;
    #[repr(C)]
    struct Program {
        len: libc::c_ushort,
        filter: *const seccompiler::sock_filter,
    }
    let program = Program {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr(),
    };
    let flags = NEW_LISTENER | WAIT_KILLABLE;
    // SAFETY: `Program` is struct sock_fprog; `len` is the number of instructions at `filter`, which live over the call.
    owned(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) })
}

/// A seccomp notification: a system call that waits for its result.
pub(super) struct Notification {
    /// Identifies the notification in the answer.
    pub id: u64,
    /// The calling thread.
    pub thread: i32,
    /// Number of the call.
    pub call: libc::c_long,
    /// Arguments of the call.
    pub args: [u64; 6],
}

/// `SECCOMP_IOCTL_NOTIF_RECV`, `_SEND` and `_ID_VALID` of linux/seccomp.h.
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
const NOTIF_ID_VALID: libc::c_ulong = 0x4008_2102;

/// Receives the next notification; `None` when the calling thread is gone.
pub(super) fn receive_notification(listener: impl AsFd) -> io::Result<Option<Notification>> {
    // The kernel's structure has 32-bit fields; this is the first one in a 64-bit word.
    let half = |word: u64| {
        word.to_ne_bytes()
            .first_chunk::<4>()
            .map_or(0, |b| i32::from_ne_bytes(*b))
    };
    // struct seccomp_notif: id, pid and flags, then seccomp_data: number and architecture, instruction pointer, arguments.
    let mut asked = [0u64; 10];
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel writes 80 bytes, the size encoded in the request's number, and demands that they are zero before.
    match check(unsafe { libc::ioctl(fd, NOTIF_RECV, asked.as_mut_ptr()) }.into()) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
        Err(e) => Err(e),
        Ok(_) => Ok(Some(Notification {
            id: asked[0],
            thread: half(asked[1]),
            call: half(asked[2]).into(),
            args: std::array::from_fn(|i| asked[4 + i]),
        })),
    }
}

/// Whether the calling thread still waits.
pub(super) fn notification_is_valid(listener: impl AsFd, id: u64) -> bool {
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel reads 8 bytes, which live over the call.
    unsafe { libc::ioctl(fd, NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Answers a notification: the waiting system call returns `result`.
pub(super) fn answer_notification(listener: impl AsFd, id: u64, result: io::Result<usize>) -> io::Result<()> {
    let (value, error) = match result {
        Ok(value) => (value as u64, 0i32),
        Err(e) => (0, -e.raw_os_error().unwrap_or(libc::EIO)),
    };
    // struct seccomp_notif_resp: id, value, error and flags.
    let mut words = [id, value, 0];
    let mut last = [0u8; 8];
    last[..4].copy_from_slice(&error.to_ne_bytes());
    words[2] = u64::from_ne_bytes(last);
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel reads 24 bytes, the size encoded in the request's number.
    match check(unsafe { libc::ioctl(fd, NOTIF_SEND, words.as_ptr()) }.into()) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}

/// A copy of another thread's descriptor: pidfd_open(2) and pidfd_getfd(2).
pub(super) fn descriptor_of(thread: i32, fd: i32) -> io::Result<OwnedFd> {
    /// `PIDFD_THREAD` of linux/pidfd.h, since Linux 6.9.
    const THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;
    let open = |flags: libc::c_uint| {
        // SAFETY: only numbers.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_open, thread, flags) })
    };
    // Older kernels have pidfds for processes only, not for threads.
    let process = open(THREAD).or_else(|_| open(0))?;
    // SAFETY: only numbers; the descriptor is borrowed over the call.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0u32) })
}

/// getdents64(2).
pub(super) fn list_entries(directory: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: the buffer is writable for the length given.
    let n = check(unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(n as usize)
}

/// uname(2): the bytes of `struct utsname`.
pub(super) fn names_of_the_system() -> io::Result<Vec<u8>> {
    let mut names = vec![0u8; size_of::<libc::utsname>()];
    // SAFETY: the buffer is as large as the structure, which has no alignment of its own.
    check(unsafe { libc::syscall(libc::SYS_uname, names.as_mut_ptr()) })?;
    Ok(names)
}

/// process_vm_writev(2): writes all of `bytes` into another process.
pub(super) fn write_memory(thread: i32, bytes: &[u8], address: u64) -> io::Result<()> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: `local` is only read and lives over the call; `remote` is an address in another process, which the kernel checks.
    let n = unsafe { libc::process_vm_writev(thread, &raw const local, 1, &raw const remote, 1, 0) };
    match check(n as libc::c_long)? {
        n if n as usize == bytes.len() => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

/// process_vm_readv(2): at most `most` bytes from `address` of another process on; fewer where its memory ends.
pub(super) fn read_memory(thread: i32, address: u64, most: usize) -> Vec<u8> {
    /// The smallest page of all architectures: what begins in one is readable to its end.
    const PAGE: u64 = 4096;
    let mut bytes = vec![0u8; most];
    let mut got = 0;
    while got < most {
        let from = address.wrapping_add(got as u64);
        let piece = (most - got).min((PAGE - from % PAGE) as usize);
        let local = libc::iovec {
            iov_base: bytes[got..got + piece].as_mut_ptr().cast(),
            iov_len: piece,
        };
        let remote = libc::iovec {
            iov_base: from as *mut libc::c_void,
            iov_len: piece,
        };
        // SAFETY: `local` is `piece` bytes of `bytes`, writable over the call; `remote` is an address in another process, which the kernel
        // checks.
        let n = unsafe { libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) };
        match usize::try_from(n) {
            Ok(n) if n > 0 => got += n,
            _ => break,
        }
    }
    bytes.truncate(got);
    bytes
}

/// A static program with glibc must not open the libraries that `/etc/nsswitch.conf` names: those are for the glibc of the host. What is
/// linked in remains: hosts from `/etc/hosts` and DNS, users from `/etc/passwd`. A dynamic program is left as it is.
pub fn use_linked_name_services() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    for (database, services) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")] {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
        }
        // SAFETY: both are strings of C that live as long as the program, and no other thread runs yet.
        let result = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        debug_assert_eq!(result, 0, "glibc knows these names");
    }
}

/// The file descriptor and the text of [`announce_interrupt`].
static INTERRUPT: OnceLock<(RawFd, &'static [u8])> = OnceLock::new();

/// Prints the text of [`announce_interrupt`], then ends the program as the signal does by itself. The kernel has removed this function as
/// the signal's handler before it calls it (`SA_RESETHAND`).
extern "C" fn interrupted(signal: libc::c_int) {
    if let Some((fd, text)) = INTERRUPT.get() {
        // SAFETY: write(2) and raise(3) may be called in a handler (signal-safety(7)); the text is static.
        unsafe { libc::write(*fd, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: as above.
    unsafe { libc::raise(signal) };
}

/// Prints `text` on the file descriptor `fd` when Ctrl-C ends the program. Programs that it starts are not affected, because execve(2)
/// removes handlers; neither is a program for which SIGINT is ignored. Only the first call has an effect.
pub fn announce_interrupt(fd: RawFd, text: &'static [u8]) {
    if INTERRUPT.set((fd, text)).is_err() {
        return;
    }
    // SAFETY: sigaction(2) reads and writes the two structures, which are valid for it, as all-zero ones are; `interrupted` calls only
    // functions that a handler may call.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGINT, std::ptr::null(), &mut before) != 0 || before.sa_sigaction == libc::SIG_IGN {
            return;
        }
        let mut handler: libc::sigaction = std::mem::zeroed();
        handler.sa_sigaction = interrupted as *const () as libc::sighandler_t;
        handler.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER | libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &handler, std::ptr::null_mut());
    }
}

/// Where [`ending`] writes the number of a signal.
static ENDS: OnceLock<OwnedFd> = OnceLock::new();

/// Passes the number of a signal on.
extern "C" fn ending(signal: libc::c_int) {
    let Some(pipe) = ENDS.get() else { return };
    let number = signal.to_ne_bytes();
    let before = Errno::last_raw();
    // SAFETY: write(2) may be called in a handler (signal-safety(7)); the buffer lives until it returns.
    unsafe { libc::write(pipe.as_raw_fd(), number.as_ptr().cast(), number.len()) };
    Errno::set_raw(before);
}

/// Has SIGHUP, SIGINT and SIGTERM no longer end the program, and returns a pipe from which they are read, each as its number in the bytes
/// of a C int. Those that are ignored stay so, and only the first call has an effect: a further one returns a pipe from which nothing comes.
///
/// # Errors
///
/// If there are no file descriptors left.
pub fn watch_ends() -> io::Result<io::PipeReader> {
    let (reader, writer) = io::pipe()?;
    if ENDS.set(writer.into()).is_err() {
        return Ok(reader);
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: as for [`announce_interrupt`]; `ending` calls only functions that a handler may call.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &mut before) != 0 || before.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            let mut handler: libc::sigaction = std::mem::zeroed();
            handler.sa_sigaction = ending as *const () as libc::sighandler_t;
            handler.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &handler, std::ptr::null_mut());
        }
    }
    Ok(reader)
}

/// Ends the program as `signal` does by itself.
pub fn end_by(signal: i32) -> ! {
    // SAFETY: neither call has a condition; the signal has no handler after the first one.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    // A signal that does not end programs, or one that is blocked.
    std::process::exit(128_i32.saturating_add(signal))
}
