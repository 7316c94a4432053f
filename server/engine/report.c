/* What is true about a job: participation, history, pooled evaluations, the best round. Read from the database and from
 * memory, never kept a second time. Engine's thread. */
#include "server/engine/internal.h"

#include "common/base/clock.h"
#include "common/config/metric.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What sites call "auc" has another name once it is pooled: no pair of rows of two sites is in it. */
#define POOLED_AUC "auc_within_sites"

#define NEED(pointer)                                                                                                  \
    do {                                                                                                               \
        if (!(pointer))                                                                                                \
            return cs_fail(CS_EXHAUSTED, "the answer does not fit its memory");                                        \
    } while (0)

/* Zeroed, never of zero bytes. */
static void *take(cs_arena *arena, size_t count, size_t size)
{
    return cs_arena_alloc(arena, (count + 1) * size);
}

cs_status report_unpack(const cs_task_row *row, cs_arena *arena, Consilium__V1__TaskResult **ret)
{
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__task_result__descriptor, cs_buffer_view(&row->result), arena, &message));
    *ret = (Consilium__V1__TaskResult *)message;
    return CS_OK;
}

/* ---- the results of one phase ---- */

struct results {
    cs_task_row *rows;
    size_t count;
    cs_arena *arena;                    /* owns the unpacked results */
    Consilium__V1__TaskResult **folded; /* for each row; NULL where it was not folded */
};

static void results_clear(struct results *results)
{
    cs_task_rows_free(results->rows, results->count);
    cs_free(results->folded);
}

/* Results of a site count from the moment they are folded. `arena` must outlive `ret`. */
static cs_status read_results(cs_engine *engine, const struct job *job, uint32_t round, const char *phase,
                              cs_arena *arena, struct results *ret)
{
    ret->arena = arena;
    CS_TRY(cs_jobs_tasks(engine->store, job->row.id, round, phase, &ret->rows, &ret->count));
    ret->folded = cs_alloc_array(ret->count + 1, sizeof(Consilium__V1__TaskResult *));
    for (size_t i = 0; i < ret->count; i++) {
        if (ret->rows[i].state == CS_TASK_FOLDED)
            CS_TRY(report_unpack(&ret->rows[i], arena, &ret->folded[i]));
    }
    return CS_OK;
}

typedef struct results results;

/* ---- pooling ---- */

/* "global" evaluations that agree in split and standardization, pooled over the folded sites: Σ sum / Σ count of the
 * metrics that every site says pool, and those that have parts by the sums of these. An AUC over all rows would need
 * the rows: its parts are pairs within a site. */
static Consilium__V1__Evaluation *find_pooled(Consilium__V1__SiteEvaluation **list, size_t count,
                                              const Consilium__V1__Evaluation *like)
{
    for (size_t i = 0; i < count; i++) {
        Consilium__V1__Evaluation *evaluation = list[i]->evaluation;
        if (strcmp(evaluation->split, like->split) == 0 && strcmp(evaluation->standardize, like->standardize) == 0)
            return evaluation;
    }
    return NULL;
}

static cs_status new_pooled(cs_arena *arena, const Consilium__V1__Evaluation *like, Consilium__V1__SiteEvaluation **ret)
{
    Consilium__V1__SiteEvaluation *item = take(arena, 1, sizeof(*item));
    Consilium__V1__Evaluation *evaluation = take(arena, 1, sizeof(*evaluation));
    NEED(item && evaluation);
    consilium__v1__site_evaluation__init(item);
    consilium__v1__evaluation__init(evaluation);
    evaluation->model = like->model;
    evaluation->split = like->split;
    evaluation->standardize = like->standardize;
    item->evaluation = evaluation;
    *ret = item;
    return CS_OK;
}

static cs_status add_parts(cs_arena *arena, Consilium__V1__Metric *sum, const Consilium__V1__Metric *metric)
{
    if (!sum->parts) {
        sum->parts = take(arena, metric->n_parts, sizeof(*sum->parts));
        NEED(sum->parts);
        sum->n_parts = metric->n_parts;
    }
    /* The door let in only as many as the plan asks for. */
    for (size_t i = 0; i < CS_MIN(sum->n_parts, metric->n_parts); i++)
        sum->parts[i] += metric->parts[i];
    sum->is_defined = cs_metric_of_parts(metric->name, sum->parts, sum->n_parts, &sum->value);
    return CS_OK;
}

