/* Whole jobs: who takes part, how rounds go on and end, what is kept and what is said about it. */
#include "tests/unit/engine/world.h"

#include "common/tensors/safetensors.h"

#include <math.h>

#define assert_near(found, expected) assert_true(fabs((double)(found) - (double)(expected)) < 1e-5)
#define SECONDS(n)                   ((int64_t)(n)*1000)
#define MINUTES(n)                   (SECONDS(n) * 60)
#define DAYS(n)                      (MINUTES(n) * 60 * 24)

static cs_hash run_to_end(world *world, const char *plan)
{
    const char *job = world_submit_ok(world, plan);
    assert_true(world_serve(world, SIZE_MAX));
    cs_hash hash;
    assert_ok(world_model(world, job, "last", &hash));
    return hash;
}

static const Consilium__V1__Metric *metric_of(const Consilium__V1__RoundSummary *summary, const char *site,
                                              const char *model, const char *name)
{
    for (size_t i = 0; i < summary->n_evaluations; i++) {
        const Consilium__V1__SiteEvaluation *item = summary->evaluations[i];
        if (strcmp(item->site, site) != 0 || strcmp(item->evaluation->model, model) != 0)
            continue;
        for (size_t m = 0; m < item->evaluation->n_metrics; m++) {
            if (strcmp(item->evaluation->metrics[m]->name, name) == 0)
                return item->evaluation->metrics[m];
        }
    }
    return NULL;
}

static void three_rounds_with_three_sites_are_complete(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 3, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world_attend_all(world);

    const cs_hash last = run_to_end(world, plan);

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
    assert_int_equal(status->folded_everywhere, 3);
    assert_int_equal(status->invited, 3);
    assert_int_equal(status->best_round, 2);
    assert_int_equal(status->n_history, 4);
    assert_string_equal(status->reason, "");
    assert_int_equal(world_progress(status, "b")->participation, CONSILIUM__V1__PARTICIPATION__FOLDED);
    assert_int_equal(world_progress(status, "b")->rounds_folded, 3);
    /* 1 + (1 + 2 + 3) · Σ n² / Σ n / 7 with n = 100, 200, 300. */
    const float expected = 1.0F + 6.0F * (100.0F + 400.0F + 900.0F) / 600.0F / 7.0F;
    assert_near(world_read_weight(world, &last), expected);
}

static void the_history_pools_what_can_be_pooled_and_nothing_else(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 3, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world_attend_all(world);
    run_to_end(world, plan);

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);

    const Consilium__V1__RoundSummary *second = status->history[2];
    assert_int_equal(second->round, 2);
    assert_int_equal(second->n_folded, 3);
    assert_string_equal(second->folded[0], "a");
    assert_int_equal(second->n_not_folded, 0);
    assert_near(metric_of(second, "", "global", "log_loss")->value, 0.4);
    assert_near(metric_of(second, "", "global", "log_loss")->count, 150);
    assert_null(metric_of(second, "", "global", "auc"));
    assert_near(metric_of(second, "c", "global", "auc")->value, 0.9);
    assert_non_null(metric_of(second, "a", "local", "accuracy"));
    assert_near(metric_of(status->history[3], "", "global", "log_loss")->value, 0.6);
    /* (0.1 · 100 + 0.2 · 200 + 0.3 · 300) / 600 */
    assert_near(second->loss, 140.0 / 600.0);
}

static void a_model_says_its_plan_and_round_and_nothing_of_the_job(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 3, PLAN_RETAINS);
    world_attend_all(world);

    const cs_hash last = run_to_end(world, plan);

    CS_AUTO(cs_string) path = cs_blobs_path(world->blobs, &last);
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    assert_ok(cs_tensor_file_open(path, &file));
    const cs_hash plan_hash = cs_sha256(cs_bytes_of_text(plan));
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(&plan_hash, hex);
    assert_int_equal(cs_tensor_file_metadata_count(file), 3);
    assert_string_equal(cs_tensor_file_metadata(file, "format"), "pt");
    assert_string_equal(cs_tensor_file_metadata(file, "consilium.plan"), hex);
    assert_string_equal(cs_tensor_file_metadata(file, "consilium.round"), "3");
}

