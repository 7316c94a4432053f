/* What `doctor` finds on the way to the coordinator, step by step, and what the line can carry. Main thread. */
#include "client/agent/doctor.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/crypto/dial.h"
#include "common/rpc/rpc.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define ANSWER_MAX_BYTES  ((size_t)4 * 1024 * 1024)
#define PROBE_PATH        "/consilium.v1.Federation/Probe"
#define SMALL_PROBE_BYTES CS_PROBE_CHUNK_BYTES
/* A small probe that takes longer than this has measured the line well enough. */
#define SLOW_PROBE_MS 400

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
    CS_AUTO(cs_secret) login = CS_BUFFER_EMPTY;

    if (!config || !config->proxy_login_file)
        return CS_OK;
    CS_AUTO(cs_string) path = cs_path_join(config->folder, config->proxy_login_file);
    CS_TRY(cs_proxy_login_read(path, &login));
    *ret = cs_strdup(cs_buffer_text(&login));
    return CS_OK;
}

static int64_t deadline(const line *line)
{
    return cs_clock_monotonic_ms() + line->timeout_ms;
}

/* ---- name and connection ---- */

/* The name that this machine itself must find: the proxy's where there is one. */
static bool check_address(const line *line)
{
    char host[CS_HOST_BYTES], address[CS_HOST_BYTES];
    uint16_t port;

    if (cs_address_parse(line->proxy ? line->proxy : line->coordinator, line->proxy ? "proxy" : "coordinator", host,
                         &port) != CS_OK) {
        cs_finding_bad(line->findings, CS_FOUND_ADDRESS_INVALID, CS_FINDING_FAIL, cs_error_text(), "host:port",
                       "correct it in site.yaml");
        return false;
    }
    cs_status status = cs_dial_find(host, deadline(line), address);
    if (status == CS_DEADLINE) {
        cs_finding_bad(line->findings, CS_FOUND_ADDRESS_SILENT, CS_FINDING_FAIL, cs_error_text(),
                       "an answer of the name service",
                       "check this machine's name server (/etc/resolv.conf) and that the firewall lets it be asked; or "
                       "write the IP address into /etc/hosts");
        return false;
    }
    if (status != CS_OK) {
        cs_finding_bad(line->findings, CS_FOUND_ADDRESS_UNKNOWN, CS_FINDING_FAIL, cs_error_text(),
                       "a name with an address",
                       "check the spelling in site.yaml and this machine's name server (/etc/resolv.conf)");
        return false;
    }
    cs_finding_good(line->findings, "address.ok", "%s%s is %s", line->proxy ? "the proxy " : "", host, address);
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

/* What the proxy said, or that it said nothing. */
static void add_proxy_fault(const line *line, cs_status status)
{
    CS_AUTO(cs_string) found = cs_strdup(cs_error_text());
    CS_AUTO(cs_string)
    exempt = cs_format("ask who runs the proxy to let this machine CONNECT to %s", line->coordinator);

    switch (status) {
    case CS_UNAUTHENTICATED:
        cs_finding_bad(
            line->findings, CS_FOUND_PROXY_LOGIN, CS_FINDING_FAIL, found,
            line->login ? "a proxy that takes the login of proxy_login_file" : "a proxy without a login",
            "write user:password into a file (mode 0600) and name it as `proxy_login_file:` in site.yaml; only "
            "Basic logins are spoken");
        break;
    case CS_DENIED:
        cs_finding_bad(line->findings, CS_FOUND_PROXY_REFUSES, CS_FINDING_FAIL, found,
                       "200, and a way to the coordinator", exempt);
        break;
    case CS_INVALID:
        cs_finding_bad(line->findings, CS_FOUND_PROXY_NOT_HTTP, CS_FINDING_FAIL, found,
                       "an HTTP proxy that knows CONNECT",
                       "correct `proxy:` in site.yaml: another service answers there");
        break;
    default:
        cs_finding_bad(line->findings, CS_FOUND_PROXY_UNREACHABLE, CS_FINDING_FAIL, found,
                       "a proxy that answers, and reaches the coordinator",
                       "check `proxy:` in site.yaml, and with who runs the proxy whether it reaches the coordinator");
    }
}

static void add_connection_fault(const line *line, cs_status status)
{
    CS_AUTO(cs_string) found = cs_strdup(cs_error_text());
    CS_AUTO(cs_string)
    action = cs_format("let this machine open outbound TCP to %s in the firewall%s; if the way out is a proxy, set "
                       "`proxy:` in site.yaml",
                       line->coordinator,
                       status == CS_DEADLINE ? " (silence is how most firewalls refuse)"
                                             : "; ask the operator whether the coordinator runs");

    cs_finding_bad(line->findings, status == CS_DEADLINE ? CS_FOUND_CONNECTION_SILENT : CS_FOUND_CONNECTION_REFUSED,
                   CS_FINDING_FAIL, found, "a TCP connection", action);
}

static bool check_connection(const line *line)
{
    const cs_tls_target target = target_of(line);
    CS_AUTO(cs_fd) fd = -1;
    cs_status status = cs_dial(&target, deadline(line), &fd);

    if (status == CS_OK)
        cs_finding_good(line->findings, "connection.ok", "%s answers%s%s", line->coordinator,
                        line->proxy ? " through " : "", line->proxy ? line->proxy : "");
    else if (line->proxy)
        add_proxy_fault(line, status);
    else
        add_connection_fault(line, status);
    return status == CS_OK;
}

/* ---- TLS ---- */

static void add_clock_outside(const line *line, const cs_identity *server)
{
    char at[CS_TIME_TEXT_BYTES], from[CS_TIME_TEXT_BYTES], to[CS_TIME_TEXT_BYTES];

    cs_clock_format(cs_clock_wall_ms(), at);
    cs_clock_format(server->not_before_ms, from);
    cs_clock_format(server->not_after_ms, to);
    CS_AUTO(cs_string) found = cs_format("this machine's clock says %s", at);
    CS_AUTO(cs_string)
    expected = cs_format("a time between %s and %s, when the coordinator's certificate is valid", from, to);
    cs_finding_bad(line->findings, CS_FOUND_CLOCK_OUTSIDE_CERTIFICATE, CS_FINDING_FAIL, found, expected,
                   "set the clock (timedatectl, NTP); if it is right, ask the operator whether the coordinator runs");
}

static void add_interception(const line *line, const cs_tls_shown *shown)
{
    CS_AUTO(cs_string)
    found =
        cs_format("%s shows the certificate '%s', issued by '%s'", line->coordinator, shown->subject, shown->issuer);
    CS_AUTO(cs_string)
    action = cs_format("'%s' opens TLS on the way: ask who runs it to exempt %s from TLS inspection. The site's key is "
                       "not shown to it, and nothing is sent",
                       shown->issuer, line->coordinator);

    cs_finding_bad(line->findings, CS_FOUND_TLS_INTERCEPTED, CS_FINDING_FAIL, found,
                   "a certificate issued by the consortium's authority", action);
}

static void add_stranger(const line *line, const cs_tls_shown *shown, const cs_identity *server)
{
    CS_AUTO(cs_string)
    found = cs_format("%s shows a certificate of the consortium '%s', issued by '%s'", line->coordinator,
                      server->consortium, shown->issuer);
    CS_AUTO(cs_string)
    expected =
        cs_format("a certificate issued by the authority that this site joined: '%s'", line->identity->consortium);

    cs_finding_bad(
        line->findings, CS_FOUND_TLS_OTHER_CONSORTIUM, CS_FINDING_FAIL, found, expected,
        "check `coordinator:` in site.yaml; if the operator has set the coordinator up anew, join again with a "
        "new token, in a new state folder");
}

static bool is_date_wrong(const cs_identity *server)
{
    const int64_t now_ms = cs_clock_wall_ms();

    return now_ms < server->not_before_ms || now_ms > server->not_after_ms;
}

/* What is wrong with a certificate that was not believed. One of strangers carries no identity of ours; one of ours
 * that is not valid now says something about a clock. */
static void add_chain_fault(const line *line, const cs_tls_target *target, const char *sentence)
{
    CS_AUTO(cs_tls_shown) shown = {0};
    const cs_bytes authority = cs_buffer_view(&line->identity->authority_pem);
    cs_identity server;

    if (cs_tls_probe(target, &shown) != CS_OK) {
        cs_finding_bad(line->findings, CS_FOUND_TLS_FAILED, CS_FINDING_FAIL, sentence,
                       "a certificate issued by the consortium's authority", "try again: the line is not steady");
        return;
    }
    const cs_bytes certificate = cs_buffer_view(&shown.certificate_pem);
    if (cs_identity_read(certificate, &server) != CS_OK)
        add_interception(line, &shown);
    else if (cs_certificate_verify(certificate, authority, (server.not_before_ms + server.not_after_ms) / 2) != CS_OK)
        add_stranger(line, &shown, &server);
    else if (is_date_wrong(&server))
        add_clock_outside(line, &server);
    else
        cs_finding_bad(
            line->findings, CS_FOUND_TLS_OTHER_NAME, CS_FINDING_FAIL, sentence,
            "a certificate for the name that site.yaml gives as coordinator",
            "write the coordinator's name as in the join file; if it has moved, the operator sets `address:` in "
            "server.yaml");
}

/* The coordinator's certificate, seen without showing our own: TLS 1.3 lets a client check it before it is checked. */
static bool check_chain(const line *line)
{
    const cs_tls_target target = target_of(line);
    CS_AUTO_PTR(cs_tls) tls = NULL;
    cs_status status = cs_tls_connect(&target, &tls);

    if (status == CS_OK) {
        cs_finding_good(line->findings, "tls.ok",
                        "%s shows a certificate of this consortium, valid by this machine's clock", line->coordinator);
        return true;
    }
    CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
    if (status == CS_UNAUTHENTICATED) {
        add_chain_fault(line, &target, sentence);
        return false;
    }
    CS_AUTO(cs_string)
    action =
        cs_format("check that %s is the coordinator's port for sites and that nothing on the way ends TLS or allows "
                  "less than TLS 1.3",
                  line->coordinator);
    cs_finding_bad(line->findings, CS_FOUND_TLS_FAILED, CS_FINDING_FAIL, sentence,
                   "a certificate issued by the consortium's authority", action);
    return false;
}

/* ---- the coordinator's answer ---- */

static cs_status open_channel(const line *line, cs_rpc_channel **ret)
{
    const cs_rpc_channel_config config = {
        .target = line->coordinator,
        .identity = {cs_buffer_view(&line->identity->certificate_pem), cs_buffer_view(&line->identity->key_pem),
                     cs_buffer_view(&line->identity->authority_pem)},
        .proxy = line->proxy,
        .proxy_login = line->login,
    };

    return cs_rpc_channel_open(&config, ret);
}

static cs_status ask_health(const line *line, cs_rpc_channel *channel, cs_arena *arena)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;

    CS_TRY(cs_rpc_unary(channel, "/grpc.health.v1.Health/Check", &request.base,
                        &grpc__health__v1__health_check_response__descriptor, line->timeout_ms, arena, &answer));
    if (((Grpc__Health__V1__HealthCheckResponse *)answer)->status !=
        GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING)
        return cs_fail(CS_UNAVAILABLE, "the coordinator answers that it does not serve");
    return CS_OK;
}

