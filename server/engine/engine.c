/* The engine's thread: takes what others post, lets job.c and door.c write one transaction for all of it, commits, and
 * only then sends, records and folds. Starts and stops it; the other functions of engine.h are in requests.c. */
#include "server/engine/engine.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "server/engine/internal.h"

#include <stdio.h>
#include <string.h>

#define MAILBOX_CAPACITY 16384
/* So many messages share a commit at most: the first must not wait for long. */
#define BATCH_MAX 256
/* A deadline is told to the database this often; after a crash it may be longer by as much. */
#define SAVE_REMAINING_MS 5000
#define PROGRESS_TELL_MS  250
#define RETRY_MS          1000
#define COLLECT_EVERY_MS  5000 /* it looks at every blob's name: not after each round of a fast job */
/* Of a site's message unpacked: a few times its bytes, since fields become pointers and structs. */
#define UNPACK_FACTOR  32
#define UNPACK_SLACK   (256 * 1024)
#define ENDED_TOLD_MAX 32 /* jobs whose end a site is told again when it comes back */

struct pending_ack {
    struct pending_ack *next;
    char site[CS_NAME_MAX + 1];
    char job[CS_NAME_MAX + 1];
    uint32_t round;
    char phase[CS_WORD_BYTES];
    Consilium__V1__Verdict verdict;
    char reason[CS_REASON_BYTES];
};

struct pending_done {
    struct pending_done *next;
    void (*done)(void *argument, cs_status status, const char *error);
    void *argument;
    cs_status status;
    char *error;
};

void engine_posted_free(struct posted *posted)
{
    cs_free(posted->software);
    cs_buffer_clear(&posted->message);
    cs_free(posted->result);
    cs_free(posted);
}

/* ---- sessions ---- */

struct session *engine_session(cs_engine *engine, const char *site)
{
    for (size_t i = 0; i < engine->sessions_count; i++) {
        struct session *session = &engine->sessions[i];
        if (session->number != 0 && strcmp(session->site, site) == 0)
            return session;
    }
    return NULL;
}

bool engine_is_connected(cs_engine *engine, const char *site)
{
    return engine_session(engine, site) != NULL;
}

int64_t engine_left_at_ms(cs_engine *engine, const char *site)
{
    for (size_t i = 0; i < engine->sessions_count; i++) {
        if (strcmp(engine->sessions[i].site, site) == 0)
            return engine->sessions[i].left_at_ms;
    }
    return engine->started_at_ms;
}

static struct session *new_session(cs_engine *engine, const char *site)
{
    /* The place of the site's last session, or a new one: as many as there are sites. */
    for (size_t i = 0; i < engine->sessions_count; i++) {
        if (strcmp(engine->sessions[i].site, site) == 0)
            return &engine->sessions[i];
    }
    engine->sessions = cs_realloc(engine->sessions, (engine->sessions_count + 1) * sizeof(*engine->sessions));
    struct session *session = &engine->sessions[engine->sessions_count++];
    *session = (struct session){0};
    snprintf(session->site, sizeof(session->site), "%s", site);
    return session;
}

static void end_session(struct session *session)
{
    session->number = 0;
    session->left_at_ms = cs_clock_monotonic_ms();
    cs_free(session->software);
    cs_free(session->confinement);
    session->software = NULL;
    session->confinement = NULL;
}

bool engine_send(cs_engine *engine, const char *site, const Consilium__V1__CoordinatorMessage *message)
{
    return engine_session(engine, site) && engine->config.send(engine->config.send_self, site, message);
}

bool engine_has_room(cs_engine *engine)
{
    uint64_t free_bytes = 0;
    return cs_disk_free(engine->config.state_folder, &free_bytes) != CS_OK ||
           free_bytes >= engine->config.server->disk_reserve_bytes;
}

/* ---- the transaction of a batch ---- */

