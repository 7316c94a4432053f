/* The commands that ask the running agent, and how their answers look. Main thread. */
#ifndef CS_AGENT_COMMANDS_H
#define CS_AGENT_COMMANDS_H

#include "common/base/command.h"

#define CS_CLIENT_DEFAULT_STATE "/var/lib/consilium-client"

const char *client_state_folder(const cs_arguments *arguments);
/* NULL: site.yaml in the state directory. */
const char *client_config_path(const cs_arguments *arguments);

int client_status(const cs_arguments *arguments);
int client_plan_list(const cs_arguments *arguments);
int client_plan_show(const cs_arguments *arguments);
int client_plan_approve(const cs_arguments *arguments);
int client_plan_refuse(const cs_arguments *arguments);
int client_roster_show(const cs_arguments *arguments);
int client_roster_approve(const cs_arguments *arguments);
int client_align(const cs_arguments *arguments); /* dry_run.c */

#endif
