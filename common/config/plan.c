/* Reads and checks plans. Called by the coordinator on submission, by the agent and by the worker, on any thread. */
#include "common/config/plan.h"

#include "common/config/alignment.h"
#include "common/config/yaml.h"

#include <stdlib.h>
#include <string.h>

#define KEEP_BUDGET_BYTES ((size_t)32 * 1024 * 1024)
#define SECOND_MS         UINT64_C(1000)
#define DAY_MS            (24 * 3600 * SECOND_MS)

_Static_assert(sizeof(cs_federation) == sizeof(unsigned) && sizeof(cs_standardize) == sizeof(unsigned),
               "cs_yaml_choice stores an unsigned");

bool cs_names_have(const cs_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->items[i], name) == 0)
            return true;
    }
    return false;
}

/* ---- words ---- */

static const cs_yaml_word federations[] = {{"horizontal", CS_HORIZONTAL}, {"vertical", CS_VERTICAL}, {NULL, 0}};
static const cs_yaml_word dataset_kinds[] = {
    {"table", CS_DATASET_TABLE}, {"identities", CS_DATASET_IDENTITIES}, {NULL, 0}};
static const cs_yaml_word missing_rules[] = {{"drop", CS_MISSING_DROP}, {"fail", CS_MISSING_FAIL}, {NULL, 0}};
static const cs_yaml_word standardizations[] = {{"none", CS_STANDARDIZE_NONE},
                                                {"plan", CS_STANDARDIZE_PLAN},
                                                {"federated", CS_STANDARDIZE_FEDERATED},
                                                {"site", CS_STANDARDIZE_SITE},
                                                {NULL, 0}};
static const cs_yaml_word metrics[] = {{"accuracy", CS_METRIC_ACCURACY},
                                       {"auc", CS_METRIC_AUC},
                                       {"brier", CS_METRIC_BRIER},
                                       {"log_loss", CS_METRIC_LOG_LOSS},
                                       {"calibration_error", CS_METRIC_CALIBRATION_ERROR},
                                       {NULL, 0}};
static const cs_yaml_word model_kinds[] = {
    {"logistic_regression", CS_MODEL_LOGISTIC_REGRESSION}, {"mlp", CS_MODEL_MLP}, {NULL, 0}};
static const cs_yaml_word activations[] = {
    {"relu", CS_ACTIVATION_RELU}, {"gelu", CS_ACTIVATION_GELU}, {"tanh", CS_ACTIVATION_TANH}, {NULL, 0}};
static const cs_yaml_word optimizers[] = {
    {"sgd", CS_OPTIMIZER_SGD}, {"adam", CS_OPTIMIZER_ADAM}, {"adamw", CS_OPTIMIZER_ADAMW}, {NULL, 0}};
static const cs_yaml_word memories[] = {{"reset", CS_OPTIMIZER_RESETS}, {"keep", CS_OPTIMIZER_KEEPS}, {NULL, 0}};
static const cs_yaml_word losses[] = {{"bce", CS_LOSS_BCE}, {"cross_entropy", CS_LOSS_CROSS_ENTROPY}, {NULL, 0}};
static const cs_yaml_word loss_ons[] = {{"logits", CS_LOSS_ON_LOGITS}, {NULL, 0}};
static const cs_yaml_word loss_targets[] = {{"label", CS_LOSS_TARGET_LABEL}, {NULL, 0}};
/* Calibration alone says nothing about which patient is the sicker one. */
static const cs_yaml_word stopping_metrics[] = {{"accuracy", CS_METRIC_ACCURACY},
                                                {"auc", CS_METRIC_AUC},
                                                {"brier", CS_METRIC_BRIER},
                                                {"log_loss", CS_METRIC_LOG_LOSS},
                                                {NULL, 0}};
/* Test rows that choose a model are no test any more. */
static const cs_yaml_word stopping_parts[] = {{"valid", CS_STOPPING_ON_VALID}, {NULL, 0}};
static const cs_yaml_word methods[] = {{"fedavg", CS_METHOD_FEDAVG}, {NULL, 0}};
static const cs_yaml_word weights[] = {{"samples", CS_WEIGHTS_SAMPLES}, {"equal", CS_WEIGHTS_EQUAL}, {NULL, 0}};

static const char *word_of(const cs_yaml_word *words, unsigned value)
{
    for (; words->text; words++) {
        if (words->value == value)
            return words->text;
    }
    return "unknown";
}

const char *cs_model_kind_name(cs_model_kind kind)
{
    return word_of(model_kinds, kind);
}

const char *cs_metric_name(cs_metric metric)
{
    return word_of(metrics, metric);
}

const cs_metric cs_metrics[CS_METRICS_MAX] = {CS_METRIC_ACCURACY, CS_METRIC_AUC, CS_METRIC_BRIER, CS_METRIC_LOG_LOSS,
                                              CS_METRIC_CALIBRATION_ERROR};

