/* The operator's commands reach the daemon through its Unix socket. */
#include "server/cli/cli.h"

#include "common/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ANSWER_TIMEOUT_MS  60000
#define ANSWER_ARENA_BYTES (128 * 1024 * 1024)

const char *cli_state_folder(const cs_arguments *arguments)
{
    const char *folder = cs_argument(arguments, "--state");
    if (!folder)
        folder = getenv("CONSILIUM_STATE");
    return folder && folder[0] ? folder : CS_SERVER_DEFAULT_STATE;
}

static bool somebody_listens(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return false;
    strcpy(address.sun_path, path);
    CS_AUTO(cs_fd) fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
}

int cli_open(const cs_arguments *arguments, cli_session *session)
{
    *session = (cli_session){.arguments = arguments};
    CS_AUTO(cs_string) socket_path = cs_path_join(cli_state_folder(arguments), "admin.sock");
    if (!somebody_listens(socket_path)) {
        cs_command_fail(arguments,
                        cs_fail(CS_UNAVAILABLE, "no coordinator runs in '%s': start it with 'consilium-server run'",
                                cli_state_folder(arguments)));
        return CS_EXIT_NOT_RUNNING;
    }
    cs_rpc_start();
    CS_AUTO(cs_string) target = cs_format("unix:%s", socket_path);
    session->arena = cs_arena_new(ANSWER_ARENA_BYTES);
    cs_rpc_channel_config config = {.target = target};
    cs_status status = cs_rpc_channel_open(&config, &session->channel);
    return status == CS_OK ? CS_EXIT_OK : cli_fail(session, status);
}

void cli_close(cli_session *session)
{
    if (!session->arena)
        return;
    cs_rpc_channel_free(session->channel);
    cs_arena_free(session->arena);
    cs_rpc_stop();
}

int cli_fail(cli_session *session, cs_status status)
{
    int code = cs_command_fail(session->arguments, status);
    return status == CS_UNAVAILABLE ? CS_EXIT_NOT_RUNNING : code;
}

int cli_ask(cli_session *session, const char *method, const ProtobufCMessage *request,
            const ProtobufCMessageDescriptor *answer_type, ProtobufCMessage **ret)
{
    char path[128];
    snprintf(path, sizeof path, "/consilium.v1.Admin/%s", method);
    cs_status status =
        cs_rpc_unary(session->channel, path, request, answer_type, ANSWER_TIMEOUT_MS, session->arena, ret);
    return status == CS_OK ? CS_EXIT_OK : cli_fail(session, status);
}
