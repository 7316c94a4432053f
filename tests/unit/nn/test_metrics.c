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

/* ---- several classes ---- */

static cs_metric_value compute_of(cs_metric metric, const float *p, const float *labels, size_t count, size_t classes)
{
    const cs_predictions predictions = {.p = p, .labels = labels, .count = count, .classes = classes, .bins = 4};
    return cs_metric_compute(metric, &predictions);
}

/* Rows of classes 0, 0, 1, 2; the third is taken for 0. */
static const float three_p[] = {0.7f, 0.2f, 0.1f, 0.5f, 0.25f, 0.25f, 0.4f, 0.35f, 0.25f, 0.1f, 0.1f, 0.8f};
static const float three_y[] = {0, 0, 1, 2};

static void the_greatest_probability_of_several_is_the_prediction(void **state)
{
    (void)state;
    assert_true(compute_of(CS_METRIC_ACCURACY, three_p, three_y, 4, 3).sum == 3);
    const float tie[] = {0.4f, 0.4f, 0.2f}, second[] = {1};
    assert_true(compute_of(CS_METRIC_ACCURACY, tie, second, 1, 3).sum == 0);
}

static void brier_and_log_loss_of_several_classes_are_their_formulas(void **state)
{
    (void)state;
    const double brier =
        (0.09 + 0.04 + 0.01) + (0.25 + 0.0625 + 0.0625) + (0.16 + 0.4225 + 0.0625) + (0.01 + 0.01 + 0.04);
    const double log_loss = -log(0.7) - log(0.5) - log(0.35) - log(0.8);
    assert_true(fabs(compute_of(CS_METRIC_BRIER, three_p, three_y, 4, 3).value - brier / 4) < 1e-6);
    assert_true(fabs(compute_of(CS_METRIC_LOG_LOSS, three_p, three_y, 4, 3).value - log_loss / 4) < 1e-6);
}

static void macro_auc_is_the_mean_over_the_classes_that_can_be_measured(void **state)
{
    (void)state;
    /* 0 against the rest: .7 .5 over .4 .1, 1. 1: .35 over .2 .25 .1, 1. 2: .8 over all, 1. */
    cs_metric_value value = compute_of(CS_METRIC_AUC, three_p, three_y, 4, 3);
    assert_true(value.is_defined && value.value == 1 && value.parts_count == 6);
    assert_int_equal(cs_metric_classes_measured(value.parts, value.parts_count), 3);
    /* No row of class 2: classes 0 and 1 remain; class 0 puts .7 over .4 and .5 not over .6. */
    const float p[] = {0.7f, 0.2f, 0.1f, 0.5f, 0.4f, 0.1f, 0.4f, 0.5f, 0.1f, 0.6f, 0.3f, 0.1f}, y[] = {0, 0, 1, 1};
    value = compute_of(CS_METRIC_AUC, p, y, 4, 3);
    assert_int_equal(cs_metric_classes_measured(value.parts, value.parts_count), 2);
    assert_true(is_near(value.value, (3.0 / 4 + 3.0 / 4) / 2));
    const float one_class[] = {1, 1, 1, 1};
    assert_false(compute_of(CS_METRIC_AUC, p, one_class, 4, 3).is_defined);
}

static void bins_count_predicted_and_observed(void **state)
{
    (void)state;
    /* Four bins; a border belongs to the bin below, 0 to the first. */
    const float p[] = {0, 0.25f, 0.3f, 1}, y[] = {0, 1, 1, 0};
    const cs_metric_value value = compute_of(CS_METRIC_CALIBRATION_ERROR, p, y, 4, 0);
    const double expected[] = {2, 0.25, 1, 1, 0.3, 1, 0, 0, 0, 1, 1, 0};
    assert_int_equal(value.parts_count, 12);
    for (size_t i = 0; i < 12; i++)
        assert_true(is_near(value.parts[i], expected[i]));
    assert_true(is_near(value.value, (0.75 + 0.7 + 1) / 4));
    assert_true(value.is_defined && !value.pools);
}

static void of_several_classes_the_confidence_is_calibrated(void **state)
{
    (void)state;
    const cs_metric_value value = compute_of(CS_METRIC_CALIBRATION_ERROR, three_p, three_y, 4, 3);
    /* 0.5 right and 0.4 wrong in (¼, ½], 0.7 right in (½, ¾], 0.8 right above. */
    const double expected[] = {0, 0, 0, 2, 0.9, 1, 1, 0.7, 1, 1, 0.8, 1};
    for (size_t i = 0; i < 12; i++)
        assert_true(is_near(value.parts[i], expected[i]));
}

static void parts_of_two_sites_give_the_calibration_of_all_rows(void **state)
{
    (void)state;
    const float p[] = {0.2f, 0.7f, 0.6f, 0.1f, 0.9f}, y[] = {0, 1, 0, 1, 1};
    cs_metric_value sum = compute_of(CS_METRIC_CALIBRATION_ERROR, p, y, 2, 0);
    const cs_metric_value more = compute_of(CS_METRIC_CALIBRATION_ERROR, p + 2, y + 2, 3, 0);
    for (size_t i = 0; i < sum.parts_count; i++)
        sum.parts[i] += more.parts[i];
    double value = 0;

    assert_true(cs_metric_of_parts("calibration_error", sum.parts, sum.parts_count, &value));

    assert_true(is_near(value, compute_of(CS_METRIC_CALIBRATION_ERROR, p, y, 5, 0).value));
    assert_false(cs_metric_of_parts("calibration_error", sum.parts, 5, &value));
    assert_false(cs_metric_of_parts("brier", sum.parts, 6, &value));
    assert_false(cs_metric_of_parts("auc", (const double[]){0, 0}, 2, &value));
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
        cmocka_unit_test(the_greatest_probability_of_several_is_the_prediction),
        cmocka_unit_test(brier_and_log_loss_of_several_classes_are_their_formulas),
        cmocka_unit_test(macro_auc_is_the_mean_over_the_classes_that_can_be_measured),
        cmocka_unit_test(bins_count_predicted_and_observed),
        cmocka_unit_test(of_several_classes_the_confidence_is_calibrated),
        cmocka_unit_test(parts_of_two_sites_give_the_calibration_of_all_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
