/* How a site gets its identity and keeps it: join, online or through files, and renewal. Called by the commands on the
 * main thread and, for identity and renewal, by the agent; one thread at a time. Every file is written whole, in an
 * order in which a crash leaves a site that has joined or one that can ask again with the same keys. */
#include "client/agent/enrol.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/file.h"
#include "common/config/site.h"
#include "common/crypto/enrolfile.h"
#include "common/crypto/tls.h"
#include "common/wire/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIRST_LINE       "consilium join file"
#define PEM_BEGIN        "-----BEGIN CERTIFICATE-----"
#define PEM_END          "-----END CERTIFICATE-----"
#define FOLDER_MODE      0700
#define CERTIFICATE_MODE 0644
#define PRIVATE_MODE     0600
#define CONFIG_MODE      0640
#define JOIN_TIMEOUT_MS  30000
#define ANSWER_ARENA     (256 * 1024)
#define SITE_FILE_MAX    4096
#define REASON_SHOWN     400
#define LENGTH_BYTES     4

/* ---- `key: value` lines, of join files and of site.txt ---- */

typedef struct line_key {
    const char *name;
    char **value;
} line_key;

static cs_status take_line(const char *line, size_t size, size_t number, const char *source, const line_key *keys,
                           size_t keys_count)
{
    for (size_t i = 0; i < keys_count; i++) {
        size_t name_size = strlen(keys[i].name);
        if (size < name_size + 2 || memcmp(line, keys[i].name, name_size) != 0 || line[name_size] != ':' ||
            line[name_size + 1] != ' ')
            continue;
        if (*keys[i].value != NULL)
            return cs_fail(CS_INVALID, "%s:%zu: '%s' stands there twice", source, number, keys[i].name);
        *keys[i].value = cs_strndup(line + name_size + 2, size - name_size - 2);
        return CS_OK;
    }
    return cs_fail(CS_INVALID, "%s:%zu: expected a line 'key: value' with one of the known keys, found %zu other bytes",
                   source, number, size);
}

/* Reads lines from *at on, until the end or a line that begins with `until`, which *at points to then. */
static cs_status read_lines(const char **at, const char *end, const char *until, size_t first_number,
                            const char *source, const line_key *keys, size_t keys_count)
{
    for (size_t number = first_number; *at < end; number++) {
        const char *line = *at;
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL)
            stop = end;
        if (until != NULL && (size_t)(end - line) >= strlen(until) && memcmp(line, until, strlen(until)) == 0)
            break;
        size_t size = (size_t)(stop - line);
        if (size > 0 && line[size - 1] == '\r')
            size--;
        *at = stop < end ? stop + 1 : end;
        if (size > 0)
            CS_TRY(take_line(line, size, number, source, keys, keys_count));
    }
    for (size_t i = 0; i < keys_count; i++) {
        if (*keys[i].value == NULL)
            return cs_fail(CS_INVALID, "%s: the line '%s: …' is missing", source, keys[i].name);
    }
    return CS_OK;
}

/* ---- the join file ---- */

void cs_join_file_clear(cs_join_file *file)
{
    cs_free(file->site);
    cs_free(file->consortium);
    cs_free(file->coordinator);
    cs_free(file->enrolment);
    cs_buffer_clear(&file->authority_pem);
    cs_crypto_wipe(file->token, sizeof file->token);
    *file = (cs_join_file){0};
}

/* "2026-03-01T10:22:31.412Z" */
static cs_status parse_time(const char *text, const char *source, int64_t *ret_ms)
{
    struct tm parts = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    int64_t fraction_ms = 0;
    if (rest != NULL && rest[0] == '.' && strspn(rest + 1, "0123456789") == 3) {
        fraction_ms = strtol(rest + 1, NULL, 10);
        rest += 4;
    }
    if (rest == NULL || strcmp(rest, "Z") != 0)
        return cs_fail(CS_INVALID, "%s: expires: expected a time such as 2026-03-01T10:22:31.412Z, found '%.40s'",
                       source, text);
    *ret_ms = (int64_t)timegm(&parts) * 1000 + fraction_ms;
    return CS_OK;
}

