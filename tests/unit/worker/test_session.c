/* client/worker/session: the worker's program itself, driven over its socket pair as an agent does it. */
#include "client/worker/session.h"

#include "client/worker/learner.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/wire/wire.h"
#include "tests/unit/worker/heart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 60000

struct worker {
    char root[64];
    int fd;
    pid_t process;
    cs_arena *arena;
};

static char *place(const struct worker *worker, const char *name)
{
    return cs_arena_format(worker->arena, "%s/%s", worker->root, name);
}

static int set_up(void **state)
{
    struct worker *worker = cs_alloc(sizeof *worker);
    strcpy(worker->root, "/tmp/worker-XXXXXX");
    worker->arena = cs_arena_new(0);
    worker->fd = -1;
    if (mkdtemp(worker->root) == NULL)
        return -1;
    CS_AUTO(cs_buffer) table = CS_BUFFER_EMPTY;
    heart_table(&table, 60);
    *state = worker;
    return cs_file_write_atomic(place(worker, "heart.csv"), cs_buffer_view(&table), 0600) == CS_OK &&
                   cs_folder_make(place(worker, "tasks/one"), 0700) == CS_OK
               ? 0
               : -1;
}

/* Closes the agent's end; the worker's exit code. */
static int end(struct worker *worker)
{
    int status = 0;
    close(worker->fd);
    worker->fd = -1;
    assert_int_equal(waitpid(worker->process, &status, 0), worker->process);
    worker->process = 0;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int tear_down(void **state)
{
    struct worker *worker = *state;
    if (worker->process > 0) {
        kill(worker->process, SIGKILL);
        waitpid(worker->process, NULL, 0);
    }
    if (worker->fd >= 0)
        close(worker->fd);
    const bool is_clean = cs_folder_remove(worker->root) == CS_OK;
    cs_arena_free(worker->arena);
    cs_free(worker);
    return is_clean ? 0 : -1;
}

static void start_with(struct worker *worker, const char *failpoints)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, pair[1], CS_WORKER_FD);
    char *const arguments[] = {"consilium-worker", "--agent", NULL};
    char *const environment[] = {cs_arena_format(worker->arena, "CONSILIUM_FAILPOINTS=%s", failpoints), NULL};
    assert_int_equal(posix_spawn(&worker->process, CS_WORKER_PROGRAM, &actions, NULL, arguments, environment), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pair[1]);
    worker->fd = pair[0];
}

static void send_message(struct worker *worker, Consilium__V1__ToWorker *message)
{
    assert_int_equal(cs_frame_write_message(worker->fd, &message->base), CS_OK);
}

static Consilium__V1__FromWorker *next_message(struct worker *worker)
{
    ProtobufCMessage *message = NULL;
    const int64_t until_ms = cs_clock_monotonic_ms() + PATIENCE_MS;
    const cs_status status =
        cs_frame_read_message(worker->fd, &consilium__v1__from_worker__descriptor, until_ms, worker->arena, &message);
    return status == CS_OK ? (Consilium__V1__FromWorker *)message : NULL;
}

/* The next message that is no progress. */
static Consilium__V1__FromWorker *answer(struct worker *worker)
{
    Consilium__V1__FromWorker *message = next_message(worker);
    while (message != NULL && message->body_case == CONSILIUM__V1__FROM_WORKER__BODY_PROGRESS)
        message = next_message(worker);
    return message;
}

static void send_configure(struct worker *worker, const char *plan, const char *site)
{
    Consilium__V1__Configure configure = CONSILIUM__V1__CONFIGURE__INIT;
    configure.plan = cs_wire_data(plan, strlen(plan));
    configure.site_config = cs_wire_data(site, strlen(site));
    configure.site_config_dir = worker->root;
    configure.site = "mercy";
    configure.task_root = place(worker, "tasks");
    Consilium__V1__ToWorker message = CONSILIUM__V1__TO_WORKER__INIT;
    message.body_case = CONSILIUM__V1__TO_WORKER__BODY_CONFIGURE;
    message.configure = &configure;
    send_message(worker, &message);
}

