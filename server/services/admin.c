/* The admin service, for the operator on the Unix socket. Each method is a function on the engine's thread that fills
 * an answer; WatchJob and ExportModel stream. Roles other than the socket's operator are refused in one place, so that
 * operator certificates can come later. */
#include "server/services/internal.h"

#include "common/crypto/enrolfile.h"

#include <string.h>

#define WATCH_ARENA_BYTES   (64 * 1024 * 1024)
#define OFFLINE_ARENA_BYTES (1024 * 1024)

static cs_status operator_only(cs_rpc_call *call)
{
    if (!cs_rpc_call_peer(call)->is_local)
        return cs_fail(CS_DENIED, "the admin service answers the operator on the coordinator's own socket only");
    return CS_OK;
}

/* A job of a thousand rounds does not fit a message. */
static bool fits_into_message(const Consilium__V1__JobStatus *status)
{
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(&status->base, &packed);
    return cs_wire_scan(status->base.descriptor, cs_buffer_view(&packed)) == CS_OK;
}

static void leave_out_oldest(Consilium__V1__JobStatus *status, size_t count)
{
    status->history += count;
    status->n_history -= count;
}

static void keep_newest_that_fit(Consilium__V1__JobStatus *status)
{
    while (status->n_history > 1 && !fits_into_message(status))
        leave_out_oldest(status, (status->n_history + 3) / 4);
}

static void keep_oldest_that_fit(Consilium__V1__JobStatus *status)
{
    while (status->n_history > 1 && !fits_into_message(status)) {
        status->n_history -= (status->n_history + 3) / 4;
        status->has_more = true;
    }
}

/* ---- unary methods: on the engine's thread ---- */

static cs_status submit_job(ask *question, cs_store *store)
{
    (void)store;
    const Consilium__V1__SubmitJobRequest *request = (const Consilium__V1__SubmitJobRequest *)question->request;
    Consilium__V1__JobStatus *status = NULL;
    CS_TRY(cs_engine_submit(question->services->engine, cs_wire_bytes(request->plan),
                            request->source[0] ? request->source : "plan", question->arena, &status));
    question->answer = &status->base;
    return CS_OK;
}

static cs_status describe(ask *question, const char *job, uint32_t first_round)
{
    Consilium__V1__JobStatus *status = NULL;
    CS_TRY(cs_engine_describe(question->services->engine, job, true, question->arena, &status));
    while (status->n_history > 0 && status->history[0]->round < first_round)
        leave_out_oldest(status, 1);
    keep_oldest_that_fit(status);
    question->answer = &status->base;
    return CS_OK;
}

static cs_status show_job(ask *question, cs_store *store)
{
    (void)store;
    const Consilium__V1__JobRef *request = (const Consilium__V1__JobRef *)question->request;
    return describe(question, request->job, request->first_round);
}

static cs_status cancel_job(ask *question, cs_store *store)
{
    (void)store;
    const Consilium__V1__CancelJobRequest *request = (const Consilium__V1__CancelJobRequest *)question->request;
    CS_TRY(cs_engine_cancel(question->services->engine, request->job,
                            request->reason[0] ? request->reason : "cancelled by the operator"));
    return describe(question, request->job, 0);
}

static cs_status resume_job(ask *question, cs_store *store)
{
    (void)store;
    const Consilium__V1__JobRef *request = (const Consilium__V1__JobRef *)question->request;
    CS_TRY(cs_engine_resume(question->services->engine, request->job));
    return describe(question, request->job, 0);
}

static cs_status list_jobs(ask *question, cs_store *store)
{
    (void)store;
    Consilium__V1__JobList *list = NULL;
    CS_TRY(cs_engine_list(question->services->engine, question->arena, &list));
    question->answer = &list->base;
    return CS_OK;
}

static const char *site_state_name(cs_site_state state)
{
    static const char *const names[] = {
        [CS_SITE_INVITED] = "invited", [CS_SITE_ENROLLED] = "enrolled", [CS_SITE_REVOKED] = "revoked"};
    return names[state];
}

