/* Broken environments, and the finding that names what is wrong with each. */
#include "client/agent/doctor.h"

#include "common/base/clock.h"
#include "common/base/command.h"
#include "common/crypto/tls.h"
#include "common/rpc/rpc.h"
#include "tests/unit/place.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY_MS     (24 * 3600 * 1000LL)
#define TIMEOUT_MS 10000
#define SITE       "site: mercy\ncoordinator: 127.0.0.1:8443\n"

/* Ids that some environment of this file was broken enough for. */
static bool was_seen[CS_FINDING_IDS_COUNT];

static const cs_finding *find(const cs_findings *findings, const char *id)
{
    for (size_t i = 0; i < findings->count; i++) {
        if (strcmp(findings->items[i].id, id) == 0)
            return &findings->items[i];
    }
    return NULL;
}

static void print_all(const cs_findings *findings)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;

    cs_findings_print(findings, &text);
    print_error("%s", cs_buffer_text(&text));
}

static void assert_at(const cs_findings *findings, const cs_finding *finding, const char *id, cs_finding_level level,
                      const char *text)
{
    if (finding && finding->level == level && strstr(finding->found, text))
        return;
    print_all(findings);
    fail_msg("expected '%s' at level %d: \"…%s…\"", id, level, text);
}

/* Of the findings with this id, the first that says `text`. */
static void assert_good(const cs_findings *findings, const char *id, const char *text)
{
    const cs_finding *found = NULL;

    for (size_t i = 0; !found && i < findings->count; i++) {
        if (strcmp(findings->items[i].id, id) == 0 && strstr(findings->items[i].found, text))
            found = &findings->items[i];
    }
    assert_at(findings, found, id, CS_FINDING_OK, text);
}

static const cs_finding *assert_found(const cs_findings *findings, cs_finding_id id, cs_finding_level level,
                                      const char *text)
{
    const cs_finding *finding = find(findings, cs_finding_id_text(id));

    assert_at(findings, finding, cs_finding_id_text(id), level, text);
    assert_true(finding->expected && finding->expected[0] && finding->action && finding->action[0]);
    was_seen[id] = true;
    return finding;
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
    assert_found(&findings, CS_FOUND_CONFIGURATION_INVALID, CS_FINDING_FAIL, ":3:1: found the key \"thread\"");
    assert_true(cs_findings_have_failed(&findings));
}

static void a_configuration_that_is_not_there_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    cs_site_config *config = NULL;

    cs_doctor_configuration(here->path, &findings, &config);

    assert_found(&findings, CS_FOUND_CONFIGURATION_INVALID, CS_FINDING_FAIL, "No such file");
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
    assert_good(&findings, "keys.ok", "2 files");
}

static void a_key_that_others_may_read_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_key(here, "tls.pem", 0640); /* key and certificate in one */
    put_key(here, "signing.key", 0600);

    cs_doctor_keys(here->folder, &findings);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, CS_FOUND_KEYS_RIGHTS, CS_FINDING_FAIL, "keys/tls.pem has mode 0640");
}

static void a_certificate_that_others_may_write_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_key(here, "authority.crt", 0646);

    cs_doctor_keys(here->folder, &findings);

    assert_found(&findings, CS_FOUND_KEYS_RIGHTS, CS_FINDING_FAIL, "authority.crt has mode 0646");
}

static void a_site_without_keys_is_told_to_join(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};

    cs_doctor_keys(here->folder, &findings);

    assert_found(&findings, CS_FOUND_KEYS_MISSING, CS_FINDING_FAIL, "keys");
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
    assert_found(&findings, CS_FOUND_DISK_UNREADABLE, CS_FINDING_FAIL, here->folder);
}

static void keys_of_another_user_are_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO(cs_string) path = cs_path_join(here->folder, "keys/signing.key");
    put_key(here, "signing.key", 0600);
    if (geteuid() != 0)
        skip(); /* only root gives files away */
    assert_int_equal(chown(path, 12345, 12345), 0);

    cs_doctor_keys(here->folder, &findings);

    assert_found(&findings, CS_FOUND_KEYS_OWNER, CS_FINDING_FAIL, "keys/signing.key belongs to user 12345");
}

static int read_only(void *self, const char *operation, const char *path)
{
    (void)self;
    (void)path;
    return strcmp(operation, "open") == 0 ? EROFS : 0;
}

static void a_state_folder_that_cannot_be_written_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    cs_file_set_fault(read_only, NULL);

    cs_doctor_disk(here->folder, &findings);

    cs_file_set_fault(NULL, NULL);
    assert_found(&findings, CS_FOUND_DISK_UNWRITABLE, CS_FINDING_FAIL, "Read-only file system");
}

static void a_disk_with_room_is_fine_and_nothing_is_left_on_it(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO(cs_findings) room = {0};

    cs_doctor_disk(here->folder, &findings);
    cs_doctor_room(here->folder, CS_DOCTOR_DISK_WARN_BYTES, &room);

    assert_null(find(&findings, "disk.unwritable"));
    assert_good(&room, "disk.ok", "2048 MiB free");
    assert_int_equal(rmdir(here->folder), 0);
    assert_int_equal(mkdir(here->folder, 0700), 0);
}

static void a_disk_that_is_full_or_nearly_so_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) low = {0};
    CS_AUTO(cs_findings) full = {0};

    cs_doctor_room("/state", CS_DOCTOR_DISK_WARN_BYTES - 1, &low);
    cs_doctor_room("/state", CS_DOCTOR_DISK_FAIL_BYTES - 1, &full);

    assert_found(&low, CS_FOUND_DISK_LOW, CS_FINDING_WARN, "2047 MiB free at /state");
    assert_found(&full, CS_FOUND_DISK_FULL, CS_FINDING_FAIL, "255 MiB free at /state");
}

/* ---- GPU: a root of its own, with what a machine has of one ---- */

