/* A consortium of one machine for the tests of calls and identities: an authority, certificates, a server with one
 * method of each kind, and a place where its handlers leave what happened, for the tests to wait for. */
#ifndef CS_TESTS_UNIT_RPC_RIG_H
#define CS_TESTS_UNIT_RPC_RIG_H

#include "common/rpc/rpc.h"
#include "tests/unit/crypto/folder.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define PATIENCE_MS 30000
#define PULL_BYTES  65536

/* ---- what happened at the server ---- */

typedef struct happenings {
    pthread_mutex_t guard;
    pthread_cond_t changed;
    int opened, requests, ends, handed_over, done, cancelled;
    cs_rpc_call *parked; /* held: the test lets it go */
    bool is_gate_open;
    _Atomic bool must_refuse;
    char last_name[CS_NAME_MAX + 1];
} happenings;

static CS_UNUSED void note(happenings *seen, int *counter)
{
    pthread_mutex_lock(&seen->guard);
    ++*counter;
    pthread_cond_broadcast(&seen->changed);
    pthread_mutex_unlock(&seen->guard);
}

static CS_UNUSED int read_count(happenings *seen, const int *counter)
{
    pthread_mutex_lock(&seen->guard);
    int value = *counter;
    pthread_mutex_unlock(&seen->guard);
    return value;
}

static CS_UNUSED void wait_until(happenings *seen, const int *counter, int at_least)
{
    int64_t until_ms = cs_clock_monotonic_ms() + PATIENCE_MS;
    bool is_in_time = true;
    pthread_mutex_lock(&seen->guard);
    while (*counter < at_least && is_in_time)
        is_in_time = cs_condition_wait(&seen->changed, &seen->guard, until_ms);
    int value = *counter;
    pthread_mutex_unlock(&seen->guard);
    if (value < at_least)
        fail_msg("waited for %d, got to %d", at_least, value);
}

/* ---- the service ---- */

#define UNARY  "/test.Rig/Unary"
#define PULL   "/test.Rig/Pull"
#define PUSH   "/test.Rig/Push"
#define DUPLEX "/test.Rig/Duplex"
#define PARK   "/test.Rig/Park"
#define HANG   "/test.Rig/Hang"
#define SILENT "/test.Rig/Silent"
#define FAIL   "/test.Rig/Fail"
#define HUGE_  "/test.Rig/Huge"

typedef struct doing {
    uint64_t wanted, made, taken;
    Consilium__V1__BlobChunk chunk;
    Consilium__V1__CoordinatorMessage answer;
    Consilium__V1__ResultAck ack;
    bool has_answer;
    bool has_ended;
} doing;

static CS_UNUSED happenings *seen_by(const cs_rpc_call *call)
{
    return cs_rpc_call_context(call);
}

static CS_UNUSED cs_status on_open(cs_rpc_call *call)
{
    doing *work = cs_arena_alloc(cs_rpc_call_arena(call), sizeof *work);
    consilium__v1__blob_chunk__init(&work->chunk);
    consilium__v1__coordinator_message__init(&work->answer);
    consilium__v1__result_ack__init(&work->ack);
    work->answer.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ACK;
    work->answer.ack = &work->ack;
    cs_rpc_call_set_data(call, work);
    happenings *seen = seen_by(call);
    pthread_mutex_lock(&seen->guard);
    snprintf(seen->last_name, sizeof seen->last_name, "%s",
             cs_rpc_call_peer(call)->is_local ? "(local)" : cs_rpc_call_peer(call)->identity.name);
    pthread_mutex_unlock(&seen->guard);
    note(seen, &seen->opened);
    return CS_OK;
}

static CS_UNUSED void on_done(cs_rpc_call *call, bool is_cancelled)
{
    happenings *seen = seen_by(call);
    if (is_cancelled)
        note(seen, &seen->cancelled);
    note(seen, &seen->done);
}

static CS_UNUSED cs_status take_wanted(cs_rpc_call *call, const ProtobufCMessage *request)
{
    doing *work = cs_rpc_call_data(call);
    work->wanted = ((const Consilium__V1__FetchBlobRequest *)request)->offset;
    note(seen_by(call), &seen_by(call)->requests);
    return CS_OK;
}

static CS_UNUSED cs_status one_chunk(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    doing *work = cs_rpc_call_data(call);
    if (work->made++ > 0)
        return CS_DONE;
    work->chunk.offset = work->wanted;
    *ret = &work->chunk.base;
    return CS_OK;
}

