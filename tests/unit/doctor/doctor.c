/* Broken environments, and the finding that names what is wrong with each. */
#include "client/agent/doctor.h"

#include "common/base/clock.h"
#include "common/base/command.h"
#include "common/crypto/tls.h"
#include "common/rpc/rpc.h"
#include "tests/unit/place.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY_MS     (24 * 3600 * 1000LL)
#define TIMEOUT_MS 10000
#define SITE       "site: mercy\ncoordinator: 127.0.0.1:8443\n"

static const cs_finding *find(const cs_findings *findings, const char *check)
{
    for (size_t i = 0; i < findings->count; i++) {
        if (strcmp(findings->items[i].check, check) == 0)
            return &findings->items[i];
    }
    return NULL;
}

static void assert_found(const cs_findings *findings, const char *check, cs_finding_level level, const char *text)
{
    const cs_finding *finding = find(findings, check);

    if (!finding)
        fail_msg("no finding '%s' among %zu", check, findings->count);
    if (finding->level != level || !strstr(finding->found, text))
        fail_msg("%s: found level %d, \"%s\"; expected level %d, \"…%s…\"", check, finding->level, finding->found,
                 level, text);
    if (level != CS_FINDING_OK)
        assert_true(finding->expected && finding->expected[0] && finding->action && finding->action[0]);
}

static cs_site_config *site_of(const char *text)
{
    cs_site_config *config = NULL;

    if (cs_site_config_read(cs_bytes_of_text(text), "site.yaml", "/site", &config) != CS_OK)
        fail_msg("%s", cs_error_text());
    return config;
}

/* ---- what lies here ---- */

static void a_configuration_with_a_wrong_key_is_found_with_its_line(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    cs_site_config *config = NULL;
    assert_ok(cs_file_write_atomic(here->path, cs_bytes_of_text(SITE "thread: 2\n"), 0600));

    cs_doctor_configuration(here->path, &findings, &config);

    assert_null(config);
    assert_found(&findings, "configuration", CS_FINDING_FAIL, ":3:1: found the key \"thread\"");
    assert_true(cs_findings_have_failed(&findings));
}

static void a_configuration_that_is_not_there_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    cs_site_config *config = NULL;

    cs_doctor_configuration(here->path, &findings, &config);

    assert_found(&findings, "configuration", CS_FINDING_FAIL, "No such file");
}

static void put_key(const place *here, const char *name, mode_t mode)
{
    CS_AUTO(cs_string) folder = cs_path_join(here->folder, "keys");
    CS_AUTO(cs_string) path = cs_path_join(folder, name);

    assert_ok(cs_folder_make(folder, 0700));
    assert_ok(cs_file_write_atomic(path, cs_bytes_of_text("x"), 0600));
    assert_int_equal(chmod(path, mode), 0);
}

static void keys_for_the_owner_alone_are_fine(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_key(here, "signing.key", 0600);
    put_key(here, "authority.crt", 0644);

    cs_doctor_keys(here->folder, &findings);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, "keys", CS_FINDING_OK, "2 files");
}

static void a_key_that_others_may_read_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_key(here, "tls.pem", 0640); /* key and certificate in one */
    put_key(here, "signing.key", 0600);

    cs_doctor_keys(here->folder, &findings);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, "keys", CS_FINDING_FAIL, "keys/tls.pem has mode 0640");
}

static void a_certificate_that_others_may_write_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_key(here, "authority.crt", 0646);

    cs_doctor_keys(here->folder, &findings);

    assert_found(&findings, "keys", CS_FINDING_FAIL, "authority.crt has mode 0646");
}

static void a_site_without_keys_is_told_to_join(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};

    cs_doctor_keys(here->folder, &findings);

    assert_found(&findings, "keys", CS_FINDING_FAIL, "keys");
    assert_non_null(strstr(findings.items[0].action, "consilium-client join"));
}

static int out_of_reach(void *self, const char *operation, const char *path)
{
    (void)self;
    (void)path;
    return strcmp(operation, "statvfs") == 0 ? EIO : 0;
}

static void a_disk_that_cannot_be_asked_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    cs_file_set_fault(out_of_reach, NULL);

    cs_doctor_disk(here->folder, &findings);

    cs_file_set_fault(NULL, NULL);
    assert_found(&findings, "disk", CS_FINDING_FAIL, here->folder);
}

