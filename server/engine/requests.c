/* What others ask of the engine: posts from rpc threads, work for the engine's thread, what such work may call,
 * watches. Called by server/services; each part says on which thread. */
#include "server/engine/engine.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "server/engine/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Messages of sites that wait for the engine; the rest of the mailbox is for everything else. */
#define INFLIGHT_TOTAL_MAX 8192
#define INFLIGHT_SITE_MAX  128

/* ---- from other threads ---- */

static struct posted *posted_of(enum posted_kind kind, const char *site, uint64_t session)
{
    struct posted *posted = cs_alloc(sizeof(*posted));
    posted->kind = kind;
    posted->session = session;
    snprintf(posted->site, sizeof(posted->site), "%s", site);
    return posted;
}

/* The mailbox has room for these: what can flood it is counted. */
static void post(cs_engine *engine, struct posted *posted)
{
    if (cs_mailbox_post(engine->mailbox, posted) != CS_OK)
        engine_posted_free(posted); /* the engine has stopped */
}

void engine_post_result(cs_engine *engine, enum posted_kind kind, void *item)
{
    struct posted *posted = posted_of(kind, "", 0);
    posted->result = item;
    post(engine, posted);
}

void cs_engine_site_attended(cs_engine *engine, const char *site, uint64_t session, uint64_t features,
                             const char *software)
{
    struct posted *posted = posted_of(POSTED_ATTENDED, site, session);
    posted->features = features;
    posted->software = cs_strdup(software ? software : "");
    post(engine, posted);
}

void cs_engine_site_left(cs_engine *engine, const char *site, uint64_t session)
{
    post(engine, posted_of(POSTED_LEFT, site, session));
}

static bool begin_inflight(cs_engine *engine, const char *site)
{
    pthread_mutex_lock(&engine->inflight_mutex);
    struct inflight *found = NULL;
    for (size_t i = 0; i < engine->inflight_count && !found; i++)
        found = strcmp(engine->inflight[i].site, site) == 0 ? &engine->inflight[i] : NULL;
    if (!found) {
        engine->inflight = cs_realloc(engine->inflight, (engine->inflight_count + 1) * sizeof(*engine->inflight));
        found = &engine->inflight[engine->inflight_count++];
        *found = (struct inflight){0};
        snprintf(found->site, sizeof(found->site), "%s", site);
    }
    const bool has_room = found->count < INFLIGHT_SITE_MAX && engine->inflight_total < INFLIGHT_TOTAL_MAX;
    if (has_room) {
        found->count++;
        engine->inflight_total++;
    }
    pthread_mutex_unlock(&engine->inflight_mutex);
    return has_room;
}

cs_status cs_engine_site_message(cs_engine *engine, const char *site, uint64_t session,
                                 const Consilium__V1__SiteMessage *message)
{
    if (!begin_inflight(engine, site))
        return cs_fail(CS_EXHAUSTED, "messages of site '%s' wait for the engine, no more are taken now", site);
    struct posted *posted = posted_of(POSTED_MESSAGE, site, session);
    cs_wire_pack(&message->base, &posted->message);
    const cs_status status = cs_mailbox_try_post(engine->mailbox, posted);
    if (status != CS_OK) {
        engine_end_inflight(engine, site);
        engine_posted_free(posted);
    }
    return status;
}

cs_status cs_engine_may_fetch(cs_engine *engine, const char *site, const Consilium__V1__TaskKey *task,
                              const cs_hash *blob)
{
    return access_may_fetch(engine->access, site, task, blob);
}

cs_status cs_engine_may_store(cs_engine *engine, const char *site, const Consilium__V1__TaskKey *task,
                              const cs_hash *blob, uint64_t size)
{
    return access_may_store(engine->access, site, task, blob, size);
}

cs_status cs_engine_post(cs_engine *engine, cs_status (*work)(void *argument, cs_store *store),
                         void (*done)(void *argument, cs_status status, const char *error), void *argument)
{
    struct posted *posted = posted_of(POSTED_WORK, "", 0);
    posted->work = work;
    posted->done = done;
    posted->argument = argument;
    const cs_status status = cs_mailbox_try_post(engine->mailbox, posted);
    if (status != CS_OK)
        engine_posted_free(posted);
    return status;
}