static void put(const place *here, const char *name, const char *text)
{
    CS_AUTO(cs_string) path = cs_path_join(here->folder, name);
    CS_AUTO(cs_string) folder = cs_path_folder(path);

    assert_ok(cs_folder_make(folder, 0700));
    assert_ok(cs_file_write_atomic(path, cs_bytes_of_text(text), 0600));
}

static void put_card(const place *here)
{
    put(here, "sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
    put(here, "sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n");
    put(here, "sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n"); /* its sound */
    put(here, "sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n");
}

static void put_driver(const place *here)
{
    put(here, "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12\n");
}

#define CPU_BUILD  "consilium 0.1.0 libtorch 1.13.1 AVX2 cpu threads=2"
#define CUDA_BUILD "consilium 0.1.0 libtorch 2.5.1 AVX2 cuda threads=2"

static void a_machine_without_a_gpu_is_fine(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put(here, "sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n");

    cs_doctor_gpu(here->folder, NULL, CPU_BUILD, &findings);
    cs_doctor_gpu(here->folder, "void", NULL, &findings);

    assert_int_equal(findings.count, 2);
    assert_good(&findings, "gpu.ok", "no NVIDIA GPU here");
}

static void a_gpu_that_opens_and_a_worker_that_can_use_it_are_fine(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_card(here);
    put_driver(here);
    put(here, "dev/nvidiactl", "");
    put(here, "dev/nvidia0", "");

    cs_doctor_gpu(here->folder, NULL, CUDA_BUILD, &findings);

    assert_good(&findings, "gpu.ok", "1 NVIDIA GPU, driver 535.183.01, opened by this user");
}

static void a_card_without_its_driver_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_card(here);

    cs_doctor_gpu(here->folder, NULL, CUDA_BUILD, &findings);

    assert_found(&findings, CS_FOUND_GPU_NO_DRIVER, CS_FINDING_WARN,
                 "1 NVIDIA card on the PCI bus, but no /dev/nvidia0");
}

static void a_container_that_was_not_given_the_gpu_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_card(here);
    put_driver(here);
    put(here, ".dockerenv", "");

    cs_doctor_gpu(here->folder, NULL, CUDA_BUILD, &findings);

    const cs_finding *finding = assert_found(&findings, CS_FOUND_GPU_NOT_GIVEN, CS_FINDING_WARN, "this container");
    assert_non_null(strstr(finding->action, "--gpus all"));
}

static void a_gpu_that_was_asked_for_and_is_not_there_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};

    cs_doctor_gpu(here->folder, "all", CUDA_BUILD, &findings);

    assert_found(&findings, CS_FOUND_GPU_MISSING, CS_FINDING_FAIL, "NVIDIA_VISIBLE_DEVICES is 'all', but");
}

static void a_gpu_that_this_user_may_not_open_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_driver(here);
    put(here, "dev/nvidia0/x", ""); /* a folder does not open for writing, not even for root */

    cs_doctor_gpu(here->folder, "all", CUDA_BUILD, &findings);

    assert_found(&findings, CS_FOUND_GPU_DENIED, CS_FINDING_WARN, "dev/nvidia0");
}

static void a_worker_that_cannot_use_the_gpu_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    put_driver(here);
    put(here, "dev/nvidia0", "");

    cs_doctor_gpu(here->folder, NULL, CPU_BUILD, &findings);

    assert_found(&findings, CS_FOUND_GPU_UNUSED, CS_FINDING_WARN, "the worker's build is '" CPU_BUILD "'");
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

    assert_good(&findings, "certificate.ok", "6.0 days left");
    assert_false(cs_findings_have_failed(&findings));
}

static void a_certificate_that_should_have_been_renewed_is_a_warning(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(106 * DAY_MS, "mercy", &findings);

    assert_found(&findings, CS_FOUND_CERTIFICATE_NOT_RENEWED, CS_FINDING_WARN, "1.0 days left");
}

static void an_expired_certificate_is_found_with_the_way_back(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(107 * DAY_MS + 1, "mercy", &findings);

    assert_found(&findings, CS_FOUND_CERTIFICATE_EXPIRED, CS_FINDING_FAIL, "the certificate ended at 1970-04-18");
    assert_non_null(strstr(find(&findings, "certificate.expired")->action, "--rejoin"));
}

static void a_clock_before_the_certificate_is_found_as_the_clock(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(99 * DAY_MS, "mercy", &findings);

    assert_null(find(&findings, "certificate.expired"));
    assert_found(&findings, CS_FOUND_CLOCK_OUTSIDE_CERTIFICATE, CS_FINDING_FAIL,
                 "this machine's clock says 1970-04-10");
}

static void a_folder_of_another_site_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    certificate_at(101 * DAY_MS, "general", &findings);

    assert_found(&findings, CS_FOUND_IDENTITY_OTHER_SITE, CS_FINDING_FAIL,
                 "for the site 'general', site.yaml says 'mercy'");
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
    assert_good(&findings, "confinement.ok", "landlock 7, seccomp and no_new_privs");
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

    assert_found(&required, CS_FOUND_CONFINEMENT_LANDLOCK, CS_FINDING_FAIL, "this kernel has no landlock");
    assert_found(&other, CS_FOUND_CONFINEMENT_LANDLOCK, CS_FINDING_FAIL, "this kernel has no landlock");
    assert_found(&accepted, CS_FOUND_CONFINEMENT_LANDLOCK, CS_FINDING_WARN, "this kernel has no landlock");
    assert_found(&preferred, CS_FOUND_CONFINEMENT_LANDLOCK, CS_FINDING_WARN, "this kernel has no landlock");
}

static void each_missing_confinement_is_a_finding_of_its_own(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    confinement_of("", (cs_kernel){7, false, false}, &findings);

    assert_int_equal(findings.count, 2);
    assert_found(&findings, CS_FOUND_CONFINEMENT_SECCOMP, CS_FINDING_FAIL, "no seccomp");
    assert_found(&findings, CS_FOUND_CONFINEMENT_NO_NEW_PRIVS, CS_FINDING_FAIL, "no no_new_privs");
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
    assert_found(&findings, CS_FOUND_ADDRESS_UNKNOWN, CS_FINDING_FAIL, "cannot find the address of 'no..such..name'");
}

