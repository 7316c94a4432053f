/* Curve25519 over any field arithmetic. A back end defines `fe` (CS_CURVE_LANES field elements side by side), `fe_mask`
 * and the fe_ functions used here, then includes this file once: the algorithms stand in one place and cannot differ.
 *
 * Reduced elements come out of fe_mul, fe_square, fe_reduce and fe_load; fe_add and fe_subtract take reduced ones and
 * give what multiplications and fe_reduce accept; only fe_store gives the canonical form. Nothing branches on a value
 * of the field. LADDER_WIDTH vectors run their ladders in step, POWER_WIDTH their powers: that hides the latency of a
 * multiplication. */
#ifndef CS_ALIGN_ALGORITHMS_H
#define CS_ALIGN_ALGORITHMS_H

#include "client/align/engine.h"
#include "common/crypto/sign.h"

#include <string.h>

/* Vectors that share one inversion. */
#define CHUNK_VECTORS 16
#define CHUNK_POINTS  (CHUNK_VECTORS * CS_CURVE_LANES)

static const uint8_t base_point[CS_POINT_BYTES] = {9};

/* The points of one chunk, filled up with the base point. */
static void load_chunk(fe out[CHUNK_VECTORS], const uint8_t *in, size_t count)
{
    uint8_t tail[CS_CURVE_LANES * CS_POINT_BYTES];
    for (size_t v = 0; v < CHUNK_VECTORS; v++) {
        const size_t first = v * CS_CURVE_LANES;
        if (first + CS_CURVE_LANES <= count) {
            out[v] = fe_load(in + first * CS_POINT_BYTES);
            continue;
        }
        for (size_t lane = 0; lane < CS_CURVE_LANES; lane++)
            memcpy(tail + lane * CS_POINT_BYTES,
                   first + lane < count ? in + (first + lane) * CS_POINT_BYTES : base_point, CS_POINT_BYTES);
        out[v] = fe_load(tail);
    }
}

static void store_chunk(uint8_t *out, const fe in[CHUNK_VECTORS], size_t count)
{
    uint8_t bytes[CS_CURVE_LANES * CS_POINT_BYTES];
    for (size_t first = 0; first < count; first += CS_CURVE_LANES) {
        fe_store(bytes, in[first / CS_CURVE_LANES]);
        memcpy(out + first * CS_POINT_BYTES, bytes, CS_MIN(count - first, (size_t)CS_CURVE_LANES) * CS_POINT_BYTES);
    }
}

static void square_times(fe *x, size_t width, int times)
{
    for (int i = 0; i < times; i++)
        for (size_t w = 0; w < width; w++)
            x[w] = fe_square(x[w]);
}

static void multiply_each(fe *out, const fe *a, const fe *b, size_t width)
{
    for (size_t w = 0; w < width; w++)
        out[w] = fe_mul(a[w], b[w]);
}

/* x^(2^250 - 1) and x^11, the common part of the powers below. */
static void power_2_250_1(fe *ret, fe *ret_11, const fe *x, size_t width)
{
    fe a[POWER_WIDTH], b[POWER_WIDTH], c[POWER_WIDTH];
    const size_t size = width * sizeof *x;
    memcpy(a, x, size);
    square_times(a, width, 1); /* 2 */
    memcpy(b, a, size);
    square_times(b, width, 2);          /* 8 */
    multiply_each(b, b, x, width);      /* 9 */
    multiply_each(ret_11, a, b, width); /* 11 */
    memcpy(a, ret_11, size);
    square_times(a, width, 1);     /* 22 */
    multiply_each(b, a, b, width); /* 31 = 2^5 - 1 */
    static const uint8_t steps[][2] = {{5, 10}, {10, 20}, {20, 40}};
    memcpy(c, b, size); /* 2^5 - 1 */
    fe ten[POWER_WIDTH];
    for (size_t i = 0; i < CS_COUNT(steps); i++) {
        memcpy(a, c, size);
        square_times(a, width, steps[i][0]);
        multiply_each(c, a, c, width); /* 2^steps[i][1] - 1 */
        if (steps[i][1] == 10)
            memcpy(ten, c, size);
    }
    square_times(c, width, 10);
    multiply_each(c, c, ten, width); /* 2^50 - 1 */
    memcpy(b, c, size);
    memcpy(a, c, size);
    square_times(a, width, 50);
    multiply_each(c, a, c, width); /* 2^100 - 1 */
    memcpy(a, c, size);
    square_times(a, width, 100);
    multiply_each(c, a, c, width); /* 2^200 - 1 */
    square_times(c, width, 50);
    multiply_each(ret, c, b, width); /* 2^250 - 1 */
}

