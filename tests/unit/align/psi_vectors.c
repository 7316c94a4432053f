/* tests/vectors/psi.json, which another program made from the README: hashes, masks, tags, and every file of a session.
 */
#include "client/align/psi.h"

#include "common/crypto/digest.h"
#include "common/crypto/sign.h"
#include "tests/unit/place.h"

#include <jansson.h>

#define SITES_MOST   8
#define RECORDS_MOST 32

static const cs_curve_engine engines[] = {CS_CURVE_PORTABLE, CS_CURVE_IFMA};

static json_t *vectors(void)
{
    json_error_t error;
    json_t *file = json_load_file(CS_SOURCE_DIR "/tests/vectors/psi.json", 0, &error);
    if (file == NULL)
        fail_msg("psi.json:%d: %s", error.line, error.text);
    return file;
}

static const char *text_in(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    assert_non_null(text);
    return text;
}

static void bytes_in(const json_t *object, const char *name, uint8_t *out, size_t size)
{
    const char *hex = text_in(object, name);
    assert_ok(cs_hex_decode(hex, strlen(hex), name, out, size));
}

static uint32_t number_in(const json_t *object, const char *name)
{
    return (uint32_t)json_integer_value(json_object_get(object, name));
}

static void hashes_are_those_of_the_vectors(void **state)
{
    (void)state;
    json_t *file = vectors(), *vector;
    size_t index;
    assert_true(json_array_size(json_object_get(file, "hash")) > 0);
    json_array_foreach(json_object_get(file, "hash"), index, vector)
    {
        uint8_t message[33] = {(uint8_t)number_in(vector, "kind")}, expected[32], point[32];
        bytes_in(vector, "key", message + 1, 32);
        bytes_in(vector, "point", expected, 32);
        CS_AUTO(cs_string) dst = cs_format("consilium-align-1:%s", text_in(vector, "study"));
        for (size_t e = 0; e < CS_COUNT(engines); e++) {
            cs_curve_hash(engines[e], cs_bytes_of_text(dst), message, sizeof message, 1, point);
            assert_memory_equal(point, expected, 32);
        }
    }
    json_decref(file);
}

static void masks_and_tags_are_those_of_the_vectors(void **state)
{
    (void)state;
    json_t *file = vectors(), *vector;
    size_t index;
    assert_true(json_array_size(json_object_get(file, "mask")) > 0);
    json_array_foreach(json_object_get(file, "mask"), index, vector)
    {
        uint8_t scalar[32], point[32], expected[32], tag[CS_PSI_TAG_BYTES], masked[32];
        bytes_in(vector, "scalar", scalar, 32);
        bytes_in(vector, "point", point, 32);
        bytes_in(vector, "masked", expected, 32);
        bytes_in(vector, "tag", tag, sizeof tag);
        for (size_t e = 0; e < CS_COUNT(engines); e++) {
            assert_ok(cs_curve_mask(engines[e], scalar, point, 1, 0, masked));
            assert_memory_equal(masked, expected, 32);
            assert_memory_equal(masked, tag, sizeof tag);
        }
    }
    json_decref(file);
}

typedef struct site {
    cs_psi_session session;
    uint8_t keys[RECORDS_MOST][CS_PSI_SLOTS_MAX][CS_PSI_KEY_BYTES];
    uint8_t present[RECORDS_MOST];
    size_t count;
    cs_psi_own *own;
    cs_psi_table table;
} site;

static void read_site(const json_t *session, uint32_t number, const char *const *names, cs_curve_engine engine,
                      site *site)
{
    const json_t *object = json_array_get(json_object_get(session, "sites"), number);
    site->session = (cs_psi_session){.study = text_in(session, "study"),
                                     .slots = number_in(session, "slots"),
                                     .sites = (uint32_t)json_array_size(json_object_get(session, "sites")),
                                     .site = number,
                                     .leader = number_in(session, "leader"),
                                     .names = names,
                                     .engine = engine,
                                     .threads = 1};
    bytes_in(session, "shared_secret", site->session.shared_secret, CS_PSI_SECRET_BYTES);
    bytes_in(object, "own_secret", site->session.own_secret, CS_PSI_SECRET_BYTES);
    const json_t *records = json_object_get(object, "records");
    site->count = json_array_size(records);
    assert_in_range(site->count, 1, RECORDS_MOST);
    for (size_t i = 0; i < site->count; i++)
        for (uint32_t slot = 0; slot < site->session.slots; slot++) {
            const char *hex = json_string_value(json_array_get(json_array_get(records, i), slot));
            if (hex == NULL)
                continue;
            assert_ok(cs_hex_decode(hex, strlen(hex), "key", site->keys[i][slot], CS_PSI_KEY_BYTES));
            site->present[i] |= (uint8_t)(1 << slot);
        }
    assert_ok(cs_psi_own_new(&site->session, (const uint8_t(*)[CS_PSI_KEY_BYTES])site->keys, CS_PSI_SLOTS_MAX,
                             site->present, site->count, &site->own));
}