/* ---- certificate and clock ---- */

static void certificate_at(int64_t now_ms, const char *site, cs_findings *findings)
{
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE);
    cs_site_identity identity = {.leaf = {.not_before_ms = 100 * DAY_MS, .not_after_ms = 107 * DAY_MS}};
    snprintf(identity.leaf.name, sizeof identity.leaf.name, "%s", site);
    cs_clock_fake(0, now_ms);
    cs_doctor_certificate(&identity, config, findings);
    cs_clock_real();
}

static void days_left_are_told(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(101 * DAY_MS, "mercy", &findings);

    assert_found(&findings, "certificate", CS_FINDING_OK, "6.0 days left");
    assert_false(cs_findings_have_failed(&findings));
}

static void a_certificate_that_should_have_been_renewed_is_a_warning(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(106 * DAY_MS, "mercy", &findings);

    assert_found(&findings, "certificate", CS_FINDING_WARN, "1.0 days left");
}

static void an_expired_certificate_is_found_with_the_way_back(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(107 * DAY_MS + 1, "mercy", &findings);

    assert_found(&findings, "certificate", CS_FINDING_FAIL, "the certificate ended at 1970-04-18");
    assert_non_null(strstr(find(&findings, "certificate")->action, "--rejoin"));
}

static void a_clock_before_the_certificate_is_found_as_the_clock(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(99 * DAY_MS, "mercy", &findings);

    assert_null(find(&findings, "certificate"));
    assert_found(&findings, "clock", CS_FINDING_FAIL, "this machine's clock says 1970-04-10");
}

static void a_folder_of_another_site_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(101 * DAY_MS, "general", &findings);

    assert_found(&findings, "identity", CS_FINDING_FAIL, "for the site 'general', site.yaml says 'mercy'");
}

/* ---- confinement ---- */

static void confinement_of(const char *policy, cs_kernel kernel, cs_findings *findings)
{
    CS_AUTO(cs_string) text = cs_format(SITE "%s", policy);
    CS_AUTO_PTR(cs_site_config) config = site_of(text);

    cs_doctor_confinement(&kernel, config, findings);
}

static void a_kernel_with_everything_is_fine(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    confinement_of("", (cs_kernel){7, true, true}, &findings);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, "confinement", CS_FINDING_OK, "landlock 7, seccomp and no_new_privs");
}

static void a_missing_confinement_fails_unless_the_site_accepts_it_by_name(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) required = {0};
    CS_AUTO(cs_findings) other = {0};
    CS_AUTO(cs_findings) accepted = {0};
    CS_AUTO(cs_findings) preferred = {0};
    const cs_kernel kernel = {0, true, true};

    confinement_of("", kernel, &required);
    confinement_of("policy: {accept_missing: [seccomp]}\n", kernel, &other);
    confinement_of("policy: {accept_missing: [landlock]}\n", kernel, &accepted);
    confinement_of("policy: {confinement: preferred}\n", kernel, &preferred);

    assert_found(&required, "confinement", CS_FINDING_FAIL, "this kernel has no landlock");
    assert_found(&other, "confinement", CS_FINDING_FAIL, "this kernel has no landlock");
    assert_found(&accepted, "confinement", CS_FINDING_WARN, "this kernel has no landlock");
    assert_found(&preferred, "confinement", CS_FINDING_WARN, "this kernel has no landlock");
}

static void this_kernel_can_be_asked(void **state)
{
    (void)state;

    cs_kernel kernel = cs_kernel_probe();

    assert_true(kernel.landlock_abi >= 0);
    assert_true(kernel.has_no_new_privs);
}

/* ---- the line to the coordinator ---- */

typedef struct consortium {
    cs_tls_key *authority_key, *server_key, *site_key;
    cs_buffer authority_pem, server_pem;
    cs_site_identity site;
} consortium;

static void key_pem(const place *here, const cs_tls_key *key, cs_buffer *ret)
{
    assert_ok(cs_tls_key_save(key, here->path));
    assert_ok(cs_file_read_all(here->path, CS_PEM_MAX_BYTES, ret));
}

