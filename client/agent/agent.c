/* The agent thread: owns all state of the daemon, opens sessions, renews the certificate, hands work to the lanes.
 * Other threads only post events to its inbox. Started and stopped by main.c. */
#include "client/agent/internal.h"

#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "common/base/random.h"
#include "common/base/service.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#define INBOX_EVENTS 256
/* Every open task and the end of every open job. */
#define LANE_ERRANDS (CS_OPEN_TASKS_MAX + CS_OPEN_JOBS_MAX + 8)
#define RENEW_PATH   "/consilium.v1.Federation/Renew"
/* Leaves are dated back by so much, for clocks that are a little off; their life begins after it. */
#define LEAF_BACKDATE_MS     (5 * 60 * 1000LL)
#define RENEWAL_CHECK_MAX_MS 60000
#define IDLE_CHECK_MS        60000
#define SMALL_ARENA_BYTES    (1024 * 1024)

/* ---- events ---- */

void event_free(struct event *event)
{
    cs_arena_free(event->arena);
    cs_free(event->text);
    cs_free(event->build);
    cs_buffer_clear(&event->bytes);
    cs_free(event);
}

void agent_tell(cs_agent *agent, struct event *event)
{
    if (cs_mailbox_post(agent->inbox, event) != CS_OK)
        event_free(event);
}

static struct event *session_event(enum event_kind kind, cs_session *session)
{
    struct event *event = cs_alloc(sizeof(*event));
    event->kind = kind;
    event->session = session;
    return event;
}

/* These three run on a session's reading thread. */
static void tell_up(void *self, cs_session *session)
{
    agent_tell(self, session_event(EVENT_SESSION_UP, session));
}

static void tell_message(void *self, cs_session *session, cs_arena *arena,
                         const Consilium__V1__CoordinatorMessage *message)
{
    struct event *event = session_event(EVENT_MESSAGE, session);
    event->arena = arena;
    event->message = message;
    agent_tell(self, event);
}

static void tell_down(void *self, cs_session *session, cs_status status, const char *reason)
{
    struct event *event = session_event(EVENT_SESSION_DOWN, session);
    event->status = status;
    event->text = cs_strdup(reason);
    agent_tell(self, event);
}

/* A command's question: the control thread waits until the agent thread has answered. */
struct question {
    const Consilium__V1__ControlRequest *request;
    cs_arena *arena;
    Consilium__V1__ControlAnswer *answer;
    cs_metrics_page *page; /* or this: the page of metrics is asked for */
    cs_status status;      /* of the page */
    char error[CS_ERROR_TEXT_BYTES];
    pthread_mutex_t done_lock;
    pthread_cond_t done_changed;
    bool is_done; /* guarded by done_lock */
};

/* Posts the question and waits until the agent thread has answered. */
static void ask_and_wait(cs_agent *agent, struct question *question)
{
    pthread_mutex_init(&question->done_lock, NULL);
    cs_condition_init(&question->done_changed);
    struct event *event = cs_alloc(sizeof(*event));
    event->kind = EVENT_CONTROL;
    event->question = question;
    agent_tell(agent, event);
    pthread_mutex_lock(&question->done_lock);
    while (!question->is_done)
        cs_condition_wait(&question->done_changed, &question->done_lock, -1);
    pthread_mutex_unlock(&question->done_lock);
    pthread_cond_destroy(&question->done_changed);
    pthread_mutex_destroy(&question->done_lock);
}

static const Consilium__V1__ControlAnswer *ask_agent(void *self, const Consilium__V1__ControlRequest *request,
                                                     cs_arena *arena)
{
    struct question question = {.request = request, .arena = arena};
    question.answer = cs_arena_alloc(arena, sizeof(*question.answer));
    consilium__v1__control_answer__init(question.answer);
    ask_and_wait(self, &question);
    return question.answer;
}

/* On the responder's thread. What takes the disk is looked up there and holds nobody else up. */
static cs_status fill_metrics(void *self, cs_metrics_page *page)
{
    cs_agent *agent = self;
    struct question question = {.page = page};
    ask_and_wait(agent, &question);
    if (question.status != CS_OK)
        return cs_fail(question.status, "%s", question.error);
    cs_metrics_disk_free(page, agent->state_folder);
    cs_metrics_process(page, "consilium-client", agent->started_wall_ms);
    return CS_OK;
}

/* ---- small things for all ---- */

