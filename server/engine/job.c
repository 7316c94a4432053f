/* The life of a job: the facts for the round table, and what each of its actions writes. Engine's thread; called by
 * engine.c and door.c. */
#include "server/engine/internal.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "server/engine/stopping.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A site that was here a moment ago (its agent or this process was restarted) is waited for before a round opens
 * without it; never for longer than the plan waits for a phase. */
#define RETURN_GRACE_MS (20 * 1000)

struct shared_plan *plan_share(struct shared_plan *plan)
{
    atomic_fetch_add(&plan->references, 1);
    return plan;
}

void plan_release(struct shared_plan *plan)
{
    if (!plan || atomic_fetch_sub(&plan->references, 1) != 1)
        return;
    cs_plan_free(plan->plan);
    cs_free(plan);
}

/* ---- members ---- */

struct job *job_find(cs_engine *engine, const char *name)
{
    for (struct job *job = engine->jobs; job; job = job->next) {
        if (strcmp(job->row.name, name) == 0)
            return job;
    }
    return NULL;
}

struct member *job_member(const struct job *job, const char *site)
{
    for (size_t i = 0; i < job->members_count; i++) {
        if (strcmp(job->members[i].row.site, site) == 0)
            return &job->members[i];
    }
    return NULL;
}

struct task *job_task(const struct job *job, const char *site)
{
    /* A site has one task in a phase. */
    for (size_t i = 0; i < job->tasks_count; i++) {
        if (strcmp(job->tasks[i].row.site, site) == 0)
            return &job->tasks[i];
    }
    return NULL;
}

static bool has_approved(const struct member *member)
{
    return member->row.decision == CONSILIUM__V1__DECISION__DECISION_APPROVED && !member->is_revoked;
}

static bool is_out(const struct member *member)
{
    return member->row.decision == CONSILIUM__V1__DECISION__DECISION_REFUSED || member->is_revoked;
}

static bool is_present(cs_engine *engine, const struct member *member)
{
    return has_approved(member) && engine_is_connected(engine, member->row.site);
}

static int64_t awaited_until_ms(cs_engine *engine, const struct job *job, const struct member *member)
{
    if (!has_approved(member) || engine_is_connected(engine, member->row.site))
        return 0;
    return engine_left_at_ms(engine, member->row.site) +
           CS_MIN((int64_t)RETURN_GRACE_MS, plan_of(job)->sites.deadline_ms);
}

/* ---- facts ---- */

const cs_phase *job_phase(const struct job *job)
{
    const cs_phase *phases[CS_PHASES_MAX];
    const size_t count = job->mode->phases(plan_of(job), job->row.round, phases);
    return job->row.phase < count ? phases[job->row.phase] : NULL;
}

static size_t phases_of(const struct job *job, uint32_t round)
{
    const cs_phase *phases[CS_PHASES_MAX];
    return job->mode->phases(plan_of(job), round, phases);
}

static unsigned facts_of_members(cs_engine *engine, const struct job *job)
{
    size_t approved = 0, present = 0, possible = 0;
    unsigned facts = FACT_ALL_DECIDED | FACT_APPROVED | FACT_PRESENT;
    for (size_t i = 0; i < job->members_count; i++) {
        const struct member *member = &job->members[i];
        const bool member_is_present = is_present(engine, member);
        approved += has_approved(member);
        present += member_is_present;
        possible += !is_out(member);
        if (!is_out(member) && !member_is_present)
            facts &= ~(unsigned)FACT_ALL_DECIDED;
        if (member->is_required && !has_approved(member))
            facts &= ~(unsigned)FACT_APPROVED;
        if (member->is_required && !member_is_present)
            facts &= ~(unsigned)FACT_PRESENT;
        if (member->is_required && is_out(member))
            facts |= FACT_HOPELESS;
    }
    const int64_t now_ms = cs_clock_monotonic_ms();
    for (size_t i = 0; i < job->members_count; i++) {
        if (awaited_until_ms(engine, job, &job->members[i]) > now_ms)
            facts |= FACT_AWAITED;
    }
    const size_t minimum = plan_of(job)->sites.minimum;
    if (approved < minimum)
        facts &= ~(unsigned)FACT_APPROVED;
    if (present < minimum)
        facts &= ~(unsigned)FACT_PRESENT;
    if (possible < minimum)
        facts |= FACT_HOPELESS;
    return facts;
}

