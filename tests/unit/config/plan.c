/* Plans: what is read, what is refused, and where the sentence points. */
#include "common/config/plan.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "plan: heart-disease\nfederation: horizontal\n"
#define DATASET                                                                                                        \
    "dataset: {name: heart-v1, kind: table, features: [age, {name: cp, levels: [2, 3, 4]}], label: {column: num, "     \
    "above: 0}, standardize: site}\n"
#define MODEL "model: {kind: logistic_regression}\n"
#define TRAINING                                                                                                       \
    "training: {rounds: 15, local_steps: 100, batch_size: 4, optimizer: {kind: sgd, learning_rate: 0.001}, loss: "     \
    "bce}\n"
#define MINIMAL HEAD DATASET MODEL TRAINING

static cs_plan *read_good(const char *yaml)
{
    cs_plan *plan = NULL;

    if (cs_plan_read(cs_bytes_of_text(yaml), "heart.yaml", &plan) != CS_OK)
        fail_msg("%s", cs_error_text());
    return plan;
}

/* The sentence begins with `expected`. */
static void assert_refused(const char *yaml, const char *expected)
{
    cs_plan *plan = NULL;
    cs_status status = cs_plan_read(cs_bytes_of_text(yaml), "heart.yaml", &plan);

    assert_int_equal(status, CS_INVALID);
    assert_null(plan);
    if (strncmp(cs_error_text(), expected, strlen(expected)) != 0)
        fail_msg("found    \"%s\"\nexpected \"%s\"", cs_error_text(), expected);
}

static void the_example_plan_says_what_its_text_says(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    assert_int_equal(cs_file_read_all(CS_SOURCE_DIR "/deploy/plans/heart-disease.yaml", CS_PLAN_MAX_BYTES, &text),
                     CS_OK);

    CS_AUTO_PTR(cs_plan) plan = read_good(cs_buffer_text(&text));

    assert_string_equal(plan->name, "heart-disease");
    assert_true(plan->sites.invites_all);
    assert_int_equal(plan->sites.minimum, 3);
    assert_int_equal(plan->sites.approval_ms, 7 * 24 * 3600 * 1000LL);
    assert_int_equal(plan->sites.deadline_ms, 600000);
    assert_int_equal(plan->dataset.features_count, 10);
    assert_int_equal(plan->dataset.columns_count, 13);
    assert_string_equal(plan->dataset.features[8].name, "cp");
    assert_true(plan->dataset.features[8].levels[2] == 4);
    assert_true(plan->dataset.label.has_above && plan->dataset.label.above == 0);
    assert_int_equal(plan->dataset.missing, CS_MISSING_DROP);
    assert_true(plan->model.has_initial_seed && plan->model.initial_seed == 42);
    assert_int_equal(plan->training.rounds, 15);
    assert_int_equal(plan->training.local_steps, 100);
    assert_true(plan->training.optimizer.learning_rate == 0.001);
    assert_int_equal(plan->evaluation.metrics,
                     CS_METRIC_AUC | CS_METRIC_ACCURACY | CS_METRIC_BRIER | CS_METRIC_LOG_LOSS);
    assert_int_equal(plan->evaluation.standardize, CS_STANDARDIZE_SITE);
    assert_false(cs_plan_needs_statistics(plan));
    assert_int_equal(plan->seed, 42);
}

static void a_minimal_plan_gets_the_documented_defaults(void **state)
{
    (void)state;

    CS_AUTO_PTR(cs_plan) plan = read_good(MINIMAL);

    assert_true(plan->sites.invites_all);
    assert_int_equal(plan->sites.minimum, 2);
    assert_int_equal(plan->sites.approval_ms, 7 * 24 * 3600 * 1000LL);
    assert_int_equal(plan->sites.deadline_ms, 3600 * 1000);
    assert_int_equal(plan->dataset.missing, CS_MISSING_FAIL);
    assert_false(plan->model.has_initial_seed || plan->model.has_initial_blob);
    assert_int_equal(plan->aggregation.method, CS_METHOD_FEDAVG);
    assert_int_equal(plan->aggregation.weights, CS_WEIGHTS_SAMPLES);
    assert_int_equal(plan->evaluation.metrics, 15);
    assert_int_equal(plan->evaluation.standardize, CS_STANDARDIZE_SITE);
    assert_int_equal(plan->retention.update_rounds, 2);
    assert_true(plan->retention.keeps_best && plan->retention.keeps_last && plan->retention.every == 0);
}

