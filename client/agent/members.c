/* The other sites of the consortium: what the coordinator says who they are, and what people here approved after they
 * compared fingerprints. The coordinator's word alone is never enough: whoever holds the authority's key could invent a
 * hospital. Agent thread only. */
#include "client/agent/internal.h"

#include "common/base/failpoint.h"
#include "common/base/log.h"

#include <string.h>

#define ROSTER_ARENA_BYTES (2 * 1024 * 1024)
/* Of one record; longer rosters are recorded by their hash. */
#define RECORDED_BYTES_MAX (8 * 1024)

void members_free(cs_agent *agent)
{
    cs_roster_clear(&agent->offered);
    cs_roster_clear(&agent->approved);
    cs_roster_clear(&agent->has_approved);
}

static cs_status restore(cs_bytes text, cs_roster *ret)
{
    return text.size > 0 ? cs_roster_parse(text, ret) : CS_OK;
}

cs_status members_restore(cs_agent *agent)
{
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(ROSTER_ARENA_BYTES);
    cs_roster_record record = {0};
    CS_TRY(cs_records_roster(agent->records, arena, &record));
    CS_TRY(restore(record.offered, &agent->offered));
    CS_TRY(restore(record.approved, &agent->approved));
    agent->approved_ms = record.approved_ms;
    return CS_OK;
}

static cs_status store(cs_agent *agent, const cs_roster *offered, const cs_roster *approved, int64_t approved_ms)
{
    CS_AUTO(cs_buffer) offered_text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) approved_text = CS_BUFFER_EMPTY;
    if (offered->count > 0)
        cs_roster_write(offered, &offered_text);
    if (approved->count > 0)
        cs_roster_write(approved, &approved_text);
    const cs_roster_record record = {.offered = cs_buffer_view(&offered_text),
                                     .approved = cs_buffer_view(&approved_text),
                                     .approved_ms = approved_ms};
    return cs_records_put_roster(agent->records, &record);
}

/* ---- what the coordinator says ---- */

static cs_status read_roster(const cs_agent *agent, const Consilium__V1__Roster *message, cs_roster *ret)
{
    memcpy(ret->consortium, agent->identity.consortium, sizeof(ret->consortium));
    for (size_t i = 0; i < message->n_members; i++) {
        const Consilium__V1__RosterMember *member = message->members[i];
        if (member->signing_key.len != CS_SIGN_PUBLIC_BYTES)
            return cs_fail(CS_INVALID, "roster: the key of a site has %zu bytes, expected %d", member->signing_key.len,
                           CS_SIGN_PUBLIC_BYTES);
        CS_TRY(cs_roster_add(ret, member->site, member->signing_key.data));
    }
    return CS_OK;
}

/* Whose signature over the roster, as it is said now, is good. */
static void read_approvals(const cs_roster *roster, const Consilium__V1__Roster *message, cs_roster *ret)
{
    const cs_hash hash = cs_roster_hash(roster);
    for (size_t i = 0; i < message->n_approvals; i++) {
        const Consilium__V1__RosterApproval *approval = message->approvals[i];
        const cs_roster_member *member = cs_roster_find(roster, approval->site);
        if (member == NULL ||
            !cs_bytes_equal(cs_wire_bytes(approval->roster_sha256), cs_bytes_of(hash.bytes, CS_HASH_BYTES)))
            continue;
        CS_AUTO(cs_string) text = cs_roster_approval_text(member->site, &hash);
        if (cs_sign_verify(member->key, cs_bytes_of_text(text), cs_wire_bytes(approval->signature), "approval") ==
            CS_OK)
            CS_IGNORE(cs_roster_add(ret, member->site, member->key), "a second approval of one site says no more");
    }
}

