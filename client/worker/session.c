/* `consilium-worker --agent`: configured once, confined before it opens data, then one task after the other. Called by
 * main.c; everything happens on the main thread. With CS_ALIGNER_ONLY this is consilium-aligner, which has nothing that
 * learns: without libtorch and its three hundred libraries it starts at a tenth of the cost. */
#include "client/worker/session.h"

#include "client/worker/alignment.h"
#include "client/worker/confine.h"
#ifndef CS_ALIGNER_ONLY
#include "client/data/survey.h"
#include "client/worker/learner.h"
#endif
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/crypto/digest.h"
#include "common/crypto/sign.h"
#include "common/wire/wire.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>

#define MESSAGE_ARENA_BYTES (16u * 1024 * 1024)
#define PROGRESS_EVERY_MS   250
#define LOOK_FOR_CANCEL_MS  50
#define OUTPUTS_MAX         2 /* of a task: what is sent, and what the site keeps */

typedef Consilium__V1__ToWorker to_worker;
typedef Consilium__V1__FromWorker from_worker;

/* One task's work. CS_OK: `done` is filled in; else the sentence goes to the agent. */
struct session;
typedef cs_status (*task_work)(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                               cs_arena *arena, Consilium__V1__WorkerDone *done);

struct session {
    int fd;
    cs_plan *plan; /* NULL: only to describe the data sets */
    cs_hash plan_hash;
    cs_site_config *config;
    char *site;
    char *task_root;
    char *personal;             /* NULL: none */
    cs_aligner *aligner;        /* of a vertical plan, instead of a learner */
    int64_t step_at_ms;         /* when the running step of the alignment began */
    struct cs_learner *learner; /* NULL while the data does not fit the plan */
    char *data_error;           /* why; NULL when it fits */
    const Consilium__V1__TaskKey *running;
    bool surveys; /* for `doctor`: descriptions come with remarks */
    int64_t progress_at_ms, look_at_ms;
    bool is_over; /* the agent's end has closed */
};

/* What learns, below: absent from the program that only aligns. */
static void learner_clear(struct session *session);
static cs_status learner_start(const struct session *session);
static const char *learner_build(const struct session *session);
static void describe_table(struct session *session, const char *name, const cs_site_dataset *dataset, cs_arena *arena,
                           Consilium__V1__DatasetDescription *description);
static cs_status do_learning(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                             cs_arena *arena, Consilium__V1__WorkerDone *done);

static void session_clear(struct session *session)
{
    cs_aligner_free(session->aligner);
    learner_clear(session);
    cs_plan_free(session->plan);
    cs_site_config_free(session->config);
    cs_free(session->site);
    cs_free(session->task_root);
    cs_free(session->personal);
    cs_free(session->data_error);
}

/* ---- messages ---- */

static cs_status receive(struct session *session, cs_arena *arena, const to_worker **ret)
{
    ProtobufCMessage *message = NULL;
    cs_status status = cs_frame_read_message(session->fd, &consilium__v1__to_worker__descriptor, -1, arena, &message);
    session->is_over = status == CS_DONE;
    CS_TRY(status);
    *ret = (const to_worker *)message;
    return CS_OK;
}

static cs_status send_failed(const struct session *session, const Consilium__V1__TaskKey *key, cs_status status)
{
    Consilium__V1__WorkerFailed failed = CONSILIUM__V1__WORKER_FAILED__INIT;
    failed.key = (Consilium__V1__TaskKey *)(uintptr_t)key;
    failed.code = (uint32_t)status;
    CS_AUTO(cs_string) reason = cs_strdup(cs_error_text());
    failed.reason = reason;
    from_worker message = CONSILIUM__V1__FROM_WORKER__INIT;
    message.body_case = CONSILIUM__V1__FROM_WORKER__BODY_FAILED;
    message.failed = &failed;
    return cs_frame_write_message(session->fd, &message.base);
}