bool agent_send(cs_agent *agent, const Consilium__V1__SiteMessage *message)
{
    if (agent->current == NULL)
        return false;
    const cs_status status = cs_session_send(agent->current, message);
    if (status == CS_EXHAUSTED) {
        /* The line takes nothing any more: a new session begins with everything that is open. */
        cs_log(CS_LOG_WARN, "agent", "session takes no more messages");
        cs_session_stop(agent->current);
    }
    return status == CS_OK;
}

bool agent_record(cs_agent *agent, const char *kind, const char *key, const cs_buffer *fields)
{
    if (cs_transcript_append_once(agent->transcript, kind, key, cs_buffer_view(fields)) == CS_OK)
        return true;
    cs_log(CS_LOG_ERROR, "agent", "transcript not written", CS_S("kind", kind), CS_S("reason", cs_error_text()));
    return false;
}

#define LATER_MAX 64
#define LATER_MS  1000

struct later {
    char *kind, *key;
    cs_buffer fields;
};

static void write_later(cs_agent *agent)
{
    if (agent->later_count == 0)
        return;
    cs_record records[LATER_MAX];
    for (size_t i = 0; i < agent->later_count; i++)
        records[i] = (cs_record){agent->later[i].kind, agent->later[i].key, cs_buffer_view(&agent->later[i].fields)};
    if (cs_transcript_append_all(agent->transcript, records, agent->later_count) != CS_OK)
        cs_log(CS_LOG_ERROR, "agent", "acknowledgements not recorded", CS_S("reason", cs_error_text()));
    for (size_t i = 0; i < agent->later_count; i++) {
        cs_free(agent->later[i].kind);
        cs_free(agent->later[i].key);
        cs_buffer_clear(&agent->later[i].fields);
    }
    agent->later_count = 0;
}

void agent_record_later(cs_agent *agent, const char *kind, const char *key, const cs_buffer *fields)
{
    if (agent->later == NULL)
        agent->later = cs_alloc_array(LATER_MAX, sizeof(*agent->later));
    if (agent->later_count == LATER_MAX)
        write_later(agent);
    if (agent->later_count == 0)
        agent->later_at_ms = cs_clock_monotonic_ms() + LATER_MS;
    struct later *record = &agent->later[agent->later_count++];
    *record = (struct later){.kind = cs_strdup(kind), .key = cs_strdup(key)};
    cs_buffer_append(&record->fields, fields->data, fields->size);
}

static void set_text(char **text, const char *value)
{
    char *copy = value != NULL ? cs_strdup(value) : NULL;
    cs_free(*text);
    *text = copy;
}

/* ---- sessions ---- */

/* Read for each session: a changed password needs no restart. */
static cs_status read_proxy_login(const cs_agent *agent, cs_secret *ret)
{
    if (agent->config->proxy_login_file == NULL)
        return CS_OK;
    CS_AUTO(cs_string) path = cs_path_join(agent->config->folder, agent->config->proxy_login_file);
    return cs_proxy_login_read(path, ret);
}

static cs_status check_certificate(const cs_site_identity *identity)
{
    if (identity->leaf.not_after_ms > cs_clock_wall_ms())
        return CS_OK;
    char when[CS_TIME_TEXT_BYTES];
    cs_clock_format(identity->leaf.not_after_ms, when);
    return cs_fail(CS_UNAUTHENTICATED,
                   "the certificate of site '%s' ended at %s: the operator makes a join file with `consilium-server "
                   "token new %s --rejoin`, and this site runs `consilium-client join` with it",
                   identity->site, when, identity->site);
}

/* The identity is read again each time: it may have been renewed, or the site may have joined again. */
static cs_status open_session(cs_agent *agent)
{
    CS_AUTO(cs_site_identity) identity = {0};
    CS_TRY(cs_site_identity_load(agent->state_folder, &identity));
    CS_TRY(check_certificate(&identity));
    CS_AUTO(cs_secret) login = CS_BUFFER_EMPTY;
    CS_TRY(read_proxy_login(agent, &login));
    const cs_rpc_channel_config config = {.target = agent->config->coordinator != NULL ? agent->config->coordinator
                                                                                       : identity.coordinator,
                                          .identity = {.certificate_pem = cs_buffer_view(&identity.certificate_pem),
                                                       .key_pem = cs_buffer_view(&identity.key_pem),
                                                       .authority_pem = cs_buffer_view(&identity.authority_pem)},
                                          .proxy = agent->config->proxy,
                                          .proxy_login = login.size > 0 ? cs_buffer_text(&login) : NULL};
    const cs_session_events events = {.self = agent, .up = tell_up, .message = tell_message, .down = tell_down};
    CS_TRY(cs_session_start(&config, &events, &agent->opening));
    const cs_site_identity older = agent->identity;
    agent->identity = identity;
    identity = older;
    return CS_OK;
}

