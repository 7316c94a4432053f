/* TLS over loopback: what is trusted, what is refused and in which words, slow peers, proxies, clean stops.
 * Certificates are made for the moment of the test, so the clocks are the real ones except where a test says otherwise.
 */
#include "common/crypto/tls.h"

#include "tests/unit/crypto/folder.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define DAY_MS     (24 * 3600 * 1000LL)
#define PATIENT_MS 20000 /* never reached unless something is broken */
#define SHORT_MS   50    /* for the tests in which the deadline is the point */

static cs_tls_key *root_key, *leaf_key, *other_root_key;
static cs_buffer root_pem, leaf_pem, other_root_pem;

static void issue(cs_tls_key *by, const cs_buffer *by_pem, const char *const *addresses, int64_t now_ms, cs_buffer *ret)
{
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    must_be_ok(cs_csr_make(leaf_key, &csr));
    cs_leaf_request request = {.csr_der = cs_buffer_view(&csr),
                               .consortium = "cardiac",
                               .role = CS_ROLE_COORDINATOR,
                               .addresses = addresses,
                               .now_ms = now_ms,
                               .life_ms = DAY_MS,
                               .serial = {1}};
    cs_buffer_reset(ret);
    must_be_ok(cs_leaf_issue(by, cs_buffer_view(by_pem), &request, ret));
}

static int make_keys(void **state)
{
    static const char *const addresses[] = {"localhost", "127.0.0.1", NULL};
    int result = folder_make(state);
    must_be_ok(cs_tls_key_new(&root_key));
    must_be_ok(cs_tls_key_new(&leaf_key));
    must_be_ok(cs_tls_key_new(&other_root_key));
    int64_t now_ms = cs_clock_wall_ms();
    must_be_ok(cs_authority_make(root_key, "cardiac", "Cardiac consortium", now_ms, &root_pem));
    must_be_ok(cs_authority_make(other_root_key, "other", "Another consortium", now_ms, &other_root_pem));
    issue(root_key, &root_pem, addresses, now_ms, &leaf_pem);
    return result;
}

static int forget_keys(void **state)
{
    cs_tls_key_free(root_key);
    cs_tls_key_free(leaf_key);
    cs_tls_key_free(other_root_key);
    cs_buffer_clear(&root_pem);
    cs_buffer_clear(&leaf_pem);
    cs_buffer_clear(&other_root_pem);
    return folder_remove(state);
}

/* Answers each byte with the next one, until the caller goes. */
static void serve_increments(void *self, cs_tls *tls)
{
    uint8_t byte;
    while (cs_tls_read_exact(tls, &byte, 1) == CS_OK) {
        byte++;
        if (cs_tls_write(tls, &byte, 1) != CS_OK)
            return;
    }
    if (self != NULL)
        atomic_fetch_add((atomic_int *)self, 1);
}

static cs_tls_listener *listen_with(const cs_buffer *certificate, size_t connections, int64_t timeout_ms, void *self)
{
    cs_tls_listener *listener = NULL;
    must_be_ok(cs_tls_listener_start("127.0.0.1", 0, cs_buffer_view(certificate), leaf_key, connections, timeout_ms,
                                     serve_increments, self, &listener));
    return listener;
}

static cs_tls_target target_of(const cs_tls_listener *listener)
{
    return (cs_tls_target){.host = "127.0.0.1",
                           .port = cs_tls_listener_port(listener),
                           .authority_pem = cs_buffer_view(&root_pem),
                           .timeout_ms = PATIENT_MS};
}

static void exchange(cs_tls *tls)
{
    uint8_t byte = 41;
    must_be_ok(cs_tls_write(tls, &byte, 1));
    must_be_ok(cs_tls_read_exact(tls, &byte, 1));
    assert_int_equal(byte, 42);
}

/* A peer that is no TLS listener: `run` gets one connection, closed afterwards. */
typedef struct raw_peer {
    int fd;
    uint16_t port;
    void (*run)(struct raw_peer *peer, int connection);
    const char *answer;
    uint16_t forward_port;
    char seen[2048];
    pthread_t thread;
} raw_peer;

static void *raw_peer_run(void *argument)
{
    raw_peer *peer = argument;
    int connection = accept(peer->fd, NULL, NULL);
    if (connection >= 0) {
        peer->run(peer, connection);
        close(connection);
    }
    return NULL;
}