/* May still be given a task of the open phase. */
static bool is_candidate(const struct job *job, const struct member *member)
{
    return member->is_participant && !member->is_excluded && !is_out(member) && !job_task(job, member->row.site);
}

static unsigned facts_of_phase(const struct job *job, const cs_phase *phase)
{
    unsigned facts = FACT_ALL_ANSWERED;
    size_t accepted = 0, open = 0;
    for (size_t i = 0; i < job->tasks_count; i++) {
        open += job->tasks[i].row.state == CS_TASK_OPEN;
        accepted += job->tasks[i].row.state == CS_TASK_ACCEPTED;
    }
    /* Where sites wait for each other's results, nobody is waited for once one of them is out. */
    const bool is_lost = job->mode->routes && accepted + open < job->mode->minimum(plan_of(job), phase);
    if (open > 0 && !is_lost)
        facts &= ~(unsigned)FACT_ALL_ANSWERED;
    bool has_required = true;
    for (size_t i = 0; i < job->members_count && !phase->is_for_one && !phase->is_for_some; i++) {
        if (!job->members[i].is_required)
            continue;
        const struct task *task = job_task(job, job->members[i].row.site);
        has_required = has_required && task && task->row.state == CS_TASK_ACCEPTED;
    }
    if (accepted >= job->mode->minimum(plan_of(job), phase) && has_required)
        facts |= FACT_ENOUGH;
    for (size_t i = 0; i < job->members_count && phase->is_for_one; i++) {
        if (is_candidate(job, &job->members[i]))
            facts |= FACT_SUBSTITUTE;
    }
    return facts;
}

static unsigned facts_of(cs_engine *engine, const struct job *job)
{
    unsigned facts = facts_of_members(engine, job);
    const cs_phase *phase = job_phase(job);
    if (phase && (job->row.state == ROUND_COLLECTING || job->row.state == ROUND_FOLDING))
        facts |= facts_of_phase(job, phase);
    if (job->row.phase + 1 < phases_of(job, job->row.round))
        facts |= FACT_MORE_PHASES;
    if (phases_of(job, job->row.round + 1) > 0 && !job->stops_early)
        facts |= FACT_MORE_ROUNDS;
    if (job->row.state != ROUND_IDLE && job->row.state != ROUND_PAUSED)
        return facts;
    /* Asking the disk is a system call: only where the table looks at the answer. */
    if (engine_has_room(engine))
        facts |= FACT_ROOM;
    if (job->row.state == ROUND_PAUSED && job->row.paused_in == ROUND_FOLDING)
        facts |= FACT_IN_FOLD;
    if ((job->row.paused_for == PAUSE_DISK && (facts & FACT_ROOM)) ||
        (job->row.paused_for == PAUSE_SITES && (facts & FACT_PRESENT)))
        facts |= FACT_FIXED;
    return facts;
}

/* ---- reasons: sentences for the operator ---- */

static void say_missing_members(cs_engine *engine, const struct job *job, cs_buffer *out)
{
    for (size_t i = 0; i < job->members_count; i++) {
        const struct member *member = &job->members[i];
        const char *word = NULL;
        if (member->is_revoked)
            word = "revoked";
        else if (member->row.decision == CONSILIUM__V1__DECISION__DECISION_REFUSED)
            word = "refused the plan";
        else if (!has_approved(member))
            word = "has not decided";
        else if (!is_present(engine, member))
            word = "not connected";
        if (word)
            cs_buffer_printf(out, "; %s %s%s", member->row.site, word, member->is_required ? " (required)" : "");
    }
}

static void say_sites(cs_engine *engine, const struct job *job, const char *what, cs_buffer *out)
{
    size_t approved = 0, present = 0;
    for (size_t i = 0; i < job->members_count; i++) {
        approved += has_approved(&job->members[i]);
        present += is_present(engine, &job->members[i]);
    }
    cs_buffer_printf(out, "%s: of %zu invited sites %zu approved and %zu are connected, the minimum is %" PRIu32, what,
                     job->members_count, approved, present, plan_of(job)->sites.minimum);
    say_missing_members(engine, job, out);
}

const char *task_state_word(cs_task_state state)
{
    switch (state) {
    case CS_TASK_REFUSED:
        return "result refused";
    case CS_TASK_FAILED:
        return "failed";
    case CS_TASK_EXCLUDED:
        return "excluded";
    default:
        return "no result in time";
    }
}

