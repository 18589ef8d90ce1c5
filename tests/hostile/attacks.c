/* The payloads of tests/hostile: each function is one attack and returns 1 when it got through.
 *
 *     attacks quick [NAME]...   one process for each; prints "NAME: GOT" or "NAME: no: REASON"
 *     attacks bomb KIND         takes far more than its limit, holds it, and ends with 0 unless it is ended
 *     attacks answerer          odd calls to the supervisor that answers or refuses them
 *     attacks terminal          puts words into the terminal that is its standard input
 *     attacks deep              a chain of 5,000 directories
 *
 * Facts about the host come in the environment (HOST_*); INSIDE is set in the sandbox. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static pid_t supervisor; /* the parent of the program: pid 1 in the sandbox */

static const char *fact(const char *name) {
    const char *value = getenv(name);
    return value ? value : "0";
}

/* A path of the host: below /host in a sandbox without a root of its own. */
static const char *of_host(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s%s/%s", getenv("INSIDE") ? "/host" : "", fact("HOST_DIR"), name);
    return path;
}

static const char *input(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", fact("HOST_INPUT"), name);
    return path;
}

/* Whether a call succeeded. */
static int done(long result) { return result >= 0; }
/* Whether a privileged call got past the check of its caller: any other error is about its arguments. */
static int passed(long result) { return result >= 0 || (errno != EPERM && errno != ENOSYS && errno != EACCES && errno != EOPNOTSUPP); }

/* Network. */

static struct sockaddr_in at_host(const char *name) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(fact(name)))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}
static int tcp(void) {
    struct sockaddr_in a = at_host("HOST_TCP");
    int s = socket(AF_INET, SOCK_STREAM, 0);
    return s >= 0 && !connect(s, (void *)&a, sizeof a);
}
static int ask(const char *what, size_t length) {
    struct sockaddr_in a = at_host("HOST_UDP");
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    char answer[512];
    if (s < 0 || sendto(s, what, length, 0, (void *)&a, sizeof a) < 0) return 0;
    struct pollfd p = {s, POLLIN, 0};
    return poll(&p, 1, 1000) == 1 && recv(s, answer, sizeof answer, 0) > 0;
}
static int udp(void) { return ask("x", 1); }
static int dns(void) {
    static const char query[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07""example\x03""com\x00\x00\x01\x00\x01";
    return ask(query, sizeof query - 1);
}
static int local(const char *name, int abstract) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path + abstract, name, sizeof a.sun_path - 2);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name) + !abstract;
    return s >= 0 && !connect(s, (void *)&a, length);
}
static int abstract_socket(void) { return local(fact("HOST_ABSTRACT"), 1); }
static int pathname_socket(void) { return local(of_host("socket"), 0); }
static int netlink(void) {
    /* The addresses of the network namespace: a loopback that is down has none. */
    struct { unsigned length; unsigned short type, flags; unsigned seq, pid; unsigned char family[4]; } ask =
        {20, 22, 0x301, 1, 0, {0}};
    char buffer[65536];
    int s = socket(AF_NETLINK, SOCK_RAW, 0), found = 0;
    if (s < 0 || send(s, &ask, sizeof ask, 0) < 0) return 0;
    ssize_t n = recv(s, buffer, sizeof buffer, 0);
    for (ssize_t at = 0; at + 16 <= n;) {
        unsigned length;
        unsigned short type;
        memcpy(&length, buffer + at, 4), memcpy(&type, buffer + at + 4, 2);
        found += type == 20;
        if (length < 16) break;
        at += (length + 3) & ~3u;
    }
    errno = ENODATA;
    return found > 0;
}
static int packet(void) { return done(socket(AF_PACKET, SOCK_RAW, 0)); }
static int vsock(void) { return done(socket(40, SOCK_STREAM, 0)); }
static int alg(void) { return done(socket(38, SOCK_SEQPACKET, 0)); }
static int rxrpc(void) { return done(socket(33, SOCK_DGRAM, AF_INET)); }
static int xdp(void) { return done(socket(44, SOCK_RAW, 0)); }

/* Files of the host, and inputs. */

