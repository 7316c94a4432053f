/* A coordinator of the test's own, inside the test's process, that says what the test wants and keeps what it hears;
 * and a hospital that has joined it, with the stand-in worker. */
#ifndef CS_TESTS_UNIT_AGENT_RIG_H
#define CS_TESTS_UNIT_AGENT_RIG_H

#include "client/agent/agent.h"
#include "client/agent/control.h"
#include "client/agent/enrol.h"
#include "client/agent/session.h"
#include "common/base/failpoint.h"
#include "common/blobs/blobs.h"
#include "common/crypto/enrolfile.h"
#include "common/rpc/rpc.h"
#include "common/tensors/safetensors.h"
#include "tests/unit/crypto/folder.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#define PATIENCE_MS  30000
#define MESSAGES_MAX 512
#define SITE         "mercy"
#define CONSORTIUM   "test-consortium"
#define HOUR_MS      (3600 * 1000LL)

typedef struct rig {
    char *folder, *site_folder;
    cs_tls_key *authority_key;
    cs_buffer authority_pem;
    cs_rpc_server *server;
    cs_blobs *blobs;
    cs_agent *agent;
    cs_arena *arena; /* of the test */
    int64_t leaf_issued_ms, leaf_life_ms;

    pthread_mutex_t guard;
    pthread_cond_t changed;
    /* guarded */
    cs_buffer heard[MESSAGES_MAX];
    int heard_in[MESSAGES_MAX]; /* the session, from 1 */
    size_t heard_count;
    cs_buffer outbox[MESSAGES_MAX];
    size_t outbox_first, outbox_count;
    cs_rpc_call *attend; /* held: the newest session */
    int sessions, fetches, stores, renewals;
    bool holds_renewals; /* they are never answered */
    uint64_t last_fetch_offset;
    uint64_t cut_fetch_at; /* 0: not; else the line breaks once after so many bytes */
    bool cut_store;        /* the line breaks once after the first bytes */
    uint8_t last_serial[CS_SERIAL_BYTES];
} rig;

static void rig_changed(rig *rig)
{
    pthread_cond_broadcast(&rig->changed);
}

/* ---- Attend ---- */

static void rig_say(rig *rig, const Consilium__V1__CoordinatorMessage *message)
{
    pthread_mutex_lock(&rig->guard);
    assert_true(rig->outbox_count < MESSAGES_MAX);
    cs_wire_pack(&message->base, &rig->outbox[rig->outbox_count++]);
    if (rig->attend != NULL)
        cs_rpc_resume(rig->attend);
    pthread_mutex_unlock(&rig->guard);
}

static cs_status attend_request(cs_rpc_call *call, const ProtobufCMessage *request)
{
    rig *rig = cs_rpc_call_context(call);
    const Consilium__V1__SiteMessage *message = (const Consilium__V1__SiteMessage *)request;
    pthread_mutex_lock(&rig->guard);
    if (message->body_case == CONSILIUM__V1__SITE_MESSAGE__BODY_HELLO) {
        if (rig->attend != NULL) {
            cs_rpc_resume(rig->attend);
            cs_rpc_release(rig->attend);
        }
        cs_rpc_hold(call);
        cs_rpc_call_set_data(call, rig);
        rig->attend = call;
        rig->sessions++;
        memcpy(rig->last_serial, cs_rpc_call_peer(call)->identity.serial, CS_SERIAL_BYTES);
        Consilium__V1__CoordinatorMessage hello = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
        hello.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_HELLO;
        hello.hello = cs_wire_hello();
        /* What was said into the void is lost, as with a real coordinator; the Hello is first. */
        rig->outbox_first = rig->outbox_count;
        cs_wire_pack(&hello.base, &rig->outbox[rig->outbox_count++]);
        cs_rpc_resume(call);
    } else if (rig->heard_count < MESSAGES_MAX) {
        rig->heard_in[rig->heard_count] = rig->sessions;
        cs_wire_pack(request, &rig->heard[rig->heard_count++]);
    }
    rig_changed(rig);
    pthread_mutex_unlock(&rig->guard);
    return CS_OK;
}

