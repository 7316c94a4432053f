/* client/data/csv: quotes, line ends, limits. */
#include "client/data/csv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* All fields as "a|b|c" a line; a bad document gives its error. Caller frees. */
static char *read_as_text(const char *data, size_t size, char delimiter)
{
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_buffer_append(&bytes, data, size);
    CS_AUTO_PTR(cs_csv) csv = cs_csv_open(&bytes, "t.csv", delimiter);
    cs_csv_record record;
    cs_status status = CS_OK;
    while ((status = cs_csv_next(csv, &record)) == CS_OK) {
        cs_buffer_printf(&out, "%zu:", record.line);
        for (size_t i = 0; i < record.count; i++)
            cs_buffer_printf(&out, "%s%s", i > 0 ? "|" : "", record.fields[i]);
        cs_buffer_append_text(&out, "\n");
    }
    if (status != CS_DONE)
        cs_buffer_append_text(&out, cs_error_text());
    cs_buffer_append_text(&out, "");
    return cs_strdup(cs_buffer_text(&out));
}

#define ASSERT_READS(text, expected)                                                                                   \
    do {                                                                                                               \
        CS_AUTO(cs_string) found = read_as_text(text, sizeof(text) - 1, ',');                                          \
        assert_string_equal(found, expected);                                                                          \
    } while (0)

static void plain_fields_and_both_line_ends(void **state)
{
    (void)state;
    ASSERT_READS("a,b\nc,d\n", "1:a|b\n2:c|d\n");
    ASSERT_READS("a,b\r\nc,d\r\n", "1:a|b\n2:c|d\n");
    ASSERT_READS("a,b\nc,d", "1:a|b\n2:c|d\n");
    ASSERT_READS("a,,\n,b,", "1:a||\n2:|b|\n");
    ASSERT_READS("", "");
    ASSERT_READS("\r\n\n", "");
    ASSERT_READS("\n\na\n\n\nb\n", "3:a\n6:b\n");
    ASSERT_READS("a\rb,c", "1:a\rb|c\n");
}

static void blanks_around_unquoted_text_are_cut_off(void **state)
{
    (void)state;
    ASSERT_READS(" a ,\tb\t, \n", "1:a|b|\n");
    ASSERT_READS("a b, \" c \" ,d", "1:a b| c |d\n");
    CS_AUTO(cs_string) tabs = read_as_text("a\t b\t\tc", 7, '\t');
    assert_string_equal(tabs, "1:a|b||c\n");
}

static void quotes_hold_delimiters_line_ends_and_doubled_quotes(void **state)
{
    (void)state;
    ASSERT_READS("\"a,b\",\"c\"\"d\"\n\"e\nf\",g\nh,i\n", "1:a,b|c\"d\n2:e\nf|g\n4:h|i\n");
    ASSERT_READS("\"\",\"\"\n", "1:|\n");
    ASSERT_READS("\"a\"", "1:a\n");
}

static void a_byte_order_mark_is_no_part_of_the_first_name(void **state)
{
    (void)state;
    ASSERT_READS("\xEF\xBB\xBF"
                 "age,num\n",
                 "1:age|num\n");
}

static void what_is_not_csv_is_named_with_its_line(void **state)
{
    (void)state;
    ASSERT_READS("a\n\"b", "1:a\nt.csv line 2: a quote that is opened here is never closed");
    ASSERT_READS("a\nb\"c\n", "1:a\nt.csv line 2: a quote inside a field that does not start with one");
    ASSERT_READS("\"a\"b,c\n", "t.csv line 1: text behind a closing quote, expected the delimiter or the line's end");
    ASSERT_READS("a\0b\n", "t.csv line 1: a zero byte: this is no text file");
}

static void a_field_just_above_the_limit_is_refused(void **state)
{
    (void)state;
    for (int is_quoted = 0; is_quoted < 2; is_quoted++) {
        for (size_t extra = 0; extra < 2; extra++) {
            CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
            cs_buffer_append_text(&text, is_quoted ? "\"" : "");
            for (size_t i = 0; i < CS_CSV_FIELD_MAX_BYTES + extra; i++)
                cs_buffer_append(&text, "x", 1);
            cs_buffer_append_text(&text, is_quoted ? "\"" : "");
            CS_AUTO_PTR(cs_csv) csv = cs_csv_open(&text, "t.csv", ',');
            cs_csv_record record;
            assert_int_equal(cs_csv_next(csv, &record), extra == 0 ? CS_OK : CS_EXHAUSTED);
        }
    }
}

static void one_field_more_than_the_limit_is_refused(void **state)
{
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
        for (size_t i = 1; i < CS_CSV_MAX_COLUMNS + extra; i++)
            cs_buffer_append_text(&text, ",");
        CS_AUTO_PTR(cs_csv) csv = cs_csv_open(&text, "t.csv", ',');
        cs_csv_record record;
        assert_int_equal(cs_csv_next(csv, &record), extra == 0 ? CS_OK : CS_EXHAUSTED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_fields_and_both_line_ends),
        cmocka_unit_test(blanks_around_unquoted_text_are_cut_off),
        cmocka_unit_test(quotes_hold_delimiters_line_ends_and_doubled_quotes),
        cmocka_unit_test(a_byte_order_mark_is_no_part_of_the_first_name),
        cmocka_unit_test(what_is_not_csv_is_named_with_its_line),
        cmocka_unit_test(a_field_just_above_the_limit_is_refused),
        cmocka_unit_test(one_field_more_than_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
