/* How fast is federated averaging, against merely reading the same files? Both in one run, with the same threads and
 * chunks, in turns. Run by hand: bench_aggregate [--files K] [--megabytes N] [--threads T] [--folder DIR]. */
#include "server/aggregate/aggregate.h"

#include "common/base/clock.h"
#include "common/base/command.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX   64
#define THREADS_MAX 64
#define RUNS        7
#define TENSORS     8

typedef struct setting {
    int64_t files, megabytes, threads;
    char *folder;
    char *paths[FILES_MAX + 1]; /* [0] is the model */
    uint64_t bytes_of_file;
} setting;

static cs_status write_file(setting *setting, int64_t number)
{
    CS_AUTO(cs_string) name = cs_format("file-%02lld", (long long)number);
    setting->paths[number] = cs_path_join(setting->folder, name);
    const uint64_t columns = (uint64_t)setting->megabytes * 1000000 / sizeof(float) / TENSORS;
    cs_tensor_info infos[TENSORS];
    char names[TENSORS][16];
    for (size_t t = 0; t < TENSORS; t++) {
        snprintf(names[t], sizeof(names[t]), "layer%zu.weight", t);
        infos[t] = (cs_tensor_info){.name = names[t], .dtype = CS_F32, .rank = 1, .shape = {columns}};
    }
    float *values = cs_alloc_array(columns, sizeof(float));
    for (uint64_t i = 0; i < columns; i++)
        values[i] = (float)((double)((i * 2654435761u + (uint64_t)number) % 1000) / 1000 - 0.5);
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    CS_TRY(cs_tensor_writer_open(setting->paths[number], infos, TENSORS, NULL, 0, &writer));
    for (size_t t = 0; t < TENSORS; t++)
        CS_TRY(cs_tensor_writer_put(writer, t, 0, values, columns * sizeof(float)));
    cs_free(values);
    setting->bytes_of_file = columns * sizeof(float) * TENSORS;
    return cs_tensor_writer_commit(writer);
}

typedef struct reader {
    const setting *setting;
    cs_fd fds[FILES_MAX + 1];
    atomic_uint_fast64_t next;
    atomic_bool has_failed;
} reader;

/* The same bytes in the same chunks from the same files, and nothing done with them. */
static void *read_chunks(void *argument)
{
    reader *reader = argument;
    uint8_t *chunk = cs_alloc(CS_AGGREGATE_CHUNK_BYTES);
    for (;;) {
        const uint64_t offset = atomic_fetch_add(&reader->next, 1) * CS_AGGREGATE_CHUNK_BYTES;
        if (offset >= reader->setting->bytes_of_file)
            break;
        const uint64_t left = reader->setting->bytes_of_file - offset;
        const size_t size = (size_t)CS_MIN(left, (uint64_t)CS_AGGREGATE_CHUNK_BYTES);
        for (int64_t k = 0; k <= reader->setting->files; k++)
            if (cs_file_pread_exact(reader->fds[k], chunk, size, offset) != CS_OK)
                atomic_store(&reader->has_failed, true);
    }
    cs_free(chunk);
    return NULL;
}

static cs_status only_read(const setting *setting)
{
    reader reader = {.setting = setting};
    for (int64_t k = 0; k <= setting->files; k++)
        CS_TRY(cs_file_open(setting->paths[k], O_RDONLY, 0, &reader.fds[k]));
    pthread_t threads[THREADS_MAX];
    for (int64_t t = 0; t < setting->threads; t++)
        if (pthread_create(&threads[t], NULL, read_chunks, &reader) != 0)
            return cs_fail(CS_EXHAUSTED, "no thread");
    for (int64_t t = 0; t < setting->threads; t++)
        pthread_join(threads[t], NULL);
    for (int64_t k = 0; k <= setting->files; k++)
        cs_fd_clear(&reader.fds[k]);
    return atomic_load(&reader.has_failed) ? cs_fail(CS_DATA_LOSS, "a read failed") : CS_OK;
}