static void a_repeated_job_in_another_order_of_arrival_gives_the_same_model(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 3, PLAN_RETAINS);
    world_attend_all(world);

    const cs_hash first = run_to_end(world, plan);
    world->serves_backwards = true;
    const cs_hash second = run_to_end(world, plan);

    assert_true(cs_hash_equal(&first, &second));
    assert_int_equal(world_state(world, "demo-2"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
}

static void every_decision_stands_in_the_transcript_once(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 2, PLAN_RETAINS);
    world_attend_all(world);
    run_to_end(world, plan);

    world_settle(world);

    assert_int_equal(world_records(world, "plan_submitted"), 1);
    assert_int_equal(world_records(world, "plan_decision"), 3);
    assert_int_equal(world_records(world, "round_opened"), 3);
    /* initialize, 3 × statistics, 2 × 3 × train, 3 × evaluate */
    assert_int_equal(world_records(world, "result_accepted"), 13);
    assert_int_equal(world_records(world, "model_folded"), 5);
    assert_int_equal(world_records(world, "job_ended"), 1);
}

static void a_plan_without_federated_statistics_has_no_statistics_phase(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    world_attend_all(world);

    run_to_end(world, plan);

    assert_int_equal(world_records(world, "model_folded"), 3);
    assert_int_equal(world_state(world, "demo"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
}

/* ---- who takes part ---- */

static void a_job_waits_until_every_invited_site_has_decided_and_is_here(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world_attend(world, world_site(world, "a"));
    world_attend(world, world_site(world, "b"));
    world_submit_ok(world, plan);
    world_approve(world_site(world, "a"));
    world_approve(world_site(world, "b"));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_WAITING);
    assert_string_equal(status->reason, "waiting for c (no decision yet)");
    assert_int_equal(world_progress(status, "a")->participation, CONSILIUM__V1__PARTICIPATION__READY);
    assert_int_equal(world_progress(status, "c")->participation, CONSILIUM__V1__PARTICIPATION__INVITED);

    world_attend(world, world_site(world, "c"));
    world_approve(world_site(world, "c"));
    received_free(world_await_task(world_site(world, "a"), 0, "initialize"));
}

static void after_the_time_for_approvals_the_job_starts_with_the_minimum(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 2, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world_attend(world, world_site(world, "a"));
    world_attend(world, world_site(world, "b"));
    world_submit_ok(world, plan);
    world_approve(world_site(world, "a"));
    world_approve(world_site(world, "b"));

    world_advance(world, DAYS(7));
    assert_true(world_serve(world, SIZE_MAX));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_PARTIAL);
    assert_int_equal(strncmp(status->reason, "partial 2 of 3", 14), 0);
    assert_int_equal(status->folded_everywhere, 2);
    assert_int_equal(status->history[1]->n_not_folded, 1);
    assert_string_equal(status->history[1]->not_folded[0]->site, "c");
}

static void after_the_time_for_approvals_too_few_are_a_failure(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world_attend(world, world_site(world, "a"));
    world_submit_ok(world, plan);
    world_approve(world_site(world, "a"));

    world_advance(world, DAYS(7));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_FAILED);
    assert_non_null(strstr(status->reason, "1 approved"));
    assert_non_null(strstr(status->reason, "b has not decided"));
}

static void a_site_that_decides_late_takes_part_from_the_next_round(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 2, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    struct site *a = world_site(world, "a"), *b = world_site(world, "b"), *c = world_site(world, "c");
    world_attend(world, a);
    world_attend(world, b);
    world_submit_ok(world, plan);
    world_approve(a);
    world_approve(b);
    world_advance(world, DAYS(7));
    received *first = world_await_task(a, 0, "initialize");
    world_attend(world, c);
    world_approve(c);
    world_settle(world);
    assert_false(world_has(c, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_TASK));

    world_answer(world, a, first->message->task);
    received_free(first);
    assert_true(world_serve(world, SIZE_MAX));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
    assert_int_equal(world_progress(status, "c")->rounds_folded, 2);
}

static void a_refusal_of_a_required_site_ends_the_job(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan("sites: {invite: all, require: [c], minimum: 2}\n", "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    struct site *c = world_site(world, "c");
    world_attend_all(world);
    world_submit_ok(world, plan);

    world_decide(c, "demo", CONSILIUM__V1__DECISION__DECISION_REFUSED, c->key);

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_FAILED);
    assert_non_null(strstr(status->reason, "c refused the plan (required)"));
    assert_int_equal(world_progress(status, "c")->participation, CONSILIUM__V1__PARTICIPATION__REFUSED);
}

