/* What the files of the running agent share: agent.c (the agent thread, sessions, renewal), offers.c (plans and
 * decisions), tasks.c (assignments to acknowledged results), lanes.c (the two threads that do the work). Everything
 * here belongs to the agent thread unless a comment says otherwise. */
#ifndef CS_AGENT_INTERNAL_H
#define CS_AGENT_INTERNAL_H

#include "client/agent/agent.h"
#include "client/agent/alignment.h"
#include "client/agent/control.h"
#include "client/agent/enrol.h"
#include "client/agent/exchange.h"
#include "client/agent/records.h"
#include "client/agent/session.h"
#include "client/agent/supervisor.h"
#include "client/agent/transfer.h"
#include "common/audit/transcript.h"
#include "common/base/clock.h"
#include "common/base/mailbox.h"
#include "common/config/site.h"
#include "common/crypto/roster.h"
#include "common/metrics/responder.h"

#include <pthread.h>
#include <stdatomic.h>

/* Tasks a coordinator may have open here at once, over all jobs. */
#define CS_OPEN_TASKS_MAX 64
/* Blobs of one task: in, and out. */
#define CS_TASK_BLOBS_MAX 16
/* Back-off between tries, of connections and of work: jittered, from half a second to half a minute. */
#define CS_RETRY_BASE_MS 500
#define CS_RETRY_CAP_MS  30000
/* Repeats of a transfer that the coordinator refuses. */
#define CS_REPEATS_MAX 3
/* Repeats of a task whose worker was lost: somebody may kill it again and again while it starts, and that must not cost
 * the job; a data set that crashes it must not do so for ever. Quicker than a line, since nobody else is asked. */
#define CS_WORKER_REPEATS_MAX  20
#define CS_WORKER_RETRY_CAP_MS 1000
/* At most four progress messages a second and task. */
#define CS_PROGRESS_INTERVAL_MS 250
/* A worker without a task for so long is ended; it holds the model and the data in memory. */
#define CS_WORKER_IDLE_MS (10 * 60 * 1000LL)
/* Unreferenced blobs are removed no more often than this, and partial transfers after a day without progress. */
#define CS_COLLECT_INTERVAL_MS 60000
#define CS_PARTIAL_AGE_MS      (24 * 3600 * 1000LL)
#define CS_REASON_MAX          256

/* What is to be done next for a task; each step is repeatable. */
enum step {
    STEP_FETCH,       /* input blobs: transfer lane */
    STEP_RUN,         /* the worker: work lane */
    STEP_UPLOAD,      /* the result is durable here; its blobs go up: transfer lane */
    STEP_SEND,        /* the result goes up, again with each session until it is acknowledged */
    STEP_ACKNOWLEDGED /* kept until a later round, in case the coordinator asks again */
};

struct task {
    struct task *next;
    cs_agent *agent;
    char *job, *phase;
    uint32_t round;
    char *name; /* "job/round/phase", in logs and as key of records */
    enum step step;
    bool is_in_flight;        /* a lane has it: the fields below the line are the lane's */
    bool is_dropped;          /* forgotten once it comes back */
    bool is_acknowledged;     /* while it was in flight */
    bool has_failed;          /* the result says so */
    atomic_bool is_cancelled; /* any thread */
    uint32_t repeats;
    int64_t due_ms;     /* not before */
    int64_t kill_at_ms; /* cancelled; 0: not */
    uint64_t sent_in;   /* number of the session that got the result; 0: none */
    /* ---- given to and got back from a lane ---- */
    cs_arena *arena; /* the assignment and the plan; gone once there is a result */
    const Consilium__V1__TaskAssignment *assignment;
    cs_bytes plan;
    cs_link *link;    /* held while in flight on the transfer lane */
    cs_buffer result; /* packed TaskResult, from STEP_UPLOAD on */
    cs_hash blobs[2 * CS_TASK_BLOBS_MAX];
    size_t blobs_count;
    bool has_kept, keeps;     /* does it take up what an earlier round left; does it leave something itself */
    cs_hash kept, keeps_blob; /* … */
    cs_sealing *sealing;      /* of an alignment; wiped with the task */
    uint64_t tokens;          /* points of the own list that leave with the result */
    uint64_t patients;        /* of the cohort, where the result says it */
    cs_status status;         /* of the step */
    bool is_worth_repeating;
    char sentence[CS_ERROR_TEXT_BYTES];
    int64_t progress_ms; /* when the last progress went out */
    int progress_stage;
};

/* Of enum Verdict: unknown, accepted, refused, late, conflict. */
#define VERDICTS (CONSILIUM__V1__VERDICT__VERDICT_CONFLICT + 1)
const char *verdict_word(Consilium__V1__Verdict verdict);

