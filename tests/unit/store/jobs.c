/* Jobs in the database: what is written is read back, names and keys are unique, and retention keeps hashes. */
#include "server/store/jobs.h"

#include "tests/unit/place.h"

static cs_store *open_store(place *here)
{
    cs_store *store = NULL;
    assert_ok(cs_store_open(here->path, &store));
    return store;
}

static cs_job_row new_job(cs_store *store, const char *name)
{
    cs_job_row row = {.state = 2, .round = 3, .phase = 1, .remaining_ms = 1500, .created_ms = 7};
    snprintf(row.name, sizeof(row.name), "%s", name);
    row.plan_hash = cs_sha256(cs_bytes_of_text("plan"));
    assert_ok(cs_jobs_insert(store, &row, cs_bytes_of_text("plan")));
    return row;
}

static void a_job_is_read_back_as_it_was_written(void **state)
{
    CS_AUTO_PTR(cs_store) store = open_store(*state);
    cs_job_row row = new_job(store, "heart");
    row.state = 4;
    row.remaining_ms = CS_JOB_NO_DEADLINE;
    snprintf(row.reason, sizeof(row.reason), "disk");
    assert_ok(cs_jobs_update(store, &row));
    cs_store_free(CS_TAKE(store));

    store = open_store(*state);
    cs_job_row found;
    CS_AUTO(cs_buffer) plan = CS_BUFFER_EMPTY;
    assert_ok(cs_jobs_find(store, "heart", &found));
    assert_ok(cs_jobs_plan(store, found.id, &plan));

    assert_string_equal(found.name, "heart");
    assert_string_equal(found.reason, "disk");
    assert_int_equal(found.state, 4);
    assert_int_equal(found.round, 3);
    assert_int_equal(found.remaining_ms, CS_JOB_NO_DEADLINE);
    assert_true(cs_hash_equal(&found.plan_hash, &row.plan_hash));
    assert_string_equal(cs_buffer_text(&plan), "plan");
}

static void a_name_is_given_once_and_an_unknown_one_names_those_there_are(void **state)
{
    CS_AUTO_PTR(cs_store) store = open_store(*state);
    cs_job_row row = new_job(store, "heart"), found;

    assert_status(cs_jobs_insert(store, &row, cs_bytes_of_text("plan")), CS_EXISTS);
    assert_status(cs_jobs_find(store, "lung", &found), CS_NOT_FOUND);
    assert_error_says("there is no job 'lung'; there are: heart");
}

static void only_open_jobs_are_listed_where_only_they_are_asked_for(void **state)
{
    CS_AUTO_PTR(cs_store) store = open_store(*state);
    cs_job_row first = new_job(store, "one");
    new_job(store, "two");
    first.outcome = 4;
    assert_ok(cs_jobs_update(store, &first));
    cs_job_row *rows = NULL;
    size_t count = 0;

    assert_ok(cs_jobs_list(store, true, &rows, &count));
    assert_int_equal(count, 1);
    assert_string_equal(rows[0].name, "two");
    cs_free(rows);
    assert_ok(cs_jobs_list(store, false, &rows, &count));
    assert_int_equal(count, 2);
    cs_free(rows);
}

static void members_come_by_name_and_ended_jobs_are_found_by_them(void **state)
{
    CS_AUTO_PTR(cs_store) store = open_store(*state);
    cs_job_row job = new_job(store, "heart");
    cs_member_row member = {.site = "north", .decision = 1, .rounds_missed = 2};
    assert_ok(cs_jobs_member_put(store, job.id, &member));
    snprintf(member.site, sizeof(member.site), "mercy");
    assert_ok(cs_jobs_member_put(store, job.id, &member));
    member.rounds_missed = 5;
    assert_ok(cs_jobs_member_put(store, job.id, &member));
    cs_member_row *members = NULL;
    cs_job_row *ended = NULL;
    size_t count = 0;

    assert_ok(cs_jobs_members(store, job.id, &members, &count));
    assert_int_equal(count, 2);
    assert_string_equal(members[0].site, "mercy");
    assert_int_equal(members[0].rounds_missed, 5);
    assert_int_equal(members[1].rounds_missed, 2);
    assert_ok(cs_jobs_ended_with(store, "mercy", 10, &ended, &count));
    assert_int_equal(count, 0);
    cs_free(ended);
    job.outcome = 6;
    assert_ok(cs_jobs_update(store, &job));
    assert_ok(cs_jobs_ended_with(store, "mercy", 10, &ended, &count));
    assert_int_equal(count, 1);
    cs_free(ended);
    cs_free(members);
}

static void a_task_keeps_its_result_and_its_hash(void **state)
{
    CS_AUTO_PTR(cs_store) store = open_store(*state);
    const cs_job_row job = new_job(store, "heart");
    cs_task_row task = {.round = 1, .phase = "train", .site = "mercy", .state = CS_TASK_OPEN};
    assert_ok(cs_jobs_task_put(store, job.id, &task));
    CS_AUTO(cs_task_row) found = {0};
    assert_ok(cs_jobs_task_find(store, job.id, 1, "train", "mercy", &found));
    assert_false(found.has_result);

    task.state = CS_TASK_ACCEPTED;
    task.has_result = true;
    task.result_hash = cs_sha256(cs_bytes_of_text("result"));
    cs_buffer_append_text(&task.result, "result");
    assert_ok(cs_jobs_task_put(store, job.id, &task));
    cs_task_row *rows = NULL;
    size_t count = 0;
    assert_ok(cs_jobs_tasks(store, job.id, 1, "train", &rows, &count));

    assert_int_equal(count, 1);
    assert_int_equal(rows[0].state, CS_TASK_ACCEPTED);
    assert_true(cs_hash_equal(&rows[0].result_hash, &task.result_hash));
    assert_string_equal(cs_buffer_text(&rows[0].result), "result");
    cs_task_rows_free(rows, count);
    assert_ok(cs_jobs_tasks(store, job.id, 1, "evaluate", &rows, &count));
    assert_int_equal(count, 0);
    cs_task_rows_free(rows, count);
    assert_status(cs_jobs_task_find(store, job.id, 2, "train", "mercy", &found), CS_NOT_FOUND);
    cs_task_row_clear(&task);
}