static Consilium__V1__WorkerReady *configure(struct worker *worker, const char *plan, const char *site)
{
    start_with(worker, "");
    send_configure(worker, plan, site);
    Consilium__V1__FromWorker *message = answer(worker);
    assert_non_null(message);
    if (message->body_case == CONSILIUM__V1__FROM_WORKER__BODY_FAILED)
        print_message("%s\n", message->failed->reason);
    assert_int_equal(message->body_case, CONSILIUM__V1__FROM_WORKER__BODY_READY);
    return message->ready;
}

static Consilium__V1__TaskKey *key_of(struct worker *worker, const char *phase, uint32_t round)
{
    Consilium__V1__TaskKey *key = cs_arena_alloc(worker->arena, sizeof *key);
    consilium__v1__task_key__init(key);
    key->job = "little-1";
    key->phase = cs_arena_strdup(worker->arena, phase);
    key->round = round;
    return key;
}

static void send_task(struct worker *worker, const char *phase, uint32_t round, size_t inputs_count)
{
    Consilium__V1__NamedFile inputs[] = {CONSILIUM__V1__NAMED_FILE__INIT, CONSILIUM__V1__NAMED_FILE__INIT,
                                         CONSILIUM__V1__NAMED_FILE__INIT};
    inputs[0].name = "model";
    inputs[0].file = "model.safetensors";
    inputs[1].name = "statistics";
    inputs[1].file = "statistics.safetensors";
    inputs[2].name = "optimizer";
    inputs[2].file = "optimizer.safetensors";
    Consilium__V1__NamedFile *pointers[] = {&inputs[0], &inputs[1], &inputs[2]};
    Consilium__V1__WorkerTask task = CONSILIUM__V1__WORKER_TASK__INIT;
    task.key = key_of(worker, phase, round);
    task.folder = "one";
    task.inputs = pointers;
    task.n_inputs = inputs_count;
    Consilium__V1__ToWorker message = CONSILIUM__V1__TO_WORKER__INIT;
    message.body_case = CONSILIUM__V1__TO_WORKER__BODY_TASK;
    message.task = &task;
    send_message(worker, &message);
}

static Consilium__V1__WorkerDone *run_with(struct worker *worker, const char *phase, uint32_t round, size_t inputs)
{
    send_task(worker, phase, round, inputs);
    Consilium__V1__FromWorker *message = answer(worker);
    assert_non_null(message);
    if (message->body_case == CONSILIUM__V1__FROM_WORKER__BODY_FAILED)
        print_message("%s\n", message->failed->reason);
    assert_int_equal(message->body_case, CONSILIUM__V1__FROM_WORKER__BODY_DONE);
    assert_string_equal(message->done->result->key->phase, phase);
    return message->done;
}

static Consilium__V1__WorkerDone *run(struct worker *worker, const char *phase, uint32_t round)
{
    return run_with(worker, phase, round, strcmp(phase, "initialize") == 0 || strcmp(phase, "statistics") == 0 ? 0 : 2);
}

static const char *run_to_failure(struct worker *worker, const char *phase, uint32_t round, size_t inputs_count,
                                  cs_status expected)
{
    send_task(worker, phase, round, inputs_count);
    Consilium__V1__FromWorker *message = answer(worker);
    assert_non_null(message);
    assert_int_equal(message->body_case, CONSILIUM__V1__FROM_WORKER__BODY_FAILED);
    assert_int_equal(message->failed->code, expected);
    assert_string_equal(message->failed->key->phase, phase);
    return message->failed->reason;
}

static cs_hash hash_of(struct worker *worker, const char *name)
{
    cs_hash hash = {0};
    assert_int_equal(cs_sha256_file(place(worker, name), &hash, NULL), CS_OK);
    return hash;
}

static void a_configured_worker_is_confined_and_has_counted_its_rows(void **state)
{
    struct worker *worker = *state;

    Consilium__V1__WorkerReady *ready = configure(worker, HEART_PLAN, HEART_SITE);

    assert_non_null(strstr(ready->confinement, "seccomp, no_new_privs"));
    assert_memory_equal(ready->build, "consilium ", 10);
    assert_int_equal(ready->n_datasets, 1);
    const Consilium__V1__DatasetDescription *dataset = ready->datasets[0];
    assert_string_equal(dataset->dataset, "heart");
    assert_string_equal(dataset->error, "");
    assert_int_equal(dataset->dropped, 5);
    assert_int_equal(dataset->rows, 55);
    assert_int_equal(dataset->train + dataset->test, 55);
    assert_true(dataset->positive > 0 && dataset->positive < 55);
    assert_int_equal(end(worker), 0);
}

