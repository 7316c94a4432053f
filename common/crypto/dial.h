/* Reaches a TCP address by a deadline, directly or through an HTTP CONNECT proxy. The part of the
 * client below TLS; doctor uses it to tell a closed port from a wrong certificate. The caller's thread. */
#ifndef CS_CRYPTO_DIAL_H
#define CS_CRYPTO_DIAL_H

#include "common/base/file.h"
#include "common/crypto/tls.h"

/* Waits until `fd` is ready for `events`; CS_DEADLINE naming `what` when until_ms (monotonic) passes first,
 * CS_CANCELLED when stop_fd (-1: none) becomes readable before that. */
CS_MUST_CHECK cs_status cs_dial_wait(int fd, short events, int stop_fd, int64_t until_ms, const char *what);
/* The first address of a host name. CS_UNAVAILABLE: there is none; CS_DEADLINE: the name service is silent. */
CS_MUST_CHECK cs_status cs_dial_find(const char *host, int64_t until_ms, char ret_address[CS_HOST_BYTES]);
/* A connected, non-blocking socket through which the target answers. CS_UNAVAILABLE and CS_DEADLINE say whether the
 * name, the connection or the proxy failed; of a proxy that answers, CS_UNAUTHENTICATED: it wants a login, CS_DENIED:
 * it refuses this target, CS_INVALID: it does not speak HTTP. */
CS_MUST_CHECK cs_status cs_dial(const cs_tls_target *target, int64_t until_ms, cs_fd *ret);
/* What a proxy has answered to CONNECT so far: CS_OK when it is whole and the way is open, CS_LATER while more must
 * come; else as cs_dial, with the proxy (`what`) and what it said about `wanted`. */
CS_MUST_CHECK cs_status cs_proxy_answer_check(cs_bytes answer, const char *what, const char *wanted);

#endif
