/* Curve25519 in plain C: five limbs of 51 bits in 64, products in 128. One point at a time. Called through curve.c. */
#include "client/align/engine.h"

#define CS_CURVE_LANES 1
#define LADDER_WIDTH   1
#define POWER_WIDTH    1

#define LIMB_BITS 51
#define LIMB_MASK (((uint64_t)1 << LIMB_BITS) - 1)

/* Reduced: limbs below 2^51 + 2^14. Multiplications take limbs up to 2^54. */
typedef struct fe {
    uint64_t limb[5];
} fe;
typedef uint64_t fe_mask; /* all ones or zero */
__extension__ typedef unsigned __int128 wide;

#define INLINE static inline __attribute__((always_inline))

INLINE fe fe_small(uint64_t value)
{
    return (fe){{value}};
}

INLINE fe_mask fe_mask_of(uint64_t bit)
{
    return 0 - bit;
}

INLINE bool fe_mask_lane(fe_mask mask, size_t lane)
{
    (void)lane;
    return mask != 0;
}

INLINE fe fe_select(fe_mask mask, fe yes, fe no)
{
    for (int i = 0; i < 5; i++)
        no.limb[i] ^= mask & (no.limb[i] ^ yes.limb[i]);
    return no;
}

INLINE fe fe_add(fe a, fe b)
{
    for (int i = 0; i < 5; i++)
        a.limb[i] += b.limb[i];
    return a;
}

/* a - b + 4p, for b with limbs up to 2^53 - 76. */
INLINE fe fe_subtract(fe a, fe b)
{
    a.limb[0] += 4 * (LIMB_MASK - 18) - b.limb[0];
    for (int i = 1; i < 5; i++)
        a.limb[i] += 4 * LIMB_MASK - b.limb[i];
    return a;
}

INLINE fe fe_reduce(fe a)
{
    const uint64_t c0 = a.limb[0] >> LIMB_BITS, c1 = a.limb[1] >> LIMB_BITS, c2 = a.limb[2] >> LIMB_BITS,
                   c3 = a.limb[3] >> LIMB_BITS, c4 = a.limb[4] >> LIMB_BITS;
    return (fe){{(a.limb[0] & LIMB_MASK) + 19 * c4, (a.limb[1] & LIMB_MASK) + c0, (a.limb[2] & LIMB_MASK) + c1,
                 (a.limb[3] & LIMB_MASK) + c2, (a.limb[4] & LIMB_MASK) + c3}};
}

INLINE fe carry_wide(wide r0, wide r1, wide r2, wide r3, wide r4)
{
    fe out;
    r1 += (uint64_t)(r0 >> LIMB_BITS);
    out.limb[0] = (uint64_t)r0 & LIMB_MASK;
    r2 += (uint64_t)(r1 >> LIMB_BITS);
    out.limb[1] = (uint64_t)r1 & LIMB_MASK;
    r3 += (uint64_t)(r2 >> LIMB_BITS);
    out.limb[2] = (uint64_t)r2 & LIMB_MASK;
    r4 += (uint64_t)(r3 >> LIMB_BITS);
    out.limb[3] = (uint64_t)r3 & LIMB_MASK;
    out.limb[4] = (uint64_t)r4 & LIMB_MASK;
    /* The last carry, times 19, can pass 2^64 when the limbs were near their bound. */
    const wide fold = (wide)(uint64_t)(r4 >> LIMB_BITS) * 19 + out.limb[0];
    out.limb[0] = (uint64_t)fold & LIMB_MASK;
    out.limb[1] += (uint64_t)(fold >> LIMB_BITS);
    return out;
}

