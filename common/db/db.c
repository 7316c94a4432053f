/* SQLite behind a narrow door: one file, one connection, one thread. The engine, the agent's main thread and the tests
 * call it. The file itself is written by SQLite, not by common/base/file.h. */
#include "common/db/db.h"

#include "common/base/failpoint.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>

#define BUSY_TIMEOUT_MS 5000 /* another process (a backup, a shell) may hold the lock for a moment */

/* A prepared statement, kept until the database closes. The rows that a query opens are the statement itself: there is
 * one set of rows per SQL text. */
struct cs_rows {
    cs_db *db;
    char *sql;
    sqlite3_stmt *statement;
    bool is_open;
    cs_status status;
};

struct cs_db {
    sqlite3 *handle;
    char *path;
    int64_t changes;
    cs_rows **statements;
    size_t statement_count;
    size_t statement_capacity;
};

static cs_status status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return CS_OK;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
        return CS_EXHAUSTED;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return CS_DATA_LOSS;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CANTOPEN:
        return CS_UNAVAILABLE;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
        return CS_DENIED;
    case SQLITE_TOOBIG:
    case SQLITE_MISMATCH:
        return CS_INVALID;
    case SQLITE_CONSTRAINT:
        return code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY ? CS_EXISTS : CS_INVALID;
    default:
        return CS_INTERNAL;
    }
}

/* The SQL comes last: it may be longer than a sentence can be. */
static cs_status fail(const cs_db *db, const char *sql)
{
    int code = sqlite3_extended_errcode(db->handle);
    cs_status status = status_of(code);
    return cs_fail(status == CS_OK ? CS_INTERNAL : status, "%s: %s (SQLite code %d) in '%s'", db->path,
                   sqlite3_errmsg(db->handle), code, sql);
}

static cs_status execute(cs_db *db, const char *sql)
{
    if (sqlite3_exec(db->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail(db, sql);
    return CS_OK;
}

static cs_status statement_prepare(cs_db *db, const char *sql, cs_rows **ret)
{
    sqlite3_stmt *statement = NULL;
    const char *rest = NULL;
    if (sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, &rest) != SQLITE_OK)
        return fail(db, sql);
    if (!statement || rest[strspn(rest, " \n\t;")] != '\0') {
        sqlite3_finalize(statement);
        return cs_fail(CS_INTERNAL, "%s: '%s' is not exactly one statement", db->path, sql);
    }

    if (db->statement_count == db->statement_capacity) {
        db->statement_capacity = db->statement_capacity ? 2 * db->statement_capacity : 32;
        db->statements = cs_realloc(db->statements, db->statement_capacity * sizeof *db->statements);
    }
    cs_rows *kept = cs_alloc(sizeof *kept);
    *kept = (cs_rows){.db = db, .sql = cs_strdup(sql), .statement = statement};
    db->statements[db->statement_count++] = kept;
    *ret = kept;
    return CS_OK;
}

/* The texts are literals of this program, some dozens: walking the list costs less than one page read. */
static cs_status statement_find(cs_db *db, const char *sql, cs_rows **ret)
{
    for (size_t i = 0; i < db->statement_count; i++) {
        if (strcmp(db->statements[i]->sql, sql) != 0)
            continue;
        if (db->statements[i]->is_open)
            return cs_fail(CS_INTERNAL, "%s: '%s' is used again while its rows are still open", db->path, sql);
        *ret = db->statements[i];
        return CS_OK;
    }
    return statement_prepare(db, sql, ret);
}

static void statement_reset(cs_rows *statement)
{
    /* The result repeats the last step's error, which was reported already. */
    sqlite3_reset(statement->statement);
    sqlite3_clear_bindings(statement->statement);
}

static cs_status bind(cs_rows *statement, const char *types, va_list arguments)
{
    cs_db *db = statement->db;
    int expected = sqlite3_bind_parameter_count(statement->statement);
    if (strlen(types) != (size_t)expected)
        return cs_fail(CS_INTERNAL, "%s: '%s' takes %d arguments, the types are '%s'", db->path, statement->sql,
                       expected, types);
    for (int i = 1; i <= expected; i++) {
        int code = SQLITE_MISUSE;
        switch (types[i - 1]) {
        case 'i':
            code = sqlite3_bind_int64(statement->statement, i, va_arg(arguments, int64_t));
            break;
        case 'd':
            code = sqlite3_bind_double(statement->statement, i, va_arg(arguments, double));
            break;
        case 't': {
            const char *text = va_arg(arguments, const char *);
            code = text ? sqlite3_bind_text(statement->statement, i, text, -1, SQLITE_TRANSIENT)
                        : sqlite3_bind_null(statement->statement, i);
            break;
        }
        case 'b': {
            cs_bytes bytes = va_arg(arguments, cs_bytes);
            /* A NULL pointer would store NULL where empty bytes are meant. */
            code = sqlite3_bind_blob64(statement->statement, i, bytes.data ? (const void *)bytes.data : "", bytes.size,
                                       SQLITE_TRANSIENT);
            break;
        }
        default:
            return cs_fail(CS_INTERNAL, "%s: '%s': unknown argument type '%c'", db->path, statement->sql, types[i - 1]);
        }
        if (code != SQLITE_OK)
            return fail(db, statement->sql);
    }
    return CS_OK;
}

static cs_status read_version(cs_db *db, size_t *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(db, "PRAGMA user_version", "", &rows));
    int64_t version = cs_rows_next(rows) ? cs_rows_int(rows, 0) : -1;
    CS_TRY(cs_rows_status(rows));
    if (version < 0)
        return cs_fail(CS_DATA_LOSS, "%s: user_version is %" PRId64, db->path, version);
    *ret = (size_t)version;
    return CS_OK;
}

