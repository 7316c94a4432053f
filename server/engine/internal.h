/* What the files of the engine share. Everything here belongs to the engine's thread, except where another owner is
 * named. Reading order: README.md. */
#ifndef CS_ENGINE_INTERNAL_H
#define CS_ENGINE_INTERNAL_H

#include "common/base/mailbox.h"
#include "server/engine/engine.h"
#include "server/engine/round.h"
#include "server/modes/mode.h"
#include "server/store/registry.h"

#include <pthread.h>
#include <stdatomic.h>

/* A plan is read by folds while its job may already be gone. */
struct shared_plan {
    atomic_int references;
    cs_plan *plan;
};
struct shared_plan *plan_share(struct shared_plan *plan);
void plan_release(struct shared_plan *plan);

/* ---- jobs ---- */

enum pause_cause { PAUSE_NONE = 0, PAUSE_SITES = 1, PAUSE_DISK = 2, PAUSE_FOLD = 3 };

struct member {
    cs_member_row row;
    bool is_required;
    bool is_revoked;     /* follows the registry */
    bool has_offer;      /* in some session since the start of the process */
    bool is_participant; /* of the open round */
    bool is_excluded;    /* from the rest of the open round, with the reason */
    char excluded_reason[CS_REASON_BYTES];
    uint64_t offered_session; /* the session that was sent the offer */
};

/* One task of the open phase. */
struct task {
    cs_task_row row;
    size_t member;         /* index in the job's members */
    uint64_t sent_session; /* the session that was sent the assignment */
    /* A result that is being checked; it counts as having come in time. */
    bool is_checking;
    int64_t recheck_at_ms; /* the check could not be made: try again then; 0: it runs */
    cs_hash checking_hash;
    cs_buffer checking; /* the packed TaskResult */
    /* Progress: in memory only. */
    Consilium__V1__Stage stage;
    uint64_t done, total;
    double loss, rate;
};

struct job {
    struct job *next;
    cs_job_row row; /* row.state is an enum round_state */
    struct shared_plan *plan;
    cs_buffer plan_bytes;
    const cs_mode *mode;
    struct member *members; /* in name order */
    size_t members_count;
    struct task *tasks; /* of the open phase, in the mode's order */
    size_t tasks_count;
    int64_t deadline_at_ms; /* monotonic; meaningful while row.remaining_ms >= 0 */
    int64_t look_at_ms;     /* when a paused job looks again whether it can go on */
    bool is_folding;        /* the aggregation thread has the fold */
    bool stops_early;       /* what was folded just now says so; true only until the transition that follows from it */
    cs_status fold_status;  /* of the last one */
    bool was_loaded;        /* still in the phase in which the process found it: see access.h */
    bool has_changed;       /* watchers are told */
    bool has_progress;      /* watchers are told, at most four times a second */
    int64_t told_at_ms;     /* watchers were told */
    bool needs_effects;
};

/* job.c: the life of a job. Transitions are written into the open transaction; a failure means that the transaction is
 * lost and memory is read again from the database. */
CS_MUST_CHECK cs_status job_load(cs_engine *engine, const cs_job_row *row, struct job **ret);
typedef struct job job;
void job_free(struct job *job);
CS_DEFINE_AUTO_PTR(job)
struct job *job_find(cs_engine *engine, const char *name);
struct member *job_member(const struct job *job, const char *site);
struct task *job_task(const struct job *job, const char *site);
/* The phase that is open, or folding; NULL where the round has none (not opened yet). */
const cs_phase *job_phase(const struct job *job);
/* Feeds one event to the table and does what it says. CS_STATE when the table refuses it. `reason` is for cancel,
 * fail and pause. */
CS_MUST_CHECK cs_status job_step(cs_engine *engine, struct job *job, enum round_event event, const char *reason);
/* Ends the task of a participant with this state; then the round looks whether the phase is over. */
CS_MUST_CHECK cs_status job_end_task(cs_engine *engine, struct job *job, struct task *task, cs_task_state state,
                                     const char *reason);
