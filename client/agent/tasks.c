/* Tasks from assignment to acknowledged result. Agent thread only. An assignment is kept in memory: the coordinator
 * assigns again after every connection; a result is durable before any byte of it leaves. */
#include "client/agent/internal.h"

#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "common/base/random.h"

#include <stdio.h>
#include <string.h>

#define TASK_ARENA_BYTES    (8 * 1024 * 1024)
#define RESTORE_ARENA_BYTES 0 /* our own database */
#define RECORD_TEXT_MAX     512

/* ---- the list ---- */

void task_clear_sealing(struct task *task)
{
    if (task->sealing != NULL)
        cs_crypto_wipe(task->sealing, sizeof(*task->sealing));
    cs_free(task->sealing);
    task->sealing = NULL;
}

static void free_task(struct task *task)
{
    task_clear_sealing(task);
    cs_arena_free(task->arena);
    cs_link_free(task->link);
    cs_buffer_clear(&task->result);
    cs_free(task->job);
    cs_free(task->phase);
    cs_free(task->name);
    cs_free(task);
}

static struct task *new_task(cs_agent *agent, const char *job, uint32_t round, const char *phase)
{
    struct task *task = cs_alloc(sizeof(*task));
    task->agent = agent;
    task->job = cs_strdup(job);
    task->round = round;
    task->phase = cs_strdup(phase);
    task->name = cs_format("%s/%u/%s", job, round, phase);
    task->progress_ms = cs_clock_monotonic_ms();
    atomic_init(&task->is_cancelled, false);
    task->next = agent->tasks;
    agent->tasks = task;
    return task;
}

static struct task *find_task(cs_agent *agent, const Consilium__V1__TaskKey *key)
{
    for (struct task *task = agent->tasks; task != NULL; task = task->next)
        if (!task->is_dropped && task->round == key->round && strcmp(task->job, key->job) == 0 &&
            strcmp(task->phase, key->phase) == 0)
            return task;
    return NULL;
}

static void forget_task(cs_agent *agent, struct task *task)
{
    struct task **at = &agent->tasks;
    while (*at != task)
        at = &(*at)->next;
    *at = task->next;
    free_task(task);
}

/* Stops what is under way; the task goes when its lane brings it back. */
static void drop_task(cs_agent *agent, struct task *task)
{
    if (!task->is_in_flight) {
        forget_task(agent, task);
        return;
    }
    task->is_dropped = true;
    atomic_store(&task->is_cancelled, true);
    if (task->step == STEP_RUN) {
        cs_supervisor_cancel(agent->supervisor, task->job);
        task->kill_at_ms = cs_clock_monotonic_ms() + CS_WORKER_GRACE_MS;
    }
}

bool tasks_in_flight(const cs_agent *agent)
{
    for (const struct task *task = agent->tasks; task != NULL; task = task->next)
        if (task->is_in_flight)
            return true;
    return false;
}

int64_t tasks_due(const cs_agent *agent, int64_t until_ms)
{
    for (const struct task *task = agent->tasks; task != NULL; task = task->next) {
        if (!task->is_in_flight && task->due_ms > 0)
            until_ms = CS_MIN(until_ms, task->due_ms);
        if (task->kill_at_ms > 0)
            until_ms = CS_MIN(until_ms, task->kill_at_ms);
    }
    return until_ms;
}

size_t tasks_held(cs_agent *agent, cs_arena *arena, Consilium__V1__TaskKey ***ret)
{
    size_t count = 0;
    for (const struct task *task = agent->tasks; task != NULL; task = task->next)
        count++;
    *ret = cs_arena_alloc(arena, (count + 1) * sizeof(**ret));
    count = 0;
    for (const struct task *task = agent->tasks; task != NULL; task = task->next) {
        if (task->is_dropped || task->step == STEP_ACKNOWLEDGED)
            continue;
        Consilium__V1__TaskKey *key = cs_arena_alloc(arena, sizeof(*key));
        consilium__v1__task_key__init(key);
        key->job = task->job;
        key->round = task->round;
        key->phase = task->phase;
        (*ret)[count++] = key;
    }
    return count;
}

void tasks_free(cs_agent *agent)
{
    while (agent->tasks != NULL)
        forget_task(agent, agent->tasks);
}

