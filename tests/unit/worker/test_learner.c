/* client/worker/learner: the same bits for the same plan, and numbers that can be checked by hand. */
#include "client/worker/learner.h"

#include "client/nn/training.h"
#include "tests/unit/worker/heart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static cs_plan *plan_of(const char *text)
{
    cs_plan *plan = NULL;
    cs_status status = cs_plan_read(cs_bytes_of_text(text), "plan.yaml", &plan);
    if (status != CS_OK)
        print_message("%s\n", cs_error_text());
    assert_int_equal(status, CS_OK);
    return plan;
}

static cs_learner *learner_of_table(const cs_plan *plan, const char *site, cs_buffer *bytes)
{
    CS_AUTO_PTR(cs_site_config) config = NULL;
    const cs_hash hash = cs_sha256(cs_bytes_of_text("plan"));
    cs_table *table = NULL;
    cs_learner *learner = NULL;
    assert_int_equal(cs_site_config_read(cs_bytes_of_text(HEART_SITE), "site.yaml", "/", &config), CS_OK);
    assert_int_equal(cs_table_read(plan, &config->datasets[0], bytes, "heart.csv", &table), CS_OK);
    assert_int_equal(cs_learner_new(plan, &hash, site, table, &learner), CS_OK);
    return learner;
}

static cs_learner *learner_of(const cs_plan *plan, const char *site, size_t rows)
{
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    heart_table(&bytes, rows);
    return learner_of_table(plan, site, &bytes);
}

static cs_parameters *initial(const cs_plan *plan)
{
    const cs_hash hash = cs_sha256(cs_bytes_of_text("plan"));
    cs_parameters *parameters = NULL;
    assert_int_equal(cs_learner_initialize(plan, &hash, &parameters), CS_OK);
    return parameters;
}

static void weight_of(const cs_parameters *parameters, float out[4])
{
    CS_SCOPE(scope);
    assert_int_equal(cs_tensor_copy_out(cs_parameter(parameters, "linear.weight"), out, 4 * sizeof(float)), CS_OK);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void the_initial_model_of_a_seed_is_the_one_libtorch_users_get(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan =
        plan_of(HEART_PLAN_HEAD "  standardize: site\n"
                                "model: {kind: logistic_regression, initial: {seed: 42}}\n" HEART_PLAN_TAIL);
    CS_AUTO_PTR(cs_parameters) parameters = initial(plan);
    float weight[4], bias = 0;

    weight_of(parameters, weight);

    /* torch.manual_seed(42); torch.nn.Linear(4, 1): the first numbers are torch.rand's 0.8823, 0.9150 … in ±1/√4 */
    assert_float_equal(weight[0], 0.8822692633 - 0.5, 1e-6);
    assert_float_equal(weight[1], 0.9150039554 - 0.5, 1e-6);
    assert_float_equal(weight[2], 0.3828637600 - 0.5, 1e-6);
    assert_float_equal(weight[3], 0.9593056440 - 0.5, 1e-6);
    CS_SCOPE(scope);
    assert_int_equal(cs_tensor_copy_out(cs_parameter(parameters, "linear.bias"), &bias, sizeof bias), CS_OK);
    assert_float_equal(bias, 0.3904482126 - 0.5, 1e-6);
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void the_same_round_gives_the_same_bits_whatever_was_trained_before(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(HEART_PLAN);
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) one = learner_of(plan, "mercy", 60);
    CS_AUTO_PTR(cs_learner) two = learner_of(plan, "mercy", 60);
    cs_training_result skipped = {0}, a = {0}, b = {0};
    float left[4], right[4];

    assert_int_equal(cs_learner_train(one, base, NULL, 1, NULL, &skipped), CS_OK);
    assert_int_equal(cs_learner_train(one, base, NULL, 2, NULL, &a), CS_OK);
    assert_int_equal(cs_learner_train(two, base, NULL, 2, NULL, &b), CS_OK);

    weight_of(a.parameters, left);
    weight_of(b.parameters, right);
    assert_memory_equal(left, right, sizeof left);
    assert_true(a.mean_loss == b.mean_loss);
    weight_of(skipped.parameters, right);
    assert_memory_not_equal(left, right, sizeof left);
    cs_parameters_free(skipped.parameters);
    cs_parameters_free(a.parameters);
    cs_parameters_free(b.parameters);
}

static void sites_shuffle_differently_and_training_helps(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan =
        plan_of(HEART_PLAN_HEAD "  standardize: site\nmodel: {kind: logistic_regression}\n"
                                "training: {rounds: 1, local_epochs: 40, batch_size: 4, optimizer: {kind: "
                                "sgd, learning_rate: 0.1}, loss: bce}\n"
                                "aggregation: {method: fedavg, weights: samples}\n"
                                "evaluation: {metrics: [accuracy, auc], standardize: [site]}\n");
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) mercy = learner_of(plan, "mercy", 200);
    CS_AUTO_PTR(cs_learner) hope = learner_of(plan, "hope", 200);
    cs_training_result a = {0}, b = {0};
    float left[4], right[4];
    cs_evaluation evaluations[CS_EVALUATIONS_MAX];
    size_t count = 0;

    assert_int_equal(cs_learner_train(mercy, base, NULL, 1, NULL, &a), CS_OK);
    assert_int_equal(cs_learner_train(hope, base, NULL, 1, NULL, &b), CS_OK);
    assert_int_equal(cs_learner_evaluate(mercy, base, "global", CS_PART_TEST, evaluations, &count), CS_OK);
    assert_int_equal(cs_learner_evaluate(mercy, a.parameters, "local", CS_PART_TEST, evaluations, &count), CS_OK);

    weight_of(a.parameters, left);
    weight_of(b.parameters, right);
    assert_memory_not_equal(left, right, sizeof left);
    assert_int_equal(a.steps, 40 * ((cs_learner_table(mercy)->parts[CS_PART_TRAIN] + 3) / 4));
    assert_int_equal(count, 2);
    assert_true(evaluations[1].metrics[1].value > 0.9);
    assert_true(evaluations[1].metrics[1].value > evaluations[0].metrics[1].value);
    cs_parameters_free(a.parameters);
    cs_parameters_free(b.parameters);
}

