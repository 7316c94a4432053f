/* Work on the chunks of a file's tensors by several threads at once. Private to this folder. */
#ifndef CS_AGGREGATE_CHUNKS_H
#define CS_AGGREGATE_CHUNKS_H

#include "common/tensors/safetensors.h"

typedef struct cs_chunk {
    size_t tensor;   /* index in the file */
    uint64_t offset; /* in bytes, within the tensor */
    size_t size;     /* in bytes; whole elements, at most CS_AGGREGATE_CHUNK_BYTES */
} cs_chunk;

/* Called from several threads at once; `workspace` is the thread's own. */
typedef cs_status (*cs_chunk_work)(void *self, void *workspace, const cs_chunk *chunk);

/* Calls `work` once for every chunk of every tensor, on `threads` threads (the caller is one of them), each with a
 * workspace of its own of workspace_size bytes. Stops at a failure and returns the one of the earliest chunk, so that
 * the sentence does not depend on the number of threads. */
CS_MUST_CHECK cs_status cs_chunks_run(const cs_tensor_file *file, size_t threads, cs_chunk_work work, void *self,
                                      size_t workspace_size);

#endif
