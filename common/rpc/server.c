/* The server: its ports, its certificate, its queues and their threads, start and stop. What happens to one call is in
 * call.c. Functions of rpc.h may be called from any thread but the queues' own. */
#include "common/rpc/call.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/file.h"

#include <errno.h>
#include <grpc/grpc_security.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define QUEUES_DEFAULT 2
/* Calls that may arrive on a queue at the same moment before one waits for its thread. */
#define CALLS_ARMED 4
#define SWEEP_MS    1000
/* A site has one Attend, a few transfers and a probe. */
#define STREAMS_PER_CONNECTION_MAX 64
/* Strangers may hold a connection for so long. */
#define HANDSHAKE_TIMEOUT_MS 10000
/* Without a call for so long a connection is closed; the other side opens one when it next has something to say. */
#define IDLE_MS (10 * 60 * 1000)
/* Clients ping every 25 s; less than half of that is still allowed, or their clocks would decide. */
#define PING_INTERVAL_MIN_MS 10000
#define KEEPALIVE_MS         60000
#define KEEPALIVE_TIMEOUT_MS 600000

/* ---- certificate ---- */

static void set_text(cs_buffer *buffer, cs_bytes bytes)
{
    cs_buffer_wipe(buffer);
    cs_buffer_append(buffer, bytes.data, bytes.size);
}

cs_status cs_rpc_server_reload(cs_rpc_server *server, cs_rpc_identity identity)
{
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_TRY(cs_tls_key_read(identity.key_pem, "the server's key", &key));
    CS_TRY(cs_certificate_matches_key(identity.certificate_pem, key));
    if (identity.authority_pem.size == 0)
        return cs_fail(CS_INVALID, "no authority to check the clients' certificates with");
    pthread_mutex_lock(&server->identity_guard);
    set_text(&server->certificate, identity.certificate_pem);
    set_text(&server->key, identity.key_pem);
    set_text(&server->authority, identity.authority_pem);
    server->identity_version++;
    pthread_mutex_unlock(&server->identity_guard);
    return CS_OK;
}

/* The core asks for each new connection, on one of its threads. */
static grpc_ssl_certificate_config_reload_status show_certificate(void *self, grpc_ssl_server_certificate_config **ret)
{
    cs_rpc_server *server = self;
    grpc_ssl_certificate_config_reload_status status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    pthread_mutex_lock(&server->identity_guard);
    if (server->shown_version != server->identity_version) {
        grpc_ssl_pem_key_cert_pair pair = {.private_key = cs_buffer_text(&server->key),
                                           .cert_chain = cs_buffer_text(&server->certificate)};
        *ret = grpc_ssl_server_certificate_config_create(cs_buffer_text(&server->authority), &pair, 1);
        server->shown_version = server->identity_version;
        status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
    }
    pthread_mutex_unlock(&server->identity_guard);
    return status;
}

/* ---- ports ---- */

