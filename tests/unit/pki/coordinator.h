/* A coordinator without its daemons: state folder, database, transcript, authority; and the sites that ask it. */
#ifndef CS_TESTS_UNIT_PKI_COORDINATOR_H
#define CS_TESTS_UNIT_PKI_COORDINATOR_H

#include "tests/unit/crypto/folder.h"

#include "client/agent/enrol.h"
#include "common/crypto/enrolfile.h"
#include "server/pki/pki.h"

#include <pthread.h>

#define NOW_MS  1780000000000LL /* May 2026 */
#define HOUR_MS (3600 * 1000LL)
#define DAY_MS  (24 * HOUR_MS)

typedef struct coordinator {
    char *folder;
    cs_server_config config;
    cs_store store;
    cs_transcript *transcript;
    cs_pki *pki;
    pthread_mutex_t engine_lock; /* stands in for the engine's thread */
} coordinator;

static CS_UNUSED void coordinator_open(coordinator *self)
{
    const char *const migrations[] = {cs_store_registry_v1};
    CS_AUTO(cs_string) database = cs_path_join(self->folder, "registry.db");
    CS_AUTO(cs_string) audit = cs_path_join(self->folder, "audit");
    must_be_ok(cs_db_open(database, migrations, 1, &self->store.db));
    must_be_ok(cs_transcript_open(audit, &self->transcript));
    must_be_ok(cs_pki_open(self->folder, &self->config, self->transcript, &self->pki));
    must_be_ok(cs_registry_publish(&self->store));
}

static CS_UNUSED void coordinator_close(coordinator *self)
{
    cs_pki_free(self->pki);
    cs_transcript_free(self->transcript);
    cs_db_free(self->store.db);
    self->pki = NULL;
    self->transcript = NULL;
    self->store.db = NULL;
}

/* The clock stands still at NOW_MS. */
static CS_UNUSED void coordinator_start(coordinator *self, const char *base)
{
    cs_clock_fake(1000, NOW_MS);
    CS_AUTO(cs_string) pattern = cs_path_join(base, "coordinator-XXXXXX");
    assert_non_null(mkdtemp(pattern));
    *self = (coordinator){.folder = cs_path_join(pattern, "state")};
    pthread_mutex_init(&self->engine_lock, NULL);
    self->config = (cs_server_config){.consortium = cs_strdup("cardiac-consortium"),
                                      .display_name = cs_strdup("Cardiac consortium"),
                                      .address = cs_strdup("localhost"),
                                      .port = 8443,
                                      .enrolment_port = 8444,
                                      .leaf_life_ms = 7 * DAY_MS};
    must_be_ok(cs_pki_init(self->folder, "Cardiac consortium", "localhost", 8443, 8444));
    coordinator_open(self);
}

static CS_UNUSED void coordinator_clear(coordinator *self)
{
    coordinator_close(self);
    cs_free(self->config.consortium);
    cs_free(self->config.display_name);
    cs_free(self->config.address);
    cs_free(self->folder);
    pthread_mutex_destroy(&self->engine_lock);
    cs_clock_real();
}

static CS_UNUSED cs_status coordinator_run(void *self, cs_status (*work)(void *argument, cs_store *store),
                                           void *argument)
{
    coordinator *owner = self;
    pthread_mutex_lock(&owner->engine_lock);
    cs_status status = work(argument, &owner->store);
    pthread_mutex_unlock(&owner->engine_lock);
    return status;
}

/* The text of a new join file. */
static CS_UNUSED void new_token(coordinator *self, const char *site, bool is_rejoin, const char *enrolment,
                                cs_buffer *ret)
{
    int64_t expires_ms = 0;
    cs_buffer_reset(ret);
    must_be_ok(
        cs_pki_token_new(self->pki, &self->store, site, is_rejoin, 0, "localhost:8443", enrolment, ret, &expires_ms));
}

static CS_UNUSED size_t count_of(const coordinator *self, const char *text)
{
    CS_AUTO(cs_string) path = cs_transcript_path(self->transcript);
    CS_AUTO(cs_buffer) content = CS_BUFFER_EMPTY;
    must_be_ok(cs_file_read_all(path, 1 << 20, &content));
    size_t count = 0;
    for (const char *at = strstr(cs_buffer_text(&content), text); at != NULL; at = strstr(at + 1, text))
        count++;
    return count;
}

#endif
