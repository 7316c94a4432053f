/* Patience, counted. Called by job.c when an evaluation has been folded. */
#include "server/engine/stopping.h"

#include <math.h>

bool stopping_is_due(const cs_plan *plan, const cs_round_row *rounds, size_t count)
{
    double best = INFINITY;
    uint32_t without_change = 0;
    if (!plan->training.early_stopping.is_on)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!rounds[i].has_score || (rounds[i].round > 0 && !cs_plan_evaluates(plan, rounds[i].round)))
            continue;
        if (rounds[i].score < best - plan->training.early_stopping.minimum_change) {
            best = rounds[i].score;
            without_change = 0;
        } else {
            without_change++;
        }
    }
    return without_change >= plan->training.early_stopping.patience;
}
