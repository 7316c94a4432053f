/* Attend, FetchBlob, StoreBlob and Renew, for sites. rpc threads, but cs_services_send: the engine's thread. */
#include "server/services/internal.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"

#include <inttypes.h>
#include <string.h>

/* A site that does not read is let go before what waits for it grows beyond this; it gets everything again when it is
 * back. */
#define SESSION_QUEUE_MAX_BYTES (16 * 1024 * 1024)
#define SESSION_ARENA_BYTES     (16 * 1024 * 1024)
/* So long a site that was told goodbye may take to read it. */
#define GOODBYE_MS 10000

/* ---- Attend ---- */

struct outgoing {
    struct outgoing *next;
    cs_buffer packed;
};

struct session {
    struct session *next;
    cs_services *services;
    cs_rpc_call *call; /* held */
    char site[CS_NAME_MAX + 1];
    uint64_t number;
    uint64_t features;
    struct outgoing *first, *last; /* sessions_mutex */
    size_t queued_bytes;           /* sessions_mutex */
    bool is_closing;               /* sessions_mutex: ends once the queue is empty */
    int64_t ends_ms;               /* sessions_mutex: or then; monotonic, 0: not told goodbye */
    bool is_paused;                /* sessions_mutex: the engine's mailbox was full */
    cs_arena *arena;               /* the message being written; NULL: none */
};

/* sessions_mutex is held. */
static void enqueue(struct session *session, const Consilium__V1__CoordinatorMessage *message)
{
    struct outgoing *item = cs_alloc(sizeof *item);
    cs_wire_pack(&message->base, &item->packed);
    session->queued_bytes += item->packed.size;
    if (session->last)
        session->last->next = item;
    else
        session->first = item;
    session->last = item;
}

/* sessions_mutex is held. The goodbye is the last thing the site hears on this stream. */
static void close_with_goodbye(struct session *session, const char *reason, bool may_reconnect)
{
    if (session->is_closing)
        return;
    Consilium__V1__Goodbye goodbye = CONSILIUM__V1__GOODBYE__INIT;
    goodbye.reason = (char *)(uintptr_t)reason;
    goodbye.may_reconnect = may_reconnect;
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_GOODBYE;
    message.goodbye = &goodbye;
    enqueue(session, &message);
    session->is_closing = true;
    session->ends_ms = cs_clock_monotonic_ms() + GOODBYE_MS;
    cs_rpc_resume(session->call);
}

bool cs_services_send(void *self, const char *site, const Consilium__V1__CoordinatorMessage *message)
{
    cs_services *services = self;
    bool was_sent = false;
    pthread_mutex_lock(&services->sessions_mutex);
    for (struct session *session = services->sessions; session; session = session->next) {
        if (session->is_closing || strcmp(session->site, site) != 0)
            continue;
        enqueue(session, message);
        if (session->queued_bytes > SESSION_QUEUE_MAX_BYTES) {
            session->is_closing = true; /* nothing more is put behind it */
            cs_rpc_end(session->call, CS_EXHAUSTED, "the site does not read; it may attend again");
        }
        cs_rpc_resume(session->call);
        was_sent = true;
        break;
    }
    pthread_mutex_unlock(&services->sessions_mutex);
    return was_sent;
}

void cs_services_tick(cs_services *services)
{
    watchers_tick(services);
    int64_t now_ms = cs_clock_monotonic_ms();
    pthread_mutex_lock(&services->sessions_mutex);
    for (struct session *session = services->sessions; session; session = session->next) {
        if (session->is_paused)
            cs_rpc_resume(session->call);
        session->is_paused = false;
        if (session->ends_ms != 0 && now_ms >= session->ends_ms)
            cs_rpc_end(session->call, CS_ABORTED, "a newer session of this site took over");
    }
    pthread_mutex_unlock(&services->sessions_mutex);
}

