/* Names, connections and proxies, each with the deadline of the whole exchange. Called by tls.c on the caller's thread;
 * a name is looked up on a thread of its own, because the resolver knows no deadline. RFC 9110 section 9.3.6. */
#include "common/crypto/dial.h"

#include "common/base/clock.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PORT_TEXT_BYTES 8

cs_status cs_dial_wait(int fd, short events, int stop_fd, int64_t until_ms, const char *what)
{
    for (;;) {
        int64_t left_ms = until_ms - cs_clock_monotonic_ms();
        struct pollfd polled[] = {{.fd = fd, .events = events}, {.fd = stop_fd, .events = POLLIN}};
        int ready = left_ms > 0 ? poll(polled, 2, (int)CS_MIN(left_ms, (int64_t)INT32_MAX)) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0)
            return cs_fail_errno("cannot wait for %s", what);
        if (ready == 0)
            return cs_fail(CS_DEADLINE, "%s did not answer in time", what);
        if (polled[1].revents != 0)
            return cs_fail(CS_CANCELLED, "stopping");
        return CS_OK;
    }
}

/* ---- addresses ---- */

static bool is_host(const char *host, size_t size)
{
    if (size == 0 || size >= CS_HOST_BYTES)
        return false;
    for (size_t i = 0; i < size; i++) {
        char c = host[i];
        bool is_alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alphanumeric && strchr(".-_:", c) == NULL)
            return false;
    }
    return true;
}

cs_status cs_address_parse(const char *text, const char *what, char ret_host[CS_HOST_BYTES], uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t host_size = colon != NULL ? (size_t)(colon - text) : 0;
    bool is_bracketed = host_size > 2 && text[0] == '[' && text[host_size - 1] == ']';
    if (is_bracketed) {
        host++;
        host_size -= 2;
    }
    bool has_colon = host_size > 0 && memchr(host, ':', host_size) != NULL;
    size_t digits = colon != NULL ? strspn(colon + 1, "0123456789") : 0;
    unsigned long port = digits > 0 && digits <= 5 && colon[1 + digits] == 0 ? strtoul(colon + 1, NULL, 10) : 0;
    if (!is_host(host, host_size) || has_colon != is_bracketed || port == 0 || port > UINT16_MAX)
        return cs_fail(CS_INVALID, "%s '%.80s': expected host:port, or [address]:port for IPv6", what, text);
    memcpy(ret_host, host, host_size);
    ret_host[host_size] = 0;
    *ret_port = (uint16_t)port;
    return CS_OK;
}

/* ---- names ---- */

/* Owned by the caller and by the resolver's thread, whoever is last frees it. */
typedef struct lookup {
    char host[CS_HOST_BYTES];
    char port[PORT_TEXT_BYTES];
    pthread_mutex_t state_lock; /* guards what follows */
    pthread_cond_t changed;
    bool is_done, is_abandoned;
    int error;
    struct addrinfo *found;
} lookup;

static void lookup_free(lookup *request)
{
    if (request->found != NULL)
        freeaddrinfo(request->found);
    pthread_mutex_destroy(&request->state_lock);
    pthread_cond_destroy(&request->changed);
    cs_free(request);
}

static int resolve(const char *host, const char *port, int flags, struct addrinfo **ret)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    return getaddrinfo(host, port, &hints, ret);
}

static void *lookup_run(void *argument)
{
    lookup *request = argument;
    struct addrinfo *found = NULL;
    int error = resolve(request->host, request->port, AI_ADDRCONFIG, &found);

    pthread_mutex_lock(&request->state_lock);
    request->found = found;
    request->error = error;
    request->is_done = true;
    bool is_abandoned = request->is_abandoned;
    pthread_cond_signal(&request->changed);
    pthread_mutex_unlock(&request->state_lock);
    if (is_abandoned)
        lookup_free(request);
    return NULL;
}

static cs_status lookup_start(lookup *request)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, lookup_run, request);
    if (error != 0) {
        errno = error;
        return cs_fail_errno("cannot start a thread to find '%s'", request->host);
    }
    pthread_detach(thread);
    return CS_OK;
}

