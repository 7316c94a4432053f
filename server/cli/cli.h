/* The commands of consilium-server. Main thread. */
#ifndef CS_SERVER_CLI_CLI_H
#define CS_SERVER_CLI_CLI_H

#include "common/base/command.h"
#include "common/base/json.h"
#include "common/rpc/rpc.h"

#define CS_SERVER_DEFAULT_STATE "/var/lib/consilium-server"
/* The options every command has. */
#define CS_STATE_OPTION                                                                                                \
    {                                                                                                                  \
        "--state", "DIR", "state directory (else $CONSILIUM_STATE, else " CS_SERVER_DEFAULT_STATE ")", false, false    \
    }
#define CS_JSON_OPTION                                                                                                 \
    {                                                                                                                  \
        "--json", NULL, "print JSON", false, false                                                                     \
    }

const char *cli_state_folder(const cs_arguments *arguments);
static inline bool cli_is_json(const cs_arguments *arguments)
{
    return cs_argument_flag(arguments, "--json");
}

/* A connection to the daemon of this state directory. */
typedef struct cli_session {
    cs_rpc_channel *channel;
    cs_arena *arena;
    const cs_arguments *arguments;
} cli_session;
/* Returns CS_EXIT_OK, or says why and returns the exit code. Always followed by cli_close. */
int cli_open(const cs_arguments *arguments, cli_session *session);
void cli_close(cli_session *session);
/* One question; on failure says why and returns the exit code. */
int cli_ask(cli_session *session, const char *method, const ProtobufCMessage *request,
            const ProtobufCMessageDescriptor *answer_type, ProtobufCMessage **ret);
/* Says the current error: CS_EXIT_NOT_RUNNING when the daemon is not there. */
int cli_fail(cli_session *session, cs_status status);

int cli_init(const cs_arguments *arguments);
int cli_run(const cs_arguments *arguments);
int cli_job_submit(const cs_arguments *arguments);
int cli_job_list(const cs_arguments *arguments);
int cli_job_show(const cs_arguments *arguments);
int cli_job_watch(const cs_arguments *arguments);
int cli_job_cancel(const cs_arguments *arguments);
int cli_job_resume(const cs_arguments *arguments);
int cli_site_list(const cs_arguments *arguments);
int cli_site_revoke(const cs_arguments *arguments);
int cli_token_new(const cs_arguments *arguments);
int cli_token_answer(const cs_arguments *arguments);
int cli_model_list(const cs_arguments *arguments);
int cli_model_export(const cs_arguments *arguments);

/* ---- how a job looks (render.c) ---- */
const char *cli_job_state(Consilium__V1__JobState state);
bool cli_job_has_ended(Consilium__V1__JobState state);
int cli_job_exit(Consilium__V1__JobState state);
/* One JSON object and a line feed on stdout. */
void cli_print_job_json(const Consilium__V1__JobStatus *job);
void cli_append_job_json(cs_json *json, const char *key, const Consilium__V1__JobStatus *job);
/* Header, sites, rounds. */
void cli_print_job(const Consilium__V1__JobStatus *job);
/* Watching: redraws on a terminal, else one plain line for each thing that happened. */
typedef struct cli_view cli_view;
cli_view *cli_view_new(bool is_terminal);
void cli_view_show(cli_view *view, const Consilium__V1__JobStatus *job);
void cli_view_free(cli_view *view);

#endif
