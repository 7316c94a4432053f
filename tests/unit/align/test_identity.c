/* Identities: every published vector, through the product. tests/vectors/identity.py holds the same rules once more. */
#include "client/align/identity.h"
#include "common/base/bytes.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static json_t *vectors(const char *name)
{
    static json_t *all;
    json_error_t error;

    if (all == NULL)
        all = json_load_file(CS_SOURCE_DIR "/tests/vectors/identity.json", 0, &error);
    if (all == NULL)
        fail_msg("identity.json line %d: %s", error.line, error.text);
    json_t *list = json_object_get(all, name);
    assert_true(json_array_size(list) > 0);
    return list;
}

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static cs_phonetic phonetic_of(const char *word)
{
    return strcmp(word, "cologne") == 0 ? CS_PHONETIC_COLOGNE : CS_PHONETIC_SOUNDEX;
}

static void fields_are_normalized_as_published(void **state)
{
    (void)state;
    size_t index;
    json_t *vector;

    json_array_foreach(vectors("normalize"), index, vector)
    {
        const char *order = text_of(vector, "dates");
        cs_identity_text text = {0};
        cs_identity found;
        unsigned unreadable = 0;
        for (cs_identity_field field = 0; field < CS_FIELDS; field++) {
            const char *name = cs_identity_field_name(field);
            text.fields[field] = text_of(json_object_get(vector, "fields"), name);
            size_t i;
            json_t *word;
            json_array_foreach(json_object_get(vector, "unreadable"), i, word) unreadable |=
                (unsigned)(strcmp(json_string_value(word), name) == 0) << field;
        }

        cs_identity_normalize(&text,
                              order[0] == 'y'   ? CS_DATE_YMD
                              : order[0] == 'd' ? CS_DATE_DMY
                                                : CS_DATE_MDY,
                              &found);

        for (cs_identity_field field = 0; field < CS_FIELDS; field++)
            assert_string_equal(found.fields[field],
                                text_of(json_object_get(vector, "canonical"), cs_identity_field_name(field)));
        assert_int_equal(found.unreadable, unreadable);
    }
}

static void names_sound_as_published(void **state)
{
    (void)state;
    size_t index;
    json_t *vector;

    json_array_foreach(vectors("phonetic"), index, vector)
    {
        char code[CS_IDENTITY_FIELD_BYTES];
        cs_identity_phonetic(phonetic_of(text_of(vector, "code")), text_of(vector, "name"), code);
        assert_string_equal(code, text_of(vector, "out"));
    }
}

static cs_identity_part part_named(const char *name)
{
    for (int part = CS_PART_GIVEN; part <= CS_PART_NATIONAL_ID; part++) {
        if (strcmp(cs_identity_part_name((cs_identity_part)part), name) == 0)
            return (cs_identity_part)part;
    }
    fail_msg("no part '%s'", name);
    return CS_PART_GIVEN;
}

static int compare_parts(const void *a, const void *b)
{
    return (int)*(const cs_identity_part *)a - (int)*(const cs_identity_part *)b;
}

static void keys_are_derived_as_published(void **state)
{
    (void)state;
    size_t index, i, j;
    json_t *vector, *parts, *part;
    size_t absent = 0;

    json_array_foreach(vectors("keys"), index, vector)
    {
        cs_alignment_key keys[CS_ALIGNMENT_KEYS_MAX] = {0};
        cs_identity identity = {0};
        uint8_t found[CS_ALIGNMENT_KEYS_MAX][CS_IDENTITY_KEY_BYTES];
        char study[CS_IDENTITY_FIELD_BYTES];
        strcpy(study, text_of(vector, "study"));
        const cs_alignment alignment = {.study = study,
                                        .phonetic = phonetic_of(text_of(vector, "phonetic")),
                                        .keys = keys,
                                        .keys_count = json_array_size(json_object_get(vector, "keys"))};
        json_array_foreach(json_object_get(vector, "keys"), i, parts)
        {
            json_array_foreach(parts, j, part) keys[i].parts[keys[i].parts_count++] =
                part_named(json_string_value(part));
            qsort(keys[i].parts, keys[i].parts_count, sizeof keys[i].parts[0], compare_parts);
        }
        for (cs_identity_field field = 0; field < CS_FIELDS; field++)
            strcpy(identity.fields[field],
                   text_of(json_object_get(vector, "canonical"), cs_identity_field_name(field)));

        const unsigned present = cs_identity_keys(&alignment, &identity, found);

        for (i = 0; i < alignment.keys_count; i++) {
            const char *expected = json_string_value(json_array_get(json_object_get(vector, "sha256"), i));
            assert_int_equal(present >> i & 1, expected != NULL);
            uint8_t bytes[CS_IDENTITY_KEY_BYTES] = {0};
            if (expected == NULL) {
                absent++;
                continue;
            }
            assert_int_equal(cs_hex_decode(expected, strlen(expected), "key", bytes, sizeof bytes), CS_OK);
            assert_memory_equal(found[i], bytes, sizeof bytes);
        }
    }
    assert_true(absent > 0);
}

static void bytes_that_are_no_text_are_unreadable_and_make_no_key(void **state)
{
    (void)state;
    const char *const bad[] = {"Ann\xff", "\xc3", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xc0\xaf"};
    cs_alignment_key key = {.parts = {CS_PART_GIVEN, CS_PART_FAMILY}, .parts_count = 2};
    char study[] = "s";
    const cs_alignment alignment = {.study = study, .keys = &key, .keys_count = 1};

    for (size_t i = 0; i < CS_COUNT(bad); i++) {
        const cs_identity_text text = {.fields = {[CS_FIELD_GIVEN] = bad[i], [CS_FIELD_FAMILY] = "Lee"}};
        cs_identity identity;
        uint8_t found[1][CS_IDENTITY_KEY_BYTES];

        cs_identity_normalize(&text, CS_DATE_YMD, &identity);

        assert_int_equal(identity.unreadable, 1U << CS_FIELD_GIVEN);
        assert_string_equal(identity.fields[CS_FIELD_GIVEN], "");
        assert_int_equal(cs_identity_keys(&alignment, &identity, found), 0);
    }
}

/* The short way for ASCII is a second implementation: it must say what the long one says. */
static void ascii_is_normalized_alike_with_and_without_the_unicode_tables(void **state)
{
    (void)state;
    for (int first = 1; first < 128; first++) {
        for (int second = 1; second < 128; second++) {
            /* U+200D is no character of a word, and takes the long way. */
            const char shorter[] = {'a', (char)first, 'B', (char)second, 'c', '\0'};
            const char longer[] = {'a', (char)first, 'B', (char)second, 'c', '\xe2', '\x80', '\x8d', '\0'};
            const cs_identity_text text = {.fields = {[CS_FIELD_GIVEN] = shorter, [CS_FIELD_FAMILY] = longer}};
            cs_identity identity;
            cs_identity_normalize(&text, CS_DATE_YMD, &identity);
            assert_string_equal(identity.fields[CS_FIELD_GIVEN], identity.fields[CS_FIELD_FAMILY]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_normalized_as_published),
        cmocka_unit_test(names_sound_as_published),
        cmocka_unit_test(keys_are_derived_as_published),
        cmocka_unit_test(bytes_that_are_no_text_are_unreadable_and_make_no_key),
        cmocka_unit_test(ascii_is_normalized_alike_with_and_without_the_unicode_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
