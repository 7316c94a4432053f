/* The door: every kind of bad result, repetition, conflict, flood and fencing. */
#include "tests/unit/engine/world.h"

#include "common/tensors/safetensors.h"

#include <math.h>

/* What site c does to its honest result of round 1. */
static void (*spoil)(world *world, answer *answer);

static void answer_spoiled_at_c(world *world, struct site *site, const Consilium__V1__TaskAssignment *task)
{
    answer answer;
    world_result(world, site, task, &answer);
    if (strcmp(site->name, "c") == 0 && strcmp(task->key->phase, "train") == 0)
        spoil(world, &answer);
    world_send(site, &answer);
}

static void not_finite(world *world, answer *answer)
{
    answer->output = world_put_tensors(world, "linear.weight", 3, NAN, &answer->output_size);
}

static void infinite(world *world, answer *answer)
{
    answer->output = world_put_tensors(world, "linear.weight", 3, INFINITY, &answer->output_size);
}

static void wrong_shape(world *world, answer *answer)
{
    answer->output = world_put_tensors(world, "linear.weight", 4, 1.0F, &answer->output_size);
}

static void unknown_tensor(world *world, answer *answer)
{
    answer->output = world_put_tensors(world, "backdoor", 3, 1.0F, &answer->output_size);
}

static void not_a_tensor_file(world *world, answer *answer)
{
    assert_ok(cs_blobs_put(world->blobs, cs_bytes_of_text("hello, this is no safetensors file"), &answer->output));
    answer->output_size = strlen("hello, this is no safetensors file");
}

static void stale_base(world *world, answer *answer)
{
    (void)world;
    answer->base = cs_sha256(cs_bytes_of_text("yesterday's model"));
}

static void no_base(world *world, answer *answer)
{
    (void)world;
    answer->has_base = false;
}

static void wrong_size(world *world, answer *answer)
{
    (void)world;
    answer->output_size--;
}

static void too_large(world *world, answer *answer)
{
    (void)world;
    answer->output_size += 1024 * 1024 + 4096;
}

static void not_stored(world *world, answer *answer)
{
    (void)world;
    answer->output = cs_sha256(cs_bytes_of_text("never sent"));
}

static void wrong_name(world *world, answer *answer)
{
    (void)world;
    snprintf(answer->output_name, sizeof(answer->output_name), "model");
}

static void no_output(world *world, answer *answer)
{
    (void)world;
    answer->has_output = false;
}

static void no_samples(world *world, answer *answer)
{
    (void)world;
    answer->samples = 0;
}

static void too_many_samples(world *world, answer *answer)
{
    (void)world;
    answer->samples = (1ULL << 40) + 1;
}

static void loss_not_finite(world *world, answer *answer)
{
    (void)world;
    answer->loss = NAN;
}

static void metric_not_finite(world *world, answer *answer)
{
    (void)world;
    answer->log_loss = INFINITY;
}

static void too_many_evaluations(world *world, answer *answer)
{
    (void)world;
    answer->evaluations = 33;
}

static void escape_sequence(world *world, answer *answer)
{
    (void)world;
    answer->split = "\033[2Jtest";
}

static void unknown_outcome(world *world, answer *answer)
{
    (void)world;
    answer->outcome = (Consilium__V1__Outcome)77;
}

struct bad_update {
    void (*spoil)(world *world, answer *answer);
    const char *reason;
};

