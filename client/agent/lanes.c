/* The two threads that do a task's work: the transfer lane moves blobs, the work lane drives the worker. They touch
 * only the task in hand and what cs_agent holds for every thread, and tell the agent thread how it went. */
#include "client/agent/internal.h"

#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "common/config/metric.h"
#include "common/crypto/keyfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DONE_ARENA_BYTES (8 * 1024 * 1024)
/* What a worker may report besides its blobs. */
#define EVALUATIONS_MAX 64
#define METRICS_MAX     64
#define METRIC_NAME_MAX 64
/* In the job's folder, the same for all its tasks and emptied between them: a new folder would be a sync of the disk.
 */
#define TASK_FOLDER      "task"
#define COHORT_MAX_BYTES (1024 * 1024 * 1024)

void text_shorten(const char *text, char *out, size_t size)
{
    const size_t fits = strnlen(text, size - 1);
    snprintf(out, size, "%s", text);
    /* A character cut in two is no UTF-8, and the other side would refuse the whole message. */
    for (size_t end = fits; text[fits] != '\0' && end > 0 && (out[end - 1] & 0x80) != 0; end--)
        out[end - 1] = '\0';
}

void text_for_coordinator(const char *sentence, char out[CS_REASON_MAX])
{
    const bool may_hold_path = strchr(sentence, '/') != NULL;
    text_shorten(may_hold_path ? "failed at the site; its log says why" : sentence, out, CS_REASON_MAX);
}

/* ---- progress, from either lane ---- */

static void tell_progress(struct task *task, Consilium__V1__Stage stage, uint64_t done, uint64_t total, double loss,
                          double rate)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    if (now_ms - task->progress_ms < CS_PROGRESS_INTERVAL_MS)
        return;
    task->progress_ms = now_ms;
    struct event *event = cs_alloc(sizeof(*event));
    event->kind = EVENT_PROGRESS;
    event->task = task;
    event->stage = stage;
    event->done = done;
    event->total = total;
    event->loss = loss;
    event->rate = rate;
    if (cs_mailbox_try_post(task->agent->inbox, event) != CS_OK)
        event_free(event); /* the next one says more */
}

static bool fetch_progress(void *self, uint64_t done, uint64_t total)
{
    struct task *task = self;
    tell_progress(task, CONSILIUM__V1__STAGE__STAGE_FETCHING, done, total, 0, 0);
    return !atomic_load(&task->is_cancelled);
}

static bool upload_progress(void *self, uint64_t done, uint64_t total)
{
    struct task *task = self;
    tell_progress(task, CONSILIUM__V1__STAGE__STAGE_UPLOADING, done, total, 0, 0);
    return !atomic_load(&task->is_cancelled);
}

static void worker_progress(void *self, const Consilium__V1__TaskProgress *progress)
{
    tell_progress(self, progress->stage, progress->done, progress->total, progress->loss, progress->rate);
}

/* ---- transfers ---- */

static cs_status fetch(struct task *task)
{
    const Consilium__V1__TaskAssignment *assignment = task->assignment;
    for (size_t i = 0; i < assignment->n_inputs; i++)
        CS_TRY(cs_transfer_fetch(task->agent->transfer, task->link, assignment->key, assignment->inputs[i],
                                 fetch_progress, task));
    return CS_OK;
}

static void write_update(cs_json *json, const struct task *task, const Consilium__V1__Blob *blob)
{
    cs_json_object(json, NULL);
    cs_json_text(json, "job", task->job);
    cs_json_uint(json, "round", task->round);
    cs_json_text(json, "phase", task->phase);
    cs_json_text(json, "name", blob->name);
    cs_json_hex(json, "sha256", blob->sha256.data, blob->sha256.len);
    cs_json_uint(json, "size", blob->size);
    cs_json_end(json, '}');
}

