/* Reads and checks a site's configuration. Called by the agent, by doctor and by the worker, on any thread. */
#include "common/config/site.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/config/yaml.h"

#include <math.h>
#include <string.h>

#define KEEP_BUDGET_BYTES  ((size_t)8 * 1024 * 1024)
#define THREADS_MAX        1024
#define FRACTION_TOLERANCE 1e-9

/* ---- split ---- */

static const cs_yaml_key part_keys[] = {
    CS_YAML_KEY("column", cs_yaml_text, offsetof(cs_split_part, column), .is_required = true),
    CS_YAML_KEY("value", cs_yaml_text, offsetof(cs_split_part, value), .is_required = true),
    {.name = NULL},
};

static cs_status read_part(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    (void)key;
    return cs_yaml_walk(node, part_keys, field);
}

static const cs_yaml_key fraction_keys[] = {
    CS_YAML_KEY("train", cs_yaml_fraction, offsetof(cs_site_dataset, train_fraction), .is_required = true),
    CS_YAML_KEY("valid", cs_yaml_fraction, offsetof(cs_site_dataset, valid_fraction)),
    CS_YAML_KEY("test", cs_yaml_fraction, offsetof(cs_site_dataset, test_fraction)),
    {.name = NULL},
};

static cs_status read_fractions(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_site_dataset *dataset = field;

    (void)key;
    CS_TRY(cs_yaml_walk(node, fraction_keys, dataset));
    double sum = dataset->train_fraction + dataset->valid_fraction + dataset->test_fraction;
    if (!(fabs(sum - 1) <= FRACTION_TOLERANCE))
        return cs_yaml_fail(node, "found a sum of %g, expected 1", sum);
    dataset->has_fractions = true;
    return CS_OK;
}

enum { BY_PATIENT, BY_ROW };
static const cs_yaml_word split_words[] = {{"patient", BY_PATIENT}, {"row", BY_ROW}, {NULL, 0}};

static cs_status read_by(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    unsigned by;

    (void)field; /* what it says is whether `patient` may stand beside it: read_split looks */
    return cs_yaml_choice(node, key, &by);
}

static const cs_yaml_key split_keys[] = {
    CS_YAML_KEY("by", read_by, 0, .words = split_words, .is_required = true),
    CS_YAML_KEY("patient", cs_yaml_text, offsetof(cs_site_dataset, patient)),
    CS_YAML_KEY("train", read_part, offsetof(cs_site_dataset, train)),
    CS_YAML_KEY("valid", read_part, offsetof(cs_site_dataset, valid)),
    CS_YAML_KEY("test", read_part, offsetof(cs_site_dataset, test)),
    CS_YAML_KEY("fractions", read_fractions, 0),
    {.name = NULL},
};

static cs_status read_split(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_site_dataset *dataset = field;

    (void)key;
    CS_TRY(cs_yaml_walk(node, split_keys, dataset));
    if (dataset->patient && cs_yaml_is(cs_yaml_find(node, "by"), "row"))
        return cs_yaml_fail(node, "found 'patient' with by: row, expected by: patient");
    if (dataset->has_fractions && (dataset->train.column || dataset->valid.column || dataset->test.column))
        return cs_yaml_fail(node, "found fractions and columns, expected one of them");
    return CS_OK;
}

/* ---- data sets ---- */

static cs_status read_delimiter(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    (void)key;
    if (node->kind != CS_YAML_SCALAR || node->size != 1 || !strchr(",;|\t ", node->text[0]))
        return cs_yaml_refuse(node, "one of \",\" \";\" \"|\" \" \" \"\\t\"");
    *(char *)field = node->text[0];
    return CS_OK;
}

static cs_status read_columns(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_site_dataset *dataset = field;
    void *columns;

    (void)key;
    if (node->kind != CS_YAML_MAPPING || node->count > CS_PLAN_FEATURES_MAX)
        return cs_yaml_refuse(node, "a mapping of at most %d names in the plan to names in the table",
                              CS_PLAN_FEATURES_MAX);
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(cs_column_map), &columns));
    dataset->columns = columns;
    dataset->columns_count = node->count;
    for (const cs_yaml_node *item = node->first; item; item = item->next) {
        cs_column_map *column = &dataset->columns[item->index];
        void *name;
        CS_TRY(cs_yaml_keep(item, strlen(item->key) + 1, 1, &name));
        column->plan = memcpy(name, item->key, strlen(item->key) + 1);
        CS_TRY(cs_yaml_text(item, NULL, &column->here));
    }
    return CS_OK;
}

