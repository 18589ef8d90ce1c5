//! System calls that are forbidden to stages, as data: one row per call, with the reason.
//!
//! This is defence in depth behind namespaces, capabilities and Landlock; the collector decides what leaves the sandbox. Rows with the
//! same error number form one program. A guard program before them kills callers of foreign system call tables and refuses calls newer
//! than this list. Source: seccomp(2), the kernel's `scripts/syscall.tbl`.
//!
//! The text of the rows enters `seccomp_rules` of the manifest's policy: a change of any word in them is a change of the manifest.

use super::{Ids, Network, Spec, wire::blake3};
use crate::model::{Blake3Digest, Capability};
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
    /// The lower 32 bits of the argument of the first index have this value, and the argument of the second index is not null.
    IsWith(u8, u64, u8),
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
    why: &'static str,
}

macro_rules! rows {
    ($($name:ident $call:expr, $when:expr, $errno:ident, $why:literal;)*) => {
        &[$(Row { call: $call as libc::c_long, name: stringify!($name), when: $when, errno: errno::$errno, why: $why },)*]
    };
}

mod errno {
    pub(super) use libc::{EAFNOSUPPORT, EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP, EPERM};
    /// The call does nothing and returns 0.
    pub(super) const NOTHING: i32 = 0;
}

use When::{Always, AnyBit, InetMaskIsNot, InetProtocolIsNot, Is, IsNot, IsWith, SingleId, Without};

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and, for unshare, NEWTIME.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const NEW_NAMESPACES_OR_TIME: u64 = NEW_NAMESPACES | 0x80;

/// `SOCK_TYPE_MASK` of the kernel's linux/net.h: the bits of a socket's type that are not flags.
const SOCKET_TYPE: u64 = 0xf;

/// Sockets with [`Network::None`].
const SOCKETS: &[Row] = rows! {
    socket libc::SYS_socket, IsNot(0, &[libc::AF_UNIX as u64]), EAFNOSUPPORT, "only sockets inside the stage: no inet, netlink, packet, vsock, alg, rxrpc";
};

/// Sockets with [`Network::Loopback`].
const LOOPBACK_SOCKETS: &[Row] = rows! {
    socket libc::SYS_socket, IsNot(0, &[libc::AF_UNIX as u64, libc::AF_INET as u64]), EAFNOSUPPORT, "only sockets inside the run, and its own loopback";
    socket libc::SYS_socket, InetMaskIsNot(SOCKET_TYPE, &[libc::SOCK_STREAM as u64, libc::SOCK_DGRAM as u64]), EAFNOSUPPORT, "streams and datagrams only: no raw or packet sockets";
    socket libc::SYS_socket, InetProtocolIsNot(&[0, libc::IPPROTO_TCP as u64, libc::IPPROTO_UDP as u64]), EAFNOSUPPORT, "TCP and UDP only: no SCTP, MPTCP, ICMP or what a kernel loads a module for";
};