cs_status engine_begin(cs_engine *engine)
{
    if (engine->in_transaction)
        return CS_OK;
    CS_TRY(cs_db_begin(engine->store->db));
    engine->in_transaction = true;
    if (engine->outbox_appended > engine->outbox_removed) {
        CS_TRY(cs_outbox_remove_until(engine->store, engine->outbox_appended));
        engine->outbox_removed = engine->outbox_appended;
    }
    return CS_OK;
}

void engine_ack(cs_engine *engine, const char *site, const Consilium__V1__TaskKey *key, Consilium__V1__Verdict verdict,
                const char *reason)
{
    struct pending_ack *ack = cs_alloc(sizeof(*ack));
    snprintf(ack->site, sizeof(ack->site), "%s", site);
    snprintf(ack->job, sizeof(ack->job), "%.*s", CS_NAME_MAX, key->job);
    snprintf(ack->phase, sizeof(ack->phase), "%.*s", CS_WORD_BYTES - 1, key->phase);
    snprintf(ack->reason, sizeof(ack->reason), "%s", reason);
    ack->round = key->round;
    ack->verdict = verdict;
    *engine->acks_end = ack;
    engine->acks_end = &ack->next;
}

static void send_acks(cs_engine *engine, bool was_committed)
{
    struct pending_ack *ack = engine->acks;
    engine->acks = NULL;
    engine->acks_end = &engine->acks;
    while (ack) {
        Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
        key.job = ack->job;
        key.round = ack->round;
        key.phase = ack->phase;
        Consilium__V1__ResultAck body = CONSILIUM__V1__RESULT_ACK__INIT;
        body.key = &key;
        body.verdict = ack->verdict;
        body.reason = ack->reason;
        Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
        message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ACK;
        message.ack = &body;
        if (was_committed)
            engine_send(engine, ack->site, &message);
        struct pending_ack *next = ack->next;
        cs_free(ack);
        ack = next;
    }
}

static void add_done(cs_engine *engine, const struct posted *posted, cs_status status)
{
    struct pending_done *done = cs_alloc(sizeof(*done));
    done->done = posted->done;
    done->argument = posted->argument;
    done->status = status;
    done->error = cs_strdup(status == CS_OK ? "" : cs_error_text());
    *engine->dones_end = done;
    engine->dones_end = &done->next;
}

static void call_dones(cs_engine *engine, cs_status commit, const char *error)
{
    struct pending_done *done = engine->dones;
    engine->dones = NULL;
    engine->dones_end = &engine->dones;
    while (done) {
        const bool is_lost = done->status == CS_OK && commit != CS_OK;
        if (done->done)
            done->done(done->argument, is_lost ? commit : done->status, is_lost ? error : done->error);
        struct pending_done *next = done->next;
        cs_free(done->error);
        cs_free(done);
        done = next;
    }
}

/* ---- jobs in memory ---- */

static void unload_jobs(cs_engine *engine)
{
    while (engine->jobs) {
        struct job *next = engine->jobs->next;
        job_free(engine->jobs);
        engine->jobs = next;
    }
}

void engine_add_job(cs_engine *engine, struct job *job)
{
    struct job **link = &engine->jobs;
    while (*link)
        link = &(*link)->next;
    *link = job;
}

static cs_status load_jobs(cs_engine *engine)
{
    cs_job_row *rows = NULL;
    size_t count = 0;
    CS_TRY(cs_jobs_list(engine->store, true, &rows, &count));
    cs_status status = CS_OK;
    for (size_t i = 0; i < count && status == CS_OK; i++) {
        struct job *job = NULL;
        status = job_load(engine, &rows[i], &job);
        if (status == CS_OK) {
            engine_add_job(engine, job);
        } else if (status == CS_INVALID || status == CS_UNIMPLEMENTED) {
            /* Accepted by another version: it stays as it is in the database, and the others go on. */
            cs_log(CS_LOG_ERROR, "engine", "a job rests: this version cannot read its plan", CS_S("job", rows[i].name),
                   CS_S("error", cs_error_text()));
            status = CS_OK;
        } else {
            cs_wrap(status, "job '%s'", rows[i].name);
        }
    }
    cs_free(rows);
    if (status != CS_OK)
        unload_jobs(engine);
    engine->access_changed = true;
    return status;
}