static const cs_yaml_word date_orders[] = {{"ymd", CS_DATE_YMD}, {"dmy", CS_DATE_DMY}, {"mdy", CS_DATE_MDY}, {NULL, 0}};

static const cs_yaml_key dataset_keys[] = {
    CS_YAML_KEY("table", cs_yaml_text, offsetof(cs_site_dataset, table), .is_required = true),
    CS_YAML_KEY("has_header", cs_yaml_bool, offsetof(cs_site_dataset, has_header)),
    CS_YAML_KEY("delimiter", read_delimiter, offsetof(cs_site_dataset, delimiter)),
    CS_YAML_KEY("columns", read_columns, 0),
    CS_YAML_KEY("missing", cs_yaml_texts, offsetof(cs_site_dataset, missing)),
    CS_YAML_KEY("dates", cs_yaml_choice, offsetof(cs_site_dataset, dates), .words = date_orders),
    CS_YAML_KEY("split", read_split, 0),
    {.name = NULL},
};

/* "#3": a number of at most four digits, no leading zero. */
static bool is_column_number(const char *text)
{
    size_t digits = text[0] == '#' ? strspn(text + 1, "0123456789") : 0;

    return digits >= 1 && digits <= 4 && !text[1 + digits] && (text[1] != '0' || digits == 1);
}

/* Where a table has no header, columns can only be numbers. */
static cs_status check_headerless(const cs_yaml_node *node, const cs_site_dataset *dataset)
{
    const char *used[] = {dataset->patient, dataset->train.column, dataset->valid.column, dataset->test.column};

    for (size_t i = 0; i < dataset->columns_count; i++) {
        if (!is_column_number(dataset->columns[i].here))
            return cs_yaml_fail(cs_yaml_find(node, "columns"),
                                "found '%s' for '%s', expected a column number such as \"#3\", because has_header is "
                                "false",
                                dataset->columns[i].here, dataset->columns[i].plan);
    }
    for (size_t i = 0; i < CS_COUNT(used); i++) {
        if (used[i] && !is_column_number(used[i]))
            return cs_yaml_fail(
                cs_yaml_find(node, "split"),
                "found the column '%s', expected a column number such as \"#3\", because has_header is false", used[i]);
    }
    return CS_OK;
}

static cs_status read_dataset(const cs_yaml_node *node, cs_site_dataset *dataset)
{
    /* The key is the name: checked by the same rule as the plan's, at the place of the key. */
    cs_yaml_node name = *node;
    name.kind = CS_YAML_SCALAR;
    name.text = (char *)node->key;
    name.size = strlen(node->key);
    name.is_plain = true;
    name.line = node->key_line;
    name.column = node->key_column;

    dataset->has_header = true;
    dataset->delimiter = ',';
    CS_TRY(cs_yaml_identifier(&name, NULL, &dataset->name));
    CS_TRY(cs_yaml_walk(node, dataset_keys, dataset));
    return dataset->has_header ? CS_OK : check_headerless(node, dataset);
}

static cs_status read_datasets(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_site_config *config = field;
    void *datasets;

    (void)key;
    if (node->kind != CS_YAML_MAPPING)
        return cs_yaml_refuse(node, "a mapping of data set names");
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(cs_site_dataset), &datasets));
    config->datasets = datasets;
    config->datasets_count = node->count;
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(read_dataset(item, &config->datasets[item->index]));
    return CS_OK;
}

/* ---- policy ---- */

static cs_status read_models(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_names *models = field;
    cs_yaml_key at_least_one = *key;
    void *item;

    at_least_one.low = 1;
    if (node->kind != CS_YAML_SCALAR)
        return cs_yaml_identifiers(node, &at_least_one, models);
    CS_TRY(cs_yaml_keep(node, 1, sizeof(char *), &item));
    *models = (cs_names){.items = item, .count = 1};
    return cs_yaml_identifier(node, key, &models->items[0]);
}