static CS_UNUSED cs_status many_chunks(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    static uint8_t bytes[PULL_BYTES];
    doing *work = cs_rpc_call_data(call);
    if (work->made == work->wanted)
        return CS_DONE;
    work->chunk.offset = work->made++ * PULL_BYTES;
    work->chunk.data = cs_wire_data(bytes, sizeof bytes);
    note(seen_by(call), &seen_by(call)->handed_over);
    *ret = &work->chunk.base;
    return CS_OK;
}

static CS_UNUSED cs_status take_part(cs_rpc_call *call, const ProtobufCMessage *request)
{
    doing *work = cs_rpc_call_data(call);
    work->taken += ((const Consilium__V1__StoreBlobRequest *)request)->data.len;
    note(seen_by(call), &seen_by(call)->requests);
    return CS_OK;
}

static CS_UNUSED cs_status parts_ended(cs_rpc_call *call)
{
    note(seen_by(call), &seen_by(call)->ends);
    return CS_OK;
}

static CS_UNUSED cs_status sum_of_parts(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    doing *work = cs_rpc_call_data(call);
    if (work->made++ > 0)
        return CS_DONE;
    work->chunk.size = work->taken;
    *ret = &work->chunk.base;
    return CS_OK;
}

/* Answers each result with its reason; ends when the requests have. */
static CS_UNUSED cs_status take_ball(cs_rpc_call *call, const ProtobufCMessage *request)
{
    const Consilium__V1__SiteMessage *message = (const Consilium__V1__SiteMessage *)request;
    doing *work = cs_rpc_call_data(call);
    if (work->has_answer)
        return CS_LATER; /* the last one is not yet on its way */
    work->has_answer = true;
    work->ack.reason = cs_arena_strdup(cs_rpc_call_arena(call), message->result->reason);
    cs_rpc_resume(call);
    return CS_OK;
}

static CS_UNUSED cs_status balls_ended(cs_rpc_call *call)
{
    ((doing *)cs_rpc_call_data(call))->has_ended = true;
    cs_rpc_resume(call);
    return CS_OK;
}

static CS_UNUSED cs_status return_ball(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    doing *work = cs_rpc_call_data(call);
    if (!work->has_answer)
        return work->has_ended ? CS_DONE : CS_LATER;
    work->has_answer = false;
    cs_rpc_resume(call);
    *ret = &work->answer.base;
    return CS_OK;
}

/* Takes its request only once the test has opened the gate. */
static CS_UNUSED cs_status park(cs_rpc_call *call, const ProtobufCMessage *request)
{
    happenings *seen = seen_by(call);
    pthread_mutex_lock(&seen->guard);
    bool is_gate_open = seen->is_gate_open;
    if (!is_gate_open && !seen->parked) {
        seen->parked = call;
        cs_rpc_hold(call);
    }
    pthread_mutex_unlock(&seen->guard);
    CS_TRY(take_wanted(call, request));
    return is_gate_open ? CS_OK : CS_LATER;
}

static CS_UNUSED cs_status never(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    (void)call;
    (void)ret;
    return CS_LATER;
}

static CS_UNUSED cs_status hold_on(cs_rpc_call *call)
{
    happenings *seen = seen_by(call);
    CS_TRY(on_open(call));
    pthread_mutex_lock(&seen->guard);
    if (!seen->parked) {
        seen->parked = call;
        cs_rpc_hold(call);
    }
    pthread_mutex_unlock(&seen->guard);
    return CS_OK;
}

static CS_UNUSED cs_status refuse(cs_rpc_call *call, const ProtobufCMessage *request)
{
    (void)call;
    (void)request;
    return cs_fail(CS_DENIED, "site 'mercy' may not do that: Zürich closed");
}

static CS_UNUSED cs_status too_much(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    static uint8_t bytes[CS_WIRE_MESSAGE_MAX_BYTES];
    doing *work = cs_rpc_call_data(call);
    work->chunk.data = cs_wire_data(bytes, sizeof bytes);
    *ret = &work->chunk.base;
    return CS_OK;
}

#define FETCH &consilium__v1__fetch_blob_request__descriptor
#define STORE &consilium__v1__store_blob_request__descriptor
#define CHUNK &consilium__v1__blob_chunk__descriptor
#define SITE  &consilium__v1__site_message__descriptor
#define COORD &consilium__v1__coordinator_message__descriptor

