/* What a worker that was taken over could try. Each attempt runs in a child of this program, first unconfined, where it
 * must succeed, and then confined, where it must be blocked: refused, or the child is killed by seccomp. */
#include "client/worker/confine.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
/* The children end with a thread that still waits, and without a second's thought about it. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_thread_leaks=0:atexit_sleep_ms=0";
}
#endif

/* The world of a test: root/{data,task,keys}, a helper process that stands for the agent, the agent's memory. */
static struct {
    char root[64];
    char *table, *task, *key, *result, *link;
    pid_t agent;
    struct sockaddr_un listener;
    int listener_fd;
} world;

static char secret[] = "the agent's key";

/* ---- attempts: 0 when it succeeded, else errno ---- */

static int verdict(long result)
{
    return result >= 0 ? 0 : errno;
}

static int open_and_close(const char *path, int flags)
{
    const int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static int socket_inet(void)
{
    return verdict(socket(AF_INET, SOCK_STREAM, 0));
}

static int socket_inet6(void)
{
    return verdict(socket(AF_INET6, SOCK_DGRAM, 0));
}

static int socket_unix_to_the_agent(void)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 ? errno : verdict(connect(fd, (const struct sockaddr *)&world.listener, sizeof world.listener));
}

static int exec_a_program(void)
{
    execl("/bin/true", "true", (char *)NULL);
    return errno; /* success is the exit code 0 of /bin/true */
}

static int fork_a_process(void)
{
    const long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        _exit(0);
    return verdict(child);
}

static int ptrace_the_agent(void)
{
    const long result = ptrace(PTRACE_SEIZE, world.agent, 0, 0);
    if (result == 0)
        ptrace(PTRACE_DETACH, world.agent, 0, 0);
    return verdict(result);
}

static int read_the_agents_memory(void)
{
    char copy[sizeof secret];
    const struct iovec here = {copy, sizeof copy}, there = {secret, sizeof secret};
    return verdict(process_vm_readv(world.agent, &here, 1, &there, 1, 0));
}

static int write_the_agents_memory(void)
{
    const struct iovec here = {secret, sizeof secret}, there = {secret, sizeof secret};
    return verdict(process_vm_writev(world.agent, &here, 1, &there, 1, 0));
}

static int read_the_agents_environment(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", world.agent);
    return open_and_close(path, O_RDONLY);
}

static int read_own_proc(void)
{
    return open_and_close("/proc/self/maps", O_RDONLY);
}

static int read_the_agents_key(void)
{
    return open_and_close(world.key, O_RDONLY);
}

static int read_the_key_from_a_thread_that_was_there_before(void); /* below, with its thread */

static int read_the_key_through_a_link(void)
{
    return open_and_close(world.link, O_RDONLY);
}

static int read_a_system_file(void)
{
    return open_and_close("/etc/passwd", O_RDONLY);
}

static int list_a_folder_outside(void)
{
    return open_and_close("/etc", O_RDONLY | O_DIRECTORY);
}

static int write_the_table(void)
{
    return open_and_close(world.table, O_WRONLY);
}

static int truncate_the_table(void)
{
    return verdict(truncate(world.table, 1));
}

static int truncate_the_table_by_opening_it_to_read(void)
{
    return open_and_close(world.table, O_RDONLY | O_TRUNC);
}

static int truncate_the_table_by_the_fourth_access_mode(void)
{
    return open_and_close(world.table, O_ACCMODE | O_TRUNC);
}

static int make_a_file_outside(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/keys/new", world.root);
    return open_and_close(path, O_WRONLY | O_CREAT);
}

static int remove_the_table(void)
{
    return verdict(unlink(world.table));
}

static int chmod_the_table(void)
{
    return verdict(chmod(world.table, 0666));
}

static int chmod_an_own_file(void)
{
    return verdict(chmod(world.result, 0777));
}

static int chown_an_own_file(void)
{
    return verdict(chown(world.result, getuid(), getgid()));
}

static int set_times_of_the_table(void)
{
    return verdict(utimes(world.table, NULL));
}

static int set_an_extended_attribute(void)
{
    return verdict(setxattr(world.result, "user.note", "x", 1, 0));
}

static int make_a_symbolic_link(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/task/symlink", world.root);
    return verdict(symlink(world.key, path));
}

static int make_a_hard_link_to_the_key(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/task/hardlink", world.root);
    return verdict(link(world.key, path));
}

