/* A plan: the YAML document that says what is trained and how. Data, never code. Read by the coordinator on submission,
 * by the agent for the policy and by the worker. Strict: unknown keys, duplicates, anchors, extra documents, wrong
 * types and ranges are refused with file, line and column. Any thread; a plan does not change once read. */
#ifndef CS_CONFIG_PLAN_H
#define CS_CONFIG_PLAN_H

#include "common/base/bytes.h"

#define CS_PLAN_MAX_BYTES    (1024 * 1024)
#define CS_PLAN_FEATURES_MAX 4096
#define CS_PLAN_LEVELS_MAX   1024
#define CS_PLAN_CLASSES_MAX  100
#define CS_PLAN_HIDDEN_MAX   16 /* hidden layers */
#define CS_PLAN_LOSSES_MAX   8  /* terms of a loss */
#define CS_PLAN_BINS_MAX     100

typedef struct cs_names {
    char **items;
    size_t count;
} cs_names;
bool cs_names_have(const cs_names *names, const char *name);

typedef enum cs_federation { CS_HORIZONTAL, CS_VERTICAL } cs_federation;
typedef enum cs_dataset_kind { CS_DATASET_TABLE, CS_DATASET_IDENTITIES } cs_dataset_kind;
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
    CS_METRIC_LOG_LOSS = 8,
    CS_METRIC_CALIBRATION_ERROR = 16
} cs_metric;
#define CS_METRICS_MAX 5 /* as many as there are */
typedef enum cs_model_kind { CS_MODEL_LOGISTIC_REGRESSION, CS_MODEL_MLP } cs_model_kind;
typedef enum cs_activation { CS_ACTIVATION_RELU, CS_ACTIVATION_GELU, CS_ACTIVATION_TANH } cs_activation;
typedef enum cs_optimizer_kind { CS_OPTIMIZER_SGD, CS_OPTIMIZER_ADAM, CS_OPTIMIZER_ADAMW } cs_optimizer_kind;
/* What an optimizer remembers of its steps: forgotten after each round, or kept at the site for the next. */
typedef enum cs_optimizer_memory { CS_OPTIMIZER_RESETS, CS_OPTIMIZER_KEEPS } cs_optimizer_memory;
typedef enum cs_loss_kind { CS_LOSS_BCE, CS_LOSS_CROSS_ENTROPY } cs_loss_kind;
/* What a loss looks at, and what it compares that with. */
typedef enum cs_loss_on { CS_LOSS_ON_LOGITS } cs_loss_on;
typedef enum cs_loss_target { CS_LOSS_TARGET_LABEL } cs_loss_target;
typedef enum cs_stopping_part { CS_STOPPING_ON_VALID } cs_stopping_part;
typedef enum cs_method { CS_METHOD_FEDAVG } cs_method;
typedef enum cs_weights { CS_WEIGHTS_SAMPLES, CS_WEIGHTS_EQUAL } cs_weights;

/* A numeric column, or with levels one 0/1 column for each level. */
typedef struct cs_feature {
    char *name;
    double *levels;
    size_t levels_count;
    double mean, std; /* standardize: plan */
} cs_feature;

/* Exactly one rule: y = value > above, y = value is one of `positive`, or y = the place of the value in `classes`. */
typedef struct cs_label {
    char *column;
    bool has_above;
    double above;
    double *positive;
    size_t positive_count;
    double *classes;
    size_t classes_count; /* 0: yes or no */
} cs_label;

/* One term of the loss: weight × loss(on, target). */
typedef struct cs_loss {
    cs_loss_kind kind;
    cs_loss_on on;
    cs_loss_target target;
    double weight;          /* default 1 */
    bool is_balanced;       /* classes weighted by how rare they are in all participants' training rows */
    double positive_weight; /* bce: of rows with y = 1; default 1 */
    double *class_weights;  /* cross_entropy: one a class; NULL: all 1 */
    size_t class_weights_count;
    double label_smoothing; /* cross_entropy; default 0 */
} cs_loss;

/* Raw seeds for published runs: batches of epoch e at `site` are randperm(n) of a fresh libtorch generator with
 * seeds[e]. */
typedef struct cs_epoch_seeds {
    char *site;
    uint64_t *seeds;
    size_t count;
} cs_epoch_seeds;

/* What the parties of a vertical plan know of a person, each in its own table. Stored in vectors: add, never
 * renumber. */
typedef enum cs_identity_field {
    CS_FIELD_GIVEN,
    CS_FIELD_FAMILY,
    CS_FIELD_BIRTH_DATE,
    CS_FIELD_SEX,
    CS_FIELD_POSTCODE,
    CS_FIELD_NATIONAL_ID,
    CS_FIELDS
} cs_identity_field;

/* What a key of a person is made of. The number stands in what is hashed: add, never renumber. */
typedef enum cs_identity_part {
    CS_PART_GIVEN = 1,
    CS_PART_FAMILY = 2,
    CS_PART_GIVEN_PHONETIC = 3,
    CS_PART_FAMILY_PHONETIC = 4,
    CS_PART_GIVEN_INITIAL = 5,
    CS_PART_NAMES = 6, /* the words of given and family name, sorted: the same when they are swapped */
    CS_PART_BIRTH_DATE = 7,
    CS_PART_BIRTH_YEAR = 8,
    CS_PART_SEX = 9,
    CS_PART_POSTCODE = 10,
    CS_PART_NATIONAL_ID = 11
} cs_identity_part;