static void federated_standardization_without_the_sums_is_a_clear_error(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(HEART_PLAN);
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) learner = learner_of(plan, "mercy", 60);
    cs_evaluation evaluations[CS_EVALUATIONS_MAX];
    size_t count = 0;

    assert_int_equal(cs_learner_evaluate(learner, base, "global", CS_PART_TEST, evaluations, &count), CS_STATE);
    assert_non_null(strstr(cs_error_text(), "standardize: federated needs the summed statistics"));

    cs_learner_use_moments(learner, cs_learner_moments(learner));
    assert_int_equal(cs_learner_evaluate(learner, base, "global", CS_PART_TEST, evaluations, &count), CS_OK);
    assert_int_equal(count, 2);
    /* The sums of one site alone say what the site's own rows say. */
    assert_true(evaluations[0].metrics[0].sum == evaluations[1].metrics[0].sum);
    assert_float_equal(evaluations[0].metrics[2].value, evaluations[1].metrics[2].value, 1e-6);
}

static void a_diverging_training_is_an_error_and_no_update(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan =
        plan_of(HEART_PLAN_HEAD "  standardize: none\nmodel: {kind: logistic_regression}\n"
                                "training: {rounds: 1, local_steps: 2, batch_size: 4, optimizer: {kind: sgd, "
                                "learning_rate: 1000}, loss: bce}\n"
                                "aggregation: {method: fedavg, weights: samples}\n");
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO(cs_buffer) table = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&table, "age,chol,cp,num,fold\n3e38,3e38,1,0,train\n1,1,1,1,test\n");
    CS_AUTO_PTR(cs_learner) learner = learner_of_table(plan, "mercy", &table);
    cs_training_result result = {0};
    CS_SCOPE(scope);
    cs_tensor *undecided = cs_tensor_zeros(CS_F32, 2, (const uint64_t[]){1, 4});
    assert_int_equal(cs_parameters_put(base, "linear.weight", undecided), CS_OK);

    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &result), CS_INVALID);

    assert_null(result.parameters);
    assert_non_null(strstr(cs_error_text(), "training has diverged"));
    assert_int_equal(cs_scope_status(scope), CS_OK);
}

