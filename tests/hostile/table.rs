//! The table of attacks that share a run: what each tries, and where it must get through, so that its refusal says something.

/// Where an attack must get through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    /// In a sandbox of user namespaces alone, all other layers taken off.
    Bare,
    /// Outside of any sandbox, as root: this stops it, which cannot be taken off.
    Outside(&'static str),
    /// As [`Control::Bare`], on a host whose kernel has the family of sockets or the call.
    BareIfOffered,
    /// As [`Control::Outside`], on a host whose kernel has the family of sockets or the call.
    OutsideIfOffered(&'static str),
}

impl Control {
    pub(crate) const fn needs_offer(self) -> bool {
        matches!(self, Self::BareIfOffered | Self::OutsideIfOffered(_))
    }

    /// What stops it and cannot be taken off.
    pub(crate) const fn always_on(self) -> Option<&'static str> {
        match self {
            Self::Bare | Self::BareIfOffered => None,
            Self::Outside(wall) | Self::OutsideIfOffered(wall) => Some(wall),
        }
    }
}

/// One attack.
pub(crate) struct Attack {
    /// Its name, and with `_` for `-` the function in `attacks.c`.
    pub(crate) name: &'static str,
    pub(crate) tries: &'static str,
    pub(crate) control: Control,
}

const fn row(name: &'static str, tries: &'static str, control: Control) -> Attack {
    Attack { name, tries, control }
}

const USER: &str = "user namespaces";

use Control::{Bare, BareIfOffered, Outside, OutsideIfOffered};

