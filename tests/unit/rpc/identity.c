/* Who may connect and as whom; certificates that run out, change, or are of strangers; ports and sockets that are
 * taken. */
#include "tests/unit/rpc/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DAY_MS (24 * 3600 * 1000LL)

static void nobody_without_a_certificate_gets_through_the_handshake(void **state)
{
    rig *rig = *state;
    cs_rpc_channel_config config = {.target = rig->target};
    config.identity.authority_pem = cs_buffer_view(&rig->root.pem);
    CS_AUTO_PTR(cs_rpc_channel) channel = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &channel));

    must_fail(ask(channel, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "Check: the address", "certificate has not run out",
              "names 'localhost'");

    assert_int_equal(read_count(&rig->seen, &rig->seen.opened), 0);
}

static void a_certificate_of_another_authority_is_refused(void **state)
{
    rig *rig = *state;
    authority strangers = {0};
    leaf mercy = {0};
    authority_make(&strangers);
    leaf_make(&mercy, &strangers, "mercy", NULL, cs_clock_wall_ms());

    CS_AUTO_PTR(cs_rpc_channel) with_ours = connect_as(rig, &mercy); /* it trusts the right server */
    must_fail(ask(with_ours, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "same authority");
    cs_rpc_channel_config config = {.target = rig->target, .identity = identity_of(&rig->mercy, &strangers)};
    CS_AUTO_PTR(cs_rpc_channel) with_theirs =
        NULL; /* and the other way round: it does not know the server's authority */
    must_be_ok(cs_rpc_channel_open(&config, &with_theirs));
    must_fail(ask(with_theirs, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "same authority");

    assert_int_equal(read_count(&rig->seen, &rig->seen.opened), 0);
    cs_tls_key_free(strangers.key);
    cs_buffer_clear(&strangers.pem);
    cs_buffer_clear(&mercy.pem);
    cs_secret_clear(&mercy.key_pem);
}

static void an_expired_certificate_is_refused(void **state)
{
    rig *rig = *state;
    leaf old = {0};
    leaf_make(&old, &rig->root, "mercy", NULL, cs_clock_wall_ms() - 2 * CS_LEAF_LIFE_MS);
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &old);

    must_fail(ask(channel, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "run out");

    cs_buffer_clear(&old.pem);
    cs_secret_clear(&old.key_pem);
}

static void a_server_of_another_name_is_not_believed(void **state)
{
    rig *rig = *state;
    cs_rpc_channel_config config = {.target = rig->target,
                                    .identity = identity_of(&rig->mercy, &rig->root),
                                    .server_name = "coordinator.example.org"};
    CS_AUTO_PTR(cs_rpc_channel) channel = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &channel));

    must_fail(ask(channel, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "names 'coordinator.example.org'");
}

/* A site's certificate must not do for a coordinator's. */
static void a_site_cannot_pass_for_the_coordinator(void **state)
{
    rig *rig = *state;
    cs_rpc_server_config config = server_config(rig);
    config.unix_socket = NULL;
    config.identity = identity_of(&rig->mercy, &rig->root);
    cs_rpc_server *impostor = NULL;
    must_be_ok(cs_rpc_server_start(&config, &impostor));
    char target[64];
    snprintf(target, sizeof target, "localhost:%u", cs_rpc_server_port(impostor));
    cs_rpc_channel_config connection = {.target = target, .identity = identity_of(&rig->mercy, &rig->root)};
    CS_AUTO_PTR(cs_rpc_channel) channel = NULL;
    must_be_ok(cs_rpc_channel_open(&connection, &channel));

    must_fail(ask(channel, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "certificate");

    cs_rpc_server_stop(impostor, 0);
}

static void a_server_can_be_reached_by_its_ip_address(void **state)
{
    rig *rig = *state;
    char target[64];
    snprintf(target, sizeof target, "127.0.0.1:%u", cs_rpc_server_port(rig->server));
    cs_rpc_channel_config config = {.target = target, .identity = identity_of(&rig->mercy, &rig->root)};
    CS_AUTO_PTR(cs_rpc_channel) channel = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &channel));

    must_be_ok(ask(channel, UNARY, 1, 0, NULL));
}

