/* What the page of metrics says of jobs, rounds and sites. Engine's thread. Totals count from the start of the process;
 * everything else is read where it stands. */
#include "server/engine/internal.h"

#include "common/base/clock.h"

#include <string.h>

#define STATES (CS_TASK_LATE + 1)

/* One for each site that ended a task. */
struct tally {
    struct tally *next;
    char site[CS_NAME_MAX + 1];
    uint64_t ended[STATES];
    uint64_t uncommitted[STATES];
};

void measure_task(cs_engine *engine, const char *site, cs_task_state state)
{
    struct tally **place = &engine->tallies;
    while (*place != NULL && strcmp((*place)->site, site) != 0)
        place = &(*place)->next;
    if (*place == NULL) {
        *place = cs_alloc(sizeof(**place));
        memcpy((*place)->site, site, strnlen(site, CS_NAME_MAX));
    }
    (*place)->uncommitted[state]++;
}

void measure_settle(cs_engine *engine, bool was_committed)
{
    for (struct tally *tally = engine->tallies; tally != NULL; tally = tally->next) {
        for (size_t i = 0; i < STATES && was_committed; i++)
            tally->ended[i] += tally->uncommitted[i];
        memset(tally->uncommitted, 0, sizeof(tally->uncommitted));
    }
}

void measure_free(cs_engine *engine)
{
    for (struct tally *tally = engine->tallies, *next; tally != NULL; tally = next) {
        next = tally->next;
        cs_free(tally);
    }
    engine->tallies = NULL;
}

/* ---- jobs ---- */

static cs_status measure_states(cs_engine *engine, cs_metrics_page *page)
{
    static const char *const words[] = {
        [CONSILIUM__V1__JOB_STATE__JOB_WAITING] = "waiting",     [CONSILIUM__V1__JOB_STATE__JOB_RUNNING] = "running",
        [CONSILIUM__V1__JOB_STATE__JOB_PAUSED] = "paused",       [CONSILIUM__V1__JOB_STATE__JOB_COMPLETE] = "complete",
        [CONSILIUM__V1__JOB_STATE__JOB_PARTIAL] = "partial",     [CONSILIUM__V1__JOB_STATE__JOB_FAILED] = "failed",
        [CONSILIUM__V1__JOB_STATE__JOB_CANCELLED] = "cancelled",
    };
    uint64_t counts[CS_COUNT(words)] = {0};
    cs_job_row *rows = NULL;
    size_t count = 0;
    CS_TRY(cs_jobs_list(engine->store, false, &rows, &count));
    for (size_t i = 0; i < count; i++)
        if (rows[i].outcome > 0 && (size_t)rows[i].outcome < CS_COUNT(counts))
            counts[rows[i].outcome]++;
    cs_free(rows);
    for (const struct job *job = engine->jobs; job != NULL; job = job->next)
        if (job->row.outcome == 0)
            counts[job_public_state(job)]++;
    cs_metrics_family(page, "consilium_jobs", CS_GAUGE, "Jobs by state, those that have ended too.");
    for (size_t i = 1; i < CS_COUNT(words); i++)
        cs_metrics_count(page, counts[i], CS_LABEL("state", words[i]));
    return CS_OK;
}

static const struct job *next_open(const struct job *job)
{
    while (job != NULL && job->row.outcome != 0)
        job = job->next;
    return job;
}

#define FOR_EACH_OPEN(job)                                                                                             \
    for (const struct job *job = next_open(engine->jobs); job != NULL; job = next_open(job->next))

static cs_status measure_round_durations(cs_engine *engine, cs_metrics_page *page)
{
    cs_metrics_family(page, "consilium_job_last_round_duration_seconds", CS_GAUGE,
                      "How long the newest finished round of each open job took.");
    FOR_EACH_OPEN(job)
    {
        CS_AUTO(cs_round_row) round = {0};
        cs_status found = cs_jobs_round_find(engine->store, job->row.id, job->row.round, &round);
        if ((found == CS_NOT_FOUND || (found == CS_OK && round.closed_ms == 0)) && job->row.round > 0) {
            cs_round_row_clear(&round);
            found = cs_jobs_round_find(engine->store, job->row.id, job->row.round - 1, &round);
        }
        if (found != CS_OK && found != CS_NOT_FOUND)
            return found;
        if (found == CS_OK && round.closed_ms > 0)
            cs_metrics_number(page, (double)(round.closed_ms - round.opened_ms) / 1000.0,
                              CS_LABEL("job_name", job->row.name));
    }
    return CS_OK;
}