static cs_status attend_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    rig *rig = cs_rpc_call_context(call);
    cs_status status = CS_LATER;
    pthread_mutex_lock(&rig->guard);
    if (rig->attend != call) {
        status = cs_rpc_call_data(call) == NULL ? CS_LATER : CS_DONE; /* not greeted yet, or fenced */
    } else if (rig->outbox_first < rig->outbox_count) {
        cs_arena *arena = cs_rpc_call_arena(call);
        ProtobufCMessage *message = NULL;
        status = cs_wire_unpack(&consilium__v1__coordinator_message__descriptor,
                                cs_buffer_view(&rig->outbox[rig->outbox_first++]), arena, &message);
        *ret = message;
    }
    pthread_mutex_unlock(&rig->guard);
    return status;
}

static void attend_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    rig *rig = cs_rpc_call_context(call);
    pthread_mutex_lock(&rig->guard);
    if (rig->attend == call) {
        rig->attend = NULL;
        cs_rpc_release(call);
    }
    rig_changed(rig);
    pthread_mutex_unlock(&rig->guard);
}

/* ---- blobs ---- */

struct outflow {
    cs_hash hash;
    uint64_t size, offset;
    bool has_started;
    Consilium__V1__BlobChunk chunk;
    uint8_t bytes[4096];
};

static cs_status fetch_request(cs_rpc_call *call, const ProtobufCMessage *request)
{
    rig *rig = cs_rpc_call_context(call);
    const Consilium__V1__FetchBlobRequest *wanted = (const Consilium__V1__FetchBlobRequest *)request;
    struct outflow *flow = cs_arena_alloc(cs_rpc_call_arena(call), sizeof(*flow));
    CS_TRY(cs_hash_from(cs_wire_bytes(wanted->sha256), "sha256", &flow->hash));
    flow->offset = wanted->offset;
    if (!cs_blobs_has(rig->blobs, &flow->hash, &flow->size))
        return cs_fail(CS_NOT_FOUND, "no such blob");
    cs_rpc_call_set_data(call, flow);
    pthread_mutex_lock(&rig->guard);
    rig->fetches++;
    rig->last_fetch_offset = wanted->offset;
    rig_changed(rig);
    pthread_mutex_unlock(&rig->guard);
    return CS_OK;
}

static cs_status fetch_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    rig *rig = cs_rpc_call_context(call);
    struct outflow *flow = cs_rpc_call_data(call);
    if (flow->has_started && flow->offset == flow->size)
        return CS_DONE;
    pthread_mutex_lock(&rig->guard);
    const bool is_cut = rig->cut_fetch_at > 0 && flow->offset >= rig->cut_fetch_at;
    if (is_cut)
        rig->cut_fetch_at = 0;
    pthread_mutex_unlock(&rig->guard);
    if (is_cut)
        return cs_fail(CS_UNAVAILABLE, "the test cut the line");
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_blobs_open_read(rig->blobs, &flow->hash, &fd, &flow->size));
    const size_t count = (size_t)CS_MIN(flow->size - flow->offset, (uint64_t)sizeof(flow->bytes));
    CS_TRY(cs_file_pread_exact(fd, flow->bytes, count, flow->offset));
    consilium__v1__blob_chunk__init(&flow->chunk);
    if (!flow->has_started)
        flow->chunk.hello = cs_wire_hello();
    flow->chunk.size = flow->has_started ? 0 : flow->size;
    flow->chunk.offset = flow->offset;
    flow->chunk.data = cs_wire_data(flow->bytes, count);
    flow->has_started = true;
    flow->offset += count;
    *ret = &flow->chunk.base;
    return CS_OK;
}

struct inflow {
    cs_upload *upload;
    uint64_t size, durable;
    bool owes_ack, has_answered, is_complete;
    Consilium__V1__StoreBlobAck ack;
};