static void add_refusal(const line *line, cs_status status)
{
    CS_AUTO(cs_string) found = cs_strdup(cs_error_text());

    if (status == CS_UNAUTHENTICATED)
        cs_finding_bad(line->findings, CS_FOUND_CERTIFICATE_REPLACED, CS_FINDING_FAIL, found,
                       "this site's newest certificate, or the one before",
                       "this state folder is an old copy, or somebody joined again as this site: use the folder of the "
                       "newest join, or ask the operator for consilium-server token new SITE --rejoin and join again");
    else if (status == CS_DENIED)
        cs_finding_bad(line->findings, CS_FOUND_COORDINATOR_DENIES, CS_FINDING_FAIL, found,
                       "an answer to this site's certificate",
                       "ask the operator: consilium-server site list shows whether the site is enrolled or revoked");
    else
        cs_finding_bad(
            line->findings, CS_FOUND_COORDINATOR_SILENT, CS_FINDING_FAIL, found, "an answer to this site's certificate",
            "check that the port is the coordinator's for sites (not the one for enrolment), and that nothing "
            "on the way ends connections with a client's certificate or HTTP/2");
}

/* ---- clock, generation, rate ---- */

typedef struct probe_result {
    uint64_t clock_ms;
    Consilium__V1__Generation generation;
    int64_t sent_wall_ms, answered_wall_ms;
    int64_t up_ms, down_ms; /* until the first answer, and from there to the last byte */
    uint64_t received;
} probe_result;

