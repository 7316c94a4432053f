/* The tables of jobs.h. One function, one statement; rows are copied out, so that nothing points into SQLite. Called by
 * the engine, on its thread. */
#include "server/store/jobs.h"

#include <stdio.h>
#include <string.h>

const char cs_store_jobs_v1[] =
    "CREATE TABLE job (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, plan BLOB NOT NULL,"
    " plan_sha256 BLOB NOT NULL, state INTEGER NOT NULL, paused_in INTEGER NOT NULL, paused_for INTEGER NOT NULL,"
    " outcome INTEGER NOT NULL, reason TEXT NOT NULL, round INTEGER NOT NULL, phase INTEGER NOT NULL,"
    " remaining_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL);"
    "CREATE INDEX job_outcome ON job (outcome);"
    "CREATE TABLE job_member (job INTEGER NOT NULL REFERENCES job, site TEXT NOT NULL, decision INTEGER NOT NULL,"
    " decisions INTEGER NOT NULL, reason TEXT NOT NULL, last_result INTEGER NOT NULL, last_reason TEXT NOT NULL,"
    " rounds_folded INTEGER NOT NULL, rounds_missed INTEGER NOT NULL, PRIMARY KEY (job, site)) WITHOUT ROWID;"
    "CREATE INDEX job_member_site ON job_member (site);"
    "CREATE TABLE job_round (job INTEGER NOT NULL REFERENCES job, round INTEGER NOT NULL, participants TEXT NOT NULL,"
    " opened_ms INTEGER NOT NULL, closed_ms INTEGER NOT NULL, loss REAL NOT NULL, score REAL,"
    " PRIMARY KEY (job, round)) WITHOUT ROWID;"
    "CREATE TABLE job_task (job INTEGER NOT NULL REFERENCES job, round INTEGER NOT NULL, phase TEXT NOT NULL,"
    " site TEXT NOT NULL, state INTEGER NOT NULL, reason TEXT NOT NULL, result_sha256 BLOB, result BLOB,"
    " PRIMARY KEY (job, round, phase, site));"
    "CREATE TABLE job_blob (job INTEGER NOT NULL REFERENCES job, round INTEGER NOT NULL, phase TEXT NOT NULL,"
    " site TEXT NOT NULL, name TEXT NOT NULL, sha256 BLOB NOT NULL, size INTEGER NOT NULL, is_kept INTEGER NOT NULL,"
    " PRIMARY KEY (job, round, phase, site, name));"
    "CREATE INDEX job_blob_kept ON job_blob (sha256) WHERE is_kept = 1;"
    "CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL,"
    " fields BLOB NOT NULL);";

/* ---- rows of any type into a growing array ---- */
static void *push_row(void *rows, size_t *count, size_t row_bytes)
{
    /* Doubles at powers of two, of which 0 is one here: no capacity has to be kept. */
    if ((*count & (*count - 1)) == 0)
        rows = cs_realloc(rows, CS_MAX(2 * *count, (size_t)1) * row_bytes);
    memset((uint8_t *)rows + *count * row_bytes, 0, row_bytes);
    (*count)++;
    return rows;
}

static void copy_text(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
}

static cs_status copy_hash(cs_bytes bytes, const char *what, cs_hash *ret)
{
    cs_status status = cs_hash_from(bytes, what, ret);
    return status == CS_OK ? CS_OK : cs_fail(CS_DATA_LOSS, "database: %s is not a hash", what);
}

/* ---- jobs ---- */
#define JOB_COLUMNS                                                                                                    \
    "id, name, plan_sha256, state, paused_in, paused_for, outcome, reason, round, phase, remaining_ms, created_ms, "   \
    "finished_ms"