static cs_status send_progress(struct session *session, Consilium__V1__Stage stage, uint64_t done, uint64_t total,
                               double loss, double rate)
{
    Consilium__V1__TaskProgress progress = CONSILIUM__V1__TASK_PROGRESS__INIT;
    progress.key = (Consilium__V1__TaskKey *)(uintptr_t)session->running;
    progress.stage = stage;
    progress.done = done;
    progress.total = total;
    progress.loss = loss;
    progress.rate = rate;
    from_worker message = CONSILIUM__V1__FROM_WORKER__INIT;
    message.body_case = CONSILIUM__V1__FROM_WORKER__BODY_PROGRESS;
    message.progress = &progress;
    session->progress_at_ms = cs_clock_monotonic_ms();
    return cs_frame_write_message(session->fd, &message.base);
}

/* ---- configure ---- */

static bool is_alignment(const struct session *session)
{
    return session->plan != NULL && session->plan->federation == CS_VERTICAL;
}

static const char *build_of(const struct session *session)
{
    return is_alignment(session) ? cs_aligner_build(session->config->threads) : learner_build(session);
}

/* The data sets of this worker: the plan's, or all of the site where there is no plan. */
static bool is_used(const struct session *session, const cs_site_dataset *dataset)
{
    return session->plan == NULL || strcmp(session->plan->dataset.name, dataset->name) == 0;
}

static cs_status confine(const struct session *session, Consilium__V1__WorkerReady *ready, cs_arena *arena)
{
    const cs_site_config *config = session->config;
    const char *readable[CS_CONFINE_PATHS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < config->datasets_count; i++) {
        if (!is_used(session, &config->datasets[i]))
            continue;
        if (count == CS_CONFINE_PATHS_MAX)
            return cs_fail(CS_EXHAUSTED, "the site's configuration has more than %d data sets", CS_CONFINE_PATHS_MAX);
        CS_AUTO(cs_string) path = cs_path_join(config->folder, config->datasets[i].table);
        readable[count++] = cs_arena_strdup(arena, path);
    }

    const cs_confinement confinement = {readable, count, {session->task_root, session->personal}, config};
    const char *holds = NULL, *missing[3];
    CS_TRY(cs_confine(&confinement, &holds, missing, &ready->n_missing));
    ready->confinement = (char *)(uintptr_t)holds;
    ready->missing = cs_arena_alloc(arena, 3 * sizeof(char *));
    for (size_t i = 0; i < ready->n_missing; i++)
        ready->missing[i] = (char *)(uintptr_t)missing[i];
    return CS_OK;
}

static uint64_t *copy_counts(const uint64_t *counts, size_t count, cs_arena *arena)
{
    return cs_arena_copy(arena, counts, count * sizeof *counts);
}

static cs_status describe_persons(struct session *session, const cs_site_dataset *dataset, cs_arena *arena,
                                  Consilium__V1__DatasetDescription *description)
{
    CS_AUTO_PTR(cs_persons) persons = NULL;
    if (dataset == NULL)
        return cs_fail(CS_NOT_FOUND, "the site's configuration has no data set '%s'", session->plan->dataset.name);
    CS_TRY(cs_persons_load(session->plan, dataset, session->config->folder, &persons));
    const cs_persons_count *counted = &persons->counted;
    const size_t keys = persons->keys_count;
    Consilium__V1__PersonsDescription *found = cs_arena_alloc(arena, sizeof *found);
    consilium__v1__persons_description__init(found);
    found->rows = counted->list.records;
    found->persons = counted->list.listed;
    found->duplicates = counted->list.repeated;
    found->keyless = counted->list.without_key + counted->list.only_shared;
    found->keys = counted->list.keys;
    found->points = (uint64_t)counted->list.groups * keys;
    found->n_present = found->n_ambiguous = keys;
    found->present = copy_counts(counted->present, keys, arena);
    found->ambiguous = copy_counts(counted->list.shared, keys, arena);
    found->n_missing = found->n_unreadable = found->n_unreadable_line = CS_FIELDS;
    found->missing = copy_counts(counted->missing, CS_FIELDS, arena);
    found->unreadable = copy_counts(counted->unreadable, CS_FIELDS, arena);
    found->unreadable_line = copy_counts(counted->unreadable_line, CS_FIELDS, arena);
    description->persons = found;
    description->rows = counted->list.records;
    description->dropped = counted->list.records - counted->list.listed;
    if (session->personal != NULL)
        session->aligner =
            cs_aligner_new(session->plan, session->site, session->personal, session->config->threads, CS_TAKE(persons));
    return CS_OK;
}