static Consilium__V1__SiteStatus *describe_site(ask *question, const cs_site_record *record)
{
    cs_arena *arena = question->arena;
    Consilium__V1__SiteStatus *status = cs_arena_alloc(arena, sizeof *status);
    consilium__v1__site_status__init(status);
    status->site = cs_arena_strdup(arena, record->name);
    status->state = cs_arena_strdup(arena, site_state_name(record->state));
    status->certificate_expires_ms = (uint64_t)record->certificate_not_after_ms;
    status->last_seen_ms = (uint64_t)record->last_seen_ms;
    if (record->state != CS_SITE_INVITED)
        status->signing_key = cs_wire_data(cs_arena_copy(arena, record->signing_key, sizeof record->signing_key),
                                           sizeof record->signing_key);
    const char *software = NULL, *confinement = NULL;
    status->is_connected = cs_engine_site_session(question->services->engine, record->name, &software, &confinement);
    if (software)
        status->software = cs_arena_strdup(arena, software);
    if (confinement)
        status->confinement = cs_arena_strdup(arena, confinement);
    return status;
}

static cs_status list_sites(ask *question, cs_store *store)
{
    cs_site_record *records = NULL;
    size_t count = 0;
    CS_TRY(cs_registry_list(store, &records, &count));
    Consilium__V1__SiteList *list = cs_arena_alloc(question->arena, sizeof *list);
    consilium__v1__site_list__init(list);
    list->sites = cs_arena_alloc(question->arena, (count + 1) * sizeof *list->sites);
    for (; list->n_sites < count; list->n_sites++)
        list->sites[list->n_sites] = describe_site(question, &records[list->n_sites]);
    cs_free(records);
    question->answer = &list->base;
    return CS_OK;
}

static bool is_call_of_site(void *site, const cs_rpc_peer *peer)
{
    return !peer->is_local && strcmp(peer->identity.name, site) == 0;
}

static cs_status revoke_site(ask *question, cs_store *store)
{
    const Consilium__V1__RevokeSiteRequest *request = (const Consilium__V1__RevokeSiteRequest *)question->request;
    cs_services *services = question->services;
    const char *reason = request->reason[0] ? request->reason : "revoked by the operator";
    CS_TRY(cs_pki_revoke(services->pki, store, request->site, reason));
    CS_TRY(cs_registry_publish(store));
    cs_engine_site_revoked(services->engine, request->site, reason);
    cs_rpc_server *server = atomic_load(&services->server);
    if (server)
        cs_rpc_server_end_calls(server, is_call_of_site, request->site, CS_DENIED, "this site was revoked");

    cs_site_record record;
    CS_TRY(cs_registry_find(store, request->site, &record));
    question->answer = &describe_site(question, &record)->base;
    return CS_OK;
}

static cs_status new_token(ask *question, cs_store *store)
{
    const Consilium__V1__NewTokenRequest *request = (const Consilium__V1__NewTokenRequest *)question->request;
    cs_services *services = question->services;
    CS_AUTO(cs_secret) file = CS_BUFFER_EMPTY;
    int64_t expires_ms = 0;
    CS_TRY(cs_pki_token_new(services->pki, store, request->site, request->is_rejoin, (int64_t)request->valid_ms,
                            services->coordinator, services->enrolment, &file, &expires_ms));
    CS_TRY(cs_registry_publish(store));
    Consilium__V1__NewTokenAnswer *answer = cs_arena_alloc(question->arena, sizeof *answer);
    consilium__v1__new_token_answer__init(answer);
    answer->join_file = cs_wire_data(cs_arena_copy(question->arena, file.data, file.size), file.size);
    answer->expires_ms = (uint64_t)expires_ms;
    question->answer = &answer->base;
    return CS_OK;
}

