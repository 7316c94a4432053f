/* The SQLite layer: what it keeps, what it refuses, and what it says about damaged, newer and full files. */
#include "common/base/failpoint.h"
#include "common/db/db.h"
#include "tests/unit/place.h"

#include <fcntl.h>
#include <sys/stat.h>

static const char *const migrations[] = {
    "CREATE TABLE site (name TEXT PRIMARY KEY, state TEXT, joined INTEGER, weight REAL, proof BLOB) STRICT;"
    "CREATE TABLE note (id INTEGER PRIMARY KEY, site TEXT NOT NULL REFERENCES site (name), text TEXT) STRICT;",
    "ALTER TABLE site ADD COLUMN late INTEGER NOT NULL DEFAULT 0;",
};

static cs_db *open_at(const char *path)
{
    cs_db *db = NULL;
    assert_ok(cs_db_open(path, migrations, CS_COUNT(migrations), &db));
    return db;
}

static int64_t count_of(cs_db *db, const char *sql)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    assert_ok(cs_db_query(db, sql, "", &rows));
    assert_true(cs_rows_next(rows));
    int64_t count = cs_rows_int(rows, 0);
    assert_ok(cs_rows_status(rows));
    return count;
}

static void every_type_comes_back_as_it_went_in(void **state)
{
    const place *place = *state;
    CS_AUTO_PTR(cs_db) db = open_at(place->path);
    const char *insert = "INSERT INTO site (name, state, joined, weight, proof) VALUES (?1, ?2, ?3, ?4, ?5)";

    assert_ok(cs_db_run(db, insert, "ttidb", "mercy", NULL, INT64_MIN, 0.1, cs_bytes_of("\0\1\2", 3)));
    assert_int_equal(cs_db_changes(db), 1);
    assert_ok(cs_db_run(db, insert, "ttidb", "nord", "", INT64_MAX, -1e300, (cs_bytes){NULL, 0}));

    CS_AUTO_PTR(cs_rows) rows = NULL;
    assert_status(cs_db_query(db, "SELECT name, state, joined, weight, proof FROM site ORDER BY name", "", &rows),
                  CS_OK);
    assert_true(cs_rows_next(rows));
    assert_string_equal(cs_rows_text(rows, 0), "mercy");
    assert_true(cs_rows_is_null(rows, 1));
    assert_string_equal(cs_rows_text(rows, 1), "");
    assert_true(cs_rows_int(rows, 2) == INT64_MIN);
    assert_true(cs_rows_real(rows, 3) == 0.1);
    assert_true(cs_bytes_equal(cs_rows_bytes(rows, 4), cs_bytes_of("\0\1\2", 3)));
    assert_true(cs_rows_next(rows));
    assert_false(cs_rows_is_null(rows, 1));
    assert_true(cs_rows_int(rows, 2) == INT64_MAX);
    assert_true(cs_rows_real(rows, 3) == -1e300);
    assert_false(cs_rows_is_null(rows, 4));
    assert_int_equal(cs_rows_bytes(rows, 4).size, 0);
    assert_false(cs_rows_next(rows));
    assert_false(cs_rows_next(rows));
    assert_ok(cs_rows_status(rows));
}

static void text_of_a_query_is_data_and_never_sql(void **state)
{
    const place *place = *state;
    CS_AUTO_PTR(cs_db) db = open_at(place->path);

    assert_int_equal(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "x'); DROP TABLE site; --"), CS_OK);

    assert_int_equal(count_of(db, "SELECT count(*) FROM site"), 1);
}

static void the_file_is_private_and_in_wal_mode_with_full_sync(void **state)
{
    const place *place = *state;
    CS_AUTO_PTR(cs_db) db = open_at(place->path);
    CS_AUTO(cs_string) wal = cs_format("%s-wal", place->path);

    struct stat status;
    assert_int_equal(stat(place->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(stat(wal, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(count_of(db, "PRAGMA synchronous"), 2);
    assert_int_equal(count_of(db, "PRAGMA foreign_keys"), 1);
}

static void what_was_committed_is_there_after_reopening_and_the_rest_is_not(void **state)
{
    const place *place = *state;
    cs_db *db = open_at(place->path);
    assert_ok(cs_db_begin(db));
    assert_ok(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "kept"));
    assert_ok(cs_db_commit(db));
    assert_ok(cs_db_begin(db));
    assert_ok(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "rolled back"));
    cs_db_rollback(db);
    assert_ok(cs_db_begin(db));
    assert_ok(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "never committed"));
    cs_db_free(db);

    CS_AUTO_PTR(cs_db) again = open_at(place->path);

    assert_int_equal(count_of(again, "SELECT count(*) FROM site"), 1);
    assert_ok(cs_db_check(again));
}

static void a_commit_that_fails_can_be_rolled_back_and_done_again(void **state)
{
    const place *place = *state;
    CS_AUTO_PTR(cs_db) db = open_at(place->path);
    if (cs_failpoint_configure("db.commit=error@1") != CS_OK)
        skip();

    assert_ok(cs_db_begin(db));
    assert_ok(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "mercy"));
    assert_status(cs_db_commit(db), CS_INTERNAL);
    cs_db_rollback(db);
    assert_int_equal(count_of(db, "SELECT count(*) FROM site"), 0);

    assert_ok(cs_db_begin(db));
    assert_ok(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "mercy"));
    assert_ok(cs_db_commit(db));
    assert_int_equal(count_of(db, "SELECT count(*) FROM site"), 1);
    assert_ok(cs_failpoint_configure(NULL));
}

