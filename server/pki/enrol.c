/* Who belongs to the consortium: tokens, enrolment, renewal, revocation. Engine's thread. What is decided is committed,
 * then recorded in the transcript, then answered; a decision that was interrupted in between is repeated by the site
 * and completed then. */
#include "server/pki/internal.h"

#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/crypto/enrolfile.h"

#include <stdio.h>
#include <string.h>

#define RECORD_KEY_BYTES 128
/* Lost answers and restarts are no reason for more, in an hour or in the life of a certificate, if that is shorter. */
#define RENEWALS_MOST      10
#define RENEWALS_WITHIN_MS (3600 * 1000LL)

/* ---- one transaction for site and token ---- */

/* A savepoint, because the engine may have a transaction open around this work. */
static cs_status commit_enrolment(cs_store *store, const cs_site_record *site, const cs_token_record *token)
{
    CS_TRY(cs_db_run(store->db, "SAVEPOINT enrolment", ""));
    cs_status status = cs_registry_put(store, site);
    if (status == CS_OK)
        status = cs_token_put(store, token);
    if (status == CS_OK)
        status = cs_db_run(store->db, "RELEASE enrolment", "");
    if (status == CS_OK)
        return CS_OK;
    CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
    CS_IGNORE(cs_db_run(store->db, "ROLLBACK TO enrolment", ""), "the failure that is reported came first");
    CS_IGNORE(cs_db_run(store->db, "RELEASE enrolment", ""), "the failure that is reported came first");
    return cs_fail(status, "%s", sentence);
}

/* ---- tokens ---- */

/* The site as it is, or as a new name is entered. */
static cs_status find_invited(cs_store *store, const char *site, bool is_rejoin, cs_site_record *ret)
{
    cs_status status = cs_registry_find(store, site, ret);
    if (status == CS_NOT_FOUND) {
        if (is_rejoin)
            return cs_fail(CS_NOT_FOUND, "no site '%s' has ever enrolled here; a first token goes without --rejoin",
                           site);
        *ret = (cs_site_record){.state = CS_SITE_INVITED};
        memcpy(ret->name, site, strlen(site) + 1);
        return CS_OK;
    }
    CS_TRY(status);
    if (ret->state == CS_SITE_INVITED && is_rejoin)
        return cs_fail(CS_STATE, "site '%s' is invited and has not enrolled yet; a first token goes without --rejoin",
                       site);
    if (ret->state != CS_SITE_INVITED && !is_rejoin)
        return cs_fail(CS_EXISTS, "site '%s' is %s; a token that replaces its keys needs --rejoin", site,
                       ret->state == CS_SITE_ENROLLED ? "enrolled" : "revoked");
    return CS_OK;
}

static void write_join_file(const cs_pki *pki, const char *site, const uint8_t token[CS_TOKEN_BYTES],
                            int64_t expires_ms, const char *coordinator, const char *enrolment, cs_buffer *ret)
{
    char token_text[CS_TOKEN_TEXT_BYTES], expires[CS_TIME_TEXT_BYTES];
    cs_token_text(token, token_text);
    cs_clock_format(expires_ms, expires);
    cs_buffer_printf(ret,
                     "consilium join file\n"
                     "site: %s\n"
                     "consortium: %s\n"
                     "coordinator: %s\n"
                     "enrolment: %s\n"
                     "token: %s\n"
                     "expires: %s\n",
                     site, pki->consortium, coordinator, enrolment, token_text, expires);
    cs_buffer_append(ret, pki->authority_pem.data, pki->authority_pem.size);
    cs_crypto_wipe(token_text, sizeof token_text);
}

static void record_key(char out[RECORD_KEY_BYTES], const char *kind, const cs_hash *token, const char *detail)
{
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(token, hex);
    snprintf(out, RECORD_KEY_BYTES, "%s/%s/%s", kind, hex, detail);
}

