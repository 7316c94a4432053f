/* Who may fetch and store what, and which blobs are held back from collection. */
#include "server/engine/internal.h"

#include "tests/unit/place.h"

static Consilium__V1__TaskKey key_of(const char *job, uint32_t round, const char *phase)
{
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = (char *)(uintptr_t)job;
    key.round = round;
    key.phase = (char *)(uintptr_t)phase;
    return key;
}

static void publish_one(struct access *access, const char *job, const cs_hash *input)
{
    struct access_entry *entry = cs_alloc(sizeof(*entry));
    *entry = (struct access_entry){
        .site = "mercy", .round = 1, .phase = "train", .inputs = {*input}, .inputs_count = 1, .output_max_bytes = 100};
    snprintf(entry->job, sizeof(entry->job), "%s", job);
    access_publish(access, entry, 1);
}

static void a_site_may_fetch_the_inputs_of_its_own_open_task_only(void **state)
{
    (void)state;
    const cs_hash model = cs_sha256(cs_bytes_of_text("model")), other = cs_sha256(cs_bytes_of_text("other"));
    const Consilium__V1__TaskKey key = key_of("heart", 1, "train"), closed = key_of("heart", 0, "train");
    struct access *access = access_new();
    publish_one(access, "heart", &model);

    assert_int_equal(access_may_fetch(access, "mercy", &key, &model), CS_OK);
    assert_int_equal(access_may_fetch(access, "mercy", &key, &other), CS_DENIED);
    assert_int_equal(access_may_fetch(access, "north", &key, &model), CS_NOT_FOUND);
    assert_int_equal(access_may_fetch(access, "mercy", &closed, &model), CS_NOT_FOUND);
    access_free(access);
}

static void a_blob_above_the_limit_of_its_task_is_refused(void **state)
{
    (void)state;
    const cs_hash blob = cs_sha256(cs_bytes_of_text("update"));
    const Consilium__V1__TaskKey key = key_of("heart", 1, "train");
    struct access *access = access_new();
    publish_one(access, "heart", &blob);

    assert_int_equal(access_may_store(access, "mercy", &key, &blob, 100), CS_OK);
    assert_int_equal(access_may_store(access, "mercy", &key, &blob, 101), CS_DENIED);
    assert_int_equal(access_may_store(access, "mercy", &key, &blob, 0), CS_DENIED);
    assert_int_equal(access_may_store(access, "north", &key, &blob, 1), CS_NOT_FOUND);
    access_free(access);
}

static void a_task_may_store_only_so_many_different_blobs(void **state)
{
    (void)state;
    const Consilium__V1__TaskKey key = key_of("heart", 1, "train");
    struct access *access = access_new();
    const cs_hash first = cs_sha256(cs_bytes_of("\0", 1));
    publish_one(access, "heart", &first);

    for (uint8_t i = 0; i < 4 * CS_OUTPUTS_MAX; i++) {
        const cs_hash blob = cs_sha256(cs_bytes_of(&i, 1));
        assert_int_equal(access_may_store(access, "mercy", &key, &blob, 1), CS_OK);
    }
    const cs_hash one_more = cs_sha256(cs_bytes_of("\xff", 1));
    assert_int_equal(access_may_store(access, "mercy", &key, &one_more, 1), CS_DENIED);
    assert_int_equal(access_may_store(access, "mercy", &key, &first, 1), CS_OK);
    access_free(access);
}

static void a_stored_blob_is_held_until_its_task_is_closed(void **state)
{
    (void)state;
    const cs_hash blob = cs_sha256(cs_bytes_of_text("update"));
    const Consilium__V1__TaskKey key = key_of("heart", 1, "train");
    struct access *access = access_new();
    publish_one(access, "heart", &blob);
    assert_int_equal(access_may_store(access, "mercy", &key, &blob, 1), CS_OK);

    access_prune(access);
    assert_true(access_is_held(access, &blob));
    access_publish(access, NULL, 0);
    assert_true(access_is_held(access, &blob));
    access_prune(access);
    assert_false(access_is_held(access, &blob));
    access_free(access);
}

static void what_a_fold_made_is_held_until_the_database_names_it(void **state)
{
    (void)state;
    const cs_hash model = cs_sha256(cs_bytes_of_text("model"));
    struct access *access = access_new();

    access_hold(access, &model);
    access_prune(access);
    assert_true(access_is_held(access, &model));
    access_settle(access, &model);
    assert_true(access_is_held(access, &model));
    access_prune(access);
    assert_false(access_is_held(access, &model));
    access_free(access);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_may_fetch_the_inputs_of_its_own_open_task_only),
        cmocka_unit_test(a_blob_above_the_limit_of_its_task_is_refused),
        cmocka_unit_test(a_task_may_store_only_so_many_different_blobs),
        cmocka_unit_test(a_stored_blob_is_held_until_its_task_is_closed),
        cmocka_unit_test(what_a_fold_made_is_held_until_the_database_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
