/* The queue in front of every thread that owns state. */
#include "common/base/mailbox.h"

#include "common/base/clock.h"
#include "tests/unit/base/cmocka_all.h"

#include <pthread.h>

static void messages_come_out_in_order(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_mailbox) mailbox = cs_mailbox_new(3);
    int messages[10];

    for (int i = 0; i < 10; i++) {
        void *message = NULL;
        assert_int_equal(cs_mailbox_try_post(mailbox, &messages[i]), CS_OK);
        assert_int_equal(cs_mailbox_take(mailbox, -1, &message), CS_OK);
        assert_ptr_equal(message, &messages[i]);
    }
}

static void a_full_mailbox_refuses_without_waiting(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_mailbox) mailbox = cs_mailbox_new(2);
    int message = 0;

    assert_int_equal(cs_mailbox_try_post(mailbox, &message), CS_OK);
    assert_int_equal(cs_mailbox_try_post(mailbox, &message), CS_OK);
    assert_int_equal(cs_mailbox_try_post(mailbox, &message), CS_EXHAUSTED);
}

static void an_empty_mailbox_waits_no_longer_than_told(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_mailbox) mailbox = cs_mailbox_new(2);
    void *message = NULL;
    cs_clock_fake(1000, 0);

    assert_int_equal(cs_mailbox_take(mailbox, 1000, &message), CS_DEADLINE);

    cs_clock_real();
    assert_null(message);
}

static void a_closed_mailbox_gives_what_it_has_and_then_ends(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_mailbox) mailbox = cs_mailbox_new(2);
    int sent = 0;
    void *message = NULL;
    assert_int_equal(cs_mailbox_post(mailbox, &sent), CS_OK);

    cs_mailbox_close(mailbox);

    assert_int_equal(cs_mailbox_post(mailbox, &sent), CS_CANCELLED);
    assert_int_equal(cs_mailbox_try_post(mailbox, &sent), CS_CANCELLED);
    assert_int_equal(cs_mailbox_take(mailbox, -1, &message), CS_OK);
    assert_ptr_equal(message, &sent);
    assert_int_equal(cs_mailbox_take(mailbox, -1, &message), CS_CANCELLED);
}

#define POSTERS  4
#define POSTINGS 2000

static int cells[POSTERS][POSTINGS];

struct poster {
    cs_mailbox *mailbox;
    int (*cells)[POSTINGS];
};

static void *post_all(void *self)
{
    struct poster *poster = self;
    for (int i = 0; i < POSTINGS; i++)
        if (cs_mailbox_post(poster->mailbox, &(*poster->cells)[i]) != CS_OK)
            return self;
    return NULL;
}

static void many_threads_post_to_one_and_nothing_is_lost(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_mailbox) mailbox = cs_mailbox_new(7);
    pthread_t threads[POSTERS];
    struct poster posters[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){mailbox, &cells[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, post_all, &posters[i]), 0);
    }

    int *last[POSTERS] = {0};
    for (int i = 0; i < POSTERS * POSTINGS; i++) {
        void *message = NULL;
        assert_int_equal(cs_mailbox_take(mailbox, -1, &message), CS_OK);
        const size_t row = (size_t)((int *)message - &cells[0][0]) / POSTINGS;
        assert_true(last[row] == NULL || (int *)message == last[row] + 1);
        last[row] = message;
    }

    for (int i = 0; i < POSTERS; i++) {
        void *failure = NULL;
        pthread_join(threads[i], &failure);
        assert_null(failure);
    }
}

static void *take_one(void *mailbox)
{
    void *message = NULL;
    return (void *)(intptr_t)cs_mailbox_take(mailbox, -1, &message);
}

static void closing_wakes_the_owner(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_mailbox) mailbox = cs_mailbox_new(1);
    pthread_t owner;
    assert_int_equal(pthread_create(&owner, NULL, take_one, mailbox), 0);

    cs_mailbox_close(mailbox);

    void *status = NULL;
    pthread_join(owner, &status);
    assert_int_equal((intptr_t)status, CS_CANCELLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_out_in_order),
        cmocka_unit_test(a_full_mailbox_refuses_without_waiting),
        cmocka_unit_test(an_empty_mailbox_waits_no_longer_than_told),
        cmocka_unit_test(a_closed_mailbox_gives_what_it_has_and_then_ends),
        cmocka_unit_test(many_threads_post_to_one_and_nothing_is_lost),
        cmocka_unit_test(closing_wakes_the_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
