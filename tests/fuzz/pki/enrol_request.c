/* What a stranger can say on the enrolment port: any bytes as an EnrolRequest, to a coordinator that has one open
 * token. Who does not know the token, or whose proof does not hold, gets a sentence and nothing else. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/crypto/tls.h"
#include "server/pki/pki.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW_MS       1780000000000LL /* May 2026 */
#define BUDGET_BYTES (512 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    cs_pki *pki;
    cs_store store;
    cs_string folder;
} at;

static void must(cs_status status)
{
    if (status != CS_OK) {
        fprintf(stderr, "%s\n", cs_error_text());
        abort();
    }
}

static void clean_up(void)
{
    cs_pki_free(at.pki);
    cs_db_free(at.store.db);
    CS_IGNORE(cs_folder_remove(at.folder), "a folder in /tmp stays behind");
    cs_string_clear(&at.folder);
}

/* The token is 32 times 'T', so that the corpus can hold requests that are right. */
static void start(void)
{
    const char *const migrations[] = {cs_store_registry_v1};
    char consortium[] = "cardiac", name[] = "Cardiac", address[] = "localhost";
    const cs_server_config config = {.consortium = consortium,
                                     .display_name = name,
                                     .address = address,
                                     .port = 8443,
                                     .enrolment_port = 8444,
                                     .leaf_life_ms = CS_LEAF_LIFE_MS};
    char pattern[] = "/tmp/consilium-fuzz-XXXXXX";
    uint8_t token[CS_TOKEN_BYTES];
    memset(token, 'T', sizeof token);
    must(cs_crypto_start());
    cs_clock_fake(1000, NOW_MS);
    if (mkdtemp(pattern) == NULL)
        abort();
    at.folder = cs_strdup(pattern);
    atexit(clean_up);
    CS_AUTO(cs_string) state = cs_path_join(at.folder, "state");
    CS_AUTO(cs_string) database = cs_path_join(at.folder, "registry.db");
    must(cs_pki_init(state, "Cardiac", "localhost", 8443, 8444));
    must(cs_pki_open(state, &config, NULL, &at.pki));
    must(cs_db_open(database, migrations, 1, &at.store.db));
    must(cs_registry_put(&at.store, &(cs_site_record){.name = "mercy", .state = CS_SITE_INVITED}));
    must(cs_token_put(&at.store, &(cs_token_record){.token = cs_sha256(cs_bytes_of(token, sizeof token)),
                                                    .site = "mercy",
                                                    .expires_ms = NOW_MS + 1000}));
    must(cs_db_run(at.store.db, "BEGIN", "")); /* never committed: each input finds the same coordinator */
}

static void check_certificate(const Consilium__V1__EnrolRequest *request, const Consilium__V1__EnrolAnswer *answer)
{
    cs_identity identity;
    cs_hash key;
    must(cs_identity_read(cs_wire_bytes(answer->certificate), &identity));
    must(cs_csr_check(cs_wire_bytes(request->csr), &key));
    if (identity.role != CS_ROLE_SITE || strcmp(identity.name, "mercy") != 0 ||
        !cs_hash_equal(&identity.public_key, &key))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (at.pki == NULL)
        start();
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(BUDGET_BYTES);
    ProtobufCMessage *message = NULL;
    if (cs_wire_unpack(&consilium__v1__enrol_request__descriptor, cs_bytes_of(data, size), arena, &message) != CS_OK)
        return 0;
    const Consilium__V1__EnrolRequest *request = (const Consilium__V1__EnrolRequest *)message;
    Consilium__V1__EnrolAnswer *answer = NULL;
    must(cs_db_run(at.store.db, "SAVEPOINT input", ""));
    cs_pki_enrol(at.pki, &at.store, request, arena, &answer);
    must(cs_db_run(at.store.db, "ROLLBACK TO input", ""));
    must(cs_db_run(at.store.db, "RELEASE input", ""));
    if (answer->code == CS_OK)
        check_certificate(request, answer);
    else if (answer->error[0] == 0 || answer->certificate.len > 0)
        abort();
    return 0;
}
