/* The blob store: what is kept, what is thrown away and when. */
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/blobs/blobs.h"
#include "tests/unit/place.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

static cs_bytes text(const char *content)
{
    return cs_bytes_of_text(content);
}

static bool needs_nothing(void *self, const cs_hash *hash)
{
    (void)self;
    (void)hash;
    return false;
}

static bool needs_one(void *self, const cs_hash *hash)
{
    return cs_hash_equal(self, hash);
}

static void collect(cs_blobs *blobs, const cs_hash *needed, uint64_t expected_removed)
{
    uint64_t removed = 99;
    cs_hash copy = needed ? *needed : (cs_hash){{0}};
    assert_ok(cs_blobs_collect(blobs, needed ? needs_one : needs_nothing, &copy, 1000, &removed));
    assert_int_equal(removed, expected_removed);
}

static void a_blob_lies_under_its_hash_and_is_read_back(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    cs_hash hash;

    assert_ok(cs_blobs_put(blobs, text("abc"), &hash));

    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(&hash, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CS_AUTO(cs_string) path = cs_blobs_path(blobs, &hash);
    CS_AUTO(cs_string) expected = cs_format("%s/ba/%s", here->path, hex);
    assert_string_equal(path, expected);
    CS_AUTO(cs_fd) fd = -1;
    uint64_t size = 0;
    char content[4] = "";
    assert_ok(cs_blobs_open_read(blobs, &hash, &fd, &size));
    assert_int_equal(size, 3);
    assert_ok(cs_file_read_exact(fd, content, 3));
    assert_string_equal(content, "abc");
    assert_true(cs_blobs_has(blobs, &hash, NULL));
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void a_blob_that_is_not_there_is_named(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    cs_hash hash = cs_sha256(text("absent"));
    CS_AUTO(cs_fd) fd = -1;
    uint64_t size = 0;

    assert_status(cs_blobs_open_read(blobs, &hash, &fd, &size), CS_NOT_FOUND);

    char name[CS_HASH_TEXT_BYTES];
    cs_hash_text(&hash, name);
    assert_error_says(name);
    assert_false(cs_blobs_has(blobs, &hash, &size));
}

static void the_same_bytes_twice_are_one_blob(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    cs_hash first;
    cs_hash second;

    assert_ok(cs_blobs_put(blobs, text("abc"), &first));
    assert_ok(cs_blobs_put(blobs, text("abc"), &second));

    assert_true(cs_hash_equal(&first, &second));
}

static void an_adopted_file_is_gone_from_where_it_was(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    CS_AUTO(cs_string) source = cs_path_join(here->folder, "model");
    assert_ok(cs_blobs_open(here->path, &blobs));
    for (int attempt = 0; attempt < 2; attempt++) {
        cs_hash hash;
        uint64_t size = 0;
        assert_ok(cs_file_write_atomic(source, text("weights"), 0600));

        assert_ok(cs_blobs_adopt(blobs, source, &hash, &size));

        assert_int_equal(size, 7);
        assert_false(cs_file_exists(source));
        assert_true(cs_blobs_has(blobs, &hash, &size));
    }
}

static void a_file_on_another_file_system_is_adopted_by_copy(void **state)
{
    const place *here = *state;
    char source[] = "/dev/shm/consilium-test-XXXXXX";
    CS_AUTO(cs_fd) fd = mkstemp(source);
    struct stat there;
    struct stat ours;
    if (fd < 0 || fstat(fd, &there) != 0 || stat(here->folder, &ours) != 0 || there.st_dev == ours.st_dev) {
        CS_IGNORE(cs_file_remove(source), "the test is not run");
        skip();
    }
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    assert_ok(cs_file_write(fd, "weights", 7));
    cs_hash hash;
    uint64_t size = 0;

    assert_ok(cs_blobs_adopt(blobs, source, &hash, &size));

    assert_false(cs_file_exists(source));
    assert_true(cs_blobs_has(blobs, &hash, &size));
    assert_int_equal(size, 7);
}

static void what_is_needed_stays_and_what_was_needed_once_goes_at_once(void **state)
{
    const place *here = *state;
    cs_clock_fake(1000, 1000);
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    cs_hash old;
    cs_hash new;
    assert_ok(cs_blobs_put(blobs, text("round 1"), &old));
    collect(blobs, &old, 0);
    assert_ok(cs_blobs_put(blobs, text("round 2"), &new));

    collect(blobs, &new, 1);

    assert_false(cs_blobs_has(blobs, &old, NULL));
    assert_true(cs_blobs_has(blobs, &new, NULL));
    cs_clock_fake_advance(10 * CS_BLOB_GRACE_MS);
    collect(blobs, &new, 0);
    assert_true(cs_blobs_has(blobs, &new, NULL));
    cs_clock_real();
}

static void what_has_just_arrived_is_spared_until_its_grace_is_over(void **state)
{
    const place *here = *state;
    cs_clock_fake(1000, 1000);
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    cs_hash hash;
    assert_ok(cs_blobs_put(blobs, text("update"), &hash));

    cs_clock_fake_advance(CS_BLOB_GRACE_MS - 1);
    collect(blobs, NULL, 0);
    assert_true(cs_blobs_has(blobs, &hash, NULL));

    cs_clock_fake_advance(1);
    collect(blobs, NULL, 1);
    assert_false(cs_blobs_has(blobs, &hash, NULL));
    cs_clock_real();
}

static void what_arrives_again_is_spared_again(void **state)
{
    const place *here = *state;
    cs_clock_fake(1000, 1000);
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    cs_hash hash;
    assert_ok(cs_blobs_put(blobs, text("update"), &hash));
    collect(blobs, &hash, 0);
    assert_ok(cs_blobs_put(blobs, text("update"), &hash));

    collect(blobs, NULL, 0);

    assert_true(cs_blobs_has(blobs, &hash, NULL));
    cs_clock_real();
}

static void after_a_restart_everything_has_its_grace_again(void **state)
{
    const place *here = *state;
    cs_clock_fake(1000, 1000);
    cs_blobs *before = NULL;
    cs_hash hash;
    assert_ok(cs_blobs_open(here->path, &before));
    assert_ok(cs_blobs_put(before, text("update whose result was not reported"), &hash));
    cs_blobs_free(before);
    cs_clock_fake_advance(2 * CS_BLOB_GRACE_MS);
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));

    collect(blobs, NULL, 0);
    assert_true(cs_blobs_has(blobs, &hash, NULL));
    cs_clock_fake_advance(CS_BLOB_GRACE_MS);
    collect(blobs, NULL, 1);
    cs_clock_real();
}

