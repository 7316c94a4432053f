/* Sites, their certificates and the enrolment tokens, and the picture of them that rpc threads read. Called on the
 * engine's thread; cs_registry_admit from any. */
#include "server/store/registry.h"

#include "common/base/failpoint.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Hashes and keys are NULL until there is one. A token is kept as its SHA-256: who reads the database cannot enrol. */
const char cs_store_registry_v1[] = "CREATE TABLE site ("
                                    "  name TEXT PRIMARY KEY,"
                                    "  state TEXT NOT NULL CHECK (state IN ('invited', 'enrolled', 'revoked')),"
                                    "  reason TEXT NOT NULL DEFAULT '',"
                                    "  signing_key BLOB NOT NULL,"
                                    "  leaf_key BLOB NOT NULL,"
                                    "  previous_leaf_key BLOB NOT NULL,"
                                    "  certificate_not_after_ms INTEGER NOT NULL,"
                                    "  enrolled_ms INTEGER NOT NULL,"
                                    "  last_seen_ms INTEGER NOT NULL"
                                    ") STRICT, WITHOUT ROWID;"
                                    "CREATE TABLE token ("
                                    "  token BLOB PRIMARY KEY,"
                                    "  site TEXT NOT NULL REFERENCES site (name),"
                                    "  is_rejoin INTEGER NOT NULL,"
                                    "  expires_ms INTEGER NOT NULL,"
                                    "  is_used INTEGER NOT NULL,"
                                    "  used_leaf_key BLOB NOT NULL,"
                                    "  used_signing_key BLOB NOT NULL,"
                                    "  certificate_pem BLOB NOT NULL"
                                    ") STRICT, WITHOUT ROWID;"
                                    "CREATE INDEX token_by_site ON token (site);";

/* Which roster a site's people approved last. */
const char cs_store_registry_v2[] = "CREATE TABLE roster_approval ("
                                    "  site TEXT PRIMARY KEY REFERENCES site (name),"
                                    "  roster BLOB NOT NULL,"
                                    "  signature BLOB NOT NULL"
                                    ") STRICT, WITHOUT ROWID;";

#define SITE_COLUMNS                                                                                                   \
    "name, state, reason, signing_key, leaf_key, previous_leaf_key, certificate_not_after_ms, enrolled_ms, "           \
    "last_seen_ms"

static const char *const state_names[] = {
    [CS_SITE_INVITED] = "invited",
    [CS_SITE_ENROLLED] = "enrolled",
    [CS_SITE_REVOKED] = "revoked",
};

/* ---- sites ---- */

static cs_bytes hash_view(const cs_hash *hash)
{
    return cs_bytes_of(hash->bytes, CS_HASH_BYTES);
}

/* The database is ours, but a byte string of another length must not become a key. */
static cs_status copy_bytes(cs_rows *rows, int column, uint8_t *out, size_t size, const char *what)
{
    cs_bytes bytes = cs_rows_bytes(rows, column);
    if (bytes.size != size)
        return cs_fail(CS_DATA_LOSS, "the database holds a %s of %zu bytes, expected %zu", what, bytes.size, size);
    memcpy(out, bytes.data, size);
    return CS_OK;
}

static void copy_text(char *out, size_t size, const char *text)
{
    size_t length = CS_MIN(strlen(text), size - 1);
    memcpy(out, text, length);
    out[length] = 0;
}

static cs_status read_state(const char *text, cs_site_state *ret)
{
    for (size_t i = 0; i < CS_COUNT(state_names); i++) {
        if (strcmp(text, state_names[i]) == 0) {
            *ret = (cs_site_state)i;
            return CS_OK;
        }
    }
    return cs_fail(CS_DATA_LOSS, "the database holds a site in the state '%s'", text);
}

static cs_status read_site(cs_rows *rows, cs_site_record *ret)
{
    cs_site_record record = {0};
    copy_text(record.name, sizeof record.name, cs_rows_text(rows, 0));
    CS_TRY(read_state(cs_rows_text(rows, 1), &record.state));
    copy_text(record.reason, sizeof record.reason, cs_rows_text(rows, 2));
    CS_TRY(copy_bytes(rows, 3, record.signing_key, sizeof record.signing_key, "signing key"));
    CS_TRY(copy_bytes(rows, 4, record.leaf_key.bytes, CS_HASH_BYTES, "key's hash"));
    CS_TRY(copy_bytes(rows, 5, record.previous_leaf_key.bytes, CS_HASH_BYTES, "key's hash"));
    record.certificate_not_after_ms = cs_rows_int(rows, 6);
    record.enrolled_ms = cs_rows_int(rows, 7);
    record.last_seen_ms = cs_rows_int(rows, 8);
    *ret = record;
    return CS_OK;
}

cs_status cs_registry_find(cs_store *store, const char *site, cs_site_record *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT " SITE_COLUMNS " FROM site WHERE name = ?1", "t", &rows, site));
    if (cs_rows_next(rows))
        return read_site(rows, ret);
    CS_TRY(cs_rows_status(rows));
    return cs_fail(CS_NOT_FOUND, "no site '%.80s' in this consortium", site);
}