/* Exactly the first certificate: what follows must not become a second authority. */
static cs_status take_authority(const char *at, const char *end, const char *source, cs_buffer *ret)
{
    const char *stop = at < end ? memmem(at, (size_t)(end - at), PEM_END, strlen(PEM_END)) : NULL;
    if (stop == NULL)
        return cs_fail(CS_INVALID, "%s: the authority's certificate, " PEM_BEGIN ", is missing or cut off", source);
    for (const char *c = at; c < stop + strlen(PEM_END); c++) {
        if (*c != '\r')
            cs_buffer_append(ret, c, 1);
    }
    cs_buffer_append_text(ret, "\n");
    return CS_OK;
}

static cs_status check_join_file(const cs_join_file *file, const char *source)
{
    char host[CS_HOST_BYTES];
    uint16_t port;
    cs_status status = cs_name_check(file->site, "site");
    if (status == CS_OK)
        status = cs_name_check(file->consortium, "consortium");
    if (status == CS_OK)
        status = cs_address_parse(file->coordinator, "coordinator", host, &port);
    if (status == CS_OK)
        status = cs_address_parse(file->enrolment, "enrolment", host, &port);
    return status == CS_OK ? CS_OK : cs_wrap(status, "%s", source);
}

cs_status cs_join_file_parse(cs_bytes text, const char *source, cs_join_file *ret)
{
    if (text.size > CS_JOIN_FILE_MAX_BYTES)
        return cs_fail(CS_INVALID, "%s: %zu bytes, a join file has at most %d", source, text.size,
                       CS_JOIN_FILE_MAX_BYTES);
    size_t first_size = strlen(FIRST_LINE);
    if (text.size <= first_size || memcmp(text.data, FIRST_LINE, first_size) != 0)
        return cs_fail(CS_INVALID, "%s: expected the first line '" FIRST_LINE "'", source);
    if (memchr(text.data, 0, text.size) != NULL)
        return cs_fail(CS_INVALID, "%s: not a text file", source);

    CS_AUTO(cs_join_file) file = {0};
    CS_AUTO(cs_string) token = NULL;
    CS_AUTO(cs_string) expires = NULL;
    const line_key keys[] = {{"site", &file.site},
                             {"consortium", &file.consortium},
                             {"coordinator", &file.coordinator},
                             {"enrolment", &file.enrolment},
                             {"token", &token},
                             {"expires", &expires}};
    const char *at = (const char *)text.data + first_size, *end = (const char *)text.data + text.size;
    cs_status status = read_lines(&at, end, PEM_BEGIN, 1, source, keys, CS_COUNT(keys));
    if (status == CS_OK)
        status = cs_token_parse(token, source, file.token);
    if (token != NULL)
        cs_crypto_wipe(token, strlen(token));
    CS_TRY(status);
    CS_TRY(take_authority(at, end, source, &file.authority_pem));
    CS_TRY(parse_time(expires, source, &file.expires_ms));
    CS_TRY(check_join_file(&file, source));
    *ret = file;
    file = (cs_join_file){0};
    return CS_OK;
}

static cs_status load_join_file(const char *path, cs_join_file *ret)
{
    CS_AUTO(cs_secret) text = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(path, CS_JOIN_FILE_MAX_BYTES, &text));
    return cs_join_file_parse(cs_buffer_view(&text), path, ret);
}

/* ---- keys/ ---- */

/* Paths inside keys/. */
typedef struct key_paths {
    char *folder, *signing, *pair, *join, *next, *authority, *site;
} key_paths;

static void key_paths_clear(key_paths *paths)
{
    cs_free(paths->folder);
    cs_free(paths->signing);
    cs_free(paths->pair);
    cs_free(paths->join);
    cs_free(paths->next);
    cs_free(paths->authority);
    cs_free(paths->site);
}

