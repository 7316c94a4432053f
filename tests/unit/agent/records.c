/* The agent's database: what is durable when, and what is forgotten when. */
#include "client/agent/records.h"
#include "common/base/failpoint.h"
#include "tests/unit/crypto/folder.h"

#define NOW_MS 1000

typedef struct fixture {
    char *path;
    cs_records *records;
    cs_arena *arena;
} fixture;

static fixture open_records(void **state)
{
    fixture f = {.path = cs_path_join(*state, "agent.db"), .arena = cs_arena_new(0)};
    must_be_ok(cs_records_open(f.path, &f.records));
    return f;
}

static void reopen(fixture *f)
{
    cs_records_free(f->records);
    f->records = NULL;
    must_be_ok(cs_records_open(f->path, &f->records));
}

static void close_records(fixture *f)
{
    cs_records_free(f->records);
    cs_arena_free(f->arena);
    cs_free(f->path);
}

static cs_job_record job_named(const char *name)
{
    return (cs_job_record){.job = name,
                           .plan_name = "demo",
                           .reason = "approved by rule 1",
                           .plan = {{1}},
                           .decision = CONSILIUM__V1__DECISION__DECISION_APPROVED,
                           .state = CONSILIUM__V1__JOB_STATE__JOB_WAITING,
                           .sites_minimum = 3};
}

static void add_job(fixture *f, const char *name)
{
    const cs_job_record job = job_named(name);
    must_be_ok(cs_records_add_job(f->records, &job, cs_bytes_of_text("plan: demo"), false, NOW_MS));
}

static void put_result(fixture *f, const char *job, uint32_t round, const cs_hash *blob)
{
    const cs_result_record result = {
        .job = job, .phase = "train", .round = round, .packed = cs_bytes_of_text("result")};
    must_be_ok(cs_records_put_result(f->records, &result, blob, blob != NULL ? 1 : 0));
}

static size_t count_results(fixture *f)
{
    cs_result_record *results = NULL;
    size_t count = 0;
    must_be_ok(cs_records_list_results(f->records, f->arena, &results, &count));
    return count;
}

static bool is_needed(fixture *f, const cs_hash *blob)
{
    bool is = false;
    must_be_ok(cs_records_is_blob_needed(f->records, blob, &is));
    return is;
}

static void a_job_and_its_plan_are_found_again(void **state)
{
    fixture f = open_records(state);
    add_job(&f, "demo");

    reopen(&f);
    cs_job_record job;
    cs_bytes plan = {0};
    must_be_ok(cs_records_find_job(f.records, "demo", f.arena, &job));
    must_be_ok(cs_records_find_plan(f.records, &job.plan, f.arena, &plan));

    assert_string_equal(job.plan_name, "demo");
    assert_int_equal(job.highest_round, -1);
    assert_int_equal(job.sites_minimum, 3);
    assert_true(cs_bytes_equal(plan, cs_bytes_of_text("plan: demo")));
    must_fail(cs_records_find_job(f.records, "other", f.arena, &job), CS_NOT_FOUND, "other");
    close_records(&f);
}

static void a_job_just_above_the_limit_of_open_jobs_is_refused(void **state)
{
    fixture f = open_records(state);
    for (int i = 0; i < CS_OPEN_JOBS_MAX; i++) {
        CS_AUTO(cs_string) name = cs_format("job-%d", i);
        add_job(&f, name);
    }

    const cs_job_record one_more = job_named("one-more");
    must_fail(cs_records_add_job(f.records, &one_more, cs_bytes_of_text("plan: demo"), false, NOW_MS), CS_STATE,
              "open jobs");
    must_be_ok(cs_records_set_state(f.records, "job-0", CONSILIUM__V1__JOB_STATE__JOB_FAILED));
    must_be_ok(cs_records_add_job(f.records, &one_more, cs_bytes_of_text("plan: demo"), false, NOW_MS));
    close_records(&f);
}

static void a_result_raises_the_highest_round_and_keeps_its_blobs(void **state)
{
    fixture f = open_records(state);
    const cs_hash blob = {{5}}, other = {{6}};
    add_job(&f, "demo");

    put_result(&f, "demo", 7, &blob);
    reopen(&f);

    cs_job_record job;
    must_be_ok(cs_records_find_job(f.records, "demo", f.arena, &job));
    assert_int_equal(job.highest_round, 7);
    assert_true(is_needed(&f, &blob));
    assert_false(is_needed(&f, &other));
    close_records(&f);
}

static void an_acknowledged_result_is_forgotten_with_the_next_round_and_an_open_one_is_not(void **state)
{
    fixture f = open_records(state);
    const cs_hash first = {{1}}, second = {{2}}, third = {{3}};
    add_job(&f, "demo");
    put_result(&f, "demo", 1, &first);
    put_result(&f, "demo", 2, &second);
    must_be_ok(cs_records_acknowledge(f.records, "demo", 1, "train"));

    put_result(&f, "demo", 3, &third);

    assert_int_equal(count_results(&f), 2);
    assert_false(is_needed(&f, &first));
    assert_true(is_needed(&f, &second));
    close_records(&f);
}

static void an_ended_job_keeps_no_result_and_no_blob(void **state)
{
    fixture f = open_records(state);
    const cs_hash blob = {{1}};
    add_job(&f, "demo");
    put_result(&f, "demo", 1, &blob);

    must_be_ok(cs_records_set_state(f.records, "demo", CONSILIUM__V1__JOB_STATE__JOB_CANCELLED));

    assert_int_equal(count_results(&f), 0);
    assert_false(is_needed(&f, &blob));
    close_records(&f);
}

