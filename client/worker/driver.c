/* `consilium-worker --plan PLAN --config SITE.yaml …`: the plan's model on one site's rows, or on several sites'
 * together. Called by main.c. It runs with the rights of whoever called it: no agent, no network, no confinement. */
#include "client/worker/driver.h"

#include "client/worker/learner.h"
#include "common/base/file.h"
#include "common/base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct site {
    cs_site_config *config;
    cs_learner *learner;
};

struct driver {
    const cs_arguments *arguments;
    cs_plan *plan;
    cs_hash plan_hash;
    struct site sites[CS_DRIVER_SITES_MAX];
    size_t sites_count;
    cs_parameters *model;
    cs_parameters *memory; /* of the optimizer, where the plan keeps it */
    double *losses;        /* one a round */
    uint32_t rounds;
};

static void driver_clear(struct driver *driver)
{
    for (size_t i = 0; i < driver->sites_count; i++) {
        cs_learner_free(driver->sites[i].learner);
        cs_site_config_free(driver->sites[i].config);
    }
    cs_parameters_free(driver->model);
    cs_parameters_free(driver->memory);
    cs_plan_free(driver->plan);
    cs_free(driver->losses);
}

/* ---- reading ---- */

static cs_status read_plan(struct driver *driver)
{
    const char *path = cs_argument(driver->arguments, "--plan");
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(path, CS_PLAN_MAX_BYTES, &bytes));
    CS_TRY(cs_plan_read(cs_buffer_view(&bytes), path, &driver->plan));
    driver->plan_hash = cs_sha256(cs_buffer_view(&bytes));
    return CS_OK;
}

static cs_status read_site(struct driver *driver, const char *path)
{
    if (driver->sites_count == CS_DRIVER_SITES_MAX)
        return cs_fail(CS_EXHAUSTED, "more than %d sites", CS_DRIVER_SITES_MAX);
    struct site *site = &driver->sites[driver->sites_count++];
    CS_TRY(cs_site_config_load(path, &site->config));
    const char *name = driver->plan->dataset.name;
    const cs_site_dataset *dataset = cs_site_config_dataset(site->config, name);
    if (dataset == NULL)
        return cs_fail(CS_NOT_FOUND, "%s: there is no data set '%s', which the plan names", path, name);
    if (driver->sites_count == 1)
        CS_TRY(cs_tensor_start(site->config->threads));

    cs_table *table = NULL;
    CS_TRY(cs_table_load(driver->plan, dataset, site->config->folder, &table));
    const char *as = cs_argument(driver->arguments, "--site");
    return cs_learner_new(driver->plan, &driver->plan_hash, as != NULL ? as : site->config->site, table,
                          &site->learner);
}

/* The sums that a statistics phase would give for these sites. */
static void share_moments(struct driver *driver)
{
    CS_AUTO_PTR(cs_moments) all = cs_moments_new(driver->plan);
    for (size_t i = 0; i < driver->sites_count; i++) {
        CS_AUTO_PTR(cs_moments) one = cs_learner_moments(driver->sites[i].learner);
        cs_moments_add(all, one);
    }
    for (size_t i = 0; i < driver->sites_count; i++) {
        cs_moments *copy = cs_moments_new(driver->plan);
        cs_moments_add(copy, all);
        cs_learner_use_moments(driver->sites[i].learner, copy);
    }
}

static cs_status read_sites(struct driver *driver)
{
    const char *path = NULL;
    for (size_t i = 0; (path = cs_argument_at(driver->arguments, "--config", i)) != NULL; i++)
        CS_TRY(read_site(driver, path));
    if (driver->sites_count == 0)
        return cs_fail(CS_INVALID, "whose rows? --config SITE.yaml is missing");
    share_moments(driver);
    return CS_OK;
}

static cs_status read_model(struct driver *driver)
{
    const char *path = cs_argument(driver->arguments, "--model");
    if (path != NULL)
        return cs_parameters_load(path, &driver->model);
    if (cs_argument_flag(driver->arguments, "--evaluate"))
        return cs_fail(CS_INVALID, "--evaluate needs --model FILE");
    if (driver->plan->model.has_initial_blob)
        return cs_fail(CS_INVALID,
                       "the plan starts from a model that lies at its coordinator: --model FILE is missing");
    return cs_learner_initialize(driver->plan, &driver->plan_hash, &driver->model);
}

/* ---- training ---- */

