/* Work on chunks by several threads: they take the next chunk from a shared counter. Called by fedavg.c; the threads
 * live for one pass. */
#include "server/aggregate/chunks.h"

#include "server/aggregate/aggregate.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

typedef struct pass {
    const cs_tensor_file *file;
    cs_chunk_work work;
    void *self;
    size_t workspace_size;
    uint64_t *first_chunk; /* of each tensor; one more entry for the total */
    size_t tensor_count;
    atomic_uint_fast64_t next;

    pthread_mutex_t failure_mutex; /* guards what follows */
    cs_status failure;
    uint64_t failed_chunk;
    char sentence[CS_ERROR_TEXT_BYTES];
} pass;

static cs_chunk chunk_at(const pass *pass, uint64_t number)
{
    size_t low = 0;
    size_t high = pass->tensor_count;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (pass->first_chunk[middle] <= number)
            low = middle;
        else
            high = middle;
    }
    const uint64_t offset = (number - pass->first_chunk[low]) * CS_AGGREGATE_CHUNK_BYTES;
    const uint64_t left = cs_tensor_file_info(pass->file, low)->size_bytes - offset;
    return (cs_chunk){low, offset, (size_t)CS_MIN(left, (uint64_t)CS_AGGREGATE_CHUNK_BYTES)};
}

static void note_failure(pass *pass, uint64_t number, cs_status status)
{
    /* No chunk is handed out any more; those below this one have been, and will be finished. */
    atomic_store(&pass->next, pass->first_chunk[pass->tensor_count]);
    pthread_mutex_lock(&pass->failure_mutex);
    if (pass->failure == CS_OK || number < pass->failed_chunk) {
        pass->failure = status;
        pass->failed_chunk = number;
        memcpy(pass->sentence, cs_error_text(), strlen(cs_error_text()) + 1);
    }
    pthread_mutex_unlock(&pass->failure_mutex);
}

static void *work_on_chunks(void *argument)
{
    pass *pass = argument;
    void *workspace = cs_alloc(pass->workspace_size);
    for (;;) {
        const uint64_t number = atomic_fetch_add(&pass->next, 1);
        if (number >= pass->first_chunk[pass->tensor_count])
            break;
        const cs_chunk chunk = chunk_at(pass, number);
        const cs_status status = pass->work(pass->self, workspace, &chunk);
        if (status != CS_OK) {
            note_failure(pass, number, status);
            break;
        }
    }
    cs_free(workspace);
    return NULL;
}

static void count_chunks(pass *pass)
{
    for (size_t i = 0; i < pass->tensor_count; i++) {
        const uint64_t size = cs_tensor_file_info(pass->file, i)->size_bytes;
        const uint64_t count = size / CS_AGGREGATE_CHUNK_BYTES + (size % CS_AGGREGATE_CHUNK_BYTES != 0);
        pass->first_chunk[i + 1] = pass->first_chunk[i] + count;
    }
}

cs_status cs_chunks_run(const cs_tensor_file *file, size_t threads, cs_chunk_work work, void *self,
                        size_t workspace_size)
{
    pass pass = {.file = file, .work = work, .self = self, .workspace_size = workspace_size};
    pass.tensor_count = cs_tensor_file_count(file);
    pass.first_chunk = cs_alloc_array(pass.tensor_count + 1, sizeof(*pass.first_chunk));
    count_chunks(&pass);
    pthread_mutex_init(&pass.failure_mutex, NULL);

    /* A thread that cannot be had is not missed: the others take its chunks. */
    const uint64_t useful = CS_MIN((uint64_t)CS_MAX(threads, (size_t)1), pass.first_chunk[pass.tensor_count]);
    pthread_t *helpers = cs_alloc_array((size_t)useful + 1, sizeof(*helpers));
    size_t started = 0;
    while (started + 1 < useful && pthread_create(&helpers[started], NULL, work_on_chunks, &pass) == 0)
        started++;
    work_on_chunks(&pass);
    for (size_t i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);

    cs_free(helpers);
    cs_free(pass.first_chunk);
    pthread_mutex_destroy(&pass.failure_mutex);
    return pass.failure == CS_OK ? CS_OK : cs_fail(pass.failure, "%s", pass.sentence);
}