static cs_status read_job(cs_rows *rows, cs_job_row *ret)
{
    *ret = (cs_job_row){.id = cs_rows_int(rows, 0),
                        .state = (int)cs_rows_int(rows, 3),
                        .paused_in = (int)cs_rows_int(rows, 4),
                        .paused_for = (int)cs_rows_int(rows, 5),
                        .outcome = (int)cs_rows_int(rows, 6),
                        .round = (uint32_t)cs_rows_int(rows, 8),
                        .phase = (uint32_t)cs_rows_int(rows, 9),
                        .remaining_ms = cs_rows_int(rows, 10),
                        .created_ms = cs_rows_int(rows, 11),
                        .finished_ms = cs_rows_int(rows, 12)};
    copy_text(ret->name, sizeof(ret->name), cs_rows_text(rows, 1));
    copy_text(ret->reason, sizeof(ret->reason), cs_rows_text(rows, 7));
    return copy_hash(cs_rows_bytes(rows, 2), "job.plan_sha256", &ret->plan_hash);
}

cs_status cs_jobs_insert(cs_store *store, cs_job_row *row, cs_bytes plan)
{
    cs_job_row other;
    cs_status found = cs_jobs_find(store, row->name, &other);
    if (found == CS_OK)
        return cs_fail(CS_EXISTS, "job '%s' exists already", row->name);
    if (found != CS_NOT_FOUND)
        return found;
    CS_TRY(cs_db_run(store->db,
                     "INSERT INTO job (name, plan, plan_sha256, state, paused_in, paused_for, outcome, reason, round,"
                     " phase, remaining_ms, created_ms, finished_ms)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                     "tbbiiiitiiiii", row->name, plan, cs_bytes_of(row->plan_hash.bytes, CS_HASH_BYTES),
                     (int64_t)row->state, (int64_t)row->paused_in, (int64_t)row->paused_for, (int64_t)row->outcome,
                     row->reason, (int64_t)row->round, (int64_t)row->phase, row->remaining_ms, row->created_ms,
                     row->finished_ms));
    row->id = cs_db_last_id(store->db);
    return CS_OK;
}

cs_status cs_jobs_update(cs_store *store, const cs_job_row *row)
{
    return cs_db_run(store->db,
                     "UPDATE job SET state = ?2, paused_in = ?3, paused_for = ?4, outcome = ?5, reason = ?6,"
                     " round = ?7, phase = ?8, remaining_ms = ?9, finished_ms = ?10 WHERE id = ?1",
                     "iiiiitiiii", row->id, (int64_t)row->state, (int64_t)row->paused_in, (int64_t)row->paused_for,
                     (int64_t)row->outcome, row->reason, (int64_t)row->round, (int64_t)row->phase, row->remaining_ms,
                     row->finished_ms);
}

/* "there are: a, b, c" with at most this many names. */
#define NAMES_IN_ERROR 8

static cs_status job_not_found(cs_store *store, const char *name)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(
        cs_db_query(store->db, "SELECT name FROM job ORDER BY id DESC LIMIT ?1", "i", &rows, (int64_t)NAMES_IN_ERROR));
    char names[NAMES_IN_ERROR * (CS_NAME_MAX + 2) + 1] = "";
    while (cs_rows_next(rows)) {
        if (names[0])
            strcat(names, ", ");
        strncat(names, cs_rows_text(rows, 0), CS_NAME_MAX);
    }
    CS_TRY(cs_rows_status(rows));
    if (!names[0])
        return cs_fail(CS_NOT_FOUND, "there is no job '%s'; no job was ever submitted", name);
    return cs_fail(CS_NOT_FOUND, "there is no job '%s'; there are: %s", name, names);
}

cs_status cs_jobs_find(cs_store *store, const char *name, cs_job_row *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT " JOB_COLUMNS " FROM job WHERE name = ?1", "t", &rows, name));
    if (cs_rows_next(rows))
        return read_job(rows, ret);
    CS_TRY(cs_rows_status(rows));
    return job_not_found(store, name);
}

static cs_status collect_jobs(cs_rows *rows, cs_job_row **ret, size_t *ret_count)
{
    cs_job_row *jobs = NULL;
    size_t count = 0;
    cs_status status = CS_OK;
    while (status == CS_OK && cs_rows_next(rows)) {
        jobs = push_row(jobs, &count, sizeof(*jobs));
        status = read_job(rows, &jobs[count - 1]);
    }
    if (status == CS_OK)
        status = cs_rows_status(rows);
    if (status != CS_OK) {
        cs_free(jobs);
        return status;
    }
    *ret = jobs;
    *ret_count = count;
    return CS_OK;
}

