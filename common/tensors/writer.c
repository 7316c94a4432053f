/* Writes safetensors files: the header first, then the data in any order, then one rename. The worker, the aggregation
 * and the tests call it. Any thread. */
#include "common/base/failpoint.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/tensors/layout.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_ALIGNMENT 8

struct cs_tensor_writer {
    cs_fd fd;
    char *path;
    char *partial_path; /* NULL once the file has its name */
    cs_tensor_file *header;
    const cs_tensor_info **infos; /* in the caller's order */
    size_t count;
    uint64_t data_size;
    atomic_uint_fast64_t written;
    atomic_bool has_failed;
};

/* Wide types first, then as given: so every tensor is aligned to its type, which readers that map the file count on. */
static int by_width(const void *left, const void *right)
{
    const cs_tensor_info *a = *(const cs_tensor_info *const *)left;
    const cs_tensor_info *b = *(const cs_tensor_info *const *)right;
    size_t a_size = cs_dtype_size(a->dtype);
    size_t b_size = cs_dtype_size(b->dtype);
    if (a_size != b_size)
        return a_size > b_size ? -1 : 1;
    return a < b ? -1 : a > b;
}

static cs_status put_tensor(cs_json *json, const cs_tensor_info *info, uint64_t *offset)
{
    cs_tensor_info measured = *info;
    CS_TRY(cs_tensor_measure(&measured));
    uint64_t end = 0;
    if (__builtin_add_overflow(*offset, measured.size_bytes, &end) || end > INT64_MAX)
        return cs_fail(CS_INVALID, "the file would be larger than 63 bits can say");
    cs_json_object(json, info->name);
    cs_json_text(json, "dtype", cs_dtype_name(info->dtype));
    cs_json_list(json, "shape");
    for (size_t i = 0; i < info->rank; i++)
        cs_json_uint(json, NULL, info->shape[i]);
    cs_json_end(json, ']');
    cs_json_list(json, "data_offsets");
    cs_json_uint(json, NULL, *offset);
    cs_json_uint(json, NULL, end);
    cs_json_end(json, ']');
    cs_json_end(json, '}');
    *offset = end;
    return CS_OK;
}

/* The length and the padded JSON. */
static cs_status build_header(const cs_tensor_info *const *sorted, size_t count, const cs_metadata_item *metadata,
                              size_t metadata_count, cs_buffer *out, uint64_t *ret_data_size)
{
    uint8_t length[CS_SAFETENSORS_LENGTH_BYTES] = {0};
    cs_buffer_append(out, length, sizeof length);
    cs_json json = cs_json_to(out);
    cs_json_object(&json, NULL);
    if (metadata_count > 0) {
        cs_json_object(&json, CS_SAFETENSORS_METADATA_KEY);
        for (size_t i = 0; i < metadata_count; i++)
            cs_json_text(&json, metadata[i].key, metadata[i].value);
        cs_json_end(&json, '}');
    }
    uint64_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        cs_status status = put_tensor(&json, sorted[i], &offset);
        if (status != CS_OK)
            return cs_wrap(status, "tensor '%s'", sorted[i]->name);
    }
    cs_json_end(&json, '}');
    while (out->size % HEADER_ALIGNMENT != 0)
        cs_buffer_append(out, " ", 1);
    cs_store_le64(out->data, out->size - CS_SAFETENSORS_LENGTH_BYTES);
    *ret_data_size = offset;
    return CS_OK;
}

static cs_status make_header(cs_tensor_writer *writer, const cs_tensor_info *infos, const cs_metadata_item *metadata,
                             size_t metadata_count, cs_buffer *out)
{
    const cs_tensor_info **sorted = writer->infos;
    for (size_t i = 0; i < writer->count; i++)
        sorted[i] = &infos[i];
    qsort(sorted, writer->count, sizeof *sorted, by_width);
    CS_TRY(build_header(sorted, writer->count, metadata, metadata_count, out, &writer->data_size));

    /* What the reader would refuse (a name twice, a name that is no UTF-8, a header too large) is refused here. */
    uint64_t file_size = out->size + writer->data_size;
    CS_TRY(cs_tensor_header_parse(cs_buffer_view(out), file_size, writer->path, &writer->header));
    if (cs_tensor_file_count(writer->header) != writer->count)
        return cs_fail(CS_INVALID, "%s: a tensor cannot be called " CS_SAFETENSORS_METADATA_KEY, writer->path);
    for (size_t i = 0; i < writer->count; i++) {
        writer->infos[i] = cs_tensor_file_find(writer->header, infos[i].name);
        if (!writer->infos[i])
            return cs_fail(CS_INVALID, "%s: a tensor's name is no valid text", writer->path);
    }
    return CS_OK;
}

