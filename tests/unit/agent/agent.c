/* The daemon against a coordinator of the test's own: offers, tasks, broken lines, lost workers, renewal. */
#include "tests/unit/agent/rig.h"

#include "common/base/log.h"

#include <signal.h>

#define TRAIN(plan_, model_, round_)                                                                                   \
    (&(rig_task){.job = "demo", .phase = "train", .round = (round_), .plan = (plan_), .model = (model_)})

static void assert_says(const char *text, const char *word)
{
    if (strstr(text, word) == NULL)
        fail_msg("'%s' does not say '%s'", text, word);
}

static cs_hash approved_job(rig *rig)
{
    rig_start_agent(rig);
    rig_attended(rig, 1);
    const cs_hash plan = rig_offer(rig, "demo");
    assert_int_equal(rig_decision(rig, 1)->decision, CONSILIUM__V1__DECISION__DECISION_APPROVED);
    return plan;
}

static Consilium__V1__ControlAnswer *plan_command(rig *rig, Consilium__V1__ControlRequest__BodyCase kind,
                                                  const char *plan)
{
    Consilium__V1__PlanRequest show = CONSILIUM__V1__PLAN_REQUEST__INIT;
    Consilium__V1__PlanApproveRequest approve = CONSILIUM__V1__PLAN_APPROVE_REQUEST__INIT;
    Consilium__V1__PlanRefuseRequest refuse = CONSILIUM__V1__PLAN_REFUSE_REQUEST__INIT;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    show.plan = approve.plan = refuse.plan = (char *)(uintptr_t)plan;
    refuse.reason = (char[]){"not in our ethics vote"};
    request.body_case = kind;
    if (kind == CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_SHOW)
        request.plan_show = &show;
    else if (kind == CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_APPROVE)
        request.plan_approve = &approve;
    else
        request.plan_refuse = &refuse;
    Consilium__V1__ControlAnswer *answer = NULL;
    const cs_status status = cs_control_ask(rig->site_folder, &request, rig->arena, &answer);
    return status == CS_OK ? answer : NULL;
}

/* ---- plans ---- */

static void a_plan_that_fits_the_policy_is_approved_with_the_sites_signature(void **state)
{
    rig *rig = *state;

    const cs_hash plan = approved_job(rig);

    const Consilium__V1__PlanDecision *decision = rig_decision(rig, 1);
    CS_AUTO(cs_site_identity) identity = {0};
    must_be_ok(cs_site_identity_load(rig->site_folder, &identity));
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(&plan, hex);
    CS_AUTO(cs_string) text = cs_format("consilium-decision-v1\ndemo\n%s\napproved", hex);
    must_be_ok(cs_sign_verify(cs_sign_key_public(identity.signing_key), cs_bytes_of_text(text),
                              cs_wire_bytes(decision->signature), "decision"));
    assert_says(rig_transcript(rig), "\"kind\":\"plan_decision\"");
}

static void a_plan_that_this_build_cannot_read_is_refused_with_line_and_column(void **state)
{
    rig *rig = *state;
    rig_start_agent(rig);
    rig_attended(rig, 1);

    rig_offer_as(rig, "demo", "plan: demo\nmodel: {kind: transformer}\n", NULL);

    const Consilium__V1__PlanDecision *decision = rig_decision(rig, 1);
    assert_int_equal(decision->decision, CONSILIUM__V1__DECISION__DECISION_REFUSED);
    assert_says(decision->reason, "plan:");
}

static void plan_bytes_that_are_not_those_of_the_hash_are_refused(void **state)
{
    rig *rig = *state;
    rig_start_agent(rig);
    rig_attended(rig, 1);
    const cs_hash other = {{7}};

    rig_offer_as(rig, "demo", PLAN_TEXT, &other);

    const Consilium__V1__PlanDecision *decision = rig_decision(rig, 1);
    assert_int_equal(decision->decision, CONSILIUM__V1__DECISION__DECISION_REFUSED);
    assert_says(decision->reason, "hash");
}