static void a_whole_job_runs_over_the_descriptor(void **state)
{
    struct worker *worker = *state;
    Consilium__V1__WorkerReady *ready = configure(worker, HEART_PLAN, HEART_SITE);
    const uint64_t train_rows = ready->datasets[0]->train, test_rows = ready->datasets[0]->test;

    Consilium__V1__WorkerDone *done = run(worker, "initialize", 0);
    assert_int_equal(done->n_outputs, 1);
    assert_string_equal(done->outputs[0]->name, "model");
    assert_string_equal(done->outputs[0]->file, "model.safetensors");
    done = run(worker, "statistics", 0);
    assert_int_equal(done->result->samples, train_rows);
    const cs_hash model = hash_of(worker, "tasks/one/model.safetensors");

    done = run(worker, "train", 1);
    assert_string_equal(done->outputs[0]->name, "update");
    assert_int_equal(done->result->samples, train_rows);
    assert_int_equal(done->result->steps, 7);
    assert_true(done->result->loss > 0 && done->result->loss < 2);
    assert_true(done->result->is_deterministic);
    assert_memory_equal(done->result->base_sha256.data, model.bytes, CS_HASH_BYTES);
    assert_int_equal(done->result->n_evaluations, 4);
    assert_string_equal(done->result->evaluations[0]->model, "global");
    assert_string_equal(done->result->evaluations[0]->standardize, "federated");
    assert_string_equal(done->result->evaluations[3]->model, "local");
    assert_string_equal(done->result->evaluations[3]->standardize, "site");
    assert_int_equal(done->result->evaluations[3]->n_metrics, 4);
    const Consilium__V1__Metric *accuracy = done->result->evaluations[0]->metrics[0];
    assert_string_equal(accuracy->name, "accuracy");
    assert_true(accuracy->pools && accuracy->is_defined);
    assert_float_equal(accuracy->count, test_rows, 0);
    assert_true(accuracy->value == accuracy->sum / accuracy->count);
    assert_false(done->result->evaluations[0]->metrics[1]->pools);

    done = run(worker, "evaluate", 3);
    assert_int_equal(done->n_outputs, 0);
    assert_int_equal(done->result->n_evaluations, 2);
    assert_int_equal(end(worker), 0);
}

static void a_repeated_task_gives_the_same_bytes_in_another_process(void **state)
{
    struct worker *worker = *state;
    cs_hash first = {0}, second = {0};
    for (int i = 0; i < 2; i++) {
        configure(worker, HEART_PLAN, HEART_SITE);
        run(worker, "initialize", 0);
        run(worker, "statistics", 0);
        /* The second process starts in round 2; the first has done round 1 before. */
        if (i == 0)
            run(worker, "train", 1);
        run(worker, "train", 2);
        *(i == 0 ? &first : &second) = hash_of(worker, "tasks/one/update.safetensors");
        assert_int_equal(end(worker), 0);
    }
    assert_true(cs_hash_equal(&first, &second));
}

/* A network of three classes that is evaluated after each round; its optimizer remembers. */
#define KEEPING_PLAN                                                                                                   \
    "plan: little\nfederation: horizontal\nsites: {invite: all, minimum: 2}\ndataset: {name: heart, kind: table, "     \
    "features: [age, chol], label: {column: num, classes: [0, 1, 2]}, missing: drop, standardize: federated}\n"        \
    "model: {kind: mlp, hidden: [4], dropout: 0.25}\ntraining: {rounds: 9, local_steps: 7, batch_size: 4, optimizer: " \
    "{kind: adamw, learning_rate: 0.01, state: keep}, loss: {kind: cross_entropy, class_weights: balanced}, "          \
    "early_stopping: {metric: auc, patience: 2}}\nevaluation: {metrics: [auc, calibration_error]}\n"