static void broken_rules_of_the_schema_have_a_status_and_name_the_file(void **state)
{
    const place *place = *state;
    CS_AUTO_PTR(cs_db) db = open_at(place->path);
    assert_ok(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "mercy"));

    assert_status(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "mercy"), CS_EXISTS);
    assert_error_says(place->path);
    assert_error_says("UNIQUE");
    assert_status(cs_db_run(db, "INSERT INTO note (site) VALUES (?1)", "t", "unknown"), CS_INVALID);
    assert_error_says("FOREIGN KEY");
    assert_ok(cs_db_run(db, "INSERT INTO note (site) VALUES (?1)", "t", "mercy"));
    assert_int_equal(cs_db_last_id(db), 1);
}

static void a_mistake_in_a_call_is_an_error_not_a_wrong_answer(void **state)
{
    const place *place = *state;
    CS_AUTO_PTR(cs_db) db = open_at(place->path);

    assert_status(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", ""), CS_INTERNAL);
    assert_status(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "x", "a"), CS_INTERNAL);
    assert_int_equal(cs_db_run(db, "DELETE FROM site; DELETE FROM note", ""), CS_INTERNAL);
    assert_status(cs_db_run(db, "SELECT 1", ""), CS_INTERNAL);
    assert_status(cs_db_run(db, "SELEKT 1", ""), CS_INTERNAL);

    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_AUTO_PTR(cs_rows) second = NULL;
    assert_ok(cs_db_query(db, "SELECT name FROM site", "", &rows));
    assert_status(cs_db_query(db, "SELECT name FROM site", "", &second), CS_INTERNAL);
    assert_error_says("still open");
}

static void a_file_newer_than_the_build_is_refused_and_left_alone(void **state)
{
    const place *place = *state;
    cs_db_free(open_at(place->path));
    cs_db *db = NULL;

    assert_status(cs_db_open(place->path, migrations, 1, &db), CS_STATE);

    assert_error_says("version 2");
    assert_error_says(place->path);
    cs_db_free(open_at(place->path));
}

static void an_older_file_is_brought_up_to_date_with_its_rows(void **state)
{
    const place *place = *state;
    cs_db *old = NULL;
    assert_ok(cs_db_open(place->path, migrations, 1, &old));
    assert_ok(cs_db_run(old, "INSERT INTO site (name) VALUES (?1)", "t", "mercy"));
    cs_db_free(old);

    CS_AUTO_PTR(cs_db) db = open_at(place->path);

    assert_int_equal(count_of(db, "SELECT count(*) FROM site WHERE late = 0"), 1);
    assert_int_equal(count_of(db, "PRAGMA user_version"), 2);
}

static void a_migration_that_fails_leaves_the_file_at_the_version_before(void **state)
{
    const place *place = *state;
    const char *const broken[] = {migrations[0], "CREATE TABLE half (a INTEGER); SELEKT;"};
    cs_db *db = NULL;

    assert_status(cs_db_open(place->path, broken, 2, &db), CS_INTERNAL);
    assert_error_says("migration 2");

    CS_AUTO_PTR(cs_db) good = open_at(place->path);
    assert_int_equal(count_of(good, "SELECT count(*) FROM sqlite_master WHERE name = 'half'"), 0);
}

static void a_file_that_is_no_database_is_data_loss(void **state)
{
    const place *place = *state;
    char junk[4096];
    memset(junk, 'x', sizeof junk);
    assert_ok(cs_file_write_atomic(place->path, cs_bytes_of(junk, sizeof junk), 0600));
    cs_db *db = NULL;

    assert_int_equal(cs_db_open(place->path, migrations, 2, &db), CS_DATA_LOSS);

    assert_error_says(place->path);
    assert_null(db);
}

