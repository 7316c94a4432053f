/* Nothing is lost: restarts after every message, transactions that fail, folds that fail, full disks, deadlines over a
 * restart. The final model is always the one of the undisturbed run. */
#include "server/store/jobs.h"
#include "tests/unit/engine/world.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

/* A deadline that no number of repetitions reaches. */
#define PATIENT    "sites: {invite: all, minimum: 3, approval: 30d, deadline: 7d}\n"
#define MINUTES(n) ((int64_t)(n)*60 * 1000)

static cs_hash undisturbed(place *place, const char *plan, size_t *ret_messages)
{
    CS_AUTO(cs_string) folder = cs_path_join(place->folder, "undisturbed");
    CS_AUTO(cs_string) file = cs_path_join(folder, "file");
    assert_ok(cs_folder_make(folder, 0700));
    struct place inner = {.folder = folder, .path = file};
    world *world = world_new(&inner, 3);
    world_attend_all(world);
    world_submit_ok(world, plan);
    assert_true(world_serve(world, SIZE_MAX));
    cs_hash hash;
    assert_ok(world_model(world, "demo", "last", &hash));
    *ret_messages = world->handled;
    world_free(world);
    return hash;
}

static void assert_same_end(world *world, const cs_hash *expected)
{
    cs_hash hash;
    assert_ok(world_model(world, "demo", "last", &hash));
    assert_true(cs_hash_equal(&hash, expected));
    assert_int_equal(world_state(world, "demo"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
    world_settle(world);
    /* initialize, 3 × statistics, 2 × 3 × train, 3 × evaluate: each once, however often it was said. */
    assert_int_equal(world_records(world, "result_accepted"), 13);
    assert_int_equal(world_records(world, "model_folded"), 5);
    assert_int_equal(world_records(world, "job_ended"), 1);
}

static void a_restart_after_any_message_ends_with_the_same_model(void **state)
{
    place *here = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 2, PLAN_RETAINS);
    size_t messages = 0;
    const cs_hash expected = undisturbed(here, plan, &messages);
    assert_true(messages > 20);

    for (size_t stop = 0; stop < messages; stop++) {
        CS_AUTO(cs_string) folder = cs_format("%s/%zu", here->folder, stop);
        CS_AUTO(cs_string) file = cs_path_join(folder, "file");
        assert_ok(cs_folder_make(folder, 0700));
        struct place inner = {.folder = folder, .path = file};
        world *world = world_new(&inner, 3);
        world_attend_all(world);
        world_submit_ok(world, plan);
        bool has_ended = world_serve(world, stop);
        world_restart(world);
        world_attend_all(world);
        if (!has_ended)
            assert_true(world_serve(world, SIZE_MAX));
        assert_same_end(world, &expected);
        world_free(world);
        assert_ok(cs_folder_remove(folder));
    }
}

static void many_restarts_end_with_the_same_model(void **state)
{
    place *here = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "federated", 2, PLAN_RETAINS);
    size_t messages = 0;
    const cs_hash expected = undisturbed(here, plan, &messages);
    world *world = world_new(here, 3);
    world_submit_ok(world, plan);

    /* Every life of the process hears four messages: enough to get on, as each repeats what was lost. */
    bool has_ended = false;
    for (int lives = 0; lives < 200 && !has_ended; lives++) {
        world_attend_all(world);
        has_ended = world_serve(world, 4);
        world_settle(world);
        if (!has_ended)
            world_restart(world);
    }

    assert_true(has_ended);
    assert_same_end(world, &expected);
    world_free(world);
}

#ifdef CS_WITH_FAILPOINTS

static const char *const failpoints[] = {
    "engine.commit",         "engine.entered", "engine.task_state",   "engine.result", "engine.round_opened",
    "engine.phase_finished", "engine.check",   "engine.round_closed", "engine.fold",   "engine.decision",
    "engine.fold_written",   "engine.record",  "engine.committed",    "engine.collect"};