static cs_status add_metrics(cs_arena *arena, Consilium__V1__Evaluation *pooled, const Consilium__V1__Evaluation *from)
{
    Consilium__V1__Metric **metrics = take(arena, pooled->n_metrics + from->n_metrics, sizeof(*metrics));
    NEED(metrics);
    for (size_t i = 0; i < pooled->n_metrics; i++)
        metrics[i] = pooled->metrics[i];
    pooled->metrics = metrics;
    for (size_t i = 0; i < from->n_metrics; i++) {
        const Consilium__V1__Metric *metric = from->metrics[i];
        const bool has_parts = metric->n_parts > 0;
        if (!has_parts && (!metric->pools || !metric->is_defined))
            continue;
        const bool is_auc = has_parts && strcmp(metric->name, cs_metric_name(CS_METRIC_AUC)) == 0;
        char *name = is_auc ? (char *)(uintptr_t)POOLED_AUC : metric->name;
        Consilium__V1__Metric *sum = NULL;
        for (size_t m = 0; m < pooled->n_metrics && !sum; m++)
            sum = strcmp(pooled->metrics[m]->name, name) == 0 ? pooled->metrics[m] : NULL;
        if (!sum) {
            sum = take(arena, 1, sizeof(*sum));
            NEED(sum);
            consilium__v1__metric__init(sum);
            sum->name = name;
            sum->pools = !has_parts;
            pooled->metrics[pooled->n_metrics++] = sum;
        }
        if (has_parts) {
            CS_TRY(add_parts(arena, sum, metric));
            continue;
        }
        sum->sum += metric->sum;
        sum->count += metric->count;
        sum->is_defined = sum->count > 0;
        sum->value = sum->is_defined ? sum->sum / sum->count : 0;
    }
    return CS_OK;
}

/* Appends what was pooled to `list`, which has room for one for each evaluation. */
static cs_status pool(const results *results, Consilium__V1__SiteEvaluation **list, size_t *count)
{
    Consilium__V1__SiteEvaluation **pooled = list + *count;
    size_t pooled_count = 0;
    for (size_t i = 0; i < results->count; i++) {
        const Consilium__V1__TaskResult *result = results->folded[i];
        for (size_t e = 0; result && e < result->n_evaluations; e++) {
            const Consilium__V1__Evaluation *evaluation = result->evaluations[e];
            if (strcmp(evaluation->model, "global") != 0)
                continue;
            Consilium__V1__Evaluation *sum = find_pooled(pooled, pooled_count, evaluation);
            if (!sum) {
                CS_TRY(new_pooled(results->arena, evaluation, &pooled[pooled_count]));
                sum = pooled[pooled_count++]->evaluation;
            }
            CS_TRY(add_metrics(results->arena, sum, evaluation));
        }
    }
    *count += pooled_count;
    return CS_OK;
}

static size_t evaluations_in(const results *results)
{
    size_t count = 0;
    for (size_t i = 0; i < results->count; i++)
        count += results->folded[i] ? results->folded[i]->n_evaluations : 0;
    return count;
}

static bool metric_value(const Consilium__V1__Evaluation *evaluation, const char *name, double *ret)
{
    for (size_t i = 0; i < evaluation->n_metrics; i++) {
        const Consilium__V1__Metric *metric = evaluation->metrics[i];
        if (metric->is_defined && strcmp(metric->name, name) == 0) {
            *ret = metric->value;
            return true;
        }
    }
    return false;
}