/// In the order in which they run. The last one ends the supervisor where it gets through.
pub(crate) const ATTACKS: &[Attack] = &[
    row("tcp", "connect to a port of the host", Bare),
    row("udp", "send a datagram to the host and get the answer", Bare),
    row("dns", "ask a name server of the host", Bare),
    row("abstract-socket", "connect to an abstract socket of the host", Bare),
    row(
        "pathname-socket",
        "connect to a socket in a directory of the host",
        Bare,
    ),
    row("netlink", "list the network interfaces over AF_NETLINK", Bare),
    row("packet", "open an AF_PACKET socket", Outside(USER)),
    row("vsock", "open an AF_VSOCK socket", BareIfOffered),
    row("alg", "open an AF_ALG socket", BareIfOffered),
    row("rxrpc", "open an AF_RXRPC socket", BareIfOffered),
    row("xdp", "open an AF_XDP socket", OutsideIfOffered(USER)),
    row("host-read", "read a file of the host", Bare),
    row(
        "host-write",
        "write to a file of the host that everybody may write to",
        Bare,
    ),
    row("host-stat", "learn size and times of a file of the host", Bare),
    row(
        "store-temp",
        "make a file with a predicted name in the store's directory for temporary files",
        Bare,
    ),
    row("sys-read", "read /sys", Bare),
    row("boot-id", "read the boot id in /proc/sys", Bare),
    row("sysrq", "open /proc/sysrq-trigger for writing", OutsideIfOffered(USER)),
    row("proc-sys-write", "open a file of /proc/sys for writing", Outside(USER)),
    row("host-process", "read the command line of a process of the host", Bare),
    row("mountinfo", "read paths of the host in /proc/self/mountinfo", Bare),
    row("input-write", "write to an input", Bare),
    row("input-mmap", "change an input through a shared mapping", Bare),
    row("input-reopen", "open a descriptor of an input again for writing", Bare),
    row("input-truncate", "truncate an input", Bare),
    row("input-chmod", "change the mode of an input", Bare),
    row("input-times", "change the times of an input", Bare),
    row("input-unlink", "delete an input", Bare),
    row("input-xattr", "set an extended attribute of an input", Bare),
    row(
        "set-id-program",
        "become the owner of a set-user-id input by executing it",
        Bare,
    ),
    row("seen-flock", "see a flock(2) that the host holds on an input", Bare),
    row("seen-lock", "see a POSIX lock that the host holds on an input", Bare),
    row("seen-hint", "read a write hint that the host left in an input", Bare),
    row(
        "take-lease",
        "take a lease on an input that stops programs of the host",
        Bare,
    ),
    row("watch", "watch by inotify what the host does with an input", Bare),
    row("residence", "ask which pages of an input are in the page cache", Bare),
    row(
        "file-id",
        "learn the host's inode number of an input by its handle",
        BareIfOffered,
    ),
    row("extents", "learn where the host's disk keeps an input", BareIfOffered),
    row("trace", "ptrace(2) the supervisor", Outside(USER)),
    row(
        "read-memory",
        "read memory of the supervisor by process_vm_readv(2)",
        Outside(USER),
    ),
    row(
        "take-descriptor",
        "copy a descriptor of the supervisor by pidfd_getfd(2)",
        Outside(USER),
    ),
    row(
        "supervisor-memory-file",
        "open /proc/PID/mem of the supervisor",
        Outside(USER),
    ),
    row(
        "supervisor-program",
        "open /proc/PID/exe of the supervisor",
        Outside(USER),
    ),
    row("supervisor-limit", "set a resource limit of the supervisor", Bare),
    row("supervisor-nice", "set the priority of the supervisor", Bare),
    row(
        "user-nice",
        "set the priority of all processes with the supervisor's id",
        Bare,
    ),
    row("supervisor-policy", "set the scheduling policy of the supervisor", Bare),
    row("supervisor-io", "set the disk priority of the supervisor", Bare),
    row("supervisor-cpus", "set the processors of the supervisor", Bare),
    row("signal-host", "send a signal to a process of the host", Outside(USER)),
    row(
        "leaked-descriptor",
        "forge the status of the run through an inherited descriptor",
        Outside("closed descriptors"),
    ),
    row("more-cpus", "use more processors than declared", Bare),
    row("host-size", "learn how much memory the host has by sysinfo(2)", Bare),
    row("host-name", "learn the name of the host", Bare),
    row("host-key", "read a key in the caller's session keyring", Bare),
    row("host-key-write", "change a key in the caller's session keyring", Bare),
    row("host-memory", "attach System V shared memory of the host", Bare),
    row("ring", "set up an io_uring", BareIfOffered),
    row("fault", "make a userfaultfd", BareIfOffered),
    row(
        "program",
        "load a kernel program or map by bpf(2)",
        OutsideIfOffered(USER),
    ),
    row(
        "events",
        "count events of the host by perf_event_open(2)",
        OutsideIfOffered(USER),
    ),
    row("user-namespace", "unshare(2) a user namespace", Bare),
    row("user-namespace-clone", "clone(2) into a user namespace", Bare),
    row("user-namespace-clone3", "clone3(2) into a user namespace", Bare),
    row("mount-namespace", "unshare(2) a mount namespace", Bare),
    row("network-namespace", "unshare(2) a network namespace", Bare),
    row("time-namespace", "unshare(2) a time namespace", Bare),
    row("mounted", "mount(2) a tmpfs", Bare),
    row("remount", "change the attributes of a mount", Bare),
    row("new-mount", "fsopen(2) a file system", Bare),
    row("cloned-mount", "open_tree(2) a copy of a mount", Bare),
    row("unmounted", "umount2(2) a mount", Bare),
    row("pivoted", "pivot_root(2)", Bare),
    row(
        "entered",
        "setns(2) into the network namespace of the host",
        Outside(USER),
    ),
    row("renamed-host", "set the host name", Outside(USER)),
    row(
        "watched-tree",
        "set up fanotify, which watches whole file systems",
        Bare,
    ),
    row("compared", "compare kernel pointers by kcmp(2)", BareIfOffered),
    row(
        "modules-of-security",
        "list the security modules of the host",
        BareIfOffered,
    ),
    row("other-root", "chroot(2)", Bare),
    row("device", "make a block device node", Outside(USER)),
    row("kexec", "load another kernel", OutsideIfOffered(USER)),
    row("module", "load a kernel module", OutsideIfOffered(USER)),
    row(
        "kernel-log",
        "change the level of the kernel log",
        OutsideIfOffered(USER),
    ),
    row("restart", "restart the machine", Outside(USER)),
    row("swap", "add swap", OutsideIfOffered(USER)),
    row("clock-set", "set the clock", Outside(USER)),
    row("xattr-path", "set an extended attribute by setxattr(2)", BareIfOffered),
    row("xattr-link", "set an extended attribute by lsetxattr(2)", BareIfOffered),
    row(
        "xattr-descriptor",
        "set an extended attribute by fsetxattr(2)",
        BareIfOffered,
    ),
    row("xattr-at", "set an extended attribute by setxattrat(2)", BareIfOffered),
    row("capability", "start with a capability", Bare),
    row(
        "foreign-i386",
        "call through the table of i386 (int 0x80)",
        BareIfOffered,
    ),
    row("foreign-x32", "call through the table of x32", BareIfOffered),
    row("kill-supervisor", "kill the supervisor", Bare),
];