/* Offline enrolment: the same request and answer as on the enrolment port, carried as files by people. */
static cs_status answer_request(ask *question, cs_store *store)
{
    const Consilium__V1__OfflineRequest *request = (const Consilium__V1__OfflineRequest *)question->request;
    CS_AUTO(cs_secret) packed = CS_BUFFER_EMPTY; /* a token is in it */
    CS_TRY(cs_enrol_file_parse("request", cs_wire_bytes(request->request_file), &packed));
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(OFFLINE_ARENA_BYTES);
    ProtobufCMessage *enrol = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__enrol_request__descriptor, cs_buffer_view(&packed), arena, &enrol));
    Consilium__V1__EnrolAnswer *decided = NULL;
    cs_pki_enrol(question->services->pki, store, (const Consilium__V1__EnrolRequest *)enrol, arena, &decided);
    if (decided->code)
        return cs_fail(cs_status_from_code(decided->code), "%s", decided->error);
    CS_TRY(cs_registry_publish(store));

    CS_AUTO(cs_buffer) answer_packed = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) file = CS_BUFFER_EMPTY;
    cs_wire_pack(&decided->base, &answer_packed);
    cs_enrol_file_write("answer", cs_buffer_view(&answer_packed), &file);
    Consilium__V1__OfflineAnswer *answer = cs_arena_alloc(question->arena, sizeof *answer);
    consilium__v1__offline_answer__init(answer);
    answer->answer_file = cs_wire_data(cs_arena_copy(question->arena, file.data, file.size), file.size);
    question->answer = &answer->base;
    return CS_OK;
}

static cs_status list_models(ask *question, cs_store *store)
{
    (void)store;
    Consilium__V1__ModelList *list = NULL;
    CS_TRY(cs_engine_models(question->services->engine, ((const Consilium__V1__JobRef *)question->request)->job,
                            question->arena, &list));
    question->answer = &list->base;
    return CS_OK;
}

#define ASK_METHOD(work)                                                                                               \
    static cs_status work##_request(cs_rpc_call *call, const ProtobufCMessage *request)                                \
    {                                                                                                                  \
        return ask_start(call, request, work);                                                                         \
    }
ASK_METHOD(submit_job)
ASK_METHOD(show_job)
ASK_METHOD(cancel_job)
ASK_METHOD(resume_job)
ASK_METHOD(list_jobs)
ASK_METHOD(list_sites)
ASK_METHOD(revoke_site)
ASK_METHOD(new_token)
ASK_METHOD(answer_request)
ASK_METHOD(list_models)

/* ---- WatchJob ---- */

/* The engine's thread puts the newest status here; the rpc thread takes it. Statuses in between are skipped. */
struct watcher {
    cs_services *services;
    cs_rpc_call *call; /* held by the question */
    char *job;
    pthread_mutex_t newest_mutex;
    cs_arena *newest_arena; /* newest_mutex */
    Consilium__V1__JobStatus *newest;
    cs_arena *sending_arena; /* rpc thread */
    cs_watch *watch;         /* set before the question is done */
    bool has_ended;          /* rpc thread: a final status was sent */
    uint32_t rounds_shown;   /* newest_mutex: summaries of earlier rounds were in a status that was taken */
};

static bool is_final(Consilium__V1__JobState state)
{
    return state == CONSILIUM__V1__JOB_STATE__JOB_COMPLETE || state == CONSILIUM__V1__JOB_STATE__JOB_PARTIAL ||
           state == CONSILIUM__V1__JOB_STATE__JOB_FAILED || state == CONSILIUM__V1__JOB_STATE__JOB_CANCELLED;
}

/* Engine's thread. */
static void watched_job_changed(void *self)
{
    struct watcher *watcher = self;
    cs_arena *arena = cs_arena_new(WATCH_ARENA_BYTES);
    Consilium__V1__JobStatus *status = NULL;
    if (cs_engine_describe(watcher->services->engine, watcher->job, true, arena, &status) != CS_OK) {
        cs_arena_free(arena);
        return;
    }
    pthread_mutex_lock(&watcher->newest_mutex);
    while (status->n_history > 0 && !is_final(status->state) && status->history[0]->round < watcher->rounds_shown)
        leave_out_oldest(status, 1);
    keep_newest_that_fit(status);
    cs_arena *older = watcher->newest_arena;
    watcher->newest_arena = arena;
    watcher->newest = status;
    pthread_mutex_unlock(&watcher->newest_mutex);
    cs_arena_free(older);
    cs_rpc_resume(watcher->call);
}

