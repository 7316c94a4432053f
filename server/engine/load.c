/* Jobs in and out of memory: read from the database at start, made from a plan that was submitted. Engine's thread. */
#include "server/engine/internal.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "job-2", "job-3" … for plans of the same name. */
#define NAME_TRIES_MAX 100000

/* ---- in and out of memory ---- */

void job_free(struct job *job)
{
    if (!job)
        return;
    job_forget_tasks(job);
    plan_release(job->plan);
    cs_buffer_clear(&job->plan_bytes);
    cs_free(job->members);
    cs_free(job);
}

static cs_status take_plan(struct job *job, const char *source)
{
    job->plan = cs_alloc(sizeof(*job->plan));
    atomic_store(&job->plan->references, 1);
    CS_TRY(cs_plan_read(cs_buffer_view(&job->plan_bytes), source, &job->plan->plan));
    job->mode = cs_mode_of(job->plan->plan);
    if (!job->mode)
        return cs_fail(CS_UNIMPLEMENTED, "%s: this coordinator does not know the kind of federation", source);
    return CS_OK;
}

static bool is_revoked(cs_engine *engine, const char *site)
{
    cs_site_record record;
    return cs_registry_find(engine->store, site, &record) == CS_OK && record.state == CS_SITE_REVOKED;
}

static cs_status load_members(cs_engine *engine, struct job *job)
{
    cs_member_row *rows = NULL;
    CS_TRY(cs_jobs_members(engine->store, job->row.id, &rows, &job->members_count));
    job->members = cs_alloc_array(job->members_count + 1, sizeof(*job->members));
    for (size_t i = 0; i < job->members_count; i++) {
        struct member *member = &job->members[i];
        member->row = rows[i];
        member->is_required = cs_names_have(&plan_of(job)->sites.require, rows[i].site);
        member->is_revoked = job->row.outcome == 0 && is_revoked(engine, rows[i].site);
    }
    cs_free(rows);
    return CS_OK;
}

static void load_participants(struct job *job, const char *names)
{
    while (*names) {
        const size_t length = strcspn(names, " ");
        CS_AUTO(cs_string) name = cs_strndup(names, length);
        struct member *member = job_member(job, name);
        if (member)
            member->is_participant = true;
        names += length + (names[length] == ' ');
    }
}

/* The round as it was left: participants, who is out, the tasks of the phase. */
static cs_status load_round(cs_engine *engine, struct job *job)
{
    CS_AUTO(cs_round_row) round = {0};
    cs_status found = cs_jobs_round_find(engine->store, job->row.id, job->row.round, &round);
    if (found == CS_NOT_FOUND)
        return CS_OK;
    CS_TRY(found);
    load_participants(job, cs_buffer_text(&round.participants));

    const cs_phase *phase = job_phase(job);
    cs_task_row *rows = NULL;
    size_t count = 0;
    CS_TRY(cs_jobs_tasks(engine->store, job->row.id, job->row.round, NULL, &rows, &count));
    job->tasks = cs_alloc_array(count + 1, sizeof(*job->tasks));
    for (size_t i = 0; i < count; i++) {
        struct member *member = job_member(job, rows[i].site);
        if (!member)
            continue;
        if (rows[i].state >= CS_TASK_REFUSED)
            job_exclude(member, task_state_word(rows[i].state), rows[i].reason);
        if (!phase || strcmp(rows[i].phase, phase->name) != 0)
            continue;
        struct task *task = &job->tasks[job->tasks_count++];
        *task = (struct task){.row = rows[i], .member = (size_t)(member - job->members)};
        rows[i].result = CS_BUFFER_EMPTY;
    }
    cs_task_rows_free(rows, count);
    return CS_OK;
}

cs_status job_load(cs_engine *engine, const cs_job_row *row, struct job **ret)
{
    CS_AUTO_PTR(job) job = cs_alloc(sizeof(*job));
    job->row = *row;
    job->deadline_at_ms = cs_clock_monotonic_ms() + CS_MAX(row->remaining_ms, (int64_t)0);
    CS_TRY(cs_jobs_plan(engine->store, row->id, &job->plan_bytes));
    CS_TRY(take_plan(job, row->name));
    CS_TRY(load_members(engine, job));
    CS_TRY(load_round(engine, job));
    job->was_loaded = true;
    job->needs_effects = row->outcome == 0;
    *ret = CS_TAKE(job);
    return CS_OK;
}

/* ---- a new job ---- */

static cs_status add_member(cs_engine *engine, struct job *job, const char *site)
{
    cs_site_record record;
    cs_status found = cs_registry_find(engine->store, site, &record);
    if (found == CS_NOT_FOUND)
        return cs_fail(CS_INVALID, "sites.invite: site '%s' is not known here; make it a token first", site);
    CS_TRY(found);
    if (record.state == CS_SITE_REVOKED)
        return cs_fail(CS_INVALID, "sites.invite: site '%s' is revoked", site);
    struct member *member = &job->members[job->members_count++];
    snprintf(member->row.site, sizeof(member->row.site), "%s", site);
    member->is_required = cs_names_have(&plan_of(job)->sites.require, site);
    return CS_OK;
}