static int rename_a_result_out_of_its_folder(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/keys/moved", world.root);
    return verdict(rename(world.result, path));
}

static int rename_the_key_into_the_task_folder(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/task/key", world.root);
    return verdict(rename(world.key, path));
}

static int make_a_device_or_pipe(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/task/pipe", world.root);
    return verdict(mkfifo(path, 0600));
}

static int signal_the_agent(void)
{
    return verdict(kill(world.agent, SIGCONT));
}

static int signal_a_thread_of_the_agent(void)
{
    return verdict(syscall(SYS_tgkill, world.agent, world.agent, SIGCONT));
}

static int signal_the_agent_through_its_descriptor(void)
{
    const long fd = syscall(SYS_pidfd_open, world.agent, 0);
    return fd < 0 ? errno : verdict(syscall(SYS_pidfd_send_signal, fd, SIGCONT, NULL, 0));
}

static int signal_the_agent_by_owned_descriptor(void)
{
    return verdict(fcntl(world.listener_fd, F_SETOWN, world.agent));
}

static int mount_a_file_system(void)
{
    return verdict(unshare(CLONE_NEWNS)) != 0 ? errno : verdict(mount("none", world.task, "tmpfs", 0, NULL));
}

static int enter_a_new_namespace(void)
{
    return verdict(unshare(CLONE_NEWUTS));
}

static int change_root(void)
{
    return verdict(chroot(world.task));
}

static int set_up_io_uring(void)
{
    struct io_uring_params parameters = {0};
    return verdict(syscall(SYS_io_uring_setup, 1, &parameters));
}

static int load_a_bpf_map(void)
{
    const struct {
        uint32_t type, key_size, value_size, entries;
        uint64_t rest[12];
    } map = {.type = 2 /* BPF_MAP_TYPE_ARRAY */, .key_size = 4, .value_size = 4, .entries = 1};
    return verdict(syscall(SYS_bpf, 0 /* BPF_MAP_CREATE */, &map, sizeof map));
}

static int make_a_userfaultfd(void)
{
    return verdict(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */));
}

static int pass_a_descriptor_on(void)
{
    int pair[2] = {3, 3};
    struct msghdr message = {0};
    /* In the control run a pair of its own; a confined worker cannot even make one. */
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0)
        return errno;
    return verdict(sendmsg(pair[0], &message, 0));
}

