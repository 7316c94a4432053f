/* TLS 1.3 over a non-blocking socket, every step bounded by one deadline. The client half is called by enrolment and
 * doctor on their own thread; the listener runs its own small pool of threads. RFC 8446. */
#include "common/crypto/tls.h"

#include "common/base/clock.h"
#include "common/crypto/dial.h"
#include "common/crypto/openssl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define LISTEN_BACKLOG  64
#define ACCEPT_PAUSE_MS 100 /* after accept failed for want of descriptors or memory */
#define LISTENER_MOST   64

struct cs_tls {
    cs_fd fd;
    int stop_fd; /* the listener's; -1 at the client */
    int64_t until_ms;
    SSL *ssl;
    X509 *shown;      /* what the other side showed, trusted or not; NULL before the handshake */
    bool is_trusting; /* probe: any certificate will do */
    int verify_error;
    bool is_broken;                /* no close_notify after a fatal error */
    char what[CS_HOST_BYTES + 16]; /* "host:port" for sentences */
};

/* ---- the socket below OpenSSL: send(2) with MSG_NOSIGNAL, so that a peer's hang-up is a status and not SIGPIPE ----
 */

static int socket_write(BIO *bio, const char *data, int size)
{
    const cs_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t sent = send(tls->fd, data, (size_t)size, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int)sent;
}

static int socket_read(BIO *bio, char *data, int size)
{
    const cs_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t got = recv(tls->fd, data, (size_t)size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    return (int)got;
}

static long socket_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *socket_method;

static void make_socket_method(void)
{
    socket_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "consilium socket");
    if (socket_method != NULL &&
        (BIO_meth_set_write(socket_method, socket_write) != 1 || BIO_meth_set_read(socket_method, socket_read) != 1 ||
         BIO_meth_set_ctrl(socket_method, socket_control) != 1)) {
        BIO_meth_free(socket_method);
        socket_method = NULL;
    }
}

/* Takes `fd` over, also when it fails. */
static cs_status tls_new(SSL_CTX *context, cs_fd *fd, int stop_fd, int64_t until_ms, cs_tls **ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_socket_method);
    cs_tls *tls = cs_alloc(sizeof *tls);
    tls->fd = *fd;
    *fd = -1;
    tls->stop_fd = stop_fd;
    tls->until_ms = until_ms;
    tls->ssl = SSL_new(context);
    BIO *bio = socket_method != NULL ? BIO_new(socket_method) : NULL;
    if (tls->ssl == NULL || bio == NULL) {
        BIO_free(bio);
        cs_tls_free(tls);
        return cs_openssl_fail(CS_INTERNAL, "cannot set up TLS");
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    *ret = tls;
    return CS_OK;
}

/* After an SSL call that did not finish: waits for the socket and gives CS_OK to call again, or says what is wrong. */
static cs_status tls_again(cs_tls *tls, int result, const char *doing)
{
    int error = SSL_get_error(tls->ssl, result);
    /* While the peer still has to speak, a stop ends the wait; what is being written is finished. */
    if (error == SSL_ERROR_WANT_READ)
        return cs_dial_wait(tls->fd, POLLIN, tls->stop_fd, tls->until_ms, tls->what);
    if (error == SSL_ERROR_WANT_WRITE)
        return cs_dial_wait(tls->fd, POLLOUT, -1, tls->until_ms, tls->what);
    tls->is_broken = error != SSL_ERROR_ZERO_RETURN;
    if (error == SSL_ERROR_ZERO_RETURN)
        return cs_fail(CS_UNAVAILABLE, "%s closed the connection %s", tls->what, doing);
    if (error == SSL_ERROR_SYSCALL) {
        ERR_clear_error();
        return cs_fail(CS_UNAVAILABLE, "%s broke the connection %s%s%s", tls->what, doing, errno != 0 ? ": " : "",
                       errno != 0 ? strerror(errno) : "");
    }
    return cs_openssl_fail(CS_UNAVAILABLE, "%s failed %s with TLS 1.3", tls->what, doing);
}

cs_status cs_tls_read_exact(cs_tls *tls, void *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        size_t got = 0;
        ERR_clear_error();
        errno = 0;
        int result = SSL_read_ex(tls->ssl, (uint8_t *)data + done, size - done, &got);
        if (result != 1)
            CS_TRY(tls_again(tls, result, "while it was to answer"));
        done += got;
    }
    return CS_OK;
}

