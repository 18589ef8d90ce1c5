/* The payloads that take a run of their own: what uses up memory and processes, and what attacks the end of a run. */

static char block[1 << 20];

static void hold(void) {
    /* Longer than the time between two looks of the watchdog. */
    usleep(700000);
}

static int bomb(const char *kind) {
    memset(block, 'x', sizeof block);
    if (!strcmp(kind, "heap")) {
        for (int i = 0; i < 160; i++) memset(malloc(1 << 20), 'x', 1 << 20);
    } else if (!strcmp(kind, "shared")) {
        char *m = mmap(NULL, 160 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        for (long i = 0; i < 160 << 20; i += 4096) m[i] = 'x';
    } else if (!strcmp(kind, "memfd")) {
        int f = memfd_create("m", 0);
        for (int i = 0; i < 160; i++)
            if (write(f, block, sizeof block) < 0) return 3;
    } else if (!strcmp(kind, "memfd-closed")) {
        /* Memory that no process has mapped: one page keeps the file. */
        for (int n = 0; n < 10; n++) {
            int f = memfd_create("m", 0);
            for (int i = 0; i < 16; i++)
                if (write(f, block, sizeof block) < 0) return 3;
            if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, f, 0) == MAP_FAILED) return 3;
            close(f);
        }
    } else if (!strcmp(kind, "sockets") || !strcmp(kind, "pipes")) {
        long held = 0;
        for (int p = 0; p < 12; p++) {
            int report[2];
            long n = 0;
            if (pipe(report)) return 3;
            if (!fork()) {
                for (int i = 0; i < 400 && n < 16 << 20; i++) {
                    int s[2], made = *kind == 's' ? socketpair(AF_UNIX, SOCK_STREAM, 0, s) : pipe(s);
                    if (made) break;
                    int room = 4 << 20, in = *kind == 's' ? s[0] : s[1];
                    if (*kind == 's') setsockopt(in, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
                    else fcntl(in, F_SETPIPE_SZ, 1 << 20);
                    fcntl(in, F_SETFL, O_NONBLOCK);
                    for (ssize_t r; (r = write(in, block, 65536)) > 0;) n += r;
                }
                if (write(report[1], &n, sizeof n) < 0) _exit(1);
                pause();
            }
            close(report[1]);
            if (read(report[0], &n, sizeof n) == sizeof n) held += n;
        }
        hold();
        /* The kernel may hand out less than was asked for: then nothing has got through. */
        return held >= (*kind == 's' ? 96 : 40) << 20 ? 0 : 4;
    } else if (!strcmp(kind, "page-tables")) {
        int f = open("/build/one", O_CREAT | O_RDWR, 0600);
        if (f < 0 || ftruncate(f, 4096)) return 3;
        for (long n = 0; n < 40000; n++) {
            char *m = mmap((void *)(0x100000000000 + n * (2L << 20)), 4096, PROT_READ, MAP_SHARED | MAP_FIXED, f, 0);
            if (m == MAP_FAILED) return 3;
            (void)*(volatile char *)m;
        }
    } else if (!strcmp(kind, "processes")) {
        for (int i = 0; i < 100; i++) {
            pid_t child = fork();
            if (child < 0) return 3;
            if (!child) pause();
        }
    } else return 2;
    hold();
    return 0;
}