/* The page of metrics counts what was committed, each task once. */
static cs_status compare_counts(void *argument, cs_store *store)
{
    world *world = argument;
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_metrics_page page = cs_metrics_to(&out);
    CS_TRY(cs_engine_measure(world->engine, &page));
    cs_job_row job;
    CS_TRY(cs_jobs_find(store, "demo", &job));
    for (size_t i = 0; i < world->sites_count; i++) {
        size_t folded = 0;
        for (uint32_t round = 0; round <= job.round; round++) {
            cs_task_row *tasks = NULL;
            size_t count = 0;
            CS_TRY(cs_jobs_tasks(store, job.id, round, NULL, &tasks, &count));
            for (size_t t = 0; t < count; t++)
                folded += strcmp(tasks[t].site, world->sites[i].name) == 0 && tasks[t].state == CS_TASK_FOLDED;
            cs_task_rows_free(tasks, count);
        }
        CS_AUTO(cs_string)
        line =
            cs_format("consilium_site_tasks_total{site=\"%s\",outcome=\"folded\"} %zu\n", world->sites[i].name, folded);
        if (folded == 0 || strstr(cs_buffer_text(&out), line) == NULL)
            return cs_fail(CS_INTERNAL, "expected %sin\n%s", line, cs_buffer_text(&out));
    }
    return CS_OK;
}

/* Whatever fails inside a transaction: nothing of it counts, and what was lost is said again. */
static void run_with_failpoint(place *here, const char *plan, const char *failpoint, int at, const cs_hash *expected)
{
    CS_AUTO(cs_string) folder = cs_format("%s/%s-%d", here->folder, failpoint, at);
    CS_AUTO(cs_string) file = cs_path_join(folder, "file");
    CS_AUTO(cs_string) fault = cs_format("%s=error@%d", failpoint, at);
    assert_ok(cs_folder_make(folder, 0700));
    struct place inner = {.folder = folder, .path = file};
    world *world = world_new(&inner, 3);
    world_submit_ok(world, plan);
    assert_ok(cs_failpoint_configure(fault));
    world_attend_all(world);

    /* A check that failed on this machine is made again after a while; so is a transcript that could not be
     * written. */
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    while (world_describe(world, "demo", arena)->finished_ms == 0) {
        if (world_state(world, "demo") == CONSILIUM__V1__JOB_STATE__JOB_PAUSED)
            assert_ok(world_resume(world, "demo"));
        else if (world_has_mail(world))
            world_serve(world, 1);
        else
            world_advance(world, 1000);
        cs_arena_reset(arena);
    }
    assert_ok(cs_failpoint_configure(NULL));
    world_advance(world, 2000);
    assert_same_end(world, expected);
    assert_ok(cs_engine_run(world->engine, compare_counts, world));
    world_free(world);
    assert_ok(cs_folder_remove(folder));
}

static void a_failure_at_any_failpoint_ends_with_the_same_model(void **state)
{
    place *here = *state;
    CS_AUTO(cs_string) plan = world_plan(PATIENT, "federated", 2, PLAN_RETAINS);
    size_t messages = 0;
    const cs_hash expected = undisturbed(here, plan, &messages);

    for (size_t i = 0; i < CS_COUNT(failpoints); i++) {
        for (int at = 1; at <= 9; at += 4)
            run_with_failpoint(here, plan, failpoints[i], at, &expected);
    }
}

/* ---- real kills: this program starts itself, and dies at a failpoint ---- */

static const char *life_folder, *life_failpoint, *life_plan;

static cs_status find_job(void *argument, cs_store *store)
{
    (void)argument;
    cs_job_row row;
    return cs_jobs_find(store, "demo", &row);
}

static void play_until_the_job_ends(world *world)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    while (world_describe(world, "demo", arena)->finished_ms == 0) {
        if (world_has_mail(world))
            world_serve(world, 1);
        else
            world_advance(world, 1000);
        cs_arena_reset(arena);
    }
    world_advance(world, 2000);
}

