/* Schema and queries of db/agent.db. Agent thread only. Every change joins the open transaction and commits it;
 * acknowledgements alone leave it open, so that a round costs one commit. */
#include "client/agent/records.h"

#include "common/base/failpoint.h"
#include "common/db/db.h"

static const char schema_v1[] =
    "CREATE TABLE plan (sha256 BLOB PRIMARY KEY, text BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE job (job TEXT PRIMARY KEY, plan BLOB NOT NULL REFERENCES plan, plan_name TEXT NOT NULL,"
    "  decision INTEGER NOT NULL, reason TEXT NOT NULL, state INTEGER NOT NULL, highest_round INTEGER NOT NULL,"
    "  offered_ms INTEGER NOT NULL, sites_minimum INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE approval (plan BLOB PRIMARY KEY, runs_left INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE result (job TEXT NOT NULL REFERENCES job ON DELETE CASCADE, round INTEGER NOT NULL,"
    "  phase TEXT NOT NULL, packed BLOB NOT NULL, is_acknowledged INTEGER NOT NULL,"
    "  PRIMARY KEY (job, round, phase)) WITHOUT ROWID;"
    "CREATE TABLE result_blob (job TEXT NOT NULL, round INTEGER NOT NULL, phase TEXT NOT NULL, blob BLOB NOT NULL,"
    "  PRIMARY KEY (job, round, phase, blob),"
    "  FOREIGN KEY (job, round, phase) REFERENCES result ON DELETE CASCADE) WITHOUT ROWID;"
    "CREATE INDEX result_blob_of ON result_blob (blob);";

/* One row: the roster as the coordinator says it, and as this site approved it (cs_roster_write). */
static const char schema_v2[] = "CREATE TABLE roster (id INTEGER PRIMARY KEY CHECK (id = 1), offered BLOB NOT NULL,"
                                "  approved BLOB NOT NULL, approved_ms INTEGER NOT NULL);"
                                "INSERT INTO roster VALUES (1, x'', x'', 0);";

/* What the site keeps of a job for its own next task: an optimizer's memory. */
static const char schema_v3[] =
    "CREATE TABLE kept (job TEXT NOT NULL REFERENCES job ON DELETE CASCADE, name TEXT NOT NULL, round INTEGER NOT NULL,"
    "  blob BLOB NOT NULL, PRIMARY KEY (job, name)) WITHOUT ROWID;"
    "CREATE INDEX kept_of ON kept (blob);";

/* The account of alignments: what a site has let others ask. Kept for ever, whatever becomes of the jobs. `patients` is
 * the cohort's size where this site was told it. */
static const char schema_v4[] = "CREATE TABLE alignment (job TEXT PRIMARY KEY, question BLOB NOT NULL,"
                                "  session BLOB NOT NULL, peers TEXT NOT NULL, begun_ms INTEGER NOT NULL,"
                                "  tokens INTEGER NOT NULL DEFAULT 0, is_repeat INTEGER NOT NULL DEFAULT 0,"
                                "  is_answered INTEGER NOT NULL DEFAULT 0, patients INTEGER NOT NULL DEFAULT 0)"
                                " WITHOUT ROWID;"
                                "CREATE INDEX alignment_of ON alignment (question);";

/* JOB_COMPLETE and what follows it. */
#define ENDED "state >= 4"

struct cs_records {
    cs_db *db;
    bool is_open; /* a transaction holds acknowledgements */
};

cs_status cs_records_open(const char *path, cs_records **ret)
{
    const char *const migrations[] = {schema_v1, schema_v2, schema_v3, schema_v4};
    CS_AUTO_PTR(cs_records) records = cs_alloc(sizeof(*records));
    CS_TRY(cs_db_open(path, migrations, CS_COUNT(migrations), &records->db));
    *ret = CS_TAKE(records);
    return CS_OK;
}

void cs_records_free(cs_records *records)
{
    if (records == NULL)
        return;
    if (records->is_open)
        CS_IGNORE(cs_db_commit(records->db), "unwritten acknowledgements cost one more exchange");
    cs_db_free(records->db);
    cs_free(records);
}

static cs_status join_transaction(cs_records *records)
{
    if (records->is_open)
        return CS_OK;
    CS_TRY(cs_db_begin(records->db));
    records->is_open = true;
    return CS_OK;
}