struct waiter {
    cs_status (*work)(void *argument, cs_store *store);
    void *argument;
    pthread_mutex_t done_mutex; /* guards what stands below */
    pthread_cond_t done_condition;
    bool is_done;
    cs_status status;
    char error[CS_ERROR_TEXT_BYTES];
};

static cs_status waiter_work(void *argument, cs_store *store)
{
    struct waiter *waiter = argument;
    return waiter->work(waiter->argument, store);
}

static void waiter_done(void *argument, cs_status status, const char *error)
{
    struct waiter *waiter = argument;
    pthread_mutex_lock(&waiter->done_mutex);
    waiter->status = status;
    snprintf(waiter->error, sizeof(waiter->error), "%s", error);
    waiter->is_done = true;
    pthread_cond_signal(&waiter->done_condition);
    pthread_mutex_unlock(&waiter->done_mutex);
}

cs_status cs_engine_run(cs_engine *engine, cs_status (*work)(void *argument, cs_store *store), void *argument)
{
    struct waiter waiter = {.work = work, .argument = argument};
    pthread_mutex_init(&waiter.done_mutex, NULL);
    cs_condition_init(&waiter.done_condition);
    cs_status status = cs_engine_post(engine, waiter_work, waiter_done, &waiter);
    if (status == CS_OK) {
        pthread_mutex_lock(&waiter.done_mutex);
        while (!waiter.is_done)
            cs_condition_wait(&waiter.done_condition, &waiter.done_mutex, -1);
        pthread_mutex_unlock(&waiter.done_mutex);
        status = waiter.status == CS_OK ? CS_OK : cs_fail(waiter.status, "%s", waiter.error);
    }
    pthread_cond_destroy(&waiter.done_condition);
    pthread_mutex_destroy(&waiter.done_mutex);
    return status;
}

/* ---- inside work ---- */

cs_status cs_engine_submit(cs_engine *engine, cs_bytes plan, const char *source, cs_arena *arena,
                           Consilium__V1__JobStatus **ret)
{
    CS_FAILPOINT("engine.submit");
    struct job *job = NULL;
    CS_TRY(job_new(engine, plan, source, &job));
    engine_add_job(engine, job);
    /* Everybody may have refused, or be revoked, before anything was sent. */
    CS_TRY(job_step(engine, job, EVENT_LOOK, NULL));
    cs_log(CS_LOG_INFO, "engine", "job submitted", CS_S("job", job->row.name), CS_I("invited", job->members_count));
    return report_job(engine, job, false, arena, ret);
}

/* A job in memory, or read for this one answer. */
static cs_status find_any(cs_engine *engine, const char *name, struct job **ret, struct job **ret_owned)
{
    *ret_owned = NULL;
    *ret = job_find(engine, name);
    if (*ret)
        return CS_OK;
    cs_job_row row;
    CS_TRY(cs_jobs_find(engine->store, name, &row));
    CS_TRY(job_load(engine, &row, ret_owned));
    *ret = *ret_owned;
    return CS_OK;
}

static cs_status find_open(cs_engine *engine, const char *name, struct job **ret)
{
    *ret = job_find(engine, name);
    if (*ret && (*ret)->row.outcome == 0)
        return CS_OK;
    cs_job_row row;
    CS_TRY(cs_jobs_find(engine->store, name, &row));
    return cs_fail(CS_STATE, "job '%s' has ended", name);
}

cs_status cs_engine_cancel(cs_engine *engine, const char *job, const char *reason)
{
    struct job *found = NULL;
    CS_TRY(find_open(engine, job, &found));
    char text[CS_REASON_BYTES];
    door_clean_text(text, sizeof(text), reason && reason[0] ? reason : "cancelled by the operator");
    return job_step(engine, found, EVENT_CANCEL, text);
}

