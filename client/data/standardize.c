/* Means and deviations from rows or from sums, and tables as tensors. Called by client/worker on its main thread. */
#include "client/data/standardize.h"

#include <math.h>
#include <string.h>

/* Keeps a constant column at zero instead of dividing by it. */
#define DEVIATION_MARGIN 1e-9

cs_moments *cs_moments_new(const cs_plan *plan)
{
    cs_moments *moments = cs_alloc(sizeof *moments);
    moments->columns = cs_plan_needs_moments(plan) ? plan->dataset.columns_count : 0;
    moments->classes = cs_plan_needs_class_counts(plan) ? cs_plan_classes(plan) : 0;
    moments->sum = cs_alloc_array(moments->columns, sizeof(double));
    moments->sum_squares = cs_alloc_array(moments->columns, sizeof(double));
    moments->class_counts = cs_alloc_array(moments->classes, sizeof(double));
    return moments;
}

void cs_moments_free(cs_moments *moments)
{
    if (moments == NULL)
        return;
    cs_free(moments->sum);
    cs_free(moments->sum_squares);
    cs_free(moments->class_counts);
    cs_free(moments);
}

void cs_moments_add_table(cs_moments *moments, const cs_table *table)
{
    for (size_t row = 0; row < table->rows; row++) {
        if (table->part[row] != CS_PART_TRAIN)
            continue;
        moments->count += 1;
        if (moments->classes > 0)
            moments->class_counts[(size_t)table->labels[row]] += 1;
        for (size_t k = 0; k < moments->columns; k++) {
            const double value = table->features[row * table->columns + k];
            moments->sum[k] += value;
            moments->sum_squares[k] += value * value;
        }
    }
}

void cs_moments_add(cs_moments *moments, const cs_moments *other)
{
    moments->count += other->count;
    for (size_t k = 0; k < moments->columns; k++) {
        moments->sum[k] += other->sum[k];
        moments->sum_squares[k] += other->sum_squares[k];
    }
    for (size_t k = 0; k < moments->classes; k++)
        moments->class_counts[k] += other->class_counts[k];
}

cs_status cs_moments_save(const cs_moments *moments, const char *path)
{
    const struct {
        char *name;
        size_t size;
        const double *values;
    } all[] = {{(char[]){"count"}, 1, &moments->count},
               {(char[]){"sum"}, moments->columns, moments->sum},
               {(char[]){"sum_squares"}, moments->columns, moments->sum_squares},
               {(char[]){"class_counts"}, moments->classes, moments->class_counts}};
    cs_tensor_info infos[CS_COUNT(all)];
    const double *values[CS_COUNT(all)];
    size_t count = 0;
    for (size_t i = 0; i < CS_COUNT(all); i++) {
        if (all[i].size == 0)
            continue;
        infos[count] = (cs_tensor_info){.name = all[i].name, .dtype = CS_F64, .rank = 1, .shape = {all[i].size}};
        values[count++] = all[i].values;
    }
    CS_AUTO_PTR(cs_tensor_writer) writer = NULL;
    CS_TRY(cs_tensor_writer_open(path, infos, count, NULL, 0, &writer));
    for (size_t i = 0; i < count; i++)
        CS_TRY(cs_tensor_writer_put(writer, i, 0, values[i], (size_t)infos[i].shape[0] * sizeof(double)));
    return cs_tensor_writer_commit(writer);
}

static cs_status load_vector(const cs_tensor_file *file, const char *path, const char *name, size_t size, double *out)
{
    if (size == 0)
        return CS_OK;
    const cs_tensor_info *info = cs_tensor_file_find(file, name);
    if (info == NULL)
        return cs_fail(CS_INVALID, "%s: no tensor '%s', expected the sums of a statistics phase", path, name);
    if (info->dtype != CS_F64 || info->rank != 1 || info->shape[0] != size)
        return cs_fail(CS_INVALID, "%s: tensor '%s' is not F64 of shape [%zu], as the plan's columns need", path, name,
                       size);
    CS_TRY(cs_tensor_file_read(file, info, 0, out, size * sizeof *out));
    for (size_t i = 0; i < size; i++) {
        if (!isfinite(out[i]))
            return cs_fail(CS_INVALID, "%s: tensor '%s': not every value is finite", path, name);
    }
    return CS_OK;
}