static void not_connected(cs_agent *agent, const char *reason)
{
    if (agent->disconnected_reason == NULL || strcmp(agent->disconnected_reason, reason) != 0)
        cs_log(CS_LOG_WARN, "agent", "not connected", CS_S("site", agent->identity.site), CS_S("reason", reason));
    set_text(&agent->disconnected_reason, reason);
    CS_AUTO(cs_string) sentence = cs_format("not connected: %s", reason);
    cs_service_status(sentence);
}

void agent_rest(cs_agent *agent, const char *reason)
{
    if (agent->current == NULL)
        return;
    not_connected(agent, reason);
    agent->must_rest = true;
    cs_session_stop(agent->current);
}

static void wait_to_connect(cs_agent *agent)
{
    const int64_t wait_ms =
        agent->must_rest ? CS_RETRY_CAP_MS : cs_backoff_ms(agent->attempts, CS_RETRY_BASE_MS, CS_RETRY_CAP_MS);
    agent->attempts++;
    agent->connect_at_ms = cs_clock_monotonic_ms() + wait_ms;
}

static bool wants_session(const cs_agent *agent)
{
    return !agent->is_stopping && agent->opening == NULL && (agent->current == NULL || agent->wants_new_session);
}

static void connect_if_due(cs_agent *agent)
{
    if (!wants_session(agent) || agent->connect_at_ms > cs_clock_monotonic_ms())
        return;
    agent->must_rest = false;
    wait_to_connect(agent); /* until the next attempt, should this one end */
    if (open_session(agent) != CS_OK && agent->current == NULL)
        not_connected(agent, cs_error_text());
}

static void send_state(cs_agent *agent)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(SMALL_ARENA_BYTES);
    Consilium__V1__SiteState state = CONSILIUM__V1__SITE_STATE__INIT;
    state.n_held = tasks_held(agent, arena, &state.held);
    state.confinement = agent->confinement != NULL ? agent->confinement : (char *)(uintptr_t) "";
    state.build = agent->build != NULL ? agent->build : (char *)(uintptr_t) "";
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_STATE;
    message.state = &state;
    agent_send(agent, &message);
}

static void session_up(cs_agent *agent, cs_session *session)
{
    if (session != agent->opening)
        return;
    if (agent->current != NULL) {
        cs_session_stop(agent->current); /* the coordinator has fenced it already */
        agent->retired++;
    } else {
        cs_transfer_end_hanging(agent->transfer);
    }
    agent->current = session;
    agent->session_number++;
    agent->counts.sessions++;
    agent->opening = NULL;
    agent->wants_new_session = false;
    agent->attempts = 0;
    agent->must_rest = false;
    agent->renewal_check_at_ms = 0;
    set_text(&agent->disconnected_reason, NULL);
    cs_service_status("attending");
    cs_log(CS_LOG_INFO, "agent", "connected", CS_S("site", agent->identity.site),
           CS_S("consortium", agent->identity.consortium));
    send_state(agent);
    members_repeat(agent);
    offers_repeat(agent);
    tasks_advance(agent);
}

static void session_down(cs_agent *agent, cs_session *session, const char *reason)
{
    if (session == agent->current) {
        agent->current = NULL;
        if (agent->must_rest)
            wait_to_connect(agent);
        else if (agent->opening == NULL && !agent->is_stopping)
            not_connected(agent, reason);
    } else if (session == agent->opening) {
        agent->opening = NULL;
        if (agent->current == NULL && !agent->is_stopping)
            not_connected(agent, reason);
    } else {
        agent->retired--;
    }
    cs_session_free(session);
}

static void goodbye(cs_agent *agent, const cs_session *session, const Consilium__V1__Goodbye *goodbye)
{
    if (session != agent->current || agent->opening != NULL)
        return; /* our own newer session takes over */
    CS_AUTO(cs_string) reason = cs_format("the coordinator ended the session: %.400s", goodbye->reason);
    not_connected(agent, reason);
    agent->must_rest = !goodbye->may_reconnect;
}

static void receive(cs_agent *agent, const cs_session *session, const Consilium__V1__CoordinatorMessage *message)
{
    switch (message->body_case) {
    case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_OFFER:
        offers_receive(agent, message->offer);
        break;
    case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_TASK:
        tasks_assign(agent, message->task);
        break;
    case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ACK:
        tasks_acknowledge(agent, message->ack);
        break;
    case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB:
        offers_job_update(agent, message->job);
        break;
    case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ROSTER:
        members_receive(agent, message->roster);
        break;
    case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_RELAY:
        alignments_relay(agent, message->relay);
        break;
    case CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_GOODBYE:
        goodbye(agent, session, message->goodbye);
        break;
    default:
        break; /* of a newer minor version, or reserved */
    }
}