static void a_value_that_no_float_holds_is_an_error_and_no_row(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan =
        plan_of(HEART_PLAN_HEAD "  standardize: none\nmodel: {kind: logistic_regression}\n" HEART_PLAN_TAIL);
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO(cs_buffer) table = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&table, "age,chol,cp,num,fold\n63,3e39,1,0,train\n63,3,1,0,test\n");
    CS_AUTO_PTR(cs_learner) learner = learner_of_table(plan, "mercy", &table);
    cs_training_result result = {0};

    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &result), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "feature column 2"));
}

static void seeds_that_run_out_are_named(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan =
        plan_of(HEART_PLAN_HEAD "  standardize: site\nmodel: {kind: logistic_regression}\n"
                                "training: {rounds: 1, local_epochs: 2, batch_size: 4, optimizer: {kind: sgd, "
                                "learning_rate: 0.1}, loss: bce, epoch_seeds: [{site: mercy, seeds: [7]}]}\n"
                                "aggregation: {method: fedavg, weights: samples}\n");
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) learner = learner_of(plan, "mercy", 60);
    cs_training_result result = {0};

    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &result), CS_RANGE);
    assert_non_null(strstr(cs_error_text(), "epoch_seeds of site 'mercy' has 1 seeds"));
}

static void a_split_without_test_rows_is_refused_before_anything_is_trained(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(HEART_PLAN);
    CS_AUTO_PTR(cs_site_config) config = NULL;
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    const cs_hash hash = cs_sha256(cs_bytes_of_text("plan"));
    cs_table *table = NULL;
    cs_learner *learner = NULL;
    cs_buffer_append_text(&bytes, "age,chol,cp,num,fold\n63,200,1,0,train\n");
    assert_int_equal(cs_site_config_read(cs_bytes_of_text(HEART_SITE), "site.yaml", "/", &config), CS_OK);
    assert_int_equal(cs_table_read(plan, &config->datasets[0], &bytes, "heart.csv", &table), CS_OK);

    assert_int_equal(cs_learner_new(plan, &hash, "mercy", table, &learner), CS_INVALID);
    assert_string_equal(cs_error_text(), "the split leaves no rows for 'test': train 1, valid 0, test 0 of 1 rows");
}

static void rows_in_one_place_are_trained_on_together(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(HEART_PLAN);
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) mercy = learner_of(plan, "mercy", 60);
    CS_AUTO_PTR(cs_learner) hope = learner_of(plan, "hope", 40);
    cs_training_result result = {0};

    assert_int_equal(cs_learner_pool(mercy, &hope, 1), CS_OK);
    assert_int_equal(cs_learner_train(mercy, base, NULL, 1, NULL, &result), CS_OK);

    assert_int_equal(result.samples,
                     cs_learner_table(mercy)->parts[CS_PART_TRAIN] + cs_learner_table(hope)->parts[CS_PART_TRAIN]);
    cs_parameters_free(result.parameters);
}

static cs_status stop_at_third(void *self, uint64_t done, uint64_t total, double mean_loss)
{
    (void)total;
    (void)mean_loss;
    *(uint64_t *)self = done;
    return done == 3 ? cs_fail(CS_CANCELLED, "enough") : CS_OK;
}

static void the_watcher_of_a_training_can_stop_it(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(HEART_PLAN);
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) learner = learner_of(plan, "mercy", 60);
    cs_training_result result = {0};
    uint64_t last = 0;

    assert_int_equal(cs_learner_train(learner, base, NULL, 1, &(cs_training_watch){stop_at_third, &last}, &result),
                     CS_CANCELLED);
    assert_int_equal(last, 3);
    assert_null(result.parameters);
}

static void a_round_leaves_no_tensor_behind(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(HEART_PLAN);
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) learner = learner_of(plan, "mercy", 60);
    size_t before = 0;

    for (uint32_t round = 1; round <= 5; round++) {
        cs_training_result result = {0};
        assert_int_equal(cs_learner_train(learner, base, NULL, round, NULL, &result), CS_OK);
        cs_parameters_free(result.parameters);
        if (round == 1)
            before = cs_tensor_live_count();
    }
    assert_int_equal(cs_tensor_live_count(), before);
}