/* One life of the process: from wherever the last one ended. */
static void a_life(void **state)
{
    (void)state;
    CS_AUTO(cs_string) file = cs_path_join(life_folder, "file");
    struct place inner = {.folder = (char *)(uintptr_t)life_folder, .path = file};
    world *world = world_new(&inner, 3);
    assert_ok(cs_failpoint_configure(life_failpoint));
    if (cs_engine_run(world->engine, find_job, NULL) == CS_NOT_FOUND)
        world_submit_ok(world, life_plan);
    world_attend_all(world);
    play_until_the_job_ends(world);
    assert_ok(cs_failpoint_configure(NULL));
    world_free(world);
}

static int live(const char *folder, const char *failpoint, const char *plan)
{
    char *const arguments[] = {(char *)"life", (char *)(uintptr_t)folder, (char *)(uintptr_t)failpoint,
                               (char *)(uintptr_t)plan, NULL};
    char *const environment[] = {NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t child = 0;
    assert_int_equal(posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, environment), 0);
    posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void a_kill_at_any_failpoint_ends_with_the_same_model(void **state)
{
    place *here = *state;
    CS_AUTO(cs_string) plan = world_plan(PATIENT, "federated", 2, PLAN_RETAINS);
    size_t messages = 0, kills = 0;
    const cs_hash expected = undisturbed(here, plan, &messages);
    for (size_t i = 0; i < CS_COUNT(failpoints); i++) {
        CS_AUTO(cs_string) folder = cs_format("%s/kill-%s", here->folder, failpoints[i]);
        CS_AUTO(cs_string) file = cs_path_join(folder, "file");
        assert_ok(cs_folder_make(folder, 0700));
        for (int at = 1; at <= 5; at += 2) {
            CS_AUTO(cs_string) kill = cs_format("%s=kill@%d", failpoints[i], at);
            const int status = live(folder, kill, plan);
            kills += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        }
        assert_int_equal(live(folder, "", plan), 0);
        struct place inner = {.folder = folder, .path = file};
        world *world = world_new(&inner, 3);
        assert_same_end(world, &expected);
        world_free(world);
        assert_ok(cs_folder_remove(folder));
    }
    assert_true(kills >= CS_COUNT(failpoints));
}

#endif

/* ---- one world each ---- */

static cs_status spoil_plan(void *argument, cs_store *store)
{
    return cs_db_run(store->db, "UPDATE job SET plan = ?1 WHERE name = ?2", "bt",
                     cs_bytes_of_text("plan: from-the-future\n"), (const char *)argument);
}

static void a_job_whose_plan_this_version_cannot_read_rests_and_the_others_go_on(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    char resting[] = "demo";
    assert_string_equal(world_submit_ok(world, plan), resting);
    assert_ok(cs_engine_run(world->engine, spoil_plan, resting));

    world_restart(world);
    assert_string_equal(world_submit_ok(world, plan), "demo-2");
    world_attend_all(world);
    assert_true(world_serve(world, SIZE_MAX));

    assert_int_equal(world_state(world, "demo-2"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
}

static void a_deadline_goes_on_after_a_restart_where_it_was(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    struct site *a = world_site(world, "a");
    world_attend_all(world);
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);
    received_free(world_await_task(a, 0, "initialize"));

    world_advance(world, MINUTES(6));
    world_restart(world);
    world_attend(world, a);
    received *task = world_await_task(a, 0, "initialize");

    assert_int_equal(task->message->task->remaining_ms, MINUTES(4));
    received_free(task);
}

static void below_the_disk_reserve_no_round_opens_until_there_is_room(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world_attend_all(world);
    world_settle(world);
    world->server.disk_reserve_bytes = UINT64_MAX;
    world_submit_ok(world, plan);
    for (size_t i = 0; i < 3; i++)
        world_approve(&world->sites[i]);

    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_PAUSED);
    assert_int_equal(strncmp(status->reason, "disk", 4), 0);
    assert_status(world_submit(world, "plan: x\n"), CS_INVALID);

    world_settle(world);
    world->server.disk_reserve_bytes = 0;
    world_advance(world, 2000);
    assert_true(world_serve(world, SIZE_MAX));
    assert_int_equal(world_state(world, "demo"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
}

#ifdef CS_WITH_FAILPOINTS
static void a_fold_that_fails_pauses_the_job_and_resume_goes_on(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    world_attend_all(world);
    assert_ok(cs_failpoint_configure("engine.fold=error@1"));
    world_submit_ok(world, plan);
    assert_status(world_resume(world, "demo"), CS_STATE);
    while (world_state(world, "demo") != CONSILIUM__V1__JOB_STATE__JOB_PAUSED) {
        if (world_has_mail(world))
            world_serve(world, 1);
    }

    world_advance(world, 5000);
    const Consilium__V1__JobStatus *status = world_describe(world, "demo", arena);
    assert_int_equal(status->state, CONSILIUM__V1__JOB_STATE__JOB_PAUSED);
    assert_non_null(strstr(status->reason, "the fold of round 0 failed: failpoint engine.fold"));
    assert_ok(world_resume(world, "demo"));

    assert_true(world_serve(world, SIZE_MAX));
    assert_int_equal(world_state(world, "demo"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
}
#endif

static int fail_writes(void *self, const char *operation, const char *path)
{
    (void)self;
    /* What folds write, and nothing of what the blobs and the transcript do. */
    return strstr(path, "/tasks/") && strstr(operation, "write") ? ENOSPC : 0;
}

static void a_full_disk_under_a_fold_pauses_the_job_and_room_resumes_it(void **state)
{
    world *world = *state;
    CS_AUTO(cs_string) plan = world_plan(PLAN_SITES, "site", 1, PLAN_RETAINS);
    world_attend_all(world);
    world_submit_ok(world, plan);
    cs_file_set_fault(fail_writes, NULL);
    while (world_state(world, "demo") != CONSILIUM__V1__JOB_STATE__JOB_PAUSED) {
        if (world_has_mail(world))
            world_serve(world, 1);
    }

    cs_file_set_fault(NULL, NULL);
    world_advance(world, 2000);

    assert_true(world_serve(world, SIZE_MAX));
    assert_int_equal(world_state(world, "demo"), CONSILIUM__V1__JOB_STATE__JOB_COMPLETE);
}

static void work_gives_its_status_and_sentence_to_whoever_waits(void **state)
{
    world *world = *state;
    assert_status(world_cancel(world, "nobody"), CS_NOT_FOUND);
    assert_error_says("there is no job 'nobody'; no job was ever submitted");
}

#define PLACE(function) cmocka_unit_test_setup_teardown(function, place_make, place_remove)

int main(int argc, char **argv)
{
#ifdef CS_WITH_FAILPOINTS
    if (argc == 4) {
        const struct CMUnitTest life[] = {cmocka_unit_test(a_life)};
        life_folder = argv[1];
        life_failpoint = argv[2][0] ? argv[2] : NULL;
        life_plan = argv[3];
        return cmocka_run_group_tests(life, NULL, NULL);
    }
#endif
    (void)argc;
    (void)argv;
    const struct CMUnitTest tests[] = {
        PLACE(a_restart_after_any_message_ends_with_the_same_model),
        PLACE(many_restarts_end_with_the_same_model),
#ifdef CS_WITH_FAILPOINTS
        PLACE(a_failure_at_any_failpoint_ends_with_the_same_model),
        PLACE(a_kill_at_any_failpoint_ends_with_the_same_model),
        WORLD_TEST(a_fold_that_fails_pauses_the_job_and_resume_goes_on),
#endif
        WORLD_TEST(a_job_whose_plan_this_version_cannot_read_rests_and_the_others_go_on),
        WORLD_TEST(a_deadline_goes_on_after_a_restart_where_it_was),
        WORLD_TEST(below_the_disk_reserve_no_round_opens_until_there_is_room),
        WORLD_TEST(a_full_disk_under_a_fold_pauses_the_job_and_room_resumes_it),
        WORLD_TEST(work_gives_its_status_and_sentence_to_whoever_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