/* Ends what join_transaction began: commits when `status` is good, undoes otherwise. */
static cs_status leave_transaction(cs_records *records, cs_status status)
{
    if (status == CS_OK)
        status = cs_failpoint("agent.records.commit");
    if (status == CS_OK)
        status = cs_db_commit(records->db);
    if (status != CS_OK) {
        CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
        cs_db_rollback(records->db);
        CS_IGNORE(cs_fail(status, "%s", sentence), "leaves the first sentence");
    }
    records->is_open = false;
    return status;
}

static cs_bytes of_hash(const cs_hash *hash)
{
    return cs_bytes_of(hash->bytes, sizeof(hash->bytes));
}

static cs_bytes copy_bytes(cs_arena *arena, cs_bytes bytes)
{
    return cs_bytes_of(cs_arena_copy(arena, bytes.data, bytes.size), bytes.size);
}

static cs_status count_open_jobs(cs_records *records, int64_t *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db, "SELECT count(*) FROM job WHERE NOT " ENDED, "", &rows));
    if (cs_rows_next(rows))
        *ret = cs_rows_int(rows, 0);
    return cs_rows_status(rows);
}

static cs_status add_job(cs_records *records, const cs_job_record *job, cs_bytes plan, bool uses_run, int64_t now_ms)
{
    CS_TRY(cs_db_run(records->db, "INSERT OR IGNORE INTO plan VALUES (?1, ?2)", "bb", of_hash(&job->plan), plan));
    CS_TRY(cs_db_run(records->db, "INSERT INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, -1, ?7, ?8)", "tbtitiii", job->job,
                     of_hash(&job->plan), job->plan_name, (int64_t)job->decision, job->reason, (int64_t)job->state,
                     now_ms, (int64_t)job->sites_minimum));
    if (uses_run)
        CS_TRY(cs_db_run(records->db, "UPDATE approval SET runs_left = runs_left - 1 WHERE plan = ?1", "b",
                         of_hash(&job->plan)));
    return CS_OK;
}

cs_status cs_records_add_job(cs_records *records, const cs_job_record *job, cs_bytes plan, bool uses_run,
                             int64_t now_ms)
{
    int64_t open_jobs = 0;
    CS_TRY(count_open_jobs(records, &open_jobs));
    if (open_jobs >= CS_OPEN_JOBS_MAX)
        return cs_fail(CS_STATE, "this site has %lld open jobs, the most is %d", (long long)open_jobs,
                       CS_OPEN_JOBS_MAX);
    CS_TRY(join_transaction(records));
    return leave_transaction(records, add_job(records, job, plan, uses_run, now_ms));
}

#define JOB_COLUMNS                                                                                                    \
    "job.job, job.plan, plan_name, decision, reason, state, highest_round, coalesce(approval.runs_left, 0), "          \
    "sites_minimum FROM job "                                                                                          \
    "LEFT JOIN approval ON approval.plan = job.plan"

static cs_status read_job(cs_rows *rows, cs_arena *arena, cs_job_record *ret)
{
    CS_TRY(cs_hash_from(cs_rows_bytes(rows, 1), "plan hash in agent.db", &ret->plan));
    ret->job = cs_arena_strdup(arena, cs_rows_text(rows, 0));
    ret->plan_name = cs_arena_strdup(arena, cs_rows_text(rows, 2));
    ret->decision = (Consilium__V1__Decision)cs_rows_int(rows, 3);
    ret->reason = cs_arena_strdup(arena, cs_rows_text(rows, 4));
    ret->state = (Consilium__V1__JobState)cs_rows_int(rows, 5);
    ret->highest_round = cs_rows_int(rows, 6);
    ret->runs_left = (uint32_t)cs_rows_int(rows, 7);
    ret->sites_minimum = (uint32_t)cs_rows_int(rows, 8);
    return ret->job != NULL && ret->plan_name != NULL && ret->reason != NULL
               ? CS_OK
               : cs_fail(CS_EXHAUSTED, "agent.db: more jobs than fit the answer");
}

cs_status cs_records_find_job(cs_records *records, const char *job, cs_arena *arena, cs_job_record *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db, "SELECT " JOB_COLUMNS " WHERE job.job = ?1", "t", &rows, job));
    if (cs_rows_next(rows))
        return read_job(rows, arena, ret);
    CS_TRY(cs_rows_status(rows));
    return cs_fail(CS_NOT_FOUND, "job '%s' was never offered to this site", job);
}

