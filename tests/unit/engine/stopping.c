/* Early stopping: when patience is over, and that the job then ends with its best round, whatever happens to the
 * coordinator in the meantime. */
#include "server/engine/stopping.h"

#include "tests/unit/engine/world.h"

#define NONE 99

/* Rounds 0, 1, … with these scores; NONE: not evaluated. */
static bool is_due(const cs_plan *plan, const double *scores, size_t count)
{
    cs_round_row rows[16] = {0};
    for (size_t i = 0; i < count; i++)
        rows[i] = (cs_round_row){.round = (uint32_t)i, .has_score = scores[i] < NONE, .score = scores[i]};
    return stopping_is_due(plan, rows, count);
}

static cs_plan plan_with(uint32_t patience, double minimum_change, uint32_t every)
{
    cs_plan plan = {.training = {.rounds = 100}};
    plan.training.early_stopping.is_on = true;
    plan.training.early_stopping.patience = patience;
    plan.training.early_stopping.minimum_change = minimum_change;
    plan.training.early_stopping.every = every;
    return plan;
}

static void patience_counts_evaluations_in_a_row_without_a_better_one(void **state)
{
    (void)state;
    const cs_plan plan = plan_with(2, 0, 1);
    const double scores[] = {0.7, 0.5, 0.6, 0.4, 0.45, 0.4, 0.3};

    assert_false(is_due(&plan, scores, 3));
    assert_false(is_due(&plan, scores, 5)); /* 0.4 came in between */
    assert_true(is_due(&plan, scores, 6));  /* the same again is no better */
    assert_false(is_due(&plan, scores, 0));
}

static void a_change_below_the_minimum_is_none(void **state)
{
    (void)state;
    const cs_plan plan = plan_with(3, 0.01, 1);
    const double creeping[] = {0.7, 0.695, 0.692, 0.691}, at_last[] = {0.7, 0.695, 0.692, 0.689};

    assert_true(is_due(&plan, creeping, 4));
    assert_false(is_due(&plan, at_last, 4)); /* 0.011 better than 0.7, the last that counted */
}

static void more_is_better_is_less_of_the_negative(void **state)
{
    (void)state;
    const cs_plan plan = plan_with(1, 0, 1);
    const double rising[] = {-0.6, -0.7, -0.8}, falling[] = {-0.6, -0.7, -0.65};

    assert_false(is_due(&plan, rising, 3));
    assert_true(is_due(&plan, falling, 3));
}

static void rounds_that_the_plan_does_not_evaluate_count_for_nothing(void **state)
{
    (void)state;
    const cs_plan plan = plan_with(2, 0, 3);
    const double scores[] = {0.7, 0.9, 0.9, 0.5, 0.9, 0.9, 0.6, NONE, NONE, 0.6};

    assert_false(is_due(&plan, scores, 7)); /* 0.7, 0.5, 0.6 */
    assert_false(is_due(&plan, scores, 9));
    assert_true(is_due(&plan, scores, 10));
}

static void without_early_stopping_nothing_stops(void **state)
{
    (void)state;
    const cs_plan plan = {.training = {.rounds = 100}};
    const double scores[] = {0.1, 0.2, 0.3, 0.4, 0.5};
    assert_false(is_due(&plan, scores, 5));
}

/* ---- through the engine ---- */

/* Of the models of rounds 0, 1, …, on validation rows. */
static const double losses[] = {0.7, 0.5, 0.4, 0.43, 0.41, 0.3, 0.2};

static void answer_on_validation_rows(world *world, struct site *site, const Consilium__V1__TaskAssignment *task)
{
    answer answer;
    world_result(world, site, task, &answer);
    const bool is_evaluation = strcmp(answer.phase, "evaluate") == 0;
    answer.split = "valid";
    answer.log_loss = losses[CS_MIN(is_evaluation ? answer.round : answer.round - 1, (uint32_t)6)];
    if (strcmp(answer.phase, "train") == 0 && answer.round > 1)
        answer.evaluations = 0; /* the base had a phase of its own */
    world_send(site, &answer);
}

