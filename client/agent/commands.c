/* status, plan list|show|approve|refuse, roster show|approve: one request over the control socket, printed as lines or
 * as JSON. Main thread of a short process. */
#include "client/agent/commands.h"

#include "client/agent/control.h"
#include "client/agent/enrol.h"
#include "common/base/clock.h"
#include "common/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_ARENA_BYTES (16 * 1024 * 1024)
#define DAY_MS             (24 * 3600 * 1000LL)
#define HASH_BYTES         32

const char *client_state_folder(const cs_arguments *arguments)
{
    const char *folder = cs_argument(arguments, "--state");
    if (folder == NULL)
        folder = getenv("CONSILIUM_STATE");
    return folder != NULL && folder[0] != '\0' ? folder : CS_CLIENT_DEFAULT_STATE;
}

const char *client_config_path(const cs_arguments *arguments)
{
    const char *path = cs_argument(arguments, "--config");
    if (path == NULL)
        path = getenv("CONSILIUM_CONFIG");
    return path != NULL && path[0] != '\0' ? path : NULL;
}

/* CS_EXIT_OK with the answer, or the exit code after the sentence. */
static int ask(const cs_arguments *arguments, const Consilium__V1__ControlRequest *request, cs_arena *arena,
               Consilium__V1__ControlAnswer **ret)
{
    const cs_status status = cs_control_ask(client_state_folder(arguments), request, arena, ret);
    if (status == CS_OK)
        return CS_EXIT_OK;
    const int code = cs_command_fail(arguments, status);
    return status == CS_UNAVAILABLE ? CS_EXIT_NOT_RUNNING : code;
}

static const char *stage_word(Consilium__V1__Stage stage)
{
    static const char *const words[] = {"", "fetching", "training", "evaluating", "uploading", "agreeing", "aligning"};
    return (size_t)stage < CS_COUNT(words) ? words[stage] : "";
}

static const char *decision_word(Consilium__V1__Decision decision)
{
    static const char *const words[] = {"none", "approved", "refused", "pending"};
    return (size_t)decision < CS_COUNT(words) ? words[decision] : "none";
}

static const char *state_word(Consilium__V1__JobState state)
{
    static const char *const words[] = {"offered",  "waiting", "running", "paused",
                                        "complete", "partial", "failed",  "cancelled"};
    return (size_t)state < CS_COUNT(words) ? words[state] : "offered";
}

/* ---- status ---- */

static void print_status_json(const Consilium__V1__AgentStatus *status)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "site", status->site);
    cs_json_text(&json, "consortium", status->consortium);
    cs_json_text(&json, "coordinator", status->coordinator);
    cs_json_bool(&json, "connected", status->is_connected);
    cs_json_text(&json, "reason", status->reason);
    cs_json_uint(&json, "certificate_expires_ms", status->certificate_expires_ms);
    cs_json_text(&json, "confinement", status->confinement);
    cs_json_text(&json, "task", status->task);
    cs_json_text(&json, "stage", stage_word(status->stage));
    cs_json_uint(&json, "done", status->done);
    cs_json_uint(&json, "total", status->total);
    cs_json_uint(&json, "transcript_records", status->records_sent);
    cs_json_hex(&json, "transcript_root", status->transcript_root.data, status->transcript_root.len);
    cs_json_end(&json, '}');
    printf("%s\n", cs_buffer_text(&out));
}

static void print_certificate(uint64_t expires_ms)
{
    char when[CS_TIME_TEXT_BYTES];
    cs_clock_format((int64_t)expires_ms, when);
    const int64_t left_ms = (int64_t)expires_ms - cs_clock_wall_ms();
    if (left_ms <= 0)
        printf("certificate   ended at %s\n", when);
    else
        printf("certificate   %.1f days left, until %s\n", (double)left_ms / (double)DAY_MS, when);
}

static void print_status(const Consilium__V1__AgentStatus *status)
{
    char root[2 * HASH_BYTES + 1] = "";
    if (status->transcript_root.len == HASH_BYTES)
        cs_hex_encode(root, status->transcript_root.data, HASH_BYTES);
    printf("site          %s in %s\n", status->site, status->consortium);
    printf("coordinator   %s, %s%s%s\n", status->coordinator, status->is_connected ? "connected" : "not connected",
           status->reason[0] != '\0' ? ": " : "", status->reason);
    print_certificate(status->certificate_expires_ms);
    printf("confinement   %s\n",
           status->confinement[0] != '\0' ? status->confinement : "not known before the first task");
    if (status->task[0] == '\0')
        printf("task          none\n");
    else if (status->total > 0)
        printf("task          %s, %s %.0f %%\n", status->task, stage_word(status->stage),
               100.0 * (double)status->done / (double)status->total);
    else
        printf("task          %s, %s\n", status->task, stage_word(status->stage));
    printf("transcript    %llu records, root %s\n", (unsigned long long)status->records_sent, root);
}