/* ---- renewal ---- */

/* The stream ends with a stop of the agent: then nobody waits for the answer. */
struct renewal {
    cs_agent *agent;
    cs_link *link;
    cs_rpc_stream *stream;
    cs_buffer csr;
};

static void renewal_free(struct renewal *renewal)
{
    if (renewal == NULL)
        return;
    cs_rpc_stream_free(renewal->stream);
    cs_link_free(renewal->link);
    cs_buffer_clear(&renewal->csr);
    cs_free(renewal);
}

static cs_status ask_renewal(struct renewal *renewal, struct event *event)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(SMALL_ARENA_BYTES);
    Consilium__V1__RenewRequest request = CONSILIUM__V1__RENEW_REQUEST__INIT;
    request.hello = cs_wire_hello();
    request.csr = cs_wire_data(renewal->csr.data, renewal->csr.size);
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_rpc_stream_ask(renewal->stream, &request.base, arena, &message));
    const Consilium__V1__RenewAnswer *answer = (const Consilium__V1__RenewAnswer *)message;
    if (answer->certificate.len == 0 || answer->certificate.len > CS_PEM_MAX_BYTES)
        return cs_fail(CS_INVALID, "the new certificate has %zu bytes", answer->certificate.len);
    cs_buffer_append(&event->bytes, answer->certificate.data, answer->certificate.len);
    return CS_OK;
}

/* A thread of its own, once in days: the call may wait for a slow coordinator, and no transfer should wait for it. */
static void *renew(void *argument)
{
    struct renewal *renewal = argument;
    struct event *event = cs_alloc(sizeof(*event));
    event->kind = EVENT_RENEWED;
    event->status = ask_renewal(renewal, event);
    event->text = cs_strdup(cs_error_text());
    agent_tell(renewal->agent, event);
    return NULL;
}

static int64_t leaf_life_ms(const cs_identity *leaf)
{
    return leaf->not_after_ms - (leaf->not_before_ms + LEAF_BACKDATE_MS);
}

static void renew_if_due(cs_agent *agent)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    if (agent->renewal_check_at_ms > now_ms)
        return;
    const cs_identity *leaf = &agent->identity.leaf;
    const int64_t life_ms = leaf_life_ms(leaf);
    agent->renewal_check_at_ms = now_ms + CS_MAX(CS_MIN(life_ms / 20, (int64_t)RENEWAL_CHECK_MAX_MS), (int64_t)100);
    if (agent->current == NULL || agent->renewal != NULL || agent->is_stopping || agent->wants_new_session ||
        agent->opening != NULL || cs_clock_wall_ms() < leaf->not_after_ms - life_ms / 3)
        return;
    struct renewal *renewal = cs_alloc(sizeof(*renewal));
    renewal->agent = agent;
    if (cs_renewal_prepare(agent->state_folder, &renewal->csr) != CS_OK) {
        cs_log(CS_LOG_ERROR, "agent", "renewal not prepared", CS_S("reason", cs_error_text()));
        renewal_free(renewal);
        return;
    }
    renewal->link = cs_link_hold(cs_session_link(agent->current));
    if (cs_rpc_stream_open(renewal->link->control, RENEW_PATH, &consilium__v1__renew_answer__descriptor,
                           CS_ANSWER_TIMEOUT_MS, &renewal->stream) != CS_OK) {
        renewal_free(renewal);
        return;
    }
    agent->renewal = renewal;
    if (pthread_create(&agent->renewing, NULL, renew, renewal) != 0)
        abort(); /* no thread at all: nothing this process could still do */
}

static void renewed(cs_agent *agent, const struct event *event)
{
    pthread_join(agent->renewing, NULL);
    renewal_free(agent->renewal);
    agent->renewal = NULL;
    cs_status status = event->status;
    if (status != CS_OK)
        CS_IGNORE(cs_fail(status, "%s", event->text), "leaves the sentence only");
    else
        status = cs_failpoint("agent.renewal.install");
    if (status == CS_OK)
        status = cs_renewal_install(agent->state_folder, cs_buffer_view(&event->bytes),
                                    cs_buffer_view(&agent->identity.authority_pem));
    if (status != CS_OK) {
        cs_log(CS_LOG_WARN, "agent", "certificate not renewed", CS_S("reason", cs_error_text()));
        return;
    }
    cs_log(CS_LOG_INFO, "agent", "certificate renewed", CS_S("site", agent->identity.site));
    agent->wants_new_session = true; /* `current` serves until the new one is up */
    agent->connect_at_ms = 0;
    agent->attempts = 0;
}