static key_paths key_paths_of(const char *state_folder)
{
    key_paths paths = {.folder = cs_path_join(state_folder, "keys")};
    paths.signing = cs_path_join(paths.folder, "signing.key");
    paths.pair = cs_path_join(paths.folder, "tls.pem");
    paths.join = cs_path_join(paths.folder, "join.key");
    paths.next = cs_path_join(paths.folder, "next.key");
    paths.authority = cs_path_join(paths.folder, "authority.crt");
    paths.site = cs_path_join(paths.folder, "site.txt");
    return paths;
}

typedef struct site_file {
    char *site, *consortium, *coordinator, *token;
} site_file;

static void site_file_clear(site_file *file)
{
    cs_free(file->site);
    cs_free(file->consortium);
    cs_free(file->coordinator);
    cs_free(file->token);
}

static cs_status load_site_file(const char *path, site_file *ret)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(path, SITE_FILE_MAX, &text));
    const line_key keys[] = {{"site", &ret->site},
                             {"consortium", &ret->consortium},
                             {"coordinator", &ret->coordinator},
                             {"token", &ret->token}};
    const char *at = cs_buffer_text(&text), *end = at + text.size;
    return read_lines(&at, end, NULL, 1, path, keys, CS_COUNT(keys));
}

static void token_hash_text(const cs_join_file *join, char out[CS_HASH_TEXT_BYTES])
{
    cs_hash hash = cs_sha256(cs_bytes_of(join->token, sizeof join->token));
    cs_hash_text(&hash, out);
}

/* The key that a request is for: the one that waits for its certificate, else a new one. Kept before it is shown to
 * anybody, so that a lost answer can be asked for again. */
static cs_status waiting_key(const char *path, cs_tls_key **ret)
{
    if (cs_file_exists(path))
        return cs_tls_key_load(path, ret);
    CS_AUTO_PTR(cs_tls_key) fresh = NULL;
    CS_TRY(cs_tls_key_new(&fresh));
    CS_TRY(cs_tls_key_save(fresh, path));
    *ret = CS_TAKE(fresh);
    return CS_OK;
}

/* A renewal that was interrupted after its last step leaves the key that is in use: that one is not used again. */
static cs_status forget_installed(const key_paths *paths)
{
    if (!cs_file_exists(paths->next))
        return CS_OK;
    CS_AUTO_PTR(cs_tls_key) waiting = NULL;
    CS_AUTO_PTR(cs_tls_key) current = NULL;
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_TRY(cs_tls_key_load(paths->next, &waiting));
    CS_TRY(cs_tls_pair_load(paths->pair, &current, &certificate));
    bool is_installed = cs_certificate_matches_key(cs_buffer_view(&certificate), waiting) == CS_OK;
    return is_installed ? cs_file_remove(paths->next) : CS_OK;
}

static cs_status signing_key(const key_paths *paths, cs_sign_key **ret)
{
    if (cs_file_exists(paths->signing))
        return cs_sign_key_load(paths->signing, ret);
    CS_AUTO_PTR(cs_sign_key) fresh = cs_sign_key_new();
    CS_TRY(cs_sign_key_save(fresh, paths->signing));
    *ret = CS_TAKE(fresh);
    return CS_OK;
}

/* ---- join ---- */

/* Whether this very file has been used here and its pair is in place; then only what is missing beside it is written.
 */
static bool has_joined(const key_paths *paths, const cs_join_file *join)
{
    CS_AUTO(site_file) site = {0};
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    char token[CS_HASH_TEXT_BYTES];
    token_hash_text(join, token);
    cs_identity leaf;
    return cs_file_exists(paths->signing) && load_site_file(paths->site, &site) == CS_OK &&
           strcmp(site.token, token) == 0 && cs_tls_pair_load(paths->pair, &key, &certificate) == CS_OK &&
           cs_identity_read(cs_buffer_view(&certificate), &leaf) == CS_OK && strcmp(leaf.name, join->site) == 0 &&
           cs_certificate_verify(cs_buffer_view(&certificate), cs_buffer_view(&join->authority_pem),
                                 cs_clock_wall_ms()) == CS_OK;
}