const char *cs_optimizer_kind_name(cs_optimizer_kind kind)
{
    return word_of(optimizers, kind);
}

const char *cs_standardize_name(cs_standardize standardize)
{
    return word_of(standardizations, standardize);
}

/* ---- sites ---- */

static cs_status read_invite(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;
    cs_yaml_key at_least_one = *key;

    if (cs_yaml_is(node, "all"))
        return CS_OK;
    if (node->kind != CS_YAML_LIST || node->count == 0)
        return cs_yaml_refuse(node, "all or a list of site names");
    at_least_one.low = 1;
    plan->sites.invites_all = false;
    return cs_yaml_names(node, &at_least_one, &plan->sites.invite);
}

static const cs_yaml_key sites_keys[] = {
    CS_YAML_KEY("invite", read_invite, 0),
    CS_YAML_KEY("require", cs_yaml_names, offsetof(cs_plan, sites.require)),
    CS_YAML_KEY("minimum", cs_yaml_u32, offsetof(cs_plan, sites.minimum), .low = 1, .high = 10000),
    CS_YAML_KEY("approval", cs_yaml_duration, offsetof(cs_plan, sites.approval_ms), .low = SECOND_MS,
                .high = 365 * DAY_MS),
    CS_YAML_KEY("deadline", cs_yaml_duration, offsetof(cs_plan, sites.deadline_ms), .low = SECOND_MS,
                .high = 30 * DAY_MS),
    {.name = NULL},
};

/* ---- data set ---- */

static cs_status read_distinct(const cs_yaml_node *node, size_t low, size_t high, const char *what, double **ret,
                               size_t *ret_count)
{
    CS_TRY(cs_yaml_reals(node, low, high, ret, ret_count));
    for (const cs_yaml_node *item = node->first; item; item = item->next) {
        for (size_t i = 0; i < item->index; i++) {
            if ((*ret)[i] == (*ret)[item->index])
                return cs_yaml_refuse(item, "each %s once", what);
        }
    }
    return CS_OK;
}

static cs_status read_levels(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_feature *feature = field;

    (void)key;
    return read_distinct(node, 1, CS_PLAN_LEVELS_MAX, "level", &feature->levels, &feature->levels_count);
}

static const cs_yaml_key feature_keys[] = {
    CS_YAML_KEY("name", cs_yaml_text, offsetof(cs_feature, name), .is_required = true),
    CS_YAML_KEY("levels", read_levels, 0),
    CS_YAML_KEY("mean", cs_yaml_real, offsetof(cs_feature, mean)),
    CS_YAML_KEY("std", cs_yaml_positive, offsetof(cs_feature, std)),
    {.name = NULL},
};

static cs_status read_features(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;
    void *features;

    (void)key;
    CS_TRY(cs_yaml_expect_list(node, 1, CS_PLAN_FEATURES_MAX));
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(cs_feature), &features));
    plan->dataset.features = features;
    plan->dataset.features_count = node->count;
    for (const cs_yaml_node *item = node->first; item; item = item->next) {
        cs_feature *feature = &plan->dataset.features[item->index];
        feature->std = 1;
        if (item->kind == CS_YAML_MAPPING)
            CS_TRY(cs_yaml_walk(item, feature_keys, feature));
        else
            CS_TRY(cs_yaml_text(item, NULL, &feature->name));
        for (size_t i = 0; i < item->index; i++) {
            if (strcmp(plan->dataset.features[i].name, feature->name) == 0)
                return cs_yaml_fail(item, "found the feature '%s' again, expected each once", feature->name);
        }
        plan->dataset.columns_count += feature->levels_count ? feature->levels_count : 1;
    }
    return CS_OK;
}

static cs_status read_above(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_label *label = field;

    label->has_above = true;
    return cs_yaml_real(node, key, &label->above);
}

static cs_status read_positive(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_label *label = field;

    (void)key;
    return cs_yaml_reals(node, 1, CS_PLAN_LEVELS_MAX, &label->positive, &label->positive_count);
}

static cs_status read_classes(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_label *label = field;

    (void)key;
    return read_distinct(node, 2, CS_PLAN_CLASSES_MAX, "class", &label->classes, &label->classes_count);
}

static const cs_yaml_key label_keys[] = {
    CS_YAML_KEY("column", cs_yaml_text, offsetof(cs_label, column), .is_required = true),
    CS_YAML_KEY("above", read_above, 0),
    CS_YAML_KEY("positive", read_positive, 0),
    CS_YAML_KEY("classes", read_classes, 0),
    {.name = NULL},
};

static cs_status read_label(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_label *label = field;

    (void)key;
    CS_TRY(cs_yaml_walk(node, label_keys, label));
    const int rules = label->has_above + (label->positive_count > 0) + (label->classes_count > 0);
    if (rules != 1)
        return cs_yaml_fail(node, "found %d of 'above', 'positive' and 'classes', expected one", rules);
    return CS_OK;
}

