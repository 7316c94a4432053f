/* Vertical federation, alignment: the sites stand in a ring, in name order; every site's list of masked points passes
 * every site once, and the leader compares what comes out. The coordinator moves sealed blobs from site to site and
 * reads, checks and folds nothing. Called by the engine.
 *
 *   agree     all: keys between the sites, by relay
 *   mask      all: each masks its own list for the next one in the ring
 *   hop1 …    all: each masks the list that came; hop N−1 is the last one, its tags go to the leader
 *   compare   the leader: which of each other site's records are in the cohort, for that site alone
 *   cohort    the others: take that in
 *
 * Output "to-N" of a task is input "from-M" of another one: N and M count the participants in name order from 0. */
#include "server/modes/mode.h"

#include <stdio.h>
#include <string.h>

#define HOPS_MAX (CS_ALIGNMENT_SITES_MAX - 1)
/* What an honest list may have more than the declared cohort: a fifth (docs/plan.md), padding by a sixteenth, and
 * canaries and dummies of a small list. */
#define LIST_SLACK_GROUPS 16384
#define POINT_BYTES       32
#define SEAL_SLACK_BYTES  (64ULL * 1024)

static const cs_phase agree = {.name = "agree", .counts_as_folded = true};
static const cs_phase mask = {.name = "mask", .output = "to", .counts_as_folded = true};
static const cs_phase compare = {.name = "compare", .is_for_some = true, .output = "to"};
static const cs_phase cohort = {.name = "cohort", .is_for_some = true};
#define HOP(n)                                                                                                         \
    {                                                                                                                  \
        .name = "hop" #n, .output = "to", .counts_as_folded = true                                                     \
    }
static const cs_phase hops[] = {HOP(1), HOP(2),  HOP(3),  HOP(4),  HOP(5),  HOP(6),  HOP(7), HOP(8),
                                HOP(9), HOP(10), HOP(11), HOP(12), HOP(13), HOP(14), HOP(15)};
_Static_assert(CS_COUNT(hops) == HOPS_MAX, "a hop for every other site");

static size_t vertical_phases(const cs_plan *plan, uint32_t round, const cs_phase *ret[CS_PHASES_MAX])
{
    if (round != 1)
        return 0;
    size_t count = 0;
    ret[count++] = &agree;
    ret[count++] = &mask;
    for (size_t i = 0; i + 1 < plan->sites.invite.count; i++)
        ret[count++] = &hops[i];
    ret[count++] = &compare;
    ret[count++] = &cohort;
    return count;
}

static size_t leader_of(const cs_plan *plan, const char *const *names, size_t count)
{
    size_t i = 0;
    while (i < count && strcmp(names[i], plan->alignment.leader) != 0)
        i++;
    return i;
}

static size_t vertical_sites(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count,
                             size_t *ret)
{
    const size_t leader = leader_of(plan, names, count);
    size_t taken = 0;
    for (size_t i = 0; i < count; i++)
        if ((phase != &compare || i == leader) && (phase != &cohort || i != leader))
            ret[taken++] = i;
    return taken;
}

static uint32_t vertical_minimum(const cs_plan *plan, const cs_phase *phase)
{
    const uint32_t all = (uint32_t)plan->sites.invite.count;
    return phase == &compare ? 1 : phase == &cohort ? all - 1 : all;
}

static size_t vertical_inputs(const cs_plan *plan, uint32_t round, const cs_phase *phase, cs_input ret[CS_INPUTS_MAX])
{
    (void)plan;
    (void)round;
    (void)phase;
    (void)ret;
    return 0;
}

static bool is_hop(const cs_phase *phase)
{
    return phase >= hops && phase < hops + HOPS_MAX;
}

/* Whose result of `phase` goes where: the receiver of a site's list; `count` where nothing leaves. */
static size_t receiver(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count, size_t site)
{
    if (phase == &mask || (is_hop(phase) && phase != &hops[count - 2]))
        return (site + 1) % count;
    if (!is_hop(phase))
        return count;
    const size_t leader = leader_of(plan, names, count);
    return site == leader ? count : leader; /* it keeps its own */
}

static void add_route(cs_route *route, const cs_phase *phase, size_t from, size_t to)
{
    *route = (cs_route){.phase = phase, .site = from};
    snprintf(route->name, sizeof(route->name), "from-%zu", from);
    snprintf(route->output, sizeof(route->output), "to-%zu", to);
}

static size_t vertical_routes(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count,
                              size_t site, cs_route ret[CS_INPUTS_MAX])
{
    if (count < 2 || phase == &agree || phase == &mask)
        return 0;
    const size_t leader = leader_of(plan, names, count);
    if (phase == &cohort) {
        if (site == leader)
            return 0;
        add_route(&ret[0], &compare, leader, site);
        return 1;
    }
    const cs_phase *before = phase == &compare ? &hops[count - 2] : phase == &hops[0] ? &mask : phase - 1;
    size_t taken = 0;
    for (size_t from = 0; from < count; from++)
        if (receiver(plan, before, names, count, from) == site)
            add_route(&ret[taken++], before, from, site);
    return taken;
}

static size_t vertical_outputs(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count,
                               size_t site, char ret[CS_OUTPUTS_MAX][CS_WORD_BYTES])
{
    const bool is_comparer = phase == &compare && site == leader_of(plan, names, count);
    size_t taken = 0;
    for (size_t to = 0; to < count; to++)
        if (is_comparer ? to != site : receiver(plan, phase, names, count, site) == to)
            snprintf(ret[taken++], CS_WORD_BYTES, "to-%zu", to);
    return taken;
}

static uint64_t vertical_output_max_bytes(const cs_plan *plan, const cs_phase *phase, uint64_t model_size)
{
    (void)model_size;
    if (!phase->output)
        return 0;
    const uint64_t declared = (uint64_t)plan->alignment.patients * 6 / 5;
    const uint64_t groups = declared + declared / 8 + LIST_SLACK_GROUPS;
    const uint64_t bytes = groups * plan->alignment.keys_count * POINT_BYTES;
    return bytes + bytes / 4096 + SEAL_SLACK_BYTES;
}

const cs_mode cs_mode_vertical = {.name = "vertical",
                                  .phases = vertical_phases,
                                  .sites = vertical_sites,
                                  .minimum = vertical_minimum,
                                  .inputs = vertical_inputs,
                                  .routes = vertical_routes,
                                  .outputs = vertical_outputs,
                                  .output_max_bytes = vertical_output_max_bytes};