static void a_port_where_nobody_listens_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    line_to("127.0.0.1", closed_port(), NULL, &findings);

    assert_good(&findings, "address.ok", "127.0.0.1");
    assert_found(&findings, CS_FOUND_CONNECTION_REFUSED, CS_FINDING_FAIL, "Connection refused");
    assert_null(find(&findings, "tls.ok"));
}

static void an_address_without_a_port_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};
    char coordinator[] = "coordinator.example.org";
    const cs_site_identity identity = {.coordinator = coordinator};

    cs_doctor_line(NULL, &identity, TIMEOUT_MS, &findings);

    assert_found(&findings, CS_FOUND_ADDRESS_INVALID, CS_FINDING_FAIL, "expected host:port");
}

static void a_name_service_that_is_silent_is_found(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_site_config) config = site_of("site: mercy\ncoordinator: slow.example.invalid:8443\n");
    CS_AUTO(cs_findings) findings = {0};

    /* Without any time to answer, the name service is as good as silent; a quick one may win a try or two. */
    for (int tries = 0; tries < 100 && !find(&findings, "address.silent"); tries++) {
        cs_findings_clear(&findings);
        cs_doctor_line(config, NULL, 0, &findings);
    }

    assert_found(&findings, CS_FOUND_ADDRESS_SILENT, CS_FINDING_FAIL, "'slow.example.invalid' in time");
}

static void a_firewall_that_is_silent_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO_PTR(cs_site_config) config = NULL;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), others[4];
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    for (size_t i = 0; i < CS_COUNT(others); i++) { /* a full backlog answers nobody */
        others[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(others[i], (struct sockaddr *)&address, sizeof address);
    }
    CS_AUTO(cs_string) text = cs_format("site: mercy\ncoordinator: 127.0.0.1:%u\n", ntohs(address.sin_port));
    config = site_of(text);

    cs_doctor_line(config, NULL, 300, &findings);

    for (size_t i = 0; i < CS_COUNT(others); i++)
        close(others[i]);
    close(listener);
    assert_found(&findings, CS_FOUND_CONNECTION_SILENT, CS_FINDING_FAIL, "did not answer in time");
}

/* ---- proxies, and other things that answer ---- */

/* Answers one caller with these bytes, whatever it asks, and waits until it goes. */
typedef struct answering {
    int listener;
    uint16_t port;
    const char *answer;
    pthread_t thread;
} answering;

static void *answer_one(void *argument)
{
    answering *self = argument;
    char heard[4096];
    int fd = accept(self->listener, NULL, NULL);

    if (fd < 0 || recv(fd, heard, sizeof heard, 0) <= 0)
        return NULL;
    (void)send(fd, self->answer, strlen(self->answer), MSG_NOSIGNAL);
    while (recv(fd, heard, sizeof heard, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void answering_start(answering *self, const char *answer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;

    *self = (answering){.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .answer = answer};
    assert_int_equal(bind(self->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(self->listener, 8), 0);
    assert_int_equal(getsockname(self->listener, (struct sockaddr *)&address, &size), 0);
    self->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&self->thread, NULL, answer_one, self), 0);
}

static void answering_end(answering *self)
{
    pthread_join(self->thread, NULL);
    close(self->listener);
}

/* What is found through a proxy that answers so. */
static void through_proxy(const char *answer, cs_findings *findings)
{
    answering proxy;
    answering_start(&proxy, answer);
    CS_AUTO(cs_string) text = cs_format(SITE "proxy: 127.0.0.1:%u\n", proxy.port);
    CS_AUTO_PTR(cs_site_config) config = site_of(text);

    cs_doctor_line(config, NULL, TIMEOUT_MS, findings);

    answering_end(&proxy);
}

static void a_proxy_that_wants_a_login_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    through_proxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", &findings);

    const cs_finding *finding = assert_found(&findings, CS_FOUND_PROXY_LOGIN, CS_FINDING_FAIL, "wants a login");
    assert_non_null(strstr(finding->action, "proxy_login_file"));
}

static void a_proxy_that_refuses_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    through_proxy("HTTP/1.1 403 Forbidden by policy\r\n\r\n", &findings);

    const cs_finding *finding =
        assert_found(&findings, CS_FOUND_PROXY_REFUSES, CS_FINDING_FAIL, "403 Forbidden by policy");
    assert_non_null(strstr(finding->action, "CONNECT to 127.0.0.1:8443"));
}

static void a_proxy_that_is_none_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    through_proxy("SSH-2.0-OpenSSH_9.2p1\r\n\r\n", &findings);

    assert_found(&findings, CS_FOUND_PROXY_NOT_HTTP, CS_FINDING_FAIL, "does not answer with HTTP");
}

static void a_proxy_that_is_not_there_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO(cs_string) text = cs_format(SITE "proxy: 127.0.0.1:%u\n", closed_port());
    CS_AUTO_PTR(cs_site_config) config = site_of(text);

    cs_doctor_line(config, NULL, TIMEOUT_MS, &findings);

    assert_good(&findings, "address.ok", "the proxy 127.0.0.1");
    assert_found(&findings, CS_FOUND_PROXY_UNREACHABLE, CS_FINDING_FAIL, "Connection refused");
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

static void a_coordinator_that_was_set_up_anew_is_found(void **state)
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
    assert_good(&findings, "connection.ok", "answers");
    assert_found(&findings, CS_FOUND_TLS_OTHER_CONSORTIUM, CS_FINDING_FAIL,
                 "of the consortium 'cardiac', issued by 'CN=Cardiac consortium,O=cardiac'");
    assert_null(find(&findings, "coordinator.ok"));
    consortium_clear(&ours);
    consortium_clear(&theirs);
}