static void a_plan_without_a_rule_waits_for_a_person_with_the_whole_hash(void **state)
{
    rig *rig = *state;
    rig_configure(rig, "");
    rig_start_agent(rig);
    rig_attended(rig, 1);

    const cs_hash plan = rig_offer(rig, "demo");

    assert_int_equal(rig_decision(rig, 1)->decision, CONSILIUM__V1__DECISION__DECISION_PENDING);
    char hash[CS_HASH_TEXT_BYTES];
    cs_hash_text(&plan, hash);
    const Consilium__V1__ControlAnswer *shown =
        plan_command(rig, CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_SHOW, "demo");
    assert_memory_equal(shown->plans[0]->plan_sha256.data, plan.bytes, CS_HASH_BYTES);
    assert_true(strlen(shown->plans[0]->summary) > 0);
    char beginning[24];
    snprintf(beginning, sizeof(beginning), "%.23s", hash);
    assert_null(plan_command(rig, CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_APPROVE, beginning));
    assert_says(cs_error_text(), "whole hash");
    assert_non_null(plan_command(rig, CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_APPROVE, hash));
    assert_int_equal(rig_decision(rig, 2)->decision, CONSILIUM__V1__DECISION__DECISION_APPROVED);
}

static void one_approval_is_for_one_job(void **state)
{
    rig *rig = *state;
    rig_configure(rig, "");
    rig_start_agent(rig);
    rig_attended(rig, 1);
    const cs_hash plan = rig_offer(rig, "demo");
    rig_decision(rig, 1);
    char hash[CS_HASH_TEXT_BYTES];
    cs_hash_text(&plan, hash);
    assert_non_null(plan_command(rig, CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_APPROVE, hash));
    rig_decision(rig, 2);

    rig_offer(rig, "demo-2");

    assert_int_equal(rig_decision(rig, 3)->decision, CONSILIUM__V1__DECISION__DECISION_PENDING);
}

static void a_person_may_refuse_and_withdraw(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig);

    assert_non_null(plan_command(rig, CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_REFUSE, "demo"));
    const Consilium__V1__PlanDecision *decision = rig_decision(rig, 2);
    rig_assign(rig, TRAIN(&plan, NULL, 1));
    const Consilium__V1__TaskResult *result = rig_result(rig, 1);

    assert_int_equal(decision->decision, CONSILIUM__V1__DECISION__DECISION_REFUSED);
    assert_string_equal(decision->reason, "not in our ethics vote");
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_FAILED);
    assert_says(result->reason, "not approved");
}

static void an_offer_repeated_after_a_reconnect_gets_the_same_answer_and_no_second_record(void **state)
{
    rig *rig = *state;
    approved_job(rig);

    rig_break_session(rig);
    rig_attended(rig, 2);
    rig_decision(rig, 2); /* said again on its own */
    rig_offer(rig, "demo");
    const Consilium__V1__PlanDecision *decision = rig_decision(rig, 3);

    assert_int_equal(decision->decision, CONSILIUM__V1__DECISION__DECISION_APPROVED);
    const char *first = strstr(rig_transcript(rig), "plan_decision");
    assert_null(strstr(first + 1, "plan_decision"));
}

/* ---- tasks ---- */

static void a_task_brings_a_checked_update_that_is_recorded_before_it_is_sent(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);

    rig_assign(rig, TRAIN(&plan, &model, 1));

    const Consilium__V1__TaskResult *result = rig_result(rig, 1);
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
    assert_memory_equal(result->base_sha256.data, model.bytes, CS_HASH_BYTES);
    assert_int_equal(result->n_outputs, 1);
    assert_string_equal(result->outputs[0]->name, "update");
    cs_hash update;
    must_be_ok(cs_hash_from(cs_wire_bytes(result->outputs[0]->sha256), "update", &update));
    assert_true(cs_blobs_has(rig->blobs, &update, NULL));
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(&update, hex);
    const char *transcript = rig_transcript(rig);
    assert_says(transcript, hex);
    assert_says(transcript, "\"kind\":\"result_sent\"");
    assert_null(strstr(transcript, rig->folder));
}

static void a_result_is_sent_again_in_every_session_until_it_is_acknowledged(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_assign(rig, TRAIN(&plan, &model, 1));
    const Consilium__V1__TaskResult *first = rig_result(rig, 1);

    rig_break_session(rig);
    rig_attended(rig, 2);
    const Consilium__V1__TaskResult *second = rig_result(rig, 2);
    rig_stop_agent(rig);
    rig_start_agent(rig);
    rig_attended(rig, 3);
    const Consilium__V1__TaskResult *third = rig_result(rig, 3);

    assert_memory_equal(first->outputs[0]->sha256.data, second->outputs[0]->sha256.data, CS_HASH_BYTES);
    assert_memory_equal(first->outputs[0]->sha256.data, third->outputs[0]->sha256.data, CS_HASH_BYTES);
    const char *sent = strstr(rig_transcript(rig), "update_sent");
    assert_null(strstr(sent + 1, "update_sent"));
}