cs_status cs_moments_load(const char *path, const cs_plan *plan, cs_moments **ret)
{
    CS_AUTO_PTR(cs_tensor_file) file = NULL;
    CS_TRY(cs_tensor_file_open(path, &file));
    CS_AUTO_PTR(cs_moments) moments = cs_moments_new(plan);
    CS_TRY(load_vector(file, path, "count", 1, &moments->count));
    CS_TRY(load_vector(file, path, "sum", moments->columns, moments->sum));
    CS_TRY(load_vector(file, path, "sum_squares", moments->columns, moments->sum_squares));
    CS_TRY(load_vector(file, path, "class_counts", moments->classes, moments->class_counts));
    if (moments->count < 2)
        return cs_fail(CS_INVALID, "%s: the sums are over fewer than two rows", path);
    *ret = CS_TAKE(moments);
    return CS_OK;
}

static cs_scaling *scaling_new(size_t columns)
{
    cs_scaling *scaling = cs_alloc(sizeof *scaling);
    scaling->columns = columns;
    scaling->mean = cs_alloc_array(columns, sizeof(double));
    scaling->deviation = cs_alloc_array(columns, sizeof(double));
    return scaling;
}

void cs_scaling_free(cs_scaling *scaling)
{
    if (scaling == NULL)
        return;
    cs_free(scaling->mean);
    cs_free(scaling->deviation);
    cs_free(scaling);
}

/* No scaling at all: (x − 0)/(1 − margin + margin). */
static void scaling_none(cs_scaling *scaling)
{
    for (size_t k = 0; k < scaling->columns; k++)
        scaling->deviation[k] = 1 - DEVIATION_MARGIN;
}

/* The plan's numbers stand with its features; the 0/1 columns of one with levels stay as they are. */
static void scaling_from_plan(cs_scaling *scaling, const cs_plan *plan)
{
    size_t k = 0;
    scaling_none(scaling);
    for (size_t i = 0; i < plan->dataset.features_count; i++) {
        const cs_feature *feature = &plan->dataset.features[i];
        if (feature->levels_count == 0) {
            scaling->mean[k] = feature->mean;
            scaling->deviation[k] = feature->std;
        }
        k += CS_MAX(feature->levels_count, 1);
    }
}

/* s² = (Σx² − (Σx)²/n)/(n − 1) */
static void scaling_from_moments(cs_scaling *scaling, const cs_moments *moments)
{
    for (size_t k = 0; k < scaling->columns; k++) {
        scaling->mean[k] = moments->sum[k] / moments->count;
        const double squares = moments->sum_squares[k] - moments->sum[k] * scaling->mean[k];
        scaling->deviation[k] = sqrt(CS_MAX(squares, 0) / (moments->count - 1));
    }
}

/* In two passes: the site has its rows at hand and need not lose digits. */
static void scaling_from_rows(cs_scaling *scaling, const cs_table *table)
{
    const double count = (double)table->parts[CS_PART_TRAIN];
    for (size_t k = 0; k < scaling->columns; k++) {
        double sum = 0, squares = 0;
        for (size_t row = 0; row < table->rows; row++)
            sum += table->part[row] == CS_PART_TRAIN ? table->features[row * table->columns + k] : 0;
        scaling->mean[k] = sum / count;
        for (size_t row = 0; row < table->rows; row++) {
            const double distance = table->features[row * table->columns + k] - scaling->mean[k];
            squares += table->part[row] == CS_PART_TRAIN ? distance * distance : 0;
        }
        scaling->deviation[k] = sqrt(squares / (count - 1));
    }
}