INLINE fe fe_mul(fe x, fe y)
{
    const uint64_t *a = x.limb, *b = y.limb;
    const uint64_t b1 = 19 * b[1], b2 = 19 * b[2], b3 = 19 * b[3], b4 = 19 * b[4];
    return carry_wide((wide)a[0] * b[0] + (wide)a[1] * b4 + (wide)a[2] * b3 + (wide)a[3] * b2 + (wide)a[4] * b1,
                      (wide)a[0] * b[1] + (wide)a[1] * b[0] + (wide)a[2] * b4 + (wide)a[3] * b3 + (wide)a[4] * b2,
                      (wide)a[0] * b[2] + (wide)a[1] * b[1] + (wide)a[2] * b[0] + (wide)a[3] * b4 + (wide)a[4] * b3,
                      (wide)a[0] * b[3] + (wide)a[1] * b[2] + (wide)a[2] * b[1] + (wide)a[3] * b[0] + (wide)a[4] * b4,
                      (wide)a[0] * b[4] + (wide)a[1] * b[3] + (wide)a[2] * b[2] + (wide)a[3] * b[1] +
                          (wide)a[4] * b[0]);
}

INLINE fe fe_square(fe x)
{
    const uint64_t *a = x.limb;
    const uint64_t d0 = 2 * a[0], d1 = 2 * a[1], a3 = 19 * a[3], a4 = 19 * a[4];
    return carry_wide((wide)a[0] * a[0] + (wide)d1 * a4 + (wide)(2 * a[2]) * a3,
                      (wide)d0 * a[1] + (wide)(2 * a[2]) * a4 + (wide)a[3] * a3,
                      (wide)d0 * a[2] + (wide)a[1] * a[1] + (wide)(2 * a[3]) * a4,
                      (wide)d0 * a[3] + (wide)d1 * a[2] + (wide)a[4] * a4,
                      (wide)d0 * a[4] + (wide)d1 * a[3] + (wide)a[2] * a[2]);
}

/* a + 121665 e */
INLINE fe fe_add_small_multiple(fe a, fe e)
{
    return carry_wide((wide)e.limb[0] * 121665 + a.limb[0], (wide)e.limb[1] * 121665 + a.limb[1],
                      (wide)e.limb[2] * 121665 + a.limb[2], (wide)e.limb[3] * 121665 + a.limb[3],
                      (wide)e.limb[4] * 121665 + a.limb[4]);
}

INLINE fe fe_load(const uint8_t *bytes)
{
    const uint64_t w0 = cs_load_le64(bytes), w1 = cs_load_le64(bytes + 8), w2 = cs_load_le64(bytes + 16),
                   w3 = cs_load_le64(bytes + 24);
    return (fe){{w0 & LIMB_MASK, (w0 >> 51 | w1 << 13) & LIMB_MASK, (w1 >> 38 | w2 << 26) & LIMB_MASK,
                 (w2 >> 25 | w3 << 39) & LIMB_MASK, (w3 >> 12) & LIMB_MASK}};
}

/* The one representative below p. */
INLINE fe canonical(fe a)
{
    a = fe_reduce(fe_reduce(a)); /* below 2^255 + 19, limbs below 2^51 + 1 but the first */
    uint64_t carry = 19;         /* a + 19 reaches 2^255 exactly when a >= p */
    for (int i = 0; i < 5; i++)
        carry = (a.limb[i] + carry) >> LIMB_BITS;
    carry *= 19;
    for (int i = 0; i < 5; i++) {
        carry += a.limb[i];
        a.limb[i] = carry & LIMB_MASK;
        carry >>= LIMB_BITS;
    }
    return a;
}

INLINE void fe_store(uint8_t *bytes, fe a)
{
    a = canonical(a);
    cs_store_le64(bytes, a.limb[0] | a.limb[1] << 51);
    cs_store_le64(bytes + 8, a.limb[1] >> 13 | a.limb[2] << 38);
    cs_store_le64(bytes + 16, a.limb[2] >> 26 | a.limb[3] << 25);
    cs_store_le64(bytes + 24, a.limb[3] >> 39 | a.limb[4] << 12);
}

INLINE fe_mask fe_is_zero(fe a)
{
    a = canonical(a);
    const uint64_t any = a.limb[0] | a.limb[1] | a.limb[2] | a.limb[3] | a.limb[4]; /* below 2^51 */
    return 0 - ((any - 1) >> 63);
}

#include "client/align/algorithms.h"

const cs_curve_field cs_curve_field_portable = {.ladder = field_ladder, .map = field_map, .check = field_check};