static int host_read(void) { return done(open(of_host("secret"), O_RDONLY)); }
static int host_write(void) { return done(open(of_host("open"), O_WRONLY | O_APPEND)); }
static int host_stat(void) { struct stat s; return !stat(of_host("secret"), &s); }
static int store_temp(void) { return done(open(of_host("store/tmp/predicted"), O_WRONLY | O_CREAT, 0600)); }
static int sys_read(void) { return done(open(getenv("INSIDE") ? "/host/sys/kernel/notes" : "/sys/kernel/notes", O_RDONLY)); }
static int boot_id(void) { return done(open("/proc/sys/kernel/random/boot_id", O_RDONLY)); }
static int sysrq(void) { return done(open("/proc/sysrq-trigger", O_WRONLY)); }
static int proc_sys_write(void) { return done(open("/proc/sys/kernel/panic", O_WRONLY)); }
static int host_process(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/cmdline", fact("HOST_PID"));
    return done(open(path, O_RDONLY));
}
static int mountinfo(void) { return done(open("/proc/self/mountinfo", O_RDONLY)); }
static int input_write(void) { int f = open(input("f"), O_WRONLY); return f >= 0 && write(f, "x", 1) == 1; }
static int input_truncate(void) { return !truncate(input("f"), 1); }
static int input_chmod(void) { return !chmod(input("f"), 0777); }
static int input_times(void) { return !utimensat(AT_FDCWD, input("f"), NULL, 0); }
static int input_unlink(void) { return !unlink(input("g")); }
static int input_xattr(void) { return !setxattr(input("f"), "user.x", "x", 1, 0); }
static int input_mmap(void) {
    int f = open(input("f"), O_RDWR);
    char *m = f < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
    if (m == MAP_FAILED) return 0;
    *m = 'y';
    return !msync(m, 4096, MS_SYNC);
}
static int input_reopen(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", open(input("f"), O_RDONLY));
    return done(open(path, O_RDWR));
}
static int set_id_program(void) {
    /* A program of another user with the set-user-id bit: "attacks whoami" ends with the effective id. */
    pid_t child = fork();
    if (!child) execl(input("set-id"), "set-id", "whoami", (char *)NULL), _exit(99);
    int status;
    waitpid(child, &status, 0);
    errno = ENOEXEC;
    return WIFEXITED(status) && WEXITSTATUS(status) == 7;
}

/* What an inode keeps beside its content. The host holds locks on these inputs. */

static int seen_flock(void) { return flock(open(input("locked"), O_RDONLY), LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK; }
static int seen_lock(void) {
    struct flock l = {.l_type = F_WRLCK, .l_start = 7, .l_len = 1};
    return !fcntl(open(input("locked"), O_RDONLY), F_GETLK, &l) && l.l_type != F_UNLCK;
}
static int seen_hint(void) { uint64_t h = 0; return !fcntl(open(input("locked"), O_RDONLY), 1035, &h) && h == 4; }
/* The host opens "watched" twenty times a second. */
static int take_lease(void) {
    struct timespec second = {1, 0};
    sigset_t break_of_lease;
    sigemptyset(&break_of_lease);
    sigaddset(&break_of_lease, SIGIO);
    sigprocmask(SIG_BLOCK, &break_of_lease, NULL);
    int f = open(input("watched"), O_RDONLY), refused = -1;
    /* Fails while the host has the file open. */
    for (int i = 0; i < 50 && (refused = fcntl(f, F_SETLEASE, F_WRLCK)) && errno == EAGAIN; i++) usleep(1000);
    return !refused && sigtimedwait(&break_of_lease, NULL, &second) == SIGIO;
}
static int watch(void) {
    struct pollfd p = {inotify_init1(0), POLLIN, 0};
    errno = 0;
    return inotify_add_watch(p.fd, input("watched"), IN_OPEN) >= 0 && poll(&p, 1, 500) == 1;
}
static int residence(void) {
    unsigned char page;
    char *m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, open(input("f"), O_RDONLY), 0);
    return m != MAP_FAILED && !mincore(m, 4096, &page);
}
static int file_id(void) {
    struct { unsigned bytes; int type; char id[128]; } h = {128, 0, {0}};
    int mount;
    return !syscall(SYS_name_to_handle_at, AT_FDCWD, input("f"), &h, &mount, 0);
}
static int extents(void) {
    char map[4096] = {0};
    uint64_t all = ~0ull;
    memcpy(map + 8, &all, 8), map[24] = 10;
    int f = open(input("f"), O_RDONLY);
    return f >= 0 && !ioctl(f, 0xc020660b, map);
}

/* The supervisor, and other processes. */