/* The metric that the plan stops by; of those for which more is better the negative. */
static bool stopping_score(const cs_plan *plan, Consilium__V1__SiteEvaluation *const *pooled, size_t count, double *ret)
{
    const cs_metric metric = plan->training.early_stopping.metric;
    const char *name = metric == CS_METRIC_AUC ? POOLED_AUC : cs_metric_name(metric);
    const char *standardize = cs_standardize_name(plan->dataset.standardize);
    for (size_t i = 0; i < count; i++) {
        const Consilium__V1__Evaluation *evaluation = pooled[i]->evaluation;
        if (strcmp(evaluation->split, "valid") != 0 || strcmp(evaluation->standardize, standardize) != 0)
            continue;
        if (!metric_value(evaluation, name, ret))
            return false;
        if (metric == CS_METRIC_AUC || metric == CS_METRIC_ACCURACY)
            *ret = -*ret;
        return true;
    }
    return false;
}

cs_status report_score(cs_engine *engine, const struct job *job, uint32_t round, const cs_phase *phase, bool *ret_has,
                       double *ret_score)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    CS_AUTO(results) results = {0};
    CS_TRY(read_results(engine, job, round, phase->name, arena, &results));
    Consilium__V1__SiteEvaluation **pooled = take(arena, evaluations_in(&results), sizeof(*pooled));
    NEED(pooled);
    size_t count = 0;
    CS_TRY(pool(&results, pooled, &count));

    if (job->plan->plan->training.early_stopping.is_on) {
        *ret_has = stopping_score(job->plan->plan, pooled, count, ret_score);
        return CS_OK;
    }
    /* Validation rows choose a model where there are some; and the standardization the plan trains with. */
    const Consilium__V1__Evaluation *best = NULL;
    int best_rank = -1;
    const char *standardize = cs_standardize_name(job->plan->plan->dataset.standardize);
    for (size_t i = 0; i < count; i++) {
        const Consilium__V1__Evaluation *evaluation = pooled[i]->evaluation;
        const int rank =
            2 * (strcmp(evaluation->split, "valid") == 0) + (strcmp(evaluation->standardize, standardize) == 0);
        if (rank > best_rank) {
            best = evaluation;
            best_rank = rank;
        }
    }
    double value = 0;
    *ret_has = false;
    if (best && metric_value(best, "log_loss", &value)) {
        *ret_has = true;
        *ret_score = value;
    } else if (best && metric_value(best, "accuracy", &value)) {
        *ret_has = true;
        *ret_score = -value;
    }
    return CS_OK;
}

static cs_status loss_of(const results *results, double *ret)
{
    double sum = 0, weight = 0;
    for (size_t i = 0; i < results->count; i++) {
        if (!results->folded[i])
            continue;
        sum += results->folded[i]->loss * (double)results->folded[i]->samples;
        weight += (double)results->folded[i]->samples;
    }
    *ret = weight > 0 ? sum / weight : 0;
    return CS_OK;
}

cs_status report_loss(cs_engine *engine, const struct job *job, uint32_t round, double *ret)
{
    const cs_phase *phases[CS_PHASES_MAX];
    const size_t count = job->mode->phases(job->plan->plan, round, phases);
    *ret = 0;
    for (size_t i = 0; i < count; i++) {
        if (!phases[i]->states_samples)
            continue;
        CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
        CS_AUTO(results) results = {0};
        CS_TRY(read_results(engine, job, round, phases[i]->name, arena, &results));
        return loss_of(&results, ret);
    }
    return CS_OK;
}

/* ---- sites ---- */

static Consilium__V1__Participation stage_of(const struct task *task)
{
    switch (task->stage) {
    case CONSILIUM__V1__STAGE__STAGE_FETCHING:
        return CONSILIUM__V1__PARTICIPATION__FETCHING;
    case CONSILIUM__V1__STAGE__STAGE_TRAINING:
        return CONSILIUM__V1__PARTICIPATION__TRAINING;
    case CONSILIUM__V1__STAGE__STAGE_EVALUATING:
        return CONSILIUM__V1__PARTICIPATION__EVALUATING;
    case CONSILIUM__V1__STAGE__STAGE_UPLOADING:
        return CONSILIUM__V1__PARTICIPATION__UPLOADING;
    case CONSILIUM__V1__STAGE__STAGE_AGREEING:
        return CONSILIUM__V1__PARTICIPATION__AGREEING;
    case CONSILIUM__V1__STAGE__STAGE_ALIGNING:
        return CONSILIUM__V1__PARTICIPATION__ALIGNING;
    default:
        return CONSILIUM__V1__PARTICIPATION__READY;
    }
}