static cs_status session_begin(cs_rpc_call *call, const Consilium__V1__SiteMessage *message)
{
    if (message->body_case != CONSILIUM__V1__SITE_MESSAGE__BODY_HELLO)
        return cs_fail(CS_STATE, "the first message on a stream must be a Hello");
    uint32_t minor = 0;
    uint64_t features = 0;
    CS_TRY(cs_wire_agree(message->hello, &minor, &features));

    cs_services *services = services_of(call);
    struct session *session = cs_alloc(sizeof *session);
    session->services = services;
    session->call = call;
    session->features = features;
    memcpy(session->site, cs_rpc_call_peer(call)->identity.name, sizeof session->site);
    cs_rpc_hold(call);
    cs_rpc_call_set_data(call, session);

    Consilium__V1__CoordinatorMessage welcome = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    welcome.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_HELLO;
    welcome.hello = cs_wire_hello();

    pthread_mutex_lock(&services->sessions_mutex);
    for (struct session *older = services->sessions; older; older = older->next) {
        if (strcmp(older->site, session->site) == 0)
            close_with_goodbye(older, "a newer session of this site took over", false);
    }
    session->number = ++services->last_session;
    session->next = services->sessions;
    services->sessions = session;
    enqueue(session, &welcome);
    pthread_mutex_unlock(&services->sessions_mutex);

    cs_engine_site_attended(services->engine, session->site, session->number, features, message->hello->software);
    cs_rpc_resume(call);
    return CS_OK;
}

static cs_status attend_request(cs_rpc_call *call, const ProtobufCMessage *request)
{
    const Consilium__V1__SiteMessage *message = (const Consilium__V1__SiteMessage *)request;
    struct session *session = cs_rpc_call_data(call);
    if (!session)
        return session_begin(call, message);
    switch (message->body_case) {
    case CONSILIUM__V1__SITE_MESSAGE__BODY_HELLO:
        return cs_fail(CS_INVALID, "found a second Hello on one stream");
    case CONSILIUM__V1__SITE_MESSAGE__BODY_STATE:
    case CONSILIUM__V1__SITE_MESSAGE__BODY_DECISION:
    case CONSILIUM__V1__SITE_MESSAGE__BODY_PROGRESS:
    case CONSILIUM__V1__SITE_MESSAGE__BODY_RESULT:
        break;
    case CONSILIUM__V1__SITE_MESSAGE__BODY_RELAY:
    case CONSILIUM__V1__SITE_MESSAGE__BODY_ROSTER_APPROVAL:
        if (!(session->features & CONSILIUM__V1__FEATURE__FEATURE_ROSTER))
            return cs_fail(CS_UNIMPLEMENTED,
                           "a message of a feature that this stream's Hello did not offer: roster and relay");
        break;
    default:
        return CS_OK; /* a body of a newer minor version */
    }

    cs_services *services = session->services;
    cs_status status = cs_engine_site_message(services->engine, session->site, session->number, message);
    if (status != CS_EXHAUSTED)
        return status;
    pthread_mutex_lock(&services->sessions_mutex);
    session->is_paused = true;
    pthread_mutex_unlock(&services->sessions_mutex);
    return CS_LATER;
}

static cs_status attend_requests_end(cs_rpc_call *call)
{
    struct session *session = cs_rpc_call_data(call);
    if (!session)
        return cs_fail(CS_STATE, "the stream ended before its Hello");
    pthread_mutex_lock(&session->services->sessions_mutex);
    session->is_closing = true;
    pthread_mutex_unlock(&session->services->sessions_mutex);
    cs_rpc_resume(call);
    return CS_OK;
}

