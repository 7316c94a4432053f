/* What a state does, as a function of the state: assignments, folds, news for sites. Issued again after every restart.
 * Engine's thread; called by engine.c after the commit. */
#include "server/engine/internal.h"

#include "common/base/clock.h"
#include "common/base/log.h"

#include <stdio.h>
#include <string.h>

cs_status job_base(cs_engine *engine, const struct job *job, const cs_phase *phase, uint32_t round, bool *ret_has,
                   uint32_t *ret_round, cs_blob_row *ret)
{
    cs_input inputs[CS_INPUTS_MAX];
    const size_t count = job->mode->inputs(plan_of(job), round, phase, inputs);
    *ret_has = false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(inputs[i].name, CS_BLOB_MODEL) != 0)
            continue;
        *ret_has = true;
        *ret_round = inputs[i].round;
        return cs_jobs_blob_find(engine->store, job->row.id, inputs[i].round, "", "", CS_BLOB_MODEL, ret);
    }
    return CS_OK;
}

static void send_offer(cs_engine *engine, const struct job *job, struct member *member, const struct session *session)
{
    Consilium__V1__JobOffer offer = CONSILIUM__V1__JOB_OFFER__INIT;
    offer.job = (char *)(uintptr_t)job->row.name;
    offer.plan_sha256 = cs_wire_data(job->row.plan_hash.bytes, CS_HASH_BYTES);
    offer.plan = cs_wire_data(job->plan_bytes.data, job->plan_bytes.size);
    char **invited = cs_alloc_array(job->members_count, sizeof(char *));
    for (size_t i = 0; i < job->members_count; i++)
        invited[i] = job->members[i].row.site;
    offer.invited = invited;
    offer.n_invited = job->members_count;
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_OFFER;
    message.offer = &offer;
    if (engine_send(engine, member->row.site, &message)) {
        member->offered_session = session->number;
        member->has_offer = true;
    }
    cs_free(invited);
}

static void send_offers(cs_engine *engine, struct job *job)
{
    for (size_t i = 0; i < job->members_count; i++) {
        struct member *member = &job->members[i];
        const struct session *session = engine_session(engine, member->row.site);
        const bool has_decided = member->row.decision != CONSILIUM__V1__DECISION__DECISION_UNSPECIFIED &&
                                 member->row.decision != CONSILIUM__V1__DECISION__DECISION_PENDING;
        if (session && !has_decided && !member->is_revoked && member->offered_session != session->number)
            send_offer(engine, job, member, session);
    }
}

size_t job_participants(const struct job *job, const char *site, const char **ret, size_t *ret_site)
{
    size_t count = 0;
    *ret_site = SIZE_MAX;
    for (size_t i = 0; i < job->members_count; i++) {
        if (!job->members[i].is_participant)
            continue;
        if (strcmp(job->members[i].row.site, site) == 0)
            *ret_site = count;
        ret[count++] = job->members[i].row.site;
    }
    return count;
}

static cs_status add_routes(cs_engine *engine, const struct job *job, const cs_phase *phase, const char *const *names,
                            size_t names_count, size_t site, cs_blob_row rows[CS_INPUTS_MAX], size_t *count)
{
    cs_route routes[CS_INPUTS_MAX];
    const size_t routes_count = job->mode->routes(plan_of(job), phase, names, names_count, site, routes);
    for (size_t i = 0; i < routes_count && *count < CS_INPUTS_MAX; i++) {
        cs_blob_row *row = &rows[(*count)++];
        CS_TRY(cs_jobs_blob_find(engine->store, job->row.id, job->row.round, routes[i].phase->name,
                                 names[routes[i].site], routes[i].output, row));
        memcpy(row->name, routes[i].name, sizeof(row->name));
    }
    return CS_OK;
}