static void a_withdrawn_approval_takes_its_results_along(void **state)
{
    fixture f = open_records(state);
    add_job(&f, "demo");
    put_result(&f, "demo", 1, NULL);

    must_be_ok(cs_records_decide(f.records, "demo", CONSILIUM__V1__DECISION__DECISION_REFUSED, "no", 0));

    assert_int_equal(count_results(&f), 0);
    close_records(&f);
}

static void runs_approved_in_advance_are_used_up(void **state)
{
    fixture f = open_records(state);
    add_job(&f, "demo");
    must_be_ok(cs_records_decide(f.records, "demo", CONSILIUM__V1__DECISION__DECISION_APPROVED, "by a person", 1));
    const cs_job_record second = job_named("demo-2");
    uint32_t before = 0, after = 9;
    must_be_ok(cs_records_further_runs(f.records, &second.plan, &before));

    must_be_ok(cs_records_add_job(f.records, &second, cs_bytes_of_text("plan: demo"), true, NOW_MS));

    must_be_ok(cs_records_further_runs(f.records, &second.plan, &after));
    assert_int_equal(before, 1);
    assert_int_equal(after, 0);
    close_records(&f);
}

static void a_failed_commit_changes_nothing(void **state)
{
    fixture f = open_records(state);
    add_job(&f, "demo");
    if (cs_failpoint_configure("agent.records.commit=error") != CS_OK) {
        close_records(&f);
        skip();
    }

    const cs_result_record result = {.job = "demo", .phase = "train", .round = 4, .packed = cs_bytes_of_text("r")};
    must_fail(cs_records_put_result(f.records, &result, NULL, 0), CS_INTERNAL, "agent.records.commit");
    must_be_ok(cs_failpoint_configure(NULL));

    cs_job_record job;
    must_be_ok(cs_records_find_job(f.records, "demo", f.arena, &job));
    assert_int_equal(job.highest_round, -1);
    assert_int_equal(count_results(&f), 0);
    close_records(&f);
}

static void put_kept(fixture *f, uint32_t round, const cs_hash *blob)
{
    const cs_result_record result = {.job = "demo",
                                     .phase = "train",
                                     .round = round,
                                     .packed = cs_bytes_of_text("result"),
                                     .kept = blob != NULL ? "optimizer" : NULL,
                                     .kept_blob = blob != NULL ? *blob : (cs_hash){{0}}};
    must_be_ok(cs_records_put_result(f->records, &result, NULL, 0));
}

static void what_is_kept_comes_with_its_result_and_only_for_later_rounds(void **state)
{
    fixture f = open_records(state);
    const cs_hash first = {{11}}, second = {{12}};
    cs_hash found;
    add_job(&f, "demo");
    must_fail(cs_records_find_kept(f.records, "demo", "optimizer", 1, &found), CS_NOT_FOUND, "has kept no 'optimizer'");

    put_kept(&f, 1, &first);
    reopen(&f);

    must_fail(cs_records_find_kept(f.records, "demo", "optimizer", 1, &found), CS_NOT_FOUND, "");
    must_be_ok(cs_records_find_kept(f.records, "demo", "optimizer", 2, &found));
    assert_memory_equal(found.bytes, first.bytes, sizeof first.bytes);
    put_kept(&f, 2, NULL); /* a failed round leaves what was there */
    put_kept(&f, 3, &second);
    must_be_ok(cs_records_find_kept(f.records, "demo", "optimizer", 4, &found));
    assert_memory_equal(found.bytes, second.bytes, sizeof second.bytes);
    assert_false(is_needed(&f, &first));
    assert_true(is_needed(&f, &second));
    close_records(&f);
}

static void what_is_kept_goes_with_the_job_and_with_its_approval(void **state)
{
    fixture f = open_records(state);
    const cs_hash blob = {{11}};
    add_job(&f, "demo");
    put_kept(&f, 1, &blob);
    must_be_ok(cs_records_decide(f.records, "demo", CONSILIUM__V1__DECISION__DECISION_REFUSED, "no", 0));
    assert_false(is_needed(&f, &blob));
    put_kept(&f, 2, &blob);
    assert_true(is_needed(&f, &blob));

    must_be_ok(cs_records_set_state(f.records, "demo", CONSILIUM__V1__JOB_STATE__JOB_COMPLETE));

    assert_false(is_needed(&f, &blob));
    close_records(&f);
}

#define FOLDER_TEST(function) cmocka_unit_test_setup_teardown(function, folder_make, folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(a_job_and_its_plan_are_found_again),
        FOLDER_TEST(a_job_just_above_the_limit_of_open_jobs_is_refused),
        FOLDER_TEST(a_result_raises_the_highest_round_and_keeps_its_blobs),
        FOLDER_TEST(an_acknowledged_result_is_forgotten_with_the_next_round_and_an_open_one_is_not),
        FOLDER_TEST(an_ended_job_keeps_no_result_and_no_blob),
        FOLDER_TEST(a_withdrawn_approval_takes_its_results_along),
        FOLDER_TEST(runs_approved_in_advance_are_used_up),
        FOLDER_TEST(a_failed_commit_changes_nothing),
        FOLDER_TEST(what_is_kept_comes_with_its_result_and_only_for_later_rounds),
        FOLDER_TEST(what_is_kept_goes_with_the_job_and_with_its_approval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
