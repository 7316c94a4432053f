/* Named tensors and their files. Called by client/worker and the models, on the worker's main thread. */
#include "client/nn/parameters.h"

#include <string.h>

struct entry {
    char *name;
    cs_tensor *value;
};

struct cs_parameters {
    struct entry *entries;
    size_t count;
};

cs_parameters *cs_parameters_new(void)
{
    return cs_alloc(sizeof(cs_parameters));
}

void cs_parameters_free(cs_parameters *parameters)
{
    if (parameters == NULL)
        return;
    for (size_t i = 0; i < parameters->count; i++) {
        cs_free(parameters->entries[i].name);
        cs_tensor_free(parameters->entries[i].value);
    }
    cs_free(parameters->entries);
    cs_free(parameters);
}

static struct entry *find(const cs_parameters *parameters, const char *name)
{
    for (size_t i = 0; i < parameters->count; i++) {
        if (strcmp(parameters->entries[i].name, name) == 0)
            return &parameters->entries[i];
    }
    return NULL;
}

cs_status cs_parameters_put(cs_parameters *parameters, const char *name, const cs_tensor *value)
{
    CS_SCOPE(scope);
    cs_tensor *kept = cs_tensor_keep(value);
    if (kept == NULL) {
        CS_TRY(cs_scope_status(scope));
        return cs_fail(CS_INTERNAL, "parameter '%s' has no value", name);
    }
    struct entry *entry = find(parameters, name);
    if (entry != NULL) {
        cs_tensor_free(entry->value);
        entry->value = kept;
        return CS_OK;
    }
    parameters->entries = cs_realloc(parameters->entries, (parameters->count + 1) * sizeof *parameters->entries);
    parameters->entries[parameters->count++] = (struct entry){cs_strdup(name), kept};
    return CS_OK;
}

cs_tensor *cs_parameter(const cs_parameters *parameters, const char *name)
{
    const struct entry *entry = find(parameters, name);
    return entry != NULL ? entry->value : cs_tensor_fail(CS_NOT_FOUND, "the model has no parameter '%s'", name);
}

size_t cs_parameters_count(const cs_parameters *parameters)
{
    return parameters->count;
}

const char *cs_parameters_name(const cs_parameters *parameters, size_t index)
{
    return parameters->entries[index].name;
}

cs_tensor *cs_parameters_at(const cs_parameters *parameters, size_t index)
{
    return parameters->entries[index].value;
}

cs_status cs_parameters_clone(const cs_parameters *parameters, cs_parameters **ret)
{
    CS_AUTO_PTR(cs_parameters) copy = cs_parameters_new();
    for (size_t i = 0; i < parameters->count; i++) {
        CS_SCOPE(scope);
        cs_tensor *value = cs_tensor_clone(cs_detach(parameters->entries[i].value));
        CS_TRY(cs_scope_status(scope));
        CS_TRY(cs_parameters_put(copy, parameters->entries[i].name, value));
    }
    *ret = CS_TAKE(copy);
    return CS_OK;
}

cs_status cs_parameters_subtract(const cs_parameters *a, const cs_parameters *b, cs_parameters **ret)
{
    CS_TRY(cs_parameters_check_same(a, b, "the trained model"));
    CS_AUTO_PTR(cs_parameters) difference = cs_parameters_new();
    for (size_t i = 0; i < a->count; i++) {
        CS_SCOPE(scope);
        cs_tensor *value = cs_subtract(cs_detach(a->entries[i].value), cs_parameter(b, a->entries[i].name));
        CS_TRY(cs_scope_status(scope));
        CS_TRY(cs_parameters_put(difference, a->entries[i].name, value));
    }
    *ret = CS_TAKE(difference);
    return CS_OK;
}

cs_status cs_parameters_require_gradients(const cs_parameters *parameters)
{
    for (size_t i = 0; i < parameters->count; i++)
        CS_TRY(cs_require_gradient(parameters->entries[i].value));
    return CS_OK;
}

cs_status cs_parameters_check_finite(const cs_parameters *parameters, const char *what)
{
    for (size_t i = 0; i < parameters->count; i++) {
        CS_AUTO(cs_string) name = cs_format("%s: tensor '%s'", what, parameters->entries[i].name);
        CS_TRY(cs_tensor_check_finite(parameters->entries[i].value, name));
    }
    return CS_OK;
}

/* A file's tensor as a new entry of the table. */
static cs_status load_one(const cs_tensor_file *file, const cs_tensor_info *info, cs_parameters *parameters)
{
    void *data = NULL;
    CS_TRY(cs_alloc_peer((size_t)info->size_bytes, 1, info->name, &data));
    CS_AUTO(cs_string) owned = data;
    CS_TRY(cs_tensor_file_read(file, info, 0, owned, (size_t)info->size_bytes));

    CS_SCOPE(scope);
    cs_tensor *value = cs_tensor_from(info->dtype, info->rank, info->shape, owned, (size_t)info->size_bytes);
    CS_TRY(cs_scope_status(scope));
    return cs_parameters_put(parameters, info->name, value);
}

