/* The models that a plan can name, and their table. Called by client/worker, on its main thread. */
#include "client/nn/model.h"

#include <math.h>

/* One kind of model: what a plan's `model.kind` stands for. */
struct kind {
    cs_status (*initialize)(const cs_model *model, cs_generator *generator, cs_parameters *parameters);
    cs_outputs (*forward)(const cs_model *model, const cs_context *context, const cs_inputs *inputs);
};

struct cs_model {
    const struct kind *kind;
    uint64_t columns;
};

/* ---- layers ---- */

/* Weight (out, in), then bias (out), both uniform within 1/√in: what torch.nn.Linear draws, in its order. */
static cs_status linear_initialize(cs_parameters *parameters, const char *name, uint64_t in, uint64_t out,
                                   cs_generator *generator)
{
    CS_SCOPE(scope);
    const double bound = 1 / sqrt((double)in);
    CS_AUTO(cs_string) weight = cs_format("%s.weight", name);
    CS_AUTO(cs_string) bias = cs_format("%s.bias", name);
    CS_TRY(cs_parameters_put(parameters, weight,
                             cs_tensor_uniform(generator, CS_F32, 2, (const uint64_t[]){out, in}, -bound, bound)));
    return cs_parameters_put(parameters, bias,
                             cs_tensor_uniform(generator, CS_F32, 1, (const uint64_t[]){out}, -bound, bound));
}

/* x: (rows, in) → (rows, out) */
static cs_tensor *linear(const cs_context *context, const char *name, const cs_tensor *x)
{
    CS_AUTO(cs_string) weight = cs_format("%s.weight", name);
    CS_AUTO(cs_string) bias = cs_format("%s.bias", name);
    return cs_linear(x, cs_parameter(context->parameters, weight), cs_parameter(context->parameters, bias));
}

/* ---- logistic regression: p = σ(W x + b) ---- */

static cs_status logistic_initialize(const cs_model *model, cs_generator *generator, cs_parameters *parameters)
{
    return linear_initialize(parameters, "linear", model->columns, 1, generator);
}

static cs_outputs logistic_forward(const cs_model *model, const cs_context *context, const cs_inputs *inputs)
{
    (void)model;
    return (cs_outputs){.logits = linear(context, "linear", inputs->columns)};
}

static const struct kind kinds[] = {
    [CS_MODEL_LOGISTIC_REGRESSION] = {logistic_initialize, logistic_forward},
};

cs_status cs_model_new(const cs_plan *plan, cs_model **ret)
{
    const size_t kind = (size_t)plan->model.kind;
    if (kind >= CS_COUNT(kinds))
        return cs_fail(CS_UNIMPLEMENTED, "this worker knows no model of kind '%s'",
                       cs_model_kind_name(plan->model.kind));
    if (plan->dataset.columns_count == 0)
        return cs_fail(CS_INVALID, "the plan's data set has no feature columns");
    cs_model *model = cs_alloc(sizeof *model);
    model->kind = &kinds[kind];
    model->columns = plan->dataset.columns_count;
    *ret = model;
    return CS_OK;
}

void cs_model_free(cs_model *model)
{
    cs_free(model);
}

cs_status cs_model_initialize(const cs_model *model, cs_generator *generator, cs_parameters **ret)
{
    CS_AUTO_PTR(cs_parameters) parameters = cs_parameters_new();
    CS_TRY(model->kind->initialize(model, generator, parameters));
    *ret = CS_TAKE(parameters);
    return CS_OK;
}

cs_outputs cs_model_forward(const cs_model *model, const cs_context *context, const cs_inputs *inputs)
{
    return model->kind->forward(model, context, inputs);
}

cs_tensor *cs_model_probability(const cs_outputs *outputs)
{
    return cs_sigmoid(outputs->logits);
}
