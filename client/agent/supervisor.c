/* Starts and talks to consilium-worker: see supervisor.h for the threads. A worker is started with posix_spawn (a
 * process that runs gRPC must not fork), gets descriptors 0 to 3 and no environment, and ends when its end of the
 * socket pair does. */
#include "client/agent/supervisor.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/file.h"
#include "common/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKER_SOCKET     3
#define WORKER_NAME       "consilium-worker"
#define ALIGNER_NAME      "consilium-aligner"
#define FRAME_ARENA_BYTES (8 * 1024 * 1024)
/* How long a worker may leave its end of the socket unread before a frame to it counts as lost. */
#define WORKER_WRITE_TIMEOUT_S 60

struct worker {
    struct worker *next;
    cs_supervisor *owner;
    char *job;
    pid_t pid; /* 0: none runs; guarded by running_lock, so that nobody signals a process that was reaped */
    cs_fd socket;
    int64_t idle_since_ms;
    bool is_unfit; /* by its own word or the site's rules; stays so until the agent starts again */
    cs_status unfit_status;
    char *unfit_reason;
};

struct cs_supervisor {
    char *program, *site, *site_config_folder, *tasks_folder;
    cs_buffer site_config;
    struct worker *workers; /* worker thread only */
    pthread_mutex_t running_lock;
    struct worker *running;             /* guarded by running_lock: the one at work now … */
    const cs_worker_task *running_task; /* … the task it was given, once it was … */
    bool is_stopped;                    /* … and whether anything may run any more */
};

static char *worker_program(const cs_supervisor_config *config)
{
    if (config->program != NULL)
        return cs_path_join(config->site_config_folder, config->program);
    char self[4096];
    const ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (size > 0) {
        self[size] = '\0';
        CS_AUTO(cs_string) folder = cs_path_folder(self);
        CS_AUTO(cs_string) beside = cs_path_join(folder, WORKER_NAME);
        if (cs_file_exists(beside))
            return CS_TAKE(beside);
    }
    return cs_strdup(WORKER_NAME);
}

/* The program that only aligns, where it lies beside the worker: it starts at a tenth of the cost. */
static char *program_for(const cs_supervisor *supervisor, bool is_alignment)
{
    CS_AUTO(cs_string) folder = cs_path_folder(supervisor->program);
    CS_AUTO(cs_string) aligner = cs_path_join(folder, ALIGNER_NAME);
    const bool is_path = strchr(supervisor->program, '/') != NULL;
    return is_alignment && is_path && cs_file_exists(aligner) ? CS_TAKE(aligner) : cs_strdup(supervisor->program);
}