static void everything_that_can_be_said_is_read(void **state)
{
    (void)state;

    CS_AUTO_PTR(cs_plan)
    plan = read_good(
        HEAD "sites: {invite: [cleveland, va], require: [va], minimum: 1, approval: 90s, deadline: 1h}\n"
             "dataset:\n  name: heart_v1.2\n  kind: table\n  features:\n"
             "  - {name: age, mean: 54.5, std: 9}\n  - {name: cp, levels: [1.5, -2]}\n"
             "  label: {column: num, positive: [1, 2]}\n  missing: drop\n  standardize: plan\n"
             "model: {kind: logistic_regression, initial: {blob: "
             "\"sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}}\n"
             "training: {rounds: 1, local_epochs: 3, batch_size: 1, optimizer: {kind: sgd, learning_rate: 1e-3}, loss: "
             "bce,\n  epoch_seeds: [{site: va, seeds: [6909045637428952499, 0, 18446744073709551615]}]}\n"
             "aggregation: {method: fedavg, weights: equal}\n"
             "evaluation: {metrics: [], standardize: [plan, federated]}\n"
             "retention: {updates: all, models: [\"every 10\", last]}\n"
             "seed: 18446744073709551615\n");

    assert_false(plan->sites.invites_all);
    assert_int_equal(plan->sites.invite.count, 2);
    assert_true(cs_names_have(&plan->sites.require, "va"));
    assert_false(cs_names_have(&plan->sites.require, "cleveland"));
    assert_true(plan->dataset.features[0].mean == 54.5 && plan->dataset.features[0].std == 9);
    assert_true(plan->dataset.features[1].mean == 0 && plan->dataset.features[1].std == 1);
    assert_int_equal(plan->dataset.label.positive_count, 2);
    assert_true(plan->model.has_initial_blob && plan->model.initial_blob[31] == 0xff);
    assert_int_equal(plan->training.local_epochs, 3);
    assert_int_equal(plan->training.epoch_seeds_count, 1);
    assert_true(plan->training.epoch_seeds[0].seeds[0] == UINT64_C(6909045637428952499));
    assert_true(plan->training.epoch_seeds[0].seeds[2] == UINT64_MAX);
    assert_int_equal(plan->aggregation.weights, CS_WEIGHTS_EQUAL);
    assert_int_equal(plan->evaluation.metrics, 0);
    assert_true(cs_plan_needs_statistics(plan));
    assert_true(plan->retention.keeps_all_updates && plan->retention.every == 10 && !plan->retention.keeps_best);
    assert_true(plan->seed == UINT64_MAX);
}

static void an_unknown_key_is_refused_and_the_nearest_is_named(void **state)
{
    (void)state;

    assert_refused(MINIMAL "evaluation: {metrcs: [auc]}\n",
                   "heart.yaml:6:14: evaluation: found the key \"metrcs\", expected metrics, standardize or bins; the "
                   "nearest is 'metrics'");
    assert_refused(MINIMAL "code: import os\n", "heart.yaml:6:1: found the key \"code\", expected plan, federation, ");
}

static void a_value_out_of_range_is_refused_with_line_column_and_path(void **state)
{
    (void)state;

    assert_refused(HEAD DATASET MODEL
                   "training:\n  rounds: 0\n  local_steps: 1\n  batch_size: 1\n  optimizer: {kind: sgd, "
                   "learning_rate: 1}\n  loss: bce\n",
                   "heart.yaml:6:11: training.rounds: found 0, expected a whole number, 1 … 100000");
    assert_refused(HEAD DATASET MODEL
                   "training: {rounds: 1, local_steps: 1, batch_size: 1, optimizer: {kind: sgd, learning_rate: 0}, "
                   "loss: bce}\n",
                   "heart.yaml:5:92: training.optimizer.learning_rate: found 0, expected a number above 0");
    assert_refused(HEAD DATASET MODEL
                   "training: {rounds: 1, local_steps: 1, batch_size: 1, optimizer: {kind: sgd, learning_rate: 1e999}, "
                   "loss: bce}\n",
                   "heart.yaml:5:92: training.optimizer.learning_rate: found 1e999, expected a finite number");
    assert_refused(HEAD DATASET MODEL
                   "training: {rounds: 1, local_steps: 1, batch_size: 1, optimizer: {kind: sgd, learning_rate: .nan}, "
                   "loss: bce}\n",
                   "heart.yaml:5:92: training.optimizer.learning_rate: found .nan, expected a number");
    assert_refused(HEAD "sites: {deadline: 999ms}\n" DATASET MODEL TRAINING,
                   "heart.yaml:3:19: sites.deadline: found 999ms, expected a duration of 1 s … 2592000 s");
    assert_refused(MINIMAL "seed: 18446744073709551616\n",
                   "heart.yaml:6:7: seed: found 18446744073709551616, expected");
    assert_refused(MINIMAL "seed: -1\n", "heart.yaml:6:7: seed: found -1, expected a whole number");
    assert_refused(MINIMAL "seed: 007\n", "heart.yaml:6:7: seed: found 007, expected a whole number");
    assert_refused(MINIMAL "seed: \"7\"\n", "heart.yaml:6:7: seed: found \"7\", expected a whole number");
    assert_refused(MINIMAL "seed: [7]\n", "heart.yaml:6:7: seed: found a list of 1, expected a whole number");
    assert_refused(MINIMAL "seed:\n", "heart.yaml:6:6: seed: found nothing, expected a whole number");
}

