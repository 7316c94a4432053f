/* The supervisor with the stand-in worker: what a worker is given, what its end is called. */
#include "client/agent/supervisor.h"
#include "common/blobs/blobs.h"
#include "common/tensors/safetensors.h"
#include "tests/unit/crypto/folder.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define CONFIG "site: mercy\n"

typedef struct fixture {
    char *folder, *tasks;
    cs_supervisor *supervisor;
    cs_arena *arena;
    atomic_bool is_cancelled;
    int readies;
    cs_status ready_status;
} fixture;

static cs_supervisor_config config_of(const fixture *f, const char *program)
{
    return (cs_supervisor_config){.program = program,
                                  .site = "mercy",
                                  .site_config = cs_bytes_of_text(CONFIG),
                                  .site_config_folder = f->folder,
                                  .tasks_folder = f->tasks};
}

static int make(void **state)
{
    void *folder = NULL;
    if (folder_make(&folder) != 0)
        return -1;
    fixture *f = cs_alloc(sizeof(*f));
    f->folder = folder;
    f->tasks = cs_path_join(folder, "tasks");
    f->arena = cs_arena_new(0);
    const cs_supervisor_config config = config_of(f, STANDIN);
    must_be_ok(cs_supervisor_new(&config, &f->supervisor));
    *state = f;
    return 0;
}

static int unmake(void **state)
{
    fixture *f = *state;
    cs_supervisor_free(f->supervisor);
    cs_arena_free(f->arena);
    cs_free(f->tasks);
    void *folder = f->folder;
    cs_free(f);
    return folder_remove(&folder);
}

static void set_mood(fixture *f, const char *mood)
{
    CS_AUTO(cs_string) path = cs_path_join(f->folder, "standin");
    must_be_ok(cs_file_write_atomic(path, cs_bytes_of_text(mood), 0600));
}

static cs_status count_ready(void *self, const Consilium__V1__WorkerReady *ready)
{
    fixture *f = self;
    assert_string_equal(ready->build, "standin");
    f->readies++;
    return f->ready_status == CS_OK ? CS_OK : cs_fail(f->ready_status, "too few training rows");
}

static void ignore_progress(void *self, const Consilium__V1__TaskProgress *progress)
{
    (void)self;
    (void)progress;
}

static cs_worker_end run_task(fixture *f, const char *job, const char *phase, Consilium__V1__WorkerDone **ret_done)
{
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = (char *)(uintptr_t)job;
    key.phase = (char *)(uintptr_t)phase;
    cs_worker_task task = {.job = job,
                           .task = CONSILIUM__V1__WORKER_TASK__INIT,
                           .is_cancelled = &f->is_cancelled,
                           .ready = count_ready,
                           .progress = ignore_progress,
                           .self = f};
    task.task.key = &key;
    task.task.folder = (char[]){"task"};
    CS_AUTO(cs_string) folder = cs_format("%s/%s/task", f->tasks, job);
    must_be_ok(cs_folder_make(folder, 0700));
    return cs_supervisor_run(f->supervisor, &task, f->arena, ret_done);
}

static void one_worker_serves_all_tasks_of_a_job(void **state)
{
    fixture *f = *state;
    Consilium__V1__WorkerDone *done = NULL;

    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_DONE);
    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_DONE);
    assert_int_equal(done->result->samples, 100);
    assert_int_equal(f->readies, 1);
    assert_int_equal(run_task(f, "other", "evaluate", &done), CS_WORKER_DONE);
    assert_int_equal(f->readies, 2);
}

static void an_idle_worker_is_ended_and_started_again_when_needed(void **state)
{
    fixture *f = *state;
    Consilium__V1__WorkerDone *done = NULL;
    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_DONE);

    cs_supervisor_end_idle(f->supervisor, 0);

    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_DONE);
    assert_int_equal(f->readies, 2);
}

static void a_crash_is_a_loss_and_the_next_task_gets_a_new_worker(void **state)
{
    fixture *f = *state;
    Consilium__V1__WorkerDone *done = NULL;
    set_mood(f, "once-crash");

    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_LOST);
    assert_non_null(strstr(cs_error_text(), "signal 9"));
    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_DONE);
}

static void a_worker_that_refuses_its_configuration_is_unfit_until_the_job_ends(void **state)
{
    fixture *f = *state;
    Consilium__V1__WorkerDone *done = NULL;
    set_mood(f, "once-unfit");

    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_UNFIT);
    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_UNFIT);
    assert_non_null(strstr(cs_error_text(), "landlock"));
    assert_int_equal(f->readies, 0);
    cs_supervisor_end_job(f->supervisor, "demo");
    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_DONE);
}

static void what_the_agent_refuses_about_a_ready_worker_makes_it_unfit(void **state)
{
    fixture *f = *state;
    Consilium__V1__WorkerDone *done = NULL;
    f->ready_status = CS_DENIED;

    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_UNFIT);

    assert_non_null(strstr(cs_error_text(), "too few training rows"));
}

static void a_program_that_does_not_exist_is_a_loss_with_its_name(void **state)
{
    fixture *f = *state;
    Consilium__V1__WorkerDone *done = NULL;
    const cs_supervisor_config config = config_of(f, "/nowhere/worker");
    cs_supervisor_free(f->supervisor);
    must_be_ok(cs_supervisor_new(&config, &f->supervisor));

    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_LOST);

    assert_non_null(strstr(cs_error_text(), "/nowhere/worker"));
}

