/* Jobs, their members, rounds, tasks, blobs, and the records on their way to the transcript: schema and queries, no
 * decisions. Called by the engine; engine's thread only. All writes belong into the engine's transaction. */
#ifndef CS_STORE_JOBS_H
#define CS_STORE_JOBS_H

#include "common/crypto/digest.h"
#include "common/crypto/x509.h"
#include "server/store/store.h"

#define CS_REASON_BYTES    320
#define CS_WORD_BYTES      32 /* names of phases and of blobs within a task */
#define CS_JOB_NO_DEADLINE (-1)

/* `state`, `paused_in`, `paused_for` and `outcome` are the engine's numbers; the store does not interpret them. */
typedef struct cs_job_row {
    int64_t id; /* order of submission */
    char name[CS_NAME_MAX + 1];
    cs_hash plan_hash;
    int state;
    int paused_in;
    int paused_for;
    int outcome; /* 0 while the job is open */
    char reason[CS_REASON_BYTES];
    uint32_t round;
    uint32_t phase;       /* index among the round's phases */
    int64_t remaining_ms; /* of the deadline that runs, or CS_JOB_NO_DEADLINE */
    int64_t created_ms, finished_ms;
} cs_job_row;

/* Sets row->id. CS_EXISTS when the name is taken. */
CS_MUST_CHECK cs_status cs_jobs_insert(cs_store *store, cs_job_row *row, cs_bytes plan);
CS_MUST_CHECK cs_status cs_jobs_update(cs_store *store, const cs_job_row *row);
/* CS_NOT_FOUND names the jobs there are. */
CS_MUST_CHECK cs_status cs_jobs_find(cs_store *store, const char *name, cs_job_row *ret);
/* In order of submission; free with cs_free. */
CS_MUST_CHECK cs_status cs_jobs_list(cs_store *store, bool only_open, cs_job_row **ret, size_t *ret_count);
/* The bytes that were submitted. */
CS_MUST_CHECK cs_status cs_jobs_plan(cs_store *store, int64_t job, cs_buffer *ret);

/* An invited site. */
typedef struct cs_member_row {
    char site[CS_NAME_MAX + 1];
    int decision;
    uint32_t decisions; /* how many there were: each is a record of its own */
    char reason[CS_REASON_BYTES];
    int last_result; /* how its last closed round ended: a state of cs_task_state, or 0 */
    char last_reason[CS_REASON_BYTES];
    uint32_t rounds_folded; /* from round 1 on */
    uint32_t rounds_missed;
} cs_member_row;

CS_MUST_CHECK cs_status cs_jobs_member_put(cs_store *store, int64_t job, const cs_member_row *row);
/* By name; free with cs_free. */
CS_MUST_CHECK cs_status cs_jobs_members(cs_store *store, int64_t job, cs_member_row **ret, size_t *ret_count);
/* The newest `limit` jobs that have ended and had invited this site; free with cs_free. */
CS_MUST_CHECK cs_status cs_jobs_ended_with(cs_store *store, const char *site, size_t limit, cs_job_row **ret,
                                           size_t *ret_count);

typedef struct cs_round_row {
    uint32_t round;
    cs_buffer participants;       /* names, in order, each followed by a space */
    int64_t opened_ms, closed_ms; /* wall; 0: still open */
    double loss;
    bool has_score;
    double score; /* of the model this round made; smaller is better */
} cs_round_row;
void cs_round_row_clear(cs_round_row *row);

CS_MUST_CHECK cs_status cs_jobs_round_put(cs_store *store, int64_t job, const cs_round_row *row);
/* CS_NOT_FOUND */
CS_MUST_CHECK cs_status cs_jobs_round_find(cs_store *store, int64_t job, uint32_t round, cs_round_row *ret);
/* In order; free with cs_round_rows_free. */
CS_MUST_CHECK cs_status cs_jobs_rounds(cs_store *store, int64_t job, cs_round_row **ret, size_t *ret_count);
void cs_round_rows_free(cs_round_row *rows, size_t count);
CS_MUST_CHECK cs_status cs_jobs_set_score(cs_store *store, int64_t job, uint32_t round, double score);
/* The round with the smallest score, the earliest of equals. CS_NOT_FOUND when no round has one. */
CS_MUST_CHECK cs_status cs_jobs_best_round(cs_store *store, int64_t job, uint32_t *ret);

