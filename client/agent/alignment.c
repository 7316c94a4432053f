/* Alignments at this site: is this one allowed, who are the others, and a key with each of them. The coordinator
 * carries the messages and cannot read or forge them; what a site tells it about an alignment is sizes. Agent thread
 * only.
 *
 * A session's secret lies in keys/sessions/JOB, 0600, from before the first message of it leaves until the job ends:
 * after a kill at any point the same messages are made again. */
#include "client/agent/alignment.h"

#include "client/agent/internal.h"
#include "client/align/psi.h"
#include "common/base/failpoint.h"
#include "common/base/log.h"
#include "common/base/random.h"
#include "common/crypto/keyfile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_FILE_MAX_BYTES (256 * 1024)
#define SESSION_ARENA_BYTES    (1024 * 1024)
#define DAY_MS                 (24 * 3600 * 1000LL)
#define MONTH_MS               (30 * DAY_MS)
/* A message to a site that has not answered is said again after 0.2 to 5 s. */
#define HANDSHAKE_BASE_MS 200
#define HANDSHAKE_CAP_MS  5000
#define TERMS_PHASE       "agree"

struct peer {
    bool has_key, is_done; /* its key; its confirmation and terms as well */
    uint8_t key[CS_EXCHANGE_KEY_BYTES];
    uint8_t contribution[CS_CONTRIBUTION_BYTES];
    cs_hash stored; /* zero: none */
};

struct alignment {
    struct alignment *next;
    char *job;
    uint32_t round;
    cs_hash plan, session, roster_hash, stored;
    cs_roster roster; /* of the participants, as this site approved it */
    uint32_t self, leader;
    uint8_t secret[CS_EXCHANGE_KEY_BYTES], key[CS_EXCHANGE_KEY_BYTES];
    uint8_t contribution[CS_CONTRIBUTION_BYTES];
    uint64_t stored_patients;
    char stored_job[CS_NAME_MAX + 1];
    struct peer peers[CS_ALIGNMENT_SITES_MAX];
    uint64_t sequence;
    uint32_t repeats;
};

static void alignment_free(struct alignment *alignment)
{
    if (alignment == NULL)
        return;
    cs_free(alignment->job);
    cs_roster_clear(&alignment->roster);
    cs_crypto_wipe(alignment, sizeof(*alignment));
    cs_free(alignment);
}
typedef struct alignment alignment;
CS_DEFINE_AUTO_PTR(alignment)

static struct alignment *find(cs_agent *agent, const char *job)
{
    for (struct alignment *at = agent->alignments; at != NULL; at = at->next)
        if (strcmp(at->job, job) == 0)
            return at;
    return NULL;
}

static size_t parties_of(const struct alignment *alignment)
{
    return alignment->roster.count;
}

static const char *name_of(const struct alignment *alignment, size_t party)
{
    return alignment->roster.members[party].site;
}

bool cs_alignment_phase(const char *phase, uint32_t parties, cs_alignment_step *ret_step, uint32_t *ret_stop)
{
    static const char *const names[] = {[CS_ALIGNMENT_AGREE] = "agree",
                                        [CS_ALIGNMENT_MASK] = "mask",
                                        [CS_ALIGNMENT_HOP] = "hop",
                                        [CS_ALIGNMENT_COMPARE] = "compare",
                                        [CS_ALIGNMENT_COHORT] = "cohort"};
    *ret_stop = 0;
    for (cs_alignment_step step = 0; step < CS_COUNT(names); step++) {
        *ret_step = step;
        if (step == CS_ALIGNMENT_HOP && strncmp(phase, "hop", 3) == 0) {
            char *end = NULL;
            const unsigned long stop = strtoul(phase + 3, &end, 10);
            *ret_stop = (uint32_t)CS_MIN(stop, (unsigned long)UINT32_MAX);
            return *end == '\0' && phase[3] >= '1' && phase[3] <= '9' && stop < CS_ALIGNMENT_SITES_MAX &&
                   (parties == 0 || stop < parties);
        }
        if (strcmp(phase, names[step]) == 0) {
            *ret_stop = step == CS_ALIGNMENT_COMPARE ? parties : 0;
            return true;
        }
    }
    return false;
}

/* ---- the session's file ---- */

static char *session_path(const cs_agent *agent, const char *job)
{
    CS_AUTO(cs_string) name = cs_format("keys/sessions/%s", job);
    return cs_path_join(agent->state_folder, name);
}