cs_status cs_pki_token_new(cs_pki *pki, cs_store *store, const char *site, bool is_rejoin, int64_t valid_ms,
                           const char *coordinator, const char *enrolment, cs_buffer *ret_join_file,
                           int64_t *ret_expires_ms)
{
    CS_TRY(cs_name_check(site, "site"));
    if (valid_ms < 0 || valid_ms > CS_TOKEN_VALID_MAX_MS)
        return cs_fail(CS_INVALID, "a token is valid for at most %lld days", CS_TOKEN_VALID_MAX_MS / CS_TOKEN_VALID_MS);
    cs_site_record record;
    CS_TRY(find_invited(store, site, is_rejoin, &record));

    uint8_t secret[CS_TOKEN_BYTES];
    cs_crypto_random(secret, sizeof secret);
    cs_token_record token = {.token = cs_sha256(cs_bytes_of(secret, sizeof secret)), .is_rejoin = is_rejoin};
    memcpy(token.site, site, strlen(site) + 1);
    token.expires_ms = cs_clock_wall_ms() + (valid_ms == 0 ? CS_TOKEN_VALID_MS : valid_ms);
    write_join_file(pki, site, secret, token.expires_ms, coordinator, enrolment, ret_join_file);
    cs_crypto_wipe(secret, sizeof secret);
    CS_TRY(cs_token_withdraw(store, site));
    CS_TRY(commit_enrolment(store, &record, &token));
    CS_FAILPOINT("pki.token_made");

    char key[RECORD_KEY_BYTES];
    record_key(key, "token_created", &token.token, "");
    *ret_expires_ms = token.expires_ms;
    return pki_record_append(pki, "token_created", key,
                             &(pki_record){.site = site, .reason = is_rejoin ? "rejoin" : "join"});
}

/* ---- enrolment ---- */

typedef struct enrolment {
    const Consilium__V1__EnrolRequest *request;
    int64_t now_ms;
    bool is_token_known;
    const char
        *refusal; /* short name of what was wrong: one record for each kind and token, however often it is tried */
    cs_token_record token;
    cs_hash leaf_key;
    cs_identity certificate;
    cs_buffer certificate_pem;
} enrolment;

static void enrolment_clear(enrolment *owner)
{
    cs_token_record_clear(&owner->token);
    cs_buffer_clear(&owner->certificate_pem);
}

static cs_status check_form(const Consilium__V1__EnrolRequest *request)
{
    uint32_t minor = 0;
    uint64_t features = 0;
    CS_TRY(cs_wire_agree(request->hello, &minor, &features));
    CS_TRY(cs_name_check(request->site, "site"));
    if (request->token.len != CS_TOKEN_BYTES)
        return cs_fail(CS_INVALID, "the request's token has %zu bytes, expected %d", request->token.len,
                       CS_TOKEN_BYTES);
    if (request->signing_key.len != CS_SIGN_PUBLIC_BYTES)
        return cs_fail(CS_INVALID, "the request's signing key has %zu bytes, expected %d", request->signing_key.len,
                       CS_SIGN_PUBLIC_BYTES);
    return CS_OK;
}

static cs_status find_token(enrolment *self, cs_store *store)
{
    cs_hash hash = cs_sha256(cs_wire_bytes(self->request->token));
    cs_status status = cs_token_find(store, &hash, &self->token);
    if (status == CS_NOT_FOUND)
        return cs_fail(CS_DENIED, "the token is not known here: it was never made, or a newer one has replaced it");
    CS_TRY(status);
    self->is_token_known = true;
    return CS_OK;
}

/* The request belongs to the token's site, and both keys in it to the one who sent it. */
static cs_status check_request(enrolment *self)
{
    const Consilium__V1__EnrolRequest *request = self->request;
    self->refusal = "site";
    if (strcmp(self->token.site, request->site) != 0)
        return cs_fail(CS_DENIED, "the token is for site '%s', not for '%s'", self->token.site, request->site);
    self->refusal = "request";
    CS_TRY(cs_csr_check(cs_wire_bytes(request->csr), &self->leaf_key));
    self->refusal = "proof";
    CS_AUTO(cs_buffer) proof = CS_BUFFER_EMPTY;
    cs_enrol_proof_text(request->site, cs_wire_bytes(request->token), cs_wire_bytes(request->csr), &proof);
    return cs_sign_verify(request->signing_key.data, cs_buffer_view(&proof), cs_wire_bytes(request->proof),
                          "the request's proof");
}