cs_status cs_jobs_list(cs_store *store, bool only_open, cs_job_row **ret, size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT " JOB_COLUMNS " FROM job WHERE ?1 = 0 OR outcome = 0 ORDER BY id", "i", &rows,
                       (int64_t)only_open));
    return collect_jobs(rows, ret, ret_count);
}

cs_status cs_jobs_plan(cs_store *store, int64_t job, cs_buffer *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT plan FROM job WHERE id = ?1", "i", &rows, job));
    if (!cs_rows_next(rows)) {
        CS_TRY(cs_rows_status(rows));
        return cs_fail(CS_NOT_FOUND, "database: job %lld has no plan", (long long)job);
    }
    cs_bytes plan = cs_rows_bytes(rows, 0);
    cs_buffer_append(ret, plan.data, plan.size);
    return CS_OK;
}

/* ---- members ---- */
cs_status cs_jobs_member_put(cs_store *store, int64_t job, const cs_member_row *row)
{
    return cs_db_run(store->db,
                     "INSERT INTO job_member (job, site, decision, decisions, reason, last_result, last_reason,"
                     " rounds_folded, rounds_missed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
                     " ON CONFLICT (job, site) DO UPDATE SET decision = ?3, decisions = ?4, reason = ?5,"
                     " last_result = ?6, last_reason = ?7, rounds_folded = ?8, rounds_missed = ?9",
                     "itiititii", job, row->site, (int64_t)row->decision, (int64_t)row->decisions, row->reason,
                     (int64_t)row->last_result, row->last_reason, (int64_t)row->rounds_folded,
                     (int64_t)row->rounds_missed);
}

cs_status cs_jobs_members(cs_store *store, int64_t job, cs_member_row **ret, size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db,
                       "SELECT site, decision, decisions, reason, last_result, last_reason, rounds_folded,"
                       " rounds_missed FROM job_member WHERE job = ?1 ORDER BY site",
                       "i", &rows, job));
    cs_member_row *members = NULL;
    size_t count = 0;
    while (cs_rows_next(rows)) {
        members = push_row(members, &count, sizeof(*members));
        cs_member_row *row = &members[count - 1];
        copy_text(row->site, sizeof(row->site), cs_rows_text(rows, 0));
        row->decision = (int)cs_rows_int(rows, 1);
        row->decisions = (uint32_t)cs_rows_int(rows, 2);
        copy_text(row->reason, sizeof(row->reason), cs_rows_text(rows, 3));
        row->last_result = (int)cs_rows_int(rows, 4);
        copy_text(row->last_reason, sizeof(row->last_reason), cs_rows_text(rows, 5));
        row->rounds_folded = (uint32_t)cs_rows_int(rows, 6);
        row->rounds_missed = (uint32_t)cs_rows_int(rows, 7);
    }
    cs_status status = cs_rows_status(rows);
    if (status != CS_OK) {
        cs_free(members);
        return status;
    }
    *ret = members;
    *ret_count = count;
    return CS_OK;
}

cs_status cs_jobs_ended_with(cs_store *store, const char *site, size_t limit, cs_job_row **ret, size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db,
                       "SELECT " JOB_COLUMNS " FROM job WHERE outcome <> 0 AND id IN"
                       " (SELECT job FROM job_member WHERE site = ?1 ORDER BY job DESC LIMIT ?2) ORDER BY id",
                       "ti", &rows, site, (int64_t)limit));
    return collect_jobs(rows, ret, ret_count);
}

/* ---- rounds ---- */
void cs_round_row_clear(cs_round_row *row)
{
    cs_buffer_clear(&row->participants);
}

cs_status cs_jobs_round_put(cs_store *store, int64_t job, const cs_round_row *row)
{
    return cs_db_run(store->db,
                     "INSERT INTO job_round (job, round, participants, opened_ms, closed_ms, loss)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (job, round) DO UPDATE SET participants = ?3,"
                     " opened_ms = ?4, closed_ms = ?5, loss = ?6",
                     "iitiid", job, (int64_t)row->round, cs_buffer_text(&row->participants), row->opened_ms,
                     row->closed_ms, row->loss);
}

