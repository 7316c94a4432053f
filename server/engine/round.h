/* The life of a job as a pure table of state × event: no I/O, no clock, no memory of its own. The engine states the
 * facts, the table says what comes next and what is to be done. Any thread. */
#ifndef CS_ENGINE_ROUND_H
#define CS_ENGINE_ROUND_H

#include <stdbool.h>

/* Numbers are stored in the database: add, never renumber. */
enum round_state {
    ROUND_WAITING = 0,    /* for the decisions of the invited sites */
    ROUND_IDLE = 1,       /* the next round opens as soon as enough sites are here */
    ROUND_COLLECTING = 2, /* a phase is open: its tasks are at the sites */
    ROUND_FOLDING = 3,    /* the phase is closed: its results are being folded */
    ROUND_PAUSED = 4,     /* something outside is missing: sites, disk, or a person's look */
    ROUND_DONE = 5,
    ROUND_FAILED = 6,
    ROUND_CANCELLED = 7,
    ROUND_STATES
};

enum round_event {
    EVENT_LOOK,        /* decisions, connections or the disk may have changed */
    EVENT_RESULT,      /* a result was accepted */
    EVENT_LOST,        /* a participant is out of this round: refused, failed, revoked */
    EVENT_DEADLINE,    /* of the approval, of the wait for sites, or of the phase */
    EVENT_FOLDED,      /* the fold is on disk */
    EVENT_FOLD_FAILED, /* for a reason of this machine: results were checked before */
    EVENT_RESUME,      /* the operator says go on */
    EVENT_CANCEL,
    ROUND_EVENTS
};

/* What is so at the moment of the event; bits. */
enum round_fact {
    FACT_ALL_DECIDED = 1 << 0,  /* every invited site decided, and those that approved are connected */
    FACT_APPROVED = 1 << 1,     /* the minimum of sites and every required one have approved */
    FACT_PRESENT = 1 << 2,      /* … and are connected */
    FACT_HOPELESS = 1 << 3,     /* refusals and revocations leave too few sites, or not the required ones */
    FACT_ALL_ANSWERED = 1 << 4, /* no task of the phase is open */
    FACT_ENOUGH = 1 << 5,       /* results of at least the phase's minimum and of every required site */
    FACT_SUBSTITUTE = 1 << 6,   /* the phase is for one site and another participant can do it */
    FACT_MORE_PHASES = 1 << 7,  /* in this round */
    FACT_MORE_ROUNDS = 1 << 8,
    FACT_ROOM = 1 << 9,     /* on the disk, above the reserve */
    FACT_IN_FOLD = 1 << 10, /* it was paused while folding */
    FACT_FIXED = 1 << 11,   /* what it was paused for is there again */
    FACT_AWAITED = 1 << 12, /* an approved site left a moment ago and is likely to be back */
    ROUND_FACTS = 13
};

enum round_action {
    DO_NOTHING,
    DO_READY,      /* approvals are in: prepare the first round */
    DO_OPEN,       /* fix the participants, give out the tasks of the round's first phase */
    DO_REASSIGN,   /* give the phase to the next site */
    DO_FOLD,       /* close the phase; fold what was accepted */
    DO_NEXT_PHASE, /* publish what the fold made; give out the tasks of the next phase */
    DO_NEXT_ROUND, /* publish what the fold made; close the round */
    DO_FINISH,     /* publish what the fold made; close the round and the job */
    DO_PAUSE,
    DO_CONTINUE, /* from the pause */
    DO_FAIL,
    DO_CANCEL
};

struct round_step {
    bool is_refused; /* the table does not list it */
    enum round_state next;
    enum round_action action;
};

struct round_step round_step(enum round_state state, enum round_event event, unsigned facts);
bool round_state_is_final(enum round_state state);
const char *round_state_name(enum round_state state);
const char *round_event_name(enum round_event event);

#endif