static void a_decision_signed_by_another_key_changes_nothing_and_is_recorded(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    struct site *a = world_site(world, "a"), *b = world_site(world, "b");
    world_attend_all(world);
    world_submit_ok(world, plan);

    world_decide(a, "demo", CONSILIUM__V1__DECISION__DECISION_APPROVED, b->key);
    world_decide(a, "demo", CONSILIUM__V1__DECISION__DECISION_APPROVED, b->key);

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(world_progress(status, "a")->participation, CONSILIUM__V1__PARTICIPATION__ENROLLED);
    assert_int_equal(world_records(world, "plan_decision"), 1);
}

static void a_round_waits_for_the_minimum_then_pauses_and_goes_on_by_itself(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan("sites: {invite: all, minimum: 3, deadline: 10m}\n", "site", 2, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    struct site *a = world_site(world, "a");
    world_attend_all(world);
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);
    received *task = world_await_task(a, 0, "initialize");
    world_leave(world, world_site(world, "b"));
    world_leave(world, world_site(world, "c"));

    world_answer(world, a, task->message->task);
    received_free(task);
    assert_int_equal(world_await_verdict(a, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED);
    while (world_describe(world, "demo", arena)->round == 0)
        world_settle(world);
    world_advance(world, MINUTES(10));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_PAUSED);
    assert_non_null(strstr(status->reason, "b not connected"));
    world_attend(world, world_site(world, "b"));
    world_attend(world, world_site(world, "c"));
    assert_true(world_serve(world, SIZE_MAX));
    assert_int_equal(world_state(world, "demo"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
}

static void a_round_waits_a_moment_for_a_site_that_just_left_and_no_longer(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 2, PLAN_RETAINS);
    struct site *a = world_site(world, "a"), *b = world_site(world, "b"), *c = world_site(world, "c");
    world_attend_all(world);
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);
    received *task = world_await_task(a, 0, "initialize");
    world_leave(world, c);
    world_answer(world, a, task->message->task);
    received_free(task);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    while (world_describe(world, "demo", arena)->round == 0)
        world_settle(world);

    world_advance(world, SECONDS(19));
    assert_false(world_has(b, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_TASK));
    assert_string_equal(world_describe(world, "demo", arena)->reason, "waiting for c (not connected)");
    world_advance(world, SECONDS(1));

    task = world_await_task(b, 1, "train");
    assert_int_equal(task->message->task->n_participants, 2);
    received_free(task);
}

/* ---- sites that are slow, gone or out ---- */

static void keep_silent_in_round_two(world *world, struct site *site, const Consilium__V1__TaskAssignment *task)
{
    if (strcmp(site->name, "c") != 0 || task->key->round != 2)
        world_answer(world, site, task);
}