static void say_phase_failed(const struct job *job, const cs_phase *phase, cs_buffer *out)
{
    size_t accepted = 0;
    for (size_t i = 0; i < job->tasks_count; i++)
        accepted += job->tasks[i].row.state == CS_TASK_ACCEPTED;
    cs_buffer_printf(out, "round %" PRIu32 ", %s: %zu usable results, at least %" PRIu32 " are needed%s",
                     job->row.round, phase->name, accepted, job->mode->minimum(plan_of(job), phase),
                     plan_of(job)->sites.require.count > 0 ? " and those of every required site" : "");
    /* Those that failed first: the sentence has an end, and the others may only have waited for them. */
    for (int is_late = 0; is_late <= 1; is_late++) {
        for (size_t i = 0; i < job->tasks_count; i++) {
            const struct task *task = &job->tasks[i];
            if (task->row.state == CS_TASK_ACCEPTED || (task->row.state == CS_TASK_LATE) != is_late)
                continue;
            cs_buffer_printf(out, "; %s: %s", task->row.site, task_state_word(task->row.state));
            if (task->row.reason[0])
                cs_buffer_printf(out, " (%.*s)", is_late ? 100 : 220, task->row.reason);
        }
    }
}

static void set_reason(struct job *job, const char *reason)
{
    snprintf(job->row.reason, sizeof(job->row.reason), "%.*s", CS_REASON_BYTES - 1, reason);
}

/* ---- writing ---- */

void job_start_deadline(struct job *job, int64_t duration_ms)
{
    job->row.remaining_ms = duration_ms;
    job->deadline_at_ms = cs_clock_monotonic_ms() + duration_ms;
}

static void stop_deadline(struct job *job)
{
    job->row.remaining_ms = CS_JOB_NO_DEADLINE;
}

static void update_remaining(struct job *job, int64_t now_ms)
{
    if (job->row.remaining_ms != CS_JOB_NO_DEADLINE)
        job->row.remaining_ms = CS_MAX(job->deadline_at_ms - now_ms, (int64_t)0);
}

cs_status job_save_remaining(cs_engine *engine, struct job *job, int64_t now_ms)
{
    if (job->row.remaining_ms == CS_JOB_NO_DEADLINE)
        return CS_OK;
    CS_TRY(engine_begin(engine));
    update_remaining(job, now_ms);
    return cs_jobs_update(engine->store, &job->row);
}

void job_forget_tasks(struct job *job)
{
    for (size_t i = 0; i < job->tasks_count; i++) {
        cs_task_row_clear(&job->tasks[i].row);
        cs_buffer_clear(&job->tasks[i].checking);
    }
    cs_free(job->tasks);
    job->tasks = NULL;
    job->tasks_count = 0;
}

void job_exclude(struct member *member, const char *word, const char *reason)
{
    member->is_excluded = true;
    snprintf(member->excluded_reason, sizeof(member->excluded_reason), "%s%s%.250s", word, reason[0] ? ": " : "",
             reason);
}

static cs_status set_task_state(cs_engine *engine, struct job *job, struct task *task, cs_task_state state,
                                const char *reason)
{
    CS_TRY(engine_begin(engine));
    task->row.state = state;
    snprintf(task->row.reason, sizeof(task->row.reason), "%.*s", CS_REASON_BYTES - 1, reason);
    task->is_checking = false;
    cs_buffer_clear(&task->checking);
    if (state != CS_TASK_ACCEPTED && state != CS_TASK_FOLDED)
        job_exclude(&job->members[task->member], task_state_word(state), reason);
    job->has_changed = true;
    engine->access_changed = true;
    measure_task(engine, task->row.site, state);
    CS_FAILPOINT("engine.task_state");
    return cs_jobs_task_put(engine->store, job->row.id, &task->row);
}

/* What is still open when a phase closes. */
static cs_status close_open_tasks(cs_engine *engine, struct job *job, const char *reason)
{
    for (size_t i = 0; i < job->tasks_count; i++) {
        if (job->tasks[i].row.state == CS_TASK_OPEN)
            CS_TRY(set_task_state(engine, job, &job->tasks[i], CS_TASK_LATE, reason));
    }
    return CS_OK;
}

