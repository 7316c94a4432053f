/* A small blocking TLS 1.3 client and listener (OpenSSL) for enrolment and doctor; everything else is gRPC's own TLS.
 * A connection belongs to one thread. Every operation ends at its deadline. */
#ifndef CS_CRYPTO_TLS_H
#define CS_CRYPTO_TLS_H

#include "common/crypto/x509.h"

#define CS_HOST_BYTES             254
#define CS_PROXY_ANSWER_MAX_BYTES 8192

typedef struct cs_tls cs_tls;

typedef struct cs_tls_target {
    const char *host;
    uint16_t port;
    const char *proxy;        /* "host:port" of an HTTP CONNECT proxy; NULL: none. Never taken from the environment */
    const char *proxy_login;  /* "user:password"; NULL: none */
    cs_bytes authority_pem;   /* the only root trusted */
    cs_bytes certificate_pem; /* client certificate; empty: none */
    const cs_tls_key *key;
    int64_t timeout_ms; /* for the whole exchange */
} cs_tls_target;

/* "host:8443", "192.0.2.1:8443" or "[2001:db8::1]:8443" → its two parts; `what` names it in the sentence. */
CS_MUST_CHECK cs_status cs_address_parse(const char *text, const char *what, char ret_host[CS_HOST_BYTES],
                                         uint16_t *ret_port);

/* CS_UNAVAILABLE: not reached (says whether name, connection or proxy failed); CS_UNAUTHENTICATED: the chain or name
 * does not fit, with the issuer that was found. */
CS_MUST_CHECK cs_status cs_tls_connect(const cs_tls_target *target, cs_tls **ret);
CS_MUST_CHECK cs_status cs_tls_read_exact(cs_tls *tls, void *data, size_t size);
CS_MUST_CHECK cs_status cs_tls_write(cs_tls *tls, const void *data, size_t size);
/* PEM of what the other side showed, also when it was not trusted. */
CS_MUST_CHECK cs_status cs_tls_peer_certificate(const cs_tls *tls, cs_buffer *ret_pem);
void cs_tls_free(cs_tls *tls);
CS_DEFINE_AUTO_PTR(cs_tls)

/* For doctor: the certificate that answers there, without trusting it. */
typedef struct cs_tls_shown {
    cs_buffer certificate_pem;
    char *subject, *issuer;
} cs_tls_shown;
void cs_tls_shown_clear(cs_tls_shown *shown);
CS_MUST_CHECK cs_status cs_tls_probe(const cs_tls_target *target, cs_tls_shown *ret);

typedef struct cs_tls_listener cs_tls_listener;
/* `serve` runs on a thread of a small pool, one connection each, and returns to close it. At most `connections` at
 * once, and of four or more, one address has at most three quarters, the rest of its calls is closed at once; more
 * wait in the backlog. Each connection has timeout_ms in all. Peers that fail the handshake never reach
 * `serve`. */
CS_MUST_CHECK cs_status cs_tls_listener_start(const char *address, uint16_t port, cs_bytes certificate_pem,
                                              const cs_tls_key *key, size_t connections, int64_t timeout_ms,
                                              void (*serve)(void *self, cs_tls *tls), void *self,
                                              cs_tls_listener **ret);
uint16_t cs_tls_listener_port(const cs_tls_listener *listener);
/* New connections show the new certificate. */
CS_MUST_CHECK cs_status cs_tls_listener_reload(cs_tls_listener *listener, cs_bytes certificate_pem,
                                               const cs_tls_key *key);
/* No new connections; peers that have not finished asking are cut off, answers in progress are finished. Frees it; NULL
 * is fine. */
void cs_tls_listener_stop(cs_tls_listener *listener);

#endif