static Consilium__V1__DatasetDescription *describe(struct session *session, const char *name,
                                                   const cs_site_dataset *dataset, cs_arena *arena)
{
    Consilium__V1__DatasetDescription *description = cs_arena_alloc(arena, sizeof *description);
    consilium__v1__dataset_description__init(description);
    description->dataset = cs_arena_strdup(arena, name);
    if (is_alignment(session)) {
        if (describe_persons(session, dataset, arena, description) != CS_OK) {
            description->error = cs_arena_strdup(arena, cs_error_text());
            session->data_error = cs_strdup(cs_error_text());
        }
        return description;
    }
    describe_table(session, name, dataset, arena, description);
    return description;
}

static void describe_all(struct session *session, Consilium__V1__WorkerReady *ready, cs_arena *arena)
{
    const cs_site_config *config = session->config;
    ready->datasets = cs_arena_alloc(arena, (config->datasets_count + 1) * sizeof *ready->datasets);
    for (size_t i = 0; i < config->datasets_count; i++) {
        if (is_used(session, &config->datasets[i]))
            ready->datasets[ready->n_datasets++] =
                describe(session, config->datasets[i].name, &config->datasets[i], arena);
    }
    if (session->plan != NULL && ready->n_datasets == 0)
        ready->datasets[ready->n_datasets++] = describe(session, session->plan->dataset.name, NULL, arena);
}

static cs_status configure(struct session *session, const Consilium__V1__Configure *configure, cs_arena *arena)
{
    const cs_bytes plan = cs_wire_bytes(configure->plan);
    session->site = cs_strdup(configure->site);
    session->surveys = configure->survey;
    session->task_root = cs_strdup(configure->task_root);
    CS_TRY(cs_site_config_read(cs_wire_bytes(configure->site_config), "site.yaml", configure->site_config_dir,
                               &session->config));
    if (plan.size > 0)
        CS_TRY(cs_plan_read(plan, "plan", &session->plan));
    session->plan_hash = cs_sha256(plan);
    if (configure->personal[0] != '\0')
        session->personal = cs_strdup(configure->personal);
    if (!is_alignment(session)) /* an alignment has no tensors, and libtorch takes its time to start */
        CS_TRY(learner_start(session));

    Consilium__V1__WorkerReady ready = CONSILIUM__V1__WORKER_READY__INIT;
    CS_TRY(confine(session, &ready, arena));
    CS_FAILPOINT("worker.confined");
    describe_all(session, &ready, arena);
    ready.build = (char *)(uintptr_t)build_of(session);

    from_worker message = CONSILIUM__V1__FROM_WORKER__INIT;
    message.body_case = CONSILIUM__V1__FROM_WORKER__BODY_READY;
    message.ready = &ready;
    cs_log(CS_LOG_INFO, "worker", "ready", CS_S("confinement", ready.confinement), CS_S("build", ready.build));
    return cs_frame_write_message(session->fd, &message.base);
}

/* ---- tasks ---- */

/* Is there word from the agent? CS_CANCELLED when this task, or the whole worker, is to end. */
static cs_status look_for_cancel(struct session *session)
{
    struct pollfd ready = {.fd = session->fd, .events = POLLIN};
    session->look_at_ms = cs_clock_monotonic_ms();
    if (poll(&ready, 1, 0) <= 0)
        return CS_OK;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(MESSAGE_ARENA_BYTES);
    const to_worker *message = NULL;
    cs_status status = receive(session, arena, &message);
    if (session->is_over)
        return cs_fail(CS_CANCELLED, "the agent has gone");
    CS_TRY(status);
    if (message->body_case != CONSILIUM__V1__TO_WORKER__BODY_CANCEL || message->cancel->key == NULL)
        return cs_fail(CS_STATE, "the agent sent another message while a task runs");
    const Consilium__V1__TaskKey *key = message->cancel->key;
    if (strcmp(key->job, session->running->job) != 0 || key->round != session->running->round ||
        strcmp(key->phase, session->running->phase) != 0)
        return CS_OK; /* a task that is over */
    return cs_fail(CS_CANCELLED, "the task was cancelled");
}

