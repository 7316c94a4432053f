/* Where the columns that a plan and a site's configuration name stand in a table. Called by table.c and persons.c, one
 * thread at a time. Errors name the table and the column. */
#ifndef CS_DATA_COLUMNS_H
#define CS_DATA_COLUMNS_H

#include "client/data/csv.h"
#include "common/config/site.h"

#define CS_NO_COLUMN SIZE_MAX

typedef struct cs_columns {
    const cs_site_dataset *dataset;
    const char *name; /* of the table, in errors */
    char **header;    /* owned; NULL where the table has none */
    size_t width;
} cs_columns;

/* From the table's first record: the header, or where there is none the number of columns. `dataset` and `name` must
 * outlive it. Clear it also where a later step failed; zeroed is clear. */
CS_MUST_CHECK cs_status cs_columns_take(cs_columns *columns, const cs_site_dataset *dataset, const char *name,
                                        const cs_csv_record *first);
void cs_columns_clear(cs_columns *columns);
/* True when the site's configuration or the header has the plan's column `plan`. */
bool cs_columns_have(const cs_columns *columns, const char *plan);
/* The column that the plan calls `plan`. CS_NOT_FOUND says how the configuration could name it. */
CS_MUST_CHECK cs_status cs_columns_find(const cs_columns *columns, const char *plan, size_t *ret);
/* The column that the site's configuration calls `here`: a name, or "#3". */
CS_MUST_CHECK cs_status cs_columns_find_here(const cs_columns *columns, const char *here, size_t *ret);
/* A record has as many fields as the first one. */
CS_MUST_CHECK cs_status cs_columns_check(const cs_columns *columns, const cs_csv_record *record);

#endif