static void a_site_that_misses_the_deadline_is_late_and_the_job_partial(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 3, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world->answer = keep_silent_in_round_two;
    world_attend_all(world);
    world_submit_ok(world, plan);
    struct site *c = world_site(world, "c");
    /* Offers, initialize, train of rounds 1 and 2, and their acknowledgements. */
    while (world_describe(world, "demo", arena)->round < 2 ||
           world_progress(world_describe(world, "demo", arena), "a")->participation !=
               CONSILIUM__V1__PARTICIPATION__ANSWERED ||
           world_progress(world_describe(world, "demo", arena), "b")->participation !=
               CONSILIUM__V1__PARTICIPATION__ANSWERED)
        world_serve(world, 1);
    world_advance(world, MINUTES(10));
    assert_true(world_serve(world, SIZE_MAX));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_PARTIAL);
    assert_int_equal(strncmp(status->reason, "partial 2 of 3", 14), 0);
    assert_int_equal(world_progress(status, "c")->rounds_folded, 2);
    assert_int_equal(status->history[2]->n_folded, 2);
    assert_string_equal(status->history[2]->not_folded[0]->site, "c");
    assert_string_equal(status->history[2]->not_folded[0]->reason, "the phase's deadline had passed");

    /* The late result is answered, the same way each time. */
    answer late = {.round = 2, .outcome = CONSILIUM__V1__OUTCOME__OUTCOME_DONE, .phase = "train", .job = "demo"};
    world_send(c, &late);
    assert_int_equal(world_await_verdict(c, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_LATE);
    world_send(c, &late);
    assert_int_equal(world_await_verdict(c, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_LATE);
    late.samples = 7;
    world_send(c, &late);
    assert_int_equal(world_await_verdict(c, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_CONFLICT);
    world_settle(world);
    assert_int_equal(world_records(world, "result_late"), 1);
    assert_int_equal(world_records(world, "result_conflict"), 1);
}

static void a_phase_below_the_minimum_at_its_deadline_fails_the_job_with_the_reason(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan("sites: {invite: all, minimum: 3, deadline: 10m}\n", "site", 2, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world->answer = keep_silent_in_round_two;
    world_attend_all(world);
    world_submit_ok(world, plan);
    while (world_describe(world, "demo", arena)->round < 2 ||
           world_progress(world_describe(world, "demo", arena), "b")->participation !=
               CONSILIUM__V1__PARTICIPATION__ANSWERED)
        world_serve(world, 1);

    world_advance(world, MINUTES(10));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_FAILED);
    assert_non_null(strstr(status->reason, "round 2, train: 2 usable results, at least 3 are needed"));
    assert_non_null(strstr(status->reason, "c: no result in time"));
    cs_hash hash;
    assert_ok(world_model(world, "demo", "1", &hash));
}

static void fail_at_c(world *world, struct site *site, const Consilium__V1__TaskAssignment *task)
{
    answer answer;
    world_result(world, site, task, &answer);
    if (strcmp(site->name, "c") == 0 && task->key->round == 1) {
        answer.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_FAILED;
        answer.reason = "out of memory\n";
        answer.has_output = false;
    }
    world_send(site, &answer);
}

static void a_site_that_says_it_failed_is_left_out_of_the_round_with_its_reason(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 2, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world->answer = fail_at_c;
    world_attend_all(world);
    world_submit_ok(world, plan);

    assert_true(world_serve(world, SIZE_MAX));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_PARTIAL);
    assert_string_equal(status->history[1]->not_folded[0]->reason, "out of memory?");
    assert_int_equal(status->history[2]->n_folded, 3);
}

static void fail_initialize_at_a(world *world, struct site *site, const Consilium__V1__TaskAssignment *task)
{
    answer answer;
    world_result(world, site, task, &answer);
    if (strcmp(site->name, "a") == 0 && strcmp(task->key->phase, "initialize") == 0) {
        answer.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_FAILED;
        answer.has_output = false;
    }
    world_send(site, &answer);
}

static void another_site_initializes_when_the_first_cannot(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    world->answer = fail_initialize_at_a;
    world_attend_all(world);
    world_submit_ok(world, plan);

    assert_true(world_serve(world, SIZE_MAX));

    assert_int_equal(world_state(world, "demo"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
    world_settle(world);
    assert_int_equal(world_records(world, "result_failed"), 1);
}

static void a_revoked_site_is_out_at_once_and_the_round_goes_on(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    struct site *c = world_site(world, "c");
    world->answer = keep_silent_in_round_two;
    world_attend_all(world);
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);
    received *first = world_await_task(world_site(world, "a"), 0, "initialize");
    world_answer(world, world_site(world, "a"), first->message->task);
    received_free(first);
    received_free(world_await_task(c, 1, "train"));

    world_revoke(world, c);
    world_leave(world, c);
    assert_true(world_serve(world, SIZE_MAX));

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_PARTIAL);
    assert_string_equal(status->history[1]->not_folded[0]->reason, "revoked: left the consortium");
}

static void a_cancelled_job_tells_its_sites_and_answers_results_as_late(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    struct site *a = world_site(world, "a");
    world_attend_all(world);
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);
    received *task = world_await_task(a, 0, "initialize");

    assert_ok(world_cancel(world, "demo"));

    received *end = world_await(a, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB);
    assert_int_equal(end->message->job->state, CONSILIUM__V1__JOB_STATE__JOB_CANCELLED);
    assert_string_equal(end->message->job->reason, "enough");
    received_free(end);
    world_answer(world, a, task->message->task);
    received_free(task);
    assert_int_equal(world_await_verdict(a, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_LATE);
    assert_status(world_cancel(world, "demo"), CS_STATE);
    assert_status(world_cancel(world, "other"), CS_NOT_FOUND);
    assert_error_says("there are: demo");
}

/* ---- retention and models ---- */

static size_t blobs_stored(world *world, const cs_hash *hashes, size_t count)
{
    size_t stored = 0;
    for (size_t i = 0; i < count; i++)
        stored += cs_blobs_has(world->blobs, &hashes[i], NULL);
    return stored;
}

static cs_hash updates[16];
static size_t updates_count;

static void remember_updates(world *world, struct site *site, const Consilium__V1__TaskAssignment *task)
{
    answer answer;
    world_result(world, site, task, &answer);
    if (strcmp(task->key->phase, "train") == 0 && strcmp(site->name, "a") == 0)
        updates[updates_count++] = answer.output;
    world_send(site, &answer);
}

static void retention_keeps_what_the_plan_says(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan =
        world_plan(PLAN_SITES, "site", 5, "retention: {updates: 2, models: [best, last, every 4]}\n");
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    updates_count = 0;
    world->answer = remember_updates;
    world_attend_all(world);
    run_to_end(world, plan);

    cs_hash hash;
    assert_ok(world_model(world, "demo", "best", &hash));
    assert_ok(world_model(world, "demo", "2", &hash));
    assert_ok(world_model(world, "demo", "4", &hash));
    assert_ok(world_model(world, "demo", "5", &hash));
    assert_status(world_model(world, "demo", "3", &hash), CS_NOT_FOUND);
    assert_error_says("retention");
    assert_status(world_model(world, "demo", "6", &hash), CS_NOT_FOUND);
    assert_status(world_model(world, "demo", "first", &hash), CS_INVALID);
    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->history[3]->model->sha256.len, 0);
    assert_int_equal(status->history[4]->model->sha256.len, CS_HASH_BYTES);

    /* Files go with a collection, which a restart makes sure of. */
    world_restart(world);
    world_settle(world);
    while (blobs_stored(world, updates, 5) > 2)
        world_advance(world, DAYS(1));
    assert_int_equal(updates_count, 5);
    assert_int_equal(blobs_stored(world, updates + 3, 2), 2);
}

