//! System calls that are forbidden to stages, as data: one row per call, with the reason.
//!
//! This is defence in depth behind namespaces, capabilities and Landlock; the collector decides what leaves the sandbox. Rows with the
//! same error number form one program. A guard program before them kills callers of foreign system call tables and refuses calls newer
//! than this list. Source: seccomp(2), the kernel's `scripts/syscall.tbl`.
//!
//! The text of the rows enters `seccomp_rules` of the manifest's policy: a change of any word in them is a change of the manifest.

use super::{Ids, Network, Spec, wire::blake3};
use crate::model::{Blake3Digest, CallGroup, Capability};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use std::{collections::BTreeMap, fmt::Write};

/// When a row applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    Always,
    /// Any of these bits is set in the argument of this index.
    AnyBit(u8, u64),
    /// The lower 32 bits of the argument of this index have this value.
    Is(u8, u64),
    /// The lower 32 bits of the argument of this index have none of these values.
    IsNot(u8, &'static [u64]),
    /// The first argument is AF_INET, and the second one, under this mask, has none of these values.
    InetMaskIsNot(u64, &'static [u64]),
    /// The first argument is AF_INET, and the lower 32 bits of the third one have none of these values.
    InetProtocolIsNot(&'static [u64]),
    /// The lower 32 bits of the argument of this index, under the mask, have one of these values.
    Masked(u8, u64, &'static [u64]),
    /// The lower 32 bits of two arguments have these values, each with its index.
    Both((u8, u64), (u8, u64)),
    /// As `Both`, and the argument of the last index is not null.
    BothWith((u8, u64), (u8, u64), u8),
    /// The lower 32 bits of the argument of this index are an id that no stage has, and not -1, which keeps the id.
    OutOfRange(u8),
    /// The stage does not keep the capability.
    Without(Capability),
    /// The stage has a single id.
    SingleId,
}

/// A forbidden system call.
struct Row {
    call: libc::c_long,
    name: &'static str,
    when: When,
    /// Error number that the call returns; with 0 the call does nothing and seems to succeed.
    errno: libc::c_int,
    report: Report,
    why: &'static str,
}

/// Whether a refusal is reported: a program that goes on without the call may make other outputs than it does on a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Report {
    /// Pid 1 answers the call, and counts the refusal.
    Told(CallGroup),
    /// The kernel answers the call at once, also where a row that is told applies too: of two filters' answers it takes the error
    /// before the notification (seccomp(2)). The reason is why the refusal cannot change an output, or cannot be told from an ordinary
    /// kernel or file system.
    Untold(&'static str),
}

macro_rules! rows {
    ($($name:ident $call:expr, $when:expr, $errno:ident, $report:expr, $why:literal;)*) => {
        &[$(Row {
            call: $call as libc::c_long, name: stringify!($name), when: $when, errno: errno::$errno, report: $report, why: $why,
        },)*]
    };
}

mod errno {
    pub(super) use libc::{EAFNOSUPPORT, EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP, EPERM};
    /// The call does nothing and returns 0.
    pub(super) const NOTHING: i32 = 0;
}

use CallGroup::{
    Chroot, Clock, Device, FileAttribute, FileFlag, HostName, Kernel, Keyring, Namespace, Network as Net, Owner,
    Personality, SystemVIpc, Terminal, Watch,
};
use Report::{Told, Untold};
use When::{
    Always, AnyBit, Both, BothWith, InetMaskIsNot, InetProtocolIsNot, Is, IsNot, Masked, OutOfRange, SingleId, Without,
};

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and, for unshare, NEWTIME.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const NEW_NAMESPACES_OR_TIME: u64 = NEW_NAMESPACES | 0x80;

/// The type of a file in its mode, and the types that are device nodes.
const S_IFMT: u64 = libc::S_IFMT as u64;
const NODES: &[u64] = &[libc::S_IFCHR as u64, libc::S_IFBLK as u64];

/// `SOCK_TYPE_MASK` of the kernel's linux/net.h: the bits of a socket's type that are not flags.
const SOCKET_TYPE: u64 = 0xf;

/// Sockets with [`Network::None`].
const SOCKETS: &[Row] = rows! {
    socket libc::SYS_socket, Both((0, libc::AF_NETLINK as u64), (2, libc::NETLINK_AUDIT as u64)), EAFNOSUPPORT, Untold("login programs write to the kernel's audit log, and go on where it has none"), "as all of netlink";
    socket libc::SYS_socket, Is(0, libc::AF_ALG as u64), EAFNOSUPPORT, Untold("programs compute digests themselves where the kernel does not"), "the kernel's cryptography: a large attack surface";
    socket libc::SYS_socket, IsNot(0, &[libc::AF_UNIX as u64]), EAFNOSUPPORT, Told(Net), "only sockets inside the stage: no inet, netlink, packet, vsock, alg, rxrpc";
};

/// Sockets with [`Network::Loopback`].
const LOOPBACK_SOCKETS: &[Row] = rows! {
    socket libc::SYS_socket, IsNot(0, &[libc::AF_UNIX as u64, libc::AF_INET as u64]), EAFNOSUPPORT, Told(Net), "only sockets inside the run, and its own loopback";
    socket libc::SYS_socket, InetMaskIsNot(SOCKET_TYPE, &[libc::SOCK_STREAM as u64, libc::SOCK_DGRAM as u64]), EAFNOSUPPORT, Told(Net), "streams and datagrams only: no raw or packet sockets";
    socket libc::SYS_socket, InetProtocolIsNot(&[0, libc::IPPROTO_TCP as u64, libc::IPPROTO_UDP as u64]), EAFNOSUPPORT, Told(Net), "TCP and UDP only: no SCTP, MPTCP, ICMP or what a kernel loads a module for";
};

const ROWS: &[Row] = rows! {
    socketpair libc::SYS_socketpair, IsNot(0, &[libc::AF_UNIX as u64]), EAFNOSUPPORT, Told(Net), "as socket";
    clone libc::SYS_clone, AnyBit(0, NEW_NAMESPACES), EPERM, Told(Namespace), "no namespaces of its own";
    clone3 libc::SYS_clone3, Always, ENOSYS, Untold("the C library calls clone instead, at each start of a process or thread"), "its flags lie in memory, out of a filter's sight; the C library falls back to clone";
    unshare libc::SYS_unshare, AnyBit(0, NEW_NAMESPACES_OR_TIME), EPERM, Told(Namespace), "no namespaces of its own";
    setns libc::SYS_setns, Always, EPERM, Told(Namespace), "no entering of other namespaces";
    chroot libc::SYS_chroot, Without(Capability::SysChroot), EPERM, Told(Chroot), "only stages that configure a root of their own";
    pivot_root libc::SYS_pivot_root, Always, EPERM, Told(CallGroup::Mount), "the root is built from outside";
    mount libc::SYS_mount, Always, EPERM, Told(CallGroup::Mount), "mounts are made from outside";
    umount2 libc::SYS_umount2, Always, EPERM, Told(CallGroup::Mount), "mounts are made from outside";
    open_tree libc::SYS_open_tree, Always, ENOSYS, Told(CallGroup::Mount), "new mount API";
    move_mount libc::SYS_move_mount, Always, ENOSYS, Told(CallGroup::Mount), "new mount API";
    fsopen libc::SYS_fsopen, Always, ENOSYS, Told(CallGroup::Mount), "new mount API";
    fsconfig libc::SYS_fsconfig, Always, ENOSYS, Told(CallGroup::Mount), "new mount API";
    fsmount libc::SYS_fsmount, Always, ENOSYS, Told(CallGroup::Mount), "new mount API";
    fspick libc::SYS_fspick, Always, ENOSYS, Told(CallGroup::Mount), "new mount API";
    mount_setattr libc::SYS_mount_setattr, Always, ENOSYS, Told(CallGroup::Mount), "new mount API";
    statmount 457, Always, ENOSYS, Untold("it only asks, and the answer describes the host"), "shows where the host keeps what is mounted";
    listmount 458, Always, ENOSYS, Untold("it only asks, and the answer describes the host"), "as statmount";
    ptrace libc::SYS_ptrace, Always, EPERM, Told(CallGroup::Process), "no looking into or steering of other processes";
    process_vm_readv libc::SYS_process_vm_readv, Always, EPERM, Told(CallGroup::Process), "as ptrace";
    process_vm_writev libc::SYS_process_vm_writev, Always, EPERM, Told(CallGroup::Process), "as ptrace";
    process_madvise libc::SYS_process_madvise, Always, EPERM, Told(CallGroup::Process), "as ptrace";
    pidfd_getfd libc::SYS_pidfd_getfd, Always, EPERM, Told(CallGroup::Process), "no taking of other processes' files";
    kcmp libc::SYS_kcmp, Always, EPERM, Told(CallGroup::Process), "tells kernel pointers apart";
    prlimit64 libc::SYS_prlimit64, IsNot(0, &[0]), EPERM, Told(CallGroup::Process), "limits of other processes, those of pid 1 above all";
    prlimit64 libc::SYS_prlimit64, BothWith((0, 0), (1, libc::RLIMIT_CORE as u64), 2), NOTHING, Untold("no output shows it"), "a limit of 0 would start the host's program for core dumps; there are none";
    setrlimit libc::SYS_setrlimit, Is(0, libc::RLIMIT_CORE as u64), NOTHING, Untold("no output shows it"), "as prlimit64";
    setpriority libc::SYS_setpriority, Is(1, 1), EPERM, Told(CallGroup::Process), "of pid 1, which has the id of the stage";
    setpriority libc::SYS_setpriority, Is(0, libc::PRIO_USER as u64), EPERM, Told(CallGroup::Process), "of all processes with the id of the stage, pid 1 too";
    ioprio_set libc::SYS_ioprio_set, Is(1, 1), EPERM, Told(CallGroup::Process), "as setpriority";
    ioprio_set libc::SYS_ioprio_set, Is(0, 3), EPERM, Told(CallGroup::Process), "as setpriority of a user";
    sched_setscheduler libc::SYS_sched_setscheduler, Is(0, 1), EPERM, Told(CallGroup::Process), "as setpriority";
    sched_setparam libc::SYS_sched_setparam, Is(0, 1), EPERM, Told(CallGroup::Process), "as setpriority";
    sched_setattr libc::SYS_sched_setattr, Is(0, 1), EPERM, Told(CallGroup::Process), "as setpriority";
    bpf libc::SYS_bpf, Always, EPERM, Told(Kernel), "kernel programs";
    perf_event_open libc::SYS_perf_event_open, Always, EPERM, Told(Kernel), "looks at the host; a large attack surface";
    userfaultfd libc::SYS_userfaultfd, Always, EPERM, Told(Kernel), "stops the kernel where an attacker wants";
    io_uring_setup libc::SYS_io_uring_setup, Always, ENOSYS, Untold("programs do the same by ordinary calls where the kernel lacks it"), "does system calls that no filter sees";
    io_uring_enter libc::SYS_io_uring_enter, Always, ENOSYS, Untold("programs do the same by ordinary calls where the kernel lacks it"), "as io_uring_setup";
    io_uring_register libc::SYS_io_uring_register, Always, ENOSYS, Untold("programs do the same by ordinary calls where the kernel lacks it"), "as io_uring_setup";
    keyctl libc::SYS_keyctl, Always, ENOSYS, Told(Keyring), "keyrings outlive and cross namespaces";
    add_key libc::SYS_add_key, Always, ENOSYS, Told(Keyring), "as keyctl";
    request_key libc::SYS_request_key, Always, ENOSYS, Told(Keyring), "as keyctl; calls programs of the host";
    shmget libc::SYS_shmget, Always, ENOSYS, Told(SystemVIpc), "memory that belongs to no process and no file system escapes the memory limit";
    msgget libc::SYS_msgget, Always, ENOSYS, Told(SystemVIpc), "as shmget";
    semget libc::SYS_semget, Always, ENOSYS, Told(SystemVIpc), "as shmget";
    shmat libc::SYS_shmat, Always, ENOSYS, Told(SystemVIpc), "as shmget: what has an id is another's";
    shmctl libc::SYS_shmctl, Always, ENOSYS, Told(SystemVIpc), "as shmat";
    msgsnd libc::SYS_msgsnd, Always, ENOSYS, Told(SystemVIpc), "as shmat";
    msgrcv libc::SYS_msgrcv, Always, ENOSYS, Told(SystemVIpc), "as shmat";
    msgctl libc::SYS_msgctl, Always, ENOSYS, Told(SystemVIpc), "as shmat";
    semop libc::SYS_semop, Always, ENOSYS, Told(SystemVIpc), "as shmat";
    semtimedop libc::SYS_semtimedop, Always, ENOSYS, Told(SystemVIpc), "as shmat";
    semctl libc::SYS_semctl, Always, ENOSYS, Told(SystemVIpc), "as shmat";
    kexec_load libc::SYS_kexec_load, Always, EPERM, Told(Kernel), "another kernel";
    kexec_file_load libc::SYS_kexec_file_load, Always, EPERM, Told(Kernel), "another kernel";
    reboot libc::SYS_reboot, Always, EPERM, Told(Kernel), "the host's";
    init_module libc::SYS_init_module, Always, EPERM, Told(Kernel), "code in the kernel";
    finit_module libc::SYS_finit_module, Always, EPERM, Told(Kernel), "code in the kernel";
    delete_module libc::SYS_delete_module, Always, EPERM, Told(Kernel), "code in the kernel";
    swapon libc::SYS_swapon, Always, EPERM, Told(Kernel), "the host's";
    swapoff libc::SYS_swapoff, Always, EPERM, Told(Kernel), "the host's";
    acct libc::SYS_acct, Always, EPERM, Told(Kernel), "the host's";
    syslog libc::SYS_syslog, Always, EPERM, Told(Kernel), "the host's kernel log";
    open_by_handle_at libc::SYS_open_by_handle_at, Always, EPERM, Told(Watch), "opens files without a path, past every mount";
    quotactl libc::SYS_quotactl, Always, EPERM, Told(Kernel), "the host's";
    quotactl_fd libc::SYS_quotactl_fd, Always, EPERM, Told(Kernel), "the host's";
    nfsservctl libc::SYS_nfsservctl, Always, ENOSYS, Told(Kernel), "the host's";
    fanotify_init libc::SYS_fanotify_init, Always, EPERM, Told(Watch), "watches whole file systems";
    settimeofday libc::SYS_settimeofday, Always, EPERM, Told(Clock), "the host's clock";
    clock_settime libc::SYS_clock_settime, Always, EPERM, Told(Clock), "the host's clock";
    clock_adjtime libc::SYS_clock_adjtime, Always, EPERM, Told(Clock), "the host's clock";
    adjtimex libc::SYS_adjtimex, Always, EPERM, Told(Clock), "the host's clock";
    sethostname libc::SYS_sethostname, Always, EPERM, Told(HostName), "the host name is fixed";
    setdomainname libc::SYS_setdomainname, Always, EPERM, Told(HostName), "the domain name is fixed";
    personality libc::SYS_personality, IsNot(0, &[0, 0xffff_ffff]), EPERM, Told(Personality), "other system call and memory layouts";
    vhangup libc::SYS_vhangup, Always, EPERM, Told(Terminal), "the terminal is the caller's";
    ioctl libc::SYS_ioctl, Is(1, 0x5412), EPERM, Told(Terminal), "TIOCSTI types into the caller's terminal";
    ioctl libc::SYS_ioctl, Is(1, 0x541c), EPERM, Told(Terminal), "TIOCLINUX pastes into the caller's terminal";
    ioctl libc::SYS_ioctl, Is(1, 0xc020_660b), ENOTTY, Untold("it only asks, and the answer describes the host"), "FS_IOC_FIEMAP tells where the host keeps a file";
    ioctl libc::SYS_ioctl, Is(1, 0x8008_7601), ENOTTY, Untold("it only asks, and the answer describes the host"), "FS_IOC_GETVERSION: a number of the host's inode";
    ioctl libc::SYS_ioctl, Is(1, 0x8008_6601), ENOTTY, Told(FileFlag), "FS_IOC_GETFLAGS: how the host keeps a file";
    ioctl libc::SYS_ioctl, Is(1, 0x801c_581f), ENOTTY, Told(FileFlag), "FS_IOC_FSGETXATTR: as FS_IOC_GETFLAGS";
    ioctl libc::SYS_ioctl, Is(1, 0x8011_1500), ENOTTY, Untold("it only asks, and the answer describes the host"), "FS_IOC_GETFSUUID names a file system of the host";
    ioctl libc::SYS_ioctl, Is(1, 0x8081_1501), ENOTTY, Untold("it only asks, and the answer describes the host"), "FS_IOC_GETFSSYSFSPATH: as FS_IOC_GETFSUUID";
    ioctl libc::SYS_ioctl, Is(1, 0x8100_9431), ENOTTY, Untold("it only asks, and the answer describes the host"), "FS_IOC_GETFSLABEL: as FS_IOC_GETFSUUID";
    name_to_handle_at libc::SYS_name_to_handle_at, Always, EOPNOTSUPP, Untold("it only asks, and the answer describes the host"), "a handle has the numbers of the host's inode";
    fcntl libc::SYS_fcntl, Is(1, 1024), EINVAL, Told(Watch), "F_SETLEASE stops everyone who opens the file; /dev may be the host's";
    fcntl libc::SYS_fcntl, Is(1, 1025), EINVAL, Untold("it only asks, and the answer describes the host"), "F_GETLEASE: as F_SETLEASE";
    fcntl libc::SYS_fcntl, Is(1, 1026), EINVAL, Told(Watch), "F_NOTIFY watches what others do with a directory";
    fcntl libc::SYS_fcntl, Is(1, 1035), EINVAL, Untold("it only asks, and the answer describes the host"), "F_GET_RW_HINT reads what F_SET_RW_HINT has left";
    fcntl libc::SYS_fcntl, Is(1, 1036), EINVAL, Untold("a hint for a disk, which no output shows"), "F_SET_RW_HINT leaves a value in the inode, which outlives the stage";
    fcntl libc::SYS_fcntl, Is(1, 1037), EINVAL, Untold("it only asks, and the answer describes the host"), "F_GET_FILE_RW_HINT: as F_GET_RW_HINT";
    fcntl libc::SYS_fcntl, Is(1, 1038), EINVAL, Untold("a hint for a disk, which no output shows"), "F_SET_FILE_RW_HINT: as F_SET_RW_HINT";
    fcntl libc::SYS_fcntl, Is(1, 1031), EPERM, Untold("the size of a buffer"), "F_SETPIPE_SZ: pipes hold memory that belongs to no process";
    inotify_init1 libc::SYS_inotify_init1, Always, ENOSYS, Told(Watch), "watches what others do with a device, and uses up the instances of an ordinary user";
    mincore libc::SYS_mincore, Always, ENOSYS, Untold("it only asks, and the answer describes the host"), "tells which parts of an input others have read";
    cachestat 451, Always, ENOSYS, Untold("it only asks, and the answer describes the host"), "as mincore";
    preadv2 libc::SYS_preadv2, AnyBit(5, 0x8), EOPNOTSUPP, Untold("it only asks, and the answer describes the host"), "RWF_NOWAIT: as mincore";
    io_setup libc::SYS_io_setup, Always, ENOSYS, Untold("programs do the same by ordinary calls where the kernel lacks it"), "its events are counted for the whole machine";
    lsm_get_self_attr 459, Always, ENOSYS, Untold("it only asks, and the answer describes the host"), "the host's security modules";
    lsm_list_modules 461, Always, ENOSYS, Untold("it only asks, and the answer describes the host"), "as lsm_get_self_attr";
    sched_setaffinity libc::SYS_sched_setaffinity, Always, EPERM, Untold("it chooses the processors that do the work, not its result"), "the number of processors is declared";
    setxattr libc::SYS_setxattr, Always, EOPNOTSUPP, Told(FileAttribute), "no capabilities, ACLs or labels on files; programs go on without";
    lsetxattr libc::SYS_lsetxattr, Always, EOPNOTSUPP, Told(FileAttribute), "as setxattr";
    fsetxattr libc::SYS_fsetxattr, Always, EOPNOTSUPP, Told(FileAttribute), "as setxattr";
    setxattrat 463, Always, EOPNOTSUPP, Told(FileAttribute), "as setxattr";
    removexattrat 466, Always, EOPNOTSUPP, Told(FileAttribute), "as setxattr";
    ioctl libc::SYS_ioctl, Is(1, 0x4008_6602), ENOTTY, Told(FileFlag), "FS_IOC_SETFLAGS: no output keeps flags";
    ioctl libc::SYS_ioctl, Is(1, 0x401c_5820), ENOTTY, Told(FileFlag), "FS_IOC_FSSETXATTR: as FS_IOC_SETFLAGS";
    mknodat libc::SYS_mknodat, Masked(2, S_IFMT, NODES), EPERM, Told(Device), "no device nodes in outputs; in a user namespace the kernel makes none but whiteouts";
    renameat2 libc::SYS_renameat2, AnyBit(4, libc::RENAME_WHITEOUT as u64), EPERM, Told(Device), "RENAME_WHITEOUT leaves a device node";
    fchownat libc::SYS_fchownat, OutOfRange(2), EINVAL, Told(Owner), "there is no such user in the stage; the kernel says so too, after it has found the file";
    fchownat libc::SYS_fchownat, OutOfRange(3), EINVAL, Told(Owner), "there is no such group in the stage";
    fchown libc::SYS_fchown, OutOfRange(1), EINVAL, Told(Owner), "as fchownat";
    fchown libc::SYS_fchown, OutOfRange(2), EINVAL, Told(Owner), "as fchownat";
    fsync libc::SYS_fsync, Always, NOTHING, Untold("no output shows it"), "what a run leaves behind when the machine stops is swept: nothing need reach a disk before it ends";
    fdatasync libc::SYS_fdatasync, Always, NOTHING, Untold("no output shows it"), "as fsync";
    sync_file_range libc::SYS_sync_file_range, Always, NOTHING, Untold("no output shows it"), "as fsync";
    syncfs libc::SYS_syncfs, Always, NOTHING, Untold("no output shows it"), "as fsync; it would wait for all that others write, too";
    sync libc::SYS_sync, Always, NOTHING, Untold("no output shows it"), "as syncfs";
    getgroups libc::SYS_getgroups, SingleId, NOTHING, Untold("there is one group"), "an ordinary user's other groups cannot be dropped: they are not shown";
};

/// System calls of x86-64 only.
#[cfg(target_arch = "x86_64")]
const ARCH_ROWS: &[Row] = rows! {
    mknod libc::SYS_mknod, Masked(1, S_IFMT, NODES), EPERM, Told(Device), "as mknodat";
    chown libc::SYS_chown, OutOfRange(1), EINVAL, Told(Owner), "as fchownat";
    chown libc::SYS_chown, OutOfRange(2), EINVAL, Told(Owner), "as fchownat";
    lchown libc::SYS_lchown, OutOfRange(1), EINVAL, Told(Owner), "as fchownat";
    lchown libc::SYS_lchown, OutOfRange(2), EINVAL, Told(Owner), "as fchownat";
    iopl libc::SYS_iopl, Always, EPERM, Told(Kernel), "the host's hardware";
    ioperm libc::SYS_ioperm, Always, EPERM, Told(Kernel), "the host's hardware";
    uselib libc::SYS_uselib, Always, ENOSYS, Told(Kernel), "obsolete";
    ustat libc::SYS_ustat, Always, ENOSYS, Untold("it only asks, and the answer describes the host"), "obsolete";
    sysfs libc::SYS_sysfs, Always, ENOSYS, Untold("it only asks, and the answer describes the host"), "obsolete; lists the host's file systems";
    inotify_init libc::SYS_inotify_init, Always, ENOSYS, Told(Watch), "as inotify_init1";
    modify_ldt libc::SYS_modify_ldt, Always, EPERM, Told(Kernel), "a large attack surface for 16-bit code";
};
#[cfg(not(target_arch = "x86_64"))]
const ARCH_ROWS: &[Row] = &[];

/// Number of ids of a stage with a range of them, and the id that stands for none.
const IDS: u64 = 65_536;
const NO_ID: u64 = u32::MAX as u64;

/// Number of the first system call newer than the list above (open_tree_attr of Linux 6.15).
const FIRST_UNKNOWN: u32 = 467;

fn rows(network: Network) -> impl Iterator<Item = &'static Row> {
    let sockets = match network {
        Network::None => SOCKETS,
        Network::Loopback => LOOPBACK_SOCKETS,
    };
    sockets.iter().chain(ROWS).chain(ARCH_ROWS)
}

impl Row {
    fn applies(&self, spec: &Spec) -> bool {
        match self.when {
            Without(capability) => !spec.capabilities.contains(&capability),
            SingleId => spec.ids == Ids::Single,
            _ => true,
        }
    }

    /// Whether a call with these arguments is refused: what the filter made of [`Self::rules`] decides too.
    fn matches(&self, args: &[u64; 6]) -> bool {
        let arg = |n: u8| args.get(usize::from(n)).copied().unwrap_or(0);
        let word = |n: u8| arg(n) & u64::from(u32::MAX);
        let inet = word(0) == libc::AF_INET as u64;
        match self.when {
            Always | Without(_) | SingleId => true,
            Is(n, value) => word(n) == value,
            Masked(n, mask, values) => values.contains(&(word(n) & mask)),
            Both((first, value), (second, other)) => word(first) == value && word(second) == other,
            BothWith((first, value), (second, other), pointer) => {
                word(first) == value && word(second) == other && arg(pointer) != 0
            }
            OutOfRange(n) => word(n) >= IDS && word(n) != NO_ID,
            IsNot(n, values) => !values.contains(&word(n)),
            InetMaskIsNot(mask, values) => inet && !values.contains(&(word(1) & mask)),
            InetProtocolIsNot(values) => inet && !values.contains(&word(2)),
            AnyBit(n, mask) => word(n) & mask != 0,
        }
    }

    /// The conditions under which the call is refused: one of them is enough.
    fn rules(&self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let word = |arg, op, value| SeccompCondition::new(arg, SeccompCmpArgLen::Dword, op, value);
        match self.when {
            Always | Without(_) | SingleId => Ok(Vec::new()),
            Is(arg, value) => Ok(vec![SeccompRule::new(vec![word(arg, SeccompCmpOp::Eq, value)?])?]),
            Masked(arg, mask, values) => values
                .iter()
                .map(|value| SeccompRule::new(vec![word(arg, SeccompCmpOp::MaskedEq(mask), *value)?]))
                .collect(),
            Both((first, value), (second, other)) => {
                let rule = vec![
                    word(first, SeccompCmpOp::Eq, value)?,
                    word(second, SeccompCmpOp::Eq, other)?,
                ];
                Ok(vec![SeccompRule::new(rule)?])
            }
            BothWith((first, value), (second, other), pointer) => {
                let rule = vec![
                    word(first, SeccompCmpOp::Eq, value)?,
                    word(second, SeccompCmpOp::Eq, other)?,
                    SeccompCondition::new(pointer, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?,
                ];
                Ok(vec![SeccompRule::new(rule)?])
            }
            OutOfRange(arg) => {
                let rule = vec![word(arg, SeccompCmpOp::Ge, IDS)?, word(arg, SeccompCmpOp::Ne, NO_ID)?];
                Ok(vec![SeccompRule::new(rule)?])
            }
            IsNot(arg, values) => {
                let all: Result<_, _> = values.iter().map(|v| word(arg, SeccompCmpOp::Ne, *v)).collect();
                Ok(vec![SeccompRule::new(all?)?])
            }
            InetMaskIsNot(mask, values) => (0..=mask)
                .filter(|value| value & !mask == 0 && !values.contains(value))
                .map(|value| {
                    let inet = word(0, SeccompCmpOp::Eq, libc::AF_INET as u64)?;
                    SeccompRule::new(vec![inet, word(1, SeccompCmpOp::MaskedEq(mask), value)?])
                })
                .collect(),
            InetProtocolIsNot(values) => {
                let mut all = vec![word(0, SeccompCmpOp::Eq, libc::AF_INET as u64)?];
                for value in values {
                    all.push(word(2, SeccompCmpOp::Ne, *value)?);
                }
                Ok(vec![SeccompRule::new(all)?])
            }
            AnyBit(arg, mask) => (0..32)
                .map(|n| 1u64 << n)
                .filter(|bit| mask & bit != 0)
                .map(|bit| SeccompRule::new(vec![word(arg, SeccompCmpOp::MaskedEq(bit), bit)?]))
                .collect(),
        }
    }
}

/// BLAKE3 of the rules in force as text: the same on every host of an architecture.
pub(super) fn rules_digest(spec: &Spec) -> Blake3Digest {
    let mut text = format!("unknown from {FIRST_UNKNOWN}\n");
    for row in rows(spec.network).filter(|row| row.applies(spec)) {
        let _ = writeln!(
            text,
            "{} {} {:?} {} {:?} {}",
            row.name, row.call, row.when, row.errno, row.report, row.why
        );
    }
    blake3(text.as_bytes())
}

/// A call that pid 1 refuses.
pub(super) struct Refused {
    /// Its name.
    pub call: &'static str,
    /// Its group.
    pub group: CallGroup,
    /// The error number that it returns.
    pub errno: libc::c_int,
}

/// The refusal of a call with these arguments, as its row says; `None` for a call that pid 1 does not refuse.
pub(super) fn refused(spec: &Spec, call: libc::c_long, args: &[u64; 6]) -> Option<Refused> {
    rows(spec.network)
        .filter(|row| row.call == call && row.applies(spec) && row.matches(args))
        .find_map(|row| match row.report {
            Told(group) => Some(Refused {
                call: row.name,
                group,
                errno: row.errno,
            }),
            Untold(_) => None,
        })
}

/// The program that sends pid 1 the calls `answered`, and those whose refusal is reported. It allows all others.
pub(super) fn notifying(spec: &Spec, answered: &[libc::c_long]) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for row in rows(spec.network).filter(|row| row.applies(spec) && matches!(row.report, Told(_))) {
        rules.entry(row.call).or_default().extend(row.rules()?);
    }
    rules.extend(answered.iter().map(|call| (*call, Vec::new())));
    // seccompiler has no name for the action: it compiles a mark instead.
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(NOTIFY_MARK), arch)?;
    let mut program: BpfProgram = filter.try_into()?;
    for op in &mut program {
        if (op.code, op.k) == (RETURN, TRACE | NOTIFY_MARK) {
            op.k = USER_NOTIF;
        }
    }
    Ok(program)
}

/// Instruction of BPF: return the constant.
const RETURN: u16 = 0x06;
/// `SECCOMP_RET_TRACE` and `SECCOMP_RET_USER_NOTIF` of linux/seccomp.h.
const TRACE: u32 = 0x7ff0_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
/// The data of the mark, which no other action has.
const NOTIFY_MARK: u32 = 0x0b0b;

/// The programs for a stage, in the order in which they are installed.
pub(super) fn programs(spec: &Spec) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut by_answer: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for row in rows(spec.network).filter(|row| row.applies(spec) && matches!(row.report, Untold(_))) {
        let calls = by_answer.entry(row.errno).or_default();
        calls.entry(row.call).or_default().extend(row.rules()?);
    }
    let mut programs = vec![guard()];
    for (errno, rules) in by_answer {
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?;
        programs.push(filter.try_into()?);
    }
    Ok(programs)
}