static const cs_yaml_key rounds_keys[] = {
    CS_YAML_KEY("maximum", cs_yaml_u32, offsetof(cs_policy_rule, rounds_maximum), .low = 1, .is_required = true),
    {.name = NULL},
};

static const cs_yaml_key sites_keys[] = {
    CS_YAML_KEY("minimum", cs_yaml_u32, offsetof(cs_policy_rule, sites_minimum), .low = 1, .is_required = true),
    {.name = NULL},
};

static const cs_yaml_key rule_keys[] = {
    CS_YAML_KEY("dataset", cs_yaml_identifier, offsetof(cs_policy_rule, dataset)),
    CS_YAML_KEY("model", read_models, offsetof(cs_policy_rule, models)),
    CS_YAML_KEY("rounds", cs_yaml_mapping, 0, .table = rounds_keys),
    CS_YAML_KEY("sites", cs_yaml_mapping, 0, .table = sites_keys),
    {.name = NULL},
};

static cs_status read_approve(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_site_config *config = field;
    void *rules;

    (void)key;
    CS_TRY(cs_yaml_expect_list(node, 0, CS_YAML_LIST_MAX));
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(cs_policy_rule), &rules));
    config->approve = rules;
    config->approve_count = node->count;
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(cs_yaml_walk(item, rule_keys, &config->approve[item->index]));
    return CS_OK;
}

static const cs_yaml_word confinement_words[] = {{"required", true}, {"preferred", false}, {NULL, 0}};

static cs_status read_confinement(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    unsigned value;

    CS_TRY(cs_yaml_choice(node, key, &value));
    *(bool *)field = value;
    return CS_OK;
}

static cs_status read_accept_missing(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    static const cs_yaml_word words[] = {{"landlock", 1}, {"seccomp", 2}, {"no_new_privs", 4}, {NULL, 0}};
    cs_yaml_key known = *key;
    unsigned bits;

    known.words = words;
    CS_TRY(cs_yaml_choices(node, &known, &bits));
    return cs_yaml_identifiers(node, key, field);
}

static const cs_yaml_word alignment_modes[] = {
    {"two_party", CS_ALIGNMENT_TWO_PARTY}, {"pattern", CS_ALIGNMENT_PATTERN}, {NULL, 0}};

static const cs_yaml_key tokens_keys[] = {
    CS_YAML_KEY("session", cs_yaml_u64, offsetof(cs_site_config, alignment.session_tokens)),
    CS_YAML_KEY("month", cs_yaml_u64, offsetof(cs_site_config, alignment.month_tokens)),
    {.name = NULL},
};

static const cs_yaml_key sessions_keys[] = {
    CS_YAML_KEY("day", cs_yaml_u32, offsetof(cs_site_config, alignment.day_sessions), .is_required = true),
    {.name = NULL},
};

static const cs_yaml_key alignment_keys[] = {
    CS_YAML_KEY("peers", cs_yaml_names, offsetof(cs_site_config, alignment.peers)),
    CS_YAML_KEY("modes", cs_yaml_choices, offsetof(cs_site_config, alignment.modes), .words = alignment_modes,
                .low = 1),
    CS_YAML_KEY("tokens", cs_yaml_mapping, 0, .table = tokens_keys),
    CS_YAML_KEY("sessions", cs_yaml_mapping, 0, .table = sessions_keys),
    CS_YAML_KEY("minimum", cs_yaml_u32, offsetof(cs_site_config, alignment.minimum)),
    {.name = NULL},
};

static const cs_yaml_key policy_keys[] = {
    CS_YAML_KEY("approve", read_approve, 0),
    CS_YAML_KEY("minimum_rows", cs_yaml_u32, offsetof(cs_site_config, floor_rows)),
    CS_YAML_KEY("confinement", read_confinement, offsetof(cs_site_config, requires_confinement),
                .words = confinement_words),
    CS_YAML_KEY("alignment", cs_yaml_mapping, 0, .table = alignment_keys),
    CS_YAML_KEY("accept_missing", read_accept_missing, offsetof(cs_site_config, accepted_missing)),
    {.name = NULL},
};