static void every_kind_of_bad_update_is_refused_by_name_and_the_round_goes_on(void **state)
{
    world *world = *state;
    const struct bad_update bad[] = {
        {not_finite, "finite"},
        {infinite, "finite"},
        {wrong_shape, "linear.weight"},
        {unknown_tensor, "backdoor"},
        {not_a_tensor_file, "update: no safetensors file"},
        {stale_base, "stale base"},
        {no_base, "stale base"},
        {wrong_size, "bytes, the result says"},
        {too_large, "the most is"},
        {not_stored, "was not stored"},
        {wrong_name, "not named 'update'"},
        {no_output, "0 blobs, expected 1"},
        {no_samples, "samples: found 0"},
        {too_many_samples, "samples: found"},
        {loss_not_finite, "loss is not finite"},
        {metric_not_finite, "metric 'log_loss'"},
        {too_many_evaluations, "33 evaluations, the most is 32"},
        {escape_sequence, "evaluation.split"},
        {unknown_outcome, "outcome 77"},
    };
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    world->answer = answer_spoiled_at_c;
    world_attend_all(world);
    for (size_t i = 0; i < CS_COUNT(bad); i++) {
        CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
        spoil = bad[i].spoil;
        const char *job = world_submit_ok(world, plan);
        assert_true(world_serve(world, SIZE_MAX));

        const Consilium__V1__JobStatus *status = world_describe(world, job, arena);
        assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_PARTIAL);
        assert_int_equal(status->history[1]->n_folded, 2);
        assert_string_equal(status->history[1]->not_folded[0]->site, "c");
        if (!strstr(status->history[1]->not_folded[0]->reason, bad[i].reason))
            fail_msg("case %zu: found \"%s\", expected \"%s\" in it", i, status->history[1]->not_folded[0]->reason,
                     bad[i].reason);
    }
    world_settle(world);
    assert_int_equal(world_records(world, "result_refused"), CS_COUNT(bad));
}

static void bad_statistics_are_refused(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 1, PLAN_RETAINS);
    struct site *a = world_site(world, "a");
    world_attend_all(world);
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);
    received *task = world_await_task(a, 0, "initialize");
    world_answer(world, a, task->message->task);
    received_free(task);
    received_free(world_await(a, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ACK));
    task = world_await_task(a, 0, "statistics");
    answer answer;
    world_result(world, a, task->message->task, &answer);
    answer.output = world_put_tensors(world, "sum", 3, 1.0F, &answer.output_size);

    world_send(a, &answer);

    char reason[256];
    assert_int_equal(world_await_verdict(a, reason, sizeof(reason)), CONSILIUM__V1__VERDICT__VERDICT_REFUSED);
    assert_non_null(strstr(reason, "2 tensors, expected 3"));
    received_free(task);
}

/* A job in round 1, whose task of site a is open. */
static received *open_task(world *world, struct site *site)
{
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 2, PLAN_RETAINS);
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);
    received *task = world_await_task(world_site(world, "a"), 0, "initialize");
    world_answer(world, world_site(world, "a"), task->message->task);
    received_free(task);
    received_free(world_await(world_site(world, "a"), CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ACK));
    return world_await_task(site, 1, "train");
}