static void a_word_the_software_does_not_know_is_refused_with_those_it_knows(void **state)
{
    (void)state;

    assert_refused(HEAD DATASET "model: {kind: resnet18}\n" TRAINING,
                   "heart.yaml:4:15: model.kind: found 'resnet18', expected logistic_regression or mlp");
    assert_refused(MINIMAL "evaluation: {metrics: [auc, auc]}\n",
                   "heart.yaml:6:29: evaluation.metrics[1]: found 'auc', expected each word once");
    assert_refused("plan: Heart Disease\n", "heart.yaml:1:7: plan: found 'Heart Disease', expected a name of a-z");
}

static void a_missing_key_is_named(void **state)
{
    (void)state;

    assert_refused(HEAD DATASET MODEL, "heart.yaml:1:1: the key 'training' is missing");
    assert_refused(HEAD DATASET MODEL "training: {rounds: 1}\n",
                   "heart.yaml:5:11: training: the key 'batch_size' is missing");
}

static void steps_and_epochs_exclude_each_other(void **state)
{
    (void)state;

    assert_refused(HEAD DATASET MODEL "training: {rounds: 1, batch_size: 1, optimizer: {kind: sgd, learning_rate: 1}, "
                                      "loss: bce}\n",
                   "heart.yaml:5:11: training: found none of 'local_steps' and 'local_epochs', expected one");
    assert_refused(HEAD DATASET MODEL
                   "training: {rounds: 1, local_steps: 1, local_epochs: 1, batch_size: 1, optimizer: "
                   "{kind: sgd, learning_rate: 1}, loss: bce}\n",
                   "heart.yaml:5:11: training: found both of 'local_steps' and 'local_epochs', expected one");
}

static void sites_must_agree_with_each_other(void **state)
{
    (void)state;

    assert_refused(HEAD "sites: {invite: [a, b], minimum: 3}\n" DATASET MODEL TRAINING,
                   "heart.yaml:3:34: sites.minimum: found a minimum of 3 sites, expected at most 2");
    assert_refused(HEAD "sites: {invite: [a]}\n" DATASET MODEL TRAINING,
                   "heart.yaml:3:8: sites: found a minimum of 2 sites, expected at most 1");
    assert_refused(HEAD "sites: {invite: [a, b], require: [c]}\n" DATASET MODEL TRAINING,
                   "heart.yaml:3:34: sites.require: found the site 'c', expected only sites that are invited");
    assert_refused(HEAD "sites: {invite: [a, b, a]}\n" DATASET MODEL TRAINING,
                   "heart.yaml:3:17: sites.invite: found 'a' twice");
    assert_refused(HEAD "sites: {invite: []}\n" DATASET MODEL TRAINING,
                   "heart.yaml:3:17: sites.invite: found a list of 0");
    assert_refused(HEAD "sites: {invite: [../etc]}\n" DATASET MODEL TRAINING,
                   "heart.yaml:3:18: sites.invite[0]: found ../etc, expected a name");
}

#define WITH_FEATURES(features_, rest_)                                                                                \
    HEAD "dataset: {name: h, kind: table, label: {column: num, above: 0}, features: " features_ ", " rest_             \
         "}\n" MODEL TRAINING

static void features_must_make_sense(void **state)
{
    (void)state;

    assert_refused(WITH_FEATURES("[age, age]", "standardize: site"),
                   "heart.yaml:3:81: dataset.features[1]: found the feature 'age' again, expected each once");
    assert_refused(WITH_FEATURES("[age, num]", "standardize: site"),
                   "heart.yaml:3:81: dataset.features[1]: found the feature 'num', which is the label's column");
    assert_refused(WITH_FEATURES("[{name: cp, levels: [1, 2, 1.0]}]", "standardize: site"),
                   "heart.yaml:3:102: dataset.features[0].levels[2]: found 1.0, expected each level once");
    assert_refused(WITH_FEATURES("[{name: cp, levels: []}]", "standardize: site"),
                   "heart.yaml:3:95: dataset.features[0].levels: found a list of 0, expected a list of 1 … 1024");
    assert_refused(WITH_FEATURES("[{name: age, mean: 1, std: 0}]", "standardize: plan"),
                   "heart.yaml:3:102: dataset.features[0].std: found 0, expected a number above 0");
    assert_refused(WITH_FEATURES("[{name: age, mean: 1}]", "standardize: plan"),
                   "heart.yaml:3:76: dataset.features[0]: the feature 'age' has no mean and std");
    assert_refused(
        WITH_FEATURES("[{name: age, mean: 1, std: 1}]", "standardize: site"),
        "heart.yaml:3:76: dataset.features[0]: found mean or std, expected them with standardize: plan only");
    assert_refused(WITH_FEATURES("[{name: cp, levels: [1], mean: 1, std: 1}]", "standardize: plan"),
                   "heart.yaml:3:76: dataset.features[0]: found mean or std with levels");
    assert_refused(WITH_FEATURES("[]", "standardize: site"), "heart.yaml:3:75: dataset.features: found a list of 0");
    assert_refused(WITH_FEATURES("[\"a\\nb\"]", "standardize: site"),
                   "heart.yaml:3:76: dataset.features[0]: found \"a?b\", expected a text without control characters");
}