/* ---- results ---- */

static cs_status unpack_result(const cs_buffer *packed, cs_arena *arena, Consilium__V1__TaskResult **ret)
{
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__task_result__descriptor, cs_buffer_view(packed), arena, &message));
    *ret = (Consilium__V1__TaskResult *)message;
    return CS_OK;
}

static bool send_result(cs_agent *agent, Consilium__V1__TaskResult *result)
{
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_RESULT;
    message.result = result;
    return agent_send(agent, &message);
}

static void wait_and_repeat(struct task *task)
{
    const int64_t cap_ms = task->step == STEP_RUN ? CS_WORKER_RETRY_CAP_MS : CS_RETRY_CAP_MS;
    task->due_ms = cs_clock_monotonic_ms() + cs_backoff_ms(task->repeats, CS_RETRY_BASE_MS, cap_ms);
    task->repeats++;
}

static void send_stored(cs_agent *agent, struct task *task)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(TASK_ARENA_BYTES);
    Consilium__V1__TaskResult *result = NULL;
    if (unpack_result(&task->result, arena, &result) != CS_OK) {
        cs_log(CS_LOG_ERROR, "agent", "stored result is unreadable", CS_S("task", task->name),
               CS_S("reason", cs_error_text()));
        return;
    }
    if (task_record_leaving(task, result) != CS_OK) { /* recorded before the upload; here only after a restart */
        cs_log(CS_LOG_ERROR, "agent", "transcript not written", CS_S("task", task->name),
               CS_S("reason", cs_error_text()));
        wait_and_repeat(task);
        return;
    }
    if (cs_failpoint("agent.result.send") == CS_OK && send_result(agent, result))
        task->sent_in = agent->session_number;
}

/* For an assignment that is not begun: nothing of the site is in the answer, so it is made again if asked again. */
static void answer_failed(cs_agent *agent, const Consilium__V1__TaskKey *key, const char *reason)
{
    char text[CS_REASON_MAX];
    text_for_coordinator(reason, text);
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", key->job);
    cs_json_uint(&json, "round", key->round);
    cs_json_text(&json, "phase", key->phase);
    cs_json_text(&json, "reason", text);
    cs_json_end(&json, '}');
    CS_AUTO(cs_string) record = cs_format("refused:%s/%u/%s", key->job, key->round, key->phase);
    agent_record(agent, "task_refused", record, &fields);

    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.key = (Consilium__V1__TaskKey *)(uintptr_t)key;
    result.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_FAILED;
    result.reason = text;
    send_result(agent, &result);
}

/* What an acknowledged task of an older round held goes with the commit that lets its result go. */
static void note_leaving(cs_agent *agent, const struct task *task)
{
    for (size_t i = 0; i < task->blobs_count && agent->leaving_count < CS_COUNT(agent->leaving); i++)
        agent->leaving[agent->leaving_count++] = task->blobs[i];
}

/* At once and not with the next collection: a round of a large model would otherwise find the disk, and the page cache,
 * full of the ones before. */
static void remove_left(cs_agent *agent)
{
    for (size_t i = 0; i < agent->leaving_count && !tasks_in_flight(agent); i++) {
        const cs_hash *blob = &agent->leaving[i];
        if (!agent_needs_blob(agent, blob) && cs_blobs_remove(agent->blobs, blob) != CS_OK)
            cs_log(CS_LOG_WARN, "agent", "blob not removed", CS_S("reason", cs_error_text()));
    }
    agent->leaving_count = 0; /* what stays is the collection's */
}

/* Durable before anything of it leaves. On a full disk the step is tried again. */
static cs_status store_result(cs_agent *agent, struct task *task)
{
    CS_FAILPOINT("agent.result.store");
    const cs_result_record record = {.job = task->job,
                                     .phase = task->phase,
                                     .round = task->round,
                                     .packed = cs_buffer_view(&task->result),
                                     .kept = task->keeps ? cs_phase_rule_find(task->phase)->kept : NULL,
                                     .kept_blob = task->keeps_blob};
    CS_TRY(cs_records_put_result(agent->records, &record, task->blobs, task->blobs_count));
    CS_FAILPOINT("agent.result.stored");
    remove_left(agent);
    *(task->has_failed ? &agent->counts.tasks_failed : &agent->counts.tasks_done) += 1;
    cs_arena_free(task->arena);
    task->arena = NULL;
    task->assignment = NULL;
    task->plan = (cs_bytes){0};
    task->step = STEP_UPLOAD;
    task->repeats = 0;
    task->due_ms = 0;
    return CS_OK;
}

