/* Counts what is wrong in a table, row by row. See survey.h. The worker's main thread. */
#include "client/data/survey.h"

#include "client/data/csv.h"
#include "common/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_SHOWN 20
#define VALUES_SHOWN  12
/* Of a column that is meant to be numeric, less than a tenth is something else. */
#define BAD_CELLS_FRACTION 10

struct value {
    char *text;
    size_t count;
};

struct column {
    char *name;       /* as the table has it */
    const char *plan; /* the plan's name for it; NULL: the site maps it to nothing */
    bool is_used;     /* as numbers: by the plan or, without one, perhaps by some */
    bool is_named;    /* by the plan, the mapping or the split */
    bool is_label;
    size_t numbers, missing, missing_line, bad, bad_line;
    struct value values[VALUES_SHOWN]; /* of the label */
    size_t values_count;
    bool has_more_values;
};

struct surveyor {
    const cs_plan *plan;
    const cs_site_dataset *dataset;
    cs_survey *survey;
    struct column *columns;
    size_t width;
    size_t rows, dropped; /* dropped: with a missing value in a used column */
    size_t ragged, ragged_line;
};

static void surveyor_clear(struct surveyor *self)
{
    for (size_t i = 0; i < self->width; i++) {
        for (size_t k = 0; k < self->columns[i].values_count; k++)
            cs_free(self->columns[i].values[k].text);
        cs_free(self->columns[i].name);
    }
    cs_free(self->columns);
    cs_survey_free(self->survey);
}

void cs_survey_free(cs_survey *survey)
{
    if (survey == NULL)
        return;
    for (size_t i = 0; i < survey->count; i++)
        cs_free(survey->remarks[i].detail);
    cs_free(survey->remarks);
    cs_free(survey);
}

static void remark(cs_survey *survey, cs_remark_kind kind, size_t count, const char *detail)
{
    survey->remarks = cs_realloc(survey->remarks, (survey->count + 1) * sizeof *survey->remarks);
    survey->remarks[survey->count++] = (cs_remark){kind, count, cs_strdup(detail)};
}

/* ---- columns ---- */

/* By name, or "#3" by number; NULL: none. */
static struct column *find(const struct surveyor *self, const char *here)
{
    char number[24];
    for (size_t i = 0; i < self->width; i++) {
        snprintf(number, sizeof number, "#%zu", i);
        if (strcmp(self->columns[i].name, here) == 0 || strcmp(number, here) == 0)
            return &self->columns[i];
    }
    return NULL;
}

static const char *here_of(const cs_site_dataset *dataset, const char *plan)
{
    for (size_t i = 0; i < dataset->columns_count; i++) {
        if (strcmp(dataset->columns[i].plan, plan) == 0)
            return dataset->columns[i].here;
    }
    return plan;
}

static void remark_absent(struct surveyor *self, const char *here, const char *plan, const char *by)
{
    CS_AUTO(cs_string)
    detail =
        plan != NULL && strcmp(plan, here) != 0
            ? cs_format("no column '%s', which datasets.%s.columns gives for '%s'", here, self->dataset->name, plan)
            : cs_format("no column '%s', which %s names", here, by);
    remark(self->survey, CS_REMARK_COLUMN, 1, detail);
}

static struct column *name_column(struct surveyor *self, const char *plan)
{
    const char *here = here_of(self->dataset, plan);
    struct column *column = find(self, here);
    if (column == NULL) {
        remark_absent(self, here, plan, "the plan");
        return NULL;
    }
    column->plan = plan;
    column->is_named = column->is_used = true;
    return column;
}

static void name_by_plan(struct surveyor *self)
{
    for (size_t i = 0; i < self->plan->dataset.features_count; i++)
        (void)name_column(self, self->plan->dataset.features[i].name);
    struct column *label = NULL;
    if (self->plan->dataset.label.column != NULL)
        label = name_column(self, self->plan->dataset.label.column);
    if (label != NULL)
        label->is_label = true;
}

/* Without a plan every column may be one that plans use; what the site's configuration maps must be there. */
static void name_by_site(struct surveyor *self)
{
    for (size_t i = 0; i < self->width; i++)
        self->columns[i].is_used = true;
    for (size_t i = 0; i < self->dataset->columns_count; i++) {
        const cs_column_map *map = &self->dataset->columns[i];
        struct column *column = find(self, map->here);
        if (column == NULL) {
            remark_absent(self, map->here, map->plan, "site.yaml");
            continue;
        }
        column->plan = map->plan;
        column->is_named = true;
    }
}

