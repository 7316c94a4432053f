/* client/nn/metrics: against values worked out by hand. */
#include "client/nn/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool is_near(double a, double b)
{
    return fabs(a - b) < 1e-7;
}

static cs_metric_value compute(cs_metric metric, const float *p, const float *labels, size_t count)
{
    return cs_metric_compute(metric, &(cs_predictions){.p = p, .labels = labels, .count = count, .bins = 15});
}

static void accuracy_counts_above_one_half_as_positive(void **state)
{
    (void)state;
    const float p[] = {0.5f, 0.5001f, 0.1f, 0.9f}, y[] = {0, 1, 1, 1};
    const cs_metric_value value = compute(CS_METRIC_ACCURACY, p, y, 4);
    assert_true(value.sum == 3 && value.count == 4 && value.value == 0.75);
    assert_true(value.pools && value.is_defined);
}

static void auc_is_the_share_of_ordered_pairs_with_ties_one_half(void **state)
{
    (void)state;
    /* Pairs (positive, negative): .8>.1 .8>.4 .8>.6 .4>.1 .4=.4 .4<.6 → 4 + ½ of 6 */
    const float p[] = {0.1f, 0.4f, 0.6f, 0.4f, 0.8f}, y[] = {0, 0, 0, 1, 1};
    const cs_metric_value value = compute(CS_METRIC_AUC, p, y, 5);
    assert_true(is_near(value.value, 4.5 / 6));
    assert_true(value.is_defined && !value.pools);
}

static void auc_of_equal_scores_is_one_half_and_of_reversed_ones_zero(void **state)
{
    (void)state;
    const float same[] = {0.3f, 0.3f, 0.3f}, reversed[] = {0.9f, 0.2f, 0.1f}, y[] = {0, 1, 1};
    assert_true(is_near(compute(CS_METRIC_AUC, same, y, 3).value, 0.5));
    assert_true(compute(CS_METRIC_AUC, reversed, y, 3).value == 0);
}

static void auc_over_one_class_is_undefined(void **state)
{
    (void)state;
    const float p[] = {0.1f, 0.9f}, ill[] = {1, 1}, well[] = {0, 0};
    assert_false(compute(CS_METRIC_AUC, p, ill, 2).is_defined);
    assert_false(compute(CS_METRIC_AUC, p, well, 2).is_defined);
    assert_true(compute(CS_METRIC_ACCURACY, p, ill, 2).is_defined);
}

static void brier_and_log_loss_are_their_formulas(void **state)
{
    (void)state;
    const float p[] = {0.25f, 0.75f}, y[] = {0, 0};
    assert_true(is_near(compute(CS_METRIC_BRIER, p, y, 2).value, (0.0625 + 0.5625) / 2));
    assert_true(is_near(compute(CS_METRIC_LOG_LOSS, p, y, 2).value, -(log(0.75) + log(0.25)) / 2));
}

static void a_certain_mistake_costs_much_but_not_everything(void **state)
{
    (void)state;
    const float p[] = {1}, y[] = {0};
    const double loss = compute(CS_METRIC_LOG_LOSS, p, y, 1).value;
    assert_true(isfinite(loss) && loss > 16 && loss < 17);
}

static void sums_of_two_sites_give_the_metric_of_all_rows(void **state)
{
    (void)state;
    const float p[] = {0.2f, 0.7f, 0.6f, 0.1f, 0.9f}, y[] = {0, 1, 0, 1, 1};
    static const cs_metric pooling[] = {CS_METRIC_ACCURACY, CS_METRIC_BRIER, CS_METRIC_LOG_LOSS};
    for (size_t i = 0; i < CS_COUNT(pooling); i++) {
        const cs_metric_value one = compute(pooling[i], p, y, 2);
        const cs_metric_value two = compute(pooling[i], p + 2, y + 2, 3);
        const cs_metric_value all = compute(pooling[i], p, y, 5);
        assert_true(is_near((one.sum + two.sum) / (one.count + two.count), all.value));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accuracy_counts_above_one_half_as_positive),
        cmocka_unit_test(auc_is_the_share_of_ordered_pairs_with_ties_one_half),
        cmocka_unit_test(auc_of_equal_scores_is_one_half_and_of_reversed_ones_zero),
        cmocka_unit_test(auc_over_one_class_is_undefined),
        cmocka_unit_test(brier_and_log_loss_are_their_formulas),
        cmocka_unit_test(a_certain_mistake_costs_much_but_not_everything),
        cmocka_unit_test(sums_of_two_sites_give_the_metric_of_all_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
