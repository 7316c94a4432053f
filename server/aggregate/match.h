/* Do two files hold the same tensors? Private to this folder; any thread. */
#ifndef CS_AGGREGATE_MATCH_H
#define CS_AGGREGATE_MATCH_H

#include "common/tensors/safetensors.h"

/* The same names, dtypes and shapes, in any order? CS_INVALID names the first tensor that is not. `reference_name` is
 * what the sentence calls the reference: "the model". */
CS_MUST_CHECK cs_status cs_tensors_match(const cs_tensor_file *reference, const char *reference_name,
                                         const cs_tensor_file *file);

#endif