static void a_network_that_opens_tls_is_found_with_its_issuer(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours, theirs;
    uint16_t port;
    consortium_make(here, &ours);
    consortium_make(here, &theirs);
    cs_buffer_reset(&theirs.server_pem); /* what an inspecting proxy shows says nothing of a consortium */
    assert_ok(
        cs_authority_make(theirs.server_key, "acme", "ACME TLS inspection", cs_clock_wall_ms(), &theirs.server_pem));
    cs_tls_listener *listener = listen_as(&theirs, &port);

    line_to("127.0.0.1", port, &ours.site, &findings);

    cs_tls_listener_stop(listener);
    const cs_finding *finding =
        assert_found(&findings, CS_FOUND_TLS_INTERCEPTED, CS_FINDING_FAIL, "issued by 'CN=ACME TLS inspection,O=acme'");
    CS_AUTO(cs_string) exempt = cs_format("exempt 127.0.0.1:%u from TLS inspection", port);
    assert_non_null(strstr(finding->action, exempt));
    assert_null(find(&findings, "coordinator.ok"));
    consortium_clear(&ours);
    consortium_clear(&theirs);
}

static void a_name_that_the_coordinators_certificate_lacks_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours;
    uint16_t port;
    consortium_make(here, &ours);
    cs_tls_listener *listener = listen_as(&ours, &port);

    line_to("localhost", port, &ours.site, &findings);

    cs_tls_listener_stop(listener);
    assert_found(&findings, CS_FOUND_TLS_OTHER_NAME, CS_FINDING_FAIL,
                 "a certificate for '127.0.0.1', not for 'localhost'");
    consortium_clear(&ours);
}

static void a_port_that_does_not_speak_tls_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    consortium ours;
    answering plain;
    consortium_make(here, &ours);
    answering_start(&plain, "220 smtp.example.org\r\n");
    cs_site_identity identity = ours.site;

    /* The first caller is the look at the port: it hangs up, and the thread with it. */
    CS_AUTO(cs_string) text = cs_format("site: mercy\ncoordinator: 127.0.0.1:%u\n", plain.port);
    CS_AUTO_PTR(cs_site_config) config = site_of(text);
    pthread_t second;
    cs_findings_clear(&findings);
    assert_int_equal(pthread_create(&second, NULL, answer_one, &plain), 0);
    cs_doctor_line(config, &identity, TIMEOUT_MS, &findings);
    pthread_join(second, NULL);
    answering_end(&plain);

    assert_found(&findings, CS_FOUND_TLS_FAILED, CS_FINDING_FAIL, "127.0.0.1");
    consortium_clear(&ours);
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
    assert_found(&findings, CS_FOUND_CLOCK_OUTSIDE_CERTIFICATE, CS_FINDING_FAIL, "this machine's clock says");
    assert_null(find(&findings, "tls.ok"));
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
    assert_good(&findings, "tls.ok", "a certificate of this consortium");
    assert_found(&findings, CS_FOUND_COORDINATOR_SILENT, CS_FINDING_FAIL, "");
    consortium_clear(&ours);
}

/* A coordinator that answers probes as the test wants. */
typedef struct answers {
    cs_status admission; /* CS_OK, or why not */
    bool is_old;         /* knows no Probe */
    bool is_refusing;    /* probes with data */
    bool is_stuck;       /* the same, without a word */
    int64_t clock_ahead_ms;
    bool shows_previous;
} answers;

static cs_status admit(void *context, const cs_rpc_peer *peer, const char *path)
{
    const answers *told = context;

    (void)path;
    return told->admission == CS_DENIED ? cs_fail(CS_DENIED, "the site '%s' is revoked", peer->identity.name)
           : told->admission != CS_OK
               ? cs_fail(told->admission, "the certificate of site '%s' was replaced by a newer one",
                         peer->identity.name)
               : CS_OK;
}

typedef struct stub_probe {
    uint64_t wanted, received;
    bool has_answered;
    Consilium__V1__ProbeAnswer answer;
} stub_probe;

static cs_status stub_request(cs_rpc_call *call, const ProtobufCMessage *message)
{
    const Consilium__V1__ProbeRequest *request = (const Consilium__V1__ProbeRequest *)message;
    stub_probe *probe = cs_rpc_call_data(call);

    if (!probe) {
        probe = cs_alloc(sizeof *probe);
        probe->wanted = request->wanted;
        cs_rpc_call_set_data(call, probe);
    }
    probe->received += request->data.len;
    return CS_OK;
}

static cs_status stub_response(cs_rpc_call *call, const ProtobufCMessage **ret)
{
    static uint8_t zeros[CS_PROBE_CHUNK_BYTES];
    const answers *told = cs_rpc_call_context(call);
    stub_probe *probe = cs_rpc_call_data(call);

    if (probe->wanted + probe->received > 0 && told->is_refusing)
        return cs_fail(CS_EXHAUSTED, "this site probed too often");
    if (probe->wanted + probe->received > 0 && told->is_stuck)
        return CS_LATER; /* until the site gives up */
    if (probe->has_answered && probe->wanted == 0)
        return CS_DONE;
    consilium__v1__probe_answer__init(&probe->answer);
    if (!probe->has_answered) {
        probe->has_answered = true;
        probe->answer.hello = cs_wire_hello();
        probe->answer.clock_ms = (uint64_t)(cs_clock_wall_ms() + told->clock_ahead_ms);
        probe->answer.generation = told->shows_previous ? CONSILIUM__V1__GENERATION__GENERATION_PREVIOUS
                                                        : CONSILIUM__V1__GENERATION__GENERATION_NEWEST;
    } else {
        const size_t size = CS_MIN(probe->wanted, sizeof zeros);
        probe->answer.data = cs_wire_data(zeros, size);
        probe->wanted -= size;
    }
    *ret = &probe->answer.base;
    return CS_OK;
}

static void stub_done(cs_rpc_call *call, bool is_cancelled)
{
    (void)is_cancelled;
    cs_free(cs_rpc_call_data(call));
}

