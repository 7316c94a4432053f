/* Metrics from probabilities and labels. Called by client/worker; any thread. */
#ifndef CS_NN_METRICS_H
#define CS_NN_METRICS_H

#include "common/config/metric.h"

typedef struct cs_predictions {
    const float *p;      /* (count): of yes; with classes (count, classes), each row sums to one */
    const float *labels; /* (count): 0 or 1; the class, from 0 */
    size_t count;        /* > 0 */
    size_t classes;      /* 0: the label is yes or no */
    size_t bins;         /* of calibration_error */
} cs_predictions;

/* A value and the sums it came from: `sum` / `count` where `pools`, else cs_metric_of_parts. Sums of several sites add
 * up to those of all their rows; but the pairs of an AUC are those within each site. */
typedef struct cs_metric_value {
    cs_metric metric;
    double value;
    double sum;
    double count;
    bool pools;
    bool is_defined; /* false for an AUC over one class */
    double parts[CS_METRIC_PARTS_MAX];
    size_t parts_count;
} cs_metric_value;

/* Yes or no: a row counts as yes where p > 0.5; AUC is the Mann-Whitney statistic. Several classes: the first with the
 * greatest p is predicted; AUC is the mean over the classes of one against the rest, leaving out those without a row
 * here and those that all rows have; the Brier score sums over the classes (Brier 1950), so that of two classes it is
 * twice the other. The log loss is taken with p kept CS_LOG_LOSS_MARGIN away from 0 and 1. Calibration bins are of
 * equal width, (low, high] with 0 in the first: of p against the label; of several classes of the greatest p against
 * whether that class is right. */
#define CS_LOG_LOSS_MARGIN 1e-7
cs_metric_value cs_metric_compute(cs_metric metric, const cs_predictions *predictions);

#endif
