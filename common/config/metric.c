/* Sums to metrics. Called by client/nn and server/engine; pure functions. */
#include "common/config/metric.h"

#include <math.h>
#include <string.h>

static bool is_auc(const char *name)
{
    return strcmp(name, cs_metric_name(CS_METRIC_AUC)) == 0;
}

static bool is_calibration(const char *name)
{
    return strcmp(name, cs_metric_name(CS_METRIC_CALIBRATION_ERROR)) == 0;
}

size_t cs_metric_parts_in(const cs_plan *plan, const char *name)
{
    if (is_calibration(name))
        return (size_t)CS_METRIC_BIN_PARTS * plan->evaluation.bins;
    return is_auc(name) ? CS_METRIC_CLASS_PARTS * cs_plan_outputs(plan) : 0;
}

bool cs_metric_has_parts(const char *name, size_t count)
{
    const size_t divisor = is_calibration(name) ? CS_METRIC_BIN_PARTS : CS_METRIC_CLASS_PARTS;
    return (is_calibration(name) || is_auc(name)) && count > 0 && count <= CS_METRIC_PARTS_MAX && count % divisor == 0;
}

size_t cs_metric_classes_measured(const double *parts, size_t count)
{
    size_t measured = 0;
    for (size_t i = 0; i + 1 < count; i += CS_METRIC_CLASS_PARTS)
        measured += parts[i + 1] > 0;
    return measured;
}

static bool macro_auc(const double *parts, size_t count, double *ret)
{
    const size_t measured = cs_metric_classes_measured(parts, count);
    double sum = 0;
    for (size_t i = 0; i + 1 < count; i += CS_METRIC_CLASS_PARTS)
        sum += parts[i + 1] > 0 ? parts[i] / parts[i + 1] : 0;
    *ret = measured > 0 ? sum / (double)measured : 0;
    return measured > 0;
}

static bool calibration_error(const double *parts, size_t count, double *ret)
{
    double rows = 0, sum = 0;
    for (size_t i = 0; i + 2 < count; i += CS_METRIC_BIN_PARTS) {
        rows += parts[i];
        sum += fabs(parts[i + 1] - parts[i + 2]);
    }
    *ret = rows > 0 ? sum / rows : 0;
    return rows > 0;
}

bool cs_metric_of_parts(const char *name, const double *parts, size_t count, double *ret)
{
    *ret = 0;
    if (!cs_metric_has_parts(name, count))
        return false;
    return is_auc(name) ? macro_auc(parts, count, ret) : calibration_error(parts, count, ret);
}