static cs_status migrate_one(cs_db *db, const char *sql, size_t version)
{
    CS_AUTO(cs_string) set_version = cs_format("PRAGMA user_version = %zu", version);
    CS_TRY(cs_db_begin(db));
    cs_status status = execute(db, sql);
    if (status == CS_OK)
        status = execute(db, set_version);
    if (status == CS_OK)
        status = cs_failpoint("db.migrate");
    if (status == CS_OK)
        status = cs_db_commit(db);
    if (status != CS_OK) {
        cs_db_rollback(db);
        return cs_wrap(status, "migration %zu", version);
    }
    return CS_OK;
}

static cs_status migrate(cs_db *db, const char *const *migrations, size_t count)
{
    size_t version = 0;
    CS_TRY(read_version(db, &version));
    if (version > count)
        return cs_fail(CS_STATE, "%s has schema version %zu; this build knows up to %zu: use a newer build", db->path,
                       version, count);
    for (; version < count; version++)
        CS_TRY(migrate_one(db, migrations[version], version + 1));
    return CS_OK;
}

static cs_status check(cs_db *db, const char *pragma)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(db, pragma, "", &rows));
    bool has_answer = cs_rows_next(rows);
    CS_TRY(cs_rows_status(rows));
    const char *answer = has_answer ? cs_rows_text(rows, 0) : "no answer";
    if (strcmp(answer, "ok") != 0)
        return cs_fail(CS_DATA_LOSS, "%s is damaged: %s", db->path, answer);
    return CS_OK;
}

/* SQLite gives the -wal and -shm files the mode of the main file, so it is enough that ours exists first. */
static cs_status make_private(const char *path)
{
    if (cs_file_exists(path))
        return CS_OK;
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, &fd));
    return cs_file_close(&fd);
}

static cs_status configure(cs_db *db)
{
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    /* A file that someone else prepared must not run anything through its schema. */
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    CS_TRY(execute(db, "PRAGMA journal_mode = WAL"));
    CS_TRY(execute(db, "PRAGMA synchronous = FULL"));
    return execute(db, "PRAGMA foreign_keys = ON");
}

cs_status cs_db_open(const char *path, const char *const *migrations, size_t count, cs_db **ret)
{
    CS_TRY(make_private(path));
    CS_AUTO_PTR(cs_db) db = cs_alloc(sizeof *db);
    db->path = cs_strdup(path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &db->handle, flags, NULL) != SQLITE_OK)
        return db->handle ? fail(db, "open") : cs_fail(CS_EXHAUSTED, "%s: no memory to open it", path);

    CS_TRY(configure(db));
    /* The structure of every page: damage is better found now than in the middle of a round. */
    CS_TRY(check(db, "PRAGMA quick_check(1)"));
    CS_TRY(migrate(db, migrations, count));
    *ret = CS_TAKE(db);
    return CS_OK;
}

