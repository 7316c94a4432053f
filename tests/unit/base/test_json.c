/* The JSON writer. */
#include "common/base/json.h"

#include "tests/unit/base/cmocka_all.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void objects_and_lists_nest(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);

    cs_json_object(&json, NULL);
    cs_json_text(&json, "site", "mercy");
    cs_json_list(&json, "rounds");
    cs_json_int(&json, NULL, -1);
    cs_json_uint(&json, NULL, UINT64_MAX);
    cs_json_object(&json, NULL);
    cs_json_end(&json, '}');
    cs_json_end(&json, ']');
    cs_json_bool(&json, "ok", true);
    cs_json_text(&json, "none", NULL);
    cs_json_hex(&json, "hash", "\x01\xff", 2);
    cs_json_raw(&json, "raw", cs_bytes_of_text("{\"a\":1}"));
    cs_json_end(&json, '}');

    assert_string_equal(cs_buffer_text(&out), "{\"site\":\"mercy\",\"rounds\":[-1,18446744073709551615,{}],\"ok\":true,"
                                              "\"none\":null,\"hash\":\"01ff\",\"raw\":{\"a\":1}}");
}

static void texts_are_escaped_and_always_valid_utf8(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);

    cs_json_text(&json, NULL, "\"\\\n\t\x01\x7f ä€ \xff\xc3");

    assert_string_equal(cs_buffer_text(&out), "\"\\\"\\\\\\n\\t\\u0001\\u007f ä€ \\ufffd\\ufffd\"");
}

static void reals_are_short_and_read_back_the_same(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.1, "0.1"},      {1.0, "1"},
                 {-0.0, "-0"},      {0.1 + 0.2, "0.30000000000000004"},
                 {1e300, "1e+300"}, {5e-324, "4.94065645841247e-324"},
                 {NAN, "null"},     {INFINITY, "null"}};
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        cs_json_real(&json, NULL, cases[i].value);
        assert_string_equal(cs_buffer_text(&out), cases[i].text);
        if (isfinite(cases[i].value))
            assert_true(strtod(cs_buffer_text(&out), NULL) == cases[i].value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_and_lists_nest),
        cmocka_unit_test(texts_are_escaped_and_always_valid_utf8),
        cmocka_unit_test(reals_are_short_and_read_back_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
