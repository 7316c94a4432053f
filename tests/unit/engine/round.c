/* The round table: every state × event × set of facts, and a long random walk. */
#include "server/engine/round.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* What may happen in a state; everything else is refused. */
static const unsigned listed[ROUND_STATES] = {
    [ROUND_WAITING] = 1 << EVENT_LOOK | 1 << EVENT_DEADLINE | 1 << EVENT_CANCEL,
    [ROUND_IDLE] = 1 << EVENT_LOOK | 1 << EVENT_DEADLINE | 1 << EVENT_CANCEL,
    [ROUND_COLLECTING] =
        1 << EVENT_LOOK | 1 << EVENT_RESULT | 1 << EVENT_LOST | 1 << EVENT_DEADLINE | 1 << EVENT_CANCEL,
    [ROUND_FOLDING] =
        1 << EVENT_LOOK | 1 << EVENT_LOST | 1 << EVENT_FOLDED | 1 << EVENT_FOLD_FAILED | 1 << EVENT_CANCEL,
    [ROUND_PAUSED] = 1 << EVENT_LOOK | 1 << EVENT_LOST | 1 << EVENT_RESUME | 1 << EVENT_CANCEL,
};

static bool is_publish(enum round_action action)
{
    return action == DO_NEXT_PHASE || action == DO_NEXT_ROUND || action == DO_FINISH;
}

/* What holds for every step, whatever the facts are. */
static void assert_step_is_sound(enum round_state state, enum round_event event, unsigned facts, struct round_step step)
{
    const bool has_acted = step.action != DO_NOTHING;

    assert_int_equal(step.is_refused, (listed[state] >> event & 1) == 0);
    if (!has_acted)
        assert_int_equal(step.next, state);
    if (round_state_is_final(state))
        assert_true(step.is_refused);
    if (step.next == ROUND_FOLDING && step.action == DO_FOLD)
        assert_true(state == ROUND_COLLECTING && (facts & FACT_ENOUGH));
    if (step.action == DO_FOLD && event != EVENT_DEADLINE)
        assert_true(facts & FACT_ALL_ANSWERED);
    if (is_publish(step.action))
        assert_true(state == ROUND_FOLDING && event == EVENT_FOLDED);
    if (step.action == DO_OPEN) {
        assert_int_equal(state, ROUND_IDLE);
        assert_true((facts & FACT_PRESENT) && (facts & FACT_ROOM) && !(facts & FACT_HOPELESS));
    }
    if (step.action == DO_REASSIGN)
        assert_true(state == ROUND_COLLECTING && (facts & FACT_SUBSTITUTE) && !(facts & FACT_ENOUGH));
    if (step.action == DO_FINISH)
        assert_false(facts & (FACT_MORE_PHASES | FACT_MORE_ROUNDS));
    if (has_acted) {
        assert_int_equal(step.next == ROUND_FAILED, step.action == DO_FAIL);
        assert_int_equal(step.next == ROUND_CANCELLED, step.action == DO_CANCEL);
        assert_int_equal(step.next == ROUND_DONE, step.action == DO_FINISH);
        assert_int_equal(step.next == ROUND_PAUSED, step.action == DO_PAUSE);
    }
    if (event == EVENT_CANCEL && !round_state_is_final(state))
        assert_int_equal(step.next, ROUND_CANCELLED);
}

static void every_state_and_event_is_sound_for_every_set_of_facts(void **unused)
{
    (void)unused;
    for (int state = 0; state < ROUND_STATES; state++) {
        for (int event = 0; event < ROUND_EVENTS; event++) {
            for (unsigned facts = 0; facts < 1U << ROUND_FACTS; facts++) {
                const struct round_step step = round_step((enum round_state)state, (enum round_event)event, facts);
                assert_step_is_sound((enum round_state)state, (enum round_event)event, facts, step);
            }
        }
    }
}

struct expectation {
    enum round_state state;
    enum round_event event;
    unsigned facts;
    enum round_state next;
    enum round_action action;
};

