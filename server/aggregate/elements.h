/* Elements of tensors as doubles: reading, looking for what is not finite, rounding back. Private to this folder; any
 * thread. */
#ifndef CS_AGGREGATE_ELEMENTS_H
#define CS_AGGREGATE_ELEMENTS_H

#include "common/tensors/safetensors.h"

/* sums[i] += weight × element i. `data` is aligned to 16. */
void cs_elements_add(cs_dtype dtype, const void *data, size_t count, double weight, double *sums);
/* data[i] = data[i] + sums[i], rounded once, to nearest, ties to even. False when a result is not finite or does not
 * fit the dtype; `data` is of no use then. */
bool cs_elements_add_rounded(cs_dtype dtype, void *data, size_t count, const double *sums);
/* The first element that no update may hold: not finite, or a BOOL that is neither 0 nor 1; `count` when all are
 * usable. */
size_t cs_elements_first_unusable(cs_dtype dtype, const void *data, size_t count);

#endif