cs_status cs_records_list_jobs(cs_records *records, cs_arena *arena, cs_job_record **ret, size_t *ret_count)
{
    const size_t limit = CS_OPEN_JOBS_MAX + CS_ENDED_JOBS_KEPT;
    cs_job_record *jobs = cs_arena_alloc(arena, limit * sizeof(*jobs));
    if (jobs == NULL)
        return cs_fail(CS_EXHAUSTED, "agent.db: more jobs than fit the answer");
    size_t count = 0;
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db, "SELECT " JOB_COLUMNS " ORDER BY offered_ms DESC, job.job LIMIT ?1", "i", &rows,
                       (int64_t)limit));
    while (cs_rows_next(rows))
        CS_TRY(read_job(rows, arena, &jobs[count++]));
    CS_TRY(cs_rows_status(rows));
    *ret = jobs;
    *ret_count = count;
    return CS_OK;
}

cs_status cs_records_find_plan(cs_records *records, const cs_hash *plan, cs_arena *arena, cs_bytes *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db, "SELECT text FROM plan WHERE sha256 = ?1", "b", &rows, of_hash(plan)));
    if (!cs_rows_next(rows)) {
        CS_TRY(cs_rows_status(rows));
        return cs_fail(CS_NOT_FOUND, "agent.db has no plan of that hash");
    }
    *ret = copy_bytes(arena, cs_rows_bytes(rows, 0));
    return ret->data != NULL ? CS_OK : cs_fail(CS_EXHAUSTED, "agent.db: the plan does not fit the answer");
}

static cs_status forget_work(cs_records *records, const char *job)
{
    CS_TRY(cs_db_run(records->db, "DELETE FROM result WHERE job = ?1", "t", job));
    return cs_db_run(records->db, "DELETE FROM kept WHERE job = ?1", "t", job);
}

static cs_status decide(cs_records *records, const char *job, Consilium__V1__Decision decision, const char *reason,
                        uint32_t further_runs)
{
    CS_TRY(cs_db_run(records->db, "UPDATE job SET decision = ?2, reason = ?3 WHERE job = ?1", "tit", job,
                     (int64_t)decision, reason));
    /* What was computed under an approval that is withdrawn is not delivered. */
    if (decision == CONSILIUM__V1__DECISION__DECISION_REFUSED)
        CS_TRY(forget_work(records, job));
    return cs_db_run(records->db,
                     "INSERT INTO approval SELECT plan, ?2 FROM job WHERE job = ?1"
                     " ON CONFLICT (plan) DO UPDATE SET runs_left = excluded.runs_left",
                     "ti", job, (int64_t)further_runs);
}

cs_status cs_records_decide(cs_records *records, const char *job, Consilium__V1__Decision decision, const char *reason,
                            uint32_t further_runs)
{
    CS_TRY(join_transaction(records));
    return leave_transaction(records, decide(records, job, decision, reason, further_runs));
}

cs_status cs_records_further_runs(cs_records *records, const cs_hash *plan, uint32_t *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db, "SELECT runs_left FROM approval WHERE plan = ?1", "b", &rows, of_hash(plan)));
    *ret = cs_rows_next(rows) ? (uint32_t)cs_rows_int(rows, 0) : 0;
    return cs_rows_status(rows);
}

static cs_status set_state(cs_records *records, const char *job, Consilium__V1__JobState state)
{
    CS_TRY(cs_db_run(records->db, "UPDATE job SET state = ?2 WHERE job = ?1", "ti", job, (int64_t)state));
    if (state < CONSILIUM__V1__JOB_STATE__JOB_COMPLETE)
        return CS_OK;
    CS_TRY(forget_work(records, job));
    CS_TRY(cs_db_run(records->db,
                     "DELETE FROM job WHERE job IN (SELECT job FROM job WHERE " ENDED
                     " ORDER BY offered_ms DESC LIMIT -1 OFFSET ?1)",
                     "i", (int64_t)CS_ENDED_JOBS_KEPT));
    return cs_db_run(records->db, "DELETE FROM plan WHERE sha256 NOT IN (SELECT plan FROM job)", "");
}

cs_status cs_records_set_state(cs_records *records, const char *job, Consilium__V1__JobState state)
{
    CS_TRY(join_transaction(records));
    return leave_transaction(records, set_state(records, job, state));
}