/* Memory is the database's again: after a transaction that failed. */
static void reload(cs_engine *engine)
{
    unload_jobs(engine);
    engine->reload_at_ms = 0;
    if (load_jobs(engine) == CS_OK)
        return;
    cs_log(CS_LOG_ERROR, "engine", "jobs were not read; tried again", CS_S("error", cs_error_text()));
    engine->reload_at_ms = cs_clock_monotonic_ms() + RETRY_MS;
}

static void drop_ended(cs_engine *engine)
{
    struct job **link = &engine->jobs;
    while (*link) {
        struct job *job = *link;
        if (job->row.outcome == 0) {
            link = &job->next;
            continue;
        }
        *link = job->next;
        job_free(job);
    }
}

/* ---- effects ---- */

static size_t max_tasks(const cs_engine *engine)
{
    size_t count = 0;
    for (const struct job *job = engine->jobs; job; job = job->next)
        count += job->tasks_count;
    return count;
}

static cs_status fill_access(cs_engine *engine, const struct job *job, struct access_entry *entries, size_t *count)
{
    const cs_phase *phase = job_phase(job);
    for (size_t i = 0; i < job->tasks_count; i++) {
        if (job->tasks[i].row.state != CS_TASK_OPEN && job->tasks[i].row.state != CS_TASK_ACCEPTED)
            continue;
        struct access_entry *entry = &entries[*count];
        *entry = (struct access_entry){.round = job->row.round};
        cs_blob_row blobs[CS_INPUTS_MAX];
        CS_TRY(job_inputs(engine, job, phase, job->tasks[i].row.site, blobs, &entry->inputs_count));
        uint64_t model_size = 0;
        for (size_t n = 0; n < entry->inputs_count; n++) {
            entry->inputs[n] = blobs[n].hash;
            if (strcmp(blobs[n].name, CS_BLOB_MODEL) == 0)
                model_size = blobs[n].size;
        }
        if (phase->output)
            entry->output_max_bytes = job->mode->output_max_bytes(job->plan->plan, phase, model_size);
        memcpy(entry->job, job->row.name, sizeof(entry->job));
        snprintf(entry->phase, sizeof(entry->phase), "%s", phase->name);
        memcpy(entry->site, job->tasks[i].row.site, sizeof(entry->site));
        (*count)++;
    }
    return CS_OK;
}

static void publish_access(cs_engine *engine)
{
    engine->access_changed = false;
    struct access_entry *entries = cs_alloc_array(max_tasks(engine) + 1, sizeof(*entries));
    size_t count = 0;
    for (const struct job *job = engine->jobs; job; job = job->next) {
        if (job->row.state == ROUND_COLLECTING && fill_access(engine, job, entries, &count) != CS_OK)
            cs_log(CS_LOG_ERROR, "engine", "open tasks were not published", CS_S("job", job->row.name),
                   CS_S("error", cs_error_text()));
    }
    access_publish(engine->access, entries, count);
}

/* Unreferenced blobs go once it is certain that none of them is on its way to becoming referenced. */
static void collect(cs_engine *engine)
{
    engine->collect_at_ms = cs_clock_monotonic_ms() + COLLECT_EVERY_MS;
    for (const struct job *job = engine->jobs; job; job = job->next) {
        /* Blobs that came before this process started may belong to results that still come. */
        if (job->row.state == ROUND_COLLECTING && job->was_loaded)
            return;
    }
    cs_hash *kept = NULL;
    size_t count = 0;
    access_prune(engine->access);
    if (cs_jobs_kept(engine->store, &kept, &count) != CS_OK || folds_collect(engine->folds, kept, count) != CS_OK) {
        cs_log(CS_LOG_WARN, "engine", "blobs are collected later", CS_S("error", cs_error_text()));
        return;
    }
    engine->wants_collect = false;
    engine->is_collecting = true;
}