static void an_acknowledged_result_is_not_sent_again_but_is_kept_for_who_asks(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_assign(rig, TRAIN(&plan, &model, 1));
    rig_acknowledge(rig, rig_result(rig, 1));
    rig_assign(rig, &(rig_task){.job = "demo", .phase = "evaluate", .round = 1, .plan = &plan, .model = &model});
    rig_acknowledge(rig, rig_result(rig, 2)); /* a second exchange: the first acknowledgement has arrived */
    while (strstr(rig_transcript(rig), "\"phase\":\"evaluate\",\"verdict\"") == NULL)
        rig_status(rig);
    rig_stop_agent(rig);

    rig_start_agent(rig);
    const Consilium__V1__SiteState *held = rig_attended(rig, 2);
    rig_assign(rig, TRAIN(&plan, &model, 1));
    const Consilium__V1__TaskResult *again = rig_result(rig, 3);

    assert_int_equal(held->n_held, 0);
    assert_string_equal(again->key->phase, "train");
    assert_memory_equal(again->outputs[0]->sha256.data, rig_result(rig, 1)->outputs[0]->sha256.data, CS_HASH_BYTES);
}

static void rounds_only_go_up(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_assign(rig, TRAIN(&plan, &model, 5));
    rig_acknowledge(rig, rig_result(rig, 1));
    rig_stop_agent(rig);
    rig_start_agent(rig);
    rig_attended(rig, 2);

    rig_assign(rig, TRAIN(&plan, &model, 4));

    const Consilium__V1__TaskResult *result = rig_result(rig, 2);
    while (result->key->round == 5) /* the acknowledgement may have been lost with the agent */
        result = rig_result(rig, 3);
    assert_int_equal(result->key->round, 4);
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_FAILED);
    assert_says(result->reason, "round 4");
}

static void a_task_for_fewer_sites_than_the_plan_says_is_refused(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);

    rig_assign(
        rig,
        &(rig_task){.job = "demo", .phase = "train", .round = 1, .plan = &plan, .model = &model, .participants = 1});

    const Consilium__V1__TaskResult *result = rig_result(rig, 1);
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_FAILED);
    assert_says(result->reason, "1 participants");
    assert_says(rig_transcript(rig), "task_refused");
}

static void a_task_with_another_plans_hash_is_refused(void **state)
{
    rig *rig = *state;
    approved_job(rig);
    const cs_hash other = {{9}}, model = rig_model(rig, 100, 0.5F);

    rig_assign(rig, TRAIN(&other, &model, 1));

    assert_says(rig_result(rig, 1)->reason, "another plan");
}

static void nobody_can_put_another_memory_in_the_place_of_the_sites_own(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);

    rig_assign(
        rig,
        &(rig_task){
            .job = "demo", .phase = "train", .round = 1, .plan = &plan, .model = &model, .model_name = "optimizer"});

    const Consilium__V1__TaskResult *result = rig_result(rig, 1);
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_FAILED);
    assert_says(result->reason, "brings an input 'optimizer', which only the site itself has");
}

static void a_phase_that_this_build_does_not_know_sends_nothing(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig);

    rig_assign(rig, &(rig_task){.job = "demo", .phase = "exfiltrate", .round = 1, .plan = &plan});

    assert_int_equal(rig_result(rig, 1)->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_FAILED);
    assert_int_equal(rig_result(rig, 1)->n_outputs, 0);
}

static void a_worker_that_dies_costs_a_repeat_of_the_task(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_mood(rig, "once-crash");

    rig_assign(rig, TRAIN(&plan, &model, 1));

    assert_int_equal(rig_result(rig, 1)->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
}

static void a_worker_that_dies_every_time_fails_the_task_with_the_reason(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_mood(rig, "crash");

    rig_assign(rig, TRAIN(&plan, &model, 1));

    const Consilium__V1__TaskResult *result = rig_result(rig, 1);
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_FAILED);
    assert_says(result->reason, "signal 9");
}