static cs_status put_result(cs_records *records, const cs_result_record *result, const cs_hash *blobs, size_t count)
{
    CS_TRY(cs_db_run(records->db, "DELETE FROM result WHERE job = ?1 AND round < ?2 AND is_acknowledged", "ti",
                     result->job, (int64_t)result->round));
    CS_TRY(cs_db_run(records->db, "INSERT OR REPLACE INTO result VALUES (?1, ?2, ?3, ?4, 0)", "titb", result->job,
                     (int64_t)result->round, result->phase, result->packed));
    for (size_t i = 0; i < count; i++)
        CS_TRY(cs_db_run(records->db, "INSERT OR IGNORE INTO result_blob VALUES (?1, ?2, ?3, ?4)", "titb", result->job,
                         (int64_t)result->round, result->phase, of_hash(&blobs[i])));
    if (result->kept != NULL)
        CS_TRY(cs_db_run(records->db, "INSERT OR REPLACE INTO kept VALUES (?1, ?2, ?3, ?4)", "ttib", result->job,
                         result->kept, (int64_t)result->round, of_hash(&result->kept_blob)));
    return cs_db_run(records->db, "UPDATE job SET highest_round = max(highest_round, ?2) WHERE job = ?1", "ti",
                     result->job, (int64_t)result->round);
}

cs_status cs_records_put_result(cs_records *records, const cs_result_record *result, const cs_hash *blobs,
                                size_t blobs_count)
{
    CS_TRY(join_transaction(records));
    return leave_transaction(records, put_result(records, result, blobs, blobs_count));
}

cs_status cs_records_find_kept(cs_records *records, const char *job, const char *name, uint32_t round, cs_hash *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db, "SELECT blob FROM kept WHERE job = ?1 AND name = ?2 AND round < ?3", "tti", &rows,
                       job, name, (int64_t)round));
    if (cs_rows_next(rows))
        return cs_hash_from(cs_rows_bytes(rows, 0), "kept blob in agent.db", ret);
    CS_TRY(cs_rows_status(rows));
    return cs_fail(CS_NOT_FOUND, "job '%s' has kept no '%s'", job, name);
}

cs_status cs_records_list_results(cs_records *records, cs_arena *arena, cs_result_record **ret, size_t *ret_count)
{
    size_t count = 0, capacity = 64;
    cs_result_record *results = cs_arena_alloc(arena, capacity * sizeof(*results));
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db,
                       "SELECT job, round, phase, packed, is_acknowledged FROM result ORDER BY job, round, phase", "",
                       &rows));
    while (cs_rows_next(rows)) {
        if (count == capacity) {
            cs_result_record *more = cs_arena_alloc(arena, 2 * capacity * sizeof(*results));
            for (size_t i = 0; more != NULL && i < count; i++)
                more[i] = results[i];
            results = more;
            capacity *= 2;
        }
        if (results == NULL)
            return cs_fail(CS_EXHAUSTED, "agent.db: more results than fit in memory");
        results[count++] = (cs_result_record){.job = cs_arena_strdup(arena, cs_rows_text(rows, 0)),
                                              .round = (uint32_t)cs_rows_int(rows, 1),
                                              .phase = cs_arena_strdup(arena, cs_rows_text(rows, 2)),
                                              .packed = copy_bytes(arena, cs_rows_bytes(rows, 3)),
                                              .is_acknowledged = cs_rows_int(rows, 4) != 0};
    }
    CS_TRY(cs_rows_status(rows));
    *ret = results;
    *ret_count = count;
    return CS_OK;
}

cs_status cs_records_acknowledge(cs_records *records, const char *job, uint32_t round, const char *phase)
{
    CS_TRY(join_transaction(records));
    return cs_db_run(records->db, "UPDATE result SET is_acknowledged = 1 WHERE job = ?1 AND round = ?2 AND phase = ?3",
                     "tit", job, (int64_t)round, phase);
}

cs_status cs_records_flush(cs_records *records)
{
    return records->is_open ? leave_transaction(records, CS_OK) : CS_OK;
}

cs_status cs_records_is_blob_needed(cs_records *records, const cs_hash *blob, bool *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db,
                       "SELECT 1 FROM result_blob WHERE blob = ?1 UNION ALL SELECT 1 FROM kept WHERE blob = ?1 LIMIT 1",
                       "b", &rows, of_hash(blob)));
    *ret = cs_rows_next(rows);
    return cs_rows_status(rows);
}

