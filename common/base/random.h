/* Random numbers from the kernel, for jitter, names and identifiers. Keys and privacy noise come from common/crypto,
 * seeded streams of training from client/nn. Any thread. */
#ifndef CS_BASE_RANDOM_H
#define CS_BASE_RANDOM_H

#include "common/base/status.h"

/* Aborts when the kernel has no randomness to give. */
void cs_random_bytes(void *out, size_t size);
/* Uniform in [0, bound), without modulo bias. bound > 0. */
uint64_t cs_random_below(uint64_t bound);
/* Exponential back-off with full jitter: uniform in [base/2, min(cap, base·2^attempt)]. */
int64_t cs_backoff_ms(uint32_t attempt, int64_t base_ms, int64_t cap_ms);

#endif
