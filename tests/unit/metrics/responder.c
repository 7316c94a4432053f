/* The HTTP side: what is asked, by whom, and what somebody slow or loud can do. */
#include "common/metrics/responder.h"

#include "common/base/clock.h"
#include "common/base/loopback.h"
#include "tests/unit/base/cmocka_all.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 60000

static int judge(const char *request)
{
    return cs_metrics_judge(cs_bytes_of_text(request));
}

static void only_get_metrics_is_answered(void **state)
{
    (void)state;

    assert_int_equal(judge("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_int_equal(judge("GET /metrics HTTP/1.0\r\n\r\n"), 200);
    assert_int_equal(judge("GET /metrics?collect=all HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"), 200);
    assert_int_equal(judge("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    assert_int_equal(judge("GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    assert_int_equal(judge("GET /metric HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    assert_int_equal(judge("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
    assert_int_equal(judge("GETS /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
}

static void what_is_no_http_is_a_bad_request(void **state)
{
    (void)state;

    assert_int_equal(judge("\r\n\r\n"), 400);
    assert_int_equal(judge("GET /metrics\r\n\r\n"), 400);
    assert_int_equal(judge("GET /metrics HTTP/2.0\r\n\r\n"), 400);
    assert_int_equal(judge("GET /metrics HTTP/1.1 \r\n\r\n"), 400);
    assert_int_equal(judge(" /metrics HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(judge("GET /metrics HTTP/1.1\r\nno colon\r\n\r\n"), 400);
    assert_int_equal(judge("GET /metrics HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n"), 400);
    assert_int_equal(judge("GET /metrics HTTP/1.1\r\nHost: a\x01\r\n\r\n"), 400);
    assert_int_equal(judge("GET /metrics HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), 400);
    assert_int_equal(judge("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400);
    assert_int_equal(cs_metrics_judge(cs_bytes_of("GET /metrics HTTP/1.1\r\n\0: b\r\n\r\n", 32)), 400);
}

static void a_request_is_waited_for_until_its_limit(void **state)
{
    (void)state;
    char text[CS_METRICS_REQUEST_MAX_BYTES + 1];
    memset(text, 'a', sizeof(text));

    assert_int_equal(judge(""), 0);
    assert_int_equal(judge("GET /metrics HTTP/1.1\r\nHost: a\r\n"), 0);
    assert_int_equal(cs_metrics_judge(cs_bytes_of(text, CS_METRICS_REQUEST_MAX_BYTES - 1)), 0);
    assert_int_equal(cs_metrics_judge(cs_bytes_of(text, CS_METRICS_REQUEST_MAX_BYTES)), 431);
}

static bool is_loopback(const char *text)
{
    struct sockaddr_storage address;
    socklen_t size = 0;
    return cs_loopback_parse(text, &address, &size) == CS_OK;
}

static void only_addresses_of_this_machine_are_listened_on(void **state)
{
    (void)state;

    assert_true(is_loopback("127.0.0.1:9464"));
    assert_true(is_loopback("127.3.2.1:0"));
    assert_true(is_loopback("[::1]:9464"));
    assert_true(is_loopback("localhost:65535"));
    static const char *const refused[] = {"0.0.0.0:9464",
                                          "[::]:9464",
                                          "192.0.2.1:9464",
                                          "::1:9464",
                                          "128.0.0.1:9464",
                                          "126.0.0.1:9464",
                                          "127.0.0.1:65536",
                                          "127.0.0.1:",
                                          "127.0.0.1",
                                          "127.1:9464",
                                          "9464",
                                          ":9464",
                                          "localhost.example.org:9464",
                                          "127.0.0.1.example.org:9464",
                                          "127.0.0.1:+1"};
    for (size_t i = 0; i < CS_COUNT(refused); i++)
        assert_false(is_loopback(refused[i]));
    assert_non_null(strstr(cs_error_text(), "expected 127.0.0.1:PORT"));
}

/* ---- over sockets ---- */

struct page {
    cs_status status;
    size_t padding;
};

static cs_status fill(void *self, cs_metrics_page *page)
{
    const struct page *what = self;
    if (what->status != CS_OK)
        return cs_fail(what->status, "the engine does not answer");
    cs_metrics_family(page, "a", CS_GAUGE, "A.");
    cs_metrics_count(page, 1);
    for (size_t i = 0; i < what->padding; i++)
        cs_buffer_append_text(page->out, "# a comment that makes the page longer than a socket's buffers\n");
    return CS_OK;
}

static cs_metrics_responder *start(struct page *what, int64_t timeout_ms)
{
    cs_metrics_config config = {.address = "127.0.0.1:0", .timeout_ms = timeout_ms, .fill = fill, .self = what};
    cs_metrics_responder *responder = NULL;
    assert_int_equal(cs_metrics_start(&config, &responder), CS_OK);
    return responder;
}

static int dial(const cs_metrics_responder *responder)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(cs_metrics_port(responder))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* All that comes until the other side closes. */
static void listen_to_end(int fd, cs_buffer *ret)
{
    char bytes[4096];
    for (;;) {
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&polled, 1, PATIENCE_MS), 1);
        const ssize_t size = recv(fd, bytes, sizeof(bytes), 0);
        if (size <= 0)
            break;
        cs_buffer_append(ret, bytes, (size_t)size);
    }
    close(fd);
}

static void a_page_is_served_whole_and_the_connection_ends(void **state)
{
    (void)state;
    struct page what = {.padding = 100000};
    cs_metrics_responder *responder = start(&what, 0);
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;

    const int fd = dial(responder);
    say(fd, "GET /metrics HTTP/1.1\r\nHo");
    say(fd, "st: a\r\n\r\n");
    listen_to_end(fd, &answer);

    const char *text = cs_buffer_text(&answer);
    assert_ptr_equal(strstr(text, "HTTP/1.1 200 OK\r\n"), text);
    assert_non_null(strstr(text, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    const char *body = strstr(text, "\r\n\r\n") + 4;
    size_t said = 0;
    assert_int_equal(sscanf(strstr(text, "Content-Length: "), "Content-Length: %zu", &said), 1);
    assert_int_equal(said, answer.size - (size_t)(body - text));
    assert_ptr_equal(strstr(body, "# HELP a A.\n"), body);
    cs_metrics_stop(responder);
}

static void a_request_that_is_too_long_still_reads_why(void **state)
{
    (void)state;
    struct page what = {0};
    cs_metrics_responder *responder = start(&what, 0);
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;

    const int fd = dial(responder);
    say(fd, "GET /metrics HTTP/1.1\r\n");
    for (int i = 0; i < 100; i++)
        say(fd, "X-Filling: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
    listen_to_end(fd, &answer);

    assert_non_null(strstr(cs_buffer_text(&answer), "HTTP/1.1 431 "));
    cs_metrics_stop(responder);
}

static void a_page_that_cannot_be_made_is_said_to_be_so(void **state)
{
    (void)state;
    struct page what = {.status = CS_UNAVAILABLE};
    cs_metrics_responder *responder = start(&what, 0);
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;

    const int fd = dial(responder);
    say(fd, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    listen_to_end(fd, &answer);

    assert_non_null(strstr(cs_buffer_text(&answer), "HTTP/1.1 503 "));
    assert_non_null(strstr(cs_buffer_text(&answer), "the engine does not answer\n"));
    cs_metrics_stop(responder);
}

static void those_who_say_nothing_keep_nobody_out(void **state)
{
    (void)state;
    struct page what = {0};
    cs_metrics_responder *responder = start(&what, 0);
    int silent[4 * CS_METRICS_CONNECTIONS];
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;

    for (size_t i = 0; i < CS_COUNT(silent); i++) {
        silent[i] = dial(responder);
        say(silent[i], "GET /metr");
    }
    const int fd = dial(responder);
    say(fd, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    listen_to_end(fd, &answer);

    assert_non_null(strstr(cs_buffer_text(&answer), "HTTP/1.1 200 OK"));
    for (size_t i = 0; i < CS_COUNT(silent); i++)
        close(silent[i]);
    cs_metrics_stop(responder);
}

static void a_connection_ends_at_its_deadline(void **state)
{
    (void)state;
    struct page what = {0};
    cs_metrics_responder *responder = start(&what, 50);
    CS_AUTO(cs_buffer) answer = CS_BUFFER_EMPTY;

    const int fd = dial(responder);
    say(fd, "GET /metrics HTTP/1.1\r\n");
    listen_to_end(fd, &answer);

    assert_int_equal(answer.size, 0);
    cs_metrics_stop(responder);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    struct page what = {0};
    cs_metrics_responder *responder = start(&what, 0);
    CS_AUTO(cs_string) address = cs_format("127.0.0.1:%u", cs_metrics_port(responder));
    cs_metrics_config config = {.address = address, .fill = fill, .self = &what};
    cs_metrics_responder *second = NULL;

    assert_int_equal(cs_metrics_start(&config, &second), CS_EXISTS);

    assert_non_null(strstr(cs_error_text(), address));
    config.address = "0.0.0.0:0";
    assert_int_equal(cs_metrics_start(&config, &second), CS_INVALID);
    cs_metrics_stop(responder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_get_metrics_is_answered),
        cmocka_unit_test(what_is_no_http_is_a_bad_request),
        cmocka_unit_test(a_request_is_waited_for_until_its_limit),
        cmocka_unit_test(only_addresses_of_this_machine_are_listened_on),
        cmocka_unit_test(a_page_is_served_whole_and_the_connection_ends),
        cmocka_unit_test(a_request_that_is_too_long_still_reads_why),
        cmocka_unit_test(a_page_that_cannot_be_made_is_said_to_be_so),
        cmocka_unit_test(those_who_say_nothing_keep_nobody_out),
        cmocka_unit_test(a_connection_ends_at_its_deadline),
        cmocka_unit_test(a_port_in_use_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
