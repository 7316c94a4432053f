/* The checks of `consilium-client doctor`, from the configuration to the data. Main thread. */
#include "client/agent/doctor.h"

#include "client/agent/supervisor.h"
#include "common/base/clock.h"
#include "common/base/command.h"
#include "common/base/file.h"
#include "common/crypto/dial.h"
#include "common/crypto/keyfile.h"
#include "common/crypto/tls.h"
#include "common/rpc/rpc.h"

#include <inttypes.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DAY_MS           (24 * 3600 * 1000LL)
#define LOGIN_MAX_BYTES  512
#define ANSWER_MAX_BYTES ((size_t)4 * 1024 * 1024)

/* ---- findings ---- */

static cs_finding *add(cs_findings *findings, const char *check, cs_finding_level level)
{
    findings->items = cs_realloc(findings->items, (findings->count + 1) * sizeof *findings->items);
    cs_finding *finding = &findings->items[findings->count++];
    *finding = (cs_finding){.check = check, .level = level};
    return finding;
}

static void CS_PRINTF(3, 4) add_good(cs_findings *findings, const char *check, const char *found, ...)
{
    char text[CS_ERROR_TEXT_BYTES];
    va_list arguments;

    va_start(arguments, found);
    vsnprintf(text, sizeof text, found, arguments);
    va_end(arguments);
    add(findings, check, CS_FINDING_OK)->found = cs_strdup(text);
}

static void add_bad(cs_findings *findings, const char *check, cs_finding_level level, const char *found,
                    const char *expected, const char *action)
{
    cs_finding *finding = add(findings, check, level);

    finding->found = cs_strdup(found);
    finding->expected = cs_strdup(expected);
    finding->action = cs_strdup(action);
}

void cs_findings_clear(cs_findings *findings)
{
    for (size_t i = 0; i < findings->count; i++) {
        cs_free(findings->items[i].found);
        cs_free(findings->items[i].expected);
        cs_free(findings->items[i].action);
    }
    cs_free(findings->items);
    *findings = (cs_findings){0};
}

bool cs_findings_have_failed(const cs_findings *findings)
{
    for (size_t i = 0; i < findings->count; i++) {
        if (findings->items[i].level == CS_FINDING_FAIL)
            return true;
    }
    return false;
}

static const char *level_name(cs_finding_level level)
{
    static const char *const names[] = {[CS_FINDING_OK] = "ok", [CS_FINDING_WARN] = "warn", [CS_FINDING_FAIL] = "fail"};

    return names[level];
}

void cs_findings_print(const cs_findings *findings, cs_buffer *out)
{
    for (size_t i = 0; i < findings->count; i++) {
        const cs_finding *finding = &findings->items[i];
        cs_buffer_printf(out, "%-4s  %-14s %s\n", level_name(finding->level), finding->check, finding->found);
        if (finding->expected)
            cs_buffer_printf(out, "%21sexpected: %s\n%21swhat to do: %s\n", "", finding->expected, "", finding->action);
    }
}