static cs_rpc_server *serve_as(const place *here, const consortium *consortium, answers *told)
{
    static const cs_rpc_method none[] = {{.path = NULL}};
    static const cs_rpc_method probe[] = {{.path = "/consilium.v1.Federation/Probe",
                                           .request = &consilium__v1__probe_request__descriptor,
                                           .response = &consilium__v1__probe_answer__descriptor,
                                           .is_request_stream = true,
                                           .on_request = stub_request,
                                           .next_response = stub_response,
                                           .on_done = stub_done},
                                          {.path = NULL}};
    CS_AUTO(cs_buffer) key = CS_BUFFER_EMPTY;
    cs_rpc_server *server = NULL;
    key_pem(here, consortium->server_key, &key);
    const cs_rpc_server_config config = {
        .listen = "127.0.0.1:0",
        .methods = told->is_old ? none : probe,
        .local_methods = none,
        .identity = {cs_buffer_view(&consortium->server_pem), cs_buffer_view(&key),
                     cs_buffer_view(&consortium->authority_pem)},
        .context = told,
        .admit = admit,
    };

    assert_ok(cs_rpc_server_start(&config, &server));
    return server;
}

/* What is found on the line to a coordinator that answers so. */
static void line_told(const place *here, answers told, int64_t timeout_ms, cs_findings *findings)
{
    consortium ours;
    consortium_make(here, &ours);
    cs_rpc_server *server = serve_as(here, &ours, &told);
    CS_AUTO(cs_string) text = cs_format("site: mercy\ncoordinator: 127.0.0.1:%u\n", cs_rpc_server_port(server));
    CS_AUTO_PTR(cs_site_config) config = site_of(text);

    cs_doctor_line(config, &ours.site, timeout_ms, findings);

    cs_rpc_server_stop(server, 1000);
    consortium_clear(&ours);
}

static void a_coordinator_that_takes_the_certificate_is_fine(void **state)
{
    CS_AUTO(cs_findings) findings = {0};

    line_told(*state, (answers){0}, TIMEOUT_MS, &findings);

    assert_good(&findings, "coordinator.ok", "takes this site's certificate");
    assert_good(&findings, "clock.ok", "the coordinator's");
    assert_good(&findings, "certificate.ok", "the newest");
    assert_good(&findings, "bandwidth.ok", "a model of 100 MB takes about ");
    assert_false(cs_findings_have_failed(&findings));
}

static void a_revoked_site_is_told_so(void **state)
{
    CS_AUTO(cs_findings) findings = {0};

    line_told(*state, (answers){.admission = CS_DENIED}, TIMEOUT_MS, &findings);

    assert_good(&findings, "tls.ok", "");
    assert_found(&findings, CS_FOUND_COORDINATOR_DENIES, CS_FINDING_FAIL, "revoked");
}

static void a_certificate_that_was_replaced_is_found(void **state)
{
    CS_AUTO(cs_findings) findings = {0};

    line_told(*state, (answers){.admission = CS_UNAUTHENTICATED}, TIMEOUT_MS, &findings);

    const cs_finding *finding =
        assert_found(&findings, CS_FOUND_CERTIFICATE_REPLACED, CS_FINDING_FAIL, "replaced by a newer one");
    assert_non_null(strstr(finding->action, "an old copy"));
}

static void an_older_generation_of_the_certificate_is_found(void **state)
{
    CS_AUTO(cs_findings) findings = {0};

    line_told(*state, (answers){.shows_previous = true}, TIMEOUT_MS, &findings);

    assert_found(&findings, CS_FOUND_CERTIFICATE_PREVIOUS, CS_FINDING_WARN, "has issued a newer certificate");
}

static void a_clock_that_is_off_is_found_with_its_offset(void **state)
{
    CS_AUTO(cs_findings) behind = {0};
    CS_AUTO(cs_findings) ahead = {0};

    line_told(*state, (answers){.clock_ahead_ms = 400 * 1000 + 500}, TIMEOUT_MS, &behind);
    line_told(*state, (answers){.clock_ahead_ms = -60 * 1000 - 500}, TIMEOUT_MS, &ahead);

    assert_found(&behind, CS_FOUND_CLOCK_OFF, CS_FINDING_FAIL,
                 "this machine's clock is 400 s behind the coordinator's");
    assert_found(&ahead, CS_FOUND_CLOCK_OFF, CS_FINDING_WARN,
                 "this machine's clock is 60 s ahead of the coordinator's");
}

static void a_coordinator_of_an_older_version_is_said_to_be_one(void **state)
{
    CS_AUTO(cs_findings) findings = {0};

    line_told(*state, (answers){.is_old = true}, TIMEOUT_MS, &findings);

    assert_found(&findings, CS_FOUND_COORDINATOR_OLDER, CS_FINDING_WARN, "cannot be probed");
    assert_false(cs_findings_have_failed(&findings));
}

static void a_line_that_cannot_be_measured_now_is_said_to_be_so(void **state)
{
    CS_AUTO(cs_findings) findings = {0};

    line_told(*state, (answers){.is_refusing = true}, TIMEOUT_MS, &findings);

    assert_found(&findings, CS_FOUND_BANDWIDTH_UNMEASURED, CS_FINDING_WARN, "this site probed too often");
}

static void a_line_that_carries_nothing_in_time_is_slow(void **state)
{
    CS_AUTO(cs_findings) findings = {0};

    line_told(*state, (answers){.is_stuck = true}, 1000, &findings);

    assert_found(&findings, CS_FOUND_BANDWIDTH_SLOW, CS_FINDING_WARN, "65 KB did not pass within 1 s");
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
    assert_good(&findings, "connection.ok", "answers");
    assert_found(&findings, CS_FOUND_TLS_UNCHECKED, CS_FINDING_WARN, "has not joined");
    consortium_clear(&ours);
}

static void a_proxy_login_that_is_not_there_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE "proxy: 127.0.0.1:1\nproxy_login_file: none.login\n");

    cs_doctor_line(config, NULL, TIMEOUT_MS, &findings);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, CS_FOUND_PROXY_LOGIN_FILE, CS_FINDING_FAIL, "/site/none.login");
}

/* ---- the data ---- */

