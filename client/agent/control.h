/* The agent's Unix socket, STATE/control.sock: one ControlRequest and one ControlAnswer a connection. The listener has
 * a thread of its own; commands ask from their main thread. */
#ifndef CS_AGENT_CONTROL_H
#define CS_AGENT_CONTROL_H

#include "common/wire/wire.h"

#define CS_CONTROL_SOCKET "control.sock"
/* For a request to arrive, and for the answer: everything is on this machine. */
#define CS_CONTROL_TIMEOUT_MS 10000

typedef struct cs_control cs_control;
/* `answer` is called on the control thread; the answer lives in the arena. */
CS_MUST_CHECK cs_status cs_control_start(const char *state_folder,
                                         const Consilium__V1__ControlAnswer *(*answer)(
                                             void *self, const Consilium__V1__ControlRequest *request, cs_arena *arena),
                                         void *self, cs_control **ret);
void cs_control_stop(cs_control *control);

/* Asks the running agent. CS_UNAVAILABLE when none runs; what the agent refuses comes back as its status and sentence.
 */
CS_MUST_CHECK cs_status cs_control_ask(const char *state_folder, const Consilium__V1__ControlRequest *request,
                                       cs_arena *arena, Consilium__V1__ControlAnswer **ret);

#endif
