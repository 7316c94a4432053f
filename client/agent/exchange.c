/* Files to and from a task's folder, and what may leave the building. Worker thread of the agent. */
#include "client/agent/exchange.h"

#include "client/agent/alignment.h"
#include "common/base/failpoint.h"
#include "common/tensors/safetensors.h"

#include <fcntl.h>
#include <string.h>

/* What was read is still in the processor's cache when it is hashed and written. */
#define COPY_BYTES (256 * 1024)
#define GIB        (1024ULL * 1024 * 1024)

static const cs_phase_rule rules[] = {
    {.phase = "initialize", .output = "model", .output_bytes = 64 * GIB},
    {.phase = "statistics", .output = "statistics", .output_bytes = 64 * 1024 * 1024},
    {.phase = "train",
     .output = "update",
     .is_shaped = true,
     .output_bytes = CS_SAFETENSORS_HEADER_MAX_BYTES,
     .kept = "optimizer"},
    {.phase = "evaluate"},
    /* Of an alignment: what is sealed for which site is the table in sealed.c. */
    {.phase = "agree", .is_sealed = true},
    {.phase = "mask", .is_sealed = true},
    {.phase = "hop", .is_sealed = true},
    {.phase = "compare", .is_sealed = true},
    {.phase = "cohort", .is_sealed = true},
};

const cs_phase_rule *cs_phase_rule_find(const char *phase)
{
    cs_alignment_step step;
    uint32_t stop = 0;
    if (strncmp(phase, "hop", 3) == 0) /* "hop1" … */
        phase = cs_alignment_phase(phase, 0, &step, &stop) ? "hop" : "";
    for (size_t i = 0; i < CS_COUNT(rules); i++)
        if (strcmp(rules[i].phase, phase) == 0)
            return &rules[i];
    return NULL;
}

/* At most max_bytes: the file may still be growing under a hostile hand. `digest` gets what was written; NULL: nobody
 * asks. */
static cs_status copy(int from, uint64_t max_bytes, const char *to_path, cs_digest *digest, uint64_t *ret_size)
{
    CS_AUTO(cs_fd) to = -1;
    CS_TRY(cs_file_open(to_path, O_WRONLY | O_CREAT | O_TRUNC, 0600, &to));
    CS_AUTO(cs_buffer) chunk = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&chunk, COPY_BYTES);
    for (uint64_t done = 0;;) {
        size_t count = 0;
        CS_TRY(cs_file_read(from, chunk.data, COPY_BYTES, &count));
        if (count == 0) {
            *ret_size = done;
            return cs_file_close(&to);
        }
        done += count;
        if (done > max_bytes)
            return cs_fail(CS_EXHAUSTED, "more than %llu bytes", (unsigned long long)max_bytes);
        if (digest != NULL)
            cs_digest_add(digest, chunk.data, count);
        CS_TRY(cs_file_write(to, chunk.data, count));
    }
}

/* A copy and no link: through a link the worker could change the blob that the agent compares its update with. */
cs_status cs_exchange_give(cs_blobs *blobs, const cs_hash *blob, const char *folder, const char *file)
{
    CS_AUTO(cs_fd) from = -1;
    uint64_t size = 0;
    CS_TRY(cs_blobs_open_read(blobs, blob, &from, &size));
    CS_AUTO(cs_string) path = cs_path_join(folder, file);
    CS_FAILPOINT("agent.exchange.give");
    return copy(from, size, path, NULL, &size);
}

/* All exponent bits set: infinite or not a number. In blocks of fixed length without a way out: those the compiler
 * turns into vectors. */
#define FINITE_BLOCK 256
#define DEFINE_ALL_FINITE(name, type, exponent)                                                                        \
    static bool name(const type *values, size_t count)                                                                 \
    {                                                                                                                  \
        for (; count >= FINITE_BLOCK; values += FINITE_BLOCK, count -= FINITE_BLOCK) {                                 \
            type found = 0;                                                                                            \
            for (size_t i = 0; i < FINITE_BLOCK; i++)                                                                  \
                found |= (type)((values[i] & (type)(exponent)) == (type)(exponent));                                   \
            if (found)                                                                                                 \
                return false;                                                                                          \
        }                                                                                                              \
        for (size_t i = 0; i < count; i++)                                                                             \
            if ((values[i] & (type)(exponent)) == (type)(exponent))                                                    \
                return false;                                                                                          \
        return true;                                                                                                   \
    }
DEFINE_ALL_FINITE(all_finite_f64, uint64_t, 0x7FF0000000000000ULL)
DEFINE_ALL_FINITE(all_finite_f32, uint32_t, 0x7F800000U)
DEFINE_ALL_FINITE(all_finite_f16, uint16_t, 0x7C00U)
DEFINE_ALL_FINITE(all_finite_bf16, uint16_t, 0x7F80U)

static bool has_only_finite(cs_dtype dtype, const void *data, size_t size)
{
    switch (dtype) {
    case CS_F64:
        return all_finite_f64(data, size / 8);
    case CS_F32:
        return all_finite_f32(data, size / 4);
    case CS_F16:
        return all_finite_f16(data, size / 2);
    case CS_BF16:
        return all_finite_bf16(data, size / 2);
    default:
        return true;
    }
}