void cs_db_free(cs_db *db)
{
    if (!db)
        return;
    for (size_t i = 0; i < db->statement_count; i++) {
        sqlite3_finalize(db->statements[i]->statement);
        cs_free(db->statements[i]->sql);
        cs_free(db->statements[i]);
    }
    cs_free(db->statements);
    sqlite3_close(db->handle);
    cs_free(db->path);
    cs_free(db);
}

cs_status cs_db_begin(cs_db *db)
{
    /* IMMEDIATE: a transaction that will write takes the lock now, where waiting for it is still possible. */
    return cs_db_run(db, "BEGIN IMMEDIATE", "");
}

cs_status cs_db_commit(cs_db *db)
{
    CS_FAILPOINT("db.commit");
    CS_TRY(cs_db_run(db, "COMMIT", ""));
    CS_IGNORE(cs_failpoint("db.committed"), "what is committed cannot fail any more; only killing makes sense here");
    return CS_OK;
}

void cs_db_rollback(cs_db *db)
{
    /* SQLite has rolled back by itself after some errors, a full disk among them. */
    if (!sqlite3_get_autocommit(db->handle))
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

cs_status cs_db_check(cs_db *db)
{
    return check(db, "PRAGMA integrity_check(1)");
}

cs_status cs_db_run(cs_db *db, const char *sql, const char *types, ...)
{
    cs_rows *statement = NULL;
    CS_TRY(statement_find(db, sql, &statement));
    va_list arguments;
    va_start(arguments, types);
    cs_status status = bind(statement, types, arguments);
    va_end(arguments);

    if (status == CS_OK) {
        int code = sqlite3_step(statement->statement);
        if (code == SQLITE_ROW)
            status = cs_fail(CS_INTERNAL, "%s: '%s' has rows; it is a query", db->path, sql);
        else if (code != SQLITE_DONE)
            status = fail(db, sql);
        else
            db->changes = sqlite3_changes64(db->handle);
    }
    statement_reset(statement);
    return status;
}

int64_t cs_db_changes(const cs_db *db)
{
    return db->changes;
}

int64_t cs_db_last_id(const cs_db *db)
{
    return sqlite3_last_insert_rowid(db->handle);
}

cs_status cs_db_query(cs_db *db, const char *sql, const char *types, cs_rows **ret, ...)
{
    cs_rows *rows = NULL;
    CS_TRY(statement_find(db, sql, &rows));
    va_list arguments;
    va_start(arguments, ret);
    cs_status status = bind(rows, types, arguments);
    va_end(arguments);
    if (status != CS_OK) {
        statement_reset(rows);
        return status;
    }
    rows->is_open = true;
    rows->status = CS_OK;
    *ret = rows;
    return CS_OK;
}

bool cs_rows_next(cs_rows *rows)
{
    if (rows->status != CS_OK)
        return false;
    int code = sqlite3_step(rows->statement);
    if (code == SQLITE_ROW)
        return true;
    /* CS_DONE keeps a further call from running the statement again. */
    rows->status = code == SQLITE_DONE ? CS_DONE : fail(rows->db, rows->sql);
    return false;
}

cs_status cs_rows_status(const cs_rows *rows)
{
    return rows->status == CS_DONE ? CS_OK : rows->status;
}

int64_t cs_rows_int(cs_rows *rows, int column)
{
    return sqlite3_column_int64(rows->statement, column);
}

double cs_rows_real(cs_rows *rows, int column)
{
    return sqlite3_column_double(rows->statement, column);
}

const char *cs_rows_text(cs_rows *rows, int column)
{
    const unsigned char *text = sqlite3_column_text(rows->statement, column);
    return text ? (const char *)text : "";
}

cs_bytes cs_rows_bytes(cs_rows *rows, int column)
{
    /* In this order: asking for the blob may convert, and the size is that of the converted value. */
    const void *data = sqlite3_column_blob(rows->statement, column);
    return cs_bytes_of(data, (size_t)sqlite3_column_bytes(rows->statement, column));
}

bool cs_rows_is_null(cs_rows *rows, int column)
{
    return sqlite3_column_type(rows->statement, column) == SQLITE_NULL;
}

void cs_rows_free(cs_rows *rows)
{
    if (!rows)
        return;
    statement_reset(rows);
    rows->is_open = false;
}
