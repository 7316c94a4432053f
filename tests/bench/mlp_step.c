/* Training steps of a small network, for mlp_step.py: reads a number of steps from each line of stdin and answers with
 * the nanoseconds that one took. What the worker does in a step, and nothing else: batch, forward pass, loss,
 * gradients, optimizer, loss read out. Main thread. */
#include "client/data/batches.h"
#include "client/nn/training.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROWS    1000
#define COLUMNS 13

struct bench {
    cs_plan *plan;
    cs_model *model;
    cs_parameters *parameters;
    cs_objective *objective;
    cs_optimizer *optimizer;
    cs_samples samples;
    cs_batches *batches;
    uint64_t position;
};

static cs_status prepare(const char *optimizer, struct bench *bench)
{
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&yaml, "plan: bench\nfederation: horizontal\ndataset:\n  name: d\n  kind: table\n"
                                 "  standardize: none\n  label: {column: y, above: 0}\n  features: [");
    for (int i = 0; i < COLUMNS; i++)
        cs_buffer_printf(&yaml, "%sx%d", i > 0 ? ", " : "", i);
    cs_buffer_printf(&yaml,
                     "]\nmodel: {kind: mlp, hidden: [32, 16]}\ntraining: {rounds: 1, local_steps: 1, batch_size: 4, "
                     "optimizer: {kind: %s, learning_rate: 0.001}, loss: bce}\n",
                     optimizer);
    CS_TRY(cs_plan_read(cs_buffer_view(&yaml), "bench", &bench->plan));
    CS_TRY(cs_tensor_start(1));

    CS_SCOPE(scope);
    CS_AUTO_PTR(cs_generator) generator = cs_generator_new(1);
    CS_TRY(cs_model_new(bench->plan, &bench->model));
    CS_TRY(cs_model_initialize(bench->model, generator, &bench->parameters));
    CS_TRY(cs_objective_new(bench->plan, NULL, &bench->objective));
    CS_TRY(cs_optimizer_new(bench->plan, bench->parameters, NULL, &bench->optimizer));
    const uint64_t shape[] = {ROWS, COLUMNS}, column[] = {ROWS, 1};
    cs_tensor *x = cs_tensor_uniform(generator, CS_F32, 2, shape, -1, 1);
    cs_tensor *y = cs_tensor_uniform(generator, CS_F32, 2, column, 0, 1);
    CS_TRY(cs_scope_status(scope));
    bench->samples = (cs_samples){ROWS, cs_tensor_keep(x), cs_tensor_keep(y)};
    const cs_hash hash = {{0}};
    return cs_batches_new(bench->plan, &hash, "bench", &bench->samples, &bench->batches);
}

static cs_status step(struct bench *bench)
{
    CS_SCOPE(scope);
    const cs_context context = {.is_training = true, .parameters = bench->parameters};
    cs_inputs inputs = {NULL};
    cs_tensor *labels = NULL;
    double value = 0;
    CS_TRY(cs_batches_at(bench->batches, bench->position++, &inputs.columns, &labels));
    const cs_outputs outputs = cs_model_forward(bench->model, &context, &inputs);
    cs_tensor *loss = cs_objective_loss(bench->objective, &outputs, labels);
    CS_TRY(cs_optimizer_step(bench->optimizer, loss));
    return cs_tensor_value(loss, &value);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static cs_status serve(struct bench *bench)
{
    char line[32];
    while (fgets(line, sizeof line, stdin) != NULL) {
        const long steps = CS_MAX(strtol(line, NULL, 10), 1L);
        const int64_t begin_ns = now_ns();
        for (long i = 0; i < steps; i++)
            CS_TRY(step(bench));
        printf("%" PRId64 "\n", (now_ns() - begin_ns) / steps);
        fflush(stdout);
    }
    return CS_OK;
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    cs_status status = prepare(argc > 1 ? argv[1] : "sgd", &bench);
    if (status == CS_OK)
        status = serve(&bench);
    if (status != CS_OK)
        fprintf(stderr, "mlp_step: %s\n", cs_error_text());
    cs_batches_free(bench.batches);
    cs_samples_clear(&bench.samples);
    cs_optimizer_free(bench.optimizer);
    cs_objective_free(bench.objective);
    cs_parameters_free(bench.parameters);
    cs_model_free(bench.model);
    cs_plan_free(bench.plan);
    return status == CS_OK ? 0 : 1;
}