static void make_failed(struct task *task)
{
    task->has_failed = true;
    char reason[CS_REASON_MAX];
    text_for_coordinator(task->sentence, reason);
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = task->job;
    key.round = task->round;
    key.phase = task->phase;
    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.key = &key;
    result.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_FAILED;
    result.reason = reason;
    cs_buffer_reset(&task->result);
    cs_wire_pack(&result.base, &task->result);
    task->blobs_count = 0;
    task->keeps = false; /* what was kept before stays as it is */
}

cs_status tasks_restore(cs_agent *agent)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(RESTORE_ARENA_BYTES);
    cs_result_record *results = NULL;
    size_t count = 0;
    CS_TRY(cs_records_list_results(agent->records, arena, &results, &count));
    for (size_t i = 0; i < count; i++) {
        struct task *task = new_task(agent, results[i].job, results[i].round, results[i].phase);
        cs_buffer_append(&task->result, results[i].packed.data, results[i].packed.size);
        task->step = results[i].is_acknowledged ? STEP_ACKNOWLEDGED : STEP_UPLOAD;
    }
    return CS_OK;
}

/* ---- assignments ---- */

static cs_status check_inputs(const Consilium__V1__TaskAssignment *assignment, cs_hash *ret_blobs)
{
    if (assignment->n_inputs > CS_TASK_BLOBS_MAX)
        return cs_fail(CS_EXHAUSTED, "the task has %zu inputs, the most is %d", assignment->n_inputs,
                       CS_TASK_BLOBS_MAX);
    for (size_t i = 0; i < assignment->n_inputs; i++) {
        const Consilium__V1__Blob *blob = assignment->inputs[i];
        /* It becomes the name of a file in the task's folder. */
        CS_TRY(cs_name_check(blob->name, "input"));
        CS_TRY(cs_hash_from(cs_wire_bytes(blob->sha256), blob->name, &ret_blobs[i]));
        for (size_t other = 0; other < i; other++)
            if (strcmp(assignment->inputs[other]->name, blob->name) == 0)
                return cs_fail(CS_INVALID, "the task has two inputs '%s'", blob->name);
    }
    return CS_OK;
}

static cs_status check_participants(const cs_agent *agent, const Consilium__V1__TaskAssignment *assignment,
                                    const cs_job_record *job)
{
    if (assignment->n_participants < job->sites_minimum)
        return cs_fail(CS_DENIED, "the round has %zu participants, the approved plan says at least %u",
                       assignment->n_participants, job->sites_minimum);
    for (size_t i = 0; i < assignment->n_participants; i++)
        if (strcmp(assignment->participants[i], agent->identity.site) == 0)
            return CS_OK;
    return cs_fail(CS_DENIED, "site '%s' is not among the participants", agent->identity.site);
}

/* A round goes up only, whatever the coordinator has forgotten. */
static cs_status check_round(const cs_agent *agent, const cs_job_record *job, uint32_t round)
{
    int64_t highest = job->highest_round;
    for (const struct task *task = agent->tasks; task != NULL; task = task->next)
        if (strcmp(task->job, job->job) == 0)
            highest = CS_MAX(highest, (int64_t)task->round);
    if ((int64_t)round < highest)
        return cs_fail(CS_DENIED, "round %u of job '%s' is over here: round %lld was begun", round, job->job,
                       (long long)highest);
    return CS_OK;
}