static cs_status on_points(void *self, uint64_t done, uint64_t total)
{
    struct session *session = self;
    const int64_t now_ms = cs_clock_monotonic_ms();
    if (now_ms - session->look_at_ms >= LOOK_FOR_CANCEL_MS)
        CS_TRY(look_for_cancel(session));
    if (done < total && now_ms - session->progress_at_ms < PROGRESS_EVERY_MS)
        return CS_OK;
    const double seconds = (double)(now_ms - session->step_at_ms) / 1000;
    return send_progress(session, CONSILIUM__V1__STAGE__STAGE_ALIGNING, done, total, 0,
                         seconds > 0 ? (double)done / seconds : 0);
}

static cs_status do_alignment(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                              cs_arena *arena, Consilium__V1__WorkerDone *done)
{
    if (session->aligner == NULL)
        return cs_fail(CS_INVALID, "%s", session->data_error != NULL ? session->data_error : "no personal folder");
    char **inputs = cs_arena_alloc(arena, (task->n_inputs + 1) * sizeof *inputs);
    for (size_t i = 0; i < task->n_inputs; i++)
        inputs[i] = task->inputs[i]->name;
    const cs_aligner_task step = {.phase = task->key->phase,
                                  .participants = task->participants,
                                  .participants_count = task->n_participants,
                                  .seed = cs_wire_bytes(task->seed),
                                  .folder = folder,
                                  .inputs = inputs,
                                  .inputs_count = task->n_inputs,
                                  .progress = on_points,
                                  .self = session};
    cs_aligner_result made;
    session->step_at_ms = cs_clock_monotonic_ms();
    CS_TRY(cs_aligner_run(session->aligner, &step, &made));
    done->outputs = cs_arena_alloc(arena, (made.outputs_count + 1) * sizeof *done->outputs);
    for (size_t i = 0; i < made.outputs_count; i++) {
        Consilium__V1__NamedFile *output = cs_arena_alloc(arena, sizeof *output);
        consilium__v1__named_file__init(output);
        output->name = output->file = cs_arena_strdup(arena, made.outputs[i]);
        done->outputs[done->n_outputs++] = output;
    }
    done->result->samples = made.patients;
    return CS_OK;
}

static cs_status do_task(struct session *session, const Consilium__V1__WorkerTask *task, cs_arena *arena,
                         Consilium__V1__WorkerDone *done)
{
    CS_FAILPOINT("worker.task");
    if (session->plan == NULL)
        return cs_fail(CS_STATE, "this worker was started without a plan, only to describe the data");
    CS_AUTO(cs_string) folder = cs_path_join(session->task_root, task->folder);
    return is_alignment(session) ? do_alignment(session, task, folder, arena, done)
                                 : do_learning(session, task, folder, arena, done);
}

static cs_status run_task(struct session *session, const Consilium__V1__WorkerTask *task, cs_arena *arena)
{
    if (task->key == NULL)
        return cs_fail(CS_INVALID, "the agent sent a task without a name");
    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.key = task->key;
    result.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_DONE;
    result.is_deterministic = true;
    result.build = (char *)(uintptr_t)build_of(session);
    Consilium__V1__WorkerDone done = CONSILIUM__V1__WORKER_DONE__INIT;
    done.result = &result;

    session->running = task->key;
    cs_status status = do_task(session, task, arena, &done);
    if (status == CS_OK)
        status = cs_failpoint("worker.done");
    session->running = NULL;
    if (session->is_over)
        return CS_OK;
    if (status != CS_OK) {
        cs_log(CS_LOG_WARN, "worker", "task failed", CS_S("job", task->key->job), CS_I("round", task->key->round),
               CS_S("phase", task->key->phase), CS_S("reason", cs_error_text()));
        return send_failed(session, task->key, status);
    }
    from_worker message = CONSILIUM__V1__FROM_WORKER__INIT;
    message.body_case = CONSILIUM__V1__FROM_WORKER__BODY_DONE;
    message.done = &done;
    return cs_frame_write_message(session->fd, &message.base);
}

/* ---- what learns ---- */

#ifndef CS_ALIGNER_ONLY