/* Gives the open phase to the mode's choice among the participants that are still in. */
static cs_status assign(cs_engine *engine, struct job *job)
{
    const cs_phase *phase = job_phase(job);
    size_t *candidates = cs_alloc_array(job->members_count, sizeof(size_t));
    size_t *chosen = cs_alloc_array(job->members_count, sizeof(size_t));
    const char **names = cs_alloc_array(job->members_count, sizeof(*names));
    size_t count = 0;
    for (size_t i = 0; i < job->members_count; i++) {
        if (!is_candidate(job, &job->members[i]))
            continue;
        names[count] = job->members[i].row.site;
        candidates[count++] = i;
    }
    const size_t chosen_count = count > 0 ? job->mode->sites(plan_of(job), phase, names, count, chosen) : 0;
    cs_free(names);
    job->tasks = cs_realloc(job->tasks, (job->tasks_count + chosen_count + 1) * sizeof(*job->tasks));
    cs_status status = CS_OK;
    for (size_t i = 0; i < chosen_count && status == CS_OK; i++) {
        const size_t member = candidates[chosen[i]];
        struct task *task = &job->tasks[job->tasks_count++];
        *task = (struct task){.member = member};
        task->row.round = job->row.round;
        task->row.state = CS_TASK_OPEN;
        snprintf(task->row.phase, sizeof(task->row.phase), "%s", phase->name);
        memcpy(task->row.site, job->members[member].row.site, sizeof(task->row.site));
        status = cs_jobs_task_put(engine->store, job->row.id, &task->row);
    }
    cs_free(candidates);
    cs_free(chosen);
    job_start_deadline(job, plan_of(job)->sites.deadline_ms);
    engine->access_changed = true;
    return status;
}

static cs_status open_round(cs_engine *engine, struct job *job)
{
    CS_AUTO(cs_round_row) row = {.round = job->row.round, .opened_ms = cs_clock_wall_ms()};
    for (size_t i = 0; i < job->members_count; i++) {
        struct member *member = &job->members[i];
        member->is_participant = is_present(engine, member);
        member->is_excluded = false;
        if (member->is_participant)
            cs_buffer_printf(&row.participants, "%s ", member->row.site);
    }
    job->row.phase = 0;
    job_forget_tasks(job);
    CS_TRY(cs_jobs_round_put(engine->store, job->row.id, &row));
    CS_TRY(record_round_opened(engine, job));
    CS_FAILPOINT("engine.round_opened");
    return assign(engine, job);
}

/* The results are folded; what they say about the model they started from is known now, and with it whether the job
 * goes on: before the table is asked. */
static cs_status judge_base(cs_engine *engine, struct job *job, const cs_phase *phase)
{
    bool has_base = false, has_score = false;
    uint32_t base_round = 0;
    double score = 0;
    cs_blob_row base;
    CS_TRY(job_base(engine, job, phase, job->row.round, &has_base, &base_round, &base));
    CS_TRY(report_score(engine, job, job->row.round, phase, &has_score, &score));
    if (has_base && has_score)
        CS_TRY(cs_jobs_set_score(engine->store, job->row.id, base_round, score));
    if (!plan_of(job)->training.early_stopping.is_on)
        return CS_OK;

    cs_round_row *rounds = NULL;
    size_t count = 0;
    CS_TRY(cs_jobs_rounds(engine->store, job->row.id, &rounds, &count));
    job->stops_early = stopping_is_due(plan_of(job), rounds, count);
    cs_round_rows_free(rounds, count);
    return CS_OK;
}

/* Was this site in the fold of every phase of the round that all sites do? */
static cs_task_state result_of_round(const struct job *job, const struct member *member, const cs_task_row *tasks,
                                     size_t count, const char **ret_reason)
{
    const cs_phase *phases[CS_PHASES_MAX];
    const size_t phases_count = job->mode->phases(plan_of(job), job->row.round, phases);
    for (size_t p = 0; p < phases_count; p++) {
        if (!phases[p]->counts_as_folded)
            continue;
        const cs_task_row *found = NULL;
        for (size_t i = 0; i < count && !found; i++) {
            if (strcmp(tasks[i].phase, phases[p]->name) == 0 && strcmp(tasks[i].site, member->row.site) == 0)
                found = &tasks[i];
        }
        if (!found) {
            *ret_reason = member->is_participant ? member->excluded_reason
                          : is_out(member)       ? "does not take part"
                          : has_approved(member) ? "was not connected when the round opened"
                                                 : "had not decided when the round opened";
            return CS_TASK_EXCLUDED;
        }
        if (found->state != CS_TASK_FOLDED) {
            *ret_reason = found->reason;
            return found->state;
        }
    }
    *ret_reason = "";
    return CS_TASK_FOLDED;
}

