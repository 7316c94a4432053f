/* The horizontal mode: phases, sites, inputs, limits; the checks of its files are tested where they are made. */
#include "server/modes/mode.h"

#include <math.h>

#include "tests/unit/place.h"

static cs_plan *read_plan(const char *standardize, const char *initial)
{
    CS_AUTO(cs_string) text = cs_format(
        "plan: demo\nfederation: horizontal\nsites: {invite: all, minimum: 3}\n"
        "dataset: {name: d, kind: table, features: [x, {name: y, levels: [1, 2]}], label: {column: num, above: 0}, "
        "standardize: %s}\nmodel: {kind: logistic_regression%s}\n"
        "training: {rounds: 3, local_steps: 10, batch_size: 4, optimizer: {kind: sgd, learning_rate: 0.1}, loss: "
        "bce}\n",
        standardize, initial);
    cs_plan *plan = NULL;
    assert_ok(cs_plan_read(cs_bytes_of_text(text), "demo.yaml", &plan));
    return plan;
}

static void assert_phases(const cs_plan *plan, uint32_t round, const char *expected)
{
    const cs_phase *phases[CS_PHASES_MAX];
    const size_t count = cs_mode_of(plan)->phases(plan, round, phases);
    CS_AUTO(cs_buffer) found = CS_BUFFER_EMPTY;
    for (size_t i = 0; i < count; i++)
        cs_buffer_printf(&found, "%s ", phases[i]->name);
    assert_string_equal(cs_buffer_text(&found), expected);
}

static void rounds_have_the_phases_of_the_readme(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) site = read_plan("site", "");
    CS_AUTO_PTR(cs_plan) federated = read_plan("federated", "");
    CS_AUTO_PTR(cs_plan) given = read_plan("site", ", initial: {blob: \"sha256:0123456789abcdef0123456789abcdef"
                                                   "0123456789abcdef0123456789abcdef\"}");
    assert_phases(site, 0, "initialize ");
    assert_phases(federated, 0, "initialize statistics ");
    assert_phases(given, 0, "");
    assert_phases(site, 1, "train ");
    assert_phases(site, 2, "train ");
    assert_phases(site, 3, "train evaluate ");
    assert_phases(site, 4, "");
}

static const cs_phase *phase_of(const cs_plan *plan, uint32_t round, size_t index)
{
    const cs_phase *phases[CS_PHASES_MAX];
    assert_true(cs_mode_of(plan)->phases(plan, round, phases) > index);
    return phases[index];
}

static void one_site_initializes_and_all_do_the_rest(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = read_plan("federated", "");
    const cs_mode *mode = cs_mode_of(plan);
    size_t sites[4];
    static const char *const names[] = {"a", "b", "c", "d"};

    assert_int_equal(mode->sites(plan, phase_of(plan, 0, 0), names, 4, sites), 1);
    assert_int_equal(sites[0], 0);
    assert_int_equal(mode->sites(plan, phase_of(plan, 1, 0), names, 4, sites), 4);
    assert_int_equal(sites[3], 3);
    assert_int_equal(mode->minimum(plan, phase_of(plan, 0, 0)), 1);
    assert_int_equal(mode->minimum(plan, phase_of(plan, 1, 0)), 3);
}

static void training_starts_from_the_model_before_and_evaluation_judges_the_one_just_made(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = read_plan("federated", "");
    const cs_mode *mode = cs_mode_of(plan);
    cs_input inputs[CS_INPUTS_MAX];

    assert_int_equal(mode->inputs(plan, 0, phase_of(plan, 0, 1), inputs), 0);
    assert_int_equal(mode->inputs(plan, 3, phase_of(plan, 3, 0), inputs), 2);
    assert_string_equal(inputs[0].name, "model");
    assert_int_equal(inputs[0].round, 2);
    assert_string_equal(inputs[1].name, "statistics");
    assert_int_equal(inputs[1].round, 0);
    assert_int_equal(mode->inputs(plan, 3, phase_of(plan, 3, 1), inputs), 2);
    assert_int_equal(inputs[0].round, 3);
}

static void outputs_are_as_large_as_the_plan_makes_them_and_not_larger(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = read_plan("federated", "");
    const cs_mode *mode = cs_mode_of(plan);
    const uint64_t mebibyte = 1024 * 1024;

    assert_int_equal(mode->output_max_bytes(plan, phase_of(plan, 1, 0), 1000), 1000 + mebibyte);
    assert_int_equal(mode->output_max_bytes(plan, phase_of(plan, 0, 1), 0), mebibyte + 7 * sizeof(double));
    assert_int_equal(mode->output_max_bytes(plan, phase_of(plan, 3, 1), 1000), 0);
}

static cs_plan *read_balanced(void)
{
    cs_plan *plan = NULL;
    assert_ok(
        cs_plan_read(cs_bytes_of_text("plan: demo\nfederation: horizontal\n"
                                      "dataset: {name: d, kind: table, features: [x], label: {column: y, classes: "
                                      "[1, 2, 3]}, standardize: site}\nmodel: {kind: logistic_regression}\n"
                                      "training: {rounds: 6, local_steps: 1, batch_size: 4, optimizer: {kind: sgd, "
                                      "learning_rate: 0.1}, loss: {kind: cross_entropy, class_weights: balanced}, "
                                      "early_stopping: {metric: brier, patience: 1, every: 4}}\n"),
                     "demo.yaml", &plan));
    return plan;
}

