/* Models as data: a table of kinds, each with how its parameters are drawn and its forward pass. Called by
 * client/worker; one thread at a time. */
#ifndef CS_NN_MODEL_H
#define CS_NN_MODEL_H

#include "client/nn/parameters.h"
#include "common/config/plan.h"

/* Everything a forward pass may depend on besides its input. */
typedef struct cs_context {
    bool is_training;
    cs_generator *generator; /* of what is random in training; NULL where nothing is */
    const cs_parameters *parameters;
} cs_context;

/* What a model is given and what it gives; a field that a model does not use or make is NULL. Owned by the scope. */
typedef struct cs_inputs {
    cs_tensor *columns; /* (rows, columns) F32 */
} cs_inputs;

typedef struct cs_outputs {
    cs_tensor *logits; /* (rows, classes) F32; of a label that is yes or no (rows, 1) */
} cs_outputs;

typedef struct cs_model cs_model;
/* The plan must outlive it. */
CS_MUST_CHECK cs_status cs_model_new(const cs_plan *plan, cs_model **ret);
void cs_model_free(cs_model *model);
CS_DEFINE_AUTO_PTR(cs_model)

/* Fresh parameters, drawn in a fixed order from `generator`. */
CS_MUST_CHECK cs_status cs_model_initialize(const cs_model *model, cs_generator *generator, cs_parameters **ret);
/* Failures stay in the scope. */
cs_outputs cs_model_forward(const cs_model *model, const cs_context *context, const cs_inputs *inputs);
/* Probability of each class, (rows, classes); of a label that is yes or no that of yes, (rows, 1). */
cs_tensor *cs_model_probability(const cs_outputs *outputs);

#endif