#define CS_ALIGNMENT_KEYS_MAX  6 /* kinds of key, and points of a patient */
#define CS_ALIGNMENT_PARTS_MAX 8 /* of one key */
#define CS_ALIGNMENT_SITES_MAX 16

typedef struct cs_alignment_key {
    cs_identity_part parts[CS_ALIGNMENT_PARTS_MAX]; /* in rising order, each once */
    size_t parts_count;
} cs_alignment_key;

/* Soundex is made for English names, the Cologne code (Postel 1969) for German ones. */
typedef enum cs_phonetic { CS_PHONETIC_SOUNDEX, CS_PHONETIC_COLOGNE } cs_phonetic;

/* A person is in the cohort who is the leader's and was found at all other parties, or at `any_of` of them. */
typedef struct cs_alignment {
    char *study; /* separates the points of one study from those of another */
    char *leader;
    cs_alignment_key *keys;
    size_t keys_count;
    cs_phonetic phonetic;
    bool needs_all;
    uint32_t any_of;
    uint32_t minimum;  /* smaller cohorts are not told to anybody; default 20 */
    uint32_t patients; /* the declared cohort: no party brings more than 1.2 times as many */
    bool is_mutual;    /* with two parties: the other one is told its rows too; default true */
} cs_alignment;

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
        uint32_t hidden[CS_PLAN_HIDDEN_MAX]; /* mlp: width of each hidden layer */
        size_t hidden_count;
        cs_activation activation; /* mlp; default relu */
        double dropout;           /* mlp: after each hidden layer; default 0 */
    } model;
    struct {
        uint32_t rounds;
        uint32_t local_steps; /* exactly one of steps and epochs is not 0 */
        uint32_t local_epochs;
        uint32_t batch_size;
        struct {
            cs_optimizer_kind kind;
            double learning_rate;
            double momentum; /* sgd; default 0 */
            bool is_nesterov;
            double weight_decay; /* of tensors with two or more dimensions; default 0, adamw 0.01 */
            double beta1, beta2; /* adam, adamw; default 0.9, 0.999 */
            double epsilon;      /* adam, adamw; default 1e-8 */
            cs_optimizer_memory memory;
        } optimizer;
        cs_loss *losses; /* the loss is their sum */
        size_t losses_count;
        struct {
            bool is_on;
            cs_metric metric;
            cs_stopping_part on;
            uint32_t patience;     /* evaluations without improvement */
            double minimum_change; /* what counts as one; default 0 */
            uint32_t every;        /* rounds; default 1 */
        } early_stopping;
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
        uint32_t bins;        /* of calibration_error; default 15 */
    } evaluation;
    struct {
        bool keeps_all_updates;
        uint32_t update_rounds; /* default 2 */
        bool keeps_best, keeps_last;
        uint32_t every; /* keep each n-th model; 0: none */
    } retention;
    cs_alignment alignment; /* of a vertical plan */
    uint64_t seed;
    cs_arena *arena; /* owns all of the above */
} cs_plan;

/* `source` stands in front of line and column in errors: "heart.yaml:12:7: training.rounds: found 0, expected 1 …
 * 100000". */
CS_MUST_CHECK cs_status cs_plan_read(cs_bytes yaml, const char *source, cs_plan **ret);
void cs_plan_free(cs_plan *plan);
CS_DEFINE_AUTO_PTR(cs_plan)
/* Is there a statistics phase, and what do its sums hold: moments of the columns, rows of each class? */
bool cs_plan_needs_statistics(const cs_plan *plan);
/* "given.phonetic", as the plan has it. */
const char *cs_identity_part_name(cs_identity_part part);
/* "birth_date"; also the name of the field under `columns` in site.yaml. */
const char *cs_identity_field_name(cs_identity_field field);
/* The field that a part is made of; CS_PART_NAMES is made of given and family name and says the former. */
cs_identity_field cs_identity_part_field(cs_identity_part part);
bool cs_plan_needs_moments(const cs_plan *plan);
bool cs_plan_needs_class_counts(const cs_plan *plan);
/* Is the model that `round` makes evaluated in a phase of its own? */
bool cs_plan_evaluates(const cs_plan *plan, uint32_t round);
/* How many classes a label has, and how many logits a model of it: one logit says yes or no. */
size_t cs_plan_classes(const cs_plan *plan);
size_t cs_plan_outputs(const cs_plan *plan);
/* All metrics, in the order in which they are computed and shown. */
extern const cs_metric cs_metrics[CS_METRICS_MAX];
/* The way of the list of party `owner` (places in name order): stop 0 masks it first, which is the owner; then come the
 * others in the order of the names from the owner on, the leader last. Stop `parties` is the leader, who compares. */
uint32_t cs_alignment_stop(uint32_t parties, uint32_t leader, uint32_t owner, uint32_t stop);
const char *cs_model_kind_name(cs_model_kind kind);
const char *cs_metric_name(cs_metric metric);
const char *cs_standardize_name(cs_standardize standardize);
const char *cs_optimizer_kind_name(cs_optimizer_kind kind);

#endif
