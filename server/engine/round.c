/* The table of round.h. Called by the engine's job.c, and by its test for every state, event and set of facts. */
#include "server/engine/round.h"

#include <stddef.h>

#define RULES_MAX 5

/* The first rule whose `needs` all hold and whose `forbids` do not is taken. A cell whose rules do not fit leaves the
 * state as it is; a cell without rules is refused. */
struct rule {
    unsigned needs;
    unsigned forbids;
    enum round_state next;
    enum round_action action;
};
struct cell {
    bool is_listed;
    struct rule rules[RULES_MAX];
};

#define STAYS                                                                                                          \
    {                                                                                                                  \
        .is_listed = true                                                                                              \
    }
#define RULES(...)                                                                                                     \
    {                                                                                                                  \
        .is_listed = true, .rules = { __VA_ARGS__ }                                                                    \
    }
#define WHEN(...)                                                                                                      \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }
#define ANSWERED_AND(fact) (FACT_ALL_ANSWERED | (fact))

static const struct cell table[ROUND_STATES][ROUND_EVENTS] =
    {
        [ROUND_WAITING] =
            {
                [EVENT_LOOK] = RULES(WHEN(FACT_HOPELESS, 0, ROUND_FAILED, DO_FAIL),
                                     WHEN(FACT_ALL_DECIDED | FACT_PRESENT, 0, ROUND_IDLE, DO_READY)),
                [EVENT_DEADLINE] =
                    RULES(WHEN(FACT_APPROVED, FACT_HOPELESS, ROUND_IDLE, DO_READY), WHEN(0, 0, ROUND_FAILED, DO_FAIL)),
                [EVENT_CANCEL] = RULES(WHEN(0, 0, ROUND_CANCELLED, DO_CANCEL)),
            },
        [ROUND_IDLE] =
            {
                [EVENT_LOOK] =
                    RULES(WHEN(FACT_HOPELESS, 0, ROUND_FAILED, DO_FAIL), WHEN(0, FACT_ROOM, ROUND_PAUSED, DO_PAUSE),
                          WHEN(FACT_PRESENT, FACT_AWAITED, ROUND_COLLECTING, DO_OPEN)),
                [EVENT_DEADLINE] = RULES(WHEN(FACT_HOPELESS, 0, ROUND_FAILED, DO_FAIL),
                                         WHEN(FACT_PRESENT | FACT_ROOM, 0, ROUND_COLLECTING, DO_OPEN),
                                         WHEN(0, 0, ROUND_PAUSED, DO_PAUSE)),
                [EVENT_CANCEL] = RULES(WHEN(0, 0, ROUND_CANCELLED, DO_CANCEL)),
            },
        [ROUND_COLLECTING] =
            {
                [EVENT_LOOK] = STAYS, /* who takes part was fixed when the round opened */
                [EVENT_RESULT] = RULES(WHEN(ANSWERED_AND(FACT_ENOUGH), 0, ROUND_FOLDING, DO_FOLD),
                                       WHEN(ANSWERED_AND(FACT_SUBSTITUTE), 0, ROUND_COLLECTING, DO_REASSIGN),
                                       WHEN(FACT_ALL_ANSWERED, 0, ROUND_FAILED, DO_FAIL)),
                [EVENT_LOST] = RULES(WHEN(ANSWERED_AND(FACT_ENOUGH), 0, ROUND_FOLDING, DO_FOLD),
                                     WHEN(ANSWERED_AND(FACT_SUBSTITUTE), 0, ROUND_COLLECTING, DO_REASSIGN),
                                     WHEN(FACT_ALL_ANSWERED, 0, ROUND_FAILED, DO_FAIL)),
                [EVENT_DEADLINE] =
                    RULES(WHEN(FACT_ENOUGH, 0, ROUND_FOLDING, DO_FOLD),
                          WHEN(FACT_SUBSTITUTE, 0, ROUND_COLLECTING, DO_REASSIGN), WHEN(0, 0, ROUND_FAILED, DO_FAIL)),
                [EVENT_CANCEL] = RULES(WHEN(0, 0, ROUND_CANCELLED, DO_CANCEL)),
            },
        [ROUND_FOLDING] =
            {
                [EVENT_LOOK] = STAYS,
                [EVENT_LOST] = STAYS, /* what it sent was accepted before */
                [EVENT_FOLDED] =
                    RULES(WHEN(FACT_MORE_PHASES, 0, ROUND_COLLECTING, DO_NEXT_PHASE),
                          WHEN(FACT_MORE_ROUNDS, 0, ROUND_IDLE, DO_NEXT_ROUND), WHEN(0, 0, ROUND_DONE, DO_FINISH)),
                [EVENT_FOLD_FAILED] = RULES(WHEN(0, 0, ROUND_PAUSED, DO_PAUSE)),
                [EVENT_CANCEL] = RULES(WHEN(0, 0, ROUND_CANCELLED, DO_CANCEL)),
            },
        [ROUND_PAUSED] =
            {
                [EVENT_LOOK] = RULES(WHEN(FACT_HOPELESS, FACT_IN_FOLD, ROUND_FAILED, DO_FAIL),
                                     WHEN(FACT_FIXED | FACT_IN_FOLD, 0, ROUND_FOLDING, DO_CONTINUE),
                                     WHEN(FACT_FIXED, 0, ROUND_IDLE, DO_CONTINUE)),
                [EVENT_LOST] = STAYS,
                [EVENT_RESUME] =
                    RULES(WHEN(FACT_IN_FOLD, 0, ROUND_FOLDING, DO_CONTINUE), WHEN(0, 0, ROUND_IDLE, DO_CONTINUE)),
                [EVENT_CANCEL] = RULES(WHEN(0, 0, ROUND_CANCELLED, DO_CANCEL)),
            },
        /* DONE, FAILED and CANCELLED list nothing: nothing happens after the end. */
};

