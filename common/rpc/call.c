/* What happens to one call at the server: accepted, identified, read, answered, ended. Everything here runs on the
 * thread of the call's queue, but for hold, release, resume and end, which any thread may call.
 *
 * A call lives in two ways. For the core it lives until its last batch came back; then on_done is called and the core's
 * call is let go. The object lives on while somebody holds it. */
#include "common/rpc/call.h"

#include "common/base/clock.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc_security.h>
#include <stdlib.h>
#include <string.h>

#define CALL_ARENA_BYTES (4 * 1024 * 1024)
/* Of one identity, over all its connections: a call may hold a descriptor and some megabytes for as long as it likes.
 */
#define CALLS_PER_SITE_MAX 64

/* ---- references and batches ---- */

void cs_rpc_hold(cs_rpc_call *call)
{
    atomic_fetch_add(&call->references, 1);
}

void cs_rpc_release(cs_rpc_call *call)
{
    if (atomic_fetch_sub(&call->references, 1) > 1)
        return;
    cs_arena_free(call->arena);
    cs_arena_free(call->request_arena);
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    pthread_mutex_destroy(&call->guard);
    cs_free(call);
}

static void start_batch(cs_rpc_call *call, const grpc_op *operations, size_t count, struct operation *tag)
{
    pthread_mutex_lock(&call->guard);
    call->batches++;
    pthread_mutex_unlock(&call->guard);
    cs_rpc_start_batch(call->grpc, operations, count, tag);
}

/* The last thing that is done with a server on behalf of a call. */
static void count_down(cs_rpc_server *server)
{
    pthread_mutex_lock(&server->count_guard);
    server->calls--;
    pthread_cond_broadcast(&server->count_changed);
    pthread_mutex_unlock(&server->count_guard);
}

static void call_is_over(cs_rpc_call *call, grpc_call *grpc)
{
    if (call->is_opened && call->method->on_done)
        call->method->on_done(call, call->is_cancelled);
    pthread_mutex_lock(&call->queue->calls_guard);
    if (call->link) {
        *call->link = call->next;
        if (call->next)
            call->next->link = call->link;
    }
    pthread_mutex_unlock(&call->queue->calls_guard);
    grpc_call_unref(grpc);
    cs_rpc_server *server = call->server;
    cs_rpc_release(call);
    count_down(server);
}

static void batch_is_over(cs_rpc_call *call)
{
    grpc_call *last = NULL;
    pthread_mutex_lock(&call->guard);
    if (--call->batches == 0) {
        last = call->grpc;
        call->grpc = NULL;
    }
    pthread_mutex_unlock(&call->guard);
    if (last)
        call_is_over(call, last);
}

/* ---- ending ---- */

/* What can go over the wire; the two statuses that never leave the process would be a mistake of the handler. */
static grpc_status_code wire_code(cs_status status)
{
    return status <= CS_UNAUTHENTICATED ? (grpc_status_code)status : GRPC_STATUS_INTERNAL;
}

void cs_rpc_end(cs_rpc_call *call, cs_status status, const char *text)
{
    atomic_store(&call->is_ended, true);
    grpc_status_code code = status == CS_OK ? GRPC_STATUS_CANCELLED : wire_code(status);
    pthread_mutex_lock(&call->guard);
    /* Overtakes whatever waits for the peer's flow control. */
    if (call->grpc)
        grpc_call_cancel_with_status(call->grpc, code, text, NULL);
    pthread_mutex_unlock(&call->guard);
}

static void finish(cs_rpc_call *call, cs_status status, const char *text)
{
    if (call->is_writing) { /* the status would wait behind a response that the peer may never read */
        cs_rpc_end(call, status, text);
        return;
    }
    atomic_store(&call->is_ended, true);
    grpc_slice details = grpc_slice_from_copied_string(text);
    grpc_op operations[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};
    operations[1].data.send_status_from_server.status = wire_code(status);
    operations[1].data.send_status_from_server.status_details = status == CS_OK ? NULL : &details;
    size_t first = call->has_sent_headers ? 1 : 0;
    start_batch(call, operations + first, 2 - first, &call->finished);
    grpc_slice_unref(details);
}