static void issue(const consortium *consortium, const cs_tls_key *key, cs_role role, cs_buffer *ret)
{
    static const char *const addresses[] = {"127.0.0.1", NULL};
    CS_AUTO(cs_buffer) csr = CS_BUFFER_EMPTY;
    assert_ok(cs_csr_make(key, &csr));
    const cs_leaf_request request = {.csr_der = cs_buffer_view(&csr),
                                     .consortium = "cardiac",
                                     .role = role,
                                     .name = role == CS_ROLE_SITE ? "mercy" : NULL,
                                     .addresses = role == CS_ROLE_SITE ? NULL : addresses,
                                     .now_ms = cs_clock_wall_ms(),
                                     .life_ms = CS_LEAF_LIFE_MS,
                                     .serial = {1}};
    assert_ok(cs_leaf_issue(consortium->authority_key, cs_buffer_view(&consortium->authority_pem), &request, ret));
}

static void consortium_make(const place *here, consortium *ret)
{
    *ret = (consortium){0};
    assert_ok(cs_tls_key_new(&ret->authority_key));
    assert_ok(cs_tls_key_new(&ret->server_key));
    assert_ok(cs_tls_key_new(&ret->site_key));
    assert_ok(cs_authority_make(ret->authority_key, "cardiac", "Cardiac consortium", cs_clock_wall_ms(),
                                &ret->authority_pem));
    issue(ret, ret->server_key, CS_ROLE_COORDINATOR, &ret->server_pem);
    issue(ret, ret->site_key, CS_ROLE_SITE, &ret->site.certificate_pem);
    key_pem(here, ret->site_key, &ret->site.key_pem);
    cs_buffer_append(&ret->site.authority_pem, ret->authority_pem.data, ret->authority_pem.size);
    assert_ok(cs_identity_read(cs_buffer_view(&ret->site.certificate_pem), &ret->site.leaf));
}

static void consortium_clear(consortium *consortium)
{
    cs_tls_key_free(consortium->authority_key);
    cs_tls_key_free(consortium->server_key);
    cs_tls_key_free(consortium->site_key);
    cs_buffer_clear(&consortium->authority_pem);
    cs_buffer_clear(&consortium->server_pem);
    cs_site_identity_clear(&consortium->site);
}

static void line_to(const char *address, uint16_t port, const cs_site_identity *identity, cs_findings *findings)
{
    CS_AUTO(cs_string) text = cs_format("site: mercy\ncoordinator: %s:%u\n", address, port);
    CS_AUTO_PTR(cs_site_config) config = site_of(text);

    cs_doctor_line(config, identity, TIMEOUT_MS, findings);
}

/* A port where nobody listens: it was free a moment ago. */
static uint16_t closed_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void a_name_without_address_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    line_to("no..such..name", 8443, NULL, &findings);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, "address", CS_FINDING_FAIL, "'no..such..name' is not found");
}

static void a_port_where_nobody_listens_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    line_to("127.0.0.1", closed_port(), NULL, &findings);

    assert_found(&findings, "address", CS_FINDING_OK, "127.0.0.1");
    assert_found(&findings, "connection", CS_FINDING_FAIL, "Connection refused");
    assert_null(find(&findings, "tls"));
}

static void hang_up(void *self, cs_tls *tls)
{
    (void)self;
    (void)tls; /* the listener closes it */
}

static cs_tls_listener *listen_as(const consortium *consortium, uint16_t *ret_port)
{
    cs_tls_listener *listener = NULL;

    assert_ok(cs_tls_listener_start("127.0.0.1", 0, cs_buffer_view(&consortium->server_pem), consortium->server_key, 2,
                                    TIMEOUT_MS, hang_up, NULL, &listener));
    *ret_port = cs_tls_listener_port(listener);
    return listener;
}

static void a_network_that_opens_tls_is_found_with_its_issuer(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours, theirs;
    uint16_t port;
    consortium_make(here, &ours);
    consortium_make(here, &theirs);
    cs_tls_listener *listener = listen_as(&theirs, &port);

    line_to("127.0.0.1", port, &ours.site, &findings);

    cs_tls_listener_stop(listener);
    assert_found(&findings, "connection", CS_FINDING_OK, "answers");
    assert_found(&findings, "tls", CS_FINDING_FAIL, "issuer 'CN=Cardiac consortium,O=cardiac'");
    assert_null(find(&findings, "coordinator"));
    consortium_clear(&ours);
    consortium_clear(&theirs);
}