static cs_status count_sites(cs_store *store, size_t *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT count(*) FROM site", "", &rows));
    *ret = cs_rows_next(rows) ? (size_t)cs_rows_int(rows, 0) : 0;
    return cs_rows_status(rows);
}

static cs_status read_sites(cs_store *store, cs_site_record *records, size_t count, size_t *ret_count)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT " SITE_COLUMNS " FROM site ORDER BY name", "", &rows));
    size_t read = 0;
    while (read < count && cs_rows_next(rows))
        CS_TRY(read_site(rows, &records[read++]));
    *ret_count = read;
    return cs_rows_status(rows);
}

cs_status cs_registry_list(cs_store *store, cs_site_record **ret, size_t *ret_count)
{
    size_t count = 0;
    CS_TRY(count_sites(store, &count));
    cs_site_record *records = cs_alloc_array(CS_MAX(count, (size_t)1), sizeof *records);
    cs_status status = read_sites(store, records, count, ret_count);
    if (status != CS_OK) {
        cs_free(records);
        return status;
    }
    *ret = records;
    return CS_OK;
}

cs_status cs_registry_put(cs_store *store, const cs_site_record *record)
{
    CS_FAILPOINT("registry.put");
    store->changes++;
    return cs_db_run(store->db,
                     "INSERT INTO site (" SITE_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
                     " ON CONFLICT (name) DO UPDATE SET state = ?2, reason = ?3, signing_key = ?4, leaf_key = ?5,"
                     " previous_leaf_key = ?6, certificate_not_after_ms = ?7, enrolled_ms = ?8, last_seen_ms = ?9",
                     "tttbbbiii", record->name, state_names[record->state], record->reason,
                     cs_bytes_of(record->signing_key, sizeof record->signing_key), hash_view(&record->leaf_key),
                     hash_view(&record->previous_leaf_key), record->certificate_not_after_ms, record->enrolled_ms,
                     record->last_seen_ms);
}

cs_status cs_registry_seen(cs_store *store, const char *site, int64_t now_ms)
{
    return cs_db_run(store->db, "UPDATE site SET last_seen_ms = ?2 WHERE name = ?1", "ti", site, now_ms);
}

/* ---- approvals of the roster ---- */

cs_status cs_roster_approval_put(cs_store *store, const cs_roster_approval *approval)
{
    CS_FAILPOINT("registry.approval_put");
    return cs_db_run(store->db,
                     "INSERT INTO roster_approval VALUES (?1, ?2, ?3)"
                     " ON CONFLICT (site) DO UPDATE SET roster = ?2, signature = ?3",
                     "tbb", approval->site, hash_view(&approval->roster),
                     cs_bytes_of(approval->signature, sizeof approval->signature));
}

cs_status cs_roster_approval_find(cs_store *store, const char *site, cs_roster_approval *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db, "SELECT roster, signature FROM roster_approval WHERE site = ?1", "t", &rows, site));
    if (!cs_rows_next(rows)) {
        CS_TRY(cs_rows_status(rows));
        return cs_fail(CS_NOT_FOUND, "site '%.80s' has approved no roster", site);
    }
    copy_text(ret->site, sizeof ret->site, site);
    CS_TRY(copy_bytes(rows, 0, ret->roster.bytes, CS_HASH_BYTES, "roster's hash"));
    return copy_bytes(rows, 1, ret->signature, sizeof ret->signature, "signature");
}

/* ---- tokens ---- */

void cs_token_record_clear(cs_token_record *record)
{
    cs_buffer_clear(&record->certificate_pem);
}

static cs_status read_token(cs_rows *rows, const cs_hash *token, cs_token_record *ret)
{
    cs_token_record record = {.token = *token};
    copy_text(record.site, sizeof record.site, cs_rows_text(rows, 0));
    record.is_rejoin = cs_rows_int(rows, 1) != 0;
    record.expires_ms = cs_rows_int(rows, 2);
    record.is_used = cs_rows_int(rows, 3) != 0;
    CS_TRY(copy_bytes(rows, 4, record.used_leaf_key.bytes, CS_HASH_BYTES, "key's hash"));
    CS_TRY(copy_bytes(rows, 5, record.used_signing_key, sizeof record.used_signing_key, "signing key"));
    cs_bytes certificate = cs_rows_bytes(rows, 6);
    cs_buffer_append(&record.certificate_pem, certificate.data, certificate.size);
    *ret = record;
    return CS_OK;
}

cs_status cs_token_find(cs_store *store, const cs_hash *token, cs_token_record *ret)
{
    CS_AUTO_PTR(cs_rows) rows = NULL;
    CS_TRY(cs_db_query(store->db,
                       "SELECT site, is_rejoin, expires_ms, is_used, used_leaf_key, used_signing_key, certificate_pem"
                       " FROM token WHERE token = ?1",
                       "b", &rows, hash_view(token)));
    if (cs_rows_next(rows))
        return read_token(rows, token, ret);
    CS_TRY(cs_rows_status(rows));
    return cs_fail(CS_NOT_FOUND, "no such token");
}