/* The record names every number of the result by the hash of the whole, and the means among them by value. */
static void write_result(cs_json *json, const struct task *task, const Consilium__V1__TaskResult *result)
{
    const cs_hash hash = cs_sha256(cs_buffer_view(&task->result));
    cs_json_object(json, NULL);
    cs_json_text(json, "job", task->job);
    cs_json_uint(json, "round", task->round);
    cs_json_text(json, "phase", task->phase);
    cs_json_text(json, "outcome", result->outcome == CONSILIUM__V1__OUTCOME__OUTCOME_DONE ? "done" : "failed");
    cs_json_text(json, "reason", result->reason);
    cs_json_hex(json, "result_sha256", hash.bytes, sizeof(hash.bytes));
    cs_json_uint(json, "samples", result->samples);
    cs_json_uint(json, "steps", result->steps);
    cs_json_real(json, "loss", result->loss);
    cs_json_list(json, "evaluations");
    const cs_buffer *out = json->out;
    for (size_t i = 0; i < result->n_evaluations && out->size < CS_RECORD_MAX_BYTES / 2; i++) {
        const Consilium__V1__Evaluation *evaluation = result->evaluations[i];
        cs_json_object(json, NULL);
        cs_json_text(json, "model", evaluation->model);
        cs_json_text(json, "split", evaluation->split);
        cs_json_text(json, "standardize", evaluation->standardize);
        for (size_t m = 0; m < evaluation->n_metrics && out->size < CS_RECORD_MAX_BYTES / 2; m++)
            cs_json_real(json, evaluation->metrics[m]->name, evaluation->metrics[m]->value);
        cs_json_end(json, '}');
    }
    cs_json_end(json, ']');
    cs_json_end(json, '}');
}

cs_status task_record_leaving(const struct task *task, const Consilium__V1__TaskResult *result)
{
    cs_record records[CS_TASK_BLOBS_MAX + 1];
    cs_buffer fields[CS_COUNT(records)] = {0};
    char *keys[CS_COUNT(records)] = {0};
    const size_t outputs = CS_MIN(result->n_outputs, (size_t)CS_TASK_BLOBS_MAX);
    for (size_t i = 0; i <= outputs; i++) {
        cs_json json = cs_json_to(&fields[i]);
        if (i < outputs) {
            const Consilium__V1__Blob *blob = result->outputs[i];
            char hex[CS_HASH_HEX_BYTES];
            cs_hex_encode(hex, blob->sha256.data, CS_HASH_BYTES);
            keys[i] = cs_format("update:%s:%s", task->name, hex);
            write_update(&json, task, blob);
        } else {
            keys[i] = cs_format("result:%s", task->name);
            write_result(&json, task, result);
        }
        records[i] = (cs_record){
            .kind = i < outputs ? "update_sent" : "result_sent", .key = keys[i], .fields = cs_buffer_view(&fields[i])};
    }
    cs_status status = cs_transcript_append_all(task->agent->transcript, records, outputs + 1);
    for (size_t i = 0; i <= outputs; i++) {
        cs_buffer_clear(&fields[i]);
        cs_free(keys[i]);
    }
    return status;
}

static cs_status upload(struct task *task)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(DONE_ARENA_BYTES);
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__task_result__descriptor, cs_buffer_view(&task->result), arena, &message));
    const Consilium__V1__TaskResult *result = (const Consilium__V1__TaskResult *)message;
    CS_TRY(task_record_leaving(task, result));
    CS_FAILPOINT("agent.upload.recorded");
    for (size_t i = 0; i < result->n_outputs; i++) {
        CS_TRY(cs_transfer_store(task->agent->transfer, task->link, result->key, result->outputs[i], upload_progress,
                                 task));
    }
    CS_FAILPOINT("agent.upload.done");
    return CS_OK;
}

/* A line that broke, or a coordinator that is not there, is waited for; a clear no is asked again only a few times. */
static bool is_passing(cs_status status)
{
    return status == CS_UNAVAILABLE || status == CS_CANCELLED || status == CS_DEADLINE ||
           status == CS_UNAUTHENTICATED || status == CS_ABORTED;
}

static void transfer_step(struct task *task)
{
    task->status = task->step == STEP_FETCH ? fetch(task) : upload(task);
    task->is_worth_repeating = is_passing(task->status);
}

/* ---- the worker ---- */

static cs_status worker_ready(void *self, const Consilium__V1__WorkerReady *ready)
{
    struct task *task = self;
    CS_AUTO(cs_buffer) held = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&held, ready->confinement);
    for (size_t i = 0; i < ready->n_missing; i++)
        cs_buffer_printf(&held, "%s%s", i == 0 ? "; missing, and accepted by site.yaml: " : ", ", ready->missing[i]);
    struct event *event = cs_alloc(sizeof(*event));
    event->kind = EVENT_READY;
    event->text = cs_buffer_take_text(&held);
    event->build = cs_strdup(ready->build);
    agent_tell(task->agent, event);

    const cs_site_config *config = task->agent->config;
    for (size_t i = 0; i < ready->n_datasets; i++) {
        const Consilium__V1__DatasetDescription *found = ready->datasets[i];
        if (found->error[0] != '\0')
            return cs_fail(CS_INVALID, "data set '%s': %s", found->dataset, found->error);
        if (task->sealing == NULL && found->train < config->floor_rows)
            return cs_fail(CS_DENIED, "data set '%s' has too few training rows for this site's policy", found->dataset);
    }
    return CS_OK;
}