static void retention_lets_go_of_bytes_and_keeps_hashes(void **state)
{
    CS_AUTO_PTR(cs_store) store = open_store(*state);
    const cs_job_row job = new_job(store, "heart");
    cs_blob_row update = {.phase = "train", .site = "mercy", .name = "update", .size = 9, .is_kept = true};
    cs_blob_row model = {.name = "model", .size = 10, .is_kept = true};
    for (uint32_t round = 1; round <= 3; round++) {
        update.round = model.round = round;
        update.hash = cs_sha256(cs_bytes_of(&round, sizeof(round)));
        model.hash = cs_sha256(cs_bytes_of_text("the same model in every round"));
        assert_ok(cs_jobs_blob_put(store, job.id, &update));
        assert_ok(cs_jobs_blob_put(store, job.id, &model));
    }
    cs_hash *kept = NULL;
    size_t count = 0;
    assert_ok(cs_jobs_kept(store, &kept, &count));
    assert_int_equal(count, 4);
    cs_free(kept);

    assert_ok(cs_jobs_drop_updates(store, job.id, 3));
    assert_ok(cs_jobs_drop_blob(store, job.id, 1, "model"));

    assert_ok(cs_jobs_kept(store, &kept, &count));
    assert_int_equal(count, 2);
    assert_true(memcmp(kept[0].bytes, kept[1].bytes, CS_HASH_BYTES) < 0);
    cs_free(kept);
    cs_blob_row found;
    assert_ok(cs_jobs_blob_find(store, job.id, 1, "train", "mercy", "update", &found));
    assert_false(found.is_kept);
    assert_int_equal(found.size, 9);
    cs_blob_row *models = NULL;
    assert_ok(cs_jobs_blobs(store, job.id, "model", &models, &count));
    assert_int_equal(count, 3);
    assert_false(models[0].is_kept);
    assert_true(models[2].is_kept);
    cs_free(models);
}

static void the_best_round_has_the_smallest_score_and_the_earliest_of_equals(void **state)
{
    CS_AUTO_PTR(cs_store) store = open_store(*state);
    const cs_job_row job = new_job(store, "heart");
    uint32_t best = 0;
    for (uint32_t round = 0; round < 4; round++) {
        CS_AUTO(cs_round_row) row = {.round = round, .opened_ms = 1};
        cs_buffer_append_text(&row.participants, "mercy north ");
        assert_ok(cs_jobs_round_put(store, job.id, &row));
    }
    assert_status(cs_jobs_best_round(store, job.id, &best), CS_NOT_FOUND);

    assert_ok(cs_jobs_set_score(store, job.id, 1, 0.5));
    assert_ok(cs_jobs_set_score(store, job.id, 2, 0.4));
    assert_ok(cs_jobs_set_score(store, job.id, 3, 0.4));
    CS_AUTO(cs_round_row) again = {.round = 2, .opened_ms = 1, .closed_ms = 2};
    assert_ok(cs_jobs_round_put(store, job.id, &again));

    assert_ok(cs_jobs_best_round(store, job.id, &best));
    assert_int_equal(best, 2);
}

static void the_outbox_gives_records_in_order_and_never_a_number_twice(void **state)
{
    CS_AUTO_PTR(cs_store) store = open_store(*state);
    cs_outbox_row *rows = NULL;
    size_t count = 0;
    assert_ok(cs_outbox_put(store, "round_opened", "heart/1/opened", cs_bytes_of_text("{}")));
    assert_ok(cs_outbox_put(store, "job_ended", "heart/ended", cs_bytes_of_text("{\"a\":1}")));
    assert_ok(cs_outbox_after(store, 0, &rows, &count));
    assert_int_equal(count, 2);
    assert_string_equal(cs_buffer_text(&rows[1].key), "heart/ended");
    assert_string_equal(cs_buffer_text(&rows[1].fields), "{\"a\":1}");
    const int64_t last = rows[1].id;
    cs_outbox_rows_free(rows, count);

    assert_ok(cs_outbox_remove_until(store, last));
    assert_ok(cs_outbox_put(store, "job_ended", "lung/ended", cs_bytes_of_text("{}")));

    assert_ok(cs_outbox_after(store, 0, &rows, &count));
    assert_int_equal(count, 1);
    assert_true(rows[0].id > last);
    cs_outbox_rows_free(rows, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(a_job_is_read_back_as_it_was_written),
        PLACE_TEST(a_name_is_given_once_and_an_unknown_one_names_those_there_are),
        PLACE_TEST(only_open_jobs_are_listed_where_only_they_are_asked_for),
        PLACE_TEST(members_come_by_name_and_ended_jobs_are_found_by_them),
        PLACE_TEST(a_task_keeps_its_result_and_its_hash),
        PLACE_TEST(retention_lets_go_of_bytes_and_keeps_hashes),
        PLACE_TEST(the_best_round_has_the_smallest_score_and_the_earliest_of_equals),
        PLACE_TEST(the_outbox_gives_records_in_order_and_never_a_number_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