/* One line: health checks keep little, and show it to somebody in a hurry. */
static void print_health(const Consilium__V1__AgentStatus *status)
{
    if (status->is_connected)
        printf("in the federation: %s attends %s at %s\n", status->site, status->consortium, status->coordinator);
    else
        printf("not in the federation: %s does not reach %s: %s\n", status->site, status->coordinator, status->reason);
}

/* Before the agent runs a site joins; that it has not is the better reason then. */
static cs_status check_joined(const cs_arguments *arguments)
{
    CS_AUTO(cs_site_identity) identity = {0};
    return cs_site_identity_load(client_state_folder(arguments), &identity);
}

int client_status(const cs_arguments *arguments)
{
    if (cs_argument_flag(arguments, "--healthy")) {
        const cs_status joined = check_joined(arguments);
        if (joined != CS_OK)
            return cs_command_fail(arguments, cs_wrap(joined, "not in the federation"));
    }
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_ARENA_BYTES);
    Consilium__V1__StatusRequest body = CONSILIUM__V1__STATUS_REQUEST__INIT;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_STATUS;
    request.status = &body;
    Consilium__V1__ControlAnswer *answer = NULL;
    const int code = ask(arguments, &request, arena, &answer);
    if (code != CS_EXIT_OK)
        return code;
    if (answer->status == NULL)
        return cs_command_fail(arguments, cs_fail(CS_INVALID, "the agent answered without a status"));
    const bool is_asked_for_health = cs_argument_flag(arguments, "--healthy");
    if (cs_argument_flag(arguments, "--json"))
        print_status_json(answer->status);
    else if (is_asked_for_health)
        print_health(answer->status);
    else
        print_status(answer->status);
    return is_asked_for_health && !answer->status->is_connected ? CS_EXIT_ERROR : CS_EXIT_OK;
}

/* ---- plans ---- */

static void append_plan(cs_json *json, const Consilium__V1__PlanEntry *entry, bool is_whole)
{
    cs_json_object(json, NULL);
    cs_json_text(json, "job", entry->job);
    cs_json_text(json, "plan", entry->plan);
    cs_json_hex(json, "plan_sha256", entry->plan_sha256.data, entry->plan_sha256.len);
    cs_json_text(json, "decision", decision_word(entry->decision));
    cs_json_text(json, "reason", entry->reason);
    cs_json_uint(json, "runs_left", entry->runs_left);
    cs_json_uint(json, "highest_round", entry->highest_round);
    cs_json_text(json, "state", state_word(entry->state));
    if (is_whole) {
        CS_AUTO(cs_string) text = cs_strndup((const char *)entry->text.data, entry->text.len);
        cs_json_text(json, "text", text);
        cs_json_text(json, "summary", entry->summary);
    }
    cs_json_end(json, '}');
}

/* "sha256:9f31…" as it is typed back into `plan approve`. */
static void plan_hash_text(const Consilium__V1__PlanEntry *entry, char out[7 + 2 * HASH_BYTES + 1])
{
    memcpy(out, "sha256:", 8);
    if (entry->plan_sha256.len == HASH_BYTES)
        cs_hex_encode(out + 7, entry->plan_sha256.data, HASH_BYTES);
}

static void print_plans_json(const Consilium__V1__ControlAnswer *answer)
{
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);
    cs_json_list(&json, NULL);
    for (size_t i = 0; i < answer->n_plans; i++)
        append_plan(&json, answer->plans[i], false);
    cs_json_end(&json, ']');
    printf("%s\n", cs_buffer_text(&out));
}

