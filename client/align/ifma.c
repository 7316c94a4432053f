/* Curve25519 with AVX-512 IFMA: eight points side by side, one in each 64-bit lane, five limbs of 51 bits. This file
 * alone is compiled for such processors (client/CMakeLists.txt); nothing in it runs before cs_curve_field_ifma has
 * asked the processor. Called through curve.c.
 *
 * vpmadd52{lo,hi}uq multiply the low 52 bits of two lanes and add the low or high 52 bits of the product: limbs must
 * stay below 2^52, and a high half has the weight of two units of the next limb of 51 bits. */
#include "client/align/engine.h"

#if defined(__AVX512IFMA__) && defined(__AVX512F__)

#include <immintrin.h>

#define CS_CURVE_LANES 8
#define LADDER_WIDTH   2
#define POWER_WIDTH    4

#define LIMB_BITS 51
#define LIMB_MASK (((uint64_t)1 << LIMB_BITS) - 1)

typedef __m512i vec;
/* Every function but the multiplications' insides gives limbs below 2^51 + 2^15. */
typedef struct fe {
    vec limb[5];
} fe;
typedef __mmask8 fe_mask;

#define INLINE static inline __attribute__((always_inline))

INLINE vec all_lanes(uint64_t value)
{
    return _mm512_set1_epi64((long long)value);
}

INLINE vec add(vec a, vec b)
{
    return _mm512_add_epi64(a, b);
}

INLINE vec twice(vec a)
{
    return _mm512_add_epi64(a, a);
}

INLINE vec low(vec sum, vec a, vec b)
{
    return _mm512_madd52lo_epu64(sum, a, b);
}

INLINE vec high(vec sum, vec a, vec b)
{
    return _mm512_madd52hi_epu64(sum, a, b);
}

INLINE fe fe_small(uint64_t value)
{
    const vec zero = _mm512_setzero_si512();
    return (fe){{all_lanes(value), zero, zero, zero, zero}};
}

INLINE fe_mask fe_mask_of(uint64_t bit)
{
    return (fe_mask)(0 - bit);
}

INLINE bool fe_mask_lane(fe_mask mask, size_t lane)
{
    return (mask >> lane & 1) != 0;
}

INLINE fe fe_select(fe_mask mask, fe yes, fe no)
{
    for (int i = 0; i < 5; i++)
        no.limb[i] = _mm512_mask_blend_epi64(mask, no.limb[i], yes.limb[i]);
    return no;
}

/* Limbs below 2^61 become limbs below 2^51 + 2^15: every limb hands its upper bits on at the same time. */
INLINE fe carry(vec r0, vec r1, vec r2, vec r3, vec r4)
{
    const vec mask = all_lanes(LIMB_MASK);
    const vec c0 = _mm512_srli_epi64(r0, LIMB_BITS), c1 = _mm512_srli_epi64(r1, LIMB_BITS),
              c2 = _mm512_srli_epi64(r2, LIMB_BITS), c3 = _mm512_srli_epi64(r3, LIMB_BITS),
              c4 = _mm512_srli_epi64(r4, LIMB_BITS);
    return (fe){{low(_mm512_and_si512(r0, mask), c4, all_lanes(19)), add(_mm512_and_si512(r1, mask), c0),
                 add(_mm512_and_si512(r2, mask), c1), add(_mm512_and_si512(r3, mask), c2),
                 add(_mm512_and_si512(r4, mask), c3)}};
}

INLINE fe fe_reduce(fe a)
{
    return carry(a.limb[0], a.limb[1], a.limb[2], a.limb[3], a.limb[4]);
}

INLINE fe fe_add(fe a, fe b)
{
    return carry(add(a.limb[0], b.limb[0]), add(a.limb[1], b.limb[1]), add(a.limb[2], b.limb[2]),
                 add(a.limb[3], b.limb[3]), add(a.limb[4], b.limb[4]));
}

/* a - b + 2p */
INLINE fe fe_subtract(fe a, fe b)
{
    const vec p0 = all_lanes(2 * (LIMB_MASK - 18)), p = all_lanes(2 * LIMB_MASK);
    return carry(add(a.limb[0], _mm512_sub_epi64(p0, b.limb[0])), add(a.limb[1], _mm512_sub_epi64(p, b.limb[1])),
                 add(a.limb[2], _mm512_sub_epi64(p, b.limb[2])), add(a.limb[3], _mm512_sub_epi64(p, b.limb[3])),
                 add(a.limb[4], _mm512_sub_epi64(p, b.limb[4])));
}

