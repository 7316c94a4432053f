/* Metrics of a binary outcome from probabilities and labels. Called by client/worker; any thread. */
#ifndef CS_NN_METRICS_H
#define CS_NN_METRICS_H

#include "common/config/plan.h"

/* A value and the sums it came from: those of `pools` add up over sites to the metric of all their rows. */
typedef struct cs_metric_value {
    cs_metric metric;
    double value;
    double sum;
    double count;
    bool pools;
    bool is_defined; /* false for an AUC over one class */
} cs_metric_value;

/* A row counts as positive where p > 0.5. AUC is the Mann-Whitney statistic, ties count one half. The log loss is taken
 * with p kept CS_LOG_LOSS_MARGIN away from 0 and 1. count > 0. */
#define CS_LOG_LOSS_MARGIN 1e-7
cs_metric_value cs_metric_compute(cs_metric metric, const float *p, const float *labels, size_t count);

#endif
