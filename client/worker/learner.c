/* Plan + table + model → updates and evaluations. Called by session.c and driver.c on the worker's main thread. */
#include "client/worker/learner.h"

#include "client/nn/training.h"
#include "common/base/failpoint.h"

#include <stdio.h>

#define DIVERGED "training has diverged, a smaller learning rate may help"

static const cs_standardize standardizations[] = {CS_STANDARDIZE_NONE, CS_STANDARDIZE_PLAN, CS_STANDARDIZE_FEDERATED,
                                                  CS_STANDARDIZE_SITE};

struct cs_learner {
    const cs_plan *plan;
    cs_hash plan_hash;
    char *site;
    cs_table *table;
    cs_model *model;
    cs_parameters *shape; /* a model of this plan: what names and shapes a model must have */
    cs_moments *federated;
    cs_samples training; /* standardized as the plan trains; made at the first training */
    cs_batches *batches;
    cs_objective *objective;
};

cs_status cs_learner_new(const cs_plan *plan, const cs_hash *plan_hash, const char *site, cs_table *table,
                         cs_learner **ret)
{
    CS_AUTO_PTR(cs_learner) learner = cs_alloc(sizeof *learner);
    learner->plan = plan;
    learner->plan_hash = *plan_hash;
    learner->site = cs_strdup(site);
    learner->table = table;
    CS_TRY(cs_table_need(table, CS_PART_TRAIN));
    if (plan->evaluation.metrics != 0)
        CS_TRY(cs_table_need(table, CS_PART_TEST));
    if (plan->training.early_stopping.is_on)
        CS_TRY(cs_table_need(table, CS_PART_VALID));
    CS_TRY(cs_model_new(plan, &learner->model));
    CS_TRY(cs_learner_initialize(plan, plan_hash, &learner->shape));
    *ret = CS_TAKE(learner);
    return CS_OK;
}

static void forget_training(cs_learner *learner)
{
    cs_batches_free(learner->batches);
    learner->batches = NULL;
    cs_objective_free(learner->objective);
    learner->objective = NULL;
    cs_samples_clear(&learner->training);
}

void cs_learner_free(cs_learner *learner)
{
    if (learner == NULL)
        return;
    forget_training(learner);
    cs_moments_free(learner->federated);
    cs_parameters_free(learner->shape);
    cs_model_free(learner->model);
    cs_table_free(learner->table);
    cs_free(learner->site);
    cs_free(learner);
}

const cs_table *cs_learner_table(const cs_learner *learner)
{
    return learner->table;
}

cs_status cs_learner_initialize(const cs_plan *plan, const cs_hash *plan_hash, cs_parameters **ret)
{
    CS_AUTO_PTR(cs_model) model = NULL;
    CS_TRY(cs_model_new(plan, &model));
    const uint64_t seed =
        plan->model.has_initial_seed ? plan->model.initial_seed : cs_stream_seed(plan_hash, "", 0, "initial model");
    CS_AUTO_PTR(cs_generator) generator = cs_generator_new(seed);
    return cs_model_initialize(model, generator, ret);
}

cs_moments *cs_learner_moments(const cs_learner *learner)
{
    cs_moments *moments = cs_moments_new(learner->plan);
    cs_moments_add_table(moments, learner->table);
    return moments;
}

void cs_learner_use_moments(cs_learner *learner, cs_moments *moments)
{
    cs_moments_free(learner->federated);
    learner->federated = moments;
    forget_training(learner);
}

cs_status cs_learner_check(const cs_learner *learner, const cs_parameters *parameters)
{
    CS_TRY(cs_parameters_check_same(parameters, learner->shape, "the model"));
    return cs_parameters_check_finite(parameters, "the model");
}

static cs_status make_samples(const cs_learner *learner, cs_part part, cs_standardize standardize, cs_samples *ret)
{
    CS_AUTO_PTR(cs_scaling) scaling = NULL;
    CS_TRY(cs_scaling_of(standardize, learner->plan, learner->table, learner->federated, &scaling));
    return cs_samples_make(learner->plan, learner->table, part, scaling, ret);
}

