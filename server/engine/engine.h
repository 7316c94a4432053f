/* The one thread that owns all job state and is the only writer of the database. Others post to its mailbox; it commits
 * event and new state in one transaction before any effect; effects are a function of the state entered and are issued
 * again at start. */
#ifndef CS_ENGINE_ENGINE_H
#define CS_ENGINE_ENGINE_H

#include "common/audit/transcript.h"
#include "common/blobs/blobs.h"
#include "common/config/server.h"
#include "common/metrics/exposition.h"
#include "common/wire/wire.h"
#include "server/store/store.h"

typedef struct cs_engine cs_engine;

typedef struct cs_engine_config {
    const char *state_folder; /* "tasks/" inside is the engine's scratch space for folds */
    cs_blobs *blobs;
    cs_transcript *transcript;
    const cs_server_config *server;
    /* Hands a message to the live session of a site; must not wait; the message is packed before it returns. False when
     * the site has no session. Called on the engine's thread. */
    bool (*send)(void *self, const char *site, const Consilium__V1__CoordinatorMessage *message);
    void *send_self;
} cs_engine_config;

/* Opens the database (state_folder/db/coordinator.db), takes up every open job where it was, starts the thread. */
CS_MUST_CHECK cs_status cs_engine_start(const cs_engine_config *config, cs_engine **ret);
/* Stops between two transitions; nothing is lost, it goes on at the next start. */
void cs_engine_stop(cs_engine *engine);

/* ---- from rpc threads; never wait ---- */
/* `session` numbers rise; a newer one of a site replaces the older. `features` as agreed. */
void cs_engine_site_attended(cs_engine *engine, const char *site, uint64_t session, uint64_t features,
                             const char *software);
void cs_engine_site_left(cs_engine *engine, const char *site, uint64_t session);
/* decision, progress, result, state. The message is copied. CS_EXHAUSTED when the mailbox is full: the caller pauses
 * the stream. */
CS_MUST_CHECK cs_status cs_engine_site_message(cs_engine *engine, const char *site, uint64_t session,
                                               const Consilium__V1__SiteMessage *message);
/* May `site` fetch this blob for this task, or store one? Answers from an immutable snapshot. CS_DENIED or CS_NOT_FOUND
 * with the reason. For a store *ret_max_size is the most bytes a result of that task may have. */
CS_MUST_CHECK cs_status cs_engine_may_fetch(cs_engine *engine, const char *site, const Consilium__V1__TaskKey *task,
                                            const cs_hash *blob);
CS_MUST_CHECK cs_status cs_engine_may_store(cs_engine *engine, const char *site, const Consilium__V1__TaskKey *task,
                                            const cs_hash *blob, uint64_t size);

/* Runs `work` on the engine's thread. _run waits for it (threads that may wait: enrolment, main); _post does not and
 * calls `done` on the engine's thread with the status and its sentence. */
CS_MUST_CHECK cs_status cs_engine_run(cs_engine *engine, cs_status (*work)(void *argument, cs_store *store),
                                      void *argument);
CS_MUST_CHECK cs_status cs_engine_post(cs_engine *engine, cs_status (*work)(void *argument, cs_store *store),
                                       void (*done)(void *argument, cs_status status, const char *error),
                                       void *argument);

/* ---- inside `work` only: on the engine's thread ---- */
/* Checks the plan (errors with line and column), names the job, offers it. */
CS_MUST_CHECK cs_status cs_engine_submit(cs_engine *engine, cs_bytes plan, const char *source, cs_arena *arena,
                                         Consilium__V1__JobStatus **ret);
CS_MUST_CHECK cs_status cs_engine_cancel(cs_engine *engine, const char *job, const char *reason);
CS_MUST_CHECK cs_status cs_engine_resume(cs_engine *engine, const char *job);
/* The whole truth about a job, or without the history. CS_NOT_FOUND names the jobs there are. */
CS_MUST_CHECK cs_status cs_engine_describe(cs_engine *engine, const char *job, bool with_history, cs_arena *arena,
                                           Consilium__V1__JobStatus **ret);
CS_MUST_CHECK cs_status cs_engine_list(cs_engine *engine, cs_arena *arena, Consilium__V1__JobList **ret);
CS_MUST_CHECK cs_status cs_engine_models(cs_engine *engine, const char *job, cs_arena *arena,
                                         Consilium__V1__ModelList **ret);
/* "best" | "last" | a round number → the blob. */
CS_MUST_CHECK cs_status cs_engine_model(cs_engine *engine, const char *job, const char *round, cs_hash *ret,
                                        uint64_t *ret_size);
/* Connection facts for `site list`: session open, software, confinement. False: no session. */
bool cs_engine_site_session(cs_engine *engine, const char *site, const char **ret_software,
                            const char **ret_confinement);
/* Jobs, rounds and sites, for the page of metrics. */
CS_MUST_CHECK cs_status cs_engine_measure(cs_engine *engine, cs_metrics_page *page);
/* Excludes the site from open rounds with this reason; after cs_pki_revoke. */
void cs_engine_site_revoked(cs_engine *engine, const char *site, const char *reason);

/* `changed` is called on the engine's thread after each change of the job (progress at most four times a second); it
 * must not wait. The handle ends it; from any thread. */
typedef struct cs_watch cs_watch;
CS_MUST_CHECK cs_status cs_engine_watch(cs_engine *engine, const char *job, void (*changed)(void *self), void *self,
                                        cs_watch **ret);
void cs_engine_unwatch(cs_engine *engine, cs_watch *watch);

#endif
