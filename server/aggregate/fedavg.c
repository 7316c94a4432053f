/* Sums over update files: federated averaging and the sums of a statistics phase. Called by the fold of a phase; one
 * pass over the files, chunk by chunk, on a few threads. */
#include "server/aggregate/aggregate.h"

#include "common/base/failpoint.h"
#include "server/aggregate/chunks.h"
#include "server/aggregate/elements.h"
#include "server/aggregate/match.h"

#include <math.h>
#include <string.h>

typedef struct input {
    cs_tensor_file *file;
    const char *site;
    double weight; /* normalized */
} input;

typedef struct sum {
    const cs_tensor_file *base; /* the model; NULL: zeros */
    const cs_tensor_file *layout;
    input *inputs;
    size_t count;
    cs_tensor_writer *writer;
} sum;

static void sum_clear(sum *sum)
{
    for (size_t i = 0; i < sum->count; i++)
        cs_tensor_file_free(sum->inputs[i].file);
    cs_free(sum->inputs);
    cs_tensor_writer_free(sum->writer);
}

typedef struct workspace {
    double sums[CS_AGGREGATE_CHUNK_BYTES]; /* enough for elements of one byte */
    _Alignas(16) uint8_t chunk[CS_AGGREGATE_CHUNK_BYTES];
} workspace;

static cs_status sum_chunk(void *self, void *workspace_of_thread, const cs_chunk *chunk)
{
    const sum *sum = self;
    workspace *workspace = workspace_of_thread;
    CS_FAILPOINT("aggregate.chunk");
    const cs_tensor_info *info = cs_tensor_file_info(sum->layout, chunk->tensor);
    const size_t count = chunk->size / cs_dtype_size(info->dtype);
    memset(workspace->sums, 0, count * sizeof(double));
    for (size_t i = 0; i < sum->count; i++) {
        const input *input = &sum->inputs[i];
        const cs_tensor_info *theirs = cs_tensor_file_find(input->file, info->name);
        CS_TRY(cs_tensor_file_read(input->file, theirs, chunk->offset, workspace->chunk, chunk->size));
        cs_elements_add(info->dtype, workspace->chunk, count, input->weight, workspace->sums);
    }
    if (sum->base != NULL)
        CS_TRY(cs_tensor_file_read(sum->base, info, chunk->offset, workspace->chunk, chunk->size));
    else
        memset(workspace->chunk, 0, chunk->size);
    if (!cs_elements_add_rounded(info->dtype, workspace->chunk, count, workspace->sums))
        return cs_fail(CS_INVALID, "tensor '%s': a sum over %zu sites is not finite or does not fit %s", info->name,
                       sum->count, cs_dtype_name(info->dtype));
    return cs_tensor_writer_put(sum->writer, chunk->tensor, chunk->offset, workspace->chunk, chunk->size);
}

static cs_status open_inputs(sum *sum, const cs_contribution *contributions, size_t count)
{
    if (count == 0)
        return cs_fail(CS_INVALID, "there is nothing to aggregate: no site contributed");
    sum->inputs = cs_alloc_array(count, sizeof(*sum->inputs));
    for (size_t i = 0; i < count; i++) {
        input *input = &sum->inputs[i];
        const cs_status opened = cs_tensor_file_open(contributions[i].path, &input->file);
        if (opened != CS_OK)
            return cs_wrap(opened, "site '%s'", contributions[i].site);
        input->site = contributions[i].site;
        input->weight = 1;
        sum->count = i + 1;
    }
    return CS_OK;
}

/* What every input must look like, and the output will. */
static cs_status set_layout(sum *sum, const cs_tensor_file *layout, const char *name)
{
    sum->layout = layout;
    for (size_t i = 0; i < sum->count; i++) {
        const cs_status matched = cs_tensors_match(layout, name, sum->inputs[i].file);
        if (matched != CS_OK)
            return cs_wrap(matched, "site '%s'", sum->inputs[i].site);
    }
    return CS_OK;
}

static cs_status set_weights(sum *sum, const cs_contribution *contributions)
{
    double total = 0;
    for (size_t i = 0; i < sum->count; i++) {
        const double weight = contributions[i].weight;
        if (!isfinite(weight) || weight < 0)
            return cs_fail(CS_INVALID, "site '%s': the weight %g is not a number of samples", contributions[i].site,
                           weight);
        total += weight;
    }
    if (!isfinite(total) || total <= 0)
        return cs_fail(CS_INVALID, "the weights of %zu sites add up to %g, expected more than 0", sum->count, total);
    for (size_t i = 0; i < sum->count; i++)
        sum->inputs[i].weight = contributions[i].weight / total;
    return CS_OK;
}

static cs_status write_sum(sum *sum, size_t threads, const cs_metadata_item *metadata, size_t metadata_count,
                           const char *output_path)
{
    const size_t count = cs_tensor_file_count(sum->layout);
    cs_tensor_info *infos = cs_alloc_array(count, sizeof(*infos));
    for (size_t i = 0; i < count; i++)
        infos[i] = *cs_tensor_file_info(sum->layout, i);
    const cs_status opened = cs_tensor_writer_open(output_path, infos, count, metadata, metadata_count, &sum->writer);
    cs_free(infos);
    CS_TRY(opened);
    CS_TRY(cs_chunks_run(sum->layout, threads, sum_chunk, sum, sizeof(workspace)));
    CS_FAILPOINT("aggregate.commit");
    return cs_tensor_writer_commit(sum->writer);
}

cs_status cs_fedavg(const char *model_path, const cs_contribution *contributions, size_t count, size_t threads,
                    const cs_metadata_item *metadata, size_t metadata_count, const char *output_path)
{
    CS_AUTO_PTR(cs_tensor_file) model = NULL;
    CS_AUTO(sum) sum = {0};
    CS_TRY(cs_tensor_file_open(model_path, &model));
    CS_TRY(open_inputs(&sum, contributions, count));
    CS_TRY(set_layout(&sum, model, "the model"));
    CS_TRY(set_weights(&sum, contributions));
    sum.base = model;
    return write_sum(&sum, threads, metadata, metadata_count, output_path);
}

static cs_status check_all_f64(const cs_tensor_file *file)
{
    for (size_t i = 0; i < cs_tensor_file_count(file); i++) {
        const cs_tensor_info *info = cs_tensor_file_info(file, i);
        if (info->dtype != CS_F64)
            return cs_fail(CS_INVALID, "tensor '%s': dtype %s, sums are F64", info->name, cs_dtype_name(info->dtype));
    }
    return CS_OK;
}

cs_status cs_sum(const cs_contribution *contributions, size_t count, const char *output_path)
{
    CS_AUTO(sum) sum = {0};
    CS_TRY(open_inputs(&sum, contributions, count));
    const cs_status checked = check_all_f64(sum.inputs[0].file);
    if (checked != CS_OK)
        return cs_wrap(checked, "site '%s'", contributions[0].site);
    CS_TRY(set_layout(&sum, sum.inputs[0].file, contributions[0].site));
    return write_sum(&sum, 1, NULL, 0, output_path);
}