cs_status cs_parameters_load(const char *path, cs_parameters **ret)
{
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    CS_TRY(cs_tensor_file_open(path, &file));
    const size_t count = cs_tensor_file_count(file);
    if (count > CS_PARAMETERS_MAX)
        return cs_fail(CS_EXHAUSTED, "%s: %zu tensors, at most %d are read", path, count, CS_PARAMETERS_MAX);

    CS_AUTO_PTR(cs_parameters) parameters = cs_parameters_new();
    for (size_t i = 0; i < count; i++)
        CS_TRY(load_one(file, cs_tensor_file_info(file, i), parameters));
    *ret = CS_TAKE(parameters);
    return CS_OK;
}

/* "[1, 13]"; free with cs_free. */
static char *shape_text(const cs_tensor *tensor)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&text, "[");
    for (size_t i = 0; i < cs_tensor_rank(tensor); i++)
        cs_buffer_printf(&text, "%s%llu", i > 0 ? ", " : "", (unsigned long long)cs_tensor_size(tensor, i));
    cs_buffer_append_text(&text, "]");
    return cs_buffer_take_text(&text);
}

static cs_status check_same_tensor(const char *what, const char *name, const cs_tensor *found,
                                   const cs_tensor *expected)
{
    cs_dtype found_dtype = CS_F32, expected_dtype = CS_F32;
    CS_TRY(cs_tensor_dtype(found, &found_dtype));
    CS_TRY(cs_tensor_dtype(expected, &expected_dtype));
    if (found_dtype != expected_dtype)
        return cs_fail(CS_INVALID, "%s: tensor '%s' is %s, expected %s", what, name, cs_dtype_name(found_dtype),
                       cs_dtype_name(expected_dtype));

    CS_AUTO(cs_string) found_shape = shape_text(found);
    CS_AUTO(cs_string) expected_shape = shape_text(expected);
    if (strcmp(found_shape, expected_shape) != 0)
        return cs_fail(CS_INVALID, "%s: tensor '%s' has shape %s, expected %s", what, name, found_shape,
                       expected_shape);
    return CS_OK;
}

cs_status cs_parameters_check_same(const cs_parameters *parameters, const cs_parameters *expected, const char *what)
{
    for (size_t i = 0; i < expected->count; i++) {
        const struct entry *entry = find(parameters, expected->entries[i].name);
        if (entry == NULL)
            return cs_fail(CS_INVALID, "%s: no tensor '%s'", what, expected->entries[i].name);
        CS_TRY(check_same_tensor(what, entry->name, entry->value, expected->entries[i].value));
    }
    for (size_t i = 0; i < parameters->count; i++) {
        if (find(expected, parameters->entries[i].name) == NULL)
            return cs_fail(CS_INVALID, "%s: unknown tensor '%s'", what, parameters->entries[i].name);
    }
    return CS_OK;
}

static cs_status put_into_file(cs_tensor_writer *writer, size_t index, const cs_tensor *value, cs_dtype dtype)
{
    const size_t size = (size_t)cs_tensor_elements(value) * cs_dtype_size(dtype);
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    CS_TRY(cs_buffer_reserve_peer(&bytes, size, "a tensor's bytes"));
    CS_TRY(cs_tensor_copy_out(value, bytes.data, size));
    return cs_tensor_writer_put(writer, index, 0, bytes.data, size);
}

cs_status cs_parameters_save(const cs_parameters *parameters, const char *path, const cs_metadata_item *metadata,
                             size_t metadata_count)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(0);
    cs_tensor_info *infos = cs_arena_alloc(arena, CS_MAX(parameters->count, 1) * sizeof *infos);
    for (size_t i = 0; i < parameters->count; i++) {
        const cs_tensor *value = parameters->entries[i].value;
        infos[i].name = parameters->entries[i].name;
        infos[i].rank = cs_tensor_rank(value);
        if (infos[i].rank > CS_TENSOR_RANK_MAX)
            return cs_fail(CS_INVALID, "tensor '%s' has %zu dimensions, a file holds at most %d", infos[i].name,
                           infos[i].rank, CS_TENSOR_RANK_MAX);
        CS_TRY(cs_tensor_dtype(value, &infos[i].dtype));
        for (size_t k = 0; k < infos[i].rank; k++)
            infos[i].shape[k] = cs_tensor_size(value, k);
    }

    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    CS_TRY(cs_tensor_writer_open(path, infos, parameters->count, metadata, metadata_count, &writer));
    for (size_t i = 0; i < parameters->count; i++)
        CS_TRY(put_into_file(writer, i, parameters->entries[i].value, infos[i].dtype));
    return cs_tensor_writer_commit(writer);
}