static int trace(void) { return !ptrace(PTRACE_SEIZE, supervisor, 0, 0); }
static int read_memory(void) {
    char b;
    struct iovec mine = {&b, 1}, theirs = {(void *)0x10000, 1};
    return process_vm_readv(supervisor, &mine, 1, &theirs, 1, 0) == 1 || (errno == EFAULT);
}
static int take_descriptor(void) { return done(syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, supervisor, 0), 0, 0)); }
static int supervisor_limit(void) {
    struct rlimit now;
    return !syscall(SYS_prlimit64, supervisor, RLIMIT_NOFILE, NULL, &now) && !syscall(SYS_prlimit64, supervisor, RLIMIT_NOFILE, &now, NULL);
}
static int supervisor_nice(void) { return !setpriority(PRIO_PROCESS, supervisor, getpriority(PRIO_PROCESS, supervisor)); }
static int user_nice(void) {
    /* By user: reaches the supervisor, which has the same one. Fails where one process may not be changed. */
    return getenv("INSIDE") && !setpriority(PRIO_USER, 0, 0);
}
static int supervisor_policy(void) { struct sched_param p = {0}; return !sched_setscheduler(supervisor, SCHED_BATCH, &p) && !sched_setscheduler(supervisor, SCHED_OTHER, &p); }
static int supervisor_io(void) { return !syscall(SYS_ioprio_set, 1, supervisor, 2 << 13 | 4); }
static int supervisor_cpus(void) { cpu_set_t all; return !sched_getaffinity(supervisor, sizeof all, &all) && !sched_setaffinity(supervisor, sizeof all, &all); }
static int supervisor_memory_file(void) { char p[32]; snprintf(p, sizeof p, "/proc/%d/mem", supervisor); return done(open(p, O_RDWR)); }
static int supervisor_program(void) { char p[32]; snprintf(p, sizeof p, "/proc/%d/exe", supervisor); return done(open(p, O_RDONLY)); }
static int signal_host(void) { return !kill(atoi(fact("HOST_PID")), 0); }
static int leaked_descriptor(void) {
    for (int fd = 3; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0 && write(fd, "X\x40\0\0\0\0\0\0\0{\"code\":0,\"stopped\":false,\"wall_nanos\":1,\"peak_memory\":1}", 60) > 0) return 1;
    errno = EBADF;
    return 0;
}
static int more_cpus(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    sched_setaffinity(0, sizeof set, &set);
    if (sched_getaffinity(0, sizeof set, &set)) return 0;
    int before = CPU_COUNT(&set);
    memset(&set, 0xff, sizeof set);
    if (sched_setaffinity(0, sizeof set, &set) || sched_getaffinity(0, sizeof set, &set)) return 0;
    errno = ENODATA;
    return CPU_COUNT(&set) > before;
}
static int host_name(void) { struct utsname u; errno = ENODATA; return !uname(&u) && !strcmp(u.nodename, fact("HOST_NAME")); }
static int host_size(void) { struct sysinfo s; errno = ENODATA; return !sysinfo(&s) && s.totalram == strtoul(fact("HOST_SIZE"), NULL, 10); }
static int host_key(void) { char b[64]; return syscall(SYS_keyctl, 11, atoi(fact("HOST_KEY")), b, sizeof b) > 0; }
static int host_key_write(void) { return !syscall(SYS_keyctl, 2, atoi(fact("HOST_KEY")), "forged", 6); }
static int host_memory(void) { return shmat(atoi(fact("HOST_SHM")), NULL, SHM_RDONLY) != (void *)-1; }

/* The kernel. */