static CS_UNUSED const cs_rpc_method rig_methods[] = {
    {UNARY, FETCH, CHUNK, .on_open = on_open, .on_request = take_wanted, .next_response = one_chunk,
     .on_done = on_done},
    {PULL, FETCH, CHUNK, .on_open = on_open, .on_request = take_wanted, .next_response = many_chunks,
     .on_done = on_done},
    {PUSH, STORE, CHUNK, .is_request_stream = true, .on_open = on_open, .on_request = take_part,
     .on_requests_end = parts_ended, .next_response = sum_of_parts, .on_done = on_done},
    {DUPLEX, SITE, COORD, .is_duplex = true, .on_open = on_open, .on_request = take_ball,
     .on_requests_end = balls_ended, .next_response = return_ball, .on_done = on_done},
    {PARK, FETCH, CHUNK, .on_open = on_open, .on_request = park, .next_response = one_chunk, .on_done = on_done},
    {HANG, SITE, COORD, .is_duplex = true, .on_open = hold_on, .on_request = take_ball, .next_response = never,
     .on_done = on_done},
    {SILENT, STORE, CHUNK, .is_request_stream = true, .on_open = on_open, .on_request = take_part,
     .on_requests_end = parts_ended, .next_response = never, .on_done = on_done},
    {FAIL, FETCH, CHUNK, .on_open = on_open, .on_request = refuse, .next_response = one_chunk, .on_done = on_done},
    {HUGE_, FETCH, CHUNK, .on_open = on_open, .on_request = take_wanted, .next_response = too_much, .on_done = on_done},
    {.path = NULL},
};

/* ---- certificates ---- */

typedef struct authority {
    cs_tls_key *key;
    cs_buffer pem;
} authority;

typedef struct leaf {
    cs_secret key_pem;
    cs_buffer pem;
} leaf;

static CS_UNUSED void authority_make(authority *made)
{
    must_be_ok(cs_tls_key_new(&made->key));
    must_be_ok(cs_authority_make(made->key, "cardiac", "Cardiac consortium", cs_clock_wall_ms(), &made->pem));
}

/* `name` NULL: the coordinator, at `address`. */
static CS_UNUSED void leaf_make(leaf *made, const authority *by, const char *name, const char *address, int64_t now_ms)
{
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    must_be_ok(cs_tls_key_new(&key));
    must_be_ok(cs_csr_make(key, &csr));
    const char *const addresses[] = {address, "127.0.0.1", NULL};
    cs_leaf_request request = {.csr_der = cs_buffer_view(&csr),
                               .consortium = "cardiac",
                               .role = name ? CS_ROLE_SITE : CS_ROLE_COORDINATOR,
                               .name = name,
                               .addresses = name ? NULL : addresses,
                               .now_ms = now_ms,
                               .life_ms = CS_LEAF_LIFE_MS};
    cs_crypto_random(request.serial, sizeof request.serial);
    must_be_ok(cs_leaf_issue(by->key, cs_buffer_view(&by->pem), &request, &made->pem));
    must_be_ok(cs_tls_key_write(key, &made->key_pem));
}

static CS_UNUSED cs_rpc_identity identity_of(const leaf *own, const authority *by)
{
    return (cs_rpc_identity){.certificate_pem = cs_buffer_view(&own->pem),
                             .key_pem = cs_buffer_view((const cs_buffer *)&own->key_pem),
                             .authority_pem = cs_buffer_view(&by->pem)};
}

/* ---- the rig ---- */

typedef struct rig {
    char *folder;
    char *socket;
    happenings seen;
    authority root;
    leaf coordinator, mercy;
    cs_rpc_server *server;
    char target[64];
    char local_target[256];
} rig;

static CS_UNUSED cs_status admit(void *context, const cs_rpc_peer *peer, const char *path)
{
    happenings *seen = context;
    (void)path;
    return seen->must_refuse && !peer->is_local ? cs_fail(CS_DENIED, "site '%s' was revoked", peer->identity.name)
                                                : CS_OK;
}

static CS_UNUSED cs_rpc_server_config server_config(rig *rig)
{
    return (cs_rpc_server_config){.listen = "127.0.0.1:0",
                                  .unix_socket = rig->socket,
                                  .methods = rig_methods,
                                  .local_methods = rig_methods,
                                  .identity = identity_of(&rig->coordinator, &rig->root),
                                  .context = &rig->seen,
                                  .admit = admit};
}

