/* consilium-worker: the process that opens patient data and computes. Started by the agent with --agent, or by a person
 * with a plan and site configurations. One thread of its own; libtorch has more. */
#include "client/worker/confine.h"
#include "client/worker/driver.h"
#include "client/worker/sanitizers.h"
#include "client/worker/session.h"
#include "common/base/log.h"

#include <signal.h>

static int run(const cs_arguments *arguments)
{
    if (!cs_argument_flag(arguments, "--agent"))
        return cs_worker_drive(arguments);
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
        {"--plan", "PLAN", "the plan to train or evaluate", false, false},
        {"--config", "SITE.yaml", "a site whose rows to use; several: all rows in one place", false, true},
        {"--site", "NAME", "order batches as this site would; default: the configuration's", false, false},
        {"--rounds", "N", "rounds of the plan's local steps; default: the plan's", false, false},
        {"--model", "FILE", "start from this safetensors file instead of the plan's first model", false, false},
        {"--evaluate", NULL, "do not train, only evaluate --model on each site's test rows", false, false},
        {"--output", "DIR", "write DIR/model.safetensors", false, false},
        {"--json", NULL, "results as JSON", false, false},
        {"--agent", NULL, "serve an agent on descriptor 3; for consilium-client only", false, false},
        {NULL, NULL, NULL, false, false},
    };
    static const cs_command commands[] = {
        {"", "train or evaluate a plan's model from files, without any agent", options, run},
        {NULL, NULL, NULL, NULL},
    };
    return cs_command_main("consilium-worker", "trains a plan's model on a site's own rows", commands, argc, argv);
}