static void add_endpoint(cs_rpc_server *server, const cs_rpc_method *methods, bool is_local)
{
    cs_rpc_arguments arguments = {0};
    cs_rpc_arguments_common(&arguments);
    /* A second server on the port must fail, not share it. */
    cs_rpc_argument_int(&arguments, GRPC_ARG_ALLOW_REUSEPORT, 0);
    cs_rpc_argument_int(&arguments, GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_PER_CONNECTION_MAX);
    cs_rpc_argument_int(&arguments, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS);
    cs_rpc_argument_int(&arguments, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                        (int)cs_network_ms(PING_INTERVAL_MIN_MS));
    cs_rpc_argument_int(&arguments, GRPC_ARG_KEEPALIVE_TIME_MS, (int)cs_network_ms(KEEPALIVE_MS));
    cs_rpc_argument_int(&arguments, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, (int)cs_network_ms(KEEPALIVE_TIMEOUT_MS));
    cs_rpc_argument_int(&arguments, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    cs_rpc_argument_int(&arguments, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    cs_rpc_argument_int(&arguments, GRPC_ARG_MAX_CONNECTION_IDLE_MS, IDLE_MS);
    grpc_channel_args view = cs_rpc_arguments_view(&arguments);

    struct endpoint *endpoint = &server->endpoints[server->endpoint_count++];
    *endpoint = (struct endpoint){
        .server = server, .grpc = grpc_server_create(&view, NULL), .methods = methods, .is_local = is_local};
    grpc_server_register_completion_queue(endpoint->grpc, server->shutdown_events, NULL);
    for (size_t i = 0; i < server->queue_count; i++)
        grpc_server_register_completion_queue(endpoint->grpc, server->queues[i].events, NULL);
}

/* The core says only that it could not bind; this asks the system why. */
static cs_status explain_bind(const char *listen)
{
    const char *colon = strrchr(listen, ':');
    if (!colon)
        return cs_fail(CS_INVALID, "'%s' is no address to listen on; expected HOST:PORT", listen);
    bool is_bracketed = listen[0] == '[' && colon > listen + 1 && colon[-1] == ']';
    CS_AUTO(cs_string) host = is_bracketed ? cs_strndup(listen + 1, (size_t)(colon - listen) - 2)
                                           : cs_strndup(listen, (size_t)(colon - listen));
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, colon + 1, &hints, &found);
    if (error != 0)
        return cs_fail(CS_INVALID, "'%s' is no address to listen on: %s", listen, gai_strerror(error));
    cs_fd probe = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int bound = probe < 0 ? -1 : bind(probe, found->ai_addr, found->ai_addrlen);
    int reason = errno;
    cs_fd_clear(&probe);
    freeaddrinfo(found);
    errno = bound == 0 ? EADDRINUSE : reason; /* free again: whoever had it let it go in between */
    if (errno == EADDRINUSE)
        return cs_fail(CS_EXISTS, "cannot listen on %s: another program has the port", listen);
    return cs_fail_errno("cannot listen on %s", listen);
}

static cs_status open_tls_port(cs_rpc_server *server, const cs_rpc_server_config *config)
{
    add_endpoint(server, config->methods, false);
    CS_TRY(cs_rpc_server_reload(server, config->identity));
    /* No byte of HTTP/2 is read from a peer before its certificate was verified. */
    grpc_server_credentials *credentials =
        grpc_ssl_server_credentials_create_with_options(grpc_ssl_server_credentials_create_options_using_config_fetcher(
            GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, show_certificate, server));
    struct endpoint *endpoint = &server->endpoints[server->endpoint_count - 1];
    int port = grpc_server_add_http2_port(endpoint->grpc, config->listen, credentials);
    grpc_server_credentials_release(credentials);
    if (port <= 0)
        return explain_bind(config->listen);
    server->port = (uint16_t)port;
    return CS_OK;
}

/* The core would take over any socket file silently; a daemon that still answers on it must not lose it. */
static cs_status clear_stale_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return cs_fail(CS_INVALID, "%s: a socket's path has at most %zu characters", path, sizeof address.sun_path - 1);
    struct stat found;
    if (lstat(path, &found) != 0)
        return errno == ENOENT ? CS_OK : cs_fail_errno("%s", path);
    if (!S_ISSOCK(found.st_mode))
        return cs_fail(CS_EXISTS, "%s exists and is not a socket", path);
    memcpy(address.sun_path, path, strlen(path));
    CS_AUTO(cs_fd) probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return cs_fail_errno("%s", path);
    if (connect(probe, (const struct sockaddr *)&address, sizeof address) == 0)
        return cs_fail(CS_EXISTS, "%s: another process answers there", path);
    return errno == ECONNREFUSED ? cs_file_remove(path) : cs_fail_errno("%s", path);
}

static cs_status open_unix_socket(cs_rpc_server *server, const cs_rpc_server_config *config)
{
    add_endpoint(server, config->local_methods, true);
    CS_TRY(clear_stale_socket(config->unix_socket));
    CS_AUTO(cs_string) address = cs_format("unix:%s", config->unix_socket);
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    struct endpoint *endpoint = &server->endpoints[server->endpoint_count - 1];
    mode_t before =
        umask(0077); /* never open to others, not even for a moment; other threads may make folders meanwhile */
    int port = grpc_server_add_http2_port(endpoint->grpc, address, credentials);
    umask(before);
    grpc_server_credentials_release(credentials);
    if (port <= 0)
        return cs_fail(CS_UNAVAILABLE, "%s: cannot listen there; does its folder exist and may this user write in it?",
                       config->unix_socket);
    server->unix_socket = cs_strdup(config->unix_socket);
    if (chmod(config->unix_socket, 0600) != 0)
        return cs_fail_errno("%s", config->unix_socket);
    return CS_OK;
}