static cs_status check_job(const cs_agent *agent, const Consilium__V1__TaskAssignment *assignment,
                           const cs_job_record *job)
{
    if (job->state >= CONSILIUM__V1__JOB_STATE__JOB_COMPLETE)
        return cs_fail(CS_DENIED, "job '%s' has ended", job->job);
    if (job->decision != CONSILIUM__V1__DECISION__DECISION_APPROVED)
        return cs_fail(CS_DENIED, "the plan of job '%s' is not approved here", job->job);
    cs_hash hash;
    CS_TRY(cs_hash_from(cs_wire_bytes(assignment->plan_sha256), "plan_sha256", &hash));
    if (!cs_hash_equal(&hash, &job->plan))
        return cs_fail(CS_DENIED, "job '%s' was approved with another plan", job->job);
    return check_round(agent, job, assignment->key->round);
}

static cs_status copy_assignment(struct task *task, const Consilium__V1__TaskAssignment *assignment)
{
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(&assignment->base, &packed);
    ProtobufCMessage *copy = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__task_assignment__descriptor, cs_buffer_view(&packed), task->arena, &copy));
    task->assignment = (const Consilium__V1__TaskAssignment *)copy;
    return CS_OK;
}

/* What the site's last task of this phase left. Nothing that the coordinator sends can stand in its place. */
static cs_status find_kept(cs_agent *agent, struct task *task)
{
    const char *name = cs_phase_rule_find(task->phase)->kept;
    if (name == NULL)
        return CS_OK;
    for (size_t i = 0; i < task->assignment->n_inputs; i++)
        if (strcmp(task->assignment->inputs[i]->name, name) == 0)
            return cs_fail(CS_DENIED, "the task brings an input '%s', which only the site itself has", name);
    const cs_status found = cs_records_find_kept(agent->records, task->job, name, task->round, &task->kept);
    task->has_kept = found == CS_OK;
    return found == CS_NOT_FOUND ? CS_OK : found;
}

static size_t count_open(const cs_agent *agent)
{
    size_t count = 0;
    for (const struct task *task = agent->tasks; task != NULL; task = task->next)
        count += task->step != STEP_ACKNOWLEDGED;
    return count;
}

/* Tasks of rounds that are over: their work is stopped; a result that was made is still delivered. */
static void drop_superseded(cs_agent *agent, const char *job, uint32_t round)
{
    for (struct task *task = agent->tasks, *next; task != NULL; task = next) {
        next = task->next;
        if (strcmp(task->job, job) == 0 && task->round < round && !task->is_dropped &&
            (task->step < STEP_UPLOAD || task->step == STEP_ACKNOWLEDGED)) {
            if (task->step == STEP_ACKNOWLEDGED)
                note_leaving(agent, task);
            drop_task(agent, task);
        }
    }
}

static cs_status take_assignment(cs_agent *agent, const Consilium__V1__TaskAssignment *assignment)
{
    const Consilium__V1__TaskKey *key = assignment->key;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(TASK_ARENA_BYTES);
    cs_job_record job;
    cs_bytes plan = {0};
    cs_hash blobs[CS_TASK_BLOBS_MAX];
    if (cs_phase_rule_find(key->phase) == NULL)
        return cs_fail(CS_UNIMPLEMENTED, "this site's software has no phase '%.64s'", key->phase);
    CS_TRY(cs_records_find_job(agent->records, key->job, arena, &job));
    CS_TRY(check_job(agent, assignment, &job));
    CS_TRY(check_inputs(assignment, blobs));
    CS_TRY(cs_records_find_plan(agent->records, &job.plan, arena, &plan));
    CS_TRY(check_participants(agent, assignment, &job));
    if (count_open(agent) >= CS_OPEN_TASKS_MAX)
        return cs_fail(CS_EXHAUSTED, "this site has %d open tasks already", CS_OPEN_TASKS_MAX);
    drop_superseded(agent, key->job, key->round);

    struct task *task = new_task(agent, key->job, key->round, key->phase);
    task->arena = CS_TAKE(arena);
    task->plan = plan;
    memcpy(task->blobs, blobs, assignment->n_inputs * sizeof(blobs[0]));
    task->blobs_count = assignment->n_inputs;
    cs_status status = copy_assignment(task, assignment);
    if (status == CS_OK)
        status = find_kept(agent, task);
    if (status != CS_OK)
        forget_task(agent, task);
    return status;
}