static ProtobufCBinaryData hash_data(const cs_hash *hash)
{
    return cs_wire_data(hash->bytes, cs_hash_is_zero(hash) ? 0 : CS_HASH_BYTES);
}

/* Durable before anything that follows from it leaves. */
static cs_status save(const cs_agent *agent, struct alignment *alignment)
{
    CS_FAILPOINT("agent.session.save");
    Consilium__V1__SessionPeer peers[CS_ALIGNMENT_SITES_MAX];
    Consilium__V1__SessionPeer *pointers[CS_ALIGNMENT_SITES_MAX];
    CS_AUTO(cs_buffer) roster = CS_BUFFER_EMPTY;
    cs_roster_write(&alignment->roster, &roster);
    Consilium__V1__SessionFile file = CONSILIUM__V1__SESSION_FILE__INIT;
    file.round = alignment->round;
    file.session = hash_data(&alignment->session);
    file.secret = cs_wire_data(alignment->secret, sizeof(alignment->secret));
    file.contribution = cs_wire_data(alignment->contribution, sizeof(alignment->contribution));
    file.roster = cs_wire_data(roster.data, roster.size);
    file.plan_sha256 = hash_data(&alignment->plan);
    file.stored = hash_data(&alignment->stored);
    file.stored_job = alignment->stored_job;
    file.stored_patients = alignment->stored_patients;
    file.leader = alignment->roster.members[alignment->leader].site;
    for (size_t i = 0; i < parties_of(alignment); i++) {
        const struct peer *peer = &alignment->peers[i];
        pointers[i] = &peers[i];
        consilium__v1__session_peer__init(&peers[i]);
        peers[i].site = alignment->roster.members[i].site;
        if (peer->has_key)
            peers[i].key = cs_wire_data(peer->key, sizeof(peer->key));
        if (peer->is_done)
            peers[i].contribution = cs_wire_data(peer->contribution, sizeof(peer->contribution));
        peers[i].stored = hash_data(&peer->stored);
    }
    file.peers = pointers;
    file.n_peers = parties_of(alignment);
    CS_AUTO(cs_secret) packed = CS_BUFFER_EMPTY;
    cs_wire_pack(&file.base, &packed);
    CS_AUTO(cs_string) path = session_path(agent, alignment->job);
    return cs_key_file_write(path, cs_buffer_view(&packed));
}

static bool take_bytes(ProtobufCBinaryData from, void *to, size_t size)
{
    if (from.len != size)
        return false;
    memcpy(to, from.data, size);
    return true;
}

static cs_status find_place(const struct alignment *alignment, const char *site, uint32_t *ret)
{
    const cs_roster_member *member = cs_roster_find(&alignment->roster, site);
    if (member == NULL)
        return cs_fail(CS_INVALID, "site '%.63s' is not one of the session's parties", site);
    *ret = (uint32_t)(member - alignment->roster.members);
    return CS_OK;
}

static cs_status read_file(const cs_agent *agent, const Consilium__V1__SessionFile *file, struct alignment *alignment)
{
    alignment->round = file->round;
    bool is_whole = take_bytes(file->session, alignment->session.bytes, CS_HASH_BYTES) &&
                    take_bytes(file->secret, alignment->secret, CS_EXCHANGE_KEY_BYTES) &&
                    take_bytes(file->contribution, alignment->contribution, CS_CONTRIBUTION_BYTES) &&
                    take_bytes(file->plan_sha256, alignment->plan.bytes, CS_HASH_BYTES);
    if (file->stored.len > 0)
        is_whole = is_whole && take_bytes(file->stored, alignment->stored.bytes, CS_HASH_BYTES);
    CS_TRY(cs_roster_parse(cs_wire_bytes(file->roster), &alignment->roster));
    is_whole = is_whole && parties_of(alignment) == file->n_peers && file->n_peers <= CS_ALIGNMENT_SITES_MAX;
    if (!is_whole)
        return cs_fail(CS_DATA_LOSS, "the session's file is not whole");
    CS_TRY(find_place(alignment, agent->identity.site, &alignment->self));
    CS_TRY(find_place(alignment, file->leader, &alignment->leader));
    snprintf(alignment->stored_job, sizeof(alignment->stored_job), "%.63s", file->stored_job);
    alignment->stored_patients = file->stored_patients;
    for (size_t i = 0; i < file->n_peers; i++) {
        struct peer *peer = &alignment->peers[i];
        peer->has_key = take_bytes(file->peers[i]->key, peer->key, sizeof(peer->key));
        peer->is_done =
            peer->has_key && take_bytes(file->peers[i]->contribution, peer->contribution, sizeof(peer->contribution));
        if (!take_bytes(file->peers[i]->stored, peer->stored.bytes, CS_HASH_BYTES))
            peer->stored = (cs_hash){0};
    }
    alignment->roster_hash = cs_roster_hash(&alignment->roster);
    cs_exchange_public(alignment->secret, alignment->key);
    return CS_OK;
}

