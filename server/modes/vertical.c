/* Vertical federation, alignment: every site's list of masked points passes every site once, on a way that all know
 * (cs_alignment_stop), and the leader compares what comes out. The coordinator moves sealed blobs from site to site and
 * reads, checks and folds nothing. Called by the engine.
 *
 *   agree     all: keys between the sites, by relay
 *   mask      all: each masks its own list and sends it on its way
 *   hop1 …    those where a list is: each masks what came and sends it on; hop N−1 is the last
 *   compare   the leader: which of each other site's records are in the cohort, for that site alone
 *   cohort    the others: take that in
 *
 * Blobs are named "list-O" and "answer-O": O is the site whose list it is, in name order from 0. */
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
static const cs_phase mask = {.name = "mask", .output = "list", .counts_as_folded = true};
static const cs_phase compare = {.name = "compare", .is_for_some = true, .output = "answer"};
static const cs_phase cohort = {.name = "cohort", .is_for_some = true};
#define HOP(n)                                                                                                         \
    {                                                                                                                  \
        .name = "hop" #n, .is_for_some = true, .output = "list"                                                        \
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

/* Which stop of the lists' ways a phase is; SIZE_MAX where it is none. */
static size_t stop_of(const cs_phase *phase)
{
    if (phase == &mask)
        return 0;
    return phase >= hops && phase < hops + HOPS_MAX ? (size_t)(phase - hops) + 1 : SIZE_MAX;
}

static const cs_phase *phase_of(size_t stop)
{
    return stop == 0 ? &mask : &hops[stop - 1];
}

static size_t at_stop(size_t count, size_t leader, size_t owner, size_t stop)
{
    return cs_alignment_stop((uint32_t)count, (uint32_t)leader, (uint32_t)owner, (uint32_t)stop);
}

static bool has_part(const cs_phase *phase, size_t count, size_t leader, size_t site)
{
    if (phase == &compare || phase == &cohort)
        return (site == leader) == (phase == &compare);
    const size_t stop = stop_of(phase);
    bool has_list = stop == SIZE_MAX;
    for (size_t owner = 0; owner < count && !has_list; owner++)
        has_list = at_stop(count, leader, owner, stop) == site;
    return has_list;
}

static size_t vertical_sites(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count,
                             size_t *ret)
{
    const size_t leader = leader_of(plan, names, count);
    size_t taken = 0;
    for (size_t i = 0; i < count && leader < count; i++)
        if (has_part(phase, count, leader, i))
            ret[taken++] = i;
    return taken;
}

/* Everybody who has a part in it. */
static uint32_t vertical_minimum(const cs_plan *plan, const cs_phase *phase)
{
    const size_t all = plan->sites.invite.count;
    const char *names[CS_ALIGNMENT_SITES_MAX];
    size_t sites[CS_ALIGNMENT_SITES_MAX];
    for (size_t i = 0; i < all; i++) {
        size_t at = i; /* in name order, as the participants are */
        for (; at > 0 && strcmp(names[at - 1], plan->sites.invite.items[i]) > 0; at--)
            names[at] = names[at - 1];
        names[at] = plan->sites.invite.items[i];
    }
    return (uint32_t)vertical_sites(plan, phase, names, all, sites);
}

static size_t vertical_inputs(const cs_plan *plan, uint32_t round, const cs_phase *phase, cs_input ret[CS_INPUTS_MAX])
{
    (void)plan;
    (void)round;
    (void)phase;
    (void)ret;
    return 0;
}

static size_t vertical_routes(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count,
                              size_t site, cs_route ret[CS_INPUTS_MAX])
{
    const size_t leader = leader_of(plan, names, count);
    if (phase == &cohort && site != leader && leader < count) {
        ret[0] = (cs_route){.phase = &compare, .site = leader};
        snprintf(ret[0].name, sizeof(ret[0].name), "answer-%zu", site);
        memcpy(ret[0].output, ret[0].name, sizeof(ret[0].output));
        return 1;
    }
    const size_t stop = phase == &compare ? count : stop_of(phase);
    size_t taken = 0;
    for (size_t owner = 0; owner < count && stop > 0 && stop <= count && leader < count; owner++) {
        const size_t from = at_stop(count, leader, owner, stop - 1);
        if (at_stop(count, leader, owner, stop) != site || from == site)
            continue; /* a list that was at the leader last is there already */
        cs_route *route = &ret[taken++];
        *route = (cs_route){.phase = phase_of(stop - 1), .site = from};
        snprintf(route->name, sizeof(route->name), "list-%zu", owner);
        memcpy(route->output, route->name, sizeof(route->output));
    }
    return taken;
}

static size_t vertical_outputs(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count,
                               size_t site, char ret[CS_OUTPUTS_MAX][CS_WORD_BYTES])
{
    const size_t leader = leader_of(plan, names, count), stop = stop_of(phase);
    size_t taken = 0;
    for (size_t owner = 0; owner < count && leader < count; owner++) {
        if (phase == &compare && site == leader && owner != leader)
            snprintf(ret[taken++], CS_WORD_BYTES, "answer-%zu", owner);
        if (stop < count && at_stop(count, leader, owner, stop) == site &&
            at_stop(count, leader, owner, stop + 1) != site)
            snprintf(ret[taken++], CS_WORD_BYTES, "list-%zu", owner);
    }
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