int client_plan_list(const cs_arguments *arguments)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_ARENA_BYTES);
    Consilium__V1__PlanListRequest body = CONSILIUM__V1__PLAN_LIST_REQUEST__INIT;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_LIST;
    request.plan_list = &body;
    Consilium__V1__ControlAnswer *answer = NULL;
    const int code = ask(arguments, &request, arena, &answer);
    if (code != CS_EXIT_OK)
        return code;
    if (cs_argument_flag(arguments, "--json")) {
        print_plans_json(answer);
        return CS_EXIT_OK;
    }
    printf("%-24s %-20s %-10s %-10s %-6s %-19s %s\n", "JOB", "PLAN", "STATE", "DECISION", "ROUND", "HASH", "REASON");
    for (size_t i = 0; i < answer->n_plans; i++) {
        const Consilium__V1__PlanEntry *entry = answer->plans[i];
        char hash[7 + 2 * HASH_BYTES + 1];
        plan_hash_text(entry, hash);
        printf("%-24s %-20s %-10s %-10s %-6u %.18s… %s\n", entry->job, entry->plan, state_word(entry->state),
               decision_word(entry->decision), entry->highest_round, hash, entry->reason);
    }
    return CS_EXIT_OK;
}

/* The plan came over the network, and this may be a terminal: control characters are shown, not obeyed. */
static void print_foreign(ProtobufCBinaryData text)
{
    for (size_t i = 0; i < text.len; i++) {
        const unsigned char c = text.data[i];
        putchar((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F ? '?' : c);
    }
    putchar('\n');
}

int client_plan_show(const cs_arguments *arguments)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_ARENA_BYTES);
    Consilium__V1__PlanRequest body = CONSILIUM__V1__PLAN_REQUEST__INIT;
    body.plan = (char *)(uintptr_t)cs_argument(arguments, "PLAN");
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_SHOW;
    request.plan_show = &body;
    Consilium__V1__ControlAnswer *answer = NULL;
    const int code = ask(arguments, &request, arena, &answer);
    if (code != CS_EXIT_OK)
        return code;
    if (answer->n_plans != 1)
        return cs_command_fail(arguments, cs_fail(CS_INVALID, "the agent answered without a plan"));
    const Consilium__V1__PlanEntry *entry = answer->plans[0];
    if (cs_argument_flag(arguments, "--json")) {
        CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
        cs_json json = cs_json_to(&out);
        append_plan(&json, entry, true);
        printf("%s\n", cs_buffer_text(&out));
        return CS_EXIT_OK;
    }
    char hash[7 + 2 * HASH_BYTES + 1];
    plan_hash_text(entry, hash);
    print_foreign(entry->text);
    printf("---- what it would do here\n%s\n", entry->summary);
    printf("job           %s, %s\n", entry->job, state_word(entry->state));
    printf("decision      %s: %s\n", decision_word(entry->decision), entry->reason);
    printf("hash          %s\n", hash);
    if (entry->decision == CONSILIUM__V1__DECISION__DECISION_PENDING)
        printf("to approve    consilium-client plan approve %s\n", hash);
    return CS_EXIT_OK;
}

static int decided(const cs_arguments *arguments, const Consilium__V1__ControlRequest *request)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_ARENA_BYTES);
    Consilium__V1__ControlAnswer *answer = NULL;
    const int code = ask(arguments, request, arena, &answer);
    if (code != CS_EXIT_OK)
        return code;
    if (cs_argument_flag(arguments, "--json")) {
        print_plans_json(answer);
        return CS_EXIT_OK;
    }
    for (size_t i = 0; i < answer->n_plans; i++)
        printf("%s: %s%s\n", answer->plans[i]->job, decision_word(answer->plans[i]->decision),
               answer->plans[i]->runs_left > 0 ? ", and further runs of the same plan" : "");
    return CS_EXIT_OK;
}

int client_plan_approve(const cs_arguments *arguments)
{
    int64_t runs = 1;
    const cs_status status = cs_argument_int(arguments, "--runs", 1, 1000, &runs);
    if (status != CS_OK)
        return cs_command_fail(arguments, status);
    Consilium__V1__PlanApproveRequest body = CONSILIUM__V1__PLAN_APPROVE_REQUEST__INIT;
    body.plan = (char *)(uintptr_t)cs_argument(arguments, "HASH");
    body.runs = (uint32_t)runs;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_APPROVE;
    request.plan_approve = &body;
    return decided(arguments, &request);
}

int client_plan_refuse(const cs_arguments *arguments)
{
    const char *reason = cs_argument(arguments, "--reason");
    Consilium__V1__PlanRefuseRequest body = CONSILIUM__V1__PLAN_REFUSE_REQUEST__INIT;
    body.plan = (char *)(uintptr_t)cs_argument(arguments, "PLAN");
    if (reason != NULL)
        body.reason = (char *)(uintptr_t)reason;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_PLAN_REFUSE;
    request.plan_refuse = &body;
    return decided(arguments, &request);
}

/* ---- the roster ---- */

