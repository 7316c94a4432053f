/* consilium-client: the hospital's daemon and the commands of its people. The main thread runs a command; for `run` it
 * starts the agent and waits for a signal. */
#include "client/agent/agent.h"
#include "client/agent/commands.h"
#include "client/agent/doctor.h"
#include "client/agent/enrol.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/service.h"
#include "common/rpc/rpc.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each malloc arena keeps what its thread once used; few of them keep the resident size small. */
#define MALLOC_ARENAS 2

/* Descriptors 0 to 2 must be something: a socket that took one of them would be handed to the worker. */
static cs_status keep_standard_descriptors(void)
{
    for (;;) {
        cs_fd fd = -1;
        CS_TRY(cs_file_open("/dev/null", O_RDWR, 0, &fd));
        if (fd > 2)
            return cs_file_close(&fd);
        /* stays open on purpose: 0, 1 or 2 was free */
    }
}

static int wait_for_signal(const sigset_t *signals)
{
    int signal = 0;
    while (sigwait(signals, &signal) != 0)
        ;
    return signal;
}

static int run(const cs_arguments *arguments)
{
    cs_log_level level = CS_LOG_INFO;
    const char *level_text = cs_argument(arguments, "--log");
    if (level_text != NULL) {
        const cs_status parsed = cs_log_level_parse(level_text, &level);
        if (parsed != CS_OK)
            return cs_command_fail(arguments, parsed);
    }
    cs_log_set_level(level);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread: all of them inherit it */

    cs_rpc_start();
    const cs_agent_config config = {.state_folder = client_state_folder(arguments),
                                    .config_path = client_config_path(arguments)};
    cs_agent *agent = NULL;
    cs_status status = keep_standard_descriptors();
    if (status == CS_OK)
        status = cs_agent_start(&config, &agent);
    if (status != CS_OK) {
        const int code = cs_command_fail(arguments, status);
        cs_rpc_stop();
        return code;
    }
    cs_log(CS_LOG_INFO, "agent", "running", CS_S("state", config.state_folder), CS_S("version", CS_VERSION));
    cs_service_ready();
    const int signal = wait_for_signal(&signals);
    cs_log(CS_LOG_INFO, "agent", "stopping", CS_S("signal", strsignal(signal)));
    cs_agent_stop(agent);
    cs_rpc_stop();
    return CS_EXIT_OK;
}

static cs_status do_join(const cs_arguments *arguments, const cs_join_options *options)
{
    const char *request = cs_argument(arguments, "--request");
    const char *answer = cs_argument(arguments, "--answer");
    if (request != NULL && answer != NULL)
        return cs_fail(CS_INVALID, "join: --request and --answer are two steps: one at a time");
    if (request != NULL)
        return cs_join_request(options, request);
    return answer != NULL ? cs_join_answer(options, answer) : cs_join(options);
}

/* What the options say that site.yaml shall say. The file's paths hold wherever the agent is started. */
typedef struct wishes {
    struct cs_site_template_dataset *datasets;
    size_t datasets_count;
    cs_secret proxy_login;
    char *proxy_login_file;
} wishes;

static void wishes_clear(wishes *self)
{
    for (size_t i = 0; i < self->datasets_count; i++) {
        cs_free(self->datasets[i].name);
        cs_free(self->datasets[i].table);
    }
    cs_free(self->datasets);
    cs_secret_clear(&self->proxy_login);
    cs_free(self->proxy_login_file);
}

static cs_status absolute_file(const char *path, char **ret)
{
    char *whole = realpath(path, NULL);
    if (whole == NULL)
        return cs_fail_errno("%s", path);
    *ret = cs_strdup(whole);
    free(whole); /* NOLINT: realpath's own memory */
    return CS_OK;
}