static void a_cancelled_task_is_not_begun(void **state)
{
    fixture *f = *state;
    Consilium__V1__WorkerDone *done = NULL;
    atomic_store(&f->is_cancelled, true);

    assert_int_equal(run_task(f, "demo", "evaluate", &done), CS_WORKER_REFUSED);
}

static void *stop_supervisor(void *argument)
{
    fixture *f = argument;
    cs_supervisor_stop(f->supervisor);
    return NULL;
}

static cs_status stop_when_ready(void *self, const Consilium__V1__WorkerReady *ready)
{
    (void)ready;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_supervisor, self), 0);
    pthread_join(thread, NULL);
    return CS_OK;
}

static void a_stop_from_another_thread_ends_the_run(void **state)
{
    fixture *f = *state;
    set_mood(f, "hang");
    Consilium__V1__TaskKey key = CONSILIUM__V1__TASK_KEY__INIT;
    key.job = (char[]){"demo"};
    key.phase = (char[]){"evaluate"};
    cs_worker_task task = {.job = "demo",
                           .task = CONSILIUM__V1__WORKER_TASK__INIT,
                           .is_cancelled = &f->is_cancelled,
                           .ready = stop_when_ready,
                           .progress = ignore_progress,
                           .self = f};
    task.task.key = &key;
    task.task.folder = (char[]){"task"};
    Consilium__V1__WorkerDone *done = NULL;

    assert_int_equal(cs_supervisor_run(f->supervisor, &task, f->arena, &done), CS_WORKER_LOST);
    assert_int_equal(cs_supervisor_run(f->supervisor, &task, f->arena, &done), CS_WORKER_LOST);
}

/* A shell script in the worker's place writes down what it was given. */
static void a_worker_gets_four_descriptors_and_no_environment(void **state)
{
    fixture *f = *state;
    CS_AUTO(cs_string) script = cs_path_join(f->folder, "spy");
    CS_AUTO(cs_string) text = cs_format("#!/bin/sh\n"
                                        "for d in /proc/$$/fd/*; do echo \"${d##*/}\"; done > %s/fds\n"
                                        "tr '\\0' '\\n' < /proc/$$/environ > %s/environment\n"
                                        "echo \"$@\" > %s/arguments\n",
                                        f->folder, f->folder, f->folder);
    must_be_ok(cs_file_write_atomic(script, cs_bytes_of_text(text), 0700));
    assert_int_equal(setenv("CONSILIUM_TEST_SECRET", "hunter2", 1), 0);
    const int leaked = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, as a careless library would */
    const cs_supervisor_config config = config_of(f, script);
    Consilium__V1__WorkerReady *ready = NULL;

    must_fail(cs_supervisor_describe(&config, cs_bytes_of_text(""), f->arena, &ready), CS_UNAVAILABLE, "exit status");
    close(leaked);

    CS_AUTO(cs_string) fds_path = cs_path_join(f->folder, "fds");
    CS_AUTO(cs_string) environment_path = cs_path_join(f->folder, "environment");
    CS_AUTO(cs_string) arguments_path = cs_path_join(f->folder, "arguments");
    CS_AUTO(cs_buffer) fds = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) environment = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) arguments = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(fds_path, 4096, &fds));
    must_be_ok(cs_file_read_all(environment_path, 4096, &environment));
    must_be_ok(cs_file_read_all(arguments_path, 4096, &arguments));
    /* Two are the shell's own: the script at 10, and the folder that it lists at the first free place. */
    CS_AUTO(cs_buffer) own = CS_BUFFER_EMPTY;
    for (const char *line = strtok((char *)fds.data, "\n"); line != NULL; line = strtok(NULL, "\n"))
        if (strtol(line, NULL, 10) < 10)
            cs_buffer_printf(&own, "%s ", line);
    assert_string_equal(cs_buffer_text(&own), "0 1 2 3 4 ");
    assert_int_equal(environment.size, 0);
    assert_string_equal(cs_buffer_text(&arguments), "--agent\n");
}

static void describe_gives_what_the_worker_says_and_leaves_nothing_behind(void **state)
{
    fixture *f = *state;
    const cs_supervisor_config config = config_of(f, STANDIN);
    Consilium__V1__WorkerReady *ready = NULL;

    must_be_ok(cs_supervisor_describe(&config, cs_bytes_of_text(""), f->arena, &ready));

    assert_string_equal(ready->confinement, "none: a stand-in");
    CS_AUTO(cs_string) left = cs_format("%s/.describe-%d", f->tasks, (int)getpid());
    assert_false(cs_file_exists(left));
}

#define WORKER_TEST(function) cmocka_unit_test_setup_teardown(function, make, unmake)

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        WORKER_TEST(one_worker_serves_all_tasks_of_a_job),
        WORKER_TEST(an_idle_worker_is_ended_and_started_again_when_needed),
        WORKER_TEST(a_crash_is_a_loss_and_the_next_task_gets_a_new_worker),
        WORKER_TEST(a_worker_that_refuses_its_configuration_is_unfit_until_the_job_ends),
        WORKER_TEST(what_the_agent_refuses_about_a_ready_worker_makes_it_unfit),
        WORKER_TEST(a_program_that_does_not_exist_is_a_loss_with_its_name),
        WORKER_TEST(a_cancelled_task_is_not_begun),
        WORKER_TEST(a_stop_from_another_thread_ends_the_run),
        WORKER_TEST(a_worker_gets_four_descriptors_and_no_environment),
        WORKER_TEST(describe_gives_what_the_worker_says_and_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