/* The worker's end of `pair` becomes its descriptor 3; nothing above it stays open. */
static cs_status spawn(const char *program, int socket, pid_t *ret_pid)
{
    char *const arguments[] = {(char[]){WORKER_NAME}, (char[]){"--agent"}, NULL};
    char *const environment[] = {NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return cs_fail(CS_EXHAUSTED, "worker: no memory to start it");
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return cs_fail(CS_EXHAUSTED, "worker: no memory to start it");
    }
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    /* A group of its own: an interrupt typed at the agent's terminal is for the agent, which ends its workers. */
    int error = posix_spawnattr_setflags(
        &attributes, (short)(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP));
    if (error == 0)
        error = posix_spawnattr_setsigmask(&attributes, &none);
    if (error == 0)
        error = posix_spawnattr_setsigdefault(&attributes, &all);
    if (error == 0)
        error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (error == 0)
        error = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    if (error == 0)
        error = posix_spawn_file_actions_adddup2(&actions, socket, WORKER_SOCKET);
    if (error == 0)
        error = posix_spawn_file_actions_addclosefrom_np(&actions, WORKER_SOCKET + 1);
    if (error == 0)
        error = posix_spawnp(ret_pid, program, &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    errno = error;
    return error == 0 ? CS_OK : cs_fail_errno("worker '%s' does not start", program);
}

/* Waits for the process, at most grace_ms before it is killed; says how it ended. */
static void reap(struct worker *worker, int64_t grace_ms, char *ret_how, size_t size)
{
    pthread_mutex_lock(&worker->owner->running_lock);
    worker->owner->running_task = NULL; /* no cancel may be written to a socket that is gone */
    pthread_mutex_unlock(&worker->owner->running_lock);
    cs_fd_clear(&worker->socket);
    if (grace_ms > 0) {
        CS_AUTO(cs_fd) handle = pidfd_open(worker->pid, 0);
        struct pollfd ended = {.fd = handle, .events = POLLIN};
        if (handle >= 0)
            while (poll(&ended, 1, (int)grace_ms) < 0 && errno == EINTR)
                ;
    }
    /* From here on nobody else may signal the process: its number could be another's once it is reaped. */
    pthread_mutex_lock(&worker->owner->running_lock);
    const pid_t pid = worker->pid;
    worker->pid = 0;
    pthread_mutex_unlock(&worker->owner->running_lock);
    kill(pid, SIGKILL); /* no effect on one that has ended */
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        snprintf(ret_how, size, "signal %d", WTERMSIG(status));
    else
        snprintf(ret_how, size, "exit status %d", WEXITSTATUS(status));
}

static void end_worker(struct worker *worker, int64_t grace_ms)
{
    char how[32];
    if (worker->pid != 0)
        reap(worker, grace_ms, how, sizeof(how));
}

static void forget_fitness(struct worker *worker)
{
    cs_free(worker->unfit_reason);
    worker->unfit_reason = NULL;
    worker->is_unfit = false;
}

static void mark_unfit(struct worker *worker, cs_status status)
{
    forget_fitness(worker);
    worker->is_unfit = true;
    worker->unfit_status = status;
    worker->unfit_reason = cs_strdup(cs_error_text());
}

static cs_status lost(struct worker *worker, const char *during)
{
    /* A worker that was killed or crashed has closed its end; a hung one has not, and gets no grace. */
    char how[32], found[CS_ERROR_TEXT_BYTES];
    snprintf(found, sizeof(found), "%s", cs_error_text());
    reap(worker, 0, how, sizeof(how));
    return cs_fail(CS_UNAVAILABLE, "worker of '%s' was lost during %s (%s; %s)", worker->job, during, how, found);
}

static cs_status read_frame(struct worker *worker, cs_buffer *frame, cs_arena *arena, Consilium__V1__FromWorker **ret)
{
    cs_buffer_reset(frame);
    cs_arena_reset(arena);
    const int64_t until_ms = cs_clock_monotonic_ms() + CS_WORKER_SILENCE_MS;
    const cs_status status = cs_frame_read(worker->socket, CS_WIRE_MESSAGE_MAX_BYTES, until_ms, frame);
    if (status == CS_DONE)
        return cs_fail(CS_UNAVAILABLE, "it closed its socket");
    CS_TRY(status);
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__from_worker__descriptor, cs_buffer_view(frame), arena, &message));
    *ret = (Consilium__V1__FromWorker *)message;
    return CS_OK;
}

static cs_status worker_sentence(const Consilium__V1__WorkerFailed *failed)
{
    const cs_status code = cs_status_from_code(failed->code);
    return cs_fail(code == CS_OK ? CS_UNKNOWN : code, "%.800s", failed->reason);
}

