/* The agent: the daemon at a hospital. `run` starts it from the main thread, which then waits for signals. */
#ifndef CS_AGENT_AGENT_H
#define CS_AGENT_AGENT_H

#include "common/base/status.h"

typedef struct cs_agent cs_agent;

typedef struct cs_agent_config {
    const char *state_folder; /* of a site that has joined */
    const char *config_path;  /* site.yaml; NULL: the one in state_folder */
} cs_agent_config;

/* CS_EXISTS when another agent runs in this folder; CS_STATE when the site has not joined; what is wrong with site.yaml
 * by line and column. The coordinator need not be in reach. */
CS_MUST_CHECK cs_status cs_agent_start(const cs_agent_config *config, cs_agent **ret);
/* Ends the session, transfers and workers; what was not acknowledged is taken up at the next start. */
void cs_agent_stop(cs_agent *agent);

#endif