static cs_status make_file(cs_tensor_writer *writer, const cs_buffer *header)
{
    CS_FAILPOINT("tensors.open");
    /* One name for each target: what a crash left behind is overwritten by the next attempt. */
    CS_AUTO(cs_string) partial = cs_format("%s.partial", writer->path);
    CS_TRY(cs_file_open(partial, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600, &writer->fd));
    writer->partial_path = CS_TAKE(partial);
    CS_TRY(cs_file_truncate(writer->fd, header->size + writer->data_size));
    return cs_file_pwrite(writer->fd, header->data, header->size, 0);
}

cs_status cs_tensor_writer_open(const char *path, const cs_tensor_info *infos, size_t count,
                                const cs_metadata_item *metadata, size_t metadata_count, cs_tensor_writer **ret)
{
    CS_AUTO_PTR(cs_tensor_writer) writer = cs_alloc(sizeof *writer);
    writer->fd = -1;
    writer->path = cs_strdup(path);
    writer->count = count;
    writer->infos = cs_alloc_array(count, sizeof *writer->infos);
    CS_AUTO(cs_buffer) header = CS_BUFFER_EMPTY;
    CS_TRY(make_header(writer, infos, metadata, metadata_count, &header));
    CS_TRY(make_file(writer, &header));
    *ret = CS_TAKE(writer);
    return CS_OK;
}

cs_status cs_tensor_writer_put(cs_tensor_writer *writer, size_t index, uint64_t offset, const void *data, size_t size)
{
    if (index >= writer->count)
        return cs_fail(CS_RANGE, "%s: tensor %zu of %zu", writer->path, index, writer->count);
    const cs_tensor_info *info = writer->infos[index];
    if (offset > info->size_bytes || size > info->size_bytes - offset)
        return cs_fail(CS_RANGE, "%s: tensor '%s' has %" PRIu64 " bytes; %zu at %" PRIu64 " do not fit", writer->path,
                       info->name, info->size_bytes, size, offset);
    cs_status status = cs_file_pwrite(writer->fd, data, size, info->offset + offset);
    if (status != CS_OK)
        return cs_wrap(status, "%s: tensor '%s'", writer->path, info->name);
    atomic_fetch_add(&writer->written, size);
    return CS_OK;
}

static cs_status commit(cs_tensor_writer *writer)
{
    CS_FAILPOINT("tensors.sync");
    CS_TRY(cs_file_sync(writer->fd));
    CS_TRY(cs_file_close(&writer->fd));
    CS_FAILPOINT("tensors.rename");
    CS_TRY(cs_file_rename(writer->partial_path, writer->path));
    cs_free(writer->partial_path);
    writer->partial_path = NULL;
    return CS_OK;
}

cs_status cs_tensor_writer_commit(cs_tensor_writer *writer)
{
    uint64_t written = atomic_load(&writer->written);
    if (written < writer->data_size)
        return cs_fail(CS_STATE, "%s: %" PRIu64 " of %" PRIu64 " bytes were written", writer->path, written,
                       writer->data_size);
    /* After a failed fsync the kernel forgets which pages were lost, so a second one would lie. */
    if (!writer->partial_path || atomic_exchange(&writer->has_failed, true))
        return cs_fail(CS_STATE, "%s: it was committed before, or that failed: write it anew", writer->path);
    return commit(writer);
}

void cs_tensor_writer_free(cs_tensor_writer *writer)
{
    if (!writer)
        return;
    cs_fd_clear(&writer->fd);
    if (writer->partial_path)
        CS_IGNORE(cs_file_remove(writer->partial_path), "the next attempt overwrites it");
    cs_tensor_file_free(writer->header);
    cs_free(writer->infos);
    cs_free(writer->partial_path);
    cs_free(writer->path);
    cs_free(writer);
}
