/* The door: what sites say is checked here before it changes anything. Decisions, progress, state, results. Refused
 * results are acknowledged and recorded with the reason, and the round goes on without that site. Engine's thread. */
#include "server/engine/internal.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "common/config/metric.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define RESULT_MAX_BYTES  (256 * 1024) /* packed; results are numbers and names, tensors travel as blobs */
#define EVALUATIONS_MAX   32
#define METRICS_MAX       32 /* of one evaluation */
#define EVALUATION_WORD   63
#define SAMPLES_MAX       (1ULL << 40)
#define HELD_ANSWERED_MAX 256 /* keys of one SiteState that are answered */
#define CHECK_AGAIN_MS    1000

void door_clean_text(char *out, size_t size, const char *text)
{
    size_t i = 0;
    for (; text[i] && i + 1 < size; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    out[i] = '\0';
}

/* ---- decisions ---- */

static cs_status verify_decision(cs_engine *engine, const struct job *job, const char *site,
                                 const Consilium__V1__PlanDecision *decision)
{
    if (!cs_bytes_equal(cs_wire_bytes(decision->plan_sha256), cs_bytes_of(job->row.plan_hash.bytes, CS_HASH_BYTES)))
        return cs_fail(CS_INVALID, "the decision is about another plan than the one of this job");
    cs_site_record record;
    CS_TRY(cs_registry_find(engine->store, site, &record));
    char hash[CS_HASH_HEX_BYTES];
    cs_hash_hex(&job->row.plan_hash, hash);
    const bool is_approval = decision->decision == CONSILIUM__V1__DECISION__DECISION_APPROVED;
    CS_AUTO(cs_string) text =
        cs_format("consilium-decision-v1\n%s\n%s\n%s", job->row.name, hash, is_approval ? "approved" : "refused");
    return cs_sign_verify(record.signing_key, cs_bytes_of_text(text), cs_wire_bytes(decision->signature),
                          "the plan decision");
}

static cs_status withdraw(cs_engine *engine, struct job *job, const char *site)
{
    struct task *task = job_task(job, site);
    if (job->row.state == ROUND_COLLECTING && task && task->row.state == CS_TASK_OPEN)
        return job_end_task(engine, job, task, CS_TASK_EXCLUDED, "the site withdrew its approval");
    return CS_OK;
}

static cs_status take_decision(cs_engine *engine, struct job *job, struct member *member,
                               const Consilium__V1__PlanDecision *decision, const char *reason)
{
    CS_TRY(engine_begin(engine));
    const bool had_approved = member->row.decision == CONSILIUM__V1__DECISION__DECISION_APPROVED;
    member->row.decision = (int)decision->decision;
    member->row.decisions++;
    snprintf(member->row.reason, sizeof(member->row.reason), "%s", reason);
    job->has_changed = true;
    CS_TRY(cs_jobs_member_put(engine->store, job->row.id, &member->row));
    CS_TRY(record_decision(engine, job, &member->row, cs_wire_bytes(decision->signature)));
    CS_FAILPOINT("engine.decision");
    const bool is_approval = decision->decision == CONSILIUM__V1__DECISION__DECISION_APPROVED;
    cs_log(CS_LOG_INFO, "engine", "plan decided", CS_S("job", job->row.name), CS_S("site", member->row.site),
           CS_S("decision", is_approval    ? "approved"
                            : had_approved ? "withdrawn"
                                           : "refused"));
    if (had_approved)
        CS_TRY(withdraw(engine, job, member->row.site));
    return job->row.outcome == 0 ? job_step(engine, job, EVENT_LOOK, NULL) : CS_OK;
}

static cs_status door_decision(cs_engine *engine, const char *site, const Consilium__V1__PlanDecision *decision)
{
    struct job *job = job_find(engine, decision->job);
    struct member *member = job && job->row.outcome == 0 ? job_member(job, site) : NULL;
    if (!member)
        return CS_OK; /* ended, or never was: the site hears of it when it says what it holds */
    char reason[CS_REASON_BYTES];
    door_clean_text(reason, sizeof(reason), decision->reason);

    if (decision->decision == CONSILIUM__V1__DECISION__DECISION_PENDING) {
        if (member->row.decision == CONSILIUM__V1__DECISION__DECISION_UNSPECIFIED) {
            CS_TRY(engine_begin(engine));
            member->row.decision = CONSILIUM__V1__DECISION__DECISION_PENDING;
            memcpy(member->row.reason, reason, sizeof(reason));
            job->has_changed = true;
            CS_TRY(cs_jobs_member_put(engine->store, job->row.id, &member->row));
        }
        return CS_OK;
    }
    if (decision->decision != CONSILIUM__V1__DECISION__DECISION_APPROVED &&
        decision->decision != CONSILIUM__V1__DECISION__DECISION_REFUSED)
        return CS_OK; /* a word of a later version */
    if (verify_decision(engine, job, site, decision) != CS_OK) {
        char error[CS_REASON_BYTES];
        door_clean_text(error, sizeof(error), cs_error_text());
        cs_log(CS_LOG_WARN, "engine", "plan decision refused", CS_S("job", job->row.name), CS_S("site", site),
               CS_S("reason", error));
        return record_refused_decision(engine, job, site, error);
    }
    if (member->row.decision == (int)decision->decision)
        return CS_OK; /* said again */
    return take_decision(engine, job, member, decision, reason);
}

/* ---- progress and state ---- */

static void door_progress(cs_engine *engine, const char *site, const Consilium__V1__TaskProgress *progress)
{
    struct job *job = progress->key ? job_find(engine, progress->key->job) : NULL;
    struct task *task = job ? job_task(job, site) : NULL;
    if (!task || task->row.round != progress->key->round || strcmp(task->row.phase, progress->key->phase) != 0)
        return;
    task->stage = progress->stage;
    task->done = CS_MIN(progress->done, progress->total);
    task->total = progress->total;
    task->loss = isfinite(progress->loss) ? progress->loss : 0;
    task->rate = isfinite(progress->rate) && progress->rate > 0 ? progress->rate : 0;
    job->has_progress = true;
}

static void send_job_state(cs_engine *engine, const char *site, const char *job, Consilium__V1__JobState state,
                           const char *reason, uint32_t round)
{
    Consilium__V1__JobUpdate update = CONSILIUM__V1__JOB_UPDATE__INIT;
    update.job = (char *)(uintptr_t)job;
    update.state = state;
    update.reason = (char *)(uintptr_t)reason;
    update.round = round;
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB;
    message.job = &update;
    engine_send(engine, site, &message);
}

/* A site that still holds work of a job that has ended is told so. */
static cs_status answer_held(cs_engine *engine, const char *site, const char *name)
{
    if (cs_name_check(name, "job") != CS_OK || job_find(engine, name))
        return CS_OK;
    cs_job_row row;
    const cs_status found = cs_jobs_find(engine->store, name, &row);
    if (found == CS_NOT_FOUND)
        send_job_state(engine, site, name, CONSILIUM__V1__JOB_STATE__JOB_FAILED, "this coordinator has no such job", 0);
    else if (found == CS_OK && row.outcome != 0)
        send_job_state(engine, site, name, (Consilium__V1__JobState)row.outcome, row.reason, row.round);
    return found == CS_NOT_FOUND ? CS_OK : found;
}

static cs_status door_state(cs_engine *engine, const char *site, const Consilium__V1__SiteState *state)
{
    struct session *session = engine_session(engine, site);
    if (session) {
        char confinement[256];
        door_clean_text(confinement, sizeof(confinement), state->confinement);
        cs_free(session->confinement);
        session->confinement = cs_strdup(confinement);
    }
    for (size_t i = 0; i < CS_MIN(state->n_held, (size_t)HELD_ANSWERED_MAX); i++)
        CS_TRY(answer_held(engine, site, state->held[i]->job));
    return CS_OK;
}

/* ---- results ---- */

static Consilium__V1__Verdict verdict_of(cs_task_state state)
{
    switch (state) {
    case CS_TASK_ACCEPTED:
    case CS_TASK_FOLDED:
    case CS_TASK_FAILED: /* its report was taken */
        return CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED;
    case CS_TASK_LATE:
        return CONSILIUM__V1__VERDICT__VERDICT_LATE;
    default:
        return CONSILIUM__V1__VERDICT__VERDICT_REFUSED;
    }
}

static cs_status check_word(const char *word, const char *what)
{
    if (!word[0] || strlen(word) > EVALUATION_WORD)
        return cs_fail(CS_INVALID, "%s: found %zu characters, expected 1 to %d", what, strlen(word), EVALUATION_WORD);
    /* These words reach terminals and other programs. */
    if (strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != strlen(word))
        return cs_fail(CS_INVALID, "%s: expected lower-case letters, digits, '_', '-' and '.' only", what);
    return CS_OK;
}

static cs_status check_metric(const cs_plan *plan, const Consilium__V1__Metric *metric)
{
    CS_TRY(check_word(metric->name, "metric name"));
    if (!isfinite(metric->value) || !isfinite(metric->sum) || !isfinite(metric->count) || metric->count < 0)
        return cs_fail(CS_INVALID, "metric '%s': value, sum and count must be finite and the count not negative",
                       metric->name);
    /* None: a site of an earlier version. Its value is shown and not pooled. */
    if (metric->n_parts > 0 && metric->n_parts != cs_metric_parts_in(plan, metric->name))
        return cs_fail(CS_INVALID, "metric '%s': %zu parts, the plan's has %zu", metric->name, metric->n_parts,
                       cs_metric_parts_in(plan, metric->name));
    for (size_t i = 0; i < metric->n_parts; i++) {
        if (!isfinite(metric->parts[i]) || metric->parts[i] < 0)
            return cs_fail(CS_INVALID, "metric '%s': parts must be finite and not negative", metric->name);
    }
    return CS_OK;
}

static cs_status check_evaluations(const cs_plan *plan, const Consilium__V1__TaskResult *result)
{
    if (result->n_evaluations > EVALUATIONS_MAX)
        return cs_fail(CS_INVALID, "%zu evaluations, the most is %d", result->n_evaluations, EVALUATIONS_MAX);
    for (size_t i = 0; i < result->n_evaluations; i++) {
        const Consilium__V1__Evaluation *evaluation = result->evaluations[i];
        CS_TRY(check_word(evaluation->model, "evaluation.model"));
        CS_TRY(check_word(evaluation->split, "evaluation.split"));
        CS_TRY(check_word(evaluation->standardize, "evaluation.standardize"));
        if (evaluation->n_metrics > METRICS_MAX)
            return cs_fail(CS_INVALID, "%zu metrics, the most is %d", evaluation->n_metrics, METRICS_MAX);
        for (size_t m = 0; m < evaluation->n_metrics; m++)
            CS_TRY(check_metric(plan, evaluation->metrics[m]));
    }
    return CS_OK;
}

static cs_status check_output(cs_engine *engine, const char *name, uint64_t most, const Consilium__V1__Blob *output)
{
    cs_hash hash;
    uint64_t size = 0;
    if (strcmp(output->name, name) != 0)
        return cs_fail(CS_INVALID, "the blob is not named '%s'", name);
    CS_TRY(cs_hash_from(cs_wire_bytes(output->sha256), "the blob's sha256", &hash));
    if (output->size == 0 || output->size > most)
        return cs_fail(CS_INVALID, "blob '%s' has %" PRIu64 " bytes, the most is %" PRIu64, name, output->size, most);
    if (!cs_blobs_has(engine->config.blobs, &hash, &size))
        return cs_fail(CS_INVALID, "blob '%s' was not stored before the result", name);
    if (size != output->size)
        return cs_fail(CS_INVALID, "blob '%s' has %" PRIu64 " bytes, the result says %" PRIu64, name, size,
                       output->size);
    return CS_OK;
}

static cs_status check_outputs(cs_engine *engine, const struct job *job, const cs_phase *phase, const char *site,
                               uint64_t model_size, const Consilium__V1__TaskResult *result)
{
    char names[CS_OUTPUTS_MAX][CS_WORD_BYTES];
    const size_t count = job_outputs(job, phase, site, names);
    if (result->n_outputs != count)
        return cs_fail(CS_INVALID, "%zu blobs, expected %zu", result->n_outputs, count);
    const uint64_t most = count > 0 ? job->mode->output_max_bytes(job->plan->plan, phase, model_size) : 0;
    for (size_t i = 0; i < count; i++)
        CS_TRY(check_output(engine, names[i], most, result->outputs[i]));
    return CS_OK;
}

/* What can be said without opening a file. */
static cs_status check_result(cs_engine *engine, const struct job *job, const cs_phase *phase, const char *site,
                              const Consilium__V1__TaskResult *result, size_t packed_size)
{
    if (packed_size > RESULT_MAX_BYTES)
        return cs_fail(CS_INVALID, "a result of %zu bytes, the most is %d", packed_size, RESULT_MAX_BYTES);
    if (result->outcome != CONSILIUM__V1__OUTCOME__OUTCOME_DONE)
        return cs_fail(CS_INVALID, "outcome %d is not known", (int)result->outcome);
    bool has_base = false;
    uint32_t base_round = 0;
    cs_blob_row base;
    CS_TRY(job_base(engine, job, phase, job->row.round, &has_base, &base_round, &base));
    if (has_base && !cs_bytes_equal(cs_wire_bytes(result->base_sha256), cs_bytes_of(base.hash.bytes, CS_HASH_BYTES)))
        return cs_fail(CS_INVALID, "stale base: the task was not started from the model of round %" PRIu32, base_round);
    if (phase->states_samples && (result->samples == 0 || result->samples > SAMPLES_MAX))
        return cs_fail(CS_INVALID, "samples: found %" PRIu64 ", expected 1 to %llu", result->samples, SAMPLES_MAX);
    if (!isfinite(result->loss))
        return cs_fail(CS_INVALID, "the training loss is not finite");
    CS_TRY(check_evaluations(plan_of(job), result));
    return check_outputs(engine, job, phase, site, has_base ? base.size : 0, result);
}

static cs_status take_result(cs_engine *engine, struct job *job, struct task *task, cs_task_state state,
                             const Consilium__V1__TaskResult *result, const cs_hash *hash, cs_bytes packed,
                             const char *reason)
{
    static const char *const kinds[] = {[CS_TASK_ACCEPTED] = "result_accepted",
                                        [CS_TASK_REFUSED] = "result_refused",
                                        [CS_TASK_FAILED] = "result_failed"};
    CS_TRY(engine_begin(engine));
    /* The job may end with this, and the task with it: what is needed afterwards is copied. */
    char site[CS_NAME_MAX + 1];
    memcpy(site, task->row.site, sizeof(site));
    task->row.has_result = true;
    task->row.result_hash = *hash;
    cs_buffer_reset(&task->row.result);
    if (state == CS_TASK_ACCEPTED) {
        cs_buffer_append(&task->row.result, packed.data, packed.size);
        for (size_t i = 0; i < result->n_outputs; i++) {
            cs_blob_row blob = {.round = task->row.round, .size = result->outputs[i]->size, .is_kept = true};
            memcpy(blob.phase, task->row.phase, sizeof(blob.phase));
            memcpy(blob.site, site, sizeof(blob.site));
            snprintf(blob.name, sizeof(blob.name), "%.*s", CS_WORD_BYTES - 1, result->outputs[i]->name);
            CS_TRY(cs_hash_from(cs_wire_bytes(result->outputs[i]->sha256), "output", &blob.hash));
            CS_TRY(cs_jobs_blob_put(engine->store, job->row.id, &blob));
        }
    }
    CS_TRY(record_result(engine, kinds[state], job->row.name, result, site, hash, reason));
    engine_ack(engine, site, result->key, verdict_of(state), state == CS_TASK_REFUSED ? reason : "");
    if (state != CS_TASK_ACCEPTED)
        cs_log(CS_LOG_WARN, "engine", kinds[state], CS_S("job", job->row.name), CS_I("round", task->row.round),
               CS_S("phase", task->row.phase), CS_S("site", site), CS_S("reason", reason));
    CS_FAILPOINT("engine.result");
    return job_end_task(engine, job, task, state, reason);
}

static cs_status refuse(cs_engine *engine, struct job *job, struct task *task, const Consilium__V1__TaskResult *result,
                        const cs_hash *hash, const char *error)
{
    char reason[CS_REASON_BYTES];
    door_clean_text(reason, sizeof(reason), error);
    return take_result(engine, job, task, CS_TASK_REFUSED, result, hash, cs_bytes_of(NULL, 0), reason);
}

static cs_status unpack_checking(const struct task *task, cs_arena *arena, Consilium__V1__TaskResult **ret)
{
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__task_result__descriptor, cs_buffer_view(&task->checking), arena, &message));
    *ret = (Consilium__V1__TaskResult *)message;
    return CS_OK;
}

