/* `init` and `run`: the coordinator's life from keys to a clean stop. Main thread: starts everything, then waits for
 * signals and does the housekeeping of certificates. */
#include "server/cli/cli.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/service.h"
#include "server/services/services.h"
#include "server/web/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#define STOP_GRACE_MS    3000
#define RENEWAL_CHECK_MS 60000
#define TICK_MS          200

static cs_status authority_words(const char *folder, char **ret)
{
    CS_AUTO(cs_string) path = cs_path_join(folder, "keys/authority.crt");
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(path, CS_PEM_MAX_BYTES, &pem));
    return cs_certificate_words(cs_buffer_view(&pem), ret);
}

int cli_init(const cs_arguments *arguments)
{
    int64_t port = 8443, enrolment_port = 8444;
    cs_status status = cs_argument_int(arguments, "--port", 0, 65535, &port);
    if (status == CS_OK)
        status = cs_argument_int(arguments, "--enrolment-port", 0, 65535, &enrolment_port);
    const char *folder = cli_state_folder(arguments);
    if (status == CS_OK)
        status = cs_pki_init(folder, cs_argument(arguments, "--name"), cs_argument(arguments, "--address"),
                             (uint16_t)port, (uint16_t)enrolment_port);
    CS_AUTO(cs_string) words = NULL;
    if (status == CS_OK)
        status = authority_words(folder, &words);
    if (status != CS_OK)
        return cs_command_fail(arguments, status);
    if (cli_is_json(arguments)) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        cs_json_object(&json, NULL);
        cs_json_text(&json, "state", folder);
        cs_json_text(&json, "authority", words);
        cs_json_end(&json, '}');
        printf("%s\n", cs_buffer_text(&out));
    } else {
        printf("The consortium's keys and server.yaml are in %s.\n"
               "Keep keys/authority.key safe: whoever has it can admit hospitals.\n"
               "The authority: %s. A hospital sees the same words when it joins.\n"
               "Next: consilium-server run; then consilium-server token new SITE > SITE.join\n",
               folder, words);
    }
    return CS_EXIT_OK;
}

/* Everything a running coordinator holds, in the order of its making. */
struct coordinator {
    char *folder;
    cs_fd lock;
    cs_server_config *config;
    cs_blobs *blobs;
    cs_transcript *transcript;
    cs_pki *pki;
    cs_services *services;
    cs_engine *engine;
    cs_enrolment *enrolment;
    cs_rpc_server *server;
    cs_web_metrics *metrics; /* NULL: not served */
};

