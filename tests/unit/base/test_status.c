/* The sentence behind a status. */
#include "common/base/status.h"

#include "tests/unit/base/cmocka_all.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

static void the_sentence_is_the_last_one_left(void **state)
{
    (void)state;

    assert_int_equal(cs_fail(CS_INVALID, "first"), CS_INVALID);
    assert_int_equal(cs_fail(CS_DENIED, "site '%s' may not train", "mercy"), CS_DENIED);

    assert_string_equal(cs_error_text(), "site 'mercy' may not train");
}

static void arguments_may_point_into_the_old_sentence(void **state)
{
    (void)state;
    cs_status status = cs_fail(CS_INVALID, "no such column");

    status = cs_fail(status, "table 'x': %s", cs_error_text());

    assert_int_equal(status, CS_INVALID);
    assert_string_equal(cs_error_text(), "table 'x': no such column");
}

static void wrapping_puts_the_context_first(void **state)
{
    (void)state;

    cs_status status = cs_wrap(cs_fail(CS_NOT_FOUND, "no key"), "site '%s'", "mercy");

    assert_int_equal(status, CS_NOT_FOUND);
    assert_string_equal(cs_error_text(), "site 'mercy': no key");
}

static void the_reason_of_the_system_follows_and_gives_the_status(void **state)
{
    (void)state;

    errno = ENOENT;
    assert_int_equal(cs_fail_errno("cannot open '%s'", "/x"), CS_NOT_FOUND);
    assert_string_equal(cs_error_text(), "cannot open '/x': No such file or directory");

    errno = ENOSPC;
    assert_int_equal(cs_fail_errno("disk"), CS_EXHAUSTED);
    errno = EACCES;
    assert_int_equal(cs_fail_errno("file"), CS_DENIED);
    errno = EEXIST;
    assert_int_equal(cs_fail_errno("file"), CS_EXISTS);
}

static void a_sentence_that_is_too_long_is_cut(void **state)
{
    (void)state;
    char long_text[3 * CS_ERROR_TEXT_BYTES];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';

    cs_status status = cs_fail(CS_INVALID, "%s", long_text);
    assert_int_equal(strlen(cs_error_text()), CS_ERROR_TEXT_BYTES - 1);
    status = cs_wrap(status, "%s", long_text);
    errno = EIO;
    assert_int_equal(cs_fail_errno("%s", long_text), CS_DATA_LOSS);

    assert_int_equal(status, CS_INVALID);
    assert_int_equal(strlen(cs_error_text()), CS_ERROR_TEXT_BYTES - 1);
}

static void *fail_elsewhere(void *unused)
{
    (void)unused;
    return (void *)(intptr_t)cs_fail(CS_INTERNAL, "of another thread");
}

static void each_thread_has_its_own_sentence(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(cs_fail(CS_INVALID, "mine"), CS_INVALID);

    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    pthread_join(thread, NULL);

    assert_string_equal(cs_error_text(), "mine");
}

static void codes_from_the_wire_stay_in_the_vocabulary(void **state)
{
    (void)state;

    assert_int_equal(cs_status_from_code(7), CS_DENIED);
    assert_int_equal(cs_status_from_code(16), CS_UNAUTHENTICATED);
    assert_int_equal(cs_status_from_code(17), CS_UNKNOWN);
    assert_int_equal(cs_status_from_code(100), CS_UNKNOWN);
    assert_string_equal(cs_status_name(CS_DEADLINE), "deadline exceeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sentence_is_the_last_one_left),
        cmocka_unit_test(arguments_may_point_into_the_old_sentence),
        cmocka_unit_test(wrapping_puts_the_context_first),
        cmocka_unit_test(the_reason_of_the_system_follows_and_gives_the_status),
        cmocka_unit_test(a_sentence_that_is_too_long_is_cut),
        cmocka_unit_test(each_thread_has_its_own_sentence),
        cmocka_unit_test(codes_from_the_wire_stay_in_the_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
