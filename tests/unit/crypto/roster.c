/* Rosters: one text for one roster, and what people compare. */
#include "common/crypto/roster.h"

#include "tests/unit/crypto/folder.h"

static const uint8_t key_a[CS_SIGN_PUBLIC_BYTES] = {1, 2, 3}, key_b[CS_SIGN_PUBLIC_BYTES] = {4, 5, 6};

static cs_roster roster_of(const char *first, const char *second)
{
    cs_roster roster = {.consortium = "cardiac"};
    must_be_ok(cs_roster_add(&roster, first, strcmp(first, "clinic") == 0 ? key_a : key_b));
    must_be_ok(cs_roster_add(&roster, second, strcmp(second, "clinic") == 0 ? key_a : key_b));
    return roster;
}

static void order_of_arrival_does_not_change_the_hash(void **state)
{
    (void)state;
    CS_AUTO(cs_roster) one = roster_of("clinic", "mercy");
    CS_AUTO(cs_roster) other = roster_of("mercy", "clinic");

    const cs_hash a = cs_roster_hash(&one), b = cs_roster_hash(&other);

    assert_true(cs_hash_equal(&a, &b));
    assert_memory_equal(cs_roster_find(&other, "clinic")->key, key_a, sizeof(key_a));
    assert_null(cs_roster_find(&one, "registry"));
}

static void another_key_name_or_consortium_changes_the_hash(void **state)
{
    (void)state;
    CS_AUTO(cs_roster) roster = roster_of("clinic", "mercy");
    const cs_hash before = cs_roster_hash(&roster);

    roster.members[0].key[31] ^= 1;
    const cs_hash key = cs_roster_hash(&roster);
    roster.members[0].key[31] ^= 1;
    roster.consortium[0] = 'b';
    const cs_hash consortium = cs_roster_hash(&roster);
    roster.consortium[0] = 'c';
    const cs_hash after = cs_roster_hash(&roster);

    assert_false(cs_hash_equal(&before, &key));
    assert_false(cs_hash_equal(&before, &consortium));
    assert_true(cs_hash_equal(&before, &after));
}

static void a_written_roster_is_read_again(void **state)
{
    (void)state;
    CS_AUTO(cs_roster) roster = roster_of("clinic", "mercy");
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_roster_write(&roster, &text);

    CS_AUTO(cs_roster) again = CS_ROSTER_EMPTY;
    must_be_ok(cs_roster_parse(cs_buffer_view(&text), &again));

    assert_int_equal(again.count, 2);
    assert_string_equal(again.consortium, "cardiac");
    assert_memory_equal(cs_roster_find(&again, "mercy")->key, key_b, sizeof(key_b));
}

static void only_the_one_text_of_a_roster_is_read(void **state)
{
    (void)state;
#define KEY "0102030000000000000000000000000000000000000000000000000000000000"
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"consilium-roster-v2\ncardiac\n", "begin"},
        {"consilium-roster-v1\nCardiac\n", "consortium"},
        {"consilium-roster-v1\ncardiac\nmercy " KEY "\nclinic " KEY "\n", "order"},
        {"consilium-roster-v1\ncardiac\nmercy " KEY "\nmercy " KEY "\n", "twice"},
        {"consilium-roster-v1\ncardiac\nmercy 0A" KEY "\n", "mercy"},
        {"consilium-roster-v1\ncardiac\nmercy 0A02030000000000000000000000000000000000000000000000000000000000\n", ""},
        {"consilium-roster-v1\ncardiac\nmercy " KEY, "mercy"},
        {"consilium-roster-v1\ncardiac\nmercy\n", "expected a site"},
    };
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO(cs_roster) roster = CS_ROSTER_EMPTY;
        must_fail(cs_roster_parse(cs_bytes_of_text(cases[i].text), &roster), CS_INVALID, cases[i].says);
    }
}

static void a_fingerprint_has_six_words_and_sixteen_digits(void **state)
{
    (void)state;
    CS_AUTO(cs_string) a = cs_key_fingerprint(key_a);
    CS_AUTO(cs_string) again = cs_key_fingerprint(key_a);
    CS_AUTO(cs_string) b = cs_key_fingerprint(key_b);

    assert_string_equal(a, again);
    assert_string_not_equal(a, b);
    assert_int_equal(strlen(a), strlen("lusab-babad-lusab-babad-lusab-babad (9f31 88ab 01cd 77e0)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_of_arrival_does_not_change_the_hash),
        cmocka_unit_test(another_key_name_or_consortium_changes_the_hash),
        cmocka_unit_test(a_written_roster_is_read_again),
        cmocka_unit_test(only_the_one_text_of_a_roster_is_read),
        cmocka_unit_test(a_fingerprint_has_six_words_and_sixteen_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