cs_status cs_tls_write(cs_tls *tls, const void *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        size_t sent = 0;
        ERR_clear_error();
        errno = 0;
        int result = SSL_write_ex(tls->ssl, (const uint8_t *)data + done, size - done, &sent);
        if (result != 1)
            CS_TRY(tls_again(tls, result, "while it was to receive"));
        done += sent;
    }
    return CS_OK;
}

cs_status cs_tls_peer_certificate(const cs_tls *tls, cs_buffer *ret_pem)
{
    if (tls->shown == NULL)
        return cs_fail(CS_NOT_FOUND, "%s showed no certificate", tls->what);
    cs_x509_append_pem(tls->shown, ret_pem);
    return CS_OK;
}

void cs_tls_free(cs_tls *tls)
{
    if (tls == NULL)
        return;
    if (tls->ssl != NULL && !tls->is_broken && SSL_is_init_finished(tls->ssl))
        SSL_shutdown(tls->ssl); /* says goodbye and does not wait for theirs */
    SSL_free(tls->ssl);
    X509_free(tls->shown);
    cs_fd_clear(&tls->fd);
    ERR_clear_error();
    cs_free(tls);
}

/* ---- contexts ---- */

static cs_status context_new(const SSL_METHOD *method, SSL_CTX **ret)
{
    CS_AUTO_PTR(SSL_CTX) context = SSL_CTX_new(method);
    /* No session tickets: every exchange is one connection, and a ticket sent to a peer that has gone is a reset. */
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1 || SSL_CTX_set_num_tickets(context, 0) != 1)
        return cs_openssl_fail(CS_INTERNAL, "OpenSSL offers no TLS 1.3");
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_security_level(context, 2);
    *ret = CS_TAKE(context);
    return CS_OK;
}

static cs_status context_use(SSL_CTX *context, cs_bytes certificate_pem, const cs_tls_key *key)
{
    CS_TRY(cs_certificate_matches_key(certificate_pem, key));
    CS_AUTO_PTR(X509) certificate = NULL;
    CS_TRY(cs_x509_parse(certificate_pem, "certificate", &certificate));
    if (SSL_CTX_use_certificate(context, certificate) != 1 || SSL_CTX_use_PrivateKey(context, key->pkey) != 1)
        return cs_openssl_fail(CS_INTERNAL, "cannot use the certificate for TLS");
    return CS_OK;
}

/* ---- client ---- */

/* In the place of OpenSSL's own: keeps what was shown and why it was not believed. */
static int verify_shown(X509_STORE_CTX *context, void *argument)
{
    cs_tls *tls = argument;
    X509 *leaf = X509_STORE_CTX_get0_cert(context);
    if (tls->shown == NULL && X509_up_ref(leaf) == 1)
        tls->shown = leaf;
    if (tls->is_trusting)
        return 1;
    int is_good = X509_verify_cert(context);
    tls->verify_error = X509_STORE_CTX_get_error(context);
    return is_good == 1;
}

/* "a.example.org, 192.0.2.1": what the certificate is for. */
static void names_text(X509 *certificate, cs_buffer *out)
{
    CS_AUTO_PTR(GENERAL_NAMES) names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names) && out->size < CS_X509_NAME_BYTES; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char text[CS_HOST_BYTES] = "";
        if (name->type == GEN_DNS)
            snprintf(text, sizeof text, "%.*s", ASN1_STRING_length(name->d.dNSName),
                     (const char *)ASN1_STRING_get0_data(name->d.dNSName));
        else if (name->type == GEN_IPADD)
            inet_ntop(ASN1_STRING_length(name->d.iPAddress) == 4 ? AF_INET : AF_INET6,
                      ASN1_STRING_get0_data(name->d.iPAddress), text, sizeof text);
        if (text[0] != 0)
            cs_buffer_printf(out, "%s%s", out->size > 0 ? ", " : "", text);
    }
}

/* The three ways in which a certificate is not believed, each as its own sentence. */
static cs_status refuse_shown(cs_tls *tls, const cs_tls_target *target)
{
    int error = tls->verify_error;
    ERR_clear_error();
    if (error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH) {
        CS_AUTO(cs_buffer) names = CS_BUFFER_EMPTY;
        names_text(tls->shown, &names);
        return cs_fail(CS_UNAUTHENTICATED, "%s shows a certificate for '%s', not for '%s'", tls->what,
                       cs_buffer_text(&names), target->host);
    }
    if (error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID) {
        char from[CS_TIME_TEXT_BYTES], until[CS_TIME_TEXT_BYTES], now[CS_TIME_TEXT_BYTES];
        cs_clock_format(cs_x509_time_ms(X509_get0_notBefore(tls->shown)), from);
        cs_clock_format(cs_x509_time_ms(X509_get0_notAfter(tls->shown)), until);
        cs_clock_format(cs_clock_wall_ms(), now);
        return cs_fail(CS_UNAUTHENTICATED,
                       "%s shows a certificate that %s: valid from %s to %s, the clock here says %s", tls->what,
                       error == X509_V_ERR_CERT_HAS_EXPIRED ? "has expired" : "is not valid yet", from, until, now);
    }
    char issuer[CS_X509_NAME_BYTES];
    cs_x509_name_text(X509_get_issuer_name(tls->shown), issuer);
    return cs_fail(CS_UNAUTHENTICATED,
                   "%s shows a certificate that the consortium's authority did not issue: issuer '%s' (%s)", tls->what,
                   issuer, X509_verify_cert_error_string(error));
}