/* ---- blobs nobody needs ---- */

bool agent_needs_blob(cs_agent *agent, const cs_hash *blob)
{
    for (const struct task *task = agent->tasks; task != NULL; task = task->next)
        for (size_t i = 0; i < task->blobs_count; i++)
            if (cs_hash_equal(&task->blobs[i], blob))
                return true;
    bool is_needed = true;
    if (cs_records_is_blob_needed(agent->records, blob, &is_needed) != CS_OK)
        return true;
    return is_needed;
}

static bool is_blob_needed(void *self, const cs_hash *blob)
{
    return agent_needs_blob(self, blob);
}

/* Only while no lane works: what a worker has just made is known to nobody but its lane. */
static void collect_if_due(cs_agent *agent)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    if (!agent->wants_collection || now_ms - agent->collected_ms < CS_COLLECT_INTERVAL_MS || tasks_in_flight(agent))
        return;
    agent->wants_collection = false;
    agent->collected_ms = now_ms;
    uint64_t removed = 0;
    /* An acknowledgement that is not durable would be sent for again, and its blobs with it. */
    if (cs_records_flush(agent->records) != CS_OK ||
        cs_blobs_collect(agent->blobs, is_blob_needed, agent, CS_PARTIAL_AGE_MS, &removed) != CS_OK)
        cs_log(CS_LOG_WARN, "agent", "blobs not collected", CS_S("reason", cs_error_text()));
    else if (removed > 0)
        cs_log(CS_LOG_INFO, "agent", "unneeded blobs removed", CS_I("count", removed));
}

static void end_idle_workers_if_due(cs_agent *agent)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    if (agent->idle_check_at_ms > now_ms)
        return;
    agent->idle_check_at_ms = now_ms + IDLE_CHECK_MS;
    if (cs_records_flush(agent->records) != CS_OK)
        cs_log(CS_LOG_ERROR, "agent", "acknowledgements not stored", CS_S("reason", cs_error_text()));
    if (!tasks_in_flight(agent))
        (void)lane_give(&agent->work, ERRAND_END_IDLE, NULL, NULL); /* comes again */
}

/* ---- commands ---- */

static cs_status answer_status(cs_agent *agent, cs_arena *arena, Consilium__V1__ControlAnswer *answer)
{
    Consilium__V1__AgentStatus *status = cs_arena_alloc(arena, sizeof(*status));
    consilium__v1__agent_status__init(status);
    status->site = cs_arena_strdup(arena, agent->identity.site);
    status->consortium = cs_arena_strdup(arena, agent->identity.consortium);
    status->coordinator = cs_arena_strdup(arena, agent->config->coordinator != NULL ? agent->config->coordinator
                                                                                    : agent->identity.coordinator);
    status->is_connected = agent->current != NULL;
    status->reason = cs_arena_strdup(arena, agent->current != NULL               ? ""
                                            : agent->disconnected_reason != NULL ? agent->disconnected_reason
                                                                                 : "connecting");
    status->certificate_expires_ms = (uint64_t)agent->identity.leaf.not_after_ms;
    status->confinement = cs_arena_strdup(arena, agent->confinement != NULL ? agent->confinement : "");
    status->task = cs_arena_strdup(arena, agent->shown_task != NULL ? agent->shown_task : "");
    status->stage = agent->shown_stage;
    status->done = agent->shown_done;
    status->total = agent->shown_total;
    cs_hash root;
    cs_transcript_head(agent->transcript, &status->records_sent, &root);
    status->transcript_root = cs_wire_data(cs_arena_copy(arena, root.bytes, sizeof(root.bytes)), sizeof(root.bytes));
    answer->status = status;
    return CS_OK;
}