static cs_status send_probe(cs_rpc_stream *stream, uint32_t up, uint32_t down, const uint8_t *noise)
{
    Consilium__V1__ProbeRequest request = CONSILIUM__V1__PROBE_REQUEST__INIT;
    request.hello = cs_wire_hello();
    request.wanted = down;
    cs_status status = cs_rpc_stream_write(stream, &request.base);
    for (uint32_t sent = 0; status == CS_OK && sent < up; sent += CS_PROBE_CHUNK_BYTES) {
        consilium__v1__probe_request__init(&request);
        request.data = cs_wire_data(noise, CS_MIN(up - sent, (uint32_t)CS_PROBE_CHUNK_BYTES));
        status = cs_rpc_stream_write(stream, &request.base);
    }
    if (status == CS_OK)
        status = cs_rpc_stream_writes_done(stream);
    return status == CS_DONE ? CS_OK : status; /* the reason comes with the read */
}

static cs_status probe(const line *line, cs_rpc_channel *channel, uint32_t up, uint32_t down, const uint8_t *noise,
                       probe_result *ret)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_MAX_BYTES);
    CS_AUTO_PTR(cs_rpc_stream) stream = NULL;
    const int64_t until_ms = deadline(line);
    const int64_t began_ms = cs_clock_monotonic_ms();
    int64_t answered_ms = 0;

    *ret = (probe_result){.sent_wall_ms = cs_clock_wall_ms()};
    CS_TRY(
        cs_rpc_stream_open(channel, PROBE_PATH, &consilium__v1__probe_answer__descriptor, line->timeout_ms, &stream));
    CS_TRY(send_probe(stream, up, down, noise));
    for (;;) {
        ProtobufCMessage *message = NULL;
        cs_arena_reset(arena);
        cs_status status = cs_rpc_stream_read(stream, until_ms, arena, &message);
        if (status == CS_DONE && answered_ms == 0)
            return cs_fail(CS_INVALID, "the coordinator ended a probe without an answer");
        if (status != CS_OK && status != CS_DONE)
            return status;
        if (status == CS_DONE) {
            ret->down_ms = cs_clock_monotonic_ms() - answered_ms;
            return ret->received >= down
                       ? CS_OK
                       : cs_fail(CS_INVALID, "a probe brought %" PRIu64 " bytes of %" PRIu32, ret->received, down);
        }
        const Consilium__V1__ProbeAnswer *answer = (const Consilium__V1__ProbeAnswer *)message;
        if (answered_ms == 0) {
            answered_ms = cs_clock_monotonic_ms();
            ret->answered_wall_ms = cs_clock_wall_ms();
            ret->up_ms = answered_ms - began_ms;
            ret->clock_ms = answer->clock_ms;
            ret->generation = answer->generation;
        }
        ret->received += answer->data.len;
    }
}

