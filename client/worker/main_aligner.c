/* consilium-aligner: what consilium-worker does for an alignment, without libtorch. Started by the agent with --agent.
 */
#include "client/worker/confine.h"
#include "client/worker/sanitizers.h"
#include "client/worker/session.h"
#include "common/base/command.h"
#include "common/base/log.h"

#include <signal.h>

static int run(const cs_arguments *arguments)
{
    (void)arguments;
    cs_confine_close_above(CS_WORKER_FD);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* a terminal sends it to the agent too, and the agent decides */
    if (cs_worker_session(CS_WORKER_FD) == CS_OK)
        return CS_EXIT_OK;
    cs_log(CS_LOG_ERROR, "worker", "the worker ends", CS_S("reason", cs_error_text()));
    return CS_EXIT_ERROR;
}

int main(int argc, char **argv)
{
    static const cs_option options[] = {
        {"--agent", NULL, "serve an agent on descriptor 3; for consilium-client only", true, false},
        {NULL, NULL, NULL, false, false},
    };
    static const cs_command commands[] = {
        {"", "find common patients without showing anybody the others", options, run},
        {NULL, NULL, NULL, NULL},
    };
    return cs_command_main("consilium-aligner", "a site's part in an alignment", commands, argc, argv);
}
