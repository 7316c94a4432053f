/* The strict reader of YAML: what is not one plain document is refused while it is read. */
#include "common/config/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_refused_bytes(cs_bytes yaml, const char *expected)
{
    CS_AUTO_PTR(cs_arena) keep = cs_arena_new(0);
    CS_AUTO(cs_yaml_document) document = {0};

    assert_int_equal(cs_yaml_read(yaml, 1024 * 1024, "x.yaml", keep, &document), CS_INVALID);
    if (strncmp(cs_error_text(), expected, strlen(expected)) != 0)
        fail_msg("found    \"%s\"\nexpected \"%s\"", cs_error_text(), expected);
}

static void assert_refused(const char *yaml, const char *expected)
{
    assert_refused_bytes(cs_bytes_of_text(yaml), expected);
}

static void a_value_knows_its_line_column_and_path(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) keep = cs_arena_new(0);
    CS_AUTO(cs_yaml_document) document = {0};
    const char *yaml = "a:\n  - b: 1\n  - {c: [x, \"y\"]}\n";
    assert_int_equal(cs_yaml_read(cs_bytes_of_text(yaml), 1000, "x.yaml", keep, &document), CS_OK);

    const cs_yaml_node *y = cs_yaml_find(document.root, "a")->last->first->last;

    assert_true(cs_yaml_is(y, "y"));
    assert_int_equal(cs_yaml_refuse(y, "z"), CS_INVALID);
    assert_string_equal(cs_error_text(), "x.yaml:3:13: a[1].c[1]: found \"y\", expected z");
}

static void aliases_anchors_tags_and_directives_are_refused(void **state)
{
    (void)state;

    assert_refused("a: &x 1\nb: *x\n", "x.yaml:1:4: found an anchor or tag");
    assert_refused("a: &x [1]\n", "x.yaml:1:4: found an anchor or tag");
    assert_refused("a: *x\n", "x.yaml:1:4: found an alias");
    assert_refused("a: !!binary aGk=\n", "x.yaml:1:4: found an anchor or tag");
    assert_refused("a: !x {b: 1}\n", "x.yaml:1:4: found an anchor or tag");
    assert_refused("%YAML 1.1\n---\na: 1\n", "x.yaml:1:1: found a YAML directive");
    assert_refused("<<: {a: 1}\n*x : 1\n", "x.yaml:2:1: found an alias");
}

static void billion_laughs_never_start(void **state)
{
    (void)state;

    assert_refused("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "x.yaml:1:4: found an anchor or tag");
}

static void only_one_document_that_is_a_mapping_is_taken(void **state)
{
    (void)state;

    assert_refused("a: 1\n---\na: 2\n", "x.yaml:2:1: found a second document");
    assert_refused("", "x.yaml:1:1: found nothing, expected a mapping");
    assert_refused("# only a comment\n", "x.yaml:1:1: found nothing, expected a mapping");
    assert_refused("[1, 2]\n", "x.yaml:1:1: found a list of 2, expected a mapping");
    assert_refused("word\n", "x.yaml:1:1: found 'word', expected a mapping");
}

static void a_key_stands_once_and_is_a_name(void **state)
{
    (void)state;

    assert_refused("a: 1\nb: {c: 1, d: 2, \"c\": 3}\n",
                   "x.yaml:2:17: b: found the key \"c\" again, expected it once (line 2)");
    assert_refused("[a, b]: 1\n", "x.yaml:1:1: found a list or mapping as a key");
    assert_refused("? {a: 1}\n: 1\n", "x.yaml:1:3: found a list or mapping as a key");
    assert_refused("\"\": 1\n", "x.yaml:1:1: found an empty key");
}

static void what_is_not_yaml_or_not_utf8_is_refused(void **state)
{
    (void)state;

    assert_refused("a: [1, 2\nb: 3\n", "x.yaml:");
    assert_refused("a: \"unended\n", "x.yaml:");
    assert_refused("a: b: c\n", "x.yaml:1:5: not YAML: mapping values are not allowed in this context");
    assert_refused("a: \xff\xfe\n", "x.yaml: not YAML: invalid leading UTF-8 octet at byte 3, expected UTF-8 text");
    assert_refused("a: \"\\0\"\n", "x.yaml:1:4: found a text with a zero byte");
    assert_refused_bytes(cs_bytes_of("a: \0\n", 5), "x.yaml: not YAML: control characters are not allowed at byte 3");
    assert_refused_bytes(cs_bytes_of("\xff\xfe"
                                     "a\0:\0",
                                     6),
                         "x.yaml: not YAML"); /* UTF-16 */
}

static void nesting_one_above_the_limit_is_refused(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) keep = cs_arena_new(0);
    CS_AUTO(cs_yaml_document) document = {0};
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&yaml, "a: ");
    for (int i = 1; i < CS_YAML_DEPTH_MAX; i++)
        cs_buffer_append_text(&yaml, "[");
    cs_buffer_append_text(&yaml, "1");
    for (int i = 1; i < CS_YAML_DEPTH_MAX; i++)
        cs_buffer_append_text(&yaml, "]");
    assert_int_equal(cs_yaml_read(cs_buffer_view(&yaml), 1000, "x.yaml", keep, &document), CS_OK);

    assert_refused("a: [[[[[[[[[[1]]]]]]]]]]\n", "x.yaml:1:13: found nesting deeper than 10");
}

