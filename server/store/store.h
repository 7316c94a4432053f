/* The coordinator's database. Opened by `run`; used by the engine's thread only. Each part of the schema stands with
 * its queries: registry.h (sites, certificates, tokens) and jobs.h (jobs, rounds, tasks, results, events). */
#ifndef CS_STORE_STORE_H
#define CS_STORE_STORE_H

#include "common/db/db.h"

typedef struct cs_store {
    cs_db *db;
    uint64_t changes; /* of the registry: when it rises, somebody may have come, gone or changed keys */
} cs_store;

CS_MUST_CHECK cs_status cs_store_open(const char *path, cs_store **ret);
void cs_store_free(cs_store *store);
CS_DEFINE_AUTO_PTR(cs_store)

/* SQL of the parts, in the order in which they are applied; new versions are appended to store.c's list, never edited.
 */
extern const char cs_store_registry_v1[];
extern const char cs_store_jobs_v1[];
extern const char cs_store_registry_v2[];

#endif