static void a_plan_may_name_its_first_model(void **state)
{
    world *world = *state;
    uint64_t size = 0;
    const cs_hash initial = world_put_tensors(world, "linear.weight", 3, 2.0F, &size);
    char text[CS_HASH_TEXT_BYTES];
    cs_hash_text(&initial, text);
    CS_AUTO(cs_string) base = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    CS_AUTO(cs_buffer) plan = CS_BUFFER_EMPTY;
    const char *model = strstr(base, "{kind: logistic_regression}");
    cs_buffer_append(&plan, base, (size_t)(model - base));
    cs_buffer_printf(&plan, "{kind: logistic_regression, initial: {blob: \"%s\"}}%s", text,
                     model + strlen("{kind: logistic_regression}"));
    world_attend_all(world);

    const cs_hash last = run_to_end(world, cs_buffer_text(&plan));

    assert_int_equal(world_records(world, "round_opened"), 1);
    assert_near(world_read_weight(world, &last), 2.0F + 1400.0F / 600.0F / 7.0F);
}

/* ---- plans that are refused ---- */

static void a_bad_plan_is_refused_with_line_and_column(void **state)
{
    world *world = *state;
    assert_status(world_submit(world, "plan: demo\nfederation: sideways\n"), CS_INVALID);
    assert_error_says("demo.yaml:2:13");
}

static void a_plan_for_sites_that_are_not_known_here_is_refused(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) unknown = world_plan("sites: {invite: [a, nobody], minimum: 2}\n", "site", 1, PLAN_RETAINS);
    CS_AUTO(cs_string) few = world_plan("sites: {invite: all, minimum: 4}\n", "site", 1, PLAN_RETAINS);
    CS_AUTO(cs_string) required = world_plan("sites: {invite: all, require: [z], minimum: 2}\n", "site", 1, "");

    assert_status(world_submit(world, unknown), CS_INVALID);
    assert_error_says("site 'nobody' is not known here");
    assert_status(world_submit(world, few), CS_INVALID);
    assert_error_says("3 sites are invited, the minimum is 4");
    assert_status(world_submit(world, required), CS_INVALID);
    assert_error_says("site 'z' is not among the invited");
}

static void invite_all_is_fixed_when_the_plan_is_submitted(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan("sites: {invite: all, minimum: 2}\n", "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world_revoke(world, world_site(world, "b"));

    world_submit_ok(world, plan);

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->invited, 2);
    assert_string_equal(status->sites[1]->site, "c");
}

/* ---- watching ---- */

struct watcher {
    pthread_mutex_t count_mutex;
    int count;
};

static void count_change(void *self)
{
    struct watcher *watcher = self;
    pthread_mutex_lock(&watcher->count_mutex);
    watcher->count++;
    pthread_mutex_unlock(&watcher->count_mutex);
}

struct watch_question {
    world *world;
    struct watcher *watcher;
    cs_watch *watch;
};

static cs_status start_watch(void *argument, cs_store *store)
{
    (void)store;
    struct watch_question *question = argument;
    return cs_engine_watch(question->world->engine, "demo", count_change, question->watcher, &question->watch);
}