static void learner_clear(struct session *session)
{
    cs_learner_free(session->learner);
}

static cs_status learner_start(const struct session *session)
{
    return cs_tensor_start(session->config->threads);
}

static const char *learner_build(const struct session *session)
{
    return cs_learner_build(session->config->threads);
}

/* The learner for the plan's data set. What does not fit becomes data_error: the site is told, the worker lives on. */
static cs_status load(struct session *session, const cs_site_dataset *dataset, cs_table **ret)
{
    if (session->plan == NULL)
        return cs_table_describe(dataset, session->config->folder, ret);
    cs_table *table = NULL;
    CS_TRY(cs_table_load(session->plan, dataset, session->config->folder, &table));
    CS_TRY(cs_learner_new(session->plan, &session->plan_hash, session->site, table, &session->learner));
    return CS_OK;
}

/* Every row of it, also where the table as a whole does not fit. The kinds have the same order on both sides. */
static void survey(const struct session *session, const cs_site_dataset *dataset, const cs_table *table,
                   Consilium__V1__DatasetDescription *description, cs_arena *arena)
{
    CS_AUTO_PTR(cs_survey) survey = NULL;
    if (session->plan != NULL && session->plan->dataset.kind != CS_DATASET_TABLE)
        return; /* persons to be found elsewhere: no numbers to look at */
    if (cs_survey_make(session->plan, dataset, session->config->folder, &survey) != CS_OK)
        return; /* no CSV at all: description->error says so */
    if (table != NULL && session->plan != NULL)
        cs_survey_add_table(survey, table);
    description->remarks = cs_arena_alloc(arena, CS_MAX(survey->count, 1) * sizeof *description->remarks);
    for (size_t i = 0; i < survey->count; i++) {
        Consilium__V1__DataRemark *remark = cs_arena_alloc(arena, sizeof *remark);
        consilium__v1__data_remark__init(remark);
        remark->kind = (Consilium__V1__DataRemark__Kind)(survey->remarks[i].kind + 1);
        remark->detail = cs_arena_strdup(arena, survey->remarks[i].detail);
        remark->count = survey->remarks[i].count;
        description->remarks[description->n_remarks++] = remark;
    }
}

static void describe_table(struct session *session, const char *name, const cs_site_dataset *dataset, cs_arena *arena,
                           Consilium__V1__DatasetDescription *description)
{
    CS_AUTO_PTR(cs_table) described = NULL;
    cs_status status = dataset != NULL ? load(session, dataset, &described)
                                       : cs_fail(CS_NOT_FOUND, "the site's configuration has no data set '%s'", name);
    if (status != CS_OK) {
        description->error = cs_arena_strdup(arena, cs_error_text());
        if (session->plan != NULL)
            session->data_error = cs_strdup(cs_error_text());
        if (session->surveys && dataset != NULL)
            survey(session, dataset, NULL, description, arena);
        return;
    }
    const cs_table *table = session->plan != NULL ? cs_learner_table(session->learner) : described;
    description->rows = table->rows;
    description->dropped = table->dropped;
    description->train = table->parts[CS_PART_TRAIN];
    description->valid = table->parts[CS_PART_VALID];
    description->test = table->parts[CS_PART_TEST];
    description->positive = table->classes == 2 ? table->class_rows[1] : 0;
    description->class_rows = cs_arena_alloc(arena, table->classes * sizeof *description->class_rows);
    for (size_t i = 0; i < table->classes; i++)
        description->class_rows[description->n_class_rows++] = table->class_rows[i];
    if (session->surveys)
        survey(session, dataset, table, description, arena);
}

/* A plain name inside the task's folder; NULL, with the sentence, for anything else. Free with cs_free. */
static cs_status file_in(const char *folder, const char *file, char **ret)
{
    if (file[0] == '\0' || strchr(file, '/') != NULL || strcmp(file, ".") == 0 || strcmp(file, "..") == 0)
        return cs_fail(CS_INVALID, "the name of a task's file is not a plain file name");
    *ret = cs_path_join(folder, file);
    return CS_OK;
}