static const cs_yaml_key dataset_keys[] = {
    CS_YAML_KEY("name", cs_yaml_identifier, offsetof(cs_plan, dataset.name), .is_required = true),
    CS_YAML_KEY("kind", cs_yaml_choice, offsetof(cs_plan, dataset.kind), .words = dataset_kinds, .is_required = true),
    CS_YAML_KEY("features", read_features, 0),
    CS_YAML_KEY("label", read_label, offsetof(cs_plan, dataset.label)),
    CS_YAML_KEY("missing", cs_yaml_choice, offsetof(cs_plan, dataset.missing), .words = missing_rules),
    CS_YAML_KEY("standardize", cs_yaml_choice, offsetof(cs_plan, dataset.standardize), .words = standardizations),
    {.name = NULL},
};

/* ---- model and training ---- */

static cs_status read_initial_seed(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;

    plan->model.has_initial_seed = true;
    return cs_yaml_u64(node, key, &plan->model.initial_seed);
}

static cs_status read_initial_blob(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    static const char prefix[] = "sha256:";
    cs_plan *plan = field;

    (void)key;
    if (node->kind != CS_YAML_SCALAR || strncmp(node->text, prefix, strlen(prefix)) != 0 ||
        cs_hex_decode(node->text + strlen(prefix), node->size - strlen(prefix), "blob", plan->model.initial_blob,
                      sizeof plan->model.initial_blob) != CS_OK)
        return cs_yaml_refuse(node, "sha256: and 64 hexadecimal digits");
    plan->model.has_initial_blob = true;
    return CS_OK;
}

static const cs_yaml_key initial_keys[] = {
    CS_YAML_KEY("seed", read_initial_seed, 0),
    CS_YAML_KEY("blob", read_initial_blob, 0),
    {.name = NULL},
};

static cs_status read_initial(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    (void)key;
    CS_TRY(cs_yaml_walk(node, initial_keys, field));
    if (node->count != 1)
        return cs_yaml_fail(node, "found %zu of 'seed' and 'blob', expected one", node->count);
    return CS_OK;
}

/* A key that only some kinds of the mapping have. */
static cs_status check_belongs(const cs_yaml_node *mapping, const char *key, bool belongs, const char *kinds)
{
    const cs_yaml_node *found = cs_yaml_find(mapping, key);

    if (found != mapping && !belongs)
        return cs_yaml_fail(found, "found a value, expected '%s' with kind: %s only", key, kinds);
    return CS_OK;
}

static cs_status read_below_one(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    CS_TRY(cs_yaml_fraction(node, key, field));
    if (!(*(double *)field < 1))
        return cs_yaml_refuse(node, "a number, 0 … below 1");
    return CS_OK;
}

#define HIDDEN_WIDTH_MAX 65536

static cs_status read_hidden(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;

    (void)key;
    CS_TRY(cs_yaml_expect_list(node, 1, CS_PLAN_HIDDEN_MAX));
    plan->model.hidden_count = node->count;
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(cs_yaml_u32(item, &(cs_yaml_key){.low = 1, .high = HIDDEN_WIDTH_MAX}, &plan->model.hidden[item->index]));
    return CS_OK;
}

static const cs_yaml_key model_keys[] = {
    CS_YAML_KEY("kind", cs_yaml_choice, offsetof(cs_plan, model.kind), .words = model_kinds, .is_required = true),
    CS_YAML_KEY("hidden", read_hidden, 0),
    CS_YAML_KEY("activation", cs_yaml_choice, offsetof(cs_plan, model.activation), .words = activations),
    CS_YAML_KEY("dropout", read_below_one, offsetof(cs_plan, model.dropout)),
    CS_YAML_KEY("initial", read_initial, 0),
    {.name = NULL},
};

static cs_status read_model(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    static const char *const of_mlp[] = {"hidden", "activation", "dropout"};
    cs_plan *plan = field;

    (void)key;
    CS_TRY(cs_yaml_walk(node, model_keys, plan));
    const bool is_mlp = plan->model.kind == CS_MODEL_MLP;
    for (size_t i = 0; i < CS_COUNT(of_mlp); i++)
        CS_TRY(check_belongs(node, of_mlp[i], is_mlp, "mlp"));
    if (is_mlp && plan->model.hidden_count == 0)
        return cs_yaml_fail(node, "the key 'hidden' is missing, which kind: mlp needs");
    return CS_OK;
}

static cs_status read_betas(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;

    CS_TRY(cs_yaml_expect_list(node, 2, 2));
    CS_TRY(read_below_one(node->first, key, &plan->training.optimizer.beta1));
    return read_below_one(node->last, key, &plan->training.optimizer.beta2);
}