/* By name, on a thread of its own that may outlive the deadline. */
static cs_status find_by_name(const char *host, const char *port, int64_t until_ms, struct addrinfo **ret)
{
    lookup *request = cs_alloc(sizeof *request);
    snprintf(request->host, sizeof request->host, "%s", host);
    snprintf(request->port, sizeof request->port, "%s", port);
    pthread_mutex_init(&request->state_lock, NULL);
    cs_condition_init(&request->changed);
    cs_status status = lookup_start(request);
    if (status != CS_OK) {
        lookup_free(request);
        return status;
    }

    pthread_mutex_lock(&request->state_lock);
    while (!request->is_done && cs_condition_wait(&request->changed, &request->state_lock, until_ms)) {
    }
    bool is_done = request->is_done;
    request->is_abandoned = !is_done;
    pthread_mutex_unlock(&request->state_lock);
    if (!is_done)
        return cs_fail(CS_DEADLINE, "the name service did not find the address of '%s' in time", host);

    int error = request->error;
    *ret = request->found;
    request->found = NULL;
    lookup_free(request);
    if (error != 0)
        return cs_fail(CS_UNAVAILABLE, "cannot find the address of '%s': %s", host, gai_strerror(error));
    return CS_OK;
}

static cs_status find(const char *host, uint16_t port, int64_t until_ms, struct addrinfo **ret)
{
    char port_text[PORT_TEXT_BYTES];
    snprintf(port_text, sizeof port_text, "%u", port);
    if (resolve(host, port_text, AI_NUMERICHOST, ret) == 0)
        return CS_OK;
    return find_by_name(host, port_text, until_ms, ret);
}

cs_status cs_dial_find(const char *host, int64_t until_ms, char ret_address[CS_HOST_BYTES])
{
    struct addrinfo *found = NULL;
    CS_TRY(find(host, 0, until_ms, &found));
    if (getnameinfo(found->ai_addr, found->ai_addrlen, ret_address, CS_HOST_BYTES, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(ret_address, CS_HOST_BYTES, "an address");
    freeaddrinfo(found);
    return CS_OK;
}

/* ---- connections ---- */

static cs_status connect_one(const struct addrinfo *address, int64_t until_ms, const char *what, cs_fd *ret)
{
    CS_AUTO(cs_fd) fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return cs_fail_errno("cannot make a socket for %s", what);
    if (connect(fd, address->ai_addr, address->ai_addrlen) != 0) {
        if (errno != EINPROGRESS)
            return cs_fail(CS_UNAVAILABLE, "cannot connect to %s: %s", what, strerror(errno));
        CS_TRY(cs_dial_wait(fd, POLLOUT, -1, until_ms, what));
        int error = 0;
        socklen_t size = sizeof error;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0)
            return cs_fail(CS_UNAVAILABLE, "cannot connect to %s: %s", what, strerror(error));
    }
    *ret = fd;
    fd = -1;
    return CS_OK;
}

/* The addresses of a host one after the other; one that does not answer leaves time for the rest. */
static cs_status connect_host(const char *host, uint16_t port, int64_t until_ms, cs_fd *ret)
{
    struct addrinfo *found = NULL;
    CS_TRY(find(host, port, until_ms, &found));
    int left = 0;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next)
        left++;

    CS_AUTO(cs_string) what = cs_format(strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host, port);
    cs_status status = CS_UNAVAILABLE;
    for (const struct addrinfo *at = found; at != NULL && left > 0; at = at->ai_next, left--) {
        int64_t now_ms = cs_clock_monotonic_ms();
        status = connect_one(at, now_ms + (until_ms - now_ms) / left, what, ret);
        if (status == CS_OK)
            break;
    }
    freeaddrinfo(found);
    return status;
}

/* ---- proxy ---- */