static void check_clock(const line *line, const probe_result *first)
{
    const int64_t middle_ms = first->sent_wall_ms + (first->answered_wall_ms - first->sent_wall_ms) / 2;
    const int64_t offset_ms = middle_ms - (int64_t)first->clock_ms;
    const int64_t doubt_ms = (first->answered_wall_ms - first->sent_wall_ms) / 2;
    const int64_t off_ms = offset_ms < 0 ? -offset_ms : offset_ms;

    if (off_ms - doubt_ms < CS_DOCTOR_CLOCK_WARN_MS) {
        cs_finding_good(line->findings, "clock.ok", "%.1f s %s the coordinator's", (double)off_ms / 1000,
                        offset_ms < 0 ? "behind" : "ahead of");
        return;
    }
    CS_AUTO(cs_string)
    found = cs_format("this machine's clock is %" PRId64 " s %s the coordinator's", off_ms / 1000,
                      offset_ms < 0 ? "behind" : "ahead of");
    cs_finding_bad(
        line->findings, CS_FOUND_CLOCK_OFF,
        off_ms - doubt_ms < CS_DOCTOR_CLOCK_FAIL_MS ? CS_FINDING_WARN : CS_FINDING_FAIL, found,
        "less than 30 s between the two; from 5 minutes on, fresh certificates look as if they were not valid yet",
        "set the clock (timedatectl set-ntp true); if it is right, tell the operator that the coordinator's is "
        "not");
}