static cs_status start_check(cs_engine *engine, const struct job *job, const struct task *task)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    Consilium__V1__TaskResult *result = NULL;
    CS_TRY(unpack_checking(task, arena, &result));
    bool has_base = false;
    uint32_t base_round = 0;
    cs_blob_row base;
    cs_hash output;
    CS_TRY(job_base(engine, job, job_phase(job), job->row.round, &has_base, &base_round, &base));
    CS_TRY(cs_hash_from(cs_wire_bytes(result->outputs[0]->sha256), "output", &output));
    return folds_check(engine->folds, job, task, has_base ? &base.hash : NULL, &output);
}

void door_check(cs_engine *engine, struct job *job, struct task *task)
{
    task->recheck_at_ms = 0;
    if (start_check(engine, job, task) == CS_OK)
        return;
    cs_log(CS_LOG_WARN, "engine", "the check of a result waits", CS_S("job", job->row.name),
           CS_S("site", task->row.site), CS_S("error", cs_error_text()));
    task->recheck_at_ms = cs_clock_monotonic_ms() + CHECK_AGAIN_MS;
}

static cs_status answer_open_task(cs_engine *engine, struct job *job, struct task *task,
                                  const Consilium__V1__TaskResult *result, const cs_hash *hash, const cs_buffer *packed)
{
    const cs_phase *phase = job_phase(job);
    if (result->outcome == CONSILIUM__V1__OUTCOME__OUTCOME_FAILED) {
        char reason[CS_REASON_BYTES];
        door_clean_text(reason, sizeof(reason), result->reason[0] ? result->reason : "the site gave no reason");
        return take_result(engine, job, task, CS_TASK_FAILED, result, hash, cs_bytes_of(NULL, 0), reason);
    }
    const cs_status status = check_result(engine, job, phase, task->row.site, result, packed->size);
    if (status != CS_OK && status != CS_INVALID)
        return status; /* our own database */
    if (status == CS_INVALID)
        return refuse(engine, job, task, result, hash, cs_error_text());
    if (!phase->output || !job->mode->check)
        return take_result(engine, job, task, CS_TASK_ACCEPTED, result, hash, cs_buffer_view(packed), "");

    task->is_checking = true;
    task->checking_hash = *hash;
    cs_buffer_reset(&task->checking);
    cs_buffer_append(&task->checking, packed->data, packed->size);
    door_check(engine, job, task);
    return CS_OK;
}