static const Consilium__V1__Blob *input_named(const struct task *task, const char *name)
{
    for (size_t i = 0; i < task->assignment->n_inputs; i++)
        if (strcmp(task->assignment->inputs[i]->name, name) == 0)
            return task->assignment->inputs[i];
    return NULL;
}

static cs_status give_input(struct task *task, const char *name, const cs_hash *blob, const char *folder,
                            cs_arena *arena, Consilium__V1__WorkerTask *ret)
{
    CS_AUTO(cs_string) file = cs_format("%s.safetensors", name);
    CS_TRY(cs_exchange_give(task->agent->blobs, blob, folder, file));
    Consilium__V1__NamedFile *named = cs_arena_alloc(arena, sizeof(*named));
    consilium__v1__named_file__init(named);
    named->name = (char *)(uintptr_t)name;
    named->file = cs_arena_strdup(arena, file);
    ret->inputs[ret->n_inputs++] = named;
    return CS_OK;
}

static cs_status give_inputs(struct task *task, const char *folder, cs_arena *arena, Consilium__V1__WorkerTask *ret)
{
    const Consilium__V1__TaskAssignment *assignment = task->assignment;
    ret->inputs = cs_arena_alloc(arena, (assignment->n_inputs + 1) * sizeof(*ret->inputs));
    for (size_t i = 0; i < assignment->n_inputs; i++)
        CS_TRY(give_input(task, assignment->inputs[i]->name, &task->blobs[i], folder, arena, ret));
    if (!task->has_kept)
        return CS_OK;
    return give_input(task, cs_phase_rule_find(task->phase)->kept, &task->kept, folder, arena, ret);
}

static cs_status check_numbers(const Consilium__V1__TaskResult *result)
{
    if (result->n_evaluations > EVALUATIONS_MAX)
        return cs_fail(CS_EXHAUSTED, "%zu evaluations, the most is %d", result->n_evaluations, EVALUATIONS_MAX);
    for (size_t i = 0; i < result->n_evaluations; i++) {
        const Consilium__V1__Evaluation *evaluation = result->evaluations[i];
        if (evaluation->n_metrics > METRICS_MAX)
            return cs_fail(CS_EXHAUSTED, "%zu metrics, the most is %d", evaluation->n_metrics, METRICS_MAX);
        for (size_t m = 0; m < evaluation->n_metrics; m++)
            if (strlen(evaluation->metrics[m]->name) > METRIC_NAME_MAX)
                return cs_fail(CS_INVALID, "the name of a metric is longer than %d bytes", METRIC_NAME_MAX);
        for (size_t m = 0; m < evaluation->n_metrics; m++)
            if (evaluation->metrics[m]->n_parts > CS_METRIC_PARTS_MAX)
                return cs_fail(CS_EXHAUSTED, "a metric of %zu parts, the most is %d", evaluation->metrics[m]->n_parts,
                               CS_METRIC_PARTS_MAX);
    }
    return CS_OK;
}

