/* client/nn against torch: the same network, loss and optimizer take the same twenty steps. vectors.py says how the
 * numbers were made. */
#include "client/nn/training.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/nn/vectors.h"

#define TOLERANCE 1e-6

struct network {
    cs_plan *plan;
    cs_model *model;
    cs_parameters *parameters;
    cs_objective *objective;
    cs_tensor *x, *y;
};

static cs_tensor *labels_of(const struct vectors *vectors)
{
    const uint64_t shape[] = {VECTORS_ROWS, 1};
    cs_tensor *y = cs_tensor_from(CS_F32, 2, shape, vectors->y, sizeof vectors->y);
    return vectors->classes > 0 ? cs_tensor_to(cs_reshape(y, 1, shape), CS_I64) : y;
}

static struct network network_of(const struct vectors *vectors)
{
    struct network network = {0};
    if (cs_plan_read(cs_bytes_of_text(vectors->plan), "plan.yaml", &network.plan) != CS_OK)
        fail_msg("%s: %s", vectors->name, cs_error_text());
    CS_SCOPE(scope);
    CS_AUTO_PTR(cs_generator) generator = cs_generator_new(0);
    assert_int_equal(cs_model_new(network.plan, &network.model), CS_OK);
    assert_int_equal(cs_model_initialize(network.model, generator, &network.parameters), CS_OK);
    assert_int_equal(cs_objective_new(network.plan, NULL, &network.objective), CS_OK);
    const float *at = vectors->start;
    for (size_t i = 0; i < cs_parameters_count(network.parameters); i++) {
        cs_tensor *parameter = cs_parameters_at(network.parameters, i);
        const size_t count = (size_t)cs_tensor_elements(parameter);
        uint64_t shape[2] = {0};
        for (size_t k = 0; k < cs_tensor_rank(parameter); k++)
            shape[k] = cs_tensor_size(parameter, k);
        assert_int_equal(cs_copy_into(parameter, cs_tensor_from(CS_F32, cs_tensor_rank(parameter), shape, at,
                                                                count * sizeof(float))),
                         CS_OK);
        at += count;
    }
    const uint64_t shape[] = {VECTORS_ROWS, VECTORS_COLUMNS};
    network.x = cs_tensor_keep(cs_tensor_from(CS_F32, 2, shape, vectors->x, sizeof vectors->x));
    network.y = cs_tensor_keep(labels_of(vectors));
    assert_int_equal(cs_scope_status(scope), CS_OK);
    return network;
}

static void network_free(struct network *network)
{
    cs_tensor_free(network->x);
    cs_tensor_free(network->y);
    cs_objective_free(network->objective);
    cs_parameters_free(network->parameters);
    cs_model_free(network->model);
    cs_plan_free(network->plan);
}

static double step(struct network *network, cs_optimizer *optimizer)
{
    CS_SCOPE(scope);
    double value = 0;
    const cs_context context = {.is_training = true, .parameters = network->parameters};
    const cs_inputs inputs = {network->x};
    const cs_outputs outputs = cs_model_forward(network->model, &context, &inputs);
    cs_tensor *loss = cs_objective_loss(network->objective, &outputs, network->y);
    assert_int_equal(cs_tensor_value(loss, &value), CS_OK);
    assert_int_equal(cs_optimizer_step(optimizer, loss), CS_OK);
    assert_int_equal(cs_scope_status(scope), CS_OK);
    return value;
}

static void copy_parameters(const struct network *network, float out[VECTORS_PARAMETERS_MAX])
{
    for (size_t i = 0; i < cs_parameters_count(network->parameters); i++) {
        const cs_tensor *parameter = cs_parameters_at(network->parameters, i);
        const size_t count = (size_t)cs_tensor_elements(parameter);
        assert_int_equal(cs_tensor_copy_out(parameter, out, count * sizeof(float)), CS_OK);
        out += count;
    }
}

static void twenty_steps_of_every_optimizer_are_torch_s(void **state)
{
    (void)state;
    for (size_t i = 0; i < CS_COUNT(vectors); i++) {
        struct network network = network_of(&vectors[i]);
        CS_AUTO_PTR(cs_optimizer) optimizer = NULL;
        float end[VECTORS_PARAMETERS_MAX] = {0};
        assert_int_equal(cs_optimizer_new(network.plan, network.parameters, NULL, &optimizer), CS_OK);

        for (size_t k = 0; k < VECTORS_STEPS; k++) {
            const double loss = step(&network, optimizer);
            if (!(fabs(loss - (double)vectors[i].losses[k]) <= TOLERANCE))
                fail_msg("%s, step %zu: loss %.9g, torch has %.9g", vectors[i].name, k, loss,
                         (double)vectors[i].losses[k]);
        }

        copy_parameters(&network, end);
        for (size_t k = 0; k < VECTORS_PARAMETERS_MAX; k++) {
            if (!(fabsf(end[k] - vectors[i].end[k]) <= (float)TOLERANCE))
                fail_msg("%s, parameter %zu: %.9g, torch has %.9g", vectors[i].name, k, (double)end[k],
                         (double)vectors[i].end[k]);
        }
        network_free(&network);
    }
}

static void an_optimizer_that_is_put_away_after_seven_steps_goes_on_with_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < CS_COUNT(vectors); i++) {
        struct network whole = network_of(&vectors[i]), parted = network_of(&vectors[i]);
        CS_AUTO_PTR(cs_optimizer) one = NULL;
        CS_AUTO_PTR(cs_optimizer) first = NULL;
        CS_AUTO_PTR(cs_optimizer) second = NULL;
        CS_AUTO_PTR(cs_parameters) memory = NULL;
        float expected[VECTORS_PARAMETERS_MAX] = {0}, found[VECTORS_PARAMETERS_MAX] = {0};
        assert_int_equal(cs_optimizer_new(whole.plan, whole.parameters, NULL, &one), CS_OK);
        assert_int_equal(cs_optimizer_new(parted.plan, parted.parameters, NULL, &first), CS_OK);

        for (size_t k = 0; k < VECTORS_STEPS; k++)
            step(&whole, one);
        for (size_t k = 0; k < 7; k++)
            step(&parted, first);
        assert_int_equal(cs_optimizer_memorize(first, &memory), CS_OK);
        assert_int_equal(cs_optimizer_new(parted.plan, parted.parameters, memory, &second), CS_OK);
        for (size_t k = 7; k < VECTORS_STEPS; k++)
            step(&parted, second);

        copy_parameters(&whole, expected);
        copy_parameters(&parted, found);
        assert_memory_equal(found, expected, sizeof found);
        network_free(&whole);
        network_free(&parted);
    }
}

static void the_memory_of_another_model_is_refused(void **state)
{
    (void)state;
    struct network network = network_of(&vectors[3]);
    CS_AUTO_PTR(cs_parameters) memory = cs_parameters_new();
    CS_SCOPE(scope);
    cs_optimizer *optimizer = NULL;
    const uint64_t shape[] = {7};
    assert_int_equal(cs_parameters_put(memory, "exp_avg.layers.0.weight", cs_tensor_zeros(CS_F32, 1, shape)), CS_OK);

    assert_int_not_equal(cs_optimizer_new(network.plan, network.parameters, memory, &optimizer), CS_OK);

    assert_null(optimizer);
    network_free(&network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_steps_of_every_optimizer_are_torch_s),
        cmocka_unit_test(an_optimizer_that_is_put_away_after_seven_steps_goes_on_with_the_same_bits),
        cmocka_unit_test(the_memory_of_another_model_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