cs_status job_inputs(cs_engine *engine, const struct job *job, const cs_phase *phase, const char *site,
                     cs_blob_row rows[CS_INPUTS_MAX], size_t *ret_count)
{
    cs_input inputs[CS_INPUTS_MAX];
    *ret_count = job->mode->inputs(plan_of(job), job->row.round, phase, inputs);
    for (size_t i = 0; i < *ret_count; i++)
        CS_TRY(cs_jobs_blob_find(engine->store, job->row.id, inputs[i].round, "", "", inputs[i].name, &rows[i]));
    if (!job->mode->routes)
        return CS_OK;
    const char **names = cs_alloc_array(job->members_count + 1, sizeof(*names));
    size_t index = 0;
    const size_t count = job_participants(job, site, names, &index);
    const cs_status status =
        index < count ? add_routes(engine, job, phase, names, count, index, rows, ret_count) : CS_OK;
    cs_free(names);
    return status;
}

size_t job_outputs(const struct job *job, const cs_phase *phase, const char *site,
                   char ret[CS_OUTPUTS_MAX][CS_WORD_BYTES])
{
    if (!job->mode->outputs) {
        if (phase->output)
            snprintf(ret[0], CS_WORD_BYTES, "%s", phase->output);
        return phase->output ? 1 : 0;
    }
    const char **names = cs_alloc_array(job->members_count + 1, sizeof(*names));
    size_t index = 0;
    const size_t participants = job_participants(job, site, names, &index);
    const size_t count =
        index < participants ? job->mode->outputs(plan_of(job), phase, names, participants, index, ret) : 0;
    cs_free(names);
    return count;
}

static cs_status send_task(cs_engine *engine, const struct job *job, const cs_phase *phase, struct task *task,
                           const struct session *session, Consilium__V1__TaskAssignment *assignment)
{
    cs_blob_row rows[CS_INPUTS_MAX];
    CS_TRY(job_inputs(engine, job, phase, task->row.site, rows, &assignment->n_inputs));
    Consilium__V1__Blob blobs[CS_INPUTS_MAX];
    Consilium__V1__Blob *inputs[CS_INPUTS_MAX];
    for (size_t i = 0; i < assignment->n_inputs; i++) {
        consilium__v1__blob__init(&blobs[i]);
        blobs[i].name = rows[i].name;
        blobs[i].sha256 = cs_wire_data(rows[i].hash.bytes, CS_HASH_BYTES);
        blobs[i].size = rows[i].size;
        inputs[i] = &blobs[i];
    }
    assignment->inputs = inputs;

    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_TASK;
    message.task = assignment;
    if (engine_send(engine, task->row.site, &message)) {
        task->sent_session = session->number;
        cs_log(CS_LOG_DEBUG, "engine", "task given", CS_S("job", job->row.name), CS_I("round", job->row.round),
               CS_S("phase", task->row.phase), CS_S("site", task->row.site));
    }
    return CS_OK;
}

static cs_status send_tasks(cs_engine *engine, struct job *job)
{
    const cs_phase *phase = job_phase(job);
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = job->row.name;
    key.round = job->row.round;
    key.phase = (char *)(uintptr_t)phase->name;
    char **participants = cs_alloc_array(job->members_count, sizeof(char *));
    Consilium__V1__TaskAssignment assignment = CONSILIUM__V1__TASK_ASSIGNMENT__INIT;
    for (size_t i = 0; i < job->members_count; i++) {
        if (job->members[i].is_participant)
            participants[assignment.n_participants++] = job->members[i].row.site;
    }
    assignment.key = &key;
    assignment.plan_sha256 = cs_wire_data(job->row.plan_hash.bytes, CS_HASH_BYTES);
    assignment.participants = participants;
    assignment.remaining_ms = (uint64_t)CS_MAX(job->deadline_at_ms - cs_clock_monotonic_ms(), (int64_t)0);

    cs_status status = CS_OK;
    for (size_t i = 0; i < job->tasks_count && status == CS_OK; i++) {
        struct task *task = &job->tasks[i];
        const struct session *session = engine_session(engine, task->row.site);
        if (task->row.state == CS_TASK_OPEN && !task->is_checking && session && task->sent_session != session->number)
            status = send_task(engine, job, phase, task, session, &assignment);
    }
    cs_free(participants);
    return status;
}

