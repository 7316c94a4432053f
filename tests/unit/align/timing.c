/* Does the time of a mask depend on its scalar? Welch's t test between one fixed scalar and random ones, in random
 * turns, as in "Dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede 2017). A machine that does other things
 * makes single measurements late, never early, so the slow part of both classes is cut off at a common limit, and a
 * difference counts only when it shows every time it is looked for. A control that does depend on the scalar must be
 * found each time. */
#include "client/align/curve.h"

#include "common/crypto/sign.h"
#include "tests/unit/place.h"

#include <math.h>
#include <time.h>

#define POINTS       16 /* the wider engine's two vectors */
#define MEASUREMENTS 3000
#define LOOKS        6
#define CLEAR        8.0 /* |t| of a leak that is there; 4.5 is the usual suspicion */

typedef void (*subject)(const uint8_t scalar[CS_SCALAR_BYTES]);

static uint8_t points[POINTS * CS_POINT_BYTES], results[POINTS * CS_POINT_BYTES];

static void portable(const uint8_t scalar[CS_SCALAR_BYTES])
{
    cs_curve_x25519(CS_CURVE_PORTABLE, scalar, points, 2, results);
}

static void ifma(const uint8_t scalar[CS_SCALAR_BYTES])
{
    cs_curve_x25519(CS_CURVE_IFMA, scalar, points, POINTS, results);
}

static double nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Some work for each set bit. */
static void work_for_bits(const uint8_t scalar[CS_SCALAR_BYTES], uint64_t repeats)
{
    volatile uint64_t sum = 1;
    for (int bit = 0; bit < 255; bit++)
        if (scalar[bit / 8] >> (bit % 8) & 1)
            for (uint64_t i = 0; i < repeats; i++)
                sum = sum * 3 + 1;
}

static double quickest(subject subject, const uint8_t scalar[CS_SCALAR_BYTES])
{
    double best = INFINITY;
    for (int i = 0; i < 100; i++) {
        const double start = nanoseconds();
        subject(scalar);
        best = fmin(best, nanoseconds() - start);
    }
    return best;
}

static void hundred_times(const uint8_t scalar[CS_SCALAR_BYTES])
{
    work_for_bits(scalar, 100);
}

/* What an implementation would do that adds only where a bit is set: a tenth more time when all of them are, so a
 * twentieth for random ones, whatever the compiler and its sanitizers make of both. */
static void leaky(const uint8_t scalar[CS_SCALAR_BYTES])
{
    static uint64_t repeats;
    if (repeats == 0) {
        uint8_t ones[CS_SCALAR_BYTES];
        memset(ones, 0xff, sizeof ones);
        repeats = 1 + (uint64_t)(100 * quickest(portable, ones) / 10 / quickest(hundred_times, ones));
    }
    portable(scalar);
    work_for_bits(scalar, repeats);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Welch's t over the measurements below the limit. */
static double welch(const double *times, const uint8_t *classes, double limit)
{
    double sum[2] = {0}, squares[2] = {0}, count[2] = {0};
    for (size_t i = 0; i < MEASUREMENTS; i++) {
        if (times[i] > limit)
            continue;
        sum[classes[i]] += times[i];
        squares[classes[i]] += times[i] * times[i];
        count[classes[i]]++;
    }
    double mean[2], error[2];
    for (int c = 0; c < 2; c++) {
        if (count[c] < MEASUREMENTS / 8.0)
            return count[1 - c] > MEASUREMENTS / 4.0 ? INFINITY : 0; /* the limit itself tells the classes apart */
        mean[c] = sum[c] / count[c];
        error[c] = (squares[c] / count[c] - mean[c] * mean[c]) / count[c];
    }
    return fabs(mean[0] - mean[1]) / sqrt(error[0] + error[1] + 1e-9);
}

static double look(subject subject)
{
    static double times[MEASUREMENTS], sorted[MEASUREMENTS];
    static uint8_t classes[MEASUREMENTS], scalars[MEASUREMENTS][CS_SCALAR_BYTES];
    cs_crypto_random(classes, sizeof classes);
    cs_crypto_random(scalars, sizeof scalars);
    cs_crypto_random(points, sizeof points);
    for (size_t i = 0; i < MEASUREMENTS; i++) {
        classes[i] &= 1;
        if (classes[i] == 0)
            memset(scalars[i], 0, CS_SCALAR_BYTES); /* clamped: bit 254 alone */
    }
    for (size_t i = 0; i < MEASUREMENTS; i++) {
        const double start = nanoseconds();
        subject(scalars[i]);
        times[i] = nanoseconds() - start;
    }
    memcpy(sorted, times, sizeof times);
    qsort(sorted, MEASUREMENTS, sizeof *sorted, compare);
    return welch(times, classes, sorted[MEASUREMENTS / 2]);
}

/* The least |t| of the looks: noise is not there every time. */
static double least(subject subject, const char *name)
{
    double lowest = INFINITY;
    for (int i = 0; i < LOOKS; i++) {
        const double t = look(subject);
        print_message("%s: |t| = %.1f\n", name, t);
        lowest = fmin(lowest, t);
        if (lowest < CLEAR / 2)
            break;
    }
    return lowest;
}

static void the_portable_mask_takes_no_longer_for_some_scalars(void **state)
{
    (void)state;
    assert_true(least(portable, "portable") < CLEAR);
}

static void the_ifma_mask_takes_no_longer_for_some_scalars(void **state)
{
    (void)state;
    if (cs_curve_best() != CS_CURVE_IFMA) {
        print_message("not run: this processor has no AVX-512 IFMA\n");
        skip();
    }
    assert_true(least(ifma, "avx512ifma") < CLEAR);
}

static void a_mask_that_does_take_longer_is_found_out_every_time(void **state)
{
    (void)state;
    assert_true(least(leaky, "leaky control") > CLEAR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_portable_mask_takes_no_longer_for_some_scalars),
        cmocka_unit_test(the_ifma_mask_takes_no_longer_for_some_scalars),
        cmocka_unit_test(a_mask_that_does_take_longer_is_found_out_every_time),
    };
    if (cs_crypto_start() != CS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
