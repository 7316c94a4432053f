/* Losses, optimizers, random streams. Called by client/worker, on its main thread. */
#include "client/nn/training.h"

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

cs_tensor *cs_plan_loss(const cs_plan *plan, const cs_outputs *outputs, const cs_tensor *target)
{
    switch (plan->training.loss) {
    case CS_LOSS_BCE:
        return cs_binary_cross_entropy(cs_model_probability(outputs), target);
    }
    return cs_tensor_fail(CS_UNIMPLEMENTED, "this worker knows no such loss");
}

struct cs_optimizer {
    cs_optimizer_kind kind;
    double learning_rate;
    cs_parameters *parameters;
    cs_tensor **leaves; /* the table's tensors, and the gradients of one step */
    cs_tensor **gradients;
};

cs_status cs_optimizer_new(const cs_plan *plan, cs_parameters *parameters, cs_optimizer **ret)
{
    CS_TRY(cs_parameters_require_gradients(parameters));
    cs_optimizer *optimizer = cs_alloc(sizeof *optimizer);
    optimizer->kind = plan->training.optimizer;
    optimizer->learning_rate = plan->training.learning_rate;
    optimizer->parameters = parameters;
    const size_t count = cs_parameters_count(parameters);
    optimizer->leaves = cs_alloc_array(count, sizeof(cs_tensor *));
    optimizer->gradients = cs_alloc_array(count, sizeof(cs_tensor *));
    for (size_t i = 0; i < count; i++)
        optimizer->leaves[i] = cs_parameters_at(parameters, i);
    *ret = optimizer;
    return CS_OK;
}

void cs_optimizer_free(cs_optimizer *optimizer)
{
    if (optimizer == NULL)
        return;
    cs_free(optimizer->leaves);
    cs_free(optimizer->gradients);
    cs_free(optimizer);
}

/* w ← w − η g */
static cs_status sgd(cs_optimizer *optimizer, cs_tensor *leaf, const cs_tensor *gradient)
{
    return cs_add_into(leaf, gradient, -optimizer->learning_rate);
}

cs_status cs_optimizer_step(cs_optimizer *optimizer, const cs_tensor *loss)
{
    const size_t count = cs_parameters_count(optimizer->parameters);
    CS_TRY(cs_grad(loss, optimizer->leaves, count, false, optimizer->gradients));
    for (size_t i = 0; i < count; i++) {
        switch (optimizer->kind) {
        case CS_OPTIMIZER_SGD:
            CS_TRY(sgd(optimizer, optimizer->leaves[i], optimizer->gradients[i]));
            break;
        }
    }
    return CS_OK;
}