/* CS_NOT_FOUND when the task brings no such input. */
static cs_status input_path(const Consilium__V1__WorkerTask *task, const char *folder, const char *name, char **ret)
{
    for (size_t i = 0; i < task->n_inputs; i++) {
        if (strcmp(task->inputs[i]->name, name) == 0)
            return file_in(folder, task->inputs[i]->file, ret);
    }
    return cs_fail(CS_NOT_FOUND, "the task '%s' brings no input '%s'", task->key->phase, name);
}

/* Names one more output; returns its path. Free with cs_free. */
static char *output_path(const char *folder, const char *name, cs_arena *arena, Consilium__V1__WorkerDone *done)
{
    Consilium__V1__NamedFile *output = cs_arena_alloc(arena, sizeof *output);
    consilium__v1__named_file__init(output);
    output->name = cs_arena_strdup(arena, name);
    output->file = cs_arena_format(arena, "%s.safetensors", name);
    if (done->outputs == NULL)
        done->outputs = cs_arena_alloc(arena, OUTPUTS_MAX * sizeof *done->outputs);
    done->outputs[done->n_outputs++] = output;
    return cs_path_join(folder, output->file);
}

static cs_status on_step(void *self, uint64_t done, uint64_t total, double mean_loss)
{
    struct session *session = self;
    const int64_t now_ms = cs_clock_monotonic_ms();
    if (now_ms - session->look_at_ms >= LOOK_FOR_CANCEL_MS)
        CS_TRY(look_for_cancel(session));
    if (done == 1 || done == total || now_ms - session->progress_at_ms >= PROGRESS_EVERY_MS)
        return send_progress(session, CONSILIUM__V1__STAGE__STAGE_TRAINING, done, total, mean_loss, 0);
    return CS_OK;
}

/* The model and, where the plan needs them, the summed statistics that the task brings. */
static cs_status take_inputs(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                             cs_arena *arena, Consilium__V1__TaskResult *result, cs_parameters **ret_model)
{
    CS_AUTO(cs_string) model_path = NULL;
    CS_TRY(input_path(task, folder, "model", &model_path));
    cs_hash hash;
    CS_TRY(cs_sha256_file(model_path, &hash, NULL));
    result->base_sha256 = cs_wire_data(cs_arena_copy(arena, hash.bytes, sizeof hash.bytes), sizeof hash.bytes);

    if (cs_plan_needs_statistics(session->plan)) {
        CS_AUTO(cs_string) statistics_path = NULL;
        cs_moments *moments = NULL;
        CS_TRY(input_path(task, folder, "statistics", &statistics_path));
        CS_TRY(cs_moments_load(statistics_path, session->plan, &moments));
        cs_learner_use_moments(session->learner, moments);
    }
    return cs_parameters_load(model_path, ret_model);
}

static cs_status do_initialize(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                               cs_arena *arena, Consilium__V1__WorkerDone *done)
{
    (void)task;
    CS_AUTO_PTR(cs_parameters) parameters = NULL;
    CS_TRY(cs_learner_initialize(session->plan, &session->plan_hash, &parameters));
    CS_AUTO(cs_string) path = output_path(folder, "model", arena, done);
    return cs_parameters_save(parameters, path, NULL, 0);
}

static cs_status do_statistics(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                               cs_arena *arena, Consilium__V1__WorkerDone *done)
{
    (void)task;
    CS_AUTO_PTR(cs_moments) moments = cs_learner_moments(session->learner);
    CS_AUTO(cs_string) path = output_path(folder, "statistics", arena, done);
    done->result->samples = (uint64_t)moments->count;
    return cs_moments_save(moments, path);
}