cs_status cs_engine_resume(cs_engine *engine, const char *job)
{
    struct job *found = NULL;
    CS_TRY(find_open(engine, job, &found));
    if (found->row.state != ROUND_PAUSED)
        return cs_fail(CS_STATE, "job '%s' is not paused", job);
    return job_step(engine, found, EVENT_RESUME, NULL);
}

cs_status cs_engine_describe(cs_engine *engine, const char *name, bool with_history, cs_arena *arena,
                             Consilium__V1__JobStatus **ret)
{
    struct job *found = NULL;
    CS_AUTO_PTR(job) owned = NULL;
    CS_TRY(find_any(engine, name, &found, &owned));
    return report_job(engine, found, with_history, arena, ret);
}

cs_status cs_engine_list(cs_engine *engine, cs_arena *arena, Consilium__V1__JobList **ret)
{
    cs_job_row *rows = NULL;
    size_t count = 0;
    CS_TRY(cs_jobs_list(engine->store, false, &rows, &count));
    Consilium__V1__JobList *list = cs_arena_alloc(arena, sizeof(*list));
    Consilium__V1__JobStatus **jobs = cs_arena_alloc(arena, (count + 1) * sizeof(*jobs));
    cs_status status = list && jobs ? CS_OK : cs_fail(CS_EXHAUSTED, "the list of jobs does not fit its memory");
    if (status == CS_OK) {
        consilium__v1__job_list__init(list);
        list->jobs = jobs;
    }
    for (size_t i = 0; i < count && status == CS_OK; i++) {
        status = cs_engine_describe(engine, rows[i].name, false, arena, &jobs[i]);
        list->n_jobs += status == CS_OK;
    }
    cs_free(rows);
    *ret = list;
    return status;
}

/* The models that rounds made, in order; the best of them, or the last where nothing was evaluated. */
static cs_status list_models(cs_engine *engine, const char *job, cs_blob_row **ret, size_t *ret_count,
                             uint32_t *ret_best)
{
    cs_job_row row;
    CS_TRY(cs_jobs_find(engine->store, job, &row));
    CS_TRY(cs_jobs_blobs(engine->store, row.id, CS_BLOB_MODEL, ret, ret_count));
    const cs_status found = cs_jobs_best_round(engine->store, row.id, ret_best);
    if (found == CS_OK)
        return CS_OK;
    *ret_best = *ret_count > 0 ? (*ret)[*ret_count - 1].round : 0;
    if (found == CS_NOT_FOUND)
        return CS_OK;
    cs_free(*ret);
    *ret = NULL;
    return found;
}

cs_status cs_engine_models(cs_engine *engine, const char *job, cs_arena *arena, Consilium__V1__ModelList **ret)
{
    cs_blob_row *rows = NULL;
    size_t count = 0;
    uint32_t best = 0;
    CS_TRY(list_models(engine, job, &rows, &count, &best));
    Consilium__V1__ModelList *list = cs_arena_alloc(arena, sizeof(*list));
    Consilium__V1__Model **models = cs_arena_alloc(arena, (count + 1) * sizeof(*models));
    char *name = cs_arena_strdup(arena, job);
    bool fits = list && models && name;
    if (fits) {
        consilium__v1__model_list__init(list);
        list->job = name;
        list->models = models;
    }
    for (size_t i = 0; i < count && fits; i++) {
        if (!rows[i].is_kept)
            continue;
        Consilium__V1__Model *model = cs_arena_alloc(arena, sizeof(*model));
        Consilium__V1__Blob *blob = cs_arena_alloc(arena, sizeof(*blob));
        void *hash = cs_arena_copy(arena, rows[i].hash.bytes, CS_HASH_BYTES);
        fits = model && blob && hash;
        if (!fits)
            break;
        consilium__v1__model__init(model);
        consilium__v1__blob__init(blob);
        blob->name = (char *)CS_BLOB_MODEL;
        blob->sha256 = cs_wire_data(hash, CS_HASH_BYTES);
        blob->size = rows[i].size;
        model->round = rows[i].round;
        model->blob = blob;
        model->is_best = rows[i].round == best;
        model->is_last = i + 1 == count;
        models[list->n_models++] = model;
    }
    cs_free(rows);
    *ret = list;
    return fits ? CS_OK : cs_fail(CS_EXHAUSTED, "the list of models does not fit its memory");
}

