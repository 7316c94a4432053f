/* Reads safetensors files: a length, a JSON header, the data. Everything in the header is hostile until it was checked
 * here; what callers see afterwards can be trusted to lie inside the file. Any thread. */
#include "common/tensors/safetensors.h"

#include "common/base/file.h"
#include "common/tensors/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Names and infos of the largest header fit several times; it is a bound, not an estimate. */
#define NAMES_MAX_BYTES (4 * CS_SAFETENSORS_HEADER_MAX_BYTES)

struct cs_tensor_file {
    cs_fd fd; /* -1: only the header was parsed */
    char *name;
    cs_arena *names;
    cs_tensor_info *infos; /* by offset */
    size_t count;
    const cs_tensor_info **by_name;
    cs_metadata_item *metadata;
    size_t metadata_count;
};

typedef json_t *json_value;
static void json_value_clear(json_value *value)
{
    json_decref(*value);
}

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [CS_F64] = {"F64", 8}, [CS_F32] = {"F32", 4},   [CS_F16] = {"F16", 2}, [CS_BF16] = {"BF16", 2},
    [CS_I64] = {"I64", 8}, [CS_I32] = {"I32", 4},   [CS_I16] = {"I16", 2}, [CS_I8] = {"I8", 1},
    [CS_U8] = {"U8", 1},   [CS_BOOL] = {"BOOL", 1},
};

size_t cs_dtype_size(cs_dtype dtype)
{
    return dtypes[dtype].size;
}

const char *cs_dtype_name(cs_dtype dtype)
{
    return dtypes[dtype].name;
}

static cs_status dtype_parse(const char *text, cs_dtype *ret)
{
    for (size_t i = 0; i < CS_COUNT(dtypes); i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            *ret = (cs_dtype)i;
            return CS_OK;
        }
    }
    return cs_fail(CS_INVALID, "dtype '%.32s' is not supported", text);
}

cs_status cs_tensor_measure(cs_tensor_info *info)
{
    if (info->rank > CS_TENSOR_RANK_MAX)
        return cs_fail(CS_INVALID, "%zu dimensions, at most %d are supported", info->rank, CS_TENSOR_RANK_MAX);
    uint64_t size = cs_dtype_size(info->dtype);
    for (size_t i = 0; i < info->rank; i++) {
        if (__builtin_mul_overflow(size, info->shape[i], &size))
            return cs_fail(CS_INVALID, "the product of the shape is larger than 64 bits");
    }
    info->size_bytes = size;
    return CS_OK;
}

/* A value that must be there, of a kind. */
static cs_status member(const json_t *object, const char *key, json_type type, const char *kind, const json_t **ret)
{
    *ret = json_object_get(object, key);
    if (!*ret)
        return cs_fail(CS_INVALID, "'%s' is missing", key);
    if (json_typeof(*ret) != type)
        return cs_fail(CS_INVALID, "'%s' is not %s", key, kind);
    return CS_OK;
}

static cs_status natural(const json_t *value, const char *what, uint64_t *ret)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return cs_fail(CS_INVALID, "'%s' has an entry that is not a whole number from 0 up", what);
    *ret = (uint64_t)json_integer_value(value);
    return CS_OK;
}

static cs_status parse_shape(const json_t *shape, cs_tensor_info *info)
{
    info->rank = json_array_size(shape);
    if (info->rank > CS_TENSOR_RANK_MAX)
        return cs_fail(CS_INVALID, "%zu dimensions, at most %d are supported", info->rank, CS_TENSOR_RANK_MAX);
    for (size_t i = 0; i < info->rank; i++)
        CS_TRY(natural(json_array_get(shape, i), "shape", &info->shape[i]));
    return cs_tensor_measure(info);
}

/* Fills dtype, shape and size; *offset becomes the beginning within the data. */
static cs_status parse_fields(const json_t *entry, uint64_t data_size, cs_tensor_info *info)
{
    const json_t *dtype = NULL;
    const json_t *shape = NULL;
    const json_t *offsets = NULL;
    if (!json_is_object(entry))
        return cs_fail(CS_INVALID, "its description is not an object");
    CS_TRY(member(entry, "dtype", JSON_STRING, "a text", &dtype));
    CS_TRY(member(entry, "shape", JSON_ARRAY, "a list", &shape));
    CS_TRY(member(entry, "data_offsets", JSON_ARRAY, "a list", &offsets));
    if (json_object_size(entry) != 3)
        return cs_fail(CS_INVALID, "it has other keys than dtype, shape and data_offsets");

    CS_TRY(dtype_parse(json_string_value(dtype), &info->dtype));
    CS_TRY(parse_shape(shape, info));
    if (json_array_size(offsets) != 2)
        return cs_fail(CS_INVALID, "'data_offsets' has %zu entries, not 2", json_array_size(offsets));
    uint64_t end = 0;
    CS_TRY(natural(json_array_get(offsets, 0), "data_offsets", &info->offset));
    CS_TRY(natural(json_array_get(offsets, 1), "data_offsets", &end));
    if (end < info->offset || end > data_size)
        return cs_fail(CS_INVALID,
                       "its data_offsets [%" PRIu64 ", %" PRIu64 "] are outside the data of %" PRIu64 " bytes",
                       info->offset, end, data_size);
    if (end - info->offset != info->size_bytes)
        return cs_fail(CS_INVALID, "its data_offsets hold %" PRIu64 " bytes, its shape needs %" PRIu64,
                       end - info->offset, info->size_bytes);
    return CS_OK;
}