static void raw_peer_start(raw_peer *peer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(peer->fd >= 0);
    assert_int_equal(bind(peer->fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(peer->fd, 4), 0);
    assert_int_equal(getsockname(peer->fd, (struct sockaddr *)&address, &size), 0);
    peer->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&peer->thread, NULL, raw_peer_run, peer), 0);
}

static void raw_peer_end(raw_peer *peer)
{
    shutdown(peer->fd, SHUT_RDWR);
    pthread_join(peer->thread, NULL);
    close(peer->fd);
}

static void say(int fd, const char *text)
{
    ssize_t sent = send(fd, text, strlen(text), MSG_NOSIGNAL);
    (void)sent; /* the other side may be gone already; the test looks at what it says */
}

static void wait_for_end(int fd)
{
    char bytes[512];
    while (recv(fd, bytes, sizeof bytes, 0) > 0) {
    }
}

/* Reads the request line and headers into `seen`. */
static void read_request(raw_peer *peer, int connection)
{
    size_t size = 0;
    while (size < sizeof peer->seen - 1 && strstr(peer->seen, "\r\n\r\n") == NULL) {
        ssize_t got = recv(connection, peer->seen + size, sizeof peer->seen - 1 - size, 0);
        if (got <= 0)
            return;
        size += (size_t)got;
        peer->seen[size] = 0;
    }
}

static void answer_and_wait(raw_peer *peer, int connection)
{
    read_request(peer, connection);
    say(connection, peer->answer);
    wait_for_end(connection);
}

static void greet_in_plain_text(raw_peer *peer, int connection)
{
    (void)peer;
    say(connection, "220 smtp.example.org ready\r\n");
    wait_for_end(connection);
}

static void say_nothing(raw_peer *peer, int connection)
{
    (void)peer;
    wait_for_end(connection);
}

static void hang_up(raw_peer *peer, int connection)
{
    (void)peer;
    (void)connection;
}

static void forward(raw_peer *peer, int connection)
{
    read_request(peer, connection);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(peer->forward_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(other, (struct sockaddr *)&address, sizeof address) == 0) {
        say(connection, peer->answer);
        struct pollfd polled[] = {{.fd = connection, .events = POLLIN}, {.fd = other, .events = POLLIN}};
        for (bool is_open = true; is_open && poll(polled, 2, -1) > 0;) {
            for (int i = 0; i < 2 && is_open; i++) {
                char bytes[4096];
                ssize_t got = polled[i].revents != 0 ? recv(polled[i].fd, bytes, sizeof bytes, 0) : -1;
                if (polled[i].revents != 0)
                    is_open = got > 0 && send(polled[1 - i].fd, bytes, (size_t)got, MSG_NOSIGNAL) == got;
            }
        }
    }
    close(other);
}

static void bytes_go_both_ways_by_address_and_by_name(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 2, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    const char *const hosts[] = {"127.0.0.1", "localhost"};

    for (size_t i = 0; i < CS_COUNT(hosts); i++) {
        target.host = hosts[i];
        CS_AUTO_PTR(cs_tls) tls = NULL;
        must_be_ok(cs_tls_connect(&target, &tls));
        exchange(tls);
        CS_AUTO(cs_buffer) shown = CS_BUFFER_EMPTY;
        must_be_ok(cs_tls_peer_certificate(tls, &shown));
        assert_true(cs_bytes_equal(cs_buffer_view(&shown), cs_buffer_view(&leaf_pem)));
    }
    cs_tls_listener_stop(listener);
}

static void many_bytes_arrive_whole(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    CS_AUTO_PTR(cs_tls) tls = NULL;
    must_be_ok(cs_tls_connect(&target, &tls));
    enum { SIZE = 10000 };
    uint8_t sent[SIZE], back[SIZE];
    cs_crypto_random(sent, sizeof sent);

    must_be_ok(cs_tls_write(tls, sent, sizeof sent));
    must_be_ok(cs_tls_read_exact(tls, back, sizeof back));

    for (size_t i = 0; i < SIZE; i++)
        assert_int_equal(back[i], (uint8_t)(sent[i] + 1));
    cs_tls_free(CS_TAKE(tls));
    cs_tls_listener_stop(listener);
}