void tasks_assign(cs_agent *agent, const Consilium__V1__TaskAssignment *assignment)
{
    if (assignment->key == NULL || cs_name_check(assignment->key->job, "job") != CS_OK) {
        cs_log(CS_LOG_WARN, "agent", "assignment without a usable key");
        return;
    }
    struct task *known = find_task(agent, assignment->key);
    if (known != NULL) {
        /* Asked again, for the coordinator does not know our answer: the same one. */
        if (known->step == STEP_ACKNOWLEDGED) {
            known->step = STEP_UPLOAD;
            known->is_acknowledged = false;
            atomic_store(&known->is_cancelled, false);
        }
        known->sent_in = 0;
    } else if (take_assignment(agent, assignment) != CS_OK) {
        cs_log(CS_LOG_WARN, "agent", "task refused", CS_S("job", assignment->key->job),
               CS_I("round", assignment->key->round), CS_S("phase", assignment->key->phase),
               CS_S("reason", cs_error_text()));
        CS_AUTO(cs_string) reason = cs_strdup(cs_error_text());
        answer_failed(agent, assignment->key, reason);
    }
    tasks_advance(agent);
}

/* ---- steps ---- */

static void give(cs_agent *agent, struct task *task, struct lane *lane)
{
    if (lane == &agent->transfers)
        task->link = cs_link_hold(cs_session_link(agent->current));
    task->is_in_flight = lane_give(lane, ERRAND_TASK, task, NULL);
    if (task->is_in_flight)
        return;
    cs_link_free(task->link); /* tried again when the lane has brought something back */
    task->link = NULL;
}

static bool has_inputs(const cs_agent *agent, const struct task *task)
{
    for (size_t i = 0; i < task->blobs_count; i++)
        if (!cs_blobs_has(agent->blobs, &task->blobs[i], NULL))
            return false;
    return true;
}

static bool has_outputs(const struct task *task)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(TASK_ARENA_BYTES);
    Consilium__V1__TaskResult *result = NULL;
    return unpack_result(&task->result, arena, &result) == CS_OK && result->n_outputs > 0;
}

static void show(cs_agent *agent, const struct task *task, Consilium__V1__Stage stage)
{
    cs_free(agent->shown_task);
    agent->shown_task = task != NULL ? cs_format("%s round %u %s", task->job, task->round, task->phase) : NULL;
    agent->shown_stage = stage;
    agent->shown_done = agent->shown_total = 0;
}

static void run(cs_agent *agent, struct task *task)
{
    cs_alignment_step step;
    uint32_t stop = 0;
    if (!cs_alignment_phase(task->phase, 0, &step, &stop)) {
        show(agent, task, CONSILIUM__V1__STAGE__STAGE_TRAINING);
        give(agent, task, &agent->work);
    } else if (step == CS_ALIGNMENT_AGREE) {
        show(agent, task, CONSILIUM__V1__STAGE__STAGE_AGREEING);
        alignments_agree(agent, task);
    } else if (alignments_prepare(agent, task) != CS_OK) {
        task_refuse(agent, task, cs_error_text());
    } else {
        show(agent, task, CONSILIUM__V1__STAGE__STAGE_ALIGNING);
        give(agent, task, &agent->work);
    }
}

static void advance(cs_agent *agent, struct task *task)
{
    if (task->is_in_flight || agent->is_stopping || task->due_ms > cs_clock_monotonic_ms())
        return;
    task->due_ms = 0; /* a time that has passed must not wake the thread again and again */
    if (task->step == STEP_FETCH && has_inputs(agent, task))
        task->step = STEP_RUN;
    if (task->step == STEP_UPLOAD && !has_outputs(task))
        task->step = STEP_SEND;
    switch (task->step) {
    case STEP_FETCH:
        if (agent->current == NULL)
            return;
        show(agent, task, CONSILIUM__V1__STAGE__STAGE_FETCHING);
        give(agent, task, &agent->transfers);
        return;
    case STEP_RUN:
        run(agent, task);
        return;
    case STEP_UPLOAD:
        if (agent->current == NULL)
            return;
        show(agent, task, CONSILIUM__V1__STAGE__STAGE_UPLOADING);
        give(agent, task, &agent->transfers);
        return;
    case STEP_SEND:
        if (agent->current != NULL && task->sent_in != agent->session_number)
            send_stored(agent, task);
        return;
    case STEP_ACKNOWLEDGED:
        return;
    }
}