static cs_status check_leaf(cs_bytes certificate, const char *consortium, const char *site, cs_bytes authority)
{
    cs_identity leaf;
    CS_TRY(cs_identity_read(certificate, &leaf));
    if (leaf.role != CS_ROLE_SITE || strcmp(leaf.consortium, consortium) != 0 || strcmp(leaf.name, site) != 0)
        return cs_fail(CS_UNAUTHENTICATED,
                       "the certificate in the answer is for '%s' of '%s', expected site '%s' of '%s'", leaf.name,
                       leaf.consortium, site, consortium);
    return cs_certificate_verify(certificate, authority, cs_clock_wall_ms());
}

static cs_status write_site_file(const key_paths *paths, const cs_join_file *join, const char *coordinator)
{
    char token[CS_HASH_TEXT_BYTES];
    token_hash_text(join, token);
    CS_AUTO(cs_string) text = cs_format("site: %s\nconsortium: %s\ncoordinator: %s\ntoken: %s\n", join->site,
                                        join->consortium, coordinator, token);
    return cs_file_write_atomic(paths->site, cs_bytes_of_text(text), PRIVATE_MODE);
}

static char *config_path(const cs_join_options *options)
{
    return options->site_config != NULL ? cs_strdup(options->site_config)
                                        : cs_path_join(options->state_folder, "site.yaml");
}

static char *config_text(const cs_join_options *options, const char *site, const char *coordinator)
{
    return cs_site_config_template(&(cs_site_template){.site = site,
                                                       .coordinator = coordinator,
                                                       .proxy = options->proxy,
                                                       .proxy_login_file = options->proxy_login_file,
                                                       .datasets = options->datasets,
                                                       .datasets_count = options->datasets_count});
}

/* What a person said on the command line must not be dropped, nor be found wrong once the token is spent. */
static cs_status check_config(const cs_join_options *options, const cs_join_file *join)
{
    CS_AUTO(cs_string) path = config_path(options);
    CS_AUTO(cs_string) text = config_text(options, join->site, join->coordinator);
    CS_AUTO(cs_buffer) there = CS_BUFFER_EMPTY;
    if (options->datasets_count > 0 && cs_file_exists(path)) {
        CS_TRY(cs_file_read_all(path, CS_SITE_CONFIG_MAX_BYTES, &there));
        if (!cs_bytes_equal(cs_buffer_view(&there), cs_bytes_of_text(text)))
            return cs_fail(CS_EXISTS,
                           "%s is there already and is not changed: name the data sets in it, or move it away", path);
    }
    CS_AUTO_PTR(cs_site_config) config = NULL;
    return cs_site_config_read(cs_bytes_of_text(text), "the site.yaml that join would write", options->state_folder,
                               &config);
}

static cs_status write_config(const cs_join_options *options, const char *site, const char *coordinator)
{
    CS_AUTO(cs_string) path = config_path(options);
    if (cs_file_exists(path))
        return CS_OK;
    CS_AUTO(cs_string) text = config_text(options, site, coordinator);
    return cs_file_write_atomic(path, cs_bytes_of_text(text), CONFIG_MODE);
}

/* The pair is what makes a site joined; join.key goes last, so that until then everything can be asked for again. A
 * renewal that was under way is one of the keys that are replaced. */
static cs_status install_answer(const cs_join_options *options, const key_paths *paths, const cs_join_file *join,
                                const cs_tls_key *key, const Consilium__V1__EnrolAnswer *answer)
{
    char host[CS_HOST_BYTES];
    uint16_t port;
    const char *coordinator = answer->coordinator[0] != 0 ? answer->coordinator : join->coordinator;
    CS_TRY(cs_address_parse(coordinator, "the coordinator's address in the answer", host, &port));
    cs_bytes certificate = cs_wire_bytes(answer->certificate);
    CS_TRY(check_leaf(certificate, join->consortium, join->site, cs_buffer_view(&join->authority_pem)));

    CS_TRY(cs_certificate_matches_key(certificate, key));
    CS_TRY(cs_file_write_atomic(paths->authority, cs_buffer_view(&join->authority_pem), CERTIFICATE_MODE));
    CS_FAILPOINT("enrol.authority_written");
    CS_TRY(cs_tls_pair_save(paths->pair, key, certificate));
    CS_FAILPOINT("enrol.pair_written");
    CS_TRY(cs_file_remove(paths->next));
    CS_TRY(write_site_file(paths, join, coordinator));
    CS_TRY(cs_file_remove(paths->join));
    return write_config(options, join->site, coordinator);
}