static cs_status conflict(cs_engine *engine, const char *site, const Consilium__V1__TaskResult *result,
                          const cs_hash *hash)
{
    static const char reason[] = "another result of this task came before";
    engine_ack(engine, site, result->key, CONSILIUM__V1__VERDICT__VERDICT_CONFLICT, reason);
    cs_log(CS_LOG_WARN, "engine", "result conflict", CS_S("job", result->key->job), CS_I("round", result->key->round),
           CS_S("phase", result->key->phase), CS_S("site", site));
    return record_result(engine, "result_conflict", result->key->job, result, site, hash, reason);
}

/* The phase has closed, or the site is out: the first result is noted, so that the answer stays the same. */
static cs_status note_late(cs_engine *engine, const cs_job_row *job, cs_task_row *row, const char *site,
                           const Consilium__V1__TaskResult *result, const cs_hash *hash)
{
    CS_TRY(engine_begin(engine));
    row->has_result = true;
    row->result_hash = *hash;
    CS_TRY(cs_jobs_task_put(engine->store, job->id, row));
    struct job *open = job_find(engine, job->name);
    struct task *task = open ? job_task(open, site) : NULL;
    if (task && task->row.round == row->round && strcmp(task->row.phase, row->phase) == 0) {
        task->row.has_result = true;
        task->row.result_hash = *hash;
    }
    engine_ack(engine, site, result->key, verdict_of(row->state), row->reason);
    CS_FAILPOINT("engine.late");
    return record_result(engine, "result_late", job->name, result, site, hash, row->reason);
}