static cs_status answer_request(cs_agent *agent, struct question *question)
{
    const Consilium__V1__ControlRequest *request = question->request;
    switch (request->body_case) {
    case CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS:
        return answer_status(agent, question->arena, question->answer);
    case CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_LIST:
        return offers_list(agent, question->arena, question->answer);
    case CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_SHOW:
        return offers_show(agent, request->plan_show->plan, question->arena, question->answer);
    case CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_APPROVE:
        return offers_approve(agent, request->plan_approve->plan, request->plan_approve->runs, question->arena,
                              question->answer);
    case CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_REFUSE:
        return offers_refuse(agent, request->plan_refuse->plan, request->plan_refuse->reason, question->arena,
                             question->answer);
    case CONSILIUM__V1__CONTROL_REQUEST__BODY_ROSTER_SHOW:
        return members_show(agent, question->arena, question->answer);
    case CONSILIUM__V1__CONTROL_REQUEST__BODY_ROSTER_APPROVE:
        return members_approve(agent, request->roster_approve->roster, question->arena, question->answer);
    default:
        return cs_fail(CS_UNIMPLEMENTED, "this agent does not know that request; is the command of a newer version?");
    }
}

static void answer(cs_agent *agent, struct question *question)
{
    const cs_status status =
        question->page != NULL ? agent_measure(agent, question->page) : answer_request(agent, question);
    if (question->page != NULL) {
        question->status = status;
        snprintf(question->error, sizeof(question->error), "%s", status == CS_OK ? "" : cs_error_text());
    } else if (status != CS_OK) {
        char *sentence = cs_arena_strdup(question->arena, cs_error_text());
        consilium__v1__control_answer__init(question->answer);
        question->answer->code = (uint32_t)status;
        question->answer->error = sentence != NULL ? sentence : (char *)(uintptr_t) "no memory for the sentence";
    }
    pthread_mutex_lock(&question->done_lock);
    question->is_done = true;
    pthread_cond_signal(&question->done_changed);
    pthread_mutex_unlock(&question->done_lock);
}

/* ---- the thread ---- */

static void progress(cs_agent *agent, const struct event *event)
{
    const struct task *task = event->task;
    agent->shown_stage = event->stage;
    agent->shown_done = event->done;
    agent->shown_total = event->total;
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = task->job;
    key.round = task->round;
    key.phase = task->phase;
    Consilium__V1__TaskProgress said = CONSILIUM__V1__TASK_PROGRESS__INIT;
    said.key = &key;
    said.stage = event->stage;
    said.done = event->done;
    said.total = event->total;
    said.loss = event->loss;
    said.rate = event->rate;
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_PROGRESS;
    message.progress = &said;
    agent_send(agent, &message);
}

static void worker_said(cs_agent *agent, const struct event *event)
{
    cs_log(CS_LOG_INFO, "agent", "worker", CS_S("confinement", event->text),
           CS_S("build", event->build != NULL ? event->build : ""));
    agent->counts.workers_started += event->build != NULL;
    const bool is_news = agent->confinement == NULL || strcmp(agent->confinement, event->text) != 0;
    set_text(&agent->confinement, event->text);
    if (event->build != NULL)
        set_text(&agent->build, event->build);
    if (is_news)
        send_state(agent);
}

static void begin_to_stop(cs_agent *agent)
{
    agent->is_stopping = true;
    if (agent->current != NULL)
        cs_session_stop(agent->current);
    if (agent->opening != NULL)
        cs_session_stop(agent->opening);
    if (agent->renewal != NULL)
        cs_rpc_stream_cancel(agent->renewal->stream); /* the key waits in keys/ for the next start */
    tasks_stop(agent);
}

static void handle(cs_agent *agent, struct event *event)
{
    switch (event->kind) {
    case EVENT_SESSION_UP:
        session_up(agent, event->session);
        break;
    case EVENT_SESSION_DOWN:
        session_down(agent, event->session, event->text);
        break;
    case EVENT_MESSAGE:
        if (!agent->is_stopping)
            receive(agent, event->session, event->message);
        break;
    case EVENT_TASK:
        tasks_step_done(agent, event->task);
        break;
    case EVENT_PROGRESS:
        progress(agent, event);
        break;
    case EVENT_READY:
        worker_said(agent, event);
        break;
    case EVENT_CONTROL:
        answer(agent, event->question);
        break;
    case EVENT_RENEWED:
        renewed(agent, event);
        break;
    case EVENT_STOP:
        begin_to_stop(agent);
        break;
    }
    event_free(event);
}

static bool has_loose_ends(const cs_agent *agent)
{
    return agent->current != NULL || agent->opening != NULL || agent->retired > 0 || agent->renewal != NULL ||
           tasks_in_flight(agent);
}

static int64_t next_due(const cs_agent *agent)
{
    int64_t until_ms = CS_MIN(agent->renewal_check_at_ms, agent->idle_check_at_ms);
    if (wants_session(agent))
        until_ms = CS_MIN(until_ms, agent->connect_at_ms);
    if (agent->later_count > 0)
        until_ms = CS_MIN(until_ms, agent->later_at_ms);
    return tasks_due(agent, until_ms);
}