static cs_status attend_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    struct session *session = cs_rpc_call_data(call);
    if (!session)
        return CS_LATER;
    cs_services *services = session->services;
    pthread_mutex_lock(&services->sessions_mutex);
    struct outgoing *item = session->first;
    bool is_closing = session->is_closing;
    if (item) {
        session->first = item->next;
        if (!session->first)
            session->last = NULL;
        session->queued_bytes -= item->packed.size;
    }
    pthread_mutex_unlock(&services->sessions_mutex);
    /* Between messages a session keeps no memory for them. */
    cs_arena_free(session->arena);
    session->arena = NULL;
    if (!item)
        return is_closing ? CS_DONE : CS_LATER;

    session->arena = cs_arena_new(SESSION_ARENA_BYTES);
    ProtobufCMessage *message = NULL;
    cs_status status = cs_wire_unpack(&consilium__v1__coordinator_message__descriptor, cs_buffer_view(&item->packed),
                                      session->arena, &message);
    cs_buffer_clear(&item->packed);
    cs_free(item);
    *ret = message;
    return status;
}

static void attend_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    struct session *session = cs_rpc_call_data(call);
    if (!session)
        return;
    cs_services *services = session->services;
    pthread_mutex_lock(&services->sessions_mutex);
    struct session **link = &services->sessions;
    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    pthread_mutex_unlock(&services->sessions_mutex);

    cs_engine_site_left(services->engine, session->site, session->number);
    while (session->first) {
        struct outgoing *item = session->first;
        session->first = item->next;
        cs_buffer_clear(&item->packed);
        cs_free(item);
    }
    cs_arena_free(session->arena);
    cs_rpc_call_set_data(call, NULL);
    cs_free(session);
    cs_rpc_release(call);
}

/* ---- FetchBlob ---- */

static struct traffic *traffic_of(cs_services *services, const char *site)
{
    pthread_mutex_lock(&services->traffic_mutex);
    struct traffic *traffic = services->traffic;
    while (traffic && strcmp(traffic->site, site) != 0)
        traffic = traffic->next;
    if (!traffic) {
        traffic = cs_alloc(sizeof *traffic);
        memcpy(traffic->site, site, strnlen(site, CS_NAME_MAX));
        traffic->next = services->traffic;
        services->traffic = traffic;
    }
    pthread_mutex_unlock(&services->traffic_mutex);
    return traffic;
}

void cs_services_measure(cs_services *services, cs_metrics_page *page)
{
    pthread_mutex_lock(&services->traffic_mutex);
    uint64_t uploads = 0, downloads = 0;
    cs_metrics_family(page, "consilium_blob_received_bytes_total", CS_COUNTER,
                      "Bytes of blobs that came from each site since the coordinator started.");
    for (const struct traffic *traffic = services->traffic; traffic; traffic = traffic->next) {
        cs_metrics_count(page, atomic_load(&traffic->received), CS_LABEL("site", traffic->site));
        uploads += atomic_load(&traffic->uploads);
        downloads += atomic_load(&traffic->downloads);
    }
    cs_metrics_family(page, "consilium_blob_sent_bytes_total", CS_COUNTER,
                      "Bytes of blobs that went to each site since the coordinator started.");
    for (const struct traffic *traffic = services->traffic; traffic; traffic = traffic->next)
        cs_metrics_count(page, atomic_load(&traffic->sent), CS_LABEL("site", traffic->site));
    pthread_mutex_unlock(&services->traffic_mutex);
    cs_metrics_family(page, "consilium_blob_uploads", CS_GAUGE, "Blobs that are coming from sites right now.");
    cs_metrics_count(page, uploads);
    cs_metrics_family(page, "consilium_blob_downloads", CS_GAUGE, "Blobs that are going to sites right now.");
    cs_metrics_count(page, downloads);
}

static cs_status agree(const Consilium__V1__Hello *hello)
{
    uint32_t minor = 0;
    uint64_t features = 0;
    return cs_wire_agree(hello, &minor, &features);
}