static const cs_yaml_key site_keys[] = {
    CS_YAML_KEY("site", cs_yaml_name, offsetof(cs_site_config, site), .is_required = true),
    CS_YAML_KEY("coordinator", cs_yaml_host_port, offsetof(cs_site_config, coordinator), .is_required = true),
    CS_YAML_KEY("proxy", cs_yaml_host_port, offsetof(cs_site_config, proxy)),
    CS_YAML_KEY("proxy_login_file", cs_yaml_text, offsetof(cs_site_config, proxy_login_file)),
    CS_YAML_KEY("datasets", read_datasets, 0),
    CS_YAML_KEY("threads", cs_yaml_u32, offsetof(cs_site_config, threads), .low = 1, .high = THREADS_MAX),
    CS_YAML_KEY("metrics", cs_yaml_loopback, offsetof(cs_site_config, metrics)),
    CS_YAML_KEY("worker", cs_yaml_text, offsetof(cs_site_config, worker)),
    CS_YAML_KEY("policy", cs_yaml_mapping, 0, .table = policy_keys),
    {.name = NULL},
};

/* ---- whole files ---- */

cs_status cs_site_config_read(cs_bytes yaml, const char *source, const char *folder, cs_site_config **ret)
{
    CS_AUTO_PTR(cs_arena) keep = cs_arena_new(KEEP_BUDGET_BYTES);
    CS_AUTO(cs_yaml_document) document = {0};
    cs_site_config *config = cs_arena_alloc(keep, sizeof *config);

    *ret = NULL;
    if (!config)
        return cs_fail(CS_EXHAUSTED, "%s: no memory to read it", source);
    config->threads = 2;
    config->floor_rows = 10;
    config->alignment = (cs_alignment_policy){.modes = CS_ALIGNMENT_TWO_PARTY | CS_ALIGNMENT_PATTERN,
                                              .session_tokens = UINT64_C(1) << 22,
                                              .month_tokens = UINT64_C(1) << 24,
                                              .day_sessions = 4,
                                              .minimum = 20};
    config->requires_confinement = true;
    config->folder = cs_arena_strdup(keep, folder);
    if (!config->folder)
        return cs_fail(CS_EXHAUSTED, "%s: no memory to read it", source);

    CS_TRY(cs_yaml_read(yaml, CS_SITE_CONFIG_MAX_BYTES, source, keep, &document));
    CS_TRY(cs_yaml_walk(document.root, site_keys, config));
    if (config->proxy_login_file && !config->proxy)
        return cs_yaml_fail(cs_yaml_find(document.root, "proxy_login_file"), "found it without a proxy");
    config->arena = CS_TAKE(keep);
    *ret = config;
    return CS_OK;
}

cs_status cs_site_config_load(const char *path, cs_site_config **ret)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) folder = cs_path_folder(path);

    *ret = NULL;
    CS_TRY(cs_file_read_all(path, CS_SITE_CONFIG_MAX_BYTES, &text));
    return cs_site_config_read(cs_buffer_view(&text), path, folder, ret);
}

void cs_site_config_free(cs_site_config *config)
{
    if (config)
        cs_arena_free(config->arena); /* the configuration itself lies in it */
}

const cs_site_dataset *cs_site_config_dataset(const cs_site_config *config, const char *name)
{
    for (size_t i = 0; i < config->datasets_count; i++) {
        if (strcmp(config->datasets[i].name, name) == 0)
            return &config->datasets[i];
    }
    return NULL;
}

static const char template_head[] =
    "# This site in the consortium. `consilium-client doctor` checks this file; every key is in docs/site.md.\n";
static const char template_proxy[] = "\n"
                                     "# Through an HTTP CONNECT proxy; the environment is not looked at. The login "
                                     "file holds user:password and belongs\n"
                                     "# to the user that runs consilium-client alone (chmod 600).\n";
static const char template_proxy_example[] = "# proxy: proxy.hospital.example:3128\n"
                                             "# proxy_login_file: proxy.login\n";
static const char template_middle[] =
    "\n"
    "# Threads of the worker. Recorded with every result: another number may change the last bits of a model.\n"
    "threads: 2\n"
    "\n"
    "# Prometheus reads http://127.0.0.1:9465/metrics on this machine; left out: nobody listens.\n"
    "# metrics: 127.0.0.1:9465\n"
    "\n"
    "# The worker's program, where it does not lie beside consilium-client.\n"
    "# worker: /usr/local/bin/consilium-worker\n"
    "\n"
    "# The data sets that plans may name, and where they are. Relative paths start in this file's folder.\n"
    "# Nothing of this leaves the building; `consilium-client doctor` lets a confined worker check it.\n";
