/* The one clock, and the fake one that tests put in its place. Called by everything, on any thread. */
#include "common/base/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static atomic_bool is_fake;
static atomic_int_fast64_t fake_monotonic_ms;
static atomic_int_fast64_t fake_wall_ms;

static int64_t read_us(clockid_t clock)
{
    struct timespec now = {0};
    if (clock_gettime(clock, &now) != 0)
        abort();
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t cs_clock_monotonic_us(void)
{
    return atomic_load(&is_fake) ? (int64_t)atomic_load(&fake_monotonic_ms) * 1000 : read_us(CLOCK_MONOTONIC);
}

int64_t cs_clock_monotonic_ms(void)
{
    return cs_clock_monotonic_us() / 1000;
}

int64_t cs_clock_wall_ms(void)
{
    return atomic_load(&is_fake) ? (int64_t)atomic_load(&fake_wall_ms) : read_us(CLOCK_REALTIME) / 1000;
}

void cs_clock_format(int64_t wall_ms, char out[CS_TIME_TEXT_BYTES])
{
    int64_t milliseconds = wall_ms % 1000;
    if (milliseconds < 0)
        milliseconds += 1000;
    const time_t seconds = (time_t)((wall_ms - milliseconds) / 1000);
    struct tm utc = {0};
    if (gmtime_r(&seconds, &utc) == NULL || utc.tm_year < -1900 || utc.tm_year > 9999 - 1900) {
        snprintf(out, CS_TIME_TEXT_BYTES, "time-out-of-range");
        return;
    }
    const size_t size = strftime(out, CS_TIME_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + size, CS_TIME_TEXT_BYTES - size, ".%03dZ", (int)milliseconds);
}

void cs_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0 || pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(condition, &attributes) != 0)
        abort();
    pthread_condattr_destroy(&attributes);
}

static struct timespec timespec_of_us(int64_t us)
{
    return (struct timespec){.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
}

static bool wait_until_us(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t until_us)
{
    const struct timespec until = timespec_of_us(until_us);
    const int result = pthread_cond_timedwait(condition, mutex, &until);
    if (result != 0 && result != ETIMEDOUT)
        abort();
    return result == 0;
}

/* The system knows nothing of the fake clock, so its waiters look at it every millisecond: at the clock, and at what
 * they wait for, since a signal between two such waits reaches nobody. */
#define FAKE_LOOK_US 1000

bool cs_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t until_ms)
{
    if (until_ms < 0) {
        if (pthread_cond_wait(condition, mutex) != 0)
            abort();
        return true;
    }
    if (atomic_load(&is_fake)) {
        if (cs_clock_monotonic_ms() >= until_ms)
            return false;
        wait_until_us(condition, mutex, read_us(CLOCK_MONOTONIC) + FAKE_LOOK_US);
        return true;
    }
    const int64_t latest_ms = INT64_MAX / 1000;
    return wait_until_us(condition, mutex, CS_MIN(until_ms, latest_ms) * 1000);
}

static void sleep_us(int64_t us)
{
    const struct timespec until = timespec_of_us(read_us(CLOCK_MONOTONIC) + us);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

void cs_sleep_ms(int64_t milliseconds)
{
    if (milliseconds <= 0)
        return;
    if (!atomic_load(&is_fake)) {
        sleep_us(CS_MIN(milliseconds, INT64_MAX / 2000) * 1000);
        return;
    }
    const int64_t until_ms = cs_clock_monotonic_ms() + milliseconds;
    while (atomic_load(&is_fake) && cs_clock_monotonic_ms() < until_ms)
        sleep_us(FAKE_LOOK_US);
}

void cs_clock_fake(int64_t monotonic_ms, int64_t wall_ms)
{
    atomic_store(&fake_monotonic_ms, monotonic_ms);
    atomic_store(&fake_wall_ms, wall_ms);
    atomic_store(&is_fake, true);
}

void cs_clock_fake_advance(int64_t milliseconds)
{
    atomic_fetch_add(&fake_wall_ms, milliseconds);
    atomic_fetch_add(&fake_monotonic_ms, milliseconds);
}

void cs_clock_real(void)
{
    atomic_store(&is_fake, false);
}