static cs_status fetch_request(cs_rpc_call *call, const ProtobufCMessage *message)
{
    const Consilium__V1__FetchBlobRequest *request = (const Consilium__V1__FetchBlobRequest *)message;
    cs_services *services = services_of(call);
    if (cs_rpc_call_data(call))
        return cs_fail(CS_INVALID, "found a second request, expected one");
    CS_TRY(agree(request->hello));
    if (!request->task)
        return cs_fail(CS_INVALID, "FetchBlob names no task");
    cs_hash hash = {0};
    CS_TRY(cs_hash_from(cs_wire_bytes(request->sha256), "FetchBlob.sha256", &hash));
    CS_TRY(cs_engine_may_fetch(services->engine, cs_rpc_call_peer(call)->identity.name, request->task, &hash));
    outflow *flow = NULL;
    CS_TRY(outflow_open(services->blobs, &hash, request->offset, &flow));
    flow->traffic = traffic_of(services, cs_rpc_call_peer(call)->identity.name);
    atomic_fetch_add(&flow->traffic->downloads, 1U);
    cs_rpc_call_set_data(call, flow);
    return CS_OK;
}

static cs_status fetch_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    outflow *flow = cs_rpc_call_data(call);
    if (!flow)
        return cs_fail(CS_INVALID, "found no request, expected one");
    CS_FAILPOINT("services.fetch_chunk");
    const uint64_t begun_at = flow->offset;
    CS_TRY(outflow_next(flow, ret));
    atomic_fetch_add(&flow->traffic->sent, flow->offset - begun_at);
    return CS_OK;
}

static void fetch_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    outflow *flow = cs_rpc_call_data(call);
    if (flow)
        atomic_fetch_sub(&flow->traffic->downloads, 1U);
    outflow_free(flow);
    cs_rpc_call_set_data(call, NULL);
}

/* ---- StoreBlob ---- */

struct inflow {
    cs_upload *upload;
    struct traffic *traffic;
    uint64_t size, received, acknowledged;
    bool has_answered, has_said_complete;
    Consilium__V1__StoreBlobAck ack;
};

/* On a thread of the store. */
static void more_is_durable(void *call)
{
    cs_rpc_resume(call);
}

static cs_status store_begin(cs_rpc_call *call, const Consilium__V1__StoreBlobRequest *request)
{
    cs_services *services = services_of(call);
    const char *site = cs_rpc_call_peer(call)->identity.name;
    CS_TRY(agree(request->hello));
    if (!request->task)
        return cs_fail(CS_INVALID, "StoreBlob names no task");
    if (request->data.len > 0)
        return cs_fail(CS_INVALID, "the first StoreBlob message has no data: the answer says where to go on");
    cs_hash hash = {0};
    CS_TRY(cs_hash_from(cs_wire_bytes(request->sha256), "StoreBlob.sha256", &hash));
    CS_TRY(cs_engine_may_store(services->engine, site, request->task, &hash, request->size));

    struct inflow *flow = cs_alloc(sizeof *flow);
    cs_status status = cs_upload_open(services->blobs, site, &hash, request->size, &flow->upload, &flow->received);
    if (status != CS_OK) {
        cs_free(flow);
        return status;
    }
    flow->size = request->size;
    flow->traffic = traffic_of(services, site);
    atomic_fetch_add(&flow->traffic->uploads, 1U);
    cs_upload_on_synced(flow->upload, more_is_durable, call);
    cs_rpc_call_set_data(call, flow);
    cs_rpc_resume(call); /* the first answer says where to go on */
    return flow->received == flow->size ? cs_upload_finish(flow->upload) : CS_OK;
}

