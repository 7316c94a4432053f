/* Addresses that nobody but this machine reaches. Read by the configurations, listened on by common/metrics. Any
 * thread. */
#ifndef CS_BASE_LOOPBACK_H
#define CS_BASE_LOOPBACK_H

#include "common/base/status.h"

#include <sys/socket.h>

/* "127.0.0.1:9464" (any 127.x.y.z), "[::1]:9464" or "localhost:9464" (which is 127.0.0.1, nobody is asked) → the
 * address to listen on. CS_INVALID for anything else; the sentence says what was found and what is expected. */
CS_MUST_CHECK cs_status cs_loopback_parse(const char *text, struct sockaddr_storage *ret, socklen_t *ret_size);

#endif