/* The answer may have been lost: the same keys get the same certificate, for as long as it lives. */
static cs_status repeat(enrolment *self, cs_store *store)
{
    const cs_token_record *token = &self->token;
    self->refusal = "keys";
    if (!cs_hash_equal(&token->used_leaf_key, &self->leaf_key) ||
        memcmp(token->used_signing_key, self->request->signing_key.data, CS_SIGN_PUBLIC_BYTES) != 0)
        return cs_fail(CS_DENIED,
                       "the token of site '%s' was used already, with other keys; a site that lost its keys comes back "
                       "with a token made with --rejoin",
                       token->site);
    self->refusal = "state";
    cs_site_record site;
    CS_TRY(cs_registry_find(store, token->site, &site));
    if (site.state != CS_SITE_ENROLLED)
        return cs_fail(CS_DENIED, "site '%s' is revoked; it comes back with a token made with --rejoin", token->site);
    CS_TRY(cs_identity_read(cs_buffer_view(&token->certificate_pem), &self->certificate));
    self->refusal = "ended";
    if (self->now_ms >= self->certificate.not_after_ms)
        return cs_fail(CS_DENIED,
                       "the certificate that this token gave has expired; site '%s' comes back with a token made with "
                       "--rejoin",
                       token->site);
    cs_buffer_append(&self->certificate_pem, token->certificate_pem.data, token->certificate_pem.size);
    return CS_OK;
}

static cs_status check_first_use(enrolment *self, cs_store *store, cs_site_record *ret)
{
    const cs_token_record *token = &self->token;
    self->refusal = "expired";
    if (self->now_ms >= token->expires_ms) {
        char expired[CS_TIME_TEXT_BYTES];
        cs_clock_format(token->expires_ms, expired);
        return cs_fail(CS_DENIED, "the token of site '%s' expired at %s; ask the operator for another", token->site,
                       expired);
    }
    self->refusal = "state";
    CS_TRY(cs_registry_find(store, token->site, ret));
    if (ret->state != CS_SITE_INVITED && !token->is_rejoin)
        return cs_fail(CS_DENIED, "site '%s' has enrolled before; its keys are replaced by a token made with --rejoin",
                       token->site);
    return CS_OK;
}

static cs_status admit(enrolment *self, const cs_pki *pki, cs_store *store)
{
    cs_site_record site;
    CS_TRY(check_first_use(self, store, &site));
    self->refusal = "issue";
    CS_TRY(pki_issue_site(pki, self->token.site, cs_wire_bytes(self->request->csr), &self->certificate_pem));
    CS_TRY(cs_identity_read(cs_buffer_view(&self->certificate_pem), &self->certificate));

    site.state = CS_SITE_ENROLLED;
    site.reason[0] = 0;
    memcpy(site.signing_key, self->request->signing_key.data, CS_SIGN_PUBLIC_BYTES);
    site.leaf_key = self->leaf_key;
    site.previous_leaf_key = (cs_hash){0}; /* keys of before a rejoin are never admitted again */
    site.certificate_not_after_ms = self->certificate.not_after_ms;
    site.enrolled_ms = self->now_ms;
    self->token.is_used = true;
    self->token.used_leaf_key = self->leaf_key;
    memcpy(self->token.used_signing_key, self->request->signing_key.data, CS_SIGN_PUBLIC_BYTES);
    cs_buffer_reset(&self->token.certificate_pem);
    cs_buffer_append(&self->token.certificate_pem, self->certificate_pem.data, self->certificate_pem.size);
    CS_TRY(commit_enrolment(store, &site, &self->token));
    return cs_registry_publish(store);
}

static cs_status decide(enrolment *self, const cs_pki *pki, cs_store *store)
{
    CS_TRY(check_form(self->request));
    CS_TRY(find_token(self, store));
    CS_TRY(check_request(self));
    if (self->token.is_used)
        CS_TRY(repeat(self, store));
    else
        CS_TRY(admit(self, pki, store));
    CS_FAILPOINT("pki.enrolled");

    char key[RECORD_KEY_BYTES];
    record_key(key, "enrolled", &self->token.token, "");
    return pki_record_append(
        pki, "enrolled", key,
        &(pki_record){.site = self->token.site, .public_key = &self->leaf_key, .certificate = &self->certificate});
}

