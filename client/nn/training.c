/* Losses, optimizers, random streams. Called by client/worker, on its main thread. */
#include "client/nn/training.h"

#include <math.h>
#include <string.h>

uint64_t cs_stream_seed(const cs_hash *plan_hash, const char *site, uint32_t round, const char *purpose)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&text, "consilium-stream-v1\n");
    cs_buffer_append(&text, plan_hash->bytes, sizeof plan_hash->bytes);
    /* Lengths go in front: no site and purpose together spell another pair. */
    cs_buffer_printf(&text, "%zu:%s\n%u\n%zu:%s", strlen(site), site, round, strlen(purpose), purpose);
    cs_hash hash = cs_sha256(cs_buffer_view(&text));
    return cs_load_le64(hash.bytes);
}

/* ---- losses ---- */

struct cs_objective {
    const cs_plan *plan;
    cs_tensor **weights; /* for each term: of its classes, or of y = 1; NULL: all 1 */
};

static cs_status need_counts(const double *class_counts, size_t classes)
{
    if (class_counts == NULL)
        return cs_fail(CS_STATE, "a balanced loss needs the rows of each class at all participants, and the task "
                                 "brought none");
    for (size_t i = 0; i < classes; i++) {
        if (!(class_counts[i] > 0))
            return cs_fail(CS_INVALID,
                           "a balanced loss has no weight for class %zu: no participant has a training row "
                           "of it",
                           i);
    }
    return CS_OK;
}

/* n / (C · n_c), as scikit-learn's class_weight='balanced'. */
static void balance(const double *class_counts, size_t classes, double *ret)
{
    double rows = 0;
    for (size_t i = 0; i < classes; i++)
        rows += class_counts[i];
    for (size_t i = 0; i < classes; i++)
        ret[i] = rows / ((double)classes * class_counts[i]);
}

/* The term's weights as an F32 vector outside of every scope; NULL where there are none. */
static cs_status weigh(const cs_plan *plan, const cs_loss *loss, const double *class_counts, cs_tensor **ret)
{
    const size_t classes = cs_plan_classes(plan);
    double given[CS_PLAN_CLASSES_MAX];
    size_t count = classes;
    if (loss->is_balanced)
        CS_TRY(need_counts(class_counts, classes));

    if (loss->kind == CS_LOSS_BCE) {
        count = 1;
        given[0] = loss->is_balanced ? class_counts[0] / class_counts[1] : loss->positive_weight;
        if (given[0] == 1)
            return CS_OK;
    } else if (loss->is_balanced) {
        balance(class_counts, classes, given);
    } else if (loss->class_weights != NULL) {
        memcpy(given, loss->class_weights, classes * sizeof *given);
    } else {
        return CS_OK;
    }
    float values[CS_PLAN_CLASSES_MAX];
    for (size_t i = 0; i < count; i++)
        values[i] = (float)given[i];
    CS_SCOPE(scope);
    const uint64_t shape[] = {count};
    *ret = cs_tensor_keep(cs_tensor_from(CS_F32, 1, shape, values, count * sizeof *values));
    return cs_scope_status(scope);
}

cs_status cs_objective_new(const cs_plan *plan, const double *class_counts, cs_objective **ret)
{
    CS_AUTO_PTR(cs_objective) objective = cs_alloc(sizeof *objective);
    objective->plan = plan;
    objective->weights = cs_alloc_array(plan->training.losses_count, sizeof *objective->weights);
    for (size_t i = 0; i < plan->training.losses_count; i++)
        CS_TRY(weigh(plan, &plan->training.losses[i], class_counts, &objective->weights[i]));
    *ret = CS_TAKE(objective);
    return CS_OK;
}

void cs_objective_free(cs_objective *objective)
{
    if (objective == NULL)
        return;
    for (size_t i = 0; i < objective->plan->training.losses_count; i++)
        cs_tensor_free(objective->weights[i]);
    cs_free(objective->weights);
    cs_free(objective);
}

static cs_tensor *term(const cs_plan *plan, const cs_loss *loss, const cs_tensor *weights, const cs_outputs *outputs,
                       const cs_tensor *target)
{
    switch (loss->kind) {
    case CS_LOSS_BCE:
        /* The published studies of logistic regression take the loss of the probability; that of the logit has the same
         * value and other last bits, and does not run dry where the probability rounds to 0 or 1. */
        if (weights == NULL && plan->model.kind == CS_MODEL_LOGISTIC_REGRESSION)
            return cs_binary_cross_entropy(cs_model_probability(outputs), target);
        return cs_binary_cross_entropy_with_logits(outputs->logits, target, weights);
    case CS_LOSS_CROSS_ENTROPY:
        return cs_cross_entropy(outputs->logits, target, weights, loss->label_smoothing);
    }
    return cs_tensor_fail(CS_UNIMPLEMENTED, "this worker knows no such loss");
}