/* The engine's answer to FOLDED: makes the blob part of the round state. */
CS_MUST_CHECK cs_status job_folded(cs_engine *engine, struct job *job, const cs_hash *hash, uint64_t size);
/* What follows from the state the job is in; as often as one likes. After the commit. */
void job_effects(cs_engine *engine, struct job *job);
/* Offers and open tasks go to this session again. */
void job_site_attended(cs_engine *engine, struct job *job, const char *site);
CS_MUST_CHECK cs_status job_tick(cs_engine *engine, struct job *job, int64_t now_ms);
int64_t job_wake_ms(cs_engine *engine, const struct job *job, int64_t now_ms);
/* Writes the rest of the running deadline. */
CS_MUST_CHECK cs_status job_save_remaining(cs_engine *engine, struct job *job, int64_t now_ms);
CS_MUST_CHECK cs_status job_new(cs_engine *engine, cs_bytes plan, const char *source, struct job **ret);
/* The names of the round's participants, in order; `ret` holds members_count. Returns their number; `ret_site`: which
 * one `site` is. */
size_t job_participants(const struct job *job, const char *site, const char **ret, size_t *ret_site);
/* The blobs that the task of this site is given: the mode's inputs, then what other sites' tasks brought for it. */
CS_MUST_CHECK cs_status job_inputs(cs_engine *engine, const struct job *job, const cs_phase *phase, const char *site,
                                   cs_blob_row rows[CS_INPUTS_MAX], size_t *ret_count);
/* The names of the blobs that the result of this site's task brings. */
size_t job_outputs(const struct job *job, const cs_phase *phase, const char *site,
                   char ret[CS_OUTPUTS_MAX][CS_WORD_BYTES]);
/* The model that the open phase's tasks are given; false where there is none. */
CS_MUST_CHECK cs_status job_base(cs_engine *engine, const struct job *job, const cs_phase *phase, uint32_t round,
                                 bool *ret_has, uint32_t *ret_round, cs_blob_row *ret);
Consilium__V1__JobState job_public_state(const struct job *job);

/* ---- door.c: what sites say ---- */
CS_MUST_CHECK cs_status door_message(cs_engine *engine, const char *site, const Consilium__V1__SiteMessage *message);
struct checked;
CS_MUST_CHECK cs_status door_checked(cs_engine *engine, const struct checked *checked);
/* Starts the check of the result that the task holds. */
void door_check(cs_engine *engine, struct job *job, struct task *task);
/* Copies at most size − 1 printable ASCII characters: texts of peers go into records and terminals. */
void door_clean_text(char *out, size_t size, const char *text);

/* ---- roster.c: who is in the consortium, for the sites; messages from site to site ---- */
/* Tells one site, or every connected one if anything changed since the last time. */
void roster_send(cs_engine *engine, const char *site);
void roster_send_changes(cs_engine *engine);
CS_MUST_CHECK cs_status roster_approval(cs_engine *engine, const char *site,
                                        const Consilium__V1__RosterApproval *approval);
/* Passes the message on, if both are participants of the job's open round. */
void relay(cs_engine *engine, const char *site, const Consilium__V1__Relay *message);

/* ---- report.c: what is true about a job ---- */
CS_MUST_CHECK cs_status report_job(cs_engine *engine, const struct job *job, bool with_history, cs_arena *arena,
                                   Consilium__V1__JobStatus **ret);
/* How good the base model of a phase is by the pooled evaluations of its folded results; smaller is better. With early
 * stopping the plan's metric on validation rows, else log loss, or accuracy, on those or on test rows. */
CS_MUST_CHECK cs_status report_score(cs_engine *engine, const struct job *job, uint32_t round, const cs_phase *phase,
                                     bool *ret_has, double *ret_score);
/* The mean training loss of the folded sites, weighted by samples. */
CS_MUST_CHECK cs_status report_loss(cs_engine *engine, const struct job *job, uint32_t round, double *ret);
/* A stored result. */
CS_MUST_CHECK cs_status report_unpack(const cs_task_row *row, cs_arena *arena, Consilium__V1__TaskResult **ret);

/* ---- measure.c: what the page of metrics says ---- */
struct tally;
/* A task of this site has ended so; counts from the commit on. */
void measure_task(cs_engine *engine, const char *site, cs_task_state state);
/* Keeps what was counted since the last one, or forgets it where the transaction was lost. */
void measure_settle(cs_engine *engine, bool was_committed);
void measure_free(cs_engine *engine);

/* ---- record.c: records for the transcript, committed with the transition that they are about ---- */
CS_MUST_CHECK cs_status record_submitted(cs_engine *engine, const struct job *job);
CS_MUST_CHECK cs_status record_decision(cs_engine *engine, const struct job *job, const cs_member_row *member,
                                        cs_bytes signature);
