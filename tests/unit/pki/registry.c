/* Sites and tokens in the database, and who is admitted. */
#include "server/store/registry.h"

#include "tests/unit/crypto/folder.h"

static cs_store *open_store(const char *folder, const char *name)
{
    const char *const migrations[] = {cs_store_registry_v1};
    CS_AUTO(cs_string) path = cs_path_join(folder, name);
    cs_store *store = cs_alloc(sizeof *store);
    must_be_ok(cs_db_open(path, migrations, 1, &store->db));
    return store;
}

static void close_store(cs_store **store)
{
    cs_db_free((*store)->db);
    cs_free(*store);
}
#define STORE(name) __attribute__((cleanup(close_store))) cs_store *store = open_store(*state, name)

static cs_site_record enrolled(const char *name, uint8_t key)
{
    cs_site_record record = {.state = CS_SITE_ENROLLED, .certificate_not_after_ms = 5, .enrolled_ms = 6};
    memcpy(record.name, name, strlen(name) + 1);
    memset(record.leaf_key.bytes, key, CS_HASH_BYTES);
    memset(record.previous_leaf_key.bytes, key + 1, CS_HASH_BYTES);
    memset(record.signing_key, key + 2, CS_SIGN_PUBLIC_BYTES);
    return record;
}

static cs_identity caller(const char *name, uint8_t key)
{
    cs_identity identity = {.role = CS_ROLE_SITE};
    memcpy(identity.name, name, strlen(name) + 1);
    memset(identity.public_key.bytes, key, CS_HASH_BYTES);
    return identity;
}

static void a_site_reads_back_as_it_was_put(void **state)
{
    STORE("sites.db");
    cs_site_record mercy = enrolled("mercy", 10), back;

    must_be_ok(cs_registry_put(store, &mercy));
    must_be_ok(cs_registry_seen(store, "mercy", 77));

    must_be_ok(cs_registry_find(store, "mercy", &back));
    mercy.last_seen_ms = 77;
    assert_memory_equal(&mercy, &back, sizeof mercy);
    must_fail(cs_registry_find(store, "charity", &back), CS_NOT_FOUND, "charity");
}

static void sites_are_listed_by_name_and_changed_in_place(void **state)
{
    STORE("list.db");
    static const char *const names[] = {"c", "a", "b", "a"};
    for (size_t i = 0; i < CS_COUNT(names); i++) {
        cs_site_record record = enrolled(names[i], (uint8_t)i);
        must_be_ok(cs_registry_put(store, &record));
    }
    cs_site_record *records = NULL;
    size_t count = 0;

    must_be_ok(cs_registry_list(store, &records, &count));

    assert_int_equal(count, 3);
    assert_string_equal(records[0].name, "a");
    assert_int_equal(records[0].leaf_key.bytes[0], 3);
    assert_string_equal(records[2].name, "c");
    cs_free(records);
}

static void a_token_is_found_by_its_hash_and_withdrawn_only_while_unused(void **state)
{
    STORE("tokens.db");
    cs_site_record mercy = enrolled("mercy", 10);
    must_be_ok(cs_registry_put(store, &mercy));
    cs_token_record used = {.token = cs_sha256(cs_bytes_of_text("a")), .site = "mercy", .expires_ms = 9};
    cs_token_record unused = {.token = cs_sha256(cs_bytes_of_text("b")), .site = "mercy", .is_rejoin = true};
    must_be_ok(cs_token_put(store, &used));
    must_be_ok(cs_token_put(store, &unused));
    used.is_used = true;
    cs_buffer_append_text(&used.certificate_pem, "PEM");
    must_be_ok(cs_token_put(store, &used));

    must_be_ok(cs_token_withdraw(store, "mercy"));

    CS_AUTO(cs_token_record) back = {0};
    must_fail(cs_token_find(store, &unused.token, &back), CS_NOT_FOUND, "token");
    must_be_ok(cs_token_find(store, &used.token, &back));
    assert_true(back.is_used);
    assert_int_equal(back.expires_ms, 9);
    assert_string_equal(cs_buffer_text(&back.certificate_pem), "PEM");
    cs_token_record_clear(&used);
}

static void only_enrolled_sites_with_their_newest_two_keys_are_admitted(void **state)
{
    STORE("admit.db");
    cs_site_record mercy = enrolled("mercy", 10), revoked = enrolled("revoked", 20), invited = enrolled("invited", 30);
    revoked.state = CS_SITE_REVOKED;
    memcpy(revoked.reason, "key stolen", 11);
    invited.state = CS_SITE_INVITED;
    must_be_ok(cs_registry_put(store, &mercy));
    must_be_ok(cs_registry_put(store, &revoked));
    must_be_ok(cs_registry_put(store, &invited));

    must_be_ok(cs_registry_publish(store));

    cs_identity current = caller("mercy", 10), previous = caller("mercy", 11), older = caller("mercy", 12);
    cs_identity stolen = caller("revoked", 20), early = caller("invited", 30), stranger = caller("nobody", 10);
    cs_identity coordinator = {.role = CS_ROLE_COORDINATOR};
    must_be_ok(cs_registry_admit(&current));
    must_be_ok(cs_registry_admit(&previous));
    must_fail(cs_registry_admit(&older), CS_UNAUTHENTICATED, "mercy", "replaced");
    must_fail(cs_registry_admit(&stolen), CS_DENIED, "revoked: key stolen");
    must_fail(cs_registry_admit(&early), CS_DENIED, "not enrolled");
    must_fail(cs_registry_admit(&stranger), CS_UNAUTHENTICATED, "nobody", "not in this consortium");
    must_fail(cs_registry_admit(&coordinator), CS_DENIED, "coordinator");
}

static void a_change_counts_from_its_publication_on(void **state)
{
    STORE("publish.db");
    cs_site_record mercy = enrolled("mercy", 10);
    must_be_ok(cs_registry_put(store, &mercy));
    must_be_ok(cs_registry_publish(store));
    cs_identity identity = caller("mercy", 10);
    mercy.state = CS_SITE_REVOKED;

    must_be_ok(cs_registry_put(store, &mercy));
    must_be_ok(cs_registry_admit(&identity));
    must_be_ok(cs_registry_publish(store));
    must_fail(cs_registry_admit(&identity), CS_DENIED, "is revoked");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_reads_back_as_it_was_put),
        cmocka_unit_test(sites_are_listed_by_name_and_changed_in_place),
        cmocka_unit_test(a_token_is_found_by_its_hash_and_withdrawn_only_while_unused),
        cmocka_unit_test(only_enrolled_sites_with_their_newest_two_keys_are_admitted),
        cmocka_unit_test(a_change_counts_from_its_publication_on),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