static cs_status prepare_training(cs_learner *learner)
{
    if (learner->objective == NULL)
        CS_TRY(cs_objective_new(learner->plan, learner->federated != NULL ? learner->federated->class_counts : NULL,
                                &learner->objective));
    if (learner->batches != NULL)
        return CS_OK;
    CS_TRY(make_samples(learner, CS_PART_TRAIN, learner->plan->dataset.standardize, &learner->training));
    return cs_batches_new(learner->plan, &learner->plan_hash, learner->site, &learner->training, &learner->batches);
}

cs_status cs_learner_pool(cs_learner *learner, cs_learner *const *others, size_t count)
{
    forget_training(learner);
    CS_TRY(make_samples(learner, CS_PART_TRAIN, learner->plan->dataset.standardize, &learner->training));
    for (size_t i = 0; i < count; i++) {
        CS_AUTO(cs_samples) more = {0};
        CS_TRY(make_samples(others[i], CS_PART_TRAIN, others[i]->plan->dataset.standardize, &more));
        CS_TRY(cs_samples_append(&learner->training, &more));
    }
    /* No site has this name, so that no list of epoch seeds is taken for it. */
    return cs_batches_new(learner->plan, &learner->plan_hash, "", &learner->training, &learner->batches);
}

/* One step at `position`; adds the batch's loss to *loss_sum and its rows to *rows. */
static cs_status train_step(cs_learner *learner, const cs_context *context, cs_optimizer *optimizer, uint64_t position,
                            double *loss_sum, double *rows)
{
    CS_SCOPE(scope);
    cs_inputs inputs = {NULL};
    cs_tensor *labels = NULL;
    CS_TRY(cs_batches_at(learner->batches, position, &inputs.columns, &labels));
    const cs_outputs outputs = cs_model_forward(learner->model, context, &inputs);
    cs_tensor *loss = cs_objective_loss(learner->objective, &outputs, labels);
    cs_status status = cs_optimizer_step(optimizer, loss);
    if (status != CS_OK && outputs.logits != NULL)
        CS_TRY(cs_tensor_check_finite(outputs.logits, DIVERGED)); /* says more than what failed because of it */
    CS_TRY(status);

    double value = 0;
    CS_TRY(cs_tensor_value(loss, &value));
    const double batch = (double)cs_tensor_size(labels, 0);
    *loss_sum += value * batch;
    *rows += batch;
    return cs_scope_status(scope);
}

static cs_status train_round(cs_learner *learner, cs_parameters *parameters, const cs_parameters *memory,
                             uint32_t round, const cs_training_watch *watch, cs_training_result *ret)
{
    const bool keeps = learner->plan->training.optimizer.memory == CS_OPTIMIZER_KEEPS;
    CS_AUTO_PTR(cs_optimizer) optimizer = NULL;
    CS_TRY(cs_optimizer_new(learner->plan, parameters, keeps ? memory : NULL, &optimizer));
    const uint64_t steps = cs_batches_round_steps(learner->batches);
    const uint64_t start = (uint64_t)(round - 1) * steps;
    const uint64_t seed = cs_stream_seed(&learner->plan_hash, learner->site, round, "training");
    CS_AUTO_PTR(cs_generator) generator = cs_generator_new(seed);
    const cs_context context = {.is_training = true, .generator = generator, .parameters = parameters};

    double loss_sum = 0, rows = 0;
    for (uint64_t step = 0; step < steps; step++) {
        CS_FAILPOINT("worker.step");
        cs_status status = train_step(learner, &context, optimizer, start + step, &loss_sum, &rows);
        if (status != CS_OK)
            return cs_wrap(status, "round %u, step %llu of %llu", round, (unsigned long long)step + 1,
                           (unsigned long long)steps);
        if (watch != NULL)
            CS_TRY(watch->step(watch->self, step + 1, steps, loss_sum / rows));
    }
    ret->samples = learner->training.count;
    ret->steps = steps;
    ret->mean_loss = loss_sum / rows;
    CS_TRY(cs_parameters_check_finite(parameters, DIVERGED));
    return keeps ? cs_optimizer_memorize(optimizer, &ret->memory) : CS_OK;
}