cs_status cs_scaling_of(cs_standardize standardize, const cs_plan *plan, const cs_table *table,
                        const cs_moments *federated, cs_scaling **ret)
{
    CS_AUTO_PTR(cs_scaling) scaling = scaling_new(table->columns);
    switch (standardize) {
    case CS_STANDARDIZE_NONE:
        scaling_none(scaling);
        break;
    case CS_STANDARDIZE_PLAN:
        scaling_from_plan(scaling, plan);
        break;
    case CS_STANDARDIZE_FEDERATED:
        if (federated == NULL || federated->columns != table->columns)
            return cs_fail(CS_STATE, "standardize: federated needs the summed statistics of the participants, and the "
                                     "task brought none");
        scaling_from_moments(scaling, federated);
        break;
    case CS_STANDARDIZE_SITE:
        if (table->parts[CS_PART_TRAIN] < 2)
            return cs_fail(CS_INVALID, "standardize: site needs at least two training rows, the split leaves %zu",
                           table->parts[CS_PART_TRAIN]);
        scaling_from_rows(scaling, table);
        break;
    }
    *ret = CS_TAKE(scaling);
    return CS_OK;
}

void cs_samples_clear(cs_samples *samples)
{
    cs_tensor_free(samples->columns);
    cs_tensor_free(samples->labels);
    *samples = (cs_samples){0};
}

cs_status cs_samples_make(const cs_plan *plan, const cs_table *table, cs_part part, const cs_scaling *scaling,
                          cs_samples *ret)
{
    const size_t count = table->parts[part], columns = table->columns;
    const size_t columns_bytes = count * columns * sizeof(float), labels_bytes = count * sizeof(float);
    CS_AUTO(cs_buffer) scaled = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) labels = CS_BUFFER_EMPTY;
    CS_TRY(cs_buffer_reserve_peer(&scaled, columns_bytes + 1, "the data set's columns"));
    CS_TRY(cs_buffer_reserve_peer(&labels, labels_bytes + 1, "the data set's labels"));

    for (size_t row = 0; row < table->rows; row++) {
        if (table->part[row] != part)
            continue;
        for (size_t k = 0; k < columns; k++) {
            const double value = table->features[row * columns + k];
            const float x = (float)((value - scaling->mean[k]) / (scaling->deviation[k] + DEVIATION_MARGIN));
            if (!isfinite(x))
                return cs_fail(CS_INVALID, "a value of feature column %zu, once scaled, is too large for 32 bits",
                               k + 1);
            cs_buffer_append(&scaled, &x, sizeof x);
        }
        cs_buffer_append(&labels, &table->labels[row], sizeof(float));
    }

    CS_SCOPE(scope);
    cs_tensor *x = cs_tensor_from(CS_F32, 2, (const uint64_t[]){count, columns}, scaled.data, columns_bytes);
    cs_tensor *y = cs_tensor_from(CS_F32, 2, (const uint64_t[]){count, 1}, labels.data, labels_bytes);
    if (plan->dataset.label.classes_count > 0) /* what cross-entropy takes; 32 bits hold every class exactly */
        y = cs_tensor_to(cs_reshape(y, 1, (const uint64_t[]){count}), CS_I64);
    CS_TRY(cs_scope_status(scope));
    *ret = (cs_samples){count, cs_tensor_keep(x), cs_tensor_keep(y)};
    return CS_OK;
}

cs_status cs_samples_append(cs_samples *samples, const cs_samples *more)
{
    CS_SCOPE(scope);
    cs_tensor *x = cs_concatenate((cs_tensor *const[]){samples->columns, more->columns}, 2);
    cs_tensor *y = cs_concatenate((cs_tensor *const[]){samples->labels, more->labels}, 2);
    CS_TRY(cs_scope_status(scope));
    const cs_samples both = {samples->count + more->count, cs_tensor_keep(x), cs_tensor_keep(y)};
    cs_samples_clear(samples);
    *samples = both;
    return CS_OK;
}
