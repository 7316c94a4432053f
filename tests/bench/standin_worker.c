/* A worker without libtorch that speaks worker.proto: it makes a model of zeros, and its update adds a constant to each
 * value. For benchmarks and tests of the agent (site.yaml: worker: PATH). It reads no data and confines nothing.
 * A file "standin" beside site.yaml may say, for tests: "crash", "hang", "nan", "shape", "big",
 * "link", "refuse" or "unfit"; "once-…" does it for one task only. A file "standin-values" says how many values the
 * model has, for more than a plan has columns. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/config/plan.h"
#include "common/tensors/safetensors.h"
#include "common/wire/wire.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AGENT       3
#define ARENA_BYTES (16 * 1024 * 1024)
#define STEP        0.001F
#define PIECE_BYTES (256 * 1024)
#define MOOD_BYTES  64
#define OUTPUT_FILE "output.safetensors"

struct worker {
    char *task_root, *config_folder;
    size_t columns;
};

static void give_up(const char *what)
{
    fprintf(stderr, "standin_worker: %s: %s\n", what, cs_error_text());
    exit(1);
}

static void say(const Consilium__V1__FromWorker *message)
{
    if (cs_frame_write_message(AGENT, &message->base) != CS_OK)
        give_up("write");
}

static void say_failed(Consilium__V1__TaskKey *key, const char *reason)
{
    Consilium__V1__WorkerFailed failed = CONSILIUM__V1__WORKER_FAILED__INIT;
    failed.key = key;
    failed.code = CS_STATE;
    failed.reason = (char *)(uintptr_t)reason;
    Consilium__V1__FromWorker message = CONSILIUM__V1__FROM_WORKER__INIT;
    message.body_case = CONSILIUM__V1__FROM_WORKER__BODY_FAILED;
    message.failed = &failed;
    say(&message);
}

/* Does the mood say so? A mood "once-X" is forgotten when it is asked for. */
static bool is_in_mood(struct worker *worker, const char *word)
{
    CS_AUTO(cs_string) path = cs_path_join(worker->config_folder, "standin");
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    if (cs_file_read_all(path, MOOD_BYTES - 1, &text) != CS_OK)
        return false;
    const char *mood = cs_buffer_text(&text);
    const bool is_once = strncmp(mood, "once-", 5) == 0;
    const bool is = strcmp(is_once ? mood + 5 : mood, word) == 0;
    if (is && is_once)
        CS_IGNORE(cs_file_remove(path), "the test sees it");
    return is;
}

static bool has_mood(const struct worker *worker)
{
    CS_AUTO(cs_string) path = cs_path_join(worker->config_folder, "standin");
    return cs_file_exists(path);
}

static void configure(struct worker *worker, const Consilium__V1__Configure *configure)
{
    worker->task_root = cs_strdup(configure->task_root);
    worker->config_folder = cs_strdup(configure->site_config_dir);
    if (is_in_mood(worker, "unfit")) {
        say_failed(NULL, "this kernel lacks landlock, and site.yaml does not accept that");
        exit(0);
    }
    if (configure->plan.len > 0) {
        CS_AUTO_PTR(cs_plan) plan = NULL;
        if (cs_plan_read(cs_wire_bytes(configure->plan), "plan", &plan) != CS_OK)
            give_up("plan");
        worker->columns = plan->dataset.columns_count;
    }
    Consilium__V1__WorkerReady ready = CONSILIUM__V1__WORKER_READY__INIT;
    CS_AUTO(cs_string) values_path = cs_path_join(worker->config_folder, "standin-values");
    CS_AUTO(cs_buffer) values = CS_BUFFER_EMPTY;
    if (cs_file_read_all(values_path, MOOD_BYTES - 1, &values) == CS_OK)
        worker->columns = strtoul(cs_buffer_text(&values), NULL, 10);
    ready.confinement = (char[]){"none: a stand-in"};
    ready.build = (char[]){"standin"};
    Consilium__V1__FromWorker message = CONSILIUM__V1__FROM_WORKER__INIT;
    message.body_case = CONSILIUM__V1__FROM_WORKER__BODY_READY;
    message.ready = &ready;
    say(&message);
}