static void the_table_says_what_the_readme_says(void **unused)
{
    (void)unused;
    const struct expectation expected[] = {
        {ROUND_WAITING, EVENT_LOOK, FACT_PRESENT, ROUND_WAITING, DO_NOTHING},
        {ROUND_WAITING, EVENT_LOOK, FACT_PRESENT | FACT_ALL_DECIDED, ROUND_IDLE, DO_READY},
        {ROUND_WAITING, EVENT_LOOK, FACT_HOPELESS | FACT_ALL_DECIDED, ROUND_FAILED, DO_FAIL},
        {ROUND_WAITING, EVENT_DEADLINE, FACT_APPROVED, ROUND_IDLE, DO_READY},
        {ROUND_WAITING, EVENT_DEADLINE, 0, ROUND_FAILED, DO_FAIL},
        {ROUND_IDLE, EVENT_LOOK, FACT_ROOM, ROUND_IDLE, DO_NOTHING},
        {ROUND_IDLE, EVENT_LOOK, FACT_PRESENT, ROUND_PAUSED, DO_PAUSE},
        {ROUND_IDLE, EVENT_LOOK, FACT_PRESENT | FACT_ROOM, ROUND_COLLECTING, DO_OPEN},
        {ROUND_IDLE, EVENT_LOOK, FACT_PRESENT | FACT_ROOM | FACT_AWAITED, ROUND_IDLE, DO_NOTHING},
        {ROUND_IDLE, EVENT_DEADLINE, FACT_PRESENT | FACT_ROOM | FACT_AWAITED, ROUND_COLLECTING, DO_OPEN},
        {ROUND_IDLE, EVENT_DEADLINE, FACT_ROOM, ROUND_PAUSED, DO_PAUSE},
        {ROUND_COLLECTING, EVENT_RESULT, FACT_ENOUGH, ROUND_COLLECTING, DO_NOTHING},
        {ROUND_COLLECTING, EVENT_RESULT, FACT_ENOUGH | FACT_ALL_ANSWERED, ROUND_FOLDING, DO_FOLD},
        {ROUND_COLLECTING, EVENT_LOST, FACT_ALL_ANSWERED, ROUND_FAILED, DO_FAIL},
        {ROUND_COLLECTING, EVENT_LOST, FACT_ALL_ANSWERED | FACT_SUBSTITUTE, ROUND_COLLECTING, DO_REASSIGN},
        {ROUND_COLLECTING, EVENT_DEADLINE, FACT_ENOUGH, ROUND_FOLDING, DO_FOLD},
        {ROUND_COLLECTING, EVENT_DEADLINE, 0, ROUND_FAILED, DO_FAIL},
        {ROUND_FOLDING, EVENT_FOLDED, FACT_MORE_PHASES | FACT_MORE_ROUNDS, ROUND_COLLECTING, DO_NEXT_PHASE},
        {ROUND_FOLDING, EVENT_FOLDED, FACT_MORE_ROUNDS, ROUND_IDLE, DO_NEXT_ROUND},
        {ROUND_FOLDING, EVENT_FOLDED, 0, ROUND_DONE, DO_FINISH},
        {ROUND_FOLDING, EVENT_FOLD_FAILED, 0, ROUND_PAUSED, DO_PAUSE},
        {ROUND_PAUSED, EVENT_LOOK, 0, ROUND_PAUSED, DO_NOTHING},
        {ROUND_PAUSED, EVENT_LOOK, FACT_FIXED, ROUND_IDLE, DO_CONTINUE},
        {ROUND_PAUSED, EVENT_LOOK, FACT_FIXED | FACT_IN_FOLD | FACT_HOPELESS, ROUND_FOLDING, DO_CONTINUE},
        {ROUND_PAUSED, EVENT_RESUME, 0, ROUND_IDLE, DO_CONTINUE},
        {ROUND_PAUSED, EVENT_RESUME, FACT_IN_FOLD, ROUND_FOLDING, DO_CONTINUE},
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        const struct expectation *e = &expected[i];
        const struct round_step step = round_step(e->state, e->event, e->facts);
        if (step.next != e->next || step.action != e->action)
            fail_msg("line %zu: %s, %s: found %s (%d), expected %s (%d)", i, round_state_name(e->state),
                     round_event_name(e->event), round_state_name(step.next), (int)step.action,
                     round_state_name(e->next), (int)e->action);
    }
}

/* ---- a random walk through whole jobs ---- */

#define SITES   5
#define MINIMUM 3
#define ROUNDS  4
#define PHASES  2

struct walk {
    uint64_t random;
    enum round_state state, paused_in;
    unsigned round, phase;
    bool is_open[SITES], has_result[SITES], is_present[SITES], is_refused[SITES];
    bool has_room;
    unsigned published;
};

static unsigned draw(struct walk *walk, unsigned below)
{
    walk->random ^= walk->random << 13;
    walk->random ^= walk->random >> 7;
    walk->random ^= walk->random << 17;
    return (unsigned)(walk->random >> 33) % below;
}

static unsigned count_of(const bool *flags)
{
    unsigned count = 0;
    for (int i = 0; i < SITES; i++)
        count += flags[i];
    return count;
}

static unsigned facts_of(const struct walk *walk)
{
    unsigned facts = 0;
    if (count_of(walk->is_present) >= MINIMUM)
        facts |= FACT_PRESENT | FACT_APPROVED;
    if (count_of(walk->is_present) + count_of(walk->is_refused) == SITES)
        facts |= FACT_ALL_DECIDED;
    if (SITES - count_of(walk->is_refused) < MINIMUM)
        facts |= FACT_HOPELESS;
    if (count_of(walk->is_open) == 0)
        facts |= FACT_ALL_ANSWERED;
    if (count_of(walk->has_result) >= MINIMUM)
        facts |= FACT_ENOUGH;
    if (walk->phase + 1 < PHASES)
        facts |= FACT_MORE_PHASES;
    if (walk->round + 1 < ROUNDS)
        facts |= FACT_MORE_ROUNDS;
    if (walk->has_room)
        facts |= FACT_ROOM;
    if (walk->paused_in == ROUND_FOLDING)
        facts |= FACT_IN_FOLD;
    if (walk->has_room && (facts & FACT_PRESENT))
        facts |= FACT_FIXED;
    return facts;
}