#define ROUND_COLUMNS "round, participants, opened_ms, closed_ms, loss, score"

static void read_round(cs_rows *rows, cs_round_row *ret)
{
    *ret = (cs_round_row){.round = (uint32_t)cs_rows_int(rows, 0),
                          .opened_ms = cs_rows_int(rows, 2),
                          .closed_ms = cs_rows_int(rows, 3),
                          .loss = cs_rows_real(rows, 4),
                          .has_score = !cs_rows_is_null(rows, 5),
                          .score = cs_rows_real(rows, 5)};
    cs_buffer_append_text(&ret->participants, cs_rows_text(rows, 1));
}

cs_status cs_jobs_round_find(cs_store *store, int64_t job, uint32_t round, cs_round_row *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT " ROUND_COLUMNS " FROM job_round WHERE job = ?1 AND round = ?2", "ii", &rows,
                       job, (int64_t)round));
    if (cs_rows_next(rows)) {
        read_round(rows, ret);
        return CS_OK;
    }
    CS_TRY(cs_rows_status(rows));
    return cs_fail(CS_NOT_FOUND, "round %u was not opened", round);
}

void cs_round_rows_free(cs_round_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cs_round_row_clear(&rows[i]);
    cs_free(rows);
}

cs_status cs_jobs_rounds(cs_store *store, int64_t job, cs_round_row **ret, size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT " ROUND_COLUMNS " FROM job_round WHERE job = ?1 ORDER BY round", "i", &rows,
                       job));
    cs_round_row *rounds = NULL;
    size_t count = 0;
    while (cs_rows_next(rows)) {
        rounds = push_row(rounds, &count, sizeof(*rounds));
        read_round(rows, &rounds[count - 1]);
    }
    cs_status status = cs_rows_status(rows);
    if (status != CS_OK) {
        cs_round_rows_free(rounds, count);
        return status;
    }
    *ret = rounds;
    *ret_count = count;
    return CS_OK;
}

cs_status cs_jobs_set_score(cs_store *store, int64_t job, uint32_t round, double score)
{
    return cs_db_run(store->db, "UPDATE job_round SET score = ?3 WHERE job = ?1 AND round = ?2", "iid", job,
                     (int64_t)round, score);
}

cs_status cs_jobs_best_round(cs_store *store, int64_t job, uint32_t *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db,
                       "SELECT round FROM job_round WHERE job = ?1 AND score IS NOT NULL ORDER BY score, round LIMIT 1",
                       "i", &rows, job));
    if (cs_rows_next(rows)) {
        *ret = (uint32_t)cs_rows_int(rows, 0);
        return CS_OK;
    }
    CS_TRY(cs_rows_status(rows));
    return cs_fail(CS_NOT_FOUND, "no round has been evaluated");
}

/* ---- tasks ---- */
void cs_task_row_clear(cs_task_row *row)
{
    cs_buffer_clear(&row->result);
}

cs_status cs_jobs_task_put(cs_store *store, int64_t job, const cs_task_row *row)
{
    cs_bytes hash = row->has_result ? cs_bytes_of(row->result_hash.bytes, CS_HASH_BYTES) : cs_bytes_of(NULL, 0);
    return cs_db_run(store->db,
                     "INSERT INTO job_task (job, round, phase, site, state, reason, result_sha256, result)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (job, round, phase, site) DO UPDATE SET"
                     " state = ?5, reason = ?6, result_sha256 = ?7, result = ?8",
                     "iittitbb", job, (int64_t)row->round, row->phase, row->site, (int64_t)row->state, row->reason,
                     hash, cs_buffer_view(&row->result));
}

#define TASK_COLUMNS "round, phase, site, state, reason, result_sha256, result"

static cs_status read_task(cs_rows *rows, cs_task_row *ret)
{
    *ret = (cs_task_row){.round = (uint32_t)cs_rows_int(rows, 0), .state = (cs_task_state)cs_rows_int(rows, 3)};
    copy_text(ret->phase, sizeof(ret->phase), cs_rows_text(rows, 1));
    copy_text(ret->site, sizeof(ret->site), cs_rows_text(rows, 2));
    copy_text(ret->reason, sizeof(ret->reason), cs_rows_text(rows, 4));
    cs_bytes hash = cs_rows_bytes(rows, 5);
    ret->has_result = hash.size > 0;
    if (ret->has_result)
        CS_TRY(copy_hash(hash, "task.result_sha256", &ret->result_hash));
    cs_bytes result = cs_rows_bytes(rows, 6);
    cs_buffer_append(&ret->result, result.data, result.size);
    return CS_OK;
}