static void the_same_result_gets_the_same_answer_also_after_a_restart(void **state)
{
    world *world = *state;
    struct site *b = world_site(world, "b");
    world_attend_all(world);
    received *task = open_task(world, b);
    answer answer;
    world_result(world, b, task->message->task, &answer);

    world_send(b, &answer);
    assert_int_equal(world_await_verdict(b, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED);
    world_send(b, &answer);
    assert_int_equal(world_await_verdict(b, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED);
    world_restart(world);
    world_attend(world, b);
    world_send(b, &answer);

    assert_int_equal(world_await_verdict(b, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED);
    world_settle(world);
    assert_int_equal(world_records(world, "result_accepted"), 2);
    received_free(task);
}

static void another_result_of_the_same_task_is_a_conflict_and_the_first_counts(void **state)
{
    world *world = *state;
    struct site *b = world_site(world, "b");
    world_attend_all(world);
    received *task = open_task(world, b);
    answer answer;
    world_result(world, b, task->message->task, &answer);
    world_send(b, &answer);
    assert_int_equal(world_await_verdict(b, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED);

    for (uint64_t i = 0; i < 20; i++) {
        answer.samples = 1000 + i;
        world_send(b, &answer);
        assert_int_equal(world_await_verdict(b, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_CONFLICT);
    }

    world_settle(world);
    assert_int_equal(world_records(world, "result_conflict"), 1);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    assert_int_equal(world_progress(world_describe(world, "demo", arena), "b")->participation,
                     CONSILIUM__V1__PARTICIPATION__ANSWERED);
    received_free(task);
}

static void a_result_of_a_task_that_was_never_given_is_refused(void **state)
{
    world *world = *state;
    struct site *b = world_site(world, "b");
    world_attend_all(world);
    received *task = open_task(world, b);
    answer answer;
    world_result(world, b, task->message->task, &answer);
    char reason[256];

    answer.round = 2;
    world_send(b, &answer);
    assert_int_equal(world_await_verdict(b, reason, sizeof(reason)), CONSILIUM__V1__VERDICT__VERDICT_REFUSED);
    assert_string_equal(reason, "this site has no such task");
    snprintf(answer.job, sizeof(answer.job), "../../etc");
    world_send(b, &answer);
    assert_int_equal(world_await_verdict(b, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_REFUSED);
    received_free(task);
}

static void a_site_that_comes_back_gets_its_open_task_again(void **state)
{
    world *world = *state;
    struct site *b = world_site(world, "b");
    world_attend_all(world);
    received *task = open_task(world, b);

    world_leave(world, b);
    world_attend(world, b);
    received *again = world_await_task(b, 1, "train");

    assert_int_equal(again->message->task->n_inputs, 1);
    assert_int_equal(again->message->task->n_participants, 3);
    assert_memory_equal(again->message->task->inputs[0]->sha256.data, task->message->task->inputs[0]->sha256.data,
                        CS_HASH_BYTES);
    received_free(task);
    received_free(again);
}

static void what_an_older_session_says_is_not_heard(void **state)
{
    world *world = *state;
    struct site *b = world_site(world, "b");
    world_attend_all(world);
    received *task = open_task(world, b);
    const uint64_t older = b->session;

    world_attend(world, b);
    const uint64_t newer = b->session;
    b->session = older;
    world_answer(world, b, task->message->task);
    world_settle(world);
    assert_false(world_has(b, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ACK));

    b->session = newer;
    world_answer(world, b, task->message->task);
    assert_int_equal(world_await_verdict(b, NULL, 0), CONSILIUM__V1__VERDICT__VERDICT_ACCEPTED);
    /* The end of the older session does not end the newer one. */
    cs_engine_site_left(world->engine, "b", older);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    assert_true(world_progress(world_describe(world, "demo", arena), "b")->is_connected);
    received_free(task);
}

static void a_site_may_store_for_its_open_task_and_not_more_than_the_model_needs(void **state)
{
    world *world = *state;
    struct site *b = world_site(world, "b");
    world_attend_all(world);
    received *item = open_task(world, b);
    const Consilium__V1__TaskAssignment *task = item->message->task;
    const uint64_t model_size = task->inputs[0]->size;
    const cs_hash blob = cs_sha256(cs_bytes_of_text("update"));
    cs_hash model;
    assert_ok(cs_hash_from(cs_wire_bytes(task->inputs[0]->sha256), "model", &model));

    assert_ok(cs_engine_may_fetch(world->engine, "b", task->key, &model));
    assert_status(cs_engine_may_fetch(world->engine, "b", task->key, &blob), CS_DENIED);
    assert_ok(cs_engine_may_store(world->engine, "b", task->key, &blob, model_size + 1024 * 1024));
    assert_status(cs_engine_may_store(world->engine, "b", task->key, &blob, model_size + 1024 * 1024 + 1), CS_DENIED);
    task->key->round = 2;
    assert_status(cs_engine_may_store(world->engine, "b", task->key, &blob, 1), CS_NOT_FOUND);
    received_free(item);
}

static void a_site_that_holds_work_of_an_ended_job_is_told(void **state)
{
    world *world = *state;
    struct site *b = world_site(world, "b");
    world_attend_all(world);
    received_free(open_task(world, b));
    assert_ok(world_cancel(world, "demo"));
    received_free(world_await(b, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB));
    Consilium__V1__TaskKey ended = CONSILIUM__V1__TASK_KEY__INIT, unknown = CONSILIUM__V1__TASK_KEY__INIT;
    Consilium__V1__TaskKey *held[] = {&ended, &unknown};
    ended.job = (char *)"demo";
    unknown.job = (char *)"gone";
    Consilium__V1__SiteState body = CONSILIUM__V1__SITE_STATE__INIT;
    body.held = held;
    body.n_held = 2;
    body.confinement = (char *)"landlock\n";
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_STATE;
    message.state = &body;

    world_say(b, &message);

    received *first = world_await(b, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB);
    received *second = world_await(b, CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_JOB);
    assert_int_equal(first->message->job->state, CONSILIUM__V1__JOB_STATE__JOB_CANCELLED);
    assert_string_equal(second->message->job->job, "gone");
    assert_int_equal(second->message->job->state, CONSILIUM__V1__JOB_STATE__JOB_FAILED);
    received_free(first);
    received_free(second);
}

/* ---- floods ---- */

struct gate {
    pthread_mutex_t open_mutex;
    pthread_cond_t open_condition;
    bool is_reached, is_open;
};

static cs_status hold_engine(void *argument, cs_store *store)
{
    (void)store;
    struct gate *gate = argument;
    pthread_mutex_lock(&gate->open_mutex);
    gate->is_reached = true;
    pthread_cond_broadcast(&gate->open_condition);
    while (!gate->is_open)
        pthread_cond_wait(&gate->open_condition, &gate->open_mutex);
    pthread_mutex_unlock(&gate->open_mutex);
    return CS_OK;
}

static void a_site_that_floods_is_held_back_and_the_others_are_not(void **state)
{
    world *world = *state;
    struct gate gate = {.open_mutex = PTHREAD_MUTEX_INITIALIZER, .open_condition = PTHREAD_COND_INITIALIZER};
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    Consilium__V1__TaskProgress progress = CONSILIUM__V1__TASK_PROGRESS__INIT;
    progress.key = &key;
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_PROGRESS;
    message.progress = &progress;
    world_attend_all(world);
    world_settle(world);
    assert_ok(cs_engine_post(world->engine, hold_engine, NULL, &gate));
    pthread_mutex_lock(&gate.open_mutex);
    while (!gate.is_reached)
        pthread_cond_wait(&gate.open_condition, &gate.open_mutex);
    pthread_mutex_unlock(&gate.open_mutex);

    for (int i = 0; i < 128; i++)
        assert_ok(cs_engine_site_message(world->engine, "a", world_site(world, "a")->session, &message));
    assert_status(cs_engine_site_message(world->engine, "a", world_site(world, "a")->session, &message), CS_EXHAUSTED);
    assert_ok(cs_engine_site_message(world->engine, "b", world_site(world, "b")->session, &message));

    pthread_mutex_lock(&gate.open_mutex);
    gate.is_open = true;
    pthread_cond_broadcast(&gate.open_condition);
    pthread_mutex_unlock(&gate.open_mutex);
    world_settle(world);
    assert_ok(cs_engine_site_message(world->engine, "a", world_site(world, "a")->session, &message));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(every_kind_of_bad_update_is_refused_by_name_and_the_round_goes_on),
        WORLD_TEST(bad_statistics_are_refused),
        WORLD_TEST(the_same_result_gets_the_same_answer_also_after_a_restart),
        WORLD_TEST(another_result_of_the_same_task_is_a_conflict_and_the_first_counts),
        WORLD_TEST(a_result_of_a_task_that_was_never_given_is_refused),
        WORLD_TEST(a_site_that_comes_back_gets_its_open_task_again),
        WORLD_TEST(what_an_older_session_says_is_not_heard),
        WORLD_TEST(a_site_may_store_for_its_open_task_and_not_more_than_the_model_needs),
        WORLD_TEST(a_site_that_holds_work_of_an_ended_job_is_told),
        WORLD_TEST(a_site_that_floods_is_held_back_and_the_others_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