static cs_status load(cs_agent *agent, const char *job, struct alignment **ret)
{
    CS_AUTO(cs_string) path = session_path(agent, job);
    CS_AUTO(cs_secret) packed = CS_BUFFER_EMPTY;
    CS_TRY(cs_key_file_read(path, &packed));
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(SESSION_ARENA_BYTES);
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__session_file__descriptor, cs_buffer_view(&packed), arena, &message));
    Consilium__V1__SessionFile *file = (Consilium__V1__SessionFile *)message;
    CS_AUTO_PTR(alignment) alignment = cs_alloc(sizeof(*alignment));
    alignment->job = cs_strdup(job);
    const cs_status status = read_file(agent, file, alignment);
    cs_crypto_wipe(file->secret.data, file->secret.len); /* the arena does not wipe */
    cs_crypto_wipe(file->contribution.data, file->contribution.len);
    CS_TRY(status);
    *ret = CS_TAKE(alignment);
    return CS_OK;
}

static void forget(cs_agent *agent, const char *job)
{
    for (struct alignment **at = &agent->alignments; *at != NULL; at = &(*at)->next) {
        if (strcmp((*at)->job, job) != 0)
            continue;
        struct alignment *found = *at;
        *at = found->next;
        alignment_free(found);
        break;
    }
}

void alignments_end_job(cs_agent *agent, const char *job)
{
    forget(agent, job);
    CS_AUTO(cs_string) path = session_path(agent, job);
    if (cs_file_exists(path) && cs_key_file_wipe(path) != CS_OK)
        cs_log(CS_LOG_ERROR, "agent", "session keys not removed", CS_S("job", job), CS_S("reason", cs_error_text()));
}

void alignments_free(cs_agent *agent)
{
    while (agent->alignments != NULL)
        forget(agent, agent->alignments->job);
}

static cs_status restore_one(void *self, const char *name)
{
    cs_agent *agent = self;
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(SESSION_ARENA_BYTES);
    cs_job_record job;
    const bool is_open = cs_name_check(name, "job") == CS_OK &&
                         cs_records_find_job(agent->records, name, arena, &job) == CS_OK &&
                         job.state < CONSILIUM__V1__JOB_STATE__JOB_COMPLETE;
    struct alignment *alignment = NULL;
    if (is_open && load(agent, name, &alignment) == CS_OK) {
        alignment->next = agent->alignments;
        agent->alignments = alignment;
        return CS_OK;
    }
    if (is_open)
        cs_log(CS_LOG_ERROR, "agent", "session keys not read", CS_S("job", name), CS_S("reason", cs_error_text()));
    else
        alignments_end_job(agent, name); /* of a job that ended while this agent was down */
    return CS_OK;
}

cs_status alignments_restore(cs_agent *agent)
{
    CS_AUTO(cs_string) folder = cs_path_join(agent->state_folder, "keys/sessions");
    CS_TRY(cs_folder_make(folder, 0700));
    return cs_folder_list(folder, restore_one, agent);
}

/* ---- is it allowed? ---- */

static void say_names(const cs_names *names, cs_buffer *out)
{
    for (size_t i = 0; i < names->count; i++)
        cs_buffer_printf(out, "%s%s", i > 0 ? ", " : "", names->items[i]);
}