static void check_generation(const line *line, const probe_result *first)
{
    if (first->generation == CONSILIUM__V1__GENERATION__GENERATION_NEWEST) {
        cs_finding_good(line->findings, "certificate.ok", "the newest that the coordinator has issued to this site");
        return;
    }
    cs_finding_bad(line->findings, CS_FOUND_CERTIFICATE_PREVIOUS, CS_FINDING_WARN,
                   "the coordinator has issued a newer certificate to this site than the one that lies here",
                   "the newest",
                   "let the agent run: it renews again; if this state folder is a copy or a backup, use the folder in "
                   "which the agent ran last");
}

/* Bytes a second, with the time of an empty exchange taken off; at least 1. */
static double rate_of(uint32_t bytes, int64_t took_ms, int64_t empty_ms)
{
    const double ms = (double)CS_MAX(took_ms - empty_ms, (int64_t)1);
    return fmax((double)bytes * 1000 / ms, 1);
}

/* One direction: a small probe, and where the line is quick a larger one, whose time is not mostly latency. */
static cs_status measure(const line *line, cs_rpc_channel *channel, bool is_up, int64_t empty_ms, const uint8_t *noise,
                         double *ret_rate)
{
    static const uint32_t sizes[] = {SMALL_PROBE_BYTES, CS_PROBE_MAX_BYTES};

    for (size_t i = 0; i < CS_COUNT(sizes); i++) {
        probe_result result;
        CS_TRY(probe(line, channel, is_up ? sizes[i] : 0, is_up ? 0 : sizes[i], noise, &result));
        const int64_t took_ms = result.up_ms + result.down_ms;
        *ret_rate = rate_of(sizes[i], took_ms, empty_ms);
        if (took_ms > SLOW_PROBE_MS)
            break;
    }
    return CS_OK;
}

static void add_rate(const line *line, double up, double down)
{
    const double up_s = (double)CS_DOCTOR_MODEL_BYTES / up, down_s = (double)CS_DOCTOR_MODEL_BYTES / down;
    CS_AUTO(cs_string)
    found =
        cs_format("%.0f KB/s up, %.0f KB/s down: a model of 100 MB takes about %.0f s to come, its update %.0f s to go",
                  up / 1000, down / 1000, ceil(down_s), ceil(up_s));

    if (up_s + down_s < CS_DOCTOR_MODEL_S)
        cs_finding_good(line->findings, "bandwidth.ok", "%s", found);
    else
        cs_finding_bad(line->findings, CS_FOUND_BANDWIDTH_SLOW, CS_FINDING_WARN, found,
                       "both within an hour, the default deadline of a phase",
                       "fine for small models; for large ones ask for more bandwidth, or ask the operator for a longer "
                       "`deadline:` in the plan");
}