/* Checks and takes what the phase may send; an output that it may not have fails the task. */
static cs_status take_outputs(struct task *task, const Consilium__V1__WorkerDone *done, const char *folder,
                              Consilium__V1__Blob *ret_output, size_t *ret_count)
{
    const cs_phase_rule *rule = cs_phase_rule_find(task->phase);
    const size_t expected = rule->output != NULL ? 1 : 0;
    const size_t kept = rule->kept != NULL && done->n_outputs == expected + 1 ? 1 : 0;
    if (done->n_outputs != expected + kept || (kept == 1 && strcmp(done->outputs[expected]->name, rule->kept) != 0) ||
        (expected == 1 && strcmp(done->outputs[0]->name, rule->output) != 0))
        return cs_fail(CS_DENIED, "phase '%s' brings %s, the worker brought %zu blobs", task->phase,
                       expected == 1 ? rule->output : "no blob", done->n_outputs);
    *ret_count = expected;
    if (expected == 0)
        return CS_OK;
    const Consilium__V1__Blob *model = input_named(task, "model");
    CS_AUTO(cs_string) model_path = NULL;
    if (model != NULL) {
        cs_hash hash;
        CS_TRY(cs_hash_from(cs_wire_bytes(model->sha256), "model", &hash));
        model_path = cs_blobs_path(task->agent->blobs, &hash);
    }
    CS_AUTO(cs_string) staging =
        cs_format("%s/%s-%u-%s", task->agent->staging_folder, task->job, task->round, task->phase);
    cs_hash *hash = &task->blobs[task->blobs_count];
    CS_TRY(cs_exchange_take(task->agent->blobs, rule, folder, done->outputs[0]->file, model_path, staging, hash,
                            &ret_output->size));
    task->blobs_count++;
    task->keeps = kept == 1;
    if (task->keeps) {
        CS_TRY(cs_exchange_take_kept(task->agent->blobs, rule, folder, done->outputs[expected]->file, model_path,
                                     staging, &task->keeps_blob));
        task->blobs[task->blobs_count++] = task->keeps_blob;
    }
    ret_output->name = (char *)(uintptr_t)rule->output;
    ret_output->sha256 = cs_wire_data(hash->bytes, sizeof(hash->bytes));
    return CS_OK;
}

static cs_status make_result(struct task *task, const Consilium__V1__WorkerDone *done, const char *folder)
{
    if (done->result == NULL)
        return cs_fail(CS_INVALID, "the worker was done without a result");
    CS_TRY(check_numbers(done->result));
    Consilium__V1__Blob output = CONSILIUM__V1__BLOB__INIT;
    Consilium__V1__Blob *outputs[] = {&output};
    size_t outputs_count = 0;
    CS_TRY(take_outputs(task, done, folder, &output, &outputs_count));

    const Consilium__V1__Blob *model = input_named(task, "model");
    Consilium__V1__TaskResult result = *done->result;
    result.key = task->assignment->key;
    result.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_DONE;
    result.reason = (char *)(uintptr_t) "";
    result.base_sha256 = model != NULL ? model->sha256 : cs_wire_data(NULL, 0);
    result.outputs = outputs;
    result.n_outputs = outputs_count;
    result.base.n_unknown_fields = 0; /* nothing that this build cannot name leaves */
    cs_buffer_reset(&task->result);
    cs_wire_pack(&result.base, &task->result);
    return CS_OK;
}

/* ---- an alignment ---- */

static char *personal_of(const struct task *task, const char *job)
{
    return cs_path_join(task->agent->personal_folder, job);
}

/* Nothing is in it: the answer is a stored one, or the plan tells the other party nothing. */
static bool is_silent(const cs_sealing *sealing, const cs_parcel *parcel)
{
    return sealing->is_repeat || (parcel->kind == CS_PSI_ANSWER && !sealing->tells_all);
}

/* Inputs must be exactly what this step takes. */
static cs_status open_parcels(struct task *task, const char *folder, cs_arena *arena, Consilium__V1__WorkerTask *ret)
{
    const Consilium__V1__TaskAssignment *assignment = task->assignment;
    cs_parcel parcels[CS_ALIGNMENT_SITES_MAX];
    const size_t count = cs_parcels_in(task->sealing, task->phase, parcels);
    if (assignment->n_inputs != count)
        return cs_fail(CS_DENIED, "phase '%s' takes %zu lists here, the coordinator gave %zu", task->phase, count,
                       assignment->n_inputs);
    ret->inputs = cs_arena_alloc(arena, (count + 1) * sizeof(*ret->inputs));
    for (size_t i = 0; i < count; i++) {
        if (strcmp(assignment->inputs[i]->name, parcels[i].name) != 0)
            return cs_fail(CS_DENIED, "phase '%s' takes '%s' here, the coordinator gave '%.32s'", task->phase,
                           parcels[i].name, assignment->inputs[i]->name);
        if (is_silent(task->sealing, &parcels[i]))
            continue;
        CS_TRY(cs_parcel_open(task->agent->blobs, &task->blobs[i], task->sealing, &parcels[i], folder));
        Consilium__V1__NamedFile *named = cs_arena_alloc(arena, sizeof(*named));
        consilium__v1__named_file__init(named);
        named->name = named->file = cs_arena_strdup(arena, parcels[i].name);
        ret->inputs[ret->n_inputs++] = named;
    }
    ret->seed = cs_wire_data(task->sealing->seed, sizeof(task->sealing->seed));
    return CS_OK;
}

