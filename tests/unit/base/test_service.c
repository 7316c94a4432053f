/* What the service manager hears. */
#include "common/base/service.h"

#include "common/base/bytes.h"
#include "tests/unit/base/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int manager;

/* A socket in the abstract name space, as containers have it. */
static int listen_as_manager(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CS_AUTO(cs_string) name = cs_format("@consilium-test-%d", (int)getpid());
    memcpy(address.sun_path, name, strlen(name));
    address.sun_path[0] = '\0';
    manager = socket(AF_UNIX, SOCK_DGRAM, 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return bind(manager, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name)));
}

static int stop_listening(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    return close(manager);
}

static void assert_heard(const char *expected)
{
    char heard[1024];
    const ssize_t size = recv(manager, heard, sizeof(heard) - 1, MSG_DONTWAIT);
    assert_true(size >= 0);
    heard[size] = '\0';
    assert_string_equal(heard, expected);
}

static void a_manager_hears_ready_and_status(void **state)
{
    (void)state;

    cs_service_ready();
    cs_service_status("not connected: no route");

    assert_heard("READY=1");
    assert_heard("STATUS=not connected: no route");
}

static void a_sentence_is_one_line_and_short(void **state)
{
    (void)state;
    char sentence[2000];
    memset(sentence, 'a', sizeof(sentence) - 1);
    sentence[sizeof(sentence) - 1] = '\0';

    cs_service_status("a\nMAINPID=1");
    cs_service_status(sentence);

    assert_heard("STATUS=a MAINPID=1");
    char heard[1024];
    assert_in_range(recv(manager, heard, sizeof(heard), MSG_DONTWAIT), 100, 512);
}

static void without_a_manager_nothing_happens(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    cs_service_ready();
    setenv("NOTIFY_SOCKET", "relative", 1);
    cs_service_ready();
    setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
    cs_service_ready();
    char heard[16];

    assert_int_equal(recv(manager, heard, sizeof(heard), MSG_DONTWAIT), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_manager_hears_ready_and_status, listen_as_manager, stop_listening),
        cmocka_unit_test_setup_teardown(a_sentence_is_one_line_and_short, listen_as_manager, stop_listening),
        cmocka_unit_test_setup_teardown(without_a_manager_nothing_happens, listen_as_manager, stop_listening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
