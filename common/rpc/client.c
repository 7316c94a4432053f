/* The client: channels, unary calls and streams, blocking, read from top to bottom. Called by the agent and by the
 * operator's commands. Each call has a queue of its own, from which whoever waits plucks just what it waits for; so one
 * thread may read a stream while another writes it. */
#include "common/rpc/core.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <string.h>

/* Many firewalls and proxies forget a connection on which nothing moves for a minute, and tell nobody. More than twice
 * what a server allows at least, see server.c. */
#define KEEPALIVE_MS 25000
/* A link full of megabytes answers late; short timeouts would cut slow sites off. */
#define KEEPALIVE_TIMEOUT_MS      120000
#define KEEPALIVE_TIMEOUT_BULK_MS 600000
/* Who calls decides when to try again; the core's own patience stays below that. */
#define RECONNECT_FIRST_MS 100
#define RECONNECT_LAST_MS  1000
/* Of the arguments that only some versions of the core name in their headers. */
#define ARG_CONNECT_SERVER  "grpc.http_connect_server"
#define ARG_CONNECT_HEADERS "grpc.http_connect_headers"

struct cs_rpc_channel {
    grpc_channel *grpc;
    char *target;
    char *name; /* that the server's certificate must bear */
    bool is_local;
};

/* ---- channel ---- */

static bool is_unix(const char *target)
{
    return strncmp(target, "unix:", strlen("unix:")) == 0;
}

/* "host:8443" and "[::1]:8443" without the port. CS_INVALID when there is none. */
static cs_status host_of(const char *target, char **ret)
{
    const char *colon = strrchr(target, ':');
    if (!colon || colon == target || colon[1] == 0)
        return cs_fail(CS_INVALID, "'%s' is no address; expected HOST:PORT", target);
    bool is_bracketed = target[0] == '[' && colon[-1] == ']';
    *ret = is_bracketed ? cs_strndup(target + 1, (size_t)(colon - target) - 2)
                        : cs_strndup(target, (size_t)(colon - target));
    return CS_OK;
}

static grpc_channel_credentials *tls_credentials(const cs_rpc_identity *identity)
{
    CS_AUTO(cs_string) authority = cs_strndup((const char *)identity->authority_pem.data, identity->authority_pem.size);
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) key = CS_BUFFER_EMPTY;
    cs_buffer_append(&certificate, identity->certificate_pem.data, identity->certificate_pem.size);
    cs_buffer_append(&key, identity->key_pem.data, identity->key_pem.size);
    grpc_ssl_pem_key_cert_pair pair = {.private_key = cs_buffer_text(&key), .cert_chain = cs_buffer_text(&certificate)};
    bool has_certificate = certificate.size > 0 && key.size > 0;
    grpc_channel_credentials *credentials =
        grpc_ssl_credentials_create_ex(authority, has_certificate ? &pair : NULL, NULL, NULL);
    cs_buffer_wipe(&key);
    return credentials;
}