static void finished(cs_rpc_call *call, bool is_ok)
{
    (void)is_ok;
    batch_is_over(call);
}

/* Comes once in every call: after the status went out, or as the only news that the peer is gone. */
static void closed(cs_rpc_call *call, bool is_ok)
{
    (void)is_ok;
    call->is_cancelled = call->close_says_cancelled && !atomic_load(&call->is_ended);
    atomic_store(&call->is_ended, true);
    batch_is_over(call);
}

/* ---- requests and responses ---- */

static void arm_read(cs_rpc_call *call)
{
    grpc_op operation = {.op = GRPC_OP_RECV_MESSAGE};
    operation.data.recv_message.recv_message = &call->received;
    start_batch(call, &operation, 1, &call->read);
}

static bool takes_one_request(const cs_rpc_call *call)
{
    return !call->method->is_duplex && !call->method->is_request_stream;
}

/* The next read is under way only once the handler has taken what came: so the transport's window fills and the peer
 * waits. */
static cs_status give_request(cs_rpc_call *call)
{
    cs_status status = call->method->on_request(call, call->request);
    if (status == CS_LATER) {
        call->is_request_paused = true;
        return CS_OK;
    }
    CS_TRY(status);
    call->request = NULL;
    /* Nothing is kept of it: a thousand streams may be open that seldom hear anything. */
    cs_arena_free(call->request_arena);
    call->request_arena = cs_arena_new(CS_RPC_MESSAGE_BUDGET_BYTES);
    if (!atomic_load(&call->is_ended))
        arm_read(call);
    return CS_OK;
}

static cs_status tell_requests_end(cs_rpc_call *call)
{
    cs_status status = call->method->on_requests_end ? call->method->on_requests_end(call) : CS_OK;
    if (status == CS_LATER) {
        call->is_request_paused = true;
        return CS_OK;
    }
    CS_TRY(status);
    call->is_end_told = true;
    return CS_OK;
}

static cs_status send_response(cs_rpc_call *call)
{
    const ProtobufCMessage *response = NULL;
    CS_TRY(call->method->next_response(call, &response));
    size_t size = cs_wire_size(response);
    if (size > CS_WIRE_MESSAGE_MAX_BYTES)
        return cs_fail(CS_INTERNAL, "%s: an answer of %zu bytes, at most %d are sent", call->method->path, size,
                       CS_WIRE_MESSAGE_MAX_BYTES);
    if (atomic_load(&call->is_ended))
        return CS_OK;
    call->sending = cs_rpc_pack(response);
    call->is_writing = true;
    grpc_op operations[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_MESSAGE}};
    operations[1].data.send_message.send_message = call->sending;
    size_t first = call->has_sent_headers ? 1 : 0;
    call->has_sent_headers = true;
    start_batch(call, operations + first, 2 - first, &call->written);
    return CS_OK;
}

/* CS_DONE: the call has said all it had to say. */
static cs_status step(cs_rpc_call *call)
{
    if (call->request && !call->is_request_paused)
        CS_TRY(give_request(call));
    if (call->have_requests_ended && !call->is_end_told && !call->is_request_paused)
        CS_TRY(tell_requests_end(call));
    bool may_answer = call->method->is_duplex || call->is_end_told;
    if (!may_answer || call->is_writing || call->is_response_paused || atomic_load(&call->is_ended))
        return CS_OK;
    cs_status status = send_response(call);
    if (status == CS_LATER) {
        call->is_response_paused = true;
        return CS_OK;
    }
    return status;
}

