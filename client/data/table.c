/* Maps a CSV file to the plan's schema: numbers, levels, label, missing values, split. Called by client/worker on its
 * main thread. */
#include "client/data/table.h"

#include "client/data/columns.h"
#include "client/data/csv.h"
#include "common/base/file.h"
#include "common/crypto/digest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NO_COLUMN CS_NO_COLUMN

/* Where the things that the plan and the split name stand in a record. */
struct layout {
    size_t *features; /* one for each of the plan's features */
    size_t label;
    size_t patient; /* NO_COLUMN: each row is a patient of its own */
    size_t part[CS_PARTS];
};

/* One row's patient and part, for the check that no patient is in two parts. */
struct grouping {
    uint64_t patient;
    uint8_t part;
};

struct reader {
    const cs_plan *plan;
    const cs_site_dataset *dataset;
    const char *name;
    cs_columns columns;
    struct layout layout;
    cs_table *table;
    size_t capacity;
    size_t records; /* data rows seen, kept or not */
    struct grouping *groups;
};

const char *cs_part_name(cs_part part)
{
    static const char *const names[CS_PARTS] = {"train", "valid", "test"};
    return names[part];
}

void cs_table_free(cs_table *table)
{
    if (table == NULL)
        return;
    cs_free(table->features);
    cs_free(table->labels);
    cs_free(table->part);
    cs_free(table);
}

static void reader_clear(struct reader *reader)
{
    cs_columns_clear(&reader->columns);
    cs_free(reader->layout.features);
    cs_free(reader->groups);
    cs_table_free(reader->table);
}

/* ---- columns ---- */

static const cs_split_part *split_rule(const cs_site_dataset *dataset, cs_part part)
{
    const cs_split_part *rules[CS_PARTS] = {&dataset->train, &dataset->valid, &dataset->test};
    return rules[part];
}

static cs_status find_columns(struct reader *reader)
{
    struct layout *layout = &reader->layout;
    layout->features = cs_alloc_array(reader->plan->dataset.features_count, sizeof *layout->features);
    for (size_t i = 0; i < reader->plan->dataset.features_count; i++)
        CS_TRY(cs_columns_find(&reader->columns, reader->plan->dataset.features[i].name, &layout->features[i]));
    if (reader->plan->dataset.label.column != NULL)
        CS_TRY(cs_columns_find(&reader->columns, reader->plan->dataset.label.column, &layout->label));

    layout->patient = NO_COLUMN;
    if (reader->dataset->patient != NULL)
        CS_TRY(cs_columns_find_here(&reader->columns, reader->dataset->patient, &layout->patient));
    for (int part = 0; part < CS_PARTS; part++) {
        const char *column = split_rule(reader->dataset, (cs_part)part)->column;
        layout->part[part] = NO_COLUMN;
        if (column != NULL)
            CS_TRY(cs_columns_find_here(&reader->columns, column, &layout->part[part]));
    }
    return CS_OK;
}

/* ---- cells ---- */

static cs_status fail_cell(const struct reader *reader, const cs_csv_record *record, const char *column,
                           const char *expected)
{
    return cs_fail(CS_INVALID, "%s line %zu, column '%s': %s", reader->name, record->line, column, expected);
}

bool cs_cell_is_missing(const cs_site_dataset *dataset, const char *cell)
{
    return cell[0] == '\0' || cs_names_have(&dataset->missing, cell);
}

/* A decimal number and nothing else: no hexadecimal, no "nan", no "inf". */
bool cs_cell_number(const char *text, double *ret)
{
    if (text[strspn(text, "0123456789+-.eE")] != '\0')
        return false;
    char *end = NULL;
    *ret = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*ret);
}

static cs_status number_at(const struct reader *reader, const cs_csv_record *record, size_t column, const char *name,
                           double *ret)
{
    if (!cs_cell_number(record->fields[column], ret))
        return fail_cell(reader, record, name, "not a number");
    return CS_OK;
}

/* The name of the first used column that is missing in this record; NULL: none. */
static const char *first_missing(const struct reader *reader, const cs_csv_record *record)
{
    for (size_t i = 0; i < reader->plan->dataset.features_count; i++) {
        if (cs_cell_is_missing(reader->dataset, record->fields[reader->layout.features[i]]))
            return reader->plan->dataset.features[i].name;
    }
    const char *label = reader->plan->dataset.label.column;
    return label != NULL && cs_cell_is_missing(reader->dataset, record->fields[reader->layout.label]) ? label : NULL;
}