static void another_authority_is_refused_with_the_issuer_that_was_found(void **state)
{
    (void)state;
    atomic_int served = 0;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, &served);
    cs_tls_target target = target_of(listener);
    target.authority_pem = cs_buffer_view(&other_root_pem);
    cs_tls *tls = NULL;

    must_fail(cs_tls_connect(&target, &tls), CS_UNAUTHENTICATED, "did not issue", "CN=Cardiac consortium");

    cs_tls_listener_stop(listener);
    assert_int_equal(served, 0);
}

static void another_name_is_refused_with_the_names_that_were_found(void **state)
{
    (void)state;
    static const char *const elsewhere[] = {"coordinator.example.org", "192.0.2.1", NULL};
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    issue(root_key, &root_pem, elsewhere, cs_clock_wall_ms(), &certificate);
    cs_tls_listener *listener = listen_with(&certificate, 1, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    cs_tls *tls = NULL;

    must_fail(cs_tls_connect(&target, &tls), CS_UNAUTHENTICATED, "for 'coordinator.example.org, 192.0.2.1'",
              "not for '127.0.0.1'");
    target.host = "localhost";
    must_fail(cs_tls_connect(&target, &tls), CS_UNAUTHENTICATED, "not for 'localhost'");
    cs_tls_listener_stop(listener);
}

static void an_expired_certificate_is_refused_with_both_clocks(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    cs_tls *tls = NULL;
    int64_t wall_ms = cs_clock_wall_ms(), monotonic_ms = cs_clock_monotonic_ms();

    cs_clock_fake(monotonic_ms, wall_ms + 2 * DAY_MS);
    must_fail(cs_tls_connect(&target, &tls), CS_UNAUTHENTICATED, "has expired", "the clock here says");
    cs_clock_fake(monotonic_ms, wall_ms - DAY_MS);
    must_fail(cs_tls_connect(&target, &tls), CS_UNAUTHENTICATED, "valid");
    cs_clock_real();

    cs_tls_listener_stop(listener);
}

static void a_site_certificate_does_not_pass_for_the_coordinator(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    static const char *const addresses[] = {"127.0.0.1", NULL};
    must_be_ok(cs_csr_make(leaf_key, &csr));
    cs_leaf_request request = {.csr_der = cs_buffer_view(&csr),
                               .consortium = "cardiac",
                               .role = CS_ROLE_SITE,
                               .name = "mercy",
                               .addresses = addresses,
                               .now_ms = cs_clock_wall_ms(),
                               .life_ms = DAY_MS,
                               .serial = {1}};
    must_be_ok(cs_leaf_issue(root_key, cs_buffer_view(&root_pem), &request, &certificate));
    cs_tls_listener *listener = listen_with(&certificate, 1, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    cs_tls *tls = NULL;

    must_fail(cs_tls_connect(&target, &tls), CS_UNAUTHENTICATED, "purpose");
    cs_tls_listener_stop(listener);
}

static void probe_shows_the_certificate_without_trusting_it(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    target.authority_pem = cs_buffer_view(&other_root_pem);
    CS_AUTO(cs_tls_shown) shown = {0};

    must_be_ok(cs_tls_probe(&target, &shown));

    assert_true(cs_bytes_equal(cs_buffer_view(&shown.certificate_pem), cs_buffer_view(&leaf_pem)));
    assert_non_null(strstr(shown.issuer, "CN=Cardiac consortium"));
    assert_non_null(strstr(shown.subject, "CN=coordinator"));
    cs_tls_listener_stop(listener);
}

static void an_unknown_name_and_a_closed_port_are_told_apart(void **state)
{
    (void)state;
    raw_peer peer = {.run = hang_up};
    raw_peer_start(&peer);
    raw_peer_end(&peer); /* a port that was free a moment ago */
    cs_tls_target target = {
        .host = "127.0.0.1", .port = peer.port, .authority_pem = cs_buffer_view(&root_pem), .timeout_ms = PATIENT_MS};
    cs_tls *tls = NULL;

    must_fail(cs_tls_connect(&target, &tls), CS_UNAVAILABLE, "cannot connect to 127.0.0.1:", "refused");
    target.host = "coordinator.invalid";
    assert_int_not_equal(cs_tls_connect(&target, &tls), CS_OK);
    assert_non_null(strstr(cs_error_text(), "address of 'coordinator.invalid'"));
    target.host = "two words";
    must_fail(cs_tls_connect(&target, &tls), CS_INVALID, "two words");
    target.host = "host\r\nX-Injected: 1";
    must_fail(cs_tls_connect(&target, &tls), CS_INVALID, "neither");
}

static void a_peer_that_speaks_plain_text_is_refused(void **state)
{
    (void)state;
    raw_peer peer = {.run = greet_in_plain_text};
    raw_peer_start(&peer);
    cs_tls_target target = {
        .host = "127.0.0.1", .port = peer.port, .authority_pem = cs_buffer_view(&root_pem), .timeout_ms = PATIENT_MS};
    cs_tls *tls = NULL;

    must_fail(cs_tls_connect(&target, &tls), CS_UNAVAILABLE, "127.0.0.1:", "TLS 1.3");
    raw_peer_end(&peer);
}

static void a_peer_that_hangs_up_is_named(void **state)
{
    (void)state;
    raw_peer peer = {.run = hang_up};
    raw_peer_start(&peer);
    cs_tls_target target = {
        .host = "127.0.0.1", .port = peer.port, .authority_pem = cs_buffer_view(&root_pem), .timeout_ms = PATIENT_MS};
    cs_tls *tls = NULL;

    must_fail(cs_tls_connect(&target, &tls), CS_UNAVAILABLE, "127.0.0.1:", "handshake");
    raw_peer_end(&peer);
}

static void a_silent_peer_meets_the_deadline(void **state)
{
    (void)state;
    raw_peer peer = {.run = say_nothing};
    raw_peer_start(&peer);
    cs_tls_target target = {
        .host = "127.0.0.1", .port = peer.port, .authority_pem = cs_buffer_view(&root_pem), .timeout_ms = SHORT_MS};
    cs_tls *tls = NULL;

    must_fail(cs_tls_connect(&target, &tls), CS_DEADLINE, "in time");
    raw_peer_end(&peer);
}

static void a_listener_that_stays_silent_meets_the_deadline_of_the_exchange(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    CS_AUTO_PTR(cs_tls) tls = NULL;
    int64_t wall_ms = cs_clock_wall_ms();
    cs_clock_fake(1000, wall_ms);
    must_be_ok(cs_tls_connect(&target, &tls));
    uint8_t byte;

    cs_clock_fake_advance(PATIENT_MS);
    must_fail(cs_tls_read_exact(tls, &byte, 1), CS_DEADLINE, "in time");

    cs_clock_real();
    cs_tls_free(CS_TAKE(tls));
    cs_tls_listener_stop(listener);
}

static int connect_raw(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void a_silent_caller_does_not_keep_the_only_place_for_ever(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, SHORT_MS, NULL);
    int silent = connect_raw(cs_tls_listener_port(listener));

    wait_for_end(silent); /* the listener ends it, by its deadline */

    close(silent);
    cs_tls_listener_stop(listener);
}

static void callers_beyond_the_cap_wait_their_turn(void **state)
{
    (void)state;
    atomic_int served = 0;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, &served);
    cs_tls_target target = target_of(listener);
    CS_AUTO_PTR(cs_tls) first = NULL;
    must_be_ok(cs_tls_connect(&target, &first));
    exchange(first);

    cs_tls_target impatient = target;
    impatient.timeout_ms = SHORT_MS;
    cs_tls *second = NULL;
    must_fail(cs_tls_connect(&impatient, &second), CS_DEADLINE, "in time");
    cs_tls_free(CS_TAKE(first));
    CS_AUTO_PTR(cs_tls) third = NULL;
    must_be_ok(cs_tls_connect(&target, &third));
    exchange(third);

    cs_tls_free(CS_TAKE(third));
    cs_tls_listener_stop(listener);
}

static void stop_does_not_wait_for_callers_that_say_nothing(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 2, 24 * 3600 * 1000, NULL);
    int silent = connect_raw(cs_tls_listener_port(listener));
    cs_tls_target target = target_of(listener);
    CS_AUTO_PTR(cs_tls) tls = NULL;
    must_be_ok(cs_tls_connect(&target, &tls));
    exchange(tls);

    cs_tls_listener_stop(listener); /* hangs for a day if it waits */

    uint8_t byte;
    assert_int_equal(cs_tls_read_exact(tls, &byte, 1), CS_UNAVAILABLE);
    close(silent);
}