/* Starts the process and configures it. CS_UNAVAILABLE: lost; another status: the worker's own refusal. */
static cs_status start_worker(cs_supervisor *supervisor, struct worker *worker, cs_bytes plan, char **participants,
                              size_t participants_count, const char *task_root, const char *personal, bool is_survey,
                              cs_arena *arena, Consilium__V1__WorkerReady **ret)
{
    /* Whatever hinders the start (a full disk, say) may pass: it counts as a loss, not as the worker's refusal. */
    if (cs_folder_make(task_root, 0700) != CS_OK)
        return CS_UNAVAILABLE;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        CS_IGNORE(cs_fail_errno("socketpair for the worker"), "leaves the sentence only");
        return CS_UNAVAILABLE;
    }
    CS_AUTO(cs_fd) theirs = pair[1];
    worker->socket = pair[0];
    CS_AUTO(cs_string) program = program_for(supervisor, personal != NULL);
    const struct timeval patience = {.tv_sec = WORKER_WRITE_TIMEOUT_S};
    setsockopt(worker->socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    pthread_mutex_lock(&supervisor->running_lock);
    const cs_status spawned =
        supervisor->is_stopped ? cs_fail(CS_CANCELLED, "the agent is stopping") : spawn(program, theirs, &worker->pid);
    if (spawned != CS_OK)
        worker->pid = 0;
    pthread_mutex_unlock(&supervisor->running_lock);
    if (spawned != CS_OK) {
        cs_fd_clear(&worker->socket);
        return CS_UNAVAILABLE;
    }
    cs_fd_clear(&theirs);
    const cs_status placed = cs_failpoint("agent.worker.started");
    if (placed != CS_OK)
        return lost(worker, "start");

    Consilium__V1__Configure configure = CONSILIUM__V1__CONFIGURE__INIT;
    configure.plan = cs_wire_data(plan.data, plan.size);
    configure.site_config = cs_wire_data(supervisor->site_config.data, supervisor->site_config.size);
    configure.site_config_dir = supervisor->site_config_folder;
    configure.site = supervisor->site;
    configure.task_root = (char *)(uintptr_t)task_root;
    if (personal != NULL)
        configure.personal = (char *)(uintptr_t)personal;
    configure.participants = participants;
    configure.n_participants = participants_count;
    configure.survey = is_survey;
    Consilium__V1__ToWorker message = CONSILIUM__V1__TO_WORKER__INIT;
    message.body_case = CONSILIUM__V1__TO_WORKER__BODY_CONFIGURE;
    message.configure = &configure;
    if (cs_frame_write_message(worker->socket, &message.base) != CS_OK)
        return lost(worker, "configuration");

    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    Consilium__V1__FromWorker *answer = NULL;
    if (read_frame(worker, &frame, arena, &answer) != CS_OK)
        return lost(worker, "configuration");
    if (answer->body_case == CONSILIUM__V1__FROM_WORKER__BODY_FAILED) {
        const cs_status said = worker_sentence(answer->failed);
        end_worker(worker, CS_WORKER_GRACE_MS);
        /* Its word, even where its code is that of a loss. */
        return said == CS_UNAVAILABLE ? CS_UNKNOWN : said;
    }
    if (answer->body_case != CONSILIUM__V1__FROM_WORKER__BODY_READY) {
        CS_IGNORE(cs_fail(CS_INVALID, "it answered Configure with neither Ready nor Failed"), "sentence for lost()");
        return lost(worker, "configuration");
    }
    *ret = answer->ready;
    return CS_OK;
}

cs_status cs_supervisor_describe(const cs_supervisor_config *config, cs_bytes plan, cs_arena *arena,
                                 Consilium__V1__WorkerReady **ret)
{
    CS_AUTO_PTR(cs_supervisor) supervisor = NULL;
    CS_TRY(cs_supervisor_new(config, &supervisor));
    /* Beside the jobs' folders: a job's name has no dot. */
    CS_AUTO(cs_string) root = cs_format("%s/.describe-%d", supervisor->tasks_folder, (int)getpid());
    struct worker worker = {.owner = supervisor, .job = (char[]){"describe"}, .socket = -1};
    CS_AUTO_PTR(cs_arena) scratch = cs_arena_new(FRAME_ARENA_BYTES);
    Consilium__V1__WorkerReady *ready = NULL;
    cs_status status = start_worker(supervisor, &worker, plan, NULL, 0, root, NULL, true, scratch, &ready);
    if (status == CS_OK) {
        CS_AUTO(cs_buffer) copy = CS_BUFFER_EMPTY;
        cs_wire_pack(&ready->base, &copy);
        ProtobufCMessage *message = NULL;
        status = cs_wire_unpack(&consilium__v1__worker_ready__descriptor, cs_buffer_view(&copy), arena, &message);
        *ret = (Consilium__V1__WorkerReady *)message;
    }
    end_worker(&worker, CS_WORKER_GRACE_MS);
    if (status == CS_OK)
        return cs_folder_remove(root);
    CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
    CS_IGNORE(cs_folder_remove(root), "the worker's sentence is what the caller must see");
    return cs_fail(status, "%s", sentence);
}

cs_status cs_supervisor_new(const cs_supervisor_config *config, cs_supervisor **ret)
{
    cs_supervisor *supervisor = cs_alloc(sizeof(*supervisor));
    supervisor->program = worker_program(config);
    supervisor->site = cs_strdup(config->site);
    supervisor->site_config_folder = cs_strdup(config->site_config_folder);
    supervisor->tasks_folder = cs_strdup(config->tasks_folder);
    cs_buffer_append(&supervisor->site_config, config->site_config.data, config->site_config.size);
    pthread_mutex_init(&supervisor->running_lock, NULL);
    *ret = supervisor;
    return CS_OK;
}

