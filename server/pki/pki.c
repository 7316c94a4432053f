/* The authority's keys and the coordinator's own certificate: made by `init`, loaded by `run`, renewed once a minute if
 * need be. Main thread, except where pki.h says otherwise. */
#include "server/pki/internal.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/file.h"

#include <string.h>

#define KEYS_MODE        0700
#define CERTIFICATE_MODE 0644
#define CONFIG_MODE      0600
#define OWN_FILE         "coordinator.pem"

/* ---- issuing ---- */

typedef struct issuer {
    const cs_tls_key *key;
    cs_bytes pem;
    const char *consortium;
} issuer;

static cs_status issue(const issuer *by, cs_leaf_request *request, cs_buffer *ret_pem)
{
    request->consortium = by->consortium;
    request->now_ms = cs_clock_wall_ms();
    cs_crypto_random(request->serial, sizeof request->serial);
    return cs_leaf_issue(by->key, by->pem, request, ret_pem);
}

cs_status pki_issue_site(const cs_pki *pki, const char *site, cs_bytes csr, cs_buffer *ret_pem)
{
    issuer by = {pki->authority_key, cs_buffer_view(&pki->authority_pem), pki->consortium};
    cs_leaf_request request = {.csr_der = csr, .role = CS_ROLE_SITE, .name = site, .life_ms = pki->leaf_life_ms};
    return issue(&by, &request, ret_pem);
}

static bool is_this_machine(const char *address)
{
    return strcmp(address, "localhost") == 0 || strcmp(address, "127.0.0.1") == 0 || strcmp(address, "::1") == 0;
}

/* A new key and its certificate, for the coordinator's address. */
static cs_status issue_own(const issuer *by, const char *address, int64_t life_ms, cs_tls_key **ret_key,
                           cs_buffer *ret_pem)
{
    const char *const elsewhere[] = {address, NULL};
    static const char *const here[] = {"localhost", "127.0.0.1", "::1", NULL};
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_TRY(cs_tls_key_new(&key));
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_TRY(cs_csr_make(key, &csr));
    cs_leaf_request request = {.csr_der = cs_buffer_view(&csr),
                               .role = CS_ROLE_COORDINATOR,
                               .addresses = is_this_machine(address) ? here : elsewhere,
                               .life_ms = life_ms};
    CS_TRY(issue(by, &request, ret_pem));
    *ret_key = CS_TAKE(key);
    return CS_OK;
}

/* ---- init ---- */

/* "St. Mary's cardiac consortium" → "st-mary-s-cardiac-consortium" */
static cs_status short_name(const char *display_name, char ret[CS_NAME_MAX + 1])
{
    size_t size = 0;
    for (const char *at = display_name; *at != 0 && size < CS_NAME_MAX; at++) {
        char c = *at >= 'A' && *at <= 'Z' ? (char)(*at - 'A' + 'a') : *at;
        bool is_kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (is_kept)
            ret[size++] = c;
        else if (size > 0 && ret[size - 1] != '-')
            ret[size++] = '-';
    }
    while (size > 0 && ret[size - 1] == '-')
        size--;
    ret[size] = 0;
    if (size == 0)
        return cs_fail(CS_INVALID, "the name '%s' has no letter a-z and no digit to make a short name of",
                       display_name);
    return CS_OK;
}

static cs_status make_keys(const char *folder, const char *consortium, const char *display_name, const char *address)
{
    CS_AUTO(cs_string) authority_key_path = cs_path_join(folder, "authority.key");
    CS_AUTO(cs_string) authority_path = cs_path_join(folder, "authority.crt");
    CS_AUTO(cs_string) signing_path = cs_path_join(folder, "signing.key");
    CS_AUTO(cs_string) own_path = cs_path_join(folder, OWN_FILE);

    CS_AUTO_PTR(cs_tls_key) authority_key = NULL;
    CS_AUTO(cs_buffer) authority_pem = CS_BUFFER_EMPTY;
    CS_TRY(cs_tls_key_new(&authority_key));
    CS_TRY(cs_authority_make(authority_key, consortium, display_name, cs_clock_wall_ms(), &authority_pem));
    CS_AUTO_PTR(cs_tls_key) own_key = NULL;
    CS_AUTO(cs_buffer) own_pem = CS_BUFFER_EMPTY;
    issuer by = {authority_key, cs_buffer_view(&authority_pem), consortium};
    CS_TRY(issue_own(&by, address, CS_LEAF_LIFE_MS, &own_key, &own_pem));
    CS_AUTO_PTR(cs_sign_key) signing_key = cs_sign_key_new();

    CS_TRY(cs_folder_make(folder, KEYS_MODE));
    CS_TRY(cs_tls_key_save(authority_key, authority_key_path));
    CS_TRY(cs_file_write_atomic(authority_path, cs_buffer_view(&authority_pem), CERTIFICATE_MODE));
    CS_TRY(cs_sign_key_save(signing_key, signing_path));
    return cs_tls_pair_save(own_path, own_key, cs_buffer_view(&own_pem));
}