static cs_status pool(struct driver *driver)
{
    cs_learner *others[CS_DRIVER_SITES_MAX];
    for (size_t i = 1; i < driver->sites_count; i++)
        others[i - 1] = driver->sites[i].learner;
    return cs_learner_pool(driver->sites[0].learner, others, driver->sites_count - 1);
}

static cs_status train(struct driver *driver)
{
    int64_t rounds = driver->plan->training.rounds;
    CS_TRY(cs_argument_int(driver->arguments, "--rounds", 1, 100000, &rounds));
    if (driver->sites_count > 1)
        CS_TRY(pool(driver));
    driver->losses = cs_alloc_array((size_t)rounds, sizeof *driver->losses);
    for (uint32_t round = 1; round <= (uint32_t)rounds; round++) {
        cs_training_result trained = {0};
        CS_TRY(cs_learner_train(driver->sites[0].learner, driver->model, driver->memory, round, NULL, &trained));
        cs_parameters_free(driver->model);
        cs_parameters_free(driver->memory);
        driver->model = trained.parameters;
        driver->memory = trained.memory;
        driver->losses[driver->rounds++] = trained.mean_loss;
        if (!cs_argument_flag(driver->arguments, "--json"))
            printf("round %u of %u: %llu rows, %llu steps, loss %.4f\n", round, (uint32_t)rounds,
                   (unsigned long long)trained.samples, (unsigned long long)trained.steps, trained.mean_loss);
    }
    return CS_OK;
}

static cs_status write_model(const struct driver *driver)
{
    const char *folder = cs_argument(driver->arguments, "--output");
    if (folder == NULL)
        return CS_OK;
    CS_TRY(cs_folder_make(folder, 0755));
    CS_AUTO(cs_string) path = cs_path_join(folder, "model.safetensors");
    return cs_parameters_save(driver->model, path, NULL, 0);
}

/* ---- results ---- */

struct report {
    cs_json *json; /* NULL: a table on stdout */
};

static void print_row(const char *site, const cs_evaluation *evaluation)
{
    printf("%-20s %-10s", site != NULL ? site : "(all, from sums)", cs_standardize_name(evaluation->standardize));
    for (size_t i = 0; i < evaluation->metrics_count; i++) {
        const cs_metric_value *value = &evaluation->metrics[i];
        CS_AUTO(cs_string) cell = value->is_defined ? cs_format("%.4f", value->value) : cs_strdup("undefined");
        printf(" %-10s", cell);
        if (value->metric == CS_METRIC_ACCURACY) {
            CS_AUTO(cs_string) share = cs_format("(%.0f/%.0f)", value->sum, value->count);
            printf(" %-12s", share);
        }
    }
    printf("\n");
}

static void print_head(const cs_plan *plan)
{
    printf("%-20s %-10s", "test rows of", "scaled by");
    for (size_t i = 0; i < CS_METRICS_MAX; i++) {
        if (plan->evaluation.metrics & (unsigned)cs_metrics[i])
            printf(cs_metrics[i] == CS_METRIC_ACCURACY ? " %-23s" : " %-10s", cs_metric_name(cs_metrics[i]));
    }
    printf("\n");
}

static void write_row(cs_json *json, const char *site, const cs_evaluation *evaluation)
{
    cs_json_object(json, NULL);
    cs_json_text(json, "site", site);
    cs_json_text(json, "model", evaluation->model);
    cs_json_text(json, "split", cs_part_name(evaluation->part));
    cs_json_text(json, "standardize", cs_standardize_name(evaluation->standardize));
    cs_json_object(json, "metrics");
    for (size_t i = 0; i < evaluation->metrics_count; i++) {
        const cs_metric_value *value = &evaluation->metrics[i];
        cs_json_object(json, cs_metric_name(value->metric));
        cs_json_real(json, "value", value->is_defined ? value->value : NAN);
        if (value->pools) {
            cs_json_real(json, "sum", value->sum);
            cs_json_real(json, "count", value->count);
        }
        cs_json_end(json, '}');
    }
    cs_json_end(json, '}');
    cs_json_end(json, '}');
}

static void report_row(const struct report *report, const char *site, const cs_evaluation *evaluation)
{
    if (report->json != NULL)
        write_row(report->json, site, evaluation);
    else
        print_row(site, evaluation);
}