/* ---- queues ---- */

static void *serve_queue(void *self)
{
    struct queue *queue = self;
    for (size_t i = 0; i < queue->server->endpoint_count * CALLS_ARMED; i++)
        cs_rpc_call_arm(queue, &queue->server->endpoints[i % queue->server->endpoint_count]);
    gpr_timespec next_sweep = cs_rpc_deadline(SWEEP_MS);
    for (;;) {
        grpc_event event = grpc_completion_queue_next(queue->events, next_sweep, NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.type == GRPC_OP_COMPLETE) {
            struct operation *operation = event.tag;
            operation->done(operation->call, event.success != 0);
        }
        if (gpr_time_cmp(gpr_now(GPR_CLOCK_MONOTONIC), next_sweep) >= 0) {
            cs_rpc_calls_review(queue);
            next_sweep = cs_rpc_deadline(SWEEP_MS);
        }
    }
}

static cs_status start_queues(cs_rpc_server *server)
{
    for (size_t i = 0; i < server->endpoint_count; i++)
        grpc_server_start(server->endpoints[i].grpc);
    for (size_t i = 0; i < server->queue_count; i++) {
        struct queue *queue = &server->queues[i];
        int error = pthread_create(&queue->thread, NULL, serve_queue, queue);
        if (error != 0)
            return cs_fail(CS_EXHAUSTED, "cannot start a thread: %s", strerror(error));
        queue->has_thread = true;
        char name[16];
        snprintf(name, sizeof name, "rpc-%u", (unsigned)i % 1000);
        pthread_setname_np(queue->thread, name);
    }
    return CS_OK;
}

/* ---- start and stop ---- */

cs_status cs_rpc_server_start(const cs_rpc_server_config *config, cs_rpc_server **ret)
{
    cs_rpc_accept_prepare();
    cs_rpc_server *server = cs_alloc(sizeof *server);
    server->context = config->context;
    server->admit = config->admit;
    atomic_init(&server->is_serving, true);
    pthread_mutex_init(&server->count_guard, NULL);
    cs_condition_init(&server->count_changed);
    pthread_mutex_init(&server->identity_guard, NULL);
    server->shutdown_events = grpc_completion_queue_create_for_next(NULL);
    server->queue_count = config->threads > 0 ? config->threads : QUEUES_DEFAULT;
    server->queues = cs_alloc_array(server->queue_count, sizeof *server->queues);
    for (size_t i = 0; i < server->queue_count; i++) {
        server->queues[i].server = server;
        server->queues[i].events = grpc_completion_queue_create_for_next(NULL);
        pthread_mutex_init(&server->queues[i].calls_guard, NULL);
    }
    cs_status status = config->listen ? open_tls_port(server, config) : CS_OK;
    if (status == CS_OK && config->unix_socket)
        status = open_unix_socket(server, config);
    if (status == CS_OK)
        status = start_queues(server);
    if (status != CS_OK) {
        cs_rpc_server_stop(server, 0);
        return status;
    }
    *ret = server;
    return CS_OK;
}

uint16_t cs_rpc_server_port(const cs_rpc_server *server)
{
    return server->port;
}

/* A health watch never ends by itself; it learns of a change by being asked again. */
static void each_health_call(cs_rpc_server *server, void (*visit)(cs_rpc_call *call))
{
    for (size_t i = 0; i < server->queue_count; i++) {
        struct queue *queue = &server->queues[i];
        pthread_mutex_lock(&queue->calls_guard);
        for (cs_rpc_call *call = queue->calls; call; call = call->next) {
            if (atomic_load(&call->is_health))
                visit(call);
        }
        pthread_mutex_unlock(&queue->calls_guard);
    }
}