/* Odd calls of getdents64, uname and those that are refused: addresses, descriptors, threads that die or unmap while they wait. */
static void *ask_and_unmap(void *unused) {
    (void)unused;
    for (int i = 0; i < 200; i++) {
        char *m = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int d = open("/", O_RDONLY | O_DIRECTORY);
        syscall(SYS_getdents64, d, m, 65536);
        munmap(m, 65536);
        syscall(SYS_getdents64, d, m, 65536);
        close(d);
    }
    return NULL;
}
static int answerer(void) {
    static char buffer[65536];
    uintptr_t addresses[] = {0, 1, (uintptr_t)buffer, (uintptr_t)&answerer, 0xffff800000000000, ~0ul, 4096};
    size_t sizes[] = {0, 1, 23, 24, 65536, 4ul << 30, ~0ul};
    int s[2], ends[2], descriptors[8] = {-1, 99999, AT_FDCWD};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, s) || pipe(ends)) return 3;
    descriptors[3] = s[0], descriptors[4] = ends[0], descriptors[5] = memfd_create("m", 0);
    descriptors[6] = open("/", O_PATH), descriptors[7] = open("/", O_RDONLY | O_DIRECTORY);
    for (int d = 0; d < 8; d++)
        for (int a = 0; a < 7; a++)
            for (int n = 0; n < 7; n++) {
                if (descriptors[d] == descriptors[7]) lseek(descriptors[7], 0, SEEK_SET);
                long r = syscall(SYS_getdents64, descriptors[d], addresses[a], sizes[n]);
                if (r > 65536) return 4;
            }
    for (int a = 0; a < 7; a++)
        if (addresses[a] != (uintptr_t)buffer && !syscall(SYS_uname, addresses[a])) return 5;
    /* Refused calls, of which the supervisor reads names and lists. None of them could succeed. */
    char *end = (char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 4096;
    memset(end - 4096, 'a', 4096);
    addresses[1] = (uintptr_t)end - 10;
    for (int a = 0; a < 7; a++)
        for (int n = 0; n < 7; n++) {
            if (!syscall(SYS_mount, addresses[a], addresses[n], addresses[a], 0, addresses[n])) return 6;
            if (!syscall(SYS_mknodat, -1, addresses[a], S_IFCHR | 0600, 0)) return 7;
            if (!syscall(SYS_setxattr, "/nowhere", addresses[a], addresses[n], sizes[n], 0)) return 8;
            if (!syscall(SYS_setxattr, "/nowhere", "system.posix_acl_access", addresses[a], sizes[n], 0)) return 9;
        }
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) pthread_create(&threads[i], NULL, ask_and_unmap, NULL);
    for (int i = 0; i < 40; i++) {
        pid_t child = fork();
        if (!child) {
            if (i % 2) kill(getpid(), SIGKILL);
            for (;;) syscall(SYS_uname, buffer);
        }
        usleep(500);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    /* It still answers, and nothing but what it should. */
    struct utsname u;
    lseek(descriptors[7], 0, SEEK_SET);
    long r = syscall(SYS_getdents64, descriptors[7], buffer, sizeof buffer);
    printf("answers: %s %s\n", uname(&u) ? "none" : u.release, r > 0 ? "listed" : "none");
    return 0;
}

static int terminal(void) {
    static const char words[] = "PUSHED\n";
    int got = 0;
    for (const char *w = words; *w; w++) got |= !syscall(SYS_ioctl, 0, 0x5412ul, w);
    for (const char *w = words; *w; w++) got |= !syscall(SYS_ioctl, 0, 0x100005412ul, w);
    char paste[] = {3};
    got |= !syscall(SYS_ioctl, 0, 0x541cul, paste);
    printf("terminal: %s\n", got ? "GOT" : "no");
    return 0;
}

static int deep(void) {
    for (int i = 0; i < 5000; i++)
        if (mkdir("deeper", 0000 | 0700) || chdir("deeper")) return 3;
    puts("deep: made");
    return 0;
}

/* A program of the host that holds what is to be found on the inputs in its directory, until its standard input ends. */
static int holder(const char *directory) {
    uint64_t hint = 4;
    struct flock lock = {.l_type = F_RDLCK, .l_start = 7, .l_len = 1};
    if (chdir(directory)) return 3;
    int locked = open("locked", O_RDONLY);
    if (flock(locked, LOCK_EX) || fcntl(locked, F_SETLK, &lock)) return 4;
    int hinted = !fcntl(locked, 1036, &hint);
    int memory = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0666);
    if (memory < 0) return 5;
    struct sysinfo machine;
    sysinfo(&machine);
    printf("%d %d %lu\n", memory, hinted, machine.totalram);
    struct pollfd end = {0, POLLIN, 0};
    while (!poll(&end, 1, 50)) close(open("watched", O_RDONLY));
    shmctl(memory, IPC_RMID, NULL);
    return 0;
}

