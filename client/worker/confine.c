/* Landlock, seccomp, no_new_privs. Called once by session.c on the main thread, before data is opened. What the worker
 * may still do: read the named tables, write in its task folder, talk on the descriptors it was born with, compute. */
#include "client/worker/confine.h"

#include "common/base/clock.h"
#include "common/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Rights that are younger than the kernel headers of Debian 12 (6.1). */
#define FS_TRUNCATE          (1ULL << 14) /* ABI 3 */
#define FS_IOCTL_DEV         (1ULL << 15) /* ABI 5 */
#define NET_BIND_TCP         (1ULL << 0)  /* ABI 4 */
#define NET_CONNECT_TCP      (1ULL << 1)
#define SCOPE_ABSTRACT_UNIX  (1ULL << 0) /* ABI 6 */
#define SCOPE_SIGNAL         (1ULL << 1)
#define FS_ABI_1             ((1ULL << 13) - 1)
#define ABI_FIRST_WITH_REFER 2

/* struct landlock_ruleset_attr as of ABI 6; what a kernel does not know must be zero. */
struct ruleset {
    uint64_t handled_fs;
    uint64_t handled_net;
    uint64_t scoped;
};

#define THREADS_MAX     1024
#define RESTRICT_SIGNAL (SIGRTMIN + 7)

enum { LANDLOCK = 1, SECCOMP = 2, NO_NEW_PRIVS = 4 };
static const struct {
    unsigned bit;
    const char *name;
} names[] = {{LANDLOCK, "landlock"}, {SECCOMP, "seccomp"}, {NO_NEW_PRIVS, "no_new_privs"}};

/* ---- every thread ---- */

/* Landlock holds for the calling thread and its children only, and libtorch and its BLAS have threads by now. Each is
 * sent a signal, and its handler restricts the thread it runs on. */
static struct {
    int ruleset;
    volatile sig_atomic_t has_failed;
    sem_t answered;
} broadcast;

static bool restrict_this_thread(int ruleset)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
}

static void on_restrict_signal(int number)
{
    const int saved = errno;
    (void)number;
    if (!restrict_this_thread(broadcast.ruleset))
        broadcast.has_failed = 1;
    sem_post(&broadcast.answered);
    errno = saved;
}

static cs_status list_threads(pid_t *threads, size_t *ret_count)
{
    DIR *folder = opendir("/proc/self/task");
    if (folder == NULL)
        return cs_fail_errno("/proc/self/task cannot be read, and the worker's threads not be confined");
    size_t count = 0;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (entry->d_name[0] == '.')
            continue;
        if (count == THREADS_MAX) {
            closedir(folder);
            return cs_fail(CS_EXHAUSTED, "the worker has more than %d threads before it is confined", THREADS_MAX);
        }
        threads[count++] = (pid_t)atol(entry->d_name);
    }
    closedir(folder);
    *ret_count = count;
    return CS_OK;
}

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1 /* gcc's name for it */
#endif
#endif
#ifdef __SANITIZE_THREAD__
/* Builds for tests only. ThreadSanitizer's own thread takes no signals, and it holds signals back from threads that
 * wait inside a library that it does not know: these are left to seccomp alone. */
#define MAY_STAY_SILENT   true
#define THREAD_TIMEOUT_MS 300
#else
#define MAY_STAY_SILENT   false
#define THREAD_TIMEOUT_MS 10000
#endif

static cs_status wait_for_answer(void)
{
    const int64_t until_ms = cs_clock_wall_ms() + THREAD_TIMEOUT_MS;
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    while (sem_timedwait(&broadcast.answered, &until) != 0) {
        if (errno == ETIMEDOUT && MAY_STAY_SILENT)
            return CS_OK;
        if (errno != EINTR)
            return cs_fail(CS_INTERNAL, "a thread of the worker did not confine itself within %d ms",
                           THREAD_TIMEOUT_MS);
    }
    return CS_OK;
}

static cs_status restrict_other_threads(void)
{
    pid_t threads[THREADS_MAX];
    size_t count = 0;
    CS_TRY(list_threads(threads, &count));
    for (size_t i = 0; i < count; i++) {
        if (threads[i] == gettid())
            continue;
        if (tgkill(getpid(), threads[i], RESTRICT_SIGNAL) != 0) {
            if (errno == ESRCH)
                continue; /* ended since */
            return cs_fail_errno("a thread of the worker cannot be confined");
        }
        CS_TRY(wait_for_answer());
    }
    return broadcast.has_failed ? cs_fail(CS_INTERNAL, "landlock refused a thread of the worker") : CS_OK;
}