static cs_status answer_by_row(cs_engine *engine, const cs_job_row *job, cs_task_row *row, const char *site,
                               const Consilium__V1__TaskResult *result, const cs_hash *hash, const cs_buffer *packed)
{
    if (row->has_result && cs_hash_equal(&row->result_hash, hash)) {
        engine_ack(engine, site, result->key, verdict_of(row->state),
                   row->state == CS_TASK_REFUSED || row->state == CS_TASK_LATE ? row->reason : "");
        return CS_OK;
    }
    if (row->has_result)
        return conflict(engine, site, result, hash);
    if (row->state != CS_TASK_OPEN)
        return note_late(engine, job, row, site, result, hash);

    struct job *open = job_find(engine, job->name);
    struct task *task = open ? job_task(open, site) : NULL;
    if (!task || task->row.round != row->round || strcmp(task->row.phase, row->phase) != 0)
        return cs_fail(CS_INTERNAL, "job '%s': the open task of site '%s' is not in memory", job->name, site);
    if (task->is_checking && cs_hash_equal(&task->checking_hash, hash))
        return CS_OK; /* the answer follows when it was looked at */
    if (task->is_checking)
        return conflict(engine, site, result, hash);
    return answer_open_task(engine, open, task, result, hash, packed);
}

static cs_status door_result(cs_engine *engine, const char *site, const Consilium__V1__TaskResult *result)
{
    if (!result->key)
        return CS_OK;
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(&result->base, &packed);
    const cs_hash hash = cs_sha256(cs_buffer_view(&packed));

    cs_job_row job;
    CS_AUTO(cs_task_row) row = {0};
    cs_status found = cs_name_check(result->key->job, "job") == CS_OK
                          ? cs_jobs_find(engine->store, result->key->job, &job)
                          : CS_NOT_FOUND;
    if (found == CS_OK)
        found = cs_jobs_task_find(engine->store, job.id, result->key->round, result->key->phase, site, &row);
    if (found == CS_NOT_FOUND) {
        engine_ack(engine, site, result->key, CONSILIUM__V1__VERDICT__VERDICT_REFUSED, "this site has no such task");
        return CS_OK;
    }
    CS_TRY(found);
    return answer_by_row(engine, &job, &row, site, result, &hash, &packed);
}

