/* client/nn/training and model: random streams, one step by hand, and parameters taken through the table. */
#include "client/nn/training.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static cs_loss bce = {.kind = CS_LOSS_BCE, .weight = 1, .positive_weight = 1};
static const cs_plan plan = {
    .dataset = {.columns_count = 2},
    .model = {.kind = CS_MODEL_LOGISTIC_REGRESSION},
    .training = {.optimizer = {.kind = CS_OPTIMIZER_SGD, .learning_rate = 0.5}, .losses = &bce, .losses_count = 1}};

static void every_part_of_a_stream_s_name_changes_its_seed(void **state)
{
    (void)state;
    const cs_hash one = {{1}}, two = {{2}};
    const uint64_t seed = cs_stream_seed(&one, "mercy", 3, "epoch 1");
    assert_true(seed == cs_stream_seed(&one, "mercy", 3, "epoch 1"));
    assert_true(seed != cs_stream_seed(&two, "mercy", 3, "epoch 1"));
    assert_true(seed != cs_stream_seed(&one, "hope", 3, "epoch 1"));
    assert_true(seed != cs_stream_seed(&one, "mercy", 4, "epoch 1"));
    assert_true(seed != cs_stream_seed(&one, "mercy", 3, "epoch 2"));
    /* Nothing can be moved from one part to the next. */
    assert_true(cs_stream_seed(&one, "a\n1", 2, "x") != cs_stream_seed(&one, "a", 1, "2\n1:x"));
}

static void the_seed_of_a_stream_never_changes_between_releases(void **state)
{
    (void)state;
    const cs_hash hash = {{0}};
    assert_true(cs_stream_seed(&hash, "mercy", 1, "training") == UINT64_C(11280648966471456417));
}

static cs_parameters *two_weights(float w0, float w1, float b)
{
    CS_SCOPE(scope);
    cs_parameters *parameters = cs_parameters_new();
    const float weight[] = {w0, w1};
    const uint64_t weight_shape[] = {1, 2}, bias_shape[] = {1};
    assert_int_equal(
        cs_parameters_put(parameters, "linear.weight", cs_tensor_from(CS_F32, 2, weight_shape, weight, sizeof weight)),
        CS_OK);
    assert_int_equal(cs_parameters_put(parameters, "linear.bias", cs_tensor_from(CS_F32, 1, bias_shape, &b, sizeof b)),
                     CS_OK);
    assert_int_equal(cs_scope_status(scope), CS_OK);
    return parameters;
}

/* One row (1, 2) with y = 1. */
static cs_tensor *row(void)
{
    const float x[] = {1, 2};
    return cs_tensor_from(CS_F32, 2, (const uint64_t[]){1, 2}, x, sizeof x);
}

static void one_step_of_descent_is_the_one_on_paper(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_model) model = NULL;
    CS_AUTO_PTR(cs_parameters) parameters = two_weights(0, 0, 0);
    CS_AUTO_PTR(cs_optimizer) optimizer = NULL;
    float weight[2], bias = 0;
    double loss_value = 0;
    CS_SCOPE(scope);

    CS_AUTO_PTR(cs_objective) objective = NULL;
    assert_int_equal(cs_objective_new(&plan, NULL, &objective), CS_OK);
    assert_int_equal(cs_model_new(&plan, &model), CS_OK);
    assert_int_equal(cs_optimizer_new(&plan, parameters, NULL, &optimizer), CS_OK);
    const cs_context context = {.is_training = true, .parameters = parameters};
    const cs_inputs inputs = {row()};
    const cs_outputs outputs = cs_model_forward(model, &context, &inputs);
    cs_tensor *loss = cs_objective_loss(objective, &outputs, cs_tensor_full(CS_F32, 2, (const uint64_t[]){1, 1}, 1));
    assert_int_equal(cs_tensor_value(loss, &loss_value), CS_OK);
    assert_int_equal(cs_optimizer_step(optimizer, loss), CS_OK);

    /* p = ½, so dL/dz = −½ and w ← w + η/2 · x. */
    assert_float_equal(loss_value, log(2), 1e-6);
    assert_int_equal(cs_tensor_copy_out(cs_parameter(parameters, "linear.weight"), weight, sizeof weight), CS_OK);
    assert_int_equal(cs_tensor_copy_out(cs_parameter(parameters, "linear.bias"), &bias, sizeof bias), CS_OK);
    assert_float_equal(weight[0], 0.25, 1e-7);
    assert_float_equal(weight[1], 0.5, 1e-7);
    assert_float_equal(bias, 0.25, 1e-7);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void a_model_takes_its_parameters_from_the_table_it_is_given(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_model) model = NULL;
    CS_AUTO_PTR(cs_parameters) zero = two_weights(0, 0, 0);
    CS_AUTO_PTR(cs_parameters) other = two_weights(1, -1, 3);
    const cs_parameters *const tables[] = {zero, other};
    const double expected[] = {0.5, 1 / (1 + exp(-2))};
    assert_int_equal(cs_model_new(&plan, &model), CS_OK);
    for (size_t i = 0; i < 2; i++) {
        CS_SCOPE(scope);
        double p = 0;
        const cs_context context = {.parameters = tables[i]};
        const cs_inputs inputs = {row()};
        const cs_outputs outputs = cs_model_forward(model, &context, &inputs);
        assert_int_equal(cs_tensor_value(cs_model_probability(&outputs), &p), CS_OK);
        assert_float_equal(p, expected[i], 1e-6);
        assert_int_equal(cs_scope_status(scope), CS_OK);
    }
}

static void a_table_without_the_model_s_parameters_is_named(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_model) model = NULL;
    CS_AUTO_PTR(cs_parameters) empty = cs_parameters_new();
    assert_int_equal(cs_model_new(&plan, &model), CS_OK);
    CS_SCOPE(scope);
    const cs_context context = {.parameters = empty};
    const cs_inputs inputs = {row()};
    const cs_outputs outputs = cs_model_forward(model, &context, &inputs);
    assert_null(cs_model_probability(&outputs));
    assert_int_equal(cs_scope_status(scope), CS_NOT_FOUND);
    assert_non_null(cs_error_text());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_of_a_stream_s_name_changes_its_seed),
        cmocka_unit_test(the_seed_of_a_stream_never_changes_between_releases),
        cmocka_unit_test(one_step_of_descent_is_the_one_on_paper),
        cmocka_unit_test(a_model_takes_its_parameters_from_the_table_it_is_given),
        cmocka_unit_test(a_table_without_the_model_s_parameters_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