cs_status cs_jobs_task_find(cs_store *store, int64_t job, uint32_t round, const char *phase, const char *site,
                            cs_task_row *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(
        store->db, "SELECT " TASK_COLUMNS " FROM job_task WHERE job = ?1 AND round = ?2 AND phase = ?3 AND site = ?4",
        "iitt", &rows, job, (int64_t)round, phase, site));
    if (cs_rows_next(rows))
        return read_task(rows, ret);
    CS_TRY(cs_rows_status(rows));
    return cs_fail(CS_NOT_FOUND, "site '%s' has no task '%s' in round %u", site, phase, round);
}

void cs_task_rows_free(cs_task_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cs_task_row_clear(&rows[i]);
    cs_free(rows);
}

cs_status cs_jobs_tasks(cs_store *store, int64_t job, uint32_t round, const char *phase, cs_task_row **ret,
                        size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db,
                       "SELECT " TASK_COLUMNS " FROM job_task WHERE job = ?1 AND round = ?2"
                       " AND (?3 IS NULL OR phase = ?3) ORDER BY phase, site",
                       "iit", &rows, job, (int64_t)round, phase));
    cs_task_row *tasks = NULL;
    size_t count = 0;
    cs_status status = CS_OK;
    while (status == CS_OK && cs_rows_next(rows)) {
        tasks = push_row(tasks, &count, sizeof(*tasks));
        status = read_task(rows, &tasks[count - 1]);
    }
    if (status == CS_OK)
        status = cs_rows_status(rows);
    if (status != CS_OK) {
        cs_task_rows_free(tasks, count);
        return status;
    }
    *ret = tasks;
    *ret_count = count;
    return CS_OK;
}

/* ---- blobs ---- */
cs_status cs_jobs_blob_put(cs_store *store, int64_t job, const cs_blob_row *row)
{
    return cs_db_run(store->db,
                     "INSERT INTO job_blob (job, round, phase, site, name, sha256, size, is_kept)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (job, round, phase, site, name) DO UPDATE"
                     " SET sha256 = ?6, size = ?7, is_kept = ?8",
                     "iitttbii", job, (int64_t)row->round, row->phase, row->site, row->name,
                     cs_bytes_of(row->hash.bytes, CS_HASH_BYTES), (int64_t)row->size, (int64_t)row->is_kept);
}

#define BLOB_COLUMNS "round, phase, site, name, sha256, size, is_kept"

static cs_status read_blob(cs_rows *rows, cs_blob_row *ret)
{
    *ret = (cs_blob_row){.round = (uint32_t)cs_rows_int(rows, 0),
                         .size = (uint64_t)cs_rows_int(rows, 5),
                         .is_kept = cs_rows_int(rows, 6) != 0};
    copy_text(ret->phase, sizeof(ret->phase), cs_rows_text(rows, 1));
    copy_text(ret->site, sizeof(ret->site), cs_rows_text(rows, 2));
    copy_text(ret->name, sizeof(ret->name), cs_rows_text(rows, 3));
    return copy_hash(cs_rows_bytes(rows, 4), "blob.sha256", &ret->hash);
}

cs_status cs_jobs_blob_find(cs_store *store, int64_t job, uint32_t round, const char *phase, const char *site,
                            const char *name, cs_blob_row *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db,
                       "SELECT " BLOB_COLUMNS " FROM job_blob WHERE job = ?1 AND round = ?2 AND phase = ?3"
                       " AND site = ?4 AND name = ?5",
                       "iittt", &rows, job, (int64_t)round, phase, site, name));
    if (cs_rows_next(rows))
        return read_blob(rows, ret);
    CS_TRY(cs_rows_status(rows));
    return cs_fail(CS_NOT_FOUND, "round %u has no blob '%s'", round, name);
}

