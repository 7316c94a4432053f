/* A plan: the YAML document that says what is trained and how. Data, never code. Read by the coordinator on submission,
 * by the agent for the policy and by the worker. Strict: unknown keys, duplicates, anchors, extra documents, wrong
 * types and ranges are refused with file, line and column. Any thread; a plan does not change once read. */
#ifndef CS_CONFIG_PLAN_H
#define CS_CONFIG_PLAN_H

#include "common/base/bytes.h"

#define CS_PLAN_MAX_BYTES    (1024 * 1024)
#define CS_PLAN_FEATURES_MAX 4096
#define CS_PLAN_LEVELS_MAX   1024

typedef struct cs_names {
    char **items;
    size_t count;
} cs_names;
bool cs_names_have(const cs_names *names, const char *name);

typedef enum cs_federation { CS_HORIZONTAL } cs_federation;
typedef enum cs_dataset_kind { CS_DATASET_TABLE } cs_dataset_kind;
typedef enum cs_missing_rule { CS_MISSING_DROP, CS_MISSING_FAIL } cs_missing_rule;
/* A set of these is a bit mask. */
typedef enum cs_standardize {
    CS_STANDARDIZE_NONE = 1,
    CS_STANDARDIZE_PLAN = 2,      /* means and deviations stand in the plan */
    CS_STANDARDIZE_FEDERATED = 4, /* from sums over all participants' training rows */
    CS_STANDARDIZE_SITE = 8       /* each site's own training rows */
} cs_standardize;
typedef enum cs_metric {
    CS_METRIC_ACCURACY = 1,
    CS_METRIC_AUC = 2,
    CS_METRIC_BRIER = 4,
    CS_METRIC_LOG_LOSS = 8
} cs_metric;
typedef enum cs_model_kind { CS_MODEL_LOGISTIC_REGRESSION } cs_model_kind;
typedef enum cs_optimizer_kind { CS_OPTIMIZER_SGD } cs_optimizer_kind;
typedef enum cs_loss_kind { CS_LOSS_BCE } cs_loss_kind;
typedef enum cs_method { CS_METHOD_FEDAVG } cs_method;
typedef enum cs_weights { CS_WEIGHTS_SAMPLES, CS_WEIGHTS_EQUAL } cs_weights;

/* A numeric column, or with levels one 0/1 column for each level. */
typedef struct cs_feature {
    char *name;
    double *levels;
    size_t levels_count;
    double mean, std; /* standardize: plan */
} cs_feature;

/* Exactly one rule: y = value > above, or y = value is one of `positive`. */
typedef struct cs_label {
    char *column;
    bool has_above;
    double above;
    double *positive;
    size_t positive_count;
} cs_label;

/* Raw seeds for published runs: batches of epoch e at `site` are randperm(n) of a fresh libtorch generator with
 * seeds[e]. */
typedef struct cs_epoch_seeds {
    char *site;
    uint64_t *seeds;
    size_t count;
} cs_epoch_seeds;

typedef struct cs_plan {
    char *name;
    cs_federation federation;
    struct {
        bool invites_all;
        cs_names invite;
        cs_names require;
        uint32_t minimum;    /* default 2 */
        int64_t approval_ms; /* default 7d */
        int64_t deadline_ms; /* of a phase; default 1h */
    } sites;
    struct {
        char *name;
        cs_dataset_kind kind;
        cs_feature *features;
        size_t features_count;
        size_t columns_count; /* after levels became columns */
        cs_label label;
        cs_missing_rule missing;
        cs_standardize standardize; /* of training */
    } dataset;
    struct {
        cs_model_kind kind;
        bool has_initial_seed;
        uint64_t initial_seed; /* libtorch's default generator */
        bool has_initial_blob;
        uint8_t initial_blob[32];
    } model;
    struct {
        uint32_t rounds;
        uint32_t local_steps; /* exactly one of steps and epochs is not 0 */
        uint32_t local_epochs;
        uint32_t batch_size;
        cs_optimizer_kind optimizer;
        double learning_rate;
        cs_loss_kind loss;
        cs_epoch_seeds *epoch_seeds; /* none: derived from plan hash, site, epoch */
        size_t epoch_seeds_count;
    } training;
    struct {
        cs_method method;
        cs_weights weights;
    } aggregation;
    struct {
        unsigned metrics;     /* cs_metric bits */
        unsigned standardize; /* cs_standardize bits */
    } evaluation;
    struct {
        bool keeps_all_updates;
        uint32_t update_rounds; /* default 2 */
        bool keeps_best, keeps_last;
        uint32_t every; /* keep each n-th model; 0: none */
    } retention;
    uint64_t seed;
    cs_arena *arena; /* owns all of the above */
} cs_plan;

/* `source` stands in front of line and column in errors: "heart.yaml:12:7: training.rounds: found 0, expected 1 …
 * 100000". */
CS_MUST_CHECK cs_status cs_plan_read(cs_bytes yaml, const char *source, cs_plan **ret);
void cs_plan_free(cs_plan *plan);
CS_DEFINE_AUTO_PTR(cs_plan)
bool cs_plan_needs_statistics(const cs_plan *plan);
const char *cs_model_kind_name(cs_model_kind kind);
const char *cs_metric_name(cs_metric metric);
const char *cs_standardize_name(cs_standardize standardize);

#endif