static void early_stopping_evaluates_every_so_many_rounds_and_the_last(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = read_balanced();
    assert_phases(plan, 0, "initialize statistics ");
    assert_phases(plan, 3, "train ");
    assert_phases(plan, 4, "train evaluate ");
    assert_phases(plan, 5, "train ");
    assert_phases(plan, 6, "train evaluate ");
    assert_phases(plan, 7, "");
    assert_phases(plan, 8, "");
}

/* ---- statistics at the door ---- */

static void write_statistics(const char *path, cs_dtype dtype, uint64_t columns, double count)
{
    const cs_tensor_info infos[] = {{.name = "count", .dtype = CS_F64, .rank = 1, .shape = {1}},
                                    {.name = "sum", .dtype = dtype, .rank = 1, .shape = {columns}},
                                    {.name = "sum_squares", .dtype = CS_F64, .rank = 1, .shape = {columns}}};
    const double zeros[8] = {0};
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    assert_ok(cs_tensor_writer_open(path, infos, CS_COUNT(infos), NULL, 0, &writer));
    assert_ok(cs_tensor_writer_put(writer, 0, 0, &count, sizeof(count)));
    assert_ok(cs_tensor_writer_put(writer, 1, 0, zeros, columns * cs_dtype_size(dtype)));
    assert_ok(cs_tensor_writer_put(writer, 2, 0, zeros, columns * sizeof(double)));
    assert_ok(cs_tensor_writer_commit(writer));
}

static void statistics_must_be_of_this_plan(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_plan) plan = read_plan("federated", "");
    const cs_mode *mode = cs_mode_of(plan);
    const cs_mode_task task = {.plan = plan, .phase = phase_of(plan, 0, 1)};

    write_statistics(here->path, CS_F64, 3, 10);
    assert_ok(mode->check(&task, here->path));
    write_statistics(here->path, CS_F64, 4, 10);
    assert_status(mode->check(&task, here->path), CS_INVALID);
    assert_error_says("tensor 'sum': expected F64 [3]");
    write_statistics(here->path, CS_F32, 3, 10);
    assert_status(mode->check(&task, here->path), CS_INVALID);
    write_statistics(here->path, CS_F64, 3, 0);
    assert_status(mode->check(&task, here->path), CS_INVALID);
    assert_error_says("less than one row");
}

static void the_initial_model_is_taken_as_it_came(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = read_plan("site", "");
    const cs_mode_task task = {.plan = plan, .phase = phase_of(plan, 0, 0)};
    const cs_contribution contribution = {.site = "mercy", .path = "/nowhere", .weight = 1};
    size_t taken = CS_FOLD_WRITTEN;

    assert_ok(cs_mode_of(plan)->fold(&task, &contribution, 1, 1, "/nowhere/either", &taken));
    assert_int_equal(taken, 0);
}

static void write_counts(const char *path, const char *name, uint64_t classes, double value)
{
    CS_AUTO(cs_string) owned = cs_strdup(name);
    const cs_tensor_info infos[] = {{.name = (char[]){"count"}, .dtype = CS_F64, .rank = 1, .shape = {1}},
                                    {.name = owned, .dtype = CS_F64, .rank = 1, .shape = {classes}}};
    const double count = 9, values[8] = {value, value, value, value};
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    assert_ok(cs_tensor_writer_open(path, infos, CS_COUNT(infos), NULL, 0, &writer));
    assert_ok(cs_tensor_writer_put(writer, 0, 0, &count, sizeof(count)));
    assert_ok(cs_tensor_writer_put(writer, 1, 0, values, classes * sizeof(double)));
    assert_ok(cs_tensor_writer_commit(writer));
}

static void a_balanced_loss_takes_the_rows_of_each_class_and_no_moments(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_plan) plan = read_balanced();
    const cs_mode *mode = cs_mode_of(plan);
    const cs_mode_task task = {.plan = plan, .phase = phase_of(plan, 0, 1)};

    write_counts(here->path, "class_counts", 3, 3);
    assert_ok(mode->check(&task, here->path));
    write_counts(here->path, "class_counts", 4, 3);
    assert_status(mode->check(&task, here->path), CS_INVALID);
    assert_error_says("tensor 'class_counts': expected F64 [3]");
    write_counts(here->path, "sum", 3, 3);
    assert_status(mode->check(&task, here->path), CS_INVALID);
    write_counts(here->path, "class_counts", 3, NAN);
    assert_status(mode->check(&task, here->path), CS_INVALID);
    write_statistics(here->path, CS_F64, 1, 10); /* more than the plan asks for */
    assert_status(mode->check(&task, here->path), CS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_have_the_phases_of_the_readme),
        cmocka_unit_test(one_site_initializes_and_all_do_the_rest),
        cmocka_unit_test(training_starts_from_the_model_before_and_evaluation_judges_the_one_just_made),
        cmocka_unit_test(outputs_are_as_large_as_the_plan_makes_them_and_not_larger),
        PLACE_TEST(statistics_must_be_of_this_plan),
        cmocka_unit_test(early_stopping_evaluates_every_so_many_rounds_and_the_last),
        PLACE_TEST(a_balanced_loss_takes_the_rows_of_each_class_and_no_moments),
        cmocka_unit_test(the_initial_model_is_taken_as_it_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
