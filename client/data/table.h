/* A site's table as the plan sees it: features in the plan's order, labels, and which part of the split each row is in.
 * Called by client/worker, after it has confined itself; one thread at a time. Errors name file, line and column and
 * say what was expected, never what the cell holds. */
#ifndef CS_DATA_TABLE_H
#define CS_DATA_TABLE_H

#include "common/config/plan.h"
#include "common/config/site.h"

/* Rows × columns that a table may have. */
#define CS_TABLE_MAX_CELLS (256u * 1024 * 1024)

typedef enum cs_part { CS_PART_TRAIN, CS_PART_VALID, CS_PART_TEST } cs_part;
#define CS_PARTS 3
const char *cs_part_name(cs_part part);

typedef struct cs_table {
    size_t columns;                         /* the plan's columns_count */
    size_t rows;                            /* kept */
    size_t dropped;                         /* for a missing value in a used column */
    double *features;                       /* (rows, columns) */
    float *labels;                          /* (rows): 0 or 1, or the class from 0 */
    uint8_t *part;                          /* (rows): cs_part */
    size_t parts[CS_PARTS];                 /* rows in each */
    size_t classes;                         /* the label's; 2 for yes or no */
    size_t class_rows[CS_PLAN_CLASSES_MAX]; /* kept rows of each */
} cs_table;

/* Reads the table that `dataset` describes; relative paths start in `folder`. CS_NOT_FOUND: no such file or column;
 * CS_INVALID: a cell, a row, a split that does not fit; CS_EXHAUSTED over a limit. */
CS_MUST_CHECK cs_status cs_table_load(const cs_plan *plan, const cs_site_dataset *dataset, const char *folder,
                                      cs_table **ret);
/* The same from bytes, for tests and fuzzing. The bytes are changed. */
CS_MUST_CHECK cs_status cs_table_read(const cs_plan *plan, const cs_site_dataset *dataset, cs_buffer *bytes,
                                      const char *name, cs_table **ret);
/* The same without a plan: how many rows, and how they split. No cell but those of the split is looked at. */
CS_MUST_CHECK cs_status cs_table_describe(const cs_site_dataset *dataset, const char *folder, cs_table **ret);
void cs_table_free(cs_table *table);
CS_DEFINE_AUTO_PTR(cs_table)

/* How a cell is read. Of a number: a decimal one and nothing else, no hexadecimal, no "nan", no "inf". */
bool cs_cell_is_missing(const cs_site_dataset *dataset, const char *cell);
bool cs_cell_number(const char *text, double *ret);

/* CS_INVALID when the part has no rows, with the sentence that says how the split came out. */
CS_MUST_CHECK cs_status cs_table_need(const cs_table *table, cs_part part);

#endif
