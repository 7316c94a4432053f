/* What sites hear of each other: the roster, who approved it, and the messages from site to site, which are passed on
 * and never kept. Nothing here is believed by a site: its people compare fingerprints. Engine's thread. */
#include "server/engine/internal.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/crypto/roster.h"

#include <string.h>

/* A Handshake: keys, two signatures and a few sealed bytes. */
#define RELAY_MAX_BYTES 4096
/* Of one site: every peer of the largest job is written to and answered once a second. */
#define RELAYS_PER_SECOND 256

struct said {
    Consilium__V1__Roster message;
    cs_site_record *records;
    Consilium__V1__RosterMember *members;
    Consilium__V1__RosterMember **member_pointers;
    Consilium__V1__RosterApproval *approvals;
    Consilium__V1__RosterApproval **approval_pointers;
    cs_roster_approval *found;
};

static void said_clear(struct said *said)
{
    cs_free(said->records);
    cs_free(said->members);
    cs_free(said->member_pointers);
    cs_free(said->approvals);
    cs_free(said->approval_pointers);
    cs_free(said->found);
}

static cs_status add_member(cs_engine *engine, struct said *said, cs_site_record *record)
{
    Consilium__V1__RosterMember *member = &said->members[said->message.n_members];
    consilium__v1__roster_member__init(member);
    member->site = record->name;
    member->signing_key = cs_wire_data(record->signing_key, sizeof(record->signing_key));
    said->member_pointers[said->message.n_members++] = member;

    cs_roster_approval *found = &said->found[said->message.n_approvals];
    const cs_status status = cs_roster_approval_find(engine->store, record->name, found);
    if (status != CS_OK)
        return status == CS_NOT_FOUND ? CS_OK : status;
    Consilium__V1__RosterApproval *approval = &said->approvals[said->message.n_approvals];
    consilium__v1__roster_approval__init(approval);
    approval->site = found->site;
    approval->roster_sha256 = cs_wire_data(found->roster.bytes, CS_HASH_BYTES);
    approval->signature = cs_wire_data(found->signature, sizeof(found->signature));
    said->approval_pointers[said->message.n_approvals++] = approval;
    return CS_OK;
}

static cs_status compose(cs_engine *engine, struct said *said)
{
    size_t count = 0;
    consilium__v1__roster__init(&said->message);
    CS_TRY(cs_registry_list(engine->store, &said->records, &count));
    said->members = cs_alloc_array(count + 1, sizeof(*said->members));
    said->member_pointers = cs_alloc_array(count + 1, sizeof(*said->member_pointers));
    said->approvals = cs_alloc_array(count + 1, sizeof(*said->approvals));
    said->approval_pointers = cs_alloc_array(count + 1, sizeof(*said->approval_pointers));
    said->found = cs_alloc_array(count + 1, sizeof(*said->found));
    for (size_t i = 0; i < count && said->message.n_members < CS_ROSTER_MEMBERS_MAX; i++)
        if (said->records[i].state == CS_SITE_ENROLLED)
            CS_TRY(add_member(engine, said, &said->records[i]));
    said->message.members = said->member_pointers;
    said->message.approvals = said->approval_pointers;
    return CS_OK;
}

static bool has_feature(const struct session *session)
{
    return session && (session->features & CONSILIUM__V1__FEATURE__FEATURE_ROSTER);
}

static void say(cs_engine *engine, const char *site, struct said *said)
{
    Consilium__V1__CoordinatorMessage message = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ROSTER;
    message.roster = &said->message;
    engine_send(engine, site, &message);
}

void roster_send(cs_engine *engine, const char *site)
{
    if (!has_feature(engine_session(engine, site)))
        return;
    struct said said __attribute__((cleanup(said_clear))) = {0};
    if (compose(engine, &said) == CS_OK)
        say(engine, site, &said);
    else
        cs_log(CS_LOG_ERROR, "engine", "the roster was not read", CS_S("error", cs_error_text()));
}