#define VALIDATING_SITE                                                                                                \
    "site: mercy\ncoordinator: localhost:8443\ndatasets: {heart: {table: heart.csv, missing: [\"?\"], split: {by: "    \
    "row, "                                                                                                            \
    "fractions: {train: 0.6, valid: 0.2, test: 0.2}}}}\n"

static void what_the_optimizer_remembers_comes_out_and_goes_in_again(void **state)
{
    struct worker *worker = *state;
    configure(worker, KEEPING_PLAN, VALIDATING_SITE);
    run(worker, "initialize", 0);
    run(worker, "statistics", 0);

    Consilium__V1__WorkerDone *done = run(worker, "train", 1);

    assert_int_equal(done->n_outputs, 2);
    assert_string_equal(done->outputs[0]->name, "update");
    assert_string_equal(done->outputs[1]->name, "optimizer");
    /* The first model on validation and test rows, the site's own on test rows. */
    assert_int_equal(done->result->n_evaluations, 3);
    assert_string_equal(done->result->evaluations[0]->split, "valid");
    assert_string_equal(done->result->evaluations[1]->split, "test");
    assert_string_equal(done->result->evaluations[2]->model, "local");
    assert_int_equal(done->result->evaluations[0]->metrics[0]->n_parts, 6);
    assert_int_equal(done->result->evaluations[0]->metrics[1]->n_parts, 45);
    done = run(worker, "train", 2);
    const cs_hash anew = hash_of(worker, "tasks/one/update.safetensors");
    /* The model of round 1 was evaluated in a phase of its own. */
    assert_int_equal(done->result->n_evaluations, 1);
    assert_string_equal(done->result->evaluations[0]->model, "local");
    run(worker, "train", 1);
    run_with(worker, "train", 2, 3);
    const cs_hash on = hash_of(worker, "tasks/one/update.safetensors");
    assert_false(cs_hash_equal(&anew, &on));
    done = run(worker, "evaluate", 2);
    assert_int_equal(done->n_outputs, 0);
    assert_int_equal(done->result->n_evaluations, 2);
    assert_int_equal(end(worker), 0);

    /* The same bytes in another process that is given the same file. */
    configure(worker, KEEPING_PLAN, VALIDATING_SITE);
    run(worker, "train", 1);
    run_with(worker, "train", 2, 3);
    const cs_hash again = hash_of(worker, "tasks/one/update.safetensors");
    assert_true(cs_hash_equal(&again, &on));
    assert_int_equal(end(worker), 0);
}

static void a_split_without_validation_rows_does_not_fit_a_plan_that_stops_by_them(void **state)
{
    struct worker *worker = *state;
    Consilium__V1__WorkerReady *ready = configure(worker, KEEPING_PLAN, HEART_SITE);
    assert_non_null(strstr(ready->datasets[0]->error, "the split leaves no rows for 'valid'"));
    assert_int_equal(end(worker), 0);
}

static void without_a_plan_it_describes_every_data_set(void **state)
{
    struct worker *worker = *state;
    Consilium__V1__WorkerReady *ready = configure(worker, "", HEART_SITE "  gone: {table: gone.csv}\n");

    assert_int_equal(ready->n_datasets, 2);
    assert_int_equal(ready->datasets[0]->rows, 60);
    assert_int_equal(ready->datasets[0]->test, 12);
    assert_string_equal(ready->datasets[0]->error, "");
    assert_string_equal(ready->datasets[1]->dataset, "gone");
    assert_non_null(strstr(ready->datasets[1]->error, "gone.csv"));
    assert_non_null(strstr(run_to_failure(worker, "train", 1, 2, CS_STATE), "without a plan"));
    assert_int_equal(end(worker), 0);
}

static void data_that_does_not_fit_is_reported_and_fails_tasks_but_not_the_worker(void **state)
{
    struct worker *worker = *state;
    assert_int_equal(cs_file_write_atomic(place(worker, "heart.csv"),
                                          cs_bytes_of_text("age,chol,cp,num,fold\n63,secret,1,0,train\n"), 0600),
                     CS_OK);

    Consilium__V1__WorkerReady *ready = configure(worker, HEART_PLAN, HEART_SITE);

    assert_string_equal(ready->datasets[0]->error, "heart.csv line 2, column 'chol': not a number");
    assert_string_equal(run_to_failure(worker, "train", 1, 2, CS_INVALID), ready->datasets[0]->error);
    run(worker, "initialize", 0);
    assert_int_equal(end(worker), 0);
}