/* A numeric feature as it is; one with levels as a 0/1 column for each. A value that is no level gives zeros: the plan
 * lists the levels that get a column, and may leave the reference out. */
static cs_status put_features(const struct reader *reader, const cs_csv_record *record, double *out)
{
    for (size_t i = 0; i < reader->plan->dataset.features_count; i++) {
        const cs_feature *feature = &reader->plan->dataset.features[i];
        double value = 0;
        CS_TRY(number_at(reader, record, reader->layout.features[i], feature->name, &value));
        if (feature->levels_count == 0)
            *out++ = value;
        for (size_t k = 0; k < feature->levels_count; k++)
            *out++ = value == feature->levels[k] ? 1 : 0;
    }
    return CS_OK;
}

static cs_status put_label(const struct reader *reader, const cs_csv_record *record, float *out)
{
    const cs_label *label = &reader->plan->dataset.label;
    double value = 0;
    *out = 0;
    if (label->column == NULL)
        return CS_OK;
    CS_TRY(number_at(reader, record, reader->layout.label, label->column, &value));
    for (size_t i = 0; i < label->classes_count; i++) {
        if (value == label->classes[i]) {
            *out = (float)i;
            return CS_OK;
        }
    }
    if (label->classes_count > 0)
        return fail_cell(reader, record, label->column, "none of the classes that the plan lists");
    bool is_positive = label->has_above && value > label->above;
    for (size_t i = 0; i < label->positive_count; i++)
        is_positive = is_positive || value == label->positive[i];
    *out = is_positive ? 1 : 0;
    return CS_OK;
}

/* ---- split ---- */

/* Stable for ever: the same patient is in the same part whatever else is in the table. */
static uint64_t patient_hash(const struct reader *reader, const cs_csv_record *record)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_buffer_printf(&text, "consilium-split-v1\n%s\n", reader->dataset->name);
    if (reader->layout.patient != NO_COLUMN)
        cs_buffer_append_text(&text, record->fields[reader->layout.patient]);
    else
        cs_buffer_printf(&text, "#%zu", reader->records);
    cs_hash hash = cs_sha256(cs_buffer_view(&text));
    return cs_load_le64(hash.bytes);
}

static cs_part part_by_fraction(const cs_site_dataset *dataset, uint64_t hash)
{
    const double place = (double)(hash >> 11) * 0x1p-53; /* uniform in [0, 1) */
    if (place < dataset->train_fraction)
        return CS_PART_TRAIN;
    return place < dataset->train_fraction + dataset->valid_fraction ? CS_PART_VALID : CS_PART_TEST;
}

static cs_status part_by_column(const struct reader *reader, const cs_csv_record *record, cs_part *ret)
{
    for (int part = 0; part < CS_PARTS; part++) {
        const size_t column = reader->layout.part[part];
        if (column != NO_COLUMN &&
            strcmp(record->fields[column], split_rule(reader->dataset, (cs_part)part)->value) == 0) {
            *ret = (cs_part)part;
            return CS_OK;
        }
    }
    for (int part = 0; part < CS_PARTS; part++) {
        if (reader->layout.part[part] == NO_COLUMN) {
            *ret = (cs_part)part;
            return CS_OK;
        }
    }
    return fail_cell(reader, record, reader->dataset->train.column,
                     "fits no part of the split, and each part has a rule");
}

static int by_patient(const void *a, const void *b)
{
    const struct grouping *left = a, *right = b;
    return left->patient != right->patient ? (left->patient < right->patient ? -1 : 1) : left->part - right->part;
}

/* A patient in train and test at once would make the test worthless. */
static cs_status check_groups(const struct reader *reader)
{
    const size_t rows = reader->table->rows;
    if (reader->layout.patient == NO_COLUMN || rows == 0)
        return CS_OK;
    qsort(reader->groups, rows, sizeof *reader->groups, by_patient);
    for (size_t i = 1; i < rows; i++) {
        const struct grouping *a = &reader->groups[i - 1], *b = &reader->groups[i];
        if (a->patient == b->patient && a->part != b->part)
            return cs_fail(CS_INVALID, "%s: a patient of column '%s' has rows in both %s and %s, expected all in one",
                           reader->name, reader->dataset->patient, cs_part_name((cs_part)a->part),
                           cs_part_name((cs_part)b->part));
    }
    return CS_OK;
}

/* ---- rows ---- */