static cs_status check_finite(const cs_tensor_file *file, const char *name)
{
    CS_AUTO(cs_buffer) chunk = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&chunk, COPY_BYTES);
    for (size_t i = 0; i < cs_tensor_file_count(file); i++) {
        const cs_tensor_info *info = cs_tensor_file_info(file, i);
        for (uint64_t offset = 0; offset < info->size_bytes; offset += COPY_BYTES) {
            const size_t count = (size_t)CS_MIN(info->size_bytes - offset, (uint64_t)COPY_BYTES);
            CS_TRY(cs_tensor_file_read(file, info, offset, chunk.data, count));
            if (!has_only_finite(info->dtype, chunk.data, count))
                return cs_fail(CS_INVALID, "%s: tensor '%s' has a value that is not finite", name, info->name);
        }
    }
    return CS_OK;
}

static cs_status check_same_tensors(const cs_tensor_file *file, const cs_tensor_file *model, const char *name)
{
    if (cs_tensor_file_count(file) != cs_tensor_file_count(model))
        return cs_fail(CS_INVALID, "%s: %zu tensors, the model has %zu", name, cs_tensor_file_count(file),
                       cs_tensor_file_count(model));
    for (size_t i = 0; i < cs_tensor_file_count(file); i++) {
        const cs_tensor_info *info = cs_tensor_file_info(file, i);
        const cs_tensor_info *expected = cs_tensor_file_find(model, info->name);
        if (expected == NULL)
            return cs_fail(CS_INVALID, "%s: tensor '%s' is not one of the model", name, info->name);
        if (info->dtype != expected->dtype || info->rank != expected->rank ||
            memcmp(info->shape, expected->shape, info->rank * sizeof(info->shape[0])) != 0)
            return cs_fail(CS_INVALID, "%s: tensor '%s' has another type or shape than in the model", name, info->name);
    }
    return CS_OK;
}

static cs_status open_tensors(const char *path, const char *name, cs_tensor_file **ret)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));
    return cs_tensor_file_open_fd(fd, name, ret);
}

cs_status cs_exchange_check(const char *path, const char *model_path, const char *name)
{
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    CS_TRY(open_tensors(path, name, &file));
    if (model_path != NULL) {
        CS_AUTO_PTR(cs_tensor_file) model = NULL;
        CS_TRY(open_tensors(model_path, "model", &model));
        CS_TRY(check_same_tensors(file, model, name));
    }
    return check_finite(file, name);
}

static cs_status size_of(const char *path, uint64_t *ret)
{
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));
    return cs_file_size(fd, ret);
}

static cs_status largest_output(const cs_phase_rule *rule, const char *model_path, uint64_t *ret)
{
    *ret = rule->output_bytes;
    if (!rule->is_shaped)
        return CS_OK;
    if (model_path == NULL)
        return cs_fail(CS_INVALID, "%s: there was no model to compare it with", rule->output);
    uint64_t size = 0;
    CS_TRY(size_of(model_path, &size));
    *ret += size;
    return CS_OK;
}

cs_status cs_exchange_take(cs_blobs *blobs, const cs_phase_rule *rule, const char *folder, const char *file,
                           const char *model_path, const char *staging_path, cs_hash *ret, uint64_t *ret_size)
{
    uint64_t largest = 0, size = 0;
    CS_TRY(largest_output(rule, model_path, &largest));
    CS_AUTO(cs_fd) inside = -1, written = -1;
    CS_TRY(cs_file_open(folder, O_RDONLY | O_DIRECTORY, 0, &inside));
    CS_TRY(cs_file_open_beneath(inside, file, largest, &written, &size));
    CS_AUTO_PTR(cs_digest) digest = cs_digest_new();
    CS_TRY(copy(written, largest, staging_path, digest, ret_size));
    cs_status status = cs_exchange_check(staging_path, rule->is_shaped ? model_path : NULL, rule->output);
    if (status == CS_OK)
        status = cs_failpoint("agent.exchange.take");
    if (status != CS_OK) {
        CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
        CS_IGNORE(cs_file_remove(staging_path), "the folder is emptied at the next start");
        return cs_fail(status, "%s", sentence);
    }
    *ret = cs_digest_end(digest);
    return cs_blobs_adopt_hashed(blobs, staging_path, ret);
}

cs_status cs_exchange_take_kept(cs_blobs *blobs, const cs_phase_rule *rule, const char *folder, const char *file,
                                const char *model_path, const char *staging_path, cs_hash *ret)
{
    uint64_t model_size = 0, size = 0;
    if (model_path != NULL)
        CS_TRY(size_of(model_path, &model_size));
    const cs_phase_rule kept = {.phase = rule->phase,
                                .output = rule->kept,
                                .output_bytes = CS_KEPT_MODELS * model_size + CS_SAFETENSORS_HEADER_MAX_BYTES};
    return cs_exchange_take(blobs, &kept, folder, file, NULL, staging_path, ret, &size);
}