static cs_plan *read_example(const char *name)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) path = cs_format(CS_SOURCE_DIR "/deploy/plans/%s.yaml", name);
    assert_int_equal(cs_file_read_all(path, CS_PLAN_MAX_BYTES, &text), CS_OK);
    return read_good(cs_buffer_text(&text));
}

static void the_example_of_a_network_says_what_its_text_says(void **state)
{
    (void)state;

    CS_AUTO_PTR(cs_plan) plan = read_example("heart-stages");

    assert_int_equal(plan->dataset.label.classes_count, 5);
    assert_true(plan->dataset.label.classes[4] == 4);
    assert_int_equal(plan->model.kind, CS_MODEL_MLP);
    assert_int_equal(plan->model.hidden_count, 2);
    assert_true(plan->model.hidden[0] == 32 && plan->model.hidden[1] == 16);
    assert_true(plan->model.activation == CS_ACTIVATION_RELU && plan->model.dropout == 0.1);
    assert_int_equal(plan->training.optimizer.kind, CS_OPTIMIZER_ADAMW);
    assert_true(plan->training.optimizer.beta1 == 0.9 && plan->training.optimizer.beta2 == 0.999);
    assert_true(plan->training.optimizer.epsilon == 1e-8 && plan->training.optimizer.weight_decay == 0.01);
    assert_int_equal(plan->training.losses_count, 1);
    assert_int_equal(plan->training.losses[0].kind, CS_LOSS_CROSS_ENTROPY);
    assert_true(plan->training.losses[0].is_balanced && plan->training.losses[0].label_smoothing == 0.05);
    assert_true(plan->training.early_stopping.is_on && plan->training.early_stopping.metric == CS_METRIC_LOG_LOSS);
    assert_int_equal(plan->training.early_stopping.patience, 8);
    assert_int_equal(plan->training.early_stopping.every, 1);
    assert_true(plan->training.early_stopping.minimum_change == 0.002);
    assert_true(cs_plan_needs_moments(plan) && cs_plan_needs_class_counts(plan));
    assert_true(cs_plan_evaluates(plan, 1) && cs_plan_evaluates(plan, 60) && !cs_plan_evaluates(plan, 0));
    assert_int_equal(cs_plan_outputs(plan), 5);
}

static void the_example_with_weights_says_what_its_text_says(void **state)
{
    (void)state;

    CS_AUTO_PTR(cs_plan) plan = read_example("heart-disease-weighted");

    assert_true(plan->training.optimizer.momentum == 0.9 && plan->training.optimizer.is_nesterov);
    assert_int_equal(plan->training.optimizer.memory, CS_OPTIMIZER_KEEPS);
    assert_true(plan->training.losses[0].positive_weight == 2.5 && plan->training.losses[0].weight == 1);
    assert_true(plan->evaluation.metrics & CS_METRIC_CALIBRATION_ERROR);
    assert_int_equal(plan->evaluation.bins, 15);
    assert_false(cs_plan_needs_statistics(plan));
    assert_true(cs_plan_evaluates(plan, 15) && !cs_plan_evaluates(plan, 14));
    assert_int_equal(cs_plan_outputs(plan), 1);
}

static void keys_of_another_kind_of_model_are_refused(void **state)
{
    (void)state;

    assert_refused(HEAD DATASET "model: {kind: mlp}\n" TRAINING,
                   "heart.yaml:4:8: model: the key 'hidden' is missing, which kind: mlp needs");
    assert_refused(HEAD DATASET "model: {kind: logistic_regression, hidden: [3]}\n" TRAINING,
                   "heart.yaml:4:44: model.hidden: found a value, expected 'hidden' with kind: mlp only");
    assert_refused(HEAD DATASET "model: {kind: mlp, hidden: [0]}\n" TRAINING,
                   "heart.yaml:4:29: model.hidden[0]: found 0, expected a whole number, 1 … 65536");
    assert_refused(HEAD DATASET "model: {kind: mlp, hidden: []}\n" TRAINING,
                   "heart.yaml:4:28: model.hidden: found a list of 0, expected a list of 1 … 16");
    assert_refused(HEAD DATASET
                   "model: {kind: mlp, hidden: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]}\n" TRAINING,
                   "heart.yaml:4:28: model.hidden: found a list of 17, expected a list of 1 … 16");
    assert_refused(HEAD DATASET "model: {kind: mlp, hidden: [3], dropout: 1}\n" TRAINING,
                   "heart.yaml:4:42: model.dropout: found 1, expected a number, 0 … below 1");
}