static bool is_due(const struct job *job, int64_t now_ms)
{
    return job->has_changed || (job->has_progress && now_ms - job->told_at_ms >= PROGRESS_TELL_MS);
}

static void tell_watches(cs_engine *engine, int64_t now_ms)
{
    pthread_mutex_lock(&engine->watches_mutex);
    for (cs_watch *watch = engine->watches; watch; watch = watch->next) {
        const struct job *job = job_find(engine, watch->job);
        if (!watch->is_over && job && is_due(job, now_ms))
            watch->changed(watch->self);
    }
    cs_watch **link = &engine->watches;
    while (*link) {
        cs_watch *watch = *link;
        if (!watch->is_over) {
            link = &watch->next;
            continue;
        }
        *link = watch->next;
        cs_free(watch);
    }
    pthread_mutex_unlock(&engine->watches_mutex);
    for (struct job *job = engine->jobs; job; job = job->next) {
        if (!is_due(job, now_ms))
            continue;
        job->has_changed = false;
        job->has_progress = false;
        job->told_at_ms = now_ms;
    }
}

static void flush_records(cs_engine *engine)
{
    engine->outbox_written = false;
    engine->outbox_retry_at_ms = 0;
    if (record_flush(engine) == CS_OK)
        return;
    cs_log(CS_LOG_ERROR, "engine", "the transcript was not written; tried again", CS_S("error", cs_error_text()));
    engine->outbox_retry_at_ms = cs_clock_monotonic_ms() + RETRY_MS;
}

static cs_status commit(cs_engine *engine)
{
    if (engine->has_failed)
        return cs_fail(CS_INTERNAL, "a part of the transaction failed");
    CS_FAILPOINT("engine.commit");
    CS_TRY(cs_db_commit(engine->store->db));
    engine->in_transaction = false;
    return CS_OK;
}

/* Commits the batch, then does what follows from it. */
static void settle(cs_engine *engine)
{
    cs_status status = CS_OK;
    CS_AUTO(cs_string) error = NULL;
    if (engine->in_transaction) {
        status = commit(engine);
        if (status != CS_OK) {
            error = cs_strdup(cs_error_text());
            cs_log(CS_LOG_ERROR, "engine", "a transaction failed", CS_S("error", error));
            cs_db_rollback(engine->store->db);
            engine->in_transaction = false;
        }
    }
    if (status != CS_OK || engine->has_failed) {
        engine->has_failed = false;
        engine->outbox_removed = 0; /* what the rollback brought back is removed again: harmless where it is not */
        send_acks(engine, false);
        measure_settle(engine, false);
        reload(engine);
    }
    CS_IGNORE(cs_failpoint("engine.committed"), "a place to be killed at; after the commit nothing can fail");

    if (engine->outbox_written)
        flush_records(engine);
    if (engine->access_changed)
        publish_access(engine);
    roster_send_changes(engine);
    send_acks(engine, true);
    measure_settle(engine, true);
    for (struct job *job = engine->jobs; job; job = job->next) {
        if (job->needs_effects)
            job_effects(engine, job);
    }
    if (engine->wants_collect && !engine->is_collecting && cs_clock_monotonic_ms() >= engine->collect_at_ms)
        collect(engine);
    call_dones(engine, status, error ? error : "");
    tell_watches(engine, cs_clock_monotonic_ms());
    drop_ended(engine);
}

/* A job whose event could not be written: the batch is given up and read again. */
void engine_give_up(cs_engine *engine, const char *what, const char *name)
{
    cs_log(CS_LOG_ERROR, "engine", what, CS_S("name", name), CS_S("error", cs_error_text()));
    engine->has_failed = true;
}

