/* A CSV reader that works in place: each field is moved to the front of its own bytes and closed with a zero. Called by
 * table.c, on the worker's main thread. */
#include "client/data/csv.h"

#include <string.h>

struct cs_csv {
    char *name;
    char *at;
    char *end; /* a zero byte stands here */
    char delimiter;
    size_t line;
    size_t records;
    char **fields;
    size_t capacity;
};

cs_csv *cs_csv_open(cs_buffer *bytes, const char *name, char delimiter)
{
    static const char byte_order_mark[] = "\xEF\xBB\xBF";
    cs_buffer_reserve(bytes, bytes->size + 1); /* so that there is a zero byte even behind nothing */
    cs_csv *csv = cs_alloc(sizeof *csv);
    csv->name = cs_strdup(name);
    csv->at = (char *)bytes->data;
    csv->end = csv->at + bytes->size;
    csv->delimiter = delimiter;
    csv->line = 1;
    if (bytes->size >= 3 && memcmp(csv->at, byte_order_mark, 3) == 0)
        csv->at += 3;
    return csv;
}

void cs_csv_free(cs_csv *csv)
{
    if (csv == NULL)
        return;
    cs_free(csv->name);
    cs_free(csv->fields);
    cs_free(csv);
}

static cs_status fail_at(const cs_csv *csv, size_t line, cs_status status, const char *what)
{
    return cs_fail(status, "%s line %zu: %s", csv->name, line, what);
}

static bool is_blank(const cs_csv *csv, char c)
{
    return (c == ' ' || c == '\t') && c != csv->delimiter;
}

static bool at_line_end(const cs_csv *csv)
{
    return csv->at == csv->end || *csv->at == '\n' ||
           (*csv->at == '\r' && (csv->at + 1 == csv->end || csv->at[1] == '\n'));
}

/* Behind the line's end, if one is here. */
static void skip_line_end(cs_csv *csv)
{
    if (csv->at < csv->end && *csv->at == '\r')
        csv->at++;
    if (csv->at < csv->end && *csv->at == '\n')
        csv->at++;
    csv->line++;
}

/* At an opening quote; leaves `at` behind the closing one. The text starts at *ret_text and ends before *ret_end. */
static cs_status quoted(cs_csv *csv, char **ret_text, char **ret_end)
{
    const size_t line = csv->line;
    char *out = ++csv->at;
    *ret_text = out;
    for (;; csv->at++) {
        if (csv->at == csv->end)
            return fail_at(csv, line, CS_INVALID, "a quote that is opened here is never closed");
        if (*csv->at == '"') {
            if (csv->at + 1 == csv->end || csv->at[1] != '"')
                break;
            csv->at++;
        } else if (*csv->at == '\n') {
            csv->line++;
        }
        *out++ = *csv->at;
        if ((size_t)(out - *ret_text) > CS_CSV_FIELD_MAX_BYTES)
            return fail_at(csv, line, CS_EXHAUSTED, "a field of more than 65536 bytes");
    }
    csv->at++;
    *ret_end = out;
    while (csv->at < csv->end && is_blank(csv, *csv->at))
        csv->at++;
    if (!at_line_end(csv) && *csv->at != csv->delimiter)
        return fail_at(csv, csv->line, CS_INVALID,
                       "text behind a closing quote, expected the delimiter or the line's end");
    return CS_OK;
}

static cs_status plain(cs_csv *csv, char **ret_text, char **ret_end)
{
    char *text = csv->at;
    while (!at_line_end(csv) && *csv->at != csv->delimiter) {
        if (*csv->at == '"')
            return fail_at(csv, csv->line, CS_INVALID, "a quote inside a field that does not start with one");
        csv->at++;
    }
    char *end = csv->at;
    while (end > text && is_blank(csv, end[-1]))
        end--;
    if ((size_t)(end - text) > CS_CSV_FIELD_MAX_BYTES)
        return fail_at(csv, csv->line, CS_EXHAUSTED, "a field of more than 65536 bytes");
    *ret_text = text;
    *ret_end = end;
    return CS_OK;
}

/* One field, closed with a zero; *ret_is_last when the record ends with it. */
static cs_status field(cs_csv *csv, char **ret, bool *ret_is_last)
{
    while (csv->at < csv->end && is_blank(csv, *csv->at))
        csv->at++;
    char *text = NULL, *end = NULL;
    if (csv->at < csv->end && *csv->at == '"')
        CS_TRY(quoted(csv, &text, &end));
    else
        CS_TRY(plain(csv, &text, &end));
    if (memchr(text, '\0', (size_t)(end - text)) != NULL)
        return fail_at(csv, csv->line, CS_INVALID, "a zero byte: this is no text file");

    *ret_is_last = at_line_end(csv);
    if (*ret_is_last)
        skip_line_end(csv);
    else
        csv->at++;
    *end = '\0'; /* on the delimiter, the line's end or the closing quote: all read already */
    *ret = text;
    return CS_OK;
}

cs_status cs_csv_next(cs_csv *csv, cs_csv_record *ret)
{
    while (csv->at < csv->end && at_line_end(csv))
        skip_line_end(csv);
    if (csv->at == csv->end)
        return CS_DONE;
    if (++csv->records > CS_CSV_MAX_ROWS)
        return fail_at(csv, csv->line, CS_EXHAUSTED, "more than 10000000 rows");

    const size_t line = csv->line;
    size_t count = 0;
    for (bool is_last = false; !is_last; count++) {
        if (count == CS_CSV_MAX_COLUMNS)
            return fail_at(csv, line, CS_EXHAUSTED, "more than 8192 fields");
        if (count == csv->capacity) {
            csv->capacity = CS_MAX(16, csv->capacity * 2);
            csv->fields = cs_realloc(csv->fields, csv->capacity * sizeof *csv->fields);
        }
        CS_TRY(field(csv, &csv->fields[count], &is_last));
    }
    *ret = (cs_csv_record){csv->fields, count, line};
    return CS_OK;
}