static cs_status store_request(cs_rpc_call *call, const ProtobufCMessage *request)
{
    rig *rig = cs_rpc_call_context(call);
    const Consilium__V1__StoreBlobRequest *part = (const Consilium__V1__StoreBlobRequest *)request;
    struct inflow *flow = cs_rpc_call_data(call);
    if (flow == NULL) {
        flow = cs_arena_alloc(cs_rpc_call_arena(call), sizeof(*flow));
        cs_hash hash;
        CS_TRY(cs_hash_from(cs_wire_bytes(part->sha256), "sha256", &hash));
        CS_TRY(cs_upload_open(rig->blobs, SITE, &hash, part->size, &flow->upload, &flow->durable));
        flow->size = part->size;
        flow->owes_ack = true;
        cs_rpc_call_set_data(call, flow);
        pthread_mutex_lock(&rig->guard);
        rig->stores++;
        pthread_mutex_unlock(&rig->guard);
    } else {
        CS_TRY(cs_upload_append(flow->upload, part->offset, part->data.data, part->data.len));
        CS_TRY(cs_upload_sync(flow->upload, &flow->durable));
        flow->owes_ack = true;
        pthread_mutex_lock(&rig->guard);
        const bool is_cut = rig->cut_store;
        rig->cut_store = false;
        pthread_mutex_unlock(&rig->guard);
        if (is_cut)
            return cs_fail(CS_UNAVAILABLE, "the test cut the line");
    }
    if (!flow->is_complete && flow->durable == flow->size) {
        CS_TRY(cs_upload_finish(flow->upload));
        flow->is_complete = true;
    }
    cs_rpc_resume(call);
    return CS_OK;
}

static cs_status store_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    struct inflow *flow = cs_rpc_call_data(call);
    if (flow == NULL || !flow->owes_ack)
        return flow != NULL && flow->is_complete ? CS_DONE : CS_LATER;
    consilium__v1__store_blob_ack__init(&flow->ack);
    flow->ack.hello = flow->has_answered ? NULL : cs_wire_hello();
    flow->ack.durable_offset = flow->durable;
    flow->ack.complete = flow->is_complete;
    flow->has_answered = true;
    flow->owes_ack = false;
    *ret = &flow->ack.base;
    return CS_OK;
}

static void store_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    struct inflow *flow = cs_rpc_call_data(call);
    if (flow != NULL)
        cs_upload_free(flow->upload);
}

/* ---- certificates ---- */

static void rig_issue(rig *rig, cs_bytes csr, cs_role role, const char *name, int64_t issued_ms, int64_t life_ms,
                      cs_buffer *ret_pem)
{
    const char *const addresses[] = {"localhost", "127.0.0.1", NULL};
    cs_leaf_request request = {.csr_der = csr,
                               .consortium = CONSORTIUM,
                               .role = role,
                               .name = name,
                               .addresses = role == CS_ROLE_COORDINATOR ? addresses : NULL,
                               .now_ms = issued_ms,
                               .life_ms = life_ms};
    cs_crypto_random(request.serial, sizeof(request.serial));
    request.serial[0] &= 0x7F;
    must_be_ok(cs_leaf_issue(rig->authority_key, cs_buffer_view(&rig->authority_pem), &request, ret_pem));
}

struct renewal_answer {
    cs_buffer pem;
    bool is_sent;
    Consilium__V1__RenewAnswer answer;
};

static cs_status renew_request(cs_rpc_call *call, const ProtobufCMessage *request)
{
    rig *rig = cs_rpc_call_context(call);
    struct renewal_answer *answer = cs_arena_alloc(cs_rpc_call_arena(call), sizeof(*answer));
    rig_issue(rig, cs_wire_bytes(((const Consilium__V1__RenewRequest *)request)->csr), CS_ROLE_SITE, SITE,
              cs_clock_wall_ms(), HOUR_MS, &answer->pem);
    cs_rpc_call_set_data(call, answer);
    pthread_mutex_lock(&rig->guard);
    rig->renewals++;
    rig_changed(rig);
    pthread_mutex_unlock(&rig->guard);
    return CS_OK;
}

