/* The coordinator's configuration, and that the file `init` writes is one. */
#include "common/config/server.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "consortium: cardiac\nname: Cardiac consortium\naddress: coordinator.example.org\n"

static char *folder;

static int make_folder(void **state)
{
    (void)state;
    folder = cs_strdup("/tmp/config-server-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    cs_status status = cs_folder_remove(folder);
    cs_free(folder);
    return status == CS_OK ? 0 : -1;
}

static cs_status load(const char *yaml, cs_server_config **ret)
{
    CS_AUTO(cs_string) path = cs_path_join(folder, "server.yaml");

    assert_int_equal(cs_file_write_atomic(path, cs_bytes_of_text(yaml), 0600), CS_OK);
    return cs_server_config_load(path, ret);
}

static void assert_refused(const char *yaml, const char *expected)
{
    cs_server_config *config = NULL;

    assert_int_equal(load(yaml, &config), CS_INVALID);
    assert_null(config);
    if (!strstr(cs_error_text(), expected))
        fail_msg("found    \"%s\"\nexpected \"%s\"", cs_error_text(), expected);
}

static void a_short_file_gets_the_defaults(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_server_config) config = NULL;

    assert_int_equal(load(HEAD, &config), CS_OK);

    assert_string_equal(config->consortium, "cardiac");
    assert_string_equal(config->display_name, "Cardiac consortium");
    assert_string_equal(config->address, "coordinator.example.org");
    assert_string_equal(config->listen, "0.0.0.0");
    assert_int_equal(config->port, 8443);
    assert_int_equal(config->enrolment_port, 8444);
    assert_true(config->threads >= 1);
    assert_true(config->disk_reserve_bytes == UINT64_C(1) << 30);
    assert_int_equal(config->leaf_life_ms, 7 * 24 * 3600 * 1000LL);
    assert_null(config->metrics);
}

static void every_key_is_read(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_server_config) config = NULL;

    assert_int_equal(load(HEAD "listen: 127.0.0.1\nport: 0\nenrolment_port: 0\nthreads: 3\ndisk_reserve: 512MiB\n"
                               "certificate_life: 90s\nmetrics: \"[::1]:9464\"\n",
                          &config),
                     CS_OK);

    assert_string_equal(config->listen, "127.0.0.1");
    assert_int_equal(config->port, 0);
    assert_int_equal(config->threads, 3);
    assert_true(config->disk_reserve_bytes == UINT64_C(512) << 20);
    assert_int_equal(config->leaf_life_ms, 90000);
    assert_string_equal(config->metrics, "[::1]:9464");
}

static void the_file_that_init_writes_says_what_init_was_told(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_server_config) config = NULL;
    CS_AUTO(cs_string)
    text = cs_server_config_template("cardiac", "Herz \"und\" Kreislauf: Köln #1", "coordinator.example.org", 9443, 0);

    assert_int_equal(load(text, &config), CS_OK);

    assert_string_equal(config->consortium, "cardiac");
    assert_string_equal(config->display_name, "Herz \"und\" Kreislauf: Köln #1");
    assert_int_equal(config->port, 9443);
    assert_int_equal(config->enrolment_port, 0);
    assert_int_equal(config->leaf_life_ms, 7 * 24 * 3600 * 1000LL);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;

    assert_refused(HEAD "port: 65536\n", "server.yaml:4:7: port: found 65536, expected a whole number, 0 … 65535");
    assert_refused(HEAD "port: 8444\n", "server.yaml:1:1: found 8444, expected another port than 'port'");
    assert_refused(HEAD "threads: 0\n", "server.yaml:4:10: threads: found 0, expected a whole number, 1 … 256");
    assert_refused(HEAD "disk_reserve: 5\n", "server.yaml:4:15: disk_reserve: found 5, expected a size such as");
    assert_refused(HEAD "disk_reserve: 99999999999TiB\n", "server.yaml:4:15: disk_reserve: found 99999999999TiB");
    assert_refused(HEAD "certificate_life: 1y\n", "server.yaml:4:19: certificate_life: found 1y, expected a duration");
    assert_refused(HEAD "certificate_life: 91d\n",
                   "server.yaml:4:19: certificate_life: found 91d, expected a duration");
    assert_refused(HEAD "metrics: 0.0.0.0:9464\n",
                   "server.yaml:4:10: metrics: found 0.0.0.0:9464, expected an address of this machine alone");
    assert_refused(HEAD "metrics: [127.0.0.1]\n", "server.yaml:4:10: metrics: found a list of 1, expected");
    assert_refused(HEAD "prot: 1\n", "server.yaml:4:1: found the key \"prot\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_file_gets_the_defaults),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(the_file_that_init_writes_says_what_init_was_told),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
