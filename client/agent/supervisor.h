/* Starts and talks to consilium-worker, the process that may open patient data and has no socket. One worker for a job,
 * kept for the job's life. Called by the agent's worker thread, and by `doctor`, which only lets a worker describe the
 * data; cs_supervisor_cancel and _kill come from the agent thread. */
#ifndef CS_AGENT_SUPERVISOR_H
#define CS_AGENT_SUPERVISOR_H

#include "common/wire/wire.h"

/* A worker that says nothing for so long is taken for hung: the longest pause of a healthy one is the reading of a
 * large data set. */
#define CS_WORKER_SILENCE_MS (30 * 60 * 1000LL)
/* From the end of the conversation, or from a cancel, to SIGKILL. */
#define CS_WORKER_GRACE_MS 5000

typedef struct cs_supervisor_config {
    const char *program; /* path; NULL: consilium-worker beside this program, else in PATH */
    const char *site;
    cs_bytes site_config;           /* the bytes of site.yaml */
    const char *site_config_folder; /* relative table paths start here */
    const char *tasks_folder;       /* absolute; a worker may write in TASKS_FOLDER/<job>/ only */
} cs_supervisor_config;

/* For doctor: starts a worker, which confines itself, surveys and describes the data sets that `plan` (its bytes) or,
 * with an empty plan, site.yaml names, and ends it. The answer is in the arena: confinement, what is missing, build,
 * counts. CS_DENIED, CS_INVALID … with the worker's sentence when it refuses; CS_UNAVAILABLE when it cannot be started
 * or dies. Any thread. */
CS_MUST_CHECK cs_status cs_supervisor_describe(const cs_supervisor_config *config, cs_bytes plan, cs_arena *arena,
                                               Consilium__V1__WorkerReady **ret);

typedef struct cs_supervisor cs_supervisor;
/* `config` is copied. */
CS_MUST_CHECK cs_status cs_supervisor_new(const cs_supervisor_config *config, cs_supervisor **ret);
/* Ends all workers. No task may run. */
void cs_supervisor_free(cs_supervisor *supervisor);
CS_DEFINE_AUTO_PTR(cs_supervisor)

typedef struct cs_worker_task {
    const char *job;
    cs_bytes plan;                    /* the bytes that were approved */
    const char *personal;             /* a folder of the job that its worker may write in too; NULL: none */
    Consilium__V1__WorkerTask task;   /* key, folder inside TASKS_FOLDER/<job>/, inputs, participants */
    const _Atomic bool *is_cancelled; /* no longer wanted; checked before it is begun */
    /* Called on the worker thread. `ready` once for each worker that starts; what it refuses makes the worker unfit. */
    cs_status (*ready)(void *self, const Consilium__V1__WorkerReady *ready);
    void (*progress)(void *self, const Consilium__V1__TaskProgress *progress);
    void *self;
} cs_worker_task;

typedef enum cs_worker_end {
    CS_WORKER_DONE,    /* *ret_done is set */
    CS_WORKER_REFUSED, /* this task failed; it will fail again: cs_error_text() is the worker's sentence */
    CS_WORKER_UNFIT,   /* the worker as a whole will not serve this job until something changes at the site */
    CS_WORKER_LOST     /* crashed, hung or not started: worth a repeat */
} cs_worker_end;

/* Runs one task, starting the job's worker where there is none; waits for its end. Worker thread. */
cs_worker_end cs_supervisor_run(cs_supervisor *supervisor, const cs_worker_task *task, cs_arena *arena,
                                Consilium__V1__WorkerDone **ret_done);
/* Ends the job's worker and forgets whether it was fit. Worker thread. */
void cs_supervisor_end_job(cs_supervisor *supervisor, const char *job);
/* Ends workers without a task for idle_ms, so that a waiting job holds no memory. Worker thread. */
void cs_supervisor_end_idle(cs_supervisor *supervisor, int64_t idle_ms);
/* Asks the worker that now runs a task of this job to stop it / kills it. Harmless when none does. Any thread. */
void cs_supervisor_cancel(cs_supervisor *supervisor, const char *job);
void cs_supervisor_kill(cs_supervisor *supervisor, const char *job);
/* The agent ends: kills the worker that is at work; every run from now on is CS_WORKER_LOST at once. Any thread. */
void cs_supervisor_stop(cs_supervisor *supervisor);

#endif
