/* The checks at the door: is a file usable as an update, are all its values finite? Called for every result that
 * arrives, on the thread that folds. One chunk in memory at a time. */
#include "server/aggregate/aggregate.h"

#include "server/aggregate/elements.h"
#include "server/aggregate/match.h"

#include <inttypes.h>

static void put_shape(cs_buffer *out, const cs_tensor_info *info)
{
    cs_buffer_append(out, "[", 1);
    for (size_t i = 0; i < info->rank; i++)
        cs_buffer_printf(out, "%s%" PRIu64, i > 0 ? ", " : "", info->shape[i]);
    cs_buffer_append(out, "]", 1);
}

static bool is_same_shape(const cs_tensor_info *a, const cs_tensor_info *b)
{
    bool is_same = a->rank == b->rank;
    for (size_t i = 0; is_same && i < a->rank; i++)
        is_same = a->shape[i] == b->shape[i];
    return is_same;
}

static cs_status match_one(const cs_tensor_info *expected, const char *reference_name, const cs_tensor_info *found)
{
    if (found->dtype != expected->dtype)
        return cs_fail(CS_INVALID, "tensor '%s': dtype %s, %s has %s", found->name, cs_dtype_name(found->dtype),
                       reference_name, cs_dtype_name(expected->dtype));
    if (is_same_shape(expected, found))
        return CS_OK;
    CS_AUTO(cs_buffer) is = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) should_be = CS_BUFFER_EMPTY;
    put_shape(&is, found);
    put_shape(&should_be, expected);
    return cs_fail(CS_INVALID, "tensor '%s': shape %s, %s has %s", found->name, cs_buffer_text(&is), reference_name,
                   cs_buffer_text(&should_be));
}

cs_status cs_tensors_match(const cs_tensor_file *reference, const char *reference_name, const cs_tensor_file *file)
{
    for (size_t i = 0; i < cs_tensor_file_count(file); i++) {
        const cs_tensor_info *found = cs_tensor_file_info(file, i);
        const cs_tensor_info *expected = cs_tensor_file_find(reference, found->name);
        if (expected == NULL)
            return cs_fail(CS_INVALID, "tensor '%s' is unknown: %s has none of that name", found->name, reference_name);
        CS_TRY(match_one(expected, reference_name, found));
    }
    for (size_t i = 0; i < cs_tensor_file_count(reference); i++) {
        const char *name = cs_tensor_file_info(reference, i)->name;
        if (cs_tensor_file_find(file, name) == NULL)
            return cs_fail(CS_INVALID, "tensor '%s' is missing: %s has it", name, reference_name);
    }
    return CS_OK;
}

static cs_status check_values(const cs_tensor_file *file)
{
    CS_AUTO(cs_buffer) chunk = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&chunk, CS_AGGREGATE_CHUNK_BYTES);
    for (size_t i = 0; i < cs_tensor_file_count(file); i++) {
        const cs_tensor_info *info = cs_tensor_file_info(file, i);
        const size_t element_size = cs_dtype_size(info->dtype);
        for (uint64_t offset = 0; offset < info->size_bytes; offset += CS_AGGREGATE_CHUNK_BYTES) {
            const size_t size = (size_t)CS_MIN(info->size_bytes - offset, (uint64_t)CS_AGGREGATE_CHUNK_BYTES);
            CS_TRY(cs_tensor_file_read(file, info, offset, chunk.data, size));
            const size_t count = size / element_size;
            const size_t first = cs_elements_first_unusable(info->dtype, chunk.data, count);
            if (first < count)
                return cs_fail(CS_INVALID, "tensor '%s': element %" PRIu64 " is %s", info->name,
                               offset / element_size + first,
                               info->dtype == CS_BOOL ? "neither true nor false" : "not finite");
        }
    }
    return CS_OK;
}

cs_status cs_update_check(const char *model_path, const char *update_path)
{
    CS_AUTO_PTR(cs_tensor_file) model = NULL;
    CS_AUTO_PTR(cs_tensor_file) update = NULL;
    CS_TRY(cs_tensor_file_open(model_path, &model));
    CS_TRY(cs_tensor_file_open(update_path, &update));
    CS_TRY(cs_tensors_match(model, "the model", update));
    return check_values(update);
}

cs_status cs_tensors_check_finite(const char *path)
{
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    CS_TRY(cs_tensor_file_open(path, &file));
    return check_values(file);
}