/* Both in one order: metrics as the plan has them, evaluations as they were made. */
static void report_evaluations(const cs_evaluation *evaluations, size_t count, cs_arena *arena,
                               Consilium__V1__TaskResult *result)
{
    result->evaluations = cs_arena_alloc(arena, CS_MAX(count, 1) * sizeof *result->evaluations);
    result->n_evaluations = count;
    for (size_t i = 0; i < count; i++) {
        Consilium__V1__Evaluation *evaluation = cs_arena_alloc(arena, sizeof *evaluation);
        consilium__v1__evaluation__init(evaluation);
        evaluation->model = cs_arena_strdup(arena, evaluations[i].model);
        evaluation->split = cs_arena_strdup(arena, cs_part_name(evaluations[i].part));
        evaluation->standardize = cs_arena_strdup(arena, cs_standardize_name(evaluations[i].standardize));
        evaluation->n_metrics = evaluations[i].metrics_count;
        evaluation->metrics = cs_arena_alloc(arena, CS_METRICS_MAX * sizeof *evaluation->metrics);
        for (size_t k = 0; k < evaluation->n_metrics; k++) {
            const cs_metric_value *value = &evaluations[i].metrics[k];
            Consilium__V1__Metric *metric = cs_arena_alloc(arena, sizeof *metric);
            consilium__v1__metric__init(metric);
            metric->name = cs_arena_strdup(arena, cs_metric_name(value->metric));
            metric->value = value->value;
            metric->sum = value->sum;
            metric->count = value->count;
            metric->pools = value->pools;
            metric->is_defined = value->is_defined;
            metric->n_parts = value->parts_count;
            metric->parts = cs_arena_alloc(arena, CS_MAX(value->parts_count, 1) * sizeof *metric->parts);
            memcpy(metric->parts, value->parts, value->parts_count * sizeof *metric->parts);
            evaluation->metrics[k] = metric;
        }
        result->evaluations[i] = evaluation;
    }
}

/* The global model, on validation rows where there are some, and on test rows. */
static cs_status evaluate_global(struct session *session, const cs_parameters *model, cs_evaluation *ret, size_t *count)
{
    if (cs_learner_validates(session->learner))
        CS_TRY(cs_learner_evaluate(session->learner, model, "global", CS_PART_VALID, ret, count));
    return cs_learner_evaluate(session->learner, model, "global", CS_PART_TEST, ret, count);
}

/* What the optimizer remembers of this site's round before; none in the first, and where the plan forgets it. */
static cs_status take_memory(const Consilium__V1__WorkerTask *task, const char *folder, cs_parameters **ret)
{
    CS_AUTO(cs_string) path = NULL;
    const cs_status found = input_path(task, folder, "optimizer", &path);
    if (found == CS_NOT_FOUND)
        return CS_OK;
    CS_TRY(found);
    return cs_parameters_load(path, ret);
}

static cs_status do_train(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                          cs_arena *arena, Consilium__V1__WorkerDone *done)
{
    CS_AUTO_PTR(cs_parameters) base = NULL;
    CS_TRY(take_inputs(session, task, folder, arena, done->result, &base));
    cs_evaluation evaluations[CS_EVALUATIONS_MAX];
    size_t evaluations_count = 0;
    /* A model that had a phase of its own is not evaluated twice. */
    if (task->key->round <= 1 || !cs_plan_evaluates(session->plan, task->key->round - 1))
        CS_TRY(evaluate_global(session, base, evaluations, &evaluations_count));
    CS_AUTO_PTR(cs_parameters) memory = NULL;
    CS_TRY(take_memory(task, folder, &memory));

    const cs_training_watch watch = {on_step, session};
    cs_training_result trained = {0};
    CS_TRY(cs_learner_train(session->learner, base, memory, task->key->round, &watch, &trained));
    CS_AUTO_PTR(cs_parameters) local = trained.parameters;
    CS_AUTO_PTR(cs_parameters) kept = trained.memory;
    CS_TRY(cs_learner_evaluate(session->learner, local, "local", CS_PART_TEST, evaluations, &evaluations_count));

    CS_AUTO_PTR(cs_parameters) update = NULL;
    CS_TRY(cs_parameters_subtract(local, base, &update));
    CS_AUTO(cs_string) path = output_path(folder, "update", arena, done);
    CS_TRY(cs_parameters_save(update, path, NULL, 0));
    if (kept != NULL) {
        CS_AUTO(cs_string) kept_path = output_path(folder, "optimizer", arena, done);
        CS_TRY(cs_parameters_save(kept, kept_path, NULL, 0));
    }
    done->result->samples = trained.samples;
    done->result->steps = trained.steps;
    done->result->loss = trained.mean_loss;
    report_evaluations(evaluations, evaluations_count, arena, done->result);
    return CS_OK;
}