/* ---- time ---- */

static void save_remaining(cs_engine *engine, int64_t now_ms)
{
    engine->save_at_ms = now_ms + SAVE_REMAINING_MS;
    for (struct job *job = engine->jobs; job; job = job->next) {
        if (job_save_remaining(engine, job, now_ms) != CS_OK)
            return engine_give_up(engine, "a deadline was not saved", job->row.name);
    }
}

static void tick(cs_engine *engine)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    if (engine->reload_at_ms > 0 && now_ms >= engine->reload_at_ms)
        reload(engine);
    if (engine->outbox_retry_at_ms > 0 && now_ms >= engine->outbox_retry_at_ms)
        engine->outbox_written = true;
    /* What the last collection spared because it was young. */
    if (now_ms >= engine->collect_at_ms + CS_BLOB_GRACE_MS)
        engine->wants_collect = true;
    for (struct job *job = engine->jobs; job; job = job->next) {
        if (job->row.outcome == 0 && job_tick(engine, job, now_ms) != CS_OK)
            engine_give_up(engine, "a job could not go on", job->row.name);
    }
    if (now_ms >= engine->save_at_ms)
        save_remaining(engine, now_ms);
}

/* ---- what is taken from the mailbox ---- */

static void tell_ended(cs_engine *engine, const char *site)
{
    cs_job_row *rows = NULL;
    size_t count = 0;
    if (cs_jobs_ended_with(engine->store, site, ENDED_TOLD_MAX, &rows, &count) != CS_OK)
        return;
    for (size_t i = 0; i < count; i++) {
        Consilium__V1__JobUpdate update = CONSILIUM__V1__JOB_UPDATE__INIT;
        update.job = rows[i].name;
        update.state = (Consilium__V1__JobState)rows[i].outcome;
        update.reason = rows[i].reason;
        update.round = rows[i].round;
        Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
        message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB;
        message.job = &update;
        engine_send(engine, site, &message);
    }
    cs_free(rows);
}

static void note_seen(cs_engine *engine, const char *site)
{
    if (engine_begin(engine) != CS_OK)
        return engine_give_up(engine, "a session was not noted", site);
    CS_IGNORE(cs_registry_seen(engine->store, site, cs_clock_wall_ms()), "a date for people, not a state");
}

void engine_look(cs_engine *engine, struct job *job)
{
    if (job->row.outcome == 0 && job_step(engine, job, EVENT_LOOK, NULL) != CS_OK)
        engine_give_up(engine, "a job could not go on", job->row.name);
}

static void handle_attended(cs_engine *engine, const struct posted *posted)
{
    struct session *session = new_session(engine, posted->site);
    if (session->number >= posted->session)
        return; /* an older one whose news comes late */
    end_session(session);
    char software[128];
    door_clean_text(software, sizeof(software), posted->software);
    session->number = posted->session;
    session->features = posted->features;
    session->software = cs_strdup(software);
    note_seen(engine, posted->site);
    roster_send(engine, posted->site);
    tell_ended(engine, posted->site);
    for (struct job *job = engine->jobs; job; job = job->next) {
        if (!job_member(job, posted->site))
            continue;
        job_site_attended(engine, job, posted->site);
        engine_look(engine, job);
    }
}

static void handle_left(cs_engine *engine, const struct posted *posted)
{
    struct session *session = engine_session(engine, posted->site);
    if (!session || session->number != posted->session)
        return; /* a newer one took over */
    end_session(session);
    note_seen(engine, posted->site);
    for (struct job *job = engine->jobs; job; job = job->next)
        job->has_changed = job->has_changed || job_member(job, posted->site);
}