/* An output with a set-id bit, by every call that takes a mode. */
static int set_id(const char *way) {
    int f = -1;
    struct { uint64_t flags, mode, resolve; } how = {O_CREAT | O_WRONLY, 04755, 0};
    if (mkdir("out", 0755)) return 3;
    if (!strcmp(way, "open")) f = open("out/a", O_CREAT | O_WRONLY, 04755);
    else if (!strcmp(way, "creat")) f = creat("out/a", 02755);
    else if (!strcmp(way, "openat2")) f = syscall(SYS_openat2, AT_FDCWD, "out/a", &how, sizeof how);
    else if (!strcmp(way, "tmpfile")) {
        f = open("out", O_TMPFILE | O_WRONLY, 04755);
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", f);
        if (linkat(AT_FDCWD, path, AT_FDCWD, "out/a", AT_SYMLINK_FOLLOW)) return 4;
    } else if (!strcmp(way, "mknod")) {
        if (mknod("out/a", S_IFREG | 04755, 0)) return 4;
        f = open("out/a", O_WRONLY);
    } else if (!strcmp(way, "mkdir")) {
        /* mkdir(2) drops the bits; a directory in one with the bit inherits it. */
        if (chmod("out", 02755) || mkdir("out/a", 0755) || chmod("out", 0755)) return 4;
        return 0;
    } else f = open("out/a", O_CREAT | O_WRONLY, 0755);
    if (f < 0) return 4;
    if (write(f, "x", 1) != 1) return 4;
    /* Writing clears the bits of a file. */
    if (!strcmp(way, "open")) return unlink("out/a") || (f = open("out/a", O_CREAT | O_WRONLY, 04755)) < 0;
    if (!strcmp(way, "creat")) return unlink("out/a") || (f = creat("out/a", 02755)) < 0;
    if (!strcmp(way, "openat2")) return unlink("out/a") || syscall(SYS_openat2, AT_FDCWD, "out/a", &how, sizeof how) < 0;
    if (!strcmp(way, "mknod")) return unlink("out/a") || mknod("out/a", S_IFREG | 04755, 0);
    if (!strcmp(way, "tmpfile")) {
        char path[64];
        f = open("out", O_TMPFILE | O_WRONLY, 04755);
        snprintf(path, sizeof path, "/proc/self/fd/%d", f);
        return unlink("out/a") || linkat(AT_FDCWD, path, AT_FDCWD, "out/a", AT_SYMLINK_FOLLOW);
    }
    if (!strcmp(way, "chmod")) return chmod("out/a", 04755);
    if (!strcmp(way, "fchmod")) return fchmod(f, 04755);
    if (!strcmp(way, "fchmodat")) return fchmodat(AT_FDCWD, "out/a", 06755, 0);
    if (!strcmp(way, "fchmodat2")) return syscall(452 /* fchmodat2 */, f, "", 04755, AT_EMPTY_PATH);
#ifdef __x86_64__
    if (!strcmp(way, "i386")) {
        static const char name[] = "out/a";
        long r;
        void *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        memcpy(low, name, sizeof name);
        __asm__ volatile("int $0x80" : "=a"(r) : "a"(15), "b"(low), "c"(04755) : "memory");
        return r;
    }
#endif
    return 5;
}

/* An output with an extended attribute: a label of its own, or a file capability. */
static int labelled(const char *name) {
    static const unsigned capability[5] = {0x02000001, 1 << 21};
    int is_capability = !strcmp(name, "security.capability");
    if (mkdir("out", 0755)) return 3;
    int f = open("out/a", O_CREAT | O_WRONLY, 0755);
    if (f < 0 || write(f, "x", 1) != 1) return 3;
    return fsetxattr(f, name, is_capability ? (const void *)capability : "x", is_capability ? sizeof capability : 1, 0) ? 4 : 0;
}

/* A process that makes an output a symbolic link and a directory again, as fast as it can, until it is ended. */
static int becoming(void) {
    if (mkdir("real", 0755) || mkdir("out", 0755)) return 3;
    FILE *a = fopen("out/a", "w"), *b = fopen("real/a", "w");
    if (!a || !b || fputs("own", a) < 0 || fputs("own", b) < 0 || fclose(a) || fclose(b)) return 3;
    if (symlink("/inputs", "link")) return 3;
    for (int i = 0; i < 3; i++)
        if (!fork()) {
            setsid(), signal(SIGTERM, SIG_IGN), close(1), close(2);
            for (;;) syscall(SYS_renameat2, AT_FDCWD, "out", AT_FDCWD, "link", 2);
        }
    struct stat s;
    for (int link = 0, directory = 0; !link || !directory;)
        if (!lstat("out", &s)) link |= S_ISLNK(s.st_mode), directory |= S_ISDIR(s.st_mode);
    puts("becoming: both");
    return 0;
}

/* In a session of its own, with the standard input as its terminal. */
static int session(char **argv) {
    if (setsid() < 0 || ioctl(0, TIOCSCTTY, 0)) return 3;
    execv(argv[0], argv);
    return 4;
}

static int other(const char *mode, const char *argument) {
    if (!strcmp(mode, "bomb")) return bomb(argument);
    if (!strcmp(mode, "answerer")) return answerer();
    if (!strcmp(mode, "terminal")) return terminal();
    if (!strcmp(mode, "deep")) return deep();
    if (!strcmp(mode, "set-id")) return set_id(argument);
    if (!strcmp(mode, "labelled")) return labelled(argument);
    if (!strcmp(mode, "becoming")) return becoming();
    if (!strcmp(mode, "holder")) return holder(argument);
    return 2;
}
