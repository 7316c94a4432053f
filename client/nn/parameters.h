/* A model's parameters by name, in the order the model made them, and their safetensors files. Layers reach parameters
 * only through such a table, so that a caller can put other tensors in their place. Called by client/worker and the
 * models; one thread at a time. */
#ifndef CS_NN_PARAMETERS_H
#define CS_NN_PARAMETERS_H

#include "client/tensor/tensor.h"

/* More tensors than any model has; a file with more is refused before anything is allocated for it. */
#define CS_PARAMETERS_MAX 65536

typedef struct cs_parameters cs_parameters;
cs_parameters *cs_parameters_new(void);
void cs_parameters_free(cs_parameters *parameters);
CS_DEFINE_AUTO_PTR(cs_parameters)

/* Adds or replaces; the table keeps a handle of its own. A NULL value reports the scope's first failure. */
CS_MUST_CHECK cs_status cs_parameters_put(cs_parameters *parameters, const char *name, const cs_tensor *value);
/* Owned by the table. NULL when there is none, and the scope knows the name. */
cs_tensor *cs_parameter(const cs_parameters *parameters, const char *name);
size_t cs_parameters_count(const cs_parameters *parameters);
const char *cs_parameters_name(const cs_parameters *parameters, size_t index);
cs_tensor *cs_parameters_at(const cs_parameters *parameters, size_t index);
/* A table with copies of all values, which collect no gradients yet. */
CS_MUST_CHECK cs_status cs_parameters_clone(const cs_parameters *parameters, cs_parameters **ret);
/* a − b, tensor by tensor: the delta that travels. Same names and shapes, else CS_INVALID. */
CS_MUST_CHECK cs_status cs_parameters_subtract(const cs_parameters *a, const cs_parameters *b, cs_parameters **ret);
CS_MUST_CHECK cs_status cs_parameters_require_gradients(const cs_parameters *parameters);
/* CS_INVALID names the first tensor with a value that is not finite. */
CS_MUST_CHECK cs_status cs_parameters_check_finite(const cs_parameters *parameters, const char *what);

/* Every tensor of the file. CS_INVALID and CS_DATA_LOSS name file and tensor. */
CS_MUST_CHECK cs_status cs_parameters_load(const char *path, cs_parameters **ret);
/* Refuses a table whose names, dtypes or shapes differ from `expected`; `what` names it in the sentence. */
CS_MUST_CHECK cs_status cs_parameters_check_same(const cs_parameters *parameters, const cs_parameters *expected,
                                                 const char *what);
/* Whole or not at all. */
CS_MUST_CHECK cs_status cs_parameters_save(const cs_parameters *parameters, const char *path,
                                           const cs_metadata_item *metadata, size_t metadata_count);

#endif