cs_status cs_records_roster(cs_records *records, cs_arena *arena, cs_roster_record *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db, "SELECT offered, approved, approved_ms FROM roster", "", &rows));
    if (!cs_rows_next(rows)) {
        CS_TRY(cs_rows_status(rows));
        return cs_fail(CS_DATA_LOSS, "agent.db has lost its roster");
    }
    *ret = (cs_roster_record){.offered = copy_bytes(arena, cs_rows_bytes(rows, 0)),
                              .approved = copy_bytes(arena, cs_rows_bytes(rows, 1)),
                              .approved_ms = cs_rows_int(rows, 2)};
    return CS_OK;
}

cs_status cs_records_put_roster(cs_records *records, const cs_roster_record *roster)
{
    CS_TRY(join_transaction(records));
    return leave_transaction(records,
                             cs_db_run(records->db, "UPDATE roster SET offered = ?1, approved = ?2, approved_ms = ?3",
                                       "bbi", roster->offered, roster->approved, roster->approved_ms));
}

cs_status cs_records_begin_alignment(cs_records *records, const cs_alignment_record *alignment)
{
    CS_TRY(join_transaction(records));
    return leave_transaction(records,
                             cs_db_run(records->db,
                                       "INSERT OR IGNORE INTO alignment (job, question, session, peers, begun_ms)"
                                       " VALUES (?1, ?2, ?3, ?4, ?5)",
                                       "tbbti", alignment->job, of_hash(&alignment->question),
                                       of_hash(&alignment->session), alignment->peers, alignment->begun_ms));
}

cs_status cs_records_repeat_alignment(cs_records *records, const char *job)
{
    CS_TRY(join_transaction(records));
    return leave_transaction(records,
                             cs_db_run(records->db, "UPDATE alignment SET is_repeat = 1 WHERE job = ?1", "t", job));
}

cs_status cs_records_spend_tokens(cs_records *records, const char *job, uint64_t tokens)
{
    CS_TRY(join_transaction(records));
    return leave_transaction(
        records, cs_db_run(records->db, "UPDATE alignment SET tokens = ?2 WHERE job = ?1", "ti", job, (int64_t)tokens));
}

cs_status cs_records_answer_alignment(cs_records *records, const char *job, uint64_t patients)
{
    CS_TRY(join_transaction(records));
    return leave_transaction(records, cs_db_run(records->db,
                                                "UPDATE alignment SET is_answered = 1, patients = ?2 WHERE job = ?1",
                                                "ti", job, (int64_t)patients));
}

cs_status cs_records_alignment_usage(cs_records *records, const char *but_job, int64_t since_ms, uint64_t *ret_sessions,
                                     uint64_t *ret_tokens)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db,
                       "SELECT count(*), coalesce(sum(tokens), 0) FROM alignment"
                       " WHERE job <> ?1 AND begun_ms > ?2 AND NOT is_repeat",
                       "ti", &rows, but_job, since_ms));
    const bool has_row = cs_rows_next(rows);
    *ret_sessions = has_row ? (uint64_t)cs_rows_int(rows, 0) : 0;
    *ret_tokens = has_row ? (uint64_t)cs_rows_int(rows, 1) : 0;
    return cs_rows_status(rows);
}

cs_status cs_records_find_answer(cs_records *records, const cs_hash *question, cs_arena *arena,
                                 cs_alignment_record *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(records->db,
                       "SELECT job, session, patients, begun_ms FROM alignment"
                       " WHERE question = ?1 AND is_answered AND NOT is_repeat ORDER BY begun_ms LIMIT 1",
                       "b", &rows, of_hash(question)));
    if (!cs_rows_next(rows)) {
        CS_TRY(cs_rows_status(rows));
        return cs_fail(CS_NOT_FOUND, "this question was not answered here before");
    }
    *ret = (cs_alignment_record){.job = cs_arena_strdup(arena, cs_rows_text(rows, 0)),
                                 .question = *question,
                                 .patients = (uint64_t)cs_rows_int(rows, 2),
                                 .begun_ms = cs_rows_int(rows, 3)};
    return cs_hash_from(cs_rows_bytes(rows, 1), "session in agent.db", &ret->session);
}