static Consilium__V1__Participation participation_of_result(int state)
{
    switch (state) {
    case CS_TASK_ACCEPTED:
        return CONSILIUM__V1__PARTICIPATION__ANSWERED;
    case CS_TASK_FOLDED:
        return CONSILIUM__V1__PARTICIPATION__FOLDED;
    case CS_TASK_LATE:
        return CONSILIUM__V1__PARTICIPATION__LATE;
    default:
        return CONSILIUM__V1__PARTICIPATION__EXCLUDED;
    }
}

/* A site that has not decided: was it ever offered the plan, or did it never come? */
static Consilium__V1__Participation undecided(cs_engine *engine, const struct member *member)
{
    if (member->has_offer || member->row.decision == CONSILIUM__V1__DECISION__DECISION_PENDING)
        return CONSILIUM__V1__PARTICIPATION__ENROLLED;
    cs_site_record record;
    const bool is_enrolled =
        cs_registry_find(engine->store, member->row.site, &record) == CS_OK && record.state == CS_SITE_ENROLLED;
    return is_enrolled && engine_is_connected(engine, member->row.site) ? CONSILIUM__V1__PARTICIPATION__ENROLLED
                                                                        : CONSILIUM__V1__PARTICIPATION__INVITED;
}

static void describe_task(const struct task *task, Consilium__V1__SiteProgress *ret)
{
    ret->loss = task->loss;
    if (task->row.state != CS_TASK_OPEN) {
        ret->participation = participation_of_result((int)task->row.state);
        ret->reason = (char *)(uintptr_t)task->row.reason;
        return;
    }
    ret->participation = stage_of(task);
    ret->rate = task->rate;
    ret->percent = task->total > 0 ? 100.0 * (double)task->done / (double)task->total : 0;
}

static void describe_member(cs_engine *engine, const struct job *job, const struct member *member,
                            Consilium__V1__SiteProgress *ret)
{
    const struct task *task = job_task(job, member->row.site);
    const bool is_open_phase =
        job->row.outcome == 0 && (job->row.state == ROUND_COLLECTING || job->row.state == ROUND_FOLDING);
    ret->site = (char *)(uintptr_t)member->row.site;
    ret->is_connected = engine_is_connected(engine, member->row.site);
    ret->rounds_folded = member->row.rounds_folded;
    ret->reason = (char *)(uintptr_t)member->row.reason;
    if (member->is_revoked) {
        ret->participation = CONSILIUM__V1__PARTICIPATION__EXCLUDED;
        ret->reason = (char *)"revoked";
    } else if (member->row.decision == CONSILIUM__V1__DECISION__DECISION_REFUSED) {
        ret->participation = CONSILIUM__V1__PARTICIPATION__REFUSED;
    } else if (member->row.decision != CONSILIUM__V1__DECISION__DECISION_APPROVED) {
        ret->participation = undecided(engine, member);
    } else if (is_open_phase && task) {
        ret->reason = (char *)"";
        describe_task(task, ret);
    } else if (is_open_phase && member->is_participant && member->is_excluded) {
        ret->participation = CONSILIUM__V1__PARTICIPATION__EXCLUDED;
        ret->reason = (char *)(uintptr_t)member->excluded_reason;
    } else if (!is_open_phase && member->row.last_result != 0) {
        ret->participation = participation_of_result(member->row.last_result);
        ret->reason = (char *)(uintptr_t)member->row.last_reason;
    } else {
        ret->participation =
            ret->is_connected ? CONSILIUM__V1__PARTICIPATION__READY : CONSILIUM__V1__PARTICIPATION__APPROVED;
    }
}