cs_status cs_pki_init(const char *state_folder, const char *display_name, const char *address, uint16_t port,
                      uint16_t enrolment_port)
{
    CS_AUTO(cs_string) keys = cs_path_join(state_folder, "keys");
    CS_AUTO(cs_string) unfinished = cs_path_join(state_folder, "keys.new");
    CS_AUTO(cs_string) config_path = cs_path_join(state_folder, "server.yaml");
    bool was_interrupted = cs_file_exists(unfinished);
    if (cs_file_exists(keys) || (cs_file_exists(config_path) && !was_interrupted))
        return cs_fail(CS_EXISTS, "%s is a coordinator's state directory already; another one needs another directory",
                       state_folder);
    char consortium[CS_NAME_MAX + 1];
    CS_TRY(short_name(display_name, consortium));

    CS_TRY(cs_folder_make(state_folder, KEYS_MODE));
    CS_TRY(cs_folder_remove(unfinished));
    cs_status status = make_keys(unfinished, consortium, display_name, address);
    if (status != CS_OK) {
        CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
        CS_IGNORE(cs_folder_remove(unfinished), "the next init removes it again");
        return cs_fail(status, "%s", sentence);
    }
    CS_FAILPOINT("pki.init");
    CS_AUTO(cs_string) config = cs_server_config_template(consortium, display_name, address, port, enrolment_port);
    CS_TRY(cs_file_write_atomic(config_path, cs_bytes_of_text(config), CONFIG_MODE));
    return cs_file_rename(unfinished, keys);
}

/* ---- open ---- */

static cs_status load_authority(cs_pki *pki)
{
    CS_AUTO(cs_string) key_path = cs_path_join(pki->folder, "keys/authority.key");
    CS_AUTO(cs_string) path = cs_path_join(pki->folder, "keys/authority.crt");
    CS_TRY(cs_tls_key_load(key_path, &pki->authority_key));
    CS_TRY(cs_file_read_all(path, CS_PEM_MAX_BYTES, &pki->authority_pem));
    cs_status status = cs_certificate_matches_key(cs_buffer_view(&pki->authority_pem), pki->authority_key);
    return status == CS_OK ? CS_OK : cs_wrap(status, "%s and authority.key", path);
}

static cs_status load_own(cs_pki *pki)
{
    CS_AUTO(cs_string) path = cs_path_join(pki->folder, "keys/" OWN_FILE);
    if (!cs_file_exists(path))
        return CS_OK; /* the authority's key is here: a new one is made at once */
    return cs_tls_pair_load(path, &pki->own_key, &pki->own_pem);
}

cs_status cs_pki_open(const char *state_folder, const cs_server_config *config, cs_transcript *transcript, cs_pki **ret)
{
    CS_TRY(cs_name_check(config->consortium, "consortium"));
    CS_AUTO_PTR(cs_pki) pki = cs_alloc(sizeof *pki);
    pthread_mutex_init(&pki->own_lock, NULL);
    pki->folder = cs_strdup(state_folder);
    memcpy(pki->consortium, config->consortium, strlen(config->consortium) + 1);
    pki->address = cs_strdup(config->address);
    bool is_v6 = strchr(config->address, ':') != NULL;
    pki->coordinator =
        config->port == 0 ? cs_strdup("") : cs_format(is_v6 ? "[%s]:%u" : "%s:%u", config->address, config->port);
    pki->leaf_life_ms = config->leaf_life_ms;
    pki->transcript = transcript;
    CS_TRY(load_authority(pki));
    CS_TRY(load_own(pki));
    bool has_changed = false;
    CS_TRY(cs_pki_renew_own(pki, &has_changed));
    *ret = CS_TAKE(pki);
    return CS_OK;
}

void cs_pki_free(cs_pki *pki)
{
    if (pki == NULL)
        return;
    cs_tls_key_free(pki->authority_key);
    cs_buffer_clear(&pki->authority_pem);
    cs_tls_key_free(pki->own_key);
    cs_buffer_clear(&pki->own_pem);
    pthread_mutex_destroy(&pki->own_lock);
    cs_free(pki->paces);
    cs_free(pki->folder);
    cs_free(pki->address);
    cs_free(pki->coordinator);
    cs_free(pki);
}

cs_bytes cs_pki_authority_pem(const cs_pki *pki)
{
    return cs_buffer_view(&pki->authority_pem);
}

const char *cs_pki_consortium(const cs_pki *pki)
{
    return pki->consortium;
}