static int ring(void) { char p[256] = {0}; return done(syscall(SYS_io_uring_setup, 1, p)); }
static int fault(void) { return done(syscall(SYS_userfaultfd, 1)); }
static int program(void) { char a[128] = {0}; a[0] = 2; a[4] = 4; a[8] = 8; a[12] = 1; return done(syscall(SYS_bpf, 0, a, sizeof a)); }
static int events(void) { char a[128] = {0}; a[0] = 1; a[4] = 112; return done(syscall(SYS_perf_event_open, a, 0, -1, -1, 0)); }
static int user_namespace(void) { return !unshare(CLONE_NEWUSER); }
static int user_namespace_clone(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (!child) _exit(0);
    return done(child);
}
static int user_namespace_clone3(void) {
    struct { uint64_t flags, pidfd, child_tid, parent_tid, signal, rest[6]; } a = {.flags = CLONE_NEWUSER, .signal = SIGCHLD};
    long child = syscall(SYS_clone3, &a, sizeof a);
    if (!child) _exit(0);
    return done(child);
}
static int mount_namespace(void) { return !unshare(CLONE_NEWNS); }
static int network_namespace(void) { return !unshare(CLONE_NEWNET); }
static int time_namespace(void) { return !unshare(0x80); }
/* Never outside, where they would change the host. */
static int mounted(void) { return getenv("INSIDE") && !mount("x", "/tmp", "tmpfs", 0, ""); }
static int remount(void) { return getenv("INSIDE") && !mount(NULL, "/tmp", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOATIME, NULL); }
static int new_mount(void) { return done(syscall(SYS_fsopen, "tmpfs", 0)); }
static int cloned_mount(void) { return done(syscall(SYS_open_tree, AT_FDCWD, "/tmp", 1)); }
static int unmounted(void) { return getenv("INSIDE") && !umount2("/tmp", MNT_DETACH); }
/* To a root of no use: an error behind the check of the caller. */
static int pivoted(void) { return passed(syscall(SYS_pivot_root, "/proc", "/proc")); }
static int entered(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/ns/net", fact("HOST_PID"));
    return !setns(open(path, O_RDONLY), 0);
}
static int renamed_host(void) { return !sethostname(fact("HOST_NAME"), strlen(fact("HOST_NAME"))); }
static int watched_tree(void) { return done(syscall(SYS_fanotify_init, 0x200 /* FAN_REPORT_FID */, 0)); }
static int compared(void) { return done(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0)); }
static int modules_of_security(void) { uint64_t ids[64]; uint32_t size = sizeof ids; return syscall(461 /* lsm_list_modules */, ids, &size, 0) > 0; }
static int other_root(void) { return !chroot("/tmp"); }
static int device(void) { return !mknod(getenv("INSIDE") ? "/build/disk" : of_host("disk"), S_IFBLK | 0600, 0x100); }
static int kexec(void) { return passed(syscall(SYS_kexec_load, 0, 0, 0, 0x80000000)); }
static int module(void) { return passed(syscall(SYS_init_module, NULL, 0, NULL)); }
static int kernel_log(void) { return passed(syscall(SYS_syslog, 8, NULL, 0)); }
static int restart(void) { return passed(syscall(SYS_reboot, 0, 0, 0, 0)); }
static int swap(void) { return passed(syscall(SYS_swapon, "", 0)); }
/* A time zone of no place: an error behind the check of the caller. */
static int clock_set(void) { int zone[2] = {0x7fffffff, 0}; return passed(syscall(SYS_settimeofday, NULL, zone)); }
static int xattr_path(void) { return !setxattr(".", "user.a", "x", 1, 0); }
static int xattr_link(void) { return !lsetxattr(".", "user.b", "x", 1, 0); }
static int xattr_descriptor(void) { return !fsetxattr(open(".", O_RDONLY), "user.c", "x", 1, 0); }
static int xattr_at(void) { struct { uint64_t value; uint32_t size, flags; } a = {(uintptr_t)"x", 1, 0}; return !syscall(463, AT_FDCWD, ".", 0, "user.d", &a, sizeof a); }
static int capability(void) {
    /* As the C library's cap_get_proc: effective, permitted, inheritable, twice. */
    struct { unsigned version; int pid; } header = {0x20080522, 0};
    unsigned data[6] = {0};
    errno = ENODATA;
    return !syscall(SYS_capget, &header, data) && (data[0] | data[1] | data[3] | data[4]);
}
static int foreign_i386(void) {
#ifdef __x86_64__
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
    return r > 0;
#else
    return 0;
#endif
}
static int foreign_x32(void) {
#ifdef __x86_64__
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(0x40000000L + 39) : "rcx", "r11", "memory");
    return 1;
#else
    return 0;
#endif
}
/* The last one: ends the supervisor, so that nothing is printed after it. */
static int kill_supervisor(void) {
    kill(supervisor, SIGKILL);
    usleep(200000);
    /* The end of the supervisor ends the log, too. */
    if (kill(supervisor, 0) < 0 && errno == ESRCH) _exit(0);
    errno = EPERM;
    return 0;
}

static const struct attack { const char *name; int (*run)(void); } ATTACKS[] = {
#include "attacks.h"
};
enum { COUNT = sizeof ATTACKS / sizeof *ATTACKS };

static void quick(const struct attack *a) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        alarm(20);
        errno = 0;
        int got = a->run();
        printf("%s: %s%s\n", a->name, got ? "GOT" : "no: ", got ? "" : strerror(errno));
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) printf("%s: no: signal %d\n", a->name, WTERMSIG(status));
}

#include "bombs.h"

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    supervisor = getppid();
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "quick")) {
        for (int i = 0; i < COUNT; i++)
            for (int n = 2; n < argc; n++)
                if (!strcmp(argv[n], ATTACKS[i].name)) quick(&ATTACKS[i]);
        return 0;
    }
    if (!strcmp(mode, "whoami")) return geteuid();
    if (!strcmp(mode, "session") && argc > 2) return session(argv + 2);
    return other(mode, argc > 2 ? argv[2] : "");
}