void cs_supervisor_free(cs_supervisor *supervisor)
{
    if (supervisor == NULL)
        return;
    for (struct worker *worker = supervisor->workers, *next; worker != NULL; worker = next) {
        next = worker->next;
        end_worker(worker, CS_WORKER_GRACE_MS);
        forget_fitness(worker);
        cs_free(worker->job);
        cs_free(worker);
    }
    pthread_mutex_destroy(&supervisor->running_lock);
    cs_buffer_clear(&supervisor->site_config);
    cs_free(supervisor->program);
    cs_free(supervisor->site);
    cs_free(supervisor->site_config_folder);
    cs_free(supervisor->tasks_folder);
    cs_free(supervisor);
}

static struct worker *worker_of(cs_supervisor *supervisor, const char *job)
{
    for (struct worker *worker = supervisor->workers; worker != NULL; worker = worker->next)
        if (strcmp(worker->job, job) == 0)
            return worker;
    struct worker *worker = cs_alloc(sizeof(*worker));
    worker->owner = supervisor;
    worker->job = cs_strdup(job);
    worker->socket = -1;
    worker->next = supervisor->workers;
    supervisor->workers = worker;
    return worker;
}

static void set_running(cs_supervisor *supervisor, struct worker *worker)
{
    pthread_mutex_lock(&supervisor->running_lock);
    supervisor->running = worker;
    supervisor->running_task = NULL;
    pthread_mutex_unlock(&supervisor->running_lock);
}

/* Writes WorkerTask unless the task was cancelled before; from then on a cancel goes to the worker. */
static cs_worker_end hand_over(struct worker *worker, const cs_worker_task *task)
{
    Consilium__V1__ToWorker message = CONSILIUM__V1__TO_WORKER__INIT;
    message.body_case = CONSILIUM__V1__TO_WORKER__BODY_TASK;
    message.task = (Consilium__V1__WorkerTask *)(uintptr_t)&task->task;
    cs_supervisor *supervisor = worker->owner;
    cs_worker_end end = CS_WORKER_DONE;
    pthread_mutex_lock(&supervisor->running_lock);
    if (atomic_load(task->is_cancelled)) {
        CS_IGNORE(cs_fail(CS_CANCELLED, "the task was cancelled"), "leaves the sentence only");
        end = CS_WORKER_REFUSED;
    } else if (cs_frame_write_message(worker->socket, &message.base) != CS_OK) {
        end = CS_WORKER_LOST;
    } else {
        supervisor->running_task = task;
    }
    pthread_mutex_unlock(&supervisor->running_lock);
    return end;
}

/* The conversation about one task, from WorkerTask to Done or Failed. */
static cs_worker_end converse(struct worker *worker, const cs_worker_task *task, cs_arena *arena,
                              Consilium__V1__WorkerDone **ret_done)
{
    const cs_worker_end given = hand_over(worker, task);
    if (given != CS_WORKER_DONE)
        return given;

    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    CS_AUTO_PTR(cs_arena) scratch = cs_arena_new(FRAME_ARENA_BYTES);
    for (;;) {
        Consilium__V1__FromWorker *said = NULL;
        if (read_frame(worker, &frame, scratch, &said) != CS_OK)
            return CS_WORKER_LOST;
        switch (said->body_case) {
        case CONSILIUM__V1__FROM_WORKER__BODY_PROGRESS:
            task->progress(task->self, said->progress);
            break;
        case CONSILIUM__V1__FROM_WORKER__BODY_DONE: {
            ProtobufCMessage *whole = NULL;
            if (cs_wire_unpack(&consilium__v1__from_worker__descriptor, cs_buffer_view(&frame), arena, &whole) != CS_OK)
                return CS_WORKER_REFUSED;
            *ret_done = ((Consilium__V1__FromWorker *)whole)->done;
            return CS_WORKER_DONE;
        }
        case CONSILIUM__V1__FROM_WORKER__BODY_FAILED: {
            const bool is_whole_worker = said->failed->key == NULL || said->failed->key->job[0] == '\0';
            const cs_status status = worker_sentence(said->failed);
            if (is_whole_worker)
                mark_unfit(worker, status);
            return is_whole_worker ? CS_WORKER_UNFIT : CS_WORKER_REFUSED;
        }
        default:
            CS_IGNORE(cs_fail(CS_INVALID, "it said something that no task calls for"), "sentence for lost()");
            return CS_WORKER_LOST;
        }
    }
}

