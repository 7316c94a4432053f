/* Plans and decisions: what the coordinator offers, what the policy and people at the site say to it. Agent thread
 * only. A decision is stored, then recorded in the transcript, then said. */
#include "client/agent/internal.h"

#include "client/agent/policy.h"
#include "common/base/log.h"

#include <stdio.h>
#include <string.h>

#define OFFER_ARENA_BYTES  (4 * 1024 * 1024)
#define LIST_ARENA_BYTES   (4 * 1024 * 1024)
#define RUNS_MAX           1000
#define HASH_PREFIX_DIGITS 8

static const char *decision_word(Consilium__V1__Decision decision)
{
    return decision == CONSILIUM__V1__DECISION__DECISION_APPROVED  ? "approved"
           : decision == CONSILIUM__V1__DECISION__DECISION_REFUSED ? "refused"
                                                                   : "pending";
}

static bool has_ended(const cs_job_record *job)
{
    return job->state >= CONSILIUM__V1__JOB_STATE__JOB_COMPLETE;
}

static void sign_decision(const cs_agent *agent, const cs_job_record *job, uint8_t signature[CS_SIGNATURE_BYTES])
{
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(&job->plan, hex);
    CS_AUTO(cs_string) text =
        cs_format("consilium-decision-v1\n%s\n%s\n%s", job->job, hex, decision_word(job->decision));
    cs_sign(agent->identity.signing_key, cs_bytes_of_text(text), signature);
}

static bool record(cs_agent *agent, const cs_job_record *job)
{
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(&job->plan, hex);
    CS_AUTO(cs_string) key = cs_format("decision:%s:%s", job->job, decision_word(job->decision));
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "job", job->job);
    cs_json_text(&json, "plan", job->plan_name);
    cs_json_text(&json, "plan_sha256", hex);
    cs_json_text(&json, "decision", decision_word(job->decision));
    cs_json_text(&json, "reason", job->reason);
    cs_json_end(&json, '}');
    return agent_record(agent, "plan_decision", key, &fields);
}

/* Recorded first; said again as often as the coordinator asks. Without a session: said when there is one. */
static void say(cs_agent *agent, const cs_job_record *job)
{
    const bool is_decided = job->decision != CONSILIUM__V1__DECISION__DECISION_PENDING;
    if (is_decided && !record(agent, job)) {
        agent_rest(agent, cs_error_text());
        return;
    }
    uint8_t signature[CS_SIGNATURE_BYTES];
    char reason[CS_REASON_MAX];
    text_shorten(job->reason, reason, sizeof(reason));
    Consilium__V1__PlanDecision decision = CONSILIUM__V1__PLAN_DECISION__INIT;
    decision.job = (char *)(uintptr_t)job->job;
    decision.plan_sha256 = cs_wire_data(job->plan.bytes, sizeof(job->plan.bytes));
    decision.decision = job->decision;
    decision.reason = reason;
    if (is_decided) {
        sign_decision(agent, job, signature);
        decision.signature = cs_wire_data(signature, sizeof(signature));
    }
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_DECISION;
    message.decision = &decision;
    agent_send(agent, &message);
}

static void log_and_say(cs_agent *agent, const cs_job_record *job, const char *by)
{
    cs_log(CS_LOG_INFO, "agent", "plan decided", CS_S("job", job->job), CS_S("plan", job->plan_name),
           CS_S("decision", decision_word(job->decision)), CS_S("by", by), CS_S("reason", job->reason));
    say(agent, job);
}

/* ---- offers ---- */

struct judgement {
    Consilium__V1__Decision decision;
    char plan_name[CS_NAME_MAX + 1];
    char reason[CS_POLICY_REASON_BYTES];
    const char *by;
    bool uses_run;
    uint32_t sites_minimum;
};