static cs_status check_peers(const cs_agent *agent, const Consilium__V1__TaskAssignment *assignment,
                             const cs_plan *plan)
{
    const cs_names *allowed = &agent->config->alignment.peers;
    if (assignment->n_participants != plan->sites.invite.count)
        return cs_fail(CS_DENIED, "the round has %zu participants, an alignment needs all %zu that the plan invites",
                       assignment->n_participants, plan->sites.invite.count);
    for (size_t i = 0; i < assignment->n_participants; i++) {
        const char *site = assignment->participants[i];
        if (!cs_names_have(&plan->sites.invite, site))
            return cs_fail(CS_DENIED, "site '%.63s' takes part, the plan does not invite it", site);
        if (i > 0 && strcmp(assignment->participants[i - 1], site) >= 0)
            return cs_fail(CS_INVALID, "the participants are not in name order");
        if (allowed->count == 0 || strcmp(site, agent->identity.site) == 0 || cs_names_have(allowed, site))
            continue;
        CS_AUTO(cs_buffer) names = CS_BUFFER_EMPTY;
        say_names(allowed, &names);
        return cs_fail(CS_DENIED, "site '%.63s' is not among the peers of this site's policy: %.120s", site,
                       cs_buffer_text(&names));
    }
    return CS_OK;
}

static cs_status check_account(cs_agent *agent, const char *job)
{
    const cs_alignment_policy *policy = &agent->config->alignment;
    uint64_t sessions = 0, tokens = 0;
    CS_TRY(cs_records_alignment_usage(agent->records, job, cs_clock_wall_ms() - DAY_MS, &sessions, &tokens));
    if (sessions >= policy->day_sessions)
        return cs_fail(CS_DENIED, "%" PRIu64 " alignments began here in the last 24 hours, the policy allows %" PRIu32,
                       sessions, policy->day_sessions);
    return CS_OK;
}

/* Before any point of the own list leaves: its size, padding included, by plan and policy. */
cs_status alignments_spend(cs_agent *agent, const char *job, uint64_t tokens)
{
    const cs_alignment_policy *policy = &agent->config->alignment;
    uint64_t sessions = 0, month = 0;
    if (tokens > policy->session_tokens)
        return cs_fail(CS_DENIED, "the list has %" PRIu64 " points, the policy allows %" PRIu64 " a session", tokens,
                       policy->session_tokens);
    CS_TRY(cs_records_alignment_usage(agent->records, job, cs_clock_wall_ms() - MONTH_MS, &sessions, &month));
    if (month + tokens > policy->month_tokens)
        return cs_fail(CS_DENIED,
                       "%" PRIu64 " points left this site in the last 30 days, %" PRIu64
                       " more are too many: the policy allows %" PRIu64,
                       month, tokens, policy->month_tokens);
    CS_FAILPOINT("agent.alignment.spend");
    return cs_records_spend_tokens(agent->records, job, tokens);
}

/* ---- a session begins ---- */

/* What is asked, whatever the job is called and whatever limits stand beside it. */
static cs_hash question_of(const cs_plan *plan, const cs_hash *roster)
{
    const cs_alignment *asked = &plan->alignment;
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    char hex[CS_HASH_HEX_BYTES];
    cs_hash_hex(roster, hex);
    cs_buffer_printf(&text, "consilium-question-v1\n%s\n%s\n%s\n%s\n%u %u %u %u\n", hex, plan->dataset.name,
                     asked->study, asked->leader, (unsigned)asked->needs_all, asked->needs_all ? 0 : asked->any_of,
                     (unsigned)asked->phonetic, (unsigned)asked->is_mutual);
    for (size_t i = 0; i < asked->keys_count; i++) {
        for (size_t part = 0; part < asked->keys[i].parts_count; part++)
            cs_buffer_printf(&text, " %u", (unsigned)asked->keys[i].parts[part]);
        cs_buffer_append_text(&text, "\n");
    }
    return cs_sha256(cs_buffer_view(&text));
}

static cs_status fill(cs_agent *agent, const struct task *task, const cs_plan *plan, struct alignment *alignment,
                      cs_hash *ret_question)
{
    const Consilium__V1__TaskAssignment *assignment = task->assignment;
    CS_TRY(check_peers(agent, assignment, plan));
    CS_TRY(members_pick(agent, assignment->participants, assignment->n_participants, &alignment->roster));
    alignment->job = cs_strdup(task->job);
    alignment->round = task->round;
    alignment->roster_hash = cs_roster_hash(&alignment->roster);
    CS_TRY(cs_hash_from(cs_wire_bytes(assignment->plan_sha256), "plan_sha256", &alignment->plan));
    alignment->session = cs_session_hash(alignment->job, alignment->round, &alignment->plan, &alignment->roster_hash);
    CS_TRY(find_place(alignment, agent->identity.site, &alignment->self));
    CS_TRY(find_place(alignment, plan->alignment.leader, &alignment->leader));
    cs_exchange_make(alignment->secret, alignment->key);
    cs_crypto_random(alignment->contribution, sizeof(alignment->contribution));

    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(SESSION_ARENA_BYTES);
    cs_alignment_record answer;
    *ret_question = question_of(plan, &alignment->roster_hash);
    const cs_status found = cs_records_find_answer(agent->records, ret_question, arena, &answer);
    if (found == CS_NOT_FOUND)
        return CS_OK;
    CS_TRY(found);
    alignment->stored = answer.session;
    alignment->stored_patients = answer.patients;
    snprintf(alignment->stored_job, sizeof(alignment->stored_job), "%.63s", answer.job);
    return CS_OK;
}