static cs_status restrict_all_threads(int ruleset)
{
    broadcast.ruleset = ruleset;
    broadcast.has_failed = 0;
    sem_init(&broadcast.answered, 0, 0);
    struct sigaction action = {.sa_handler = on_restrict_signal, .sa_flags = SA_RESTART}, before;
    if (sigaction(RESTRICT_SIGNAL, &action, &before) != 0)
        return cs_fail_errno("a signal handler cannot be set");
    cs_status status = restrict_other_threads();
    sigaction(RESTRICT_SIGNAL, &before, NULL);
    sem_destroy(&broadcast.answered);
    CS_TRY(status);
    if (!restrict_this_thread(ruleset))
        return cs_fail_errno("landlock_restrict_self");
    return CS_OK;
}

/* ---- Landlock ---- */

static uint64_t fs_rights(int abi)
{
    uint64_t rights = FS_ABI_1;
    if (abi >= ABI_FIRST_WITH_REFER)
        rights |= LANDLOCK_ACCESS_FS_REFER;
    if (abi >= 3)
        rights |= FS_TRUNCATE;
    if (abi >= 5)
        rights |= FS_IOCTL_DEV;
    return rights;
}

static cs_status allow_path(int ruleset, const char *path, uint64_t rights)
{
    CS_AUTO(cs_fd) fd = -1;
    cs_status status = cs_file_open(path, O_PATH, 0, &fd);
    if (status == CS_NOT_FOUND)
        return CS_OK; /* whoever reads it says so */
    CS_TRY(status);
    struct stat about;
    if (fstat(fd, &about) != 0)
        return cs_fail_errno("%s", path);
    if (!S_ISDIR(about.st_mode))
        rights &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE;
    const struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
        return cs_fail_errno("landlock does not take the path %s", path);
    return CS_OK;
}

static cs_status restrict_by_landlock(const cs_confinement *confinement, int abi)
{
    const uint64_t rights = fs_rights(abi);
    const struct ruleset attributes = {.handled_fs = rights,
                                       .handled_net = abi >= 4 ? NET_BIND_TCP | NET_CONNECT_TCP : 0,
                                       .scoped = abi >= 6 ? SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL : 0};
    CS_AUTO(cs_fd) ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
    if (ruleset < 0)
        return cs_fail_errno("landlock_create_ruleset");

    for (size_t i = 0; i < confinement->readable_count; i++)
        CS_TRY(
            allow_path(ruleset, confinement->readable[i], LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR));
    for (size_t i = 0; i < CS_COUNT(confinement->writable); i++) {
        if (confinement->writable[i] == NULL)
            continue;
        CS_TRY(allow_path(ruleset, confinement->writable[i],
                          rights & (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
                                    LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | LANDLOCK_ACCESS_FS_MAKE_REG |
                                    LANDLOCK_ACCESS_FS_REMOVE_FILE)));
    }
    return restrict_all_threads(ruleset);
}

/* ---- seccomp ---- */

/* What computing, reading the tables and writing results needs; everything else gets EPERM. */
static const int allowed[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(lseek),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(ftruncate),
    SCMP_SYS(rename),
    SCMP_SYS(renameat),
    SCMP_SYS(renameat2),
    SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),
    SCMP_SYS(getdents64),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(getcpu),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(membarrier),
    SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo),
    SCMP_SYS(uname),
};

/* What no honest worker ever tries: the process ends, and its agent sees SIGSYS. */
static const int deadly[] = {
    SCMP_SYS(socket),
    SCMP_SYS(connect),
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(accept),
    SCMP_SYS(accept4),
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_tree),
    SCMP_SYS(fsopen),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(io_uring_register),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(kexec_load),
};

/* Collects the first error of many calls that fail alike. */
static void add(int *first_error, int result)
{
    if (*first_error == 0 && result < 0)
        *first_error = -result;
}

/* O_RDONLY | O_TRUNC empties a file without asking Landlock before ABI 3, and access mode 3 asks for nothing: so
 * truncating needs a mode that writes. `at`: which argument the flags are. */
static void allow_open(scmp_filter_ctx filter, int *error, int number, unsigned at)
{
    static const uint64_t fitting[][2] = {
        {O_TRUNC, 0}, {O_TRUNC | O_ACCMODE, O_TRUNC | O_WRONLY}, {O_TRUNC | O_ACCMODE, O_TRUNC | O_RDWR}};
    for (size_t i = 0; i < CS_COUNT(fitting); i++)
        add(error, seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1,
                                    SCMP_CMP(at, SCMP_CMP_MASKED_EQ, fitting[i][0], fitting[i][1])));
}

