/* consilium-server: the coordinator and the operator's commands. */
#include "server/cli/cli.h"

#include "common/crypto/sign.h"

#include <stdio.h>

#define OPTIONS(list, ...)                                                                                             \
    static const cs_option list[] = {__VA_ARGS__ __VA_OPT__(, ) CS_STATE_OPTION, CS_JSON_OPTION, {.name = NULL}}

OPTIONS(init_options, {"--name", "TEXT", "name of the consortium, as people say it", true, false},
        {"--address", "HOST", "name or address that sites dial", true, false},
        {"--port", "PORT", "main port, mutual TLS (8443)", false, false},
        {"--enrolment-port", "PORT", "enrolment port (8444)", false, false});
OPTIONS(run_options, {"--log", "LEVEL", "error, warn, info or debug (info)", false, false});
OPTIONS(submit_options, {"PLAN", NULL, "the plan, a YAML file", true, false},
        {"--watch", NULL, "stay and watch the job", false, false});
OPTIONS(job_options, {"JOB", NULL, "name of the job", true, false});
OPTIONS(cancel_options, {"JOB", NULL, "name of the job", true, false},
        {"--reason", "TEXT", "why; sites read it", false, false});
OPTIONS(plain_options);
OPTIONS(revoke_options, {"SITE", NULL, "name of the site", true, false},
        {"--reason", "TEXT", "why; kept in the transcript", false, false});
OPTIONS(token_options, {"SITE", NULL, "name of the site: letters a-z, digits, '-'", true, false},
        {"--rejoin", NULL, "for a site that has been here: its old keys stop working when it joins", false, false},
        {"--valid", "TIME", "how long the token may be used: 90s, 10m, 24h, 7d (24h)", false, false});
OPTIONS(answer_options, {"FILE", NULL, "the request the site made with join --request", true, false});
OPTIONS(export_options, {"JOB", NULL, "name of the job", true, false},
        {"--round", "ROUND", "best, last or a number (best)", false, false},
        {"--output", "FILE", "where to write the safetensors file", true, false});

static const cs_command commands[] = {
    {"init", "make the consortium: authority, keys, server.yaml", init_options, cli_init},
    {"run", "run the coordinator in the foreground", run_options, cli_run},
    {"token new", "print a join file for a site (one use)", token_options, cli_token_new},
    {"token answer", "answer a site's offline request", answer_options, cli_token_answer},
    {"site list", "the sites, their state and certificates", plain_options, cli_site_list},
    {"site revoke", "end a site's membership at once", revoke_options, cli_site_revoke},
    {"job submit", "check a plan and offer it to the sites", submit_options, cli_job_submit},
    {"job list", "all jobs, a line each", plain_options, cli_job_list},
    {"job show", "one job: sites, rounds, metrics", job_options, cli_job_show},
    {"job watch", "follow a job until it ends", job_options, cli_job_watch},
    {"job cancel", "end a job", cancel_options, cli_job_cancel},
    {"job resume", "go on with a paused job", job_options, cli_job_resume},
    {"model list", "the models a job kept", job_options, cli_model_list},
    {"model export", "write a model to a file", export_options, cli_model_export},
    {.name = NULL},
};

int main(int argc, char **argv)
{
    if (cs_crypto_start() != CS_OK) {
        fprintf(stderr, "consilium-server: %s\n", cs_error_text());
        return CS_EXIT_ERROR;
    }
    return cs_command_main("consilium-server", "the coordinator of a consortium, and its operator's commands", commands,
                           argc, argv);
}