static cs_status start_watching(ask *question, cs_store *store)
{
    (void)store;
    const Consilium__V1__JobRef *request = (const Consilium__V1__JobRef *)question->request;
    struct watcher *watcher = cs_alloc(sizeof *watcher);
    watcher->services = question->services;
    watcher->call = question->call;
    watcher->job = cs_strdup(request->job);
    pthread_mutex_init(&watcher->newest_mutex, NULL);
    cs_status status =
        cs_engine_watch(question->services->engine, request->job, watched_job_changed, watcher, &watcher->watch);
    if (status != CS_OK) {
        pthread_mutex_destroy(&watcher->newest_mutex);
        cs_free(watcher->job);
        cs_free(watcher);
        return status;
    }
    question->result = watcher;
    watched_job_changed(watcher);
    return CS_OK;
}

static cs_status watch_job_request(cs_rpc_call *call, const ProtobufCMessage *request)
{
    CS_TRY(ask_start(call, request, start_watching));
    cs_rpc_hold(call); /* for the watcher, until watch_job_done */
    return CS_OK;
}

static cs_status watch_job_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    ask *question = cs_rpc_call_data(call);
    CS_TRY(ask_result(question));
    struct watcher *watcher = question->result;
    if (watcher->has_ended)
        return CS_DONE;
    pthread_mutex_lock(&watcher->newest_mutex);
    cs_arena *arena = watcher->newest_arena;
    Consilium__V1__JobStatus *status = watcher->newest;
    watcher->newest_arena = NULL;
    watcher->newest = NULL;
    /* The last summary is of the open round, and the one before it gets its evaluation from that: both are shown once
     * more. */
    if (status && status->n_history > 1)
        watcher->rounds_shown = status->history[status->n_history - 2]->round;
    pthread_mutex_unlock(&watcher->newest_mutex);
    if (!status)
        return CS_LATER;
    cs_arena_free(watcher->sending_arena);
    watcher->sending_arena = arena;
    watcher->has_ended = is_final(status->state);
    *ret = &status->base;
    return CS_OK;
}

static void watcher_free(struct watcher *watcher)
{
    if (!watcher)
        return;
    cs_arena_free(watcher->newest_arena);
    cs_arena_free(watcher->sending_arena);
    pthread_mutex_destroy(&watcher->newest_mutex);
    cs_free(watcher->job);
    cs_free(watcher);
}

/* A client that went away while its question was still waiting: the watcher appears after this; the engine's side ends
 * it. */
static cs_status stop_watching(void *argument, cs_store *store)
{
    (void)store;
    ask *question = argument;
    struct watcher *watcher = question->result;
    if (watcher)
        cs_engine_unwatch(question->services->engine, watcher->watch);
    return CS_OK;
}

/* Also when the engine stopped before it came to this: then no change comes any more. */
static void release_after_watching(void *argument, cs_status status, const char *error)
{
    (void)status;
    (void)error;
    ask *question = argument;
    watcher_free(question->result);
    cs_rpc_release(question->call);
    ask_release(question);
}

/* Posted behind the question in the same mailbox, so the watcher exists by then and no change can reach it
 * afterwards. Anything that does not wait its turn there could be overtaken by the question. */
static void leave(ask *question)
{
    cs_services *services = question->services;
    if (cs_engine_post(services->engine, stop_watching, release_after_watching, question) == CS_OK)
        return;
    pthread_mutex_lock(&services->leaving_mutex);
    question->next_leaving = services->leaving;
    services->leaving = question;
    pthread_mutex_unlock(&services->leaving_mutex);
}