/// Kills foreign system call tables (i386, x32), answers calls newer than the list with `ENOSYS`.
fn guard() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
    const OFFSET_CALL: u32 = 0;
    const OFFSET_ARCH: u32 = 4;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    /// `AUDIT_ARCH_*` of linux/audit.h.
    const ARCH: u32 = if cfg!(target_arch = "aarch64") {
        0xc000_00b7
    } else {
        0xc000_003e
    };
    /// `__X32_SYSCALL_BIT`.
    const X32: u32 = 0x4000_0000;
    let op = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    vec![
        op(LOAD_WORD, OFFSET_ARCH),
        jump(JUMP_EQUAL, ARCH, 1, 0),
        op(RETURN, KILL_PROCESS),
        op(LOAD_WORD, OFFSET_CALL),
        jump(JUMP_GREATER_OR_EQUAL, X32, 2, 0),
        jump(JUMP_GREATER_OR_EQUAL, FIRST_UNKNOWN, 2, 0),
        op(RETURN, ALLOW),
        op(RETURN, KILL_PROCESS),
        op(RETURN, ERRNO | libc::ENOSYS as u32),
    ]
}

/// BLAKE3 of the programs.
pub(super) fn programs_digest<'a>(programs: impl Iterator<Item = &'a BpfProgram>) -> Blake3Digest {
    let mut bytes = Vec::new();
    for op in programs.flatten() {
        bytes.extend(op.code.to_le_bytes());
        bytes.extend([op.jt, op.jf]);
        bytes.extend(op.k.to_le_bytes());
    }
    blake3(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{RootFs, Workload};

    fn spec(network: Network, ids: Ids) -> Spec {
        Spec {
            network,
            ids,
            ..Spec::new("s", RootFs::Empty, Workload::command(vec!["/a".to_owned()]))
        }
    }

    fn specs() -> Vec<Spec> {
        [Network::None, Network::Loopback]
            .into_iter()
            .flat_map(|network| [Ids::Single, Ids::Range].map(|ids| spec(network, ids)))
            .collect()
    }

    #[test]
    fn every_row_says_why_and_no_call_has_two_answers() {
        for network in [Network::None, Network::Loopback] {
            let mut answers = BTreeMap::new();
            let mut count = BTreeMap::<_, u32>::new();
            rows(network).for_each(|row| *count.entry(row.call).or_default() += 1);
            for row in rows(network) {
                assert!(row.why.len() > 4, "{} has no reason", row.name);
                assert!((row.call as u32) < FIRST_UNKNOWN, "{}", row.name);
                match row.report {
                    Untold(reason) => assert!(reason.len() > 10, "{}: no reason to say nothing", row.name),
                    Told(_) => assert_ne!(row.errno, 0, "{} is no refusal", row.name),
                }
                // Rows that name different values of the same argument do not apply to the same call.
                let value = match row.when {
                    Is(argument, value) | BothWith(_, (argument, value), _) => Some((argument, value)),
                    Always | Without(_) | SingleId => {
                        assert_eq!(count[&row.call], 1, "{} is refused always and by argument", row.name);
                        None
                    }
                    _ => None,
                };
                let known = *answers.entry((row.call, value)).or_insert(row.errno);
                assert_eq!(known, row.errno, "{}", row.name);
                for args in tries(&row.when).iter().filter(|args| row.matches(args)) {
                    let other = rows(network).find(|r| r.call == row.call && r.matches(args) && r.errno != row.errno);
                    assert!(other.is_none(), "{} {args:x?} has two answers", row.name);
                }
            }
        }
    }

    /// The action of a filter program for a call: the instructions that seccompiler emits, and no others.
    fn action(program: &BpfProgram, call: i64, args: &[u64; 6]) -> u32 {
        let arch = if cfg!(target_arch = "aarch64") {
            0xc000_00b7u32
        } else {
            0xc000_003e
        };
        let mut data = Vec::new();
        data.extend((call as u32).to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
        let word = |at: u32| {
            let bytes = data[at as usize..].first_chunk::<4>().expect("a word");
            u32::from_le_bytes(*bytes)
        };
        let (mut at, mut value) = (0usize, 0u32);
        loop {
            let op = &program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { op.jt } else { op.jf });
            match op.code {
                0x20 => value = word(op.k),
                0x54 => value &= op.k,
                0x05 => at += op.k as usize,
                0x15 => at += jump(value == op.k),
                0x25 => at += jump(value > op.k),
                0x35 => at += jump(value >= op.k),
                RETURN => return op.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    /// Arguments that a condition decides on, on both sides of it.
    fn tries(when: &When) -> Vec<[u64; 6]> {
        let values: &[u64] = &[
            0,
            1,
            2,
            3,
            4,
            8,
            9,
            16,
            38,
            0x5412,
            1024,
            1031,
            1036,
            65_535,
            65_536,
            70_000,
            0xffff_ffff,
            0x1_0000_0000,
            0o20_644,
            0o60_644,
            0o100_644,
            0o40_755,
            0o10_644,
            0x4008_6602,
            0x1000_0000,
            0x80,
            0x1000_0011,
        ];
        let mut all: Vec<[u64; 6]> = values.iter().map(|value| [*value; 6]).collect();
        let mut with = |changes: &[(u8, u64)]| {
            for rest in [0, 1, u64::from(u32::MAX)] {
                let mut args = [rest; 6];
                changes.iter().for_each(|(at, value)| args[usize::from(*at)] = *value);
                all.push(args);
            }
        };
        match *when {
            Is(at, value) => {
                with(&[(at, value)]);
                with(&[(at, value | 1 << 32)]);
            }
            Both(first, second) | BothWith(first, second, _) => {
                with(&[first, second]);
                with(&[second]);
            }
            Masked(at, mask, kinds) => kinds.iter().for_each(|kind| with(&[(at, kind | (0o777 & !mask))])),
            AnyBit(at, mask) => (0..32).for_each(|bit| with(&[(at, mask & (1 << bit))])),
            IsNot(at, kinds) => kinds.iter().for_each(|kind| with(&[(at, *kind)])),
            _ => {}
        }
        for (family, kind, protocol) in [
            (2, 1, 0),
            (2, 1, 6),
            (2, 2, 17),
            (2, 3, 1),
            (2, 1, 132),
            (16, 3, 9),
            (16, 3, 0),
            (1, 1, 0),
        ] {
            with(&[(0, family), (1, kind), (2, protocol)]);
        }
        all
    }

    #[test]
    fn the_filters_and_pid_1_decide_alike() {
        let mut seen = [0u32; 3];
        for spec in specs() {
            let programs = programs(&spec).expect("compiles");
            let notifying = notifying(&spec, &[libc::SYS_sysinfo]).expect("compiles");
            assert_eq!(action(&notifying, libc::SYS_sysinfo, &[0; 6]), USER_NOTIF);
            assert_eq!(action(&notifying, libc::SYS_read, &[0; 6]), 0x7fff_0000);
            for row in rows(spec.network).filter(|row| row.applies(&spec)) {
                for args in tries(&row.when) {
                    let told = refused(&spec, row.call, &args);
                    let notified = action(&notifying, row.call, &args) == USER_NOTIF;
                    assert_eq!(notified, told.is_some(), "{} {args:x?}", row.name);
                    let untold = |row: &&Row| matches!(row.report, Untold(_));
                    let same =
                        rows(spec.network).filter(|r| r.call == row.call && r.applies(&spec) && r.matches(&args));
                    let silent = same.filter(untold).map(|row| 0x0005_0000 | row.errno as u32).next();
                    let errnos: Vec<u32> = programs
                        .iter()
                        .map(|p| action(p, row.call, &args))
                        .filter(|a| a >> 16 == 5)
                        .collect();
                    assert_eq!(errnos.first().copied(), silent, "{} {args:x?}", row.name);
                    seen[usize::from(notified) + usize::from(silent.is_some() && !notified) * 2] += 1;
                }
            }
        }
        assert!(seen.iter().all(|n| *n > 500), "each answer was tried: {seen:?}");
    }

    #[test]
    fn each_group_has_a_call() {
        for group in CallGroup::ALL {
            assert!(rows(Network::None).any(|row| row.report == Told(*group)), "{group}");
        }
    }
}
