/* One site's part in a plan: draws the initial model, sums statistics, trains, evaluates. The same for the agent's
 * worker (session.c) and for training without an agent (driver.c). Main thread of the worker. */
#ifndef CS_WORKER_LEARNER_H
#define CS_WORKER_LEARNER_H

#include "client/data/batches.h"
#include "client/data/table.h"
#include "client/nn/metrics.h"
#include "client/nn/model.h"

/* Global model on validation and test rows and the local one on test rows, in four standardizations. */
#define CS_EVALUATIONS_MAX 12

/* One model on one part of the rows, standardized in one way. */
typedef struct cs_evaluation {
    const char *model; /* "global" | "local"; static */
    cs_part part;
    cs_standardize standardize;
    cs_metric_value metrics[CS_METRICS_MAX];
    size_t metrics_count;
} cs_evaluation;

/* Called after every step; a status other than CS_OK stops the training and becomes its result. */
typedef struct cs_training_watch {
    cs_status (*step)(void *self, uint64_t done, uint64_t total, double mean_loss);
    void *self;
} cs_training_watch;

typedef struct cs_training_result {
    cs_parameters *parameters; /* the caller frees them */
    cs_parameters *memory;     /* the optimizer's, where the plan keeps it, else NULL; the caller frees it */
    uint64_t samples;          /* training rows: the weight of FedAvg */
    uint64_t steps;
    double mean_loss; /* over all rows seen */
} cs_training_result;

typedef struct cs_learner cs_learner;
/* Takes the table. `plan` must outlive it. CS_INVALID when the split leaves nothing to train on or, with metrics in the
 * plan, nothing to test on, or with early stopping nothing to validate on. */
CS_MUST_CHECK cs_status cs_learner_new(const cs_plan *plan, const cs_hash *plan_hash, const char *site, cs_table *table,
                                       cs_learner **ret);
void cs_learner_free(cs_learner *learner);
CS_DEFINE_AUTO_PTR(cs_learner)
const cs_table *cs_learner_table(const cs_learner *learner);

/* The plan's first model: from its seed, else from a stream of the plan's hash; the same at every site. */
CS_MUST_CHECK cs_status cs_learner_initialize(const cs_plan *plan, const cs_hash *plan_hash, cs_parameters **ret);
/* This site's share of a statistics phase. */
cs_moments *cs_learner_moments(const cs_learner *learner);
/* The sums of all participants, for `standardize: federated`. Takes them. */
void cs_learner_use_moments(cs_learner *learner, cs_moments *moments);

/* The names and shapes of `parameters` must be the model's, and every value finite. CS_INVALID otherwise. */
CS_MUST_CHECK cs_status cs_learner_check(const cs_learner *learner, const cs_parameters *parameters);
/* From now on `learner` trains on the rows of all `others` too, each standardized as at its own site: what a federation
 * does without. For comparisons only. */
CS_MUST_CHECK cs_status cs_learner_pool(cs_learner *learner, cs_learner *const *others, size_t count);
/* Round `round` (from 1) of local training from `base`, which stays as it is. `memory`: what the round before at this
 * site left, where the plan keeps it; NULL: the optimizer starts anew. `watch` may be NULL. */
CS_MUST_CHECK cs_status cs_learner_train(cs_learner *learner, const cs_parameters *base, const cs_parameters *memory,
                                         uint32_t round, const cs_training_watch *watch, cs_training_result *ret);
/* Has the table validation rows? They are evaluated wherever there are some. */
bool cs_learner_validates(const cs_learner *learner);
/* Every standardization and metric that the plan's evaluation names, on `part`. Appends to `ret`, which has room for
 * CS_EVALUATIONS_MAX; *count rises. */
CS_MUST_CHECK cs_status cs_learner_evaluate(cs_learner *learner, const cs_parameters *parameters, const char *model,
                                            cs_part part, cs_evaluation *ret, size_t *count);

/* "consilium 0.1.0 libtorch 1.13.1 AVX512 cpu threads=2": who gets the same bits. Static memory. */
const char *cs_learner_build(uint32_t threads);

#endif