/* sum + 19 upper: 2^255 = 19. `upper` is below 2^56. */
INLINE vec fold(vec sum, vec upper)
{
    return add(add(sum, upper), add(_mm512_slli_epi64(upper, 4), twice(upper)));
}

INLINE fe fe_mul(fe x, fe y)
{
    const vec *a = x.limb, *b = y.limb;
    const vec zero = _mm512_setzero_si512();
    vec l0 = low(zero, a[0], b[0]);
    vec l1 = low(low(zero, a[0], b[1]), a[1], b[0]);
    vec l2 = low(low(low(zero, a[0], b[2]), a[1], b[1]), a[2], b[0]);
    vec l3 = low(low(low(low(zero, a[0], b[3]), a[1], b[2]), a[2], b[1]), a[3], b[0]);
    vec l4 = low(low(low(low(low(zero, a[0], b[4]), a[1], b[3]), a[2], b[2]), a[3], b[1]), a[4], b[0]);
    vec l5 = low(low(low(low(zero, a[1], b[4]), a[2], b[3]), a[3], b[2]), a[4], b[1]);
    vec l6 = low(low(low(zero, a[2], b[4]), a[3], b[3]), a[4], b[2]);
    vec l7 = low(low(zero, a[3], b[4]), a[4], b[3]);
    vec l8 = low(zero, a[4], b[4]);
    vec h0 = high(zero, a[0], b[0]);
    vec h1 = high(high(zero, a[0], b[1]), a[1], b[0]);
    vec h2 = high(high(high(zero, a[0], b[2]), a[1], b[1]), a[2], b[0]);
    vec h3 = high(high(high(high(zero, a[0], b[3]), a[1], b[2]), a[2], b[1]), a[3], b[0]);
    vec h4 = high(high(high(high(high(zero, a[0], b[4]), a[1], b[3]), a[2], b[2]), a[3], b[1]), a[4], b[0]);
    vec h5 = high(high(high(high(zero, a[1], b[4]), a[2], b[3]), a[3], b[2]), a[4], b[1]);
    vec h6 = high(high(high(zero, a[2], b[4]), a[3], b[3]), a[4], b[2]);
    vec h7 = high(high(zero, a[3], b[4]), a[4], b[3]);
    vec h8 = high(zero, a[4], b[4]);
    return carry(fold(l0, add(l5, twice(h4))), fold(add(l1, twice(h0)), add(l6, twice(h5))),
                 fold(add(l2, twice(h1)), add(l7, twice(h6))), fold(add(l3, twice(h2)), add(l8, twice(h7))),
                 fold(add(l4, twice(h3)), twice(h8)));
}

INLINE fe fe_square(fe x)
{
    const vec *a = x.limb;
    const vec zero = _mm512_setzero_si512();
    /* Products of two different limbs count twice; a doubled limb would not fit into 52 bits, so the sums are doubled.
     */
    vec l1 = low(zero, a[0], a[1]), l2 = low(zero, a[0], a[2]);
    vec l3 = low(low(zero, a[0], a[3]), a[1], a[2]), l4 = low(low(zero, a[0], a[4]), a[1], a[3]);
    vec l5 = low(low(zero, a[1], a[4]), a[2], a[3]), l6 = low(zero, a[2], a[4]), l7 = low(zero, a[3], a[4]);
    vec h1 = high(zero, a[0], a[1]), h2 = high(zero, a[0], a[2]);
    vec h3 = high(high(zero, a[0], a[3]), a[1], a[2]), h4 = high(high(zero, a[0], a[4]), a[1], a[3]);
    vec h5 = high(high(zero, a[1], a[4]), a[2], a[3]), h6 = high(zero, a[2], a[4]), h7 = high(zero, a[3], a[4]);
    vec l0 = low(zero, a[0], a[0]), h0 = high(zero, a[0], a[0]);
    l2 = low(twice(l2), a[1], a[1]);
    h2 = high(twice(h2), a[1], a[1]);
    l4 = low(twice(l4), a[2], a[2]);
    h4 = high(twice(h4), a[2], a[2]);
    l6 = low(twice(l6), a[3], a[3]);
    h6 = high(twice(h6), a[3], a[3]);
    vec l8 = low(zero, a[4], a[4]), h8 = high(zero, a[4], a[4]);
    h1 = twice(h1), h3 = twice(h3), h5 = twice(h5), h7 = twice(h7);
    return carry(fold(l0, twice(add(l5, h4))), fold(twice(add(l1, h0)), add(l6, twice(h5))),
                 fold(add(l2, twice(h1)), twice(add(l7, h6))), fold(twice(add(l3, h2)), add(l8, twice(h7))),
                 fold(add(l4, twice(h3)), twice(h8)));
}