static cs_status lock_state(struct coordinator *coordinator)
{
    CS_AUTO(cs_string) path = cs_path_join(coordinator->folder, "lock");
    CS_TRY(cs_file_open(path, O_RDWR | O_CREAT, 0600, &coordinator->lock));
    if (flock(coordinator->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return cs_fail(CS_EXISTS, "another coordinator runs in '%s'", coordinator->folder);
    return CS_OK;
}

static cs_status publish_registry(void *argument, cs_store *store)
{
    (void)argument;
    return cs_registry_publish(store);
}

static cs_status run_on_engine(void *self, cs_status (*work)(void *argument, cs_store *store), void *argument)
{
    return cs_engine_run(self, work, argument);
}

static cs_status start_server(struct coordinator *coordinator)
{
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) key = CS_BUFFER_EMPTY;
    CS_TRY(cs_pki_own_identity(coordinator->pki, &certificate, &key));
    CS_AUTO(cs_string) listen = cs_format("%s:%u", coordinator->config->listen, coordinator->config->port);
    CS_AUTO(cs_string) admin_socket = cs_path_join(coordinator->folder, "admin.sock");
    cs_rpc_server_config config = {
        .listen = listen,
        .unix_socket = admin_socket,
        .methods = cs_services_federation_methods(),
        .local_methods = cs_services_admin_methods(),
        .identity = {cs_buffer_view(&certificate), cs_buffer_view(&key), cs_pki_authority_pem(coordinator->pki)},
        .context = coordinator->services,
        .admit = cs_services_admit,
    };
    cs_status status = cs_rpc_server_start(&config, &coordinator->server);
    cs_buffer_wipe(&key);
    return status;
}

static cs_status start_metrics(struct coordinator *coordinator)
{
    if (!coordinator->config->metrics)
        return CS_OK;
    cs_web_metrics_config config = {.address = coordinator->config->metrics,
                                    .state_folder = coordinator->folder,
                                    .engine = coordinator->engine,
                                    .services = coordinator->services,
                                    .pki = coordinator->pki};
    CS_TRY(cs_web_metrics_start(&config, &coordinator->metrics));
    cs_log(CS_LOG_INFO, "server", "metrics", CS_I("port", cs_web_metrics_port(coordinator->metrics)));
    return CS_OK;
}

static cs_status start(struct coordinator *coordinator)
{
    CS_AUTO(cs_string) config_path = cs_path_join(coordinator->folder, "server.yaml");
    if (!cs_file_exists(config_path))
        return cs_fail(CS_STATE,
                       "'%s' is no coordinator's state directory: it has no server.yaml; make one with "
                       "'consilium-server init --name NAME --address HOST'",
                       coordinator->folder);
    CS_TRY(lock_state(coordinator));
    CS_TRY(cs_server_config_load(config_path, &coordinator->config));

    CS_AUTO(cs_string) blobs_folder = cs_path_join(coordinator->folder, "blobs");
    CS_AUTO(cs_string) audit_folder = cs_path_join(coordinator->folder, "audit");
    CS_TRY(cs_blobs_open(blobs_folder, &coordinator->blobs));
    CS_TRY(cs_transcript_open(audit_folder, &coordinator->transcript));
    CS_TRY(cs_pki_open(coordinator->folder, coordinator->config, coordinator->transcript, &coordinator->pki));

    const cs_server_config *config = coordinator->config;
    CS_AUTO(cs_string) main_address = cs_format("%s:%u", config->address, config->port);
    CS_AUTO(cs_string) enrolment_address = cs_format("%s:%u", config->address, config->enrolment_port);
    cs_services_config services = {.blobs = coordinator->blobs,
                                   .pki = coordinator->pki,
                                   .coordinator = main_address,
                                   .enrolment = enrolment_address};
    coordinator->services = cs_services_new(&services);

    cs_engine_config engine = {.state_folder = coordinator->folder,
                               .blobs = coordinator->blobs,
                               .transcript = coordinator->transcript,
                               .server = config,
                               .send = cs_services_send,
                               .send_self = coordinator->services};
    CS_TRY(cs_engine_start(&engine, &coordinator->engine));
    cs_services_set_engine(coordinator->services, coordinator->engine);
    CS_TRY(cs_engine_run(coordinator->engine, publish_registry, NULL));
    CS_TRY(start_server(coordinator));
    cs_services_set_server(coordinator->services, coordinator->server);
    CS_TRY(cs_enrolment_start(coordinator->pki, config->listen, config->enrolment_port, run_on_engine,
                              coordinator->engine, &coordinator->enrolment));
    CS_TRY(start_metrics(coordinator));
    cs_rpc_server_set_serving(coordinator->server, true);
    return CS_OK;
}

static void stop(struct coordinator *coordinator)
{
    cs_web_metrics_stop(coordinator->metrics); /* while the engine can still answer */
    if (coordinator->enrolment)
        cs_enrolment_stop(coordinator->enrolment);
    if (coordinator->services)
        cs_services_set_server(coordinator->services, NULL);
    if (coordinator->server) {
        /* Work on the engine's thread may still hold the server; it is done when work posted now is. */
        CS_IGNORE(cs_engine_run(coordinator->engine, publish_registry, NULL), "waited for, whatever came of it");
        cs_rpc_server_stop(coordinator->server, STOP_GRACE_MS);
    }
    if (coordinator->engine)
        cs_engine_stop(coordinator->engine);
    cs_services_free(coordinator->services);
    cs_pki_free(coordinator->pki);
    cs_transcript_free(coordinator->transcript);
    cs_blobs_free(coordinator->blobs);
    cs_server_config_free(coordinator->config);
    cs_fd_clear(&coordinator->lock);
    cs_free(coordinator->folder);
}

static cs_status renew_own_certificate(struct coordinator *coordinator)
{
    bool has_changed = false;
    CS_TRY(cs_pki_renew_own(coordinator->pki, &has_changed));
    if (!has_changed)
        return CS_OK;
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) key = CS_BUFFER_EMPTY;
    CS_TRY(cs_pki_own_identity(coordinator->pki, &certificate, &key));
    cs_rpc_identity identity = {cs_buffer_view(&certificate), cs_buffer_view(&key),
                                cs_pki_authority_pem(coordinator->pki)};
    cs_status status = cs_rpc_server_reload(coordinator->server, identity);
    cs_buffer_wipe(&key);
    CS_TRY(status);
    CS_TRY(cs_enrolment_reload(coordinator->enrolment));
    cs_log(CS_LOG_INFO, "server", "renewed the coordinator's certificate");
    return CS_OK;
}

static int wait_for_signal(const sigset_t *signals, int64_t timeout_ms)
{
    struct timespec timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
    return sigtimedwait(signals, NULL, &timeout);
}

/* Short-lived certificates (tests) are looked at more often. */
static int64_t renewal_check_ms(const cs_server_config *config)
{
    return CS_MAX(TICK_MS, CS_MIN(RENEWAL_CHECK_MS, config->leaf_life_ms / 20));
}

static void serve_until_signal(struct coordinator *coordinator, const sigset_t *signals)
{
    int64_t next_check_ms = 0;
    while (wait_for_signal(signals, TICK_MS) < 0) {
        cs_services_tick(coordinator->services);
        if (cs_clock_monotonic_ms() < next_check_ms)
            continue;
        next_check_ms = cs_clock_monotonic_ms() + renewal_check_ms(coordinator->config);
        if (renew_own_certificate(coordinator) != CS_OK)
            cs_log(CS_LOG_ERROR, "server", "the coordinator's certificate could not be renewed",
                   CS_S("error", cs_error_text()));
    }
}

int cli_run(const cs_arguments *arguments)
{
    cs_log_level level = CS_LOG_INFO;
    const char *level_text = cs_argument(arguments, "--log");
    if (level_text && cs_log_level_parse(level_text, &level) != CS_OK)
        return cs_command_fail(arguments, CS_INVALID);
    cs_log_set_level(level);

    /* Blocked before the first thread starts, so that only this one takes them. */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);

    int64_t begun_ms = cs_clock_monotonic_ms();
    cs_rpc_start();
    struct coordinator coordinator = {.lock = -1, .folder = cs_strdup(cli_state_folder(arguments))};
    cs_status status = start(&coordinator);
    int code = CS_EXIT_OK;
    if (status == CS_OK) {
        cs_log(CS_LOG_INFO, "server", "serving", CS_S("consortium", cs_pki_consortium(coordinator.pki)),
               CS_I("port", cs_rpc_server_port(coordinator.server)),
               CS_I("enrolment_port", cs_enrolment_port(coordinator.enrolment)),
               CS_I("started_ms", cs_clock_monotonic_ms() - begun_ms));
        cs_service_ready();
        serve_until_signal(&coordinator, &signals);
        cs_log(CS_LOG_INFO, "server", "stopping");
    } else {
        code = cs_command_fail(arguments, status);
    }
    stop(&coordinator);
    cs_rpc_stop();
    return code;
}