static void a_site_without_the_data_set_says_so(void **state)
{
    struct worker *worker = *state;
    Consilium__V1__WorkerReady *ready =
        configure(worker, HEART_PLAN, "site: mercy\ncoordinator: localhost:8443\ndatasets: {}\n");
    assert_string_equal(ready->datasets[0]->error, "the site's configuration has no data set 'heart'");
    assert_int_equal(end(worker), 0);
}

static void a_missing_or_foreign_model_fails_the_task_only(void **state)
{
    struct worker *worker = *state;
    configure(worker, HEART_PLAN, HEART_SITE);
    run(worker, "initialize", 0);
    run(worker, "statistics", 0);

    assert_non_null(strstr(run_to_failure(worker, "train", 1, 0, CS_NOT_FOUND), "brings no input 'model'"));
    assert_non_null(strstr(run_to_failure(worker, "train", 1, 1, CS_NOT_FOUND), "brings no input 'statistics'"));
    assert_non_null(strstr(run_to_failure(worker, "train", 0, 2, CS_INVALID), "from 1, found 0"));
    assert_non_null(strstr(run_to_failure(worker, "align", 1, 2, CS_UNIMPLEMENTED), "knows no phase 'align'"));
    /* Sums where the model should be. */
    assert_int_equal(cs_file_remove(place(worker, "tasks/one/model.safetensors")), CS_OK);
    assert_int_equal(
        cs_file_rename(place(worker, "tasks/one/statistics.safetensors"), place(worker, "tasks/one/model.safetensors")),
        CS_OK);
    run(worker, "statistics", 0);
    assert_non_null(strstr(run_to_failure(worker, "train", 1, 2, CS_INVALID), "no tensor 'linear.weight'"));
    run(worker, "initialize", 0);
    run(worker, "train", 1);
    assert_int_equal(end(worker), 0);
}

static void a_cancelled_task_ends_and_the_next_one_runs(void **state)
{
    struct worker *worker = *state;
    static const char endless[] = HEART_PLAN_HEAD
        "  standardize: site\nmodel: {kind: logistic_regression}\n"
        "training: {rounds: 1, local_steps: 1000000, batch_size: 4, optimizer: {kind: sgd, learning_rate: 0.1}, "
        "loss: bce}\naggregation: {method: fedavg, weights: samples}\n"
        "evaluation: {metrics: [auc], standardize: [site]}\n";
    configure(worker, endless, HEART_SITE);
    run(worker, "initialize", 0);

    send_task(worker, "train", 1, 1);
    Consilium__V1__FromWorker *message = next_message(worker);
    assert_int_equal(message->body_case, CONSILIUM__V1__FROM_WORKER__BODY_PROGRESS);
    assert_int_equal(message->progress->done, 1);
    assert_int_equal(message->progress->total, 1000000);
    Consilium__V1__CancelTask cancel = CONSILIUM__V1__CANCEL_TASK__INIT;
    Consilium__V1__ToWorker cancellation = CONSILIUM__V1__TO_WORKER__INIT;
    cancellation.body_case = CONSILIUM__V1__TO_WORKER__BODY_CANCEL;
    cancellation.cancel = &cancel;
    cancel.key = key_of(worker, "train", 7); /* another task: nothing happens */
    send_message(worker, &cancellation);
    cancel.key = key_of(worker, "train", 1);
    send_message(worker, &cancellation);

    message = answer(worker);
    assert_int_equal(message->body_case, CONSILIUM__V1__FROM_WORKER__BODY_FAILED);
    assert_int_equal(message->failed->code, CS_CANCELLED);
    run(worker, "initialize", 0);
    assert_int_equal(end(worker), 0);
}

static void a_worker_in_the_middle_of_a_task_ends_when_its_agent_does(void **state)
{
    struct worker *worker = *state;
    configure(worker, HEART_PLAN, HEART_SITE);
    run(worker, "initialize", 0);
    run(worker, "statistics", 0);
    send_task(worker, "train", 1, 2);
    assert_int_equal(end(worker), 0);
}