/* a + 121665 e */
INLINE fe fe_add_small_multiple(fe a, fe e)
{
    const vec factor = all_lanes(121665), zero = _mm512_setzero_si512();
    const vec h0 = high(zero, e.limb[0], factor), h1 = high(zero, e.limb[1], factor),
              h2 = high(zero, e.limb[2], factor), h3 = high(zero, e.limb[3], factor),
              h4 = high(zero, e.limb[4], factor);
    return carry(low(low(a.limb[0], e.limb[0], factor), h4, all_lanes(38)),
                 add(low(a.limb[1], e.limb[1], factor), twice(h0)), add(low(a.limb[2], e.limb[2], factor), twice(h1)),
                 add(low(a.limb[3], e.limb[3], factor), twice(h2)), add(low(a.limb[4], e.limb[4], factor), twice(h3)));
}

/* Where the words of eight points of four words lie. */
INLINE vec word_places(void)
{
    return _mm512_set_epi64(28, 24, 20, 16, 12, 8, 4, 0);
}

INLINE fe fe_load(const uint8_t *bytes)
{
    const vec mask = all_lanes(LIMB_MASK), places = word_places();
    const vec w0 = _mm512_i64gather_epi64(places, bytes, 8), w1 = _mm512_i64gather_epi64(places, bytes + 8, 8),
              w2 = _mm512_i64gather_epi64(places, bytes + 16, 8), w3 = _mm512_i64gather_epi64(places, bytes + 24, 8);
    const vec both1 = _mm512_or_si512(_mm512_srli_epi64(w0, 51), _mm512_slli_epi64(w1, 13)),
              both2 = _mm512_or_si512(_mm512_srli_epi64(w1, 38), _mm512_slli_epi64(w2, 26)),
              both3 = _mm512_or_si512(_mm512_srli_epi64(w2, 25), _mm512_slli_epi64(w3, 39));
    return (fe){{_mm512_and_si512(w0, mask), _mm512_and_si512(both1, mask), _mm512_and_si512(both2, mask),
                 _mm512_and_si512(both3, mask), _mm512_and_si512(_mm512_srli_epi64(w3, 12), mask)}};
}

/* The one representative below p. */
INLINE fe canonical(fe a)
{
    const vec mask = all_lanes(LIMB_MASK);
    a = fe_reduce(fe_reduce(a));
    vec over = all_lanes(19); /* a + 19 reaches 2^255 exactly when a >= p */
    for (int i = 0; i < 5; i++)
        over = _mm512_srli_epi64(add(a.limb[i], over), LIMB_BITS);
    over = low(_mm512_setzero_si512(), over, all_lanes(19));
    for (int i = 0; i < 5; i++) {
        over = add(over, a.limb[i]);
        a.limb[i] = _mm512_and_si512(over, mask);
        over = _mm512_srli_epi64(over, LIMB_BITS);
    }
    return a;
}

INLINE void fe_store(uint8_t *bytes, fe a)
{
    a = canonical(a);
    const vec places = word_places();
    _mm512_i64scatter_epi64(bytes, places, _mm512_or_si512(a.limb[0], _mm512_slli_epi64(a.limb[1], 51)), 8);
    _mm512_i64scatter_epi64(bytes + 8, places,
                            _mm512_or_si512(_mm512_srli_epi64(a.limb[1], 13), _mm512_slli_epi64(a.limb[2], 38)), 8);
    _mm512_i64scatter_epi64(bytes + 16, places,
                            _mm512_or_si512(_mm512_srli_epi64(a.limb[2], 26), _mm512_slli_epi64(a.limb[3], 25)), 8);
    _mm512_i64scatter_epi64(bytes + 24, places,
                            _mm512_or_si512(_mm512_srli_epi64(a.limb[3], 39), _mm512_slli_epi64(a.limb[4], 12)), 8);
}

INLINE fe_mask fe_is_zero(fe a)
{
    a = canonical(a);
    const vec any = _mm512_or_si512(_mm512_or_si512(_mm512_or_si512(a.limb[0], a.limb[1]), a.limb[2]),
                                    _mm512_or_si512(a.limb[3], a.limb[4]));
    return _mm512_testn_epi64_mask(any, any);
}

#include "client/align/algorithms.h"

static const cs_curve_field field_ifma = {.ladder = field_ladder, .map = field_map, .check = field_check};

const cs_curve_field *cs_curve_field_ifma(void)
{
    return __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512f") ? &field_ifma : NULL;
}

#else

const cs_curve_field *cs_curve_field_ifma(void)
{
    return NULL;
}

#endif