void cs_findings_json(const cs_findings *findings, cs_buffer *out)
{
    cs_json json = cs_json_to(out);

    cs_json_object(&json, NULL);
    cs_json_bool(&json, "ok", !cs_findings_have_failed(findings));
    cs_json_list(&json, "findings");
    for (size_t i = 0; i < findings->count; i++) {
        const cs_finding *finding = &findings->items[i];
        cs_json_object(&json, NULL);
        cs_json_text(&json, "check", finding->check);
        cs_json_text(&json, "level", level_name(finding->level));
        cs_json_text(&json, "found", finding->found);
        cs_json_text(&json, "expected", finding->expected);
        cs_json_text(&json, "action", finding->action);
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_end(&json, '}');
    cs_buffer_append_text(out, "\n");
}

/* ---- what lies here ---- */

void cs_doctor_configuration(const char *path, cs_findings *findings, cs_site_config **ret)
{
    *ret = NULL;
    if (cs_site_config_load(path, ret) == CS_OK)
        add_good(findings, "configuration", "%s: site '%s', %zu data set%s", path, (*ret)->site, (*ret)->datasets_count,
                 (*ret)->datasets_count == 1 ? "" : "s");
    else
        add_bad(findings, "configuration", CS_FINDING_FAIL, cs_error_text(), "a site.yaml as in docs/site.md",
                "correct the file at the line that is named; consilium-client join writes a commented one where there "
                "is none");
}

typedef struct key_check {
    const char *folder;
    cs_findings *findings;
    size_t files, faults;
} key_check;

static void add_key_fault(key_check *check, const char *found, const char *expected, const char *action)
{
    check->faults++;
    add_bad(check->findings, "keys", CS_FINDING_FAIL, found, expected, action);
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);

    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

/* Whatever may hold a private key for the owner alone; nothing that others may write. */
static void check_mode(key_check *check, const char *path, bool is_secret)
{
    struct stat info;
    mode_t forbidden = is_secret ? S_IRWXG | S_IRWXO : S_IWGRP | S_IWOTH;

    if (lstat(path, &info) != 0) {
        CS_AUTO(cs_string) found = cs_format("%s cannot be examined: %m", path);
        add_key_fault(check, found, "a file of the user that runs consilium-client", "run doctor as that user");
    } else if (info.st_uid != geteuid()) {
        CS_AUTO(cs_string) found = cs_format("%s belongs to user %u", path, info.st_uid);
        CS_AUTO(cs_string) expected = cs_format("user %u, who runs this", geteuid());
        add_key_fault(check, found, expected, "run doctor and the agent as the user that joined, or chown the folder");
    } else if (info.st_mode & forbidden) {
        CS_AUTO(cs_string) found = cs_format("%s has mode %04o", path, info.st_mode & 07777);
        CS_AUTO(cs_string) expected =
            cs_format("no rights of others (mode %s)", S_ISDIR(info.st_mode) ? "0700" : "0600");
        CS_AUTO(cs_string) action = cs_format("chmod go-rwx %s; if others had access to this machine, ask the operator "
                                              "for a new token and join again",
                                              path);
        add_key_fault(check, found, expected, action);
    }
}

static cs_status check_key_file(void *self, const char *name)
{
    key_check *check = self;
    CS_AUTO(cs_string) path = cs_path_join(check->folder, name);

    check->files++;
    check_mode(check, path, !ends_with(name, ".crt"));
    return CS_OK;
}

void cs_doctor_keys(const char *state_folder, cs_findings *findings)
{
    CS_AUTO(cs_string) folder = cs_path_join(state_folder, "keys");
    key_check check = {.folder = folder, .findings = findings};

    if (cs_folder_list(folder, check_key_file, &check) != CS_OK) {
        add_bad(findings, "keys", CS_FINDING_FAIL, cs_error_text(), "the keys that consilium-client join makes",
                "run consilium-client join with the file from the operator; check --state and the user");
        return;
    }
    check_mode(&check, folder, true);
    if (check.faults == 0)
        add_good(findings, "keys", "%s: %zu files, for this user alone", folder, check.files);
}

static void add_identity_mismatch(const cs_site_identity *identity, const cs_site_config *config, cs_findings *findings)
{
    CS_AUTO(cs_string) found =
        cs_format("the certificate is for the site '%s', site.yaml says '%s'", identity->leaf.name, config->site);

    add_bad(findings, "identity", CS_FINDING_FAIL, found, "one name",
            "correct `site:` in site.yaml, or the state folder");
}

void cs_doctor_certificate(const cs_site_identity *identity, const cs_site_config *config, cs_findings *findings)
{
    const cs_identity *leaf = &identity->leaf;
    int64_t now = cs_clock_wall_ms();
    int64_t left = leaf->not_after_ms - now;
    char from[CS_TIME_TEXT_BYTES], to[CS_TIME_TEXT_BYTES], at[CS_TIME_TEXT_BYTES];

    if (config && strcmp(leaf->name, config->site) != 0)
        add_identity_mismatch(identity, config, findings);
    else
        add_good(findings, "identity", "site '%s' of '%s'", leaf->name, leaf->consortium);

    cs_clock_format(leaf->not_before_ms, from);
    cs_clock_format(leaf->not_after_ms, to);
    cs_clock_format(now, at);
    CS_AUTO(cs_string) valid = cs_format("a time between %s and %s, when the certificate is valid", from, to);
    if (now < leaf->not_before_ms) {
        CS_AUTO(cs_string) found = cs_format("this machine's clock says %s", at);
        add_bad(findings, "clock", CS_FINDING_FAIL, found, valid, "set the clock (timedatectl, NTP)");
    } else if (left <= 0) {
        CS_AUTO(cs_string) found = cs_format("the certificate ended at %s, the clock says %s", to, at);
        add_bad(findings, "certificate", CS_FINDING_FAIL, found, "a certificate that is valid now",
                "if the clock is right, ask the operator for consilium-server token new SITE --rejoin and join again");
    } else if (left < (leaf->not_after_ms - leaf->not_before_ms) / 4) {
        /* The agent renews with a third of the life left: by now it has tried for a while. */
        CS_AUTO(cs_string) found = cs_format("%.1f days left, until %s", (double)left / DAY_MS, to);
        add_bad(findings, "certificate", CS_FINDING_WARN, found, "renewed by now",
                "let the agent run where it reaches the coordinator: consilium-client run");
    } else {
        add_good(findings, "certificate", "%.1f days left, until %s", (double)left / DAY_MS, to);
    }
}

void cs_doctor_disk(const char *state_folder, cs_findings *findings)
{
    uint64_t free_bytes = 0;

    if (cs_disk_free(state_folder, &free_bytes) != CS_OK) {
        add_bad(findings, "disk", CS_FINDING_FAIL, cs_error_text(), "a state folder", "check --state");
        return;
    }
    if (free_bytes >= CS_DOCTOR_DISK_WARN_BYTES) {
        add_good(findings, "disk", "%" PRIu64 " MiB free at %s", free_bytes >> 20, state_folder);
        return;
    }
    CS_AUTO(cs_string) found = cs_format("%" PRIu64 " MiB free at %s", free_bytes >> 20, state_folder);
    CS_AUTO(cs_string) expected = cs_format("%llu MiB", CS_DOCTOR_DISK_WARN_BYTES >> 20);
    add_bad(findings, "disk", free_bytes < CS_DOCTOR_DISK_FAIL_BYTES ? CS_FINDING_FAIL : CS_FINDING_WARN, found,
            expected, "make room, or move the state folder to a larger disk");
}

/* ---- confinement ---- */

cs_kernel cs_kernel_probe(void)
{
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);

    return (cs_kernel){
        .landlock_abi = abi > 0 ? (int)abi : 0,
        .has_seccomp = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0,
        .has_no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0,
    };
}