void tasks_advance(cs_agent *agent)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    for (struct task *task = agent->tasks, *next; task != NULL; task = next) {
        next = task->next;
        if (task->kill_at_ms > 0 && task->kill_at_ms <= now_ms) {
            task->kill_at_ms = 0;
            cs_supervisor_kill(agent->supervisor, task->job);
        }
        advance(agent, task);
    }
}

/* What a step's failure means for the task. */
static void step_failed(cs_agent *agent, struct task *task)
{
    cs_log(CS_LOG_WARN, "agent", "step of a task failed", CS_S("job", task->job), CS_I("round", task->round),
           CS_S("phase", task->phase), CS_I("repeats", task->repeats), CS_S("reason", task->sentence));
    const bool is_transfer = task->step != STEP_RUN;
    agent->counts.workers_lost += !is_transfer && task->is_worth_repeating;
    /* A broken line is waited for as long as it takes; a lost worker or a clear no only so often. */
    if (is_transfer && task->is_worth_repeating) {
        wait_and_repeat(task);
        return;
    }
    const uint32_t repeats_max = is_transfer ? CS_REPEATS_MAX : CS_WORKER_REPEATS_MAX;
    if ((is_transfer || task->is_worth_repeating) && task->repeats < repeats_max) {
        wait_and_repeat(task);
        return;
    }
    if (task->step == STEP_UPLOAD) {
        task->step = STEP_SEND; /* the coordinator does not take the blobs: let it say what the result is to it */
        return;
    }
    make_failed(task);
    if (store_result(agent, task) != CS_OK) {
        cs_log(CS_LOG_ERROR, "agent", "result not stored", CS_S("task", task->name), CS_S("reason", cs_error_text()));
        wait_and_repeat(task);
    }
}

static cs_status account(cs_agent *agent, struct task *task)
{
    cs_alignment_step step;
    uint32_t stop = 0;
    if (!cs_alignment_phase(task->phase, 0, &step, &stop) || task->sealing == NULL || task->sealing->is_repeat)
        return CS_OK;
    if (step == CS_ALIGNMENT_MASK)
        return alignments_spend(agent, task->job, task->tokens);
    if (step == CS_ALIGNMENT_COMPARE || step == CS_ALIGNMENT_COHORT)
        return cs_records_answer_alignment(agent->records, task->job, task->patients);
    return CS_OK;
}

static void ran(cs_agent *agent, struct task *task)
{
    const cs_status accounted = account(agent, task);
    if (accounted == CS_DENIED) {
        task_refuse(agent, task, cs_error_text());
        return;
    }
    if (accounted == CS_OK && store_result(agent, task) == CS_OK)
        return;
    cs_log(CS_LOG_ERROR, "agent", "result not stored", CS_S("task", task->name), CS_S("reason", cs_error_text()));
    wait_and_repeat(task); /* the same task gives the same result */
}

void task_refuse(cs_agent *agent, struct task *task, const char *sentence)
{
    char copy[CS_ERROR_TEXT_BYTES];
    text_shorten(sentence, copy, sizeof(copy));
    cs_log(CS_LOG_WARN, "agent", "task refused", CS_S("job", task->job), CS_I("round", task->round),
           CS_S("phase", task->phase), CS_S("reason", copy));
    memcpy(task->sentence, copy, sizeof(copy));
    make_failed(task);
    if (store_result(agent, task) != CS_OK) {
        cs_log(CS_LOG_ERROR, "agent", "result not stored", CS_S("task", task->name), CS_S("reason", cs_error_text()));
        wait_and_repeat(task);
        return;
    }
    advance(agent, task);
}

void task_succeed(cs_agent *agent, struct task *task)
{
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = task->job;
    key.round = task->round;
    key.phase = task->phase;
    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.key = &key;
    result.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_DONE;
    cs_buffer_reset(&task->result);
    cs_wire_pack(&result.base, &task->result);
    task->blobs_count = 0;
    if (store_result(agent, task) != CS_OK) {
        cs_log(CS_LOG_ERROR, "agent", "result not stored", CS_S("task", task->name), CS_S("reason", cs_error_text()));
        wait_and_repeat(task);
        return;
    }
    advance(agent, task);
}