/* `training_` stands in place of the optimizer's mapping. */
#define WITH_OPTIMIZER(optimizer_)                                                                                     \
    HEAD DATASET MODEL "training: {rounds: 1, local_steps: 1, batch_size: 1, loss: bce, optimizer: " optimizer_ "}\n"

static void an_optimizer_s_keys_belong_to_its_kind(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) adam = read_good(
        WITH_OPTIMIZER("{kind: adam, learning_rate: 1, betas: [0.5, 0.75], epsilon: 1e-4, weight_decay: 0.5}"));
    assert_true(adam->training.optimizer.beta2 == 0.75 && adam->training.optimizer.epsilon == 1e-4);
    CS_AUTO_PTR(cs_plan) plain = read_good(WITH_OPTIMIZER("{kind: adam, learning_rate: 1}"));
    assert_true(plain->training.optimizer.weight_decay == 0);
    assert_int_equal(plain->training.optimizer.memory, CS_OPTIMIZER_RESETS);

    assert_refused(
        WITH_OPTIMIZER("{kind: adam, learning_rate: 1, momentum: 0.9}"),
        "heart.yaml:5:117: training.optimizer.momentum: found a value, expected 'momentum' with kind: sgd only");
    assert_refused(
        WITH_OPTIMIZER("{kind: sgd, learning_rate: 1, betas: [0.9, 0.9]}"),
        "heart.yaml:5:113: training.optimizer.betas: found a value, expected 'betas' with kind: adam or adamw "
        "only");
    assert_refused(WITH_OPTIMIZER("{kind: sgd, learning_rate: 1, nesterov: true}"),
                   "heart.yaml:5:76: training.optimizer: found nesterov without momentum, expected a momentum above 0");
    assert_refused(WITH_OPTIMIZER("{kind: adam, learning_rate: 1, betas: [0.9]}"),
                   "heart.yaml:5:114: training.optimizer.betas: found a list of 1, expected a list of 2 … 2");
    assert_refused(WITH_OPTIMIZER("{kind: adam, learning_rate: 1, betas: [0.9, 1]}"),
                   "heart.yaml:5:120: training.optimizer.betas[1]: found 1, expected a number, 0 … below 1");
    assert_refused(WITH_OPTIMIZER("{kind: sgd, learning_rate: 1, state: sometimes}"),
                   "heart.yaml:5:113: training.optimizer.state: found 'sometimes', expected reset or keep");
}

#define CLASSES_DATASET                                                                                                \
    "dataset: {name: heart-v1, kind: table, features: [age], label: {column: num, classes: [0, 1, 2]}, standardize: "  \
    "site}\n"
#define WITH_LOSS(dataset_, loss_)                                                                                     \
    HEAD dataset_ MODEL                                                                                                \
        "training: {rounds: 1, local_steps: 1, batch_size: 1, optimizer: {kind: sgd, learning_rate: 1}, loss: " loss_  \
        "}\n"

static void a_loss_is_a_word_a_mapping_or_a_list_of_terms(void **state)
{
    (void)state;

    CS_AUTO_PTR(cs_plan) list = read_good(WITH_LOSS(
        CLASSES_DATASET, "[cross_entropy, {kind: cross_entropy, on: logits, target: label, weight: 0.5, class_weights: "
                         "[1, 2, 3]}]"));

    assert_int_equal(list->training.losses_count, 2);
    assert_true(list->training.losses[0].weight == 1 && !list->training.losses[0].class_weights);
    assert_true(list->training.losses[1].weight == 0.5 && list->training.losses[1].class_weights[2] == 3);
    CS_AUTO_PTR(cs_plan) balanced = read_good(WITH_LOSS(DATASET, "{kind: bce, positive_weight: balanced}"));
    assert_true(balanced->training.losses[0].is_balanced && cs_plan_needs_statistics(balanced));
    assert_false(cs_plan_needs_moments(balanced));
}

