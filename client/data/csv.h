/* CSV files as RFC 4180 has them: quotes, doubled quotes, line ends of both kinds, any one-character delimiter. Called
 * by table.c in the worker; any thread, one document belongs to one thread. Errors name the file and the line, never a
 * cell's content: cells are patient data. */
#ifndef CS_DATA_CSV_H
#define CS_DATA_CSV_H

#include "common/base/bytes.h"

#define CS_CSV_MAX_BYTES       (512u * 1024 * 1024)
#define CS_CSV_MAX_ROWS        10000000u
#define CS_CSV_MAX_COLUMNS     8192u
#define CS_CSV_FIELD_MAX_BYTES 65536u

/* Walks over the bytes once; a record's fields are valid until the next call. */
typedef struct cs_csv cs_csv;
/* `name` stands in front of errors. The bytes are changed in place and must outlive the reader; a byte order mark is
 * skipped. */
cs_csv *cs_csv_open(cs_buffer *bytes, const char *name, char delimiter);
void cs_csv_free(cs_csv *csv);
CS_DEFINE_AUTO_PTR(cs_csv)

typedef struct cs_csv_record {
    char **fields; /* without quotes; blanks around unquoted text are cut off */
    size_t count;
    size_t line; /* where it starts, from 1 */
} cs_csv_record;
/* CS_DONE after the last. Empty lines are skipped. CS_INVALID names file, line and what is wrong; CS_EXHAUSTED where a
 * limit is passed. */
CS_MUST_CHECK cs_status cs_csv_next(cs_csv *csv, cs_csv_record *ret);

#endif