static int count_of(struct watcher *watcher)
{
    pthread_mutex_lock(&watcher->count_mutex);
    const int count = watcher->count;
    pthread_mutex_unlock(&watcher->count_mutex);
    return count;
}

static void say_progress(struct site *site, const Consilium__V1__TaskKey *key, uint64_t done)
{
    Consilium__V1__TaskProgress progress = CONSILIUM__V1__TASK_PROGRESS__INIT;
    progress.key = (Consilium__V1__TaskKey *)(uintptr_t)key;
    progress.stage = CONSILIUM__V1__STAGE__STAGE_TRAINING;
    progress.done = done;
    progress.total = 100;
    progress.loss = 0.5;
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_PROGRESS;
    message.progress = &progress;
    world_say(site, &message);
}

static void watchers_hear_of_changes_and_of_progress_at_most_four_times_a_second(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    struct site *a = world_site(world, "a");
    struct watcher watcher = {.count_mutex = PTHREAD_MUTEX_INITIALIZER};
    struct watch_question question = {.world = world, .watcher = &watcher};
    world_attend_all(world);
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);
    received *task = world_await_task(a, 0, "initialize");
    assert_ok(cs_engine_run(world->engine, start_watch, &question));
    world_advance(world, SECONDS(1));
    const int before = count_of(&watcher);

    for (uint64_t i = 1; i <= 37; i++)
        say_progress(a, task->message->task->key, i);
    world_settle(world);
    assert_int_equal(count_of(&watcher), before + 1);
    say_progress(a, task->message->task->key, 38);
    world_settle(world);
    assert_int_equal(count_of(&watcher), before + 1);
    world_advance(world, 250);
    const int later = count_of(&watcher);

    assert_int_equal(later, before + 2);
    const Consilium__V1__SiteProgress *progress = world_progress(world_describe(world, "demo", arena), "a");
    assert_int_equal(progress->participation, CONSILIUM__V1__PARTICIPATION__TRAINING);
    assert_near(progress->percent, 38);
    cs_engine_unwatch(world->engine, question.watch);
    assert_ok(world_cancel(world, "demo"));
    assert_int_equal(count_of(&watcher), later);
    received_free(task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(three_rounds_with_three_sites_are_complete),
        WORLD_TEST(the_history_pools_what_can_be_pooled_and_nothing_else),
        WORLD_TEST(a_model_says_its_plan_and_round_and_nothing_of_the_job),
        WORLD_TEST(a_repeated_job_in_another_order_of_arrival_gives_the_same_model),
        WORLD_TEST(every_decision_stands_in_the_transcript_once),
        WORLD_TEST(a_plan_without_federated_statistics_has_no_statistics_phase),
        WORLD_TEST(a_job_waits_until_every_invited_site_has_decided_and_is_here),
        WORLD_TEST(after_the_time_for_approvals_the_job_starts_with_the_minimum),
        WORLD_TEST(after_the_time_for_approvals_too_few_are_a_failure),
        WORLD_TEST(a_site_that_decides_late_takes_part_from_the_next_round),
        WORLD_TEST(a_refusal_of_a_required_site_ends_the_job),
        WORLD_TEST(a_decision_signed_by_another_key_changes_nothing_and_is_recorded),
        WORLD_TEST(a_round_waits_for_the_minimum_then_pauses_and_goes_on_by_itself),
        WORLD_TEST(a_round_waits_a_moment_for_a_site_that_just_left_and_no_longer),
        WORLD_TEST(a_site_that_misses_the_deadline_is_late_and_the_job_partial),
        WORLD_TEST(a_phase_below_the_minimum_at_its_deadline_fails_the_job_with_the_reason),
        WORLD_TEST(a_site_that_says_it_failed_is_left_out_of_the_round_with_its_reason),
        WORLD_TEST(another_site_initializes_when_the_first_cannot),
        WORLD_TEST(a_revoked_site_is_out_at_once_and_the_round_goes_on),
        WORLD_TEST(a_cancelled_job_tells_its_sites_and_answers_results_as_late),
        WORLD_TEST(retention_keeps_what_the_plan_says),
        WORLD_TEST(a_plan_may_name_its_first_model),
        WORLD_TEST(a_bad_plan_is_refused_with_line_and_column),
        WORLD_TEST(a_plan_for_sites_that_are_not_known_here_is_refused),
        WORLD_TEST(invite_all_is_fixed_when_the_plan_is_submitted),
        WORLD_TEST(watchers_hear_of_changes_and_of_progress_at_most_four_times_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