static void judge(cs_agent *agent, const cs_hash *hash, cs_bytes text, size_t invited, struct judgement *ret)
{
    *ret = (struct judgement){.decision = CONSILIUM__V1__DECISION__DECISION_REFUSED, .by = "policy"};
    CS_AUTO_PTR(cs_plan) plan = NULL;
    if (cs_plan_read(text, "plan", &plan) != CS_OK) {
        snprintf(ret->reason, sizeof(ret->reason), "this build cannot read the plan: %.600s", cs_error_text());
        return;
    }
    snprintf(ret->plan_name, sizeof(ret->plan_name), "%s", plan->name);
    ret->sites_minimum = plan->sites.minimum;
    cs_policy_verdict verdict;
    cs_policy_decide(agent->config, plan, invited, &verdict);
    text_shorten(verdict.reason, ret->reason, sizeof(ret->reason));
    if (verdict.decision == CS_POLICY_REFUSED)
        return;
    uint32_t runs = 0;
    if (verdict.decision == CS_POLICY_APPROVED) {
        ret->decision = CONSILIUM__V1__DECISION__DECISION_APPROVED;
    } else if (cs_records_further_runs(agent->records, hash, &runs) == CS_OK && runs > 0) {
        ret->decision = CONSILIUM__V1__DECISION__DECISION_APPROVED;
        ret->by = "person";
        ret->uses_run = true;
        snprintf(ret->reason, sizeof(ret->reason),
                 "approved in advance by a person, for further runs of the same plan");
    } else {
        ret->decision = CONSILIUM__V1__DECISION__DECISION_PENDING;
    }
}

static cs_status check_offer(const Consilium__V1__JobOffer *offer, const cs_hash *hash)
{
    if (offer->plan.len > CS_PLAN_MAX_BYTES)
        return cs_fail(CS_EXHAUSTED, "the plan has %zu bytes, the most is %d", offer->plan.len, CS_PLAN_MAX_BYTES);
    const cs_hash found = cs_sha256(cs_wire_bytes(offer->plan));
    if (!cs_hash_equal(&found, hash))
        return cs_fail(CS_DATA_LOSS, "the plan's bytes are not those of its hash");
    return CS_OK;
}

/* For an offer that is not kept: says why, which is on this thread's sentence. */
static void refuse_unstored(cs_agent *agent, const Consilium__V1__JobOffer *offer, const cs_hash *hash)
{
    CS_AUTO(cs_string) reason = cs_strdup(cs_error_text());
    const cs_job_record job = {.job = offer->job,
                               .plan_name = "",
                               .reason = reason,
                               .plan = *hash,
                               .decision = CONSILIUM__V1__DECISION__DECISION_REFUSED};
    log_and_say(agent, &job, "policy");
}

static cs_status receive_new(cs_agent *agent, const Consilium__V1__JobOffer *offer, const cs_hash *hash)
{
    struct judgement judgement;
    judge(agent, hash, cs_wire_bytes(offer->plan), offer->n_invited, &judgement);
    const cs_job_record job = {.job = offer->job,
                               .plan_name = judgement.plan_name,
                               .reason = judgement.reason,
                               .plan = *hash,
                               .decision = judgement.decision,
                               .state = CONSILIUM__V1__JOB_STATE__JOB_WAITING,
                               .sites_minimum = judgement.sites_minimum};
    CS_TRY(
        cs_records_add_job(agent->records, &job, cs_wire_bytes(offer->plan), judgement.uses_run, cs_clock_wall_ms()));
    log_and_say(agent, &job, judgement.by);
    return CS_OK;
}

/* The coordinator offers again whenever a session begins: the answer is the one that was given. A plan that still waits
 * is judged again, because the policy may have changed with a restart. */
