/* client/data/batches: a position names its batch, whatever came before. */
#include "client/data/batches.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 10, BATCH = 4 };

static cs_samples samples;
static const cs_hash hash = {{1, 2, 3}};

/* Each row is its own number. */
static int set_up(void **state)
{
    (void)state;
    float numbers[ROWS];
    for (int i = 0; i < ROWS; i++)
        numbers[i] = (float)i;
    CS_SCOPE(scope);
    const uint64_t shape[] = {ROWS, 1};
    cs_tensor *column = cs_tensor_from(CS_F32, 2, shape, numbers, sizeof numbers);
    samples = (cs_samples){ROWS, cs_tensor_keep(column), cs_tensor_keep(column)};
    return cs_scope_status(scope) == CS_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    cs_samples_clear(&samples);
    return 0;
}

static cs_batches *batches_of(const cs_plan *plan, const char *site)
{
    cs_batches *batches = NULL;
    assert_int_equal(cs_batches_new(plan, &hash, site, &samples, &batches), CS_OK);
    return batches;
}

/* The rows of the batch; how many. */
static size_t rows_at(cs_batches *batches, uint64_t position, float out[BATCH])
{
    CS_SCOPE(scope);
    cs_tensor *columns = NULL, *labels = NULL;
    assert_int_equal(cs_batches_at(batches, position, &columns, &labels), CS_OK);
    const size_t count = (size_t)cs_tensor_size(columns, 0);
    assert_int_equal(cs_tensor_copy_out(columns, out, count * sizeof *out), CS_OK);
    assert_int_equal(cs_scope_status(scope), CS_OK);
    return count;
}

static void an_epoch_shows_every_row_once_and_ends_with_a_short_batch(void **state)
{
    (void)state;
    const cs_plan plan = {.training = {.batch_size = BATCH, .local_steps = 2}};
    CS_AUTO_PTR(cs_batches) batches = batches_of(&plan, "mercy");
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        bool is_seen[ROWS] = {false};
        for (uint64_t i = 0; i < 3; i++) {
            float rows[BATCH];
            const size_t count = rows_at(batches, epoch * 3 + i, rows);
            assert_int_equal(count, i < 2 ? 4 : 2);
            for (size_t k = 0; k < count; k++) {
                assert_false(is_seen[(int)rows[k]]);
                is_seen[(int)rows[k]] = true;
            }
        }
    }
}

static void a_batch_is_a_function_of_its_position_alone(void **state)
{
    (void)state;
    const cs_plan plan = {.training = {.batch_size = BATCH, .local_steps = 2}};
    CS_AUTO_PTR(cs_batches) forwards = batches_of(&plan, "mercy");
    CS_AUTO_PTR(cs_batches) backwards = batches_of(&plan, "mercy");
    float left[9][BATCH] = {{0}}, right[9][BATCH] = {{0}};
    for (uint64_t i = 0; i < 9; i++) {
        rows_at(forwards, i, left[i]);
        rows_at(backwards, 8 - i, right[8 - i]);
    }
    assert_memory_equal(left, right, sizeof left);
}

static void sites_and_epochs_have_orders_of_their_own(void **state)
{
    (void)state;
    const cs_plan plan = {.training = {.batch_size = BATCH, .local_steps = 2}};
    CS_AUTO_PTR(cs_batches) mercy = batches_of(&plan, "mercy");
    CS_AUTO_PTR(cs_batches) hope = batches_of(&plan, "hope");
    float one[BATCH], other[BATCH], later[BATCH];
    rows_at(mercy, 0, one);
    rows_at(hope, 0, other);
    rows_at(mercy, 3, later);
    assert_memory_not_equal(one, other, sizeof one);
    assert_memory_not_equal(one, later, sizeof one);
}

static void the_seeds_of_a_plan_give_the_orders_of_torch(void **state)
{
    (void)state;
    uint64_t seeds[] = {42};
    cs_epoch_seeds list = {(char[]){"mercy"}, seeds, 1};
    const cs_plan plan = {
        .training = {.batch_size = BATCH, .local_steps = 2, .epoch_seeds = &list, .epoch_seeds_count = 1}};
    CS_AUTO_PTR(cs_batches) batches = batches_of(&plan, "mercy");
    float rows[BATCH];

    rows_at(batches, 0, rows);

    /* torch.randperm(10, generator=torch.Generator().manual_seed(42)) → 2, 6, 1, 8 … */
    const float expected[] = {2, 6, 1, 8};
    assert_memory_equal(rows, expected, sizeof expected);
    CS_SCOPE(scope);
    cs_tensor *columns = NULL, *labels = NULL;
    assert_int_equal(cs_batches_at(batches, 3, &columns, &labels), CS_RANGE);
    assert_string_equal(cs_error_text(), "training.epoch_seeds of site 'mercy' has 1 seeds, epoch 1 needs one more");
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void a_round_is_the_steps_or_the_epochs_of_the_plan(void **state)
{
    (void)state;
    const cs_plan steps = {.training = {.batch_size = BATCH, .local_steps = 7}};
    const cs_plan epochs = {.training = {.batch_size = BATCH, .local_epochs = 2}};
    const cs_plan large = {.training = {.batch_size = 1000, .local_epochs = 2}};
    CS_AUTO_PTR(cs_batches) a = batches_of(&steps, "mercy");
    CS_AUTO_PTR(cs_batches) b = batches_of(&epochs, "mercy");
    CS_AUTO_PTR(cs_batches) c = batches_of(&large, "mercy");
    assert_int_equal(cs_batches_round_steps(a), 7);
    assert_int_equal(cs_batches_round_steps(b), 6);
    assert_int_equal(cs_batches_round_steps(c), 2);
}

static void no_rows_are_no_batches(void **state)
{
    (void)state;
    const cs_plan plan = {.training = {.batch_size = BATCH, .local_steps = 7}};
    const cs_samples none = {0};
    cs_batches *batches = NULL;
    assert_int_equal(cs_batches_new(&plan, &hash, "mercy", &none, &batches), CS_INVALID);
    assert_null(batches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_shows_every_row_once_and_ends_with_a_short_batch),
        cmocka_unit_test(a_batch_is_a_function_of_its_position_alone),
        cmocka_unit_test(sites_and_epochs_have_orders_of_their_own),
        cmocka_unit_test(the_seeds_of_a_plan_give_the_orders_of_torch),
        cmocka_unit_test(a_round_is_the_steps_or_the_epochs_of_the_plan),
        cmocka_unit_test(no_rows_are_no_batches),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