static void a_clock_outside_the_coordinators_certificate_is_found_as_the_clock(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours;
    uint16_t port;
    consortium_make(here, &ours);
    cs_tls_listener *listener = listen_as(&ours, &port);
    cs_clock_fake(cs_clock_monotonic_ms(), cs_clock_wall_ms() - 30 * DAY_MS);

    line_to("127.0.0.1", port, &ours.site, &findings);

    cs_clock_real();
    cs_tls_listener_stop(listener);
    assert_found(&findings, "clock", CS_FINDING_FAIL, "this machine's clock says");
    assert_null(find(&findings, "tls"));
    consortium_clear(&ours);
}

static void a_port_that_is_not_the_coordinators_for_sites_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours;
    uint16_t port;
    consortium_make(here, &ours);
    cs_tls_listener *listener = listen_as(&ours, &port);

    line_to("127.0.0.1", port, &ours.site, &findings);

    cs_tls_listener_stop(listener);
    assert_found(&findings, "tls", CS_FINDING_OK, "a certificate of this consortium");
    assert_found(&findings, "coordinator", CS_FINDING_FAIL, "");
    consortium_clear(&ours);
}

static cs_status admit(void *context, const cs_rpc_peer *peer, const char *path)
{
    const bool *is_revoked = context;

    (void)path;
    return *is_revoked ? cs_fail(CS_DENIED, "the site '%s' is revoked", peer->identity.name) : CS_OK;
}

static cs_rpc_server *serve_as(const place *here, const consortium *consortium, bool *is_revoked)
{
    static const cs_rpc_method none[] = {{.path = NULL}};
    CS_AUTO(cs_buffer) key = CS_BUFFER_EMPTY;
    cs_rpc_server *server = NULL;
    key_pem(here, consortium->server_key, &key);
    const cs_rpc_server_config config = {
        .listen = "127.0.0.1:0",
        .methods = none,
        .local_methods = none,
        .identity = {cs_buffer_view(&consortium->server_pem), cs_buffer_view(&key),
                     cs_buffer_view(&consortium->authority_pem)},
        .context = is_revoked,
        .admit = admit,
    };

    assert_ok(cs_rpc_server_start(&config, &server));
    return server;
}

static void a_coordinator_that_takes_the_certificate_is_fine(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours;
    bool is_revoked = false;
    consortium_make(here, &ours);
    cs_rpc_server *server = serve_as(here, &ours, &is_revoked);

    line_to("127.0.0.1", cs_rpc_server_port(server), &ours.site, &findings);

    cs_rpc_server_stop(server, 1000);
    assert_found(&findings, "coordinator", CS_FINDING_OK, "takes this site's certificate");
    assert_false(cs_findings_have_failed(&findings));
    consortium_clear(&ours);
}

static void a_revoked_site_is_told_so(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours;
    bool is_revoked = true;
    consortium_make(here, &ours);
    cs_rpc_server *server = serve_as(here, &ours, &is_revoked);

    line_to("127.0.0.1", cs_rpc_server_port(server), &ours.site, &findings);

    cs_rpc_server_stop(server, 1000);
    assert_found(&findings, "tls", CS_FINDING_OK, "");
    assert_found(&findings, "coordinator", CS_FINDING_FAIL, "revoked");
    consortium_clear(&ours);
}

static void a_site_that_has_not_joined_still_sees_how_far_it_comes(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours;
    uint16_t port;
    consortium_make(here, &ours);
    cs_tls_listener *listener = listen_as(&ours, &port);

    line_to("127.0.0.1", port, NULL, &findings);

    cs_tls_listener_stop(listener);
    assert_found(&findings, "connection", CS_FINDING_OK, "answers");
    assert_found(&findings, "tls", CS_FINDING_WARN, "has not joined");
    consortium_clear(&ours);
}

static void a_proxy_login_that_is_not_there_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE "proxy: 127.0.0.1:1\nproxy_login_file: none.login\n");

    cs_doctor_line(config, NULL, TIMEOUT_MS, &findings);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, "proxy", CS_FINDING_FAIL, "/site/none.login");
}

/* ---- the data ---- */

static void a_worker_that_is_not_there_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE "worker: /none/consilium-worker\n");

    cs_doctor_data(config, cs_bytes_of_text(SITE), here->folder, &findings);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, "worker", CS_FINDING_FAIL, "/none/consilium-worker");
}