static cs_status begin(cs_agent *agent, const struct task *task, struct alignment **ret)
{
    CS_AUTO_PTR(cs_plan) plan = NULL;
    CS_AUTO_PTR(alignment) alignment = cs_alloc(sizeof(*alignment));
    cs_hash question;
    CS_TRY(cs_plan_read(task->plan, "plan", &plan));
    if (plan->federation != CS_VERTICAL)
        return cs_fail(CS_DENIED, "phase '%s' is of a vertical plan, the approved one is not", task->phase);
    CS_TRY(fill(agent, task, plan, alignment, &question));
    /* A question that was answered here costs nothing, unless another party has the answer no more: then it is looked
     * at again. */
    if (cs_hash_is_zero(&alignment->stored))
        CS_TRY(check_account(agent, alignment->job));
    CS_AUTO(cs_buffer) peers = CS_BUFFER_EMPTY;
    say_names(&plan->sites.invite, &peers);
    const cs_alignment_record record = {.job = alignment->job,
                                        .peers = cs_buffer_text(&peers),
                                        .question = question,
                                        .session = alignment->session,
                                        .begun_ms = cs_clock_wall_ms()};
    CS_TRY(cs_records_begin_alignment(agent->records, &record));
    CS_TRY(save(agent, alignment));
    *ret = CS_TAKE(alignment);
    (*ret)->next = agent->alignments;
    agent->alignments = *ret;
    return CS_OK;
}

/* ---- handshakes ---- */

static cs_status keys_with(const struct alignment *alignment, size_t party, cs_seal_keys *ret)
{
    return cs_seal_keys_make(alignment->secret, alignment->peers[party].key, &alignment->session, ret);
}

static cs_seal_label label_of(const struct alignment *alignment, size_t from, size_t to)
{
    return (cs_seal_label){.session = &alignment->session,
                           .roster = &alignment->roster_hash,
                           .phase = TERMS_PHASE,
                           .from = name_of(alignment, from),
                           .to = name_of(alignment, to)};
}

static cs_status seal_terms(const struct alignment *alignment, size_t party, cs_buffer *out)
{
    Consilium__V1__SessionTerms terms = CONSILIUM__V1__SESSION_TERMS__INIT;
    terms.contribution = cs_wire_data(alignment->contribution, sizeof(alignment->contribution));
    terms.stored = hash_data(&alignment->stored);
    CS_AUTO(cs_secret) plain = CS_BUFFER_EMPTY;
    cs_wire_pack(&terms.base, &plain);
    cs_seal_keys keys;
    CS_TRY(keys_with(alignment, party, &keys));
    const cs_seal_label label = label_of(alignment, alignment->self, party);
    cs_seal_message(keys.send, &label, cs_buffer_view(&plain), out);
    cs_seal_keys_clear(&keys);
    return CS_OK;
}