static void *run_agent(void *argument)
{
    cs_agent *agent = argument;
    while (!agent->is_stopping || has_loose_ends(agent)) {
        void *event = NULL;
        if (!agent->is_stopping) {
            connect_if_due(agent);
            renew_if_due(agent);
            collect_if_due(agent);
            end_idle_workers_if_due(agent);
            tasks_advance(agent);
            if (agent->later_count > 0 && agent->later_at_ms <= cs_clock_monotonic_ms())
                write_later(agent);
        }
        if (cs_mailbox_take(agent->inbox, agent->is_stopping ? -1 : CS_MAX(next_due(agent), (int64_t)0), &event) ==
            CS_OK)
            handle(agent, event);
    }
    write_later(agent);
    return NULL;
}

/* ---- start and stop ---- */

static cs_status take_lock(cs_agent *agent)
{
    CS_AUTO(cs_string) path = cs_path_join(agent->state_folder, "lock");
    CS_TRY(cs_file_open(path, O_RDWR | O_CREAT, 0600, &agent->lock));
    if (flock(agent->lock, LOCK_EX | LOCK_NB) != 0)
        return cs_fail(CS_EXISTS, "another agent runs in '%s'", agent->state_folder);
    return CS_OK;
}

static cs_status absolute(const char *path, char **ret)
{
    char *whole = realpath(path, NULL);
    if (whole == NULL)
        return cs_fail_errno("'%s'", path);
    *ret = cs_strdup(whole);
    free(whole); /* NOLINT: realpath's own memory */
    return CS_OK;
}

static cs_status load_config(cs_agent *agent, const char *config_path)
{
    CS_AUTO(cs_string) path =
        config_path != NULL ? cs_strdup(config_path) : cs_path_join(agent->state_folder, "site.yaml");
    CS_TRY(cs_file_read_all(path, CS_SITE_CONFIG_MAX_BYTES, &agent->config_text));
    CS_AUTO(cs_string) whole = NULL;
    CS_TRY(absolute(path, &whole));
    CS_AUTO(cs_string) folder = cs_path_folder(whole);
    CS_TRY(cs_site_config_read(cs_buffer_view(&agent->config_text), path, folder, &agent->config));
    if (strcmp(agent->config->site, agent->identity.site) != 0)
        return cs_fail(CS_INVALID, "%s: site: found '%s', the certificate of this site says '%s'", path,
                       agent->config->site, agent->identity.site);
    return CS_OK;
}

static cs_status make_folders(cs_agent *agent)
{
    agent->tasks_folder = cs_path_join(agent->state_folder, "tasks");
    /* A job's name has no dot, so no worker may write there. */
    agent->staging_folder = cs_path_join(agent->tasks_folder, ".outgoing");
    agent->personal_folder = cs_path_join(agent->state_folder, "personal");
    CS_TRY(cs_folder_remove(agent->tasks_folder)); /* of workers that are gone */
    CS_TRY(cs_folder_make(agent->staging_folder, 0700));
    static const char *const folders[] = {"db", "personal", "audit"};
    for (size_t i = 0; i < CS_COUNT(folders); i++) {
        CS_AUTO(cs_string) folder = cs_path_join(agent->state_folder, folders[i]);
        CS_TRY(cs_folder_make(folder, 0700));
    }
    return CS_OK;
}

static cs_status open_stores(cs_agent *agent)
{
    CS_AUTO(cs_string) db = cs_path_join(agent->state_folder, "db/agent.db");
    CS_AUTO(cs_string) blobs = cs_path_join(agent->state_folder, "blobs");
    CS_AUTO(cs_string) audit = cs_path_join(agent->state_folder, "audit");
    CS_TRY(cs_records_open(db, &agent->records));
    CS_TRY(cs_blobs_open(blobs, &agent->blobs));
    CS_TRY(cs_transcript_open(audit, &agent->transcript));
    agent->transfer = cs_transfer_new(agent->blobs);
    return cs_supervisor_new(&(cs_supervisor_config){.program = agent->config->worker,
                                                     .site = agent->config->site,
                                                     .site_config = cs_buffer_view(&agent->config_text),
                                                     .site_config_folder = agent->config->folder,
                                                     .tasks_folder = agent->tasks_folder},
                             &agent->supervisor);
}

