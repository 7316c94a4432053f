/* client/tensor: scopes, sticky errors, gradients and random streams. */
#include "client/tensor/tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static cs_tensor *vector_of(size_t count, const float *values)
{
    const uint64_t shape[] = {count};
    return cs_tensor_from(CS_F32, 1, shape, values, count * sizeof *values);
}

static double value_of(const cs_tensor *tensor)
{
    double value = 0;
    assert_int_equal(cs_tensor_value(tensor, &value), CS_OK);
    return value;
}

static void closing_a_scope_frees_what_was_made_inside(void **state)
{
    (void)state;
    const size_t before = cs_tensor_live_count();

    {
        CS_SCOPE(scope);
        cs_tensor *x = vector_of(3, (const float[]){1, 2, 3});
        assert_non_null(cs_add(x, cs_scale(x, 2)));
        assert_int_equal(cs_scope_status(scope), CS_OK);
        assert_int_equal(cs_tensor_live_count(), before + 3);
    }

    assert_int_equal(cs_tensor_live_count(), before);
}

static void a_returned_tensor_outlives_its_scope_and_a_kept_one_all_scopes(void **state)
{
    (void)state;
    const size_t before = cs_tensor_live_count();
    cs_tensor *kept = NULL;

    {
        CS_SCOPE(outer);
        cs_tensor *sum = NULL;
        {
            CS_SCOPE(inner);
            sum = cs_scope_return(inner, cs_sum_all(vector_of(3, (const float[]){1, 2, 3})));
        }
        assert_float_equal(value_of(sum), 6, 0);
        kept = cs_tensor_keep(sum);
        assert_int_equal(cs_scope_status(outer), CS_OK);
    }

    {
        CS_SCOPE(scope);
        assert_float_equal(value_of(cs_scale(kept, 2)), 12, 0);
        assert_int_equal(cs_scope_status(scope), CS_OK);
    }
    cs_tensor_free(kept);
    assert_int_equal(cs_tensor_live_count(), before);
}

static void the_first_error_sticks_and_its_sentence_reaches_the_end(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    cs_tensor *a = vector_of(3, (const float[]){1, 2, 3});
    cs_tensor *b = vector_of(2, (const float[]){1, 2});

    cs_tensor *wrong = cs_add(a, b);
    cs_tensor *later = cs_sigmoid(cs_matmul(wrong, a));

    assert_null(wrong);
    assert_null(later);
    assert_int_equal(cs_backward(later), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "size of tensor"));
    assert_null(strchr(cs_error_text(), '\n'));
    assert_int_equal(cs_scope_status(scope), CS_INVALID);
}

static void a_nested_scope_starts_with_the_status_of_its_parent(void **state)
{
    (void)state;
    CS_SCOPE(outer);
    assert_null(cs_tensor_fail(CS_NOT_FOUND, "no parameter '%s'", "linear.weight"));

    {
        CS_SCOPE(inner);
        cs_tensor *x = cs_add(NULL, vector_of(1, (const float[]){1}));
        assert_null(x);
        double value = 0;
        assert_int_equal(cs_tensor_value(x, &value), CS_NOT_FOUND);
        assert_string_equal(cs_error_text(), "no parameter 'linear.weight'");
        assert_int_equal(cs_scope_status(inner), CS_NOT_FOUND);
    }
}

static void an_error_inside_reaches_the_scope_around(void **state)
{
    (void)state;
    CS_SCOPE(outer);
    {
        CS_SCOPE(inner);
        assert_null(cs_narrow(vector_of(2, (const float[]){1, 2}), 0, 1, 5));
        assert_int_equal(cs_scope_status(inner), CS_INVALID);
    }
    assert_int_equal(cs_scope_status(outer), CS_INVALID);
}