#define NETWORK(rest_)                                                                                                 \
    HEART_PLAN_HEAD "  standardize: site\n"                                                                            \
                    "model: {kind: mlp, hidden: [5], dropout: 0.3}\n"                                                  \
                    "training: {rounds: 3, local_steps: 7, batch_size: 4, loss: bce, optimizer: {kind: adam, "         \
                    "learning_rate: 0.02" rest_ "}}\nevaluation: {metrics: [], standardize: [site]}\n"

static void head_of(const cs_training_result *result, float out[5])
{
    CS_SCOPE(scope);
    assert_int_equal(cs_tensor_copy_out(cs_parameter(result->parameters, "head.weight"), out, 5 * sizeof(float)),
                     CS_OK);
}

static void result_clear(cs_training_result *result)
{
    cs_parameters_free(result->parameters);
    cs_parameters_free(result->memory);
}

static void what_dropout_drops_follows_from_plan_site_and_round(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(NETWORK(""));
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) one = learner_of(plan, "mercy", 60);
    CS_AUTO_PTR(cs_learner) two = learner_of(plan, "mercy", 60);
    cs_training_result a = {0}, b = {0};
    float left[5], right[5];

    assert_int_equal(cs_learner_train(one, base, NULL, 2, NULL, &a), CS_OK);
    assert_int_equal(cs_learner_train(two, base, NULL, 2, NULL, &b), CS_OK);

    head_of(&a, left);
    head_of(&b, right);
    assert_memory_equal(left, right, sizeof left);
    assert_true(a.mean_loss == b.mean_loss);
    assert_null(a.memory);
    result_clear(&a);
    result_clear(&b);
}

static void an_optimizer_that_keeps_its_state_goes_on_where_it_was(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(NETWORK(", state: keep"));
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) learner = learner_of(plan, "mercy", 60);
    cs_training_result first = {0}, anew = {0}, on = {0}, again = {0};
    float heads[3][5];

    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &first), CS_OK);
    assert_non_null(first.memory);
    assert_int_equal(cs_parameters_count(first.memory), 1 + 2 * 4);
    assert_int_equal(cs_learner_train(learner, first.parameters, NULL, 2, NULL, &anew), CS_OK);
    assert_int_equal(cs_learner_train(learner, first.parameters, first.memory, 2, NULL, &on), CS_OK);
    assert_int_equal(cs_learner_train(learner, first.parameters, first.memory, 2, NULL, &again), CS_OK);

    head_of(&anew, heads[0]);
    head_of(&on, heads[1]);
    head_of(&again, heads[2]);
    assert_memory_not_equal(heads[0], heads[1], sizeof heads[0]);
    assert_memory_equal(heads[1], heads[2], sizeof heads[0]);
    result_clear(&first);
    result_clear(&anew);
    result_clear(&on);
    result_clear(&again);
}

#define CLASSES_PLAN(loss_)                                                                                            \
    "plan: little\nfederation: horizontal\ndataset: {name: heart, kind: table, features: [age, chol], label: "         \
    "{column: num, classes: [2, 1, 0]}, missing: drop, standardize: site}\n"                                           \
    "model: {kind: logistic_regression}\ntraining: {rounds: 1, local_epochs: 20, batch_size: 8, optimizer: {kind: "    \
    "adam, learning_rate: 0.05}, loss: " loss_ "}\n"