static int compare_members(const void *a, const void *b)
{
    return strcmp(((const struct member *)a)->row.site, ((const struct member *)b)->row.site);
}

static cs_status invite(cs_engine *engine, struct job *job, const char *source)
{
    const cs_plan *plan = plan_of(job);
    if (plan->sites.invites_all) {
        cs_site_record *records = NULL;
        size_t count = 0;
        CS_TRY(cs_registry_list(engine->store, &records, &count));
        job->members = cs_alloc_array(count + 1, sizeof(*job->members));
        cs_status status = CS_OK;
        for (size_t i = 0; i < count && status == CS_OK; i++) {
            if (records[i].state == CS_SITE_ENROLLED)
                status = add_member(engine, job, records[i].name);
        }
        cs_free(records);
        CS_TRY(status);
    } else {
        job->members = cs_alloc_array(plan->sites.invite.count + 1, sizeof(*job->members));
        for (size_t i = 0; i < plan->sites.invite.count; i++)
            CS_TRY(add_member(engine, job, plan->sites.invite.items[i]));
    }
    qsort(job->members, job->members_count, sizeof(*job->members), compare_members);
    if (job->members_count < plan->sites.minimum)
        return cs_fail(CS_INVALID, "%s: sites.minimum: %zu sites are invited, the minimum is %" PRIu32, source,
                       job->members_count, plan->sites.minimum);
    for (size_t i = 0; i < plan->sites.require.count; i++) {
        if (!job_member(job, plan->sites.require.items[i]))
            return cs_fail(CS_INVALID, "%s: sites.require: site '%s' is not among the invited", source,
                           plan->sites.require.items[i]);
    }
    return CS_OK;
}

static cs_status name_job(cs_engine *engine, struct job *job)
{
    const char *name = plan_of(job)->name;
    cs_job_row other;
    for (int i = 1; i <= NAME_TRIES_MAX; i++) {
        char suffix[16] = "";
        if (i > 1)
            snprintf(suffix, sizeof(suffix), "-%d", i);
        const int room = CS_NAME_MAX - (int)strlen(suffix);
        snprintf(job->row.name, sizeof(job->row.name), "%.*s%s", room, name, suffix);
        const cs_status found = cs_jobs_find(engine->store, job->row.name, &other);
        if (found == CS_NOT_FOUND)
            return CS_OK;
        CS_TRY(found);
    }
    return cs_fail(CS_EXISTS, "there are %d jobs named '%s'", NAME_TRIES_MAX, name);
}

/* A plan that names its first model: that is what round 0 made. */
static cs_status find_initial_model(cs_engine *engine, const struct job *job, const char *source, cs_blob_row *ret)
{
    *ret = (cs_blob_row){.is_kept = true};
    memcpy(ret->hash.bytes, plan_of(job)->model.initial_blob, CS_HASH_BYTES);
    snprintf(ret->name, sizeof(ret->name), "%s", CS_BLOB_MODEL);
    /* Nobody names the blob until this job is committed: a collection under way must see that it is wanted. */
    access_hold(engine->access, &ret->hash);
    access_settle(engine->access, &ret->hash);
    if (!cs_blobs_has(engine->config.blobs, &ret->hash, &ret->size)) {
        char hash[CS_HASH_TEXT_BYTES];
        cs_hash_text(&ret->hash, hash);
        return cs_fail(CS_INVALID, "%s: model.initial: blob %s is not stored here", source, hash);
    }
    CS_AUTO(cs_string) path = cs_blobs_path(engine->config.blobs, &ret->hash);
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    if (cs_tensor_file_open(path, &file) != CS_OK)
        return cs_wrap(CS_INVALID, "%s: model.initial", source);
    return CS_OK;
}

cs_status job_new(cs_engine *engine, cs_bytes plan, const char *source, struct job **ret)
{
    if (plan.size > CS_PLAN_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: %zu bytes, a plan has at most %d", source, plan.size, CS_PLAN_MAX_BYTES);
    CS_AUTO_PTR(job) job = cs_alloc(sizeof(*job));
    cs_buffer_append(&job->plan_bytes, plan.data, plan.size);
    CS_TRY(take_plan(job, source));
    CS_TRY(invite(engine, job, source));
    CS_TRY(name_job(engine, job));
    const bool has_initial = plan_of(job)->model.has_initial_blob;
    cs_blob_row initial;
    if (has_initial)
        CS_TRY(find_initial_model(engine, job, source, &initial));
    job->row.plan_hash = cs_sha256(plan);
    job->row.state = ROUND_WAITING;
    job->row.created_ms = cs_clock_wall_ms();
    job_start_deadline(job, plan_of(job)->sites.approval_ms);

    CS_TRY(engine_begin(engine));
    CS_TRY(cs_jobs_insert(engine->store, &job->row, plan));
    for (size_t i = 0; i < job->members_count; i++)
        CS_TRY(cs_jobs_member_put(engine->store, job->row.id, &job->members[i].row));
    if (has_initial)
        CS_TRY(cs_jobs_blob_put(engine->store, job->row.id, &initial));
    CS_TRY(record_submitted(engine, job));
    CS_FAILPOINT("engine.submitted");
    job->needs_effects = true;
    job->has_changed = true;
    *ret = CS_TAKE(job);
    return CS_OK;
}