static void check_confinement(const char *name, bool is_there, const cs_site_config *config, const char *action,
                              cs_findings *findings)
{
    CS_AUTO(cs_string) found = cs_format("this kernel has no %s", name);

    if (is_there)
        return;
    if (config && !config->requires_confinement)
        add_bad(findings, "confinement", CS_FINDING_WARN, found, name,
                "the worker runs without it, because policy.confinement is `preferred`");
    else if (config && cs_names_have(&config->accepted_missing, name))
        add_bad(findings, "confinement", CS_FINDING_WARN, found, name,
                "the worker runs without it, because policy.accept_missing names it");
    else
        add_bad(findings, "confinement", CS_FINDING_FAIL, found, name, action);
}

void cs_doctor_confinement(const cs_kernel *kernel, const cs_site_config *config, cs_findings *findings)
{
    check_confinement("landlock", kernel->landlock_abi > 0, config,
                      "use a kernel from 5.13 on with landlock among its security modules (boot option "
                      "lsm=landlock,…); or name landlock in policy.accept_missing if this site does without",
                      findings);
    check_confinement("seccomp", kernel->has_seccomp, config,
                      "use a kernel with CONFIG_SECCOMP_FILTER; or name seccomp in policy.accept_missing if this site "
                      "does without",
                      findings);
    check_confinement("no_new_privs", kernel->has_no_new_privs, config, "use a kernel from 3.5 on", findings);
    if (kernel->landlock_abi > 0 && kernel->has_seccomp && kernel->has_no_new_privs)
        add_good(findings, "confinement", "the kernel offers landlock %d, seccomp and no_new_privs",
                 kernel->landlock_abi);
}

/* ---- the line to the coordinator ---- */

typedef struct line {
    const char *coordinator; /* host:port */
    char host[CS_HOST_BYTES];
    uint16_t port;
    const char *proxy;
    cs_string login; /* "user:password" of the proxy; NULL: none */
    int64_t timeout_ms;
    const cs_site_identity *identity;
    cs_findings *findings;
} line;

static cs_status read_login(const cs_site_config *config, cs_string *ret)
{
    CS_AUTO(cs_secret) text = CS_BUFFER_EMPTY;

    if (!config || !config->proxy_login_file)
        return CS_OK;
    CS_AUTO(cs_string) path = cs_path_join(config->folder, config->proxy_login_file);
    CS_TRY(cs_file_read_all(path, LOGIN_MAX_BYTES, &text));
    const char *login = cs_buffer_text(&text);
    *ret = cs_strndup(login, strcspn(login, "\r\n"));
    return CS_OK;
}