/* Only for those who know a token: others could fill the disk with records. */
static void record_refusal(const enrolment *self, const cs_pki *pki, const char *reason)
{
    if (!self->is_token_known)
        return;
    char key[RECORD_KEY_BYTES];
    record_key(key, "enrol_refused", &self->token.token, self->refusal);
    pki_record record = {.site = self->token.site, .reason = reason};
    if (!cs_hash_is_zero(&self->leaf_key))
        record.public_key = &self->leaf_key;
    CS_IGNORE(pki_record_append(pki, "enrol_refused", key, &record), "refused all the same");
}

static bool fill_answer(Consilium__V1__EnrolAnswer *answer, const cs_pki *pki, const enrolment *self, cs_arena *arena)
{
    const cs_buffer *certificate = &self->certificate_pem, *authority = &pki->authority_pem;
    answer->certificate = cs_wire_data(cs_arena_copy(arena, certificate->data, certificate->size), certificate->size);
    answer->authority = cs_wire_data(cs_arena_copy(arena, authority->data, authority->size), authority->size);
    answer->consortium = cs_arena_strdup(arena, pki->consortium);
    answer->coordinator = cs_arena_strdup(arena, pki->coordinator);
    return answer->certificate.data != NULL && answer->authority.data != NULL && answer->consortium != NULL &&
           answer->coordinator != NULL;
}

/* The answer for which no memory is needed. */
static Consilium__V1__EnrolAnswer exhausted = CONSILIUM__V1__ENROL_ANSWER__INIT;

static void make_exhausted(void)
{
    static char sentence[] = "the coordinator has no memory for an answer; try again";
    exhausted.hello = cs_wire_hello();
    exhausted.code = CS_EXHAUSTED;
    exhausted.error = sentence;
}

void cs_pki_enrol(cs_pki *pki, cs_store *store, const Consilium__V1__EnrolRequest *request, cs_arena *arena,
                  Consilium__V1__EnrolAnswer **ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_exhausted);
    *ret = &exhausted;

    CS_AUTO(enrolment) self = {.request = request, .now_ms = cs_clock_wall_ms(), .refusal = "form"};
    Consilium__V1__EnrolAnswer *answer = cs_arena_alloc(arena, sizeof *answer);
    if (answer == NULL)
        return;
    consilium__v1__enrol_answer__init(answer);
    answer->hello = cs_wire_hello();
    cs_status status = decide(&self, pki, store);
    if (status == CS_OK) {
        if (fill_answer(answer, pki, &self, arena))
            *ret = answer;
        return;
    }
    answer->code = status;
    answer->error = cs_arena_strdup(arena, cs_error_text());
    if (answer->error == NULL)
        return;
    record_refusal(&self, pki, answer->error);
    *ret = answer;
}

/* ---- renewal and revocation ---- */

/* The call was admitted when it began; it may have waited since, for days, through a rejoin with other keys. */
static cs_status check_renewing(const cs_site_record *site, const cs_identity *identity)
{
    if (site->state != CS_SITE_ENROLLED)
        return cs_fail(CS_DENIED, "site '%s' is %s: its certificate is not renewed", site->name,
                       site->state == CS_SITE_REVOKED ? "revoked" : "not enrolled");
    if (!cs_hash_equal(&site->leaf_key, &identity->public_key) &&
        !cs_hash_equal(&site->previous_leaf_key, &identity->public_key))
        return cs_fail(CS_UNAUTHENTICATED, "the certificate of site '%s' was replaced by a newer one", site->name);
    if (cs_clock_wall_ms() >= identity->not_after_ms)
        return cs_fail(CS_UNAUTHENTICATED,
                       "the certificate of site '%s' has run out: it comes back with a token made "
                       "with --rejoin",
                       site->name);
    return CS_OK;
}

