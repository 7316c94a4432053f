/* SQLite: open, migrate, statements. WAL, synchronous=FULL, foreign keys on. A database belongs to one thread. */
#ifndef CS_DB_DB_H
#define CS_DB_DB_H

#include "common/base/bytes.h"

typedef struct cs_db cs_db;

/* Opens or makes the file (0600) and brings it to migrations[count - 1]; each entry is SQL, run once, in its own
 * transaction, counted in PRAGMA user_version. CS_STATE when the file is newer than this build, CS_DATA_LOSS when it is
 * damaged. */
CS_MUST_CHECK cs_status cs_db_open(const char *path, const char *const *migrations, size_t count, cs_db **ret);
void cs_db_free(cs_db *db);
CS_DEFINE_AUTO_PTR(cs_db)

/* Transactions do not nest. cs_db_rollback after any failure inside. */
CS_MUST_CHECK cs_status cs_db_begin(cs_db *db);
CS_MUST_CHECK cs_status cs_db_commit(cs_db *db);
void cs_db_rollback(cs_db *db);
CS_MUST_CHECK cs_status cs_db_check(cs_db *db); /* PRAGMA integrity_check */

/* Runs one statement without rows. `types` has a letter for each argument: i int64_t, d double, t const char * (NULL is
 * NULL), b cs_bytes. Statements are prepared once and kept. CS_TRY(cs_db_run(db, "UPDATE site SET state = ?1 WHERE name
 * = ?2", "tt", "revoked", name)); */
CS_MUST_CHECK cs_status cs_db_run(cs_db *db, const char *sql, const char *types, ...);
int64_t cs_db_changes(const cs_db *db); /* rows the last cs_db_run changed */
int64_t cs_db_last_id(const cs_db *db);

/* Rows:  CS_AUTO_PTR(cs_rows) rows = NULL; CS_TRY(cs_db_query(db, sql, types, &rows, …)); while (cs_rows_next(rows)) …
 * then CS_TRY(cs_rows_status(rows)). Text and bytes are valid until the next step. One open cs_rows per SQL text at a
 * time. */
typedef struct cs_rows cs_rows;
CS_MUST_CHECK cs_status cs_db_query(cs_db *db, const char *sql, const char *types, cs_rows **ret, ...);
bool cs_rows_next(cs_rows *rows);
cs_status cs_rows_status(const cs_rows *rows);
int64_t cs_rows_int(cs_rows *rows, int column);
double cs_rows_real(cs_rows *rows, int column);
const char *cs_rows_text(cs_rows *rows, int column); /* never NULL: "" for NULL */
cs_bytes cs_rows_bytes(cs_rows *rows, int column);
bool cs_rows_is_null(cs_rows *rows, int column);
void cs_rows_free(cs_rows *rows);
CS_DEFINE_AUTO_PTR(cs_rows)

#endif