static void one_address_never_has_every_connection(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 4, DAY_MS, NULL);
    int silent[3];
    for (size_t i = 0; i < 3; i++)
        silent[i] = connect_raw(cs_tls_listener_port(listener));

    int fourth = connect_raw(cs_tls_listener_port(listener));
    uint8_t byte;
    assert_int_equal(recv(fourth, &byte, 1, 0), 0); /* closed at once: who else calls is served */

    cs_tls_target target = target_of(listener); /* it comes from 127.0.0.1, as the others do */
    CS_AUTO_PTR(cs_tls) tls = NULL;
    close(silent[0]);
    cs_status status = CS_UNAVAILABLE;
    while (status == CS_UNAVAILABLE) /* until the listener has seen it go */
        status = cs_tls_connect(&target, &tls);
    must_be_ok(status);
    exchange(tls);
    cs_tls_free(CS_TAKE(tls));
    close(fourth);
    close(silent[1]);
    close(silent[2]);
    cs_tls_listener_stop(listener);
}

static void a_reloaded_certificate_is_shown_to_new_connections(void **state)
{
    (void)state;
    static const char *const addresses[] = {"127.0.0.1", NULL};
    cs_tls_listener *listener = listen_with(&leaf_pem, 2, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    CS_AUTO_PTR(cs_tls) before = NULL;
    must_be_ok(cs_tls_connect(&target, &before));
    CS_AUTO(cs_buffer) fresh = CS_BUFFER_EMPTY;
    issue(root_key, &root_pem, addresses, cs_clock_wall_ms() + 60000, &fresh);

    must_be_ok(cs_tls_listener_reload(listener, cs_buffer_view(&fresh), leaf_key));
    must_fail(cs_tls_listener_reload(listener, cs_buffer_view(&fresh), root_key), CS_INVALID, "private key");

    CS_AUTO_PTR(cs_tls) after = NULL;
    must_be_ok(cs_tls_connect(&target, &after));
    CS_AUTO(cs_buffer) shown = CS_BUFFER_EMPTY;
    must_be_ok(cs_tls_peer_certificate(after, &shown));
    assert_true(cs_bytes_equal(cs_buffer_view(&shown), cs_buffer_view(&fresh)));
    exchange(before); /* goes on as it began */
    cs_tls_free(CS_TAKE(before));
    cs_tls_free(CS_TAKE(after));
    cs_tls_listener_stop(listener);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, NULL);
    CS_AUTO(cs_string) port = cs_format("%u", cs_tls_listener_port(listener));
    cs_tls_listener *second = NULL;

    cs_status status = cs_tls_listener_start("127.0.0.1", cs_tls_listener_port(listener), cs_buffer_view(&leaf_pem),
                                             leaf_key, 1, PATIENT_MS, serve_increments, NULL, &second);

    assert_int_not_equal(status, CS_OK);
    assert_non_null(strstr(cs_error_text(), port));
    must_fail(cs_tls_listener_start("not an address", 0, cs_buffer_view(&leaf_pem), leaf_key, 1, PATIENT_MS,
                                    serve_increments, NULL, &second),
              CS_INVALID, "not an address");
    must_fail(cs_tls_listener_start("127.0.0.1", 0, cs_buffer_view(&leaf_pem), leaf_key, 65, PATIENT_MS,
                                    serve_increments, NULL, &second),
              CS_INVALID, "65");
    cs_tls_listener_stop(listener);
}

