/* Sites, their certificates and the enrolment tokens. Engine's thread only, but for the snapshot. */
#ifndef CS_STORE_REGISTRY_H
#define CS_STORE_REGISTRY_H

#include "common/crypto/sign.h"
#include "common/crypto/x509.h"
#include "server/store/store.h"

typedef enum cs_site_state { CS_SITE_INVITED, CS_SITE_ENROLLED, CS_SITE_REVOKED } cs_site_state;

typedef struct cs_site_record {
    char name[CS_NAME_MAX + 1];
    cs_site_state state;
    char reason[256]; /* of the revocation */
    uint8_t signing_key[CS_SIGN_PUBLIC_BYTES];
    cs_hash leaf_key;          /* SHA-256 of the public key the newest certificate was issued for */
    cs_hash previous_leaf_key; /* the one before, valid until its certificate ends: renewal without a gap */
    int64_t certificate_not_after_ms;
    int64_t enrolled_ms, last_seen_ms;
} cs_site_record;

CS_MUST_CHECK cs_status cs_registry_find(cs_store *store, const char *site, cs_site_record *ret); /* CS_NOT_FOUND */
CS_MUST_CHECK cs_status cs_registry_list(cs_store *store, cs_site_record **ret,
                                         size_t *ret_count); /* by name; cs_free */
CS_MUST_CHECK cs_status cs_registry_put(cs_store *store, const cs_site_record *record);
CS_MUST_CHECK cs_status cs_registry_seen(cs_store *store, const char *site, int64_t now_ms);

/* The last roster that people at the site approved, with the site's signature. */
typedef struct cs_roster_approval {
    char site[CS_NAME_MAX + 1];
    cs_hash roster;
    uint8_t signature[CS_SIGNATURE_BYTES];
} cs_roster_approval;
CS_MUST_CHECK cs_status cs_roster_approval_put(cs_store *store, const cs_roster_approval *approval);
CS_MUST_CHECK cs_status cs_roster_approval_find(cs_store *store, const char *site,
                                                cs_roster_approval *ret); /* CS_NOT_FOUND */

typedef struct cs_token_record {
    cs_hash token; /* SHA-256 of the token: the token itself is never kept */
    char site[CS_NAME_MAX + 1];
    bool is_rejoin;
    int64_t expires_ms;
    bool is_used;
    cs_hash used_leaf_key; /* same token and same keys again: the same certificate */
    uint8_t used_signing_key[CS_SIGN_PUBLIC_BYTES];
    cs_buffer certificate_pem; /* what it was answered with; clear it */
} cs_token_record;
void cs_token_record_clear(cs_token_record *record);
CS_MUST_CHECK cs_status cs_token_find(cs_store *store, const cs_hash *token, cs_token_record *ret); /* CS_NOT_FOUND */
CS_MUST_CHECK cs_status cs_token_put(cs_store *store, const cs_token_record *record);
/* Forgets the site's tokens that were not used yet. */
CS_MUST_CHECK cs_status cs_token_withdraw(cs_store *store, const char *site);

/* An immutable picture of who may call, for rpc threads: the engine publishes a new one at its start and after each
 * change. */
typedef struct cs_registry_snapshot cs_registry_snapshot;
CS_MUST_CHECK cs_status cs_registry_publish(cs_store *store);
/* CS_OK, or CS_UNAUTHENTICATED / CS_DENIED with the reason: unknown site, revoked, a certificate that was replaced. Any
 * thread. */
CS_MUST_CHECK cs_status cs_registry_admit(const cs_identity *identity);
/* Whether an admitted site shows its newest certificate, or the one before. Any thread. */
bool cs_registry_is_newest(const cs_identity *identity);

#endif