static void assert_file_is(const char *path, const json_t *object, const char *name)
{
    uint8_t expected[CS_HASH_BYTES];
    cs_hash hash;
    bytes_in(object, name, expected, sizeof expected);
    assert_ok(cs_sha256_file(path, &hash, NULL));
    assert_memory_equal(hash.bytes, expected, sizeof expected);
}

static void run_session(const char *folder, const json_t *session, cs_curve_engine engine)
{
    static const char *const names[SITES_MOST] = {"0", "1", "2", "3", "4", "5", "6", "7"};
    const json_t *objects = json_object_get(session, "sites");
    const uint32_t count = (uint32_t)json_array_size(objects), leader = number_in(session, "leader");
    assert_in_range(count, 2, SITES_MOST);
    site *sites = calloc(count, sizeof *sites);
    char *lists[SITES_MOST], *answers[SITES_MOST] = {0};
    for (uint32_t i = 0; i < count; i++) {
        read_site(session, i, names, engine, &sites[i]);
        lists[i] = cs_format("%s/list-%u", folder, i);
        answers[i] = i == leader ? NULL : cs_format("%s/answer-%u", folder, i);
        assert_ok(cs_psi_own_write(sites[i].own, lists[i], NULL, NULL));
        assert_file_is(lists[i], json_array_get(objects, i), "list");
    }
    for (uint32_t hop = 1; hop < count; hop++)
        for (uint32_t owner = 0; owner < count; owner++)
            assert_ok(cs_psi_pass(&sites[cs_psi_hop(count, leader, owner, hop)].session, owner, 0, lists[owner],
                                  lists[owner], NULL, NULL));
    for (uint32_t i = 0; i < count; i++)
        assert_file_is(lists[i], json_array_get(objects, i), "tags");
    CS_AUTO_PTR(cs_psi_match) match = NULL;
    assert_ok(cs_psi_match_new(sites[leader].own, (const char *const *)lists, &match));
    assert_ok(cs_psi_release(match, number_in(session, "any"), 0, (const char *const *)answers, &sites[leader].table));
    for (uint32_t i = 0; i < count; i++) {
        const json_t *object = json_array_get(objects, i), *table = json_object_get(object, "table");
        if (i != leader) {
            assert_file_is(answers[i], object, "answer");
            assert_ok(cs_psi_accept(sites[i].own, 0, answers[i], &sites[i].table));
        }
        assert_int_equal(sites[i].table.rows, json_array_size(table));
        for (size_t row = 0; row < sites[i].table.rows; row++) {
            const json_t *record = json_array_get(table, row);
            assert_int_equal(sites[i].table.records[row],
                             json_is_null(record) ? CS_PSI_NO_RECORD : json_integer_value(record));
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        cs_psi_own_free(sites[i].own);
        cs_psi_table_clear(&sites[i].table);
        cs_free(lists[i]);
        cs_free(answers[i]);
    }
    free(sites);
}

static void every_file_of_a_session_is_that_of_the_vectors(void **state)
{
    const place *here = *state;
    json_t *file = vectors();
    for (size_t e = 0; e < CS_COUNT(engines); e++)
        run_session(here->folder, json_object_get(file, "session"), engines[e]);
    json_decref(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_those_of_the_vectors),
        cmocka_unit_test(masks_and_tags_are_those_of_the_vectors),
        PLACE_TEST(every_file_of_a_session_is_that_of_the_vectors),
    };
    if (cs_crypto_start() != CS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