static void a_call_ends_when_its_certificate_does(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) remote = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_channel) local = connect_locally(rig);
    CS_AUTO_PTR(cs_rpc_stream) theirs = open_stream(remote, HANG, COORD);
    CS_AUTO_PTR(cs_rpc_stream) ours = open_stream(local, HANG, COORD);
    wait_until(&rig->seen, &rig->seen.opened, 2);

    cs_clock_fake(cs_clock_monotonic_ms(), cs_clock_wall_ms() + CS_LEAF_LIFE_MS + DAY_MS);

    must_fail(read_next(theirs, -1), CS_UNAUTHENTICATED, "run out");
    must_fail(ask(remote, UNARY, 1, 0, NULL), CS_UNAUTHENTICATED, "run out");
    must_be_ok(ask(local, UNARY, 1, 0, NULL)); /* the operator's socket has no certificate */
    assert_int_equal(read_next(ours, 0), CS_DEADLINE);
}

static void new_connections_see_the_new_certificate_and_old_ones_go_on(void **state)
{
    rig *rig = *state;
    CS_AUTO_PTR(cs_rpc_channel) old = connect_as(rig, &rig->mercy);
    must_be_ok(ask(old, UNARY, 1, 0, NULL));
    cs_rpc_channel_config config = {
        .target = rig->target, .identity = identity_of(&rig->mercy, &rig->root), .server_name = "renewed.example.org"};
    CS_AUTO_PTR(cs_rpc_channel) early = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &early));
    must_fail(ask(early, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "renewed.example.org");
    leaf renewed = {0};
    leaf_make(&renewed, &rig->root, NULL, "renewed.example.org", cs_clock_wall_ms());

    must_be_ok(cs_rpc_server_reload(rig->server, identity_of(&renewed, &rig->root)));

    CS_AUTO_PTR(cs_rpc_channel) late = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &late));
    must_be_ok(ask(late, UNARY, 1, 0, NULL));
    must_be_ok(ask(old, UNARY, 1, 0, NULL));
    cs_buffer_clear(&renewed.pem);
    cs_secret_clear(&renewed.key_pem);
}

static void a_reload_that_makes_no_sense_changes_nothing(void **state)
{
    rig *rig = *state;
    cs_rpc_identity mixed = identity_of(&rig->coordinator, &rig->root);
    mixed.key_pem = identity_of(&rig->mercy, &rig->root).key_pem;

    assert_int_not_equal(cs_rpc_server_reload(rig->server, mixed), CS_OK);
    assert_int_not_equal(cs_rpc_server_reload(rig->server, (cs_rpc_identity){0}), CS_OK);

    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    must_be_ok(ask(channel, UNARY, 1, 0, NULL));
}

static void two_channels_are_two_connections(void **state)
{
    rig *rig = *state;
    leaf charity = {0};
    leaf_make(&charity, &rig->root, "charity", NULL, cs_clock_wall_ms());
    CS_AUTO_PTR(cs_rpc_channel) first = connect_as(rig, &rig->mercy);
    CS_AUTO_PTR(cs_rpc_channel) second = connect_as(rig, &charity);

    must_be_ok(ask(first, UNARY, 1, 0, NULL));
    assert_string_equal(rig->seen.last_name, "mercy");
    must_be_ok(ask(second, UNARY, 1, 0, NULL));
    assert_string_equal(rig->seen.last_name, "charity");
    must_be_ok(ask(first, UNARY, 1, 0, NULL));
    assert_string_equal(rig->seen.last_name, "mercy");

    cs_buffer_clear(&charity.pem);
    cs_secret_clear(&charity.key_pem);
}

static void a_second_server_on_the_port_is_told_so(void **state)
{
    rig *rig = *state;
    char listen[64];
    snprintf(listen, sizeof listen, "127.0.0.1:%u", cs_rpc_server_port(rig->server));
    cs_rpc_server_config config = server_config(rig);
    config.listen = listen;
    config.unix_socket = NULL;
    cs_rpc_server *second = NULL;

    must_fail(cs_rpc_server_start(&config, &second), CS_EXISTS, listen);
    config.listen = "no-such-host.invalid:1";
    must_fail(cs_rpc_server_start(&config, &second), CS_INVALID, "no-such-host.invalid:1");
    config.listen = "8443";
    must_fail(cs_rpc_server_start(&config, &second), CS_INVALID, "HOST:PORT");
}