static cs_status receive_again(cs_agent *agent, const Consilium__V1__JobOffer *offer, cs_job_record *job,
                               const cs_hash *hash)
{
    if (!cs_hash_equal(&job->plan, hash))
        return cs_fail(CS_DENIED, "job '%s' was offered before with another plan", offer->job);
    if (job->decision == CONSILIUM__V1__DECISION__DECISION_PENDING) {
        struct judgement judgement;
        judge(agent, hash, cs_wire_bytes(offer->plan), offer->n_invited, &judgement);
        if (judgement.decision == CONSILIUM__V1__DECISION__DECISION_APPROVED && !judgement.uses_run) {
            uint32_t runs = 0;
            CS_TRY(cs_records_further_runs(agent->records, hash, &runs));
            CS_TRY(cs_records_decide(agent->records, job->job, judgement.decision, judgement.reason, runs));
            job->decision = judgement.decision;
            job->reason = judgement.reason;
            log_and_say(agent, job, judgement.by);
            return CS_OK;
        }
    }
    say(agent, job);
    return CS_OK;
}

void offers_receive(cs_agent *agent, const Consilium__V1__JobOffer *offer)
{
    cs_hash hash;
    if (cs_name_check(offer->job, "job") != CS_OK ||
        cs_hash_from(cs_wire_bytes(offer->plan_sha256), "plan_sha256", &hash) != CS_OK) {
        cs_log(CS_LOG_WARN, "agent", "offer without a usable name or hash", CS_S("reason", cs_error_text()));
        return;
    }
    cs_status status = check_offer(offer, &hash);
    const bool is_sound = status == CS_OK;
    if (is_sound) {
        CS_AUTO_PTR(cs_arena) arena = cs_arena_new(OFFER_ARENA_BYTES);
        cs_job_record job;
        status = cs_records_find_job(agent->records, offer->job, arena, &job);
        if (status == CS_OK)
            status = receive_again(agent, offer, &job, &hash);
        else if (status == CS_NOT_FOUND)
            status = receive_new(agent, offer, &hash);
    }
    if (status == CS_OK)
        return;
    cs_log(CS_LOG_WARN, "agent", "offer not taken", CS_S("job", offer->job), CS_S("reason", cs_error_text()));
    if (!is_sound || status == CS_DENIED || status == CS_STATE)
        refuse_unstored(agent, offer, &hash);
    else
        agent_rest(agent, cs_error_text()); /* a full disk, say: it will be offered again */
}

void offers_job_update(cs_agent *agent, const Consilium__V1__JobUpdate *update)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(OFFER_ARENA_BYTES);
    cs_job_record job;
    if (cs_records_find_job(agent->records, update->job, arena, &job) != CS_OK)
        return; /* never stored here: nothing to end */
    if (job.state == update->state || has_ended(&job))
        return;
    job.state = update->state;
    cs_log(CS_LOG_INFO, "agent", has_ended(&job) ? "job ended" : "job changed", CS_S("job", job.job),
           CS_S("state",
                protobuf_c_enum_descriptor_get_value(&consilium__v1__job_state__descriptor, (int)job.state)
                    ? protobuf_c_enum_descriptor_get_value(&consilium__v1__job_state__descriptor, (int)job.state)->name
                    : "unknown"),
           CS_S("reason", update->reason));
    if (has_ended(&job))
        tasks_end_job(agent, job.job);
    if (cs_records_set_state(agent->records, job.job, job.state) != CS_OK)
        cs_log(CS_LOG_ERROR, "agent", "job state not stored", CS_S("job", job.job), CS_S("reason", cs_error_text()));
}

void offers_repeat(cs_agent *agent)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(LIST_ARENA_BYTES);
    cs_job_record *jobs = NULL;
    size_t count = 0;
    if (cs_records_list_jobs(agent->records, arena, &jobs, &count) != CS_OK) {
        cs_log(CS_LOG_ERROR, "agent", "decisions not repeated", CS_S("reason", cs_error_text()));
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (!has_ended(&jobs[i]) && jobs[i].decision != CONSILIUM__V1__DECISION__DECISION_PENDING)
            say(agent, &jobs[i]);
}

/* ---- what the commands ask ---- */