static void fill(cs_tensor_writer *writer, const cs_tensor_info *infos, size_t count, double value)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t values = 1;
        for (size_t d = 0; d < infos[i].rank; d++)
            values *= infos[i].shape[d];
        const size_t size = values * cs_dtype_size(infos[i].dtype);
        void *data = cs_alloc(size + 1);
        for (uint64_t v = 0; v < values; v++)
            if (infos[i].dtype == CS_F64)
                ((double *)data)[v] = value;
            else
                ((float *)data)[v] = (float)value;
        if (cs_tensor_writer_put(writer, i, 0, data, size) != CS_OK)
            give_up("put");
        cs_free(data);
    }
}

static void write_tensors(const char *path, const cs_tensor_info *infos, size_t count, double value)
{
    cs_tensor_writer *writer = NULL;
    if (cs_tensor_writer_open(path, infos, count, NULL, 0, &writer) != CS_OK)
        give_up("open");
    fill(writer, infos, count, value);
    if (cs_tensor_writer_commit(writer) != CS_OK)
        give_up("commit");
    cs_tensor_writer_free(writer);
}

static void write_model(const struct worker *worker, const char *path)
{
    const cs_tensor_info infos[] = {
        {.name = "linear.bias", .dtype = CS_F32, .rank = 1, .shape = {1}},
        {.name = "linear.weight", .dtype = CS_F32, .rank = 2, .shape = {1, worker->columns}},
    };
    write_tensors(path, infos, CS_COUNT(infos), 0);
}

static void write_statistics(const struct worker *worker, const char *path)
{
    const cs_tensor_info infos[] = {
        {.name = "count", .dtype = CS_F64, .rank = 1, .shape = {1}},
        {.name = "sum", .dtype = CS_F64, .rank = 1, .shape = {worker->columns}},
        {.name = "sum_squares", .dtype = CS_F64, .rank = 1, .shape = {worker->columns}},
    };
    write_tensors(path, infos, CS_COUNT(infos), 1);
}

/* Of this site's folder, so that no two sites send the same bytes: the coordinator takes those only once. FNV-1a. */
static unsigned site_number(const struct worker *worker)
{
    uint32_t number = 2166136261U;
    for (const char *at = worker->config_folder; *at != '\0'; at++)
        number = (number ^ (uint8_t)*at) * 16777619U;
    return number % 4093;
}

/* The model's own file with other values, piece by piece: read whole, and written plainly, because it is scratch and
 * the agent makes its copy durable. */
static void write_like_model(const struct worker *worker, const char *model_path, const char *path)
{
    static _Alignas(8) uint8_t piece[PIECE_BYTES];
    const float step = STEP * (float)(1 + site_number(worker));
    CS_AUTO(cs_fd) from = -1;
    CS_AUTO(cs_fd) to = -1;
    uint64_t header = 0, at = 0;
    size_t count = 0;
    cs_status status = cs_file_open(model_path, O_RDONLY, 0, &from);
    if (status == CS_OK)
        status = cs_file_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600, &to);
    while (status == CS_OK && (status = cs_file_read(from, piece, sizeof(piece), &count)) == CS_OK && count > 0) {
        if (at == 0 && count >= 8)
            header = 8 + cs_load_le64(piece); /* a multiple of 8, as pieces are */
        for (size_t i = at < header ? (size_t)CS_MIN(header - at, (uint64_t)count) : 0; i + sizeof(step) <= count;
             i += sizeof(step))
            memcpy(piece + i, &step, sizeof(step));
        status = cs_file_write(to, piece, count);
        at += count;
    }
    if (status != CS_OK || at < 8)
        give_up("update");
}

static void write_bad_update(struct worker *worker, const char *model_path, const char *path)
{
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    if (cs_tensor_file_open(model_path, &file) != CS_OK)
        give_up("model");
    const size_t count = cs_tensor_file_count(file);
    cs_tensor_info *infos = cs_alloc_array(count, sizeof(*infos));
    for (size_t i = 0; i < count; i++)
        infos[i] = *cs_tensor_file_info(file, i);
    if (is_in_mood(worker, "shape"))
        infos[0].shape[infos[0].rank - 1]++;
    if (is_in_mood(worker, "big"))
        infos[0].shape[infos[0].rank - 1] += 1024 * 1024;
    write_tensors(path, infos, count, is_in_mood(worker, "nan") ? NAN : STEP);
    cs_free(infos);
}

