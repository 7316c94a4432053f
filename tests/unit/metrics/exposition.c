/* The text format. */
#include "common/metrics/exposition.h"

#include "tests/unit/base/cmocka_all.h"

#include <math.h>
#include <string.h>

static void a_family_has_its_head_once_and_then_its_samples(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_metrics_page page = cs_metrics_to(&out);

    cs_metrics_family(&page, "consilium_sites", CS_GAUGE, "Sites by state.");
    cs_metrics_count(&page, 2, CS_LABEL("state", "enrolled"));
    cs_metrics_count(&page, 0, CS_LABEL("state", "revoked"), CS_LABEL("why", ""));
    cs_metrics_family(&page, "consilium_bytes_total", CS_COUNTER, "Bytes.");
    cs_metrics_count(&page, UINT64_MAX);

    assert_string_equal(cs_buffer_text(&out), "# HELP consilium_sites Sites by state.\n"
                                              "# TYPE consilium_sites gauge\n"
                                              "consilium_sites{state=\"enrolled\"} 2\n"
                                              "consilium_sites{state=\"revoked\",why=\"\"} 0\n"
                                              "# HELP consilium_bytes_total Bytes.\n"
                                              "# TYPE consilium_bytes_total counter\n"
                                              "consilium_bytes_total 18446744073709551615\n");
}

static void a_family_without_samples_leaves_nothing(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_metrics_page page = cs_metrics_to(&out);

    cs_metrics_family(&page, "consilium_sites", CS_GAUGE, "Sites by state.");

    assert_int_equal(out.size, 0);
}

static void a_label_cannot_break_out_of_its_line(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_metrics_page page = cs_metrics_to(&out);

    cs_metrics_family(&page, "a", CS_GAUGE, "A.");
    cs_metrics_count(&page, 1, CS_LABEL("x", "q\"b\\n\nevil 1\xff\xc3\xa9"));

    assert_non_null(strstr(cs_buffer_text(&out), "a{x=\"q\\\"b\\\\n\\nevil 1?\xc3\xa9\"} 1\n"));
}

static void numbers_that_are_none_have_their_words(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_metrics_page page = cs_metrics_to(&out);

    cs_metrics_family(&page, "a", CS_GAUGE, "A.");
    cs_metrics_number(&page, NAN);
    cs_metrics_number(&page, INFINITY);
    cs_metrics_number(&page, -INFINITY);
    cs_metrics_number(&page, -0.25);

    assert_string_equal(cs_buffer_text(&out), "# HELP a A.\n# TYPE a gauge\na NaN\na +Inf\na -Inf\na -0.25\n");
}

static void a_process_tells_its_memory_descriptors_and_time(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_metrics_page page = cs_metrics_to(&out);

    cs_metrics_process(&page, "test", 1700000000123);
    cs_metrics_disk_free(&page, "/");
    cs_metrics_disk_free(&page, "/no-such-folder");

    const char *text = cs_buffer_text(&out);
    assert_non_null(strstr(text, "consilium_build_info{program=\"test\",version=\"" CS_VERSION "\"} 1\n"));
    assert_non_null(strstr(text, "\nprocess_resident_memory_bytes "));
    assert_non_null(strstr(text, "\nprocess_open_fds "));
    assert_non_null(strstr(text, "\nprocess_cpu_seconds_total "));
    assert_non_null(strstr(text, "\nprocess_start_time_seconds 1700000000.123\n"));
    assert_non_null(strstr(text, "\nconsilium_disk_free_bytes "));
    assert_null(strstr(strstr(text, "\nconsilium_disk_free_bytes ") + 1, "\nconsilium_disk_free_bytes "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_family_has_its_head_once_and_then_its_samples),
        cmocka_unit_test(a_family_without_samples_leaves_nothing),
        cmocka_unit_test(a_label_cannot_break_out_of_its_line),
        cmocka_unit_test(numbers_that_are_none_have_their_words),
        cmocka_unit_test(a_process_tells_its_memory_descriptors_and_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