/* "heart-v1=heart.csv" */
static cs_status take_dataset(const char *text, wishes *self)
{
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text || equals[1] == 0)
        return cs_fail(CS_INVALID, "--dataset: found '%.200s', expected NAME=FILE such as heart-v1=heart.csv", text);
    self->datasets = cs_realloc(self->datasets, (self->datasets_count + 1) * sizeof *self->datasets);
    struct cs_site_template_dataset *dataset = &self->datasets[self->datasets_count++];
    *dataset = (struct cs_site_template_dataset){.name = cs_strndup(text, (size_t)(equals - text))};
    cs_status status = absolute_file(equals + 1, &dataset->table);
    return status == CS_OK ? CS_OK : cs_wrap(status, "--dataset %s", dataset->name);
}

static cs_status take_approval(const char *name, wishes *self)
{
    for (size_t i = 0; i < self->datasets_count; i++) {
        if (strcmp(self->datasets[i].name, name) == 0) {
            self->datasets[i].is_approved = true;
            return CS_OK;
        }
    }
    return cs_fail(CS_INVALID, "--approve: found '%.200s', expected the name of a --dataset", name);
}

static cs_status take_wishes(const cs_arguments *arguments, wishes *self)
{
    const char *text;
    for (size_t i = 0; (text = cs_argument_at(arguments, "--dataset", i)) != NULL; i++)
        CS_TRY(take_dataset(text, self));
    for (size_t i = 0; (text = cs_argument_at(arguments, "--approve", i)) != NULL; i++)
        CS_TRY(take_approval(text, self));
    const char *login_file = cs_argument(arguments, "--proxy-login");
    if (login_file == NULL)
        return CS_OK;
    if (cs_argument(arguments, "--proxy") == NULL)
        return cs_fail(CS_INVALID, "--proxy-login: found it without --proxy");
    CS_TRY(absolute_file(login_file, &self->proxy_login_file));
    return cs_proxy_login_read(login_file, &self->proxy_login);
}

static int join(const cs_arguments *arguments)
{
    CS_AUTO(wishes) wishes = {0};
    cs_status status = take_wishes(arguments, &wishes);
    const cs_join_options options = {.state_folder = client_state_folder(arguments),
                                     .join_file = cs_argument(arguments, "FILE"),
                                     .proxy = cs_argument(arguments, "--proxy"),
                                     .proxy_login =
                                         wishes.proxy_login.size > 0 ? cs_buffer_text(&wishes.proxy_login) : NULL,
                                     .proxy_login_file = wishes.proxy_login_file,
                                     .site_config = client_config_path(arguments),
                                     .datasets = wishes.datasets,
                                     .datasets_count = wishes.datasets_count};
    if (status == CS_OK)
        status = do_join(arguments, &options);
    CS_AUTO(cs_string) words = NULL;
    if (status == CS_OK)
        status = cs_join_authority_words(&options, &words);
    if (status != CS_OK)
        return cs_command_fail(arguments, status);

    const char *request = cs_argument(arguments, "--request");
    if (cs_argument_flag(arguments, "--json")) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        cs_json_object(&json, NULL);
        cs_json_bool(&json, "joined", request == NULL);
        cs_json_text(&json, "state", options.state_folder);
        cs_json_text(&json, "authority", words);
        cs_json_end(&json, '}');
        printf("%s\n", cs_buffer_text(&out));
        return CS_EXIT_OK;
    }
    printf("The authority in %s: %s. Compare with the operator by telephone.\n", options.join_file, words);
    if (request != NULL) {
        printf("%s is for the operator: `consilium-server token answer` makes the answer; then\n"
               "consilium-client join %s --answer ANSWER\n",
               request, options.join_file);
    } else {
        printf("joined; keys and certificate are in %s/keys and stay there. Next:%s\n"
               "consilium-client doctor\nconsilium-client run\n",
               options.state_folder, options.datasets_count > 0 ? "" : " name the data sets in site.yaml, then");
    }
    return CS_EXIT_OK;
}

static int doctor(const cs_arguments *arguments)
{
    cs_rpc_start();
    const cs_doctor_options options = {.state_folder = client_state_folder(arguments),
                                       .config_path = client_config_path(arguments)};
    const int code = cs_doctor(&options, cs_argument_flag(arguments, "--json"));
    cs_rpc_stop();
    return code;
}