static void a_socket_that_answers_is_not_taken_and_a_dead_one_is_replaced(void **state)
{
    rig *rig = *state;
    cs_rpc_server_config config = server_config(rig);
    cs_rpc_server *second = NULL;
    must_fail(cs_rpc_server_start(&config, &second), CS_EXISTS, "another process answers");
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_locally(rig);
    must_be_ok(ask(channel, UNARY, 1, 0, NULL));

    /* As a killed daemon leaves it: the file, and nobody behind it. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CS_AUTO(cs_string) path = cs_path_join(rig->folder, "dead.sock");
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&address, sizeof address), 0);
    close(dead);
    config.unix_socket = path;
    must_be_ok(cs_rpc_server_start(&config, &second));
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
    cs_rpc_server_stop(second, 0);

    CS_AUTO(cs_string) file = cs_path_join(rig->folder, "notes.txt");
    must_be_ok(cs_file_write_atomic(file, cs_bytes_of_text("keep me"), 0600));
    config.unix_socket = file;
    must_fail(cs_rpc_server_start(&config, &second), CS_EXISTS, "not a socket");
    assert_true(cs_file_exists(file));
    config.unix_socket = "/nonexistent-folder/admin.sock";
    must_fail(cs_rpc_server_start(&config, &second), CS_UNAVAILABLE, "/nonexistent-folder/admin.sock");
}

static void nothing_answers_is_said_as_such(void **state)
{
    rig *rig = *state;
    CS_AUTO(cs_string) target = cs_format("unix:%s/nobody.sock", rig->folder);
    cs_rpc_channel_config config = {.target = target};
    CS_AUTO_PTR(cs_rpc_channel) channel = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &channel));

    must_fail(ask(channel, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "nobody.sock", "is the daemon running?");
    config.target = "localhost";
    config.identity = identity_of(&rig->mercy, &rig->root);
    CS_AUTO_PTR(cs_rpc_channel) wrong = NULL;
    must_fail(cs_rpc_channel_open(&config, &wrong), CS_INVALID, "HOST:PORT");
}

/* ---- through a proxy ---- */

struct proxy {
    int listener;
    uint16_t port;
    char request[4096];
};

/* Takes one CONNECT and refuses it, keeping what was asked: the tunnel itself is the core's business. */
static void *refuse_connect(void *self)
{
    struct proxy *proxy = self;
    int client = accept(proxy->listener, NULL, NULL);
    size_t size = 0;
    while (size + 1 < sizeof proxy->request && !strstr(proxy->request, "\r\n\r\n")) {
        ssize_t got = recv(client, proxy->request + size, sizeof proxy->request - 1 - size, 0);
        if (got <= 0)
            break;
        size += (size_t)got;
        proxy->request[size] = 0;
    }
    const char answer[] = "HTTP/1.0 403 Forbidden\r\n\r\n";
    send(client, answer, sizeof answer - 1, MSG_NOSIGNAL);
    close(client);
    return NULL;
}

static void a_proxy_is_asked_for_the_coordinator_with_its_login(void **state)
{
    rig *rig = *state;
    struct proxy proxy = {.listener = socket(AF_INET, SOCK_STREAM, 0)};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(proxy.listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(proxy.listener, 1), 0);
    assert_int_equal(getsockname(proxy.listener, (struct sockaddr *)&address, &size), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, refuse_connect, &proxy), 0);
    char where[32];
    snprintf(where, sizeof where, "127.0.0.1:%u", ntohs(address.sin_port));
    cs_rpc_channel_config config = {.target = "coordinator.example.org:8443",
                                    .identity = identity_of(&rig->mercy, &rig->root),
                                    .proxy = where,
                                    .proxy_login = "user:password"};
    CS_AUTO_PTR(cs_rpc_channel) channel = NULL;
    must_be_ok(cs_rpc_channel_open(&config, &channel));

    must_fail(ask(channel, UNARY, 1, 0, NULL), CS_UNAVAILABLE, "coordinator.example.org:8443", "proxy");

    pthread_join(thread, NULL);
    close(proxy.listener);
    assert_non_null(strstr(proxy.request, "CONNECT coordinator.example.org:8443 HTTP/1."));
    assert_non_null(strstr(proxy.request, "Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA=="));
}