static cs_status do_evaluate(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                             cs_arena *arena, Consilium__V1__WorkerDone *done)
{
    CS_AUTO_PTR(cs_parameters) model = NULL;
    CS_TRY(take_inputs(session, task, folder, arena, done->result, &model));
    const cs_table *table = cs_learner_table(session->learner);
    const uint64_t rows = table->parts[CS_PART_VALID] + table->parts[CS_PART_TEST];
    CS_TRY(send_progress(session, CONSILIUM__V1__STAGE__STAGE_EVALUATING, 0, rows, 0, 0));
    cs_evaluation evaluations[CS_EVALUATIONS_MAX];
    size_t count = 0;
    CS_TRY(evaluate_global(session, model, evaluations, &count));
    report_evaluations(evaluations, count, arena, done->result);
    return CS_OK;
}

static const struct {
    const char *phase;
    task_work work;
    bool needs_data;
} works[] = {{"initialize", do_initialize, false},
             {"statistics", do_statistics, true},
             {"train", do_train, true},
             {"evaluate", do_evaluate, true}};

static cs_status do_learning(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                             cs_arena *arena, Consilium__V1__WorkerDone *done)
{
    for (size_t i = 0; i < CS_COUNT(works); i++) {
        if (strcmp(works[i].phase, task->key->phase) != 0)
            continue;
        if (works[i].needs_data && session->learner == NULL)
            return cs_fail(CS_INVALID, "%s", session->data_error);
        return works[i].work(session, task, folder, arena, done);
    }
    return cs_fail(CS_UNIMPLEMENTED, "this worker knows no phase '%s'", task->key->phase);
}

#else

static cs_status refuse(void)
{
    return cs_fail(CS_UNIMPLEMENTED, "this program only aligns: the plan wants consilium-worker");
}

static void learner_clear(struct session *session)
{
    (void)session;
}

static cs_status learner_start(const struct session *session)
{
    (void)session;
    return refuse();
}

static const char *learner_build(const struct session *session)
{
    (void)session;
    return "";
}

static void describe_table(struct session *session, const char *name, const cs_site_dataset *dataset, cs_arena *arena,
                           Consilium__V1__DatasetDescription *description)
{
    (void)session;
    (void)name;
    (void)dataset;
    CS_IGNORE(refuse(), "leaves the sentence only");
    description->error = cs_arena_strdup(arena, cs_error_text());
}

static cs_status do_learning(struct session *session, const Consilium__V1__WorkerTask *task, const char *folder,
                             cs_arena *arena, Consilium__V1__WorkerDone *done)
{
    (void)session;
    (void)task;
    (void)folder;
    (void)arena;
    (void)done;
    return refuse();
}

#endif

/* ---- the session ---- */

static cs_status serve_one(struct session *session)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(MESSAGE_ARENA_BYTES);
    const to_worker *message = NULL;
    cs_status status = receive(session, arena, &message);
    if (session->is_over)
        return CS_OK;
    CS_TRY(status);
    switch (message->body_case) {
    case CONSILIUM__V1__TO_WORKER__BODY_CONFIGURE:
        if (session->config != NULL)
            return cs_fail(CS_STATE, "the worker was configured twice");
        return configure(session, message->configure, arena);
    case CONSILIUM__V1__TO_WORKER__BODY_TASK:
        if (session->config == NULL)
            return cs_fail(CS_STATE, "the worker got a task before it was configured");
        return run_task(session, message->task, arena);
    case CONSILIUM__V1__TO_WORKER__BODY_CANCEL:
        return CS_OK; /* the task has ended before its cancellation came */
    default:
        return cs_fail(CS_INVALID, "the agent sent a message that this worker does not know");
    }
}

cs_status cs_worker_session(int fd)
{
    struct session session __attribute__((cleanup(session_clear))) = {.fd = fd};
    CS_TRY(cs_crypto_start()); /* an alignment's secret is made here */
    while (!session.is_over) {
        cs_status status = serve_one(&session);
        if (status != CS_OK && !session.is_over) {
            CS_AUTO(cs_string) reason = cs_strdup(cs_error_text());
            CS_IGNORE(send_failed(&session, NULL, status), "the sentence is logged as well");
            return cs_fail(status, "%s", reason);
        }
    }
    return CS_OK;
}