static cs_status send_handshake(cs_agent *agent, struct alignment *alignment, size_t party)
{
    const struct peer *peer = &alignment->peers[party];
    const char *self = name_of(alignment, alignment->self), *to = name_of(alignment, party);
    uint8_t signature[CS_SIGNATURE_BYTES], confirmation[CS_SIGNATURE_BYTES];
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) sealed = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) packed = CS_BUFFER_EMPTY;
    cs_handshake_text(&alignment->session, self, to, alignment->key, NULL, &text);
    cs_sign(agent->identity.signing_key, cs_buffer_view(&text), signature);
    Consilium__V1__Handshake handshake = CONSILIUM__V1__HANDSHAKE__INIT;
    handshake.session = hash_data(&alignment->session);
    handshake.key = cs_wire_data(alignment->key, sizeof(alignment->key));
    handshake.signing_key = cs_wire_data(cs_sign_key_public(agent->identity.signing_key), CS_SIGN_PUBLIC_BYTES);
    handshake.signature = cs_wire_data(signature, sizeof(signature));
    handshake.wants_answer = !peer->is_done;
    if (peer->has_key) {
        cs_buffer_reset(&text);
        cs_handshake_text(&alignment->session, self, to, alignment->key, peer->key, &text);
        cs_sign(agent->identity.signing_key, cs_buffer_view(&text), confirmation);
        handshake.confirmation = cs_wire_data(confirmation, sizeof(confirmation));
        CS_TRY(seal_terms(alignment, party, &sealed));
        handshake.sealed = cs_wire_data(sealed.data, sealed.size);
    }
    cs_wire_pack(&handshake.base, &packed);
    Consilium__V1__Relay relay = CONSILIUM__V1__RELAY__INIT;
    relay.session = alignment->job;
    relay.to = (char *)(uintptr_t)to;
    relay.sequence = ++alignment->sequence;
    relay.sealed = cs_wire_data(packed.data, packed.size);
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_RELAY;
    message.relay = &relay;
    agent_send(agent, &message);
    return CS_OK;
}

static bool is_complete(const struct alignment *alignment)
{
    for (size_t i = 0; i < parties_of(alignment); i++)
        if (i != alignment->self && !alignment->peers[i].is_done)
            return false;
    return true;
}

/* Every party says the same stored result: nothing new is computed, and nothing new can be learned. */
static bool is_repeat(const struct alignment *alignment)
{
    bool all = !cs_hash_is_zero(&alignment->stored);
    for (size_t i = 0; i < parties_of(alignment) && all; i++)
        all = i == alignment->self || cs_hash_equal(&alignment->peers[i].stored, &alignment->stored);
    return all;
}

static struct task *agree_task(cs_agent *agent, const struct alignment *alignment)
{
    for (struct task *task = agent->tasks; task != NULL; task = task->next)
        if (!task->is_dropped && task->step == STEP_RUN && strcmp(task->job, alignment->job) == 0 &&
            strcmp(task->phase, TERMS_PHASE) == 0)
            return task;
    return NULL;
}

static cs_status check_signing_key(const cs_agent *agent, const struct alignment *alignment, size_t party,
                                   const Consilium__V1__Handshake *handshake)
{
    const cs_roster_member *member = &alignment->roster.members[party];
    if (cs_bytes_equal(cs_wire_bytes(handshake->signing_key), cs_bytes_of(member->key, sizeof(member->key))))
        return CS_OK;
    CS_AUTO(cs_string) expected = cs_key_fingerprint(member->key);
    CS_AUTO(cs_string) found = handshake->signing_key.len == CS_SIGN_PUBLIC_BYTES
                                   ? cs_key_fingerprint(handshake->signing_key.data)
                                   : cs_strdup("none");
    return cs_fail(CS_DENIED, "site '%s' signs with the key %s, the roster that site '%s' approved has %s",
                   member->site, found, agent->identity.site, expected);
}

static cs_status verify(const struct alignment *alignment, size_t party, const Consilium__V1__Handshake *handshake,
                        const uint8_t *own_key, ProtobufCBinaryData signature)
{
    const cs_roster_member *member = &alignment->roster.members[party];
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    cs_handshake_text(&alignment->session, member->site, name_of(alignment, alignment->self), handshake->key.data,
                      own_key, &text);
    return cs_sign_verify(member->key, cs_buffer_view(&text), cs_wire_bytes(signature),
                          "the handshake of another site");
}

static cs_status open_terms(struct alignment *alignment, size_t party, const Consilium__V1__Handshake *handshake)
{
    struct peer *peer = &alignment->peers[party];
    cs_seal_keys keys;
    CS_TRY(keys_with(alignment, party, &keys));
    const cs_seal_label label = label_of(alignment, party, alignment->self);
    CS_AUTO(cs_secret) plain = CS_BUFFER_EMPTY;
    const cs_status opened = cs_unseal_message(keys.receive, &label, cs_wire_bytes(handshake->sealed), &plain);
    cs_seal_keys_clear(&keys);
    CS_TRY(opened);
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(SESSION_ARENA_BYTES);
    ProtobufCMessage *message = NULL;
    CS_TRY(cs_wire_unpack(&consilium__v1__session_terms__descriptor, cs_buffer_view(&plain), arena, &message));
    Consilium__V1__SessionTerms *terms = (Consilium__V1__SessionTerms *)message;
    if (!take_bytes(terms->contribution, peer->contribution, sizeof(peer->contribution)))
        return cs_fail(CS_INVALID, "site '%s' contributes %zu bytes to the session, expected %d",
                       name_of(alignment, party), terms->contribution.len, CS_CONTRIBUTION_BYTES);
    if (!take_bytes(terms->stored, peer->stored.bytes, CS_HASH_BYTES))
        peer->stored = (cs_hash){0};
    cs_crypto_wipe(terms->contribution.data, terms->contribution.len);
    peer->is_done = true;
    return CS_OK;
}

