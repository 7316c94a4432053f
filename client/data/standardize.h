/* Standardization, (x − mean)/(std + 1e-9) with the unbiased deviation, and the sums that make it possible without
 * moving a row. Called by client/worker; one thread at a time. */
#ifndef CS_DATA_STANDARDIZE_H
#define CS_DATA_STANDARDIZE_H

#include "client/data/table.h"
#include "client/tensor/tensor.h"

/* Over training rows: what the statistics phase adds up over the sites. Only what the plan needs is in it. */
typedef struct cs_moments {
    size_t columns; /* 0: the plan does not need their sums */
    size_t classes; /* 0: nor the rows of each class */
    double count;
    double *sum;
    double *sum_squares;
    double *class_counts;
} cs_moments;
cs_moments *cs_moments_new(const cs_plan *plan);
void cs_moments_free(cs_moments *moments);
CS_DEFINE_AUTO_PTR(cs_moments)
void cs_moments_add_table(cs_moments *moments, const cs_table *table);
void cs_moments_add(cs_moments *moments, const cs_moments *other);
/* safetensors, F64: "count" [1], where needed "sum" [columns], "sum_squares" [columns], "class_counts" [classes]. */
CS_MUST_CHECK cs_status cs_moments_save(const cs_moments *moments, const char *path);
/* CS_INVALID when the file holds something else, another number of columns, or sums that no rows can have. */
CS_MUST_CHECK cs_status cs_moments_load(const char *path, const cs_plan *plan, cs_moments **ret);

typedef struct cs_scaling {
    size_t columns;
    double *mean;
    double *deviation;
} cs_scaling;
void cs_scaling_free(cs_scaling *scaling);
CS_DEFINE_AUTO_PTR(cs_scaling)
/* How `standardize` scales this table's rows. `federated` are the sums of all participants; NULL where it is not
 * needed. CS_STATE when it is and there is none; CS_INVALID for fewer than two training rows. */
CS_MUST_CHECK cs_status cs_scaling_of(cs_standardize standardize, const cs_plan *plan, const cs_table *table,
                                      const cs_moments *federated, cs_scaling **ret);

/* One part of a table as tensors outside of every scope. */
typedef struct cs_samples {
    size_t count;
    cs_tensor *columns; /* (count, columns) F32 */
    cs_tensor *labels;  /* (count, 1) F32; of several classes (count) I64 */
} cs_samples;
void cs_samples_clear(cs_samples *samples);
/* Scaled in double, rounded to float once. The rows stand in the table's order. */
CS_MUST_CHECK cs_status cs_samples_make(const cs_plan *plan, const cs_table *table, cs_part part,
                                        const cs_scaling *scaling, cs_samples *ret);
/* Adds the rows of `more` behind those of `samples`. Both have the same columns. */
CS_MUST_CHECK cs_status cs_samples_append(cs_samples *samples, const cs_samples *more);

#endif