static cs_status parse_round(const char *text, uint32_t best, uint32_t last, uint32_t *ret)
{
    if (strcmp(text, "best") == 0) {
        *ret = best;
        return CS_OK;
    }
    if (strcmp(text, "last") == 0) {
        *ret = last;
        return CS_OK;
    }
    const size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 9 || text[digits])
        return cs_fail(CS_INVALID, "round: found '%.32s', expected 'best', 'last' or a number", text);
    *ret = (uint32_t)strtoul(text, NULL, 10);
    return CS_OK;
}

cs_status cs_engine_model(cs_engine *engine, const char *job, const char *round, cs_hash *ret, uint64_t *ret_size)
{
    cs_blob_row *rows = NULL;
    size_t count = 0;
    uint32_t best = 0, wanted = 0;
    CS_TRY(list_models(engine, job, &rows, &count, &best));
    cs_status status = count > 0 ? parse_round(round, best, rows[count - 1].round, &wanted)
                                 : cs_fail(CS_NOT_FOUND, "job '%s' has no model yet", job);
    const cs_blob_row *found = NULL;
    for (size_t i = 0; i < count && !found; i++)
        found = rows[i].round == wanted ? &rows[i] : NULL;
    if (status == CS_OK && !found)
        status = cs_fail(CS_NOT_FOUND, "job '%s' has no model of round %" PRIu32, job, wanted);
    else if (status == CS_OK && !found->is_kept)
        status = cs_fail(CS_NOT_FOUND, "the plan's retention did not keep the model of round %" PRIu32 " of job '%s'",
                         wanted, job);
    if (status == CS_OK) {
        *ret = found->hash;
        *ret_size = found->size;
    }
    cs_free(rows);
    return status;
}

bool cs_engine_site_session(cs_engine *engine, const char *site, const char **ret_software,
                            const char **ret_confinement)
{
    const struct session *session = engine_session(engine, site);
    if (!session)
        return false;
    *ret_software = session->software;
    *ret_confinement = session->confinement ? session->confinement : "";
    return true;
}

void cs_engine_site_revoked(cs_engine *engine, const char *site, const char *reason)
{
    CS_AUTO(cs_string) text = cs_format("revoked: %s", reason);
    for (struct job *job = engine->jobs; job; job = job->next) {
        struct member *member = job->row.outcome == 0 ? job_member(job, site) : NULL;
        if (!member)
            continue;
        member->is_revoked = true;
        job->has_changed = true;
        struct task *task = job_task(job, site);
        if (job->row.state == ROUND_COLLECTING && task && task->row.state == CS_TASK_OPEN &&
            job_end_task(engine, job, task, CS_TASK_EXCLUDED, text) != CS_OK)
            engine_give_up(engine, "a revoked site was not excluded", job->row.name);
        engine_look(engine, job);
    }
}

/* ---- watches ---- */

cs_status cs_engine_watch(cs_engine *engine, const char *job, void (*changed)(void *self), void *self, cs_watch **ret)
{
    cs_job_row row;
    CS_TRY(cs_jobs_find(engine->store, job, &row));
    cs_watch *watch = cs_alloc(sizeof(*watch));
    *watch = (cs_watch){.engine = engine, .changed = changed, .self = self};
    snprintf(watch->job, sizeof(watch->job), "%s", job);
    pthread_mutex_lock(&engine->watches_mutex);
    watch->next = engine->watches;
    engine->watches = watch;
    pthread_mutex_unlock(&engine->watches_mutex);
    *ret = watch;
    return CS_OK;
}

void cs_engine_unwatch(cs_engine *engine, cs_watch *watch)
{
    if (!watch)
        return;
    /* The engine's thread holds the mutex while it calls `changed`: after this, it does not any more. */
    pthread_mutex_lock(&engine->watches_mutex);
    watch->is_over = true;
    pthread_mutex_unlock(&engine->watches_mutex);
}
