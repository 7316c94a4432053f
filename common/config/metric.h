/* Metrics whose value follows from sums that add up over sites, but is no mean of rows: which sums, and how. Computed
 * by the worker for one site and by the coordinator for all of them; pure functions, any thread. */
#ifndef CS_CONFIG_METRIC_H
#define CS_CONFIG_METRIC_H

#include "common/config/plan.h"

/* calibration_error has three sums a bin: rows, Σ predicted, Σ observed. auc has two a class: pairs (a row of the
 * class, one of another) that the score puts in the right order, ties one half; and pairs. */
#define CS_METRIC_BIN_PARTS   3
#define CS_METRIC_CLASS_PARTS 2
#define CS_METRIC_PARTS_MAX   (CS_METRIC_BIN_PARTS * CS_PLAN_BINS_MAX)
_Static_assert(CS_METRIC_CLASS_PARTS *CS_PLAN_CLASSES_MAX <= CS_METRIC_PARTS_MAX, "room for the parts of every metric");

/* How many parts the metric of this name has in evaluations of this plan; 0: none. */
size_t cs_metric_parts_in(const cs_plan *plan, const char *name);
/* Does a metric of this name come from parts, in this number? */
bool cs_metric_has_parts(const char *name, size_t count);
/* The value that the parts give. False where they give none: no rows, or no pair of any class.
 *
 * calibration_error: Σ |Σ predicted − Σ observed| of each bin / rows (Naeini et al. 2015, with equal-width bins). auc:
 * the mean over the classes that have pairs, of the share that is in the right order (macro, one against the rest). */
bool cs_metric_of_parts(const char *name, const double *parts, size_t count, double *ret);
/* The classes that have pairs. */
size_t cs_metric_classes_measured(const double *parts, size_t count);

#endif