static void connection_arguments(cs_rpc_arguments *arguments, bool is_bulk)
{
    cs_rpc_arguments_common(arguments);
    /* Channels to the same place would otherwise share one connection, and progress would queue behind megabytes. */
    cs_rpc_argument_int(arguments, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    cs_rpc_argument_int(arguments, GRPC_ARG_ENABLE_RETRIES, 0);
    cs_rpc_argument_int(arguments, GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    cs_rpc_argument_int(arguments, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_FIRST_MS);
    cs_rpc_argument_int(arguments, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_LAST_MS);
    cs_rpc_argument_int(arguments, GRPC_ARG_KEEPALIVE_TIME_MS, (int)cs_network_ms(KEEPALIVE_MS));
    cs_rpc_argument_int(arguments, GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                        (int)cs_network_ms(is_bulk ? KEEPALIVE_TIMEOUT_BULK_MS : KEEPALIVE_TIMEOUT_MS));
    /* Between two transfers too: else the second would begin on a connection that is forgotten on the way, and notice
     * late. The server ends one that stays unused, see server.c. */
    cs_rpc_argument_int(arguments, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, is_bulk ? 1 : 0);
    cs_rpc_argument_int(arguments, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    /* Proxies come from the configuration only; the core would read them, and exceptions to them, from the environment.
     */
    cs_rpc_argument_int(arguments, GRPC_ARG_ENABLE_HTTP_PROXY, 0);
}

static char *login_header(const char *login)
{
    CS_AUTO(cs_buffer) header = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&header, "Proxy-Authorization:Basic ");
    cs_base64_encode(&header, cs_bytes_of_text(login));
    return cs_buffer_take_text(&header);
}

cs_status cs_rpc_channel_open(const cs_rpc_channel_config *config, cs_rpc_channel **ret)
{
    CS_AUTO_PTR(cs_rpc_channel) channel = cs_alloc(sizeof *channel);
    channel->target = cs_strdup(config->target);
    channel->is_local = is_unix(config->target);
    CS_AUTO(cs_string) login = config->proxy_login ? login_header(config->proxy_login) : NULL;
    CS_AUTO(cs_string) authority = NULL;
    cs_rpc_arguments arguments = {0};
    connection_arguments(&arguments, config->is_bulk);
    grpc_channel_credentials *credentials = NULL;
    if (channel->is_local) {
        credentials = grpc_insecure_credentials_create();
    } else {
        if (config->identity.authority_pem.size == 0)
            return cs_fail(CS_INVALID, "%s: no authority to check the other side's certificate with", config->target);
        CS_TRY(host_of(config->target, &channel->name));
        if (config->server_name) {
            cs_free(channel->name);
            channel->name = cs_strdup(config->server_name);
        }
        /* Whom the handshake and every call must meet; through a proxy the address that is dialled is the proxy's. */
        authority = strchr(channel->name, ':') ? cs_format("[%s]", channel->name) : cs_strdup(channel->name);
        cs_rpc_argument_text(&arguments, GRPC_ARG_DEFAULT_AUTHORITY, authority);
        cs_rpc_argument_text(&arguments, GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, channel->name);
        if (config->proxy)
            cs_rpc_argument_text(&arguments, ARG_CONNECT_SERVER, channel->target);
        if (config->proxy && login)
            cs_rpc_argument_text(&arguments, ARG_CONNECT_HEADERS, login);
        credentials = tls_credentials(&config->identity);
    }
    if (!credentials)
        return cs_fail(CS_INVALID, "%s: certificate, key or authority cannot be used", config->target);
    grpc_channel_args view = cs_rpc_arguments_view(&arguments);
    bool is_proxied = config->proxy && !channel->is_local;
    channel->grpc = grpc_channel_create(is_proxied ? config->proxy : config->target, credentials, &view);
    grpc_channel_credentials_release(credentials);
    if (!channel->grpc)
        return cs_fail(CS_INVALID, "%s: no channel can be made to it", config->target);
    *ret = CS_TAKE(channel);
    return CS_OK;
}

void cs_rpc_channel_free(cs_rpc_channel *channel)
{
    if (!channel)
        return;
    if (channel->grpc)
        grpc_channel_destroy(channel->grpc);
    cs_free(channel->target);
    cs_free(channel->name);
    cs_free(channel);
}

/* ---- one call ---- */

/* A call of either kind. The fields are the tags as well: each operation is known by the address of what it fills. */
struct cs_rpc_stream {
    char *target, *name, *path;
    bool is_local;
    int64_t timeout_ms;
    const ProtobufCMessageDescriptor *answer_type;
    grpc_completion_queue *events;
    grpc_call *call;

    grpc_metadata_array initial_metadata;  /* tag of the opening */
    grpc_metadata_array trailing_metadata; /* tag of the status */
    grpc_status_code code;
    grpc_slice details;
    const char *error;
    grpc_byte_buffer *received; /* tag of the read */
    grpc_byte_buffer *sending;  /* tag of the write */
    char writes_done;           /* tag of the end of writes */

    bool is_reading;
    bool has_status;
};

/* True when the operation with this tag came back in time; then *ret_is_ok says how. */
static bool pluck(struct cs_rpc_stream *stream, void *tag, int64_t in_ms, bool *ret_is_ok)
{
    grpc_event event = grpc_completion_queue_pluck(stream->events, tag, cs_rpc_deadline(in_ms), NULL);
    *ret_is_ok = event.type == GRPC_OP_COMPLETE && event.success;
    return event.type == GRPC_OP_COMPLETE;
}

static bool wait_for(struct cs_rpc_stream *stream, void *tag)
{
    bool is_ok = false;
    pluck(stream, tag, -1, &is_ok);
    return is_ok;
}

static bool came_from_server(const struct cs_rpc_stream *stream)
{
    return stream->error && strstr(stream->error, "Error received from peer");
}

/* A refused handshake looks like any broken connection from here, so the sentence names all that may be wrong. */
static cs_status unreachable(const struct cs_rpc_stream *stream, const char *details)
{
    if (stream->is_local)
        return cs_fail(CS_UNAVAILABLE, "nothing answers at %s (%s): is the daemon running?",
                       stream->target + strlen("unix:"), details);
    return cs_fail(
        CS_UNAVAILABLE,
        "no connection to %s (%s). Check: the address and the port; the proxy and the firewall; that this "
        "machine's clock is right; that this side's certificate has not run out and is not revoked; that both "
        "sides' certificates are of the same authority; that the server's certificate names '%s'",
        stream->target, details, stream->name);
}

/* The status of an ended call, as ours. */
static cs_status outcome(const struct cs_rpc_stream *stream)
{
    if (stream->code == GRPC_STATUS_OK)
        return CS_DONE;
    char details[CS_ERROR_TEXT_BYTES / 2];
    snprintf(details, sizeof details, "%.*s", (int)CS_MIN(GRPC_SLICE_LENGTH(stream->details), sizeof details),
             (const char *)GRPC_SLICE_START_PTR(stream->details));
    cs_status status = cs_status_from_code((uint32_t)stream->code);
    /* Whose clock ran out first, the server's core or ours, is chance. */
    bool is_timeout = status == CS_DEADLINE && strcmp(details, "Deadline Exceeded") == 0;
    if (came_from_server(stream) && !is_timeout)
        return cs_fail(status, "%s", details);
    if (status == CS_UNAVAILABLE)
        return unreachable(stream, details);
    if (is_timeout)
        return cs_fail(status, "%s: no answer to %s within %lld ms", stream->target, stream->path,
                       (long long)stream->timeout_ms);
    return cs_fail(status, "%s: %s: %s", stream->target, stream->path, details);
}

static struct cs_rpc_stream *new_call(cs_rpc_channel *channel, const char *path,
                                      const ProtobufCMessageDescriptor *answer_type, int64_t timeout_ms)
{
    struct cs_rpc_stream *stream = cs_alloc(sizeof *stream);
    stream->target = cs_strdup(channel->target);
    stream->name = channel->name ? cs_strdup(channel->name) : NULL;
    stream->path = cs_strdup(path);
    stream->is_local = channel->is_local;
    stream->timeout_ms = timeout_ms;
    stream->answer_type = answer_type;
    stream->details = grpc_empty_slice();
    grpc_metadata_array_init(&stream->initial_metadata);
    grpc_metadata_array_init(&stream->trailing_metadata);
    stream->events = grpc_completion_queue_create_for_pluck(NULL);
    grpc_slice method = grpc_slice_from_copied_string(path);
    stream->call = grpc_channel_create_call(channel->grpc, NULL, GRPC_PROPAGATE_DEFAULTS, stream->events, method, NULL,
                                            cs_rpc_deadline(timeout_ms > 0 ? timeout_ms : -1), NULL);
    grpc_slice_unref(method);

    grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    status.data.recv_status_on_client.trailing_metadata = &stream->trailing_metadata;
    status.data.recv_status_on_client.status = &stream->code;
    status.data.recv_status_on_client.status_details = &stream->details;
    status.data.recv_status_on_client.error_string = &stream->error;
    cs_rpc_start_batch(stream->call, &status, 1, &stream->trailing_metadata);
    grpc_op open[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_RECV_INITIAL_METADATA}};
    open[1].data.recv_initial_metadata.recv_initial_metadata = &stream->initial_metadata;
    cs_rpc_start_batch(stream->call, open, 2, &stream->initial_metadata);
    return stream;
}

static cs_status status_of(struct cs_rpc_stream *stream)
{
    if (!stream->has_status)
        wait_for(stream, &stream->trailing_metadata);
    stream->has_status = true;
    return outcome(stream);
}

static cs_status take_answer(struct cs_rpc_stream *stream, cs_arena *arena, ProtobufCMessage **ret)
{
    cs_status status = cs_rpc_unpack(stream->received, stream->answer_type, arena, ret);
    grpc_byte_buffer_destroy(stream->received);
    stream->received = NULL;
    if (status == CS_OK)
        return CS_OK;
    cs_rpc_stream_cancel(stream); /* nothing that follows can be trusted to make sense */
    return cs_wrap(status, "answer of %s", stream->target);
}

/* ---- streams ---- */

cs_status cs_rpc_stream_open(cs_rpc_channel *channel, const char *path, const ProtobufCMessageDescriptor *answer_type,
                             int64_t timeout_ms, cs_rpc_stream **ret)
{
    *ret = new_call(channel, path, answer_type, timeout_ms);
    return CS_OK;
}

cs_status cs_rpc_stream_write(cs_rpc_stream *stream, const ProtobufCMessage *message)
{
    size_t size = cs_wire_size(message);
    if (size > CS_WIRE_MESSAGE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: a message of %zu bytes, at most %d are sent", stream->path, size,
                       CS_WIRE_MESSAGE_MAX_BYTES);
    stream->sending = cs_rpc_pack(message);
    grpc_op operation = {.op = GRPC_OP_SEND_MESSAGE};
    operation.data.send_message.send_message = stream->sending;
    cs_rpc_start_batch(stream->call, &operation, 1, &stream->sending);
    bool is_ok = wait_for(stream, &stream->sending);
    grpc_byte_buffer_destroy(stream->sending);
    stream->sending = NULL;
    return is_ok ? CS_OK : CS_DONE;
}

cs_status cs_rpc_stream_writes_done(cs_rpc_stream *stream)
{
    grpc_op operation = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    cs_rpc_start_batch(stream->call, &operation, 1, &stream->writes_done);
    return wait_for(stream, &stream->writes_done) ? CS_OK : CS_DONE;
}

cs_status cs_rpc_stream_read(cs_rpc_stream *stream, int64_t until_ms, cs_arena *arena, ProtobufCMessage **ret)
{
    if (stream->has_status)
        return outcome(stream);
    if (!stream->is_reading) {
        grpc_op operation = {.op = GRPC_OP_RECV_MESSAGE};
        operation.data.recv_message.recv_message = &stream->received;
        cs_rpc_start_batch(stream->call, &operation, 1, &stream->received);
        stream->is_reading = true;
    }
    int64_t in_ms = until_ms < 0 ? -1 : CS_MAX(until_ms - cs_clock_monotonic_ms(), (int64_t)0);
    bool is_ok = false;
    if (!pluck(stream, &stream->received, in_ms, &is_ok))
        return cs_fail(CS_DEADLINE, "%s: nothing came on %s yet", stream->target, stream->path);
    stream->is_reading = false;
    return stream->received ? take_answer(stream, arena, ret) : status_of(stream);
}

void cs_rpc_stream_cancel(cs_rpc_stream *stream)
{
    grpc_call_cancel(stream->call, NULL);
}

void cs_rpc_stream_free(cs_rpc_stream *stream)
{
    if (!stream)
        return;
    if (!stream->has_status) {
        grpc_call_cancel(stream->call, NULL);
        wait_for(stream, &stream->trailing_metadata);
    }
    wait_for(stream, &stream->initial_metadata);
    if (stream->is_reading)
        wait_for(stream, &stream->received);
    grpc_call_unref(stream->call);
    grpc_completion_queue_shutdown(stream->events);
    grpc_completion_queue_destroy(stream->events);
    if (stream->received)
        grpc_byte_buffer_destroy(stream->received);
    grpc_metadata_array_destroy(&stream->initial_metadata);
    grpc_metadata_array_destroy(&stream->trailing_metadata);
    grpc_slice_unref(stream->details);
    gpr_free((void *)(uintptr_t)stream->error);
    cs_free(stream->target);
    cs_free(stream->name);
    cs_free(stream->path);
    cs_free(stream);
}

/* ---- unary ---- */

/* A stream of one message each way. */
cs_status cs_rpc_stream_ask(cs_rpc_stream *stream, const ProtobufCMessage *request, cs_arena *arena,
                            ProtobufCMessage **ret)
{
    cs_status written = cs_rpc_stream_write(stream, request);
    if (written == CS_OK)
        written = cs_rpc_stream_writes_done(stream);
    if (written != CS_OK && written != CS_DONE)
        return written;
    /* An answer counts only with a good status behind it. */
    ProtobufCMessage *answer = NULL;
    cs_status status = cs_rpc_stream_read(stream, -1, arena, &answer);
    if (status == CS_DONE)
        return cs_fail(CS_INTERNAL, "%s: no answer came to %s", stream->target, stream->path);
    CS_TRY(status);
    ProtobufCMessage *second = NULL;
    status = cs_rpc_stream_read(stream, -1, arena, &second);
    if (status == CS_OK)
        return cs_fail(CS_INTERNAL, "%s: two answers came to %s", stream->target, stream->path);
    if (status != CS_DONE)
        return status;
    *ret = answer;
    return CS_OK;
}

cs_status cs_rpc_unary(cs_rpc_channel *channel, const char *path, const ProtobufCMessage *request,
                       const ProtobufCMessageDescriptor *answer_type, int64_t timeout_ms, cs_arena *arena,
                       ProtobufCMessage **ret)
{
    CS_AUTO_PTR(cs_rpc_stream) stream = new_call(channel, path, answer_type, timeout_ms);
    return cs_rpc_stream_ask(stream, request, arena, ret);
}