static int gain_rights_by_prctl(void)
{
    return verdict(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static const struct attempt {
    const char *name;
    int (*run)(void);
    bool needs_rights; /* not everyone may do it even unconfined */
} attempts[] = {
#define ATTEMPT(function)                                                                                              \
    {                                                                                                                  \
#function, function, false                                                                                     \
    }
#define PRIVILEGED(function)                                                                                           \
    {                                                                                                                  \
#function, function, true                                                                                      \
    }
    ATTEMPT(socket_inet),
    PRIVILEGED(socket_inet6), /* where the machine has the family */
    ATTEMPT(socket_unix_to_the_agent),
    ATTEMPT(exec_a_program),
    ATTEMPT(fork_a_process),
    PRIVILEGED(ptrace_the_agent),
    PRIVILEGED(read_the_agents_memory),
    PRIVILEGED(write_the_agents_memory),
    ATTEMPT(read_the_agents_environment),
    ATTEMPT(read_own_proc),
    ATTEMPT(read_the_agents_key),
    ATTEMPT(read_the_key_from_a_thread_that_was_there_before),
    ATTEMPT(read_the_key_through_a_link),
    ATTEMPT(read_a_system_file),
    ATTEMPT(list_a_folder_outside),
    ATTEMPT(write_the_table),
    ATTEMPT(truncate_the_table),
    ATTEMPT(truncate_the_table_by_opening_it_to_read),
    ATTEMPT(truncate_the_table_by_the_fourth_access_mode),
    ATTEMPT(make_a_file_outside),
    ATTEMPT(remove_the_table),
    ATTEMPT(chmod_the_table),
    ATTEMPT(chmod_an_own_file),
    ATTEMPT(chown_an_own_file),
    ATTEMPT(set_times_of_the_table),
    PRIVILEGED(set_an_extended_attribute), /* where the file system has them */
    ATTEMPT(make_a_symbolic_link),
    ATTEMPT(make_a_hard_link_to_the_key),
    ATTEMPT(rename_a_result_out_of_its_folder),
    ATTEMPT(rename_the_key_into_the_task_folder),
    ATTEMPT(make_a_device_or_pipe),
    ATTEMPT(signal_the_agent),
    ATTEMPT(signal_a_thread_of_the_agent),
    ATTEMPT(signal_the_agent_through_its_descriptor),
    ATTEMPT(signal_the_agent_by_owned_descriptor),
    PRIVILEGED(mount_a_file_system),
    PRIVILEGED(enter_a_new_namespace),
    PRIVILEGED(change_root),
    PRIVILEGED(set_up_io_uring),
    PRIVILEGED(load_a_bpf_map),
    PRIVILEGED(make_a_userfaultfd),
    ATTEMPT(pass_a_descriptor_on),
    ATTEMPT(gain_rights_by_prctl),
};

/* ---- the world ---- */

static char *place(const char *name)
{
    return cs_format("%s/%s", world.root, name);
}

static void put(const char *path, const char *text)
{
    assert_int_equal(cs_file_write_atomic(path, cs_bytes_of_text(text), 0600), CS_OK);
}

/* Fresh for every attempt: the control run has done real damage. */
static void make_world(void)
{
    memset(&world, 0, sizeof world);
    const char *tmp = getenv("TMPDIR");
    snprintf(world.root, sizeof world.root, "%s/escape-XXXXXX", tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
    assert_non_null(mkdtemp(world.root));
    static const char *const folders[] = {"data", "task", "keys"};
    for (size_t i = 0; i < CS_COUNT(folders); i++) {
        CS_AUTO(cs_string) folder = place(folders[i]);
        assert_int_equal(mkdir(folder, 0700), 0);
    }
    world.table = place("data/heart.csv");
    world.task = place("task");
    world.key = place("keys/signing.key");
    world.result = place("task/update.safetensors");
    world.link = place("task/link");
    put(world.table, "age,num\n63,1\n");
    put(world.key, secret);
    put(world.result, "numbers");
    assert_int_equal(symlink(world.key, world.link), 0);

    world.listener.sun_family = AF_UNIX;
    snprintf(world.listener.sun_path, sizeof world.listener.sun_path, "%s/keys/agent", world.root);
    world.listener_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(world.listener_fd, (const struct sockaddr *)&world.listener, sizeof world.listener), 0);
    assert_int_equal(listen(world.listener_fd, 1), 0);

    world.agent = fork();
    if (world.agent == 0) {
        for (;;)
            pause();
    }
}

static void end_world(void)
{
    kill(world.agent, SIGKILL);
    waitpid(world.agent, NULL, 0);
    close(world.listener_fd);
    assert_int_equal(cs_folder_remove(world.root), CS_OK);
    char *const texts[] = {world.table, world.task, world.key, world.result, world.link};
    for (size_t i = 0; i < CS_COUNT(texts); i++)
        cs_free(texts[i]);
}

static cs_status confine(const cs_site_config *config, const char **ret_holds)
{
    const char *readable[] = {world.table, "/nowhere/at/all"}, *missing[3];
    size_t missing_count = 0;
    const cs_confinement confinement = {readable, CS_COUNT(readable), {world.task, NULL}, config};
    return cs_confine(&confinement, ret_holds, missing, &missing_count);
}

static const cs_site_config strict = {.requires_confinement = true};

/* A thread as libtorch's pools have them: older than the confinement, and idle until it is told. */
static sem_t may_try, has_tried;
static int thread_verdict;

static void *old_thread(void *argument)
{
    (void)argument;
    sem_wait(&may_try);
    thread_verdict = open_and_close(world.key, O_RDONLY);
    sem_post(&has_tried);
    return NULL;
}

static int read_the_key_from_a_thread_that_was_there_before(void)
{
    sem_post(&may_try);
    sem_wait(&has_tried);
    return thread_verdict;
}

#define EXIT_NOT_CONFINED 250

/* The attempt's errno, 0 for success, or 128 + the signal that ended it. */
static int run_in_child(const struct attempt *attempt, bool is_confined)
{
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        const char *holds = NULL;
        sem_init(&may_try, 0, 0);
        sem_init(&has_tried, 0, 0);
        if (pthread_create(&thread, NULL, old_thread, NULL) != 0 || (is_confined && confine(&strict, &holds) != CS_OK))
            _exit(EXIT_NOT_CONFINED);
        _exit(attempt->run());
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void each_escape_succeeds_unconfined_and_is_blocked_confined(void **state)
{
    (void)state;
    size_t failures = 0;
    for (size_t i = 0; i < CS_COUNT(attempts); i++) {
        make_world();
        const int control = run_in_child(&attempts[i], false);
        end_world();
        make_world();
        const int confined = run_in_child(&attempts[i], true);
        end_world();

        const bool control_fits = control == 0 || attempts[i].needs_rights;
        const bool is_blocked = confined != 0 && confined != EXIT_NOT_CONFINED;
        print_message("  %-52s control: %s, confined: %s\n", attempts[i].name,
                      control == 0 ? "succeeded" : strerrorname_np(control),
                      confined == 128 + SIGSYS ? "killed" : strerrorname_np(confined));
        if (!control_fits || !is_blocked)
            failures++;
        if (control != 0 && control_fits)
            print_message("  %-52s not shown: this machine does not let even the control run do it\n",
                          attempts[i].name);
    }
    assert_int_equal(failures, 0);
}

/* Runs `work` in a child; its return value is the exit code. */
static int child_does(int (*work)(void))
{
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        _exit(work());
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int honest_work(void)
{
    const char *holds = NULL;
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) partial = cs_format("%s/partial", world.task);
    pthread_t thread;
    sem_init(&may_try, 0, 1);
    sem_init(&has_tried, 0, 0);
    if (confine(&strict, &holds) != CS_OK || strncmp(holds, "landlock ", 9) != 0 ||
        strstr(holds, ", seccomp, no_new_privs") == NULL)
        return 1;
    if (cs_file_read_all(world.table, 1024, &bytes) != CS_OK)
        return 2;
    if (cs_file_write_atomic(partial, cs_bytes_of_text("done"), 0600) != CS_OK ||
        cs_file_rename(partial, world.result) != CS_OK || cs_file_remove(world.result) != CS_OK)
        return 3;
    if (pthread_create(&thread, NULL, old_thread, NULL) != 0 || pthread_join(thread, NULL) != 0)
        return 4;
    return thread_verdict == EACCES ? 0 : 5;
}

static void a_confined_worker_reads_its_table_writes_its_results_and_starts_threads(void **state)
{
    (void)state;
    make_world();
    assert_int_equal(child_does(honest_work), 0);
    end_world();
}

static int aborts(void)
{
    const char *holds = NULL;
    if (confine(&strict, &holds) != CS_OK)
        return 1;
    abort();
}

static void a_confined_worker_can_still_abort(void **state)
{
    (void)state;
    make_world();
    assert_int_equal(child_does(aborts), 128 + SIGABRT);
    end_world();
}

/* A kernel without Landlock: the call does not exist. */
static bool forget_landlock(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), 444 /* landlock_create_ruleset */, 0);
    const bool is_loaded = seccomp_load(filter) == 0;
    seccomp_release(filter);
    return is_loaded;
}

static int refuses_without_landlock(void)
{
    const char *holds = NULL;
    if (!forget_landlock() || confine(&strict, &holds) != CS_DENIED)
        return 1;
    return strstr(cs_error_text(), "this kernel lacks landlock") != NULL ? 0 : 2;
}

static int goes_on_where_the_site_accepts_it(void)
{
    char *accepted[] = {"landlock"};
    const cs_site_config config = {.requires_confinement = true, .accepted_missing = {accepted, 1}};
    const char *holds = NULL;
    if (!forget_landlock() || confine(&config, &holds) != CS_OK)
        return 1;
    return strcmp(holds, "seccomp, no_new_privs") == 0 && socket_inet() == 0 ? 2 : 3;
}

static void without_landlock_the_worker_refuses_unless_the_site_accepts_it_by_name(void **state)
{
    (void)state;
    make_world();
    assert_int_equal(child_does(refuses_without_landlock), 0);
    /* The socket it tries at the end still ends it. */
    assert_int_equal(child_does(goes_on_where_the_site_accepts_it), 128 + SIGSYS);
    end_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_escape_succeeds_unconfined_and_is_blocked_confined),
        cmocka_unit_test(a_confined_worker_reads_its_table_writes_its_results_and_starts_threads),
        cmocka_unit_test(a_confined_worker_can_still_abort),
        cmocka_unit_test(without_landlock_the_worker_refuses_unless_the_site_accepts_it_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