#define STATE_OPTION                                                                                                   \
    {                                                                                                                  \
        "--state", "DIR", "state directory (else $CONSILIUM_STATE, else " CS_CLIENT_DEFAULT_STATE ")", false, false    \
    }
#define CONFIG_OPTION                                                                                                  \
    {                                                                                                                  \
        "--config", "FILE",                                                                                            \
            "the site's configuration (else $CONSILIUM_CONFIG, else site.yaml in the state directory)", false, false   \
    }
#define JSON_OPTION                                                                                                    \
    {                                                                                                                  \
        "--json", NULL, "print JSON", false, false                                                                     \
    }
#define OPTIONS(list, ...)                                                                                             \
    static const cs_option list[] = {                                                                                  \
        __VA_ARGS__ __VA_OPT__(, ) STATE_OPTION, CONFIG_OPTION, JSON_OPTION, {.name = NULL}}

OPTIONS(run_options, {"--log", "LEVEL", "error, warn, info or debug (info)", false, false});
OPTIONS(join_options, {"FILE", NULL, "the join file that the operator made for this site", true, false},
        {"--request", "FILE", "offline, first step: write the request for the operator", false, false},
        {"--answer", "FILE", "offline, second step: take the operator's answer in", false, false},
        {"--dataset", "NAME=FILE", "the CSV table that plans know by this name; goes into site.yaml", false, true},
        {"--approve", "NAME", "plans that use this data set run without a person's yes", false, true},
        {"--proxy", "HOST:PORT", "HTTP CONNECT proxy on the way to the coordinator; goes into site.yaml", false, false},
        {"--proxy-login", "FILE", "file (mode 0600) with user:password for the proxy", false, false});
OPTIONS(plain_options);
OPTIONS(status_options,
        {"--healthy", NULL, "one line: in the federation, or not and why; not is exit code 1", false, false});
OPTIONS(show_options, {"PLAN", NULL, "a job, a plan's name, or the beginning of its hash", true, false});
OPTIONS(approve_options, {"HASH", NULL, "the whole hash that `plan show` printed", true, false},
        {"--runs", "N", "approve N jobs with this very plan (1)", false, false});
OPTIONS(align_options, {"PLAN", NULL, "the plan's file", true, false},
        {"--dry-run", NULL, "count rows, keys, duplicates and missing fields here, without asking anybody", false,
         false});
OPTIONS(roster_options, {"HASH", NULL, "the whole hash that `roster show` printed", true, false});
OPTIONS(refuse_options, {"PLAN", NULL, "a job, a plan's name, or the beginning of its hash", true, false},
        {"--reason", "TEXT", "why; the operator reads it", false, false});

static const cs_command commands[] = {
    {"join", "make this site's keys and get its certificate", join_options, join},
    {"doctor", "look for what stands between this site and the federation", plain_options, doctor},
    {"run", "run the agent in the foreground", run_options, run},
    {"status", "connection, certificate, task, transcript", status_options, client_status},
    {"plan list", "the plans offered to this site and what was decided", plain_options, client_plan_list},
    {"plan show", "a plan, what it would do here, and its hash", show_options, client_plan_show},
    {"plan approve", "approve the plan with this hash, for one job", approve_options, client_plan_approve},
    {"plan refuse", "refuse a plan, or withdraw the approval", refuse_options, client_plan_refuse},
    {"align", "count what an alignment would find in this site's own table", align_options, client_align},
    {"roster show", "the sites of the consortium, and the fingerprint of each one's key", plain_options,
     client_roster_show},
    {"roster approve", "approve the roster with this hash, after comparing the fingerprints", roster_options,
     client_roster_approve},
    {.name = NULL},
};

int main(int argc, char **argv)
{
    mallopt(M_ARENA_MAX, MALLOC_ARENAS);
    signal(SIGPIPE, SIG_IGN); /* a peer that went away is told by the write's status */
    if (cs_crypto_start() != CS_OK) {
        fprintf(stderr, "consilium-client: %s\n", cs_error_text());
        return CS_EXIT_ERROR;
    }
    return cs_command_main("consilium-client", "a hospital's part in a consortium", commands, argc, argv);
}
