/* The vertical mode: where lists go. The protocol itself is tested through daemons. */
#include "server/modes/mode.h"

#include "tests/unit/place.h"

static const char *const names[] = {"alpha", "beta", "gamma", "delta-4", "delta-5"}; /* only as many as a test takes */

static cs_plan *read_plan(const char *sites, const char *leader)
{
    CS_AUTO(cs_string) text = cs_format("plan: cohort\nfederation: vertical\nsites: {invite: [%s]}\n"
                                        "dataset: {name: persons, kind: identities}\n"
                                        "alignment: {study: s, leader: %s, cohort: all, patients: 1000, keys: [[given, "
                                        "family, birth_date]]}\n",
                                        sites, leader);
    cs_plan *plan = NULL;
    assert_ok(cs_plan_read(cs_bytes_of_text(text), "cohort.yaml", &plan));
    return plan;
}

static size_t phases_of(const cs_plan *plan, const cs_phase *ret[CS_PHASES_MAX])
{
    return cs_mode_of(plan)->phases(plan, 1, ret);
}

static void a_round_has_a_hop_for_every_other_site(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) two = read_plan("alpha, beta", "beta");
    CS_AUTO_PTR(cs_plan) three = read_plan("alpha, beta, gamma", "beta");
    const cs_phase *phases[CS_PHASES_MAX];

    assert_int_equal(phases_of(two, phases), 5);
    assert_string_equal(phases[2]->name, "hop1");
    assert_int_equal(phases_of(three, phases), 6);
    assert_string_equal(phases[3]->name, "hop2");
    assert_string_equal(phases[5]->name, "cohort");
    assert_int_equal(cs_mode_of(two)->phases(two, 0, phases), 0);
    assert_int_equal(cs_mode_of(two)->phases(two, 2, phases), 0);
}

static void the_leader_compares_and_the_others_take_in_and_all_are_needed(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = read_plan("gamma, alpha, beta", "beta");
    const cs_mode *mode = cs_mode_of(plan);
    const cs_phase *phases[CS_PHASES_MAX];
    size_t sites[3];
    phases_of(plan, phases);
    static const char *const sorted[] = {"alpha", "beta", "gamma"};

    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(mode->sites(plan, phases[i], sorted, 3, sites), 3);
        assert_int_equal(mode->minimum(plan, phases[i]), 3);
    }
    assert_int_equal(mode->sites(plan, phases[4], sorted, 3, sites), 1);
    assert_int_equal(sites[0], 1);
    assert_int_equal(mode->minimum(plan, phases[4]), 1);
    assert_int_equal(mode->sites(plan, phases[5], sorted, 3, sites), 2);
    assert_int_equal(sites[0], 0);
    assert_int_equal(sites[1], 2);
    assert_int_equal(mode->minimum(plan, phases[5]), 2);
}

/* Follows every list on its way: who masked it, and where it is at the end. */
static void every_list_passes_every_site_once_and_ends_at_the_leader(void **state)
{
    (void)state;
    static const char *const invited[] = {"alpha, beta", "alpha, beta, gamma", "alpha, beta, gamma, delta-4",
                                          "alpha, beta, gamma, delta-4, delta-5"};
    for (size_t count = 2; count <= 5; count++) {
        CS_AUTO_PTR(cs_plan) plan = read_plan(invited[count - 2], "beta");
        const cs_mode *mode = cs_mode_of(plan);
        const cs_phase *phases[CS_PHASES_MAX];
        const size_t phases_count = phases_of(plan, phases);
        unsigned masked[5];
        size_t at[5];
        for (size_t i = 0; i < count; i++) {
            masked[i] = 1U << i;
            at[i] = i;
        }
        for (size_t p = 2; p < phases_count - 1; p++) {
            const bool is_compare = p == phases_count - 2;
            for (size_t site = 0; site < count; site++) {
                cs_route routes[CS_INPUTS_MAX];
                const size_t routes_count = mode->routes(plan, phases[p], names, count, site, routes);
                for (size_t r = 0; r < routes_count; r++) {
                    const size_t owner = (size_t)(routes[r].name[5] - '0');
                    assert_ptr_equal(routes[r].phase, phases[p - 1]);
                    assert_int_equal(routes[r].site, at[owner]);
                    assert_int_equal(is_compare ? 0 : masked[owner] & 1U << site, 0);
                    masked[owner] |= 1U << site;
                    at[owner] = site + 16; /* moved in this phase */
                }
            }
            for (size_t owner = 0; owner < count; owner++)
                at[owner] %= 16;
        }
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(masked[i], (1U << count) - 1);
            assert_int_equal(at[i], 1);
        }
    }
}

/* What one task brings is what the others are given, and nothing else. */
static void outputs_and_routes_agree(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = read_plan("alpha, beta, gamma, delta-4", "gamma");
    const cs_mode *mode = cs_mode_of(plan);
    const cs_phase *phases[CS_PHASES_MAX];
    const size_t phases_count = phases_of(plan, phases);
    size_t brought = 0, given = 0;
    for (size_t p = 0; p < phases_count; p++) {
        for (size_t site = 0; site < 4; site++) {
            char outputs[CS_OUTPUTS_MAX][CS_WORD_BYTES];
            cs_route routes[CS_INPUTS_MAX];
            brought += mode->outputs(plan, phases[p], names, 4, site, outputs);
            const size_t count = mode->routes(plan, phases[p], names, 4, site, routes);
            for (size_t i = 0; i < count; i++, given++) {
                const size_t outputs_count = mode->outputs(plan, routes[i].phase, names, 4, routes[i].site, outputs);
                bool is_found = false;
                for (size_t o = 0; o < outputs_count; o++)
                    is_found = is_found || strcmp(outputs[o], routes[i].output) == 0;
                assert_true(is_found);
            }
        }
    }
    assert_int_equal(brought, given);
    /* Each list moves to each other site once, the leader's once more; then the answers. */
    assert_int_equal(given, 4 * 3 + 1 + 3);
}

static void a_list_may_be_as_large_as_the_declared_cohort_allows(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_plan) plan = read_plan("alpha, beta", "beta");
    const cs_phase *phases[CS_PHASES_MAX];
    phases_of(plan, phases);
    const uint64_t most = cs_mode_of(plan)->output_max_bytes(plan, phases[1], 0);

    assert_true(most > 1200 * 17 / 16 * 32);
    assert_true(most < 1000 * 1000);
    assert_int_equal(cs_mode_of(plan)->output_max_bytes(plan, phases[0], 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_has_a_hop_for_every_other_site),
        cmocka_unit_test(the_leader_compares_and_the_others_take_in_and_all_are_needed),
        cmocka_unit_test(every_list_passes_every_site_once_and_ends_at_the_leader),
        cmocka_unit_test(outputs_and_routes_agree),
        cmocka_unit_test(a_list_may_be_as_large_as_the_declared_cohort_allows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