static void open_phase(struct walk *walk)
{
    for (int i = 0; i < SITES; i++) {
        walk->is_open[i] = walk->is_present[i];
        walk->has_result[i] = false;
    }
}

static void act(struct walk *walk, struct round_step step)
{
    switch (step.action) {
    case DO_OPEN:
        walk->phase = 0;
        open_phase(walk);
        break;
    case DO_FOLD:
        assert_true(count_of(walk->has_result) >= MINIMUM);
        memset(walk->is_open, 0, sizeof(walk->is_open));
        break;
    case DO_NEXT_PHASE:
    case DO_NEXT_ROUND:
    case DO_FINISH:
        /* One model a phase, in order. */
        assert_int_equal(walk->published, walk->round * PHASES + walk->phase);
        walk->published++;
        if (step.action == DO_NEXT_PHASE) {
            walk->phase++;
            open_phase(walk);
        } else if (step.action == DO_NEXT_ROUND) {
            walk->round++;
            walk->phase = 0;
        } else {
            assert_int_equal(walk->published, ROUNDS * PHASES);
        }
        break;
    case DO_PAUSE:
        walk->paused_in = walk->state;
        break;
    default:
        break;
    }
    walk->state = step.next;
}

/* Something happens in the world; returns the event it is for the table. */
static enum round_event happen(struct walk *walk)
{
    const unsigned site = draw(walk, SITES);
    switch (draw(walk, 20)) {
    case 0:
        walk->is_present[site] = false;
        return EVENT_LOOK;
    case 1:
        walk->has_room = draw(walk, 4) != 0;
        return EVENT_LOOK;
    case 2:
        if (walk->is_open[site] && walk->state == ROUND_COLLECTING) {
            walk->is_open[site] = false;
            return EVENT_LOST;
        }
        return EVENT_LOOK;
    case 3:
        return draw(walk, 16) == 0 ? EVENT_DEADLINE : EVENT_LOOK;
    case 4:
        if (draw(walk, 200) == 0) {
            walk->is_refused[site] = true;
            walk->is_present[site] = false;
        }
        return EVENT_LOOK;
    case 5:
        return draw(walk, 200) == 0 ? EVENT_CANCEL : EVENT_RESUME;
    case 6:
        return EVENT_FOLD_FAILED;
    case 7:
    case 8:
    case 9:
        return EVENT_FOLDED;
    case 10:
    case 11:
    case 12:
    case 13:
        walk->is_present[site] = !walk->is_refused[site];
        return EVENT_LOOK;
    default:
        if (walk->is_open[site] && walk->state == ROUND_COLLECTING) {
            walk->is_open[site] = false;
            walk->has_result[site] = true;
        }
        return EVENT_RESULT;
    }
}

#define WALK_EVENTS    400000
#define JOB_EVENTS_MAX 20000 /* a job that takes longer does not end */

static void a_long_random_walk_ends_every_job_and_never_breaks_a_promise(void **unused)
{
    (void)unused;
    uint64_t random = 0x9e3779b97f4a7c15U;
    unsigned events = 0, ended[ROUND_STATES] = {0};

    while (events < WALK_EVENTS) {
        struct walk walk = {.random = random, .state = ROUND_WAITING, .has_room = true};
        unsigned job_events = 0;
        while (!round_state_is_final(walk.state)) {
            const enum round_event event = happen(&walk);
            const unsigned facts = facts_of(&walk);
            const struct round_step step = round_step(walk.state, event, facts);
            assert_step_is_sound(walk.state, event, facts, step);
            act(&walk, step);
            assert_true(++job_events < JOB_EVENTS_MAX);
        }
        const unsigned published = walk.published;
        for (int event = 0; event < ROUND_EVENTS; event++)
            assert_true(round_step(walk.state, (enum round_event)event, facts_of(&walk)).is_refused);
        if (walk.state == ROUND_DONE)
            assert_int_equal(published, ROUNDS * PHASES);
        ended[walk.state]++;
        events += job_events;
        random = walk.random;
    }
    assert_true(ended[ROUND_DONE] > 50);
    assert_true(ended[ROUND_FAILED] > 50);
    assert_true(ended[ROUND_CANCELLED] > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_and_event_is_sound_for_every_set_of_facts),
        cmocka_unit_test(the_table_says_what_the_readme_says),
        cmocka_unit_test(a_long_random_walk_ends_every_job_and_never_breaks_a_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