CS_MUST_CHECK cs_status record_refused_decision(cs_engine *engine, const struct job *job, const char *site,
                                                const char *reason);
CS_MUST_CHECK cs_status record_round_opened(cs_engine *engine, const struct job *job);
/* `kind`: result_accepted, result_refused, result_failed, result_late, result_conflict. */
CS_MUST_CHECK cs_status record_result(cs_engine *engine, const char *kind, const char *job,
                                      const Consilium__V1__TaskResult *result, const char *site, const cs_hash *hash,
                                      const char *reason);
CS_MUST_CHECK cs_status record_folded(cs_engine *engine, const struct job *job, const cs_phase *phase,
                                      const cs_hash *hash);
CS_MUST_CHECK cs_status record_roster_approval(cs_engine *engine, const cs_roster_approval *approval);
CS_MUST_CHECK cs_status record_ended(cs_engine *engine, const struct job *job);
/* Appends what was committed to the transcript. */
CS_MUST_CHECK cs_status record_flush(cs_engine *engine);

/* ---- folds.c: the aggregation thread ---- */
struct folds;
struct checked {
    int64_t job;
    uint32_t round;
    char phase[CS_WORD_BYTES];
    char site[CS_NAME_MAX + 1];
    cs_hash result_hash;
    cs_status status;
    char error[CS_REASON_BYTES];
};
struct folded {
    int64_t job;
    uint32_t round;
    uint32_t phase;
    cs_status status;
    char error[CS_REASON_BYTES];
    cs_hash hash; /* where the phase makes something */
    uint64_t size;
};
struct fold_source {
    char site[CS_NAME_MAX + 1];
    cs_hash hash; /* of its output; not used where the phase has none */
    double weight;
};
CS_MUST_CHECK cs_status folds_start(cs_engine *engine, struct folds **ret);
/* Waits for the work at hand; what is queued is forgotten. */
void folds_stop(struct folds *folds);
/* CS_EXHAUSTED when too much is queued. `model`: NULL where there is none. */
CS_MUST_CHECK cs_status folds_check(struct folds *folds, const struct job *job, const struct task *task,
                                    const cs_hash *model, const cs_hash *output);
/* `sources` becomes the fold's own. */
CS_MUST_CHECK cs_status folds_fold(struct folds *folds, const struct job *job, const cs_hash *model,
                                   struct fold_source *sources, size_t count);
/* Removes blobs that are neither in `kept` (ascending; becomes its own) nor granted. */
CS_MUST_CHECK cs_status folds_collect(struct folds *folds, cs_hash *kept, size_t count);

/* ---- access.c: who may fetch and store what; read by rpc threads ---- */
struct access;
struct access_entry {
    char site[CS_NAME_MAX + 1];
    char job[CS_NAME_MAX + 1];
    uint32_t round;
    char phase[CS_WORD_BYTES];
    cs_hash inputs[CS_INPUTS_MAX];
    size_t inputs_count;
    uint64_t output_max_bytes; /* 0: nothing may be stored */
};
struct access *access_new(void);
void access_free(struct access *access);
/* Replaces the table; `entries` becomes its own. */
void access_publish(struct access *access, struct access_entry *entries, size_t count);
cs_status access_may_fetch(struct access *access, const char *site, const Consilium__V1__TaskKey *task,
                           const cs_hash *blob);
/* Remembers the blob, so that it is not collected before its result comes. */
cs_status access_may_store(struct access *access, const char *site, const Consilium__V1__TaskKey *task,
                           const cs_hash *blob, uint64_t size);
/* A fold made this blob; it is not collected before access_settle. Any thread. */
void access_hold(struct access *access, const cs_hash *blob);
/* The database names it now. */
void access_settle(struct access *access, const cs_hash *blob);
/* Forgets what was settled, and grants of tasks that are closed; before the list of kept blobs is read. */
void access_prune(struct access *access);
bool access_is_held(struct access *access, const cs_hash *blob);