static void files_of_others_in_the_folder_are_left_alone(void **state)
{
    const place *here = *state;
    cs_clock_fake(1000, 1000);
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    CS_AUTO(cs_string) folder = cs_path_join(here->path, "ab");
    CS_AUTO(cs_string) note = cs_path_join(folder, "README");
    CS_AUTO(cs_string) misplaced =
        cs_format("%s/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", folder);
    assert_ok(cs_folder_make(folder, 0700));
    assert_ok(cs_file_write_atomic(note, text("?"), 0600));
    assert_ok(cs_file_write_atomic(misplaced, text("abc"), 0600));
    cs_clock_fake_advance(2 * CS_BLOB_GRACE_MS);

    collect(blobs, NULL, 0);

    assert_true(cs_file_exists(note));
    assert_true(cs_file_exists(misplaced));
    cs_clock_real();
}

static void opening_sweeps_what_a_crash_left_and_nobody_can_use(void **state)
{
    const place *here = *state;
    static const char *const names[] = {"0123456789abcdef.tmp", "mercy-00.offset", "mercy-01"};
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    CS_AUTO(cs_string) partial = cs_path_join(here->path, "partial");
    assert_ok(cs_folder_make(partial, 0700));
    for (size_t i = 0; i < CS_COUNT(names); i++) {
        CS_AUTO(cs_string) path = cs_path_join(partial, names[i]);
        assert_ok(cs_file_write_atomic(path, text("rest"), 0600));
    }

    assert_ok(cs_blobs_open(here->path, &blobs));

    for (size_t i = 0; i < CS_COUNT(names); i++) {
        CS_AUTO(cs_string) path = cs_path_join(partial, names[i]);
        assert_false(cs_file_exists(path));
    }
}