void roster_send_changes(cs_engine *engine)
{
    if (engine->store->changes == engine->roster_changes)
        return;
    struct said said __attribute__((cleanup(said_clear))) = {0};
    if (compose(engine, &said) != CS_OK) {
        cs_log(CS_LOG_ERROR, "engine", "the roster was not read", CS_S("error", cs_error_text()));
        return;
    }
    engine->roster_changes = engine->store->changes;
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(&said.message.base, &packed);
    const cs_hash hash = cs_sha256(cs_buffer_view(&packed));
    if (cs_hash_equal(&hash, &engine->roster_said))
        return; /* a renewal changes no signing key */
    engine->roster_said = hash;
    for (size_t i = 0; i < engine->sessions_count; i++)
        if (engine->sessions[i].number != 0 && has_feature(&engine->sessions[i]))
            say(engine, engine->sessions[i].site, &said);
}

static cs_status verify_approval(cs_engine *engine, const char *site, const Consilium__V1__RosterApproval *message,
                                 cs_roster_approval *ret)
{
    cs_site_record record;
    CS_TRY(cs_registry_find(engine->store, site, &record));
    CS_TRY(cs_hash_from(cs_wire_bytes(message->roster_sha256), "roster_sha256", &ret->roster));
    CS_AUTO(cs_string) text = cs_roster_approval_text(site, &ret->roster);
    CS_TRY(cs_sign_verify(record.signing_key, cs_bytes_of_text(text), cs_wire_bytes(message->signature),
                          "the approval of the roster"));
    memcpy(ret->site, record.name, sizeof(ret->site));
    memcpy(ret->signature, message->signature.data, sizeof(ret->signature));
    return CS_OK;
}

cs_status roster_approval(cs_engine *engine, const char *site, const Consilium__V1__RosterApproval *message)
{
    cs_roster_approval approval = {0}, known;
    if (verify_approval(engine, site, message, &approval) != CS_OK) {
        cs_log(CS_LOG_WARN, "engine", "approval of the roster refused", CS_S("site", site),
               CS_S("reason", cs_error_text()));
        return CS_OK;
    }
    if (cs_roster_approval_find(engine->store, site, &known) == CS_OK && cs_hash_equal(&known.roster, &approval.roster))
        return CS_OK; /* said again */
    CS_TRY(engine_begin(engine));
    CS_TRY(cs_roster_approval_put(engine->store, &approval));
    CS_TRY(record_roster_approval(engine, &approval));
    engine->roster_changes = 0; /* everybody is told; the store counts from 1 */
    cs_log(CS_LOG_INFO, "engine", "roster approved", CS_S("site", site));
    return CS_OK;
}

/* ---- from site to site ---- */

static bool is_within_rate(struct session *session)
{
    const int64_t now_ms = cs_clock_monotonic_ms();
    if (now_ms - session->relay_at_ms >= 1000) {
        session->relay_at_ms = now_ms;
        session->relay_count = 0;
    }
    return ++session->relay_count <= RELAYS_PER_SECOND;
}

static bool takes_part(const struct job *job, const char *site)
{
    const struct member *member = job_member(job, site);
    return member && member->is_participant && !member->is_excluded && !member->is_revoked;
}

void relay(cs_engine *engine, const char *site, const Consilium__V1__Relay *message)
{
    struct session *session = engine_session(engine, site);
    const struct job *job = job_find(engine, message->session);
    if (!session || !is_within_rate(session) || strcmp(site, message->to) == 0 ||
        message->sealed.len > RELAY_MAX_BYTES || !job || job->row.state != ROUND_COLLECTING || !takes_part(job, site) ||
        !takes_part(job, message->to) || !has_feature(engine_session(engine, message->to)))
        return; /* the sender repeats what still matters */
    Consilium__V1__Relay passed = *message;
    passed.from = (char *)(uintptr_t)site;
    passed.base.n_unknown_fields = 0;
    Consilium__V1__CoordinatorMessage outer = CONSILIUM__V1__COORDINATOR_MESSAGE__INIT;
    outer.body_case = CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_RELAY;
    outer.relay = &passed;
    engine_send(engine, message->to, &outer);
}
