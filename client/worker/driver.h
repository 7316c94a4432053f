/* Training and evaluation from files, without any agent: a hospital alone, all rows in one place, or a given model.
 * Called by main.c; main thread. */
#ifndef CS_WORKER_DRIVER_H
#define CS_WORKER_DRIVER_H

#include "common/base/command.h"

#define CS_DRIVER_SITES_MAX 64

/* Reads its options from the command line; an exit code. */
int cs_worker_drive(const cs_arguments *arguments);

#endif
