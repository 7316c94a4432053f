/* The agent's Unix socket: listener thread and asking side. See control.h. */
#include "client/agent/control.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A plan and its summary, twice over. */
#define CONTROL_ARENA_BYTES (16 * 1024 * 1024)
#define BACKLOG             8

struct cs_control {
    const Consilium__V1__ControlAnswer *(*answer)(void *self, const Consilium__V1__ControlRequest *request,
                                                  cs_arena *arena);
    void *self;
    char *path;
    cs_fd listener;
    pthread_t thread;
};

/* A socket's address holds 108 bytes, a state directory's path may be longer: the folder is named by its descriptor. */
static cs_status socket_address(const char *state_folder, cs_fd *ret_folder, struct sockaddr_un *ret)
{
    CS_TRY(cs_file_open(state_folder, O_RDONLY | O_DIRECTORY, 0, ret_folder));
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/" CS_CONTROL_SOCKET, *ret_folder);
    return CS_OK;
}

static void set_patience(int fd)
{
    const struct timeval patience = {.tv_sec = CS_CONTROL_TIMEOUT_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

static cs_status serve(const cs_control *control, int fd)
{
    set_patience(fd);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(CONTROL_ARENA_BYTES);
    ProtobufCMessage *request = NULL;
    CS_TRY(cs_frame_read_message(fd, &consilium__v1__control_request__descriptor,
                                 cs_clock_monotonic_ms() + CS_CONTROL_TIMEOUT_MS, arena, &request));
    const Consilium__V1__ControlAnswer *answer =
        control->answer(control->self, (const Consilium__V1__ControlRequest *)request, arena);
    return cs_frame_write_message(fd, &answer->base);
}

#define ACCEPT_PAUSE_MS 100

static void *listen_on(void *argument)
{
    const cs_control *control = argument;
    for (;;) {
        CS_AUTO(cs_fd) fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            cs_sleep_ms(ACCEPT_PAUSE_MS); /* commands wait meanwhile; they are not shut out for good */
            continue;
        }
        if (fd < 0)
            return NULL; /* cs_control_stop has shut the listener down */
        const cs_status status = serve(control, fd);
        if (status != CS_OK && status != CS_DONE)
            cs_log(CS_LOG_DEBUG, "agent", "control connection ended", CS_S("reason", cs_error_text()));
    }
}

cs_status cs_control_start(const char *state_folder,
                           const Consilium__V1__ControlAnswer *(*answer)(void *self,
                                                                         const Consilium__V1__ControlRequest *request,
                                                                         cs_arena *arena),
                           void *self, cs_control **ret)
{
    CS_AUTO(cs_fd) folder = -1;
    struct sockaddr_un address;
    CS_TRY(socket_address(state_folder, &folder, &address));
    CS_AUTO(cs_string) path = cs_path_join(state_folder, CS_CONTROL_SOCKET);
    CS_TRY(cs_file_remove(path)); /* what a killed agent left; the lock says that no other one runs */
    CS_AUTO(cs_fd) listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0)
        return cs_fail_errno("control socket");
    /* The mode of the descriptor becomes that of the name, so that at no time others may connect. */
    if (fchmod(listener, 0600) != 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        chmod(path, 0600) != 0 || listen(listener, BACKLOG) != 0)
        return cs_fail_errno("control socket '%s'", path);
    cs_control *control = cs_alloc(sizeof(*control));
    control->answer = answer;
    control->self = self;
    control->path = CS_TAKE(path);
    control->listener = listener;
    listener = -1;
    if (pthread_create(&control->thread, NULL, listen_on, control) != 0)
        abort(); /* no thread at all: nothing this process could still do */
    *ret = control;
    return CS_OK;
}

void cs_control_stop(cs_control *control)
{
    if (control == NULL)
        return;
    shutdown(control->listener, SHUT_RDWR);
    pthread_join(control->thread, NULL);
    cs_fd_clear(&control->listener);
    CS_IGNORE(cs_file_remove(control->path), "the next start removes it");
    cs_free(control->path);
    cs_free(control);
}

static cs_status not_running(const char *state_folder)
{
    return cs_fail(CS_UNAVAILABLE, "the agent of '%s' does not run: start it with `consilium-client run --state %s`",
                   state_folder, state_folder);
}

cs_status cs_control_ask(const char *state_folder, const Consilium__V1__ControlRequest *request, cs_arena *arena,
                         Consilium__V1__ControlAnswer **ret)
{
    CS_AUTO(cs_fd) folder = -1;
    struct sockaddr_un address;
    const cs_status found = socket_address(state_folder, &folder, &address);
    if (found == CS_NOT_FOUND)
        return not_running(state_folder);
    CS_TRY(found);
    CS_AUTO(cs_fd) fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cs_fail_errno("control socket");
    set_patience(fd);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            return not_running(state_folder);
        return cs_fail_errno("control socket of '%s'", state_folder);
    }
    CS_TRY(cs_frame_write_message(fd, &request->base));
    ProtobufCMessage *message = NULL;
    const cs_status status = cs_frame_read_message(fd, &consilium__v1__control_answer__descriptor,
                                                   cs_clock_monotonic_ms() + CS_CONTROL_TIMEOUT_MS, arena, &message);
    if (status == CS_DONE)
        return cs_fail(CS_UNAVAILABLE, "the agent of '%s' ended before it answered", state_folder);
    CS_TRY(status);
    Consilium__V1__ControlAnswer *answer = (Consilium__V1__ControlAnswer *)message;
    if (answer->code != 0)
        return cs_fail(cs_status_from_code(answer->code), "%s", answer->error);
    *ret = answer;
    return CS_OK;
}