/* CS_DENIED: this session will never be; anything else: this message is worth nothing. */
static cs_status take_handshake(cs_agent *agent, struct alignment *alignment, size_t party,
                                const Consilium__V1__Handshake *handshake)
{
    struct peer *peer = &alignment->peers[party];
    if (handshake->key.len != CS_EXCHANGE_KEY_BYTES)
        return cs_fail(CS_INVALID, "a session key of %zu bytes", handshake->key.len);
    CS_TRY(check_signing_key(agent, alignment, party, handshake));
    if (!cs_bytes_equal(cs_wire_bytes(handshake->session), cs_bytes_of(alignment->session.bytes, CS_HASH_BYTES)))
        return cs_fail(CS_DENIED,
                       "site '%s' means another session: its plan, its participants or a key in its approved roster "
                       "differ from those of site '%s'",
                       name_of(alignment, party), agent->identity.site);
    CS_TRY(verify(alignment, party, handshake, NULL, handshake->signature));
    if (peer->has_key && memcmp(peer->key, handshake->key.data, sizeof(peer->key)) != 0)
        return cs_fail(CS_INVALID, "site '%s' began this session anew with another key; a new job is needed",
                       name_of(alignment, party));
    const bool had_all = peer->is_done;
    if (!peer->has_key) {
        memcpy(peer->key, handshake->key.data, sizeof(peer->key));
        cs_seal_keys keys;
        CS_TRY(keys_with(alignment, party, &keys)); /* a key of small order */
        cs_seal_keys_clear(&keys);
        peer->has_key = true;
        CS_TRY(save(agent, alignment));
    }
    if (!had_all && handshake->confirmation.len > 0) {
        CS_TRY(verify(alignment, party, handshake, alignment->key, handshake->confirmation));
        CS_TRY(open_terms(alignment, party, handshake));
        CS_TRY(save(agent, alignment));
    }
    return handshake->wants_answer || (!had_all && !peer->is_done) ? send_handshake(agent, alignment, party) : CS_OK;
}

void alignments_relay(cs_agent *agent, const Consilium__V1__Relay *relay)
{
    struct alignment *alignment = find(agent, relay->session);
    uint32_t party = 0;
    if (alignment == NULL || find_place(alignment, relay->from, &party) != CS_OK || party == alignment->self)
        return; /* not begun here: it will be said again */
    CS_AUTO_PTR(cs_arena) arena = cs_arena_new(SESSION_ARENA_BYTES);
    ProtobufCMessage *message = NULL;
    cs_status status =
        cs_wire_unpack(&consilium__v1__handshake__descriptor, cs_wire_bytes(relay->sealed), arena, &message);
    if (status == CS_OK)
        status = take_handshake(agent, alignment, party, (const Consilium__V1__Handshake *)message);
    struct task *task = agree_task(agent, alignment);
    if (status != CS_OK) {
        cs_log(CS_LOG_WARN, "agent", "message of another site refused", CS_S("job", alignment->job),
               CS_S("from", name_of(alignment, party)), CS_S("reason", cs_error_text()));
        if (status == CS_DENIED && task != NULL)
            task_refuse(agent, task, cs_error_text());
        return;
    }
    if (task != NULL && is_complete(alignment)) {
        task->due_ms = 0;
        tasks_advance(agent);
    }
}

/* ---- the task `agree` ---- */

static void send_open(cs_agent *agent, struct alignment *alignment)
{
    for (size_t i = 0; i < parties_of(alignment); i++)
        if (i != alignment->self && !alignment->peers[i].is_done && send_handshake(agent, alignment, i) != CS_OK)
            cs_log(CS_LOG_WARN, "agent", "no message to another site", CS_S("to", name_of(alignment, i)),
                   CS_S("reason", cs_error_text()));
}