static cs_status renew_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    struct renewal_answer *answer = cs_rpc_call_data(call);
    if (((rig *)cs_rpc_call_context(call))->holds_renewals)
        return CS_LATER;
    if (answer->is_sent)
        return CS_DONE;
    answer->is_sent = true;
    consilium__v1__renew_answer__init(&answer->answer);
    answer->answer.hello = cs_wire_hello();
    answer->answer.certificate = cs_wire_data(answer->pem.data, answer->pem.size);
    *ret = &answer->answer.base;
    return CS_OK;
}

static void renew_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    struct renewal_answer *answer = cs_rpc_call_data(call);
    if (answer != NULL)
        cs_buffer_clear(&answer->pem);
}

static const cs_rpc_method rig_methods[] = {
    {.path = "/consilium.v1.Federation/Attend",
     .request = &consilium__v1__site_message__descriptor,
     .response = &consilium__v1__coordinator_message__descriptor,
     .is_duplex = true,
     .on_request = attend_request,
     .next_response = attend_response,
     .on_done = attend_done},
    {.path = "/consilium.v1.Federation/FetchBlob",
     .request = &consilium__v1__fetch_blob_request__descriptor,
     .response = &consilium__v1__blob_chunk__descriptor,
     .on_request = fetch_request,
     .next_response = fetch_response},
    {.path = "/consilium.v1.Federation/StoreBlob",
     .request = &consilium__v1__store_blob_request__descriptor,
     .response = &consilium__v1__store_blob_ack__descriptor,
     .is_duplex = true,
     .on_request = store_request,
     .next_response = store_response,
     .on_done = store_done},
    {.path = "/consilium.v1.Federation/Renew",
     .request = &consilium__v1__renew_request__descriptor,
     .response = &consilium__v1__renew_answer__descriptor,
     .on_request = renew_request,
     .next_response = renew_response,
     .on_done = renew_done},
    {.path = NULL},
};

/* ---- building and breaking it ---- */

static void rig_start_server(rig *rig)
{
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) key_pem = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) key_path = cs_path_join(rig->folder, "coordinator.key");
    must_be_ok(cs_tls_key_new(&key));
    must_be_ok(cs_tls_key_save(key, key_path));
    must_be_ok(cs_file_read_all(key_path, CS_PEM_MAX_BYTES, &key_pem));
    must_be_ok(cs_csr_make(key, &csr));
    rig_issue(rig, cs_buffer_view(&csr), CS_ROLE_COORDINATOR, NULL, cs_clock_wall_ms(), HOUR_MS, &pem);
    const cs_rpc_server_config config = {.listen = "127.0.0.1:0",
                                         .methods = rig_methods,
                                         .identity = {.certificate_pem = cs_buffer_view(&pem),
                                                      .key_pem = cs_buffer_view(&key_pem),
                                                      .authority_pem = cs_buffer_view(&rig->authority_pem)},
                                         .threads = 1,
                                         .context = rig};
    must_be_ok(cs_rpc_server_start(&config, &rig->server));
}