static cs_status describe_sites(cs_engine *engine, const struct job *job, cs_arena *arena,
                                Consilium__V1__JobStatus *status)
{
    status->sites = take(arena, job->members_count, sizeof(*status->sites));
    NEED(status->sites);
    for (size_t i = 0; i < job->members_count; i++) {
        Consilium__V1__SiteProgress *site = take(arena, 1, sizeof(*site));
        NEED(site);
        consilium__v1__site_progress__init(site);
        describe_member(engine, job, &job->members[i], site);
        /* The job may be gone when the answer is sent. */
        site->site = cs_arena_strdup(arena, site->site);
        site->reason = cs_arena_strdup(arena, site->reason);
        NEED(site->site && site->reason);
        status->sites[status->n_sites++] = site;
        status->folded_everywhere += job->members[i].row.rounds_missed == 0 && job->members[i].row.rounds_folded > 0;
    }
    return CS_OK;
}

/* ---- history ---- */

static cs_status list_folded(const cs_round_row *round, const results *all, const struct job *job, cs_arena *arena,
                             Consilium__V1__RoundSummary *summary)
{
    const cs_phase *phases[CS_PHASES_MAX];
    const size_t phases_count = job->mode->phases(job->plan->plan, round->round, phases);
    summary->folded = take(arena, job->members_count, sizeof(char *));
    summary->not_folded = take(arena, job->members_count, sizeof(*summary->not_folded));
    NEED(summary->folded && summary->not_folded);
    for (size_t m = 0; m < job->members_count; m++) {
        const char *site = job->members[m].row.site;
        bool is_folded = false;
        const cs_task_row *bad = NULL;
        for (size_t i = 0; i < all->count; i++) {
            if (strcmp(all->rows[i].site, site) != 0)
                continue;
            bool counts = false;
            for (size_t p = 0; p < phases_count; p++)
                counts = counts || (phases[p]->counts_as_folded && strcmp(phases[p]->name, all->rows[i].phase) == 0);
            is_folded = is_folded || (all->rows[i].state == CS_TASK_FOLDED && (counts || phases_count == 1));
            if (all->rows[i].state != CS_TASK_FOLDED && all->rows[i].state != CS_TASK_OPEN &&
                all->rows[i].state != CS_TASK_ACCEPTED)
                bad = &all->rows[i];
        }
        char *name = cs_arena_strdup(arena, site);
        NEED(name);
        if (is_folded && !bad) {
            summary->folded[summary->n_folded++] = name;
            continue;
        }
        if (round->closed_ms == 0 && !bad)
            continue; /* still at work */
        Consilium__V1__SiteReason *reason = take(arena, 1, sizeof(*reason));
        NEED(reason);
        consilium__v1__site_reason__init(reason);
        reason->site = name;
        reason->reason = cs_arena_strdup(arena, bad ? bad->reason : "took no part in the round");
        NEED(reason->reason);
        summary->not_folded[summary->n_not_folded++] = reason;
    }
    return CS_OK;
}

static cs_status describe_model(cs_engine *engine, const struct job *job, uint32_t round, cs_arena *arena,
                                Consilium__V1__Blob **ret)
{
    cs_blob_row row;
    const cs_status found = cs_jobs_blob_find(engine->store, job->row.id, round, "", "", CS_BLOB_MODEL, &row);
    if (found == CS_NOT_FOUND)
        return CS_OK;
    CS_TRY(found);
    Consilium__V1__Blob *blob = take(arena, 1, sizeof(*blob));
    NEED(blob);
    consilium__v1__blob__init(blob);
    blob->name = cs_arena_strdup(arena, CS_BLOB_MODEL);
    NEED(blob->name);
    if (row.is_kept) {
        void *hash = cs_arena_copy(arena, row.hash.bytes, CS_HASH_BYTES);
        NEED(hash);
        blob->sha256 = cs_wire_data(hash, CS_HASH_BYTES);
        blob->size = row.size;
    }
    *ret = blob;
    return CS_OK;
}