static void a_label_of_several_classes_is_its_place_in_the_list(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(CLASSES_PLAN("cross_entropy"));
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) learner = learner_of(plan, "mercy", 200);
    const cs_table *table = cs_learner_table(learner);
    cs_training_result result = {0};
    cs_evaluation evaluations[CS_EVALUATIONS_MAX];
    size_t count = 0;

    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &result), CS_OK);
    assert_int_equal(cs_learner_evaluate(learner, base, "global", CS_PART_TEST, evaluations, &count), CS_OK);
    assert_int_equal(cs_learner_evaluate(learner, result.parameters, "local", CS_PART_TEST, evaluations, &count),
                     CS_OK);

    assert_int_equal(table->class_rows[0] + table->class_rows[1] + table->class_rows[2], table->rows);
    assert_true(table->class_rows[2] > table->class_rows[0]);
    assert_int_equal(cs_tensor_size(cs_parameters_at(base, 0), 0), 3);
    assert_true(evaluations[1].metrics[0].value > evaluations[0].metrics[0].value);
    result_clear(&result);
}

static void a_value_that_is_no_class_is_named_by_its_line(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(CLASSES_PLAN("cross_entropy"));
    CS_AUTO_PTR(cs_site_config) config = NULL;
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    cs_table *table = NULL;
    cs_buffer_append_text(&bytes, "age,chol,cp,num,fold\n63,200,1,0,train\n63,200,1,3,train\n");
    assert_int_equal(cs_site_config_read(cs_bytes_of_text(HEART_SITE), "site.yaml", "/", &config), CS_OK);

    assert_int_equal(cs_table_read(plan, &config->datasets[0], &bytes, "heart.csv", &table), CS_INVALID);

    assert_string_equal(cs_error_text(), "heart.csv line 3, column 'num': none of the classes that the plan lists");
}

static void a_balanced_loss_needs_the_rows_of_all_and_uses_them(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = plan_of(CLASSES_PLAN("{kind: cross_entropy, class_weights: balanced}"));
    CS_AUTO_PTR(cs_parameters) base = initial(plan);
    CS_AUTO_PTR(cs_learner) learner = learner_of(plan, "mercy", 60);
    cs_training_result result = {0}, other = {0};
    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &result), CS_STATE);
    assert_non_null(strstr(cs_error_text(), "rows of each class at all participants"));

    cs_moments *moments = cs_learner_moments(learner);
    assert_int_equal(moments->columns, 0); /* nothing that the plan does not need */
    assert_int_equal(moments->classes, 3);
    cs_learner_use_moments(learner, moments);
    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &result), CS_OK);
    moments = cs_learner_moments(learner);
    moments->class_counts[0] += 500;
    cs_learner_use_moments(learner, moments);
    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &other), CS_OK);
    assert_true(result.mean_loss != other.mean_loss);
    result_clear(&result);
    result_clear(&other);

    moments = cs_learner_moments(learner);
    moments->class_counts[1] = 0;
    cs_learner_use_moments(learner, moments);
    assert_int_equal(cs_learner_train(learner, base, NULL, 1, NULL, &other), CS_INVALID);
    assert_non_null(strstr(cs_error_text(), "no weight for class 1"));
}

static int start(void **state)
{
    (void)state;
    return cs_tensor_start(1) == CS_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_initial_model_of_a_seed_is_the_one_libtorch_users_get),
        cmocka_unit_test(the_same_round_gives_the_same_bits_whatever_was_trained_before),
        cmocka_unit_test(sites_shuffle_differently_and_training_helps),
        cmocka_unit_test(federated_standardization_without_the_sums_is_a_clear_error),
        cmocka_unit_test(a_diverging_training_is_an_error_and_no_update),
        cmocka_unit_test(a_value_that_no_float_holds_is_an_error_and_no_row),
        cmocka_unit_test(seeds_that_run_out_are_named),
        cmocka_unit_test(a_split_without_test_rows_is_refused_before_anything_is_trained),
        cmocka_unit_test(rows_in_one_place_are_trained_on_together),
        cmocka_unit_test(the_watcher_of_a_training_can_stop_it),
        cmocka_unit_test(a_round_leaves_no_tensor_behind),
        cmocka_unit_test(what_dropout_drops_follows_from_plan_site_and_round),
        cmocka_unit_test(an_optimizer_that_keeps_its_state_goes_on_where_it_was),
        cmocka_unit_test(a_label_of_several_classes_is_its_place_in_the_list),
        cmocka_unit_test(a_value_that_is_no_class_is_named_by_its_line),
        cmocka_unit_test(a_balanced_loss_needs_the_rows_of_all_and_uses_them),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