static cs_status store_request(cs_rpc_call *call, const ProtobufCMessage *message)
{
    const Consilium__V1__StoreBlobRequest *request = (const Consilium__V1__StoreBlobRequest *)message;
    struct inflow *flow = cs_rpc_call_data(call);
    if (!flow)
        return store_begin(call, request);
    if (flow->received == flow->size)
        return cs_fail(CS_INVALID, "found data after the last byte of the blob");
    if (request->data.len > CS_WIRE_CHUNK_BYTES)
        return cs_fail(CS_INVALID, "a chunk has %zu bytes, the most is %d", request->data.len, CS_WIRE_CHUNK_BYTES);
    if (!cs_upload_has_room(flow->upload))
        return CS_LATER;
    CS_FAILPOINT("services.store_chunk");
    CS_TRY(cs_upload_append(flow->upload, request->offset, request->data.data, request->data.len));
    flow->received += request->data.len;
    atomic_fetch_add(&flow->traffic->received, (uint64_t)request->data.len);
    cs_upload_sync_later(flow->upload);
    return CS_OK;
}

static cs_status store_requests_end(cs_rpc_call *call)
{
    struct inflow *flow = cs_rpc_call_data(call);
    if (!flow)
        return cs_fail(CS_INVALID, "found no request, expected one");
    uint64_t durable = 0;
    bool is_stored = false;
    CS_TRY(cs_upload_synced(flow->upload, &durable, &is_stored));
    if (is_stored)
        return CS_OK;
    if (flow->received == flow->size)
        return CS_LATER; /* the disk is at it */
    CS_TRY(cs_upload_sync(flow->upload, &durable));
    return cs_fail(CS_INVALID, "the stream ended at byte %" PRIu64 " of %" PRIu64, durable, flow->size);
}

static cs_status store_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    struct inflow *flow = cs_rpc_call_data(call);
    if (!flow)
        return CS_LATER;
    uint64_t durable = 0;
    bool is_stored = false;
    CS_TRY(cs_upload_synced(flow->upload, &durable, &is_stored));
    if (flow->has_said_complete)
        return CS_DONE;
    if (flow->has_answered && durable == flow->acknowledged && !is_stored)
        return CS_LATER;
    consilium__v1__store_blob_ack__init(&flow->ack);
    if (!flow->has_answered)
        flow->ack.hello = cs_wire_hello();
    flow->ack.durable_offset = durable;
    flow->ack.complete = is_stored;
    flow->has_answered = true;
    flow->acknowledged = durable;
    flow->has_said_complete = is_stored;
    *ret = &flow->ack.base;
    return CS_OK;
}

static void store_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    struct inflow *flow = cs_rpc_call_data(call);
    if (!flow)
        return;
    /* What came is worth keeping when the line was cut: the next stream goes on there. */
    uint64_t durable = 0;
    if (!flow->has_said_complete)
        CS_IGNORE(cs_upload_sync(flow->upload, &durable), "the next stream starts at the older offset");
    atomic_fetch_sub(&flow->traffic->uploads, 1U);
    cs_upload_free(flow->upload);
    cs_free(flow);
    cs_rpc_call_set_data(call, NULL);
}

/* ---- Renew ---- */

static cs_status renew_on_engine(ask *question, cs_store *store)
{
    const Consilium__V1__RenewRequest *request = (const Consilium__V1__RenewRequest *)question->request;
    const cs_identity *identity = &cs_rpc_call_peer(question->call)->identity;
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    int64_t not_after_ms = 0;
    CS_TRY(cs_pki_renew(question->services->pki, store, identity, cs_wire_bytes(request->csr), &pem, &not_after_ms));
    CS_TRY(cs_registry_publish(store));

    Consilium__V1__RenewAnswer *answer = cs_arena_alloc(question->arena, sizeof *answer);
    consilium__v1__renew_answer__init(answer);
    answer->hello = cs_wire_hello();
    answer->certificate = cs_wire_data(cs_arena_copy(question->arena, pem.data, pem.size), pem.size);
    answer->not_after_ms = (uint64_t)not_after_ms;
    question->answer = &answer->base;
    return CS_OK;
}

static cs_status renew_request(cs_rpc_call *call, const ProtobufCMessage *message)
{
    const Consilium__V1__RenewRequest *request = (const Consilium__V1__RenewRequest *)message;
    CS_TRY(agree(request->hello));
    return ask_start(call, message, renew_on_engine);
}