static void a_worker_that_refuses_is_not_asked_twice(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_mood(rig, "once-refuse");

    rig_assign(rig, TRAIN(&plan, &model, 1));

    const Consilium__V1__TaskResult *result = rig_result(rig, 1);
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_FAILED);
    assert_says(result->reason, "column 'age'");
}

static void a_worker_without_its_confinement_is_named_in_the_status_and_not_started_again(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_mood(rig, "once-unfit");

    rig_assign(rig, TRAIN(&plan, &model, 1));
    const Consilium__V1__TaskResult *first = rig_result(rig, 1);
    rig_acknowledge(rig, first);
    rig_assign(rig, TRAIN(&plan, &model, 2));
    const Consilium__V1__TaskResult *second = rig_result(rig, 2);

    assert_says(first->reason, "landlock");
    assert_says(second->reason, "landlock");
    assert_says(rig_status(rig)->confinement, "landlock");
}

static void never_sends(rig *rig, const char *mood, const char *reason)
{
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_mood(rig, mood);

    rig_assign(rig, TRAIN(&plan, &model, 1));

    const Consilium__V1__TaskResult *result = rig_result(rig, 1);
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_FAILED);
    assert_int_equal(result->n_outputs, 0);
    assert_says(result->reason, reason);
    assert_int_equal(rig->stores, 0);
    assert_null(strstr(rig_transcript(rig), "update_sent"));
}

static void an_update_that_is_not_finite_never_leaves(void **state)
{
    never_sends(*state, "once-nan", "not finite");
}

static void an_update_of_another_shape_never_leaves(void **state)
{
    never_sends(*state, "shape", "type or shape");
}

static void an_update_larger_than_the_model_never_leaves(void **state)
{
    never_sends(*state, "big", "");
}

static void a_link_out_of_the_tasks_folder_is_not_followed(void **state)
{
    never_sends(*state, "link", "");
}

static void a_fetch_goes_on_where_the_line_broke(void **state)
{
    rig *rig = *state;
    /* Past the first durable offset of a partial file. */
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 3 * 1024 * 1024, 0.5F);
    rig->cut_fetch_at = CS_BLOB_ACK_BYTES + 8192;

    rig_assign(rig, TRAIN(&plan, &model, 1));

    assert_int_equal(rig_result(rig, 1)->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
    assert_int_equal(rig->fetches, 2);
    assert_true(rig->last_fetch_offset >= CS_BLOB_ACK_BYTES);
}

static void an_upload_goes_on_after_a_broken_line(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 1024 * 1024, 0.5F);
    rig->cut_store = true;

    rig_assign(rig, TRAIN(&plan, &model, 1));

    assert_int_equal(rig_result(rig, 1)->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
    assert_true(rig->stores >= 2);
}