static const cs_yaml_key optimizer_keys[] = {
    CS_YAML_KEY("kind", cs_yaml_choice, offsetof(cs_plan, training.optimizer.kind), .words = optimizers,
                .is_required = true),
    CS_YAML_KEY("learning_rate", cs_yaml_positive, offsetof(cs_plan, training.optimizer.learning_rate),
                .is_required = true),
    CS_YAML_KEY("momentum", read_below_one, offsetof(cs_plan, training.optimizer.momentum)),
    CS_YAML_KEY("nesterov", cs_yaml_bool, offsetof(cs_plan, training.optimizer.is_nesterov)),
    CS_YAML_KEY("weight_decay", cs_yaml_fraction, offsetof(cs_plan, training.optimizer.weight_decay)),
    CS_YAML_KEY("betas", read_betas, 0),
    CS_YAML_KEY("epsilon", cs_yaml_positive, offsetof(cs_plan, training.optimizer.epsilon)),
    CS_YAML_KEY("state", cs_yaml_choice, offsetof(cs_plan, training.optimizer.memory), .words = memories),
    {.name = NULL},
};

/* Defaults are those of torch.optim. */
static cs_status read_optimizer(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;

    (void)key;
    plan->training.optimizer.beta1 = 0.9;
    plan->training.optimizer.beta2 = 0.999;
    plan->training.optimizer.epsilon = 1e-8;
    CS_TRY(cs_yaml_walk(node, optimizer_keys, plan));
    const bool is_sgd = plan->training.optimizer.kind == CS_OPTIMIZER_SGD;
    CS_TRY(check_belongs(node, "momentum", is_sgd, "sgd"));
    CS_TRY(check_belongs(node, "nesterov", is_sgd, "sgd"));
    CS_TRY(check_belongs(node, "betas", !is_sgd, "adam or adamw"));
    CS_TRY(check_belongs(node, "epsilon", !is_sgd, "adam or adamw"));
    if (plan->training.optimizer.is_nesterov && plan->training.optimizer.momentum == 0)
        return cs_yaml_fail(node, "found nesterov without momentum, expected a momentum above 0");
    if (plan->training.optimizer.kind == CS_OPTIMIZER_ADAMW && cs_yaml_find(node, "weight_decay") == node)
        plan->training.optimizer.weight_decay = 0.01;
    return CS_OK;
}

static cs_status read_positive_weight(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_loss *loss = field;

    loss->is_balanced = cs_yaml_is(node, "balanced");
    if (loss->is_balanced)
        return CS_OK;
    if (node->kind != CS_YAML_SCALAR || cs_yaml_positive(node, key, &loss->positive_weight) != CS_OK)
        return cs_yaml_refuse(node, "balanced or a number above 0");
    return CS_OK;
}

static cs_status read_class_weights(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_loss *loss = field;

    loss->is_balanced = cs_yaml_is(node, "balanced");
    if (loss->is_balanced)
        return CS_OK;
    if (node->kind != CS_YAML_LIST)
        return cs_yaml_refuse(node, "balanced or a list with one number for each class");
    CS_TRY(cs_yaml_reals(node, 2, CS_PLAN_CLASSES_MAX, &loss->class_weights, &loss->class_weights_count));
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(cs_yaml_positive(item, key, &loss->class_weights[item->index]));
    return CS_OK;
}

static const cs_yaml_key loss_keys[] = {
    CS_YAML_KEY("kind", cs_yaml_choice, offsetof(cs_loss, kind), .words = losses, .is_required = true),
    CS_YAML_KEY("on", cs_yaml_choice, offsetof(cs_loss, on), .words = loss_ons),
    CS_YAML_KEY("target", cs_yaml_choice, offsetof(cs_loss, target), .words = loss_targets),
    CS_YAML_KEY("weight", cs_yaml_positive, offsetof(cs_loss, weight)),
    CS_YAML_KEY("positive_weight", read_positive_weight, 0),
    CS_YAML_KEY("class_weights", read_class_weights, 0),
    CS_YAML_KEY("label_smoothing", read_below_one, offsetof(cs_loss, label_smoothing)),
    {.name = NULL},
};

static cs_status read_term(const cs_yaml_node *node, cs_loss *loss)
{
    loss->weight = loss->positive_weight = 1;
    if (node->kind != CS_YAML_MAPPING)
        return cs_yaml_choice(node, &(cs_yaml_key){.words = losses}, &loss->kind);
    CS_TRY(cs_yaml_walk(node, loss_keys, loss));
    const bool is_bce = loss->kind == CS_LOSS_BCE;
    CS_TRY(check_belongs(node, "positive_weight", is_bce, "bce"));
    CS_TRY(check_belongs(node, "class_weights", !is_bce, "cross_entropy"));
    return check_belongs(node, "label_smoothing", !is_bce, "cross_entropy");
}