static ask *take_leaving(cs_services *services)
{
    pthread_mutex_lock(&services->leaving_mutex);
    ask *first = services->leaving;
    services->leaving = NULL;
    pthread_mutex_unlock(&services->leaving_mutex);
    return first;
}

void watchers_tick(cs_services *services)
{
    for (ask *question = take_leaving(services), *next; question; question = next) {
        next = question->next_leaving;
        leave(question);
    }
}

void watchers_free(cs_services *services)
{
    for (ask *question = take_leaving(services), *next; question; question = next) {
        next = question->next_leaving;
        release_after_watching(question, CS_CANCELLED, "");
    }
}

static void watch_job_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    ask *question = cs_rpc_call_data(call);
    cs_rpc_call_set_data(call, NULL);
    if (question)
        leave(question);
}

/* ---- ExportModel ---- */

struct chosen_model {
    cs_hash hash;
    outflow *flow;
};

static cs_status choose_model(ask *question, cs_store *store)
{
    (void)store;
    const Consilium__V1__ExportModelRequest *request = (const Consilium__V1__ExportModelRequest *)question->request;
    struct chosen_model *chosen = cs_arena_alloc(question->arena, sizeof *chosen);
    uint64_t size = 0;
    CS_TRY(cs_engine_model(question->services->engine, request->job, request->round[0] ? request->round : "best",
                           &chosen->hash, &size));
    question->result = chosen;
    return CS_OK;
}
ASK_METHOD(choose_model)

static cs_status export_model_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    ask *question = cs_rpc_call_data(call);
    CS_TRY(ask_result(question));
    struct chosen_model *chosen = question->result;
    if (!chosen->flow)
        CS_TRY(outflow_open(question->services->blobs, &chosen->hash, 0, &chosen->flow));
    return outflow_next(chosen->flow, ret);
}

static void export_model_done(cs_rpc_call *call, bool is_cancelled)
{
    ask *question = cs_rpc_call_data(call);
    if (question && atomic_load(&question->is_done) && question->result)
        outflow_free(((struct chosen_model *)question->result)->flow);
    ask_done(call, is_cancelled);
}

/* ---- the table ---- */

#define UNARY(name, work, request_type, answer_type)                                                                   \
    {                                                                                                                  \
        .path = "/consilium.v1.Admin/" name, .request = &consilium__v1__##request_type##__descriptor,                  \
        .response = &consilium__v1__##answer_type##__descriptor, .on_open = operator_only,                             \
        .on_request = work##_request, .next_response = ask_respond, .on_done = ask_done                                \
    }

static const cs_rpc_method admin[] = {
    UNARY("SubmitJob", submit_job, submit_job_request, job_status),
    UNARY("ListJobs", list_jobs, list_jobs_request, job_list),
    UNARY("ShowJob", show_job, job_ref, job_status),
    UNARY("CancelJob", cancel_job, cancel_job_request, job_status),
    UNARY("ResumeJob", resume_job, job_ref, job_status),
    UNARY("ListSites", list_sites, list_sites_request, site_list),
    UNARY("RevokeSite", revoke_site, revoke_site_request, site_status),
    UNARY("NewToken", new_token, new_token_request, new_token_answer),
    UNARY("AnswerRequest", answer_request, offline_request, offline_answer),
    UNARY("ListModels", list_models, job_ref, model_list),
    {.path = "/consilium.v1.Admin/WatchJob",
     .request = &consilium__v1__job_ref__descriptor,
     .response = &consilium__v1__job_status__descriptor,
     .on_open = operator_only,
     .on_request = watch_job_request,
     .next_response = watch_job_response,
     .on_done = watch_job_done},
    {.path = "/consilium.v1.Admin/ExportModel",
     .request = &consilium__v1__export_model_request__descriptor,
     .response = &consilium__v1__blob_chunk__descriptor,
     .on_open = operator_only,
     .on_request = choose_model_request,
     .next_response = export_model_response,
     .on_done = export_model_done},
    {.path = NULL},
};

const cs_rpc_method *cs_services_admin_methods(void)
{
    return admin;
}