static cs_status add_site_evaluations(const results *results, const char *model, cs_arena *arena,
                                      Consilium__V1__SiteEvaluation **list, size_t *count)
{
    for (size_t i = 0; i < results->count; i++) {
        const Consilium__V1__TaskResult *result = results->folded[i];
        for (size_t e = 0; result && e < result->n_evaluations; e++) {
            if (strcmp(result->evaluations[e]->model, model) != 0)
                continue;
            Consilium__V1__SiteEvaluation *item = take(arena, 1, sizeof(*item));
            NEED(item);
            consilium__v1__site_evaluation__init(item);
            item->site = cs_arena_strdup(arena, results->rows[i].site);
            NEED(item->site);
            item->evaluation = result->evaluations[e];
            list[(*count)++] = item;
        }
    }
    return CS_OK;
}

/* Evaluations of the model that `round` made: by the phases of this round and the next whose tasks were given it; and
 * of what each site made of the model before by its own training. */
static cs_status describe_evaluations(cs_engine *engine, const struct job *job, uint32_t round, const results *all,
                                      cs_arena *arena, Consilium__V1__RoundSummary *summary)
{
    Consilium__V1__SiteEvaluation **list = NULL;
    size_t count = 0, capacity = evaluations_in(all);
    results judges[2 * CS_PHASES_MAX] = {0};
    size_t judges_count = 0;
    cs_status status = CS_OK;
    for (uint32_t r = round; r <= round + 1; r++) {
        const cs_phase *phases[CS_PHASES_MAX];
        const size_t phases_count = job->mode->phases(job->plan->plan, r, phases);
        for (size_t p = 0; p < phases_count && status == CS_OK; p++) {
            cs_input inputs[CS_INPUTS_MAX];
            const size_t inputs_count = job->mode->inputs(job->plan->plan, r, phases[p], inputs);
            bool judges_this = false;
            for (size_t i = 0; i < inputs_count; i++)
                judges_this = judges_this || (strcmp(inputs[i].name, CS_BLOB_MODEL) == 0 && inputs[i].round == round);
            if (!phases[p]->judges_base || !judges_this)
                continue;
            results *judge = &judges[judges_count++];
            status = read_results(engine, job, r, phases[p]->name, arena, judge);
            capacity += 2 * evaluations_in(judge);
        }
    }
    if (status == CS_OK) {
        list = take(arena, capacity, sizeof(*list));
        status = list ? CS_OK : cs_fail(CS_EXHAUSTED, "the answer does not fit its memory");
    }
    for (size_t i = 0; i < judges_count && status == CS_OK; i++) {
        status = add_site_evaluations(&judges[i], "global", arena, list, &count);
        if (status == CS_OK)
            status = pool(&judges[i], list, &count);
    }
    if (status == CS_OK)
        status = add_site_evaluations(all, "local", arena, list, &count);
    if (status == CS_OK)
        status = add_site_evaluations(all, "cohort", arena, list, &count); /* how many patients were found */
    for (size_t i = 0; i < judges_count; i++)
        results_clear(&judges[i]);
    summary->evaluations = list;
    summary->n_evaluations = count;
    return status;
}

static cs_status describe_round(cs_engine *engine, const struct job *job, const cs_round_row *round, cs_arena *arena,
                                Consilium__V1__RoundSummary *summary)
{
    CS_AUTO(results) all = {0};
    CS_TRY(read_results(engine, job, round->round, NULL, arena, &all));
    summary->round = round->round;
    summary->loss = round->loss;
    if (round->closed_ms > 0)
        summary->duration_ms = (uint64_t)(round->closed_ms - round->opened_ms);
    CS_TRY(describe_model(engine, job, round->round, arena, &summary->model));
    CS_TRY(list_folded(round, &all, job, arena, summary));
    return describe_evaluations(engine, job, round->round, &all, arena, summary);
}

static cs_status describe_history(cs_engine *engine, const struct job *job, const cs_round_row *rounds, size_t count,
                                  cs_arena *arena, Consilium__V1__JobStatus *status)
{
    status->history = take(arena, count, sizeof(*status->history));
    NEED(status->history);
    for (size_t i = 0; i < count; i++) {
        Consilium__V1__RoundSummary *summary = take(arena, 1, sizeof(*summary));
        NEED(summary);
        consilium__v1__round_summary__init(summary);
        CS_TRY(describe_round(engine, job, &rounds[i], arena, summary));
        status->history[status->n_history++] = summary;
    }
    return CS_OK;
}