static cs_status measure_jobs(cs_engine *engine, cs_metrics_page *page)
{
    CS_TRY(measure_states(engine, page));
    cs_metrics_family(page, "consilium_job_round", CS_GAUGE, "The round that each open job is in; 0 makes the model.");
    FOR_EACH_OPEN(job)
    cs_metrics_count(page, job->row.round, CS_LABEL("job_name", job->row.name));
    cs_metrics_family(page, "consilium_job_planned_rounds", CS_GAUGE, "Rounds that the plan of each open job has.");
    FOR_EACH_OPEN(job)
    cs_metrics_count(page, plan_of(job)->training.rounds, CS_LABEL("job_name", job->row.name));
    CS_TRY(measure_round_durations(engine, page));
    cs_metrics_family(page, "consilium_job_phase_left_seconds", CS_GAUGE,
                      "Time until the deadline that runs for each open job; while it waits, for approvals.");
    const int64_t now_ms = cs_clock_monotonic_ms();
    FOR_EACH_OPEN(job)
    {
        if (job->row.remaining_ms != CS_JOB_NO_DEADLINE)
            cs_metrics_number(page, (double)CS_MAX(job->deadline_at_ms - now_ms, (int64_t)0) / 1000.0,
                              CS_LABEL("job_name", job->row.name));
    }
    cs_metrics_family(page, "consilium_job_tasks", CS_GAUGE,
                      "Tasks of the open phase of each job, by whether their result has come.");
    FOR_EACH_OPEN(job)
    {
        uint64_t open = 0;
        for (size_t i = 0; i < job->tasks_count; i++)
            open += job->tasks[i].row.state == CS_TASK_OPEN;
        if (job->tasks_count == 0)
            continue;
        cs_metrics_count(page, open, CS_LABEL("job_name", job->row.name), CS_LABEL("state", "open"));
        cs_metrics_count(page, job->tasks_count - open, CS_LABEL("job_name", job->row.name),
                         CS_LABEL("state", "ended"));
    }
    return CS_OK;
}

/* ---- sites ---- */

static void measure_site_list(cs_engine *engine, cs_metrics_page *page, const cs_site_record *sites, size_t count)
{
    static const char *const words[] = {
        [CS_SITE_INVITED] = "invited", [CS_SITE_ENROLLED] = "enrolled", [CS_SITE_REVOKED] = "revoked"};
    uint64_t counts[CS_COUNT(words)] = {0};
    for (size_t i = 0; i < count; i++)
        counts[sites[i].state]++;
    cs_metrics_family(page, "consilium_sites", CS_GAUGE, "Sites by state of their membership.");
    for (size_t i = 0; i < CS_COUNT(words); i++)
        cs_metrics_count(page, counts[i], CS_LABEL("state", words[i]));
    cs_metrics_family(page, "consilium_site_attending", CS_GAUGE, "1 while the enrolled site has a session here.");
    for (size_t i = 0; i < count; i++)
        if (sites[i].state == CS_SITE_ENROLLED)
            cs_metrics_count(page, engine_is_connected(engine, sites[i].name), CS_LABEL("site", sites[i].name));
    cs_metrics_family(page, "consilium_site_certificate_left_seconds", CS_GAUGE,
                      "Time until the newest certificate of each enrolled site ends; negative once it has.");
    const int64_t now_ms = cs_clock_wall_ms();
    for (size_t i = 0; i < count; i++)
        if (sites[i].state == CS_SITE_ENROLLED)
            cs_metrics_number(page, (double)(sites[i].certificate_not_after_ms - now_ms) / 1000.0,
                              CS_LABEL("site", sites[i].name));
}

static void measure_results(cs_engine *engine, cs_metrics_page *page)
{
    static const char *const words[STATES] = {[CS_TASK_FOLDED] = "folded",
                                              [CS_TASK_REFUSED] = "refused",
                                              [CS_TASK_FAILED] = "failed",
                                              [CS_TASK_EXCLUDED] = "excluded",
                                              [CS_TASK_LATE] = "late"};
    cs_metrics_family(page, "consilium_site_tasks_total", CS_COUNTER,
                      "Tasks of each site that ended since the coordinator started, by how.");
    for (const struct tally *tally = engine->tallies; tally != NULL; tally = tally->next)
        for (size_t i = 0; i < STATES; i++)
            if (words[i] != NULL)
                cs_metrics_count(page, tally->ended[i], CS_LABEL("site", tally->site), CS_LABEL("outcome", words[i]));
}

cs_status cs_engine_measure(cs_engine *engine, cs_metrics_page *page)
{
    CS_TRY(measure_jobs(engine, page));
    cs_site_record *sites = NULL;
    size_t count = 0;
    CS_TRY(cs_registry_list(engine->store, &sites, &count));
    measure_site_list(engine, page, sites, count);
    cs_free(sites);
    measure_results(engine, page);
    cs_metrics_family(page, "consilium_engine_mailbox_messages", CS_GAUGE,
                      "Messages that wait for the engine's thread.");
    cs_metrics_count(page, cs_mailbox_depth(engine->mailbox));
    return CS_OK;
}