static cs_status set_expectations(cs_tls *tls, const cs_tls_target *target)
{
    X509_VERIFY_PARAM *parameters = SSL_get0_param(tls->ssl);
    X509_VERIFY_PARAM_set_time(parameters, (time_t)(cs_clock_wall_ms() / 1000));
    X509_VERIFY_PARAM_set_hostflags(parameters,
                                    X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    uint8_t address[sizeof(struct in6_addr)];
    bool is_address = inet_pton(AF_INET, target->host, address) == 1 || inet_pton(AF_INET6, target->host, address) == 1;
    int is_set = is_address ? X509_VERIFY_PARAM_set1_ip_asc(parameters, target->host)
                            : SSL_set1_host(tls->ssl, target->host) && SSL_set_tlsext_host_name(tls->ssl, target->host);
    if (is_set != 1)
        return cs_openssl_fail(CS_INVALID, "host '%s' is neither a DNS name nor an IP address", target->host);
    return CS_OK;
}

static cs_status handshake(cs_tls *tls, int (*step)(SSL *ssl), const cs_tls_target *target)
{
    for (;;) {
        ERR_clear_error();
        errno = 0;
        int result = step(tls->ssl);
        if (result == 1)
            return CS_OK;
        if (target != NULL && tls->verify_error != X509_V_OK) {
            tls->is_broken = true;
            return refuse_shown(tls, target);
        }
        CS_TRY(tls_again(tls, result, "in the handshake"));
    }
}

static cs_status client_context(const cs_tls_target *target, bool is_trusting, SSL_CTX **ret)
{
    CS_AUTO_PTR(SSL_CTX) context = NULL;
    CS_TRY(context_new(TLS_client_method(), &context));
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (!is_trusting) {
        X509_STORE *store = NULL;
        CS_TRY(cs_x509_store_of(target->authority_pem, &store));
        SSL_CTX_set_cert_store(context, store);
    }
    if (target->certificate_pem.size > 0 && target->key != NULL)
        CS_TRY(context_use(context, target->certificate_pem, target->key));
    *ret = CS_TAKE(context);
    return CS_OK;
}

static cs_status client_connect(const cs_tls_target *target, bool is_trusting, cs_tls **ret)
{
    int64_t until_ms = cs_clock_monotonic_ms() + target->timeout_ms;
    CS_AUTO_PTR(SSL_CTX) context = NULL;
    CS_TRY(client_context(target, is_trusting, &context));
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_dial(target, until_ms, &fd));

    CS_AUTO_PTR(cs_tls) tls = NULL;
    CS_TRY(tls_new(context, &fd, -1, until_ms, &tls));
    snprintf(tls->what, sizeof tls->what, strchr(target->host, ':') != NULL ? "[%s]:%u" : "%s:%u", target->host,
             target->port);
    tls->is_trusting = is_trusting;
    SSL_CTX_set_cert_verify_callback(context, verify_shown, tls);
    CS_TRY(set_expectations(tls, target));
    CS_TRY(handshake(tls, SSL_connect, target));
    *ret = CS_TAKE(tls);
    return CS_OK;
}

cs_status cs_tls_connect(const cs_tls_target *target, cs_tls **ret)
{
    return client_connect(target, false, ret);
}

void cs_tls_shown_clear(cs_tls_shown *shown)
{
    cs_buffer_clear(&shown->certificate_pem);
    cs_string_clear(&shown->subject);
    cs_string_clear(&shown->issuer);
}