const ROWS: &[Row] = rows! {
    socketpair libc::SYS_socketpair, IsNot(0, &[libc::AF_UNIX as u64]), EAFNOSUPPORT, "as socket";
    clone libc::SYS_clone, AnyBit(0, NEW_NAMESPACES), EPERM, "no namespaces of its own";
    clone3 libc::SYS_clone3, Always, ENOSYS, "its flags lie in memory, out of a filter's sight; the C library falls back to clone";
    unshare libc::SYS_unshare, AnyBit(0, NEW_NAMESPACES_OR_TIME), EPERM, "no namespaces of its own";
    setns libc::SYS_setns, Always, EPERM, "no entering of other namespaces";
    chroot libc::SYS_chroot, Without(Capability::SysChroot), EPERM, "only stages that configure a root of their own";
    pivot_root libc::SYS_pivot_root, Always, EPERM, "the root is built from outside";
    mount libc::SYS_mount, Always, EPERM, "mounts are made from outside";
    umount2 libc::SYS_umount2, Always, EPERM, "mounts are made from outside";
    open_tree libc::SYS_open_tree, Always, ENOSYS, "new mount API";
    move_mount libc::SYS_move_mount, Always, ENOSYS, "new mount API";
    fsopen libc::SYS_fsopen, Always, ENOSYS, "new mount API";
    fsconfig libc::SYS_fsconfig, Always, ENOSYS, "new mount API";
    fsmount libc::SYS_fsmount, Always, ENOSYS, "new mount API";
    fspick libc::SYS_fspick, Always, ENOSYS, "new mount API";
    mount_setattr libc::SYS_mount_setattr, Always, ENOSYS, "new mount API";
    statmount 457, Always, ENOSYS, "shows where the host keeps what is mounted";
    listmount 458, Always, ENOSYS, "as statmount";
    ptrace libc::SYS_ptrace, Always, EPERM, "no looking into or steering of other processes";
    process_vm_readv libc::SYS_process_vm_readv, Always, EPERM, "as ptrace";
    process_vm_writev libc::SYS_process_vm_writev, Always, EPERM, "as ptrace";
    process_madvise libc::SYS_process_madvise, Always, EPERM, "as ptrace";
    pidfd_getfd libc::SYS_pidfd_getfd, Always, EPERM, "no taking of other processes' files";
    kcmp libc::SYS_kcmp, Always, EPERM, "tells kernel pointers apart";
    prlimit64 libc::SYS_prlimit64, IsNot(0, &[0]), EPERM, "limits of other processes, those of pid 1 above all";
    prlimit64 libc::SYS_prlimit64, IsWith(1, libc::RLIMIT_CORE as u64, 2), NOTHING, "a limit of 0 would start the host's program for core dumps; there are none";
    setrlimit libc::SYS_setrlimit, Is(0, libc::RLIMIT_CORE as u64), NOTHING, "as prlimit64";
    setpriority libc::SYS_setpriority, Is(1, 1), EPERM, "of pid 1, which has the id of the stage";
    setpriority libc::SYS_setpriority, Is(0, libc::PRIO_USER as u64), EPERM, "of all processes with the id of the stage, pid 1 too";
    ioprio_set libc::SYS_ioprio_set, Is(1, 1), EPERM, "as setpriority";
    ioprio_set libc::SYS_ioprio_set, Is(0, 3), EPERM, "as setpriority of a user";
    sched_setscheduler libc::SYS_sched_setscheduler, Is(0, 1), EPERM, "as setpriority";
    sched_setparam libc::SYS_sched_setparam, Is(0, 1), EPERM, "as setpriority";
    sched_setattr libc::SYS_sched_setattr, Is(0, 1), EPERM, "as setpriority";
    bpf libc::SYS_bpf, Always, EPERM, "kernel programs";
    perf_event_open libc::SYS_perf_event_open, Always, EPERM, "looks at the host; a large attack surface";
    userfaultfd libc::SYS_userfaultfd, Always, EPERM, "stops the kernel where an attacker wants";
    io_uring_setup libc::SYS_io_uring_setup, Always, ENOSYS, "does system calls that no filter sees";
    io_uring_enter libc::SYS_io_uring_enter, Always, ENOSYS, "as io_uring_setup";
    io_uring_register libc::SYS_io_uring_register, Always, ENOSYS, "as io_uring_setup";
    keyctl libc::SYS_keyctl, Always, ENOSYS, "keyrings outlive and cross namespaces";
    add_key libc::SYS_add_key, Always, ENOSYS, "as keyctl";
    request_key libc::SYS_request_key, Always, ENOSYS, "as keyctl; calls programs of the host";
    shmget libc::SYS_shmget, Always, ENOSYS, "memory that belongs to no process and no file system escapes the memory limit";
    msgget libc::SYS_msgget, Always, ENOSYS, "as shmget";
    semget libc::SYS_semget, Always, ENOSYS, "as shmget";
    shmat libc::SYS_shmat, Always, ENOSYS, "as shmget: what has an id is another's";
    shmctl libc::SYS_shmctl, Always, ENOSYS, "as shmat";
    msgsnd libc::SYS_msgsnd, Always, ENOSYS, "as shmat";
    msgrcv libc::SYS_msgrcv, Always, ENOSYS, "as shmat";
    msgctl libc::SYS_msgctl, Always, ENOSYS, "as shmat";
    semop libc::SYS_semop, Always, ENOSYS, "as shmat";
    semtimedop libc::SYS_semtimedop, Always, ENOSYS, "as shmat";
    semctl libc::SYS_semctl, Always, ENOSYS, "as shmat";
    kexec_load libc::SYS_kexec_load, Always, EPERM, "another kernel";
    kexec_file_load libc::SYS_kexec_file_load, Always, EPERM, "another kernel";
    reboot libc::SYS_reboot, Always, EPERM, "the host's";
    init_module libc::SYS_init_module, Always, EPERM, "code in the kernel";
    finit_module libc::SYS_finit_module, Always, EPERM, "code in the kernel";
    delete_module libc::SYS_delete_module, Always, EPERM, "code in the kernel";
    swapon libc::SYS_swapon, Always, EPERM, "the host's";
    swapoff libc::SYS_swapoff, Always, EPERM, "the host's";
    acct libc::SYS_acct, Always, EPERM, "the host's";
    syslog libc::SYS_syslog, Always, EPERM, "the host's kernel log";
    open_by_handle_at libc::SYS_open_by_handle_at, Always, EPERM, "opens files without a path, past every mount";
    quotactl libc::SYS_quotactl, Always, EPERM, "the host's";
    quotactl_fd libc::SYS_quotactl_fd, Always, EPERM, "the host's";
    nfsservctl libc::SYS_nfsservctl, Always, ENOSYS, "the host's";
    fanotify_init libc::SYS_fanotify_init, Always, EPERM, "watches whole file systems";
    settimeofday libc::SYS_settimeofday, Always, EPERM, "the host's clock";
    clock_settime libc::SYS_clock_settime, Always, EPERM, "the host's clock";
    clock_adjtime libc::SYS_clock_adjtime, Always, EPERM, "the host's clock";
    adjtimex libc::SYS_adjtimex, Always, EPERM, "the host's clock";
    sethostname libc::SYS_sethostname, Always, EPERM, "the host name is fixed";
    setdomainname libc::SYS_setdomainname, Always, EPERM, "the domain name is fixed";
    personality libc::SYS_personality, IsNot(0, &[0, 0xffff_ffff]), EPERM, "other system call and memory layouts";
    vhangup libc::SYS_vhangup, Always, EPERM, "the terminal is the caller's";
    ioctl libc::SYS_ioctl, Is(1, 0x5412), EPERM, "TIOCSTI types into the caller's terminal";
    ioctl libc::SYS_ioctl, Is(1, 0x541c), EPERM, "TIOCLINUX pastes into the caller's terminal";
    ioctl libc::SYS_ioctl, Is(1, 0xc020_660b), ENOTTY, "FS_IOC_FIEMAP tells where the host keeps a file";
    ioctl libc::SYS_ioctl, Is(1, 0x8008_7601), ENOTTY, "FS_IOC_GETVERSION: a number of the host's inode";
    ioctl libc::SYS_ioctl, Is(1, 0x8008_6601), ENOTTY, "FS_IOC_GETFLAGS: how the host keeps a file";
    ioctl libc::SYS_ioctl, Is(1, 0x801c_581f), ENOTTY, "FS_IOC_FSGETXATTR: as FS_IOC_GETFLAGS";
    ioctl libc::SYS_ioctl, Is(1, 0x8011_1500), ENOTTY, "FS_IOC_GETFSUUID names a file system of the host";
    ioctl libc::SYS_ioctl, Is(1, 0x8081_1501), ENOTTY, "FS_IOC_GETFSSYSFSPATH: as FS_IOC_GETFSUUID";
    ioctl libc::SYS_ioctl, Is(1, 0x8100_9431), ENOTTY, "FS_IOC_GETFSLABEL: as FS_IOC_GETFSUUID";
    name_to_handle_at libc::SYS_name_to_handle_at, Always, EOPNOTSUPP, "a handle has the numbers of the host's inode";
    fcntl libc::SYS_fcntl, Is(1, 1024), EINVAL, "F_SETLEASE stops everyone who opens the file; /dev may be the host's";
    fcntl libc::SYS_fcntl, Is(1, 1025), EINVAL, "F_GETLEASE: as F_SETLEASE";
    fcntl libc::SYS_fcntl, Is(1, 1026), EINVAL, "F_NOTIFY watches what others do with a directory";
    fcntl libc::SYS_fcntl, Is(1, 1035), EINVAL, "F_GET_RW_HINT reads what F_SET_RW_HINT has left";
    fcntl libc::SYS_fcntl, Is(1, 1036), EINVAL, "F_SET_RW_HINT leaves a value in the inode, which outlives the stage";
    fcntl libc::SYS_fcntl, Is(1, 1037), EINVAL, "F_GET_FILE_RW_HINT: as F_GET_RW_HINT";
    fcntl libc::SYS_fcntl, Is(1, 1038), EINVAL, "F_SET_FILE_RW_HINT: as F_SET_RW_HINT";
    fcntl libc::SYS_fcntl, Is(1, 1031), EPERM, "F_SETPIPE_SZ: pipes hold memory that belongs to no process";
    inotify_init1 libc::SYS_inotify_init1, Always, ENOSYS, "watches what others do with a device, and uses up the instances of an ordinary user";
    mincore libc::SYS_mincore, Always, ENOSYS, "tells which parts of an input others have read";
    cachestat 451, Always, ENOSYS, "as mincore";
    preadv2 libc::SYS_preadv2, AnyBit(5, 0x8), EOPNOTSUPP, "RWF_NOWAIT: as mincore";
    io_setup libc::SYS_io_setup, Always, ENOSYS, "its events are counted for the whole machine";
    lsm_get_self_attr 459, Always, ENOSYS, "the host's security modules";
    lsm_list_modules 461, Always, ENOSYS, "as lsm_get_self_attr";
    sched_setaffinity libc::SYS_sched_setaffinity, Always, EPERM, "the number of processors is declared";
    setxattr libc::SYS_setxattr, Always, EOPNOTSUPP, "no capabilities, ACLs or labels on files; programs go on without";
    lsetxattr libc::SYS_lsetxattr, Always, EOPNOTSUPP, "as setxattr";
    fsetxattr libc::SYS_fsetxattr, Always, EOPNOTSUPP, "as setxattr";
    setxattrat 463, Always, EOPNOTSUPP, "as setxattr";
    removexattrat 466, Always, EOPNOTSUPP, "as setxattr";
    fsync libc::SYS_fsync, Always, NOTHING, "what a run leaves behind when the machine stops is swept: nothing need reach a disk before it ends";
    fdatasync libc::SYS_fdatasync, Always, NOTHING, "as fsync";
    sync_file_range libc::SYS_sync_file_range, Always, NOTHING, "as fsync";
    syncfs libc::SYS_syncfs, Always, NOTHING, "as fsync; it would wait for all that others write, too";
    sync libc::SYS_sync, Always, NOTHING, "as syncfs";
    getgroups libc::SYS_getgroups, SingleId, NOTHING, "an ordinary user's other groups cannot be dropped: they are not shown";
};