static void a_proxy_is_asked_with_its_login_and_then_out_of_the_way(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, NULL);
    raw_peer proxy = {.run = forward,
                      .forward_port = cs_tls_listener_port(listener),
                      .answer = "HTTP/1.1 200 Connection established\r\nVia: example\r\n\r\n"};
    raw_peer_start(&proxy);
    CS_AUTO(cs_string) proxy_address = cs_format("127.0.0.1:%u", proxy.port);
    cs_tls_target target = target_of(listener);
    target.host = "localhost";
    target.proxy = proxy_address;
    target.proxy_login = "mercy:open sesame";
    CS_AUTO_PTR(cs_tls) tls = NULL;

    must_be_ok(cs_tls_connect(&target, &tls));
    exchange(tls);

    cs_tls_free(CS_TAKE(tls));
    raw_peer_end(&proxy);
    cs_tls_listener_stop(listener);
    CS_AUTO(cs_string) first =
        cs_format("CONNECT localhost:%u HTTP/1.1\r\nHost: localhost:%u\r\n", target.port, target.port);
    assert_memory_equal(proxy.seen, first, strlen(first));
    assert_non_null(strstr(proxy.seen, "Proxy-Authorization: Basic bWVyY3k6b3BlbiBzZXNhbWU=\r\n"));
}