cs_status cs_learner_train(cs_learner *learner, const cs_parameters *base, const cs_parameters *memory, uint32_t round,
                           const cs_training_watch *watch, cs_training_result *ret)
{
    if (round == 0)
        return cs_fail(CS_INVALID, "a round of training has a number from 1, found 0");
    CS_TRY(cs_learner_check(learner, base));
    CS_TRY(prepare_training(learner));
    CS_AUTO_PTR(cs_parameters) parameters = NULL;
    CS_TRY(cs_parameters_clone(base, &parameters));
    CS_TRY(train_round(learner, parameters, memory, round, watch, ret));
    ret->parameters = CS_TAKE(parameters);
    return CS_OK;
}

/* The model's probability for each of the samples, into `ret`. */
static cs_status predict(const cs_learner *learner, const cs_parameters *parameters, const cs_samples *samples,
                         float *ret)
{
    CS_SCOPE(scope);
    CS_NO_GRAD(guard);
    const cs_context context = {.is_training = false, .parameters = parameters};
    const cs_inputs inputs = {samples->columns};
    const cs_outputs outputs = cs_model_forward(learner->model, &context, &inputs);
    cs_tensor *p = cs_model_probability(&outputs);
    CS_TRY(cs_tensor_check_finite(p, "the model's predictions"));
    return cs_tensor_copy_out(p, ret, samples->count * cs_plan_outputs(learner->plan) * sizeof *ret);
}

static cs_status copy_labels(const cs_samples *samples, float *ret)
{
    CS_SCOPE(scope);
    return cs_tensor_copy_out(cs_tensor_to(samples->labels, CS_F32), ret, samples->count * sizeof *ret);
}

static cs_status evaluate_one(const cs_learner *learner, const cs_parameters *parameters, cs_evaluation *evaluation)
{
    CS_AUTO(cs_samples) samples = {0};
    CS_TRY(make_samples(learner, evaluation->part, evaluation->standardize, &samples));
    CS_AUTO(cs_buffer) p = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) labels = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&p, samples.count * cs_plan_outputs(learner->plan) * sizeof(float));
    cs_buffer_reserve(&labels, samples.count * sizeof(float));
    CS_TRY(predict(learner, parameters, &samples, (float *)(void *)p.data));
    CS_TRY(copy_labels(&samples, (float *)(void *)labels.data));

    const cs_predictions predictions = {.p = (const float *)(const void *)p.data,
                                        .labels = (const float *)(const void *)labels.data,
                                        .count = samples.count,
                                        .classes = learner->plan->dataset.label.classes_count,
                                        .bins = learner->plan->evaluation.bins};
    for (size_t i = 0; i < CS_METRICS_MAX; i++) {
        if (learner->plan->evaluation.metrics & (unsigned)cs_metrics[i])
            evaluation->metrics[evaluation->metrics_count++] = cs_metric_compute(cs_metrics[i], &predictions);
    }
    return CS_OK;
}

bool cs_learner_validates(const cs_learner *learner)
{
    return learner->table->parts[CS_PART_VALID] > 0;
}

cs_status cs_learner_evaluate(cs_learner *learner, const cs_parameters *parameters, const char *model, cs_part part,
                              cs_evaluation *ret, size_t *count)
{
    if (learner->plan->evaluation.metrics == 0)
        return CS_OK;
    CS_TRY(cs_table_need(learner->table, part));
    CS_TRY(cs_learner_check(learner, parameters));
    for (size_t i = 0; i < CS_COUNT(standardizations); i++) {
        if ((learner->plan->evaluation.standardize & (unsigned)standardizations[i]) == 0)
            continue;
        ret[*count] = (cs_evaluation){.model = model, .part = part, .standardize = standardizations[i]};
        CS_TRY(evaluate_one(learner, parameters, &ret[*count]));
        (*count)++;
    }
    return CS_OK;
}

const char *cs_learner_build(uint32_t threads)
{
    static char build[128];
    snprintf(build, sizeof build, "consilium %s %s threads=%u", CS_VERSION, cs_tensor_build(), threads);
    return build;
}