static void a_worker_that_is_not_there_is_found(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO(cs_string) build = NULL;
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE "worker: /none/consilium-worker\n");

    cs_doctor_data(config, cs_bytes_of_text(SITE), here->folder, &findings, &build);

    assert_int_equal(findings.count, 1);
    assert_found(&findings, CS_FOUND_WORKER_MISSING, CS_FINDING_FAIL, "/none/consilium-worker");
}

static void a_worker_that_ends_at_once_is_found_and_leaves_no_folder(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO(cs_string) build = NULL;
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE "worker: /bin/false\n");
    CS_AUTO(cs_string) tasks = cs_path_join(here->folder, "tasks");

    cs_doctor_data(config, cs_bytes_of_text(SITE), here->folder, &findings, &build);

    assert_found(&findings, CS_FOUND_WORKER_MISSING, CS_FINDING_FAIL, "");
    assert_true(rmdir(tasks) == 0 || errno == ENOENT);
}

/* A worker that says this and waits for its end. */
static void put_worker(const place *here, const Consilium__V1__FromWorker *said)
{
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) words = cs_path_join(here->folder, "words");
    CS_AUTO(cs_string) script = cs_path_join(here->folder, "worker");
    uint8_t length[4] = {0};
    cs_buffer_append(&frame, length, sizeof length);
    cs_wire_pack(&said->base, &frame);
    cs_store_be32(frame.data, (uint32_t)(frame.size - sizeof length));
    CS_AUTO(cs_string) text = cs_format("#!/bin/sh\n/bin/cat '%s' >&3\nexec /bin/cat <&3 >/dev/null\n", words);

    assert_ok(cs_file_write_atomic(words, cs_buffer_view(&frame), 0600));
    assert_ok(cs_file_write_atomic(script, cs_bytes_of_text(text), 0700));
}

static void look_with_worker(const place *here, cs_findings *findings)
{
    CS_AUTO(cs_string) build = NULL;
    CS_AUTO(cs_string) text = cs_format(SITE "worker: %s/worker\n", here->folder);
    CS_AUTO_PTR(cs_site_config) config = site_of(text);

    cs_doctor_data(config, cs_bytes_of_text(text), here->folder, findings, &build);
}

static void a_worker_that_refuses_is_found_with_its_sentence(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    char reason[] = "this kernel lacks landlock";
    Consilium__V1__WorkerFailed failed = CONSILIUM__V1__WORKER_FAILED__INIT;
    Consilium__V1__FromWorker said = CONSILIUM__V1__FROM_WORKER__INIT;
    failed.code = CS_DENIED;
    failed.reason = reason;
    said.body_case = CONSILIUM__V1__FROM_WORKER__BODY_FAILED;
    said.failed = &failed;
    put_worker(here, &said);

    look_with_worker(here, &findings);

    assert_found(&findings, CS_FOUND_WORKER_REFUSES, CS_FINDING_FAIL, "this kernel lacks landlock");
}

static void a_site_without_data_sets_is_told_so(void **state)
{
    place *here = *state;
    CS_AUTO(cs_findings) findings = {0};
    Consilium__V1__WorkerReady ready = CONSILIUM__V1__WORKER_READY__INIT;
    Consilium__V1__FromWorker said = CONSILIUM__V1__FROM_WORKER__INIT;
    said.body_case = CONSILIUM__V1__FROM_WORKER__BODY_READY;
    said.ready = &ready;
    put_worker(here, &said);

    look_with_worker(here, &findings);

    assert_good(&findings, "worker.ok", "confined by");
    assert_found(&findings, CS_FOUND_DATA_NONE, CS_FINDING_WARN, "no data set");
}

/* What is said of a data set with so many rows and this one remark; KIND_UNSPECIFIED: none. */
static void description_of(const char *plan, Consilium__V1__DatasetDescription data,
                           Consilium__V1__DataRemark__Kind kind, const char *detail, cs_findings *findings)
{
    CS_AUTO_PTR(cs_site_config) config = site_of(SITE);
    Consilium__V1__DataRemark remark = CONSILIUM__V1__DATA_REMARK__INIT;
    Consilium__V1__DataRemark *remarks[] = {&remark};
    char name[] = "heart-v1";

    remark.kind = kind;
    remark.detail = (char *)(uintptr_t)detail;
    remark.count = data.dropped;
    data.dataset = name;
    data.remarks = remarks;
    data.n_remarks = kind == CONSILIUM__V1__DATA_REMARK__KIND__KIND_UNSPECIFIED ? 0 : 1;
    cs_doctor_description(config, plan, &data, findings);
}

static Consilium__V1__DatasetDescription rows_of(uint64_t train, uint64_t test, uint64_t dropped)
{
    Consilium__V1__DatasetDescription data = CONSILIUM__V1__DATASET_DESCRIPTION__INIT;
    data.train = train;
    data.test = test;
    data.rows = train + test;
    data.dropped = dropped;
    return data;
}

static void a_data_set_is_told_with_its_counts_label_and_unused_columns(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};

    description_of("heart", rows_of(200, 100, 3), CONSILIUM__V1__DATA_REMARK__KIND__MISSING, "ca 3, first in line 88",
                   &findings);
    description_of("heart", rows_of(200, 100, 3), CONSILIUM__V1__DATA_REMARK__KIND__LABEL, "num: 0 in 160, 1 in 140",
                   &findings);
    description_of("heart", rows_of(200, 100, 3), CONSILIUM__V1__DATA_REMARK__KIND__UNUSED, "ward, comment", &findings);

    assert_good(&findings, "data.ok", "heart-v1 for plan 'heart': 300 rows, 3 dropped; train 200, valid 0, test 100");
    assert_good(&findings, "data.ok", "3 of 303 rows have a missing value: ca 3, first in line 88");
    assert_good(&findings, "data.ok", "label num: 0 in 160, 1 in 140");
    assert_good(&findings, "data.ok", "columns that this plan does not use: ward, comment");
    assert_false(cs_findings_have_failed(&findings));
}