cs_status cs_jobs_blobs(cs_store *store, int64_t job, const char *name, cs_blob_row **ret, size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db,
                       "SELECT " BLOB_COLUMNS " FROM job_blob WHERE job = ?1 AND site = '' AND name = ?2"
                       " ORDER BY round",
                       "it", &rows, job, name));
    cs_blob_row *blobs = NULL;
    size_t count = 0;
    cs_status status = CS_OK;
    while (status == CS_OK && cs_rows_next(rows)) {
        blobs = push_row(blobs, &count, sizeof(*blobs));
        status = read_blob(rows, &blobs[count - 1]);
    }
    if (status == CS_OK)
        status = cs_rows_status(rows);
    if (status != CS_OK) {
        cs_free(blobs);
        return status;
    }
    *ret = blobs;
    *ret_count = count;
    return CS_OK;
}

cs_status cs_jobs_kept(cs_store *store, cs_hash **ret, size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT DISTINCT sha256 FROM job_blob WHERE is_kept = 1 ORDER BY sha256", "", &rows));
    cs_hash *hashes = NULL;
    size_t count = 0;
    cs_status status = CS_OK;
    while (status == CS_OK && cs_rows_next(rows)) {
        hashes = push_row(hashes, &count, sizeof(*hashes));
        status = copy_hash(cs_rows_bytes(rows, 0), "blob.sha256", &hashes[count - 1]);
    }
    if (status == CS_OK)
        status = cs_rows_status(rows);
    if (status != CS_OK) {
        cs_free(hashes);
        return status;
    }
    *ret = hashes;
    *ret_count = count;
    return CS_OK;
}

cs_status cs_jobs_drop_updates(cs_store *store, int64_t job, uint32_t round)
{
    return cs_db_run(store->db,
                     "UPDATE job_blob SET is_kept = 0 WHERE job = ?1 AND site <> '' AND round < ?2 AND is_kept = 1",
                     "ii", job, (int64_t)round);
}

cs_status cs_jobs_drop_blob(cs_store *store, int64_t job, uint32_t round, const char *name)
{
    return cs_db_run(store->db,
                     "UPDATE job_blob SET is_kept = 0 WHERE job = ?1 AND round = ?2 AND phase = '' AND site = ''"
                     " AND name = ?3",
                     "iit", job, (int64_t)round, name);
}

/* ---- records on their way to the transcript ---- */
cs_status cs_outbox_put(cs_store *store, const char *kind, const char *key, cs_bytes fields)
{
    return cs_db_run(store->db, "INSERT INTO outbox (kind, key, fields) VALUES (?1, ?2, ?3)", "ttb", kind, key, fields);
}

void cs_outbox_rows_free(cs_outbox_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cs_buffer_clear(&rows[i].kind);
        cs_buffer_clear(&rows[i].key);
        cs_buffer_clear(&rows[i].fields);
    }
    cs_free(rows);
}

cs_status cs_outbox_after(cs_store *store, int64_t id, cs_outbox_row **ret, size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(
        cs_db_query(store->db, "SELECT id, kind, key, fields FROM outbox WHERE id > ?1 ORDER BY id", "i", &rows, id));
    cs_outbox_row *records = NULL;
    size_t count = 0;
    while (cs_rows_next(rows)) {
        records = push_row(records, &count, sizeof(*records));
        cs_outbox_row *row = &records[count - 1];
        row->id = cs_rows_int(rows, 0);
        cs_buffer_append_text(&row->kind, cs_rows_text(rows, 1));
        cs_buffer_append_text(&row->key, cs_rows_text(rows, 2));
        cs_bytes fields = cs_rows_bytes(rows, 3);
        cs_buffer_append(&row->fields, fields.data, fields.size);
    }
    cs_status status = cs_rows_status(rows);
    if (status != CS_OK) {
        cs_outbox_rows_free(records, count);
        return status;
    }
    *ret = records;
    *ret_count = count;
    return CS_OK;
}

cs_status cs_outbox_remove_until(cs_store *store, int64_t id)
{
    return cs_db_run(store->db, "DELETE FROM outbox WHERE id <= ?1", "i", id);
}