static CS_UNUSED int rig_start(void **state)
{
    rig *made = cs_alloc(sizeof *made);
    void *folder = NULL;
    if (folder_make(&folder) != 0)
        return -1;
    made->folder = folder;
    made->socket = cs_path_join(made->folder, "admin.sock");
    pthread_mutex_init(&made->seen.guard, NULL);
    cs_condition_init(&made->seen.changed);
    authority_make(&made->root);
    leaf_make(&made->coordinator, &made->root, NULL, "localhost", cs_clock_wall_ms());
    leaf_make(&made->mercy, &made->root, "mercy", NULL, cs_clock_wall_ms());
    cs_rpc_server_config config = server_config(made);
    must_be_ok(cs_rpc_server_start(&config, &made->server));
    snprintf(made->target, sizeof made->target, "localhost:%u", cs_rpc_server_port(made->server));
    snprintf(made->local_target, sizeof made->local_target, "unix:%s", made->socket);
    *state = made;
    return 0;
}

static CS_UNUSED int rig_stop(void **state)
{
    rig *made = *state;
    cs_clock_real();
    cs_rpc_server_stop(made->server, 0);
    if (made->seen.parked)
        cs_rpc_release(made->seen.parked);
    cs_tls_key_free(made->root.key);
    cs_buffer_clear(&made->root.pem);
    cs_buffer_clear(&made->coordinator.pem);
    cs_buffer_clear(&made->mercy.pem);
    cs_secret_clear(&made->coordinator.key_pem);
    cs_secret_clear(&made->mercy.key_pem);
    pthread_mutex_destroy(&made->seen.guard);
    pthread_cond_destroy(&made->seen.changed);
    int status = cs_folder_remove(made->folder) == CS_OK ? 0 : -1;
    cs_free(made->socket);
    cs_free(made->folder);
    cs_free(made);
    return status;
}

static CS_UNUSED cs_rpc_channel *connect_as(const rig *rig, const leaf *who)
{
    cs_rpc_channel_config config = {.target = rig->target, .identity = identity_of(who, &rig->root)};
    cs_rpc_channel *channel = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &channel));
    return channel;
}

static CS_UNUSED cs_rpc_channel *connect_locally(const rig *rig)
{
    cs_rpc_channel_config config = {.target = rig->local_target};
    cs_rpc_channel *channel = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &channel));
    return channel;
}

static CS_UNUSED cs_rpc_stream *open_stream(cs_rpc_channel *channel, const char *path,
                                            const ProtobufCMessageDescriptor *answer)
{
    cs_rpc_stream *stream = NULL;
    must_be_ok(cs_rpc_stream_open(channel, path, answer, 0, &stream));
    return stream;
}

/* One FetchBlobRequest to `path`; the offset that came back. */
static CS_UNUSED cs_status ask(cs_rpc_channel *channel, const char *path, uint64_t offset, int64_t timeout_ms,
                               uint64_t *ret_offset)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(16 * 1024);
    Consilium__V1__FetchBlobRequest request = CONSILIUM__V1__FETCH_BLOB_REQUEST__INIT;
    request.offset = offset;
    ProtobufCMessage *answer = NULL;
    CS_TRY(cs_rpc_unary(channel, path, &request.base, CHUNK, timeout_ms, arena, &answer));
    if (ret_offset)
        *ret_offset = ((const Consilium__V1__BlobChunk *)answer)->offset;
    return CS_OK;
}

static CS_UNUSED cs_status send_fetch(cs_rpc_stream *stream, uint64_t offset)
{
    Consilium__V1__FetchBlobRequest request = CONSILIUM__V1__FETCH_BLOB_REQUEST__INIT;
    request.offset = offset;
    return cs_rpc_stream_write(stream, &request.base);
}

static CS_UNUSED cs_status send_part(cs_rpc_stream *stream, const uint8_t *bytes, size_t size)
{
    Consilium__V1__StoreBlobRequest request = CONSILIUM__V1__STORE_BLOB_REQUEST__INIT;
    request.data = cs_wire_data(bytes, size);
    return cs_rpc_stream_write(stream, &request.base);
}

static CS_UNUSED cs_status send_ball(cs_rpc_stream *stream, const char *text)
{
    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.reason = (char *)(uintptr_t)text;
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_RESULT;
    message.result = &result;
    return cs_rpc_stream_write(stream, &message.base);
}

static CS_UNUSED cs_status read_next(cs_rpc_stream *stream, int64_t in_ms)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(CS_WIRE_MESSAGE_MAX_BYTES);
    ProtobufCMessage *message = NULL;
    return cs_rpc_stream_read(stream, in_ms < 0 ? -1 : cs_clock_monotonic_ms() + in_ms, arena, &message);
}

static CS_UNUSED void close_writes(cs_rpc_stream *stream)
{
    must_be_ok(cs_rpc_stream_writes_done(stream));
}

#endif