static void log_changes(const cs_agent *agent, const cs_roster *roster)
{
    for (size_t i = 0; i < roster->count; i++) {
        const cs_roster_member *approved = cs_roster_find(&agent->approved, roster->members[i].site);
        if (approved == NULL || memcmp(approved->key, roster->members[i].key, sizeof(approved->key)) == 0)
            continue;
        CS_AUTO(cs_string) was = cs_key_fingerprint(approved->key);
        CS_AUTO(cs_string) is = cs_key_fingerprint(roster->members[i].key);
        cs_log(CS_LOG_WARN, "agent", "the coordinator says another key for a site than this site approved",
               CS_S("member", roster->members[i].site), CS_S("approved", was), CS_S("said", is));
    }
}

static void replace(cs_roster *roster, cs_roster *with)
{
    cs_roster_clear(roster);
    *roster = *with;
    *with = CS_ROSTER_EMPTY;
}

void members_receive(cs_agent *agent, const Consilium__V1__Roster *message)
{
    CS_AUTO(cs_roster) roster = CS_ROSTER_EMPTY;
    CS_AUTO(cs_roster) has_approved = CS_ROSTER_EMPTY;
    if (read_roster(agent, message, &roster) != CS_OK) {
        cs_log(CS_LOG_WARN, "agent", "roster not taken", CS_S("reason", cs_error_text()));
        return;
    }
    read_approvals(&roster, message, &has_approved);
    const cs_hash known = cs_roster_hash(&agent->offered), now = cs_roster_hash(&roster);
    if (!cs_hash_equal(&known, &now)) {
        if (store(agent, &roster, &agent->approved, agent->approved_ms) != CS_OK)
            cs_log(CS_LOG_ERROR, "agent", "roster not stored", CS_S("reason", cs_error_text()));
        log_changes(agent, &roster);
    }
    replace(&agent->offered, &roster);
    replace(&agent->has_approved, &has_approved);
}

/* ---- what this site says ---- */

void members_repeat(cs_agent *agent)
{
    if (agent->approved.count == 0 || agent->current == NULL ||
        !(cs_session_features(agent->current) & CONSILIUM__V1__FEATURE__FEATURE_ROSTER))
        return;
    const cs_hash hash = cs_roster_hash(&agent->approved);
    CS_AUTO(cs_string) text = cs_roster_approval_text(agent->identity.site, &hash);
    uint8_t signature[CS_SIGNATURE_BYTES];
    cs_sign(agent->identity.signing_key, cs_bytes_of_text(text), signature);
    Consilium__V1__RosterApproval approval = CONSILIUM__V1__ROSTER_APPROVAL__INIT;
    approval.site = agent->identity.site;
    approval.roster_sha256 = cs_wire_data(hash.bytes, sizeof(hash.bytes));
    approval.signature = cs_wire_data(signature, sizeof(signature));
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_ROSTER_APPROVAL;
    message.roster_approval = &approval;
    agent_send(agent, &message);
}

static bool record(cs_agent *agent, const cs_hash *hash)
{
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(hash, hex);
    CS_AUTO(cs_buffer) fields = CS_BUFFER_EMPTY;
    cs_json json = cs_json_to(&fields);
    cs_json_object(&json, NULL);
    cs_json_text(&json, "roster_sha256", hex);
    cs_json_uint(&json, "sites", agent->offered.count);
    cs_json_list(&json, "members");
    for (size_t i = 0; i < agent->offered.count && fields.size < RECORDED_BYTES_MAX; i++) {
        cs_json_object(&json, NULL);
        cs_json_text(&json, "site", agent->offered.members[i].site);
        cs_json_hex(&json, "signing_key", agent->offered.members[i].key, CS_SIGN_PUBLIC_BYTES);
        cs_json_end(&json, '}');
    }
    cs_json_end(&json, ']');
    cs_json_end(&json, '}');
    CS_AUTO(cs_string) key = cs_format("roster:%s:%lld", hex, (long long)cs_clock_wall_ms());
    return agent_record(agent, "roster_approved", key, &fields);
}