typedef enum cs_task_state {
    CS_TASK_OPEN = 1,
    CS_TASK_ACCEPTED = 2,
    CS_TASK_FOLDED = 3,
    CS_TASK_REFUSED = 4,  /* its result was not usable */
    CS_TASK_FAILED = 5,   /* the site said that it could not */
    CS_TASK_EXCLUDED = 6, /* revoked or withdrawn */
    CS_TASK_LATE = 7      /* the phase closed without it */
} cs_task_state;

typedef struct cs_task_row {
    uint32_t round;
    char phase[CS_WORD_BYTES];
    char site[CS_NAME_MAX + 1];
    cs_task_state state;
    char reason[CS_REASON_BYTES];
    bool has_result;
    cs_hash result_hash; /* of the packed TaskResult */
    cs_buffer result;    /* the packed TaskResult where it was accepted */
} cs_task_row;
void cs_task_row_clear(cs_task_row *row);

CS_MUST_CHECK cs_status cs_jobs_task_put(cs_store *store, int64_t job, const cs_task_row *row);
/* CS_NOT_FOUND */
CS_MUST_CHECK cs_status cs_jobs_task_find(cs_store *store, int64_t job, uint32_t round, const char *phase,
                                          const char *site, cs_task_row *ret);
/* All tasks of a round in the order of phase name and site; phase NULL: of every phase. Free with
 * cs_task_rows_free. */
CS_MUST_CHECK cs_status cs_jobs_tasks(cs_store *store, int64_t job, uint32_t round, const char *phase,
                                      cs_task_row **ret, size_t *ret_count);
void cs_task_rows_free(cs_task_row *rows, size_t count);

/* A blob that a round made (site ""), or that a site returned. */
typedef struct cs_blob_row {
    uint32_t round;
    char phase[CS_WORD_BYTES]; /* "" where site is "" */
    char site[CS_NAME_MAX + 1];
    char name[CS_WORD_BYTES];
    cs_hash hash;
    uint64_t size;
    bool is_kept; /* false once retention let go of the bytes; the hash stays */
} cs_blob_row;

CS_MUST_CHECK cs_status cs_jobs_blob_put(cs_store *store, int64_t job, const cs_blob_row *row);
/* CS_NOT_FOUND */
CS_MUST_CHECK cs_status cs_jobs_blob_find(cs_store *store, int64_t job, uint32_t round, const char *phase,
                                          const char *site, const char *name, cs_blob_row *ret);
/* What the rounds of a job made under this name, in order; free with cs_free. */
CS_MUST_CHECK cs_status cs_jobs_blobs(cs_store *store, int64_t job, const char *name, cs_blob_row **ret,
                                      size_t *ret_count);
/* Every hash that some job still keeps, ascending, without repeats; free with cs_free. */
CS_MUST_CHECK cs_status cs_jobs_kept(cs_store *store, cs_hash **ret, size_t *ret_count);
/* Lets go of what sites returned in rounds before `round`. */
CS_MUST_CHECK cs_status cs_jobs_drop_updates(cs_store *store, int64_t job, uint32_t round);
CS_MUST_CHECK cs_status cs_jobs_drop_blob(cs_store *store, int64_t job, uint32_t round, const char *name);

/* Records that were committed with a transition and still have to be appended to the transcript. */
typedef struct cs_outbox_row {
    int64_t id; /* rises, never used twice */
    cs_buffer kind, key, fields;
} cs_outbox_row;
CS_MUST_CHECK cs_status cs_outbox_put(cs_store *store, const char *kind, const char *key, cs_bytes fields);
/* Those after `id`, oldest first; free with cs_outbox_rows_free. */
CS_MUST_CHECK cs_status cs_outbox_after(cs_store *store, int64_t id, cs_outbox_row **ret, size_t *ret_count);
CS_MUST_CHECK cs_status cs_outbox_remove_until(cs_store *store, int64_t id);
void cs_outbox_rows_free(cs_outbox_row *rows, size_t count);

#endif
