/* The one clock. Nothing else in the tree asks the system for the time or sleeps; tests put a fake one in its place.
 * Any thread. */
#ifndef CS_BASE_CLOCK_H
#define CS_BASE_CLOCK_H

#include "common/base/bytes.h"

#include <pthread.h>

/* Does not jump; for deadlines and durations. */
int64_t cs_clock_monotonic_ms(void);
int64_t cs_clock_monotonic_us(void);
/* Wall time in UTC since 1970; for certificates, logs and records only. */
int64_t cs_clock_wall_ms(void);

#define CS_TIME_TEXT_BYTES 32
/* "2026-03-01T10:22:31.412Z" */
void cs_clock_format(int64_t wall_ms, char out[CS_TIME_TEXT_BYTES]);

/* Condition variables that wait on the monotonic clock. `until_ms` < 0: for ever. Returns false on time-out; true
 * means "look again", signalled or not. */
void cs_condition_init(pthread_cond_t *condition);
bool cs_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t until_ms);
/* For back-off and polling of other processes; not for tests of our own threads. */
void cs_sleep_ms(int64_t milliseconds);

/* From now on both clocks stand still at the given values and move only by cs_clock_fake_advance. Tests only. */
void cs_clock_fake(int64_t monotonic_ms, int64_t wall_ms);
void cs_clock_fake_advance(int64_t milliseconds);
void cs_clock_real(void);

#endif
