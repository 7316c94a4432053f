/* client/data/persons: which rows are persons of the alignment, and with which keys. */
#include "client/data/persons.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char plan_text[] = "plan: cohort\nfederation: vertical\nsites: {invite: [clinic, mercy]}\n"
                                "dataset: {name: persons-v1, kind: identities}\n"
                                "alignment: {study: s, leader: mercy, keys: [[given, family, birth_date], [names, "
                                "birth_year], [national_id]], cohort: all, patients: 100}\n";

struct fixture {
    cs_plan *plan;
    cs_site_config *config;
};

static void fixture_open(struct fixture *fixture, const char *dataset)
{
    CS_AUTO(cs_buffer) site = CS_BUFFER_EMPTY;
    cs_buffer_printf(&site, "site: mercy\ncoordinator: c:1\ndatasets: {persons-v1: {table: p.csv%s}}\n", dataset);
    if (cs_plan_read(cs_bytes_of_text(plan_text), "plan", &fixture->plan) != CS_OK ||
        cs_site_config_read(cs_buffer_view(&site), "site.yaml", "/", &fixture->config) != CS_OK)
        fail_msg("%s", cs_error_text());
}

static void fixture_close(struct fixture *fixture)
{
    cs_plan_free(fixture->plan);
    cs_site_config_free(fixture->config);
}

static cs_status read_table(const struct fixture *fixture, const char *text, cs_persons **ret)
{
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&bytes, text);
    return cs_persons_read(fixture->plan, cs_site_config_dataset(fixture->config, "persons-v1"), &bytes, "p.csv", ret);
}

static void rows_become_persons_with_the_keys_that_their_fields_allow(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, ", columns: {given: Vorname, birth_date: geboren}, missing: [\"NA\"], dates: dmy, "
                           "split: {by: patient, patient: nr}");
    CS_AUTO_PTR(cs_persons) persons = NULL;

    assert_int_equal(read_table(&fixture,
                                "nr,Vorname,family,geboren,national_id\n"
                                "7,Ann,Lee,1.2.1990,123\n"
                                "8,Bob,Ray,NA,456\n"
                                "9,Cid,,31.2.1990,\n"
                                "10,Dee,Fox,2.3.1991,NA\n",
                                &persons),
                     CS_OK);

    assert_int_equal(persons->count, 4);
    assert_int_equal(persons->present[0], 7);
    assert_int_equal(persons->present[1], 4);
    assert_int_equal(persons->present[2], 0);
    assert_int_equal(persons->present[3], 3);
    assert_int_equal(persons->lines[3], 5);
    assert_string_equal(persons->patients[3], "10");
    assert_int_equal(persons->counted.list.listed, 3);
    assert_int_equal(persons->counted.list.without_key, 1);
    assert_int_equal(persons->counted.list.keys, 6);
    assert_int_equal(persons->counted.missing[CS_FIELD_BIRTH_DATE], 1);
    assert_int_equal(persons->counted.unreadable[CS_FIELD_BIRTH_DATE], 1);
    assert_int_equal(persons->counted.unreadable_line[CS_FIELD_BIRTH_DATE], 4);
    assert_int_equal(persons->counted.missing[CS_FIELD_NATIONAL_ID], 2);
    assert_int_equal(persons->counted.missing[CS_FIELD_SEX], 0); /* no key uses it */
    fixture_close(&fixture);
}

static void the_same_person_once_more_is_a_duplicate_of_the_first(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, "");
    CS_AUTO_PTR(cs_persons) persons = NULL;

    assert_int_equal(read_table(&fixture,
                                "given,family,birth_date,national_id\n"
                                "Ann,Lee,1990-02-01,123\nANN,lee,1990-02-01,1-2-3\nAnn,Lee,1990-02-01,123\n",
                                &persons),
                     CS_OK);

    assert_int_equal(persons->present[0], 7);
    assert_int_equal(persons->present[1] | persons->present[2], 0);
    assert_int_equal(persons->counted.list.repeated, 2);
    assert_int_equal(persons->counted.list.listed, 1);
    assert_int_equal(persons->counted.list.without_key + persons->counted.list.only_shared, 0);
    fixture_close(&fixture);
}

static void a_key_of_two_persons_is_nobodys(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, "");
    CS_AUTO_PTR(cs_persons) persons = NULL;

    /* The first two share names and year of birth, the first and the third the number; each keeps what is its own. */
    assert_int_equal(read_table(&fixture,
                                "given,family,birth_date,national_id\n"
                                "Ann,Lee,1990-02-01,123\nLee,Ann,1990-05-05,124\nBob,Ray,1970-01-01,123\n",
                                &persons),
                     CS_OK);

    assert_int_equal(persons->present[0], 1);
    assert_int_equal(persons->present[1], 1 | 4);
    assert_int_equal(persons->present[2], 1 | 2);
    assert_int_equal(persons->counted.list.shared[0], 0);
    assert_int_equal(persons->counted.list.shared[1], 2);
    assert_int_equal(persons->counted.list.shared[2], 2);
    assert_int_equal(persons->counted.present[2], 3);
    fixture_close(&fixture);
}

static void a_site_without_one_of_the_fields_still_has_the_other_keys(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, "");
    CS_AUTO_PTR(cs_persons) persons = NULL;
    CS_AUTO_PTR(cs_persons) none = NULL;

    assert_int_equal(read_table(&fixture, "national_id\n123\n124\n", &persons), CS_OK);
    assert_int_equal(persons->present[1], 4);

    assert_int_equal(read_table(&fixture, "family,number\nLee,123\n", &none), CS_NOT_FOUND);
    assert_string_equal(cs_error_text(), "p.csv: there is no column 'given'; if it has another name here, "
                                         "datasets.persons-v1.columns can say so");
    assert_int_equal(read_table(&fixture, "national_id,family\n123\n", &none), CS_INVALID);
    assert_string_equal(cs_error_text(), "p.csv line 2: 1 fields, expected 2");
    assert_int_equal(read_table(&fixture, "", &none), CS_INVALID);
    assert_string_equal(cs_error_text(), "p.csv: the table is empty");
    fixture_close(&fixture);
}

/* Every pair of a few thousand rows, some equal, some alike: the table of keys grows, chains and collides. */
static void many_rows_keep_exactly_the_keys_that_are_theirs_alone(void **state)
{
    (void)state;
    enum { ROWS = 5000, NUMBERS = 4000 };
    struct fixture fixture;
    fixture_open(&fixture, "");
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO_PTR(cs_persons) persons = NULL;
    size_t times[NUMBERS] = {0};
    size_t alone = 0;
    cs_buffer_append_text(&text, "given,national_id\n");
    for (size_t row = 0; row < ROWS; row++) {
        const size_t number = row * row % NUMBERS;
        cs_buffer_printf(&text, "g%zu,%zu\n", row, number + 1000);
        times[number]++;
    }
    for (size_t number = 0; number < NUMBERS; number++)
        alone += times[number] > 0; /* all have the one key only: the first of each number stays */

    assert_int_equal(read_table(&fixture, cs_buffer_text(&text), &persons), CS_OK);

    assert_int_equal(persons->counted.list.listed, alone);
    assert_int_equal(persons->counted.list.repeated, ROWS - alone);
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_become_persons_with_the_keys_that_their_fields_allow),
        cmocka_unit_test(the_same_person_once_more_is_a_duplicate_of_the_first),
        cmocka_unit_test(a_key_of_two_persons_is_nobodys),
        cmocka_unit_test(a_site_without_one_of_the_fields_still_has_the_other_keys),
        cmocka_unit_test(many_rows_keep_exactly_the_keys_that_are_theirs_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