static void step_succeeded(cs_agent *agent, struct task *task)
{
    if (task->step == STEP_FETCH) {
        task->step = STEP_RUN;
        task->repeats = 0;
    } else if (task->step == STEP_UPLOAD) {
        task->step = STEP_SEND;
    } else {
        ran(agent, task);
    }
}

void tasks_step_done(cs_agent *agent, struct task *task)
{
    task->is_in_flight = false;
    task->kill_at_ms = 0;
    cs_link_free(task->link);
    task->link = NULL;
    if (task->is_dropped) {
        show(agent, NULL, CONSILIUM__V1__STAGE__STAGE_UNSPECIFIED);
        forget_task(agent, task);
        return;
    }
    if (task->is_acknowledged)
        task->step = STEP_ACKNOWLEDGED;
    else if (agent->is_stopping)
        return;
    else if (task->status != CS_OK)
        step_failed(agent, task);
    else
        step_succeeded(agent, task);
    tasks_advance(agent);
}

/* ---- ends ---- */

const char *verdict_word(Consilium__V1__Verdict verdict)
{
    static const char *const words[VERDICTS] = {"unknown", "accepted", "refused", "late", "conflict"};
    return (size_t)verdict < CS_COUNT(words) ? words[verdict] : words[0];
}

void tasks_acknowledge(cs_agent *agent, const Consilium__V1__ResultAck *ack)
{
    struct task *task = ack->key != NULL ? find_task(agent, ack->key) : NULL;
    if (task == NULL || task->step < STEP_UPLOAD || task->step == STEP_ACKNOWLEDGED)
        return;
    cs_log(ack->verdict == CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED ? CS_LOG_INFO : CS_LOG_WARN, "agent",
           "result answered", CS_S("job", task->job), CS_I("round", task->round), CS_S("phase", task->phase),
           CS_S("verdict", verdict_word(ack->verdict)), CS_S("reason", ack->reason));
    agent->counts.answers[(size_t)ack->verdict < VERDICTS ? ack->verdict : 0]++;
    CS_AUTO(cs_string) key = cs_format("acknowledged:%s", task->name);
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", task->job);
    cs_json_uint(&json, "round", task->round);
    cs_json_text(&json, "phase", task->phase);
    cs_json_text(&json, "verdict", verdict_word(ack->verdict));
    char reason[RECORD_TEXT_MAX];
    text_shorten(ack->reason, reason, sizeof(reason));
    cs_json_text(&json, "reason", reason);
    cs_json_end(&json, '}');
    agent_record_later(agent, "result_acknowledged", key, &fields);
    if (cs_failpoint("agent.ack.store") != CS_OK ||
        cs_records_acknowledge(agent->records, task->job, task->round, task->phase) != CS_OK)
        cs_log(CS_LOG_ERROR, "agent", "acknowledgement not stored", CS_S("task", task->name),
               CS_S("reason", cs_error_text()));
    show(agent, NULL, CONSILIUM__V1__STAGE__STAGE_UNSPECIFIED);
    agent->wants_collection = true;
    if (task->is_in_flight) {
        task->is_acknowledged = true;
        atomic_store(&task->is_cancelled, true);
    } else {
        task->step = STEP_ACKNOWLEDGED;
    }
}

void tasks_end_job(cs_agent *agent, const char *job)
{
    for (struct task *task = agent->tasks, *next; task != NULL; task = next) {
        next = task->next;
        if (strcmp(task->job, job) == 0 && !task->is_dropped)
            drop_task(agent, task);
    }
    alignments_end_job(agent, job);
    if (!lane_give(&agent->work, ERRAND_END_JOB, NULL, job))
        cs_log(CS_LOG_WARN, "agent", "the job's worker ends once it has been idle", CS_S("job", job));
    show(agent, NULL, CONSILIUM__V1__STAGE__STAGE_UNSPECIFIED);
    agent->wants_collection = true;
}

void tasks_stop(cs_agent *agent)
{
    for (struct task *task = agent->tasks; task != NULL; task = task->next)
        atomic_store(&task->is_cancelled, true);
    cs_transfer_stop(agent->transfer);
    cs_supervisor_stop(agent->supervisor);
}