/* Makes sure that the job's worker runs. */
static cs_worker_end prepare(cs_supervisor *supervisor, struct worker *worker, const cs_worker_task *task)
{
    if (worker->is_unfit) {
        CS_IGNORE(cs_fail(worker->unfit_status, "%s", worker->unfit_reason), "leaves the sentence only");
        return CS_WORKER_UNFIT;
    }
    if (worker->pid != 0)
        return CS_WORKER_DONE;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(FRAME_ARENA_BYTES);
    CS_AUTO(cs_string) root = cs_path_join(supervisor->tasks_folder, task->job);
    Consilium__V1__WorkerReady *ready = NULL;
    const cs_status started = start_worker(supervisor, worker, task->plan, task->task.participants,
                                           task->task.n_participants, root, task->personal, false, arena, &ready);
    if (started == CS_UNAVAILABLE || started == CS_INTERNAL)
        return CS_WORKER_LOST;
    const cs_status accepted = started == CS_OK ? task->ready(task->self, ready) : started;
    if (accepted != CS_OK) {
        mark_unfit(worker, accepted);
        end_worker(worker, CS_WORKER_GRACE_MS);
        CS_IGNORE(cs_fail(accepted, "%s", worker->unfit_reason), "leaves the sentence only");
        return CS_WORKER_UNFIT;
    }
    return CS_WORKER_DONE;
}

cs_worker_end cs_supervisor_run(cs_supervisor *supervisor, const cs_worker_task *task, cs_arena *arena,
                                Consilium__V1__WorkerDone **ret_done)
{
    struct worker *worker = worker_of(supervisor, task->job);
    set_running(supervisor, worker);
    cs_worker_end end = prepare(supervisor, worker, task);
    const bool has_begun = end == CS_WORKER_DONE;
    if (has_begun)
        end = converse(worker, task, arena, ret_done);
    set_running(supervisor, NULL);
    worker->idle_since_ms = cs_clock_monotonic_ms();
    if (has_begun && end == CS_WORKER_LOST)
        CS_IGNORE(lost(worker, task->task.key->phase), "leaves the sentence only");
    if (has_begun && end == CS_WORKER_UNFIT)
        end_worker(worker, CS_WORKER_GRACE_MS);
    return end;
}

void cs_supervisor_end_job(cs_supervisor *supervisor, const char *job)
{
    for (struct worker **at = &supervisor->workers; *at != NULL; at = &(*at)->next) {
        struct worker *worker = *at;
        if (strcmp(worker->job, job) != 0)
            continue;
        *at = worker->next;
        end_worker(worker, CS_WORKER_GRACE_MS);
        forget_fitness(worker);
        cs_free(worker->job);
        cs_free(worker);
        return;
    }
}

void cs_supervisor_end_idle(cs_supervisor *supervisor, int64_t idle_ms)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    for (struct worker *worker = supervisor->workers; worker != NULL; worker = worker->next)
        if (now_ms - worker->idle_since_ms >= idle_ms)
            end_worker(worker, CS_WORKER_GRACE_MS);
}

void cs_supervisor_cancel(cs_supervisor *supervisor, const char *job)
{
    Consilium__V1__CancelTask cancel = CONSILIUM__V1__CANCEL_TASK__INIT;
    Consilium__V1__ToWorker message = CONSILIUM__V1__TO_WORKER__INIT;
    message.body_case = CONSILIUM__V1__TO_WORKER__BODY_CANCEL;
    message.cancel = &cancel;
    pthread_mutex_lock(&supervisor->running_lock);
    const cs_worker_task *task = supervisor->running_task;
    if (task != NULL && strcmp(task->job, job) == 0) {
        cancel.key = task->task.key;
        CS_IGNORE(cs_frame_write_message(supervisor->running->socket, &message.base),
                  "a worker that is gone has nothing to stop");
    }
    pthread_mutex_unlock(&supervisor->running_lock);
}

/* running_lock is held. */
static void kill_running(cs_supervisor *supervisor, const char *job)
{
    const struct worker *worker = supervisor->running;
    if (worker != NULL && worker->pid != 0 && (job == NULL || strcmp(worker->job, job) == 0))
        kill(worker->pid, SIGKILL);
}

void cs_supervisor_kill(cs_supervisor *supervisor, const char *job)
{
    pthread_mutex_lock(&supervisor->running_lock);
    kill_running(supervisor, job);
    pthread_mutex_unlock(&supervisor->running_lock);
}

void cs_supervisor_stop(cs_supervisor *supervisor)
{
    pthread_mutex_lock(&supervisor->running_lock);
    supervisor->is_stopped = true;
    kill_running(supervisor, NULL);
    pthread_mutex_unlock(&supervisor->running_lock);
}
