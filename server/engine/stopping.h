/* When a job ends before its last round: a pure function of the scores that are stored, so that a coordinator that was
 * killed comes to the same decision. Called by job.c; any thread. */
#ifndef CS_ENGINE_STOPPING_H
#define CS_ENGINE_STOPPING_H

#include "common/config/plan.h"
#include "server/store/jobs.h"

/* `rounds` in ascending order; those without a score, and those that were evaluated only by the way (the plan's `every`
 * does not name them), say nothing. True once `patience` evaluations in a row have not been better than the best before
 * them by more than `minimum_change` (Prechelt 1998). A plan without early stopping never stops early. */
bool stopping_is_due(const cs_plan *plan, const cs_round_row *rounds, size_t count);

#endif
