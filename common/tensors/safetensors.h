/* safetensors files without libtorch: read by pread, written in one pass. Strict reader: header ≤ 1 MiB, checked
 * products, offsets ascending, without gaps or overlap and covering the file, known dtypes, no duplicate names. Any
 * thread; one file object may be read by many threads at once. Format: github.com/huggingface/safetensors. */
#ifndef CS_TENSORS_SAFETENSORS_H
#define CS_TENSORS_SAFETENSORS_H

#include "common/base/bytes.h"

#define CS_SAFETENSORS_HEADER_MAX_BYTES (1024 * 1024)
#define CS_TENSOR_RANK_MAX              8
#define CS_TENSOR_NAME_MAX              255

typedef enum cs_dtype { CS_F64, CS_F32, CS_F16, CS_BF16, CS_I64, CS_I32, CS_I16, CS_I8, CS_U8, CS_BOOL } cs_dtype;
size_t cs_dtype_size(cs_dtype dtype);
const char *cs_dtype_name(cs_dtype dtype); /* "F32" */

typedef struct cs_tensor_info {
    const char *name;
    cs_dtype dtype;
    size_t rank;
    uint64_t shape[CS_TENSOR_RANK_MAX];
    uint64_t offset;     /* from the beginning of the file; the writer ignores it */
    uint64_t size_bytes; /* product of the shape × size of the dtype; the writer computes it */
} cs_tensor_info;

typedef struct cs_tensor_file cs_tensor_file;
/* Errors name `path` and what is wrong, never a value. The second takes its own duplicate of `fd`. */
CS_MUST_CHECK cs_status cs_tensor_file_open(const char *path, cs_tensor_file **ret);
CS_MUST_CHECK cs_status cs_tensor_file_open_fd(int fd, const char *name, cs_tensor_file **ret);
/* Header only, for fuzzing and tests: the first bytes of a file of file_size bytes. */
CS_MUST_CHECK cs_status cs_tensor_header_parse(cs_bytes bytes, uint64_t file_size, const char *name,
                                               cs_tensor_file **ret);
void cs_tensor_file_free(cs_tensor_file *file);
CS_DEFINE_AUTO_PTR(cs_tensor_file)
size_t cs_tensor_file_count(const cs_tensor_file *file);
/* In file order. */
const cs_tensor_info *cs_tensor_file_info(const cs_tensor_file *file, size_t index);
/* NULL when there is none. */
const cs_tensor_info *cs_tensor_file_find(const cs_tensor_file *file, const char *name);
const char *cs_tensor_file_metadata(const cs_tensor_file *file, const char *key); /* NULL when absent */
size_t cs_tensor_file_metadata_count(const cs_tensor_file *file);
void cs_tensor_file_metadata_at(const cs_tensor_file *file, size_t index, const char **ret_key, const char **ret_value);
CS_MUST_CHECK cs_status cs_tensor_file_read(const cs_tensor_file *file, const cs_tensor_info *info, uint64_t offset,
                                            void *data, size_t size);

typedef struct cs_metadata_item {
    const char *key, *value;
} cs_metadata_item;

/* Writes to PATH.partial, which takes the name `path` only at commit. Wide dtypes come first, then the order given, so
 * that every tensor is aligned; the bytes of a file are a function of infos, metadata and data alone. CS_INVALID for
 * whatever the reader would refuse. One writer for a path at a time. */
typedef struct cs_tensor_writer cs_tensor_writer;
CS_MUST_CHECK cs_status cs_tensor_writer_open(const char *path, const cs_tensor_info *infos, size_t count,
                                              const cs_metadata_item *metadata, size_t metadata_count,
                                              cs_tensor_writer **ret);
/* Any order, any thread; `index` is that of `infos`. CS_RANGE when it does not fit. */
CS_MUST_CHECK cs_status cs_tensor_writer_put(cs_tensor_writer *writer, size_t index, uint64_t offset, const void *data,
                                             size_t size);
/* fsync, rename, fsync of the folder. CS_STATE when bytes are missing; after any other failure write the file anew. */
CS_MUST_CHECK cs_status cs_tensor_writer_commit(cs_tensor_writer *writer);
/* Without commit the file is removed. */
void cs_tensor_writer_free(cs_tensor_writer *writer);
CS_DEFINE_AUTO_PTR(cs_tensor_writer)

#endif