static cs_status take_parcel(struct task *task, const cs_parcel *parcel, const Consilium__V1__WorkerDone *done,
                             Consilium__V1__Blob *ret)
{
    CS_AUTO(cs_string) staging =
        cs_format("%s/%s-%u-%s", task->agent->staging_folder, task->job, task->round, task->phase);
    CS_AUTO(cs_string) personal = personal_of(task, task->job);
    cs_hash *hash = &task->blobs[task->blobs_count];
    uint64_t points = 0;
    if (is_silent(task->sealing, parcel)) {
        CS_TRY(cs_parcel_empty(task->agent->blobs, task->sealing, parcel, staging, hash, &ret->size));
    } else {
        const Consilium__V1__NamedFile *file = NULL;
        for (size_t i = 0; i < done->n_outputs && file == NULL; i++)
            file = strcmp(done->outputs[i]->name, parcel->name) == 0 ? done->outputs[i] : NULL;
        if (file == NULL)
            return cs_fail(CS_DENIED, "the worker did not bring '%s'", parcel->name);
        CS_TRY(cs_parcel_take(task->agent->blobs, task->sealing, parcel, personal, file->file, staging, hash,
                              &ret->size, &points));
    }
    task->tokens += points;
    task->blobs_count++;
    ret->sha256 = cs_wire_data(hash->bytes, sizeof(hash->bytes));
    return CS_OK;
}

/* Of what the worker says only the cohort's size leaves, where it is told at all. */
static void add_patients(const struct task *task, Consilium__V1__TaskResult *result,
                         Consilium__V1__Evaluation *evaluation, Consilium__V1__Metric *metric)
{
    consilium__v1__metric__init(metric);
    metric->name = (char *)(uintptr_t) "patients";
    metric->value = (double)task->patients;
    metric->is_defined = true;
    consilium__v1__evaluation__init(evaluation);
    evaluation->model = (char *)(uintptr_t) "cohort";
    evaluation->split = (char *)(uintptr_t) "all";
    evaluation->standardize = (char *)(uintptr_t) "none";
    evaluation->n_metrics = 1;
    result->n_evaluations = 1;
}

/* `done`: NULL when the answer is a stored one. */
static cs_status make_sealed_result(struct task *task, const Consilium__V1__WorkerDone *done)
{
    cs_parcel parcels[CS_ALIGNMENT_SITES_MAX];
    Consilium__V1__Blob outputs[CS_ALIGNMENT_SITES_MAX];
    Consilium__V1__Blob *pointers[CS_ALIGNMENT_SITES_MAX];
    const size_t count = cs_parcels_out(task->sealing, task->phase, parcels);
    task->tokens = 0;
    for (size_t i = 0; i < count; i++) {
        consilium__v1__blob__init(&outputs[i]);
        outputs[i].name = parcels[i].name;
        pointers[i] = &outputs[i];
        CS_TRY(take_parcel(task, &parcels[i], done, &outputs[i]));
    }
    cs_alignment_step step;
    uint32_t stop = 0;
    CS_IGNORE(cs_alignment_phase(task->phase, task->sealing->parties, &step, &stop) ? CS_OK : CS_OK, "it has a rule");
    const bool says_patients = step == CS_ALIGNMENT_COMPARE || step == CS_ALIGNMENT_COHORT;
    task->patients = !says_patients         ? 0
                     : done == NULL         ? task->sealing->stored_patients
                     : done->result != NULL ? done->result->samples
                                            : 0;
    Consilium__V1__Metric metric;
    Consilium__V1__Metric *metrics[] = {&metric};
    Consilium__V1__Evaluation evaluation;
    Consilium__V1__Evaluation *evaluations[] = {&evaluation};
    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.key = task->assignment->key;
    result.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_DONE;
    result.outputs = pointers;
    result.n_outputs = count;
    result.build = done != NULL && done->result != NULL ? done->result->build : (char *)(uintptr_t) "";
    if (says_patients) {
        add_patients(task, &result, &evaluation, &metric);
        evaluation.metrics = metrics;
        result.evaluations = evaluations;
    }
    cs_buffer_reset(&task->result);
    cs_wire_pack(&result.base, &task->result);
    return CS_OK;
}

