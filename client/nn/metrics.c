/* Accuracy, AUC, Brier score, log loss and calibration, in double. Called by client/worker; pure functions. */
#include "client/nn/metrics.h"

#include <math.h>
#include <stdlib.h>

/* ---- one row ---- */

static size_t class_of(const cs_predictions *all, size_t row)
{
    return (size_t)lroundf(all->labels[row]);
}

/* The predicted class: 0 or 1 for yes or no. */
static size_t predicted(const cs_predictions *all, size_t row)
{
    if (all->classes == 0)
        return all->p[row] > 0.5f;
    const float *p = all->p + row * all->classes;
    size_t best = 0;
    for (size_t i = 1; i < all->classes; i++)
        best = p[i] > p[best] ? i : best;
    return best;
}

static double squared_distance(const cs_predictions *all, size_t row)
{
    if (all->classes == 0) {
        const double distance = (double)all->p[row] - (double)all->labels[row];
        return distance * distance;
    }
    double sum = 0;
    for (size_t i = 0; i < all->classes; i++) {
        const double distance = (double)all->p[row * all->classes + i] - (class_of(all, row) == i ? 1 : 0);
        sum += distance * distance;
    }
    return sum;
}

static double log_loss(const cs_predictions *all, size_t row)
{
    const double p = all->classes == 0 ? (double)all->p[row] : (double)all->p[row * all->classes + class_of(all, row)];
    const double kept = CS_MIN(CS_MAX(p, CS_LOG_LOSS_MARGIN), 1 - CS_LOG_LOSS_MARGIN);
    return all->classes == 0 && all->labels[row] <= 0.5f ? -log1p(-kept) : -log(kept);
}

/* ---- means over rows ---- */

static double is_correct(const cs_predictions *all, size_t row)
{
    return predicted(all, row) == class_of(all, row) ? 1 : 0;
}

static void set_mean(const cs_predictions *all, double (*of_row)(const cs_predictions *, size_t), cs_metric_value *ret)
{
    for (size_t i = 0; i < all->count; i++)
        ret->sum += of_row(all, i);
    ret->count = (double)all->count;
    ret->value = ret->sum / ret->count;
    ret->pools = ret->is_defined = true;
}

/* ---- AUC ---- */

struct scored {
    float p;
    bool is_positive;
};

static int by_probability(const void *a, const void *b)
{
    const float left = ((const struct scored *)a)->p, right = ((const struct scored *)b)->p;
    return (left > right) - (left < right);
}

/* How many (positive, negative) pairs there are, and how many the score puts in the right order. */
static void count_pairs(struct scored *rows, size_t count, double *ret_ordered, double *ret_pairs)
{
    double positives = 0, negatives_below = 0, ordered = 0;
    qsort(rows, count, sizeof *rows, by_probability);
    for (size_t start = 0; start < count;) {
        double tied_positives = 0, tied_negatives = 0;
        size_t end = start;
        for (; end < count && rows[end].p == rows[start].p; end++) {
            tied_positives += rows[end].is_positive ? 1 : 0;
            tied_negatives += rows[end].is_positive ? 0 : 1;
        }
        ordered += tied_positives * (negatives_below + tied_negatives / 2);
        negatives_below += tied_negatives;
        positives += tied_positives;
        start = CS_MAX(end, start + 1);
    }
    *ret_ordered = ordered;
    *ret_pairs = positives * negatives_below;
}

static void set_auc(const cs_predictions *all, cs_metric_value *ret)
{
    struct scored *rows = cs_alloc_array(all->count, sizeof *rows);
    const size_t curves = CS_MAX(all->classes, 1);
    for (size_t k = 0; k < curves; k++) {
        const size_t positive = all->classes == 0 ? 1 : k;
        for (size_t i = 0; i < all->count; i++)
            rows[i] = (struct scored){all->p[i * curves + k], class_of(all, i) == positive};
        count_pairs(rows, all->count, &ret->parts[2 * k], &ret->parts[2 * k + 1]);
    }
    cs_free(rows);
    ret->parts_count = CS_METRIC_CLASS_PARTS * curves;
}

/* ---- calibration ---- */

static void set_calibration(const cs_predictions *all, cs_metric_value *ret)
{
    for (size_t i = 0; i < all->count; i++) {
        const size_t column = predicted(all, i);
        const double p = all->classes == 0 ? (double)all->p[i] : (double)all->p[i * all->classes + column];
        const double observed = all->classes == 0 ? (double)all->labels[i] : is_correct(all, i);
        const double place = ceil(p * (double)all->bins) - 1; /* (low, high] */
        const size_t bin = place <= 0 ? 0 : CS_MIN((size_t)place, all->bins - 1);
        ret->parts[CS_METRIC_BIN_PARTS * bin] += 1;
        ret->parts[CS_METRIC_BIN_PARTS * bin + 1] += p;
        ret->parts[CS_METRIC_BIN_PARTS * bin + 2] += observed;
    }
    ret->parts_count = CS_METRIC_BIN_PARTS * all->bins;
}

cs_metric_value cs_metric_compute(cs_metric metric, const cs_predictions *predictions)
{
    cs_metric_value value = {.metric = metric};
    switch (metric) {
    case CS_METRIC_ACCURACY:
        set_mean(predictions, is_correct, &value);
        return value;
    case CS_METRIC_BRIER:
        set_mean(predictions, squared_distance, &value);
        return value;
    case CS_METRIC_LOG_LOSS:
        set_mean(predictions, log_loss, &value);
        return value;
    case CS_METRIC_AUC:
        set_auc(predictions, &value);
        break;
    case CS_METRIC_CALIBRATION_ERROR:
        set_calibration(predictions, &value);
        break;
    }
    value.is_defined = cs_metric_of_parts(cs_metric_name(metric), value.parts, value.parts_count, &value.value);
    return value;
}