static bool counts(const struct job *job)
{
    const cs_phase *phases[CS_PHASES_MAX];
    const size_t count = job->mode->phases(plan_of(job), job->row.round, phases);
    for (size_t i = 0; i < count; i++) {
        if (phases[i]->counts_as_folded)
            return true;
    }
    return false;
}

static cs_status count_members(cs_engine *engine, struct job *job)
{
    cs_task_row *tasks = NULL;
    size_t count = 0;
    CS_TRY(cs_jobs_tasks(engine->store, job->row.id, job->row.round, NULL, &tasks, &count));
    cs_status status = CS_OK;
    for (size_t i = 0; i < job->members_count && status == CS_OK; i++) {
        struct member *member = &job->members[i];
        const char *reason = "";
        const cs_task_state state = result_of_round(job, member, tasks, count, &reason);
        const bool is_folded = state == CS_TASK_FOLDED;
        member->row.last_result = (int)state;
        snprintf(member->row.last_reason, sizeof(member->row.last_reason), "%s", reason);
        member->row.rounds_folded += is_folded && job->row.round > 0;
        member->row.rounds_missed += !is_folded;
        status = cs_jobs_member_put(engine->store, job->row.id, &member->row);
    }
    cs_task_rows_free(tasks, count);
    return status;
}

static bool keeps_model(const cs_plan *plan, uint32_t round, uint32_t last, uint32_t best, bool is_end)
{
    const bool asks_nothing = !plan->retention.keeps_best && !plan->retention.keeps_last && plan->retention.every == 0;
    if (round == last && (!is_end || plan->retention.keeps_last || asks_nothing))
        return true; /* until the end the next round starts from it */
    if (plan->retention.keeps_best && round == best)
        return true;
    return plan->retention.every > 0 && round > 0 && round % plan->retention.every == 0;
}

static cs_status apply_retention(cs_engine *engine, struct job *job, bool is_end)
{
    const cs_plan *plan = plan_of(job);
    const uint32_t round = job->row.round;
    if (!plan->retention.keeps_all_updates && round + 1 > plan->retention.update_rounds)
        CS_TRY(cs_jobs_drop_updates(engine->store, job->row.id, round + 1 - plan->retention.update_rounds));

    uint32_t best = round;
    cs_status found = cs_jobs_best_round(engine->store, job->row.id, &best);
    if (found != CS_OK && found != CS_NOT_FOUND)
        return found;
    cs_blob_row *models = NULL;
    size_t count = 0;
    CS_TRY(cs_jobs_blobs(engine->store, job->row.id, CS_BLOB_MODEL, &models, &count));
    cs_status status = CS_OK;
    for (size_t i = 0; i < count && status == CS_OK; i++) {
        if (models[i].is_kept && !keeps_model(plan, models[i].round, models[count - 1].round, best, is_end))
            status = cs_jobs_drop_blob(engine->store, job->row.id, models[i].round, CS_BLOB_MODEL);
    }
    cs_free(models);
    engine->wants_collect = true;
    return status;
}

static cs_status close_round(cs_engine *engine, struct job *job, bool is_end)
{
    CS_AUTO(cs_round_row) row = {0};
    CS_TRY(cs_jobs_round_find(engine->store, job->row.id, job->row.round, &row));
    row.closed_ms = CS_MAX(cs_clock_wall_ms(), row.opened_ms + 1);
    CS_TRY(report_loss(engine, job, job->row.round, &row.loss));
    CS_TRY(cs_jobs_round_put(engine->store, job->row.id, &row));
    if (counts(job))
        CS_TRY(count_members(engine, job));
    CS_FAILPOINT("engine.round_closed");
    return apply_retention(engine, job, is_end);
}

static cs_status end_job(cs_engine *engine, struct job *job, int outcome)
{
    CS_TRY(close_open_tasks(engine, job, "the job had ended"));
    job->row.outcome = outcome;
    job->row.finished_ms = cs_clock_wall_ms();
    stop_deadline(job);
    engine->wants_collect = true;
    engine->collect_at_ms = 0; /* at once: nothing fast follows */
    engine->access_changed = true;
    /* What went from site to site opens for nobody any more: the sites wipe their keys when they hear of the end. */
    if (job->mode->routes)
        CS_TRY(cs_jobs_drop_updates(engine->store, job->row.id, job->row.round + 1));
    return record_ended(engine, job);
}