struct round_step round_step(enum round_state state, enum round_event event, unsigned facts)
{
    const struct cell *cell = &table[state][event];
    const struct round_step stay = {.is_refused = !cell->is_listed, .next = state, .action = DO_NOTHING};
    for (size_t i = 0; i < RULES_MAX; i++) {
        const struct rule *rule = &cell->rules[i];
        if (rule->action == DO_NOTHING)
            return stay; /* past the last rule */
        if ((facts & rule->needs) == rule->needs && (facts & rule->forbids) == 0)
            return (struct round_step){.next = rule->next, .action = rule->action};
    }
    return stay;
}

bool round_state_is_final(enum round_state state)
{
    return state == ROUND_DONE || state == ROUND_FAILED || state == ROUND_CANCELLED;
}

const char *round_state_name(enum round_state state)
{
    static const char *const names[ROUND_STATES] = {
        [ROUND_WAITING] = "waiting", [ROUND_IDLE] = "idle",          [ROUND_COLLECTING] = "collecting",
        [ROUND_FOLDING] = "folding", [ROUND_PAUSED] = "paused",      [ROUND_DONE] = "done",
        [ROUND_FAILED] = "failed",   [ROUND_CANCELLED] = "cancelled"};
    return (unsigned)state < ROUND_STATES ? names[state] : "unknown";
}

const char *round_event_name(enum round_event event)
{
    static const char *const names[ROUND_EVENTS] = {
        [EVENT_LOOK] = "look",         [EVENT_RESULT] = "result", [EVENT_LOST] = "lost",
        [EVENT_DEADLINE] = "deadline", [EVENT_FOLDED] = "folded", [EVENT_FOLD_FAILED] = "fold failed",
        [EVENT_RESUME] = "resume",     [EVENT_CANCEL] = "cancel"};
    return (unsigned)event < ROUND_EVENTS ? names[event] : "unknown";
}