void alignments_agree(cs_agent *agent, struct task *task)
{
    struct alignment *alignment = find(agent, task->job);
    if (alignment == NULL) {
        const cs_status begun = begin(agent, task, &alignment);
        if (begun == CS_DENIED || begun == CS_INVALID) {
            task_refuse(agent, task, cs_error_text());
            return;
        }
        if (begun != CS_OK) { /* a full disk may pass */
            cs_log(CS_LOG_ERROR, "agent", "session not begun", CS_S("job", task->job), CS_S("reason", cs_error_text()));
            task->due_ms = cs_clock_monotonic_ms() + CS_RETRY_BASE_MS;
            return;
        }
    }
    if (!is_complete(alignment)) {
        send_open(agent, alignment);
        task->due_ms =
            cs_clock_monotonic_ms() + cs_backoff_ms(alignment->repeats++, HANDSHAKE_BASE_MS, HANDSHAKE_CAP_MS);
        return;
    }
    if (!is_repeat(alignment) && !cs_hash_is_zero(&alignment->stored) &&
        check_account(agent, alignment->job) == CS_DENIED) {
        task_refuse(agent, task, cs_error_text());
        return;
    }
    if (is_repeat(alignment) && cs_records_repeat_alignment(agent->records, alignment->job) != CS_OK)
        cs_log(CS_LOG_ERROR, "agent", "the account was not written", CS_S("reason", cs_error_text()));
    cs_log(CS_LOG_INFO, "agent", "sites agreed", CS_S("job", alignment->job), CS_I("parties", parties_of(alignment)),
           CS_S("answered_by", is_repeat(alignment) ? alignment->stored_job : ""));
    task_succeed(agent, task);
}

/* ---- for the other phases ---- */

static uint32_t groups_max(const cs_plan *plan, const cs_alignment_policy *policy)
{
    const uint64_t declared = (uint64_t)plan->alignment.patients * 6 / 5;
    const uint64_t most = CS_MIN(declared, (uint64_t)CS_PSI_GROUPS_MAX - CS_PSI_CANARIES - CS_PSI_DUMMIES);
    const uint64_t by_policy = policy->session_tokens / plan->alignment.keys_count;
    return (uint32_t)CS_MIN((uint64_t)cs_psi_padded_groups((size_t)most), by_policy);
}

cs_status alignments_prepare(cs_agent *agent, struct task *task)
{
    const struct alignment *alignment = find(agent, task->job);
    if (alignment == NULL || !is_complete(alignment) || alignment->round != task->round)
        return cs_fail(CS_DENIED, "this site has no keys with the others for job '%s', round %u", task->job,
                       task->round);
    CS_AUTO_PTR(cs_plan) plan = NULL;
    CS_TRY(cs_plan_read(task->plan, "plan", &plan));
    cs_sealing *sealing = cs_alloc(sizeof(*sealing));
    task_clear_sealing(task);
    task->sealing = sealing;
    *sealing = (cs_sealing){.session = alignment->session,
                            .roster = alignment->roster_hash,
                            .parties = (uint32_t)parties_of(alignment),
                            .self = alignment->self,
                            .leader = alignment->leader,
                            .slots = (uint32_t)plan->alignment.keys_count,
                            .groups_max = groups_max(plan, &agent->config->alignment),
                            .tells_all = plan->alignment.is_mutual,
                            .is_repeat = is_repeat(alignment),
                            .stored_patients = alignment->stored_patients};
    memcpy(sealing->stored_job, alignment->stored_job, sizeof(sealing->stored_job));
    uint8_t contributions[CS_ALIGNMENT_SITES_MAX][CS_CONTRIBUTION_BYTES];
    for (size_t i = 0; i < sealing->parties; i++) {
        memcpy(sealing->names[i], name_of(alignment, i), sizeof(sealing->names[i]));
        memcpy(contributions[i], i == alignment->self ? alignment->contribution : alignment->peers[i].contribution,
               CS_CONTRIBUTION_BYTES);
        if (i != alignment->self)
            CS_TRY(keys_with(alignment, i, &sealing->keys[i]));
    }
    cs_session_seed(&alignment->session, (const uint8_t(*)[CS_CONTRIBUTION_BYTES])contributions, sealing->parties,
                    sealing->seed);
    cs_crypto_wipe(contributions, sizeof(contributions));
    return CS_OK;
}