/* The name that this machine itself must find: the proxy's where there is one. */
static bool check_address(const line *line)
{
    char host[CS_HOST_BYTES], address[NI_MAXHOST] = "";
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    uint16_t port;

    if (cs_address_parse(line->proxy ? line->proxy : line->coordinator, line->proxy ? "proxy" : "coordinator", host,
                         &port) != CS_OK) {
        add_bad(line->findings, "address", CS_FINDING_FAIL, cs_error_text(), "host:port", "correct it in site.yaml");
        return false;
    }
    int error = getaddrinfo(host, NULL, &hints, &found);
    if (error != 0) {
        CS_AUTO(cs_string) text = cs_format("'%s' is not found: %s", host, gai_strerror(error));
        add_bad(line->findings, "address", CS_FINDING_FAIL, text, "a name with an address",
                "check the spelling in site.yaml and this machine's name server (/etc/resolv.conf)");
        return false;
    }
    if (getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST) != 0)
        address[0] = 0;
    freeaddrinfo(found);
    add_good(line->findings, "address", "%s%s is %s", line->proxy ? "the proxy " : "", host, address);
    return true;
}

static cs_tls_target target_of(const line *line)
{
    return (cs_tls_target){
        .host = line->host,
        .port = line->port,
        .proxy = line->proxy,
        .proxy_login = line->login,
        .authority_pem = line->identity ? cs_buffer_view(&line->identity->authority_pem) : (cs_bytes){0},
        .timeout_ms = line->timeout_ms,
    };
}

static bool check_connection(const line *line)
{
    const cs_tls_target target = target_of(line);
    CS_AUTO(cs_fd) fd = -1;

    if (cs_dial(&target, cs_clock_monotonic_ms() + line->timeout_ms, &fd) == CS_OK) {
        add_good(line->findings, "connection", "%s answers%s%s", line->coordinator, line->proxy ? " through " : "",
                 line->proxy ? line->proxy : "");
        return true;
    }
    CS_AUTO(cs_string)
    action = cs_format("let this machine open outbound TCP to %s%s in the firewall; ask the operator whether the "
                       "coordinator runs; if the way out is a proxy, set `proxy:` in site.yaml",
                       line->coordinator, line->proxy ? ", through the proxy," : "");
    add_bad(line->findings, "connection", CS_FINDING_FAIL, cs_error_text(), "a TCP connection", action);
    return false;
}

/* True when the clock here stands outside the life of the certificate that the coordinator shows: then that is what is
 * wrong, not the chain. Strangers' certificates carry no identity and do not count. */
static bool is_clock_off(const line *line, const cs_tls_target *target)
{
    CS_AUTO(cs_buffer) certificate = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) issuer = NULL;
    int64_t now = cs_clock_wall_ms();
    char at[CS_TIME_TEXT_BYTES], from[CS_TIME_TEXT_BYTES], to[CS_TIME_TEXT_BYTES];
    cs_identity server;

    if (cs_tls_probe(target, &certificate, &issuer) != CS_OK ||
        cs_identity_read(cs_buffer_view(&certificate), &server) != CS_OK ||
        (now >= server.not_before_ms && now <= server.not_after_ms))
        return false;
    cs_clock_format(now, at);
    cs_clock_format(server.not_before_ms, from);
    cs_clock_format(server.not_after_ms, to);
    CS_AUTO(cs_string) found = cs_format("this machine's clock says %s", at);
    CS_AUTO(cs_string)
    expected = cs_format("a time between %s and %s, when the coordinator's certificate is valid", from, to);
    add_bad(line->findings, "clock", CS_FINDING_FAIL, found, expected,
            "set the clock (timedatectl, NTP); if it is right, ask the operator whether the coordinator runs");
    return true;
}