static cs_status average(const setting *setting)
{
    cs_contribution contributions[FILES_MAX];
    for (int64_t k = 0; k < setting->files; k++)
        contributions[k] = (cs_contribution){"site", setting->paths[k + 1], (double)(k + 1)};
    CS_AUTO(cs_string) output = cs_path_join(setting->folder, "new");
    return cs_fedavg(setting->paths[0], contributions, (size_t)setting->files, (size_t)setting->threads, NULL, 0,
                     output);
}

static int compare_doubles(const void *a, const void *b)
{
    const double difference = *(const double *)a - *(const double *)b;
    return difference < 0 ? -1 : difference > 0;
}

static double median(double *values)
{
    qsort(values, RUNS, sizeof(*values), compare_doubles);
    return values[RUNS / 2];
}

static cs_status measure(setting *setting)
{
    for (int64_t k = 0; k <= setting->files; k++)
        CS_TRY(write_file(setting, k));
    double read_rates[RUNS];
    double average_rates[RUNS];
    const double gigabytes = (double)setting->bytes_of_file * (double)(setting->files + 1) / 1e9;
    CS_TRY(only_read(setting)); /* into the page cache, for both alike */
    for (int run = 0; run < RUNS; run++) {
        int64_t start_us = cs_clock_monotonic_us();
        CS_TRY(only_read(setting));
        read_rates[run] = gigabytes / ((double)(cs_clock_monotonic_us() - start_us) / 1e6);
        start_us = cs_clock_monotonic_us();
        CS_TRY(average(setting));
        average_rates[run] = gigabytes / ((double)(cs_clock_monotonic_us() - start_us) / 1e6);
    }
    const double read_rate = median(read_rates);
    const double average_rate = median(average_rates);
    printf("%lld updates of %lld MB, %lld threads, medians of %d runs in turns\n", (long long)setting->files,
           (long long)setting->megabytes, (long long)setting->threads, RUNS);
    printf(
        "pread only   %6.2f GB/s\nfedavg       %6.2f GB/s (reads model and updates, writes and syncs the new model)\n",
        read_rate, average_rate);
    printf("ratio        %6.2f\n", average_rate / read_rate);
    return CS_OK;
}

static int run(const cs_arguments *arguments)
{
    setting setting = {.files = 8, .megabytes = 100, .threads = 2};
    if (cs_argument_int(arguments, "--files", 1, FILES_MAX, &setting.files) != CS_OK ||
        cs_argument_int(arguments, "--megabytes", 1, 100000, &setting.megabytes) != CS_OK ||
        cs_argument_int(arguments, "--threads", 1, THREADS_MAX, &setting.threads) != CS_OK)
        return cs_command_fail(arguments, CS_INVALID);
    const char *parent = cs_argument(arguments, "--folder");
    setting.folder = cs_format("%s/consilium-bench-XXXXXX", parent != NULL ? parent : "/tmp");
    if (mkdtemp(setting.folder) == NULL)
        return cs_command_fail(arguments, cs_fail_errno("cannot make '%s'", setting.folder));

    const cs_status status = measure(&setting);
    const int code = status == CS_OK ? CS_EXIT_OK : cs_command_fail(arguments, status);
    CS_IGNORE(cs_folder_remove(setting.folder), "the measurement stands, the folder is a temporary one");
    for (int64_t k = 0; k <= setting.files; k++)
        cs_free(setting.paths[k]);
    cs_free(setting.folder);
    return code;
}

int main(int argc, char **argv)
{
    static const cs_option options[] = {{"--files", "K", "updates to average (8)", false, false},
                                        {"--megabytes", "N", "of each (100)", false, false},
                                        {"--threads", "T", "of both (2)", false, false},
                                        {"--folder", "DIR", "where the files lie (/tmp)", false, false},
                                        {0}};
    static const cs_command commands[] = {
        {"", "measures federated averaging against reading the same files", options, run}, {0}};
    return cs_command_main("bench_aggregate", "Federated averaging against reading.", commands, argc, argv);
}
