/* site list|revoke and token new|answer. */
#include "server/cli/cli.h"

#include "common/base/clock.h"
#include "common/base/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REQUEST_FILE_MAX_BYTES (64 * 1024)

static void append_site_json(cs_json *json, const char *key, const Consilium__V1__SiteStatus *site)
{
    cs_json_object(json, key);
    cs_json_text(json, "site", site->site);
    cs_json_text(json, "state", site->state);
    cs_json_bool(json, "connected", site->is_connected);
    cs_json_uint(json, "certificate_expires_ms", site->certificate_expires_ms);
    cs_json_uint(json, "last_seen_ms", site->last_seen_ms);
    cs_json_hex(json, "signing_key", site->signing_key.data, site->signing_key.len);
    cs_json_text(json, "software", site->software);
    cs_json_text(json, "confinement", site->confinement);
    cs_json_end(json, '}');
}

static void time_text(uint64_t wall_ms, char out[CS_TIME_TEXT_BYTES])
{
    if (wall_ms == 0)
        snprintf(out, CS_TIME_TEXT_BYTES, "-");
    else
        cs_clock_format((int64_t)wall_ms, out);
}

static void print_site_row(const Consilium__V1__SiteStatus *site)
{
    char expires[CS_TIME_TEXT_BYTES], seen[CS_TIME_TEXT_BYTES];
    time_text(site->certificate_expires_ms, expires);
    time_text(site->last_seen_ms, seen);
    printf("%-20s %-9s %-10s %-26s %-26s %s\n", site->site, site->state, site->is_connected ? "connected" : "away",
           expires, seen, site->confinement);
}

int cli_site_list(const cs_arguments *arguments)
{
    cli_session session;
    int code = cli_open(arguments, &session);
    Consilium__V1__ListSitesRequest request = CONSILIUM__V1__LIST_SITES_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    if (code == CS_EXIT_OK)
        code = cli_ask(&session, "ListSites", &request.base, &consilium__v1__site_list__descriptor, &answer);
    const Consilium__V1__SiteList *list = (const Consilium__V1__SiteList *)answer;
    if (code == CS_EXIT_OK && cli_is_json(arguments)) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        cs_json_list(&json, NULL);
        for (size_t i = 0; i < list->n_sites; i++)
            append_site_json(&json, NULL, list->sites[i]);
        cs_json_end(&json, ']');
        printf("%s\n", cs_buffer_text(&out));
    } else if (code == CS_EXIT_OK) {
        printf("%-20s %-9s %-10s %-26s %-26s %s\n", "SITE", "STATE", "SESSION", "CERTIFICATE UNTIL", "LAST SEEN",
               "CONFINEMENT");
        for (size_t i = 0; i < list->n_sites; i++)
            print_site_row(list->sites[i]);
    }
    cli_close(&session);
    return code;
}

int cli_site_revoke(const cs_arguments *arguments)
{
    cli_session session;
    int code = cli_open(arguments, &session);
    Consilium__V1__RevokeSiteRequest request = CONSILIUM__V1__REVOKE_SITE_REQUEST__INIT;
    request.site = (char *)(uintptr_t)cs_argument(arguments, "SITE");
    const char *reason = cs_argument(arguments, "--reason");
    if (reason)
        request.reason = (char *)(uintptr_t)reason;
    ProtobufCMessage *answer = NULL;
    if (code == CS_EXIT_OK)
        code = cli_ask(&session, "RevokeSite", &request.base, &consilium__v1__site_status__descriptor, &answer);
    const Consilium__V1__SiteStatus *site = (const Consilium__V1__SiteStatus *)answer;
    if (code == CS_EXIT_OK && cli_is_json(arguments)) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        append_site_json(&json, NULL, site);
        printf("%s\n", cs_buffer_text(&out));
    } else if (code == CS_EXIT_OK) {
        printf("%s is revoked: its streams are ended and its next call is refused.\n"
               "To bring it back: consilium-server token new %s --rejoin\n",
               site->site, site->site);
    }
    cli_close(&session);
    return code;
}

int cli_token_new(const cs_arguments *arguments)
{
    int64_t valid_ms = 0;
    cs_status status = cs_argument_duration(arguments, "--valid", &valid_ms);
    if (status != CS_OK)
        return cs_command_fail(arguments, status);
    cli_session session;
    int code = cli_open(arguments, &session);
    Consilium__V1__NewTokenRequest request = CONSILIUM__V1__NEW_TOKEN_REQUEST__INIT;
    request.site = (char *)(uintptr_t)cs_argument(arguments, "SITE");
    request.is_rejoin = cs_argument_flag(arguments, "--rejoin");
    request.valid_ms = (uint64_t)valid_ms;
    ProtobufCMessage *message = NULL;
    if (code == CS_EXIT_OK)
        code = cli_ask(&session, "NewToken", &request.base, &consilium__v1__new_token_answer__descriptor, &message);
    const Consilium__V1__NewTokenAnswer *answer = (const Consilium__V1__NewTokenAnswer *)message;
    if (code == CS_EXIT_OK && cli_is_json(arguments)) {
        CS_AUTO(cs_string) file = cs_strndup((const char *)answer->join_file.data, answer->join_file.len);
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        cs_json_object(&json, NULL);
        cs_json_text(&json, "site", request.site);
        cs_json_uint(&json, "expires_ms", answer->expires_ms);
        cs_json_text(&json, "join_file", file);
        cs_json_end(&json, '}');
        printf("%s\n", cs_buffer_text(&out));
    } else if (code == CS_EXIT_OK) {
        fwrite(answer->join_file.data, 1, answer->join_file.len, stdout);
    }
    cli_close(&session);
    return code;
}

/* A file for the site: as it is, or as the only member of a JSON object. */
static void print_file(const cs_arguments *arguments, const char *key, const ProtobufCBinaryData *file)
{
    if (!cli_is_json(arguments)) {
        fwrite(file->data, 1, file->len, stdout);
        return;
    }
    CS_AUTO(cs_string) text = cs_strndup((const char *)file->data, file->len);
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);
    cs_json_object(&json, NULL);
    cs_json_text(&json, key, text);
    cs_json_end(&json, '}');
    printf("%s\n", cs_buffer_text(&out));
}

int cli_token_answer(const cs_arguments *arguments)
{
    CS_AUTO(cs_buffer) file = CS_BUFFER_EMPTY;
    cs_status status = cs_file_read_all(cs_argument(arguments, "FILE"), REQUEST_FILE_MAX_BYTES, &file);
    if (status != CS_OK)
        return cs_command_fail(arguments, status);
    cli_session session;
    int code = cli_open(arguments, &session);
    Consilium__V1__OfflineRequest request = CONSILIUM__V1__OFFLINE_REQUEST__INIT;
    request.request_file = cs_wire_data(file.data, file.size);
    ProtobufCMessage *message = NULL;
    if (code == CS_EXIT_OK)
        code = cli_ask(&session, "AnswerRequest", &request.base, &consilium__v1__offline_answer__descriptor, &message);
    if (code == CS_EXIT_OK) {
        const Consilium__V1__OfflineAnswer *answer = (const Consilium__V1__OfflineAnswer *)message;
        print_file(arguments, "answer_file", &answer->answer_file);
    }
    cli_close(&session);
    return code;
}