void engine_end_inflight(cs_engine *engine, const char *site)
{
    pthread_mutex_lock(&engine->inflight_mutex);
    for (size_t i = 0; i < engine->inflight_count; i++) {
        if (strcmp(engine->inflight[i].site, site) == 0 && engine->inflight[i].count > 0) {
            engine->inflight[i].count--;
            engine->inflight_total--;
            break;
        }
    }
    pthread_mutex_unlock(&engine->inflight_mutex);
}

static void handle_message(cs_engine *engine, const struct posted *posted)
{
    engine_end_inflight(engine, posted->site);
    const struct session *session = engine_session(engine, posted->site);
    if (!session || session->number != posted->session)
        return; /* fenced off by a newer session */
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(posted->message.size * UNPACK_FACTOR + UNPACK_SLACK);
    ProtobufCMessage *message = NULL;
    if (cs_wire_unpack(&consilium__v1__site_message__descriptor, cs_buffer_view(&posted->message), arena, &message) !=
        CS_OK) {
        cs_log(CS_LOG_WARN, "engine", "a message was not understood", CS_S("site", posted->site),
               CS_S("error", cs_error_text()));
        return;
    }
    if (door_message(engine, posted->site, (const Consilium__V1__SiteMessage *)message) != CS_OK)
        engine_give_up(engine, "a message could not be handled", posted->site);
}

static void handle_folded(cs_engine *engine, const struct folded *folded)
{
    struct job *job = engine->jobs;
    while (job && job->row.id != folded->job)
        job = job->next;
    const bool is_awaited = job && job->row.state == ROUND_FOLDING && job->is_folding &&
                            job->row.round == folded->round && job->row.phase == folded->phase;
    if (is_awaited) {
        job->is_folding = false;
        job->fold_status = folded->status;
        const cs_status status = folded->status == CS_OK ? job_folded(engine, job, &folded->hash, folded->size)
                                                         : job_step(engine, job, EVENT_FOLD_FAILED, folded->error);
        if (status != CS_OK)
            engine_give_up(engine, "a fold could not be written", job->row.name);
    }
    if (folded->status == CS_OK) {
        settle(engine);
        access_settle(engine->access, &folded->hash);
    }
}

static void handle_work(cs_engine *engine, const struct posted *posted)
{
    tick(engine);   /* work sees what time has done */
    settle(engine); /* and may have transactions of its own */
    const cs_status status = posted->work(posted->argument, engine->store);
    add_done(engine, posted, status);
    if (status != CS_OK && engine->in_transaction)
        engine->has_failed = true;
    settle(engine);
}

static void handle(cs_engine *engine, struct posted *posted)
{
    switch (posted->kind) {
    case POSTED_ATTENDED:
        handle_attended(engine, posted);
        break;
    case POSTED_LEFT:
        handle_left(engine, posted);
        break;
    case POSTED_MESSAGE:
        handle_message(engine, posted);
        break;
    case POSTED_WORK:
        handle_work(engine, posted);
        break;
    case POSTED_CHECKED:
        if (door_checked(engine, posted->result) != CS_OK)
            engine_give_up(engine, "a result could not be taken", ((const struct checked *)posted->result)->site);
        break;
    case POSTED_FOLDED:
        handle_folded(engine, posted->result);
        break;
    case POSTED_COLLECTED:
        engine->is_collecting = false;
        break;
    }
    engine_posted_free(posted);
}

static int64_t sooner(int64_t a, int64_t b)
{
    return b > 0 && b < a ? b : a;
}

static int64_t wake_ms(cs_engine *engine)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    int64_t wake = INT64_MAX;
    wake = sooner(wake, engine->reload_at_ms);
    wake = sooner(wake, engine->outbox_retry_at_ms);
    if (!engine->is_collecting)
        wake = sooner(wake, engine->collect_at_ms + (engine->wants_collect ? 0 : CS_BLOB_GRACE_MS));
    for (struct job *job = engine->jobs; job; job = job->next) {
        wake = CS_MIN(wake, CS_MAX(job_wake_ms(engine, job, now_ms), (int64_t)0));
        if (job->row.remaining_ms != CS_JOB_NO_DEADLINE)
            wake = sooner(wake, CS_MAX(engine->save_at_ms, (int64_t)1));
        if (job->has_progress)
            wake = sooner(wake, job->told_at_ms + PROGRESS_TELL_MS);
    }
    return wake == INT64_MAX ? -1 : wake;
}