/* What other threads tell the agent thread. */
struct event {
    enum event_kind {
        EVENT_SESSION_UP,
        EVENT_SESSION_DOWN,
        EVENT_MESSAGE,
        EVENT_TASK, /* a lane has done its step */
        EVENT_PROGRESS,
        EVENT_READY, /* a worker has said what confines it */
        EVENT_CONTROL,
        EVENT_RENEWED,
        EVENT_STOP
    } kind;
    cs_session *session;
    cs_arena *arena; /* owned: MESSAGE */
    const Consilium__V1__CoordinatorMessage *message;
    struct task *task; /* not owned; alive while in flight */
    struct question *question;
    Consilium__V1__Stage stage;
    uint64_t done, total;
    double loss, rate;
    cs_status status;
    char *text;  /* owned */
    char *build; /* owned */
    cs_buffer bytes;
};
void event_free(struct event *event);
/* Takes the event; waits for room. Not from the agent thread. */
void agent_tell(cs_agent *agent, struct event *event);

/* A thread that takes one errand after the other. */
struct lane {
    cs_agent *agent;
    cs_mailbox *errands;
    pthread_t thread;
};

struct errand {
    enum errand_kind { ERRAND_TASK, ERRAND_END_JOB, ERRAND_END_IDLE } kind;
    struct task *task;
    char *job; /* owned: END_JOB */
};

struct cs_agent {
    /* Set before the threads start, then only read. */
    char *state_folder, *tasks_folder, *staging_folder, *personal_folder;
    cs_buffer config_text;
    cs_site_config *config;
    cs_blobs *blobs;           /* any thread */
    cs_transcript *transcript; /* any thread */
    cs_transfer *transfer;     /* transfer lane; stop: agent thread */
    cs_supervisor *supervisor; /* work lane; cancel, kill, stop: agent thread */
    cs_mailbox *inbox;         /* of struct event */
    cs_control *control;
    cs_metrics_responder *metrics; /* NULL: not served */
    int64_t started_wall_ms;
    pthread_t thread;
    struct lane transfers, work;
    cs_fd lock;

    /* The agent thread's. */
    struct later *later; /* records that may wait, oldest first */
    size_t later_count;
    int64_t later_at_ms;
    cs_site_identity identity;
    cs_records *records;
    struct task *tasks;
    cs_hash leaving[4 * CS_TASK_BLOBS_MAX]; /* of tasks that are forgotten */
    size_t leaving_count;
    bool is_stopping;

    cs_session *current;     /* up */
    uint64_t session_number; /* of `current`; rises */
    cs_session *opening;     /* on its way; with `current` there: to take over with a renewed certificate */
    size_t retired;          /* sessions told to stop whose end has not been heard */
    bool wants_new_session;  /* although there is one: the certificate is new */
    uint32_t attempts;
    int64_t connect_at_ms;
    char *disconnected_reason;
    bool must_rest; /* the longest back-off before the next connection */

    struct renewal *renewal; /* under way; NULL: none */
    pthread_t renewing;
    int64_t renewal_check_at_ms;
    int64_t idle_check_at_ms;

    cs_roster offered, approved; /* by the coordinator; by this site's people. No members: none yet */
    int64_t approved_ms;
    struct alignment *alignments; /* sessions with other sites, of open jobs */
    cs_roster has_approved;       /* who signed `offered`, as valid members of it */

    char *confinement, *build; /* of the last worker that was ready or refused to be */
    char *shown_task;          /* for `status` */
    Consilium__V1__Stage shown_stage;
    uint64_t shown_done, shown_total;
    bool wants_collection;
    int64_t collected_ms;

    /* Since the start, for the page of metrics. */
    struct {
        uint64_t sessions;
        uint64_t workers_started, workers_lost;
        uint64_t tasks_done, tasks_failed;
        uint64_t answers[VERDICTS];
    } counts;
};

/* ---- measure.c ---- */
/* Fills the page of metrics. Agent thread. */
CS_MUST_CHECK cs_status agent_measure(cs_agent *agent, cs_metrics_page *page);

/* ---- offers.c ---- */
void offers_receive(cs_agent *agent, const Consilium__V1__JobOffer *offer);
void offers_job_update(cs_agent *agent, const Consilium__V1__JobUpdate *update);
/* Says every decision on an open job again. */
void offers_repeat(cs_agent *agent);
CS_MUST_CHECK cs_status offers_list(cs_agent *agent, cs_arena *arena, Consilium__V1__ControlAnswer *answer);
CS_MUST_CHECK cs_status offers_show(cs_agent *agent, const char *plan, cs_arena *arena,
                                    Consilium__V1__ControlAnswer *answer);
CS_MUST_CHECK cs_status offers_approve(cs_agent *agent, const char *plan, uint32_t runs, cs_arena *arena,
                                       Consilium__V1__ControlAnswer *answer);
CS_MUST_CHECK cs_status offers_refuse(cs_agent *agent, const char *plan, const char *reason, cs_arena *arena,
                                      Consilium__V1__ControlAnswer *answer);