static void proxies_that_refuse_or_talk_nonsense_are_named(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) endless = CS_BUFFER_EMPTY;
    cs_buffer_append_text(&endless, "HTTP/1.1 200 OK\r\n");
    while (endless.size <= CS_PROXY_ANSWER_MAX_BYTES)
        cs_buffer_append_text(&endless, "X-Padding: yes\r\n");
    const struct {
        const char *answer, *said;
        cs_status status;
    } cases[] = {
        {"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wants a login", CS_UNAUTHENTICATED},
        {"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Type: text/html\r\n\r\n<html>Who?", "wants a login",
         CS_UNAUTHENTICATED},
        {"HTTP/1.0 401 Unauthorized\r\n\r\n<html>", "wants a login", CS_UNAUTHENTICATED},
        {"HTTP/1.1 403 Forbidden\r\n\r\n<html>No", "refuses to connect to localhost:1: '403 Forbidden'", CS_DENIED},
        {"HTTP/1.1 403 Forbidden\r\n\r\n", "refuses to connect to localhost:1: '403 Forbidden'", CS_DENIED},
        {"HTTP/1.1 302 \x1b[31mFound\r\n\r\n", "'302 ?[31mFound'", CS_DENIED},
        {"HTTP/2 200 OK\r\n\r\n", "does not answer with HTTP", CS_INVALID},
        {"HTTP/1.1 20 OK\r\n\r\n", "does not answer with HTTP", CS_INVALID},
        {"220 smtp.example.org\r\n\r\n", "does not answer with HTTP", CS_INVALID},
        {"HTTP/1.1 200 OK\r\n\r\nearly", "before the connection was open", CS_INVALID},
        {cs_buffer_text(&endless), "more than 8192 bytes", CS_INVALID},
    };
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        raw_peer proxy = {.run = answer_and_wait, .answer = cases[i].answer};
        raw_peer_start(&proxy);
        CS_AUTO(cs_string) address = cs_format("127.0.0.1:%u", proxy.port);
        cs_tls_target target = {.host = "localhost",
                                .port = 1,
                                .proxy = address,
                                .authority_pem = cs_buffer_view(&root_pem),
                                .timeout_ms = PATIENT_MS};
        cs_tls *tls = NULL;
        must_fail(cs_tls_connect(&target, &tls), cases[i].status, "proxy 127.0.0.1:", cases[i].said);
        raw_peer_end(&proxy);
    }
}

static void a_proxy_that_is_silent_gone_or_misnamed_is_told_apart(void **state)
{
    (void)state;
    raw_peer silent = {.run = say_nothing}, gone = {.run = hang_up};
    raw_peer_start(&silent);
    raw_peer_start(&gone);
    cs_tls_target target = {
        .host = "localhost", .port = 1, .authority_pem = cs_buffer_view(&root_pem), .timeout_ms = SHORT_MS};
    cs_tls *tls = NULL;

    CS_AUTO(cs_string) silent_address = cs_format("127.0.0.1:%u", silent.port);
    target.proxy = silent_address;
    must_fail(cs_tls_connect(&target, &tls), CS_DEADLINE, "proxy 127.0.0.1:", "in time");
    raw_peer_end(&silent);

    CS_AUTO(cs_string) gone_address = cs_format("127.0.0.1:%u", gone.port);
    target.proxy = gone_address;
    target.timeout_ms = PATIENT_MS;
    must_fail(cs_tls_connect(&target, &tls), CS_UNAVAILABLE, "proxy 127.0.0.1:");
    raw_peer_end(&gone);
    must_fail(cs_tls_connect(&target, &tls), CS_UNAVAILABLE, "proxy", "cannot connect");

    target.proxy = "proxy.example.org";
    must_fail(cs_tls_connect(&target, &tls), CS_INVALID, "proxy", "host:port");
}