static cs_status make_room(struct reader *reader)
{
    cs_table *table = reader->table;
    if (table->rows < reader->capacity)
        return CS_OK;
    const size_t capacity = CS_MAX(256, reader->capacity * 2);
    if (capacity / 2 * table->columns > CS_TABLE_MAX_CELLS)
        return cs_fail(CS_EXHAUSTED, "%s: more than %u values in the plan's columns", reader->name, CS_TABLE_MAX_CELLS);
    table->features = cs_realloc(table->features, CS_MAX(capacity * table->columns, 1) * sizeof *table->features);
    table->labels = cs_realloc(table->labels, capacity * sizeof *table->labels);
    table->part = cs_realloc(table->part, capacity);
    reader->groups = cs_realloc(reader->groups, capacity * sizeof *reader->groups);
    reader->capacity = capacity;
    return CS_OK;
}

static cs_status add_row(struct reader *reader, const cs_csv_record *record)
{
    cs_table *table = reader->table;
    reader->records++;
    CS_TRY(cs_columns_check(&reader->columns, record));
    const char *missing = first_missing(reader, record);
    if (missing != NULL && reader->plan->dataset.missing == CS_MISSING_FAIL)
        return fail_cell(reader, record, missing, "missing, and the plan does not allow it");
    if (missing != NULL) {
        table->dropped++;
        return CS_OK;
    }

    CS_TRY(make_room(reader));
    CS_TRY(put_features(reader, record, table->features + table->rows * table->columns));
    CS_TRY(put_label(reader, record, &table->labels[table->rows]));
    const uint64_t patient = patient_hash(reader, record);
    cs_part part = CS_PART_TRAIN;
    if (reader->dataset->has_fractions)
        part = part_by_fraction(reader->dataset, patient);
    else
        CS_TRY(part_by_column(reader, record, &part));

    table->part[table->rows] = (uint8_t)part;
    reader->groups[table->rows] = (struct grouping){patient, (uint8_t)part};
    table->parts[part]++;
    table->class_rows[(size_t)table->labels[table->rows]]++;
    table->rows++;
    return CS_OK;
}

static cs_status read_all(struct reader *reader, cs_csv *csv)
{
    cs_csv_record record;
    cs_status status = cs_csv_next(csv, &record);
    if (status == CS_DONE)
        return cs_fail(CS_INVALID, "%s: the table is empty", reader->name);
    CS_TRY(status);
    CS_TRY(cs_columns_take(&reader->columns, reader->dataset, reader->name, &record));
    CS_TRY(find_columns(reader));
    if (!reader->dataset->has_header)
        CS_TRY(add_row(reader, &record));
    while ((status = cs_csv_next(csv, &record)) == CS_OK)
        CS_TRY(add_row(reader, &record));
    if (status != CS_DONE)
        return status;
    if (reader->table->rows == 0)
        return cs_fail(CS_INVALID,
                       "%s: no row is left: %zu rows, all with a missing value in a column that the plan uses",
                       reader->name, reader->records);
    return check_groups(reader);
}

cs_status cs_table_read(const cs_plan *plan, const cs_site_dataset *dataset, cs_buffer *bytes, const char *name,
                        cs_table **ret)
{
    struct reader reader __attribute__((cleanup(reader_clear))) = {.plan = plan, .dataset = dataset, .name = name};
    reader.table = cs_alloc(sizeof *reader.table);
    reader.table->columns = plan->dataset.columns_count;
    reader.table->classes = cs_plan_classes(plan);
    CS_AUTO_PTR(cs_csv) csv = cs_csv_open(bytes, name, dataset->delimiter);
    CS_TRY(read_all(&reader, csv));
    *ret = CS_TAKE(reader.table);
    return CS_OK;
}

cs_status cs_table_load(const cs_plan *plan, const cs_site_dataset *dataset, const char *folder, cs_table **ret)
{
    CS_AUTO(cs_string) path = cs_path_join(folder, dataset->table);
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(path, CS_CSV_MAX_BYTES, &bytes));
    return cs_table_read(plan, dataset, &bytes, dataset->table, ret);
}

cs_status cs_table_describe(const cs_site_dataset *dataset, const char *folder, cs_table **ret)
{
    static const cs_plan without_columns = {.dataset = {.missing = CS_MISSING_DROP}};
    return cs_table_load(&without_columns, dataset, folder, ret);
}

cs_status cs_table_need(const cs_table *table, cs_part part)
{
    if (table->parts[part] > 0)
        return CS_OK;
    return cs_fail(CS_INVALID, "the split leaves no rows for '%s': train %zu, valid %zu, test %zu of %zu rows",
                   cs_part_name(part), table->parts[CS_PART_TRAIN], table->parts[CS_PART_VALID],
                   table->parts[CS_PART_TEST], table->rows);
}