static cs_status check_name(const char *name)
{
    size_t size = strlen(name);
    if (size == 0 || size > CS_TENSOR_NAME_MAX)
        return cs_fail(CS_INVALID, "a tensor's name has %zu bytes, 1 to %d are allowed", size, CS_TENSOR_NAME_MAX);
    for (const char *c = name; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return cs_fail(CS_INVALID, "a tensor's name has a control character");
    }
    return CS_OK;
}

static cs_status keep_text(cs_tensor_file *file, const char *text, const char **ret)
{
    *ret = cs_arena_strdup(file->names, text);
    return *ret ? CS_OK : cs_fail(CS_EXHAUSTED, "no memory for its names");
}

static cs_status parse_metadata(cs_tensor_file *file, json_t *metadata)
{
    if (!json_is_object(metadata))
        return cs_fail(CS_INVALID, "__metadata__ is not an object");
    void *items = NULL;
    CS_TRY(cs_alloc_peer(json_object_size(metadata), sizeof *file->metadata, "metadata", &items));
    file->metadata = items;
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return cs_fail(CS_INVALID, "__metadata__ has an entry that is not a text");
        cs_metadata_item *item = &file->metadata[file->metadata_count++];
        CS_TRY(keep_text(file, key, &item->key));
        CS_TRY(keep_text(file, json_string_value(value), &item->value));
    }
    return CS_OK;
}

/* Empty tensors share an offset with their neighbour; they come first, by name. */
static int by_offset(const void *left, const void *right)
{
    const cs_tensor_info *a = left;
    const cs_tensor_info *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    if ((a->size_bytes == 0) != (b->size_bytes == 0))
        return a->size_bytes == 0 ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int by_name(const void *left, const void *right)
{
    const cs_tensor_info *const *a = left;
    const cs_tensor_info *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

/* The tensors must follow each other without gap or overlap and end where the file ends. */
static cs_status check_cover(cs_tensor_file *file, uint64_t data_start, uint64_t data_size)
{
    uint64_t expected = 0;
    for (size_t i = 0; i < file->count; i++) {
        cs_tensor_info *info = &file->infos[i];
        if (info->offset != expected)
            return cs_fail(CS_INVALID, "tensor '%s' begins at %" PRIu64 " of the data, %s", info->name, info->offset,
                           info->offset < expected ? "inside the tensor before it" : "with a gap before it");
        expected += info->size_bytes;
        info->offset += data_start;
    }
    if (expected != data_size)
        return cs_fail(CS_INVALID, "%" PRIu64 " bytes of data belong to no tensor", data_size - expected);
    return CS_OK;
}

static cs_status parse_tensors(cs_tensor_file *file, json_t *root, uint64_t data_size)
{
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, CS_SAFETENSORS_METADATA_KEY) == 0) {
            CS_TRY(parse_metadata(file, value));
            continue;
        }
        CS_TRY(check_name(key));
        cs_tensor_info *info = &file->infos[file->count++];
        CS_TRY(keep_text(file, key, &info->name));
        cs_status status = parse_fields(value, data_size, info);
        if (status != CS_OK)
            return cs_wrap(status, "tensor '%s'", info->name);
    }
    return CS_OK;
}