/* Mean of the finished rounds × the rounds that are left. */
static uint64_t estimate(const struct job *job, const cs_round_row *rounds, size_t count)
{
    uint64_t sum = 0, finished = 0;
    for (size_t i = 0; i < count; i++) {
        if (rounds[i].round == 0 || rounds[i].closed_ms == 0)
            continue;
        sum += (uint64_t)(rounds[i].closed_ms - rounds[i].opened_ms);
        finished++;
    }
    const uint64_t total = job->plan->plan->training.rounds;
    if (job->row.outcome != 0 || finished == 0 || finished >= total)
        return 0;
    return CS_MAX(sum / finished * (total - finished), (uint64_t)1);
}

static cs_status describe_rounds(cs_engine *engine, const struct job *job, bool with_history, cs_arena *arena,
                                 Consilium__V1__JobStatus *status)
{
    cs_round_row *rounds = NULL;
    size_t count = 0;
    CS_TRY(cs_jobs_rounds(engine->store, job->row.id, &rounds, &count));
    status->eta_ms = estimate(job, rounds, count);
    cs_status result = with_history ? describe_history(engine, job, rounds, count, arena, status) : CS_OK;
    cs_round_rows_free(rounds, count);
    return result;
}

/* Why nothing moves, in one sentence. */
static char *reason_of(cs_engine *engine, const struct job *job, cs_arena *arena)
{
    if (job->row.reason[0] || job->row.outcome != 0)
        return cs_arena_strdup(arena, job->row.reason);
    if (job->row.state != ROUND_WAITING && job->row.state != ROUND_IDLE)
        return cs_arena_strdup(arena, "");
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    for (size_t i = 0; i < job->members_count; i++) {
        const struct member *member = &job->members[i];
        const bool has_approved = member->row.decision == CONSILIUM__V1__DECISION__DECISION_APPROVED;
        if (member->is_revoked || member->row.decision == CONSILIUM__V1__DECISION__DECISION_REFUSED)
            continue;
        if (has_approved && engine_is_connected(engine, member->row.site))
            continue;
        cs_buffer_printf(&text, "%s %s (%s)", text.size > 0 ? "," : "waiting for", member->row.site,
                         has_approved ? "not connected" : "no decision yet");
    }
    return cs_arena_strdup(arena, cs_buffer_text(&text));
}

cs_status report_job(cs_engine *engine, const struct job *job, bool with_history, cs_arena *arena,
                     Consilium__V1__JobStatus **ret)
{
    Consilium__V1__JobStatus *status = take(arena, 1, sizeof(*status));
    NEED(status);
    consilium__v1__job_status__init(status);
    const cs_phase *phase = job_phase(job);
    const bool is_in_phase = job->row.state == ROUND_COLLECTING || job->row.state == ROUND_FOLDING;
    void *hash = cs_arena_copy(arena, job->row.plan_hash.bytes, CS_HASH_BYTES);
    NEED(hash);
    status->job = cs_arena_strdup(arena, job->row.name);
    status->plan_sha256 = cs_wire_data(hash, CS_HASH_BYTES);
    status->state = job_public_state(job);
    status->reason = reason_of(engine, job, arena);
    status->round = job->row.round;
    status->rounds = job->mode->routes ? 1 : job->plan->plan->training.rounds; /* an alignment is one round */
    status->phase = cs_arena_strdup(arena, is_in_phase && phase ? phase->name : "");
    NEED(status->job && status->reason && status->phase);
    status->created_ms = (uint64_t)job->row.created_ms;
    status->finished_ms = (uint64_t)job->row.finished_ms;
    status->invited = (uint32_t)job->members_count;
    CS_TRY(describe_sites(engine, job, arena, status));
    CS_TRY(describe_rounds(engine, job, with_history, arena, status));
    const cs_status found = cs_jobs_best_round(engine->store, job->row.id, &status->best_round);
    if (found != CS_OK && found != CS_NOT_FOUND)
        return found;
    *ret = status;
    return CS_OK;
}