/* What a peer wrote goes to a terminal: no control characters, not without end. */
static cs_status refused(const Consilium__V1__EnrolAnswer *answer)
{
    char reason[REASON_SHOWN + 1];
    snprintf(reason, sizeof reason, "%s", answer->error);
    for (char *c = reason; *c != 0; c++) {
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    }
    cs_status status = cs_status_from_code(answer->code);
    return cs_fail(status != CS_OK ? status : CS_UNKNOWN, "the coordinator refused: %s", reason);
}

static cs_status take_answer(const cs_join_options *options, const key_paths *paths, const cs_join_file *join,
                             const cs_tls_key *key, cs_bytes packed)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_ARENA);
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__enrol_answer__descriptor, packed, arena, &message));
    const Consilium__V1__EnrolAnswer *answer = (const Consilium__V1__EnrolAnswer *)message;
    if (answer->code != 0)
        return refused(answer);
    uint32_t minor = 0;
    uint64_t features = 0;
    CS_TRY(cs_wire_agree(answer->hello, &minor, &features));
    return install_answer(options, paths, join, key, answer);
}

static cs_status pack_request(const cs_join_file *join, const cs_tls_key *key, const cs_sign_key *signing,
                              cs_secret *ret)
{
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_TRY(cs_csr_make(key, &csr));
    CS_AUTO(cs_buffer) proof = CS_BUFFER_EMPTY;
    uint8_t signature[CS_SIGNATURE_BYTES];
    cs_enrol_proof_text(join->site, cs_bytes_of(join->token, sizeof join->token), cs_buffer_view(&csr), &proof);
    cs_sign(signing, cs_buffer_view(&proof), signature);

    Consilium__V1__EnrolRequest request = CONSILIUM__V1__ENROL_REQUEST__INIT;
    request.hello = cs_wire_hello();
    request.site = join->site;
    request.token = cs_wire_data(join->token, sizeof join->token);
    request.csr = cs_wire_data(csr.data, csr.size);
    request.signing_key = cs_wire_data(cs_sign_key_public(signing), CS_SIGN_PUBLIC_BYTES);
    request.proof = cs_wire_data(signature, sizeof signature);
    cs_wire_pack(&request.base, ret);
    return CS_OK;
}

/* One length-prefixed request, one length-prefixed answer. */
static cs_status exchange(const cs_join_options *options, const cs_join_file *join, cs_bytes request, cs_buffer *ret)
{
    char host[CS_HOST_BYTES];
    cs_tls_target target = {.host = host,
                            .proxy = options->proxy,
                            .proxy_login = options->proxy_login,
                            .authority_pem = cs_buffer_view(&join->authority_pem),
                            .timeout_ms = JOIN_TIMEOUT_MS};
    CS_TRY(cs_address_parse(join->enrolment, "enrolment", host, &target.port));
    CS_AUTO_PTR(cs_tls) tls = NULL;
    CS_TRY(cs_tls_connect(&target, &tls));

    uint8_t length[LENGTH_BYTES];
    cs_store_be32(length, (uint32_t)request.size);
    CS_TRY(cs_tls_write(tls, length, sizeof length));
    CS_TRY(cs_tls_write(tls, request.data, request.size));
    CS_FAILPOINT("enrol.asked");
    CS_TRY(cs_tls_read_exact(tls, length, sizeof length));
    uint32_t size = cs_load_be32(length);
    if (size == 0 || size > CS_ENROL_MESSAGE_MAX_BYTES)
        return cs_fail(CS_INVALID, "the coordinator's answer has %u bytes, expected 1 to %d", size,
                       CS_ENROL_MESSAGE_MAX_BYTES);
    CS_TRY(cs_buffer_reserve_peer(ret, size, "enrolment answer"));
    CS_TRY(cs_tls_read_exact(tls, ret->data, size));
    ret->size = size;
    return CS_OK;
}

