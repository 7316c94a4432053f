/* Opens the coordinator's database with the schema of all its parts. Called once, by the engine at its start; the
 * handle then belongs to the engine's thread. */
#include "server/store/store.h"

/* Only ever appended to: the position of an entry is the version of the file. */
static const char *const migrations[] = {cs_store_registry_v1, cs_store_jobs_v1, cs_store_registry_v2};

cs_status cs_store_open(const char *path, cs_store **ret)
{
    CS_AUTO_PTR(cs_store) store = cs_alloc(sizeof(*store));
    CS_TRY(cs_db_open(path, migrations, CS_COUNT(migrations), &store->db));
    *ret = CS_TAKE(store);
    return CS_OK;
}

void cs_store_free(cs_store *store)
{
    if (!store)
        return;
    cs_db_free(store->db);
    cs_free(store);
}