static void allow_by_argument(scmp_filter_ctx filter, int *error)
{
    allow_open(filter, error, SCMP_SYS(open), 1);
    allow_open(filter, error, SCMP_SYS(openat), 2);

    /* Threads, not processes or namespaces. clone3 hides its flags behind a pointer; glibc then falls back to clone. */
    const uint64_t new_namespaces = 0x7e020000; /* CLONE_NEWNS … CLONE_NEWNET */
    add(error,
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                         SCMP_A0(SCMP_CMP_MASKED_EQ, 0x00010000 | new_namespaces, 0x00010000 /* CLONE_THREAD */)));
    add(error, seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0));

    /* Signals to itself: abort needs them. */
    const uint64_t self = (uint64_t)getpid();
    add(error, seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, self, 0)));
    add(error, seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1, SCMP_A0(SCMP_CMP_EQ, self, 0)));

    /* No F_SETOWN: it sends signals elsewhere. */
    static const int commands[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL};
    for (size_t i = 0; i < CS_COUNT(commands); i++)
        add(error, seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
                                    SCMP_A1(SCMP_CMP_EQ, (uint64_t)commands[i], 0)));

    /* send() on the descriptor to the agent: no address, and no descriptors in flight as sendmsg has them. */
    add(error, seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 1, SCMP_A4(SCMP_CMP_EQ, 0, 0)));
    add(error, seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, SCMP_A0(SCMP_CMP_EQ, 0, 0),
                                SCMP_A2(SCMP_CMP_EQ, 0, 0)));
    add(error, seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0)));
}

/* False: this kernel has no seccomp filters for all threads. */
static bool has_seccomp(void)
{
    const uint32_t action = 0x80000000; /* SECCOMP_RET_KILL_PROCESS */
    return syscall(SYS_seccomp, 2 /* SECCOMP_GET_ACTION_AVAIL */, 0, &action) == 0;
}

static cs_status restrict_by_seccomp(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (filter == NULL)
        return cs_fail(CS_INTERNAL, "libseccomp does not start");
    int error = 0;
    add(&error, seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1));
    add(&error, seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 1));
    add(&error, seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));
    for (size_t i = 0; i < CS_COUNT(allowed); i++)
        add(&error, seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0));
    for (size_t i = 0; i < CS_COUNT(deadly); i++)
        add(&error, seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly[i], 0));
    allow_by_argument(filter, &error);
    if (error == 0)
        add(&error, seccomp_load(filter));
    seccomp_release(filter);
    return error == 0 ? CS_OK : cs_fail(CS_INTERNAL, "the seccomp filter was not taken: %s", strerror(error));
}

/* ---- all of it ---- */

/* CS_DENIED names the first missing confinement that the site does not accept. */
static cs_status check_missing(const cs_site_config *config, unsigned holds, const char *ret_missing[3],
                               size_t *ret_missing_count)
{
    *ret_missing_count = 0;
    for (size_t i = 0; i < CS_COUNT(names); i++) {
        if (holds & names[i].bit)
            continue;
        if (config->requires_confinement && !cs_names_have(&config->accepted_missing, names[i].name))
            return cs_fail(CS_DENIED,
                           "this kernel lacks %s, and the site's configuration does not accept that: "
                           "policy.accept_missing does not name it",
                           names[i].name);
        ret_missing[(*ret_missing_count)++] = names[i].name;
    }
    return CS_OK;
}

static const char *describe(unsigned holds, int abi)
{
    static char text[64];
    size_t length = 0;
    if (holds & LANDLOCK)
        length += (size_t)snprintf(text, sizeof text, "landlock %d", abi);
    for (size_t i = 1; i < CS_COUNT(names); i++) {
        if (holds & names[i].bit)
            length +=
                (size_t)snprintf(text + length, sizeof text - length, "%s%s", length > 0 ? ", " : "", names[i].name);
    }
    return length > 0 ? text : "none";
}

cs_status cs_confine(const cs_confinement *confinement, const char **ret_holds, const char *ret_missing[3],
                     size_t *ret_missing_count)
{
    const int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    const bool has_no_new_privs = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
    const unsigned holds =
        (abi > 0 ? LANDLOCK : 0u) | (has_seccomp() ? SECCOMP : 0u) | (has_no_new_privs ? NO_NEW_PRIVS : 0u);
    CS_TRY(check_missing(confinement->config, holds, ret_missing, ret_missing_count));

    /* A memory image holds patient data: none on disk, and none for other processes of the same user. */
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0)
        return cs_fail_errno("core dumps cannot be switched off");
    if (holds & LANDLOCK)
        CS_TRY(restrict_by_landlock(confinement, abi));
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return cs_fail_errno("the worker's memory cannot be closed to other processes");
    if (holds & SECCOMP)
        CS_TRY(restrict_by_seccomp());
    *ret_holds = describe(holds, abi);
    return CS_OK;
}

void cs_confine_close_above(int last)
{
    if (close_range((unsigned)last + 1, ~0u, 0) == 0)
        return;
    for (int fd = last + 1; fd < 65536; fd++)
        close(fd);
}
