/* The worker's side of worker.proto: one Configure, then tasks, until the agent's end closes. Main thread. */
#ifndef CS_WORKER_SESSION_H
#define CS_WORKER_SESSION_H

#include "common/base/status.h"

/* The descriptor an agent gives its worker. */
#define CS_WORKER_FD 3

/* Serves tasks on `fd` until the other end closes: CS_OK then. Everything that fails a task is told to the agent and is
 * no error here; what fails the worker as a whole is told too, and returned. */
CS_MUST_CHECK cs_status cs_worker_session(int fd);

#endif