static void advance(cs_rpc_call *call)
{
    if (atomic_load(&call->is_ended))
        return;
    cs_status status = step(call);
    if (status == CS_OK || atomic_load(&call->is_ended))
        return;
    finish(call, status == CS_DONE ? CS_OK : status, cs_error_text());
}

static cs_status take_message(cs_rpc_call *call)
{
    if (takes_one_request(call) && call->requests > 0)
        return cs_fail(CS_INVALID, "%s takes one request, another came", call->method->path);
    call->requests++;
    ProtobufCMessage *request = NULL;
    CS_TRY(cs_rpc_unpack(call->received, call->method->request, call->request_arena, &request));
    call->request = request;
    return CS_OK;
}

static cs_status take_end(cs_rpc_call *call)
{
    if (takes_one_request(call) && call->requests == 0)
        return cs_fail(CS_INVALID, "%s takes one request, none came", call->method->path);
    call->have_requests_ended = true;
    return CS_OK;
}

static void read_is_done(cs_rpc_call *call, bool is_ok)
{
    cs_status status = CS_OK;
    bool is_broken = !is_ok || (!call->received && grpc_call_failed_before_recv_message(call->grpc));
    if (!atomic_load(&call->is_ended) && !is_broken)
        status = call->received ? take_message(call) : take_end(call);
    if (call->received)
        grpc_byte_buffer_destroy(call->received);
    call->received = NULL;
    if (status != CS_OK)
        finish(call, status, cs_error_text());
    else if (!is_broken)
        advance(call);
    batch_is_over(call);
}

static void write_is_done(cs_rpc_call *call, bool is_ok)
{
    grpc_byte_buffer_destroy(call->sending);
    call->sending = NULL;
    call->is_writing = false;
    if (is_ok)
        advance(call); /* else the close is on its way */
    batch_is_over(call);
}

static void wake_is_done(cs_rpc_call *call, bool is_ok)
{
    (void)is_ok;
    pthread_mutex_lock(&call->guard);
    call->is_wake_under_way = false;
    pthread_mutex_unlock(&call->guard);
    call->is_request_paused = false;
    call->is_response_paused = false;
    advance(call);
    batch_is_over(call);
}

void cs_rpc_resume(cs_rpc_call *call)
{
    pthread_mutex_lock(&call->guard);
    /* After the call is over its queue may be gone: starting work there would crash the process. */
    if (call->grpc && !call->is_wake_under_way) {
        call->is_wake_under_way = true;
        call->batches++;
        cs_rpc_start_batch(call->grpc, NULL, 0, &call->woken);
    }
    pthread_mutex_unlock(&call->guard);
}

/* ---- opening ---- */

/* What a certificate says does not change; its dates and the registry are looked at for each call. */
static cs_status recognize(struct queue *queue, cs_bytes pem, cs_identity *ret)
{
    for (size_t i = 0; i < KNOWN_PEERS_MAX; i++) {
        if (cs_bytes_equal(cs_buffer_view(&queue->known[i].pem), pem)) {
            *ret = queue->known[i].identity;
            return CS_OK;
        }
    }
    CS_TRY(cs_identity_read(pem, ret));
    struct known_peer *known = &queue->known[queue->next_known];
    queue->next_known = (queue->next_known + 1) % KNOWN_PEERS_MAX;
    cs_buffer_reset(&known->pem);
    cs_buffer_append(&known->pem, pem.data, pem.size);
    known->identity = *ret;
    return CS_OK;
}

/* Only what the handshake verified: the address and the headers of a call prove nothing. */
static cs_status read_identity(struct queue *queue, const grpc_auth_context *verified, cs_identity *ret)
{
    if (!verified || !grpc_auth_context_peer_is_authenticated(verified))
        return cs_fail(CS_UNAUTHENTICATED, "no verified client certificate");
    grpc_auth_property_iterator properties =
        grpc_auth_context_find_properties_by_name(verified, GRPC_X509_PEM_CERT_PROPERTY_NAME);
    const grpc_auth_property *pem = grpc_auth_property_iterator_next(&properties);
    if (!pem || pem->value_length == 0)
        return cs_fail(CS_UNAUTHENTICATED, "no client certificate in the verified connection");
    if (recognize(queue, cs_bytes_of(pem->value, pem->value_length), ret) != CS_OK)
        return cs_wrap(CS_UNAUTHENTICATED, "client certificate");
    return CS_OK;
}