/// System calls of x86-64 only.
#[cfg(target_arch = "x86_64")]
const ARCH_ROWS: &[Row] = rows! {
    iopl libc::SYS_iopl, Always, EPERM, "the host's hardware";
    ioperm libc::SYS_ioperm, Always, EPERM, "the host's hardware";
    uselib libc::SYS_uselib, Always, ENOSYS, "obsolete";
    ustat libc::SYS_ustat, Always, ENOSYS, "obsolete";
    sysfs libc::SYS_sysfs, Always, ENOSYS, "obsolete; lists the host's file systems";
    inotify_init libc::SYS_inotify_init, Always, ENOSYS, "as inotify_init1";
    modify_ldt libc::SYS_modify_ldt, Always, EPERM, "a large attack surface for 16-bit code";
};
#[cfg(not(target_arch = "x86_64"))]
const ARCH_ROWS: &[Row] = &[];

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

    /// The conditions under which the call is refused: one of them is enough.
    fn rules(&self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let word = |arg, op, value| SeccompCondition::new(arg, SeccompCmpArgLen::Dword, op, value);
        match self.when {
            Always | Without(_) | SingleId => Ok(Vec::new()),
            Is(arg, value) => Ok(vec![SeccompRule::new(vec![word(arg, SeccompCmpOp::Eq, value)?])?]),
            IsWith(arg, value, pointer) => {
                let given = SeccompCondition::new(pointer, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
                let rule = vec![word(arg, SeccompCmpOp::Eq, value)?, given];
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
            "{} {} {:?} {} {}",
            row.name, row.call, row.when, row.errno, row.why
        );
    }
    blake3(text.as_bytes())
}

/// The programs for a stage, in the order in which they are installed.
pub(super) fn programs(spec: &Spec) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut by_answer: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for row in rows(spec.network).filter(|row| row.applies(spec)) {
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
    const RETURN: u16 = 0x06;
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
pub(super) fn programs_digest(programs: &[BpfProgram]) -> Blake3Digest {
    let mut bytes = Vec::new();
    for op in programs.iter().flatten() {
        bytes.extend(op.code.to_le_bytes());
        bytes.extend([op.jt, op.jf]);
        bytes.extend(op.k.to_le_bytes());
    }
    blake3(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_why_and_no_call_has_two_answers() {
        for network in [Network::None, Network::Loopback] {
            let mut answers = BTreeMap::new();
            let mut count = BTreeMap::<_, u32>::new();
            rows(network).for_each(|row| *count.entry(row.call).or_default() += 1);
            for row in rows(network) {
                assert!(row.why.len() > 4, "{} has no reason", row.name);
                assert!((row.call as u32) < FIRST_UNKNOWN, "{}", row.name);
                // Rows that name different values of the same argument do not apply to the same call.
                let value = match row.when {
                    Is(argument, value) | IsWith(argument, value, _) => Some((argument, value)),
                    Always | Without(_) | SingleId => {
                        assert_eq!(count[&row.call], 1, "{} is refused always and by argument", row.name);
                        None
                    }
                    _ => None,
                };
                let known = *answers.entry((row.call, value)).or_insert(row.errno);
                assert_eq!(known, row.errno, "{}", row.name);
            }
        }
    }
}