static const char template_datasets_example[] =
    "# datasets:\n"
    "#   heart-v1:\n"
    "#     table: data/heart.csv\n"
    "#     has_header: true            # false: name columns by number from 0, \"#3\"\n"
    "#     delimiter: \",\"\n"
    "#     columns:                    # name in the plan: name in the table; left out where they agree\n"
    "#       trestbps: resting_bp\n"
    "#     missing: [\"?\", \"NA\"]        # besides the empty field\n"
    "#     split:                      # which rows train and which are held out; without it all rows train\n"
    "#       by: patient               # or row\n"
    "#       patient: patient_id       # rows with the same value stay together; left out: each row is a patient\n"
    "#       fractions: {train: 0.7, valid: 0.1, test: 0.2}\n"
    "#       # or by a column:  test: {column: fold, value: test}\n";
static const char template_policy[] =
    "\n"
    "policy:\n"
    "  # A plan that fits one of these rules is approved without a person; any other waits for\n"
    "  # `consilium-client plan show` and `plan approve`.\n";
static const char template_policy_rest[] =
    "  # approve:\n"
    "  #   - dataset: heart-v1\n"
    "  #     model: [logistic_regression, mlp]\n"
    "  #     rounds: {maximum: 100}\n"
    "  #     sites: {minimum: 3}\n"
    "  # With fewer training rows than this no plan runs here.\n"
    "  minimum_rows: 10\n"
    "  # required: the worker runs only fully confined. Name in accept_missing what this kernel lacks and\n"
    "  # the site does without: landlock, seccomp, no_new_privs.\n"
    "  confinement: required\n"
    "  accept_missing: []\n";

/* A JSON text is a quoted YAML text. */
static void append_text(cs_buffer *text, const char *key, const char *value)
{
    cs_json json = cs_json_to(text);

    cs_buffer_append_text(text, key);
    cs_json_text(&json, NULL, value);
    cs_buffer_append_text(text, "\n");
}

static void append_datasets(cs_buffer *text, const cs_site_template *what)
{
    cs_buffer_append_text(text, what->datasets_count > 0 ? "datasets:\n" : "datasets: {}\n");
    for (size_t i = 0; i < what->datasets_count; i++) {
        append_text(text, "  ", what->datasets[i].name);
        text->data[--text->size] = 0; /* the key's colon belongs on its line */
        append_text(text, ":\n    table: ", what->datasets[i].table);
        cs_buffer_append_text(
            text, "    # Where a patient may have several rows: {by: patient, patient: COLUMN, fractions: …}\n"
                  "    split: {by: row, fractions: {train: 0.8, test: 0.2}}\n");
    }
}

static void append_rules(cs_buffer *text, const cs_site_template *what)
{
    size_t approved = 0;

    for (size_t i = 0; i < what->datasets_count; i++)
        approved += what->datasets[i].is_approved ? 1 : 0;
    cs_buffer_append_text(text, approved > 0
                                    ? "  # These come from `join --approve`: any model, any number of rounds.\n"
                                      "  approve:\n"
                                    : "  approve: []\n");
    for (size_t i = 0; i < what->datasets_count; i++) {
        if (what->datasets[i].is_approved)
            append_text(text, "    - dataset: ", what->datasets[i].name);
    }
}

char *cs_site_config_template(const cs_site_template *what)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;

    cs_buffer_append_text(&text, template_head);
    append_text(&text, "site: ", what->site);
    append_text(&text, "coordinator: ", what->coordinator);
    cs_buffer_append_text(&text, template_proxy);
    if (what->proxy)
        append_text(&text, "proxy: ", what->proxy);
    if (what->proxy && what->proxy_login_file)
        append_text(&text, "proxy_login_file: ", what->proxy_login_file);
    if (!what->proxy)
        cs_buffer_append_text(&text, template_proxy_example);
    cs_buffer_append_text(&text, template_middle);
    append_datasets(&text, what);
    cs_buffer_append_text(&text, template_datasets_example);
    cs_buffer_append_text(&text, template_policy);
    append_rules(&text, what);
    cs_buffer_append_text(&text, template_policy_rest);
    return cs_buffer_take_text(&text);
}
