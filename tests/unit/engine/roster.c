/* What sites hear of each other: the roster, approvals of it, and messages that are passed on or dropped. */
#include "common/crypto/roster.h"
#include "tests/unit/engine/world.h"

#define ROSTER CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_ROSTER
#define RELAY  CONSILIUM__V1__COORDINATOR_MESSAGE__BODY_RELAY

/* As world_attend, by a site that has the feature. */
static void attend(world *world, struct site *site)
{
    site->session = ++world->sessions;
    cs_engine_site_attended(world->engine, site->name, site->session, CONSILIUM__V1__FEATURE__FEATURE_ROSTER,
                            "test 1.1");
}

static void attend_all(world *world)
{
    for (size_t i = 0; i < world->sites_count; i++)
        attend(world, &world->sites[i]);
    world_settle(world);
}

static void a_site_hears_who_is_enrolled_and_an_older_one_does_not(void **state)
{
    world *world = *state;
    attend(world, world_site(world, "a"));
    world_attend(world, world_site(world, "b"));
    world_settle(world);

    received *said = world_await(world_site(world, "a"), ROSTER);
    const Consilium__V1__Roster *roster = said->message->roster;

    assert_int_equal(roster->n_members, 3);
    assert_string_equal(roster->members[2]->site, "c");
    assert_memory_equal(roster->members[0]->signing_key.data, cs_sign_key_public(world_site(world, "a")->key),
                        CS_SIGN_PUBLIC_BYTES);
    assert_false(world_has(world_site(world, "b"), ROSTER));
    received_free(said);
}

static void approve(world *world, struct site *site, const cs_sign_key *key, const cs_hash *hash)
{
    CS_AUTO(cs_string) text = cs_roster_approval_text(site->name, hash);
    uint8_t signature[CS_SIGNATURE_BYTES];
    cs_sign(key, cs_bytes_of_text(text), signature);
    Consilium__V1__RosterApproval approval = CONSILIUM__V1__ROSTER_APPROVAL__INIT;
    approval.site = site->name;
    approval.roster_sha256 = cs_wire_data(hash->bytes, CS_HASH_BYTES);
    approval.signature = cs_wire_data(signature, sizeof(signature));
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_ROSTER_APPROVAL;
    message.roster_approval = &approval;
    world_say(site, &message);
    world_settle(world);
}

static void an_approval_is_kept_told_and_recorded_and_one_by_another_key_is_not(void **state)
{
    world *world = *state;
    struct site *a = world_site(world, "a"), *b = world_site(world, "b");
    const cs_hash hash = {{7}};
    attend_all(world);
    received_free(world_await(b, ROSTER));

    approve(world, a, b->key, &hash);
    assert_false(world_has(b, ROSTER));
    approve(world, a, a->key, &hash);
    approve(world, a, a->key, &hash); /* said again */

    received *said = world_await(b, ROSTER);
    assert_int_equal(said->message->roster->n_approvals, 1);
    assert_string_equal(said->message->roster->approvals[0]->site, "a");
    assert_memory_equal(said->message->roster->approvals[0]->roster_sha256.data, hash.bytes, CS_HASH_BYTES);
    assert_false(world_has(b, ROSTER));
    assert_int_equal(world_records(world, "roster_approved"), 1);
    received_free(said);

    world_restart(world);
    attend_all(world);
    said = world_await(b, ROSTER);
    assert_int_equal(said->message->roster->n_approvals, 1);
    received_free(said);
}

static void a_revoked_site_is_not_in_the_roster_any_more(void **state)
{
    world *world = *state;
    attend_all(world);
    received_free(world_await(world_site(world, "a"), ROSTER));

    world_revoke(world, world_site(world, "c"));
    world_settle(world);

    received *said = world_await(world_site(world, "a"), ROSTER);
    assert_int_equal(said->message->roster->n_members, 2);
    received_free(said);
}

/* ---- relay ---- */

static void relay_to(struct site *from, const char *job, const char *to, size_t size)
{
    static uint8_t bytes[8192];
    Consilium__V1__Relay relay = CONSILIUM__V1__RELAY__INIT;
    relay.session = (char *)(uintptr_t)job;
    relay.from = (char *)(uintptr_t) "somebody else";
    relay.to = (char *)(uintptr_t)to;
    relay.sequence = 1;
    relay.sealed = cs_wire_data(bytes, size);
    Consilium__V1__SiteMessage message = CONSILIUM__V1__SITE_MESSAGE__INIT;
    message.body_case = CONSILIUM__V1__SITE_MESSAGE__BODY_RELAY;
    message.relay = &relay;
    world_say(from, &message);
    world_settle(from->world);
}

/* A job whose round is open between a and b; c did not approve. */
static const char *open_round(world *world)
{
    CS_AUTO(cs_string)
    plan = world_plan("sites: {invite: [a, b], minimum: 2, approval: 7d, deadline: 10m}\n", "none", 1, PLAN_RETAINS);
    attend_all(world);
    const char *job = world_submit_ok(world, plan);
    world_approve(world_site(world, "a"));
    world_approve(world_site(world, "b"));
    world_settle(world);
    return job;
}

static void a_message_between_participants_is_passed_on_with_its_true_sender(void **state)
{
    world *world = *state;
    const char *job = open_round(world);

    relay_to(world_site(world, "a"), job, "b", 100);

    received *passed = world_await(world_site(world, "b"), RELAY);
    assert_string_equal(passed->message->relay->from, "a");
    assert_string_equal(passed->message->relay->session, job);
    assert_int_equal(passed->message->relay->sealed.len, 100);
    received_free(passed);
}

static void what_is_too_large_or_not_between_participants_is_dropped(void **state)
{
    world *world = *state;
    const char *job = open_round(world);
    struct site *a = world_site(world, "a"), *b = world_site(world, "b"), *c = world_site(world, "c");

    relay_to(a, job, "b", 4097);
    relay_to(c, job, "b", 10); /* invited to nothing */
    relay_to(a, job, "c", 10);
    relay_to(a, job, "a", 10);
    relay_to(a, "another-job", "b", 10);
    relay_to(a, job, "nobody", 10);

    assert_false(world_has(a, RELAY));
    assert_false(world_has(b, RELAY));
    assert_false(world_has(c, RELAY));
    relay_to(a, job, "b", 4096);
    assert_true(world_has(b, RELAY));
}

static void a_site_may_send_so_many_a_second(void **state)
{
    world *world = *state;
    const char *job = open_round(world);
    struct site *a = world_site(world, "a"), *b = world_site(world, "b");
    size_t passed = 0;
    for (int i = 0; i < 300; i++)
        relay_to(a, job, "b", 10);
    while (world_has(b, RELAY)) {
        received_free(world_await(b, RELAY));
        passed++;
    }
    assert_int_equal(passed, 256);

    world_advance(world, 1000);
    relay_to(a, job, "b", 10);
    assert_true(world_has(b, RELAY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(a_site_hears_who_is_enrolled_and_an_older_one_does_not),
        WORLD_TEST(an_approval_is_kept_told_and_recorded_and_one_by_another_key_is_not),
        WORLD_TEST(a_revoked_site_is_not_in_the_roster_any_more),
        WORLD_TEST(a_message_between_participants_is_passed_on_with_its_true_sender),
        WORLD_TEST(what_is_too_large_or_not_between_participants_is_dropped),
        WORLD_TEST(a_site_may_send_so_many_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