static void a_full_disk_at_the_result_costs_a_repeat(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    if (cs_failpoint_configure("agent.records.commit=error@1") != CS_OK)
        skip();

    rig_assign(rig, TRAIN(&plan, &model, 1));

    assert_int_equal(rig_result(rig, 1)->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
}

static void what_could_not_be_recorded_waits_until_it_can(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    if (cs_failpoint_configure("transcript.sync=error@1") != CS_OK)
        skip();

    rig_assign(rig, TRAIN(&plan, &model, 1));

    assert_int_equal(rig_result(rig, 1)->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
    assert_int_equal(rig->stores, 1); /* the first try had ended before a byte was sent */
    assert_says(rig_transcript(rig), "update_sent");
    assert_says(rig_transcript(rig), "result_sent");
}

static void an_offer_that_could_not_be_stored_is_taken_in_the_next_session(void **state)
{
    rig *rig = *state;
    rig_start_agent(rig);
    rig_attended(rig, 1);
    if (cs_failpoint_configure("agent.records.commit=error@1") != CS_OK)
        skip();

    rig_offer(rig, "demo");
    const Consilium__V1__AgentStatus *status = rig_status(rig);
    while (status->is_connected)
        status = rig_status(rig);

    assert_says(status->reason, "agent.records.commit");
}

static void a_cancelled_job_ends_a_worker_that_does_not_listen(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_mood(rig, "hang");
    rig_assign(rig, TRAIN(&plan, &model, 1));
    while (rig_status(rig)->stage != CONSILIUM__V1__STAGE__STAGE_TRAINING)
        ;

    rig_end_job(rig, "demo", CONSILIUM__V1__JOB_STATE__JOB_CANCELLED);
    while (rig_status(rig)->task[0] != '\0')
        ;
    rig_mood(rig, NULL);
    rig_offer(rig, "demo-2");
    rig_decision(rig, 2);
    rig_assign(rig, &(rig_task){.job = "demo-2", .phase = "train", .round = 1, .plan = &plan, .model = &model});

    const Consilium__V1__TaskResult *result = rig_result(rig, 1);
    assert_string_equal(result->key->job, "demo-2");
    assert_int_equal(result->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
}

static void the_agent_stops_while_its_worker_hangs(void **state)
{
    rig *rig = *state;
    const cs_hash plan = approved_job(rig), model = rig_model(rig, 100, 0.5F);
    rig_mood(rig, "hang");
    rig_assign(rig, TRAIN(&plan, &model, 1));
    while (rig_status(rig)->stage != CONSILIUM__V1__STAGE__STAGE_TRAINING)
        ;

    rig_stop_agent(rig);
    rig_mood(rig, NULL);
    rig_start_agent(rig);
    rig_attended(rig, 2);
    rig_assign(rig, TRAIN(&plan, &model, 1)); /* as the coordinator does */

    assert_int_equal(rig_result(rig, 1)->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
}

/* ---- certificates ---- */

static int rig_make_old(void **state)
{
    return rig_make_aged(state, 50 * 60 * 1000, HOUR_MS);
}

static int rig_make_expired(void **state)
{
    /* It joins while the certificate is good, and is switched on again when it is not. */
    const int made = rig_make_aged(state, 0, HOUR_MS / 2);
    cs_clock_fake(cs_clock_monotonic_ms(), cs_clock_wall_ms() + HOUR_MS);
    return made;
}

static void the_certificate_is_renewed_under_a_running_session(void **state)
{
    rig *rig = *state;
    rig_start_agent(rig);

    rig_await_count(rig, &rig->renewals, 1);
    rig_attended(rig, 2);

    CS_AUTO(cs_site_identity) identity = {0};
    must_be_ok(cs_site_identity_load(rig->site_folder, &identity));
    pthread_mutex_lock(&rig->guard);
    assert_memory_equal(rig->last_serial, identity.leaf.serial, CS_SERIAL_BYTES);
    pthread_mutex_unlock(&rig->guard);
    const cs_hash plan = rig_offer(rig, "demo"), model = rig_model(rig, 100, 0.5F);
    rig_decision(rig, 1);
    rig_assign(rig, TRAIN(&plan, &model, 1));
    assert_int_equal(rig_result(rig, 1)->outcome, CONSILIUM__V1__OUTCOME__OUTCOME_DONE);
    assert_true(rig_status(rig)->is_connected);
    assert_int_equal(rig->renewals, 1);
}

static void a_stop_does_not_wait_for_a_renewal(void **state)
{
    rig *rig = *state;
    rig->holds_renewals = true;
    rig_start_agent(rig);
    rig_await_count(rig, &rig->renewals, 1);
    const int64_t begun_ms = cs_clock_monotonic_ms();

    cs_agent_stop(rig->agent);
    rig->agent = NULL;

    assert_true(cs_clock_monotonic_ms() - begun_ms < CS_ANSWER_TIMEOUT_MS / 3);
}

static void an_expired_certificate_is_said_with_what_helps(void **state)
{
    rig *rig = *state;
    rig_start_agent(rig);

    const Consilium__V1__AgentStatus *status = rig_status(rig);
    while (strcmp(status->reason, "connecting") == 0)
        status = rig_status(rig);

    assert_false(status->is_connected);
    assert_says(status->reason, "--rejoin");
}

/* ---- the state directory ---- */

static void a_second_agent_in_the_same_folder_is_refused(void **state)
{
    rig *rig = *state;
    rig_start_agent(rig);
    cs_agent *second = NULL;

    must_fail(cs_agent_start(&(cs_agent_config){.state_folder = rig->site_folder}, &second), CS_EXISTS,
              "another agent");
}

static void a_site_that_has_not_joined_is_told_to_join(void **state)
{
    rig *rig = *state;
    cs_agent *agent = NULL;

    must_fail(cs_agent_start(&(cs_agent_config){.state_folder = rig->folder}, &agent), CS_STATE, "join");
}

static void a_goodbye_is_told_as_the_reason(void **state)
{
    rig *rig = *state;
    rig_start_agent(rig);
    rig_attended(rig, 1);
    Consilium__V1__Goodbye goodbye = CONSILIUM__V1__GOODBYE__INIT;
    goodbye.reason = (char[]){"this site was revoked"};
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_GOODBYE;
    message.goodbye = &goodbye;

    rig_say(rig, &message);
    /* Behind it in the same stream: once this is answered, the goodbye was read. */
    rig_offer(rig, "demo");
    rig_decision(rig, 1);
    rig_break_session(rig);
    const Consilium__V1__AgentStatus *status = rig_status(rig);
    while (status->is_connected)
        status = rig_status(rig);

    assert_says(status->reason, "this site was revoked");
}

#define RIG_TEST(function)            cmocka_unit_test_setup_teardown(function, rig_make, rig_free)
#define RIG_TEST_WITH(make, function) cmocka_unit_test_setup_teardown(function, make, rig_free)

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    cs_log_set_level(CS_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        RIG_TEST(a_plan_that_fits_the_policy_is_approved_with_the_sites_signature),
        RIG_TEST(a_plan_that_this_build_cannot_read_is_refused_with_line_and_column),
        RIG_TEST(plan_bytes_that_are_not_those_of_the_hash_are_refused),
        RIG_TEST(a_plan_without_a_rule_waits_for_a_person_with_the_whole_hash),
        RIG_TEST(one_approval_is_for_one_job),
        RIG_TEST(a_person_may_refuse_and_withdraw),
        RIG_TEST(an_offer_repeated_after_a_reconnect_gets_the_same_answer_and_no_second_record),
        RIG_TEST(a_task_brings_a_checked_update_that_is_recorded_before_it_is_sent),
        RIG_TEST(a_result_is_sent_again_in_every_session_until_it_is_acknowledged),
        RIG_TEST(an_acknowledged_result_is_not_sent_again_but_is_kept_for_who_asks),
        RIG_TEST(rounds_only_go_up),
        RIG_TEST(a_task_for_fewer_sites_than_the_plan_says_is_refused),
        RIG_TEST(a_task_with_another_plans_hash_is_refused),
        RIG_TEST(nobody_can_put_another_memory_in_the_place_of_the_sites_own),
        RIG_TEST(a_phase_that_this_build_does_not_know_sends_nothing),
        RIG_TEST(a_worker_that_dies_costs_a_repeat_of_the_task),
        RIG_TEST(a_worker_that_dies_every_time_fails_the_task_with_the_reason),
        RIG_TEST(a_worker_that_refuses_is_not_asked_twice),
        RIG_TEST(a_worker_without_its_confinement_is_named_in_the_status_and_not_started_again),
        RIG_TEST(an_update_that_is_not_finite_never_leaves),
        RIG_TEST(an_update_of_another_shape_never_leaves),
        RIG_TEST(an_update_larger_than_the_model_never_leaves),
        RIG_TEST(a_link_out_of_the_tasks_folder_is_not_followed),
        RIG_TEST(a_fetch_goes_on_where_the_line_broke),
        RIG_TEST(an_upload_goes_on_after_a_broken_line),
        RIG_TEST(a_full_disk_at_the_result_costs_a_repeat),
        RIG_TEST(what_could_not_be_recorded_waits_until_it_can),
        RIG_TEST(an_offer_that_could_not_be_stored_is_taken_in_the_next_session),
        RIG_TEST(a_cancelled_job_ends_a_worker_that_does_not_listen),
        RIG_TEST(the_agent_stops_while_its_worker_hangs),
        RIG_TEST_WITH(rig_make_old, the_certificate_is_renewed_under_a_running_session),
        RIG_TEST_WITH(rig_make_old, a_stop_does_not_wait_for_a_renewal),
        RIG_TEST_WITH(rig_make_expired, an_expired_certificate_is_said_with_what_helps),
        RIG_TEST(a_second_agent_in_the_same_folder_is_refused),
        RIG_TEST(a_site_that_has_not_joined_is_told_to_join),
        RIG_TEST(a_goodbye_is_told_as_the_reason),
    };
    cs_rpc_start();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cs_rpc_stop();
    return failed;
}