static cs_status add_entry(const cs_job_record *job, cs_arena *arena, Consilium__V1__ControlAnswer *answer,
                           Consilium__V1__PlanEntry **ret)
{
    Consilium__V1__PlanEntry *entry = cs_arena_alloc(arena, sizeof(*entry));
    if (entry == NULL)
        return cs_fail(CS_EXHAUSTED, "more plans than fit one answer");
    consilium__v1__plan_entry__init(entry);
    entry->job = (char *)(uintptr_t)job->job;
    entry->plan = (char *)(uintptr_t)job->plan_name;
    entry->plan_sha256 = cs_wire_data(cs_arena_copy(arena, job->plan.bytes, CS_HASH_BYTES), CS_HASH_BYTES);
    entry->decision = job->decision;
    entry->reason = (char *)(uintptr_t)job->reason;
    entry->runs_left = job->runs_left;
    entry->highest_round = job->highest_round < 0 ? 0 : (uint32_t)job->highest_round;
    entry->state = job->state;
    answer->plans[answer->n_plans++] = entry;
    if (ret != NULL)
        *ret = entry;
    return CS_OK;
}

static cs_status list_jobs(cs_agent *agent, cs_arena *arena, Consilium__V1__ControlAnswer *answer, cs_job_record **ret,
                           size_t *ret_count)
{
    CS_TRY(cs_records_list_jobs(agent->records, arena, ret, ret_count));
    answer->plans = cs_arena_alloc(arena, (*ret_count + 1) * sizeof(*answer->plans));
    return answer->plans != NULL ? CS_OK : cs_fail(CS_EXHAUSTED, "more plans than fit one answer");
}

cs_status offers_list(cs_agent *agent, cs_arena *arena, Consilium__V1__ControlAnswer *answer)
{
    cs_job_record *jobs = NULL;
    size_t count = 0;
    CS_TRY(list_jobs(agent, arena, answer, &jobs, &count));
    for (size_t i = 0; i < count; i++)
        CS_TRY(add_entry(&jobs[i], arena, answer, NULL));
    return CS_OK;
}

/* A job, a plan's name (its newest job), or the beginning of one hash. */
static cs_status find_plan(const cs_job_record *jobs, size_t count, const char *plan, const cs_job_record **ret)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(jobs[i].job, plan) == 0) {
            *ret = &jobs[i];
            return CS_OK;
        }
    for (size_t i = 0; i < count; i++)
        if (strcmp(jobs[i].plan_name, plan) == 0) {
            *ret = &jobs[i];
            return CS_OK;
        }
    const char *digits = strncmp(plan, "sha256:", 7) == 0 ? plan + 7 : plan;
    const cs_job_record *found = NULL;
    for (size_t i = 0; strlen(digits) >= HASH_PREFIX_DIGITS && i < count; i++) {
        char hex[CS_HASH_HEX_BYTES];
        cs_hash_hex(&jobs[i].plan, hex);
        if (strncmp(hex, digits, strlen(digits)) != 0)
            continue;
        if (found != NULL && !cs_hash_equal(&found->plan, &jobs[i].plan))
            return cs_fail(CS_INVALID, "'%s' is the beginning of more than one plan's hash", plan);
        if (found == NULL)
            found = &jobs[i];
    }
    *ret = found;
    return found != NULL
               ? CS_OK
               : cs_fail(CS_NOT_FOUND,
                         "no job, plan or hash '%s' here: `consilium-client plan list` shows what there is", plan);
}