/* ---- members.c: the roster ---- */
CS_MUST_CHECK cs_status members_restore(cs_agent *agent);
void members_receive(cs_agent *agent, const Consilium__V1__Roster *roster);
/* Says this site's approval again. */
void members_repeat(cs_agent *agent);
CS_MUST_CHECK cs_status members_show(cs_agent *agent, cs_arena *arena, Consilium__V1__ControlAnswer *answer);
CS_MUST_CHECK cs_status members_approve(cs_agent *agent, const char *roster, cs_arena *arena,
                                        Consilium__V1__ControlAnswer *answer);
/* Are all of these sites in the roster that this site approved, with the keys that the coordinator says? The roster of
 * just them, or CS_DENIED with a sentence that names the fingerprints. */
CS_MUST_CHECK cs_status members_pick(const cs_agent *agent, char *const *sites, size_t count, cs_roster *ret);
void members_free(cs_agent *agent);

/* ---- alignment.c: sessions between sites ---- */
/* Takes up the sessions of open jobs and wipes those of others. After the records were opened. */
CS_MUST_CHECK cs_status alignments_restore(cs_agent *agent);
/* A message of another site. */
void alignments_relay(cs_agent *agent, const Consilium__V1__Relay *relay);
/* Does what can be done now for a task of the phase `agree`: it has no lane. */
void alignments_agree(cs_agent *agent, struct task *task);
/* Gives the task what its lane needs to seal and open. CS_DENIED without a session. */
CS_MUST_CHECK cs_status alignments_prepare(cs_agent *agent, struct task *task);
/* Accounts for the own list before it leaves. CS_DENIED over a limit of the policy. */
CS_MUST_CHECK cs_status alignments_spend(cs_agent *agent, const char *job, uint64_t tokens);
void alignments_end_job(cs_agent *agent, const char *job);
void alignments_free(cs_agent *agent);

/* ---- tasks.c ---- */
void task_clear_sealing(struct task *task);
/* Ends a task that no lane has: failed with this sentence, or done without any blob. */
void task_refuse(cs_agent *agent, struct task *task, const char *sentence);
void task_succeed(cs_agent *agent, struct task *task);
/* Takes up the results that were not acknowledged when the agent ended. */
CS_MUST_CHECK cs_status tasks_restore(cs_agent *agent);
void tasks_assign(cs_agent *agent, const Consilium__V1__TaskAssignment *assignment);
void tasks_acknowledge(cs_agent *agent, const Consilium__V1__ResultAck *ack);
/* A lane has brought the task back. */
void tasks_step_done(cs_agent *agent, struct task *task);
/* Does for every task what can be done now. */
void tasks_advance(cs_agent *agent);
/* Stops the job's tasks and forgets them. */
void tasks_end_job(cs_agent *agent, const char *job);
void tasks_stop(cs_agent *agent);
bool tasks_in_flight(const cs_agent *agent);
/* When the next task is due; `until_ms` if that is sooner. */
int64_t tasks_due(const cs_agent *agent, int64_t until_ms);
size_t tasks_held(cs_agent *agent, cs_arena *arena, Consilium__V1__TaskKey ***ret);
void tasks_free(cs_agent *agent);

/* ---- lanes.c ---- */
/* Everything of the result that leaves the building, recorded with one sync before the first byte of it does: what left
 * is in the transcript even if we die in the middle. Once, however often it is called. Any thread. */
cs_status task_record_leaving(const struct task *task, const Consilium__V1__TaskResult *result);
/* What an ended job leaves to the site, and nothing of its secrets: see lanes.c. Work lane, or before it starts. */
void personal_close(const cs_agent *agent, const char *job);
void lane_start(struct lane *lane, cs_agent *agent, size_t capacity);
/* Hands the errand over. False when the lane has more to do than a decent coordinator asks for. Never waits: the lane
 * may be waiting for room in the agent thread's inbox. */
bool lane_give(struct lane *lane, enum errand_kind kind, struct task *task, const char *job);
/* Ends after the errand under way. */
void lane_stop(struct lane *lane);

/* Copies what fits, without cutting a character in two. */
void text_shorten(const char *text, char *out, size_t size);
/* A sentence as it may leave the building: short, without paths. The sentence itself is for the site's log. */
void text_for_coordinator(const char *sentence, char out[CS_REASON_MAX]);

/* ---- agent.c ---- */
bool agent_needs_blob(cs_agent *agent, const cs_hash *blob);
/* False: no session, or it takes no more and is being replaced. */
bool agent_send(cs_agent *agent, const Consilium__V1__SiteMessage *message);
/* Ends the session and waits the longest back-off before the next, in which the coordinator says everything again: for
 * what could not be stored here now. */
void agent_rest(cs_agent *agent, const char *reason);
/* False: the transcript cannot be written, and what it would be about must not leave. */
bool agent_record(cs_agent *agent, const char *kind, const char *key, const cs_buffer *fields);
/* For what neither decides nor leaves: written within a second together with others, lost with a crash before. */
void agent_record_later(cs_agent *agent, const char *kind, const char *key, const cs_buffer *fields);

#endif
