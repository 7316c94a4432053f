/* Who may fetch and store which blob: an immutable table that the engine replaces, and the blobs that are on their way
 * into the database and must not be collected. Asked by rpc threads, written by the engine's and the aggregation
 * thread. */
#include "server/engine/internal.h"

#include <inttypes.h>
#include <string.h>

/* A worker that repeats a task may come to other bytes, and a sealed blob is never the same twice; a site that goes on
 * making new ones is broken. */
#define GRANTS_PER_TASK_MAX (4 * CS_OUTPUTS_MAX)

struct grant {
    cs_hash hash;
    bool is_of_fold;
    bool is_settled;
    char site[CS_NAME_MAX + 1];
    char job[CS_NAME_MAX + 1];
    uint32_t round;
    char phase[CS_WORD_BYTES];
};

struct access {
    pthread_mutex_t table_mutex; /* guards everything below */
    struct access_entry *entries;
    size_t count;
    struct grant *grants;
    size_t grants_count;
    size_t grants_capacity;
};

struct access *access_new(void)
{
    struct access *access = cs_alloc(sizeof(*access));
    pthread_mutex_init(&access->table_mutex, NULL);
    return access;
}

void access_free(struct access *access)
{
    if (!access)
        return;
    pthread_mutex_destroy(&access->table_mutex);
    cs_free(access->entries);
    cs_free(access->grants);
    cs_free(access);
}

void access_publish(struct access *access, struct access_entry *entries, size_t count)
{
    pthread_mutex_lock(&access->table_mutex);
    struct access_entry *older = access->entries;
    access->entries = entries;
    access->count = count;
    pthread_mutex_unlock(&access->table_mutex);
    cs_free(older);
}

/* table_mutex is held. */
static const struct access_entry *find(const struct access *access, const char *site, const char *job, uint32_t round,
                                       const char *phase)
{
    for (size_t i = 0; i < access->count; i++) {
        const struct access_entry *entry = &access->entries[i];
        if (entry->round == round && strcmp(entry->site, site) == 0 && strcmp(entry->job, job) == 0 &&
            strcmp(entry->phase, phase) == 0)
            return entry;
    }
    return NULL;
}

static cs_status no_such_task(const char *site, const Consilium__V1__TaskKey *task)
{
    return cs_fail(CS_NOT_FOUND, "site '%s' has no open task '%.31s' in round %" PRIu32 " of job '%.63s'", site,
                   task->phase, task->round, task->job);
}

cs_status access_may_fetch(struct access *access, const char *site, const Consilium__V1__TaskKey *task,
                           const cs_hash *blob)
{
    pthread_mutex_lock(&access->table_mutex);
    const struct access_entry *entry = find(access, site, task->job, task->round, task->phase);
    bool is_input = false;
    for (size_t i = 0; entry && i < entry->inputs_count; i++)
        is_input = is_input || cs_hash_equal(&entry->inputs[i], blob);
    pthread_mutex_unlock(&access->table_mutex);

    if (!entry)
        return no_such_task(site, task);
    char hash[CS_HASH_TEXT_BYTES];
    cs_hash_text(blob, hash);
    return is_input ? CS_OK : cs_fail(CS_DENIED, "blob %s is no input of task '%.31s'", hash, task->phase);
}

/* table_mutex is held. */
static struct grant *push_grant(struct access *access, const cs_hash *blob)
{
    if (access->grants_count == access->grants_capacity) {
        access->grants_capacity = CS_MAX(2 * access->grants_capacity, (size_t)16);
        access->grants = cs_realloc(access->grants, access->grants_capacity * sizeof(*access->grants));
    }
    struct grant *grant = &access->grants[access->grants_count++];
    *grant = (struct grant){.hash = *blob};
    return grant;
}

static bool is_of_entry(const struct grant *grant, const struct access_entry *entry)
{
    return !grant->is_of_fold && grant->round == entry->round && strcmp(grant->site, entry->site) == 0 &&
           strcmp(grant->job, entry->job) == 0 && strcmp(grant->phase, entry->phase) == 0;
}

/* table_mutex is held. */
static cs_status grant_store(struct access *access, const struct access_entry *entry, const cs_hash *blob)
{
    size_t granted = 0;
    for (size_t i = 0; i < access->grants_count; i++) {
        if (!is_of_entry(&access->grants[i], entry))
            continue;
        if (cs_hash_equal(&access->grants[i].hash, blob))
            return CS_OK;
        granted++;
    }
    if (granted >= GRANTS_PER_TASK_MAX)
        return cs_fail(CS_DENIED, "task '%s' in round %" PRIu32 " has stored %zu different blobs, the most is %d",
                       entry->phase, entry->round, granted, GRANTS_PER_TASK_MAX);
    struct grant *grant = push_grant(access, blob);
    memcpy(grant->site, entry->site, sizeof(grant->site));
    memcpy(grant->job, entry->job, sizeof(grant->job));
    memcpy(grant->phase, entry->phase, sizeof(grant->phase));
    grant->round = entry->round;
    return CS_OK;
}

cs_status access_may_store(struct access *access, const char *site, const Consilium__V1__TaskKey *task,
                           const cs_hash *blob, uint64_t size)
{
    pthread_mutex_lock(&access->table_mutex);
    const struct access_entry *entry = find(access, site, task->job, task->round, task->phase);
    const uint64_t most = entry ? entry->output_max_bytes : 0;
    cs_status status = CS_OK;
    if (!entry)
        status = no_such_task(site, task);
    else if (most == 0)
        status = cs_fail(CS_DENIED, "task '%s' returns no blob", entry->phase);
    else if (size == 0 || size > most)
        status = cs_fail(CS_DENIED, "a blob of %" PRIu64 " bytes, task '%s' may return 1 to %" PRIu64, size,
                         entry->phase, most);
    else
        status = grant_store(access, entry, blob);
    pthread_mutex_unlock(&access->table_mutex);
    return status;
}

void access_hold(struct access *access, const cs_hash *blob)
{
    pthread_mutex_lock(&access->table_mutex);
    push_grant(access, blob)->is_of_fold = true;
    pthread_mutex_unlock(&access->table_mutex);
}

void access_settle(struct access *access, const cs_hash *blob)
{
    pthread_mutex_lock(&access->table_mutex);
    for (size_t i = 0; i < access->grants_count; i++) {
        struct grant *grant = &access->grants[i];
        if (grant->is_of_fold && cs_hash_equal(&grant->hash, blob))
            grant->is_settled = true;
    }
    pthread_mutex_unlock(&access->table_mutex);
}

void access_prune(struct access *access)
{
    pthread_mutex_lock(&access->table_mutex);
    size_t kept = 0;
    for (size_t i = 0; i < access->grants_count; i++) {
        const struct grant *grant = &access->grants[i];
        const bool is_needed = grant->is_of_fold
                                   ? !grant->is_settled
                                   : find(access, grant->site, grant->job, grant->round, grant->phase) != NULL;
        if (is_needed)
            access->grants[kept++] = *grant;
    }
    access->grants_count = kept;
    pthread_mutex_unlock(&access->table_mutex);
}

bool access_is_held(struct access *access, const cs_hash *blob)
{
    pthread_mutex_lock(&access->table_mutex);
    bool is_held = false;
    for (size_t i = 0; i < access->grants_count && !is_held; i++)
        is_held = cs_hash_equal(&access->grants[i].hash, blob);
    pthread_mutex_unlock(&access->table_mutex);
    return is_held;
}
