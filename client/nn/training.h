/* Losses, optimizers and the random streams of training. Called by client/worker; one thread at a time. */
#ifndef CS_NN_TRAINING_H
#define CS_NN_TRAINING_H

#include "client/nn/model.h"
#include "common/crypto/digest.h"

/* The seed of one random stream: the first eight bytes of SHA-256 over what may decide about it. `site` is "" for
 * streams that all sites share. Never the job, the time or the process, so that a repeated job gives the same model. */
uint64_t cs_stream_seed(const cs_hash *plan_hash, const char *site, uint32_t round, const char *purpose);

/* The plan's loss, a mean over the rows. target: (rows, 1) F32. Failures stay in the scope. */
cs_tensor *cs_plan_loss(const cs_plan *plan, const cs_outputs *outputs, const cs_tensor *target);

/* What the plan's optimizer keeps between steps. It starts anew every round. */
typedef struct cs_optimizer cs_optimizer;
CS_MUST_CHECK cs_status cs_optimizer_new(const cs_plan *plan, cs_parameters *parameters, cs_optimizer **ret);
void cs_optimizer_free(cs_optimizer *optimizer);
CS_DEFINE_AUTO_PTR(cs_optimizer)
/* One step down the gradient of `loss`, which must come from the optimizer's parameters. A NULL loss reports the
 * scope's first failure. */
CS_MUST_CHECK cs_status cs_optimizer_step(cs_optimizer *optimizer, const cs_tensor *loss);

#endif