cs_status cs_tls_probe(const cs_tls_target *target, cs_tls_shown *ret)
{
    CS_AUTO_PTR(cs_tls) tls = NULL;
    CS_TRY(client_connect(target, true, &tls));
    CS_TRY(cs_tls_peer_certificate(tls, &ret->certificate_pem));
    char name[CS_X509_NAME_BYTES];
    cs_x509_name_text(X509_get_subject_name(tls->shown), name);
    ret->subject = cs_strdup(name);
    cs_x509_name_text(X509_get_issuer_name(tls->shown), name);
    ret->issuer = cs_strdup(name);
    return CS_OK;
}

/* ---- listener ---- */

/* An IPv4 address, or the half of an IPv6 address that is a network: its owner has all of the other half. */
struct caller {
    uint8_t bytes[sizeof(struct in6_addr)];
};

struct cs_tls_listener {
    cs_fd fd;
    cs_fd stop_fd; /* an eventfd: readable from the stop on, for every thread */
    uint16_t port;
    int64_t timeout_ms;
    void (*serve)(void *self, cs_tls *tls);
    void *self;
    pthread_mutex_t context_lock; /* guards context */
    SSL_CTX *context;
    pthread_t *threads;
    size_t threads_count;
    size_t caller_most; /* of `connections`, for one address */
    pthread_mutex_t callers_lock;
    struct caller callers[LISTENER_MOST]; /* callers_lock */
    size_t callers_count;                 /* callers_lock */
};

static cs_status listener_context(cs_bytes certificate_pem, const cs_tls_key *key, SSL_CTX **ret)
{
    CS_AUTO_PTR(SSL_CTX) context = NULL;
    CS_TRY(context_new(TLS_server_method(), &context));
    CS_TRY(context_use(context, certificate_pem, key));
    *ret = CS_TAKE(context);
    return CS_OK;
}

static SSL_CTX *current_context(cs_tls_listener *listener)
{
    pthread_mutex_lock(&listener->context_lock);
    SSL_CTX *context = listener->context;
    SSL_CTX_up_ref(context);
    pthread_mutex_unlock(&listener->context_lock);
    return context;
}

/* A peer that fails here is a port scan or a misconfigured site; the site says why, at its end. */
static void serve_one(cs_tls_listener *listener, cs_fd *fd)
{
    CS_AUTO_PTR(SSL_CTX) context = current_context(listener);
    CS_AUTO_PTR(cs_tls) tls = NULL;
    if (tls_new(context, fd, listener->stop_fd, cs_clock_monotonic_ms() + listener->timeout_ms, &tls) != CS_OK)
        return;
    snprintf(tls->what, sizeof tls->what, "the caller");
    if (handshake(tls, SSL_accept, NULL) == CS_OK)
        listener->serve(listener->self, tls);
}

/* Whether a connection may be waiting; false: stop. */
static bool wait_for_connection(cs_tls_listener *listener)
{
    struct pollfd polled[] = {{.fd = listener->fd, .events = POLLIN}, {.fd = listener->stop_fd, .events = POLLIN}};
    int ready = poll(polled, 2, -1);
    return ready < 0 || polled[1].revents == 0;
}

static struct caller caller_of(const struct sockaddr_storage *peer)
{
    struct caller caller = {0};
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;
    if (peer->ss_family == AF_INET6)
        memcpy(caller.bytes, &v6->sin6_addr,
               IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) ? sizeof caller.bytes : sizeof caller.bytes / 2);
    else if (peer->ss_family == AF_INET)
        memcpy(caller.bytes, &((const struct sockaddr_in *)peer)->sin_addr, sizeof(struct in_addr));
    return caller;
}

/* false: this address has its share. */
static bool caller_enters(cs_tls_listener *listener, const struct caller *caller)
{
    size_t same = 0;
    pthread_mutex_lock(&listener->callers_lock);
    for (size_t i = 0; i < listener->callers_count; i++)
        same += memcmp(&listener->callers[i], caller, sizeof *caller) == 0 ? 1 : 0;
    bool may_enter = same < listener->caller_most;
    if (may_enter)
        listener->callers[listener->callers_count++] = *caller;
    pthread_mutex_unlock(&listener->callers_lock);
    return may_enter;
}

static void caller_leaves(cs_tls_listener *listener, const struct caller *caller)
{
    pthread_mutex_lock(&listener->callers_lock);
    size_t i = 0;
    while (memcmp(&listener->callers[i], caller, sizeof *caller) != 0)
        i++;
    listener->callers[i] = listener->callers[--listener->callers_count];
    pthread_mutex_unlock(&listener->callers_lock);
}

