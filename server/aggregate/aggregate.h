/* Aggregation and the checks at its door: streaming passes over update files, without libtorch. Called by the engine's
 * fold on the aggregation threads. Memory is O(chunk × updates) for any model size. */
#ifndef CS_AGGREGATE_AGGREGATE_H
#define CS_AGGREGATE_AGGREGATE_H

#include "common/tensors/safetensors.h"

#define CS_AGGREGATE_CHUNK_BYTES (256 * 1024)

typedef struct cs_contribution {
    const char *site; /* for error sentences; the array is in site order */
    const char *path; /* safetensors of deltas (or of sums) */
    double weight;    /* not normalized: n_i, or 1 */
} cs_contribution;

/* Is this a usable update for `model`: the same tensor names, dtypes and shapes, every value finite? CS_INVALID with
 * the first thing wrong: "tensor 'linear.weight': shape [1, 12], the model has [1, 13]". Never prints a value. */
CS_MUST_CHECK cs_status cs_update_check(const char *model_path, const char *update_path);
/* The same for a stand-alone file (the initial model, statistics): readable and finite. */
CS_MUST_CHECK cs_status cs_tensors_check_finite(const char *path);

/* new = model + ((0 + p_1·delta_1) + p_2·delta_2 …), p_i = w_i / Σw, every operation in double, in array order, without
 * fused products, and the result rounded once to the tensor's dtype: to nearest, ties to even (F64, F32, F16, BF16;
 * integers too). Not a bit changes with `threads`. CS_INVALID names the site or tensor at fault: another layout than
 * the model's, a negative or non-finite weight, weights that add up to 0, a result that is not finite or does not fit.
 * `metadata` goes into the new file, which appears only when it is whole. McMahan et al. 2017, Algorithm 1. */
CS_MUST_CHECK cs_status cs_fedavg(const char *model_path, const cs_contribution *contributions, size_t count,
                                  size_t threads, const cs_metadata_item *metadata, size_t metadata_count,
                                  const char *output_path);
/* Σ file_i, tensor by tensor, for the sums of a statistics phase: F64 only, weights are not looked at. CS_INVALID where
 * names or shapes differ from the first file's. */
CS_MUST_CHECK cs_status cs_sum(const cs_contribution *contributions, size_t count, const char *output_path);

#endif
