/* A tiny HTTP/1.1 server for one page. One thread, at most CS_METRICS_CONNECTIONS sockets, each with a buffer of fixed
 * size and one deadline for everything; a connection carries one request. See responder.h. */
#include "common/metrics/responder.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/loopback.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG         16
#define ACCEPT_PAUSE_MS 100

/* ---- the request ---- */

/* RFC 9110, 5.6.2 */
static bool is_token(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        const bool is_letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!is_letter && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
            return false;
    }
    return size > 0;
}

/* One "name: value" line; the value is visible ASCII, blanks and bytes above it. */
static bool is_header(const char *line, size_t size)
{
    const char *colon = memchr(line, ':', size);
    if (colon == NULL || !is_token(line, (size_t)(colon - line)))
        return false;
    for (const char *c = colon + 1; c < line + size; c++)
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7F)
            return false;
    return true;
}

static int judge_line(const char *line, size_t size)
{
    const char *target = memchr(line, ' ', size);
    const char *version = target != NULL ? memchr(target + 1, ' ', size - (size_t)(target + 1 - line)) : NULL;
    if (version == NULL || !is_token(line, (size_t)(target - line)))
        return 400;
    const size_t version_size = size - (size_t)(version + 1 - line);
    if (version_size != 8 || (memcmp(version + 1, "HTTP/1.1", 8) != 0 && memcmp(version + 1, "HTTP/1.0", 8) != 0))
        return 400;
    target++;
    const size_t target_size = (size_t)(version - target);
    const char *query = memchr(target, '?', target_size);
    const size_t path_size = query != NULL ? (size_t)(query - target) : target_size;
    if (path_size != strlen("/metrics") || memcmp(target, "/metrics", path_size) != 0)
        return 404;
    return target - 1 - line == 3 && memcmp(line, "GET", 3) == 0 ? 200 : 405;
}

int cs_metrics_judge(cs_bytes request)
{
    const char *text = (const char *)request.data;
    const char *end = request.size > 0 ? memmem(text, request.size, "\r\n\r\n", 4) : NULL;
    if (end == NULL)
        return request.size >= CS_METRICS_REQUEST_MAX_BYTES ? 431 : 0;
    const char *line_end = memmem(text, (size_t)(end + 2 - text), "\r\n", 2);
    const int status = judge_line(text, (size_t)(line_end - text));
    for (const char *line = line_end + 2; line < end + 2; line = line_end + 2) {
        line_end = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        if (!is_header(line, (size_t)(line_end - line)))
            return 400;
    }
    return status;
}

/* ---- connections ---- */

struct connection {
    cs_fd fd; /* -1: free */
    int64_t ends_ms;
    size_t received;
    cs_buffer answer; /* empty while the request is read */
    size_t sent;
    bool is_done; /* all sent: what still comes is read and forgotten, or its arrival would destroy the answer */
    char request[CS_METRICS_REQUEST_MAX_BYTES];
};

struct cs_metrics_responder {
    cs_metrics_config config;
    cs_fd listener;
    cs_fd wake; /* readable: stop */
    pthread_t thread;
    struct connection connections[CS_METRICS_CONNECTIONS];
};

static void end_connection(struct connection *connection)
{
    cs_fd_clear(&connection->fd);
    cs_buffer_clear(&connection->answer);
    *connection = (struct connection){.fd = -1};
}

static const char *phrase_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    default:
        return "Bad Request";
    }
}

static void make_answer(const cs_metrics_responder *responder, struct connection *connection, int status)
{
    CS_AUTO(cs_buffer) body = CS_BUFFER_EMPTY;
    if (status == 200) {
        cs_metrics_page page = cs_metrics_to(&body);
        if (responder->config.fill(responder->config.self, &page) != CS_OK) {
            status = 503;
            cs_buffer_reset(&body);
            cs_buffer_printf(&body, "%s\n", cs_error_text());
        }
    } else {
        cs_buffer_printf(&body, "%s: only GET /metrics is answered here\n", phrase_of(status));
    }
    cs_buffer_printf(&connection->answer,
                     "HTTP/1.1 %d %s\r\nContent-Type: text/plain%s; charset=utf-8\r\nContent-Length: %zu\r\n%s"
                     "Connection: close\r\n\r\n",
                     status, phrase_of(status), status == 200 ? "; version=0.0.4" : "", body.size,
                     status == 405 ? "Allow: GET\r\n" : "");
    cs_buffer_append(&connection->answer, body.data, body.size);
}

/* True: the connection is over. */
static bool receive(const cs_metrics_responder *responder, struct connection *connection)
{
    char forgotten[512];
    const bool is_reading = connection->answer.size == 0;
    char *to = is_reading ? connection->request + connection->received : forgotten;
    const size_t room = is_reading ? sizeof(connection->request) - connection->received : sizeof(forgotten);
    const ssize_t size = recv(connection->fd, to, room, 0);
    if (size <= 0)
        return size == 0 || (errno != EAGAIN && errno != EINTR);
    if (!is_reading)
        return false;
    connection->received += (size_t)size;
    const int status = cs_metrics_judge(cs_bytes_of(connection->request, connection->received));
    if (status != 0)
        make_answer(responder, connection, status);
    return false;
}

static bool transmit(struct connection *connection)
{
    const ssize_t size = send(connection->fd, connection->answer.data + connection->sent,
                              connection->answer.size - connection->sent, MSG_NOSIGNAL);
    if (size < 0)
        return errno != EAGAIN && errno != EINTR;
    connection->sent += (size_t)size;
    if (connection->sent == connection->answer.size) {
        connection->is_done = true;
        shutdown(connection->fd, SHUT_WR);
    }
    return false;
}

