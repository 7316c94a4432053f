/* Random numbers from the kernel. Called by everything that needs jitter or a name, on any thread. */
#include "common/base/random.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void cs_random_bytes(void *out, size_t size)
{
    uint8_t *bytes = out;
    while (size > 0) {
        const ssize_t got = getrandom(bytes, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            fprintf(stderr, "the kernel has no random numbers to give; the process ends\n");
            abort();
        }
        bytes += got;
        size -= (size_t)got;
    }
}

uint64_t cs_random_below(uint64_t bound)
{
    assert(bound > 0);
    /* Values under 2^64 mod bound would make the small remainders likelier. */
    const uint64_t biased = (0 - bound) % bound;
    uint64_t value = 0;
    do {
        cs_random_bytes(&value, sizeof(value));
    } while (value < biased);
    return value % bound;
}

int64_t cs_backoff_ms(uint32_t attempt, int64_t base_ms, int64_t cap_ms)
{
    int64_t highest = base_ms;
    for (uint32_t i = 0; i < attempt && highest < cap_ms; i++)
        highest = highest > INT64_MAX / 2 ? INT64_MAX : 2 * highest;
    highest = CS_MIN(highest, cap_ms);
    const int64_t lowest = CS_MIN(base_ms / 2, highest);
    return lowest + (int64_t)cs_random_below((uint64_t)(highest - lowest) + 1);
}