static void a_loss_must_fit_the_label(void **state)
{
    (void)state;

    assert_refused(WITH_LOSS(CLASSES_DATASET, "bce"),
                   "heart.yaml:5:102: training.loss: found bce and a label of 3 classes, expected cross_entropy");
    assert_refused(WITH_LOSS(DATASET, "[bce, cross_entropy]"),
                   "heart.yaml:5:108: training.loss[1]: found cross_entropy and a label of yes or no, expected bce or");
    assert_refused(WITH_LOSS(CLASSES_DATASET, "{kind: cross_entropy, class_weights: [1, 2]}"),
                   "heart.yaml:5:139: training.loss.class_weights: found 2 numbers, expected 3, one for each class");
    assert_refused(WITH_LOSS(CLASSES_DATASET, "{kind: cross_entropy, class_weights: [1, 2, 0]}"),
                   "heart.yaml:5:146: training.loss.class_weights[2]: found 0, expected a number above 0");
    assert_refused(
        WITH_LOSS(DATASET, "{kind: bce, positive_weight: heavy}"),
        "heart.yaml:5:131: training.loss.positive_weight: found 'heavy', expected balanced or a number above 0");
    assert_refused(
        WITH_LOSS(DATASET, "{kind: bce, label_smoothing: 0.1}"),
        "heart.yaml:5:131: training.loss.label_smoothing: found a value, expected 'label_smoothing' with kind: "
        "cross_entropy only");
    assert_refused(WITH_LOSS(DATASET, "[]"),
                   "heart.yaml:5:102: training.loss: found a list of 0, expected a list of 1 … 8");
    assert_refused(WITH_LOSS(DATASET, "[bce, bce, bce, bce, bce, bce, bce, bce, bce]"),
                   "heart.yaml:5:102: training.loss: found a list of 9, expected a list of 1 … 8");
}

#define WITH_STOPPING(stopping_, rest_)                                                                                \
    HEAD DATASET MODEL                                                                                                 \
        "training: {rounds: 1, local_steps: 1, batch_size: 1, optimizer: {kind: sgd, learning_rate: 1}, loss: bce, "   \
        "early_stopping: " stopping_ "}\n" rest_

static void early_stopping_needs_what_it_decides_by(void **state)
{
    (void)state;

    assert_refused(
        WITH_STOPPING("{metric: calibration_error, patience: 1}", ""),
        "heart.yaml:5:132: training.early_stopping.metric: found 'calibration_error', expected accuracy, auc");
    assert_refused(WITH_STOPPING("{metric: auc, on: test, patience: 1}", ""),
                   "heart.yaml:5:141: training.early_stopping.on: found 'test', expected valid");
    assert_refused(WITH_STOPPING("{metric: auc, patience: 0}", ""),
                   "heart.yaml:5:147: training.early_stopping.patience: found 0, expected a whole number, 1 … 100000");
    assert_refused(WITH_STOPPING("{metric: auc, patience: 1, minimum_change: -1}", ""),
                   "heart.yaml:5:166: training.early_stopping.minimum_change: found -1, expected a number, 0 or above");
    assert_refused(WITH_STOPPING("{metric: auc, patience: 1}", "evaluation: {metrics: [brier]}\n"),
                   "heart.yaml:5:132: training.early_stopping.metric: found 'auc', expected one of evaluation.metrics");
    assert_refused(
        WITH_STOPPING("{metric: auc, patience: 1}", "evaluation: {standardize: [federated]}\n"),
        "heart.yaml:5:123: training.early_stopping: it looks at rows scaled by 'site', expected that word in");
    assert_refused(WITH_STOPPING("{metric: auc, patience: 1}", "retention: {models: [last]}\n"),
                   "heart.yaml:5:123: training.early_stopping: its result is the best round, expected best in");
}

static void classes_one_above_the_limit_are_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) classes = CS_BUFFER_EMPTY;
    for (int i = 0; i <= CS_PLAN_CLASSES_MAX; i++)
        cs_buffer_printf(&classes, "%s%d", i ? ", " : "", i);
    CS_AUTO(cs_string)
    yaml = cs_format(HEAD "dataset: {name: h, kind: table, features: [age], standardize: site, label: {column: num, "
                          "classes: [%s]}}\n" MODEL TRAINING,
                     cs_buffer_text(&classes));

    assert_refused(yaml, "heart.yaml:3:99: dataset.label.classes: found a list of 101, expected a list of 2 … 100");
}

static void a_label_has_exactly_one_rule(void **state)
{
    (void)state;
    static const char form[] = HEAD "dataset: {name: h, kind: table, features: [age], label: {column: num%s}, "
                                    "standardize: site}\n" MODEL TRAINING;
    CS_AUTO(cs_string) none = cs_format(form, "");
    CS_AUTO(cs_string) both = cs_format(form, ", above: 0, positive: [1]");

    assert_refused(none, "heart.yaml:3:57: dataset.label: found 0 of 'above', 'positive' and 'classes', expected one");
    assert_refused(both, "heart.yaml:3:57: dataset.label: found 2 of 'above', 'positive' and 'classes', expected one");
}

static void initial_model_is_a_seed_or_a_blob(void **state)
{
    (void)state;

    assert_refused(HEAD DATASET "model: {kind: logistic_regression, initial: {}}\n" TRAINING,
                   "heart.yaml:4:45: model.initial: found 0 of 'seed' and 'blob', expected one");
    assert_refused(HEAD DATASET "model: {kind: logistic_regression, initial: {blob: \"sha256:00\"}}\n" TRAINING,
                   "heart.yaml:4:52: model.initial.blob: found \"sha256:00\", expected sha256: and 64 hexadecimal");
}

