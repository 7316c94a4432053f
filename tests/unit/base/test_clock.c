/* The clock, and the fake one. */
#include "common/base/clock.h"

#include "tests/unit/base/cmocka_all.h"

#include <stdatomic.h>

static void wall_time_is_written_in_utc(void **state)
{
    (void)state;
    char text[CS_TIME_TEXT_BYTES];

    cs_clock_format(1772360551412, text);
    assert_string_equal(text, "2026-03-01T10:22:31.412Z");
    cs_clock_format(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
    cs_clock_format(INT64_MAX, text);
    assert_string_equal(text, "time-out-of-range");
}

static void the_fake_clock_moves_only_when_told(void **state)
{
    (void)state;
    cs_clock_fake(1000, 5000);

    assert_int_equal(cs_clock_monotonic_ms(), 1000);
    cs_clock_fake_advance(250);
    assert_int_equal(cs_clock_monotonic_ms(), 1250);
    assert_int_equal(cs_clock_monotonic_us(), 1250000);
    assert_int_equal(cs_clock_wall_ms(), 5250);

    cs_clock_real();
    assert_true(cs_clock_wall_ms() > 1600000000000);
}

struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    atomic_bool is_waiting;
    bool has_message; /* guarded by mutex */
    bool was_in_time;
};

static void *wait_until_2000(void *self)
{
    struct waiter *waiter = self;
    pthread_mutex_lock(&waiter->mutex);
    atomic_store(&waiter->is_waiting, true);
    waiter->was_in_time = true;
    while (!waiter->has_message && waiter->was_in_time)
        waiter->was_in_time = cs_condition_wait(&waiter->condition, &waiter->mutex, 2000);
    pthread_mutex_unlock(&waiter->mutex);
    return NULL;
}

static void a_waiter_times_out_when_the_fake_clock_passes_its_end(void **state)
{
    (void)state;
    struct waiter waiter = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    cs_condition_init(&waiter.condition);
    cs_clock_fake(1000, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_until_2000, &waiter), 0);
    while (!atomic_load(&waiter.is_waiting))
        ;

    cs_clock_fake_advance(1000);
    pthread_join(thread, NULL);

    assert_false(waiter.was_in_time);
    cs_clock_real();
}

static void a_waiter_wakes_when_signalled(void **state)
{
    (void)state;
    struct waiter waiter = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    cs_condition_init(&waiter.condition);
    cs_clock_fake(1000, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_until_2000, &waiter), 0);
    while (!atomic_load(&waiter.is_waiting))
        ;

    pthread_mutex_lock(&waiter.mutex);
    waiter.has_message = true;
    pthread_cond_signal(&waiter.condition);
    pthread_mutex_unlock(&waiter.mutex);
    pthread_join(thread, NULL);

    assert_true(waiter.was_in_time);
    cs_clock_real();
}

/* The signal may come in the moment between two short waits, where it wakes nobody. */
static void a_waiter_on_the_fake_clock_looks_again_without_a_signal(void **state)
{
    (void)state;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition;
    cs_condition_init(&condition);
    cs_clock_fake(1000, 0);
    pthread_mutex_lock(&mutex);

    assert_true(cs_condition_wait(&condition, &mutex, 2000));

    pthread_mutex_unlock(&mutex);
    cs_clock_real();
}

static void a_time_in_the_past_is_no_wait(void **state)
{
    (void)state;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition;
    cs_condition_init(&condition);
    pthread_mutex_lock(&mutex);

    assert_false(cs_condition_wait(&condition, &mutex, 0));

    pthread_mutex_unlock(&mutex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wall_time_is_written_in_utc),
        cmocka_unit_test(the_fake_clock_moves_only_when_told),
        cmocka_unit_test(a_waiter_times_out_when_the_fake_clock_passes_its_end),
        cmocka_unit_test(a_waiter_wakes_when_signalled),
        cmocka_unit_test(a_waiter_on_the_fake_clock_looks_again_without_a_signal),
        cmocka_unit_test(a_time_in_the_past_is_no_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
