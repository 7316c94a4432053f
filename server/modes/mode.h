/* A mode of federation as a small table of functions: which phases a round has, which sites take part in each, what
 * each task carries, how results are checked and folded. A mode has no state and makes no decision about time or
 * participation: that is the engine's. Pure functions, any thread; `check` and `fold` read and write files and run on
 * the aggregation thread. */
#ifndef CS_MODES_MODE_H
#define CS_MODES_MODE_H

#include "common/config/plan.h"
#include "common/crypto/digest.h"
#include "server/aggregate/aggregate.h"
#include "server/store/jobs.h"

#define CS_PHASES_MAX  20 /* of one round */
#define CS_INPUTS_MAX  16 /* blobs a task carries in */
#define CS_OUTPUTS_MAX 16 /* blobs a result carries out */

/* The names of round state and of blobs in tasks. */
#define CS_BLOB_MODEL      "model"
#define CS_BLOB_STATISTICS "statistics"
#define CS_BLOB_UPDATE     "update"

typedef struct cs_phase {
    const char *name;      /* TaskKey.phase */
    bool is_for_one;       /* the first site that can do it; else all */
    bool is_for_some;      /* sites that the mode names; the others have no part in it */
    const char *output;    /* the blob that a result brings; NULL: only metrics */
    const char *makes;     /* the round state its fold makes; NULL: none */
    bool states_samples;   /* the result says how many rows it was trained on */
    bool judges_base;      /* its "global" evaluations are of the model the tasks were given */
    bool counts_as_folded; /* a site that is not in its fold missed the round */
} cs_phase;

/* A blob of the round state: what round `round` made under this name. */
typedef struct cs_input {
    const char *name;
    uint32_t round;
} cs_input;

/* A blob that another site's task of an earlier phase of the same round brought. */
typedef struct cs_route {
    char name[CS_WORD_BYTES]; /* of the input it becomes */
    const cs_phase *phase;
    size_t site;                /* which of the participants */
    char output[CS_WORD_BYTES]; /* its name there */
} cs_route;

/* What is on disk when a result is checked or folded. */
typedef struct cs_mode_task {
    const cs_plan *plan;
    const cs_hash *plan_hash;
    const cs_phase *phase;
    uint32_t round;
    const char *model_path; /* the model the tasks were given; NULL where there is none */
} cs_mode_task;

typedef struct cs_mode {
    const char *name;
    /* Writes the phases of the round; 0: the round has none and is passed over. */
    size_t (*phases)(const cs_plan *plan, uint32_t round, const cs_phase *ret[CS_PHASES_MAX]);
    /* Which of `count` sites (their names in order) do the phase, as indices in the order in which they do it. `ret`
     * holds `count`. */
    size_t (*sites)(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count, size_t *ret);
    /* The fewest results a fold of this phase may have. */
    uint32_t (*minimum)(const cs_plan *plan, const cs_phase *phase);
    /* The round state that each task carries. */
    size_t (*inputs)(const cs_plan *plan, uint32_t round, const cs_phase *phase, cs_input ret[CS_INPUTS_MAX]);
    /* What the task of the site `names[site]` is given of what the tasks of other participants brought. NULL where
     * results meet only in folds. */
    size_t (*routes)(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count, size_t site,
                     cs_route ret[CS_INPUTS_MAX]);
    /* The names of the blobs that this site's result brings, in their order. NULL: phase->output, if there is one. */
    size_t (*outputs)(const cs_plan *plan, const cs_phase *phase, const char *const *names, size_t count, size_t site,
                      char ret[CS_OUTPUTS_MAX][CS_WORD_BYTES]);
    /* The most bytes an output may have; `model_size` is 0 where there is no model yet. */
    uint64_t (*output_max_bytes)(const cs_plan *plan, const cs_phase *phase, uint64_t model_size);
    /* Is this output usable? CS_INVALID with the first thing wrong. NULL: the coordinator cannot read it. */
    cs_status (*check)(const cs_mode_task *task, const char *output_path);
    /* Folds contributions (in site name order) to `output_path`; or sets *ret_taken to the index of the one that is
     * the result as it is. Phases that make nothing are never folded. */
    cs_status (*fold)(const cs_mode_task *task, const cs_contribution *contributions, size_t count, size_t threads,
                      const char *output_path, size_t *ret_taken);
} cs_mode;

#define CS_FOLD_WRITTEN SIZE_MAX /* *ret_taken when output_path was written */

extern const cs_mode cs_mode_horizontal;
extern const cs_mode cs_mode_vertical;
const cs_mode *cs_mode_of(const cs_plan *plan);

#endif