static void check_rate(const line *line, cs_rpc_channel *channel, int64_t empty_ms, const uint8_t *noise)
{
    double up = 1, down = 1;
    cs_status status = measure(line, channel, true, empty_ms, noise, &up);

    if (status == CS_OK)
        status = measure(line, channel, false, empty_ms, noise, &down);
    if (status == CS_OK) {
        add_rate(line, up, down);
    } else if (status == CS_DEADLINE) {
        CS_AUTO(cs_string)
        found = cs_format("%d KB did not pass within %" PRId64 " s", SMALL_PROBE_BYTES / 1000, line->timeout_ms / 1000);
        cs_finding_bad(
            line->findings, CS_FOUND_BANDWIDTH_SLOW, CS_FINDING_WARN, found,
            "100 MB both ways within an hour, the default deadline of a phase",
            "transfers go on where they broke off, but only small models will be in time: look for what slows "
            "the line down (traffic shaping, a proxy that inspects), or ask for more bandwidth");
    } else {
        cs_finding_bad(line->findings, CS_FOUND_BANDWIDTH_UNMEASURED, CS_FINDING_WARN, cs_error_text(),
                       "a probe of the line", "try again later; rounds do not depend on it");
    }
}

/* What only a coordinator that speaks this feature can tell. */
static void check_by_probe(const line *line, cs_rpc_channel *channel)
{
    static uint8_t noise[CS_PROBE_CHUNK_BYTES]; /* what no box on the way can make smaller */
    probe_result first;
    cs_status status = probe(line, channel, 0, 0, noise, &first);

    if (status == CS_UNIMPLEMENTED) {
        cs_finding_bad(line->findings, CS_FOUND_COORDINATOR_OLDER, CS_FINDING_WARN,
                       "the coordinator is of a version that cannot be probed", "protocol 1.1 or later",
                       "nothing: clock and bandwidth are not measured, all else works");
        return;
    }
    if (status != CS_OK) {
        cs_finding_bad(line->findings, CS_FOUND_BANDWIDTH_UNMEASURED, CS_FINDING_WARN, cs_error_text(),
                       "a probe of the line", "try again later; rounds do not depend on it");
        return;
    }
    cs_crypto_random(noise, sizeof noise);
    check_clock(line, &first);
    check_generation(line, &first);
    check_rate(line, channel, first.up_ms + first.down_ms, noise);
}

static void check_coordinator(const line *line)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_MAX_BYTES);
    CS_AUTO_PTR(cs_rpc_channel) channel = NULL;
    cs_status status = open_channel(line, &channel);

    if (status == CS_OK)
        status = ask_health(line, channel, arena);
    if (status != CS_OK) {
        add_refusal(line, status);
        return;
    }
    cs_finding_good(line->findings, "coordinator.ok", "takes this site's certificate and serves");
    check_by_probe(line, channel);
}

/* ---- all of it ---- */

static void check_line(const line *line)
{
    if (!check_address(line) || !check_connection(line))
        return;
    if (!line->identity) {
        cs_finding_bad(line->findings, CS_FOUND_TLS_UNCHECKED, CS_FINDING_WARN, "not checked: this site has not joined",
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
        cs_finding_bad(findings, CS_FOUND_ADDRESS_INVALID, CS_FINDING_FAIL, cs_error_text(), "host:port",
                       "correct `coordinator:` in site.yaml");
        return;
    }
    if (read_login(config, &line.login) == CS_OK)
        check_line(&line);
    else
        cs_finding_bad(findings, CS_FOUND_PROXY_LOGIN_FILE, CS_FINDING_FAIL, cs_error_text(),
                       "a file with user:password", "correct `proxy_login_file:` in site.yaml");
    cs_string_clear(&line.login);
}