static cs_status send_all(int fd, cs_bytes bytes, int64_t until_ms, const char *what)
{
    while (bytes.size > 0) {
        ssize_t sent = send(fd, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return cs_fail(CS_UNAVAILABLE, "%s ended the connection: %s", what, strerror(errno));
        if (sent < 0) {
            CS_TRY(cs_dial_wait(fd, POLLOUT, -1, until_ms, what));
            continue;
        }
        bytes.data += sent;
        bytes.size -= (size_t)sent;
    }
    return CS_OK;
}

/* "HTTP/1.1 200 Connection established" */
static cs_status check_status_line(const char *answer, size_t size, const char *what, const char *wanted)
{
    char line[128];
    const char *end = memchr(answer, '\r', size);
    size = CS_MIN(end != NULL ? (size_t)(end - answer) : size, sizeof line - 1);
    memcpy(line, answer, size);
    line[size] = 0;
    for (size_t i = 0; i < size; i++) {
        if (line[i] < ' ' || line[i] > '~')
            line[i] = '?';
    }
    bool is_http = strncmp(line, "HTTP/1.", 7) == 0 && (line[7] == '0' || line[7] == '1') && line[8] == ' ' &&
                   strspn(line + 9, "0123456789") == 3;
    if (!is_http)
        return cs_fail(CS_INVALID, "%s does not answer with HTTP: '%s'", what, line);
    /* 407 it should be; tinyproxy says 401 to a wrong login. */
    if (strncmp(line + 9, "407", 3) == 0 || strncmp(line + 9, "401", 3) == 0)
        return cs_fail(CS_UNAUTHENTICATED, "%s wants a login, or another one: '%s'", what, line + 9);
    if (line[9] != '2')
        return cs_fail(CS_DENIED, "%s refuses to connect to %s: '%s'", what, wanted, line + 9);
    return CS_OK;
}

/* TLS servers wait for the client, so nothing may follow the empty line yet. */
cs_status cs_proxy_answer_check(cs_bytes answer, const char *what, const char *wanted)
{
    if (memchr(answer.data, 0, answer.size) != NULL)
        return cs_fail(CS_INVALID, "%s does not answer with HTTP", what);
    const uint8_t *end = memmem(answer.data, answer.size, "\r\n\r\n", 4);
    if (end == NULL && answer.size < CS_PROXY_ANSWER_MAX_BYTES)
        return CS_LATER;
    if (end == NULL)
        return cs_fail(CS_INVALID, "%s answers CONNECT with more than %d bytes", what, CS_PROXY_ANSWER_MAX_BYTES);
    /* A refusal comes with a page for people; only an open way must be silent, since TLS servers wait for the client.
     */
    CS_TRY(check_status_line((const char *)answer.data, (size_t)(end - answer.data), what, wanted));
    if (end + 4 != answer.data + answer.size)
        return cs_fail(CS_INVALID, "%s sent data before the connection was open", what);
    return CS_OK;
}

static cs_status read_proxy_answer(int fd, int64_t until_ms, const char *what, const char *wanted)
{
    uint8_t answer[CS_PROXY_ANSWER_MAX_BYTES];
    cs_status status = CS_LATER;
    for (size_t size = 0; status == CS_LATER;) {
        CS_TRY(cs_dial_wait(fd, POLLIN, -1, until_ms, what));
        ssize_t got = recv(fd, answer + size, sizeof answer - size, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got <= 0)
            return cs_fail(CS_UNAVAILABLE, "%s ended the connection without an answer to CONNECT", what);
        size += (size_t)got;
        status = cs_proxy_answer_check(cs_bytes_of(answer, size), what, wanted);
    }
    return status;
}

static cs_status append_login(const char *login, cs_buffer *request)
{
    size_t size = strlen(login);
    if (size > CS_PROXY_LOGIN_MAX_BYTES || strchr(login, ':') == NULL)
        return cs_fail(CS_INVALID, "the proxy's login is not user:password of at most %d bytes",
                       CS_PROXY_LOGIN_MAX_BYTES);
    cs_buffer_append_text(request, "Proxy-Authorization: Basic ");
    cs_base64_encode(request, cs_bytes_of(login, size));
    cs_buffer_append_text(request, "\r\n");
    return CS_OK;
}

static cs_status dial_through_proxy(const cs_tls_target *target, int64_t until_ms, cs_fd *ret)
{
    char host[CS_HOST_BYTES];
    uint16_t port = 0;
    CS_TRY(cs_address_parse(target->proxy, "proxy", host, &port));
    CS_AUTO(cs_string) what = cs_format("proxy %s", target->proxy);
    CS_AUTO(cs_string) wanted =
        cs_format(strchr(target->host, ':') != NULL ? "[%s]:%u" : "%s:%u", target->host, target->port);

    CS_AUTO(cs_secret) request = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&request, 4096);
    cs_buffer_printf(&request, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", wanted, wanted);
    if (target->proxy_login != NULL)
        CS_TRY(append_login(target->proxy_login, &request));
    cs_buffer_append_text(&request, "\r\n");

    CS_AUTO(cs_fd) fd = -1;
    cs_status status = connect_host(host, port, until_ms, &fd);
    if (status != CS_OK)
        return cs_wrap(status, "proxy");
    CS_TRY(send_all(fd, cs_buffer_view(&request), until_ms, what));
    CS_TRY(read_proxy_answer(fd, until_ms, what, wanted));
    *ret = fd;
    fd = -1;
    return CS_OK;
}

cs_status cs_dial(const cs_tls_target *target, int64_t until_ms, cs_fd *ret)
{
    /* The host goes into a request line and into error sentences. */
    if (!is_host(target->host, strlen(target->host)))
        return cs_fail(CS_INVALID, "host '%.80s' is neither a DNS name nor an IP address", target->host);
    if (target->proxy != NULL)
        return dial_through_proxy(target, until_ms, ret);
    return connect_host(target->host, target->port, until_ms, ret);
}