/* Is it the file's fault, or this machine's? */
static bool blames_file(cs_status status)
{
    return status == CS_INVALID || status == CS_DATA_LOSS || status == CS_RANGE || status == CS_EXHAUSTED ||
           status == CS_NOT_FOUND || status == CS_UNIMPLEMENTED;
}

cs_status door_checked(cs_engine *engine, const struct checked *checked)
{
    struct job *job = engine->jobs;
    while (job && job->row.id != checked->job)
        job = job->next;
    struct task *task = job && job->row.outcome == 0 ? job_task(job, checked->site) : NULL;
    if (!task || !task->is_checking || task->row.round != checked->round ||
        strcmp(task->row.phase, checked->phase) != 0 || !cs_hash_equal(&task->checking_hash, &checked->result_hash))
        return CS_OK; /* the job was cancelled, or the site revoked, in the meantime */

    if (checked->status != CS_OK && !blames_file(checked->status)) {
        cs_log(CS_LOG_WARN, "engine", "a result could not be checked and is checked again", CS_S("job", job->row.name),
               CS_S("site", checked->site), CS_S("error", checked->error));
        task->recheck_at_ms = cs_clock_monotonic_ms() + CHECK_AGAIN_MS;
        return CS_OK;
    }
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    CS_AUTO(cs_buffer) packed = task->checking; /* ending the task forgets it */
    task->checking = CS_BUFFER_EMPTY;
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__task_result__descriptor, cs_buffer_view(&packed), arena, &message));
    const Consilium__V1__TaskResult *result = (const Consilium__V1__TaskResult *)message;
    if (checked->status != CS_OK)
        return refuse(engine, job, task, result, &checked->result_hash, checked->error);
    return take_result(engine, job, task, CS_TASK_ACCEPTED, result, &checked->result_hash, cs_buffer_view(&packed), "");
}

cs_status door_message(cs_engine *engine, const char *site, const Consilium__V1__SiteMessage *message)
{
    switch (message->body_case) {
    case CONSILIUM__V1__SITE_MESSAGE__BODY_STATE:
        return door_state(engine, site, message->state);
    case CONSILIUM__V1__SITE_MESSAGE__BODY_DECISION:
        return door_decision(engine, site, message->decision);
    case CONSILIUM__V1__SITE_MESSAGE__BODY_PROGRESS:
        door_progress(engine, site, message->progress);
        return CS_OK;
    case CONSILIUM__V1__SITE_MESSAGE__BODY_RESULT:
        return door_result(engine, site, message->result);
    case CONSILIUM__V1__SITE_MESSAGE__BODY_ROSTER_APPROVAL:
        return roster_approval(engine, site, message->roster_approval);
    case CONSILIUM__V1__SITE_MESSAGE__BODY_RELAY:
        relay(engine, site, message->relay);
        return CS_OK;
    default:
        return CS_OK;
    }
}