static void write_update(struct worker *worker, const char *folder, const Consilium__V1__WorkerTask *task,
                         const char *path)
{
    const char *model = NULL;
    for (size_t i = 0; i < task->n_inputs; i++)
        if (strcmp(task->inputs[i]->name, "model") == 0)
            model = task->inputs[i]->file;
    if (model == NULL)
        give_up("no model");
    CS_AUTO(cs_string) model_path = cs_path_join(folder, model);
    if (has_mood(worker))
        write_bad_update(worker, model_path, path);
    else
        write_like_model(worker, model_path, path);
}

static void do_task(struct worker *worker, const Consilium__V1__WorkerTask *task)
{
    if (is_in_mood(worker, "crash"))
        raise(SIGKILL);
    while (is_in_mood(worker, "hang"))
        pause();
    if (is_in_mood(worker, "refuse")) {
        say_failed(task->key, "column 'age' is not in the table");
        return;
    }
    CS_AUTO(cs_string) folder = cs_path_join(worker->task_root, task->folder);
    Consilium__V1__NamedFile output = CONSILIUM__V1__NAMED_FILE__INIT;
    Consilium__V1__NamedFile *outputs[] = {&output};
    Consilium__V1__WorkerDone done = CONSILIUM__V1__WORKER_DONE__INIT;
    const char *phase = task->key->phase, *name = NULL;
    if (strcmp(phase, "initialize") == 0)
        name = "model";
    else if (strcmp(phase, "statistics") == 0)
        name = "statistics";
    else if (strcmp(phase, "train") == 0)
        name = "update";
    if (name != NULL) {
        output.name = (char *)(uintptr_t)name;
        output.file = (char *)(uintptr_t)OUTPUT_FILE;
        CS_AUTO(cs_string) path = cs_path_join(folder, output.file);
        if (is_in_mood(worker, "link")) {
            if (symlink("/etc/passwd", path) != 0)
                give_up("link");
        } else if (strcmp(phase, "initialize") == 0) {
            write_model(worker, path);
        } else if (strcmp(phase, "statistics") == 0) {
            write_statistics(worker, path);
        } else {
            write_update(worker, folder, task, path);
        }
        done.outputs = outputs;
        done.n_outputs = 1;
    }
    Consilium__V1__TaskResult result = CONSILIUM__V1__TASK_RESULT__INIT;
    result.outcome = CONSILIUM__V1__OUTCOME__OUTCOME_DONE;
    result.samples = 100;
    result.steps = 1;
    result.loss = 0.5;
    result.is_deterministic = true;
    result.build = (char[]){"standin"};
    done.result = &result;
    Consilium__V1__FromWorker message = CONSILIUM__V1__FROM_WORKER__INIT;
    message.body_case = CONSILIUM__V1__FROM_WORKER__BODY_DONE;
    message.done = &done;
    say(&message);
}

int main(void)
{
    struct worker worker = {0};
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ARENA_BYTES);
    for (;;) {
        cs_arena_reset(arena);
        ProtobufCMessage *message = NULL;
        const cs_status status =
            cs_frame_read_message(AGENT, &consilium__v1__to_worker__descriptor, -1, arena, &message);
        if (status == CS_DONE)
            break;
        if (status != CS_OK)
            give_up("read");
        const Consilium__V1__ToWorker *said = (const Consilium__V1__ToWorker *)message;
        if (said->body_case == CONSILIUM__V1__TO_WORKER__BODY_CONFIGURE)
            configure(&worker, said->configure);
        else if (said->body_case == CONSILIUM__V1__TO_WORKER__BODY_TASK)
            do_task(&worker, said->task);
    }
    cs_free(worker.task_root);
    cs_free(worker.config_folder);
    return 0;
}