/* Everything that comes before asking: the file, the folder, the keys. */
typedef struct joining {
    cs_join_file join;
    key_paths paths;
    cs_tls_key *key;
    cs_sign_key *signing;
    bool is_joined; /* already, with this file */
} joining;

static void joining_clear(joining *self)
{
    cs_join_file_clear(&self->join);
    key_paths_clear(&self->paths);
    cs_tls_key_free(self->key);
    cs_sign_key_free(self->signing);
}

static cs_status prepare(const cs_join_options *options, joining *self)
{
    CS_TRY(load_join_file(options->join_file, &self->join));
    CS_TRY(check_config(options, &self->join));
    self->paths = key_paths_of(options->state_folder);
    CS_TRY(cs_folder_make(options->state_folder, FOLDER_MODE));
    CS_TRY(cs_folder_make(self->paths.folder, FOLDER_MODE));
    self->is_joined = has_joined(&self->paths, &self->join);
    if (self->is_joined) {
        CS_TRY(
            cs_file_write_atomic(self->paths.authority, cs_buffer_view(&self->join.authority_pem), CERTIFICATE_MODE));
        return write_config(options, self->join.site, self->join.coordinator);
    }
    CS_TRY(signing_key(&self->paths, &self->signing));
    return waiting_key(self->paths.join, &self->key);
}

/* An expired token is still answered when it was used in time, by these keys; so the coordinator decides, and the date
 * is only said beside a refusal. */
cs_status cs_join(const cs_join_options *options)
{
    CS_AUTO(joining) self = {0};
    CS_TRY(prepare(options, &self));
    if (self.is_joined)
        return CS_OK;
    CS_AUTO(cs_secret) request = CS_BUFFER_EMPTY;
    CS_TRY(pack_request(&self.join, self.key, self.signing, &request));
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;
    CS_TRY(exchange(options, &self.join, cs_buffer_view(&request), &answer));
    CS_FAILPOINT("enrol.answered");
    return take_answer(options, &self.paths, &self.join, self.key, cs_buffer_view(&answer));
}

cs_status cs_join_request(const cs_join_options *options, const char *request_path)
{
    CS_AUTO(joining) self = {0};
    CS_TRY(prepare(options, &self));
    if (self.is_joined)
        return cs_fail(CS_STATE, "site '%s' has joined with %s already", self.join.site, options->join_file);
    CS_AUTO(cs_secret) request = CS_BUFFER_EMPTY;
    CS_TRY(pack_request(&self.join, self.key, self.signing, &request));
    CS_AUTO(cs_secret) text = CS_BUFFER_EMPTY;
    cs_enrol_file_write("request", cs_buffer_view(&request), &text);
    return cs_file_write_atomic(request_path, cs_buffer_view(&text), PRIVATE_MODE);
}

cs_status cs_join_answer(const cs_join_options *options, const char *answer_path)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;
    CS_TRY(cs_file_read_all(answer_path, CS_ENROL_FILE_MAX_BYTES, &text));
    cs_status status = cs_enrol_file_parse("answer", cs_buffer_view(&text), &answer);
    if (status != CS_OK)
        return cs_wrap(status, "%s", answer_path);
    CS_AUTO(joining) self = {0};
    CS_TRY(prepare(options, &self));
    if (self.is_joined)
        return CS_OK;
    return take_answer(options, &self.paths, &self.join, self.key, cs_buffer_view(&answer));
}

cs_status cs_join_authority_words(const cs_join_options *options, char **ret)
{
    CS_AUTO(cs_join_file) join = {0};
    CS_TRY(load_join_file(options->join_file, &join));
    return cs_certificate_words(cs_buffer_view(&join.authority_pem), ret);
}