static cs_status fold_source_of(cs_engine *engine, const struct job *job, const cs_phase *phase,
                                const cs_task_row *task, struct fold_source *ret)
{
    *ret = (struct fold_source){.weight = 1};
    memcpy(ret->site, task->site, sizeof(ret->site));
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    Consilium__V1__TaskResult *result = NULL;
    CS_TRY(report_unpack(task, arena, &result));
    if (phase->states_samples && plan_of(job)->aggregation.weights == CS_WEIGHTS_SAMPLES)
        ret->weight = (double)result->samples;
    if (!phase->makes)
        return CS_OK;
    cs_blob_row blob;
    CS_TRY(
        cs_jobs_blob_find(engine->store, job->row.id, job->row.round, phase->name, task->site, phase->output, &blob));
    ret->hash = blob.hash;
    return CS_OK;
}

static cs_status start_fold(cs_engine *engine, struct job *job)
{
    if (job->is_folding)
        return CS_OK;
    const cs_phase *phase = job_phase(job);
    bool has_model = false;
    uint32_t model_round = 0;
    cs_blob_row model;
    CS_TRY(job_base(engine, job, phase, job->row.round, &has_model, &model_round, &model));

    cs_task_row *rows = NULL;
    size_t rows_count = 0;
    CS_TRY(cs_jobs_tasks(engine->store, job->row.id, job->row.round, phase->name, &rows, &rows_count));
    struct fold_source *sources = cs_alloc_array(rows_count + 1, sizeof(*sources));
    size_t count = 0;
    cs_status status = CS_OK;
    for (size_t i = 0; i < rows_count && status == CS_OK; i++) {
        if (rows[i].state == CS_TASK_ACCEPTED)
            status = fold_source_of(engine, job, phase, &rows[i], &sources[count++]);
    }
    cs_task_rows_free(rows, rows_count);
    if (status != CS_OK) {
        cs_free(sources);
        return status;
    }
    CS_TRY(folds_fold(engine->folds, job, has_model ? &model.hash : NULL, sources, count));
    job->is_folding = true;
    return CS_OK;
}

static void send_end(cs_engine *engine, const struct job *job)
{
    Consilium__V1__JobUpdate update = CONSILIUM__V1__JOB_UPDATE__INIT;
    update.job = (char *)(uintptr_t)job->row.name;
    update.state = (Consilium__V1__JobState)job->row.outcome;
    update.reason = (char *)(uintptr_t)job->row.reason;
    update.round = job->row.round;
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB;
    message.job = &update;
    for (size_t i = 0; i < job->members_count; i++)
        engine_send(engine, job->members[i].row.site, &message);
}

void job_effects(cs_engine *engine, struct job *job)
{
    job->needs_effects = false;
    if (job->row.outcome != 0) {
        send_end(engine, job);
        return;
    }
    send_offers(engine, job);
    cs_status status = CS_OK;
    if (job->row.state == ROUND_COLLECTING)
        status = send_tasks(engine, job);
    else if (job->row.state == ROUND_FOLDING)
        status = start_fold(engine, job);
    if (status != CS_OK) {
        cs_log(CS_LOG_ERROR, "engine", "effects of the state failed and are tried again", CS_S("job", job->row.name),
               CS_S("error", cs_error_text()));
        engine->reload_at_ms = cs_clock_monotonic_ms() + PAUSED_LOOK_MS;
    }
}

void job_site_attended(cs_engine *engine, struct job *job, const char *site)
{
    (void)engine;
    struct member *member = job_member(job, site);
    if (!member)
        return;
    /* Who may attend was admitted by the registry. */
    member->is_revoked = false;
    member->offered_session = 0;
    struct task *task = job_task(job, site);
    if (task)
        task->sent_session = 0;
    job->needs_effects = true;
    job->has_changed = true;
}