static void a_damaged_page_is_found_when_the_file_is_opened(void **state)
{
    const place *place = *state;
    cs_db *db = open_at(place->path);
    assert_ok(cs_db_begin(db));
    for (int64_t i = 0; i < 2000; i++)
        assert_ok(cs_db_run(db, "INSERT INTO site (name, joined) VALUES ('site ' || ?1, ?1)", "i", i));
    assert_ok(cs_db_commit(db));
    cs_db_free(db);
    CS_AUTO(cs_fd) fd = -1;
    uint8_t junk[4096];
    memset(junk, 0xa5, sizeof junk);
    assert_ok(cs_file_open(place->path, O_RDWR, 0, &fd));
    for (uint64_t page = 4; page < 8; page++)
        assert_ok(cs_file_pwrite(fd, junk, sizeof junk, page * sizeof junk));

    db = NULL;
    assert_int_equal(cs_db_open(place->path, migrations, 2, &db), CS_DATA_LOSS);

    assert_error_says(place->path);
}

static void a_full_disk_is_exhausted_and_the_next_transaction_works(void **state)
{
    const place *place = *state;
    CS_AUTO_PTR(cs_db) db = open_at(place->path);
    assert_true(count_of(db, "PRAGMA max_page_count = 12") > 0);
    CS_AUTO(cs_string) text = cs_alloc(4096);
    memset(text, 'x', 4095);

    assert_ok(cs_db_begin(db));
    cs_status status = CS_OK;
    for (int64_t i = 0; i < 100 && status == CS_OK; i++)
        status = cs_db_run(db, "INSERT INTO site (name, state) VALUES ('site ' || ?1, ?2)", "it", i, text);
    assert_status(status, CS_EXHAUSTED);
    cs_db_rollback(db);

    assert_true(count_of(db, "PRAGMA max_page_count = 1000") > 0);
    assert_ok(cs_db_begin(db));
    assert_ok(cs_db_run(db, "INSERT INTO site (name) VALUES (?1)", "t", "mercy"));
    assert_ok(cs_db_commit(db));
    assert_int_equal(count_of(db, "SELECT count(*) FROM site"), 1);
    assert_ok(cs_db_check(db));
}

static void an_error_in_the_middle_of_rows_is_told(void **state)
{
    const place *place = *state;
    CS_AUTO_PTR(cs_db) db = open_at(place->path);
    CS_AUTO_PTR(cs_rows) rows = NULL;

    /* The second row overflows. */
    assert_status(cs_db_query(db, "SELECT abs(x) FROM (SELECT 1 AS x UNION ALL SELECT ?1)", "i", &rows, INT64_MIN),
                  CS_OK);
    assert_true(cs_rows_next(rows));
    assert_false(cs_rows_next(rows));

    assert_status(cs_rows_status(rows), CS_INTERNAL);
    assert_error_says("overflow");
}

static void a_folder_that_is_not_there_is_named(void **state)
{
    const place *place = *state;
    CS_AUTO(cs_string) path = cs_path_join(place->folder, "absent/test.db");
    cs_db *db = NULL;

    assert_int_equal(cs_db_open(path, migrations, 2, &db), CS_NOT_FOUND);

    assert_error_says(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(every_type_comes_back_as_it_went_in),
        PLACE_TEST(text_of_a_query_is_data_and_never_sql),
        PLACE_TEST(the_file_is_private_and_in_wal_mode_with_full_sync),
        PLACE_TEST(what_was_committed_is_there_after_reopening_and_the_rest_is_not),
        PLACE_TEST(a_commit_that_fails_can_be_rolled_back_and_done_again),
        PLACE_TEST(broken_rules_of_the_schema_have_a_status_and_name_the_file),
        PLACE_TEST(a_mistake_in_a_call_is_an_error_not_a_wrong_answer),
        PLACE_TEST(a_file_newer_than_the_build_is_refused_and_left_alone),
        PLACE_TEST(an_older_file_is_brought_up_to_date_with_its_rows),
        PLACE_TEST(a_migration_that_fails_leaves_the_file_at_the_version_before),
        PLACE_TEST(a_file_that_is_no_database_is_data_loss),
        PLACE_TEST(a_damaged_page_is_found_when_the_file_is_opened),
        PLACE_TEST(a_full_disk_is_exhausted_and_the_next_transaction_works),
        PLACE_TEST(an_error_in_the_middle_of_rows_is_told),
        PLACE_TEST(a_folder_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