static void retention_is_words_or_numbers(void **state)
{
    (void)state;

    assert_refused(MINIMAL "retention: {updates: some}\n",
                   "heart.yaml:6:22: retention.updates: found 'some', expected all or the number");
    assert_refused(MINIMAL "retention: {updates: 0}\n",
                   "heart.yaml:6:22: retention.updates: found 0, expected a whole number, 1 … 100000");
    assert_refused(MINIMAL "retention: {models: [every 0]}\n",
                   "heart.yaml:6:22: retention.models[0]: found 'every 0', expected best, last or \"every N\"");
    assert_refused(MINIMAL "retention: {models: [last, last]}\n",
                   "heart.yaml:6:28: retention.models[1]: found 'last', expected best, last or \"every N\"");
}

static void features_one_above_the_limit_are_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&yaml, HEAD MODEL TRAINING "dataset:\n  name: h\n  kind: table\n  standardize: site\n"
                                                     "  label: {column: num, above: 0}\n  features:\n");
    for (int i = 0; i < CS_PLAN_FEATURES_MAX; i++)
        cs_buffer_printf(&yaml, "  - f%d\n", i);
    CS_AUTO_PTR(cs_plan) plan = read_good(cs_buffer_text(&yaml));
    assert_int_equal(plan->dataset.features_count, CS_PLAN_FEATURES_MAX);

    cs_buffer_append_text(&yaml, "  - one-more\n");

    assert_refused(cs_buffer_text(&yaml),
                   "heart.yaml:11:3: dataset.features: found a list of 4097, expected a list of 1 … 4096");
}

static void levels_one_above_the_limit_are_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) levels = CS_BUFFER_EMPTY;
    for (int i = 0; i <= CS_PLAN_LEVELS_MAX; i++)
        cs_buffer_printf(&levels, "%s%d", i ? ", " : "", i);
    CS_AUTO(cs_string)
    yaml =
        cs_format(HEAD "dataset: {name: h, kind: table, label: {column: num, above: 0}, standardize: site, features: "
                       "[{name: cp, levels: [%s]}]}\n" MODEL TRAINING,
                  cs_buffer_text(&levels));

    assert_refused(yaml,
                   "heart.yaml:3:114: dataset.features[0].levels: found a list of 1025, expected a list of 1 … 1024");
}

static void a_plan_one_byte_above_the_limit_is_refused(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) yaml = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&yaml, MINIMAL "#");
    while (yaml.size < CS_PLAN_MAX_BYTES)
        cs_buffer_append_text(&yaml, "x");
    CS_AUTO_PTR(cs_plan) plan = read_good(cs_buffer_text(&yaml));
    assert_non_null(plan);

    cs_buffer_append_text(&yaml, "x");

    assert_refused(cs_buffer_text(&yaml), "heart.yaml: found 1048577 bytes, expected at most 1048576");
}

#define VERTICAL(alignment_)                                                                                           \
    "plan: cohort\nfederation: vertical\nsites: {invite: [clinic, mercy, registry]}\n"                                 \
    "dataset: {name: persons-v1, kind: identities}\nalignment: {study: heart-2026, leader: mercy, " alignment_ "}\n"
#define KEYS "keys: [[family, given, birth_date], [national_id]], "

static void an_alignment_says_what_its_text_says(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan)
    plan = read_good(VERTICAL(KEYS "phonetic: cologne, cohort: {any: 2}, minimum: 5, patients: 50000"));

    assert_int_equal(plan->federation, CS_VERTICAL);
    assert_int_equal(plan->dataset.kind, CS_DATASET_IDENTITIES);
    assert_int_equal(plan->sites.minimum, 3);
    assert_string_equal(plan->alignment.study, "heart-2026");
    assert_string_equal(plan->alignment.leader, "mercy");
    assert_int_equal(plan->alignment.keys_count, 2);
    assert_int_equal(plan->alignment.keys[0].parts_count, 3);
    assert_int_equal(plan->alignment.keys[0].parts[0], CS_PART_GIVEN); /* sorted */
    assert_int_equal(plan->alignment.keys[0].parts[2], CS_PART_BIRTH_DATE);
    assert_int_equal(plan->alignment.keys[1].parts[0], CS_PART_NATIONAL_ID);
    assert_int_equal(plan->alignment.phonetic, CS_PHONETIC_COLOGNE);
    assert_false(plan->alignment.needs_all);
    assert_int_equal(plan->alignment.any_of, 2);
    assert_int_equal(plan->alignment.minimum, 5);
    assert_int_equal(plan->alignment.patients, 50000);
    assert_true(plan->alignment.is_mutual);
}