static cs_worker_end is_fault(cs_status status)
{
    return status == CS_INVALID || status == CS_DENIED || status == CS_DATA_LOSS || status == CS_UNAUTHENTICATED ||
                   status == CS_RANGE
               ? CS_WORKER_REFUSED
               : CS_WORKER_LOST;
}

/* The site's own rows of an earlier job's cohort are those of this one. */
static cs_status repeat_answer(struct task *task)
{
    CS_AUTO(cs_string) from_folder = personal_of(task, task->sealing->stored_job);
    CS_AUTO(cs_string) to_folder = personal_of(task, task->job);
    CS_AUTO(cs_string) from = cs_path_join(from_folder, CS_COHORT_FILE);
    CS_AUTO(cs_string) to = cs_path_join(to_folder, CS_COHORT_FILE);
    CS_TRY(cs_folder_make(to_folder, 0700));
    if (!cs_file_exists(from))
        return CS_OK; /* this site was told nothing, or somebody took the file away */
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(from, COHORT_MAX_BYTES, &bytes));
    return cs_file_write_atomic(to, cs_buffer_view(&bytes), 0600);
}

static cs_worker_end run_sealed(struct task *task, const char *folder, cs_arena *arena, cs_worker_task *work)
{
    const cs_status opened = open_parcels(task, folder, arena, &work->task);
    if (opened != CS_OK)
        return is_fault(opened);
    cs_alignment_step step;
    uint32_t stop = 0;
    const bool ends = cs_alignment_phase(task->phase, task->sealing->parties, &step, &stop) &&
                      (step == CS_ALIGNMENT_COMPARE || step == CS_ALIGNMENT_COHORT);
    Consilium__V1__WorkerDone *done = NULL;
    if (!task->sealing->is_repeat) {
        const cs_worker_end end = cs_supervisor_run(task->agent->supervisor, work, arena, &done);
        if (end != CS_WORKER_DONE)
            return end;
    } else if (ends && repeat_answer(task) != CS_OK) {
        return CS_WORKER_LOST;
    }
    const cs_status made = make_sealed_result(task, done);
    return made == CS_OK ? CS_WORKER_DONE : is_fault(made);
}

static cs_status close_file(void *folder, const char *name)
{
    if (strcmp(name, CS_COHORT_FILE) == 0)
        return CS_OK;
    CS_AUTO(cs_string) path = cs_path_join(folder, name);
    const size_t length = strlen(name);
    if (length > 4 && strcmp(name + length - 4, ".key") == 0)
        return cs_key_file_wipe(path);
    return cs_file_remove(path) == CS_OK ? CS_OK : cs_folder_remove(path);
}

/* The cohort stays, for what is to be done with it; keys and lists go. */
void personal_close(const cs_agent *agent, const char *job)
{
    CS_AUTO(cs_string) folder = cs_path_join(agent->personal_folder, job);
    CS_AUTO(cs_string) cohort = cs_path_join(folder, CS_COHORT_FILE);
    if (!cs_file_exists(folder))
        return;
    cs_status status = cs_folder_list(folder, close_file, folder);
    if (status == CS_OK && !cs_file_exists(cohort))
        status = cs_folder_remove(folder);
    if (status != CS_OK)
        cs_log(CS_LOG_ERROR, "agent", "secrets of an ended job not removed", CS_S("job", job),
               CS_S("reason", cs_error_text()));
}

static cs_status remove_inside(void *folder, const char *name)
{
    CS_AUTO(cs_string) path = cs_path_join(folder, name);
    return cs_file_remove(path) == CS_OK ? CS_OK : cs_folder_remove(path);
}