static void free_agent(cs_agent *agent)
{
    tasks_free(agent);
    alignments_free(agent);
    members_free(agent);
    cs_free(agent->later);
    cs_supervisor_free(agent->supervisor);
    cs_transfer_free(agent->transfer);
    cs_records_free(agent->records);
    cs_blobs_free(agent->blobs);
    cs_transcript_free(agent->transcript);
    cs_mailbox_free(agent->inbox);
    cs_site_config_free(agent->config);
    cs_buffer_clear(&agent->config_text);
    cs_site_identity_clear(&agent->identity);
    cs_fd_clear(&agent->lock);
    cs_free(agent->state_folder);
    cs_free(agent->tasks_folder);
    cs_free(agent->staging_folder);
    cs_free(agent->personal_folder);
    cs_free(agent->disconnected_reason);
    cs_free(agent->confinement);
    cs_free(agent->build);
    cs_free(agent->shown_task);
    cs_free(agent);
}

static cs_status close_ended(void *self, const char *name)
{
    cs_agent *agent = self;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(SMALL_ARENA_BYTES);
    cs_job_record job;
    if (cs_records_find_job(agent->records, name, arena, &job) != CS_OK ||
        job.state >= CONSILIUM__V1__JOB_STATE__JOB_COMPLETE)
        personal_close(agent, name);
    return CS_OK;
}

/* Closes what belongs to jobs that ended while nobody was here to hear of it. */
static cs_status personal_restore(cs_agent *agent)
{
    return cs_folder_list(agent->personal_folder, close_ended, agent);
}

static cs_status prepare(cs_agent *agent, const cs_agent_config *config)
{
    CS_TRY(absolute(config->state_folder, &agent->state_folder));
    CS_TRY(take_lock(agent));
    CS_TRY(cs_site_identity_load(agent->state_folder, &agent->identity));
    CS_TRY(load_config(agent, config->config_path));
    CS_TRY(make_folders(agent));
    CS_TRY(open_stores(agent));
    agent->inbox = cs_mailbox_new(INBOX_EVENTS);
    agent->wants_collection = true;
    agent->collected_ms = cs_clock_monotonic_ms() - CS_COLLECT_INTERVAL_MS;
    agent->idle_check_at_ms = cs_clock_monotonic_ms() + IDLE_CHECK_MS;
    CS_TRY(members_restore(agent));
    CS_TRY(alignments_restore(agent));
    CS_TRY(personal_restore(agent));
    CS_TRY(tasks_restore(agent));
    agent->started_wall_ms = cs_clock_wall_ms();
    return cs_control_start(agent->state_folder, ask_agent, agent, &agent->control);
}

/* Once the agent thread can answer. */
static cs_status start_metrics(cs_agent *agent)
{
    if (agent->config->metrics == NULL)
        return CS_OK;
    const cs_metrics_config config = {.address = agent->config->metrics, .fill = fill_metrics, .self = agent};
    CS_TRY(cs_metrics_start(&config, &agent->metrics));
    cs_log(CS_LOG_INFO, "agent", "metrics", CS_I("port", cs_metrics_port(agent->metrics)));
    return CS_OK;
}

cs_status cs_agent_start(const cs_agent_config *config, cs_agent **ret)
{
    cs_agent *agent = cs_alloc(sizeof(*agent));
    agent->lock = -1;
    const cs_status status = prepare(agent, config);
    if (status != CS_OK) {
        CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
        free_agent(agent);
        return cs_fail(status, "%s", sentence);
    }
    lane_start(&agent->transfers, agent, LANE_ERRANDS);
    lane_start(&agent->work, agent, LANE_ERRANDS);
    if (pthread_create(&agent->thread, NULL, run_agent, agent) != 0)
        abort(); /* no thread at all: nothing this process could still do */
    const cs_status measured = start_metrics(agent);
    if (measured != CS_OK) {
        CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
        cs_agent_stop(agent);
        return cs_fail(measured, "%s", sentence);
    }
    *ret = agent;
    return CS_OK;
}

void cs_agent_stop(cs_agent *agent)
{
    if (agent == NULL)
        return;
    cs_control_stop(agent->control); /* while the agent thread can still answer */
    cs_metrics_stop(agent->metrics);
    struct event *event = cs_alloc(sizeof(*event));
    event->kind = EVENT_STOP;
    agent_tell(agent, event);
    pthread_join(agent->thread, NULL);
    lane_stop(&agent->transfers);
    lane_stop(&agent->work);
    void *left = NULL;
    while (cs_mailbox_take(agent->inbox, 0, &left) == CS_OK)
        event_free(left);
    free_agent(agent);
}
