/* Random numbers for jitter and names. */
#include "common/base/random.h"

#include "tests/unit/base/cmocka_all.h"

#include <string.h>

static void bytes_differ_from_call_to_call(void **state)
{
    (void)state;
    uint8_t a[32];
    uint8_t b[32];

    cs_random_bytes(a, sizeof(a));
    cs_random_bytes(b, sizeof(b));

    assert_memory_not_equal(a, b, sizeof(a));
}

static void every_number_below_the_bound_comes_and_no_other(void **state)
{
    (void)state;
    bool has_come[7] = {false};

    for (int i = 0; i < 2000; i++) {
        const uint64_t value = cs_random_below(7);
        assert_true(value < 7);
        has_come[value] = true;
    }

    for (size_t i = 0; i < 7; i++)
        assert_true(has_come[i]);
    assert_int_equal(cs_random_below(1), 0);
}

static void back_off_stays_between_its_floor_and_its_cap(void **state)
{
    (void)state;

    for (uint32_t attempt = 0; attempt < 100; attempt++) {
        const int64_t wait = cs_backoff_ms(attempt, 1000, 60000);
        assert_true(wait >= 500 && wait <= 60000);
        assert_true(attempt > 0 || wait <= 1000);
    }
    assert_int_equal(cs_backoff_ms(5, 0, 0), 0);
    assert_true(cs_backoff_ms(UINT32_MAX, 1, INT64_MAX - 1) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_differ_from_call_to_call),
        cmocka_unit_test(every_number_below_the_bound_comes_and_no_other),
        cmocka_unit_test(back_off_stays_between_its_floor_and_its_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