/* The one member whose key people here can check without a telephone. */
static cs_status check_own_key(const cs_agent *agent)
{
    const cs_roster_member *self = cs_roster_find(&agent->offered, agent->identity.site);
    const uint8_t *key = cs_sign_key_public(agent->identity.signing_key);
    if (self != NULL && memcmp(self->key, key, sizeof(self->key)) == 0)
        return CS_OK;
    CS_AUTO(cs_string) own = cs_key_fingerprint(key);
    CS_AUTO(cs_string) said = self != NULL ? cs_key_fingerprint(self->key) : cs_strdup("none");
    return cs_fail(CS_DENIED,
                   "the coordinator's roster has for this site, '%s', the key %s, the key of this site is %s: do not "
                   "approve it, speak with the operator",
                   agent->identity.site, said, own);
}

static cs_status show(const cs_agent *agent, cs_arena *arena, Consilium__V1__ControlAnswer *answer);

cs_status members_approve(cs_agent *agent, const char *roster, cs_arena *arena, Consilium__V1__ControlAnswer *answer)
{
    cs_hash hash;
    if (cs_hash_parse(roster, "roster", &hash) != CS_OK)
        return cs_fail(CS_INVALID,
                       "approve takes the whole hash that `consilium-client roster show` printed, found '%.80s'",
                       roster);
    if (agent->offered.count == 0)
        return cs_fail(CS_STATE, "the coordinator has not said yet who is in the consortium");
    const cs_hash offered = cs_roster_hash(&agent->offered);
    char text[CS_HASH_TEXT_BYTES];
    cs_hash_text(&offered, text);
    if (!cs_hash_equal(&hash, &offered))
        return cs_fail(
            CS_STATE, "the roster is now %s, not the one you name: look at `consilium-client roster show` again", text);
    CS_TRY(check_own_key(agent));
    if (!record(agent, &offered))
        return cs_fail(CS_UNAVAILABLE, "the transcript cannot be written: nothing was approved");
    CS_FAILPOINT("agent.roster.approve");
    const int64_t now_ms = cs_clock_wall_ms();
    CS_TRY(store(agent, &agent->offered, &agent->offered, now_ms));
    cs_roster_clear(&agent->approved);
    memcpy(agent->approved.consortium, agent->offered.consortium, sizeof(agent->approved.consortium));
    for (size_t i = 0; i < agent->offered.count; i++)
        CS_TRY(cs_roster_add(&agent->approved, agent->offered.members[i].site, agent->offered.members[i].key));
    agent->approved_ms = now_ms;
    cs_log(CS_LOG_INFO, "agent", "roster approved", CS_S("roster", text), CS_I("sites", agent->approved.count));
    members_repeat(agent);
    return show(agent, arena, answer);
}

/* ---- for the commands ---- */

static Consilium__V1__RosterEntry *new_entry(cs_arena *arena, const cs_roster_member *member)
{
    Consilium__V1__RosterEntry *entry = cs_arena_alloc(arena, sizeof(*entry));
    CS_AUTO(cs_string) fingerprint = cs_key_fingerprint(member->key);
    if (entry == NULL)
        return NULL;
    consilium__v1__roster_entry__init(entry);
    entry->site = cs_arena_strdup(arena, member->site);
    entry->fingerprint = cs_arena_strdup(arena, fingerprint);
    return entry->site != NULL && entry->fingerprint != NULL ? entry : NULL;
}

static cs_status add_offered(const cs_agent *agent, const cs_roster_member *member, cs_arena *arena,
                             Consilium__V1__RosterStatus *status)
{
    Consilium__V1__RosterEntry *entry = new_entry(arena, member);
    if (entry == NULL)
        return cs_fail(CS_EXHAUSTED, "more members than fit one answer");
    const cs_roster_member *approved = cs_roster_find(&agent->approved, member->site);
    entry->is_approved = approved != NULL && memcmp(approved->key, member->key, sizeof(member->key)) == 0;
    if (approved != NULL && !entry->is_approved) {
        CS_AUTO(cs_string) was = cs_key_fingerprint(approved->key);
        entry->approved_fingerprint = cs_arena_strdup(arena, was);
    }
    entry->has_approved = cs_roster_find(&agent->has_approved, member->site) != NULL;
    status->members[status->n_members++] = entry;
    return entry->approved_fingerprint != NULL ? CS_OK : cs_fail(CS_EXHAUSTED, "more members than fit one answer");
}

