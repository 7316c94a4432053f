/* The models that a plan can name, and their table. Called by client/worker, on its main thread. */
#include "client/nn/model.h"

#include <math.h>

/* One kind of model: what a plan's `model.kind` stands for. */
struct kind {
    void (*build)(cs_model *model, const cs_plan *plan);
    cs_outputs (*forward)(const cs_model *model, const cs_context *context, const cs_inputs *inputs);
};

/* A linear layer's place in the table of parameters. */
struct linear {
    char *weight, *bias;
    uint64_t in, out;
};

struct cs_model {
    const struct kind *kind;
    struct linear *linears; /* in the order in which their parameters are drawn */
    size_t linears_count;
    cs_activation activation;
    double dropout;
};

/* ---- layers ---- */

/* Takes `name`. */
static void add_linear(cs_model *model, char *name, uint64_t in, uint64_t out)
{
    CS_AUTO(cs_string) owned = name;
    model->linears = cs_realloc(model->linears, (model->linears_count + 1) * sizeof *model->linears);
    model->linears[model->linears_count++] =
        (struct linear){cs_format("%s.weight", owned), cs_format("%s.bias", owned), in, out};
}

/* Weight (out, in), then bias (out), both uniform within 1/√in: what torch.nn.Linear draws, in its order. */
static cs_status draw_linear(const struct linear *linear, cs_generator *generator, cs_parameters *parameters)
{
    CS_SCOPE(scope);
    const double bound = 1 / sqrt((double)linear->in);
    const uint64_t shape[] = {linear->out, linear->in};
    CS_TRY(
        cs_parameters_put(parameters, linear->weight, cs_tensor_uniform(generator, CS_F32, 2, shape, -bound, bound)));
    return cs_parameters_put(parameters, linear->bias, cs_tensor_uniform(generator, CS_F32, 1, shape, -bound, bound));
}

/* x: (rows, in) → (rows, out) */
static cs_tensor *apply_linear(const struct linear *linear, const cs_context *context, const cs_tensor *x)
{
    return cs_linear(x, cs_parameter(context->parameters, linear->weight),
                     cs_parameter(context->parameters, linear->bias));
}

static cs_tensor *activate(cs_activation activation, const cs_tensor *x)
{
    switch (activation) {
    case CS_ACTIVATION_RELU:
        return cs_relu(x);
    case CS_ACTIVATION_GELU:
        return cs_gelu(x);
    case CS_ACTIVATION_TANH:
        return cs_tanh(x);
    }
    return cs_tensor_fail(CS_UNIMPLEMENTED, "this worker knows no such activation");
}

/* ---- logistic regression: p = σ(W x + b), of several classes softmax(W x + b) ---- */

static void build_logistic(cs_model *model, const cs_plan *plan)
{
    add_linear(model, cs_strdup("linear"), plan->dataset.columns_count, cs_plan_outputs(plan));
}

static cs_outputs forward_logistic(const cs_model *model, const cs_context *context, const cs_inputs *inputs)
{
    return (cs_outputs){.logits = apply_linear(&model->linears[0], context, inputs->columns)};
}

/* ---- multilayer perceptron: h ← dropout(φ(W h + b)) for each hidden layer, then a linear head ---- */

static void build_mlp(cs_model *model, const cs_plan *plan)
{
    uint64_t width = plan->dataset.columns_count;
    for (size_t i = 0; i < plan->model.hidden_count; i++) {
        add_linear(model, cs_format("layers.%zu", i), width, plan->model.hidden[i]);
        width = plan->model.hidden[i];
    }
    add_linear(model, cs_strdup("head"), width, cs_plan_outputs(plan));
    model->activation = plan->model.activation;
    model->dropout = plan->model.dropout;
}

static cs_outputs forward_mlp(const cs_model *model, const cs_context *context, const cs_inputs *inputs)
{
    const size_t hidden = model->linears_count - 1;
    cs_tensor *h = inputs->columns; /* (rows, width) */
    for (size_t i = 0; i < hidden; i++) {
        h = activate(model->activation, apply_linear(&model->linears[i], context, h));
        if (context->is_training && model->dropout > 0)
            h = cs_dropout(h, model->dropout, context->generator);
    }
    return (cs_outputs){.logits = apply_linear(&model->linears[hidden], context, h)};
}

static const struct kind kinds[] = {
    [CS_MODEL_LOGISTIC_REGRESSION] = {build_logistic, forward_logistic},
    [CS_MODEL_MLP] = {build_mlp, forward_mlp},
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
    model->kind->build(model, plan);
    *ret = model;
    return CS_OK;
}

void cs_model_free(cs_model *model)
{
    if (model == NULL)
        return;
    for (size_t i = 0; i < model->linears_count; i++) {
        cs_free(model->linears[i].weight);
        cs_free(model->linears[i].bias);
    }
    cs_free(model->linears);
    cs_free(model);
}

cs_status cs_model_initialize(const cs_model *model, cs_generator *generator, cs_parameters **ret)
{
    CS_AUTO_PTR(cs_parameters) parameters = cs_parameters_new();
    for (size_t i = 0; i < model->linears_count; i++)
        CS_TRY(draw_linear(&model->linears[i], generator, parameters));
    *ret = CS_TAKE(parameters);
    return CS_OK;
}

cs_outputs cs_model_forward(const cs_model *model, const cs_context *context, const cs_inputs *inputs)
{
    return model->kind->forward(model, context, inputs);
}

cs_tensor *cs_model_probability(const cs_outputs *outputs)
{
    if (outputs->logits != NULL && cs_tensor_size(outputs->logits, 1) > 1)
        return cs_softmax(outputs->logits);
    return cs_sigmoid(outputs->logits);
}