static void the_environment_s_proxies_are_not_used(void **state)
{
    rig *rig = *state;
    setenv("http_proxy", "http://127.0.0.1:9", 1);
    setenv("https_proxy", "http://127.0.0.1:9", 1);
    setenv("grpc_proxy", "http://127.0.0.1:9", 1);
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);

    must_be_ok(ask(channel, UNARY, 1, 0, NULL));

    unsetenv("http_proxy");
    unsetenv("https_proxy");
    unsetenv("grpc_proxy");
}

#define STRANGERS 8

static void connect_to(int fd, uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
}

/* Without a certificate, or even a byte: it costs them nothing. */
static void strangers_that_take_every_descriptor_do_not_silence_the_port(void **state)
{
    rig *rig = *state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int strangers[STRANGERS];
    for (size_t i = 0; i < STRANGERS; i++) {
        strangers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
        assert_int_equal(setsockopt(strangers[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    }
    small = before;
    small.rlim_cur = 256;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    int fillers[256];
    size_t count = 0;
    while ((fillers[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    assert_int_equal(errno, EMFILE);

    for (size_t i = 0; i < STRANGERS; i++) {
        connect_to(strangers[i], cs_rpc_server_port(rig->server));
        char byte;
        assert_true(recv(strangers[i], &byte, 1, 0) == 0 || errno == ECONNRESET); /* turned away, at once */
    }
    for (size_t i = 0; i < count; i++)
        close(fillers[i]);
    CS_AUTO_PTR(cs_rpc_channel) channel = connect_as(rig, &rig->mercy);
    must_be_ok(ask(channel, UNARY, 1, 0, NULL));

    for (size_t i = 0; i < STRANGERS; i++)
        close(strangers[i]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void connections_leave_half_of_the_descriptors_to_files(void **state)
{
    rig *rig = *state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int stranger = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    small = before;
    small.rlim_cur = (rlim_t)stranger * 2; /* the next descriptor is of the upper half */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);

    connect_to(stranger, cs_rpc_server_port(rig->server));
    char byte;
    assert_true(recv(stranger, &byte, 1, 0) == 0 || errno == ECONNRESET);

    close(stranger);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    cs_rpc_start();
#define rig_test(name) cmocka_unit_test_setup_teardown(name, rig_start, rig_stop)
    const struct CMUnitTest tests[] = {
        rig_test(nobody_without_a_certificate_gets_through_the_handshake),
        rig_test(a_certificate_of_another_authority_is_refused),
        rig_test(an_expired_certificate_is_refused),
        rig_test(a_server_of_another_name_is_not_believed),
        rig_test(a_site_cannot_pass_for_the_coordinator),
        rig_test(a_server_can_be_reached_by_its_ip_address),
        rig_test(a_call_ends_when_its_certificate_does),
        rig_test(new_connections_see_the_new_certificate_and_old_ones_go_on),
        rig_test(a_reload_that_makes_no_sense_changes_nothing),
        rig_test(two_channels_are_two_connections),
        rig_test(a_second_server_on_the_port_is_told_so),
        rig_test(a_socket_that_answers_is_not_taken_and_a_dead_one_is_replaced),
        rig_test(nothing_answers_is_said_as_such),
        rig_test(a_proxy_is_asked_for_the_coordinator_with_its_login),
        rig_test(the_environment_s_proxies_are_not_used),
        rig_test(strangers_that_take_every_descriptor_do_not_silence_the_port),
        rig_test(connections_leave_half_of_the_descriptors_to_files),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cs_rpc_stop();
    return failed;
}
