/* The agent's database, db/agent.db: offered jobs, approvals, results until they are acknowledged, the roster. Agent
 * thread only. What is found is copied into the caller's arena. */
#ifndef CS_AGENT_RECORDS_H
#define CS_AGENT_RECORDS_H

#include "common/crypto/digest.h"
#include "common/wire/wire.h"

/* Jobs that have not ended, at one site. */
#define CS_OPEN_JOBS_MAX 256
/* Ended jobs that `plan list` still shows. */
#define CS_ENDED_JOBS_KEPT 256

typedef struct cs_records cs_records;
CS_MUST_CHECK cs_status cs_records_open(const char *path, cs_records **ret);
void cs_records_free(cs_records *records);
CS_DEFINE_AUTO_PTR(cs_records)

typedef struct cs_job_record {
    const char *job, *plan_name, *reason;
    cs_hash plan;
    Consilium__V1__Decision decision;
    Consilium__V1__JobState state;
    int64_t highest_round;  /* -1: no result of any round yet */
    uint32_t runs_left;     /* approved further runs of the same plan */
    uint32_t sites_minimum; /* of the plan: fewer participants are refused */
} cs_job_record;

/* A new job with its plan's bytes. A run approved in advance is used up when `uses_run`. CS_STATE beyond
 * CS_OPEN_JOBS_MAX. */
CS_MUST_CHECK cs_status cs_records_add_job(cs_records *records, const cs_job_record *job, cs_bytes plan, bool uses_run,
                                           int64_t now_ms);
CS_MUST_CHECK cs_status cs_records_find_job(cs_records *records, const char *job, cs_arena *arena, cs_job_record *ret);
/* Newest first. */
CS_MUST_CHECK cs_status cs_records_list_jobs(cs_records *records, cs_arena *arena, cs_job_record **ret,
                                             size_t *ret_count);
CS_MUST_CHECK cs_status cs_records_find_plan(cs_records *records, const cs_hash *plan, cs_arena *arena, cs_bytes *ret);
/* `further_runs` of the same plan are approved in advance; 0 leaves none. */
CS_MUST_CHECK cs_status cs_records_decide(cs_records *records, const char *job, Consilium__V1__Decision decision,
                                          const char *reason, uint32_t further_runs);
CS_MUST_CHECK cs_status cs_records_further_runs(cs_records *records, const cs_hash *plan, uint32_t *ret);
/* An ended job's results and their references are forgotten. */
CS_MUST_CHECK cs_status cs_records_set_state(cs_records *records, const char *job, Consilium__V1__JobState state);

typedef struct cs_result_record {
    const char *job, *phase;
    uint32_t round;
    bool is_acknowledged;
    cs_bytes packed;   /* a TaskResult */
    const char *kept;  /* what the site keeps for the job's next task of this phase; NULL: nothing … */
    cs_hash kept_blob; /* … and where it lies */
} cs_result_record;

/* Durable on return, and together: the result, the highest round, the blobs (inputs and outputs) that must stay, and
 * what is kept, in place of what was kept before. Acknowledged results of earlier rounds of the job are forgotten. */
CS_MUST_CHECK cs_status cs_records_put_result(cs_records *records, const cs_result_record *result, const cs_hash *blobs,
                                              size_t blobs_count);
/* What tasks of rounds before `round` left under this name; CS_NOT_FOUND. Forgotten when the job ends or its approval
 * is withdrawn. */
CS_MUST_CHECK cs_status cs_records_find_kept(cs_records *records, const char *job, const char *name, uint32_t round,
                                             cs_hash *ret);
CS_MUST_CHECK cs_status cs_records_list_results(cs_records *records, cs_arena *arena, cs_result_record **ret,
                                                size_t *ret_count);
/* Becomes durable with the next change or flush: after a crash in between the result is sent and answered once more. */
CS_MUST_CHECK cs_status cs_records_acknowledge(cs_records *records, const char *job, uint32_t round, const char *phase);
CS_MUST_CHECK cs_status cs_records_flush(cs_records *records);
CS_MUST_CHECK cs_status cs_records_is_blob_needed(cs_records *records, const cs_hash *blob, bool *ret);

/* Texts of rosters (common/crypto/roster.h); empty: none yet. */
typedef struct cs_roster_record {
    cs_bytes offered, approved;
    int64_t approved_ms; /* wall */
} cs_roster_record;
CS_MUST_CHECK cs_status cs_records_roster(cs_records *records, cs_arena *arena, cs_roster_record *ret);
CS_MUST_CHECK cs_status cs_records_put_roster(cs_records *records, const cs_roster_record *roster);

/* One alignment in the site's account; it stays when its job is forgotten. */
typedef struct cs_alignment_record {
    const char *job, *peers;
    cs_hash question; /* what was asked, whatever the job's name */
    cs_hash session;
    int64_t begun_ms; /* wall */
    uint64_t patients;
} cs_alignment_record;
/* Harmless when it stands there already. */
CS_MUST_CHECK cs_status cs_records_begin_alignment(cs_records *records, const cs_alignment_record *alignment);
/* It is answered from a stored result, and counts for nothing. */
CS_MUST_CHECK cs_status cs_records_repeat_alignment(cs_records *records, const char *job);
/* So many points of this site's list leave with it. */
CS_MUST_CHECK cs_status cs_records_spend_tokens(cs_records *records, const char *job, uint64_t tokens);
CS_MUST_CHECK cs_status cs_records_answer_alignment(cs_records *records, const char *job, uint64_t patients);
/* Of all other jobs begun since then. */
CS_MUST_CHECK cs_status cs_records_alignment_usage(cs_records *records, const char *but_job, int64_t since_ms,
                                                   uint64_t *ret_sessions, uint64_t *ret_tokens);
/* The first alignment that answered this question. CS_NOT_FOUND. */
CS_MUST_CHECK cs_status cs_records_find_answer(cs_records *records, const cs_hash *question, cs_arena *arena,
                                               cs_alignment_record *ret);

#endif