/* ---- the coordinator's own certificate ---- */

/* At two thirds of the certificate's life, or of the configuration's where that has become shorter. */
static int64_t own_due_ms(const cs_pki *pki, const cs_identity *identity)
{
    int64_t issued_ms = identity->not_before_ms + CS_BACKDATE_MS;
    return CS_MIN(cs_identity_renew_at_ms(identity), issued_ms + pki->leaf_life_ms * 2 / 3);
}

/* Missing, ending, not valid by this clock, or for another address than the configuration's. */
static bool needs_own(const cs_pki *pki)
{
    cs_bytes pem = cs_buffer_view(&pki->own_pem);
    int64_t now_ms = cs_clock_wall_ms();
    cs_identity identity;
    return pki->own_key == NULL || cs_identity_read(pem, &identity) != CS_OK ||
           strcmp(identity.consortium, pki->consortium) != 0 ||
           cs_certificate_verify(pem, cs_buffer_view(&pki->authority_pem), now_ms) != CS_OK ||
           now_ms >= own_due_ms(pki, &identity) || !cs_certificate_covers(pem, pki->address);
}

cs_status cs_pki_renew_own(cs_pki *pki, bool *ret_changed)
{
    *ret_changed = false;
    if (!needs_own(pki)) /* only this thread changes what it looks at */
        return CS_OK;

    CS_AUTO(cs_string) path = cs_path_join(pki->folder, "keys/" OWN_FILE);
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_AUTO(cs_buffer) pem = CS_BUFFER_EMPTY;
    issuer by = {pki->authority_key, cs_buffer_view(&pki->authority_pem), pki->consortium};
    CS_TRY(issue_own(&by, pki->address, pki->leaf_life_ms, &key, &pem));
    CS_TRY(cs_tls_pair_save(path, key, cs_buffer_view(&pem)));
    CS_FAILPOINT("pki.own_renewed");
    cs_identity identity;
    CS_TRY(cs_identity_read(cs_buffer_view(&pem), &identity));
    CS_TRY(pki_record_append(pki, "certificate_renewed", NULL,
                             &(pki_record){.public_key = &identity.public_key, .certificate = &identity}));

    pthread_mutex_lock(&pki->own_lock);
    cs_tls_key *old_key = pki->own_key;
    cs_buffer old_pem = pki->own_pem;
    pki->own_key = CS_TAKE(key);
    pki->own_pem = pem;
    pthread_mutex_unlock(&pki->own_lock);
    pem = old_pem;
    key = old_key;
    *ret_changed = true;
    return CS_OK;
}

cs_status cs_pki_own_identity(cs_pki *pki, cs_buffer *ret_certificate_pem, cs_buffer *ret_key_pem)
{
    cs_buffer_reset(ret_certificate_pem);
    cs_buffer_reset(ret_key_pem);
    pthread_mutex_lock(&pki->own_lock);
    cs_buffer_append(ret_certificate_pem, pki->own_pem.data, pki->own_pem.size);
    cs_status status = cs_tls_key_write(pki->own_key, ret_key_pem);
    pthread_mutex_unlock(&pki->own_lock);
    return status;
}

cs_status cs_pki_own_not_after(cs_pki *pki, int64_t *ret_wall_ms)
{
    cs_identity identity;
    pthread_mutex_lock(&pki->own_lock);
    const cs_status status = cs_identity_read(cs_buffer_view(&pki->own_pem), &identity);
    pthread_mutex_unlock(&pki->own_lock);
    CS_TRY(status);
    *ret_wall_ms = identity.not_after_ms;
    return CS_OK;
}

/* ---- transcript ---- */

cs_status pki_record_append(const cs_pki *pki, const char *kind, const char *key, const pki_record *record)
{
    if (pki->transcript == NULL)
        return CS_OK;
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    if (record->site != NULL)
        cs_json_text(&json, "site", record->site);
    if (record->public_key != NULL)
        cs_json_hex(&json, "public_key", record->public_key->bytes, CS_HASH_BYTES);
    if (record->certificate != NULL) {
        char until[CS_TIME_TEXT_BYTES];
        cs_clock_format(record->certificate->not_after_ms, until);
        cs_json_hex(&json, "serial", record->certificate->serial, CS_SERIAL_BYTES);
        cs_json_text(&json, "valid_until", until);
    }
    if (record->reason != NULL)
        cs_json_text(&json, "reason", record->reason);
    cs_json_end(&json, '}');
    if (key != NULL)
        return cs_transcript_append_once(pki->transcript, kind, key, cs_buffer_view(&fields));
    uint64_t index = 0;
    return cs_transcript_append(pki->transcript, kind, cs_buffer_view(&fields), &index);
}
