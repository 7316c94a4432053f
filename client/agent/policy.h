/* What the site's configuration says about a plan, before any person looks, and what the plan would do here, in words.
 * The coordinator cannot override either. Any thread. */
#ifndef CS_AGENT_POLICY_H
#define CS_AGENT_POLICY_H

#include "common/config/site.h"

#define CS_POLICY_REASON_BYTES 768

typedef enum cs_policy_decision {
    CS_POLICY_ASKS = 0, /* no rule fits: a person must approve or refuse */
    CS_POLICY_APPROVED, /* by policy.approve[rule] */
    CS_POLICY_REFUSED   /* it cannot run here: not invited, or no such data set */
} cs_policy_decision;

typedef struct cs_policy_verdict {
    cs_policy_decision decision;
    size_t rule;                         /* of CS_POLICY_APPROVED, from 0 */
    char reason[CS_POLICY_REASON_BYTES]; /* one sentence for the person; rules are counted from 1 in it */
} cs_policy_verdict;

/* `invited_count`: sites that the coordinator offers the job to, as it says; never trusted beyond the plan's own
 * minimum. */
void cs_policy_decide(const cs_site_config *config, const cs_plan *plan, size_t invited_count, cs_policy_verdict *ret);

/* Appends what the plan would do here, one fact a line: data set, columns, label, model, rounds, what is sent and how
 * much, what is evaluated, with how many others. No cell of the data is looked at. */
void cs_plan_summary(const cs_plan *plan, const cs_site_config *config, cs_buffer *out);

#endif