cs_tensor *cs_objective_loss(const cs_objective *objective, const cs_outputs *outputs, const cs_tensor *target)
{
    const cs_plan *plan = objective->plan;
    cs_tensor *sum = NULL;
    for (size_t i = 0; i < plan->training.losses_count; i++) {
        const cs_loss *loss = &plan->training.losses[i];
        cs_tensor *value = term(plan, loss, objective->weights[i], outputs, target);
        if (loss->weight != 1)
            value = cs_scale(value, loss->weight);
        sum = i == 0 ? value : cs_add(sum, value);
    }
    return sum;
}

/* ---- optimizers ---- */

/* What one parameter's steps remember. */
struct moments {
    cs_tensor *first;  /* momentum buffer, or mean of gradients */
    cs_tensor *second; /* mean of squared gradients */
    double decay;
};

struct cs_optimizer {
    const cs_plan *plan;
    cs_parameters *parameters;
    cs_tensor **leaves; /* the table's tensors, and the gradients of one step */
    cs_tensor **gradients;
    struct moments *moments; /* one a leaf */
    size_t count;
    uint64_t steps;
};

/* "exp_avg" of Adam's first; NULL where the kind has none. */
static const char *moment_name(const cs_plan *plan, bool is_second)
{
    if (plan->training.optimizer.kind != CS_OPTIMIZER_SGD)
        return is_second ? "exp_avg_sq" : "exp_avg";
    return !is_second && plan->training.optimizer.momentum > 0 ? "momentum_buffer" : NULL;
}

static cs_status start_moment(const cs_optimizer *optimizer, size_t leaf, bool is_second, const cs_parameters *memory,
                              cs_tensor **ret)
{
    const char *kind = moment_name(optimizer->plan, is_second);
    if (kind == NULL)
        return CS_OK;
    CS_SCOPE(scope);
    CS_NO_GRAD(guard);
    cs_tensor *moment = cs_tensor_clone(cs_detach(optimizer->leaves[leaf]));
    CS_TRY(cs_scale_into(moment, 0, 0));
    if (memory != NULL) {
        CS_AUTO(cs_string) name = cs_format("%s.%s", kind, cs_parameters_name(optimizer->parameters, leaf));
        CS_TRY(cs_copy_into(moment, cs_parameter(memory, name)));
    }
    *ret = cs_tensor_keep(moment);
    return cs_scope_status(scope);
}

static cs_status start_steps(cs_optimizer *optimizer, const cs_parameters *memory)
{
    CS_SCOPE(scope);
    double steps = 0;
    CS_TRY(cs_tensor_value(cs_parameter(memory, "step"), &steps));
    if (!(steps >= 0 && steps <= 0x1p53))
        return cs_fail(CS_INVALID, "the optimizer's state has an impossible number of steps");
    optimizer->steps = (uint64_t)steps;
    return CS_OK;
}

cs_status cs_optimizer_new(const cs_plan *plan, cs_parameters *parameters, const cs_parameters *memory,
                           cs_optimizer **ret)
{
    CS_TRY(cs_parameters_require_gradients(parameters));
    CS_AUTO_PTR(cs_optimizer) optimizer = cs_alloc(sizeof *optimizer);
    optimizer->plan = plan;
    optimizer->parameters = parameters;
    optimizer->count = cs_parameters_count(parameters);
    optimizer->leaves = cs_alloc_array(optimizer->count, sizeof(cs_tensor *));
    optimizer->gradients = cs_alloc_array(optimizer->count, sizeof(cs_tensor *));
    optimizer->moments = cs_alloc_array(optimizer->count, sizeof *optimizer->moments);
    for (size_t i = 0; i < optimizer->count; i++) {
        struct moments *moments = &optimizer->moments[i];
        optimizer->leaves[i] = cs_parameters_at(parameters, i);
        moments->decay = cs_tensor_rank(optimizer->leaves[i]) > 1 ? plan->training.optimizer.weight_decay : 0;
        CS_TRY(start_moment(optimizer, i, false, memory, &moments->first));
        CS_TRY(start_moment(optimizer, i, true, memory, &moments->second));
    }
    if (memory != NULL)
        CS_TRY(start_steps(optimizer, memory));
    *ret = CS_TAKE(optimizer);
    return CS_OK;
}

void cs_optimizer_free(cs_optimizer *optimizer)
{
    if (optimizer == NULL)
        return;
    for (size_t i = 0; i < optimizer->count; i++) {
        cs_tensor_free(optimizer->moments[i].first);
        cs_tensor_free(optimizer->moments[i].second);
    }
    cs_free(optimizer->moments);
    cs_free(optimizer->leaves);
    cs_free(optimizer->gradients);
    cs_free(optimizer);
}