void cs_rpc_server_set_serving(cs_rpc_server *server, bool is_serving)
{
    atomic_store(&server->is_serving, is_serving);
    each_health_call(server, cs_rpc_resume);
}

static void end_health_call(cs_rpc_call *call)
{
    cs_rpc_end(call, CS_UNAVAILABLE, "the server stops");
}

void cs_rpc_server_end_calls(cs_rpc_server *server, bool (*matches)(void *self, const cs_rpc_peer *peer), void *self,
                             cs_status status, const char *text)
{
    for (size_t i = 0; i < server->queue_count; i++) {
        struct queue *queue = &server->queues[i];
        pthread_mutex_lock(&queue->calls_guard);
        for (cs_rpc_call *call = queue->calls; call; call = call->next) {
            if (matches(self, &call->peer))
                cs_rpc_end(call, status, text);
        }
        pthread_mutex_unlock(&queue->calls_guard);
    }
}

/* First the servers, so that no new work comes; when the last call is gone the queues, or the core would crash on work
 * for a queue that is shut. */
static void shut_servers(cs_rpc_server *server, int64_t grace_ms)
{
    for (size_t i = 0; i < server->endpoint_count; i++)
        grpc_server_shutdown_and_notify(server->endpoints[i].grpc, server->shutdown_events, &server->endpoints[i]);
    gpr_timespec until = cs_rpc_deadline(CS_MAX(grace_ms, (int64_t)0));
    for (size_t waiting = server->endpoint_count; waiting > 0;) {
        grpc_event event = grpc_completion_queue_next(server->shutdown_events, until, NULL);
        if (event.type == GRPC_OP_COMPLETE) {
            waiting--;
            continue;
        }
        for (size_t i = 0; i < server->endpoint_count; i++)
            grpc_server_cancel_all_calls(server->endpoints[i].grpc);
        until = cs_rpc_deadline(-1);
    }
    pthread_mutex_lock(&server->count_guard);
    while (server->calls > 0)
        cs_condition_wait(&server->count_changed, &server->count_guard, -1);
    pthread_mutex_unlock(&server->count_guard);
}

static void shut_queue(struct queue *queue)
{
    grpc_completion_queue_shutdown(queue->events);
    if (queue->has_thread)
        pthread_join(queue->thread, NULL);
    else
        serve_queue(queue);
    grpc_completion_queue_destroy(queue->events);
    pthread_mutex_destroy(&queue->calls_guard);
}

void cs_rpc_server_stop(cs_rpc_server *server, int64_t grace_ms)
{
    if (!server)
        return;
    pthread_mutex_lock(&server->count_guard);
    server->is_stopping = true;
    pthread_mutex_unlock(&server->count_guard);
    each_health_call(server, end_health_call);
    shut_servers(server, grace_ms);
    for (size_t i = 0; i < server->queue_count; i++)
        shut_queue(&server->queues[i]);
    grpc_completion_queue_shutdown(server->shutdown_events);
    grpc_completion_queue_next(server->shutdown_events, cs_rpc_deadline(-1), NULL);
    grpc_completion_queue_destroy(server->shutdown_events);
    for (size_t i = 0; i < server->endpoint_count; i++)
        grpc_server_destroy(server->endpoints[i].grpc);
    if (server->unix_socket)
        CS_IGNORE(cs_file_remove(server->unix_socket), "the next start replaces a socket that nobody answers on");
    cs_buffer_wipe(&server->certificate);
    cs_buffer_wipe(&server->key);
    cs_buffer_wipe(&server->authority);
    pthread_mutex_destroy(&server->count_guard);
    pthread_cond_destroy(&server->count_changed);
    pthread_mutex_destroy(&server->identity_guard);
    cs_free(server->unix_socket);
    for (size_t i = 0; i < server->queue_count; i++)
        for (size_t k = 0; k < KNOWN_PEERS_MAX; k++)
            cs_buffer_clear(&server->queues[i].known[k].pem);
    cs_free(server->queues);
    cs_free(server);
}