static void a_mebibyte_of_brackets_is_refused_at_the_eleventh(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    for (int i = 0; i < 1024 * 1024; i++)
        cs_buffer_append_text(&yaml, "[");

    assert_refused_bytes(cs_buffer_view(&yaml), "x.yaml:1:11: found nesting deeper than 10");
}

static void values_one_above_the_limit_are_refused(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) keep = cs_arena_new(0);
    CS_AUTO(cs_yaml_document) document = {0};
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&yaml, "a: [1");
    for (int i = 3; i < CS_YAML_NODES_MAX; i++) /* the root, the list and the first 1 are there */
        cs_buffer_append_text(&yaml, ",1");
    CS_AUTO(cs_string) enough = cs_format("%s]\n", cs_buffer_text(&yaml));
    CS_AUTO(cs_string) too_many = cs_format("%s,1]\n", cs_buffer_text(&yaml));

    assert_int_equal(cs_yaml_read(cs_bytes_of_text(enough), 1024 * 1024, "x.yaml", keep, &document), CS_OK);
    assert_refused(too_many, "x.yaml: found more than 100000 values");
}

static void a_text_one_byte_above_the_limit_is_refused(void **state)
{
    (void)state;
    char yaml[CS_YAML_SCALAR_MAX + 16] = "a: ";
    memset(yaml + 3, 'x', CS_YAML_SCALAR_MAX + 1);

    assert_refused(yaml, "x.yaml:1:4: found a text of 4097 bytes, expected at most 4096");
}

static void a_hostile_value_is_shortened_and_cleaned_in_the_sentence(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_arena) keep = cs_arena_new(0);
    CS_AUTO(cs_yaml_document) document = {0};
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&yaml, "a: \"\\e[31m\\n");
    for (int i = 0; i < 100; i++)
        cs_buffer_append_text(&yaml, "ä");
    cs_buffer_append_text(&yaml, "\"\n");
    assert_int_equal(cs_yaml_read(cs_buffer_view(&yaml), 1000, "x.yaml", keep, &document), CS_OK);

    assert_int_equal(cs_yaml_refuse(cs_yaml_find(document.root, "a"), "less"), CS_INVALID);

    assert_string_equal(cs_error_text(), "x.yaml:1:4: a: found \"?[31m?äääääääääääääääääääääääääää…\", expected less");
}

static void numbers_are_decimal_and_nothing_else(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "0x10", "1_000", "1.0", "+1", "-1", "1e3", "01", "", "~", "true", "\"1\"", "0o7", "99999999999999999999"};
    for (size_t i = 0; i < CS_COUNT(refused); i++) {
        CS_AUTO_PTR(cs_arena) keep = cs_arena_new(0);
        CS_AUTO(cs_yaml_document) document = {0};
        CS_AUTO(cs_string) yaml = cs_format("a: %s\n", refused[i]);
        uint64_t value = 7;
        assert_int_equal(cs_yaml_read(cs_bytes_of_text(yaml), 1000, "x.yaml", keep, &document), CS_OK);

        assert_int_equal(cs_yaml_u64(document.root->first, &(cs_yaml_key){0}, &value), CS_INVALID);
    }
}

static void reals_are_decimal_and_finite(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
        cs_status status;
    } cases[] = {{"1", 1, CS_OK},          {"-.5", -0.5, CS_OK},     {"1e-3", 0.001, CS_OK},   {"+2.5E2", 250, CS_OK},
                 {"nan", 0, CS_INVALID},   {".inf", 0, CS_INVALID},  {"0x1p3", 0, CS_INVALID}, {"1e400", 0, CS_INVALID},
                 {"1.2.3", 0, CS_INVALID}, {"\"1\"", 0, CS_INVALID}, {".", 0, CS_INVALID},     {"e5", 0, CS_INVALID},
                 {"1,5", 0, CS_INVALID},   {"[1]", 0, CS_INVALID},   {"1e", 0, CS_INVALID}};
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO_PTR(cs_arena) keep = cs_arena_new(0);
        CS_AUTO(cs_yaml_document) document = {0};
        CS_AUTO(cs_string) yaml = cs_format("a: %s\n", cases[i].text);
        double value = 0;
        assert_int_equal(cs_yaml_read(cs_bytes_of_text(yaml), 1000, "x.yaml", keep, &document), CS_OK);

        assert_int_equal(cs_yaml_real(document.root->first, NULL, &value), cases[i].status);
        assert_true(value == cases[i].value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_knows_its_line_column_and_path),
        cmocka_unit_test(aliases_anchors_tags_and_directives_are_refused),
        cmocka_unit_test(billion_laughs_never_start),
        cmocka_unit_test(only_one_document_that_is_a_mapping_is_taken),
        cmocka_unit_test(a_key_stands_once_and_is_a_name),
        cmocka_unit_test(what_is_not_yaml_or_not_utf8_is_refused),
        cmocka_unit_test(nesting_one_above_the_limit_is_refused),
        cmocka_unit_test(a_mebibyte_of_brackets_is_refused_at_the_eleventh),
        cmocka_unit_test(values_one_above_the_limit_are_refused),
        cmocka_unit_test(a_text_one_byte_above_the_limit_is_refused),
        cmocka_unit_test(a_hostile_value_is_shortened_and_cleaned_in_the_sentence),
        cmocka_unit_test(numbers_are_decimal_and_nothing_else),
        cmocka_unit_test(reals_are_decimal_and_finite),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
