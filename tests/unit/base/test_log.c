/* Log lines, read back through a pipe in stderr's place. */
#include "common/base/log.h"

#include "common/base/clock.h"
#include "tests/unit/base/cmocka_all.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int pipe_ends[2];
static int real_stderr;

static void capture_begin(void)
{
    assert_int_equal(pipe(pipe_ends), 0);
    real_stderr = dup(STDERR_FILENO);
    dup2(pipe_ends[1], STDERR_FILENO);
    close(pipe_ends[1]);
    cs_clock_fake(0, 1772360551412);
}

static const char *capture_end(void)
{
    static char text[4 * PIPE_BUF];
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    cs_clock_real();
    const ssize_t size = read(pipe_ends[0], text, sizeof(text) - 1);
    assert_true(size >= 0);
    text[size] = '\0';
    close(pipe_ends[0]);
    return text;
}

static void a_line_is_logfmt(void **state)
{
    (void)state;
    capture_begin();

    cs_log(CS_LOG_INFO, "engine", "round closed", CS_S("job", "heart"), CS_I("round", 12), CS_D("loss", 0.25));

    assert_string_equal(capture_end(), "time=2026-03-01T10:22:31.412Z level=info module=engine msg=\"round closed\" "
                                       "job=heart round=12 loss=0.25\n");
}

static void a_value_cannot_begin_a_line_or_a_field_of_its_own(void **state)
{
    (void)state;
    capture_begin();

    cs_log(CS_LOG_ERROR, "x", "m", CS_S("site", "a\nlevel=info \"b\" \\ \x1b[31m \xc2\x9b \xff ä"), CS_S("none", NULL));

    assert_non_null(strstr(capture_end(), " site=\"a\\nlevel=info \\\"b\\\" \\\\ ?[31m ? ? ä\" none=\"\"\n"));
}

static void a_line_below_the_level_is_not_written(void **state)
{
    (void)state;
    capture_begin();

    cs_log(CS_LOG_DEBUG, "x", "quiet");
    cs_log_set_level(CS_LOG_DEBUG);
    cs_log(CS_LOG_DEBUG, "x", "loud");
    cs_log_set_level(CS_LOG_INFO);

    const char *text = capture_end();
    assert_null(strstr(text, "quiet"));
    assert_non_null(strstr(text, "loud"));
}

static void a_line_of_any_length_is_cut_to_one_write_and_stays_whole(void **state)
{
    (void)state;
    static char long_text[2 * PIPE_BUF];
    for (size_t cut = 0; cut < 70; cut++) {
        memset(long_text, 'x', sizeof(long_text) - 1);
        long_text[PIPE_BUF - cut - 60] = cut % 2 ? ' ' : 'y';
        long_text[sizeof(long_text) - 1 - cut * 64] = '\0';
        capture_begin();

        cs_log(CS_LOG_INFO, "x", "m", CS_S("plain", cut % 2 ? "p" : long_text), CS_S("quoted", long_text),
               CS_S("after", "x y"));

        const char *text = capture_end();
        assert_true(strlen(text) <= PIPE_BUF);
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        size_t quotes = 0;
        for (const char *c = text; *c != '\0'; c++)
            quotes += *c == '"';
        assert_int_equal(quotes % 2, 0);
    }
}

static void levels_have_names(void **state)
{
    (void)state;
    cs_log_level level = CS_LOG_ERROR;

    assert_int_equal(cs_log_level_parse("debug", &level), CS_OK);
    assert_int_equal(level, CS_LOG_DEBUG);
    assert_int_equal(cs_log_level_parse("loud", &level), CS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_logfmt),
        cmocka_unit_test(a_value_cannot_begin_a_line_or_a_field_of_its_own),
        cmocka_unit_test(a_line_below_the_level_is_not_written),
        cmocka_unit_test(a_line_of_any_length_is_cut_to_one_write_and_stays_whole),
        cmocka_unit_test(levels_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