/* "stopped early at round 9: no log_loss on validation rows better by more than 0.002 in 3 evaluations; best round 6
 * with 0.4312"; also what else there is to say about the search. Empty where nobody asked for it. */
static cs_status say_stopping(cs_engine *engine, const struct job *job, cs_buffer *out)
{
    const cs_plan *plan = plan_of(job);
    const char *metric = cs_metric_name(plan->training.early_stopping.metric);
    uint32_t best = 0;
    if (!plan->training.early_stopping.is_on)
        return CS_OK;
    const cs_status found = cs_jobs_best_round(engine->store, job->row.id, &best);
    if (found == CS_NOT_FOUND) {
        cs_buffer_printf(out, "early stopping never had a defined %s on validation rows", metric);
        return CS_OK;
    }
    CS_TRY(found);
    CS_AUTO(cs_round_row) row = {0};
    CS_TRY(cs_jobs_round_find(engine->store, job->row.id, best, &row));
    if (job->stops_early)
        cs_buffer_printf(out,
                         "stopped early at round %" PRIu32 ": no %s on validation rows better by more than %g in %u "
                         "evaluations; ",
                         job->row.round, metric, plan->training.early_stopping.minimum_change,
                         plan->training.early_stopping.patience);
    cs_buffer_printf(out, "best round %" PRIu32 " with %s %.4f", best, metric, fabs(row.score));
    return CS_OK;
}