static cs_worker_end run_in(struct task *task, char *folder, cs_arena *arena)
{
    cs_worker_task work = {.job = task->job,
                           .plan = task->plan,
                           .task = CONSILIUM__V1__WORKER_TASK__INIT,
                           .is_cancelled = &task->is_cancelled,
                           .ready = worker_ready,
                           .progress = worker_progress,
                           .self = task};
    work.task.key = task->assignment->key;
    work.task.folder = (char *)(uintptr_t)TASK_FOLDER;
    work.task.participants = task->assignment->participants;
    work.task.n_participants = task->assignment->n_participants;
    /* A full disk may pass: worth a repeat, like a lost worker. */
    if (cs_folder_make(folder, 0700) != CS_OK || cs_folder_list(folder, remove_inside, folder) != CS_OK)
        return CS_WORKER_LOST;
    if (task->sealing != NULL) {
        CS_AUTO(cs_string) personal = personal_of(task, task->job);
        if (cs_folder_make(personal, 0700) != CS_OK)
            return CS_WORKER_LOST;
        work.personal = personal;
        return run_sealed(task, folder, arena, &work);
    }
    if (give_inputs(task, folder, arena, &work.task) != CS_OK)
        return CS_WORKER_LOST;
    Consilium__V1__WorkerDone *done = NULL;
    const cs_worker_end end = cs_supervisor_run(task->agent->supervisor, &work, arena, &done);
    if (end != CS_WORKER_DONE)
        return end;
    const cs_status made = make_result(task, done, folder);
    if (made == CS_OK)
        return CS_WORKER_DONE;
    return made == CS_INVALID || made == CS_DENIED || made == CS_DATA_LOSS ? CS_WORKER_REFUSED : CS_WORKER_LOST;
}

static void run_step(struct task *task)
{
    task->blobs_count = task->assignment->n_inputs;
    CS_AUTO(cs_string) folder = cs_format("%s/%s/" TASK_FOLDER, task->agent->tasks_folder, task->job);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(DONE_ARENA_BYTES);
    const cs_worker_end end = run_in(task, folder, arena);
    task->status = end == CS_WORKER_DONE ? CS_OK : CS_ABORTED;
    task->is_worth_repeating = end == CS_WORKER_LOST;
    if (end != CS_WORKER_DONE)
        snprintf(task->sentence, sizeof(task->sentence), "%s", cs_error_text());
    if (end == CS_WORKER_UNFIT) {
        struct event *event = cs_alloc(sizeof(*event));
        event->kind = EVENT_READY;
        event->text = cs_format("refused: %s", task->sentence);
        agent_tell(task->agent, event);
    }
    CS_IGNORE(cs_fail(task->status, "%s", task->sentence), "leaves the sentence only");
}

/* ---- the threads ---- */

static void do_task(struct task *task)
{
    if (atomic_load(&task->is_cancelled))
        task->status = cs_fail(CS_CANCELLED, "the task was cancelled");
    else if (task->step == STEP_RUN)
        run_step(task);
    else
        transfer_step(task);
    if (task->status != CS_OK)
        snprintf(task->sentence, sizeof(task->sentence), "%s", cs_error_text());
    struct event *event = cs_alloc(sizeof(*event));
    event->kind = EVENT_TASK;
    event->task = task;
    agent_tell(task->agent, event);
}

static void end_job(cs_agent *agent, const char *job)
{
    cs_supervisor_end_job(agent->supervisor, job);
    CS_AUTO(cs_string) folder = cs_path_join(agent->tasks_folder, job);
    CS_IGNORE(cs_folder_remove(folder), "the start of the next agent empties it");
    personal_close(agent, job);
}

static void *run_errands(void *argument)
{
    struct lane *lane = argument;
    void *taken = NULL;
    while (cs_mailbox_take(lane->errands, -1, &taken) == CS_OK) {
        struct errand *errand = taken;
        if (errand->kind == ERRAND_TASK)
            do_task(errand->task);
        else if (errand->kind == ERRAND_END_JOB)
            end_job(lane->agent, errand->job);
        else
            cs_supervisor_end_idle(lane->agent->supervisor, CS_WORKER_IDLE_MS);
        cs_free(errand->job);
        cs_free(errand);
    }
    return NULL;
}

void lane_start(struct lane *lane, cs_agent *agent, size_t capacity)
{
    lane->agent = agent;
    lane->errands = cs_mailbox_new(capacity);
    if (pthread_create(&lane->thread, NULL, run_errands, lane) != 0)
        abort(); /* no thread at all: nothing this process could still do */
}

bool lane_give(struct lane *lane, enum errand_kind kind, struct task *task, const char *job)
{
    struct errand *errand = cs_alloc(sizeof(*errand));
    errand->kind = kind;
    errand->task = task;
    errand->job = job != NULL ? cs_strdup(job) : NULL;
    if (cs_mailbox_try_post(lane->errands, errand) == CS_OK)
        return true;
    cs_free(errand->job);
    cs_free(errand);
    return false;
}

void lane_stop(struct lane *lane)
{
    if (lane->errands == NULL)
        return;
    cs_mailbox_close(lane->errands);
    pthread_join(lane->thread, NULL);
    cs_mailbox_free(lane->errands);
    lane->errands = NULL;
}