/* The coordinator's certificate, seen without showing our own: TLS 1.3 lets a client check it before it is checked. */
static bool check_chain(const line *line)
{
    const cs_tls_target target = target_of(line);
    CS_AUTO_PTR(cs_tls) tls = NULL;
    cs_status status = cs_tls_connect(&target, &tls);

    if (status == CS_OK) {
        add_good(line->findings, "tls", "%s shows a certificate of this consortium, valid by this machine's clock",
                 line->coordinator);
        return true;
    }
    CS_AUTO(cs_string) found = cs_strdup(cs_error_text());
    if (status == CS_UNAUTHENTICATED && is_clock_off(line, &target))
        return false;
    CS_AUTO(cs_string)
    action = status == CS_UNAUTHENTICATED
                 ? cs_format("if the network opens TLS (the issuer that was found tells), except %s from it; else ask "
                             "the operator whether the coordinator was set up anew",
                             line->coordinator)
                 : cs_format("check that %s is the coordinator's port for sites and that nothing on the way ends TLS",
                             line->coordinator);
    add_bad(line->findings, "tls", CS_FINDING_FAIL, found, "a certificate issued by the consortium's authority",
            action);
    return false;
}

static cs_status ask_health(const line *line, cs_arena *arena)
{
    const cs_rpc_channel_config config = {
        .target = line->coordinator,
        .identity = {cs_buffer_view(&line->identity->certificate_pem), cs_buffer_view(&line->identity->key_pem),
                     cs_buffer_view(&line->identity->authority_pem)},
        .proxy = line->proxy,
        .proxy_login = line->login,
    };
    CS_AUTO_PTR(cs_rpc_channel) channel = NULL;
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;

    CS_TRY(cs_rpc_channel_open(&config, &channel));
    CS_TRY(cs_rpc_unary(channel, "/grpc.health.v1.Health/Check", &request.base,
                        &grpc__health__v1__health_check_response__descriptor, line->timeout_ms, arena, &answer));
    if (((Grpc__Health__V1__HealthCheckResponse *)answer)->status !=
        GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING)
        return cs_fail(CS_UNAVAILABLE, "the coordinator answers that it does not serve");
    return CS_OK;
}

static void check_coordinator(const line *line)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_MAX_BYTES);

    if (ask_health(line, arena) == CS_OK)
        add_good(line->findings, "coordinator", "takes this site's certificate and serves");
    else
        add_bad(line->findings, "coordinator", CS_FINDING_FAIL, cs_error_text(), "an answer to this site's certificate",
                "ask the operator: consilium-server site list shows whether the site is enrolled or revoked");
}

static void check_line(const line *line)
{
    if (!check_address(line) || !check_connection(line))
        return;
    if (!line->identity) {
        add_bad(line->findings, "tls", CS_FINDING_WARN, "not checked: this site has not joined",
                "the authority's certificate, which comes with the join file", "run consilium-client join");
        return;
    }
    if (check_chain(line))
        check_coordinator(line);
}

void cs_doctor_line(const cs_site_config *config, const cs_site_identity *identity, int64_t timeout_ms,
                    cs_findings *findings)
{
    line line = {
        .coordinator = config     ? config->coordinator
                       : identity ? identity->coordinator
                                  : NULL,
        .proxy = config ? config->proxy : NULL,
        .timeout_ms = timeout_ms,
        .identity = identity,
        .findings = findings,
    };

    if (!line.coordinator)
        return; /* neither file could be read, and both have said so */
    if (cs_address_parse(line.coordinator, "coordinator", line.host, &line.port) != CS_OK) {
        add_bad(findings, "address", CS_FINDING_FAIL, cs_error_text(), "host:port",
                "correct `coordinator:` in site.yaml");
        return;
    }
    if (read_login(config, &line.login) == CS_OK)
        check_line(&line);
    else
        add_bad(findings, "proxy", CS_FINDING_FAIL, cs_error_text(), "a file with user:password",
                "correct `proxy_login_file:` in site.yaml");
    cs_string_clear(&line.login);
}

/* ---- the data ---- */

static void add_description(const cs_site_config *config, const Consilium__V1__DatasetDescription *data,
                            cs_findings *findings)
{
    if (data->error && *data->error) {
        CS_AUTO(cs_string) found = cs_format("%s: %s", data->dataset, data->error);
        add_bad(findings, "data", CS_FINDING_FAIL, found, "a table as datasets in site.yaml describes it",
                "correct the table or its description in site.yaml");
        return;
    }
    CS_AUTO(cs_string)
    found = cs_format("%s: %" PRIu64 " rows; train %" PRIu64 ", valid %" PRIu64 ", test %" PRIu64, data->dataset,
                      data->rows, data->train, data->valid, data->test);
    if (data->train < config->floor_rows) {
        CS_AUTO(cs_string) expected = cs_format("at least %u training rows (policy.minimum_rows)", config->floor_rows);
        add_bad(findings, "data", CS_FINDING_WARN, found, expected, "plans that use it will not run here");
    } else if (data->test == 0) {
        add_bad(findings, "data", CS_FINDING_WARN, found, "some rows held out to test on",
                "add a split with a test part to the data set in site.yaml");
    } else {
        add_good(findings, "data", "%s", found);
    }
}