/* A word, a mapping, or a list of either. */
static cs_status read_loss(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;
    const bool is_list = node->kind == CS_YAML_LIST;
    void *terms;

    (void)key;
    if (is_list)
        CS_TRY(cs_yaml_expect_list(node, 1, CS_PLAN_LOSSES_MAX));
    plan->training.losses_count = is_list ? node->count : 1;
    CS_TRY(cs_yaml_keep(node, plan->training.losses_count, sizeof(cs_loss), &terms));
    plan->training.losses = terms;
    if (!is_list)
        return read_term(node, &plan->training.losses[0]);
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(read_term(item, &plan->training.losses[item->index]));
    return CS_OK;
}

static cs_status read_change(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    CS_TRY(cs_yaml_real(node, key, field));
    if (!(*(double *)field >= 0))
        return cs_yaml_refuse(node, "a number, 0 or above");
    return CS_OK;
}

static const cs_yaml_key early_stopping_keys[] = {
    CS_YAML_KEY("metric", cs_yaml_choice, offsetof(cs_plan, training.early_stopping.metric), .words = stopping_metrics,
                .is_required = true),
    CS_YAML_KEY("on", cs_yaml_choice, offsetof(cs_plan, training.early_stopping.on), .words = stopping_parts),
    CS_YAML_KEY("patience", cs_yaml_u32, offsetof(cs_plan, training.early_stopping.patience), .low = 1, .high = 100000,
                .is_required = true),
    CS_YAML_KEY("minimum_change", read_change, offsetof(cs_plan, training.early_stopping.minimum_change)),
    CS_YAML_KEY("every", cs_yaml_u32, offsetof(cs_plan, training.early_stopping.every), .low = 1, .high = 100000),
    {.name = NULL},
};

static cs_status read_early_stopping(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;

    (void)key;
    plan->training.early_stopping.is_on = true;
    plan->training.early_stopping.every = 1;
    return cs_yaml_walk(node, early_stopping_keys, plan);
}

#define SEEDS_MAX 100000

static cs_status read_seeds(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_epoch_seeds *epochs = field;
    void *seeds;

    (void)key;
    CS_TRY(cs_yaml_expect_list(node, 1, SEEDS_MAX));
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(uint64_t), &seeds));
    epochs->seeds = seeds;
    epochs->count = node->count;
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(cs_yaml_u64(item, &(cs_yaml_key){0}, &epochs->seeds[item->index]));
    return CS_OK;
}

static const cs_yaml_key epoch_seeds_keys[] = {
    CS_YAML_KEY("site", cs_yaml_name, offsetof(cs_epoch_seeds, site), .is_required = true),
    CS_YAML_KEY("seeds", read_seeds, 0, .is_required = true),
    {.name = NULL},
};

static cs_status read_epoch_seeds(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;
    void *sites;

    (void)key;
    CS_TRY(cs_yaml_expect_list(node, 1, CS_YAML_LIST_MAX));
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(cs_epoch_seeds), &sites));
    plan->training.epoch_seeds = sites;
    plan->training.epoch_seeds_count = node->count;
    for (const cs_yaml_node *item = node->first; item; item = item->next) {
        cs_epoch_seeds *epochs = &plan->training.epoch_seeds[item->index];
        CS_TRY(cs_yaml_walk(item, epoch_seeds_keys, epochs));
        for (size_t i = 0; i < item->index; i++) {
            if (strcmp(plan->training.epoch_seeds[i].site, epochs->site) == 0)
                return cs_yaml_fail(item, "found the site '%s' again, expected each once", epochs->site);
        }
    }
    return CS_OK;
}

static const cs_yaml_key training_keys[] = {
    CS_YAML_KEY("rounds", cs_yaml_u32, offsetof(cs_plan, training.rounds), .low = 1, .high = 100000,
                .is_required = true),
    CS_YAML_KEY("local_steps", cs_yaml_u32, offsetof(cs_plan, training.local_steps), .low = 1, .high = 1000000),
    CS_YAML_KEY("local_epochs", cs_yaml_u32, offsetof(cs_plan, training.local_epochs), .low = 1, .high = 10000),
    CS_YAML_KEY("batch_size", cs_yaml_u32, offsetof(cs_plan, training.batch_size), .low = 1, .high = 1000000,
                .is_required = true),
    CS_YAML_KEY("optimizer", read_optimizer, 0, .is_required = true),
    CS_YAML_KEY("loss", read_loss, 0, .is_required = true),
    CS_YAML_KEY("early_stopping", read_early_stopping, 0),
    CS_YAML_KEY("epoch_seeds", read_epoch_seeds, 0),
    {.name = NULL},
};

static const cs_yaml_key aggregation_keys[] = {
    CS_YAML_KEY("method", cs_yaml_choice, offsetof(cs_plan, aggregation.method), .words = methods, .is_required = true),
    CS_YAML_KEY("weights", cs_yaml_choice, offsetof(cs_plan, aggregation.weights), .words = weights),
    {.name = NULL},
};