static void data_that_does_not_fit_is_found_by_column_and_line(void **state)
{
    (void)state;
    static const struct {
        Consilium__V1__DataRemark__Kind kind;
        cs_finding_id id;
        cs_finding_level level;
        const char *detail;
    } cases[] = {
        {CONSILIUM__V1__DATA_REMARK__KIND__FIELDS, CS_FOUND_DATA_FIELDS, CS_FINDING_FAIL, "first in line 8"},
        {CONSILIUM__V1__DATA_REMARK__KIND__COLUMN, CS_FOUND_DATA_COLUMN, CS_FINDING_FAIL, "no column 'chol'"},
        {CONSILIUM__V1__DATA_REMARK__KIND__CELLS, CS_FOUND_DATA_CELLS, CS_FINDING_FAIL, "age 2, first in line 5"},
        {CONSILIUM__V1__DATA_REMARK__KIND__MISSING, CS_FOUND_DATA_MISSING, CS_FINDING_WARN, "ca 290, first in line 3"},
        {CONSILIUM__V1__DATA_REMARK__KIND__ONE_CLASS, CS_FOUND_DATA_ONE_CLASS, CS_FINDING_WARN, "all 20 test rows"},
    };

    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        CS_AUTO(cs_findings) findings = {0};
        description_of("heart", rows_of(200, 100, 290), cases[i].kind, cases[i].detail, &findings);
        assert_found(&findings, cases[i].id, cases[i].level, cases[i].detail);
    }
}

static void too_few_rows_and_no_test_rows_are_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) few = {0};
    CS_AUTO(cs_findings) untested = {0};

    description_of(NULL, rows_of(9, 100, 0), CONSILIUM__V1__DATA_REMARK__KIND__KIND_UNSPECIFIED, "", &few);
    description_of(NULL, rows_of(100, 0, 0), CONSILIUM__V1__DATA_REMARK__KIND__KIND_UNSPECIFIED, "", &untested);

    assert_found(&few, CS_FOUND_DATA_FEW_ROWS, CS_FINDING_WARN, "train 9");
    assert_found(&untested, CS_FOUND_DATA_NO_TEST, CS_FINDING_WARN, "test 0");
}

static void a_table_that_cannot_be_read_is_found(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) findings = {0};
    char error[] = "data/heart.csv: No such file or directory";
    Consilium__V1__DatasetDescription data = CONSILIUM__V1__DATASET_DESCRIPTION__INIT;
    data.error = error;

    description_of(NULL, data, CONSILIUM__V1__DATA_REMARK__KIND__KIND_UNSPECIFIED, "", &findings);

    assert_found(&findings, CS_FOUND_DATA_UNREADABLE, CS_FINDING_FAIL, "heart-v1: data/heart.csv: No such file");
}

/* ---- plans ---- */

static const char plan_text[] =
    "plan: heart-disease\nfederation: horizontal\nsites: {invite: [mercy, stluke, general], minimum: 3}\n"
    "dataset: {name: heart-v1, kind: table, features: [age, chol], label: {column: num, above: 0}, missing: drop, "
    "standardize: federated}\n"
    "model: {kind: logistic_regression}\n"
    "training: {rounds: 15, local_steps: 100, batch_size: 4, optimizer: {kind: sgd, learning_rate: 0.001}, loss: "
    "bce}\n";

static void policy_of(const char *site, const char *plan, cs_findings *findings)
{
    CS_AUTO(cs_string) text = cs_format(SITE "%s", site);
    CS_AUTO_PTR(cs_site_config) config = site_of(text);

    cs_doctor_policy(config, "heart-disease-1", cs_bytes_of_text(plan), findings);
}

static void a_plan_is_told_with_the_rule_that_allows_or_refuses_it(void **state)
{
    (void)state;
    CS_AUTO(cs_findings) allowed = {0};
    CS_AUTO(cs_findings) waiting = {0};
    CS_AUTO(cs_findings) refused = {0};
    CS_AUTO(cs_findings) unknown = {0};

    policy_of("datasets: {heart-v1: {table: a.csv}}\npolicy: {approve: [{dataset: other}, {rounds: {maximum: 15}}]}\n",
              plan_text, &allowed);
    policy_of("datasets: {heart-v1: {table: a.csv}}\npolicy: {approve: [{rounds: {maximum: 10}}]}\n", plan_text,
              &waiting);
    policy_of("", plan_text, &refused);
    policy_of("", "plan: of-tomorrow\nnew_key: 1\n", &unknown);

    assert_good(&allowed, "plan.ok", "job 'heart-disease-1': approved by rule 2 of the policy");
    assert_found(&waiting, CS_FOUND_PLAN_WAITS, CS_FINDING_WARN, "rule 1 allows 10 rounds, the plan has 15");
    assert_found(&refused, CS_FOUND_PLAN_REFUSED, CS_FINDING_WARN, "the data set 'heart-v1' is not here");
    assert_found(&unknown, CS_FOUND_PLAN_UNREADABLE, CS_FINDING_WARN, "new_key");
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

    assert_non_null(strstr(cs_buffer_text(&lines), "fail  confinement.landlock       this kernel has no landlock\n"
                                                   "      expected: landlock\n"
                                                   "      what to do: use a kernel"));
    assert_non_null(strstr(cs_buffer_text(&lines), "ok    confinement.ok             the kernel offers"));
    const char *head = "{\"ok\":false,\"findings\":[{\"id\":\"confinement.landlock\",\"check\":\"confinement\","
                       "\"level\":\"fail\",\"found\":\"this kernel "
                       "has no landlock\",\"expected\":\"landlock\",\"action\":\"";
    assert_memory_equal(cs_buffer_text(&json), head, strlen(head));
    assert_non_null(strstr(cs_buffer_text(&json), "\"expected\":null,\"action\":null}]}\n"));
}

static void an_empty_folder_gives_findings_and_their_exit_code(void **state)
{
    place *here = *state;
    const cs_doctor_options options = {.state_folder = here->folder};

    assert_int_equal(cs_doctor(&options, true), CS_EXIT_FINDINGS);
    was_seen[CS_FOUND_IDENTITY_MISSING] = true;
}