static const char *submit(world *world)
{
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 20, PLAN_RETAINS);
    char *loss = strstr(plan, "loss: bce");
    CS_AUTO(cs_string)
    text = cs_format("%.*sloss: bce, early_stopping: {metric: log_loss, patience: 2, minimum_change: 0.01}%s",
                     (int)(loss - plan), plan, loss + strlen("loss: bce"));
    world->answer = answer_on_validation_rows;
    return world_submit_ok(world, text);
}

static void assert_stopped(world *world, const char *job)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    cs_hash best = {0};
    const Consilium__V1__JobStatus *status = world_describe(world, job, arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
    assert_string_equal(status->reason, "stopped early at round 4: no log_loss on validation rows better by more than "
                                        "0.01 in 2 evaluations; best round 2 with log_loss 0.4000");
    assert_int_equal(status->round, 4);
    assert_int_equal(status->best_round, 2);
    assert_int_equal(status->n_history, 5);
    assert_ok(world_model(world, job, "best", &best));
    assert_memory_equal(best.bytes, status->history[2]->model->sha256.data, CS_HASH_BYTES);
    assert_true(cs_blobs_has(world->blobs, &best, NULL));
}

static void a_job_whose_patience_is_over_ends_with_its_best_round(void **state)
{
    world *world = *state;
    world_attend_all(world);
    const char *job = submit(world);

    assert_true(world_serve(world, 1000));

    assert_stopped(world, job);
}

static void a_coordinator_that_starts_again_and_again_stops_at_the_same_round(void **state)
{
    world *world = *state;
    world_attend_all(world);
    CS_AUTO(cs_string) job = cs_strdup(submit(world));

    size_t restarts = 0;
    for (size_t step = 1; step < 2000 && world_state(world, job) != CONSILIUM__V1__JOB_STATE__JOB_COMPLETE; step++) {
        if (world_has_mail(world))
            world_serve(world, 1);
        if (step % 5 == 0) {
            world_restart(world);
            world_attend_all(world);
            restarts++;
        }
    }

    assert_stopped(world, job);
    assert_true(restarts > 5);
}

static void answer_without_a_number(world *world, struct site *site, const Consilium__V1__TaskAssignment *task)
{
    answer answer;
    world_result(world, site, task, &answer);
    answer.split = "test";
    world_send(site, &answer);
}

static void a_metric_that_is_never_defined_is_said_at_the_end(void **state)
{
    world *world = *state;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 3, PLAN_RETAINS);
    char *loss = strstr(plan, "loss: bce");
    CS_AUTO(cs_string)
    text = cs_format("%.*sloss: bce, early_stopping: {metric: auc, patience: 1}%s", (int)(loss - plan), plan,
                     loss + strlen("loss: bce"));
    world->answer = answer_without_a_number;
    world_attend_all(world);
    const char *job = world_submit_ok(world, text);

    assert_true(world_serve(world, 1000));

    const Consilium__V1__JobStatus *status = world_describe(world, job, arena);
    assert_int_equal(status->round, 3);
    assert_string_equal(status->reason, "early stopping never had a defined auc on validation rows");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patience_counts_evaluations_in_a_row_without_a_better_one),
        cmocka_unit_test(a_change_below_the_minimum_is_none),
        cmocka_unit_test(more_is_better_is_less_of_the_negative),
        cmocka_unit_test(rounds_that_the_plan_does_not_evaluate_count_for_nothing),
        cmocka_unit_test(without_early_stopping_nothing_stops),
        WORLD_TEST(a_job_whose_patience_is_over_ends_with_its_best_round),
        WORLD_TEST(a_coordinator_that_starts_again_and_again_stops_at_the_same_round),
        WORLD_TEST(a_metric_that_is_never_defined_is_said_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