/* Offline, with the rig as the operator. */
static void rig_join(rig *rig)
{
    CS_AUTO(cs_string) join = cs_path_join(rig->folder, "join");
    CS_AUTO(cs_string) request_path = cs_path_join(rig->folder, "request");
    CS_AUTO(cs_string) answer_path = cs_path_join(rig->folder, "answer");
    CS_AUTO(cs_string) coordinator = cs_format("localhost:%u", cs_rpc_server_port(rig->server));
    const uint8_t token[CS_TOKEN_BYTES] = {1};
    char token_text[CS_TOKEN_TEXT_BYTES];
    cs_token_text(token, token_text);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_buffer_printf(&text,
                     "consilium join file\nsite: " SITE "\nconsortium: " CONSORTIUM "\ncoordinator: %s\n"
                     "enrolment: localhost:1\ntoken: %s\nexpires: 2999-01-01T00:00:00.000Z\n%s",
                     coordinator, token_text, cs_buffer_text(&rig->authority_pem));
    must_be_ok(cs_file_write_atomic(join, cs_buffer_view(&text), 0600));
    const cs_join_options options = {.state_folder = rig->site_folder, .join_file = join};
    must_be_ok(cs_join_request(&options, request_path));

    CS_AUTO(cs_buffer) request_text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(request_path, CS_ENROL_FILE_MAX_BYTES, &request_text));
    must_be_ok(cs_enrol_file_parse("request", cs_buffer_view(&request_text), &packed));
    ProtobufCMessage *message = NULL;
    must_be_ok(
        cs_wire_unpack(&consilium__v1__enrol_request__descriptor, cs_buffer_view(&packed), rig->arena, &message));
    const Consilium__V1__EnrolRequest *request = (const Consilium__V1__EnrolRequest *)message;

    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    rig_issue(rig, cs_wire_bytes(request->csr), CS_ROLE_SITE, SITE, rig->leaf_issued_ms, rig->leaf_life_ms, &pem);
    Consilium__V1__EnrolAnswer answer = CONSILIUM__V1__ENROL_ANSWER__INIT;
    answer.hello = cs_wire_hello();
    answer.certificate = cs_wire_data(pem.data, pem.size);
    answer.authority = cs_wire_data(rig->authority_pem.data, rig->authority_pem.size);
    answer.consortium = (char[]){CONSORTIUM};
    answer.coordinator = coordinator;
    CS_AUTO(cs_buffer) answer_packed = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) answer_text = CS_BUFFER_EMPTY;
    cs_wire_pack(&answer.base, &answer_packed);
    cs_enrol_file_write("answer", cs_buffer_view(&answer_packed), &answer_text);
    must_be_ok(cs_file_write_atomic(answer_path, cs_buffer_view(&answer_text), 0600));
    must_be_ok(cs_join_answer(&options, answer_path));
}

static void rig_configure(rig *rig, const char *approve)
{
    CS_AUTO(cs_string) path = cs_path_join(rig->site_folder, "site.yaml");
    CS_AUTO(cs_string) text =
        cs_format("site: " SITE "\ncoordinator: localhost:%u\nworker: " STANDIN "\n"
                  "datasets:\n  demo-v1: {table: demo.csv}\npolicy: {approve: [%s], confinement: required}\n",
                  cs_rpc_server_port(rig->server), approve);
    must_be_ok(cs_file_write_atomic(path, cs_bytes_of_text(text), 0600));
}

static void rig_mood(rig *rig, const char *mood)
{
    CS_AUTO(cs_string) path = cs_path_join(rig->site_folder, "standin");
    if (mood == NULL)
        must_be_ok(cs_file_remove(path));
    else
        must_be_ok(cs_file_write_atomic(path, cs_bytes_of_text(mood), 0600));
}

static void rig_start_agent(rig *rig)
{
    must_be_ok(cs_agent_start(&(cs_agent_config){.state_folder = rig->site_folder}, &rig->agent));
}

static void rig_stop_agent(rig *rig)
{
    cs_agent_stop(rig->agent);
    rig->agent = NULL;
}