static cs_status show(const cs_agent *agent, cs_arena *arena, Consilium__V1__ControlAnswer *answer)
{
    Consilium__V1__RosterStatus *status = cs_arena_alloc(arena, sizeof(*status));
    consilium__v1__roster_status__init(status);
    status->members =
        cs_arena_alloc(arena, (agent->offered.count + agent->approved.count + 1) * sizeof(*status->members));
    if (status->members == NULL)
        return cs_fail(CS_EXHAUSTED, "more members than fit one answer");
    const cs_hash offered = cs_roster_hash(&agent->offered), approved = cs_roster_hash(&agent->approved);
    if (agent->offered.count > 0)
        status->roster_sha256 = cs_wire_data(cs_arena_copy(arena, offered.bytes, CS_HASH_BYTES), CS_HASH_BYTES);
    if (agent->approved.count > 0)
        status->approved_sha256 = cs_wire_data(cs_arena_copy(arena, approved.bytes, CS_HASH_BYTES), CS_HASH_BYTES);
    status->approved_ms = (uint64_t)agent->approved_ms;
    for (size_t i = 0; i < agent->offered.count; i++)
        CS_TRY(add_offered(agent, &agent->offered.members[i], arena, status));
    for (size_t i = 0; i < agent->approved.count; i++) {
        if (cs_roster_find(&agent->offered, agent->approved.members[i].site) != NULL)
            continue;
        Consilium__V1__RosterEntry *gone = new_entry(arena, &agent->approved.members[i]);
        if (gone == NULL)
            return cs_fail(CS_EXHAUSTED, "more members than fit one answer");
        gone->is_gone = true;
        status->members[status->n_members++] = gone;
    }
    answer->roster = status;
    return CS_OK;
}

cs_status members_show(cs_agent *agent, cs_arena *arena, Consilium__V1__ControlAnswer *answer)
{
    if (agent->offered.count == 0)
        return cs_fail(CS_STATE, "the coordinator has not said yet who is in the consortium: %s",
                       agent->disconnected_reason != NULL ? agent->disconnected_reason : "is its software older?");
    return show(agent, arena, answer);
}

/* ---- for sessions ---- */

cs_status members_pick(const cs_agent *agent, char *const *sites, size_t count, cs_roster *ret)
{
    memcpy(ret->consortium, agent->identity.consortium, sizeof(ret->consortium));
    if (agent->approved.count == 0)
        return cs_fail(CS_DENIED, "this site has approved no roster: `consilium-client roster show`, compare the "
                                  "fingerprints with the other sites, then `consilium-client roster approve`");
    for (size_t i = 0; i < count; i++) {
        const cs_roster_member *said = cs_roster_find(&agent->offered, sites[i]);
        const cs_roster_member *approved = cs_roster_find(&agent->approved, sites[i]);
        CS_AUTO(cs_string) found = said != NULL ? cs_key_fingerprint(said->key) : cs_strdup("none");
        if (approved == NULL)
            return cs_fail(CS_DENIED, "site '%.63s' with the key %s is not in the roster that site '%s' approved",
                           sites[i], found, agent->identity.site);
        if (said == NULL || memcmp(said->key, approved->key, sizeof(said->key)) != 0) {
            CS_AUTO(cs_string) expected = cs_key_fingerprint(approved->key);
            return cs_fail(CS_DENIED, "site '%.63s' now has the key %s, the roster that site '%s' approved has %s",
                           sites[i], found, agent->identity.site, expected);
        }
        CS_TRY(cs_roster_add(ret, sites[i], approved->key));
    }
    return CS_OK;
}