static const cs_yaml_key evaluation_keys[] = {
    CS_YAML_KEY("metrics", cs_yaml_choices, offsetof(cs_plan, evaluation.metrics), .words = metrics),
    CS_YAML_KEY("standardize", cs_yaml_choices, offsetof(cs_plan, evaluation.standardize), .low = 1,
                .words = standardizations),
    CS_YAML_KEY("bins", cs_yaml_u32, offsetof(cs_plan, evaluation.bins), .low = 2, .high = CS_PLAN_BINS_MAX),
    {.name = NULL},
};

/* ---- retention ---- */

static cs_status read_updates(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;
    cs_yaml_key rounds = *key;

    if (cs_yaml_is(node, "all")) {
        plan->retention.keeps_all_updates = true;
        return CS_OK;
    }
    if (node->kind != CS_YAML_SCALAR || !node->is_plain || strspn(node->text, "0123456789") != node->size)
        return cs_yaml_refuse(node, "all or the number of last rounds whose updates are kept");
    rounds.low = 1;
    rounds.high = 100000;
    return cs_yaml_u32(node, &rounds, &plan->retention.update_rounds);
}

/* "every 10" */
static bool parse_every(const char *text, uint32_t *ret)
{
    static const char prefix[] = "every ";
    const char *digits = text + strlen(prefix);
    unsigned long every;

    if (strncmp(text, prefix, strlen(prefix)) != 0 || strlen(digits) > 6 || *digits < '1' || *digits > '9' ||
        digits[strspn(digits, "0123456789")])
        return false;
    every = strtoul(digits, NULL, 10);
    *ret = (uint32_t)every;
    return every <= 100000;
}

static cs_status read_models(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_plan *plan = field;

    (void)key;
    CS_TRY(cs_yaml_expect_list(node, 1, 3));
    plan->retention.keeps_best = plan->retention.keeps_last = false;
    for (const cs_yaml_node *item = node->first; item; item = item->next) {
        if (cs_yaml_is(item, "best") && !plan->retention.keeps_best)
            plan->retention.keeps_best = true;
        else if (cs_yaml_is(item, "last") && !plan->retention.keeps_last)
            plan->retention.keeps_last = true;
        else if (item->kind != CS_YAML_SCALAR || plan->retention.every ||
                 !parse_every(item->text, &plan->retention.every))
            return cs_yaml_refuse(item, "best, last or \"every N\", each once");
    }
    return CS_OK;
}

static const cs_yaml_key retention_keys[] = {
    CS_YAML_KEY("updates", read_updates, 0),
    CS_YAML_KEY("models", read_models, 0),
    {.name = NULL},
};

static const cs_yaml_key plan_keys[] = {
    CS_YAML_KEY("plan", cs_yaml_name, offsetof(cs_plan, name), .is_required = true),
    CS_YAML_KEY("federation", cs_yaml_choice, offsetof(cs_plan, federation), .words = federations, .is_required = true),
    CS_YAML_KEY("sites", cs_yaml_mapping, 0, .table = sites_keys),
    CS_YAML_KEY("dataset", cs_yaml_mapping, 0, .table = dataset_keys, .is_required = true),
    CS_YAML_KEY("model", read_model, 0),
    CS_YAML_KEY("training", cs_yaml_mapping, 0, .table = training_keys),
    CS_YAML_KEY("aggregation", cs_yaml_mapping, 0, .table = aggregation_keys),
    CS_YAML_KEY("evaluation", cs_yaml_mapping, 0, .table = evaluation_keys),
    CS_YAML_KEY("retention", cs_yaml_mapping, 0, .table = retention_keys),
    CS_YAML_KEY("alignment", cs_alignment_read, offsetof(cs_plan, alignment)),
    CS_YAML_KEY("seed", cs_yaml_u64, offsetof(cs_plan, seed)),
    {.name = NULL},
};

/* ---- what the parts must say together ---- */

static bool has_key(const cs_yaml_node *root, const char *path)
{
    const char *dot = strrchr(path, '.');
    const cs_yaml_node *node = cs_yaml_find(root, path);

    return node->key && strcmp(node->key, dot ? dot + 1 : path) == 0;
}

/* Which keys stand there depends on the federation. `needed` and `unused` end with NULL. */
static cs_status check_keys(const cs_yaml_node *root, const char *federation, const char *const *needed,
                            const char *const *unused)
{
    for (; *needed; needed++) {
        if (!has_key(root, *needed)) {
            const char *dot = strrchr(*needed, '.');
            return cs_yaml_fail(cs_yaml_find(root, *needed), "the key '%s' is missing, which federation: %s needs",
                                dot ? dot + 1 : *needed, federation);
        }
    }
    for (; *unused; unused++) {
        if (has_key(root, *unused))
            return cs_yaml_fail(cs_yaml_find(root, *unused), "found it, expected no '%s' with federation: %s", *unused,
                                federation);
    }
    return CS_OK;
}