static cs_status describe(const cs_site_config *config, cs_bytes config_text, const char *state_folder, cs_arena *arena,
                          Consilium__V1__WorkerReady **ret)
{
    /* The worker's folder is named to it from the root, wherever doctor was started. */
    char *absolute = realpath(state_folder, NULL);
    if (!absolute)
        return cs_fail_errno("state folder '%s'", state_folder);
    CS_AUTO(cs_string) tasks = cs_path_join(absolute, "tasks");
    free(absolute);

    const cs_supervisor_config supervisor = {
        .program = config->worker,
        .site = config->site,
        .site_config = config_text,
        .site_config_folder = config->folder,
        .tasks_folder = tasks,
    };
    return cs_supervisor_describe(&supervisor, (cs_bytes){0}, arena, ret);
}

void cs_doctor_data(const cs_site_config *config, cs_bytes config_text, const char *state_folder, cs_findings *findings)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_MAX_BYTES);
    Consilium__V1__WorkerReady *ready = NULL;
    cs_status status = describe(config, config_text, state_folder, arena, &ready);

    if (status != CS_OK) {
        bool is_lost = status == CS_UNAVAILABLE || status == CS_NOT_FOUND;
        add_bad(findings, is_lost ? "worker" : "data", CS_FINDING_FAIL, cs_error_text(),
                is_lost ? "a consilium-worker that starts and confines itself" : "data as site.yaml describes it",
                is_lost ? "install consilium-worker beside consilium-client, or name it as `worker:` in site.yaml"
                        : "correct what the sentence names, in site.yaml or in the data");
        return;
    }
    add_good(findings, "worker", "%s, confined by %s", ready->build, ready->confinement);
    for (size_t i = 0; i < ready->n_datasets; i++)
        add_description(config, ready->datasets[i], findings);
    if (ready->n_datasets == 0)
        add_bad(findings, "data", CS_FINDING_WARN, "site.yaml names no data set", "the data sets that plans use",
                "add them under datasets in site.yaml");
}

/* ---- all of it ---- */

static void examine(const cs_doctor_options *options, const char *config_path, cs_findings *findings)
{
    const cs_kernel kernel = cs_kernel_probe();
    CS_AUTO_PTR(cs_site_config) config = NULL;
    CS_AUTO(cs_site_identity) identity = {0};
    CS_AUTO(cs_buffer) config_text = CS_BUFFER_EMPTY;

    cs_doctor_configuration(config_path, findings, &config);
    bool has_joined = cs_site_identity_load(options->state_folder, &identity) == CS_OK;
    if (!has_joined)
        add_bad(findings, "identity", CS_FINDING_FAIL, cs_error_text(), "keys and a certificate of the consortium",
                "ask the operator for a join file (consilium-server token new SITE) and run consilium-client join");
    CS_AUTO(cs_string) keys = cs_path_join(options->state_folder, "keys");
    if (has_joined || cs_file_exists(keys)) /* also where a key with rights of others is why it was not loaded */
        cs_doctor_keys(options->state_folder, findings);
    if (has_joined)
        cs_doctor_certificate(&identity, config, findings);
    cs_doctor_line(config, has_joined ? &identity : NULL, CS_DOCTOR_TIMEOUT_MS, findings);
    cs_doctor_disk(options->state_folder, findings);
    cs_doctor_confinement(&kernel, config, findings);
    if (config && cs_file_read_all(config_path, CS_SITE_CONFIG_MAX_BYTES, &config_text) == CS_OK)
        cs_doctor_data(config, cs_buffer_view(&config_text), options->state_folder, findings);
}

int cs_doctor(const cs_doctor_options *options, bool json)
{
    CS_AUTO(cs_findings) findings = {0};
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    CS_AUTO(cs_string) beside = cs_path_join(options->state_folder, "site.yaml");

    examine(options, options->config_path ? options->config_path : beside, &findings);
    if (json)
        cs_findings_json(&findings, &out);
    else
        cs_findings_print(&findings, &out);
    fputs(cs_buffer_text(&out), stdout);
    return cs_findings_have_failed(&findings) ? CS_EXIT_FINDINGS : CS_EXIT_OK;
}