static void name_split_column(struct surveyor *self, const char *here)
{
    if (here == NULL)
        return;
    struct column *column = find(self, here);
    if (column == NULL) {
        remark_absent(self, here, NULL, "the split in site.yaml");
        return;
    }
    if (!column->is_named)
        column->is_used = false; /* a text, often */
    column->is_named = true;
}

static void take_header(struct surveyor *self, const cs_csv_record *record)
{
    self->width = record->count;
    self->columns = cs_alloc_array(record->count, sizeof *self->columns);
    for (size_t i = 0; i < record->count; i++)
        self->columns[i].name = self->dataset->has_header ? cs_strdup(record->fields[i]) : cs_format("#%zu", i);
    if (self->plan != NULL)
        name_by_plan(self);
    else
        name_by_site(self);
    name_split_column(self, self->dataset->patient);
    name_split_column(self, self->dataset->train.column);
    name_split_column(self, self->dataset->valid.column);
    name_split_column(self, self->dataset->test.column);
}

/* ---- rows ---- */

static void count_value(struct column *column, const char *text)
{
    for (size_t i = 0; i < column->values_count; i++) {
        if (strcmp(column->values[i].text, text) == 0) {
            column->values[i].count++;
            return;
        }
    }
    if (column->values_count == VALUES_SHOWN)
        column->has_more_values = true;
    else
        column->values[column->values_count++] = (struct value){cs_strdup(text), 1};
}

/* True when the cell is missing. */
static bool look_at_cell(const struct surveyor *self, struct column *column, const char *cell, size_t line)
{
    double number = 0;
    if (cs_cell_is_missing(self->dataset, cell)) {
        if (column->missing++ == 0)
            column->missing_line = line;
        return true;
    }
    const bool is_number = cs_cell_number(cell, &number);
    if (is_number)
        column->numbers++;
    else if (column->bad++ == 0)
        column->bad_line = line;
    if (is_number && column->is_label) /* whatever else stands there by mistake is not for showing */
        count_value(column, cell);
    return false;
}

static void look_at_row(struct surveyor *self, const cs_csv_record *record)
{
    self->rows++;
    if (record->count != self->width) {
        if (self->ragged++ == 0)
            self->ragged_line = record->line;
        return;
    }
    bool is_missing = false;
    for (size_t i = 0; i < self->width; i++) {
        if (self->columns[i].is_used)
            is_missing = look_at_cell(self, &self->columns[i], record->fields[i], record->line) || is_missing;
    }
    self->dropped += is_missing ? 1 : 0;
}

/* ---- remarks ---- */

/* "chol (here 'cholesterol') 12, first in line 40" for each column that has any, the rest counted. */
static void append_count(cs_buffer *out, size_t shown, const struct column *column, size_t count, size_t line)
{
    if (shown >= COLUMNS_SHOWN)
        return;
    cs_buffer_printf(out, "%s%s", shown > 0 ? "; " : "", column->plan != NULL ? column->plan : column->name);
    if (column->plan != NULL && strcmp(column->plan, column->name) != 0)
        cs_buffer_printf(out, " (here '%s')", column->name);
    cs_buffer_printf(out, " %zu, first in line %zu", count, line);
}

static void append_rest(cs_buffer *out, size_t shown)
{
    if (shown > COLUMNS_SHOWN)
        cs_buffer_printf(out, "; and %zu columns more", shown - COLUMNS_SHOWN);
}

/* Without a plan a column of names or dates is none to complain about, nor one of mixed codes. */
static bool should_be_numbers(const struct surveyor *self, const struct column *column)
{
    return column->is_used && (self->plan != NULL || column->numbers > BAD_CELLS_FRACTION * column->bad);
}

static void remark_cells(struct surveyor *self)
{
    CS_AUTO(cs_buffer) detail = CS_BUFFER_EMPTY;
    size_t shown = 0, cells = 0;
    for (size_t i = 0; i < self->width; i++) {
        const struct column *column = &self->columns[i];
        if (column->bad == 0 || !should_be_numbers(self, column))
            continue;
        append_count(&detail, shown++, column, column->bad, column->bad_line);
        cells += column->bad;
    }
    append_rest(&detail, shown);
    if (cells > 0)
        remark(self->survey, CS_REMARK_CELLS, cells, cs_buffer_text(&detail));
}

static void remark_missing(struct surveyor *self)
{
    CS_AUTO(cs_buffer) detail = CS_BUFFER_EMPTY;
    size_t shown = 0;
    for (size_t i = 0; i < self->width; i++) {
        const struct column *column = &self->columns[i];
        if (column->missing > 0)
            append_count(&detail, shown++, column, column->missing, column->missing_line);
    }
    append_rest(&detail, shown);
    if (shown > 0)
        remark(self->survey, CS_REMARK_MISSING, self->dropped, cs_buffer_text(&detail));
}

