/* X.509 (OpenSSL): the consortium's authority, requests, leaves, and what a certificate says. P-256 everywhere, because
 * other gRPC stacks refuse Ed25519 leaves. Any thread. RFC 5280, RFC 2986; identities are SPIFFE URIs:
 *   spiffe://consilium/<consortium>/site/<name>   spiffe://consilium/<consortium>/coordinator */
#ifndef CS_CRYPTO_X509_H
#define CS_CRYPTO_X509_H

#include "common/crypto/digest.h"
#include "common/crypto/keyfile.h"

#define CS_NAME_MAX          63 /* site and job names: [a-z0-9] and '-', a DNS label */
#define CS_PEM_MAX_BYTES     (64 * 1024)
#define CS_CSR_MAX_BYTES     4096
#define CS_SERIAL_BYTES      16
#define CS_LEAF_LIFE_MS      (7 * 24 * 3600 * 1000LL)
#define CS_AUTHORITY_LIFE_MS (3650LL * 24 * 3600 * 1000)
#define CS_BACKDATE_MS       (5 * 60 * 1000LL) /* certificates begin this much earlier, for clocks that are a little off */

/* CS_INVALID with the rule when it is not a usable name. */
CS_MUST_CHECK cs_status cs_name_check(const char *name, const char *what);

/* A P-256 private key; PEM, 0600, never leaves the machine that made it. */
typedef struct cs_tls_key cs_tls_key;
CS_MUST_CHECK cs_status cs_tls_key_new(cs_tls_key **ret);
CS_MUST_CHECK cs_status cs_tls_key_save(const cs_tls_key *key, const char *path);
CS_MUST_CHECK cs_status cs_tls_key_load(const char *path, cs_tls_key **ret);
/* PEM text of the key, for a library that wants it (gRPC) and back. CS_INVALID when it is not a P-256 key. */
CS_MUST_CHECK cs_status cs_tls_key_write(const cs_tls_key *key, cs_secret *ret_pem);
CS_MUST_CHECK cs_status cs_tls_key_read(cs_bytes pem, const char *what, cs_tls_key **ret);
void cs_tls_key_free(cs_tls_key *key);
CS_DEFINE_AUTO_PTR(cs_tls_key)

/* A key and its certificate in one file, 0600, so that they are replaced together: after a crash there is the old pair
 * or the new one. The load gives CS_DATA_LOSS when the two do not belong together. */
CS_MUST_CHECK cs_status cs_tls_pair_save(const char *path, const cs_tls_key *key, cs_bytes certificate_pem);
CS_MUST_CHECK cs_status cs_tls_pair_load(const char *path, cs_tls_key **ret_key, cs_buffer *ret_certificate_pem);

typedef enum cs_role { CS_ROLE_SITE, CS_ROLE_COORDINATOR } cs_role;

typedef struct cs_identity {
    char consortium[CS_NAME_MAX + 1];
    cs_role role;
    char name[CS_NAME_MAX + 1]; /* the site; empty for the coordinator */
    uint8_t serial[CS_SERIAL_BYTES];
    int64_t not_before_ms;
    int64_t not_after_ms;
    cs_hash public_key; /* SHA-256 of the SubjectPublicKeyInfo */
} cs_identity;

/* PKCS #10, DER, signed by the key; the subject is not used: the issuer decides the name. */
CS_MUST_CHECK cs_status cs_csr_make(const cs_tls_key *key, cs_buffer *ret_der);
/* Checks size, the signature, P-256; gives the hash of its public key. */
CS_MUST_CHECK cs_status cs_csr_check(cs_bytes der, cs_hash *ret_public_key);

/* Self-signed authority: CA:TRUE, pathlen 0, keyCertSign only, the consortium's display name as CN. */
CS_MUST_CHECK cs_status cs_authority_make(const cs_tls_key *key, const char *consortium, const char *display_name,
                                          int64_t now_ms, cs_buffer *ret_pem);
typedef struct cs_leaf_request {
    cs_bytes csr_der;
    const char *consortium;
    cs_role role;
    const char *name;             /* site name; NULL for the coordinator */
    const char *const *addresses; /* DNS names and IP addresses of the coordinator, NULL-ended; NULL for a site */
    int64_t now_ms;
    int64_t life_ms;
    uint8_t serial[CS_SERIAL_BYTES];
} cs_leaf_request;
/* Begins CS_BACKDATE_MS before now and ends with the authority at the latest. clientAuth for sites, serverAuth for the
 * coordinator. CN is the site's name, or "coordinator". */
CS_MUST_CHECK cs_status cs_leaf_issue(const cs_tls_key *authority_key, cs_bytes authority_pem,
                                      const cs_leaf_request *request, cs_buffer *ret_pem);

/* Reads the first certificate of a PEM text. CS_INVALID unless it has exactly one URI, of the form above. */
CS_MUST_CHECK cs_status cs_identity_read(cs_bytes certificate_pem, cs_identity *ret);
/* Chain, dates and purpose; CS_UNAUTHENTICATED with OpenSSL's reason, subject and dates. now_ms: wall time. */
CS_MUST_CHECK cs_status cs_certificate_verify(cs_bytes certificate_pem, cs_bytes authority_pem, int64_t now_ms);
CS_MUST_CHECK cs_status cs_certificate_matches_key(cs_bytes certificate_pem, const cs_tls_key *key);
/* Two thirds of the certificate's life, counted from its issue: the time to ask for the next one. */
int64_t cs_identity_renew_at_ms(const cs_identity *identity);
/* Whether the certificate is for this DNS name or IP address. */
bool cs_certificate_covers(cs_bytes certificate_pem, const char *host);
/* Six words for people to compare by telephone, from SHA-256 of the certificate or key. Free with cs_free. */
char *cs_fingerprint_words(const cs_hash *hash);
/* The same of a certificate: its DER, so that how the PEM was wrapped does not matter. */
CS_MUST_CHECK cs_status cs_certificate_words(cs_bytes certificate_pem, char **ret);

#endif