cs_status cs_token_put(cs_store *store, const cs_token_record *record)
{
    CS_FAILPOINT("registry.token_put");
    return cs_db_run(store->db,
                     "INSERT INTO token (token, site, is_rejoin, expires_ms, is_used, used_leaf_key, used_signing_key,"
                     " certificate_pem) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
                     " ON CONFLICT (token) DO UPDATE SET is_used = ?5, used_leaf_key = ?6, used_signing_key = ?7,"
                     " certificate_pem = ?8",
                     "btiiibbb", hash_view(&record->token), record->site, (int64_t)record->is_rejoin,
                     record->expires_ms, (int64_t)record->is_used, hash_view(&record->used_leaf_key),
                     cs_bytes_of(record->used_signing_key, sizeof record->used_signing_key),
                     cs_bytes_of(record->certificate_pem.size > 0 ? record->certificate_pem.data : (const uint8_t *)"",
                                 record->certificate_pem.size));
}

cs_status cs_token_withdraw(cs_store *store, const char *site)
{
    return cs_db_run(store->db, "DELETE FROM token WHERE site = ?1 AND is_used = 0", "t", site);
}

/* ---- the snapshot ---- */

/* By name, without what nobody asks on rpc threads. Never changed once it is current. */
typedef struct admission {
    char name[CS_NAME_MAX + 1];
    cs_site_state state;
    char reason[256];
    cs_hash leaf_key, previous_leaf_key;
} admission;

struct cs_registry_snapshot {
    size_t count;
    admission sites[];
};

static pthread_mutex_t snapshot_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the pointer and its readers */
static cs_registry_snapshot *snapshot;

cs_status cs_registry_publish(cs_store *store)
{
    cs_site_record *records = NULL;
    size_t count = 0;
    CS_TRY(cs_registry_list(store, &records, &count));
    store->changes++; /* what was read may be other than before: after a start, or a rollback */
    cs_registry_snapshot *fresh = cs_alloc(sizeof *fresh + count * sizeof fresh->sites[0]);
    fresh->count = count;
    for (size_t i = 0; i < count; i++) {
        admission *site = &fresh->sites[i];
        copy_text(site->name, sizeof site->name, records[i].name);
        copy_text(site->reason, sizeof site->reason, records[i].reason);
        site->state = records[i].state;
        site->leaf_key = records[i].leaf_key;
        site->previous_leaf_key = records[i].previous_leaf_key;
    }
    cs_free(records);

    pthread_mutex_lock(&snapshot_lock);
    cs_registry_snapshot *old = snapshot;
    snapshot = fresh;
    pthread_mutex_unlock(&snapshot_lock);
    cs_free(old);
    return CS_OK;
}

static int compare_name(const void *name, const void *site)
{
    return strcmp(name, ((const admission *)site)->name);
}

static cs_status admit_site(const admission *site, const cs_identity *identity)
{
    if (site == NULL)
        return cs_fail(CS_UNAUTHENTICATED, "site '%s' is not in this consortium's registry", identity->name);
    if (site->state == CS_SITE_REVOKED)
        return cs_fail(CS_DENIED, "site '%s' is revoked%s%s", identity->name, site->reason[0] != 0 ? ": " : "",
                       site->reason);
    if (site->state != CS_SITE_ENROLLED)
        return cs_fail(CS_DENIED, "site '%s' is %s, not enrolled", identity->name, state_names[site->state]);
    if (!cs_hash_equal(&site->leaf_key, &identity->public_key) &&
        !cs_hash_equal(&site->previous_leaf_key, &identity->public_key))
        return cs_fail(CS_UNAUTHENTICATED, "the certificate of site '%s' was replaced by a newer one", identity->name);
    return CS_OK;
}

/* snapshot_lock is held, for one binary search: cheaper than counting references. */
static const admission *find_admission(const char *name)
{
    return snapshot == NULL ? NULL
                            : bsearch(name, snapshot->sites, snapshot->count, sizeof snapshot->sites[0], compare_name);
}

bool cs_registry_is_newest(const cs_identity *identity)
{
    pthread_mutex_lock(&snapshot_lock);
    const admission *site = find_admission(identity->name);
    bool is_newest = site != NULL && cs_hash_equal(&site->leaf_key, &identity->public_key);
    pthread_mutex_unlock(&snapshot_lock);
    return is_newest;
}

cs_status cs_registry_admit(const cs_identity *identity)
{
    if (identity->role != CS_ROLE_SITE)
        return cs_fail(CS_DENIED, "the caller's certificate is the coordinator's, expected a site's");
    pthread_mutex_lock(&snapshot_lock);
    cs_status status = admit_site(find_admission(identity->name), identity);
    pthread_mutex_unlock(&snapshot_lock);
    return status;
}