static void an_alignment_that_could_not_work_is_refused(void **state)
{
    (void)state;
    assert_refused(
        VERTICAL("keys: [[given]], cohort: all, patients: 9"),
        "heart.yaml:5:54: alignment.keys[0]: found a list of 1, expected at least 2 parts, or national_id alone");
    assert_refused(VERTICAL("keys: [[given, given]], cohort: all, patients: 9"),
                   "heart.yaml:5:62: alignment.keys[0][1]: found 'given', expected each part once");
    assert_refused(VERTICAL("keys: [[given, sex], [sex, given]], cohort: all, patients: 9"),
                   "heart.yaml:5:68: alignment.keys[1]: found a list of 2, expected each key once");
    assert_refused(VERTICAL("keys: [[given, family], [given, sex], [given, names], [given, postcode], [family, sex], "
                            "[family, postcode], [sex, postcode]], cohort: all, patients: 9"),
                   "heart.yaml:5:53: alignment.keys: found a list of 7, expected a list of 1 … 6");
    assert_refused(VERTICAL(KEYS "cohort: {any: 3}, patients: 9"),
                   "heart.yaml:5:107: alignment.cohort: found a mapping, expected at most 2, the number of other");
    assert_refused(VERTICAL(KEYS "cohort: most, patients: 9"),
                   "heart.yaml:5:107: alignment.cohort: found 'most', expected all or {any: N}");
    assert_refused(VERTICAL(KEYS "cohort: all, mutual: false, patients: 9"),
                   "heart.yaml:5:120: alignment.mutual: found 'false', expected true where there are more than two");
    assert_refused(VERTICAL(KEYS "cohort: all"), "heart.yaml:5:12: alignment: the key 'patients' is missing");
    assert_refused(VERTICAL(KEYS "cohort: all, patients: 9") "training: {rounds: 1, batch_size: 1, optimizer: {kind: "
                                                             "sgd, learning_rate: 1}, loss: bce}\n",
                   "heart.yaml:6:11: training: found it, expected no 'training' with federation: vertical");
    assert_refused("plan: cohort\nfederation: vertical\ndataset: {name: p, kind: identities}\nalignment: {study: s, "
                   "leader: a, " KEYS "cohort: all, patients: 9}\n",
                   "heart.yaml:1:1: found a mapping, expected a list of 2 … 16 sites by name");
    assert_refused("plan: cohort\nfederation: vertical\nsites: {invite: [a, b], minimum: 1}\ndataset: {name: p, kind: "
                   "identities}\nalignment: {study: s, leader: a, " KEYS "cohort: all, patients: 9}\n",
                   "heart.yaml:3:34: sites.minimum: found 1, expected 2: an alignment needs everybody invited");
    assert_refused("plan: cohort\nfederation: vertical\nsites: {invite: [a, b]}\ndataset: {name: p, kind: "
                   "identities}\nalignment: {study: s, leader: c, " KEYS "cohort: all, patients: 9}\n",
                   "heart.yaml:5:31: alignment.leader: found 'c', expected one of the invited sites");
    assert_refused(MINIMAL "alignment: {study: s, leader: a, " KEYS "cohort: all, patients: 9}\n",
                   "heart.yaml:6:12: alignment: found it, expected no 'alignment' with federation: horizontal");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_plan_says_what_its_text_says),
        cmocka_unit_test(a_minimal_plan_gets_the_documented_defaults),
        cmocka_unit_test(everything_that_can_be_said_is_read),
        cmocka_unit_test(an_unknown_key_is_refused_and_the_nearest_is_named),
        cmocka_unit_test(a_value_out_of_range_is_refused_with_line_column_and_path),
        cmocka_unit_test(a_word_the_software_does_not_know_is_refused_with_those_it_knows),
        cmocka_unit_test(a_missing_key_is_named),
        cmocka_unit_test(an_alignment_says_what_its_text_says),
        cmocka_unit_test(an_alignment_that_could_not_work_is_refused),
        cmocka_unit_test(steps_and_epochs_exclude_each_other),
        cmocka_unit_test(sites_must_agree_with_each_other),
        cmocka_unit_test(features_must_make_sense),
        cmocka_unit_test(the_example_of_a_network_says_what_its_text_says),
        cmocka_unit_test(the_example_with_weights_says_what_its_text_says),
        cmocka_unit_test(keys_of_another_kind_of_model_are_refused),
        cmocka_unit_test(an_optimizer_s_keys_belong_to_its_kind),
        cmocka_unit_test(a_loss_is_a_word_a_mapping_or_a_list_of_terms),
        cmocka_unit_test(a_loss_must_fit_the_label),
        cmocka_unit_test(early_stopping_needs_what_it_decides_by),
        cmocka_unit_test(classes_one_above_the_limit_are_refused),
        cmocka_unit_test(a_label_has_exactly_one_rule),
        cmocka_unit_test(initial_model_is_a_seed_or_a_blob),
        cmocka_unit_test(retention_is_words_or_numbers),
        cmocka_unit_test(features_one_above_the_limit_are_refused),
        cmocka_unit_test(levels_one_above_the_limit_are_refused),
        cmocka_unit_test(a_plan_one_byte_above_the_limit_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