/* ---- identity and renewal ---- */

void cs_site_identity_clear(cs_site_identity *identity)
{
    cs_free(identity->coordinator);
    cs_buffer_clear(&identity->certificate_pem);
    cs_buffer_wipe(&identity->key_pem);
    cs_buffer_clear(&identity->authority_pem);
    cs_sign_key_free(identity->signing_key);
    *identity = (cs_site_identity){0};
}

static cs_status load_pair(const key_paths *paths, cs_site_identity *ret)
{
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_TRY(cs_tls_pair_load(paths->pair, &key, &ret->certificate_pem));
    CS_TRY(cs_tls_key_write(key, &ret->key_pem));
    CS_TRY(cs_file_read_all(paths->authority, CS_PEM_MAX_BYTES, &ret->authority_pem));
    CS_TRY(cs_identity_read(cs_buffer_view(&ret->certificate_pem), &ret->leaf));
    /* Chain and purpose, as of a moment when the dates were right: an expired certificate is reported by who uses it.
     */
    return cs_certificate_verify(cs_buffer_view(&ret->certificate_pem), cs_buffer_view(&ret->authority_pem),
                                 ret->leaf.not_before_ms + CS_BACKDATE_MS);
}

cs_status cs_site_identity_load(const char *state_folder, cs_site_identity *ret)
{
    CS_AUTO(key_paths) paths = key_paths_of(state_folder);
    bool has_all = cs_file_exists(paths.pair) && cs_file_exists(paths.authority) && cs_file_exists(paths.site) &&
                   cs_file_exists(paths.signing);
    if (!has_all)
        return cs_fail(CS_STATE, "%s holds no identity of a site: run consilium-client join FILE", state_folder);
    CS_AUTO(cs_site_identity) identity = {0};
    CS_AUTO(site_file) site = {0};
    CS_TRY(load_site_file(paths.site, &site));
    CS_TRY(load_pair(&paths, &identity));
    CS_TRY(cs_sign_key_load(paths.signing, &identity.signing_key));
    if (identity.leaf.role != CS_ROLE_SITE || strcmp(identity.leaf.name, site.site) != 0 ||
        strcmp(identity.leaf.consortium, site.consortium) != 0)
        return cs_fail(CS_DATA_LOSS,
                       "%s is the certificate of '%s', %s says '%s': run consilium-client join FILE again", paths.pair,
                       identity.leaf.name, paths.site, site.site);
    memcpy(identity.site, identity.leaf.name, sizeof identity.site);
    memcpy(identity.consortium, identity.leaf.consortium, sizeof identity.consortium);
    identity.coordinator = CS_TAKE(site.coordinator);
    *ret = identity;
    identity = (cs_site_identity){0};
    return CS_OK;
}

cs_status cs_renewal_prepare(const char *state_folder, cs_buffer *ret_csr_der)
{
    CS_AUTO(key_paths) paths = key_paths_of(state_folder);
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_TRY(forget_installed(&paths));
    CS_TRY(waiting_key(paths.next, &key));
    return cs_csr_make(key, ret_csr_der);
}

cs_status cs_renewal_install(const char *state_folder, cs_bytes certificate_pem, cs_bytes authority_pem)
{
    CS_AUTO(key_paths) paths = key_paths_of(state_folder);
    CS_AUTO(cs_site_identity) current = {0};
    CS_TRY(cs_site_identity_load(state_folder, &current));
    CS_AUTO_PTR(cs_tls_key) key = NULL;
    CS_TRY(cs_tls_key_load(paths.next, &key));
    CS_TRY(check_leaf(certificate_pem, current.consortium, current.site, authority_pem));
    CS_FAILPOINT("enrol.renewal");
    CS_TRY(cs_tls_pair_save(paths.pair, key, certificate_pem)); /* refuses a certificate for another key */
    CS_FAILPOINT("enrol.renewed");
    return cs_file_remove(paths.next);
}
