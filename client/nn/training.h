/* Losses, optimizers and the random streams of training. Called by client/worker; one thread at a time. */
#ifndef CS_NN_TRAINING_H
#define CS_NN_TRAINING_H

#include "client/nn/model.h"
#include "common/crypto/digest.h"

/* The seed of one random stream: the first eight bytes of SHA-256 over what may decide about it. `site` is "" for
 * streams that all sites share. Never the job, the time or the process, so that a repeated job gives the same model. */
uint64_t cs_stream_seed(const cs_hash *plan_hash, const char *site, uint32_t round, const char *purpose);

/* The plan's loss: the sum of its terms. */
typedef struct cs_objective cs_objective;
/* `class_counts`: training rows of each class over all participants, cs_plan_classes numbers; NULL where the plan
 * balances nothing, else CS_STATE. CS_INVALID when a balanced class has no row anywhere. The plan must outlive it. */
CS_MUST_CHECK cs_status cs_objective_new(const cs_plan *plan, const double *class_counts, cs_objective **ret);
void cs_objective_free(cs_objective *objective);
CS_DEFINE_AUTO_PTR(cs_objective)
/* A mean over the rows. target: (rows, 1) F32, of several classes (rows) I64. Failures stay in the scope. */
cs_tensor *cs_objective_loss(const cs_objective *objective, const cs_outputs *outputs, const cs_tensor *target);

/* The plan's optimizer: the steps of torch.optim.SGD, Adam and AdamW, but that weight decay is for tensors with two or
 * more dimensions only: biases, and later the scales of normalizations, do not decay. */
typedef struct cs_optimizer cs_optimizer;
/* `memory`: what cs_optimizer_memory gave after an earlier step; NULL: it starts anew. CS_INVALID when it does not
 * belong to these parameters. */
CS_MUST_CHECK cs_status cs_optimizer_new(const cs_plan *plan, cs_parameters *parameters, const cs_parameters *memory,
                                         cs_optimizer **ret);
void cs_optimizer_free(cs_optimizer *optimizer);
CS_DEFINE_AUTO_PTR(cs_optimizer)
/* A copy of what it remembers: "step" and, as torch names them, "momentum_buffer.NAME" or "exp_avg.NAME" and
 * "exp_avg_sq.NAME" of each parameter. */
CS_MUST_CHECK cs_status cs_optimizer_memorize(const cs_optimizer *optimizer, cs_parameters **ret);
/* One step down the gradient of `loss`, which must come from the optimizer's parameters. A NULL loss reports the
 * scope's first failure. */
CS_MUST_CHECK cs_status cs_optimizer_step(cs_optimizer *optimizer, const cs_tensor *loss);

#endif