static cs_status finish_job(cs_engine *engine, struct job *job)
{
    CS_AUTO(cs_buffer) stopping = CS_BUFFER_EMPTY;
    CS_TRY(say_stopping(engine, job, &stopping));
    size_t everywhere = 0;
    for (size_t i = 0; i < job->members_count; i++)
        everywhere += job->members[i].row.rounds_missed == 0;
    if (everywhere == job->members_count) {
        set_reason(job, cs_buffer_text(&stopping));
        return end_job(engine, job, CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
    }
    CS_AUTO(cs_buffer) reason = CS_BUFFER_EMPTY;
    cs_buffer_printf(&reason, "partial %zu of %zu", everywhere, job->members_count);
    if (stopping.size > 0)
        cs_buffer_printf(&reason, "; %s", cs_buffer_text(&stopping));
    for (size_t i = 0; i < job->members_count; i++) {
        const cs_member_row *member = &job->members[i].row;
        if (member->rounds_missed > 0)
            cs_buffer_printf(&reason, "; %s missed %" PRIu32 " rounds", member->site, member->rounds_missed);
    }
    set_reason(job, cs_buffer_text(&reason));
    return end_job(engine, job, CONSILIUM__V1__JOB_STATE__JOB_PARTIAL);
}

/* ---- transitions ---- */

static void enter_pause(cs_engine *engine, struct job *job, enum round_event event, const char *reason)
{
    job->row.paused_in = job->row.state;
    job->look_at_ms = cs_clock_monotonic_ms() + PAUSED_LOOK_MS;
    stop_deadline(job);
    job->is_folding = false;
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    if (event == EVENT_FOLD_FAILED) {
        /* Room comes back without a person; anything else wants one to look. */
        const bool is_full = job->fold_status == CS_EXHAUSTED || !engine_has_room(engine);
        job->row.paused_for = is_full ? PAUSE_DISK : PAUSE_FOLD;
        cs_buffer_printf(&text, "the fold of round %" PRIu32 " failed: %s", job->row.round, reason);
    } else if (!engine_has_room(engine)) {
        job->row.paused_for = PAUSE_DISK;
        cs_buffer_printf(&text, "disk: less than the reserve of %" PRIu64 " bytes is free",
                         engine->config.server->disk_reserve_bytes);
    } else {
        job->row.paused_for = PAUSE_SITES;
        say_sites(engine, job, "sites", &text);
    }
    set_reason(job, cs_buffer_text(&text));
}

static void say_failure(cs_engine *engine, const struct job *job, enum round_event event, cs_buffer *out)
{
    const cs_phase *phase = job_phase(job);
    if (job->row.state == ROUND_COLLECTING && phase)
        say_phase_failed(job, phase, out);
    else if (event == EVENT_DEADLINE)
        say_sites(engine, job, "the time for approvals is over", out);
    else
        say_sites(engine, job, "the minimum of sites cannot be reached", out);
}

static cs_status act(cs_engine *engine, struct job *job, enum round_event event, const struct round_step *step,
                     const char *reason)
{
    switch (step->action) {
    case DO_NOTHING:
        return CS_OK;
    case DO_READY:
        job->row.round = phases_of(job, 0) > 0 ? 0 : 1;
        job_start_deadline(job, plan_of(job)->sites.deadline_ms);
        return CS_OK;
    case DO_OPEN:
        return open_round(engine, job);
    case DO_REASSIGN:
        CS_TRY(close_open_tasks(engine, job, "the phase's deadline had passed"));
        return assign(engine, job);
    case DO_FOLD:
        stop_deadline(job);
        return close_open_tasks(engine, job, "the phase's deadline had passed");
    case DO_NEXT_PHASE:
        CS_FAILPOINT("engine.phase_finished");
        job_forget_tasks(job);
        job->row.phase++;
        return assign(engine, job);
    case DO_NEXT_ROUND:
        CS_FAILPOINT("engine.phase_finished");
        CS_TRY(close_round(engine, job, false));
        job_forget_tasks(job);
        job->row.phase = 0;
        job->row.round++;
        job_start_deadline(job, plan_of(job)->sites.deadline_ms);
        return CS_OK;
    case DO_FINISH:
        CS_FAILPOINT("engine.phase_finished");
        CS_TRY(close_round(engine, job, true));
        return finish_job(engine, job);
    case DO_PAUSE:
        enter_pause(engine, job, event, reason);
        return CS_OK;
    case DO_CONTINUE:
        job->row.paused_for = PAUSE_NONE;
        set_reason(job, "");
        if (step->next == ROUND_IDLE)
            job_start_deadline(job, plan_of(job)->sites.deadline_ms);
        return CS_OK;
    case DO_FAIL: {
        CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
        CS_TRY(close_open_tasks(engine, job,
                                event == EVENT_DEADLINE ? "the phase's deadline had passed"
                                                        : "another site was out, and all are needed"));
        say_failure(engine, job, event, &text);
        set_reason(job, cs_buffer_text(&text));
        return end_job(engine, job, CONSILIUM__V1__JOB_STATE__JOB_FAILED);
    }
    case DO_CANCEL:
        set_reason(job, reason);
        return end_job(engine, job, CONSILIUM__V1__JOB_STATE__JOB_CANCELLED);
    }
    return cs_fail(CS_INTERNAL, "job '%s': unknown action %d", job->row.name, (int)step->action);
}

/* The only place that changes the state. */
static cs_status round_enter(cs_engine *engine, struct job *job, enum round_event event, const struct round_step *step,
                             const char *reason)
{
    CS_TRY(engine_begin(engine));
    const enum round_state before = (enum round_state)job->row.state;
    const uint32_t round = job->row.round;
    const cs_phase *phase = job_phase(job);
    CS_TRY(act(engine, job, event, step, reason));
    job->row.state = (int)step->next;
    job->has_changed = true;
    job->needs_effects = true;
    job->was_loaded = false;
    update_remaining(job, cs_clock_monotonic_ms());
    CS_TRY(cs_jobs_update(engine->store, &job->row));
    CS_FAILPOINT("engine.entered");
    cs_log(step->action == DO_FAIL || step->action == DO_PAUSE ? CS_LOG_WARN : CS_LOG_INFO, "engine", "job state",
           CS_S("job", job->row.name), CS_I("round", round), CS_S("phase", phase ? phase->name : ""),
           CS_S("event", round_event_name(event)), CS_S("from", round_state_name(before)),
           CS_S("to", round_state_name(step->next)), CS_S("reason", job->row.reason));
    return CS_OK;
}

cs_status job_step(cs_engine *engine, struct job *job, enum round_event event, const char *reason)
{
    /* A state may be left again at once: an idle job with everybody present opens the round, a phase nobody can do is
     * over. Bounded: every way through the table that needs no new event is shorter than this. */
    for (int i = 0; i < ROUND_STATES * 2; i++) {
        const struct round_step step = round_step((enum round_state)job->row.state, event, facts_of(engine, job));
        if (step.is_refused) {
            cs_log(CS_LOG_WARN, "engine", "event refused", CS_S("job", job->row.name),
                   CS_S("state", round_state_name((enum round_state)job->row.state)),
                   CS_S("event", round_event_name(event)));
            return cs_fail(CS_STATE, "job '%s' is %s: '%s' is not possible now", job->row.name,
                           round_state_name((enum round_state)job->row.state), round_event_name(event));
        }
        if (step.action == DO_NOTHING)
            return CS_OK;
        CS_TRY(round_enter(engine, job, event, &step, reason));
        if (step.next == ROUND_IDLE)
            event = EVENT_LOOK;
        else if (step.next == ROUND_COLLECTING)
            event = EVENT_LOST; /* changes nothing while a task is open */
        else
            return CS_OK;
    }
    return CS_OK;
}

cs_status job_end_task(cs_engine *engine, struct job *job, struct task *task, cs_task_state state, const char *reason)
{
    CS_TRY(set_task_state(engine, job, task, state, reason));
    return job_step(engine, job, state == CS_TASK_ACCEPTED ? EVENT_RESULT : EVENT_LOST, reason);
}

cs_status job_folded(cs_engine *engine, struct job *job, const cs_hash *hash, uint64_t size)
{
    const cs_phase *phase = job_phase(job);
    CS_TRY(engine_begin(engine));
    if (phase->makes) {
        cs_blob_row blob = {.round = job->row.round, .hash = *hash, .size = size, .is_kept = true};
        snprintf(blob.name, sizeof(blob.name), "%s", phase->makes);
        CS_TRY(cs_jobs_blob_put(engine->store, job->row.id, &blob));
    }
    for (size_t i = 0; i < job->tasks_count; i++) {
        if (job->tasks[i].row.state == CS_TASK_ACCEPTED)
            CS_TRY(set_task_state(engine, job, &job->tasks[i], CS_TASK_FOLDED, ""));
    }
    CS_TRY(record_folded(engine, job, phase, hash));
    job->is_folding = false;
    if (phase->judges_base)
        CS_TRY(judge_base(engine, job, phase));
    const cs_status status = job_step(engine, job, EVENT_FOLDED, NULL);
    job->stops_early = false;
    return status;
}

/* ---- time ---- */

static bool is_checking(const struct job *job)
{
    for (size_t i = 0; i < job->tasks_count; i++) {
        if (job->tasks[i].is_checking)
            return true;
    }
    return false;
}

cs_status job_tick(cs_engine *engine, struct job *job, int64_t now_ms)
{
    for (size_t i = 0; i < job->tasks_count; i++) {
        struct task *task = &job->tasks[i];
        if (task->is_checking && task->recheck_at_ms > 0 && now_ms >= task->recheck_at_ms)
            door_check(engine, job, task);
    }
    const bool looks_again = job->row.state == ROUND_PAUSED && now_ms >= job->look_at_ms;
    if (looks_again)
        job->look_at_ms = now_ms + PAUSED_LOOK_MS;
    if (looks_again || job->row.state == ROUND_IDLE)
        CS_TRY(job_step(engine, job, EVENT_LOOK, NULL));
    /* A result that is being looked at came in time. */
    if (job->row.remaining_ms == CS_JOB_NO_DEADLINE || now_ms < job->deadline_at_ms || is_checking(job))
        return CS_OK;
    CS_FAILPOINT("engine.deadline");
    return job_step(engine, job, EVENT_DEADLINE, NULL);
}

int64_t job_wake_ms(cs_engine *engine, const struct job *job, int64_t now_ms)
{
    if (job->row.state == ROUND_PAUSED)
        return job->look_at_ms;
    int64_t wake_ms = INT64_MAX;
    for (size_t i = 0; i < job->members_count && job->row.state == ROUND_IDLE; i++) {
        const int64_t until_ms = awaited_until_ms(engine, job, &job->members[i]);
        if (until_ms > now_ms)
            wake_ms = CS_MIN(wake_ms, until_ms);
    }
    for (size_t i = 0; i < job->tasks_count; i++) {
        if (job->tasks[i].is_checking && job->tasks[i].recheck_at_ms > 0)
            wake_ms = CS_MIN(wake_ms, job->tasks[i].recheck_at_ms);
    }
    if (job->row.remaining_ms != CS_JOB_NO_DEADLINE && !is_checking(job))
        wake_ms = CS_MIN(wake_ms, job->deadline_at_ms);
    return wake_ms;
}

Consilium__V1__JobState job_public_state(const struct job *job)
{
    if (job->row.outcome != 0)
        return (Consilium__V1__JobState)job->row.outcome;
    if (job->row.state == ROUND_WAITING)
        return CONSILIUM__V1__JOB_STATE__JOB_WAITING;
    return job->row.state == ROUND_PAUSED ? CONSILIUM__V1__JOB_STATE__JOB_PAUSED
                                          : CONSILIUM__V1__JOB_STATE__JOB_RUNNING;
}