static pki_pace *pace_of(cs_pki *pki, const char *site)
{
    for (size_t i = 0; i < pki->paces_count; i++) {
        if (strcmp(pki->paces[i].site, site) == 0)
            return &pki->paces[i];
    }
    pki->paces = cs_realloc(pki->paces, (pki->paces_count + 1) * sizeof *pki->paces);
    pki_pace *pace = &pki->paces[pki->paces_count++];
    *pace = (pki_pace){.since_ms = cs_clock_monotonic_ms()};
    snprintf(pace->site, sizeof pace->site, "%s", site);
    return pace;
}

static cs_status check_pace(cs_pki *pki, const char *site)
{
    pki_pace *pace = pace_of(pki, site);
    int64_t within_ms = CS_MIN(RENEWALS_WITHIN_MS, pki->leaf_life_ms);
    int64_t now_ms = cs_clock_monotonic_ms();
    if (now_ms - pace->since_ms >= within_ms) {
        pace->since_ms = now_ms;
        pace->count = 0;
    }
    if (pace->count == RENEWALS_MOST)
        return cs_fail(CS_EXHAUSTED, "site '%s' renewed its certificate %d times within %lld s; it may again in %lld s",
                       site, RENEWALS_MOST, (long long)within_ms / 1000,
                       (long long)(pace->since_ms + within_ms - now_ms) / 1000 + 1);
    pace->count++;
    return CS_OK;
}

cs_status cs_pki_renew(cs_pki *pki, cs_store *store, const cs_identity *identity, cs_bytes csr, cs_buffer *ret_pem,
                       int64_t *ret_not_after_ms)
{
    if (identity->role != CS_ROLE_SITE)
        return cs_fail(CS_DENIED, "only a site's certificate is renewed on request");
    cs_site_record site;
    CS_TRY(cs_registry_find(store, identity->name, &site));
    CS_TRY(check_renewing(&site, identity));
    cs_hash leaf_key;
    CS_TRY(cs_csr_check(csr, &leaf_key));
    CS_TRY(check_pace(pki, site.name));
    cs_buffer_reset(ret_pem);
    CS_TRY(pki_issue_site(pki, site.name, csr, ret_pem));
    cs_identity certificate;
    CS_TRY(cs_identity_read(cs_buffer_view(ret_pem), &certificate));

    /* The key that asks is the one the site surely has; a new key that it lost before it had the answer is forgotten.
     */
    if (!cs_hash_equal(&leaf_key, &identity->public_key))
        site.previous_leaf_key = identity->public_key;
    site.leaf_key = leaf_key;
    site.certificate_not_after_ms = certificate.not_after_ms;
    CS_TRY(cs_registry_put(store, &site));
    CS_TRY(cs_registry_publish(store));
    CS_FAILPOINT("pki.renewed");
    *ret_not_after_ms = certificate.not_after_ms;
    return pki_record_append(pki, "certificate_renewed", NULL,
                             &(pki_record){.site = site.name, .public_key = &leaf_key, .certificate = &certificate});
}

cs_status cs_pki_revoke(cs_pki *pki, cs_store *store, const char *site, const char *reason)
{
    cs_site_record record;
    CS_TRY(cs_registry_find(store, site, &record));
    if (record.state == CS_SITE_REVOKED)
        return CS_OK;
    if (reason == NULL)
        reason = "";
    if (strlen(reason) >= sizeof record.reason)
        return cs_fail(CS_INVALID, "the reason has %zu bytes, expected at most %zu", strlen(reason),
                       sizeof record.reason - 1);

    /* Tokens first: one that is still out must not bring the site back. */
    CS_TRY(cs_token_withdraw(store, site));
    record.state = CS_SITE_REVOKED;
    memcpy(record.reason, reason, strlen(reason) + 1);
    CS_TRY(cs_registry_put(store, &record));
    CS_TRY(cs_registry_publish(store));
    CS_FAILPOINT("pki.revoked");
    return pki_record_append(pki, "site_revoked", NULL,
                             &(pki_record){.site = site, .public_key = &record.leaf_key, .reason = reason});
}