static cs_status check_federation(const cs_yaml_node *root, const cs_plan *plan)
{
    static const char *const trained[] = {
        "dataset.features", "dataset.label", "dataset.standardize", "model", "training", NULL};
    static const char *const untrained[] = {"dataset.features",    "dataset.label", "dataset.missing",
                                            "dataset.standardize", "model",         "training",
                                            "aggregation",         "evaluation",    NULL};
    static const char *const aligned[] = {"alignment", NULL};
    const bool is_vertical = plan->federation == CS_VERTICAL;

    CS_TRY(check_keys(root, is_vertical ? "vertical" : "horizontal", is_vertical ? aligned : trained,
                      is_vertical ? untrained : aligned));
    if (is_vertical != (plan->dataset.kind == CS_DATASET_IDENTITIES))
        return cs_yaml_refuse(cs_yaml_find(root, "dataset.kind"), "%s with federation: %s",
                              is_vertical ? "identities" : "table", is_vertical ? "vertical" : "horizontal");
    return CS_OK;
}

static cs_status check_sites(const cs_yaml_node *root, const cs_plan *plan)
{
    if (plan->sites.invites_all)
        return CS_OK;
    if (plan->sites.minimum > plan->sites.invite.count)
        return cs_yaml_fail(cs_yaml_find(root, "sites.minimum"),
                            "found a minimum of %u sites, expected at most %zu, the number invited",
                            plan->sites.minimum, plan->sites.invite.count);
    for (size_t i = 0; i < plan->sites.require.count; i++) {
        if (!cs_names_have(&plan->sites.invite, plan->sites.require.items[i]))
            return cs_yaml_fail(cs_yaml_find(root, "sites.require"),
                                "found the site '%s', expected only sites that are invited",
                                plan->sites.require.items[i]);
    }
    for (size_t i = 0; i < plan->training.epoch_seeds_count; i++) {
        if (!cs_names_have(&plan->sites.invite, plan->training.epoch_seeds[i].site))
            return cs_yaml_fail(cs_yaml_find(root, "training.epoch_seeds"),
                                "found the site '%s', expected only sites that are invited",
                                plan->training.epoch_seeds[i].site);
    }
    return CS_OK;
}

/* Means and deviations stand at every numeric feature where they are used, and nowhere else. Columns made of levels
 * stay 0 and 1 then. */
static cs_status check_moments(const cs_yaml_node *feature, const cs_feature *read, bool uses_moments)
{
    bool has_mean = cs_yaml_find(feature, "mean") != feature;
    bool has_std = cs_yaml_find(feature, "std") != feature;

    if ((has_mean || has_std) && read->levels_count)
        return cs_yaml_fail(feature, "found mean or std with levels, expected them at numeric features only");
    if ((has_mean || has_std) && !uses_moments)
        return cs_yaml_fail(feature, "found mean or std, expected them with standardize: plan only");
    if (uses_moments && !read->levels_count && !(has_mean && has_std))
        return cs_yaml_fail(feature, "the feature '%s' has no mean and std, which standardize: plan needs", read->name);
    return CS_OK;
}

static cs_status check_dataset(const cs_yaml_node *root, const cs_plan *plan)
{
    const cs_yaml_node *features = cs_yaml_find(root, "dataset.features");
    bool uses_moments = ((unsigned)plan->dataset.standardize | plan->evaluation.standardize) & CS_STANDARDIZE_PLAN;

    for (const cs_yaml_node *item = features->first; item; item = item->next) {
        const cs_feature *feature = &plan->dataset.features[item->index];
        if (strcmp(feature->name, plan->dataset.label.column) == 0)
            return cs_yaml_fail(item, "found the feature '%s', which is the label's column", feature->name);
        CS_TRY(check_moments(item, feature, uses_moments));
    }
    return CS_OK;
}

static cs_status check_training(const cs_yaml_node *root, const cs_plan *plan)
{
    if ((plan->training.local_steps > 0) == (plan->training.local_epochs > 0))
        return cs_yaml_fail(cs_yaml_find(root, "training"),
                            "found %s of 'local_steps' and 'local_epochs', expected one",
                            plan->training.local_steps ? "both" : "none");
    return CS_OK;
}

static cs_status check_loss(const cs_yaml_node *node, const cs_plan *plan, const cs_loss *loss)
{
    const size_t classes = plan->dataset.label.classes_count;

    if (loss->kind == CS_LOSS_BCE && classes > 0)
        return cs_yaml_fail(node, "found bce and a label of %zu classes, expected cross_entropy", classes);
    if (loss->kind == CS_LOSS_CROSS_ENTROPY && classes == 0)
        return cs_yaml_fail(node,
                            "found cross_entropy and a label of yes or no, expected bce or dataset.label.classes");
    if (loss->class_weights_count > 0 && loss->class_weights_count != classes)
        return cs_yaml_fail(cs_yaml_find(node, "class_weights"), "found %zu numbers, expected %zu, one for each class",
                            loss->class_weights_count, classes);
    return CS_OK;
}

