/* The consortium's authority, enrolment, renewal. The authority's key lies in keys/ of the state directory and is used
 * here only. Threads: stated at each function; database work is handed to the engine's thread through
 * `cs_run_on_engine`. */
#ifndef CS_PKI_PKI_H
#define CS_PKI_PKI_H

#include "common/audit/transcript.h"
#include "common/config/server.h"
#include "common/wire/wire.h"
#include "server/store/registry.h"

#define CS_TOKEN_VALID_MS     (24 * 3600 * 1000LL)
#define CS_TOKEN_VALID_MAX_MS (30 * CS_TOKEN_VALID_MS)

typedef struct cs_pki cs_pki;

/* Runs `work` on the engine's thread and waits for it; gives its status with its sentence on the caller's thread. */
typedef cs_status (*cs_run_on_engine)(void *self, cs_status (*work)(void *argument, cs_store *store), void *argument);

/* `init`: makes keys/ with authority.key, authority.crt, signing.key and coordinator.pem (key and certificate, replaced
 * together), and server.yaml. keys/ appears whole or not at all. CS_EXISTS when the directory is already one. Main
 * thread. */
CS_MUST_CHECK cs_status cs_pki_init(const char *state_folder, const char *display_name, const char *address,
                                    uint16_t port, uint16_t enrolment_port);

/* Loads the keys; renews the coordinator's own leaf when it is past 2/3 of its life. `transcript` may be NULL (tests).
 */
CS_MUST_CHECK cs_status cs_pki_open(const char *state_folder, const cs_server_config *config, cs_transcript *transcript,
                                    cs_pki **ret);
void cs_pki_free(cs_pki *pki);
CS_DEFINE_AUTO_PTR(cs_pki)
cs_bytes cs_pki_authority_pem(const cs_pki *pki);
const char *cs_pki_consortium(const cs_pki *pki);
/* Main thread, about once a minute: a new leaf for the coordinator at 2/3 of life. *ret_changed: reload the listeners.
 */
CS_MUST_CHECK cs_status cs_pki_renew_own(cs_pki *pki, bool *ret_changed);
/* Copies: clear them. Any thread. */
CS_MUST_CHECK cs_status cs_pki_own_identity(cs_pki *pki, cs_buffer *ret_certificate_pem, cs_buffer *ret_key_pem);

/* When the coordinator's own certificate ends. Any thread. */
CS_MUST_CHECK cs_status cs_pki_own_not_after(cs_pki *pki, int64_t *ret_wall_ms);

/* Engine's thread. Makes a token (kept only as hash) and the text of the join file; earlier tokens of the site that
 * were not used are void. A site that is enrolled or revoked needs is_rejoin (CS_EXISTS without); a new name must not
 * have it. valid_ms 0: 24 h; at most CS_TOKEN_VALID_MAX_MS. `coordinator`: host:port and host:enrolment_port for the
 * file. */
CS_MUST_CHECK cs_status cs_pki_token_new(cs_pki *pki, cs_store *store, const char *site, bool is_rejoin,
                                         int64_t valid_ms, const char *coordinator, const char *enrolment,
                                         cs_buffer *ret_join_file, int64_t *ret_expires_ms);
/* Engine's thread. The whole decision on one enrolment; the answer (also a refusal) is in `arena` or static. Refusals
 * of requests that know a token are recorded. */
void cs_pki_enrol(cs_pki *pki, cs_store *store, const Consilium__V1__EnrolRequest *request, cs_arena *arena,
                  Consilium__V1__EnrolAnswer **ret);
/* Engine's thread. For the site of `identity`, whose key must still be admitted: the call may be older than a rejoin.
 * The key that asked stays admitted beside the new one until its certificate ends. CS_EXHAUSTED when the site renews
 * far more often than certificates end. */
CS_MUST_CHECK cs_status cs_pki_renew(cs_pki *pki, cs_store *store, const cs_identity *identity, cs_bytes csr,
                                     cs_buffer *ret_pem, int64_t *ret_not_after_ms);
/* Engine's thread: registry and transcript; the caller ends the streams. Revoking twice is fine. */
CS_MUST_CHECK cs_status cs_pki_revoke(cs_pki *pki, cs_store *store, const char *site, const char *reason);

/* The enrolment port: threads of its own, one request and one answer a connection. */
typedef struct cs_enrolment cs_enrolment;
CS_MUST_CHECK cs_status cs_enrolment_start(cs_pki *pki, const char *address, uint16_t port, cs_run_on_engine run,
                                           void *run_self, cs_enrolment **ret);
uint16_t cs_enrolment_port(const cs_enrolment *enrolment);
CS_MUST_CHECK cs_status cs_enrolment_reload(cs_enrolment *enrolment);
void cs_enrolment_stop(cs_enrolment *enrolment);

#endif
