/* Which rows each training step sees: epoch after epoch in a fresh order, running on through the rounds. Called by
 * client/worker; one thread at a time. */
#ifndef CS_DATA_BATCHES_H
#define CS_DATA_BATCHES_H

#include "client/data/standardize.h"
#include "common/config/plan.h"
#include "common/crypto/digest.h"

typedef struct cs_batches cs_batches;
/* Over `samples`, which must outlive it, for training at `site`. Every random choice follows from the plan: raw epoch
 * seeds where it lists them for the site, streams of its hash otherwise. */
CS_MUST_CHECK cs_status cs_batches_new(const cs_plan *plan, const cs_hash *plan_hash, const char *site,
                                       const cs_samples *samples, cs_batches **ret);
void cs_batches_free(cs_batches *batches);
CS_DEFINE_AUTO_PTR(cs_batches)
/* Steps of one round: the plan's local_steps, or its local_epochs over these samples. */
uint64_t cs_batches_round_steps(const cs_batches *batches);
/* The batch of step `position`, counted from 0 through all rounds: round r starts at (r − 1) × round_steps. The tensors
 * belong to the innermost scope. CS_RANGE when the plan's epoch seeds are used up. */
CS_MUST_CHECK cs_status cs_batches_at(cs_batches *batches, uint64_t position, cs_tensor **ret_columns,
                                      cs_tensor **ret_labels);

#endif
