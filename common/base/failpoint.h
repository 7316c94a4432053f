/* Named places where tests kill, fail or delay the process. Compiled in when CS_WITH_FAILPOINTS is defined (presets
 * dev, asan, tsan, clang), nothing otherwise.
 * CONSILIUM_FAILPOINTS="engine.commit=kill@3;blobs.finish=error;worker.step=sleep:50" is read once; "@n": at the n-th
 * passage only. */
#ifndef CS_BASE_FAILPOINT_H
#define CS_BASE_FAILPOINT_H

#include "common/base/status.h"

#ifdef CS_WITH_FAILPOINTS
/* A time that belongs to the network: keepalive, silence. CONSILIUM_NETWORK_PACE=25 makes all of them 25 times shorter,
 * so that tests see in seconds what a line does in minutes, in the same proportions. */
int64_t cs_network_ms(int64_t milliseconds);
/* CS_OK, or CS_INTERNAL "failpoint NAME" where the action is `error`. `kill` is SIGKILL to the process itself. */
cs_status cs_failpoint(const char *name);
#else
static inline int64_t cs_network_ms(int64_t milliseconds)
{
    return milliseconds;
}
static inline cs_status cs_failpoint(const char *name)
{
    (void)name;
    return CS_OK;
}
#endif

/* In functions that return cs_status. */
#define CS_FAILPOINT(name) CS_TRY(cs_failpoint(name))

/* Tests: replaces what the environment said. NULL: none. CS_INVALID on a bad text or when not compiled in. */
CS_MUST_CHECK cs_status cs_failpoint_configure(const char *text);

#endif