static void a_removed_blob_is_gone_and_removing_it_twice_is_fine(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    cs_hash hash;
    assert_ok(cs_blobs_put(blobs, text("abc"), &hash));

    assert_ok(cs_blobs_remove(blobs, &hash));
    assert_ok(cs_blobs_remove(blobs, &hash));

    assert_false(cs_blobs_has(blobs, &hash, NULL));
}

struct race {
    cs_blobs *blobs;
    atomic_bool is_over;
    uint32_t first;
};

#define RACE_BLOBS 60

static void *put_many(void *argument)
{
    struct race *race = argument;
    for (uint32_t i = race->first; i < race->first + RACE_BLOBS; i++) {
        cs_hash hash;
        cs_hash expected = cs_sha256(cs_bytes_of(&i, sizeof i));
        if (cs_blobs_put(race->blobs, cs_bytes_of(&i, sizeof i), &hash) != CS_OK || !cs_hash_equal(&hash, &expected) ||
            !cs_blobs_has(race->blobs, &hash, NULL))
            return race;
    }
    return NULL;
}

static void *collect_until_over(void *argument)
{
    struct race *race = argument;
    do {
        if (cs_blobs_collect(race->blobs, needs_nothing, NULL, 0, NULL) != CS_OK)
            return race;
    } while (!atomic_load(&race->is_over));
    return NULL;
}

static void a_collection_never_takes_what_other_threads_are_just_putting_in(void **state)
{
    const place *here = *state;
    CS_AUTO_PTR(cs_blobs) blobs = NULL;
    assert_ok(cs_blobs_open(here->path, &blobs));
    struct race races[3] = {{.blobs = blobs, .first = 0}, {.blobs = blobs, .first = RACE_BLOBS / 2}, {.blobs = blobs}};
    pthread_t threads[3];
    void *failures[3];

    assert_int_equal(pthread_create(&threads[0], NULL, put_many, &races[0]), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, put_many, &races[1]), 0);
    assert_int_equal(pthread_create(&threads[2], NULL, collect_until_over, &races[2]), 0);
    pthread_join(threads[0], &failures[0]);
    pthread_join(threads[1], &failures[1]);
    atomic_store(&races[2].is_over, true);
    pthread_join(threads[2], &failures[2]);

    for (size_t i = 0; i < 3; i++)
        assert_null(failures[i]);
    for (uint32_t i = 0; i < RACE_BLOBS + RACE_BLOBS / 2; i++) {
        cs_hash hash = cs_sha256(cs_bytes_of(&i, sizeof i));
        assert_true(cs_blobs_has(blobs, &hash, NULL));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(a_blob_lies_under_its_hash_and_is_read_back),
        PLACE_TEST(a_blob_that_is_not_there_is_named),
        PLACE_TEST(the_same_bytes_twice_are_one_blob),
        PLACE_TEST(an_adopted_file_is_gone_from_where_it_was),
        PLACE_TEST(a_file_on_another_file_system_is_adopted_by_copy),
        PLACE_TEST(what_is_needed_stays_and_what_was_needed_once_goes_at_once),
        PLACE_TEST(what_has_just_arrived_is_spared_until_its_grace_is_over),
        PLACE_TEST(what_arrives_again_is_spared_again),
        PLACE_TEST(after_a_restart_everything_has_its_grace_again),
        PLACE_TEST(files_of_others_in_the_folder_are_left_alone),
        PLACE_TEST(opening_sweeps_what_a_crash_left_and_nobody_can_use),
        PLACE_TEST(a_removed_blob_is_gone_and_removing_it_twice_is_fine),
        PLACE_TEST(a_collection_never_takes_what_other_threads_are_just_putting_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