/* The Legendre symbol: x^((p-1)/2), (p-1)/2 = 16 (2^250 - 1) + 6. */
static void legendre(fe *ret, const fe *x, size_t width)
{
    fe power[POWER_WIDTH], eleven[POWER_WIDTH], six[POWER_WIDTH];
    power_2_250_1(power, eleven, x, width);
    square_times(power, width, 4);
    for (size_t w = 0; w < width; w++) {
        const fe two = fe_square(x[w]);
        six[w] = fe_mul(fe_square(two), two);
    }
    multiply_each(ret, power, six, width);
}

/* Every element inverted, with one exponentiation for all vectors (P. Montgomery's trick). Zeros become zero. */
static void invert_chunk(fe x[CHUNK_VECTORS])
{
    fe before[CHUNK_VECTORS]; /* before[i] = x[0] … x[i-1], zeros counted as one */
    fe_mask is_zero[CHUNK_VECTORS];
    const fe one = fe_small(1);
    fe all = one;
    for (size_t v = 0; v < CHUNK_VECTORS; v++) {
        is_zero[v] = fe_is_zero(x[v]);
        x[v] = fe_select(is_zero[v], one, x[v]);
        before[v] = all;
        all = fe_mul(all, x[v]);
    }
    fe power, eleven;
    power_2_250_1(&power, &eleven, &all, 1);
    square_times(&power, 1, 5); /* p - 2 = 32 (2^250 - 1) + 11 */
    all = fe_mul(power, eleven);
    for (size_t v = CHUNK_VECTORS; v-- > 0;) {
        const fe inverse = fe_mul(all, before[v]);
        all = fe_mul(all, x[v]);
        x[v] = fe_select(is_zero[v], fe_small(0), inverse);
    }
    cs_crypto_wipe(before, sizeof before);
}

typedef struct ladder_state {
    fe x1, x2, z2, x3, z3;
    fe a, b, da, cb, aa, bb; /* the names of RFC 7748 section 5 */
} ladder_state;

/* One step for several vectors. RFC 7748 swaps (x2, z2) with (x3, z3); DA and CB only trade places then, and nothing
 * after them tells the two apart, so it is enough to choose what is doubled. */
static void ladder_step(ladder_state *states, uint64_t swap)
{
    for (size_t w = 0; w < LADDER_WIDTH; w++) {
        ladder_state *s = &states[w];
        const fe a = fe_add(s->x2, s->z2), b = fe_subtract(s->x2, s->z2);
        const fe c = fe_add(s->x3, s->z3), d = fe_subtract(s->x3, s->z3);
        s->a = fe_select(fe_mask_of(swap), c, a);
        s->b = fe_select(fe_mask_of(swap), d, b);
        s->da = fe_mul(d, a);
        s->cb = fe_mul(c, b);
    }
    for (size_t w = 0; w < LADDER_WIDTH; w++) {
        ladder_state *s = &states[w];
        s->aa = fe_square(s->a);
        s->bb = fe_square(s->b);
        s->x3 = fe_square(fe_add(s->da, s->cb));
        s->z3 = fe_square(fe_subtract(s->da, s->cb));
    }
    for (size_t w = 0; w < LADDER_WIDTH; w++) {
        ladder_state *s = &states[w];
        const fe e = fe_subtract(s->aa, s->bb);
        s->x2 = fe_mul(s->aa, s->bb);
        s->z2 = fe_mul(e, fe_add_small_multiple(s->aa, e));
        s->z3 = fe_mul(s->x1, s->z3);
    }
}

static void double_only(ladder_state *s, uint64_t swap)
{
    const fe x = fe_select(fe_mask_of(swap), s->x3, s->x2), z = fe_select(fe_mask_of(swap), s->z3, s->z2);
    const fe aa = fe_square(fe_add(x, z)), bb = fe_square(fe_subtract(x, z));
    const fe e = fe_subtract(aa, bb);
    s->x2 = fe_mul(aa, bb);
    s->z2 = fe_mul(e, fe_add_small_multiple(aa, e));
}

