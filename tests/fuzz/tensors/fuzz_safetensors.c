/* Any bytes as the beginning of a safetensors file. What is accepted must lie inside the file and say the same when it
 * is asked again. */
#include "common/tensors/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    if (cs_tensor_header_parse(cs_bytes_of(data, size), size, "fuzz", &file) != CS_OK)
        return 0;
    for (size_t i = 0; i < cs_tensor_file_count(file); i++) {
        const cs_tensor_info *info = cs_tensor_file_info(file, i);
        if (info->offset > size || info->size_bytes > size - info->offset)
            abort();
        if (info->rank > CS_TENSOR_RANK_MAX || strlen(info->name) > CS_TENSOR_NAME_MAX)
            abort();
        if (cs_tensor_file_find(file, info->name) != info)
            abort();
    }
    for (size_t i = 0; i < cs_tensor_file_metadata_count(file); i++) {
        const char *key = NULL;
        const char *value = NULL;
        cs_tensor_file_metadata_at(file, i, &key, &value);
        if (cs_tensor_file_metadata(file, key) != value)
            abort();
    }
    return 0;
}
