/* Finds columns by the names of the plan and of the site. Called by table.c and persons.c, on the worker's main thread.
 */
#include "client/data/columns.h"

#include <stdlib.h>
#include <string.h>

cs_status cs_columns_take(cs_columns *columns, const cs_site_dataset *dataset, const char *name,
                          const cs_csv_record *first)
{
    *columns = (cs_columns){.dataset = dataset, .name = name, .width = first->count};
    if (!dataset->has_header)
        return CS_OK;
    columns->header = cs_alloc_array(first->count, sizeof *columns->header);
    for (size_t i = 0; i < first->count; i++)
        columns->header[i] = cs_strdup(first->fields[i]);
    return CS_OK;
}

void cs_columns_clear(cs_columns *columns)
{
    for (size_t i = 0; columns->header != NULL && i < columns->width; i++)
        cs_free(columns->header[i]);
    cs_free(columns->header);
    *columns = (cs_columns){0};
}

/* "#3" → 3 */
static bool column_number(const char *text, size_t *ret)
{
    if (text[0] != '#' || strspn(text + 1, "0123456789") != strlen(text + 1) || text[1] == '\0' || strlen(text) > 6)
        return false;
    *ret = strtoul(text + 1, NULL, 10);
    return true;
}

/* `here` as the site's configuration writes it; `plan` is the plan's name for it, or NULL. */
static cs_status find(const cs_columns *columns, const char *here, const char *plan, size_t *ret)
{
    size_t found = CS_NO_COLUMN;
    for (size_t i = 0; columns->header != NULL && i < columns->width; i++) {
        if (strcmp(columns->header[i], here) != 0)
            continue;
        if (found != CS_NO_COLUMN)
            return cs_fail(CS_INVALID, "%s: two columns are called '%s'", columns->name, here);
        found = i;
    }
    if (found == CS_NO_COLUMN && column_number(here, &found) && found >= columns->width)
        return cs_fail(CS_NOT_FOUND, "%s: there is no column %s, the table has %zu columns, counted from #0",
                       columns->name, here, columns->width);
    if (found == CS_NO_COLUMN && plan != NULL && strcmp(plan, here) != 0)
        return cs_fail(CS_NOT_FOUND, "%s: there is no column '%s', which the site's configuration gives for '%s'",
                       columns->name, here, plan);
    if (found == CS_NO_COLUMN)
        return cs_fail(CS_NOT_FOUND,
                       "%s: there is no column '%s'; if it has another name here, datasets.%s.columns can say so",
                       columns->name, here, columns->dataset->name);
    *ret = found;
    return CS_OK;
}

/* The site's name for a column of the plan; NULL: the configuration has none. */
static const char *name_here(const cs_columns *columns, const char *plan)
{
    for (size_t i = 0; i < columns->dataset->columns_count; i++) {
        if (strcmp(columns->dataset->columns[i].plan, plan) == 0)
            return columns->dataset->columns[i].here;
    }
    return NULL;
}

bool cs_columns_have(const cs_columns *columns, const char *plan)
{
    if (name_here(columns, plan) != NULL)
        return true;
    for (size_t i = 0; columns->header != NULL && i < columns->width; i++) {
        if (strcmp(columns->header[i], plan) == 0)
            return true;
    }
    return false;
}

cs_status cs_columns_find(const cs_columns *columns, const char *plan, size_t *ret)
{
    const char *here = name_here(columns, plan);
    return find(columns, here != NULL ? here : plan, plan, ret);
}

cs_status cs_columns_find_here(const cs_columns *columns, const char *here, size_t *ret)
{
    return find(columns, here, NULL, ret);
}

cs_status cs_columns_check(const cs_columns *columns, const cs_csv_record *record)
{
    if (record->count == columns->width)
        return CS_OK;
    return cs_fail(CS_INVALID, "%s line %zu: %zu fields, expected %zu", columns->name, record->line, record->count,
                   columns->width);
}
