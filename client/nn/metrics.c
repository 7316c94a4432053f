/* Accuracy, AUC, Brier score and log loss, in double. Called by client/worker; pure functions. */
#include "client/nn/metrics.h"

#include <math.h>
#include <stdlib.h>

static double sum_of_correct(const float *p, const float *labels, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (p[i] > 0.5f) == (labels[i] > 0.5f) ? 1 : 0;
    return sum;
}

static double sum_of_squares(const float *p, const float *labels, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const double distance = (double)p[i] - (double)labels[i];
        sum += distance * distance;
    }
    return sum;
}

static double sum_of_log_losses(const float *p, const float *labels, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const double kept = CS_MIN(CS_MAX((double)p[i], CS_LOG_LOSS_MARGIN), 1 - CS_LOG_LOSS_MARGIN);
        sum -= labels[i] > 0.5f ? log(kept) : log1p(-kept);
    }
    return sum;
}

struct scored {
    float p;
    bool is_positive;
};

static int by_probability(const void *a, const void *b)
{
    const float left = ((const struct scored *)a)->p, right = ((const struct scored *)b)->p;
    return (left > right) - (left < right);
}

/* The share of (positive, negative) pairs that the score puts in the right order. False where a class is missing. */
static bool area_under_curve(const float *p, const float *labels, size_t count, double *ret)
{
    struct scored *rows = cs_alloc_array(count, sizeof *rows);
    double positives = 0;
    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct scored){p[i], labels[i] > 0.5f};
        positives += rows[i].is_positive ? 1 : 0;
    }
    qsort(rows, count, sizeof *rows, by_probability);

    double negatives_below = 0, ordered_pairs = 0;
    for (size_t start = 0; start < count;) {
        double tied_positives = 0, tied_negatives = 0;
        size_t end = start;
        for (; end < count && rows[end].p == rows[start].p; end++) {
            tied_positives += rows[end].is_positive ? 1 : 0;
            tied_negatives += rows[end].is_positive ? 0 : 1;
        }
        ordered_pairs += tied_positives * (negatives_below + tied_negatives / 2);
        negatives_below += tied_negatives;
        start = CS_MAX(end, start + 1);
    }
    cs_free(rows);

    const double pairs = positives * negatives_below;
    *ret = pairs > 0 ? ordered_pairs / pairs : 0;
    return pairs > 0;
}

cs_metric_value cs_metric_compute(cs_metric metric, const float *p, const float *labels, size_t count)
{
    cs_metric_value value = {.metric = metric, .count = (double)count, .pools = true, .is_defined = true};
    switch (metric) {
    case CS_METRIC_ACCURACY:
        value.sum = sum_of_correct(p, labels, count);
        break;
    case CS_METRIC_BRIER:
        value.sum = sum_of_squares(p, labels, count);
        break;
    case CS_METRIC_LOG_LOSS:
        value.sum = sum_of_log_losses(p, labels, count);
        break;
    case CS_METRIC_AUC:
        value.pools = false;
        value.is_defined = area_under_curve(p, labels, count, &value.value);
        return value;
    }
    value.value = value.sum / value.count;
    return value;
}
