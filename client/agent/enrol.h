/* `consilium-client join`: makes the site's keys, asks for its certificate, online or through files. Main thread,
 * before the agent runs; identity and renewal are used by the agent. Keys never leave keys/:
 *   signing.key    the site's long-lived Ed25519 key; kept when it joins again
 *   tls.pem        key and certificate, replaced together
 *   join.key       the key of a join under way, kept until it has its certificate; next.key: that of a renewal
 *   authority.crt  the consortium's authority
 *   site.txt       site, consortium, coordinator, and the SHA-256 of the token it joined with */
#ifndef CS_AGENT_ENROL_H
#define CS_AGENT_ENROL_H

#include "common/config/site.h"
#include "common/crypto/sign.h"
#include "common/crypto/x509.h"

#define CS_JOIN_FILE_MAX_BYTES (64 * 1024)

/* What a join file (text, one `key: value` a line, then the authority's PEM) says. */
typedef struct cs_join_file {
    char *site, *consortium, *coordinator, *enrolment; /* host:port */
    uint8_t token[CS_TOKEN_BYTES];
    int64_t expires_ms;
    cs_buffer authority_pem;
} cs_join_file;
void cs_join_file_clear(cs_join_file *file);
CS_MUST_CHECK cs_status cs_join_file_parse(cs_bytes text, const char *source, cs_join_file *ret);

typedef struct cs_join_options {
    const char *state_folder;
    const char *join_file;                      /* path */
    const char *proxy;                          /* "host:port" or NULL */
    const char *proxy_login, *proxy_login_file; /* the login, and the file that site.yaml will name for it; or NULL */
    const char *site_config; /* where to write the commented site.yaml if there is none; NULL: state_folder/site.yaml */
    /* What site.yaml will say of data sets; CS_EXISTS when there is one and it is not to be changed, CS_INVALID when
     * it would not be a good one, both before anything is asked or made. */
    const struct cs_site_template_dataset *datasets;
    size_t datasets_count;
} cs_join_options;
/* Online. Makes what is missing of the keys, asks, checks the answer against the join file's authority, and writes it.
 * The same token and keys again give the same certificate: a lost answer costs nothing. CS_OK at once when the site has
 * joined with this file already. A file with another token (--rejoin) replaces the TLS key and keeps the signing key.
 */
CS_MUST_CHECK cs_status cs_join(const cs_join_options *options);
/* Offline: writes the request for the operator (0600: the token is in it), then takes the answer in. */
CS_MUST_CHECK cs_status cs_join_request(const cs_join_options *options, const char *request_path);
CS_MUST_CHECK cs_status cs_join_answer(const cs_join_options *options, const char *answer_path);

/* The join file's authority in words, for a person to compare with what `consilium-server init` printed: whoever can
 * change the file on its way can put an authority of his own into it. Free with cs_free. */
CS_MUST_CHECK cs_status cs_join_authority_words(const cs_join_options *options, char **ret);

/* What lies in keys/ of a site that has joined. */
typedef struct cs_site_identity {
    char consortium[CS_NAME_MAX + 1], site[CS_NAME_MAX + 1];
    char *coordinator; /* host:port */
    cs_buffer certificate_pem, key_pem, authority_pem;
    cs_identity leaf;
    cs_sign_key *signing_key;
} cs_site_identity;
void cs_site_identity_clear(cs_site_identity *identity);
/* CS_STATE with "run consilium-client join" when there is nothing. */
CS_MUST_CHECK cs_status cs_site_identity_load(const char *state_folder, cs_site_identity *ret);
/* Renewal: makes a new key as keys/next.key, or takes the one that still waits for its certificate, and gives a request
 * for it; install checks the certificate (this key, this site, this authority) and puts both in place together: a crash
 * leaves the old pair or the new one. */
CS_MUST_CHECK cs_status cs_renewal_prepare(const char *state_folder, cs_buffer *ret_csr_der);
CS_MUST_CHECK cs_status cs_renewal_install(const char *state_folder, cs_bytes certificate_pem, cs_bytes authority_pem);

#endif