/* Runs last. */
static void every_finding_had_its_broken_environment_and_stands_in_the_manual(void **state)
{
    (void)state;
    CS_AUTO(cs_buffer) manual = CS_BUFFER_EMPTY;
    size_t wrong = 0;
    assert_ok(cs_file_read_all(CS_SOURCE_DIR "/docs/doctor.md", 1024 * 1024, &manual));

    for (cs_finding_id id = 0; id < CS_FINDING_IDS_COUNT; id++) {
        CS_AUTO(cs_string) row = cs_format("| `%s` |", cs_finding_id_text(id));
        bool is_listed = strstr(cs_buffer_text(&manual), row) != NULL;
        bool is_excused = id == CS_FOUND_KEYS_OWNER && geteuid() != 0;
        if (!was_seen[id] && !is_excused)
            print_error("%s: no test\n", cs_finding_id_text(id));
        if (!is_listed)
            print_error("%s: not in docs/doctor.md\n", cs_finding_id_text(id));
        wrong += !is_listed || (!was_seen[id] && !is_excused) ? 1 : 0;
    }

    assert_int_equal(wrong, 0);
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
        WITH_PLACE(keys_of_another_user_are_found),
        WITH_PLACE(a_state_folder_that_cannot_be_written_is_found),
        WITH_PLACE(a_disk_with_room_is_fine_and_nothing_is_left_on_it),
        cmocka_unit_test(a_disk_that_is_full_or_nearly_so_is_found),
        WITH_PLACE(a_machine_without_a_gpu_is_fine),
        WITH_PLACE(a_gpu_that_opens_and_a_worker_that_can_use_it_are_fine),
        WITH_PLACE(a_card_without_its_driver_is_found),
        WITH_PLACE(a_container_that_was_not_given_the_gpu_is_found),
        WITH_PLACE(a_gpu_that_was_asked_for_and_is_not_there_is_found),
        WITH_PLACE(a_gpu_that_this_user_may_not_open_is_found),
        WITH_PLACE(a_worker_that_cannot_use_the_gpu_is_found),
        cmocka_unit_test(days_left_are_told),
        cmocka_unit_test(a_certificate_that_should_have_been_renewed_is_a_warning),
        cmocka_unit_test(an_expired_certificate_is_found_with_the_way_back),
        cmocka_unit_test(a_clock_before_the_certificate_is_found_as_the_clock),
        cmocka_unit_test(a_folder_of_another_site_is_found),
        cmocka_unit_test(a_kernel_with_everything_is_fine),
        cmocka_unit_test(a_missing_confinement_fails_unless_the_site_accepts_it_by_name),
        cmocka_unit_test(each_missing_confinement_is_a_finding_of_its_own),
        cmocka_unit_test(this_kernel_can_be_asked),
        cmocka_unit_test(a_name_without_address_is_found),
        cmocka_unit_test(a_port_where_nobody_listens_is_found),
        cmocka_unit_test(an_address_without_a_port_is_found),
        cmocka_unit_test(a_name_service_that_is_silent_is_found),
        cmocka_unit_test(a_firewall_that_is_silent_is_found),
        cmocka_unit_test(a_proxy_that_wants_a_login_is_found),
        cmocka_unit_test(a_proxy_that_refuses_is_found),
        cmocka_unit_test(a_proxy_that_is_none_is_found),
        cmocka_unit_test(a_proxy_that_is_not_there_is_found),
        WITH_PLACE(a_coordinator_that_was_set_up_anew_is_found),
        WITH_PLACE(a_network_that_opens_tls_is_found_with_its_issuer),
        WITH_PLACE(a_name_that_the_coordinators_certificate_lacks_is_found),
        WITH_PLACE(a_port_that_does_not_speak_tls_is_found),
        WITH_PLACE(a_clock_outside_the_coordinators_certificate_is_found_as_the_clock),
        WITH_PLACE(a_port_that_is_not_the_coordinators_for_sites_is_found),
        WITH_PLACE(a_coordinator_that_takes_the_certificate_is_fine),
        WITH_PLACE(a_revoked_site_is_told_so),
        WITH_PLACE(a_certificate_that_was_replaced_is_found),
        WITH_PLACE(an_older_generation_of_the_certificate_is_found),
        WITH_PLACE(a_clock_that_is_off_is_found_with_its_offset),
        WITH_PLACE(a_coordinator_of_an_older_version_is_said_to_be_one),
        WITH_PLACE(a_line_that_cannot_be_measured_now_is_said_to_be_so),
        WITH_PLACE(a_line_that_carries_nothing_in_time_is_slow),
        WITH_PLACE(a_site_that_has_not_joined_still_sees_how_far_it_comes),
        cmocka_unit_test(a_proxy_login_that_is_not_there_is_found),
        WITH_PLACE(a_worker_that_is_not_there_is_found),
        WITH_PLACE(a_worker_that_ends_at_once_is_found_and_leaves_no_folder),
        WITH_PLACE(a_worker_that_refuses_is_found_with_its_sentence),
        WITH_PLACE(a_site_without_data_sets_is_told_so),
        cmocka_unit_test(a_data_set_is_told_with_its_counts_label_and_unused_columns),
        cmocka_unit_test(data_that_does_not_fit_is_found_by_column_and_line),
        cmocka_unit_test(too_few_rows_and_no_test_rows_are_found),
        cmocka_unit_test(a_table_that_cannot_be_read_is_found),
        cmocka_unit_test(a_plan_is_told_with_the_rule_that_allows_or_refuses_it),
        cmocka_unit_test(findings_are_lines_for_people_and_json_for_programs),
        WITH_PLACE(an_empty_folder_gives_findings_and_their_exit_code),
        cmocka_unit_test(every_finding_had_its_broken_environment_and_stands_in_the_manual),
    };

    if (cs_crypto_start() != CS_OK)
        return 1;
    cs_rpc_start();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cs_rpc_stop();
    return failed;
}