static void a_thousand_steps_leave_the_count_of_live_handles_unchanged(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    CS_AUTO_PTR(cs_generator) generator = cs_generator_new(1);
    const uint64_t x_shape[] = {8, 5}, w_shape[] = {1, 5}, y_shape[] = {8, 1};
    cs_tensor *x = cs_tensor_uniform(generator, CS_F32, 2, x_shape, -1, 1);
    cs_tensor *y = cs_tensor_full(CS_F32, 2, y_shape, 1);
    cs_tensor *w = cs_tensor_uniform(generator, CS_F32, 2, w_shape, -1, 1);
    assert_int_equal(cs_require_gradient(w), CS_OK);
    const size_t before = cs_tensor_live_count();
    double first_loss = 0, loss_value = 0;

    for (int step = 0; step < 1000; step++) {
        CS_SCOPE(inner);
        cs_tensor *loss = cs_binary_cross_entropy(cs_sigmoid(cs_linear(x, w, NULL)), y);
        cs_tensor *gradient = NULL;
        assert_int_equal(cs_grad(loss, &w, 1, false, &gradient), CS_OK);
        assert_int_equal(cs_add_into(w, gradient, -0.1), CS_OK);
        loss_value = value_of(loss);
        if (step == 0)
            first_loss = loss_value;
    }

    assert_true(loss_value < first_loss);
    assert_int_equal(cs_tensor_live_count(), before);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void gradients_are_those_of_the_formula_and_can_be_taken_twice(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    cs_tensor *x = vector_of(1, (const float[]){3});
    assert_int_equal(cs_require_gradient(x), CS_OK);

    cs_tensor *cube = cs_multiply(cs_multiply(x, x), x);
    cs_tensor *first = NULL, *second = NULL;
    assert_int_equal(cs_grad(cs_sum_all(cube), &x, 1, true, &first), CS_OK);
    assert_int_equal(cs_grad(cs_sum_all(first), &x, 1, false, &second), CS_OK);
    assert_float_equal(value_of(first), 27, 1e-6);
    assert_float_equal(value_of(second), 18, 1e-6);

    cs_tensor *square = cs_multiply(x, x);
    assert_int_equal(cs_backward(cs_sum_all(square)), CS_OK);
    assert_float_equal(value_of(cs_gradient(x)), 6, 1e-6);
    assert_int_equal(cs_clear_gradient(x), CS_OK);
    assert_int_equal(cs_scope_status(scope), CS_OK);
    assert_null(cs_gradient(x));
}

static void nothing_is_recorded_behind_a_no_grad_guard(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    cs_tensor *x = vector_of(1, (const float[]){3});
    assert_int_equal(cs_require_gradient(x), CS_OK);
    cs_tensor *y = NULL;

    {
        CS_NO_GRAD(guard);
        y = cs_sum_all(cs_multiply(x, x));
    }

    assert_int_equal(cs_scope_status(scope), CS_OK);
    assert_int_equal(cs_backward(y), CS_INVALID);
    assert_int_equal(cs_backward(cs_sum_all(cs_detach(x))), CS_INVALID);
    assert_int_equal(cs_backward(cs_sum_all(cs_multiply(x, x))), CS_OK);
}

static void the_same_seed_gives_the_numbers_that_libtorch_users_know(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    CS_AUTO_PTR(cs_generator) generator = cs_generator_new(42);
    const uint64_t shape[] = {3};
    float uniform[3];

    /* torch.manual_seed(42); torch.rand(3) */
    cs_tensor *drawn = cs_tensor_uniform(generator, CS_F32, 1, shape, 0, 1);

    assert_int_equal(cs_tensor_copy_out(drawn, uniform, sizeof uniform), CS_OK);
    assert_float_equal(uniform[0], 0.8822692633, 1e-7);
    assert_float_equal(uniform[1], 0.9150039554, 1e-7);
    assert_float_equal(uniform[2], 0.3828637600, 1e-7);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void a_permutation_holds_every_row_once_and_follows_its_seed(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    enum { N = 50 };
    int64_t orders[2][N];
    bool is_seen[N] = {false};

    for (int i = 0; i < 2; i++) {
        CS_AUTO_PTR(cs_generator) generator = cs_generator_new(6909045637428952499u);
        assert_int_equal(cs_tensor_copy_out(cs_tensor_randperm(generator, N), orders[i], sizeof orders[i]), CS_OK);
    }

    assert_memory_equal(orders[0], orders[1], sizeof orders[0]);
    for (int i = 0; i < N; i++)
        is_seen[orders[0][i]] = true;
    for (int i = 0; i < N; i++)
        assert_true(is_seen[i]);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void sizes_that_do_not_fit_are_refused_not_copied(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    const uint64_t shape[] = {4};
    float values[4] = {1, 2, 3, 4};
    cs_tensor *x = cs_tensor_from(CS_F32, 1, shape, values, sizeof values);

    assert_int_equal(cs_tensor_copy_out(x, values, sizeof values - 1), CS_INTERNAL);
    assert_int_equal(cs_scope_status(scope), CS_OK);
    assert_null(cs_tensor_from(CS_F32, 1, shape, values, 3));
    assert_int_equal(cs_scope_status(scope), CS_INTERNAL);
}

static void shapes_larger_than_memory_are_a_status_not_a_crash(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    const uint64_t shape[] = {UINT64_C(1) << 40, UINT64_C(1) << 20};
    assert_null(cs_tensor_zeros(CS_F64, 2, shape));
    assert_int_not_equal(cs_scope_status(scope), CS_OK);
}

static void values_that_are_not_finite_are_named(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    assert_int_equal(cs_tensor_check_finite(vector_of(2, (const float[]){1, 2}), "weight"), CS_OK);
    cs_tensor *zero = vector_of(1, (const float[]){0});
    assert_int_equal(cs_tensor_check_finite(cs_divide(zero, zero), "weight"), CS_INVALID);
    assert_string_equal(cs_error_text(), "weight: not every value is finite");
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void the_losses_with_and_without_logits_agree(void **state)
{
    (void)state;
    CS_SCOPE(scope);
    cs_tensor *logits = vector_of(3, (const float[]){-1, 0.5f, 2});
    cs_tensor *y = vector_of(3, (const float[]){0, 1, 1});
    double plain = value_of(cs_binary_cross_entropy(cs_sigmoid(logits), y));
    double with_logits = value_of(cs_binary_cross_entropy_with_logits(logits, y, NULL));
    assert_float_equal(plain, with_logits, 1e-6);
    assert_float_equal(plain, (0.31326169 + 0.47407698 + 0.12692801) / 3, 1e-6);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void the_build_names_library_capability_and_device(void **state)
{
    (void)state;
    assert_memory_equal(cs_tensor_build(), "libtorch ", 9);
    assert_null(strstr(cs_tensor_build(), "unknown"));
    assert_non_null(strstr(cs_tensor_build(), " cpu"));
}

static int start(void **state)
{
    (void)state;
    return cs_tensor_start(2) == CS_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closing_a_scope_frees_what_was_made_inside),
        cmocka_unit_test(a_returned_tensor_outlives_its_scope_and_a_kept_one_all_scopes),
        cmocka_unit_test(the_first_error_sticks_and_its_sentence_reaches_the_end),
        cmocka_unit_test(a_nested_scope_starts_with_the_status_of_its_parent),
        cmocka_unit_test(an_error_inside_reaches_the_scope_around),
        cmocka_unit_test(a_thousand_steps_leave_the_count_of_live_handles_unchanged),
        cmocka_unit_test(gradients_are_those_of_the_formula_and_can_be_taken_twice),
        cmocka_unit_test(nothing_is_recorded_behind_a_no_grad_guard),
        cmocka_unit_test(the_same_seed_gives_the_numbers_that_libtorch_users_know),
        cmocka_unit_test(a_permutation_holds_every_row_once_and_follows_its_seed),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused_not_copied),
        cmocka_unit_test(shapes_larger_than_memory_are_a_status_not_a_crash),
        cmocka_unit_test(values_that_are_not_finite_are_named),
        cmocka_unit_test(the_losses_with_and_without_logits_agree),
        cmocka_unit_test(the_build_names_library_capability_and_device),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