static short wanted_of(const struct connection *connection)
{
    return connection->answer.size > 0 && !connection->is_done ? POLLOUT : POLLIN;
}

static void serve(const cs_metrics_responder *responder, struct connection *connection, short ready)
{
    bool is_over = cs_clock_monotonic_ms() >= connection->ends_ms;
    if (!is_over && ready != 0)
        is_over = wanted_of(connection) == POLLOUT ? transmit(connection) : receive(responder, connection);
    if (is_over)
        end_connection(connection);
}

/* A free place, else that of the one which has been here longest. */
static struct connection *place_for_one(cs_metrics_responder *responder)
{
    struct connection *oldest = &responder->connections[0];
    for (size_t i = 0; i < CS_METRICS_CONNECTIONS; i++) {
        struct connection *connection = &responder->connections[i];
        if (connection->fd < 0)
            return connection;
        if (connection->ends_ms < oldest->ends_ms)
            oldest = connection;
    }
    end_connection(oldest);
    return oldest;
}

static void accept_one(cs_metrics_responder *responder)
{
    CS_AUTO(cs_fd) fd = accept4(responder->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            cs_sleep_ms(ACCEPT_PAUSE_MS); /* the caller waits meanwhile; the thread must not spin */
        return;
    }
    struct connection *connection = place_for_one(responder);
    connection->fd = fd;
    connection->ends_ms = cs_clock_monotonic_ms() + responder->config.timeout_ms;
    fd = -1;
}

static int time_left(const cs_metrics_responder *responder)
{
    int64_t ends_ms = INT64_MAX;
    for (size_t i = 0; i < CS_METRICS_CONNECTIONS; i++)
        if (responder->connections[i].fd >= 0)
            ends_ms = CS_MIN(ends_ms, responder->connections[i].ends_ms);
    return ends_ms == INT64_MAX ? -1 : (int)CS_MAX(ends_ms - cs_clock_monotonic_ms(), (int64_t)0);
}

static void *run(void *argument)
{
    cs_metrics_responder *responder = argument;
    for (;;) {
        struct pollfd polled[CS_METRICS_CONNECTIONS + 2] = {{.fd = responder->wake, .events = POLLIN},
                                                            {.fd = responder->listener, .events = POLLIN}};
        for (size_t i = 0; i < CS_METRICS_CONNECTIONS; i++) /* poll passes over -1 */
            polled[i + 2] =
                (struct pollfd){.fd = responder->connections[i].fd, .events = wanted_of(&responder->connections[i])};
        if (poll(polled, CS_COUNT(polled), time_left(responder)) < 0)
            continue; /* EINTR */
        if (polled[0].revents != 0)
            return NULL;
        for (size_t i = 0; i < CS_METRICS_CONNECTIONS; i++)
            if (responder->connections[i].fd >= 0)
                serve(responder, &responder->connections[i], polled[i + 2].revents);
        if (polled[1].revents != 0)
            accept_one(responder);
    }
}

/* ---- start and stop ---- */

static cs_status listen_on(const char *text, cs_fd *ret)
{
    struct sockaddr_storage address;
    socklen_t size = 0;
    CS_TRY(cs_loopback_parse(text, &address, &size));
    CS_AUTO(cs_fd) fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return cs_fail_errno("metrics: no socket for %s", text);
    const int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(fd, (const struct sockaddr *)&address, size) != 0) {
        if (errno == EADDRINUSE)
            return cs_fail(CS_EXISTS, "metrics: another program listens on %s: give `metrics` another port", text);
        return cs_fail_errno("metrics: %s", text);
    }
    if (listen(fd, BACKLOG) != 0)
        return cs_fail_errno("metrics: %s", text);
    *ret = fd;
    fd = -1;
    return CS_OK;
}

cs_status cs_metrics_start(const cs_metrics_config *config, cs_metrics_responder **ret)
{
    CS_AUTO(cs_fd) listener = -1;
    CS_TRY(listen_on(config->address, &listener));
    CS_AUTO(cs_fd) wake = eventfd(0, EFD_CLOEXEC);
    if (wake < 0)
        return cs_fail_errno("metrics: eventfd");
    cs_metrics_responder *responder = cs_alloc(sizeof(*responder));
    responder->config = *config;
    responder->config.address = NULL; /* the caller's */
    if (responder->config.timeout_ms == 0)
        responder->config.timeout_ms = CS_METRICS_TIMEOUT_MS;
    for (size_t i = 0; i < CS_METRICS_CONNECTIONS; i++)
        responder->connections[i].fd = -1;
    responder->listener = listener;
    responder->wake = wake;
    listener = wake = -1;
    if (pthread_create(&responder->thread, NULL, run, responder) != 0)
        abort(); /* no thread at all: nothing this process could still do */
    *ret = responder;
    return CS_OK;
}

uint16_t cs_metrics_port(const cs_metrics_responder *responder)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    if (getsockname(responder->listener, (struct sockaddr *)&address, &size) != 0)
        return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

void cs_metrics_stop(cs_metrics_responder *responder)
{
    if (responder == NULL)
        return;
    CS_IGNORE(cs_file_write(responder->wake, &(uint64_t){1}, sizeof(uint64_t)), "an eventfd takes its first count");
    pthread_join(responder->thread, NULL);
    for (size_t i = 0; i < CS_METRICS_CONNECTIONS; i++)
        end_connection(&responder->connections[i]);
    cs_fd_clear(&responder->listener);
    cs_fd_clear(&responder->wake);
    cs_free(responder);
}