/* The hospital's certificate was issued `age_ms` ago for `life_ms`. */
static int rig_make_aged(void **state, int64_t age_ms, int64_t life_ms)
{
    void *folder = NULL;
    if (folder_make(&folder) != 0)
        return -1;
    rig *rig = cs_alloc(sizeof(*rig));
    *state = rig;
    rig->folder = folder;
    rig->site_folder = cs_path_join(folder, SITE);
    rig->arena = cs_arena_new(0);
    rig->leaf_issued_ms = cs_clock_wall_ms() - age_ms;
    rig->leaf_life_ms = life_ms;
    pthread_mutex_init(&rig->guard, NULL);
    cs_condition_init(&rig->changed);
    CS_AUTO(cs_string) blobs = cs_path_join(folder, "blobs");
    must_be_ok(cs_blobs_open(blobs, &rig->blobs));
    must_be_ok(cs_tls_key_new(&rig->authority_key));
    must_be_ok(cs_authority_make(rig->authority_key, CONSORTIUM, "Test consortium", cs_clock_wall_ms() - 24 * HOUR_MS,
                                 &rig->authority_pem));
    rig_start_server(rig);
    rig_join(rig);
    rig_configure(rig, "{dataset: demo-v1}");
    return 0;
}

static CS_UNUSED int rig_make(void **state)
{
    return rig_make_aged(state, 0, HOUR_MS);
}

static CS_UNUSED int rig_free(void **state)
{
    rig *rig = *state;
    CS_IGNORE(cs_failpoint_configure(NULL), "not compiled in");
    rig_stop_agent(rig);
    cs_rpc_server_stop(rig->server, 0);
    for (size_t i = 0; i < MESSAGES_MAX; i++) {
        cs_buffer_clear(&rig->heard[i]);
        cs_buffer_clear(&rig->outbox[i]);
    }
    if (rig->attend != NULL)
        cs_rpc_release(rig->attend);
    cs_blobs_free(rig->blobs);
    cs_tls_key_free(rig->authority_key);
    cs_buffer_clear(&rig->authority_pem);
    cs_arena_free(rig->arena);
    cs_free(rig->site_folder);
    void *folder = rig->folder;
    cs_free(rig);
    return folder_remove(&folder);
}

/* ---- waiting and looking ---- */

/* guard is held. The n-th message of this kind, over all sessions or in one of them. */
static Consilium__V1__SiteMessage *find_heard(rig *rig, Consilium__V1__SiteMessage__BodyCase kind, size_t nth,
                                              int session)
{
    size_t count = 0;
    for (size_t i = 0; i < rig->heard_count; i++) {
        ProtobufCMessage *message = NULL;
        must_be_ok(cs_wire_unpack(&consilium__v1__site_message__descriptor, cs_buffer_view(&rig->heard[i]), rig->arena,
                                  &message));
        Consilium__V1__SiteMessage *heard = (Consilium__V1__SiteMessage *)message;
        if (heard->body_case == kind && (session == 0 || rig->heard_in[i] == session) && ++count == nth)
            return heard;
    }
    return NULL;
}

static Consilium__V1__SiteMessage *rig_await_in(rig *rig, Consilium__V1__SiteMessage__BodyCase kind, size_t nth,
                                                int session)
{
    const int64_t until_ms = cs_clock_monotonic_ms() + PATIENCE_MS;
    pthread_mutex_lock(&rig->guard);
    Consilium__V1__SiteMessage *found = find_heard(rig, kind, nth, session);
    for (bool is_in_time = true; is_in_time && found == NULL;) {
        is_in_time = cs_condition_wait(&rig->changed, &rig->guard, until_ms);
        found = find_heard(rig, kind, nth, session);
    }
    pthread_mutex_unlock(&rig->guard);
    if (found == NULL)
        fail_msg("waited in vain for message %zu of kind %d", nth, (int)kind);
    return found;
}

/* The n-th message of this kind, counted from 1 over the whole test. */
static CS_UNUSED Consilium__V1__SiteMessage *rig_await(rig *rig, Consilium__V1__SiteMessage__BodyCase kind, size_t nth)
{
    return rig_await_in(rig, kind, nth, 0);
}

static CS_UNUSED Consilium__V1__PlanDecision *rig_decision(rig *rig, size_t nth)
{
    return rig_await(rig, CONSILIUM__V1__SITE_MESSAGE__BODY_DECISION, nth)->decision;
}