static void a_worker_killed_in_a_step_is_seen_as_the_end_of_the_stream(void **state)
{
    struct worker *worker = *state;
#ifndef CS_WITH_FAILPOINTS
    (void)worker;
    skip();
#else
    start_with(worker, "worker.step=kill@3");
    send_configure(worker, HEART_PLAN, HEART_SITE);
    assert_non_null(answer(worker));
    run(worker, "initialize", 0);
    run(worker, "statistics", 0);
    send_task(worker, "train", 1, 2);
    assert_null(answer(worker));
    assert_int_equal(end(worker), 128 + SIGKILL);
#endif
}

static const char *refused_configuration(struct worker *worker, const char *plan, const char *site)
{
    start_with(worker, "");
    send_configure(worker, plan, site);
    Consilium__V1__FromWorker *message = answer(worker);
    assert_non_null(message);
    assert_int_equal(message->body_case, CONSILIUM__V1__FROM_WORKER__BODY_FAILED);
    assert_null(message->failed->key);
    assert_null(answer(worker));
    assert_int_equal(end(worker), 1);
    return message->failed->reason;
}

static void a_bad_plan_or_site_configuration_ends_the_worker_with_the_sentence(void **state)
{
    struct worker *worker = *state;
    assert_non_null(strstr(refused_configuration(worker, "plan: 1\n", HEART_SITE), "plan:"));
    assert_non_null(strstr(refused_configuration(worker, HEART_PLAN, "sites: x\n"), "site.yaml"));
}

static void a_task_before_the_configuration_is_refused(void **state)
{
    struct worker *worker = *state;
    start_with(worker, "");
    send_task(worker, "train", 1, 2);
    Consilium__V1__FromWorker *message = answer(worker);
    assert_non_null(strstr(message->failed->reason, "before it was configured"));
    assert_int_equal(end(worker), 1);
}

static void bytes_that_are_no_message_end_the_worker(void **state)
{
    struct worker *worker = *state;
    start_with(worker, "");
    assert_int_equal(cs_frame_write(worker->fd, cs_bytes_of_text("\xff\xff\xff\xff")), CS_OK);
    Consilium__V1__FromWorker *message = answer(worker);
    assert_int_equal(message->body_case, CONSILIUM__V1__FROM_WORKER__BODY_FAILED);
    assert_int_equal(end(worker), 1);
}

static void a_frame_above_the_limit_ends_the_worker(void **state)
{
    struct worker *worker = *state;
    uint8_t length[4];
    start_with(worker, "");
    cs_store_be32(length, CS_WIRE_MESSAGE_MAX_BYTES + 1);
    assert_int_equal(cs_file_write(worker->fd, length, sizeof length), CS_OK);
    assert_non_null(answer(worker));
    assert_int_equal(end(worker), 1);
}

#define SESSION_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        SESSION_TEST(a_configured_worker_is_confined_and_has_counted_its_rows),
        SESSION_TEST(a_whole_job_runs_over_the_descriptor),
        SESSION_TEST(a_repeated_task_gives_the_same_bytes_in_another_process),
        SESSION_TEST(what_the_optimizer_remembers_comes_out_and_goes_in_again),
        SESSION_TEST(a_split_without_validation_rows_does_not_fit_a_plan_that_stops_by_them),
        SESSION_TEST(without_a_plan_it_describes_every_data_set),
        SESSION_TEST(data_that_does_not_fit_is_reported_and_fails_tasks_but_not_the_worker),
        SESSION_TEST(a_site_without_the_data_set_says_so),
        SESSION_TEST(a_missing_or_foreign_model_fails_the_task_only),
        SESSION_TEST(a_cancelled_task_ends_and_the_next_one_runs),
        SESSION_TEST(a_worker_in_the_middle_of_a_task_ends_when_its_agent_does),
        SESSION_TEST(a_worker_killed_in_a_step_is_seen_as_the_end_of_the_stream),
        SESSION_TEST(a_bad_plan_or_site_configuration_ends_the_worker_with_the_sentence),
        SESSION_TEST(a_task_before_the_configuration_is_refused),
        SESSION_TEST(bytes_that_are_no_message_end_the_worker),
        SESSION_TEST(a_frame_above_the_limit_ends_the_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