static void *listener_run(void *argument)
{
    cs_tls_listener *listener = argument;
    while (wait_for_connection(listener)) {
        struct sockaddr_storage peer = {0};
        socklen_t size = sizeof peer;
        CS_AUTO(cs_fd) fd = accept4(listener->fd, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            struct caller caller = caller_of(&peer);
            if (caller_enters(listener, &caller)) {
                serve_one(listener, &fd);
                caller_leaves(listener, &caller);
            }
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            struct pollfd stop = {.fd = listener->stop_fd, .events = POLLIN};
            poll(&stop, 1, ACCEPT_PAUSE_MS);
        }
    }
    return NULL;
}

static cs_status listen_at(const char *address, uint16_t port, cs_fd *ret)
{
    char port_text[8];
    snprintf(port_text, sizeof port_text, "%u", port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(address, port_text, &hints, &found);
    if (error != 0)
        return cs_fail(CS_INVALID, "cannot listen at '%s': %s", address, gai_strerror(error));
    CS_AUTO(cs_fd) fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_listening = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) == 0 &&
                        bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, LISTEN_BACKLOG) == 0;
    freeaddrinfo(found);
    if (!is_listening)
        return cs_fail_errno("cannot listen at %s port %u", address, port);
    *ret = fd;
    fd = -1;
    return CS_OK;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &size) != 0)
        return 0;
    return ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                             : ((struct sockaddr_in *)&bound)->sin_port);
}

static cs_status start_threads(cs_tls_listener *listener, size_t count)
{
    listener->threads = cs_alloc_array(count, sizeof *listener->threads);
    for (size_t i = 0; i < count; i++) {
        int error = pthread_create(&listener->threads[i], NULL, listener_run, listener);
        if (error != 0) {
            errno = error;
            return cs_fail_errno("cannot start the threads of the listener at port %u", listener->port);
        }
        listener->threads_count++;
    }
    return CS_OK;
}

cs_status cs_tls_listener_start(const char *address, uint16_t port, cs_bytes certificate_pem, const cs_tls_key *key,
                                size_t connections, int64_t timeout_ms, void (*serve)(void *self, cs_tls *tls),
                                void *self, cs_tls_listener **ret)
{
    if (connections == 0 || connections > LISTENER_MOST)
        return cs_fail(CS_INVALID, "a listener serves 1 to %d connections at once, not %zu", LISTENER_MOST,
                       connections);
    CS_AUTO_PTR(SSL_CTX) context = NULL;
    CS_TRY(listener_context(certificate_pem, key, &context));
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(listen_at(address, port, &fd));
    CS_AUTO(cs_fd) stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd < 0)
        return cs_fail_errno("cannot make an eventfd");

    cs_tls_listener *listener = cs_alloc(sizeof *listener);
    listener->fd = fd;
    listener->stop_fd = stop_fd;
    fd = stop_fd = -1;
    listener->port = port_of(listener->fd);
    listener->timeout_ms = timeout_ms;
    listener->serve = serve;
    listener->self = self;
    listener->context = CS_TAKE(context);
    listener->caller_most = connections - connections / 4;
    pthread_mutex_init(&listener->context_lock, NULL);
    pthread_mutex_init(&listener->callers_lock, NULL);
    cs_status status = start_threads(listener, connections);
    if (status != CS_OK) {
        cs_tls_listener_stop(listener);
        return status;
    }
    *ret = listener;
    return CS_OK;
}

uint16_t cs_tls_listener_port(const cs_tls_listener *listener)
{
    return listener->port;
}

cs_status cs_tls_listener_reload(cs_tls_listener *listener, cs_bytes certificate_pem, const cs_tls_key *key)
{
    SSL_CTX *fresh = NULL;
    CS_TRY(listener_context(certificate_pem, key, &fresh));
    pthread_mutex_lock(&listener->context_lock);
    SSL_CTX *old = listener->context;
    listener->context = fresh;
    pthread_mutex_unlock(&listener->context_lock);
    SSL_CTX_free(old); /* connections that began with it hold it until they end */
    return CS_OK;
}

void cs_tls_listener_stop(cs_tls_listener *listener)
{
    if (listener == NULL)
        return;
    const uint64_t one = 1;
    CS_IGNORE(cs_file_write(listener->stop_fd, &one, sizeof one), "an eventfd takes its first 1 always");
    for (size_t i = 0; i < listener->threads_count; i++)
        pthread_join(listener->threads[i], NULL);
    cs_fd_clear(&listener->fd);
    cs_fd_clear(&listener->stop_fd);
    SSL_CTX_free(listener->context);
    pthread_mutex_destroy(&listener->context_lock);
    pthread_mutex_destroy(&listener->callers_lock);
    cs_free(listener->threads);
    cs_free(listener);
}