static void hash_text(ProtobufCBinaryData hash, char out[7 + 2 * HASH_BYTES + 1])
{
    out[0] = '\0';
    if (hash.len != HASH_BYTES)
        return;
    memcpy(out, "sha256:", 7);
    cs_hex_encode(out + 7, hash.data, HASH_BYTES);
}

static const char *member_word(const Consilium__V1__RosterEntry *entry)
{
    if (entry->is_gone)
        return "gone";
    if (entry->approved_fingerprint[0] != '\0')
        return "CHANGED";
    return entry->is_approved ? "approved" : "new";
}

static void print_roster_json(const Consilium__V1__RosterStatus *roster)
{
    char said[7 + 2 * HASH_BYTES + 1], approved[7 + 2 * HASH_BYTES + 1];
    hash_text(roster->roster_sha256, said);
    hash_text(roster->approved_sha256, approved);
    CS_AUTO(cs_buffer) out = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&out);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "roster", said);
    cs_json_text(&json, "approved", approved);
    cs_json_uint(&json, "approved_ms", roster->approved_ms);
    cs_json_list(&json, "members");
    for (size_t i = 0; i < roster->n_members; i++) {
        const Consilium__V1__RosterEntry *entry = roster->members[i];
        cs_json_object(&json, NULL);
        cs_json_text(&json, "site", entry->site);
        cs_json_text(&json, "state", member_word(entry));
        cs_json_text(&json, "fingerprint", entry->fingerprint);
        cs_json_text(&json, "approved_fingerprint", entry->approved_fingerprint);
        cs_json_bool(&json, "has_approved", entry->has_approved);
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_end(&json, '}');
    printf("%s\n", cs_buffer_text(&out));
}

static void print_roster(const Consilium__V1__RosterStatus *roster)
{
    char said[7 + 2 * HASH_BYTES + 1], approved[7 + 2 * HASH_BYTES + 1];
    hash_text(roster->roster_sha256, said);
    hash_text(roster->approved_sha256, approved);
    printf("%-20s %-9s %-15s %s\n", "SITE", "HERE", "THERE", "FINGERPRINT");
    for (size_t i = 0; i < roster->n_members; i++) {
        const Consilium__V1__RosterEntry *entry = roster->members[i];
        printf("%-20s %-9s %-15s %s\n", entry->site, member_word(entry),
               entry->has_approved ? "approved this" : "not yet", entry->fingerprint);
        if (entry->approved_fingerprint[0] != '\0')
            printf("%-20s %-9s %-15s %s\n", "", "", "approved was", entry->approved_fingerprint);
    }
    printf("roster        %s\n", said);
    printf("approved      %s\n", approved[0] == '\0'           ? "nothing yet"
                                 : strcmp(said, approved) == 0 ? "this one"
                                                               : approved);
    if (strcmp(said, approved) != 0)
        printf(
            "Ask every new or changed site for its fingerprint, by telephone and not through the coordinator. If all "
            "are the same:\nconsilium-client roster approve %s\n",
            said);
}

static int show_roster(const cs_arguments *arguments, const Consilium__V1__ControlRequest *request)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ANSWER_ARENA_BYTES);
    Consilium__V1__ControlAnswer *answer = NULL;
    const int code = ask(arguments, request, arena, &answer);
    if (code != CS_EXIT_OK)
        return code;
    if (answer->roster == NULL)
        return cs_command_fail(arguments, cs_fail(CS_INVALID, "the agent answered without a roster"));
    if (cs_argument_flag(arguments, "--json"))
        print_roster_json(answer->roster);
    else
        print_roster(answer->roster);
    return CS_EXIT_OK;
}

int client_roster_show(const cs_arguments *arguments)
{
    Consilium__V1__RosterShowRequest body = CONSILIUM__V1__ROSTER_SHOW_REQUEST__INIT;
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_ROSTER_SHOW;
    request.roster_show = &body;
    return show_roster(arguments, &request);
}

int client_roster_approve(const cs_arguments *arguments)
{
    Consilium__V1__RosterApproveRequest body = CONSILIUM__V1__ROSTER_APPROVE_REQUEST__INIT;
    body.roster = (char *)(uintptr_t)cs_argument(arguments, "HASH");
    Consilium__V1__ControlRequest request = CONSILIUM__V1__CONTROL_REQUEST__INIT;
    request.body_case = CONSILIUM__V1__CONTROL_REQUEST__BODY_ROSTER_APPROVE;
    request.roster_approve = &body;
    return show_roster(arguments, &request);
}
