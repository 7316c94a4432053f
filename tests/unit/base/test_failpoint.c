/* Failpoints as tests of other modules use them. */
#include "common/base/failpoint.h"

#include "common/base/clock.h"
#include "tests/unit/base/cmocka_all.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static cs_status commit(void)
{
    CS_FAILPOINT("engine.commit");
    return CS_OK;
}

static int forget(void **state)
{
    (void)state;
    return cs_failpoint_configure(NULL) == CS_OK ? 0 : -1;
}

static void an_unnamed_place_is_passed(void **state)
{
    (void)state;
    assert_int_equal(cs_failpoint_configure("other.place=error"), CS_OK);

    assert_int_equal(commit(), CS_OK);
}

static void a_place_fails_at_the_passage_that_was_named(void **state)
{
    (void)state;
    assert_int_equal(cs_failpoint_configure("a.b=error;engine.commit=error@2"), CS_OK);

    assert_int_equal(commit(), CS_OK);
    assert_int_equal(commit(), CS_INTERNAL);
    assert_string_equal(cs_error_text(), "failpoint engine.commit");
    assert_int_equal(commit(), CS_OK);
}

static void a_place_without_a_number_fails_at_each_passage(void **state)
{
    (void)state;
    assert_int_equal(cs_failpoint_configure("engine.commit=error"), CS_OK);

    assert_int_equal(commit(), CS_INTERNAL);
    assert_int_equal(commit(), CS_INTERNAL);
}

static void kill_ends_the_process_on_the_spot(void **state)
{
    (void)state;

    const pid_t child = fork();
    if (child == 0) {
        if (cs_failpoint_configure("engine.commit=kill@2") != CS_OK || commit() != CS_OK)
            _exit(1);
        CS_IGNORE(commit(), "it does not return");
        _exit(2);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);

    assert_true(WIFSIGNALED(how));
    assert_int_equal(WTERMSIG(how), SIGKILL);
}

static void a_mistyped_text_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"engine.commit",  "=error",       "x=explode",  "x=error@",
                                        "x=error@second", "x=sleep:soon", "x=sleep:-1", "x=error@99999999999"};
    for (size_t i = 0; i < CS_COUNT(texts); i++)
        assert_int_equal(cs_failpoint_configure(texts[i]), CS_INVALID);
    assert_int_equal(commit(), CS_OK);
}

static void times_of_the_network_are_shorter_by_the_pace(void **state)
{
    (void)state;
    assert_int_equal(cs_network_ms(25000), 1000);
    assert_int_equal(cs_network_ms(10), 1);
}

int main(void)
{
    setenv("CONSILIUM_NETWORK_PACE", "25", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(an_unnamed_place_is_passed, forget),
        cmocka_unit_test_teardown(a_place_fails_at_the_passage_that_was_named, forget),
        cmocka_unit_test_teardown(a_place_without_a_number_fails_at_each_passage, forget),
        cmocka_unit_test_teardown(kill_ends_the_process_on_the_spot, forget),
        cmocka_unit_test_teardown(a_mistyped_text_is_refused, forget),
        cmocka_unit_test(times_of_the_network_are_shorter_by_the_pace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