static void remark_unused(struct surveyor *self)
{
    CS_AUTO(cs_buffer) detail = CS_BUFFER_EMPTY;
    size_t unused = 0;
    for (size_t i = 0; i < self->width; i++) {
        if (self->columns[i].is_named)
            continue;
        if (unused < COLUMNS_SHOWN)
            cs_buffer_printf(&detail, "%s%s", unused > 0 ? ", " : "", self->columns[i].name);
        unused++;
    }
    append_rest(&detail, unused);
    if (unused > 0)
        remark(self->survey, CS_REMARK_UNUSED, unused, cs_buffer_text(&detail));
}

static void remark_label(struct surveyor *self)
{
    CS_AUTO(cs_buffer) detail = CS_BUFFER_EMPTY;
    for (size_t i = 0; i < self->width; i++) {
        const struct column *column = &self->columns[i];
        if (!column->is_label)
            continue;
        cs_buffer_printf(&detail, "%s:", column->plan);
        for (size_t k = 0; k < column->values_count; k++)
            cs_buffer_printf(&detail, "%s %s in %zu", k > 0 ? "," : "", column->values[k].text,
                             column->values[k].count);
        cs_buffer_append_text(&detail, column->has_more_values ? " and other values" : "");
        remark(self->survey, CS_REMARK_LABEL, column->values_count, cs_buffer_text(&detail));
    }
}

static void remark_fields(struct surveyor *self)
{
    if (self->ragged == 0)
        return;
    CS_AUTO(cs_string)
    detail = cs_format("%zu rows have another number of fields than the %zu of the first line, first in line %zu",
                       self->ragged, self->width, self->ragged_line);
    remark(self->survey, CS_REMARK_FIELDS, self->ragged, detail);
}

void cs_survey_add_table(cs_survey *survey, const cs_table *table)
{
    size_t first[CS_PARTS] = {0}, same[CS_PARTS] = {0}; /* the part's first row, and how many are of its class */
    for (size_t i = table->rows; i-- > 0;)
        first[table->part[i]] = i;
    for (size_t i = 0; i < table->rows; i++)
        same[table->part[i]] += table->labels[i] == table->labels[first[table->part[i]]] ? 1 : 0;
    for (int part = 0; part < CS_PARTS; part++) {
        const size_t rows = table->parts[part];
        if (rows == 0 || same[part] < rows)
            continue;
        const float class = table->labels[first[part]];
        CS_AUTO(cs_string) name = table->classes == 2 ? cs_strdup(class > 0.5f ? "positive" : "negative")
                                                      : cs_format("of class %.0f, counted from 0", (double)class);
        CS_AUTO(cs_string) detail = cs_format("all %zu %s rows are %s", rows, cs_part_name((cs_part)part), name);
        remark(survey, CS_REMARK_ONE_CLASS, rows, detail);
    }
}

/* ---- all of it ---- */

static cs_status read_all(struct surveyor *self, cs_csv *csv)
{
    cs_csv_record record;
    cs_status status = cs_csv_next(csv, &record);
    if (status == CS_DONE)
        return cs_fail(CS_INVALID, "%s: the table is empty", self->dataset->table);
    CS_TRY(status);
    take_header(self, &record);
    if (!self->dataset->has_header)
        look_at_row(self, &record);
    while ((status = cs_csv_next(csv, &record)) == CS_OK)
        look_at_row(self, &record);
    return status == CS_DONE ? CS_OK : status;
}

cs_status cs_survey_read(const cs_plan *plan, const cs_site_dataset *dataset, cs_buffer *bytes, const char *name,
                         cs_survey **ret)
{
    struct surveyor self __attribute__((cleanup(surveyor_clear))) = {.plan = plan, .dataset = dataset};
    self.survey = cs_alloc(sizeof *self.survey);
    CS_AUTO_PTR(cs_csv) csv = cs_csv_open(bytes, name, dataset->delimiter);
    CS_TRY(read_all(&self, csv));
    remark_fields(&self);
    remark_cells(&self);
    remark_missing(&self);
    remark_label(&self);
    remark_unused(&self);
    *ret = CS_TAKE(self.survey);
    return CS_OK;
}

cs_status cs_survey_make(const cs_plan *plan, const cs_site_dataset *dataset, const char *folder, cs_survey **ret)
{
    CS_AUTO(cs_string) path = cs_path_join(folder, dataset->table);
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(path, CS_CSV_MAX_BYTES, &bytes));
    return cs_survey_read(plan, dataset, &bytes, dataset->table, ret);
}