static void a_worker_that_ends_at_once_is_found_and_leaves_no_folder(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE "worker: /bin/false\n");
    CS_AUTO(cs_string) tasks = cs_path_join(here->folder, "tasks");

    cs_doctor_data(config, cs_bytes_of_text(SITE), here->folder, &findings);

    assert_found(&findings, "worker", CS_FINDING_FAIL, "");
    assert_true(rmdir(tasks) == 0 || errno == ENOENT);
}

/* ---- all of it ---- */

static void findings_are_lines_for_people_and_json_for_programs(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO(cs_buffer) lines = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) json = CS_BUFFER_EMPTY;
    confinement_of("", (cs_kernel){0, true, true}, &findings);
    confinement_of("", (cs_kernel){7, true, true}, &findings);

    cs_findings_print(&findings, &lines);
    cs_findings_json(&findings, &json);

    assert_non_null(strstr(cs_buffer_text(&lines), "fail  confinement    this kernel has no landlock\n"
                                                   "                     expected: landlock\n"
                                                   "                     what to do: use a kernel"));
    assert_non_null(strstr(cs_buffer_text(&lines), "ok    confinement    the kernel offers"));
    const char *head =
        "{\"ok\":false,\"findings\":[{\"check\":\"confinement\",\"level\":\"fail\",\"found\":\"this kernel "
        "has no landlock\",\"expected\":\"landlock\",\"action\":\"";
    assert_memory_equal(cs_buffer_text(&json), head, strlen(head));
    assert_non_null(strstr(cs_buffer_text(&json), "\"expected\":null,\"action\":null}]}\n"));
}

static void an_empty_folder_gives_findings_and_their_exit_code(void **state)
{
    place *here = *state;
    const cs_doctor_options options = {.state_folder = here->folder};

    assert_int_equal(cs_doctor(&options, true), CS_EXIT_FINDINGS);
}

#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, place_make, place_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PLACE(a_configuration_with_a_wrong_key_is_found_with_its_line),
        WITH_PLACE(a_configuration_that_is_not_there_is_found),
        WITH_PLACE(keys_for_the_owner_alone_are_fine),
        WITH_PLACE(a_key_that_others_may_read_is_found),
        WITH_PLACE(a_certificate_that_others_may_write_is_found),
        WITH_PLACE(a_site_without_keys_is_told_to_join),
        WITH_PLACE(a_disk_that_cannot_be_asked_is_found),
        cmocka_unit_test(days_left_are_told),
        cmocka_unit_test(a_certificate_that_should_have_been_renewed_is_a_warning),
        cmocka_unit_test(an_expired_certificate_is_found_with_the_way_back),
        cmocka_unit_test(a_clock_before_the_certificate_is_found_as_the_clock),
        cmocka_unit_test(a_folder_of_another_site_is_found),
        cmocka_unit_test(a_kernel_with_everything_is_fine),
        cmocka_unit_test(a_missing_confinement_fails_unless_the_site_accepts_it_by_name),
        cmocka_unit_test(this_kernel_can_be_asked),
        cmocka_unit_test(a_name_without_address_is_found),
        cmocka_unit_test(a_port_where_nobody_listens_is_found),
        WITH_PLACE(a_network_that_opens_tls_is_found_with_its_issuer),
        WITH_PLACE(a_clock_outside_the_coordinators_certificate_is_found_as_the_clock),
        WITH_PLACE(a_port_that_is_not_the_coordinators_for_sites_is_found),
        WITH_PLACE(a_coordinator_that_takes_the_certificate_is_fine),
        WITH_PLACE(a_revoked_site_is_told_so),
        WITH_PLACE(a_site_that_has_not_joined_still_sees_how_far_it_comes),
        cmocka_unit_test(a_proxy_login_that_is_not_there_is_found),
        WITH_PLACE(a_worker_that_is_not_there_is_found),
        WITH_PLACE(a_worker_that_ends_at_once_is_found_and_leaves_no_folder),
        cmocka_unit_test(findings_are_lines_for_people_and_json_for_programs),
        WITH_PLACE(an_empty_folder_gives_findings_and_their_exit_code),
    };

    if (cs_crypto_start() != CS_OK)
        return 1;
    cs_rpc_start();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cs_rpc_stop();
    return failed;
}