static cs_status expired(void)
{
    return cs_fail(CS_UNAUTHENTICATED, "the certificate of this connection has run out; connect with a renewed one");
}

static bool has_expired(const cs_rpc_peer *peer)
{
    return !peer->is_local && peer->identity.not_after_ms <= cs_clock_wall_ms();
}

static cs_status identify(cs_rpc_call *call)
{
    call->peer.is_local = call->endpoint->is_local;
    if (call->peer.is_local)
        return CS_OK;
    grpc_auth_context *verified = grpc_call_auth_context(call->grpc);
    cs_status status = read_identity(call->queue, verified, &call->peer.identity);
    grpc_auth_context_release(verified);
    CS_TRY(status);
    return has_expired(&call->peer) ? expired() : CS_OK;
}

static const cs_rpc_method *find_method(const cs_rpc_method *methods, grpc_slice path)
{
    for (; methods && methods->path; methods++) {
        if (grpc_slice_str_cmp(path, methods->path) == 0)
            return methods;
    }
    return NULL;
}

/* From now on those who end calls by their peer find it. This comes before `admit` is asked: whoever first changes what
 * admit looks at and then ends calls leaves no gap. */
static void enlist(cs_rpc_call *call)
{
    struct queue *queue = call->queue;
    pthread_mutex_lock(&queue->calls_guard);
    call->next = queue->calls;
    call->link = &queue->calls;
    if (call->next)
        call->next->link = &call->next;
    queue->calls = call;
    pthread_mutex_unlock(&queue->calls_guard);
}

static bool is_of(const cs_rpc_call *call, const cs_rpc_peer *peer)
{
    return !call->peer.is_local && strcmp(call->peer.identity.name, peer->identity.name) == 0;
}

static size_t count_calls(const cs_rpc_server *server, const cs_rpc_peer *peer)
{
    size_t count = 0;
    for (size_t i = 0; i < server->queue_count; i++) {
        struct queue *queue = &server->queues[i];
        pthread_mutex_lock(&queue->calls_guard);
        for (const cs_rpc_call *call = queue->calls; call; call = call->next)
            count += is_of(call, peer) ? 1 : 0;
        pthread_mutex_unlock(&queue->calls_guard);
    }
    return count;
}

static cs_status check_count(const cs_rpc_call *call)
{
    if (call->peer.is_local || count_calls(call->server, &call->peer) <= CALLS_PER_SITE_MAX)
        return CS_OK;
    return cs_fail(CS_EXHAUSTED, "'%s' has %d calls open, no more are taken", call->peer.identity.name,
                   CALLS_PER_SITE_MAX);
}

static cs_status open_call(cs_rpc_call *call)
{
    CS_TRY(identify(call));
    enlist(call);
    CS_TRY(check_count(call));
    call->method = find_method(call->endpoint->methods, call->details.method);
    if (!call->method) {
        call->method = find_method(cs_rpc_health_methods, call->details.method);
        atomic_store(&call->is_health, call->method != NULL);
    }
    if (!call->method)
        return cs_fail(CS_UNIMPLEMENTED, "no method '%.*s' here",
                       (int)CS_MIN(GRPC_SLICE_LENGTH(call->details.method), (size_t)CS_ERROR_TEXT_BYTES),
                       (const char *)GRPC_SLICE_START_PTR(call->details.method));
    if (call->server->admit)
        CS_TRY(call->server->admit(call->server->context, &call->peer, call->method->path));
    call->is_opened = true;
    return call->method->on_open ? call->method->on_open(call) : CS_OK;
}