/* ---- engine.c ---- */
struct session {
    char site[CS_NAME_MAX + 1];
    uint64_t number; /* 0: none */
    uint64_t features;
    char *software;
    char *confinement;
    int64_t left_at_ms;   /* monotonic */
    int64_t relay_at_ms;  /* monotonic: when the second began in which … */
    uint32_t relay_count; /* … so many messages for other sites came */
};
struct session *engine_session(cs_engine *engine, const char *site);
bool engine_is_connected(cs_engine *engine, const char *site);
/* When the site left; for one that was not here yet, when this process started: it may be on its way back. */
int64_t engine_left_at_ms(cs_engine *engine, const char *site);

enum posted_kind {
    POSTED_ATTENDED,
    POSTED_LEFT,
    POSTED_MESSAGE,
    POSTED_WORK,
    POSTED_CHECKED,
    POSTED_FOLDED,
    POSTED_COLLECTED
};
/* From the aggregation thread; `item` becomes the engine's. */
void engine_post_result(cs_engine *engine, enum posted_kind kind, void *item);

/* A message in the engine's mailbox. */
struct posted {
    enum posted_kind kind;
    char site[CS_NAME_MAX + 1];
    uint64_t session;
    uint64_t features;
    char *software;
    cs_buffer message;
    void *result; /* struct checked or struct folded */
    cs_status (*work)(void *argument, cs_store *store);
    void (*done)(void *argument, cs_status status, const char *error);
    void *argument;
};

/* How many messages of a site wait there. */
struct inflight {
    char site[CS_NAME_MAX + 1];
    size_t count;
};

struct cs_watch {
    cs_watch *next;
    cs_engine *engine;
    char job[CS_NAME_MAX + 1];
    void (*changed)(void *self);
    void *self;
    bool is_over; /* taken out once no walk over the list is under way */
};

struct pending_ack;
struct pending_done;

struct cs_engine {
    cs_engine_config config;
    cs_mailbox *mailbox;
    pthread_t thread;
    cs_store *store;
    struct folds *folds;
    struct access *access;

    struct job *jobs; /* open ones, in order of submission */
    struct session *sessions;
    size_t sessions_count;

    uint64_t roster_changes; /* of the store, when the roster was last said */
    cs_hash roster_said;

    bool in_transaction;
    bool has_failed; /* the open transaction must not be committed */
    int64_t reload_at_ms;
    bool access_changed;
    bool wants_collect;
    int64_t collect_at_ms; /* not before */
    bool is_collecting;
    int64_t save_at_ms;
    int64_t started_at_ms; /* monotonic */

    int64_t outbox_appended; /* rows up to here are in the transcript */
    int64_t outbox_removed;
    bool outbox_written;
    int64_t outbox_retry_at_ms;

    struct pending_ack *acks;
    struct pending_ack **acks_end;
    struct pending_done *dones;
    struct pending_done **dones_end;

    pthread_mutex_t watches_mutex; /* guards the list and what it points to; recursive */
    cs_watch *watches;

    struct tally *tallies; /* measure.c */

    pthread_mutex_t inflight_mutex; /* guards the counts of messages in the mailbox */
    struct inflight *inflight;
    size_t inflight_count;
    size_t inflight_total;
};

/* Opens the transaction of this batch, if it is not open yet. */
CS_MUST_CHECK cs_status engine_begin(cs_engine *engine);
/* Sent after the commit. */
void engine_ack(cs_engine *engine, const char *site, const Consilium__V1__TaskKey *key, Consilium__V1__Verdict verdict,
                const char *reason);
bool engine_send(cs_engine *engine, const char *site, const Consilium__V1__CoordinatorMessage *message);
void engine_posted_free(struct posted *posted);
void engine_end_inflight(cs_engine *engine, const char *site);
void engine_add_job(cs_engine *engine, struct job *job);
/* Lets the table look at the job again: something it depends on has changed. */
void engine_look(cs_engine *engine, struct job *job);
/* An event that could not be written: the batch is given up and memory is read again. */
void engine_give_up(cs_engine *engine, const char *what, const char *name);
/* True when the disk has more than the reserve. */
bool engine_has_room(cs_engine *engine);

/* A paused job looks this often whether what it waits for is there again. */
#define PAUSED_LOOK_MS 2000

/* ---- job.c, for load.c ---- */
static inline const cs_plan *plan_of(const struct job *job)
{
    return job->plan->plan;
}
void job_exclude(struct member *member, const char *word, const char *reason);
void job_forget_tasks(struct job *job);
void job_start_deadline(struct job *job, int64_t duration_ms);
const char *task_state_word(cs_task_state state);

#endif
