/* A data set line by line, for `consilium-client doctor`: where cs_table_load stops at the first thing that does not
 * fit, this counts all of them and says where the first stands. Called by client/worker, after it has confined itself.
 * What it says is for the people of the site: it names columns and lines and the values of the label, never another
 * cell. */
#ifndef CS_DATA_SURVEY_H
#define CS_DATA_SURVEY_H

#include "client/data/table.h"

typedef enum cs_remark_kind {
    CS_REMARK_FIELDS,    /* rows with another number of fields than the first */
    CS_REMARK_COLUMN,    /* a column that is named but not there */
    CS_REMARK_CELLS,     /* cells that are neither a number nor missing */
    CS_REMARK_MISSING,   /* rows with a missing value */
    CS_REMARK_UNUSED,    /* columns that nothing names */
    CS_REMARK_LABEL,     /* the values of the label */
    CS_REMARK_ONE_CLASS, /* a part of the split in which all labels are the same */
} cs_remark_kind;

typedef struct cs_remark {
    cs_remark_kind kind;
    size_t count; /* rows, cells or columns */
    char *detail;
} cs_remark;

typedef struct cs_survey {
    cs_remark *remarks;
    size_t count;
} cs_survey;

/* With a plan: of the columns that it uses. Without one: of all columns; those in which nearly all cells are numbers
 * are taken for numeric. CS_NOT_FOUND: no such file; CS_INVALID: no CSV; CS_EXHAUSTED over a limit. */
CS_MUST_CHECK cs_status cs_survey_make(const cs_plan *plan, const cs_site_dataset *dataset, const char *folder,
                                       cs_survey **ret);
/* The same from bytes, for tests. The bytes are changed. */
CS_MUST_CHECK cs_status cs_survey_read(const cs_plan *plan, const cs_site_dataset *dataset, cs_buffer *bytes,
                                       const char *name, cs_survey **ret);
/* Adds what only the mapped table shows: parts with one class. */
void cs_survey_add_table(cs_survey *survey, const cs_table *table);
void cs_survey_free(cs_survey *survey);
CS_DEFINE_AUTO_PTR(cs_survey)

#endif