static void field_ladder(const uint8_t scalar[CS_SCALAR_BYTES], const uint8_t *in, size_t count, uint8_t *out)
{
    fe u[CHUNK_VECTORS], z[CHUNK_VECTORS];
    ladder_state states[LADDER_WIDTH];
    for (size_t first = 0; first < count; first += CHUNK_POINTS) {
        const size_t now = CS_MIN(count - first, (size_t)CHUNK_POINTS);
        load_chunk(u, in + first * CS_POINT_BYTES, now);
        for (size_t v = 0; v < CHUNK_VECTORS; v++)
            z[v] = fe_small(1);
        for (size_t v = 0; v < CHUNK_VECTORS && v * CS_CURVE_LANES < now; v += LADDER_WIDTH) {
            for (size_t w = 0; w < LADDER_WIDTH; w++)
                states[w] = (ladder_state){
                    .x1 = u[v + w], .x2 = fe_small(1), .z2 = fe_small(0), .x3 = u[v + w], .z3 = fe_small(1)};
            uint64_t last = 0;
            for (int bit = 254; bit >= 3; bit--) {
                const uint64_t now_bit = (scalar[bit / 8] >> (bit % 8)) & 1;
                ladder_step(states, last ^ now_bit);
                last = now_bit;
            }
            /* Clamping made the last three bits zero. */
            for (size_t w = 0; w < LADDER_WIDTH; w++) {
                double_only(&states[w], last);
                double_only(&states[w], 0);
                double_only(&states[w], 0);
                u[v + w] = states[w].x2;
                z[v + w] = states[w].z2;
            }
        }
        invert_chunk(z);
        for (size_t v = 0; v < CHUNK_VECTORS; v++)
            u[v] = fe_mul(u[v], z[v]);
        store_chunk(out + first * CS_POINT_BYTES, u, now);
    }
    cs_crypto_wipe(states, sizeof states);
    cs_crypto_wipe(z, sizeof z);
}

/* RFC 9380 section 6.7.1 with Z = 2, without its division: x1 = -J / d, d = 1 + 2 u^2, is a u-coordinate of the curve
 * exactly when g(x1) d^4 = (-J)((J^2 + d^2) - J^2 d) d is a square. d is never zero, because -1/2 is not a square. */
static void field_map(const uint8_t *in, size_t count, uint8_t *out)
{
    fe u[CHUNK_VECTORS], d[CHUNK_VECTORS], square[CHUNK_VECTORS];
    const fe j = fe_small(486662), j2 = fe_square(j), one = fe_small(1);
    const fe minus_j = fe_subtract(fe_small(0), j);
    for (size_t first = 0; first < count; first += CHUNK_POINTS) {
        const size_t now = CS_MIN(count - first, (size_t)CHUNK_POINTS);
        load_chunk(u, in + first * CS_POINT_BYTES, now);
        for (size_t v = 0; v < CHUNK_VECTORS; v++) {
            const fe u2 = fe_square(u[v]);
            /* Reduced again, so that the sums below stay within bounds. */
            d[v] = fe_mul(fe_add(fe_reduce(fe_add(u2, u2)), one), one);
            const fe inner = fe_subtract(fe_reduce(fe_add(j2, fe_square(d[v]))), fe_mul(j2, d[v]));
            square[v] = fe_mul(fe_mul(minus_j, inner), d[v]);
        }
        for (size_t v = 0; v < CHUNK_VECTORS; v += POWER_WIDTH)
            legendre(square + v, square + v, POWER_WIDTH);
        invert_chunk(d);
        for (size_t v = 0; v < CHUNK_VECTORS; v++) {
            const fe x1 = fe_mul(minus_j, d[v]);
            const fe x2 = fe_subtract(fe_reduce(fe_subtract(fe_small(0), x1)), j);
            const fe_mask is_square = fe_is_zero(fe_reduce(fe_subtract(square[v], one)));
            u[v] = fe_select(is_square, x1, fe_reduce(x2));
        }
        store_chunk(out + first * CS_POINT_BYTES, u, now);
    }
}

static void field_check(const uint8_t *in, size_t count, uint8_t *on_curve)
{
    fe u[CHUNK_VECTORS];
    const fe j = fe_small(486662), one = fe_small(1);
    for (size_t first = 0; first < count; first += CHUNK_POINTS) {
        const size_t now = CS_MIN(count - first, (size_t)CHUNK_POINTS);
        load_chunk(u, in + first * CS_POINT_BYTES, now);
        for (size_t v = 0; v < CHUNK_VECTORS && v * CS_CURVE_LANES < now; v += POWER_WIDTH) {
            for (size_t w = v; w < v + POWER_WIDTH; w++) {
                const fe inner = fe_add(fe_mul(u[w], fe_reduce(fe_add(u[w], j))), one);
                u[w] = fe_mul(u[w], inner);
            }
            legendre(u + v, u + v, POWER_WIDTH);
            for (size_t w = v; w < v + POWER_WIDTH; w++) {
                /* -1 says no; 0 and 1 say yes. */
                const fe_mask is_not = fe_is_zero(fe_reduce(fe_add(u[w], one)));
                for (size_t lane = 0; lane < CS_CURVE_LANES && w * CS_CURVE_LANES + lane < now; lane++)
                    on_curve[first + w * CS_CURVE_LANES + lane] = !fe_mask_lane(is_not, lane);
            }
        }
    }
}

#endif