/* ---- the tables ---- */

static const cs_rpc_method federation[] = {
    {.path = "/consilium.v1.Federation/Attend",
     .request = &consilium__v1__site_message__descriptor,
     .response = &consilium__v1__coordinator_message__descriptor,
     .is_duplex = true,
     .on_request = attend_request,
     .on_requests_end = attend_requests_end,
     .next_response = attend_response,
     .on_done = attend_done},
    {.path = "/consilium.v1.Federation/FetchBlob",
     .request = &consilium__v1__fetch_blob_request__descriptor,
     .response = &consilium__v1__blob_chunk__descriptor,
     .on_request = fetch_request,
     .next_response = fetch_response,
     .on_done = fetch_done},
    {.path = "/consilium.v1.Federation/StoreBlob",
     .request = &consilium__v1__store_blob_request__descriptor,
     .response = &consilium__v1__store_blob_ack__descriptor,
     .is_duplex = true,
     .on_request = store_request,
     .on_requests_end = store_requests_end,
     .next_response = store_response,
     .on_done = store_done},
    {.path = "/consilium.v1.Federation/Renew",
     .request = &consilium__v1__renew_request__descriptor,
     .response = &consilium__v1__renew_answer__descriptor,
     .on_request = renew_request,
     .next_response = ask_respond,
     .on_done = ask_done},
    {.path = "/consilium.v1.Federation/Probe",
     .request = &consilium__v1__probe_request__descriptor,
     .response = &consilium__v1__probe_answer__descriptor,
     .is_request_stream = true,
     .on_request = probe_request,
     .on_requests_end = probe_requests_end,
     .next_response = probe_response,
     .on_done = probe_done},
    {.path = NULL},
};

const cs_rpc_method *cs_services_federation_methods(void)
{
    return federation;
}

cs_status cs_services_admit(void *self, const cs_rpc_peer *peer, const char *path)
{
    cs_services *services = self;
    (void)path;
    if (peer->is_local)
        return CS_OK;
    if (peer->identity.role != CS_ROLE_SITE)
        return cs_fail(CS_DENIED, "found the certificate of a coordinator, expected one of a site");
    if (strcmp(peer->identity.consortium, cs_pki_consortium(services->pki)) != 0)
        return cs_fail(CS_DENIED, "found a certificate of consortium '%s', this is '%s'", peer->identity.consortium,
                       cs_pki_consortium(services->pki));
    return cs_registry_admit(&peer->identity);
}

cs_services *cs_services_new(const cs_services_config *config)
{
    cs_services *services = cs_alloc(sizeof *services);
    services->blobs = config->blobs;
    services->pki = config->pki;
    services->coordinator = cs_strdup(config->coordinator);
    services->enrolment = cs_strdup(config->enrolment);
    pthread_mutex_init(&services->sessions_mutex, NULL);
    pthread_mutex_init(&services->probes_mutex, NULL);
    pthread_mutex_init(&services->leaving_mutex, NULL);
    pthread_mutex_init(&services->traffic_mutex, NULL);
    return services;
}

void cs_services_free(cs_services *services)
{
    if (!services)
        return;
    watchers_free(services);
    pthread_mutex_destroy(&services->sessions_mutex);
    pthread_mutex_destroy(&services->probes_mutex);
    cs_free(services->probes);
    pthread_mutex_destroy(&services->leaving_mutex);
    pthread_mutex_destroy(&services->traffic_mutex);
    for (struct traffic *traffic = services->traffic, *next = NULL; traffic; traffic = next) {
        next = traffic->next;
        cs_free(traffic);
    }
    cs_free(services->coordinator);
    cs_free(services->enrolment);
    cs_free(services);
}

void cs_services_set_engine(cs_services *services, cs_engine *engine)
{
    services->engine = engine;
}

void cs_services_set_server(cs_services *services, cs_rpc_server *server)
{
    atomic_store(&services->server, server);
}