cs_status offers_show(cs_agent *agent, const char *plan, cs_arena *arena, Consilium__V1__ControlAnswer *answer)
{
    cs_job_record *jobs = NULL;
    size_t count = 0;
    const cs_job_record *job = NULL;
    Consilium__V1__PlanEntry *entry = NULL;
    cs_bytes text = {0};
    CS_TRY(list_jobs(agent, arena, answer, &jobs, &count));
    CS_TRY(find_plan(jobs, count, plan, &job));
    CS_TRY(add_entry(job, arena, answer, &entry));
    CS_TRY(cs_records_find_plan(agent->records, &job->plan, arena, &text));
    entry->text = cs_wire_data(text.data, text.size);

    CS_AUTO_PTR(cs_plan) parsed = NULL;
    CS_AUTO(cs_buffer) summary = CS_BUFFER_EMPTY;
    if (cs_plan_read(text, "plan", &parsed) == CS_OK)
        cs_plan_summary(parsed, agent->config, &summary);
    else
        cs_buffer_append_text(&summary, cs_error_text());
    entry->summary = cs_arena_strdup(arena, cs_buffer_text(&summary));
    return entry->summary != NULL ? CS_OK : cs_fail(CS_EXHAUSTED, "the summary does not fit the answer");
}

static cs_status decide(cs_agent *agent, cs_job_record *job, Consilium__V1__Decision decision, const char *reason,
                        uint32_t further_runs)
{
    CS_TRY(cs_records_decide(agent->records, job->job, decision, reason, further_runs));
    job->decision = decision;
    job->reason = reason;
    job->runs_left = further_runs;
    log_and_say(agent, job, "person");
    return CS_OK;
}

cs_status offers_approve(cs_agent *agent, const char *plan, uint32_t runs, cs_arena *arena,
                         Consilium__V1__ControlAnswer *answer)
{
    cs_hash hash;
    if (cs_hash_parse(plan, "plan", &hash) != CS_OK)
        return cs_fail(CS_INVALID,
                       "approve takes the whole hash that `consilium-client plan show` printed, found '%.80s'", plan);
    if (runs > RUNS_MAX)
        return cs_fail(CS_INVALID, "found %u runs, the most is %d", runs, RUNS_MAX);
    runs = CS_MAX(runs, 1U);
    cs_job_record *jobs = NULL;
    size_t count = 0;
    CS_TRY(list_jobs(agent, arena, answer, &jobs, &count));
    bool is_known = false;
    for (size_t i = 0; i < count; i++) {
        cs_job_record *job = &jobs[i];
        if (!cs_hash_equal(&job->plan, &hash) || has_ended(job))
            continue;
        is_known = true;
        if (job->decision != CONSILIUM__V1__DECISION__DECISION_PENDING || runs == 0)
            continue;
        CS_TRY(decide(agent, job, CONSILIUM__V1__DECISION__DECISION_APPROVED, "approved by a person", --runs));
        CS_TRY(add_entry(job, arena, answer, NULL));
    }
    if (answer->n_plans > 0)
        return CS_OK;
    return is_known ? cs_fail(CS_STATE, "no job with this plan waits for a decision")
                    : cs_fail(CS_NOT_FOUND, "no open job has a plan of that hash");
}

cs_status offers_refuse(cs_agent *agent, const char *plan, const char *reason, cs_arena *arena,
                        Consilium__V1__ControlAnswer *answer)
{
    cs_job_record *jobs = NULL;
    size_t count = 0;
    const cs_job_record *named = NULL;
    CS_TRY(list_jobs(agent, arena, answer, &jobs, &count));
    CS_TRY(find_plan(jobs, count, plan, &named));
    const bool is_one_job = strcmp(named->job, plan) == 0;
    const char *why = reason[0] != '\0' ? reason : "refused by a person";
    for (size_t i = 0; i < count; i++) {
        cs_job_record *job = &jobs[i];
        if (has_ended(job) || job->decision == CONSILIUM__V1__DECISION__DECISION_REFUSED ||
            (is_one_job ? job != named : !cs_hash_equal(&job->plan, &named->plan)))
            continue;
        tasks_end_job(agent, job->job);
        CS_TRY(decide(agent, job, CONSILIUM__V1__DECISION__DECISION_REFUSED, why, 0));
        CS_TRY(add_entry(job, arena, answer, NULL));
    }
    return answer->n_plans > 0 ? CS_OK : cs_fail(CS_STATE, "no open job with this plan is pending or approved");
}