static void *engine_main(void *argument)
{
    cs_engine *engine = argument;
    cs_status status = CS_OK;
    settle(engine); /* the effects of the states that were found */
    while (status != CS_CANCELLED) {
        void *message = NULL;
        status = cs_mailbox_take(engine->mailbox, wake_ms(engine), &message);
        for (int i = 0; status == CS_OK; i++) {
            handle(engine, message);
            if (i + 1 >= BATCH_MAX)
                break;
            status = cs_mailbox_take(engine->mailbox, 0, &message);
        }
        tick(engine);
        settle(engine);
    }
    save_remaining(engine, cs_clock_monotonic_ms());
    settle(engine);
    return NULL;
}

/* ---- start and stop ---- */

static void engine_free(cs_engine *engine)
{
    if (!engine)
        return;
    unload_jobs(engine);
    for (size_t i = 0; i < engine->sessions_count; i++)
        end_session(&engine->sessions[i]);
    cs_free(engine->sessions);
    while (engine->watches) {
        cs_watch *next = engine->watches->next;
        cs_free(engine->watches);
        engine->watches = next;
    }
    cs_free(engine->inflight);
    measure_free(engine);
    access_free(engine->access);
    cs_store_free(engine->store);
    cs_mailbox_free(engine->mailbox);
    pthread_mutex_destroy(&engine->watches_mutex);
    pthread_mutex_destroy(&engine->inflight_mutex);
    cs_free(engine);
}

static cs_engine *engine_new(const cs_engine_config *config)
{
    cs_engine *engine = cs_alloc(sizeof(*engine));
    engine->config = *config;
    engine->mailbox = cs_mailbox_new(MAILBOX_CAPACITY);
    engine->access = access_new();
    engine->started_at_ms = cs_clock_monotonic_ms();
    engine->acks_end = &engine->acks;
    engine->dones_end = &engine->dones;
    engine->outbox_written = true; /* what a crash kept from the transcript */
    engine->wants_collect = true;
    pthread_mutex_init(&engine->inflight_mutex, NULL);
    /* `changed` may end its own watch. */
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&engine->watches_mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return engine;
}

static cs_status open_store(cs_engine *engine)
{
    CS_AUTO(cs_string) folder = cs_path_join(engine->config.state_folder, "db");
    CS_AUTO(cs_string) path = cs_path_join(folder, "coordinator.db");
    CS_TRY(cs_folder_make(folder, 0700));
    CS_TRY(cs_store_open(path, &engine->store));
    CS_TRY(cs_registry_publish(engine->store));
    return load_jobs(engine);
}

cs_status cs_engine_start(const cs_engine_config *config, cs_engine **ret)
{
    cs_engine *engine = engine_new(config);
    cs_status status = open_store(engine);
    if (status == CS_OK)
        status = folds_start(engine, &engine->folds);
    if (status == CS_OK && pthread_create(&engine->thread, NULL, engine_main, engine) != 0)
        status = cs_fail(CS_INTERNAL, "the engine's thread did not start");
    if (status != CS_OK) {
        folds_stop(engine->folds);
        engine_free(engine);
        return status;
    }
    *ret = engine;
    return CS_OK;
}

void cs_engine_stop(cs_engine *engine)
{
    if (!engine)
        return;
    cs_mailbox_close(engine->mailbox);
    pthread_join(engine->thread, NULL);
    folds_stop(engine->folds);
    engine_free(engine);
}