static void accepted(cs_rpc_call *call, bool is_ok)
{
    if (!is_ok) { /* the server stops */
        cs_rpc_server *server = call->server;
        cs_rpc_release(call);
        count_down(server);
        return;
    }
    cs_rpc_call_arm(call->queue, call->endpoint);

    call->arena = cs_arena_new(CALL_ARENA_BYTES);
    call->request_arena = cs_arena_new(CS_RPC_MESSAGE_BUDGET_BYTES);
    grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    close.data.recv_close_on_server.cancelled = &call->close_says_cancelled;
    start_batch(call, &close, 1, &call->closed);
    cs_status status = open_call(call);
    if (atomic_load(&call->is_ended))
        return;
    if (status != CS_OK) {
        finish(call, status, cs_error_text());
        return;
    }
    arm_read(call);
    advance(call);
}

void cs_rpc_call_arm(struct queue *queue, struct endpoint *endpoint)
{
    cs_rpc_server *server = queue->server;
    pthread_mutex_lock(&server->count_guard);
    bool is_stopping = server->is_stopping;
    server->calls += is_stopping ? 0 : 1;
    pthread_mutex_unlock(&server->count_guard);
    if (is_stopping)
        return;

    cs_rpc_call *call = cs_alloc(sizeof *call);
    call->server = server;
    call->endpoint = endpoint;
    call->queue = queue;
    call->context = server->context;
    call->accepted = (struct operation){accepted, call};
    call->closed = (struct operation){closed, call};
    call->read = (struct operation){read_is_done, call};
    call->written = (struct operation){write_is_done, call};
    call->finished = (struct operation){finished, call};
    call->woken = (struct operation){wake_is_done, call};
    atomic_init(&call->references, 1);
    pthread_mutex_init(&call->guard, NULL);
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    grpc_call_error error = grpc_server_request_call(endpoint->grpc, &call->grpc, &call->details, &call->metadata,
                                                     queue->events, queue->events, &call->accepted);
    if (error != GRPC_CALL_OK)
        abort(); /* a queue that is not the server's: a mistake in server.c */
}

static cs_status review(const cs_rpc_call *call)
{
    if (has_expired(&call->peer))
        return expired();
    if (!call->is_opened || call->peer.is_local || !call->server->admit)
        return CS_OK;
    return call->server->admit(call->server->context, &call->peer, call->method->path);
}

void cs_rpc_calls_review(struct queue *queue)
{
    pthread_mutex_lock(&queue->calls_guard);
    for (cs_rpc_call *call = queue->calls; call; call = call->next) {
        cs_status status = atomic_load(&call->is_ended) ? CS_OK : review(call);
        if (status != CS_OK)
            cs_rpc_end(call, status, cs_error_text());
    }
    pthread_mutex_unlock(&queue->calls_guard);
}

/* ---- what handlers ask ---- */

const cs_rpc_peer *cs_rpc_call_peer(const cs_rpc_call *call)
{
    return &call->peer;
}

void *cs_rpc_call_context(const cs_rpc_call *call)
{
    return call->context;
}

void cs_rpc_call_set_data(cs_rpc_call *call, void *data)
{
    call->data = data;
}

void *cs_rpc_call_data(const cs_rpc_call *call)
{
    return call->data;
}

cs_arena *cs_rpc_call_arena(cs_rpc_call *call)
{
    return call->arena;
}

bool cs_rpc_call_is_serving(const cs_rpc_call *call)
{
    return atomic_load(&call->server->is_serving);
}

bool cs_rpc_call_knows_service(const cs_rpc_call *call, const char *service)
{
    size_t size = strlen(service);
    bool is_known = size == 0;
    for (const cs_rpc_method *method = call->endpoint->methods; method && method->path && !is_known; method++)
        is_known = strncmp(method->path + 1, service, size) == 0 && method->path[1 + size] == '/';
    return is_known;
}