static CS_UNUSED Consilium__V1__TaskResult *rig_result(rig *rig, size_t nth)
{
    return rig_await(rig, CONSILIUM__V1__SITE_MESSAGE__BODY_RESULT, nth)->result;
}

static CS_UNUSED void rig_await_count(rig *rig, const int *counter, int at_least)
{
    const int64_t until_ms = cs_clock_monotonic_ms() + PATIENCE_MS;
    pthread_mutex_lock(&rig->guard);
    bool is_in_time = true;
    while (*counter < at_least && is_in_time)
        is_in_time = cs_condition_wait(&rig->changed, &rig->guard, until_ms);
    const int reached = *counter;
    pthread_mutex_unlock(&rig->guard);
    if (reached < at_least)
        fail_msg("waited for %d, got to %d", at_least, reached);
}

/* Waits until that session, counted from 1, is up; gives the state that the site said first in it. */
static CS_UNUSED const Consilium__V1__SiteState *rig_attended(rig *rig, int session)
{
    return rig_await_in(rig, CONSILIUM__V1__SITE_MESSAGE__BODY_STATE, 1, session)->state;
}

/* The line of the session breaks. */
static CS_UNUSED void rig_break_session(rig *rig)
{
    pthread_mutex_lock(&rig->guard);
    cs_rpc_call *call = rig->attend;
    cs_rpc_hold(call);
    pthread_mutex_unlock(&rig->guard);
    cs_rpc_end(call, CS_UNAVAILABLE, "the test broke the session");
    cs_rpc_release(call);
}

static CS_UNUSED Consilium__V1__ControlAnswer *rig_ask(rig *rig, Consilium__V1__ControlRequest *request)
{
    Consilium__V1__ControlAnswer *answer = NULL;
    must_be_ok(cs_control_ask(rig->site_folder, request, rig->arena, &answer));
    return answer;
}

static CS_UNUSED Consilium__V1__AgentStatus *rig_status(rig *rig)
{
    Consilium__V1__StatusRequest body = CONSILIUM__V1__STATUS_REQUEST__INIT;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS;
    request.status = &body;
    return rig_ask(rig, &request)->status;
}

static CS_UNUSED char *rig_transcript(rig *rig)
{
    CS_AUTO(cs_string) path = cs_path_join(rig->site_folder, "audit/transcript.jsonl");
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(path, 1024 * 1024, &text));
    return cs_arena_strdup(rig->arena, cs_buffer_text(&text));
}

/* ---- plans and tasks ---- */

#define PLAN_TEXT                                                                                                      \
    "plan: demo\nfederation: horizontal\nsites: {invite: all, minimum: 2}\n"                                           \
    "dataset: {name: demo-v1, kind: table, features: [a, b, c], label: {column: y, above: 0}, missing: drop, "         \
    "standardize: none}\n"                                                                                             \
    "model: {kind: logistic_regression}\n"                                                                             \
    "training: {rounds: 10, local_steps: 1, batch_size: 4, optimizer: {kind: sgd, learning_rate: 0.1}, loss: bce}\n"   \
    "aggregation: {method: fedavg, weights: samples}\n"                                                                \
    "evaluation: {metrics: [accuracy], standardize: [none]}\n"                                                         \
    "retention: {updates: 2, models: [last]}\nseed: 1\n"

static CS_UNUSED cs_hash rig_offer_as(rig *rig, const char *job, const char *plan, const cs_hash *claimed)
{
    const cs_hash hash = cs_sha256(cs_bytes_of_text(plan));
    Consilium__V1__JobOffer offer = CONSILIUM__V1__JOB_OFFER__INIT;
    offer.job = (char *)(uintptr_t)job;
    offer.plan_sha256 = cs_wire_data(claimed != NULL ? claimed->bytes : hash.bytes, CS_HASH_BYTES);
    offer.plan = cs_wire_data(plan, strlen(plan));
    char *invited[] = {(char[]){SITE}, (char[]){"general"}};
    offer.invited = invited;
    offer.n_invited = 2;
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_OFFER;
    message.offer = &offer;
    rig_say(rig, &message);
    return hash;
}