static void the_environment_names_no_proxy(void **state)
{
    (void)state;
    cs_tls_listener *listener = listen_with(&leaf_pem, 1, PATIENT_MS, NULL);
    cs_tls_target target = target_of(listener);
    setenv("https_proxy", "http://127.0.0.1:1", 1);
    setenv("HTTPS_PROXY", "http://127.0.0.1:1", 1);
    CS_AUTO_PTR(cs_tls) tls = NULL;

    must_be_ok(cs_tls_connect(&target, &tls));

    exchange(tls);
    cs_tls_free(CS_TAKE(tls));
    cs_tls_listener_stop(listener);
}

static void addresses_are_host_and_port(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {{"coordinator.example.org:8443", "coordinator.example.org", 8443},
                {"127.0.0.1:1", "127.0.0.1", 1},
                {"[2001:db8::1]:65535", "2001:db8::1", 65535}};
    static const char *const bad[] = {
        "",        "host",       ":8443",     "host:",       "host:0", "host:65536", "host:x", "::1:5",      "[::1]5",
        "host:-1", "ho st:8443", "[host]:80", "host:8443/x", "[]:80",  "a:b:c",      "[::1:5", "host:080000"};
    char host[CS_HOST_BYTES];
    uint16_t port = 0;

    for (size_t i = 0; i < CS_COUNT(good); i++) {
        must_be_ok(cs_address_parse(good[i].text, "coordinator", host, &port));
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < CS_COUNT(bad); i++)
        must_fail(cs_address_parse(bad[i], "coordinator", host, &port), CS_INVALID, "coordinator", bad[i]);
    CS_AUTO(cs_buffer) longest = CS_BUFFER_EMPTY;
    while (longest.size < CS_HOST_BYTES)
        cs_buffer_append_text(&longest, "a");
    cs_buffer_append_text(&longest, ":80");
    must_fail(cs_address_parse(cs_buffer_text(&longest), "coordinator", host, &port), CS_INVALID, "coordinator");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways_by_address_and_by_name),
        cmocka_unit_test(many_bytes_arrive_whole),
        cmocka_unit_test(another_authority_is_refused_with_the_issuer_that_was_found),
        cmocka_unit_test(another_name_is_refused_with_the_names_that_were_found),
        cmocka_unit_test(an_expired_certificate_is_refused_with_both_clocks),
        cmocka_unit_test(a_site_certificate_does_not_pass_for_the_coordinator),
        cmocka_unit_test(probe_shows_the_certificate_without_trusting_it),
        cmocka_unit_test(an_unknown_name_and_a_closed_port_are_told_apart),
        cmocka_unit_test(a_peer_that_speaks_plain_text_is_refused),
        cmocka_unit_test(a_peer_that_hangs_up_is_named),
        cmocka_unit_test(a_silent_peer_meets_the_deadline),
        cmocka_unit_test(a_listener_that_stays_silent_meets_the_deadline_of_the_exchange),
        cmocka_unit_test(a_silent_caller_does_not_keep_the_only_place_for_ever),
        cmocka_unit_test(callers_beyond_the_cap_wait_their_turn),
        cmocka_unit_test(stop_does_not_wait_for_callers_that_say_nothing),
        cmocka_unit_test(one_address_never_has_every_connection),
        cmocka_unit_test(a_reloaded_certificate_is_shown_to_new_connections),
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(a_proxy_is_asked_with_its_login_and_then_out_of_the_way),
        cmocka_unit_test(proxies_that_refuse_or_talk_nonsense_are_named),
        cmocka_unit_test(a_proxy_that_is_silent_gone_or_misnamed_is_told_apart),
        cmocka_unit_test(the_environment_names_no_proxy),
        cmocka_unit_test(addresses_are_host_and_port),
    };
    return cmocka_run_group_tests(tests, make_keys, forget_keys);
}