static cs_status parse(cs_tensor_file *file, cs_bytes bytes, uint64_t file_size)
{
    if (bytes.size < CS_SAFETENSORS_LENGTH_BYTES || file_size < bytes.size)
        return cs_fail(CS_INVALID, "no safetensors file: it has %" PRIu64 " bytes", file_size);
    uint64_t header_size = cs_load_le64(bytes.data);
    if (header_size > CS_SAFETENSORS_HEADER_MAX_BYTES)
        return cs_fail(CS_INVALID,
                       "no safetensors file: its header would have %" PRIu64 " bytes, at most %d are allowed",
                       header_size, CS_SAFETENSORS_HEADER_MAX_BYTES);
    if (header_size > bytes.size - CS_SAFETENSORS_LENGTH_BYTES)
        return cs_fail(CS_INVALID, "it ends inside its header of %" PRIu64 " bytes", header_size);
    const char *text = (const char *)bytes.data + CS_SAFETENSORS_LENGTH_BYTES;
    if (header_size < 2 || text[0] != '{')
        return cs_fail(CS_INVALID, "its header does not begin with '{'");

    json_error_t error;
    CS_AUTO(json_value) root = json_loadb(text, (size_t)header_size, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return cs_fail(CS_INVALID, "its header is not valid JSON at byte %d: %s", error.position, error.text);

    void *memory = NULL;
    CS_TRY(cs_alloc_peer(json_object_size(root), sizeof *file->infos, "tensors", &memory));
    file->infos = memory;
    uint64_t data_start = CS_SAFETENSORS_LENGTH_BYTES + header_size;
    CS_TRY(parse_tensors(file, root, file_size - data_start));
    qsort(file->infos, file->count, sizeof *file->infos, by_offset);
    CS_TRY(check_cover(file, data_start, file_size - data_start));

    CS_TRY(cs_alloc_peer(file->count, sizeof *file->by_name, "tensors", &memory));
    file->by_name = memory;
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = &file->infos[i];
    qsort(file->by_name, file->count, sizeof *file->by_name, by_name);
    return CS_OK;
}

cs_status cs_tensor_header_parse(cs_bytes bytes, uint64_t file_size, const char *name, cs_tensor_file **ret)
{
    CS_AUTO_PTR(cs_tensor_file) file = cs_alloc(sizeof *file);
    file->fd = -1;
    file->name = cs_strdup(name);
    file->names = cs_arena_new(NAMES_MAX_BYTES);
    cs_status status = parse(file, bytes, file_size);
    if (status != CS_OK)
        return cs_wrap(status, "%s", name);
    *ret = CS_TAKE(file);
    return CS_OK;
}

/* Takes `fd` over on success. */
static cs_status open_owned(cs_fd *fd, const char *name, cs_tensor_file **ret)
{
    uint64_t file_size = 0;
    CS_TRY(cs_file_size(*fd, &file_size));
    /* No more is read than the largest header, whatever the first bytes claim. */
    uint64_t size = CS_MIN(file_size, (uint64_t)CS_SAFETENSORS_LENGTH_BYTES);
    CS_AUTO(cs_buffer) head = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&head, CS_SAFETENSORS_LENGTH_BYTES);
    CS_TRY(cs_file_pread_exact(*fd, head.data, (size_t)size, 0));
    if (size == CS_SAFETENSORS_LENGTH_BYTES) {
        uint64_t header_size = CS_MIN(cs_load_le64(head.data), (uint64_t)CS_SAFETENSORS_HEADER_MAX_BYTES);
        size = CS_MIN(file_size, header_size + CS_SAFETENSORS_LENGTH_BYTES);
        CS_TRY(cs_buffer_reserve_peer(&head, (size_t)size, name));
        CS_TRY(cs_file_pread_exact(*fd, head.data, (size_t)size, 0));
    }
    CS_TRY(cs_tensor_header_parse(cs_bytes_of(head.data, (size_t)size), file_size, name, ret));
    (*ret)->fd = *fd;
    *fd = -1;
    return CS_OK;
}

cs_status cs_tensor_file_open(const char *path, cs_tensor_file **ret)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));
    return open_owned(&fd, path, ret);
}

cs_status cs_tensor_file_open_fd(int fd, const char *name, cs_tensor_file **ret)
{
    CS_AUTO(cs_fd) own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return cs_fail_errno("%s: cannot duplicate its descriptor", name);
    return open_owned(&own, name, ret);
}

void cs_tensor_file_free(cs_tensor_file *file)
{
    if (!file)
        return;
    cs_fd_clear(&file->fd);
    cs_arena_free(file->names);
    cs_free(file->infos);
    cs_free(file->by_name);
    cs_free(file->metadata);
    cs_free(file->name);
    cs_free(file);
}

size_t cs_tensor_file_count(const cs_tensor_file *file)
{
    return file->count;
}

const cs_tensor_info *cs_tensor_file_info(const cs_tensor_file *file, size_t index)
{
    return &file->infos[index];
}

const cs_tensor_info *cs_tensor_file_find(const cs_tensor_file *file, const char *name)
{
    const cs_tensor_info wanted = {.name = name};
    const cs_tensor_info *key = &wanted;
    const cs_tensor_info **found = bsearch(&key, file->by_name, file->count, sizeof *file->by_name, by_name);
    return found ? *found : NULL;
}

const char *cs_tensor_file_metadata(const cs_tensor_file *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++) {
        if (strcmp(file->metadata[i].key, key) == 0)
            return file->metadata[i].value;
    }
    return NULL;
}

size_t cs_tensor_file_metadata_count(const cs_tensor_file *file)
{
    return file->metadata_count;
}

void cs_tensor_file_metadata_at(const cs_tensor_file *file, size_t index, const char **ret_key, const char **ret_value)
{
    *ret_key = file->metadata[index].key;
    *ret_value = file->metadata[index].value;
}

cs_status cs_tensor_file_read(const cs_tensor_file *file, const cs_tensor_info *info, uint64_t offset, void *data,
                              size_t size)
{
    if (file->fd < 0)
        return cs_fail(CS_STATE, "%s: only its header is here", file->name);
    if (offset > info->size_bytes || size > info->size_bytes - offset)
        return cs_fail(CS_RANGE, "%s: tensor '%s' has %" PRIu64 " bytes; %zu from %" PRIu64 " were asked for",
                       file->name, info->name, info->size_bytes, size, offset);
    cs_status status = cs_file_pread_exact(file->fd, data, size, info->offset + offset);
    if (status != CS_OK)
        return cs_wrap(status, "%s: tensor '%s'", file->name, info->name);
    return CS_OK;
}