static CS_UNUSED cs_hash rig_offer(rig *rig, const char *job)
{
    return rig_offer_as(rig, job, PLAN_TEXT, NULL);
}

typedef struct rig_task {
    const char *job, *phase;
    uint32_t round;
    const cs_hash *plan;
    const cs_hash *model;   /* NULL: none */
    const char *model_name; /* NULL: "model" */
    size_t participants;
} rig_task;

static CS_UNUSED void rig_assign(rig *rig, const rig_task *task)
{
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = (char *)(uintptr_t)task->job;
    key.round = task->round;
    key.phase = (char *)(uintptr_t)task->phase;
    Consilium__V1__Blob model = CONSILIUM__V1__BLOB__INIT;
    Consilium__V1__Blob *inputs[] = {&model};
    model.name = task->model_name != NULL ? (char *)(uintptr_t)task->model_name : (char[]){"model"};
    Consilium__V1__TaskAssignment assignment = CONSILIUM__V1__TASK_ASSIGNMENT__INIT;
    assignment.key = &key;
    assignment.plan_sha256 = cs_wire_data(task->plan->bytes, CS_HASH_BYTES);
    if (task->model != NULL) {
        model.sha256 = cs_wire_data(task->model->bytes, CS_HASH_BYTES);
        assert_true(cs_blobs_has(rig->blobs, task->model, &model.size));
        assignment.inputs = inputs;
        assignment.n_inputs = 1;
    }
    char *participants[] = {(char[]){SITE}, (char[]){"general"}, (char[]){"university"}};
    assignment.participants = participants;
    assignment.n_participants = task->participants != 0 ? task->participants : 2;
    assignment.remaining_ms = 600000;
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_TASK;
    message.task = &assignment;
    rig_say(rig, &message);
}

static CS_UNUSED void rig_acknowledge(rig *rig, const Consilium__V1__TaskResult *result)
{
    Consilium__V1__ResultAck ack = CONSILIUM__V1__RESULT_ACK__INIT;
    ack.key = result->key;
    ack.verdict = CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED;
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ACK;
    message.ack = &ack;
    rig_say(rig, &message);
}

static CS_UNUSED void rig_end_job(rig *rig, const char *job, Consilium__V1__JobState state)
{
    Consilium__V1__JobUpdate update = CONSILIUM__V1__JOB_UPDATE__INIT;
    update.job = (char *)(uintptr_t)job;
    update.state = state;
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB;
    message.job = &update;
    rig_say(rig, &message);
}

/* A model of `columns` weights at the coordinator. */
static CS_UNUSED cs_hash rig_model(rig *rig, uint64_t columns, float value)
{
    CS_AUTO(cs_string) path = cs_path_join(rig->folder, "model");
    const cs_tensor_info infos[] = {
        {.name = "linear.bias", .dtype = CS_F32, .rank = 1, .shape = {1}},
        {.name = "linear.weight", .dtype = CS_F32, .rank = 2, .shape = {1, columns}},
    };
    float *values = cs_alloc_array(columns, sizeof(*values));
    for (uint64_t i = 0; i < columns; i++)
        values[i] = value;
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    must_be_ok(cs_tensor_writer_open(path, infos, CS_COUNT(infos), NULL, 0, &writer));
    must_be_ok(cs_tensor_writer_put(writer, 0, 0, values, sizeof(*values)));
    must_be_ok(cs_tensor_writer_put(writer, 1, 0, values, columns * sizeof(*values)));
    must_be_ok(cs_tensor_writer_commit(writer));
    cs_free(values);
    cs_hash hash;
    uint64_t size = 0;
    must_be_ok(cs_blobs_adopt(rig->blobs, path, &hash, &size));
    return hash;
}

#endif