static cs_status memorize_moment(const cs_optimizer *optimizer, size_t leaf, bool is_second, const cs_tensor *moment,
                                 cs_parameters *memory)
{
    const char *kind = moment_name(optimizer->plan, is_second);
    if (kind == NULL)
        return CS_OK;
    CS_SCOPE(scope);
    CS_AUTO(cs_string) name = cs_format("%s.%s", kind, cs_parameters_name(optimizer->parameters, leaf));
    return cs_parameters_put(memory, name, cs_tensor_clone(moment));
}

cs_status cs_optimizer_memorize(const cs_optimizer *optimizer, cs_parameters **ret)
{
    CS_SCOPE(scope);
    CS_AUTO_PTR(cs_parameters) memory = cs_parameters_new();
    const uint64_t shape[] = {1};
    CS_TRY(cs_parameters_put(memory, "step", cs_tensor_full(CS_I64, 1, shape, (double)optimizer->steps)));
    for (size_t i = 0; i < optimizer->count; i++) {
        CS_TRY(memorize_moment(optimizer, i, false, optimizer->moments[i].first, memory));
        CS_TRY(memorize_moment(optimizer, i, true, optimizer->moments[i].second, memory));
    }
    *ret = CS_TAKE(memory);
    return CS_OK;
}

/* b ← μ b + g;  w ← w − η b, with Nesterov's momentum w ← w − η (g + μ b). Decay: g ← g + λ w. */
static cs_status sgd(const cs_optimizer *optimizer, cs_tensor *w, const cs_tensor *g, const struct moments *moments)
{
    const double rate = optimizer->plan->training.optimizer.learning_rate;
    const double momentum = optimizer->plan->training.optimizer.momentum;
    if (moments->decay > 0)
        g = cs_add_scaled(g, w, moments->decay);
    if (momentum > 0) {
        CS_TRY(cs_scale_into(moments->first, momentum, 0));
        CS_TRY(cs_add_into(moments->first, g, 1));
        g = optimizer->plan->training.optimizer.is_nesterov ? cs_add_scaled(g, moments->first, momentum)
                                                            : moments->first;
    }
    return cs_add_into(w, g, -rate);
}

/* Kingma & Ba 2015, Algorithm 1: m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  w ← w − η m̂ / (√v̂ + ε). Adam decays
 * through the gradient, AdamW (Loshchilov & Hutter 2019) w itself. */
static cs_status adam(const cs_optimizer *optimizer, cs_tensor *w, const cs_tensor *g, const struct moments *moments)
{
    const double rate = optimizer->plan->training.optimizer.learning_rate;
    const double beta1 = optimizer->plan->training.optimizer.beta1;
    const double beta2 = optimizer->plan->training.optimizer.beta2;
    const double correction1 = 1 - pow(beta1, (double)optimizer->steps);
    const double correction2 = 1 - pow(beta2, (double)optimizer->steps);
    if (moments->decay > 0 && optimizer->plan->training.optimizer.kind == CS_OPTIMIZER_ADAMW)
        CS_TRY(cs_scale_into(w, 1 - rate * moments->decay, 0));
    else if (moments->decay > 0)
        g = cs_add_scaled(g, w, moments->decay);
    CS_TRY(cs_scale_into(moments->first, beta1, 0));
    CS_TRY(cs_add_into(moments->first, g, 1 - beta1));
    CS_TRY(cs_scale_into(moments->second, beta2, 0));
    CS_TRY(cs_add_product_into(moments->second, g, g, 1 - beta2));
    cs_tensor *denominator = cs_square_root(moments->second);
    CS_TRY(cs_scale_into(denominator, 1 / sqrt(correction2), optimizer->plan->training.optimizer.epsilon));
    return cs_add_quotient_into(w, moments->first, denominator, -rate / correction1);
}

cs_status cs_optimizer_step(cs_optimizer *optimizer, const cs_tensor *loss)
{
    CS_TRY(cs_grad(loss, optimizer->leaves, optimizer->count, false, optimizer->gradients));
    CS_NO_GRAD(guard);
    optimizer->steps++;
    for (size_t i = 0; i < optimizer->count; i++) {
        switch (optimizer->plan->training.optimizer.kind) {
        case CS_OPTIMIZER_SGD:
            CS_TRY(sgd(optimizer, optimizer->leaves[i], optimizer->gradients[i], &optimizer->moments[i]));
            break;
        case CS_OPTIMIZER_ADAM:
        case CS_OPTIMIZER_ADAMW:
            CS_TRY(adam(optimizer, optimizer->leaves[i], optimizer->gradients[i], &optimizer->moments[i]));
            break;
        }
    }
    return CS_OK;
}