/* Adds a site's sums to those of all; what does not pool stays undefined. */
static void add_sums(cs_evaluation *all, const cs_evaluation *one)
{
    if (all->metrics_count == 0) {
        *all = *one;
    } else {
        for (size_t i = 0; i < all->metrics_count; i++) {
            all->metrics[i].sum += one->metrics[i].sum;
            all->metrics[i].count += one->metrics[i].count;
            for (size_t k = 0; k < one->metrics[i].parts_count; k++)
                all->metrics[i].parts[k] += one->metrics[i].parts[k];
        }
    }
    for (size_t i = 0; i < all->metrics_count; i++) {
        cs_metric_value *value = &all->metrics[i];
        value->is_defined = value->pools;
        value->value = value->pools ? value->sum / value->count : 0;
        if (value->metric == CS_METRIC_CALIBRATION_ERROR)
            value->is_defined =
                cs_metric_of_parts(cs_metric_name(value->metric), value->parts, value->parts_count, &value->value);
    }
}

static cs_status evaluate(struct driver *driver, const struct report *report)
{
    cs_evaluation all[CS_EVALUATIONS_MAX] = {0};
    size_t all_count = 0;
    if (report->json == NULL)
        print_head(driver->plan);
    for (size_t i = 0; i < driver->sites_count; i++) {
        cs_evaluation found[CS_EVALUATIONS_MAX];
        size_t count = 0;
        CS_TRY(cs_learner_evaluate(driver->sites[i].learner, driver->model, "global", CS_PART_TEST, found, &count));
        for (size_t k = 0; k < count; k++) {
            report_row(report, driver->sites[i].config->site, &found[k]);
            add_sums(&all[k], &found[k]);
        }
        all_count = count;
    }
    for (size_t k = 0; driver->sites_count > 1 && k < all_count; k++)
        report_row(report, NULL, &all[k]);
    return CS_OK;
}

/* {"plan", "build", "sites": [{"site", "rows" …}], "rounds": [{"round", "loss"}], "evaluations": […]}: evaluations as
 * `consilium-server job show --json` has them. */
static cs_status report_json(struct driver *driver)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "plan", driver->plan->name);
    cs_json_text(&json, "build", cs_learner_build(driver->sites[0].config->threads));
    cs_json_list(&json, "sites");
    for (size_t i = 0; i < driver->sites_count; i++) {
        const cs_table *table = cs_learner_table(driver->sites[i].learner);
        cs_json_object(&json, NULL);
        cs_json_text(&json, "site", driver->sites[i].config->site);
        cs_json_uint(&json, "rows", table->rows);
        cs_json_uint(&json, "dropped", table->dropped);
        for (int part = 0; part < CS_PARTS; part++)
            cs_json_uint(&json, cs_part_name((cs_part)part), table->parts[part]);
        if (table->classes == 2)
            cs_json_uint(&json, "positive", table->class_rows[1]);
        cs_json_list(&json, "classes");
        for (size_t k = 0; k < table->classes; k++)
            cs_json_uint(&json, NULL, table->class_rows[k]);
        cs_json_end(&json, ']');
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_list(&json, "rounds");
    for (uint32_t i = 0; i < driver->rounds; i++) {
        cs_json_object(&json, NULL);
        cs_json_uint(&json, "round", i + 1);
        cs_json_real(&json, "loss", driver->losses[i]);
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_list(&json, "evaluations");
    CS_TRY(evaluate(driver, &(struct report){&json}));
    cs_json_end(&json, ']');
    cs_json_end(&json, '}');
    puts(cs_buffer_text(&out));
    return CS_OK;
}

static cs_status drive(struct driver *driver)
{
    CS_TRY(read_plan(driver));
    CS_TRY(read_sites(driver));
    CS_TRY(read_model(driver));
    if (!cs_argument_flag(driver->arguments, "--evaluate")) {
        CS_TRY(train(driver));
        CS_TRY(write_model(driver));
    }
    return cs_argument_flag(driver->arguments, "--json") ? report_json(driver)
                                                         : evaluate(driver, &(struct report){NULL});
}

int cs_worker_drive(const cs_arguments *arguments)
{
    struct driver driver __attribute__((cleanup(driver_clear))) = {.arguments = arguments};
    if (cs_argument(arguments, "--plan") == NULL) {
        fprintf(stderr, "consilium-worker: --plan FILE is missing; --help says more\n");
        return CS_EXIT_USAGE;
    }
    cs_status status = drive(&driver);
    return status == CS_OK ? CS_EXIT_OK : cs_command_fail(arguments, status);
}