static cs_status check_losses(const cs_yaml_node *root, const cs_plan *plan)
{
    const cs_yaml_node *node = cs_yaml_find(root, "training.loss");

    if (node->kind != CS_YAML_LIST)
        return check_loss(node, plan, &plan->training.losses[0]);
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(check_loss(item, plan, &plan->training.losses[item->index]));
    return CS_OK;
}

/* The decision needs its number in every evaluation, and the round that was best must still be there at the end. */
static cs_status check_early_stopping(const cs_yaml_node *root, const cs_plan *plan)
{
    const cs_yaml_node *node = cs_yaml_find(root, "training.early_stopping");

    if (!plan->training.early_stopping.is_on)
        return CS_OK;
    if (!(plan->evaluation.metrics & (unsigned)plan->training.early_stopping.metric))
        return cs_yaml_fail(cs_yaml_find(node, "metric"), "found '%s', expected one of evaluation.metrics",
                            cs_metric_name(plan->training.early_stopping.metric));
    if (!(plan->evaluation.standardize & (unsigned)plan->dataset.standardize))
        return cs_yaml_fail(node, "it looks at rows scaled by '%s', expected that word in evaluation.standardize",
                            cs_standardize_name(plan->dataset.standardize));
    if (!plan->retention.keeps_best)
        return cs_yaml_fail(node, "its result is the best round, expected best in retention.models");
    return CS_OK;
}

static cs_status read_plan(const cs_yaml_node *root, cs_plan *plan)
{
    plan->sites.invites_all = true;
    plan->sites.minimum = 2;
    plan->sites.approval_ms = (int64_t)(7 * DAY_MS);
    plan->sites.deadline_ms = (int64_t)(3600 * SECOND_MS);
    plan->dataset.missing = CS_MISSING_FAIL;
    plan->evaluation.metrics = CS_METRIC_ACCURACY | CS_METRIC_AUC | CS_METRIC_BRIER | CS_METRIC_LOG_LOSS;
    plan->evaluation.bins = 15;
    plan->retention.update_rounds = 2;
    plan->retention.keeps_best = plan->retention.keeps_last = true;

    CS_TRY(cs_yaml_walk(root, plan_keys, plan));
    if (!plan->evaluation.standardize)
        plan->evaluation.standardize = plan->dataset.standardize;
    CS_TRY(check_federation(root, plan));
    CS_TRY(check_sites(root, plan));
    if (plan->federation == CS_VERTICAL)
        return cs_alignment_check(root, has_key(root, "sites.minimum"), plan);
    CS_TRY(check_dataset(root, plan));
    CS_TRY(check_training(root, plan));
    CS_TRY(check_losses(root, plan));
    return check_early_stopping(root, plan);
}

cs_status cs_plan_read(cs_bytes yaml, const char *source, cs_plan **ret)
{
    CS_AUTO_PTR(cs_arena) keep = cs_arena_new(KEEP_BUDGET_BYTES);
    CS_AUTO(cs_yaml_document) document = {0};
    cs_plan *plan = cs_arena_alloc(keep, sizeof *plan);

    *ret = NULL;
    if (!plan)
        return cs_fail(CS_EXHAUSTED, "%s: no memory to read it", source);
    CS_TRY(cs_yaml_read(yaml, CS_PLAN_MAX_BYTES, source, keep, &document));
    CS_TRY(read_plan(document.root, plan));
    plan->arena = CS_TAKE(keep);
    *ret = plan;
    return CS_OK;
}

void cs_plan_free(cs_plan *plan)
{
    if (plan)
        cs_arena_free(plan->arena); /* the plan itself lies in it */
}

bool cs_plan_needs_moments(const cs_plan *plan)
{
    return ((unsigned)plan->dataset.standardize | plan->evaluation.standardize) & CS_STANDARDIZE_FEDERATED;
}

bool cs_plan_needs_class_counts(const cs_plan *plan)
{
    for (size_t i = 0; i < plan->training.losses_count; i++) {
        if (plan->training.losses[i].is_balanced)
            return true;
    }
    return false;
}

bool cs_plan_needs_statistics(const cs_plan *plan)
{
    return cs_plan_needs_moments(plan) || cs_plan_needs_class_counts(plan);
}

bool cs_plan_evaluates(const cs_plan *plan, uint32_t round)
{
    return round == plan->training.rounds ||
           (plan->training.early_stopping.is_on && round > 0 && round % plan->training.early_stopping.every == 0);
}

size_t cs_plan_classes(const cs_plan *plan)
{
    return plan->dataset.label.classes_count > 0 ? plan->dataset.label.classes_count : 2;
}

size_t cs_plan_outputs(const cs_plan *plan)
{
    return plan->dataset.label.classes_count > 0 ? plan->dataset.label.classes_count : 1;
}
